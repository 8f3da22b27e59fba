"""OTLP over HTTP: stock exporters, JSON by hand, our own plugin, and what is refused. Every request is a real one."""

from __future__ import annotations

import contextlib
import gzip
import json
import logging
import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from google.rpc.status_pb2 import Status
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context
from tests.server.conftest import PATIENCE, Server, StartServer

import otel_metadata as om
from otel_metadata.backends.langwatch.patches import LangWatchPatchExporter
from otel_metadata.model.evaluation import Evaluation
from otel_metadata.model.record import SpanQuery, SpanRecord, ValueRecord
from otel_metadata.server.otlp import http as otlp_http
from otel_metadata.store.rows import row_of
from otel_metadata.store.sqlite.store import SqliteStore

PROTOBUF, JSON = "application/x-protobuf", "application/json"
TRACE, SPAN = "01" * 16, "02" * 8
PATHS = [one.path for one in otlp_http.OPERATIONS if "traces" in one.path]


def in_json(*spans: Mapping[str, Any], resource: Mapping[str, str] | None = None) -> dict[str, Any]:
    attributes = [{"key": key, "value": {"stringValue": value}} for key, value in (resource or {}).items()]
    return {"resourceSpans": [{"resource": {"attributes": attributes}, "scopeSpans": [{"spans": list(spans)}]}]}


def span(span_id: str = SPAN, **more: Any) -> dict[str, Any]:
    given = {"traceId": TRACE, "spanId": span_id, "name": "answer"}
    return {**given, "startTimeUnixNano": "10", "endTimeUnixNano": "20", **more}


def in_protobuf(name: str = "answer") -> bytes:
    request = ExportTraceServiceRequest()
    one = request.resource_spans.add().scope_spans.add().spans.add()
    one.trace_id, one.span_id, one.name = bytes.fromhex(TRACE), bytes.fromhex(SPAN), name
    return request.SerializeToString()


def records(server: Server) -> list[SpanRecord]:
    return server.store.query(SpanQuery(limit=None))


def test_a_stock_exporter_stores_what_the_store_itself_would(server):
    ended = []
    exporter = OTLPSpanExporter(f"{server.url}/v1/traces", compression=Compression.Gzip)
    provider = TracerProvider(resource=Resource({"service.name": "shop"}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    processor = SimpleSpanProcessor(exporter)
    processor.on_end = ended.append  # type: ignore[method-assign] # the spans as the SDK has them
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("shop.answers", "1.4")
    linked = SpanContext(5, 6, is_remote=True, trace_flags=TraceFlags(1))
    with tracer.start_as_current_span("outer", kind=SpanKind.SERVER, links=[Link(linked, {"why": "retry"})]) as outer:
        outer.set_attributes({"a": [1, 2], "ok": True, "ratio": 0.5, "metadata.plan": "pro", "user.id": "ada"})
        outer.add_event("token", {"index": 3})
        with pytest.raises(ValueError), tracer.start_as_current_span("inner"):
            raise ValueError("no answer")
    provider.shutdown()
    direct = SqliteStore(":memory:")
    direct.write(ended)
    assert records(server) == direct.query(SpanQuery(limit=None))
    assert len(records(server)) == 2
    assert row_of(ended[1])[1]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("media_type", [PROTOBUF, JSON, "application/json; charset=utf-8"])
def test_each_path_takes_protobuf_and_json_and_answers_in_kind(server, path, media_type):
    body = in_protobuf() if media_type == PROTOBUF else json.dumps(in_json(span())).encode()
    answer = server.call("POST", path, body=body, headers={"Content-Type": media_type})
    assert answer.status == 200
    assert answer.headers["Content-Type"] == media_type.partition(";")[0]
    assert answer.data == (b"" if media_type == PROTOBUF else b"{}")
    (record,) = records(server)
    assert (record.trace_id, record.span_id, record.name) == (TRACE, SPAN, "answer")


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes), ("GZIP", gzip.compress)],
)
def test_compressed_bodies_are_read(server, encoding, compress):
    headers = {"Content-Type": PROTOBUF, "Content-Encoding": encoding}
    assert server.call("POST", "/v1/traces", body=compress(in_protobuf()), headers=headers).status == 200
    assert len(records(server)) == 1


