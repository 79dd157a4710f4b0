"""Layers larger than the memory that one may take, and than the room that there is."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.parts.images import image
from tests.parts.oci import digest
from tests.parts.registryclient import RegistryClient
from tests.parts.server import ROOT, Server

MEBIBYTE = 1 << 20
PIECE = random.Random(7).randbytes(MEBIBYTE)
MOST_MEMORY = 64 * MEBIBYTE


def pieces(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield PIECE


def digest_of_pieces(count: int) -> str:
    hasher = hashlib.sha256()
    for piece in pieces(count):
        hasher.update(piece)
    return f"sha256:{hasher.hexdigest()}"


def bytes_pulled(app: RegistryClient, name: str) -> int:
    """How many of the blob's bytes come, seen to be the right ones, and read without being held."""
    with contextlib.closing(app.server.connect()) as connection:
        connection.request("GET", f"/v2/{app.name}/blobs/{name}", headers=app.authorization)
        answer = connection.getresponse()
        assert answer.status == 200
        hasher, count = hashlib.sha256(), 0
        while piece := answer.read(MEBIBYTE):
            hasher.update(piece)
            count += len(piece)
        assert f"sha256:{hasher.hexdigest()}" == name
        return count


@pytest.mark.parametrize("mebibytes", [256, pytest.param(1024, marks=pytest.mark.soak)])
def test_a_large_layer_is_pushed_and_pulled_in_little_memory(server, mebibytes):
    here = server()
    here.apply({"repositories": [{"key": "local", "format": "oci", "kind": "local"}]})
    app = RegistryClient(here, "local/app")
    small = image("small")
    app.push(small, "latest")
    assert app.has(small, "latest")
    memory = here.memory_peak()

    name = digest_of_pieces(mebibytes)
    streamed = app.session()
    assert app.add(streamed, pieces(mebibytes)).status == 202  # in chunks of the transfer, as docker does
    assert app.finish(streamed, name).status == 201
    app.delete(f"blobs/{name}")
    in_parts = app.session()
    for n in range(4):
        size = mebibytes // 4 * MEBIBYTE
        assert app.add(in_parts, pieces(mebibytes // 4), n * size, size).status == 202
    assert app.finish(in_parts, name).status == 201
    assert bytes_pulled(app, name) == mebibytes * MEBIBYTE
    assert here.memory_peak() - memory < MOST_MEMORY


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="a small filesystem needs root and unshare")
def test_when_the_disk_is_full_what_was_acknowledged_stays_and_uploads_go_on_when_there_is_room(server):
    script = 'mkdir -p "$ENTREPOT_DATA/blobs" && mount -t tmpfs -o size=32m none "$ENTREPOT_DATA/blobs" && exec "$@"'
    here: Server = server(prefix=["unshare", "-m", "sh", "-c", script, "sh"])
    here.apply({"repositories": [{"key": "local", "format": "oci", "kind": "local"}]})
    app = RegistryClient(here, "local/app")
    before = image("before", [8 * MEBIBYTE])
    app.push(before, "latest")
    content = PIECE * 24
    session = app.session()
    assert app.add(session, content[: 8 * MEBIBYTE], 0).status == 202

    full(app.add(session, content[8 * MEBIBYTE :], 8 * MEBIBYTE))
    full(app.put_blob(PIECE * 23))
    assert app.come(session) == 8 * MEBIBYTE
    assert app.has(before, "latest")
    assert in_its_mounts(here, "manage.py", "fsck", "--scrub", "--grace", "0") == "clean"

    give_room(here, "40m")
    assert app.add(session, content[8 * MEBIBYTE :], 8 * MEBIBYTE).status == 202
    full(app.finish(session, digest(content)))  # the parts are joined, for which there is no room yet
    assert app.status(f"blobs/{digest(content)}") == 404
    give_room(here, "128m")
    assert app.finish(session, digest(content)).status == 201
    assert app.has_blob(content) and app.has(before, "latest")
    assert in_its_mounts(here, "manage.py", "fsck", "--scrub", "--grace", "0") == "clean"


def full(answer) -> None:
    assert answer.status == 507 and b"no room" in answer.body, answer


def give_room(here: Server, size: str) -> None:
    command = ["nsenter", "-t", str(here.process), "-m", "mount", "-o", f"remount,size={size}", str(here.data / "blobs")]
    subprocess.run(command, check=True)


def in_its_mounts(here: Server, *command: str) -> str:
    """What a Python script says that sees the files as the server does."""
    whole = ["nsenter", "-t", str(here.process), "-m", "--wd=.", sys.executable, *command]
    done = subprocess.run(whole, cwd=ROOT, env=here.environment, capture_output=True, text=True, check=False)
    return done.stdout.strip() or done.stderr
