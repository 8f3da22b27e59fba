"""The store for more spans than one machine can hold: ClickHouse, with or without an OpenTelemetry Collector.

Spans are rows of the table that the Collector's ClickHouse exporter writes. Fields are rows of a table beside it, and
are joined when spans are read (`clickhouse.schema` has both). Every write is an insert that reads nothing first, so any
order, any repetition and any number of writers lead to the same state. A field may come before its span. The engine
copies each field into a history.

One span may have several rows: a Collector sent it twice, or a program wrote it again. The current row is the one that
was written last; the table of fields has the version of its writing. Identical rows of a Collector count as one.

A write is two inserts, fields first. If the second fails, nothing is visible yet: the fields wait for their span, and
writing again adds it.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypeVar, final

import orjson

from otel_metadata.arguments import checked
from otel_metadata.dialects.canonical import JSON_NAMES, VERSIONS, read
from otel_metadata.errors import StoreAccessError, StoreError, StoreUnsupportedError
from otel_metadata.model.authors import AUTHORS, MAX_AUTHORS
from otel_metadata.model.merge import PLAIN_ATTRIBUTE_WRITER, Field, FieldName, Fields, Version, json_text, merge_into
from otel_metadata.model.recent import RecentMap
from otel_metadata.model.record import (
    ROUTES,
    Bar,
    Found,
    FoundTraces,
    Histogram,
    OutlineSpan,
    Position,
    SpanCount,
    SpanQuery,
    SpanRecord,
    StoredKey,
    StoredSpan,
    TraceRecord,
    ValueRecord,
    assemble,
)
from otel_metadata.reporting import after_fork_in_child
from otel_metadata.seams import SystemClock, VersionSource, bounded_millis
from otel_metadata.store import table
from otel_metadata.store.clickhouse.client import Address, AnswerTooLargeError, Connection
from otel_metadata.store.clickhouse.condition import (
    END,
    LIVE,
    NAMES_OF_WRITERS,
    TOMBSTONES,
    TRACE_REACH_NS,
    select_bars,
    select_count,
    select_keys,
    select_late,
    select_names,
    select_outline,
    select_traces,
)
from otel_metadata.store.clickhouse.rows import (
    INVERTED,
    ROW,
    decode_field,
    field_rows,
    read_columns,
    read_map,
    route_of,
    row_of,
    span_of,
    value_of,
    version_of,
    version_text,
)
from otel_metadata.store.clickhouse.schema import (
    COPY_TO_HISTORY,
    DELETED,
    FIELDS,
    HISTORY,
    HISTORY_VIEW,
    ROW_KIND,
    SPAN_COLUMNS,
    WRITER_KIND,
    create_statements,
)
from otel_metadata.store.history import HISTORY_LIMIT, Value, in_order, not_kept, records, route_name, routes_text
from otel_metadata.store.reads import IS_ERROR, NO_PARENT, both
from otel_metadata.store.rows import row_of as row_of_span

if TYPE_CHECKING:
    import pyarrow as pa
    from clickhouse_connect.driver.client import Client
    from opentelemetry.sdk.trace import ReadableSpan  # noqa: TID251 # a name in a signature; nothing is loaded

    from otel_metadata.model.merge import Level
    from otel_metadata.model.patch import Patch
    from otel_metadata.model.record import NamedKind, Retained, Route
    from otel_metadata.seams import Clock

# A server takes an insert into at most 100 partitions (`max_partitions_per_insert_block`), and there is one for a day.
_MAX_DAYS: Final = 90
_DAY_NS: Final = 86_400_000_000_000

# Ids in one question. As form fields they stay well below a server's limit of 128 KiB (`http_max_field_value_size`).
_MAX_IDS: Final = 2_000

# Rows whose positions are read at once.
_MAX_KEYS: Final = 100_000

# Rows of a part of a search with a deadline. Larger ones lose more at the deadline, smaller ones are more questions.
_FIRST_PART: Final = 10_000
_LARGEST_PART: Final = 160_000

# Traces whose spans are counted at once.
_MAX_TRACES: Final = 200

# The most bytes of the history of a span, and of its trace, in a row of an export. JSON may double them by its escapes,
# and the client takes 32 MiB at once.
_HISTORY_BYTES: Final = 4_000_000
_NO_LIMIT: Final = (1 << 63) - 1

_FIELD: Final = "TraceId, SpanId, Level, Kind, Key"

_CURRENT_OF: Final = (
    f"SELECT {_FIELD}, max(Field) FROM `{FIELDS}` WHERE TraceId IN {{t:Array(String)}} "
    f"AND SpanId IN {{s:Array(String)}} GROUP BY {_FIELD}"
)

# Of each field the newest values: the current one, those that are shown, and one more, which tells that there are older
# ones. Of these the newest of each span and each trace, up to a number of bytes. The digits of a tag's version are
# inverted.
_NEWEST: Final = "if(Kind = 'tag', translate(substring(Value, 1, 32), '{}', '{}'), Value) DESC".format(*INVERTED)
_HISTORY_OF: Final = (
    f"SELECT {_FIELD}, Latest FROM (SELECT {_FIELD}, Latest, sum(length(Latest)) OVER (PARTITION BY TraceId, SpanId "
    f"ORDER BY {_NEWEST} ROWS UNBOUNDED PRECEDING) AS Bytes FROM "
    f"(SELECT {_FIELD}, trimRight(Field) AS Value, max(Field) AS Latest FROM `{HISTORY}` "
    f"WHERE TraceId IN {{t:Array(String)}} AND SpanId IN {{s:Array(String)}} GROUP BY {_FIELD}, Value "
    f"ORDER BY {_NEWEST} LIMIT {HISTORY_LIMIT + 2} BY {_FIELD})) WHERE Bytes <= {{b:Int64}}"
)

_VERSION: Final = "substring(Field, 1, 32)"

_VERSIONS_OF: Final = (
    f"SELECT {_FIELD}, max({_VERSION}) FROM `{FIELDS}` WHERE TraceId IN {{t:Array(String)}} "
    "AND SpanId IN {s:Array(String)} AND Kind IN {i:Array(String)} AND Key IN {k:Array(String)} "
    f"GROUP BY {_FIELD}"
)

_VERSIONS_IN_TRACE: Final = (
    f"SELECT TraceId, '', Level, Kind, Key, max({_VERSION}) FROM `{FIELDS}` WHERE TraceId IN {{t:Array(String)}} "
    "AND SpanId != '' AND Level = 'span' AND Kind IN {i:Array(String)} AND Key IN {k:Array(String)} "
    "GROUP BY TraceId, Level, Kind, Key"
)

_FIELD_COLUMNS: Final = ("TraceId", "SpanId", "Level", "Kind", "Key", "Field")
_LOW: Final = "LowCardinality(String)"
_FIELD_TYPES: Final = ("String", "String", _LOW, _LOW, "String", "String")
_TOMBSTONE_COLUMNS: Final = ("TraceId", "SpanId", "Version")

_WITHIN: Final = (
    "t.Timestamp >= fromUnixTimestamp64Nano({first:Int64}) AND t.Timestamp <= fromUnixTimestamp64Nano({last:Int64})"
)

_T = TypeVar("_T")
_Read: TypeAlias = "Callable[[Sequence[_Key]], Iterable[_T]]"


_LOCAL: Final = ("127.0.0.1", "::1")


class _Key(NamedTuple):
    """A row that a question found: its position, and the version of its writing, or "" for a Collector's row."""

    start_ns: int
    trace_id: str
    span_id: str
    written: str


