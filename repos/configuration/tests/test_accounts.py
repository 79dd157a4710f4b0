"""Roles, groups, users and their passwords, and the last one who can put things right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from django.contrib.auth.models import Group

from accounts import people
from accounts.models import Role, User
from accounts.people import Person
from problems import Conflict, Forbidden, Problem
from repos.configuration import engine
from repos.configuration.tests.parts import document, empty, everything, manager

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse"


def test_roles_take_the_short_words() -> None:
    roles = [
        {"name": "in", "permissions": ["data:read"]},
        {"name": "out", "permissions": ["data:write", "data:read", "artifact:delete"]},
    ]
    engine.apply(document(roles=roles))
    assert Role.objects.get(name="in").permissions == ["artifact:read"]
    out = ["artifact:delete", "artifact:overwrite", "artifact:read", "artifact:write"]
    assert Role.objects.get(name="out").permissions == out
    assert engine.apply(document(roles=roles)) == []
    assert engine.export()["roles"][1] == {"name": "out", "permissions": out}


@pytest.mark.parametrize(
    ("section", "item", "said"),
    [
        ("roles", {"name": "administrator", "permissions": []}, "administrator is built in"),
        ("roles", {"name": "reader", "permissions": ["artifact:read", "artifact:write"]}, "reader is built in"),
        ("users", {"name": "anonymous"}, "grants say `anonymous: true`"),
        ("groups", {"name": "authenticated"}, "grants say `authenticated: true`"),
        ("users", {"name": "x", "groups": ["authenticated"]}, "in authenticated already"),
        ("roles", {"name": "x", "permissions": ["artifact:raed"]}, "Unknown permission: artifact:raed"),
        ("users", {"name": "x", "groups": ["nowhere"]}, "there is no group nowhere"),
        ("users", {"name": "a b"}, "a name has letters"),
        ("users", {"name": "ab\n"}, "a name has letters"),
        ("groups", {"name": "a\nb"}, "one line"),
        ("roles", {"name": "a\nb"}, "one line"),
        ("roles", {"name": " a"}, "one line"),
        ("users", {"name": "x", "robot": True, "password": "secret"}, "password: a robot has none; make a token for it"),
        ("users", {"name": "x", "robot": True, "identities": [{"source": "y", "subject": "1"}]}, "a robot has none"),
        ("users", {"name": "x", "identities": [{"source": "y", "subject": "1"}]}, "no directory and no provider y"),
        ("users", {"name": "x", "robot": True, "password": {"env": "X"}}, "password: a robot has none; make a token for it"),
        ("users", {"name": "x", "email": "nobody"}, "valid email"),
        ("users", {"name": "x", "email": "a@" + ".".join(["b" * 60] * 5)}, "email"),
    ],
)
def test_names_that_cannot_be(section: str, item: dict[str, Any], said: str) -> None:
    before = everything()
    with pytest.raises(Problem) as problem:
        engine.apply(document(**{section: [item]}))
    assert said in problem.value.detail
    assert everything() == before


def test_a_built_in_role_may_be_listed_as_it_is() -> None:
    assert engine.apply(document(roles=[{"name": "reader", "permissions": ["data:read"]}]), prune=True) == []


SEED = {
    "as yaml": """
roles:
  - name: admin
    permissions:
      - user:manage
      - data:read
      - data:write
  - name: developer
    permissions: [data:read, data:write]
  - name: viewer
    permissions: [data:read]
