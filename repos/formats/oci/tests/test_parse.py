"""Names, digests and manifests: what is read, what is refused, and at what cost."""

from __future__ import annotations

import base64
import json
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from problems import Malformed
from repos.formats.oci import FORMAT, parse
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

SHA256 = "sha256:" + "a" * 64
SHA512 = "sha512:" + "b" * 128
TYPES = {MANIFEST: "layers", DOCKER_MANIFEST: "layers", INDEX: "manifests", DOCKER_LIST: "manifests"}
GENEROUS = 60
"""Seconds for what takes one or two; what grows with the square of its length would take many minutes."""


def refusal(content: bytes, media_type: str = MANIFEST) -> str:
    with pytest.raises(Malformed) as caught:
        parse.parse_manifest(content, media_type)
    assert caught.value.rule == "oci.manifest"
    return caught.value.detail


def document(**more: Any) -> dict[str, Any]:
    return {**json.loads(manifest(b"{}", b"layer")), **more}


def text(value: Any) -> bytes:
    return json.dumps(value).encode()


# Names


@pytest.mark.parametrize("name", ["a", "a/b/c", "a.b", "a_b", "a__b", "a-b", "a---b", "0", "corp.example/team/app", "a" * 255])
def test_a_path_is_split_into_what_its_url_says(name):
    assert parse.split(f"{name}/manifests/v1") == parse.Path(name, "manifests", "v1")
    assert parse.split(f"{name}/blobs/{SHA256}") == parse.Path(name, "blobs", SHA256)
    assert parse.split(f"{name}/referrers/{SHA256}") == parse.Path(name, "referrers", SHA256)
    assert parse.split(f"{name}/tags/list") == parse.Path(name, "tags")
    assert parse.split(f"{name}/blobs/uploads/") == parse.Path(name, "uploads")
    assert parse.split(f"{name}/blobs/uploads/5a") == parse.Path(name, "uploads", "5a")


@pytest.mark.parametrize(
    "name", ["", "A", "a/B", "-a", "a-", "a..b", "a._b", "a___b", ".a", "a/", "/a", "a//b", "a b", "ä", "a:b", "a" * 256, "a\n"]
)
def test_what_is_no_name_of_an_image_is_no_path(name):
    assert parse.split(f"{name}/manifests/v1") is None
    assert parse.image_of(f"{name}/manifests/v1") == ""


@pytest.mark.parametrize("name", ["manifests", "blobs", "uploads", "tags/list", "a/blobs/b", "a/manifests/b"])
def test_a_name_may_look_like_a_part_of_a_url(name):
    assert parse.split(f"{name}/manifests/v1") == parse.Path(name, "manifests", "v1")
    assert parse.split(f"{name}/blobs/uploads/") == parse.Path(name, "uploads")


@given(st.text(max_size=40) | st.from_regex(rf"{parse.NAME}/(manifests|blobs|tags|referrers)/[^/]*", fullmatch=True))
def test_whatever_is_split_can_be_put_together_again(path):
    parts = parse.split(path)
    if parts is None:
        return
    ends = {"tags": "tags/list", "uploads": f"blobs/uploads/{parts.reference}"}
    assert path.rstrip("/") == f"{parts.image}/{ends.get(parts.kind, f'{parts.kind}/{parts.reference}')}".rstrip("/")


@pytest.mark.parametrize("image", ["manifests", "a/manifests/b", "a/blobs/b"])
def test_what_an_image_is_called_says_nothing_of_what_is_in_it(image):
    blob, manifest_ = f"{image}/blobs/{SHA256}", f"{image}/manifests/{SHA256}"
    assert (FORMAT.limit(blob), FORMAT.sent_at_once(blob), FORMAT.package(blob)) == (None, True, image)
    assert (FORMAT.limit(manifest_), FORMAT.sent_at_once(manifest_)) == (parse.LARGEST_MANIFEST, False)


