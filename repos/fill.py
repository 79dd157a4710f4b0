"""One fetch from an upstream for all who wait for it, in this process and, by a lease, in all others.

join ── a Fill, run by a thread of its own ── lease ── ask the upstreams, the first that is neither out nor at rest
  ├── 200: receive, verify, describe, publish.fill, then serve from the store; where the digest is known before the end,
  │        those who wait read along (all but the last piece, until the whole is verified)
  ├── 304: what is cached is fresh again
  ├── 404, 410, a denial: remembered for a short time
  └── anything else: the next upstream, else the failure
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import replace
from datetime import datetime
from typing import BinaryIO

from django.conf import settings
from django.db import connection
from django.utils import timezone

from basics import connector
from problems import (
    Conflict,
    Forbidden,
    Interrupted,
    Malformed,
    NotFound,
    Problem,
    TooLarge,
    Unavailable,
    UpstreamFailed,
    UpstreamOut,
    absent,
    silent,
)
from repos import circuit, database, denials, jobs, leases, publish, rows, upstream, waiting
from repos.blobs import CHUNK, Incoming
from repos.blobs.stores import store
from repos.catalogue import Repo, Upstream
from repos.format import Question
from repos.models import Freshness
from repos.publish import Bytes, New
from repos.rows import Found, Fresh
from repos.upstream import Answer

log = logging.getLogger("entrepot.fill")

LEASE_WAIT = 60.0
"""Seconds that a process waits for another's fetch to which nothing comes, before it fetches for itself."""
LONGEST_WAIT = 3600.0
"""Seconds that somebody waits for one fetch."""
TICK = 0.25
"""Seconds after which who waits looks whether there is still a point in it."""


def is_fresh(repo: Repo, path: str, asset: Found | None, fresh: Fresh | None) -> bool:
    """Whether what is known of `path`, also that there is none, can be told without asking an upstream."""
    if asset is not None and repo.never_changes(path):
        return True
    if fresh is None or fresh.expires_at is None or not (asset is not None or fresh.missing):
        return False
    return timezone.now() < fresh.expires_at


def cached(repo: Repo, path: str, asset: Found | None, fresh: Fresh | None, *, cached_only: bool) -> Found:
    """What is known. Raises NotFound. What never changes is here once it came, whatever else was said of it before or after."""
    missing = fresh is not None and fresh.missing and not cached_only
    if asset is None or (missing and not repo.never_changes(path)):
        raise absent(path)
    return asset


