"""Tokens: one's own, and for who manages users those of all.

A token is never wider than what made it: made with a token, its scopes lie within that one's, and it ends no later. A narrowed
token sees and ends itself alone, so that whoever finds one cannot end the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpResponse
from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request

from accounts import scopes, tokens
from accounts.models import Token, User
from problems import Forbidden, Unauthenticated
from repos.api.permissions import SignedIn, exercised, hidden
from repos.api.resource import Page, Resource, moment
from repos.api.shapes import MadeTokenShape, TokenShape, page_of
from repos.configuration.fields import Item, TextField

STATES: dict[str, Callable[[QuerySet[Token]], QuerySet[Token]]] = {
    "active": tokens.active,
    "expired": lambda found: found.filter(expires_at__lte=timezone.now(), revoked_at=None),
    "revoked": lambda found: found.exclude(revoked_at=None),
}


class TokenPage(Page):
    user = TextField(required=False, max_length=150, help_text="only this user's")
    state = serializers.ChoiceField(choices=list(STATES), required=False, help_text="only those that sign in, or do not any more")
    expiring = serializers.ChoiceField(choices=["true"], required=False, help_text="only those that sign in and expire soon")


class NewToken(Item):
    name = TextField(required=False, allow_blank=True, max_length=100, help_text="what it is for")
    user = TextField(required=False, max_length=150, help_text="whose; without it your own")
    scopes = serializers.ListField(
        child=TextField(max_length=3000), required=False, allow_null=True, max_length=scopes.AT_MOST,
        help_text="PERMISSION@REPOSITORY-GLOB[:PATH-GLOB]; without it as wide as what makes it",
    )  # fmt: skip
    expires_at = serializers.DateTimeField(required=False, allow_null=True, help_text="without it as late as what makes it")


class OfTokens(Resource):
    permission_classes: Any = (SignedIn,)

    @property
    def manages(self) -> bool:
        managing = self.caller.rights.allows_globally("user:manage")
        if managing:
            exercised(self.caller, "user:manage")
        return managing

    @property
    def seen(self) -> QuerySet[Token]:
        """The tokens that the caller may see and end."""
        actor = self.caller.actor
        found = Token.objects.select_related("user")
        if self.manages:
            return found
        return found.filter(pk=actor.token_id or 0) if actor.scopes is not None else found.filter(user_id=actor.user_id or 0)


class Tokens(OfTokens):
    bounded = True
    queries = {"GET": TokenPage}
    takes = {"POST": NewToken}
    gives = {"GET": {200: page_of(TokenShape)}, "POST": {201: MadeTokenShape}}
    examples = {"POST": {"name": "pipeline", "scopes": ["artifact:read@go*"], "expires_at": "2099-01-01T00:00:00Z"}}

    def get(self, request: Request) -> HttpResponse:
        """Your tokens; of who manages users all, or those of one user."""
        after = self.after(int)
        found = self.seen.filter(pk__gt=after[0] if after else 0).order_by("pk")
        if "user" in self.asked:
            found = found.filter(user__username=self.asked["user"])
        if "state" in self.asked:
            found = STATES[self.asked["state"]](found)
        if "expiring" in self.asked:
            found = tokens.expiring(found)
        return self.page(found[: self.asked["limit"] + 1], token_document, lambda token: [token.pk])

    def post(self, request: Request) -> HttpResponse:
        """Make a token. Its secret is in this answer, once."""
        asked = self.checked(NewToken, self.body())
        with transaction.atomic():
            token, secret = self._make(asked)
        headers = {"Location": f"{request.path}{token.pk}/"}
        return self.answer({**token_document(token), "secret": secret}, 201, headers)

    def _make(self, asked: dict[str, Any]) -> tuple[Token, str]:
        user = self._user(asked.get("user"))
        made_by = self._made_by()
        wanted, expires_at = asked.get("scopes"), asked.get("expires_at")
        if made_by is not None:
            if made_by.trust:
                raise Forbidden("a token that a trust gave makes no others; exchange another one", rule="token.trust")
            wanted = made_by.scopes if wanted is None else wanted
            expires_at = expires_at or made_by.expires_at
            self._check_narrower(made_by, wanted, expires_at)
        return tokens.create(user, asked.get("name", ""), expires_at, wanted)

    def _made_by(self) -> Token | None:
        """The token that was sent, if one was, held so that it cannot be revoked and leave another behind."""
        token_id = self.caller.actor.token_id
        if token_id is None:
            return None
        token = Token.objects.select_for_update().filter(pk=token_id, revoked_at=None).first()
        if token is None:
            raise Unauthenticated("the token that you sent has just been revoked", rule="credentials")
        return token

    def _user(self, name: str | None) -> User:
        """Whose the token is to be. To act for another person is nobody's to give."""
        user = User.objects.filter(username=name).first() if name is not None else None
        own = name is None or name == self.caller.actor.name
        if own:
            return User.objects.get(pk=self.caller.actor.user_id or 0)
        if not self.manages or user is None:
            raise hidden(self.caller, str(name))
        if not user.robot:
            raise Forbidden(f"{name} is a person, who makes tokens of their own; make one for a robot", rule="token.person")
        return user

    def _check_narrower(self, made_by: Token, wanted: list[str] | None, expires_at: Any) -> None:
        scopes.checked(wanted)
        if made_by.scopes is not None:
            for scope in wanted or []:
                if not any(scopes.within(scope, outer) for outer in made_by.scopes):
                    raise Forbidden(f"{scope} is not within the scopes of the token that you sent", rule="token.scopes")
        if made_by.expires_at is not None and expires_at > made_by.expires_at:
            raise Forbidden("the new token would outlive the one that you sent; let it expire no later", rule="token.expires")


class OneToken(OfTokens):
    gives = {"GET": {200: TokenShape}, "DELETE": {204: None}}
    tagged = True
    untagged = "last_used_at"

    def get(self, request: Request, number: int) -> HttpResponse:
        """A token, without its secret, which nobody can read again."""
        return self.answer(token_document(self._found(number)))

    def delete(self, request: Request, number: int) -> HttpResponse:
        """End it at once and for good; it stays in the list."""
        token = self._found(number)
        self.require(token_document(token))
        tokens.revoke(token)
        return self.nothing()

    def _found(self, number: int) -> Token:
        token = self.seen.filter(pk=number).first() if number < 2**63 else None
        if token is None:
            raise hidden(self.caller, str(number))
        return token


def token_document(token: Token) -> dict[str, Any]:
    """What is told of a token; only a hash of its secret is known."""
    return {
        "id": token.pk,
        "prefix": token.prefix,
        "user": token.user.get_username(),
        "name": token.name,
        "scopes": token.scopes,
        "created_at": moment(token.created_at),
        "expires_at": moment(token.expires_at),
        "last_used_at": moment(token.last_used_at),
        "revoked_at": moment(token.revoked_at),
        "expires_soon": tokens.expires_soon(token),
        "trust": token.trust or None,
    }
