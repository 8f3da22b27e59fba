"""The store of a server of ours, over its REST API: `Client("serve://host:4318")`.

A span is read and written as a line of an export (`store.table`), and an update as one of a batch, so values, versions,
routes and authors are the same on both sides. A query is sent as text (`store.filter.text`). A search that the server
ends early is continued until the caller's time is over.

Each thread has a connection of its own while it waits for an answer. A request may be sent again: writes merge by
version, and a deletion has one.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, TypeAlias, TypeVar, final
from urllib.parse import urlencode

import orjson

from otel_metadata.arguments import checked
from otel_metadata.backends.serve.patches import BATCH, SERVER, body_of, outcomes_of, update_of
from otel_metadata.dialects.canonical import names_of
from otel_metadata.errors import StoreAccessError, StoreError, StoreUnsupportedError
from otel_metadata.exporters.rest import Budget, RestAnswer, RestClient, path_segment
from otel_metadata.model.evaluation import Evaluation
from otel_metadata.model.merge import json_text
from otel_metadata.model.outcome import Delivered, Outcome, Pause, Retry
from otel_metadata.model.record import (
    Bar,
    Found,
    FoundTraces,
    Histogram,
    OutlineSpan,
    Position,
    Retained,
    SpanCount,
    StoredKey,
    TraceRecord,
    ValueRecord,
    assemble,
)
from otel_metadata.model.times import nanoseconds, time_ns, time_text
from otel_metadata.reporting import after_fork_in_child
from otel_metadata.seams import SystemClock, bounded_millis
from otel_metadata.store import table
from otel_metadata.store.filter.text import text_of
from otel_metadata.store.rows import row_of

if TYPE_CHECKING:
    import pyarrow as pa
    from opentelemetry.sdk.trace import ReadableSpan

    from otel_metadata.model.merge import FieldName, Fields, Json, Level, Version
    from otel_metadata.model.patch import Patch
    from otel_metadata.model.record import NamedKind, Route, SpanQuery, SpanRecord, StoredSpan
    from otel_metadata.seams import Clock

_T = TypeVar("_T")
_Json: TypeAlias = "dict[str, Any]"

_TIMEOUT_MILLIS: Final = 30_000
"""Time limit of one request, and of waiting for a server that asks to try later."""

_MIN_WAIT_MILLIS: Final = 50
"""The shortest wait before a request is sent again."""

_SEARCH_MILLIS: Final = 10_000
"""The longest search that the server makes in one request."""

_MAX_ANSWER_BYTES: Final = 64 << 20
_PAGE_ROWS: Final = 1_000
_MAX_COUNTED: Final = 1_000_000

_REQUEST_BYTES: Final = 2 << 20
_REQUEST_ROWS: Final = 2_000
_KEYS: Final = 5_000

_LINES: Final = {"content-type": "application/x-ndjson"}
_SPAN_ID: Final = re.compile("[0-9a-f]{16}")
_TRACE_ID: Final = re.compile("(?!0{32})[0-9a-f]{32}")
_NO_SPAN: Final = f"{0:016x}"

_FIRST: Final = nanoseconds("1678-01-01") or 0
_LAST: Final = nanoseconds("2261-12-31T23:59:59.999999999Z") or 0
"""Times that the API can name."""


@final
class _Page(NamedTuple):
    """Rows of a search.

    Attributes:
        rows: Newest first.
        searched_to: Where the search ended before its end; None if it did not.
    """

    rows: list[Any]
    searched_to: Position | None


@final
class ServeStore:
    """The store of a server. Any thread; see `SpanStore` and `SpanReads`.

    A write of more than a few megabytes is several requests, and may have written some of them when it raises: call it
    again. Reads wait at most 30 seconds for an answer, and so does a write for a server that asks to try later.
    """

    @checked
    def __init__(self, url: str, *, headers: Mapping[str, str] | None = None, clock: Clock | None = None) -> None:
        """Connect later.

        Args:
            url: The HTTP address of the server, without `/api`.
            headers: Headers of every request, the token among them.
            clock: Time; None for the system's.

        Raises:
            ConfigurationError: The URL or a header cannot be used.
        """
        self._new_client = partial(RestClient, url, headers=headers, max_body_bytes=_MAX_ANSWER_BYTES)
        self._clock = clock or SystemClock()
        client = self._new_client()
        self._url = client.shown_url.replace("http", "serve", 1)  # as users write it; https becomes serves
        self._idle = [client]
        self._begin()
        after_fork_in_child(self._begin)

    def _begin(self) -> None:
        # The threads that have these clients do not exist in a forked child. One of them may have held the event's
        # lock; lists need none.
        self._busy: list[RestClient] = []
        self._closing = threading.Event()

    def __repr__(self) -> str:
        """The address, without what may be secret."""
        return f"<ServeStore {self._url}>"

    def __str__(self) -> str:
        """The address, for messages."""
        return self._url

    # Writing

    def write(self, spans: Iterable[ReadableSpan]) -> None:
        """Store ended spans with their fields.

        Raises:
            StoreError: The server does not take them.
        """
        self.write_rows(map(row_of, spans))

    def write_rows(self, rows: Iterable[tuple[StoredSpan, Fields]], *, route: Route | None = None) -> None:
        """Store spans that are rows already, with their fields; see `SpanStore.write_rows`.

        Raises:
            StoreError: The server does not take them.
        """
        for lines in _in_parts(_line(span, fields, route) for span, fields in rows):
            answer = self._call("POST", "/api/v1/import", b"".join(lines), headers=_LINES)
            if self._read(answer, lambda body: (body["spans_imported"], body["spans_failed"])) != (len(lines), 0):
                raise StoreError(f"{self}: the server could not read every span; is it of another version?")

    def patch(self, patches: Iterable[Patch], *, timeout_millis: int | None = None) -> None:
        """Merge fields, whether or not their span is there yet.

        Raises:
            StoreError: The server does not take them.
        """
        rows = ((one.target.trace_id_hex, one.target.span_id_hex, one.fields) for one in patches)
        millis = bounded_millis(timeout_millis, _TIMEOUT_MILLIS)
        self._update(rows, "late", Budget(millis, self._clock) if timeout_millis is not None else None)

    def patch_rows(self, rows: Iterable[tuple[str, str, Fields]], *, route: Route = "late") -> None:
        """Merge fields of spans, each (trace id, span id, fields); see `SpanStore.patch_rows`.

        Raises:
            StoreError: The server does not take them.
        """
        self._update(rows, route, None)

    def _update(self, rows: Iterable[tuple[str, str, Fields]], route: Route, budget: Budget | None) -> None:
        sent: list[Fields] = []

        def updates() -> Iterator[bytes]:
            for trace_id, span_id, fields in rows:
                if not fields:
                    continue
                sent.append(fields)
                yield orjson.dumps(update_of(trace_id, "" if span_id == _NO_SPAN else span_id, fields))

        for part in _in_parts(updates()):
            body = body_of([orjson.Fragment(one) for one in part], sent, route)
            answer = self._call("POST", BATCH, body, budget=budget)
            sent.clear()
            self._check(outcomes_of(answer, len(part)))

    def _check(self, outcomes: Iterable[Outcome]) -> None:
        problem = next((one.error.message for one in outcomes if not isinstance(one, Delivered)), None)
        if problem is not None:
            raise StoreError(f"{self}: {problem}.")

    def delete(self, keys: Collection[tuple[str, str]], version: Version) -> list[tuple[str, str]]:
        """Delete spans with everything set on them; return those that were there.

        Raises:
            StoreError: The server does not delete them.
        """
        named, deleted = list(dict.fromkeys(keys)), set[tuple[str, str]]()
        for start in range(0, len(named), _KEYS):
            body = {
                "spans": [
                    {"trace_id": trace_id, "span_id": span_id} for trace_id, span_id in named[start : start + _KEYS]
                ],
                "time_ns": f"{version[0]}",
                "writer": f"{version[1]:016x}",
            }
            answer = self._call("DELETE", "/api/v1/spans", body)
            deleted |= self._read(answer, lambda found: {(one["trace_id"], one["span_id"]) for one in found["deleted"]})
        return [key for key in named if key in deleted]

    def retain(self, before_ns: int | None, max_bytes: int | None) -> Retained:
        """Delete the oldest spans with everything set on them.

        Raises:
            StoreError: The server does not delete them.
        """
        before = None if before_ns is None else _time(before_ns)
        answer = self._call("POST", "/api/v1/retain", {"before": before, "max_bytes": max_bytes})
        return self._read(
            answer,
            lambda found: Retained(
                int(found["spans_deleted"]), int(found["updates_deleted"]), int(found["stored_bytes"])
            ),
        )

    # Reading

    def query(self, query: SpanQuery) -> list[SpanRecord]:
        """Return the records that *query* selects, newest first.

        Raises:
            StoreError: The server cannot be read.
        """
        return [*self.search(query).records]

    def search(self, query: SpanQuery, *, timeout_millis: float | None = None) -> Found:
        """Return the records that *query* selects, newest first; see `SpanReads`."""
        records, searched_to = self._searched(self._spans(query, timeout_millis), query, _record)
        return Found(records, searched_to)

    def traces(self, query: SpanQuery, *, timeout_millis: float | None = None) -> FoundTraces:
        """Return the traces whose root *query* selects, newest root first."""
        pages = self._pages("/api/v1/traces", "traces", query, timeout_millis)
        traces, searched_to = self._searched(pages, query, _trace)
        return FoundTraces(traces, searched_to)

    def _searched(
        self, pages: Iterable[_Page], query: SpanQuery, read: Callable[[_Json], _T]
    ) -> tuple[tuple[_T, ...], Position | None]:
        found: list[_T] = []
        searched_to = None
        for page in pages:
            found += self._read(page.rows, lambda rows: [read(row) for row in rows])
            searched_to = page.searched_to
        return tuple(found), searched_to if query.limit is None or len(found) < query.limit else None

    def count(self, query: SpanQuery, *, timeout_millis: float | None = None) -> SpanCount:
        """Count the spans that *query* selects, up to its limit, and never beyond a million."""
        if not _may_find(query):
            return SpanCount(0, is_exact=True)
        limit = _MAX_COUNTED if query.limit is None else min(query.limit, _MAX_COUNTED)
        answer = self._get("/api/v1/count", {**_parameters(query), "limit": limit, **_within(timeout_millis)})
        return self._read(answer, lambda found: SpanCount(int(found["counted"]), found["is_exact"] is True))

    def histogram(
        self, query: SpanQuery, *, start_ns: int, width_ns: int, bars: int, timeout_millis: float | None = None
    ) -> Histogram:
        """Count the spans that *query* selects, and the errors among them, in *bars* parts of *width_ns* each."""
        empty = tuple(Bar(start_ns + at * width_ns, 0, 0) for at in range(bars))
        if not _may_find(query):
            return Histogram(empty)
        window = replace(query, start_ns=start_ns, end_ns=start_ns + bars * width_ns)
        answer = self._get("/api/v1/histogram", {**_parameters(window), "bars": bars, **_within(timeout_millis)})
        return self._read(
            answer,
            lambda found: Histogram(
                tuple(Bar(int(bar["start_time_ns"]), int(bar["spans"]), int(bar["errors"])) for bar in found["bars"]),
                _position(found["searched_to"]),
            ),
        )

    def names(self, kind: NamedKind, *, level: Level = "span", prefix: str = "", limit: int = 1_000) -> list[str]:
        """Return names that are in use and begin with *prefix*, in order."""
        answer = self._get("/api/v1/names", {"kind": kind, "level": level, "prefix": prefix, "limit": limit})
        return self._read(answer, lambda found: [str(name) for name in found["names"]])

    def outline(self, trace_id: str) -> list[OutlineSpan]:
        """Return the spans of a trace, oldest start first."""
        if _TRACE_ID.fullmatch(trace_id) is None:
            return []
        answer = self._get(f"/api/v1/traces/{trace_id}", {}, may_miss=True)
        return [] if answer.status == 404 else self._read(answer, lambda found: [*map(_outlined, found["spans"])])

    def history(self, trace_id: str, span_id: str = "", field: FieldName | None = None) -> list[ValueRecord]:
        """Return every value that the fields of a span and of its trace have or had, newest first.

        Raises:
            StoreError: The server cannot be read, or its store keeps no history.
        """
        if _TRACE_ID.fullmatch(trace_id) is None:
            return []
        if span_id:
            path, about = f"/api/v1/spans/{path_segment(span_id)}/history", {"trace_id": trace_id}
        else:
            path, about = f"/api/v1/traces/{trace_id}/history", {}
        answer = self._get(path, {**about, "stored": "false"})
        values = self._read(answer, lambda found: [_value(one) for one in found["values"]])
        return [one for one in values if field is None or (one.level, one.kind, one.key) == field]

    def find(self, span_ids: Collection[str]) -> Mapping[str, StoredKey]:
        """Return where each of *span_ids* is stored: of several traces, that of the newest span.

        Raises:
            StoreError: The server cannot be read.
        """
        named = [one for one in dict.fromkeys(span_ids) if _SPAN_ID.fullmatch(one)]
        keys: dict[str, StoredKey] = {}
        for start in range(0, len(named), _KEYS):
            answer = self._call("POST", "/api/v1/spans:find", {"span_ids": named[start : start + _KEYS]})
            keys |= self._read(
                answer,
                lambda found: {
                    one["span_id"]: StoredKey(one["trace_id"], int(one["start_time_ns"]), int(one["end_time_ns"]))
                    for one in found["spans"]
                },
            )
        return keys

    def export(self, query: SpanQuery) -> Iterator[pa.RecordBatch]:
        """Yield what *query* selects as batches of the table in `store.table`.

        Raises:
            MissingExtraError: pyarrow is not installed.
            StoreError: The server cannot be read.
        """
        table.schema()  # raises before anything is read if the package is missing
        return map(table.batch, self.export_rows(query))

    def export_rows(self, query: SpanQuery) -> Iterator[list[tuple[Any, ...]]]:
        """Yield what `export` yields, each span as a tuple in the order of `table.COLUMNS`.

        Raises:
            StoreError: The server cannot be read.
        """
        if query.at_ns is not None:
            raise StoreUnsupportedError(
                f"{self}: an export has the values of now; expected a query without a time (at_ns)."
            )
        pages = self._spans(query, None)
        return (self._read(page.rows, lambda rows: [_columns(row) for row in rows]) for page in pages if page.rows)

    def close(self) -> None:
        """Close the connections, from any thread; a request that waits for its answer ends. Later calls connect again.

        A server that is asked again has forgotten nothing.
        """
        self._closing.set()
        self._closing = threading.Event()
        for client in [*self._busy, *self._idle]:
            client.close()
        self._idle.clear()

    def _spans(self, query: SpanQuery, timeout_millis: float | None) -> Iterator[_Page]:
        also: _Json = {"exact": "true"}
        if query.trace_id is not None:
            also["trace_id"] = query.trace_id
        if query.span_id is not None:
            also["span_id"] = query.span_id
        if query.at_ns is not None:
            also["at"] = _time(query.at_ns)
        return self._pages("/api/v1/spans", "spans", query, timeout_millis, also)

    def _pages(
        self, path: str, member: str, query: SpanQuery, timeout_millis: float | None, also: Mapping[str, Any] = {}
    ) -> Iterator[_Page]:
        """Yield the pages of a search: until its end, its limit, or the end of the time."""
        if not _may_find(query):
            return
        budget = None if timeout_millis is None else Budget(bounded_millis(timeout_millis, 0), self._clock)
        after, left, size = query.after, query.limit, _PAGE_ROWS
        while left is None or left > 0:
            limit = size if left is None else min(size, left)
            asked = {**_parameters(replace(query, after=after)), **also, "limit": limit}
            asked |= _within(None if budget is None else budget.left_millis)
            answer = self._get(path, asked)
            if answer.is_cut and limit > 1:
                size = limit // 2
                continue
            page = self._read(answer, lambda found: _Page(_list(found[member]), _position(found["searched_to"])))
            yield page
            if page.searched_to is None and len(page.rows) < limit:
                return
            if page.searched_to is not None and budget is not None and not budget.left_millis:
                return
            after = page.searched_to or self._read(page.rows[-1], _position_of_row)
            left = None if left is None else left - len(page.rows)

    # Requests

    def _get(self, path: str, parameters: Mapping[str, Any], *, may_miss: bool = False) -> RestAnswer:
        query = urlencode(parameters)
        return self._call("GET", f"{path}?{query}" if query else path, may_miss=may_miss)

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        budget: Budget | None = None,
        may_miss: bool = False,
    ) -> RestAnswer:
        """Return the answer to a request that succeeds.

        Raises:
            StoreError: It does not, or not in time.
        """
        budget = budget or Budget(_TIMEOUT_MILLIS, self._clock)
        closing = self._closing
        while True:
            with self._client() as client:
                answer = client.call(method, path, body, budget=budget, headers=headers)
            outcome = answer.outcome
            if outcome is None or (may_miss and answer.status == 404):
                return answer
            asked = outcome.after_millis if isinstance(outcome, Retry) else None
            wait_millis = max(asked or 0, _MIN_WAIT_MILLIS)
            if asked is None or wait_millis >= budget.left_millis or self._clock.wait(closing, wait_millis * 1_000_000):
                self._refuse(client, answer, outcome)

    def _refuse(self, client: RestClient, answer: RestAnswer, outcome: Outcome) -> NoReturn:
        message = outcome.error.message if not isinstance(outcome, Delivered) else ""
        title = answer.member("title")
        said = f": {client.without_keys(title)}" if isinstance(title, str) else ""
        if answer.status == 501:
            raise StoreUnsupportedError(f"{self}: the server cannot answer it (HTTP 501){said}")
        if answer.status == 401:
            message = (
                "the server wants a token that it knows; set serve://token@host, or "
                "OTEL_PYTHON_METADATA_SERVE_TOKEN (HTTP 401)"
            )
        elif answer.status == 403:
            message = "the server does not let this call through (HTTP 403)"
        kind = StoreAccessError if isinstance(outcome, Pause) else StoreError
        raise kind(f"{self}: {message}{said}")

    def _read(self, found: object, read: Callable[[Any], _T]) -> _T:
        """Return what *read* makes of the JSON of an answer, or of a part of it.

        Raises:
            StoreError: It is something else.
        """
        body = found.body if isinstance(found, RestAnswer) else found
        try:
            return read(body)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            is_cut = isinstance(found, RestAnswer) and found.is_cut
            what = "more than 64 MB came back for one span" if is_cut else f"the answer does not come from {SERVER}"
            raise StoreError(f"{self}: {what}; check the address.") from None

    @contextmanager
    def _client(self) -> Iterator[RestClient]:
        closing = self._closing
        try:
            client = self._idle.pop()
        except IndexError:
            client = self._new_client()
        self._busy.append(client)
        try:
            yield client
        finally:
            self._busy.remove(client)
            if closing.is_set():
                client.close()
            else:
                self._idle.append(client)


def _in_parts(texts: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yield lists of texts that are small enough for one request each; a larger text comes alone."""
    part: list[bytes] = []
    size = 0
    for text in texts:
        part.append(text)
        size += len(text)
        if size >= _REQUEST_BYTES or len(part) == _REQUEST_ROWS:
            yield part
            part, size = [], 0
    if part:
        yield part


