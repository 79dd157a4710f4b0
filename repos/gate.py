"""The only door to artefacts: which repository, who is asking, may they; then the format's handler; then errors, in one place.

anonymous, may not read         401 with the challenge, for what is private and what does not exist alike
signed in, may not read         404, like absent
may read, the kind cannot       405: writing to a remote, or to a virtual without deploy_to
may read, may not write         403 (anonymous: 401)
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from urllib.parse import quote, urlsplit

from django.conf import settings
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from accounts.access import rights_of
from accounts.authenticate import Identity, authenticate
from problems import Forbidden, MethodRefused, Problem, Unauthenticated, Unavailable, absent
from repos import catalogue, paths, usage
from repos.call import Call
from repos.catalogue import Repo
from repos.format import Format, Route

log = logging.getLogger("entrepot.gate")

CHALLENGE = {"WWW-Authenticate": 'Basic realm="Entrepot", charset="UTF-8"'}
READ = "artifact:read"
UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


def door(form: Format) -> Callable[[HttpRequest], HttpResponseBase]:
    """The Django view for everything under a format's mount."""

    @csrf_exempt  # clients carry credentials in each request; a browser's session is not accepted here
    def answer(request: HttpRequest) -> HttpResponseBase:
        try:
            call, route, names = enter(request, form)
            response = route.handler(call, **names)
        except Problem as problem:
            response = refuse(form, problem)
        except OperationalError:
            log.exception("%s %s failed", request.method, request.path)
            response = refuse(form, Unavailable("the database does not answer; try again", headers={"Retry-After": "5"}))
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            response = refuse(form, Problem("an error here, not in the request; the server's log tells more"))
        return _finish(request, response)

    return answer


def enter(request: HttpRequest, form: Format) -> tuple[Call, Route, dict[str, str]]:
    """Let a request in, or raise why not: the call, the route that answers it, and the named parts of its path."""
    key, _, rest = _target(request).removeprefix(f"/{form.mount}").partition("/")
    path = paths.parse(rest)
    identity = authenticate(request.headers.get("Authorization"))
    if identity.actor.token_id is not None:
        usage.write_soon()
    repositories = catalogue.repositories(identity.epoch)
    repo = repositories.get((form.key, key))
    rights = rights_of(identity.actor, identity.epoch).plus(_open_on_loopback(request, repositories))
    package = form.package(path)
    if repo is None or not rights.allows(READ, key, package or None):
        raise _hidden(identity, path)
    route, names = _route(form, request.method or "", path)
    if route.action != "read":
        asked, repo = repo, _writable(repo)
        if not rights.allows(f"artifact:{route.action}", repo.key, package):
            raise _not_allowed(identity, route.action, asked, package)
    call = Call(repo=repo, path=path, actor=identity.actor, rights=rights, request=request)
    return call, route, names


def refuse(form: Format, problem: Problem) -> HttpResponse:
    """The problem as HTTP, in the words of the format's own clients; the reason also as a header and in the status line."""
    media_type, content = form.error(problem)
    reason = UNPRINTABLE.sub("?", problem.reason)
    response = HttpResponse(content, status=problem.status, reason=reason[:200], content_type=media_type)
    challenge = CHALLENGE if isinstance(problem, Unauthenticated) else {}
    for name, value in {"X-Entrepot-Reason": reason[:1000], **challenge, **problem.headers}.items():
        response.headers[name] = value
    return response


def _finish(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """What holds for every answer: content is never taken for a page of ours, and HEAD has no body."""
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Content-Security-Policy", "sandbox; default-src 'none'")
    if isinstance(response, HttpResponse) and response.status_code not in (204, 304):
        response.headers.setdefault("Content-Length", str(len(response.content)))
        if request.method == "HEAD":
            response.content = b""
    return response


def _target(request: HttpRequest) -> str:
    """The path part of the request target as the client sent it, escapes and all; a decoded one hides encoded slashes."""
    raw = request.META.get("RAW_URI") or request.META.get("REQUEST_URI")
    if raw is None:
        return quote(request.path)
    if not raw.startswith("/"):  # the absolute form (RFC 9112 section 3.2.2)
        raw = urlsplit(raw).path
    return raw.partition("?")[0].partition("#")[0]


def _hidden(identity: Identity, path: str) -> Problem:
    if identity.actor.user_id is None:
        return Unauthenticated("sign in to read here: use a user's name with a password or token", rule="artifact:read")
    return absent(path)


def _route(form: Format, method: str, path: str) -> tuple[Route, dict[str, str]]:
    here = [(route, match) for route in form.routes() if (match := route.pattern.fullmatch(path))]
    if not here:
        raise absent(path)
    wanted = "GET" if method == "HEAD" else method
    for route, match in here:
        if route.method == wanted:
            return route, match.groupdict()
    allowed = ", ".join(sorted({route.method for route, _ in here} | {"HEAD"}))
    raise MethodRefused(f"{method} is not for this path; {allowed} are", rule="method", headers={"Allow": allowed})


def _writable(repo: Repo) -> Repo:
    """The local repository that a write to `repo` goes to."""
    if repo.is_local:
        return repo
    if repo.is_virtual and repo.deploy_to is not None:
        return repo.deploy_to
    why = "is a virtual repository without deploy_to" if repo.is_virtual else "is a remote repository"
    raise MethodRefused(
        f"{repo.key} {why} and takes no uploads; use a local one", rule="repository.kind", headers={"Allow": "GET, HEAD"}
    )


def _not_allowed(identity: Identity, action: str, repo: Repo, package: str) -> Problem:
    rule = f"artifact:{action}"
    if identity.actor.user_id is None:
        return Unauthenticated(f"sign in to {action} here", rule=rule)
    where = f"{package} in {repo.key}" if package else repo.key
    return Forbidden(f"{identity.actor.name} may read but not {action} {where}; ask for a role that may", rule=rule)


def _open_on_loopback(
    request: HttpRequest, repositories: dict[tuple[str, str], Repo]
) -> tuple[tuple[frozenset[str], str, str], ...]:
    """What the first start made may be read by all, for as long as only this machine can ask.

    A page in a browser here may ask by a name of its own (DNS rebinding), and a proxy here for others: neither counts.
    """
    proxied = any(name in request.headers for name in ("Forwarded", "X-Forwarded-For", "Via"))
    if proxied or not settings.ENTREPOT.open_to(request.META.get("HTTP_HOST", "localhost")):
        return ()
    return tuple((frozenset({READ}), repo.key, "") for repo in repositories.values() if repo.seeded)
