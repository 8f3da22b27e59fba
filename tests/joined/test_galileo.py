"""Galileo's span processor and ours in one application: the same project is known as one place.

Its exporter fails by itself with today's exporters of OpenTelemetry, so nothing is sent here.
Run by `make test-backends`, in an environment that has the SDK.
"""

from __future__ import annotations

from galileo.otel import GalileoSpanProcessor
from opentelemetry.sdk.trace import TracerProvider
from tests.backends.vendors.galileo import Galileo
from tests.backends.vendors.server import KEY

from otel_metadata.backends.galileo import destination
from otel_metadata.joining.addresses import address_of, is_same
from otel_metadata.joining.found_exporters import exporters_on


def test_the_same_project_is_the_same_place(monkeypatch, tmp_path):
    """The exporter is found once, inside the processor that it is in twice; another project is another place."""
    with Galileo() as double:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("GALILEO_API_KEY", KEY)
        monkeypatch.setenv("GALILEO_API_URL", double.url)
        monkeypatch.setenv("GALILEO_CONSOLE_URL", double.url)
        monkeypatch.setenv("GALILEO_PROJECT", "shop")
        monkeypatch.setenv("GALILEO_LOG_STREAM", "nightly")
        provider = TracerProvider(shutdown_on_exit=False)
        processor = GalileoSpanProcessor(project="shop", logstream="nightly")
        provider.add_span_processor(processor)
        (found,) = exporters_on(provider)
        assert found.processor is processor._processor
        theirs = address_of(found.exporter, provider.resource)
        ours = address_of(destination(project="shop").span_exporter, provider.resource)
        assert theirs is not None
        assert ours is not None
        assert is_same(theirs, ours)
        assert not is_same(theirs, address_of(destination(project="other").span_exporter, provider.resource))
        provider.shutdown()
