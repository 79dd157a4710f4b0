"""What upstreams denied: believed as long as "there is none" is (`cache.missing`), and told again as the denial that it was.

Each process asks for itself: a denial is nothing that the rows would have to know, and the next one costs one question.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from copy import copy

from problems import UpstreamDenied
from repos.catalogue import Repo, Upstream

MOST = 10_000
"""Paths of which a denial is kept."""

_Key = tuple[int, tuple[Upstream, ...], str]

_lock = threading.Lock()
_denied: dict[_Key, tuple[UpstreamDenied, float]] = {}


def check(repo: Repo, path: str) -> None:
    """Raises UpstreamDenied where the upstreams said so and need not be asked again yet."""
    with _lock:
        denial, until = _denied.get(_key(repo, path), (None, 0.0))
    if denial is not None and time.monotonic() < until:
        raise copy(denial)  # each thread gets a traceback of its own


@contextlib.contextmanager
def remembered(repo: Repo, path: str) -> Iterator[None]:
    """Ask the upstreams within the block; what they said before is forgotten, and a denial kept."""
    key = _key(repo, path)
    with _lock:
        _denied.pop(key, None)
    try:
        yield
    except UpstreamDenied as denial:
        with _lock:
            if len(_denied) >= MOST:
                _denied.clear()
            _denied[key] = copy(denial), time.monotonic() + repo.cache.missing.total_seconds()
        raise


def _key(repo: Repo, path: str) -> _Key:
    """With other credentials it is another question."""
    return repo.id, repo.upstreams, repo.format.path_key(path)
