"""LangWatch's destination: what comes from the environment, and what each kind of key is sent as."""

from __future__ import annotations

import base64

import pytest
from opentelemetry.sdk.trace import TracerProvider
from tests.backends.vendors.langwatch import LangWatch
from tests.backends.vendors.server import KEY

import otel_metadata as om
from otel_metadata.backends.langwatch import destination
from otel_metadata.errors import ConfigurationError
from otel_metadata.exporters.otlp_http import OtlpHttpSender


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine has a say."""
    for name in ("API_KEY", "ENDPOINT", "PROJECT_ID"):
        monkeypatch.delenv(f"LANGWATCH_{name}", raising=False)


def test_a_missing_key_is_one_error_that_names_the_variable():
    """Nothing else has to be there: the address has a default."""
    with pytest.raises(ConfigurationError, match="LANGWATCH_API_KEY is None; expected an API key") as raised:
        destination()
    assert raised.value.setting == "LANGWATCH_API_KEY"
    assert destination(api_key=KEY).name == "langwatch"


def test_the_hosted_address_is_the_default(monkeypatch):
    """`LANGWATCH_ENDPOINT` replaces it, an argument replaces both, and a slash at the end does no harm."""

    def address(**given: str) -> str:
        made = destination(api_key=KEY, **given)
        assert isinstance(made.span_exporter, OtlpHttpSender)
        return made.span_exporter.endpoint

    assert address() == "https://app.langwatch.ai/api/otel/v1/traces"
    monkeypatch.setenv("LANGWATCH_ENDPOINT", "http://127.0.0.1:5560/")
    assert address() == "http://127.0.0.1:5560/api/otel/v1/traces"
    assert address(endpoint="http://127.0.0.1:5561") == "http://127.0.0.1:5561/api/otel/v1/traces"


def test_it_is_configured_by_name(monkeypatch):
    """`configure("langwatch")` with two variables: a span and a late update arrive."""
    with LangWatch() as double:
        monkeypatch.setenv("LANGWATCH_API_KEY", KEY)
        monkeypatch.setenv("LANGWATCH_ENDPOINT", double.url)
        provider = TracerProvider(shutdown_on_exit=False)
        pipeline = om.configure("langwatch", tracer_provider=provider)
        with provider.get_tracer("application").start_as_current_span("answer") as span:
            om.update_current_trace(metadata={"env": "prod"})
        assert om.flush()
        trace_id = f"{span.get_span_context().trace_id:032x}"
        assert double.metadata(trace_id) == {"env": "prod"}
        om.update_trace(trace_id, metadata={"late": "x"})
        assert om.flush()
        assert double.metadata(trace_id) == {"env": "prod", "late": "x"}
        assert KEY not in repr(pipeline) + repr(pipeline.destinations)
        om.shutdown()


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("sk-lw-" + "a" * 48, {"authorization": "Bearer {key}", "x-auth-token": "{key}"}),
        (
            "sk-lw-" + "a" * 16 + "_" + "b" * 48,
            {"authorization": "Bearer {key}", "x-auth-token": "{key}", "x-project-id": "project_1"},
        ),
        ("ik-lw-abc", {"authorization": "Bearer {key}", "x-auth-token": "{key}", "x-project-id": "project_1"}),
        ("pat-lw-abc", {"authorization": "Basic {basic}"}),
    ],
    ids=["project", "api", "ingestion", "personal"],
)
def test_each_kind_of_key_is_sent_as_langwatchs_sdk_sends_it(key, expected):
    """A project's key names its project; of the others, the project goes along; a personal one goes with it."""
    basic = base64.b64encode(f"project_1:{key}".encode()).decode()
    with LangWatch() as double:
        made = destination(api_key=key, project_id="project_1", endpoint=double.url)
        made.span_exporter.export([])
        made.span_exporter.shutdown()
    headers = {"authorization", "x-auth-token", "x-project-id"}
    sent = {name: value for name, value in double.requests[0].headers.items() if name in headers}
    assert sent == {name: value.format(key=key, basic=basic) for name, value in expected.items()}


def test_an_unknown_strategy_is_told():
    """Before anything is sent."""
    with pytest.raises(ConfigurationError, match="expected 'patch' or 'otlp_span'"):
        destination(api_key=KEY, strategy="span")  # type: ignore[arg-type]
