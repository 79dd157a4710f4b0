"""The GOPROXY protocol's GETs, and publishing by PUT."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from django.http import HttpResponse, HttpResponseBase
from django.utils import timezone

from problems import Conflict, NotFound
from repos import publish, resolve, rows, serve, uploads
from repos.blobs import Incoming
from repos.blobs.stores import store
from repos.call import Call
from repos.format import Described, route
from repos.formats.go import JSON, TEXT, described_info, described_mod, described_zip, index, parse
from repos.models import Aside, Asset, Description
from repos.publish import Bytes, New
from repos.rows import Found

ASIDE = timedelta(hours=1)
"""How long a .mod or .info waits for its .zip."""


# Reading


def get_setup(call: Call) -> HttpResponseBase:
    base_url = serve.base_url(call.request)
    text = call.repo.format.setup(call.repo, base_url, signed_in=not call.actor.anonymous)
    return serve.body(call, text.encode(), TEXT)


def get_file(call: Call) -> HttpResponseBase:
    """A version's .info, .mod or .zip, a branch's or commit's .info, or what the checksum database says."""
    parse.parse_request(call.path)
    return serve.get(call, cached_only=_cached_only(call))


def get_supported(call: Call) -> HttpResponseBase:
    """Whether a checksum database can be asked by way of us: one that an upstream is; of others the upstreams know."""
    name = parse.parse_request(call.path).name
    if any(source.folder == f"sumdb/{name}" for repo in call.readable for source in repo.upstreams):
        return serve.body(call, b"", TEXT)
    return get_file(call)


def get_list(call: Call) -> HttpResponseBase:
    parse.parse_request(call.path)
    return serve.document(call, TEXT, cached_only=_cached_only(call))


def get_latest(call: Call) -> HttpResponseBase:
    """A virtual's newest version is that of the union of its members' lists; where nothing is listed, the newest @latest."""
    module = parse.parse_request(call.path).module
    if not call.repo.is_virtual:
        return serve.document(call, JSON, cached_only=_cached_only(call))
    listed, stale_since = _listed(call, module)
    if listed:
        info = resolve.find(replace(call, path=index.info_path(module, parse.latest_of(listed))), cached_only=_cached_only(call))
        return serve.body(call, serve.read_document(info), JSON, stale_since=stale_since)
    parts, stale_since = serve.parts(call, cached_only=_cached_only(call))
    newest = max(parts, key=lambda part: parse.version_key(parse.parse_info(part)[0]))
    return serve.body(call, newest, JSON, stale_since=stale_since)


def _listed(call: Call, module: str) -> tuple[list[str], datetime | None]:
    path = f"{parse.escape_path(module)}/@v/list"
    try:
        parts, stale_since = serve.parts(replace(call, path=path), cached_only=_cached_only(call))
    except NotFound:
        return [], None
    return index.versions_in(index.merged_list(parts)), stale_since


def _cached_only(call: Call) -> bool:
    """`Disable-Module-Fetch: true` asks for what is here already."""
    return call.request.headers.get("Disable-Module-Fetch", "").strip().lower() == "true"


# Publishing


def put_zip(call: Call) -> HttpResponse:
    """Publish a version: the zip, the go.mod in it, and an .info, as one change. 200 where the very same stands already."""
    request = parse.parse_publication(call.path)
    with contextlib.ExitStack() as stack:
        incoming = stack.enter_context(uploads.receive(call))
        with incoming.open() as file:
            facts = parse.check_zip(file, request.module, request.version, published=True)
        zipped = New(call.path, Bytes.of(incoming), described_zip(request, facts))
        mod = _small(call, stack, "mod", facts.go_mod or b"", Described(request.module, request.version, TEXT, "mod"))
        _check_aside_mod(call, mod)
        outcome = _put_version(call, stack, zipped, mod)
    Aside.objects.filter(repository_id=call.repo.id, path_key__in=[_path(call, "mod"), _path(call, "info")]).delete()
    return _answer(201 if outcome.created else 200, f"{request.module} {request.version} {facts.h1}")


def _put_version(call: Call, stack: contextlib.ExitStack, zipped: New, mod: New) -> publish.Outcome:
    """Two who publish the same zip at once each note their own time: the second takes the first's .info and is content."""
    for last in (False, True):
        info = _info(call, stack)
        try:
            return publish.put(call.repo, [zipped, mod, info], call.actor.name, may_overwrite=False)
        except Conflict:
            if last or _stood_before(call, "info") == info.bytes.sha256:
                raise
    raise AssertionError("unreachable")


