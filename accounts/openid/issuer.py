"""An issuer of tokens by its URL: what it says of itself, its keys, and whether a token is its own.

OpenID Connect Discovery 1.0 and JSON Web Tokens (RFC 7519) by the best current practices of RFC 8725: the key comes from the
issuer that is configured and never from the token, and the algorithms that a token may name are those of public keys.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import jwt
import urllib3

from basics import connector
from problems import Malformed, Problem, Unauthenticated, Unavailable, UpstreamFailed

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Those of key pairs: neither `none` nor one whose key both sides have (RFC 8725 sections 3.1 and 3.2)."""
KEY_TYPES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
LONGEST_TOKEN = 16 * 1024
LARGEST_DOCUMENT = 512 * 1024
"""Bytes of what an issuer answers."""
MOST_KEYS = 100
TIMEOUT = 10.0
AT_ONCE = 8
"""Threads of a process that may wait for one issuer: a silent one would take them from all."""
PATIENCE = 2.0
"""Seconds that others wait for a turn, in which an issuer that is not silent answers those before them."""
KEPT = 3600.0
"""Seconds that an issuer's metadata and keys are kept, as long as it signs with none that is unknown."""
AGAIN = 10.0
"""Seconds after which an issuer that failed, or that had no such key, is asked again."""
LEEWAY = 60.0
"""Seconds by which its clock may differ from ours."""
REQUIRED = ["iss", "sub", "aud", "exp", "iat"]
WELL_KNOWN = "/.well-known/openid-configuration"

Claims = Mapping[str, Any]

log = logging.getLogger("entrepot.issuers")


