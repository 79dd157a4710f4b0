"""Whether rows and bytes agree. Reads only; every finding is one line, and an empty list is the promise kept.

reference   what stands in a local repository needs something that does not stand there
bytes       an open asset, or one closed within history.keep, whose bytes are missing or have another size
orphan      an object in the store that no row names, older than the grace
leftover    bytes of an upload or fetch that ended long ago
digest      (scrub) an object whose bytes do not have its digest
history     change numbers with a gap, times that go back, a head that is not the newest number
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice

from django.db import connection
from django.db.models import Count, Exists, F, Max, Min, OuterRef, Q

from repos import database, sessions
from repos.blobs import CHUNK, Store
from repos.blobs.stores import store
from repos.format import installed
from repos.models import Asset, Blob, Change, Repository
from repos.upkeep import kept_for

PAGE = 1000
GRACE = timedelta(hours=1)
"""Bytes without a row are not wrong while their commit may still come."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: its kind, as above, and where."""

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


def check(*, scrub: bool = False, grace: timedelta = GRACE) -> Iterator[Finding]:
    """Every finding, as it is found. With `scrub` all bytes are read and their digests compared."""
    yield from _history()
    yield from _references()
    yield from _rows_without_bytes(store(), scrub=scrub)
    yield from _bytes_without_rows(store(), grace)


def _references() -> Iterator[Finding]:
    for row in Repository.objects.filter(kind=Repository.Kind.LOCAL, format__in=installed()).order_by("key"):
        form = installed()[row.format]
        standing = Asset.objects.filter(repository=row, until=None)
        named = standing.filter(blob__references__isnull=False).order_by("pk")
        columns = ("pk", "path", "blob__references__digest", "blob__references__kind")
        for page in _pages(named.values_list(*columns).iterator(chunk_size=PAGE)):
            needs = [(pk, path, form.referred_to(path, digest, kind)) for pk, path, digest, kind in page]
            keys = {needed: form.path_key(needed) for _, _, needed in needs if needed}
            here = set(standing.filter(path_key__in=set(keys.values())).values_list("path_key", flat=True))
            for pk, path, needed in needs:
                if needed and keys[needed] not in here and standing.filter(pk=pk).exists():  # and was not deleted meanwhile
                    yield Finding("reference", f"{row.key}/{path} needs {needed}, which does not stand there")


def _pages(rows: Iterator[tuple]) -> Iterator[list[tuple]]:
    while page := list(islice(rows, PAGE)):
        yield page


def needed_blobs(keep: timedelta):
    """The blobs whose bytes history promises: of open assets, of those closed within `keep`, and what is put aside."""
    closing = Change.objects.filter(
        repository_id=OuterRef("repository_id"), number=OuterRef("until"), at__gt=database.now() - keep
    )
    needing = Asset.objects.filter(blob_id=OuterRef("pk")).filter(Q(until=None) | Exists(closing))
    return Blob.objects.filter(Exists(needing) | Q(asides__isnull=False)).distinct()


def _rows_without_bytes(bytes_: Store, *, scrub: bool) -> Iterator[Finding]:
    for blob in needed_blobs(kept_for()).order_by("pk").iterator(chunk_size=2000):
        name = f"blob {blob.pk} (sha256 {blob.sha256})"
        if blob.state != Blob.State.LIVE:
            yield Finding("bytes", f"{name} is {blob.state}, but {_holder(blob)} needs it")
            continue
        try:
            size = bytes_.size(blob.key)
        except FileNotFoundError:
            yield Finding("bytes", f"{name} has no bytes in the store, but {_holder(blob)} needs them")
            continue
        if size != blob.size:
            yield Finding("bytes", f"{name} has {size} bytes in the store and {blob.size} in its row; {_holder(blob)} needs it")
        elif scrub and (found := _sha256(bytes_, blob.key)) != blob.sha256:
            yield Finding("digest", f"{name} has the sha256 {found} in the store; {_holder(blob)} needs it")


def _holder(blob: Blob) -> str:
    asset = blob.assets.select_related("repository").order_by(F("until").desc(nulls_first=True)).first()
    return f"{asset.repository.key}/{asset.path}" if asset else "an upload put aside"


def _bytes_without_rows(bytes_: Store, grace: timedelta) -> Iterator[Finding]:
    old = [item for item in bytes_.objects() if item.age > grace.total_seconds()]
    for start in range(0, len(old), 500):
        keys = {item.key for item in old[start : start + 500]}
        known = Blob.objects.filter(key__in=keys).exclude(state=Blob.State.FREED).values_list("key", flat=True)
        for key in sorted(keys - set(known)):
            yield Finding("orphan", f"{key} is in the store and no row names it; gc removes it")
    for item in bytes_.leftovers():
        if item.age > grace.total_seconds():
            yield Finding("leftover", f"incoming/{item.key} was never completed; gc removes it")
    for item in sessions.parts_of_none(grace):
        yield Finding("leftover", f"parts/{item.key} belongs to no upload; gc removes it")


def _sha256(bytes_: Store, key: str) -> str:
    hasher = hashlib.sha256()
    with bytes_.open(key) as file:
        while chunk := file.read(CHUNK):
            hasher.update(chunk)
    return hasher.hexdigest()


BACKWARDS = """
SELECT r.key, c.number FROM repos_change c
  JOIN repos_change p ON p.repository_id = c.repository_id AND p.number = c.number - 1
  JOIN repos_repository r ON r.id = c.repository_id
 WHERE c.at < p.at ORDER BY r.key, c.number
"""


def _history() -> Iterator[Finding]:
    numbers = Repository.objects.annotate(count=Count("changes"), newest=Max("changes__number"), oldest=Min("changes__number"))
    for row in numbers.order_by("key"):
        newest, oldest = row.newest or row.floor, row.oldest or row.floor + 1
        if newest != row.head:
            yield Finding("history", f"{row.key}: its head is {row.head} and its newest change is {newest}")
        if row.count != newest - oldest + 1:
            yield Finding("history", f"{row.key}: {row.count} changes between the numbers {oldest} and {newest}")
    with connection.cursor() as cursor:
        cursor.execute(BACKWARDS)
        for key, number in cursor.fetchall():
            yield Finding("history", f"{key}: change {number} is older than the one before it")
    beyond = Asset.objects.filter(Q(since__gt=F("repository__head")) | Q(until__gt=F("repository__head")))
    for asset in beyond.select_related("repository").order_by("pk")[:100]:
        yield Finding("history", f"{asset.repository.key}/{asset.path} names a change past its repository's head")
