"""A remote repository: what is cached and fresh is served, else the upstream is asked, once for all who wait.

get ── fresh? ──> the cached asset
 └── join a Fill (one a path in this process) ── lease (one a path among all processes) ── ask the upstream
       ├── 200: receive, verify, describe, publish.fill, then serve from the store; where the digest is known before the
       │        end, those who wait read along (all but the last piece, until the whole is verified)
       ├── 304: what is cached is fresh again
       ├── 404, 410: remembered for a short time
       └── anything else: the newest cached answer, marked stale, else the failure. Never "not found".
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from datetime import timedelta
from typing import BinaryIO

from django.db import DatabaseError, connection
from django.utils import timezone

from problems import Conflict, Forbidden, Interrupted, Problem, StorageFull, Unavailable, UpstreamFailed, UpstreamTimeout, absent
from repos import database, publish, rows, upstream
from repos.blobs import CHUNK, Incoming
from repos.blobs.stores import store
from repos.catalogue import Repo
from repos.models import Freshness, Lease
from repos.publish import Bytes, New
from repos.rows import Found, Fresh

log = logging.getLogger("entrepot.proxy")

LEASE = timedelta(seconds=15)
"""How long a lease lives without a sign of life of its holder; a killed fetch is taken over after it."""
LEASE_WAIT = 60.0
"""Seconds that a process waits for another's fetch, before it fetches for itself."""
LONGEST_FETCH = 3600.0
"""Seconds that one fetch may take, however steadily its body drips."""


def get(repo: Repo, path: str, asset: Found | None, fresh: Fresh | None, *, cached_only: bool = False) -> Found | Fill:
    """The asset at `path` of a remote, of which the rows know `asset` and `fresh`.

    Gives a Fill, to be read along, where bytes may be sent before they are all here. Raises NotFound where the upstream says
    so, Forbidden where a pattern of the repository refuses the name, Unavailable where it is offline, UpstreamFailed.
    """
    check_allowed(repo, path)
    if fresh is not None and asset is not None:
        asset = replace(asset, checked_at=fresh.checked_at)
    if cached_only or _is_fresh(repo, path, asset, fresh):
        return _cached(path, asset, fresh, cached_only=cached_only)
    if repo.offline:
        return _cached_offline(repo, path, asset)
    try:
        return _join(repo, path, asset, fresh).first_answer()
    except (UpstreamFailed, Unavailable, StorageFull) as failure:
        if asset is None or asset.checked_at is None or timezone.now() - asset.checked_at > repo.cache.stale_on_error:
            raise
        log.warning("%s: %s is served stale: %s", repo.key, path, failure.reason)
        return replace(asset, stale=True)


def check_allowed(repo: Repo, path: str) -> None:
    """Whether the repository's patterns let its upstream be asked for `path`."""
    package = repo.format.package(path)
    if package and repo.private.match(package):
        raise absent(path)
    if package and ((repo.include and not repo.include.match(package)) or repo.exclude.match(package)):
        raise Forbidden(f"{package} is not taken from this upstream; ask who runs {repo.key}", rule="repository.include-exclude")


def _is_fresh(repo: Repo, path: str, asset: Found | None, fresh: Fresh | None) -> bool:
    if asset is not None and repo.never_changes(path):
        return True
    if fresh is None or fresh.expires_at is None or not (asset is not None or fresh.missing):
        return False
    return timezone.now() < fresh.expires_at


def _cached(path: str, asset: Found | None, fresh: Fresh | None, *, cached_only: bool) -> Found:
    missing = fresh is not None and fresh.missing and not cached_only
    if asset is None or missing:
        raise absent(path)
    return asset


def _cached_offline(repo: Repo, path: str, asset: Found | None) -> Found:
    if asset is None:
        raise Unavailable(f"{path} is not cached and {repo.key} is set offline", rule="repository.offline")
    return asset


