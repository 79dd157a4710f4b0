"""Who asks over HTTP, what they may, and how a refusal is told: what every door of the server has in common."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass

from django.conf import settings
from django.core.exceptions import SuspiciousOperation
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from accounts.access import Rights, rights_of
from accounts.actors import Actor, Identity
from accounts.authenticate import CHALLENGE, authenticate
from problems import Malformed, Problem, StorageFull, Unauthenticated, Unavailable
from repos import catalogue, database, usage
from repos.catalogue import Catalogue, Repo
from repos.needs import READ

log = logging.getLogger("entrepot.gate")

UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


@dataclass(frozen=True)
class Caller:
    """Who asks, what they may, and the repositories there are, all as of one epoch."""

    actor: Actor
    rights: Rights
    catalogue: Catalogue
    epoch: int

    @property
    def repositories(self) -> Mapping[tuple[str, str], Repo]:
        return self.catalogue.repositories


def recognise(request: HttpRequest) -> Caller:
    """Who sent the request. Raises Unauthenticated where credentials were sent and are wrong."""
    return known(request, authenticate(request.headers.get("Authorization")))


def known(request: HttpRequest, identity: Identity) -> Caller:
    """Who sent the request, which has said so in a way of its own."""
    if identity.actor.token_id is not None:
        usage.write_soon()
    there = catalogue.load(identity.epoch)
    rights = rights_of(identity.actor, identity.epoch).plus(open_on_loopback(request, there.repositories))
    return Caller(identity.actor, rights, there, identity.epoch)


def problem_of(request: HttpRequest, error: Exception) -> Problem:
    """What is told of an error: a problem as it is; of any other the log has all, and the client that it is not to blame."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, SuspiciousOperation):  # Django's for what it does not read, such as a thousand parameters
        return Malformed("the request is not one that is read here: too many or malformed parameters", rule="request.form")
    if isinstance(error, OperationalError) and database.has_no_room(error):
        log.error("%s %s failed: %s", request.method, request.path, error)
        return StorageFull("the database has no room for it; free or add space", rule="storage.full")
    log.error("%s %s failed", request.method, request.path, exc_info=error)
    if isinstance(error, OperationalError):
        return Unavailable("the database does not answer; try again", headers={"Retry-After": "5"})
    return Problem("an error here, not in the request; the server's log tells more")


def refusal(problem: Problem, media_type: str, content: bytes, challenge: str = CHALLENGE) -> HttpResponse:
    """The problem as HTTP with a body in the client's own words; the reason also as a header and in the status line.

    `challenge` tells who is not known how to sign in.
    """
    reason = UNPRINTABLE.sub("?", problem.reason)
    response = HttpResponse(content, status=problem.status, reason=reason[:200], content_type=media_type)
    asked = {"WWW-Authenticate": challenge} if isinstance(problem, Unauthenticated) else {}
    for name, value in {"X-Entrepot-Reason": reason[:1000], **asked, **problem.headers}.items():
        response.headers[name] = value
    return response


def finish(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """What holds for every answer: content is never taken for a page of ours, and HEAD has no body."""
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Content-Security-Policy", "sandbox; default-src 'none'")
    if isinstance(response, HttpResponse) and response.status_code not in (204, 304):
        response.headers.setdefault("Content-Length", str(len(response.content)))
        if request.method == "HEAD":
            response.content = b""
    return response


def open_on_loopback(
    request: HttpRequest, repositories: Mapping[tuple[str, str], Repo]
) -> tuple[tuple[frozenset[str], str, str], ...]:
    """What the first start made may be read by all, for as long as only this machine can ask.

    A page in a browser here may ask by a name of its own (DNS rebinding), and a proxy here for others: neither counts.
    """
    proxied = any(name in request.headers for name in ("Forwarded", "X-Forwarded-For", "Via"))
    return () if proxied else open_to(request.META.get("HTTP_HOST", "localhost"), repositories)


def open_to(host: str, repositories: Mapping[tuple[str, str], Repo]) -> tuple[tuple[frozenset[str], str, str], ...]:
    """What is open so to who asks this host."""
    if not settings.ENTREPOT.open_to(host):
        return ()
    return tuple((frozenset({READ}), repo.key, "") for repo in repositories.values() if repo.seeded)
