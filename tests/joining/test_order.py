"""What is said where tracing is set up after `configure()`, or again."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import dataclass

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

import otel_metadata as om
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.testing import RecordingSpanExporter

PROGRAM = """
import logging, sys
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
import otel_metadata as om
if sys.argv[2] == "first":
    trace.set_tracer_provider(TracerProvider())
om.configure(sys.argv[1])
with om.start_span("work"):
    om.update_current_span(metadata={"a": 1})
print(om.flush())
"""


@pytest.fixture
def provider():
    provider = TracerProvider(shutdown_on_exit=False)
    yield provider
    provider.shutdown()


def memory():
    return om.Destination("memory", RecordingSpanExporter(), InMemoryPatchExporter())


def said(caplog, text):
    return [record for record in caplog.records if record.name == "otel_metadata" and text in record.getMessage()]


@pytest.mark.parametrize("order", ["first", "never"])
def test_a_global_provider_that_configure_makes_is_said(tmp_path, order):
    """In an INFO line, which the plain use does not show; an application that was first gets no line."""
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, f"sqlite:///{tmp_path}/spans.db", order],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "True\n"
    lines = [line for line in run.stderr.splitlines() if " otel_metadata " in line]
    if order == "first":
        assert lines == []
    else:
        (line,) = lines
        assert line.startswith("INFO otel_metadata There was no global tracer provider")
        assert "call configure() after that" in line


def test_an_update_of_a_span_of_another_provider_is_said_once(provider, caplog, monkeypatch):
    """The span's own exporters have it. Configured again, it is said again."""
    monkeypatch.setattr("otel_metadata.reporting.REPEAT_AFTER_NS", 0)
    other = TracerProvider(shutdown_on_exit=False).get_tracer("application")
    for turn in (1, 2):
        om.configure(memory(), tracer_provider=provider)
        caplog.clear()
        for _ in range(3):
            with other.start_as_current_span("request") as span:
                assert om.update_current_span(metadata={"a": turn}).route == "live"
            assert span.attributes["metadata.a"] == turn
        (record,) = said(caplog, "another tracer provider")
        assert record.levelno == logging.WARNING


@dataclass
class Proxy(trace.TracerProvider):
    """As Logfire's: set up again, it shuts down what it had and goes on with another."""

    provider: TracerProvider

    def get_tracer(self, *arguments, **options):
        return ProxyTracer(self)

    def add_span_processor(self, processor):
        self.provider.add_span_processor(processor)

    def set_up_again(self):
        self.provider.shutdown()
        self.provider = TracerProvider(shutdown_on_exit=False)


@dataclass
class ProxyTracer(trace.Tracer):
    proxy: Proxy

    def start_span(self, *arguments, **options):
        return self.proxy.provider.get_tracer("proxy").start_span(*arguments, **options)

    def start_as_current_span(self, *arguments, **options):
        return self.proxy.provider.get_tracer("proxy").start_as_current_span(*arguments, **options)


def update():
    assert om.update_span(om.SpanRef(1, 1), metadata={"a": 1}).reason == "after_shutdown"


def open_a_span():
    with om.start_span("work"):
        pass


@om.observe
def observed():
    return 1


@pytest.mark.parametrize("late", [update, open_a_span, observed])
def test_a_provider_that_is_set_up_again_ends_the_pipeline_aloud(provider, caplog, late):
    """What comes afterwards is told of, and a flush is false, until `configure` is called again."""
    proxy = Proxy(provider)
    pipeline = om.configure(memory(), tracer_provider=proxy)
    open_a_span()
    proxy.set_up_again()
    assert om.flush()  # what waited has arrived, and nothing has come since
    assert not said(caplog, "shut down or replaced")

    late()
    (record,) = said(caplog, "shut down or replaced; call otel_metadata.configure() again")
    assert record.levelno == logging.WARNING
    assert not said(caplog, "after shutdown()")
    assert not om.flush()
    assert not pipeline.flush()

    again = memory()
    om.configure(again, tracer_provider=proxy)
    open_a_span()
    assert om.flush()
    assert [span.name for span in again.span_exporter.spans] == ["work"]
    proxy.provider.shutdown()


def test_spans_of_a_provider_that_was_shut_down_are_told_of(provider, caplog):
    """The application's own, which come to our processor all the same where the SDK still starts them."""
    om.configure(memory(), tracer_provider=provider)
    tracer = provider.get_tracer("application")
    provider.shutdown()
    with tracer.start_as_current_span("request") as span:
        is_started = span.is_recording()
    assert bool(said(caplog, "shut down or replaced")) == is_started
    assert om.flush() == (not is_started)


def test_an_end_that_was_asked_for_is_not_told_of(provider, caplog):
    """`shutdown`, before the provider's or after it, and a pipeline that another one took over."""
    om.configure(memory(), tracer_provider=provider)
    om.configure(memory(), tracer_provider=provider)
    om.shutdown()
    provider.shutdown()
    open_a_span()
    update()
    assert not said(caplog, "shut down or replaced")

    second = TracerProvider(shutdown_on_exit=False)
    om.configure(memory(), tracer_provider=second)
    second.shutdown()
    om.shutdown()
    open_a_span()
    assert not said(caplog, "shut down or replaced")
    assert om.flush()


def test_the_end_of_the_process_is_not_told_of(tmp_path):
    """The provider shuts us down among the exit handlers; a span after that is nobody's loss to tell of."""
    program = "import atexit\nimport otel_metadata as om\natexit.register(lambda: om.start_span('end').__enter__())\n"
    run = subprocess.run(
        [sys.executable, "-c", program + PROGRAM, f"sqlite:///{tmp_path}/spans.db", "first"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (run.stdout, run.stderr) == ("True\n", "")
