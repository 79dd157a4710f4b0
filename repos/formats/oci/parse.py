"""What the distribution specification calls things, and what a manifest has to be (OCI distribution-spec 1.1, image-spec 1.1).

An image's artefact paths are those of its URLs:

    <image>/blobs/<digest>            a layer or a config
    <image>/manifests/<digest>        a manifest or an index
    <image>/manifests/<tag>           the same bytes by a name that may move
    <image>/tags/list                 documents made from the others
    <image>/referrers/<digest>
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from problems import Malformed

NAME = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
TAG = r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}"
DIGEST = r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-zA-Z0-9=_-]+"
LONGEST_NAME = 255
"""Characters of an image's name: clients take a host and a name of 255 together."""
LENGTHS = {"sha256": 64, "sha512": 128}
"""Hexadecimal digits of a digest, by the algorithms that are taken (image-spec, descriptor: registered algorithms)."""
LARGEST_MANIFEST = 4 * 1024 * 1024
"""Bytes; the specification asks for at least as many."""
MOST_DESCRIPTORS = 10_000
DEEPEST = 64
"""Objects and lists in one another."""
MOST_PARTS = 10 * MOST_DESCRIPTORS
"""Objects and lists in all; a descriptor is one, and has few in it."""
LARGEST_SIZE = 2**63 - 1
LARGEST_FACT = 64 * 1024
"""Bytes of what is told of a manifest, such as its annotations, each written as JSON; of more nothing is told, or kept."""

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
INDEXES = (OCI_INDEX, DOCKER_LIST)
MEDIA_TYPES = (*MANIFESTS, *INDEXES)
NOT_DISTRIBUTED = re.compile(
    r"application/vnd\.oci\.image\.layer\.nondistributable\.v1\.tar(?:\+[a-z]+)?"
    r"|application/vnd\.docker\.image\.rootfs\.foreign\.diff\.tar(?:\.gzip|\.zstd)?"
)
"""Layers that are fetched from elsewhere and need not be here."""
MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}")
"""RFC 6838 section 4.2."""

PATH = re.compile(
    rf"(?P<image>{NAME})/(?:(?P<kind>manifests|blobs|referrers)/(?P<reference>[^/]+)|(?P<list>tags/list)"
    r"|blobs/uploads(?:/(?P<upload>[^/]*))?)"
)


@dataclass(frozen=True)
class Path:
    """The parts of an artefact path: `kind` is manifests, blobs, referrers, tags or uploads; `reference` a tag, digest or id."""

    image: str
    kind: str
    reference: str = ""

    @property
    def by_digest(self) -> bool:
        return ":" in self.reference


@lru_cache(maxsize=1024)  # a request asks for the parts of its path some ten times
def split(path: str) -> Path | None:
    """The parts of a path; None where it is none of an image's."""
    match = PATH.fullmatch(path)
    if match is None or len(match["image"]) > LONGEST_NAME:
        return None
    if match["list"]:
        return Path(match["image"], "tags")
    if match["kind"]:
        return Path(match["image"], match["kind"], match["reference"])
    return Path(match["image"], "uploads", match["upload"] or "")


def image_of(path: str) -> str:
    parts = split(path)
    return parts.image if parts else ""


def check_digest(text: str) -> tuple[str, str]:
    """Algorithm and hexadecimal digits. Raises Malformed for all that is not exactly as the image-spec writes a digest."""
    algorithm, _, digits = text.partition(":")
    if algorithm not in LENGTHS:
        known = " or ".join(LENGTHS)
        raise Malformed(f"{text[:80]} is no digest by {known}; write ALGORITHM:HEX", rule="oci.digest")
    if len(digits) != LENGTHS[algorithm] or not re.fullmatch("[0-9a-f]+", digits):
        raise Malformed(
            f"a {algorithm} digest has {LENGTHS[algorithm]} digits, all lower case; {text[:140]} has not", rule="oci.digest"
        )
    return algorithm, digits


def check_reference(reference: str) -> None:
    """Raises Malformed for what is neither a tag nor a digest."""
    if ":" in reference:
        check_digest(reference)
    elif not re.fullmatch(TAG, reference):
        raise Malformed(
            "a tag has 1 to 128 letters, digits, dots, dashes and underscores, and begins with none of dot and dash",
            rule="oci.tag",
        )


