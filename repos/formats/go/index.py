"""A module's versions: from a local repository's rows, from an upstream's list, and from several."""

from __future__ import annotations

from problems import absent
from repos import rows
from repos.blobs.stores import store
from repos.catalogue import Repo
from repos.formats.go import parse
from repos.models import Asset


def versions(repo: Repo, module: str) -> list[str]:
    """The versions whose zip a local repository holds, in their order. One query."""
    here = Asset.objects.filter(repository_id=repo.id, package=module, until=None, media_type="application/zip")
    return sorted(here.values_list("version", flat=True), key=parse.version_key)


def version_list(repo: Repo, module: str) -> bytes:
    """A local repository's `@v/list`. Raises NotFound where it holds no version."""
    return _listing(_held(repo, module))


def latest_info(repo: Repo, module: str) -> bytes:
    """A local repository's `@latest`: the .info of the newest release, else pre-release. Raises NotFound."""
    path = info_path(module, parse.latest_of(_held(repo, module)))
    with store().open(rows.look([repo], path).assets[repo.id].key) as file:
        return file.read()


def merged_list(parts: list[bytes]) -> bytes:
    """One list of all the versions in several, each once."""
    return _listing(sorted({version for part in parts for version in versions_in(part)}, key=parse.version_key))


def versions_in(content: bytes) -> list[str]:
    """The versions in an `@v/list`; what is no canonical version is left out, as `go` does."""
    words = (line.split()[0] for line in content.decode(errors="replace").splitlines() if line.strip())
    return [word for word in words if parse.is_canonical_version(word)]


def info_path(module: str, version: str) -> str:
    return file_path(module, version, "info")


def file_path(module: str, version: str, suffix: str) -> str:
    return f"{parse.escape_path(module)}/@v/{parse.escape_version(version)}.{suffix}"


def _held(repo: Repo, module: str) -> list[str]:
    held = versions(repo, module)
    if not held:
        raise absent(f"{parse.escape_path(module)}/@v/list")
    return held


def _listing(versions: list[str]) -> bytes:
    """Pseudo-versions are not listed (go.dev/ref/mod#goproxy-protocol); an empty list is a valid one."""
    return "".join(f"{version}\n" for version in versions if not parse.is_pseudo(version)).encode()
