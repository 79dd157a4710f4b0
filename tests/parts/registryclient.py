"""A registry's client that sends exactly what it is told, and a cast of repositories and users for it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from tests.parts.api import ADMIN, PASSWORD
from tests.parts.images import Image
from tests.parts.oci import INDEX, MANIFEST, digest
from tests.parts.server import Answer, Server, named

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
class RegistryClient:
    """The images of the repository `name`, or one of them: `RegistryClient(server, "local/team/app")`, as somebody.

    By name and password, by a pass (`bearer`), or as nobody.
    """

    server: Server
    name: str
    user: tuple[str, str] | None = ADMIN
    bearer: str = ""

    def of(self, image: str) -> RegistryClient:
        """One image of the repository, which is what all that pushes and pulls is of."""
        return replace(self, name=f"{self.name}/{image}")

    def by(self, user: str, name: str = "") -> RegistryClient:
        return replace(self, user=(user, PASSWORD) if user else None, name=name or self.name, bearer="")

    def showing(self, bearer: str) -> RegistryClient:
        return replace(self, bearer=bearer)

    def on(self, server: Server) -> RegistryClient:
        """The same by way of another node."""
        return replace(self, server=server)

    def ask(self, method: str, path: str, body: bytes | Iterable[bytes] | None = None, **headers: str) -> Answer:
        """`path` is below the name, or begins with a slash and is the whole."""
        whole = path if path.startswith("/") else f"/v2/{self.name}/{path}"
        return self.server.request(method, whole, body, self.authorization | named(headers))

    @property
    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.bearer}"} if self.bearer else Server.authorization(self.user)

    def status(self, path: str) -> int:
        return self.ask("HEAD", path).status

    def delete(self, path: str) -> None:
        answer = self.ask("DELETE", path)
        assert answer.status == 202, answer

    # Blobs

    def begin(self, **query: str) -> Answer:
        return self.ask("POST", f"blobs/uploads/{asked(query)}", b"")

    def session(self) -> str:
        """Where a new upload is continued."""
        answer = self.begin()
        assert answer.status == 202, answer
        return answer.headers["Location"]

    def add(self, session: str, body: bytes | Iterable[bytes], start: int | None = None, size: int | None = None) -> Answer:
        """PATCH; with `start` and the body's size it says which bytes it sends."""
        size = len(body) if isinstance(body, bytes) else size
        place = {} if start is None or size is None else {"Content_Range": f"{start}-{start + size - 1}"}
        return self.ask("PATCH", session, body, Content_Type="application/octet-stream", **place)

    def come(self, session: str) -> int | None:
        """How many bytes the session says have come; None where there is no such session."""
        answer = self.ask("GET", session)
        if answer.status == 404:
            return None
        assert answer.status == 204, answer
        last = int(re.fullmatch("0-([0-9]+)", answer.headers["Range"])[1])
        return last + 1 if last else 0

    def finish(self, session: str, name: str, body: bytes | Iterable[bytes] | None = b"", **headers: str) -> Answer:
        """PUT, with the digest that the bytes are said to have."""
        return self.ask("PUT", f"{session}{asked({'digest': name})}", body, **headers)

    def put_blob(self, content: bytes, algorithm: str = "sha256") -> Answer:
        """In one request."""
        return self.ask("POST", f"blobs/uploads/{asked({'digest': digest(content, algorithm)})}", content)

    def push_blob(self, content: bytes) -> str:
        answer = self.put_blob(content)
        assert answer.status == 201, answer
        return digest(content)

    def has_blob(self, content: bytes, algorithm: str = "sha256") -> bool:
        got = self.ask("GET", f"blobs/{digest(content, algorithm)}")
        return (got.status, got.body) == (200, content)

    # Manifests

    def put(self, reference: str, content: bytes, media_type: str = "", **headers: str) -> Answer:
        """Put a manifest, by default as what it says that it is."""
        media_type = media_type or json.loads(content)["mediaType"]
        return self.ask("PUT", f"manifests/{reference}", content, Content_Type=media_type, **headers)

    def get(self, reference: str, **headers: str) -> Answer:
        return self.ask("GET", f"manifests/{reference}", **headers)

    def push(self, one: Image, *references: str) -> bytes:
        """All of an image, its manifest by each of these, or by its digest without any; returns the manifest."""
        for content in one.blobs:
            self.push_blob(content)
        for reference in references or (one.digest,):
            answer = self.put(reference, one.manifest)
            assert answer.status == 201, answer
        return one.manifest

    def has(self, one: Image, reference: str = "") -> bool:
        """Whether the manifest by this reference and all that it refers to are pulled, with the right bytes."""
        got = self.get(reference or one.digest, Accept=f"{MANIFEST}, {INDEX}")
        return (got.status, got.body) == (200, one.manifest) and all(self.has_blob(content) for content in one.blobs)

    def referrers(self, subject: str) -> set[str]:
        return {entry["digest"] for entry in json.loads(self.ask("GET", f"referrers/{subject}").body)["manifests"]}

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
