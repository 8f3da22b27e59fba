"""Traces and spans of Galileo's own ingestion API as spans of the store. Pure.

| Galileo | here |
|---|---|
| trace | the root span; its input, output, name, `user_metadata` and `tags` are those of the trace |
| span (`llm`, `retriever`, `tool`, `workflow`, `agent`, `control`) | a span with its parent; `type` is its kind |
| `metrics.duration_ns` | the end of the span |
| `status_code` | the status: 400 and above is an error; the code itself is the attribute `galileo.status_code` |
| `session_external_id`, or the session's name or id | the session of the trace |
| project | `service.name` of the resource |
| every other member | an attribute `galileo.<member>` |

Values have the time of their span's end, like the attributes of a span that came through OTLP: a later update wins.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final
from uuid import UUID

from otel_metadata.model.encoding import is_error_status
from otel_metadata.model.instrumented import SPAN_KIND
from otel_metadata.model.merge import PLAIN_ATTRIBUTE_WRITER, FieldName, Fields, Json, Level
from otel_metadata.model.record import StoredSpan
from otel_metadata.model.times import nanoseconds
from otel_metadata.model.value import CAPTURE_LIMITS, STORE_LIMITS, clean, clean_key
from otel_metadata.server.vendors.galileo_ids import invalid, span_id_of, uuid4

SCOPE: Final = "galileo"
"""The instrumentation scope of these spans."""

_LAST_NS: Final = (1 << 63) - 1  # as a store holds it

_KINDS: Final[Mapping[str, str]] = {
    "llm": "LLM",
    "retriever": "RETRIEVER",
    "tool": "TOOL",
    "workflow": "CHAIN",
    "agent": "AGENT",
    "control": "GUARDRAIL",
    "trace": "CHAIN",
}
_TOKENS: Final[Mapping[str, str]] = {
    "num_input_tokens": "llm.token_count.prompt",
    "num_output_tokens": "llm.token_count.completion",
    "num_total_tokens": "llm.token_count.total",
}
# Members that have a place of their own.
_PLACED: Final = frozenset(
    {"type", "id", "name", "input", "output", "user_metadata", "tags", "status_code", "metrics", "created_at", "spans"}
)


@final
@dataclass(frozen=True, slots=True)
class Place:
    """Where the records of one request belong.

    Attributes:
        resource: The attributes of their resource.
        session: The session of the traces, or None.
        now_ns: The start of a record that does not say when it started.
    """

    resource: Mapping[str, Json]
    session: str | None
    now_ns: int


def traces(records: object, place: Place) -> tuple[list[tuple[StoredSpan, Fields]], int]:
    """Return the spans of a list of traces, with their fields, and the number of traces.

    Raises:
        Problem: 422 with the place of the first value that is refused.
    """
    listed = _records(records, "/body/traces")
    rows = []
    for number, record in enumerate(listed):
        pointer = f"/body/traces/{number}"
        trace = _identifier(record, pointer)
        rows += _record(record, pointer, trace.hex, trace, None, place, "trace")
    return rows, len(listed)


def spans(records: object, trace_id: object, parent_id: object, place: Place) -> list[tuple[StoredSpan, Fields]]:
    """Return the spans below a record that is or will be stored.

    Raises:
        Problem: 422 with the place of the first value that is refused.
    """
    trace, parent = uuid4(trace_id, "/body/trace_id"), uuid4(parent_id, "/body/parent_id")
    rows = []
    for number, record in enumerate(_records(records, "/body/spans")):
        pointer = f"/body/spans/{number}"
        identifier = _identifier(record, pointer)
        rows += _record(record, pointer, trace.hex, identifier, span_id_of(parent), place, "span")
    return rows


def _records(found: object, pointer: str) -> Sequence[Any]:
    if not isinstance(found, list):
        raise invalid(
            pointer, "list_type" if found is not None else "missing", "A list of at least one record expected"
        )
    if not found:
        raise invalid(pointer, "too_short", "List should have at least 1 item after validation, not 0")
    return found


def _identifier(record: object, pointer: str) -> UUID:
    if not isinstance(record, dict):
        raise invalid(pointer, "model_type", "Input should be an object")
    given = record.get("id")
    return uuid4(given, f"{pointer}/id") if given is not None else UUID(bytes=secrets.token_bytes(16), version=4)


def _record(
    record: Mapping[str, Any],
    pointer: str,
    trace_id: str,
    identifier: UUID,
    parent_id: str | None,
    place: Place,
    level: Level,
) -> list[tuple[StoredSpan, Fields]]:
    """Return the span of a record, before those of the records inside it."""
    inside: list[tuple[StoredSpan, Fields]] = []
    children = record.get("spans") or []
    if not isinstance(children, list):
        raise invalid(f"{pointer}/spans", "list_type", "Input should be a valid list")
    span_id = span_id_of(identifier)
    for number, child in enumerate(children):
        at = f"{pointer}/spans/{number}"
        inside += _record(child, at, trace_id, _identifier(child, at), span_id, place, "span")
    metrics = _object(record, "metrics", pointer)
    start_ns = _start(record, pointer, place.now_ns)
    duration = metrics.get("duration_ns")
    end_ns = max((row.end_ns for row, _ in inside), default=start_ns)
    if duration is not None and _is_count(duration):
        end_ns = start_ns + duration
    code = record.get("status_code")
    if code is not None and not _is_count(code):
        raise invalid(f"{pointer}/status_code", "int_type", "Input should be a valid integer")
    kind = _text(record, "type", pointer) or level
    name = _text(record, "name", pointer) or kind
    attributes: dict[str, Json] = {SPAN_KIND: _KINDS.get(kind, "UNKNOWN")}
    if isinstance(record.get("model"), str):
        attributes["llm.model_name"] = record["model"]
    attributes |= {
        _TOKENS.get(key, f"galileo.metrics.{key}"): value for key, value in metrics.items() if value is not None
    }
    if code is not None:
        attributes["galileo.status_code"] = code
    attributes |= {
        f"galileo.{key}": value
        for key, value in record.items()
        if key not in _PLACED and value not in (None, {}, []) and key != "model"
    }
    span = StoredSpan(
        trace_id=trace_id,
        span_id=span_id,
        parent_id=parent_id,
        trace_state="",
        name=clean_text(name),
        kind="INTERNAL",
        start_ns=start_ns,
        end_ns=min(max(end_ns, start_ns), _LAST_NS),
        status_code="UNSET" if code is None else "ERROR" if is_error_status(code) else "OK",
        status_message=None,
        attributes=_json(attributes),
        events=(),
        links=(),
        resource=place.resource,
        scope_name=SCOPE,
        scope_version=None,
    )
    version = (span.end_ns, PLAIN_ATTRIBUTE_WRITER)
    values = dict(_values(record, pointer, level))
    if level == "trace":
        values["trace", "name", ""] = span.name
        if place.session is not None:
            values["trace", "session_id", ""] = place.session
    return [(span, {field: (value, version) for field, value in values.items()}), *inside]


def _values(record: Mapping[str, Any], pointer: str, level: Level) -> Iterator[tuple[FieldName, Json]]:
    for kind in ("input", "output"):
        if record.get(kind) not in (None, ""):
            yield (level, kind, ""), clean(record[kind], [], kind, CAPTURE_LIMITS)
    for key, value in _object(record, "user_metadata", pointer).items():
        if not isinstance(value, str):
            raise invalid(f"{pointer}/user_metadata/{key}", "string_type", "Input should be a valid string")
        yield (level, "metadata", clean_key(key, [], "metadata")), clean(value, [], "metadata")
    for tag in tags_of(record.get("tags"), f"{pointer}/tags"):
        yield (level, "tag", tag), True


def tags_of(found: object, pointer: str) -> list[str]:
    """Return a list of tags; none for null.

    Raises:
        Problem: 422.
    """
    if found is None:
        return []
    if not isinstance(found, list):
        raise invalid(pointer, "list_type", "Input should be a valid list")
    for number, tag in enumerate(found):
        if not isinstance(tag, str):
            raise invalid(f"{pointer}/{number}", "string_type", "Input should be a valid string")
    return [clean_key(tag, [], "tag") for tag in found if tag]


def clean_text(text: str) -> str:
    """Return a text that can be stored."""
    return f"{clean(text, [], '', STORE_LIMITS)}"


def _start(record: Mapping[str, Any], pointer: str, now_ns: int) -> int:
    at = _text(record, "created_at", pointer)
    start_ns = nanoseconds(at) if at is not None else now_ns
    if start_ns is None or start_ns < 0:
        raise invalid(f"{pointer}/created_at", "datetime_parsing", "Input should be a valid datetime")
    return start_ns


def _text(record: Mapping[str, Any], name: str, pointer: str) -> str | None:
    found = record.get(name)
    if found is not None and not isinstance(found, str):
        raise invalid(f"{pointer}/{name}", "string_type", "Input should be a valid string")
    return found


def _object(record: Mapping[str, Any], name: str, pointer: str) -> Mapping[str, Any]:
    found = record.get(name)
    if found is not None and not isinstance(found, dict):
        raise invalid(f"{pointer}/{name}", "dict_type", "Input should be a valid dictionary")
    return found or {}


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


def _json(attributes: Mapping[str, Json]) -> dict[str, Json]:
    return clean(attributes, [], "attributes", STORE_LIMITS)  # type: ignore[return-value] # a mapping stays one
