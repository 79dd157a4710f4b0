"""Upload sessions: bytes that come in several requests, which any process continues.

begin ── append … append ── whole ── end
           │                  └── the bytes joined, to be published
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


def append(session: Upload, request: HttpRequest, start: int | None) -> Upload:
    """Add the request's body, which begins at byte `start` of the whole (None: where the last one ended).

    Of a body that breaks off what came is kept, so that the client can go on from there. Raises Malformed for that one,
    RangeRefused where `start` is not where the last part ended.
    """
    _check_start(session, start)
    with store().receive() as incoming:
        database.release()
        broken = None
        try:
            for chunk in uploads.body_stream(request, part=True):
                incoming.write(chunk)
        except Malformed as problem:
            broken = problem
        if incoming.size:
            _add(session, incoming)
    if broken:
        raise broken
    return session


def _check_start(session: Upload, start: int | None) -> None:
    if start is not None and start != session.offset:
        raise RangeRefused(f"the next byte to send is number {session.offset}, not {start}", rule="upload.order")


def _add(session: Upload, incoming: Incoming) -> None:
    before, size = session.offset, incoming.size
    sha256 = incoming.sha256 if before == 0 else ""
    name = incoming.set_aside()
    parts = [*session.parts, name]
    moved = Upload.objects.filter(pk=session.pk, offset=before).update(
        offset=before + size, parts=parts, sha256=sha256, touched_at=database.now()
    )
    if not moved:
        store().discard_part(name)
        raise RangeRefused("another request has added to this upload meanwhile; ask where it stands", rule="upload.order")
    session.offset, session.parts, session.sha256 = before + size, parts, sha256


@contextlib.contextmanager
def whole(session: Upload, digests: tuple[str, ...] = ()) -> Iterator[Incoming]:
    """All that has come, with these digests besides SHA-256.

    Raises NotFound where another request has ended the session, or bytes of it were lost, as by a power failure: then it ends.
    """
    try:
        with store().join(session.parts, digests, session.sha256) as incoming:
            if incoming.size != session.offset:
                end(session)
                raise NotFound("bytes of this upload were lost; begin a new one", rule="upload.session")
            yield incoming
    except FileNotFoundError as error:
        raise NotFound("this upload was ended meanwhile; begin a new one", rule="upload.session") from error


def end(session: Upload) -> None:
    """Forget the session and its parts."""
    Upload.objects.filter(pk=session.pk).delete()
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
