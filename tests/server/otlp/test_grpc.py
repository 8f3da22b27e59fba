"""OTLP over gRPC: stock exporters, our own plugin, keys in metadata, refusals. Every request is a real one."""

from __future__ import annotations

import contextlib
import gzip
import logging
import os
import re
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context
from tests.server.conftest import PATIENCE, Server, StartServer

import otel_metadata as om
from otel_metadata.errors import ConfigurationError
from otel_metadata.model.record import SpanQuery, SpanRecord
from otel_metadata.server import bodies
from otel_metadata.server.access import Access
from otel_metadata.server.otlp import grpc as grpc_server
from otel_metadata.server.tokens import Tokens
from otel_metadata.store.sqlite.store import SqliteStore

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
TRACE, SPAN = b"\1" * 16, b"\2" * 8


def request(*span_ids: bytes, size: int = 0) -> ExportTraceServiceRequest:
    found = ExportTraceServiceRequest()
    spans = found.resource_spans.add().scope_spans.add().spans
    for span_id in span_ids or (SPAN,):
        spans.add(trace_id=TRACE, span_id=span_id, name="answer" + "x" * size)
    return found


@pytest.fixture
def server(start_server: StartServer) -> Server:
    return start_server(own=True, grpc_port=0)


def endpoint(server: Server) -> str:
    return f"http://127.0.0.1:{server.local.grpc_port}"


@contextlib.contextmanager
def channel_to(server: Server) -> Iterator[grpc.Channel]:
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{server.local.grpc_port}", options=options) as channel:
        yield channel


def sent(server: Server, given: ExportTraceServiceRequest, **options: Any) -> ExportTraceServiceResponse:
    with channel_to(server) as channel:
        return TraceServiceStub(channel).Export(given, timeout=PATIENCE, **options)


def refusal(server: Server, given: ExportTraceServiceRequest, **options: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as refused:
        sent(server, given, **options)
    return refused.value


def retry_delay(refused: grpc.RpcError) -> int:
    """Return the seconds after which the call may be tried again."""
    (details,) = [value for name, value in refused.trailing_metadata() if name == "grpc-status-details-bin"]
    retry = RetryInfo()
    assert Status.FromString(details).details[0].Unpack(retry)
    return int(retry.retry_delay.seconds)


def records(server: Server) -> list[SpanRecord]:
    return server.store.query(SpanQuery(limit=None))


@pytest.mark.parametrize(
    "compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip, grpc.Compression.Deflate]
)
def test_a_stock_exporter_stores_spans(server, compression):
    provider = TracerProvider()
    provider.add_span_processor(
        SimpleSpanProcessor(OTLPSpanExporter(endpoint(server), insecure=True, compression=compression))
    )
    with provider.get_tracer("shop").start_as_current_span("answer") as span:
        span.set_attributes({"a": [1, 2], "metadata.plan": "pro", "user.id": "ada"})
    provider.shutdown()
    (record,) = records(server)
    assert (record.name, record.attributes, record.metadata) == ("answer", {"a": [1, 2]}, {"plan": "pro"})
    assert record.user_id == "ada"


def test_our_own_sender_is_told_which_spans_were_refused(server):
    response = sent(server, request(SPAN, b"\0" * 8, b"\3"))
    assert response.partial_success.rejected_spans == 2
    assert "spanId" in response.partial_success.error_message
    assert len(records(server)) == 1
    assert sent(server, request()) == ExportTraceServiceResponse()


def test_updates_of_our_own_plugin_reach_their_span(server, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint(server))
    om.configure("otlp", tracer_provider=TracerProvider())
    with om.start_span("answer") as handle:
        om.update_current_span(metadata={"plan": "pro"})
    assert om.flush(PATIENCE * 1_000)
    om.update_span(handle.ref, metadata={"thumbs": "up"})
    om.score_span(handle.ref, name="Tone", score=0.5)
    assert om.flush(PATIENCE * 1_000)
    om.shutdown()
    (record,) = records(server)
    assert record.metadata == {"plan": "pro", "thumbs": "up"}
    assert record.evaluations["Tone"].score == 0.5
    routes = {value.key: value.route for value in server.store.history(record.trace_id, record.span_id)}
    assert routes == {"plan": "live", "thumbs": "late", "Tone": "late"}
    # The evaluation comes twice, on the span of the update and as an event, and is one value.
    assert len(server.store.history(record.trace_id, record.span_id)) == 3


@pytest.mark.skipif(
    "event_name" not in LogRecord.DESCRIPTOR.fields_by_name, reason="log records have a name since OpenTelemetry 1.31"
)
def test_evaluation_events_are_stored_and_metrics_taken(server):
    sent(server, request())
    provider = LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(OTLPLogExporter(endpoint(server), insecure=True)))
    judged = SpanContext(int.from_bytes(TRACE, "big"), int.from_bytes(SPAN, "big"), True, TraceFlags(1))
    provider.get_logger("judge").emit(
        timestamp=50,
        context=set_span_in_context(NonRecordingSpan(judged)),
        event_name="gen_ai.evaluation.result",
        attributes={"gen_ai.evaluation.name": "Tone", "gen_ai.evaluation.score.label": "kind"},
    )
    provider.shutdown()
    (record,) = records(server)
    assert record.evaluations["Tone"].label == "kind"
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint(server), insecure=True))
    meters = MeterProvider([reader])
    meters.get_meter("shop").create_counter("orders").add(1)
    assert meters.force_flush()
    meters.shutdown()


