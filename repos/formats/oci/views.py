"""The endpoints of the distribution specification, under /v2/<repository>/ or, by a host that leads to one, /v2/."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from django.http import HttpRequest, HttpResponse, HttpResponseBase

from problems import Malformed, RangeRefused, Unauthenticated, Unavailable, absent
from repos import caller, hot, publish, resolve, serve, sessions, uploads
from repos.blobs import Incoming
from repos.call import Call
from repos.format import Described, Page, route
from repos.formats.oci import BYTES, JSON, described, index, parse, tokens
from repos.models import Upload
from repos.publish import Bytes, New

Response = TypeVar("Response", bound=HttpResponseBase)
API_VERSION = {"Docker-Distribution-Api-Version": "registry/2.0"}
CONTENT_RANGE = re.compile(r"(?:bytes[ =])?([0-9]{1,18})-([0-9]{1,18})(?:/(?:[0-9]{1,18}|\*))?")


# Pulling


def ping(request: HttpRequest) -> HttpResponse:
    """`/v2/`: who says who they are is let in; others learn here how to, also where anybody may pull."""
    if "Authorization" not in request.headers:
        raise Unauthenticated("sign in", rule="credentials")
    caller.recognise(request)
    return HttpResponse(b"{}", content_type=JSON, headers=API_VERSION)


def get_manifest(call: Call) -> HttpResponseBase:
    parse.check_reference(_parts(call).reference)
    found = resolve.find(call)
    answer = serve.found_answer(call, found)
    digest = _parts(call).reference if _parts(call).by_digest else f"sha256:{found.sha256}"
    return _with(answer, {"Docker-Content-Digest": digest})


def get_blob(call: Call) -> HttpResponseBase:
    """Who may push here and asks by HEAD wants to know whether to: for that no upstream is asked, which might be out."""
    parse.check_digest(_parts(call).reference)
    taker = call.repo.deploy_to
    asks = call.request.method == "HEAD" and taker is not None and call.may("artifact:write", taker, _parts(call).image)
    return _with(serve.get(call, cached_only=asks), {"Docker-Content-Digest": _parts(call).reference})


# Pushing blobs


def begin_upload(call: Call) -> HttpResponse:
    """POST: mount a blob of another image, take one as a whole (`digest`), or begin a session."""
    asked = call.request.GET
    if "mount" in asked and (answer := _mounted(call, asked["mount"], asked.get("from"))):
        return answer
    if "digest" in asked and "mount" not in asked:
        return _whole_blob(call, asked["digest"])
    begun = partial(_begun, call.repo.id, _parts(call).image, call.actor.name, call.root)
    answer = HttpResponse(status=202, headers=begun())
    if not asked:
        hot.renew(answer, call, begun)
    return answer


def _begun(repository_id: int, image: str, actor: str, root: str) -> dict[str, str]:
    return _where(root, image, sessions.begin(repository_id, image, actor), 0)


def _mounted(call: Call, digest: str, source: str | None) -> HttpResponse | None:
    """The blob of another image as one of this; None where it is not there, or not for the caller to read.

    Who could read it, but showed a pass that does not say so, is told to ask for one that does.
    """
    parse.check_digest(digest)
    place = tokens.place(call, source) if source else None
    if source and place is None:
        return None
    found = index.blob_elsewhere(call, digest, place)
    if found is None:
        own = tokens.own_rights(call)
        elsewhere = index.blob_elsewhere(replace(call, rights=own), digest, place) if own != call.rights else None
        if elsewhere is not None:
            raise tokens.wider(call, *(place or (call.repo, elsewhere.package)))
        return None
    path = f"{_parts(call).image}/blobs/{digest}"
    try:
        publish.put(call.repo, [_new_blob(path, Bytes.stored(found))], call.actor.name, may_overwrite=False)
    except Unavailable:  # its bytes are just being removed: as good as not there
        return None
    return _created(call, path, digest)


def _whole_blob(call: Call, digest: str) -> HttpResponse:
    algorithm, _ = parse.check_digest(digest)
    with uploads.receive(call, digests=_besides(algorithm)) as incoming:
        return _put_blob(call, incoming, digest)


def _besides(algorithm: str) -> tuple[str, ...]:
    """The digests to compute besides SHA-256."""
    return () if algorithm == "sha256" else (algorithm,)


def _put_blob(call: Call, incoming: Incoming, digest: str, ends: Callable[[], object] | None = None) -> HttpResponse:
    algorithm, digits = parse.check_digest(digest)
    found = incoming.sha256 if algorithm == "sha256" else incoming.digests[algorithm]
    if found != digits:
        raise Malformed(f"the bytes have the digest {algorithm}:{found}, not {digest}; send them again", rule="digest.mismatch")
    path = f"{_parts(call).image}/blobs/{digest}"
    publish.put(call.repo, [_new_blob(path, Bytes.of(incoming))], call.actor.name, may_overwrite=False, ends=ends)
    return _created(call, path, digest)


def _new_blob(path: str, content: Bytes) -> New:
    image, _, digest = path.rpartition("/blobs/")
    return New(path, content, Described(image, digest, BYTES, part=True))


def upload_status(call: Call) -> HttpResponse:
    return _session(call, _own_session(call), 204)


def add_to_upload(call: Call) -> HttpResponse:
    """PATCH: the next bytes, by Content-Range where the client says which, and else those after the last."""
    session = _own_session(call)
    with _told_where(call, session):
        return _session(call, sessions.append(session, call.request, _part(call)), 202)


def finish_upload(call: Call) -> HttpResponse:
    """PUT with `digest`: the last bytes, if there are any, and what all of them must come to."""
    session = _own_session(call)
    digest = call.request.GET.get("digest", "")
    algorithm, _ = parse.check_digest(digest)
    with _told_where(call, session), sessions.whole(session, call.request, _part(call), _besides(algorithm)) as incoming:
        try:
            answer = _put_blob(call, incoming, digest, ends=partial(sessions.close, session))
        except Malformed:
            sessions.end(session)  # these bytes never come to that digest
            raise
    sessions.discard_parts(session)
    return answer


def cancel_upload(call: Call) -> HttpResponse:
    session = _own_session(call)
    with _told_where(call, session):
        sessions.cancel(session)
    return HttpResponse(status=204, headers=API_VERSION)


def _own_session(call: Call) -> Upload:
    parts = _parts(call)
    return sessions.find(call.repo, parts.image, call.actor.name, parts.reference)


@contextlib.contextmanager
def _told_where(call: Call, session: Upload) -> Iterator[None]:
    """A part out of order is refused with where to go on."""
    try:
        yield
    except RangeRefused as problem:
        now = sessions.find(call.repo, session.package, session.actor, sessions.name(session))
        problem.headers |= _where(call.root, now.package, sessions.name(now), now.offset)
        raise


def _part(call: Call) -> range | None:
    """Which bytes the body is said to be; the specification's Content-Range has no unit (`0-1023`)."""
    text = call.request.headers.get("Content-Range")
    if text is None:
        return None
    match = CONTENT_RANGE.fullmatch(text.strip())
    if match is None or int(match[2]) < int(match[1]):
        raise Malformed("Content-Range is FIRST-LAST, the numbers of the first and last byte", rule="body.range")
    return range(int(match[1]), int(match[2]) + 1)