def test_bad_spans_are_refused_with_a_count_and_a_reason_and_good_ones_stored(server):
    bad = [span(traceId="x"), span(spanId="0" * 16), span(startTimeUnixNano=1 << 70)]
    answer = server.call("POST", "/v1/traces", json=in_json(*bad, span()))
    assert answer.status == 200
    partial = answer.json()["partialSuccess"]
    assert partial["rejectedSpans"] == "3"
    for word in ("traceId", "spanId", "startTimeUnixNano", "expected"):
        assert word in partial["errorMessage"]
    assert len(records(server)) == 1
    request = ExportTraceServiceRequest.FromString(in_protobuf())
    request.resource_spans[0].scope_spans[0].spans.add().trace_id = b"\1"
    answer = server.call("POST", "/v1/traces", body=request.SerializeToString(), headers={"Content-Type": PROTOBUF})
    found = ExportTraceServiceResponse.FromString(answer.data).partial_success
    assert found.rejected_spans == 1
    assert "traceId" in found.error_message


def refusal(answer: Any, media_type: str) -> tuple[int, str]:
    assert answer.headers["Content-Type"] == media_type
    if media_type == PROTOBUF:
        status = Status.FromString(answer.data)
        return status.code, status.message
    found = answer.json()
    assert set(found) == {"code", "message"}
    return found["code"], found["message"]


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        (PROTOBUF, b"\xff\xff"),
        (PROTOBUF, in_protobuf()[:-1]),
        (PROTOBUF, b'{"resourceSpans": []}'),
        (JSON, b""),
        (JSON, b"{"),
        (JSON, b"[]"),
        (JSON, b"\xff"),
        (JSON, b'{"resourceLogs": []}'),
        (JSON, b'{"data": [{"traceID": "a", "spans": []}]}'),
        (JSON, b'{"hello": 1}'),
        (JSON, b'{"a":' * 101 + b"1" + b"}" * 101),
        (JSON, b'{"a":' * 100_000),
        (JSON, b'{"resourceSpans":' + b"[" * 99 + b"{}" + b"]" * 99 + b"}"),
    ],
)
def test_what_is_not_otlp_is_refused_in_the_type_of_the_request(server, media_type, body):
    answer = server.call("POST", "/v1/traces", body=body, headers={"Content-Type": media_type})
    assert answer.status == 400
    code, message = refusal(answer, media_type)
    assert code == 3
    assert message
    assert records(server) == []


@pytest.mark.parametrize("media_type", [PROTOBUF, JSON])
def test_bodies_beyond_the_limits_are_refused(server, media_type):
    empty_spans = b"\x0a\x00" if media_type == PROTOBUF else b'{"resourceSpans":[' + b"{}," * 6_000_000 + b"{}]}"
    for body, encoding in [
        (b"\0" * ((64 << 20) + 1), "identity"),
        (gzip.compress(b"\0" * ((64 << 20) + 1)), "gzip"),
        (empty_spans * (2_000_000 if media_type == PROTOBUF else 1), "identity"),
    ]:
        headers = {"Content-Type": media_type, "Content-Encoding": encoding}
        answer = server.call("POST", "/v1/traces", body=body, headers=headers)
        assert answer.status == 413
        assert refusal(answer, media_type)[0] == 8
    assert records(server) == []


def test_other_types_and_encodings_are_refused(server):
    for media_type in ("text/plain", ""):
        answer = server.call("POST", "/v1/traces", body=b"{}", headers={"Content-Type": media_type})
        assert answer.status == 415
        assert "expected application/x-protobuf or application/json" in refusal(answer, JSON)[1]
    headers = {"Content-Type": PROTOBUF, "Content-Encoding": "br"}
    answer = server.call("POST", "/v1/traces", body=b"", headers=headers)
    assert answer.status == 415
    assert refusal(answer, PROTOBUF)[0] == 3
    damaged = server.call(
        "POST", "/v1/traces", body=b"no gzip", headers={"Content-Type": PROTOBUF, "Content-Encoding": "gzip"}
    )
    assert (damaged.status, refusal(damaged, PROTOBUF)[0]) == (400, 3)


@pytest.mark.parametrize("header", ["x-project-name", "project", "projectid", "x-project-id"])
def test_a_vendors_header_names_the_project_of_spans_without_one(server, header):
    first = in_json(span("0a" * 8), resource={"service.name": "shop"})
    second = in_json(span("0b" * 8), resource={"openinference.project.name": "own"})
    request = {"resourceSpans": first["resourceSpans"] + second["resourceSpans"]}
    assert server.call("POST", "/v1/traces", json=request, headers={header: "named"}).status == 200
    assert {record.span_id: record.project for record in records(server)} == {"0a" * 8: "named", "0b" * 8: "own"}


