"""Closes what remotes hold and nobody asks for; it is fetched again when somebody does, and its bytes are freed by gc."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db.models import Exists, OuterRef

from basics.durations import duration
from problems import NotFound
from repos import database, jobs, publish
from repos.catalogue import load_one
from repos.models import Asset, Change, Repository

BATCH = 500


@jobs.kind("expire", permission="system:manage", every=timedelta(hours=1), keep=timedelta(days=2))
def run(job: jobs.Running) -> dict[str, Any]:
    return {"closed": close_unused(job.progress)}


def close_unused(told: Callable[[int], None]) -> int:
    """Close what nobody asked a remote for in `cache.unused`; returns how much. `told` hears after each step how much so far."""
    closed = 0
    for row in Repository.objects.filter(kind=Repository.Kind.REMOTE, settings__cache__unused__isnull=False):
        before = database.now() - duration(row.settings["cache"]["unused"])
        came = Change.objects.filter(repository=row, number=OuterRef("since"), at__lt=before)
        unused = Asset.objects.filter(Exists(came), repository=row, until=None).exclude(usage__last_used__gte=before)
        repo = load_one(row)
        while paths := list(unused.values_list("path", flat=True)[:BATCH]):
            with contextlib.suppress(NotFound):  # another sweep was first
                publish.delete(repo, paths, "gc")
            closed += len(paths)
            told(closed)
    return closed
