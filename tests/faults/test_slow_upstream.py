"""An upstream that drips, is silent or takes no connection: who asks it has an answer in bounded time, all others as ever."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from repos.blobs import CHUNK
from tests.parts.lanes import ADMIN, LONGEST, Lane, open_lanes
from tests.parts.server import Answer
from tests.parts.upstream import Handler, Upstream, full, head

BODY = b"x" * 2000
LARGE = random.Random(39).randbytes(3 * CHUNK)
CROWD = 100


# Drips

STATED = head(f"Content-Length: {len(LARGE)}", f"X-Checksum-Sha256: {hashlib.sha256(LARGE).hexdigest()}")
DRIPS = {
    "from the first byte": Upstream.dripping(head(f"Content-Length: {len(BODY)}") + BODY, 0),
    "in the status line": Upstream.dripping(head(f"Content-Length: {len(BODY)}") + BODY, 5),
    "in a header": Upstream.dripping(head(f"Content-Length: {len(BODY)}") + BODY, 30),
    "a header a second": Upstream.wire(lambda: (b"HTTP/1.1 200 OK\r\n", *(b"A: b\r\n" for _ in range(90)), b"\r\n"), pause=1),
    "a continue a second": Upstream.wire(lambda: (head(status="100 Continue") for _ in range(90)), pause=1),
    "before the body": Upstream.dripping(head(f"Content-Length: {len(BODY)}") + BODY, len(head(f"Content-Length: {len(BODY)}"))),
    "in the body": Upstream.dripping(head(f"Content-Length: {len(BODY)}") + BODY, 1000),
    "in a body that others read along": Upstream.dripping(STATED + LARGE, len(STATED) + 2 * CHUNK),
    "in what others wait for at last": Upstream.dripping(STATED + LARGE, len(STATED + LARGE) - 200),
    "in a chunk's size": Upstream.dripping(head("Transfer-Encoding: chunked") + b"0" * 90 + b"1\r\nx\r\n0\r\n\r\n", 50),
    "a chunk a second": Upstream.wire(lambda: (head("Transfer-Encoding: chunked"), *(b"1\r\nx\r\n" for _ in range(90))), pause=1),
    "in the trailers": Upstream.wire(
        lambda: (head("Transfer-Encoding: chunked") + b"1\r\nx\r\n0\r\n", *(b"A: b\r\n" for _ in range(90))), pause=1
    ),
    "steadily, in trailers without end": Upstream.wire(
        lambda: (head("Transfer-Encoding: chunked") + b"1\r\nx\r\n0\r\n", *(b"A: %s\r\n" % (b"b" * 1500) for _ in range(900))),
        pause=0.1,
    ),
    "in a redirect": Upstream.dripping(head("Location: /elsewhere", "Content-Length: 90", status="302 Found") + BODY[:90], 20),
}


@pytest.fixture(scope="module")
def world(server):
    here = server()
    yield here
    assert here.manage("fsck", "--scrub", "--grace", "0").stdout.strip() == "clean"


@pytest.fixture(scope="module")
def lanes(world, upstream) -> Iterator[Lane]:
    return open_lanes(world, upstream, 2 * len(DRIPS) + 5)


def test_a_byte_a_second_is_a_timeout_wherever_it_drips_and_nothing_is_kept(world, lanes):
    """All at once, each an upstream of its own, of which nobody else is to suffer."""
    before = world.counts()
    with ThreadPoolExecutor(2 * len(DRIPS)) as pool:
        asked: dict[str, list[Future[Answer | None]]] = {}
        for name, drip in DRIPS.items():
            lane = next(lanes)
            lane.upstream.routes["/wanted"] = drip
            asked[name] = [pool.submit(lane.get, "raw", "wanted", virtual=virtual) for virtual in (False, True)]
        for name, jobs in asked.items():
            for job in jobs:
                answer = job.result(LONGEST)
                assert answer is None or answer.status == 504, name
                assert answer is not None or "others" in name, f"{name}: nothing had been sent yet"
    assert world.counts() == before


def test_a_missing_file_whose_page_drips_is_missing_all_the_same(lanes):
    lane = next(lanes)
    lane.upstream.routes["/wanted"] = Upstream.dripping(head("Content-Length: 2000", status="404 Not Found") + BODY, 100)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(lane.get, "raw", "wanted").result(LONGEST)
    assert answer is not None and answer.status == 404


def test_a_missing_file_whose_page_comes_steadily_is_missing_before_the_page_is_here(lanes):
    lane = next(lanes)
    start, pieces = head("Content-Length: 64000", status="404 Not Found"), [b"x" * 500] * 128
    lane.upstream.routes["/wanted"] = Upstream.wire(lambda: (start, *pieces), pause=1)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(lane.get, "raw", "wanted").result(LONGEST)
    assert answer is not None and answer.status == 404


def test_a_slow_but_steady_body_is_no_drip(lanes):
    """Longer in all than the upstream may be silent, and much faster than a drip."""
    lane = next(lanes)
    body = random.Random(1).randbytes(80_000)
    start = head(f"Content-Length: {len(body)}")
    pieces = [body[n : n + 8000] for n in range(0, len(body), 8000)]
    lane.upstream.routes["/wanted"] = Upstream.wire(lambda: (start, *pieces), pause=0.4)
    answer = lane.get("raw", "wanted")
    assert answer is not None and (answer.status, answer.body) == (200, body)


# Silence


class Hole:
    """An upstream that has a few files and, for all other paths, takes the question and is silent until `go_on`."""

    def __init__(self, upstream: Upstream, files: dict[str, bytes]):
        self.upstream = upstream
        self.go_on = threading.Event()
        upstream.routes |= {f"/{path}": body for path, body in files.items()}
        upstream.default = self._wait

    def _wait(self, handler: Handler) -> None:
        self.go_on.wait(90)
        handler.answer(200, handler.path.encode())

    @property
    def asked(self) -> int:
        return sum(path not in self.upstream.routes for path, _ in self.upstream.seen)


FILES = {f"cached/{n}": f"cached {n}".encode() * 100 for n in range(5)} | {"document": b"the newest document"}
MODULE = {"cached.example/m/@v/v1.0.0.mod": b"module cached.example/m\n"}


@pytest.fixture(scope="module")
def small(server, upstream):
    """A small server: one process of sixteen threads, far fewer than ask."""
    here = server(ENTREPOT_WORKERS="1", ENTREPOT_THREADS="16")
    here.up, here.other = upstream(), upstream()

    def remote(key: str, form: str, url: str, timeout: str, lifetime: str = "1h") -> dict[str, Any]:
        upstreams = [{"url": url, "timeout": timeout}]
        return {"key": key, "format": form, "kind": "remote", "upstreams": upstreams, "cache": {"lifetime": lifetime}}

    with full() as taken:
        here.apply(
            {
                "repositories": [
                    remote("patient", "raw", here.up.url, "90s"),
                    remote("brief", "raw", here.up.url, "2s"),
                    remote("expired", "raw", here.up.url, "90s", "0s"),
                    remote("modules", "go", here.up.url, "90s"),
                    remote("other", "raw", here.other.url, "90s"),
                    remote("taken", "raw", taken, "2s"),
                    {"key": "all", "format": "raw", "kind": "virtual", "members": ["here", "patient"]},
                    {"key": "here", "format": "raw", "kind": "local"},
                ]
            }
        )
        yield here


@pytest.fixture
def get(small) -> Callable[[str], Answer]:
    return lambda path: small.request("GET", path, user=ADMIN)


@pytest.fixture
def hole(small, get) -> Iterator[Hole]:
    """The black hole, after its files were cached."""
    one = Hole(small.up, FILES | MODULE)
    small.other.routes |= {f"/uncached/{n}": b"from another" for n in range(50)}
    small.request("PUT", "/raw/here/local", b"local", user=ADMIN)
    for key in ("patient", "expired"):
        for path, body in FILES.items():
            Upstream.asked_again(lambda key=key, path=path: get(f"/raw/{key}/{path}"))
            assert get(f"/raw/{key}/{path}").body == body
    for path, body in MODULE.items():
        assert get(f"/go/modules/{path}").body == body
    small.up.seen.clear()
    yield one
    one.go_on.set()
    small.up.default = 404


def test_what_is_cached_local_or_elsewhere_is_served_while_a_hundred_wait_for_a_black_hole(small, get, hole):
    """Half of them for one path, half for one each, and some by way of a virtual repository."""
    with ThreadPoolExecutor(CROWD) as pool:
        paths = [f"/raw/{'all' if n % 4 == 1 else 'patient'}/hole/{n if n % 2 else 0}" for n in range(CROWD)]
        crowd = {pool.submit(get, path): path for path in paths}
        while hole.asked < 4:
            threading.Event().wait(0.02)
        wanted: dict[str, bytes] = {"/raw/here/local": b"local", "/raw/all/local": b"local"}
        wanted |= {f"/raw/patient/{path}": body for path, body in FILES.items()}
        wanted |= {f"/raw/all/{path}": body for path, body in FILES.items()}
        wanted |= {f"/go/modules/{path}": body for path, body in MODULE.items()}
        wanted |= {f"/raw/other/uncached/{n}": b"from another" for n in range(20)}
        for path, body in wanted.items():
            answer = get(path)
            assert (answer.status, answer.body) == (200, body), path
        assert any(not job.done() for job in crowd), "the hole is still asked"
        early = [job.result() for job in crowd if job.done()]
        assert {answer.status for answer in early} <= {503, 504}
        assert all("Retry-After" in answer.headers for answer in early if answer.status == 503)
        hole.go_on.set()
        for job, path in crowd.items():
            answer = job.result(LONGEST)
            assert answer.status in (503, 504) or (answer.status, answer.body) == (200, f"/{path.split('/', 3)[3]}".encode())


@pytest.mark.parametrize("start", ["head", "body", "read along"])
def test_what_is_cached_is_served_while_a_hundred_wait_for_files_that_drip(small, get, hole, start):
    """A byte a second is no silence, and comes to nothing all the same."""
    length = head(f"Content-Length: {len(BODY)}")
    sent, at = {"head": (length + BODY, 5), "body": (length + BODY, 100), "read along": (STATED + LARGE, len(STATED) + CHUNK)}[
        start
    ]
    dripped = threading.Event()

    def drip(handler: Handler) -> None:
        handler.close_connection = True
        handler.wfile.write(sent[:at])
        for n in range(at, at + 90):
            if dripped.wait(1):
                return
            handler.wfile.write(sent[n : n + 1])

    small.up.default = drip
    with ThreadPoolExecutor(CROWD) as pool:
        crowd = [
            pool.submit(Upstream.incomplete, lambda n=n: get(f"/raw/patient/{start.replace(' ', '-')}/{n}")) for n in range(CROWD)
        ]
        try:
            while hole.asked < 4:
                threading.Event().wait(0.02)
            for path, body in {f"/raw/patient/{path}": body for path, body in FILES.items()}.items():
                assert get(path).body == body
            assert get("/raw/here/local").body == b"local"
            assert get(f"/raw/other/uncached/{start.replace(' ', '-')}").status == 404
            assert any(not job.done() for job in crowd), "they still drip"
        finally:
            dripped.set()
        assert [job.result(LONGEST) for job in crowd] == [True] * CROWD


def test_an_expired_document_is_served_stale_to_all_while_the_upstream_is_silent(small, get, hole):
    small.up.routes = {path: body for path, body in small.up.routes.items() if path != "/document"}
    with ThreadPoolExecutor(CROWD) as pool:
        for job in [pool.submit(get, "/raw/expired/document") for _ in range(CROWD)]:
            answer = job.result(LONGEST)
            assert (answer.status, answer.body) == (200, FILES["document"])
            assert answer.headers["Warning"].startswith("110")
    assert not hole.go_on.is_set()
    assert hole.asked <= 5, "one question for all who came together"


@pytest.mark.parametrize("repository", ["brief", "taken"])
def test_a_hundred_who_ask_a_black_hole_all_have_an_answer(small, get, hole, repository):
    """Whether it takes connections and is silent, or takes none; different paths, and the same one."""
    with ThreadPoolExecutor(CROWD) as pool:
        jobs = [pool.submit(get, f"/raw/{repository}/gone/{n if n % 2 else 0}") for n in range(CROWD)]
        for path, body in FILES.items():
            assert get(f"/raw/patient/{path}").body == body
        answers = [job.result(LONGEST) for job in jobs]
    assert {answer.status for answer in answers} <= {503, 504}
    assert not hole.go_on.is_set()


def test_an_upstream_that_speaks_again_is_asked_again(small, get, hole):
    with ThreadPoolExecutor(20) as pool:
        assert {job.result(LONGEST).status for job in [pool.submit(get, f"/raw/brief/{n}") for n in range(20)]} <= {503, 504}
    hole.go_on.set()
    Upstream.asked_again(lambda: get("/raw/brief/spoken"))
    assert get("/raw/brief/spoken").body == b"/spoken"
