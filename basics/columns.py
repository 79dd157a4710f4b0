"""Columns that both databases treat alike."""

from __future__ import annotations

from django.db import models


class BytesOrderedField(models.CharField):
    """Text that sorts and compares by its bytes on every database.

    SQLite does so already; PostgreSQL needs the collation "C", which SQLite does not know.
    """

    def db_parameters(self, connection):
        collation = "C" if connection.vendor == "postgresql" else None
        return {**super().db_parameters(connection), "collation": collation}


class Clock(models.Func):
    """The database's own clock at the moment of a row's insertion, as a default; in UTC, to a millisecond or better."""

    output_field = models.DateTimeField()

    def as_postgresql(self, compiler, connection, **context):
        return self.as_sql(compiler, connection, template="clock_timestamp()", **context)

    def as_sqlite(self, compiler, connection, **context):
        # As Django writes times, so that they compare as text.
        return self.as_sql(compiler, connection, template="strftime('%%%%Y-%%%%m-%%%%d %%%%H:%%%%M:%%%%f000', 'now')", **context)
