from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection
from django.utils import timezone

import problems
from accounts import scopes, tokens
from accounts.authenticate import authenticate
from accounts.models import Event, Token, User
from accounts.tests.conftest import basic

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> list[str]:
    out = io.StringIO()
    call_command("token", *arguments, stdout=out)
    return out.getvalue().splitlines()


def test_a_secret_is_random_and_known_by_its_digest_alone(ci: User) -> None:
    made = [tokens.create(ci, "build") for _ in range(5)]
    assert len({secret for _, secret in made}) == 5
    for token, secret in made:
        assert tokens.is_secret(secret)
        assert len(secret) == 47
        assert (token.digest, token.prefix) == (tokens.digest(secret), secret[:10])


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("artifact:read@*", ("artifact:read", "*", "")),
        ("artifact:write@go-*:corp.example/a/**", ("artifact:write", "go-*", "corp.example/a/**")),
        ("artifact:read@raw:a:b@c", ("artifact:read", "raw", "a:b@c")),
        ("repository:manage@go-*", ("repository:manage", "go-*", "")),
        ("repository:manage", ("repository:manage", "", "")),
        ("system:manage", ("system:manage", "", "")),
    ],
)
def test_scopes_are_read(text: str, parsed: tuple) -> None:
    assert scopes.parse(text) == parsed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "read@*",
        "artifact:read",
        "artifact:read@",
        "artifact:read@:a",
        "artifact:read@go:",
        "artifact:*@*",
        "*",
        "Artifact:read@*",
        " artifact:read@*",
        "system:manage@*",
        "artifact:read@a\0",
        "artifact:read@a:b\n",
        "artifact:read@" + "a" * 1025,
    ],
)
def test_malformed_scopes_are_refused_and_nothing_is_made(ci: User, text: str) -> None:
    with pytest.raises(problems.Malformed):
        tokens.create(ci, scopes=["artifact:read@*", text])
    assert not Token.objects.exists()


def test_what_makes_no_sense_is_refused(ci: User) -> None:
    off = User.objects.create_user("off", is_active=False)
    for user, options in [
        (off, {}),
        (User.objects.get(username="anonymous"), {}),
        (ci, {"expires_at": timezone.now()}),
        (ci, {"scopes": []}),
        (ci, {"scopes": [f"artifact:read@r{n}" for n in range(101)]}),
        (ci, {"name": "x" * 101}),
        (ci, {"name": "x\0"}),
    ]:
        with pytest.raises(problems.Malformed):
            tokens.create(user, **options)
    assert not Token.objects.exists()


