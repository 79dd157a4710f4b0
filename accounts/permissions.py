"""The words of permission, and what is built in: four roles, and the two names that stand for everybody."""

from __future__ import annotations

from collections.abc import Iterable

import problems

REPOSITORY_PERMISSIONS = frozenset(
    {"artifact:read", "artifact:write", "artifact:overwrite", "artifact:delete", "repository:manage"}
)
"""What a grant or a token scope may carry for the repositories that it names."""

GLOBAL_PERMISSIONS = frozenset(
    {"repository:manage", "user:manage", "replication:manage", "policy:manage", "audit:read", "system:manage"}
)
"""What a grant or a token scope may carry without repositories."""

PERMISSIONS = REPOSITORY_PERMISSIONS | GLOBAL_PERMISSIONS

BUILTIN_ROLES: dict[str, frozenset[str]] = {
    "administrator": PERMISSIONS,
    "owner": REPOSITORY_PERMISSIONS,
    "developer": frozenset({"artifact:read", "artifact:write", "artifact:overwrite"}),
    "reader": frozenset({"artifact:read"}),
}

ANONYMOUS_USER = "anonymous"
"""The user whose grants everybody has (django-guardian's anonymous user). Nobody signs in as it."""

AUTHENTICATED_GROUP = "authenticated"
"""The group whose grants everybody has who is signed in. Its membership is implied and never stored."""


def checked(permissions: Iterable[str]) -> list[str]:
    """The permissions, each once and in order.

    Raises problems.Malformed for a word that is no permission.
    """
    words = set(permissions)
    if unknown := sorted(words - PERMISSIONS, key=str):
        known = ", ".join(sorted(PERMISSIONS))
        raise problems.Malformed(f"Unknown permission: {', '.join(map(str, unknown))}. Permissions are: {known}.")
    return sorted(words)
