"""Images are pushed while gc loops without grace: each push that was acknowledged is pulled whole."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.parts.images import Image, Images, image
from tests.parts.server import Server

LAYERS = 200
PUSHERS = 4
IMAGES = 10
"""Of each pusher, which pushes its layers five to an image."""
ATTEMPTS = 200


def push(app: Images, one: Image, tag: str) -> bool:
    """As clients do, which upload what is not there, and once more where they are told that it is no more. Whether they were."""
    again = False
    for _ in range(ATTEMPTS):
        for content in one.blobs:
            assert app.put_blob(content).status == 201
        answer = app.put_manifest(one.manifest, tag)
        if answer.status == 201:
            return again
        assert answer.status == 400 and b"MANIFEST_BLOB_UNKNOWN" in answer.body, answer
        again = True
    raise AssertionError(f"{tag} could not be pushed in {ATTEMPTS} attempts")


@pytest.mark.parametrize("unheld", ["600", "0"])
def test_every_image_that_was_acknowledged_while_gc_looped_is_pulled_whole(server, unheld):
    """Layers that nothing refers to yet keep a grace, longer than a push. Without one pushes are told to begin again."""
    here = server()
    here.apply({"history": {"keep": "0s"}, "repositories": [{"key": "local", "format": "oci", "kind": "local"}]})
    pushed = threading.Event()
    sweeps = [0]

    def push_all(worker: int) -> int:
        app = Images(here, f"local/team{worker}/app")
        return sum(push(app, made(worker, n), f"v{n}") for n in range(IMAGES))

    def sweep() -> None:
        while not pushed.is_set() or not sweeps[0]:
            here.manage("gc", "--grace", "0", "--unheld", unheld)
            sweeps[0] += 1

    with ThreadPoolExecutor(PUSHERS + 1) as pool:
        sweeping = pool.submit(sweep)
        try:
            pushes = [pool.submit(push_all, worker) for worker in range(PUSHERS)]
            told = [job.result() for job in pushes]
        finally:
            pushed.set()
        sweeping.result()
    assert unheld == "0" or not any(told), "a push that takes less than the grace is never told to begin again"
    here.manage("gc", "--grace", "0", "--unheld", unheld)
    for worker in range(PUSHERS):
        app = Images(here, f"local/team{worker}/app")
        assert [n for n in range(IMAGES) if not app.has(made(worker, n), f"v{n}")] == []
    assert here.manage("fsck", "--scrub").stdout.strip() == "clean"


def made(worker: int, n: int) -> Image:
    """Each with layers of its own, and one that is in all images, and so is met by several pushers and the sweep."""
    return image(f"{worker} {n}", layers=LAYERS // PUSHERS // IMAGES, size=20_000, shared=image("base", layers=1).blobs[1:])


def test_a_layer_that_is_deleted_swept_and_pushed_again_and_again_is_never_missing_below_a_manifest(server):
    """The same few layers, so that pushes, deletions and sweeps meet at the same rows."""
    here: Server = server()
    here.apply({"history": {"keep": "0s"}, "repositories": [{"key": "local", "format": "oci", "kind": "local"}]})
    done = threading.Event()

    def push_and_delete(worker: int) -> None:
        app = Images(here, f"local/app{worker % 2}")
        one = image("the same", worker=worker)
        for n in range(8):
            tag = f"w{worker}-{n}"
            push(app, one, tag)
            assert app.has(one, tag), "nobody deletes this manifest but this worker"
            app.delete(f"manifests/{one.digest}")

    def sweep() -> None:
        while not done.is_set():
            here.manage("gc", "--grace", "0", "--unheld", "0")

    with ThreadPoolExecutor(5) as pool:
        sweeping = pool.submit(sweep)
        try:
            for job in [pool.submit(push_and_delete, worker) for worker in range(4)]:
                job.result()
        finally:
            done.set()
        sweeping.result()
    here.manage("gc", "--grace", "0", "--unheld", "0")
    assert here.counts()[2] == 0
    assert here.manage("fsck", "--scrub").stdout.strip() == "clean"
