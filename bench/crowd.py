"""Scenarios `black-hole` and `slow-clients`: what those wait who ask for what is here, while a crowd holds the server up.

They ask at a steady, low rate, so that what is seen is how long each waits and not how much a full server can do. In each round
they are alone first, and then beside the crowd.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import load, targets
from bench.corpus import Kind, digest
from bench.load import Sample
from bench.rates import spread
from bench.targets import Target
from tests.gomodules import make_zip
from tests.parts.server import Server
from tests.parts.upstream import Handler, Upstream

MODULE = "bench.example/module"
CACHED = f"{MODULE}/@v/v1.0.0.mod"
ZIP = f"{MODULE}/@v/v1.0.0.zip"
GO_MOD = f"module {MODULE}\n".encode()
LARGE = 10 << 20
PAUSE = 1.0
"""Seconds after which one of a crowd tries again, where the answer did not say when (Retry-After)."""
DRIP = 0.5
"""Seconds between two pieces of what is sent or read slowly."""


def black_hole(options: Any, folder: Path, facts: dict[str, str]) -> list[dict]:
    """Cached files, while clients ask for what an upstream of the same server never answers."""
    with _servers(options, folder, facts) as worlds:
        return [
            one for world in worlds for one in _measured(world, options, lambda world=world: world.black_hole(options.clients))
        ]


def slow_clients(options: Any, folder: Path, facts: dict[str, str]) -> list[dict]:
    """Cached files, while clients read and write very slowly."""
    with _servers(options, folder, facts) as worlds:
        return [
            one
            for world in worlds
            for one in _measured(world, options, lambda world=world: world.slow_clients(options.downloads, options.uploads))
        ]


class World:
    """A server with a remote repository whose upstream may be a black hole, another remote, and a local repository."""

    def __init__(self, name: str, server: Server, headers: dict[str, str], hole: Hole):
        self.name, self.server, self.headers, self.hole = name, server, headers, hole
        token = server.manage("token", "create", "admin", "--scope", "artifact:write@bench-files").stdout.split()[-1]
        self.writer = targets.basic("admin", token)
        self._numbers = itertools.count()
        base = f"{server.url}/go"
        self.targets = [
            Target("the same remote", f"{base}/bench-hole", headers),
            Target("another remote", f"{base}/bench-remote", headers),
            Target("a local repository", f"{base}/bench-local", headers),
        ]

    @contextlib.contextmanager
    def black_hole(self, clients: int) -> Iterator[Crowd]:
        def ask(crowd: Crowd, n: int) -> None:
            crowd.ask("GET", f"/go/bench-hole/hole.example/m{next(self._numbers)}/@v/v1.0.0.zip")  # never asked for before

        with self.hole.silent(), Crowd(self, [ask] * clients) as crowd:
            yield crowd

    @contextlib.contextmanager
    def slow_clients(self, downloads: int, uploads: int) -> Iterator[Crowd]:
        def download(crowd: Crowd, n: int) -> None:
            crowd.ask("GET", "/raw/bench-files/large", slowly=True)

        def upload(crowd: Crowd, n: int) -> None:
            crowd.ask("PUT", f"/raw/bench-files/slow{n}", body=crowd.dripping())

        with Crowd(self, [download] * downloads + [upload] * uploads) as crowd:
            yield crowd


class Hole:
    """An upstream that answers what is cached, and for the rest accepts and never answers while it is silent."""

    def __init__(self) -> None:
        self.upstream = Upstream()
        self.upstream.default = self._swallow
        self._end = threading.Event()
        self._end.set()

    def _swallow(self, handler: Handler) -> None:
        self._end.wait()
        handler.answer(404, b"no such module")

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """In the end it answers all who wait, so that nothing of one round is left to the next."""
        self._end.clear()
        try:
            yield
        finally:
            self._end.set()


class Crowd:
    """Clients in threads, each with one request after the other, from when all have sent their first until the end."""

    def __init__(self, world: World, behaviours: Sequence[Callable[[Crowd, int], None]]):
        self.world = world
        self.statuses: Counter[int] = Counter()
        self._end = threading.Event()
        self._lock = threading.Lock()
        self._again = threading.local()
        self._open: set[http.client.HTTPConnection] = set()
        self._sent = threading.Semaphore(0)
        self._threads = [threading.Thread(target=self._run, args=(behave, n), daemon=True) for n, behave in enumerate(behaviours)]

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        for _ in self._threads:
            self._sent.acquire(timeout=30)
        time.sleep(PAUSE)  # what is sent is not yet read
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(30)

    def ask(self, method: str, path: str, body: Iterator[bytes] | None = None, *, slowly: bool = False) -> None:
        """One request, whose answer may never come; its status is counted, and when to try again is kept for this thread."""
        connection = self.world.server.connect()
        connection.connect()
        with self._lock:
            self._open.add(connection)
        try:
            headers = self.world.writer if body else self.world.headers
            if not body:
                self._sent.release()
            connection.request(method, path, body, headers, encode_chunked=body is not None)
            answer = connection.getresponse()
            self.statuses[answer.status] += 1
            self._again.after = float(answer.headers.get("Retry-After", PAUSE))
            while slowly and answer.read(4096) and not self._end.wait(DRIP):
                pass
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    @property
    def held(self) -> int:
        """How many of the clients have a request that is not at its end."""
        with self._lock:
            return len(self._open)

    def dripping(self) -> Iterator[bytes]:
        """A body that has no end for as long as the crowd is there."""
        self._sent.release()
        while not self._end.wait(DRIP):
            yield b"x" * 1024

    def _run(self, behave: Callable[[Crowd, int], None], n: int) -> None:
        while not self._end.is_set():
            self._again.after = PAUSE
            with contextlib.suppress(OSError, http.client.HTTPException):
                behave(self, n)
            self._end.wait(self._again.after * random.uniform(0.5, 1.5))  # clients do not keep step


@contextlib.contextmanager
def _servers(options: Any, folder: Path, facts: dict[str, str]) -> Iterator[Iterator[World]]:
    """One server after the other, for each database."""
    load.vegeta()
    facts["vegeta"] = load.VEGETA.rpartition("@")[2]
    with contextlib.ExitStack() as stack:
        yield (_world(chosen, folder / str(n), facts, stack) for n, chosen in enumerate(options.database))


def _world(chosen: str, folder: Path, facts: dict[str, str], stack: contextlib.ExitStack) -> World:
    hole, plain = Hole(), Upstream()
    stack.callback(plain.stop)
    stack.callback(hole.upstream.stop)
    for upstream in (hole.upstream, plain):
        upstream.routes[f"/{CACHED}"] = GO_MOD
    document = {
        "repositories": [
            {"key": "bench-hole", "format": "go", "kind": "remote", "upstreams": [{"url": hole.upstream.url}]},
            {"key": "bench-remote", "format": "go", "kind": "remote", "upstreams": [{"url": plain.url}]},
            {"key": "bench-local", "format": "go", "kind": "local"},
            {"key": "bench-files", "format": "raw", "kind": "local"},
        ]
    }
    url, _ = stack.enter_context(targets.database(chosen))
    if url:
        facts["PostgreSQL"] = targets.postgres_version(url)
    server, headers = stack.enter_context(targets.entrepot(folder, url, document))
    for path, body in (
        (f"/go/bench-local/{ZIP}", make_zip(MODULE, "v1.0.0", {}, go_mod=GO_MOD)),
        ("/raw/bench-files/large", bytes(LARGE)),
    ):
        if (status := server.request("PUT", path, body, user=targets.ADMIN).status) not in (200, 201):
            raise RuntimeError(f"entrepot answers {status} to the PUT of {path}")
    return World(chosen.partition(":")[0], server, headers, hole)


def _measured(world: World, options: Any, gather: Callable[[], contextlib.AbstractContextManager[Crowd]]) -> list[dict]:
    alone: dict[str, list[Sample]] = {target.name: [] for target in world.targets}
    beside: dict[str, list[Sample]] = {target.name: [] for target in world.targets}
    statuses: Counter[int] = Counter()
    held: list[int] = []
    targets.check(world.targets, [Kind("cached", (CACHED,), digest)], {CACHED: GO_MOD})
    for _ in range(options.rounds):
        for target in world.targets:
            time.sleep(2 * PAUSE)  # what was begun for the crowd before comes to its end
            alone[target.name].append(load.steady(target, [CACHED], options.seconds, options.rate))
            with gather() as crowd:
                beside[target.name].append(load.steady(target, [CACHED], options.seconds, options.rate))
                statuses += crowd.statuses
                held.append(crowd.held)
    _print(world, options, alone, beside)
    answered = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items())) or "none"
    print(
        f"  clients held at the end of each measurement: {min(held)} to {max(held)}; answers that they had meanwhile: {answered}",
        flush=True,
    )
    return [
        {"kind": f"{world.name}, {target.name}", "target": name, "rounds": [asdict(sample) for sample in samples[target.name]]}
        for target in world.targets
        for name, samples in (("alone", alone), ("beside the crowd", beside))
    ]


def _print(world: World, options: Any, alone: dict[str, list[Sample]], beside: dict[str, list[Sample]]) -> None:
    title = f"{world.name}: a cached .mod, {options.rate} a second"
    print(f"\n{title:44} {'p50 ms':>26} {'p99 ms':>26} {'failed':>7}")
    for name in alone:
        for when, samples in (("alone", alone[name]), ("beside the crowd", beside[name])):
            p50, p99 = (spread([getattr(sample, field) for sample in samples], ".1f") for field in ("p50", "p99"))
            failed = sum(sample.failed for sample in samples)
            print(f"  {name + ', ' + when:42} {p50:>26} {p99:>26} {failed:>7}")
        ratios = [after.p99 / before.p99 for before, after in zip(alone[name], beside[name], strict=True)]
        print(f"  {'':42} {'p99 is':>26} {spread(ratios, '.2f') + ' x':>26}")