def _info(call: Call, stack: contextlib.ExitStack) -> New:
    """The version's .info: as it stands or stood, else as it was put aside, else of this moment."""
    request = parse.parse_request(call.path)
    stood = Description.objects.filter(format="go", path_class="info", blob__sha256=_stood_before(call, "info")).first()
    if stood is not None:
        time = stood.data.get("time")
        content = parse.make_info(request.version, datetime.fromisoformat(time) if time else None)
    else:
        content = _aside(call, "info") or parse.make_info(request.version, timezone.now().astimezone(UTC))
    return _small(call, stack, "info", content, described_info(replace(request, kind="info"), content))


def _check_aside_mod(call: Call, mod: New) -> None:
    aside = _aside(call, "mod")
    if aside is not None and hashlib.sha256(aside).hexdigest() != mod.bytes.sha256:
        raise Conflict("the .mod that was put before differs from the go.mod in the zip; put the same", rule="go.agree")


def put_mod(call: Call) -> HttpResponse:
    """Before its zip a .mod is kept aside; after it, it must be the go.mod that is in the zip."""
    return _put_beside(call, "mod", parse.MAX_GO_MOD)


def put_info(call: Call) -> HttpResponse:
    """Before its zip an .info is kept aside and sets the version's time; after it, it must agree."""
    return _put_beside(call, "info", parse.MAX_INFO)


def _put_beside(call: Call, suffix: str, limit: int) -> HttpResponse:
    request = parse.parse_publication(call.path)
    with uploads.receive(call, limit) as incoming:
        content = _read_incoming(incoming)
        if suffix == "mod":
            described_mod(request, content, published=True)
        else:
            described_info(request, content)
        standing = rows.look([call.repo], call.path).assets.get(call.repo.id)
        if standing is None:
            publish.put_aside(call.repo, call.path, Bytes.of(incoming), call.actor.name, timezone.now() + ASIDE)
            return _answer(202, f"kept for {ASIDE.seconds // 60} minutes; the version is published when its .zip comes")
        if not _agrees(suffix, content, standing):
            raise Conflict(
                f"{request.module} {request.version} is published with another .{suffix}; put the .{suffix} before the .zip,"
                " or publish a new version",
                rule="immutable",
            )
    return _answer(200, "as published")


def _agrees(suffix: str, content: bytes, standing: Found) -> bool:
    published = serve.read_document(standing)
    return parse.parse_info(content) == parse.parse_info(published) if suffix == "info" else content == published


def delete_version(call: Call) -> HttpResponse:
    """Take a version away: its three files as one change. Its number stays used; only the same bytes may come back."""
    publish.delete(call.repo, [_path(call, suffix) for suffix in ("zip", "mod", "info")], call.actor.name)
    return HttpResponse(status=204, content_type=TEXT)


def _path(call: Call, suffix: str) -> str:
    return f"{call.path.rpartition('.')[0]}.{suffix}"


def _small(call: Call, stack: contextlib.ExitStack, suffix: str, content: bytes, described: Described) -> New:
    incoming = stack.enter_context(store().receive())
    incoming.write(content)
    return New(_path(call, suffix), Bytes.of(incoming), described)


def _aside(call: Call, suffix: str) -> bytes | None:
    """What was put aside for this version and has not expired."""
    here = Aside.objects.filter(repository_id=call.repo.id, path_key=_path(call, suffix), expires_at__gt=timezone.now())
    aside = here.select_related("blob").first()
    if aside is None:
        return None
    with store().open(aside.blob.key) as file:
        return file.read()


def _stood_before(call: Call, suffix: str) -> str | None:
    """The digest of what stands at one of the version's paths, or stood there last."""
    there = Asset.objects.filter(repository_id=call.repo.id, path_key=_path(call, suffix))
    return there.order_by("-since").values_list("blob__sha256", flat=True).first()


def _read_incoming(incoming: Incoming) -> bytes:
    with incoming.open() as file:
        return file.read()


def _answer(status: int, text: str) -> HttpResponse:
    return HttpResponse(f"{text}\n".encode(), status=status, content_type=TEXT)


MODULE = r"[^@]+"

ROUTES = [
    route("GET", r"", "read", get_setup),
    route("GET", rf"{MODULE}/@v/list", "read", get_list),
    route("GET", rf"{MODULE}/@latest", "read", get_latest),
    route("GET", rf"{MODULE}/@v/.+\.(?:info|mod|zip)", "read", get_file),
    route("GET", r"sumdb/.+/supported", "read", get_supported),
    route("GET", r"sumdb/.+", "read", get_file),
    route("PUT", rf"{MODULE}/@v/[^/]+\.zip", "write", put_zip),
    route("PUT", rf"{MODULE}/@v/[^/]+\.mod", "write", put_mod),
    route("PUT", rf"{MODULE}/@v/[^/]+\.info", "write", put_info),
    route("DELETE", rf"{MODULE}/@v/[^/]+\.zip", "delete", delete_version),
]
