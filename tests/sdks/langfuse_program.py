"""Langfuse's SDK at work, configured by its environment: run by `test_sdks.py`."""

from __future__ import annotations

import json

from langfuse import get_client, propagate_attributes

langfuse = get_client()
signed_in = langfuse.auth_check()
with (
    propagate_attributes(user_id="u1", session_id="s1", tags=["t1"], metadata={"tk": "tv"}, trace_name="the trace"),
    langfuse.start_as_current_observation(
        name="ask", as_type="span", metadata={"a": 1, "b": {"c": 2}}, input="q"
    ) as span,
):
    with langfuse.start_as_current_observation(name="call", as_type="generation", model="gpt-5") as call:
        call.update(output="o", metadata={"g": True})
    span.update(metadata={"text": "7"})
    span.score(name="quality", value=0.5, comment="c", data_type="NUMERIC")
    span.score_trace(name="verdict", value="good", data_type="CATEGORICAL")
langfuse.flush()
langfuse.create_score(trace_id=span.trace_id, observation_id=span.id, name="quality", value=0.9, metadata={"m": 1})
langfuse.create_score(trace_id=span.trace_id, observation_id=call.id, name="fine", value=1, data_type="BOOLEAN")
langfuse.create_score(session_id="s1", name="session", value=1.0)
langfuse.flush()
langfuse.shutdown()
print(json.dumps({"signed_in": signed_in, "trace_id": span.trace_id}))
