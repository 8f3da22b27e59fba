"""The facts of the golden table: what can be said of a span, each alone on a span of its own."""

from __future__ import annotations

from typing import Final

from otel_metadata.model.evaluation import Annotation, Evaluation, annotation_key
from otel_metadata.model.merge import Field, FieldName, Fields, Json

AT: Final = (1_700_000_000_000_000_000, 7)

PATCH: Final = "patch"
"""In a column: the dialect cannot say it on a span, so it leaves as a patch."""


def _fields(*given: tuple[FieldName, Json]) -> Fields:
    fields: dict[FieldName, Field] = {}
    for place, (name, value) in enumerate(given):
        fields[name] = (value, (AT[0] + place, AT[1]))
    return fields


def _metadata(value: Json) -> Fields:
    return _fields((("span", "metadata", "k"), value))


_VERDICT = Evaluation("Correctness", 0.5, "partly", "half of it", "llm", {"judge": "m"}).to_json()
_NOTE = Annotation("quality", "good", 1.0, "well said", "ann").to_json()

# Every fact is on the local root, but for those whose name ends in "on a child".
FACTS: Final[dict[str, Fields]] = {
    "metadata text": _metadata("x"),
    "metadata text that looks like JSON": _metadata('{"a": 1}'),
    "metadata empty text": _metadata(""),
    "metadata integer": _metadata(0),
    "metadata float": _metadata(0.5),
    "metadata bool": _metadata(False),
    "metadata null": _metadata(None),
    "metadata nested": _metadata({"a": [1, None]}),
    "metadata list of texts": _metadata(["a", "b"]),
    "metadata mixed list": _metadata(["a", 1, None]),
    "metadata dotted key": _fields((("span", "metadata", "a.b"), 1)),
    "metadata two keys": _fields((("span", "metadata", "a"), 1), (("span", "metadata", "b"), "x")),
    "trace metadata": _fields((("trace", "metadata", "k"), "x")),
    "trace metadata on a child": _fields((("trace", "metadata", "k"), "x")),
    "attribute": _fields((("span", "attribute", "app.key"), 5)),
    "type": _fields((("span", "attribute", "openinference.span.kind"), "LLM")),
    "user": _fields((("span", "user_id", ""), "u1")),
    "trace user": _fields((("trace", "user_id", ""), "u1")),
    "session": _fields((("span", "session_id", ""), "s1")),
    "trace session": _fields((("trace", "session_id", ""), "s1")),
    "tags": _fields((("span", "tag", "one"), True), (("span", "tag", "two"), True)),
    "trace tags": _fields((("trace", "tag", "one"), True), (("trace", "tag", "two"), True)),
    "input text": _fields((("span", "input", ""), "hello")),
    "input JSON": _fields((("span", "input", ""), {"q": "hello"})),
    "output text": _fields((("span", "output", ""), "bye")),
    "output JSON": _fields((("span", "output", ""), {"a": "bye"})),
    "trace input": _fields((("trace", "input", ""), "hello")),
    "trace output": _fields((("trace", "output", ""), "bye")),
    "trace name": _fields((("trace", "name", ""), "chat")),
    "name": _fields((("span", "name", ""), "answer")),
    "status": _fields((("span", "status", ""), "error"), (("span", "status_message", ""), "too slow")),
    "evaluation": _fields((("span", "evaluation", "Correctness"), _VERDICT)),
    "trace evaluation": _fields((("trace", "evaluation", "Correctness"), _VERDICT)),
    "annotation": _fields((("span", "annotation", annotation_key("quality", "ann")), _NOTE)),
}
