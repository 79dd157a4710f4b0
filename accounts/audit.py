"""The audit: who did what, when, from where. Lines are added and never changed.

record   something that was done, in the transaction in which it is: both are, or neither
line     the same as a row, for who inserts it together with rows of their own
notice   something that may come in floods, such as refusals: written before long, and many alike as one line

Nothing of it holds a secret, and no line is large: what a client sends is cut.
"""

from __future__ import annotations

import atexit
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

from django.db import DatabaseError, connection, transaction

from accounts.models import User
from accounts.origin import Origin, enter, entered, here

__all__ = ["Origin", "enter", "entered", "flush", "here", "line", "notice", "record", "write"]

log = logging.getLogger("entrepot.audit")

SIGN_IN = "sign-in"
SUBJECT = 1024
"""Bytes of a line's subject."""
LARGEST = 4096
"""Characters of a line's detail, as JSON."""
CUTS = ((500, 50), (200, 10), (50, 3))
"""Characters of a text and entries of a list that are kept of a detail: of one that is too large then, fewer."""
AT_ONCE = 500
"""Lines of one insertion."""
SECONDS = 1.0
"""How long what is noticed waits."""
MINUTE = 60.0
"""For how many seconds what is alike is counted together."""
DIFFERENT = 100
"""Lines of one action that a process tells apart in a minute, unless `notice` is told another number."""

Line = dict[str, Any]
"""The columns of a row, but for its id and its time, which are the database's."""


class About(TypedDict, total=False):
    """What a line tells besides the action; see `line`."""

    repository: str
    subject: str
    refused: bool
    detail: Mapping[str, Any] | None
    origin: Origin | None


def record(action: str, **about: Unpack[About]) -> None:
    """Write one line, in the caller's transaction. `action`: such as `token.create`; `detail` holds no secret.

    What cannot be recorded is not done either: the error undoes the transaction.
    """
    write([line(action, **about)])


def notice(action: str, *, most: int = DIFFERENT, **about: Unpack[About]) -> None:
    """Have a line written within a second or so, outside of any transaction, without a query here.

    What is alike in all but its time and request is counted: one line tells of the first, and at the end of the minute another of
    how many more there were. `most`: how many different ones of the action are told apart in a minute; of those beyond one line
    tells how many there were. Never raises: the audit of what is not a change must not be in its way.
    """
    told = line(action, **about)
    _notices.add(told, most)
    _write_soon()


def line(
    action: str,
    *,
    repository: str = "",
    subject: str = "",
    refused: bool = False,
    detail: Mapping[str, Any] | None = None,
    origin: Origin | None = None,
) -> Line:
    """What `record` writes, as a row of accounts_event."""
    by = origin or here()
    return {
        "action": action, "refused": refused, "actor": _storable(by.actor)[:150], "token": by.token, "address": by.address[:45],
        "request": by.request[:32], "repository": _storable(repository)[:100], "subject": _subject(subject),
        "detail": connection.ops.adapt_json_value(_bounded(dict(detail or {})), None), "count": 1,
    }  # fmt: skip


def write(lines: Sequence[Line]) -> None:
    """Insert lines, in the caller's transaction if there is one."""
    for start in range(0, len(lines), AT_ONCE):
        part = lines[start : start + AT_ONCE]
        places = ", ".join(["%s"] * len(part[0]))
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO accounts_event ({', '.join(part[0])}) VALUES {', '.join([f'({places})'] * len(part))}",
                [value for one in part for value in one.values()],
            )


