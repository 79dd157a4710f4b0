"""The section of trusts: what it takes, under which names, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from accounts import epoch, tokens, trusts
from accounts.models import Source, Token, User
from problems import Conflict, Problem
from repos.configuration import engine
from repos.configuration.tests.parts import document, everything

pytestmark = pytest.mark.django_db

CONTRACT: dict[str, Any] = {
    "issuer": "https://ci.example.org",
    "audience": "entrepot",
    "claims": {"repository": "corp/*", "ref": "refs/heads/main"},
    "robot": "ci",
    "lifetime": "15m",
}
ROBOTS = {"users": [{"name": "ci", "robot": True}, {"name": "ann"}]}
KEY = ec.generate_private_key(ec.SECP256R1())
PUBLIC = ECAlgorithm.to_jwk(KEY.public_key(), as_dict=True)
SECRET = ECAlgorithm.to_jwk(KEY, as_dict=True)


@pytest.fixture(autouse=True)
def _robots(db: None) -> None:
    engine.apply(document(**ROBOTS))


def test_a_trust_is_taken_as_it_stands_and_exported_so() -> None:
    (line,) = engine.apply(document(trusts=[CONTRACT]))
    assert line.startswith("+ trusts ci@ci.example.org-")
    assert engine.apply(document(trusts=[CONTRACT])) == []
    assert engine.export()["trusts"] == [CONTRACT]
    assert engine.apply(engine.export(), prune=True) == []


def test_without_a_lifetime_it_is_a_quarter_of_an_hour() -> None:
    engine.apply(document(trusts=[{word: value for word, value in CONTRACT.items() if word != "lifetime"}]))
    (trust,) = trusts.configured(epoch.current(), ())
    assert trust.lifetime.total_seconds() == 900


def test_without_a_name_it_is_known_by_whom_it_trusts() -> None:
    engine.apply(document(trusts=[CONTRACT]))
    assert len(engine.apply(document(trusts=[{**CONTRACT, "lifetime": "1h"}]))) == 1
    assert Source.objects.count() == 1
    other = {**CONTRACT, "claims": {"repository": "corp/*"}}
    (line,) = engine.apply(document(trusts=[other]))
    assert line.startswith("+ trusts ci@ci.example.org-") and Source.objects.count() == 2
    (line,) = engine.apply(document(trusts=[other]), prune=True)
    assert line.startswith("- trusts") and engine.export()["trusts"] == [other]


def test_with_a_name_it_is_changed_in_place() -> None:
    named = {"name": "pipelines", **CONTRACT}
    assert engine.apply(document(trusts=[named])) == ["+ trusts pipelines"]
    assert engine.apply(document(trusts=[{**named, "robot": "ci", "audience": "other"}])) == [
        '~ trusts pipelines: audience "entrepot" -> "other"'
    ]
    assert engine.apply(document(trusts=[]), prune=True) == ["- trusts pipelines"]


def test_the_name_that_was_made_for_it_may_be_written_too() -> None:
    engine.apply(document(trusts=[CONTRACT]))
    name = Source.objects.get().name
    assert engine.apply(document(trusts=[{"name": name, **CONTRACT}])) == []
    with pytest.raises(Problem, match="named twice"):
        engine.apply(document(trusts=[CONTRACT, {"name": name, **CONTRACT}]))


def test_keys_that_are_written_out_need_no_address() -> None:
    item = {**CONTRACT, "issuer": "kubernetes/serviceaccount", "keys": {"keys": [{**PUBLIC, "kid": "a"}]}}
    engine.apply(document(trusts=[item]))
    assert engine.export()["trusts"] == [item]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"claims": {}}, "claims with patterns are expected"),
        ({"claims": []}, "claims with patterns are expected"),
        ({"claims": {"repository": "**"}}, "every job of the issuer"),
        ({"claims": {"repository": "**", "ref": "*", "sub": "*/*:?"}}, "every job of the issuer"),
        ({"claims": {"repository": ["corp/*", "**"]}}, "every job of the issuer"),
        ({"claims": {"repository": []}}, "every job of the issuer"),
        ({"claims": {"a": {"b": {"c": {"d": {"e": {"f": "x"}}}}}}}, "claims with patterns are expected"),
        ({"claims": {"kubernetes.io": {}}}, "claims with patterns are expected"),
        ({"claims": {"aud": "entrepot"}}, "aud is no claim by which jobs differ"),
        ({"claims": {"repository": None}}, "repository: text, a whole number"),
        ({"claims": {"repository": 1.5}}, "repository: text, a whole number"),
        ({"claims": {"repository": [["a"]]}}, "repository: text, a whole number"),
        ({"claims": {"repository": ""}}, "repository: text, a whole number"),
        ({"claims": {"repository": "a\0"}}, "control characters"),
        ({"claims": {"a\0": "b"}}, "the name of a claim"),
        ({"claims": {1: "b"}}, "the name of a claim"),
        ({"claims": {str(n): "a" for n in range(101)}}, "100 patterns"),
        ({"lifetime": "25h"}, "1s to 1d"),
        ({"lifetime": "0s"}, "1s to 1d"),
        ({"lifetime": 900}, "text is expected"),
        ({"issuer": "http://ci.example.org"}, "it is https://"),
        ({"issuer": "https://user@ci.example.org"}, "it is https://"),
        ({"issuer": "https://ci.example.org?x"}, "it is https://"),
        ({"issuer": "kubernetes/serviceaccount"}, "write its keys"),
        ({"scopes": []}, "empty"),
        ({"scopes": ["artifact:read"]}, "says no repositories"),
        ({"keys": {"keys": []}}, "JSON Web Key Set"),
        ({"keys": {"keys": [SECRET]}}, "a key is private"),
        ({"keys": {"keys": [{"kty": "oct", "k": "c2VjcmV0"}, PUBLIC]}}, "a key is private"),
        ({"keys": "https://ci.example.org/keys"}, "JSON Web Key Set"),
        ({"robot": "ann"}, "there is no robot ann"),
        ({"robot": "nobody"}, "there is no robot nobody"),
        ({"clams": {}}, "did you mean claims"),
        ({"audience": None}, "audience"),
        ({"name": "a\nb"}, "one line"),
        ({"name": "a" * 101}, "100 characters"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(change: dict[str, Any], said: str) -> None:
    before = everything()
    with pytest.raises(Problem) as problem:
        engine.apply(document(trusts=[{**CONTRACT, **change}]))
    assert said in problem.value.detail
    assert everything() == before


@pytest.mark.parametrize("missing", ["issuer", "audience", "claims", "robot"])
def test_what_it_needs_is_asked_for(missing: str) -> None:
    with pytest.raises(Problem, match=f"{missing}: "):
        engine.apply(document(trusts=[{word: value for word, value in CONTRACT.items() if word != missing}]))


@pytest.mark.parametrize("users", [[{"name": "ci"}], []], ids=["a person now", "gone"])
def test_a_robot_that_a_trust_names_stays_one(users: list[dict[str, Any]]) -> None:
    engine.apply(document(trusts=[CONTRACT]))
    before = everything()
    with pytest.raises(Conflict) as problem:
        engine.apply(document(users=users), prune=True)
    assert problem.value.rule == "trusts.robot"
    assert everything() == before
    engine.apply(document(users=users, trusts=[]), prune=True)


def test_what_it_gave_ends_when_it_changes_or_goes() -> None:
    def given() -> Token:
        token, _ = tokens.give(User.objects.get(username="ci"), "job", tokens.timezone.now() + trusts.LIFETIME, None, "t", {})
        return token

    engine.apply(document(trusts=[{"name": "t", **CONTRACT}]))
    token, own = given(), tokens.create(User.objects.get(username="ci"))[0]
    engine.apply(document(trusts=[{"name": "t", **CONTRACT, "lifetime": "1m"}]))
    assert tokens.active(Token.objects.filter(pk=token.pk)).exists()
    engine.apply(document(trusts=[{"name": "t", **CONTRACT, "audience": "other"}]))
    assert not tokens.active(Token.objects.filter(pk=token.pk)).exists()
    token = given()
    engine.apply(document(trusts=[]), prune=True)
    assert not tokens.active(Token.objects.filter(pk=token.pk)).exists()
    assert tokens.active(Token.objects.filter(pk=own.pk)).exists()
