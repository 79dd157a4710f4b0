"""A client that falls silent in the middle of a request is given up, and its thread serves others; what it sent is not lost."""

from __future__ import annotations

import hashlib
import random
import socket

import pytest

from repos.blobs import CHUNK
from tests.parts.server import ADMIN_PASSWORD, Server

ADMIN = ("admin", ADMIN_PASSWORD)
THREADS = 4
CONTENT = random.Random(1).randbytes(2 * CHUNK)


@pytest.fixture(scope="module")
def here(server) -> Server:
    one = server(ENTREPOT_WORKERS="1", ENTREPOT_THREADS=str(THREADS), ENTREPOT_CLIENT_TIMEOUT="1")
    one.apply({"repositories": [{"key": f"my-{key}", "format": key, "kind": "local"} for key in ("oci", "raw")]})
    return one


def begin(here: Server, method: str, path: str, body: bytes) -> socket.socket:
    """A request whose body is said to be as long as CONTENT, and of which so much comes."""
    connection = socket.create_connection(("127.0.0.1", here.port), timeout=60)
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(CONTENT)}"]
    lines += [f"{name}: {value}" for name, value in here.authorization(ADMIN).items()]
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
    return connection


def answer_of(connection: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    with connection:
        return b"".join(iter(lambda: connection.recv(65_536), b""))


def test_an_upload_that_falls_silent_is_refused_and_gone_on_with_from_where_it_was(here):
    where = here.request("POST", "/v2/my-oci/app/blobs/uploads/", b"", user=ADMIN).headers["Location"]
    answer = answer_of(begin(here, "PATCH", where, CONTENT[: CHUNK + 1000]))
    assert answer.startswith(b"HTTP/1.1 400 ") and b"broke off" in answer
    assert here.request("GET", where, user=ADMIN).headers["Range"] == f"0-{CHUNK - 1}"
    digest = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
    assert here.request("PUT", f"{where}?digest={digest}", CONTENT[CHUNK:], user=ADMIN).status == 201
    assert here.request("GET", f"/v2/my-oci/app/blobs/{digest}", user=ADMIN).body == CONTENT


def test_as_many_silent_clients_as_there_are_threads_do_not_stop_the_server(here):
    silent = [begin(here, "PUT", f"/raw/my-raw/{n}", CONTENT[:5]) for n in range(3 * THREADS)]
    assert here.request("PUT", "/raw/my-raw/other", CONTENT, user=ADMIN).status == 201
    assert {answer_of(connection)[:13] for connection in silent} == {b"HTTP/1.1 400 "}
    assert here.request("GET", "/raw/my-raw/0", user=ADMIN).status == 404


def test_a_head_that_is_never_finished_holds_no_thread_for_long(here):
    connections = [socket.create_connection(("127.0.0.1", here.port), timeout=60) for _ in range(2 * THREADS)]
    for connection in connections:
        connection.sendall(b"GET /raw/my-raw/other HTTP/1.1\r\nHost: ")
    assert here.request("GET", "/healthz").status == 200
    assert [answer_of(connection) for connection in connections] == [b""] * len(connections)
