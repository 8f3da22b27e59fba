"""Langfuse's own SDK as judge: what it sends is what we send, field by field, and the double takes both.

Run by `make test-backends`, in an environment that has the SDK (langfuse 5.0.4).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import langfuse
import pytest
from langfuse.span_filter import is_default_export_span
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.backends.vendors.langfuse import PUBLIC_KEY, LangfuseDouble, exporter
from tests.backends.vendors.server import KEY, Request

import otel_metadata as om
from otel_metadata.backends.langfuse import destination
from otel_metadata.backends.langfuse.patches import LangfusePatchExporter
from otel_metadata.delivery.in_flight import merged
from otel_metadata.live.live_settings import SCOPE_NAME
from otel_metadata.model.evaluation import Annotation, Evaluation, annotation_key
from otel_metadata.model.outcome import Delivered
from otel_metadata.model.patch import Patch
from otel_metadata.model.span_ref import SpanRef

AT = 1_700_000_000_000_000_000
VALUES: dict[str, Any] = {"s": "x", "t": "123", "n": 0, "f": 0.5, "b": False, "o": {"a": [1]}, "l": ["a", "b"]}


@pytest.fixture(scope="module")
def server() -> Iterator[LangfuseDouble]:
    """A server as the SDK wants it: it takes scores as lists."""
    with LangfuseDouble(lists="always", version="4.59.0") as double:
        yield double


@pytest.fixture(scope="module")
def sdk(server: LangfuseDouble) -> Iterator[langfuse.Langfuse]:
    """The one client that the SDK has for a public key, for as long as the process lives."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("LANGFUSE_")]:
            patch.delenv(name)
        client = langfuse.Langfuse(
            public_key=PUBLIC_KEY,
            secret_key=KEY,
            base_url=server.url,
            tracer_provider=TracerProvider(shutdown_on_exit=False),
        )
        yield client
        client.shutdown()


@pytest.fixture
def double(server: LangfuseDouble) -> LangfuseDouble:
    server.requests.clear()
    server.comments.clear()
    return server


@pytest.fixture
def ours(double: LangfuseDouble) -> Iterator[LangfusePatchExporter]:
    made = exporter(double.url)
    yield made
    made.shutdown()


def taken(double: LangfuseDouble, path: str, method: str = "POST") -> list[Request]:
    """Return the requests to *path* so far, and forget all."""
    found = [one for one in double.requests if (one.method, one.path) == (method, f"/api/public/{path}")]
    double.requests.clear()
    return found


def test_a_span_is_sent_alike(double, sdk):
    """The same path, keys and version of ingestion; the same metadata attributes, text in quotes."""
    with sdk.start_as_current_observation(name="work", as_type="span", metadata=VALUES):
        pass
    sdk.flush()
    (theirs,) = taken(double, "otel/v1/traces")
    of_theirs = double.rows[-1].metadata["attributes"]

    made = destination(public_key=PUBLIC_KEY, secret_key=KEY, base_url=double.url, json_strings=True)
    provider = TracerProvider(shutdown_on_exit=False)

    class Merging(SimpleSpanProcessor):
        def on_end(self, span):
            fields = {("span", "metadata", key): (value, (AT, 7)) for key, value in VALUES.items()}
            super().on_end(merged(span, fields, made.spelling, is_local_root=True)[0])

    provider.add_span_processor(Merging(made.span_exporter))
    with provider.get_tracer("application").start_as_current_span("work"):
        pass
    (own,) = taken(double, "otel/v1/traces")
    of_ours = double.rows[-1].metadata["attributes"]

    for name in ("authorization", "x-langfuse-ingestion-version", "content-type"):
        assert own.headers[name] == theirs.headers[name]
    prefix = "langfuse.observation.metadata."
    assert {name: _exact(value) for name, value in of_ours.items() if name.startswith(prefix)} == {
        name: _exact(value) for name, value in of_theirs.items() if name.startswith(prefix)
    }
    made.span_exporter.shutdown()
    made.patch_exporter.shutdown()


@pytest.mark.parametrize(
    ("parts", "kind", "value"),
    [
        ({"score": 0.5}, "NUMERIC", 0.5),
        ({"label": "good"}, "CATEGORICAL", "good"),
        ({"label": "true"}, "BOOLEAN", 1),
    ],
)
def test_a_score_is_sent_alike(double, sdk, ours, parts, kind, value):
    """Every field that both have is the same, and ours has none that theirs does not know."""
    target = SpanRef(0xABC, 1)
    sdk.create_score(
        name="Correctness",
        value=value,
        data_type=kind,
        trace_id=target.trace_id_hex,
        observation_id=target.span_id_hex,
        comment="why",
        metadata={"otel_metadata.source": "llm"},
    )
    sdk.flush()
    theirs = [one for request in taken(double, "scores") for one in request.json]
    fields = {
        ("span", "evaluation", "Correctness"): (
            Evaluation("Correctness", **parts, explanation="why", source="llm").to_json(),
            (AT, 7),
        )
    }
    (outcome,) = ours.export([Patch(target, fields)], timeout_millis=30_000)
    assert isinstance(outcome, Delivered)
    (own,) = taken(double, "scores")[-1].json

    given = {"name", "value", "dataType", "traceId", "observationId", "comment", "metadata"}
    assert {name: own[name] for name in given} == {name: theirs[0][name] for name in given}
    assert own.keys() <= theirs[0].keys()
    assert len(theirs) == 1


def test_a_comment_is_sent_alike(double, sdk, ours):
    """Looked for by the same query, written with the same body."""
    target = SpanRef(0xABC, 1)
    with sdk.start_as_current_observation(name="work", as_type="span"):
        pass
    sdk.flush()
    row = double.rows[-1]
    target = SpanRef(int(row.trace_id, 16), int(row.id, 16))
    value = Annotation("quality", text="well said", annotator="ann").to_json()
    patch = Patch(target, {("span", "annotation", annotation_key("quality", "ann")): (value, (AT, 7))})
    double.requests.clear()
    (outcome,) = ours.export([patch], timeout_millis=30_000)
    assert isinstance(outcome, Delivered)
    read, written = (
        next(one for one in double.requests if (one.method, one.path) == (method, "/api/public/comments"))
        for method in ("GET", "POST")
    )
    double.requests.clear()

    there = sdk.api.comments.get(object_type="OBSERVATION", object_id=target.span_id_hex)
    project = sdk.api.projects.get().data[0].id
    sdk.api.comments.create(
        project_id=project, object_type="OBSERVATION", object_id=target.span_id_hex, content=there.data[0].content
    )
    their_read, their_written = (
        next(one for one in double.requests if (one.method, one.path) == (method, "/api/public/comments"))
        for method in ("GET", "POST")
    )
    assert dict(read.query) == dict(their_read.query)
    assert written.json == {name: value for name, value in their_written.json.items() if value is not None}


def test_the_health_is_read_alike(double, sdk):
    """The version is where we look for it."""
    assert sdk.api.health.health().version == double.version


def _exact(value: Any) -> Any:
    """Return what a JSON text says, with its type: the white space in it is each one's own."""
    found = json.loads(value)
    return type(found).__name__, found


def test_the_sdks_own_filter_passes_over_our_spans():
    """It knows neither our scope nor OpenInference's kind, so the page says how to let it export them."""
    finished = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(finished))
    with om.start_span("ours", as_type="llm", tracer=provider.get_tracer(SCOPE_NAME)):
        pass
    (span,) = finished.get_finished_spans()
    assert not is_default_export_span(span)
    assert SCOPE_NAME == "otel_metadata"  # as the page has it
    assert span.instrumentation_scope.name == SCOPE_NAME
