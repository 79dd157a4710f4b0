"""Who guesses passwords waits ever longer, and hurts nobody else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from django.utils import timezone

import problems
from accounts import audit, passwords, throttle, tokens
from accounts.audit import Origin
from accounts.authenticate import authenticate, by_password
from accounts.models import Event, FailedSignIn, User

from .conftest import PASSWORD, basic

pytestmark = pytest.mark.django_db
HERE, THERE = "192.0.2.7", "198.51.100.7"


@pytest.fixture(autouse=True)
def _somewhere() -> Iterator[None]:
    audit.enter(Origin(address=HERE))
    yield
    audit.enter(Origin())


def fail(name: str = "ann", times: int = 1) -> None:
    for n in range(times):
        with pytest.raises(problems.Unauthenticated):
            by_password(name, f"guess {n}")


def lock_out(name: str = "ann") -> None:
    """So that they wait for minutes."""
    fail(name, throttle.PAIR.free)
    FailedSignIn.objects.filter(key=throttle.Attempt.of(name, HERE).keys[0]).update(failures=throttle.PAIR.free + 8)


def locked_out(name: str = "ann", password: str = PASSWORD) -> int:
    """Seconds that they are told to wait."""
    with pytest.raises(problems.TooMany) as caught:
        by_password(name, password)
    assert caught.value.status == 429
    assert caught.value.rule == "sign-in.throttled"
    return int(caught.value.headers["Retry-After"])


def time_passes(**how_long: int) -> None:
    for row in FailedSignIn.objects.all():
        FailedSignIn.objects.filter(pk=row.pk).update(failed_at=row.failed_at - timedelta(**how_long))


def test_after_a_few_failures_even_the_right_password_waits(ann: User) -> None:
    fail(times=throttle.PAIR.free)
    assert locked_out() == 1
    time_passes(seconds=2)
    assert by_password("ann", PASSWORD).actor.name == "ann"


def test_each_further_failure_doubles_the_wait_up_to_the_longest(ann: User) -> None:
    fail(times=throttle.PAIR.free - 1)
    told = []
    for _ in range(12):
        fail()
        told.append(locked_out())
        time_passes(seconds=told[-1])
    assert told == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]


def test_what_is_refused_while_they_wait_is_no_guess_and_makes_nothing_longer(ann: User) -> None:
    lock_out()
    for _ in range(20):
        assert locked_out(password="another guess") <= 256


def test_a_password_that_is_remembered_waits_too(ann: User) -> None:
    """Else who shares the address could go on guessing at what somebody signs in by right now."""
    by_password("ann", PASSWORD)
    fail(times=throttle.PAIR.free)
    assert locked_out() == 1


def test_other_addresses_and_other_names_are_left_alone(ann: User, bob: User) -> None:
    lock_out()
    assert locked_out()
    assert by_password("bob", PASSWORD).actor.name == "bob"
    audit.enter(Origin(address=THERE))
    assert by_password("ann", PASSWORD).actor.name == "ann"
    audit.enter(Origin(address=HERE))
    assert locked_out()


def test_a_token_is_never_throttled(ann: User) -> None:
    _, secret = tokens.create(ann)
    lock_out()
    assert locked_out()
    assert authenticate(basic("ann", secret)).actor.name == "ann"


def test_a_name_that_nobody_has_is_throttled_alike(ann: User) -> None:
    told = []
    for name in ("nobody", "ann"):
        fail(name, throttle.PAIR.free)
        told.append(locked_out(name))
    assert told == [1, 1]


def test_signing_in_ends_the_count_of_a_name_at_an_address(ann: User) -> None:
    fail(times=throttle.PAIR.free - 1)
    by_password("ann", PASSWORD)
    fail(times=throttle.PAIR.free - 1)
    passwords.forget()
    assert by_password("ann", PASSWORD)


def test_failures_are_forgotten_after_an_hour(ann: User) -> None:
    fail(times=throttle.PAIR.free - 1)
    time_passes(hours=2)
    fail(times=throttle.PAIR.free - 1)
    assert by_password("ann", PASSWORD)


def test_one_address_that_tries_many_names_is_slowed_down(ann: User) -> None:
    FailedSignIn.objects.create(key=throttle.Attempt.of("x", HERE).keys[1], failures=199, failed_at=timezone.now())
    fail("one of many")
    assert locked_out("ann") == 1
    audit.enter(Origin(address=THERE))
    assert by_password("ann", PASSWORD)


def test_many_addresses_that_try_one_name_are_slowed_down_and_never_for_long(ann: User) -> None:
    key = throttle.Attempt.of("ann", HERE).keys[2]
    FailedSignIn.objects.create(key=key, failures=99, failed_at=timezone.now())
    audit.enter(Origin(address=THERE))
    fail()
    assert locked_out() == 1
    FailedSignIn.objects.filter(key=key).update(failures=10_000)
    assert locked_out() <= throttle.NAME.longest


def test_all_addresses_of_one_ipv6_network_are_one(ann: User) -> None:
    for n in range(throttle.PAIR.free):
        audit.enter(Origin(address=f"2001:db8:1:1::{n}"))
        fail()
    audit.enter(Origin(address="2001:db8:1:1:ffff::1"))
    assert locked_out()
    audit.enter(Origin(address="2001:db8:1:2::1"))
    assert by_password("ann", PASSWORD)


def test_without_an_address_the_count_is_the_names_alone(ann: User, bob: User) -> None:
    audit.enter(Origin())
    fail("ann", throttle.PAIR.free)
    assert locked_out("ann")
    assert by_password("bob", PASSWORD)
    assert FailedSignIn.objects.count() == 2


def test_a_right_password_among_many_guesses_at_once_is_refused(ann: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """They all began before the first had failed."""

    def meanwhile(given: str, _: str) -> bool:
        for _ in range(throttle.PAIR.free):
            throttle.Attempt.of("ann", HERE).failed()
        return given == PASSWORD

    monkeypatch.setattr(passwords, "check_password", meanwhile)
    assert locked_out()


def test_neither_names_nor_what_was_typed_for_one_is_kept_with_the_counts(ann: User) -> None:
    fail("a password that was typed as a name")
    assert "typed" not in repr(list(FailedSignIn.objects.values()))


def test_what_is_kept_is_bounded(ann: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "MOST", 10)
    for n in range(20):
        fail(f"name {n}")
    throttle.forget()
    assert 0 < FailedSignIn.objects.count() <= 10
    time_passes(hours=2)
    throttle.forget()
    assert not FailedSignIn.objects.exists()


def test_the_audit_tells_of_each_sign_in_that_was_looked_at_and_of_each_refusal(ann: User) -> None:
    by_password("ann", PASSWORD)
    by_password("ann", PASSWORD)  # remembered
    fail(times=throttle.PAIR.free)
    locked_out()
    lines = [
        (event.actor, event.subject, event.refused, event.address)
        for event in Event.objects.filter(action="sign-in").order_by("pk")
        for _ in range(event.count)
    ]
    assert lines == [("ann", "ann", False, HERE), *[("", "ann", True, HERE)] * (throttle.PAIR.free + 1)]
    assert Event.objects.filter(detail__rule="sign-in.throttled").count() == 1
    assert "guess" not in repr(list(Event.objects.values()))


def test_a_refusal_costs_two_queries(ann: User, django_assert_max_num_queries: Callable) -> None:
    lock_out()
    with django_assert_max_num_queries(2):
        locked_out()
