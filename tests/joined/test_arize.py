"""`arize.otel.register` and ours in one application: its provider drops a default processor when one is added.

Run by `make test-backends`, in an environment that has arize and arize-otel.
"""

from __future__ import annotations

import pytest
from arize.otel import BatchSpanProcessor, HTTPSpanExporter, TracerProvider, Transport, register
from opentelemetry.sdk.resources import Resource
from tests.joining.receiver import Receiver

import otel_metadata as om
from otel_metadata.backends.arize import destination
from otel_metadata.joining.addresses import address_of, is_same
from otel_metadata.joining.found_exporters import exporters_on

KEY, SPACE = "ak-0123456789abcdef", "U3BhY2U6MQ=="


@pytest.fixture
def receiver(monkeypatch):
    with Receiver() as receiver:
        monkeypatch.setenv("ARIZE_API_KEY", KEY)
        monkeypatch.setenv("ARIZE_SPACE_ID", SPACE)
        monkeypatch.setenv("ARIZE_COLLECTOR_ENDPOINT", f"{receiver.url}/v1/traces")
        yield receiver


def made(receiver, *, batch=False):
    """Return a provider as `register` makes it, which itself fails for HTTP with today's exporters of OpenTelemetry."""
    where = {"space_id": SPACE, "api_key": KEY, "endpoint": f"{receiver.url}/v1/traces"}
    resource = Resource.create({"openinference.project.name": "shop"})
    provider = TracerProvider(**where, transport=Transport.HTTP, resource=resource, verbose=False)
    if batch:
        provider.add_span_processor(BatchSpanProcessor(span_exporter=HTTPSpanExporter(**where)))
    return provider


def work(provider):
    with provider.get_tracer("application").start_as_current_span("request") as span:
        om.update_current_span(metadata={"live": 1})
        with om.start_span("ours"):
            pass
    return span


@pytest.mark.parametrize("batch", [True, False], ids=["batch", "simple"])
@pytest.mark.parametrize("adopt", [False, True], ids=["beside", "adopt"])
def test_every_span_arrives_once(receiver, batch, adopt):
    """The same space and project: nothing comes twice, though each sends headers that the other does not know."""
    provider = made(receiver, batch=batch)
    om.configure("arize", tracer_provider=provider, adopt=adopt)
    work(provider)
    provider.force_flush()
    assert om.flush()
    assert receiver.names == ["ours", "request"]
    provider.shutdown()


def test_another_project_is_another_place(receiver, monkeypatch):
    """Both projects get every span."""
    monkeypatch.setenv("ARIZE_PROJECT_NAME", "evals")
    provider = made(receiver)
    om.configure("arize", tracer_provider=provider)
    work(provider)
    provider.force_flush()
    assert om.flush()
    assert receiver.names == ["ours", "ours", "request", "request"]
    provider.shutdown()


def test_a_default_processor_stays(receiver, tmp_path):
    """A provider of Arize's that was made without `register` drops its exporter for the first processor added."""
    provider = made(receiver)
    store = f"sqlite:///{tmp_path}/spans.db"
    om.configure(store, tracer_provider=provider)
    work(provider)
    assert om.flush()
    assert receiver.names == ["ours", "request"]
    assert {record.name for record in om.Client(store).spans.list()} == {"ours", "request"}
    provider.shutdown()


def test_arizes_cloud_is_one_place_over_both_protocols(monkeypatch):
    """`register` sends over gRPC, the destination over HTTP, to one port of one host with the same key."""
    monkeypatch.setenv("ARIZE_API_KEY", KEY)
    monkeypatch.setenv("ARIZE_SPACE_ID", SPACE)
    provider = register(project_name="shop", set_global_tracer_provider=False, verbose=False)
    (found,) = exporters_on(provider)
    assert found.takes_all
    ours = destination(resource=provider.resource)
    theirs = address_of(found.exporter, provider.resource)
    assert is_same(theirs, address_of(ours.span_exporter, provider.resource))
    assert not is_same(theirs, address_of(destination(project="other").span_exporter, provider.resource))
    provider.shutdown()
