"""Where to begin, and who one is."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from rest_framework.request import Request

from accounts.access import Grant
from accounts.models import Token
from repos.api.permissions import Anybody, SignedIn
from repos.api.resource import Resource, moment
from repos.api.shapes import MeShape
from repos.serve import base_url

COLLECTIONS = ("configuration", "schema", "me", "repositories", "history", "egress", "hosts", "roles", "groups", "users",
               "grants", "directories", "providers", "trusts", "tokens", "sessions", "exchange", "jobs", "audit", "explain",
               "reviews")  # fmt: skip


class Index(Resource):
    """Where everything is."""

    permission_classes: Any = (Anybody,)
    gives = {"GET": {200: dict}}
    open = True

    def get(self, request: Request) -> HttpResponse:
        here = f"{base_url(request._request)}{request.path}"
        return self.answer({name: f"{here}{name}/" for name in COLLECTIONS})


class Me(Resource):
    """Who the caller is, and all that they may: what a grant and, where the token has scopes, a scope allow."""

    permission_classes: Any = (SignedIn,)
    gives = {"GET": {200: MeShape}}

    def get(self, request: Request) -> HttpResponse:
        actor, rights = self.caller.actor, self.caller.rights
        token = Token.objects.filter(pk=actor.token_id or 0).first()
        told = {
            "name": actor.name,
            "token": token and {"id": token.pk, "expires_at": moment(token.expires_at), "scopes": token.scopes},
            "grants": [_grant(grant) for grant in rights.grants],
        }
        return self.answer(told)


def _grant(grant: Grant) -> dict[str, Any]:
    return {"permissions": sorted(grant.permissions), "repositories": grant.repository, "paths": grant.path}
