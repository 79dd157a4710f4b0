"""Tokens: made, found, revoked, and when they were last used.

A secret is `ent_` and 43 characters, 256 random bits. Only its SHA-256 is stored, which is enough for a random secret:
there is nothing to guess, so nothing to slow down.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db import connection, transaction
from django.utils import timezone

import problems
from accounts import scopes as scope_rules
from accounts.models import Token, User
from accounts.permissions import ANONYMOUS_USER
from basics.durations import duration

SHOWN = 10
"""Characters of a secret that are kept, to tell tokens apart: `ent_` and six."""

_SECRET = re.compile(r"ent_[A-Za-z0-9_-]{43}")


def create(
    user: User, name: str = "", expires_at: datetime | None = None, scopes: Iterable[str] | None = None
) -> tuple[Token, str]:
    """A new token of the user and its secret, which can never be read again.

    `expires_at` None: never. `scopes` None: all that its user may.
    Raises problems.Malformed for a time that has passed, a scope that is malformed, or a user who cannot sign in.
    """
    if not user.is_active or user.get_username() == ANONYMOUS_USER:
        raise problems.Malformed(f"{user.get_username()} cannot sign in, so a token would be of no use.")
    now = timezone.now()
    if expires_at is not None and expires_at <= now:
        raise problems.Malformed("The token would have expired already.")
    if len(name) > 100 or "\0" in name:
        raise problems.Malformed("A token's name has at most 100 characters, and no NUL.")
    secret = f"ent_{secrets.token_urlsafe(32)}"
    token = Token.objects.create(
        digest=digest(secret),
        prefix=secret[:SHOWN],
        user=user,
        name=name,
        scopes=scope_rules.checked(scopes),
        created_at=now,
        expires_at=expires_at,
    )
    return token, secret


def revoke(token: Token) -> None:
    """End the token at once and for good. Revoking it again changes nothing."""
    Token.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=timezone.now())
    token.refresh_from_db(fields=["revoked_at"])


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
