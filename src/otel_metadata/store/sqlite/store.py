"""The embedded store: one SQLite file in WAL mode, which several processes write at once.

There are two main tables. `spans` has one row for each span, as OTLP has it. `fields` has one row for each field. The
first-level merge is an upsert that keeps the higher version, without reading first, so any order, any repetition and
any number of writers lead to the same rows. Fields of a trace have an empty span id. A field may come before its span.
`deleted` has the tombstones.

A field of a span also holds the start of the span, once that is known. So an index has values in the order of time, and
a page by a metadata value is read from it without looking at other spans.
"""

from __future__ import annotations

import operator
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, final

import orjson

from otel_metadata.arguments import checked
from otel_metadata.environment import absolute_path
from otel_metadata.errors import StoreError, StoreFormatError
from otel_metadata.model.merge import PLAIN_ATTRIBUTE_WRITER, FieldName, Fields, Json, Version, json_text
from otel_metadata.model.record import SpanQuery, SpanRecord, StoredKey, StoredSpan, assemble
from otel_metadata.reporting import REPORTER, after_fork_in_child
from otel_metadata.seams import SystemClock, bounded_millis
from otel_metadata.store.rows import row_of
from otel_metadata.store.sqlite import condition as sqlite_filter
from otel_metadata.store.sqlite import export as sqlite_export
from otel_metadata.store.sqlite import query as sqlite_query
from otel_metadata.store.sqlite.file import (
    STORE_ID,
    Files,
    Layout,
    alone,
    create_store_file,
    files_of,
    leave_to_the_parent,
    let_go,
    prepare,
)
from otel_metadata.store.sqlite.query import COLUMNS, counting

if TYPE_CHECKING:
    import pyarrow as pa
    from opentelemetry.sdk.trace import ReadableSpan  # noqa: TID251 # a name in a signature; nothing is loaded

    from otel_metadata.model.patch import Patch
    from otel_metadata.seams import Clock

__all__ = ["SCHEMA_VERSION", "SqliteStore"]

SCHEMA_VERSION: Final = 3
"""SQLite's `user_version`. A higher one was written by a newer version of otel-metadata."""

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

# The last version makes the indexes of values again, with the conditions that `sqlite.query` writes.
_VERSION_2: Final = f"""
ALTER TABLE spans ADD COLUMN project TEXT GENERATED ALWAYS AS ({sqlite_filter.PROJECT}) VIRTUAL;
DROP INDEX spans_by_start;
CREATE INDEX spans_by_start ON spans (start_ns, trace_id, span_id);
CREATE INDEX spans_by_project ON spans (project, start_ns, trace_id, span_id);
ALTER TABLE fields ADD COLUMN start_ns INTEGER;
UPDATE fields SET start_ns = (SELECT start_ns FROM spans
    WHERE spans.trace_id = fields.trace_id AND spans.span_id = fields.span_id);
CREATE TABLE deleted (
    trace_id TEXT NOT NULL, span_id TEXT NOT NULL, ns INTEGER NOT NULL, writer TEXT NOT NULL,
    PRIMARY KEY (trace_id, span_id)
) WITHOUT ROWID
"""

_VERSION_3: Final = f"""
DROP INDEX IF EXISTS fields_by_value;
CREATE INDEX fields_by_value ON fields (level, kind, key, json_extract(value, '$'), start_ns)
    WHERE {sqlite_query.INDEXED};
CREATE INDEX fields_by_label ON fields (level, key, json_extract(value, '$.label'), start_ns)
    WHERE {sqlite_query.LABELLED}
"""

_LAYOUT: Final = Layout("a store", STORE_ID, SCHEMA_VERSION, _SCHEMA, (_VERSION_2, _VERSION_3))

_columns_of: Final = operator.attrgetter(*COLUMNS.split(", "))
_WRITE_SPAN: Final = f"INSERT OR REPLACE INTO spans ({COLUMNS}) VALUES ({', '.join('?' * 16)})"

