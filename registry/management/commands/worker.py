from __future__ import annotations

import signal

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError


class Command(BaseCommand):
    help = (
        "Run jobs: as many at once as ENTREPOT_JOBS says (4). With ENTREPOT_REDIS_URL it takes what `manage.py scheduler` hands "
        "over; any number of workers may run, on any node. Without Redis it looks for due jobs itself; `serve` has such a worker "
        "of its own, and one started by this command is for a server with ENTREPOT_JOBS=0. SIGTERM ends it: what runs stops at "
        "its next step and is queued again. One that is killed loses nothing: its jobs are taken over after 15 seconds."
    )

    def handle(self, **options) -> None:
        if not settings.ENTREPOT.jobs:
            raise CommandError("ENTREPOT_JOBS=0 is for a server without a worker; give this worker 1 or more")
        from registry import celery

        signal.signal(signal.SIGINT, celery.end)
        celery.work(settings.ENTREPOT.jobs)
