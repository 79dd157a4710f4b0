"""The sections `roles`, `groups`, `users` and `grants`."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from math import prod
from typing import Any

from django.contrib.auth.models import Group
from django.core.validators import EmailValidator, RegexValidator
from django.db.models import Q
from rest_framework import serializers

from accounts import grants, people, permissions
from accounts.grants import Entry, Kind
from accounts.models import ExternalIdentity, ExternalName, Role, User
from accounts.permissions import ANONYMOUS_USER, AUTHENTICATED_GROUP, BUILTIN_ROLES
from problems import Malformed
from repos.configuration.fields import ONE_LINE, FlagField, Item, Secret, SecretField, SetField, TextField, names, patterns
from repos.configuration.section import Document, Section, named, shown, without_defaults

SEED_PERMISSIONS = {"data:read": ("artifact:read",), "data:write": ("artifact:write", "artifact:overwrite")}
"""Words that are taken too, and what they stand for."""
MOST_GRANTS = 10_000
"""How many grants an item may stand for: subjects times repositories times paths."""
Names = tuple[str, ...]
NAME = RegexValidator(r"\A[\w.@+-]+\Z", "a name has letters, digits and . @ + - _")


class RoleItem(Item):
    name = TextField(max_length=90, validators=[ONE_LINE])
    permissions = SetField(child=TextField(), required=False)

    def validate_permissions(self, words: list[str]) -> list[str]:
        try:
            return permissions.checked(found for word in words for found in SEED_PERMISSIONS.get(word, (word,)))
        except Malformed as problem:
            raise serializers.ValidationError(problem.detail) from None


class Roles(Section):
    name = "roles"
    permission = "user:manage"
    item = RoleItem

    def stored(self, identity: str | None = None) -> dict[str, Document]:
        return {
            role.name: without_defaults({"name": role.name, "permissions": sorted(role.permissions)})
            for role in named(Role.objects, name=identity)
        }

    def built_in(self) -> frozenset[str]:
        return frozenset(BUILTIN_ROLES)

    def write(self, item: Document, before: Document | None, actor: str) -> None:
        role = Role.objects.filter(name=item["name"]).first() or Role(name=item["name"])
        role.permissions = item.get("permissions", [])
        role.save()

    def remove(self, item: Document) -> None:
        Role.objects.get(name=item["name"]).delete()


class GroupItem(Item):
    name = TextField(max_length=150, validators=[ONE_LINE])
    external = names(required=False)

    def validate_name(self, name: str) -> str:
        if name == AUTHENTICATED_GROUP:
            raise serializers.ValidationError(f"{name} stands for everybody who is signed in; grants say `authenticated: true`")
        return name


class Groups(Section):
    name = "groups"
    permission = "user:manage"
    item = GroupItem

    def stored(self, identity: str | None = None) -> dict[str, Document]:
        groups = named(Group.objects, name=identity).prefetch_related("external_names")
        return {
            group.name: without_defaults({"name": group.name, "external": sorted(row.name for row in group.external_names.all())})
            for group in groups
        }

    def built_in(self) -> frozenset[str]:
        return frozenset({AUTHENTICATED_GROUP})

    def write(self, item: Document, before: Document | None, actor: str) -> None:
        group, _ = Group.objects.get_or_create(name=item["name"])
        ExternalName.objects.filter(group=group).delete()
        ExternalName.objects.bulk_create([ExternalName(group=group, name=name) for name in item.get("external", ())])

    def remove(self, item: Document) -> None:
        Group.objects.get(name=item["name"]).delete()


class IdentityItem(Item):
    source = TextField(max_length=100)  # type: ignore[assignment]  # a key of the item, which shadows what fields have
    subject = TextField(max_length=people.LONGEST_SUBJECT)


class UserItem(Item):
    name = TextField(max_length=150, validators=[NAME])
    robot = FlagField(required=False)
    email = TextField(max_length=254, validators=[EmailValidator()], required=False, allow_blank=True)
    inactive = FlagField(required=False)
    groups = names(required=False)
    password = SecretField(required=False)
    identities = serializers.ListField(child=IdentityItem(), required=False, max_length=20)

    def validate_name(self, name: str) -> str:
        if name == ANONYMOUS_USER:
            raise serializers.ValidationError(f"{name} stands for everybody; grants say `anonymous: true`")
        return signed_in_as(name)

    def validate_groups(self, groups: list[str]) -> list[str]:
        if AUTHENTICATED_GROUP in groups:
            raise serializers.ValidationError(f"everybody who is signed in is in {AUTHENTICATED_GROUP} already; leave it out")
        return groups

    def validate_identities(self, said: list[dict[str, str]]) -> list[dict[str, str]]:
        return _identities({(one["source"], one["subject"]) for one in said})

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        for word in ("password", "identities"):
            if attrs.get("robot") and word in attrs:
                raise serializers.ValidationError({word: ["a robot has none; make a token for it"]})
        return attrs


class Users(Section):
    """Passwords go in and never come out: neither `differs` nor `export` knows of them.

    Of whom a source outside vouches for, it says the e-mail address, and `identities` that are not named stay.
    """

    name = "users"
    permission = "user:manage"
    item = UserItem

    def stored(self, identity: str | None = None) -> dict[str, Document]:
        users = named(User.objects, username=identity).prefetch_related("groups")
        links = people.links(identity)
        return {
            user.username: without_defaults(
                {
                    "name": user.username,
                    "robot": user.robot,
                    "email": "" if user.username in links else user.email,
                    "inactive": not user.is_active and not user.suspended,
                    "groups": sorted(group.name for group in user.groups.all()),
                    "identities": _identities(links.get(user.username, ())),
                }
            )
            for user in users
        }

    def built_in(self) -> frozenset[str]:
        """Also those who come from a source outside, which says who there is."""
        return frozenset({ANONYMOUS_USER, *ExternalIdentity.objects.values_list("user__username", flat=True)})

    def differs(self, before: Document, after: Document) -> list[str]:
        unsaid = {"password", *({"identities"} - after.keys()), *({"email"} if "identities" in before else ())}
        return [key for key in super().differs(before, after) if key not in unsaid]

    def secret_differs(self, before: Document, after: Document) -> bool:
        password: Secret | None = after.get("password")
        if password is None or not password.value:
            return False
        return not User.objects.get(username=after["name"]).check_password(password.value)

    def told(self, item: Document) -> Document:
        return {key: value for key, value in super().told(item).items() if key != "password"}

    def write(self, item: Document, before: Document | None, actor: str) -> None:
        user = User.objects.filter(username=item["name"]).first() or User(username=item["name"])
        user.robot = bool(item.get("robot"))
        if not (before and "identities" in before):
            user.email = item.get("email", "")
        if item.get("inactive") or not user.suspended:
            user.is_active, user.suspended = not item.get("inactive"), False
        if user.robot:
            user.set_unusable_password()
        else:
            self._set_password(user, item.get("password"), new=before is None)
        user.save()
        user.groups.set(_groups(item))
        if "identities" in item:
            people.link(user, {(one["source"], one["subject"]) for one in item["identities"]})

    def _set_password(self, user: User, password: Secret | None, *, new: bool) -> None:
        if password and password.value:
            if not user.check_password(password.value):
                user.set_password(password.value)
        elif password and new:
            raise Malformed(
                f"users: {user.username}: there is no value for {password.env}; set this environment variable where `apply` runs,"
                " or send the password itself",
                rule="secret.unset",
            )
        elif new:
            user.set_unusable_password()

    def remove(self, item: Document) -> None:
        User.objects.get(username=item["name"]).delete()

    def export(self) -> Any:
        """Who comes by signing in at a source is left out, but where something is said of them here."""
        left_out = self.built_in() - {entry.name for entry in grants.entries() if entry.kind == Kind.USER}
        return [
            shown(item)
            for name, item in sorted(self.stored().items())
            if name not in left_out or (name != ANONYMOUS_USER and item.keys() & {"groups", "inactive", "robot"})
        ]


def _identities(links: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"source": source, "subject": subject} for source, subject in sorted(links)]


def signed_in_as(name: str) -> str:
    """A user's name in the one form in which sign-in looks for it."""
    return unicodedata.normalize("NFKC", name)


