from __future__ import annotations

import sys

from django.core.management.base import BaseCommand, CommandError

from problems import Problem
from repos.configuration import engine


class Command(BaseCommand):
    help = (
        "Show what `apply` would change, a line each (+ made, ~ changed, - removed), and change nothing. Values of secrets and "
        "passwords are not compared. Ends with 0 and no output when there is no difference, with 1 when there is one."
    )

    def add_arguments(self, parser) -> None:
        parser.add_argument("files", nargs="+", metavar="FILE", help="a file, or - for the standard input")
        parser.add_argument("--prune", action="store_true", help="also what `apply --prune` would remove")

    def handle(self, *, files: list[str], prune: bool, **options) -> None:
        try:
            lines = engine.diff(engine.load(files), prune=prune)
        except Problem as problem:
            raise CommandError(problem.reason, returncode=2) from problem
        for line in lines:
            self.stdout.write(line)
        if lines:
            sys.exit(1)