_Ids: TypeAlias = "tuple[str, str]"  # trace id, span id
_Found: TypeAlias = "tuple[StoredSpan, Fields]"
_Rows: TypeAlias = "Mapping[tuple[_Ids, str], _Found]"  # by ids and the version of their writing

_Held: TypeAlias = "dict[FieldName, dict[tuple[int, str, str], int]]"
"""Of each field its values as (ns, writer in hex digits, JSON text), each with the place of its route in `ROUTES`."""


# A merged part has the highest number of those that it was made of; a mutation has a number of its own. Replicated
# tables count the blocks of each partition.
_PARTS: Final = """
SELECT `table`, sum(block), max(version) FROM (
  SELECT `table`, max(max_block_number) AS block, max(data_version) AS version FROM system.parts
  WHERE active AND database = currentDatabase() AND `table` IN {names:Array(String)} GROUP BY `table`, partition_id
) GROUP BY `table` ORDER BY `table`
"""


@final
class ClickHouseStore:
    """Spans and fields in ClickHouse.

    Any thread, any number of processes.
    """

    @checked
    def __init__(
        self,
        url: str,
        *,
        cluster: str | None = None,
        create: bool = True,
        timeout_millis: int = 10_000,
        clock: Clock | None = None,
    ) -> None:
        """Remember the address; connect at the first use.

        Args:
            url: `clickhouse://user:password@host:8123/database`, `clickhouses://…` for TLS; `?cluster=`, `secure=`,
                `table=` for another span table than `otel_traces`, and `history=off` to keep no superseded values.
            cluster: Make tables on every replica of this cluster; None for the cluster in the URL, if there is one.
            create: Make missing tables at the first use.
            timeout_millis: How long a server may take to answer.
            clock: Time; None for the system's.

        Raises:
            ConfigurationError: The URL has another form.
        """
        address = Address.from_url(url)
        self.address = address._replace(cluster=cluster) if cluster is not None else address
        host = "localhost" if address.host in _LOCAL else address.host
        self.place: Final = (host, address.port, address.database, address.table)
        self._spans = f"`{address.table}`"
        self._is_made = not create
        self._connection = Connection(self.address, timeout_millis)
        self._clock = clock or SystemClock()
        self._versions = VersionSource(self._clock)
        self._named: RecentMap[int, str] = RecentMap(MAX_AUTHORS)  # of writers, in the database
        self._lock = threading.Lock()
        after_fork_in_child(self._renew_lock)

    def write(self, spans: Iterable[ReadableSpan]) -> None:
        """Store ended spans and merge their fields.

        Raises:
            StoreError: No span was written.
        """
        self.write_rows([row_of_span(span) for span in spans])

    def write_rows(self, rows: Iterable[tuple[StoredSpan, Fields]], *, route: Route | None = None) -> None:
        """Store spans and merge their fields.

        Args:
            rows: The spans and their fields.
            route: How the fields got here; None for "live" or "in_flight", by the version of each.

        Raises:
            StoreError: Nothing was written; of spans from more than 90 days, some days may be written whole.
        """
        rows = list(rows)
        if not rows:
            return
        with self._lock:
            written = self._versions.next()
        fields = [
            row for span, found in rows for row in field_rows(span.trace_id, span.span_id, found, route, span.end_ns)
        ]
        writers = {version[1] for _, found in rows for _, version in found.values()}
        with self._opened() as client:
            self._insert_spans(client, [(span, written) for span, _ in rows], fields, writers)

    def set_durations(self, durations: Iterable[tuple[str, str, int]]) -> None:
        """Move the ends of spans; one that is not stored is left.

        A new row of the span follows the one that was read. A row that is written in the meantime counts as the later
        one.

        Args:
            durations: (trace id, span id, nanoseconds from its start) of each span.

        Raises:
            StoreError: As for `write_rows`.
        """
        wanted = {(trace_id, span_id): duration_ns for trace_id, span_id, duration_ns in durations}
        with self._opened() as client:
            for some in _chunks(wanted):
                where = "t.TraceId IN {t:Array(String)} AND t.SpanId IN {s:Array(String)}"
                values = {"t": [trace_id for trace_id, _ in some], "s": [span_id for _, span_id in some]}
                keys = [key for key, _ in self._current(client, where, values) if (key.trace_id, key.span_id) in wanted]
                spans = _Details(self._connection, client, self.address.table, keys).spans() if keys else {}
                rows: list[tuple[StoredSpan, Version]] = []
                fields: list[Sequence[str]] = []
                for key in keys:
                    ids = (key.trace_id, key.span_id)
                    if (ids, key.written) not in spans:
                        continue  # it was deleted in the meantime
                    span, in_row = spans[ids, key.written]
                    end_ns = min(span.start_ns + wanted[ids], _NO_LIMIT)
                    ns, writer = version_of("", key.written) if key.written else (span.end_ns, 0)
                    rows.append((replace(span, end_ns=end_ns), (ns, writer + 1)))
                    fields += field_rows(*ids, in_row, None, span.end_ns)
                if rows:
                    self._insert_spans(client, rows, fields)

    def patch(self, patches: Iterable[Patch], *, timeout_millis: int | None = None) -> None:
        """Merge fields, whether or not their span is there yet, all or none.

        Args:
            patches: The targets and their fields.
            timeout_millis: How long the server may take, if that is less than the store's own timeout.

        Raises:
            StoreError: Nothing was written, or the answer did not arrive; trying again does no harm.
        """
        rows = ((patch.target.trace_id_hex, patch.target.span_id_hex, patch.fields) for patch in patches)
        self.patch_rows(rows, timeout_millis=timeout_millis)

    def patch_rows(
        self, rows: Iterable[tuple[str, str, Fields]], *, timeout_millis: int | None = None, route: Route = "late"
    ) -> None:
        """Merge fields of spans, each (trace id, span id, fields) with ids in hex digits; as `patch` otherwise.

        Args:
            rows: (trace id, span id, fields) of each span.
            timeout_millis: As for `patch`.
            route: How the fields got here.

        Raises:
            StoreError: As for `patch`.
        """
        fields: list[Sequence[str]] = []
        writers: set[int] = set()
        for trace_id, span_id, found in rows:
            fields += field_rows(trace_id, span_id, found, route)
            writers.update(version[1] for _, version in found.values())
        if fields:
            with self._opened(timeout_millis) as client:
                self._insert_fields(client, fields, writers)

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
        found: list[SpanRecord] = []
        searched_to = None
        with self._opened() as client:
            for part, searched_to in self._parts(client, query, timeout_millis):
                left = None if query.limit is None else query.limit - len(found)
                found += [assemble(*one) for one in self._found(client, replace(part, limit=left), searched_to)]
                if len(found) == query.limit:
                    return Found(tuple(found))
        return Found(tuple(found), searched_to)

    def outline(self, trace_id: str) -> list[OutlineSpan]:
        """Return the spans of a trace (32 hex digits), oldest start first.

        Raises:
            StoreError: The store cannot be read.
        """
        sql, values = select_outline(SpanQuery(trace_id, limit=None), self.address.table)
        spans: dict[str, OutlineSpan] = {}  # a row that a Collector sent twice is here twice
        with self._opened() as client:
            for span_id, parent_id, name, kind, start, end, status in self._connection.run(client, sql, values):
                one = OutlineSpan(span_id, parent_id, name, kind, int(start), int(end), orjson.loads(status))
                spans.setdefault(span_id, one)
        return list(spans.values())

    def traces(self, query: SpanQuery, *, timeout_millis: float | None = None) -> FoundTraces:
        """Return the traces whose root *query* selects and that are found in time, newest root first.

        Raises:
            StoreError: The store cannot be read.
        """
        found: list[TraceRecord] = []
        searched_to = None
        of_roots = replace(query, condition=both(NO_PARENT, query.condition))
        with self._opened() as client:
            for part, searched_to in self._parts(client, of_roots, timeout_millis):
                read = partial(self._read, client, query.at_ns)
                rows = self._all(client, part, searched_to, read=read, at_once=_MAX_TRACES)
                while some := list(islice(rows, _MAX_TRACES)):
                    found += self._traces(client, some)
                    if query.limit is not None and len(found) >= query.limit:
                        return FoundTraces(tuple(found[: query.limit]))
        return FoundTraces(tuple(found), searched_to)

    def count(self, query: SpanQuery, *, timeout_millis: float | None = None) -> SpanCount:
        """Count the spans that *query* selects, up to its limit and as far as the time allows.

        Raises:
            StoreError: The store cannot be read.
        """
        counted, searched_to = 0, None
        with self._opened() as client:
            for part, searched_to in self._parts(client, query, timeout_millis):
                # One more tells whether there are more.
                limit = None if query.limit is None else query.limit + 1 - counted
                sql, values = select_count(part, self.address.table, limit, searched_to)
                counted += int(self._connection.run(client, sql, values)[0][0])
                if query.limit is not None and counted > query.limit:
                    return SpanCount(query.limit, is_exact=False)
        return SpanCount(counted, is_exact=searched_to is None)

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
        window = replace(query, start_ns=start_ns, end_ns=start_ns + width_ns * bars, limit=None)
        spans, errors = [0] * bars, [0] * bars
        searched_to = None
        with self._opened() as client:
            for part, searched_to in self._parts(client, window, timeout_millis):
                of_errors = replace(part, condition=both(IS_ERROR, part.condition))
                for numbers, asked in ((spans, part), (errors, of_errors)):
                    sql, values = select_bars(asked, self.address.table, start_ns, width_ns, searched_to)
                    for at, number in self._connection.run(client, sql, values):
                        numbers[int(at)] += int(number)
        found = (Bar(start_ns + at * width_ns, spans[at], errors[at]) for at in range(bars))
        return Histogram(tuple(found), searched_to)

    def names(self, kind: NamedKind, *, level: Level = "span", prefix: str = "", limit: int = 1_000) -> list[str]:
        """Return metadata keys, tags or names of evaluations that are in use, in order.

        Those that only rows of a Collector have are not among them.

        Args:
            kind: Which of them.
            level: Those of spans, or of traces.
            prefix: Only those that begin so.
            limit: At most this many.

        Raises:
            StoreError: The store cannot be read.
        """
        sql, values = select_names(kind, level, prefix, limit)
        with self._opened() as client:
            return [name for (name,) in self._connection.run(client, sql, values)]

    def find(self, span_ids: Collection[str]) -> Mapping[str, StoredKey]:
        """Return where each of *span_ids* is stored. If several traces have the id, the newest span counts.

        Raises:
            StoreError: The store cannot be read.
        """
        found: dict[str, StoredKey] = {}
        with self._opened() as client:
            for ids in _chunks(dict.fromkeys(span_ids)):
                for key, end_ns in self._current(client, "t.SpanId IN {ids:Array(String)}", {"ids": ids}):
                    place = StoredKey(key.trace_id, key.start_ns, end_ns)
                    held = found.get(key.span_id)
                    if held is None or (held.start_ns, held.trace_id) < (place.start_ns, place.trace_id):
                        found[key.span_id] = place
        return found

    def versions(self, fields: Collection[tuple[str, str, FieldName]]) -> Mapping[tuple[str, str, FieldName], Version]:
        """Return the versions of fields, each (trace id, span id or "", name); those that are not set are missing.

        Values that are only in rows of a Collector are not among them. For a field of a span with the span id "", the
        version is the greatest one on any span of the trace.

        Raises:
            StoreError: The store cannot be read.
        """
        versions: dict[tuple[str, str, FieldName], Version] = {}
        with self._opened() as client:
            for some in _chunks(fields):
                asked = {
                    "t": sorted({trace_id for trace_id, _, _ in some}),
                    "s": sorted({span_id for _, span_id, _ in some}),
                    "i": sorted({name[1] for _, _, name in some}),
                    "k": sorted({name[2] for _, _, name in some}),
                }
                wanted = set(some)
                statements = [_VERSIONS_OF]
                if any(not span_id and name[0] == "span" for _, span_id, name in some):
                    statements.append(_VERSIONS_IN_TRACE)
                for statement in statements:
                    for trace_id, span_id, level, kind, key, text in self._connection.run(client, statement, asked):
                        if (trace_id, span_id, (level, kind, key)) in wanted:
                            versions[trace_id, span_id, (level, kind, key)] = version_of(kind, text)
        return versions

    def authors(self, writers: Collection[int]) -> Mapping[int, str]:
        """Return the names of writers; those without one are missing.

        Raises:
            StoreError: It cannot be read.
        """
        with self._opened() as client:
            found = self._names_of(client, [f"{writer:016x}" for writer in writers])
        return {int(writer, 16): name for writer, name in found.items()}

    def delete(self, keys: Collection[tuple[str, str]], version: Version) -> list[tuple[str, str]]:
        """Delete spans and everything that was set on them; return those that were there.

        The first statement writes tombstones, which hide the spans from every reader. The next one removes the rows.

        Raises:
            StoreError: Nothing was deleted. Or rows are hidden but still there, which the message says; a second call
                with the same ids removes them.
        """
        deleted: list[_Ids] = []
        with self._opened() as client:
            for some in _chunks(dict.fromkeys(keys)):
                deleted += self._delete(client, some, version)
        return deleted

    def history(self, trace_id: str, span_id: str = "", field: FieldName | None = None) -> list[ValueRecord]:
        """Return every value that the fields of a span and of its trace have or had, newest first.

        Args:
            trace_id: 32 hex digits.
            span_id: 16 hex digits, or "" for the fields of the trace alone.
            field: Only values of this field; None for all.

        Raises:
            StoreError: The store cannot be read, or it keeps no history.
        """
        self._check_history("a history was asked for")
        with self._opened() as client:
            of_span = " AND t.SpanId = {s:String}" if span_id else ""
            rows = self._current(client, "t.TraceId = {t:String}" + of_span, {"t": trace_id, "s": span_id})
            # The newest and the oldest span: rows are looked for around them. Fields may come before their span.
            keys = [key for key, _ in (*rows[:1], *rows[-1:])] or [_Key(0, trace_id, span_id, "")]
            details = _Details(self._connection, client, self.address.table, keys)
            held = details.held(details.spans() if span_id else {}, _NO_LIMIT)
            wanted = {
                name: values
                for place in dict.fromkeys((span_id, ""))
                for name, values in held[trace_id, place].items()
                if field in {None, name}
            }
            names = self._names_of(client, {writer for values in wanted.values() for _, writer, _ in values})
        found = {}
        for name, values in wanted.items():
            current = _winning(name, values)
            older = ((*one, route) for one, route in values.items() if one != current)
            found[name] = in_order(name, (*current, values[current]), older, HISTORY_LIMIT)
        return records(found, names.get)

    def retain(self, before_ns: int | None, max_bytes: int | None) -> Retained:
        """Refuse: ClickHouse deletes old rows by itself.

        Raises:
            StoreError: Always.
        """
        raise StoreUnsupportedError(
            f"{self}: retain deletes from an SQLite store only; expected a TTL on the tables, by which ClickHouse "
            "deletes old rows itself (docs/clickhouse.md)."
        )

    def export(self, query: SpanQuery) -> Iterator[pa.RecordBatch]:
        """Yield the spans that *query* selects, newest start first, as batches of `store.table`.

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
            raise StoreUnsupportedError(f"{self}: a time was named (at_ns), but an export has the values of now.")
        with self._opened() as client:
            max_bytes = _HISTORY_BYTES if self.address.keeps_history and self._has_history(client) else 0
            found = islice(self._all(client, query, read=partial(self._exported, client, max_bytes)), query.limit)
            while rows := list(islice(found, _MAX_IDS)):
                yield rows

    def watch(self) -> _Watch:
        """Return a watch that notices what any process writes: inserts have higher numbers of blocks than before."""
        return _Watch(self)

    def parts(self) -> object:
        """Return a value that another insert or deletion changes, and a merge does not.

        Raises:
            StoreError: It cannot be read.
        """
        names = [self.address.table, FIELDS, DELETED]
        with self._opened() as client:
            return self._connection.run(client, _PARTS, {"names": names})

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    # Writing

    def _insert_spans(
        self,
        client: Client,
        spans: Sequence[tuple[StoredSpan, Version]],
        fields: Sequence[Sequence[str]],
        writers: Iterable[int] = (),
    ) -> None:
        """Insert spans, each with the version of its writing, and the rows of their fields."""
        rows = [
            (span.trace_id, span.span_id, "span", ROW_KIND, "", version_text(written) + "null")
            for span, written in spans
        ]
        self._insert_fields(client, [*fields, *rows], writers)
        # If a span is twice in a batch, the later one counts.
        current = {(span.trace_id, span.span_id): (span, written) for span, written in spans}
        for some in _by_days(span for span, _ in current.values()):
            client.insert(
                self.address.table,
                [row_of(span, current[span.trace_id, span.span_id][1]) for span in some],
                column_names=tuple(SPAN_COLUMNS),
                column_type_names=tuple(SPAN_COLUMNS.values()),
            )

    def _insert_fields(self, client: Client, rows: Sequence[Sequence[str]], writers: Iterable[int]) -> None:
        """Insert fields, and the names of their writers that the database does not have."""
        named = {
            writer: name
            for writer in writers
            if (name := AUTHORS.name_of(writer)) is not None and self._named.get(writer) != name
        }
        of_writers = [("", "", "", WRITER_KIND, f"{writer:016x}", name) for writer, name in named.items()]
        client.insert(FIELDS, [*rows, *of_writers], column_names=_FIELD_COLUMNS, column_type_names=_FIELD_TYPES)
        self._named.update(named)

    def _delete(self, client: Client, keys: Sequence[_Ids], version: Version) -> list[_Ids]:
        wanted = set(keys)
        values: dict[str, Any] = {"t": sorted({key[0] for key in keys}), "s": sorted({key[1] for key in keys})}
        current = self._current(client, "t.TraceId IN {t:Array(String)} AND t.SpanId IN {s:Array(String)}", values)
        there = {(key.trace_id, key.span_id) for key, _ in current} & wanted
        self._write_tombstones(client, there, version)
        traces = sorted({trace_id for trace_id, _ in there})
        left = self._current(client, "t.TraceId IN {t:Array(String)}", {"t": traces}) if traces else []
        empty = set(traces) - {key.trace_id for key, _ in left}
        self._write_tombstones(client, ((trace_id, "") for trace_id in empty), version)
        try:
            self._remove(client, self.address.table, wanted)
            tables = [FIELDS, HISTORY] if self._has_history(client) else [FIELDS]
            # Those of an earlier deletion too: its last step may have failed, and late values may have come since.
            for deletion, some in self._deletions(client, wanted).items():
                for table in tables:
                    self._remove(client, table, some, deletion)
        except Exception as error:
            raise StoreError(
                f"{self.address}: {len(there)} spans are deleted for every reader, but their rows are still there "
                f"({type(error).__name__}); expected the right ALTER DELETE: delete the same ids again."
            ) from error
        return [key for key in keys if key in there]

    def _deletions(self, client: Client, keys: Collection[_Ids]) -> dict[Version, list[_Ids]]:
        """Return the tombstones of spans and of their traces, the ids by version."""
        details = _Details(self._connection, client, self.address.table, [_Key(0, *key, "") for key in keys])
        ids: dict[Version, list[_Ids]] = defaultdict(list)
        for key, deletion in details.tombstones().items():
            if key in keys or not key[1]:
                ids[deletion].append(key)
        return ids

    def _write_tombstones(self, client: Client, keys: Iterable[_Ids], version: Version) -> None:
        rows = [(*key, version_text(version)) for key in keys]
        if rows:
            client.insert(
                DELETED, rows, column_names=_TOMBSTONE_COLUMNS, column_type_names=("String",) * len(_TOMBSTONE_COLUMNS)
            )

    def _remove(self, client: Client, table: str, keys: Collection[_Ids], version: Version | None = None) -> None:
        """Remove the rows of *keys*; of fields only those that are not newer than *version*."""
        if not keys:
            return
        on_cluster = f" ON CLUSTER `{self.address.cluster}`" if self.address.cluster else ""
        values: dict[str, Any] = {"t": [key[0] for key in keys], "s": [key[1] for key in keys]}
        where = "(TraceId, SpanId) IN arrayZip({t:Array(String)}, {s:Array(String)})"
        if version is not None:
            values |= {"of_tag": version_text(version, "tag"), "other": version_text(version)}
            where += f" AND if(Kind = 'tag', {_VERSION} >= {{of_tag:String}}, {_VERSION} <= {{other:String}})"
        client.command(f"DELETE FROM `{table}`{on_cluster} WHERE {where}", parameters=values)

    # Reading

    def _parts(
        self, client: Client, query: SpanQuery, timeout_millis: float | None
    ) -> Iterator[tuple[SpanQuery, Position | None]]:
        """Yield a window in parts, newest first, until the time is over: each a question, and where it ends.

        The last part of the window ends at None. A part is a known number of rows, so that a search that ends early
        knows how far it has looked. The first one is always there, so that each search gets on.
        """
        if timeout_millis is None:
            yield query, None
            return
        ends_ns = self._clock.monotonic_ns() + bounded_millis(timeout_millis, 0) * 1_000_000
        size = _FIRST_PART
        while True:
            every = replace(query, condition=None, project=None)
            sql, values = select_keys(every, self.address.table, 1, skip=size - 1)
            until = next((Position(*_key(row)[:3]) for row in self._connection.run(client, sql, values)), None)
            yield query, until
            if until is None or self._clock.monotonic_ns() >= ends_ns:
                return
            query = replace(query, after=until)
            size = min(2 * size, _LARGEST_PART)

    def _found(self, client: Client, query: SpanQuery, until: Position | None = None) -> Iterator[_Found]:
        """Yield the spans that *query* selects, up to its limit."""
        if query.limit is None:
            yield from self._all(client, query, until, read=partial(self._read, client, query.at_ns))
            return
        left, after = query.limit, query.after
        while (wanted := min(left, _MAX_KEYS)) > 0:
            sql, values = select_keys(replace(query, after=after), self.address.table, wanted, until)
            keys = [_key(row) for row in self._connection.run(client, sql, values)]
            if keys and after is not None and Position(*keys[0][:3]) >= after:
                raise ValueError("rows that were there before")
            found = _resolved(keys, partial(self._read, client, query.at_ns))
            left -= len(found)
            yield from found
            # Fewer rows than asked for: there are no more.
            if len(keys) < wanted:
                break
            after = Position(*keys[-1][:3])

    def _all(
        self,
        client: Client,
        query: SpanQuery,
        until: Position | None = None,
        *,
        read: _Read[_T],
        at_once: int = _MAX_IDS,
    ) -> Iterator[_T]:
        """Yield all spans that *query* selects, as *read* returns them.

        It does not hold them: the keys are one answer that is streamed.
        """
        sql, values = select_keys(query, self.address.table, None, until)
        with closing(self._connection.stream(client, sql, values)) as found:
            rows = (key for key, _ in groupby(map(_key, found)))
            while keys := list(islice(rows, at_once)):
                yield from _resolved(keys, read)

    def _traces(self, client: Client, rows: Sequence[_Found]) -> Iterator[TraceRecord]:
        """Yield the traces of *rows* which are the first root of theirs."""
        ids = sorted({span.trace_id for span, _ in rows})
        sql, values = select_traces(ids, self.address.table)
        traces = {row[0]: row[1:] for row in self._connection.run(client, sql, values)}
        sql, values = select_late(ids, self.address.table)
        late = {trace_id: int(number) for trace_id, number in self._connection.run(client, sql, values)}
        for record in (assemble(*one) for one in rows):
            # Nothing of a trace that was deleted meanwhile.
            spans, errors, first_root = traces.get(record.trace_id, (0, 0, (0, "")))
            if first_root[1] == record.span_id:
                yield TraceRecord(
                    record.trace_id,
                    record.span_id,
                    record.name if record.trace_name is None else record.trace_name,
                    record.project,
                    record.span.start_ns,
                    record.span.end_ns,
                    record.status_code,
                    int(spans),
                    int(errors),
                    late.get(record.trace_id, 0),
                    {**record.evaluations, **record.trace_evaluations},
                )

    def _read(self, client: Client, at_ns: int | None, keys: Sequence[_Key]) -> Iterator[_Found]:
        """Yield the spans of rows, with their fields."""
        details = _Details(self._connection, client, self.address.table, keys)
        spans, rows, fields = details.spans(), details.of_traces(at_ns), details.fields(at_ns=at_ns)
        for ids, (span, in_row) in details.current(keys, spans):
            merged: dict[FieldName, Field] = {
                name: field for name, field in in_row.items() if name[0] == "span" and _is_by(field, at_ns)
            }
            merge_into(merged, rows[ids[0]])
            merge_into(merged, fields[ids])
            merge_into(merged, fields[ids[0], ""])
            yield span, merged

    def _exported(self, client: Client, max_bytes: int, keys: Sequence[_Key]) -> Iterator[tuple[Any, ...]]:
        """Yield rows of an export. The history of a trace is with the first of its spans here."""
        from otel_metadata.store.table import arrow_row

        details = _Details(self._connection, client, self.address.table, keys)
        spans = details.spans()
        held = details.held(spans, max_bytes)
        names = self._names_of(client, {one[1] for fields in held.values() for some in fields.values() for one in some})
        traces: set[str] = set()
        for (trace_id, span_id), (span, _) in details.current(keys, spans):
            fields: dict[FieldName, Field] = {}
            routes: list[int] = []
            history: list[list[Any]] = []
            for place in (span_id, ""):
                superseded: list[tuple[Value, FieldName]] = []
                for name, values in sorted(held[trace_id, place].items()):
                    current = _winning(name, values)
                    ns, writer, text = current
                    fields[name] = orjson.loads(text), (ns, int(writer, 16))
                    routes.append(values[current])
                    superseded += (((*one, route), name) for one, route in values.items() if one != current)
                if max_bytes and (place or trace_id not in traces):
                    for (ns, writer, text, route), name in sorted(superseded, reverse=True):
                        history.append([*name, ns, writer, orjson.loads(text), route_name(route)])
            traces.add(trace_id)
            writers = {f"{writer:016x}" for _, (_, writer) in fields.values()} | {entry[4] for entry in history}
            authors = {writer: names[writer] for writer in sorted(writers) if writer in names}
            origin = routes_text(tuple(routes)), _text_of(authors), _text_of(history)
            yield arrow_row(span, fields, origin)

    def _current(self, client: Client, where: str, values: Mapping[str, Any]) -> list[tuple[_Key, int]]:
        """Return the current rows, with their ends, one for each span, newest start first."""
        sql = (
            f"SELECT toUnixTimestamp64Nano(t.Timestamp) AS start, t.TraceId, t.SpanId, t.SpanAttributes['{ROW}'], "
            f"{END} FROM {self._spans} AS t "
            f"LEFT ANY JOIN {TOMBSTONES} AS g ON t.TraceId = g.TraceId AND t.SpanId = g.SpanId "
            f"WHERE {where} AND {LIVE} ORDER BY start DESC"
        )
        rows = [(_key(row[:4]), int(row[4])) for row in self._connection.run(client, sql, values)]
        current: dict[_Ids, tuple[_Key, int]] = {}
        for some in _chunks(rows):
            details = _Details(self._connection, client, self.address.table, [key for key, _ in some])
            details.fields(kinds=(ROW_KIND,))
            for key, end_ns in some:
                if details.written.get((key.trace_id, key.span_id), "") == key.written:
                    current.setdefault((key.trace_id, key.span_id), (key, end_ns))
        return list(current.values())

    def _names_of(self, client: Client, writers: Iterable[str]) -> dict[str, str]:
        """Return the names of writers, by the writer in 16 hex digits."""
        names: dict[str, str] = {}
        sql = f"SELECT Writer, Name FROM {NAMES_OF_WRITERS} WHERE Writer IN {{w:Array(String)}}"
        for some in _chunks(writers):
            names.update((writer, name) for writer, name in self._connection.run(client, sql, {"w": some}))
        return names

    def _check_history(self, what: str) -> None:
        # Another program may have made one, but nothing tells whether it has everything.
        if not self.address.keeps_history:
            raise not_kept(self, what)

    def _has_history(self, client: Client) -> bool:
        return bool(self._connection.run(client, f"EXISTS TABLE `{HISTORY}`", {})[0][0])

    def _opened(self, timeout_millis: int | None = None) -> Any:  # a context manager of the client
        if not self._is_made:
            self._make_tables(timeout_millis)
            self._is_made = True
        return self._connection.client(timeout_millis)

    def _make_tables(self, timeout_millis: int | None) -> None:
        """Make missing tables. If all are there, the right to create is not needed."""
        missing = create_statements(self.address.table, self.address.cluster)
        if not self.address.keeps_history:
            del missing[HISTORY], missing[HISTORY_VIEW]
        with self._connection.client(timeout_millis) as client:
            for (name,) in self._connection.run(
                client,
                "SELECT name FROM system.tables WHERE database = currentDatabase() AND name IN {names:Array(String)}",
                {"names": list(missing)},
            ):
                del missing[name]
            of_history = {name: missing.pop(name) for name in (HISTORY, HISTORY_VIEW) if name in missing}
            for statement in missing.values():
                client.command(statement)
        if not of_history:
            return
        try:
            with self._connection.client(timeout_millis) as client:
                for statement in of_history.values():
                    client.command(statement)
                if FIELDS not in missing:
                    client.command(COPY_TO_HISTORY)
        except StoreAccessError:
            # The tables of an earlier version, and a user who may not create: it goes on without a history.
            if FIELDS in missing:
                raise

    def _renew_lock(self) -> None:
        # Another thread of the parent may have held it at the fork.
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """A status line, without user and password."""
        return f"<ClickHouseStore {self.address}>"

    def __str__(self) -> str:
        """As a user names it, without user and password."""
        return f"{self.address}"


def _is_by(field: Field, at_ns: int | None) -> bool:
    """Whether a field was set by a time; None for now."""
    return at_ns is None or field[1][0] <= at_ns


class _Watch:
    """See `ClickHouseStore.watch`."""

    def __init__(self, store: ClickHouseStore) -> None:
        self._store = store

    def state(self) -> object:
        """Return a value that differs from the one before if rows were written or deleted in between."""
        try:
            return self._store.parts()
        except StoreError:
            return None

    def close(self) -> None:
        """Do nothing: the connection is the store's."""


