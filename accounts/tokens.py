"""Tokens: made, found, revoked, forgotten, when they were last used, and whether they end soon.

A secret is `ent_` and 43 characters, 256 random bits. Only its SHA-256 is stored, which is enough for a random secret:
there is nothing to guess, so nothing to slow down.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

import problems
from accounts import audit
from accounts import scopes as scope_rules
from accounts.models import Token, User
from accounts.permissions import ANONYMOUS_USER
from basics.durations import duration

SHOWN = 10
"""Characters of a secret that are kept, to tell tokens apart: `ent_` and six."""
LONGEST_NAME = 100
SOON = timedelta(days=14)
"""How long before its end a token is said to expire soon, and at most a fifth of its life."""
KEPT = timedelta(days=90)
KEPT_OF_TRUSTS = timedelta(days=7)
"""How long the row of a token is kept after its end; of those that trusts gave there are many, and the audit has them all."""
MOST = 1000
"""Tokens that have not ended: of one user, and of one job that a trust lets in."""
AT_ONCE = 500

_SECRET = re.compile(r"ent_[A-Za-z0-9_-]{43}")


def create(
    user: User, name: str = "", expires_at: datetime | None = None, scopes: Iterable[str] | None = None
) -> tuple[Token, str]:
    """A new token of the user and its secret, which can never be read again.

    `expires_at` None: never. `scopes` None: all that its user may.
    Raises problems.Malformed for a time that has passed, a scope that is malformed, or a user who cannot sign in, and
    problems.TooMany for one who has `MOST` that have not ended.
    """
    return _make("token.create", user, name, expires_at, scopes)


def give(
    user: User, name: str, expires_at: datetime, scopes: Iterable[str] | None, trust: str, told: Mapping[str, Any]
) -> tuple[Token, str]:
    """As `create`, by a trust; `told`: what the audit is to say besides."""
    return _make("token.exchange", user, name, expires_at, scopes, trust, told)


def _make(
    action: str,
    user: User,
    name: str,
    expires_at: datetime | None,
    scopes: Iterable[str] | None,
    trust: str = "",
    told: Mapping[str, Any] | None = None,
) -> tuple[Token, str]:
    if not user.is_active or user.get_username() == ANONYMOUS_USER:
        raise problems.Malformed(f"{user.get_username()} cannot sign in, so a token would be of no use.")
    now = timezone.now()
    if expires_at is not None and expires_at <= now:
        raise problems.Malformed("The token would have expired already.")
    if len(name) > LONGEST_NAME or "\0" in name:
        raise problems.Malformed(f"A token's name has at most {LONGEST_NAME} characters, and no NUL.")
    _check_room(user, trust, name, now)
    secret = f"ent_{secrets.token_urlsafe(32)}"
    with transaction.atomic():
        token = Token.objects.create(
            digest=digest(secret), prefix=secret[:SHOWN], user=user, name=name, scopes=scope_rules.checked(scopes),
            created_at=now, expires_at=expires_at, trust=trust,
            warn_at=None if trust or expires_at is None else warning(now, expires_at),
        )  # fmt: skip
        audit.record(action, subject=user.get_username(), detail={**described(token), **(told or {})})
    return token, secret


def _check_room(user: User, trust: str, name: str, now: datetime) -> None:
    """Raises problems.TooMany for who has `MOST` already: whoever may sign in, or runs one job, could else fill the database."""
    standing, whose = active(Token.objects.filter(user=user, trust=trust)), user.get_username()
    if trust:  # the robot's rows of a whole week would be looked at but for their index by time
        standing, whose = standing.filter(expires_at__gt=now, name=name), f"the job {name}"
    if standing[:MOST].count() >= MOST:
        raise problems.TooMany(f"{whose} has {MOST} tokens that have not ended; end some, or wait", rule="tokens.many")


def warning(created_at: datetime, expires_at: datetime) -> datetime:
    """From when on a token is said to expire soon."""
    return expires_at - min(SOON, (expires_at - created_at) / 5)


def described(token: Token) -> dict[str, Any]:
    """What the audit says of a token."""
    ends = token.expires_at and token.expires_at.isoformat(timespec="seconds")
    return {"token": token.pk, "name": token.name, "expires_at": ends, "scopes": token.scopes}


def revoke(token: Token) -> None:
    """End the token at once and for good. Revoking it again changes nothing."""
    with transaction.atomic():
        if Token.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=timezone.now()):
            audit.record("token.revoke", subject=token.user.get_username(), detail=described(token))
    token.refresh_from_db(fields=["revoked_at"])


def revoke_given(trust: str) -> int:
    """End all that a trust gave, in the caller's transaction. Returns how many."""
    standing = active(Token.objects.filter(trust=trust)).select_related("user").order_by("pk")
    found = list(standing)
    for token in found:
        revoke(token)
    return len(found)


