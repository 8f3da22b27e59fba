"""What the handlers of `/api/v1` share: the ids in a request, the first span of a query, an answer as bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple, final

import msgspec
import orjson

from otel_metadata.client.columns import read_name
from otel_metadata.errors import InvalidSpanRefError
from otel_metadata.model.record import SpanQuery
from otel_metadata.model.span_ref import parse_trace_id
from otel_metadata.model.times import time_text
from otel_metadata.seams import RowStore, SpanReads
from otel_metadata.server.operations import JSON, Answer, Problem
from otel_metadata.store import table

if TYPE_CHECKING:
    from otel_metadata.model.merge import Fields
    from otel_metadata.model.record import StoredSpan
    from otel_metadata.seams import SpanStore
    from otel_metadata.server.operations import Call

MAX_AHEAD_SECONDS: Final = 300
"""How far ahead of the server's clock a version may be that comes from outside."""


@final
class Key(NamedTuple):
    """The name of a span in a request.

    Attributes:
        trace_id: 32 hex digits, or None if the request does not name the trace.
        span_id: 16 hex digits.
    """

    trace_id: str | None
    span_id: str


def encoded(value: object, version: str | None = None) -> Answer:
    """Return an answer as bytes: made on the thread that has read, because a page may have megabytes of text.

    Args:
        value: For JSON.
        version: The entity tag, without quotes.
    """
    headers = {"ETag": f'"{version}"'} if version is not None else {}
    return Answer(msgspec.json.encode(value), media_type=JSON, headers=headers)


def span_key(span_id: str, trace_id: str | None) -> Key:
    """Read the name of a span: 16 hex digits or a `traceparent`, and its trace.

    Raises:
        InvalidSpanRefError: An id has another form.
        Problem: 400, because the two name different traces.
    """
    named, found, backend_ids = read_name(span_id)
    if backend_ids:
        raise InvalidSpanRefError(span_id, "a span id of 16 hex digits, or a traceparent")
    trace = parse_trace_id(trace_id).trace_id_hex if trace_id is not None else named
    if named is not None and trace != named:
        raise Problem(400, f"trace_id is {trace}, but the traceparent names {named}; expected one trace.")
    return Key(trace, found)


def reads_of(store: SpanStore) -> SpanReads:
    """Return the reads of a store that look at much in a short time.

    Raises:
        Problem: 501, because the store does not have them.
    """
    if not isinstance(store, SpanReads):
        raise Problem(501, f"{store} cannot answer this; expected a store in SQLite or ClickHouse.")
    return store


def width_of_bars(start_ns: int, end_ns: int, bars: int) -> int:
    """Return the length of each of *bars* equal parts of a window, in nanoseconds.

    Raises:
        Problem: 400, because the window is empty or too long.
    """
    if start_ns >= end_ns:
        raise Problem(
            400,
            f"start_time is {time_text(start_ns)} and end_time {time_text(end_ns)}; expected a start before the end.",
        )
    width_ns = -((start_ns - end_ns) // bars)
    if width_ns >= 1 << 63:
        raise Problem(
            400, "A bar has more than 292 years, which 64 bits of nanoseconds cannot hold; expected more bars."
        )
    return width_ns


def stored(store: SpanStore, query: SpanQuery) -> tuple[StoredSpan, Fields] | None:
    """Return the first span of a query with its fields and their versions; None if there is none.

    Raises:
        StoreError: The store cannot be read.
    """
    row = next(rows_of(store, query), None)
    return table.row_of(row) if row is not None else None


def rows_of(store: SpanStore, query: SpanQuery) -> Iterator[table.Row]:
    """Yield what *query* selects as rows of the export: by column name, JSON columns as values, times as nanoseconds.

    Raises:
        MissingExtraError: The store needs pyarrow for it, which is not installed.
        StoreError: The store cannot be read.
    """
    if not isinstance(store, RowStore):
        for batch in store.export(query):
            yield from (row for row in table.rows(batch) if not isinstance(row, table.RowError))
        return
    for page in store.export_rows(query):
        for row in page:
            yield {
                name: orjson.loads(value) if value is not None and name in table.JSON_COLUMNS else value
                for name, value in zip(table.COLUMNS, row, strict=True)
            }


def refuse_future(call: Call, time_ns: int, pointer: str | None = None) -> None:
    """Refuse a version from the future: no process whose clock is right could replace the value for a long time.

    Raises:
        Problem: 400.
    """
    now_ns = call.service.clock.wall_ns()
    if time_ns > now_ns + MAX_AHEAD_SECONDS * 10**9:
        expected = f"at most {MAX_AHEAD_SECONDS} s after the time of the server, {time_text(now_ns)}"
        title = f"time_ns is {time_ns}; expected {expected}: the clock of the sender may be wrong."
        raise Problem(400, title, pointer=pointer, expected=expected)
