from __future__ import annotations

from datetime import timedelta

from django.core.management.base import BaseCommand

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
            "--grace", type=int, default=3600, metavar="SECONDS", help="leave alone what is younger (default %(default)s)"
        )
        parser.add_argument(
            "--unheld",
            type=int,
            default=86400,
            metavar="SECONDS",
            help="how long layers and the like are kept to which nothing refers, since a push may be under way (default"
            " %(default)s)",
        )
        parser.add_argument(
            "--stray",
            type=int,
            default=3600,
            metavar="SECONDS",
            help="age at which bytes that no row names are what a crash left behind; lower it only while no server runs, since"
            " an upload's bytes are there before its row (default %(default)s)",
        )

    def handle(self, *, dry_run: bool, grace: int, unheld: int, stray: int, **options) -> None:
        freed = gc.sweep(
            grace=timedelta(seconds=grace),
            unheld=timedelta(seconds=unheld),
            stray=timedelta(seconds=stray),
            dry_run=dry_run,
        )
        word = "would free" if dry_run else "freed"
        self.stdout.write(f"{word} {freed}")
