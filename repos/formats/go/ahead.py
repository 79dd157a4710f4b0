"""What is to be fetched ahead: the lines of a go.sum, or of a list such as `rsc.io/quote@v1.5.2` and `rsc.io/quote@latest`."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator

from problems import Malformed
from repos.format import Wanted, lines_of, told_of_line
from repos.formats.go import index, parse
from repos.models import Description

FILES = ("info", "mod", "zip")


def wanted(text: str) -> Iterator[Wanted]:
    """Raises Malformed with the line that is of neither kind."""
    for number, line in lines_of(text):
        with told_of_line(number):
            yield _wanted(line)


def _wanted(line: str) -> Wanted:
    words = line.split()
    if len(words) == 3:
        return _of_go_sum(*words)
    module, at, version = line.partition("@")
    if len(words) != 1 or not at or not version:
        raise Malformed(f"{line[:100]!r} is neither a line of a go.sum nor MODULE@VERSION", rule="prefetch.line")
    parse.check_path(module)
    if parse.is_canonical_version(version):
        return Wanted(line, _files(module, version))
    latest = version == "latest"
    at = parse.escape_path(module)
    asked = (f"{at}/@v/list", f"{at}/@latest") if latest else (index.info_path(module, version),)
    for path in asked:
        parse.parse_request(path)
    return Wanted(line, asked=asked, merged=latest)


def _of_go_sum(module: str, version: str, digest: str) -> Wanted:
    """`MODULE VERSION h1:…` is of a zip, `MODULE VERSION/go.mod h1:…` of a go.mod (go.dev/ref/mod#go-sum-files)."""
    parse.check_path(module)
    plain = version.removesuffix("/go.mod")
    if not parse.is_canonical_version(plain):
        raise Malformed(f"{version[:100]!r} is no version", rule="version.canonical")
    name = f"{module} {version}"
    expected = digest if digest.startswith("h1:") else ""  # other kinds of digest are to be left alone, as `go` does
    return Wanted(name, _files(module, plain) if plain == version else _files(module, plain, "mod"), expected)


def named_in(path: str, documents: list[bytes]) -> tuple[str, ...]:
    """The files of the version that an .info or @latest tells of; of several, and of a list, the newest as `go` sees it."""
    request = parse.parse_request(path)
    if request.kind == "list":
        versions = index.versions_in(index.merged_list(documents))
    else:
        versions = [parse.parse_info(document)[0] for document in documents]
    return _files(request.module, parse.latest_of(versions)) if versions else ()


def h1(path: str, sha256: str) -> str:
    """The digest of a zip or go.mod in a go.sum; a go.mod's is that of a tree with this file alone."""
    if path.endswith(".zip"):
        found = Description.objects.filter(format="go", path_class="zip", blob__sha256=sha256).first()
        return found.data["h1"] if found else ""
    return "h1:" + base64.b64encode(hashlib.sha256(f"{sha256}  go.mod\n".encode()).digest()).decode()


def _files(module: str, version: str, *suffixes: str) -> tuple[str, ...]:
    paths = tuple(index.file_path(module, version, suffix) for suffix in suffixes or FILES)
    for path in paths:
        parse.parse_request(path)  # whose problem tells what is wrong with a version that is not for the module
    return paths
