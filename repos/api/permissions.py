"""Who may ask a resource. Every resource names one of these; whatever names none is closed to all."""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import urlsplit

from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from accounts.actors import Actor
from problems import Forbidden, Problem, Unauthenticated, absent
from repos import usage
from repos.caller import Caller, recognise
from repos.serve import base_url


class ByHeader(BaseAuthentication):
    """The Authorization header of this request, as at every door; a browser's session is not accepted, nor a pass.

    A pass is for what its few minutes and scopes were asked for, and must not become a token that lasts.
    """

    def authenticate(self, request: Request) -> tuple[Actor, Caller]:
        caller = recognise(request._request)
        if caller.actor.by_pass:
            raise Unauthenticated("sign in: a pass is not taken here, but a name with a password or token", rule="credentials")
        return caller.actor, caller


def check_site(request: Request) -> None:
    """No page of another site may have a browser write here with the credentials that it remembers. Raises Forbidden.

    Sec-Fetch-Site says where a request comes from; a browser that is old, or that asks without TLS, says it by Origin.
    """
    if request.method in SAFE_METHODS:
        return
    site, origin = (request.headers.get(name) for name in ("Sec-Fetch-Site", "Origin"))
    if site is None and origin is not None:
        ours = (urlsplit(base_url(request._request)).netloc, request.headers.get("Host"))
        site = "same-origin" if origin.partition("://")[2] in ours else "cross-site"
    if site not in (None, "none", "same-origin"):
        raise Forbidden("a page of another site may not write here; ask from a program, or a page of this server", rule="site")


def caller_of(request: Request) -> Caller:
    return cast(Caller, request.auth)


class Nobody(BasePermission):
    """The default: a resource that does not say who may ask."""

    def has_permission(self, request: Request, view: Any) -> bool:
        raise refused(caller_of(request), "nobody")


class Anybody(BasePermission):
    """What holds no data."""

    def has_permission(self, request: Request, view: Any) -> bool:
        return True


class EachItem(BasePermission):
    """Anybody may ask; the resource decides for each item by the rights of who does."""

    def has_permission(self, request: Request, view: Any) -> bool:
        return True


class SignedIn(BasePermission):
    def has_permission(self, request: Request, view: Any) -> bool:
        if caller_of(request).actor.anonymous:
            raise refused(caller_of(request), "signed-in")
        return True


class SystemManager(BasePermission):
    def has_permission(self, request: Request, view: Any) -> bool:
        if not caller_of(request).rights.allows_globally("system:manage"):
            raise refused(caller_of(request), "system:manage")
        exercised(caller_of(request), "system:manage")
        return True


def exercised(caller: Caller, permission: str, key: str = "") -> None:
    """They did what takes this permission, on the repository with this key or, without one, globally."""
    usage.exercised(caller.actor, [(permission, key)])


def refused(caller: Caller, rule: str) -> Problem:
    """What is known to be there and needs more than the caller has."""
    if caller.actor.anonymous:
        return Unauthenticated("sign in: use a user's name with a password or token", rule=rule)
    return Forbidden(f"{caller.actor.name} may not do this; it needs {rule}", rule=rule)


def hidden(caller: Caller, name: str) -> Problem:
    """What is not there, or not for the caller to know of: the two are told alike."""
    if caller.actor.anonymous:
        return Unauthenticated("sign in: use a user's name with a password or token", rule="signed-in")
    return absent(name)
