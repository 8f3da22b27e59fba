"""Traces and spans of Galileo's own ingestion API as spans of the store. Pure.

| Galileo | here |
|---|---|
| trace | the root span; its input, output, name, `user_metadata` and `tags` are those of the trace |
| span (`llm`, `retriever`, `tool`, `workflow`, `agent`, `control`) | a span with its parent; `type` is its kind |
| `created_at` | the start of the span; a record without one ends now |
| `metrics.duration_ns` | the end of the span |
| `status_code` | the status: 400 and above is an error; the code itself is the attribute `galileo.status_code` |
| `session_external_id`, or the session's name or id | the session of the trace |
| project | `service.name` of the resource |
| every other member | an attribute `galileo.<member>` |

Values have the time of their span's end, but never a later one than now: a later update wins.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, final
from uuid import UUID

from otel_metadata.model.encoding import is_error_status
from otel_metadata.model.instrumented import SPAN_KIND
from otel_metadata.model.merge import PLAIN_ATTRIBUTE_WRITER, FieldName, Fields, Json, Level
from otel_metadata.model.record import StoredSpan
from otel_metadata.model.times import MAX_NS, nanoseconds
from otel_metadata.model.value import STORE_LIMITS, clean, clean_key, is_cut, is_opaque
from otel_metadata.server.vendors.galileo_ids import span_id_of, unprocessable, uuid4

SCOPE: Final = "galileo"
"""The instrumentation scope of these spans."""


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
class RecordContext:
    """What the records of one request share.

    Attributes:
        resource: The attributes of their resource.
        session: The session of the traces, or None.
        now_ns: The end of a record that does not say when it started.
    """

    resource: Mapping[str, Json]
    session: str | None
    now_ns: int


def traces(records: list[dict[str, Any]], context: RecordContext) -> list[tuple[StoredSpan, Fields]]:
    """Return the spans of traces, with their fields. The types of the records are those of `GalileoRecord`.

    Raises:
        Problem: 422 with the place of the first value that is refused.
    """
    rows = []
    for number, record in enumerate(records):
        pointer = f"/body/traces/{number}"
        trace = _identifier(record, pointer)
        rows += _record(record, pointer, trace.hex, trace, None, context, "trace")
    return rows


def spans(
    records: list[dict[str, Any]], trace_id: UUID, parent_id: UUID, context: RecordContext
) -> list[tuple[StoredSpan, Fields]]:
    """Return the spans below a record that is or will be stored; as `traces` otherwise."""
    rows = []
    for number, record in enumerate(records):
        pointer = f"/body/spans/{number}"
        identifier = _identifier(record, pointer)
        rows += _record(record, pointer, trace_id.hex, identifier, span_id_of(parent_id), context, "span")
    return rows


def _identifier(record: Mapping[str, Any], pointer: str) -> UUID:
    given = record.get("id")
    return uuid4(given, f"{pointer}/id") if given is not None else UUID(bytes=secrets.token_bytes(16), version=4)


def _record(
    record: Mapping[str, Any],
    pointer: str,
    trace_id: str,
    identifier: UUID,
    parent_id: str | None,
    context: RecordContext,
    level: Level,
) -> list[tuple[StoredSpan, Fields]]:
    """Return the span of a record, before those of the records inside it."""
    inside: list[tuple[StoredSpan, Fields]] = []
    span_id = span_id_of(identifier)
    for number, child in enumerate(record.get("spans") or ()):
        at = f"{pointer}/spans/{number}"
        inside += _record(child, at, trace_id, _identifier(child, at), span_id, context, "span")
    metrics = record.get("metrics") or {}
    start_ns, end_ns = _times(record, pointer, metrics.get("duration_ns"), [row for row, _ in inside], context.now_ns)
    code = record.get("status_code")
    kind = record.get("type") or level
    name = record.get("name") or kind
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
        name=f"{whole(name, pointer)}",
        kind="INTERNAL",
        start_ns=start_ns,
        end_ns=end_ns,
        status_code="UNSET" if code is None else "ERROR" if is_error_status(code) else "OK",
        status_message=None,
        attributes=whole(attributes, pointer),  # type: ignore[arg-type] # a mapping stays one
        events=(),
        links=(),
        resource=context.resource,
        scope_name=SCOPE,
        scope_version=None,
    )
    # A clock may be ahead. A value from the future would win over every update until then.
    version = (min(end_ns, context.now_ns), PLAIN_ATTRIBUTE_WRITER)
    values = dict(_values(record, pointer, level))
    if level == "trace":
        values["trace", "name", ""] = span.name
        if context.session is not None:
            values["trace", "session_id", ""] = context.session
    return [(span, {field: (value, version) for field, value in values.items()}), *inside]


def _values(record: Mapping[str, Any], pointer: str, level: Level) -> Iterator[tuple[FieldName, Json]]:
    for kind in ("input", "output"):
        if record.get(kind) not in (None, ""):
            yield (level, kind, ""), whole(record[kind], f"{pointer}/{kind}")
    for key, value in (record.get("user_metadata") or {}).items():
        at = f"{pointer}/user_metadata/{key.replace('~', '~0').replace('/', '~1')}"
        if not isinstance(value, str):
            raise unprocessable(at, "string_type", "Input should be a valid string")
        yield (level, "metadata", clean_key(key, [], "metadata")), whole(value, at)
    for tag in record.get("tags") or ():
        yield (level, "tag", clean_key(tag, [], "tag")), True


def _times(
    record: Mapping[str, Any], pointer: str, duration_ns: object, inside: list[StoredSpan], now_ns: int
) -> tuple[int, int]:
    """Return the start and end of a record. One that does not say when it started ends now."""
    lasted_ns = duration_ns if isinstance(duration_ns, int) and 0 <= duration_ns < 1 << 62 else None
    at = record.get("created_at")
    if at is None:
        first_ns = min([now_ns, *(span.start_ns for span in inside)])
        return first_ns if lasted_ns is None else max(now_ns - lasted_ns, 0), now_ns
    start_ns = nanoseconds(at)
    if start_ns is None or start_ns < 0:
        raise unprocessable(f"{pointer}/created_at", "datetime_parsing", "Input should be a valid datetime")
    last_ns = max([start_ns, *(span.end_ns for span in inside)])
    return start_ns, min(last_ns if lasted_ns is None else start_ns + lasted_ns, MAX_NS)


def whole(value: Json, pointer: str) -> Json:
    """Return a value as it can be stored: characters that no store holds become U+FFFD, large integers text.

    Raises:
        Problem: 422, because a part would be left out.
    """
    notes: list[str] = []
    kept = clean(value, notes, pointer.rpartition("/")[2], STORE_LIMITS)
    lost = next((note for note in notes if is_cut(note) or is_opaque(note)), None)
    if lost is not None:
        raise unprocessable(pointer, "value_error", f"Value error, {lost}")
    return kept
