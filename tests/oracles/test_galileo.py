"""Our requests to Galileo beside those of its own SDK (galileo 2.7.0)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from tests.backends.vendors.galileo import LOG_STREAM, PROJECT, Galileo, Stored, identifier
from tests.backends.vendors.server import KEY, Request

from otel_metadata.backends.galileo import destination
from otel_metadata.backends.galileo.patches import GalileoPatchExporter
from otel_metadata.model.outcome import Delivered
from otel_metadata.model.patch import Patch
from otel_metadata.model.span_ref import SpanRef

SPAN, TRACE = identifier(1), identifier(2)
ROUTING = {
    "galileo.project.name": "shop",
    "galileo.logstream.name": "nightly",
    "galileo.experiment.id": identifier(3),
    "galileo.session.id": identifier(4),
    "galileo.dataset.input": "why?",
    "galileo.dataset.output": "because",
    "galileo.dataset.metadata": '{"a": 1}',
}
TARGET = SpanRef(0xABC, 1).with_backend_id("galileo", SPAN).with_backend_id("galileo.trace", TRACE)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Request]:
    """What the SDK sends, by the last word of the path that is no id."""
    program = Path(__file__).with_name("galileo_program.py")
    with Galileo() as double:
        double.stored = {("span", SPAN): Stored(), ("trace", TRACE): Stored()}
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(tmp_path_factory.mktemp("home")),
            "GALILEO_API_KEY": KEY,
            "GALILEO_API_URL": double.url,
            "GALILEO_CONSOLE_URL": double.url,
        }
        arguments = [sys.executable, str(program), PROJECT, LOG_STREAM, SPAN, TRACE, json.dumps(ROUTING)]
        ran = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert ran.returncode == 0, ran.stderr
        return by_word(double)


@pytest.fixture(scope="module")
def ours() -> dict[str, Request]:
    """What we send for the same."""
    with Galileo() as double:
        double.stored = {("span", SPAN): Stored(), ("trace", TRACE): Stored()}
        exporter = GalileoPatchExporter(double.url, api_key=KEY, project="shop", log_stream_id=LOG_STREAM)
        fields = {
            ("span", "output", ""): ("bye", (1, 1)),
            ("span", "tag", "late"): (True, (1, 1)),
            ("span", "status", ""): (404, (1, 1)),
            ("trace", "output", ""): ("bye", (1, 1)),
            ("trace", "tag", "late"): (True, (1, 1)),
        }
        assert exporter.export([Patch(TARGET, fields)], timeout_millis=5_000) == [Delivered()]
        exporter.shutdown()
        made = destination(api_key=KEY, api_url=double.url, project="shop", log_stream="nightly")
        provider = TracerProvider(shutdown_on_exit=False)
        span = provider.get_tracer("application").start_span("answer", attributes=ROUTING)
        span.end()
        assert made.span_exporter is not None
        made.span_exporter.export([span])  # type: ignore[list-item] # an ended span of the SDK
        made.span_exporter.shutdown()
        return by_word(double)


def by_word(double: Galileo) -> dict[str, Request]:
    words = ("spans", "traces", "projects")
    found = {}
    for request in double.requests:
        *_, word = [part for part in request.path.split("/") if part in words] or [""]
        found[f"otel {word}" if "/otel/" in request.path else word] = request
    return found


@pytest.mark.parametrize("word", ["spans", "traces"])
def test_an_update_is_the_sdks(ours, theirs, word):
    """Method, path, key and every field that says something are alike; theirs says null where nothing changes."""
    mine, other = ours[word], theirs[word]
    assert (mine.method, mine.path) == (other.method, other.path)
    for header in ("content-type", "galileo-api-key"):
        assert mine.headers[header] == other.headers[header]
    said = {name: value for name, value in other.json.items() if value is not None}
    # A default of theirs that changes nothing.
    assert said.pop("is_complete", False) is False
    said.pop("client_version", None)
    assert mine.json == said


def test_a_project_is_looked_up_as_the_sdk_does(ours, theirs):
    """The same request; the SDK has changed its key for a token before."""
    mine, other = ours["projects"], theirs["projects"]
    assert (mine.method, mine.path, mine.query) == (other.method, other.path, other.query)


def test_spans_leave_as_the_sdks_do(ours, theirs):
    """OTLP goes to the same place under the same headers."""
    mine, other = ours["otel traces"], theirs["otel traces"]
    assert (mine.method, mine.path) == (other.method, other.path)
    for header in ("content-type", "galileo-api-key", "project", "logstream"):
        assert mine.headers[header] == other.headers[header]


def test_a_spans_place_is_on_its_resource_as_the_sdk_puts_it(ours, theirs):
    """Session, dataset and experiment are copied there; with an experiment no log stream is named."""
    found = [place(one["otel traces"].body) for one in (ours, theirs)]
    assert found[0] == found[1] == {name: text for name, text in ROUTING.items() if name != "galileo.logstream.name"}


def place(body: bytes) -> dict[str, str]:
    """Return what the resource of the one span says of Galileo."""
    (group,) = ExportTraceServiceRequest.FromString(body).resource_spans
    return {one.key: one.value.string_value for one in group.resource.attributes if one.key.startswith("galileo.")}


def test_the_double_answered_the_sdk(theirs):
    """What is compared is what the SDK sends when all goes well."""
    assert {"spans", "traces", "projects", "otel traces"} <= theirs.keys()
