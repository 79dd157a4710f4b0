"""A scripted registry: it has the images that a test gives it, wants tokens if told to, and writes down what it is asked."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from ssl import SSLContext
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.parts import oci
from tests.parts.server import basic
from tests.parts.upstream import Handler, Route, Upstream

Reply = tuple[int, bytes, dict[str, str]]
DOCUMENT = re.compile(r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs|tags|referrers)/(?P<reference>[^/?]+)(?:\?.*)?")


@dataclass(frozen=True)
class Asked:
    """One request to a registry or a token service; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def authorization(self) -> str:
        return self.headers.get("authorization", "")


class Recording(Handler):
    """GET and HEAD alike are written down, and then answered by the upstream's `always`, its `routes`, or its `respond`."""

    upstream: Registry | TokenServer

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.upstream.asked_for.append(Asked(self.command, self.path, headers))
        route = self.upstream.always or self.upstream.routes.get(self.path)
        if route is None:
            self.answer(*self.upstream.respond(self))
        elif callable(route):
            route(self)
        else:
            self.answer(*((200, route) if isinstance(route, bytes) else (route, b"the registry says so")))

    do_HEAD = do_GET  # noqa: N815 - the name that http.server calls


class Tokens:
    """What a token service knows: who may have tokens, and which it has given for which scopes.

    `login`: a user and password, without which nobody is given one; None: everybody is. `scoped`: whether challenges say for
    what one is needed.
    """

    def __init__(self, url: str, login: tuple[str, str] | None = None, lifetime: int = 300):
        self.url, self.login, self.lifetime = url, login, lifetime
        self.scoped = True
        self.given: dict[str, list[str]] = {}

    def respond(self, handler: Handler) -> Reply:
        if self.login and handler.headers.get("Authorization") != basic(self.login):
            return 401, b'{"errors":[{"code":"UNAUTHORIZED"}]}', {}
        token = secrets.token_urlsafe(16)
        self.given[token] = parse_qs(urlsplit(handler.path).query).get("scope", [])
        return 200, json.dumps({"token": token, "expires_in": self.lifetime}).encode(), {"Content-Type": "application/json"}

    def challenge(self, name: str) -> dict[str, str]:
        scope = f',scope="repository:{name}:pull"' if self.scoped else ""
        return {"WWW-Authenticate": f'Bearer realm="{self.url}/token",service="scripted"{scope}'}

    def admits(self, authorization: str, name: str) -> bool:
        token = authorization.removeprefix("Bearer ")
        return f"repository:{name}:pull" in self.given.get(token, [])


class TokenServer(Upstream):
    """A token service at an origin of its own."""

    handler = Recording

    def __init__(self, login: tuple[str, str] | None = None):
        self.asked_for: list[Asked] = []
        self.always: Route | None = None
        super().__init__()
        self.tokens = Tokens(self.url, login)

    def respond(self, handler: Handler) -> Reply:
        return self.tokens.respond(handler)


class Registry(Upstream):
    """`push` gives it an image. `always` comes before all else, `routes` by path next; for GET and HEAD alike.

    `tokens`: without one of these nobody pulls. `tells_digests`: whether its answers have Docker-Content-Digest. `referrers`:
    by subject, the descriptors that this API tells; None: it has no such API.
    """

    handler = Recording

    def __init__(self, tls: SSLContext | None = None):
        self.asked_for: list[Asked] = []
        self.always: Route | None = None
        self.manifests: dict[tuple[str, str], bytes] = {}
        self.blobs: dict[tuple[str, str], bytes] = {}
        self.tokens: Tokens | None = None
        self.tells_digests = True
        self.referrers: dict[str, list[dict[str, Any]]] | None = None
        super().__init__(tls=tls)

    def push(self, name: str, tag: str, manifest: bytes, *blobs: bytes) -> str:
        """The manifest by its tag and digest, which is returned, and blobs of the image."""
        digest = oci.digest(manifest)
        self.manifests[name, digest] = self.manifests[name, tag] = manifest
        self.blobs |= {(name, oci.digest(blob)): blob for blob in blobs}
        return digest

    def respond(self, handler: Handler) -> Reply:
        if self.tokens and handler.path.startswith("/token?"):
            return self.tokens.respond(handler)
        match = DOCUMENT.fullmatch(handler.path)
        if match is None:
            return 404, b"", {}
        name, kind, reference = match.groups()
        if self.tokens and not self.tokens.admits(handler.headers.get("Authorization", ""), name):
            return 401, b'{"errors":[{"code":"UNAUTHORIZED"}]}', self.tokens.challenge(name)
        return self._document(name, kind, reference)

    def _document(self, name: str, kind: str, reference: str) -> Reply:
        if kind == "tags":
            tags = [tag for image, tag in self.manifests if image == name and ":" not in tag]
            return _json({"name": name, "tags": sorted(tags)}) if tags else _unknown()
        if kind == "referrers":
            if self.referrers is None:
                return _unknown()
            return 200, oci.index(manifests=self.referrers.get(reference, [])), {"Content-Type": oci.INDEX}
        content = (self.manifests if kind == "manifests" else self.blobs).get((name, reference))
        if content is None:
            return _unknown()
        if kind == "blobs":
            return 200, content, {"Content-Type": "application/octet-stream"}
        told = {"Docker-Content-Digest": oci.digest(content)} if self.tells_digests else {}
        return 200, content, {"Content-Type": json.loads(content)["mediaType"], **told}

    def lines(self, *parts: str) -> list[str]:
        """What was asked, in order, as `GET /v2/...`: all, or what has one of the parts in it."""
        return [one.line for one in self.asked_for if not parts or any(part in one.line for part in parts)]


def seen_by(server: Registry | TokenServer) -> list[str]:
    """Every Authorization header that came."""
    return [one.authorization for one in server.asked_for if one.authorization]


def denying(status: int) -> Callable[[Handler], None]:
    return lambda handler: handler.answer(status, b'{"errors":[{"code":"DENIED","message":"requested access is denied"}]}')


def _json(value: Any) -> Reply:
    return 200, json.dumps(value).encode(), {"Content-Type": "application/json"}


def _unknown() -> Reply:
    return 404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}', {}
