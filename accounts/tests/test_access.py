"""Who may do what: permission x glob x subject x asker, and what tokens narrow."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts import epoch, grants, tokens
from accounts.access import Grant, Rights, rights_of
from accounts.actors import ANONYMOUS, Actor, actor_of
from accounts.authenticate import authenticate
from accounts.globs import matches
from accounts.models import Role, Target, User
from accounts.permissions import BUILTIN_ROLES, GLOBAL_PERMISSIONS, PERMISSIONS, REPOSITORY_PERMISSIONS

from .conftest import rights

pytestmark = pytest.mark.django_db

HOLDERS = {
    ("user", "ann"): {"ann"},
    ("group", "team-a"): {"ann"},
    ("authenticated", ""): {"ann", "eve"},
    ("anonymous", ""): {"ann", "eve", None},
}

PLACES = [
    # repository glob, path glob, repository, package, covered
    ("go-*", "", "go-local", "corp.example/a", True),
    ("go-*", "", "go-local", None, True),
    ("go-*", "**", "go-local", "corp.example/a/b", True),
    ("go-*", "", "oci-local", "corp.example/a", False),
    ("go-local", "", "go-local-2", None, False),
    ("*", "", "oci-local", "anything", True),
    ("*", "corp.example/a/**", "go-local", "corp.example/a/b", True),
    ("*", "corp.example/a/**", "go-local", "corp.example/b", False),
    ("*", "corp.example/a/**", "go-local", None, True),
    ("*", "corp.example/*", "go-local", "corp.example/a/b", False),
    ("*", "corp.example/*", "go-local", "", False),
    ("go-local", "", "", None, False),
    ("*", "", "", None, False),
    ("**", "", "", None, False),
    ("", "", "go-local", None, False),
    ("", "", "", None, False),
]


@pytest.mark.parametrize("subject", HOLDERS, ids=lambda subject: subject[0])
@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_grant_gives_its_permissions_to_its_subject_in_its_place_and_nothing_else(
    ann: User, eve: User, subject: tuple[str, str], place: tuple
) -> None:
    repositories, paths, repository, package, covered = place
    askers = {"ann": rights(ann), "eve": rights(eve), None: rights(None)}
    for name, before in askers.items():
        assert not any(before.allows(p, repository, package) for p in PERMISSIONS), name

    for permission in sorted(PERMISSIONS):
        role = Role.objects.create(name="only", permissions=[permission])
        grants.add(("only", *subject, repositories, paths))
        for name, who in {"ann": ann, "eve": eve, None: None}.items():
            now = rights(who)
            holds = name in HOLDERS[subject]
            for asked in PERMISSIONS:
                assert now.allows(asked, repository, package) is (holds and covered and asked == permission)
                assert now.allows_globally(asked) is (
                    holds and not repositories and asked == permission and asked in GLOBAL_PERMISSIONS
                )
        role.delete()
    assert not Target.objects.exists()


def test_a_role_carries_all_its_permissions(ann: User, grant: Callable) -> None:
    grant("developer", "user", "ann", "go-*")
    allowed = {p for p in PERMISSIONS if rights(ann).allows(p, "go-local", "x")}
    assert allowed == BUILTIN_ROLES["developer"] == {"artifact:read", "artifact:write", "artifact:overwrite"}


def test_administrator_needs_both_grants_and_no_flag_stands_in_for_them(ann: User, grant: Callable) -> None:
    ann.is_superuser = ann.is_staff = True
    ann.save()
    assert not rights(ann).allows_globally("system:manage")
    assert not rights(ann).allows("artifact:read", "go-local", "x")
    grant("administrator", "user", "ann")
    assert all(rights(ann).allows_globally(p) for p in GLOBAL_PERMISSIONS)
    assert not rights(ann).allows("artifact:read", "go-local", "x")
    grant("administrator", "user", "ann", "*")
    assert all(rights(ann).allows(p, "go-local", "x") for p in REPOSITORY_PERMISSIONS)


def test_a_disabled_user_has_what_anonymous_has(ann: User, grant: Callable) -> None:
    grant("owner", "user", "ann", "*")
    grant("owner", "group", "team-a", "*")
    grant("owner", "authenticated", "", "*")
    grant("reader", "anonymous", "", "go-*")
    actor = actor_of(ann)
    ann.is_active = False
    ann.save()
    now = rights_of(actor, epoch.current())
    assert now == rights(None)
    assert now.allows("artifact:read", "go-local")
    assert not now.allows("artifact:write", "go-local")
    assert actor_of(ann) == ANONYMOUS


def test_membership_of_the_anonymous_user_means_nothing(ann: User, team: object, grant: Callable) -> None:
    User.objects.get(username="anonymous").groups.add(team)
    grant("owner", "group", "team-a", "*")
    assert not rights(None).allows("artifact:read", "go-local")


def test_a_token_may_no_more_than_its_scopes(ann: User, grant: Callable) -> None:
    grant("developer", "user", "ann", "go-*")
    grant("reader", "anonymous", "", "raw")
    _, secret = tokens.create(ann, scopes=["artifact:write@*:corp.example/a/**", "artifact:delete@*", "system:manage"])
    found = authenticate(f"Bearer {secret}")
    narrowed = rights_of(found.actor, found.epoch)
    assert narrowed.allows("artifact:write", "go-local", "corp.example/a/b")
    assert not narrowed.allows("artifact:write", "go-local", "corp.example/b")
    assert not narrowed.allows("artifact:write", "oci-local", "corp.example/a/b")
    assert not narrowed.allows("artifact:delete", "go-local", "corp.example/a/b")
    assert not narrowed.allows("artifact:read", "go-local", "corp.example/a/b")
    assert not narrowed.allows("artifact:read", "raw")
    assert not narrowed.allows_globally("system:manage")


NAMES = st.sampled_from(["go-local", "go-proxy", "raw", ""])
PACKAGES = st.sampled_from(["corp.example/a", "corp.example/a/b", "other.example/x", "", None])
ANY_GRANT = st.builds(
    Grant,
    st.frozensets(st.sampled_from(sorted(PERMISSIONS)), min_size=1, max_size=3),
    st.sampled_from(["", "*", "go-*", "go-local", "raw"]),
    st.sampled_from(["", "**", "corp.example/**", "*/a", "other.example/?"]),
)
SOME_GRANTS = st.lists(ANY_GRANT, max_size=4).map(tuple)


@given(SOME_GRANTS, SOME_GRANTS, SOME_GRANTS, st.sampled_from(sorted(PERMISSIONS)), NAMES, PACKAGES)
def test_what_a_token_may_is_what_its_user_may_and_what_its_scopes_say(
    granted: tuple, implied: tuple, scopes: tuple, permission: str, repository: str, package: str | None
) -> None:
    extra = [(grant.permissions, grant.repository, grant.path) for grant in implied]
    effective = Rights(granted, scopes).plus(extra)
    of_user, of_scopes = Rights(granted).plus(extra), Rights(scopes)
    assert effective.allows(permission, repository, package) is (
        of_user.allows(permission, repository, package) and of_scopes.allows(permission, repository, package)
    )
    assert effective.allows_globally(permission) is (
        of_user.allows_globally(permission) and of_scopes.allows_globally(permission)
    )


@given(
    SOME_GRANTS,
    st.none() | SOME_GRANTS,
    st.sampled_from(sorted(PERMISSIONS)),
    NAMES,
    PACKAGES.filter(lambda name: name is not None),
)
def test_the_globs_of_a_repository_say_of_each_package_what_the_rights_do(
    granted: tuple, scopes: tuple | None, permission: str, repository: str, package: str
) -> None:
    rights = Rights(granted, scopes)
    by_globs = all(any(matches(glob, package) for glob in globs) for globs in rights.paths(permission, repository))
    assert by_globs is rights.allows(permission, repository, package)


def test_implied_grants_add_and_leave_the_kept_rights_alone(ann: User) -> None:
    more = rights(ann).plus([(["artifact:read"], "go", "corp.example/**")])
    assert more.allows("artifact:read", "go", "corp.example/a")
    assert not more.allows("artifact:read", "go", "other.example/a")
    assert not rights(ann).allows("artifact:read", "go", "corp.example/a")


def test_rights_are_one_query_once_an_epoch(ann: User, grant: Callable, django_assert_num_queries: Callable) -> None:
    for n in range(20):
        grant("reader", "group", "team-a", f"go-{n}")
    for actor in (actor_of(ann), ANONYMOUS, Actor(10**6, "gone")):
        number = epoch.current()
        with django_assert_num_queries(1):
            rights_of(actor, number)
        with django_assert_num_queries(0):
            rights_of(actor, number)
    grant("reader", "group", "team-a", "raw")
    number = epoch.current()
    with django_assert_num_queries(1):
        assert rights_of(actor_of(ann), number).allows("artifact:read", "raw")


@pytest.mark.parametrize("many", [2, 100])
def test_a_client_with_ever_new_scopes_takes_little_memory(ann: User, many: int) -> None:
    """As every client may have them, that asks for a pass for other images each time."""
    number, image = epoch.current(), "a" * 200
    rights_of(actor_of(ann), number)
    tracemalloc.start()
    try:
        for n in range(300 * 100 // many):
            scopes = tuple(f"artifact:read@oci:{image}{n}/{m}" for m in range(many))
            assert rights_of(Actor(ann.pk, "ann", scopes=scopes, until=1.0), number).scopes
        assert tracemalloc.get_traced_memory()[0] < 8_000_000
    finally:
        tracemalloc.stop()
