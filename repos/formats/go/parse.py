"""What Go's paths, versions and files mean: bytes and text in, values out. No database, no network.

The rules are those of golang.org/x/mod (module, semver, zip, sumdb/dirhash) and go.dev/ref/mod. What breaks them is Malformed
or TooLarge with the rule's name.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import BinaryIO

from problems import Malformed, Problem, TooLarge, absent

MAX_ZIP = 500 << 20
"""Bytes of a module zip, and of all its files unpacked (x/mod/zip MaxZipFile)."""
MAX_GO_MOD = 16 << 20
MAX_LICENSE = 16 << 20
MAX_INFO = 64 << 10
TOOLCHAIN = "golang.org/toolchain"
"""Its go.mod files have no module line."""
MAX_VERSION = 255
"""Characters of a version, which has a column of its own."""
MAX_FILES = 200_000
MAX_DEPTH = 20
"""Folders that each of MAX_FILES may be in; fewer files may be deeper."""
MAX_DIRECTORY = 32 << 20
"""Bytes of a zip's directory, which is read at once."""
CHUNK = 256 * 1024
ENCRYPTED = 0x2041
"""The flags of a zip's entry that say so: the entry, strongly, and its header."""


# Paths and versions

_PATH_CHARACTERS = re.compile(r"[A-Za-z0-9\-._~]+")
_FIRST_CHARACTERS = re.compile(r"[a-z0-9\-.]+")
_RESERVED = re.compile(r"(?:^|/)(?:con|prn|aux|nul|com[1-9]|lpt[1-9])(?:[./]|\Z)", re.ASCII | re.IGNORECASE)
_TILDE_NUMBER = re.compile(r"~[0-9]+$")
_GOPKG = re.compile(r"(gopkg\.in/.+)\.(v[1-9][0-9]*(?:-unstable)?|v0)")
_MAJOR = re.compile(r"(.+)/(v[0-9.]+)")
_SEMVER = re.compile(
    r"v(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)"
    r"(?:-((?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
)
_PSEUDO = re.compile(r"v[0-9]+\.(?:0\.0-|[0-9]+\.[0-9]+-(?:[^+]*\.)?0\.)[0-9]{14}-[A-Za-z0-9]+(?:\+[0-9A-Za-z.-]+)?")


def check_path(path: str) -> None:
    """Refuse what is no module path (x/mod/module CheckPath)."""
    elements = path.split("/")
    for element in elements:
        _check_element(element, path)
    first = elements[0]
    if not _FIRST_CHARACTERS.fullmatch(first) or first.startswith("-") or "." not in first:
        raise Malformed(f"{path!r} is no module path: its first element must be a domain name", rule="module.path")
    if split_major(path) is None:
        raise Malformed(f"{path!r} is no module path: its major version suffix is not /v2 or higher", rule="module.path")


def _check_element(element: str, path: str) -> None:
    problem = ""
    if not element or not _PATH_CHARACTERS.fullmatch(element):
        problem = "an element is empty or holds other than letters, digits and -._~"
    elif element.strip(".") == "" or element.startswith(".") or element.endswith("."):
        problem = "an element begins or ends with a dot"
    elif _RESERVED.match(element):
        problem = f"{element!r} is a name that Windows reserves"
    elif _TILDE_NUMBER.search(element.partition(".")[0]):
        problem = "an element ends with a tilde and digits"
    if problem:
        raise Malformed(f"{path!r} is no module path: {problem}", rule="module.path")


def split_major(path: str) -> tuple[str, str] | None:
    """A module path without its major version suffix, and the suffix (`/v2`, `.v1`, or empty); None where that is malformed."""
    if path.startswith("gopkg.in/"):
        match = _GOPKG.fullmatch(path)
        return (match[1], f".{match[2]}") if match else None
    match = _MAJOR.fullmatch(path)
    if not match:
        return path, ""
    number = match[2][1:]
    if not number.isdigit() or number.startswith("0") or number == "1":
        return None
    return match[1], f"/{match[2]}"


