"""Galileo's SDK at work, configured by its environment: run by `test_sdks.py`. Argument: the mode of its logger."""

from __future__ import annotations

import asyncio
import json
import os
import sys

from galileo import GalileoLogger
from galileo.schema.trace import SpanUpdateRequest, TraceUpdateRequest
from galileo.traces import IngestTraces

logger = GalileoLogger(project="shop", log_stream="nightly", mode=sys.argv[1])
logger.start_session(name="the session", external_id="ext-1")
trace = logger.start_trace(input="hi", name="ask", metadata={"env": "prod"}, tags=["t1"])
flow = logger.add_workflow_span(input="wf in", name="flow", metadata={"step": "1"}, tags=["w"])
llm = logger.add_llm_span(
    input="q", output="a", model="gpt-5", name="call", total_tokens=7, metadata={"k": "v"}, tags=["x"], status_code=200
)
logger.add_retriever_span(input="q", output=["a document"], name="find")
logger.conclude(output="wf out", duration_ns=5_000)
logger.conclude(output="bye", duration_ns=9_000)
logger.flush()
logger.terminate()


async def update() -> dict[str, object]:
    client = IngestTraces(
        logger.project_id, os.environ["GALILEO_API_URL"], os.environ["GALILEO_API_KEY"], logger.log_stream_id
    )
    changes = {"tags": ["late"], "reliable": True}
    await client.update_trace(TraceUpdateRequest(trace_id=trace.id, output="changed", **changes))
    return await client.update_span(SpanUpdateRequest(span_id=llm.id, output="better", status_code=404, **changes))


print(json.dumps({"trace": str(trace.id), "flow": str(flow.id), "answer": asyncio.run(update())}))
