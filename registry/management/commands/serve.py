from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, connection

from problems import Problem
from registry import first_start
from registry.environment import Environment
from registry.server import Server, check_bind
from repos import database
from repos.configuration import engine

START = 0x656E7472
"""The number of the advisory lock under which a start prepares the database."""


class Command(BaseCommand):
    help = (
        "Start the server: bring the database up to date, make the administrator and the first repositories where there are "
        "none, apply the file of ENTREPOT_CONFIG, and answer at ENTREPOT_BIND (127.0.0.1:8080)."
    )
    requires_migrations_checks = False

    def handle(self, **options) -> None:
        environment = settings.ENTREPOT
        try:
            check_bind(environment)
        except OSError as error:
            raise CommandError(f"ENTREPOT_BIND={environment.bind} cannot be used: {error.strerror or error}") from error
        try:
            self._prepare(environment)
        except OperationalError as error:
            raise CommandError(
                f"the database of ENTREPOT_DATABASE_URL does not answer: {' '.join(str(error).split())}"
            ) from error
        scheme = "https" if environment.tls else "http"
        address = environment.base_url or f"{scheme}://{environment.bind}"
        database.before_fork()
        Server(environment, lambda: self._say(f"Entrepot answers at {address} (stop with Ctrl-C)")).run()

    def _prepare(self, environment: Environment) -> None:
        """Lines are told as they come: a password that was made must be seen even when the next step fails."""
        with _alone():
            call_command("migrate", verbosity=0, interactive=False)
            self._say(*filter(None, [first_start.administrator()]))
            with _told("the first repositories cannot be made"):
                self._say(*first_start.repositories())
            if environment.config:
                with _told(f"ENTREPOT_CONFIG={environment.config}"):
                    self._say(*engine.apply(engine.load([environment.config]), actor="entrepot"))

    def _say(self, *lines: str) -> None:
        for line in lines:
            self.stdout.write(line)
        self.stdout.flush()


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except Problem as problem:
        raise CommandError(f"{what}: {problem.reason}") from problem


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Starts of several nodes at once take turns at making what each finds missing."""
    with (Path(settings.ENTREPOT.data) / "start.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if connection.vendor != "postgresql":
            yield
            return
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [START])
        try:
            yield
        finally:
            connection.close()  # which gives the lock back, also after an error
