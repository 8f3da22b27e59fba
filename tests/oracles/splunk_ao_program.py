"""The SDK of Splunk Agent Observability at work: run by `test_splunk_ao.py`, in a process and a home of its own.

Arguments: ids of project, agent stream and span.
"""

from __future__ import annotations

import asyncio
import sys

from opentelemetry.sdk.trace import TracerProvider
from splunk_ao.deployment import O11yConfig
from splunk_ao.exporter import RoutingAttrs, resolve_o11y_exporter_config
from splunk_ao.otel import SplunkAOOTLPExporter
from splunk_ao.schema.trace import SpanUpdateRequest
from splunk_ao.traces import Traces

project, stream, span_id = sys.argv[1:]
tracer = TracerProvider(shutdown_on_exit=False).get_tracer("application")
span = tracer.start_span("answer")
span.end()
SplunkAOOTLPExporter(project="shop", agentstream="nightly").export([span])
SplunkAOOTLPExporter(project_id=project, agent_stream_id=stream).export([span])
changes = {"output": "bye", "tags": ["late"], "reliable": True, "logging_method": "api_direct", "status_code": 404}
asyncio.run(Traces(project, stream).update_span(SpanUpdateRequest(span_id=span_id, **changes)))
cloud = O11yConfig(realm="us0", o11y_token="secret")
made = resolve_o11y_exporter_config(cloud, RoutingAttrs(project_name="shop", agent_stream_name="nightly"))
print(made.endpoint, made.headers, cloud.require_api_url(), sep="\n")