def major_agrees(module: str, version: str) -> bool:
    """Whether the version's major number is the one that the path's suffix names (x/mod/module CheckPathMajor)."""
    split = split_major(module)
    if split is None:
        return False
    suffix = split[1].removesuffix("-unstable")
    major = version.partition(".")[0]
    if suffix.startswith(".") and version.startswith("v0.0.0-") and suffix == ".v1":
        return True
    if not suffix:
        return major in ("v0", "v1") or version.endswith("+incompatible")
    return major == suffix[1:]


def escape(text: str) -> str:
    """Upper-case letters as `!` and the lower-case one (x/mod/module EscapePath, EscapeVersion)."""
    return re.sub(r"[A-Z]", lambda match: "!" + match[0].lower(), text)


escape_path = escape_version = escape


def unescape(text: str) -> str:
    """The inverse of `escape`; Malformed for other than ASCII, upper-case letters and a `!` that no lower-case letter follows."""
    if not text.isascii() or re.search(r"[A-Z]|!(?![a-z])", text):
        raise Malformed(f"{text!r} is not escaped: write an upper-case letter as ! and the lower-case one", rule="module.escape")
    return re.sub(r"!([a-z])", lambda match: match[1].upper(), text)


def is_canonical_version(version: str) -> bool:
    """Whether it is a full semantic version, with no build part but `+incompatible` (x/mod/module CanonicalVersion)."""
    match = _SEMVER.fullmatch(version) if len(version) <= MAX_VERSION else None
    return match is not None and match[5] in (None, "+incompatible")


def is_pseudo(version: str) -> bool:
    """Whether it stands for a commit rather than a tag (go.dev/ref/mod#pseudo-versions)."""
    return version.count("-") >= 2 and is_canonical_version(version) and bool(_PSEUDO.fullmatch(version))


def is_prerelease(version: str) -> bool:
    match = _SEMVER.fullmatch(version)
    return bool(match and match[4])


@lru_cache(maxsize=65536)
def version_key(version: str) -> tuple:
    """A key by which versions sort as semver.org section 11 says; what is no version sorts before all."""
    match = _SEMVER.fullmatch(version)
    if not match:
        return ((), version)
    before = match[4]
    # a release is after all of its pre-releases; numbers are before words
    identifiers = tuple((0, *_number(word)) if word.isdigit() else (1, word) for word in before.split(".")) if before else ((2,),)
    return (_number(match[1]), _number(match[2]), _number(match[3]), identifiers, version)


def _number(digits: str) -> tuple[int, str]:
    """Orders as int(digits) does, but has no limit on how many: there are no leading zeros."""
    return len(digits), digits


def latest_of(versions: Iterable[str]) -> str:
    """The version that `@latest` means: the highest release, else pre-release, else commit; tagged compatibles first.

    `versions` holds at least one (go.dev/ref/mod#version-queries).
    """

    def rank(version: str) -> tuple:
        kind = 0 if is_pseudo(version) else 1 if is_prerelease(version) else 2
        return kind, not version.endswith("+incompatible"), version_key(version)

    return max(versions, key=rank)


# The protocol's paths


@dataclass(frozen=True)
class ModuleRequest:
    """What a path asks for. `kind` is list, latest, info, mod, zip, query (an .info of what is no canonical version) or sumdb.

    `module` and `version` are unescaped. For sumdb `name` is the database's and `rest` what is asked of it; `module` is
    that of a lookup.
    """

    kind: str
    module: str = ""
    version: str = ""
    name: str = ""
    rest: str = ""


_TILE = re.compile(
    r"tile/([1-9]|[12][0-9]|30)/(?:data|0|[1-9][0-9]?)(?:/(?!x000)x[0-9]{3}(?:/x[0-9]{3}){0,4})?/[0-9]{3}(?:\.p/([1-9][0-9]{0,9}))?"
)
_DATABASE = re.compile(r"[a-z0-9\-]+(?:\.[a-z0-9\-]+)+(?:/(?!(?:lookup|tile)(?:/|$))[A-Za-z0-9_\-][A-Za-z0-9._\-]*)*")