@final
class _Details:
    """Reads the tables for the spans of some rows. Each method asks one question."""

    def __init__(self, connection: Connection, client: Client, table: str, keys: Sequence[_Key]) -> None:
        self._run = partial(connection.run, client)
        self._spans = f"`{table}` AS t"
        self._traces = sorted({key.trace_id for key in keys})
        self._ids = sorted({key.span_id for key in keys})
        self._first, self._last = min(key.start_ns for key in keys), max(key.start_ns for key in keys)
        self._tombstones: dict[_Ids, Version] | None = None
        self.written: dict[_Ids, str] = {}

    def spans(self) -> _Rows:
        """Return the spans of the rows."""
        spans: dict[tuple[_Ids, str], _Found] = {}
        sql = (
            f"SELECT {read_columns('t')} FROM {self._spans} WHERE t.TraceId IN {{t:Array(String)}} "
            f"AND t.SpanId IN {{s:Array(String)}} AND {_WITHIN}"
        )
        for row in self._run(sql, self._values(0)):
            span, fields, written = span_of(row)
            key = (span.trace_id, span.span_id), written
            held = spans.get(key)
            # If two rows of a Collector differ, any of them will do, but always the same one.
            if held is None or repr(held) < repr((span, fields)):
                spans[key] = span, fields
        return spans

    def of_traces(self, at_ns: int | None = None) -> Mapping[str, Fields]:
        """Return the fields of traces that are in rows of Collectors, by trace id."""
        fields: dict[str, dict[FieldName, Field]] = defaultdict(dict)
        for trace_id, name, field, _ in self._each_of_traces():
            if _is_by(field, at_ns):
                merge_into(fields[trace_id], {name: field})
        return fields

    def _each_of_traces(self) -> Iterator[tuple[str, FieldName, Field, int]]:
        """Yield the fields of traces that are in rows of Collectors: trace id, name, field, and the end of the row."""
        sql = (
            f"SELECT t.TraceId, t.SpanId, {END}, "
            "mapFilter((name, _) -> startsWith(name, 'trace.') OR name IN {n:Array(String)}, t.SpanAttributes) "
            f"FROM {self._spans} WHERE t.TraceId IN {{t:Array(String)}} AND NOT mapContains(t.SpanAttributes, '{ROW}') "
            f"AND arrayExists(name -> startsWith(name, 'trace.') OR name = '{VERSIONS}', mapKeys(t.SpanAttributes)) "
            f"AND {_WITHIN}"
        )
        # User and session have one attribute for both levels; the version that is named for it tells the level.
        names = [JSON_NAMES, VERSIONS, "user.id", "session.id"]
        for trace_id, span_id, end, texts in self._run(sql, {**self._values(TRACE_REACH_NS), "n": names}):
            end_ns = int(end)
            if not self._is_deleted(trace_id, span_id, (end_ns, PLAIN_ATTRIBUTE_WRITER)):
                in_row, _ = read(read_map(texts), (end_ns, PLAIN_ATTRIBUTE_WRITER))
                for name, field in in_row.items():
                    if name[0] == "trace" and not self._is_deleted(trace_id, "", field[1]):
                        yield trace_id, name, field, end_ns

    def current(self, keys: Sequence[_Key], spans: _Rows) -> Iterator[tuple[_Ids, _Found]]:
        """Yield the *spans* of the *keys* that are current, each once; `written` is filled."""
        done: set[_Ids] = set()
        for key in keys:
            ids = (key.trace_id, key.span_id)
            if ids not in done and (ids, key.written) in spans and self.written.get(ids, "") == key.written:
                done.add(ids)
                yield ids, spans[ids, key.written]

    def held(self, spans: _Rows, max_bytes: int) -> Mapping[_Ids, _Held]:
        """Return the values that fields have or had, of the spans and, under span id "", of their traces.

        It fills `written`.

        Args:
            spans: The spans, whose rows have values too.
            max_bytes: The most bytes of the history of each span and trace; 0 to read no history.
        """
        held: dict[_Ids, _Held] = defaultdict(lambda: defaultdict(dict))

        def add(ids: _Ids, name: FieldName, ns: int, writer: str, text: str, route: int) -> None:
            values, one = held[ids][name], (ns, writer, text)
            values[one] = min(route, values.get(one, route))

        asked = {"t": self._traces, "s": ["", *self._ids], "b": max_bytes}
        for sql in (_CURRENT_OF, _HISTORY_OF) if max_bytes else (_CURRENT_OF,):
            for trace_id, place, level, kind, key, text in self._run(sql, asked):
                if kind == ROW_KIND:
                    self.written[trace_id, place] = text[:32]
                elif not self._is_deleted(trace_id, place, version_of(kind, text)):
                    add((trace_id, place), (level, kind, key), *value_of(kind, text))
        in_rows = [((trace_id, ""), name, field, end_ns) for trace_id, name, field, end_ns in self._each_of_traces()]
        for (ids, _), (span, of_span) in spans.items():
            # Once otel-metadata has written the span, rows of a Collector no longer count.
            if ids not in self.written and not self._is_deleted(*ids, (span.end_ns, PLAIN_ATTRIBUTE_WRITER)):
                in_rows += ((ids, name, field, span.end_ns) for name, field in of_span.items() if name[0] == "span")
        for ids, name, (value, version), end_ns in in_rows:
            route = ROUTES.index(route_of(version, end_ns))
            add(ids, name, version[0], f"{version[1]:016x}", json_text(value), route)
        return held

    def fields(self, kinds: Sequence[str] = (), at_ns: int | None = None) -> dict[_Ids, dict[FieldName, Field]]:
        """Return the fields of the spans and, under span id "", of their traces; fill `written`."""
        where = "TraceId IN {t:Array(String)} AND SpanId IN {s:Array(String)}"
        values: dict[str, Any] = {"t": self._traces, "s": ["", *self._ids]}
        if kinds:
            where += " AND Kind IN {k:Array(String)}"
            values["k"] = list(kinds)
        tables = [FIELDS]
        if at_ns is not None:
            version = max(at_ns, 0), (1 << 64) - 1
            where += (
                f" AND multiIf(Kind = '{ROW_KIND}', 1, Kind = 'tag', {_VERSION} >= {{of_tag:String}}, "
                f"{_VERSION} <= {{at:String}})"
            )
            values |= {"of_tag": version_text(version, "tag"), "at": version_text(version)}
            tables = [FIELDS, HISTORY]
        columns = "TraceId, SpanId, Level, Kind, Key"
        found = " UNION ALL ".join(f"SELECT {columns}, Field FROM `{table}` WHERE {where}" for table in tables)
        sql = f"SELECT {columns}, max(Field) FROM ({found}) GROUP BY {columns}"
        fields: dict[_Ids, dict[FieldName, Field]] = defaultdict(dict)
        for trace_id, span_id, level, kind, key, text in self._run(sql, values):
            if kind == ROW_KIND:
                self.written[trace_id, span_id] = text[:32]
                continue
            value, version = decode_field(kind, text)
            if not self._is_deleted(trace_id, span_id, version):
                fields[trace_id, span_id][level, kind, key] = value, version
        return fields

    def tombstones(self) -> dict[_Ids, Version]:
        """Return the tombstones of the traces, and of all their spans."""
        if self._tombstones is None:
            sql = (
                f"SELECT TraceId, SpanId, max(Version) FROM `{DELETED}` WHERE TraceId IN {{t:Array(String)}} "
                "GROUP BY TraceId, SpanId"
            )
            self._tombstones = {(row[0], row[1]): version_of("", row[2]) for row in self._run(sql, {"t": self._traces})}
        return self._tombstones

    def _is_deleted(self, trace_id: str, span_id: str, version: Version) -> bool:
        tombstone = self.tombstones().get((trace_id, span_id))
        return tombstone is not None and version <= tombstone

    def _values(self, reach_ns: int) -> dict[str, Any]:
        return {
            "t": self._traces,
            "s": self._ids,
            "first": self._first - reach_ns,
            "last": self._last + reach_ns,
        }


