"""My account: who I am and what I may, my tokens, my sessions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import Group
from django.db.models import Q
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts import sessions as browser_sessions
from accounts import tokens as token_rules
from accounts.access import Grant
from accounts.grants import Kind
from accounts.models import ExternalIdentity, ExternalMembership, Token
from accounts.permissions import PERMISSIONS
from problems import Malformed, NotFound, Problem
from repos.serve import base_url
from repos.ui.door import caller_of, page, refused, show, to, user_of

SOON = timedelta(days=14)
"""How long before its end a token is marked."""
MOST_SHOWN = 200
LIFETIMES = (("7d", gettext_lazy("7 days")), ("30d", gettext_lazy("30 days")), ("90d", gettext_lazy("90 days")),
             ("365d", gettext_lazy("a year")), ("", gettext_lazy("never")))  # fmt: skip
DEFAULT_LIFETIME = "90d"
TO = {
    Kind.USER: gettext_lazy("you"),
    Kind.GROUP: gettext_lazy("group"),
    Kind.AUTHENTICATED: gettext_lazy("everybody who is signed in"),
    Kind.ANONYMOUS: gettext_lazy("everybody"),
}


@page("GET", to_all=True)
def home(request: HttpRequest) -> HttpResponseBase:
    """Where everybody begins."""
    return to("sign-in" if caller_of(request).actor.anonymous else "account")


@page("GET", "POST", to_all=True)
def nothing(request: HttpRequest) -> HttpResponseBase:
    raise NotFound(_("there is no page at this address"))


# Who I am


@page("GET")
def account(request: HttpRequest) -> HttpResponseBase:
    """Who one is, in which groups, and by which grants one may what."""
    user, caller = user_of(request), caller_of(request)
    identities = list(ExternalIdentity.objects.filter(user=user).prefetch_related("memberships").order_by("source"))
    external = ExternalMembership.objects.filter(identity__user=user).values("name")
    groups = Group.objects.filter(Q(user=user) | Q(external_names__name__in=external)).order_by("name").distinct()
    told = {
        "user": user,
        "groups": [group.name for group in groups],
        "identities": [{"source": one.source, "seen_at": one.seen_at, "groups": _names(one)} for one in identities],
        "grants": sorted({_grant(grant) for grant in caller.rights.grants}),
    }
    return show(request, "account.html", told)


def _names(identity: ExternalIdentity) -> list[str]:
    return sorted(membership.name for membership in identity.memberships.all())


@dataclass(frozen=True, order=True)
class ShownGrant:
    """A grant in words: which role, where, and by way of whom."""

    role: str
    repositories: str
    paths: str
    to: str
    permissions: str


def _grant(grant: Grant) -> ShownGrant:
    entry = grant.entry
    words = ", ".join(sorted(grant.permissions))
    if entry is None:  # implied: what the first start made may be read by all on this machine
        return ShownGrant("", grant.repository, grant.path, str(TO[Kind.ANONYMOUS]), words)
    whom = str(TO[Kind(entry.kind)])
    return ShownGrant(
        entry.role, grant.repository, grant.path, f"{whom} {entry.name}" if entry.kind == Kind.GROUP else whom, words
    )


# My tokens


@page("GET", "POST")
def tokens(request: HttpRequest) -> HttpResponseBase:
    """One's tokens, and a form that makes another: its secret is in the answer to that, once."""
    if request.method == "POST":
        return _make_token(request)
    return show(request, "tokens.html", _of_tokens(request))


def _make_token(request: HttpRequest) -> HttpResponse:
    try:
        token, secret = token_rules.create(
            user_of(request), request.POST.get("name", "").strip(), _ends(request), _scopes(request)
        )  # fmt: skip
    except Problem as problem:
        return refused(request, problem, "tokens.html", _of_tokens(request))
    return show(request, "tokens.html", {**_of_tokens(request), "made": token, "secret": secret}, 201)


def _ends(request: HttpRequest) -> datetime | None:
    chosen = request.POST.get("lifetime", "")
    if chosen not in dict(LIFETIMES):
        raise Malformed(_("choose how long the token is to last"), rule="token.lifetime")
    return timezone.now() + token_rules.lifetime(chosen) if chosen else None


def _scopes(request: HttpRequest) -> list[str] | None:
    """A scope a line; none at all: all that the user may."""
    lines = [line.strip() for line in request.POST.get("scopes", "").splitlines()]
    return [line for line in lines if line] or None


def _of_tokens(request: HttpRequest) -> dict[str, Any]:
    """What the page shows: those that can be used before those that cannot any more, of which not all."""
    found = Token.objects.filter(user_id=caller_of(request).actor.user_id or 0).order_by("-pk")
    shown = [_token(token) for token in found[:MOST_SHOWN]]
    return {
        "tokens": sorted(shown, key=lambda one: one["ended"]),
        "soon": [one for one in shown if one["soon"]],
        "lifetimes": LIFETIMES,
        "lifetime": request.POST.get("lifetime", DEFAULT_LIFETIME),
        "name": request.POST.get("name", ""),
        "scopes": request.POST.get("scopes", ""),
        "permissions": sorted(PERMISSIONS),
        "server": base_url(request),
    }


def _token(token: Token) -> dict[str, Any]:
    now = timezone.now()
    expired = token.expires_at is not None and token.expires_at <= now
    ended = expired or token.revoked_at is not None
    soon = not ended and token.expires_at is not None and token.expires_at < now + SOON
    return {"token": token, "expired": expired, "ended": ended, "soon": soon}


@page("POST")
def revoke(request: HttpRequest, number: int) -> HttpResponseBase:
    """End one of one's own tokens."""
    own = Token.objects.filter(user_id=caller_of(request).actor.user_id or 0)
    token = own.filter(pk=number).first() if number < 2**63 else None
    if token is None:
        raise NotFound(_("you have no such token"))
    token_rules.revoke(token)
    return to("tokens")


# My sessions


@page("GET")
def sessions(request: HttpRequest) -> HttpResponseBase:
    """Where one is signed in."""
    here = _here(request)
    told = [{"session": one, "here": one.session_key == here} for one in browser_sessions.of(user_of(request))[:MOST_SHOWN]]
    return show(request, "sessions.html", {"sessions": told})


@page("POST")
def end_session(request: HttpRequest, key: str) -> HttpResponseBase:
    """End one of one's own sessions."""
    found = browser_sessions.of(user_of(request)).filter(session_key=key)
    if not browser_sessions.end(found):
        raise NotFound(_("you have no such session"))
    return to("sessions")


@page("POST")
def end_sessions(request: HttpRequest) -> HttpResponseBase:
    """End all of one's own sessions but this one."""
    browser_sessions.end(browser_sessions.of(user_of(request)).exclude(session_key=_here(request)))
    return to("sessions")


def _here(request: HttpRequest) -> str:
    return browser_sessions.digest(request.session.session_key or "")