@pytest.fixture
def guarded(start_server: StartServer, tmp_path) -> tuple[Server, str, str]:
    """Return a server that needs tokens, a token that may send spans, and one that may only read."""
    tokens = Tokens(f"{tmp_path / 'tokens.json'}")
    writes = tokens.create("ada", ["traces:write"], None, 1)
    reads = tokens.create("bob", ["read"], None, 1)
    return start_server(own=True, grpc_port=0, access=Access(tokens, needs_token=True)), writes, reads


@pytest.mark.parametrize(
    "metadata",
    [
        {"authorization": "Bearer {}"},
        {"authorization": "bearer {}"},
        {"authorization": "{}"},  # as Arize's SDK sends it
        {"api_key": "{}"},
        {"x-auth-token": "{}"},
    ],
)
def test_a_key_comes_in_the_metadata(guarded, metadata: Mapping[str, str]):
    server, writes, reads = guarded

    def with_key(key: str) -> list[tuple[str, str]]:
        return [(name, form.format(key)) for name, form in metadata.items()]

    assert sent(server, request(), metadata=with_key(writes)) == ExportTraceServiceResponse()
    assert len(records(server)) == 1
    refused = refusal(server, request(), metadata=with_key(reads))
    assert refused.code() == grpc.StatusCode.PERMISSION_DENIED
    wrong = refusal(server, request(), metadata=with_key("x" * 40))
    assert wrong.code() == grpc.StatusCode.UNAUTHENTICATED
    assert "x" * 40 not in wrong.details()
    assert refusal(server, request()).code() == grpc.StatusCode.UNAUTHENTICATED


def test_what_is_not_otlp_is_refused(server):
    with channel_to(server) as channel:
        export = channel.unary_unary(EXPORT)
        for body in (b"\xff", request().SerializeToString()[:-1], b"\x0a\x00" * 1_100_000):
            with pytest.raises(grpc.RpcError) as refused:
                export(body, timeout=PATIENCE)
            assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Import")(b"", timeout=PATIENCE)
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert records(server) == []


@contextlib.contextmanager
def silent_calls(channel: grpc.Channel, count: int) -> Iterator[list[grpc.Future]]:
    """Open calls that send no message, until the block ends."""
    may_end = threading.Event()

    def nothing() -> Iterator[bytes]:
        may_end.wait(PATIENCE)
        yield from ()

    export = channel.stream_unary(EXPORT)
    try:
        yield [export.future(nothing(), timeout=PATIENCE) for _ in range(count)]
    finally:
        may_end.set()


def test_a_caller_is_refused_before_it_has_sent_its_message(guarded):
    server, _, _ = guarded
    with channel_to(server) as channel, silent_calls(channel, 1) as (call,):
        assert call.exception().code() == grpc.StatusCode.UNAUTHENTICATED


def test_calls_that_send_nothing_hold_up_no_other(server, monkeypatch):
    monkeypatch.setattr(grpc_server, "TURN_SECONDS", 0.05)
    with channel_to(server) as channel, silent_calls(channel, 40) as calls:
        assert sent(server, request()) == ExportTraceServiceResponse()
        # They make place for each other as well; the last ones may stay as long as nobody else comes.
        given_up = [call.exception().code() for call in calls[:20]]
    assert given_up == [grpc.StatusCode.DEADLINE_EXCEEDED] * 20
    assert len(records(server)) == 1


def test_a_message_that_does_not_come_is_given_up(server, monkeypatch):
    monkeypatch.setattr(grpc_server, "TURN_SECONDS", 0.05)
    monkeypatch.setattr(bodies, "MAX_PAUSE_SECONDS", 0.1)
    with channel_to(server) as channel, silent_calls(channel, 1) as (call,):
        assert call.exception().code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_call_without_a_message_is_refused(server):
    with channel_to(server) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.stream_unary(EXPORT)(iter(()), timeout=PATIENCE)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "no message" in refused.value.details()


