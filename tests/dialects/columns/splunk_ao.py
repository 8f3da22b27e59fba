"""Splunk Agent Observability: Galileo's spelling, with its own names for metadata, tags and session."""

from __future__ import annotations

from typing import Any

from otel_metadata.backends.splunk_ao.dialect import SplunkAoDialect

DIALECT = SplunkAoDialect()

TEXT = "text/plain"
JSON = "application/json"

EXPECTED: dict[str, Any] = {
    "metadata text": {"splunk_ao.metadata": '{"k":"x"}'},
    "metadata text that looks like JSON": {"splunk_ao.metadata": r'{"k":"{\"a\": 1}"}'},
    "metadata empty text": {"splunk_ao.metadata": '{"k":""}'},
    "metadata integer": {"splunk_ao.metadata": '{"k":"0"}'},
    "metadata float": {"splunk_ao.metadata": '{"k":"0.5"}'},
    "metadata bool": {"splunk_ao.metadata": '{"k":"false"}'},
    "metadata null": {"splunk_ao.metadata": '{"k":"null"}'},
    "metadata nested": {"splunk_ao.metadata": r'{"k":"{\"a\":[1,null]}"}'},
    "metadata list of texts": {"splunk_ao.metadata": r'{"k":"[\"a\",\"b\"]"}'},
    "metadata mixed list": {"splunk_ao.metadata": r'{"k":"[\"a\",1,null]"}'},
    "metadata dotted key": {"splunk_ao.metadata": '{"a.b":"1"}'},
    "metadata two keys": {"splunk_ao.metadata": '{"a":"1","b":"x"}'},
    "trace metadata": {"trace.metadata.k": "x"},
    "trace metadata on a child": {"trace.metadata.k": "x"},
    "attribute": {"app.key": 5},
    "type": {"openinference.span.kind": "LLM"},
    "user": {"user.id": "u1"},
    "trace user": {"user.id": "u1"},
    "session": {"session.id": "s1", "gen_ai.conversation.id": "s1"},
    "trace session": {"session.id": "s1", "gen_ai.conversation.id": "s1"},
    "tags": {"splunk_ao.tags": ["one", "two"]},
    "trace tags": {"trace.tags": ["one", "two"]},
    "input text": {"input.value": "hello", "input.mime_type": TEXT},
    "input JSON": {"input.value": '{"q":"hello"}', "input.mime_type": JSON},
    "output text": {"output.value": "bye", "output.mime_type": TEXT},
    "output JSON": {"output.value": '{"a":"bye"}', "output.mime_type": JSON},
    "trace input": {"trace.input.value": "hello", "trace.input.mime_type": TEXT},
    "trace output": {"trace.output.value": "bye", "trace.output.mime_type": TEXT},
    "trace name": {"trace.name": "chat"},
    "name": {"(name)": "answer"},
    "status": {"(status)": ("error", "too slow")},
    "evaluation": {
        "eval.Correctness.label": "partly",
        "eval.Correctness.score": 0.5,
        "eval.Correctness.explanation": "half of it",
        "eval.Correctness.source": "llm",
        "eval.Correctness.metadata": '{"judge":"m"}',
    },
    "trace evaluation": {
        "trace.eval.Correctness.label": "partly",
        "trace.eval.Correctness.score": 0.5,
        "trace.eval.Correctness.explanation": "half of it",
        "trace.eval.Correctness.source": "llm",
        "trace.eval.Correctness.metadata": '{"judge":"m"}',
    },
    "annotation": {
        "annotation.quality.label": "good",
        "annotation.quality.score": 1.0,
        "annotation.quality.text": "well said",
        "annotation.quality.annotator": "ann",
    },
}
