"""What a token may at most, as text: `PERMISSION@REPOSITORY-GLOB[:PATH-GLOB]`, or a global `PERMISSION` alone."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import problems
from accounts import globs, permissions

AT_MOST = 100
"""Scopes of one token."""


class Scope(NamedTuple):
    """One permission and where it holds, by the rules of a Target: empty in both is global."""

    permission: str
    repository: str
    path: str


@lru_cache(maxsize=4096)
def parse(text: str) -> Scope:
    """Raises problems.Malformed, saying what is wrong with the scope."""
    permission, at, where = text.partition("@")
    permissions.checked([permission])
    if not at:
        if permission not in permissions.GLOBAL_PERMISSIONS:
            raise problems.Malformed(f"The scope {permission} says no repositories: write {permission}@REPOSITORY-GLOB.")
        return Scope(permission, "", "")
    if permission not in permissions.REPOSITORY_PERMISSIONS:
        raise problems.Malformed(f"{permission} is not of a repository: write the scope as {permission} alone.")
    repository, colon, path = where.partition(":")
    if not repository or (colon and not path):
        raise problems.Malformed(f"The scope {permission}@… is PERMISSION@REPOSITORY-GLOB[:PATH-GLOB], none of them empty.")
    return Scope(permission, globs.checked(repository), globs.checked(path))


def written(scope: Scope) -> str:
    """The scope as `parse` takes it."""
    at = f"@{scope.repository}" if scope.repository else ""
    return scope.permission + at + (f":{scope.path}" if scope.path else "")


def within(inner: str, outer: str) -> bool:
    """Whether all that the scope `inner` allows is allowed by `outer` too. Where that cannot be told from the text: no."""
    one, other = parse(inner), parse(outer)
    if one.permission != other.permission or bool(one.repository) != bool(other.repository):
        return False
    return globs.within(one.repository, other.repository) and globs.within(one.path or "**", other.path or "**")


def checked(scopes: Iterable[str] | None) -> list[str] | None:
    """The scopes as they are stored: each once, in order. None narrows nothing.

    Raises problems.Malformed for a scope that is malformed, for none at all, and for too many.
    """
    if scopes is None:
        return None
    distinct = list(dict.fromkeys(scopes))
    if not 0 < len(distinct) <= AT_MOST:
        raise problems.Malformed(f"A token has 1 to {AT_MOST} scopes, or is not narrowed at all.")
    for scope in distinct:
        parse(scope)
    return distinct
