"""Tracer providers are told by what they can do, and joined without removing anything from them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import otel_metadata as om
from otel_metadata.errors import ConfigurationError
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.testing import RecordingSpanExporter


@pytest.fixture
def real():
    provider = TracerProvider(resource=Resource({"service.name": "shop"}), shutdown_on_exit=False)
    yield provider
    provider.shutdown()


@pytest.fixture
def memory():
    return om.Destination("memory", RecordingSpanExporter(), InMemoryPatchExporter())


@dataclass
class Proxy(trace.TracerProvider):
    """As Logfire's: it compares by value, so it has no hash."""

    provider: TracerProvider

    def get_tracer(self, *arguments, **options):
        return self.provider.get_tracer(*arguments, **options)

    def add_span_processor(self, processor):
        self.provider.add_span_processor(processor)


@dataclass
class ProxyWithoutProcessors(trace.TracerProvider):
    """One that gives tracers alone."""

    _delegate: trace.TracerProvider

    def get_tracer(self, *arguments, **options):
        return self._delegate.get_tracer(*arguments, **options)


class Slotted:
    """No proxy: a provider that keeps its processors by itself, and has no resource."""

    __slots__ = ("__weakref__", "_sdk")

    def __init__(self, sdk):
        self._sdk = sdk

    def get_tracer(self, *arguments, **options):
        return self._sdk.get_tracer(*arguments, **options)

    def add_span_processor(self, processor):
        self._sdk.add_span_processor(processor)


class Replacing(TracerProvider):
    """As Phoenix's: the first processor that is added takes the place of the default."""

    def __init__(self, exporter):
        super().__init__(shutdown_on_exit=False)
        super().add_span_processor(SimpleSpanProcessor(exporter))
        self._default_processor = True

    def add_span_processor(self, processor, replace_default_processor=True):
        if self._default_processor and replace_default_processor:
            self._active_span_processor.shutdown()
            self._active_span_processor._span_processors = ()
            self._default_processor = False
        super().add_span_processor(processor)


class ReplacingWithoutAsking(Replacing):
    """As arize-otel's, and Phoenix's before it could be asked not to."""

    def add_span_processor(self, processor):
        super().add_span_processor(processor)


PROXIES = {
    "a proxy": Proxy,
    "a proxy of a proxy": lambda real: Proxy(Proxy(real)),
    "a proxy that takes no processors": ProxyWithoutProcessors,
    "one without a class of OpenTelemetry's": Slotted,
    "the SDK's own": lambda real: real,
}


@pytest.mark.parametrize("make", PROXIES.values(), ids=PROXIES)
def test_what_takes_processors_is_joined(real, memory, make):
    """Spans of its tracers and of ours arrive, and a second configure takes the same place."""
    proxy = make(real)
    for _ in range(3):
        om.configure(memory, tracer_provider=proxy)
    with proxy.get_tracer("application").start_as_current_span("request"), om.start_span("ours"):
        pass
    assert om.flush()
    assert sorted(span.name for span in memory.span_exporter.spans) == ["ours", "request"]
    assert len(real._active_span_processor._span_processors) == 1


@pytest.mark.parametrize("make", [Replacing, ReplacingWithoutAsking])
def test_a_default_processor_stays(memory, make):
    """The application's exporter gets every span, as does the destination."""
    exporter = InMemorySpanExporter()
    provider = make(exporter)
    om.configure(memory, tracer_provider=provider)
    with provider.get_tracer("application").start_as_current_span("request"):
        pass
    assert om.flush()
    assert [span.name for span in exporter.get_finished_spans()] == ["request"]
    assert [span.name for span in memory.span_exporter.spans] == ["request"]
    provider.shutdown()


@pytest.mark.parametrize("wrong", [5, object(), trace.NoOpTracerProvider(), InMemorySpanExporter()])
def test_what_takes_none_is_refused_with_what_works(memory, wrong):
    """The error names it, and its advice can be followed as it is written."""
    with pytest.raises(ConfigurationError, match="takes span processors") as raised:
        om.configure(memory, tracer_provider=wrong)
    advice = "configure(..., tracer_provider=opentelemetry.sdk.trace.TracerProvider())"
    assert advice in str(raised.value)
    om.configure(memory, tracer_provider=TracerProvider(shutdown_on_exit=False))
    with om.start_span("ours"):
        pass
    assert om.flush()
    assert [span.name for span in memory.span_exporter.spans] == ["ours"]


def test_additions_work_as_before(real, memory):
    """A processor that is added after configure is there, and what refuses one still refuses it."""
    om.configure(memory, tracer_provider=real)
    exporter = InMemorySpanExporter()
    assert real.add_span_processor(SimpleSpanProcessor(exporter)) is None
    with pytest.raises(TypeError):
        real.add_span_processor()
    with real.get_tracer("application").start_as_current_span("request"):
        pass
    assert [span.name for span in exporter.get_finished_spans()] == ["request"]
