"""The store for more spans than one machine can hold: ClickHouse, with or without an OpenTelemetry Collector.

Spans are rows of the table that the Collector's ClickHouse exporter writes. Fields are rows of a table beside it, and
are joined when spans are read (`clickhouse.schema` has both). Every write is an insert that reads nothing first, so any
order, any repetition and any number of writers lead to the same state. A field may come before its span.

One span may have several rows: a Collector sent it twice, or a program wrote it again. The current row is the one that
was written last; the table of fields has the version of its writing. Identical rows of a Collector count as one.

A write is two inserts, fields first. If the second fails, nothing is visible yet: the fields wait for their span, and
writing again adds it.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypeVar, final

from otel_metadata.arguments import checked
from otel_metadata.dialects.canonical import JSON_NAMES, VERSIONS, read
from otel_metadata.errors import StoreError
from otel_metadata.model.merge import PLAIN_ATTRIBUTE_WRITER, Field, FieldName, Fields, Version, merge_into
from otel_metadata.model.record import Position, SpanQuery, SpanRecord, StoredKey, StoredSpan, assemble
from otel_metadata.reporting import after_fork_in_child
from otel_metadata.seams import SystemClock, VersionSource
from otel_metadata.store.clickhouse.client import Address, AnswerTooLargeError, Connection
from otel_metadata.store.clickhouse.condition import END, LIVE, TOMBSTONES, TRACE_REACH_NS, select_keys
from otel_metadata.store.clickhouse.rows import (
    ROW,
    ROW_KIND,
    decode_field,
    field_rows,
    read_columns,
    read_map,
    row_of,
    span_of,
    version_text,
)
from otel_metadata.store.clickhouse.schema import DELETED, FIELDS, SPAN_COLUMNS, create_statements
from otel_metadata.store.rows import row_of as row_of_span

if TYPE_CHECKING:
    import pyarrow as pa
    from clickhouse_connect.driver.client import Client
    from opentelemetry.sdk.trace import ReadableSpan  # noqa: TID251 # a name in a signature; nothing is loaded

    from otel_metadata.model.patch import Patch
    from otel_metadata.model.record import Retained, Route, ValueRecord
    from otel_metadata.seams import Clock

# A server takes an insert into at most 100 partitions (`max_partitions_per_insert_block`), and there is one for a day.
_MAX_DAYS: Final = 90
_DAY_NS: Final = 86_400_000_000_000

# Ids in one question. As form fields they stay well below a server's limit of 128 KiB (`http_max_field_value_size`).
_MAX_IDS: Final = 2_000

# Rows whose positions are read at once.
_MAX_KEYS: Final = 100_000

_NO_HISTORY: Final = "this store does not keep superseded values; expected a store in SQLite"

_FIELD_COLUMNS: Final = ("TraceId", "SpanId", "Level", "Kind", "Key", "Field")
_LOW: Final = "LowCardinality(String)"
_FIELD_TYPES: Final = ("String", "String", _LOW, _LOW, "String", "String")
_TOMBSTONE_COLUMNS: Final = ("TraceId", "SpanId", "Version")

_WITHIN: Final = (
    "t.Timestamp >= fromUnixTimestamp64Nano({first:Int64}) AND t.Timestamp <= fromUnixTimestamp64Nano({last:Int64})"
)

_T = TypeVar("_T")


_LOCAL: Final = ("127.0.0.1", "::1")


class _Key(NamedTuple):
    """A row that a question found: its position, and the version of its writing, or "" for a Collector's row."""

    start_ns: int
    trace_id: str
    span_id: str
    written: str


