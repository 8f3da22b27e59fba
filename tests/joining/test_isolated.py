"""A provider of our own inside a span of somebody else's: updates of the trace arrive at every kind of destination."""

from __future__ import annotations

from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from tests.joining.receiver import Receiver

import otel_metadata as om
from otel_metadata.backends.langfuse.dialect import LangfuseDialect
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.testing import RecordingSpanExporter


def answer() -> tuple[om.SpanRef, list[str]]:
    """Trace one request inside a span that no processor of ours sees, and update its trace at every stage."""
    infrastructure = TracerProvider(shutdown_on_exit=False).get_tracer("infrastructure")
    with infrastructure.start_as_current_span("GET /chat"), om.start_span("answer") as span, om.start_span("inner"):
        routes = [om.update_current_trace(user_id="u-1", metadata={"live": 1}).route]
    routes.append(om.update_trace(span, metadata={"in_flight": 1}).route)
    om.flush()
    routes.append(om.update_trace(span, metadata={"late": 1}).route)
    om.flush()
    return span.ref, routes


def test_an_otlp_receiver_gets_all_of_it() -> None:
    """On the local root, and late on a span beside it; nothing is lost."""
    with Receiver() as receiver:
        om.configure(receiver.url, tracer_provider=TracerProvider(shutdown_on_exit=False))
        _, routes = answer()
        stats = om.stats().destinations["otlp"]
        om.shutdown()

    assert routes == ["live", "in_flight", "late"]
    found = receiver.attributes("answer")
    assert (found["user.id"], found["trace.metadata.live"], found["trace.metadata.in_flight"]) == ("u-1", 1, 1)
    assert [patch["trace.metadata.late"] for patch in receiver.patches] == [1]
    assert (stats.delivered, stats.lost) == (3, {})


def test_a_store_has_all_of_it(tmp_path: Path) -> None:
    """Of the trace, for every span of it."""
    url = f"sqlite:///{tmp_path}/spans.db"
    om.configure(url, tracer_provider=TracerProvider(shutdown_on_exit=False))
    ref, _ = answer()
    om.shutdown()

    with om.Client(url) as client:
        found = client.spans.list(trace_id=ref.trace_id)
    assert sorted(one.name for one in found) == ["answer", "inner"]
    assert all(one.trace_metadata == {"live": 1, "in_flight": 1, "late": 1} for one in found)
    assert {one.user_id for one in found} == {"u-1"}


@pytest.mark.parametrize("name", ["answer", "inner"])
def test_langfuse_is_told_who_the_user_is_on_the_local_root(name: str) -> None:
    """As Langfuse wants it: it takes the user from any span, and only the local root says it."""
    spans = RecordingSpanExporter()
    destination = om.Destination("langfuse", spans, InMemoryPatchExporter(), dialect=LangfuseDialect())
    om.configure(destination, tracer_provider=TracerProvider(shutdown_on_exit=False))
    answer()
    om.shutdown()

    (span,) = [one for one in spans.spans if one.name == name]
    attributes = dict(span.attributes or {})
    assert attributes.get("user.id", attributes.get("langfuse.user.id")) == ("u-1" if name == "answer" else None)
