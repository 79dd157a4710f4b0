"""gunicorn's threads for requests, and one thread beside them for those that were answered before (see `repos.hot`).

A connection that is kept alive waits in gunicorn's poller. When it becomes readable the head of its request is looked at, and
left where it is unless it is known: then this thread takes it, and all others that are known at that moment, sees by
one query which of their answers still hold, and sends them. Everything else goes on to the threads as ever, and so does
what takes long: a large body, or a client that does not read.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import sys
import threading
import time
from concurrent.futures import Future
from typing import Any

from django.db import connection
from gunicorn import util
from gunicorn.workers.gthread import TConn, ThreadWorker

from repos import hot
from repos.blobs.stores import store

log = logging.getLogger("entrepot.worker")


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
        self._known: queue.SimpleQueue[tuple[TConn, hot.Answer]] = queue.SimpleQueue()
        threading.Thread(target=self._answer_known, name="hot", daemon=True).start()
        super().init_process()

    def on_client_socket_readable(self, conn: TConn, client: socket.socket) -> None:
        conn.head = self._head(conn)
        answer = hot.find(conn.head) if conn.head and self.alive else None
        if answer is None:
            super().on_client_socket_readable(conn, client)
            return
        self.poller.unregister(client)
        self.keepalived_conns.remove(conn)
        self._known.put((conn, answer))

    def _head(self, conn: TConn) -> bytes | None:
        """The head of the next request, left in the socket; None where that is not the whole of it, or is encrypted."""
        if conn.is_http2 or self.cfg.is_ssl:
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
                hot.forget(conn.head)
                self.enqueue_req(conn)
        return [known for known, holds in zip(batch, holding, strict=True) if holds]

    def _send(self, conn: TConn, answer: hot.Answer) -> bool:
        """Send what can be sent without waiting; whether that was all. The rest is a thread's."""
        head = answer.head + _date()
        content = head + (answer.body or b"")
        sent = 0
        try:
            conn.sock.recv(len(conn.head))
            if answer.body is None:
                self._in_thread(conn, _send_file, head, answer)
                return False
            with contextlib.suppress(BlockingIOError):
                sent = conn.sock.send(content)
        except OSError:
            self.method_queue.defer(self.finish_request, conn, CLOSED)
            return False
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


def _send_file(conn: TConn, head: bytes, answer: hot.Answer) -> bool:
    """Send a body from the store; where that has it no more the connection ends, and the next request is a view's."""
    conn.sock.setblocking(True)
    with store().open(answer.basis.found.key) as file:
        conn.sock.sendall(head, socket.MSG_MORE)
        return conn.sock.sendfile(file, count=answer.basis.found.size) == answer.basis.found.size


_dated: tuple[int, bytes] = (0, b"")


def _date() -> bytes:
    """The Date header (RFC 9110 section 6.6.1) and the end of the head."""
    global _dated
    now = int(time.time())
    if _dated[0] != now:
        _dated = (now, f"Date: {util.http_date(now)}\r\n\r\n".encode())
    return _dated[1]
