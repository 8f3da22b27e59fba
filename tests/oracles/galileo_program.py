"""Galileo's own SDK at work: run by `test_galileo.py`, in a process and a home directory of its own.

Arguments: ids of project, log stream, span and trace, and attributes of a span as JSON. The rest is in its variables.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys

from galileo.otel import GalileoOTLPExporter
from galileo.projects import Projects
from galileo.schema.trace import SpanUpdateRequest, TraceUpdateRequest
from galileo.traces import IngestTraces
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider

project, log_stream, span_id, trace_id, routing = sys.argv[1:]
changes = {"output": "bye", "tags": ["late"], "reliable": True, "logging_method": "api_direct"}


async def update() -> None:
    client = IngestTraces(
        project, os.environ["GALILEO_API_URL"], os.environ["GALILEO_API_KEY"], log_stream_id=log_stream
    )
    await client.update_span(SpanUpdateRequest(span_id=span_id, status_code=404, **changes))
    await client.update_trace(TraceUpdateRequest(trace_id=trace_id, **changes))


asyncio.run(update())
Projects().get(name="shop")
tracer = TracerProvider(shutdown_on_exit=False).get_tracer("application")
span = tracer.start_span("answer", attributes=json.loads(routing))
span.end()
exporter = GalileoOTLPExporter(project="shop", logstream="nightly")
# Its own `export` alters the span, then reaches into OpenTelemetry's exporter, and fails on newer releases of that.
with contextlib.suppress(AttributeError):
    exporter.export([span])
OTLPSpanExporter.export(exporter, [span])