class Fill:
    """One fetch from an upstream, run by a thread of its own, and all who wait for it in this process."""

    def __init__(
        self, repo: Repo, path: str, asset: Found | None, fresh: Fresh | None, *, newer_than: datetime | None, accept: str
    ):
        self.repo, self.path = repo, path
        self._accept = accept
        self.asset, self.fresh = asset, fresh
        self._newer_than = newer_than  # what was said by then is not enough
        self.size = 0
        self.sha256 = ""
        self._changed = threading.Condition()
        self._incoming: Incoming | None = None  # set while others may read along
        self._progress = 0
        self._found: Found | None = None
        self._problem: Problem | None = None
        self._heard = time.monotonic()

    @property
    def ended(self) -> bool:
        return self._found is not None or self._problem is not None

    @property
    def progress(self) -> int:
        """Bytes that have come."""
        return self._progress

    def wait(self, seconds: float) -> bool:
        """Wait for the end, but not longer; whether it has come."""
        with self._changed:
            return self._changed.wait_for(lambda: self.ended, seconds)

    def first_answer(self, *, patient: bool = True) -> Found | Fill:
        """The asset when it is here, or this Fill as soon as its bytes may be read along. Raises the fetch's problem.

        Raises Unavailable where too many wait for a silent upstream and, unless `patient`, UpstreamTimeout once it is silent.
        """
        database.release()
        deadline = time.monotonic() + LONGEST_WAIT
        with waiting.Place(self.repo) as place, self._changed:
            while not self.ended and self._incoming is None:
                if time.monotonic() > deadline or not (patient or self._heard_in(waiting.PATIENCE)):
                    raise silent()
                place.keep(self._heard)
                self._changed.wait(TICK)
        return self if self._incoming is not None else self.outcome()

    def _hear(self) -> None:
        """Something came from the upstream, here or where the lease is."""
        self._heard = time.monotonic()
        waiting.heard(self.repo)

    def _heard_in(self, seconds: float) -> bool:
        return time.monotonic() - self._heard < seconds

    def outcome(self) -> Found:
        """The asset when the fetch has ended. Raises the fetch's problem."""
        with self._changed:
            self._changed.wait_for(lambda: self.ended, LONGEST_WAIT)
        if self._found is not None:
            return self._found
        if self._problem is not None:
            raise copy(self._problem)  # each thread gets a traceback of its own
        raise silent()

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
            if not self.ended and min(self._progress, held_back) <= sent:
                self._wait(lambda: self.ended or min(self._progress, held_back) > sent)
            if self._problem is not None:
                raise Interrupted("the fetch from the upstream failed")
            return self.size if self._found is not None else min(self._progress, held_back)

    def _wait(self, there: Callable[[], bool]) -> None:
        """Wait until something is there. Raises Interrupted where too many wait for a silent upstream."""
        try:
            with waiting.Place(self.repo) as place:
                while not there():
                    place.keep(self._heard)
                    self._changed.wait(TICK)
        except Unavailable as problem:
            raise Interrupted("the upstream sends nothing") from problem

    def run(self) -> None:
        found: Found | None = None
        problem: Problem | None = Unavailable("the fetch failed here; the log tells why", rule="proxy.failed")
        try:
            found, problem = self._fetch(), None
        except Problem as error:
            problem = error
        except Exception:
            log.exception("%s: the fetch of %s failed", self.repo.key, self.path)
        finally:  # before anything else can fail: whoever waits has no other way to hear of it
            _forget(self)
            with self._changed:
                self._found, self._problem, self._incoming = found, problem, None
                self._changed.notify_all()
            connection.close()

    def _fetch(self) -> Found:
        fence = self._lease()
        if isinstance(fence, Found):
            return fence
        try:
            resting = circuit.resting(self.repo.upstreams)
            database.release()  # an upstream may be slow, and connections are few
            key = hashlib.sha256(self.repo.format.path_key(self.path).encode()).hexdigest()
            lasting = jobs.outliving("fetch", {"path": self.path}, repository=self.repo, key=f"fetch {self.repo.id} {key}")
            alive = leases.kept_alive(fence, lambda: self._heard_in(leases.RENEWED))
            with alive, lasting, denials.remembered(self.repo, self.path):
                return self._ask_upstreams(fence, resting)
        except Unavailable:
            if (meanwhile := self._look()) is not None:  # the lease was lost to a process that has recorded it
                return meanwhile
            raise
        finally:
            leases.release(fence)

    def _lease(self) -> Found | str:
        """The right to fetch, as a fence; or what another process has fetched meanwhile."""
        pause = 0.02
        while True:
            fence = leases.acquire(self.repo, self.path)
            try:
                meanwhile = self._look()
            except Problem:
                leases.release(fence)
                raise
            if meanwhile is not None:
                leases.release(fence)
                return meanwhile
            if fence or not self._heard_in(LEASE_WAIT):
                return fence
            if leases.is_flowing(self.repo, self.path):
                self._hear()
            connection.close()
            time.sleep(pause)
            pause = min(pause * 1.5, 0.5)

    def _look(self) -> Found | None:
        known = rows.look([self.repo], self.path)
        self.asset, self.fresh = known.assets.get(self.repo.id), known.fresh.get(self.repo.id)
        if not is_fresh(self.repo, self.path, self.asset, self.fresh):
            return None
        if self._newer_than is not None and self.fresh is not None and self.fresh.checked_at <= self._newer_than:
            return None
        return cached(self.repo, self.path, self.asset, self.fresh, cached_only=False)

    def _ask_upstreams(self, fence: str, resting: dict[str, datetime]) -> Found:
        """The first upstream that answers, in the listed order; what it says is final, but for what each has a part of."""
        failures: list[UpstreamFailed] = []
        for source in self.repo.sources(self.path):
            try:
                with circuit.watched(source, resting):
                    return self._ask(source, fence)
            except UpstreamFailed as failure:
                failures.append(failure)
                if self.sha256:  # some of its bytes may have been sent: another's cannot follow
                    break
            except NotFound:
                if not self.repo.format.one_of_many(self.path):
                    failures.clear()
                    break
        if failures:
            raise ([failure for failure in failures if not isinstance(failure, UpstreamOut)] or failures)[-1]
        publish.remember_freshness(self._freshness(None), fence)
        raise absent(self.path)

    def _ask(self, source: Upstream, fence: str) -> Found:
        form = self.repo.format
        standing = self.asset.sha256 if self.asset else ""
        question = Question(self.repo, self.path, self._conditions(), standing, self._accept, self._hear)
        answer = form.ask(source, question)
        if answer is None:
            url = form.upstream_url(source.url, source.within(self.path))
            answer = upstream.ask(source, url, question.conditions)
        self._hear()
        try:
            return self._judged(source, answer, fence)
        finally:
            answer.discard()

    def _judged(self, source: Upstream, answer: Answer, fence: str) -> Found:
        """What an answer's status means."""
        if answer.status == 200:
            return self._receive(answer, fence)
        if answer.status == 304 and self.asset is not None:
            publish.remember_freshness(self._freshness(answer), fence)
            return replace(self.asset, checked_at=timezone.now())
        if answer.status in (404, 410):
            raise absent(self.path)
        raise circuit.refused(source, answer)

    def _conditions(self) -> dict[str, str]:
        if self.asset is None or self.fresh is None or self.fresh.missing:
            return {}
        headers = {"If-None-Match": self.fresh.etag, "If-Modified-Since": self.fresh.last_modified}
        return {name: value for name, value in headers.items() if value}

    def _receive(self, answer: Answer, fence: str) -> Found:
        """Take the body in, verify it and record it."""
        form = self.repo.format
        algorithm, _, named = form.digest(self.path).partition(":")
        expected = named if algorithm == "sha256" else "" if answer.encoding else answer.stated_sha256
        digests = form.digests if algorithm in ("", "sha256", *form.digests) else (*form.digests, algorithm)
        if not answer.framed and not expected:
            raise UpstreamFailed(
                "the upstream's answer has no length, so a cut cannot be told from its end", rule="upstream.framing"
            )
        with store().receive(form.limit(self.path), digests) as incoming, _blamed_on_the_upstream():
            self._let_others_read(answer, incoming, expected)
            try:
                self._take(answer, incoming)
            finally:
                with self._changed:
                    self._incoming = None  # its file is about to move or to go: who comes now waits for the end
            if answer.length is not None and incoming.size != answer.length:
                raise UpstreamFailed("the upstream's body has another length than its head says", rule="upstream.framing")
            if (expected and incoming.sha256 != expected) or incoming.digests.get(algorithm, named) != named:
                raise UpstreamFailed("the upstream's bytes do not have the digest that they should have", rule="upstream.digest")
            media_type = answer.headers.get("content-type", "")
            bytes_ = Bytes.of(incoming)
            news = [
                New(path, bytes_, form.describe(path, incoming.open, published=False, media_type=media_type))
                for path in (self.path, *form.stands_also_at(self.path, incoming.sha256))
            ]
            with contextlib.ExitStack() as stack:
                news += self._beside(answer, stack)
                publish.fill(self.repo, news, self._freshness(answer), fence)
        return self._recorded()

    def _beside(self, answer: Answer, stack: contextlib.ExitStack) -> Iterator[New]:
        """What came with the answer and does not stand yet. What of it is malformed is left for who asks for it to hear of."""
        form = self.repo.format
        for path, other in answer.beside.items():
            if rows.look([self.repo], path).assets:
                continue
            database.release()
            incoming = stack.enter_context(store().receive(form.limit(path), form.digests))
            for chunk in other.chunks():
                incoming.write(chunk)
            with contextlib.suppress(Malformed, TooLarge):
                yield New(path, Bytes.of(incoming), form.describe(path, incoming.open, published=False))

    def _take(self, answer: Answer, incoming: Incoming) -> None:
        unheard = 0
        for chunk in answer.chunks():
            incoming.write(chunk)
            unheard += len(chunk)
            if connector.keeps_pace(unheard, self._heard):
                self._hear()
                unheard = 0
            with self._changed:
                self._progress = incoming.size
                self._changed.notify_all()

    def _let_others_read(self, answer: Answer, incoming: Incoming, expected: str) -> None:
        """Only where both the digest and the length are known before the end, so that wrong bytes are never completed.

        Not what is sent in one piece, nor where a cached answer could be served stale if these bytes turn out to be wrong.
        """
        known = expected and (answer.length or 0) > CHUNK and self.repo.format.sent_at_once(self.path)
        if not known or self.asset is not None:
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

    def _freshness(self, answer: Answer | None) -> Freshness:
        """What is known of the upstream's document after its answer; None: that there is none."""
        now = timezone.now()
        lifetime = self.repo.format.lifetime(self.path, self.repo.cache.lifetime) if answer else self.repo.cache.missing
        before = self.fresh if answer and answer.status == 304 else None
        return Freshness(
            repository_id=self.repo.id,
            path_key=self.repo.format.path_key(self.path),
            etag=before.etag if before else _header(answer, "etag", 255),
            last_modified=before.last_modified if before else _header(answer, "last-modified", 64),
            checked_at=now,
            expires_at=None if lifetime is None else now + lifetime,
            missing=answer is None,
        )


