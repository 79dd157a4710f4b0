"""For each format what the contract suite needs to know of it: what to publish, what to refuse, what an upstream has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.gomodules import make_zip


@dataclass(frozen=True)
class Sample:
    """One format's examples.

    `path` and `content` are a whole artefact; `changed` are other good bytes for the same path. `immutable` tells whether
    the path may ever be replaced. `malformed` are bodies that the format must refuse at `path`. `document` is a path of a
    remote that changes over time, with two of its versions.
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
}