@pytest.mark.parametrize("reference", ["v1", "latest", "_", "A.b-c_D", "1", "a" * 128, "sha256", "sha256-aa", SHA256, SHA512])
def test_a_tag_and_a_digest_are_references(reference):
    parse.check_reference(reference)


@pytest.mark.parametrize("reference", ["", ".a", "-a", "a" * 129, "a b", "ä", "a\n", "a+b"])
def test_what_is_no_tag_is_refused(reference):
    with pytest.raises(Malformed) as caught:
        parse.check_reference(reference)
    assert caught.value.rule == "oci.tag"


@pytest.mark.parametrize(
    "wrong",
    [
        "", "sha256", "sha256:", "sha256:abc", SHA256[:-1], SHA256 + "a", SHA256.upper(), "SHA256:" + "a" * 64,
        "sha256:" + "A" * 64, "sha256:" + "g" * 64, "sha256:" + "a" * 63 + "\n", "sha256:" + "٣" * 64, "md5:" + "a" * 32,
        "sha384:" + "a" * 96, "sha512:" + "a" * 64, "sha256+b64:" + "a" * 64, f" {SHA256}", f"{SHA256} ",
    ],
)  # fmt: skip
def test_a_digest_is_written_in_one_way_only(wrong):
    with pytest.raises(Malformed) as caught:
        parse.check_digest(wrong)
    assert caught.value.rule == "oci.digest"


@given(st.binary(max_size=50), st.sampled_from(["sha256", "sha512"]))
def test_every_digest_of_a_known_algorithm_is_one(content, algorithm):
    assert parse.check_digest(digest(content, algorithm)) == tuple(digest(content, algorithm).split(":"))


# Manifests that are taken


@pytest.mark.parametrize("media_type", TYPES)
def test_each_kind_of_manifest_is_read(media_type):
    if TYPES[media_type] == "layers":
        content = manifest(b"{}", b"one", b"two", mediaType=media_type)
        expected = [(digest(b"{}"), "config"), (digest(b"one"), "layer"), (digest(b"two"), "layer")]
    else:
        child = manifest(b"{}", b"one")
        content = index(child, mediaType=media_type)
        expected = [(digest(child), "manifest")]
    found = parse.parse_manifest(content, media_type)
    assert found.media_type == media_type
    assert [(one.digest, one.kind) for one in found.references] == expected


def test_an_oci_manifest_need_not_say_its_type_but_dockers_must():
    silent = document()
    del silent["mediaType"]
    assert parse.parse_manifest(text(silent), MANIFEST).media_type == MANIFEST
    assert "says so in mediaType" in refusal(text(silent), DOCKER_MANIFEST)


def test_what_must_be_here_is_all_but_the_subject_and_what_is_not_distributed():
    foreign = [
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ]
    layers = [descriptor(b"here"), *(descriptor(kind.encode(), kind) for kind in foreign)]
    content = text(document(layers=layers, subject=descriptor(b"subject", MANIFEST)))
    found = parse.parse_manifest(content, MANIFEST)
    assert found.subject == digest(b"subject")
    assert found.needed("a") == {f"a/blobs/{digest(b'{}')}": 2, f"a/blobs/{digest(b'here')}": 4}


def test_what_an_artifact_is_it_says_itself_or_by_its_config():
    assert parse.parse_manifest(text(document(artifactType="application/x.sbom")), MANIFEST).facts["artifactType"] == (
        "application/x.sbom"
    )
    assert parse.parse_manifest(manifest(b"{}"), MANIFEST).facts["artifactType"] == CONFIG
    assert "artifactType" not in parse.parse_manifest(index(), INDEX).facts


def test_facts_tell_platforms_sizes_and_annotations():
    child = manifest(b"{}", b"12345")
    one = descriptor(child, MANIFEST, platform={"os": "linux", "architecture": "arm", "variant": "v7"})
    assert parse.parse_manifest(index(manifests=[one]), INDEX).facts["platforms"] == ["linux/arm/v7"]
    assert parse.parse_manifest(child, MANIFEST).facts["size"] == 7
    assert parse.parse_manifest(text(document(annotations={"a": "b"})), MANIFEST).facts["annotations"] == {"a": "b"}


