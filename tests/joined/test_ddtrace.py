"""Datadog's tracer and ours in one application: its spans are targets, and its provider is refused with what works.

Run by `make test-backends`, in an environment that has ddtrace.
"""

from __future__ import annotations

import pytest
from ddtrace.opentelemetry import TracerProvider as DatadogProvider
from ddtrace.trace import tracer
from opentelemetry.sdk.trace import TracerProvider

import otel_metadata as om
from otel_metadata.errors import ConfigurationError

tracer.enabled = False  # it has nobody to send to, and makes spans all the same


@pytest.fixture
def store(tmp_path):
    return f"sqlite:///{tmp_path}/spans.db"


def test_its_spans_are_targets(store):
    """Its own and those of its OpenTelemetry interface, live and ended, and their contexts."""
    om.configure(store, tracer_provider=TracerProvider(shutdown_on_exit=False))
    own = tracer.trace("request")
    with DatadogProvider().get_tracer("application").start_as_current_span("inner") as inner:
        assert om.update_span(inner, metadata={"a": 1})
    for target in (own, own.context, inner, inner.get_span_context()):
        assert om.update_span(target, metadata={"late": 1})
        assert om.score_span(target, "Quality", score=1.0)
        assert om.update_trace(target, user_id="u-1")
    own.finish()
    assert om.update_span(own, metadata={"late": 2})
    assert om.flush()
    assert om.stats().destinations["sqlite"].lost == {}


def test_its_provider_takes_no_processors(store):
    """The error names it, and its advice works beside Datadog's spans: ours are in their trace."""
    with pytest.raises(ConfigurationError, match=r"ddtrace\..*TracerProvider") as raised:
        om.configure(store, tracer_provider=DatadogProvider())
    assert "tracer_provider=opentelemetry.sdk.trace.TracerProvider()" in str(raised.value)
    om.configure(store, tracer_provider=TracerProvider(shutdown_on_exit=False))
    with DatadogProvider().get_tracer("application").start_as_current_span("request") as request, om.start_span("ours"):
        om.update_current_span(metadata={"a": 1})
    assert om.flush()
    (record,) = om.Client(store).spans.list()
    assert (record.name, record.metadata) == ("ours", {"a": 1})
    assert record.trace_id == f"{request.get_span_context().trace_id:032x}"
