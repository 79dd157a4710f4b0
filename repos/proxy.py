"""A remote repository: what is cached and fresh is served, else its upstreams are asked, once for all who wait (`repos.fill`).

When they fail, the newest cached answer is served and marked stale, else the failure is the answer. Never "not found".
Who has a cached answer to fall back on waits no longer for a silent upstream than `waiting.PATIENCE`; the fetch goes on.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime

from django.utils import timezone

from problems import Forbidden, NotFound, StorageFull, Unavailable, UpstreamDenied, UpstreamFailed, absent
from repos import denials, rows, waiting
from repos.catalogue import Repo
from repos.fill import Fill, cached, is_fresh, join
from repos.rows import Found, Fresh

log = logging.getLogger("entrepot.proxy")


def get(
    repo: Repo, path: str, asset: Found | None, fresh: Fresh | None, *, cached_only: bool = False, accept: str = ""
) -> Found | Fill:
    """The asset at `path` of a remote, of which the rows know `asset` and `fresh`, for a client that takes these media types.

    Gives a Fill, to be read along, where bytes may be sent before they are all here. Raises NotFound where the upstream says
    so, Forbidden where a pattern of the repository refuses the name or the upstream denies it, Unavailable where it is offline,
    UpstreamFailed.
    """
    check_allowed(repo, path)
    if fresh is not None and asset is not None:
        asset = replace(asset, checked_at=fresh.checked_at)
    if cached_only or is_fresh(repo, path, asset, fresh):
        return cached(repo, path, asset, fresh, cached_only=cached_only)
    if repo.offline:
        return _cached_offline(repo, path, asset)
    fallback = (
        asset is not None and asset.checked_at is not None and timezone.now() - asset.checked_at <= repo.cache.stale_on_error
    )
    try:
        denials.check(repo, path)
        waiting.check(repo)
        return join(repo, path, asset, fresh, accept=accept).first_answer(patient=not fallback)
    except (UpstreamFailed, UpstreamDenied, Unavailable, StorageFull) as failure:
        if asset is None or not fallback:
            raise
        log.warning("%s: %s is served stale: %s", repo.key, path, failure.reason)
        return replace(asset, stale=True)


def start(repo: Repo, path: str, *, newer_than: datetime | None = None) -> Fill:
    """The fetch of `path` into a remote, for those who need not wait for it.

    `newer_than`: also where what is cached is fresh still, unless that was asked for after this moment.

    Raises what `get` raises before the upstream is asked.
    """
    check_allowed(repo, path)
    if repo.offline:
        raise Unavailable(f"{repo.key} is set offline", rule="repository.offline")
    known = rows.look([repo], path)
    return join(repo, path, known.assets.get(repo.id), known.fresh.get(repo.id), newer_than=newer_than)


def is_allowed(repo: Repo, path: str) -> bool:
    try:
        check_allowed(repo, path)
    except (NotFound, Forbidden):
        return False
    return True


def check_allowed(repo: Repo, path: str) -> None:
    """Whether the repository's patterns let its upstream be asked for `path`."""
    package = repo.format.package(path)
    if (package and repo.private.match(package)) or not repo.sources(path):
        raise absent(path)
    if package and ((repo.include and not repo.include.match(package)) or repo.exclude.match(package)):
        raise Forbidden(f"{package} is not taken from this upstream; ask who runs {repo.key}", rule="repository.include-exclude")


def _cached_offline(repo: Repo, path: str, asset: Found | None) -> Found:
    if asset is None:
        raise Unavailable(f"{path} is not cached and {repo.key} is set offline", rule="repository.offline")
    return asset
