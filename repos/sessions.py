"""Upload sessions: bytes that come in several requests, which any process continues.

begin ── append … append ── whole ── forget, with the publication; then discard_parts
           │                  └── the bytes joined, or a body that came as a whole, to be published
           └── the part is in the store first; then the row's offset moves on, if nobody moved it meanwhile

Nothing is kept in a process: one that is killed costs the part that it was receiving. What is abandoned is reaped by gc.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from datetime import timedelta

from django.http import HttpRequest

from problems import Malformed, NotFound, RangeRefused
from repos import database, uploads
from repos.blobs import Incoming, Stored
from repos.blobs.stores import store
from repos.catalogue import Repo
from repos.models import Upload

LIFETIME = timedelta(days=1)
"""How long a session waits for its next part."""


def begin(repo: Repo, package: str, actor: str) -> Upload:
    """A new session, by which `actor` sends something of `package`."""
    with database.not_waiting_for_the_disk():
        return Upload.objects.create(
            id=secrets.token_hex(16), repository_id=repo.id, package=package, actor=actor, touched_at=database.now()
        )


def find(repo: Repo, package: str, actor: str, name: str) -> Upload:
    """The actor's session of this name. Raises NotFound."""
    mine = Upload.objects.filter(pk=name, repository_id=repo.id, package=package, actor=actor)
    session = mine.first()
    if session is None:
        raise NotFound("there is no such upload: it was ended or abandoned; begin a new one", rule="upload.session")
    return session


def append(session: Upload, request: HttpRequest, part: range | None) -> Upload:
    """Add the request's body, which the client says to be these bytes of the whole (None: those after the last one's).

    Of a body that breaks off what came is kept, so that the client can go on from there. Raises Malformed for that one and,
    with nothing kept, for one of another length than was said; RangeRefused where it does not begin where the last part ended.
    """
    with _received(session, request, part) as incoming:
        _add(session, incoming)
    return session


@contextlib.contextmanager
def _received(session: Upload, request: HttpRequest, part: range | None, digests: tuple[str, ...] = ()) -> Iterator[Incoming]:
    if part is not None and part.start != session.offset:
        raise RangeRefused(f"the next byte to send is number {session.offset}, not {part.start}", rule="upload.order")
    with store().receive(digests=digests) as incoming:
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
    before, size = session.offset, incoming.size
    if not size:
        return
    sha256 = incoming.sha256 if before == 0 else ""
    name = incoming.set_aside()
    parts = [*session.parts, name]
    with database.not_waiting_for_the_disk():
        moved = Upload.objects.filter(pk=session.pk, offset=before).update(
            offset=before + size, parts=parts, sha256=sha256, touched_at=database.now()
        )
    if not moved:
        store().discard_part(name)
        raise RangeRefused("another request has added to this upload meanwhile; ask where it stands", rule="upload.order")
    session.offset, session.parts, session.sha256 = before + size, parts, sha256


@contextlib.contextmanager
def whole(session: Upload, request: HttpRequest, part: range | None, digests: tuple[str, ...] = ()) -> Iterator[Incoming]:
    """All that has come and the request's body after it (see `append`), with these digests besides SHA-256.

    Raises NotFound where another request has ended the session.
    """
    if not session.parts:
        with _received(session, request, part, digests) as incoming:
            yield incoming
        return
    append(session, request, part)
    try:
        joined = store().join(session.parts, digests, session.sha256)
    except FileNotFoundError as error:
        raise NotFound("this upload was ended meanwhile; begin a new one", rule="upload.session") from error
    with joined as incoming:
        yield incoming


def forget(session: Upload) -> None:
    """Remove the session's row, in the caller's transaction."""
    Upload.objects.filter(pk=session.pk).delete()


def end(session: Upload) -> None:
    """Forget the session and its parts."""
    with database.not_waiting_for_the_disk():
        forget(session)
    discard_parts(session)


def discard_parts(session: Upload) -> None:
    for name in session.parts:
        store().discard_part(name)


def reap() -> int:
    """End what nobody has added to for LIFETIME; returns how many."""
    reaped = 0
    for session in Upload.objects.filter(touched_at__lt=database.now() - LIFETIME).iterator():
        if Upload.objects.filter(pk=session.pk, offset=session.offset).delete()[0]:
            end(session)
            reaped += 1
    return reaped


def parts_of_none(age: timedelta) -> Iterator[Stored]:
    """Parts older than `age` that no session has: of processes that were killed before they could say so."""
    old = [item for item in store().parts() if item.age > age.total_seconds()]
    if old:
        held = {name for parts in Upload.objects.values_list("parts", flat=True) for name in parts}
        yield from (item for item in old if item.key not in held)
