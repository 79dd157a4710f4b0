"""Django's SQLite backend, whose transactions wait for each other in a line of their own.

SQLite has one writer. Who comes second sleeps and tries again, ever longer, up to a tenth of a second: with several threads
that write, all of them sleep most of the time. A lock wakes the next at once; processes meet at the lock of a file beside
the database, which is asked for again every fraction of a millisecond.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from typing import Any

from django.db.backends.sqlite3 import base
from django.db.utils import OperationalError

AGAIN = 0.0003
"""Seconds between two looks whether the other process has done."""


class _Turn:
    """The right to write to one database, which one thread of one process has at a time.

    That is for speed alone: who has no such file meets the others in SQLite as ever.
    """

    def __init__(self, database: str, *, in_memory: bool):
        self._among_threads = threading.Lock()
        self._file: int | None = None
        if not in_memory:
            with contextlib.suppress(OSError):  # of another user's, or where nothing can be written
                self._file = os.open(f"{database}-turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self, patience: float) -> None:
        """Raises OperationalError after `patience` seconds."""
        end = time.monotonic() + patience
        if not self._among_threads.acquire(timeout=patience):
            raise OperationalError("the database is locked")
        try:
            while not self._is_ours():
                if time.monotonic() >= end:
                    raise OperationalError("the database is locked")
                time.sleep(AGAIN)
        except BaseException:
            self._among_threads.release()
            raise

    def _is_ours(self) -> bool:
        try:
            if self._file is not None:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a filesystem that has no such locks
            self.forget()
        return True

    def give(self) -> None:
        try:
            if self._file is not None:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        finally:
            self._among_threads.release()

    def forget(self) -> None:
        """Have no such file any more: in a child, which has none of the threads that hold it, so that it ends with the parent."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


_turns: dict[str, _Turn] = {}
_making = threading.Lock()


def _turn_of(database: str, *, in_memory: bool) -> _Turn:
    with _making:
        if database not in _turns:
            _turns[database] = _Turn(database, in_memory=in_memory)
        return _turns[database]


def _forget_turns() -> None:
    global _making
    _making = threading.Lock()  # another thread may have had the parent's
    for turn in _turns.values():
        turn.forget()
    _turns.clear()


os.register_at_fork(after_in_child=_forget_turns)


class DatabaseWrapper(base.DatabaseWrapper):
    """See the module."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._held: _Turn | None = None

    def _start_transaction_under_autocommit(self) -> None:
        name = str(self.settings_dict["NAME"])
        turn = _turns.get(name) or _turn_of(name, in_memory=self.is_in_memory_db())
        turn.take(self.settings_dict["OPTIONS"]["timeout"])
        self._held = turn
        try:
            super()._start_transaction_under_autocommit()  # type: ignore[misc]
        except BaseException:
            self._give_way()
            raise

    def _commit(self) -> None:
        super()._commit()  # type: ignore[misc]
        self._give_way()  # one that failed is still open, and is rolled back

    def _rollback(self) -> None:
        try:
            super()._rollback()  # type: ignore[misc]
        finally:
            self._give_way()

    def _close(self) -> None:
        try:
            super()._close()  # type: ignore[misc]
        finally:
            self._give_way()

    def _give_way(self) -> None:
        turn, self._held = self._held, None
        if turn is not None:
            turn.give()