def _session(call: Call, session: Upload, status: int) -> HttpResponse:
    return HttpResponse(status=status, headers=_where(call.root, session.package, sessions.name(session), session.offset))


def _where(root: str, image: str, name: str, offset: int) -> dict[str, str]:
    """Where to go on, and how many bytes are here; of none the specification's Range cannot tell."""
    return {
        "Location": f"{root}{image}/blobs/uploads/{name}",
        "Range": f"0-{max(0, offset - 1)}",
        "Docker-Upload-UUID": name,
        **API_VERSION,
    }


# Pushing manifests


def put_manifest(call: Call) -> HttpResponse:
    """By a tag the manifest and the tag are one change; what it refers to has to be in the image."""
    parts = _parts(call)
    parse.check_reference(parts.reference)
    algorithm = parts.reference.partition(":")[0] if parts.by_digest else "sha256"
    with uploads.receive(call, parse.LARGEST_MANIFEST, digests=_besides(algorithm)) as incoming:
        with incoming.open() as file:
            manifest = parse.parse_manifest(file.read(), parse.plain_media_type(call.request.headers.get("Content-Type", "")))
        found = f"{algorithm}:{incoming.sha256 if algorithm == 'sha256' else incoming.digests[algorithm]}"
        if parts.by_digest and found != parts.reference:
            raise Malformed(f"the manifest has the digest {found}, not {parts.reference}", rule="digest.mismatch")
        content = Bytes.of(incoming)
        paths = [call.path, *call.repo.format.stands_also_at(call.path, incoming.sha256)]
        news = [New(path, content, described(parse.split(path) or parts, manifest)) for path in paths]
        news += index.from_members(call, manifest.needed(parts.image))
        publish.put(
            call.repo, news, call.actor.name,
            may_overwrite=call.may("artifact:overwrite", call.repo, parts.image), needs=manifest.needed(parts.image),
        )  # fmt: skip
    answer = _created(call, f"{parts.image}/manifests/{found}", found)
    return _with(answer, {"OCI-Subject": manifest.subject} if manifest.subject else {})


