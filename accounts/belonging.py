"""Who is in which group, and how: by the configuration here, or by a source outside that says so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from accounts.models import ExternalMembership, ExternalName, User

SEVERAL = 5000
"""Names that one query is given."""


class Through(NamedTuple):
    """By what somebody is in a group: an external group, and the source that says so; empty in both: they were put in it here."""

    external: str = ""
    source: str = ""


def memberships(groups: Iterable[str], user: str | None = None) -> dict[str, dict[str, list[Through]]]:
    """Of each of these groups the users in it by name, or the one `user`, and through what; in two queries for thousands."""
    names = sorted(set(groups))
    found: dict[str, dict[str, list[Through]]] = defaultdict(lambda: defaultdict(list))
    for start in range(0, len(names), SEVERAL):
        some = names[start : start + SEVERAL]
        for group, member in _here(some, user):
            found[group][member].append(Through())
        for group, member, external, source in _outside(some, user):
            found[group][member].append(Through(external, source))
    return found


def _here(groups: list[str], user: str | None) -> Iterable[tuple[str, str]]:
    rows = User.groups.through.objects.filter(group__name__in=groups)
    rows = rows if user is None else rows.filter(user__username=user)
    return rows.order_by("group__name", "user__username").values_list("group__name", "user__username")


def _outside(groups: list[str], user: str | None) -> Iterable[tuple[str, str, str, str]]:
    """Joined by the name, as `access` joins it."""
    names: dict[str, list[str]] = defaultdict(list)
    outside = ExternalName.objects.filter(group__name__in=groups)
    for group, name in outside.order_by("group__name").values_list("group__name", "name"):
        names[name].append(group)
    rows = ExternalMembership.objects.filter(name__in=outside.values("name"))
    rows = rows if user is None else rows.filter(identity__user__username=user)
    for name, member, source in rows.values_list("name", "identity__user__username", "identity__source").order_by("name", "pk"):
        for group in names[name]:
            yield group, member, name, source
