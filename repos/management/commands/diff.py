from __future__ import annotations

import sys

from django.core.management.base import BaseCommand

from repos.configuration import engine
from repos.management.told import told


class Command(BaseCommand):
    help = (
        "Show what `apply` would change, a line each (+ made, ~ changed, - removed), and change nothing. Values of secrets and "
        "passwords are not compared. Ends with 0 and no output when there is no difference, with 1 when there is one."
    )

    def add_arguments(self, parser) -> None:
        parser.add_argument("files", nargs="+", metavar="FILE", help="a file, or - for the standard input")
        parser.add_argument("--prune", action="store_true", help="also what `apply --prune` would remove")

    def handle(self, *, files: list[str], prune: bool, **options) -> None:
        with told(returncode=2):
            lines = engine.diff(engine.load(files), prune=prune)
        for line in lines:
            self.stdout.write(line)
        if lines:
            sys.exit(1)
