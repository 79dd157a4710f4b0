"""What refers to a manifest: signatures, lists of contents and the like, found by their subject."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.flows.test_oci_tags import listed
from tests.parts.images import plain
from tests.parts.oci import CONFIG, INDEX, MANIFEST, descriptor, digest, index, manifest
from tests.parts.registryclient import CAST, RegistryClient

SUBJECT = manifest(b"{}", b"subject")
SBOM = "application/x.sbom"
SIGNATURE = "application/x.signature"


@pytest.fixture(scope="module")
def world(server):
    here = server(ENTREPOT_WORKERS="1")
    here.apply(CAST)
    RegistryClient(here, "local").by("developer").of("app").push(plain("subject"), "v1")
    return here


@pytest.fixture
def images(world) -> RegistryClient:
    return RegistryClient(world, "local").by("developer")


def attach(images: RegistryClient, image: str = "app", subject: bytes = SUBJECT, **more: Any) -> bytes:
    """An index, which needs nothing to be there, that refers to the subject."""
    content = index(subject=descriptor(subject, MANIFEST), **more)
    answer = images.of(image).put(digest(content), content)
    assert (answer.status, answer.headers["OCI-Subject"]) == (201, digest(subject))
    return content


def referrers(images: RegistryClient, subject: bytes = SUBJECT, image: str = "app", query: str = "") -> list[dict[str, Any]]:
    return listed(images, f"{image}/referrers/{digest(subject)}{query}")[0]["manifests"]


def test_a_referrer_is_listed_as_its_descriptor_with_type_and_annotations(images):
    content = attach(images, subject=b"descriptor", artifactType=SBOM, annotations={"made.by": "somebody"})
    answer = images.ask("GET", f"app/referrers/{digest(b'descriptor')}")
    assert (answer.status, answer.headers["Content-Type"]) == (200, INDEX)
    assert json.loads(answer.body) == {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [{**descriptor(content, INDEX), "artifactType": SBOM, "annotations": {"made.by": "somebody"}}],
    }
    head = images.ask("HEAD", f"app/referrers/{digest(b'descriptor')}")
    assert {**head.headers, "Date": ""} == {**answer.headers, "Date": ""}


def test_an_image_that_says_no_type_is_of_that_of_its_config(images):
    content = manifest(b"{}", b"subject", subject=descriptor(b"by config", MANIFEST))
    assert images.of("app").put(digest(content), content).status == 201
    assert [one["artifactType"] for one in referrers(images, b"by config")] == [CONFIG]


def test_what_nothing_refers_to_has_an_empty_list(images):
    for subject in (b"nothing at all", SUBJECT + b" "):
        assert referrers(images, subject) == []
    assert images.ask("GET", "nothing/referrers/" + digest(b"x")).status == 200


@pytest.mark.parametrize("wrong", ["v1", "sha256:abc", "md5:" + "0" * 32, "sha256:" + "A" * 64])
def test_a_subject_is_a_digest(images, wrong):
    answer = images.ask("GET", f"app/referrers/{wrong}")
    assert answer.status == 400
    assert json.loads(answer.body)["errors"][0]["code"] == "DIGEST_INVALID"


def test_a_list_of_one_type_says_that_it_is_one(images):
    contents = [
        attach(images, subject=b"types", artifactType=kind, text=str(n)) for n, kind in enumerate([SBOM, SIGNATURE, SBOM])
    ]
    answer = images.ask("GET", f"app/referrers/{digest(b'types')}?artifactType={SBOM}")
    assert answer.headers["OCI-Filters-Applied"] == "artifactType"
    assert [one["digest"] for one in json.loads(answer.body)["manifests"]] == sorted(digest(contents[n]) for n in (0, 2))
    whole = images.ask("GET", f"app/referrers/{digest(b'types')}")
    assert "OCI-Filters-Applied" not in whole.headers
    assert len(json.loads(whole.body)["manifests"]) == 3
    assert referrers(images, b"types", query="?artifactType=application/x.none") == []
    assert images.ask("GET", f"app/referrers/{digest(b'types')}?artifactType=%00").status in (200, 400)


def test_a_referrer_is_of_its_own_image(images):
    attach(images, "app", b"of app")
    assert referrers(images, b"of app", "other") == []
    assert referrers(images.by("developer", "other"), b"of app") == []


def test_a_referrer_to_what_is_absent_is_found_when_that_comes(images):
    subject = manifest(b"{}", b"later")
    attach(images, "later", subject)
    assert images.of("later").push(plain("later"), "v1") == subject
    assert len(referrers(images, subject, "later")) == 1


def test_a_referrer_of_which_there_is_nothing_to_say_is_listed_too(images):
    content = attach(images, subject=b"bare")
    assert referrers(images, b"bare") == [descriptor(content, INDEX)]
    assert referrers(images, b"bare", query=f"?artifactType={SBOM}") == []


def test_a_referrer_under_a_tag_is_listed_once(images):
    content = attach(images, subject=b"tagged")
    images.of("app").put("signature", content)
    images.of("app").put("again", content)
    assert [one["digest"] for one in referrers(images, b"tagged")] == [digest(content)]


def test_a_referrer_that_was_deleted_is_listed_no_more(images):
    first, second = attach(images, subject=b"deleted", text="1"), attach(images, subject=b"deleted", text="2")
    assert images.by("owner").ask("DELETE", f"app/manifests/{digest(first)}").status == 202
    assert [one["digest"] for one in referrers(images, b"deleted")] == [digest(second)]


def test_a_virtual_lists_those_of_all_members_once(images):
    both = attach(images, subject=b"virtual", text="both")
    here = attach(images, subject=b"virtual", text="here")
    other = images.by("developer", "other")
    attach(other, subject=b"virtual", text="both")
    there = attach(other, subject=b"virtual", text="there")
    found = referrers(images.by("reader", "virtual"), b"virtual")
    assert [one["digest"] for one in found] == sorted(map(digest, (both, here, there)))


def test_annotations_too_large_for_a_list_are_left_out_of_it(images):
    large = attach(images, subject=b"large", artifactType=SBOM, annotations={"text": "x" * 65_536})
    small = attach(images, subject=b"large", annotations={"text": "x" * 65_000})
    found = {one["digest"]: one for one in referrers(images, b"large")}
    assert found[digest(large)] == {**descriptor(large, INDEX), "artifactType": SBOM}
    assert found[digest(small)]["annotations"] == {"text": "x" * 65_000}
    assert images.of("app").get(digest(large)).body == large
    assert kept_of(images, small) > 65_000
    assert kept_of(images, large) < 200, "what is never told is not kept beside the bytes either"


def kept_of(images: RegistryClient, content: bytes) -> int:
    """Characters of what is kept to be told of a manifest."""
    told = "SELECT length(CAST(data AS text)) FROM repos_description JOIN repos_blob ON repos_blob.id = blob_id"
    (size,) = images.server.query(f"{told} WHERE sha256 = '{digest(content).removeprefix('sha256:')}'")
    return size


def test_many_platforms_of_an_index_are_not_told_with_its_referrer(images):
    """They are no more than is told of annotations, so that a list of referrers is never made from megabytes of each."""
    platform = {"os": "linux", "architecture": "x" * 1000}
    children = [images.of("app").push(plain(f"child {n}"), f"child{n}") for n in range(70)]
    content = index(subject=descriptor(b"platforms", MANIFEST), artifactType=SBOM)
    document = json.loads(content) | {"manifests": [descriptor(one, MANIFEST, platform=platform) for one in children]}
    content = json.dumps(document).encode()
    assert images.of("app").put(digest(content), content).status == 201
    assert [one["artifactType"] for one in referrers(images, b"platforms")] == [SBOM]
    assert kept_of(images, content) < 200


def test_bytes_of_a_referrer_that_stand_as_a_blob_only_are_not_listed(images):
    content = attach(images, subject=b"no manifest")
    images.of("layers-only").push_blob(content)
    assert referrers(images, b"no manifest", "layers-only") == []
    assert [one["digest"] for one in referrers(images, b"no manifest")] == [digest(content)]


def test_a_page_is_no_larger_than_what_clients_take_for_a_manifest(images):
    contents = [attach(images, subject=b"pages", annotations={"text": f"{n:065000}"}) for n in range(80)]
    found: list[str] = []
    path, pages = f"app/referrers/{digest(b'pages')}", 0
    while path:
        document, path = listed(images, path)
        assert len(json.dumps(document)) <= 4 * 1024 * 1024 + 200
        found += [one["digest"] for one in document["manifests"]]
        pages += 1
    assert found == sorted(map(digest, contents))
    assert pages == 2
