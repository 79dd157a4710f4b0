"""What is fetched from upstreams before anybody waits for it, or when nobody does any more.

fetch.py        completes the fetches of processes that died
prefetch.py     everything that a text names, such as a go.sum
revalidate.py   documents that are in use and expire soon
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, SimpleQueue
from typing import TypeVar

from django.db import connection

from problems import Problem, StorageFull, UpstreamOut
from repos import circuit, waiting
from repos.jobs import Running

AT_ONCE = 4
"""Fetches of one job at a time, so that a job leaves room for those who wait."""

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


def several(job: Running, items: Iterable[Item], do: Callable[[Item], Outcome]) -> Iterator[tuple[Item, Outcome | Exception]]:
    """Do each of `items`, a few at a time, and give each with its outcome as they end; the job may be stopped at any time.

    What is under way then is waited for neither here nor by a process that ends: an upstream may take an hour.
    """
    ended: SimpleQueue[tuple[Item, Outcome | Exception]] = SimpleQueue()
    rest = iter(items)
    under_way = 0
    while True:
        while under_way < AT_ONCE and (item := next(rest, None)) is not None:
            threading.Thread(target=_alone, args=(do, item, ended), name="ahead", daemon=True).start()
            under_way += 1
        if not under_way:
            return
        with contextlib.suppress(Empty):
            one = ended.get(timeout=1.0)
            under_way -= 1
            yield one
        job.check()


def is_everywhere(problem: Problem) -> bool:
    """Whether the upstream as a whole fails, or the store: what else is asked for fails too, and all of it may pass."""
    return isinstance(problem, (UpstreamOut, StorageFull)) or problem.rule in circuit.COUNTED


def _alone(do: Callable[[Item], Outcome], item: Item, ended: SimpleQueue[tuple[Item, Outcome | Exception]]) -> None:
    try:
        with waiting.uncounted():
            outcome: Outcome | Exception = do(item)
    except Exception as error:
        outcome = error
    ended.put((item, outcome))  # before anything else can fail: the job waits for it, and for nothing else
    connection.close()
