"""The exchange of a job's token for one of a robot's (RFC 8693), for programs that have no other credential."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl

from django.http import HttpResponse
from rest_framework import serializers
from rest_framework.request import Request

from accounts import epoch, trusts
from accounts.trusts import Asked
from problems import Malformed, Problem, TooMany, Unauthenticated
from repos import catalogue
from repos.api.permissions import Anybody
from repos.api.resource import JSON, Resource
from repos.api.shapes import GivenTokenShape, OAuthProblemShape
from repos.configuration.fields import TextField

FORM = "application/x-www-form-urlencoded"
GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN, JWT, ID_TOKEN = (f"urn:ietf:params:oauth:token-type:{word}" for word in ("access_token", "jwt", "id_token"))
ERRORS = {"exchange.grant": "unsupported_grant_type", "trust.scopes": "invalid_scope"}
"""By rule; what else the client may do something about is `invalid_request`, as RFC 8693 section 2.2.2 has it."""
UNTOLD = re.compile(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]")
"""What stands in no error_description."""


class Exchanged(serializers.Serializer):
    """The parameters of RFC 8693 section 2.1, and ours. Those that are not known are let be (RFC 6749 section 3.2)."""

    grant_type = serializers.ChoiceField(choices=[GRANT])
    subject_token = TextField(help_text="the token that the job's own system signed for it")
    subject_token_type = serializers.ChoiceField(choices=[JWT, ID_TOKEN])
    requested_token_type = serializers.ChoiceField(choices=[ACCESS_TOKEN], required=False)
    scope = TextField(required=False, allow_blank=True, help_text="PERMISSION@REPOSITORY-GLOB[:PATH-GLOB], divided by spaces")
    trust = TextField(required=False, allow_blank=True, help_text="of several trusts that let the token in: which")
    robot = TextField(required=False, allow_blank=True, help_text="or of which robot")


class Exchange(Resource):
    """RFC 6749 section 5.2 says how a client of this is told of errors."""

    authentication_classes: Any = ()
    permission_classes: Any = (Anybody,)
    bounded = True
    body_types = (FORM,)
    takes = {"POST": Exchanged}
    gives = {"POST": {200: GivenTokenShape}}
    examples = {"POST": {"grant_type": GRANT, "subject_token_type": JWT, "subject_token": "eyJhbGciOi..."}}
    largest = 32 * 1024
    problem_type = JSON
    problem_shape = OAuthProblemShape

    def post(self, request: Request) -> HttpResponse:
        """Exchange a token that an issuer of `trusts` signed for a token of the robot that the trust names."""
        asked = self._asked()
        now = epoch.current()
        allowed = catalogue.load(now).egress
        try:
            token, secret = trusts.exchange(asked, trusts.configured(now, allowed))
        except Unauthenticated as problem:  # 401 is for who has a credential of its own to show (RFC 6749 section 5.2)
            raise Malformed(problem.detail, rule=problem.rule) from None
        told: dict[str, Any] = {
            "access_token": secret,
            "issued_token_type": ACCESS_TOKEN,
            "token_type": "Bearer",
            "expires_in": int((token.expires_at - token.created_at).total_seconds()) if token.expires_at else 0,
        }
        if token.scopes is not None:
            told["scope"] = " ".join(token.scopes)
        return self.answer(told)

    def details(self, problem: Problem) -> dict[str, Any]:
        later = problem.status >= 500 or isinstance(problem, TooMany)
        error = "temporarily_unavailable" if later else ERRORS.get(problem.rule, "invalid_request")
        return {**super().details(problem), "error": error, "error_description": UNTOLD.sub("?", problem.detail)}

    def _asked(self) -> Asked:
        said = self.checked(Exchanged, self._form())
        wanted = tuple(said.get("scope", "").split())
        return Asked(said["subject_token"], said.get("trust", ""), said.get("robot", ""), wanted)

    def _form(self) -> dict[str, str]:
        try:
            pairs = parse_qsl(self.text(), keep_blank_values=True, max_num_fields=50, errors="strict")
        except ValueError:
            raise Malformed("the body is no form", rule="body.form") from None
        form = dict(pairs)
        if len(form) < len(pairs):
            raise Malformed("a parameter stands twice", rule="parameter.twice")
        if form.get("grant_type", GRANT) != GRANT:
            raise Malformed(f"grant_type is {GRANT}", rule="exchange.grant")
        if "actor_token" in form:
            raise Malformed("a token for somebody who acts for another is not taken", rule="exchange.actor")
        return form
