"""Phoenix as a destination: what the environment says, and what is asked of whom."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import TracerProvider
from tests.backends.vendors.phoenix import PhoenixDouble

import otel_metadata as om
from otel_metadata.backends import phoenix
from otel_metadata.delivery.destination import Destination
from otel_metadata.errors import ConfigurationError

KEY = "px-secret-0123456789"
CLOUD = "https://app.phoenix.arize.com/s/space"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """No variable of the machine has a say."""
    for name in ("COLLECTOR_ENDPOINT", "BASE_URL", "API_KEY", "CLIENT_HEADERS", "PROJECT", "PROJECT_NAME"):
        monkeypatch.delenv(f"PHOENIX_{name}", raising=False)


def endpoint(destination: Destination) -> str:
    """Return where spans go."""
    return repr(destination.span_exporter).partition("OtlpHttpSender ")[2].rstrip(">")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "http://localhost:6006"),
        ({"BASE_URL": "http://one:1"}, "http://one:1"),
        ({"BASE_URL": "http://one:1", "COLLECTOR_ENDPOINT": "http://two:2/"}, "http://two:2"),
        ({"COLLECTOR_ENDPOINT": "http://two:2/phoenix/v1/traces"}, "http://two:2/phoenix"),
    ],
)
def test_the_endpoint_is_what_phoenix_s_own_variables_say(monkeypatch, variables, expected):
    """The first that is set, with or without the path of traces; a server on this machine when none is."""
    for name, value in variables.items():
        monkeypatch.setenv(f"PHOENIX_{name}", value)
    made = phoenix.destination()
    assert endpoint(made) == f"{expected}/v1/traces"
    assert repr(made.patch_exporter) == f"<PhoenixPatchExporter {expected}>"


def test_the_cloud_wants_a_key(monkeypatch):
    """One error that names the variable; a header with the key does as well, and a server of one's own needs none."""
    monkeypatch.setenv("PHOENIX_COLLECTOR_ENDPOINT", CLOUD)
    with pytest.raises(ConfigurationError, match="PHOENIX_API_KEY is None; expected an API key"):
        phoenix.destination()
    monkeypatch.setenv("PHOENIX_CLIENT_HEADERS", f"Authorization=Bearer%20{KEY}")
    assert endpoint(phoenix.destination()) == f"{CLOUD}/v1/traces"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PHOENIX_COLLECTOR_ENDPOINT", "http://localhost:4317"),
        ("PHOENIX_COLLECTOR_ENDPOINT", "localhost:6006"),
        ("PHOENIX_BASE_URL", "http://[::1"),
        ("PHOENIX_CLIENT_HEADERS", f"authorization {KEY}"),
    ],
)
def test_what_cannot_be_used_is_told_by_its_variable(monkeypatch, variable, value):
    """The port of gRPC, an address without a scheme, headers without a sign of equality; never the secret itself."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=f"^{variable} is") as raised:
        phoenix.destination()
    assert KEY not in str(raised.value)


def test_an_argument_is_told_by_its_name():
    """Whoever passed it looks there."""
    with pytest.raises(ConfigurationError, match=r"^endpoint is"):
        phoenix.destination(endpoint="ftp://phoenix")


def test_configure_by_name_sends_key_project_and_headers(monkeypatch):
    """Everything comes from the environment; the key goes with spans and patches, and is shown nowhere."""
    with PhoenixDouble(KEY) as double:
        monkeypatch.setenv("PHOENIX_COLLECTOR_ENDPOINT", double.url)
        monkeypatch.setenv("PHOENIX_API_KEY", KEY)
        monkeypatch.setenv("PHOENIX_CLIENT_HEADERS", "x-team=a%2Cb")
        monkeypatch.setenv("PHOENIX_PROJECT_NAME", "other")
        monkeypatch.setenv("PHOENIX_PROJECT", "shop")
        provider = TracerProvider(shutdown_on_exit=False)
        pipeline = om.configure("phoenix", tracer_provider=provider)
        with provider.get_tracer("application").start_as_current_span("span") as span:
            om.score_current_span("Correctness", score=1)
        assert om.flush()
        om.shutdown()
    (stored,) = double.spans.values()
    assert stored["project"] == "shop"
    assert len(double.of("span", om.SpanRef.from_span_context(span.get_span_context()).span_id_hex)) == 1
    assert [request.headers["x-team"] for request in double.requests] == ["a,b"] * 2
    assert KEY not in repr(pipeline.destinations)
