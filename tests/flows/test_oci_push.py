"""Blobs come in whole, in parts and by mounting, and what is refused leaves nothing behind."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest

from repos.blobs import CHUNK
from tests.parts.oci import digest
from tests.parts.registryclient import CAST, RegistryClient, asked, code, parts
from tests.parts.server import Answer, Server

CONTENT = bytes(range(256)) * 40
FIRST, LAST = CONTENT[:6000], CONTENT[6000:]
ABSENT = "sha256:" + "0" * 64


@pytest.fixture(scope="module")
def world(server):
    here = server(ENTREPOT_WORKERS="2")
    here.apply(CAST)
    return here


@pytest.fixture
def images(world) -> RegistryClient:
    return RegistryClient(world, "local").by("developer")


def where(images: RegistryClient, location: str) -> tuple[int, str]:
    """What an upload's status says: the HTTP status and Range."""
    answer = images.ask("GET", location)
    return answer.status, answer.headers.get("Range", "")


# Whole


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("content", [b"", b"x", CONTENT], ids=["empty", "a byte", "some"])
def test_a_blob_is_taken_in_one_request(images, content, algorithm):
    name = digest(content, algorithm)
    answer = images.of("one").put_blob(content, algorithm)
    assert answer.status == 201
    assert answer.headers["Docker-Content-Digest"] == name
    assert answer.headers["Location"] == f"/v2/local/one/blobs/{name}"
    assert images.ask("GET", answer.headers["Location"]).body == content
    assert images.of("one").has_blob(content, algorithm)


def test_a_blob_is_taken_in_one_request_of_chunks(images):
    answer = images.ask("POST", f"one/blobs/uploads/{asked({'digest': digest(CONTENT * 2)})}", iter([CONTENT, CONTENT]))
    assert answer.status == 201
    assert images.of("one").has_blob(CONTENT * 2)


def test_the_same_blob_again_makes_no_change(images, world):
    images.of("again").push_blob(CONTENT)
    before = world.counts()
    images.of("again").push_blob(CONTENT)
    location = images.of("again").session()
    assert images.finish(location, digest(CONTENT), CONTENT).status == 201
    assert world.counts() == before


# In parts


def test_an_upload_goes_on_where_the_last_part_ended(images, world):
    answer = images.of("parts").begin()
    location = answer.headers["Location"]
    assert (answer.status, answer.headers["Range"]) == (202, "0-0")
    assert answer.headers["Docker-Upload-UUID"] in location
    first = images.ask("PATCH", location, FIRST, Content_Range="0-5999", Content_Type="application/octet-stream")
    assert (first.status, first.headers["Range"], first.headers["Location"]) == (202, "0-5999", location)
    assert where(images, location) == (204, "0-5999")
    last = images.ask("PATCH", location, LAST, Content_Range=f"6000-{len(CONTENT) - 1}")
    assert (last.status, last.headers["Range"]) == (202, f"0-{len(CONTENT) - 1}")
    done = images.finish(location, digest(CONTENT))
    assert (done.status, done.headers["Docker-Content-Digest"]) == (201, digest(CONTENT))
    assert images.of("parts").has_blob(CONTENT)
    assert parts(world) == 0, "nothing is left of an upload that has ended"


def test_parts_need_not_say_which_bytes_they_are(images):
    location = images.of("streamed").session()
    assert images.ask("PATCH", location, iter([FIRST[:1000], FIRST[1000:]])).status == 202
    assert images.ask("PATCH", location, LAST).status == 202
    assert images.finish(location, digest(CONTENT)).status == 201
    assert images.of("streamed").has_blob(CONTENT)


@pytest.mark.parametrize("header", ["0-5999", "bytes 0-5999/*", "bytes=0-5999", "bytes 0-5999/10240"])
def test_content_range_is_understood_with_and_without_a_unit(images, header):
    location = images.of("unit").session()
    assert images.ask("PATCH", location, FIRST, Content_Range=header).status == 202
    images.ask("DELETE", location)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_the_last_bytes_may_come_with_the_end(images, algorithm, framing):
    image = f"last-{algorithm}-{framing}"
    location = images.of(image).session()
    images.ask("PATCH", location, FIRST)
    body, ranged = (LAST, {"Content_Range": f"6000-{len(CONTENT) - 1}"}) if framing == "length" else (iter([LAST]), {})
    assert images.finish(location, digest(CONTENT, algorithm), body, **ranged).status == 201
    assert images.of(image).has_blob(CONTENT, algorithm)


def test_all_bytes_may_come_with_the_end(images):
    location = images.of("monolithic").session()
    assert images.finish(location, digest(CONTENT), CONTENT).status == 201
    assert images.of("monolithic").has_blob(CONTENT)


