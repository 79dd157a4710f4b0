"""Asking an upstream over HTTP: one connector, with every rule of it in one place.

Credentials are sent to the origin of the configured URL only, and only that may be inside (see `basics.egress`). Environment
proxies are not used, redirects are followed by hand, what comes too slowly is a failure however steadily it drips, and a body
counts only if its framing says that it is whole. Who waits here holds no connection to the database, whatever was read before:
connections are few, and one silent upstream would take them from all.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError, ProtocolError

from basics.connector import failures, led_to, origin, pool_for, request
from problems import Problem, UpstreamFailed
from repos import database
from repos.blobs import CHUNK
from repos.catalogue import Upstream

REDIRECTS = 5
USER_AGENT = "entrepot"
CHECK_SECONDS = 5.0
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
DISCARDED = 8 * 1024
"""The most bytes that are read of a body that nobody wants, to keep its connection."""


@dataclass(frozen=True)
class Answer:
    """The head of an upstream's answer, header names in lower case, and its body as `chunks()`.

    Whoever has an Answer reads its chunks to the end or lets it go by `discard()`.
    """

    status: int
    headers: Mapping[str, str]
    own: bool = field(default=True, kw_only=True)
    """Whether the upstream itself says it, and not another host that it redirected to."""

    @property
    def length(self) -> int | None:
        """Bytes that the body will have, where the upstream says so and neither encodes it nor sends it in chunks."""
        return None if self.encoding or self._transfer_coding else self._stated_length

    @property
    def framed(self) -> bool:
        """Whether the end of the body can be told from a cut connection (RFC 9112 section 6.3)."""
        return self._transfer_coding == "chunked" or (not self._transfer_coding and self._stated_length is not None)

    @property
    def _transfer_coding(self) -> str:
        return self.headers.get("transfer-encoding", "").lower()

    @property
    def _stated_length(self) -> int | None:
        text = self.headers.get("content-length", "")
        return int(text) if re.fullmatch("[0-9]{1,18}", text) else None

    @property
    def encoding(self) -> str:
        """The body's content encoding; empty: none."""
        encoding = self.headers.get("content-encoding", "").strip().lower()
        return "" if encoding == "identity" else encoding

    @property
    def stated_sha256(self) -> str:
        """The SHA-256 that the head states, as hex (RFC 9530 sections 2 and 3, or X-Checksum-Sha256); empty: none.

        Of an encoded body it may be that of the bytes on the wire or of those that they stand for.
        """
        plain = self.headers.get("x-checksum-sha256", "").strip().lower()
        if re.fullmatch("[0-9a-f]{64}", plain):
            return plain
        for member in (self.headers.get("repr-digest", "") + "," + self.headers.get("content-digest", "")).split(","):
            name, _, value = member.strip().partition("=")
            if name.lower() == "sha-256":
                with contextlib.suppress(binascii.Error):
                    digest = base64.b64decode(value.strip().strip(":"), validate=True)
                    if len(digest) == 32:
                        return digest.hex()
        return ""

    @property
    def beside(self) -> Mapping[str, Answer]:
        """What came with it, by path, and is recorded in the same change: the other files of a version, say."""
        return {}

    def chunks(self) -> Iterator[bytes]:
        """The body, whole or UpstreamFailed."""
        raise NotImplementedError

    def discard(self) -> None:
        """Let the body go."""
        raise NotImplementedError


@dataclass(frozen=True)
class HttpAnswer(Answer):
    """An answer that comes over a connection."""

    response: urllib3.BaseHTTPResponse

    def chunks(self) -> Iterator[bytes]:
        """The body, whole or UpstreamFailed. An encoding that was not asked for is undone, if it is gzip, and must end."""
        database.release()
        with _blamed_on(own=self.own), failures("upstream.body"), contextlib.closing(self.response):
            if self.encoding not in ("", "gzip", "x-gzip"):
                raise UpstreamFailed(
                    f"the upstream sent an encoding that was not asked for ({self.encoding[:20]})", rule="upstream.body"
                )
            yield from self._decoded() if self.encoding else self._raw()

    def discard(self) -> None:
        """Let the body go; urllib3 keeps the connection for the next question where that was the end of it."""
        left = self.response.length_remaining
        if left is not None and left <= DISCARDED:
            with contextlib.suppress(HTTPError, OSError, ValueError):
                self.response.read(DISCARDED, decode_content=False)
        self.response.close()

    def _decoded(self) -> Iterator[bytes]:
        wire, plain = hashlib.sha256(), hashlib.sha256()
        for piece in _gunzip(_hashed(self._raw(), wire)):
            plain.update(piece)
            yield piece
        if self.stated_sha256 not in ("", wire.hexdigest(), plain.hexdigest()):
            raise UpstreamFailed("the upstream's bytes do not have the digest that it stated", rule="upstream.digest")

    def _raw(self) -> Iterator[bytes]:
        """The bytes as they come, so that those who read along get them at once."""
        while chunk := self.response.read1(CHUNK, decode_content=False):
            yield chunk


