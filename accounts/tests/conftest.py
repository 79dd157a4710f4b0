"""A small cast: ann is in team-a, bob is nobody in particular, eve is an outsider, ci is a robot."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator

import pytest
from django.contrib.auth.models import Group

from accounts import access, epoch, grants, passwords, tokens
from accounts.actors import ANONYMOUS, Actor, actor_of
from accounts.models import User

PASSWORD = "correct horse: battery/staple"


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    passwords.forget()
    tokens._used.clear()
    yield
    passwords.forget()
    tokens._used.clear()


@pytest.fixture
def team(db: None) -> Group:
    return Group.objects.create(name="team-a")


@pytest.fixture
def ann(team: Group) -> User:
    user = User.objects.create_user("ann", password=PASSWORD)
    user.groups.add(team)
    return user


@pytest.fixture
def bob(db: None) -> User:
    return User.objects.create_user("bob", password=PASSWORD)


@pytest.fixture
def eve(db: None) -> User:
    return User.objects.create_user("eve", password=PASSWORD)


@pytest.fixture
def ci(db: None) -> User:
    return User.objects.create_user("ci", robot=True)


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def rights(who: User | Actor | None) -> access.Rights:
    actor = ANONYMOUS if who is None else who if isinstance(who, Actor) else actor_of(who)
    return access.rights_of(actor, epoch.current())


@pytest.fixture
def grant(db: None) -> Callable[..., bool]:
    def add(role: str, kind: str, name: str = "", repository: str = "", path: str = "") -> bool:
        return grants.add((role, kind, name, repository, path))

    return add
