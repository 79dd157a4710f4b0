"""The right to fetch one path of a remote, of which there is one among all processes.

It is renewed while its fetch lives, so that one of a killed process is free after LIFETIME. Its fence is checked in the
transaction that records the fetch: one that was given up cannot overwrite its successor's result.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta

from django.db import DatabaseError, connection

from repos import database
from repos.catalogue import Repo
from repos.models import Lease

log = logging.getLogger("entrepot.leases")

LIFETIME = timedelta(seconds=15)
RENEWED = 2.0
"""Seconds after which a holder says again that it lives, and whether its upstream has sent something meanwhile."""

ACQUIRE = """
INSERT INTO repos_lease (repository_id, path_key, fence, expires_at, heard_at) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (repository_id, path_key)
DO UPDATE SET fence = excluded.fence, expires_at = excluded.expires_at, heard_at = excluded.heard_at
WHERE repos_lease.expires_at < %s
"""


def acquire(repo: Repo, path: str) -> str:
    """A fence if the lease of `path` was free or had expired, else an empty string."""
    fence, now = secrets.token_hex(16), database.now()
    times = [database.parameter(moment) for moment in (now + LIFETIME, now, now)]
    with connection.cursor() as cursor:
        cursor.execute(ACQUIRE, [repo.id, repo.format.path_key(path), fence, *times])
        return fence if cursor.rowcount == 1 else ""


def release(fence: str) -> None:
    if fence:
        Lease.objects.filter(fence=fence).delete()


def is_flowing(repo: Repo, path: str) -> bool:
    """Whether the upstream has sent something of `path` lately to whoever holds its lease."""
    since = database.now() - timedelta(seconds=1.5 * RENEWED)
    return Lease.objects.filter(repository_id=repo.id, path_key=repo.format.path_key(path), heard_at__gte=since).exists()


_held: dict[str, Callable[[], bool]] = {}
_changed = threading.Condition()


@contextlib.contextmanager
def kept_alive(fence: str, flowing: Callable[[], bool]) -> Iterator[None]:
    """Renew the lease while the block runs. `flowing`: whether the upstream has sent something in the last RENEWED seconds."""
    if not fence:
        yield
        return
    with _changed:
        if not _held:
            threading.Thread(target=_renew_held, name="leases", daemon=True).start()
        _held[fence] = flowing
    try:
        yield
    finally:
        with _changed:
            del _held[fence]
            _changed.notify_all()


def _renew_held() -> None:
    """Renew this process's leases until it holds none."""
    while True:
        with _changed:
            if _changed.wait_for(lambda: not _held, RENEWED):
                return
            held = {fence: flowing() for fence, flowing in _held.items()}
        try:
            _renew(held)
        except DatabaseError:
            log.exception("leases could not be renewed; other processes may fetch the same")
        connection.close()


def _renew(held: dict[str, bool]) -> None:
    now = database.now()
    mine = Lease.objects.filter(fence__in=held)
    mine.update(expires_at=now + LIFETIME)
    mine.filter(fence__in=[fence for fence, flows in held.items() if flows]).update(heard_at=now)
