"""An upstream that lies about lengths, digests, encodings, statuses and heads: nothing wrong is cached or completed as a 200."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import random
import select
import threading
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from repos.blobs import CHUNK
from tests.gomodules import make_zip
from tests.parts.lanes import ADMIN, Lane, failed, open_lanes
from tests.parts.upstream import Handler, Upstream, head, in_chunks

MEBIBYTE = 1 << 20
FORMS = ["raw", "go"]
BODY = b"this is what the upstream has\n" * 1000


@pytest.fixture(scope="module")
def world(server):
    here = server(ENTREPOT_WORKERS="1")  # so that a good answer is seen where the failures before it were
    yield here
    assert here.manage("fsck", "--scrub", "--grace", "0").stdout.strip() == "clean"


@pytest.fixture(scope="module")
def lanes(world, upstream) -> Iterator[Lane]:
    return open_lanes(world, upstream, 220)


@pytest.fixture
def lane(lanes) -> Lane:
    return next(lanes)


@pytest.fixture
def nothing_kept(world):
    """The promise that neither a row nor an object is left of what was refused."""
    before = world.counts()
    yield
    assert world.counts() == before


def path_of(form: str) -> str:
    return "files/wanted" if form == "raw" else "wanted.example/m/@v/v1.0.0.zip"


def body_of(form: str) -> bytes:
    return BODY if form == "raw" else make_zip("wanted.example/m", "v1.0.0", {"data": random.Random(1).randbytes(len(BODY))})


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def repr_digest(body: bytes) -> str:
    return f"Repr-Digest: sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def other_is_served(lane: Lane) -> bool:
    """Whether the next path gets its own bytes, whatever the one before has left on the connection."""
    lane.upstream.routes["/files/other"] = b"another file"
    answer = lane.get("raw", "files/other")
    return answer is not None and (answer.status, answer.body) == (200, b"another file")


def whole_is_served(lane: Lane, form: str) -> bool:
    """Whether the artefact is had as soon as the upstream tells the truth."""
    lane.upstream.routes[f"/{path_of(form)}"] = body_of(form)
    answer = lane.get(form, path_of(form), virtual=True)
    return answer is not None and (answer.status, answer.body) == (200, body_of(form))


# Lengths

LENGTHS = {
    "too long": lambda body: head(f"Content-Length: {len(body) + 10}") + body,
    "absurd": lambda body: head(f"Content-Length: {10**17}") + body,
    "more digits than any number": lambda body: head(f"Content-Length: {'9' * 5000}") + body,
    "negative": lambda body: head("Content-Length: -5") + body,
    "negative length of the whole": lambda body: head(f"Content-Length: -{len(body)}") + body,
    "no number": lambda body: head("Content-Length: abc") + body,
    "hexadecimal": lambda body: head(f"Content-Length: {len(body):#x}") + body,
    "with an underscore": lambda body: head(f"Content-Length: {len(body):_}") + body,
    "empty": lambda body: head("Content-Length:") + body,
    "two, the first short": lambda body: head("Content-Length: 7", f"Content-Length: {len(body)}") + body,
    "two, the second short": lambda body: head(f"Content-Length: {len(body)}", "Content-Length: 7") + body,
    "two in one line": lambda body: head(f"Content-Length: {len(body)}, 7") + body,
    "chunks that are not": lambda body: head("Transfer-Encoding: chunked") + body,
    "chunks of a negative size": lambda body: head("Transfer-Encoding: chunked") + b"-5\r\n" + body + b"\r\n0\r\n\r\n",
    "chunks of no size": lambda body: head("Transfer-Encoding: chunked") + b"\r\n" + body + b"\r\n0\r\n\r\n",
    "chunks of an absurd size": lambda body: head("Transfer-Encoding: chunked") + b"f" * 15 + b"\r\n" + body,
    "chunks shorter than their size": lambda body: head("Transfer-Encoding: chunked") + b"%x\r\n" % (len(body) + 9) + body,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", LENGTHS)
def test_a_body_of_another_length_than_its_head_says_is_neither_cached_nor_completed(world, lane, form, name):
    before = world.counts()
    lane.upstream.routes[f"/{path_of(form)}"] = Upstream.wire(LENGTHS[name](body_of(form)))
    assert failed(lane.get(form, path_of(form)))
    assert world.counts() == before
    assert whole_is_served(lane, form) and other_is_served(lane)


TWO_FRAMINGS = {
    "chunks, and a length that is too long": lambda body: head("Content-Length: 99999", "Transfer-Encoding: chunked"),
    "chunks, and a length that is too short": lambda body: head("Content-Length: 9", "Transfer-Encoding: chunked"),
    "chunks, and the right length": lambda body: head(f"Content-Length: {len(body)}", "Transfer-Encoding: chunked"),
    "chunks twice": lambda body: head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    "chunks in capitals": lambda body: head("TRANSFER-ENCODING: CHUNKED"),
    "chunks of HTTP/1.0": lambda body: head("Transfer-Encoding: chunked").replace(b"HTTP/1.1", b"HTTP/1.0"),
}


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize("name", TWO_FRAMINGS)
def test_a_body_that_is_framed_in_two_ways_is_whole_or_refused(lane, name, stated):
    start = TWO_FRAMINGS[name](BODY)
    if stated:
        start = start.replace(b"\r\n", f"\r\nX-Checksum-Sha256: {sha256(BODY)}\r\n".encode(), 1)
    lane.upstream.routes["/files/wanted"] = Upstream.wire(start + in_chunks(BODY, 1000))
    answer = lane.get("raw", "files/wanted")
    assert failed(answer) or (answer is not None and answer.body == BODY)
    assert whole_is_served(lane, "raw") and other_is_served(lane)


def test_what_comes_after_the_stated_length_is_no_part_of_the_file_nor_of_the_next(world, lane):
    """Of a length that is too short only a digest or the format can tell."""
    module = body_of("go")
    before = world.counts()
    lane.upstream.routes["/files/stated"] = Upstream.wire(
        head("Content-Length: 100", f"X-Checksum-Sha256: {sha256(BODY)}") + BODY
    )
    lane.upstream.routes[f"/{path_of('go')}"] = Upstream.wire(head(f"Content-Length: {len(module) - 10}") + module)
    assert failed(lane.get("raw", "files/stated"))
    assert failed(lane.get("go", path_of("go")))
    assert world.counts() == before
    lane.upstream.routes["/files/short"] = lambda handler: handler.answer(200, BODY, {"Content-Length": "100"})
    answer = lane.get("raw", "files/short")
    assert failed(answer) or (answer is not None and answer.body == BODY[:100])
    assert other_is_served(lane)


CODINGS = [
    "xchunked",
    "chunked;q=1",
    "chunked, identity",
    "chunked, gzip",
    "identity;chunked",
    "not-chunked",
    "gzip, chunked",
    "gzip",
]


@pytest.mark.parametrize("coding", CODINGS)
def test_a_transfer_coding_that_is_not_known_frames_nothing(lane, nothing_kept, coding):
    """What is not in chunks ends with the connection, so that half of it looks like the whole; nor are others undone."""
    for sent in (BODY[:1000], in_chunks(BODY, 1000), in_chunks(gzip.compress(BODY), 1000)):
        lane.upstream.routes["/files/wanted"] = Upstream.wire(head(f"Transfer-Encoding: {coding}") + sent)
        assert failed(lane.get("raw", "files/wanted"))
    lane.upstream.routes["/files/nothing"] = 404
    assert lane.get("raw", "files/nothing").status == 404


@pytest.mark.parametrize("sent", ["0", "0000", "00000", "0000\r", "0;x"])
def test_a_cut_in_a_chunks_size_is_not_the_last_chunk(lane, nothing_kept, sent):
    """Some pad the sizes with zeros, so that the first of its digits look like the size of the last chunk."""
    whole = b"%08x\r\n%s\r\n" % (1000, BODY[:1000])
    lane.upstream.routes["/files/wanted"] = Upstream.wire(head("Transfer-Encoding: chunked") + whole + sent.encode())
    assert failed(lane.get("raw", "files/wanted"))


# Digests

SIZES = [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1, 5 * CHUNK + 7]
"""Around what is held back until a digest has been verified, and what is sent at once."""
DIGESTS = {
    "X-Checksum-Sha256": lambda body: f"X-Checksum-Sha256: {sha256(body)}",
    "X-Checksum-Sha256 in capitals": lambda body: f"x-checksum-SHA256: {sha256(body).upper()}",
    "Repr-Digest": repr_digest,
    "Content-Digest": lambda body: repr_digest(body).replace("Repr", "Content"),
    "Repr-Digest among others": lambda body: repr_digest(body).replace("sha-256", "sha-512=:AAAA:, sha-256"),
}


@pytest.mark.parametrize("wrong", ["first", "last"])
@pytest.mark.parametrize("name", DIGESTS)
def test_wrong_bytes_are_never_completed_where_the_digest_is_stated(world, lane, name, wrong):
    """Wrong by one byte, the last one also, which is sent only after all the others have been verified."""
    for size in SIZES:
        right = random.Random(size).randbytes(size)
        at = 0 if wrong == "first" else size - 1
        lie = right[:at] + bytes([right[at] ^ 1]) + right[at + 1 :]
        start = head(f"Content-Length: {size}", DIGESTS[name](right))
        before = world.counts()
        lane.upstream.routes[f"/{size}"] = Upstream.wire(start + lie)
        assert failed(lane.get("raw", f"{size}")), f"of {size} bytes"
        assert failed(lane.get("raw", f"{size}", virtual=True)), f"of {size} bytes"
        assert world.counts() == before
        lane.upstream.routes[f"/{size}"] = Upstream.wire(start + right)
        answer = lane.get("raw", f"{size}")
        assert answer is not None and (answer.status, answer.body == right) == (200, True)


def test_all_who_read_along_wrong_bytes_learn_of_it(lane):
    right = random.Random(5).randbytes(4 * CHUNK)
    go_on = threading.Event()

    def lie(handler: Handler) -> None:
        handler.close_connection = True
        handler.wfile.write(head(f"Content-Length: {len(right)}", DIGESTS["X-Checksum-Sha256"](right)) + right[: 2 * CHUNK])
        go_on.wait(60)
        handler.wfile.write(right[2 * CHUNK : -1] + b"x")

    lane.upstream.routes["/along"] = lie
    with ThreadPoolExecutor(8) as pool:
        readers = [pool.submit(lane.get, "raw", "along", virtual=n % 2 == 0) for n in range(8)]
        while lane.upstream.hits("/along") == 0:
            threading.Event().wait(0.02)
        go_on.set()
        assert [failed(reader.result()) for reader in readers] == [True] * 8


@pytest.mark.parametrize("stated", ["decoded", "encoded"])
@pytest.mark.parametrize("name", ["X-Checksum-Sha256", "Repr-Digest"])
def test_a_digest_of_an_encoded_body_may_be_of_either_form(lane, name, stated):
    """Upstreams state one or the other (RFC 9530 section 3.1 means the encoded one)."""
    encoded = gzip.compress(BODY)
    line = DIGESTS[name](BODY if stated == "decoded" else encoded)
    lane.upstream.routes["/files/wanted"] = Upstream.wire(
        head(f"Content-Length: {len(encoded)}", "Content-Encoding: gzip", line) + encoded
    )
    answer = lane.get("raw", "files/wanted")
    assert answer is not None and (answer.status, answer.body) == (200, BODY)
    assert answer.headers["X-Checksum-Sha256"] == sha256(BODY)


@pytest.mark.parametrize("name", ["X-Checksum-Sha256", "Repr-Digest"])
def test_an_encoded_body_must_have_its_stated_digest_in_one_form_or_the_other(lane, nothing_kept, name):
    encoded = gzip.compress(BODY)
    lane.upstream.routes["/files/wanted"] = Upstream.wire(
        head(f"Content-Length: {len(encoded)}", "Content-Encoding: gzip", DIGESTS[name](b"what it should be")) + encoded
    )
    assert failed(lane.get("raw", "files/wanted"))


@pytest.mark.parametrize("value", ["", "abc", "0" * 63, "z" * 64, "sha-256=::", "sha-256=:AAAA:", "sha-256", "=", ",,,"])
def test_a_digest_that_is_none_proves_nothing_and_hurts_nobody(lane, value):
    start = head(f"Content-Length: {len(BODY)}", f"X-Checksum-Sha256: {value}", f"Repr-Digest: {value}")
    lane.upstream.routes["/files/wanted"] = Upstream.wire(start + BODY)
    answer = lane.get("raw", "files/wanted")
    assert answer is not None and (answer.status, answer.body) == (200, BODY)


# Encodings

GZIP = {
    "no gzip at all": (gzip.compress, lambda body, encoded: body),
    "truncated to nothing": (gzip.compress, lambda body, encoded: b""),
    "truncated in its head": (gzip.compress, lambda body, encoded: encoded[:5]),
    "truncated": (gzip.compress, lambda body, encoded: encoded[: len(encoded) // 2]),
    "without its checksum": (gzip.compress, lambda body, encoded: encoded[:-8]),
    "without its last byte": (gzip.compress, lambda body, encoded: encoded[:-1]),
    "with a wrong checksum": (gzip.compress, lambda body, encoded: encoded[:-8] + b"\0" * 4 + encoded[-4:]),
    "with a wrong length": (gzip.compress, lambda body, encoded: encoded[:-4] + b"\0" * 4),
    "with garbage after it": (gzip.compress, lambda body, encoded: encoded + b"garbage"),
    "deflate": (zlib.compress, lambda body, encoded: encoded),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", GZIP)
def test_a_body_that_is_not_the_gzip_it_says_is_neither_cached_nor_completed(world, lane, form, name):
    """Each time in a frame that is whole, so that only the encoding tells."""
    compress, spoil = GZIP[name]
    sent = spoil(body_of(form), compress(body_of(form)))
    before = world.counts()
    for framing, framed in (
        (f"Content-Length: {len(sent)}", sent),
        ("Transfer-Encoding: chunked", in_chunks(sent)),
    ):
        lane.upstream.routes[f"/{path_of(form)}"] = Upstream.wire(head("Content-Encoding: gzip", framing) + framed)
        assert failed(lane.get(form, path_of(form)))
    assert world.counts() == before
    assert whole_is_served(lane, form)


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "gzip, gzip", "identity, gzip", "aes128gcm", "x", "\xff"])
def test_an_encoding_that_was_not_asked_for_is_refused(lane, nothing_kept, encoding):
    lane.upstream.routes["/files/wanted"] = lambda handler: handler.answer(200, BODY, {"Content-Encoding": encoding})
    answer = lane.get("raw", "files/wanted")
    assert answer is not None and answer.status == 502


@pytest.mark.parametrize("encoding", ["", "identity", "IDENTITY"])
def test_no_encoding_by_any_name_is_none(lane, encoding):
    lane.upstream.routes["/files/wanted"] = lambda handler: handler.answer(200, BODY, {"Content-Encoding": encoding})
    answer = lane.get("raw", "files/wanted")
    assert answer is not None and (answer.status, answer.body) == (200, BODY)


def bomb(size: int) -> bytes:
    """`size` bytes of zeros, a whole number of mebibytes, as a small gzip file."""
    zeros = bytes(MEBIBYTE)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = 0
    for _ in range(size // MEBIBYTE):
        checksum = zlib.crc32(zeros, checksum)
    start = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    return start + block * (size // MEBIBYTE) + b"\x03\0" + checksum.to_bytes(4, "little") + size.to_bytes(4, "little")


def test_a_bomb_fills_no_memory_and_ends_at_the_formats_limit(world, lane):
    """A gibibyte out of a megabyte: a module may have 500 MiB, a plain file be of any size."""
    packed = bomb(1024 * MEBIBYTE)
    before, memory = world.counts(), world.memory_peak()
    lane.upstream.default = Upstream.wire(head("Content-Encoding: gzip", f"Content-Length: {len(packed)}") + packed)
    answer = lane.get("go", path_of("go"))
    assert answer is not None and answer.status == 502
    assert world.counts() == before
    connection = world.connect()
    with contextlib.closing(connection):
        connection.request("GET", f"/raw/{lane.key}-raw/bomb", headers=world.authorization(ADMIN))
        file = connection.getresponse()
        assert file.status == 200 and file.length == 1024 * MEBIBYTE, "it is what the upstream has"
    assert world.memory_peak() - memory < 64 * MEBIBYTE


# Statuses

STATUSES = [
    "101 Switching Protocols", "102 Processing", "199 What", "201 Created", "202 Accepted", "204 No Content",
    "205 Reset Content", "206 Partial Content", "226 IM Used", "299 Else", "300 Multiple Choices", "304 Not Modified",
    "305 Use Proxy", "400 Bad Request", "401 Unauthorized", "402 Payment Required", "403 Forbidden", "407 Proxy",
    "408 Timeout", "409 Conflict", "416 Range", "418 Teapot", "451 Legal", "500 Error", "501 Not Implemented",
    "502 Bad Gateway", "503 Unavailable", "504 Timeout", "507 Full", "511 Sign in", "599 Else", "600 More", "999 Denied",
    "99 Less", "000 None", "2000 Long", "-200 Minus", "two hundred", "",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_only_a_200_is_an_answer_and_nothing_else_is_not_found(world, lane, form):
    """Neither cached nor taken for absent. After each the upstream answers well, so that no failure comes of another."""
    before = world.counts()
    lane.upstream.routes["/files/other"] = f"the other file of {lane.key}".encode()
    for number, status in enumerate(STATUSES):
        path = path_of(form).replace("wanted", f"wanted{number}")
        lines = [f"Content-Length: {len(BODY)}", f"Content-Range: bytes 0-{len(BODY) - 1}/{len(BODY)}", "Connection: close"]
        lane.upstream.routes[f"/{path}"] = Upstream.wire(head(*lines, status=status) + BODY)
        assert failed(lane.get(form, path, virtual=number % 2 == 0)), status
        assert lane.upstream.hits(f"/{path}") > 0, status
        lane.get("raw", "files/other")
    changes, assets, objects = before
    assert world.counts() == (changes + 1, assets + 1, objects + 1), "the other file"


def test_with_a_cached_document_every_such_status_is_an_outage_that_is_bridged(lane):
    lane.upstream.routes["/files/wanted"] = BODY
    assert lane.get("raw", "files/wanted").status == 200
    for status in STATUSES:
        if status.startswith("304"):  # an answer, to who has it
            continue
        lane.upstream.routes["/files/wanted"] = Upstream.wire(
            head("Content-Length: 4", "Connection: close", status=status) + b"evil"
        )
        answer = lane.get("raw", "files/wanted")
        assert answer is not None and (answer.status, answer.body) == (200, BODY), status
        assert answer.headers["Warning"].startswith("110"), status
        lane.upstream.routes["/files/wanted"] = BODY
        assert "Warning" not in lane.get("raw", "files/wanted").headers


def test_no_http_at_all_is_the_upstreams_failure(lane, nothing_kept):
    for said in (
        b"",
        b"\r\n\r\n",
        b"hello",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x15\x03\x01\0\x02\x02P",
        b"HTTP/2 200\r\n\r\n",
        b"\0" * 9999,
    ):
        lane.upstream.routes["/files/wanted"] = Upstream.wire(said)
        assert failed(lane.get("raw", "files/wanted")), said
        lane.upstream.routes["/files/nothing"] = 404
        assert lane.get("raw", "files/nothing").status == 404


PAGES = ["@v/list", "@latest", "@v/v1.0.0.info", "@v/v1.0.0.mod", "@v/v1.0.0.zip", "@v/main.info"]


@pytest.mark.parametrize("file", PAGES)
def test_a_page_to_sign_in_at_is_no_module(lane, nothing_kept, file):
    """As a captive portal or a proxy gives it, with a 200."""
    page = b"<!DOCTYPE html><html><body>Please <a href='/login'>sign in</a></body></html>"
    lane.upstream.default = lambda handler: handler.answer(200, page, {"Content-Type": "text/html"})
    for virtual in (False, True):
        answer = lane.get("go", f"portal.example/m/{file}", virtual=virtual)
        assert answer is not None and answer.status == 502


# Heads


def lines(count: int, line: bytes) -> Iterable[bytes]:
    for _ in range(count):
        yield line


HEADS = {
    "headers of 100 MB": lambda: (b"HTTP/1.1 200 OK\r\n", *lines(1600, b"X-A: " + b"a" * 62_000 + b"\r\n")),
    "one header of 100 MB": lambda: (b"HTTP/1.1 200 OK\r\nX-A: ", *lines(100, b"a" * MEBIBYTE)),
    "ten thousand headers": lambda: (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n", *lines(10_000, b"A: b\r\n"), b"\r\nevil"),
    "a status line of 100 MB": lambda: (b"HTTP/1.1 200 ", *lines(100, b"a" * MEBIBYTE)),
    "continues of 100 MB": lambda: lines(1600, b"HTTP/1.1 100 Continue\r\nX-A: " + b"a" * 62_000 + b"\r\n\r\n"),
    "a million continues": lambda: lines(1000, b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "a chunk's size of 100 MB": lambda: (head("Transfer-Encoding: chunked"), *lines(100, b"0" * MEBIBYTE)),
    "a chunk's extension of 100 MB": lambda: (head("Transfer-Encoding: chunked"), b"4;", *lines(100, b"a" * MEBIBYTE)),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_without_end_is_refused_and_fills_no_memory(world, lane, nothing_kept, name):
    memory = world.memory_peak()
    lane.upstream.routes["/files/wanted"] = Upstream.wire(HEADS[name])
    assert failed(lane.get("raw", "files/wanted"))
    assert world.memory_peak() - memory < 32 * MEBIBYTE


def test_trailers_without_end_fill_no_memory(world, lane):
    """The body is whole before them: it may be taken or refused."""
    memory = world.memory_peak()
    for number, trailers in enumerate((lines(100, b"a" * MEBIBYTE), lines(1600, b"X-A: " + b"a" * 62_000 + b"\r\n"))):
        start = head("Transfer-Encoding: chunked") + in_chunks(BODY)[:-2]
        lane.upstream.routes[f"/files/{number}"] = Upstream.wire(lambda start=start, trailers=trailers: (start, *trailers))
        answer = lane.get("raw", f"files/{number}")
        assert failed(answer) or (answer is not None and answer.body == BODY)
    assert world.memory_peak() - memory < 32 * MEBIBYTE


@pytest.mark.parametrize("status", ["404 Not Found", "500 Oops", "302 Found"])
@pytest.mark.parametrize("framing", ["-1", "-5", "+4", "0x10", "1_0", "", "fffffff", "length 5, 5", "no length"])
def test_a_body_that_nobody_wants_is_not_read_however_long_it_is(world, lane, nothing_kept, status, framing):
    memory = world.memory_peak()
    lengths = {"length 5, 5": ["Content-Length: 5, 5"], "no length": []}.get(framing)
    chunked = head("Transfer-Encoding: chunked", "Location: /nowhere", status=status) + framing.encode() + b"\r\n"
    start = chunked if lengths is None else head(*lengths, "Location: /nowhere", status=status)
    lane.upstream.routes["/files/wanted"] = Upstream.wire(lambda: (start, *lines(100, b"a" * MEBIBYTE)))
    for form, path in (("raw", "files/wanted"), ("raw", "files/nothing")):
        answer = lane.get(form, path)
        assert answer is not None and "failed here" not in answer.reason
        assert answer.status == (502 if (path, status[0]) == ("files/wanted", "5") else 404)
    assert world.memory_peak() - memory < 32 * MEBIBYTE


def test_a_connection_is_used_again_after_an_answer_that_nobody_wants(lane):
    for n in range(5):
        assert lane.get("raw", f"files/{n}").status == 404
    assert lane.upstream.connections == 1


def test_a_connection_that_ends_as_it_is_used_again_is_made_anew(lane):
    """In order, as a server does that was idle for long enough."""
    lane.upstream.routes["/files/first"] = BODY
    assert lane.get("raw", "files/first").status == 200

    def end(handler: Handler) -> None:
        if handler.upstream.hits(handler.path) == 1:
            handler.close_connection = True
        else:
            handler.answer(200, BODY)

    lane.upstream.routes["/files/second"] = end
    answer = lane.get("raw", "files/second")
    assert answer is not None and (answer.status, answer.body) == (200, BODY)
    assert lane.upstream.connections == 2


def test_a_control_character_in_a_header_harms_nothing(lane):
    """A database may take none."""
    for n, line in enumerate(("ETag: a\0b", "Last-Modified: \0", "Content-Type: a\x01b")):
        lane.upstream.routes[f"/files/{n}"] = Upstream.wire(head(f"Content-Length: {len(BODY)}", line) + BODY)
        for virtual in (False, True):
            answer = lane.get("raw", f"files/{n}", virtual=virtual)
            assert answer is not None and (answer.status, answer.body) == (200, BODY), line
    lane.upstream.routes["/files/packed"] = Upstream.wire(head("Content-Length: 4", "Content-Encoding: a\0b") + b"evil")
    assert lane.get("raw", "files/packed").status == 502


def test_early_hints_are_no_answer_and_leave_none_for_the_next_question(lane):
    """The answer proper comes when somebody else has the connection, if anybody is given it."""

    def hint_and_wait(handler: Handler) -> None:
        handler.wfile.write(head("Link: </style.css>", status="103 Early Hints"))
        select.select([handler.connection], [], [], 1)
        handler.answer(200, BODY)

    lane.upstream.routes["/files/hinted"] = hint_and_wait
    answer = lane.get("raw", "files/hinted")
    assert failed(answer) or (answer is not None and answer.body == BODY)
    assert other_is_served(lane)


def test_a_hundred_continue_before_the_answer_is_passed_over(lane):
    lane.upstream.routes["/files/wanted"] = Upstream.wire(
        head(status="100 Continue") * 3 + head(f"Content-Length: {len(BODY)}") + BODY
    )
    answer = lane.get("raw", "files/wanted")
    assert answer is not None and (answer.status, answer.body) == (200, BODY)


# Redirects


REDIRECTS = {
    "to itself": lambda up: {"/start": up.redirect(f"{up.url}/start")},
    "in a circle": lambda up: {"/start": up.redirect("/a"), "/a": up.redirect("/b"), "/b": up.redirect("/start")},
    "without end": lambda up: {"/start": up.redirect("/1")} | {f"/{n}": up.redirect(f"/{n + 1}") for n in range(1, 50)},
    "without Location": lambda up: {"/start": lambda handler: handler.answer(302, b"evil")},
    "to nothing": lambda up: {"/start": up.redirect("")},
    "to a file": lambda up: {"/start": up.redirect("file:///etc/passwd")},
    "to ftp": lambda up: {"/start": up.redirect("ftp://127.0.0.1/evil")},
    "to gopher": lambda up: {"/start": up.redirect("gopher://127.0.0.1:6379/_FLUSHALL")},
    "to data": lambda up: {"/start": up.redirect("data:text/plain,evil")},
    "to another user": lambda up: {"/start": up.redirect(up.url.replace("//", "//user:password@") + "/evil")},
    "to a port that is none": lambda up: {"/start": up.redirect("http://127.0.0.1:99999/evil")},
    "to a port of words": lambda up: {"/start": up.redirect("http://127.0.0.1:http/evil")},
    "with a control character": lambda up: {"/start": up.redirect("/evil\x01")},
    "with two Locations": lambda up: {
        "/start": up.wire(head("Location: /evil", "Location: /worse", "Content-Length: 0", status="302 Found"))
    },
    "of another kind": lambda up: {"/start": up.redirect("/evil", 305)},
}


@pytest.mark.parametrize("name", REDIRECTS)
def test_a_redirect_that_leads_nowhere_good_is_the_upstreams_failure(lane, nothing_kept, name):
    lane.upstream.routes |= {"/evil": b"evil", **REDIRECTS[name](lane.upstream)}
    for virtual in (False, True):
        answer = lane.get("raw", "start", virtual=virtual)
        assert answer is not None and answer.status == 502
    assert lane.upstream.hits("/evil") == 0
    assert len(lane.upstream.seen) <= 2 * 6, "it was not followed for long"


def test_a_redirect_that_was_cut_is_not_followed_to_what_is_left_of_it(lane, nothing_kept):
    lane.upstream.routes |= {
        "/files/12": b"evil",
        "/start": Upstream.wire(head("Content-Length: 0", "Location: /files/1234", status="302 Found")[:-6]),
    }
    assert failed(lane.get("raw", "start"))
    assert lane.upstream.hits("/files/12") == 0


def test_redirects_within_the_upstream_are_followed(lane):
    lane.upstream.routes |= {
        "/start": Upstream.redirect("/moved/a?x=1", 301),
        "/moved/a?x=1": Upstream.redirect("b", 307),
        "/moved/b": Upstream.redirect(f"{lane.upstream.url}/moved/c", 308),
        "/moved/c": BODY,
    }
    answer = lane.get("raw", "start")
    assert answer is not None and (answer.status, answer.body) == (200, BODY)


# What can never change


@pytest.mark.parametrize("file", ["v1.0.0.info", "v1.0.0.mod", "v1.0.0.zip"])
def test_what_can_never_change_stays_as_it_was_first_seen(world, lane, file):
    """Whatever the upstream says later; after an eviction its new bytes are taken, which `go` compares with its go.sum."""
    path, module = f"fixed.example/m/@v/{file}", "fixed.example/m"
    first, later = {
        "v1.0.0.info": (b'{"Version":"v1.0.0"}', b'{"Version":"v1.0.0","Time":"2024-05-06T07:08:09Z"}'),
        "v1.0.0.mod": (b"module fixed.example/m\n", b"module fixed.example/m\n\nrequire evil.example/m v1.0.0\n"),
        "v1.0.0.zip": tuple(make_zip(module, "v1.0.0", {"x.go": text}) for text in (b"package x\n", b"package evil\n")),
    }[file]
    lane.upstream.routes[f"/{path}"] = first
    assert lane.get("go", path).body == first
    for changed in (later, 404, 410, 500, Upstream.wire(b"")):
        lane.upstream.routes[f"/{path}"] = changed
        for virtual in (False, True):
            answer = lane.get("go", path, virtual=virtual)
            assert answer is not None and (answer.status, answer.body) == (200, first)
            assert "Warning" not in answer.headers
    assert lane.upstream.hits(f"/{path}") == 1
    world.manage("evict", f"{lane.key}-go", "fixed.example/**")
    lane.upstream.routes[f"/{path}"] = later
    assert lane.get("go", path).body == later


def test_a_document_that_did_change_is_not_kept_for_an_etag_that_did_not(lane):
    lane.upstream.routes["/doc"] = lambda handler: handler.answer(200, b"first", {"ETag": '"same"'})
    assert lane.get("raw", "doc").body == b"first"
    lane.upstream.routes["/doc"] = lambda handler: handler.answer(200, b"second", {"ETag": '"same"'})
    assert lane.get("raw", "doc").body == b"second"


# Fills that meet


def test_a_good_fill_survives_bad_ones_of_the_same_bytes_and_the_same_path(world, lanes):
    """The same bytes from an upstream that gives them whole and from two that cut or falsify them, all at the same moments."""
    good, cutting, false = (next(lanes) for _ in range(3))
    for number in range(12):
        body = random.Random(f"meet{number}").randbytes(3 * CHUNK)
        path, start = f"meet/{number}", head(f"Content-Length: {3 * CHUNK}", DIGESTS["X-Checksum-Sha256"](body))
        together = threading.Barrier(3)

        def sending(content: bytes, start: bytes = start, together: threading.Barrier = together):
            def route(handler: Handler) -> None:
                handler.close_connection = True
                handler.wfile.write(start + content[: 2 * CHUNK])
                with contextlib.suppress(threading.BrokenBarrierError):
                    together.wait(30)
                handler.wfile.write(content[2 * CHUNK :])

            return route

        good.upstream.routes[f"/{path}"] = sending(body)
        cutting.upstream.routes[f"/{path}"] = sending(body[:-1])
        false.upstream.routes[f"/{path}"] = sending(body[:-1] + bytes([body[-1] ^ 1]))
        with ThreadPoolExecutor(6) as pool:
            asked = [(lane, pool.submit(lane.get, "raw", path)) for lane in (good, cutting, false) for _ in range(2)]
            for lane, job in asked:
                answer = job.result()
                if lane is good:
                    assert answer is not None and (answer.status, answer.body == body) == (200, True)
                else:
                    assert failed(answer)
        for lane in (cutting, false):  # keeps its circuit closed
            lane.upstream.routes["/files/nothing"] = 404
            assert lane.get("raw", "files/nothing").status == 404
    world.manage("gc", "--grace", "0")
    for number in range(12):
        with good.upstream.down():
            kept = good.get("raw", f"meet/{number}")
        assert kept is not None and sha256(kept.body) == sha256(random.Random(f"meet{number}").randbytes(3 * CHUNK))
