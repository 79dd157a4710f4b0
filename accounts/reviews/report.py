"""The report of one owner, or of the installation, which has what is no owner's."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from django.db import transaction

from accounts.grants import Entry, Kind
from accounts.models import Review, ReviewItem, Token
from accounts.reviews.facts import Facts, wholly
from basics.durations import duration

SOON = timedelta(days=30)
"""How long before its end a token is told to expire."""
BATCH = 1000


def make(facts: Facts, owner: str, *, unused: str, stale: str, made_by: str) -> Review:
    """Write a report. `unused` and `stale`: durations as the configuration has them, such as `90d`."""
    owned = frozenset(key for key, name in facts.owners.items() if name == owner)
    chosen = [entry for entry in facts.entries if concerns(facts, entry, owner, owned)]
    groups = sorted({entry.name for entry in chosen if entry.kind == Kind.GROUP})
    review = Review(
        owner=owner, made_at=facts.now, made_by=made_by, unused=unused, stale=stale, repositories=sorted(owned),
        groups={name: _people(facts, name) for name in groups},
    )  # fmt: skip
    items = [*_grants(facts, chosen, owner, owned, duration(unused)), *_tokens(facts, owner, duration(unused))]
    if not owner:
        items += _accounts(facts, duration(stale))
    for number, item in enumerate(items, 1):
        item.review, item.number, item.unused = review, number, "unused" in item.why
    with transaction.atomic():
        review.save()
        ReviewItem.objects.bulk_create(items, batch_size=BATCH)
    return review


def concerns(facts: Facts, entry: Entry, owner: str, owned: frozenset[str]) -> bool:
    """Whether a grant is in an owner's report: it reaches one of their repositories.

    The installation's has those on repositories without an owner, and those on no repository that there is.
    """
    reached = facts.reached(entry.repository)
    return bool(reached & owned) or (not owner and not reached)


def _grants(facts: Facts, entries: list[Entry], owner: str, owned: frozenset[str], unused: timedelta) -> Iterator[ReviewItem]:
    for entry in entries:
        used = facts.last_used(entry, owned if owner else None)
        why = ["unused"] if used is None or used < facts.now - unused else []
        if entry.kind == Kind.GROUP and not facts.members.get(entry.name):
            why.append("nobody in the group")
        if entry.kind == Kind.USER and entry.name not in facts.seen:
            why.append("user not active")
        about = {**entry._asdict(), "permissions": sorted(facts.roles.get(entry.role, ())), "wholly": wholly(entry.repository)}
        yield ReviewItem(kind=ReviewItem.Kind.GRANT, about=about, why=why, last_used_at=used)


def _tokens(facts: Facts, owner: str, unused: timedelta) -> Iterator[ReviewItem]:
    for token in facts.tokens:
        why = _of_token(token, facts, unused)
        if why and facts.owner_of(token) == owner:
            about = {
                "id": token.pk, "prefix": token.prefix, "user": token.user.get_username(), "name": token.name,
                "scopes": token.scopes, "created_at": token.created_at.isoformat(),
                "expires_at": token.expires_at.isoformat() if token.expires_at else None,
            }  # fmt: skip
            yield ReviewItem(kind=ReviewItem.Kind.TOKEN, about=about, why=why, last_used_at=token.last_used_at)


def _of_token(token: Token, facts: Facts, unused: timedelta) -> list[str]:
    why = ["unused"] if (token.last_used_at or token.created_at) < facts.now - unused else []
    if token.expires_at is None:
        why.append("never expires")
    elif token.expires_at < facts.now + SOON:
        why.append("expires soon")
    return why


def _accounts(facts: Facts, stale: timedelta) -> Iterator[ReviewItem]:
    for name, seen in sorted(facts.seen.items()):
        if seen < facts.now - stale:
            yield ReviewItem(kind=ReviewItem.Kind.ACCOUNT, about={"user": name}, why=["stale"], last_used_at=seen)


def _people(facts: Facts, group: str) -> list[dict]:
    return [
        {"user": name, "through": [one._asdict() for one in through]}
        for name, through in sorted(facts.members.get(group, {}).items())
    ]
