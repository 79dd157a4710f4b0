"""Runs one job: gives signs of life, lets the work tell how far it is, and writes what its end means."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

from django.db import DatabaseError, OperationalError, connection

from accounts import audit, epoch
from accounts.access import Grant, Rights, rights_of
from accounts.actors import Actor, actor_of
from accounts.models import Token
from accounts.permissions import PERMISSIONS
from problems import Forbidden, NotFound, Problem, StorageFull, Unavailable, UpstreamFailed
from repos import catalogue
from repos.catalogue import Repo
from repos.jobs import table
from repos.jobs.kinds import Kind, find_kind
from repos.models import Job

log = logging.getLogger("entrepot.jobs")

WRITE_EVERY = 1.0
"""Seconds between two writes of a job's progress."""
PASSES = (UpstreamFailed, Unavailable, StorageFull)
INSTALLATION = Actor(user_id=None, name="entrepot")
EVERYTHING = Rights((Grant(PERMISSIONS, "", ""), Grant(PERMISSIONS, "**", "")))
"""What the installation itself may: what the operator asked for at the command line, and what keeps the house in order."""


class Stop(Exception):
    """The work is to stop where it is: the job was cancelled, taken over, or its runner ends. Not for the work to catch."""

    def __init__(self, why: str):
        super().__init__(why)
        self.why = why


class Failed(Problem):
    """The work is done as far as it could be, and that is not enough. `passes`: begun again after a pause it may come further."""

    def __init__(self, detail: str, result: dict[str, Any], *, passes: bool = False):
        super().__init__(detail, rule="job.incomplete")
        self.result = result
        self.passes = passes


class Running:
    """A job as its work sees it. Each method may raise Stop."""

    def __init__(self, job: Job):
        self.job = job
        self.arguments: dict[str, Any] = job.arguments
        self._done, self._total = job.done, job.total
        self._lines: list[str] = []
        self._logged = 0
        self._written = time.monotonic()
        self._told = False

    @property
    def actor(self) -> Actor:
        """For whom the job acts."""
        if self.job.user is None:
            return INSTALLATION
        user = actor_of(self.job.user)
        scopes = None if self.job.scopes is None else tuple(self.job.scopes)
        return Actor(user_id=user.user_id, name=user.name, scopes=scopes)

    def rights(self) -> tuple[Actor, Rights]:
        """For whom the job acts and what they may now, which may be less than when it was asked for."""
        actor = self.actor
        if self.job.token_id and not Token.objects.filter(pk=self.job.token_id, revoked_at=None).exists():
            raise Forbidden("the token that asked for this job has been revoked; ask anew", rule="job.token")
        return actor, EVERYTHING if actor is INSTALLATION else rights_of(actor, epoch.current())

    def check_allowed(self, kind: Kind) -> None:
        """Raises Forbidden where whoever asked for the job may no longer have it."""
        actor, rights = self.rights()
        repository = self.job.repository.key if self.job.repository else ""
        if actor is not INSTALLATION and not kind.may_be_asked_by(rights, repository):
            raise Forbidden(
                f"{actor.name} may not have {kind.name} run here any more; ask who runs this server", rule="job.permission"
            )

    def repository(self) -> Repo:
        """The job's repository as it is configured now."""
        row = self.job.repository
        found = catalogue.repositories(epoch.current()).get((row.format, row.key)) if row else None
        if found is None:
            raise NotFound("the job's repository is not in use", rule="job.repository")
        return found

    def progress(self, done: int, total: int | None = None) -> None:
        """How far the work is, in whatever it counts."""
        self._done, self._total = done, total
        self._step()

    def log(self, line: str) -> None:
        """Put one line into the job's log; of too many the rest is left out."""
        self._logged += 1
        if self._logged < table.LINES:
            self._lines.append(" ".join(line.split()))
        elif self._logged == table.LINES:
            self._lines.append("more lines follow, which are left out")
        self._step()

    def check(self) -> None:
        """Stop here, if the job is to stop."""
        if why := _signs.stopped(self.job.fence):
            raise Stop(why)

    def write(self) -> None:
        """Write what has been told and not been written."""
        if not self._told:
            return
        self._told = False
        lines, self._lines, self._written = self._lines, [], time.monotonic()
        cancel = table.note(self.job, self._done, self._total, lines)
        if cancel is None:
            raise Stop("taken over")
        if cancel:
            raise Stop("cancelled")

    def _step(self) -> None:
        self._told = True
        self.check()
        if time.monotonic() - self._written >= WRITE_EVERY:
            self.write()


