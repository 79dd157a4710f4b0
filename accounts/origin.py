"""Who acts in this thread: what every line of the audit says of where it came from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Origin:
    """Who acts, by which token, from which address, in which request. A job, or a command, has no address.

    `actor`: a user's name; empty for anonymous; `command:` and who runs it, which is no user's name, for a command.
    `request`: the id that the answer tells as X-Request-Id; `job` and its number; of a command its name.
    """

    actor: str = ""
    token: int | None = None
    address: str = ""
    request: str = ""


_NOBODY = Origin()
_HERE: ContextVar[Origin] = ContextVar("origin", default=_NOBODY)


def here() -> Origin:
    """The origin of what this thread does now."""
    return _HERE.get()


def enter(origin: Origin) -> None:
    """Say who acts in this thread from now on: until somebody else does, or the `entered` around it ends."""
    _HERE.set(origin)


@contextlib.contextmanager
def entered(origin: Origin) -> Iterator[None]:
    """Who acts in this thread while the block runs. What was said before holds again afterwards, whoever entered within."""
    before = _HERE.set(origin)
    try:
        yield
    finally:
        _HERE.reset(before)
