"""Passes: short statements, signed by this installation, that say who asks and what of their rights they use.

What a token endpoint hands out to clients that want one for a few minutes (Docker's token flow). A pass is no credential of
its own: it names the user, and the token by which they signed in, and both must still be good when it is shown.

The signature is Django's: HMAC-SHA256 with a key derived from ENTREPOT_SECRET_KEY. The form is fixed and no part of a pass
says how it is to be checked, so there is nothing to confuse (`alg`, `jwk` and the like of other forms).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from django.core import signing

from accounts.actors import Actor

LIFETIME = timedelta(minutes=5)
PREFIX = "entp_"
"""What a pass begins with, so that it is never taken for a token."""
_SIGNER = signing.Signer(salt="accounts.passes", sep=".")  # all of it may stand in a header (RFC 6750 section 2.1)


@dataclass(frozen=True, slots=True)
class Pass:
    """What a pass says: the user's id (None: anonymous), the id of the token they used, if any, scopes, and when it ends."""

    user_id: int | None
    token_id: int | None
    scopes: tuple[str, ...]
    until: float


def issue(actor: Actor, scopes: Iterable[str]) -> str:
    """A pass for the actor, narrowed to `scopes`, which their own rights must cover already: nothing is checked here."""
    until = time.time() + LIFETIME.total_seconds()
    return PREFIX + _SIGNER.sign_object([actor.user_id, actor.token_id, list(scopes), until], compress=True)


def is_pass(text: str) -> bool:
    return text.startswith(PREFIX)


def read(text: str) -> Pass | None:
    """What a pass says; None where it is not ours or has expired."""
    try:
        user_id, token_id, scopes, until = _SIGNER.unsign_object(text.removeprefix(PREFIX))
    except signing.BadSignature:
        return None
    return Pass(user_id, token_id, tuple(scopes), until) if time.time() < until else None
