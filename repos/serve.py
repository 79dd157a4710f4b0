"""The read path: from a path to bytes on the wire.

get        an artefact: the asset that stands there
document   an index: what each repository that may answer has to say, merged
blob       bytes that were found, with their validators, ranges and cache rules (RFC 9110, RFC 9111)
body       a document that was made in memory
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterator
from datetime import datetime
from typing import BinaryIO, TypeVar
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotModified, StreamingHttpResponse
from django.utils import timezone
from django.utils.http import http_date, parse_http_date_safe

from accounts import audit
from problems import Forbidden, Malformed, NotFound, Problem, RangeRefused, UpstreamFailed, absent
from repos import catalogue, database, hot, proxy, resolve, usage
from repos.blobs import CHUNK
from repos.blobs.stores import store
from repos.call import Call, Query
from repos.catalogue import Repo
from repos.fill import Fill
from repos.rows import Found, Known

log = logging.getLogger("entrepot.serve")

Response = TypeVar("Response", bound=HttpResponseBase)
RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
FOREVER = "max-age=31536000, immutable"


def get(call: Call, *, cached_only: bool = False) -> HttpResponseBase:
    """Answer GET or HEAD for the artefact at the call's path."""
    return found_answer(call, resolve.find(call, cached_only=cached_only))


def found_answer(call: Call, found: Found | Fill) -> HttpResponseBase:
    """Answer with what was found: bytes that are here, or that are on their way."""
    usage.exercised(call.actor, call.used_of(found.repo.id if isinstance(found, Fill) else found.repository_id))
    return _streamed(call, found) if isinstance(found, Fill) else blob(call, found)


def document(call: Call, media_type: str, *, cached_only: bool = False) -> HttpResponseBase:
    """Answer GET or HEAD for an index: rendered where the repository is local, merged where it is virtual, else the upstream's.

    Raises NotFound where nobody has it.
    """
    if call.repo.is_remote:
        return get(call, cached_only=cached_only)
    found, stale_since = parts(call, cached_only=cached_only)
    content = call.repo.format.merge(call.path, found) if call.repo.is_virtual else found[0]
    return body(call, content, media_type, stale_since=stale_since)


def parts(query: Query, *, cached_only: bool = False) -> tuple[list[bytes], datetime | None]:
    """What each repository that may answer says at the path, in order, and since when the oldest part is stale, if one is.

    A member that has nothing there is left out; one that fails is the answer, since an index that lacks what it had
    yesterday breaks builds silently. Raises NotFound where no part is found, Forbidden where a member's pattern refused it.
    """
    known = resolve.look(query)
    found: list[bytes] = []
    stale_since = None
    refusal: Forbidden | None = None
    for repo in resolve.answering(query, known):
        try:
            content, checked_at = part(query, repo, known, cached_only=cached_only)
        except NotFound:
            continue
        except Forbidden as error:
            refusal = refusal or error
            continue
        found.append(content)
        if isinstance(query, Call):
            usage.exercised(query.actor, query.used_of(repo.id))
        stale_since = min(filter(None, (stale_since, checked_at)), default=None)
    if not found:
        raise refusal or absent(query.path)
    return found, stale_since


LARGEST_DOCUMENT = 64 * 1024 * 1024
"""Bytes of one part of an index that is merged in memory."""


def part(query: Query, repo: Repo, known: Known, *, cached_only: bool = False) -> tuple[bytes, datetime | None]:
    """One repository's document, and since when it is stale, if it is."""
    if repo.is_local:
        if query.repo.is_virtual and repo.id not in known.owners and query.repo.format.package(query.path):
            raise absent(query.path)  # it never held the name, as the rows have told
        return repo.format.render(repo, query.path), None
    asset, fresh = known.assets.get(repo.id), known.fresh.get(repo.id)
    found = proxy.get(repo, query.path, asset, fresh, cached_only=cached_only, accept=query.accept)
    return read_document(found), found.checked_at if isinstance(found, Found) and found.stale else None


