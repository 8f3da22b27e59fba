"""What the `langfuse` dialect says for each fact."""

from __future__ import annotations

from typing import Any, Final

from tests.dialects.facts import PATCH

from otel_metadata.backends.langfuse.dialect import LangfuseDialect

DIALECT: Final = LangfuseDialect()

_K: Final = "langfuse.observation.metadata.k"

EXPECTED: Final[dict[str, Any]] = {
    "metadata text": {_K: "x"},
    # A server before 4.59 reads it as an object; see `json_strings`.
    "metadata text that looks like JSON": {_K: '{"a": 1}'},
    "metadata empty text": {_K: ""},
    "metadata integer": {_K: "0"},
    "metadata float": {_K: "0.5"},
    "metadata bool": {_K: "false"},
    "metadata null": {_K: "null"},
    "metadata nested": {_K: '{"a":[1,null]}'},
    "metadata list of texts": {_K: '["a","b"]'},
    "metadata mixed list": {_K: '["a",1,null]'},
    "metadata dotted key": {"langfuse.observation.metadata.a.b": "1"},
    "metadata two keys": {"langfuse.observation.metadata.a": "1", "langfuse.observation.metadata.b": "x"},
    "trace metadata": {"langfuse.trace.metadata.k": "x"},
    "trace metadata on a child": PATCH,
    "attribute": {"app.key": 5},
    "type": {"openinference.span.kind": "LLM"},
    "user": {"user.id": "u1"},
    "trace user": {"user.id": "u1"},
    "session": {"session.id": "s1"},
    "trace session": {"session.id": "s1"},
    "tags": {"langfuse.observation.metadata.tag.tags": '["one","two"]'},
    "trace tags": {"langfuse.trace.tags": ["one", "two"]},
    "input text": {"langfuse.observation.input": "hello"},
    "input JSON": {"langfuse.observation.input": '{"q":"hello"}'},
    "output text": {"langfuse.observation.output": "bye"},
    "output JSON": {"langfuse.observation.output": '{"a":"bye"}'},
    "trace input": {"langfuse.trace.input": "hello"},
    "trace output": {"langfuse.trace.output": "bye"},
    "trace name": {"langfuse.trace.name": "chat"},
    "name": {"(name)": "answer"},
    "status": {"(status)": ("error", "too slow")},
    "evaluation": PATCH,
    "trace evaluation": PATCH,
    "annotation": PATCH,
}