def test_content_that_a_descriptor_holds_is_what_it_says():
    good = descriptor(b"{}", CONFIG, data=base64.b64encode(b"{}").decode())
    parse.parse_manifest(text(document(config=good)), MANIFEST)
    for data in (base64.b64encode(b"[]").decode(), "e30", "!", "", 5):
        assert "config.data" in refusal(text(document(config={**good, "data": data})))


def test_ten_thousand_descriptors_are_taken_and_one_more_is_not():
    layers = [descriptor(b"%d" % n) for n in range(10_000)]
    parse.parse_manifest(text(document(layers=layers[:9999])), MANIFEST)
    assert "descriptors" in refusal(text(document(layers=layers)))


def test_an_unknown_field_is_no_reason_to_refuse():
    parse.parse_manifest(text(document(history=[{"v1Compatibility": "{}"}], org={"x": [1, None, True, 1.5]})), MANIFEST)


# Manifests that are refused


@pytest.mark.parametrize("media_type", TYPES)
@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no JSON"), (b"not JSON", "no JSON"), (b"{", "no JSON"), (b"{}{}", "no JSON"), (b"\xff\xfe{}", "no JSON"),
        (b'{"a":"\xff"}', "no JSON"), (b"\xef\xbb\xbf{}", "no JSON"), (b'{"a":NaN}', "no JSON"), (b'{"a":Infinity}', "no JSON"),
        (b'{"a":-Infinity}', "no JSON"), (b'{"a":"\n"}', "no JSON"), (b'{"a":"b}', "no JSON"), (b'"', "no JSON"),
        (b'{"a":' + b"1" * 100_000 + b"}", "no JSON"), ("{}".encode("utf-16"), "no JSON"), (b"[]", "no JSON object"),
        (b"null", "no JSON object"), (b'"{}"', "no JSON object"), (b"1", "no JSON object"), (b"[" * 1000, "in one another"),
        (b"[" * 1000 + b"]" * 1000, "in one another"), (b'{"a":' * 1000 + b"1" + b"}" * 1000, "in one another"),
        (b'{"schemaVersion":2,"schemaVersion":2}', "stands twice"), (b'{"a":{"b":1,"b":2}}', "stands twice"),
        (b'{"a":1,"\\u0061":2}', "stands twice"),
    ],
)  # fmt: skip
def test_what_is_no_json_that_everybody_reads_alike_is_refused(media_type, content, why):
    assert why in refusal(content, media_type)


def test_brackets_in_a_text_are_no_depth():
    parse.parse_manifest(text(document(annotations={"a": '[{"\\' * 500})), MANIFEST)


@pytest.mark.parametrize("key", ["Layers", "layer\u017f", "LAYERS", "Manifests", "MediaType", "schemaversion", "Subject"])
def test_a_key_that_some_readers_take_for_another_is_refused(key):
    assert "is read as" in refusal(text(document(**{key: []})))


@pytest.mark.parametrize("key", ["Digest", "SIZE", "mediatype", "Url\u017f", "Platform"])
def test_a_descriptors_key_that_some_readers_take_for_another_is_refused(key):
    layer = {**document()["layers"][0], key: "x"}
    assert "layers[0]" in refusal(text(document(layers=[layer])))


def test_names_of_annotations_are_their_authors():
    assert parse.parse_manifest(text(document(annotations={"Digest": "a", "digest": "b"})), MANIFEST)


@pytest.mark.parametrize("version", [None, 1, 3, "2", True, [2], 2.0])
def test_any_schema_but_the_second_is_refused(version):
    assert "schemaVersion" in refusal(text(document(schemaVersion=version)))


def test_dockers_first_schema_is_refused():
    first = {"schemaVersion": 1, "name": "a", "tag": "b", "fsLayers": [], "history": []}
    for kind in ("json", "prettyjws"):
        media_type = f"application/vnd.docker.distribution.manifest.v1+{kind}"
        assert "is no manifest that is taken here" in refusal(text(first), media_type)
    assert "schemaVersion" in refusal(text(first))
    assert "fsLayers" in refusal(text(document(fsLayers=[])))


