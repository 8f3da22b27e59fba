"""`GET /api/v1/traces`: one row for each trace; one trace as an outline; what was set on it, and when."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from otel_metadata.client.history import of_field, spans_at
from otel_metadata.client.traces import trace_to_dict
from otel_metadata.errors import SpanNotFoundError
from otel_metadata.model.record import OutlineSpan, SpanQuery, assemble
from otel_metadata.model.span_ref import parse_trace_id
from otel_metadata.model.times import time_text
from otel_metadata.seams import SpanReads
from otel_metadata.server import api_types
from otel_metadata.server.cursors import page_end, query_of_page
from otel_metadata.server.entity_tags import entity_tag
from otel_metadata.server.operations import Answer, Call, Operation
from otel_metadata.server.projects import visible_project
from otel_metadata.server.selection import (
    encoded,
    reads_of,
    rows_of,
    stored,
)
from otel_metadata.server.spans import values_answer
from otel_metadata.store import table
from otel_metadata.store.reads import IS_ERROR, NO_PARENT, both

if TYPE_CHECKING:
    from otel_metadata.model.merge import Fields, Json
    from otel_metadata.model.record import SpanRecord, TraceRecord
    from otel_metadata.seams import SpanStore


def fields_of_trace(fields: Fields) -> Fields:
    """Return the fields of a span that belong to its trace."""
    return {name: field for name, field in fields.items() if name[0] == "trace"}


async def _list(call: Call) -> Answer:
    given: api_types.TraceRows = call.query
    query = query_of_page(call, given)
    reads = reads_of(call.service.store)

    def read() -> Answer:
        found = reads.traces(query, timeout_millis=given.timeout_millis)
        next_cursor, searched_to = page_end(given, query, found.traces, found.searched_to)
        shown = found.traces[: given.limit]
        if call.caller.project is not None:
            shown = tuple(_of_project(call.service.store, reads, trace, call.caller.project) for trace in shown)
        roots: dict[str, SpanRecord] = {}
        if given.with_metadata:
            of_roots = replace(query, condition=both(NO_PARENT, query.condition))
            records = reads.search(of_roots, timeout_millis=given.timeout_millis).records
            roots = {record.span_id: record for record in records}
        traces = [_trace_json(trace, roots.get(trace.root_span_id)) for trace in shown]
        return encoded({"traces": traces, "next_cursor": next_cursor, "searched_to": searched_to})

    return await call.service.read(read)


def _of_project(store: SpanStore, reads: SpanReads, trace: TraceRecord, project: str) -> TraceRecord:
    """Return a trace whose numbers are those of one project's spans, and of the trace itself."""
    own = SpanQuery(trace.trace_id, project=project, limit=None)
    spans = reads.count(own).counted
    if spans == trace.spans:
        return trace  # nearly every trace
    late = {
        (name, "" if name[0] == "trace" else row["context.span_id"])
        for row in (rows_of(store, own) if trace.late_values else ())
        for name, route in table.past_of(row).routes.items()
        if route == "late"
    }
    errors = reads.count(replace(own, condition=IS_ERROR)).counted
    return replace(trace, spans=spans, errors=errors, late_values=len(late))


def _trace_json(trace: TraceRecord, root: SpanRecord | None) -> dict[str, Json]:
    return {
        **trace_to_dict(trace),
        "start_time_ns": f"{trace.start_ns}",
        "end_time_ns": f"{trace.end_ns}",
        "metadata": dict(root.metadata) if root is not None else {},
        "trace_metadata": dict(root.trace_metadata) if root is not None else {},
    }


async def _one(call: Call) -> Answer:
    given: api_types.OneTrace = call.query
    trace_id = parse_trace_id(call.path["trace_id"]).trace_id_hex
    project = visible_project(call.caller)
    return await call.service.read(partial(_read_one, call.service.store, trace_id, project, given.at))


