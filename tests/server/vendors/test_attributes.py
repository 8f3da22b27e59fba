"""What vendors' SDKs say on spans is found where our own fields are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from otel_metadata.model.evaluation import Evaluation
from otel_metadata.model.record import SpanRecord, StoredSpan, assemble
from otel_metadata.server.vendors.attributes import LANGWATCH_PATH, with_vendor_fields
from otel_metadata.store.rows import with_fields


def read(attributes: dict[str, Any], path: str = "/v1/traces", **parts: Any) -> SpanRecord:
    """Return the record of a span with these attributes, as the server stores it."""
    span = StoredSpan(
        **{
            "trace_id": "a" * 32,
            "span_id": "b" * 16,
            "parent_id": None,
            "trace_state": "",
            "name": "n",
            "kind": "INTERNAL",
            "start_ns": 1,
            "end_ns": 2,
            "status_code": "UNSET",
            "status_message": None,
            "attributes": attributes,
            "events": (),
            "links": (),
            "resource": {},
            "scope_name": "",
            "scope_version": None,
            **parts,
        }
    )
    return assemble(*with_vendor_fields(*with_fields(span, {}), path))


def test_langfuse():
    """As SDK 5 writes them; and a text that is no JSON, as older ones do."""
    record = read(
        {
            "user.id": "u1",
            "session.id": "s1",
            "langfuse.trace.name": "tn",
            "langfuse.trace.tags": ["t1", "t2"],
            "langfuse.trace.metadata.tk": '"tv"',
            "langfuse.trace.input": '{"q":1}',
            "langfuse.observation.metadata.a": "1",
            "langfuse.observation.metadata.b": '{"c":2}',
            "langfuse.observation.metadata.raw": "no JSON",
            "langfuse.observation.metadata.dotted.key": "true",
            "langfuse.observation.type": "generation",
            "langfuse.observation.input": "q",
            "langfuse.environment": "prod",
        }
    )
    assert record.metadata == {"a": 1, "b": {"c": 2}, "raw": "no JSON", "dotted.key": True}
    assert record.trace_metadata == {"tk": "tv"}
    assert (record.trace_name, record.trace_tags, record.trace_input) == ("tn", ("t1", "t2"), {"q": 1})
    assert (record.user_id, record.session_id, record.input, record.span_kind) == ("u1", "s1", "q", "LLM")
    assert record.attributes.keys() == {
        "langfuse.observation.type",
        "langfuse.observation.input",
        "langfuse.environment",
    }


def test_nothing_of_a_value_or_key_is_lost():
    """A long value is stored whole; a key that is cut stays whole in the attribute; what cannot be JSON stays text."""
    long = {"text": "é" * 600_000, "rows": [[number] * 20 for number in range(2_000)]}
    deep = "[" * 80 + "]" * 80
    attributes = {
        "langfuse.observation.metadata.long": json.dumps(long),
        "langfuse.observation.metadata.deep": deep,
        "langfuse.observation.metadata.huge": "[1180591620717411303424]",
        f"langfuse.observation.metadata.{'k' * 300}": "1",
        "langfuse.trace.metadata": json.dumps({"k" * 300: 1, "fine": 2}),
        "langfuse.trace.tags": ["t" * 300, "fine"],
    }
    record = read(attributes)
    assert record.metadata["long"] == long
    assert (record.metadata["deep"], record.metadata["huge"]) == (deep, "[1180591620717411303424]")
    assert "fine" in record.trace_tags
    kept = {name: value for name, value in attributes.items() if "k" * 300 in f"{name}{value}" or "t" * 300 in value}
    assert {name: record.attributes[name] for name in kept} == kept
    assert record.attributes.keys().isdisjoint(attributes.keys() - kept)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [(["a", "b"], ("a", "b")), ('["a","b"]', ("a", "b")), ("a, b", ("a", "b")), ("a", ("a",)), ("", ()), ([], ())],
)
def test_tags_in_every_form(tags, expected):
    assert read({"langfuse.trace.tags": tags}).trace_tags == expected


def test_whole_objects_of_langfuse():
    record = read({"langfuse.observation.metadata": '{"a":1}', "langfuse.trace.metadata": '{"b":2}'})
    assert (record.metadata, record.trace_metadata) == ({"a": 1}, {"b": 2})
    assert read({"langfuse.observation.metadata": "no object"}).attributes  # nothing is lost


LANGWATCH = {"langwatch.sdk.name": "langwatch-observability-sdk"}


@pytest.mark.parametrize(("path", "resource"), [("/v1/traces", LANGWATCH), (LANGWATCH_PATH, {})])
def test_langwatch(path, resource):
    """Its metadata is that of the trace, under the keys of its update call."""
    record = read(
        {
            "metadata": json.dumps(
                {
                    "user_id": "u1",
                    "thread_id": "s1",
                    "customer_id": "c1",
                    "labels": ["qa"],
                    "env": "prod",
                    "o": {"a": 1},
                }
            ),
            "langwatch.metadata.more": "7",
            "langwatch.input": '{"type": "text", "value": "hello"}',
        },
        path,
        resource=resource,
    )
    assert (record.user_id, record.session_id) == ("u1", "s1")
    assert record.trace_metadata == {"customer_id": "c1", "labels": ["qa"], "env": "prod", "o": {"a": 1}, "more": 7}
    assert (record.metadata, record.tags, record.trace_tags, record.input) == ({}, (), (), "hello")


def test_langwatchs_own_names():
    record = read(
        {
            "langwatch.user.id": "u",
            "langwatch.thread.id": "t",
            "langwatch.customer.id": "c",
            "langwatch.labels": '["a","b"]',
        }
    )
    assert (record.user_id, record.session_id) == ("u", "t")
    assert record.trace_metadata == {"customer_id": "c", "labels": ["a", "b"]}
    record = read({"langwatch.user_id": "u", "langwatch.customer_id": "c", "langwatch.output": '{"a":1}'})
    assert (record.user_id, record.trace_metadata, record.output) == ("u", {"customer_id": "c"}, {"a": 1})
    record = read({"metadata": '{"userId": "u", "threadId": "t", "customerId": "c"}'}, LANGWATCH_PATH)
    assert (record.user_id, record.session_id, record.trace_metadata) == ("u", "t", {"customer_id": "c"})


def test_a_conversation_is_langwatchs_thread():
    """Of its SDK and of the span that its server makes of an update; elsewhere it stays an attribute alone."""
    conversation = {"gen_ai.conversation.id": "c1"}
    assert read(conversation, LANGWATCH_PATH).session_id == "c1"
    assert read(conversation, scope_name="langwatch.api.metadata_update").session_id == "c1"
    assert read({**conversation, "langwatch.thread.id": "t"}, LANGWATCH_PATH).session_id == "t"
    record = read(conversation)
    assert (record.session_id, record.attributes) == (None, conversation)


def test_langwatchs_evaluations():
    def event(**said: Any) -> dict[str, Any]:
        attributes = {"json_encoded_event": json.dumps(said)}
        return {"name": "langwatch.evaluation.custom", "time_ns": 1, "attributes": attributes}

    record = read(
        {},
        resource=LANGWATCH,
        events=(
            event(name="Correctness", score=1.0, label="correct", details="because", passed=None),
            event(name="Safe", passed=False),
            event(score=1),
        ),
    )
    assert record.evaluations == {
        "Correctness": Evaluation("Correctness", score=1.0, label="correct", explanation="because"),
        "Safe": Evaluation("Safe", label="failed"),
    }


def test_metadata_elsewhere_is_the_spans():
    """Only LangWatch takes it for the trace's."""
    assert read({"metadata": '{"a":1}', "metadata.b": 2}).metadata == {"a": 1, "b": 2}


