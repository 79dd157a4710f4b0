"""Which tokens an issuer is believed to have made: by a real HTTP server that says what its keys are."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from accounts.openid import issuer as issuers
from accounts.openid.issuer import Issuer, checked_keys, issuer_in
from problems import Malformed, Problem, Unauthenticated, Unavailable

AUDIENCE = "entrepot"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


class Server:
    """Answers what `pages` has for a path: a status and a document; counts who asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.pages: dict[str, tuple[int, Any]] = {}
        here = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                here.asked.append(self.path)
                status, said = here.pages.get(self.path, (404, {}))
                content = said if isinstance(said, bytes) else json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.pages[issuers.WELL_KNOWN] = 200, {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        self.say(("one", RSA))
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def say(self, *keys: tuple[str, Any]) -> None:
        self.pages["/keys"] = 200, {"keys": [_public(kid, key) for kid, key in keys]}

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def token(self, key: Any = RSA, alg: str = "RS256", head: dict[str, Any] | None = None, **claims: Any) -> str:
        now = int(time.time())
        said = {"iss": self.url, "sub": "somebody", "aud": AUDIENCE, "iat": now, "exp": now + 300, **claims}
        said = {name: value for name, value in said.items() if value is not None}
        heads = {"kid": "one", **(head or {})}
        return jwt.encode(said, key, algorithm=alg, headers={name: value for name, value in heads.items() if value})

    @property
    def fetches(self) -> int:
        return self.asked.count("/keys")


def _public(kid: str, key: Any) -> dict[str, Any]:
    for algorithm in (jwt.algorithms.RSAAlgorithm, jwt.algorithms.ECAlgorithm, jwt.algorithms.OKPAlgorithm):
        try:
            return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": kid, "use": "sig"}
        except (jwt.PyJWTError, AttributeError, TypeError):
            continue
    raise AssertionError(key)


@pytest.fixture
def server() -> Iterator[Server]:
    issuers._issuers.clear()
    one = Server()
    yield one
    one.stop()


def verify(server: Server, token: str) -> Any:
    return Issuer(server.url).verify(token, AUDIENCE)


@pytest.mark.parametrize(
    ("key", "alg"), [(RSA, "RS256"), (RSA, "PS512"), (EC, "ES256"), (ED, "EdDSA")], ids=["RSA", "PSS", "EC", "Ed25519"]
)
def test_a_token_by_a_key_of_the_issuer_is_believed(server: Server, key: Any, alg: str) -> None:
    server.say(("one", key))
    assert verify(server, server.token(key, alg, repository="corp/app"))["repository"] == "corp/app"


def test_keys_are_asked_for_once(server: Server) -> None:
    for _ in range(20):
        verify(server, server.token())
    assert server.fetches == 1


def test_a_token_by_a_known_key_asks_nobody_however_often_others_make_the_issuer_be_asked(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuers, "AGAIN", 0.0)
    verify(server, server.token())
    with contextlib.ExitStack() as turns:
        for _ in range(issuers.AT_ONCE):
            turns.enter_context(issuers._known_of(Issuer(server.url)).turn())
        assert verify(server, server.token())
    assert server.fetches == 1


def _none(server: Server) -> str:
    return jwt.encode(jwt.decode(server.token(), options={"verify_signature": False}), "", algorithm="none")


def _hmac_with_the_public_key(server: Server) -> str:
    """What a library that takes the public key for a shared secret would believe; made by hand, since PyJWT refuses to."""
    public = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    body = server.token().split(".")[1]
    head = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "typ": "JWT", "kid": "one"}).encode()).rstrip(b"=").decode()
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(f"{head}.{body}".encode(), public)
    return f"{head}.{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def _altered(server: Server) -> str:
    head, _, signature = server.token().split(".")
    return ".".join((head, server.token(sub="administrator").split(".")[1], signature))


