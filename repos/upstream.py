"""Asking an upstream over HTTP: one connector, with every rule of egress in it.

Credentials are sent to the origin of the configured URL only, environment proxies are not used, redirects are followed by
hand, every read has a deadline, and a body counts only if its framing says that it is whole.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import ssl
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urljoin

import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError, ProtocolError
from urllib3.exceptions import TimeoutError as UrllibTimeout
from urllib3.util import parse_url

from problems import UpstreamFailed, UpstreamTimeout
from repos.blobs import CHUNK
from repos.catalogue import Upstream

REDIRECTS = 5
USER_AGENT = "entrepot"
PLAIN = re.compile(r"[!-\[\]-~]+")
"""A URL of printable ASCII without back-slashes, which readers of URLs take for different things."""
CONNECT_SECONDS = 10.0
DISCARDED = 64 * 1024
"""The most bytes that are read of a body that nobody wants."""


@dataclass(frozen=True)
class Answer:
    """The head of an upstream's answer, header names in lower case, and its body as `chunks()`.

    Whoever has an Answer reads its chunks to the end or lets it go by `discard()`.
    """

    status: int
    headers: Mapping[str, str]

    @property
    def length(self) -> int | None:
        """Bytes that the body will have, where the upstream says so and neither encodes it nor sends it in chunks."""
        return None if self.encoding or self._chunked else self._stated_length

    @property
    def framed(self) -> bool:
        """Whether the end of the body can be told from a cut connection (RFC 9112 section 6.3)."""
        return self._chunked or self._stated_length is not None

    @property
    def _chunked(self) -> bool:
        return "chunked" in self.headers.get("transfer-encoding", "").lower()

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
        if self.encoding not in ("", "gzip", "x-gzip"):
            raise UpstreamFailed(
                f"the upstream sent an encoding that was not asked for ({self.encoding[:20]})", rule="upstream.body"
            )
        with _failures(), contextlib.closing(self.response):
            yield from _gunzip(self._raw()) if self.encoding else self._raw()

    def discard(self) -> None:
        """Let the body go; the connection is kept for the next question where little is left of it."""
        with contextlib.suppress(HTTPError, OSError):
            if len(self.response.read(DISCARDED, decode_content=False)) < DISCARDED:
                self.response.release_conn()
        self.response.close()

    def _raw(self) -> Iterator[bytes]:
        yield from self.response.stream(CHUNK, decode_content=False)


def ask(upstream: Upstream, url: str, headers: Mapping[str, str]) -> Answer:
    """GET `url` of `upstream`; the caller reads or closes the body.

    Raises UpstreamTimeout and UpstreamFailed. Statuses are the caller's to judge, but redirects are followed here.
    """
    for _ in range(REDIRECTS + 1):
        response = _get(upstream, url, headers)
        answer = HttpAnswer(response.status, {name.lower(): value for name, value in response.headers.items()}, response)
        target = answer.headers.get("location")
        if answer.status not in (301, 302, 303, 307, 308) or not target:
            return answer
        answer.discard()
        url = _redirected(url, target)
    raise UpstreamFailed(f"the upstream redirected more than {REDIRECTS} times", rule="upstream.redirect")


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port (RFC 6454), read by the same rules by which the connection is made."""
    parts = parse_url(url)
    scheme = (parts.scheme or "").lower()
    return scheme, (parts.host or "").lower(), parts.port or (443 if scheme == "https" else 80)


def _get(upstream: Upstream, url: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
    wanted = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers}
    if origin(url) == origin(upstream.url):
        wanted |= credentials(upstream)
    with _failures():
        try:
            return _request(upstream, url, wanted)
        except ProtocolError:  # an idle connection may have been ended just as it was used again
            return _request(upstream, url, wanted)


def _request(upstream: Upstream, url: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
    changed = os.stat(upstream.ca).st_mtime_ns if upstream.ca else 0
    return _pool_for(upstream.ca, changed).request(
        "GET",
        url,
        headers=headers,
        redirect=False,
        retries=False,
        preload_content=False,
        timeout=urllib3.Timeout(connect=min(CONNECT_SECONDS, upstream.timeout), read=upstream.timeout),
    )


def _redirected(url: str, target: str) -> str:
    try:
        new = urljoin(url, target)
        scheme, host, _ = origin(new)
    except (ValueError, HTTPError):
        scheme, host, new = "", "", ""
    if scheme not in ("http", "https") or not host or not PLAIN.fullmatch(new) or parse_url(new).auth:
        raise UpstreamFailed("the upstream redirected to what is no http(s) address", rule="upstream.redirect")
    if origin(url)[0] == "https" and scheme == "http":
        raise UpstreamFailed("the upstream redirected from https to plain http", rule="upstream.redirect")
    return new


def credentials(upstream: Upstream) -> dict[str, str]:
    """The header that signs in at the origin of the configured URL, and nowhere else."""
    if token := upstream.token:
        return {"Authorization": f"Bearer {token}"}
    if upstream.username:
        pair = f"{upstream.username}:{upstream.password}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
    return {}


@lru_cache(maxsize=64)
def _pool_for(ca: str, changed: int) -> urllib3.PoolManager:
    """Connections that trust the system's certificates, and those in the file `ca` if one is named, as last `changed`."""
    context = ssl.create_default_context()
    if ca:
        context.load_verify_locations(ca)
    return urllib3.PoolManager(num_pools=32, maxsize=64, ssl_context=context)


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    """Turn what the connection does into the upstream's failures."""
    try:
        yield
    except NewConnectionError as error:  # which urllib3 counts among the timeouts
        raise UpstreamFailed("the upstream could not be reached; try again later", rule="upstream.failed") from error
    except UrllibTimeout as error:
        raise UpstreamTimeout("the upstream did not answer in time; try again later", rule="upstream.timeout") from error
    except (HTTPError, OSError, ValueError, zlib.error) as error:
        raise UpstreamFailed(
            f"the upstream could not be reached or sent an incomplete answer ({type(error).__name__}); try again later",
            rule="upstream.failed",
        ) from error


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
