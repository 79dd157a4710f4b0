"""Which rights are really used: by whom which permission on which repository, and when last.

A use is noted in memory, at most once an hour of each kind and process, and written in batches: no request waits for it, and a
process that is killed loses those of its last seconds.
"""

from __future__ import annotations

import threading
import time
from datetime import datetime
from typing import NamedTuple

from django.db import connection, transaction
from django.utils import timezone

SECONDS = 3600.0
"""How exactly it is known when a right was last used."""
MOST = 50_000
"""Uses that a process remembers having noted."""


class Use(NamedTuple):
    """`user` None: anonymous. `repository` empty: a global permission."""

    user: int | None
    repository: str
    permission: str


_lock = threading.Lock()
_noted: dict[Use, float] = {}
_waiting: dict[Use, datetime] = {}


def used(user: int | None, repository: str, permission: str) -> bool:
    """Remember that a right is used now, without a query: `flush` writes it. Returns whether there is something to write."""
    use, now = Use(user, repository, permission), time.monotonic()
    if now - _noted.get(use, -SECONDS) < SECONDS:
        return False
    with _lock:
        if len(_noted) >= MOST:
            _noted.clear()
        _noted[use] = now
        if len(_waiting) < MOST:
            _waiting[use] = timezone.now()
    return True


def flush() -> int:
    """Write what was used since the last time, in one transaction. Returns how many. After an error they wait for the next."""
    global _waiting
    with _lock:
        batch, _waiting = _waiting, {}
    if not batch:
        return 0
    adapt = connection.ops.adapt_datetimefield_value
    # In one order: two processes that flush cannot deadlock.
    rows = sorted(batch.items(), key=lambda row: (row[0].user or 0, row[0].repository, row[0].permission))
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.executemany(_OF_USERS, [(*use, adapt(at), use.user) for use, at in rows if use.user is not None])
            cursor.executemany(_OF_ANYBODY, [(*use[1:], adapt(at)) for use, at in rows if use.user is None])
    except BaseException:
        with _lock:
            _waiting = {**batch, **_waiting}
        raise
    return len(rows)


def forget() -> None:
    """Drop what is noted, for a database that was replaced under the process."""
    with _lock:
        _noted.clear()
        _waiting.clear()


_LATER = "DO UPDATE SET last_used_at = excluded.last_used_at WHERE accounts_rightuse.last_used_at < excluded.last_used_at"
_OF_USERS = f"""
INSERT INTO accounts_rightuse (user_id, repository, permission, last_used_at)
SELECT %s, %s, %s, %s WHERE EXISTS (SELECT 1 FROM accounts_user WHERE id = %s)
ON CONFLICT (user_id, repository, permission) WHERE user_id IS NOT NULL {_LATER}
"""
_OF_ANYBODY = f"""
INSERT INTO accounts_rightuse (repository, permission, last_used_at) VALUES (%s, %s, %s)
ON CONFLICT (repository, permission) WHERE user_id IS NULL {_LATER}
"""
