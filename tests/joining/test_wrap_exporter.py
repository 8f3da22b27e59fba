"""`wrap_exporter`: a destination of any span exporter, in one line."""

from __future__ import annotations

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.joining.receiver import PATCH, Receiver

import otel_metadata as om
from otel_metadata.backends.langfuse import LangfuseDialect
from otel_metadata.errors import ConfigurationError
from otel_metadata.exporters.memory import InMemoryPatchExporter


@pytest.fixture
def provider():
    provider = TracerProvider(shutdown_on_exit=False)
    yield provider
    provider.shutdown()


def work(provider, exporter, **options):
    om.configure(om.wrap_exporter(exporter, **options), tracer_provider=provider)
    with provider.get_tracer("application").start_as_current_span("request") as span:
        om.update_current_span(metadata={"live": 1})
    om.update_span(span, metadata={"after": 2})
    assert om.flush()
    om.update_span(span, metadata={"late": 3})
    assert om.flush()
    return span


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_otlp(provider, protocol):
    """What comes late leaves by the same exporter, on a span beside the target."""
    with Receiver() as receiver:
        exporter = (
            HttpExporter(endpoint=f"{receiver.url}/v1/traces")
            if protocol == "http"
            else GrpcExporter(endpoint=f"http://{receiver.grpc_target}", insecure=True)
        )
        work(provider, exporter)
        om.shutdown()
        assert receiver.names == ["request"]
        sent = receiver.attributes("request")
        assert (sent["metadata.live"], sent["metadata.after"]) == (1, 2)
        assert [patch["metadata.late"] for patch in receiver.patches] == [3]


def test_any_other(provider):
    """An exporter that nobody knows gets what comes late as spans, too; they are of the resource that was named."""
    exporter = InMemorySpanExporter()
    work(provider, exporter, resource=Resource({"service.name": "shop"}))
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert spans["request"].attributes["metadata.after"] == 2
    assert spans[PATCH].attributes["metadata.late"] == 3
    assert spans[PATCH].resource.attributes["service.name"] == "shop"
    assert list(om.stats().destinations) == ["InMemorySpanExporter"]


def test_the_console(provider, capsys):
    """Late values are lines of text."""
    import sys

    work(provider, ConsoleSpanExporter(out=sys.stdout))
    assert "patch 00-" in capsys.readouterr().out


def test_a_patch_exporter_a_name_and_a_dialect(provider):
    """Each may be given."""
    exporter, patches = InMemorySpanExporter(), InMemoryPatchExporter()
    span = work(provider, exporter, patch_exporter=patches, name="mine", dialect=LangfuseDialect())
    (sent,) = exporter.get_finished_spans()
    assert any(name.startswith("langfuse.") for name in sent.attributes)
    assert [patch.target.span_id for patch in patches.patches] == [span.get_span_context().span_id]
    assert list(om.stats().destinations) == ["mine"]


def test_what_is_no_exporter_is_refused():
    """The error says what was got."""
    with pytest.raises(ConfigurationError, match="of type int; expected an OpenTelemetry SpanExporter"):
        om.wrap_exporter(5)


def test_a_class_in_place_of_an_exporter_is_refused():
    """The error says to make one."""
    with pytest.raises(ConfigurationError, match=r"the class InMemorySpanExporter.*InMemorySpanExporter\(\.\.\.\)"):
        om.wrap_exporter(InMemorySpanExporter)
    with pytest.raises(ConfigurationError, match="the class InMemoryPatchExporter"):
        om.wrap_exporter(InMemorySpanExporter(), InMemoryPatchExporter)
    with pytest.raises(ConfigurationError, match="the class InMemorySpanExporter"):
        om.Destination("memory", InMemorySpanExporter, InMemoryPatchExporter())
