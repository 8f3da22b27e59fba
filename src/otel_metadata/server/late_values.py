"""`GET /api/v1/late-values`: what came late, newest first, with what it replaced."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from otel_metadata.client.history import of_field, replaced_values
from otel_metadata.client.queries import page_query
from otel_metadata.model.condition import Compare, Subject
from otel_metadata.model.times import time_text
from otel_metadata.server import api_types
from otel_metadata.server.cursors import place
from otel_metadata.server.operations import Answer, Call, Operation
from otel_metadata.server.projects import visible_project
from otel_metadata.server.selection import encoded, reads_of
from otel_metadata.server.spans import value_json
from otel_metadata.store.reads import NO_PARENT, both

if TYPE_CHECKING:
    from otel_metadata.model.record import Position, SpanRecord

_LATE_ON_SPAN: Final = Compare(Subject("span", "late_count"), ">", 0)
# Of a trace only its root is asked: each span has the values of its trace.
_LATE_ON_TRACE: Final = both(Compare(Subject("trace", "late_count"), ">", 0), NO_PARENT)

_MAX_VALUES: Final = 1_000
"""Values in one answer: one field may have many, and a span many fields."""


async def _list(call: Call) -> Answer:
    given: api_types.LateValues = call.query
    service = call.service
    is_wanted = of_field(given.field)
    query = page_query(
        trace_id=None,
        project=visible_project(call.caller, given.project),
        start_time=given.start_time,
        end_time=given.end_time,
        filter=given.filter,
        limit=given.limit,
        cursor=None,
        now_ns=service.clock.wall_ns(),
    )
    reads = reads_of(service.store)
    deadline_ns = service.clock.monotonic_ns() + int(given.timeout_millis * 1e6)

    def read() -> Answer:
        records: dict[Position, SpanRecord] = {}
        ends: list[Position] = []
        for condition in (_LATE_ON_SPAN, _LATE_ON_TRACE):
            asked = replace(query, condition=both(condition, query.condition))
            found = reads.search(asked, timeout_millis=given.timeout_millis)
            records.update((record.position, record) for record in found.records)
            if found.searched_to is not None:
                ends.append(found.searched_to)
        newest_first = sorted(records, reverse=True)
        if len(newest_first) > given.limit:
            ends.append(newest_first[given.limit - 1])
        searched_to = max(ends, default=None)

        values: dict[tuple[object, ...], api_types.LateValue] = {}
        for position in newest_first:
            if searched_to is not None and position < searched_to:
                break
            _add(values, records[position])
            if service.clock.monotonic_ns() > deadline_ns and position != newest_first[-1]:
                searched_to = position
                break
        newest = sorted(values.values(), key=lambda one: (int(one.value.time_ns), one.value.writer), reverse=True)
        return encoded(
            api_types.LateValuePage(newest[:_MAX_VALUES], place(searched_to) if searched_to is not None else None)
        )

    def _add(values: dict[tuple[object, ...], api_types.LateValue], record: SpanRecord) -> None:
        history = service.store.history(record.trace_id, record.span_id)
        replaced = replaced_values(history)
        for at, value in enumerate(history):
            if value.route != "late" or not is_wanted(value):
                continue
            is_of_trace = value.level == "trace"
            span_id = "" if is_of_trace else record.span_id
            before = replaced.get(at)
            values[record.trace_id, span_id, value.kind, value.key, value.version] = api_types.LateValue(
                record.trace_id,
                span_id,
                (record.trace_name or record.name) if is_of_trace else record.name,
                time_text(record.span.end_ns),
                f"{record.span.end_ns}",
                value_json(value),
                value_json(before) if before is not None else None,
            )

    return await service.read(read)


OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation(
        "GET",
        "/api/v1/late-values",
        "list_late_values",
        "List values that came late on spans of a window and their traces, newest first, with what each replaced.",
        _list,
        "read",
        tag="reads",
        query=api_types.LateValues,
        answer=api_types.LateValuePage,
        problems={501: "This store cannot answer it."},
    ),
)
