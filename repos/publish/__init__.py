"""The only writer of Changes and Assets.

One transaction is one commit point. The bytes are durable first; then, in this order so that writers never wait for each
other in a circle: blob rows are locked (shared) and seen to be live, the repository's row is locked, what stands there is
compared, the Change is inserted, old assets are closed, new ones inserted. Only then the client hears of success.

    publish.put       what a client sends: one Change for the assets that belong together
    publish.fill      what a remote fetched: one Change for all fills that wait at that moment
    publish.close     closes assets, chosen under the lock; their bytes are kept as long as history keeps them
    publish.delete    closes the assets at given paths
    publish.configured   a Change that tells of a new configuration

    groups      commits that wait for each other anyhow are one transaction
    commits     what a commit is, the rules by which it may be, and its rows
    contents    its bytes: durable before the transaction, locked in it
    standing    what stands at its paths
    changes     the repository's row, locked, and the numbers of its changes
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from accounts import audit
from problems import NotFound
from repos import database
from repos.catalogue import Repo
from repos.models import Aside, Asset, Change, Freshness, Lease, Repository
from repos.publish.changes import lock_repository
from repos.publish.commits import Commit, New, Outcome, close_assets, write_freshness
from repos.publish.contents import Bytes, lock_blobs, store_what_is_missing, with_durable_bytes
from repos.publish.groups import commit_with_others

__all__ = [
    "Bytes", "Commit", "New", "Outcome",
    "close", "configured", "delete", "fill", "put", "put_aside", "remember_freshness",
]  # fmt: skip


def put(
    repo: Repo, news: Sequence[New], actor: str, *,
    may_overwrite: bool, needs: Mapping[str, int] | None = None, ends: Callable[[], object] | None = None,
) -> Outcome:  # fmt: skip
    """Publish `news` as one Change, for which there must stand what it `needs`, and with which something `ends` (see Commit).

    Raises Conflict where what can never change stands with other bytes, or stood; Forbidden where something would be
    replaced without `may_overwrite`; Malformed where something that is needed is missing or of another size. The same bytes
    again change nothing, and count as a use of what stands.
    """
    return commit_with_others(Commit(repo, news, actor, may_overwrite, needs or {}, ends), Change.Action.PUBLISH)


def fill(repo: Repo, news: Sequence[New], freshness: Freshness, fence: str) -> Outcome:
    """Record what was fetched from an upstream. `fence` is the lease under which it was; a lease that was lost records nothing.

    Raises Conflict where an upstream changed what can never change.
    """
    return commit_with_others(Commit(repo, news, "", True, freshness=freshness, fence=fence), Change.Action.FILL)


def delete(repo: Repo, paths: Sequence[str], actor: str) -> int:
    """Close the assets that are open at `paths`, as one Change; NotFound where there is none. Returns the change's number."""
    keys = [repo.format.path_key(path) for path in paths]
    number = close(repo, lambda open_assets: open_assets.filter(path_key__in=keys), actor)
    if number is None:
        raise NotFound(f"nothing stands at {' or '.join(paths)}")
    return number


def close(repo: Repo, choose: Callable[[QuerySet[Asset]], QuerySet[Asset]], actor: str) -> int | None:
    """Close those of the repository's open assets that `choose` gives, as one Change, whose number is returned; None: none.

    They are chosen while nobody else can publish to the repository, so that what `choose` sees is so when they are closed.
    """
    with transaction.atomic():
        row, _ = lock_repository(repo.id, repo.key)
        chosen = dict(choose(Asset.objects.filter(repository_id=repo.id, until=None)).values_list("pk", "path"))
        if not chosen:
            return None
        paths = sorted(chosen.values())
        number = row.new_change(actor, Change.Action.DELETE, {"paths": paths})
        told = {"change": number, "by": actor, **({"also": paths[1:], "assets": len(paths)} if paths[1:] else {})}
        with database.sent_together():
            row.write()
            close_assets({number: list(chosen)})
            audit.write([audit.line("artifact.delete", repository=repo.key, subject=paths[0], detail=told)])
    return number


def configured(repository: Repository, detail: dict[str, Any], actor: str) -> None:
    """Record that a repository's configuration is now `detail` (without secrets). To be called in the caller's transaction."""
    row, _ = lock_repository(repository.pk, repository.key)
    row.new_change(actor, Change.Action.CONFIGURE, detail)
    row.write()
    repository.refresh_from_db(fields=["head", "changed_at"])


def put_aside(repo: Repo, path: str, content: Bytes, actor: str, expires_at: datetime) -> None:
    """Keep bytes for the rest of their publication; they are no asset yet."""

    def insert() -> None:
        with transaction.atomic():
            blob_id = lock_blobs([content])[content.sha256]
            Aside.objects.update_or_create(
                repository_id=repo.id,
                path_key=repo.format.path_key(path),
                defaults={"blob_id": blob_id, "actor": actor, "expires_at": expires_at},
            )

    store_what_is_missing([content])
    with_durable_bytes([content], insert)


def remember_freshness(freshness: Freshness, fence: str) -> None:
    """Write what is known of an upstream's document; no Change, since nothing that is served changed.

    Nothing is written when the lease of `fence` was lost meanwhile: its successor knows better.
    """
    with transaction.atomic():
        if not fence or Lease.objects.select_for_update().filter(fence=fence).exists():
            write_freshness([freshness])
