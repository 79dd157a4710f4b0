from __future__ import annotations

from datetime import timedelta

from django.core.management.base import BaseCommand

from repos.management.durations import age
from repos.upkeep import gc


class Command(BaseCommand):
    help = (
        "Free the bytes that history no longer keeps (history.keep in the configuration, 30d by default), uploads put aside "
        "that expired, and what crashed uploads left behind. May run while the server does. What is freed stays in the "
        "history by its digest."
    )

    def add_arguments(self, parser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="only tell what would be freed")
        parser.add_argument(
            "--grace",
            type=age,
            default="1h",
            metavar="DURATION",
            help="leave alone what is younger, such as 90s, 2h or 1d; a plain number is one of seconds (default %(default)s)",
        )
        parser.add_argument(
            "--unheld",
            type=age,
            default="1d",
            metavar="DURATION",
            help="how long layers and the like are kept to which nothing refers, since a push may be under way (default"
            " %(default)s)",
        )
        parser.add_argument(
            "--stray",
            type=age,
            default="1h",
            metavar="DURATION",
            help="age at which bytes that no row names are what a crash left behind; lower it only while no server runs, since"
            " an upload's bytes are there before its row (default %(default)s)",
        )

    def handle(self, *, dry_run: bool, grace: timedelta, unheld: timedelta, stray: timedelta, **options) -> None:
        freed = gc.sweep(grace=grace, unheld=unheld, stray=stray, dry_run=dry_run)
        frees, closes = ("would free", "would close") if dry_run else ("freed", "closed")
        self.stdout.write(f"{frees} {freed}")
        self.stdout.write(f"{closes} {freed.unheld} layers and the like to which nothing refers")