def try_request(path: str) -> ModuleRequest | None:
    """What `path` asks for; None for what is no path of the protocol."""
    try:
        return parse_request(path)
    except Problem:
        return None


@lru_cache(maxsize=16384)
def parse_request(path: str) -> ModuleRequest:
    """What the (percent-decoded) path after the repository asks for; NotFound for another shape, Malformed for wrong names."""
    if path.startswith("sumdb/"):
        return _sumdb_request(path)
    if path.endswith("/@latest"):
        return ModuleRequest("latest", _module(path.removesuffix("/@latest")))
    escaped, at, file = path.partition("/@v/")
    if not at:
        raise absent(path)
    module = _module(escaped)
    if file == "list":
        return ModuleRequest("list", module)
    escaped_version, dot, kind = file.rpartition(".")
    if not dot or not escaped_version or kind not in ("info", "mod", "zip"):
        raise absent(path)
    version = unescape(escaped_version)
    if not (is_canonical_version(version) and major_agrees(module, version)):
        return _query(path, module, version, kind)
    return ModuleRequest(kind, module, version)


def parse_publication(path: str) -> ModuleRequest:
    """What is to be published at `path`: an .info, .mod or .zip of a canonical version. Raises Malformed for another."""
    escaped, _, file = path.partition("/@v/")
    module, version = _module(escaped), unescape(file.rpartition(".")[0])
    if not is_canonical_version(version):
        raise Malformed(
            f"{version[:100]!r} is no version to publish: write vMAJOR.MINOR.PATCH, with -PRERELEASE after it if it is one,"
            f" in at most {MAX_VERSION} characters",
            rule="version.canonical",
        )
    if not major_agrees(module, version):
        raise Malformed(
            f"{version[:100]} is not for {module}: v2 and higher belong to a module path that ends in /vN", rule="version.major"
        )
    return parse_request(path)


def _query(path: str, module: str, version: str, kind: str) -> ModuleRequest:
    """A branch, commit or abbreviated version has an .info only; the canonical version in it has the rest."""
    if kind != "info" or not _is_file_path(version):
        raise absent(path)
    return ModuleRequest("query", module, version)


def _module(escaped: str) -> str:
    module = unescape(escaped)
    check_path(module)
    return module


def _sumdb_request(path: str) -> ModuleRequest:
    for mark in ("/supported", "/latest"):
        if path.endswith(mark) and _DATABASE.fullmatch(name := path[len("sumdb/") : -len(mark)]):
            return ModuleRequest("sumdb", name=name, rest=mark[1:])
    name, mark, rest = path.removeprefix("sumdb/").partition("/lookup/")
    if mark and _DATABASE.fullmatch(name):
        module, at, version = rest.partition("@")
        if not at or not is_canonical_version(unescape(version)):
            raise absent(path)
        return ModuleRequest("sumdb", _module(module), unescape(version), name, f"lookup/{rest}")
    name, mark, rest = path.removeprefix("sumdb/").partition("/tile/")
    if mark and _DATABASE.fullmatch(name) and _is_tile(f"tile/{rest}"):
        return ModuleRequest("sumdb", name=name, rest=f"tile/{rest}")
    raise absent(path)


def _is_tile(path: str) -> bool:
    """Whether it is a tile's one path (x/mod/sumdb/tlog ParseTilePath); a partial tile is narrower than a whole one."""
    match = _TILE.fullmatch(path)
    return bool(match) and int(match[2] or 1) < 1 << int(match[1])  # type: ignore[index]


# .info and go.mod

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?)\d*(Z|[+-]\d\d:\d\d)", re.ASCII)


def parse_info(content: bytes) -> tuple[str, datetime | None]:
    """Version and time of an .info or @latest."""
    if len(content) > MAX_INFO:
        raise TooLarge(f"the .info has more than {MAX_INFO} bytes", rule="info.size")
    try:
        value = json.loads(content.decode())
        version, time = value["Version"], value.get("Time")
        moment = None if time is None else _moment(time)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        raise Malformed(
            'the .info is not JSON such as {"Version":"v1.0.0","Time":"2024-01-02T03:04:05Z"}', rule="info.json"
        ) from None
    if not isinstance(version, str) or not is_canonical_version(version):
        raise Malformed("the .info names no canonical version", rule="info.version")
    return version, moment