class Fill:
    """One fetch from an upstream, run by a thread of its own, and all who wait for it in this process."""

    def __init__(self, repo: Repo, path: str, asset: Found | None, fresh: Fresh | None):
        self.repo, self.path = repo, path
        self.asset, self.fresh = asset, fresh
        self.size = 0
        self.sha256 = ""
        self._changed = threading.Condition()
        self._incoming: Incoming | None = None  # set while others may read along
        self._progress = 0
        self._found: Found | None = None
        self._problem: Problem | None = None

    @property
    def ended(self) -> bool:
        return self._found is not None or self._problem is not None

    def first_answer(self) -> Found | Fill:
        """The asset when it is here, or this Fill as soon as its bytes may be read along. Raises the fetch's problem."""
        database.release()
        with self._changed:
            if not self._changed.wait_for(lambda: self.ended or self._incoming is not None, LONGEST_FETCH):
                raise UpstreamTimeout("the upstream did not answer in time; try again later", rule="upstream.timeout")
        return self if self._incoming is not None else self.outcome()

    def outcome(self) -> Found:
        """The asset when the fetch has ended. Raises the fetch's problem."""
        with self._changed:
            self._changed.wait_for(lambda: self.ended, LONGEST_FETCH)
        if self._found is not None:
            return self._found
        if self._problem is not None:
            raise copy(self._problem)  # each thread gets a traceback of its own
        raise UpstreamTimeout("the upstream did not answer in time; try again later", rule="upstream.timeout")

    def chunks(self) -> Iterator[bytes]:
        """The body as it comes; the last piece only after the whole is verified and recorded. Raises Interrupted."""
        sent = 0
        with self._open() as file:
            while sent < self.size:
                available = self._wait_past(sent)
                chunk = file.read(min(CHUNK, available - sent))
                if not chunk:
                    raise Interrupted("the body is shorter than the upstream said")
                sent += len(chunk)
                yield chunk

    def _open(self) -> BinaryIO:
        with self._changed:
            if self._incoming is not None:
                return self._incoming.open()
        try:
            return store().open(self.outcome().key)
        except Problem as problem:
            raise Interrupted("the fetch from the upstream failed") from problem

    def _wait_past(self, sent: int) -> int:
        """How many bytes may be sent now, more than `sent`."""
        held_back = max(0, self.size - CHUNK)
        with self._changed:
            self._changed.wait_for(lambda: self.ended or min(self._progress, held_back) > sent, LONGEST_FETCH)
            if self._found is not None:
                return self.size
            if self._problem is not None or min(self._progress, held_back) <= sent:
                raise Interrupted("the fetch from the upstream failed")
            return min(self._progress, held_back)

    def run(self) -> None:
        try:
            found, problem = self._fetch(), None
        except Problem as error:
            found, problem = None, error
        except Exception:
            log.exception("%s: the fetch of %s failed", self.repo.key, self.path)
            found, problem = None, Unavailable("the fetch failed here; the log tells why", rule="proxy.failed")
        finally:
            _forget(self)
            connection.close()
        with self._changed:
            self._found, self._problem, self._incoming = found, problem, None
            self._changed.notify_all()

    def _fetch(self) -> Found:
        fence = self._lease()
        if isinstance(fence, Found):
            return fence
        try:
            database.release()  # an upstream may be slow, and connections are few
            with _kept_alive(fence):
                return self._ask_upstreams(fence)
        except Unavailable:
            if (meanwhile := self._look()) is not None:  # the lease was lost to a process that has recorded it
                return meanwhile
            raise
        finally:
            _release(fence)

    def _lease(self) -> Found | str:
        """The right to fetch, as a fence; or what another process has fetched meanwhile."""
        deadline = time.monotonic() + LEASE_WAIT
        pause = 0.02
        while True:
            fence = _acquire(self.repo, self.path)
            try:
                meanwhile = self._look()
            except Problem:
                _release(fence)
                raise
            if meanwhile is not None:
                _release(fence)
                return meanwhile
            if fence or time.monotonic() > deadline:
                return fence
            connection.close()
            time.sleep(pause)
            pause = min(pause * 1.5, 0.5)

    def _look(self) -> Found | None:
        known = rows.look([self.repo], self.path)
        self.asset, self.fresh = known.assets.get(self.repo.id), known.fresh.get(self.repo.id)
        if not _is_fresh(self.repo, self.path, self.asset, self.fresh):
            return None
        return _cached(self.path, self.asset, self.fresh, cached_only=False)

    def _ask_upstreams(self, fence: str) -> Found:
        """The first upstream that answers, in the listed order; what it says is final."""
        failure: UpstreamFailed | None = None
        for source in self.repo.upstreams:
            try:
                return self._ask(source, fence)
            except UpstreamFailed as error:
                failure = error
                if self.sha256:  # some of its bytes may have been sent: another's cannot follow
                    break
        raise failure or UpstreamFailed(f"{self.repo.key} has no upstream")

    def _ask(self, source: upstream.Upstream, fence: str) -> Found:
        url = self.repo.format.upstream_url(source.url, self.path)
        answer = upstream.ask(source, url, self._conditions())
        if answer.status == 200:
            return self._receive(answer, fence)
        answer.discard()
        if answer.status == 304 and self.asset is not None:
            publish.remember_freshness(self._freshness(answer, missing=False), fence)
            return replace(self.asset, checked_at=timezone.now())
        if answer.status in (404, 410):
            publish.remember_freshness(self._freshness(answer, missing=True), fence)
            raise absent(self.path)
        hint = "ask who runs this registry" if 400 <= answer.status < 500 and answer.status != 429 else "try again later"
        raise UpstreamFailed(f"the upstream answered {answer.status}; {hint}", rule="upstream.status")

    def _conditions(self) -> dict[str, str]:
        if self.asset is None or self.fresh is None or self.fresh.missing:
            return {}
        headers = {"If-None-Match": self.fresh.etag, "If-Modified-Since": self.fresh.last_modified}
        return {name: value for name, value in headers.items() if value}

    def _receive(self, answer: upstream.Answer, fence: str) -> Found:
        """Take the body in, verify it and record it."""
        expected = stated_sha256(answer)
        if not answer.framed and not expected:
            raise UpstreamFailed(
                "the upstream's answer has no length, so a cut cannot be told from its end", rule="upstream.framing"
            )
        form = self.repo.format
        with store().receive(form.largest, form.digests) as incoming:
            self._let_others_read(answer, incoming, expected)
            try:
                self._take(answer, incoming)
            finally:
                with self._changed:
                    self._incoming = None  # its file is about to move or to go: who comes now waits for the end
            if answer.length is not None and incoming.size != answer.length:
                raise UpstreamFailed("the upstream's body has another length than its head says", rule="upstream.framing")
            if expected and incoming.sha256 != expected:
                raise UpstreamFailed("the upstream's bytes do not have the digest that it stated", rule="upstream.digest")
            try:
                described = form.describe(self.path, incoming.open, published=False)
                new = New(self.path, Bytes.of(incoming), described)
                publish.fill(self.repo, [new], self._freshness(answer, missing=False), fence)
            except (Conflict, Forbidden) as error:
                raise UpstreamFailed(
                    f"the upstream changed what can never change: {error.detail}", rule="upstream.changed"
                ) from error
            except Problem as error:
                if error.status in (400, 413):
                    raise UpstreamFailed(
                        f"the upstream sent what is malformed: {error.reason}", rule="upstream.malformed"
                    ) from error
                raise
        return self._recorded()

    def _take(self, answer: upstream.Answer, incoming: Incoming) -> None:
        deadline = time.monotonic() + LONGEST_FETCH
        for chunk in answer.chunks():
            incoming.write(chunk)
            with self._changed:
                self._progress = incoming.size
                self._changed.notify_all()
            if time.monotonic() > deadline:
                raise UpstreamTimeout("the upstream's body took too long", rule="upstream.timeout")

    def _let_others_read(self, answer: upstream.Answer, incoming: Incoming, expected: str) -> None:
        """Only where both the digest and the length are known before the end, so that wrong bytes are never completed.

        Not what is sent in one piece, nor where a cached answer could be served stale if these bytes turn out to be wrong.
        """
        if not expected or (answer.length or 0) <= CHUNK or self.asset is not None:
            return
        with self._changed:
            self.size, self.sha256 = answer.length or 0, expected
            self._incoming = incoming
            self._changed.notify_all()

    def _recorded(self) -> Found:
        found = rows.look([self.repo], self.path).assets.get(self.repo.id)
        if found is None:
            raise Unavailable(f"{self.path} was fetched and removed at once; try again")
        return replace(found, checked_at=timezone.now())

    def _freshness(self, answer: upstream.Answer, *, missing: bool) -> Freshness:
        now = timezone.now()
        lifetime = self.repo.cache.missing if missing else self.repo.format.lifetime(self.path, self.repo.cache.lifetime)
        before = self.fresh if answer.status == 304 else None
        return Freshness(
            repository_id=self.repo.id,
            path_key=self.repo.format.path_key(self.path),
            etag=before.etag if before else _header(answer, "etag", 255),
            last_modified=before.last_modified if before else _header(answer, "last-modified", 64),
            checked_at=now,
            expires_at=None if lifetime is None else now + lifetime,
            missing=missing,
        )


