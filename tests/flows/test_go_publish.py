"""Publishing Go modules to a local repository."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from tests.gomodules import make_archive, make_zip
from tests.parts.server import ADMIN_PASSWORD

ADMIN = ("admin", ADMIN_PASSWORD)
SOURCE = {"lib.go": b"package lib\n"}


@pytest.fixture(scope="module")
def world(server):
    here = server()
    here.apply(
        {
            "repositories": [
                {"key": "corp", "format": "go", "kind": "local"},
                {"key": "other", "format": "go", "kind": "local"},
                {"key": "both", "format": "go", "kind": "virtual", "members": ["corp", "other"]},
            ]
        }
    )
    return here


@pytest.fixture
def go(world):
    def go(method: str, path: str, body: bytes | None = None, repository: str = "corp"):
        return world.request(method, f"/go/{repository}/{path}", body, user=ADMIN)

    return go


@pytest.fixture
def clean(world):
    yield
    assert world.manage("fsck", "--scrub").stdout.strip() == "clean"


def head(world) -> int:
    return world.query("SELECT head FROM repos_repository WHERE key = 'corp'")[0]


def test_a_zip_alone_publishes_a_version_as_one_change(world, go):
    before = head(world)
    body = make_zip("corp.example/alone", "v1.0.0", SOURCE)
    assert go("PUT", "corp.example/alone/@v/v1.0.0.zip", body).status == 201
    assert head(world) == before + 1
    assert go("GET", "corp.example/alone/@v/v1.0.0.zip").body == body
    assert go("GET", "corp.example/alone/@v/v1.0.0.mod").body == b"module corp.example/alone\n\ngo 1.21\n"
    info = json.loads(go("GET", "corp.example/alone/@v/v1.0.0.info").body)
    assert info["Version"] == "v1.0.0"
    assert abs(datetime.fromisoformat(info["Time"]) - datetime.now(UTC)) < timedelta(minutes=5)
    assert go("GET", "corp.example/alone/@v/list").body == b"v1.0.0\n"
    assert go("GET", "corp.example/alone/@latest").body == go("GET", "corp.example/alone/@v/v1.0.0.info").body


def test_three_files_publish_when_the_zip_comes_and_keep_their_time(world, go):
    path = "corp.example/three/@v/v1.0.0"
    info = b'{"Version":"v1.0.0","Time":"2024-05-06T07:08:09Z"}'
    mod = b"module corp.example/three\n\ngo 1.21\n"
    before = head(world)
    assert go("PUT", f"{path}.mod", mod).status == 202
    assert go("PUT", f"{path}.info", info).status == 202
    assert go("GET", f"{path}.mod").status == 404, "nothing is published before the zip"
    assert go("GET", "corp.example/three/@v/list").status == 404
    assert go("PUT", f"{path}.zip", make_zip("corp.example/three", "v1.0.0", SOURCE)).status == 201
    assert head(world) == before + 1
    assert json.loads(go("GET", f"{path}.info").body)["Time"] == "2024-05-06T07:08:09Z"
    assert go("PUT", f"{path}.mod", mod).status == 200
    assert go("PUT", f"{path}.info", info).status == 200
    assert head(world) == before + 1


def test_after_the_zip_its_mod_and_info_must_agree(go):
    path = "corp.example/agree/@v/v1.0.0"
    go("PUT", f"{path}.zip", make_zip("corp.example/agree", "v1.0.0", SOURCE))
    assert go("PUT", f"{path}.mod", b"module corp.example/agree\n\ngo 1.22\n").status == 409
    assert go("PUT", f"{path}.info", b'{"Version":"v1.0.0","Time":"2001-01-01T00:00:00Z"}').status == 409
    assert go("PUT", f"{path}.mod", b"module corp.example/another\n").status == 400
    assert go("PUT", f"{path}.info", b'{"Version":"v1.0.1"}').status == 400


def test_a_mod_put_before_that_differs_from_the_one_in_the_zip_stops_the_publication(world, go, clean):
    path = "corp.example/differs/@v/v1.0.0"
    assert go("PUT", f"{path}.mod", b"module corp.example/differs\n\ngo 1.20\n").status == 202
    before = head(world)
    answer = go("PUT", f"{path}.zip", make_zip("corp.example/differs", "v1.0.0", SOURCE))
    assert (answer.status, head(world)) == (409, before)
    assert go("GET", f"{path}.zip").status == 404


def test_the_same_zip_again_is_content_and_another_is_refused(world, go):
    path = "corp.example/again/@v/v1.0.0.zip"
    body = make_zip("corp.example/again", "v1.0.0", SOURCE)
    assert go("PUT", path, body).status == 201
    before = head(world)
    assert go("PUT", path, body).status == 200
    changed = go("PUT", path, make_zip("corp.example/again", "v1.0.0", {"lib.go": b"package changed\n"}))
    assert changed.status == 409
    assert changed.headers["X-Entrepot-Reason"].endswith("(rule: immutable)")
    assert head(world) == before
    assert go("GET", path).body == body


def test_a_version_that_was_deleted_comes_back_only_with_the_same_bytes(go):
    path = "corp.example/deleted/@v/v1.0.0.zip"
    body = make_zip("corp.example/deleted", "v1.0.0", SOURCE)
    go("PUT", path, body)
    info = go("GET", "corp.example/deleted/@v/v1.0.0.info").body
    assert go("DELETE", path).status == 204
    for file in ("v1.0.0.zip", "v1.0.0.mod", "v1.0.0.info", "list"):
        assert go("GET", f"corp.example/deleted/@v/{file}").status == 404
    assert go("PUT", path, make_zip("corp.example/deleted", "v1.0.0", {"lib.go": b"package changed\n"})).status == 409
    assert go("PUT", path, body).status == 201
    assert go("GET", "corp.example/deleted/@v/v1.0.0.info").body == info


def test_eight_who_publish_the_same_at_once_are_all_content(world, go):
    body = make_zip("corp.example/race", "v1.0.0", SOURCE)
    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(lambda _: go("PUT", "corp.example/race/@v/v1.0.0.zip", body).status, range(8)))
    assert statuses == [200] * 7 + [201]


def test_eight_who_publish_different_bytes_at_once_have_one_winner(world, go, clean):
    bodies = [make_zip("corp.example/fight", "v1.0.0", {"lib.go": f"package lib // {n}\n".encode()}) for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda body: go("PUT", "corp.example/fight/@v/v1.0.0.zip", body).status, bodies))
    assert sorted(statuses) == [201] + [409] * 7
    assert go("GET", "corp.example/fight/@v/v1.0.0.zip").body == bodies[statuses.index(201)]


def test_a_hundred_versions_published_at_once_are_all_listed_once(go):
    versions = [f"v1.{n}.0" for n in range(100)]
    with ThreadPoolExecutor(10) as pool:

        def put(version):
            return go("PUT", f"corp.example/many/@v/{version}.zip", make_zip("corp.example/many", version, SOURCE)).status

        assert set(pool.map(put, versions)) == {201}
    assert go("GET", "corp.example/many/@v/list").body.decode().split() == versions
    assert json.loads(go("GET", "corp.example/many/@latest").body)["Version"] == "v1.99.0"


def test_names_with_capitals_suffixes_and_incompatible_versions(go):
    for module, version, escaped in (
        ("corp.example/Azure/SDK", "v1.0.0", "corp.example/!azure/!s!d!k/@v/v1.0.0"),
        ("corp.example/lib/v2", "v2.1.0", "corp.example/lib/v2/@v/v2.1.0"),
        ("gopkg.in/corp.v3", "v3.0.1", "gopkg.in/corp.v3/@v/v3.0.1"),
        ("corp.example/lib", "v1.0.0-RC1", "corp.example/lib/@v/v1.0.0-!r!c1"),
    ):
        body = make_zip(module, version, SOURCE)
        assert go("PUT", f"{escaped}.zip", body).status == 201, module
        assert go("GET", f"{escaped}.zip").body == body
        assert f"{version}\n".encode() in go("GET", f"{escaped.partition('/@v/')[0]}/@v/list").body
    old = make_archive({"corp.example/old@v3.0.0+incompatible/lib.go": b"package lib\n"})
    refused = go("PUT", "corp.example/old/@v/v3.0.0+incompatible.zip", old)
    assert refused.status == 400 and "go.mod" in refused.reason


def test_latest_is_the_newest_release_and_commits_are_not_listed(go):
    for version in ("v0.0.0-20240102030405-abcdefabcdef", "v1.1.0-rc.1", "v1.0.0", "v1.0.9", "v1.0.10"):
        module = "corp.example/latest"
        assert go("PUT", f"{module}/@v/{version}.zip", make_zip(module, version, SOURCE)).status == 201
    assert go("GET", "corp.example/latest/@v/list").body.split() == [b"v1.0.0", b"v1.0.9", b"v1.0.10", b"v1.1.0-rc.1"]
    assert json.loads(go("GET", "corp.example/latest/@latest").body)["Version"] == "v1.0.10"


def test_a_virtual_has_the_union_of_lists_and_the_first_member_answers_for_a_version(go):
    mine, theirs = (make_zip("corp.example/union", "v1.0.0", {"who.go": f"package {who}\n".encode()}) for who in ("a", "b"))
    go("PUT", "corp.example/union/@v/v1.0.0.zip", mine)
    go("PUT", "corp.example/union/@v/v1.0.0.zip", theirs, repository="other")
    newer = make_zip("corp.example/union", "v1.2.0", SOURCE)
    go("PUT", "corp.example/union/@v/v1.2.0.zip", newer, repository="other")
    assert go("GET", "corp.example/union/@v/list", repository="both").body == b"v1.0.0\nv1.2.0\n"
    assert go("GET", "corp.example/union/@v/v1.0.0.zip", repository="both").body == mine
    assert json.loads(go("GET", "corp.example/union/@latest", repository="both").body)["Version"] == "v1.2.0"


MODULE, VERSION = "corp.example/bad", "v1.0.0"
PREFIX = f"{MODULE}@{VERSION}/"
GO_MOD = f"module {MODULE}\n".encode()
BAD_ZIPS = {
    "no zip": (b"no zip", "zip"),
    "empty": (b"", "zip"),
    "cut short": (make_zip(MODULE, VERSION, SOURCE)[:-20], "zip"),
    "damaged": (make_zip(MODULE, VERSION, {"a.go": b"x" * 1000}).replace(b"\x78\xda", b"\x78\x00", 1)[:-1] + b"\1", "zip"),
    "of another module": (make_zip("corp.example/evil", VERSION, SOURCE), "prefix"),
    "of another version": (make_zip(MODULE, "v1.0.1", SOURCE), "prefix"),
    "without a go.mod": (make_archive({f"{PREFIX}lib.go": b"package lib\n"}), "go.mod"),
    "whose go.mod is of another module": (make_zip(MODULE, VERSION, SOURCE, go_mod=b"module corp.example/evil\n"), "module"),
    "that escapes": (make_archive({f"{PREFIX}go.mod": GO_MOD, f"{PREFIX}../../etc/passwd": b"x"}), "zip"),
    "whose names differ by case": (make_archive({f"{PREFIX}go.mod": GO_MOD, f"{PREFIX}A.go": b"", f"{PREFIX}a.go": b""}), ""),
    "with another module inside": (make_archive({f"{PREFIX}go.mod": GO_MOD, f"{PREFIX}sub/go.mod": b"module x\n"}), "go.mod"),
    "that is a bomb": (make_archive({f"{PREFIX}go.mod": GO_MOD, f"{PREFIX}zeros": bytes(501 << 20)}), "zip"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_ZIPS)
def test_a_bad_zip_is_refused_with_the_reason_and_leaves_nothing(world, go, name, clean):
    body, word = BAD_ZIPS[name]
    before = world.counts()
    answer = go("PUT", f"{MODULE}/@v/{VERSION}.zip", body)
    assert answer.status in (400, 413), answer.body
    assert word in answer.body.decode().lower() and answer.body.count(b"\n") == 1
    assert "(rule: " in answer.headers["X-Entrepot-Reason"]
    assert world.counts() == before


@pytest.mark.parametrize(
    "path",
    [
        "corp.example/x/@v/1.0.0.zip",  # no v
        "corp.example/x/@v/v1.0.zip",  # abbreviated
        "corp.example/x/@v/v1.0.0+meta.zip",  # build data
        "corp.example/x/@v/v2.0.0.zip",  # no /v2
        "corp.example/x/v2/@v/v1.0.0.zip",
        "corp.example/Upper/@v/v1.0.0.zip",  # not escaped
        "corp.example/!1/@v/v1.0.0.zip",
        "nodot/x/@v/v1.0.0.zip",
        "corp.example/x/@v/v1.0.0.exe",
        "corp.example//x/@v/v1.0.0.zip",
        "corp.example/con/@v/v1.0.0.zip",
        f"corp.example/{'a' * 1100}/@v/v1.0.0.zip",
    ],
)
def test_a_name_that_go_would_not_take_is_refused(world, go, path):
    before = world.counts()
    answer = go("PUT", path, make_zip("corp.example/x", "v1.0.0", SOURCE))
    assert answer.status in (400, 404, 405, 414), answer.status
    assert answer.body.strip() and world.counts() == before
    if re.search(r"@v/v[^/]*\.zip$", path):
        assert answer.status in (400, 414), "a version that cannot be is refused with the reason"
