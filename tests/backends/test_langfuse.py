"""The Langfuse destination: what it takes from the environment, and what it says when something is missing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from tests.exporters.vendors.langfuse import PUBLIC_KEY, LangfuseDouble
from tests.exporters.vendors.server import KEY

import otel_metadata as om
from otel_metadata.backends.langfuse import destination
from otel_metadata.dialects.langfuse import LangfuseDialect
from otel_metadata.errors import ConfigurationError

VARIABLES = ("LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY", "LANGFUSE_BASE_URL", "LANGFUSE_HOST")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine has a say."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def double() -> Iterator[LangfuseDouble]:
    with LangfuseDouble() as double:
        yield double


@pytest.mark.parametrize("missing", ["LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY"])
def test_a_missing_key_is_one_error_that_names_the_variable(monkeypatch, missing):
    """The other key is set, and is not shown."""
    for name in {"LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY"} - {missing}:
        monkeypatch.setenv(name, KEY)
    with pytest.raises(ConfigurationError) as raised:
        destination()
    assert raised.value.setting == missing
    assert KEY not in str(raised.value)


def test_configure_by_name_takes_everything_from_the_environment(monkeypatch, double):
    """`configure("langfuse")` with the variables of Langfuse's own SDK sends spans and patches there."""
    monkeypatch.setenv("LANGFUSE_PUBLIC_KEY", PUBLIC_KEY)
    monkeypatch.setenv("LANGFUSE_SECRET_KEY", KEY)
    monkeypatch.setenv("LANGFUSE_HOST", "http://127.0.0.1:9")
    monkeypatch.setenv("LANGFUSE_BASE_URL", f"{double.url}/")
    provider = TracerProvider(shutdown_on_exit=False)
    om.configure("langfuse", tracer_provider=provider)
    with provider.get_tracer("application").start_as_current_span("work") as span:
        om.update_current_span(metadata={"k": 1})
    assert om.flush()
    om.score_span(span, "Correctness", score=1.0)
    assert om.flush()
    om.shutdown()
    context = span.get_span_context()
    assert double.observation(f"{context.span_id:016x}").metadata["k"] == 1
    assert double.scores_of(f"{context.trace_id:032x}", f"{context.span_id:016x}").keys() == {"Correctness"}
    assert all(request.headers["x-langfuse-ingestion-version"] == "4" for request in double.requests)


def test_the_older_variable_holds_where_the_newer_is_not_set(monkeypatch):
    """`LANGFUSE_HOST` is still read; without either it is Langfuse Cloud."""
    made = destination(public_key=PUBLIC_KEY, secret_key=KEY)
    assert made.span_exporter.endpoint == "https://cloud.langfuse.com/api/public/otel/v1/traces"
    monkeypatch.setenv("LANGFUSE_HOST", "https://langfuse.example")
    made = destination(public_key=PUBLIC_KEY, secret_key=KEY)
    assert made.span_exporter.endpoint == "https://langfuse.example/api/public/otel/v1/traces"


def test_what_is_given_is_used():
    """Name and hold of the destination, and how text is written."""
    made = destination(
        public_key=PUBLIC_KEY,
        secret_key=KEY,
        base_url="https://langfuse.example",
        json_strings=True,
        name="second",
        hold_millis=7_000,
        resource=Resource({}),
    )
    assert (made.name, made.patch_exporter.name, made.hold_millis) == ("second", "second", 7_000)
    assert isinstance(made.dialect, LangfuseDialect)
    assert KEY not in repr(made)


def test_an_address_that_cannot_be_used_is_said():
    """Before anything is sent."""
    with pytest.raises(ConfigurationError):
        destination(public_key=PUBLIC_KEY, secret_key=KEY, base_url="cloud.langfuse.com")
