"""Docker's token flow: a 401 names the endpoint and the scope, the client fetches a pass there and asks again.

Specification: distribution, "Docker Registry v2 authentication via central service" (token, oauth and scope pages).
A scope is `repository:NAME:ACTIONS` or `registry:catalog:*`. What is granted is what the client asks for and may: the rest is
left out, without a word on whether it is there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from django.http import HttpRequest, JsonResponse, QueryDict
from django.utils import timezone

from accounts import passes
from accounts.access import Rights
from accounts.actors import Identity
from accounts.authenticate import by_password, by_token
from accounts.models import Token
from accounts.tokens import is_secret
from problems import Malformed, TooLarge, Unauthenticated
from repos import caller, catalogue, serve
from repos.call import Call
from repos.caller import Caller
from repos.catalogue import Repo
from repos.formats.oci import parse
from repos.uploads import body_stream

ACTIONS = {"pull": ("read",), "push": ("write", "overwrite"), "delete": ("delete",)}
"""The permissions that a client's words stand for. To delete is a word of its own: who may push may not for that."""
ACTIONS_OF = {"GET": "pull", "HEAD": "pull", "DELETE": "pull,delete"}
"""What a client is told to ask for, by the method that it used; the others push."""
SCOPE = re.compile(r"repository(?:\([^)]*\))?:(?P<name>[^:]+(?::[0-9]+/[^:]+)?):(?P<actions>[a-z*,]*)")
MOST_SCOPES = 50
LARGEST_FORM = 64 * 1024


def challenge(request: HttpRequest, target: str, *, insufficient: bool, more: tuple[str, ...] = ()) -> str:
    """The Bearer challenge of a 401 (RFC 6750 section 3) for what was asked for, and for `more` scopes that it takes."""
    words = [("realm", f"{serve.base_url(request)}/v2/token"), ("service", request.META.get("HTTP_HOST", ""))]
    targets = (target, _in_namespace(request, target))
    scopes = dict.fromkeys(_scope_of(request.method or "", one) for one in targets)
    if scope := " ".join(filter(None, (*scopes, *more))):
        words.append(("scope", scope))
    if insufficient:
        words.append(("error", "insufficient_scope"))
    return "Bearer " + ",".join(f'{name}="{value}"' for name, value in words if '"' not in value and "\\" not in value)


def _in_namespace(request: HttpRequest, target: str) -> str:
    """Where the registry that containerd names by `ns` may have a folder of its own; that it has is not told here."""
    namespace = request.GET.get("ns", "").replace(":", "_")
    if not re.fullmatch(parse.NAME, namespace):
        return target
    key, _, rest = ("", "", target) if catalogue.leads_somewhere(request.META.get("HTTP_HOST", "")) else target.partition("/")
    return "/".join(filter(None, (key, namespace, rest)))


def _scope_of(method: str, target: str) -> str:
    if target == "_catalog":
        return "registry:catalog:*"
    parts = parse.split(target)  # the name with the repository's key, where the host does not say it: it has the same form
    if parts is None:
        return ""
    actions = "pull,push" if parts.kind == "uploads" else ACTIONS_OF.get(method, "pull,push")
    return f"repository:{parts.image}:{actions}"


def own_rights(call: Call) -> Rights:
    """What the caller could have a pass for: all that they may by the name and password, or the token, that they sign in with."""
    if not call.actor.by_pass:
        return call.rights
    token = Token.objects.get(pk=call.actor.token_id) if call.actor.token_id else None
    return call.rights.narrowed_to(token.scopes if token else None)


def wider(call: Call, repo: Repo, image: str) -> Unauthenticated:
    """What is told whoever needs a pass that lets them read another image too."""
    name = image if call.root == "/v2/" else f"{repo.key}/{image}"
    target = f"{call.root}{call.path}".removeprefix("/v2/")
    asked = challenge(call.request, target, insufficient=True, more=(f"repository:{name}:pull",))
    return Unauthenticated(
        f"the token does not allow to read {name}; ask for one that does", rule="insufficient_scope",
        headers={"WWW-Authenticate": asked},
    )  # fmt: skip


def place(call: Call, name: str) -> tuple[Repo, str] | None:
    """The repository and the image that a client's name for an image means; None where there is none, or it is no name."""
    host = call.request.META.get("HTTP_HOST", "")
    _, repo, image = catalogue.load(call.epoch).place(host, call.repo.format.key, name)
    return (repo, image) if repo and re.fullmatch(parse.NAME, image) else None


def give(request: HttpRequest) -> JsonResponse:
    """GET: who asks by the Authorization header, or nobody in particular, gets a pass for those of the scopes that they may."""
    return _given(caller.recognise(request), request, request.GET)


def give_by_form(request: HttpRequest) -> JsonResponse:
    """POST: the same by a form, with `grant_type` password (RFC 6749 section 4.3), or refresh_token, which is one of ours."""
    form = QueryDict(b"".join(body_stream(request, LARGEST_FORM)))
    return _given(caller.known(request, _signed_in(form)), request, form)


def _signed_in(form: QueryDict) -> Identity:
    name, password = form.get("username", ""), form.get("password", "")
    match form.get("grant_type"):
        case "refresh_token":
            return by_token(form.get("refresh_token", ""))
        case "password" if is_secret(password):
            return by_token(password)
        case "password" if "\0" not in name + password:
            return by_password(name, password)
    raise Malformed("grant_type is password or refresh_token", rule="oauth.grant")


def _given(who: Caller, request: HttpRequest, asked: QueryDict) -> JsonResponse:
    if who.actor.by_pass:
        raise Unauthenticated("a pass gets no further pass; sign in by a name with a password or token", rule="credentials")
    wanted = [scope for text in asked.getlist("scope") for scope in text.split()]
    if len(wanted) > MOST_SCOPES:
        raise TooLarge(f"more than {MOST_SCOPES} scopes", rule="oauth.scope")
    granted = dict.fromkeys(scope for text in wanted for scope in _granted(who, request, text))
    text = passes.issue(who.actor, granted)
    seconds = int(passes.LIFETIME.total_seconds())
    issued = timezone.now().isoformat(timespec="seconds").replace("+00:00", "Z")
    answer = JsonResponse({"token": text, "access_token": text, "expires_in": seconds, "issued_at": issued})
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _granted(who: Caller, request: HttpRequest, text: str) -> Iterator[str]:
    """Our own scopes for one of a client's: what it asks for and the caller may."""
    if text == "registry:catalog:*":
        yield from (scope for scope in who.actor.scopes or (EVERYTHING,) if scope.startswith("artifact:read@"))
        return
    match = SCOPE.fullmatch(text)
    if match is None:
        return
    _, repo, image = who.catalogue.place(request.META.get("HTTP_HOST", ""), "oci", match["name"])
    if repo is None or not re.fullmatch(parse.NAME, image):
        return
    words = ACTIONS if match["actions"] == "*" else [word for word in match["actions"].split(",") if word in ACTIONS]
    for word in words:
        for permission in ACTIONS[word]:
            for place in _behind(repo, word):
                if who.rights.allows(f"artifact:{permission}", place.key, image):
                    yield f"artifact:{permission}@{place.key}:{image}"


EVERYTHING = "artifact:read@**"
"""Narrows nothing: what may be listed is for the grants to say."""


def _behind(repo: Repo, word: str) -> Iterable[Repo]:
    """Where the rights have to be: for reading at the repository and at each member, else at the local one that takes it."""
    if not repo.is_virtual:
        return (repo,)
    if word == "pull":
        return (repo, *repo.members)
    return (repo.deploy_to,) if repo.deploy_to else ()
