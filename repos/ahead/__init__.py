"""What is fetched from upstreams before anybody waits for it, or when nobody does any more.

fetch.py        completes the fetches of processes that died
prefetch.py     everything that a text names, such as a go.sum
revalidate.py   documents that are in use and expire soon
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from django.db import connection

from repos.jobs import Running

AT_ONCE = 4
"""Fetches of one job at a time, so that a job leaves room for those who wait."""

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


def several(job: Running, items: Iterable[Item], do: Callable[[Item], Outcome]) -> Iterator[tuple[Item, Outcome | Exception]]:
    """Do each of `items`, a few at a time, and give each with its outcome as they end; the job may be stopped at any time."""
    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="ahead")
    rest = iter(items)
    under_way: dict[Future[Outcome], Item] = {}
    try:
        while True:
            while len(under_way) < AT_ONCE and (item := next(rest, None)) is not None:
                under_way[pool.submit(_alone, do, item)] = item
            if not under_way:
                return
            ended, _ = wait(under_way, timeout=1.0, return_when=FIRST_COMPLETED)
            job.check()
            for future in ended:
                yield under_way.pop(future), future.exception() or future.result()  # type: ignore[misc]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _alone(do: Callable[[Item], Outcome], item: Item) -> Outcome:
    try:
        return do(item)
    finally:
        connection.close()