FORGED: dict[str, Callable[[Server], str]] = {
    "no signature": _none,
    "signature stripped": lambda server: server.token().rpartition(".")[0] + ".",
    "public key as a shared secret": _hmac_with_the_public_key,
    "altered": _altered,
    "another key": lambda server: server.token(OTHER_RSA),
    "key in its head": lambda server: server.token(OTHER_RSA, head={"jwk": _public("one", OTHER_RSA)}),
    "address of keys in its head": lambda server: server.token(OTHER_RSA, head={"jku": f"{server.url}/evil", "kid": "evil"}),
    "certificate's address in its head": lambda server: server.token(OTHER_RSA, head={"x5u": f"{server.url}/evil"}),
    "unknown key": lambda server: server.token(OTHER_RSA, head={"kid": "two"}),
    "demands an extension": lambda server: server.token(head={"crit": ["exp"]}),
    "expired": lambda server: server.token(exp=int(time.time()) - 300),
    "never expires": lambda server: server.token(exp=None),
    "not valid yet": lambda server: server.token(nbf=int(time.time()) + 300),
    "made in the future": lambda server: server.token(iat=int(time.time()) + 3000),
    "another audience": lambda server: server.token(aud="somebody-else"),
    "no audience": lambda server: server.token(aud=None),
    "another issuer": lambda server: server.token(iss="https://sso.example.org"),
    "nearly the issuer": lambda server: server.token(iss=f"{server.url}/"),
    "of nobody": lambda server: server.token(sub=None),
    "too long": lambda server: server.token(filler="x" * 20_000),
    "no token": lambda _: "x.y.z",
    "empty": lambda _: "",
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_no_other_token_is_believed(server: Server, forge: Callable[[Server], str]) -> None:
    assert verify(server, server.token())
    with pytest.raises(Unauthenticated):
        verify(server, forge(server))
    assert "/evil" not in server.asked


def test_a_key_that_is_new_is_found_and_one_that_is_gone_is_not_believed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuers, "AGAIN", 0.0)
    old = server.token()
    verify(server, old)
    server.say(("two", OTHER_RSA))
    assert verify(server, server.token(OTHER_RSA, head={"kid": "two"}))
    with pytest.raises(Unauthenticated):
        verify(server, old)


def test_tokens_by_unknown_keys_make_nobody_ask_again_and_again(server: Server) -> None:
    verify(server, server.token())
    for _ in range(50):
        with pytest.raises(Unauthenticated):
            verify(server, server.token(OTHER_RSA, head={"kid": "two"}))
    assert server.fetches == 1


def test_a_token_that_names_no_key_is_believed_where_there_is_one_alone(server: Server) -> None:
    assert verify(server, server.token(head={"kid": None}))
    issuers._issuers.clear()
    server.say(("one", RSA), ("two", OTHER_RSA))
    with pytest.raises(Unauthenticated, match="which of the issuer's keys"):
        verify(server, server.token(head={"kid": None}))


OUT: dict[str, Callable[[Server], Any]] = {
    "no metadata": lambda server: server.pages.pop(issuers.WELL_KNOWN),
    "an error": lambda server: server.pages.update({issuers.WELL_KNOWN: (500, {})}),
    "no JSON": lambda server: server.pages.update({issuers.WELL_KNOWN: (200, b"<html>")}),
    "another name": lambda server: server.pages.update({issuers.WELL_KNOWN: (200, {"issuer": "x", "jwks_uri": "/keys"})}),
    "keys nowhere": lambda server: server.pages.update({issuers.WELL_KNOWN: (200, {"issuer": server.url})}),
    "keys too large": lambda server: server.pages.update({"/keys": (200, b" " * 600_000)}),
    "no keys": lambda server: server.pages.update({"/keys": (404, {})}),
    "not there": lambda server: server.stop(),
}


