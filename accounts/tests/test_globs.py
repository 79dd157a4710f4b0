from __future__ import annotations

import re
import time
from functools import cache

import pytest
from django.db import connection
from hypothesis import given, settings
from hypothesis import strategies as st

import problems
from accounts.globs import LENGTH, OPERATORS, checked, expression, matches


@pytest.mark.parametrize(
    ("glob", "text", "expected"),
    [
        ("go-local", "go-local", True),
        ("go-local", "go-locals", False),
        ("go-*", "go-", True),
        ("go-*", "go-a/b", False),
        ("*", "a/b", False),
        ("**", "a/b", True),
        ("corp.example/a/**", "corp.example/a/b/c", True),
        ("corp.example/a/**", "corp.example/a", False),
        ("corp.example/a/**", "corp.example/ab/c", False),
        ("corp.example/*", "corp.example/a/b", False),
        ("corp.example/*/x", "corp.example/a/x", True),
        ("**/x", "a/b/x", True),
        ("**/x", "x", False),
        ("v?", "v1", True),
        ("v?", "v", False),
        ("a?b", "a/b", False),
        ("corp.example", "corpXexample", False),
        ("[ab]", "a", False),
        ("[ab]", "[ab]", True),
        ("a", "a\n", False),
        ("**", "a\nb", True),
        ("", "", True),
        ("", "a", False),
    ],
)
def test_star_stops_at_a_slash_and_two_do_not(glob: str, text: str, expected: bool) -> None:
    assert matches(glob, text) is expected


@given(
    st.lists(st.sampled_from(["a", "b", "/", "*", "**", "?"]), max_size=9).map("".join),
    st.text(alphabet="ab/", max_size=10),
)
def test_a_glob_matches_what_its_definition_says(glob: str, text: str) -> None:
    assert matches(glob, text) is _by_definition(glob, text)


def _by_definition(glob: str, text: str) -> bool:
    pieces = re.findall(r"\*+|[^*]", glob)

    @cache
    def match(i: int, j: int) -> bool:
        if i == len(pieces):
            return j == len(text)
        piece, here = pieces[i], text[j : j + 1]
        if piece[0] == "*":
            return match(i + 1, j) or (here != "" and (len(piece) > 1 or here != "/") and match(i, j + 1))
        return here != "" and (here == piece or (piece == "?" and here != "/")) and match(i + 1, j + 1)

    return match(0, 0)


def found_by_database(every: list[list[str]], text: str) -> bool:
    finds = OPERATORS[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT CASE WHEN CAST(%s AS TEXT) {finds} %s THEN 1 ELSE 0 END", [text, expression(every, connection.vendor)]
        )
        return cursor.fetchone() == (1,)


@pytest.mark.django_db
def test_the_database_finds_what_a_glob_of_each_set_matches() -> None:
    some = st.lists(st.sampled_from(["a", "b", "/", "*", "**", "?", "é", "(?>", "\\", ".", "|", "$", "{2}", "[a]"]), max_size=6)
    globs = st.lists(some.map("".join), max_size=3)

    @settings(max_examples=500, deadline=None)
    @given(st.lists(globs, max_size=3), st.text(alphabet="ab/é.\n\\|$(?>{2}[]", max_size=8))
    def check(every: list[list[str]], text: str) -> None:
        expected = all(any(matches(glob, text) for glob in globs) for globs in every)
        assert found_by_database(every, text) is expected

    check()


LONG = ["**a" * 300 + "b", "*a" * 300 + "b", "a*" * 300 + "b", "**?a*b" * 100, "*a**" * 99]


@pytest.mark.django_db
@pytest.mark.parametrize("glob", LONG)
def test_the_database_takes_the_longest_globs(glob: str) -> None:
    assert found_by_database([[glob, "x"], [glob]], "a" * LENGTH) is matches(glob, "a" * LENGTH)
    assert found_by_database([[glob, *LONG]] * 4, glob.replace("*", "a").replace("?", "a"))


@pytest.mark.parametrize("glob", LONG)
def test_no_glob_takes_long(glob: str) -> None:
    started = time.perf_counter()
    matches(glob, "a" * LENGTH)
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize("glob", ["a\0b", "a\n", "\x7f", "é" * 513, "\ud800", 7, None])
def test_what_cannot_be_stored_is_refused(glob: str) -> None:
    with pytest.raises(problems.Malformed):
        checked(glob)
