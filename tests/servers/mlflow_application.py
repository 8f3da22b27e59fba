"""An application that MLflow traces on the global provider, with `configure("mlflow")` for the same server.

Run by `test_mlflow.py` in MLflow's environment. It prints, as JSON, which spans left by our sender, and the ids of its
traces.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Any

import mlflow
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import otel_metadata as om
from otel_metadata.exporters.otlp_http import OtlpHttpSender

REMOTE = "0af7651916cd43dd8448eb211c80319c"
sent: Counter[str] = Counter()
send = OtlpHttpSender.send


def counting(self: OtlpHttpSender, spans: Any, *, timeout_millis: int) -> Any:
    sent.update(span.name for span in spans)
    return send(self, spans, timeout_millis=timeout_millis)


OtlpHttpSender.send = counting  # type: ignore[method-assign] # counted where it leaves
trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("application")


@mlflow.trace(name="ask", span_type="LLM")
def ask() -> str:
    with tracer.start_as_current_span("inner"):
        return "answer"


if sys.argv[1] == "mlflow first":
    ask()
om.configure("mlflow", adopt=sys.argv[1] == "adopt")
ask()
with tracer.start_as_current_span("request"):
    ask()
    ref = om.current_span_ref()
parent = TraceContextTextMapPropagator().extract({"traceparent": f"00-{REMOTE}-b7ad6b7169203331-01"})
with tracer.start_as_current_span("of another process", context=parent):
    pass
mlflow.flush_trace_async_logging()
om.flush()
om.update_span(ref, metadata={"late": 1})
om.flush()
print(json.dumps({"sent": sent, "trace": ref.trace_id_hex}))
om.shutdown()
