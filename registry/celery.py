"""Celery, which hands jobs to the threads that run them. It may lose or double them: the job table is the truth.

With ENTREPOT_REDIS_URL any number of workers on any node take from Redis what a scheduler puts there. Without, one process is
worker and scheduler, and its broker is a queue in its memory. Nothing but a job's number is ever sent.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery
from celery.worker import WorkController, state
from django.conf import settings
from kombu.exceptions import OperationalError
from kombu.transport import memory
from redis.exceptions import RedisError

from accounts import audit
from problems import Unavailable
from registry.scheduler import Scheduler
from repos.jobs import runner

QUEUE = "entrepot"
LOOK = 0.2
"""Seconds."""


class Memory(memory.Transport):
    """The queue in memory, looked at so that an end is noticed soon."""

    polling_interval = 0.05

    def drain_events(self, connection: Any, timeout: float | None = None, **options: Any) -> Any:
        return super().drain_events(connection, timeout=min(timeout or LOOK, LOOK), **options)


REDIS = {
    "broker_url": settings.ENTREPOT.redis_url,
    "broker_transport_options": {"socket_connect_timeout": 5, "socket_timeout": 30, "socket_keepalive": True},
}
IN_MEMORY = {"broker_url": "memory://localhost", "broker_transport": Memory}

app = Celery("entrepot", fixups=[], set_as_current=False)
app.conf.update(
    **(REDIS if settings.ENTREPOT.redis_url else IN_MEMORY),
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    task_default_queue=QUEUE,
    task_acks_late=True,
    task_ignore_result=True,
    task_serializer="json",
    accept_content=["json"],
    worker_prefetch_multiplier=1,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_enable_remote_control=False,
    worker_hijack_root_logger=False,
)


@app.task(name="run")
def run(job: int) -> None:
    """Run a job, if it is there to be run."""
    runner.run(job)


def send(job: int) -> None:
    """Hand over a job to whoever is free. Raises Unavailable where the broker does not answer."""
    with _broker():
        run.apply_async((job,), retry=False)


def waiting() -> int:
    """How many jobs have been handed over and not been taken. Raises Unavailable where the broker does not answer."""
    with _broker(), app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1, timeout=5)
        return connection.default_channel.queue_declare(QUEUE).message_count


@contextmanager
def _broker() -> Iterator[None]:
    try:
        yield
    except (OperationalError, RedisError, OSError) as error:
        raise Unavailable(f"the broker of ENTREPOT_REDIS_URL does not answer ({type(error).__name__})") from error


def work(at_once: int, *, gone: Callable[[], bool] = lambda: False) -> None:
    """Run jobs, until SIGTERM or until `gone` says so: then what runs stops at its next step and is given back.

    Without Redis it also schedules them.
    """
    signal.signal(signal.SIGTERM, end)
    ended = threading.Event()
    threading.Thread(target=_watch, args=(gone, ended), name="watch", daemon=True).start()
    scheduler = None if settings.ENTREPOT.redis_url else threading.Thread(target=schedule, args=(ended,), name="scheduler")
    if scheduler:
        scheduler.start()
    worker = WorkController(
        app=app,
        pool="threads",
        concurrency=at_once,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        loglevel="WARNING",
    )
    try:
        worker.start()
    finally:
        ended.set()
        if scheduler:
            scheduler.join()
        audit.flush()  # the embedded server's process ends without a word to anybody else


def schedule(ended: threading.Event) -> None:
    """Schedule jobs until `ended`."""
    Scheduler(send, waiting).run(ended)


def end(*_: object) -> None:
    """What runs here stops at its next step and is given back; then `work` returns."""
    runner.end()
    state.should_stop = os.EX_OK


def _watch(gone: Callable[[], bool], ended: threading.Event) -> None:
    """Whoever started this process may be killed without a word."""
    while not ended.wait(1.0):
        if gone():
            end()
            if not ended.wait(10.0):
                os._exit(1)  # what it ran is taken over when its lease has lapsed