def _moment(time: str) -> datetime:
    """An RFC 3339 time, which is all that `go` reads; datetime reads more forms than that, and no nanoseconds."""
    match = _TIME.fullmatch(time)
    if not match:
        raise ValueError(time)
    return datetime.fromisoformat(match[1] + match[2]).astimezone(UTC)


def check_list(content: bytes) -> None:
    """Refuse what is no list of versions, such as a page of HTML; lines that are no versions may stand among others."""
    try:
        lines = [line for line in content.decode().splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise Malformed("the list of versions is no text", rule="list.text") from None
    if lines and not any(re.match(r"v[0-9]", line) for line in lines):
        raise Malformed("the list holds no version at all", rule="list.versions")


_HASHES = re.compile(rb"(?:[^\s<>]+ [^\s<>]+ h1:[A-Za-z0-9+/=]+\n|\n)*")


def check_sumdb(request: ModuleRequest, content: bytes) -> None:
    """Refuse what cannot be a checksum database's answer (go.dev/design/25530-sumdb); whether it is true, clients verify."""
    what, _, rest = request.rest.partition("/")
    good = True
    if what == "lookup":
        record = rb"[0-9]+\n%s %s h1:" % (re.escape(request.module.encode()), re.escape(request.version.encode()))
        good = re.match(record, content) is not None
    elif what == "latest":
        good = content.startswith(b"go.sum database tree\n")
    elif rest.split("/")[1:2] == ["data"]:
        good = _HASHES.fullmatch(content) is not None
    elif what == "tile":
        good = 0 < len(content) <= 256 * 32 and len(content) % 32 == 0
    if not good:
        raise Malformed(f"this is no {what} of a checksum database", rule="sumdb.form")


def make_info(version: str, time: datetime | None) -> bytes:
    """An .info as Go's own proxy writes it, to the second."""
    value = {"Version": version}
    if time is not None:
        # strftime's %Y does not pad years, and a proxy that knows no time sends the year 0001
        value["Time"] = time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"
    return json.dumps(value, separators=(",", ":")).encode()


_MODULE_LINE = re.compile(
    r"^[ \t\r]*module(?:[ \t\r]*\([ \t\r]*(?://[^\n]*)?\n(?:[ \t\r]*(?://[^\n]*)?\n)*|[ \t\r]+(?=[^ \t\r\n]))([^\n]*)", re.M
)
"""A module line, or a module block up to its first line that is not blank. Searched for in the whole, as splitting takes room."""


def go_mod_module(content: bytes) -> str:
    """The path in a go.mod's module line (go.dev/ref/mod#go-mod-file-module)."""
    if len(content) > MAX_GO_MOD:
        raise TooLarge(f"the go.mod has more than {MAX_GO_MOD} bytes", rule="gomod.size")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise Malformed("the go.mod is no UTF-8 text", rule="gomod.text") from None
    match = _MODULE_LINE.search(text)
    if not match:
        raise Malformed("the go.mod has no module line", rule="gomod.module")
    return _unquoted(match[1].partition("//")[0])


def _unquoted(text: str) -> str:
    text = text.strip()
    if len(text) >= 2 and text[0] in '"`' and text[-1] == text[0]:
        text = text[1:-1]
    if not text or re.search(r"[\s\"`()]", text):
        raise Malformed("the go.mod's module line is malformed", rule="gomod.module")
    return text


# Zips


@dataclass(frozen=True)
class ZipFacts:
    """What a module zip came to: its checksum as go.sum has it, its root go.mod, how many files, how many bytes unpacked."""

    h1: str
    go_mod: bytes | None
    files: int
    unpacked: int


def check_zip(file: BinaryIO, module: str, version: str, *, published: bool) -> ZipFacts:
    """Read a module zip whole and check it by the rules of golang.org/x/mod/zip, CRCs included.

    What is published must hold a go.mod that names `module`; what an upstream sent may lack it, as old modules do.
    """
    size = file.seek(0, 2)
    if size > MAX_ZIP:
        raise TooLarge(f"the zip has more than {MAX_ZIP} bytes", rule="zip.size")
    bounded = _Bounded(file)
    try:
        with zipfile.ZipFile(bounded, metadata_encoding="utf-8") as archive:
            entries, end = archive.infolist(), archive.start_dir
        _check_directory(bounded, end, len(entries))
        _check_entries(entries, f"{module}@{version}/")
        facts = _read_entries(bounded, _ends(entries, end), entries, f"{module}@{version}/")
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, OSError, ValueError, OverflowError) as error:
        if bounded.failure is not None:
            raise bounded.failure from None
        raise Malformed(f"the zip is damaged or none at all ({error})"[:300], rule="zip.format") from error
    if published:
        _check_go_mod(facts.go_mod, module)
    return facts


