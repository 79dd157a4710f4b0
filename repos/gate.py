"""The only door to artefacts: which repository, who is asking, may they; then the format's handler; then errors, in one place.

anonymous, may not read         401 with the challenge, for what is private and what does not exist alike
signed in, may not read         404, like absent
may read, the kind cannot       405: writing to a remote, or to a virtual without deploy_to
may read, may not write         403 (anonymous: 401)
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote, urlsplit

from django.http import HttpRequest, HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from accounts.actors import Actor
from problems import Forbidden, MethodRefused, Problem, Unauthenticated, absent
from repos import paths
from repos.call import Call
from repos.caller import READ, finish, problem_of, recognise, refusal
from repos.catalogue import Repo
from repos.format import Format, Route


def door(form: Format) -> Callable[[HttpRequest], HttpResponseBase]:
    """The Django view for everything under a format's mount."""

    @csrf_exempt  # clients carry credentials in each request; a browser's session is not accepted here
    def answer(request: HttpRequest) -> HttpResponseBase:
        try:
            call, route, names = enter(request, form)
            response = route.handler(call, **names)
        except Exception as error:
            problem = problem_of(request, error)
            response = refusal(problem, *form.error(problem))
        return finish(request, response)

    return answer


def enter(request: HttpRequest, form: Format) -> tuple[Call, Route, dict[str, str]]:
    """Let a request in, or raise why not: the call, the route that answers it, and the named parts of its path."""
    key, _, rest = _target(request).removeprefix(f"/{form.mount}").partition("/")
    path = paths.parse(rest)
    caller = recognise(request)
    repo = caller.repositories.get((form.key, key))
    package = form.package(path)
    if repo is None or not caller.rights.allows(READ, key, package or None):
        raise _hidden(caller.actor, path)
    route, names = _route(form, request.method or "", path)
    if route.action != "read":
        asked, repo = repo, _writable(repo)
        if not caller.rights.allows(f"artifact:{route.action}", repo.key, package):
            raise _not_allowed(caller.actor, route.action, asked, package)
    call = Call(repo=repo, path=path, actor=caller.actor, rights=caller.rights, request=request)
    return call, route, names


def _target(request: HttpRequest) -> str:
    """The path part of the request target as the client sent it, escapes and all; a decoded one hides encoded slashes."""
    raw = request.META.get("RAW_URI") or request.META.get("REQUEST_URI")
    if raw is None:
        return quote(request.path)
    if not raw.startswith("/"):  # the absolute form (RFC 9112 section 3.2.2)
        raw = urlsplit(raw).path
    return raw.partition("?")[0].partition("#")[0]


def _hidden(actor: Actor, path: str) -> Problem:
    if actor.anonymous:
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


def _not_allowed(actor: Actor, action: str, repo: Repo, package: str) -> Problem:
    rule = f"artifact:{action}"
    if actor.anonymous:
        return Unauthenticated(f"sign in to {action} here", rule=rule)
    where = f"{package} in {repo.key}" if package else repo.key
    return Forbidden(f"{actor.name} may read but not {action} {where}; ask for a role that may", rule=rule)
