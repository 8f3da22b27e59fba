"""Bringing a store's file of version 1 or 2 to version 3 in steps, between which others write.

The table of fields is made again. The new table is empty at first, so its indexes cost nothing to make. Then rows are
copied in the order of their key, some in each step, and triggers repeat in the new table what others write meanwhile.
At last the tables change names, and the rows of the old one are removed. A step that is interrupted is taken back, and
the next process that opens the file goes on there. The file grows by the size of its fields, and uses that room again
later.

Processes of an earlier version may have the file open, and go on. What they write has no route, and a trigger keeps
what it supersedes.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Final

from otel_metadata.store.history import UNKNOWN_ROUTE
from otel_metadata.store.sqlite import condition as sqlite_filter
from otel_metadata.store.sqlite import query as sqlite_query
from otel_metadata.store.sqlite.file import statements, transaction

_PROJECT: Final = f"ALTER TABLE spans ADD COLUMN project TEXT GENERATED ALWAYS AS ({sqlite_filter.PROJECT}) VIRTUAL;"
_DELETED: Final = """
CREATE TABLE deleted (
    trace_id TEXT NOT NULL, span_id TEXT NOT NULL, ns INTEGER NOT NULL, writer TEXT NOT NULL,
    PRIMARY KEY (trace_id, span_id)
) WITHOUT ROWID;
"""
_SPANS_BY_START: Final = (
    "DROP INDEX spans_by_start; CREATE INDEX spans_by_start ON spans (start_ns, trace_id, span_id);"
)
_SPANS_BY_PROJECT: Final = "CREATE INDEX spans_by_project ON spans (project, start_ns, trace_id, span_id);"

VERSION_2: Final = (
    _PROJECT + _DELETED + _SPANS_BY_START + _SPANS_BY_PROJECT + "ALTER TABLE fields ADD COLUMN start_ns INTEGER;"
)
"""SQL that makes version 2 of version 1 without rows."""

VERSION_3: Final = f"""
DROP INDEX IF EXISTS fields_by_value;
CREATE INDEX fields_by_value ON fields (level, kind, key, json_extract(value, '$'), start_ns)
    WHERE {sqlite_query.INDEXED};
CREATE INDEX fields_by_label ON fields (level, key, json_extract(value, '$.label'), start_ns)
    WHERE {sqlite_query.LABELLED};
"""
"""SQL that makes version 3 of version 2 without rows."""

_STEP_SECONDS: Final = 0.3
"""About how long a step may hold the lock. Others wait up to ten seconds for it."""

_FIRST_ROWS: Final = 500
_MAX_ROWS: Final = 20_000

_KEY: Final = "trace_id, span_id, level, kind, key"
_COLUMNS: Final = f"{_KEY}, value, ns, writer, start_ns"

_START_OF: Final = "(SELECT start_ns FROM spans AS s WHERE s.trace_id = {0}.trace_id AND s.span_id = {0}.span_id)"
_IS_FIELD: Final = " AND ".join(f"{column} = {{0}}.{column}" for column in _KEY.split(", "))
# Not OR REPLACE: in a trigger SQLite follows the OR of the statement that fired it.
_REPEAT: Final = (
    f"INSERT INTO fields_next ({_COLUMNS}) VALUES (new.trace_id, new.span_id, new.level, new.kind, new.key, "
    f"new.value, new.ns, new.writer, {_START_OF.format('new')}) ON CONFLICT DO UPDATE "
    "SET value = excluded.value, ns = excluded.ns, writer = excluded.writer, start_ns = excluded.start_ns"
)
_DROP: Final = f"DELETE FROM fields_next WHERE {_IS_FIELD.format('old')}"
_SET_START: Final = (
    "UPDATE fields_next SET start_ns = new.start_ns WHERE trace_id = new.trace_id AND span_id = new.span_id"
)

_TRIGGERS: Final = {
    "fields_next_insert": f"AFTER INSERT ON fields BEGIN {_REPEAT}; END",
    "fields_next_update": f"AFTER UPDATE ON fields BEGIN {_REPEAT}; END",
    "fields_next_delete": f"AFTER DELETE ON fields BEGIN {_DROP}; END",
    "fields_next_start": f"AFTER INSERT ON spans BEGIN {_SET_START}; END",
}

_NEXT_TABLE: Final = f"""
CREATE TABLE fields_next (
    trace_id TEXT NOT NULL, span_id TEXT NOT NULL, level TEXT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL,
    value TEXT NOT NULL, ns INTEGER NOT NULL, writer TEXT NOT NULL, start_ns INTEGER,
    PRIMARY KEY ({_KEY})
) WITHOUT ROWID;
{VERSION_3.replace("ON fields", "ON fields_next")}
CREATE TABLE fields_copied ({_KEY});
INSERT INTO fields_copied VALUES ('', '', '', '', '');
"""

# A row that is there was written meanwhile, and is newer.
_COPY: Final = f"""
INSERT OR IGNORE INTO fields_next ({_COLUMNS})
SELECT {_KEY}, value, ns, writer, {_START_OF.format("f")} FROM fields AS f
WHERE ({_KEY}) > (?, ?, ?, ?, ?) ORDER BY {_KEY} LIMIT ?
"""

_LAST_KEY: Final = f"SELECT {_KEY} FROM fields WHERE ({_KEY}) > (?, ?, ?, ?, ?) ORDER BY {_KEY} LIMIT 1 OFFSET ?"

# This version always names a route, earlier ones never do. `new` is what comes; SQLite fires the trigger before the
# upsert of an earlier version replaces the row.
_WINS: Final = (
    "CASE WHEN new.kind = 'tag' THEN (new.ns, new.writer) < (ns, writer) "
    "ELSE (new.ns, new.writer, new.value) > (ns, writer, value) END"
)
_LOSER: Final = ", ".join(
    f"CASE WHEN {_WINS} THEN {column} ELSE new.{column} END" for column in ("ns", "writer", "value", "route")
)
FOR_OLDER_VERSIONS: Final = f"""
CREATE TRIGGER fields_of_older_versions BEFORE INSERT ON fields WHEN new.route = {UNKNOWN_ROUTE} BEGIN
    INSERT INTO history ({_KEY}, ns, writer, value, route) SELECT {_KEY}, {_LOSER} FROM fields
        WHERE {_IS_FIELD.format("new")} AND (ns, writer, value) IS NOT (new.ns, new.writer, new.value)
        ON CONFLICT DO NOTHING;
    UPDATE fields SET route = new.route WHERE {_IS_FIELD.format("new")} AND {_WINS};
