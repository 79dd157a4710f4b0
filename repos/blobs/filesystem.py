"""A store in a folder of a local or shared filesystem.

    <root>/ab/<sha256>/<unique>     objects
    <root>/incoming/<random>        bytes being received

An object appears by a rename within the filesystem, after its bytes and before the rename's folder are synced, so that a
crash at any moment leaves either a whole object or a file under incoming/.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from problems import StorageFull, TooLarge
from repos.blobs import KEY, Stored, new_key

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class FilesystemStore:
    """See `repos.blobs.Store`."""

    def __init__(self, root: Path):
        self.root = root
        self.incoming = root / "incoming"
        if not self.incoming.is_dir():
            for name in ("incoming", *(f"{number:02x}" for number in range(256))):
                (root / name).mkdir(parents=True, exist_ok=True)
            _sync_folder(root)

    def receive(self, limit: int | None = None, digests: tuple[str, ...] = ()) -> FilesystemIncoming:
        return FilesystemIncoming(self, limit, digests)

    def open(self, key: str) -> BinaryIO:
        return self._file(key).open("rb")

    def size(self, key: str) -> int:
        return self._file(key).stat().st_size

    def delete(self, key: str) -> None:
        file = self._file(key)
        file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another object of the same digest lies there
            file.parent.rmdir()

    def objects(self) -> Iterator[Stored]:
        now = time.time()
        for file in self.root.glob("[0-9a-f][0-9a-f]/*/*"):
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                stat = file.stat()
                yield Stored(file.relative_to(self.root).as_posix(), stat.st_size, now - stat.st_mtime)

    def leftovers(self) -> Iterator[Stored]:
        now = time.time()
        for file in self.incoming.iterdir():
            with contextlib.suppress(FileNotFoundError):
                stat = file.stat()
                yield Stored(file.name, stat.st_size, now - stat.st_mtime)

    def discard(self, leftover: Stored) -> None:
        (self.incoming / leftover.key).unlink(missing_ok=True)

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
        self._sha256 = hashlib.sha256()
        self._others = {name: hashlib.new(name, usedforsecurity=False) for name in digests}
        self._file = store.incoming / secrets.token_hex(16)
        self._out = self._file.open("xb", buffering=0)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    @property
    def digests(self) -> dict[str, str]:
        return {name: hasher.hexdigest() for name, hasher in self._others.items()}

    def write(self, chunk: bytes) -> None:
        if self._limit is not None and self.size + len(chunk) > self._limit:
            raise TooLarge(f"more than {self._limit} bytes were sent", rule="size.limit")
        view = memoryview(chunk)
        with _room():
            while view:
                view = view[self._out.write(view) :]
        self._sha256.update(chunk)
        for hasher in self._others.values():
            hasher.update(chunk)
        self.size += len(chunk)

    def open(self) -> BinaryIO:
        return self._file.open("rb")

    def keep(self) -> str:
        key = new_key(self.sha256)
        target = self._store.root / key
        with _room():
            os.fsync(self._out.fileno())
            self._out.close()
            self._move(target)
        return key

    def _move(self, target: Path) -> None:
        while True:
            with contextlib.suppress(FileExistsError):
                target.parent.mkdir()
            with contextlib.suppress(FileNotFoundError):  # a delete of the same digest took the empty folder away
                self._file.rename(target)
                break
            if not self._file.exists():
                raise RuntimeError("the bytes were removed while they were being received")
        _sync_folder(target.parent)
        _sync_folder(target.parent.parent)

    def __enter__(self) -> FilesystemIncoming:
        return self

    def __exit__(self, *_: object) -> None:
        self._out.close()
        self._file.unlink(missing_ok=True)


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
