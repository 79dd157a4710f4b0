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
import unicodedata
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
MAX_FILES = 200_000
TOOLCHAIN = "golang.org/toolchain"
CHUNK = 256 * 1024


# Paths and versions

_PATH_CHARACTERS = re.compile(r"[A-Za-z0-9\-._~]+")
_FIRST_CHARACTERS = re.compile(r"[a-z0-9\-.]+")
_RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{name}{n}" for name in ("COM", "LPT") for n in range(1, 10))}
_TILDE_NUMBER = re.compile(r"~[0-9]+$")
_GOPKG = re.compile(r"(gopkg\.in/.+)\.(v(?:0|[1-9][0-9]*))(-unstable)?")
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
    elif element.partition(".")[0].upper() in _RESERVED:
        problem = f"{element!r} is a name that Windows reserves"
    elif _TILDE_NUMBER.search(element.partition(".")[0]):
        problem = "an element ends with a tilde and digits"
    if problem:
        raise Malformed(f"{path!r} is no module path: {problem}", rule="module.path")


def split_major(path: str) -> tuple[str, str] | None:
    """A module path without its major version suffix, and the suffix (`/v2`, `.v1`, or empty); None where that is malformed."""
    if path.startswith("gopkg.in/"):
        match = _GOPKG.fullmatch(path)
        return (match[1], f".{match[2]}{match[3] or ''}") if match else None
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
    """The inverse of `escape`; Malformed for upper-case letters and a `!` that no lower-case letter follows."""
    if re.search(r"[A-Z]|!(?![a-z])", text):
        raise Malformed(f"{text!r} is not escaped: write an upper-case letter as ! and the lower-case one", rule="module.escape")
    return re.sub(r"!([a-z])", lambda match: match[1].upper(), text)


def is_canonical_version(version: str) -> bool:
    """Whether it is a full semantic version, with no build part but `+incompatible` (x/mod/module CanonicalVersion)."""
    match = _SEMVER.fullmatch(version)
    return bool(match) and match[5] in (None, "+incompatible")  # type: ignore[index]


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
        return (-1, 0, 0, (), version)
    before = match[4]
    # a release is after all of its pre-releases; numbers are before words
    identifiers = (
        tuple((0, int(word), "") if word.isdigit() else (1, 0, word) for word in before.split(".")) if before else ((2,),)
    )
    return (int(match[1]), int(match[2]), int(match[3]), identifiers, version)


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


_TILE = re.compile(r"tile/[0-9]{1,2}/(?:data|[0-9]{1,2})(?:/x[0-9]{3})*/[0-9]{3}(?:\.p/[0-9]{1,3})?")
_DATABASE = re.compile(r"[a-z0-9.\-]+\.[a-z0-9\-]+(?:/[A-Za-z0-9._\-]+)*?")


@lru_cache(maxsize=16384)
def try_request(path: str) -> ModuleRequest | None:
    """What `path` asks for; None for what is no path of the protocol."""
    try:
        return parse_request(path)
    except Problem:
        return None


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


def _query(path: str, module: str, version: str, kind: str) -> ModuleRequest:
    """A branch, commit or abbreviated version has an .info only; the canonical version in it has the rest."""
    if kind != "info" or any(segment in ("", ".", "..") for segment in version.split("/")):
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
    if mark and _DATABASE.fullmatch(name) and _TILE.fullmatch(f"tile/{rest}"):
        return ModuleRequest("sumdb", name=name, rest=f"tile/{rest}")
    raise absent(path)


# .info and go.mod


def parse_info(content: bytes) -> tuple[str, datetime | None]:
    """Version and time of an .info or @latest."""
    if len(content) > MAX_INFO:
        raise TooLarge(f"the .info has more than {MAX_INFO} bytes", rule="info.size")
    try:
        value = json.loads(content)
        version, time = value["Version"], value.get("Time")
        moment = datetime.fromisoformat(_microseconds(time)) if time else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Malformed(
            'the .info is not JSON such as {"Version":"v1.0.0","Time":"2024-01-02T03:04:05Z"}', rule="info.json"
        ) from None
    if not isinstance(version, str) or not is_canonical_version(version) or (moment and moment.tzinfo is None):
        raise Malformed("the .info names no canonical version, or a time without a zone", rule="info.version")
    return version, moment


def _microseconds(time: str) -> str:
    return re.sub(r"(\.\d{6})\d+", r"\1", time)


def make_info(version: str, time: datetime | None) -> bytes:
    """An .info as Go's own proxy writes it, to the second."""
    value = {"Version": version}
    if time is not None:
        value["Time"] = time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return json.dumps(value, separators=(",", ":")).encode()


def go_mod_module(content: bytes) -> str:
    """The path in a go.mod's module line (go.dev/ref/mod#go-mod-file-module)."""
    if len(content) > MAX_GO_MOD:
        raise TooLarge(f"the go.mod has more than {MAX_GO_MOD} bytes", rule="gomod.size")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise Malformed("the go.mod is no UTF-8 text", rule="gomod.text") from None
    lines = (line.partition("//")[0].strip() for line in re.split(r"\r?\n", text))
    words = [line for line in lines if line]
    for number, line in enumerate(words):
        match = re.fullmatch(r"module\s+(\S.*)|module\s*\(", line)
        if match and (match[1] or "(").strip() == "(":
            return _unquoted(words[number + 1] if number + 1 < len(words) else "")
        if match:
            return _unquoted(match[1])
    raise Malformed("the go.mod has no module line", rule="gomod.module")


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
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            _check_entries(entries, f"{module}@{version}/", module)
            facts = _read_entries(archive, entries, f"{module}@{version}/")
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        OSError,
        ValueError,
        OverflowError,
    ) as error:
        raise Malformed(f"the zip is damaged or none at all ({error})"[:300], rule="zip.format") from error
    if published:
        _check_go_mod(facts.go_mod, module)
    return facts


