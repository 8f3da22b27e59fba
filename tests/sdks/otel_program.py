"""OpenTelemetry's SDK at work, configured by its environment: run by `test_sdks.py`. Argument: the protocol."""

from __future__ import annotations

import json
import os
import sys
from urllib.parse import urlsplit

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

if sys.argv[1] == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    # The endpoint of the printed lines is that of HTTP.
    host = urlsplit(os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"]).hostname
    exporter = OTLPSpanExporter(f"http://{host}:{sys.argv[2]}", insecure=True)
else:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter

    exporter = HttpSpanExporter()
provider = TracerProvider(resource=Resource({"service.name": "shop"}))
provider.add_span_processor(BatchSpanProcessor(exporter))
with provider.get_tracer("application").start_as_current_span("ask", attributes={"metadata.k": "v"}):
    pass
provider.shutdown()
print(json.dumps({}))
