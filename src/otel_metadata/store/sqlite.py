"""The embedded store: one SQLite file in WAL mode, which several processes write at once.

Two tables. `spans` is what OTLP says of a span, one row each. `fields` is one row for each field; the first-level merge
is an upsert that keeps the higher version, so there is no read-modify-write, and any order, any repetition and any
number of writers lead to the same rows. Fields of a trace have an empty span id. A field may come before its span.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

import orjson

from otel_metadata.errors import StoreError, StoreFormatError
from otel_metadata.model.merge import FieldName, Fields, Json, json_text
from otel_metadata.model.record import SpanQuery, SpanRecord, StoredSpan, assemble
from otel_metadata.seams import SystemClock
from otel_metadata.store.rows import row_of
from otel_metadata.store.sqlite_file import Layout, create_private_file, leave_to_the_parent, prepare

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan  # noqa: TID251 # a name in a signature; nothing is loaded

    from otel_metadata.model.patch import Patch
    from otel_metadata.seams import Clock

__all__ = ["APPLICATION_ID", "SCHEMA_VERSION", "SqliteStore"]

APPLICATION_ID: Final = 0x6F74_656D
"""SQLite's `application_id` of our files ("otem"): a database without it is somebody else's."""

SCHEMA_VERSION: Final = 1
"""SQLite's `user_version`: a higher one was written by a newer version."""

_SCHEMA: Final = """
CREATE TABLE spans (
    trace_id TEXT NOT NULL, span_id TEXT NOT NULL, parent_id TEXT, trace_state TEXT NOT NULL,
    name TEXT NOT NULL, kind TEXT NOT NULL, start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL,
    status_code TEXT NOT NULL, status_message TEXT,
    attributes TEXT NOT NULL, events TEXT NOT NULL, links TEXT NOT NULL, resource TEXT NOT NULL,
    scope_name TEXT NOT NULL, scope_version TEXT,
    PRIMARY KEY (trace_id, span_id)
);
CREATE INDEX spans_by_start ON spans (start_ns DESC);
CREATE INDEX spans_by_span_id ON spans (span_id);
CREATE TABLE fields (
    trace_id TEXT NOT NULL, span_id TEXT NOT NULL, level TEXT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL,
    value TEXT NOT NULL, ns INTEGER NOT NULL, writer TEXT NOT NULL,
    PRIMARY KEY (trace_id, span_id, level, kind, key)
) WITHOUT ROWID;
"""

_LAYOUT: Final = Layout("a store", "a store of otel-metadata", APPLICATION_ID, SCHEMA_VERSION, _SCHEMA)

_SPAN_COLUMNS: Final = (
    "trace_id, span_id, parent_id, trace_state, name, kind, start_ns, end_ns, status_code, status_message, "
    "attributes, events, links, resource, scope_name, scope_version"
)

_WRITE_SPAN: Final = f"INSERT OR REPLACE INTO spans ({_SPAN_COLUMNS}) VALUES ({', '.join('?' * 16)})"

# The merge contract (model.merge) in SQL: the higher version stands, of equal ones the greater JSON text; of a tag the
# lower version. SQLite compares text by its UTF-8 bytes, which is the order of Python's code points.
_MERGE_FIELD: Final = """
INSERT INTO fields (trace_id, span_id, level, kind, key, value, ns, writer) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (trace_id, span_id, level, kind, key) DO UPDATE
SET value = excluded.value, ns = excluded.ns, writer = excluded.writer
WHERE CASE WHEN excluded.kind = 'tag' THEN (excluded.ns, excluded.writer) < (ns, writer)
           ELSE (excluded.ns, excluded.writer, excluded.value) > (ns, writer, value) END
"""


# SQLite's own busy timeout cannot be ended from outside, so it is short, and we ask again: after this long a write that
# waits for another process sees that the store is being closed.
_BUSY_SLICE_MILLIS: Final = 100

# Between two attempts: some statements answer "locked" at once, whatever the busy timeout.
_PAUSE_NS: Final = 10_000_000

# How long `close` waits for a write that runs, then again for it to be interrupted.
_CLOSE_SECONDS: Final = 0.5

_T = TypeVar("_T")

_stores: Final[weakref.WeakSet[SqliteStore]] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for store in list(_stores):
        store.forget_connection()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


