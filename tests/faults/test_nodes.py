"""Several nodes of one installation, and nodes that are killed: one fetch for all, all with the same bytes, nothing by half."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.gomodules import make_zip
from tests.parts.lanes import ADMIN
from tests.parts.server import Server
from tests.parts.upstream import Handler, Upstream

NODES = 3
SIZE = 64 << 20
SLICE = 64 << 10
PIECE = random.Random(10).randbytes(1 << 20)
PIECES = SIZE // len(PIECE)


@pytest.fixture(scope="module")
def up(upstream) -> Upstream:
    return upstream()


@pytest.fixture(scope="module")
def nodes(server, up) -> list[Server]:
    """On one database and one store."""
    first = server()
    rules = {"upstreams": [{"url": up.url}], "cache": {"lifetime": "1h"}}
    first.apply(
        {
            "repositories": [
                {"key": "cache", "format": "raw", "kind": "remote", **rules},
                {"key": "modules", "format": "go", "kind": "remote", **rules},
                {"key": "all", "format": "go", "kind": "virtual", "members": ["modules"]},
            ]
        }
    )
    return [first, *(server(beside=first) for _ in range(NODES - 1))]


def large(*, stated: bool, asked: threading.Event) -> Callable[[Handler], None]:
    """64 MiB, of which the second half comes slowly until all have `asked`, so that they meet it on its way."""

    def send(handler: Handler) -> None:
        hasher = hashlib.sha256()
        for _ in range(PIECES):
            hasher.update(PIECE)
        handler.send_response(200)
        handler.send_header("Content-Length", str(SIZE))
        if stated:
            handler.send_header("X-Checksum-Sha256", hasher.hexdigest())
        handler.end_headers()
        for _ in range(PIECES // 2):
            handler.wfile.write(PIECE)
        for _ in range(PIECES // 2):
            for start in range(0, len(PIECE), SLICE):
                asked.wait(0.1)
                handler.wfile.write(PIECE[start : start + SLICE])

    return send


def is_whole(node: Server, path: str, asked: Callable[[], object]) -> bool:
    """Whether the node answers with the large file, read without being held."""
    connection = node.connect()
    try:
        connection.request("GET", path, headers=node.authorization(ADMIN))
        asked()
        answer = connection.getresponse()
        if answer.status != 200 or answer.length != SIZE:
            return False
        piece = bytearray(len(PIECE))
        for _ in range(PIECES):
            view = memoryview(piece)
            while view:
                view = view[answer.readinto(view) or len(view) :]
            if piece != PIECE:
                return False
        return answer.read() == b""
    finally:
        connection.close()


@pytest.mark.parametrize("stated", [True, False])
def test_ninety_clients_of_three_nodes_get_the_same_64_mib_by_one_fetch(nodes, up, stated):
    path, asked = f"large{stated}", threading.Event()
    together = threading.Barrier(90, action=asked.set, timeout=50)
    up.routes[f"/{path}"] = large(stated=stated, asked=asked)
    with ThreadPoolExecutor(90) as pool:
        jobs = [pool.submit(is_whole, nodes[n % NODES], f"/raw/cache/{path}", together.wait) for n in range(90)]
        assert [job.result() for job in jobs] == [True] * 90
    assert up.hits(f"/{path}") == 1


@pytest.mark.parametrize("form", ["raw", "go"])
def test_fifty_identical_misses_of_three_nodes_are_one_fetch_and_one_change(nodes, up, form):
    if form == "raw":
        path, asked, body = "small", "/raw/cache/small", PIECE[:50_000]
    else:
        path = "fifty.example/m/@v/v1.0.0.zip"
        asked, body = f"/go/all/{path}", make_zip("fifty.example/m", "v1.0.0", {"data": PIECE[:50_000]})
    up.routes[f"/{path}"] = Upstream.slowly(body, seconds=0.5)
    changes, assets, objects = nodes[0].counts()
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda n: nodes[n % NODES].request("GET", asked, user=ADMIN), range(50)))
    assert {answer.status for answer in answers} == {200}
    assert {hashlib.sha256(answer.body).hexdigest() for answer in answers} == {hashlib.sha256(body).hexdigest()}
    assert up.hits(f"/{path}") == 1
    assert nodes[0].counts() == (changes + 1, assets + 1, objects + 1)


def test_a_version_of_which_a_killed_server_had_fetched_some_is_had_whole_by_the_next_request(server, upstream):
    """Killed while one's .info, another's .mod and a third one's .zip were on their way; what comes before them is there."""
    here, up = server(), upstream()
    here.apply({"repositories": [{"key": "modules", "format": "go", "kind": "remote", "upstreams": [{"url": up.url}]}]})
    files: dict[str, bytes] = {}
    for module in ("one.example/m", "two.example/m", "three.example/m"):
        files |= {
            f"{module}/@v/v1.0.0.info": b'{"Version":"v1.0.0","Time":"2024-05-06T07:08:09Z"}',
            f"{module}/@v/v1.0.0.mod": f"module {module}\n".encode(),
            f"{module}/@v/v1.0.0.zip": make_zip(module, "v1.0.0", {"data": PIECE[:300_000]}),
        }
    up.routes = {f"/{path}": body for path, body in files.items()}
    killed = threading.Event()

    def half(handler: Handler) -> None:
        body = files[handler.path.lstrip("/")]
        handler.close_connection = True
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2])
        killed.wait(60)

    get = lambda path: here.request("GET", f"/go/modules/{path}", user=ADMIN)  # noqa: E731
    under_way = ["one.example/m/@v/v1.0.0.info", "two.example/m/@v/v1.0.0.mod", "three.example/m/@v/v1.0.0.zip"]
    before = ["two.example/m/@v/v1.0.0.info", "three.example/m/@v/v1.0.0.info", "three.example/m/@v/v1.0.0.mod"]
    for path in before:
        assert get(path).status == 200
    up.routes |= {f"/{path}": half for path in under_way}
    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(Upstream.incomplete, lambda path=path: get(path)) for path in under_way]
        while any(up.hits(f"/{path}") == 0 for path in under_way):
            threading.Event().wait(0.02)
        here.kill()
        killed.set()
        assert [job.result() for job in jobs] == [True] * 3
    up.routes = {f"/{path}": body for path, body in files.items()}
    here.start()
    assert here.manage("fsck").stdout.strip() == "clean"
    with ThreadPoolExecutor(len(files)) as pool:
        answers = dict(zip(files, pool.map(get, files), strict=True))
    for path, body in files.items():
        assert (answers[path].status, answers[path].body) == (200, body), path
    here.manage("gc", "--grace", "0", "--stray", "0")
    assert here.manage("fsck", "--scrub", "--grace", "0").stdout.strip() == "clean"