class _Bounded:
    """A file from which a zip's directory is read only if it is not too large to hold.

    zipfile reads the directory in one piece and makes an object of each entry, however many those are. All else is read in
    pieces of CHUNK at most. A read that fails is kept, as zipfile takes that too for a damaged zip.
    """

    def __init__(self, file: BinaryIO):
        self._file = file
        self.seek, self.tell = file.seek, file.tell
        self.failure: OSError | None = None

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size > MAX_DIRECTORY:
            raise TooLarge(f"the zip's directory has more than {MAX_DIRECTORY} bytes", rule="zip.files")
        try:
            data = self._file.read(size)
        except OSError as error:
            self.failure = error
            raise
        if size > CHUNK and data.count(zipfile.stringCentralDir) > MAX_FILES:  # type: ignore[attr-defined]
            raise TooLarge(f"the zip has more than {MAX_FILES} files", rule="zip.files")
        return data


_END = struct.Struct("<4s6xH2LH")
_LONG_END = struct.Struct("<4s20x4Q4sLQL")
"""What ends a directory, and what stands before it where that counts 65535 files or more (with its locator)."""


def _check_directory(file: _Bounded, start: int, count: int) -> None:
    """That the directory holds `count` entries without a gap, and that the zip begins and ends where its end says.

    zipfile overlooks what breaks this and go does not, so that the two would find different files in one zip.
    """
    file.seek(start)
    directory = b"".join(iter(lambda: file.read(CHUNK), b""))
    size = 0
    for _ in range(count):
        size += 46 + sum(struct.unpack_from("<3H", directory, size + 28))
    at, known = size, [(count, size, start)]
    if directory.startswith(b"PK\6\6", at):
        long = _LONG_END.unpack_from(directory, at)
        if long[1:] != (count, count, size, start, b"PK\6\7", 0, start + size, 1):
            raise ValueError("its directory is another than its end says")
        at += _LONG_END.size
        known = [(0xFFFF, size, start), (0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)]
    signature, *found, comment = _END.unpack_from(directory, at)
    if signature != b"PK\5\6" or tuple(found) not in known or at + _END.size + comment != len(directory):
        raise ValueError("its directory is another than its end says")


def _check_go_mod(content: bytes | None, module: str) -> None:
    if content is None:
        raise Malformed("the zip has no go.mod at its root; make it with a go.mod that names the module", rule="zip.gomod")
    named = go_mod_module(content)
    if named != module:
        raise Malformed(f"the zip's go.mod is of the module {named[:200]} and not of {module}", rule="gomod.module")


