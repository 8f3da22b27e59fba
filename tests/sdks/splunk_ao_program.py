"""The SDK of Splunk Agent Observability at work, configured by its environment: run by `test_sdks.py`."""

from __future__ import annotations

import json

from splunk_ao import SplunkAOLogger

logger = SplunkAOLogger(project="shop", agent_stream="nightly")
session = logger.start_session(name="the session", external_id="ext-1")
logger.start_trace(input="hi", name="ask")
logger.add_llm_span(input="q", output="a", model="gpt-5", name="call", metadata={"k": "v"}, tags=["x"])
logger.conclude(output="bye")
logger.flush()
logger.terminate()
print(json.dumps({"session": str(session)}))
