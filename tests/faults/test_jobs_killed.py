"""Killed with jobs queued and running, by a broker that forgets: none is lost, and each has its effect once."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.parts.redis import Redis
from tests.parts.server import ADMIN_PASSWORD, Server

ADMIN = ("admin", ADMIN_PASSWORD)
JOBS = 50
AT_ONCE = 4
ENQUEUE = """
from accounts import epoch
from repos import catalogue, jobs
repo = catalogue.repositories(epoch.current())["raw", "cache"]
for path in {paths!r}:
    jobs.enqueue("prefetch", {{"text": path}}, repository=repo)
"""
TWICE = "SELECT path, count(*) FROM repos_asset GROUP BY path HAVING count(*) > 1"
OURS = "FROM repos_job WHERE kind = 'prefetch'"


class Gate:
    """An upstream's answer to everything: the path itself, once `open`."""

    def __init__(self) -> None:
        self.open = threading.Event()

    def __call__(self, handler) -> None:
        if self.open.wait(120):
            handler.answer(200, handler.path.encode())


@pytest.fixture
def gated(upstream):
    up = upstream()
    up.default = Gate()
    yield up
    up.default.open.set()


def configured(here: Server, url: str, **options) -> Server:
    here.apply(
        {"repositories": [{"key": "cache", "format": "raw", "kind": "remote", "upstreams": [{"url": url}],
                           "cache": {"lifetime": "30d"}, **options}]}
    )  # fmt: skip
    return here


def enqueue(world: Server, prefix: str) -> list[str]:
    paths = [f"{prefix}-{n}" for n in range(JOBS)]
    world.manage("shell", "-c", ENQUEUE.format(paths=paths))
    return paths


def states(world: Server) -> dict[str, int]:
    return dict(world.rows(f"SELECT state, count(*) {OURS} GROUP BY state"))