def test_traceloop():
    record = read(
        {
            "traceloop.association.properties.user_id": "u1",
            "traceloop.association.properties.session_id": "s1",
            "traceloop.association.properties.env": "prod",
            "traceloop.association.properties.number": "7",
            "traceloop.span.kind": "workflow",
            "traceloop.entity.input": '{"args": ["hi"]}',
        }
    )
    assert (record.user_id, record.session_id, record.metadata) == ("u1", "s1", {"env": "prod", "number": "7"})
    assert record.span_kind == "CHAIN"


def test_logfire_galileo_splunk():
    assert read({"logfire.tags": ["t1"]}).tags == ("t1",)
    assert read({"galileo.session.id": "s"}).session_id == "s"
    splunk = {"splunk_ao.metadata": '{"a":1}', "splunk_ao.tags": ["t"], "gen_ai.conversation.id": "s"}
    record = read(splunk, scope_name="splunk_ao")
    assert (record.metadata, record.tags, record.session_id) == ({"a": 1}, ("t",), "s")


def test_what_the_span_says_in_our_own_words_wins():
    record = read(
        {"user.id": "ours", "langfuse.user.id": "theirs", "metadata.a": 1, "langfuse.observation.metadata.a": "2"}
    )
    assert (record.user_id, record.metadata) == ("ours", {"a": 1})


def test_other_spans_are_left_alone():
    """The same objects, nothing copied."""
    span = StoredSpan(
        "a" * 32, "b" * 16, None, "", "n", "INTERNAL", 1, 2, "OK", None, {"http.method": "GET"}, (), (), {}, "", None
    )
    fields: dict[Any, Any] = {}
    assert with_vendor_fields(span, fields)[0] is span
    assert with_vendor_fields(span, fields)[1] is fields