@pytest.mark.parametrize("header", ["projectid", "x-project-id", "project"])
def test_an_id_of_galileo_names_the_project(server, header):
    """And the log stream, by its name or by its id in that project."""
    shop, other = (server.call("POST", "/projects", json={"name": name}).json()["id"] for name in ("shop", "other"))
    stream = server.call("POST", f"/projects/{shop}/log_streams", json={"name": "nightly"}).json()["id"]
    cases = [
        ({header: shop, "logstream": "named"}, ("shop", shop, "named", None)),
        ({header: shop.upper(), "logstreamid": stream}, ("shop", shop, "nightly", stream)),
        ({"project": "shop", "logstreamid": stream}, ("shop", None, "nightly", stream)),
        ({header: other, "logstreamid": stream}, ("other", other, None, stream)),
        ({header: stream}, (stream, None, None, None)),
        ({"logstream": "named"}, (None, None, "named", None)),
    ]
    for number, (headers, wanted) in enumerate(cases):
        body = in_json(span(f"{number + 1:016x}"))
        assert server.call("POST", "/otel/traces", json=body, headers=headers).status == 200
        one = next(record for record in records(server) if record.span_id == f"{number + 1:016x}")
        names = ("galileo.project.id", "galileo.logstream.name", "galileo.logstream.id")
        assert (one.project, *map(one.span.resource.get, names)) == wanted
    own = in_json(span("0a" * 8), resource={"galileo.logstream.name": "own"})
    assert server.call("POST", "/otel/traces", json=own, headers={"logstream": "named"}).status == 200
    assert "own" in {record.span.resource.get("galileo.logstream.name") for record in records(server)}


def test_a_large_request_is_stored_in_portions(server):
    spans = [span(f"{number + 1:016x}") for number in range(3_500)]
    assert server.call("POST", "/v1/traces", json=in_json(*spans)).status == 200
    assert len(records(server)) == 3_500


def facts(records: Sequence[SpanRecord], history: Sequence[ValueRecord]) -> list[Any]:
    spans = [
        (one.span_id, one.name, one.status_code, one.metadata, one.trace_metadata, one.tags, one.user_id, one.output)
        for one in records
    ]
    judged = [(one.evaluations, one.annotations) for one in records]
    # A live value travels as a plain attribute, which has the version of its span's end and no author; and `user.id`
    # is one attribute for span and trace.
    live = sorted((value.kind, value.key, f"{value.value}") for value in history if value.route == "live")
    return [spans, judged, live, [value for value in history if value.route != "live"]]


