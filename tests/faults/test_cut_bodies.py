"""A body that the upstream cut, anywhere and however it was framed, is neither cached nor completed; whole again, it is both."""

from __future__ import annotations

import base64
import gzip
import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.gomodules import make_zip
from tests.parts.lanes import Lane, failed, open_lanes
from tests.parts.upstream import Upstream, head, in_chunks

SIZE = 300_000
"""More than is held back until a known digest has been verified, so that some of it is sent before the end."""
FRAMINGS = ["length", "chunked", "close", "gzip", "gzip chunked"]
STATED = ["nothing", "X-Checksum-Sha256", "Repr-Digest"]
FORMS = ["raw", "go"]
CUTS = 20


@pytest.fixture(scope="module")
def world(server):
    here = server(ENTREPOT_WORKERS="1")  # so that the whole body is seen where the cut one before it was
    yield here
    assert here.manage("fsck", "--scrub", "--grace", "0").stdout.strip() == "clean"


@pytest.fixture(scope="module")
def lanes(world, upstream) -> Iterator[Lane]:
    return open_lanes(world, upstream, len(FRAMINGS) * len(STATED) * len(FORMS) + 2)


@pytest.fixture
def lane(lanes) -> Lane:
    return next(lanes)


@dataclass(frozen=True)
class Artefact:
    path: str
    body: bytes

    @property
    def digests(self) -> dict[str, str]:
        sha256 = hashlib.sha256(self.body)
        return {
            "X-Checksum-Sha256": sha256.hexdigest(),
            "Repr-Digest": f"sha-256=:{base64.b64encode(sha256.digest()).decode()}:",
        }


def artefact(form: str, name: str) -> Artefact:
    """Bytes that no compression shortens, the same for a name each time."""
    content = random.Random(name).randbytes(SIZE)
    if form == "raw":
        return Artefact(f"files/{name}", content)
    module = f"{name}.example/m"
    return Artefact(f"{module}/@v/v1.0.0.zip", make_zip(module, "v1.0.0", {"data": content}))


def framed(body: bytes, framing: str, *stated: str) -> tuple[bytes, bytes]:
    """Head and body as they go over the wire."""
    encoded = gzip.compress(body, 1) if "gzip" in framing else body
    lines = [*stated]
    if "gzip" in framing:
        lines.append("Content-Encoding: gzip")
    if "chunked" in framing:
        return head(*lines, "Transfer-Encoding: chunked"), in_chunks(encoded)
    if framing == "close":
        return head(*lines, "Connection: close"), encoded
    return head(*lines, f"Content-Length: {len(encoded)}"), encoded


def cuts(framing: str, on_wire: bytes) -> list[int]:
    """How many bytes are sent: none, one, ..., all but one, and where the framing is most easily mistaken."""
    end = len(on_wire)
    special = {0, 1, 2, end // 2, end - 9, end - 2, end - 1}
    if "chunked" in framing:
        end = len(on_wire) - len("0\r\n\r\n")  # what comes after it says only that there is no more
        first_line = on_wire.index(b"\r\n")
        special = {
            *(0, 1, 2, end // 2),
            first_line,  # no end of the first chunk's size
            first_line + 1,
            first_line + 2,  # the size, and nothing of the chunk
            end - 3,
            end - 2,  # all bytes, but not the end of their chunk
            end - 1,
            end,  # all chunks, but not the one that says that there are no more
        }
    spread = (end * n // (CUTS + 1) for n in range(1, CUTS + 1))
    while len(special) < CUTS:
        special.add(next(spread))
    return sorted(special)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stated", STATED)
@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_cut_body_is_neither_cached_nor_completed_and_the_whole_one_is(world, lane, form, stated, framing):
    """The client asks by the remote and by a virtual repository in turn."""
    changes, assets, objects = world.counts()
    for number in range(CUTS):
        wanted = artefact(form, f"{lane.key}-{number}")
        path, there = wanted.path, number % 2 == 0
        digest = [f"{name}: {value}" for name, value in wanted.digests.items() if name == stated]
        start, body = framed(wanted.body, framing, *digest)
        cut = cuts(framing, body)[number]
        lane.upstream.routes[f"/{path}"] = Upstream.wire(start + body[:cut])
        assert failed(lane.get(form, path, virtual=there)), f"after {cut} of {len(body)} bytes"
        asked = lane.upstream.hits(f"/{path}")
        can_be_told = framing != "close" or digest
        lane.upstream.routes[f"/{path}"] = Upstream.wire(start + body) if can_be_told else wanted.body
        whole = lane.get(form, path, virtual=not there)
        assert whole is not None and (whole.status, whole.body == wanted.body) == (200, True), f"whole again after {cut} bytes"
        assert lane.upstream.hits(f"/{path}") > asked > 0
    assert world.counts() == (changes + CUTS, assets + CUTS, objects + CUTS), "what was fetched whole, and nothing else"


@pytest.mark.parametrize("form", FORMS)
def test_a_body_without_any_end_to_tell_is_not_taken_for_whole(world, lane, form):
    """Neither a length nor chunks nor a digest: a cut would look the same (RFC 9112 section 6.3)."""
    wanted = artefact(form, "endless")
    start, body = framed(wanted.body, "close")
    lane.upstream.routes[f"/{wanted.path}"] = Upstream.wire(start + body)
    before = world.counts()
    assert failed(lane.get(form, wanted.path))
    assert world.counts() == before
