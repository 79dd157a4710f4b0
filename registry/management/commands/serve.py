from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import connection

from registry import first_start
from registry.server import Server
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
        with _alone():
            call_command("migrate", verbosity=0, interactive=False)
            said = [first_start.administrator(), *first_start.repositories()]
            if environment.config:
                said += engine.apply(engine.load([environment.config]), actor="entrepot")
        for line in filter(None, said):
            self.stdout.write(line)
        scheme = "https" if environment.tls else "http"
        self.stdout.write(f"Entrepot answers at {environment.base_url or f'{scheme}://{environment.bind}'} (stop with Ctrl-C)")
        self.stdout.flush()
        database.before_fork()
        Server(environment).run()


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
