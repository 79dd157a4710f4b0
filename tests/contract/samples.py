"""For each format what the contract suite needs to know of it: what to publish, what to refuse, what an upstream has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from repos.format import installed
from tests.gomodules import make_zip
from tests.parts import oci


@dataclass(frozen=True)
class Sample:
    """One format's examples.

    `path` and `content` are a whole artefact; `changed` are other good bytes for the same path. `immutable` tells whether
    the path may ever be replaced. `malformed` are bodies that the format must refuse at `path`. `document` is a path of a
    remote that changes over time, with two of its versions. `headers` go with what is put, `deleted` answers a DELETE,
    `challenge` is how a 401 begins, and `prefix` stands before a path at an upstream.
    """

    path: str
    content: bytes
    changed: bytes
    immutable: bool
    malformed: dict[str, bytes]
    document: str
    first: bytes
    second: bytes
    other_path: Callable[[int], str]
    other_content: Callable[[int], bytes]
    headers: dict[str, str] = field(default_factory=dict)
    deleted: int = 204
    challenge: str = "Basic "
    prefix: str = "/"

    def at_upstream(self, path: str) -> str:
        return f"{self.prefix}{path}"


def url(form: str, repository: str, path: str) -> str:
    """Where a path of a repository is on the server."""
    return f"/{installed()[form].mount}{repository}/{path}"


def go_path(number: int) -> str:
    return f"corp.example/other{number}/@v/v1.0.0.zip"


SAMPLES = {
    "raw": Sample(
        path="tools/build/tool-1.0.tar",
        content=b"a tool\n" * 5000,
        changed=b"another tool\n" * 5000,
        immutable=False,
        malformed={},
        document="channel/latest.txt",
        first=b"1.0\n",
        second=b"1.1\n",
        other_path=lambda number: f"other/file-{number}",
        other_content=lambda number: f"file {number}\n".encode() * 50,
    ),
    "go": Sample(
        path="corp.example/lib/@v/v1.0.0.zip",
        content=make_zip("corp.example/lib", "v1.0.0", {"lib.go": b"package lib\n"}),
        changed=make_zip("corp.example/lib", "v1.0.0", {"lib.go": b"package lib // changed\n"}),
        immutable=True,
        malformed={
            "no zip at all": b"this is no zip",
            "another module's": make_zip("corp.example/evil", "v1.0.0", {"lib.go": b"package lib\n"}),
            "another version's": make_zip("corp.example/lib", "v1.0.1", {"lib.go": b"package lib\n"}),
            "cut short": make_zip("corp.example/lib", "v1.0.0", {"lib.go": b"package lib\n"})[:-30],
            "empty": b"",
        },
        document="corp.example/lib/@v/list",
        first=b"v1.0.0\n",
        second=b"v1.0.0\nv1.1.0\n",
        other_path=go_path,
        other_content=lambda number: make_zip(f"corp.example/other{number}", "v1.0.0", {"x.go": b"package x\n"}),
    ),
    "oci": Sample(
        path="corp.example/lib/manifests/v1.0",
        content=oci.index(text="one"),
        changed=oci.index(text="another"),
        immutable=False,
        malformed={
            "no JSON": b"this is no manifest",
            "both kinds at once": oci.index(layers=[], config={}),
            "a key twice": b'{"schemaVersion":2,"schemaVersion":2,"mediaType":"%s","manifests":[]}' % oci.INDEX.encode(),
            "too deep": b"[" * 1000 + b"]" * 1000,
            "of another media type": oci.index(mediaType=oci.MANIFEST),
            "a digest of an unknown algorithm": oci.index(
                manifests=[{"mediaType": oci.MANIFEST, "digest": "md5:" + "0" * 32, "size": 1}]
            ),
            "empty": b"",
        },
        document="corp.example/lib/manifests/latest",
        first=oci.index(text="first"),
        second=oci.index(text="second"),
        other_path=lambda number: f"corp.example/other{number}/manifests/v1.0",
        other_content=lambda number: oci.index(text=f"number {number}"),
        headers={"Content-Type": oci.INDEX},
        deleted=202,
        challenge="Bearer ",
        prefix="/v2/",
    ),
}