def _check_go_mod(content: bytes | None, module: str) -> None:
    if content is None:
        raise Malformed("the zip has no go.mod at its root; make it with a go.mod that names the module", rule="zip.gomod")
    named = go_mod_module(content)
    if named != module:
        raise Malformed(f"the zip's go.mod is of the module {named[:200]} and not of {module}", rule="gomod.module")


def _check_entries(entries: list[zipfile.ZipInfo], prefix: str, module: str) -> None:
    """What can be told from the directory alone, before a byte is unpacked."""
    if len(entries) > MAX_FILES:
        raise TooLarge(f"the zip has more than {MAX_FILES} files", rule="zip.files")
    if not entries:
        raise Malformed("the zip is empty", rule="zip.empty")
    if sum(entry.file_size for entry in entries) > MAX_ZIP:
        raise TooLarge(f"the zip's files have more than {MAX_ZIP} bytes", rule="zip.bomb")
    seen: dict[str, str] = {}
    for entry in entries:
        _check_entry(entry, prefix)
        _check_collision(entry.filename.removeprefix(prefix), seen)
    _check_overlap(entries)
    _check_submodules(entries, prefix, module)


def _check_entry(entry: zipfile.ZipInfo, prefix: str) -> None:
    name = entry.filename
    if "\x00" in entry.orig_filename or not name.startswith(prefix):
        raise Malformed(f"the zip holds {name[:200]!r}, which is not under {prefix}", rule="zip.prefix")
    _check_file_path(name.removeprefix(prefix))
    mode = entry.external_attr >> 16
    if entry.is_dir() or stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise Malformed(f"the zip holds {name[:200]!r}, which is no regular file", rule="zip.mode")
    if entry.flag_bits & 0x1:
        raise Malformed(f"the zip holds {name[:200]!r} encrypted", rule="zip.encrypted")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Malformed(f"the zip packs {name[:200]!r} in a way that go cannot read", rule="zip.method")
    for file, most in (("go.mod", MAX_GO_MOD), ("LICENSE", MAX_LICENSE)):
        if name == prefix + file and entry.file_size > most:
            raise TooLarge(f"the zip's {file} has more than {most} bytes", rule="zip.size")


_FILE_PUNCTUATION = set("!#$%&()+,-.=@[]^_{}~ ")


def _check_file_path(path: str) -> None:
    """x/mod/module CheckFilePath: what can be a file on every system."""
    for element in path.split("/"):
        usable = all(
            character in _FILE_PUNCTUATION or (character.isalnum() if character.isascii() else character.isalpha())
            for character in element
        )
        reserved = element.partition(".")[0].upper() in _RESERVED
        if not element or not usable or element.strip(".") == "" or element.endswith(".") or reserved:
            raise Malformed(f"the zip holds {path[:200]!r}, which is no file name on every system", rule="zip.path")


def _check_collision(path: str, seen: dict[str, str]) -> None:
    """No two names that differ in case only, nor a file where another needs a folder (as x/mod/zip has it)."""
    elements = path.split("/")
    for end in range(1, len(elements) + 1):
        name = "/".join(elements[:end])
        kind = "file" if end == len(elements) else "folder"
        known = seen.setdefault(_folded(name), f"{kind} {name}")
        if known != f"{kind} {name}" or (kind == "file" and seen.get(f"\0{name}")):
            raise Malformed(
                f"the zip holds {path[:200]!r} beside the {known[:200]}; on some systems they are one", rule="zip.case"
            )
    seen[f"\0{path}"] = "file"


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _check_overlap(entries: list[zipfile.ZipInfo]) -> None:
    """Entries that share their bytes make a small archive unpack without end."""
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.header_offset < end:
            raise Malformed("the zip's entries overlap", rule="zip.bomb")
        end = entry.header_offset + entry.compress_size


def _check_submodules(entries: list[zipfile.ZipInfo], prefix: str, module: str) -> None:
    """A go.mod in a subfolder makes another module of it, whose files do not belong here. Toolchains hold Go's own."""
    if module == TOOLCHAIN:
        return
    for entry in entries:
        path = entry.filename.removeprefix(prefix)
        if path.lower().rpartition("/")[2] == "go.mod" and path != "go.mod":
            raise Malformed(
                f"the zip holds {path[:200]!r}; a go.mod elsewhere than at the root is another module's", rule="zip.gomod"
            )


def _read_entries(archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo], prefix: str) -> ZipFacts:
    """Unpack every entry, in pieces, for its CRC, its length and the checksum of x/mod/sumdb/dirhash Hash1."""
    go_mod: bytes | None = None
    total = 0
    lines = []
    for entry in entries:
        digest = hashlib.sha256()
        content = bytearray()
        count = 0
        for piece in _pieces(archive, entry):
            digest.update(piece)
            count += len(piece)
            if entry.filename == f"{prefix}go.mod":
                content += piece
        if count != entry.file_size:
            raise Malformed(f"the zip's {entry.filename[:200]!r} has another length than it says", rule="zip.bomb")
        if entry.filename == f"{prefix}go.mod":
            go_mod = bytes(content)
        total += count
        lines.append((entry.filename, digest.hexdigest()))
    whole = hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in sorted(lines)).encode())
    return ZipFacts(f"h1:{base64.b64encode(whole.digest()).decode()}", go_mod, len(entries), total)


def _pieces(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """An entry's bytes; zipfile gives no more than the entry's stated length and checks its CRC at the end."""
    with archive.open(entry) as stream:
        while piece := stream.read(CHUNK):
            yield piece
