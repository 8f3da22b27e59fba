"""Zero code: the entry point that does nothing until it is asked to, never raises, and works once."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest
from opentelemetry.sdk.trace import TracerProvider

import otel_metadata as om
from otel_metadata import pipeline
from otel_metadata.instrumentor import MetadataInstrumentor

VARIABLE = "OTEL_PYTHON_METADATA_DESTINATIONS"


@pytest.fixture
def provider():
    provider = TracerProvider(shutdown_on_exit=False)
    yield provider
    provider.shutdown()


@pytest.fixture
def here(monkeypatch, tmp_path):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_opentelemetry_finds_it():
    """The entry point of the group opentelemetry_instrumentor is this class."""
    (entry_point,) = entry_points(group="opentelemetry_instrumentor", name="otel_metadata")
    assert entry_point.load() is MetadataInstrumentor


def test_it_depends_on_nothing():
    """It can always be loaded."""
    assert list(MetadataInstrumentor().instrumentation_dependencies()) == []


@pytest.mark.parametrize("value", [None, ""])
def test_it_does_nothing_until_the_variable_is_set(monkeypatch, here, provider, value):
    """Without destinations in the environment nothing is configured, and no file is made."""
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    MetadataInstrumentor().instrument(tracer_provider=provider)
    assert pipeline._pipeline is None
    assert om.stats().destinations == {}
    assert list(here.iterdir()) == []


def test_it_joins_the_provider_that_it_is_given(monkeypatch, here, provider):
    """With destinations in the environment the application's spans reach them."""
    monkeypatch.setenv(VARIABLE, "sqlite:///spans.db")
    MetadataInstrumentor().instrument(tracer_provider=provider, skip_dep_check=True)
    with provider.get_tracer("application").start_as_current_span("span"):
        assert om.update_current_span(metadata={"a": 1}).route == "live"
    assert om.flush()
    with om.Client("sqlite:///spans.db") as client:
        assert [(span.name, span.metadata) for span in client.spans.list()] == [("span", {"a": 1})]


def test_a_second_call_changes_nothing(monkeypatch, here, provider):
    """However many loaders call it, the spans of a provider are taken once."""
    monkeypatch.setenv(VARIABLE, "sqlite:///spans.db")
    MetadataInstrumentor().instrument(tracer_provider=provider)
    first = pipeline._pipeline
    MetadataInstrumentor().instrument(tracer_provider=provider)
    assert pipeline._pipeline is first


@pytest.mark.parametrize(
    ("value", "options"),
    [("nowhere://", {}), ("sqlite:///spans.db", {"tracer_provider": "none"}), ("console,nowhere", {})],
)
def test_it_never_raises(monkeypatch, here, caplog, value, options):
    """A setting that cannot be used is told in one log line; the application starts."""
    monkeypatch.setenv(VARIABLE, value)
    MetadataInstrumentor().instrument(**{"tracer_provider": TracerProvider(shutdown_on_exit=False), **options})
    (line,) = (record.getMessage() for record in caplog.records if record.name == "otel_metadata")
    assert line.startswith("otel_metadata was not set up: ")
    assert "expected" in line
    assert pipeline._pipeline is None


def test_uninstrument_shuts_down(monkeypatch, here, provider):
    """After uninstrument updates are refused, and it can be instrumented again."""
    monkeypatch.setenv(VARIABLE, "sqlite:///spans.db")
    MetadataInstrumentor().instrument(tracer_provider=provider)
    MetadataInstrumentor().uninstrument()
    assert om.update_span(om.SpanRef(1, 1), metadata={"a": 1}).reason == "after_shutdown"
    MetadataInstrumentor().instrument(tracer_provider=provider)
    assert om.update_span(om.SpanRef(1, 1), metadata={"a": 1}).route == "late"


def test_uninstrument_without_instrument_is_harmless():
    """There is nothing to undo."""
    MetadataInstrumentor().uninstrument()
