"""Spans and updates for tests of stores, without pytest and Hypothesis: a child process would load them for 1 s."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, TraceFlags

from otel_metadata.model.merge import Field, FieldName, Fields, Json
from otel_metadata.model.patch import Patch
from otel_metadata.model.record import SpanQuery, SpanRecord
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.seams import SpanStore

TRACE = 0x0AF7651916CD43DD8448EB211C80319C
START_NS = 1_700_000_000_123_456_789
END_NS = START_NS + 1_000_000


class SpanWithFields(ReadableSpan):
    """An ended span with its exact fields beside it, as a store is given it."""

    fields: Fields = {}  # noqa: RUF012


def ended_span(
    span_id: int = 1,
    *,
    trace_id: int = TRACE,
    fields: Fields | None = None,
    attributes: Mapping[str, Any] | None = None,
    start_ns: int = START_NS,
    name: str = "work",
    **parts: Any,
) -> SpanWithFields:
    """Return an ended span."""
    span = SpanWithFields(
        name=name,
        context=SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(1), **parts.pop("context", {})),
        attributes=attributes,
        start_time=start_ns,
        end_time=start_ns + 1_000_000,
        **{"resource": Resource({}), **parts},
    )
    span.fields = fields or {}
    return span


def metadata(level: str = "span", **values: Json) -> dict[FieldName, Field]:
    """Return metadata fields of one update."""
    return {(level, "metadata", key): (value, (START_NS, 1)) for key, value in values.items()}  # type: ignore[misc]


def only(store: SpanStore, **query: Any) -> SpanRecord:
    """Return the one record that a query selects."""
    (record,) = store.query(SpanQuery(**query))
    return record


def trace_hex(trace_id: int = TRACE) -> str:
    return f"{trace_id:032x}"


def patches_of(writer: int, count: int, trace_id: int = TRACE, span_id: int = 1) -> Sequence[Patch]:
    """Return patches as one process makes them: a key of its own, one that all set, and a tag."""
    return [
        Patch(
            SpanRef(trace_id, span_id),
            {
                ("span", "metadata", f"{writer}.{at}"): (at, (START_NS + at, writer)),
                ("span", "metadata", "shared"): ([writer, at], (START_NS + at, writer)),
                ("span", "tag", "seen"): (True, (START_NS + at, writer)),
            },
        )
        for at in range(count)
    ]
