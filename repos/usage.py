"""How often assets are served: counted in memory, written in batches, so that a read never writes.

A process that is killed loses the counts of its last seconds, which are statistics and nothing else.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections import Counter
from collections.abc import Iterable, Mapping

from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from accounts import tokens, uses
from accounts.actors import Actor
from repos import database
from repos.models import Asset

log = logging.getLogger("entrepot.usage")

SECONDS = 10.0

COUNT = """
INSERT INTO repos_usage (asset_id, downloads, last_used) VALUES (%s, %s, %s)
ON CONFLICT (asset_id) DO UPDATE
   SET downloads = repos_usage.downloads + excluded.downloads, last_used = excluded.last_used
"""

_lock = threading.Lock()
_counts: Counter[int] = Counter()
_thread: threading.Thread | None = None


def served(asset_id: int, downloads: int = 1) -> None:
    """An asset was downloaded, or was of use without being downloaded: asked for by HEAD, found unchanged, merged."""
    with _lock:
        _counts[asset_id] += downloads
    write_soon()


def exercised(actor: Actor, rights: Iterable[tuple[str, str]]) -> None:
    """Somebody did what these rights let them do: permission and repository's key, which is empty for a global one."""
    for permission, key in rights:
        if uses.used(actor.user_id, key, permission):
            write_soon()


def wanted(asset_ids: Iterable[int]) -> None:
    """What stood was published again; written in the caller's transaction, so that no sweep takes it before what will need it."""
    _write(dict.fromkeys(asset_ids, 0))


def write_soon() -> None:
    """See to it that what is counted here, in `accounts.tokens` and in `accounts.uses` is written before long."""
    global _thread
    with _lock:
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_run, name="usage", daemon=True)
            _thread.start()
            atexit.register(flush)


def flush() -> None:
    """Write what was counted since the last time, with the tokens and the rights that were used."""
    with _lock:
        counts = dict(_counts)
        _counts.clear()
    tokens.flush()
    uses.flush()
    if not counts:
        return
    with transaction.atomic():
        _write(counts)


def _write(counts: Mapping[int, int]) -> None:
    here = Asset.objects.filter(pk__in=counts).order_by("pk").values_list("pk", flat=True)
    now = database.parameter(timezone.now())
    with connection.cursor() as cursor:
        cursor.executemany(COUNT, [(pk, counts[pk], now) for pk in here])


def _run() -> None:
    waiting = threading.Event()
    while True:
        waiting.wait(SECONDS)
        try:
            flush()
        except DatabaseError:
            log.exception("downloads could not be counted")
        finally:
            connection.close()