def _created(call: Call, path: str, digest: str) -> HttpResponse:
    return HttpResponse(status=201, headers={"Location": f"{call.root}{path}", "Docker-Content-Digest": digest, **API_VERSION})


# Deleting


def delete(call: Call) -> HttpResponse:
    """A blob, or a tag; or by its digest a manifest and every tag that leads to it. Not what a manifest that stands needs."""
    parts = _parts(call)
    check = parse.check_digest if parts.kind == "blobs" else parse.check_reference
    check(parts.reference)
    if publish.close(call.repo, lambda assets: index.to_delete(assets, call.path, parts), call.actor.name) is None:
        raise absent(call.path)
    return HttpResponse(status=202, headers=API_VERSION)


# Listing


def list_tags(call: Call) -> HttpResponseBase:
    return index.tags(call, *_page_of(call.request))


def list_referrers(call: Call) -> HttpResponseBase:
    parse.check_digest(_parts(call).reference)
    return index.referrers(call, _text(call.request, "artifactType"), _text(call.request, "last"))


def catalogue(request: HttpRequest) -> HttpResponse:
    return index.catalogue(request, *_page_of(request))


def _page_of(request: HttpRequest) -> tuple[int | None, str]:
    """How many are asked for (None: all), and after which."""
    text = request.GET.get("n")
    if text is not None and not re.fullmatch("[0-9]{1,9}", text):
        raise Malformed("n is a number, of how many are wanted", rule="page.size")
    return None if text is None else int(text), _text(request, "last")


def _text(request: HttpRequest, name: str) -> str:
    """A text of the query that rows are held against; databases know no NUL."""
    text = request.GET.get(name, "")
    if "\0" in text:
        raise Malformed(f"{name} holds NUL, which nothing here has in its name", rule="query.text")
    return text


# Shared


def get_setup(call: Call) -> HttpResponseBase:
    text = call.repo.format.setup(call.repo, serve.base_url(call.request), signed_in=not call.actor.anonymous)
    return serve.body(call, text.encode(), "text/plain; charset=utf-8")


def _parts(call: Call) -> parse.Path:
    parts = parse.split(call.path)
    if parts is None:
        raise absent(call.path)
    return parts


def _with(response: Response, headers: dict[str, Any]) -> Response:
    for name, value in {**headers, **API_VERSION}.items():
        response.headers[name] = value
    return response


IMAGE = parse.NAME
ONE = r"[^/]+"

PAGES = [
    Page("GET", "", ping),
    Page("GET", "_catalog", catalogue),
    Page("GET", "token", tokens.give),
    Page("POST", "token", tokens.give_by_form),
]
ROUTES = [
    route("GET", r"", "read", get_setup),
    route("GET", rf"{IMAGE}/manifests/{ONE}", "read", get_manifest),
    route("PUT", rf"{IMAGE}/manifests/{ONE}", "write", put_manifest),
    route("DELETE", rf"{IMAGE}/manifests/{ONE}", "delete", delete),
    route("GET", rf"{IMAGE}/blobs/{ONE}", "read", get_blob),
    route("DELETE", rf"{IMAGE}/blobs/{ONE}", "delete", delete),
    route("POST", rf"{IMAGE}/blobs/uploads/?", "write", begin_upload),
    route("GET", rf"{IMAGE}/blobs/uploads/{ONE}", "write", upload_status),
    route("PATCH", rf"{IMAGE}/blobs/uploads/{ONE}", "write", add_to_upload),
    route("PUT", rf"{IMAGE}/blobs/uploads/{ONE}", "write", finish_upload),
    route("DELETE", rf"{IMAGE}/blobs/uploads/{ONE}", "write", cancel_upload),
    route("GET", rf"{IMAGE}/tags/list", "read", list_tags),
    route("GET", rf"{IMAGE}/referrers/{ONE}", "read", list_referrers),
]