@pytest.mark.parametrize("body", [None, b"", iter(())], ids=["no body", "a length of 0", "no chunk"])
def test_the_empty_blob_needs_no_part(images, body):
    location = images.of("empty").session()
    assert images.finish(location, digest(b""), body).status == 201
    assert images.of("empty").has_blob(b"")


def test_an_empty_part_changes_nothing(images):
    location = images.of("nothing").session()
    for body in (b"", iter(()), None):
        assert images.ask("PATCH", location, body).status == 202
    assert where(images, location) == (204, "0-0")
    images.ask("DELETE", location)


@pytest.mark.parametrize("before", [b"", FIRST], ids=["nothing has come", "a part has come"])
@pytest.mark.parametrize("meanwhile", ["DELETE", "PATCH"])
def test_an_upload_that_is_ended_or_added_to_while_its_end_comes_is_not_published(images, nothing_stored, before, meanwhile):
    location = images.of("overtaken").session()
    if before:
        images.ask("PATCH", location, before)
    rest = CONTENT.removeprefix(before)

    def body():
        yield rest[:100]
        wait_until_let_in(images.server)
        assert images.ask(meanwhile, location, b"x" if meanwhile == "PATCH" else None).status in (202, 204)
        yield rest[100:]

    assert images.finish(location, digest(CONTENT), body()).status in (404, 416)
    assert not images.of("overtaken").has_blob(CONTENT)
    images.ask("DELETE", location)


