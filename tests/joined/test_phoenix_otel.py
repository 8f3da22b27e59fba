"""Phoenix's `register` and ours in one application: its provider replaces a default processor unless told not to.

Run by `make test-backends`, in an environment that has arize-phoenix-otel.
"""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from phoenix.otel import TracerProvider, register
from tests.joining.receiver import Receiver

import otel_metadata as om
from otel_metadata.joining.addresses import Address, address_of, is_same


@pytest.fixture
def receiver(monkeypatch):
    with Receiver() as receiver:
        monkeypatch.setenv("PHOENIX_COLLECTOR_ENDPOINT", receiver.url)
        yield receiver


@pytest.fixture(params=[("http", True), ("http", False), ("grpc", True)], ids=["batch", "simple", "grpc"])
def provider(receiver, request):
    protocol, batch = request.param
    made = register(
        endpoint=f"{receiver.url}/v1/traces" if protocol == "http" else f"http://{receiver.grpc_target}",
        protocol="http/protobuf" if protocol == "http" else "grpc",
        batch=batch,
        project_name="shop",
        set_global_tracer_provider=False,
        verbose=False,
    )
    yield made
    made.shutdown()


def work(provider):
    with provider.get_tracer("application").start_as_current_span("request") as span:
        om.update_current_span(metadata={"live": 1})
        with om.start_span("ours"):
            pass
    return span


def test_phoenix_gets_every_span_beside_a_store(receiver, provider, tmp_path):
    """Its own processor stays; what was set live is on its spans as well."""
    store = f"sqlite:///{tmp_path}/spans.db"
    om.configure(store, tracer_provider=provider)
    span = work(provider)
    om.update_span(span, metadata={"after": 2})
    provider.force_flush()
    assert om.flush()
    assert receiver.names == ["ours", "request"]
    assert receiver.attributes("request")["metadata.live"] == 1
    found = {record.name: record.metadata for record in om.Client(store).spans.list()}
    assert found == {"request": {"live": 1, "after": 2}, "ours": {}}


@pytest.mark.parametrize("adopt", [False, True], ids=["beside", "adopt"])
def test_every_span_arrives_once(receiver, provider, adopt):
    """`register` and `configure("phoenix")` send to one place, over HTTP as over gRPC."""
    om.configure("phoenix", tracer_provider=provider, adopt=adopt)
    span = work(provider)
    assert om.update_span(span, metadata={"after": 2}).route == ("in_flight" if adopt else "late")
    provider.force_flush()
    om.flush()
    assert receiver.names == ["ours", "request"]
    if adopt:
        assert '"after": 2' in receiver.attributes("request")["metadata"].replace('":2', '": 2')


@pytest.mark.parametrize("adopt", [False, True], ids=["beside", "adopt"])
@pytest.mark.parametrize("first", ["theirs", "ours"])
def test_every_span_arrives_at_a_shutdown(receiver, provider, adopt, first):
    """Whoever is shut down first."""
    om.configure("phoenix", tracer_provider=provider, adopt=adopt)
    work(provider)
    for shutdown in (provider.shutdown, om.shutdown) if first == "theirs" else (om.shutdown, provider.shutdown):
        shutdown()
    assert receiver.names == ["ours", "request"]


def test_a_default_processor_is_still_replaced_by_the_applications(receiver, tmp_path):
    """What Phoenix promises of its own `add_span_processor` holds after configure as before."""
    provider = TracerProvider(endpoint=f"{receiver.url}/v1/traces", verbose=False)
    om.configure(f"sqlite:///{tmp_path}/spans.db", tracer_provider=provider)
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    work(provider)
    assert om.flush()
    assert receiver.names == []
    assert [span.name for span in exporter.get_finished_spans()] == ["ours", "request"]
    provider.shutdown()


def test_another_project_is_another_place(receiver, monkeypatch):
    """Both projects get every span."""
    provider = register(
        endpoint=f"{receiver.url}/v1/traces",
        project_name="shop",
        set_global_tracer_provider=False,
        verbose=False,
        batch=True,
    )
    monkeypatch.setenv("PHOENIX_PROJECT", "evals")
    om.configure("phoenix", tracer_provider=provider)
    work(provider)
    provider.force_flush()
    assert om.flush()
    assert receiver.names == ["ours", "ours", "request", "request"]
    provider.shutdown()


def test_the_address_of_both_ports(provider):
    """Phoenix's exporters are known as Phoenix's, whatever their port."""
    (processor, *_) = provider._active_span_processor._span_processors
    address = address_of(processor.span_exporter, provider.resource)
    assert address is not None
    other = Address("grpc" if address.kind == "http" else "http", "localhost", 1, project="shop", is_phoenix=True)
    assert is_same(address, other)
