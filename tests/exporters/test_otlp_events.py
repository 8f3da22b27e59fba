"""Evaluations as log events beside the synthetic span, over HTTP, as a receiver of logs sees them."""

from __future__ import annotations

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from tests.backends.vendors.server import Double, Response
from tests.exporters.loopback import Loopback, never, then_closed

from otel_metadata.exporters.otlp import OtlpPatchExporter
from otel_metadata.exporters.otlp_http import OtlpHttpEvents, OtlpHttpSender
from otel_metadata.model.evaluation import Evaluation
from otel_metadata.model.outcome import Delivered, Rejected, Retry
from otel_metadata.model.patch import Patch
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.testing import ManualClock

TARGET = SpanRef(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331)
VERDICT = Evaluation("Correctness", 0.5, "partly", "half of it", "llm", {"judge": "m"}).to_json()


class Receiver(Double):
    """An OTLP receiver of spans and, unless told otherwise, of logs."""

    def __init__(self) -> None:
        self.logs_status = 200
        self.spans_status = 200
        super().__init__()

    def answer(self, request):
        return Response(self.spans_status if request.path == "/v1/traces" else self.logs_status)

    def posted(self, path):
        return [one.body for one in self.requests if one.path == path]

    @property
    def records(self):
        requests = [ExportLogsServiceRequest.FromString(body) for body in self.posted("/v1/logs")]
        return [record for one in requests for record in one.resource_logs[0].scope_logs[0].log_records]


@pytest.fixture
def receiver():
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def exporter(receiver, clock):
    spans = OtlpHttpSender(f"{receiver.url}/v1/traces", headers={})
    events = OtlpHttpEvents(f"{receiver.url}/v1/logs", headers={})
    exporter = OtlpPatchExporter(
        spans, events=events, resource=Resource({"service.name": "shop", "n": [1, 2]}), clock=clock
    )
    yield exporter
    exporter.shutdown()
    spans.shutdown()


def judged(number=1):
    return Patch(TARGET, {("span", "evaluation", "Correctness"): (VERDICT, (100 + number, 7))})


def told(number=1):
    return Patch(TARGET, {("span", "metadata", "k"): (number, (100 + number, 7))})


def send(exporter, *patches):
    return exporter.export(patches, timeout_millis=5_000)


def test_an_evaluation_is_an_event_on_the_span_that_was_judged(exporter, receiver):
    """`gen_ai.evaluation.result` with name, score, label and explanation, and the ids of the span."""
    assert isinstance(send(exporter, judged())[0], Delivered)
    (record,) = receiver.records
    found = {item.key: item.value for item in record.attributes}
    # opentelemetry-proto before 1.31 has no such field.
    said = record.event_name if "event_name" in record.DESCRIPTOR.fields_by_name else found["event.name"].string_value
    assert said == "gen_ai.evaluation.result"
    assert (record.trace_id.hex(), record.span_id.hex()) == (TARGET.trace_id_hex, TARGET.span_id_hex)
    assert record.time_unix_nano == 101
    assert found["gen_ai.evaluation.name"].string_value == "Correctness"
    assert found["gen_ai.evaluation.score.value"].double_value == 0.5
    assert found["gen_ai.evaluation.score.label"].string_value == "partly"
    assert found["gen_ai.evaluation.explanation"].string_value == "half of it"
    assert found["otel_metadata.evaluation.metadata"].string_value == '{"judge":"m"}'
    assert found["otel_metadata.patch_id"].string_value == judged().id


def test_the_synthetic_span_carries_it_too(exporter, receiver):
    """Who reads spans only finds the evaluation there."""
    send(exporter, judged())
    (body,) = receiver.posted("/v1/traces")
    (span,) = ExportTraceServiceRequest.FromString(body).resource_spans[0].scope_spans[0].spans
    assert {item.key: item.value.double_value for item in span.attributes}["eval.Correctness.score"] == 0.5


def test_what_has_no_evaluation_asks_for_no_logs(exporter, receiver):
    """A patch of metadata is one request."""
    send(exporter, told())
    assert [one.path for one in receiver.requests] == ["/v1/traces"]


