"""The audit by itself: what a line holds, and what floods come to."""

from __future__ import annotations

import contextlib
import json
import threading
import tracemalloc
from datetime import timedelta

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import appendonly, audit, events
from accounts.audit import Origin
from accounts.models import Event

pytestmark = pytest.mark.django_db

NOW = "2026-01-01T00:00:00.000000Z"
ENSURE = appendonly.ensure
"""The function itself: in the tests' own database it does nothing."""


def told() -> list[tuple]:
    return list(Event.objects.order_by("at", "id").values_list("action", "subject", "count"))


# Origins


def test_who_acts_holds_for_the_block_whoever_enters_within_and_not_for_another_thread():
    seen = []
    with audit.entered(Origin("outer")):
        with audit.entered(Origin("door")):
            audit.enter(Origin("known"))
            thread = threading.Thread(target=lambda: seen.append(audit.here()))
            thread.start()
            thread.join()
            assert audit.here().actor == "known"
        assert audit.here().actor == "outer"
    assert audit.here() == seen[0] == Origin()


def test_an_error_in_a_block_leaves_nobody_behind():
    with contextlib.suppress(ValueError), audit.entered(Origin("somebody")):
        raise ValueError
    assert audit.here() == Origin()


# Lines


def test_a_line_is_undone_with_what_it_tells_of():
    with contextlib.suppress(IntegrityError), transaction.atomic():
        audit.record("a.thing")
        raise IntegrityError
    assert told() == []


@pytest.mark.parametrize(
    "detail",
    [
        {"text": "x" * 10**6},
        {"list": ["x" * 1000] * 10_000},
        {f"key {n}": "x" * 600 for n in range(1000)},
        {"a": {"b": {"c": [{"d": ["x" * 400] * 99}] * 99}}},
        {"nul": "a\0b", "half": "\ud800", "other": timedelta(1), "set": {"b", "a"}},
        {"unprintable": "\u0001" * 5000},
    ],
)
def test_a_line_has_a_bounded_size_and_holds_what_databases_take_whatever_it_is_given(detail):
    audit.record(
        "x" * 40, subject="\U0001f600" * 2000, repository="r" * 999, detail=detail, origin=Origin("a" * 999, 1, "b", "c" * 99)
    )
    line = Event.objects.get()
    assert len(line.subject.encode()) <= audit.SUBJECT
    assert len(json.dumps(line.detail)) <= audit.LARGEST


def test_what_is_cut_says_so():
    audit.record("a.thing", detail={"paths": [str(n) for n in range(60)], "text": "x" * 501})
    detail = Event.objects.get().detail
    assert detail["paths"][-2:] == ["49", "and 10 more"]
    assert detail["text"][-1] == "…"


# Floods


def test_a_hundred_thousand_alike_are_two_lines():
    for n in range(100_000):
        audit.notice("a.thing", subject="one", refused=True, origin=Origin("ann", request=str(n)))
        if n == 10:
            audit._notices.flush(everything=False)
            audit._notices.flush(everything=False)
    assert told() == [("a.thing", "one", 11)]
    audit.flush()
    assert told() == [("a.thing", "one", 11), ("a.thing", "one", 99_989)]


def test_a_hundred_thousand_different_ones_are_as_many_lines_as_are_told_apart_and_memory_stays_flat():
    def flood(first: int, end: int) -> None:
        for n in range(first, end):
            audit.notice("a.thing", subject=f"path {n}", refused=True, detail={"rule": "x"}, origin=Origin(f"u{n}"))

    flood(0, 90_000)
    tracemalloc.start()
    try:
        flood(90_000, 100_000)
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()
    audit.flush()
    assert Event.objects.count() == audit.DIFFERENT + 1
    rest = Event.objects.get(subject="")
    assert (rest.count, rest.refused, rest.actor) == (100_000 - audit.DIFFERENT, True, "")
    assert str(audit.DIFFERENT) in rest.detail["beyond"]


LONG = "what is told begins alike, and differs at its very end alone: "


def test_a_flood_of_one_action_hides_no_other():
    for n in range(1000):
        audit.notice("a.flood", subject=str(n))
    audit.notice("a.deletion", subject="the one that matters")
    audit.flush()
    assert ("a.deletion", "the one that matters", 1) in told()


