"""One fetch for all who wait, in all processes; nobody waits for the end when the digest is known; nothing is held in memory."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.parts.server import ADMIN_PASSWORD

ADMIN = ("admin", ADMIN_PASSWORD)
SIZE = 64 << 20
PIECE = bytes(range(256)) * 1024


def pieces():
    return (PIECE for _ in range(SIZE // len(PIECE)))


@pytest.fixture(scope="module")
def digest() -> str:
    hasher = hashlib.sha256()
    for piece in pieces():
        hasher.update(piece)
    return hasher.hexdigest()


@pytest.fixture(scope="module")
def up(upstream):
    return upstream()


@pytest.fixture(scope="module")
def world(server, up):
    here = server(ENTREPOT_THREADS="64")  # either process alone can take all who wait at once in these tests
    here.apply(
        {
            "repositories": [
                {"key": "cache", "format": "raw", "kind": "remote", "upstreams": [{"url": up.url}], "cache": {"lifetime": "1h"}},
                {"key": "here", "format": "raw", "kind": "local"},
            ]
        }
    )
    return here


def stating_its_digest(digest: str, go_on: threading.Event):
    """The upstream's answer, which states its digest in the head and pauses early in the body until it is told to go on."""

    def send(handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(SIZE))
        handler.send_header("X-Checksum-Sha256", digest)
        handler.end_headers()
        for n, piece in enumerate(pieces()):
            handler.wfile.write(piece)
            if n == 40 and not go_on.wait(60):
                return  # nobody has seen the first bytes: the body stays incomplete, and the test fails

    return send


def digest_of_get(world, path: str) -> str:
    connection = world.connect()
    connection.request("GET", path, headers=world.authorization(ADMIN))
    answer = connection.getresponse()
    hasher = hashlib.sha256()
    while chunk := answer.read(1 << 20):
        hasher.update(chunk)
    connection.close()
    return hasher.hexdigest() if answer.status == 200 else f"status {answer.status}"


def test_ninety_who_ask_for_64_mib_cause_one_fetch_and_all_get_the_same(world, up, digest):
    def send(handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(SIZE))
        handler.end_headers()
        for piece in pieces():
            handler.wfile.write(piece)

    up.routes["/large"] = send
    with ThreadPoolExecutor(45) as pool:
        digests = set(pool.map(lambda _: digest_of_get(world, "/raw/cache/large"), range(90)))
    assert digests == {digest}
    assert up.hits("/large") == 1


def test_with_a_known_digest_the_first_bytes_come_before_the_last_have_been_sent(world, up, digest):
    seen_by_client = threading.Event()

    up.routes["/teed"] = stating_its_digest(digest, seen_by_client)
    connection = world.connect()
    connection.request("GET", "/raw/cache/teed", headers=world.authorization(ADMIN))
    answer = connection.getresponse()
    hasher = hashlib.sha256(answer.read(1 << 20))
    seen_by_client.set()
    while chunk := answer.read(1 << 20):
        hasher.update(chunk)
    assert hasher.hexdigest() == digest


def test_a_client_that_leaves_does_not_end_the_fetch_for_others(world, up, digest):
    go_on = threading.Event()

    up.routes["/left"] = stating_its_digest(digest, go_on)
    leaving = world.connect()
    leaving.request("GET", "/raw/cache/left", headers=world.authorization(ADMIN))
    leaving.getresponse().read(1 << 16)
    leaving.close()
    with ThreadPoolExecutor(1) as pool:
        staying = pool.submit(digest_of_get, world, "/raw/cache/left")
        go_on.set()
        assert staying.result() == digest
    assert up.hits("/left") == 1


def test_large_artefacts_go_through_without_being_held_in_memory(world, digest):
    before = world.memory_peak()
    assert world.request("PUT", "/raw/here/large", pieces(), user=ADMIN).status == 201
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: digest_of_get(world, "/raw/here/large"), range(8))) == {digest}
    assert world.memory_peak() - before < SIZE // 2


