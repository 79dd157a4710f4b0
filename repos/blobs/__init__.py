"""Bytes on durable storage, known by key. This room knows no rows: who may see a blob is asked elsewhere.

The way of new bytes:

    with store.receive(limit=…) as incoming:     a temporary file, hashed while written
        incoming.write(chunk) …
        incoming.open()                           read what has been written so far
        key = incoming.keep()                     durable under a key that was never used before
                                                  (leaving the block without keep() discards the bytes)

Of bytes that come in several requests each is a part; the parts outlive the process, and any other joins them:

        name = incoming.set_aside()               instead of keep(); a crash of the machine may lose it, or some of it
    with store.join([name, …]) as incoming:       the parts in their order, to be read and kept
    store.discard_part(name)
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

CHUNK = 256 * 1024
"""Bytes moved at a time, everywhere."""

KEY = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}[./][0-9a-f]{16}")
"""Keys of the first stores have a slash where others have a dot; they are rows' values, and stay what they are."""


def new_key(sha256: str) -> str:
    """A key for bytes of this digest: `ab/<digest>.<unique>`. Unique, so that a delete never meets a newer object."""
    return f"{sha256[:2]}/{sha256}.{secrets.token_hex(8)}"


@dataclass(frozen=True)
class Stored:
    """One object that a store holds: its key, size in bytes, and age in seconds."""

    key: str
    size: int
    age: float


class Incoming(Protocol):
    """Bytes on their way in. `sha256` and `digests` are of what has been written so far."""

    size: int

    @property
    def sha256(self) -> str: ...

    @property
    def digests(self) -> dict[str, str]: ...

    def write(self, chunk: bytes) -> None:
        """Append `chunk`. Raises TooLarge past the limit, StorageFull where there is no room."""

    def open(self) -> BinaryIO:
        """A seekable reader of what has been written so far; the caller closes it."""

    def keep(self) -> str:
        """Make the bytes durable and return their new key. Raises StorageFull."""

    def set_aside(self, *, durable: bool = False) -> str:
        """Let the bytes outlive the block, and the process, as a part, whose name is returned. Raises StorageFull.

        `durable`: where a crash of the machine leaves it, it is whole.
        """

    def __enter__(self) -> Incoming: ...

    def __exit__(self, *_: object) -> None: ...


class Store(Protocol):
    """Where blobs lie. Every implementation passes tests/contract/test_stores.py.

    A missing key is FileNotFoundError from `open` and `size`, and nothing to `delete`.
    """

    def receive(self, limit: int | None = None, digests: tuple[str, ...] = (), *, hashed: bool = True) -> Incoming:
        """Begin to receive at most `limit` bytes, computing `digests` (hashlib names) besides SHA-256.

        `hashed` False: a part, of which nothing is computed before it is joined to others.
        """

    def open(self, key: str) -> BinaryIO:
        """A seekable reader of the object; the caller closes it."""

    def size(self, key: str) -> int: ...

    def delete(self, key: str) -> None: ...

    def objects(self) -> Iterator[Stored]:
        """All objects, in no order."""

    def leftovers(self) -> Iterator[Stored]:
        """Bytes that were being received when their writer ended; `key` is of use to `discard` only."""

    def discard(self, leftover: Stored) -> None: ...

    def join(self, parts: Sequence[str], digests: tuple[str, ...] = (), sha256: str = "") -> Incoming:
        """The bytes of these parts, which stay. `sha256`: of one that is durable and alone, which need not be read then.

        Raises FileNotFoundError where one is gone, StorageFull.
        """

    def parts(self) -> Iterator[Stored]:
        """All parts; `key` is the name."""

    def discard_part(self, name: str) -> None: ...
