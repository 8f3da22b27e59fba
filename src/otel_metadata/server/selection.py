"""What the handlers of `/api/v1` share: which spans a caller may see, the query of a page, cursors, versions."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple, final

import msgspec
import orjson

from otel_metadata.client.columns import read_name
from otel_metadata.client.queries import goes_on, page_query
from otel_metadata.errors import InvalidSpanRefError
from otel_metadata.model.merge import latest_version
from otel_metadata.model.record import Position, SpanQuery
from otel_metadata.model.span_ref import parse_trace_id
from otel_metadata.model.times import time_text
from otel_metadata.seams import RowStore, SpanReads
from otel_metadata.server import api_types
from otel_metadata.server.operations import JSON, Answer, Problem
from otel_metadata.server.projects import visible_project
from otel_metadata.store import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_metadata.model.merge import Fields, Version
    from otel_metadata.model.record import SpanRecord, StoredSpan, TraceRecord
    from otel_metadata.seams import SpanStore
    from otel_metadata.server.operations import Call

WRONG_PARAMETER: Final = "A parameter is wrong: the answer says which, and what was expected."
"""What 400 means for a read, in the OpenAPI document."""

WRONG_BODY: Final = "The body or a parameter is wrong: the answer says where, and what was expected."
"""What 400 means for a change, in the OpenAPI document."""

NOTHING_SET: Final = "0"
"""The version of a span on which nothing was set."""

MAX_AHEAD_SECONDS: Final = 300
"""How far ahead of the server's clock a version may be that comes from outside."""

_WAIT_SECONDS: Final = 10
_LOOK_SECONDS: Final = 0.02

_INT64: Final = range(-(1 << 63), 1 << 63)


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
        raise Problem(501, f"{store} cannot answer this yet; expected an SQLite store.")
    return store


def query_of_page(call: Call, given: api_types.TraceList) -> SpanQuery:
    """Return the query of a page and of one more span, which tells whether another page follows.

    Raises:
        ConfigurationError: A time or the cursor is invalid.
        FilterError: The filter cannot be understood.
        InvalidSpanRefError: The trace id has another form.
        Problem: 400 for a cursor of another query, 403 for another project.
    """
    cursor = given.cursor
    if cursor is not None and given.after is not None:
        raise Problem(400, "Both cursor and after are given; expected one of them.")
    if cursor is not None:
        cursor, _, mark = cursor.rpartition(".")
        if mark != _mark(given):
            raise Problem(
                400,
                "cursor is of another query; expected the `next_cursor` of a page that was asked with the same filter, "
                "project, times and trace, or no cursor.",
                expected="the next_cursor of the page before",
            )
    query = page_query(
        trace_id=given.trace_id,
        project=visible_project(call.caller, given.project),
        start_time=given.start_time,
        end_time=given.end_time,
        filter=given.filter,
        limit=given.limit,
        cursor=cursor,
        now_ns=call.service.clock.wall_ns(),
    )
    if given.after is not None:
        query = replace(query, after=_position(given.after))
    return query


def continued(
    given: api_types.TraceList,
    query: SpanQuery,
    found: Sequence[SpanRecord | TraceRecord],
    searched_to: Position | None,
) -> tuple[str | None, api_types.Place | None]:
    """Return `next_cursor` and `searched_to` of a page."""
    cursor, _ = goes_on(query, given.limit, found, searched_to)
    return (
        f"{cursor}.{_mark(given)}" if cursor is not None else None,
        place(searched_to) if searched_to is not None else None,
    )


def place(position: Position) -> api_types.Place:
    """Return a position as JSON has it."""
    return api_types.Place(time_text(position.start_ns), f"{position.start_ns}", position.trace_id, position.span_id)


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


def version_of(fields: Fields) -> str:
    """Return the entity tag, without quotes, of a span or trace with these fields: the greatest of their versions."""
    return version_text(latest_version(fields)) if fields else NOTHING_SET


def version_text(version: Version) -> str:
    """Return a version as text."""
    ns, writer = version
    return f"{ns}-{writer:016x}"


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


@final
class Slots:
    """A bounded number of long calls at once. Any thread."""

    def __init__(self, count: int, what: str) -> None:
        """Bound *what*, which people know by that name."""
        self._count = count
        self._what = what
        self._lock = threading.RLock()  # a finalizer may give a place back meanwhile
        self._taken = 0

    def take(self) -> Place:
        """Take a place.

        Raises:
            Problem: 503, because all are taken.
        """
        with self._lock:
            if self._taken >= self._count:
                title = f"{self._count} of at most {self._count} {self._what} run already; expected a later try."
                raise Problem(503, title, headers={"Retry-After": "5"})
            self._taken += 1
        return Place(self._give_back)

    async def wait(self) -> Place:
        """Take a place as soon as one is free, within some seconds.

        For calls whose body has not been read: a client that is refused while it sends may not see the answer.

        Raises:
            Problem: 503, because all were taken all the time.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + _WAIT_SECONDS
        while True:
            try:
                return self.take()
            except Problem:
                if loop.time() >= end:
                    raise
            await asyncio.sleep(_LOOK_SECONDS)

    def _give_back(self) -> None:
        with self._lock:
            self._taken -= 1


@final
class Place:
    """One of `Slots`; dropping it gives it back, so that a stream which nobody reads to its end holds none."""

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._give_back: Callable[[], None] | None = give_back

    def give_back(self) -> None:
        """Give it back. A second call does nothing."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()

    __del__ = give_back


def _mark(given: api_types.TraceList) -> str:
    """Return a short digest of what a cursor belongs to."""
    asked = [type(given).__name__, given.filter, given.project, given.start_time, given.end_time, given.trace_id]
    if isinstance(given, api_types.SpanList):
        asked += [given.span_id, given.at]
    return hashlib.blake2s(orjson.dumps(asked), digest_size=6).hexdigest()


def _position(text: str) -> Position:
    parts = text.split(",")
    try:
        start_ns, trace_id, span_id = parts
        if int(start_ns) not in _INT64:
            raise ValueError(start_ns)
        return Position(int(start_ns), parse_trace_id(trace_id).trace_id_hex, span_key(span_id, None).span_id)
    except ValueError:
        expected = "<start_time_ns>,<trace_id>,<span_id>"
        raise Problem(400, f"after is {text[:100]!r}; expected {expected}.", expected=expected) from None
