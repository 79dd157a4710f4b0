"""The whole rule of who may do what, in `authorize`.

Everybody has the grants of anonymous; who is signed in also has those of the authenticated, of their groups, and their
own. A token's scopes narrow all of them: what is allowed is what a grant AND a scope allow. There is no other way.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from django.db import connection

from accounts import scopes
from accounts.actors import ANONYMOUS, Actor
from accounts.epoch import Cache
from accounts.globs import matches
from accounts.grants import Entry, Kind, subject
from accounts.permissions import ANONYMOUS_USER, AUTHENTICATED_GROUP, GLOBAL_PERMISSIONS

__all__ = ["ANONYMOUS", "Actor", "Grant", "Rights", "authorize", "covering", "rights_of"]

EVERY_PATH = ("", "**")
"""The path globs that match every package."""
FEW_SCOPES = 16
"""Scopes that a client is known by again: whoever signs in may have passes of many, each another, as often as they like."""


def authorize(rights: Rights, permission: str, repository: str = "", package: str | None = None) -> bool:
    """Whether a permission holds for a package of a repository; the rule by which every door decides.

    Without a package: for some package, so that the repository may be seen. Without a repository: for the installation.
    """
    granted = any(covering(rights.grants, permission, repository, package))
    return granted and (rights.scopes is None or any(covering(rights.scopes, permission, repository, package)))


def covering(side: Iterable[Grant], permission: str, repository: str = "", package: str | None = None) -> Iterator[Grant]:
    """Those of the grants, or of the scopes, that `authorize` finds."""
    return (grant for grant in side if grant.covers(permission, repository, package))


@dataclass(frozen=True, slots=True)
class Grant:
    """Permissions on the repositories and paths that two globs match; on no repository, when the first is empty.

    `entry`: the stored grant that it is; None: it is not stored, but a token's scope or implied.
    """

    permissions: frozenset[str]
    repository: str
    path: str
    entry: Entry | None = None

    def covers(self, permission: str, repository: str, package: str | None) -> bool:
        if permission not in self.permissions:
            return False
        if not repository or not self.repository:
            return repository == self.repository and permission in GLOBAL_PERMISSIONS
        return matches(self.repository, repository) and (package is None or not self.path or matches(self.path, package))


@dataclass(frozen=True, slots=True)
class Rights:
    """What one actor may do in one epoch: `authorize` in the words in which it is asked."""

    grants: tuple[Grant, ...]
    scopes: tuple[Grant, ...] | None = None

    def allows(self, permission: str, repository: str, package: str | None = None) -> bool:
        """Whether the permission holds for a package of a repository; None: for some package, so it may be seen."""
        return bool(repository) and authorize(self, permission, repository, package)

    def allows_everywhere(self, permission: str, repository: str) -> bool:
        """Whether the permission holds for a repository as a whole, and not for some of its packages alone."""
        return self.without_paths().allows(permission, repository)

    def allows_globally(self, permission: str) -> bool:
        """Whether a global permission holds. A grant on all repositories is none."""
        return authorize(self, permission)

    def paths(self, permission: str, repository: str) -> tuple[frozenset[str], ...]:
        """What `allows` says of all packages of a repository: the permission holds where of each of these sets a glob matches."""
        sides = (self.grants,) if self.scopes is None else (self.grants, self.scopes)
        return tuple(
            frozenset(entry.path or "**" for entry in side if repository and entry.covers(permission, repository, None))
            for side in sides
        )

    def plus(self, extra: Iterable[tuple[Iterable[str], str, str]]) -> Rights:
        """These rights and implied grants (permissions, repository glob, path glob), which scopes narrow too."""
        more = tuple(Grant(frozenset(words), repository, path) for words, repository, path in extra)
        return replace(self, grants=self.grants + more) if more else self

    def narrowed_to(self, scopes: Iterable[str] | None) -> Rights:
        """What the grants and these scopes allow, instead of those that narrow it now; None: what the grants alone do."""
        return replace(self, scopes=None if scopes is None else tuple(map(_scope, scopes)))

    def without_paths(self) -> Rights:
        """What holds without regard to paths."""
        grants = tuple(grant for grant in self.grants if grant.path in EVERY_PATH)
        scopes = None if self.scopes is None else tuple(scope for scope in self.scopes if scope.path in EVERY_PATH)
        return Rights(grants, scopes)


def rights_of(actor: Actor, epoch: int) -> Rights:
    """What the actor may do in the epoch, in at most one query. A user who is not active has what anonymous has."""
    who = actor.user_id, actor.scopes
    few = len(actor.scopes or ()) <= FEW_SCOPES
    if few and (known := _RIGHTS.get(epoch, who)) is not None:
        return known
    granted = _GRANTS.get(epoch, actor.user_id)
    if granted is None:
        granted = _GRANTS.put(epoch, actor.user_id, _granted_to(actor.user_id))
    rights = Rights(granted).narrowed_to(actor.scopes)
    return _RIGHTS.put(epoch, who, rights) if few else rights


def _granted_to(user_id: int | None) -> tuple[Grant, ...]:
    with connection.cursor() as cursor:
        cursor.execute(_QUERY, {"user": user_id, "anonymous": ANONYMOUS_USER, "authenticated": AUTHENTICATED_GROUP})
        return tuple(_grant(*row) for row in cursor.fetchall())


def _grant(words: str, role: str, kind: str, name: str, repository: str, path: str) -> Grant:
    return Grant(frozenset(json.loads(words)), repository, path, Entry(role, *subject(Kind(kind), name), repository, path))


def _scope(text: str) -> Grant:
    permission, repository, path = scopes.parse(text)
    return Grant(frozenset({permission}), repository, path)


_GRANTS: Cache[tuple[Grant, ...]] = Cache()
_RIGHTS: Cache[Rights] = Cache(1000)
"""The grants of a user, and what is left of them with a token's scopes."""

_QUERY = """
WITH asker AS (SELECT id FROM accounts_user WHERE id = %(user)s AND is_active),
belonging AS (
    SELECT group_id FROM accounts_user_groups WHERE user_id IN (SELECT id FROM asker)
    UNION SELECT accounts_externalname.group_id FROM accounts_externalidentity
        JOIN accounts_externalmembership ON accounts_externalmembership.identity_id = accounts_externalidentity.id
        JOIN accounts_externalname ON accounts_externalname.name = accounts_externalmembership.name
        WHERE accounts_externalidentity.user_id IN (SELECT id FROM asker)
    UNION SELECT id FROM auth_group WHERE name = %(authenticated)s AND EXISTS (SELECT 1 FROM asker)
),
held AS (
    SELECT permission_id, content_object_id, 'user' AS kind, accounts_user.username AS name
    FROM accounts_targetuserobjectpermission JOIN accounts_user ON accounts_user.id = user_id
    WHERE user_id IN (SELECT id FROM asker UNION SELECT id FROM accounts_user WHERE username = %(anonymous)s)
    UNION ALL
    SELECT permission_id, content_object_id, 'group', auth_group.name
    FROM accounts_targetgroupobjectpermission JOIN auth_group ON auth_group.id = group_id
    WHERE group_id IN (SELECT group_id FROM belonging)
)
SELECT accounts_role.permissions, accounts_role.name, held.kind, held.name, accounts_target.repository, accounts_target.path
FROM held
JOIN accounts_role ON accounts_role.permission_id = held.permission_id
JOIN accounts_target ON accounts_target.id = held.content_object_id
"""
