"""Patches as synthetic spans, seen as an OTLP receiver sees them: over HTTP, by our sender and by OpenTelemetry's."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan

from otel_metadata import __version__
from otel_metadata.exporters.otlp import PATCH_SCOPE, PATCH_SPAN_NAME, OtlpPatchExporter
from otel_metadata.exporters.otlp_http import OtlpHttpSender
from otel_metadata.model.authors import AUTHORS
from otel_metadata.model.evaluation import Annotation, Evaluation, annotation_key
from otel_metadata.model.merge import Fields
from otel_metadata.model.outcome import Delivered, DeliveryError, Outcome, Pause, Rejected, Retry
from otel_metadata.model.patch import Patch
from otel_metadata.model.span_ref import SpanRef

TARGET = SpanRef(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331)
WRITER = 0xFEDCBA9876543210
FIELDS: Fields = {
    ("span", "metadata", "step"): (2, (101, WRITER)),
    ("span", "metadata", "error"): (None, (102, WRITER)),
    ("span", "metadata", "call"): ({"b": [1, None], "a": {}}, (103, WRITER)),
    ("trace", "metadata", "source"): ("null", (104, WRITER)),
    ("span", "output", ""): (["x", 1], (105, WRITER)),
    ("span", "tag", "late"): (True, (107, WRITER)),
    ("span", "tag", "early"): (True, (106, WRITER)),
    ("span", "evaluation", "C"): (Evaluation("C", 0.5, source="llm").to_json(), (108, WRITER)),
    ("span", "name", ""): ("renamed", (109, WRITER)),
    ("span", "status", ""): (404, (110, WRITER)),
}


class Receiver:
    """An OTLP receiver on loopback: keeps what it was sent, answers with the status it was told."""

    def __init__(self) -> None:
        self.status = 200
        self.requests: list[ExportTraceServiceRequest] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the name that http.server calls
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver.requests.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(receiver.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/traces"

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def resource_spans(self) -> ResourceSpans:
        (request,) = self.requests
        (resource_spans,) = request.resource_spans
        return resource_spans

    @property
    def spans(self) -> list[Span]:
        return [span for scope in self.resource_spans.scope_spans for span in scope.spans]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.stop()


@pytest.fixture
def stock(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[OtlpPatchExporter]:
    """Patches through OpenTelemetry's exporter, which tells success or failure."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    http = OTLPSpanExporter(endpoint=receiver.url, compression=Compression.Gzip, timeout=30)
    yield OtlpPatchExporter(http, resource=Resource({"service.name": "shop"}))
    http.shutdown()


@pytest.fixture
def sending(receiver: Receiver) -> Iterator[OtlpPatchExporter]:
    """Patches through a sender, which tells what became of a batch."""
    sender = OtlpHttpSender(receiver.url, headers={}, compression="gzip", timeout_millis=30_000)
    yield OtlpPatchExporter(sender, resource=Resource({"service.name": "shop"}))
    sender.shutdown()


@pytest.fixture(params=["stock", "sending"])
def exporter(request: pytest.FixtureRequest) -> OtlpPatchExporter:
    exporter: OtlpPatchExporter = request.getfixturevalue(request.param)
    return exporter