""",
    "as json": """{"roles": [
  {"name": "admin", "permissions": ["user:manage", "data:read", "data:write"]},
  {"name": "developer", "permissions": ["data:write", "data:read"]},
  {"name": "viewer", "permissions": ["data:read"]}
]}""",
}


@pytest.mark.parametrize("text", SEED.values(), ids=SEED)
def test_a_file_of_roles_in_short_words_is_taken_as_it_stands(file: Callable[..., str], text: str) -> None:
    """Also where it lists a built-in role as what it is."""
    written = engine.load([file(text, "roles")])
    assert engine.apply(written) == ["+ roles admin", "+ roles viewer"]
    assert engine.apply(written, prune=True) == []
    write = ["artifact:overwrite", "artifact:read", "artifact:write"]
    stored = {role.name: role.permissions for role in Role.objects.all()}
    assert (stored["admin"], stored["developer"], stored["viewer"]) == ([*write, "user:manage"], write, ["artifact:read"])


@pytest.mark.parametrize(
    ("name", "words"), [("owner", ["data:read"]), ("administrator", ["user:manage"]), ("reader", ["data:read", "data:write"])]
)
def test_a_built_in_role_with_other_permissions_is_refused_by_name_and_nothing_is_made(name: str, words: list[str]) -> None:
    before = everything()
    with pytest.raises(Problem) as problem:
        engine.apply(document(roles=[{"name": "viewer", "permissions": ["data:read"]}, {"name": name, "permissions": words}]))
    assert problem.value.detail == f"The role {name} is built in: make another one."
    assert everything() == before


def test_who_becomes_a_robot_has_no_password_any_more() -> None:
    engine.apply(document(users=[{"name": "ann", "password": PASSWORD}]))
    assert engine.apply(document(users=[{"name": "ann", "robot": True}])) == ["~ users ann: robot null -> true"]
    assert not User.objects.get(username="ann").has_usable_password()
    engine.apply(document(users=[{"name": "ann"}]))
    assert not User.objects.get(username="ann").has_usable_password()


def test_groups_and_their_external_names() -> None:
    engine.apply(document(groups=[{"name": "a", "external": ["x", "y"]}, {"name": "b", "external": ["x"]}]))
    assert engine.apply(document(groups=[{"name": "a", "external": ["z", "y"]}])) == [
        '~ groups a: external ["x", "y"] -> ["y", "z"]'
    ]
    assert engine.export()["groups"] == [{"name": "a", "external": ["y", "z"]}, {"name": "b", "external": ["x"]}]


def test_membership_is_what_the_user_says() -> None:
    engine.apply(document(groups=[{"name": "a"}, {"name": "b"}], users=[{"name": "ann", "groups": ["b", "a"]}]))
    engine.apply(document(users=[{"name": "ann", "groups": ["b"]}]))
    assert [group.name for group in User.objects.get(username="ann").groups.all()] == ["b"]
    engine.apply(document(users=[{"name": "ann"}]))
    assert not User.objects.get(username="ann").groups.exists()


SSO = {"name": "sso", "issuer": "https://sso.example.org", "client_id": "entrepot"}
ANN = Person("sso", "https://sso.example.org", "1", "ann", email="ann@example.org", groups=frozenset({"sso:team"}))


@pytest.mark.parametrize(
    "said",
    [
        {"grants": [{"role": "reader", "users": ["ann"], "repositories": ["x"]}]},
        {"groups": [{"name": "a"}], "users": [{"name": "ann", "groups": ["a"]}]},
        {"users": [{"name": "ann", "inactive": True}]},
    ],
    ids=["grant", "group", "inactive"],
)
def test_what_is_said_of_somebody_from_outside_is_exported_and_theirs_alone_elsewhere_too(said: dict[str, Any]) -> None:
    engine.apply(document(providers=[SSO]))
    people.admit(ANN)
    assert "users" not in engine.export(), "who comes by signing in"
    engine.apply(document(**said))
    assert engine.diff(document(**said)) == [], "the address is for the source to say"
    exported = engine.export()
    empty()
    engine.apply(exported)
    assert engine.export() == exported
    with pytest.raises(Forbidden) as refusal:
        people.admit(replace(ANN, subject="2"))
    if "inactive" in str(said):
        with pytest.raises(Forbidden):
            people.admit(ANN)
    else:
        assert refusal.value.rule == "identity.name" and people.admit(ANN).email == "ann@example.org"


def test_an_administrator_links_a_user_who_is_here_already_with_a_source() -> None:
    mine = {"name": "alice", "identities": [{"source": "sso", "subject": "1"}]}
    engine.apply(document(providers=[SSO], users=[{"name": "alice", "password": PASSWORD}]))
    assert engine.apply(document(users=[mine])) == ['~ users alice: identities null -> [{"source": "sso", "subject": "1"}]']
    assert people.admit(ANN).username == "alice"
    assert engine.diff(document(users=[{"name": "alice"}])) == [], "what is not named stays"
    with pytest.raises(Conflict, match="is the user alice already"):
        engine.apply(document(users=[{**mine, "name": "bob"}]))
    other = {**mine, "identities": [{"source": "sso", "subject": "2"}]}
    engine.apply(document(users=[other]))
    assert people.admit(replace(ANN, subject="2")).username == "alice" != people.admit(ANN).username


def test_a_user_is_found_by_the_name_that_signs_in() -> None:
    ligature = "ofﬁce"
    engine.apply(document(users=[{"name": ligature}], grants=[{"role": "reader", "users": [ligature], "repositories": ["x"]}]))
    assert User.objects.filter(username="office").exists()
    assert engine.diff(document(users=[{"name": ligature}, {"name": "office2"}])) == ["+ users office2"]


@pytest.mark.parametrize("written", [PASSWORD, {"env": "ANN_PASSWORD"}])
def test_passwords_are_hashed_and_applied_once(monkeypatch: pytest.MonkeyPatch, written: Any) -> None:
    monkeypatch.setenv("ANN_PASSWORD", PASSWORD)
    wanted = document(users=[{"name": "ann", "password": written}])
    assert engine.apply(wanted) == ["+ users ann"]
    stored = User.objects.get(username="ann").password
    assert stored.startswith("argon2")
    assert PASSWORD not in stored
    assert engine.apply(wanted) == []
    assert User.objects.get(username="ann").password == stored
    assert "password" not in str(engine.export())
    assert engine.diff(engine.export(), prune=True) == []


def test_a_new_password_is_applied_and_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANN_PASSWORD", PASSWORD)
    wanted = document(users=[{"name": "ann", "password": {"env": "ANN_PASSWORD"}}])
    engine.apply(wanted)
    monkeypatch.setenv("ANN_PASSWORD", "battery staple")
    assert engine.diff(wanted) == []
    assert engine.apply(wanted) == ["~ users ann: a secret has another value"]
    assert User.objects.get(username="ann").check_password("battery staple")
    assert engine.apply(document(users=[{"name": "ann", "email": "a@example.org", "password": "third"}])) == [
        '~ users ann: email null -> "a@example.org"'
    ]
    assert User.objects.get(username="ann").check_password("third")


def test_a_password_stays_where_the_document_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    engine.apply(document(users=[{"name": "ann", "password": PASSWORD}]))
    monkeypatch.delenv("ANN_PASSWORD", raising=False)
    assert engine.apply(document(users=[{"name": "ann"}])) == []
    assert engine.apply(document(users=[{"name": "ann", "password": {"env": "ANN_PASSWORD"}}])) == []
    engine.apply(document(users=[{"name": "ann", "inactive": True, "password": {"env": "ANN_PASSWORD"}}]))
    assert User.objects.get(username="ann").check_password(PASSWORD)


def test_a_user_without_a_password_cannot_sign_in_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANN_PASSWORD", raising=False)
    engine.apply(document(users=[{"name": "bob"}]))
    assert not User.objects.get(username="bob").has_usable_password()
    with pytest.raises(Problem, match="users: ann: there is no value for ANN_PASSWORD"):
        engine.apply(document(users=[{"name": "ann", "password": {"env": "ANN_PASSWORD"}}]))
    assert not User.objects.filter(username="ann").exists()


ROOT = {"users": [{"name": "root"}], "grants": [{"role": "administrator", "users": ["root"]}]}
CLERK = {
    "roles": [{"name": "clerk", "permissions": ["user:manage"]}],
    "groups": [{"name": "office"}],
    "users": [{"name": "ann", "groups": ["office"]}],
    "grants": [{"role": "clerk", "groups": ["office"]}],
}
ALL = {
    "roles": [{"name": "clerk", "permissions": ["user:manage"]}],
    "users": [{"name": "ann"}],
    "grants": [{"role": "clerk", "authenticated": True}],
}

TAKEN_AWAY: dict[str, tuple[dict, dict, bool]] = {
    "the grant": (ROOT, {"grants": []}, True),
    "inactive": (ROOT, {"users": [{"name": "root", "inactive": True}]}, False),
    "the user": (ROOT, {"users": []}, True),
    "the group's grant": (CLERK, {"grants": []}, True),
    "the role's permission": (CLERK, {"roles": [{"name": "clerk", "permissions": ["audit:read"]}]}, False),
    "the role": (CLERK, {"roles": []}, True),
    "the group": (CLERK, {"groups": []}, True),
    "the membership": (CLERK, {"users": [{"name": "ann"}]}, False),
    "the member": (CLERK, {"users": [{"name": "ann", "groups": ["office"], "inactive": True}]}, False),
    "the last of all": (ALL, {"users": []}, True),
    "global for a repository's": (ROOT, {"grants": [{"role": "administrator", "users": ["root"], "repositories": ["**"]}]}, True),
    "somebody for anonymous": (ROOT, {"grants": [{"role": "administrator", "anonymous": True}]}, True),
}


@pytest.mark.parametrize(("first", "then", "prune"), TAKEN_AWAY.values(), ids=TAKEN_AWAY)
def test_the_last_who_manages_users_stays(first: dict, then: dict, prune: bool) -> None:
    engine.apply(document(**first))
    before = everything()
    with pytest.raises(Conflict) as problem:
        engine.apply(document(**then), prune=prune)
    assert problem.value.rule == "users.manager"
    assert everything() == before


def test_who_is_not_the_last_may_go() -> None:
    manager()
    engine.apply(document(**CLERK))
    assert engine.apply(document(users=[{"name": "root"}]), prune=True) == ["- users ann"]


def test_people_from_outside_may_be_all_who_manage_users() -> None:
    manager()
    people.admit(ANN)
    outside = {"name": "office", "external": ["sso:team"]}
    engine.apply(document(groups=[outside], grants=[{"role": "administrator", "groups": ["office"]}]))
    assert engine.apply(document(users=[]), prune=True) == ["- users root"]
    with pytest.raises(Conflict):
        engine.apply(document(groups=[{"name": "office"}]))


def test_an_installation_without_a_manager_can_be_configured() -> None:
    empty()
    assert engine.apply(document(users=[{"name": "ann"}])) == ["+ users ann"]


def test_prune_takes_a_groups_grants_along() -> None:
    manager()
    engine.apply(document(groups=[{"name": "g"}], grants=[{"role": "reader", "groups": ["g"], "repositories": ["x"]}]))
    assert engine.apply(document(groups=[]), prune=True) == ["- groups g"]
    assert not Group.objects.filter(name="g").exists()
    assert engine.export()["grants"] == [{"role": "administrator", "users": ["root"]}]
