"""People whom a source outside vouches for: who they are here, and which external groups they are in.

Who they are is decided by (issuer, subject) alone. A name or an e-mail address links nobody: whoever can choose theirs elsewhere
could choose yours.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from accounts import audit, epoch
from accounts.models import ExternalIdentity, ExternalMembership, User
from accounts.permissions import ANONYMOUS_USER
from problems import Forbidden

NAME = re.compile(r"[\w.@+-]{1,150}")
MOST_GROUPS = 2000
"""External groups of one person that are kept."""
SEEN = timedelta(minutes=10)
"""How exactly it is kept when somebody was last vouched for."""
LONGEST_SUBJECT, LONGEST_EMAIL = 255, 254


@dataclass(frozen=True)
class Person:
    """What a source says of somebody.

    `issuer` and `subject`: see `ExternalIdentity`. `name`: what they would be called here. `found_as`: by what the source finds
    them again. `groups`: as `groups: external:` of the configuration writes them, such as `sso:team-a`.
    """

    source: str
    issuer: str
    subject: str
    name: str
    email: str = ""
    found_as: str = ""
    groups: frozenset[str] = frozenset()


def is_subject(text: str) -> bool:
    """Whether somebody can be known again by it: all of it is kept, on every database."""
    return 0 < len(text) <= LONGEST_SUBJECT and "\0" not in text


def kept_email(text: str) -> str:
    """An address as it is kept; empty for one that cannot be: people write it themselves, and it decides nothing."""
    return text if len(text) <= LONGEST_EMAIL and "\0" not in text else ""


def admit(person: Person) -> User:
    """The user that a person is here, made the first time; their groups are from now on those that the source says.

    Raises Forbidden where an administrator has made the user inactive, where another user has the name, and where the name
    cannot be one here.
    """
    with transaction.atomic():
        identity = _identity_of(person)
        if identity is None or differs(identity, person):
            epoch.lock()
            identity = _identity_of(person) or _introduce(person)
            _follow(identity, person)
        elif identity.seen_at < timezone.now() - SEEN:
            ExternalIdentity.objects.filter(pk=identity.pk).update(seen_at=timezone.now())
    return identity.user


def suspend(identity: ExternalIdentity) -> None:
    """Their source knows them no more, or has disabled them: they may do nothing until it says otherwise."""
    with transaction.atomic():
        epoch.lock()
        identity.memberships.all().delete()
        user = User.objects.get(pk=identity.user_id)
        if user.is_active:
            user.is_active, user.suspended = False, True
            user.save()
            audit.record("user.suspend", subject=user.username, detail={"source": identity.source})
        epoch.bump()


def renew(person: Person) -> None:
    """Make of somebody who is known what their source says now, and take back who was suspended. Nobody is made a user by it.

    Raises Forbidden where an administrator has made the user inactive.
    """
    with transaction.atomic():
        epoch.lock()
        identity = _identity_of(person)
        if identity is not None:
            _follow(identity, person)


def _identity_of(person: Person) -> ExternalIdentity | None:
    found = ExternalIdentity.objects.select_related("user").filter(issuer=person.issuer, subject=person.subject).first()
    if found is not None and not found.user.is_active and not found.user.suspended:
        raise Forbidden(f"{found.user.username} is not active here; ask whoever runs this registry", rule="user.inactive")
    return found


def differs(identity: ExternalIdentity, person: Person) -> bool:
    """Whether the source says anything else of somebody than what is kept."""
    said = (person.source, person.found_as, person.email, False)
    known = (identity.source, identity.name, identity.user.email, identity.user.suspended)
    return said != known or _groups_of(identity) != kept(person.groups)


def _introduce(person: Person) -> ExternalIdentity:
    name = unicodedata.normalize("NFKC", person.name)
    if not NAME.fullmatch(name) or name == ANONYMOUS_USER:
        raise Forbidden(
            f"{person.source} calls you {name[:150]!r}, which is no name of a user here: letters, digits and . @ + - _",
            rule="identity.name",
        )
    if User.objects.filter(username=name).exists():
        raise Forbidden(
            f"there is a user {name} already, whom {person.source} does not vouch for; ask whoever runs this registry",
            rule="identity.name",
        )
    user = User(username=name, email=person.email)
    user.set_unusable_password()
    user.save()
    audit.record("user.create", subject=name, detail={"source": person.source})
    return ExternalIdentity.objects.create(
        user=user, source=person.source, issuer=person.issuer, subject=person.subject, name=person.found_as,
        seen_at=timezone.now(),
    )  # fmt: skip


def _follow(identity: ExternalIdentity, person: Person) -> None:
    user = identity.user
    if user.suspended or user.email != person.email:
        if user.suspended:
            audit.record("user.resume", subject=user.username, detail={"source": person.source})
        user.is_active, user.suspended, user.email = True, False, person.email
        user.save()
    identity.source, identity.name, identity.seen_at = person.source, person.found_as, timezone.now()
    identity.save()
    _set_groups(identity, person.groups)


def _set_groups(identity: ExternalIdentity, groups: frozenset[str]) -> None:
    before, after = _groups_of(identity), kept(groups)
    if before == after:
        return
    identity.memberships.filter(name__in=before - after).delete()
    ExternalMembership.objects.bulk_create(ExternalMembership(identity=identity, name=name) for name in sorted(after - before))
    lost, won = sorted(before - after), sorted(after - before)
    audit.record("user.groups", subject=identity.user.username, detail={"source": identity.source, "lost": lost, "won": won})
    epoch.bump()


def _groups_of(identity: ExternalIdentity) -> frozenset[str]:
    return frozenset(membership.name for membership in identity.memberships.all())


def kept(groups: frozenset[str]) -> frozenset[str]:
    """Those that are kept: names that have room, and not more than MOST_GROUPS of them."""
    return frozenset(sorted(name for name in groups if 0 < len(name) <= 500)[:MOST_GROUPS])