@dataclass(frozen=True)
class Issuer:
    """`url`: the issuer identifier, exactly as its tokens have it in `iss`.

    `ca`: a file with the certificates that its server's is signed by, besides the system's. `allowed`: networks in which other
    hosts that it names may be (see `basics.egress`). `keys`: its JSON Web Key Set as text, where it is not to be asked.
    """

    url: str
    ca: str = ""
    allowed: tuple[str, ...] = ()
    keys: str = ""

    def verify(self, token: str, audience: str) -> Claims:
        """The claims of a token that this issuer signed for `audience`, and that holds now.

        Raises Unauthenticated, with the reason, for any other; Unavailable where the issuer cannot be asked for its keys.
        """
        head = _head_of(token)
        key = self._key_for(head)
        try:
            return jwt.decode(
                token, key.key, algorithms=[head["alg"]], audience=audience, issuer=self.url, leeway=LEEWAY,
                options={"require": REQUIRED},
            )  # fmt: skip
        except jwt.PyJWTError as error:
            raise _refused(_WHY.get(type(error), str(error) or type(error).__name__)) from None

    def metadata(self) -> Claims:
        """What it says of itself (OpenID Connect Discovery 1.0 section 4). Raises Unavailable."""
        return _known_of(self).metadata()

    def get(self, url: str, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        """The status and the JSON of an address that its metadata names; None for what is no JSON. Raises Unavailable."""
        with _known_of(self).turn():
            return self.ask("GET", url, headers or {})

    def post(self, url: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        """As `get`, of a form that is sent there."""
        sent = {"Content-Type": "application/x-www-form-urlencoded", **(headers or {})}
        with _known_of(self).turn():
            return self.ask("POST", url, sent, urlencode(form).encode())

    def _key_for(self, head: Claims) -> jwt.PyJWK:
        """The one key that the token says that it is signed by, if it is one of the issuer's and for that algorithm."""
        known = _known_of(self)
        for anew in (False, True):
            fitting = [key for key in known.keys(anew=anew) if _fits(key, head)]
            if len(fitting) == 1:
                return fitting[0]
            if fitting:
                raise _refused("it does not say by which of the issuer's keys it is signed")
        raise _refused("it is signed by no key of the issuer")

    def ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> tuple[int, Any]:
        """As `get`, of whoever has a turn."""
        own = connector.origin(url) == connector.origin(self.url)
        try:
            with connector.failures():
                changed = os.stat(self.ca).st_mtime_ns if self.ca else 0
                pool = connector.pool_for(self.ca, changed, None if own else self.allowed)
                sent = {"User-Agent": "entrepot", "Accept": "application/json", "Accept-Encoding": "identity", **headers}
                response = connector.request(pool, method, url, sent, TIMEOUT, body)
                return response.status, _json(_whole(response))
        except UpstreamFailed as failure:
            log.warning("the issuer %s could not be asked at %s: %s", self.url, url, _cause(failure))
            raise _out(self.url, failure.detail) from failure


@dataclass
class _Known:
    """What is known of an issuer in this process; one thread asks it, and the others wait for what that finds."""

    issuer: Issuer
    lock: threading.Lock = field(default_factory=threading.Lock)
    turns: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(AT_ONCE))
    read_at: float = -KEPT
    metadata_: Claims = field(default_factory=dict)
    keys_: tuple[jwt.PyJWK, ...] = ()
    failed_at: float = -AGAIN
    failure: Problem | None = None

    def metadata(self) -> Claims:
        self._read(KEPT)
        return self.metadata_

    def keys(self, *, anew: bool = False) -> tuple[jwt.PyJWK, ...]:
        """Its public keys for signatures. `anew`: as of now, unless it was asked a moment ago."""
        if self.issuer.keys:
            return self.keys_ or self._set(_keys_in(_json(self.issuer.keys.encode())))
        self._read(AGAIN if anew else KEPT)
        return self.keys_

    def _set(self, keys: tuple[jwt.PyJWK, ...]) -> tuple[jwt.PyJWK, ...]:
        self.keys_ = keys
        return keys

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Be one of the few threads that may wait for the issuer at once. Raises Unavailable where there are enough."""
        if not self.turns.acquire(timeout=PATIENCE):
            raise _out(self.issuer.url, "too many wait for it already")
        try:
            yield
        finally:
            self.turns.release()

    def _read(self, oldest: float) -> None:
        if time.monotonic() - self.read_at < oldest:
            return
        with self.turn(), self.lock:
            self._read_in_turn(oldest)

    def _read_in_turn(self, oldest: float) -> None:
        now = time.monotonic()
        if now - self.read_at < oldest:
            return
        if self.failure is not None and now - self.failed_at < AGAIN:
            raise copy(self.failure)  # each thread gets a traceback of its own
        try:
            self._read_now()
        except Problem as failure:
            self.failure, self.failed_at = failure, time.monotonic()
            raise
        self.read_at, self.failure = time.monotonic(), None

    def _read_now(self) -> None:
        issuer = self.issuer
        said = self._document(issuer.url.rstrip("/") + WELL_KNOWN)
        if said.get("issuer") != issuer.url:
            raise _out(issuer.url, "it calls itself by another name, which must be the same to the last character")
        address = said.get("jwks_uri")
        if not isinstance(address, str):
            raise _out(issuer.url, "it does not say where its keys are")
        self.keys_ = _keys_in(self._document(connector.led_to(issuer.url, address)))
        self.metadata_ = said

    def _document(self, url: str) -> Claims:
        status, said = self.issuer.ask("GET", url, {})
        if status != 200 or not isinstance(said, dict):
            raise _out(self.issuer.url, f"it answers {status} and no document")
        return said


_issuers: dict[Issuer, _Known] = {}
MOST_ISSUERS = 1000


def _known_of(issuer: Issuer) -> _Known:
    known = _issuers.get(issuer)
    if known is None:
        if len(_issuers) >= MOST_ISSUERS:
            _issuers.clear()
        known = _issuers.setdefault(issuer, _Known(issuer))
    return known


def issuer_in(token: str) -> str:
    """The issuer that a token says it is of, which is not yet believed. Raises Unauthenticated for what is no token."""
    _head_of(token)
    try:
        said = jwt.decode(token, options={"verify_signature": False}).get("iss")
    except jwt.PyJWTError:
        said = None
    if not isinstance(said, str):
        raise _refused("it says no issuer")
    return said


def checked_keys(keys: Any) -> str:
    """A JSON Web Key Set (RFC 7517 section 5) as the text that `Issuer` takes. Raises Malformed."""
    try:
        found = _keys_in(keys)
    except Problem:
        found = ()
    if not found:
        raise Malformed("keys is a JSON Web Key Set with at least one public key for signatures", rule="issuer.keys")
    return json.dumps(keys, sort_keys=True)


def _head_of(token: str) -> Claims:
    """The head of a token, which says how to check it and is not believed in anything else."""
    if len(token) > LONGEST_TOKEN:
        raise _refused(f"it has more than {LONGEST_TOKEN} characters")
    try:
        head = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError):
        raise _refused("it is no JSON Web Token") from None
    if head.get("alg") not in ALGORITHMS:
        raise _refused(f"it is signed by {str(head.get('alg'))[:20]}, which is not taken; {', '.join(ALGORITHMS)} are")
    if "crit" in head:
        raise _refused("it demands what is not known here")
    return head


def _fits(key: jwt.PyJWK, head: Claims) -> bool:
    said: Claims = key._jwk_data
    named = head.get("kid")
    return (
        said.get("kty") == KEY_TYPES[head["alg"][:2]]
        and said.get("alg", head["alg"]) == head["alg"]
        and (named is None or said.get("kid") == named)
    )


def _keys_in(document: Any) -> tuple[jwt.PyJWK, ...]:
    """The public keys for signatures of a set; those that cannot be read are none."""
    listed = document.get("keys") if isinstance(document, dict) else None
    found = []
    for said in (listed if isinstance(listed, list) else [])[:MOST_KEYS]:
        if not isinstance(said, dict) or said.get("kty") not in KEY_TYPES.values() or said.get("use", "sig") != "sig":
            continue
        try:
            found.append(jwt.PyJWK(said))
        except (jwt.PyJWTError, ValueError, TypeError):
            continue
    return tuple(found)


def _whole(response: urllib3.BaseHTTPResponse) -> bytes:
    """The body, which has to come within TIMEOUT: others wait for it."""
    deadline = time.monotonic() + TIMEOUT
    try:
        content = bytearray()
        while piece := response.read1(64 * 1024, decode_content=False):
            content += piece
            if len(content) > LARGEST_DOCUMENT:
                raise UpstreamFailed(f"its answer has more than {LARGEST_DOCUMENT} bytes")
            if time.monotonic() > deadline:
                raise UpstreamFailed("its answer comes too slowly")
        return bytes(content)
    finally:
        response.close()


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _refused(why: str) -> Unauthenticated:
    return Unauthenticated(f"the token is refused: {why}", rule="token.issuer")


def _cause(error: BaseException) -> BaseException:
    """What it all began with; for the log, since it may tell what is configured."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _out(issuer: str, why: str) -> Unavailable:
    return Unavailable(f"the issuer {issuer} cannot be asked: {why}", rule="issuer.failed", headers={"Retry-After": "10"})


_WHY: dict[type[Exception], str] = {
    jwt.ExpiredSignatureError: "it has expired",
    jwt.ImmatureSignatureError: "it is not valid yet",
    jwt.InvalidAudienceError: "it is for another audience",
    jwt.InvalidIssuerError: "it is of another issuer",
    jwt.InvalidSignatureError: "its signature is not that of the issuer",
    jwt.InvalidAlgorithmError: "it is not signed as it says",
}
