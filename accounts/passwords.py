"""Passwords: hashed with Argon2, and checked at most once a minute.

A check is slow on purpose, and clients that know only Basic send the password with each request. So a process remembers
for a minute that a password was right, under a key that only it can compute and that includes the stored hash: a new
password ends it at once, and neither password nor hash can be read from memory's copy.
"""

from __future__ import annotations

import hmac
import os
import secrets
import threading
import time

from django.contrib.auth.hashers import Argon2PasswordHasher, check_password

import problems

REMEMBERED = 60.0
"""Seconds for which a checked password is remembered."""

AT_MOST = 2048
"""Checked passwords that are remembered by one process."""

WAIT = 10.0
"""Seconds that a check waits for its turn."""


class Hasher(Argon2PasswordHasher):
    """Argon2id by the first setting of OWASP's Password Storage Cheat Sheet: 19 MiB, 2 passes, 1 lane.

    Django's own takes 100 MiB for each check, so a few sign-ins at once would take the memory of a small machine.
    """

    time_cost = 2
    memory_cost = 19_456
    parallelism = 1


_KEY = secrets.token_bytes(32)
_TURNS = threading.BoundedSemaphore(max(2, os.cpu_count() or 1))
_lock = threading.Lock()
_right: dict[bytes, tuple[float, int]] = {}
"""Until when a password is remembered, and whom it signs in where that is not known by the name."""


def matches(user: str, password: str, stored: str | None) -> bool:
    """Whether the password is the one that `stored` is the hash of. None: there is no such user; the work is the same.

    Raises problems.Unavailable when too many wait to be checked.
    """
    if is_remembered(user, password, stored):
        return True
    if not _TURNS.acquire(timeout=WAIT):
        raise problems.Unavailable("Too many are signing in at once. Try again.", headers={"Retry-After": "5"})
    try:
        # Of a hundred connections with one password, those that waited find it checked.
        if is_remembered(user, password, stored):
            return True
        # Django does the work of a check for "!", the hash that no password has.
        if not check_password(password, stored or "!") or not password:
            return False
    finally:
        _TURNS.release()
    recall(0, user, stored or "", password)
    return True


def is_remembered(user: str, password: str, stored: str | None) -> bool:
    """Whether the password was found right a moment ago."""
    return recalled(user, stored or "", password) is not None


def recalled(*words: str) -> int | None:
    """What `recall` was given with these words, less than REMEMBERED ago."""
    until, user_id = _right.get(_key(words), (0.0, 0))
    return user_id if until > time.monotonic() else None


def recall(user_id: int, *words: str) -> None:
    """Remember that these words, a password among them, sign in this user."""
    key = _key(words)
    with _lock:
        _right.pop(key, None)
        while len(_right) >= AT_MOST:
            del _right[next(iter(_right))]
        _right[key] = time.monotonic() + REMEMBERED, user_id


def forget() -> None:
    """Forget all checked passwords of this process."""
    with _lock:
        _right.clear()


def _key(words: tuple[str, ...]) -> bytes:
    return hmac.digest(_KEY, "\0".join(words).encode(), "sha256")
