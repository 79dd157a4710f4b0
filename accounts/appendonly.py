"""The database itself keeps the audit: triggers refuse to change a line, and to remove one that is younger than a day.

Retention (`repos.upkeep.audit`) removes what is older, so a day is what a configuration of any kind leaves to be looked at.
Whoever owns the table can remove the triggers too; what such a person must not be able to take away is exported in time.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connection

KEPT = timedelta(days=1)
"""For how long nothing takes a line away."""
REFUSAL = "the audit is append-only: lines are never changed, and stay for a day at least"

POSTGRESQL = (
    f"""
CREATE OR REPLACE FUNCTION accounts_event_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF OLD.at < clock_timestamp() - interval '1 day' THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION '{REFUSAL}' USING ERRCODE = 'insufficient_privilege';
END $$
""",
    """
CREATE TRIGGER accounts_event_stays BEFORE UPDATE OR DELETE ON accounts_event
    FOR EACH ROW EXECUTE FUNCTION accounts_event_stays()
""",
    """
CREATE TRIGGER accounts_event_stays_whole BEFORE TRUNCATE ON accounts_event
    FOR EACH STATEMENT EXECUTE FUNCTION accounts_event_stays()
""",
)

SQLITE = (
    ("changed", "UPDATE", ""),
    ("removed", "DELETE", "WHEN OLD.at >= strftime('%Y-%m-%d %H:%M:%f', 'now', '-1 day')"),
    # INSERT OR REPLACE removes without telling the trigger for that.
    ("replaced", "INSERT", "WHEN EXISTS (SELECT 1 FROM accounts_event WHERE id = NEW.id)"),
)
"""Of each trigger its name's end, the statement that it refuses, and when."""


def ensure() -> None:
    """Make the triggers where they are missing, such as after a migration that SQLite carries out by a table of its own."""
    if connection.vendor == "postgresql":
        if not _rows("SELECT 1 FROM pg_trigger WHERE tgname = 'accounts_event_stays_whole'"):
            for statement in POSTGRESQL:
                _rows(statement)
        return
    for name, statement, when in SQLITE:
        _rows(
            f"CREATE TRIGGER IF NOT EXISTS accounts_event_{name} BEFORE {statement} ON accounts_event {when}"
            f" BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
        )


def remove() -> None:
    """Remove them, for a migration backwards."""
    if connection.vendor == "postgresql":
        _rows("DROP FUNCTION IF EXISTS accounts_event_stays CASCADE")
        return
    for name, _, _ in SQLITE:
        _rows(f"DROP TRIGGER IF EXISTS accounts_event_{name}")


def after_migrate(using: str = DEFAULT_DB_ALIAS, **_: Any) -> None:
    """Receive post_migrate. When accounts itself has been migrated away, there is nothing to keep."""
    if using == DEFAULT_DB_ALIAS and "accounts_event" in connection.introspection.table_names():
        ensure()


def _rows(sql: str) -> list[tuple]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else []
