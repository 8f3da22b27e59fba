"""Spans as a backend has to see them: what is altered, and that all else stays."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanContext, TraceFlags
from tests.exporters.loopback import Loopback, reply

from otel_metadata.backends.galileo.spans import routed
from otel_metadata.backends.mlflow.spans import quoted, readable
from otel_metadata.backends.phoenix.spans import storable
from otel_metadata.exporters.altered_spans import AlteredSpans, altered
from otel_metadata.exporters.otlp_http import OtlpHttpSender
from otel_metadata.model.outcome import Delivered

CONTEXT = SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
RESOURCE = Resource({"service.name": "shop"})


def span(**attributes: Any) -> ReadableSpan:
    return ReadableSpan("work", CONTEXT, resource=RESOURCE, attributes=attributes, start_time=1, end_time=2)


def test_a_view_has_what_was_altered_and_all_else_of_its_span():
    """Resource and attributes each by itself; the span is as it was."""
    own = span(a=1)
    other = Resource({"service.name": "other"})
    assert altered(own, resource=other).resource is other
    assert altered(own, resource=other).attributes == {"a": 1}
    assert altered(own, attributes={"b": 2}).attributes == {"b": 2}
    assert altered(own, attributes={"b": 2}).resource is own.resource is RESOURCE
    assert altered(own, attributes={}).attributes == {}
    assert (altered(own, attributes={}).name, altered(own, attributes={}).dropped_attributes) == ("work", 0)
    assert own.attributes == {"a": 1}


def test_each_span_is_sent_as_it_was_altered():
    """By either way of an exporter, and closing it closes the sender."""
    seen: list[str] = []

    def alter(one: ReadableSpan) -> ReadableSpan:
        seen.append(one.name)
        return altered(one, attributes={"altered": True})

    with Loopback(reply(200, b"")) as server:
        exporter = AlteredSpans(OtlpHttpSender(f"{server.url}/v1/traces", headers={}), alter)
        assert exporter.send([span(), span()], timeout_millis=5_000) == Delivered()
        assert exporter.export([span()]) is SpanExportResult.SUCCESS
        assert exporter.force_flush()
        exporter.shutdown()
        assert exporter.export([span()]) is SpanExportResult.FAILURE
    assert seen == ["work"] * 4
    assert repr(exporter) == f"<AlteredSpans <OtlpHttpSender {server.url}/v1/traces>>"


UNREADABLE = [
    '"quoted"',
    ' ""',
    '{"id": 9223372036854775808}',
    "[1000000000000000000000000000000]",
    '{"a":' * 33 + "1" + "}" * 33,
    "[" * 100_000 + "]" * 100_000,
    '{"a": 1e400}',
]
READABLE = ['{"a": [1, null]}', "[]", "123", "null", "{no JSON", '"', "{" * 100_000, "1" * 5_000, ""]


@pytest.mark.parametrize("text", UNREADABLE, ids=lambda text: text[:30])
def test_a_text_that_mlflow_would_not_give_back_is_in_quotes(text):
    """MLflow takes off the quotes that are put around it."""
    assert json.loads(quoted(text)) == text
    attributes = readable(span(own=text, number=1, texts=("a", text))).attributes
    assert attributes == {"own": quoted(text), "number": 1, "texts": ("a", text)}


@pytest.mark.parametrize("text", READABLE, ids=lambda text: text[:30])
def test_any_other_text_is_as_it_was_for_mlflow(text):
    """What it reads into structure stays so: a prompt and an answer are shown as what they are."""
    one = span(own=text)
    assert readable(one) is one


def test_a_span_says_on_its_resource_where_galileo_is_to_put_it():
    """What it says of its session is copied; of an experiment's span no log stream; of any other nothing is touched."""
    other = span(own=1)
    assert routed(other) is other
    session = {"galileo.session.id": "s", "galileo.logstream.name": "nightly"}
    assert routed(span(**session)).resource.attributes == {"service.name": "shop", **session}
    experiment = routed(span(**session, **{"galileo.experiment.id": "e"}))
    assert experiment.resource.attributes == {
        "service.name": "shop", "galileo.session.id": "s", "galileo.experiment.id": "e",
    }  # fmt: skip
    assert dict(experiment.attributes or {}) == {**session, "galileo.experiment.id": "e"}


@pytest.mark.parametrize(
    "name", ["metadata", "llm.prompt_template.variables", "tool.parameters", "retrieval.documents.0.document.metadata"]
)
def test_an_integer_that_phoenix_cannot_store_is_text(name):
    """In the attributes that it reads as JSON, and in no other."""
    text = '{"id": 12345678901234567890, "n": 1}'
    attributes = storable(span(**{name: text, "output.value": text})).attributes or {}
    assert json.loads(str(attributes[name])) == {"id": "12345678901234567890", "n": 1}
    assert attributes["output.value"] == text


@pytest.mark.parametrize("text", ['{"a": 1}', "{no JSON", "[" * 100_000, "", "5"])
def test_what_phoenix_can_store_or_does_not_read_is_left(text):
    """The span itself is sent."""
    one = span(metadata=text, number=1)
    assert storable(one) is one