def plain(value: AnyValue) -> Any:
    """Return a protobuf value as Python's."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(item) for item in value.array_value.values]
    return None if kind is None else getattr(value, kind)


def attributes(span: Span) -> dict[str, Any]:
    return {item.key: plain(item.value) for item in span.attributes}


class TestSyntheticSpan:
    def test_it_names_the_author(self, exporter: OtlpPatchExporter, receiver: Receiver) -> None:
        """As text that a person reads beside the span."""
        AUTHORS.add(WRITER, "nightly judge")

        exporter.export([Patch(TARGET, FIELDS)], timeout_millis=30_000)

        assert attributes(receiver.spans[0])["otel_metadata.author"] == "nightly judge"

    def test_it_names_each_of_several_authors(self, exporter: OtlpPatchExporter, receiver: Receiver) -> None:
        """A patch may join the updates of a dead process with those of the one that took them over."""
        AUTHORS.add(WRITER, "ada")
        AUTHORS.add(7, "judge")

        exporter.export([Patch(TARGET, {**FIELDS, ("span", "metadata", "a"): (1, (111, 7))})], timeout_millis=30_000)

        found = attributes(receiver.spans[0])
        assert json.loads(found["otel_metadata.authors"]) == {f"{WRITER:016x}": "ada", f"{7:016x}": "judge"}
        assert "otel_metadata.author" not in found

    def test_it_is_a_child_of_its_target(self, exporter: OtlpPatchExporter, receiver: Receiver) -> None:
        """Same trace, another span, never parentless, linked to the target, kind internal, no status."""
        patch = Patch(TARGET, FIELDS)

        assert [type(one) for one in exporter.export([patch], timeout_millis=30_000)] == [Delivered]

        (span,) = receiver.spans
        assert span.name == PATCH_SPAN_NAME == "otel_metadata.update"
        assert span.trace_id.hex() == TARGET.trace_id_hex
        assert span.parent_span_id.hex() == TARGET.span_id_hex
        assert span.span_id.hex() not in {TARGET.span_id_hex, "0" * 16}
        assert span.kind == Span.SPAN_KIND_INTERNAL
        assert span.status.code == 0
        (link,) = span.links
        assert (link.trace_id, link.span_id) == (span.trace_id, span.parent_span_id)
        assert {item.key: plain(item.value) for item in link.attributes} == {"otel_metadata.patch_id": patch.id}

    def test_it_carries_every_field_and_its_version(self, exporter: OtlpPatchExporter, receiver: Receiver) -> None:
        """Canonical attributes; null and objects are JSON text and listed; what is no attribute has a name of ours."""
        patch = Patch(TARGET, FIELDS)

        exporter.export([patch], timeout_millis=30_000)

        found = attributes(receiver.spans[0])
        versions = json.loads(found.pop("otel_metadata.versions"))
        assert found == {
            "metadata.step": 2,
            "metadata.error": "null",
            "metadata.call": '{"a":{},"b":[1,null]}',
            "trace.metadata.source": "null",
            "output.value": '["x",1]',
            "output.mime_type": "application/json",
            "tag.tags": ["early", "late"],
            "eval.C.score": 0.5,
            "eval.C.source": "llm",
            "otel_metadata.name": "renamed",
            "otel_metadata.status": 404,
            "otel_metadata.json": ["metadata.error", "metadata.call"],
            "otel_metadata.patch_id": patch.id,
            "otel_metadata.target_span_id": TARGET.span_id_hex,
        }
        assert {tuple(row[:3]): (row[3], int(row[4], 16)) for row in versions} == {
            name: version for name, (_, version) in FIELDS.items()
        }

    def test_its_scope_and_resource_tell_whose_it_is(self, exporter: OtlpPatchExporter, receiver: Receiver) -> None:
        """The resource is the application's, the scope ours, so that a user can hide these spans."""
        exporter.export([Patch(TARGET, FIELDS)], timeout_millis=30_000)

        resource = receiver.resource_spans.resource
        (scope_spans,) = receiver.resource_spans.scope_spans
        assert {item.key: plain(item.value) for item in resource.attributes} == {"service.name": "shop"}
        assert (scope_spans.scope.name, scope_spans.scope.version) == (PATCH_SCOPE, __version__)

    @pytest.mark.parametrize(("window", "expected"), [((40, 50), 50), (None, 110)])
    def test_it_is_at_the_end_of_its_target(
        self, exporter: OtlpPatchExporter, receiver: Receiver, window: tuple[int, int] | None, expected: int
    ) -> None:
        """So that it does not stretch the trace; where that is unknown, at the time of the update."""
        exporter.export([Patch(TARGET, FIELDS, window)], timeout_millis=30_000)

        (span,) = receiver.spans
        assert (span.start_time_unix_nano, span.end_time_unix_nano) == (expected, expected)

    def test_the_same_patch_is_the_same_span(self, exporter: OtlpPatchExporter, receiver: Receiver) -> None:
        """Sent again after a lost answer, it has the id that it had."""
        for _ in range(2):
            exporter.export([Patch(TARGET, FIELDS)], timeout_millis=30_000)

        first, second = (request.resource_spans[0].scope_spans[0].spans[0] for request in receiver.requests)
        assert first == second

    def test_other_patches_are_other_spans(self, exporter: OtlpPatchExporter, receiver: Receiver) -> None:
        """Another target, another writer and the next nanosecond each make another id."""
        patches = [
            Patch(SpanRef(TARGET.trace_id, span_id), {("span", "metadata", "k"): (1, (ns, writer))})
            for span_id in (1, 2, 3)
            for ns in (1_700_000_000_000_000_000 + at for at in range(20))
            for writer in (WRITER, 0x0123456789ABCDEE)
        ]

        exporter.export(patches, timeout_millis=30_000)

        assert len({span.span_id for span in receiver.spans}) == len(patches)

    def test_annotators_of_one_name_are_all_there(self, exporter: OtlpPatchExporter, receiver: Receiver) -> None:
        """The attributes of one name hold one annotation; further ones are a JSON list."""
        notes = [Annotation("q", "good", annotator="ann"), Annotation("q", text="hm", annotator="bob")]
        fields: Fields = {
            ("span", "annotation", annotation_key(note.name, note.annotator)): (note.to_json(), (at, WRITER))
            for at, note in enumerate(notes)
        }

        exporter.export([Patch(TARGET, fields)], timeout_millis=30_000)

        found = attributes(receiver.spans[0])
        assert (found["annotation.q.label"], found["annotation.q.annotator"]) == ("good", "ann")
        assert json.loads(found["otel_metadata.annotations"]) == [notes[1].to_json()]
        assert found["otel_metadata.json"] == ["otel_metadata.annotations"]
        assert "annotation.q.text" not in found


