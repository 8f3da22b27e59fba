"""What the vendors' calls share: reading a body, and turning it into the fields of an update."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from otel_metadata.model.merge import FieldName, Fields, Json
from otel_metadata.model.record import SpanQuery
from otel_metadata.model.value import METADATA_LIMITS, Limits, clean
from otel_metadata.server.bodies import refuse_deep
from otel_metadata.server.operations import Call, Problem


def json_of(body: bytes, status: int) -> Any:
    """Return the value of a JSON body.

    Raises:
        Problem: With *status*, which is the vendor's for a body that is not JSON.
    """
    try:
        refuse_deep(body)
        return msgspec.json.decode(body)
    except Problem as problem:
        raise Problem(status, problem.title) from None
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Problem(status, f"The body is not JSON: {error}; expected an object.", expected="JSON") from None


def refuse_changed(value: Json, shown: str, pointer: str, limits: Limits = METADATA_LIMITS) -> None:
    """Refuse a value that the store would not keep as it is, for example because it is too long.

    The vendors' answers have no place to say what was cut.

    Args:
        value: The value.
        shown: Its name in the refusal.
        pointer: Its place in the body.
        limits: Those of its kind.

    Raises:
        Problem: 400.
    """
    notes: list[str] = []
    if clean(value, notes, shown, limits) != value:
        title = notes[0] if notes else f"{shown} cannot be stored as it is"
        expected = "JSON that can be stored as it is"
        raise Problem(400, f"{title}; expected {expected}.", pointer=pointer, expected=expected)


def fields_of(call: Call, values: Mapping[FieldName, Json]) -> Fields:
    """Return values as fields that the caller sets now."""
    (version,) = call.service.versions(call.caller, 1)
    return {name: (value, version) for name, value in values.items()}


async def check_project(call: Call, trace_id: str, span_id: str = "") -> None:
    """Refuse a caller that sees one project only, and neither the span nor a span of the trace in it.

    Args:
        call: The call.
        trace_id: 32 hex digits.
        span_id: 16 hex digits; "" for a change of the trace.

    Raises:
        Problem: 403, also for what is not stored: it may belong to any project when it comes.
    """
    project = call.caller.project
    if project is None:
        return
    query = SpanQuery(trace_id, span_id or None, project=project, limit=1)
    if not await call.service.find(lambda: call.service.store.query(query)):
        what = f"Span {span_id}" if span_id else f"Trace {trace_id}"
        raise Problem(403, f"{what} is not in the project {project!r}, the only one that this token may change.")
