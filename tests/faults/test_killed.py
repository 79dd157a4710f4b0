"""Killed at any moment: what was acknowledged is there, nothing is there by half, and a retry succeeds."""

from __future__ import annotations

import hashlib
import http.client
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from tests.gomodules import make_zip
from tests.parts.server import ADMIN_PASSWORD, Server

ADMIN = ("admin", ADMIN_PASSWORD)
KILLS = 20
HALF_VERSIONS = """
SELECT count(*) FROM (
  SELECT a.package, a.version FROM repos_asset a JOIN repos_repository r ON r.id = a.repository_id
   WHERE r.key = 'modules' AND a.until IS NULL GROUP BY a.package, a.version HAVING count(*) <> 3) halves
"""


@dataclass
class Ledger:
    """What was asked for, and what was acknowledged, by path."""

    sent: dict[str, bytes] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)


@pytest.fixture(scope="module")
def upstream_of_everything(upstream):
    """Has every path under /files/, and gives its bytes in pieces, so that a kill meets fills under way."""
    one = upstream()

    def answer(handler) -> None:
        body = content_of(handler.path)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        for start in range(0, len(body), 50_000):
            handler.wfile.write(body[start : start + 50_000])
            time.sleep(0.01)

    one.default = answer
    return one


@pytest.fixture(scope="module")
def world(server, upstream_of_everything):
    here = server()
    here.apply(
        {
            "repositories": [
                {"key": "modules", "format": "go", "kind": "local"},
                {"key": "files", "format": "raw", "kind": "local"},
                {"key": "cache", "format": "raw", "kind": "remote", "upstreams": [{"url": upstream_of_everything.url}],
                 "cache": {"lifetime": "30d"}},
            ]
        }
    )  # fmt: skip
    return here


def content_of(path: str) -> bytes:
    """What an upstream has, or a client puts, at a path: always the same, and of many sizes."""
    seed = hashlib.sha256(path.encode()).digest()
    return seed * (200 + int.from_bytes(seed[:2]) // 4)


def publish_until_it_dies(world: Server, ledger: Ledger, worker: str) -> None:
    for n in range(10_000):
        if n % 2:
            path = f"/go/modules/corp.example/{worker}/@v/v1.{n}.0.zip"
            body = make_zip(f"corp.example/{worker}", f"v1.{n}.0", {"x.go": content_of(path)})
        else:
            path = f"/raw/files/{worker}/{n}"
            body = content_of(path)
        ledger.sent[path] = body
        if world.request("PUT", path, body, user=ADMIN).status not in (200, 201):
            raise AssertionError(f"{path} was refused")
        ledger.acknowledged.add(path)


def read_until_it_dies(world: Server, ledger: Ledger, worker: str) -> None:
    for n in range(10_000):
        path = f"/raw/cache/{worker}/{n}"
        ledger.read.add(path)
        answer = world.request("GET", path, user=ADMIN)
        if answer.status == 200:
            assert answer.body == content_of(path.removeprefix("/raw/cache"))


def wait_for_progress(ledger: Ledger, random_moments: random.Random) -> None:
    """Until some more is acknowledged, however slow the machine is, and a moment longer, so that a kill meets any point."""
    enough = len(ledger.acknowledged) + random_moments.randint(1, 8)
    deadline = time.monotonic() + 60
    while len(ledger.acknowledged) < enough and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(random_moments.uniform(0, 0.1))


def run(job, *arguments) -> None:
    """Until the server is no more, which is all that may end it."""
    try:
        job(*arguments)
    except (OSError, http.client.HTTPException):
        return


def test_nothing_acknowledged_is_lost_and_nothing_is_there_by_half(world):
    """Twenty kills (-9, all processes at once) at random moments of publishes and cache fills."""
    random_moments = random.Random(20)
    ledger = Ledger()
    for kill in range(KILLS):
        jobs = [(publish_until_it_dies, f"p{kill}-{n}") for n in range(3)] + [
            (read_until_it_dies, f"r{kill}-{n}") for n in range(3)
        ]
        with ThreadPoolExecutor(len(jobs)) as pool:
            running = [pool.submit(run, job, world, ledger, worker) for job, worker in jobs]
            wait_for_progress(ledger, random_moments)
            world.kill()
            for future in running:
                future.result()
        world.start()
        assert world.manage("fsck").stdout.strip() == "clean", f"after kill {kill}"
    assert len(ledger.acknowledged) > KILLS

    for path in sorted(ledger.acknowledged):
        assert world.request("GET", path, user=ADMIN).body == ledger.sent[path], f"{path} was acknowledged"
    assert world.query(HALF_VERSIONS) == (0,)

    interrupted = ledger.sent.keys() - ledger.acknowledged
    assert interrupted
    for path in sorted(interrupted):
        assert world.request("PUT", path, ledger.sent[path], user=ADMIN).status in (200, 201)
        assert world.request("GET", path, user=ADMIN).body == ledger.sent[path]
    for path in sorted(ledger.read):
        answer = world.request("GET", path, user=ADMIN)
        assert (answer.status, answer.body) == (200, content_of(path.removeprefix("/raw/cache")))

    world.manage("gc", "--grace", "0", "--stray", "0")
    assert world.manage("fsck", "--scrub", "--grace", "0").stdout.strip() == "clean"
