"""What every resource of the API has in common.

query      parameters by allow-list: what is unknown is refused by name
body       JSON (or YAML, where a resource takes it), limited in size
answers    JSON with a strong ETag where the thing can be edited; pages with an opaque cursor
problems   RFC 9457, for everything that is refused or fails
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlencode

from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.http.request import MediaType
from django.utils.encoding import escape_uri_path
from rest_framework import exceptions, serializers
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from basics.sealing import seal, unseal
from problems import Malformed, MediaRefused, MethodRefused, NotAcceptable, NotFound, PreconditionFailed, Problem, TooLarge
from repos.api.permissions import ByHeader, caller_of, check_site
from repos.api.shapes import ProblemShape
from repos.caller import Caller, arriving, finish, note_refusal, problem_of, refusal, warn
from repos.configuration import documents
from repos.configuration.fields import TextField, lines
from repos.serve import base_url
from repos.uploads import body_stream

JSON, YAML, PROBLEM = "application/json", "application/yaml", "application/problem+json"
LARGEST_BODY = 10 * 1024 * 1024
"""Bytes that a request may hold: a whole configuration."""
LARGEST_PAGE = 1000
TAG = re.compile(r'(?:W/)?"[^"]*"|\*')

Row = TypeVar("Row")


class Query(serializers.Serializer):
    """The parameters that a request may have."""


class Page(Query):
    """The parameters of every list."""

    cursor = TextField(required=False, max_length=4096, help_text="where a page ended, as its `next` says")
    limit = serializers.IntegerField(required=False, default=100, min_value=1, max_value=LARGEST_PAGE)


class ByAccept(DefaultContentNegotiation):
    """A form that Accept gives no weight is not acceptable (RFC 9110 section 12.4.2)."""

    def get_accept_list(self, request: Request) -> list[str]:
        return [form for form in super().get_accept_list(request) if _has_weight(form)]


def _has_weight(form: str) -> bool:
    with contextlib.suppress(ValueError):  # parameters that cannot be read
        return bool(MediaType(form).quality)
    return False


class Resource(APIView):
    """One address of the API. `self.caller` is who asks, `self.asked` the query, checked."""

    authentication_classes = (ByHeader,)
    renderer_classes: Any = (JSONRenderer,)
    content_negotiation_class: Any = ByAccept
    http_method_names = ["get", "head", "put", "post", "delete"]
    queries: ClassVar[Mapping[str, type[Query]]] = {}
    """By method; a method that has none takes no parameters."""
    takes: ClassVar[Mapping[str, Any]] = {}
    gives: ClassVar[Mapping[str, Mapping[int, Any]]] = {}
    examples: ClassVar[Mapping[str, Any]] = {}
    """By method, for the schema: the body, the answers by status, and a body as an example."""
    tagged: ClassVar[bool] = False
    """Whether answers have an ETag."""
    untagged: ClassVar[str] = ""
    """A key of answers that changes by itself, and the ETag not with it."""
    open: ClassVar[bool] = False
    """Whether GET answers somebody who is not signed in, if only with what everybody may see."""
    bounded: ClassVar[bool] = False
    """Whether POST is refused while enough is under way."""
    body_types: ClassVar[tuple[str, ...]] = (JSON,)
    largest: ClassVar[int] = LARGEST_BODY
    """Bytes that a body may have."""
    problem_type: ClassVar[str] = PROBLEM
    problem_shape: ClassVar[type[serializers.Serializer]] = ProblemShape
    asked: dict[str, Any]

    @property
    def caller(self) -> Caller:
        return caller_of(self.request)

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        with arriving(request):
            return warn(request, finish(request, super().dispatch(request, *args, **kwargs)))

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        if request.method not in self.allowed_methods:
            self.http_method_not_allowed(request)
        check_site(request)
        super().initial(request, *args, **kwargs)
        method = "GET" if request.method == "HEAD" else str(request.method)
        self.asked = _checked(request, self.queries.get(method, Query))

    def handle_exception(self, exc: Exception) -> Any:
        problem = problem_of(self.request._request, _ours(exc))
        note_refusal(self.request._request, problem, "api", subject=self.request.path)
        return refusal(problem, self.problem_type, json.dumps(self.details(problem)).encode())

    def details(self, problem: Problem) -> dict[str, Any]:
        """What a refusal tells (RFC 9457)."""
        return {
            "type": f"urn:entrepot:rule:{problem.rule}" if problem.rule else "about:blank",
            "title": problem.title,
            "status": problem.status,
            "detail": problem.detail,
            "rule": problem.rule,
            "instance": escape_uri_path(self.request.path),
        }

    # requests

    def text(self) -> str:
        """The body. Raises MediaRefused for a type that is not taken here, TooLarge, Malformed."""
        kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind not in self.body_types:
            taken = ", ".join(self.body_types)
            raise MediaRefused(
                f"a body of type {kind or 'none'} is not taken here; send {taken}", rule="body.type", headers={"Accept": taken}
            )
        content = bytearray()
        for piece in body_stream(self.request._request, self.largest):
            content += piece
            if len(content) > self.largest:
                raise TooLarge(f"a body has at most {self.largest} bytes here", rule="size.limit")
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise Malformed("the body is not UTF-8", rule="body.utf8") from None

    def body(self) -> dict[str, Any]:
        """The body's JSON object."""
        (value,) = documents.values(self.text(), "the body", json_only=True)
        if not isinstance(value, dict):
            raise Malformed("the body is a JSON object", rule="body.form")
        if not all(map(_is_storable, _texts(value))):
            raise Malformed("the body holds a NUL or half a surrogate pair, which are no text", rule="body.text")
        return value

    def checked(self, form: type[serializers.Serializer], data: dict[str, Any]) -> dict[str, Any]:
        """What a body says, by a serializer that names every key."""
        serializer = form(data=data)
        if not serializer.is_valid():
            raise Malformed("; ".join(lines(serializer.errors)), rule="body.form")
        return dict(serializer.validated_data)

    def require(self, current: Any | None) -> None:
        """If-Match and If-None-Match of a request that writes (RFC 9110 section 13.1), against what stands now; None: nothing."""
        tags = set() if current is None else self._tags(current)
        match, none_match = (self.request.headers.get(name) for name in ("If-Match", "If-None-Match"))
        if match is not None and not _names(match, tags, exists=current is not None):
            raise PreconditionFailed("it is not as it was when you read it; read it again and decide", rule="if-match")
        if none_match is not None and _names(none_match, tags, exists=current is not None):
            raise PreconditionFailed("it is there already; leave out If-None-Match to replace it", rule="if-none-match")

    # answers

    def answer(
        self, data: Any, status: int = 200, headers: Mapping[str, str] | None = None, *, tagged: bool | None = None
    ) -> HttpResponse:
        """`data` in the form that was asked for. Where it is `tagged`, with a strong ETag; 304 to who has it already."""
        tagged = self.tagged if tagged is None else tagged
        kept = "private, no-cache" if tagged else "no-store"
        told = {"Cache-Control": kept, "Vary": "Authorization", **(headers or {})}
        if tagged:
            told["ETag"] = self._tag(data, self.request.accepted_renderer)
            asked = self.request.headers.get("If-None-Match") if self.request.method in ("GET", "HEAD") else None
            if asked is not None and _names(asked.replace("W/", ""), {told["ETag"]}, exists=True):
                return HttpResponse(status=304, headers=told)
        renderer: BaseRenderer = self.request.accepted_renderer
        return HttpResponse(renderer.render(data), status=status, headers=told, content_type=renderer.media_type)

    def nothing(self) -> HttpResponse:
        return HttpResponse(status=204, headers={"Cache-Control": "no-store"})

    def page(
        self, rows: Iterable[Row], show: Callable[[Row], dict[str, Any]], place: Callable[[Row], list[Any]], **beside: Any
    ) -> HttpResponse:
        """As many of `rows` as were asked for. `place` is what rows are ordered by: the next page begins behind the last's."""
        found = list(islice(rows, self.asked["limit"] + 1))
        here = found[: self.asked["limit"]]
        behind = {"cursor": cursor(place(here[-1]))} if len(found) > len(here) else None
        return self.listed([show(row) for row in here], behind, **beside)

    def listed(self, items: list[dict[str, Any]], behind: dict[str, Any] | None, **beside: Any) -> HttpResponse:
        """A page. The next has this request's address with the parameters `behind`; None: this is the last."""
        following = None if behind is None else self.link(behind)
        headers = {"Link": f'<{following}>; rel="next"'} if following else {}
        return self.answer({"items": items, "next": following, **beside}, headers=headers)

    def after(self, *kinds: type) -> list[Any] | None:
        """The place behind which the page begins; None: the beginning. Raises Malformed for what is no cursor of ours."""
        text = self.asked.get("cursor")
        if text is None:
            return None
        try:
            place = json.loads(unseal(text))
        except Problem:
            place = None
        if not isinstance(place, list) or [type(value) for value in place] != list(kinds):
            raise Malformed("the cursor is none of this list's; begin without one", rule="cursor")
        return place

    def link(self, parameters: dict[str, Any]) -> str:
        """This request's address with other parameters."""
        query = urlencode({**self.request.GET.dict(), **parameters})
        return f"{base_url(self.request._request)}{escape_uri_path(self.request.path)}?{query}"

    def _tag(self, data: dict[str, Any], renderer: Any) -> str:
        """The tag of the form that a renderer gives."""
        form = "" if renderer.media_type == JSON else renderer.media_type
        return _tag({key: value for key, value in data.items() if key != self.untagged}, form)

    def _tags(self, data: dict[str, Any]) -> set[str]:
        """The tags of all forms that the resource answers in."""
        return {self._tag(data, renderer) for renderer in self.renderer_classes}


