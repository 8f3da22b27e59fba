"""The Langfuse destination: what it takes from the environment, and what it says when something is missing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.trace import SpanContext, TraceFlags
from tests.backends.vendors.langfuse import PUBLIC_KEY, LangfuseDouble
from tests.backends.vendors.server import KEY

import otel_metadata as om
from otel_metadata.backends.langfuse import destination
from otel_metadata.backends.langfuse.dialect import LangfuseDialect
from otel_metadata.errors import ConfigurationError
from otel_metadata.model.patch import Patch
from otel_metadata.model.span_ref import SpanRef

VARIABLES = (
    *("LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY", "LANGFUSE_BASE_URL", "LANGFUSE_HOST"),
    *("LANGFUSE_TRACING_ENVIRONMENT", "LANGFUSE_RELEASE"),
)


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
    assert "https://cloud.langfuse.com/api/public/otel/v1/traces>" in repr(made.span_exporter)
    monkeypatch.setenv("LANGFUSE_HOST", "https://langfuse.example")
    made = destination(public_key=PUBLIC_KEY, secret_key=KEY)
    assert "https://langfuse.example/api/public/otel/v1/traces>" in repr(made.span_exporter)


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


@pytest.mark.parametrize(
    ("given", "resource", "expected"),
    [
        ({}, {}, ("staging", "v1")),
        ({"environment": "test", "release": "v2"}, {}, ("test", "v2")),
        ({}, {"deployment.environment.name": "other"}, ("staging", "v1")),
        ({}, {"langfuse.environment": "own", "langfuse.release": "v3"}, ("own", "v3")),
    ],
)
def test_environment_and_release_are_those_of_the_variables(monkeypatch, double, given, resource, expected):
    """On the resource of spans, and of scores; what a resource says in Langfuse's words by itself stands."""
    monkeypatch.setenv("LANGFUSE_TRACING_ENVIRONMENT", "staging")
    monkeypatch.setenv("LANGFUSE_RELEASE", "v1")
    own = Resource({"service.name": "shop", **resource})
    made = destination(public_key=PUBLIC_KEY, secret_key=KEY, base_url=double.url, resource=own, **given)
    context = SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    made.span_exporter.export([ReadableSpan("work", context, resource=own, start_time=1, end_time=2)])
    made.patch_exporter.export([Patch(SpanRef(1, 2), {("span", "metadata", "k"): (1, (1, 1))})], timeout_millis=5_000)
    (request,) = (one for one in double.requests if "/otel/" in one.path)
    (group,) = ExportTraceServiceRequest.FromString(request.body).resource_spans
    said = {one.key: one.value.string_value for one in group.resource.attributes}
    assert (said["langfuse.environment"], said["langfuse.release"], said["service.name"]) == (*expected, "shop")
    assert [one["environment"] for one in double.scores.values()] == [expected[0]]
    made.span_exporter.shutdown()
    made.patch_exporter.shutdown()


@pytest.mark.parametrize("text", ["Staging", "langfuse-x", "a" * 41, "a b"])
def test_an_environment_that_langfuse_would_not_take_is_said(monkeypatch, text):
    """By the name of the variable or of the argument."""
    keys = {"public_key": PUBLIC_KEY, "secret_key": KEY}
    with pytest.raises(ConfigurationError, match="environment"):
        destination(environment=text, **keys)
    monkeypatch.setenv("LANGFUSE_TRACING_ENVIRONMENT", text)
    with pytest.raises(ConfigurationError, match="LANGFUSE_TRACING_ENVIRONMENT"):
        destination(**keys)
