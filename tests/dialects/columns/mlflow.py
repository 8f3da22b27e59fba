"""What MLflow reads: span metadata as one JSON text, facts of the trace as tags on its root, verdicts as a patch."""

from __future__ import annotations

from typing import Any

from tests.dialects.facts import PATCH

from otel_metadata.backends.mlflow.dialect import MlflowDialect

DIALECT = MlflowDialect()

EXPECTED: dict[str, dict[str, Any] | str] = {
    "metadata text": {"metadata": '{"k":"x"}'},
    "metadata text that looks like JSON": {"metadata": '{"k":"{\\"a\\": 1}"}'},
    "metadata empty text": {"metadata": '{"k":""}'},
    "metadata integer": {"metadata": '{"k":0}'},
    "metadata float": {"metadata": '{"k":0.5}'},
    "metadata bool": {"metadata": '{"k":false}'},
    "metadata null": {"metadata": '{"k":null}'},
    "metadata nested": {"metadata": '{"k":{"a":[1,null]}}'},
    "metadata list of texts": {"metadata": '{"k":["a","b"]}'},
    "metadata mixed list": {"metadata": '{"k":["a",1,null]}'},
    "metadata dotted key": {"metadata": '{"a.b":1}'},
    "metadata two keys": {"metadata": '{"a":1,"b":"x"}'},
    "trace metadata": {"mlflow.traceTag.k": "x"},
    "trace metadata on a child": PATCH,
    "attribute": {"app.key": 5},
    "type": {"openinference.span.kind": "LLM"},
    "user": {"user.id": "u1"},
    "trace user": {"user.id": "u1"},
    "session": {"session.id": "s1"},
    "trace session": {"session.id": "s1"},
    "tags": {"tag.tags": ["one", "two"]},
    "trace tags": {"mlflow.traceTag.tag.one": "true", "mlflow.traceTag.tag.two": "true"},
    "input text": {"input.value": "hello", "input.mime_type": "text/plain"},
    "input JSON": {"input.value": '{"q":"hello"}', "input.mime_type": "application/json"},
    "output text": {"output.value": "bye", "output.mime_type": "text/plain"},
    "output JSON": {"output.value": '{"a":"bye"}', "output.mime_type": "application/json"},
    "trace input": {"trace.input.value": "hello", "trace.input.mime_type": "text/plain"},
    "trace output": {"trace.output.value": "bye", "trace.output.mime_type": "text/plain"},
    "trace name": {"mlflow.traceTag.mlflow.traceName": "chat"},
    "name": {"(name)": "answer"},
    "status": {"(status)": ("error", "too slow")},
    "evaluation": PATCH,
    "trace evaluation": PATCH,
    "annotation": PATCH,
}
