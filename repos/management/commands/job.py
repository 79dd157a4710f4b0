"""`manage.py job list|show|run|cancel|retry`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection, transaction

from accounts import epoch
from repos import catalogue, jobs
from repos.catalogue import Repo
from repos.jobs import runner, table
from repos.management.told import told
from repos.models import Job, JobLine

LISTED = 50
CHANGING = ("state", "attempt", "done", "total", "problem", "result")
LOOK_EVERY = 0.5
IMPATIENT = 10.0
"""Seconds after which it is told that nobody has taken the job."""

EXAMPLES = """
A job acts for the installation itself, which may everything. Kinds:
  prefetch   fetch all that a text names into a repository's cache: for Go a go.sum, or MODULE@VERSION a line (@latest, @main)
  gc         free what history no longer keeps, as `manage.py gc` does
  expire     close what remote repositories hold and nobody has asked for in cache.unused
  tokens     have the audit say which tokens expire soon, and forget those that ended long ago

Examples:
  manage.py job run prefetch --repository go --file go.sum --wait
  manage.py job run gc
"""


class Command(BaseCommand):
    help = "Start jobs, look at them, cancel and retry them. They are run by the server, or by `manage.py worker`."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="list|show|run|cancel|retry")

        listing = actions.add_parser("list", help="show the newest jobs", description=f"Show the newest {LISTED} jobs.")
        listing.add_argument("--state", choices=Job.State.values, help="only those in this state")
        listing.add_argument("--kind", help="only those of this kind")

        show = actions.add_parser("show", help="show one job", description="Show one job: how far it is, or what it came to.")
        show.add_argument("job", type=int, metavar="ID")
        show.add_argument("--log", action="store_true", help="and the lines of its log")

        run = actions.add_parser(
            "run",
            help="start a job",
            description="Start a job, to be run by the server or by a worker.",
            epilog=EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        run.add_argument("kind", metavar="KIND", help="see below")
        run.add_argument("--repository", metavar="KEY", help="the repository that it is for")
        run.add_argument("--file", metavar="FILE", help="the text that it works on; - is what comes in")
        run.add_argument(
            "--wait", action="store_true", help="show its progress and log; exit with 0 when it is done, else with 1"
        )
        run.add_argument("--here", action="store_true", help="run it in this command, where neither server nor worker runs")

        for name, what in (("cancel", "queued: at once; running: at its next step"), ("retry", "queue it again, once ended")):
            action = actions.add_parser(name, help=what, description=f"{name.capitalize()} a job ({what}).")
            action.add_argument("job", type=int, metavar="ID")

    def handle(self, *args: Any, **options: Any) -> None:
        with told():
            getattr(self, f"_{options['action']}")(options)

    def _list(self, options: dict[str, Any]) -> None:
        found = Job.objects.select_related("user", "repository").defer("arguments", "result").order_by("-pk")
        for name in ("state", "kind"):
            if options[name]:
                found = found.filter(**{name: options[name]})
        rows = [("ID", "KIND", "REPOSITORY", "FOR", "STATE", "PROGRESS", "FROM", "TO"), *map(_row, found[:LISTED])]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            self.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

    def _show(self, options: dict[str, Any]) -> None:
        job = _find(options["job"])
        for name, value in _facts(job):
            self.stdout.write(f"{name:<11} {value}")
        if options["log"]:
            for line in job.lines.order_by("pk"):
                self._say(line)

    def _run(self, options: dict[str, Any]) -> None:
        repository = _repository(options["repository"]) if options["repository"] else None
        arguments = {"text": _text(options["file"])} if options["file"] else {}
        with transaction.atomic():
            job = jobs.enqueue(options["kind"], arguments, repository=repository)
            table.tell(job, "ask")
        self.stdout.write(f"job {job.pk} is queued")
        if not options["wait"] and not options["here"]:
            self.stdout.write(f"the server or a worker runs it; `manage.py job show {job.pk} --log` tells how far it is")
            return
        for line in self._watched(job, here=options["here"]):
            self._say(line)
        self.stdout.write(_end(job))
        sys.exit(0 if job.state == Job.State.DONE else 1)

    def _watched(self, job: Job, *, here: bool) -> Iterator[JobLine]:
        """The lines of a job's log as they come, until it has ended; its progress is told meanwhile. `here`: run by us."""
        last, told, since = 0, "0", time.monotonic()
        while True:
            if here:
                runner.run(job.pk)  # which does nothing while it is not due
            job.refresh_from_db(fields=CHANGING)
            lines = list(job.lines.filter(pk__gt=last).order_by("pk"))
            last = lines[-1].pk if lines else last
            yield from lines
            if job.ended:
                return
            if job.state == Job.State.QUEUED and since and not here and time.monotonic() - since > IMPATIENT:
                why = f"it is tried again, for {job.problem}" if job.problem else "is there a server? `job run --here` needs none"
                self.stderr.write(f"job {job.pk} waits: {why}")
                since = 0.0
            if (progress := _progress(job)) != told:
                self.stdout.write(progress)
                told = progress
            self.stdout.flush()
            connection.close()
            time.sleep(LOOK_EVERY)

    def _cancel(self, options: dict[str, Any]) -> None:
        job = _find(options["job"])
        if not jobs.cancel(job.pk):
            raise CommandError(f"{job} has ended already: {job.state}")
        job.refresh_from_db()
        self.stdout.write(f"{job} " + ("is cancelled" if job.ended else "is told to stop"))

    def _retry(self, options: dict[str, Any]) -> None:
        job = _find(options["job"])
        jobs.retry(job.pk)
        self.stdout.write(f"{job} is queued again")

    def _say(self, line: JobLine) -> None:
        self.stdout.write(f"{line.at:%H:%M:%S} {line.text}")


def _find(pk: int) -> Job:
    job = Job.objects.select_related("user", "repository").filter(pk=pk).first()
    if job is None:
        raise CommandError(f"there is no job {pk}; `job list` shows those that are remembered")
    return job


def _repository(key: str) -> Repo:
    for repo in catalogue.repositories(epoch.current()).values():
        if repo.key == key:
            return repo
    raise CommandError(f"there is no repository {key}")


def _text(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{file} cannot be read as text: {error}") from error


def _row(job: Job) -> tuple[str, ...]:
    return (
        str(job.pk), job.kind, _place(job), _principal(job), job.state, _progress(job), _moment(job.started_at or job.not_before),
        _moment(job.ended_at),
    )  # fmt: skip


def _facts(job: Job) -> Iterator[tuple[str, Any]]:
    yield "job", f"{job.pk} {job.kind}"
    yield "repository", _place(job)
    yield "for", _principal(job)
    yield "state", job.state
    yield "progress", _progress(job)
    yield "begun", f"{job.attempt} of at most {job.attempts} times"
    yield "asked for", _moment(job.created_at)
    yield "from", _moment(job.started_at) if job.started_at else f"not before {_moment(job.not_before)}"
    yield "to", _moment(job.ended_at)
    if job.problem:
        yield "problem", job.problem
    if job.result:
        yield "result", json.dumps(job.result, sort_keys=True)


def _end(job: Job) -> str:
    result = ", ".join(f"{name} {value}" for name, value in sorted(job.result.items()))
    return ": ".join(filter(None, (f"{job.kind} {job.state}", job.problem, result)))


def _progress(job: Job) -> str:
    return str(job.done) if job.total is None else f"{job.done}/{job.total}"


def _place(job: Job) -> str:
    return job.repository.key if job.repository else "-"


def _principal(job: Job) -> str:
    return job.user.get_username() if job.user else runner.INSTALLATION.name


def _moment(at: Any) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}" if at else "-"
