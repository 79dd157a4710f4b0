"""GET, HEAD, PUT and DELETE of files."""

from __future__ import annotations

from django.http import HttpResponse, HttpResponseBase

from repos import publish, serve, uploads
from repos.call import Call
from repos.format import route
from repos.publish import Bytes, New


def get_file(call: Call) -> HttpResponseBase:
    return serve.get(call)


def put_file(call: Call) -> HttpResponse:
    """201 for what is new, with its digest; the same bytes again change nothing and are 201 as well."""
    with uploads.receive(call) as incoming:
        described = call.repo.format.describe(call.path, incoming.open, published=True)
        new = New(call.path, Bytes.of(incoming), described)
        overwrite = call.may("artifact:overwrite", call.repo, described.package)
        publish.put(call.repo, [new], call.actor.name, may_overwrite=overwrite)
        sha256 = incoming.sha256
    return HttpResponse(status=201, content_type="text/plain", headers={"ETag": f'"{sha256}"', "X-Checksum-Sha256": sha256})


def delete_file(call: Call) -> HttpResponse:
    publish.delete(call.repo, [call.path], call.actor.name)
    return HttpResponse(status=204, content_type="text/plain")


FILE = r".*[^/]"

ROUTES = [
    route("GET", FILE, "read", get_file),
    route("PUT", FILE, "write", put_file),
    route("DELETE", FILE, "delete", delete_file),
]