def ask(upstream: Upstream, url: str, headers: Mapping[str, str], *, method: str = "GET") -> Answer:
    """GET, or HEAD, `url` of `upstream`; the caller reads or discards the body.

    An Authorization among the `headers` stands for the upstream's credentials, and goes nowhere else either.
    Raises UpstreamTimeout and UpstreamFailed. Statuses are the caller's to judge, but redirects are followed here.
    """
    for _ in range(REDIRECTS + 1):
        own = origin(url) == origin(upstream.url)
        with _blamed_on(own=own):
            response = _get(upstream, url, headers, method)
        answer = HttpAnswer(response.status, _plain(response.headers), response, own=own)
        targets = response.headers.getlist("location")
        if answer.status not in (301, 302, 303, 307, 308) or not targets:
            return answer
        answer.discard()
        if len(targets) > 1:
            raise UpstreamFailed("the upstream redirected to several addresses at once", rule="upstream.redirect")
        url = led_to(url, targets[0])
    raise UpstreamFailed(f"the upstream redirected more than {REDIRECTS} times", rule="upstream.redirect")


def answers(upstream: Upstream) -> bool:
    """Whether the upstream answers at its own URL at all, with whatever is no failure of its own. Takes a few seconds at most."""
    brief = replace(upstream, timeout=min(upstream.timeout, CHECK_SECONDS))
    try:
        response = _get(brief, f"{upstream.url}/", {})
    except Problem:
        return False
    response.close()
    return response.status not in (429, 502, 503, 504)


def _plain(headers: Mapping[str, str]) -> dict[str, str]:
    """Names in lower case, and values without control characters (RFC 9110 section 5.5), which a database may not take."""
    return {name.lower(): CONTROL.sub(" ", value) for name, value in headers.items()}


def _get(upstream: Upstream, url: str, headers: Mapping[str, str], method: str = "GET") -> urllib3.BaseHTTPResponse:
    configured = origin(url) == origin(upstream.url)
    signed = credentials(upstream) if configured and "Authorization" not in headers else {}
    wanted = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers, **signed}
    if not configured:
        wanted.pop("Authorization", None)
    database.release()
    with failures():
        changed = os.stat(upstream.ca).st_mtime_ns if upstream.ca else 0
        pool = pool_for(upstream.ca, changed, None if configured else upstream.egress)
        try:
            return request(pool, method, url, wanted, upstream.timeout)
        except ProtocolError as error:
            if not isinstance(error.args[-1], ConnectionError):
                raise
            # an idle connection may have been ended just as it was used again
            return request(pool, method, url, wanted, upstream.timeout)


def credentials(upstream: Upstream) -> dict[str, str]:
    """The header that signs in at the origin of the configured URL, and nowhere else."""
    if token := upstream.token:
        return {"Authorization": f"Bearer {token}"}
    if upstream.username:
        pair = f"{upstream.username}:{upstream.password}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
    return {}


@contextlib.contextmanager
def _blamed_on(*, own: bool) -> Iterator[None]:
    """What another host does that an upstream redirected to is no failure of the upstream itself (`repos.circuit`)."""
    try:
        yield
    except UpstreamFailed as failure:
        if not own:
            failure.rule = failure.rule.replace("upstream.", "redirect.", 1)
        raise


def _hashed(chunks: Iterator[bytes], hasher: Any) -> Iterator[bytes]:
    for chunk in chunks:
        hasher.update(chunk)
        yield chunk


def _gunzip(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The decoded body in pieces of bounded size, however well it was packed; a body that stops short is a failure."""
    decoder = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    for chunk in chunks:
        piece = decoder.decompress(chunk, CHUNK)
        while piece:
            yield piece
            piece = decoder.decompress(decoder.unconsumed_tail, CHUNK)
        if decoder.unused_data:
            raise ValueError("bytes after the end of the gzip stream")
    if not decoder.eof:
        raise ValueError("the gzip stream stops short")
