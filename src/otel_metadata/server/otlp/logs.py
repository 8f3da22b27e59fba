"""Evaluations that arrive as log events: `gen_ai.evaluation.result`, as `exporters.otlp_events` writes them.

Source: OpenTelemetry, semantic conventions for generative AI, event `gen_ai.evaluation.result` (in development).
Other log records are refused: this server keeps spans.
"""

from __future__ import annotations

from typing import Final

import orjson

from otel_metadata.client.otlp_json import LatePatch, LogRecord, OtlpError
from otel_metadata.exporters.otlp_events import EVENT_NAME
from otel_metadata.model.evaluation import Evaluation
from otel_metadata.model.merge import PLAIN_ATTRIBUTE_WRITER, FieldName, Json, Version
from otel_metadata.model.patch import version_of_id

_NAME: Final = "gen_ai.evaluation.name"
_OURS: Final = "otel_metadata.evaluation."


def evaluation_of(record: LogRecord, now_ns: int) -> LatePatch:
    """Return the update that a log record means.

    An event of ours has the version of its update, so that it is the same evaluation as the one on the span that
    carries the update. Any other event has that of its time.

    Args:
        record: A log record.
        now_ns: The time of a record that has none, in wall nanoseconds.

    Raises:
        OtlpError: It is another event, or names no span, or no evaluation.
    """
    attributes = record.attributes
    event_name = record.event_name or attributes.get("event.name")
    if event_name != EVENT_NAME:
        what = f"the event {ascii(event_name)[:80]}" if event_name else "a log record that is no event"
        raise OtlpError(f"{what} is not stored; expected the event {EVENT_NAME}: send other logs elsewhere")
    name = attributes.get(_NAME)
    if not isinstance(name, str) or not name:
        raise OtlpError(f"the event {EVENT_NAME} has no {_NAME}; expected the name of what was judged")
    is_of_trace = attributes.get(_OURS + "level") == "trace" or not record.span_id
    if not record.trace_id:
        raise OtlpError(f"the event {EVENT_NAME} has no trace id; expected the ids of the span that was judged")
    field: FieldName = ("trace" if is_of_trace else "span", "evaluation", name)
    given = {
        "score": attributes.get("gen_ai.evaluation.score.value"),
        "label": attributes.get("gen_ai.evaluation.score.label"),
        "explanation": attributes.get("gen_ai.evaluation.explanation"),
        "source": attributes.get(_OURS + "source"),
        "metadata": _metadata(attributes),
    }
    value = Evaluation.from_json(name, given).to_json()
    return LatePatch(record.trace_id, record.span_id, {field: (value, _version(record, now_ns))})


def _metadata(attributes: dict[str, Json]) -> Json:
    text, error_type = attributes.get(_OURS + "metadata"), attributes.get("error.type")
    try:
        found = orjson.loads(text) if isinstance(text, str) else None
    except orjson.JSONDecodeError:
        found = None
    # An evaluation that failed has neither score nor label.
    return found or ({"error.type": error_type} if error_type is not None else None)


def _version(record: LogRecord, now_ns: int) -> Version:
    own = version_of_id(record.attributes.get("otel_metadata.patch_id"))
    return own or (record.time_ns or now_ns, PLAIN_ATTRIBUTE_WRITER)
