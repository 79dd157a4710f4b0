"""The hot read: everything that is known of one path in several repositories, in one query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import connection

from repos import database
from repos.catalogue import Repo


@dataclass(frozen=True, slots=True)
class Found:
    """An open asset with its bytes' whereabouts: all that serving it needs.

    `at` is when it came, `checked_at` when its upstream last agreed (remote only), `stale` that the upstream could not be asked.
    `heads`: of the local repositories that would have gone first, by their ids.
    """

    repository_id: int
    asset_id: int
    path: str
    media_type: str
    package: str
    version: str
    at: datetime
    sha256: str
    size: int
    key: str
    digests: dict[str, str]
    checked_at: datetime | None = None
    stale: bool = False
    heads: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Fresh:
    """What a remote knows of its upstream's document; `expires_at` None: for ever."""

    checked_at: datetime
    expires_at: datetime | None
    missing: bool
    etag: str
    last_modified: str


@dataclass(slots=True)
class Known:
    """What the rows tell of one path by repository id: assets, freshness, who holds (or held) its package, heads of locals."""

    assets: dict[int, Found] = field(default_factory=dict)
    fresh: dict[int, Fresh] = field(default_factory=dict)
    owners: set[int] = field(default_factory=set)
    heads: dict[int, int] = field(default_factory=dict)


ASSETS = """
SELECT 'asset', a.repository_id, a.id, a.path, a.media_type, a.package, a.version, c.at, b.sha256, b.size, b.key, b.digests,
       NULL, NULL, NULL, NULL, NULL
  FROM repos_asset a JOIN repos_blob b ON b.id = a.blob_id
  JOIN repos_change c ON c.repository_id = a.repository_id AND c.number = a.since
 WHERE a.repository_id IN ({repositories}) AND a.path_key = %s AND a.until IS NULL
"""
FRESHNESS = """
SELECT 'fresh', repository_id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       checked_at, expires_at, missing, etag, last_modified
  FROM repos_freshness WHERE repository_id IN ({repositories}) AND path_key = %s
"""
OWNERS = """
SELECT 'owner', r.id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
  FROM repos_repository r
 WHERE r.id IN ({repositories}) AND EXISTS (SELECT 1 FROM repos_asset a WHERE a.repository_id = r.id AND a.package = %s{part})
"""
PART = " AND a.path <> a.package || %s || a.version"
HEADS = """
SELECT 'head', id, head, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
  FROM repos_repository WHERE id IN ({repositories})
"""


def look(repos: Sequence[Repo], path: str, *, ownership: bool = False) -> Known:
    """What is known of `path` in `repos`, which have one format; with `ownership` also which locals own its package. One query.

    A name stays owned after its last version was deleted, so that a deletion never sends its users to a public upstream.
    """
    if not repos:
        return Known()
    format = repos[0].format
    package = format.package(path)
    parts: list[Part] = [(ASSETS, [repo.id for repo in repos], format.path_key(path))]
    if remotes := [repo.id for repo in repos if repo.is_remote]:
        parts.append((FRESHNESS, remotes, format.path_key(path)))
    locals_ = [repo.id for repo in repos if repo.is_local]
    if ownership and locals_ and package:
        parts.append((OWNERS.replace("{part}", PART if format.part else ""), locals_, package, *filter(None, (format.part,))))
    if ownership and locals_:
        parts.append((HEADS, locals_))
    return _known(parts)


Part = tuple[Any, ...]
"""A part of the query: its text, the repositories that it asks about, and its other values."""


def _known(parts: list[Part]) -> Known:
    sql = " UNION ALL ".join(text.format(repositories=", ".join(["%s"] * len(ids))) for text, ids, *_ in parts)
    values: list[Any] = [value for _, ids, *others in parts for value in (*ids, *others)]
    known = Known()
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        for what, repository_id, *row in cursor.fetchall():
            if what == "asset":
                known.assets[repository_id] = _found(repository_id, row)
            elif what == "fresh":
                known.fresh[repository_id] = _fresh(row)
            elif what == "head":
                known.heads[repository_id] = row[0]
            else:
                known.owners.add(repository_id)
    return known


def _found(repository_id: int, row: list) -> Found:
    asset_id, path, media_type, package, version, at, sha256, size, key, digests, *_ = row
    return Found(
        repository_id, asset_id, path, media_type, package, version, database.moment(at), sha256, size, key,
        database.loaded(digests),
    )  # fmt: skip


def _fresh(row: list) -> Fresh:
    *_, checked_at, expires_at, missing, etag, last_modified = row
    return Fresh(database.moment(checked_at), database.moment(expires_at), bool(missing), etag, last_modified)
