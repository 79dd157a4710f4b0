"""Modules straight from version control: what GOPROXY=direct does, done by the `go` tool for all who ask here.

ask ── one command of go for one question, in a Scratch, behind a Gateway
 ├── a version's .info, .mod or .zip: `go mod download` makes the three at once, so they are recorded as one change
 ├── @v/list, @latest, a branch or commit: `go list -m`
 └── what the tool says is told apart: not there is an Answer of 404; all else is the upstream's failure, never "not found"
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO

from basics import connector
from problems import Problem, Unavailable, UpstreamFailed, UpstreamOut
from repos import circuit, upstream
from repos.blobs import CHUNK
from repos.catalogue import Upstream
from repos.formats.go import parse
from repos.formats.go.gateway import Gateway, is_loopback_literal
from repos.formats.go.sandbox import SECONDS, Done, Scratch, run

PARALLEL = threading.BoundedSemaphore(4)
PARALLEL_OF_ONE = 2
"""How many commands may run at once in one process of the server, and for one host, so that a slow one leaves room for others."""
FILES = {"info": "Info", "mod": "GoMod", "zip": "Zip"}
"""A version's files, and how `go mod download` names them."""

NOT_THERE = re.compile(
    r"unknown revision"
    r"|no matching versions for query"
    r"|invalid version:"
    r"|invalid pseudo-version:"
    r"|no go-import meta tags"
    r"|can't query version"
    r"|missing \S+go\.mod(?: and \S+go\.mod)? at revision"
    r"|does not contain a module|module declares its path as"
    r"|go\.mod has (?:non-|post-)\S+ module path"
    r"|malformed module path|disallowed version string|cannot match \""
)
"""What go says where there is no such module or version."""
GIT_FAILED = re.compile(r"exit status|signal: |\bfatal: ")
NO_REPOSITORY = re.compile(r"fatal: repository '[^']*' not found")
"""What git says; go puts it behind words of its own, such as `invalid version`, whatever it was."""
STATUS = re.compile(r"unable to access '(https?://[^']+)': The requested URL returned error: (\d{3})")
"""What git says where a host answers a status that is none of its protocol."""
REFUSED = re.compile(r"could not read (?:Username|Password)|Authentication failed|error: 40[13]\b|terminal prompts disabled")
"""What git says where credentials are missing or wrong."""


@dataclass(frozen=True)
class FileAnswer(upstream.Answer):
    """An answer from a file that has no name any more, so that nothing is left of it when nobody reads it."""

    file: BinaryIO
    others: Mapping[str, upstream.Answer] = field(default_factory=dict)

    @classmethod
    def of(cls, file: BinaryIO, others: Mapping[str, upstream.Answer] | None = None) -> FileAnswer:
        return cls(200, {"content-length": str(os.fstat(file.fileno()).st_size)}, file, others or {})

    @property
    def beside(self) -> Mapping[str, upstream.Answer]:
        return self.others

    def chunks(self) -> Iterator[bytes]:
        at = 0
        while chunk := os.pread(self.file.fileno(), CHUNK, at):  # several may read one file
            at += len(chunk)
            yield chunk

    def discard(self) -> None:
        pass


@dataclass(frozen=True)
class NothingThere(upstream.Answer):
    """The answer where version control has no such thing."""

    def chunks(self) -> Iterator[bytes]:
        yield from ()

    def discard(self) -> None:
        pass


NOTHING = NothingThere(404, {})


@dataclass(frozen=True)
class Download:
    """What one `go mod download` made of a version, by kind of file, and what was said where it did not make all."""

    files: Mapping[str, BinaryIO]
    said: str
    failure: Problem | None


def ask(source: Upstream, path: str, heard: Callable[[], None]) -> upstream.Answer:
    """What version control has at a path of the protocol. Raises UpstreamFailed, UpstreamTimeout, Unavailable.

    Calls `heard` as often as something comes.
    """
    request = parse.parse_request(path)
    if request.kind == "sumdb" or is_loopback_literal(request.module.partition("/")[0]):
        return NOTHING
    if request.kind not in FILES:
        return _answered(source, request, heard)
    made = _once((source, request.module, request.version), partial(_downloaded, source, request), heard)
    if request.kind not in made.files:
        _check_nothing_there(source, made.said, made.failure)
        return NOTHING
    base = path.removesuffix(request.kind)
    others = {f"{base}{kind}": FileAnswer.of(file) for kind, file in made.files.items() if kind != request.kind}
    return FileAnswer.of(made.files[request.kind], others)


