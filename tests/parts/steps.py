"""Images, and a client that pushes and pulls them step by step."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.parts.oci import INDEX, MANIFEST, digest, manifest
from tests.parts.server import ADMIN_PASSWORD, Answer, Server

ADMIN = ("admin", ADMIN_PASSWORD)


@dataclass(frozen=True)
class Image:
    """A manifest with the contents that it refers to."""

    manifest: bytes
    blobs: tuple[bytes, ...]

    @property
    def digest(self) -> str:
        return digest(self.manifest)


def image(seed: str, layers: int = 2, size: int = 3000, shared: tuple[bytes, ...] = (), **more: Any) -> Image:
    """An image of so many layers of its own, above those that are shared. `more` goes into the manifest."""
    config = json.dumps({"seed": seed}).encode()
    own = tuple(random.Random(f"{seed} {n}").randbytes(size) for n in range(layers))
    return Image(manifest(config, *shared, *own, **more), (config, *shared, *own))


@dataclass(frozen=True)
class Images:
    """One image's name in a repository, as `user` of `server`: `Images(server, "local/team/app")`."""

    server: Server
    name: str
    user: tuple[str, str] = ADMIN

    def ask(self, method: str, path: str, body: bytes | Iterable[bytes] | None = None, **headers: str) -> Answer:
        """A path under the image's, or a whole one."""
        target = path if path.startswith("/") else f"/v2/{self.name}/{path}"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.server.request(method, target, body, named, self.user)

    def on(self, server: Server) -> Images:
        """The same by way of another node."""
        return Images(server, self.name, self.user)

    # Pushing

    def push(self, one: Image, *references: str) -> None:
        """All of it, with the manifest by each of these; by its digest without any."""
        for content in one.blobs:
            assert self.put_blob(content).status == 201
        for reference in references or (one.digest,):
            answer = self.put_manifest(one.manifest, reference)
            assert answer.status == 201, answer

    def put_blob(self, content: bytes) -> Answer:
        return self.ask("POST", f"blobs/uploads/?digest={digest(content)}", content)

    def put_manifest(self, content: bytes, reference: str = "") -> Answer:
        media_type = json.loads(content)["mediaType"]
        return self.ask("PUT", f"manifests/{reference or digest(content)}", content, Content_Type=media_type)

    def mount(self, content: bytes, source: str) -> Answer:
        return self.ask("POST", f"blobs/uploads/?mount={digest(content)}&from={source}", b"")

    def begin(self) -> str:
        """A session's path."""
        answer = self.ask("POST", "blobs/uploads/", b"")
        assert answer.status == 202, answer
        return location(answer)

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

    def finish(self, session: str, content_digest: str, body: bytes = b"") -> Answer:
        return self.ask("PUT", f"{session}{'&' if '?' in session else '?'}digest={content_digest}", body)

    # Pulling

    def status(self, path: str) -> int:
        return self.ask("HEAD", path).status

    def has(self, one: Image, reference: str = "") -> bool:
        """Whether the manifest by this reference and all that it refers to are pulled, with the right bytes."""
        got = self.ask("GET", f"manifests/{reference or one.digest}", Accept=f"{MANIFEST}, {INDEX}")
        return (got.status, got.body) == (200, one.manifest) and all(self.has_blob(content) for content in one.blobs)

    def has_blob(self, content: bytes) -> bool:
        got = self.ask("GET", f"blobs/{digest(content)}")
        return (got.status, got.body) == (200, content)

    def referrers(self, subject: str) -> set[str]:
        return {entry["digest"] for entry in json.loads(self.ask("GET", f"referrers/{subject}").body)["manifests"]}

    def delete(self, path: str) -> None:
        answer = self.ask("DELETE", path)
        assert answer.status == 202, answer


def location(answer: Answer) -> str:
    """The path that an answer leads to."""
    parts = urlsplit(answer.headers["Location"])
    return f"{parts.path}?{parts.query}" if parts.query else parts.path
