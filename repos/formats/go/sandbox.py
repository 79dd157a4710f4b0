"""Running a tool that is not trusted with time, room or this server's environment.

    with Scratch() as scratch:                a folder of its own, private, gone at the end
        run(scratch, command, environment)    its process group is killed at its end, at a limit, and when this server dies

A scratch folder is locked for as long as its process lives, so what a killed server left is known and removed at the next use.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from django.conf import settings

from problems import StorageFull, UpstreamFailed, UpstreamTimeout

SECONDS = 300.0
"""The longest that one command may run."""
LARGEST_FILE = 1 << 30
LARGEST_SCRATCH = 2 << 30
"""Bytes of one file, and of all that a command leaves in its folder."""
LOOK = 0.5
"""Seconds between two looks at what a command has written."""
OUTPUT = 16 << 20
"""The most bytes of a command's output that are read."""
SUPERVISOR = Path(__file__).with_name("supervisor.py")


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


class Scratch:
    """A folder that only this process uses. It is removed at the end; if this process is killed, by the next that makes one."""

    def __init__(self) -> None:
        self.root = Path(settings.ENTREPOT.data) / "scratch"
        self.root.mkdir(mode=0o700, exist_ok=True)
        with _locked(self.root):
            _sweep(self.root)
            self.folder = Path(tempfile.mkdtemp(dir=self.root))
            self._lock = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def make(self, name: str) -> Path:
        """A folder in it."""
        folder = self.folder / name
        folder.mkdir()
        return folder

    def write(self, name: str, text: str) -> Path:
        """A file in it that only its owner may read."""
        file = self.folder / name
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(text)
        return file

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *_: object) -> None:
        _remove(self.folder)
        os.close(self._lock)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sweep(root: Path) -> None:
    """Remove the folders whose process is gone, which are those that nobody holds locked."""
    for folder in root.iterdir():
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(folder)
            finally:
                os.close(descriptor)


def _remove(folder: Path) -> None:
    """Also where tools have made folders read-only."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        for place, _, _ in os.walk(folder):
            with contextlib.suppress(OSError):
                os.chmod(place, 0o700)
        shutil.rmtree(folder, ignore_errors=True)


def run(
    scratch: Scratch, command: Sequence[str], environment: Mapping[str, str], *, cwd: Path, heard: Callable[[], None]
) -> Done:
    """Run `command` with this environment and no other. While it writes files `heard` is called.

    Raises UpstreamTimeout at the time limit and UpstreamFailed at the size limit. No process of its group is left in any case.
    """
    out, err = scratch.folder / "stdout", scratch.folder / "stderr"
    supervisor = subprocess.Popen(
        [sys.executable, "-I", "-S", str(SUPERVISOR), str(LARGEST_FILE), str(out), str(err), *command],
        cwd=cwd,
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        code = _watched(supervisor, scratch.folder, heard)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(supervisor.pid, signal.SIGKILL)
        with supervisor:  # reaped, and its pipes closed
            pass
    return Done(code, _text(out), _text(err))


def _watched(supervisor: subprocess.Popen[bytes], folder: Path, heard: Callable[[], None]) -> int:
    """The command's code; negative where it was ended by a signal."""
    deadline = time.monotonic() + SECONDS
    size = 0
    ended: IO[bytes] = supervisor.stdout  # type: ignore[assignment]  # it is a pipe
    ready = select.poll()
    ready.register(ended, select.POLLIN)
    while not ready.poll(LOOK * 1000):
        if time.monotonic() > deadline:
            raise UpstreamTimeout(
                f"fetching from version control took longer than {SECONDS:.0f} s; try again later", rule="vcs.time"
            )
        before, size = size, _size(folder)
        if size != before:
            heard()
        if size > LARGEST_SCRATCH:
            raise UpstreamFailed(
                f"what version control sent takes more than {LARGEST_SCRATCH} bytes; publish the module as a zip", rule="vcs.size"
            )
    said = ended.readline()
    return int(said) if said else -signal.SIGKILL


def _size(folder: Path) -> int:
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
    if shutil.disk_usage(folder).free == 0:
        raise StorageFull("the server has no room to fetch from version control; free or add space", rule="storage.full")
    return total


def _text(file: Path) -> str:
    try:
        with file.open("rb") as content:
            return content.read(OUTPUT).decode(errors="replace")
    except FileNotFoundError:
        return ""
