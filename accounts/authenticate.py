"""From an Authorization header to an actor, in exactly one query.

Basic carries a password, or a token as the password (with any user name) or as the user name (with no password); Bearer
carries a token. Whatever is wrong, the answer is one and the same, so that nobody learns which users there are.
"""

from __future__ import annotations

import base64
import json
import unicodedata
from typing import Any

from django.db import connection
from django.utils import timezone

import problems
from accounts import passwords, tokens
from accounts.actors import ANONYMOUS, Actor, Identity
from accounts.epoch import current, number_in
from accounts.permissions import ANONYMOUS_USER

__all__ = ["ANONYMOUS", "Actor", "Identity", "authenticate"]

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
            return _by_token(credentials.strip(" "))
    raise _refused()


def _by_basic(credentials: str) -> Identity:
    """RFC 7617, in UTF-8."""
    pair = _decoded(credentials)
    if pair is None or ":" not in pair or "\0" in pair:
        raise _refused()
    name, _, password = pair.partition(":")
    if tokens.is_secret(password):
        return _by_token(password)
    if tokens.is_secret(name) and not password:
        return _by_token(name)
    return _by_password(unicodedata.normalize("NFKC", name), password)


def _decoded(credentials: str) -> str | None:
    try:
        return base64.b64decode(credentials, validate=True).decode()
    except ValueError:
        # Not raised from here: the error holds what it could not decode, which may be a secret.
        return None


def _by_token(secret: str) -> Identity:
    if not tokens.is_secret(secret):
        raise _refused()
    now = connection.ops.adapt_datetimefield_value(timezone.now())
    epoch, token_id, scopes, user_id, username = _one(_TOKEN, [tokens.digest(secret), now])
    if user_id is None:
        raise _refused()
    tokens.used(token_id)
    narrowed = None if scopes is None else tuple(json.loads(scopes))
    return Identity(Actor(user_id, username, token_id, narrowed), epoch)


def _by_password(name: str, password: str) -> Identity:
    epoch, user_id, username, stored = _one(_PASSWORD, [name, ANONYMOUS_USER])
    if not passwords.matches(name, password, stored):
        raise _refused()
    return Identity(Actor(user_id, username), epoch)


def _one(sql: str, parameters: list[Any]) -> tuple[Any, ...]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        row = cursor.fetchone()
    number_in(row)
    return row


def _refused() -> problems.Unauthenticated:
    return problems.Unauthenticated("The user name, password or token is not valid.", rule="credentials")


_TOKEN = """
SELECT epoch.number, token.id, token.scopes, person.id, person.username
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
