from __future__ import annotations

from django.core.management.base import BaseCommand

from repos.configuration import engine
from repos.management.told import told


class Command(BaseCommand):
    help = (
        "Make the server what the files say: repositories, history, roles, groups, users and grants, as YAML or JSON, in the "
        "form that `export` writes. All of it or, when something is refused, nothing. What the files do not name is left "
        "alone. Prints a line for each change (+ made, ~ changed, - removed); the second time there is none."
    )

    def add_arguments(self, parser) -> None:
        parser.add_argument("files", nargs="+", metavar="FILE", help="a file, or - for the standard input")
        parser.add_argument("--prune", action="store_true", help="remove what is missing from the sections that are present")

    def handle(self, *, files: list[str], prune: bool, **options) -> None:
        with told():
            for line in engine.apply(engine.load(files), prune=prune):
                self.stdout.write(line)
