"""May somebody do something, and why? Who is signed in may ask of themselves; who manages users, or the repository, of others."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from rest_framework.request import Request

from repos import explain
from repos.api.permissions import SignedIn
from repos.api.resource import Query, Resource
from repos.api.shapes import ExplainedShape
from repos.caller import open_on_loopback
from repos.configuration.fields import TextField


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
        found = explain.asked(self.caller, implied, **{word: self.asked.get(word, "") for word in words})
        return self.answer(explain.document(found))
