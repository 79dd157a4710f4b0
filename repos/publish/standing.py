"""What stands at the paths that are to be published to, or stood there last."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from repos import database
from repos.catalogue import Repo


@dataclass(slots=True)
class Standing:
    """What stands at a path key, or, with `until`, what stood there last; `row` where it is not written yet."""

    id: int
    until: int | None
    media_type: str
    sha256: str
    row: dict[str, Any] | None = None

    def close(self, number: int, closed: dict[int, list[int]]) -> None:
        """Let it end with this change; `closed` has the ids of those that are to be told so, by change."""
        if self.row is None:
            closed.setdefault(number, []).append(self.id)
        else:
            self.row["until"] = number


STANDING = """
SELECT a.path_key, a.id, a.until, a.media_type, b.sha256 FROM repos_asset a JOIN repos_blob b ON b.id = a.blob_id
 WHERE a.repository_id = %s AND a.until IS NULL AND {keys}
"""

LAST = """
SELECT a.path_key, a.id, a.until, a.media_type, b.sha256 FROM repos_asset a JOIN repos_blob b ON b.id = a.blob_id
 WHERE a.id IN (SELECT max(a.id) FROM repos_asset a WHERE a.repository_id = %s AND {keys} GROUP BY a.path_key)
"""
"""One row a path, however often it came and went: rows of a path are inserted in the order of its history."""


def ask_for(repo: Repo, paths: Mapping[str, str]) -> list[database.Query]:
    """Queries for what stands at `paths`, by path key; where a local repository lets nothing change, also for what stood last."""
    fixed = [key for key, path in paths.items() if repo.is_local and repo.never_changes(path)]
    queries: list[database.Query] = []
    for sql, keys in ((LAST, fixed), (STANDING, [*(paths.keys() - fixed)])):
        if keys:
            clause, values = database.among("a.path_key", keys)
            queries.append((sql.format(keys=clause), [repo.id, *values]))
    return queries


def read(answers: Iterable[Iterable[tuple]]) -> dict[str, Standing]:
    """What those queries gave, by path key."""
    return {key: Standing(*row) for rows in answers for key, *row in rows}
