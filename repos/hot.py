"""Answers that are given again without asking a view, while everything that they rest on is as it was.

Clients ask for the same in the same words: a cluster's nodes for one manifest, with one pull secret. Who sends the same head,
byte for byte, gets the same answer, after one query that tells whether it still holds: the grants and the configuration, the
asset, who is the owner of its name, the user, the token. That is asked each time, so nothing is served a moment longer than
a view would, and once for all requests that wait at that moment, so that it costs little.

note      serve says of an answer what it rests on
renew     a handler says so of one that is another each time, such as a new upload's name
keep      the gate has an answer, and keeps it
find      the server looks an arriving head up
current   and which of those that it found still hold
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from django.db import connection
from django.http import HttpRequest, HttpResponseBase
from django.utils import timezone

from accounts import tokens, uses
from accounts.uses import Use
from repos import database, usage
from repos.blobs.stores import store
from repos.call import Call
from repos.rows import Found

LONGEST_HEAD = 4096
"""Bytes of a request's head that is looked up."""
SMALL = 128 * 1024
"""Bytes of a body that is kept in memory; larger ones are read from the store each time."""
ROOM = 64 * 1024 * 1024
"""Bytes that are kept in memory in all, by a process: a quarter of them for what came once."""
MOST_SEEN = 20_000
"""Heads that are known to have come before, when their answers were given up."""
METHODS = ("GET", "HEAD", "POST")
STARTS = tuple(f"{method} ".encode() for method in METHODS)

Fact = tuple[str, int, int]
"""Something that was so: what it is about, a row's id, and a number that tells one state of it from another."""


Headers = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Basis:
    """What an answer rests on. `until`: seconds since the epoch; None: it may hold for ever.

    `found`: the asset that it is of. `anew`: headers that are others each time.
    """

    facts: frozenset[Fact]
    until: float | None
    found: Found | None = None
    anew: Callable[[], Headers] | None = None
    uses: tuple[Use, ...] = ()
    """The rights by which it was given, and is given again."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`fixed`: the head as it is each time. `body` None: the bytes are in the store."""

    basis: Basis
    fixed: bytes
    body: bytes | None
    downloads: int

    def head(self) -> bytes:
        """All but the Date and the empty line; of one that is another each time, another each time."""
        return self.fixed + (_lines(self.basis.anew()) if self.basis.anew else b"")

    @property
    def weight(self) -> int:
        return len(self.fixed) + len(self.body or b"") + 1000


def note(response: HttpResponseBase, call: Call, found: Found) -> None:
    """Say what an answer rests on: that this asset stands, and, in a virtual repository, that no local one before it has changed.

    Not where an upstream would be asked again some day, of this document or by a member that goes first; nor of what was
    asked for with a password, which may be changed, nor where each download is logged.
    """
    asker = _asker(call)
    if asker is None or not _settled(call, found) or call.logs(found.repository_id):
        return
    facts = asker | {("asset", found.asset_id, 0)} | {("head", number, head) for number, head in found.heads}
    response.basis = Basis(facts, call.actor.until, found, uses=_uses(call, found))  # type: ignore[attr-defined]


def renew(response: HttpResponseBase, call: Call, anew: Callable[[], Headers]) -> None:
    """Say of an answer without a body that it rests on the caller's rights alone, and how to make these headers of it.

    `anew` is kept as long as the answer: what it holds must be small, and no part of the configuration, of which there are many
    in time.
    """
    asker = _asker(call)
    if asker is not None:
        response.basis = Basis(asker, call.actor.until, anew=anew, uses=_uses(call))  # type: ignore[attr-defined]


def _asker(call: Call) -> frozenset[Fact] | None:
    """That the caller is who they were and may what they might; None for who came with a password, which may be changed."""
    actor = call.actor
    if actor.user_id is not None and actor.token_id is None and actor.until is None:
        return None
    facts: set[Fact] = {("epoch", 1, call.epoch)}
    facts |= {("user", actor.user_id, 0)} if actor.user_id is not None else set()
    facts |= {("token", actor.token_id, 0)} if actor.token_id is not None else set()
    return frozenset(facts)


def _uses(call: Call, found: Found | None = None) -> tuple[Use, ...]:
    rights = dict.fromkeys((*call.used, *(call.used_of(found.repository_id) if found else ())))
    return tuple(Use(call.actor.user_id, key, permission) for permission, key in rights)


def _settled(call: Call, found: Found) -> bool:
    """Whether only a change here can lead to another answer."""
    asked = call.repo.answering
    here = next(repo for repo in asked if repo.id == found.repository_id)
    first = asked[: asked.index(here)]
    if found.stale or (here.is_remote and not here.never_changes(found.path)):
        return False
    return bool(call.repo.format.digest(found.path)) or not any(repo.is_remote for repo in first)


def keep(request: HttpRequest, response: HttpResponseBase) -> None:
    """Keep an answer for the next request with the same head."""
    basis, head = getattr(response, "basis", None), getattr(_arriving, "head", None)
    if basis is None or head is None or response.status_code not in (200, 202) or not _repeatable(request):
        return
    body: bytes | None = b""
    downloads = 0
    if basis.found is not None and request.method == "GET":
        downloads = 1
        try:
            body = _read(basis.found) if basis.found.size <= SMALL else None
        except OSError:  # it was freed just now
            return
        if body is not None and len(body) != basis.found.size:
            return
    fixed = {"Server": "entrepot", "Connection": "keep-alive", **response.headers}
    for name in basis.anew() if basis.anew else ():
        del fixed[name]
    first = f"HTTP/1.1 {response.status_code} {response.reason_phrase}\r\n".encode("latin-1")
    _kept.put(_key(head), Answer(basis, first + _lines(fixed), body, downloads))


