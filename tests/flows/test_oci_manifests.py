"""Manifests are kept to the byte, are taken only whole, and move tags in one change."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.parts.api import ADMIN, Api
from tests.parts.images import plain
from tests.parts.oci import (
    CONFIG,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    INDEX,
    LAYER,
    MANIFEST,
    descriptor,
    digest,
    index,
    manifest,
)
from tests.parts.registryclient import CAST, RegistryClient, code

LARGEST = 4 * 1024 * 1024
FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"


@pytest.fixture(scope="module")
def world(server):
    here = server(ENTREPOT_WORKERS="2")
    here.apply(CAST)
    RegistryClient(here, "local").by("developer").of("app").push(plain("layer"), "base")
    return here


@pytest.fixture
def images(world) -> RegistryClient:
    """The image `app` has the config `{}` and a layer `layer`, and a manifest of both."""
    return RegistryClient(world, "local").by("developer")


@pytest.fixture
def nothing_stored_by_refusal(images, world):
    """Put what must be refused, by a tag and by its digest, with this status and code and nothing added."""

    def refused(image: str, content: bytes, status: int, error: str, media_type: str = MANIFEST) -> None:
        before = world.counts(), world.query("SELECT count(*) FROM repos_blob")
        for reference in ("refused", digest(content)):
            answer = images.of(image).put(reference, content, media_type)
            assert (answer.status, code(answer)) == (status, error), answer
        assert (world.counts(), world.query("SELECT count(*) FROM repos_blob")) == before

    return refused


def document(**more: Any) -> bytes:
    """A manifest of what the image `app` has."""
    return json.dumps({**json.loads(manifest(b"{}", b"layer")), **more}).encode()


BASE = document()


# What is taken


@pytest.mark.parametrize("media_type", [MANIFEST, DOCKER_MANIFEST, INDEX, DOCKER_LIST])
def test_a_manifest_comes_back_to_the_byte_as_what_it_was(images, media_type):
    content = document(mediaType=media_type) if media_type in (MANIFEST, DOCKER_MANIFEST) else index(BASE, mediaType=media_type)
    content = b"\n  " + content.replace(b", ", b" ,\t") + b"\r\n\r\n"
    name = digest(content)
    answer = images.of("app").put("kinds", content)
    assert (answer.status, answer.headers["Docker-Content-Digest"]) == (201, name)
    assert answer.headers["Location"] == f"/v2/local/app/manifests/{name}"
    for reference in ("kinds", name):
        found = images.of("app").get(reference)
        assert (found.status, found.body, found.headers["Content-Type"]) == (200, content, media_type)
        assert found.headers["Docker-Content-Digest"] == name


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_manifest_is_taken_by_its_digest_alone(images, world, algorithm):
    content = document(annotations={"by": algorithm})
    answer = images.of("app").put(digest(content, algorithm), content)
    assert (answer.status, answer.headers["Docker-Content-Digest"]) == (201, digest(content, algorithm))
    found = images.of("app").get(digest(content, algorithm))
    assert (found.body, found.headers["Docker-Content-Digest"]) == (content, digest(content, algorithm))
    assert world.query(f"SELECT count(*) FROM repos_asset WHERE version LIKE '%{digest(content, algorithm)}'") == (1,)


def test_a_content_type_may_have_parameters(images):
    for n, header in enumerate((f"{MANIFEST}; charset=utf-8", f"{MANIFEST};charset=UTF-8", f" {MANIFEST} ")):
        content = document(annotations={"n": str(n)})
        assert images.of("app").put("parameters", content, header).status == 201
        assert images.of("app").get("parameters").headers["Content-Type"] == MANIFEST


def test_artifacts_of_any_kind_are_taken(images):
    empty = {**descriptor(b"{}", "application/vnd.oci.empty.v1+json"), "data": base64.b64encode(b"{}").decode()}
    chart = descriptor(b"{}", "application/x.chart.v1+json")
    for more in ({"artifactType": "application/x.sbom", "config": empty}, {"config": chart}):
        assert images.of("app").put("artifact", document(layers=[descriptor(b"layer", "text/x.spdx")], **more)).status == 201


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("kind", [MANIFEST, INDEX])
def test_a_subject_may_be_absent_and_is_told_of(images, there, kind):
    subject = descriptor(BASE if there else b"nowhere", MANIFEST)
    content = document(subject=subject) if kind == MANIFEST else index(BASE, subject=subject)
    answer = images.of("app").put(digest(content), content)
    assert (answer.status, answer.headers["OCI-Subject"]) == (201, subject["digest"])


def test_without_a_subject_none_is_told_of(images):
    assert "OCI-Subject" not in images.of("app").put("plain", BASE).headers


def test_layers_that_are_not_distributed_need_not_be_here(images):
    foreign = descriptor(b"elsewhere", FOREIGN, urls=["https://elsewhere.example/layer"])
    assert images.of("app").put("foreign", document(layers=[foreign, descriptor(b"layer")])).status == 201


def test_a_chain_of_indexes_is_taken_and_each_needs_the_next(images, nothing_stored_by_refusal):
    inner = BASE
    for n in range(20):
        outer = index(inner, text=f"level {n}")
        nothing_stored_by_refusal("app", index(outer, text="too early"), 400, "MANIFEST_BLOB_UNKNOWN", INDEX)
        assert images.of("app").put(digest(outer), outer).status == 201
        inner = outer


def test_the_largest_manifest_is_taken(images):
    content = filled(LARGEST)
    assert images.of("app").put("largest", content).status == 201
    assert images.of("app").get("largest").body == content


def filled(size: int) -> bytes:
    room = size - len(document(annotations={"text": ""}))
    return document(annotations={"text": "x" * room})


# What is refused


REFUSED = {
    "not JSON": b"this is no manifest",
    "empty": b"",
    "a list": b"[]",
    "of text that is no UTF-8": document(annotations={"a": "b"}).replace(b'"b"', b'"\xff"'),
    "in UTF-16": document().decode().encode("utf-16"),
    "with NaN": document(annotations={"a": "b"}).replace(b'"b"', b"NaN"),
    "with NUL in a text": document(annotations={"a": "\0"}),
    "with half a surrogate pair": document(annotations={"a": "\ud800"}),
    "nested a thousand deep": document(x=[]).replace(b"[]", b"[" * 1000 + b"]" * 1000),
    "nested a million deep": b'{"a":' * 600_000,
    "with a key twice": document().replace(b"{", b'{"schemaVersion": 2, ', 1),
    "with layers and manifests": document(manifests=[]),
    "without config": json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "layers": []}).encode(),
    "without layers": json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(b"{}", CONFIG)}).encode(),
    "with a digest of an unknown algorithm": document(layers=[{**descriptor(b"layer"), "digest": "md5:" + "0" * 32}]),
    "with a digest in upper case": document(layers=[{**descriptor(b"layer"), "digest": digest(b"layer").upper()}]),
    "with a digest too short": document(layers=[{**descriptor(b"layer"), "digest": "sha256:abc"}]),
    "with a number past all bounds": document(layers=[{**descriptor(b"layer"), "size": 10**30}]),
    "with a size below zero": document(layers=[{**descriptor(b"layer"), "size": -1}]),
    "with more descriptors than are taken": document(layers=[descriptor(b"layer")] * 10_000),
    "of the first schema": json.dumps({"schemaVersion": 1, "fsLayers": []}).encode(),
    "with a subject that is none": document(subject={"digest": "x"}),
    "another kind than its header says": index(BASE),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_manifest_is_refused_that_is(nothing_stored_by_refusal, name):
    nothing_stored_by_refusal("app", REFUSED[name], 400, "MANIFEST_INVALID")


@pytest.mark.parametrize(
    "media_type",
    [
        "", "application/json", "text/plain", DOCKER_MANIFEST, INDEX, DOCKER_LIST, CONFIG, LAYER,
        "application/vnd.docker.distribution.manifest.v1+json", "application/vnd.docker.distribution.manifest.v1+prettyjws",
    ],
)  # fmt: skip
def test_a_manifest_is_refused_under_a_type_that_is_not_its_own(images, nothing_stored, media_type):
    answer = images.ask("PUT", "app/manifests/refused", BASE, Content_Type=media_type)
    assert (answer.status, code(answer)) == (400, "MANIFEST_INVALID")


@pytest.mark.parametrize("kind", ["config", "layer", "child"])
def test_what_a_manifest_needs_must_be_in_the_image(images, nothing_stored_by_refusal, kind):
    """Though another image of the repository has it."""
    images.of("elsewhere").push(plain("elsewhere"), "v1")
    other = manifest(b"{}", b"elsewhere")
    content, media_type = {
        "config": (document(config=descriptor(b"elsewhere", CONFIG)), MANIFEST),
        "layer": (document(layers=[descriptor(b"layer"), descriptor(b"elsewhere")]), MANIFEST),
        "child": (index(BASE, other), INDEX),
    }[kind]
    nothing_stored_by_refusal("app", content, 400, "MANIFEST_BLOB_UNKNOWN", media_type)


def test_a_layer_is_no_child_and_a_manifest_no_layer(nothing_stored_by_refusal):
    nothing_stored_by_refusal("app", index(manifests=[descriptor(b"layer", MANIFEST)]), 400, "MANIFEST_BLOB_UNKNOWN", INDEX)
    nothing_stored_by_refusal("app", document(layers=[descriptor(BASE)]), 400, "MANIFEST_BLOB_UNKNOWN")


@pytest.mark.parametrize("size", [0, 4, 6, 2**63 - 1])
def test_a_size_that_is_not_that_of_what_is_here_is_refused(nothing_stored_by_refusal, size):
    nothing_stored_by_refusal("app", document(layers=[{**descriptor(b"layer"), "size": size}]), 400, "SIZE_INVALID")
    child = {**descriptor(BASE, MANIFEST), "size": len(BASE) + 1}
    nothing_stored_by_refusal("app", index(manifests=[child]), 400, "SIZE_INVALID", INDEX)


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_larger_manifest_is_refused(images, nothing_stored, framing):
    content = filled(LARGEST + 1)
    body = content if framing == "length" else iter([content])
    answer = images.ask("PUT", "app/manifests/refused", body, Content_Type=MANIFEST)
    assert (answer.status, code(answer)) == (413, "SIZE_INVALID")


BOMBS = {
    "of brackets": b"[{}" + b",{}" * 1_300_000,
    "of quotes": b'"' + b'\\"' * 2_000_000,
    "of one text": b'{"a":"' + b"a" * 4_000_000,
    "of keys": b"{" + b"".join(b'"%06x":1,' % n for n in range(350_000)) + b'"z":1,"z":1}',
}


def test_bombs_at_once_cost_the_server_little(images, world):
    """reliability: they are refused, and the server's memory stays where it was."""
    warm = filled(LARGEST - 1)
    with ThreadPoolExecutor(8) as pool:
        assert {answer.status for answer in pool.map(lambda _: images.of("app").put("warm", warm), range(32))} == {201}
    counts = world.counts()
    before = world.memory_peak()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda name: images.of("app").put("refused", BOMBS[name], MANIFEST), [*BOMBS] * 4))
    assert {(answer.status, code(answer)) for answer in answers} == {(400, "MANIFEST_INVALID")}
    assert world.memory_peak() - before < 700 * 1024 * 1024
    assert world.counts() == counts


