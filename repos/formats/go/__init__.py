"""Go modules, by the GOPROXY protocol (go.dev/ref/mod#goproxy-protocol), with the checksum database relayed.

parse.py    what bytes and paths mean (golang.org/x/mod's rules), pure
vcs.py      modules straight from version control, by the go tool: sandbox.py runs it, gateway.py is its one way out
ahead.py    what a go.sum, or a list of modules, asks for
index.py    @v/list and @latest from rows, and merged
views.py    what is answered
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import timedelta

from problems import Malformed, Problem, TooLarge
from repos.catalogue import Repo, Upstream
from repos.format import Described, Format, OpenBlob, Question, Wanted
from repos.formats.go import ahead, index, parse, vcs
from repos.upstream import Answer

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
ZIP = "application/zip"
NEVER_CHANGING = ("info", "mod", "zip")


class Go(Format):
    key = "go"
    largest = parse.MAX_ZIP
    vcs = ("git",)

    def lifetime(self, path: str, default: timedelta) -> timedelta | None:
        """Files of a canonical version never change, nor do a checksum database's records and tiles."""
        request = parse.try_request(path)
        if request is None:
            return default
        never = request.kind in NEVER_CHANGING or (request.kind == "sumdb" and request.rest.startswith(("lookup/", "tile/")))
        return None if never else default

    def package(self, path: str) -> str:
        """The unescaped module path; also of a checksum look-up, so that a private module's is never asked for outside."""
        request = parse.try_request(path)
        return request.module if request else ""

    def describe(self, path: str, open_blob: OpenBlob, *, published: bool, media_type: str = "") -> Described:
        request = parse.parse_request(path)
        with open_blob() as file:
            if request.kind == "zip":
                return described_zip(request, parse.check_zip(file, request.module, request.version, published=published))
            content = file.read(parse.MAX_GO_MOD + 1)
        if len(content) > parse.MAX_GO_MOD:
            raise TooLarge(f"{path} is larger than {parse.MAX_GO_MOD} bytes", rule="go.size")
        return _described(request, content, published=published)

    def ask(self, upstream: Upstream, question: Question) -> Answer | None:
        return vcs.ask(upstream, question.path, question.heard) if upstream.vcs else None

    def one_of_many(self, path: str) -> bool:
        """Proxies relay checksum databases of their own choice."""
        return path.startswith("sumdb/")

    def render(self, repo: Repo, path: str) -> bytes:
        request = parse.parse_request(path)
        return (index.version_list if request.kind == "list" else index.latest_info)(repo, request.module)

    def merge(self, path: str, parts: list[bytes]) -> bytes:
        return index.merged_list(parts)

    def wanted(self, text: str) -> Iterator[Wanted]:
        return ahead.wanted(text)

    def named_in(self, path: str, documents: list[bytes]) -> tuple[str, ...]:
        return ahead.named_in(path, documents)

    def locked_digest(self, path: str, sha256: str) -> str:
        return ahead.h1(path, sha256)

    def setup(self, repo: Repo, base_url: str, *, signed_in: bool) -> str:
        from repos.formats.go.setup import instructions

        return instructions(f"{base_url}/{self.mount}{repo.key}", signed_in=signed_in)

    def default_upstream(self) -> str | None:
        try:
            said = subprocess.run(["go", "env", "GOPROXY"], capture_output=True, text=True, timeout=20, check=True).stdout
        except (OSError, subprocess.SubprocessError):
            return None
        entries = said.strip().replace("|", ",").split(",")
        return next((entry for entry in entries if entry.startswith(("https://", "http://"))), None)


def described_zip(request: parse.ModuleRequest, facts: parse.ZipFacts) -> Described:
    data = {"h1": facts.h1, "files": facts.files, "unpacked": facts.unpacked}
    return Described(request.module, request.version, ZIP, "zip", data)


def described_info(request: parse.ModuleRequest, content: bytes) -> Described:
    try:
        version, time = parse.parse_info(content)
    except Problem as problem:
        raise Malformed(f"the .info is malformed: {problem.detail}", rule=problem.rule) from problem
    if request.kind == "info" and version != request.version:
        raise Malformed(f"the .info is of version {version} and not of {request.version}", rule="info.version")
    return Described(request.module, version, JSON, "info", {"version": version, "time": time.isoformat() if time else None})


def described_mod(request: parse.ModuleRequest, content: bytes, *, published: bool) -> Described:
    """A go.mod that is published must name its module; an upstream's may name another (a fork, `replace`d by its users)."""
    named = parse.go_mod_module(content) if published or request.module != parse.TOOLCHAIN else ""
    if published and named != request.module:
        raise Malformed(f"the go.mod is of another module than {request.module}", rule="gomod.module")
    return Described(request.module, request.version, TEXT, "mod")


def _described(request: parse.ModuleRequest, content: bytes, *, published: bool) -> Described:
    if request.kind in ("info", "query", "latest"):
        return described_info(request, content)
    if request.kind == "mod":
        return described_mod(request, content, published=published)
    if request.kind == "list":
        parse.check_list(content)
        return Described(request.module, "", TEXT)
    parse.check_sumdb(request, content)
    return Described(request.module, "", "application/octet-stream" if request.rest.startswith("tile/") else TEXT)


FORMAT = Go()