@pytest.mark.parametrize("status", [400, 401, 404, 405, 415, 302])
def test_a_receiver_without_logs_is_asked_once_and_told_of(exporter, receiver, status):
    """It keeps the synthetic span; each evaluation has a note, and no further event is sent."""
    receiver.logs_status = status
    for number in (1, 2):
        (outcome,) = send(exporter, judged(number))
        assert any("Correctness" in note and "no log event" in note for note in outcome.notes), outcome
    assert len(receiver.posted("/v1/logs")) == 1
    assert len(receiver.posted("/v1/traces")) == 2


@pytest.mark.parametrize("after", [None, "5", "200"])
def test_a_receiver_whose_logs_fail_is_left_alone_for_a_minute(exporter, receiver, clock, after):
    """The patch is delivered with a note; events go on after the minute, or the longer time that was asked for."""
    receiver.fault = lambda request: (
        Response(503, headers={"Retry-After": after} if after else {}) if "logs" in request.path else None
    )
    for number in (1, 2):
        (outcome,) = send(exporter, judged(number))
        assert "no log event" in outcome.notes[-1]
    assert len(receiver.posted("/v1/logs")) == 1
    receiver.fault = None
    clock.advance(200_000 if after == "200" else 60_000)
    (outcome,) = send(exporter, judged(3))
    assert len(outcome.notes) == 1
    assert len(receiver.records) == 2  # of the first request, and of this


@pytest.mark.parametrize("logs", ["never", "refused", "cut"])
def test_logs_that_nobody_answers_hold_no_span_back(receiver, logs):
    """The span is there before the event is sent, and the patch is delivered with a note; nobody is asked again."""
    with Loopback(never if logs == "never" else then_closed(b"HTTP/1.1 2")) as dead:
        url = dead.url if logs != "refused" else "http://127.0.0.1:9"
        spans = OtlpHttpSender(f"{receiver.url}/v1/traces", headers={})
        exporter = OtlpPatchExporter(spans, events=OtlpHttpEvents(f"{url}/v1/logs", headers={}), resource=Resource({}))
        for number in (1, 2):
            # Half of the time of an export is the most that an event may take.
            (outcome,) = exporter.export([judged(number)], timeout_millis=200)
            assert isinstance(outcome, Delivered)
            assert "no log event" in outcome.notes[-1]
        exporter.shutdown()
        spans.shutdown()
    assert len(receiver.posted("/v1/traces")) == 2
    assert len(dead.requests) == (0 if logs == "refused" else 1)


def test_an_event_leaves_after_its_span_and_once(exporter, receiver):
    """A log record has no id by which it could be known again: it is sent when its span was taken, not before."""
    receiver.spans_status = 503
    assert isinstance(send(exporter, judged())[0], Retry)
    receiver.spans_status = 200
    assert isinstance(send(exporter, Patch(TARGET, {**judged().fields, **told(2).fields}))[0], Delivered)
    assert [one.path for one in receiver.requests] == ["/v1/traces", "/v1/traces", "/v1/logs"]


def test_only_the_patches_whose_spans_arrived_have_events(exporter, receiver):
    """A span that is refused by itself takes its event with it, and the other's event leaves."""
    receiver.fault = lambda request: Response(400) if b"unreadable" in request.body else None
    bad = Patch(TARGET, {**judged(1).fields, ("span", "metadata", "unreadable"): (1, (101, 7))})
    refused, taken = send(exporter, bad, judged(2))
    assert (type(refused), type(taken)) == (Rejected, Delivered)
    assert [record.time_unix_nano for record in receiver.records] == [102]


def test_a_receiver_that_rejects_a_record_says_so(exporter, receiver):
    """A partial success of logs is read, and is no failure; the evaluation is on the span, with a note."""
    answer = ExportLogsServiceResponse()
    answer.partial_success.rejected_log_records = 1
    receiver.fault = lambda request: Response(200, answer.SerializeToString()) if "logs" in request.path else None
    for number in (1, 2):
        (outcome,) = send(exporter, judged(number))
        assert isinstance(outcome, Delivered)
        assert outcome.notes[1:] == ("evaluation 'Correctness': no log event, the receiver did not take it",)
    assert len(receiver.posted("/v1/logs")) == 2


def test_events_that_are_too_large_do_not_end_the_others(exporter, receiver):
    """413 is about what was sent, and the next evaluation is an event again."""
    receiver.logs_status = 413
    (outcome,) = send(exporter, judged(1))
    assert "no log event" in outcome.notes[-1]
    receiver.logs_status = 200
    (outcome,) = send(exporter, judged(2))
    assert len(outcome.notes) == 1