def test_nobody_has_more_tokens_than_anybody_needs(ci: User, ann: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MOST", 3)
    soon = timezone.now() + timedelta(hours=1)
    kept = [tokens.create(ci, "build", expires)[0] for expires in (None, soon, soon)]
    with pytest.raises(problems.TooMany, match="ci has 3 tokens that have not ended"):
        tokens.create(ci, "build")
    assert Token.objects.count() == 3
    tokens.create(ann, "build")
    tokens.revoke(kept[0])
    Token.objects.filter(pk=kept[1].pk).update(expires_at=timezone.now())
    for _ in range(2):
        tokens.create(ci, "build")
    with pytest.raises(problems.TooMany):
        tokens.create(ci, "build")


def test_of_one_job_neither_and_it_stands_in_the_way_of_no_other(ci: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MOST", 2)
    soon = timezone.now() + timedelta(hours=1)

    def given(job: str, trust: str = "t") -> None:
        tokens.give(ci, job, soon, None, trust, {})

    given("repo:a 1")
    given("repo:a 1")
    with pytest.raises(problems.TooMany, match="the job repo:a 1 has 2 tokens"):
        given("repo:a 1")
    given("repo:a 2")
    given("repo:a 1", "another")
    tokens.create(ci, "repo:a 1")


def test_a_scope_twice_is_one(ci: User) -> None:
    token, _ = tokens.create(ci, scopes=["artifact:read@b", "artifact:read@a", "artifact:read@b"])
    assert token.scopes == ["artifact:read@b", "artifact:read@a"]


def test_use_costs_no_write_and_is_written_in_one_batch(ci: User, django_assert_num_queries: Callable) -> None:
    made = [tokens.create(ci) for _ in range(4)]
    for _, secret in made[:3]:
        authenticate(f"Bearer {secret}")
        with django_assert_num_queries(1) as queries:
            authenticate(f"Bearer {secret}")
        assert queries[0]["sql"].lstrip().startswith("SELECT")
    assert tokens.flush() == 3
    assert Token.objects.exclude(last_used_at=None).count() == 3
    assert timezone.now() - Token.objects.get(pk=made[0][0].pk).last_used_at < timedelta(minutes=1)
    with django_assert_num_queries(0):
        assert tokens.flush() == 0


def test_last_use_never_goes_back(ci: User, monkeypatch: pytest.MonkeyPatch) -> None:
    token, _ = tokens.create(ci)
    later = datetime(2100, 1, 1, tzinfo=UTC)
    Token.objects.filter(pk=token.pk).update(last_used_at=later)
    tokens.used(token.pk)
    tokens.flush()
    token.refresh_from_db()
    assert token.last_used_at == later


def test_uses_wait_when_they_cannot_be_written(ci: User, monkeypatch: pytest.MonkeyPatch) -> None:
    token, _ = tokens.create(ci)
    tokens.used(token.pk)

    def fail(*_: object) -> None:
        raise DatabaseError("gone")

    with monkeypatch.context() as broken:
        broken.setattr(tokens.transaction, "atomic", fail)
        with pytest.raises(DatabaseError):
            tokens.flush()
    assert tokens.flush() == 1
    token.refresh_from_db()
    assert token.last_used_at is not None


def test_uses_of_a_deleted_token_are_nothing(ci: User) -> None:
    token, _ = tokens.create(ci)
    tokens.used(token.pk)
    token.delete()
    tokens.flush()
    assert not Token.objects.exists()


def test_revoking_twice_keeps_the_first_time(ci: User) -> None:
    token, _ = tokens.create(ci)
    tokens.revoke(token)
    first = token.revoked_at
    assert first is not None
    tokens.revoke(token)
    assert token.revoked_at == first


def test_a_token_is_found_by_id_prefix_or_secret(ci: User) -> None:
    token, secret = tokens.create(ci)
    for text in (str(token.pk), token.prefix, secret):
        assert tokens.find(text) == token
    for text in ("0", "99999999999999999999", "ent_", secret[:9], secret[:-1], "", "x", "\u0663"):
        with pytest.raises(problems.NotFound):
            tokens.find(text)
    Token.objects.create(digest="0" * 64, prefix=token.prefix, user=ci, created_at=timezone.now())
    with pytest.raises(problems.Malformed, match="Several"):
        tokens.find(token.prefix)


@pytest.mark.parametrize(("text", "expected"), [("90d", 90 * 24), ("12h", 12), ("2w", 14 * 24), ("60m", 1)])
def test_lifetimes_are_read(text: str, expected: int) -> None:
    assert tokens.lifetime(text) == timedelta(hours=expected)


@pytest.mark.parametrize("text", ["", "0d", "d", "90", "-1d", "1.5d", "90 d", "1y", "999999d", "\u0663d"])
def test_other_lifetimes_are_refused(text: str) -> None:
    with pytest.raises(problems.Malformed):
        tokens.lifetime(text)


def test_the_command_prints_the_token_alone_on_the_last_line(ci: User) -> None:
    lines = run("create", "ci", "--name", "build", "--expires", "90d", "--scope", "artifact:read@*", "--scope", "audit:read")
    assert len(lines) > 1
    actor = authenticate(f"Bearer {lines[-1]}").actor
    assert (actor.name, actor.scopes) == ("ci", ("artifact:read@*", "audit:read"))
    token = Token.objects.get()
    assert token.name == "build"
    assert timedelta(days=89) < token.expires_at - timezone.now() <= timedelta(days=90)
    assert authenticate(f"Bearer {run('create', 'ci')[-1]}").actor.scopes is None


def test_the_command_lists_and_revokes(ann: User, ci: User) -> None:
    first, secret = tokens.create(ci, "build")
    second, _other = tokens.create(ann)
    listed = "\n".join(run("list"))
    assert first.prefix in listed
    assert second.prefix in listed
    assert secret not in listed
    assert second.prefix not in "\n".join(run("list", "ci"))
    run("revoke", str(first.pk))
    run("revoke", second.prefix)
    assert not Token.objects.filter(revoked_at=None).exists()
    assert "revoked" in "\n".join(run("list"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "nobody"),
        ("create", "ci", "--expires", "soon"),
        ("create", "ci", "--scope", "artifact:read"),
        ("list", "nobody"),
        ("revoke", "7"),
        ("revoke", "ent_nothin"),
        ("create",),
        ("destroy",),
        (),
    ],
)
def test_the_command_says_what_is_wrong(ci: User, arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        run(*arguments)
    assert not Token.objects.exists()


def test_the_digest_is_found_through_an_index() -> None:
    with connection.cursor() as cursor:
        constraints = connection.introspection.get_constraints(cursor, Token._meta.db_table)
    assert any(c["unique"] and c["columns"] == ["digest"] for c in constraints.values())


# the end


@pytest.mark.parametrize(
    ("life", "before"),
    [(timedelta(days=365), timedelta(days=14)), (timedelta(days=70), timedelta(days=14)), (timedelta(days=5), timedelta(days=1))],
)
def test_a_token_is_said_to_expire_soon_in_its_last_fortnight_or_fifth(ci: User, life: timedelta, before: timedelta) -> None:
    token, _ = tokens.create(ci, expires_at=timezone.now() + life)
    assert abs(token.expires_at - before - token.warn_at) < timedelta(seconds=1)
    assert not tokens.expires_soon(token)
    _age(token, life - before + timedelta(minutes=1))
    assert tokens.expires_soon(token)
    assert list(tokens.expiring(Token.objects.all())) == [token]
    _age(token, before)
    assert not tokens.expires_soon(token)
    assert not tokens.expiring(Token.objects.all()).exists()


def _age(token: Token, by: timedelta) -> None:
    """Let time pass for a token."""
    for name in ("created_at", "expires_at", "warn_at", "revoked_at"):
        if getattr(token, name) is not None:
            setattr(token, name, getattr(token, name) - by)
    token.save()


def test_of_what_never_ends_was_revoked_or_is_of_a_trust_nobody_is_warned(ci: User) -> None:
    tokens.create(ci)
    revoked, _ = tokens.create(ci, expires_at=timezone.now() + timedelta(days=20))
    tokens.revoke(revoked)
    given, _ = tokens.give(ci, "job", timezone.now() + timedelta(minutes=15), None, "trust", {})
    _age(revoked, timedelta(days=18))
    _age(given, timedelta(minutes=14))
    assert not tokens.expiring(Token.objects.all()).exists()
    assert tokens.warn() == 0


def test_who_comes_with_a_token_that_expires_soon_is_known_to(ci: User, django_assert_num_queries: Callable) -> None:
    token, secret = tokens.create(ci, expires_at=timezone.now() + timedelta(days=100))
    assert authenticate(f"Bearer {secret}").actor.ends is None
    _age(token, timedelta(days=90))
    with django_assert_num_queries(1):
        ends = authenticate(f"Bearer {secret}").actor.ends
    assert ends is not None and abs(ends - token.expires_at) < timedelta(seconds=1)


def events() -> list[tuple[str, str, object]]:
    return [(event.action, event.subject, event.detail.get("token")) for event in Event.objects.order_by("pk")]


def test_the_audit_tells_once_of_each_token_that_it_expires_soon(ci: User, ann: User) -> None:
    token, _ = tokens.create(ci, "build", timezone.now() + timedelta(days=100), ["artifact:read@*"])
    tokens.create(ann)
    _age(token, timedelta(days=90))
    Event.objects.all().delete()
    assert [tokens.warn(), tokens.warn()] == [1, 0]
    assert events() == [("token.expiring", "ci", token.pk)]


def test_the_audit_tells_what_becomes_of_a_token_and_never_its_secret(ci: User) -> None:
    token, secret = tokens.create(ci, "build", scopes=["artifact:read@*"])
    tokens.revoke(token)
    tokens.revoke(token)
    assert events() == [("token.create", "ci", token.pk), ("token.revoke", "ci", token.pk)]
    said = str([event.detail for event in Event.objects.all()])
    assert "artifact:read@*" in said and secret not in said and token.digest not in said


def test_a_token_that_cannot_be_told_of_is_not_made(ci: User, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise DatabaseError("full")

    monkeypatch.setattr(tokens.audit, "record", fail)
    with pytest.raises(DatabaseError):
        tokens.create(ci)
    assert not Token.objects.exists()


def test_what_ended_long_ago_is_forgotten_and_the_audit_tells_of_it(ci: User) -> None:
    lives = [timedelta(minutes=15)] * 3
    standing, expired, just_expired = (tokens.create(ci, expires_at=timezone.now() + life)[0] for life in lives)
    revoked, spared = tokens.create(ci)[0], tokens.create(ci)[0]
    given, just_given = (tokens.give(ci, "job", timezone.now() + lives[0], None, "trust", {})[0] for _ in range(2))
    for token in (revoked, spared):
        tokens.revoke(token)
    for token, days in ((expired, 91), (just_expired, 89), (revoked, 91), (spared, 91), (given, 8), (just_given, 6)):
        _age(token, timedelta(days=days))
    Event.objects.all().delete()
    assert tokens.forget([spared.pk]) == 3
    assert tokens.forget([spared.pk]) == 0
    left = set(Token.objects.values_list("pk", flat=True))
    assert left == {token.pk for token in (standing, just_expired, spared, just_given)}
    told = [("token.forget", "ci", expired.pk), ("token.forget", "ci", revoked.pk), ("token.forget", "given by trusts", None)]
    assert events() == told


def test_tokens_of_a_user_end_with_the_user(ci: User, ann: User) -> None:
    _, secret = tokens.create(ci)
    _, of_ann = tokens.create(ann)
    ci.is_active = False
    ci.save()
    ann.delete()
    for text in (secret, of_ann):
        with pytest.raises(problems.Unauthenticated):
            authenticate(f"Bearer {text}")
    assert [token.user for token in Token.objects.all()] == [ci]


def test_the_command_lists_those_that_expire_soon(ci: User) -> None:
    soon, _ = tokens.create(ci, expires_at=timezone.now() + timedelta(days=100))
    later, _ = tokens.create(ci, expires_at=timezone.now() + timedelta(days=100))
    _age(soon, timedelta(days=90))
    lines = run("list")
    assert [line for line in lines if soon.prefix in line and "UTC, soon" in line]
    assert not [line for line in lines if later.prefix in line and "soon" in line]
    listed = "\n".join(run("list", "--expiring"))
    assert soon.prefix in listed and later.prefix not in listed


def test_a_robot_signs_in_by_tokens_alone(ci: User) -> None:
    assert not ci.has_usable_password()
    for password in ("", "!", ci.password):
        with pytest.raises(problems.Unauthenticated):
            authenticate(basic("ci", password))
    assert authenticate(basic("ci", tokens.create(ci)[1])).actor.name == "ci"
