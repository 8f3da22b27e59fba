"""The Galileo destination: what it takes from keywords and from the environment, and what it says when it cannot."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import TracerProvider
from tests.backends.vendors.galileo import LOG_STREAM, PROJECT, Galileo, Stored
from tests.backends.vendors.server import KEY

import otel_metadata as om
from otel_metadata.backends.galileo import destination
from otel_metadata.errors import ConfigurationError

VARIABLES = {
    "GALILEO_API_KEY": KEY,
    "GALILEO_API_URL": "",
    "GALILEO_CONSOLE_URL": "",
    "GALILEO_PROJECT": "shop",
    "GALILEO_PROJECT_ID": "",
    "GALILEO_LOG_STREAM": "",
    "GALILEO_LOG_STREAM_ID": "",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of a user who has set what must be set."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)


def sent_headers(**keywords: object) -> dict[str, str]:
    """Return the headers with which a span leaves."""
    with Galileo() as double:
        provider = TracerProvider(shutdown_on_exit=False)
        pipeline = om.configure(destination(api_url=double.url, **keywords), tracer_provider=provider)  # type: ignore[arg-type]
        provider.get_tracer("application").start_span("answer").end()
        assert pipeline.flush()
        pipeline.shutdown()
        (request,) = double.requests
        assert request.path == "/otel/traces"
        return dict(request.headers)


@pytest.mark.parametrize("variable", ["GALILEO_API_KEY", "GALILEO_PROJECT"])
def test_what_must_be_there_is_named(monkeypatch, variable):
    """A missing key or project is one error, with the name of its variable."""
    monkeypatch.delenv(variable)
    with pytest.raises(ConfigurationError, match=f"^{variable} is None; expected "):
        om.configure("galileo")


@pytest.mark.parametrize("variable", ["GALILEO_PROJECT_ID", "GALILEO_LOG_STREAM_ID"])
def test_an_id_of_another_form_is_named(monkeypatch, variable):
    """An id that is no UUID of version 4 is an error, with the name of its variable."""
    monkeypatch.setenv(variable, "0af7651916cd43dd8448eb211c80319c")
    with pytest.raises(ConfigurationError, match=f"^{variable} is "):
        om.configure("galileo")


def test_the_environment_is_enough(monkeypatch):
    """`configure("galileo")` sends to where the vendor's own variables say, with project and log stream by name."""
    with Galileo() as double:
        monkeypatch.setenv("GALILEO_API_URL", f"{double.url}/")
        provider = TracerProvider(shutdown_on_exit=False)
        pipeline = om.configure("galileo", tracer_provider=provider)
        provider.get_tracer("application").start_span("answer").end()
        assert pipeline.flush()
        pipeline.shutdown()
        headers = double.requests[0].headers
    assert (headers["galileo-api-key"], headers["project"], headers["logstream"]) == (KEY, "shop", "default")


def test_ids_go_instead_of_names():
    """With ids, the headers are the ones for ids."""
    headers = sent_headers(project_id=PROJECT, log_stream_id=LOG_STREAM)
    assert (headers["projectid"], headers["logstreamid"]) == (PROJECT, LOG_STREAM)
    assert not {"project", "logstream"} & headers.keys()


def test_a_keyword_stands_over_the_environment(monkeypatch):
    """A project or log stream given by name is not replaced by an id of the environment."""
    monkeypatch.setenv("GALILEO_PROJECT_ID", LOG_STREAM)
    monkeypatch.setenv("GALILEO_LOG_STREAM_ID", LOG_STREAM)
    headers = sent_headers(project="shop", log_stream="nightly")
    assert (headers["project"], headers["logstream"]) == ("shop", "nightly")
    assert not {"projectid", "logstreamid"} & headers.keys()


@pytest.mark.parametrize(
    ("api_url", "console_url", "endpoint"),
    [
        ("", "", "https://api.galileo.ai/otel/traces"),
        ("", "https://app.galileo.ai/", "https://api.galileo.ai/otel/traces"),
        ("", "console.acme.example", "https://api.acme.example/otel/traces"),
        ("", "https://console.acme.example/", "https://api.acme.example/otel/traces"),
        ("", "http://localhost:3000", "http://localhost:8088/otel/traces"),
        ("https://gate.example/galileo/", "https://console.acme.example", "https://gate.example/galileo/otel/traces"),
    ],
)
def test_the_api_is_found_as_the_vendors_sdk_finds_it(monkeypatch, api_url, console_url, endpoint):
    """The API's own address stands; else it follows from the console's; else it is the hosted one."""
    monkeypatch.setenv("GALILEO_API_URL", api_url)
    monkeypatch.setenv("GALILEO_CONSOLE_URL", console_url)
    assert f" {endpoint}>" in repr(destination().span_exporter)


def test_the_key_is_shown_nowhere():
    """No part of the destination shows it."""
    made = destination()
    assert KEY not in repr(made) + repr(made.span_exporter) + repr(vars(made.patch_exporter))


UUID = "6f0c9f1e-3c8e-4b0a-9d3e-1f2a3b4c5d6e"


@pytest.mark.parametrize("with_spool", [False, True])
def test_a_uuid_alone_names_a_record(tmp_path, with_spool):
    """An update of it goes to Galileo, through the spool as well; a store beside it refuses it, and that is counted."""
    with Galileo() as double:
        double.stored["span", UUID] = Stored()
        double.stored["trace", UUID] = Stored()
        provider = TracerProvider(shutdown_on_exit=False)
        pipeline = om.configure(
            destination(api_url=double.url),
            f"sqlite:///{tmp_path}/spans.db",
            tracer_provider=provider,
            spool=f"{tmp_path}/spool.db" if with_spool else None,
        )
        ref = om.SpanRef.from_backend_id("galileo", UUID)
        of_span = om.update_span(ref, output="corrected")
        as_text = om.update_span(str(ref), tags=["late"])
        of_trace = om.update_trace(ref, output="whole")
        assert pipeline.flush()
        stats = pipeline.stats()
        pipeline.shutdown()

    for receipt in (of_span, as_text, of_trace):
        assert receipt.routes["galileo"].route == "late"
        assert receipt.routes["sqlite"] == ("dropped", "invalid_target")
    assert double.stored["span", UUID].changed == {"output": "corrected"}
    assert double.stored["span", UUID].tags == ["late"]
    assert double.stored["trace", UUID].changed == {"output": "whole"}
    assert stats.destinations["galileo"].delivered == 3
    assert stats.destinations["sqlite"].accepted == 0


def test_nobody_takes_the_id_of_another_backend(tmp_path):
    """The receipt is false, and the refusal is counted."""
    provider = TracerProvider(shutdown_on_exit=False)
    pipeline = om.configure(f"sqlite:///{tmp_path}/spans.db", tracer_provider=provider)
    receipts = [
        om.update_span(om.SpanRef.from_backend_id("galileo", UUID), metadata={"a": 1}),
        om.update_trace(f"galileo:{UUID}", metadata={"a": 1}),
        om.score_span(f"galileo:{UUID}", "Q", label="good"),
    ]
    assert [bool(receipt) for receipt in receipts] == [False] * 3
    assert pipeline.stats().refused == {"invalid_target": 3}
    pipeline.shutdown()
