"""The server is killed at twenty points of a push: clients go on from where they were told, and nothing acknowledged is lost."""

from __future__ import annotations

import http.client
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.parts.images import Image, image
from tests.parts.oci import digest
from tests.parts.registryclient import RegistryClient, parts
from tests.parts.server import Server

POINTS = 20
SIZE = 150_000
PARTS = 2
PIECE = 15_000


class Killer:
    """Counts what happens in pushes, requests and pieces of bodies, and kills the server at one such moment while it works."""

    def __init__(self, server: Server):
        self._server = server
        self._left: int | None = None
        self._killing: threading.Timer | None = None
        self.counted = 0

    def at(self, moment: int, seconds: float) -> None:
        """Kill so many seconds after the moment of this number."""
        self._left, self._seconds = moment, seconds

    def happens(self) -> None:
        self.counted += 1
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                self._left = None
                self._killing = threading.Timer(self._seconds, self._server.kill)
                self._killing.start()

    def restart(self) -> None:
        """What a client does that has lost its server: it waits until one is there again."""
        assert self._killing is not None, "the server ended by itself"
        self._killing.join()
        self._killing = None
        self._server.start()
        assert self._server.manage("fsck").stdout.strip() == "clean"

    def settle(self) -> None:
        """Where the kill came after the last answer."""
        if self._killing is not None:
            self.restart()


@dataclass
class Push:
    """One client at its push, with what it was told."""

    app: RegistryClient
    image: Image
    tag: str
    killer: Killer
    acknowledged: list[str] = field(default_factory=list)
    sessions: dict[str, str] = field(default_factory=dict)
    came: dict[str, int] = field(default_factory=dict)

    def run(self) -> None:
        """Through however many deaths of the server."""
        while True:
            try:
                for content in self.image.blobs:
                    self._blob(content)
                self._manifest()
                break
            except (OSError, http.client.HTTPException):
                self.killer.restart()
                self.check()
        self.killer.settle()
        self.check()

    def check(self) -> None:
        """What was acknowledged is there."""
        for path in self.acknowledged:
            assert self.app.status(path) == 200, f"{path} was acknowledged"

    def _blob(self, content: bytes) -> None:
        name = digest(content)
        self.killer.happens()
        if self.app.status(f"blobs/{name}") == 200:
            return
        session, start = self._session(name)
        step = len(content) // PARTS + 1
        while start < len(content):
            part = content[start : start + step]
            answer = self.app.add(session, self._pieces(part), start, len(part))
            assert answer.status == 202, answer
            start += len(part)
            self.came[name] = start
        self.killer.happens()
        answer = self.app.finish(session, name)
        assert answer.status == 201, answer
        self.acknowledged.append(f"blobs/{name}")

    def _session(self, name: str) -> tuple[str, int]:
        """The session for a blob that is not there yet, with how many bytes have come."""
        if name in self.sessions:
            came = self.app.come(self.sessions[name])
            assert came is not None and came >= self.came[name], "bytes were acknowledged and have not come"
            return self.sessions[name], came
        self.killer.happens()
        self.sessions[name], self.came[name] = self.app.session(), 0
        return self.sessions[name], 0

    def _manifest(self) -> None:
        self.killer.happens()
        answer = self.app.put(self.tag, self.image.manifest)
        assert answer.status == 201, answer
        self.acknowledged += [f"manifests/{self.tag}", f"manifests/{self.image.digest}"]

    def _pieces(self, part: bytes) -> Iterator[bytes]:
        for start in range(0, len(part), PIECE):
            self.killer.happens()
            yield part[start : start + PIECE]


def test_a_push_goes_on_after_a_kill_at_any_of_twenty_points_and_the_image_is_whole(server):
    here = server()
    here.apply({"repositories": [{"key": "local", "format": "oci", "kind": "local"}]})
    random_moments = random.Random(22)
    killer = Killer(here)
    app = RegistryClient(here, "local/app")
    Push(app, image("undisturbed", (SIZE, SIZE)), "undisturbed", killer).run()
    moments = killer.counted
    images = {f"point{n}": image(f"point {n}", (SIZE, SIZE)) for n in range(POINTS)}
    for n, (tag, one) in enumerate(images.items()):
        killer.at(moments * n // POINTS, random_moments.uniform(0, 0.05))
        Push(app, one, tag, killer).run()
    assert all(app.has(one, tag) and app.has(one) for tag, one in images.items())

    here.days_pass()
    here.manage("gc", "--grace", "0", "--stray", "0")
    assert parts(here) == 0, "of uploads that nobody came back to"
    assert list((here.data / "blobs" / "incoming").iterdir()) == []
    assert here.query("SELECT count(*) FROM repos_upload") == (0,)
    assert here.manage("fsck", "--scrub", "--grace", "0").stdout.strip() == "clean"
    assert all(app.has(one, tag) for tag, one in images.items())
