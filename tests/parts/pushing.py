"""A registry's client that sends exactly what it is told, and a cast of repositories and users for it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from tests.parts import oci
from tests.parts.api import PASSWORD
from tests.parts.server import Answer, Server

CAST = {
    "version": 1,
    "repositories": [
        {"key": "local", "format": "oci", "kind": "local"},
        {"key": "other", "format": "oci", "kind": "local"},
        {"key": "secret", "format": "oci", "kind": "local"},
        {"key": "open", "format": "oci", "kind": "local"},
        {"key": "fixed", "format": "oci", "kind": "local", "immutable": ["team/*:v*"]},
        {"key": "virtual", "format": "oci", "kind": "virtual", "members": ["local", "other"], "deploy_to": "local"},
    ],
    "roles": [{"name": "creator", "permissions": ["artifact:read", "artifact:write"]}],
    "users": [{"name": name, "password": PASSWORD} for name in ("owner", "developer", "creator", "reader", "team", "outsider")],
    "grants": [
        {"role": "owner", "users": ["owner"], "repositories": ["*"]},
        {"role": "developer", "users": ["developer"], "repositories": ["local", "other", "fixed", "virtual"]},
        {"role": "creator", "users": ["creator"], "repositories": ["local", "other", "fixed", "virtual"]},
        {"role": "reader", "users": ["reader"], "repositories": ["local", "other", "fixed", "virtual"]},
        {"role": "developer", "users": ["team"], "repositories": ["local"], "paths": ["team/**"]},
        {"role": "reader", "anonymous": True, "repositories": ["open"]},
    ],
}


@dataclass(frozen=True)
class Images:
    """The images of one repository, as somebody: by name and password, by a pass (`bearer`), or as nobody."""

    server: Server
    repository: str = "local"
    user: str = "developer"
    bearer: str = ""

    def by(self, user: str, repository: str = "") -> Images:
        return replace(self, user=user, repository=repository or self.repository, bearer="")

    def showing(self, bearer: str) -> Images:
        return replace(self, bearer=bearer)

    def ask(self, method: str, path: str, body: bytes | Iterable[bytes] | None = None, **headers: str) -> Answer:
        """`path` is that of a repository, or begins with a slash and is the whole."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        whole = path if path.startswith("/") else f"/v2/{self.repository}/{path}"
        return self.server.request(method, whole, body, self.authorization | sent)

    @property
    def authorization(self) -> dict[str, str]:
        if self.bearer:
            return {"Authorization": f"Bearer {self.bearer}"}
        return Server.authorization((self.user, PASSWORD) if self.user else None)

    # Blobs

    def begin(self, image: str, **query: str) -> Answer:
        return self.ask("POST", f"{image}/blobs/uploads/{asked(query)}", b"")

    def session(self, image: str) -> str:
        """Where a new upload is continued."""
        answer = self.begin(image)
        assert answer.status == 202, answer
        return answer.headers["Location"]

    def finish(self, location: str, digest: str, body: bytes | Iterable[bytes] | None = b"", **headers: str) -> Answer:
        return self.ask("PUT", f"{location}{asked({'digest': digest})}", body, **headers)

    def push_blob(self, image: str, content: bytes) -> str:
        digest = oci.digest(content)
        answer = self.ask("POST", f"{image}/blobs/uploads/{asked({'digest': digest})}", content)
        assert answer.status == 201, answer
        return digest

    # Manifests

    def put(self, image: str, reference: str, content: bytes, media_type: str = "", **headers: str) -> Answer:
        """Put a manifest, by default as what it says that it is."""
        media_type = media_type or json.loads(content)["mediaType"]
        return self.ask("PUT", f"{image}/manifests/{reference}", content, Content_Type=media_type, **headers)

    def get(self, image: str, reference: str, **headers: str) -> Answer:
        return self.ask("GET", f"{image}/manifests/{reference}", **headers)

    def push(self, image: str, reference: str, text: str = "", **more: Any) -> bytes:
        """Push an image whose only layer is the text; returns its manifest."""
        for content in (b"{}", text.encode()):
            self.push_blob(image, content)
        manifest = oci.manifest(b"{}", text.encode(), **more)
        answer = self.put(image, reference, manifest)
        assert answer.status == 201, answer
        return manifest

    # Tokens

    def token(self, *scopes: str, **query: str) -> str:
        """A pass for these scopes, by the token service."""
        words = [("scope", scope) for scope in scopes] + list(query.items())
        answer = self.ask("GET", f"/v2/token?{urlencode(words)}")
        assert answer.status == 200, answer
        return json.loads(answer.body)["token"]


def asked(query: dict[str, str]) -> str:
    """The query part of a URL; `from_` stands for `from`."""
    return f"?{urlencode({name.rstrip('_'): value for name, value in query.items()})}" if query else ""


def code(answer: Answer) -> str:
    """The specification's error code, of an answer that tells one error in its form."""
    (error,) = json.loads(answer.body)["errors"]
    assert error["message"]
    return error["code"]


def parts(server: Server) -> int:
    """How many parts of uploads are in the store."""
    return sum(1 for _ in (server.data / "blobs" / "parts").iterdir())