@pytest.mark.parametrize(
    "other",
    [
        {"action": "b"}, {"subject": "t"}, {"repository": "q"}, {"refused": True}, {"detail": {"rule": "other"}},
        {"origin": Origin("bob", 1, "192.0.2.7")}, {"origin": Origin("ann", 2, "192.0.2.7")},
        {"origin": Origin("ann", 1, "192.0.2.8")}, {"detail": {"rule": f"{LONG}y"}},
    ],
)  # fmt: skip
def test_only_what_differs_in_nothing_but_its_time_and_request_is_counted_together(other):
    one = {
        "action": "a",
        "subject": "s",
        "repository": "r",
        "detail": {"rule": f"{LONG}x"},
        "origin": Origin("ann", 1, "192.0.2.7", "r1"),
    }
    audit.notice(**one)
    audit.notice(**{**one, "origin": Origin("ann", 1, "192.0.2.7", "r2")})
    audit.notice(**{**one, **other})
    audit.flush()
    assert sorted(Event.objects.values_list("count", flat=True)) == [1, 2]


def test_after_a_minute_what_comes_is_new_again():
    for count, minutes in ((1, 0), (1, 0), (2, 1), (3, 0)):
        audit._notices._began -= minutes * audit.MINUTE
        audit.notice("a", subject="s")
        audit._notices.flush(everything=False)
        assert len(told()) == count, "a first one at once, what comes again at the minute's end"
    assert sum(count for _, _, count in told()) == 4


def test_what_could_not_be_written_is_counted_on_and_written_later(monkeypatch):
    real = audit.write

    def full(lines):
        raise DatabaseError("disk is full")

    audit.notice("a", subject="s")
    monkeypatch.setattr(audit, "write", full)
    audit.flush()
    audit.notice("a", subject="s")
    audit.flush()
    monkeypatch.setattr(audit, "write", real)
    audit.flush()
    assert told() == [("a", "s", 2)]


def test_noticing_asks_the_database_nothing():
    with CaptureQueriesContext(connection) as captured:
        for n in range(1000):
            audit.notice("a", subject=str(n))
    assert len(captured) == 0
    with CaptureQueriesContext(connection) as captured:
        audit.flush()
    assert len([one for one in captured if "INSERT" in one["sql"]]) == 1


def test_a_name_that_is_no_users_is_not_kept_of_a_failed_sign_in(ann):
    for name in ("ann", "my password, in the wrong field"):
        audit.notice(audit.SIGN_IN, subject=name, refused=True, detail={"by": "password"})
    audit.flush()
    assert told() == [(audit.SIGN_IN, "ann", 1), (audit.SIGN_IN, "", 1)]


# Append-only


@pytest.mark.parametrize("statement", ["UPDATE accounts_event SET subject = 'x'", "DELETE FROM accounts_event"])
def test_the_triggers_refuse_and_can_be_made_twice(statement):
    ENSURE()
    ENSURE()
    audit.record("a.thing", subject="s")
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)
    assert told() == [("a.thing", "s", 1)]


def test_triggers_that_were_removed_are_made_again_by_the_next_migrate():
    ENSURE()
    appendonly.remove()
    ENSURE()
    audit.record("a.thing")
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        Event.objects.all().delete()


# Reading


@pytest.mark.django_db(transaction=True)
def test_a_line_of_a_transaction_that_ends_late_is_not_missed_by_who_goes_on():
    if connection.vendor != "postgresql":
        return  # which has one writer: lines are committed in their order
    other = connection.copy()
    try:
        with transaction.atomic():
            audit.record("first")
            late = threading.Thread(target=lambda: (audit.record("second"), connection.close()))
            late.start()
            late.join()
            assert [line.action for line in events.settled(events.chosen())] == []
        deadline = timezone.now() + timedelta(seconds=60)
        seen: list[str] = []
        while len(seen) < 2 and timezone.now() < deadline:
            seen = [line.action for line in events.settled(events.chosen())]
        assert seen == ["first", "second"]
    finally:
        other.close()


def test_places_are_read_as_they_are_written():
    audit.record("a.thing")
    line = Event.objects.get()
    assert events.read_place(events.shown_place(line)) == events.place(line)
    assert events.shown_place(line) == events.document(line)["place"]
