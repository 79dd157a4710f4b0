"""Every change to who may do what is a new epoch, in the change's own transaction."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import Group, Permission, update_last_login
from django.db import connection, transaction
from guardian.shortcuts import assign_perm, remove_perm

from accounts import access, epoch, grants
from accounts.actors import actor_of
from accounts.models import (
    Epoch,
    Role,
    Target,
    TargetGroupObjectPermission,
    TargetUserObjectPermission,
    User,
)

ENTRY = grants.Entry("reader", "user", "ann", "go-*", "")


def _ann() -> User:
    return User.objects.get(username="ann")


def _team() -> Group:
    return Group.objects.get(name="team-a")


def _set(thing, **values):
    for name, value in values.items():
        setattr(thing, name, value)
    thing.save()


CHANGES: dict[str, Callable[[], object]] = {
    "user created": lambda: User.objects.create_user("new"),
    "user disabled": lambda: _set(_ann(), is_active=False),
    "user deleted": lambda: _ann().delete(),
    "users deleted by query": lambda: User.objects.filter(username="ann").delete(),
    "joined": lambda: _ann().groups.add(Group.objects.get(name="team-b")),
    "joined from the group's side": lambda: Group.objects.get(name="team-b").user_set.add(_ann()),
    "left": lambda: _ann().groups.remove(_team()),
    "left all": lambda: _ann().groups.clear(),
    "groups set": lambda: _ann().groups.set([Group.objects.get(name="team-b")]),
    "group deleted": lambda: _team().delete(),
    "role created": lambda: Role.objects.create(name="new", permissions=["artifact:read"]),
    "role changed": lambda: _set(Role.objects.get(name="tester"), permissions=["artifact:write"]),
    "role deleted": lambda: Role.objects.get(name="tester").delete(),
    "role's permission deleted": lambda: Permission.objects.get(codename="role:tester").delete(),
    "granted": lambda: grants.add(("reader", "user", "ann", "raw", "")),
    "granted to group": lambda: grants.add(("reader", "group", "team-a", "raw", "")),
    "granted by guardian": lambda: assign_perm("accounts.role:owner", _ann(), Target.objects.first()),
    "granted to group by guardian": lambda: assign_perm("accounts.role:owner", _team(), Target.objects.first()),
    "taken back": lambda: grants.remove(ENTRY),
    "taken back by guardian": lambda: remove_perm("accounts.role:reader", _ann(), Target.objects.first()),
    "target changed": lambda: _set(Target.objects.first(), repository="*"),
    "target deleted": lambda: Target.objects.all().delete(),
}


@pytest.fixture
def cast(ann: User) -> User:
    Group.objects.create(name="team-b")
    Role.objects.create(name="tester", permissions=["artifact:read"])
    grants.add(ENTRY)
    grants.add(("tester", "group", "team-a", "go-*", ""))
    return ann


def _state() -> list:
    return [
        list(User.objects.order_by("pk").values()),
        list(User.groups.through.objects.order_by("pk").values()),
        *(
            list(model.objects.order_by("pk").values())
            for model in (Group, Role, Permission, Target, TargetUserObjectPermission, TargetGroupObjectPermission)
        ),
    ]


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_each_change_is_a_new_epoch(cast: User, change: Callable[[], object]) -> None:
    state, before = _state(), epoch.current()
    change()
    assert _state() != state
    assert epoch.current() > before


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_no_change_is_made_without_its_epoch(cast: User, change: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    state, before = _state(), epoch.current()

    def fail() -> int:
        raise RuntimeError("no epoch")

    monkeypatch.setattr(epoch, "bump", fail)
    with pytest.raises(RuntimeError, match="no epoch"):
        change()
    assert _state() == state
    assert epoch.current() == before


@pytest.mark.django_db(transaction=True)
def test_a_change_that_is_rolled_back_leaves_nothing_behind(cast: User) -> None:
    actor, before = actor_of(cast), epoch.current()
    seen = set()
    for repository in ("raw", "oci"):
        with transaction.atomic():
            grants.add(("owner", "user", "ann", repository, ""))
            seen.add(epoch.current())
            assert access.rights_of(actor, epoch.current()).allows("artifact:delete", repository)
            transaction.set_rollback(True)
        assert epoch.current() == before
        assert not access.rights_of(actor, before).allows("artifact:delete", repository)
    assert len(seen) == 2


def test_signing_in_to_the_browser_is_no_change(ann: User) -> None:
    before = epoch.current()
    update_last_login(None, ann)
    assert epoch.current() == before


@pytest.mark.django_db(transaction=True)
def test_the_epoch_is_raised_in_a_transaction_only() -> None:
    with pytest.raises(transaction.TransactionManagementError):
        epoch.bump()


@pytest.mark.django_db
def test_what_is_missing_is_made_again() -> None:
    Epoch.objects.all().delete()
    first = epoch.bump()
    assert epoch.current() == first
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM accounts_epoch")
        assert cursor.fetchone() == (1,)


def test_a_cache_keeps_one_epoch_and_is_bounded() -> None:
    kept: epoch.Cache[str] = epoch.Cache(limit=2)
    assert kept.get(1, "a") is None
    assert kept.put(1, "a", "x") == "x"
    assert kept.get(1, "a") == "x"
    assert kept.get(2, "a") is None
    kept.put(2, "b", "y")
    assert kept.get(1, "a") is None
    kept.put(2, "c", "z")
    kept.put(2, "d", "w")
    assert [kept.get(2, key) for key in "bcd"] == [None, None, "w"]
