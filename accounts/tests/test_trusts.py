"""Which claims fit which patterns. What is signed and exchanged is in tests/flows/test_exchange.py."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts import globs
from accounts.trusts import misfit

FITS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"repository": "corp/*"}, {"repository": "corp/app"}),
    ({"repository": "corp/**"}, {"repository": "corp/team/app"}),
    ({"repository": ["a/*", "corp/*"]}, {"repository": "corp/app"}),
    ({"groups": "releasers"}, {"groups": ["everybody", "releasers"]}),
    ({"groups": ["a", "releasers"]}, {"groups": ["everybody", "releasers"]}),
    ({"ref_protected": True}, {"ref_protected": "true"}),
    ({"ref_protected": True}, {"ref_protected": True}),
    ({"ref_protected": "true"}, {"ref_protected": True}),
    ({"project_id": 22}, {"project_id": "22"}),
    ({"project_id": "22"}, {"project_id": 22}),
    ({"kubernetes.io": {"namespace": "ci"}}, {"kubernetes.io": {"namespace": "ci", "pod": {}}}),
    ({"sub": "**"}, {"sub": ""}),
]
DIFFERS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"a": "x", "b": "y"}, {"a": "x", "b": "z"}, 'b is "z", and is to be "y"'),
    ({"a": "x"}, {}, 'a is missing, and is to be "x"'),
    ({"a": "**"}, {}, 'a is missing, and is to be "**"'),
    ({"a": "*"}, {"a": "b/c"}, 'a is "b/c", and is to be "*"'),
    ({"a": "true"}, {"a": "True"}, 'a is "True", and is to be "true"'),
    ({"a": True}, {"a": 1}, "a is 1, and is to be true"),
    ({"a": 1}, {"a": True}, "a is true, and is to be 1"),
    ({"a": "**"}, {"a": {"b": "c"}}, 'a is {"b": "c"}, and is to be "**"'),
    ({"a": "**"}, {"a": []}, 'a is [], and is to be "**"'),
    ({"a": "**"}, {"a": [["b"]]}, 'a is [["b"]], and is to be "**"'),
    ({"a": "null"}, {"a": None}, 'a is missing, and is to be "null"'),
    ({"a": {"b": "c"}}, {"a": "c"}, 'a is "c", and has no b'),
    ({"a": {"b": "c"}}, {"a": {"b": "d"}}, 'a b is "d", and is to be "c"'),
    ({"a.b": "c"}, {"a": {"b": "c"}}, 'a.b is missing, and is to be "c"'),
    ({"a": {"b": "c"}}, {"a.b": "c"}, "a is missing, and has no b"),
    ({"a": "x"}, {"a": "x\0\n" * 300}, 'a is "' + r"x\u0000\n" * 21 + 'x\\u0000…, and is to be "x"'),
]


@pytest.mark.parametrize(("patterns", "claims"), FITS)
def test_claims_that_fit(patterns: dict[str, Any], claims: dict[str, Any]) -> None:
    assert misfit(patterns, claims) is None


@pytest.mark.parametrize(("patterns", "claims", "why"), DIFFERS)
def test_claims_that_do_not_fit_are_told_in_words(patterns: dict[str, Any], claims: dict[str, Any], why: str) -> None:
    said = misfit(patterns, claims)
    assert said == why if "…" not in why else (said is not None and "…" in said and said.isprintable())


@given(st.text(max_size=30), st.text(max_size=30))
def test_text_fits_exactly_where_the_glob_matches(glob: str, text: str) -> None:
    assert (misfit({"a": glob}, {"a": text}) is None) == globs.matches(glob, text)