END;
"""
"""SQL for a file that was brought up to date, while processes of earlier versions may have it open."""


def to_version_3(connection: sqlite3.Connection, give_way: Callable[[], object]) -> None:
    """Bring a file of an earlier version to version 3, or do what another process has left to do.

    Args:
        connection: Outside a transaction.
        give_way: Called before each step, so that others have their turn. It may raise; what is left is done another
            time.

    Raises:
        sqlite3.Error: A step failed, and was taken back.
    """
    connection.execute("PRAGMA cache_size = -131072")  # rows come in the order of the table, not of its indexes
    for step in (_make_next_table, _index_starts, _index_projects):
        if _version(connection) < 3:
            give_way()
            with transaction(connection):
                if _version(connection) < 3:
                    step(connection)
    count = _FIRST_ROWS
    while _version(connection) < 3 or _has(connection, "fields_old"):
        give_way()
        started = time.perf_counter()
        with transaction(connection):
            if _version(connection) >= 3:
                _remove(connection, count)
            elif _copy(connection, count):
                _end(connection)
        is_quick = time.perf_counter() - started < _STEP_SECONDS
        count = min(count * 2, _MAX_ROWS) if is_quick else max(count // 2, 1)


def forget_older_versions(connection: sqlite3.Connection) -> None:
    """Drop the trigger for earlier versions, once none of them has the file open: none can open it any more.

    The trigger slows every first write of a key down.
    """
    connection.execute("DROP TRIGGER IF EXISTS fields_of_older_versions")


def _make_next_table(connection: sqlite3.Connection) -> None:
    if _has(connection, "fields_next"):
        return
    if _version(connection) == 1:
        _run(connection, _PROJECT)
        _run(connection, _DELETED)
    _run(connection, _NEXT_TABLE)
    for name, trigger in _TRIGGERS.items():
        connection.execute(f"CREATE TRIGGER {name} {trigger}")


def _index_starts(connection: sqlite3.Connection) -> None:
    if _version(connection) == 1 and not _has(connection, "spans_by_start", "%trace_id%"):
        _run(connection, _SPANS_BY_START)


def _index_projects(connection: sqlite3.Connection) -> None:
    if not _has(connection, "spans_by_project"):
        _run(connection, _SPANS_BY_PROJECT)


def _copy(connection: sqlite3.Connection, count: int) -> bool:
    """Copy the next fields, and return whether all are copied."""
    after = connection.execute("SELECT * FROM fields_copied").fetchone()
    connection.execute(_COPY, (*after, count))
    last = connection.execute(_LAST_KEY, (*after, count - 1)).fetchone()
    if last is None:
        return True
    connection.execute("UPDATE fields_copied SET (trace_id, span_id, level, kind, key) = (?, ?, ?, ?, ?)", last)
    return False


def _end(connection: sqlite3.Connection) -> None:
    for name in _TRIGGERS:
        connection.execute(f"DROP TRIGGER {name}")
    connection.execute("DROP TABLE fields_copied")
    connection.execute("ALTER TABLE fields RENAME TO fields_old")  # to drop it whole would take long
    connection.execute("ALTER TABLE fields_next RENAME TO fields")
    connection.execute("PRAGMA user_version = 3")


def _remove(connection: sqlite3.Connection, count: int) -> None:
    """Remove the next rows of the old table, and then the table."""
    if not _has(connection, "fields_old"):
        return
    last = connection.execute(f"SELECT {_KEY} FROM fields_old ORDER BY {_KEY} LIMIT 1 OFFSET ?", (count,)).fetchone()
    if last is not None:
        connection.execute(f"DELETE FROM fields_old WHERE ({_KEY}) <= (?, ?, ?, ?, ?)", last)
    else:
        connection.execute("DROP TABLE fields_old")


def _run(connection: sqlite3.Connection, script: str) -> None:
    for statement in statements(script):
        connection.execute(statement)


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _has(connection: sqlite3.Connection, name: str, sql: str = "%") -> bool:
    question = "SELECT 1 FROM sqlite_master WHERE name = ? AND sql LIKE ?"
    return connection.execute(question, (name, sql)).fetchone() is not None
