"""What vendors' SDKs say on a span in attributes of their own, as fields: metadata, user, session, tags. Pure.

OpenInference's and our own attributes are read where all stores read them (`dialects.canonical`). Here are those of
SDKs that send to this server as if it was their vendor's.

| SDK | attribute | field |
|---|---|---|
| Langfuse | `langfuse.observation.metadata.<key>` | metadata of the span |
| | `langfuse.trace.metadata.<key>`, `.name`, `.tags`, `.input`, `.output` | of the trace |
| LangWatch | `metadata`, `metadata.<key>`, `langwatch.metadata.<key>` | metadata of the trace |
| | `langwatch.labels`, `langwatch.customer.id` | `labels` and `customer_id` in the metadata of the trace |
| | `langwatch.user.id`, `langwatch.thread.id`, `gen_ai.conversation.id` | user and session of the trace |
| | `langwatch.input`, `langwatch.output` | input and output of the span, without their type |
| | the event `langwatch.evaluation.custom` | an evaluation of the span |
| Traceloop | `traceloop.association.properties.<key>` | metadata of the span |
| | the same with `user_id` and `session_id` | user and session of the span |
| Logfire | `logfire.tags` | tags of the span |
| Galileo | `galileo.session.id` | session of the span |
| Splunk | `splunk_ao.metadata`, `splunk_ao.tags` | metadata and tags of the span |
| | `gen_ai.conversation.id` | session of the trace |

Other inputs and outputs, model and kind stay attributes: readers find them under every vendor's name
(`model.instrumented`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final, TypeAlias

import msgspec

from otel_metadata.dialects.canonical import texts
from otel_metadata.model.attribute_names import NamesWithout
from otel_metadata.model.evaluation import Evaluation
from otel_metadata.model.merge import PLAIN_ATTRIBUTE_WRITER, Field, FieldName, Fields, Json, Level
from otel_metadata.model.record import StoredSpan
from otel_metadata.model.value import STORE_LIMITS, clean, clean_key
from otel_metadata.server.vendors.langwatch import CUSTOMER, IDS, LABELS

LANGWATCH_PATH: Final = "/api/otel/v1/traces"
"""Where LangWatch's SDK sends spans. LangWatch takes the metadata of every span that comes there for the trace's."""

_PREFIXES: Final = (
    "langfuse.",
    "langwatch.",
    "traceloop.association.",
    "logfire.tags",
    "galileo.session.",
    "splunk_ao.",
)
_NO_FIELDS: Final = NamesWithout(*_PREFIXES)
_SDK_NAME: Final = "langwatch.sdk.name"
"""The attribute of a resource by which a span of LangWatch's SDK is known on any path."""

_CONVERSATION: Final = "gen_ai.conversation.id"
"""OpenTelemetry's attribute, in which LangWatch has the thread of a trace, and Splunk's SDK its session."""

_SPLUNK_SCOPE: Final = "splunk_ao"

_EVALUATION_EVENT: Final = "langwatch.evaluation.custom"

_Found: TypeAlias = "Iterator[tuple[FieldName, Json]]"

_METADATA: Final[tuple[tuple[str, Level], ...]] = (
    ("langfuse.observation.metadata.", "span"),
    ("langfuse.trace.metadata.", "trace"),
    ("traceloop.association.properties.", "span"),
    ("langwatch.metadata.", "trace"),
    ("langwatch.trace.", "trace"),
)
_OBJECTS: Final[Mapping[str, Level]] = {
    "langfuse.observation.metadata": "span",
    "langfuse.trace.metadata": "trace",
    "langfuse.metadata": "trace",
    "langwatch.metadata": "trace",
    "langwatch.trace": "trace",
    "splunk_ao.metadata": "span",
}
_SINGLE: Final[Mapping[str, FieldName]] = {
    "langfuse.trace.name": ("trace", "name", ""),
    "langfuse.trace.input": ("trace", "input", ""),
    "langfuse.trace.output": ("trace", "output", ""),
    "langfuse.user.id": ("span", "user_id", ""),
    "langfuse.session.id": ("span", "session_id", ""),
    "traceloop.association.properties.user_id": ("span", "user_id", ""),
    "traceloop.association.properties.session_id": ("span", "session_id", ""),
    "galileo.session.id": ("span", "session_id", ""),
    # Of each pair, the second is what LangWatch's documentation of its update call has.
    "langwatch.user.id": ("trace", "user_id", ""),
    "langwatch.user_id": ("trace", "user_id", ""),
    "langwatch.thread.id": ("trace", "session_id", ""),
    "langwatch.thread_id": ("trace", "session_id", ""),
    "langwatch.customer.id": ("trace", "metadata", CUSTOMER),
    "langwatch.customer_id": ("trace", "metadata", CUSTOMER),
}
# LangWatch's input and output: an object with the type of the value beside it.
_TYPED: Final[Mapping[str, FieldName]] = {
    "langwatch.input": ("span", "input", ""),
    "langwatch.output": ("span", "output", ""),
}
_TAGS: Final[Mapping[str, Level]] = {"langfuse.trace.tags": "trace", "logfire.tags": "span", "splunk_ao.tags": "span"}

# What LangWatch's SDKs call the reserved keys.
_RESERVED: Final[Mapping[str, str]] = {"userId": "user_id", "threadId": "thread_id", "customerId": CUSTOMER}


