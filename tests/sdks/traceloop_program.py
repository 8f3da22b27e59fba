"""Traceloop's SDK at work, configured by its environment: run by `test_sdks.py`."""

from __future__ import annotations

import json

from traceloop.sdk import Traceloop
from traceloop.sdk.decorators import task, workflow

Traceloop.init(app_name="shop", disable_batch=True)
Traceloop.set_association_properties({"user_id": "u1", "session_id": "s1", "env": "prod"})


@task(name="step")
def step(question: str) -> str:
    return f"{question}!"


@workflow(name="ask")
def ask(question: str) -> str:
    return step(question)


ask("hi")
print(json.dumps({}))
