"""Module zips for tests."""

from __future__ import annotations

import io
import zipfile


def make_zip(module: str, version: str, files: dict[str, bytes], *, go_mod: bytes | None = None) -> bytes:
    """A module zip as `go` lays it out, the same bytes each time. The go.mod is made, unless it is given or among the files."""
    contents = {"go.mod": go_mod if go_mod is not None else f"module {module}\n\ngo 1.21\n".encode(), **files}
    return make_archive({f"{module}@{version}/{name}": content for name, content in contents.items()})


def make_archive(files: dict[str, bytes]) -> bytes:
    """A zip of these files."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return out.getvalue()
