"""OTLP over gRPC against a real gRPC server on loopback: what each answer means, and what leaves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import otel_metadata as om
from otel_metadata.errors import ConfigurationError
from otel_metadata.exporters.otlp import OtlpPatchExporter
from otel_metadata.exporters.otlp_grpc import CODES, OtlpGrpcEvents, OtlpGrpcSender
from otel_metadata.model.evaluation import Evaluation
from otel_metadata.model.outcome import Delivered, Pause, Rejected, Retry
from otel_metadata.model.patch import Patch

KEY = "sk-secret-0123456789"


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """A gRPC receiver; `fail` is (code, details, trailing metadata)."""

    def __init__(self):
        self.requests, self.metadata, self.logs, self.fail = [], [], [], None
        self.response = trace_service_pb2.ExportTraceServiceResponse()

    def Export(self, request, context):  # noqa: N802 # gRPC's name
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        if self.fail is not None:
            code, details, trailing = self.fail
            context.set_trailing_metadata(trailing)
            context.abort(code, details)
        return self.response


class Logs(logs_service_pb2_grpc.LogsServiceServicer):
    def __init__(self, receiver):
        self.receiver = receiver

    def Export(self, request, _context):  # noqa: N802 # gRPC's name
        self.receiver.logs.append(request)
        return logs_service_pb2.ExportLogsServiceResponse()


@pytest.fixture
def receiver(monkeypatch):
    server = grpc.server(ThreadPoolExecutor(2))
    receiver = Receiver()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(Logs(receiver), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"X-Key={KEY}")
    yield receiver
    server.stop(None).wait()


@pytest.fixture
def sender(receiver):
    sender = OtlpGrpcSender()
    yield sender
    sender.shutdown()


@pytest.fixture
def spans():
    memory, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    provider.get_tracer("t").start_span("work").end()
    return memory.get_finished_spans()


def test_spans_arrive_with_the_headers_of_the_environment(sender, receiver, spans):
    """A success is delivered; names of headers are in lower case, as gRPC asks."""
    assert sender.send(spans, timeout_millis=5_000) == Delivered()
    assert receiver.requests[0].resource_spans[0].scope_spans[0].spans[0].name == "work"
    assert receiver.metadata[0]["x-key"] == KEY


def test_a_partial_success_is_read(sender, receiver, spans):
    """Rejected spans are a note, in the receiver's words but without the key."""
    receiver.response.partial_success.rejected_spans = 1
    receiver.response.partial_success.error_message = f"bad key {KEY}"
    (note,) = sender.send(spans, timeout_millis=5_000).notes
    assert note == "the backend rejected 1 of 1 spans: bad key ***"


def test_the_words_of_a_receiver_are_visible(sender, receiver, spans):
    """What a terminal would obey is escaped before anybody logs it."""
    receiver.response.partial_success.error_message = "\x1b]0;pwned\x07\u202e"
    assert sender.send(spans, timeout_millis=5_000).notes == (r"the backend says: \x1b]0;pwned\x07\u202e",)


def test_an_answer_that_is_too_large_is_not_held(sender, receiver, spans):
    """It is as long as an answer over HTTP may be, and nothing is taken for refused."""
    receiver.response.partial_success.error_message = "x" * 100_000
    outcome = sender.send(spans, timeout_millis=5_000)
    assert isinstance(outcome, Retry)
    assert "check the endpoint" in outcome.error.message


def test_what_export_cannot_say_is_logged(sender, receiver, spans, caplog):
    """Through OpenTelemetry's own interface a rejected span is a line in the log."""
    receiver.response.partial_success.rejected_spans = 1
    assert sender.export(spans) is SpanExportResult.SUCCESS
    assert "the backend rejected 1 of 1 spans" in caplog.text


@pytest.mark.parametrize(
    "code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK], ids=lambda c: c.name
)
def test_each_status_has_a_meaning(sender, receiver, spans, code):
    """Keys and a missing service pause, what cannot be used is rejected, everything else is tried again; once each."""
    receiver.fail = (code, f"no {KEY}", ())
    outcome = sender.send(spans, timeout_millis=5_000)
    expected = {"UNAUTHENTICATED": Pause, "PERMISSION_DENIED": Pause, "UNIMPLEMENTED": Pause}.get(code.name)
    assert isinstance(outcome, expected or (Rejected if code.name in CODES else Retry))
    assert KEY not in repr(outcome)
    assert len(receiver.requests) == 1


def test_what_the_backend_asks_for_is_waited_for(sender, receiver, spans):
    """RetryInfo in the trailing metadata is `after_millis`; one that cannot be read is none."""
    info = RetryInfo(retry_delay=Duration(seconds=7))
    receiver.fail = (grpc.StatusCode.UNAVAILABLE, "", (("google.rpc.retryinfo-bin", info.SerializeToString()),))
    assert sender.send(spans, timeout_millis=5_000).after_millis == 7_000
    receiver.fail = (grpc.StatusCode.UNAVAILABLE, "", (("google.rpc.retryinfo-bin", b"\xff\xff"),))
    assert sender.send(spans, timeout_millis=5_000).after_millis is None


def test_a_message_that_is_too_large_is_split_not_tried_again(sender, receiver, spans):
    """What gRPC says of a message beyond the receiver's limit is too_large."""
    receiver.fail = (grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs. 4)", ())
    assert sender.send(spans, timeout_millis=5_000).error.type == "too_large"


def test_nobody_listens(monkeypatch, spans):
    """A dead receiver is a retry, and through `export` a failure that does not raise."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    sender = OtlpGrpcSender()
    assert isinstance(sender.send(spans, timeout_millis=2_000), Retry)
    assert sender.export(spans) is SpanExportResult.FAILURE
    sender.shutdown()
    assert isinstance(sender.send(spans, timeout_millis=2_000), Retry)


def test_patches_and_events_go_the_same_way(sender, receiver):
    """A patch with an evaluation is a synthetic span and a log event."""
    exporter = OtlpPatchExporter(sender, events=OtlpGrpcEvents(), resource=Resource({}))
    value = Evaluation("C", 1.0).to_json()
    (outcome,) = exporter.export(
        [Patch(om.SpanRef(1, 2), {("span", "evaluation", "C"): (value, (5, 7))})], timeout_millis=5_000
    )
    exporter.shutdown()
    assert isinstance(outcome, Delivered)
    assert (len(receiver.requests), len(receiver.logs)) == (1, 1)


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:word@host:4317"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "no equals sign"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(monkeypatch, variable, text):
    """The error names the variable, and shows no password."""
    monkeypatch.setenv(variable, text)
    with pytest.raises(ConfigurationError, match=variable) as caught:
        OtlpGrpcSender()
    assert "word" not in str(caught.value)


def test_a_certificate_that_cannot_be_read_is_named(monkeypatch):
    """An https endpoint reads the certificate files when it is made."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://localhost:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere.pem")
    with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_OTLP_CERTIFICATE"):
        OtlpGrpcSender()