# Placeholders are plain `?`, and a value that is used twice is bound twice. Python 3.12.0 to 3.12.3 warn about `?1`
# with a sequence (python/cpython#117995), and named placeholders with a dict for each row are slower.

# For fields that came before their span.
_SET_START: Final = "UPDATE fields SET start_ns = ? WHERE trace_id = ? AND span_id = ? AND start_ns IS NOT ?"

# The merge contract (model.merge) in SQL: the higher version wins, of equal ones the greater JSON text; of a tag the
# lower version. SQLite compares text by its UTF-8 bytes, which is the order of Python's code points.
_MERGE_FIELD: Final = """
INSERT INTO fields (trace_id, span_id, level, kind, key, value, ns, writer, start_ns)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, (SELECT start_ns FROM spans WHERE trace_id = ? AND span_id = ?))
ON CONFLICT (trace_id, span_id, level, kind, key) DO UPDATE
SET value = excluded.value, ns = excluded.ns, writer = excluded.writer
WHERE CASE WHEN excluded.kind = 'tag' THEN (excluded.ns, excluded.writer) < (ns, writer)
           ELSE (excluded.ns, excluded.writer, excluded.value) > (ns, writer, value) END
"""

_FIELDS_OF: Final = "SELECT level, kind, key, value, ns, writer FROM fields WHERE trace_id = ? AND span_id IN (?, '')"

_FIND: Final = """
SELECT spans.span_id, spans.trace_id, spans.start_ns, spans.end_ns
FROM json_each(?) AS wanted CROSS JOIN spans ON spans.span_id = wanted.value
"""

_DELETE_SPAN: Final = "DELETE FROM spans WHERE trace_id = ? AND span_id = ?"

_ANY_SPAN: Final = "SELECT 1 FROM spans WHERE trace_id = ? LIMIT 1"

_WRITE_TOMBSTONE: Final = """
INSERT INTO deleted (trace_id, span_id, ns, writer) VALUES (?, ?, ?, ?)
ON CONFLICT (trace_id, span_id) DO UPDATE SET ns = excluded.ns, writer = excluded.writer
WHERE (excluded.ns, excluded.writer) > (ns, writer)
"""

_FIND_TOMBSTONES: Final = """
SELECT deleted.trace_id, deleted.span_id, deleted.ns, deleted.writer FROM json_each(?) AS wanted CROSS JOIN deleted
ON deleted.trace_id = json_extract(wanted.value, '$[0]') AND deleted.span_id = json_extract(wanted.value, '$[1]')
"""

# SQLite's own busy timeout cannot be ended from outside. So it is short, and the call is repeated: after this time a
# write that waits for another process notices that the store is being closed.
_BUSY_SLICE_MILLIS: Final = 100

# Between two tries: some statements fail with "locked" at once, whatever the busy timeout is.
_PAUSE_NS: Final = 10_000_000

_MEMORY: Final = ":memory:"

# Parts of SQLite's messages that blame the file, not the statement.
_OF_THE_FILE: Final = ("readonly", "disk I/O error", "malformed", "not a database", "unable to open")

# How long `close` waits for a running write, and then again after interrupting it.
_CLOSE_SECONDS: Final = 0.5

_T = TypeVar("_T")

# Whether a field or span of (trace id, span id) with a version was deleted.
_IsDeleted: TypeAlias = "Callable[[str, str, Version], bool]"


