"""Arize's SDK at work, configured by its environment: run by `test_sdks.py`."""

from __future__ import annotations

import json

from arize.otel import register
from openinference.instrumentation import using_attributes

provider = register(project_name="shop", verbose=False, set_global_tracer_provider=False)
tracer = provider.get_tracer("application")
with (
    using_attributes(user_id="u1", session_id="s1", metadata={"a": 1, "o": {"b": [None]}}, tags=["t1", "t2"]),
    tracer.start_as_current_span("ask", openinference_span_kind="chain") as span,
):
    span.set_input("hello")
    span.set_output("bye")
provider.force_flush()
provider.shutdown()
print(json.dumps({"trace_id": f"{span.get_span_context().trace_id:032x}"}))
