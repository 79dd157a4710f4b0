"""The bytes of what is published: durable before any row names them, and never taken by a sweep in between."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import DatabaseError, transaction

from problems import Unavailable
from repos import database
from repos.blobs import Incoming
from repos.blobs.stores import store
from repos.models import Blob
from repos.rows import Found

log = logging.getLogger("entrepot.publish")

ATTEMPTS = 5


@dataclass
class Bytes:
    """Bytes and, once they are durable, their key in the store. `incoming` None: they are stored already."""

    incoming: Incoming | None
    sha256: str
    size: int
    digests: dict[str, str]
    key: str = ""
    taken: bool = False
    """Whether the last transaction's row of these bytes has this key; another writer's may have made it needless."""

    @classmethod
    def of(cls, incoming: Incoming) -> Bytes:
        return cls(incoming, incoming.sha256, incoming.size, incoming.digests)

    @classmethod
    def stored(cls, found: Found) -> Bytes:
        """The bytes of an asset that stands somewhere."""
        return cls(None, found.sha256, found.size, found.digests)

    def make_durable(self) -> None:
        """Raises Unavailable where they were stored already and are so no more."""
        if self.incoming is None:
            raise Unavailable("the bytes were removed meanwhile; send them anew", rule="blob.live")
        if not self.key:
            self.key = self.incoming.keep()


class Gone(Exception):
    """A blob that was live stopped being so; its bytes are stored anew."""


def with_durable_bytes(contents: list[Bytes], insert: Any) -> Any:
    """`insert` what was made durable; again, and durable anew, where a sweep took a stored blob in between.

    Keys that no row took are deleted, since another writer stored the same digest first. After an error they stay, for another
    attempt or, where it is not known whether the commit happened, for gc, which decides by the rows.
    """
    for _ in range(ATTEMPTS):
        try:
            result = insert()
        except Gone:
            store_what_is_missing(contents)
            continue
        delete_unused([content for content in contents if not content.taken])
        _add_digests(contents)
        return result
    raise Unavailable("the same bytes were being removed again and again; try again", rule="blob.live")


def store_what_is_missing(contents: list[Bytes]) -> None:
    wanted = {content.sha256: content for content in contents}
    clause, digests = database.among("sha256", list(wanted))
    live = {sha256 for (sha256,) in database.rows(f"SELECT sha256 FROM repos_blob WHERE state = 'live' AND {clause}", digests)}
    database.release()
    for sha256, content in wanted.items():
        if sha256 not in live:
            content.make_durable()


def delete_unused(contents: list[Bytes]) -> None:
    """What cannot be deleted is left to gc: the commit has happened, or has been refused, all the same."""
    keys = [content.key for content in contents if content.key]
    if not keys:
        return
    try:
        for key in set(keys) - set(Blob.objects.filter(key__in=keys).values_list("key", flat=True)):
            store().delete(key)
    except (OSError, DatabaseError):
        log.exception("bytes that no row names could not be deleted")


def lock_blobs(contents: Sequence[Bytes]) -> dict[str, int]:
    """The live blob rows of `contents`, by digest their ids; made where missing, locked against a sweep in that order."""
    durable = {content.sha256: content for content in contents if content.key}
    rows = [_blob(durable[sha256]) for sha256 in sorted(durable)]
    found = database.insert("repos_blob", rows, or_nothing=True, returning=("sha256", "id", "key"))
    wanted = sorted({content.sha256 for content in contents})
    if len(found) < len(wanted):
        clause, digests = database.among("sha256", wanted)
        live = f"SELECT sha256, id, key FROM repos_blob WHERE state = 'live' AND {clause} ORDER BY id {database.share_lock()}"
        found = database.rows(live, digests)
    if len(found) < len(wanted):
        raise Gone
    keys = {sha256: key for sha256, _, key in found}
    for content in contents:
        content.taken = content.key == keys[content.sha256]
    return {sha256: number for sha256, number, _ in found}


def _blob(content: Bytes) -> dict[str, Any]:
    return {
        "sha256": content.sha256, "size": content.size, "key": content.key, "state": Blob.State.LIVE,
        "digests": database.document(content.digests), "created_at": database.clock(),
    }  # fmt: skip


def _add_digests(contents: Iterable[Bytes]) -> None:
    """A format may declare digests that an earlier one, storing the same bytes, did not.

    After the commit and one row at a time: the commit's shared lock cannot be raised without deadlocks.
    """
    wanted = {content.sha256: content.digests for content in contents if content.digests and not content.key}
    for blob in Blob.objects.filter(sha256__in=wanted, state=Blob.State.LIVE) if wanted else ():
        if wanted[blob.sha256].keys() - blob.digests.keys():
            with transaction.atomic():
                row = Blob.objects.select_for_update().get(pk=blob.pk)
                row.digests = {**row.digests, **wanted[blob.sha256]}
                row.save(update_fields=["digests"])
