"""A store in a folder of a local or shared filesystem.

    <root>/ab/<sha256>.<unique>     objects
    <root>/incoming/<random>        bytes being received
    <root>/parts/<random>           bytes that wait for those that follow them

An object gets its place by a rename within the filesystem, and then its bytes and its folder are synced, in this order so that
one journal entry does for both. Its key is told to nobody before: what a crash leaves half there is an object that no row
names, which gc removes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

from problems import StorageFull, TooLarge, Unavailable
from repos.blobs import CHUNK, KEY, Stored, new_key

PART = re.compile("[0-9a-f]{32}")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class FilesystemStore:
    """See `repos.blobs.Store`."""

    def __init__(self, root: Path):
        self.root = root
        self.incoming = root / "incoming"
        self.set_aside = root / "parts"
        if not (self.incoming.is_dir() and self.set_aside.is_dir()):
            for name in (*(f"{number:02x}" for number in range(256)), "incoming", "parts"):  # the last ones tell of the others
                (root / name).mkdir(parents=True, exist_ok=True)
            _sync_folder(root)

    def receive(self, limit: int | None = None, digests: tuple[str, ...] = (), *, hashed: bool = True) -> FilesystemIncoming:
        return FilesystemIncoming(self, limit, ("sha256", *digests) if hashed else ())

    def open(self, key: str) -> BinaryIO:
        return self._file(key).open("rb")

    def size(self, key: str) -> int:
        return self._file(key).stat().st_size

    def delete(self, key: str) -> None:
        self._file(key).unlink(missing_ok=True)

    def objects(self) -> Iterator[Stored]:
        now = time.time()
        for file in self.root.glob("[0-9a-f][0-9a-f]/**/*"):
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                if S_ISREG((stat := file.stat()).st_mode):
                    yield Stored(file.relative_to(self.root).as_posix(), stat.st_size, now - stat.st_mtime)

    def leftovers(self) -> Iterator[Stored]:
        return _files(self.incoming)

    def discard(self, leftover: Stored) -> None:
        (self.incoming / leftover.key).unlink(missing_ok=True)

    def join(self, parts: Sequence[str], digests: tuple[str, ...] = (), sha256: str = "") -> FilesystemIncoming:
        incoming = FilesystemIncoming(self, None, ("sha256", *digests))
        try:
            if len(parts) == 1:
                incoming.adopt(self._part(parts[0]), sha256)
            else:
                incoming.copy(map(self._part, parts))
        except BaseException:
            incoming.__exit__()
            raise
        return incoming

    def parts(self) -> Iterator[Stored]:
        return _files(self.set_aside)

    def discard_part(self, name: str) -> None:
        self._part(name).unlink(missing_ok=True)

    def _part(self, name: str) -> Path:
        if not PART.fullmatch(name):
            raise ValueError(f"not a part's name: {name!r}")
        return self.set_aside / name

    def _file(self, key: str) -> Path:
        if not KEY.fullmatch(key):
            raise ValueError(f"not a blob's key: {key!r}")
        return self.root / key


class FilesystemIncoming:
    """See `repos.blobs.Incoming`."""

    def __init__(self, store: FilesystemStore, limit: int | None, digests: tuple[str, ...]):
        self.size = 0
        self._store = store
        self._limit = limit
        self._hashers = {name: hashlib.new(name, usedforsecurity=False) for name in digests}
        self._file = store.incoming / secrets.token_hex(16)
        self._out = self._file.open("xb", buffering=0)
        self._known = ""
        self._placed = False

    @property
    def sha256(self) -> str:
        return self._known or self._hashers["sha256"].hexdigest()

    @property
    def digests(self) -> dict[str, str]:
        return {name: hasher.hexdigest() for name, hasher in self._hashers.items() if name != "sha256"}

    def write(self, chunk: bytes | memoryview) -> None:
        if self._limit is not None and self.size + len(chunk) > self._limit:
            raise TooLarge(f"more than {self._limit} bytes were sent", rule="size.limit")
        view = memoryview(chunk)
        with _room():
            while view:
                view = view[self._out.write(view) :]
        self._hash(chunk)

    def _hash(self, chunk: bytes | memoryview) -> None:
        for hasher in self._hashers.values():
            hasher.update(chunk)
        self.size += len(chunk)

    def copy(self, parts: Iterable[Path]) -> None:
        """Append these parts, read once."""
        for part in parts:
            for chunk in _chunks(part):
                self.write(chunk)

    def adopt(self, part: Path, sha256: str) -> None:
        """Be this part, under a second name, with nothing copied; read only where a digest is wanted that is not known."""
        self._out.close()
        self._file.unlink()
        try:
            os.link(part, self._file)
        except FileNotFoundError:
            raise
        except OSError:  # a filesystem without hard links
            with _room():
                shutil.copyfile(part, self._file)
        os.utime(self._file)  # its age is that of these bytes' publication, and not the part's
        self._out = self._file.open("ab", buffering=0)
        if sha256 and len(self._hashers) == 1:
            self._known, self.size = sha256, self._file.stat().st_size
            return
        for chunk in _chunks(self._file):
            self._hash(chunk)

    def open(self) -> BinaryIO:
        return self._file.open("rb")

    def keep(self) -> str:
        key = new_key(self.sha256)
        target = self._store.root / key
        try:
            with _room():
                self._place(target)
                os.fsync(self._out.fileno())
                _sync_folder(target.parent)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        return key

    def set_aside(self, *, durable: bool = False) -> str:
        name = secrets.token_hex(16)
        with _room():
            if durable:
                os.fsync(self._out.fileno())
            self._out.close()  # a shared filesystem may tell only now that there is no room
            self._place(self._store.set_aside / name)
        return name

    def _place(self, target: Path) -> None:
        try:
            self._file.rename(target)
        except FileNotFoundError:
            self._find_out_what_is_gone(target.parent)
            self._file.rename(target)
        self._placed = True

    def _find_out_what_is_gone(self, folder: Path) -> None:
        """Make the folder, which whoever restored the store may have left out. Raises Unavailable where it is the bytes."""
        if not self._file.exists():
            raise Unavailable("the bytes were removed while they came; send them again", rule="blob.live")
        folder.mkdir(exist_ok=True)
        _sync_folder(self._store.root)

    def __enter__(self) -> FilesystemIncoming:
        return self

    def __exit__(self, *_: object) -> None:
        self._out.close()
        if not self._placed:
            self._file.unlink(missing_ok=True)


def _files(folder: Path) -> Iterator[Stored]:
    now = time.time()
    for file in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            stat = file.stat()
            yield Stored(file.name, stat.st_size, now - stat.st_mtime)


def _chunks(file: Path) -> Iterator[memoryview]:
    """The bytes of a file piece by piece, each good until the next."""
    piece = memoryview(bytearray(CHUNK))
    with file.open("rb", buffering=0) as source:
        while read := source.readinto(piece):
            yield piece[:read]


@contextlib.contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise StorageFull("the store has no room for these bytes; free or add space", rule="storage.full") from error
        raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