@final
class SqliteStore:
    """Spans and fields in one SQLite file.

    Any thread; several processes at once, a write waits up to *busy_timeout_millis* for another's. The file is made
    with mode 0600 when it is first written.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        create: bool = True,
        busy_timeout_millis: int = 10_000,
        clock: Clock | None = None,
    ) -> None:
        """Remember the path; the file is opened at the first use.

        Args:
            path: The file, or ":memory:".
            create: Make the file where there is none.
            busy_timeout_millis: How long a write waits for another's.
            clock: Time; None for the system's.
        """
        self.path = str(path)
        self._create = create
        self._busy_timeout_millis = busy_timeout_millis
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._is_closing = threading.Event()
        self._connection: sqlite3.Connection | None = None
        _stores.add(self)

    def write(self, spans: Iterable[ReadableSpan]) -> None:
        """Store ended spans and merge their fields, all or none.

        Raises:
            StoreError: Nothing was written.
        """
        rows = [row_of(span) for span in spans]
        with self._transaction() as connection:
            connection.executemany(_WRITE_SPAN, [_span_row(span) for span, _ in rows])
            connection.executemany(
                _MERGE_FIELD, [row for span, fields in rows for row in _field_rows(span.trace_id, span.span_id, fields)]
            )

    def patch(self, patches: Iterable[Patch], *, timeout_millis: int | None = None) -> None:
        """Merge fields, whether or not their span is there yet, all or none.

        Args:
            patches: The targets and their fields.
            timeout_millis: Wait for another's write at most this long, where it is less than the busy timeout.

        Raises:
            StoreError: Nothing was written.
        """
        rows = [
            row
            for patch in patches
            for row in _field_rows(patch.target.trace_id_hex, patch.target.span_id_hex, patch.fields)
        ]
        with self._transaction(timeout_millis) as connection:
            connection.executemany(_MERGE_FIELD, rows)

    def query(self, query: SpanQuery) -> list[SpanRecord]:
        """Return the records that *query* selects, newest start first.

        Raises:
            StoreError: It cannot be read.
        """
        conditions = [
            (column, value) for column, value in (("trace_id", query.trace_id), ("span_id", query.span_id)) if value
        ]
        where = f"WHERE {' AND '.join(f'{column} = ?' for column, _ in conditions)}" if conditions else ""
        sql = f"SELECT {_SPAN_COLUMNS} FROM spans {where} ORDER BY start_ns DESC, span_id LIMIT ?"
        values = [*(value for _, value in conditions), query.limit]
        deadline_ns = self._deadline_ns(None)
        with self._opened(deadline_ns) as connection:

            def read() -> list[SpanRecord]:
                spans = [_stored_span(row) for row in connection.execute(sql, values)]
                return [assemble(span, self._fields_of(connection, span)) for span in spans]

            return self._when_free(read, deadline_ns)

    def close(self) -> None:
        """Close the file; a write that waits for another process's is given up, and raises.

        Any thread. Waits for a write that runs, but not longer than about a second.
        """
        lock, connection = self._lock, self._connection
        self._is_closing.set()
        try:
            is_held = lock.acquire(timeout=_CLOSE_SECONDS)
            if not is_held and connection is not None:
                connection.interrupt()
                is_held = lock.acquire(timeout=_CLOSE_SECONDS)
            if not is_held:
                return  # it hangs in the file system; its connection is closed with the process
            try:
                if self._connection is not None:
                    self._connection.close()
                self._connection = None
            finally:
                lock.release()
        finally:
            self._is_closing.clear()

    def forget_connection(self) -> None:
        """Start afresh in a child process; the parent's connection and lock, held or not, are left to the parent."""
        if self._connection is not None:
            leave_to_the_parent(self._connection)
        self._connection = None
        self._lock = threading.Lock()
        self._is_closing = threading.Event()

    def _fields_of(self, connection: sqlite3.Connection, span: StoredSpan) -> Fields:
        rows = connection.execute(
            "SELECT level, kind, key, value, ns, writer FROM fields WHERE trace_id = ? AND span_id IN (?, '')",
            (span.trace_id, span.span_id),
        )
        fields: dict[FieldName, tuple[Json, tuple[int, int]]] = {}
        for level, kind, key, value, ns, writer in rows:
            fields[level, kind, key] = (orjson.loads(value), (ns, int(writer, 16)))
        return fields

    @contextmanager
    def _transaction(self, timeout_millis: int | None = None) -> Iterator[sqlite3.Connection]:
        deadline_ns = self._deadline_ns(timeout_millis)
        with self._opened(deadline_ns) as connection:
            # IMMEDIATE: a transaction that reads first and then writes fails at once when another wrote meanwhile.
            self._when_free(lambda: connection.execute("BEGIN IMMEDIATE"), deadline_ns)
            try:
                yield connection
                # Waits for readers where the file system allows no WAL.
                self._when_free(lambda: connection.execute("COMMIT"), deadline_ns)
            except BaseException:
                # A full disk makes COMMIT fail too, and some errors roll back by themselves.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _opened(self, deadline_ns: int | None = None) -> Iterator[sqlite3.Connection]:
        if deadline_ns is None:
            deadline_ns = self._deadline_ns(None)
        lock = self._lock  # a child process has another one
        if not lock.acquire(timeout=max(deadline_ns - self._clock.monotonic_ns(), 0) / 1e9):
            raise StoreError(f"{self.path}: another thread's write has not ended; expected less work at once.")
        try:
            if self._connection is None:
                self._connection = self._open(deadline_ns)
            yield self._connection
        # OverflowError: a time that is no 64-bit number, from a span that somebody made by hand.
        except (sqlite3.Error, OverflowError) as error:
            raise StoreError(f"{self.path}: {error}; expected a readable and writable SQLite file.") from error
        finally:
            lock.release()

    def _deadline_ns(self, timeout_millis: int | None) -> int:
        millis = self._busy_timeout_millis if timeout_millis is None else min(timeout_millis, self._busy_timeout_millis)
        return self._clock.monotonic_ns() + millis * 1_000_000

    def _when_free(self, call: Callable[[], _T], deadline_ns: int) -> _T:
        """Return what *call* returns; while another has the file locked, ask again until the deadline, or `close`."""
        while True:
            try:
                return call()
            except sqlite3.OperationalError as error:
                is_busy = any(word in str(error) for word in ("locked", "busy"))
                left_ns = deadline_ns - self._clock.monotonic_ns()
                if not is_busy or left_ns <= 0 or self._clock.wait(self._is_closing, min(left_ns, _PAUSE_NS)):
                    raise

    def _open(self, deadline_ns: int) -> sqlite3.Connection:
        if self.path != ":memory:":
            self._create_file()
        try:
            connection = sqlite3.connect(
                self.path,
                timeout=min(self._busy_timeout_millis, _BUSY_SLICE_MILLIS) / 1000,
                isolation_level=None,
                check_same_thread=False,
            )
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}; expected a path of a file in a directory that exists.") from error
        try:
            self._when_free(lambda: self._prepare(connection), deadline_ns)
        except sqlite3.DatabaseError as error:
            connection.close()
            if "not a database" in str(error):
                raise StoreFormatError(
                    self.path, "not an SQLite database", f"{_LAYOUT.expected}, or no file"
                ) from error
            raise
        except BaseException:
            connection.close()
            raise
        return connection

    def _create_file(self) -> None:
        if self._create or Path(self.path).exists():
            create_private_file(self.path)
            return
        raise StoreError(f"{self.path}: no such file; expected a store that a process has written.")

    def _prepare(self, connection: sqlite3.Connection) -> None:
        prepare(connection, self.path, _LAYOUT)
        # With WAL, NORMAL loses no transaction when the process dies, only when the machine loses power.
        connection.execute("PRAGMA synchronous = NORMAL")

    def __repr__(self) -> str:
        """A status line."""
        return f"<SqliteStore {self.path} {'closed' if self._connection is None else 'open'}>"


def _field_rows(trace_id: str, span_id: str, fields: Fields) -> Iterator[tuple[str | int, ...]]:
    for (level, kind, key), (value, (ns, writer)) in fields.items():
        yield trace_id, span_id if level == "span" else "", level, kind, key, json_text(value), ns, f"{writer:016x}"


def _span_row(span: StoredSpan) -> tuple[str | int | None, ...]:
    return (
        span.trace_id,
        span.span_id,
        span.parent_id,
        span.trace_state,
        span.name,
        span.kind,
        span.start_ns,
        span.end_ns,
        span.status_code,
        span.status_message,
        json_text(dict(span.attributes)),
        json_text([dict(event) for event in span.events]),
        json_text([dict(link) for link in span.links]),
        json_text(dict(span.resource)),
        span.scope_name,
        span.scope_version,
    )


def _stored_span(row: tuple[Any, ...]) -> StoredSpan:
    columns = dict(zip(_SPAN_COLUMNS.split(", "), row, strict=True))
    for name in ("attributes", "events", "links", "resource"):
        columns[name] = orjson.loads(columns[name])
    return StoredSpan(**{**columns, "events": tuple(columns["events"]), "links": tuple(columns["links"])})
