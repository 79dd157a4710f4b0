"""From an Authorization header to an actor, in exactly one query.

Basic carries a password, or a token as the password (with any user name) or as the user name (with no password); Bearer
carries a token, or a pass (`accounts.passes`). Whatever is wrong, the answer is one and the same, so that nobody learns
which users there are.
"""

from __future__ import annotations

import base64
import json
import unicodedata
from datetime import UTC, datetime
from typing import Any

from django.db import connection
from django.utils import timezone

import problems
from accounts import passes, passwords, tokens
from accounts.actors import ANONYMOUS, Actor, Identity
from accounts.epoch import current, number_in
from accounts.permissions import ANONYMOUS_USER

__all__ = ["ANONYMOUS", "Actor", "Identity", "authenticate"]

CHALLENGE = 'Basic realm="Entrepot", charset="UTF-8"'
"""What a 401 says of how to sign in (RFC 7617), where the client has no other way of its own."""
LONGEST = 8192
"""Characters of the header that are looked at."""


def authenticate(authorization: str | None) -> Identity:
    """Who asks, by the value of the Authorization header; None: there is none.

    Raises problems.Unauthenticated for all that does not sign in, and problems.Unavailable when too many try at once.
    """
    if authorization is None:
        return Identity(ANONYMOUS, current())
    scheme, _, credentials = authorization.partition(" ")
    if len(authorization) > LONGEST or "\0" in authorization:
        raise _refused()
    match scheme.lower():
        case "basic":
            return _by_basic(credentials.strip(" "))
        case "bearer":
            secret = credentials.strip(" ")
            return _by_pass(secret) if passes.is_pass(secret) else by_token(secret)
    raise _refused()


def _by_basic(credentials: str) -> Identity:
    """RFC 7617, in UTF-8."""
    pair = _decoded(credentials)
    if pair is None or ":" not in pair or "\0" in pair:
        raise _refused()
    name, _, password = pair.partition(":")
    if tokens.is_secret(password):
        return by_token(password)
    if tokens.is_secret(name) and not password:
        return by_token(name)
    return by_password(name, password)


def _decoded(credentials: str) -> str | None:
    try:
        return base64.b64decode(credentials, validate=True).decode()
    except ValueError:
        # Not raised from here: the error holds what it could not decode, which may be a secret.
        return None


def by_token(secret: str) -> Identity:
    """Who a token's secret signs in. Raises problems.Unauthenticated."""
    if not tokens.is_secret(secret):
        raise _refused()
    now = connection.ops.adapt_datetimefield_value(timezone.now())
    epoch, token_id, scopes, user_id, username, ends = _one(_TOKEN, [now, tokens.digest(secret), now])
    if user_id is None:
        raise _refused()
    tokens.used(token_id)
    narrowed = None if scopes is None else tuple(json.loads(scopes))
    return Identity(Actor(user_id, username, token_id, narrowed, ends=_moment(ends)), epoch)


def by_password(name: str, password: str) -> Identity:
    """Who a user's name and password sign in. Raises problems.Unauthenticated, problems.Unavailable."""
    name = unicodedata.normalize("NFKC", name)
    epoch, user_id, username, stored = _one(_PASSWORD, [name, ANONYMOUS_USER])
    if not passwords.matches(name, password, stored):
        raise _refused()
    return Identity(Actor(user_id, username), epoch)


def _by_pass(text: str) -> Identity:
    """A pass is worth what the user, and the token that it was issued by, still are."""
    said = passes.read(text)
    if said is None:
        raise _refused()
    now = connection.ops.adapt_datetimefield_value(timezone.now())
    epoch, user_id, username, token_id = _one(_PASS, [said.token_id, now, said.user_id])
    if (user_id, token_id) != (said.user_id, said.token_id):
        raise _refused()
    return Identity(Actor(user_id, username or ANONYMOUS.name, token_id, said.scopes, said.until), epoch)


def _moment(value: Any) -> datetime | None:
    """A moment that a query computed, which SQLite gives as text."""
    if value is None:
        return None
    found = datetime.fromisoformat(value) if isinstance(value, str) else value
    return found.replace(tzinfo=found.tzinfo or UTC)


def _one(sql: str, parameters: list[Any]) -> tuple[Any, ...]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        row = cursor.fetchone()
    number_in(row)
    return row


def _refused() -> problems.Unauthenticated:
    return problems.Unauthenticated("The user name, password or token is not valid.", rule="credentials")


_TOKEN = """
SELECT epoch.number, token.id, token.scopes, person.id, person.username,
    CASE WHEN token.warn_at <= %s THEN token.expires_at END
FROM accounts_epoch epoch
LEFT JOIN accounts_token token ON token.digest = %s
    AND token.revoked_at IS NULL AND (token.expires_at IS NULL OR token.expires_at > %s)
LEFT JOIN accounts_user person ON person.id = token.user_id AND person.is_active
WHERE epoch.id = 1
"""

_PASSWORD = """
SELECT epoch.number, person.id, person.username, person.password
FROM accounts_epoch epoch
LEFT JOIN accounts_user person ON person.username = %s AND person.is_active AND person.username <> %s
WHERE epoch.id = 1
"""

_PASS = """
SELECT epoch.number, person.id, person.username, token.id
FROM accounts_epoch epoch
LEFT JOIN accounts_token token ON token.id = %s
    AND token.revoked_at IS NULL AND (token.expires_at IS NULL OR token.expires_at > %s)
LEFT JOIN accounts_user person ON person.id = %s AND person.is_active
WHERE epoch.id = 1
"""