def _read_one(store: SpanStore, trace_id: str, project: str | None, at: str | None) -> Answer:
    if at is not None:
        records = spans_at(store, SpanQuery(trace_id, limit=None, project=project), at)
        return encoded(_outline(records[0], None, [_of_record(record) for record in reversed(records)]))
    if project is None and isinstance(store, SpanReads):
        spans = store.outline(trace_id)
    else:
        spans = [
            _of_record(record) for record in reversed(store.query(SpanQuery(trace_id, limit=None, project=project)))
        ]
    # Any span has the values of its trace. One that is named is found at once; the newest of many takes a sort.
    found = stored(store, SpanQuery(trace_id, spans[-1].span_id, limit=1, project=project)) if spans else None
    if found is None:
        raise SpanNotFoundError(trace_id, f"{store}")
    version = entity_tag(fields_of_trace(found[1]))
    return encoded(_outline(assemble(*found), version, spans), version)


def _of_record(record: SpanRecord) -> OutlineSpan:
    span = record.span
    return OutlineSpan(
        record.span_id, record.parent_id, record.name, record.kind, span.start_ns, span.end_ns, record.status_code
    )


def _outline(record: SpanRecord, version: str | None, spans: list[OutlineSpan]) -> dict[str, Json]:
    """Return a trace as `api_types.TraceOutline` has it.

    Args:
        record: Any span of the trace.
        version: The entity tag, or None at a time.
        spans: Oldest start first.
    """
    return {
        "trace_id": record.trace_id,
        "version": version,
        "name": record.trace_name,
        "user_id": record.user_id,
        "session_id": record.session_id,
        "metadata": dict(record.trace_metadata),
        "tags": list(record.trace_tags),
        "input": record.trace_input,
        "output": record.trace_output,
        "evaluations": {name: verdict.to_json() for name, verdict in record.trace_evaluations.items()},
        "annotations": [note.to_json() for note in record.trace_annotations],
        "spans": [
            {
                "span_id": span.span_id,
                "parent_id": span.parent_id,
                "name": span.name,
                "kind": span.kind,
                "start_time": time_text(span.start_ns),
                "start_time_ns": f"{span.start_ns}",
                "end_time": time_text(span.end_ns),
                "end_time_ns": f"{span.end_ns}",
                "status_code": span.status_code,
            }
            for span in spans
        ],
    }


async def _history(call: Call) -> Answer:
    given: api_types.TraceHistory = call.query
    trace_id = parse_trace_id(call.path["trace_id"]).trace_id_hex
    is_wanted = of_field(given.field)
    project = visible_project(call.caller)

    def read() -> Answer:
        store = call.service.store
        must_be_there = given.stored or project is not None
        if must_be_there and not store.query(SpanQuery(trace_id, limit=1, project=project)):
            raise SpanNotFoundError(trace_id, f"{store}")
        return values_answer([*filter(is_wanted, store.history(trace_id))])

    return await call.service.read(read)


_NO_TRACE: Final = "No span of the trace is stored, or none is of the project of the token."

OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation(
        "GET",
        "/api/v1/traces",
        "list_traces",
        "List traces, newest root first.",
        _list,
        "read",
        tag="reads",
        query=api_types.TraceRows,
        answer=api_types.TracePage,
        problems={501: "This store cannot answer it."},
    ),
    Operation(
        "GET",
        "/api/v1/traces/{trace_id}",
        "get_trace",
        "Get a trace: what was set on it, and its spans without their values, oldest start first.",
        _one,
        "read",
        tag="reads",
        query=api_types.OneTrace,
        answer=api_types.TraceOutline,
        problems={404: _NO_TRACE},
    ),
    Operation(
        "GET",
        "/api/v1/traces/{trace_id}/history",
        "get_trace_history",
        "List every value that the fields of a trace itself have or had, newest first.",
        _history,
        "read",
        tag="reads",
        query=api_types.TraceHistory,
        answer=api_types.Values,
        problems={404: _NO_TRACE},
    ),
)
