from __future__ import annotations

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, Permission
from django.core.management import call_command
from django.db import transaction

import problems
from accounts import builtin, epoch, grants
from accounts.grants import Entry
from accounts.models import Role, Target, TargetUserObjectPermission, User
from accounts.permissions import BUILTIN_ROLES

from .conftest import rights

pytestmark = pytest.mark.django_db

ALL = [
    Entry("administrator", "user", "ann", "", ""),
    Entry("administrator", "user", "ann", "*", ""),
    Entry("developer", "group", "team-a", "go-*", "corp.example/a/**"),
    Entry("reader", "anonymous", "", "raw", ""),
    Entry("reader", "authenticated", "", "*", ""),
]


def test_what_is_granted_is_listed_and_twice_changes_nothing(ann: User) -> None:
    assert [grants.add(entry) for entry in reversed(ALL)] == [True] * 5
    assert grants.entries() == ALL
    before = epoch.current()
    assert [grants.add(entry) for entry in ALL] == [False] * 5
    assert epoch.current() == before
    assert grants.entries() == ALL


def test_what_is_taken_back_takes_its_unused_target_along(ann: User) -> None:
    for entry in ALL:
        grants.add(entry)
    grants.add(("reader", "user", "ann", "raw", ""))
    assert grants.remove(("reader", "anonymous", "", "raw", ""))
    assert Target.objects.filter(repository="raw").exists()
    assert grants.remove(("reader", "user", "ann", "raw", ""))
    assert not Target.objects.filter(repository="raw").exists()
    assert not grants.remove(("reader", "user", "ann", "raw", ""))
    assert grants.entries() == [entry for entry in ALL if entry.repository != "raw"]


def test_every_path_is_written_one_way(ann: User) -> None:
    assert grants.add(("reader", "user", "ann", "go", "**"))
    assert not grants.add(("reader", "user", "ann", "go", ""))
    assert grants.entries() == [Entry("reader", "user", "ann", "go", "")]


@pytest.mark.parametrize(("kind", "name"), [("user", "anonymous"), ("group", "authenticated")])
def test_a_reserved_name_is_the_same_as_its_kind(kind: str, name: str) -> None:
    grants.add(("reader", kind, name, "go", ""))
    assert grants.entries() == [Entry("reader", name, "", "go", "")]


@pytest.mark.parametrize(
    "entry",
    [
        ("nobody", "user", "ann", "go", ""),
        ("reader", "user", "nobody", "go", ""),
        ("reader", "group", "nobody", "go", ""),
        ("reader", "robot", "ann", "go", ""),
        ("reader", "user", "", "go", ""),
        ("reader", "anonymous", "ann", "go", ""),
        ("reader", "authenticated", "ann", "go", ""),
        ("reader", "user", "ann", "", "corp.example/**"),
        ("reader", "user", "ann", "go\0", ""),
        ("reader", "user", "ann", "go", "a\nb"),
        ("reader", "user", "ann", "g" * 1025, ""),
    ],
)
def test_a_grant_that_makes_no_sense_is_refused_and_leaves_nothing(ann: User, entry: tuple) -> None:
    with pytest.raises(problems.Malformed):
        grants.add(entry)
    assert grants.entries() == []
    assert not Target.objects.exists()


@pytest.mark.parametrize("gone", ["user", "group", "role"])
def test_targets_go_with_the_last_who_had_a_grant_on_them(ann: User, gone: str) -> None:
    Role.objects.create(name="tester", permissions=["artifact:read"])
    grants.add(("tester", "user" if gone != "group" else "group", "team-a" if gone == "group" else "ann", "go", "a/**"))
    {"user": ann, "group": Group.objects.get(name="team-a"), "role": Role.objects.get(name="tester")}[gone].delete()
    assert grants.entries() == []
    assert not Target.objects.exists()
    assert gone != "role" or not Permission.objects.filter(codename="role:tester").exists()


def test_only_guardian_rows_grant(ann: User) -> None:
    grants.add(ALL[0])
    row = TargetUserObjectPermission.objects.get()
    assert (row.user, row.permission.codename, row.content_object.repository) == (ann, "role:administrator", "")
    assert ann.has_perm("accounts.role:administrator", row.content_object)


def test_a_role_may_be_renamed_and_keeps_its_grants(ann: User) -> None:
    role = Role.objects.create(name="tester", permissions=["artifact:write", "artifact:read", "artifact:read"])
    assert role.permissions == ["artifact:read", "artifact:write"]
    grants.add(("tester", "user", "ann", "go", ""))
    role.name = "checker"
    role.save()
    assert grants.entries() == [Entry("checker", "user", "ann", "go", "")]
    assert Permission.objects.get(role=role).codename == "role:checker"


def test_a_role_of_unknown_words_is_refused() -> None:
    with pytest.raises(problems.Malformed, match="artifact:everything"):
        Role.objects.create(name="tester", permissions=["artifact:everything"])


def test_what_is_reserved_stays_as_it_is() -> None:
    anonymous, group = User.objects.get(username="anonymous"), Group.objects.get(name="authenticated")
    reader = Role.objects.get(name="reader")
    for thing in (anonymous, group, reader):
        with pytest.raises(problems.Forbidden), transaction.atomic():
            thing.delete()
    anonymous.username = "somebody"
    group.name = "some"
    reader.permissions = ["artifact:delete"]
    for thing in (anonymous, group, reader):
        with pytest.raises(problems.Forbidden), transaction.atomic():
            thing.save()


def test_built_in_are_four_roles_the_group_of_the_signed_in_and_anonymous() -> None:
    assert {role.name: frozenset(role.permissions) for role in Role.objects.all()} == BUILTIN_ROLES
    assert list(Group.objects.values_list("name", flat=True)) == ["authenticated"]
    anonymous = User.objects.get()
    assert (anonymous.username, anonymous.has_usable_password()) == ("anonymous", False)
    assert grants.entries() == []
    before = epoch.current()
    builtin.ensure(apps)
    assert epoch.current() == before


@pytest.mark.django_db(transaction=True)
def test_what_is_built_in_is_there_again_after_a_flush(ann: User) -> None:
    before = epoch.current()
    grants.add(("owner", "user", "ann", "*", ""))
    call_command("flush", interactive=False, verbosity=0)
    assert Role.objects.count() == len(BUILTIN_ROLES)
    assert epoch.current() != before
    bob = User.objects.create_user("bob")
    assert not rights(bob).allows("artifact:read", "go")