def _storable(text: str) -> str:
    """Without what no database takes."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _subject(text: str) -> str:
    return _storable(text).encode()[:SUBJECT].decode("utf-8", "ignore")


def _bounded(detail: dict[str, Any]) -> dict[str, Any]:
    for characters, entries in CUTS:
        cut = _cut(detail, characters, entries)
        if len(json.dumps(cut)) <= LARGEST:
            return cut
    return {"too large": True}


def _cut(value: Any, characters: int, entries: int) -> Any:
    if isinstance(value, Mapping):
        return {str(key)[:characters]: _cut(inner, characters, entries) for key, inner in list(value.items())[:entries]}
    if isinstance(value, list | tuple | set | frozenset):
        listed = sorted(value) if isinstance(value, set | frozenset) else list(value)
        more = [f"and {len(listed) - entries} more"] if len(listed) > entries else []
        return [_cut(inner, characters, entries) for inner in listed[:entries]] + more
    if value is None or isinstance(value, bool | int | float):
        return value
    text = _storable(str(value))
    return text if len(text) <= characters else f"{text[:characters]}…"


@dataclass(slots=True)
class _Alike:
    """What is alike in a minute. `told`: a line of it has been written."""

    line: Line
    unwritten: int = 0
    told: bool = False


class _Notices:
    """What was noticed and is not written yet: so many different ones a minute, and no more, however many there are."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._alike: dict[str, _Alike] = {}
        self._different: Counter[str] = Counter()
        self._began = time.monotonic()

    def add(self, told: Line, most: int) -> None:
        key = _key(told)
        with self._lock:
            alike = self._alike.get(key)
            if alike is None:
                action = told["action"]
                if self._different[action] >= most:
                    alike = self._beyond(told, most)
                else:
                    self._different[action] += 1
                    alike = self._alike[key] = _Alike(told)
            alike.unwritten += 1

    def _beyond(self, told: Line, most: int) -> _Alike:
        why = f"further lines of this action: more than {most} different ones came in a minute, of which these are counted only"
        rest = line(told["action"], refused=told["refused"], detail={"beyond": why}, origin=Origin())
        return self._alike.setdefault(_key(rest), _Alike(rest))

    def flush(self, *, everything: bool) -> None:
        """Write what came for the first time in this minute and, at its end, how often it came after that.

        After an error it is all kept for the next time.
        """
        with self._writing:
            with self._lock:
                over = everything or time.monotonic() >= self._began + MINUTE
                due = [(one, one.unwritten) for one in self._alike.values() if one.unwritten and (over or not one.told)]
            if due:
                lines = _without_strangers([{**one.line, "count": count} for one, count in due])
                with transaction.atomic():
                    write(lines)
            with self._lock:
                for one, count in due:
                    one.unwritten, one.told = one.unwritten - count, True
                if over:
                    self._begin_again()

    def _begin_again(self) -> None:
        self._alike = {key: _Alike(one.line, one.unwritten) for key, one in self._alike.items() if one.unwritten}
        self._different = Counter(one.line["action"] for one in self._alike.values())
        self._began = time.monotonic()


def _key(told: Line) -> str:
    """What lines are alike by: all that they say, but for the request."""
    detail = getattr(told["detail"], "obj", told["detail"])  # psycopg's wrapper of JSON shows its beginning alone
    return repr([detail, *(value for name, value in told.items() if name not in ("detail", "request"))])


def _without_strangers(lines: list[Line]) -> list[Line]:
    """Of a sign-in that was refused the name only where it is a user's: people type passwords where names go."""
    tried = {one["subject"] for one in lines if one["action"] == SIGN_IN and one["refused"] and one["subject"]}
    if not tried:
        return lines
    known = set(User.objects.filter(username__in=tried).values_list("username", flat=True))
    return [{**one, "subject": ""} if one["subject"] in tried - known and one["action"] == SIGN_IN else one for one in lines]


_notices = _Notices()
_starting = threading.Lock()
_thread: threading.Thread | None = None


def _write_soon() -> None:
    """See to it that a thread writes what is noticed."""
    global _thread
    if _thread is not None and _thread.is_alive():
        return
    with _starting:
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_run, name="audit", daemon=True)
            _thread.start()
            atexit.register(flush)


def flush() -> None:
    """Write all that was noticed, such as at the end of a process. What cannot be written is told in the log."""
    _write(everything=True)


def _write(*, everything: bool) -> None:
    try:
        _notices.flush(everything=everything)
    except DatabaseError:
        log.exception("what was noticed for the audit could not be written; it is counted on and tried again")


def _run() -> None:
    waiting = threading.Event()
    while True:
        waiting.wait(SECONDS)
        _write(everything=False)
        connection.close()