def read_document(found: Found | Fill) -> bytes:
    """The bytes of a document small enough to be worked on in memory."""
    if isinstance(found, Fill):
        found = found.outcome()
    if found.size > LARGEST_DOCUMENT:
        raise UpstreamFailed("the upstream's index is too large to be merged", rule="document.size")
    usage.served(found.asset_id, downloads=0)
    with _open(found) as file:
        return file.read()


def base_url(request: HttpRequest) -> str:
    """The server's own address without a trailing slash: as configured, else the request's, for an allowed host.

    By a host that leads to one repository it is that host's.
    """
    host = request.META.get("HTTP_HOST", "")
    if catalogue.leads_somewhere(host):
        return f"{urlsplit(settings.ENTREPOT.base_url).scheme or request.scheme}://{host}"
    try:
        return settings.ENTREPOT.base_url or request.build_absolute_uri("/").rstrip("/")
    except DisallowedHost:
        raise Malformed("this host name is not ours; set ENTREPOT_BASE_URL or ENTREPOT_HOSTS", rule="host") from None


def blob(call: Call, found: Found) -> HttpResponseBase:
    """Answer with an asset's bytes: 200, 206, 304 or RangeRefused."""
    headers = _headers(call, found)
    if _unchanged(call, headers["ETag"], found.at):
        usage.served(found.asset_id, downloads=0)
        return _with(HttpResponseNotModified(), {name: headers[name] for name in ("ETag", "Cache-Control", "Last-Modified")})
    part = _range(call, found.size, headers["ETag"], found.at)
    start, end = part or (0, found.size)
    usage.served(found.asset_id, downloads=int(start == 0 and call.request.method == "GET"))
    status = 206 if part else 200
    if part:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{found.size}"
    headers["Content-Length"] = str(end - start)
    if call.request.method == "HEAD":
        answer: HttpResponseBase = _with(HttpResponse(status=status, content_type=found.media_type), headers)
        hot.note(answer, call, found)
        return answer
    file = _open(found)
    _log(call, found.repository_id, found.path, found.sha256)
    database.release()
    if part:
        return _with(StreamingHttpResponse(_slice(file, start, end), status=206, content_type=found.media_type), headers)
    answer = _with(_File(file, content_type=found.media_type), headers)
    hot.note(answer, call, found)
    return answer


def body(call: Call, content: bytes, media_type: str, *, stale_since: datetime | None = None) -> HttpResponse:
    """Answer with a document made in memory, with a strong ETag of its bytes; revalidated each time."""
    headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "Cache-Control": f"{_audience(call)}, no-cache"}
    headers |= _staleness(stale_since)
    if _unchanged(call, headers["ETag"], None):
        return _with(HttpResponseNotModified(), headers)
    length = {"Content-Length": str(len(content))}
    return _with(HttpResponse(b"" if call.request.method == "HEAD" else content, content_type=media_type), headers | length)


def _open(found: Found) -> BinaryIO:
    """The bytes of an asset. Raises Problem where they are gone, or not all there: the client would wait for the rest."""
    try:
        file = store().open(found.key)
        if file.seek(0, os.SEEK_END) == found.size:
            file.seek(0)
            return file
        file.close()
    except FileNotFoundError:
        pass
    log.error("the bytes of %s (sha256 %s) are not in the store; fsck tells what else is wrong", found.path, found.sha256)
    raise Problem("the bytes are missing from the store; whoever runs the server can find them by fsck")


def _streamed(call: Call, fill: Fill) -> HttpResponseBase:
    """Answer with bytes that are still on their way; a Range is not honoured, which RFC 9110 section 14.2 allows."""
    headers = {
        "ETag": f'"{fill.sha256}"',
        "Content-Length": str(fill.size),
        "X-Checksum-Sha256": fill.sha256,
        "Cache-Control": _cache_control(call, fill.path, fill.repo),
    }
    if call.request.method == "GET":
        _log(call, fill.repo.id, fill.path, fill.sha256)
    chunks: Iterator[bytes] = iter(()) if call.request.method == "HEAD" else fill.chunks()
    return _with(StreamingHttpResponse(chunks, content_type="application/octet-stream"), headers)


