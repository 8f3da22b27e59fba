"""An ended span as a row and fields: the one reading of OpenTelemetry's span that every store shares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from otel_metadata.dialects.canonical import JSON_NAMES, read, spell, tags_attribute
from otel_metadata.model.merge import PLAIN_ATTRIBUTE_WRITER, FieldName, Fields, Json
from otel_metadata.model.record import StoredSpan
from otel_metadata.model.value import CAPTURE_LIMITS, clean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.sdk.trace import ReadableSpan  # noqa: TID251 # a name in a signature; nothing is loaded

__all__ = ["row_of"]


def row_of(span: ReadableSpan) -> tuple[StoredSpan, Fields]:
    """Return a span as OTLP has it, and its fields.

    Fields that came beside the span (`MergedSpan.fields`) are exact. Canonical attributes that did not (another
    exporter, a Collector, the application's own `metadata.x`) become fields with the version of the span's end.
    """
    context = span.context
    exact: Fields = getattr(span, "fields", None) or {}
    attributes = _json(dict(span.attributes or {}))
    for name in _spelled(exact):
        attributes.pop(name, None)
    start_ns = span.start_time or 0
    end_ns = span.end_time or start_ns
    plain, taken = read(attributes, (end_ns, PLAIN_ATTRIBUTE_WRITER))
    scope = span.instrumentation_scope
    return (
        StoredSpan(
            trace_id=f"{context.trace_id:032x}",
            span_id=f"{context.span_id:016x}",
            parent_id=f"{span.parent.span_id:016x}" if span.parent is not None else None,
            trace_state=context.trace_state.to_header(),
            name=span.name,
            kind=span.kind.name,
            start_ns=start_ns,
            end_ns=end_ns,
            status_code=span.status.status_code.name,
            status_message=span.status.description,
            attributes={name: value for name, value in attributes.items() if name not in taken},
            events=tuple(
                {"name": event.name, "time_ns": event.timestamp, "attributes": _json(dict(event.attributes or {}))}
                for event in span.events
            ),
            links=tuple(
                {
                    "trace_id": f"{link.context.trace_id:032x}",
                    "span_id": f"{link.context.span_id:016x}",
                    "attributes": _json(dict(link.attributes or {})),
                }
                for link in span.links
            ),
            resource=_json(dict(span.resource.attributes)),
            scope_name=scope.name if scope is not None else "",
            scope_version=scope.version if scope is not None else None,
        ),
        {**plain, **exact},
    )


def _spelled(fields: Fields) -> set[str]:
    """Return the attributes in which exact fields also stand on the span."""
    names: set[str] = {JSON_NAMES} if fields else set()
    for name, (value, _) in fields.items():
        if name[1] == "attribute":
            continue  # a plain attribute stays one, and the field lies over it
        names.update(_tag_name(name) or spell(name, value))
    return names


def _tag_name(name: FieldName) -> set[str]:
    return {tags_attribute(name[0])} if name[1] == "tag" else set()


def _json(attributes: Mapping[str, Any]) -> dict[str, Json]:
    return cast("dict[str, Json]", clean(attributes, [], "attributes", CAPTURE_LIMITS))