@pytest.fixture
def named_author(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_METADATA_AUTHOR", "the shop")


def test_what_our_own_plugin_sends_is_as_if_it_had_been_written_directly(server, named_author, tmp_path):
    direct = SqliteStore(tmp_path / "direct.db")
    provider = TracerProvider()
    om.configure(server.url, f"sqlite:///{direct.path}", tracer_provider=provider)
    with om.start_span("answer") as handle:
        om.update_current_span(metadata={"plan": "pro", "cfg": {"a": [1, None]}}, tags=["live"])
        om.update_current_trace(metadata={"tenant": "acme"}, user_id="ada")
    handle.update(metadata={"plan": "free"}, name="renamed", status="error")  # in flight: it waits to be exported
    handle.score("Correctness", score=0.5, label="half")
    assert om.flush(PATIENCE * 1_000)
    reference = handle.ref
    om.update_span(reference, metadata={"thumbs": "up", "plan": None}, tags=["late"], output="42")
    om.score_span(reference, name="Judge", score=1, explanation="why", metadata={"model": "m"}, source="llm")
    om.annotate_span(reference, name="quality", label="good", annotator="grace")
    om.update_trace(reference, metadata={"tenant": "umbrella"})
    assert om.flush(PATIENCE * 1_000)
    found = records(server)
    expected = direct.query(SpanQuery(limit=None))
    assert len(expected) == 1
    (record,) = found
    ids = record.trace_id, record.span_id
    assert facts(found, server.store.history(*ids)) == facts(expected, direct.history(*ids))
    routes = {value.route for value in server.store.history(*ids)}
    assert routes == {"live", "in_flight", "late"}
    assert {value.author for value in server.store.history(*ids) if value.route != "live"} == {"the shop"}
    om.shutdown()
    direct.close()


def event(**attributes: Any) -> dict[str, Any]:
    def value(one: Any) -> dict[str, Any]:
        return {"doubleValue": one} if isinstance(one, float) else {"stringValue": one}

    pairs = [{"key": f"gen_ai.evaluation.{key.replace('__', '.')}", "value": value(v)} for key, v in attributes.items()]
    return {
        "traceId": TRACE,
        "spanId": SPAN,
        "eventName": "gen_ai.evaluation.result",
        "timeUnixNano": "30",
        "attributes": pairs,
    }


def logs(*given: Mapping[str, Any]) -> dict[str, Any]:
    return {"resourceLogs": [{"scopeLogs": [{"logRecords": list(given)}]}]}


def test_evaluation_events_are_evaluations_of_their_span(server):
    server.call("POST", "/v1/traces", json=in_json(span()))
    good = event(name="Relevance", score__value=0.75, score__label="good", explanation="on topic")
    others = [
        {"traceId": TRACE, "body": {"stringValue": "hello"}},
        {**good, "eventName": "other"},
        event(score__value=1.0),
        {**good, "traceId": ""},
        {**good, "spanId": "zz"},
    ]
    answer = server.call("POST", "/v1/logs", json=logs(good, *others))
    assert answer.status == 200
    partial = answer.json()["partialSuccess"]
    assert partial["rejectedLogRecords"] == "5"
    assert "gen_ai.evaluation.result" in partial["errorMessage"]
    (record,) = records(server)
    assert record.evaluations == {"Relevance": Evaluation("Relevance", 0.75, "good", "on topic")}
    (value,) = server.store.history(TRACE, SPAN)
    assert (value.route, value.version) == ("late", (30, 0))


def test_an_event_without_a_span_judges_the_trace(server):
    server.call("POST", "/v1/traces", json=in_json(span()))
    assert (
        server.call("POST", "/v1/logs", json=logs({**event(name="All", score__value=1.0), "spanId": ""})).status == 200
    )
    (record,) = records(server)
    assert record.trace_evaluations["All"].score == 1.0


@pytest.mark.skipif(
    "event_name" not in LogRecord.DESCRIPTOR.fields_by_name, reason="log records have a name since OpenTelemetry 1.31"
)
def test_a_stock_log_exporter_is_told_in_protobuf_and_stores_an_evaluation(server, caplog):
    server.call("POST", "/v1/traces", json=in_json(span()))
    provider = LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(OTLPLogExporter(f"{server.url}/v1/logs")))
    context = SpanContext(int(TRACE, 16), int(SPAN, 16), is_remote=True, trace_flags=TraceFlags(1))
    provider.get_logger("judge").emit(
        timestamp=50,
        context=set_span_in_context(NonRecordingSpan(context)),
        severity_number=SeverityNumber.INFO,
        event_name="gen_ai.evaluation.result",
        attributes={"gen_ai.evaluation.name": "Tone", "gen_ai.evaluation.score.label": "kind"},
    )
    provider.shutdown()
    (record,) = records(server)
    assert record.evaluations["Tone"].label == "kind"
    bad = server.call("POST", "/v1/logs", body=b"\x0a\x02\x12\x00", headers={"Content-Type": PROTOBUF})
    assert ExportLogsServiceResponse.FromString(bad.data).partial_success.rejected_log_records == 0


def test_metrics_are_taken_without_a_word_to_their_sender(server, caplog):
    caplog.set_level(logging.INFO)
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(f"{server.url}/v1/metrics"))
    provider = MeterProvider([reader])
    provider.get_meter("shop").create_counter("orders").add(1)
    assert provider.force_flush()
    provider.shutdown()
    ours = [one.getMessage() for one in caplog.records if one.name.startswith("otel_metadata")]
    assert any("Metrics arrive and are not kept" in message for message in ours)
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


