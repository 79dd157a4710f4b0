"""The one way out for a sandboxed `go` and `git`: a forward proxy on loopback that lives as long as their command.

go    asks for go-import pages, and only for these. It is refused https, asks again in plain http as it does where it may
      (GOINSECURE), and is answered here: the page is fetched over https by the registry's own connector, and what of it names
      a git repository is passed on. So go follows no redirect, sees no credentials and connects to nobody but this proxy; by
      itself it would pass any proxy by for a loopback address.
git   gets a tunnel to a host: the configured origin, else where egress rules allow. What is in it is between git and the host.

Each has a name and a secret of this proxy, so that no other process of the machine can use it.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import ipaddress
import re
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from html import escape
from html.parser import HTMLParser
from urllib.parse import urlsplit

from django.db import connection

from basics import connector, egress
from problems import Problem, UpstreamFailed, silent
from repos import circuit, upstream
from repos.catalogue import Upstream

HEAD = 64 * 1024
PAGE = 1 << 20
"""The most bytes that are read of a page."""
PIECE = 64 * 1024
LARGEST = 2 << 30
"""Bytes that all tunnels of one command may carry."""
CONNECT_SECONDS = 10.0


class Gateway:
    """`with Gateway(source) as gateway:` gives the proxy's addresses; afterwards `failure` is the first thing that went wrong."""

    def __init__(self, source: Upstream, heard: Callable[[], None]):
        self.source = source
        self._heard = heard
        self.failure: Problem | None = None
        self._relayed = 0
        self._origin = connector.origin(source.url)
        self._secret = secrets.token_urlsafe(24)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    @property
    def plain(self) -> bool:
        """Whether the configured upstream is asked without TLS."""
        return self._origin[0] == "http"

    def address_for(self, who: str) -> str:
        return f"http://{who}:{self._secret}@127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Gateway:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        threading.Thread(target=self._accept, args=(self._listener,), name="gateway", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            ending, self._open = [self._listener, *self._open], set()
        for one in ending:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._serve, args=(client,), name="gateway", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), self._kept(client), contextlib.closing(connection):  # where a rest is written
            client.settimeout(self.source.timeout)
            head, rest = _read_head(client)
            method, target, headers = _parse_head(head)
            who = self._known(headers.get("proxy-authorization", ""))
            if who == "git":
                self._tunnel(client, method, target, head, rest)
            elif who == "go" and method == "GET" and target.startswith("http://") and target.endswith("?go-get=1"):
                self._page(client, self._page_url(target.removeprefix("http://")))
            else:
                _answer(client, 403 if who else 407)

    def _note(self, problem: Problem, origin: tuple[str, str, int]) -> None:
        """Keep the first thing that goes wrong. What another host does is no failing of the upstream itself."""
        if origin != self._origin:
            problem = UpstreamFailed(f"what the upstream names failed: {problem.detail}", rule=f"vcs.{problem.rule}")
        self.failure = self.failure or problem

    @contextlib.contextmanager
    def _kept(self, one: socket.socket) -> Iterator[None]:
        """While the block runs the socket is open, and known to the end of this proxy."""
        with self._lock:
            self._open.add(one)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(one)
            one.close()

    def _known(self, authorization: str) -> str:
        """Who it is that the credentials are of; empty: nobody."""
        for who in ("go", "git"):
            wanted = base64.b64encode(f"{who}:{self._secret}".encode()).decode()
            if hmac.compare_digest(authorization.encode(), f"Basic {wanted}".encode()):
                return who
        return ""

    # Pages

    def _page_url(self, place: str) -> str:
        """Where the page of a host and path is asked for."""
        scheme = "http" if self.plain and place.partition("/")[0] == urlsplit(self.source.url).netloc else "https"
        return f"{scheme}://{place}"

    def _page(self, client: socket.socket, url: str) -> None:
        try:
            page = self._imports(url)
        except Problem as problem:
            self._note(problem, connector.origin(url))
            _answer(client, 502)
        else:
            _answer(client, 200, page)

    def _imports(self, url: str) -> bytes:
        """The go-import page at a URL, of which only what names a git repository is left."""
        answer = upstream.ask(self.source, url, {})
        content = bytearray()
        for chunk in answer.chunks():
            content += chunk
            if len(content) > PAGE:
                break
        found = imports(content[:PAGE].decode(errors="replace"))
        usable = [one for one in found if one[1] == "git" and self._may_clone(one[2])]
        if found and not usable:
            raise UpstreamFailed(
                f"{_host(url)} names no git repository that may be asked, but {' '.join(found[0])[:200]}", rule="vcs.import"
            )
        if not found and answer.status not in (200, 404, 410):
            raise circuit.refused(self.source, answer)
        metas = "".join(f'<meta name="go-import" content="{escape(" ".join(one))}">' for one in usable)
        return f"<!DOCTYPE html><html><head>{metas}</head></html>".encode()

    def _may_clone(self, url: str) -> bool:
        try:
            scheme, host, _ = connector.origin(url)
            parts = urlsplit(url)
        except ValueError:
            return False
        return (
            (scheme == "https" or (self.plain and connector.origin(url) == self._origin))
            and "@" not in parts.netloc
            and not is_loopback_literal(host)
        )

    # Tunnels

    def _tunnel(self, client: socket.socket, method: str, target: str, head: bytes, rest: bytes) -> None:
        connect = method == "CONNECT"
        _, host, port = connector.origin(f"https://{target}" if connect else target)
        origin = ("https" if connect else "http", host, port)
        try:
            server = self._connected(origin)
        except Problem as problem:
            self._note(problem, origin)
            _answer(client, 502)
            return
        with self._kept(server):
            if connect:
                client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            else:
                server.sendall(_direct(head))
            if rest:
                server.sendall(rest)
            if not self._relayed_all(client, server):
                self._note(silent(), origin)

    def _connected(self, origin: tuple[str, str, int]) -> socket.socket:
        scheme, host, port = origin
        own = origin == self._origin
        if scheme == "http" and not own:
            raise UpstreamFailed(f"git may not ask {host} without TLS", rule="vcs.plain")
        wait = min(CONNECT_SECONDS, self.source.timeout)
        return egress.connect(host.strip("[]"), port, allowed=None if own else self.source.egress, timeout=wait)

    def _relayed_all(self, client: socket.socket, server: socket.socket) -> bool:
        """Pass bytes both ways until one side ends; False where neither said anything for the upstream's time.

        A host that only drips, as it may to keep the connection while it packs, is let go on until the command's time is over,
        but is not heard: for whoever waits (`repos.waiting`) it is as good as silent.
        """
        unheard, since = 0, time.monotonic()
        with selectors.DefaultSelector() as ready:
            ready.register(client, selectors.EVENT_READ, (client, server))
            ready.register(server, selectors.EVENT_READ, (server, client))
            while events := ready.select(self.source.timeout):
                for key, _ in events:
                    one, other = key.data
                    piece = one.recv(PIECE)
                    if not piece or self._is_too_much(len(piece)):
                        return True
                    other.sendall(piece)
                    unheard += len(piece) if one is server else 0
                if connector.keeps_pace(unheard, since):
                    self._heard()
                    unheard, since = 0, time.monotonic()
        return False

    def _is_too_much(self, size: int) -> bool:
        with self._lock:
            self._relayed += size
            if self._relayed <= LARGEST:
                return False
        self.failure = self.failure or UpstreamFailed(
            f"version control sent more than {LARGEST} bytes; publish the module as a zip", rule="vcs.size"
        )
        return True


