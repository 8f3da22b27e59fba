"""Our requests to Splunk Agent Observability beside those of its own SDK (splunk-ao 0.6.1)."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from tests.backends.vendors.galileo import LOG_STREAM, PROJECT, Stored, identifier
from tests.backends.vendors.server import KEY, Request
from tests.backends.vendors.splunk_ao import SplunkAo

from otel_metadata.backends.splunk_ao import destination
from otel_metadata.model.outcome import Delivered
from otel_metadata.model.patch import Patch
from otel_metadata.model.span_ref import SpanRef

SPAN = identifier(1)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Request], str]:
    """What the SDK sends, and what it says of the cloud."""
    program = Path(__file__).with_name("splunk_ao_program.py")
    with SplunkAo() as double:
        double.stored = {("span", SPAN): Stored()}
        home = str(tmp_path_factory.mktemp("home"))
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": home,
            "SPLUNK_AO_HOME_DIR": home,
            "SPLUNK_AO_API_KEY": KEY,
            "SPLUNK_AO_API_URL": double.url,
            "SPLUNK_AO_CONSOLE_URL": double.url,
        }
        arguments = [sys.executable, str(program), PROJECT, LOG_STREAM, SPAN]
        ran = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert ran.returncode == 0, ran.stderr
        return list(double.requests), ran.stdout


@pytest.fixture(scope="module")
def ours() -> list[Request]:
    """What we send for the same."""
    with SplunkAo() as double:
        double.stored = {("span", SPAN): Stored()}
        span = TracerProvider(shutdown_on_exit=False).get_tracer("application").start_span("answer")
        span.end()
        address = {"api_key": KEY, "console_url": double.url, "api_url": double.url}
        for place in (
            {"project": "shop", "agent_stream": "nightly"},
            {"project_id": PROJECT, "agent_stream_id": LOG_STREAM},
        ):
            made = destination(**address, **place)
            assert made.span_exporter is not None
            made.span_exporter.export([span])  # type: ignore[list-item] # an ended span of the SDK
            made.span_exporter.shutdown()
        fields = {
            ("span", "output", ""): ("bye", (1, 1)),
            ("span", "tag", "late"): (True, (1, 1)),
            ("span", "status", ""): (404, (1, 1)),
        }
        patch = Patch(SpanRef.from_backend_id("splunk_ao", SPAN), fields)  # type: ignore[arg-type] # literals
        assert made.patch_exporter.export([patch], timeout_millis=5_000) == [Delivered()]
        made.patch_exporter.shutdown()
        return list(double.requests)


def spans(requests: list[Request]) -> list[Request]:
    return [request for request in requests if "/otel/" in request.path]


@pytest.mark.parametrize("at", [0, 1], ids=["names", "ids"])
def test_spans_leave_as_the_sdks_do(ours, theirs, at):
    """To the same path, under the same headers, with the same place on the resource."""
    mine, other = spans(ours)[at], spans(theirs[0])[at]
    assert (mine.method, mine.path) == (other.method, other.path) == ("POST", "/otel/v1/traces")
    routing = {"content-type", "splunk-ao-api-key", "project", "projectid", "logstream", "logstreamid", "experimentid"}
    assert {name: mine.headers.get(name) for name in routing} == {name: other.headers.get(name) for name in routing}
    assert place(mine.body) == place(other.body)


def test_an_update_is_the_sdks(ours, theirs):
    """Method, path and every field that says something; theirs says null where nothing changes."""
    (mine,), (other,) = ([one for one in requests if one.method == "PATCH"] for requests in (ours, theirs[0]))
    assert mine.path == other.path
    said = {name: value for name, value in other.json.items() if value is not None}
    said.pop("client_version", None)
    assert mine.json == said


def test_the_cloud_is_where_the_sdk_says(theirs):
    """Endpoint, headers and the address of the API follow from the realm."""
    endpoint, headers, api = theirs[1].splitlines()[-3:]
    made = destination(realm="us0", token="secret", project="shop", agent_stream="nightly")
    assert f" {endpoint}>" in repr(made.span_exporter)
    assert ast.literal_eval(headers) == {"X-SF-Token": "secret", "project": "shop", "logstream": "nightly"}
    assert api.rstrip("/") == "https://app.us0.observability.splunkcloud.com/ao/api"


def place(body: bytes) -> dict[str, str]:
    """Return what the resource says of project and stream."""
    (of_resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    return {
        one.key: one.value.string_value for one in of_resource.resource.attributes if one.key.startswith("splunk_ao.")
    }