@pytest.mark.parametrize("path", [one.path for one in otlp_http.OPERATIONS if one.path.endswith("metrics")])
def test_what_is_no_request_with_metrics_is_refused(server, path):
    for media_type, body in [
        (PROTOBUF, b"\xff\xff"),
        (PROTOBUF, b'{"resourceMetrics": []}'),
        (JSON, b"{"),
        (JSON, b"[]"),
        (JSON, b'{"resourceSpans": []}'),
        (JSON, b'{"hello": 1}'),
    ]:
        answer = server.call("POST", path, body=body, headers={"Content-Type": media_type})
        assert answer.status == 400
        assert refusal(answer, media_type)[0] == 3
    for media_type, body in [(PROTOBUF, b""), (JSON, b"{}"), (JSON, b'{"resourceMetrics": [{"scopeMetrics": []}]}')]:
        answer = server.call("POST", path, body=body, headers={"Content-Type": media_type})
        assert (answer.status, answer.data) == (200, b"" if media_type == PROTOBUF else b"{}")


def test_a_store_that_cannot_be_written_asks_for_a_later_try(start_server: StartServer, tmp_path):
    store = SqliteStore(tmp_path / "locked.db", busy_timeout_millis=0)
    server = start_server(store)
    server.call("POST", "/v1/traces", json=in_json(span()))
    with contextlib.closing(sqlite3.connect(tmp_path / "locked.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        headers = {"Content-Type": PROTOBUF}
        answer = server.call("POST", "/v1/traces", body=in_protobuf(), headers=headers)
        assert answer.status == 503
        assert refusal(answer, PROTOBUF)[0] == 14
        assert int(answer.headers["Retry-After"]) >= 1
        other.execute("ROLLBACK")
    assert server.call("POST", "/v1/traces", body=in_protobuf(), headers=headers).status == 200


def test_the_span_that_langwatch_makes_of_a_patch_is_an_update_of_its_trace(server):
    server.call("POST", "/v1/traces", json=in_json(span()))
    update = span("0c" * 8, name="langwatch.metadata_update", startTimeUnixNano="90", endTimeUnixNano="90")
    resource = {"langwatch.user.id": "ada", "langwatch.labels": '["qa"]', "langwatch.metadata.env": "staging"}
    request = in_json(update, resource=resource)
    request["resourceSpans"][0]["scopeSpans"][0]["scope"] = {"name": "langwatch.api.metadata_update"}
    assert server.call("POST", "/api/otel/v1/traces", json=request).json() == {}
    (record,) = records(server)
    assert (record.user_id, record.trace_metadata) == ("ada", {"env": "staging", "labels": ["qa"]})


def test_late_fields_of_a_span_that_leave_for_langwatch_reach_their_span(server):
    provider = TracerProvider()
    destination = om.Destination(
        "langwatch",
        OTLPSpanExporter(f"{server.url}/v1/traces"),
        LangWatchPatchExporter(server.url, strategy="otlp_span"),
    )
    om.configure(destination, tracer_provider=provider)
    with om.start_span("answer") as handle:
        pass
    assert om.flush(PATIENCE * 1_000)
    om.update_span(handle.ref, metadata={"thumbs": "up", "cfg": {"a": 1}}, tags=["late"])
    om.update_trace(handle.ref, metadata={"tenant": "acme"}, user_id="ada")
    assert om.flush(PATIENCE * 1_000)
    om.shutdown()
    (record,) = records(server)
    assert record.metadata == {"thumbs": "up", "cfg": {"a": 1}}
    assert (record.tags, record.trace_metadata, record.user_id) == (("late",), {"tenant": "acme"}, "ada")


@pytest.mark.parametrize("media_type", [PROTOBUF, JSON])
def test_each_span_of_a_resource_that_cannot_be_read_is_counted(server, media_type):
    if media_type == JSON:
        request = in_json(span("0a" * 8), span("0b" * 8))
        request["resourceSpans"][0]["resource"] = {"attributes": [{"key": 3}]}
        body = json.dumps(request).encode()
    else:
        found = ExportTraceServiceRequest.FromString(in_protobuf())
        found.resource_spans[0].scope_spans[0].spans.add(trace_id=bytes.fromhex(TRACE), span_id=b"\3" * 8)
        found.resource_spans[0].resource.attributes.add(key="broken")
        body = found.SerializeToString().replace(b"broken", b"\xff" * 6)
    answer = server.call("POST", "/v1/traces", body=body, headers={"Content-Type": media_type})
    assert answer.status == 200
    if media_type == JSON:
        assert answer.json()["partialSuccess"]["rejectedSpans"] == "2"
    else:
        assert ExportTraceServiceResponse.FromString(answer.data).partial_success.rejected_spans == 2
    assert records(server) == []