def _answered(source: Upstream, request: parse.ModuleRequest, heard: Callable[[], None]) -> upstream.Answer:
    """A list, the latest version, or the version that a branch or commit means."""
    listing = request.kind == "list"
    what = ["-versions", "-retracted", request.module] if listing else [f"{request.module}@{request.version or 'latest'}"]
    with Scratch() as scratch:
        done, failure = _go(source, scratch, heard, "list", "-m", "-json", *what)
        if done.code:
            _check_nothing_there(source, _without_folder(done.stderr, scratch), failure)
            return NOTHING
        found = _object(done.stdout)
        text = "".join(f"{version}\n" for version in found.get("Versions") or ()) if listing else _info(found)
        return FileAnswer.of(_kept(scratch.write("answer", text)))


def _downloaded(source: Upstream, request: parse.ModuleRequest, heard: Callable[[], None]) -> Download:
    """A version's files. Where the tool can make no zip, the others are given all the same."""
    with Scratch() as scratch:
        done, failure = _go(source, scratch, heard, "mod", "download", "-json", f"{request.module}@{request.version}")
        found = _object(done.stdout) if done.stdout else {}
        files = {kind: Path(found[name]) for kind, name in FILES.items() if found.get(name)}
        if "info" in files:
            files["info"] = scratch.write("info", _info(json.loads(files["info"].read_text())))
        said = _without_folder(found.get("Error") or done.stderr, scratch)
        return Download({kind: _kept(file) for kind, file in files.items()}, said, failure)


def _info(found: dict[str, Any]) -> str:
    """An .info of what go says. Without where it came from: the same version is to have the same bytes whenever it is made."""
    time = found.get("Time")
    return parse.make_info(found["Version"], datetime.fromisoformat(time) if time else None).decode()


def _kept(file: Path) -> BinaryIO:
    """The file, open; its name goes with the scratch folder."""
    return file.open("rb")


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        raise UpstreamFailed("the go tool's answer could not be read; the log tells more", rule="vcs.failed") from None
    return found if isinstance(found, dict) else {}


# The command


def _go(source: Upstream, scratch: Scratch, heard: Callable[[], None], *arguments: str) -> tuple[Done, Problem | None]:
    """How a command of go ended, and what its gateway saw go wrong."""
    programs = _programs()
    with _turn(_turns_of(connector.origin(source.url))), _turn(PARALLEL), Gateway(source, heard) as gateway:
        environment = _environment(source, gateway, scratch, programs)
        done = run(scratch, [programs["go"], *arguments], environment, cwd=scratch.make("work"), heard=heard)
    return done, gateway.failure


@lru_cache(maxsize=1024)
def _turns_of(origin: tuple[str, str, int]) -> threading.BoundedSemaphore:
    return threading.BoundedSemaphore(PARALLEL_OF_ONE)


@contextlib.contextmanager
def _turn(turns: threading.BoundedSemaphore) -> Iterator[None]:
    if not turns.acquire(timeout=SECONDS):
        raise UpstreamOut(
            "version control is asked for too much at once; try again later", rule="vcs.busy", headers={"Retry-After": "5"}
        )
    try:
        yield
    finally:
        turns.release()


def _programs() -> dict[str, str]:
    found = {name: shutil.which(name) or "" for name in ("go", "git")}
    missing = [name for name, path in found.items() if not path]
    if missing:
        raise Unavailable(
            f"modules come from version control here, and this server has no {' and no '.join(missing)}; who runs it must install"
            f" {' and '.join(missing)} on the PATH of the server",
            rule="vcs.programs",
        )
    return found


def _environment(source: Upstream, gateway: Gateway, scratch: Scratch, programs: dict[str, str]) -> dict[str, str]:
    """All that the command has of an environment."""
    home = _home(scratch)
    proxy = gateway.address_for("go")
    return {
        "PATH": os.pathsep.join(dict.fromkeys([*(os.path.dirname(path) for path in programs.values()), "/usr/bin", "/bin"])),
        "HOME": str(home),
        "TMPDIR": str(scratch.make("tmp")),
        "LC_ALL": "C",
        "HTTP_PROXY": proxy,
        "HTTPS_PROXY": proxy,
        "GOPATH": str(home / "go"),
        "GOMODCACHE": str(scratch.make("modules")),
        "GOCACHE": str(home / "build"),
        "GOENV": "off",
        "GOFLAGS": "-modcacherw",
        "GOWORK": "off",
        "GO111MODULE": "on",
        "GOTOOLCHAIN": "local",
        "GOPROXY": "direct",
        "GOSUMDB": "off",
        "GOAUTH": "off",
        "GOVCS": "*:git",
        "GOINSECURE": "*",  # plain http goes to the gateway and no further
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": str(_git_configuration(source, gateway, scratch)),
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "https:http" if gateway.plain else "https",
    }


