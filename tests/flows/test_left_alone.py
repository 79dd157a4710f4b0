"""Upstreams that are left alone, and how many may wait for one that is silent: the rules by themselves, without a server."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import timedelta

import pytest
from django.utils import timezone
from django.utils.http import http_date

from problems import NotFound, Unavailable, UpstreamFailed, UpstreamOut, UpstreamTimeout
from repos import circuit, upstream, waiting
from repos.catalogue import Upstream
from repos.models import Rest

SOURCE = Upstream(url="http://upstream.example")


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Upstream:
    """An upstream of which nothing is known yet, and whose checks wait until the test lets them be answered."""
    monkeypatch.setattr(circuit, "_circuits", {})
    return SOURCE


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch):
    answered = threading.Event()
    monkeypatch.setattr(circuit, "FIRST_CHECK", 0.0)
    monkeypatch.setattr(upstream, "answers", lambda _: answered.wait(30))
    yield answered
    answered.set()


def fail(source: Upstream, problem: Exception) -> None:
    with pytest.raises(type(problem)), circuit.watched(source, {}):
        raise problem


DOWN = UpstreamTimeout("silent", rule="upstream.timeout")


def test_an_upstream_that_fails_three_times_in_a_row_is_left_alone_until_it_answers_a_check(source, check):
    for _ in range(3):
        fail(source, DOWN)
    with pytest.raises(UpstreamOut) as refused, circuit.watched(source, {}):
        pytest.fail("it was asked")
    assert refused.value.status == 503 and int(refused.value.headers["Retry-After"]) > 0
    check.set()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            with circuit.watched(source, {}):
                return
        except UpstreamOut:
            time.sleep(0.01)
    pytest.fail("it was not asked again")


@pytest.mark.parametrize("between", [None, NotFound("nothing there"), UpstreamFailed("a lie", rule="upstream.digest")])
def test_an_answer_between_failures_even_a_wrong_one_shows_that_it_is_there(source, check, between):
    for _ in range(5):
        fail(source, DOWN)
        if between is not None:
            fail(source, between)
        else:
            with circuit.watched(source, {}):
                pass


def no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_an_upstream_that_no_thread_can_check_on_is_asked_on(source, check, monkeypatch):
    with monkeypatch.context() as without:
        without.setattr(threading.Thread, "start", no_thread)
        for _ in range(5):
            fail(source, DOWN)
    fail(source, DOWN)
    with pytest.raises(UpstreamOut), circuit.watched(source, {}):
        pytest.fail("it was asked")


def test_an_answer_while_it_is_checked_on_leaves_no_failure_behind(source, check):
    for _ in range(3):
        fail(source, DOWN)
    circuit._circuits[source].answered()
    check.set()
    deadline = time.monotonic() + 30
    while circuit._circuits[source]._checking:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for _ in range(2):
        fail(source, DOWN)
    with circuit.watched(source, {}):
        pass


RESTS = {
    "seconds": (lambda: "120", 120),
    "none at all": (lambda: "0", 1),
    "for ever": (lambda: "9" * 20, 3600),
    "a negative number": (lambda: "-5", 10),
    "a word": (lambda: "soon", 10),
    "an empty header": (lambda: "", 10),
    "no header": (lambda: None, 10),
    "other digits": (lambda: "\u0661\u0662", 10),
    "a date": (lambda: http_date(time.time() + 90), 90),
    "a date that has passed": (lambda: http_date(time.time() - 90), 1),
    "a date in years": (lambda: http_date(time.time() + 10**8), 3600),
}


@pytest.mark.django_db
@pytest.mark.parametrize("said", RESTS)
def test_a_rest_lasts_as_long_as_the_upstream_says_within_reason(said):
    header, seconds = RESTS[said]
    before = timezone.now()
    circuit.rest(SOURCE, header())
    lasts = (Rest.objects.get().until - before).total_seconds()
    assert seconds - 2 < lasts < seconds + 30


@pytest.mark.django_db
def test_every_process_and_every_repository_of_an_upstream_knows_of_its_rest(source):
    circuit.rest(source, "60")
    same = replace(source, timeout=5.0)
    resting = circuit.resting([same, replace(source, username="somebody"), Upstream(url="http://another.example")])
    assert len(resting) == 1
    with pytest.raises(UpstreamOut) as refused, circuit.watched(same, resting):
        pytest.fail("it was asked")
    assert 50 < int(refused.value.headers["Retry-After"]) <= 60
    Rest.objects.update(until=timezone.now() - timedelta(seconds=1))
    assert circuit.resting([same]) == {}


@pytest.fixture
def remote(settings, monkeypatch: pytest.MonkeyPatch):
    """A remote in a process of eight threads, of which two may wait for a silent upstream and six for all of them."""
    settings.ENTREPOT = replace(settings.ENTREPOT, threads=8)
    monkeypatch.setattr(waiting, "_waiting", type(waiting._waiting)(int))
    monkeypatch.setattr(waiting, "_heard", {})

    class Remote:
        def __init__(self, name: str):
            self.upstreams = (Upstream(url=f"http://{name}.example"),)

    return Remote


def long_ago() -> float:
    return time.monotonic() - 10 * waiting.PATIENCE


def silent(remote) -> None:
    waiting._heard[waiting.key(remote)] = long_ago()


def test_of_those_who_wait_for_a_silent_upstream_a_quarter_of_the_threads_may_go_on(remote):
    hole = remote("hole")
    places = [waiting.Place(hole).__enter__() for _ in range(5)]
    silent(hole)
    *too_many, first, second = places
    for place in too_many:
        with pytest.raises(Unavailable) as refused:
            place.keep(long_ago())
        assert int(refused.value.headers["Retry-After"]) > 0
        place.__exit__(None, None, None)
    for place in (first, second):
        place.keep(long_ago())
    with pytest.raises(Unavailable):
        waiting.check(hole)
    for place in (first, second):
        place.__exit__(None, None, None)
    waiting.check(hole)


def test_as_many_as_come_may_wait_while_the_upstream_sends_something(remote):
    busy = remote("busy")
    places = [waiting.Place(busy).__enter__() for _ in range(50)]
    silent(busy)
    waiting.heard(busy)
    waiting.check(busy)
    for place in places:
        place.keep(time.monotonic())
        place.__exit__(None, None, None)


def test_several_silent_upstreams_together_leave_a_quarter_of_the_threads_alone(remote):
    holes = [remote(f"hole{n}") for n in range(5)]
    for hole in holes:
        for _ in range(2):
            waiting.Place(hole).__enter__()
    for hole in holes:
        silent(hole)
    with pytest.raises(Unavailable):
        waiting.check(holes[0])
    fresh = remote("fresh")
    with waiting.Place(fresh):
        silent(fresh)
    waiting.check(fresh)  # its silence ended with the last who listened
    with waiting.Place(fresh) as place:
        place.keep(time.monotonic())
