"""Who asks over HTTP, what they may, and how a refusal is told: what every door of the server has in common."""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import logging
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from django.conf import settings
from django.core.exceptions import SuspiciousOperation
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from accounts import audit, passes, tokens
from accounts.access import Rights, rights_of
from accounts.actors import Actor, Identity
from accounts.authenticate import CHALLENGE, authenticate
from problems import Forbidden, Malformed, Problem, StorageFull, Unauthenticated, Unavailable
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


@contextlib.contextmanager
def arriving(request: HttpRequest) -> Iterator[None]:
    """What is done in the block is done for this request: by nobody who is known yet. Every door answers within it."""
    with audit.entered(audit.Origin(address=address_of(request), request=secrets.token_hex(8))):
        yield


def address_of(request: HttpRequest) -> str:
    """Where a request comes from: the peer or, where that is a proxy of ours (ENTREPOT_PROXIES), whom it says it asks for.

    X-Forwarded-For grows to the right at each proxy: of its entries counts the last that is no proxy of ours, since what stands
    before it anybody may have written. No other header is looked at, Forwarded (RFC 7239) least of all: a proxy that writes
    one of the two hands on the other as a client sent it.
    """
    address = _address(request.META.get("REMOTE_ADDR", ""))
    hops = request.headers.get("X-Forwarded-For", "").split(",")
    while address is not None and hops and settings.ENTREPOT.trusts(address):
        before = _address(hops.pop())
        if before is None:
            break
        address = before
    return "" if address is None else str(address)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address as it is told, perhaps with a port; of an IPv4 address in the form of IPv6 that itself."""
    host = text.strip()
    if host.startswith("[") or host.count(":") == 1:
        host = host.removeprefix("[").partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def recognise(request: HttpRequest) -> Caller:
    """Who sent the request. Raises Unauthenticated where credentials were sent and are wrong."""
    return known(request, authenticate(request.headers.get("Authorization")))


def known(request: HttpRequest, identity: Identity) -> Caller:
    """Who sent the request, which has said so in a way of its own. What this thread does from now on, they do."""
    actor = identity.actor
    audit.enter(replace(audit.here(), actor="" if actor.anonymous else actor.name, token=actor.token_id))
    if not actor.anonymous and actor.token_id is None and not actor.by_pass:
        audit.notice(audit.SIGN_IN, subject=actor.name, detail={"by": "password"})
    if identity.actor.token_id is not None:
        usage.write_soon()
    there = catalogue.load(identity.epoch)
    rights = rights_of(identity.actor, identity.epoch).plus(open_on_loopback(request, there.repositories))
    request.token_ends = identity.actor.ends  # type: ignore[attr-defined]
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


def note_refusal(request: HttpRequest, problem: Problem, action: str, *, repository: str = "", subject: str = "") -> None:
    """Have the audit tell of what was refused: what the caller may not, or a rule forbids; and credentials that are wrong.

    Not that somebody has not said yet who they are: clients ask first, to learn how.
    """
    detail = {"rule": problem.rule, "method": request.method or ""}
    if isinstance(problem, Unauthenticated) and problem.rule == CREDENTIALS:
        name, by = _tried(request)
        audit.notice(audit.SIGN_IN, subject=name, refused=True, detail={"by": by})
    elif isinstance(problem, Forbidden) or problem.rule in FORBIDDING:
        audit.notice(action, repository=repository, subject=subject, refused=True, detail=detail)


CREDENTIALS = "credentials"
"""The rule by which a sign-in is refused."""
FORBIDDING = ("immutable",)
"""Rules that forbid what somebody wants to do, besides those of rights."""


def _tried(request: HttpRequest) -> tuple[str, str]:
    """By which name somebody tried to sign in, if by one, and by what kind of secret, which is not looked at any further."""
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return "", "pass" if passes.is_pass(credentials.strip(" ")) else "token"
    with contextlib.suppress(ValueError):
        name, _, secret = base64.b64decode(credentials, validate=True).decode().partition(":")
        return ("", "token") if tokens.is_secret(name) or tokens.is_secret(secret) else (name, "password")
    return "", "password"


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
    """What holds for every answer: content is never taken for a page of ours, and HEAD has no body.

    Writes and refusals tell the request's id; not what is kept to be given again (see `repos.hot`), which does nothing.
    """
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    if (request.method not in ("GET", "HEAD") or response.status_code >= 400) and not hasattr(response, "basis"):
        response.headers["X-Request-Id"] = audit.here().request
    response.headers.setdefault("Content-Security-Policy", "sandbox; default-src 'none'")
    if isinstance(response, HttpResponse) and response.status_code not in (204, 304):
        response.headers.setdefault("Content-Length", str(len(response.content)))
        if request.method == "HEAD":
            response.content = b""
    return response


def warn(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """Tell who came with a token that expires soon when it does. Not part of an answer that is kept for others."""
    ends = getattr(request, "token_ends", None)
    if ends is not None:
        response.headers["X-Entrepot-Token-Expires"] = ends.strftime("%Y-%m-%dT%H:%M:%SZ")
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
