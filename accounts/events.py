"""Reading the audit: the lines that are asked for, in the order in which they were written, by pages that an index finds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection
from django.db.models import Q, QuerySet
from django.utils import timezone

from accounts.models import Event
from problems import Malformed

Place = tuple[datetime, int]
"""Where a line stands: when it was written, and its id."""

PAGE = 500
LAST = "\U0010ffff"
"""Sorts behind whatever a subject goes on with."""
UNDER_WAY = 1.0
"""Seconds: longer than a line takes from its time to its transaction's number. What is younger is not told of yet."""
FILTERS: Mapping[str, str] = {
    "actor": "actor", "action": "action", "refused": "refused", "repository": "repository", "since": "at__gte", "until": "at__lt",
}  # fmt: skip


def chosen(**asked: Any) -> QuerySet[Event]:
    """The lines that FILTERS, and `subject` as what it begins with, ask for; an actor called `anonymous` is nobody."""
    found = Event.objects.filter(**{field: asked[name] for name, field in FILTERS.items() if name in asked})
    if subject := asked.get("subject"):
        found = found.filter(subject__gte=subject, subject__lt=subject + LAST)
    return found


def ordered(lines: QuerySet[Event], *, after: Place | None = None, newest: bool = False) -> QuerySet[Event]:
    """Those behind a place, the oldest, or the `newest`, first."""
    if after is not None:
        at, number = after
        # The first condition says nothing that the second does not, but to an index.
        lines = (
            lines.filter(Q(at__lt=at) | Q(at=at, id__lt=number), at__lte=at)
            if newest
            else lines.filter(Q(at__gt=at) | Q(at=at, id__gt=number), at__gte=at)
        )
    return lines.order_by("-at", "-id") if newest else lines.order_by("at", "id")


def settled(lines: QuerySet[Event], after: Place | None = None) -> Iterator[Event]:
    """The lines behind a place, the oldest first, a page in memory at a time; only those before which none can come any more.

    Transactions end in another order than they begin: who goes on behind the last line that this gave misses none.
    """
    while page := list(ordered(lines.filter(at__lt=_nothing_is_written_before()), after=after)[:PAGE]):
        yield from page
        after = place(page[-1])


def _nothing_is_written_before() -> datetime:
    """The beginning of the oldest transaction that writes. SQLite has one writer, and tells only of what it has committed."""
    if connection.vendor != "postgresql":
        return timezone.now() + timedelta(seconds=1)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT least(clock_timestamp() - make_interval(secs => %s), (SELECT min(xact_start) FROM pg_stat_activity"
            " WHERE datname = current_database() AND backend_xid IS NOT NULL))",
            [UNDER_WAY],
        )
        return cursor.fetchone()[0]


def place(event: Event) -> Place:
    return event.at, event.pk


def shown_place(event: Event) -> str:
    """A line's place as text, such as `2026-01-31T12:00:00.123456Z/42`."""
    return f"{_moment(event.at)}/{event.pk}"


def read_place(text: str) -> Place:
    """Raises Malformed."""
    at, _, number = text.rpartition("/")
    try:
        moment = datetime.fromisoformat(at)
        if moment.tzinfo is None or not number.isascii() or not number.isdigit() or int(number) >= 2**63:
            raise ValueError
        return moment.astimezone(UTC), int(number)
    except (ValueError, OverflowError):
        raise Malformed("this is no line's place; take `place` of the last line that you have", rule="audit.place") from None


def document(event: Event) -> dict[str, Any]:
    """A line as it is told."""
    return {
        "place": shown_place(event), "at": _moment(event.at), "action": event.action, "refused": event.refused,
        "actor": event.actor, "token": event.token, "address": event.address, "request": event.request,
        "repository": event.repository, "subject": event.subject, "detail": event.detail, "count": event.count,
    }  # fmt: skip


def _moment(at: datetime) -> str:
    """RFC 3339, in UTC."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
