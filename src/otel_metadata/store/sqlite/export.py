"""Stored spans as batches of the export table, read from SQLite a page at a time.

A page is one short read. No transaction is held while its batch is used, so a slow reader does not make the log file
grow. Pages follow the order of `Position`: each span comes once, even if it is written again meanwhile, and spans that
start after the first page was read do not come.

SQLite joins the fields of each span into one text, which saves a Python object for each cell. A driver that reads
SQLite into Arrow (ADBC) would save the rest, but it brings its own SQLite library, and two of them in one process break
each other's locks on a file. https://www.sqlite.org/howtocorrupt.html, section 2.2.1.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, final

import orjson

from otel_metadata.model.instrumented import EVENTS, INPUT, MARKED, OUTPUT, kind_of, value_of
from otel_metadata.model.merge import FieldName, Json, Version, json_text
from otel_metadata.model.record import ROUTES, Position, SpanQuery, project_of
from otel_metadata.store import table
from otel_metadata.store.sqlite import query as sqlite_query
from otel_metadata.store.table import SHOWN_IN, text_and_mime_type

if TYPE_CHECKING:
    import pyarrow as pa

    from otel_metadata.model.record import StoredSpan

__all__ = ["batches"]

_PAGE_ROWS: Final = 2_000
_PAGE_CHARS: Final = 16_000_000
"""A page ends with the row that reaches either limit; prompts are long."""

_HISTORY_CHARS: Final = 16_000_000
"""A row has at most so much history, the newest: an import reads rows of 64 MB."""

_Row: TypeAlias = "tuple[Any, ...]"

_Read: TypeAlias = "Callable[[Callable[[sqlite3.Connection], _Page]], _Page]"


@final
class _Page(NamedTuple):
    """What one read finds.

    Attributes:
        rows: Spans, each with the text of its fields at the end.
        histories: Of each span (writer, JSON text) of the superseded values; those of the trace are with the first span
            of the trace.
        names: The names of the writers of all of them.
    """

    rows: list[_Row]
    histories: list[list[tuple[str, str]]]
    names: dict[str, str]


# Values are JSON text already, and numbers are JSON as they are. Levels, kinds and writers need no escaping.
_VALUE: Final = (
    """'["' || f.level || '","' || f.kind || '",' || json_quote(f.key) """
    """|| ',' || f.ns || ',"' || f.writer || '",' || f.value || ',' || """
)
_COLUMNS: Final = (
    ", ".join(f"s.{column}" for column in sqlite_query.COLUMNS.split(", "))
    + f", (SELECT group_concat({_VALUE} f.route || ']') FROM fields AS f"
    " WHERE f.trace_id = s.trace_id AND f.span_id IN (s.span_id, ''))"
)

_ROUTE_NAMES: Final = (*ROUTES, None)
_ROUTE_NAME: Final = " ".join(f"WHEN {number} THEN '\"{name}\"'" for number, name in enumerate(ROUTES))
_HISTORY: Final = f"""
SELECT f.writer, {_VALUE} CASE f.route {_ROUTE_NAME} ELSE 'null' END || ']' FROM history AS f
WHERE f.trace_id = ? AND f.span_id = ? ORDER BY f.ns DESC, f.writer DESC, f.value DESC
"""
_NAMES: Final = """
SELECT writers.writer, name FROM json_each(?) AS wanted CROSS JOIN writers ON writers.writer = wanted.value
"""

# Of these kinds a row is made without a `SpanRecord`, which is quicker: each field has a place of its own. Fields of
# other kinds cover a column or are ordered by version, and are left to `model.record.assemble`.
_SINGLE: Final = frozenset({"input", "output"})
_OF_INSTRUMENTOR: Final = (("attributes.input.value", INPUT), ("attributes.output.value", OUTPUT))
_PLAIN: Final = {name: column for name, column in SHOWN_IN.items() if name[1] in {"metadata", *_SINGLE}}


def batches(
    read: _Read, query: SpanQuery, stored_span: Callable[[_Row], StoredSpan], *, has_history: bool
) -> Iterator[pa.RecordBatch]:
    """Yield what *query* selects, newest start first.

    Args:
        read: Calls a function with a connection and returns its result.
        query: The spans to export.
        stored_span: Makes a span of a row of `sqlite_query.COLUMNS`.
        has_history: Whether to export superseded values.

    Raises:
        MissingExtraError: pyarrow is not installed.
        StoreError: The store cannot be read.
    """
    table.schema()  # raises before anything is read if a package is missing
    after, left = query.after, query.limit
    while left is None or left > 0:
        count = _PAGE_ROWS if left is None else min(left, _PAGE_ROWS)
        page = replace(query, after=after, limit=count)
        rows, histories, names = read(lambda connection: _page(connection, page, has_history))  # noqa: B023 # called at once
        if not rows:
            return
        yield table.batch(
            _arrow_row(row, _origin(row[-1], history, names), stored_span)
            for row, history in zip(rows, histories, strict=True)
        )
        trace_id, span_id, start_ns = rows[-1][0], rows[-1][1], rows[-1][6]
        after = Position(start_ns, trace_id, span_id)
        left = None if left is None else left - len(rows)


def _page(connection: sqlite3.Connection, page: SpanQuery, has_history: bool) -> _Page:
    selection = sqlite_query.select(page, _COLUMNS, count=sqlite_query.counting(connection))
    # A trace's fields are far from its spans in the file, and SQLite's default cache of 2 MB is too small for both.
    connection.execute("PRAGMA cache_size = -32000")
    # Each history is read after the fields, so a value that is superseded in between is in both, and is not lost.
    has_history = has_history and connection.execute("SELECT 1 FROM history LIMIT 1").fetchone() is not None
    rows, histories, chars = [], [], 0
    writers: set[str] = set()
    traces: set[str] = set()
    for *span, gathered in connection.execute(selection.sql, selection.values):
        entries = orjson.loads(f"[{gathered}]") if gathered is not None else []
        history = _history(connection, span[0], span[1], traces) if has_history else []
        rows.append((*span, entries))
        histories.append(history)
        writers.update(entry[4] for entry in entries)
        writers.update(writer for writer, _ in history)
        chars += len(span[10]) + len(span[11]) + len(gathered or "") + sum(len(text) for _, text in history)
        if chars > _PAGE_CHARS:
            break
    names = dict(connection.execute(_NAMES, (orjson.dumps(list(writers)).decode(),)))
    return _Page(rows, histories, names)


def _history(connection: sqlite3.Connection, trace_id: str, span_id: str, traces: set[str]) -> list[tuple[str, str]]:
    """Return (writer, JSON text) of the superseded values of a span and, unless it is in *traces*, of its trace."""
    found: list[tuple[str, str]] = []
    chars = 0
    for place in (span_id,) if trace_id in traces else (span_id, ""):
        for writer, text in connection.execute(_HISTORY, (trace_id, place)):
            chars += len(text)
            if chars > _HISTORY_CHARS:
                break
            found.append((writer, text))
    traces.add(trace_id)
    return found


def _origin(entries: list[list[Any]], history: list[tuple[str, str]], names: Mapping[str, str]) -> table.Origin:
    """Return how the values of a row came about, and take the routes out of *entries*."""
    routes = tuple([entry.pop() for entry in entries])
    writers = (*[entry[4] for entry in entries], *[writer for writer, _ in history])
    known = {writer: names[writer] for writer in writers if writer in names} if names else None
    return (
        _routes(routes),
        orjson.dumps(known).decode() if known else None,
        f"[{','.join([text for _, text in history])}]" if history else None,
    )


def _arrow_row(row: _Row, origin: table.Origin, stored_span: Callable[[_Row], StoredSpan]) -> _Row:
    """Return the same as `table.arrow_row` of the span and its fields."""
    (
        trace_id, span_id, parent_id, trace_state, name, kind, start_ns, end_ns, status_code, status_message,
        attributes, events, links, resource, scope_name, scope_version, entries,
    ) = row  # fmt: skip
    for entry in entries:
        if (entry[0], entry[1]) not in _PLAIN:
            return table.arrow_row(stored_span(row[:-1]), _fields(entries), origin)
    shown: dict[str, Any] = {}
    for entry in entries:
        level, field_kind, key, _, _, value = entry
        column = _PLAIN[level, field_kind]
        if field_kind in _SINGLE:
            shown[column], shown[column.removesuffix("value") + "mime_type"] = text_and_mime_type(value)
            if value is None:
                continue  # a null is not shown, so its version keeps the value
        else:
            shown.setdefault(column, {})[key] = value
        del entry[5]
    # Most spans have no attributes of an instrumentor, and a search is quicker than parsing.
    messages = orjson.loads(events) if EVENTS in events else ()
    parsed = orjson.loads(attributes) if messages or MARKED.search(attributes) is not None else None
    if parsed is not None:
        for column, spelling in _OF_INSTRUMENTOR:
            if column not in shown:
                shown[column], shown[column.removesuffix("value") + "mime_type"] = text_and_mime_type(
                    value_of(spelling, parsed, parsed, messages)
                )
    get = shown.get
    metadata, trace_metadata = get("attributes.metadata"), get("trace.metadata")
    return (
        trace_id, span_id, trace_state or None, parent_id, name, kind,
        kind_of(parsed) if parsed is not None else None, start_ns, end_ns, (end_ns - start_ns) / 1e6,
        status_code, status_message, _project(resource), None, None,
        get("attributes.input.value"), get("attributes.input.mime_type"),
        get("attributes.output.value"), get("attributes.output.mime_type"),
        json_text(metadata) if metadata else None, _something(attributes), None, None, None,
        None, get("trace.input.value"), get("trace.input.mime_type"),
        get("trace.output.value"), get("trace.output.mime_type"),
        json_text(trace_metadata) if trace_metadata else None, None, None, None,
        _something(events), _something(links), _something(resource), scope_name, scope_version,
        None, orjson.dumps(entries).decode() if entries else None, *origin,
    )  # fmt: skip


def _fields(entries: list[list[Any]]) -> dict[FieldName, tuple[Json, Version]]:
    return {(level, kind, key): (value, (ns, int(writer, 16))) for level, kind, key, ns, writer, value in entries}


def _something(text: str) -> str | None:
    return None if text in {"{}", "[]"} else text


@lru_cache(maxsize=1024)  # most spans have as many fields as another one, which came by the same routes
def _routes(numbers: tuple[int, ...]) -> str | None:
    names = [_ROUTE_NAMES[number] for number in numbers]
    return orjson.dumps(names).decode() if any(names) else None


@lru_cache(maxsize=256)  # the spans of a process have the same resource
def _project(resource: str) -> str | None:
    return project_of(orjson.loads(resource))