@pytest.mark.parametrize("reference", [".v1", "-v1", "a" * 129, "v1+x", "v%201", "sha256:abc", "sha256:" + "A" * 64, "md5:0"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_what_is_neither_tag_nor_digest_is_refused(images, nothing_stored, reference, method):
    body, headers = (BASE, {"Content_Type": MANIFEST}) if method == "PUT" else (None, {})
    answer = images.by("owner").ask(method, f"app/manifests/{reference}", body, **headers)
    assert answer.status == 400
    if method != "HEAD":
        assert code(answer) == ("DIGEST_INVALID" if ":" in reference else "TAG_INVALID")


def test_a_manifest_under_another_digest_is_refused(images, nothing_stored):
    for other in (digest(b"other"), digest(b"other", "sha512")):
        answer = images.of("app").put(other, BASE)
        assert (answer.status, code(answer)) == (400, "DIGEST_INVALID")


# One change


def change(images: RegistryClient) -> int:
    """The number of the repository's newest change."""
    return images.server.query(f"SELECT head FROM repos_repository WHERE key = '{images.name}'")[0]


def test_a_manifest_and_its_tag_are_one_change(images):
    content = document(annotations={"one": "change"})
    before = change(images)
    assert images.of("app").put("together", content).status == 201
    assert change(images) == before + 1
    rows = images.server.rows(f"SELECT path FROM repos_asset WHERE since = {before + 1} AND package = 'app'")
    assert sorted(rows) == [(f"app/manifests/{digest(content)}",), ("app/manifests/together",)]


def test_the_same_push_again_makes_no_change(images):
    content = images.of("again").push(plain("again"), "v1")
    before = change(images)
    assert images.of("again").push(plain("again"), "v1") == content
    assert change(images) == before
    assert images.of("again").put("v2", content).status == 201
    assert change(images) == before + 1
    rows = images.server.rows(f"SELECT path FROM repos_asset WHERE since = {before + 1} AND package = 'again'")
    assert rows == [("again/manifests/v2",)], "another tag of what is here is the tag alone"


def test_a_tag_that_moved_keeps_its_former_digests_in_the_history(images):
    contents = [images.of("moving").push(plain(f"version {n}"), "latest") for n in range(3)]
    assert images.of("moving").get("latest").body == contents[-1]
    api = Api(images.server, ADMIN)
    told = api.items("repositories/local/assets/moving/manifests/latest")
    assert [f"sha256:{one['digests']['sha256']}" for one in told] == [digest(content) for content in reversed(contents)]
    for content, one in zip(reversed(contents), told, strict=True):
        then = api.items(f"repositories/local/assets/?at={one['since']}")
        tag = next(each for each in then if each["path"] == "moving/manifests/latest")
        assert f"sha256:{tag['digests']['sha256']}" == digest(content)
        assert images.of("moving").get(digest(content)).body == content


# Reading


def test_a_head_tells_what_a_get_would(images):
    images.of("app").put("head", BASE)
    for reference in ("head", digest(BASE)):
        get, head = images.of("app").get(reference), images.ask("HEAD", f"app/manifests/{reference}")
        assert (head.status, head.body) == (200, b"")
        assert {**head.headers, "Date": ""} == {**get.headers, "Date": ""}
        assert get.headers["Content-Length"] == str(len(BASE))


def test_who_has_a_manifest_already_gets_304(images):
    images.of("app").put("etag", BASE)
    etag = images.of("app").get("etag").headers["ETag"]
    for tag in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = images.of("app").get("etag", If_None_Match=tag)
        assert (again.status, again.body) == (304, b"")
    assert images.of("app").get("etag", If_None_Match='"other"').status == 200


def test_a_tag_is_asked_for_again_and_a_digest_never(images):
    images.of("app").put("cached", BASE)
    assert images.of("app").get("cached").headers["Cache-Control"] == "private, no-cache"
    assert "immutable" in images.of("app").get(digest(BASE)).headers["Cache-Control"]


@pytest.mark.parametrize("accept", ["", "*/*", INDEX, f"{DOCKER_MANIFEST}, {DOCKER_LIST}", "text/html", "application/json;q=0.1"])
def test_a_manifest_is_answered_whatever_is_accepted(images, accept):
    """Clients rely on it, and a digest has one media type."""
    images.of("app").put("accept", BASE)
    for reference in ("accept", digest(BASE)):
        answer = images.of("app").get(reference, Accept=accept)
        assert (answer.status, answer.headers["Content-Type"], answer.body) == (200, MANIFEST, BASE)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("app/manifests/nothing", "MANIFEST_UNKNOWN"), (f"app/manifests/{digest(b'nothing')}", "MANIFEST_UNKNOWN"),
        (f"app/blobs/{digest(b'nothing')}", "BLOB_UNKNOWN"), ("nothing/manifests/v1", "MANIFEST_UNKNOWN"),
        ("nothing/tags/list", "NAME_UNKNOWN"), ("app/blobs/uploads/nothing", "BLOB_UPLOAD_UNKNOWN"),
        ("/v2/nowhere/app/blobs/uploads/nothing", "NAME_UNKNOWN"), ("/v2/nowhere/app/tags/list", "NAME_UNKNOWN"),
    ],
)  # fmt: skip
def test_what_is_absent_is_told_in_the_words_of_the_specification(images, path, error):
    answer = images.ask("GET", path)
    assert (answer.status, code(answer)) == (404, error)
    assert answer.headers["Content-Type"] == "application/json"


def test_rows_and_bytes_agree_after_all_of_it(world):
    assert world.manage("fsck", "--scrub", "--grace", "3600").stdout.strip() == "clean"
