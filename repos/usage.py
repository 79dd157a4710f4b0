"""How often assets are served: counted in memory, written in batches, so that a read never writes.

A process that is killed loses the counts of its last seconds, which are statistics and nothing else.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections import Counter

from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from accounts import tokens
from repos.models import Asset, Usage

log = logging.getLogger("entrepot.usage")

SECONDS = 10.0

_lock = threading.Lock()
_counts: Counter[int] = Counter()
_thread: threading.Thread | None = None


def served(asset_id: int) -> None:
    """One more download of an asset."""
    with _lock:
        _counts[asset_id] += 1
    write_soon()


def write_soon() -> None:
    """See to it that what is counted here and in `accounts.tokens` is written before long."""
    global _thread
    with _lock:
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_run, name="usage", daemon=True)
            _thread.start()
            atexit.register(flush)


def flush() -> None:
    """Write what was counted since the last time, with the tokens that were used."""
    with _lock:
        counts = dict(_counts)
        _counts.clear()
    tokens.flush()
    if not counts:
        return
    with transaction.atomic():
        now = timezone.now()
        here = set(Asset.objects.filter(pk__in=counts).values_list("pk", flat=True))
        known = {usage.pk: usage for usage in Usage.objects.select_for_update().filter(pk__in=here).order_by("pk")}
        for pk in sorted(here):
            usage = known.get(pk) or Usage(asset_id=pk)
            usage.downloads += counts[pk]
            usage.last_used = now
            known[pk] = usage
        Usage.objects.bulk_create(
            list(known.values()),
            update_conflicts=True,
            unique_fields=["asset"],
            update_fields=["downloads", "last_used"],
        )


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