@pytest.mark.parametrize("end", OUT.values(), ids=OUT)
def test_an_issuer_that_fails_is_said_to_and_no_token_is_called_wrong(server: Server, end: Callable[[Server], Any]) -> None:
    token = server.token()
    end(server)
    with pytest.raises(Unavailable, match="cannot be asked"):
        verify(server, token)


def test_the_log_tells_why_an_issuer_could_not_be_asked(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Unavailable):
        Issuer(server.url, ca="/there/is/no/such/file.pem").verify(server.token(), AUDIENCE)
    assert "file.pem" in caplog.text


def test_many_who_come_before_the_keys_are_known_wait_for_them(server: Server) -> None:
    known: list[Any] = []
    threads = [threading.Thread(target=lambda: known.append(verify(server, server.token()))) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(known), server.fetches) == (40, 1)


def test_a_failed_issuer_is_left_alone_for_a_moment(server: Server) -> None:
    server.pages[issuers.WELL_KNOWN] = 500, {}
    for _ in range(20):
        with pytest.raises(Unavailable):
            verify(server, server.token())
    assert server.asked == [issuers.WELL_KNOWN]


def test_of_many_that_wait_for_a_silent_issuer_all_but_a_few_are_told_at_once(server: Server) -> None:
    silent = socket.create_server(("127.0.0.1", 0), backlog=100)
    server.pages[issuers.WELL_KNOWN] = 200, {"issuer": server.url, "jwks_uri": f"http://127.0.0.1:{silent.getsockname()[1]}/"}
    issuer = Issuer(server.url, allowed=("127.0.0.0/8",))
    told: list[Problem] = []

    def wait() -> None:
        try:
            issuer.verify(server.token(), AUDIENCE)
        except Unavailable as problem:
            told.append(problem)

    threads = [threading.Thread(target=wait) for _ in range(issuers.AT_ONCE + 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    silent.close()
    assert len(told) == len(threads)
    assert sum("too many wait" in problem.detail for problem in told) == 20


def test_keys_that_are_known_outlast_a_failure(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuers, "AGAIN", 0.0)
    verify(server, server.token())
    server.pages["/keys"] = 500, {}
    assert verify(server, server.token())
    with pytest.raises(Unavailable):
        verify(server, server.token(OTHER_RSA, head={"kid": "two"}))


def test_keys_inside_are_not_fetched_for_what_a_document_says(server: Server) -> None:
    """The issuer itself may be inside; what it names elsewhere is public, or allowed."""
    other = Server()
    try:
        server.pages[issuers.WELL_KNOWN] = 200, {"issuer": server.url, "jwks_uri": f"{other.url}/keys"}
        with pytest.raises(Unavailable, match=r"egress\.allow"):
            verify(server, server.token())
        assert other.asked == []
        assert Issuer(server.url, allowed=("127.0.0.0/8",)).verify(server.token(), AUDIENCE)
    finally:
        other.stop()


def test_keys_that_are_configured_are_used_and_the_issuer_is_not_asked(server: Server) -> None:
    keys = checked_keys({"keys": [_public("one", RSA)]})
    assert Issuer(server.url, keys=keys).verify(server.token(), AUDIENCE)
    with pytest.raises(Unauthenticated):
        Issuer(server.url, keys=keys).verify(server.token(OTHER_RSA), AUDIENCE)
    assert server.asked == []


NO_KEYS: list[Any] = [{}, {"keys": []}, {"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}, {"keys": [{"kty": "RSA"}]}, [], "x"]


@pytest.mark.parametrize("keys", NO_KEYS)
def test_a_set_without_a_public_key_is_refused(keys: Any) -> None:
    with pytest.raises(Malformed, match="JSON Web Key Set"):
        checked_keys(keys)


def test_the_issuer_of_a_token_is_read_without_believing_it(server: Server) -> None:
    assert issuer_in(server.token(OTHER_RSA)) == server.url
    for text in ("", "x", "a.b.c", server.token(iss=None)):
        with pytest.raises(Unauthenticated):
            issuer_in(text)
