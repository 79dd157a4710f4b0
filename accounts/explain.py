"""Why somebody may do something, or may not: what `access.authorize` found, told.

Nothing is decided here. A verdict is what `authorize` says, and the grants and scopes told with it are those that it finds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from accounts import scopes
from accounts.access import Grant, Rights, authorize, covering
from accounts.actors import Actor
from accounts.belonging import Through, memberships
from accounts.grants import Kind
from accounts.models import ExternalIdentity, Token, User
from accounts.permissions import BUILTIN_ROLES

ALL, HERE, NOTHING = "all", "here", "nothing"
"""How much of somebody's grants is told: all that bear on it, those on this repository alone, or the verdict without any."""
MOST_TOLD = 100
"""Grants, and scopes, that a verdict tells at most: somebody may have thousands that all say the same."""


@dataclass(frozen=True)
class Reason:
    """A grant that allows, or would: its role, to whom, where, and by what they are among those (several: any does).

    A role that is empty is no stored grant: the server itself opens it.
    """

    role: str
    kind: str
    name: str
    repository: str
    path: str
    through: tuple[Through, ...] = ()

    def __str__(self) -> str:
        if not self.role:
            return "open, for as long as only this machine can ask"
        to = f"{self.kind} {self.name}" if self.name else {"anonymous": "everybody"}.get(self.kind, "everybody who is signed in")
        where = f" on {self.repository}" if self.repository else ", for the installation"
        at = f" at {self.path}" if self.path else ""
        through = [f"{one.external} of {one.source}" for one in self.through if one.external]
        outside = f", through {' and '.join(through)}" if through and len(through) == len(self.through) else ""
        return f"{self.role} to {to}{where}{at}{outside}"


@dataclass(frozen=True)
class Verdict:
    """Whether a permission holds at a place, and why.

    `grants`: those that allow it. `scopes`: those of the token that let it pass; None: no token narrows. `missing`: one line;
    empty where it is allowed. `near`: grants that carry the permission, but not there.
    """

    permission: str
    repository: str
    package: str | None
    allowed: bool
    grants: tuple[Reason, ...] = ()
    scopes: tuple[str, ...] | None = None
    missing: str = ""
    near: tuple[Reason, ...] = field(default=())


def explain(
    actor: Actor, rights: Rights, permission: str, repository: str = "", package: str | None = None, *, told: str = ALL
) -> Verdict:
    """What `authorize` says of these rights, with what it found; in at most three queries. `told`: how much of that."""
    allowed = authorize(rights, permission, repository, package)
    if told == NOTHING:
        missing = "" if allowed else f"{permission} on {repository}; ask who manages it"
        return Verdict(permission, repository, package, allowed, missing=missing)
    granted = list(covering(rights.grants, permission, repository, package))
    passing = None if rights.scopes is None else list(covering(rights.scopes, permission, repository, package))
    near = [] if granted else list(covering(rights.grants, permission, repository))
    if told == ALL and not granted and not near:
        near = [grant for grant in rights.grants if permission in grant.permissions and grant.entry]
    reasons = tuple(_reasons(actor, (granted or near)[:MOST_TOLD]))
    return Verdict(
        permission, repository, package, allowed,
        grants=reasons if granted else (),
        scopes=None if passing is None else tuple(_scope_text(scope) for scope in passing[:MOST_TOLD]),
        missing="" if allowed else _missing(bool(granted), permission, repository, package),
        near=() if granted else reasons,
    )  # fmt: skip


def whose(user: User, token: Token | None, now: datetime) -> str:
    """Why somebody could not sign in at all, in one line; empty where they can."""
    name = user.get_username()
    if user.suspended:
        sources = ExternalIdentity.objects.filter(user=user).order_by("source").values_list("source", flat=True)
        return f"{name} is suspended by {' and '.join(sources) or 'the source that vouched for them'}"
    if not user.is_active:
        return f"{name} is inactive: an administrator made them so"
    if token is None:
        return ""
    if token.revoked_at is not None:
        return f"token {token.pk} was revoked at {token.revoked_at:%Y-%m-%dT%H:%MZ}"
    if token.expires_at is not None and token.expires_at <= now:
        return f"token {token.pk} expired at {token.expires_at:%Y-%m-%dT%H:%MZ}"
    return ""


def _missing(granted: bool, permission: str, repository: str, package: str | None) -> str:
    """What would be needed, the nearest first."""
    where = f" on {repository}" if repository else " without repositories"
    at = f" at {package}" if package else ""
    if granted:
        return f"no scope of the token has {permission}{where}{at}; a grant would allow it"
    role = _smallest_role(permission)
    return f"no grant has {permission}{where}{at}; the role {role} does, granted there"


def _smallest_role(permission: str) -> str:
    """The built-in role with the fewest permissions that has it."""
    return min((name for name, words in BUILTIN_ROLES.items() if permission in words), key=lambda name: len(BUILTIN_ROLES[name]))


def _reasons(actor: Actor, grants: list[Grant]) -> list[Reason]:
    groups = {grant.entry.name for grant in grants if grant.entry and grant.entry.kind == Kind.GROUP}
    belongs = memberships(groups, actor.name) if groups and not actor.anonymous else {}
    found = []
    for grant in grants:
        if grant.entry is None:
            found.append(Reason("", "", "", grant.repository, grant.path))
            continue
        entry = grant.entry
        through = belongs.get(entry.name, {}).get(actor.name, []) if entry.kind == Kind.GROUP else []
        found.append(Reason(*entry, through=tuple(through)))
    return found


def _scope_text(scope: Grant) -> str:
    (permission,) = scope.permissions
    return scopes.written(scopes.Scope(permission, scope.repository, scope.path))
