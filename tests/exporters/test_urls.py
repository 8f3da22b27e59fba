"""URLs as users write them: where OTLP's path goes, which receiver gets log events, and that no key of one is shown."""

from __future__ import annotations

import logging
import socket
import socketserver
import threading

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from tests.backends.vendors.server import KEY, Double, Response

import otel_metadata as om
from otel_metadata.backends import galileo, langfuse, langwatch, mlflow, phoenix
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.destination_factory import make_destinations
from otel_metadata.errors import ConfigurationError, shown_url
from otel_metadata.exporters.http import HttpClient, with_path
from otel_metadata.exporters.otlp_http import OtlpHttpSender
from otel_metadata.model.outcome import Delivered
from otel_metadata.model.patch import Patch
from otel_metadata.model.span_ref import SpanRef

QUERY = f"?token={KEY}&x=%20"
SCORED = {("span", "evaluation", "Correctness"): ({"score": 1.0}, (101, 7))}


class Receiver(Double):
    """Takes whatever comes, or says *says*."""

    says: bytes = b""

    def answer(self, request):
        return Response(200, self.says)

    @property
    def asked(self):
        """Each path with what its query said of the token."""
        return [(one.path, one.query.get("token")) for one in self.requests]


@pytest.fixture
def receiver():
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """No variable of the machine has a say."""
    for name in ("ENDPOINT", "PROTOCOL", "HEADERS", "TIMEOUT", "COMPRESSION"):
        for signal in ("", "TRACES_", "LOGS_"):
            monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{signal}{name}", raising=False)
    monkeypatch.delenv("OTEL_LOGS_EXPORTER", raising=False)


def score(destination):
    """Send a late evaluation as a worker does."""
    (outcome,) = destination.patch_exporter.export([Patch(SpanRef(1, 2), SCORED)], timeout_millis=5_000)
    destination.patch_exporter.shutdown()
    destination.span_exporter.shutdown()
    return outcome


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h", "http://h/v1/traces"),
        ("http://h/", "http://h/v1/traces"),
        ("http://h?a=b/c", "http://h/v1/traces?a=b/c"),
        ("http://h/?a=b", "http://h/v1/traces?a=b"),
        ("http://h/base//?", "http://h/base/v1/traces?"),
        ("http://h/a%2Fb?q=%20#part?not=query", "http://h/a%2Fb/v1/traces?q=%20"),
        ("http://[::1]:4318?a", "http://[::1]:4318/v1/traces?a"),
    ],
)
def test_a_path_goes_before_the_query(url, expected):
    """The query stays whole, the fragment goes, and slashes meet as one."""
    assert with_path(url, "/v1/traces") == expected


@pytest.mark.parametrize("end", ["", "/", "/v1/traces", "/v1/traces/"])
@pytest.mark.parametrize("start", ["http", "HTTP", "  Http"])
def test_configure_takes_a_url_with_a_query(receiver, start, end):
    """Spans and log events go to their paths of OTLP with the query; a scheme may be in capitals."""
    url = receiver.url.replace("http", start, 1)
    (destination,) = make_destinations(f"{url}{end}{QUERY}#part")
    assert destination.span_exporter.endpoint.endswith("/v1/traces")
    score(destination)
    assert receiver.asked == [("/v1/traces", KEY), ("/v1/logs", KEY)]
    assert KEY not in repr(destination.span_exporter)


def test_a_path_of_ones_own_keeps_its_query_and_has_no_logs(receiver):
    """Where spans have another path it is not known where log events go."""
    score(make_destinations(f"{receiver.url}/otlp/in{QUERY}")[0])
    assert receiver.asked == [("/otlp/in", KEY)]


@pytest.mark.parametrize(
    ("variables", "asked"),
    [
        ({"ENDPOINT": "/base/"}, ["/base/v1/traces", "/base/v1/logs"]),
        ({"TRACES_ENDPOINT": "/spans"}, ["/spans"]),
        ({"TRACES_ENDPOINT": "/v1/traces"}, ["/v1/traces"]),
        ({"TRACES_ENDPOINT": "/spans", "LOGS_ENDPOINT": "/logs"}, ["/spans", "/logs"]),
        ({"TRACES_ENDPOINT": "/spans", "ENDPOINT": ""}, ["/spans", "/v1/logs"]),
        ({"LOGS_ENDPOINT": "/logs", "ENDPOINT": ""}, ["/v1/traces", "/logs"]),
    ],
)
def test_log_events_go_where_the_environment_says_and_nowhere_else(receiver, monkeypatch, variables, asked):
    """An endpoint for traces alone says nothing of logs; then the evaluation leaves with its span alone."""
    for name, path in variables.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", f"{receiver.url}{path}{QUERY}")
    outcome = score(make_destinations("otlp")[0])
    assert receiver.asked == [(path, KEY) for path in asked]
    assert len(outcome.notes) == 1