def _check_entries(entries: list[zipfile.ZipInfo], prefix: str) -> None:
    """What can be told from the directory alone, before a byte is unpacked."""
    if len(entries) > MAX_FILES:
        raise TooLarge(f"the zip has more than {MAX_FILES} files", rule="zip.files")
    if not entries:
        raise Malformed("the zip is empty", rule="zip.empty")
    if sum(entry.file_size for entry in entries) > MAX_ZIP:
        raise TooLarge(f"the zip's files have more than {MAX_ZIP} bytes", rule="zip.bomb")
    if sum(entry.orig_filename.count("/") for entry in entries) > MAX_DEPTH * MAX_FILES:
        raise TooLarge("the zip's files are in too many folders", rule="zip.files")
    tree: _Tree = {}
    for entry in entries:
        _check_entry(entry, prefix)
        if path := entry.orig_filename.removeprefix(prefix):
            _check_collision(path, tree)


def _check_entry(entry: zipfile.ZipInfo, prefix: str) -> None:
    # the name as it is in the zip; zipfile's `filename` is cut at a NUL or replaced by an extra field, and go's is not
    name = entry.orig_filename
    if not name.startswith(prefix):
        raise Malformed(f"the zip holds {name[:200]!r}, which is not under {prefix}", rule="zip.prefix")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    folder = name.endswith("/")
    if kind not in (0, stat.S_IFDIR if folder else stat.S_IFREG) or (folder and entry.file_size):
        raise Malformed(f"the zip holds {name[:200]!r}, which is neither file nor folder", rule="zip.mode")
    path = name.removeprefix(prefix).removesuffix("/") if folder else name.removeprefix(prefix)
    if not _is_file_path(path) and name != prefix:
        raise Malformed(f"the zip holds {path[:200]!r}, which is no file name on every system", rule="zip.path")
    if not folder and path.lower().rpartition("/")[2] == "go.mod" and path != "go.mod":
        raise Malformed(
            f"the zip holds {path[:200]!r}; a go.mod elsewhere than at the root is another module's", rule="zip.gomod"
        )
    if entry.flag_bits & ENCRYPTED:
        raise Malformed(f"the zip holds {name[:200]!r} encrypted", rule="zip.encrypted")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Malformed(f"the zip packs {name[:200]!r} in a way that go cannot read", rule="zip.method")
    for file, most in (("go.mod", MAX_GO_MOD), ("LICENSE", MAX_LICENSE)):
        if path == file and entry.file_size > most:
            raise TooLarge(f"the zip's {file} has more than {most} bytes", rule="zip.size")


_FILE_PUNCTUATION = set("!#$%&()+,-.=@[]^_{}~ /")
_UNUSABLE = re.compile(r"(?:^|[/.])(?:/|\Z)")
"""An element that is empty or ends with a dot."""


def _is_file_path(path: str) -> bool:
    """Whether it can be a file on every system (x/mod/module CheckFilePath)."""
    return not (_UNUSABLE.search(path) or _RESERVED.search(path)) and all(
        character in _FILE_PUNCTUATION or (character.isalnum() if character.isascii() else character.isalpha())
        for character in set(path)
    )


_Tree = dict[tuple[int, str], tuple[str, bool, int]]
"""Of a folder's number and a folded name: the name, whether it is a folder, and its number. Whole paths would take n² room."""


def _check_collision(path: str, tree: _Tree) -> None:
    """No two names that differ in case only, nor a file where another needs a folder (as x/mod/zip has it)."""
    elements = path.removesuffix("/").split("/")
    folder = 0
    for depth, element in enumerate(elements, 1):
        number = len(tree) + 1
        found = (element, depth < len(elements) or path.endswith("/"), number)
        known = tree.setdefault((folder, _folded(element)), found)
        if known[:2] != found[:2] or (known is not found and not known[1]):
            raise Malformed(
                f"the zip holds {path[:200]!r} beside {known[0][:200]!r}; on some systems they are one", rule="zip.case"
            )
        folder = known[2]
    if len(tree) > 2 * MAX_FILES:
        raise TooLarge(f"the zip has more than {2 * MAX_FILES} files and folders", rule="zip.files")


def _folded(name: str) -> str:
    """Unicode's simple case folding, character by character as in x/mod/zip: `ß` is not `ss`."""
    folded = name.casefold()
    return folded if len(folded) == len(name) else "".join(map(_folded_character, name))