def with_vendor_fields(span: StoredSpan, fields: Fields, path: str = "") -> tuple[StoredSpan, Fields]:
    """Return a span without the attributes that are fields in a vendor's spelling, and all its fields.

    A field that the span has already, and one of a later version, stay as they are.

    Args:
        span: The span, without its canonical attributes.
        fields: The fields that those spell.
        path: Where it was sent.
    """
    is_langwatch = path == LANGWATCH_PATH or _SDK_NAME in span.resource or span.scope_name.startswith("langwatch.")
    if not is_langwatch and _NO_FIELDS.include(span.attributes.keys()):
        return span, fields  # nearly every span
    version = (span.end_ns, PLAIN_ATTRIBUTE_WRITER)
    found: dict[FieldName, Field] = {}
    taken: set[str] = set()
    for name in [one for one in span.attributes if one.startswith(_PREFIXES)]:
        spelled = dict(_fields_of(name, span.attributes[name]))
        for (level, kind, key), value in spelled.items():
            found[level, kind, _key(key, kind)] = (value, version)
        # A key that is cut stays whole in the attribute.
        if spelled and all(_key(key, kind) == key for _, kind, key in spelled):
            taken.add(name)
    conversation = span.attributes.get(_CONVERSATION)
    if isinstance(conversation, str) and (is_langwatch or span.scope_name == _SPLUNK_SCOPE):
        found.setdefault(IDS["thread_id"], (conversation, version))
    if is_langwatch:
        fields = dict(_of_trace(fields))
        found |= {field: (value, version) for field, value in _evaluations(span)}
    left = {name: value for name, value in span.attributes.items() if name not in taken}
    return (replace(span, attributes=left) if taken else span), {**found, **fields}


def _fields_of(name: str, value: Json) -> _Found:
    if name in _SINGLE:
        if value is not None:
            yield _SINGLE[name], _parsed(value) if name.startswith("langfuse.trace.") else value
        return
    if name in _TYPED:
        typed = _parsed(value)
        if isinstance(typed, dict) and typed.keys() == {"type", "value"}:
            yield _TYPED[name], typed["value"]
        return
    if name in _TAGS:
        for tag in _listed(value):
            yield (_TAGS[name], "tag", tag), True
        return
    if name == "langwatch.labels":
        yield ("trace", "metadata", LABELS), [*_listed(value)]
        return
    if name in _OBJECTS:
        parsed = _parsed(value)
        for key, item in parsed.items() if isinstance(parsed, dict) else ():
            yield _field(_OBJECTS[name], key, item)
        return
    prefix, level = next(((one, level) for one, level in _METADATA if name.startswith(one)), ("", "span"))
    key = name.removeprefix(prefix)
    if prefix and key:
        yield _field(level, key, value if prefix.startswith("traceloop.") else _parsed(value), prefix)


def _key(key: str, kind: str) -> str:
    return clean_key(key, [], kind) if key or kind in {"metadata", "tag"} else key


def _field(level: Level, key: str, value: Json, prefix: str = "langwatch.") -> tuple[FieldName, Json]:
    name: FieldName = (level, "metadata", key)
    return _placed(name, value) if level == "trace" and prefix.startswith("langwatch.") else (name, value)


def _of_trace(fields: Fields) -> Iterator[tuple[FieldName, Field]]:
    """Yield fields with the metadata of the span as that of its trace, where they came as plain attributes."""
    for name, (value, version) in fields.items():
        level, kind, key = name
        if version[1] == PLAIN_ATTRIBUTE_WRITER and level == "span" and kind == "metadata":
            field, value = _placed(("trace", "metadata", key), value)  # noqa: PLW2901 # the same value in its place
            yield field, (value, version)
        else:
            yield name, (value, version)


def _placed(name: FieldName, value: Json) -> tuple[FieldName, Json]:
    """Return a key of a trace's metadata where LangWatch's calls have it too."""
    key = _RESERVED.get(name[2], name[2])
    if key in IDS:
        return IDS[key], value
    if key == LABELS:
        return ("trace", "metadata", LABELS), [*_listed(value)]
    return ("trace", "metadata", key), value


def _evaluations(span: StoredSpan) -> _Found:
    for event in span.events:
        attributes = event.get("attributes")
        if event.get("name") != _EVALUATION_EVENT or not isinstance(attributes, dict):
            continue
        said = _parsed(attributes.get("json_encoded_event"))
        name = said.get("name") if isinstance(said, dict) else None
        if isinstance(said, dict) and isinstance(name, str) and name:
            passed = said.get("passed")
            label = said.get("label")
            if label is None and isinstance(passed, bool):
                label = "passed" if passed else "failed"
            parts = {"score": said.get("score"), "label": label, "explanation": said.get("details")}
            key = clean_key(name, [], "evaluation")
            yield ("span", "evaluation", key), Evaluation.from_json(key, parts).to_json()


def _listed(value: Json) -> list[str]:
    """Return texts from a list, from the JSON text of one, or from a text with commas."""
    parsed = _parsed(value)
    if isinstance(parsed, str) and parsed == value:
        return [one for part in value.split(",") if (one := part.strip())]
    return texts(parsed)


def _parsed(value: Json) -> Json:
    """Return the value of a JSON text; the text itself if it is not JSON, or cannot be stored whole as a value."""
    if not isinstance(value, str):
        return value
    notes: list[str] = []
    try:
        parsed = clean(msgspec.json.decode(value), notes, "", STORE_LIMITS)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return value
    return value if notes else parsed
