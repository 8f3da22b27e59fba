"""Stored spans as rows of the export table, read from SQLite a page at a time.

A page is one short read. No transaction is held while its rows are used, so a slow reader does not make the log file
grow. Pages follow the order of `Position`: each span comes once, even if it is written again meanwhile, and spans that
start after the first page was read do not come.

SQLite joins the fields of each span into one text, which saves a Python object for each cell. A driver that reads
SQLite into Arrow (ADBC) would save the rest, but it brings its own SQLite library, and two of them in one process break
each other's locks on a file. https://www.sqlite.org/howtocorrupt.html, section 2.2.1.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

import orjson

from otel_metadata.model.instrumented import EVENTS, INPUT, MARKED, OUTPUT, kind_of, value_of
from otel_metadata.model.merge import FieldName, Json, Version, json_text
from otel_metadata.model.record import ROUTES, Position, SpanQuery, project_of
from otel_metadata.store import table
from otel_metadata.store.history import routes_text
from otel_metadata.store.sqlite import query as sqlite_query
from otel_metadata.store.sqlite.history import NAME_OF
from otel_metadata.store.table import SHOWN_IN, text_and_mime_type

if TYPE_CHECKING:
    from otel_metadata.model.record import StoredSpan

_PAGE_ROWS: Final = 2_000
_PAGE_CHARS: Final = 16_000_000
"""A page ends with the row that reaches either limit; prompts are long."""

_HISTORY_CHARS: Final = 16_000_000
"""A row has at most so much history of its span, and of its trace, the newest: an import reads rows of 64 MB."""

_MAX_AUTHORS: Final = 10_000
"""How many names, and how many texts of names, are remembered."""

_Row: TypeAlias = "tuple[Any, ...]"

_Superseded: TypeAlias = "tuple[str, str]"
"""The writer of a superseded value, and an entry of `table.HISTORY`."""

_NO_HISTORY: Final[tuple[_Superseded, ...]] = ()

_Read: TypeAlias = "Callable[[Callable[[sqlite3.Connection], Any]], Any]"

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

_ROUTE_NAME: Final = " ".join(f"WHEN {number} THEN '\"{name}\"'" for number, name in enumerate(ROUTES))
_HISTORY: Final = f"""
SELECT f.writer, {_VALUE} CASE f.route {_ROUTE_NAME} ELSE 'null' END || ']' FROM history AS f
WHERE f.trace_id = ? AND f.span_id = ? ORDER BY f.ns DESC, f.writer DESC, f.value DESC
"""

# Of these kinds a row is made without a `SpanRecord`, which is quicker: each field has a place of its own. Fields of
# other kinds cover a column or are ordered by version, and are left to `model.record.assemble`.
_SINGLE: Final = frozenset({"input", "output"})
_OF_INSTRUMENTOR: Final = (("attributes.input.value", INPUT), ("attributes.output.value", OUTPUT))
_PLAIN: Final = {name: column for name, column in SHOWN_IN.items() if name[1] in {"metadata", *_SINGLE}}


@final
class _Authors:
    """The texts of `table.AUTHORS`. Most spans have the writers of another one, so few are looked up."""

    def __init__(self, read: _Read) -> None:
        self._read = read
        self._names: dict[str, str | None] = {}
        self._texts: dict[frozenset[str], str | None] = {}

    def text(self, writers: frozenset[str]) -> str | None:
        """Return the text for a row with these writers."""
        try:
            return self._texts[writers]
        except KeyError:
            names = {writer: name for writer in sorted(writers) if (name := self._name(writer)) is not None}
            if len(self._texts) >= _MAX_AUTHORS:
                self._texts.clear()
            self._texts[writers] = text = orjson.dumps(names).decode() if names else None
            return text

    def _name(self, writer: str) -> str | None:
        if writer not in self._names:
            if len(self._names) >= _MAX_AUTHORS:
                self._names.clear()
            found = self._read(lambda connection: connection.execute(NAME_OF, (writer,)).fetchone())
            self._names[writer] = found[0] if found is not None else None
        return self._names[writer]


def pages(
    read: _Read, query: SpanQuery, stored_span: Callable[[_Row], StoredSpan], *, has_history: bool
) -> Iterator[list[_Row]]:
    """Yield what *query* selects, newest start first, as rows in the order of `table.COLUMNS`.

    Args:
        read: Calls a function with a connection and returns its result.
        query: The spans to export.
        stored_span: Makes a span of a row of `sqlite_query.COLUMNS`.
        has_history: Whether to export superseded values.

    Raises:
        StoreError: The store cannot be read.
    """
    authors = _Authors(read)
    after, left = query.after, query.limit
    while left is None or left > 0:
        count = _PAGE_ROWS if left is None else min(left, _PAGE_ROWS)
        page = replace(query, after=after, limit=count)
        rows, histories = read(lambda connection: _page(connection, page, has_history))  # noqa: B023 # called at once
        if not rows:
            return
        yield [
            _arrow_row(row, histories.get(number, _NO_HISTORY), authors, stored_span) for number, row in enumerate(rows)
        ]
        trace_id, span_id, start_ns = rows[-1][0], rows[-1][1], rows[-1][6]
        after = Position(start_ns, trace_id, span_id)
        left = None if left is None else left - len(rows)


def _page(
    connection: sqlite3.Connection, page: SpanQuery, has_history: bool
) -> tuple[list[_Row], dict[int, list[_Superseded]]]:
    """Return the rows of a page, and the superseded values of each row that has some, by its number.

    Those of a trace are with the first of its spans in the page: a trace may have ten thousand.
    """
    selection = sqlite_query.select(page, _COLUMNS, count=sqlite_query.counting(connection))
    # A trace's fields are far from its spans in the file, and a reader's usual cache is too small for both.
    connection.execute("PRAGMA cache_size = -32000")
    has_history = has_history and connection.execute("SELECT 1 FROM history LIMIT 1").fetchone() is not None
    rows: list[_Row] = []
    histories: dict[int, list[_Superseded]] = {}
    traces: set[str] = set()
    chars = 0
    for row in connection.execute(selection.sql, selection.values):
        # Each history is read after the fields, so a value that is superseded in between is in both, and is not lost.
        if has_history and (history := _history(connection, row[0], row[1], traces)):
            histories[len(rows)] = history
            chars += sum(len(text) for _, text in history)
        rows.append(row)
        chars += len(row[10]) + len(row[11]) + len(row[-1] or "")
        if chars > _PAGE_CHARS:
            break
    return rows, histories


def _history(connection: sqlite3.Connection, trace_id: str, span_id: str, traces: set[str]) -> list[_Superseded]:
    """Return the superseded values of a span and, unless it is in *traces*, of its trace."""
    found: list[_Superseded] = []
    for place in (span_id,) if trace_id in traces else (span_id, ""):
        chars = 0
        for writer, text in connection.execute(_HISTORY, (trace_id, place)):
            chars += len(text)
            if chars > _HISTORY_CHARS:
                break
            found.append((writer, text))
    traces.add(trace_id)
    return found


def _arrow_row(
    row: _Row, history: Sequence[_Superseded], authors: _Authors, stored_span: Callable[[_Row], StoredSpan]
) -> _Row:
    """Return the same as `table.arrow_row` of the span and its fields."""
    (
        trace_id, span_id, parent_id, trace_state, name, kind, start_ns, end_ns, status_code, status_message,
        attributes, events, links, resource, scope_name, scope_version, gathered,
    ) = row  # fmt: skip
    entries = orjson.loads(f"[{gathered}]") if gathered is not None else []
    routes = routes_text(tuple([entry.pop() for entry in entries]))
    writers = [entry[4] for entry in entries]
    if history:
        writers += [writer for writer, _ in history]
    origin = (
        routes,
        authors.text(frozenset(writers)),
        f"[{','.join([text for _, text in history])}]" if history else None,
    )
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


@lru_cache(maxsize=256)  # the spans of a process have the same resource
def _project(resource: str) -> str | None:
    return project_of(orjson.loads(resource))