def _lines(headers: Headers) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("latin-1")


def _repeatable(request: HttpRequest) -> bool:
    """Whether the head is all of the request, and the connection stays."""
    asked = request.META
    return (
        request.method in METHODS
        and asked.get("CONTENT_LENGTH", "0") in ("", "0")
        and asked.get("SERVER_PROTOCOL") == "HTTP/1.1"
        and asked.get("HTTP_CONNECTION", "keep-alive").lower() == "keep-alive"
        and not any(name in asked for name in ("HTTP_TRANSFER_ENCODING", "HTTP_EXPECT"))
    )


def _read(found: Found) -> bytes:
    with store().open(found.key) as file:
        return file.read(SMALL + 1)


# For the server


_arriving = threading.local()


@contextmanager
def arriving(head: bytes | None) -> Iterator[None]:
    """Tell the view that runs in this thread the head of its request as it came; None: it is not known, or no whole one."""
    _arriving.head = head
    try:
        yield
    finally:
        _arriving.head = None


def is_whole(head: bytes) -> bool:
    """Whether this is the head of one request and nothing besides."""
    return head.startswith(STARTS) and head.find(b"\r\n\r\n") == len(head) - 4


def find(head: bytes) -> Answer | None:
    """The answer that was given to the same head."""
    return _kept.get(_key(head))


def forget(head: bytes) -> None:
    _kept.drop(_key(head))


def current(answers: Sequence[Answer]) -> list[bool]:
    """Of each answer whether it still holds, by one query; those that do are counted as given."""
    wanted = frozenset().union(*(answer.basis.facts for answer in answers))
    so, now = _facts(wanted), time.time()
    result = []
    for answer in answers:
        basis = answer.basis
        holds = basis.facts <= so and (basis.until is None or now < basis.until)
        if holds:
            if basis.found is not None:
                usage.served(basis.found.asset_id, downloads=answer.downloads)
            for what, number, _ in basis.facts:
                if what == "token":
                    tokens.used(number)
            for use in basis.uses:
                if uses.used(*use):
                    usage.write_soon()
        result.append(holds)
    return result


FACTS = {
    "asset": "SELECT 'asset', id, 0 FROM repos_asset WHERE until IS NULL AND {ids}",
    "head": "SELECT 'head', id, head FROM repos_repository WHERE {ids}",
    "user": "SELECT 'user', id, 0 FROM accounts_user WHERE is_active AND {ids}",
    "token": "SELECT 'token', id, 0 FROM accounts_token WHERE revoked_at IS NULL"
    " AND (expires_at IS NULL OR expires_at > {now}) AND {ids}",
}


def _facts(wanted: frozenset[Fact]) -> set[Fact]:
    """What is so now of all that these facts are about."""
    sql, values = ["SELECT 'epoch', id, number FROM accounts_epoch"], []
    for what, text in FACTS.items():
        ids = sorted({number for about, number, _ in wanted if about == what})
        if not ids:
            continue
        clause, parameters = database.among("id", ids)
        sql.append(text.format(ids=clause, now="%s"))
        values += [*([database.parameter(timezone.now())] if "{now}" in text else []), *parameters]
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(sql), values)
        return {(what, int(number), int(value)) for what, number, value in cursor.fetchall()}


# What is kept


def _key(head: bytes) -> bytes:
    """A head is known by a digest: it holds credentials, which are kept nowhere."""
    return hashlib.blake2b(head, digest_size=20).digest()


class _Shelf(dict[bytes, Answer]):
    """Answers by the digests of their requests' heads, at most `room` bytes of them, the oldest given up first."""

    def __init__(self, room: int):
        super().__init__()
        self._room = room
        self._weight = 0

    def put(self, key: bytes, answer: Answer) -> None:
        self.take(key)
        self[key] = answer
        self._weight += answer.weight
        while self._weight > self._room:
            self.take(next(iter(self)))

    def take(self, key: bytes) -> Answer | None:
        answer = self.pop(key, None)
        self._weight -= answer.weight if answer else 0
        return answer


class _Kept:
    """Answers of this process. Those to requests that came once have a room of their own, so that a thousand of them drive out
    none of those that come again and again. Safe among threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._once, self._often = _Shelf(ROOM // 4), _Shelf(ROOM - ROOM // 4)
        self._seen: dict[bytes, None] = {}

    def get(self, key: bytes) -> Answer | None:
        answer = self._often.get(key)
        if answer is None and key in self._once:
            with self._lock:
                if (answer := self._once.take(key)) is not None:
                    self._often.put(key, answer)
        return answer

    def put(self, key: bytes, answer: Answer) -> None:
        with self._lock:
            self._drop(key)
            (self._often if key in self._seen else self._once).put(key, answer)
            if len(self._seen) >= MOST_SEEN:
                self._seen.clear()
            self._seen[key] = None

    def drop(self, key: bytes) -> None:
        with self._lock:
            self._drop(key)

    def _drop(self, key: bytes) -> None:
        self._once.take(key)
        self._often.take(key)


_kept = _Kept()