def digest_of(content: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


# Manifests


FOLDERS = {"config": "blobs", "layer": "blobs", "manifest": "manifests"}
"""Kinds of references that need what they name to be in the same image, and where."""


def place(image: str, digest: str, kind: str) -> str:
    """Where what a reference of such a kind names has to stand."""
    return f"{image}/{FOLDERS[kind]}/{digest}"


@dataclass(frozen=True)
class Reference:
    """A descriptor in a manifest. `kind`: config, layer, manifest or subject; `needed` where it has to be in the same image."""

    digest: str
    kind: str
    size: int
    needed: bool


@dataclass(frozen=True)
class Manifest:
    """What is read of a manifest or index."""

    media_type: str
    references: tuple[Reference, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    """What pages and the referrers API tell of it: artifactType, annotations, platforms, sizes."""

    @property
    def subject(self) -> str:
        return next((one.digest for one in self.references if one.kind == "subject"), "")

    def needed(self, image: str) -> dict[str, int]:
        """What has to stand in the image, by path, with the bytes that each is said to have."""
        return {place(image, one.digest, one.kind): one.size for one in self.references if one.needed}


def plain_media_type(header: str) -> str:
    """A Content-Type without its parameters."""
    return header.partition(";")[0].strip()


def stated_media_type(content: bytes) -> str:
    """What a manifest says that it is; registries that serve plain files say nothing of use beside it."""
    stated = _load(content).get("mediaType")
    return stated if isinstance(stated, str) else ""


def parse_manifest(content: bytes, media_type: str) -> Manifest:
    """Read a manifest that is said to be of this media type. Raises Malformed, with what is wrong and where."""
    document = _load(content)
    if media_type not in MEDIA_TYPES:
        raise _wrong(
            f"{media_type[:100] or 'no media type'} is no manifest that is taken here; send one of {', '.join(MEDIA_TYPES)}"
        )
    _check_keys(document, "", "")
    stated = document.get("mediaType")
    if stated is None and media_type.startswith("application/vnd.docker."):
        raise _wrong(f"a manifest of {media_type} says so in mediaType")
    if stated is not None and stated != media_type:
        raise _wrong(f"mediaType says {_shown(stated)} and Content-Type {media_type}; they must be the same")
    if document.get("schemaVersion") != 2 or not isinstance(document["schemaVersion"], int):
        raise _wrong("schemaVersion must be 2")
    for other in ("manifests",) if media_type in MANIFESTS else ("layers", "config"):
        if other in document:
            raise _wrong(f"{other} is not for {media_type}: it can be read as two different things (CVE-2021-41190)")
    if "fsLayers" in document:
        raise _wrong("fsLayers belongs to the first schema, which is taken no more")
    references = _references(document, media_type)
    if len(references) > MOST_DESCRIPTORS:
        raise _wrong(f"more than {MOST_DESCRIPTORS} descriptors")
    sizes: dict[str, int] = {}
    for one in references:
        if sizes.setdefault(one.digest, one.size) != one.size:
            raise _wrong(f"{one.digest} is said to have {sizes[one.digest]} bytes, and {one.size}")
    return Manifest(media_type, references, _facts(document, media_type, references))


def _load(content: bytes) -> dict[str, Any]:
    """JSON (RFC 8259) of which every reader makes the same: no key twice, no depth that breaks some, no NaN."""
    _check_shape(content)
    try:
        document = json.loads(content.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _wrong("it is no JSON") from error
    if not isinstance(document, dict):
        raise _wrong("it is no JSON object")
    return document


TEXT_OR_BRACKET = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{}"]', re.DOTALL)


def _check_shape(content: bytes) -> None:
    """Before it is read, in one pass that never goes back: how deep it is and how many objects and lists it has."""
    depth = count = 0
    for match in TEXT_OR_BRACKET.finditer(content):
        mark = match[0]
        if mark in (b"[", b"{"):
            depth, count = depth + 1, count + 1
            if depth > DEEPEST:
                raise _wrong(f"more than {DEEPEST} objects and lists in one another")
            if count > MOST_PARTS:
                raise _wrong(f"more than {MOST_PARTS} objects and lists")
        elif mark in (b"]", b"}"):
            depth -= 1
        elif mark == b'"':  # a text that does not end
            raise _wrong("it is no JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise _wrong(f"the key {_shown(twice)} stands twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _references(document: dict[str, Any], media_type: str) -> tuple[Reference, ...]:
    found: list[Reference] = []
    if media_type in MANIFESTS:
        found.append(_descriptor(document.get("config"), "config", "config"))
        found += [_descriptor(one, "layer", f"layers[{n}]") for n, one in enumerate(_list(document, "layers"))]
    else:
        found += [_descriptor(one, "manifest", f"manifests[{n}]") for n, one in enumerate(_list(document, "manifests"))]
    if document.get("subject") is not None:
        found.append(_descriptor(document["subject"], "subject", "subject"))
    return tuple(found)


def _list(document: dict[str, Any], key: str) -> list[Any]:
    value = document.get(key)
    if not isinstance(value, list):
        raise _wrong(f"{key} must be a list")
    return value


def _descriptor(value: Any, kind: str, where: str) -> Reference:
    """A content descriptor (image-spec, descriptor.md)."""
    if not isinstance(value, dict):
        raise _wrong(f"{where} must be a descriptor")
    _check_keys(value, "descriptor", f"{where}.")
    media_type, digest, size = value.get("mediaType"), value.get("digest"), value.get("size")
    if not isinstance(media_type, str) or not MEDIA_TYPE.fullmatch(media_type):
        raise _wrong(f"{where}.mediaType is no media type")
    if not isinstance(digest, str):
        raise _wrong(f"{where}.digest is missing")
    try:
        check_digest(digest)
    except Malformed as problem:
        raise _wrong(f"{where}.digest: {problem.detail}") from problem
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= LARGEST_SIZE:
        raise _wrong(f"{where}.size must be a number of bytes")
    _check_urls(value.get("urls", []), where)
    _annotations(value, where)
    _check_data(value.get("data"), digest, size, where)
    needed = kind != "subject" and not (kind == "layer" and NOT_DISTRIBUTED.fullmatch(media_type))
    return Reference(digest, kind, size, needed)


def _check_urls(urls: Any, where: str) -> None:
    if not isinstance(urls, list) or not all(isinstance(url, str) for url in urls):
        raise _wrong(f"{where}.urls must be a list of addresses")


def _check_data(data: Any, digest: str, size: int, where: str) -> None:
    """Embedded content must be what the descriptor says."""
    if data is None:
        return
    try:
        content = base64.b64decode(data, validate=True) if isinstance(data, str) else None
    except binascii.Error:
        content = None
    if content is None or len(content) != size or digest_of(content, digest.partition(":")[0]) != digest:
        raise _wrong(f"{where}.data is not what its digest and size say")


def _annotations(value: dict[str, Any], where: str) -> dict[str, str]:
    annotations = value.get("annotations")
    if annotations is None:
        return {}
    if not isinstance(annotations, dict) or not all(_is_text(text) for pair in annotations.items() for text in pair):
        raise _wrong(f"{where}.annotations must map names to texts" if where else "annotations must map names to texts")
    return annotations


def _is_text(value: Any) -> bool:
    """Text that can be kept: no surrogate without its other half (RFC 8259 section 8.2), no NUL, which databases do not take."""
    return isinstance(value, str) and not re.search("[\0\ud800-\udfff]", value)


def _facts(document: dict[str, Any], media_type: str, references: tuple[Reference, ...]) -> dict[str, Any]:
    artifact_type = document.get("artifactType")
    if artifact_type is not None and (not isinstance(artifact_type, str) or not MEDIA_TYPE.fullmatch(artifact_type)):
        raise _wrong("artifactType is no media type")
    if not artifact_type and media_type in MANIFESTS:
        artifact_type = document["config"]["mediaType"]
    facts = {
        "artifactType": artifact_type,
        "annotations": _annotations(document, ""),
        "platforms": list(_platforms(document)) if media_type in INDEXES else None,
        "size": sum(one.size for one in references if one.kind in ("config", "layer")) if media_type in MANIFESTS else None,
    }
    return {name: value for name, value in facts.items() if value and len(json.dumps(value)) <= LARGEST_FACT}


def _platforms(document: dict[str, Any]) -> Iterator[str]:
    for n, one in enumerate(document["manifests"]):
        platform = one.get("platform")
        if platform is None:
            continue
        if not isinstance(platform, dict):
            raise _wrong(f"manifests[{n}].platform must be an object")
        _check_keys(platform, "platform", f"manifests[{n}].platform.")
        words = [platform.get(name) for name in ("os", "architecture", "variant")]
        if not all(word is None or _is_text(word) for word in words):
            raise _wrong(f"manifests[{n}].platform must hold texts")
        yield "/".join(word for word in words if word)


KEYS = {
    "": ["schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject", "annotations", "fsLayers"],
    "descriptor": ["mediaType", "digest", "size", "urls", "annotations", "data", "artifactType", "platform"],
    "platform": ["architecture", "os", "os.version", "os.features", "variant", "features"],
}
"""The keys that mean something, by where they stand."""
FOLDED = {place: {key.casefold(): key for key in keys} for place, keys in KEYS.items()}


def _check_keys(value: dict[str, Any], place: str, where: str) -> None:
    """Some readers take a key in any case, so that `Layers` would be `layers` to them and nothing to others."""
    for key in value:
        known = FOLDED[place].get(key.casefold(), key)
        if known != key:
            raise _wrong(f"{where}{_shown(key)} is read as {known} by some and as nothing by others; write {known}")


def _shown(value: Any) -> str:
    return repr(value)[:100]


def _wrong(what: str) -> Malformed:
    return Malformed(f"the manifest is refused: {what}", rule="oci.manifest")
