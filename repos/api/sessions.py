"""Sessions: the browsers in which one is signed in, and for who manages users those of all.

A narrowed token sees none: whoever finds one cannot sign people out.
"""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import HttpResponse
from django.utils import timezone
from rest_framework.request import Request

from accounts import sessions
from accounts.models import Session
from repos.api.permissions import SignedIn, hidden
from repos.api.resource import Page, Query, Resource, moment
from repos.api.shapes import EndedShape, SessionShape, page_of
from repos.configuration.fields import TextField


class SessionPage(Page):
    user = TextField(required=False, max_length=150, help_text="only this user's")


class Whose(Query):
    user = TextField(required=False, max_length=150, help_text="whose; without it your own")


class OfSessions(Resource):
    permission_classes: Any = (SignedIn,)

    @property
    def seen(self) -> QuerySet[Session]:
        """The sessions that the caller may see and end."""
        found = Session.objects.select_related("user").filter(expire_date__gt=timezone.now())
        actor = self.caller.actor
        if self.caller.rights.allows_globally("user:manage"):
            return found
        return found.filter(user_id=actor.user_id or 0) if actor.scopes is None else found.none()


class Sessions(OfSessions):
    queries = {"GET": SessionPage, "DELETE": Whose}
    gives = {"GET": {200: page_of(SessionShape)}, "DELETE": {200: EndedShape}}

    def get(self, request: Request) -> HttpResponse:
        """The browsers in which you are signed in; of who manages users all, or those of one user."""
        after = self.after(str)
        found = self.seen.filter(session_key__gt=after[0] if after else "").order_by("session_key")
        if "user" in self.asked:
            found = found.filter(user__username=self.asked["user"])
        return self.page(found[: self.asked["limit"] + 1], session_document, lambda one: [one.session_key])

    def delete(self, request: Request) -> HttpResponse:
        """End all of your sessions; who manages users may say whose."""
        name = self.asked.get("user", self.caller.actor.name)
        return self.answer({"ended": sessions.end(self.seen.filter(user__username=name))})


class OneSession(OfSessions):
    gives = {"GET": {200: SessionShape}, "DELETE": {204: None}}
    tagged = True
    untagged = "seen_at"

    def get(self, request: Request, key: str) -> HttpResponse:
        """A session, without its secret, which nobody can read again."""
        return self.answer(session_document(self._found(key)))

    def delete(self, request: Request, key: str) -> HttpResponse:
        """End it: the browser is signed out with its next request."""
        found = self._found(key)
        self.require(session_document(found))
        sessions.end(self.seen.filter(pk=found.pk))
        return self.nothing()

    def _found(self, key: str) -> Session:
        found = None if "\0" in key else self.seen.filter(session_key=key).first()
        if found is None:
            raise hidden(self.caller, key)
        return found


def session_document(session: Session) -> dict[str, Any]:
    """What is told of a session; its id is a hash of its secret."""
    return {
        "id": session.session_key,
        "user": session.user.get_username(),
        "created_at": moment(session.created_at),
        "seen_at": moment(session.seen_at),
        "expires_at": moment(session.expire_date),
        "address": session.address,
        "agent": session.agent,
    }
