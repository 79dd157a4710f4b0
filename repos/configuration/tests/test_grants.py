"""What a grant's item stands for, and how stored grants are written again in few items."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts import grants
from accounts.grants import Entry
from accounts.models import Role, User
from problems import Malformed
from repos.configuration import accounts, engine
from repos.configuration.accounts import Grants, describe_entry
from repos.configuration.tests.parts import document

pytestmark = pytest.mark.django_db

USERS = ["ann", "bob", "ci@corp.example"]
GROUPS = ["team-a", "team a on go", 'a "b"']
ROLES = ["reader", "owner", "read to user ann"]
REPOSITORIES = ["go", "go-*", "**", "a b", "go at x", " ", '"go"']
PATHS = ["**", "*", "corp.example/**", "x on go", "é?", " a "]


@pytest.fixture
def cast(db: None) -> None:
    for name in USERS:
        User.objects.create(username=name)
    for name in GROUPS:
        Group.objects.create(name=name)
    Role.objects.create(name=ROLES[2], permissions=["artifact:read"])


def test_an_item_stands_for_each_of_its_combinations(cast: None) -> None:
    item = {
        "role": "reader",
        "users": ["ann", "bob"],
        "groups": ["team-a"],
        "anonymous": True,
        "repositories": ["go", "raw"],
        "paths": ["a/**", "b/**"],
    }
    assert len(engine.apply(document(grants=[item]))) == 4 * 2 * 2
    assert Entry("reader", "user", "bob", "raw", "b/**") in grants.entries()
    assert engine.export()["grants"] == [item]


def test_items_may_overlap(cast: None) -> None:
    items = [
        {"role": "reader", "users": ["ann"], "repositories": ["go", "raw"]},
        {"role": "reader", "users": ["ann", "bob"], "repositories": ["go"]},
    ]
    assert len(engine.apply(document(grants=items))) == 3
    assert engine.apply(document(grants=items), prune=True) == []


def test_reserved_names_are_the_same_as_their_words() -> None:
    engine.apply(
        document(grants=[{"role": "reader", "users": ["anonymous"], "groups": ["authenticated"], "repositories": ["x"]}])
    )
    same = [{"role": "reader", "authenticated": True, "anonymous": True, "repositories": ["x"]}]
    assert engine.export()["grants"] == same
    assert engine.diff(document(grants=same), prune=True) == []


def test_every_path_is_written_one_way() -> None:
    engine.apply(document(grants=[{"role": "reader", "anonymous": True, "repositories": ["x"], "paths": ["**"]}]))
    assert engine.export()["grants"] == [{"role": "reader", "anonymous": True, "repositories": ["x"]}]


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"role": "reader", "repositories": ["x"]}, "a grant says to whom"),
        ({"role": "reader", "users": [], "anonymous": False, "repositories": ["x"]}, "a grant says to whom"),
        ({"role": "reader", "anonymous": True, "paths": ["x"]}, "a grant on paths says on which repositories"),
        ({"role": "reader", "anonymous": True, "repositories": []}, "repositories: This list may not be empty"),
        ({"role": "reader", "anonymous": True, "repositories": ["x"], "paths": []}, "paths: This list may not be empty"),
        ({"role": "reader", "anonymous": True, "repositories": [""]}, "repositories[0]: This field may not be blank"),
        ({"role": "reader", "anonymous": True, "repositories": ["a\nb"]}, "control characters"),
        ({"role": "reader", "anonymous": True, "repositories": ["a" * 1025]}, "at most 1024 bytes"),
        ({"role": "nobody", "anonymous": True}, "There is no role nobody"),
        ({"role": "reader", "users": ["nobody"]}, "There is no user nobody"),
        ({"role": "reader", "groups": ["nobody"]}, "There is no group nobody"),
    ],
)
def test_grants_that_make_no_sense(item: dict[str, Any], said: str) -> None:
    with pytest.raises(Malformed) as problem:
        engine.apply(document(grants=[item]))
    assert said in problem.value.detail


SUBJECTS = st.one_of(
    st.tuples(st.just("user"), st.sampled_from(USERS)),
    st.tuples(st.just("group"), st.sampled_from(GROUPS)),
    st.sampled_from([("authenticated", ""), ("anonymous", "")]),
)
PLACES = st.one_of(st.just(("", "")), st.tuples(st.sampled_from(REPOSITORIES), st.one_of(st.just(""), st.sampled_from(PATHS))))
ENTRIES = st.builds(lambda role, subject, place: Entry(role, *subject, *place), st.sampled_from(ROLES), SUBJECTS, PLACES)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.frozensets(ENTRIES, max_size=12), st.frozensets(ENTRIES, max_size=4))
def test_what_is_exported_makes_the_same_grants(cast: None, wanted: frozenset[Entry], others: frozenset[Entry]) -> None:
    with transaction.atomic():
        for entry in wanted:
            grants.add(entry)
        stored, exported = grants.entries(), engine.export()
        assert len(exported.get("grants", [])) <= len(stored)
        assert engine.diff(exported, prune=True) == []
        for entry in stored:
            grants.remove(entry)
        for entry in others:
            grants.add(entry)
        engine.apply(document(grants=exported.get("grants", [])), prune=True)
        assert grants.entries() == stored
        assert engine.export() == exported
        transaction.set_rollback(True)


NAMES = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=8) | st.sampled_from(
    ["a on b", "a at b", '"a"', "a to user b", "\\"]
)


def test_an_item_that_stands_for_too_many_is_refused(cast: None) -> None:
    names = [f"name-{n}" for n in range(100)]
    item = {"role": "reader", "users": names, "repositories": names}
    assert len(engine.diff(document(grants=[item]))) == 10_000
    for more in ({"anonymous": True}, {"paths": ["a", "b"]}):
        with pytest.raises(Malformed, match=r"an item of reader stands for [0-9]+ grants and 10000 are the most") as problem:
            engine.diff(document(grants=[{**item, **more}]))
        assert problem.value.rule == "grants.many"


def test_what_is_exported_is_no_item_that_stands_for_too_many(cast: None, monkeypatch: pytest.MonkeyPatch) -> None:
    item = {"role": "reader", "users": USERS, "groups": GROUPS[:1], "authenticated": True, "repositories": ["a", "b", "c"]}
    engine.apply(document(grants=[{**item, "paths": ["x", "y"]}]))
    before = grants.entries()
    monkeypatch.setattr(accounts, "MOST_GRANTS", 4)
    exported = Grants().export()
    assert len(exported) == 8, "30 grants, at most 4 at a time"
    assert engine.apply(document(grants=exported), prune=True) == []
    assert grants.entries() == before


@settings(deadline=None)
@given(st.tuples(*[st.builds(Entry, NAMES, st.sampled_from(["user", "group"]), NAMES, NAMES, NAMES | st.just(""))] * 2))
def test_no_two_grants_are_described_alike(pair: tuple[Entry, Entry]) -> None:
    one, other = pair
    assert (describe_entry(one) == describe_entry(other)) == (one == other)


def test_the_words_of_one_grant_cannot_be_those_of_another(cast: None) -> None:
    """A group's name may read like the rest of a grant."""
    items = [
        {"role": "reader", "groups": ["team a on go"], "repositories": ["x"]},
        {"role": "reader", "groups": ["team a on go"]},
    ]
    Group.objects.create(name="team a")
    more = [{"role": "reader", "groups": ["team a"], "repositories": ["go"]}]
    assert len(engine.apply(document(grants=items + more))) == 3
    assert len(Grants().stored()) == 3
