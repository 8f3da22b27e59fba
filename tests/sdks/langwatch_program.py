"""LangWatch's SDK at work, configured by its environment: run by `test_sdks.py`."""

from __future__ import annotations

import json

import langwatch
from langwatch.generated.langwatch_rest_api_client.api.traces import patch_api_traces_by_trace_id_metadata as patch
from langwatch.generated.langwatch_rest_api_client.models import PatchApiTracesByTraceIdMetadataBody
from langwatch.state import get_instance
from opentelemetry import trace

langwatch.setup()
metadata = {
    "user_id": "u1",
    "thread_id": "s1",
    "customer_id": "c1",
    "labels": ["qa", "old"],
    "env": "prod",
    "o": {"a": 1},
}
with langwatch.trace(name="answer", metadata=metadata):
    span = langwatch.get_current_span()
    span.update(input="hello", output={"a": "bye"})
    span.add_evaluation(name="Correctness", score=1.0, label="correct", details="because")
    with langwatch.span(name="step", type="tool"):
        pass
    trace_id = f"{trace.get_current_span().get_span_context().trace_id:032x}"
trace.get_tracer_provider().force_flush()


def update(**metadata: object) -> tuple[int, object]:
    body = PatchApiTracesByTraceIdMetadataBody.from_dict({"metadata": metadata})
    answer = patch.sync_detailed(trace_id, client=get_instance().rest_api_client, body=body)
    return answer.status_code, getattr(answer.parsed, "trace_id", None)


changed = update(user_id="u2", labels=["late"], env="staging", region="eu")
print(json.dumps({"trace_id": trace_id, "changed": changed}))