@pytest.mark.parametrize(
    ("exporters", "is_asked"), [("none", False), ("console", False), ("otlp", True), ("console, otlp_proto_http", True)]
)
@pytest.mark.parametrize("given", ["otlp", "url"])
def test_who_wants_no_logs_over_otlp_gets_none(receiver, monkeypatch, exporters, is_asked, given):
    """OTEL_LOGS_EXPORTER holds for log events of ours, wherever the endpoint was said."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", exporters)
    score(make_destinations("otlp" if given == "otlp" else receiver.url)[0])
    assert [path for path, _ in receiver.asked] == ["/v1/traces", "/v1/logs"][: 2 if is_asked else 1]


def test_each_signal_has_its_own_headers_and_compression(receiver, monkeypatch):
    """What is said for logs holds for log events alone, what is said for traces for spans alone."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x=general")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x=spans")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "x=logs")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "gzip")
    score(make_destinations("otlp")[0])
    found = [(one.headers["x"], one.headers.get("content-encoding")) for one in receiver.requests]
    assert found == [("spans", None), ("logs", "gzip")]


@pytest.mark.parametrize(
    ("variables", "kinds"),
    [
        ({"PROTOCOL": "grpc"}, ("OtlpGrpcSender", "OtlpGrpcEvents")),
        ({"TRACES_PROTOCOL": "grpc"}, ("OtlpGrpcSender", "OtlpGrpcEvents")),
        ({"TRACES_PROTOCOL": "grpc", "LOGS_PROTOCOL": "http/protobuf"}, ("OtlpGrpcSender", "OtlpHttpEvents")),
        ({"PROTOCOL": "grpc", "TRACES_PROTOCOL": "http/protobuf"}, ("OtlpHttpSender", "OtlpGrpcEvents")),
        ({"LOGS_PROTOCOL": "grpc"}, ("OtlpHttpSender", "OtlpGrpcEvents")),
        ({"PROTOCOL": "grpc", "TRACES_ENDPOINT": "http://127.0.0.1:9"}, ("OtlpGrpcSender", "NoneType")),
    ],
)
def test_each_signal_has_its_own_protocol(monkeypatch, variables, kinds):
    """Log events take the protocol of logs, else the general one, else that of the spans."""
    for name, value in variables.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
    (destination,) = make_destinations("otlp")
    found = (destination.span_exporter, destination.patch_exporter._events)
    destination.patch_exporter.shutdown()
    destination.span_exporter.shutdown()
    assert tuple(type(one).__name__ for one in found) == kinds


@pytest.mark.parametrize("signal", ["TRACES", "LOGS"])
def test_a_protocol_that_is_not_spoken_names_its_variable(monkeypatch, signal):
    monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "http/json")
    with pytest.raises(
        ConfigurationError, match=f"^OTEL_EXPORTER_OTLP_{signal}_PROTOCOL is 'http/json'; expected grpc"
    ):
        make_destinations("otlp")


