"""Splunk Agent Observability: what the destination takes from keywords and the environment, and where things go."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import TracerProvider
from tests.backends.vendors.galileo import LOG_STREAM, PROJECT, Stored
from tests.backends.vendors.server import KEY
from tests.backends.vendors.splunk_ao import SplunkAo

import otel_metadata as om
from otel_metadata.backends.splunk_ao import destination
from otel_metadata.errors import ConfigurationError

UUID = "6f0c9f1e-3c8e-4b0a-9d3e-1f2a3b4c5d6e"
WORDS = (
    "API_KEY", "API_URL", "CONSOLE_URL", "PROJECT", "PROJECT_ID", "AGENT_STREAM", "AGENT_STREAM_ID", "LOG_STREAM",
    "LOG_STREAM_ID", "REALM", "O11Y_TOKEN", "O11Y_API_TOKEN",
)  # fmt: skip


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Nothing is set, whatever the machine says."""
    for word in WORDS:
        monkeypatch.delenv(f"SPLUNK_AO_{word}", raising=False)
    return monkeypatch


def test_the_environment_is_enough(environment):
    """A span leaves with metadata and tags under the vendor's names; a late update of a UUID alone is one request."""
    with SplunkAo() as double:
        double.stored["span", UUID] = Stored()
        environment.setenv("SPLUNK_AO_API_KEY", KEY)
        environment.setenv("SPLUNK_AO_CONSOLE_URL", double.url)
        environment.setenv("SPLUNK_AO_PROJECT", "shop")
        provider = TracerProvider(shutdown_on_exit=False)
        pipeline = om.configure("splunk_ao", tracer_provider=provider)
        with om.using_metadata({"step": 1, "who": "ann"}, tags=["vip"], session_id="s1"):
            provider.get_tracer("application").start_span("answer").end()
        receipt = om.update_span(om.SpanRef.from_backend_id("splunk_ao", UUID), output="corrected")
        assert pipeline.flush()
        pipeline.shutdown()
    (request,) = [one for one in double.requests if "/otel/" in one.path]
    assert request.path == "/otel/v1/traces"
    assert [request.headers.get(one) for one in ("splunk-ao-api-key", "project", "logstream")] == [
        KEY, "shop", "default",
    ]  # fmt: skip
    span = double.span("answer")
    assert span.attributes["splunk_ao.metadata"] == '{"step":"1","who":"ann"}'
    assert span.attributes["gen_ai.conversation.id"] == span.attributes["session.id"] == "s1"
    assert span.tags == ["vip"]
    assert not {"metadata", "tag.tags"} & span.attributes.keys()
    assert receipt.route == "late"
    assert double.stored["span", UUID].changed == {"output": "corrected"}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "SPLUNK_AO_API_KEY is None; expected an API key .* or SPLUNK_AO_REALM with SPLUNK_AO_O11Y_TOKEN"),
        ({"API_KEY": KEY}, "SPLUNK_AO_CONSOLE_URL is None; expected the address of the console"),
        ({"REALM": "us0"}, "SPLUNK_AO_O11Y_TOKEN is None; expected an ingest token"),
        ({"O11Y_TOKEN": "t"}, "SPLUNK_AO_REALM is None; expected a realm"),
        ({"REALM": "us0.example/x", "O11Y_TOKEN": "t"}, "SPLUNK_AO_REALM is 'us0.example/x'; expected a realm"),
        ({"REALM": "us0", "O11Y_TOKEN": "t"}, "SPLUNK_AO_PROJECT is None; expected the name of a project"),
        ({"REALM": "us0", "O11Y_TOKEN": "t", "API_KEY": KEY}, "SPLUNK_AO_REALM is 'set beside .*; expected one of"),
        (
            {"API_KEY": KEY, "CONSOLE_URL": "https://console.example.com", "PROJECT_ID": "a"},
            "SPLUNK_AO_PROJECT_ID is 'a'; expected a UUID",
        ),
    ],
)
def test_what_is_missing_or_wrong_is_named(environment, given, told):
    """One error, with the name of the variable."""
    for word, value in given.items():
        environment.setenv(f"SPLUNK_AO_{word}", value)
    with pytest.raises(ConfigurationError, match=f"^{told}"):
        om.configure("splunk_ao")


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [
        ({"console_url": "https://console.acme.example/"}, "https://api.acme.example/otel/v1/traces"),
        ({"console_url": "https://app.galileo.ai"}, "https://api.galileo.ai/otel/v1/traces"),
        (
            {"console_url": "https://console.acme.example", "api_url": "https://gate.example/ao/"},
            "https://gate.example/ao/otel/v1/traces",
        ),
    ],
)
def test_the_api_follows_from_the_console(given, endpoint):
    """As the vendor's SDK finds it."""
    assert f" {endpoint}>" in repr(destination(api_key=KEY, **given).span_exporter)


def test_keywords_decide_which_of_the_two_is_meant(environment):
    """Variables of the other one are left alone then."""
    environment.setenv("SPLUNK_AO_API_KEY", KEY)
    made = destination(realm="us1", token="t", project_id=PROJECT, agent_stream_id=LOG_STREAM)
    assert " https://ingest.us1.observability.splunkcloud.com/v2/trace/otlp>" in repr(made.span_exporter)


def test_the_older_names_of_the_stream_are_read(environment):
    """They are deprecated, and the SDK reads them."""
    environment.setenv("SPLUNK_AO_LOG_STREAM", "nightly")
    with SplunkAo() as double:
        provider = TracerProvider(shutdown_on_exit=False)
        made = destination(api_key=KEY, console_url=double.url, project="shop")
        pipeline = om.configure(made, tracer_provider=provider)
        provider.get_tracer("application").start_span("answer").end()
        assert pipeline.flush()
        pipeline.shutdown()
    assert double.requests[0].headers["logstream"] == "nightly"


def test_the_key_is_shown_nowhere():
    """No part of the destination shows it."""
    made = destination(api_key=KEY, console_url="https://console.example.com")
    assert KEY not in repr(made) + repr(made.span_exporter) + repr(vars(made.patch_exporter))