@pytest.mark.parametrize("media_type", TYPES)
def test_what_can_be_read_as_an_image_and_as_an_index_is_refused(media_type):
    both = {"schemaVersion": 2, "mediaType": media_type, "config": descriptor(b"{}", CONFIG), "layers": [], "manifests": []}
    assert "CVE-2021-41190" in refusal(text(both), media_type)


@pytest.mark.parametrize("said", TYPES)
@pytest.mark.parametrize("header", TYPES)
def test_a_manifest_is_what_its_header_says(said, header):
    body = {"schemaVersion": 2, "mediaType": said, TYPES[said]: []}
    if TYPES[said] == "layers":
        body["config"] = descriptor(b"{}", CONFIG)
    if said == header:
        assert parse.parse_manifest(text(body), header).media_type == header
    else:
        assert "they must be the same" in refusal(text(body), header)


@pytest.mark.parametrize("header", ["", "application/json", "text/plain", MANIFEST.upper(), f"{MANIFEST} x"])
def test_other_media_types_are_no_manifests(header):
    assert "is no manifest that is taken here" in refusal(manifest(b"{}"), header)


WRONG_DESCRIPTORS: list[Any] = [
    None, [], "x", {},
    *({**descriptor(b"x"), "digest": wrong} for wrong in (None, 1, "", "md5:" + "0" * 32, "sha256:abc", SHA256.upper(), "x")),
    *({**descriptor(b"x"), "size": wrong} for wrong in (None, "1", -1, 1.0, True, 2**63, 10**40, [])),
    *({**descriptor(b"x"), "mediaType": wrong} for wrong in (None, 1, "", "text", "a/b/c", "a/b; c=d", "a/" + "b" * 200, "a /b")),
    {**descriptor(b"x"), "urls": "http://a.example"},
    {**descriptor(b"x"), "urls": [1]},
    {**descriptor(b"x"), "annotations": []},
    {**descriptor(b"x"), "annotations": {"a": 1}},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG_DESCRIPTORS)
def test_a_descriptor_is_whole_wherever_it_stands(wrong):
    if wrong is not None:
        assert "subject" in refusal(text(document(subject=wrong)))
    assert "config" in refusal(text(document(config=wrong)))
    assert "layers[1]" in refusal(text(document(layers=[descriptor(b"y"), wrong])))
    assert "manifests[0]" in refusal(index(manifests=[wrong]), INDEX)


@pytest.mark.parametrize("wrong", [None, {}, "", 1])
def test_a_list_of_descriptors_is_a_list(wrong):
    assert "layers must be a list" in refusal(text(document(layers=wrong)))
    assert "manifests must be a list" in refusal(index(manifests=wrong), INDEX)


def test_one_digest_has_one_size():
    layers = [descriptor(b"x"), {**descriptor(b"x"), "size": 2}]
    assert "is said to have 1 bytes, and 2" in refusal(text(document(layers=layers)))


@pytest.mark.parametrize(
    "more",
    [
        {"annotations": []}, {"annotations": {"a": None}}, {"annotations": {"a": {}}}, {"artifactType": 1}, {"artifactType": ""},
        {"artifactType": "sbom"}, {"mediaType": 2}, {"mediaType": []},
    ],
)  # fmt: skip
def test_what_a_manifest_tells_of_itself_is_in_form(more):
    refusal(text(document(**more)))


@pytest.mark.parametrize("platform", [1, [], "linux/amd64", {"os": 1}, {"os": "linux", "architecture": []}])
def test_a_platform_is_in_form(platform):
    assert "platform" in refusal(index(manifests=[descriptor(b"x", MANIFEST, platform=platform)]), INDEX)


