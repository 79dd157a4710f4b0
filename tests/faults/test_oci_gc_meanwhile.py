"""Images are pushed while gc sweeps without a pause: each push that was acknowledged is pulled whole."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.parts.images import Image, image
from tests.parts.registryclient import RegistryClient
from tests.parts.server import Server

LAYERS = 200
PUSHERS = 4
IMAGES = 10
"""Of each pusher, which pushes its layers five to an image."""
ATTEMPTS = 200
SWEEP = """
from datetime import timedelta
from pathlib import Path
from repos.upkeep import gc
sweeps, end = 0, Path({folder!r}, "end")
while not end.exists():
    gc.sweep(grace=timedelta(0), unheld=timedelta(seconds={unheld}))
    sweeps += 1
    Path({folder!r}, "sweeps").write_text(str(sweeps))
"""


@contextlib.contextmanager
def sweeping(here: Server, unheld: float) -> Iterator[None]:
    """gc in a loop, in a process of its own. What nothing refers to keeps a grace of so many seconds, what is free none."""
    swept, end = here.data / "sweeps", here.data / "end"
    process = here.beside("shell", "-c", SWEEP.format(folder=str(here.data), unheld=unheld))
    try:
        deadline = time.monotonic() + 60
        while not swept.exists():
            assert process.poll() is None and time.monotonic() < deadline, here.log()[-4000:]
            time.sleep(0.02)
        yield
        end.touch()
        assert process.wait(60) == 0, here.log()[-4000:]
        assert int(swept.read_text()) > 3, "there were no sweeps to speak of"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def here(server) -> Server:
    here = server()
    here.apply({"history": {"keep": "0s"}, "repositories": [{"key": "local", "format": "oci", "kind": "local"}]})
    return here


def push(app: RegistryClient, one: Image, tag: str) -> bool:
    """As clients do, which send layers anew where they are told that these are no more. Whether they were told."""
    again = False
    for _ in range(ATTEMPTS):
        for content in one.blobs:
            assert app.put_blob(content).status == 201
        answer = app.put(tag, one.manifest)
        if answer.status == 201:
            return again
        assert answer.status == 400 and b"MANIFEST_BLOB_UNKNOWN" in answer.body, answer
        again = True
    raise AssertionError(f"{tag} could not be pushed in {ATTEMPTS} attempts")


def made(worker: int, n: int) -> Image:
    """Each with layers of its own, and one that is in all images, and so is met by several pushers and the sweep."""
    return image(f"{worker} {n}", [20_000] * (LAYERS // PUSHERS // IMAGES), shared=image("base", [3000]).blobs[1:])


@pytest.mark.parametrize("unheld", [600, 0.5])
def test_every_image_that_was_acknowledged_while_gc_swept_is_pulled_whole(here, unheld):
    """With a grace that is longer than a push nobody is told to begin again; with one that is not, some may be."""

    def push_all(worker: int) -> int:
        app = RegistryClient(here, f"local/team{worker}/app")
        return sum(push(app, made(worker, n), f"v{n}") for n in range(IMAGES))

    with sweeping(here, unheld), ThreadPoolExecutor(PUSHERS) as pool:
        told = sum(pool.map(push_all, range(PUSHERS)))
    assert unheld < 600 or not told
    for worker in range(PUSHERS):
        app = RegistryClient(here, f"local/team{worker}/app")
        assert [n for n in range(IMAGES) if not app.has(made(worker, n), f"v{n}")] == []
    assert here.manage("fsck", "--scrub").stdout.strip() == "clean"


def test_layers_that_come_and_go_while_gc_sweeps_are_never_missing_below_a_manifest(here):
    """The same few in two images, so that pushes, deletions and sweeps meet at the same rows and bytes."""

    def push_and_delete(worker: int) -> None:
        app = RegistryClient(here, f"local/app{worker % 2}")
        one = image("the same", (3000, 3000), worker=worker)
        for n in range(15):
            push(app, one, f"w{worker}-{n}")
            assert app.has(one, f"w{worker}-{n}"), "nobody else deletes this manifest"
            app.delete(f"manifests/{one.digest}")

    with sweeping(here, 0.2), ThreadPoolExecutor(PUSHERS) as pool:
        for done in [pool.submit(push_and_delete, worker) for worker in range(PUSHERS)]:
            done.result()
    here.manage("gc", "--grace", "0", "--unheld", "0")
    assert here.counts()[2] == 0
    assert here.manage("fsck", "--scrub").stdout.strip() == "clean"


ABANDONED = """
INSERT INTO repos_upload (id, repository_id, package, actor, "offset", parts, sha256, ended, touched_at)
WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 5000)
SELECT n, repos_repository.id, 'app', 'somebody', 0, '[]', '', n % 2 = 0, '2020-01-01 00:00:00Z'
  FROM number, repos_repository WHERE repos_repository.key = 'local'
"""


def test_thousands_of_abandoned_uploads_are_removed_while_others_push(here):
    here.execute(ABANDONED)
    app = RegistryClient(here, "local/app")
    process = here.beside("gc")
    try:
        pushed = 0
        while process.poll() is None:
            assert app.put_blob(f"layer {pushed}".encode()).status == 201
            pushed += 1
        assert process.returncode == 0, here.log()[-4000:]
    finally:
        process.kill()
        process.wait()
    assert here.query("SELECT count(*) FROM repos_upload WHERE touched_at < '2021-01-01'") == (0,)
    assert here.query("SELECT count(*) FROM repos_asset") == (pushed,)
