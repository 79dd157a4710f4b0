"""What reading the audit costs where there are a great many lines."""

from __future__ import annotations

import tracemalloc
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import events
from accounts.models import Event

pytestmark = pytest.mark.django_db


def many(count: int) -> None:
    """Lines of a year: of a hundred actors, ten actions, fifty repositories, one in twenty refused."""
    columns = "at, action, refused, actor, address, request, repository, subject, detail, count"
    values = "'a' || (n % 10), n % 20 = 0, 'u' || (n % 97), '', '', 'r' || (n % 53), 'path ' || (n % 1000) || '/' || n, '{}', 1"
    if connection.vendor == "postgresql":
        numbers, at = f"generate_series(1, {count}) n", "now() - n * interval '30 seconds'"
    else:
        numbers = f"(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {count}) SELECT n FROM c)"
        at = "strftime('%Y-%m-%d %H:%M:%f000', 'now', '-' || (n * 30) || ' seconds')"
    sql = f"INSERT INTO accounts_event ({columns}) SELECT {at}, {values} FROM {numbers}"
    with connection.cursor() as cursor:
        cursor.execute(sql)
        if connection.vendor == "postgresql":
            cursor.execute("ANALYZE accounts_event")


FILTERS = {
    "nothing": {}, "actor": {"actor": "u5"}, "action": {"action": "a3"}, "refused": {"refused": True},
    "repository": {"repository": "r7"}, "subject": {"subject": "path 77/"}, "all": {"actor": "u5", "repository": "r7"},
}  # fmt: skip


@pytest.fixture(scope="module")
def _a_great_many(django_db_setup, django_db_blocker):
    with django_db_blocker.unblock():
        many(100_000)
        yield
        Event.objects.all().delete()


@pytest.mark.parametrize("newest", [True, False])
@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.usefixtures("_a_great_many")
def test_a_page_is_found_by_an_index_in_its_order_whatever_is_asked_for(name, newest):
    middle = (timezone.now() - timedelta(days=15), 50_000)
    for after in (None, middle):
        page = events.ordered(events.chosen(**FILTERS[name]), after=after, newest=newest)[:101]
        plan = page.explain()
        assert "event_" in plan, plan
        assert "Seq Scan" not in plan, plan
        if name not in ("subject", "all"):  # of which there are few, which are sorted
            assert "Sort  " not in plan.replace("Incremental Sort", "") and "TEMP B-TREE" not in plan, plan
        assert len(page) > 0


@pytest.mark.usefixtures("_a_great_many")
def test_a_walk_over_everything_keeps_a_page_in_memory():
    with CaptureQueriesContext(connection) as captured:
        tracemalloc.start()
        try:
            count = sum(1 for _ in events.settled(events.chosen(actor="u1")))
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert count == Event.objects.filter(actor="u1").count() > 1000
    assert len([one for one in captured if "accounts_event" in one["sql"]]) <= 2 + count // events.PAGE
    assert most < 8 * 1024 * 1024
