"""Signing in, with a name and password or at a provider, and out again."""

from __future__ import annotations

import re
from dataclasses import replace

from django.contrib.auth import login, logout
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme

from accounts import audit, authenticate, sessions
from accounts.models import User
from accounts.openid import flow, provider
from accounts.openid.provider import Provider
from problems import Problem
from repos import database
from repos.caller import problem_of
from repos.serve import base_url
from repos.ui.door import caller_of, page, refused, show, to

COOKIE = "entrepot-sign-in"
"""What a browser keeps while its user is at a provider: `flow.Begun`."""
LONGEST_NAME = 150
LONGEST_PASSWORD = 4096
OWN_PATH = re.compile(r"/[!-\[\]-~]{0,1000}")
"""A path with a query as browsers send it: ASCII without spaces, and without what some take for a slash."""


@page("GET", "POST", to_all=True)
def sign_in(request: HttpRequest) -> HttpResponseBase:
    """A form for a name and password, and a button for each provider."""
    if request.method == "POST":
        return _by_password(request)
    if not caller_of(request).actor.anonymous:
        return HttpResponseRedirect(_within(request.GET.get("next", "")), status=303)
    return _form(request, request.GET.get("next", ""))


def _form(request: HttpRequest, next: str, problem: Problem | None = None, name: str = "") -> HttpResponse:
    told = {"providers": _providers(request), "next": _within(next), "problem": problem, "name": name}
    if problem is None:
        return show(request, "sign_in.html", told)
    return refused(request, problem, "sign_in.html", told)


def _by_password(request: HttpRequest) -> HttpResponse:
    name = request.POST.get("name", "")[:LONGEST_NAME]
    try:
        identity = authenticate.by_password(name, request.POST.get("password", "")[:LONGEST_PASSWORD])
    except Problem as problem:
        return _form(request, request.POST.get("next", ""), problem, name)
    return begin_session(request, User.objects.get(pk=identity.actor.user_id or 0), "password", request.POST.get("next", ""))


@page("GET", to_all=True)
def begin(request: HttpRequest, name: str) -> HttpResponseBase:
    """Send the browser to a provider."""
    there = _provider(request, name)
    database.release()  # which nobody holds while they wait for others
    url, begun = flow.begin(there, _redirect_uri(request, there), _within(request.GET.get("next", "")))
    response = HttpResponseRedirect(url)
    response.set_cookie(COOKIE, begun.text(), max_age=flow.MINUTES, httponly=True, samesite="Lax")
    return response


@page("GET", to_all=True)
def done(request: HttpRequest, name: str) -> HttpResponseBase:
    """Where a provider sends the browser back to. Whatever comes of it, what was begun is over."""
    there = _provider(request, name)
    begun = flow.begun(request.COOKIES.get(COOKIE, ""))
    database.release()
    try:
        user = flow.finish(there, begun, _redirect_uri(request, there), request.GET.dict())
        response: HttpResponse = begin_session(request, user, there.name, begun.next if begun else "")
        audit.notice(
            audit.SIGN_IN, subject=user.username, detail={"by": there.name}, origin=replace(audit.here(), actor=user.username)
        )
    except Exception as error:
        problem = problem_of(request, error)
        audit.notice(audit.SIGN_IN, refused=True, detail={"by": there.name, "rule": problem.rule, "reason": problem.detail})
        response = refused(request, problem)
    response.delete_cookie(COOKIE, samesite="Lax")
    return response


@page("POST")
def sign_out(request: HttpRequest) -> HttpResponseBase:
    logout(request)
    audit.record("sign-out", subject=caller_of(request).actor.name)
    return to("sign-in")


def begin_session(request: HttpRequest, user: User, by: str, next: str) -> HttpResponseRedirect:
    """Begin a session, with a key that nobody has seen before."""
    login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    sessions.begin(request.session, audit.here().address, request.headers.get("User-Agent", ""))
    name = user.get_username()
    audit.record("session.begin", subject=name, detail={"by": by}, origin=replace(audit.here(), actor=name))
    return HttpResponseRedirect(_within(next), status=303)


def _within(next: str) -> str:
    """An address to go on to, if it is one of this site's own; else the first page."""
    own = OWN_PATH.fullmatch(next) and url_has_allowed_host_and_scheme(next, allowed_hosts=None)
    return next if own else reverse("ui:home")


def _providers(request: HttpRequest) -> list[Provider]:
    return provider.providers(caller_of(request).epoch)


def _provider(request: HttpRequest, name: str) -> Provider:
    caller = caller_of(request)
    return provider.find(name, caller.epoch, caller.catalogue.egress)


def _redirect_uri(request: HttpRequest, there: Provider) -> str:
    """Where the provider sends the browser back to, as it has to be registered there."""
    return f"{base_url(request)}{reverse('ui:provider-done', kwargs={'name': there.name})}"
