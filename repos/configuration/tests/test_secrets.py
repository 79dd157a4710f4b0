"""Secrets go in, are sealed, and are never told."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import override_settings

from accounts.models import User
from basics import sealing
from problems import Malformed, Problem
from repos.catalogue import load_one
from repos.configuration import engine
from repos.configuration.tests.parts import SECRETS, document, everything, local, remote, whole
from repos.models import Change, Repository

pytestmark = pytest.mark.django_db

VALUE = "hunter2"
NAME = "MIRROR_TOKEN"
WANTED = document(repositories=[remote("far", upstream={"token": {"env": NAME}})])


def upstreams(key: str = "far") -> list[tuple[str, str]]:
    """What is sent: passwords and tokens, opened."""
    return [(upstream.password, upstream.token) for upstream in load_one(Repository.objects.get(key=key)).upstreams]


def rows() -> str:
    return str(everything()) + str([list(Change.objects.values_list("detail")), list(Repository.objects.values_list("settings"))])


@pytest.fixture(autouse=True)
def _set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, VALUE)


def test_a_secret_is_sealed_and_opened_for_its_upstream() -> None:
    engine.apply(WANTED)
    assert VALUE not in rows()
    assert upstreams() == [("", VALUE)]
    assert Change.objects.get().detail["upstreams"][0]["token"] == {"env": NAME}
    assert engine.export()["repositories"] == WANTED["repositories"]
    assert engine.apply(WANTED) == []


def test_no_secret_of_a_whole_document_is_in_any_row_or_line(secrets: dict[str, str]) -> None:
    said = str(engine.diff(whole())) + str(engine.apply(whole())) + str(engine.export()) + rows()
    assert not [value for value in secrets.values() if value in said]


def test_an_unset_variable_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for empty in (False, True):
        monkeypatch.setenv(NAME, "") if empty else monkeypatch.delenv(NAME)
        with pytest.raises(Malformed, match=f"far: there is no value for {NAME}") as problem:
            engine.apply(WANTED)
        assert problem.value.rule == "secret.unset"
    assert not Repository.objects.exists()


def test_an_unset_variable_keeps_what_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    engine.apply(WANTED)
    monkeypatch.delenv(NAME)
    assert engine.apply(WANTED) == []
    moved = remote("far", upstream={"url": "https://MIRROR.example.org:443/go", "token": {"env": NAME}})
    assert len(engine.apply(document(repositories=[moved]))) == 1
    assert upstreams() == [("", VALUE)]


@pytest.mark.parametrize("url", ["http://mirror.example.org", "https://mirror.example.org:8443", "https://other.example.org"])
def test_a_stored_secret_is_never_sent_to_another_origin(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    engine.apply(WANTED)
    monkeypatch.delenv(NAME)
    moved = document(repositories=[remote("far", upstream={"url": url, "token": {"env": NAME}})])
    with pytest.raises(Malformed, match=f"{NAME} is kept for the host it was given for") as problem:
        engine.apply(moved)
    assert problem.value.rule == "secret.origin"
    monkeypatch.setenv(NAME, "another")
    engine.apply(moved)
    assert upstreams() == [("", "another")]


def test_an_unset_variable_of_another_name_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    engine.apply(WANTED)
    with pytest.raises(Malformed, match="no value for OTHER_TOKEN"):
        engine.apply(document(repositories=[remote("far", upstream={"token": {"env": "OTHER_TOKEN"}})]))
    assert upstreams() == [("", VALUE)]


def test_a_secret_moves_with_its_upstream(monkeypatch: pytest.MonkeyPatch) -> None:
    engine.apply(WANTED)
    monkeypatch.delenv(NAME)
    both = remote("far")
    both["upstreams"] = [{"url": "https://first.example.org"}, {"url": "https://mirror.example.org", "token": {"env": NAME}}]
    engine.apply(document(repositories=[both]))
    assert upstreams() == [("", ""), ("", VALUE)]


def test_a_changed_value_is_applied_and_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    engine.apply(WANTED)
    monkeypatch.setenv(NAME, "hunter3")
    assert engine.diff(WANTED) == []
    assert engine.apply(WANTED) == ["~ repositories far: a secret has another value"]
    assert upstreams() == [("", "hunter3")]
    assert engine.apply(WANTED) == []
    assert Change.objects.count() == 2


def test_a_name_that_changes_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    engine.apply(WANTED)
    monkeypatch.setenv("OTHER_TOKEN", VALUE)
    other = document(repositories=[remote("far", upstream={"token": {"env": "OTHER_TOKEN"}})])
    (line,) = engine.diff(other)
    assert NAME in line
    assert "OTHER_TOKEN" in line
    assert VALUE not in line


def test_a_literal_secret_has_a_name_when_it_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    literal = document(repositories=[remote("far-2", upstream={"username": "u", "password": "literal-hunter"})])
    assert engine.apply(literal) == ["+ repositories far-2"]
    assert engine.apply(literal) == []
    exported = engine.export()
    assert exported["repositories"][0]["upstreams"][0]["password"] == {"env": "ENTREPOT_SECRET_FAR_2_PASSWORD"}
    assert "literal-hunter" not in rows()
    assert engine.apply(exported, prune=True) == []
    monkeypatch.setenv("ENTREPOT_SECRET_FAR_2_PASSWORD", "literal-hunter")
    Repository.objects.all().delete()
    engine.apply(exported)
    assert upstreams("far-2") == [("literal-hunter", "")]


def test_each_literal_secret_has_a_name_of_its_own() -> None:
    repositories = [remote(key, upstream={"token": f"secret of {key}"}) for key in ("a-b", "a.b", "a_b")]
    repositories[0]["upstreams"] = [{"url": f"https://m{n}.example.org", "token": f"secret {n}"} for n in range(3)]
    engine.apply(document(repositories=repositories))
    names = [upstream["token"]["env"] for repository in engine.export()["repositories"] for upstream in repository["upstreams"]]
    assert len(set(names)) == 5
    assert names[:3] == [f"ENTREPOT_SECRET_A_B_TOKEN{end}" for end in ("", "_2", "_3")]
    assert upstreams("a-b") == [("", f"secret {n}") for n in range(3)]
    engine.apply(engine.export() | {"history": {"keep": "1d"}})
    assert upstreams("a-b") == [("", f"secret {n}") for n in range(3)]


def test_a_literal_secret_that_is_put_before_a_stored_one_takes_neither_its_name_nor_its_value() -> None:
    first, second, third = ({"url": f"https://mirror.example.org/{path}", "username": path} for path in "abc")
    given = remote("far")
    given["upstreams"] = [{**first, "password": "secret a"}]
    engine.apply(document(repositories=[given]))
    kept = engine.export()["repositories"][0]["upstreams"]
    given["upstreams"] = [{**second, "password": "secret b"}, {**third, "password": "secret c"}, *kept]
    engine.apply(document(repositories=[given]))
    assert engine.apply(document(repositories=[given])) == []
    exported = engine.export()["repositories"][0]
    assert len({upstream["password"]["env"] for upstream in exported["upstreams"]}) == 3
    engine.apply(document(repositories=[exported | {"description": "x"}]))
    assert upstreams() == [(f"secret {path}", "") for path in "bca"]


def test_a_secret_that_cannot_be_opened_is_mended_by_applying_it() -> None:
    engine.apply(WANTED)
    with override_settings(SECRET_KEY="another key, of more than thirty-two characters"):
        assert engine.diff(WANTED) == []
        assert engine.export()["repositories"] == WANTED["repositories"]
        assert engine.apply(WANTED) == ["~ repositories far: a secret has another value"]
        assert upstreams() == [("", VALUE)]


def test_a_secret_that_cannot_be_opened_is_not_stored_again(monkeypatch: pytest.MonkeyPatch) -> None:
    engine.apply(WANTED)
    monkeypatch.delenv(NAME)
    before = rows()
    with override_settings(SECRET_KEY="another key, of more than thirty-two characters"):
        changed = remote("far", upstream={"token": {"env": NAME}}, description="x")
        with pytest.raises(Malformed, match=f"no value for {NAME}"):
            engine.apply(document(repositories=[changed]))
    assert rows() == before


@pytest.mark.parametrize(
    ("upstream", "said"),
    [
        ({"token": "hunter2", "password": "hunter2", "username": "u"}, "not both"),
        ({"token": "hunter2", "username": "u"}, "not both"),
        ({"password": "hunter2"}, "username and password go together"),
        ({"username": "hunter2"}, "username and password go together"),
        ({"token": "hunter2\n"}, "control character"),
        ({"token": "hunter2\ud800"}, "no UTF-8 text"),
        ({"token": ["hunter2"]}, "a secret is written as {env:"),
        ({"token": {"env": "hunter 2"}}, "a secret is written as {env:"),
        ({"token": {"value": "hunter2"}}, "a secret is written as {env:"),
    ],
)
def test_secrets_that_cannot_be(upstream: dict[str, Any], said: str) -> None:
    with pytest.raises(Malformed) as problem:
        engine.apply(document(repositories=[remote("far", upstream=upstream)]))
    assert said in problem.value.reason
    assert "hunter" not in problem.value.reason


LEAKS = [
    "password: *hunter2",
    "password: !hunter2",
    "password: !!hunter2 x",
    "password: @hunter2",
    "password: `hunter2",
    "password: %hunter2",
    "password: {hunter2",
    "password: [hunter2",
    "password: 'hunter2",
    'password: "hunter2',
    'password: "hunter2\\q"',
    "password: hunter2: x",
    "password: hunter2\n  x: y",
    "password: hunter2\n x",
    "password: !!int hunter2",
    "password: >hunter2",
    "password: |hunter2",
    "password: hunter2\x07",
    "password: {env: hunter2 }}",
    "password: [hunter2]",
    "password: {hunter2: x}",
]


@pytest.mark.parametrize("line", LEAKS)
@pytest.mark.parametrize(
    "section", ["users:\n- name: ann\n  {}\n", "repositories:\n- key: a\n  upstreams:\n  - url: x\n    {}\n"]
)
def test_no_error_tells_what_stands_in_the_file(file: Callable[..., str], section: str, line: str) -> None:
    name = file(section.format(line))
    with pytest.raises(CommandError) as error:
        call_command("apply", name)
    assert "hunter2" not in str(error.value).replace("hunter2: unknown key", "")


def test_no_error_of_a_whole_document_tells_a_secret(secrets: dict[str, str]) -> None:
    engine.apply(whole())
    for spoilt in ({"history": []}, {"roles": [{"name": "reader"}]}, {"repositories": [local("go-proxy")]}):
        with pytest.raises(Problem) as problem:
            engine.apply(whole() | spoilt)
        assert not [value for value in SECRETS.values() if value in str(problem.value.reason)]


def test_secrets_are_not_in_what_python_shows() -> None:
    section = next(section for section in engine.SECTIONS if section.name == "repositories")
    assert VALUE not in repr(section.check(WANTED["repositories"], os.environ))
    engine.apply(WANTED)
    assert VALUE not in repr(section.stored())


def test_sealing_twice_gives_two_texts() -> None:
    assert sealing.seal(VALUE) != sealing.seal(VALUE)
    engine.apply(document(users=[{"name": "ann", "password": VALUE}, {"name": "bob", "password": VALUE}]))
    assert len(set(User.objects.filter(username__in=["ann", "bob"]).values_list("password", flat=True))) == 2
