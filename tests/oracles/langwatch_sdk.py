"""LangWatch's own SDK says what it can say of one trace, to the address given; prints the trace's id.

Run by an interpreter that has `langwatch`; it imports nothing of ours.
"""

from __future__ import annotations

import sys

import langwatch
from langwatch.generated.langwatch_rest_api_client.api.events import post_api_track_event
from langwatch.generated.langwatch_rest_api_client.api.traces import patch_api_traces_by_trace_id_metadata
from langwatch.generated.langwatch_rest_api_client.models import (
    PatchApiTracesByTraceIdMetadataBody,
    PostApiTrackEventBody,
)
from langwatch.state import get_instance
from opentelemetry import trace as opentelemetry_trace


def main(url: str, key: str) -> None:
    """Drive the SDK."""
    langwatch.setup(api_key=key, endpoint_url=url)
    with langwatch.trace(name="answer", metadata={"user_id": "u1", "thread_id": "s1", "labels": ["qa"], "env": "prod"}):
        span = langwatch.get_current_span()
        span.update(input="hello", output={"a": "bye"}, params={"step": 1})
        span.add_evaluation(name="Correctness", score=1.0, label="correct", details="because")
        trace_id = f"{opentelemetry_trace.get_current_span().get_span_context().trace_id:032x}"
    opentelemetry_trace.get_tracer_provider().force_flush()
    client = get_instance().rest_api_client
    patch_api_traces_by_trace_id_metadata.sync_detailed(
        trace_id,
        client=client,
        body=PatchApiTracesByTraceIdMetadataBody.from_dict(
            {"metadata": {"user_id": "u2", "thread_id": "s2", "labels": ["late"], "region": "eu"}}
        ),
    )
    comment = "quality, by a@example.com:\ngood\nwell said"
    langwatch.annotations.create(trace_id, params={"comment": comment, "isThumbsUp": True, "email": "a@example.com"})
    event = {
        "trace_id": trace_id,
        "event_type": "thumbs_up_down",
        "metrics": {"vote": 1},
        "event_details": {"feedback": "nice"},
        "event_id": "e1",
        "timestamp": 1_700_000_000_000,
    }
    post_api_track_event.sync_detailed(client=client, body=PostApiTrackEventBody.from_dict(event))
    print(trace_id)


if __name__ == "__main__":
    main(*sys.argv[1:])
