"""Stands before a real upstream: passes requests on, counts them, and can be cut off."""

from __future__ import annotations

import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler

import urllib3

from tests.parts.upstream import Server

CHUNK = 256 * 1024


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    relay: Relay

    def do_GET(self) -> None:
        self.relay.count(self.path)
        answer = self.relay.pool.request("GET", self.relay.target + self.path, preload_content=False, redirect=True)
        self.send_response(answer.status)
        for name in ("Content-Type", "ETag", "Last-Modified"):
            if name in answer.headers:
                self.send_header(name, answer.headers[name])
        length = answer.headers.get("Content-Length")
        self.send_header(*(("Content-Length", length) if length else ("Transfer-Encoding", "chunked")))
        self.end_headers()
        for chunk in answer.stream(CHUNK, decode_content=False):
            self.wfile.write(chunk if length else b"%x\r\n%s\r\n" % (len(chunk), chunk))
        if not length:
            self.wfile.write(b"0\r\n\r\n")
        answer.release_conn()

    def log_message(self, *_: object) -> None:
        pass


class Relay:
    """A loopback address that answers as `target` does, until `stop`."""

    def __init__(self, target: str):
        self.target = target.rstrip("/")
        self.pool = urllib3.PoolManager(maxsize=32, timeout=60.0, retries=urllib3.Retry(3, backoff_factor=0.5))
        self.seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._server = Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"relay": self}))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def count(self, path: str) -> None:
        with self._lock:
            self.seen[path] += 1

    def stop(self) -> None:
        self._server.end()
