"""An ended span as JSON and back: what the spool keeps of a span that is held.

Exact for whatever OpenTelemetry lets into a span: what JSON cannot say (bytes, infinities, integers beyond 64 bits) is
an object with one key, `$bytes`, `$float` or `$int`; a mapping is `{"$map": …}`, so that nothing can be mistaken. Not
OTLP's JSON: that has no reader in OpenTelemetry's SDK, and forgets the parent's flags and trace state.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

if TYPE_CHECKING:
    from opentelemetry.util.types import Attributes

    from otel_metadata.model.merge import Json

_INT64: Final = 1 << 63


class SpooledReadableSpan(ReadableSpan):
    """A span that was read back: OpenTelemetry's plain constructor forgets the `dropped_*` counts."""

    _dropped: tuple[int, int, int] = (0, 0, 0)

    @property
    def dropped_attributes(self) -> int:
        """The ended span's count."""
        return self._dropped[0]

    @property
    def dropped_events(self) -> int:
        """The ended span's count."""
        return self._dropped[1]

    @property
    def dropped_links(self) -> int:
        """The ended span's count."""
        return self._dropped[2]


def span_to_json(span: ReadableSpan) -> dict[str, Json]:
    """Return everything that an exporter may read of *span*."""
    scope = span.instrumentation_scope
    return {
        "name": _text(span.name),
        "context": _context_to_json(span.context),
        "parent": _context_to_json(span.parent) if span.parent is not None else None,
        "kind": span.kind.name,
        "start": span.start_time,
        "end": span.end_time,
        "status": [span.status.status_code.name, _text(span.status.description)],
        "attributes": _attributes_to_json(span.attributes),
        "events": [
            [_text(event.name), event.timestamp, _attributes_to_json(event.attributes)] for event in span.events
        ],
        "links": [[_context_to_json(link.context), _attributes_to_json(link.attributes)] for link in span.links],
        "resource": [_attributes_to_json(span.resource.attributes), _text(span.resource.schema_url)],
        "scope": [
            _text(scope.name),
            _text(scope.version),
            _text(scope.schema_url),
            _attributes_to_json(scope.attributes),
        ]
        if scope is not None
        else None,
        "dropped": [span.dropped_attributes, span.dropped_events, span.dropped_links],
    }


def span_from_json(data: Mapping[str, Any]) -> ReadableSpan:
    """Return the span that `span_to_json` was given.

    Raises:
        Exception: *data* is something else (KeyError, TypeError, ValueError): it was damaged in a way that its checksum
            did not show, or written by another version.
    """
    code, description = data["status"]
    resource, schema_url = data["resource"]
    scope = data["scope"]
    span = SpooledReadableSpan(
        name=data["name"],
        context=_context_from_json(data["context"]),
        parent=_context_from_json(data["parent"]) if data["parent"] is not None else None,
        kind=SpanKind[data["kind"]],
        start_time=data["start"],
        end_time=data["end"],
        status=Status(StatusCode[code], description),
        attributes=_attributes_from_json(data["attributes"]),
        events=[Event(name, _attributes_from_json(own), timestamp) for name, timestamp, own in data["events"]],
        links=[Link(_context_from_json(context), _attributes_from_json(own)) for context, own in data["links"]],
        resource=Resource(cast("Any", _attributes_from_json(resource)), schema_url),
        instrumentation_scope=InstrumentationScope(
            scope[0], scope[1], scope[2], _attributes_from_json(scope[3]) if scope[3] else None
        )
        if scope is not None
        else None,
    )
    attributes, events, links = data["dropped"]
    span._dropped = (int(attributes), int(events), int(links))
    return span


def _context_to_json(context: SpanContext) -> Json:
    return [
        f"{context.trace_id:032x}",
        f"{context.span_id:016x}",
        int(context.trace_flags),
        _text(context.trace_state.to_header()),
        context.is_remote,
    ]


def _context_from_json(data: Sequence[Any]) -> SpanContext:
    trace_id, span_id, flags, state, is_remote = data
    return SpanContext(
        int(trace_id, 16),
        int(span_id, 16),
        is_remote=bool(is_remote),
        trace_flags=TraceFlags(flags),
        trace_state=TraceState.from_header([state]) if state else TraceState(),
    )


def _attributes_to_json(attributes: Attributes) -> Json:
    return [[_text(name), _to_json(value)] for name, value in (attributes or {}).items()]


def _attributes_from_json(data: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    return {name: _from_json(value) for name, value in data}


def _text(value: object) -> str | None:
    """Return a text that orjson takes: for a lone surrogate, which is no UTF-8, it would refuse the whole span."""
    return str(value).encode("utf-8", "replace").decode() if value is not None else None


def _to_json(value: object) -> Json:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int):
        return int(value) if -_INT64 <= value < _INT64 else {"$int": str(value)}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$float": repr(float(value))}
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, Mapping):
        return {"$map": [[_text(key), _to_json(item)] for key, item in value.items()]}
    if isinstance(value, Sequence):
        return [_to_json(item) for item in value]
    return {"$text": ascii(value)}


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_from_json(item) for item in value)
    if isinstance(value, dict):
        ((kind, held),) = value.items()
        readers: Mapping[str, Any] = {
            "$int": int,
            "$float": float,
            "$bytes": base64.b64decode,
            "$map": _attributes_from_json,
            "$text": str,
        }
        return readers[kind](held)
    return value