@pytest.mark.parametrize("character", ["\0", "\ud800", "a\udfffb"])
def test_texts_that_no_database_keeps_are_refused(character):
    assert "annotations" in refusal(text(document(annotations={"a": character})))
    assert "annotations" in refusal(text(document(annotations={character: "a"})))
    platform = {"os": "linux", "architecture": character}
    assert "platform" in refusal(index(manifests=[descriptor(b"x", MANIFEST, platform=platform)]), INDEX)


# Whatever is sent


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from([SHA256, MANIFEST, LAYER, 2]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "digest", "size"]), inner, max_size=3),
    max_leaves=8,
)
FIELDS = [
    "schemaVersion", "mediaType", "config", "layers", "manifests", "subject", "annotations", "artifactType", "fsLayers", "urls",
    "digest", "size", "platform", "data",
]  # fmt: skip


def read(content: bytes, media_type: str) -> parse.Manifest | None:
    """None: it was refused, by the rule of manifests."""
    try:
        return parse.parse_manifest(content, media_type)
    except Malformed as problem:
        return None if problem.rule == "oci.manifest" else pytest.fail(problem.reason)


@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4), st.sampled_from(list(TYPES)))
def test_a_manifest_with_anything_in_any_field_is_read_or_refused(fields, media_type):
    base = document(mediaType=media_type) if TYPES[media_type] == "layers" else json.loads(index(mediaType=media_type))
    found = read(text({**base, **fields}), media_type)
    assert found is None or all(parse.check_digest(one.digest) and one.size >= 0 for one in found.references)


@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4))
def test_a_descriptor_with_anything_in_any_field_is_read_or_refused(fields):
    one = {**descriptor(b"x", MANIFEST), **fields}
    for found in (read(text(document(layers=[one], subject=one)), MANIFEST), read(index(manifests=[one]), INDEX)):
        assert found is None or found.references[-1].digest == one["digest"]


@given(st.binary(max_size=60) | st.text(st.sampled_from('{}[]",:\\u0012eE.-ntf '), max_size=30).map(str.encode))
def test_any_bytes_are_refused_as_no_manifest(content):
    assert read(content, MANIFEST) is None


@given(st.lists(st.binary(max_size=20), max_size=6), st.binary(max_size=20))
def test_what_a_manifest_names_is_what_was_written(layers, config):
    found = parse.parse_manifest(manifest(config, *layers), MANIFEST)
    assert [one.digest for one in found.references] == [digest(config), *map(digest, layers)]
    assert found.needed("a") == {f"a/blobs/{digest(one)}": len(one) for one in [config, *layers]}


# Bombs


def filled(start: bytes, unit: bytes, end: bytes = b"") -> bytes:
    """As many units as the largest manifest has room for."""
    return start + unit * ((parse.LARGEST_MANIFEST - len(start) - len(end)) // len(unit)) + end


BOMBS = {
    "brackets that open": filled(b"", b"["),
    "brackets in turn": filled(b"[[]", b",[]", b"]"),
    "objects": filled(b"[{}", b",{}", b"]"),
    "quotes": filled(b"", b'"'),
    "quotes that are escaped": filled(b'"', b'\\"'),
    "a text with no end": filled(b'"', b"a"),
    "one long text": filled(b'["', b"a", b'"]'),
    "backslashes": filled(b"", b"\\"),
    "numbers": filled(b"[1", b",1", b"]"),
    "one long number": filled(b"", b"1"),
    "spaces": filled(b"", b" "),
    "the last of many keys twice": b"{" + b"".join(b'"%06x":1,' % n for n in range(380_000)) + b'"z":1,"z":1}',
    "many keys twice": filled(b'{"a":1', b',"a":1', b"}"),
    "texts with one quote too many": filled(b"", b'"a"') + b'"',
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_quickly_and_in_little_memory(name):
    content = BOMBS[name]
    assert len(content) <= parse.LARGEST_MANIFEST + 1
    begun = time.perf_counter()
    tracemalloc.start()
    try:
        refusal(content)
        assert tracemalloc.get_traced_memory()[1] < 32 * parse.LARGEST_MANIFEST
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - begun < GENEROUS