_Ids: TypeAlias = "tuple[str, str]"  # trace id, span id
_Found: TypeAlias = "tuple[StoredSpan, Fields]"


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
            url: `clickhouse://user:password@host:8123/database`, `clickhouses://…` for TLS; `?cluster=`, `secure=`, and
                `table=` for another span table than `otel_traces`.
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
        self._versions = VersionSource(clock or SystemClock())
        self._lock = threading.Lock()
        after_fork_in_child(self._renew_lock)

    def write(self, spans: Iterable[ReadableSpan]) -> None:
        """Store ended spans and merge their fields.

        Raises:
            StoreError: No span was written.
        """
        self.write_rows([row_of_span(span) for span in spans])

    def write_rows(self, rows: Iterable[tuple[StoredSpan, Fields]], *, route: Route | None = None) -> None:
        """Store spans and merge their fields. The route is not kept.

        Raises:
            StoreError: Nothing was written; of spans from more than 90 days, some days may be written whole.
        """
        rows = list(rows)
        if not rows:
            return
        with self._lock:
            written = self._versions.next()
        fields = [row for span, found in rows for row in field_rows(span.trace_id, span.span_id, found)]
        row_field = version_text(written) + "null"
        fields += [(span.trace_id, span.span_id, "span", ROW_KIND, "", row_field) for span, _ in rows]
        # If a span is twice in a batch, the later one counts.
        spans = {(span.trace_id, span.span_id): span for span, _ in rows}
        with self._opened() as client:
            self._insert_fields(client, fields)
            for some in _by_days(spans.values()):
                client.insert(
                    self.address.table,
                    [row_of(span, written) for span in some],
                    column_names=tuple(SPAN_COLUMNS),
                    column_type_names=tuple(SPAN_COLUMNS.values()),
                )

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

        The route is not kept.

        Raises:
            StoreError: As for `patch`.
        """
        fields = [row for target in rows for row in field_rows(*target)]
        if fields:
            with self._opened(timeout_millis) as client:
                self._insert_fields(client, fields)

    def query(self, query: SpanQuery) -> list[SpanRecord]:
        """Return the records that *query* selects, newest start first.

        Raises:
            StoreError: The store cannot be read.
        """
        if query.at_ns is not None:
            raise StoreError(f"{self}: a time was named (at_ns), but {_NO_HISTORY}.")
        if query.limit is None:
            return [assemble(*found) for found in self._all(query)]
        records: list[SpanRecord] = []
        after: Position | None = query.after
        with self._opened() as client:
            while (wanted := min(query.limit - len(records), _MAX_KEYS)) > 0:
                keys = self._keys(client, query, after, wanted)
                if keys and after is not None and Position(*keys[0][:3]) >= after:
                    raise ValueError("rows that were there before")
                records += [assemble(*found) for found in self._resolved(client, keys)]
                # Fewer rows than asked for: there are no more.
                if len(keys) < wanted:
                    break
                after = Position(*keys[-1][:3])
        return records

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
        """Refuse: the tables have the values of now.

        Raises:
            StoreError: Always.
        """
        raise StoreError(f"{self}: a history was asked for, but {_NO_HISTORY}.")

    def retain(self, before_ns: int | None, max_bytes: int | None) -> Retained:
        """Refuse: ClickHouse deletes old rows by itself.

        Raises:
            StoreError: Always.
        """
        raise StoreError(
            f"{self}: retain deletes from an SQLite store only; expected a TTL on the tables, by which ClickHouse "
            "deletes old rows itself (docs/clickhouse.md)."
        )

    def export(self, query: SpanQuery) -> Iterator[pa.RecordBatch]:
        """Yield the spans that *query* selects, newest start first, as batches of `store.table`.

        Raises:
            MissingExtraError: pyarrow is not installed.
            StoreError: The store cannot be read.
        """
        from otel_metadata.store.table import arrow_row, batch  # needs the extra `dataframe`

        if query.at_ns is not None:
            raise StoreError(f"{self}: a time was named (at_ns), but an export has the values of now.")

        found = islice(self._all(query), query.limit)
        while rows := [arrow_row(*one) for one in islice(found, _MAX_IDS)]:
            yield batch(rows)

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    # Writing

    def _insert_fields(self, client: Client, rows: Sequence[Sequence[str]]) -> None:
        client.insert(FIELDS, rows, column_names=_FIELD_COLUMNS, column_type_names=_FIELD_TYPES)

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
            self._remove(client, FIELDS, [*there, *((trace_id, "") for trace_id in empty)], version)
        except Exception as error:
            raise StoreError(
                f"{self.address}: {len(there)} spans are deleted for every reader, but their rows are still there "
                f"({type(error).__name__}); expected the right ALTER DELETE: delete the same ids again."
            ) from error
        return [key for key in keys if key in there]

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
            field = "substring(Field, 1, 32)"
            where += f" AND if(Kind = 'tag', {field} >= {{of_tag:String}}, {field} <= {{other:String}})"
        client.command(f"DELETE FROM `{table}`{on_cluster} WHERE {where}", parameters=values)

    # Reading

    def _keys(self, client: Client, query: SpanQuery, after: Position | None, limit: int) -> list[_Key]:
        sql, values = select_keys(replace(query, after=after), self.address.table, limit)
        return [_key(row) for row in self._connection.run(client, sql, values)]

    def _all(self, query: SpanQuery) -> Iterator[_Found]:
        """Yield all spans that *query* selects, without holding them: the keys are one answer that is streamed."""
        sql, values = select_keys(query, self.address.table)
        with self._opened() as client, closing(self._connection.stream(client, sql, values)) as found:
            rows = (key for key, _ in groupby(map(_key, found)))
            while keys := list(islice(rows, _MAX_IDS)):
                yield from self._resolved(client, keys)

    def _resolved(self, client: Client, keys: Sequence[_Key]) -> list[_Found]:
        """Return the spans of the rows that are current, with their fields, in order and each once."""
        found: list[_Found] = []
        # A row that a Collector sent twice is here twice, one after the other.
        waiting = deque(_chunks(key for key, _ in groupby(keys)))
        while waiting:
            some = waiting.popleft()
            try:
                found += self._resolved_some(client, some)
            except AnswerTooLargeError:
                if len(some) == 1:
                    raise
                half = len(some) // 2
                waiting.extendleft((some[half:], some[:half]))
        return found

    def _resolved_some(self, client: Client, keys: Sequence[_Key]) -> Iterator[_Found]:
        details = _Details(self._connection, client, self.address.table, keys)
        spans, rows, fields = details.spans(), details.of_traces(), details.fields()
        done: set[_Ids] = set()
        for key in keys:
            ids = (key.trace_id, key.span_id)
            if ids in done or (ids, key.written) not in spans or details.written.get(ids, "") != key.written:
                continue
            done.add(ids)
            span, in_row = spans[ids, key.written]
            merged: dict[FieldName, Field] = {name: field for name, field in in_row.items() if name[0] == "span"}
            merge_into(merged, rows[key.trace_id])
            merge_into(merged, fields[ids])
            merge_into(merged, fields[key.trace_id, ""])
            yield span, merged

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

    def _opened(self, timeout_millis: int | None = None) -> Any:  # a context manager of the client
        if not self._is_made:
            with self._connection.client(timeout_millis) as client:
                self._make_tables(client)
            self._is_made = True
        return self._connection.client(timeout_millis)

    def _make_tables(self, client: Client) -> None:
        """Make missing tables. If all are there, the right to create is not needed."""
        names = [self.address.table, FIELDS, DELETED]
        there = {
            row[0]
            for row in self._connection.run(
                client,
                "SELECT name FROM system.tables WHERE database = currentDatabase() AND name IN {names:Array(String)}",
                {"names": names},
            )
        }
        for name, statement in zip(names, create_statements(self.address.table, self.address.cluster), strict=True):
            if name not in there:
                client.command(statement)

    def _renew_lock(self) -> None:
        # Another thread of the parent may have held it at the fork.
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """A status line, without user and password."""
        return f"<ClickHouseStore {self.address}>"

    def __str__(self) -> str:
        """As a user names it, without user and password."""
        return f"{self.address}"


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

    def spans(self) -> dict[tuple[_Ids, str], tuple[StoredSpan, Fields]]:
        """Return the spans of the rows by their ids and the version of their writing."""
        spans: dict[tuple[_Ids, str], tuple[StoredSpan, Fields]] = {}
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

    def of_traces(self) -> Mapping[str, Fields]:
        """Return the fields of traces that are in rows of Collectors, by trace id."""
        sql = (
            f"SELECT t.TraceId, t.SpanId, {END}, "
            "mapFilter((name, _) -> startsWith(name, 'trace.') OR name IN {n:Array(String)}, t.SpanAttributes) "
            f"FROM {self._spans} WHERE t.TraceId IN {{t:Array(String)}} AND NOT mapContains(t.SpanAttributes, '{ROW}') "
            f"AND arrayExists(name -> startsWith(name, 'trace.') OR name = '{VERSIONS}', mapKeys(t.SpanAttributes)) "
            f"AND {_WITHIN}"
        )
        # User and session have one attribute for both levels; the version that is named for it tells the level.
        names = [JSON_NAMES, VERSIONS, "user.id", "session.id"]
        fields: dict[str, dict[FieldName, Field]] = defaultdict(dict)
        for trace_id, span_id, end, texts in self._run(sql, {**self._values(TRACE_REACH_NS), "n": names}):
            end_ns = int(end)
            if not self._is_deleted(trace_id, span_id, (end_ns, PLAIN_ATTRIBUTE_WRITER)):
                in_row, _ = read(read_map(texts), (end_ns, PLAIN_ATTRIBUTE_WRITER))
                for name, field in in_row.items():
                    if name[0] == "trace" and not self._is_deleted(trace_id, "", field[1]):
                        merge_into(fields[trace_id], {name: field})
        return fields

    def fields(self, kinds: Sequence[str] = ()) -> dict[_Ids, dict[FieldName, Field]]:
        """Return the fields of the spans and, under span id "", of their traces; fill `written`."""
        sql = (
            f"SELECT TraceId, SpanId, Level, Kind, Key, max(Field) FROM `{FIELDS}` "
            "WHERE TraceId IN {t:Array(String)} AND SpanId IN {s:Array(String)} "
            f"{'AND Kind IN {k:Array(String)} ' if kinds else ''}GROUP BY TraceId, SpanId, Level, Kind, Key"
        )
        values = {"t": self._traces, "s": ["", *self._ids], **({"k": list(kinds)} if kinds else {})}
        fields: dict[_Ids, dict[FieldName, Field]] = defaultdict(dict)
        for trace_id, span_id, level, kind, key, text in self._run(sql, values):
            if kind == ROW_KIND:
                self.written[trace_id, span_id] = text[:32]
                continue
            value, version = decode_field(kind, text)
            if not self._is_deleted(trace_id, span_id, version):
                fields[trace_id, span_id][level, kind, key] = value, version
        return fields

    def _is_deleted(self, trace_id: str, span_id: str, version: Version) -> bool:
        if self._tombstones is None:
            sql = (
                f"SELECT TraceId, SpanId, max(Version) FROM `{DELETED}` WHERE TraceId IN {{t:Array(String)}} "
                "GROUP BY TraceId, SpanId"
            )
            self._tombstones = {
                (row[0], row[1]): (int(row[2][:16], 16), int(row[2][16:], 16))
                for row in self._run(sql, {"t": self._traces})
            }
        tombstone = self._tombstones.get((trace_id, span_id))
        return tombstone is not None and version <= tombstone

    def _values(self, reach_ns: int) -> dict[str, Any]:
        return {
            "t": self._traces,
            "s": self._ids,
            "first": self._first - reach_ns,
            "last": self._last + reach_ns,
        }


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
