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
from accounts.models import Token, User

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
