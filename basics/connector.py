"""Connections over HTTP to parts outside: to addresses that were checked, and only while the answer keeps a pace.

Environment proxies are not used and redirects are not followed; what comes too slowly is a failure, however steadily it drips.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import re
import socket
import ssl
import time
import zlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import urljoin

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as UrllibTimeout
from urllib3.util import parse_url

from basics import egress
from problems import UpstreamFailed, silent

PLAIN = re.compile(r"[!-\[\]-~]+")
"""A URL of printable ASCII without back-slashes, which readers of URLs take for different things."""
CONNECT_SECONDS = 10.0
PACE = 1024
"""Bytes a second that come at least, on average over each `timeout` of waiting for them."""
LONGEST = 3600.0
"""Seconds that one answer may take, however steadily it comes."""
LARGEST_HEAD = 256 * 1024
"""Bytes of an answer's head, with what may come before it (1xx), and of its trailers."""
CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(;.*)?\r?\n")


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port (RFC 6454), read by the same rules by which the connection is made."""
    parts = parse_url(url)
    scheme = (parts.scheme or "").lower()
    return scheme, (parts.host or "").lower(), parts.port or (443 if scheme == "https" else 80)


def keeps_pace(count: int, since: float) -> bool:
    """Whether so many bytes since a moment (of `time.monotonic`) are no drip, which is as good as silence."""
    return count >= PACE * (time.monotonic() - since)


def led_to(url: str, target: str) -> str:
    """The address that an answer from `url` leads to, as a redirect does. Raises UpstreamFailed where it is none to ask."""
    try:
        new = urljoin(url, target)
        scheme, host, _ = origin(new)
    except (ValueError, HTTPError):
        scheme, host, new = "", "", ""
    if scheme not in ("http", "https") or not host or not PLAIN.fullmatch(new) or parse_url(new).auth:
        raise UpstreamFailed("the upstream leads to what is no http(s) address", rule="upstream.redirect")
    if origin(url)[0] == "https" and scheme == "http":
        raise UpstreamFailed("the upstream leads from https to plain http", rule="upstream.redirect")
    return new


def request(
    pool: urllib3.PoolManager, method: str, url: str, headers: Mapping[str, str], timeout: float, body: bytes | None = None
) -> urllib3.BaseHTTPResponse:
    """Ask, and read the head of the answer; whoever asks reads or closes its body. `timeout` in seconds, of each silence."""
    return pool.request(
        method,
        url,
        body=body,
        headers=headers,
        redirect=False,
        retries=False,
        preload_content=False,
        timeout=urllib3.Timeout(connect=min(CONNECT_SECONDS, timeout), read=timeout),
    )


@lru_cache(maxsize=64)
def pool_for(ca: str, changed: int, allowed: tuple[str, ...] | None) -> urllib3.PoolManager:
    """Connections to the addresses `allowed` (see `egress.connect`).

    They trust the system's certificates, and those in the file `ca` if one is named, as last `changed`.
    """
    context = ssl.create_default_context()
    if ca:
        context.load_verify_locations(ca)
    manager = urllib3.PoolManager(num_pools=32, maxsize=64, ssl_context=context)
    manager.pool_classes_by_scheme = {
        "http": _pool_class(urllib3.HTTPConnectionPool, HTTPConnection, allowed),
        "https": _pool_class(urllib3.HTTPSConnectionPool, HTTPSConnection, allowed),
    }
    return manager


def _pool_class(pool: Any, connection: Any, allowed: tuple[str, ...] | None) -> Any:
    """A pool of urllib3's whose connections are made by `egress.connect`, and whose answers come at a pace."""

    class Connection(connection):
        response_class = _Response

        def _new_conn(self) -> socket.socket:
            return egress.connect(self._dns_host, self.port, allowed=allowed, timeout=self.timeout)

    return type(pool.__name__, (pool,), {"ConnectionCls": Connection})


class _Response(http.client.HTTPResponse):
    """An answer of which a head without end, one that drips, and a line that is cut are errors, as silence is."""

    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any):
        super().__init__(sock, *arguments, **options)
        self._pace = _Pace(self.fp.detach(), sock, sock.gettimeout() or CONNECT_SECONDS)
        self.fp = _Lines(self._pace)

    def begin(self) -> None:
        """Read the head of the answer proper; what may come before it (1xx) is of no interest (RFC 9110 section 15.2)."""
        super().begin()
        while self.status < 200:
            self.headers = None  # type: ignore[assignment]  # as if none had been read
            super().begin()
        self._pace.begin_body()

    def _read_next_chunk_size(self) -> int:
        """Digits alone (RFC 9112 section 7.1): http.client takes `-1` for a size too, and reads without end then."""
        size = CHUNK_SIZE.fullmatch(self.fp.readline(LARGEST_HEAD))
        if size is None:
            raise http.client.HTTPException("no size of a chunk")
        return int(size[1], 16)

    def _read_and_discard_trailer(self) -> None:
        self._pace.begin_lines()
        super()._read_and_discard_trailer()  # type: ignore[misc]  # typeshed leaves it out


class _Lines(io.BufferedReader):
    """Lines that end; http.client takes what is left of one that was cut for the whole of it.

    Where nothing came at all it may say so itself: the connection was ended before it was used again.
    """

    raw: _Pace

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        if not line.endswith(b"\n") and len(line) != size and self.raw.begun:
            raise http.client.IncompleteRead(line)
        return line


class _Pace(io.RawIOBase):
    """A socket's bytes, as long as PACE of them come a second; only time spent waiting for them counts.

    Lines, which are a head or trailers, have to come within the timeout and are no more than LARGEST_HEAD.
    """

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, timeout: float):
        self._raw, self._sock, self._timeout = raw, sock, timeout
        self._deadline = time.monotonic() + LONGEST
        self.begun = False
        self.begin_lines()

    def begin_lines(self) -> None:
        self._waited, self._count, self._lines = 0.0, 0, True

    def begin_body(self) -> None:
        self._lines = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if time.monotonic() > self._deadline:
            raise TimeoutError("the answer has no end")
        if self._waited >= self._timeout:
            self._begin_again()
        self._sock.settimeout(self._timeout - (self._waited if self._lines else 0))
        began = time.monotonic()
        count = self._raw.readinto(buffer) or 0
        self._waited += time.monotonic() - began
        self._count += count
        self.begun = self.begun or count > 0
        if self._lines and self._count > LARGEST_HEAD:
            raise http.client.HTTPException("the head or the trailers have no end")
        return count

    def _begin_again(self) -> None:
        if self._lines or self._count < PACE * self._timeout:
            raise TimeoutError("too few bytes came in time")
        self._waited, self._count = 0.0, 0

    def close(self) -> None:
        self._raw.close()
        super().close()


@contextlib.contextmanager
def failures(rule: str = "upstream.failed") -> Iterator[None]:
    """Turn what the connection does into the upstream's failures, which `rule` names where it is not silence."""
    try:
        yield
    except UrllibTimeout as error:
        raise silent() from error
    except (HTTPError, OSError, ValueError, zlib.error) as error:
        raise UpstreamFailed(
            f"the upstream could not be reached or sent an incomplete answer ({type(error).__name__}); try again later",
            rule=rule,
        ) from error