def _line(span: StoredSpan, fields: Fields, route: Route | None) -> bytes:
    """Return a span with its fields as a line of an export."""
    routes: list[Json] = [
        route or ("live" if version[0] <= span.end_ns else "in_flight") for _, version in fields.values()
    ]
    origin = (json_text(routes) if routes else None, json_text({**names_of(fields)}), None)
    return table.json_line(table.arrow_row(span, fields, origin))


def _may_find(query: SpanQuery) -> bool:
    """Whether the ids of a query can be those of a span. The server refuses others."""
    return (query.trace_id is None or _TRACE_ID.fullmatch(query.trace_id) is not None) and (
        query.span_id is None or _SPAN_ID.fullmatch(query.span_id) is not None
    )


def _parameters(query: SpanQuery) -> _Json:
    found: _Json = {"start_time": _time(_FIRST if query.start_ns is None else query.start_ns)}
    if query.trace_id is not None:
        found["trace_id"] = query.trace_id
    if query.end_ns is not None:
        found["end_time"] = _time(query.end_ns)
    if query.project is not None:
        found["project"] = query.project
    if query.condition is not None:
        found["filter"] = text_of(query.condition)
    if query.after is not None:
        found["after"] = ",".join(map(str, query.after))
    return found


def _within(timeout_millis: float | None) -> _Json:
    return {"timeout_millis": _SEARCH_MILLIS if timeout_millis is None else min(timeout_millis, _SEARCH_MILLIS)}