@final
class SqliteStore:
    """Spans and fields in one SQLite file.

    Any thread, and several processes at once: a write waits up to *busy_timeout_millis* for another process's write.
    The file is made with mode 0600 at the first use.
    """

    @checked
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
            path: The file, or ":memory:". A relative path is made absolute here; `~` is the user's home.
            create: Make the file if there is none.
            busy_timeout_millis: How long a write waits for another process's write.
            clock: Time; None for the system's.
        """
        self.path = str(path) if str(path) == _MEMORY else absolute_path("store", str(path))
        self.place: Final = None if self.path == _MEMORY else os.path.realpath(self.path)
        self._create = create
        self._busy_timeout_millis = bounded_millis(busy_timeout_millis, 10_000)
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._is_closing = threading.Event()
        self._connection: sqlite3.Connection | None = None
        self._files = Files(None, None, None, 0)  # of the connection
        self._is_cut_off = False
        after_fork_in_child(self._forget_connection)

    def write(self, spans: Iterable[ReadableSpan]) -> None:
        """Store ended spans and merge their fields, all or none.

        Raises:
            StoreError: Nothing was written.
        """
        self.write_rows([row_of(span) for span in spans])

    def write_rows(self, rows: Iterable[tuple[StoredSpan, Fields]]) -> None:
        """Store spans and merge their fields, all or none.

        Raises:
            StoreError: Nothing was written.
        """
        rows = list(rows)
        with self._transaction() as connection:
            spans, is_deleted = [span for span, _ in rows], None
            if _is_any_deleted(connection):
                is_deleted = _tombstones(connection, ((span.trace_id, span.span_id) for span in spans))
                spans = [
                    span
                    for span in spans
                    if not is_deleted(span.trace_id, span.span_id, (span.end_ns, PLAIN_ATTRIBUTE_WRITER))
                ]
            connection.executemany(_WRITE_SPAN, map(_span_row, spans))
            starts = ((span.start_ns, span.trace_id, span.span_id, span.start_ns) for span in spans)
            connection.executemany(_SET_START, starts)
            of_spans = ((span.trace_id, span.span_id, fields) for span, fields in rows)
            connection.executemany(_MERGE_FIELD, _field_rows(of_spans, is_deleted))

    def patch(self, patches: Iterable[Patch], *, timeout_millis: int | None = None) -> None:
        """Merge fields, whether or not their span is there yet, all or none.

        Args:
            patches: The targets and their fields.
            timeout_millis: The longest wait for another process's write, if it is shorter than the busy timeout.

        Raises:
            StoreError: Nothing was written.
        """
        rows = [(patch.target.trace_id_hex, patch.target.span_id_hex, patch.fields) for patch in patches]
        self.patch_rows(rows, timeout_millis=timeout_millis)

    def patch_rows(self, rows: Iterable[tuple[str, str, Fields]], *, timeout_millis: int | None = None) -> None:
        """Merge fields of spans that are named by their ids in hex digits; as `patch` otherwise.

        Raises:
            StoreError: Nothing was written.
        """
        with self._transaction(timeout_millis) as connection:
            is_deleted = None
            if _is_any_deleted(connection):
                rows = list(rows)  # only here: many objects at once keep the garbage collector busy
                is_deleted = _tombstones(connection, (row[:2] for row in rows))
            connection.executemany(_MERGE_FIELD, _field_rows(rows, is_deleted))

    def query(self, query: SpanQuery) -> list[SpanRecord]:
        """Return the records that *query* selects, newest start first.

        Raises:
            StoreError: The store cannot be read.
        """

        def read(connection: sqlite3.Connection) -> list[SpanRecord]:
            selection = sqlite_query.select(query, count=counting(connection))
            spans = [_stored_span(row) for row in connection.execute(selection.sql, selection.values)]
            return [assemble(span, _fields_of(connection, span)) for span in spans]

        return self._read(read)

    def export(self, query: SpanQuery) -> Iterator[pa.RecordBatch]:
        """Yield the spans that *query* selects as batches of the table in `store.table`, newest start first.

        Each batch is a read of its own, so others may write in between.

        Raises:
            MissingExtraError: pyarrow is not installed.
            StoreError: The store cannot be read.
        """
        return sqlite_export.batches(self._read, query, _stored_span)

    def find(self, span_ids: Collection[str]) -> Mapping[str, StoredKey]:
        """Return where each of *span_ids* is stored. If several traces have the id, the newest span counts.

        Raises:
            StoreError: The store cannot be read.
        """
        ids = orjson.dumps(list(span_ids)).decode()

        def read(connection: sqlite3.Connection) -> dict[str, StoredKey]:
            found: dict[str, StoredKey] = {}
            for span_id, trace_id, start_ns, end_ns in connection.execute(_FIND, (ids,)):
                held = found.get(span_id)
                # An id in several traces is rare, so they are compared here and SQLite need not sort.
                if held is None or (start_ns, trace_id) > (held.start_ns, held.trace_id):
                    found[span_id] = StoredKey(trace_id, start_ns, end_ns)
            return found

        return self._read(read)

    def delete(self, keys: Collection[tuple[str, str]], version: Version) -> list[tuple[str, str]]:
        """Delete spans and everything that was set on them, all or none; return those that were there.

        Raises:
            StoreError: Nothing was deleted.
        """
        ns, writer = version
        with self._transaction() as connection:
            deleted = [key for key in dict.fromkeys(keys) if connection.execute(_DELETE_SPAN, key).rowcount]
            traces = sorted({trace_id for trace_id, _ in deleted})
            empty = [trace_id for trace_id in traces if not connection.execute(_ANY_SPAN, (trace_id,)).fetchone()]
            gone = [*deleted, *((trace_id, "") for trace_id in empty)]
            connection.executemany("DELETE FROM fields WHERE trace_id = ? AND span_id = ?", gone)
            connection.executemany(_WRITE_TOMBSTONE, ((*key, ns, f"{writer:016x}") for key in gone))
        return deleted

    def close(self) -> None:
        """Close the file, from any thread. A write that waits for another process's write is given up, and raises.

        Waits for a running write, but no longer than about a second.
        """
        lock, connection = self._lock, self._connection
        self._is_closing.set()
        try:
            is_held = lock.acquire(timeout=_CLOSE_SECONDS)
            if not is_held and connection is not None:
                connection.interrupt()
                is_held = lock.acquire(timeout=_CLOSE_SECONDS)
            if not is_held:
                return  # the write hangs in the file system; the connection is closed when the process ends
            try:
                self._drop()
            finally:
                lock.release()
        finally:
            self._is_closing.clear()

    def __del__(self) -> None:
        """Close the connection of a store that nobody refers to; Python 3.13 would warn and close it."""
        connection = self.__dict__.get("_connection")
        if connection is not None:
            connection.close()

    def _forget_connection(self) -> None:
        """Start anew in a child process. The parent's connection and its lock, held or not, stay the parent's."""
        if self._connection is not None:
            leave_to_the_parent(self._connection)
        self._connection = None
        self._lock = threading.Lock()
        self._is_closing = threading.Event()

    def _read(self, read: Callable[[sqlite3.Connection], _T]) -> _T:
        deadline_ns = self._deadline_ns(None)
        with self._opened(deadline_ns) as connection:
            return self._when_free(lambda: read(connection), deadline_ns)

    @contextmanager
    def _transaction(self, timeout_millis: int | None = None) -> Iterator[sqlite3.Connection]:
        deadline_ns = self._deadline_ns(timeout_millis)
        with self._opened(deadline_ns) as connection:
            # IMMEDIATE: a transaction that reads before it writes would fail at once if another wrote meanwhile.
            self._when_free(lambda: connection.execute("BEGIN IMMEDIATE"), deadline_ns)
            try:
                yield connection
                # Waits for readers if the file system does not support WAL.
                self._when_free(lambda: connection.execute("COMMIT"), deadline_ns)
                self._check_files()
            except BaseException:
                # COMMIT fails on a full disk, too. Some errors roll back by themselves.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _opened(self, deadline_ns: int) -> Iterator[sqlite3.Connection]:
        lock = self._lock  # a forked child replaces it
        if not lock.acquire(timeout=max(deadline_ns - self._clock.monotonic_ns(), 0) / 1e9):
            raise StoreError(f"{self.path}: another thread's write has not ended; expected less work at once.")
        try:
            self._follow(deadline_ns)
            if self._connection is None:
                self._connection = self._open(deadline_ns)
            yield self._connection
        # OverflowError: a time beyond 64 bits, in a span that was made by hand.
        except (sqlite3.Error, OverflowError) as error:
            if self.path != _MEMORY and any(words in f"{error}" for words in _OF_THE_FILE):
                self._drop()  # only a new connection sees that the file was repaired
            raise StoreError(f"{self.path}: {error}; expected a readable and writable SQLite file.") from error
        finally:
            lock.release()

    def _follow(self, deadline_ns: int) -> None:
        """Open the files that now have the names, if the connection has others open."""
        connection = self._connection
        if self.path == _MEMORY:
            return
        if connection is None:
            if not self._create or os.path.exists(self.path):
                return  # the usual case, in which no other process has to wait
        else:
            found, opened = files_of(self.path), self._files
            if opened.has_become(found):
                self._files = found
                return
            # Cached pages would be written into a file that has lost the other pages.
            self._is_cut_off = found.database == opened.database and 0 < found.size < opened.size

        def anew() -> None:
            with alone(self.path):
                if self._connection is not None:
                    let_go(self._connection, self.path, self._files)
                    self._connection = None
                    REPORTER.tell(
                        f"store_replaced:{self.path}",
                        f"{self.path}: the file was removed or replaced; later spans go into the one of that name.",
                    )
                self._connection = self._open(deadline_ns)

        self._when_free(anew, deadline_ns)

    def _check_files(self) -> None:
        """Check after a commit that the written files are still there.

        Raises:
            StoreError: The files were removed or replaced meanwhile.
        """
        if self.path != _MEMORY and not self._files.has_become(files_of(self.path)):
            raise StoreError(f"{self.path}: the file was removed or replaced during a write, which is done again.")

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _deadline_ns(self, timeout_millis: int | None) -> int:
        millis = min(bounded_millis(timeout_millis, self._busy_timeout_millis), self._busy_timeout_millis)
        return self._clock.monotonic_ns() + millis * 1_000_000

    def _when_free(self, call: Callable[[], _T], deadline_ns: int) -> _T:
        """Return what *call* returns. While the file is locked, repeat the call until the deadline or `close`."""
        while True:
            try:
                return call()
            except sqlite3.OperationalError as error:
                is_busy = any(word in str(error) for word in ("locked", "busy"))
                left_ns = deadline_ns - self._clock.monotonic_ns()
                if not is_busy or left_ns <= 0 or self._clock.wait(self._is_closing, min(left_ns, _PAUSE_NS)):
                    raise

    def _open(self, deadline_ns: int) -> sqlite3.Connection:
        if self.path != _MEMORY:
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
            if self._is_cut_off:
                self._check_whole(connection)
            found = files_of(self.path)
            self._files = found._replace(size=max(found.size, 1))  # at 0 it was emptied already, which must be noticed
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
        if self._create:
            create_store_file(self.path)
            return
        found = "no such file"
        try:
            status = Path(self.path).stat()
            found = "an empty file" if stat.S_ISREG(status.st_mode) and not status.st_size else ""
        except (FileNotFoundError, NotADirectoryError):
            pass
        except (OSError, ValueError) as error:  # no right to look, a name that is too long
            raise StoreError(f"{self.path}: {error}; expected a file that can be read and written.") from error
        if not found:
            create_store_file(self.path)  # refuses anything but a file
            return
        raise StoreError(
            f"{self.path}: {found}; expected a store that a process has written. Name another one (on the command line "
            "by --store), or make one here with Client(..., create=True); `otel-metadata import` makes one, too."
        )

    def _prepare(self, connection: sqlite3.Connection) -> None:
        prepare(connection, self.path, _LAYOUT)
        connection.create_function(sqlite_filter.FUNCTION, 4, sqlite_filter.of_instrumentor, deterministic=True)
        # In WAL mode, NORMAL loses no transaction when the process dies, only when the machine loses power.
        connection.execute("PRAGMA synchronous = NORMAL")
        # Up to 16 MiB: with SQLite's default of 2 MiB a large store keeps reading back pages that it has written.
        connection.execute("PRAGMA cache_size = -16384")
        # The log is folded in at 16 MiB instead of 4: pages that are written many times in between, above all those of
        # indexes, are then copied once.
        connection.execute("PRAGMA wal_autocheckpoint = 4096")

    def _check_whole(self, connection: sqlite3.Connection) -> None:
        (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if answer != "ok":
            raise sqlite3.DatabaseError(f"malformed, its end is missing ({answer}); put a backup in its place")
        self._is_cut_off = False

    def __repr__(self) -> str:
        """A status line."""
        return f"<SqliteStore {self.path} {'closed' if self._connection is None else 'open'}>"

    def __str__(self) -> str:
        """As a user names it."""
        return f"sqlite:///{self.path}"


def _tombstones(connection: sqlite3.Connection, keys: Iterable[tuple[str, str]]) -> _IsDeleted:
    """Return a function that tells whether a version was deleted.

    Args:
        connection: In the transaction that writes.
        keys: (trace id, span id) of the spans that are written. Tombstones of their traces are read as well.
    """
    wanted = {place for trace_id, span_id in keys for place in ((trace_id, span_id), (trace_id, ""))}
    found = connection.execute(_FIND_TOMBSTONES, (orjson.dumps(list(wanted)).decode(),))
    tombstones = {(trace_id, span_id): (ns, int(writer, 16)) for trace_id, span_id, ns, writer in found}

    def is_deleted(trace_id: str, span_id: str, version: Version) -> bool:
        tombstone = tombstones.get((trace_id, span_id))
        return tombstone is not None and version <= tombstone

    return is_deleted


def _is_any_deleted(connection: sqlite3.Connection) -> bool:
    """Whether the store has any tombstone. Most have none, and then none needs to be looked up."""
    return connection.execute("SELECT 1 FROM deleted LIMIT 1").fetchone() is not None


def _field_rows(
    spans: Iterable[tuple[str, str, Fields]], is_deleted: _IsDeleted | None
) -> Iterator[tuple[str | int, ...]]:
    """Yield the values of `_MERGE_FIELD` for each field that was not deleted."""
    last, writer_text = -1, ""
    for trace_id, span_id, fields in spans:
        for (level, kind, key), (value, version) in fields.items():
            place = span_id if level == "span" else ""
            if is_deleted is not None and is_deleted(trace_id, place, version):
                continue
            ns, writer = version
            if writer != last:
                last, writer_text = writer, f"{writer:016x}"
            yield trace_id, place, level, kind, key, json_text(value), ns, writer_text, trace_id, place


def _fields_of(connection: sqlite3.Connection, span: StoredSpan) -> Fields:
    rows = connection.execute(_FIELDS_OF, (span.trace_id, span.span_id))
    fields: dict[FieldName, tuple[Json, Version]] = {}
    for level, kind, key, value, ns, writer in rows:
        fields[level, kind, key] = (orjson.loads(value), (ns, int(writer, 16)))
    return fields


def _span_row(span: StoredSpan) -> tuple[str | int | None, ...]:
    *plain, attributes, events, links, resource, scope_name, scope_version = _columns_of(span)
    return (
        *plain,
        json_text(dict(attributes)),
        json_text(list(map(dict, events))),
        json_text(list(map(dict, links))),
        json_text(dict(resource)),
        scope_name,
        scope_version,
    )


def _stored_span(row: tuple[Any, ...]) -> StoredSpan:
    columns = dict(zip(COLUMNS.split(", "), row, strict=True))
    for name in ("attributes", "events", "links", "resource"):
        columns[name] = orjson.loads(columns[name])
    return StoredSpan(**{**columns, "events": tuple(columns["events"]), "links": tuple(columns["links"])})