def moment(at: datetime | None) -> str | None:
    """RFC 3339, in UTC."""
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")


class Nothing(Resource):
    """Every address under /api/ at which there is nothing."""

    schema = None
    permission_classes: Any = ()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        raise NotFound("there is nothing at this address; /api/v1/ lists what there is, and addresses end with a slash")


def _tag(data: Any, form: str) -> str:
    text = json.dumps(data, sort_keys=True, ensure_ascii=True)
    return f'"{hashlib.sha256(f"{form}{text}".encode()).hexdigest()}"'


def cursor(place: list[Any]) -> str:
    """A place in a list, sealed: it may be that of something which the caller may not see."""
    return seal(json.dumps(place, ensure_ascii=False))


def _names(header: str, tags: set[str], *, exists: bool) -> bool:
    """Whether a list of tags names one of `tags`; `*` names whatever exists."""
    return any(exists if tag == "*" else tag in tags for tag in TAG.findall(header))


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value of JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in chain(value, value.values()):
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _is_storable(text: str) -> bool:
    """Whether both databases take it."""
    return not any(character == "\0" or "\ud800" <= character <= "\udfff" for character in text)


def _checked(request: Request, form: type[Query]) -> dict[str, Any]:
    known = form().fields
    for name, given in request.GET.lists():
        if name not in known:
            taken = f"this takes {', '.join(known)}" if known else "this takes none"
            raise Malformed(f"{name} is no parameter here; {taken}", rule="parameter.unknown")
        if len(given) > 1:
            raise Malformed(f"the parameter {name} stands twice", rule="parameter.twice")
    serializer = form(data=request.GET.dict())
    if not serializer.is_valid():
        raise Malformed("; ".join(lines(serializer.errors)), rule="parameter")
    return dict(serializer.validated_data)


def _ours(error: Exception) -> Exception:
    """What the framework refuses, in our own words."""
    if isinstance(error, exceptions.MethodNotAllowed):
        return MethodRefused("this method is not for this address; Allow names those that are", rule="method")
    if isinstance(error, exceptions.NotAcceptable):
        return NotAcceptable("this is not answered in a form that Accept names; ask for application/json", rule="accept")
    if isinstance(error, SuspiciousOperation):
        return Malformed("the request cannot be read", rule="request")
    return error