LOGGED = 2000
"""Downloads of different things, or by different people, that a process logs in a minute; of those beyond it tells how many."""


def _log(call: Call, holder: int, path: str, sha256: str) -> None:
    """Have the audit tell of a download, or a part of one, where a repository asks for it."""
    if call.logs(holder):
        member = next((repo.key for repo in call.repo.members if repo.id == holder), "")
        detail = {"digest": f"sha256:{sha256}", **({"member": member} if member else {})}
        audit.notice("artifact.download", repository=call.repo.key, subject=path, detail=detail, most=LOGGED)


def _headers(call: Call, found: Found) -> dict[str, str]:
    checksums = {f"X-Checksum-{name.capitalize()}": value for name, value in found.digests.items()}
    return {
        "ETag": f'"{found.sha256}"',
        "Last-Modified": http_date(found.at.timestamp()),
        "Accept-Ranges": "bytes",
        "Cache-Control": _cache_control(call, found.path, call.repo),
        "X-Checksum-Sha256": found.sha256,
        **checksums,
        **_staleness(found.checked_at if found.stale else None),
    }


def _cache_control(call: Call, path: str, repo: Repo) -> str:
    return f"{_audience(call)}, {FOREVER if repo.never_changes(path) else 'no-cache'}"


def _audience(call: Call) -> str:
    """Shared caches may keep only what anybody may read, which they know when nobody said who they are."""
    return "public" if call.actor.user_id is None else "private"


def _staleness(since: datetime | None) -> dict[str, str]:
    """How a client can tell that the upstream could not be asked (RFC 9111 section 5.1; Warning 110 of RFC 7234)."""
    if since is None:
        return {}
    age = max(0, int((timezone.now() - since).total_seconds()))
    return {"Age": str(age), "Warning": '110 entrepot "Response is Stale"'}


def _unchanged(call: Call, etag: str, at: datetime | None) -> bool:
    """Whether the client's own copy is this one (RFC 9110 section 13.2.2)."""
    none_match = call.request.headers.get("If-None-Match")
    if none_match is not None:
        return none_match.strip() == "*" or etag in (tag.strip().removeprefix("W/") for tag in none_match.split(","))
    since = parse_http_date_safe(call.request.headers.get("If-Modified-Since", ""))
    return since is not None and at is not None and int(at.timestamp()) == since


def _range(call: Call, size: int, etag: str, at: datetime) -> tuple[int, int] | None:
    """The bytes that are asked for, as start and end; None: the whole, also for several ranges (RFC 9110 section 14.2).

    A range that does not come with GET is ignored; one whose end is before its start is refused (section 14.2 allows either).
    """
    match = RANGE.fullmatch(call.request.headers.get("Range", "").strip())
    if call.request.method != "GET" or not match or not any(match.groups()) or not _range_applies(call, etag, at):
        return None
    first, last = match.groups()
    start, end = (int(first), min(int(last) + 1 if last else size, size)) if first else (max(0, size - int(last)), size)
    if start >= size or start >= end:
        raise RangeRefused(f"the range starts past the end of {size} bytes", headers={"Content-Range": f"bytes */{size}"})
    return start, end


def _range_applies(call: Call, etag: str, at: datetime) -> bool:
    condition = call.request.headers.get("If-Range")
    if condition is None:
        return True
    return condition.strip() == etag or parse_http_date_safe(condition) == int(at.timestamp())


class _File(FileResponse):
    """A file whose headers are told by us: Django would guess them, from the name and size of the blob's file."""

    def set_headers(self, filelike: BinaryIO) -> None:
        pass


def _slice(file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    with file:
        file.seek(start)
        left = end - start
        while left and (chunk := file.read(min(CHUNK, left))):
            left -= len(chunk)
            yield chunk


def _with(response: Response, headers: dict[str, str]) -> Response:
    for name, value in headers.items():
        response.headers[name] = value
    return response