def stated_sha256(answer: upstream.Answer) -> str:
    """The SHA-256 of the body as hex, where the head states it (RFC 9530 sections 2 and 3, or X-Checksum-Sha256).

    Not of an encoded body: what is stated is of the bytes on the wire then, or of others.
    """
    if answer.encoding:
        return ""
    plain = answer.headers.get("x-checksum-sha256", "").strip().lower()
    if len(plain) == 64 and all(character in "0123456789abcdef" for character in plain):
        return plain
    for member in (answer.headers.get("repr-digest", "") + "," + answer.headers.get("content-digest", "")).split(","):
        name, _, value = member.strip().partition("=")
        if name.lower() == "sha-256":
            try:
                digest = base64.b64decode(value.strip().strip(":"), validate=True)
            except binascii.Error:
                continue
            if len(digest) == 32:
                return digest.hex()
    return ""


def _header(answer: upstream.Answer, name: str, longest: int) -> str:
    """A validator that is too long to keep is of no use, so it is dropped rather than cut."""
    value = answer.headers.get(name, "")
    return value if len(value) <= longest else ""


_fills: dict[tuple[int, str], Fill] = {}
_fills_lock = threading.Lock()


def _join(repo: Repo, path: str, asset: Found | None, fresh: Fresh | None) -> Fill:
    """The fetch of `path` that is under way in this process, or a new one."""
    place = (repo.id, repo.format.path_key(path))
    with _fills_lock:
        fill = _fills.get(place)
        if fill is None:
            fill = _fills[place] = Fill(repo, path, asset, fresh)
            threading.Thread(target=fill.run, name=f"fill {repo.key}", daemon=True).start()
    return fill