def _folded_character(character: str) -> str:
    return next((folded for folded in (character.casefold(), character.lower()) if len(folded) == 1), character)


def _ends(entries: list[zipfile.ZipInfo], end: int) -> dict[int, int]:
    """Where each entry must end, by where it begins. Entries that share bytes make a small archive unpack without end."""
    starts = sorted(entry.header_offset for entry in entries)
    ends = dict(zip(starts, [*starts[1:], end], strict=True))
    if len(ends) < len(starts):
        raise Malformed("the zip's entries overlap", rule="zip.bomb")
    return ends


def _read_entries(file: _Bounded, ends: dict[int, int], entries: list[zipfile.ZipInfo], prefix: str) -> ZipFacts:
    """Unpack every entry, in pieces, for its CRC, its length and the checksum of x/mod/sumdb/dirhash Hash1."""
    go_mod: bytes | None = None
    lines = []
    for entry in entries:
        name = entry.orig_filename
        digest = hashlib.sha256()
        content = bytearray()
        for piece in _pieces(file, entry, ends[entry.header_offset]):
            digest.update(piece)
            if name == f"{prefix}go.mod":
                content += piece
        if name == f"{prefix}go.mod":
            go_mod = bytes(content)
        lines.append((name, digest.hexdigest()))
    total = sum(entry.file_size for entry in entries)
    whole = hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in sorted(lines)).encode())
    return ZipFacts(f"h1:{base64.b64encode(whole.digest()).decode()}", go_mod, len(entries), total)


def _pieces(file: _Bounded, entry: zipfile.ZipInfo, end: int) -> Iterator[bytes]:
    """An entry's bytes, as many as it says and with the CRC that it says.

    They are unpacked here, as zipfile ends without complaint at the stated length, and where a deflate stream breaks off.
    """
    packed = _packed(file, entry, end)
    count = crc = 0
    for piece in packed if entry.compress_type == zipfile.ZIP_STORED else _inflated(packed):
        count += len(piece)
        if count > entry.file_size:
            break
        crc = zlib.crc32(piece, crc)
        yield piece
    if count != entry.file_size:
        raise Malformed(f"the zip's {entry.orig_filename[:200]!r} has another length than it says", rule="zip.bomb")
    if crc != entry.CRC or _trailing_crc(file, entry) not in (crc, None):
        raise Malformed(f"the zip's {entry.orig_filename[:200]!r} is damaged: its CRC differs", rule="zip.crc")


def _packed(file: _Bounded, entry: zipfile.ZipInfo, end: int) -> Iterator[bytes]:
    """An entry's bytes as they stand in the zip; the file is left where they end."""
    file.seek(entry.header_offset)
    signature, name_length, extra_length = struct.unpack("<4s22x2H", file.read(30))
    if signature != b"PK\3\4" or file.read(name_length) != entry.orig_filename.encode():
        raise ValueError(f"what is at the place of {entry.orig_filename[:200]!r} is another file")
    at = file.seek(extra_length, 1)
    if at + entry.compress_size > end:
        raise Malformed("the zip's entries overlap", rule="zip.bomb")
    for start in range(at, at + entry.compress_size, CHUNK):
        yield file.read(min(CHUNK, at + entry.compress_size - start))


def _trailing_crc(file: _Bounded, entry: zipfile.ZipInfo) -> int | None:
    """The CRC that follows the bytes of an entry that was written as a stream; its mark before it may be left out."""
    if not entry.flag_bits & 0x8:
        return None
    trailer = file.read(8)
    return int.from_bytes(trailer[4:] if trailer.startswith(b"PK\7\x08") else trailer[:4], "little")


def _inflated(packed: Iterator[bytes]) -> Iterator[bytes]:
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    while not inflate.eof:
        source = inflate.unconsumed_tail or next(packed, b"")
        piece = inflate.decompress(source, CHUNK)
        if piece:
            yield piece
        elif not source:
            raise EOFError("a deflate stream breaks off")
    for _ in packed:  # what follows the stream is no part of the file, and go skips it too
        pass