@pytest.mark.parametrize(
    ("size", "compression", "code"),
    [
        ((16 << 20) + 1, grpc.Compression.NoCompression, grpc.StatusCode.RESOURCE_EXHAUSTED),
        ((64 << 20) + 1, grpc.Compression.Gzip, grpc.StatusCode.INVALID_ARGUMENT),
        ((64 << 20) + 1, grpc.Compression.Deflate, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_messages_beyond_the_limit_are_refused(server, size, compression, code):
    assert refusal(server, request(size=size), compression=compression).code() == code
    assert records(server) == []


def test_a_compressed_message_has_the_same_limit_as_over_http(server):
    body = gzip.compress(os.urandom((16 << 20) + 1), 1)
    with channel_to(server) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(EXPORT)(body, timeout=PATIENCE)
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_bomb_is_cut_off_before_it_is_in_memory(server, monkeypatch):
    held: list[int] = []
    add = bodies.Buffered.add

    def watched(buffered: bodies.Buffered, size: int) -> None:
        add(buffered, size)
        held.append(buffered.size)

    monkeypatch.setattr(bodies.Buffered, "add", watched)
    refused = refusal(server, request(size=200 << 20), compression=grpc.Compression.Gzip)
    assert refused.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert 64 << 20 < max(held) <= 66 << 20
    assert server.local.service.buffered.size == 0


@pytest.mark.parametrize(
    "compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip, grpc.Compression.Deflate]
)
def test_messages_count_among_the_bodies_of_all_requests(server, monkeypatch, compression):
    monkeypatch.setattr(bodies, "MAX_BUFFERED", 50_000)
    refused = refusal(server, request(size=60_000), compression=compression)
    assert refused.code() == grpc.StatusCode.UNAVAILABLE
    assert retry_delay(refused) >= 1
    for _ in range(3):  # what was counted is given back
        assert sent(server, request(size=40_000), compression=compression) == ExportTraceServiceResponse()


def test_a_store_that_cannot_be_written_asks_for_a_later_try(start_server: StartServer, tmp_path):
    server = start_server(SqliteStore(tmp_path / "locked.db", busy_timeout_millis=0), own=True, grpc_port=0)
    sent(server, request())
    with contextlib.closing(sqlite3.connect(tmp_path / "locked.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        refused = refusal(server, request())
        other.execute("ROLLBACK")
    assert refused.code() == grpc.StatusCode.UNAVAILABLE
    assert retry_delay(refused) >= 1


def test_requests_that_run_when_the_server_stops_are_stored_and_answered(start_server, tmp_path, monkeypatch):
    store = SqliteStore(tmp_path / "held.db")
    is_writing, may_go_on, write_rows = threading.Event(), threading.Event(), store.write_rows

    def held(rows: Any) -> None:
        is_writing.set()
        assert may_go_on.wait(PATIENCE)
        write_rows(rows)

    monkeypatch.setattr(store, "write_rows", held)
    server = start_server(store, own=True, grpc_port=0)
    answers: list[ExportTraceServiceResponse] = []
    sending = threading.Thread(target=lambda: answers.append(sent(server, request())))
    sending.start()
    assert is_writing.wait(PATIENCE)
    stopping = threading.Thread(target=server.local.stop)
    stopping.start()
    may_go_on.set()
    sending.join(PATIENCE)
    stopping.join(PATIENCE)
    assert answers == [ExportTraceServiceResponse()]
    assert len(records(server)) == 1


def test_a_port_that_is_taken_is_an_error_that_names_it(server, start_server, tmp_path):
    with pytest.raises(ConfigurationError, match="grpc_port"):
        start_server(own=True, grpc_port=server.local.grpc_port)


def test_requests_are_counted_and_logged_like_those_of_http(
    start_server: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server = start_server(own=True, grpc_port=0, access_log=True)
    sent(server, request())
    text = server.call("GET", "/metrics").data.decode()
    name = "trace.v1.TraceService"
    assert f'requests_total{{operation="grpc.{name}",status="200"}} 1' in text
    assert "spans_stored_total 1" in text
    lines = [record.getMessage() for record in caplog.records if record.name == "otel_metadata.server.access"]
    assert re.fullmatch(rf'127\.0\.0\.1 http:\S+ "gRPC {name}/Export" 200 \d+\.\d ms', lines[0]), lines