def wait_until(what: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


@pytest.mark.parametrize("database", ["configured", "sqlite"])
def test_a_server_killed_with_fifty_jobs_queued_runs_each_once_in_effect_after_its_restart(server, gated, database):
    world = configured(server(sqlite=database == "sqlite", ENTREPOT_JOBS=str(AT_ONCE)), gated.url)
    paths = enqueue(world, "job")
    wait_until(lambda: len(gated.seen) == AT_ONCE)
    running = [path for path, _ in gated.seen]
    world.kill()
    assert states(world) == {"running": AT_ONCE, "queued": JOBS - AT_ONCE}, "the table knows what the process did not end"
    gated.default.open.set()
    world.start()
    wait_until(lambda: states(world) == {"done": JOBS})

    assert world.rows(TWICE) == []
    assert {path for (path,) in world.rows("SELECT path FROM repos_asset")} == set(paths)
    asked = Counter(path for path, _ in gated.seen)
    assert {path for path, count in asked.items() if count > 1} == set(running), "only what was under way is asked for again"
    assert max(asked.values()) == 2
    assert world.rows(f"SELECT attempt, count(*) {OURS} GROUP BY attempt ORDER BY attempt") == [(1, JOBS - AT_ONCE), (2, AT_ONCE)]
    assert world.manage("fsck").stdout.strip() == "clean"


def test_a_fetch_whose_process_was_killed_is_completed_though_nobody_asks_again(server, gated):
    world = configured(server(), gated.url)
    client = world.connect()
    client.request("GET", "/raw/cache/long", headers=world.authorization(ADMIN))
    wait_until(lambda: world.rows("SELECT state FROM repos_job WHERE kind = 'fetch'") == [("running",)])
    world.kill()
    client.close()
    gated.default.open.set()
    world.start()
    wait_until(lambda: world.rows("SELECT path FROM repos_asset") == [("long",)])
    wait_until(lambda: world.rows("SELECT state, attempt FROM repos_job WHERE kind = 'fetch'") == [("done", 2)])


def test_a_fetch_that_is_under_way_when_the_server_is_stopped_in_order_is_handed_over(server, gated):
    """Nobody waits for it: HEAD is answered as soon as the upstream has stated digest and length."""
    body = bytes(1 << 20)

    def state_and_wait(handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("X-Checksum-Sha256", hashlib.sha256(body).hexdigest())
        handler.end_headers()
        if gated.default.open.wait(120):
            handler.wfile.write(body)

    gated.routes["/begun"] = state_and_wait
    world = configured(server(), gated.url)
    assert world.request("HEAD", "/raw/cache/begun", user=ADMIN).status == 200
    world.stop()
    assert world.rows("SELECT state FROM repos_job WHERE kind = 'fetch'") == [("queued",)]
    gated.default.open.set()
    world.start()
    wait_until(lambda: world.rows("SELECT path FROM repos_asset") == [("begun",)])


def test_a_cancelled_fetch_ends_as_such_and_is_completed_for_who_waits(server, gated):
    world = configured(server(), gated.url)
    state = "SELECT state FROM repos_job WHERE kind = 'fetch'"
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(world.request, "GET", "/raw/cache/cancelled", user=ADMIN)
        wait_until(lambda: world.rows(state) == [("running",)])
        world.manage("job", "cancel", str(world.query("SELECT id FROM repos_job WHERE kind = 'fetch'")[0]))
        wait_until(lambda: world.rows(state) == [("cancelled",)], 30)
        assert not waits.done()
        gated.default.open.set()
        assert waits.result().body == b"/cancelled"
    world.stop()
    assert world.rows(state) == [("cancelled",)]


def test_the_process_that_runs_jobs_is_started_anew_when_it_is_killed(server, gated):
    world = configured(server(), gated.url)
    gated.default.open.set()
    before = world.jobs_process()
    os.kill(before, signal.SIGKILL)
    enqueue(world, "anew")
    wait_until(lambda: states(world) == {"done": JOBS})
    assert world.jobs_process() != before


@pytest.fixture
def beside():
    """Starts workers and schedulers, and ends them."""
    started = []

    def beside(world: Server, *arguments: str):
        started.append(world.beside(*arguments))
        return started[-1]

    yield beside
    for process in started:
        process.kill()
        process.wait(30)


def test_a_worker_that_is_told_to_end_waits_for_no_upstream_and_gives_its_jobs_back(server, gated, beside):
    world = configured(server(ENTREPOT_JOBS="0"), gated.url, upstreams=[{"url": gated.url, "timeout": "10m"}])
    world.environment["ENTREPOT_JOBS"] = str(AT_ONCE)
    enqueue(world, "held")
    worker = beside(world, "worker")
    wait_until(lambda: len(gated.seen) == AT_ONCE)
    worker.terminate()
    assert worker.wait(30) == 0
    assert world.rows(f"SELECT DISTINCT state, attempt {OURS}") == [("queued", 0)]


# With Redis


@pytest.fixture
def redis():
    one = Redis()
    yield one
    one.kill()


def test_a_broker_that_was_killed_with_jobs_queued_loses_none(server, gated, redis, beside):
    world = configured(server(ENTREPOT_REDIS_URL=redis.url, ENTREPOT_JOBS=str(AT_ONCE)), gated.url)
    for arguments in ("worker", "scheduler", "scheduler"):
        beside(world, arguments)
    enqueue(world, "job")
    wait_until(lambda: len(gated.seen) == AT_ONCE)
    redis.kill()
    enqueue(world, "meanwhile")
    redis.start()
    gated.default.open.set()
    wait_until(lambda: states(world) == {"done": 2 * JOBS})
    assert max(Counter(path for path, _ in gated.seen).values()) == 1
    assert world.rows(f"SELECT DISTINCT attempt {OURS}") == [(1,)]


def test_what_a_killed_worker_ran_another_takes_over(server, gated, redis, beside):
    world = configured(server(ENTREPOT_REDIS_URL=redis.url, ENTREPOT_JOBS=str(AT_ONCE)), gated.url)
    beside(world, "scheduler")
    first = beside(world, "worker")
    enqueue(world, "job")
    wait_until(lambda: len(gated.seen) == AT_ONCE)
    first.kill()
    gated.default.open.set()
    beside(world, "worker")
    wait_until(lambda: states(world) == {"done": JOBS})
    assert world.rows(TWICE) == []
