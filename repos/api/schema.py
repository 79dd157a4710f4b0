"""The API described in OpenAPI 3.1, made of what the resources say of themselves.

A resource names for each method what it takes (`takes`), what it gives (`gives`), its parameters (`queries`) and, for an example,
a body (`examples`); its docstring is the description. What holds for all is added here.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, cast

from django.http import HttpResponse
from drf_spectacular.extensions import OpenApiAuthenticationExtension, OpenApiSerializerFieldExtension
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.renderers import OpenApiJsonRenderer, OpenApiJsonRenderer2, OpenApiYamlRenderer, OpenApiYamlRenderer2
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse
from rest_framework import serializers
from rest_framework.request import Request

from repos.api.permissions import Anybody
from repos.api.resource import JSON, YAML, ByAccept, Query, Resource
from repos.api.shapes import Shape
from repos.configuration.fields import Item

REFUSED = {
    400: "The request is wrong: a parameter, a header or the body.",
    401: "Who are you? Also where there is nothing, or nothing that everybody may see.",
    403: "You may not.",
    404: "It is not there, or not for you to see: the two are told alike.",
    406: "Not in a form that Accept names.",
    500: "An error here, not in the request.",
    503: "Try again later.",
}
BEFORE = {414: "The address is longer than the server takes.", 431: "A header is longer than the server takes."}
"""What the server answers before the API sees the request."""
WITH_BODY = {
    409: "Something stands against it.",
    413: "The body is too large.",
    415: "Not in a form that is taken here.",
}
CONDITIONS = {
    "If-Match": "Only if it still has this ETag.",
    "If-None-Match": "GET: only if it no longer has this ETag. PUT with `*`: only if it is new.",
}


class Described(AutoSchema):
    """One operation, as its resource tells of it."""

    @property
    def resource(self) -> Resource:
        return cast(Resource, self.view)

    def get_operation_id(self) -> str:
        words = re.findall("[a-z]+", self.path.removeprefix("/api/v1/"))
        return "_".join([self.method.lower(), *(words or ["index"])])

    def get_tags(self) -> list[str]:
        return re.findall("[a-z]+", self.path.removeprefix("/api/v1/"))[:1] or ["index"]

    def get_override_parameters(self) -> list[Any]:
        headers = {
            "GET": ["If-None-Match"] if self._tagged else [],
            "PUT": list(CONDITIONS),
            "DELETE": ["If-Match"],
        }.get(self.method, [])
        query = self.resource.queries.get(self.method)
        return [
            *([query] if query else []),
            *(OpenApiParameter(name, str, OpenApiParameter.HEADER, description=CONDITIONS[name]) for name in headers),
            *([OpenApiParameter("ETag", str, OpenApiParameter.HEADER, response=[200, 201])] if self._tagged else []),
        ]

    def get_request_serializer(self) -> Any:
        return self.resource.takes.get(self.method)

    def get_response_serializers(self) -> Any:
        good: dict[Any, Any] = dict(self.resource.gives.get(self.method, {}))
        if self._tagged and self.method == "GET":
            good[304] = OpenApiResponse(description="You have it already.")
        refused = dict(REFUSED)
        if self.method not in ("GET", "HEAD"):
            refused |= WITH_BODY if self.method in self.resource.takes else {409: WITH_BODY[409]}
        if self.method == "POST" and self.resource.bounded:
            refused[429] = "Enough of it is under way already."
        if self.method in ("PUT", "DELETE"):
            refused[412] = "It is not as If-Match or If-None-Match wants it."
        kind, shape = self.resource.problem_type, self.resource.problem_shape
        bad = {(status, kind): OpenApiResponse(shape, why) for status, why in sorted(refused.items())}
        return {**good, **bad, **{status: OpenApiResponse(description=why) for status, why in BEFORE.items()}}

    def get_examples(self) -> list[OpenApiExample]:
        example = self.resource.examples.get(self.method)
        kind = self.resource.body_types[0]
        return [OpenApiExample("example", example, request_only=True, media_type=kind)] if example else []

    def map_parsers(self) -> list[Any]:
        return list(self.resource.body_types)

    @property
    def _tagged(self) -> bool:
        return self.resource.tagged

    def get_serializer_name(self, serializer: Any, direction: Any) -> str:
        return type(serializer).__name__.removesuffix("Shape")

    def _is_list_view(self, serializer: Any = None) -> bool:
        return False

    def _map_serializer_field(self, field: Any, direction: Any, bypass_extensions: bool = False) -> Any:
        schema = super()._map_serializer_field(field, direction, bypass_extensions)
        schema.pop("x-spec-enum-id", None)  # for naming sets of values, which have no names here
        return schema

    def _map_basic_serializer(self, serializer: Any, direction: Any) -> Any:
        schema = super()._map_basic_serializer(serializer, direction)
        schema.pop("description", None)  # what a serializer's docstring says is for who reads the code
        if isinstance(serializer, (Item, Shape)):
            schema["additionalProperties"] = False
        return schema


class HeaderScheme(OpenApiAuthenticationExtension):
    target_class = "repos.api.permissions.ByHeader"
    name = ["basic", "bearer"]

    def get_security_definition(self, auto_schema: Any) -> Any:
        return [
            {"type": "http", "scheme": "basic", "description": "A user's name with the password, or any name with a token."},
            {"type": "http", "scheme": "bearer", "description": "A token."},
        ]

    def get_security_requirement(self, auto_schema: Any) -> Any:
        public = auto_schema.view.open and auto_schema.method == "GET"
        return [{"basic": []}, {"bearer": []}, *([{}] if public else [])]


class SecretFieldScheme(OpenApiSerializerFieldExtension):
    target_class = "repos.configuration.fields.SecretField"

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> Any:
        name = {"type": "object", "required": ["env"], "additionalProperties": False, "properties": {"env": {"type": "string"}}}
        return {
            "description": "The secret itself; or, as answers have it, the name under which it is stored.",
            "oneOf": [{"type": "string", "minLength": 1}, name],
        }


class ClaimsFieldScheme(OpenApiSerializerFieldExtension):
    target_class = "repos.configuration.trusts.ClaimsField"

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> Any:
        return {"type": "object", "minProperties": 1, "description": "Claims with patterns, in the shape that the claims have."}


class KeysFieldScheme(OpenApiSerializerFieldExtension):
    target_class = "repos.configuration.trusts.KeysField"

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> Any:
        keys = {"type": "array", "minItems": 1, "items": {"type": "object"}}
        return {"type": "object", "required": ["keys"], "properties": {"keys": keys}, "description": "RFC 7517 section 5"}


class SchemaQuery(Query):
    format = serializers.ChoiceField(choices=["json", "yaml"], required=False, help_text="instead of Accept")


class ByParameter(ByAccept):
    """`format` before Accept."""

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        wanted = {"json": JSON, "yaml": YAML}.get(request.GET.get("format", ""))
        for renderer in renderers:
            if renderer.media_type == wanted:
                return renderer, renderer.media_type
        return super().select_renderer(request, renderers, format_suffix)


class Schema(Resource):
    """This description. It holds no data, so everybody may read it."""

    permission_classes: Any = (Anybody,)
    renderer_classes = (OpenApiYamlRenderer, OpenApiYamlRenderer2, OpenApiJsonRenderer, OpenApiJsonRenderer2)
    content_negotiation_class = ByParameter
    queries = {"GET": SchemaQuery}
    gives = {"GET": {200: dict}}
    tagged = True
    open = True

    def get(self, request: Request) -> HttpResponse:
        return self.answer(_schema())


@lru_cache(maxsize=1)
def _schema() -> Any:
    return SchemaGenerator().get_schema(request=None, public=True)
