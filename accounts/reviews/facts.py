"""All that reports are made of, in a few queries however much there is."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from django.db.models import Max

from accounts import belonging, grants, scopes
from accounts.belonging import Through
from accounts.globs import matches
from accounts.grants import Entry, Kind
from accounts.models import ExternalIdentity, RightUse, Role, Session, Token, User
from accounts.permissions import ANONYMOUS_USER

WILD = re.compile(r"[*?]")

SEEN_BY: tuple[tuple[Any, str], ...] = (
    (Token, "last_used_at"), (Session, "seen_at"), (ExternalIdentity, "seen_at"), (RightUse, "last_used_at")
)  # fmt: skip
"""Where it is kept when somebody was here."""

LastUses = dict[str, dict[str, datetime]]
"""By repository (empty: none) and permission, when it was used last."""


@dataclass
class Facts:
    """`owners`: of every repository its owner; empty: none, so the installation's."""

    owners: Mapping[str, str]
    now: datetime
    entries: list[Entry] = field(default_factory=grants.entries)
    _by_glob: dict[str, frozenset[str]] = field(default_factory=dict)
    _used_by_glob: dict[str, list[str]] = field(default_factory=dict)
    _of_subject: dict[tuple[str, str], LastUses] = field(default_factory=dict)

    @cached_property
    def roles(self) -> dict[str, frozenset[str]]:
        return {name: frozenset(words) for name, words in Role.objects.values_list("name", "permissions")}

    @cached_property
    def members(self) -> dict[str, dict[str, list[Through]]]:
        """Of each group that has a grant its users, and through what they are in it."""
        return belonging.memberships(entry.name for entry in self.entries if entry.kind == Kind.GROUP)

    @cached_property
    def uses(self) -> dict[str, LastUses]:
        """By user's name."""
        found: dict[str, LastUses] = defaultdict(lambda: defaultdict(dict))
        rows = RightUse.objects.values_list("user__username", "repository", "permission", "last_used_at")
        for name, repository, permission, at in rows.iterator():
            found[name or ANONYMOUS_USER][repository][permission] = at
        return found

    @cached_property
    def used(self) -> set[str]:
        """The repositories of which something was ever used."""
        return {repository for by_repository in self.uses.values() for repository in by_repository}

    @cached_property
    def tokens(self) -> list[Token]:
        """Those that are good for something."""
        alive = Token.objects.select_related("user").filter(revoked_at=None, user__is_active=True).order_by("pk")
        return [token for token in alive if token.expires_at is None or token.expires_at > self.now]

    @cached_property
    def seen(self) -> dict[str, datetime]:
        """When each active user was last here, in whatever way; else when they were made."""
        users = User.objects.filter(is_active=True).exclude(username=ANONYMOUS_USER)
        found = {name: max(filter(None, times)) for name, *times in users.values_list("username", "last_login", "date_joined")}
        for rows, column in SEEN_BY:
            latest = rows.objects.filter(user__isnull=False).order_by().values_list("user__username").annotate(Max(column))
            for name, at in latest:
                if name in found and at is not None:
                    found[name] = max(found[name], at)
        return found

    def reached(self, glob: str) -> frozenset[str]:
        """The repositories that there are and that a grant reaches by its glob."""
        if glob not in self._by_glob:
            self._by_glob[glob] = frozenset(_matching(glob, self.owners))
        return self._by_glob[glob]

    def last_used(self, entry: Entry, among: frozenset[str] | None) -> datetime | None:
        """When somebody last used what a grant gives them, on repositories `among` these; None: on any."""
        permissions, uses = self.roles.get(entry.role, frozenset()), self._uses_of(entry)
        if entry.repository not in self._used_by_glob:
            self._used_by_glob[entry.repository] = _matching(entry.repository, self.used)
        places = [key for key in self._used_by_glob[entry.repository] if among is None or key in among]
        times = (uses[key].get(permission) for key in places if key in uses for permission in permissions)
        return max(filter(None, times), default=None)

    def owner_of(self, token: Token) -> str:
        """In whose repositories alone a token may do anything; empty: nobody's."""
        parsed = [scopes.parse(text) for text in token.scopes or ()]
        found = {self.owners.get(scope.repository, "") if wholly(scope.repository) else "" for scope in parsed}
        return found.pop() if len(found) == 1 else ""

    def _uses_of(self, entry: Entry) -> LastUses:
        subject = (entry.kind, entry.name)
        if subject not in self._of_subject:
            self._of_subject[subject] = _latest(self.uses[name] for name in self._people(entry) if name in self.uses)
        return self._of_subject[subject]

    def _people(self, entry: Entry) -> Iterable[str]:
        if entry.kind == Kind.USER:
            return (entry.name,)
        if entry.kind == Kind.GROUP:
            return self.members.get(entry.name, {})
        return (name for name in self.uses if entry.kind == Kind.ANONYMOUS or name != ANONYMOUS_USER)


def wholly(glob: str) -> bool:
    """Whether a glob is the key of one repository, and can reach no other, of those to come either."""
    return bool(glob) and not WILD.search(glob)


def _matching(glob: str, keys: Iterable[str]) -> list[str]:
    if not WILD.search(glob):
        return [glob] if glob in keys else []
    return [key for key in keys if key and matches(glob, key)]


def _latest(many: Iterable[LastUses]) -> LastUses:
    found: LastUses = defaultdict(dict)
    for uses in many:
        for repository, by_permission in uses.items():
            for permission, at in by_permission.items():
                if permission not in found[repository] or found[repository][permission] < at:
                    found[repository][permission] = at
    return found
