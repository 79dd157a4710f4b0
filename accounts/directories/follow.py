"""The watch over all who signed in by a directory: what they lose there they lose here, also on tokens, within SECONDS.

Whom the directory knows no more, or has disabled, is suspended; whose groups are others gets these; who is back is taken back. A
directory that does not answer says nothing of anybody: everybody keeps what they had until it answers.

Any number of processes may watch. A row tells which directory is due, and whoever moves it on looks after that directory.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from datetime import timedelta

from django.db import DatabaseError, connection
from django.db.models import Q
from django.utils import timezone

from accounts import epoch, people
from accounts.directories import lookup
from accounts.directories.link import Failed, opened
from accounts.directories.settings import Directory, configured
from accounts.directories.signin import person
from accounts.models import DirectoryWatch, ExternalIdentity
from accounts.people import SEEN, Person
from problems import Forbidden, Problem

log = logging.getLogger("entrepot.directories")

SECONDS = timedelta(seconds=10)
"""Between two looks at a directory, at most twice of which it takes until a right is gone."""
LOOK = 5.0
"""Seconds after which a scheduler asks whether one is due."""
GIVEN_UP = timedelta(days=30)
"""How long a suspended user is looked for; later they are taken back by signing in."""
AT_ONCE = 500
"""Identities that are read together."""

_threads: dict[str, threading.Thread] = {}


def begin() -> None:
    """Look at each directory that is due, in a thread of its own: one that is silent keeps nobody else."""
    number = epoch.current()
    for directory in configured(number).values():
        running = _threads.get(directory.name)
        if (running is None or not running.is_alive()) and _claim(directory):
            _threads[directory.name] = threading.Thread(
                target=_run, args=(directory, number), name="directory watch", daemon=True
            )
            _threads[directory.name].start()


def _claim(directory: Directory) -> bool:
    """Whether it is due, and this process is the one to look."""
    now = timezone.now()
    DirectoryWatch.objects.get_or_create(name=directory.name, defaults={"due_at": now})
    return DirectoryWatch.objects.filter(name=directory.name, due_at__lte=now).update(due_at=now + SECONDS) == 1


def _run(directory: Directory, number: int) -> None:
    try:
        follow(directory, number)
    except DatabaseError as error:
        log.warning("the directory %s could not be followed: %s", directory.name, error)
    except Exception:
        log.exception("the directory %s could not be followed", directory.name)
    finally:
        connection.close()


def follow(directory: Directory, number: int) -> None:
    """Look after everybody of a directory, once; `number`: the epoch. That it failed, or answers again, is logged once."""
    try:
        _follow(directory, number)
    except Failed as failure:
        if DirectoryWatch.objects.filter(name=directory.name, failure="").update(failure=failure.why[:1000]):
            log.warning(
                "the directory %s does not answer, so everybody keeps the groups that they had: %s", directory.name, failure.why
            )
        return
    if DirectoryWatch.objects.filter(name=directory.name).exclude(failure="").update(failure=""):
        log.warning("the directory %s answers again", directory.name)


def _follow(directory: Directory, number: int) -> None:
    with opened(directory) as link:
        after = 0
        while some := _identities(directory, after):
            after = some[-1].pk
            found = lookup.find_again(link, directory, [one.subject for one in some])
            off = lookup.disabled(link, directory, found.values())
            there = {subject: one for subject, one in found.items() if subject not in off}
            groups = lookup.groups(link, directory, there.values())
            said = {subject: person(directory, one, groups, number) for subject, one in there.items()}
            _settle(some, said)


def _identities(directory: Directory, after: int) -> list[ExternalIdentity]:
    """Who may act here, or was suspended lately."""
    lately = Q(user__suspended=True, seen_at__gt=timezone.now() - GIVEN_UP)
    rows = ExternalIdentity.objects.filter(Q(user__is_active=True) | lately, issuer=directory.issuer, pk__gt=after)
    return list(rows.select_related("user").prefetch_related("memberships").order_by("pk")[:AT_ONCE])


def _settle(identities: Iterable[ExternalIdentity], said: dict[str, Person]) -> None:
    """Make of each what the directory says: only those that differ cost a transaction."""
    seen = []
    for identity in identities:
        told = said.get(identity.subject)
        if told is None:
            if identity.user.is_active:
                people.suspend(identity)
            continue
        seen.append(identity.pk)
        if people.differs(identity, told):
            try:
                people.renew(told)
            except Forbidden:  # an administrator has made them inactive meanwhile
                continue
            except Problem as problem:
                log.warning("%s could not be followed: %s", identity, problem)
    ExternalIdentity.objects.filter(pk__in=seen, seen_at__lt=timezone.now() - SEEN).update(seen_at=timezone.now())
