"""Which claims fit which patterns, and what an exchange costs. All else of it is in tests/flows/test_exchange.py."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm

from accounts import audit, globs, trusts
from accounts.models import Event, Source, Token, User
from accounts.trusts import Asked, Trust, misfit
from problems import Unauthenticated

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


KEY = ec.generate_private_key(ec.SECP256R1())
SETTINGS = {
    "issuer": "https://ci.example.org",
    "audience": "entrepot",
    "claims": {"repository": "corp/*"},
    "robot": "ci",
    "keys": {"keys": [ECAlgorithm.to_jwk(KEY.public_key(), as_dict=True)]},
}


@pytest.fixture
def known(ci: User) -> list[Trust]:
    Source.objects.create(kind=Source.Kind.TRUST, name="t", settings=json.loads(json.dumps(SETTINGS)))
    return trusts.configured(0, ())


def job(**claims: Any) -> Asked:
    now = int(time.time())
    said = {"iss": "https://ci.example.org", "aud": "entrepot", "iat": now, "exp": now + 60, "sub": "job", **claims}
    return Asked(jwt.encode(said, KEY, algorithm="ES256"))


def test_an_exchange_takes_few_queries_and_what_nobody_signed_one(
    known: list[Trust], django_assert_max_num_queries: Callable
) -> None:
    with django_assert_max_num_queries(9):  # four of them are the savepoints of this test
        token, _ = trusts.exchange(job(repository="corp/app"), known)
    assert (token.user.username, token.trust) == ("ci", "t")
    with django_assert_max_num_queries(1), pytest.raises(Unauthenticated):
        trusts.exchange(job(iss="https://other.example.org"), known)


@pytest.mark.parametrize("change", [None, {"claims": {"repository": "corp/other"}}, {"robot": "other"}])
def test_a_trust_that_changed_while_a_token_was_checked_gives_nothing(known: list[Trust], change: dict[str, Any] | None) -> None:
    if change is None:
        Source.objects.all().delete()
    else:
        Source.objects.update(settings={**SETTINGS, **change})
    with pytest.raises(Unauthenticated):
        trusts.exchange(job(repository="corp/app"), known)
    assert not Token.objects.exists()
    audit.flush()
    assert "it has just been changed" in Event.objects.get().detail["why"]


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"sub": "repo:corp/app", "run_id": "7"}, "repo:corp/app 7"),
        ({"sub": "s" * 300, "job_id": 302}, f"{'s' * 96} 302"),
        ({"sub": "a\0b\nc\u2028", "jti": "j" * 300}, f"a?b?c? {'j' * 40}"),
        ({"sub": ""}, ""),
    ],
)
def test_the_token_of_a_job_is_named_after_it(known: list[Trust], claims: dict[str, Any], name: str) -> None:
    token, _ = trusts.exchange(job(repository="corp/app", **claims), known)
    assert token.name == name
