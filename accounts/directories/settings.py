"""What the configuration says of each directory."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from accounts import sources
from accounts.epoch import Cache
from accounts.models import Source
from basics.durations import duration
from basics.sealing import unseal

USER = "%(user)s"
"""What stands in a filter for the name that somebody signs in by."""
USER_FILTER = f"(uid={USER})"
DISABLED = "(|(userAccountControl:1.2.840.113556.1.4.803:=2)(nsAccountLock=TRUE)(pwdAccountLockedTime=000001010000Z))"
"""Accounts that an administrator has disabled: in Active Directory (the bit ACCOUNTDISABLE), 389 Directory Server, OpenLDAP."""
IDS = ("entryUUID", "objectGUID")
"""What is never given to another entry: RFC 4530, and Active Directory."""
GROUP_FILTER = "(|(objectClass=groupOfNames)(objectClass=groupOfUniqueNames)(objectClass=posixGroup)(objectClass=group))"
MEMBERS = ("member", "uniqueMember", "memberUid")
MEMBER_NAMES = frozenset({"memberuid"})
"""Attributes of groups that hold names of users, not distinguished names (RFC 2307)."""
TIMEOUT = "5s"


@dataclass(frozen=True)
class Users:
    base: str
    filter: str
    name: str
    email: str
    ids: tuple[str, ...]
    disabled: str


@dataclass(frozen=True)
class Groups:
    base: str
    filter: str
    members: tuple[str, ...]
    nested: bool


@dataclass(frozen=True)
class Directory:
    """`urls`: replicas of one directory, asked in this order. `timeout`: seconds for a connection, and for each answer.

    `mark`: another one for other settings.
    """

    name: str
    mark: str
    urls: tuple[str, ...]
    start_tls: bool
    ca: str
    timeout: float
    bind_dn: str
    users: Users
    groups: Groups | None
    _password: str = field(repr=False)

    @property
    def issuer(self) -> str:
        """See `ExternalIdentity`."""
        return sources.of_directory(self.name)

    def bind_password(self) -> str:
        return unseal(self._password) if self._password else ""


def configured(epoch: int) -> Mapping[str, Directory]:
    """The directories by name, in the order of the names."""
    found = _known.get(epoch, None)
    if found is None:
        documents = sources.configured(Source.Kind.DIRECTORY, epoch)
        found = _known.put(epoch, None, {name: _directory(name, document) for name, document in documents.items()})
    return found


def compared_with(filter: str) -> str:
    """The attribute that a filter compares with the name that somebody signs in by."""
    match = re.search(rf"\(([\w.;-]+)={re.escape(USER)}\)", filter)
    return match[1] if match else "uid"


def _directory(name: str, said: Mapping[str, Any]) -> Directory:
    return Directory(
        name=name,
        mark=hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest(),
        urls=(said["url"], *said.get("replicas", ())),
        start_tls=said.get("start_tls", False),
        ca=said.get("ca", ""),
        timeout=duration(said.get("timeout", TIMEOUT)).total_seconds(),
        bind_dn=said.get("bind_dn", ""),
        users=_users(said["users"]),
        groups=_groups(said["groups"]) if "groups" in said else None,
        _password=said["bind_password"]["sealed"] if "bind_password" in said else "",
    )


def _users(said: Mapping[str, Any]) -> Users:
    filter = said.get("filter", USER_FILTER)
    return Users(
        base=said["base"],
        filter=filter,
        name=said.get("name") or compared_with(filter),
        email=said.get("email", "mail"),
        ids=(said["id"],) if "id" in said else IDS,
        disabled=said.get("disabled", DISABLED),
    )


def _groups(said: Mapping[str, Any]) -> Groups:
    members = (said["member"],) if "member" in said else MEMBERS
    return Groups(said["base"], said.get("filter", GROUP_FILTER), members, said.get("nested", False))


_known: Cache[Mapping[str, Directory]] = Cache(1)