class TestOutcomes:
    def test_a_batch_is_one_request_with_an_outcome_each(self, exporter: OtlpPatchExporter, receiver: Receiver) -> None:
        """Bare trace ids are refused where they stand, their neighbours are sent."""
        bare = Patch(SpanRef(TARGET.trace_id, 0), FIELDS)
        one, two = (Patch(SpanRef(TARGET.trace_id, span_id), FIELDS) for span_id in (1, 2))

        outcomes = exporter.export([one, bare, two], timeout_millis=30_000)

        assert [type(outcome) for outcome in outcomes] == [Delivered, Rejected, Delivered]
        assert isinstance(outcomes[1], Rejected)
        assert outcomes[1].error.type == "unsupported"
        assert [span.parent_span_id for span in receiver.spans] == [b"\0" * 7 + b"\1", b"\0" * 7 + b"\2"]

    def test_a_delivered_patch_says_how_it_is_kept(self, exporter: OtlpPatchExporter) -> None:
        """An OTLP backend did not change the stored span, and the outcome does not pretend it did."""
        (outcome,) = exporter.export([Patch(TARGET, FIELDS)], timeout_millis=30_000)

        assert isinstance(outcome, Delivered)
        assert "a span of its own" in outcome.notes[0]

    def test_only_bare_trace_ids_are_no_request(self, exporter: OtlpPatchExporter, receiver: Receiver) -> None:
        """Nothing is sent when nothing can be."""
        exporter.export([Patch(SpanRef(TARGET.trace_id, 0), FIELDS)], timeout_millis=30_000)

        assert receiver.requests == []

    @pytest.mark.parametrize("status", [400, 401, 413, 500])
    def test_a_receiver_that_fails_is_tried_again(
        self, stock: OtlpPatchExporter, receiver: Receiver, status: int
    ) -> None:
        """OpenTelemetry's exporter does not tell why it failed, so every patch is a retry."""
        receiver.status = status

        outcomes = stock.export([Patch(TARGET, FIELDS), Patch(SpanRef(1, 1), FIELDS)], timeout_millis=30_000)

        error = DeliveryError("connection_failure", "the OTLP exporter failed; its log line says why")
        assert outcomes == [Retry(error)] * 2

    @pytest.mark.parametrize(("status", "kind"), [(302, Pause), (400, Rejected), (401, Pause), (500, Retry)])
    def test_what_a_sender_tells_is_the_outcome_of_each(
        self, sending: OtlpPatchExporter, receiver: Receiver, status: int, kind: type[Outcome]
    ) -> None:
        """The patches of a batch went out together and share what became of it; a bare trace id did not."""
        receiver.status = status
        bare = Patch(SpanRef(TARGET.trace_id, 0), FIELDS)

        outcomes = sending.export([Patch(TARGET, FIELDS), bare, Patch(SpanRef(1, 1), FIELDS)], timeout_millis=30_000)

        assert [type(outcome) for outcome in outcomes] == [kind, Rejected, kind]
        assert outcomes[0] == outcomes[2] != outcomes[1]

    def test_what_a_sender_notes_is_beside_our_note(self) -> None:
        """A delivered patch says how it is kept, and what the backend said; the time is passed on."""
        asked: list[tuple[int, int]] = []

        class Sender:
            def send(self, spans: Sequence[ReadableSpan], *, timeout_millis: int) -> Outcome:
                asked.append((len(spans), timeout_millis))
                return Delivered(("the backend says: hm",))

        (outcome,) = OtlpPatchExporter(Sender()).export([Patch(TARGET, FIELDS)], timeout_millis=123)

        assert [count for count, _ in asked] == [1]
        assert 0 < asked[0][1] <= 123  # what is left of it
        assert isinstance(outcome, Delivered)
        assert len(outcome.notes) == 2
        assert "a span of its own" in outcome.notes[0]
        assert outcome.notes[1] == "the backend says: hm"

    def test_a_span_that_was_rejected_is_not_delivered(self) -> None:
        """Of all that was sent the backend kept nothing: none of it has arrived; of a part nobody knows which."""

        class Sender:
            def send(self, spans: Sequence[ReadableSpan], *, timeout_millis: int) -> Outcome:
                return Delivered(("the backend rejected 1 of them: too old",), rejected=1)

        patches = [Patch(SpanRef(TARGET.trace_id, span_id), FIELDS) for span_id in (1, 2)]
        alone = OtlpPatchExporter(Sender()).export(patches[:1], timeout_millis=1_000)
        together = OtlpPatchExporter(Sender()).export(patches, timeout_millis=1_000)

        why = "the backend rejected 1 of them: too old"
        assert alone == [Rejected(DeliveryError("backend_rejection", why))]
        assert [type(one) for one in together] == [Delivered] * 2
        assert all(isinstance(one, Delivered) and one.notes[1] == why for one in together)

    def test_the_span_exporter_is_left_to_its_destination(
        self, exporter: OtlpPatchExporter, receiver: Receiver
    ) -> None:
        """It is shared with the spans, so shutting down the patches does not close it."""
        exporter.shutdown()

        assert [type(one) for one in exporter.export([Patch(TARGET, FIELDS)], timeout_millis=30_000)] == [Delivered]
        assert len(receiver.spans) == 1
