"""What every installation has: the built-in roles, the group of the signed-in, and the epoch.

The first migration makes them. They are made again after any migrate or flush that finds them missing or, after an
upgrade, with other permissions; as django-guardian does with its anonymous user.
"""

from __future__ import annotations

from typing import Any

from django.apps import apps as installed
from django.apps.registry import Apps
from django.db import DEFAULT_DB_ALIAS, transaction

from accounts import epoch
from accounts.permissions import AUTHENTICATED_GROUP, BUILTIN_ROLES


def ensure(apps: Apps) -> None:
    """Make what is missing, with the models of `apps`, which may be those of a migration."""
    with transaction.atomic():
        changed = [_ensure_role(apps, name, sorted(permissions)) for name, permissions in BUILTIN_ROLES.items()]
        _, group_is_new = apps.get_model("auth", "Group").objects.get_or_create(name=AUTHENTICATED_GROUP)
        no_epoch = not apps.get_model("accounts", "Epoch").objects.exists()
        if any(changed) or group_is_new or no_epoch:
            epoch.bump()


def after_migrate(using: str = DEFAULT_DB_ALIAS, apps: Apps = installed, **_: Any) -> None:
    """Receive post_migrate. When accounts itself has been migrated away, there is nothing to do."""
    try:
        apps.get_model("accounts", "Role")
    except LookupError:
        return
    if using == DEFAULT_DB_ALIAS:
        ensure(apps)


def _ensure_role(apps: Apps, name: str, permissions: list[str]) -> bool:
    """Whether the role had to be made or put right."""
    role = apps.get_model("accounts", "Role").objects.filter(name=name).first()
    if role is not None and role.permissions == permissions:
        return False
    if role is None:
        role = apps.get_model("accounts", "Role")(name=name)
        target, _ = apps.get_model("contenttypes", "ContentType").objects.get_or_create(app_label="accounts", model="target")
        role.permission, _ = apps.get_model("auth", "Permission").objects.get_or_create(
            content_type=target, codename=f"role:{name}", defaults={"name": f"role:{name}"}
        )
    role.permissions = permissions
    role.save()
    return True
