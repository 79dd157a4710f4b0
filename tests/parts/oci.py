"""Manifests, descriptors and digests as the specification of images has them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def digest(content: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def descriptor(content: bytes, media_type: str = LAYER, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(content), "size": len(content), **more}


def manifest(config: bytes, *layers: bytes, **more: Any) -> bytes:
    """An image manifest of these contents."""
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(config, CONFIG),
        "layers": [descriptor(layer) for layer in layers],
        **more,
    }
    return json.dumps(document).encode()


def index(*manifests: bytes, text: str = "", **more: Any) -> bytes:
    """An index of these manifests; without any it needs nothing else to be there."""
    document = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [descriptor(one, json.loads(one)["mediaType"]) for one in manifests],
        **({"annotations": {"text": text}} if text else {}),
        **more,
    }
    return json.dumps(document).encode()
