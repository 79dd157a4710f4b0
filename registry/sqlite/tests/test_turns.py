"""Who writes to an SQLite database waits for the others in line: threads and processes, also those that are killed."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from django.db.utils import OperationalError

from registry.sqlite import base
from registry.sqlite.base import _Turn

CONTEXT = multiprocessing.get_context("spawn")


def turn_of(file: Path) -> _Turn:
    return _Turn(str(file), in_memory=False)


def hold(file: Path, pipe: Connection) -> None:
    """Another process: take the turn, say so, and give it back when told."""
    turn = turn_of(file)
    turn.take(30)
    pipe.send("taken")
    pipe.recv()
    turn.give()
    pipe.send("given")
    pipe.recv()


@pytest.fixture
def other(tmp_path):
    """Another process that has the turn: it, and a pipe to it."""
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=hold, args=(tmp_path / "db", theirs), daemon=True)
    process.start()
    assert ours.poll(60) and ours.recv() == "taken"
    yield process, ours
    process.kill()
    process.join(30)


def test_who_waits_for_another_process_is_let_in_when_it_gives_way(tmp_path, other):
    turn, taken = turn_of(tmp_path / "db"), threading.Event()
    waiting = threading.Thread(target=lambda: (turn.take(30), taken.set()), daemon=True)
    waiting.start()
    assert not taken.wait(0.2)
    other[1].send("give")
    assert taken.wait(30)


def test_a_process_that_is_killed_gives_way(tmp_path, other):
    os.kill(other[0].pid, signal.SIGKILL)
    turn_of(tmp_path / "db").take(30)


def test_who_waits_too_long_is_told_so_and_keeps_nobody_else_waiting(tmp_path, other):
    turn = turn_of(tmp_path / "db")
    with pytest.raises(OperationalError, match="locked"):
        turn.take(0.05)
    other[1].send("give")
    assert other[1].poll(30) and other[1].recv() == "given"
    turn.take(30)


def test_a_thread_that_waits_too_long_is_told_so(tmp_path):
    turn = turn_of(tmp_path / "db")
    turn.take(1)
    with pytest.raises(OperationalError, match="locked"):
        turn.take(0.05)
    turn.give()
    turn.take(1)


def test_a_child_neither_holds_nor_frees_what_its_parent_took(tmp_path):
    """As gunicorn's, which is forked while other threads may write."""
    turn, other = base._turn_of(str(tmp_path / "db"), in_memory=False), turn_of(tmp_path / "db")
    turn.take(1)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(write)
        os.read(read, 1)  # until the parent closes it
        os._exit(len(base._turns))
    os.close(read)
    with pytest.raises(OperationalError):
        other.take(0.05)
    turn.give()
    other.take(1)
    os.close(write)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "it knows of no turn"


def test_a_child_makes_turns_of_its_own_while_a_thread_of_its_parent_makes_one(tmp_path):
    inherited = base._turn_of(str(tmp_path / "inherited"), in_memory=False)
    inherited.take(1)
    with base._making:
        child = os.fork()
        if not child:
            signal.alarm(30)  # it would wait for ever
            try:
                base._turn_of(str(tmp_path / "db"), in_memory=False).take(1)
                inherited.give()  # whose file may have had the number of the new one's
                with pytest.raises(OperationalError):
                    turn_of(tmp_path / "db").take(0.05)
                os._exit(0)
            finally:
                os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_is_free_is_taken_by_who_cannot_wait(tmp_path):
    turn_of(tmp_path / "db").take(0)


def test_where_files_cannot_be_locked_a_database_is_written_to_all_the_same(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    turn = turn_of(tmp_path / "db")
    monkeypatch.setattr(fcntl, "flock", fail)
    for _ in range(2):
        turn.take(1)
        turn.give()


def test_without_a_file_of_its_own_a_database_is_written_to_all_the_same(tmp_path):
    (tmp_path / "db-turn").mkdir()
    turn = turn_of(tmp_path / "db")
    turn.take(1)
    turn.give()
    turn.take(1)
