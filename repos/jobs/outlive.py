"""Work under way in a thread of a server that is to be done even if the process dies: if it takes long, a job tells of it.

The job runs from its first moment, here, and gets the signs of life of this process. When they cease, somebody else claims
it and does the work. Work that is done soon writes nothing. A job that is cancelled ends alone: the work goes on, since requests
may wait for it, and nobody else does it should this process die.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.db import DatabaseError, connection

from problems import NotFound, Problem
from repos.catalogue import Repo
from repos.jobs import runner, table
from repos.models import Job

log = logging.getLogger("entrepot.jobs")

AFTER = 5.0
"""Seconds after which work is worth a job."""


@dataclass(eq=False)
class _Work:
    kind: str
    arguments: dict[str, Any]
    repository: Repo
    key: str
    since: float
    told: bool = False
    job: Job | None = None


_under_way: set[_Work] = set()
_changed = threading.Condition()


@contextlib.contextmanager
def outliving(kind: str, arguments: dict[str, Any], *, repository: Repo, key: str) -> Iterator[None]:
    """Should the block last, a job of this kind does the same if this process does not come to its end.

    What the block raises is its outcome too: whoever waited for it has heard of it, so the job does not try again.
    """
    work = _Work(kind, arguments, repository, key, time.monotonic())
    with _changed:
        if not _under_way:
            threading.Thread(target=_watch, name="outlive", daemon=True).start()
        _under_way.add(work)
    try:
        yield
    except NotFound:
        _forget(work, _finish)
        raise
    except Problem as problem:
        _forget(work, partial(table.fail, problem=problem, passes=False))
        raise
    except BaseException:
        _forget(work, partial(table.fail, problem=Problem("an error here; the server's log tells more"), passes=False))
        raise
    else:
        _forget(work, _finish)


def _watch() -> None:
    """Begin a job for what lasts, until nothing is under way."""
    while True:
        with _changed:
            if _changed.wait_for(lambda: not _under_way, AFTER / 4):
                return
            lasting = [work for work in _under_way if not work.told and time.monotonic() - work.since >= AFTER]
            cancelled = [work for work in _under_way if work.job and runner.stopped(work.job.fence) == "cancelled"]
        for work in lasting:
            _tell(work)
        for work in cancelled:
            _forget(work, table.end_cancelled)
        connection.close()


def _tell(work: _Work) -> None:
    try:
        job = table.begin(work.kind, work.arguments, repository=work.repository, key=work.key)
    except DatabaseError:
        log.exception("no job could be written for a fetch that lasts; it ends with this process")
        return
    with _changed:
        work.told, work.job = True, job
        gone = work not in _under_way
        if job is not None and not gone:
            runner.hold(job.fence)
    if job is not None and gone:
        _finish(job)


def _finish(job: Job) -> bool:
    return table.finish(job, {})


def _forget(work: _Work, end: Callable[[Job], bool]) -> None:
    """Nobody else is to do the work, and `end` writes why, where a job tells of it."""
    with _changed:
        _under_way.discard(work)
        _changed.notify_all()
        job, work.job = work.job, None
    if job is None:
        return
    runner.drop(job.fence)
    try:
        end(job)
    except DatabaseError:
        log.exception("%s has ended and could not be marked so; it is done again", job)


def _leave() -> None:
    """This process ends in order: what is under way is another's from now on."""
    with _changed:
        left = [(work, work.job) for work in _under_way]
        _under_way.clear()
    for work, job in left:
        with contextlib.suppress(DatabaseError, Problem):
            if job is not None:
                runner.drop(job.fence)
                table.give_back(job)
            else:
                table.enqueue(work.kind, work.arguments, repository=work.repository, key=work.key)


atexit.register(_leave)
