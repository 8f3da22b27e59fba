"""OTLP over HTTP, in protobuf and JSON, on its own paths and on those of the vendors' SDKs.

Source: OpenTelemetry, OTLP specification 1.9, "OTLP/HTTP".
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, TypeAlias

from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped] # as below
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped] # its types are a package of their own
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsPartialSuccess, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from otel_metadata.reporting import REPORTER
from otel_metadata.server.operations import JSON, Answer, Call, Operation, Problem
from otel_metadata.server.otlp.store import MAX_BYTES, Refused, check_metrics, store_evaluations, store_spans
from otel_metadata.server.vendors.headers import resource_of

PROTOBUF: Final = "application/x-protobuf"

# Where OpenTelemetry's SDKs send, and those of LangWatch, Langfuse and Galileo. The signal follows.
_PREFIXES: Final = ("/v1/", "/api/otel/v1/", "/api/public/otel/v1/", "/otel/v1/")
_MORE_FOR_TRACES: Final = ("/otel/traces",)

# The numbers of google.rpc.Code.
_CODES: Final = {401: 16, 403: 7, 404: 5, 408: 4, 413: 8, 429: 8, 500: 13, 501: 12, 503: 14}
_INVALID_ARGUMENT: Final = 3

_Response: TypeAlias = "ExportTraceServiceResponse | ExportLogsServiceResponse | ExportMetricsServiceResponse"

_PROBLEMS: Final = {
    400: "The body is not OTLP.",
    413: "The body is larger than 16 MiB compressed or 64 MiB decompressed, or has too many parts.",
    415: "The body is neither protobuf nor JSON, or is compressed otherwise than with gzip or deflate.",
    503: "Too much waits to be stored, or the store cannot be written; send the same request later.",
}


def refusal(problem: Problem, headers: Mapping[str, str]) -> Answer:
    """Return a refusal as `google.rpc.Status`, in the type of the request."""
    status = Status(code=_CODES.get(problem.status, _INVALID_ARGUMENT), message=problem.title)
    if _media_type(headers) == PROTOBUF:
        return Answer(status.SerializeToString(), problem.status, PROTOBUF)
    return Answer(MessageToDict(status), problem.status)


async def export_traces(path: str, call: Call) -> Answer:
    """Store spans that were sent to *path*."""
    is_json = _is_json(call.headers)
    resource = await resource_of(call.service, call.headers)
    refused = await store_spans(call.service, call.caller, call.body, is_json=is_json, resource=resource, path=path)
    return _answer(traces_response(refused), is_json=is_json)


async def export_logs(_path: str, call: Call) -> Answer:
    """Store evaluations that come as log events."""
    is_json = _is_json(call.headers)
    refused = await store_evaluations(call.service, call.caller, call.body, is_json=is_json)
    return _answer(logs_response(refused), is_json=is_json)


async def export_metrics(_path: str, call: Call) -> Answer:
    """Take metrics, and keep none; see `tell_of_metrics`."""
    is_json = _is_json(call.headers)
    await check_metrics(call.service, call.body, is_json=is_json)
    tell_of_metrics()
    return _answer(ExportMetricsServiceResponse(), is_json=is_json)


def tell_of_metrics() -> None:
    """Log that metrics are not kept.

    They are taken all the same, without a word to the sender. An SDK that sends all signals to one address would log an
    error for every refusal, and several SDKs one for every partial success, every ten to sixty seconds and for good.
    """
    message = "Metrics arrive and are not kept: this server keeps spans. Send them elsewhere, or not at all."
    REPORTER.tell("server_metrics", message, level=logging.INFO)


def traces_response(refused: Refused) -> ExportTraceServiceResponse:
    """Return the answer to spans."""
    if not refused.message:
        return ExportTraceServiceResponse()
    partial = ExportTracePartialSuccess(rejected_spans=refused.count, error_message=refused.message)
    return ExportTraceServiceResponse(partial_success=partial)


def logs_response(refused: Refused) -> ExportLogsServiceResponse:
    """Return the answer to log records."""
    if not refused.message:
        return ExportLogsServiceResponse()
    partial = ExportLogsPartialSuccess(rejected_log_records=refused.count, error_message=refused.message)
    return ExportLogsServiceResponse(partial_success=partial)


def _answer(message: _Response, *, is_json: bool) -> Answer:
    if is_json:
        return Answer(MessageToDict(message))
    return Answer(message.SerializeToString(), media_type=PROTOBUF)


def _is_json(headers: Mapping[str, str]) -> bool:
    """Whether the body is JSON; protobuf otherwise.

    Raises:
        Problem: 415, because it is neither.
    """
    media_type = _media_type(headers)
    if media_type in {PROTOBUF, JSON}:
        return media_type == JSON
    named = f"is {ascii(media_type)[:100]}" if media_type else "is missing"
    raise Problem(415, f"Content-Type {named}; expected {PROTOBUF} or {JSON}.", expected=f"{PROTOBUF} or {JSON}")


def _media_type(headers: Mapping[str, str]) -> str:
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    return PROTOBUF if media_type == "application/protobuf" else media_type


def _operation(
    path: str, name: str, summary: str, handler: Callable[[str, Call], Awaitable[Answer]], prefix: str
) -> Operation:
    suffix = prefix.strip("/").replace("/", "_")
    return Operation(
        method="POST",
        path=path,
        name=name if prefix == _PREFIXES[0] else f"{name}_{suffix}",
        summary=summary,
        handler=partial(handler, path),
        scope="traces:write",
        tag="otlp",
        body=bytes,
        answer=bytes,
        problems=_PROBLEMS,
        refusal=refusal,
        body_types=(PROTOBUF, JSON),
        answer_type=f"{PROTOBUF}, {JSON}",
        is_ingestion=True,
        max_bytes=MAX_BYTES,
    )


_SIGNALS: Final = (
    ("traces", "Store the spans of an ExportTraceServiceRequest, in protobuf or JSON.", export_traces),
    ("logs", "Store the evaluations of an ExportLogsServiceRequest: events gen_ai.evaluation.result.", export_logs),
    ("metrics", "Take metrics, and keep none.", export_metrics),
)

OPERATIONS: Final[tuple[Operation, ...]] = (
    *(
        _operation(prefix + signal, f"export_{signal}", summary, handler, prefix)
        for signal, summary, handler in _SIGNALS
        for prefix in _PREFIXES
    ),
    *(_operation(path, "export_traces", _SIGNALS[0][1], export_traces, path) for path in _MORE_FOR_TRACES),
)
