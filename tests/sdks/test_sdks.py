"""The SDKs of vendors, unmodified, with the lines of `serve --env` alone: what they say is in the store.

Each runs twice: against a server that asks for no key, and against one that demands a token. The scopes of the token
are those that docs/server.md names.
"""

from __future__ import annotations

from uuid import UUID

import pytest
from tests.sdks.conftest import Server

from otel_metadata.model.evaluation import Evaluation
from otel_metadata.model.record import SpanQuery
from otel_metadata.server.operations import Scope

UPDATING: tuple[Scope, ...] = ("traces:write", "traces:update")


def test_langfuse(server: Server):
    """Spans through OTLP; scores change them."""
    said = server.run("langfuse", scopes=UPDATING)
    spans = server.spans()
    ask, call = spans["ask"], spans["call"]
    assert said == {"signed_in": True, "trace_id": ask.trace_id}
    assert ask.metadata == {"a": 1, "b": {"c": 2}, "text": "7"}
    assert call.metadata == {"g": True}
    assert (ask.trace_metadata, ask.trace_tags, ask.trace_name) == ({"tk": "tv"}, ("t1",), "the trace")
    assert {(one.user_id, one.session_id) for one in (ask, call)} == {("u1", "s1")}
    assert (ask.input, call.output, call.model, call.span_kind) == ("q", "o", "gpt-5", "LLM")
    assert ask.evaluations == {"quality": Evaluation("quality", score=0.9, metadata={"m": 1})}
    assert ask.trace_evaluations == {"verdict": Evaluation("verdict", label="good")}
    assert call.evaluations == {"fine": Evaluation("fine", score=1, label="true")}
    first = server.store.history(ask.trace_id, ask.span_id, ("span", "evaluation", "quality"))[-1]
    assert first.value == {"source": "code", "score": 0.5, "explanation": "c"}


def test_langwatch(server: Server):
    """Its metadata is the trace's, and its update changes the very same keys."""
    said = server.run("langwatch", scopes=UPDATING)
    spans = server.spans()
    answer = spans["answer"]
    assert said == {"trace_id": answer.trace_id, "changed": [200, answer.trace_id]}
    assert (answer.user_id, answer.session_id) == ("u2", "s1")
    assert answer.trace_metadata == {
        "customer_id": "c1",
        "labels": ["late"],
        "env": "staging",
        "region": "eu",
        "o": {"a": 1},
    }
    assert (answer.input, answer.output) == ("hello", {"a": "bye"})
    assert answer.evaluations["Correctness"] == Evaluation(
        "Correctness", score=1.0, label="correct", explanation="because"
    )
    assert spans["step"].span_kind == "TOOL"
    before = server.store.history(answer.trace_id, "", ("trace", "metadata", "env"))
    assert [(one.value, one.route) for one in before] == [("staging", "late"), ("prod", "live")]
    assert before[0].author is not None
    assert before[0].author.startswith("http:" if server.tokens is None else "ada")


@pytest.mark.parametrize("mode", ["batch", "distributed"])
def test_galileo(server: Server, mode: str):
    """Its native ingestion, whole traces or span by span; then its update calls."""
    said = server.run("galileo", mode, scopes=UPDATING)
    spans = server.spans()
    ask, flow, call, find = (spans[name] for name in ("ask", "flow", "call", "find"))
    assert {one.trace_id for one in spans.values()} == {UUID(said["trace"]).hex}
    assert (ask.parent_id, flow.parent_id, call.parent_id, find.parent_id) == (
        None,
        ask.span_id,
        flow.span_id,
        flow.span_id,
    )
    assert {one.project for one in spans.values()} == {"shop"}
    assert {one.span.resource["galileo.logstream.name"] for one in spans.values()} == {"nightly"}
    assert (ask.session_id, ask.trace_metadata, ask.trace_tags) == ("ext-1", {"env": "prod"}, ("t1", "late"))
    assert (ask.trace_input, ask.trace_output) == ("hi", "changed")
    assert (flow.input, flow.output, flow.metadata, flow.tags) == ("wf in", "wf out", {"step": "1"}, ("w",))
    assert flow.span.end_ns - flow.span.start_ns == 5_000
    assert (call.metadata, call.tags, call.model, call.span_kind) == ({"k": "v"}, ("x", "late"), "gpt-5", "LLM")
    assert (call.output, call.status_code) == ("better", 404)
    assert (find.span_kind, find.output) == ("RETRIEVER", [{"content": "a document", "metadata": {}}])
    assert said["answer"]["span_id"] == str(UUID(said["answer"]["span_id"]))
    assert said["answer"]["project_name"] == "shop"


def test_splunk_ao(server: Server):
    """Galileo's successor asks the same at its start, and sends its spans over OTLP."""
    said = server.run("splunk-ao")
    call = server.spans()["chat gpt-5"]
    assert (call.metadata, call.tags, call.session_id) == ({"k": "v"}, ("x",), said["session"])
    assert (call.model, call.project) == ("gpt-5", "shop")


def test_arize(server: Server):
    """Over gRPC, as it does by default."""
    said = server.run("arize")
    (record,) = server.store.query(SpanQuery())
    assert record.trace_id == said["trace_id"]
    assert_openinference(record)
    assert record.project == "shop"


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_phoenix(server: Server, protocol: str):
    """Over gRPC, as it does by default, and over HTTP."""
    said = server.run("phoenix-otel", protocol, settings="phoenix")
    (record,) = server.store.query(SpanQuery())
    assert record.trace_id == said["trace_id"]
    assert_openinference(record)
    assert record.project == "shop"


def assert_openinference(record):
    assert (record.user_id, record.session_id, record.tags) == ("u1", "s1", ("t1", "t2"))
    assert record.metadata == {"a": 1, "o": {"b": [None]}}
    assert (record.input, record.output, record.span_kind) == ("hello", "bye", "CHAIN")


def test_logfire(server: Server):
    server.run("logfire")
    spans = server.spans()
    ask = spans["ask"]
    assert (ask.user_id, ask.session_id, ask.metadata, ask.tags) == ("u1", "s1", {"k": "v"}, ("t1",))
    assert ask.project == "shop"
    assert spans["note {x}"].parent_id == ask.span_id


def test_traceloop(server: Server):
    server.run("traceloop")
    spans = server.spans()
    ask, step = spans["ask.workflow"], spans["step.task"]
    for one in (ask, step):
        assert (one.user_id, one.session_id, one.metadata) == ("u1", "s1", {"env": "prod"})
        assert one.project == "shop"
    assert (ask.span_kind, step.parent_id) == ("CHAIN", ask.span_id)
    assert step.output == '"hi!"'


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_opentelemetry(server: Server, protocol: str):
    server.run("otel", protocol, server.ports[-1])
    ask = server.spans()["ask"]
    assert (ask.metadata, ask.project) == ({"k": "v"}, "shop")


def test_otel_metadata(server: Server):
    """The printed lines are all that its pipeline needs."""
    said = server.run("otel-metadata", scopes=UPDATING)
    ask = server.spans()["ask"]
    assert said == {"routes": ["in_flight", "late"], "delivered": True}
    assert ask.metadata == {"live": 1, "in_flight": 2, "late": 3}