def test_grpc_has_no_place_for_a_query(monkeypatch):
    """A key in a query would be left out without a word."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:9{QUERY}")
    with pytest.raises(ConfigurationError, match="over gRPC a key belongs into the headers") as caught:
        make_destinations("otlp")
    assert KEY not in str(caught.value)


UUID = "3c90c3cc-0d44-4b50-8888-8dd25736052a"


@pytest.mark.parametrize("end", ["", "/", "/base", "/base/"])
@pytest.mark.parametrize(
    ("make", "spans"),
    [
        (
            lambda url: langfuse.destination(base_url=url, public_key="pk", secret_key="sk"),
            "/api/public/otel/v1/traces",
        ),
        (lambda url: langwatch.destination(endpoint=url, api_key="k"), "/api/otel/v1/traces"),
        (lambda url: mlflow.destination(tracking_uri=url, experiment_id="1"), "/v1/traces"),
        (lambda url: phoenix.destination(endpoint=url), "/v1/traces"),
        (lambda url: galileo.destination(api_url=url, api_key="k", project_id=UUID), "/otel/traces"),
    ],
    ids=["langfuse", "langwatch", "mlflow", "phoenix", "galileo"],
)
def test_a_vendors_address_may_have_a_query(receiver, make, spans, end):
    """A gateway's token stays behind the path of spans and of every other request."""
    destination = make(f"{receiver.url}{end}{QUERY}")
    with_provider = TracerProvider(resource=Resource({}), shutdown_on_exit=False)
    pipeline = om.configure(destination, tracer_provider=with_provider, outbox=OutboxSettings())
    with om.start_span("work") as span:
        pass
    pipeline.flush()
    om.score_span(span.ref, "Correctness", score=1.0, label="yes")
    om.update_span(span.ref.with_backend_id("galileo", UUID), tags=["late"])
    pipeline.flush(2_000)
    pipeline.shutdown(500)
    base = end.rstrip("/")
    assert receiver.asked[0] == (base + spans, KEY)
    assert len(receiver.asked) > 1
    assert all(path.startswith(f"{base}/") and token == KEY for path, token in receiver.asked)


def test_a_key_in_a_query_is_shown_nowhere(receiver, caplog):
    """Neither where the receiver repeats it, nor where it is refused, nor in counts and representations."""
    with caplog.at_level(logging.DEBUG):
        receiver.fault = lambda request: Response(500, f"bad token {KEY}")
        provider = TracerProvider(resource=Resource({}), shutdown_on_exit=False)
        pipeline = om.configure(f"{receiver.url}{QUERY}", tracer_provider=provider, outbox=OutboxSettings())
        with om.start_span("work"):
            pass
        pipeline.flush(2_000)
        shown = f"{pipeline!r} {pipeline.destinations!r} {pipeline.stats()!r}"
        pipeline.shutdown(200)
    assert KEY not in caplog.text + shown
    client = HttpClient(f"{receiver.url}/?token=sk%2Dsecret%2D0123456789")
    assert client.without_keys("no sk%2Dsecret%2D0123456789, no sk-secret-0123456789") == "no ***, no ***"


@pytest.mark.parametrize(
    "url",
    [
        f"nowhere://host?token={KEY}",
        f"nowhere://{KEY}@host/#x",
        f"http://user:{KEY}@host",
        f"http://host:port?token={KEY}",
        f"http://ho st?token={KEY}",
        f"https://[::1?token={KEY}",
        f"http://host/#{KEY} ü",
        f"sqlite:/x?token={KEY}",
    ],
)
def test_an_address_that_is_refused_is_shown_without_its_keys(url):
    with pytest.raises(ConfigurationError) as caught:
        OtlpHttpSender(url) if url.startswith("http://host/#") else make_destinations(url)
    assert KEY not in f"{caught.value} {caught.value.got}"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://host/a", "http://host/a"),
        ("http://u:p@host/a?b#c", "http://***@host/a"),
        ("http://host#c?d", "http://host"),
        ("http://u:p?x#y@host/a", "http://***@host/a"),
        ("u:p@host", "***@host"),
        ("//u:p@host", "***@host"),
        ("http:u:p@host", "***@host"),
        ("u:a://b@host", "***@host"),
        ("http://u:p@host,http://u:q@other", "http://***@other"),
    ],
)
def test_what_is_shown_of_a_url(url, shown):
    assert shown_url(url) == shown


class Listener(socketserver.TCPServer):
    address_family = socket.AF_INET6


@pytest.mark.skipif(not socket.has_ipv6, reason="the machine has no IPv6")
def test_an_address_may_be_ipv6():
    """A literal address in brackets is asked, and named as it was given."""
    asked = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            asked.append(self.rfile.readline())
            asked.append(next(line for line in iter(self.rfile.readline, b"") if line.lower().startswith(b"host:")))
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    try:
        server = Listener(("::1", 0), Handler)
    except OSError:
        pytest.skip("::1 is no address of the machine")
    with server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        (destination,) = make_destinations(f"http://[::1]:{server.server_address[1]}?a=b")
        assert isinstance(destination.span_exporter.send([], timeout_millis=5_000), Delivered)
        destination.span_exporter.shutdown()
        thread.join()
    assert asked == [
        b"POST /v1/traces?a=b HTTP/1.1\r\n",
        f"Host: [::1]:{server.server_address[1]}\r\n".encode(),
    ]
