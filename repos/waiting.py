"""How many threads wait for upstreams, so that a silent one never takes those that serve what is cached.

A request that waits for a fetch holds a thread. While the upstream sends something, as many may wait as come: a hundred clients
of one large file are one fetch. Once it is silent for PATIENCE, a quarter of the process's threads at most go on waiting for it,
and three quarters for all upstreams together; who is too many is told to try again. The fetch itself goes on.

A thread of a job waits as long as it has to: it answers no request, so it takes nobody's place (`uncounted`).
"""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from django.conf import settings

from problems import Unavailable
from repos.catalogue import Repo

PATIENCE = 2.0
"""Seconds after which an upstream that sends nothing is taken for silent."""

_lock = threading.Lock()
_waiting: dict[tuple[str, ...], int] = defaultdict(int)
_heard: dict[tuple[str, ...], float] = {}
_this_thread = threading.local()


@contextmanager
def uncounted() -> Iterator[None]:
    """This thread answers no request within the block."""
    _this_thread.uncounted = True
    try:
        yield
    finally:
        _this_thread.uncounted = False


class Place:
    """One thread's place among those that wait for the upstreams of a remote: `with Place(repo) as place: place.keep(heard)`."""

    def __init__(self, repo: Repo):
        self._key = key(repo)
        self._taken = False

    def __enter__(self) -> Place:
        if is_counted():
            with _lock:
                _begin(self._key)
                _waiting[self._key] += 1
            self._taken = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._taken:
            with _lock:
                _leave(self._key)

    def keep(self, heard: float) -> None:
        """Raises Unavailable where this thread is one too many, and its fetch (since `heard`) or the upstream is silent."""
        with _lock:
            if self._taken and _crowded(self._key, 0) and min(heard, _heard[self._key]) < time.monotonic() - PATIENCE:
                _leave(self._key)
                self._taken = False
                raise _too_many()


def check(repo: Repo) -> None:
    """Raises Unavailable where one more would be too many, before it begins a fetch of its own."""
    place = key(repo)
    with _lock:
        if is_counted() and _crowded(place, 1) and _heard.get(place, math.inf) < time.monotonic() - PATIENCE:
            raise _too_many()


def heard(repo: Repo) -> None:
    """Something came from an upstream of `repo`."""
    place = key(repo)
    with _lock:
        if place in _heard:
            _heard[place] = time.monotonic()


def is_counted() -> bool:
    """Whether this thread answers a request."""
    return not getattr(_this_thread, "uncounted", False)


def key(repo: Repo) -> tuple[str, ...]:
    """Remotes with the same upstreams wait for the same."""
    return tuple(source.url for source in repo.upstreams)


def _begin(key: tuple[str, ...]) -> None:
    if not _waiting[key]:  # a silence begins with the first who listens, and ends with the last
        _heard[key] = time.monotonic()


def _leave(key: tuple[str, ...]) -> None:
    _waiting[key] -= 1
    if not _waiting[key]:
        del _waiting[key], _heard[key]


def _crowded(key: tuple[str, ...], more: int) -> bool:
    share = max(1, settings.ENTREPOT.threads // 4)
    return _waiting.get(key, 0) + more > share or sum(_waiting.values()) + more > 3 * share


def _too_many() -> Unavailable:
    return Unavailable(
        "the upstream sends nothing and too many wait for it already; try again later",
        rule="upstream.waiting",
        headers={"Retry-After": "5"},
    )