def somebody_manages_users() -> bool:
    """Whether anybody who can sign in has user:manage, and so can put things right."""
    managing = {role.name for role in Role.objects.all() if "user:manage" in role.permissions}
    return any(entry.role in managing and not entry.repository and _somebody(entry) for entry in grants.entries())


def _groups(item: Document) -> list[Group]:
    wanted = item.get("groups", [])
    found = {group.name: group for group in Group.objects.filter(name__in=wanted)}
    if missing := [name for name in wanted if name not in found]:
        raise Malformed(f"users: {item['name']}: there is no group {missing[0]}; list it under groups", rule="users.groups")
    return list(found.values())


def _somebody(entry: Entry) -> bool:
    active = User.objects.filter(is_active=True).exclude(username=ANONYMOUS_USER)
    if entry.kind == Kind.USER:
        return active.filter(username=entry.name).exists()
    if entry.kind == Kind.GROUP:
        external = ExternalName.objects.filter(group__name=entry.name).values("name")
        return active.filter(Q(groups__name=entry.name) | Q(external_identities__memberships__name__in=external)).exists()
    return entry.kind == Kind.AUTHENTICATED and active.exists()


class GrantItem(Item):
    role = TextField(max_length=90)
    users = names(required=False)
    groups = names(required=False)
    authenticated = FlagField(required=False)
    anonymous = FlagField(required=False)
    repositories = patterns(allow_empty=False)
    paths = patterns(allow_empty=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if not any(attrs.get(word) for word in ("users", "groups", "authenticated", "anonymous")):
            raise serializers.ValidationError("a grant says to whom: users, groups, authenticated: true or anonymous: true")
        if attrs.get("paths") and not attrs.get("repositories"):
            raise serializers.ValidationError({"paths": ["a grant on paths says on which repositories"]})
        return attrs


class Grants(Section):
    """An item stands for as many stored grants as it names subjects, repositories and paths; a stored grant is its own name."""

    name = "grants"
    permission = "user:manage"
    item = GrantItem
    identity_key = "role"

    def identity(self, item: Document) -> str:
        return describe_entry(item["entry"])

    def repeated(self, identity: str) -> None:
        """Two items may overlap."""

    def expand(self, item: Document) -> list[Document]:
        subjects = [
            *((Kind.USER, signed_in_as(name)) for name in item.get("users", ())),
            *((Kind.GROUP, name) for name in item.get("groups", ())),
            *((kind, "") for kind in (Kind.AUTHENTICATED, Kind.ANONYMOUS) if item.get(kind)),
        ]
        repositories, paths = item.get("repositories", [""]), item.get("paths", [""])
        if (stored := len(subjects) * len(repositories) * len(paths)) > MOST_GRANTS:
            raise Malformed(
                f"grants: an item of {item['role']} stands for {stored} grants and {MOST_GRANTS} are the most; name a group,"
                " or patterns, or write several items",
                rule="grants.many",
            )
        entries = {
            grants.checked(Entry(item["role"], kind, name, repository, path))
            for kind, name in subjects
            for repository in repositories
            for path in paths
        }
        return [{"entry": entry} for entry in sorted(entries)]

    def stored(self, identity: str | None = None) -> dict[str, Document]:
        found = {describe_entry(entry): {"entry": entry} for entry in grants.entries()}
        return found if identity is None else {key: item for key, item in found.items() if key == identity}

    def told(self, item: Document) -> Document:
        return grant_document(item["entry"])

    def write(self, item: Document, before: Document | None, actor: str) -> None:
        grants.add(item["entry"])

    def remove(self, item: Document) -> None:
        grants.remove(item["entry"])

    def export(self) -> Any:
        """As few items as tell the same: repositories that have the same paths together, then subjects that have the same."""
        paths: dict[tuple[str, str, str, str], set[str]] = defaultdict(set)
        for entry in grants.entries():
            paths[entry[:4]].add(entry.path or "**")
        repositories: dict[tuple[str, str, str, tuple[str, ...]], list[str]] = defaultdict(list)
        for (role, kind, name, repository), found in sorted(paths.items()):
            repositories[role, kind, name, tuple(sorted(found))].append(repository)
        items: dict[tuple[str, Names, Names], list[tuple[str, str]]] = defaultdict(list)
        for (role, kind, name, found_paths), keys in sorted(repositories.items()):
            for where in [[""]] * ("" in keys) + [[key for key in keys if key]]:
                if where:
                    items[role, tuple(where), found_paths].append((kind, name))
        return [
            _grant_document(role, *part)
            for (role, where, found_paths), subjects in sorted(items.items())
            for part in _parts(tuple(subjects), where, found_paths)
        ]


def _parts(*lists: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """All combinations of what is in the lists, as lists of which none stand for more than MOST_GRANTS."""
    if prod(map(len, lists)) <= MOST_GRANTS:
        yield lists
        return
    longest = max(range(len(lists)), key=lambda n: len(lists[n]))
    half = len(lists[longest]) // 2
    for part in (lists[longest][:half], lists[longest][half:]):
        yield from _parts(*lists[:longest], part, *lists[longest + 1 :])


def _grant_document(role: str, subjects: tuple[tuple[str, str], ...], repositories: Names, paths: Names) -> Document:
    kinds = {kind for kind, _ in subjects}
    return without_defaults(
        {
            "role": role,
            "users": [name for kind, name in subjects if kind == Kind.USER],
            "groups": [name for kind, name in subjects if kind == Kind.GROUP],
            "authenticated": Kind.AUTHENTICATED in kinds,
            "anonymous": Kind.ANONYMOUS in kinds,
            "repositories": [key for key in repositories if key],
            "paths": [] if paths == ("**",) else list(paths),
        }
    )


def grant_document(entry: Entry) -> Document:
    """A stored grant as an item that stands for it alone."""
    return _grant_document(entry.role, ((entry.kind, entry.name),), (entry.repository,), (entry.path or "**",))


def describe_entry(entry: Entry) -> str:
    """A stored grant in words: `reader to group team-a on go-* at corp.example/**`."""
    to = f"{entry.kind} {_word(entry.name)}" if entry.name else entry.kind
    on = f" on {_word(entry.repository)}" if entry.repository else ""
    at = f" at {_word(entry.path)}" if entry.path else ""
    return f"{_word(entry.role)} to {to}{on}{at}"


def _word(name: str) -> str:
    """A name, quoted where it could be taken for several words: no two grants have the same description."""
    return name if re.fullmatch(r'[^\s"]+', name) else json.dumps(name, ensure_ascii=False)