def _forget(fill: Fill) -> None:
    with _fills_lock:
        _fills.pop((fill.repo.id, fill.repo.format.path_key(fill.path)), None)


ACQUIRE = """
INSERT INTO repos_lease (repository_id, path_key, fence, expires_at) VALUES (%s, %s, %s, %s)
ON CONFLICT (repository_id, path_key) DO UPDATE SET fence = excluded.fence, expires_at = excluded.expires_at
WHERE repos_lease.expires_at < %s
"""


def _acquire(repo: Repo, path: str) -> str:
    """A fence if the lease of `path` was free or expired, else an empty string."""
    fence, now = secrets.token_hex(16), database.now()
    with connection.cursor() as cursor:
        cursor.execute(ACQUIRE, [repo.id, repo.format.path_key(path), fence, *map(database.parameter, (now + LEASE, now))])
        return fence if cursor.rowcount == 1 else ""


_held: set[str] = set()
_held_changed = threading.Condition()


@contextlib.contextmanager
def _kept_alive(fence: str) -> Iterator[None]:
    """Renew the lease while the block runs, however long the upstream is silent."""
    if not fence:
        yield
        return
    with _held_changed:
        if not _held:
            threading.Thread(target=_renew_held, name="leases", daemon=True).start()
        _held.add(fence)
    try:
        yield
    finally:
        with _held_changed:
            _held.discard(fence)
            _held_changed.notify_all()


def _renew_held() -> None:
    """Renew this process's leases until it holds none."""
    while True:
        with _held_changed:
            if _held_changed.wait_for(lambda: not _held, LEASE.total_seconds() / 3):
                return
            fences = list(_held)
        try:
            Lease.objects.filter(fence__in=fences).update(expires_at=database.now() + LEASE)
        except DatabaseError:
            log.exception("leases could not be renewed; other processes may fetch the same")
        connection.close()


def _release(fence: str) -> None:
    if fence:
        Lease.objects.filter(fence=fence).delete()
