"""Looks at the job table and hands over what is due, again and again. Several schedulers do no harm to each other."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from django.db import DatabaseError, connection

from accounts import throttle
from accounts.directories import follow
from problems import Unavailable
from repos import database
from repos.ahead import revalidate
from repos.jobs import schedule, table

log = logging.getLogger("entrepot.scheduler")

PAUSE = 0.5
PAUSE_AFTER_FAILURE = 2.0
AHEAD = 50
"""How many jobs wait in the broker at most; the others wait in the table."""
AGAIN = 30.0
"""Seconds after which a job that was handed over and has not begun is handed over again: the broker may have lost it."""


class Scheduler:
    """`send` hands over one job by its number; `waiting` counts those that were handed over and not taken."""

    def __init__(self, send: Callable[[int], None], waiting: Callable[[], int]):
        self._send, self._waiting = send, waiting
        self._sent: dict[int, float] = {}
        self._failing = False
        self._rounds = (
            _Round(5.0, table.settle_lapsed),
            _Round(60.0, schedule.plan),
            _Round(60.0, throttle.forget),
            _Round(follow.LOOK, follow.begin),
            _Round(revalidate.TICK.total_seconds(), revalidate.ask_for_what_expires),
        )

    def run(self, ended: threading.Event) -> None:
        """Until `ended`. A database or broker that fails is asked again later."""
        while not ended.is_set():
            failed = True
            try:
                for round_ in self._rounds:
                    round_.run()
                self.deliver()
                failed = False
            except (DatabaseError, Unavailable) as error:
                if not self._failing:
                    log.warning("no jobs are handed over for now: %s", error)
                connection.close()
            except Exception:
                log.exception("jobs could not be looked after")
            if self._failing and not failed:
                log.warning("jobs are handed over again")
            self._failing = failed
            database.release()
            ended.wait(PAUSE_AFTER_FAILURE if failed else PAUSE)
        connection.close()

    def deliver(self) -> None:
        """Hand over what is due, those that have waited longest first, as far as there is room in the broker."""
        due = table.due(AHEAD + len(self._sent))
        again = time.monotonic() - AGAIN
        self._sent = {pk: at for pk, at in self._sent.items() if at > again and pk in due}
        fresh = [pk for pk in due if pk not in self._sent]
        if not fresh:
            return
        for pk in fresh[: max(0, AHEAD - self._waiting())]:
            self._send(pk)
            self._sent[pk] = time.monotonic()


class _Round:
    """Something that is done every so many seconds."""

    def __init__(self, seconds: float, do: Callable[[], object]):
        self._seconds, self._do = seconds, do
        self._next = 0.0

    def run(self) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + self._seconds
            self._do()
