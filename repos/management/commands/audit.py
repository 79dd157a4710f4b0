"""`manage.py audit`: the audit as lines of JSON."""

from __future__ import annotations

import json
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection
from django.utils.dateparse import parse_datetime

from accounts import events
from basics.durations import duration
from problems import Problem
from repos import database
from repos.management.told import told

LOOK_EVERY = 1.0


class Command(BaseCommand):
    help = (
        "Print the audit as lines of JSON, the oldest first, such as for jq: who did what, when, from where. "
        "To keep a copy elsewhere, go on behind the `place` of the last line that is there (--after)."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--since", metavar="TIME", help="such as 2026-01-31T12:00:00Z, or 2h for two hours ago")
        parser.add_argument("--until", metavar="TIME", help="only earlier lines")
        parser.add_argument("--after", metavar="PLACE", help="only lines behind the one with this `place`")
        parser.add_argument("--actor", metavar="NAME", help="only what they did")
        parser.add_argument("--action", metavar="ACTION", help="such as artifact.publish")
        parser.add_argument("--repository", metavar="KEY")
        parser.add_argument("--subject", metavar="TEXT", help="only subjects that begin so")
        parser.add_argument("--refused", action="store_true", help="only what was refused")
        parser.add_argument("--follow", action="store_true", help="go on with lines as they come, until it is ended")

    def handle(self, *, after: str | None, follow: bool, **options: Any) -> None:
        asked = {name: options[name] for name in ("actor", "action", "repository", "subject", "refused") if options[name]}
        asked |= {name: _time(options[name]) for name in ("since", "until") if options[name]}
        lines = events.chosen(**asked)
        with told():
            place = events.read_place(after) if after else None
        while True:
            for event in events.settled(lines, place):
                self.stdout.write(json.dumps(events.document(event), ensure_ascii=False))
                place = events.place(event)
            if not follow:
                return
            self.stdout.flush()
            connection.close()
            time.sleep(LOOK_EVERY)


def _time(text: str) -> Any:
    try:
        return database.now() - duration(text)
    except (ValueError, Problem):
        pass
    try:
        found = parse_datetime(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise CommandError(f"{text!r} is no time; write 2026-01-31T12:00:00Z, or 2h for two hours ago")
    return found
