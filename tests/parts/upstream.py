"""An upstream that does what a test tells it: answers, fails, lies, cuts, or is not there. On loopback, in threads."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext
from typing import Any

Route = bytes | int | Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    upstream: Upstream

    def do_GET(self) -> None:
        self.upstream.seen.append((self.path, dict(self.headers)))
        route = self.upstream.routes.get(self.path, self.upstream.default)
        if isinstance(route, bytes):
            self.answer(200, route)
        elif isinstance(route, int):
            self.answer(route, b"the upstream says so")
        else:
            route(self)

    def do_HEAD(self) -> None:
        self.upstream.heads.append((self.path, dict(self.headers)))
        route = self.upstream.routes.get(self.path, self.upstream.default)
        if callable(route):
            self.answer(405, b"")
        else:
            self.answer(route if isinstance(route, int) else 200, b"" if isinstance(route, int) else route)

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, *arguments: Any) -> None:
        self.connections = 0
        self._open: set[socket.socket] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def end(self) -> None:
        """Nobody answers any more, neither at the address nor on connections that clients keep open."""
        self.shutdown()
        self.server_close()
        for request in list(self._open):
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: Any) -> None:  # clients that go away are part of the tests
        pass


class Upstream:
    """`routes`: path -> bytes (200), a status, or a function of the handler; `default` for all others.

    `seen`: what was asked by GET, `heads`: by HEAD, which functions do not answer.
    """

    handler: type[Handler] = Handler

    def __init__(self, port: int = 0, tls: SSLContext | None = None) -> None:
        self.routes: dict[str, Route] = {}
        self.default: Route = 404
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.heads: list[tuple[str, dict[str, str]]] = []
        self._tls = tls
        self._start(port)

    def _start(self, port: int) -> None:
        self._server = Server(("127.0.0.1", port), type("H", (self.handler,), {"upstream": self}))
        if self._tls:
            self._server.socket = self._tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        self._server.end()

    @contextlib.contextmanager
    def down(self) -> Iterator[None]:
        """Nobody listens at the upstream's address."""
        self.stop()
        try:
            yield
        finally:
            self._start(self.port)

    @property
    def connections(self) -> int:
        """How many have come since it was started last."""
        return self._server.connections

    def hits(self, path: str) -> int:
        return sum(seen == path for seen, _ in self.seen)

    def asked(self, path: str) -> int:
        """How often, by GET or by HEAD."""
        return self.hits(path) + sum(seen == path for seen, _ in self.heads)

    @staticmethod
    def slowly(body: bytes, seconds: float) -> Route:
        """The body after a while, so that others come meanwhile."""

        def route(handler: Handler) -> None:
            time.sleep(seconds)
            handler.answer(200, body)

        return route

    @staticmethod
    def stating(body: bytes, sha256: str) -> Route:
        """The body, with a digest in the head that may be a lie."""
        return lambda handler: handler.answer(200, body, {"X-Checksum-Sha256": sha256})

    @staticmethod
    def cut(body: bytes, at: int, framing: str) -> Route:
        """The first `at` bytes of the body, then the connection ends; framed by length, in chunks, or not at all."""

        def route(handler: Handler) -> None:
            handler.close_connection = True
            handler.send_response(200)
            if framing == "length":
                handler.send_header("Content-Length", str(len(body)))
            elif framing == "chunked":
                handler.send_header("Transfer-Encoding", "chunked")
            else:
                handler.send_header("Connection", "close")
            handler.end_headers()
            part = body[:at]
            if framing == "chunked":
                part = b"%x\r\n%s" % (len(body), part)
            handler.wfile.write(part)

        return route

    @staticmethod
    def held(body: bytes, go_on: threading.Event) -> Route:
        """The body when the test says so, with not a byte before; a minute later all the same, so that nothing hangs."""

        def route(handler: Handler) -> None:
            go_on.wait(60)
            handler.answer(200, body)

        return route

    @staticmethod
    def redirect(location: str, status: int = 302) -> Route:
        return lambda handler: handler.answer(status, b"", {"Location": location})

    @staticmethod
    def wire(sent: bytes | Callable[[], Iterable[bytes]], pause: float = 0) -> Route:
        """Exactly these bytes, head and all, with seconds between the pieces; then the connection ends."""

        def route(handler: Handler) -> None:
            handler.close_connection = True
            with contextlib.suppress(OSError):  # the other side has heard enough
                for piece in (sent,) if isinstance(sent, bytes) else sent():
                    handler.wfile.write(piece)
                    time.sleep(pause)

        return route

    @staticmethod
    def dripping(sent: bytes, start: int) -> Route:
        """The bytes before `start` at once, and then one a second."""
        return Upstream.wire(lambda: (sent[:start], *(sent[n : n + 1] for n in range(start, len(sent)))), pause=1)

    @staticmethod
    def asked_again(ask: Callable[[], Any]) -> None:
        """Wait until a server of one process, which may have left the upstream alone for its failures, asks it again."""
        deadline = time.monotonic() + 60
        while "upstream.out" in (reason := ask().reason) or "upstream.rest" in reason:
            assert time.monotonic() < deadline, reason
            time.sleep(0.05)

    @staticmethod
    def incomplete(ask: Callable[[], Any]) -> bool:
        """Whether the answer was a failure, or was never completed."""
        try:
            return ask().status >= 500
        except (http.client.HTTPException, OSError):
            return True


def head(*lines: str, status: str = "200 OK") -> bytes:
    """An answer's head as it goes over the wire."""
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode()


def in_chunks(body: bytes, size: int = 65_536) -> bytes:
    """The body in chunked transfer coding (RFC 9112 section 7.1)."""
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""])


@contextlib.contextmanager
def full() -> Iterator[str]:
    """The URL of an address where nobody accepts and the queue is full, so that not even a connection comes about."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
