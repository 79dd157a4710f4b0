"""A scope is within another only where it allows nothing that the other does not, whatever the two say."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import problems
from accounts import globs, scopes
from accounts.access import Rights
from accounts.permissions import GLOBAL_PERMISSIONS, PERMISSIONS, REPOSITORY_PERMISSIONS

PIECES = ["a", "b", "/", "*", "**", "?", "-"]
GLOBS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join)
TEXTS = st.text(alphabet="ab/-", max_size=8)
OF_REPOSITORIES = st.builds(
    lambda word, repository, path: f"{word}@{repository}" + (f":{path}" if path else ""),
    st.sampled_from(sorted(REPOSITORY_PERMISSIONS)),
    GLOBS,
    st.none() | GLOBS,
)
SCOPES = OF_REPOSITORIES | st.sampled_from(sorted(GLOBAL_PERMISSIONS))


def allowed(scope: str, permission: str, repository: str, package: str | None) -> bool:
    """What somebody who may everything does with a token of one scope."""
    rights = Rights(()).plus([(PERMISSIONS, "**", ""), (PERMISSIONS, "", "")]).narrowed_to([scope])
    return rights.allows_globally(permission) if not repository else rights.allows(permission, repository, package)


@settings(max_examples=1000)
@given(GLOBS, GLOBS, TEXTS)
def test_a_glob_within_another_matches_nothing_that_the_other_does_not(inner: str, outer: str, text: str) -> None:
    if globs.within(inner, outer):
        assert not globs.matches(inner, text) or globs.matches(outer, text)


@settings(max_examples=1000)
@given(SCOPES, SCOPES, st.sampled_from(sorted(PERMISSIONS)), TEXTS, st.none() | TEXTS)
def test_a_scope_within_another_allows_nothing_that_the_other_does_not(
    inner: str, outer: str, permission: str, repository: str, package: str | None
) -> None:
    if scopes.within(inner, outer):
        assert not allowed(inner, permission, repository, package) or allowed(outer, permission, repository, package)


def instance(glob: str) -> st.SearchStrategy[str]:
    """Texts that a glob matches, so that a claim which is wrong is soon seen to be."""
    parts = {"*": st.text("ab-", max_size=3), "**": st.text("ab/-", max_size=4), "?": st.sampled_from("ab-")}
    runs = [parts.get("**" if piece.startswith("**") else piece, st.just(piece)) for piece in _pieces(glob)]
    return st.tuples(*runs).map("".join)


def _pieces(glob: str) -> list[str]:
    found: list[str] = []
    for character in glob:
        if character == "*" and found and found[-1].startswith("*"):
            found[-1] += "*"
        else:
            found.append(character)
    return found


@settings(max_examples=1000)
@given(st.data(), GLOBS, st.sampled_from(["", "*", "**", "/*", "/**", "a*", "a**", "?*", "-**"]))
def test_what_a_glob_matches_is_matched_by_each_that_it_is_within(data: st.DataObject, inner: str, end: str) -> None:
    """Pairs that are close: a glob, and one that begins as it does."""
    outer = inner[: data.draw(st.integers(0, len(inner)))] + end or "*"
    text = data.draw(instance(inner))
    assert globs.matches(inner, text)
    if globs.within(inner, outer):
        assert globs.matches(outer, text)


@given(SCOPES)
def test_a_scope_is_within_itself_and_one_of_all_that_it_says(scope: str) -> None:
    assert scopes.within(scope, scope)
    permission, repository, _ = scopes.parse(scope)
    assert scopes.within(scope, f"{permission}@**" if repository else permission)
    if repository:
        assert not scopes.within(f"{permission}@**", scope) or allowed(scope, permission, "a/b-", "x/y")


@given(SCOPES, SCOPES, SCOPES)
def test_a_token_made_by_a_token_made_by_a_token_is_no_wider_than_the_first(one: str, two: str, three: str) -> None:
    if scopes.within(one, two) and scopes.within(two, three):
        for permission in PERMISSIONS:
            for repository, package in (("a", "b"), ("a/b", None), ("", None), ("-", ""), ("ab", "a/b")):
                assert not allowed(one, permission, repository, package) or allowed(three, permission, repository, package)


@given(SCOPES, st.sampled_from(sorted(PERMISSIONS)), TEXTS, st.none() | TEXTS)
def test_a_scope_gives_nothing_to_who_has_nothing(scope: str, permission: str, repository: str, package: str | None) -> None:
    nothing = Rights(()).narrowed_to([scope])
    assert not nothing.allows(permission, repository, package)
    assert not nothing.allows_globally(permission)
    assert not nothing.allows_everywhere(permission, repository)


@given(st.text(max_size=30))
def test_any_text_is_a_scope_that_says_what_it_is_or_is_refused(text: str) -> None:
    try:
        permission, repository, path = scopes.parse(text)
    except problems.Malformed:
        return
    assert permission in PERMISSIONS
    assert text == permission + (f"@{repository}" if repository else "") + (f":{path}" if path else "")


@pytest.mark.parametrize("outer", ["artifact:read@a", "artifact:read@a:x/**", "artifact:write@**", "repository:manage"])
def test_no_scope_of_all_repositories_is_within_a_narrower_one(outer: str) -> None:
    for inner in ("artifact:read@**", "artifact:read@a*", "repository:manage@**", "system:manage", "artifact:read@a:**"):
        if scopes.parse(inner)[:2] != scopes.parse(outer)[:2]:
            assert not scopes.within(inner, outer)