def run(pk: int) -> bool:
    """Run a job if it may be claimed; whether it could be. Never raises: how it ended is in its row."""
    try:
        job = table.claim(pk)
        if job is None:
            return False
        with alive(job.fence), audit.entered(_origin(job)):
            _work(job)
        return True
    except DatabaseError:
        log.exception("job %s could not be looked at or its end not be written; it is taken over later", pk)
        return False
    finally:
        connection.close()


def _origin(job: Job) -> audit.Origin:
    """Who acts in a job: whoever asked for it."""
    actor = job.user.get_username() if job.user else INSTALLATION.name
    return audit.Origin(actor=actor, token=job.token_id, request=f"job {job.pk}")


def _work(job: Job) -> None:
    running = Running(job)
    try:
        kind = find_kind(job.kind)
        running.check_allowed(kind)
        result = kind.work(running)
        running.write()
        table.finish(job, result)
    except Stop as stop:
        _stopped(job, stop)
    except Failed as failure:
        _write_rest(running)
        table.fail(job, failure, passes=failure.passes, result=failure.result)
    except Problem as problem:
        _write_rest(running)
        table.fail(job, problem, passes=isinstance(problem, PASSES))
    except OperationalError:
        log.exception("%s: the database failed", job)
        table.fail(job, Unavailable("the database did not answer", rule="job.database"), passes=True)
    except Exception:
        log.exception("%s failed", job)
        table.fail(job, Problem("an error here, not in what was asked; the log of the worker tells more"), passes=False)


def _stopped(job: Job, stop: Stop) -> None:
    if stop.why == "cancelled":
        table.end_cancelled(job)
    elif stop.why == "ending":
        table.give_back(job)


def _write_rest(running: Running) -> None:
    with contextlib.suppress(Stop):
        running.write()


class _Signs:
    """Gives signs of life for all that this process runs, by a thread that lives as long as there is something."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: dict[str, str] = {}  # why it is to stop; empty: it is not
        self._ending = False

    def hold(self, fence: str) -> None:
        with self._changed:
            if not self._held:
                threading.Thread(target=self._renew, name="jobs", daemon=True).start()
            self._held[fence] = ""

    def drop(self, fence: str) -> None:
        with self._changed:
            self._held.pop(fence, None)
            self._changed.notify_all()

    def stopped(self, fence: str) -> str:
        """Why the job is to stop, or nothing."""
        return "ending" if self._ending else self._held.get(fence, "")

    def end(self) -> None:
        self._ending = True

    def _renew(self) -> None:
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: not self._held, table.LEASE.total_seconds() / 3):
                    return
                fences = list(self._held)
            try:
                ours = table.renew(fences)
            except DatabaseError:
                log.exception("no sign of life could be given of %d jobs; others may take them over", len(fences))
            else:
                with self._changed:
                    for fence in fences:
                        if fence in self._held:
                            self._held[fence] = "taken over" if fence not in ours else "cancelled" if ours[fence] else ""
            connection.close()


_signs = _Signs()
hold, drop, stopped = _signs.hold, _signs.drop, _signs.stopped


@contextlib.contextmanager
def alive(fence: str) -> Iterator[None]:
    """Give signs of life of a job while the block runs."""
    hold(fence)
    try:
        yield
    finally:
        drop(fence)


def end() -> None:
    """This process ends: what runs in it stops at its next step and is given back, to be run by another."""
    _signs.end()
