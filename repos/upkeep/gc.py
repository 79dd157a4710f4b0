"""Frees the bytes that history no longer keeps, while everything runs.

First it closes what remotes hold unused, and what locals hold only for something that is gone, and ends abandoned uploads.

A blob is free when no open asset, no asset closed within history.keep, and nothing put aside has it, and it is older than
the grace. It goes in three steps, each of which may be the last before a crash: mark the row deleting (and commit), delete
the object, then settle the row: history still tells of its digest (`freed`), or nothing does and the row goes too.

A publisher that holds the row's shared lock is skipped; whether the blob is free is asked again in the statement that marks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import Exists, OuterRef

from accounts import audit
from repos import database, jobs, sessions
from repos.blobs.stores import store
from repos.jobs import schedule
from repos.models import Aside, Asset, Blob, Freshness, Lease, Rest
from repos.upkeep import expire, fsck, kept_for
from repos.upkeep.unheld import GRACE as UNHELD
from repos.upkeep.unheld import close_unheld

GRACE = timedelta(hours=1)
STRAY = timedelta(hours=1)
"""Age at which bytes that no row names are no longer taken for an upload whose commit is still to come."""
BATCH = 500


@dataclass
class Freed:
    """What a sweep did: blobs and bytes freed, objects and unfinished uploads removed that no row named.

    `unheld` is what it closed since nothing refers to it; the bytes of that are freed when history no longer keeps them.
    """

    blobs: int = 0
    size: int = 0
    orphans: int = 0
    leftovers: int = 0
    unheld: int = 0

    def __str__(self) -> str:
        return f"{self.size} bytes: {self.blobs} blobs, {self.orphans} objects without a row, {self.leftovers} unfinished uploads"


@jobs.kind("gc", permission="system:manage", every=timedelta(days=1))
def run(job: jobs.Running) -> dict[str, Any]:
    """What `sweep` does, and old jobs forgotten."""
    freed = sweep(told=job.progress)
    forgotten = schedule.forget()
    job.log(f"freed {freed}; closed {freed.unheld} to which nothing refers; forgot {forgotten} jobs")
    return {**asdict(freed), "jobs": forgotten}


def sweep(
    *,
    grace: timedelta = GRACE,
    unheld: timedelta = UNHELD,
    stray: timedelta = STRAY,
    dry_run: bool = False,
    told: Callable[[int], None] = lambda blobs: None,
) -> Freed:
    """Free what is free and older than `grace`; remove what no row names and is older than `stray`. `dry_run` only counts.

    What nothing refers to any more is closed after `unheld`, which should be longer than any push takes.

    `told` hears after each step how many blobs were freed, and may end the sweep by raising: what is left the next does.
    Any `grace` is safe while others publish. A `stray` shorter than an upload takes from its last byte to its commit is not.
    """
    freed = Freed()
    try:
        _sweep(freed, grace, unheld, stray, dry_run, told)
    finally:
        if not dry_run and (freed.size or freed.blobs):
            audit.record("storage.free", detail=asdict(freed))
    return freed


def _sweep(
    freed: Freed, grace: timedelta, unheld: timedelta, stray: timedelta, dry_run: bool, told: Callable[[int], None]
) -> None:
    if not dry_run:
        expire.close_unused(lambda _: told(0))
    freed.unheld = close_unheld(unheld, lambda _: told(0), dry_run=dry_run)
    if not dry_run:
        freed.leftovers = sessions.reap()
        Aside.objects.filter(expires_at__lt=database.now()).delete()
        Lease.objects.filter(expires_at__lt=database.now() - grace).delete()
        Freshness.objects.filter(missing=True, expires_at__lt=database.now()).delete()
        Rest.objects.filter(until__lt=database.now()).delete()
        _finish_marked()
    for blobs in _batches(grace):
        if dry_run or _mark(blobs, grace):
            taken = blobs if dry_run else Blob.objects.filter(pk__in=[blob.pk for blob in blobs], state=Blob.State.DELETING)
            freed.blobs += len(taken)
            freed.size += sum(blob.size for blob in taken)
        if not dry_run:
            _finish_marked()
        told(freed.blobs)
    _remove_strays(freed, stray, dry_run=dry_run)


def _free(grace: timedelta):
    old = Blob.objects.filter(state=Blob.State.LIVE, created_at__lt=database.now() - grace)
    return old.filter(~Exists(fsck.needed_blobs(kept_for()).filter(pk=OuterRef("pk")).values("pk")))


def _batches(grace: timedelta) -> Iterator[list[Blob]]:
    last = 0
    while batch := list(_free(grace).filter(pk__gt=last).order_by("pk")[:BATCH]):
        yield batch
        last = batch[-1].pk


def _mark(blobs: list[Blob], grace: timedelta) -> int:
    """Mark those of `blobs` that are still free, and that nobody is just now publishing, as deleting."""
    with transaction.atomic():
        rows = Blob.objects.filter(pk__in=[blob.pk for blob in blobs], state=Blob.State.LIVE).order_by("pk")
        skip = connection.features.has_select_for_update_skip_locked
        locked = [blob.pk for blob in rows.select_for_update(skip_locked=skip)]
        return _free(grace).filter(pk__in=locked).update(state=Blob.State.DELETING)


def _finish_marked() -> None:
    """Delete the objects of marked rows, also those that an earlier sweep was killed over."""
    marked = Blob.objects.filter(state=Blob.State.DELETING)
    last = 0
    while page := dict(marked.filter(pk__gt=last).order_by("pk").values_list("pk", "key")[:BATCH]):
        last = max(page)
        for key in page.values():
            store().delete(key)
        with transaction.atomic():
            here = marked.filter(pk__in=page)
            here.filter(Exists(Asset.objects.filter(blob_id=OuterRef("pk")))).update(state=Blob.State.FREED)
            here.delete()


def _remove_strays(freed: Freed, age: timedelta, *, dry_run: bool) -> None:
    """Objects and unfinished uploads without a row, which a crash before the commit leaves behind."""
    bytes_ = store()
    old = [item for item in bytes_.objects() if item.age > age.total_seconds()]
    for start in range(0, len(old), BATCH):
        items = {item.key: item for item in old[start : start + BATCH]}
        for key in items.keys() - set(
            Blob.objects.filter(key__in=items).exclude(state=Blob.State.FREED).values_list("key", flat=True)
        ):
            freed.orphans += 1
            freed.size += items[key].size
            if not dry_run:
                bytes_.delete(key)
    for item in bytes_.leftovers():
        if item.age > age.total_seconds():
            freed.leftovers += 1
            freed.size += item.size
            if not dry_run:
                bytes_.discard(item)
    for item in sessions.parts_of_none(age):
        freed.leftovers += 1
        freed.size += item.size
        if not dry_run:
            bytes_.discard_part(item.key)
