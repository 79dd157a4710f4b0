"""From an Authorization header to an actor, in exactly one query; a password that is not remembered costs more.

Basic carries a password, or a token as the password (with any user name) or as the user name (with no password); Bearer
carries a token, or a pass (`accounts.passes`). Whatever is wrong, the answer is one and the same, so that nobody learns
which users there are.
"""

from __future__ import annotations

import base64
import json
import unicodedata
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from django.contrib.auth.hashers import is_password_usable
from django.db import connection
from django.utils import timezone

import problems
from accounts import audit, passes, passwords, throttle, tokens
from accounts.actors import ANONYMOUS, Actor, Identity
from accounts.directories import signin
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
        raise _noted_refusal("header")
    match scheme.lower():
        case "basic":
            return _by_basic(credentials.strip(" "))
        case "bearer":
            secret = credentials.strip(" ")
            return _by_pass(secret) if passes.is_pass(secret) else by_token(secret)
    raise _noted_refusal("header")


def _by_basic(credentials: str) -> Identity:
    """RFC 7617, in UTF-8."""
    pair = _decoded(credentials)
    if pair is None or ":" not in pair or "\0" in pair:
        raise _noted_refusal("header")
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
        raise _noted_refusal("token")
    now = connection.ops.adapt_datetimefield_value(timezone.now())
    epoch, token_id, scopes, user_id, username, ends = _one(_TOKEN, [now, tokens.digest(secret), now])
    if user_id is None:
        raise _noted_refusal("token")
    tokens.used(token_id)
    narrowed = None if scopes is None else tuple(json.loads(scopes))
    return Identity(Actor(user_id, username, token_id, narrowed, ends=_moment(ends)), epoch)


def by_password(name: str, password: str) -> Identity:
    """Who a user's name and password sign in, by the password that is kept here or by a directory.

    A directory is never asked of a robot, nor of somebody whose password is kept here.
    Raises problems.Unauthenticated; TooMany where too many attempts failed; Unavailable where too many sign in at once, or a
    directory does not answer; Forbidden where a directory knows them who are not to be a user here (`people.admit`).
    """
    if "\0" in name or "\0" in password:  # which no name has, and no database takes
        raise _refused()
    if tokens.is_secret(password):  # typed where a password goes, and none to tell a directory
        raise _noted_refusal("password")
    name = unicodedata.normalize("NFKC", name)
    attempt = throttle.Attempt.of(name, audit.here().address)
    known = _Known(*_one(_PASSWORD, [*attempt.keys, name]))
    try:
        attempt.check(known.failures)
        signed = _by_directory(known, name, password) if known.is_elsewhere else _by_hash(known, name, password)
        if signed is None:
            attempt.failed()
            raise _refused()
        if signed.checked:
            attempt.check_again()
    except (problems.Unauthenticated, problems.TooMany, problems.Forbidden) as problem:
        audit.notice(audit.SIGN_IN, refused=True, subject=name[:150], detail={"by": "password", "rule": problem.rule})
        raise
    if signed.checked:
        by = replace(audit.here(), actor=signed.actor.name)
        audit.notice(audit.SIGN_IN, subject=signed.actor.name, detail={"by": signed.checked}, origin=by)
    # What a directory said just now, such as of a group that was left, may have begun another epoch.
    return Identity(signed.actor, current() if signed.checked == "directory" else known.epoch)


class _Known:
    """What is known of a name, and what failed lately."""

    def __init__(
        self, epoch: Any, user_id: int | None, username: str | None, stored: str | None, active: Any, robot: Any,
        source: str | None, *failures: Any,
    ):  # fmt: skip
        self.epoch, self.user_id, self.username = int(epoch), user_id, username or ""
        self.active, self.robot = bool(active), bool(robot)
        self.stored = stored if self.active and username != ANONYMOUS_USER else None
        self.source = source or ""
        self.failures = failures
        self.is_elsewhere = not self.robot and self.username != ANONYMOUS_USER and not is_password_usable(stored or "!")


@dataclass(frozen=True)
class _Signed:
    """Who signed in. `checked`: by what the password was found right; empty: it was remembered."""

    actor: Actor
    checked: str


def _by_hash(known: _Known, name: str, password: str) -> _Signed | None:
    """By the password that is kept here; of a user who has none the work is the same."""
    remembered = passwords.is_remembered(name, password, known.stored)
    if not passwords.matches(name, password, known.stored) or known.user_id is None:
        return None
    return _Signed(Actor(known.user_id, known.username), "" if remembered else "password")


def _by_directory(known: _Known, name: str, password: str) -> _Signed | None:
    directories = signin.asked(name, known.source, known.epoch)
    if not directories:
        return _by_hash(known, name, password)
    user_id = known.user_id if known.active else None
    user = signin.remembered(directories, name, password, user_id)
    checked = ""
    if user is None:
        user = signin.sign_in(directories, name, password, known.epoch)
        checked = "directory"
    if user is None:
        return None
    actor = Actor(user, known.username) if isinstance(user, int) else Actor(user.pk, user.username)
    return _Signed(actor, checked)


def _by_pass(text: str) -> Identity:
    """A pass is worth what the user, and the token that it was issued by, still are."""
    said = passes.read(text)
    if said is None:
        raise _noted_refusal("pass")
    now = connection.ops.adapt_datetimefield_value(timezone.now())
    epoch, user_id, username, token_id = _one(_PASS, [said.token_id, now, said.user_id])
    if (user_id, token_id) != (said.user_id, said.token_id):
        raise _noted_refusal("pass")
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


def _noted_refusal(by: str) -> problems.Unauthenticated:
    """The refusal of something else than a password. Nothing of what was sent is told to the audit: it may be a secret."""
    problem = _refused()
    audit.notice(audit.SIGN_IN, refused=True, detail={"by": by, "rule": problem.rule})
    return problem


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
SELECT epoch.number, person.id, person.username, person.password, person.is_active, person.robot,
    (SELECT min(source) FROM accounts_externalidentity WHERE user_id = person.id AND issuer LIKE 'directory:%%'),
    pair.failures, pair.failed_at, address.failures, address.failed_at, name.failures, name.failed_at
FROM accounts_epoch epoch
LEFT JOIN accounts_failedsignin pair ON pair.key = %s
LEFT JOIN accounts_failedsignin address ON address.key = %s
LEFT JOIN accounts_failedsignin name ON name.key = %s
LEFT JOIN accounts_user person ON person.username = %s
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
