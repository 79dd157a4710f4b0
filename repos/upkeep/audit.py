"""Removes what the audit keeps no longer: what is too old and, where there are too many lines, the oldest refusals first.

What is younger than a day stays whatever the configuration says; see `accounts.appendonly`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db.models import QuerySet

from accounts import appendonly, audit
from accounts.models import Event
from basics.durations import duration
from repos import database, jobs
from repos.models import Setting

KEEP = timedelta(days=400)
MOST = 5_000_000
"""How long, and how many, lines are kept where the configuration says nothing."""
BATCH = 1000
MARGIN = timedelta(minutes=1)


@jobs.kind("audit", permission="system:manage", every=timedelta(hours=1), keep=timedelta(days=2))
def run(job: jobs.Running) -> dict[str, Any]:
    return trim(job.progress)


def trim(told: Callable[[int], None]) -> dict[str, int]:
    """Remove what is kept no longer, and say so in the audit; returns how many lines. `told` hears after each step how many."""
    row = Setting.objects.filter(name="audit").first()
    chosen = row.value if row else {}
    now = database.now()
    removable = Event.objects.filter(at__lt=now - appendonly.KEPT - MARGIN)
    keep = duration(chosen["keep"]) if "keep" in chosen else KEEP
    removed = {"expired": _remove(removable.filter(at__lt=now - keep), None, told)}
    for what, lines in (("refusals", removable.filter(refused=True)), ("others", removable)):
        over = Event.objects.count() - chosen.get("most", MOST)
        removed[what] = _remove(lines, over, told) if over > 0 else 0
    if any(removed.values()):
        audit.record("audit.trim", detail={word: count for word, count in removed.items() if count})
    return removed


def _remove(lines: QuerySet[Event], most: int | None, told: Callable[[int], None]) -> int:
    """Remove the oldest of these lines, at most so many; returns how many."""
    removed = 0
    while most is None or removed < most:
        size = BATCH if most is None else min(BATCH, most - removed)
        batch = list(lines.order_by("at", "id").values_list("pk", flat=True)[:size])
        Event.objects.filter(pk__in=batch).delete()
        removed += len(batch)
        told(removed)
        if len(batch) < size:
            break
    return removed