def is_loopback_literal(host: str) -> bool:
    """Whether go would pass its proxy by for this host (golang.org/x/net/http/httpproxy)."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def imports(page: str) -> list[list[str]]:
    """The contents of a page's go-import elements, as words: prefix, kind, address and, since go 1.25, a folder."""
    parser = _Metas()
    parser.feed(page)
    return parser.found


class _Metas(HTMLParser):
    """Like go, looks no further than the head of the page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[list[str]] = []
        self._over = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._over = self._over or tag == "body"
        values = dict(attrs)
        words = (values.get("content") or "").split()
        if not self._over and tag == "meta" and values.get("name") == "go-import" and len(words) in (3, 4):
            self.found.append(words)

    def handle_endtag(self, tag: str) -> None:
        self._over = self._over or tag == "head"


def _read_head(client: socket.socket) -> tuple[bytes, bytes]:
    """A request's head, and what has come of its body."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(PIECE)
        if not piece or len(data) > HEAD:
            raise OSError("no request")
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _parse_head(head: bytes) -> tuple[str, str, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, _, target = first.partition(" ")
    pairs = (line.partition(":") for line in lines)
    return method, target.rpartition(" ")[0], {name.strip().lower(): value.strip() for name, _, value in pairs}


def _direct(head: bytes) -> bytes:
    """A proxied request's head as the server itself is to get it, one request to a connection."""
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, version = first.split(" ")
    parts = urlsplit(target)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    kept = [line for line in lines if not re.match(r"(?i)(proxy-[a-z-]+|connection)\s*:", line)]
    return "\r\n".join([f"{method} {path} {version}", *kept, "Connection: close", "", ""]).encode("latin-1")


def _answer(client: socket.socket, status: int, body: bytes = b"") -> None:
    challenge = 'Proxy-Authenticate: Basic realm="gateway"\r\n' if status == 407 else ""
    head = (
        f"HTTP/1.1 {status} .\r\n{challenge}Content-Type: text/html\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    client.sendall(head.encode() + body)


def _host(url: str) -> str:
    return connector.origin(url)[1]