def active(tokens: QuerySet[Token]) -> QuerySet[Token]:
    """Those that sign in, as far as it is theirs to say."""
    return tokens.filter(Q(expires_at=None) | Q(expires_at__gt=timezone.now()), revoked_at=None)


def expiring(tokens: QuerySet[Token]) -> QuerySet[Token]:
    """Those that sign in and expire soon."""
    return active(tokens).filter(warn_at__lte=timezone.now())


def expires_soon(token: Token) -> bool:
    """Whether `expiring` has it."""
    if token.warn_at is None or token.expires_at is None or token.revoked_at is not None:
        return False
    return token.warn_at <= timezone.now() < token.expires_at


def warn() -> int:
    """Have the audit say once of each token that it expires soon. Returns how many."""
    told = 0
    for token in expiring(Token.objects.filter(warned=False)).select_related("user").order_by("pk")[:AT_ONCE]:
        with transaction.atomic():
            if Token.objects.filter(pk=token.pk, warned=False).update(warned=True):
                audit.record("token.expiring", subject=token.user.get_username(), detail=described(token))
                told += 1
    return told


def forget(spared: Iterable[int] = ()) -> int:
    """Remove the rows of tokens that ended long ago, some at a time, but those with an id in `spared`. Returns how many."""
    now = timezone.now()
    long_ago = _ended_before(now - KEPT) | (~Q(trust="") & _ended_before(now - KEPT_OF_TRUSTS))
    gone = list(Token.objects.filter(long_ago).exclude(pk__in=list(spared)).select_related("user").order_by("pk")[:AT_ONCE])
    if not gone:
        return 0
    with transaction.atomic():
        count, _ = Token.objects.filter(pk__in=[token.pk for token in gone]).delete()
        for token in (one for one in gone if not one.trust):
            audit.record("token.forget", subject=token.user.get_username(), detail=described(token))
        if given := sum(1 for token in gone if token.trust):
            audit.record("token.forget", subject="given by trusts", detail={"tokens": given})
    return count


def _ended_before(moment: datetime) -> Q:
    return Q(expires_at__lt=moment) | Q(revoked_at__lt=moment)


def find(text: str) -> Token:
    """The token with this id, this shown prefix, or this whole secret.

    Raises problems.NotFound when there is none, and problems.Malformed when several have the prefix.
    """
    if is_secret(text):
        found = list(Token.objects.filter(digest=digest(text)))
    elif text.startswith("ent_"):
        found = list(Token.objects.filter(prefix=text)[:2])
    else:
        found = list(Token.objects.filter(pk=int(text))) if re.fullmatch("[0-9]{1,18}", text) else []
    if not found:
        raise problems.NotFound("There is no such token.")
    if len(found) > 1:
        raise problems.Malformed("Several tokens begin so. Name it by its id.")
    return found[0]


def is_secret(text: str) -> bool:
    """Whether the text has the form of a token's secret, so that it is never taken for a password."""
    return _SECRET.fullmatch(text) is not None


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def lifetime(text: str) -> timedelta:
    """How long a token is to last, such as `90d`. Raises problems.Malformed."""
    try:
        found = duration(text)
    except ValueError as error:
        raise problems.Malformed(f"{error}.") from None
    if not found:
        raise problems.Malformed("The token would have expired already.")
    return found


_lock = threading.Lock()
_used: dict[int, datetime] = {}


def used(token_id: int) -> None:
    """Remember that a token is used now, without a query: `flush` writes it."""
    with _lock:
        _used[token_id] = timezone.now()


def flush() -> int:
    """Write when tokens were last used, in one transaction. Returns how many.

    After an error they wait for the next flush.
    """
    global _used
    with _lock:
        batch, _used = _used, {}
    if not batch:
        return 0
    adapt = connection.ops.adapt_datetimefield_value
    # In the order of ids: two processes that flush cannot deadlock.
    rows = [(adapt(at), token_id, adapt(at)) for token_id, at in sorted(batch.items())]
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.executemany(
                "UPDATE accounts_token SET last_used_at = %s WHERE id = %s AND (last_used_at IS NULL OR last_used_at < %s)",
                rows,
            )
    except BaseException:
        with _lock:
            _used = {**batch, **_used}
        raise
    return len(rows)
