"""gunicorn's threads for requests, and one thread beside them for those that were answered before (see `repos.hot`).

A connection waits in gunicorn's poller for its requests, also for the first. When it becomes readable the head is looked at, and
left where it is unless it is known: then this thread takes it, and all others that are known at that moment, sees by one
query which of their answers still hold, and sends them. Everything else goes on to the threads as ever, and so does what
takes long: a large body, or a client that does not read.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import queue
import selectors
import socket
import struct
import sys
import threading
import time
from collections import deque
from concurrent.futures import Future
from functools import partial
from typing import Any, BinaryIO

from django.conf import settings
from django.db import connection, connections
from gunicorn import util
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import TConn, ThreadWorker

from repos import database, hot
from repos.blobs import CHUNK
from repos.blobs.stores import store

log = logging.getLogger("entrepot.worker")


SocketUnreader.max_body_chunk = CHUNK
"""Bytes of a body that are taken at once. Of more than is asked for the rest is copied each time, and a megabyte is memory that
the system gives anew each time: of 10 MiB that was ten times the work of taking them."""
SWITCH = 0.0005
"""Seconds after which a thread that computes lets another go on: one that comes from the disk waits for that each time."""


def _ended(kept_alive: bool) -> Future[bool]:
    future: Future[bool] = Future()
    future.set_result(kept_alive)
    return future


KEPT_ALIVE, CLOSED = _ended(True), _ended(False)
"""How a request ends for gunicorn: what its own threads report."""


class Worker(ThreadWorker):
    """Answers again what was answered before; the rest as gunicorn does."""

    def init_process(self) -> None:
        sys.setswitchinterval(SWITCH)
        # A thread's own: those of asgiref ask at each access whether a loop runs, and none does here.
        connections._connections = threading.local()  # type: ignore[attr-defined]
        self._peeks = not self.cfg.is_ssl
        self._told = 0.0
        for listener in self.sockets:  # its connections inherit them
            seconds = settings.ENTREPOT.client_timeout
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", seconds, 0))
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000)
        self._known: queue.SimpleQueue[tuple[TConn, hot.Answer]] = queue.SimpleQueue()
        threading.Thread(target=self._answer_known, name="hot", daemon=True).start()
        super().init_process()

    def notify(self) -> None:
        """Tell the arbiter that we live: each second, and not after each request, by a file's time."""
        now = time.monotonic()
        if now - self._told >= 1:
            self._told = now
            super().notify()

    def accept(self, listener: socket.socket) -> None:
        """Let a new connection wait in the poller, and not in a thread, until it has something to say."""
        if not self._peeks:
            super().accept(listener)
            return
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED):
                raise
            return
        self.nr_conns += 1
        conn = TConn(self.cfg, client, address, listener.getsockname())
        conn.set_timeout()
        self.pending_conns.append(conn)
        self.poller.register(client, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def on_pending_socket_readable(self, conn: TConn, client: socket.socket) -> None:
        if not self._taken(conn, client, self.pending_conns):
            super().on_pending_socket_readable(conn, client)

    def on_client_socket_readable(self, conn: TConn, client: socket.socket) -> None:
        if not self._taken(conn, client, self.keepalived_conns):
            super().on_client_socket_readable(conn, client)

    def _taken(self, conn: TConn, client: socket.socket, waiting: deque[TConn]) -> bool:
        """Whether the next request is one that is known, which the thread beside answers."""
        conn.head = self._head(conn)
        answer = hot.find(conn.head) if conn.head and self.alive else None
        if answer is None:
            return False
        self.poller.unregister(client)
        waiting.remove(conn)
        self._known.put((conn, answer))
        return True

    def _head(self, conn: TConn) -> bytes | None:
        """The head of the next request, left in the socket; None where that is not the whole of it, or is encrypted."""
        if conn.is_http2 or not self._peeks:
            return None
        try:
            head = conn.sock.recv(hot.LONGEST_HEAD, socket.MSG_PEEK)
        except OSError:
            return None
        return head if hot.is_whole(head) else None

    def handle(self, conn: TConn) -> Any:
        head, conn.head = getattr(conn, "head", None), None  # the next request may come out of gunicorn's own buffer
        with hot.arriving(head):
            return super().handle(conn)

    # In the thread of its own

    def _answer_known(self) -> None:
        while True:
            batch = [self._known.get()]
            while not self._known.empty():
                batch.append(self._known.get())
            ended = [conn for conn, answer in self._that_hold(batch) if self._send(conn, answer)]
            if ended:
                self.method_queue.defer(self._keep_alive, ended)
            if self._known.empty():
                database.release()

    def _that_hold(self, batch: list[tuple[TConn, hot.Answer]]) -> list[tuple[TConn, hot.Answer]]:
        """Those whose answers still hold; the others go to the threads, where whatever is wrong is told of."""
        try:
            holding = hot.current([answer for _, answer in batch])
        except Exception:
            log.warning("what was answered before could not be compared with the database", exc_info=True)
            connection.close()
            holding = [False] * len(batch)
        for (conn, _), holds in zip(batch, holding, strict=True):
            if not holds:
                self._ask_a_view(conn)
        return [known for known, holds in zip(batch, holding, strict=True) if holds]

    def _ask_a_view(self, conn: TConn) -> None:
        hot.forget(conn.head)
        self.enqueue_req(conn)

    def _send(self, conn: TConn, answer: hot.Answer) -> bool:
        """Send what can be sent without waiting; whether that was all. The rest is a thread's."""
        file = None
        try:
            if (found := answer.basis.found) is not None and answer.body is None:
                file = store().open(found.key)
        except OSError:  # what the store has no more is a view's to tell of
            self._ask_a_view(conn)
            return False
        try:
            conn.init()
            conn.sock.setblocking(False)
            conn.sock.recv(len(conn.head))
            head = answer.head() + _date()
            if found is not None and file is not None:
                self._in_thread(conn, _send_file, head, file, found.size)
                return False
            return self._send_small(conn, head + (answer.body or b""))
        except Exception as error:
            if not isinstance(error, OSError):
                log.exception("an answer could not be given again")
            self.method_queue.defer(self.finish_request, conn, CLOSED)
            return False

    def _send_small(self, conn: TConn, content: bytes) -> bool:
        sent = 0
        with contextlib.suppress(BlockingIOError):
            sent = conn.sock.send(content)
        if sent < len(content):
            self._in_thread(conn, _send_rest, content[sent:])
        return sent == len(content)

    def _in_thread(self, conn: TConn, send: Any, *content: Any) -> None:
        future = self.tpool.submit(send, conn, *content)
        future.add_done_callback(lambda done: self.method_queue.defer(self.finish_request, conn, done))

    # In gunicorn's main thread

    def _keep_alive(self, conns: list[TConn]) -> None:
        for conn in conns:
            self.finish_request(conn, KEPT_ALIVE)


def _send_rest(conn: TConn, content: bytes) -> bool:
    conn.sock.setblocking(True)
    conn.sock.sendall(content)
    return True


def _send_file(conn: TConn, head: bytes, file: BinaryIO, size: int) -> bool:
    """Send a body from the store; whether it was all there, so that the connection can be gone on with."""
    with file:
        conn.sock.setblocking(True)
        conn.sock.sendall(head, socket.MSG_MORE)
        return conn.sock.sendfile(file, count=size) == size


_dated: tuple[int, bytes] = (0, b"")


def _date() -> bytes:
    """The Date header (RFC 9110 section 6.6.1) and the end of the head."""
    global _dated
    now = int(time.time())
    if _dated[0] != now:
        _dated = (now, f"Date: {util.http_date(now)}\r\n\r\n".encode())
    return _dated[1]
