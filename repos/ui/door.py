"""The way in to every page: whose session it is, whether another site forged the request, how a refusal looks, headers.

Artefacts and the API know no cookies; here a session's cookie is all that counts, and an Authorization header nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec
from urllib.parse import urlencode

from django.contrib.auth import get_user
from django.contrib.sessions.exceptions import SessionInterrupted
from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.decorators import decorator_from_middleware
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_protect

from accounts import epoch, sessions
from accounts.actors import ANONYMOUS, Identity, actor_of
from accounts.models import User
from problems import Forbidden, Malformed, MethodRefused, Problem, Unauthenticated
from repos.caller import Caller, arriving, finish, known, note_refusal, problem_of
from repos.serve import base_url
from repos.ui import navigation

P = ParamSpec("P")
View = Callable[Concatenate[HttpRequest, P], HttpResponseBase]

COOKIES = ("entrepot-session", "entrepot-csrf", "entrepot-sign-in")
"""Ours. Over https they have the prefix of cookies that no other host, nor a page without TLS, can set (RFC 6265bis)."""
PREFIX = "__Host-"
POLICY = "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def page(*methods: str, to_all: bool = False) -> Callable[[View[P]], View[P]]:
    """A page that answers these methods: its view gets the request with `caller`, and returns a response or raises a Problem.

    Who is not signed in is led to where they can sign in, unless the page is `to_all`.
    """

    def decorate(view: View[P]) -> View[P]:
        def enter(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            try:
                request.caller = _caller(request)  # type: ignore[attr-defined]
                _check_text(request)
                if not to_all and caller_of(request).actor.anonymous:
                    return _to_sign_in(request)
                return view(request, *args, **kwargs)
            except Exception as error:
                return _refused(request, error)

        guarded = decorator_from_middleware(SessionMiddleware)(csrf_protect(enter))

        @address(*methods)
        @functools.wraps(view)
        def answer(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            _read_cookies(request)
            try:
                response = guarded(request, *args, **kwargs)
            except SessionInterrupted:  # it was ended while this was answered
                return _to_sign_in(request)
            _write_cookies(request, response)
            return response

        return answer

    return decorate


def address(*methods: str) -> Callable[[View[P]], View[P]]:
    """What answers these methods, whoever asks: its view knows no session. It returns a response or raises a Problem."""

    def decorate(view: View[P]) -> View[P]:
        @functools.wraps(view)
        def answer(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            with arriving(request):
                try:
                    _check_method(request, methods)
                    response = view(request, *args, **kwargs)
                except Exception as error:
                    response = _refused(request, error)
                for name, value in HEADERS.items():
                    response.headers.setdefault(name, value)
                return finish(request, response)

        return answer

    return decorate


def show(request: HttpRequest, template: str, told: dict[str, Any] | None = None, status: int = 200) -> HttpResponse:
    """A page made of templates/ui/`template`, which may use `caller` and `places` (see `navigation`)."""
    caller = getattr(request, "caller", None)
    places = navigation.places(caller, request.path) if caller else []
    return render(request, f"ui/{template}", {"caller": caller, "places": places, **(told or {})}, status=status)


def caller_of(request: HttpRequest) -> Caller:
    return request.caller  # type: ignore[attr-defined]


def user_of(request: HttpRequest) -> User:
    """The user who is signed in."""
    return request.person  # type: ignore[attr-defined]


def refused(
    request: HttpRequest, problem: Problem, template: str = "problem.html", told: dict[str, Any] | None = None
) -> HttpResponse:
    """A page that tells a problem. 401 becomes 403: a browser that is told 401 asks for a password in a window of its own."""
    status = 403 if isinstance(problem, Unauthenticated) else problem.status
    response = show(request, template, {"problem": problem, **(told or {})}, status)
    for name, value in problem.headers.items():
        response.headers[name] = value
    return response


def _refused(request: HttpRequest, error: Exception) -> HttpResponse:
    problem = problem_of(request, error)
    note_refusal(request, problem, "page", subject=request.path)
    return refused(request, problem)


def forged(request: HttpRequest, reason: str = "") -> HttpResponse:
    """What is told where a form did not come from a page of ours: Django's CSRF_FAILURE_VIEW."""
    return refused(request, Forbidden(_("this form was not sent by a page of this server; load the page again"), rule="csrf"))


def to(name: str, **names: Any) -> HttpResponseRedirect:
    """See Other: the page of this name."""
    return HttpResponseRedirect(reverse(f"ui:{name}", kwargs=names), status=303)


def secure(request: HttpRequest) -> bool:
    """Whether the browser speaks TLS to this server, or to the one in front of it."""
    return request.is_secure() or base_url(request).startswith("https:")


def _caller(request: HttpRequest) -> Caller:
    now = epoch.current()
    user = get_user(request)
    request.person = user  # type: ignore[attr-defined]
    actor = actor_of(user) if isinstance(user, User) else ANONYMOUS
    if not actor.anonymous:
        sessions.seen(request.session)
    return known(request, Identity(actor, now))


def _to_sign_in(request: HttpRequest) -> HttpResponse:
    back = f"?{urlencode({'next': request.get_full_path()})}" if request.method in ("GET", "HEAD") else ""
    return HttpResponseRedirect(f"{reverse('ui:sign-in')}{back}", status=303)


def _check_method(request: HttpRequest, methods: tuple[str, ...]) -> None:
    allowed = [*methods, *(["HEAD"] if "GET" in methods else [])]
    if request.method not in allowed:
        told = ", ".join(sorted(allowed))
        raise MethodRefused(_("this page takes %(methods)s") % {"methods": told}, rule="method", headers={"Allow": told})


def _check_text(request: HttpRequest) -> None:
    """Nothing that is sent holds a NUL, which one database takes in no text."""
    sent = [value for query in (request.GET, request.POST) for _, values in query.lists() for value in values]
    if any("\0" in text for text in (request.path, *sent)):
        raise Malformed(_("what was sent holds a NUL, which is no text"), rule="request.text")


def _read_cookies(request: HttpRequest) -> None:
    """Our cookies by their plain names; over https one without the prefix may be anybody's and is not looked at."""
    if not secure(request):
        return
    for name in COOKIES:
        request.COOKIES.pop(name, None)
        if (value := request.COOKIES.pop(PREFIX + name, None)) is not None:
            request.COOKIES[name] = value


def _write_cookies(request: HttpRequest, response: HttpResponseBase) -> None:
    if not secure(request):
        return
    for name in COOKIES:
        if (morsel := response.cookies.pop(name, None)) is not None:
            morsel["secure"] = True
            morsel.set(PREFIX + name, morsel.value, morsel.coded_value)
            response.cookies[PREFIX + name] = morsel
