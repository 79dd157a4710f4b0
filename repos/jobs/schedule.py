"""What is due. All of it may be done by several schedulers at once: what one has done the next finds done."""

from __future__ import annotations

from datetime import UTC, datetime

from repos import database
from repos.jobs import table
from repos.jobs.kinds import all_kinds

FORGOTTEN_AT_ONCE = 500
START = datetime(1970, 1, 1, tzinfo=UTC)
"""What time slots are counted from."""


def plan() -> None:
    """See to it that each periodic kind has a job for its next time slot; a slot that passed unserved is run late, once."""
    now = database.now()
    for kind in all_kinds():
        if kind.every is not None:
            at = now + kind.every - (now - START) % kind.every
            table.plan(kind, f"{kind.name} {at:%Y-%m-%dT%H:%M}", at)


def forget() -> int:
    """Delete what ended longer ago than its kind is kept, and its log; returns how many jobs."""
    gone = 0
    for kind in all_kinds():
        before = database.now() - kind.keep
        while batch := table.forget(kind.name, before, FORGOTTEN_AT_ONCE):
            gone += batch
    return gone
