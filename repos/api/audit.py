"""The audit, for who may read it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse
from rest_framework import serializers
from rest_framework.permissions import BasePermission
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from accounts import events
from problems import Malformed
from repos import database
from repos.api.permissions import caller_of, refused
from repos.api.resource import Page, Query, Resource
from repos.api.shapes import EventShape, page_of
from repos.configuration.fields import TextField

LINES = "application/x-ndjson"


class AuditReader(BasePermission):
    def has_permission(self, request: Request, view: Any) -> bool:
        if not caller_of(request).rights.allows_globally("audit:read"):
            raise refused(caller_of(request), "audit:read")
        return True


class Filters(Query):
    actor = TextField(required=False, allow_blank=True, max_length=150, help_text="only what they did; empty: anonymous")
    action = TextField(required=False, max_length=40)
    refused = serializers.ChoiceField(choices=["true", "false"], required=False)
    repository = TextField(required=False, max_length=100)
    subject = TextField(required=False, max_length=1024, help_text="only subjects that begin so")
    since = serializers.DateTimeField(required=False, help_text="only lines of then and later")
    until = serializers.DateTimeField(required=False, help_text="only earlier lines")


class AuditPage(Page, Filters):
    order = serializers.ChoiceField(choices=["at", "-at"], required=False, default="-at", help_text="-at: the newest first")


class ExportQuery(Filters):
    after = TextField(required=False, max_length=60, help_text="only lines behind this one: its `place`")


class OfAudit(Resource):
    permission_classes: Any = (AuditReader,)

    @property
    def filters(self) -> dict[str, Any]:
        asked = {name: self.asked[name] for name in (*events.FILTERS, "subject") if name in self.asked}
        if any("\0" in value for value in asked.values() if isinstance(value, str)):
            raise Malformed("a filter holds a NUL, which is in no line", rule="parameter")
        return {**asked, "refused": asked["refused"] == "true"} if "refused" in asked else asked


class Audit(OfAudit):
    """Who did what, when, from where; the newest first."""

    queries = {"GET": AuditPage}
    gives = {"GET": {200: page_of(EventShape)}}

    def get(self, request: Request) -> HttpResponse:
        after = self.after(str, int)
        place = (datetime.fromisoformat(after[0]), after[1]) if after else None
        rows = events.ordered(events.chosen(**self.filters), after=place, newest=self.asked["order"] == "-at")
        return self.page(rows[: self.asked["limit"] + 1], events.document, lambda line: [line.at.isoformat(), line.pk])


class JsonLines(BaseRenderer):
    media_type = LINES
    format = "ndjson"


class AuditExport(OfAudit):
    """All of it as lines of JSON, the oldest first. It can be gone on with behind the last line that came."""

    renderer_classes = (JsonLines,)
    queries = {"GET": ExportQuery}
    gives = {"GET": {200: EventShape}}

    def get(self, request: Request) -> HttpResponseBase:
        after = events.read_place(self.asked["after"]) if "after" in self.asked else None
        headers = {"Cache-Control": "no-store", "Vary": "Authorization"}
        found = events.settled(events.chosen(**self.filters), after)
        told = _told(found) if request.method == "GET" else ()  # of a length that nobody knows before
        return StreamingHttpResponse(told, headers=headers, content_type=LINES)


def _told(found: Iterator[Any]) -> Iterator[bytes]:
    """Pieces of many lines. No connection to the database is held while a client takes one."""
    piece = bytearray()
    for event in found:
        piece += json.dumps(events.document(event), ensure_ascii=False).encode() + b"\n"
        if len(piece) > 64 * 1024:
            database.release()
            yield bytes(piece)
            piece.clear()
    database.release()
    yield bytes(piece)
