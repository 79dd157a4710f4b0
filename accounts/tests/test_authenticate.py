from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth import hashers
from django.db import connection
from django.utils import timezone

import problems
from accounts import epoch, passwords, tokens
from accounts.actors import ANONYMOUS, Actor
from accounts.authenticate import authenticate, by_password
from accounts.models import Epoch, Token, User

from .conftest import PASSWORD, basic

pytestmark = pytest.mark.django_db


def refusal(authorization: str) -> problems.Unauthenticated:
    with pytest.raises(problems.Unauthenticated) as caught:
        authenticate(authorization)
    return caught.value


def test_no_header_is_anonymous() -> None:
    found = authenticate(None)
    assert found.actor == ANONYMOUS
    assert found.actor.anonymous
    assert found.epoch == epoch.current()


def test_a_password_signs_in(ann: User) -> None:
    found = authenticate(basic("ann", PASSWORD))
    assert found.actor == Actor(ann.pk, "ann")
    assert not found.actor.anonymous
    assert authenticate(basic("ann", PASSWORD).replace("Basic ", "bAsIc  ")) == found


@pytest.mark.parametrize("form", ["Bearer {0}", "bearer {0}", "any-name", "", "as-name"])
def test_a_token_signs_in(ci: User, form: str) -> None:
    token, secret = tokens.create(ci, scopes=["artifact:read@go*"])
    if form.lower().startswith("bearer"):
        header = form.format(secret)
    else:
        header = basic(secret, "") if form == "as-name" else basic(form, secret)
    assert authenticate(header).actor == Actor(ci.pk, "ci", token.pk, ("artifact:read@go*",))


def test_a_user_name_is_found_however_its_accents_are_written(db: None) -> None:
    User.objects.create_user("zo\u00eb", password=PASSWORD)
    assert authenticate(basic("zoe\u0308", PASSWORD)).actor.name == "zo\u00eb"


