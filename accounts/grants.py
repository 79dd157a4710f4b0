"""The stored grants as plain values, over django-guardian's rows: what `apply` and `export` speak."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from django.contrib.auth.models import Group
from django.db import transaction
from django.db.models import Exists, OuterRef

import problems
from accounts import epoch, globs
from accounts.models import Role, Target, TargetGroupObjectPermission, TargetUserObjectPermission, User
from accounts.permissions import ANONYMOUS_USER, AUTHENTICATED_GROUP


class Kind(StrEnum):
    """To whom: a user or a group by name, everybody who is signed in, or everybody."""

    USER = "user"
    GROUP = "group"
    AUTHENTICATED = "authenticated"
    ANONYMOUS = "anonymous"


class Entry(NamedTuple):
    """A role for a subject, on repositories and paths. The name is empty for authenticated and anonymous.

    Without repositories it is global. Without paths, or with `**`, it is for every path.
    """

    role: str
    kind: str
    name: str
    repository: str = ""
    path: str = ""


def entries() -> list[Entry]:
    """All grants, in order."""
    users = TargetUserObjectPermission.objects.values_list(
        "permission__role__name", "user__username", "content_object__repository", "content_object__path"
    )
    groups = TargetGroupObjectPermission.objects.values_list(
        "permission__role__name", "group__name", "content_object__repository", "content_object__path"
    )
    of_users = [Entry(role, *subject(Kind.USER, name), *where) for role, name, *where in users]
    of_groups = [Entry(role, *subject(Kind.GROUP, name), *where) for role, name, *where in groups]
    return sorted(of_users + of_groups)


@transaction.atomic
def add(entry: Entry | tuple[str, str, str, str, str]) -> bool:
    """Grant it. Returns whether it is new.

    Raises problems.Malformed when it makes no sense, or names a role, user or group that there is not.
    """
    entry = checked(entry)
    epoch.lock()
    rows, subject = _rows(entry)
    target, _ = Target.objects.get_or_create(repository=entry.repository, path=entry.path)
    _, new = rows.objects.get_or_create(permission=_role(entry.role).permission, content_object=target, **subject)
    return new


@transaction.atomic
def remove(entry: Entry | tuple[str, str, str, str, str]) -> bool:
    """Take it back, and the target with its last grant. Returns whether it was there.

    Raises problems.Malformed as `add` does.
    """
    entry = checked(entry)
    epoch.lock()
    rows, subject = _rows(entry)
    where = {"content_object__repository": entry.repository, "content_object__path": entry.path}
    count, _ = rows.objects.filter(permission=_role(entry.role).permission, **where, **subject).delete()
    if count:
        sweep()
    return bool(count)


def sweep() -> None:
    """Delete the targets that no grant is on."""
    epoch.lock()
    used = [
        Exists(rows.objects.filter(content_object=OuterRef("pk")))
        for rows in (TargetUserObjectPermission, TargetGroupObjectPermission)
    ]
    Target.objects.filter(~used[0], ~used[1]).delete()


def checked(entry: Entry | tuple[str, str, str, str, str]) -> Entry:
    """The grant in the one form that it is stored in. Raises problems.Malformed when it makes no sense."""
    role, kind, name, repository, path = entry
    if kind not in set(Kind):
        raise problems.Malformed(f"{kind!r} is nobody to grant to: {', '.join(Kind)}.")
    if bool(name) != (kind in (Kind.USER, Kind.GROUP)):
        raise problems.Malformed(f"A grant to {kind} names {'nobody' if name else 'them'}.")
    if path and not repository:
        raise problems.Malformed("A grant on paths says on which repositories.")
    if (kind, name) == (Kind.USER, ANONYMOUS_USER) or (kind, name) == (Kind.GROUP, AUTHENTICATED_GROUP):
        kind, name = name, ""
    return Entry(role, str(kind), name, globs.checked(repository), "" if path == "**" else globs.checked(path))


def subject(kind: Kind, name: str) -> tuple[str, str]:
    """To whom a row grants: the reserved user and group stand for everybody."""
    everybody = (kind, name) in ((Kind.USER, ANONYMOUS_USER), (Kind.GROUP, AUTHENTICATED_GROUP))
    return (name, "") if everybody else (kind.value, name)


def _rows(entry: Entry) -> tuple[type[TargetUserObjectPermission] | type[TargetGroupObjectPermission], dict]:
    if entry.kind in (Kind.USER, Kind.ANONYMOUS):
        user = User.objects.filter(username=entry.name or ANONYMOUS_USER).first()
        return TargetUserObjectPermission, {"user": _there(user, "user", entry.name)}
    group = Group.objects.filter(name=entry.name or AUTHENTICATED_GROUP).first()
    return TargetGroupObjectPermission, {"group": _there(group, "group", entry.name)}


def _role(name: str) -> Role:
    return _there(Role.objects.select_related("permission").filter(name=name).first(), "role", name)


def _there(row, kind: str, name: str):
    if row is None:
        raise problems.Malformed(f"There is no {kind} {name}; list it under {kind}s", rule="grants.absent")
    return row
