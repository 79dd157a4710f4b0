"""People and groups of a directory. One person's sign-in and the watch over all of them ask by the same functions."""

from __future__ import annotations

import logging
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from accounts.directories.link import Entry, Link
from accounts.directories.names import folded
from accounts.directories.settings import MEMBER_NAMES, USER, Directory, Groups, Users
from accounts.people import is_subject

log = logging.getLogger("entrepot.directories")

AT_ONCE = 100
"""People, or groups, that one search asks for."""
GUID = "objectguid"
T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """Somebody's entry. `subject`: see `ExternalIdentity`."""

    dn: str
    subject: str
    name: str
    email: str


def find(link: Link, directory: Directory, name: str) -> Found | None:
    """Whom the directory knows by the name that somebody signs in by; None: nobody, or several, of whom nobody could tell."""
    users = directory.users
    entries = link.search(users.base, users.filter.replace(USER, escaped(name)), _attributes(users))
    if len(entries) > 1:
        log.warning("%s knows %d people by one name; users.filter must find one", directory.name, len(entries))
    found = [_found(users, entry) for entry in entries]
    return found[0] if len(found) == 1 and found[0] is not None else None


def find_again(link: Link, directory: Directory, subjects: Sequence[str]) -> dict[str, Found]:
    """Who of these the directory still knows, wherever they were moved; not those whom users.filter finds no more."""
    users = directory.users
    return {
        found.subject: found
        for some in _portions(subjects)
        for entry in link.search(users.base, _and(users.filter.replace(USER, "*"), _any_of(users, some)), _attributes(users))
        if (found := _found(users, entry)) is not None
    }


def disabled(link: Link, directory: Directory, people: Iterable[Found]) -> set[str]:
    """The subjects of those whose accounts are disabled."""
    users = directory.users
    return {
        found.subject
        for some in _portions([one.subject for one in people])
        for entry in link.search(users.base, _and(users.disabled, _any_of(users, some)), _attributes(users))
        if (found := _found(users, entry)) is not None
    }


def groups(link: Link, directory: Directory, people: Iterable[Found]) -> dict[str, set[str]]:
    """The groups that people are in, by subject, as distinguished names; where they are nested, also the groups of these.

    All of one level are asked for together, and no group twice, so loops end.
    """
    where = directory.groups
    if where is None:
        return {}
    known = list(people)
    within: dict[str, set[str]] = defaultdict(set)
    level = [handle for one in known for handle in _handles(where, one)]
    asked: set[tuple[str, str]] = set()
    while level:
        asked |= {(attribute, _key(attribute, value)) for attribute, value in level}
        above = _level(link, where, level, asked, within)
        handles = [(attribute, dn) for dn in above for attribute in where.members if attribute.lower() not in MEMBER_NAMES]
        level = [one for one in handles if (one[0], _key(*one)) not in asked] if where.nested else []
    return {one.subject: _closure(within, [_key(*handle) for handle in _handles(where, one)]) for one in known}


def _level(
    link: Link, where: Groups, level: Sequence[tuple[str, str]], asked: set[tuple[str, str]], within: dict[str, set[str]]
) -> set[str]:
    """The groups that have one of these members, given as attribute and value; of whom each has is added to `within`."""
    found: set[str] = set()
    for some in _portions(level):
        members = "".join(f"({attribute}={escaped(value)})" for attribute, value in some)
        for group in link.search(where.base, _and(where.filter, f"(|{members})"), where.members):
            found.add(group.dn)
            for attribute in where.members:
                for value in link.values(group, attribute):
                    if (attribute, key := _key(attribute, value)) in asked:
                        within[key].add(group.dn)
    return found


def _closure(within: dict[str, set[str]], start: Iterable[str]) -> set[str]:
    """All groups that lead from the members `start`."""
    found: set[str] = set()
    left = set().union(*(within.get(key, set()) for key in start))
    while left:
        dn = left.pop()
        found.add(dn)
        left |= within.get(folded(dn), set()) - found
    return found


def _handles(where: Groups, one: Found) -> list[tuple[str, str]]:
    """What groups call somebody, by the attributes in which they do."""
    return [(attribute, one.name if attribute.lower() in MEMBER_NAMES else one.dn) for attribute in where.members]


def _key(attribute: str, value: str) -> str:
    """A member, however it is spelled; a name is told from a distinguished name."""
    return f"={value.lower()}" if attribute.lower() in MEMBER_NAMES else folded(value)


def _attributes(users: Users) -> list[str]:
    return [users.name, users.email, *users.ids]


def _found(users: Users, entry: Entry) -> Found | None:
    """None for an entry that cannot be told from others that had its name."""
    subject = next(
        (
            text
            for attribute in users.ids
            for value in entry.values.get(attribute.lower(), ())
            if (text := _text(attribute, value))
        ),
        "",
    )
    if not subject:
        log.warning("an entry that users.filter finds has none of %s, by which it would be known again", ", ".join(users.ids))
        return None
    return Found(entry.dn, subject, entry.text(users.name), entry.text(users.email))


def _text(attribute: str, value: bytes) -> str:
    """A subject as text; empty for what is none, such as other binary values: read as text, two could be the same."""
    if attribute.lower() == GUID and len(value) == 16:
        return str(uuid.UUID(bytes_le=value))
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return ""
    return text if is_subject(text) else ""


def _any_of(users: Users, subjects: Iterable[str]) -> str:
    return f"(|{''.join(f'({attribute}={_value(attribute, subject)})' for subject in subjects for attribute in users.ids)})"


def _value(attribute: str, subject: str) -> str:
    """A subject as a filter compares it."""
    if attribute.lower() == GUID:
        try:
            return "".join(f"\\{byte:02x}" for byte in uuid.UUID(subject).bytes_le)
        except ValueError:
            return escaped(subject)
    return escaped(subject)


def escaped(text: str) -> str:
    """Text that stands for itself in a filter (RFC 4515 section 3)."""
    from ldap.filter import escape_filter_chars

    return escape_filter_chars(text)


def _and(one: str, other: str) -> str:
    return f"(&{one}{other})"


def _portions(items: Sequence[T]) -> Iterator[list[T]]:
    left = iter(items)
    while some := list(islice(left, AT_ONCE)):
        yield some
