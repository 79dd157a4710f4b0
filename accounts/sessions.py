"""Who is signed in with a browser: Django's database sessions, in a table that knows whose they are.

A session ends by itself IDLE after it was used last and LONGEST after it began, whichever comes first; at sign-out; and as soon
as its user gets another password or is no longer active. Only a hash of its key is stored.

This module is Django's SESSION_ENGINE.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends import db
from django.contrib.sessions.backends.base import SessionBase
from django.db.models import QuerySet
from django.utils import timezone

from accounts import audit
from accounts.models import Session, User

IDLE = timedelta(hours=12)
LONGEST = timedelta(days=7)
SEEN = timedelta(minutes=5)
"""How exactly it is kept when a session was used last."""
BEGAN, SEEN_AT, ADDRESS, AGENT = "began", "seen", "address", "agent"
"""What a session holds besides Django's own, which are the user's id and a hash that changes with their password."""


class SessionStore(db.SessionStore):
    """Django's, but that the table has a hash of the key, and columns of what is told of a session."""

    _new = False
    """Whether the key has no row yet."""

    @classmethod
    def get_model_class(cls) -> type[Session]:
        return Session

    def create_model_instance(self, data: dict[str, Any]) -> Session:
        began = datetime.fromisoformat(data[BEGAN])
        return Session(
            session_key=digest(self._get_or_create_session_key()),  # type: ignore[attr-defined]
            session_data=self.encode(data),
            expire_date=min(timezone.now() + IDLE, began + LONGEST),
            user_id=int(data[SESSION_KEY]),
            proof=data[HASH_SESSION_KEY],
            created_at=began,
            seen_at=datetime.fromisoformat(data[SEEN_AT]),
            address=data[ADDRESS],
            agent=data[AGENT],
        )

    def create(self) -> None:
        """A new key. It is stored with `save`, when it is known whose it is: nothing is kept of who is not signed in."""
        self._session_key = self._get_new_session_key()  # type: ignore[attr-defined]
        self._new = self.modified = True

    def save(self, must_create: bool = False) -> None:
        if self.session_key is None:
            self.create()
        super().save(must_create=self._new)
        self._new = False

    def exists(self, session_key: str) -> bool:
        return super().exists(digest(session_key))

    def delete(self, session_key: str | None = None) -> None:
        key = session_key or self.session_key
        if key is not None:
            super().delete(digest(key))

    def _get_session_from_db(self) -> Session | None:
        found = Session.objects.filter(session_key=digest(self.session_key or ""), expire_date__gt=timezone.now()).first()
        if found is None:
            self._session_key = None
        return found


def begin(session: SessionBase, address: str, agent: str) -> None:
    """Say of a session of which Django knows already whose it is when it began and where."""
    now = timezone.now().isoformat()
    session.update({BEGAN: now, SEEN_AT: now, ADDRESS: address[:45], AGENT: agent.replace("\0", "")[:300]})


def seen(session: SessionBase) -> None:
    """Say that a session is used now, so that it does not end yet."""
    now = timezone.now()
    if datetime.fromisoformat(session[SEEN_AT]) < now - SEEN:
        session[SEEN_AT] = now.isoformat()


def digest(key: str) -> str:
    """What is stored of a session's key. The key is random, so there is nothing to guess, and nothing to slow down."""
    return hashlib.sha256(key.encode()).hexdigest()


def of(user: User) -> QuerySet[Session]:
    """A user's sessions that have not ended, the newest first."""
    return Session.objects.filter(user=user, expire_date__gt=timezone.now()).order_by("-created_at", "session_key")


def end(sessions: QuerySet[Session]) -> int:
    """End sessions at once. Returns how many there were."""
    ended = list(sessions.select_related("user"))
    for one in ended:
        one.delete()
        audit.notice("session.end", subject=one.user.get_username(), detail={"began": one.created_at.isoformat()})
    return len(ended)


def user_saved(instance: User, update_fields: frozenset[str] | None = None, **_: Any) -> None:
    """End the sessions of a user who has another password now, or is not active: receiver of `post_save`, in its transaction."""
    if update_fields is not None and update_fields <= {"last_login"}:
        return
    found = Session.objects.filter(user=instance)
    end(found.exclude(proof=instance.get_session_auth_hash()) if instance.is_active else found)


def forget() -> int:
    """Remove what ended by itself. Returns how many rows."""
    count, _ = Session.objects.filter(expire_date__lte=timezone.now()).delete()
    return count
