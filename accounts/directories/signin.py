"""One sign-in by a directory: found, not disabled, and their own bind succeeds."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator

from django.conf import settings

from accounts import passwords, people
from accounts.directories import lookup, names
from accounts.directories.link import AGAIN, Failed, opened
from accounts.directories.settings import Directory, configured
from accounts.models import User
from accounts.people import NAME, Person, kept_email
from problems import Unavailable

log = logging.getLogger("entrepot.directories")

REST = 5.0
"""Seconds for which a directory that failed is not asked again, so that requests fail fast."""


def asked(name: str, source: str, epoch: int) -> tuple[Directory, ...]:
    """The directories that may tell who has a name: the one from which they came before, else all.

    None for what no user is called. A directory takes no account of spaces, nor of characters that are not seen, so that somebody
    would have any number of names to be guessed at.
    """
    if not NAME.fullmatch(name):
        return ()
    known = configured(epoch)
    if source:
        return (known[source],) if source in known else ()
    return tuple(known.values())


def remembered(directories: tuple[Directory, ...], name: str, password: str, user_id: int | None) -> User | int | None:
    """Whom this name and password signed in a moment ago: the id of the user whom the name is known to be, without a query.

    Somebody who signs in by another spelling of their name costs one query.
    """
    known = passwords.recalled(*_memory(directories, name, password))
    if known is None or known == user_id:
        return known
    return User.objects.filter(pk=known, is_active=True).first()


def sign_in(directories: tuple[Directory, ...], name: str, password: str, epoch: int) -> User | None:
    """Who signs in so; None: nobody. The first directory that knows the name decides.

    Raises Unavailable where a directory does not answer, or too many ask it; Forbidden as `people.admit`.
    """
    if not password:
        return None
    with _turns.one():
        # Of many connections with one password, those that waited find it checked.
        if isinstance(user := remembered(directories, name, password, None), User):
            return user
        for directory in directories:
            with _watched(directory):
                known, person = _asked(directory, name, password, epoch)
            if known:
                return _admitted(person, _memory(directories, name, password))
    return None


def _asked(directory: Directory, name: str, password: str, epoch: int) -> tuple[bool, Person | None]:
    """Whether the directory knows the name, and who that is, if the password is theirs."""
    with opened(directory) as link:
        found = lookup.find(link, directory, name)
        if found is None:
            return False, None
        if lookup.disabled(link, directory, [found]) or not link.is_password(found.dn, password):
            return True, None
        link.bind()
        return True, person(directory, found, lookup.groups(link, directory, [found]), epoch)


def person(directory: Directory, found: lookup.Found, groups: dict[str, set[str]], epoch: int) -> Person:
    """Somebody of a directory, as `people` takes them."""
    return Person(
        source=directory.name,
        issuer=directory.issuer,
        subject=found.subject,
        name=found.name,
        email=kept_email(found.email),
        found_as=found.dn[:500],
        groups=names.external(directory.name, groups.get(found.subject, ()), epoch),
    )


def _admitted(person: Person | None, memory: tuple[str, ...]) -> User | None:
    if person is None:
        return None
    user = people.admit(person)
    passwords.recall(user.pk, *memory)
    return user


def _memory(directories: tuple[Directory, ...], name: str, password: str) -> tuple[str, ...]:
    """What a right password is remembered under: other settings of a directory end it."""
    return ("directories", *(one.mark for one in directories), name, password)


class _Turns:
    """How many threads ask directories: an eighth of the process's, and as many wait for them; who is more is told to try again.

    So a directory that says nothing takes no thread from those who ask for artefacts.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: tuple[threading.BoundedSemaphore, threading.BoundedSemaphore] | None = None

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        turns, places = self._semaphores()
        if not places.acquire(blocking=False):
            raise _too_many()
        try:
            if not turns.acquire(timeout=passwords.WAIT):
                raise _too_many()
            try:
                yield
            finally:
                turns.release()
        finally:
            places.release()

    def _semaphores(self) -> tuple[threading.BoundedSemaphore, threading.BoundedSemaphore]:
        with self._lock:
            if self._made is None:
                turns = max(2, settings.ENTREPOT.threads // 8)
                self._made = threading.BoundedSemaphore(turns), threading.BoundedSemaphore(2 * turns)
            return self._made


_turns = _Turns()
_failed: dict[str, float] = {}
"""Directories that failed the last time, by mark, and until when they are left alone."""


@contextlib.contextmanager
def _watched(directory: Directory) -> Iterator[None]:
    """Ask the directory within the block, unless it failed just now."""
    if _failed.get(directory.mark, 0.0) > time.monotonic():
        raise Failed(directory, "it is left alone for a moment")
    try:
        yield
    except Failed as failure:
        if directory.mark not in _failed:
            log.warning("the directory %s fails: %s", directory.name, failure.why)
        _failed[directory.mark] = time.monotonic() + REST
        raise
    if _failed.pop(directory.mark, None) is not None:
        log.warning("the directory %s answers again", directory.name)


def _too_many() -> Unavailable:
    return Unavailable("too many are signing in at once; try again later", rule="directory.turns", headers={"Retry-After": AGAIN})