def test_everything_wrong_is_refused_with_one_and_the_same_sentence(ann: User, ci: User) -> None:
    expired, expired_secret = tokens.create(ci, expires_at=timezone.now() + timedelta(hours=1))
    Token.objects.filter(pk=expired.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    revoked, revoked_secret = tokens.create(ci)
    tokens.revoke(revoked)
    unknown = "ent_" + "A" * 43
    robot = User.objects.create_user("off", password=PASSWORD, is_active=False)
    off_secret = "ent_" + "B" * 43
    Token.objects.create(digest=tokens.digest(off_secret), user=robot, created_at=timezone.now())
    User.objects.filter(username="anonymous").update(password=hashers.make_password(PASSWORD))
    headers = [
        basic("ann", "wrong"),
        basic("ann", ""),
        basic("nobody", PASSWORD),
        basic("nobody", ""),
        basic("", ""),
        basic("ANN", PASSWORD),
        basic("ann", PASSWORD + " "),
        basic("ci", ""),
        basic("ci", "!"),
        basic("off", PASSWORD),
        basic("anonymous", PASSWORD),
        basic("anonymous", ""),
        basic("ann\0", PASSWORD),
        basic("ann", PASSWORD + "\0"),
        basic("*", PASSWORD),
        basic("ann' OR ''='", PASSWORD),
        basic("x" * 200, PASSWORD),
        *(f"Bearer {s}" for s in (expired_secret, revoked_secret, unknown, off_secret)),
        *(basic("x", s) for s in (expired_secret, revoked_secret, unknown, off_secret)),
        basic(unknown, ""),
        f"Bearer {PASSWORD}",
        "Bearer",
        "Bearer ",
        "Bearer eyJhbGciOiJub25lIn0.e30.",
        "Bearer \0",
        f"Bearer {unknown} {unknown}",
        f"Token {revoked_secret}",
        "",
        " ",
        "Basic",
        "Basic ",
        "Basic !!!",
        "Basic YW5u",
        "Basic " + base64.b64encode(b"ann:\xff\xfe").decode(),
        "Basic " + base64.b64encode(b"ann\xff:x").decode(),
        "Basic é",
        "Basic \ud800",
        "Digest username=ann",
        "Negotiate abc",
        "Basic " + "A" * 8192,
        "Bearer " + "A" * 10**6,
        basic("ann", "x" * 9000),
        basic("ann", PASSWORD) + "\0",
    ]
    answers = {(p.status, p.detail, p.rule, str(p.headers)) for p in map(refusal, headers)}
    assert answers == {(401, "The user name, password or token is not valid.", "credentials", "{}")}


def test_a_password_costs_the_same_work_whoever_is_named(
    ann: User, ci: User, monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: Callable
) -> None:
    User.objects.create_user("off", password=PASSWORD, is_active=False)
    hashed: list[str] = []
    hasher = type(hashers.get_hasher())
    encode = hasher.encode
    verify = hasher.verify
    monkeypatch.setattr(hasher, "encode", lambda *a: hashed.append("work") or encode(*a))
    monkeypatch.setattr(hasher, "verify", lambda *a: hashed.append("work") or verify(*a))
    refusal(basic("somebody", "wrong"))  # after which it is known that there are no directories
    for name in ("ann", "nobody", "ci", "off", "anonymous"):
        hashed.clear()
        with django_assert_num_queries(2):  # what is known, and one more failure
            refusal(basic(name, "wrong"))
        # A hasher whose verify calls its own encode counts twice; none may do nothing.
        assert hashed, name


def test_a_password_that_is_not_remembered_costs_one_query_more(ann: User, django_assert_num_queries: Callable) -> None:
    """Whether others failed meanwhile."""
    with django_assert_num_queries(2):
        authenticate(basic("ann", PASSWORD))


@pytest.mark.parametrize("who", ["anonymous", "token", "recent password", "wrong token"])
def test_signing_in_is_exactly_one_query(
    ann: User, who: str, django_assert_num_queries: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, secret = tokens.create(ann)
    if who == "recent password":
        authenticate(basic("ann", PASSWORD))
        monkeypatch.setattr(passwords, "check_password", None)
    header = {"anonymous": None, "token": f"Bearer {secret}", "wrong token": f"Bearer {secret[:-1]}-"}
    with django_assert_num_queries(1):
        if who == "wrong token":
            refusal(header[who])
        else:
            authenticate(header.get(who, basic("ann", PASSWORD)))


def test_a_checked_password_is_forgotten_after_a_minute_and_wrong_ones_are_never_kept(
    ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks: list[str] = []
    monkeypatch.setattr(passwords, "check_password", lambda given, _: checks.append(given) or given == PASSWORD)
    now = [1000.0]
    monkeypatch.setattr(passwords.time, "monotonic", lambda: now[0])
    for _ in range(3):
        refusal(basic("ann", "wrong"))
    assert checks == ["wrong"] * 3
    checks.clear()
    authenticate(basic("ann", PASSWORD))
    now[0] += passwords.REMEMBERED - 1
    authenticate(basic("ann", PASSWORD))
    assert checks == [PASSWORD]
    now[0] += 2
    authenticate(basic("ann", PASSWORD))
    assert checks == [PASSWORD] * 2


def test_what_has_the_form_of_a_token_is_never_tried_as_a_password(ann: User) -> None:
    """Whoever types a token into the form for passwords must not tell a directory what it is."""
    _, secret = tokens.create(ann)
    ann.set_password(secret)
    ann.save()
    with pytest.raises(problems.Unauthenticated):
        by_password("ann", secret)


def test_a_checked_password_is_of_its_user_alone(ann: User, bob: User) -> None:
    ann.set_password("of ann")
    ann.save()
    authenticate(basic("ann", "of ann"))
    refusal(basic("bob", "of ann"))


def test_what_is_remembered_is_bounded_and_names_nothing(ann: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "AT_MOST", 10)
    monkeypatch.setattr(passwords, "check_password", lambda *_: True)
    for n in range(30):
        assert passwords.matches("ann", f"password {n}", "stored")
    assert len(passwords._right) == 10
    assert "ann" not in str(passwords._right)


def test_too_many_sign_ins_at_once_are_told_to_come_back(ann: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "WAIT", 0.01)
    turns = passwords.threading.BoundedSemaphore(1)
    monkeypatch.setattr(passwords, "_TURNS", turns)
    turns.acquire()
    with pytest.raises(problems.Unavailable):
        authenticate(basic("ann", PASSWORD))


def test_a_new_password_counts_at_once(ann: User) -> None:
    authenticate(basic("ann", PASSWORD))
    before = epoch.current()
    ann.set_password("another")
    ann.save()
    assert epoch.current() != before
    refusal(basic("ann", PASSWORD))
    assert authenticate(basic("ann", "another")).actor.name == "ann"


def test_a_disabled_or_deleted_user_is_out_at_once(ann: User, ci: User) -> None:
    _, secret = tokens.create(ann)
    _, other = tokens.create(ci)
    for header in (basic("ann", PASSWORD), f"Bearer {secret}", f"Bearer {other}"):
        authenticate(header)
    before = epoch.current()
    ann.is_active = False
    ann.save()
    ci.delete()
    assert epoch.current() != before
    for header in (basic("ann", PASSWORD), f"Bearer {secret}", f"Bearer {other}"):
        refusal(header)


def test_a_revoked_token_is_out_at_once_and_an_expiring_one_in_time(ci: User, monkeypatch: pytest.MonkeyPatch) -> None:
    token, secret = tokens.create(ci)
    _, short = tokens.create(ci, expires_at=timezone.now() + timedelta(hours=1))
    authenticate(f"Bearer {secret}")
    authenticate(f"Bearer {short}")
    tokens.revoke(token)
    refusal(f"Bearer {secret}")
    later = timezone.now() + timedelta(hours=1, seconds=1)
    monkeypatch.setattr(timezone, "now", lambda: later)
    refusal(f"Bearer {short}")


def test_a_database_that_was_not_set_up_is_no_wrong_password() -> None:
    Epoch.objects.all().delete()
    for header in (None, basic("ann", PASSWORD), "Bearer ent_" + "A" * 43):
        with pytest.raises(problems.Unavailable):
            authenticate(header)


def test_no_secret_is_stored_nor_shown(ann: User) -> None:
    token, secret = tokens.create(ann, "build", scopes=["artifact:read@*"])
    shown = [
        repr(token),
        str(token),
        repr(authenticate(f"Bearer {secret}")),
        repr(authenticate(basic("ann", PASSWORD))),
    ]
    shown += [repr(refusal(basic("ann", "wrong " + secret))), repr(refusal(f"Bearer {secret[:-2]}")), repr(vars(token))]
    tokens.flush()
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
            shown.append(repr(cursor.fetchall()))
    everything = "\n".join(shown)
    assert secret[: tokens.SHOWN] in everything
    assert secret[: tokens.SHOWN + 1] not in everything
    assert secret[tokens.SHOWN :] not in everything
    assert PASSWORD not in everything


def test_a_refusal_carries_no_cause_that_holds_the_secret() -> None:
    problem = refusal("Basic " + base64.b64encode(b"ann:sesame\xff").decode())
    assert problem.__cause__ is None
    assert problem.__context__ is None


def test_the_header_is_told_apart_before_any_query(django_assert_num_queries: Callable) -> None:
    with django_assert_num_queries(0):
        for header in ("Basic ???", "Bearer x", "Digest x", "Bearer " + "x" * 10_000):
            refusal(header)