def _home(scratch: Scratch) -> Path:
    """A home in which go gathers no telemetry: for that it starts a process that would outlive the command."""
    home = scratch.make("home")
    telemetry = home / ".config" / "go" / "telemetry"
    telemetry.mkdir(parents=True)
    (telemetry / "mode").write_text("off")
    return home


def _git_configuration(source: Upstream, gateway: Gateway, scratch: Scratch) -> Path:
    """Git's configuration. The credentials are bound to the scheme, host and port of the configured address."""
    scheme, host, port = connector.origin(source.url)
    lines = [
        f"[http]\nproxy = {_quoted(gateway.address_for('git'))}\nproxyAuthMethod = basic\nfollowRedirects = false",
        "[core]\nhooksPath = /dev/null\naskPass =\nfsmonitor = false",
        "[credential]\nhelper =",
        "[gc]\nauto = 0\n[maintenance]\nauto = false",
    ]
    if certificates := _certificates(source.ca):
        lines.append(f"[http]\nsslCAInfo = {_quoted(str(scratch.write('ca.pem', certificates)))}")
    for name, value in upstream.credentials(source).items():
        lines.append(f'[http "{scheme}://{host}:{port}/"]\nextraHeader = {_quoted(f"{name}: {value}")}')
    return scratch.write("gitconfig", "\n".join([*lines, ""]))


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _certificates(ca: str) -> str:
    """The certificates that the registry's own connector trusts; empty where the system does not list its own."""
    context = ssl.create_default_context()
    if ca:
        context.load_verify_locations(ca)
    return "".join(ssl.DER_cert_to_PEM_cert(certificate) for certificate in context.get_ca_certs(binary_form=True))


# What it says


def _check_nothing_there(source: Upstream, said: str, failure: Problem | None) -> None:
    """Raises the failure, unless it is none: what is asked for is not there.

    What the gateway saw is sure; what go and git print is only text, of which what is not known is a failure.
    """
    if failure is not None:
        raise copy(failure)
    if REFUSED.search(said):
        raise UpstreamFailed(
            f"version control did not let this registry in ({_reason(said)}); check the upstream's credentials",
            rule="vcs.credentials",
        )
    if (answered := STATUS.search(said)) and connector.origin(answered[1]) == connector.origin(source.url):
        raise circuit.refused(source, upstream.Answer(int(answered[2]), {}))
    if not (NO_REPOSITORY if GIT_FAILED.search(said) else NOT_THERE).search(said):
        raise UpstreamFailed(f"version control failed: {_reason(said)}", rule="vcs.failed")


def _without_folder(said: str, scratch: Scratch) -> str:
    """What was said without where on this server."""
    return said.replace(str(scratch.folder), "…")


def _reason(said: str) -> str:
    """The line that tells most, without credentials."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[-1] if lines else "it was ended")
    plain = re.sub(r"//[^/@\s]*@", "//", telling)
    return plain.removeprefix("go: ")[:300]


class _Shared:
    """A download for all in this process who ask for the same at the same time."""

    def __init__(self) -> None:
        self._future: Future[Download] = Future()
        self._came = 0

    def make(self, make: Callable[[Callable[[], None]], Download], heard: Callable[[], None]) -> None:
        def hear() -> None:
            self._came += 1
            heard()

        try:
            self._future.set_result(make(hear))
        except BaseException as error:
            self._future.set_exception(error)

    def result(self, heard: Callable[[], None]) -> Download:
        """What it made, or its problem; calls `heard` while something comes of it."""
        came = self._came
        while not wait([self._future], 1).done:
            if came != self._came:
                came = self._came
                heard()
        try:
            return self._future.result()
        except Problem as problem:
            raise copy(problem) from None  # each thread gets a traceback of its own


_running: dict[Any, _Shared] = {}
_running_lock = threading.Lock()


def _once(key: Any, make: Callable[[Callable[[], None]], Download], heard: Callable[[], None]) -> Download:
    """What `make` gives, made once for all who ask for it meanwhile."""
    with _running_lock:
        mine = key not in _running
        shared = _running.setdefault(key, _Shared())
    if mine:
        try:
            shared.make(make, heard)
        finally:
            with _running_lock:
                del _running[key]
    return shared.result(heard)
