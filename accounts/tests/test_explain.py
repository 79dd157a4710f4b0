"""What is told of a verdict is what decided it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from django.contrib.auth.models import Group
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from accounts import epoch, explain, scopes, uses
from accounts.access import Grant, Rights, authorize, rights_of
from accounts.actors import ANONYMOUS, Actor, actor_of
from accounts.belonging import Through, memberships
from accounts.grants import Entry
from accounts.models import ExternalIdentity, ExternalMembership, ExternalName, RightUse, User
from accounts.permissions import BUILTIN_ROLES, GLOBAL_PERMISSIONS, PERMISSIONS

from .conftest import rights

pytestmark = pytest.mark.django_db

REPOSITORIES = st.sampled_from(["", "*", "go-*", "go-local", "raw"])
PATHS = st.sampled_from(["", "**", "corp.example/**", "*/a"])


@st.composite
def grants_(draw: Callable) -> Grant:
    role = draw(st.sampled_from(sorted(BUILTIN_ROLES)))
    repository = draw(REPOSITORIES)
    path = draw(PATHS) if repository else ""
    return Grant(BUILTIN_ROLES[role], repository, path, Entry(role, "user", "ann", repository, path))


@st.composite
def scopes_(draw: Callable) -> Grant:
    permission = draw(st.sampled_from(sorted(PERMISSIONS)))
    repository = draw(REPOSITORIES)
    return Grant(frozenset({permission}), repository, draw(PATHS) if repository else "")


@given(
    st.lists(grants_(), max_size=5).map(tuple),
    st.none() | st.lists(scopes_(), max_size=4).map(tuple),
    st.sampled_from(sorted(PERMISSIONS)),
    st.sampled_from(["go-local", "raw", ""]),
    st.sampled_from(["corp.example/a", "other/a", "x", None]),
    st.sampled_from([explain.ALL, explain.HERE, explain.NOTHING]),
)
def test_the_verdict_is_that_of_authorize_and_each_grant_that_is_told_would_allow_it_by_itself(
    granted: tuple, narrowed: tuple | None, permission: str, repository: str, package: str | None, told: str
) -> None:
    whole = Rights(granted, narrowed)
    verdict = explain.explain(Actor(1, "ann"), whole, permission, repository, package, told=told)
    assert verdict.allowed is authorize(whole, permission, repository, package)
    assert bool(verdict.missing) is not verdict.allowed
    if told == explain.NOTHING:
        assert not verdict.grants and not verdict.near and verdict.scopes is None
        return
    for reason in verdict.grants:
        alone = Grant(BUILTIN_ROLES[reason.role], reason.repository, reason.path)
        assert authorize(Rights((alone,)), permission, repository, package)
    for reason in verdict.near:
        alone = Grant(BUILTIN_ROLES[reason.role], reason.repository, reason.path)
        assert not authorize(Rights((alone,)), permission, repository, package)
    if told == explain.HERE and repository:
        assert all(Grant(frozenset({permission}), one.repository, one.path).covers(permission, repository, None)
                   for one in verdict.near)  # fmt: skip
    for text in verdict.scopes or ():
        alone = Grant(frozenset({permission}), *scopes.parse(text)[1:])
        assert authorize(Rights((alone,)), permission, repository, package)
    assert (verdict.scopes is None) is (narrowed is None)
    assert verdict.allowed is (bool(verdict.grants) and (verdict.scopes is None or bool(verdict.scopes)))


@pytest.fixture
def outside(eve: User, team: Group) -> Iterator[ExternalIdentity]:
    """Eve is in team-a since a source outside says so."""
    identity = ExternalIdentity.objects.create(
        user=eve, source="corp", issuer="https://sso.example.org", subject="7", seen_at=timezone.now()
    )
    ExternalName.objects.create(group=team, name="sso:a")
    ExternalMembership.objects.create(identity=identity, name="sso:a")
    ExternalMembership.objects.create(identity=identity, name="sso:other")
    return identity


def test_a_membership_is_told_with_the_source_that_says_so(
    ann: User, bob: User, eve: User, outside: ExternalIdentity, grant: Callable
) -> None:
    grant("reader", "group", "team-a", "go-*")
    by = {name: explain.explain(actor_of(user), rights(user), "artifact:read", "go-local").grants
          for name, user in {"ann": ann, "bob": bob, "eve": eve}.items()}  # fmt: skip
    assert by["ann"][0].through == (Through(),) and by["bob"] == ()
    assert by["eve"][0].through == (Through("sso:a", "corp"),)
    assert str(by["eve"][0]) == "reader to group team-a on go-*, through sso:a of corp"
    assert memberships(["team-a"]) == {"team-a": {"ann": [Through()], "eve": [Through("sso:a", "corp")]}}


def test_the_memberships_that_are_told_are_those_that_give_rights(
    ann: User, bob: User, eve: User, outside: ExternalIdentity, grant: Callable
) -> None:
    grant("reader", "group", "team-a", "go-*")
    told = set(memberships(["team-a"])["team-a"])
    assert told == {user.username for user in (ann, bob, eve) if rights(user).allows("artifact:read", "go-local")}


def test_many_grants_are_told_in_as_many_queries_as_one(
    ann: User, grant: Callable, django_assert_max_num_queries: Callable
) -> None:
    for n in range(150):
        grant("reader", "group", "team-a", f"*{n % 10}*{n}")
    grant("reader", "group", "team-a", "*")
    for n in range(120):
        grant("reader", "group", "team-a", "*" * (n + 1))
    now = rights(ann)
    with django_assert_max_num_queries(3):
        verdict = explain.explain(actor_of(ann), now, "artifact:read", "go")
    assert len(verdict.grants) == explain.MOST_TOLD


def test_a_right_that_nobody_holds_is_told_with_the_role_that_has_it() -> None:
    nothing = rights_of(ANONYMOUS, epoch.current())
    for permission in PERMISSIONS:
        where = "" if permission in GLOBAL_PERMISSIONS else "go-local"
        assert "no grant has" in explain.explain(ANONYMOUS, nothing, permission, where).missing


# Uses


@pytest.fixture(autouse=True)
def _nothing_noted() -> Iterator[None]:
    uses.forget()
    yield
    uses.forget()


def test_a_use_is_written_once_an_hour_and_the_latest_stands(ann: User) -> None:
    assert uses.used(ann.pk, "go", "artifact:read")
    assert not uses.used(ann.pk, "go", "artifact:read")
    assert uses.used(None, "go", "artifact:read") and uses.used(ann.pk, "", "user:manage")
    assert uses.flush() == 3
    assert uses.flush() == 0
    stored = set(RightUse.objects.values_list("user__username", "repository", "permission"))
    assert stored == {("ann", "go", "artifact:read"), (None, "go", "artifact:read"), ("ann", "", "user:manage")}
    first = RightUse.objects.get(user=ann, repository="go").last_used_at
    uses.forget()
    uses.used(ann.pk, "go", "artifact:read")
    uses.used(None, "go", "artifact:read")
    uses.flush()
    assert RightUse.objects.count() == 3
    assert RightUse.objects.get(user=ann, repository="go").last_used_at > first


def test_a_use_of_somebody_who_is_gone_hinders_no_other(ann: User) -> None:
    uses.used(10**9, "go", "artifact:read")
    uses.used(ann.pk, "go", "artifact:read")
    uses.flush()
    assert list(RightUse.objects.values_list("user__username", flat=True)) == ["ann"]


def test_what_is_remembered_of_uses_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uses, "MOST", 100)
    for n in range(1000):
        uses.used(None, f"repository-{n}", "artifact:read")
    assert len(uses._noted) <= 100 and len(uses._waiting) <= 100
