"""Images by way of three nodes of one installation, one of which may be killed: uploads go on, tags are in one order."""

from __future__ import annotations

import http.client
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.parts.api import PASSWORD
from tests.parts.oci import digest, index
from tests.parts.registryclient import RegistryClient
from tests.parts.server import Server

NODES = 3
PIECE = 100_000
TAG_HISTORY = """
SELECT bytes.sha256, asset.since, asset.until FROM repos_asset asset
  JOIN repos_blob bytes ON bytes.id = asset.blob_id JOIN repos_repository repository ON repository.id = asset.repository_id
 WHERE repository.key = 'local' AND asset.path = '{path}' ORDER BY asset.since
"""


@pytest.fixture(scope="module")
def nodes(server) -> list[Server]:
    """On one database and one store."""
    first = server()
    first.apply(
        {
            "repositories": [{"key": "local", "format": "oci", "kind": "local"}],
            "roles": [{"name": "create-only", "permissions": ["artifact:read", "artifact:write"]}],
            "users": [{"name": "robot", "password": PASSWORD}],
            "grants": [{"role": "create-only", "users": ["robot"], "repositories": ["local"]}],
        }
    )
    return [first, *(server(beside=first) for _ in range(NODES - 1))]


def test_an_upload_goes_on_at_any_node(nodes):
    app = RegistryClient(nodes[0], "local/round-robin")
    content = random.Random(14).randbytes(10 * PIECE)
    session = app.session()
    for n in range(9):
        start = n * PIECE
        assert app.on(nodes[n % NODES]).add(session, content[start : start + PIECE], start).status == 202
    assert app.on(nodes[1]).finish(session, digest(content), content[9 * PIECE :]).status == 201
    assert all(app.on(node).has_blob(content) for node in nodes)


def test_an_upload_goes_on_at_the_other_nodes_when_one_is_killed_while_it_receives(nodes):
    app = RegistryClient(nodes[0], "local/killed-node")
    content = random.Random(15).randbytes(10 * PIECE)
    session = app.session()
    for n in range(5):
        start = n * PIECE
        assert app.on(nodes[n % NODES]).add(session, content[start : start + PIECE], start).status == 202

    def killing() -> Iterator[bytes]:
        yield content[5 * PIECE : 5 * PIECE + PIECE // 2]
        nodes[2].kill()
        yield content[5 * PIECE + PIECE // 2 : 6 * PIECE]

    try:
        with pytest.raises((OSError, http.client.HTTPException)):
            app.on(nodes[2]).add(session, killing(), 5 * PIECE, PIECE)
        assert app.on(nodes[1]).come(session) == 5 * PIECE
        for n in range(5, 9):
            start = n * PIECE
            assert app.on(nodes[n % 2]).add(session, content[start : start + PIECE], start).status == 202
        assert app.on(nodes[1]).finish(session, digest(content), content[9 * PIECE :]).status == 201
        assert all(app.on(node).has_blob(content) for node in nodes[:2])
    finally:
        nodes[2].start()
    assert app.on(nodes[2]).has_blob(content)


def test_of_two_parts_for_the_same_place_one_is_taken_and_the_other_refused(nodes):
    """Sent to several nodes at once, as by a client that gave up on one too early."""
    app = RegistryClient(nodes[0], "local/same-place")
    content = random.Random(16).randbytes(2 * PIECE)
    for _ in range(5):
        session = app.session()
        with ThreadPoolExecutor(9) as pool:
            sent = [pool.submit(app.on(nodes[n % NODES]).add, session, content[:PIECE], 0) for n in range(9)]
            statuses = sorted(job.result().status for job in sent)
        assert statuses == [202, *[416] * 8]
        assert app.come(session) == PIECE
        assert app.finish(session, digest(content), content[PIECE:]).status == 201
        assert app.has_blob(content)
        app.delete(f"blobs/{digest(content)}")


def test_of_fifty_writers_of_one_tag_at_three_nodes_none_vanishes_and_the_last_has_it(nodes):
    app = RegistryClient(nodes[0], "local/fifty")
    manifests = [index(text=f"writer {n}") for n in range(50)]
    with ThreadPoolExecutor(50) as pool:
        sent = [pool.submit(app.on(nodes[n % NODES]).put, "latest", manifests[n]) for n in range(50)]
        answers = [job.result() for job in sent]
    assert [answer.status for answer in answers] == [201] * 50
    history = nodes[0].rows(TAG_HISTORY.format(path="fifty/manifests/latest"))
    assert sorted(f"sha256:{sha256}" for sha256, _, _ in history) == sorted(map(digest, manifests)), "each once"
    assert [since for _, since, _ in history[1:]] == [until for _, _, until in history[:-1]], "each until the next"
    last, _, until = history[-1]
    assert until is None
    for node in nodes:
        assert app.on(node).ask("GET", "manifests/latest").headers["Docker-Content-Digest"] == f"sha256:{last}"
        assert all(app.on(node).ask("GET", f"manifests/{digest(one)}").body == one for one in manifests)


def test_of_writers_that_may_only_create_exactly_one_gets_a_tag(nodes):
    app = RegistryClient(nodes[0], "local/create-only").by("robot")
    manifests = [index(text=f"creator {n}") for n in range(24)]
    for tag in ("latest", "v1", "v2"):
        with ThreadPoolExecutor(24) as pool:
            sent = [pool.submit(app.on(nodes[n % NODES]).put, tag, manifests[n]) for n in range(24)]
            answers = [job.result() for job in sent]
        (winner,) = [n for n, answer in enumerate(answers) if answer.status == 201]
        assert {answer.status for n, answer in enumerate(answers) if n != winner} == {403}
        assert all(b"DENIED" in answer.body for n, answer in enumerate(answers) if n != winner)
        assert {app.on(node).ask("GET", f"manifests/{tag}").body for node in nodes} == {manifests[winner]}
        assert len(nodes[0].rows(TAG_HISTORY.format(path=f"create-only/manifests/{tag}"))) == 1
        assert app.put(tag, manifests[winner]).status == 201, "the same again changes nothing"
        (loser, *_) = [n for n in range(24) if n != winner]
        assert app.put(tag, manifests[loser]).status == 403, "and none later"
