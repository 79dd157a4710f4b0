"""The process in which the embedded server runs jobs: forked by gunicorn's master beside those that answer requests."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Iterable
from typing import Any

log = logging.getLogger("entrepot.jobs")

PAUSE = 5.0
"""Seconds between two starts, for one that dies at once."""
KILLED_AFTER = 10.0
"""Seconds that what runs has to stop at its next step; what does not is taken over later."""
PR_SET_PDEATHSIG = 1


class JobsProcess:
    """One child process, started anew when it has died. It ends with its parent, however that ends."""

    def __init__(self, at_once: int):
        self._at_once = at_once
        self._pid = 0
        self._alive = -1  # reads as ended when the child, which alone holds the other end, is no more
        self._started = -PAUSE

    def keep(self, listeners: Iterable[Any]) -> None:
        """See to it that it runs."""
        if self._runs() or time.monotonic() < self._started + PAUSE:
            return
        if self._pid:
            os.close(self._alive)
            log.error("the process that runs jobs has ended; it is started anew")
        self._started = time.monotonic()
        self._alive, held = os.pipe()
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid:
            os.close(held)
            return
        try:
            _child(parent, self._at_once, listeners)
        except BaseException:
            log.exception("the process that runs jobs failed")
        finally:
            logging.shutdown()
            os._exit(0)

    def end(self) -> None:
        """Ask it to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Wait for its end, and not for long."""
        if self._pid and not select.select([self._alive], [], [], KILLED_AFTER)[0]:
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._runs():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)

    def _runs(self) -> bool:
        return bool(self._pid) and not select.select([self._alive], [], [], 0)[0]


def _child(parent: int, at_once: int, listeners: Iterable[Any]) -> None:
    for number in (
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGWINCH,
    ):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent tells this one to end
    for listener in listeners:
        listener.close()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    from registry import celery

    celery.work(at_once, gone=lambda: os.getppid() != parent)
