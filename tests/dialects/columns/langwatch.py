"""The `langwatch` column of the golden table."""

from __future__ import annotations

from tests.dialects.facts import PATCH

from otel_metadata.backends.langwatch.dialect import LangWatchDialect

DIALECT = LangWatchDialect()

EXPECTED = {
    "metadata text": {"metadata": '{"k":"x"}'},
    "metadata text that looks like JSON": {"metadata": r'{"k":"{\"a\": 1}"}'},
    "metadata empty text": {"metadata": '{"k":""}'},
    "metadata integer": {"metadata": '{"k":0}'},
    "metadata float": {"metadata": '{"k":0.5}'},
    "metadata bool": {"metadata": '{"k":false}'},
    # A null would be dropped; all else reads as text there too.
    "metadata null": {"metadata": '{"k":"null"}'},
    "metadata nested": {"metadata": '{"k":{"a":[1,null]}}'},
    "metadata list of texts": {"metadata": '{"k":["a","b"]}'},
    "metadata mixed list": {"metadata": '{"k":["a",1,null]}'},
    "metadata dotted key": {"metadata": '{"a.b":1}'},
    "metadata two keys": {"metadata": '{"a":1,"b":"x"}'},
    "trace metadata": {"metadata": '{"k":"x"}'},
    "trace metadata on a child": PATCH,
    "attribute": {"app.key": 5},
    "type": {"openinference.span.kind": "LLM"},
    "user": {"langwatch.user.id": "u1"},
    "trace user": {"langwatch.user.id": "u1"},
    "session": {"langwatch.thread.id": "s1"},
    "trace session": {"langwatch.thread.id": "s1"},
    "tags": {"langwatch.labels": ["one", "two"]},
    "trace tags": {"langwatch.labels": ["one", "two"]},
    "input text": {"langwatch.input": '{"type":"text","value":"hello"}'},
    "input JSON": {"langwatch.input": '{"type":"json","value":{"q":"hello"}}'},
    "output text": {"langwatch.output": '{"type":"text","value":"bye"}'},
    "output JSON": {"langwatch.output": '{"type":"json","value":{"a":"bye"}}'},
    "trace input": {"langwatch.input": '{"type":"text","value":"hello"}'},
    "trace output": {"langwatch.output": '{"type":"text","value":"bye"}'},
    # There is no such word; a trace is called what its root is called.
    "trace name": {"trace.name": "chat"},
    "name": {"(name)": "answer"},
    "status": {"(status)": ("error", "too slow")},
    "evaluation": PATCH,
    "trace evaluation": PATCH,
    "annotation": PATCH,
}
