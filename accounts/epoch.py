"""One number that changes with every change to who may do what, so that a process knows what it keeps is out of date.

A process keeps rights, and other rooms the catalogue of repositories, under the epoch that it read before them. The
number is raised in the transaction of the change, so whoever reads the new number also reads the change. It is raised
by a random step: a number that a rolled-back transaction has used never comes back with another meaning.
"""

from __future__ import annotations

import secrets
from collections.abc import Hashable
from typing import Generic, TypeVar

from django.db import connection, transaction

import problems

STEP = 2**31
"""The largest step: 2**32 changes fit into the column."""

T = TypeVar("T")


def current() -> int:
    """The epoch, in one query. Read it before what is kept under it, never after."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT number FROM accounts_epoch WHERE id = 1")
        return number_in(cursor.fetchone())


def number_in(row: tuple | None) -> int:
    """The first column of a row of accounts_epoch. Raises problems.Unavailable when there is no row."""
    if row is None:
        raise problems.Unavailable("The database has not been set up: run `manage.py migrate`.")
    return int(row[0])


def bump() -> int:
    """Start a new epoch, within the transaction of the change and after the change itself.

    It holds the epoch's row until the commit. Raises TransactionManagementError outside of a transaction.
    """
    if not connection.in_atomic_block:
        raise transaction.TransactionManagementError("The epoch is raised in the transaction of the change.")
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO accounts_epoch (id, number) VALUES (1, %s)"
            " ON CONFLICT (id) DO UPDATE SET number = accounts_epoch.number + excluded.number RETURNING number",
            [1 + secrets.randbelow(STEP)],
        )
        return number_in(cursor.fetchone())


def lock() -> None:
    """Wait for other changes to who may do what, and hold them off until this transaction ends.

    A transaction that makes several such changes calls this first, so that two of them cannot deadlock. An update that
    changes nothing takes the row's lock on PostgreSQL, and on SQLite the lock for writing before anything is read.
    """
    with connection.cursor() as cursor:
        cursor.execute("UPDATE accounts_epoch SET number = number WHERE id = 1")


class Cache(Generic[T]):
    """What one process knows in one epoch, dropped when a value of another epoch comes. Safe among threads."""

    def __init__(self, limit: int = 10_000):
        self._limit = limit
        self._held: tuple[int, dict[Hashable, T]] = (-1, {})

    def get(self, epoch: int, key: Hashable) -> T | None:
        held, values = self._held
        return values.get(key) if held == epoch else None

    def put(self, epoch: int, key: Hashable, value: T) -> T:
        held, values = self._held
        if held != epoch or len(values) >= self._limit:
            self._held = (epoch, {key: value})
        else:
            values[key] = value
        return value
