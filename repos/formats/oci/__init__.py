"""OCI and Docker images and artifacts: the distribution specification 1.1."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from problems import Malformed, Problem, TooLarge
from repos.catalogue import Repo, Upstream
from repos.format import Described, Format, OpenBlob, Question
from repos.formats.oci import parse
from repos.upstream import Answer

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest

    from repos.models import Asset

BYTES = "application/octet-stream"
JSON = "application/json"


class Oci(Format):
    key = "oci"
    aliases = ("docker",)
    part = "/blobs/"

    @property
    def mount(self) -> str:
        return "v2/"

    def lifetime(self, path: str, default: timedelta) -> timedelta | None:
        """What a digest names never changes; a tag may move."""
        return None if self.digest(path) else default

    def package(self, path: str) -> str:
        """The image."""
        return parse.image_of(path)

    def names(self, path: str) -> tuple[str, ...]:
        """A tag also as IMAGE:TAG, so that `team/*:v*` tells which tags never move."""
        parts = parse.split(path)
        if parts is None or parts.kind != "manifests" or parts.by_digest:
            return (path,)
        return (path, f"{parts.image}:{parts.reference}")

    def digest(self, path: str) -> str:
        parts = parse.split(path)
        named = parts is not None and parts.kind in ("manifests", "blobs") and parts.by_digest
        return parts.reference if parts and named else ""

    def stands_also_at(self, path: str, sha256: str) -> tuple[str, ...]:
        """A tag's manifest stands under its digest too."""
        parts = parse.split(path)
        if parts is None or parts.kind != "manifests" or parts.by_digest:
            return ()
        return (f"{parts.image}/manifests/sha256:{sha256}",)

    def limit(self, path: str) -> int | None:
        parts = parse.split(path)
        return parse.LARGEST_MANIFEST if parts and parts.kind == "manifests" else None

    def sent_at_once(self, path: str) -> bool:
        """A manifest's first client needs its media type, which is sure at the end."""
        parts = parse.split(path)
        return parts is not None and parts.kind == "blobs"

    def describe(self, path: str, open_blob: OpenBlob, *, published: bool, media_type: str = "") -> Described:
        parts = parse.split(path)
        if parts is None:
            raise Malformed(f"{path} is no path of an image", rule="oci.name")
        if parts.kind == "blobs":
            return Described(parts.image, parts.reference, BYTES)
        with open_blob() as file:
            content = file.read(parse.LARGEST_MANIFEST + 1)
        if len(content) > parse.LARGEST_MANIFEST:
            raise TooLarge(f"a manifest has at most {parse.LARGEST_MANIFEST} bytes", rule="oci.manifest")
        if parts.kind != "manifests":
            return Described(parts.image, "", JSON)
        plain = parse.plain_media_type(media_type)
        if not published and plain not in parse.MEDIA_TYPES:
            plain = parse.stated_media_type(content)
        return described(parts, parse.parse_manifest(content, plain))

    def asked_for(self, repo: Repo, path: str, query: Mapping[str, str]) -> str:
        """containerd says by `ns` which registry it means; where an upstream stands for that one, the path begins with it.

        A port follows an underscore there, since no part of an image's name has a colon.
        """
        namespace = query.get("ns", "").replace(":", "_")
        if not namespace:
            return path
        folders = {source.folder for one in repo.answering for source in one.upstreams}
        return f"{namespace}/{path}" if namespace in folders else path

    def ask(self, upstream: Upstream, question: Question) -> Answer | None:
        from repos.formats.oci import remote

        return remote.ask(upstream, question)

    def referred_to(self, path: str, digest: str, kind: str) -> str:
        parts = parse.split(path)
        if parts is None or parts.kind != "manifests" or kind not in parse.FOLDERS:
            return ""
        return parse.place(parts.image, digest, kind)

    def unheld(self, assets: QuerySet[Asset], before: datetime) -> QuerySet[Asset]:
        from repos.formats.oci import index

        return index.unheld(assets, before)

    def challenge(self, request: HttpRequest, target: str, *, insufficient: bool) -> str:
        from repos.formats.oci import tokens

        return tokens.challenge(request, target, insufficient=insufficient)

    def error(self, problem: Problem, target: str) -> tuple[str, bytes]:
        return JSON, json.dumps({"errors": [{"code": _code(problem, target), "message": problem.reason}]}).encode()

    def setup(self, repo: Repo, base_url: str, *, signed_in: bool) -> str:
        from repos.formats.oci.setup import instructions

        return instructions(base_url, repo.key, signed_in=signed_in, pushes=repo.is_local or repo.deploy_to is not None)

    def default_upstream(self) -> str | None:
        from repos.formats.oci.setup import configured_mirror

        return configured_mirror()


def described(parts: parse.Path, manifest: parse.Manifest) -> Described:
    """A manifest as its rows tell of it."""
    references = tuple(
        (one.digest, one.kind if one.needed or one.kind == "subject" else "elsewhere") for one in manifest.references
    )
    return Described(parts.image, parts.reference, manifest.media_type, "manifest", manifest.facts, references)


CODES = {
    "oci.digest": "DIGEST_INVALID",
    "digest.mismatch": "DIGEST_INVALID",
    "oci.manifest": "MANIFEST_INVALID",
    "reference.missing": "MANIFEST_BLOB_UNKNOWN",
    "reference.size": "SIZE_INVALID",
    "oci.name": "NAME_INVALID",
    "oci.tag": "TAG_INVALID",
    "upload.session": "BLOB_UPLOAD_UNKNOWN",
    "upload.order": "BLOB_UPLOAD_INVALID",
    "body.incomplete": "BLOB_UPLOAD_INVALID",
    "body.range": "BLOB_UPLOAD_INVALID",
    "body.length": "SIZE_INVALID",
    "size.limit": "SIZE_INVALID",
}
"""The specification's error codes by the rules that lead to them."""
BY_STATUS = {401: "UNAUTHORIZED", 403: "DENIED", 405: "UNSUPPORTED", 409: "DENIED", 415: "UNSUPPORTED", 429: "TOOMANYREQUESTS"}


def _code(problem: Problem, target: str) -> str:
    """The code of an error (distribution-spec, error codes), which depends on nothing but the problem and what was asked for."""
    if problem.rule == "insufficient_scope":
        return "DENIED"
    if problem.rule in CODES:
        return CODES[problem.rule]
    if problem.status == 404:
        kinds = {"/manifests/": "MANIFEST_UNKNOWN", "/blobs/uploads": "NAME_UNKNOWN", "/blobs/": "BLOB_UNKNOWN"}
        return next((code for part, code in kinds.items() if part in target), "NAME_UNKNOWN")
    return BY_STATUS.get(problem.status, "NAME_INVALID" if problem.status == 400 else "UNKNOWN")


FORMAT = Oci()
