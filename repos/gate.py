"""The only door to artefacts: which repository, who is asking, may they; then the format's handler; then errors, in one place.

anonymous, may not read         401 with the challenge, for what is private and what does not exist alike
signed in, may not read         404, like absent
may read, the kind cannot       405: writing to a remote, or to a virtual without deploy_to
may read, may not write         403 (anonymous: 401)
a pass that does not say so     401, insufficient_scope, whatever is there
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from urllib.parse import quote, urlsplit

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from accounts.access import Rights
from accounts.actors import Actor
from problems import Forbidden, Malformed, MethodRefused, Problem, Unauthenticated, absent
from repos import hot, paths, usage
from repos.call import Call
from repos.caller import Caller, arriving, finish, note_refusal, problem_of, recognise, refusal, warn
from repos.catalogue import Repo
from repos.format import Format, Route
from repos.needs import READ, to_do, to_see

INSUFFICIENT = "insufficient_scope"
"""The rule by which a pass is not enough (RFC 6750 section 3.1)."""


def door(form: Format) -> Callable[[HttpRequest], HttpResponseBase]:
    """The Django view for everything under a format's mount."""

    @csrf_exempt  # clients carry credentials in each request; a browser's session is not accepted here
    def answer(request: HttpRequest) -> HttpResponseBase:
        with arriving(request):
            target = _target(request).removeprefix(f"/{form.mount}")
            try:
                response = _page(request, form, target) or _artefact(request, form, target)
            except Exception as error:
                response = _refused(request, form, target, problem_of(request, error))
            response = finish(request, response)
            hot.keep(request, response)
            return warn(request, response)

    return answer


def _page(request: HttpRequest, form: Format, target: str) -> HttpResponseBase | None:
    """What is in no repository."""
    here = [page for page in form.pages() if page.name == target]
    wanted = "GET" if request.method == "HEAD" else request.method
    for page in here:
        if page.method == wanted:
            return page.handler(request)
    if here:
        raise _method_refused(request.method or "", (page.method for page in here))
    return None


def _artefact(request: HttpRequest, form: Format, target: str) -> HttpResponseBase:
    call, route, names = enter(request, form, target)
    return route.handler(call, **names)


def enter(request: HttpRequest, form: Format, target: str) -> tuple[Call, Route, dict[str, str]]:
    """Let a request in, or raise why not: the call, the route that answers it, and the named parts of its path.

    `target` is what was asked for under the format's mount.
    """
    caller = recognise(request)
    key, repo, path, root = _named(caller, request, form, target)
    package = form.package(path)
    request.asked_for = key, path  # type: ignore[attr-defined]
    if repo is None or not _visible(caller, repo, package):
        if repo is not None and not caller.actor.anonymous:
            _note(request, Forbidden("", rule=READ))  # which is told as if it were not there
        raise _hidden(caller.actor, path)
    route, names = _route(form, request.method or "", path)
    need = to_do(repo, route.action, package)
    if not need.met_by(caller.rights):
        if caller.actor.by_pass and not need.met_by(_own(caller)):
            _note(request, Forbidden("", rule=need.permission))  # no other pass would do either
        raise _not_allowed(caller.actor, route.action, repo, package)
    accept = request.headers.get("Accept", "")
    call = Call(
        repo=need.repo, path=path, actor=caller.actor, rights=caller.rights, accept=accept,
        request=request, through=repo, epoch=caller.epoch, root=root,
        used=((READ, key), (need.permission, need.repo.key)),
    )  # fmt: skip
    usage.exercised(call.actor, call.used)
    return call, route, names


def _visible(caller: Caller, repo: Repo, package: str) -> bool:
    """Whether the caller may know of it. What a pass narrows is what they do, not what they know."""
    rights = _own(caller) if caller.actor.by_pass else caller.rights
    return to_see(repo, package).met_by(rights)


def _own(caller: Caller) -> Rights:
    """What the caller may without regard to what a pass says."""
    return caller.rights.narrowed_to(None)


VERBS = {"GET": "read", "HEAD": "read", "DELETE": "delete"}
"""What methods are for; all others write."""


def _note(request: HttpRequest, problem: Problem) -> None:
    key, path = getattr(request, "asked_for", ("", ""))
    note_refusal(request, problem, f"artifact.{VERBS.get(request.method or '', 'write')}", repository=key, subject=path)


def _named(caller: Caller, request: HttpRequest, form: Format, target: str) -> tuple[str, Repo | None, str, str]:
    """The key and the repository that a request names, the path in it, and what stands before the path in the URL."""
    key, repo, rest = caller.catalogue.place(request.META.get("HTTP_HOST", ""), form.key, target)
    root = f"/{form.mount}{target.removesuffix(rest)}"
    path = paths.parse(rest)
    return key, repo, form.asked_for(repo, path, request.GET) if repo else path, root


def _refused(request: HttpRequest, form: Format, target: str, problem: Problem) -> HttpResponse:
    _note(request, problem)
    challenge = ""
    if isinstance(problem, Unauthenticated):
        try:
            challenge = form.challenge(request, target, insufficient=problem.rule == INSUFFICIENT)
        except Malformed as other:
            problem = other
    return refusal(problem, *form.error(problem, target), challenge)


def _target(request: HttpRequest) -> str:
    """The path part of the request target as the client sent it, escapes and all; a decoded one hides encoded slashes."""
    raw = request.META.get("RAW_URI") or request.META.get("REQUEST_URI")
    if raw is None:
        return quote(request.path)
    if not raw.startswith("/"):  # the absolute form (RFC 9112 section 3.2.2)
        raw = urlsplit(raw).path
    return raw.partition("?")[0].partition("#")[0]


def _hidden(actor: Actor, path: str) -> Problem:
    if actor.by_pass:
        return _insufficient("read")
    if actor.anonymous:
        return Unauthenticated("sign in to read here: use a user's name with a password or token", rule="artifact:read")
    return absent(path)


def _insufficient(action: str) -> Problem:
    """They can ask for another pass, which says more, if they may."""
    return Unauthenticated(f"the token does not allow to {action} here; ask for one that does", rule=INSUFFICIENT)


def _route(form: Format, method: str, path: str) -> tuple[Route, dict[str, str]]:
    wanted = "GET" if method == "HEAD" else method
    for route in form.routes():
        if route.method == wanted and (match := route.pattern.fullmatch(path)):
            return route, match.groupdict()
    others = [route.method for route in form.routes() if route.pattern.fullmatch(path)]
    raise _method_refused(method, others) if others else absent(path)


def _method_refused(method: str, others: Iterable[str]) -> MethodRefused:
    methods = set(others)
    allowed = ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
    return MethodRefused(f"{method} is not for this path; {allowed} are", rule="method", headers={"Allow": allowed})


def _not_allowed(actor: Actor, action: str, repo: Repo, package: str) -> Problem:
    rule = f"artifact:{action}"
    if actor.by_pass:
        return _insufficient(action)
    if actor.anonymous:
        return Unauthenticated(f"sign in to {action} here", rule=rule)
    where = f"{package} in {repo.key}" if package else repo.key
    return Forbidden(f"{actor.name} may read but not {action} {where}; ask for a role that may", rule=rule)
