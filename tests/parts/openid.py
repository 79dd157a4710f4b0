"""OpenID Connect providers: a real one as a process of its own, and one that says whatever a test wants."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import secrets
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.parts.browser import Browser, Page
from tests.parts.daemons import Daemon
from tests.parts.server import _free_port


class Provider(Daemon):
    """oidc-provider-mock: discovery, code flow, ID tokens, userinfo. Anybody whom a test names has an account there."""

    def __init__(self, folder: Path):
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__(
            folder, [sys.executable, "-m", "oidc_provider_mock", "--port", str(self.port), "--require-nonce", "true"]
        )

    def ready(self) -> bool:
        try:
            return self._ask("GET", "/.well-known/openid-configuration") == 200
        except OSError:
            return False

    def knows(self, subject: str, **claims: Any) -> None:
        """What it says of somebody from now on."""
        assert self._ask("PUT", f"/users/{subject}", json.dumps(claims).encode()) == 204

    def sign_in(self, browser: Browser, subject: str, name: str = "sso", next: str = "") -> Page:
        """Press the button of this provider, sign in there, and come back: where the browser is led then."""
        there = browser.get(f"/ui/sign-in/{name}/?{urlencode({'next': next})}")
        assert there.status == 302, there.text
        return browser.get(browser.ask("POST", there.location, {"sub": subject}).location)

    def _ask(self, method: str, path: str, body: bytes | None = None) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()


KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
KEY_ID = "the-key"


@dataclass
class Scripted:
    """A provider that checks what a client must send, as RFC 6749 and RFC 7636 have it, and answers what a test wants.

    `claims`: what its ID tokens say besides, or instead; None: not at all. `sign`: makes a token of claims. `lenient`: it gives
    tokens for a code again and again. `token_answer`: what its token endpoint says instead. `userinfo`: what it says when it is
    asked, None: who it is about; a status: that.
    """

    client_id: str = "entrepot"
    client_secret: str = "the client's secret + % :"
    metadata: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict)
    userinfo: dict[str, Any] | int | None = None
    sign: Callable[[dict[str, Any]], str] | None = None
    lenient: bool = False
    token_answer: tuple[int, Any] | None = None
    seen: list[tuple[str, dict[str, str], dict[str, str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._codes: dict[str, dict[str, str]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"provider": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.jwk = {
            **json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key())),
            "kid": KEY_ID,
            "use": "sig",
            "alg": "RS256",
        }
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def allow(self, location: str) -> str:
        """Somebody signs in at the address to which they were sent: the address to which they are sent back."""
        assert location.startswith(f"{self.url}/authorize?"), location
        asked = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
        assert asked["response_type"] == "code"
        assert asked["client_id"] == self.client_id
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split()
        assert min(len(asked["state"]), len(asked["nonce"]), len(asked["code_challenge"])) >= 43
        code = secrets.token_urlsafe(16)
        self._codes[code] = asked
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"

    def documents(self) -> dict[str, Any]:
        return {
            "/.well-known/openid-configuration": {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "userinfo_endpoint": f"{self.url}/userinfo",
                "jwks_uri": f"{self.url}/keys",
                **self.metadata,
            },
            "/keys": {"keys": [self.jwk]},
        }

    def tokens(self, form: dict[str, str], headers: dict[str, str]) -> tuple[int, Any]:
        if self.token_answer is not None:
            return self.token_answer
        if not self._is_client(form, headers):
            return 401, {"error": "invalid_client"}
        asked = self._codes.get(form.get("code", "")) if self.lenient else self._codes.pop(form.get("code", ""), None)
        challenge = (
            base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest()).rstrip(b"=").decode()
        )
        right = asked and form.get("redirect_uri") == asked["redirect_uri"] and challenge == asked["code_challenge"]
        if not right or form.get("grant_type") != "authorization_code":
            return 400, {"error": "invalid_grant"}
        token = (self.sign or self.signed)(self.said(asked["nonce"]))
        return 200, {"access_token": "an-access-token", "token_type": "Bearer", "expires_in": 60, "id_token": token}

    def said(self, nonce: str) -> dict[str, Any]:
        now = int(time.time())
        plain = {
            "iss": self.url, "sub": "subject-1", "aud": self.client_id, "iat": now, "exp": now + 300, "nonce": nonce,
            "preferred_username": "mallory", "groups": [],
        }  # fmt: skip
        return {name: value for name, value in {**plain, **self.claims}.items() if value is not None}

    def signed(self, claims: dict[str, Any], **head: Any) -> str:
        return jwt.encode(claims, KEY, algorithm="RS256", headers={"kid": KEY_ID, **head})

    def _is_client(self, form: dict[str, str], headers: dict[str, str]) -> bool:
        """By what its metadata says of how clients authenticate (RFC 6749 section 2.3.1)."""
        methods = self.metadata.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if "none" in methods:
            return form.get("client_id") == self.client_id and "client_secret" not in form
        if "client_secret_basic" not in methods:
            return (form.get("client_id"), form.get("client_secret")) == (self.client_id, self.client_secret)
        pair = urlencode({"": self.client_id})[1:] + ":" + urlencode({"": self.client_secret})[1:]
        return headers.get("Authorization") == "Basic " + base64.b64encode(pair.encode()).decode()


class _Handler(BaseHTTPRequestHandler):
    provider: Scripted

    def do_GET(self) -> None:
        provider = self.provider
        provider.seen.append((self.path, {}, dict(self.headers)))
        if self.path == "/userinfo":
            said = {"sub": provider.claims.get("sub")} if provider.userinfo is None else provider.userinfo
            right = self.headers.get("Authorization") == "Bearer an-access-token"
            self._answer(said if isinstance(said, int) else 200 if right else 401, {} if isinstance(said, int) else said)
        elif self.path in provider.documents():
            self._answer(200, provider.documents()[self.path])
        else:
            self._answer(404, {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        self.provider.seen.append((self.path, form, dict(self.headers)))
        self._answer(*self.provider.tokens(form, dict(self.headers)))

    def _answer(self, status: int, said: Any) -> None:
        content = said if isinstance(said, bytes) else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass
