from __future__ import annotations

import signal
import threading

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError


class Command(BaseCommand):
    help = (
        "Look at the job table and hand over what is due to the workers, by way of the Redis of ENTREPOT_REDIS_URL; plan gc, "
        "expiry and the revalidation of popular documents. One is enough, several do no harm. SIGTERM ends it. Without Redis "
        "there is nothing for it to do: each worker looks for due jobs itself."
    )

    def handle(self, **options) -> None:
        if not settings.ENTREPOT.redis_url:
            raise CommandError(
                "a scheduler hands jobs over by way of Redis, and ENTREPOT_REDIS_URL is not set; workers need none"
            )
        from registry import celery

        ended = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: ended.set())
        signal.signal(signal.SIGINT, lambda *_: ended.set())
        celery.schedule(ended)