def test_those_who_come_while_the_fetch_is_being_recorded_get_the_whole_too(world, up, digest):
    """Readers join at every moment of a fetch that states its digest, its last ones above all."""
    go_on = threading.Event()
    go_on.set()
    up.routes["/joined"] = stating_its_digest(digest, go_on)
    with ThreadPoolExecutor(40) as pool:
        digests = set(
            pool.map(lambda n: (threading.Event().wait(n * 0.03), digest_of_get(world, "/raw/cache/joined"))[1], range(40))
        )
    assert digests == {digest}


def test_cached_files_are_served_while_more_fetches_wait_than_there_are_connections(world, up):
    """A slow upstream holds no connection of the database, of which a process has sixteen."""
    up.routes["/quick"] = b"quick"
    assert world.request("GET", "/raw/cache/quick", user=ADMIN).status == 200
    go_on = threading.Event()

    def wait(handler) -> None:
        go_on.wait(60)
        handler.answer(200, b"slow")

    for n in range(44):
        up.routes[f"/slow-{n}"] = wait
    with ThreadPoolExecutor(44) as pool:
        slow = [pool.submit(world.request, "GET", f"/raw/cache/slow-{n}", user=ADMIN) for n in range(44)]
        while sum(path.startswith("/slow-") for path, _ in up.seen) < 44:
            threading.Event().wait(0.05)
        assert world.request("GET", "/raw/cache/quick", user=ADMIN).status == 200
        early = [job.result() for job in slow if job.done()]
        assert early == [], "the cached file did not wait for them"
        go_on.set()
        assert {job.result().status for job in slow} == {200}


def test_wrong_bytes_with_a_stated_digest_leave_the_cached_ones_served(server, up):
    here = server()
    here.apply(
        {
            "repositories": [
                {"key": "c", "format": "raw", "kind": "remote", "upstreams": [{"url": up.url}], "cache": {"lifetime": "0s"}},
            ]
        }
    )
    up.routes["/doc"] = up.stating(b"first", hashlib.sha256(b"first").hexdigest())
    assert here.request("GET", "/raw/c/doc", user=ADMIN).body == b"first"
    up.routes["/doc"] = up.stating(b"wrong", "0" * 64)
    stale = here.request("GET", "/raw/c/doc", user=ADMIN)
    assert (stale.status, stale.body) == (200, b"first") and "Warning" in stale.headers
    up.routes["/empty"] = up.stating(b"", "0" * 64)
    assert here.request("GET", "/raw/c/empty", user=ADMIN).status == 502


def test_as_many_fetches_of_one_upstream_run_as_there_are_threads_though_nobody_waits_for_them(server, upstream, digest):
    """A HEAD is answered as soon as the upstream's head is here, and the fetch goes on."""
    up, go_on = upstream(), threading.Event()
    up.default = stating_its_digest(digest, go_on)
    here = server(ENTREPOT_WORKERS="1", ENTREPOT_THREADS="4")
    here.apply(
        {
            "repositories": [
                {"key": key, "format": "raw", "kind": "remote", "upstreams": [{"url": url}]}
                for key, url in (("crowded", up.url), ("other", f"{up.url}/other"))
            ]
        }
    )
    try:
        for n in range(4):
            assert here.request("HEAD", f"/raw/crowded/{n}", user=ADMIN).status == 200
        refused = here.request("HEAD", "/raw/crowded/one-more", user=ADMIN)
        assert refused.status == 503 and "upstream.waiting" in refused.headers["X-Entrepot-Reason"]
        assert here.request("HEAD", "/raw/crowded/0", user=ADMIN).status == 200, "a fetch that runs may be joined"
        assert here.request("HEAD", "/raw/other/file", user=ADMIN).status == 200
        assert len(up.seen) == 5
    finally:
        go_on.set()
