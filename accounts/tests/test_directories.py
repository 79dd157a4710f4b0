"""Names and values of directories, as they are compared. All else is proved against a real one (tests/flows)."""

from __future__ import annotations

import uuid

import pytest
from django.contrib.auth.models import Group

from accounts import epoch
from accounts.directories import lookup, names
from accounts.directories.settings import IDS, Users
from accounts.models import ExternalName

pytest.importorskip("ldap", reason="python-ldap is not installed, so there is no LDAP")


@pytest.mark.parametrize(
    "spelling",
    [
        "cn=team a,ou=groups,dc=example,dc=org", "CN=Team A, OU=Groups, DC=example, DC=org",
        "cn = team  a ,ou=groups,dc=EXAMPLE,dc=org",
        "cn=team\\20a,ou=groups,dc=example,dc=org",
    ],
)  # fmt: skip
def test_a_distinguished_name_is_one_however_it_is_spelled(spelling: str) -> None:
    assert names.folded(spelling) == names.folded("cn=team a,ou=groups,dc=example,dc=org") != ""


@pytest.mark.parametrize(
    "other", ["cn=team,a,ou=groups,dc=example,dc=org", "cn=team\\2c a,ou=groups,dc=example,dc=org", "cn=team a,dc=example,dc=org",
              "team a", "", "cn=team a\\,ou=groups,dc=example,dc=org"],
)  # fmt: skip
def test_another_name_is_another(other: str) -> None:
    assert names.folded(other) != names.folded("cn=team a,ou=groups,dc=example,dc=org")


@pytest.mark.django_db
def test_a_group_is_called_as_the_configuration_spells_it_else_in_one_spelling() -> None:
    group = Group.objects.create(name="g")
    for name in ("corp:CN=Team-A, DC=org", "corp:cn=team-a,dc=org", "other:cn=team-a,dc=org", "corp:no distinguished name"):
        ExternalName.objects.create(group=group, name=name)
    epoch.lock()
    found = names.external("corp", ["cn=team-A,dc=org", "cn=Team-B, dc=org"], epoch.current() + 1)
    assert found == {"corp:CN=Team-A, DC=org", "corp:cn=team-a,dc=org", "corp:cn=team-b,dc=org"}


def test_what_is_typed_stands_for_itself_in_a_filter() -> None:
    for text in ("*", "(", ")", "\\", "\0", "*)(uid=*"):
        assert not set("*()\0") & set(lookup.escaped(text))


def test_a_binary_objectguid_is_asked_for_as_it_is_stored() -> None:
    users = Users(base="x", filter="(a=%(user)s)", name="a", email="mail", ids=IDS, disabled="(x=y)")
    guid = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
    asked = lookup._any_of(users, [str(guid)])
    assert f"(entryUUID={guid})" in asked
    assert r"(objectGUID=\33\22\11\00\55\44\77\66\88\99\aa\bb\cc\dd\ee\ff)" in asked
    assert lookup._text("objectGUID", guid.bytes_le) == str(guid)


@pytest.mark.parametrize("value", [b"\x01\x05\x00\x00\xf1", b"\xf1\xf2", b"a\0b", b"x" * 256, b""])
def test_what_cannot_be_kept_whole_is_no_id_of_anybody(value: bytes) -> None:
    """As text `\\xf1` and `\\xf2` would be one, and so would the people."""
    assert lookup._text("objectSid", value) == ""
