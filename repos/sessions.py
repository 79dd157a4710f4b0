"""Upload sessions: bytes that come in several requests, which any process continues.

begin ── append … append ── whole ── close, with the publication; then discard_parts
   │       │                  └── the bytes joined, or a body that came as a whole, to be published
   │       └── the part is in the store first; then the row's offset moves on, if nobody moved it meanwhile
   └── a signed name and no row: most uploads come in one piece, and so cost no other transaction than their publication's

Nothing is kept in a process: one that is killed costs the part that it was receiving. A machine that crashes may lose
parts, which the digest of the whole tells: all of it is read when it is joined, but a large first part that is alone and was
synced when it came. What is abandoned is reaped by gc.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from django.http import HttpRequest
from django.utils import timezone
from django.utils.crypto import constant_time_compare, salted_hmac

from problems import Malformed, NotFound, RangeRefused
from repos import database, uploads
from repos.blobs import Incoming, Stored
from repos.blobs.stores import store
from repos.catalogue import Repo
from repos.models import Upload

LIFETIME = timedelta(days=1)
"""How long a session waits for its next part."""
MOST_PARTS = 10_000
WORTH_KNOWING = 8 << 20
"""Bytes of a first part that are synced, so that they need not be read again where they are all that comes."""
BATCH = 500
"""Sessions that are removed at once."""


def begin(repository_id: int, package: str, actor: str) -> str:
    """The name of a new session, by which `actor` sends something of `package`."""
    return _name(f"{int(time.time()):08x}{secrets.token_hex(12)}", repository_id, package, actor)


def name(session: Upload) -> str:
    """What a session is called by its client."""
    return _name(session.pk, session.repository_id, session.package, session.actor)


def _name(id: str, repository_id: int, package: str, actor: str) -> str:
    """Made by us alone, for this client and place."""
    said = "\n".join((str(repository_id), package, actor, id))
    return id + salted_hmac(__name__, said, algorithm="sha256").hexdigest()[:32]


def find(repo: Repo, package: str, actor: str, called: str) -> Upload:
    """The actor's session that is called so. Raises NotFound."""
    session = Upload(id=called[:32], repository_id=repo.id, package=package, actor=actor)
    if constant_time_compare(called, name(session)):
        found = database.rows('SELECT "offset", parts, sha256, ended FROM repos_upload WHERE id = %s', [session.pk])
        for offset, parts, sha256, ended in found:
            session.offset, session.parts, session.sha256, session.ended = offset, database.loaded(parts), sha256, bool(ended)
        begun = datetime.fromtimestamp(int(session.pk[:8], 16), UTC)
        if not session.ended and (found or begun > timezone.now() - LIFETIME):
            return session
    raise NotFound("there is no such upload: it was ended or abandoned; begin a new one", rule="upload.session")


def append(session: Upload, request: HttpRequest, part: range | None) -> Upload:
    """Add the request's body, which the client says to be these bytes of the whole (None: those after the last one's).

    Of a body that breaks off what came is kept, so that the client can go on from there. Raises Malformed for that one and,
    with nothing kept, for one of another length than was said; RangeRefused where it does not begin where the last part ended.
    """
    length = uploads.length_of(request)
    hashed = session.offset == 0 and (length is None or length >= WORTH_KNOWING)
    with _received(session, request, part, hashed=hashed) as incoming:
        _add(session, incoming)
    return session


@contextlib.contextmanager
def _received(
    session: Upload, request: HttpRequest, part: range | None, digests: tuple[str, ...] = (), *, hashed: bool = True
) -> Iterator[Incoming]:
    if part is not None and part.start != session.offset:
        raise RangeRefused(f"the next byte to send is number {session.offset}, not {part.start}", rule="upload.order")
    with store().receive(digests=digests, hashed=hashed) as incoming:
        database.release()
        try:
            for chunk in uploads.body_stream(request, part=True):
                incoming.write(chunk)
        except Malformed:
            _add(session, incoming)
            raise
        if part is not None and incoming.size != len(part):
            raise Malformed(f"{incoming.size} bytes came, and not the {len(part)} of Content-Range", rule="body.range")
        yield incoming


