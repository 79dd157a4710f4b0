"""Registries behind remote repositories of their own, so that what one of them did is nothing to the next test."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.parts import oci
from tests.parts.api import ADMIN, Api
from tests.parts.registry import Registry
from tests.parts.server import Answer, Server, named

TIMEOUT = "2s"
"""What a registry may take."""


@dataclass(frozen=True)
class Remote:
    """One registry and the repository that leads to it, which believes nothing for longer than a question."""

    server: Server
    registry: Registry
    key: str

    def get(self, path: str, method: str = "GET", user: tuple[str, str] | None = ADMIN, **headers: str) -> Answer:
        return self.server.request(method, f"/v2/{self.key}/{path}", headers=named(headers), user=user)

    def whole(self, path: str) -> Answer | None:
        """The answer, or None where a client that checks framing gets none that is whole."""
        with contextlib.suppress(http.client.HTTPException, OSError):
            return self.get(path)
        return None

    def configured(self, *more: dict[str, Any], cache: dict[str, str] | None = None, **options: Any) -> dict[str, Any]:
        """The repository's configuration: `options` are those of its upstream, `more` other upstreams that follow."""
        return {
            "key": self.key,
            "format": "oci",
            "kind": "remote",
            "upstreams": [{"url": self.registry.url, "timeout": TIMEOUT, **options}, *more],
            "cache": {"lifetime": "0s", "missing": "0s"} | (cache or {}),
        }

    def configure(self, *more: dict[str, Any], cache: dict[str, str] | None = None, **options: Any) -> None:
        document = self.configured(*more, cache=cache, **options)
        key = document.pop("key")
        answer = Api(self.server).put(f"repositories/{key}/", document)
        assert answer.status in (200, 201), answer


def open_remotes(server: Server, count: int) -> Iterator[Callable[[], Remote]]:
    """Takes of so many the next one at each call; within the block."""
    remotes = [Remote(server, Registry(), f"remote{n}") for n in range(count)]
    server.apply({"repositories": [one.configured() for one in remotes]})
    left = iter(remotes)
    yield lambda: next(left)
    for one in remotes:
        one.registry.stop()


def tags(answer: Answer) -> list[str]:
    assert answer.status == 200, answer
    return json.loads(answer.body)["tags"]


CONFIG = b'{"architecture":"amd64","os":"linux"}'
LAYER = b"the files of a layer\n" * 5000


def image(text: str = "") -> bytes:
    """The manifest of an image of one layer; one for each text."""
    return oci.manifest(CONFIG, LAYER, **({"annotations": {"text": text}} if text else {}))
