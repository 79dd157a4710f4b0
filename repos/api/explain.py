"""May somebody do something, and why? Who is signed in may ask of themselves; who manages users, or the repository, of others."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from rest_framework.request import Request

from accounts import scopes as scope_rules
from accounts.models import Token
from accounts.permissions import ANONYMOUS_USER
from problems import Forbidden
from repos import explain
from repos.api.permissions import SignedIn, exercised, hidden
from repos.api.resource import Query, Resource
from repos.api.shapes import ExplainedShape
from repos.caller import Caller, open_on_loopback
from repos.configuration.fields import TextField
from repos.explain import Asker, Explained, Somebody


class ExplainQuery(Query):
    user = TextField(required=False, max_length=150, help_text="who; `anonymous` for everybody; without it you, as you ask")
    action = TextField(max_length=40, help_text="read, write, overwrite, delete or manage; or a global permission")
    repository = TextField(required=False, max_length=100, help_text="its key; without it a global permission is asked for")
    path = TextField(
        required=False, allow_blank=True, max_length=1024, help_text="of an artefact, or a package; without it any"
    )  # fmt: skip
    token = TextField(required=False, max_length=18, help_text="the id of a token of theirs, with which they would ask")
    scope = TextField(required=False, max_length=8000, help_text="scopes that a token of theirs would have, with spaces between")


class Explain(Resource):
    permission_classes: Any = (SignedIn,)
    queries = {"GET": ExplainQuery}
    gives = {"GET": {200: ExplainedShape}}

    def get(self, request: Request) -> HttpResponse:
        """Which grants and scopes allow it, or what is missing."""
        words = ("user", "action", "repository", "path", "token", "scope")
        implied = open_on_loopback(request._request, self.caller.repositories)
        found = answer(self.caller, implied, **{word: self.asked.get(word, "") for word in words})
        return self.answer(explain.document(found))


def answer(
    caller: Caller, implied: explain.Implied, *, user: str, action: str, repository: str, path: str, token: str, scope: str
) -> Explained:
    """To a question of the caller's. `implied`: what is open to who asks as they do. Raises NotFound, Forbidden, Malformed."""
    asker = Asker(caller.rights, own=user in ("", caller.actor.name, ANONYMOUS_USER))
    if not asker.own:
        _check_may_ask(caller, asker, repository)
    who = _about(caller, implied, user or caller.actor.name, token, scope)
    return explain.ask(asker, who, action, repository, path, caller.repositories.values())


def _check_may_ask(caller: Caller, asker: Asker, repository: str) -> None:
    if caller.rights.allows_globally("user:manage"):
        exercised(caller, "user:manage")
    elif repository and asker.manages(repository):
        exercised(caller, explain.MANAGE, repository)
    else:
        raise Forbidden(
            f"{caller.actor.name} may ask about themselves; about others it takes user:manage, or repository:manage on the"
            " repository that is asked about",
            rule="user:manage",
        )


def _about(caller: Caller, implied: explain.Implied, name: str, token: str, scope: str) -> Somebody:
    """Who asks about themselves with a narrowed token is told what that may, and no more."""
    own = name == caller.actor.name
    narrowed = scope_rules.checked(scope.split()) if scope else None
    if own and not token and narrowed is None:
        return Somebody(caller.actor, caller.rights)
    found = _token(caller, token) if token else None
    if own and caller.actor.scopes is not None and (found is None or found.pk != caller.actor.token_id):
        raise Forbidden("a token with scopes asks about itself alone; sign in otherwise to ask more", rule="token.scopes")
    return explain.somebody(name, caller.epoch, implied, found, narrowed)


def _token(caller: Caller, number: str) -> Token:
    """One of the caller's; of who manages users anybody's. Any other is as absent."""
    found = Token.objects.filter(pk=int(number)).first() if number.isdecimal() else None
    seen = found is not None and (found.user_id == caller.actor.user_id or caller.rights.allows_globally("user:manage"))
    if found is None or not seen:
        raise hidden(caller, number)
    return found
