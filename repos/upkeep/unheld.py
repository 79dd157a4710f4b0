"""Closes what stood in local repositories only for what referred to it, such as the layers of an image that was deleted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import datetime, timedelta

from problems import NotFound
from repos import database, publish
from repos.catalogue import Repo, load_one
from repos.format import installed
from repos.models import Asset, Repository

GRACE = timedelta(days=1)
"""How long it is kept for what is to come: layers are pushed before the manifest that refers to them."""
BATCH = 500


def close_unheld(grace: timedelta, told: Callable[[int], None], *, dry_run: bool = False) -> int:
    """Close what nothing has referred to for `grace`; returns how much. `told` hears after each step how much so far.

    `dry_run` only counts.
    """
    before = database.now() - grace
    closed = 0
    for row in Repository.objects.filter(kind=Repository.Kind.LOCAL, format__in=installed()).order_by("key"):
        repo = load_one(row)
        standing = Asset.objects.filter(repository=row, until=None)
        last = 0
        while batch := list(
            repo.format.unheld(standing.filter(pk__gt=last), before).order_by("pk").values_list("pk", flat=True)[:BATCH]
        ):
            closed += len(batch) if dry_run else _close(repo, batch, before)
            last = batch[-1]
            told(closed)
    return closed


def _close(repo: Repo, batch: list[int], before: datetime) -> int:
    """How many were closed; looked at again under the lock, under which whatever refers to one would be published."""
    number = None
    with contextlib.suppress(NotFound):  # the repository is no more
        number = publish.close(repo, lambda assets: repo.format.unheld(assets.filter(pk__in=batch), before), "gc")
    return Asset.objects.filter(repository_id=repo.id, until=number).count() if number is not None else 0
