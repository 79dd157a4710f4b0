"""A repository's changes, numbered under the lock of its row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from problems import NotFound
from repos import database

AT = "(SELECT changed_at FROM repos_repository WHERE id = %s)"
"""When a change is: as its repository's row says, which is written before it."""


@dataclass(slots=True)
class Locked:
    """A repository's row, locked: the number of its newest change, and what is new until `write`."""

    id: int
    head: int
    changes: list[dict[str, Any]] = field(default_factory=list)

    def new_change(self, actor: str, action: str, detail: dict[str, Any] | None = None) -> int:
        """Raise the head by one, for a Change of this number, which is returned."""
        self.head += 1
        self.changes.append(
            {
                "repository_id": self.id, "number": self.head, "at": database.Sql(AT, (self.id,)), "actor": actor, "origin": "",
                "action": action, "detail": database.document(detail or {}),
            }
        )  # fmt: skip
        return self.head

    def write(self) -> None:
        """Insert the changes and move the row on to the last, at a time that is not before that of earlier ones."""
        if self.changes:
            now = database.clock(not_before="changed_at")
            sql = f"UPDATE repos_repository SET head = %s, changed_at = {now.text} WHERE id = %s"
            database.run(sql, [self.head, *now.values, self.id])
            database.insert("repos_change", self.changes)
            self.changes = []


def lock_repository(number: int, key: str, *then: database.Query) -> tuple[Locked, list[list[tuple]]]:
    """A repository's row, and what these queries give once it is locked. Raises NotFound."""
    lock = f"SELECT head FROM repos_repository WHERE id = %s {database.exclusive_lock()}", [number]
    found, *answers = database.rows_of([lock, *then])
    if not found:
        raise NotFound(f"repository {key} is no more")
    return Locked(number, found[0][0]), answers
