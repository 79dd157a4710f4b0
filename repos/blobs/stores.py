"""Which store the settings name."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from django.conf import settings

from repos.blobs import Store
from repos.blobs.filesystem import FilesystemStore


@cache
def open_store(url: str) -> Store:
    """The store at `url` (`file:///dir`). `registry.environment` has refused any other scheme before."""
    parts = urlsplit(url)
    if parts.scheme != "file":
        raise ValueError(f"no store is known for {parts.scheme}://")
    return FilesystemStore(Path(unquote(parts.path)))


def store() -> Store:
    """The store of ENTREPOT_STORAGE."""
    return open_store(settings.ENTREPOT.storage)
