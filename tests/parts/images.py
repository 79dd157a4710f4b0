"""Images that any client takes, made here from nothing, and as folders in the OCI image layout."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.parts import oci

TAG = "made"
"""What a layout calls that which it holds."""
SMALL = (10_000, 100_000, 300_000)


@dataclass(frozen=True)
class Image:
    """A manifest or an index, and all that it refers to, which in a layout are blobs alike."""

    manifest: bytes
    blobs: tuple[bytes, ...]

    @property
    def digest(self) -> str:
        return oci.digest(self.manifest)


def image(
    seed: str, sizes: Sequence[int] = SMALL, architecture: str = "amd64", shared: Sequence[bytes] = (), **more: Any
) -> Image:
    """An image with a layer for each of the sizes, of bytes that no other seed gives, above layers that are shared.

    `more` goes into the manifest.
    """
    tars = [_tar(f"file{number}", random.Random(f"{seed} {number}").randbytes(size)) for number, size in enumerate(sizes)]
    layers = [*shared, *(gzip.compress(tar, 1, mtime=0) for tar in tars)]
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["/file0"], "Labels": {"seed": seed}},
        "rootfs": {"type": "layers", "diff_ids": [oci.digest(gzip.decompress(layer)) for layer in layers]},
        "history": [{"created_by": f"COPY layer{number} /"} for number in range(len(layers))],
    }
    return _image(json.dumps(config).encode(), *layers, **more)


def plain(text: str) -> Image:
    """The least that is an image, whose only layer is the text; no client runs it."""
    return _image(b"{}", text.encode())


def _image(config: bytes, *layers: bytes, **more: Any) -> Image:
    return Image(oci.manifest(config, *layers, **more), (config, *layers))


def multi(seed: str, *architectures: str) -> Image:
    """An index of an image for each of the architectures."""
    images = [image(f"{seed} {architecture}", (10_000, 20_000), architecture) for architecture in architectures]
    manifests = [
        oci.descriptor(one.manifest, oci.MANIFEST, platform={"architecture": architecture, "os": "linux"})
        for one, architecture in zip(images, architectures, strict=True)
    ]
    return Image(oci.index(manifests=manifests), tuple(content for one in images for content in (one.manifest, *one.blobs)))


def _tar(name: str, content: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(content), 0o755
        archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def write(folder: Path, made: Image) -> Path:
    """The image as a layout (image-spec, image-layout.md), by the tag that all these have."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for content in (made.manifest, *made.blobs):
        (blobs / oci.digest(content).removeprefix("sha256:")).write_bytes(content)
    top = oci.descriptor(
        made.manifest, json.loads(made.manifest)["mediaType"], annotations={"org.opencontainers.image.ref.name": TAG}
    )
    (folder / "index.json").write_bytes(oci.index(manifests=[top]))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder


def top(folder: Path) -> str:
    """The digest of the one thing that a layout holds."""
    (entry,) = json.loads((folder / "index.json").read_text())["manifests"]
    return entry["digest"]
