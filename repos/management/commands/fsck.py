from __future__ import annotations

import sys
from datetime import timedelta

from django.core.management.base import BaseCommand

from repos.management.durations import age
from repos.upkeep import fsck


class Command(BaseCommand):
    help = (
        "Check that rows and bytes agree: every open asset, and every one closed within history.keep, has its bytes; every "
        "object in the store has its row; change numbers have no gap. Reads only, and may run while the server does. "
        "Exits with 1 when something is wrong, one line each."
    )

    def add_arguments(self, parser) -> None:
        parser.add_argument("--scrub", action="store_true", help="also read all bytes and compare their digests")
        parser.add_argument(
            "--grace",
            type=age,
            default="1h",
            metavar="DURATION",
            help="age below which bytes without a row are in order, since their commit may still come, such as 90s or 2h; a plain"
            " number is one of seconds (default %(default)s)",
        )

    def handle(self, *, scrub: bool, grace: timedelta, **options) -> None:
        findings = 0
        for finding in fsck.check(scrub=scrub, grace=grace):
            self.stdout.write(str(finding))
            findings += 1
        self.stdout.write(f"{findings} found" if findings else "clean")
        sys.exit(1 if findings else 0)
