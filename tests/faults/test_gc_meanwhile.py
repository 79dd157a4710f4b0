"""gc at grace 0 in a loop, while the same bytes are published, deleted and published again: what is acknowledged is served."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.gomodules import make_zip
from tests.parts.server import ADMIN_PASSWORD

ADMIN = ("admin", ADMIN_PASSWORD)


@pytest.mark.parametrize("seconds", [20, pytest.param(600, marks=pytest.mark.soak)])
def test_gc_takes_nothing_that_is_just_being_published(server, seconds):
    here = server()
    here.apply(
        {
            "history": {"keep": "0s"},
            "repositories": [
                {"key": "files", "format": "raw", "kind": "local"},
                {"key": "modules", "format": "go", "kind": "local"},
            ],
        }
    )
    contents = [f"content {n}\n".encode() * 1000 for n in range(4)]  # few, so that writers and the sweep meet at the same bytes
    end = time.monotonic() + seconds
    wrong: list[str] = []
    published = [0]

    def publish_and_delete(worker: int) -> None:
        choose = random.Random(worker)
        n = 0
        while time.monotonic() < end and not wrong:
            n += 1
            if worker % 2:
                path, body = f"/raw/files/{worker}/{n % 3}", choose.choice(contents)
            else:
                path = f"/go/modules/corp.example/m{worker}/@v/v1.{n}.0.zip"
                body = make_zip(f"corp.example/m{worker}", f"v1.{n}.0", {"x.txt": choose.choice(contents)})
            put = here.request("PUT", path, body, user=ADMIN)
            got = here.request("GET", path, user=ADMIN)
            if put.status not in (200, 201) or (got.status, got.body) != (200, body):
                wrong.append(f"{path}: PUT {put.status} {put.reason}, then GET {got.status} {got.reason}")
            published[0] += 1
            if here.request("DELETE", path, user=ADMIN).status != 204:
                wrong.append(f"{path}: not deleted")

    def sweep() -> None:
        while time.monotonic() < end:
            here.manage("gc", "--grace", "0")

    with ThreadPoolExecutor(7) as pool:
        jobs = [pool.submit(publish_and_delete, worker) for worker in range(6)] + [pool.submit(sweep)]
        for job in jobs:
            job.result()
    assert wrong == []
    assert published[0] > 20
    assert here.manage("fsck", "--scrub").stdout.strip() == "clean"
