"""Every change to users, groups, memberships, roles, targets and grants starts a new epoch, in its own transaction.

This is the one place for them; `accounts.people` does so for external groups, and who applies a configuration for all of it.
Deletions and changes of membership are sent inside Django's transaction, saves of our own models inside that of `SavedWhole`.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Group, Permission
from django.db import transaction
from django.db.models import Model
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete, pre_save

import problems
from accounts import epoch, grants, sessions
from accounts.models import Role, Target, TargetGroupObjectPermission, TargetUserObjectPermission, User
from accounts.permissions import ANONYMOUS_USER, AUTHENTICATED_GROUP, BUILTIN_ROLES

WATCHED: tuple[type[Model], ...] = (
    User,
    Group,
    Role,
    Target,
    TargetUserObjectPermission,
    TargetGroupObjectPermission,
)

RESERVED: dict[type[Model], tuple[str, frozenset[str]]] = {
    User: ("username", frozenset({ANONYMOUS_USER})),
    Group: ("name", frozenset({AUTHENTICATED_GROUP})),
    Role: ("name", frozenset(BUILTIN_ROLES)),
}


def connect() -> None:
    for model in WATCHED:
        post_save.connect(_saved, sender=model, dispatch_uid="accounts.saved")
        post_delete.connect(_deleted, sender=model, dispatch_uid="accounts.deleted")
    for model in RESERVED:
        pre_save.connect(_keep_reserved, sender=model, dispatch_uid="accounts.reserved")
        pre_delete.connect(_keep_reserved_row, sender=model, dispatch_uid="accounts.reserved")
    post_save.connect(sessions.user_saved, sender=User, dispatch_uid="accounts.sessions")
    m2m_changed.connect(_membership_changed, sender=User.groups.through, dispatch_uid="accounts.membership")


def _saved(update_fields: frozenset[str] | None = None, **_: Any) -> None:
    if update_fields is not None and update_fields <= {"last_login"}:
        return
    # A plain Group.save outside of a transaction has committed already. What changes then is a name, which decides
    # nothing: the one name that does is reserved.
    with transaction.atomic():
        epoch.bump()


def _deleted(sender: type[Model], instance: Any, **_: Any) -> None:
    """What stood for a role goes with it, and targets that nobody has grants on any more."""
    if sender is Role:
        Permission.objects.filter(pk=instance.permission_id).delete()
    if sender in RESERVED:
        grants.sweep()
    epoch.bump()


def _membership_changed(action: str, **_: Any) -> None:
    if action.startswith("post_"):
        epoch.bump()


def _keep_reserved(sender: type[Model], instance: Any, raw: bool = False, **_: Any) -> None:
    """Refuse to rename what has a reserved name, and to change a built-in role."""
    if raw or instance.pk is None:
        return
    field, names = RESERVED[sender]
    before = sender._default_manager.filter(pk=instance.pk).values_list(field, flat=True).first()
    if before in names and getattr(instance, field) != before:
        raise problems.Forbidden(f"{before} is reserved and keeps its name.", rule="reserved")
    if sender is Role and before in names and set(instance.permissions) != BUILTIN_ROLES[before]:
        raise problems.Forbidden(f"The role {before} is built in: make another one.", rule="reserved")


def _keep_reserved_row(sender: type[Model], instance: Any, **_: Any) -> None:
    field, names = RESERVED[sender]
    if getattr(instance, field) in names:
        raise problems.Forbidden(f"{getattr(instance, field)} is reserved and stays.", rule="reserved")
