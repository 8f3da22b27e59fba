"""`configure("serve")`: which server it is, and what goes there."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from tests.backends.vendors.serve import Serve
from tests.backends.vendors.server import KEY, Response
from tests.exporters.loopback import Loopback, reply

import otel_metadata as om
from otel_metadata.backends.serve import TOKEN, URL
from otel_metadata.destination_factory import make_destinations, names_store, open_store
from otel_metadata.dialects.canonical import FIELDS
from otel_metadata.errors import ConfigurationError, StoreError
from otel_metadata.joining.addresses import address_of, is_same
from otel_metadata.model.record import SpanQuery


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (URL, TOKEN, "OTEL_EXPORTER_OTLP_HEADERS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def double() -> Iterator[Serve]:
    with Serve() as double:
        yield double


def where(text: str) -> tuple[str, dict[str, str]]:
    (destination,) = make_destinations(text, resource=Resource({}))
    assert destination.name == "serve"
    return destination.span_exporter.where


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("serve", "http://127.0.0.1:4318/v1/traces"),
        (" Serve ", "http://127.0.0.1:4318/v1/traces"),
        ("serve://ci.example", "http://ci.example:4318/v1/traces"),
        ("serve://ci.example:80", "http://ci.example:80/v1/traces"),
        ("SERVE://[::1]:5/behind/a/proxy/", "http://[::1]:5/behind/a/proxy/v1/traces"),
        ("serves://ci.example", "https://ci.example:443/v1/traces"),
        ("serves://ci.example:4318/", "https://ci.example:4318/v1/traces"),
    ],
)
def test_a_server_is_named_by_a_url(text, url):
    """Port 4318 unless the URL has another, 443 with TLS; the same text names a store."""
    assert where(text) == (url, {})
    assert names_store(text)
    assert f"{open_store(text)}" == url.removesuffix("/v1/traces").replace("http", "serve", 1)


@pytest.mark.parametrize("text", ["serve://ci.example:99", "http://ci.example:99", "serve://ci.example:99/"])
def test_the_environment_names_the_server_and_its_token(monkeypatch, text):
    """For the name alone; a token in the URL comes first."""
    monkeypatch.setenv(URL, text)
    monkeypatch.setenv(TOKEN, f" {KEY} ")
    assert where("serve") == ("http://ci.example:99/v1/traces", {"authorization": f"Bearer {KEY}"})
    assert where("serve://ci.example")[1] == {"authorization": f"Bearer {KEY}"}
    assert where("serve://other%2F1@ci.example")[1] == {"authorization": "Bearer other/1"}


@pytest.mark.parametrize(
    "text",
    ["serve://", "serve://:4318", "serves", f"serve://user:{KEY}@host", "serve://host?x=1", "serve://host#x",
     "serve://host:99999", "serve://hö", "serve://a b"],
)  # fmt: skip
def test_what_names_no_server_is_refused(text):
    """With the form that was expected, and without a word of the password."""
    for make in (make_destinations, open_store):
        with pytest.raises(ConfigurationError, match="serve://host:4318") as raised:
            make(text)
        assert KEY not in f"{raised.value}"


@pytest.mark.parametrize(
    "other", ["serve://localhost:4318", "http://127.0.0.1:4318", "http://localhost:4318/v1/traces"]
)
def test_one_server_under_two_names_is_refused(other):
    """It would get each span twice."""
    with pytest.raises(ConfigurationError, match="both are the same"):
        make_destinations("serve", other)


def application(*destinations: str) -> TracerProvider:
    provider = TracerProvider(resource=Resource({"service.name": "shop"}), shutdown_on_exit=False)
    om.configure(*destinations, tracer_provider=provider, author="ada")
    return provider


def test_a_span_has_its_exact_fields_and_an_update_is_sent_as_it_is(double):
    """Values that were set while the span ran have their versions and their author there."""
    provider = application(double.url.replace("http", "serve"))
    with om.start_span("work") as span:
        span.update(metadata={"step": 1, "nested": {"a": None}}, tags=["vip"], status=404)
    om.flush(10_000)
    om.update_span(span.ref, metadata={"step": 2})
    om.flush(10_000)
    provider.shutdown()
    (sent,) = (one for request in double.spans for part in request.resource_spans for one in part.scope_spans)
    (text,) = (one.value.string_value for one in sent.spans[0].attributes if one.key == FIELDS)
    found = orjson.loads(text)
    values = {(level, kind, key): value for level, kind, key, _, _, value in found["fields"]}
    assert values["span", "metadata", "nested"] == {"a": None}
    assert values["span", "status", ""] == 404
    assert values["span", "tag", "vip"] is True
    writers = {writer for *_, writer, _ in found["fields"]}
    assert found["authors"] == dict.fromkeys(writers, "ada")
    assert all(ns <= sent.spans[0].end_time_unix_nano for _, _, _, ns, _, _ in found["fields"])
    (update,) = double.updates
    assert [one["value"] for one in update["fields"]] == [2]
    assert double.authors == found["authors"]


def test_an_exporter_of_the_application_to_the_same_server_sends_the_spans(double):
    """Its path, its host name and the spelling of its token do not matter; each span leaves once."""
    port = double.url.rpartition(":")[2]
    provider = TracerProvider(resource=Resource({}), shutdown_on_exit=False)
    own = OTLPSpanExporter(f"http://localhost:{port}/v1/traces", headers={"Authorization": f"Bearer {KEY}"})
    provider.add_span_processor(SimpleSpanProcessor(own))
    om.configure(f"serve://{KEY}@127.0.0.1:{port}", tracer_provider=provider)
    with om.start_span("work") as span:
        om.update_current_span(metadata={"step": 1})
    om.flush(10_000)
    om.update_span(span.ref, metadata={"step": 2})
    om.flush(10_000)
    provider.shutdown()
    spans = [one for request in double.spans for part in request.resource_spans for one in part.scope_spans]
    assert len(spans) == 1
    assert [(one["span_id"], one["fields"][0]["value"]) for one in double.updates] == [(span.ref.span_id_hex, 2)]


def test_the_grpc_port_of_the_same_server_is_the_same_place():
    """One server has both."""
    (destination,) = make_destinations("serve")
    over_grpc = GrpcExporter("http://localhost:4317", insecure=True)
    elsewhere = OTLPSpanExporter("http://localhost:4319/v1/traces")
    own, *others = (address_of(one, Resource({})) for one in (destination.span_exporter, over_grpc, elsewhere))
    assert [is_same(own, other) for other in others] == [True, False]
    for exporter in (over_grpc, elsewhere):
        exporter.shutdown()


PAGE = reply(200, b"<!doctype html><title>Sign in</title>", content_type="text/html")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (PAGE, "login page"),
        (reply(200, b"[]", content_type="application/json"), "does not come from a server of otel-metadata"),
        (reply(200, b'{"spans": 5, "searched_to": null}', content_type="application/json"), "does not come from"),
        (reply(200, b'{"spans": [{}], "searched_to": null}', content_type="application/json"), "does not come from"),
        (reply(200, b"", content_type="application/json"), "does not come from"),
        (reply(302, b"", location="http://127.0.0.1:9/"), "redirects are not followed"),
        (reply(404, b"{}", content_type="application/json"), "check the endpoint"),
    ],
    ids=["page", "list", "number", "no-row", "empty", "redirect", "404"],
)
def test_a_store_says_when_something_else_answers(answer, says):
    """Never an empty result, and never another error than a store has."""
    with Loopback(answer) as server:
        store = open_store(server.url.replace("http", "serve"))
        with pytest.raises(StoreError, match=says) as raised:
            store.query(SpanQuery())
        assert server.url.replace("http", "serve") in f"{raised.value}"
        store.close()


def test_a_store_shows_no_token_that_a_server_repeats(double):
    """The sentence of the server is told, without the token."""
    double.fault = lambda _: Response(400, {"title": f"filter is wrong; your token is {KEY}"})
    store = open_store(double.url.replace("http://", f"serve://{KEY}@"))
    with pytest.raises(StoreError, match="filter is wrong") as raised:
        store.query(SpanQuery())
    assert KEY not in f"{raised.value!r}"
    assert KEY not in f"{store!r} {store}"
    store.close()


@pytest.mark.parametrize(
    ("status", "title", "expected"),
    [
        (401, "The request has no token.", "OTEL_PYTHON_METADATA_SERVE_TOKEN"),
        (403, "The token 'ci' has the scope traces:write; expected spans:read.", "expected spans:read"),
    ],
)
def test_a_store_tells_a_missing_token_from_a_missing_scope(double, status, title, expected):
    double.fault = lambda _: Response(status, {"title": title})
    store = open_store(double.url.replace("http://", "serve://"))
    with pytest.raises(StoreError, match=f"HTTP {status}") as raised:
        store.query(SpanQuery())
    assert expected in f"{raised.value}"
    assert ("serve://token@host" in f"{raised.value}") == (status == 401)
    assert "check the key" not in f"{raised.value}"
    store.close()


def test_a_store_waits_for_a_server_that_asks_for_it(double):
    """503 with Retry-After: the same request again, as long as the time of the call allows."""
    answers = iter([Response(503, {}, {"Retry-After": "0"}), Response(503, {}, {"Retry-After": "600"})])
    double.fault = lambda _: next(answers)
    store = open_store(double.url.replace("http", "serve"))
    with pytest.raises(StoreError, match="HTTP 503"):
        store.query(SpanQuery())
    assert len(double.requests) == 2
    store.close()
