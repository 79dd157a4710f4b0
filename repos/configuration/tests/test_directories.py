"""The section `directories`, and that docs/directories.md says what is so."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from accounts.directories import settings
from accounts.epoch import current
from accounts.models import ExternalIdentity, Source, User
from problems import Malformed
from repos.configuration import engine
from repos.configuration.directories import DirectoryGroups, DirectoryItem, DirectoryUsers
from repos.configuration.tests.parts import document, manager

pytest.importorskip("ldap", reason="python-ldap is not installed, so there is no LDAP")
pytestmark = pytest.mark.django_db
MANUAL = (Path(__file__).resolve().parents[3] / "docs" / "directories.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", MANUAL, re.DOTALL)
SHORT: dict[str, Any] = {"name": "corp", "url": "ldaps://ldap.example.org", "users": {"base": "ou=people,dc=example,dc=org"}}


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_each_example_is_taken_and_comes_back_as_it_is(
    file: Callable[..., str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setenv("LDAP_PASSWORD", "x")
    example = engine.load([file(EXAMPLES[number])])
    assert engine.apply(example)
    assert engine.apply(example) == []
    assert engine.export()["directories"] == example["directories"]
    assert "sealed" not in str(engine.export())


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3


def test_every_key_is_in_a_table_of_the_manual() -> None:
    words = {word for item in (DirectoryItem, DirectoryUsers, DirectoryGroups) for word in item().fields}
    assert not [word for word in sorted(words) if f"\n| `{word}` |" not in MANUAL]


def test_the_manual_tells_the_defaults() -> None:
    for text in (
        settings.USER_FILTER,
        settings.DISABLED,
        settings.GROUP_FILTER,
        settings.TIMEOUT,
        *settings.IDS,
        *settings.MEMBERS,
    ):
        assert text.replace("|", "\\|") in MANUAL or text in MANUAL, text


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"url": "https://ldap.example.org"}, "no address of a directory"),
        ({"url": "ldaps://"}, "no address of a directory"),
        ({"url": "ldaps://a@ldap.example.org"}, "no address of a directory"),
        ({"url": "ldaps://ldap.example.org/dc=x"}, "no address of a directory"),
        ({"url": "ldaps://ldap.example.org:port"}, "no address of a directory"),
        ({"url": "ldap://ldap.example.org"}, "for all to read"),
        ({"replicas": ["ldap://other.example.org"]}, "for all to read"),
        ({"start_tls": True}, "TLS from the start"),
        ({"bind_dn": "cn=x"}, "given together"),
        ({"bind_password": "x"}, "given together"),
        ({"timeout": "0s"}, "1s to 30s"),
        ({"timeout": "1h"}, "1s to 30s"),
        ({"name": "a:b"}, "lower-case letters"),
        ({"users": {}}, "users.base"),
        ({"users": {"base": "x", "filter": "(uid=ann)"}}, "stands in it as %(user)s"),
        ({"users": {"base": "x", "filter": "uid=%(user)s"}}, "is no filter"),
        ({"users": {"base": "x", "filter": "(uid=%(user)s))(x=y"}}, "is no filter"),
        ({"users": {"base": "x", "disabled": "(a=b)(c=d)"}}, "is no filter"),
        ({"groups": {}}, "groups.base"),
        ({"groups": {"base": "x", "filtre": "(a=b)"}}, "did you mean filter?"),
    ],
)
def test_what_could_not_work_is_refused_with_what_to_write(more: dict[str, Any], told: str) -> None:
    with pytest.raises(Malformed, match=re.escape(told)):
        engine.apply(document(directories=[{**SHORT, **more}]))
    assert not Source.objects.exists()


def test_without_tls_only_this_machine_is_asked() -> None:
    assert engine.apply(document(directories=[{**SHORT, "url": "ldap://127.0.0.1:3890"}]))


def test_without_python_ldap_it_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ldap", None)
    with pytest.raises(Malformed, match="libldap2-dev") as caught:
        engine.apply(document(directories=[SHORT]))
    assert caught.value.rule == "directory.library"
    assert engine.apply(document(directories=[])) == []


def test_a_provider_and_a_directory_do_not_share_a_name() -> None:
    Source.objects.create(kind=Source.Kind.PROVIDER, name="corp", settings={})
    with pytest.raises(Malformed, match="take another") as caught:
        engine.apply(document(directories=[SHORT]))
    assert caught.value.rule == "directory.name"


def test_whom_a_removed_directory_vouched_for_may_do_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    manager()
    engine.apply(document(directories=[SHORT]))
    user = User.objects.create(username="ann")
    ExternalIdentity.objects.create(
        user=user, source="corp", issuer="directory:corp", subject="1", seen_at="2026-01-01T00:00:00Z"
    )
    assert engine.apply(document(directories=[]), prune=True) == ["- directories corp"]
    user.refresh_from_db()
    assert (user.is_active, user.suspended) == (False, True)


def test_the_name_is_the_attribute_that_the_filter_compares() -> None:
    for filter, name in {
        "(uid=%(user)s)": "uid",
        "(&(objectClass=user)(sAMAccountName=%(user)s))": "sAMAccountName",
        "(|(cn=%(user)s)(mail=%(user)s))": "cn",
        "(mail=%(user)s@example.org)": "uid",
    }.items():
        engine.apply(document(directories=[{**SHORT, "users": {"base": "x", "filter": filter}}]))
        assert settings.configured(current())["corp"].users.name == name