def _winning(name: FieldName, values: Iterable[tuple[int, str, str]]) -> tuple[int, str, str]:
    """Return the current one of the values of a field."""
    return (min if name[1] == "tag" else max)(values)


def _text_of(found: dict[str, str] | list[Any]) -> str | None:
    return orjson.dumps(found).decode() if found else None


def _resolved(keys: Sequence[_Key], read: _Read[_T]) -> list[_T]:
    """Return what *read* finds of rows, in order: of those that are current, each span once."""
    found: list[_T] = []
    # A row that a Collector sent twice is here twice, one after the other.
    waiting = deque(_chunks(key for key, _ in groupby(keys)))
    while waiting:
        some = waiting.popleft()
        try:
            found += read(some)
        except AnswerTooLargeError:
            if len(some) == 1:
                raise
            half = len(some) // 2
            waiting.extendleft((some[half:], some[:half]))
    return found


def _key(row: Sequence[Any]) -> _Key:
    return _Key(int(row[0]), *row[1:])


def _by_days(spans: Iterable[StoredSpan]) -> Iterator[list[StoredSpan]]:
    """Yield the spans in groups whose days fit into one insert."""
    group: list[StoredSpan] = []
    days: set[int] = set()
    for span in sorted(spans, key=lambda one: one.start_ns):
        day = span.start_ns // _DAY_NS
        if len(days) == _MAX_DAYS and day not in days:
            yield group
            group, days = [], set()
        group.append(span)
        days.add(day)
    if group:
        yield group


def _chunks(items: Iterable[_T]) -> Iterator[list[_T]]:
    rest = iter(items)
    while some := list(islice(rest, _MAX_IDS)):
        yield some
