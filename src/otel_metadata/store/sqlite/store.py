"""The embedded store: one SQLite file in WAL mode, which several processes write at once.

There are two main tables. `spans` has one row for each span, as OTLP has it. `fields` has one row for each field. The
first-level merge is an upsert that keeps the higher version, without reading first, so any order, any repetition and
any number of writers lead to the same rows. Fields of a trace have an empty span id. A field may come before its span.
`history` has the fields' superseded values (`sqlite.history`), and `writers` the names of those who set values.
`deleted` has the tombstones, and `late_traces` the traces with late values. Reads have connections of their own
(`sqlite.read_pool`).

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
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, final

import orjson

from otel_metadata.arguments import checked
from otel_metadata.environment import absolute_path
from otel_metadata.errors import StoreError, StoreFormatError, StoreUnsupportedError
from otel_metadata.model.authors import AUTHORS, MAX_AUTHORS
from otel_metadata.model.merge import PLAIN_ATTRIBUTE_WRITER, FieldName, Fields, Json, Level, Version, json_text
from otel_metadata.model.recent import RecentMap
from otel_metadata.model.record import (
    ROUTES,
    Found,
    FoundTraces,
    Histogram,
    Located,
    NamedKind,
    OutlineSpan,
    Retained,
    Route,
    SpanCount,
    SpanQuery,
    SpanRecord,
    StoredKey,
    StoredSpan,
    ValueRecord,
    assemble,
)
from otel_metadata.reporting import REPORTER, after_fork_in_child
from otel_metadata.seams import SystemClock, bounded_millis
from otel_metadata.store import table
from otel_metadata.store.history import HISTORY_LIMIT, UNKNOWN_ROUTE, not_kept
from otel_metadata.store.rows import row_of
from otel_metadata.store.sqlite import condition as sqlite_filter
from otel_metadata.store.sqlite import export as sqlite_export
from otel_metadata.store.sqlite import history as sqlite_history
from otel_metadata.store.sqlite import overview
from otel_metadata.store.sqlite import query as sqlite_query
from otel_metadata.store.sqlite import search as sqlite_search
from otel_metadata.store.sqlite.file import (
    STORE_ID,
    Layout,
    alone,
    create_store_file,
    files_of,
    leave_to_the_parent,
    let_go,
    prepare,
)
from otel_metadata.store.sqlite.history import History
from otel_metadata.store.sqlite.query import COLUMNS
from otel_metadata.store.sqlite.read_pool import Deadline, PoolClosedError, ReadPool
from otel_metadata.store.sqlite.retention import DELETE_SPAN, FORGET_LATE_TRACE, Retention
from otel_metadata.store.sqlite.upgrade import (
    FOR_OLDER_VERSIONS,
    VERSION_2,
    VERSION_3,
    forget_older_versions,
    to_version_3,
)
from otel_metadata.store.sqlite.watch import Watch

if TYPE_CHECKING:
    import pyarrow as pa
    from opentelemetry.sdk.trace import ReadableSpan  # noqa: TID251 # a name in a signature; nothing is loaded

    from otel_metadata.model.patch import Patch
    from otel_metadata.seams import Clock

SCHEMA_VERSION: Final = 4
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

# No row is changed. `late_traces` has the traces in which a value came late, and perhaps some in which no late value is
# left. The trigger deletes the history with a field, also for processes of earlier versions that have the file
# open.
_VERSION_4: Final = f"""
ALTER TABLE fields ADD COLUMN route INTEGER NOT NULL DEFAULT {UNKNOWN_ROUTE};
CREATE TABLE late_traces (trace_id TEXT NOT NULL PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE history (
    trace_id TEXT NOT NULL, span_id TEXT NOT NULL, level TEXT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL,
    ns INTEGER NOT NULL, writer TEXT NOT NULL, value TEXT NOT NULL, route INTEGER NOT NULL,
    PRIMARY KEY (trace_id, span_id, level, kind, key, ns, writer, value)
) WITHOUT ROWID;
CREATE TABLE writers (writer TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL) WITHOUT ROWID;
CREATE TRIGGER history_of_deleted AFTER DELETE ON fields BEGIN DELETE FROM history WHERE trace_id = old.trace_id
    AND span_id = old.span_id AND level = old.level AND kind = old.kind AND key = old.key; END
"""

_LAYOUT: Final = Layout(
    "a store",
    STORE_ID,
    SCHEMA_VERSION,
    _SCHEMA,
    (VERSION_2, VERSION_3, _VERSION_4),
    sqlite_query.INDEXES,
    to_version_3,
    FOR_OLDER_VERSIONS,
)

_columns_of: Final = operator.attrgetter(*COLUMNS.split(", "))
_WRITE_SPAN: Final = f"INSERT OR REPLACE INTO spans ({COLUMNS}) VALUES ({', '.join('?' * 16)})"

# A sum beyond 64 bits is a floating-point number in SQLite, and greater.
_SET_DURATION: Final = (
    "UPDATE spans SET end_ns = min(start_ns + ?, 9223372036854775807) WHERE trace_id = ? AND span_id = ?"
)

# For fields that came before their span.
_SET_START: Final = "UPDATE fields SET start_ns = ? WHERE trace_id = ? AND span_id = ? AND start_ns IS NOT ?"

_LIVE: Final = ROUTES.index("live")
_IN_FLIGHT: Final = ROUTES.index("in_flight")
_LATE: Final = ROUTES.index("late")

_FIELDS_OF: Final = "SELECT level, kind, key, value, ns, writer FROM fields WHERE trace_id = ? AND span_id IN (?, '')"

# Of two names for one writer the greater one is kept, as in `model.authors`.
_WRITE_NAME: Final = """
INSERT INTO writers (writer, name) VALUES (?, ?)
ON CONFLICT (writer) DO UPDATE SET name = excluded.name WHERE excluded.name > name
"""

_NAMES: Final = "SELECT writer, name FROM json_each(?) AS wanted CROSS JOIN writers ON writer = wanted.value"

_FIND: Final = """
SELECT spans.span_id, spans.trace_id, spans.start_ns, spans.end_ns
FROM json_each(?) AS wanted CROSS JOIN spans ON spans.span_id = wanted.value
"""

_LOCATE_SPANS: Final = """
SELECT wanted.key, spans.trace_id, spans.start_ns, ? IS NULL OR spans.project IS ?
FROM json_each(?) AS wanted CROSS JOIN spans ON spans.span_id = json_extract(wanted.value, '$[1]')
WHERE spans.trace_id = coalesce(json_extract(wanted.value, '$[0]'), spans.trace_id)
"""

# The first span of the project ends the look at a trace.
_LOCATE_TRACES: Final = """
SELECT wanted.value, EXISTS (
    SELECT 1 FROM spans WHERE spans.trace_id = wanted.value AND (? IS NULL OR spans.project IS ?)
)
FROM json_each(?) AS wanted WHERE EXISTS (SELECT 1 FROM spans WHERE spans.trace_id = wanted.value)
"""

_VERSIONS: Final = """
SELECT wanted.key, fields.ns, fields.writer FROM json_each(?) AS wanted CROSS JOIN fields
ON trace_id = json_extract(wanted.value, '$[0]') AND span_id = json_extract(wanted.value, '$[1]')
AND level = json_extract(wanted.value, '$[2]') AND kind = json_extract(wanted.value, '$[3]')
AND fields.key = json_extract(wanted.value, '$[4]')
"""

_VERSIONS_IN_TRACE: Final = """
SELECT wanted.key, fields.ns, fields.writer FROM json_each(?) AS wanted CROSS JOIN spans
ON spans.trace_id = json_extract(wanted.value, '$[0]') CROSS JOIN fields
ON fields.trace_id = spans.trace_id AND fields.span_id = spans.span_id AND level = 'span'
AND fields.kind = json_extract(wanted.value, '$[3]') AND fields.key = json_extract(wanted.value, '$[4]')
"""

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

# Rows of spans and fields.
_FOLDED_CHANGES: Final = 2_000

# 64 MiB. Without readers the log is begun again at 16 MiB.
_LARGE_LOG_PAGES: Final = 16_384

# Between two steps of an upgrade. SQLite asks for a lock again after 100 ms at most.
_GIVE_WAY_NS: Final = 200_000_000

_MEMORY: Final = ":memory:"

# Parts of SQLite's messages that blame the file, not the statement.
_OF_THE_FILE: Final = ("readonly", "disk I/O error", "malformed", "not a database", "unable to open")

# How long `close` waits for a running write, and then again after interrupting it.
_CLOSE_SECONDS: Final = 0.5

_T = TypeVar("_T")

# (trace id, span id, fields, end of the span); the end is 0 for an update, whose route does not depend on it.
_OfSpan: TypeAlias = "tuple[str, str, Fields, int]"

# Whether a field or span of (trace id, span id) with a version was deleted.
_IsDeleted: TypeAlias = "Callable[[str, str, Version], bool]"


@final
class SqliteStore:
    """Spans and fields in one SQLite file.

    Any thread, and several processes at once: a write waits up to *busy_timeout_millis* for another process's write.
    The file is made with mode 0600 at the first use.

    Attributes:
        survives_power_loss: Whether a write waits until it is on the disk itself. Otherwise the operating system has
            it: it survives the process, not the machine. Set it before the first use.
    """

    @checked
    def __init__(
        self,
        path: str | Path,
        *,
        create: bool = True,
        busy_timeout_millis: int = 10_000,
        clock: Clock | None = None,
        history: bool = True,
        history_limit: int = HISTORY_LIMIT,
    ) -> None:
        """Remember the path; the file is opened at the first use.

        Args:
            path: The file, or ":memory:". A relative path is made absolute here; `~` is the user's home.
            create: Make the file if there is none.
            busy_timeout_millis: How long a write waits for another process's write.
            clock: Time; None for the system's.
            history: Keep the values that are superseded. What others kept in the file stays.
            history_limit: How many superseded values of each field are kept and shown, the newest.
        """
        self.path = str(path) if str(path) == _MEMORY else absolute_path("store", str(path))
        self.place: Final = None if self.path == _MEMORY else os.path.realpath(self.path)
        self.survives_power_loss = False
        self._create = create
        self._busy_timeout_millis = bounded_millis(busy_timeout_millis, 10_000)
        self._clock = clock or SystemClock()
        self._keeps_history = history
        self._history_limit = history_limit
        self._lock = threading.Lock()
        self._is_closing = threading.Event()
        self._connection: sqlite3.Connection | None = None
        self._history: History | None = None  # of the connection; None also if no history is kept
        self._named: RecentMap[int, str] = RecentMap(MAX_AUTHORS)  # of writers, in the file of the connection
        self._readers: ReadPool | None = None  # beside the connection, unless that is in memory
        self._folded_at = 0  # the connection's `total_changes` when it last folded in the log
        self._is_folded_later = False
        self._is_cut_off = False
        after_fork_in_child(self._forget_connection)

    def write(self, spans: Iterable[ReadableSpan]) -> None:
        """Store ended spans and merge their fields, all or none.

        Raises:
            StoreError: Nothing was written.
        """
        self.write_rows([row_of(span) for span in spans])

    def write_rows(self, rows: Iterable[tuple[StoredSpan, Fields]], *, route: Route | None = None) -> None:
        """Store spans and merge their fields, all or none.

        Args:
            rows: The spans and their fields.
            route: How the fields got here; None for "live" or "in_flight", by the version of each.

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
            connection.executemany(_WRITE_SPAN, _span_rows(spans))
            starts = ((span.start_ns, span.trace_id, span.span_id, span.start_ns) for span in spans)
            connection.executemany(_SET_START, starts)
            of_spans = ((span.trace_id, span.span_id, fields, span.end_ns) for span, fields in rows)
            named = self._merge(connection, of_spans, is_deleted, route)
        self._named.update(named)

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

    def patch_rows(
        self,
        rows: Iterable[tuple[str, str, Fields]],
        *,
        timeout_millis: int | None = None,
        route: Route = "late",
    ) -> None:
        """Merge fields of spans that are named by their ids in hex digits; as `patch` otherwise.

        Args:
            rows: (trace id, span id, fields) of each span.
            timeout_millis: As for `patch`.
            route: How the fields got here.

        Raises:
            StoreError: Nothing was written.
        """
        with self._transaction(timeout_millis) as connection:
            is_deleted = None
            if _is_any_deleted(connection):
                rows = list(rows)  # only here: many objects at once keep the garbage collector busy
                is_deleted = _tombstones(connection, (row[:2] for row in rows))
            of_spans = ((trace_id, span_id, fields, 0) for trace_id, span_id, fields in rows)
            named = self._merge(connection, of_spans, is_deleted, route)
        self._named.update(named)

    def set_durations(self, durations: Iterable[tuple[str, str, int]]) -> None:
        """Move the ends of spans, all or none; one that is not stored is left.

        Args:
            durations: (trace id, span id, nanoseconds from its start) of each span.

        Raises:
            StoreError: Nothing was written.
        """
        with self._transaction() as connection:
            rows = ((duration_ns, trace_id, span_id) for trace_id, span_id, duration_ns in durations)
            connection.executemany(_SET_DURATION, rows)

    def _merge(
        self,
        connection: sqlite3.Connection,
        of_spans: Iterable[_OfSpan],
        is_deleted: _IsDeleted | None,
        route: Route | None,
    ) -> dict[int, str]:
        """Merge fields and write the names of their writers. Return the names, for `_named` once they are committed."""
        writers: set[int] = set()
        late_traces: set[str] = set()
        by = None if route is None else ROUTES.index(route)
        rows = _field_rows(of_spans, is_deleted, by, writers, late_traces)
        if self._history is not None:
            self._history.merge(connection, rows)
        else:
            connection.executemany(sqlite_history.MERGE_FIELD, rows)
        connection.executemany("INSERT OR IGNORE INTO late_traces VALUES (?)", ((trace,) for trace in late_traces))
        named = {
            writer: name
            for writer in writers
            if (name := AUTHORS.name_of(writer)) is not None and self._named.get(writer) != name
        }
        connection.executemany(_WRITE_NAME, ((_writer_text(writer), name) for writer, name in named.items()))
        return named

    def fold_later(self) -> Callable[[], None]:
        """Leave it to the caller to fold the log into the file, so that no write waits for the disk.

        Returns:
            Folds the log in if enough was written. Call it after writes, when nobody waits for an answer.
        """
        self._is_folded_later = True

        def fold() -> None:
            with self._lock:
                if self._connection is not None:  # never open a file again that was closed meanwhile
                    self._fold(self._connection)

        return fold

    def query(self, query: SpanQuery) -> list[SpanRecord]:
        """Return the records that *query* selects, newest start first.

        Raises:
            StoreError: The store cannot be read.
        """
        return list(self.search(query).records)

    def search(self, query: SpanQuery, *, timeout_millis: float | None = None) -> Found:
        """Return the records that *query* selects and that are found in time, newest start first.

        Args:
            query: The spans to select.
            timeout_millis: When to end; None for never.

        Raises:
            StoreError: The store cannot be read, or the query names a time and the store keeps no history.
        """
        if query.at_ns is not None:
            self._check_history("a time was named (at_ns)")
        deadline = self._deadline(timeout_millis)

        def read(connection: sqlite3.Connection) -> Found:
            rows, searched_to = sqlite_search.rows(connection, query, deadline)
            records: list[SpanRecord] = []
            for row in rows:
                if records and deadline is not None and deadline.is_over():
                    searched_to = records[-1].position
                    break
                span = _stored_span(row)
                records.append(assemble(span, self._fields_of(connection, span, query.at_ns)))
            return Found(tuple(records), searched_to)

        return self._read(read)

    def _fields_of(self, connection: sqlite3.Connection, span: StoredSpan, at_ns: int | None) -> Fields:
        if at_ns is None:
            return _fields_of(connection, span)
        return sqlite_history.fields_at(connection, span.trace_id, span.span_id, at_ns, self._history_limit)

    def history(self, trace_id: str, span_id: str = "", field: FieldName | None = None) -> list[ValueRecord]:
        """Return every value that the fields of a span and of its trace have or had, newest first.

        Args:
            trace_id: 32 hex digits.
            span_id: 16 hex digits; "" for the fields of the trace alone.
            field: Only values of this field; None for all.

        Raises:
            StoreError: The store cannot be read, or it keeps no history.
        """
        self._check_history("a history was asked for")
        limit = self._history_limit
        return self._read(lambda connection: sqlite_history.read(connection, trace_id, span_id, field, limit))

    def outline(self, trace_id: str) -> list[OutlineSpan]:
        """Return the spans of a trace (32 hex digits), oldest start first.

        Raises:
            StoreError: The store cannot be read.
        """
        return self._read(lambda connection: overview.outline(connection, trace_id))

    def traces(self, query: SpanQuery, *, timeout_millis: float | None = None) -> FoundTraces:
        """Return the traces whose root *query* selects and that are found in time, newest root first.

        Raises:
            StoreError: The store cannot be read.
        """
        deadline = self._deadline(timeout_millis)
        return self._read(lambda connection: overview.traces(connection, query, deadline))

    def count(self, query: SpanQuery, *, timeout_millis: float | None = None) -> SpanCount:
        """Count the spans that *query* selects, up to its limit and as far as the time allows.

        Raises:
            StoreError: The store cannot be read.
        """
        deadline = self._deadline(timeout_millis)
        return self._read(lambda connection: overview.count(connection, query, deadline))

    def histogram(
        self, query: SpanQuery, *, start_ns: int, width_ns: int, bars: int, timeout_millis: float | None = None
    ) -> Histogram:
        """Count the spans that *query* selects in parts of a time, and the errors among them.

        Args:
            query: The spans; its own window and limit are ignored.
            start_ns: Where the first bar starts.
            width_ns: How long each bar is, at least 1.
            bars: How many there are, at least 1.
            timeout_millis: When to end; None for never.

        Raises:
            StoreError: The store cannot be read.
        """
        deadline = self._deadline(timeout_millis)
        return self._read(lambda connection: overview.histogram(connection, query, start_ns, width_ns, bars, deadline))

    def names(
        self,
        kind: NamedKind,
        *,
        level: Level = "span",
        prefix: str = "",
        limit: int = 1_000,
    ) -> list[str]:
        """Return metadata keys, tags or names of evaluations that are in use, in order.

        Args:
            kind: Which of them.
            level: Those of spans, or of traces.
            prefix: Only those that begin so.
            limit: At most this many.

        Raises:
            StoreError: The store cannot be read.
        """
        return self._read(lambda connection: overview.names(connection, kind, level, prefix, limit))

    def _check_history(self, what: str) -> None:
        # Others may have kept one in the file, but without what this process has superseded it would be wrong.
        if not self._keeps_history:
            raise not_kept(self, what)

    def export(self, query: SpanQuery) -> Iterator[pa.RecordBatch]:
        """Yield the spans that *query* selects as batches of the table in `store.table`, newest start first.

        Each batch is a read of its own, so others may write in between.

        Raises:
            MissingExtraError: pyarrow is not installed.
            StoreError: The store cannot be read.
        """
        table.schema()  # raises before anything is read if a package is missing
        return map(table.batch, self.export_rows(query))

    def export_rows(self, query: SpanQuery) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the same spans as `export` does, each as a tuple in the order of `table.COLUMNS`.

        Raises:
            StoreError: The store cannot be read.
        """
        if query.at_ns is not None:
            raise StoreUnsupportedError(
                f"{self.path}: an export has the values of now; expected a query without a time (at_ns)."
            )
        return sqlite_export.pages(self._read, query, _stored_span, has_history=self._keeps_history)

    def watch(self) -> Watch | None:
        """Return a watch that notices what any process changes in the file; None for a store in memory."""
        return None if self.path == _MEMORY else Watch(self.path)

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

    def locate(
        self, keys: Collection[tuple[str | None, str]], project: str | None
    ) -> Mapping[tuple[str | None, str], Located]:
        """Return where spans and traces are stored, and whether they are of *project*; see `ProjectStore`.

        Raises:
            StoreError: The store cannot be read.
        """
        spans = [(trace_id, span_id) for trace_id, span_id in keys if span_id]  # plain tuples, which orjson takes
        traces = [trace_id for trace_id, span_id in keys if not span_id]

        def read(connection: sqlite3.Connection) -> dict[tuple[str | None, str], Located]:
            found: dict[tuple[str | None, str], Located] = {}
            if spans:
                newest: dict[int, tuple[bool, int, str]] = {}
                of_spans = connection.execute(_LOCATE_SPANS, (project, project, orjson.dumps(spans).decode()))
                for at, trace_id, start_ns, is_own in of_spans:
                    place = bool(is_own), start_ns, trace_id
                    newest[at] = max(newest.get(at, place), place)
                found.update((spans[at], Located(trace_id, is_own)) for at, (is_own, _, trace_id) in newest.items())
            if traces:
                of_traces = connection.execute(_LOCATE_TRACES, (project, project, orjson.dumps(traces).decode()))
                found.update(((trace_id, ""), Located(trace_id, bool(is_own))) for trace_id, is_own in of_traces)
            return found

        return self._read(read)

    def versions(self, fields: Collection[tuple[str, str, FieldName]]) -> Mapping[tuple[str, str, FieldName], Version]:
        """Return the versions of fields, each (trace id, span id or "", name); those that are not set are missing.

        For a field of a span with the span id "", the version is the greatest one on any stored span of the trace.

        Raises:
            StoreError: The store cannot be read.
        """
        versions: dict[tuple[str, str, FieldName], Version] = {}
        of_any_span = [field for field in fields if not field[1] and field[2][0] == "span"]
        for statement, asked in ((_VERSIONS, list(fields)), (_VERSIONS_IN_TRACE, of_any_span)):
            if not asked:
                continue
            keys = orjson.dumps([(trace_id, span_id, *name) for trace_id, span_id, name in asked]).decode()
            found = self._read(lambda connection: connection.execute(statement, (keys,)).fetchall())  # noqa: B023 # called at once
            for at, ns, writer in found:
                version = ns, int(writer, 16)
                versions[asked[at]] = max(version, versions.get(asked[at], version))
        return versions

    def authors(self, writers: Collection[int]) -> Mapping[int, str]:
        """Return the names of writers; those without one are missing.

        Raises:
            StoreError: The store cannot be read.
        """
        wanted = orjson.dumps([*map(_writer_text, writers)]).decode()
        found = self._read(lambda connection: connection.execute(_NAMES, (wanted,)).fetchall())
        return {int(writer, 16): name for writer, name in found}

    def delete(self, keys: Collection[tuple[str, str]], version: Version) -> list[tuple[str, str]]:
        """Delete spans and everything that was set on them, all or none; return those that were there.

        Raises:
            StoreError: Nothing was deleted.
        """
        ns, writer = version
        with self._transaction() as connection:
            deleted = [key for key in dict.fromkeys(keys) if connection.execute(DELETE_SPAN, key).rowcount]
            traces = sorted({trace_id for trace_id, _ in deleted})
            empty = [trace_id for trace_id in traces if not connection.execute(_ANY_SPAN, (trace_id,)).fetchone()]
            gone = [*deleted, *((trace_id, "") for trace_id in empty)]
            connection.executemany("DELETE FROM fields WHERE trace_id = ? AND span_id = ?", gone)
            connection.executemany(FORGET_LATE_TRACE, ((trace_id,) for trace_id in traces))
            connection.executemany(_WRITE_TOMBSTONE, ((*key, ns, _writer_text(writer)) for key in gone))
        return deleted

    def retain(self, before_ns: int | None, max_bytes: int | None) -> Retained:
        """Delete the oldest spans with everything set on them, in transactions of a few milliseconds.

        Args:
            before_ns: Delete spans that started before, in wall nanoseconds, and the tombstones from before; None for
                none.
            max_bytes: Delete spans until the pages in use have this size; None for any size.

        Raises:
            StoreError: The store cannot be written; what was deleted until then stays deleted.
        """

        def pause(ns: int) -> None:
            if self._clock.wait(self._is_closing, ns):
                raise StoreError(f"{self.path}: closed during a retention; what it has deleted stays deleted.")

        return Retention(self._read, self._transaction, pause, self._clock).retain(before_ns, max_bytes)

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
        for connection in self._connections() if "_connection" in self.__dict__ else ():
            connection.close()

    def _connections(self) -> list[sqlite3.Connection]:
        of_readers = self._readers.connections() if self._readers is not None else []
        return [*of_readers, *([self._connection] if self._connection is not None else [])]

    def _forget_connection(self) -> None:
        """Start anew in a child process. The parent's connections and locks, held or not, stay the parent's."""
        for connection in self._connections():
            leave_to_the_parent(connection)
        self._connection = None
        self._readers = None
        self._lock = threading.Lock()
        self._is_closing = threading.Event()

    def _read(self, read: Callable[[sqlite3.Connection], _T]) -> _T:
        deadline_ns = self._deadline_ns(None)
        if self.path == _MEMORY:
            with self._opened(deadline_ns) as connection:
                return self._when_free(lambda: read(connection), deadline_ns)
        while True:
            readers = self._readers
            if readers is None or not readers.has_current_files():
                with self._opened(deadline_ns):
                    readers = self._readers
            if readers is None:
                continue  # closed by another thread meanwhile
            try:
                return self._when_free(partial(readers.read, read), deadline_ns)
            except PoolClosedError:
                continue
            except (sqlite3.Error, OverflowError) as error:
                if _blames_the_file(error):
                    readers.close(is_replaced=True)
                raise self._store_error(error) from error

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
            if not self._is_folded_later:
                self._fold(connection)

    def _fold(self, connection: sqlite3.Connection) -> None:
        """Fold the log into the file if enough was written since the last time, and begin a large log again."""
        if connection.total_changes - self._folded_at < _FOLDED_CHANGES:
            return
        self._folded_at = connection.total_changes
        with suppress(sqlite3.Error):  # the write is done; SQLite's own checkpoints tell nobody either
            _, pages, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if pages >= _LARGE_LOG_PAGES:
                # Readers that overlap keep the log from starting again. This waits for those that read now, at most
                # the busy timeout; the next fold tries again.
                connection.execute("PRAGMA wal_checkpoint(RESTART)")

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
            if self.path != _MEMORY and _blames_the_file(error):
                self._drop()  # only a new connection sees that the file was repaired
            raise self._store_error(error) from error
        finally:
            lock.release()

    def _store_error(self, error: Exception) -> StoreError:
        return StoreError(f"{self.path}: {error}; expected a readable and writable SQLite file.")

    def _follow(self, deadline_ns: int) -> None:
        """Open the files that now have the names, if the connection has others open."""
        readers = self._readers
        if self.path == _MEMORY:
            return
        if readers is None:
            if not self._create or os.path.exists(self.path):
                return  # the usual case, in which no other process has to wait
        else:
            if readers.has_current_files():
                return
            found, opened = files_of(self.path), readers.files
            # Cached pages would be written into a file that has lost the other pages.
            self._is_cut_off = found.database == opened.database and 0 < found.size < opened.size

        def anew() -> None:
            with alone(self.path):
                if self._connection is not None and self._readers is not None:
                    self._readers.close(is_replaced=True)
                    let_go(self._connection, self.path, self._readers.files)
                    self._connection = self._readers = None
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
        if self._readers is not None and not self._readers.has_current_files():
            raise StoreError(f"{self.path}: the file was removed or replaced during a write, which is done again.")

    def _drop(self) -> None:
        readers, connection = self._readers, self._connection
        self._readers = self._connection = None
        if readers is not None:
            readers.close()
        if connection is not None:
            connection.close()

    def _deadline(self, timeout_millis: float | None) -> Deadline | None:
        return None if timeout_millis is None else Deadline(self._clock, bounded_millis(timeout_millis, 0))

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
            if self.path != _MEMORY:
                found = files_of(self.path)
                found = found._replace(size=max(found.size, 1))  # at 0 it was emptied already, which must be noticed
                self._readers = ReadPool(self.path, found, _prepare_reader)
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
        is_in_use = self.path != _MEMORY and files_of(self.path).log is not None
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        prepare(connection, self.path, _LAYOUT, self._give_way)
        if version == SCHEMA_VERSION and not is_in_use:
            forget_older_versions(connection)  # SQLite removes the log when the last process closes the file
        self._named = RecentMap(MAX_AUTHORS)
        self._history = History(connection, self._history_limit) if self._keeps_history else None
        _prepare_reader(connection)
        # In WAL mode, NORMAL loses no transaction when the process dies, only when the machine loses power.
        connection.execute(f"PRAGMA synchronous = {'FULL' if self.survives_power_loss else 'NORMAL'}")
        # `_transaction` folds the log in once enough rows were written, at about 16 MiB instead of SQLite's 4. So a
        # page that is written many times, such as one of an index, is copied once. SQLite itself goes by the size of
        # the log, which does not shrink while anybody reads. Then each commit would fold in, and wait for the disk. So
        # its own limit is far above that at which `_fold` begins the log again.
        self._folded_at = 0
        connection.execute(f"PRAGMA wal_autocheckpoint = {4 * _LARGE_LOG_PAGES}")

    def _give_way(self) -> None:
        """Wait between two steps of an upgrade, in which others write."""
        if self._clock.wait(self._is_closing, _GIVE_WAY_NS):
            raise sqlite3.OperationalError("interrupted: the store was closed")

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


def _blames_the_file(error: Exception) -> bool:
    return any(words in f"{error}" for words in _OF_THE_FILE)


def _prepare_reader(connection: sqlite3.Connection) -> None:
    connection.create_function(sqlite_filter.FUNCTION, 4, sqlite_filter.of_instrumentor, deterministic=True)
    # Up to 16 MiB: with SQLite's default of 2 MiB a large store keeps reading back the same pages.
    connection.execute("PRAGMA cache_size = -16384")


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
    spans: Iterable[_OfSpan],
    is_deleted: _IsDeleted | None,
    route: int | None,
    writers: set[int],
    late_traces: set[str],
) -> Iterator[tuple[str | int, ...]]:
    """Yield the values of `MERGE_FIELD` for each field that was not deleted; note the writers and the late traces."""
    last, writer_text = -1, ""
    for trace_id, span_id, fields, end_ns in spans:
        if route == _LATE:
            late_traces.add(trace_id)
        for (level, kind, key), (value, version) in fields.items():
            place = span_id if level == "span" else ""
            if is_deleted is not None and is_deleted(trace_id, place, version):
                continue
            ns, writer = version
            if writer != last:
                last, writer_text = writer, _writer_text(writer)
                writers.add(writer)
            by = route if route is not None else _LIVE if ns <= end_ns else _IN_FLIGHT
            yield trace_id, place, level, kind, key, json_text(value), ns, writer_text, by, trace_id, place


def _writer_text(writer: int) -> str:
    return f"{writer:016x}"


def _fields_of(connection: sqlite3.Connection, span: StoredSpan) -> Fields:
    rows = connection.execute(_FIELDS_OF, (span.trace_id, span.span_id))
    fields: dict[FieldName, tuple[Json, Version]] = {}
    for level, kind, key, value, ns, writer in rows:
        fields[level, kind, key] = (orjson.loads(value), (ns, int(writer, 16)))
    return fields


def _span_rows(spans: Iterable[StoredSpan]) -> Iterator[tuple[str | int | None, ...]]:
    """Yield the values of `_WRITE_SPAN` for each span."""
    last: Mapping[str, Json] | None = None
    resource_text = ""
    for span in spans:
        *plain, attributes, events, links, resource, scope_name, scope_version = _columns_of(span)
        if resource is not last:  # the spans of a process share it
            last, resource_text = resource, json_text(dict(resource))
        yield (
            *plain,
            json_text(dict(attributes)),
            json_text(list(map(dict, events))) if events else "[]",
            json_text(list(map(dict, links))) if links else "[]",
            resource_text,
            scope_name,
            scope_version,
        )


def _stored_span(row: tuple[Any, ...]) -> StoredSpan:
    columns = dict(zip(COLUMNS.split(", "), row, strict=True))
    for name in ("attributes", "events", "links", "resource"):
        columns[name] = orjson.loads(columns[name])
    return StoredSpan(**{**columns, "events": tuple(columns["events"]), "links": tuple(columns["links"])})