def _add(session: Upload, incoming: Incoming) -> None:
    if not incoming.size:
        return
    if len(session.parts) >= MOST_PARTS:
        raise Malformed(f"an upload has at most {MOST_PARTS} parts; send larger ones", rule="upload.parts")
    known = session.offset == 0 and incoming.size >= WORTH_KNOWING
    sha256 = incoming.sha256 if known else ""
    part = incoming.set_aside(durable=known)
    before = session.offset
    session.offset, session.parts, session.sha256 = before + incoming.size, [*session.parts, part], sha256
    try:
        _write(session, before)
    except RangeRefused:
        store().discard_part(part)
        raise


@contextlib.contextmanager
def whole(session: Upload, request: HttpRequest, part: range | None, digests: tuple[str, ...] = ()) -> Iterator[Incoming]:
    """All that has come and the request's body after it (see `append`), with these digests besides SHA-256.

    Raises NotFound where another request has ended the session, or bytes of it were lost with the machine: then it ends.
    """
    if not session.parts:
        with _received(session, request, part, digests) as incoming:
            yield incoming
        return
    if part is not None or uploads.length_of(request) != 0:
        append(session, request, part)
    try:
        joined = store().join(session.parts, digests, session.sha256)
    except FileNotFoundError as error:
        raise NotFound("this upload was ended meanwhile; begin a new one", rule="upload.session") from error
    with joined as incoming:
        if incoming.size != session.offset:
            end(session)
            raise NotFound("bytes of this upload were lost; begin a new one", rule="upload.session")
        yield incoming


FIRST = """
INSERT INTO repos_upload (id, repository_id, package, actor, "offset", parts, sha256, ended, touched_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, {now}) ON CONFLICT DO NOTHING RETURNING id
"""
NEXT = """
UPDATE repos_upload SET "offset" = %s, parts = %s, sha256 = %s, ended = %s, touched_at = {now}
 WHERE id = %s AND "offset" = %s AND NOT ended RETURNING id
"""


def _write(session: Upload, before: int) -> None:
    """Set what the session is now, if nobody has moved it on from `before`, ended or reaped it meanwhile. Raises RangeRefused."""
    now = database.clock()
    place = session.pk, session.repository_id, session.package, session.actor
    state = session.offset, database.document(session.parts), session.sha256, session.ended, *now.values
    sql, values = (NEXT, [*state, session.pk, before]) if before else (FIRST, [*place, *state])
    if not database.rows_unsynced(sql.format(now=now.text), values):
        raise RangeRefused(
            "another request has added to this upload or ended it meanwhile; ask where it stands", rule="upload.order"
        )


def close(session: Upload) -> None:
    """Let nobody go on with the session, from the commit of the caller's transaction on.

    Raises RangeRefused where another request has added to it or ended it meanwhile.
    """
    session.ended = True
    _write(session, session.offset)


def cancel(session: Upload) -> None:
    """Close the session (see `close`) and discard its parts."""
    close(session)
    discard_parts(session)


def end(session: Upload) -> None:
    """The same, unless another request goes on with it or has ended it."""
    with contextlib.suppress(RangeRefused):
        cancel(session)


def discard_parts(session: Upload) -> None:
    for name in session.parts:
        store().discard_part(name)


def reap() -> int:
    """Remove what nobody has added to for LIFETIME; returns how many had not been ended."""
    old = Upload.objects.filter(touched_at__lt=database.now() - LIFETIME)
    reaped, last = 0, ""
    while page := list(old.filter(pk__gt=last).order_by("pk")[:BATCH]):  # no query is left open: SQLite refuses to write then
        last = page[-1].pk
        here = Upload.objects.filter(pk__in=[session.pk for session in page])
        (here & old).delete()
        added_to = set(here.values_list("pk", flat=True))
        for session in page:
            if session.pk not in added_to:
                discard_parts(session)
                reaped += not session.ended
    return reaped


def parts_of_none(age: timedelta) -> Iterator[Stored]:
    """Parts older than `age` that no session has: of processes that were killed before they could say so."""
    old = [item for item in store().parts() if item.age > age.total_seconds()]
    if old:
        held = {part for parts in Upload.objects.filter(ended=False).values_list("parts", flat=True) for part in parts}
        yield from (item for item in old if item.key not in held)
