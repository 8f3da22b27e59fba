"""`GET /api/v1/spans`, one span and its history, and what a page shows above the list: bars, count, names."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from otel_metadata.client.export import json_lines
from otel_metadata.client.history import field_name, of_field, spans_at
from otel_metadata.client.page import record_to_dict
from otel_metadata.client.queries import page_query, query_of, to_ns
from otel_metadata.errors import SpanNotFoundError
from otel_metadata.model.merge import merge_into
from otel_metadata.model.record import Found, SpanQuery, StoredKey, assemble
from otel_metadata.model.span_ref import parse_trace_id
from otel_metadata.model.times import time_text
from otel_metadata.seams import RowStore, SpanReads
from otel_metadata.server import api_types
from otel_metadata.server.cursors import page_end, place, query_of_page
from otel_metadata.server.entity_tags import entity_tag
from otel_metadata.server.operations import Answer, Call, Operation
from otel_metadata.server.projects import visible_project
from otel_metadata.server.selection import (
    Key,
    encoded,
    reads_of,
    span_key,
    stored,
    width_of_bars,
)
from otel_metadata.store import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_metadata.model.merge import Field, FieldName, Json, Level
    from otel_metadata.model.record import NamedKind, SpanRecord, ValueRecord
    from otel_metadata.seams import SpanStore

_DEFAULT_WINDOW_NS: Final = 7 * 86_400 * 1_000_000_000

_NAMED_SPANS: Final = 500
"""Newest spans in which the names of one project are looked for: a store knows the names of all projects together."""

_NAMED_MILLIS: Final = 200


def span_json(record: SpanRecord) -> dict[str, Json]:
    """Return a span as `api_types.Span` has it."""
    span = record.span
    return {**record_to_dict(record), "start_time_ns": f"{span.start_ns}", "end_time_ns": f"{span.end_ns}"}


def values_answer(values: Sequence[ValueRecord]) -> Answer:
    """Return the values of a history as an answer."""
    return encoded(api_types.Values([value_json(value) for value in values]))


def names_in_use(
    store: SpanStore, project: str | None, kind: NamedKind, level: Level, prefix: str, limit: int
) -> list[str]:
    """Return names that are in use: of one project those on its newest spans.

    Raises:
        Problem: 501, because the store cannot answer.
        StoreError: The store cannot be read.
    """
    reads = reads_of(store)
    if project is None:
        return reads.names(kind, level=level, prefix=prefix, limit=limit)
    found = reads.search(SpanQuery(project=project, limit=_NAMED_SPANS), timeout_millis=_NAMED_MILLIS)
    of_trace = level == "trace"
    names: set[str] = set()
    for record in found.records:
        if kind == "metadata":
            names.update(record.trace_metadata if of_trace else record.metadata)
        elif kind == "tag":
            names.update(record.trace_tags if of_trace else record.tags)
        else:
            names.update(record.trace_evaluations if of_trace else record.evaluations)
    return sorted(name for name in names if name.startswith(prefix))[:limit]


async def _list(call: Call) -> Answer:
    given: api_types.SpanList = call.query
    query = replace(query_of_page(call, given), at_ns=to_ns("at", given.at))
    if given.span_id is not None:
        query = replace(query, span_id=span_key(given.span_id, None).span_id)

    def read() -> Answer:
        store = call.service.store
        found = _search(store, query, given.timeout_millis)
        next_cursor, searched_to = page_end(given, query, found.records, found.searched_to)
        records = found.records[: given.limit]
        if given.exact:
            return _page_of_lines(_exact_lines(store, query, records), next_cursor, searched_to)
        return encoded(api_types.SpanPage([span_json(record) for record in records], next_cursor, searched_to))

    return await call.service.read(read)


def _search(store: SpanStore, query: SpanQuery, timeout_millis: float) -> Found:
    if isinstance(store, SpanReads):
        return store.search(query, timeout_millis=timeout_millis)
    return Found(tuple(store.query(query)))


def _exact_lines(store: SpanStore, query: SpanQuery, records: Sequence[SpanRecord]) -> list[bytes]:
    at_ns = query.at_ns
    if at_ns is not None:
        return [_line_at(store, record, at_ns) for record in records]
    if not records:
        return []
    places = [(record.trace_id, record.span_id) for record in records]
    if isinstance(store, RowStore):
        rows = [row for page in store.export_rows(replace(query, limit=len(records))) for row in page]
        if [row[:2] for row in rows] == places:
            return [*map(table.json_line, rows)]
    # Each by its ids, if a span has come since the search and moved the others.
    keys = [SpanQuery(*place, limit=1) for place in places]
    return [line for key in keys for page in json_lines(store, key) for line in page]


def _line_at(store: SpanStore, record: SpanRecord, at_ns: int) -> bytes:
    """Return the line of a span as it was at a time: each value with the version that it had then."""
    fields: dict[FieldName, Field] = {}
    for value in store.history(record.trace_id, record.span_id):
        if value.time_ns <= at_ns:
            merge_into(fields, {(value.level, value.kind, value.key): (value.value, value.version)})
    return table.json_line(table.arrow_row(record.span, fields))


def _page_of_lines(lines: Sequence[bytes], next_cursor: str | None, searched_to: api_types.Place | None) -> Answer:
    return encoded(api_types.SpanPage([msgspec.Raw(line.rstrip()) for line in lines], next_cursor, searched_to))


async def _one(call: Call) -> Answer:
    given: api_types.OneSpan = call.query
    key = span_key(call.path["span_id"], given.trace_id)
    query = SpanQuery(key.trace_id, key.span_id, limit=1, project=visible_project(call.caller))
    return await call.service.read(partial(_read_one, call.service.store, query, given))


def _read_one(store: SpanStore, query: SpanQuery, given: api_types.OneSpan) -> Answer:
    if given.at is not None:
        (record,) = spans_at(store, query, given.at)
        at_ns = to_ns("at", given.at) or 0
        if given.exact:
            return encoded(msgspec.Raw(_line_at(store, record, at_ns).rstrip()))
        return encoded(span_json(record))
    found = stored(store, query)
    if found is None:
        raise SpanNotFoundError(f"{query.span_id}", f"{store}")
    span, fields = found
    version = entity_tag(fields)
    if given.exact:
        lines = _exact_lines(store, query, [assemble(span, fields)])
        return encoded(msgspec.Raw(lines[0].rstrip() if lines else b"null"), version)
    return encoded(span_json(assemble(span, fields)), version)


async def _history(call: Call) -> Answer:
    given: api_types.SpanHistory = call.query
    key = span_key(call.path["span_id"], given.trace_id)
    is_wanted = of_field(given.field)
    project = visible_project(call.caller)

    def read() -> Answer:
        store = call.service.store
        trace_id = key.trace_id
        if given.stored or trace_id is None or project is not None:
            trace_id = _trace_of(store, key, project)
        return values_answer([*filter(is_wanted, store.history(trace_id, key.span_id))])

    return await call.service.read(read)


def _trace_of(store: SpanStore, key: Key, project: str | None) -> str:
    found = store.query(SpanQuery(key.trace_id, key.span_id, limit=1, project=project))
    if not found:
        raise SpanNotFoundError(key.span_id, f"{store}")
    return found[0].trace_id


def value_json(value: ValueRecord) -> api_types.Value:
    """Return a value as `/api/v1` has it."""
    superseded_by = None
    if value.superseded_by is not None:
        ns, writer = value.superseded_by
        superseded_by = api_types.VersionOf(time_text(ns), f"{ns}", f"{writer:016x}")
    return api_types.Value(
        field=field_name(value),
        level=value.level,
        kind=value.kind,
        key=value.key,
        value=value.value,
        time=time_text(value.time_ns),
        time_ns=f"{value.time_ns}",
        writer=f"{value.writer:016x}",
        author=value.author,
        route=value.route,
        superseded_by=superseded_by,
        is_oldest_kept=value.is_oldest_kept,
    )


async def _histogram(call: Call) -> Answer:
    given: api_types.Bars = call.query
    project = visible_project(call.caller, given.project)
    query = query_of(project=project, start_time=given.start_time, end_time=given.end_time, filter=given.filter)
    if given.trace_id is not None:
        query = replace(query, trace_id=parse_trace_id(given.trace_id).trace_id_hex)
    end_ns = query.end_ns if query.end_ns is not None else call.service.clock.wall_ns()
    start_ns = query.start_ns if query.start_ns is not None else end_ns - _DEFAULT_WINDOW_NS
    width_ns = width_of_bars(start_ns, end_ns, given.bars)
    reads = reads_of(call.service.store)
    found = await call.service.read(
        partial(
            reads.histogram,
            query,
            start_ns=start_ns,
            width_ns=width_ns,
            bars=given.bars,
            timeout_millis=given.timeout_millis,
        )
    )
    bars = [api_types.Bar(time_text(bar.start_ns), f"{bar.start_ns}", bar.spans, bar.errors) for bar in found.bars]
    return Answer(
        api_types.Histogram(bars, f"{width_ns}", place(found.searched_to) if found.searched_to is not None else None)
    )


async def _count(call: Call) -> Answer:
    given: api_types.Counting = call.query
    query = page_query(
        trace_id=given.trace_id,
        project=visible_project(call.caller, given.project),
        start_time=given.start_time,
        end_time=given.end_time,
        filter=given.filter,
        limit=given.limit,
        cursor=None,
        now_ns=call.service.clock.wall_ns(),
    )
    reads = reads_of(call.service.store)
    count = partial(reads.count, replace(query, limit=given.limit), timeout_millis=given.timeout_millis)
    found = await call.service.read(count)
    return Answer(api_types.Count(found.counted, found.is_exact))


async def _names(call: Call) -> Answer:
    given: api_types.Naming = call.query
    project = visible_project(call.caller)
    read = partial(names_in_use, call.service.store, project, given.kind, given.level, given.prefix, given.limit)
    return Answer(api_types.Names(await call.service.read(read)))


async def _find(call: Call) -> Answer:
    given: api_types.SpanIds = call.body
    span_ids = [span_key(one, None).span_id for one in given.span_ids]
    project = visible_project(call.caller)

    def read() -> dict[str, StoredKey]:
        store = call.service.store
        if project is None:
            return dict(store.find(span_ids))
        found = (store.query(SpanQuery(span_id=one, limit=1, project=project)) for one in dict.fromkeys(span_ids))
        return {
            one.span_id: StoredKey(one.trace_id, one.span.start_ns, one.span.end_ns) for some in found for one in some
        }

    found = await call.service.read(read)
    spans = [
        api_types.FoundSpan(trace_id, span_id, time_text(start_ns), f"{start_ns}", time_text(end_ns), f"{end_ns}")
        for span_id, (trace_id, start_ns, end_ns) in found.items()
    ]
    return Answer(api_types.FoundSpans(spans))


_NO_SPAN: Final = "No such span, or it is of another project than the token."
_NOT_HERE: Final = "This store cannot answer it."


def _read(
    path: str,
    name: str,
    summary: str,
    handler: Any,
    query: type,
    answer: type | None,
    problems: dict[int, str],
    other_answer: type | None = None,
) -> Operation:
    return Operation(
        "GET",
        f"/api/v1/{path}",
        name,
        summary,
        handler,
        "read",
        tag="reads",
        query=query,
        answer=answer,
        other_answer=other_answer,
        problems={**problems},
    )


OPERATIONS: Final[tuple[Operation, ...]] = (
    _read("spans", "list_spans", "List spans, newest start first.", _list, api_types.SpanList, api_types.SpanPage, {}),
    _read(
        "spans/{span_id}",
        "get_span",
        "Get one span with everything that was set on it; its ETag is the greatest version of its values.",
        _one,
        api_types.OneSpan,
        api_types.Span,
        {404: _NO_SPAN},
        api_types.ExactSpan,
    ),
    _read(
        "spans/{span_id}/history",
        "get_span_history",
        "List every value that the fields of a span and of its trace have or had, newest first.",
        _history,
        api_types.SpanHistory,
        api_types.Values,
        {404: _NO_SPAN},
    ),
    _read(
        "histogram",
        "get_histogram",
        "Count spans, and errors among them, in equal parts of a window.",
        _histogram,
        api_types.Bars,
        api_types.Histogram,
        {501: _NOT_HERE},
    ),
    _read(
        "count",
        "count_spans",
        "Count spans up to a limit.",
        _count,
        api_types.Counting,
        api_types.Count,
        {501: _NOT_HERE},
    ),
    Operation(
        "POST",
        "/api/v1/spans:find",
        "find_spans",
        "Find the traces of span ids.",
        _find,
        "read",
        tag="reads",
        body=api_types.SpanIds,
        answer=api_types.FoundSpans,
    ),
    _read(
        "names",
        "list_names",
        "List metadata keys, tags, or names of evaluations that are in use.",
        _names,
        api_types.Naming,
        api_types.Names,
        {501: _NOT_HERE},
    ),
)