@contextlib.contextmanager
def _blamed_on_the_upstream() -> Iterator[None]:
    """What is refused in a client's upload is a failure of the upstream in its own bytes."""
    try:
        yield
    except (Conflict, Forbidden) as error:
        raise UpstreamFailed(f"the upstream changed what can never change: {error.detail}", rule="upstream.changed") from error
    except (Malformed, TooLarge) as error:
        raise UpstreamFailed(f"the upstream sent what is malformed: {error.reason}", rule="upstream.malformed") from error


def _header(answer: Answer | None, name: str, longest: int) -> str:
    """A validator that is too long to keep is of no use, so it is dropped rather than cut."""
    value = answer.headers.get(name, "") if answer else ""
    return value if len(value) <= longest else ""


_fills: dict[tuple[int, str], Fill] = {}
_fills_lock = threading.Lock()


def join(
    repo: Repo, path: str, asset: Found | None, fresh: Fresh | None, *, newer_than: datetime | None = None, accept: str = ""
) -> Fill:
    """The fetch of `path` that is under way in this process, or a new one, for a client that takes these media types."""
    place = (repo.id, repo.format.path_key(path))
    with _fills_lock:
        fill = _fills.get(place)
        if fill is None:
            fill = Fill(repo, path, asset, fresh, newer_than=newer_than, accept=accept)
            _start(fill)
            _fills[place] = fill
    return fill


def _start(fill: Fill) -> None:
    """Raises Unavailable where requests have begun as many for the same upstreams as there are threads to wait for them."""
    others = sum(waiting.key(other.repo) == waiting.key(fill.repo) for other in _fills.values())
    if waiting.is_counted() and others >= settings.ENTREPOT.threads:
        raise _too_many()
    try:
        threading.Thread(target=fill.run, name=f"fill {fill.repo.key}", daemon=True).start()
    except RuntimeError as error:  # the system gives no more threads
        raise _too_many() from error


def _too_many() -> Unavailable:
    return Unavailable(
        "too much is fetched from this upstream already; try again later", rule="upstream.waiting", headers={"Retry-After": "5"}
    )


def _forget(fill: Fill) -> None:
    with _fills_lock:
        _fills.pop((fill.repo.id, fill.repo.format.path_key(fill.path)), None)
