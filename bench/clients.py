"""Clients of a registry that do what wrk cannot: push as container clients do, and ask by HEAD.

They are the same for all who are measured. Each connection is a process of its own, which keeps it alive and sends its next
request when the last is answered. (wrk waits for the body that the answer to a HEAD does not have.)
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import itertools
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing.connection import Connection
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from bench.load import Sample
from bench.targets import Target

BYTES = "application/octet-stream"
TAIL = 32
"""Bytes at the end that make each pushed blob another: the digest of what is before is computed once."""
CHECKED = 2
"""Digests of each connection's pushes that are told, so that their bytes can be asked for afterwards."""
PATIENCE = 60
"""Seconds after which a request is given up, and with it the run."""


# One connection


class Registry:
    """One connection to the registry at `target`, whose base is an image. Any other status than the right one is RuntimeError."""

    def __init__(self, target: Target):
        self.target = target
        self.connection = connect(target)

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def push(self, content: bytes | memoryview, digest: str) -> None:
        """A blob as a whole: POST and PUT."""
        self._finish(self._begin(), digest, content)

    def push_in_chunks(self, content: memoryview, digest: str, size: int) -> None:
        """POST, a PATCH for each chunk, and a PUT without any."""
        place = self._begin()
        for start in range(0, len(content), size):
            chunk = content[start : start + size]
            told = {"Content-Type": BYTES, "Content-Range": f"{start}-{start + len(chunk) - 1}"}
            place = self._ask("PATCH", place, 202, chunk, told)
        self._finish(place, digest, b"")

    def put_manifest(self, reference: str, content: bytes, media_type: str) -> None:
        self._ask("PUT", f"{self.target.base}/manifests/{reference}", 201, content, {"Content-Type": media_type})

    def _begin(self) -> str:
        return self._ask("POST", f"{self.target.base}/blobs/uploads/", 202)

    def _finish(self, place: str, digest: str, content: bytes | memoryview) -> None:
        more = "&" if "?" in place else "?"
        self._ask("PUT", f"{place}{more}digest={quote(digest, safe='')}", 201, content, {"Content-Type": BYTES})

    def _ask(
        self, method: str, url: str, right: int, body: bytes | memoryview = b"", headers: Mapping[str, str] | None = None
    ) -> str:
        """The answer's Location, in full."""
        path = urlsplit(url)._replace(scheme="", netloc="").geturl()
        self.connection.request(method, path, body, {**self.target.headers, **(headers or {})})
        answer = self.connection.getresponse()
        said = answer.read()
        if answer.status != right:
            raise RuntimeError(f"{self.target.name} answers {answer.status} to the {method} of {path}: {said[:200].decode()}")
        return urljoin(url, answer.headers.get("Location", ""))


def connect(target: Target) -> http.client.HTTPConnection:
    parts = urlsplit(target.base)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.netloc, timeout=PATIENCE)


# What is pushed


@dataclass(frozen=True)
class Push:
    """How blobs of `size` bytes are pushed: as a whole, or in chunks of so many bytes."""

    size: int
    chunk: int = 0

    def one(self, registry: Registry) -> str:
        """Push a blob that never was before; its digest."""
        content, digest = _fresh(self.size)
        if self.chunk:
            registry.push_in_chunks(content, digest, self.chunk)
        else:
            registry.push(content, digest)
        return digest


def _fresh(size: int) -> tuple[memoryview, str]:
    """Bytes that never were before, until it is called again, and their digest."""
    content, before_tail = _trunk(size)
    content[-TAIL:] = os.urandom(TAIL)
    whole = before_tail.copy()
    whole.update(content[-TAIL:])
    return memoryview(content), f"sha256:{whole.hexdigest()}"


@cache
def _trunk(size: int) -> tuple[bytearray, Any]:
    content = bytearray(os.urandom(size))
    return content, hashlib.sha256(content[:-TAIL])


# Many connections


@dataclass(frozen=True)
class Run:
    """What one connection did: how long each request or push took, and all of them, in seconds; the last digests pushed."""

    took: list[float]
    seconds: float
    digests: list[str]


def push(target: Target, how: Push, seconds: int, connections: int) -> tuple[Sample, list[str]]:
    """Push for some seconds; the digests of some. What is timed is a whole push, from its POST to the answer to its PUT."""
    _trunk(how.size)  # here and not in each process
    runs = _at_once(partial(_pushes, target, how, seconds), connections)
    return _sample(runs), [digest for run in runs for digest in run.digests]


def head(target: Target, paths: Sequence[str], seconds: int, connections: int) -> Sample:
    """Ask by HEAD for these paths, one after the other."""
    return _sample(_at_once(partial(_heads, target, paths, seconds), connections))


def _sample(runs: Sequence[Run]) -> Sample:
    took = sorted(seconds for run in runs for seconds in run.took)
    p50, p99 = (took[int(len(took) * part)] * 1e3 for part in (0.5, 0.99))
    return Sample(sum(len(run.took) / run.seconds for run in runs), p50, p99, 0, requests=len(took))


Start = threading.Barrier
"""Where each waits for the others before it begins."""


def _at_once(work: Callable[[int, Start], Run], connections: int) -> list[Run]:
    """Do it in so many processes, each with its number. What fails in one of them is RuntimeError."""
    context = multiprocessing.get_context("fork")
    start = context.Barrier(connections)
    ends = []
    for number in range(connections):
        here, there = context.Pipe(duplex=False)
        context.Process(target=_tell, args=(there, work, number, start), daemon=True).start()
        there.close()
        ends.append(here)
    told = [end.recv() for end in ends]
    for one in told:
        if isinstance(one, str):
            raise RuntimeError(one)
    return told


def _tell(end: Connection, work: Callable[[int, Start], Run], number: int, start: Start) -> None:
    try:
        end.send(work(number, start))
    except (RuntimeError, OSError, http.client.HTTPException) as error:
        end.send(str(error) or repr(error))


def _pushes(target: Target, how: Push, seconds: int, _: int, start: Start) -> Run:
    with Registry(target) as registry:
        return _repeated(lambda: how.one(registry), seconds, start)


def _heads(target: Target, paths: Sequence[str], seconds: int, number: int, start: Start) -> Run:
    """By the bare socket, since all that comes is a head, and http.client takes ten times as much of the processor."""
    host = urlsplit(target.base).netloc
    lines = "".join(f"{name}: {value}\r\n" for name, value in {"Host": host, **target.headers}.items())
    requests = [f"HEAD {target.path}/{path} HTTP/1.1\r\n{lines}\r\n".encode() for path in paths]
    turn = itertools.cycle(requests[number % len(requests) :] + requests[: number % len(requests)])
    with contextlib.closing(connect(target)) as connection:
        connection.connect()

        def ask() -> None:
            connection.sock.sendall(next(turn))
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += (more := connection.sock.recv(65536))
                if not more:
                    raise RuntimeError(f"{target.name} ends a connection on which it is asked by HEAD")
            if b" 200 " not in head[:15]:
                raise RuntimeError(f"{target.name} answers a HEAD with {head.decode('latin-1').splitlines()[0]}")

        return _repeated(ask, seconds, start)


def _repeated(one: Callable[[], Any], seconds: int, start: Start) -> Run:
    """Do it again and again until the seconds are over."""
    start.wait(PATIENCE)
    took, digests = [], []
    begun = before = time.monotonic()
    while before - begun < seconds:
        digests = [*digests, one()][-CHECKED:]
        now = time.monotonic()
        took.append(now - before)
        before = now
    return Run(took, before - begun, digests)