def wait_until_let_in(server: Server) -> None:
    """Until a body is being received, and so its request has been let in."""
    deadline = time.monotonic() + 60
    while not any((server.data / "blobs" / "incoming").iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_is_cancelled_is_gone(images, world, nothing_stored):
    location = images.of("cancelled").session()
    images.ask("PATCH", location, FIRST)
    assert images.ask("DELETE", location).status == 204
    for answer in (
        images.ask("GET", location), images.ask("PATCH", location, LAST), images.finish(location, digest(FIRST)),
        images.ask("DELETE", location),
    ):  # fmt: skip
        assert (answer.status, code(answer)) == (404, "BLOB_UPLOAD_UNKNOWN")


def test_who_cancels_what_was_finished_meanwhile_is_told_that_it_is_no_more(images):
    location = images.of("finished").session()
    images.ask("PATCH", location, FIRST)
    answers = []

    def body():
        yield LAST[:10]
        wait_until_let_in(images.server)
        answers.append(images.finish(location, digest(FIRST)))
        yield LAST[10:]

    answers.append(images.ask("PATCH", location, body()))
    answers.append(images.ask("DELETE", location))
    assert [answer.status for answer in answers] == [201, 404, 404]
    assert images.of("finished").has_blob(FIRST)


def test_what_has_ended_is_not_continued(images):
    location = images.of("ended").session()
    assert images.finish(location, digest(CONTENT), CONTENT).status == 201
    answer = images.ask("PATCH", location, b"more")
    assert (answer.status, code(answer)) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert images.of("ended").has_blob(CONTENT)


@pytest.mark.parametrize("start", [0, 1, 5999, 6001, 10**12])
def test_a_part_out_of_order_is_refused_and_loses_nothing(images, start):
    location = images.of("order").session()
    images.ask("PATCH", location, FIRST, Content_Range="0-5999")
    for answer in (
        images.ask("PATCH", location, LAST, Content_Range=f"{start}-{start + len(LAST) - 1}"),
        images.finish(location, digest(CONTENT), LAST, Content_Range=f"{start}-{start + len(LAST) - 1}"),
    ):
        assert (answer.status, code(answer)) == (416, "BLOB_UPLOAD_INVALID")
        assert (answer.headers["Range"], answer.headers["Location"]) == ("0-5999", location)
    assert images.finish(location, digest(CONTENT), LAST).status == 201
    assert images.of("order").has_blob(CONTENT)


@pytest.mark.parametrize(
    "header",
    [
        "", "-", "0", "0-", "-5", "-5-10", "a-b", "5999-0", "0-5998", "0-6000", "0-5999/x", "bytes 0-5999/5/5", "items 0-5999/*",
        "0-99999999999999999999", "99999999999999999999-99999999999999999999", "0x0-0x1", "0 - 5999", "0-1,2-5999",
    ],
)  # fmt: skip
def test_a_content_range_that_cannot_be_is_refused_and_nothing_kept(images, header):
    location = images.of("range").session()
    for answer in (
        images.ask("PATCH", location, FIRST, Content_Range=header),
        images.finish(location, digest(FIRST), FIRST, Content_Range=header),
    ):
        assert (answer.status, code(answer)) == (400, "BLOB_UPLOAD_INVALID")
    assert where(images, location) == (204, "0-0")
    images.ask("DELETE", location)


@pytest.mark.parametrize("sent", [None, b"", b"x", FIRST + b"x", iter([FIRST[:9]]), iter([FIRST, b"more"])])
def test_a_body_of_other_length_than_its_content_range_is_refused_and_nothing_kept(images, sent):
    location = images.of("length").session()
    answer = images.ask("PATCH", location, sent, Content_Range="0-5999")
    assert (answer.status, code(answer)) == (400, "BLOB_UPLOAD_INVALID")
    assert where(images, location) == (204, "0-0")
    images.ask("DELETE", location)


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_of_a_part_that_broke_off_what_came_is_kept_and_the_push_goes_on(images, framing):
    content = CONTENT * 200
    location = images.of("broken").session()
    broken_patch(images, location, content, framing)
    assert eventually(lambda: where(images, location)[1] != "0-0")
    kept = int(where(images, location)[1].removeprefix("0-")) + 1
    assert len(content) // 2 - CHUNK < kept <= len(content) // 2, "but for what the server had not taken from the network"
    last = images.ask("PATCH", location, content[kept:], Content_Range=f"{kept}-{len(content) - 1}")
    assert last.status == 202
    assert images.finish(location, digest(content)).status == 201
    assert images.of("broken").has_blob(content)


def broken_patch(images: RegistryClient, location: str, content: bytes, framing: str) -> None:
    """Send half of a part and end the sending side."""
    connection = images.server.connect()
    sizes = {"Content-Length": str(len(content))} if framing == "length" else {"Transfer-Encoding": "chunked"}
    connection.putrequest("PATCH", location)
    for name, value in {**sizes, **images.authorization}.items():
        connection.putheader(name, value)
    connection.endheaders()
    half = content[: len(content) // 2]
    connection.send(half if framing == "length" else b"%x\r\n%s\r\n" % (len(half), half))
    connection.sock.shutdown(socket.SHUT_WR)
    assert connection.getresponse().status == 400
    connection.close()


def eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


def test_of_two_parts_at_once_one_is_taken_and_the_other_told_where_to_go_on(images, world):
    location = images.of("two").session()
    connection = images.server.connect()
    connection.putrequest("PATCH", location)
    for name, value in {"Content-Length": str(len(FIRST)), **images.authorization}.items():
        connection.putheader(name, value)
    connection.endheaders()
    connection.send(FIRST[:10])
    incoming = world.data / "blobs" / "incoming"
    assert eventually(lambda: any(incoming.iterdir())), "the slow one is being received"
    assert images.ask("PATCH", location, FIRST).status == 202
    connection.send(FIRST[10:])
    slow = connection.getresponse()
    assert (slow.status, slow.headers["Range"], slow.headers["Location"]) == (416, "0-5999", location)
    connection.close()
    assert images.finish(location, digest(CONTENT), LAST).status == 201
    assert images.of("two").has_blob(CONTENT)
    assert parts(world) == 0


def test_an_abandoned_upload_is_reaped(images, world, nothing_stored):
    abandoned, alive = images.of("abandoned").session(), images.of("alive").session()
    images.ask("PATCH", abandoned, FIRST)
    images.ask("PATCH", alive, FIRST)
    world.execute(f"UPDATE repos_upload SET touched_at = '2020-01-01 00:00:00' WHERE id = '{abandoned.rpartition('/')[2][:32]}'")
    world.manage("gc")
    assert parts(world) == 1
    assert where(images, alive) == (204, "0-5999")
    images.ask("DELETE", alive)


def test_an_upload_that_was_begun_and_never_sent_to_is_over_after_a_day(images, world):
    code = (
        "import time; from unittest import mock; from repos import models, sessions;"
        "repo = models.Repository.objects.get(key='local'); now = time.time();"
        "mock.patch('time.time', lambda: now - {}).start();"
        "print(sessions.begin(repo.id, 'begun', 'developer'))"
    )
    young, old = (world.manage("shell", "-c", code.format(age)).stdout.split()[-1] for age in (86_000, 86_401))
    assert where(images, f"/v2/local/begun/blobs/uploads/{young}") == (204, "0-0")
    assert where(images, f"/v2/local/begun/blobs/uploads/{old}")[0] == 404


# Digests (what is claimed is checked)


WRONG = {
    "of other bytes": ABSENT,
    "of other bytes, sha512": "sha512:" + "0" * 128,
    "of an unknown algorithm": "md5:" + "0" * 32,
    "in upper case": digest(CONTENT).upper().replace("SHA256", "sha256"),
    "its algorithm in upper case": digest(CONTENT).replace("sha256", "SHA256"),
    "too short": digest(CONTENT)[:-1],
    "too long": digest(CONTENT) + "0",
    "empty": "",
    "without algorithm": digest(CONTENT).removeprefix("sha256:"),
    "with space": digest(CONTENT) + " ",
    "with NUL": digest(CONTENT)[:-1] + "\0",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_digest_is_refused_and_nothing_stored(images, nothing_stored, name):
    wrong = WRONG[name]
    unfinished = images.of("wrong").session()
    images.ask("PATCH", unfinished, FIRST)
    answers = [
        images.ask("POST", f"wrong/blobs/uploads/{asked({'digest': wrong})}", CONTENT),
        images.finish(images.of("wrong").session(), wrong, CONTENT),
        images.finish(unfinished, wrong, LAST),
    ]
    for answer in answers:
        assert (answer.status, code(answer)) == (400, "DIGEST_INVALID")
    images.ask("DELETE", unfinished)


def test_an_end_without_a_digest_is_refused_and_nothing_stored(images, nothing_stored):
    location = images.of("wrong").session()
    answer = images.ask("PUT", location, CONTENT)
    assert (answer.status, code(answer)) == (400, "DIGEST_INVALID")
    images.ask("DELETE", location)


@pytest.mark.parametrize("wrong", [wrong for name, wrong in WRONG.items() if not name.startswith("of other bytes")])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_malformed_digest_names_no_blob(images, wrong, method):
    answer = images.by("owner").ask(method, f"one/blobs/{wrong.replace(' ', '%20').replace(chr(0), '%00')}")
    assert answer.status in (400, 404)


def test_a_whole_that_breaks_off_is_refused_and_nothing_stored(images, world, nothing_stored):
    connection = images.server.connect()
    connection.putrequest("POST", f"/v2/local/cut/blobs/uploads/{asked({'digest': digest(CONTENT)})}")
    for name, value in {"Content-Length": str(len(CONTENT)), **images.authorization}.items():
        connection.putheader(name, value)
    connection.endheaders()
    connection.send(FIRST)
    connection.sock.shutdown(socket.SHUT_WR)
    assert connection.getresponse().status == 400
    connection.close()


# Whose upload it is


@pytest.mark.parametrize("method", ["GET", "PATCH", "PUT", "DELETE"])
def test_an_upload_is_only_of_its_image_and_of_who_began_it(images, nothing_stored, method):
    location = images.of("mine").session()
    images.ask("PATCH", location, FIRST)
    path = f"{location}{asked({'digest': digest(FIRST)})}" if method == "PUT" else location
    body = b"" if method in ("PATCH", "PUT") else None
    others = [
        images.by("owner").ask(method, path, body),
        images.ask(method, path.replace("/mine/", "/other/"), body),
        images.ask(method, path.replace("/local/", "/other/"), body),
        images.ask(method, path.replace("/uploads/", "/uploads/0"), body),
    ]
    for answer in others:
        assert (answer.status, code(answer)) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert where(images, location) == (204, "0-5999")
    images.ask("DELETE", location)


def test_who_may_not_write_begins_no_upload(images, nothing_stored):
    assert images.by("reader").of("one").begin().status == 403
    assert images.by("outsider").of("one").begin().status == 404
    assert images.by("").of("one").begin().status == 401
    assert images.by("", "open").of("one").begin().status == 401


# Mounting


def mounted(images: RegistryClient, image: str, digest: str, source: str | None) -> Answer:
    return images.of(image).begin(mount=digest, **({} if source is None else {"from_": source}))


@pytest.mark.parametrize("source", ["local/source", "other/source", "virtual/source", None])
def test_a_blob_is_mounted_from_an_image_that_one_may_read(images, world, source):
    image, repository = f"mount-{str(source).replace('/', '-').lower()}", "other" if source == "other/source" else "local"
    content = image.encode()
    name = images.by("developer", repository).of("source").push_blob(content)
    _, assets, objects = world.counts()
    answer = mounted(images, image, name, source)
    assert (answer.status, answer.headers["Docker-Content-Digest"]) == (201, name)
    assert answer.headers["Location"] == f"/v2/local/{image}/blobs/{name}"
    assert images.of(image).has_blob(content)
    assert world.counts()[1:] == (assets + 1, objects), "no bytes were moved"


def test_a_blob_is_mounted_by_a_digest_of_another_algorithm(images):
    name = digest(b"mounted by sha512", "sha512")
    assert images.of("source").put_blob(b"mounted by sha512", "sha512").status == 201
    assert mounted(images, "mounted", name, "local/source").status == 201
    assert images.of("mounted").has_blob(b"mounted by sha512", "sha512")


def test_a_blob_may_be_mounted_where_it_is_already(images, world):
    name = images.of("source").push_blob(b"there already")
    before = world.counts()
    assert mounted(images, "source", name, "local/source").status == 201
    assert world.counts() == before


SOURCES = [
    "secret/hidden",
    "secret/nothing",
    "nowhere/hidden",
    "local/nothing",
    "",
    "local",
    "local/",
    "local//x",
    "%00",
    "local/\0",
]


@pytest.mark.parametrize("source", SOURCES)
def test_a_blob_that_one_may_not_read_is_mounted_exactly_as_one_that_is_absent(images, world, nothing_stored, source):
    """reliability: neither status, headers nor body tell whether it is there; an upload begins, as for any other."""
    hidden = images.by("owner", "secret").of("hidden").push_blob(b"hidden bytes")
    here = images.by("developer", "local")
    answers = [mounted(here, "guess", name, source) for name in (hidden, ABSENT)]
    for answer in answers:
        assert (answer.status, answer.body, answer.headers["Range"]) == (202, b"", "0-0")
        assert "Docker-Content-Digest" not in answer.headers
    told = [sorted(answer.headers) for answer in answers]
    assert told[0] == told[1]
    assert here.ask("HEAD", f"guess/blobs/{hidden}").status == 404
    for answer in answers:
        here.ask("DELETE", answer.headers["Location"])


@pytest.fixture(autouse=True, scope="module")
def _hidden_is_there(world):
    """Before any count, so that it is no test's."""
    RegistryClient(world, "secret").by("owner").of("hidden").push_blob(b"hidden bytes")


def test_who_may_read_some_images_mounts_only_from_those(images):
    name = images.of("team/base").push_blob(b"of the team")
    private = images.of("private/base").push_blob(b"not of the team")
    team = images.by("team")
    assert mounted(team, "team/app", name, "local/team/base").status == 201
    assert mounted(team, "team/app", private, "local/private/base").status == 202
    assert mounted(team, "team/app", private, None).status == 202


@pytest.mark.parametrize("wrong", [WRONG["of an unknown algorithm"], WRONG["in upper case"], WRONG["too short"], ""])
def test_a_malformed_digest_is_not_mounted(images, nothing_stored, wrong):
    answer = mounted(images, "guess", wrong, "local/source")
    assert (answer.status, code(answer)) == (400, "DIGEST_INVALID")


def test_what_was_deleted_where_it_was_is_not_mounted(images, nothing_stored):
    answer = mounted(images, "guess", digest(b"deleted"), "local/gone")
    assert answer.status == 202
    images.ask("DELETE", answer.headers["Location"])


@pytest.fixture(autouse=True, scope="module")
def _deleted_is_gone(world):
    owner = RegistryClient(world, "local").by("owner")
    name = owner.of("gone").push_blob(b"deleted")
    assert owner.ask("DELETE", f"gone/blobs/{name}").status == 202


# Reading


def test_a_head_of_a_blob_tells_what_a_get_would(images):
    name = images.of("read").push_blob(CONTENT)
    get, head = images.ask("GET", f"read/blobs/{name}"), images.ask("HEAD", f"read/blobs/{name}")
    assert (head.status, head.body) == (200, b"")
    assert {**head.headers, "Date": ""} == {**get.headers, "Date": ""}
    assert get.headers["Docker-Content-Digest"] == name
    assert get.headers["Content-Length"] == str(len(CONTENT))


def test_a_part_of_a_blob_is_served(images):
    name = images.of("read").push_blob(CONTENT)
    answer = images.ask("GET", f"read/blobs/{name}", Range="bytes=100-199")
    assert (answer.status, answer.body) == (206, CONTENT[100:200])
    assert answer.headers["Content-Range"] == f"bytes 100-199/{len(CONTENT)}"
    assert images.ask("GET", f"read/blobs/{name}", Range=f"bytes={len(CONTENT)}-").status == 416


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_blob_of_one_image_is_none_of_another(images, method):
    """Whether a client may see a blob is asked of the image, never of the store."""
    name = images.of("read").push_blob(CONTENT)
    assert images.ask(method, f"other-image/blobs/{name}").status == 404
    assert images.by("developer", "other").ask(method, f"read/blobs/{name}").status == 404


def test_rows_and_bytes_agree_after_all_of_it(world):
    assert world.manage("fsck", "--scrub", "--grace", "3600").stdout.strip() == "clean"
