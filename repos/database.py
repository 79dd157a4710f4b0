"""What the databases do differently, in one place."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db import connection, connections, transaction
from django.utils import timezone

Query = tuple[str, Sequence[Any]]
"""A statement and its parameters."""
MOST_ROWS = 500
"""Rows of one insertion: with as many columns as a table of ours has, fewer values than any database takes."""


def now() -> datetime:
    """The database's own clock, on which nodes agree; not the transaction's start, which would run backwards."""
    if connection.vendor != "postgresql":
        return timezone.now()
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        return cursor.fetchone()[0]


@dataclass(frozen=True)
class Sql:
    """An expression in the place of a value, with its parameters."""

    text: str
    values: tuple[Any, ...] = ()


def clock(not_before: str = "") -> Sql:
    """What a statement reads that clock by: a query less than `now`. Never earlier than this column says."""
    if connection.vendor == "postgresql":
        return Sql(f"greatest(clock_timestamp(), {not_before})" if not_before else "clock_timestamp()")
    return Sql(f"max(%s, coalesce({not_before}, ''))" if not_before else "%s", (parameter(timezone.now()),))


def has_one_writer() -> bool:
    """Whether all transactions that write wait for one another."""
    return connection.vendor == "sqlite"


def share_lock() -> str:
    """The clause that keeps selected rows from being changed until the commit. SQLite has one writer at a time anyhow."""
    return "FOR SHARE" if connection.vendor == "postgresql" else ""


def exclusive_lock() -> str:
    """The clause that keeps others from changing selected rows, and from locking them, until the commit.

    Not from inserting rows that refer to them: uploads and leases do not wait for a repository's commits.
    """
    return "FOR NO KEY UPDATE" if connection.vendor == "postgresql" else ""


def among(column: str, values: Sequence[Any]) -> tuple[str, list[Any]]:
    """A condition that a column has one of these values, with its parameters; one text for any number of them where it can be."""
    if connection.vendor == "postgresql":
        return f"{column} = ANY(%s)", [list(values)]
    return f"{column} IN ({', '.join(['%s'] * len(values))})", list(values)


def document(value: Any) -> Any:
    """A JSON value as a raw query takes it."""
    return connection.ops.adapt_json_value(value, None)


def loaded(value: Any) -> Any:
    """A JSON value as a raw query gives it: SQLite has text."""
    return json.loads(value) if isinstance(value, str) else value


def rows(sql: str, values: Sequence[Any]) -> list[tuple]:
    """What a query gives."""
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return cursor.fetchall()


def rows_of(queries: Sequence[Query]) -> list[list[tuple]]:
    """What several queries give, one after the other, asked in one go."""
    with contextlib.ExitStack() as stack:
        cursors = [stack.enter_context(connection.cursor()) for _ in queries]
        if connection.vendor != "postgresql":
            return [cursor.execute(sql, values).fetchall() for cursor, (sql, values) in zip(cursors, queries, strict=True)]
        with sent_together():
            for cursor, (sql, values) in zip(cursors, queries, strict=True):
                cursor.execute(sql, values)
        return [cursor.fetchall() for cursor in cursors]


def run(sql: str, values: Sequence[Any]) -> None:
    """A statement that gives nothing."""
    with connection.cursor() as cursor:
        cursor.execute(sql, values)


def insert(
    table: str, news: Sequence[Mapping[str, Any]], *, or_nothing: bool = False, returning: Sequence[str] = ()
) -> list[tuple]:
    """Insert rows that have the same columns, by one statement for as many as one takes, without the cost of models.

    `or_nothing`: a row that meets another one is left out. `returning`: the columns that are given back of those inserted.
    """
    given: list[tuple] = []
    end = " ON CONFLICT DO NOTHING" if or_nothing else ""
    end += f" RETURNING {', '.join(returning)}" if returning else ""
    for start in range(0, len(news), MOST_ROWS):
        part = [
            [value if isinstance(value, Sql) else Sql("%s", (value,)) for value in new.values()]
            for new in news[start:][:MOST_ROWS]
        ]
        text = ", ".join(f"({', '.join(value.text for value in row)})" for row in part)
        values = [one for row in part for value in row for one in value.values]
        with connection.cursor() as cursor:
            cursor.execute(f"INSERT INTO {table} ({', '.join(news[0])}) VALUES {text}{end}", values)
            given += cursor.fetchall() if returning else []
    return given


@contextlib.contextmanager
def sent_together() -> Iterator[None]:
    """Statements go to the database one behind the other, without a wait for each: locks are held for less.

    What they give is there when all have been sent.
    """
    if connection.vendor == "postgresql":
        with connection.wrap_database_errors, connection.connection.pipeline():
            yield
    else:
        yield


def rows_unsynced(sql: str, values: Sequence[Any]) -> list[tuple]:
    """What a statement gives whose effect is there for all at once, but which a crash of the machine, not of a process, may undo.

    For what nobody misses then; it spares the wait for the disk, which is most of what a small commit takes. Within a
    transaction it is as durable as that.
    """
    if connection.in_atomic_block:
        return rows(sql, values)
    if connection.vendor == "postgresql":  # both are one transaction, since they are sent together
        return rows_of([("SELECT set_config('synchronous_commit', 'off', true)", []), (sql, values)])[-1]
    run("PRAGMA synchronous = NORMAL", [])
    try:
        with transaction.atomic():
            return rows(sql, values)
    finally:
        run("PRAGMA synchronous = FULL", [])


def has_no_room(error: Exception) -> bool:
    """Whether a statement failed since its disk is full (SQLITE_FULL; SQLSTATE 53100)."""
    return "disk is full" in str(error) or getattr(error.__cause__, "sqlstate", "") == "53100"


def release() -> None:
    """Give the connection back before bytes stream, so that slow clients and upstreams hold none.

    Only where connections are scarce, and never inside a transaction.
    """
    if connection.vendor == "postgresql" and not connection.in_atomic_block:
        connection.close()


def moment(value: Any) -> Any:
    """A timestamp as a raw query gives it: SQLite has text, or a datetime without a zone, in UTC."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value


def parameter(value: datetime | None) -> Any:
    """A timestamp as a raw query takes it."""
    return connection.ops.adapt_datetimefield_value(value)


def before_fork() -> None:
    """Leave nothing open that a child would share with its parent: two processes on one connection read each other's answers."""
    connections.close_all()
    if connection.vendor == "postgresql":
        connection.close_pool()  # type: ignore[attr-defined]