def _time(ns: int) -> str:
    return time_text(min(max(ns, _FIRST), _LAST))


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(value)
    return value


def _position(found: _Json | None) -> Position | None:
    if found is None:
        return None
    return Position(int(found["start_time_ns"]), str(found["trace_id"]), str(found["span_id"]))


def _position_of_row(row: _Json) -> Position:
    if "start_time_ns" in row:  # of a trace
        return Position(int(row["start_time_ns"]), str(row["trace_id"]), str(row["root_span_id"]))
    return Position(time_ns(row["start_time"]), str(row["context.trace_id"]), str(row["context.span_id"]))


def _row(line: _Json) -> _Json:
    """Return a line of an export as a row of `store.table`."""
    return {**line, **{name: time_ns(line[name]) for name in table.TIME_COLUMNS}}


def _record(line: _Json) -> SpanRecord:
    return assemble(*table.row_of(_row(line)))


def _columns(line: _Json) -> tuple[Any, ...]:
    row = _row(line)
    table.row_of(row)  # raises if it is no row
    found = ((name, row.get(name)) for name in table.COLUMNS)
    return tuple(
        json_text(value) if value is not None and name in table.JSON_COLUMNS else value for name, value in found
    )


def _trace(found: _Json) -> TraceRecord:
    return TraceRecord(
        trace_id=str(found["trace_id"]),
        root_span_id=str(found["root_span_id"]),
        name=str(found["name"]),
        project=found["project"],
        start_ns=int(found["start_time_ns"]),
        end_ns=int(found["end_time_ns"]),
        status_code=found["status_code"],
        spans=int(found["spans"]),
        errors=int(found["errors"]),
        late_values=int(found["late_values"]),
        evaluations={name: Evaluation.from_json(name, value) for name, value in found["evaluations"].items()},
    )


def _outlined(found: _Json) -> OutlineSpan:
    return OutlineSpan(
        str(found["span_id"]),
        found["parent_id"],
        str(found["name"]),
        str(found["kind"]),
        int(found["start_time_ns"]),
        int(found["end_time_ns"]),
        found["status_code"],
    )


def _value(found: _Json) -> ValueRecord:
    by = found["superseded_by"]
    return ValueRecord(
        found["level"],
        found["kind"],
        str(found["key"]),
        found["value"],
        int(found["time_ns"]),
        int(found["writer"], 16),
        found["route"],
        found["author"],
        None if by is None else (int(by["time_ns"]), int(by["writer"], 16)),
        found["is_oldest_kept"] is True,
    )
