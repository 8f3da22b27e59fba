"""Evaluations as log events, OpenTelemetry's own form for a verdict on a span.

Source: OpenTelemetry, semantic conventions for generative AI, event `gen_ai.evaluation.result` (in development). The
record has the trace and span id of the span that was judged. Attributes that the conventions do not define have names
that begin with `otel_metadata.`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ResourceMessage

from otel_metadata._version import __version__
from otel_metadata.model.evaluation import Evaluation
from otel_metadata.model.merge import json_text
from otel_metadata.model.patch import patch_id

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.util.types import AttributeValue

    from otel_metadata.model.patch import Patch

EVENT_NAME: Final = "gen_ai.evaluation.result"
_SCOPE: Final = "otel_metadata.patch"
_SAMPLED: Final = 1
_HAS_EVENT_NAME: Final = "event_name" in LogRecord.DESCRIPTOR.fields_by_name  # since opentelemetry-proto 1.31


def evaluations(patch: Patch) -> dict[str, str]:
    """Return the names of the evaluations in a patch, by the id of the update that set each one."""
    return {patch_id(version): name[2] for name, (_, version) in patch.fields.items() if name[1] == "evaluation"}


def evaluation_records(patch: Patch) -> Iterator[tuple[str, LogRecord]]:
    """Yield the id of its update and a log record for each evaluation in a patch.

    The id does not depend on the patch that carries the evaluation.
    """
    for (level, kind, name), (value, version) in sorted(patch.fields.items(), key=lambda item: item[1][1]):
        if kind != "evaluation":
            continue
        update_id = patch_id(version)
        found = Evaluation.from_json(name, value)
        given = {
            "gen_ai.evaluation.score.value": found.score,
            "gen_ai.evaluation.score.label": found.label,
            "gen_ai.evaluation.explanation": found.explanation,
            "otel_metadata.evaluation.metadata": json_text(dict(found.metadata)) if found.metadata else None,
        }
        attributes: dict[str, AttributeValue] = {
            "gen_ai.evaluation.name": name,
            **{key: one for key, one in given.items() if one is not None},
            "otel_metadata.evaluation.source": found.source,
            "otel_metadata.evaluation.level": level,
            "otel_metadata.patch_id": update_id,
        }
        record = LogRecord(
            time_unix_nano=version[0],
            observed_time_unix_nano=version[0],
            trace_id=patch.target.trace_id.to_bytes(16, "big"),
            span_id=patch.target.span_id.to_bytes(8, "big"),
            flags=_SAMPLED,
        )
        if _HAS_EVENT_NAME:
            record.event_name = EVENT_NAME
        else:
            attributes["event.name"] = EVENT_NAME
        record.attributes.extend(_attributes(attributes))
        yield update_id, record


def events_request(records: Sequence[LogRecord], resource: Resource) -> ExportLogsServiceRequest:
    """Return one request with all *records*."""
    scope = ScopeLogs(scope=InstrumentationScope(name=_SCOPE, version=__version__), log_records=records)
    owner = ResourceMessage(attributes=_attributes(resource.attributes))
    return ExportLogsServiceRequest(resource_logs=[ResourceLogs(resource=owner, scope_logs=[scope])])


def _attributes(attributes: Mapping[str, AttributeValue]) -> list[KeyValue]:
    return [KeyValue(key=key, value=_value(value)) for key, value in attributes.items()]


def _value(value: object) -> AnyValue:
    """Return an attribute value as OTLP spells it. In OpenTelemetry's exporter this is a private function."""
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, str):
        return AnyValue(string_value=value)
    items = value if isinstance(value, list | tuple) else ()
    return AnyValue(array_value=ArrayValue(values=[_value(item) for item in items]))
