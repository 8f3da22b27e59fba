"""Spans over OTLP/HTTP: what each body of an answer means, and what the environment says."""

from __future__ import annotations

import base64
import gzip
import json
import logging
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, TraceFlags
from tests.exporters.loopback import Answer, Loopback, Request, never, reply, then_closed

from otel_metadata.errors import ConfigurationError
from otel_metadata.exporters.otlp_http import OtlpHttpSender
from otel_metadata.model.outcome import Delivered, Outcome, Pause, Rejected, Retry
from otel_metadata.seams import SpanSender

KEY = "sk-secret-0123456789"
LONG_MILLIS = 30_000
PROTOBUF = "application/x-protobuf"


def span(name: str = "answer", span_id: int = 2) -> ReadableSpan:
    context = SpanContext(1, span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    return ReadableSpan(name, context, start_time=10, end_time=20, attributes={"a": 1})


def partial(rejected: int, message: str = "") -> bytes:
    said = ExportTracePartialSuccess(rejected_spans=rejected, error_message=message)
    return ExportTraceServiceResponse(partial_success=said).SerializeToString()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine has a say."""
    for name in ("ENDPOINT", "HEADERS", "TIMEOUT", "COMPRESSION", "CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_TRACES_{name}", raising=False)


def sent(answer: Answer, *spans: ReadableSpan, **options: object) -> tuple[Outcome, list[Request]]:
    """Send spans to a server that gives *answer*; return the outcome and what the server got."""
    with Loopback(answer) as server:
        sender = OtlpHttpSender(f"{server.url}/v1/traces", **options)  # type: ignore[arg-type]
        try:
            return sender.send(spans or (span(),), timeout_millis=LONG_MILLIS), server.requests
        finally:
            sender.shutdown()


class TestSend:
    def test_spans_are_one_request(self) -> None:
        """A batch is one POST of protobuf, with the headers that were given."""
        outcome, (request,) = sent(reply(), span("one", 1), span("two", 2), headers={"X-Key": KEY})

        assert outcome == Delivered()
        assert request.line == "POST /v1/traces HTTP/1.1"
        assert (request.headers["content-type"], request.headers["x-key"]) == (PROTOBUF, KEY)
        assert "content-encoding" not in request.headers
        (resource_spans,) = ExportTraceServiceRequest.FromString(request.body).resource_spans
        assert [one.name for one in resource_spans.scope_spans[0].spans] == ["one", "two"]

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            *((status, Delivered) for status in (200, 202, 204)),
            *((status, Pause) for status in (302, 401, 403, 404)),
            *((status, Rejected) for status in (400, 413, 418)),
            *((status, Retry) for status in (408, 429, 500, 503)),
        ],
    )
    def test_it_is_sent_once(self, status: int, kind: type[Outcome]) -> None:
        """Whatever the answer, there is one request, and the outcome says what follows."""
        outcome, requests = sent(reply(status, Retry_After="1", Location="/elsewhere"))

        assert type(outcome) is kind
        assert len(requests) == 1
        assert not isinstance(outcome, Retry) or outcome.after_millis == 1_000

    @pytest.mark.parametrize(
        ("media_type", "body"),
        [
            (PROTOBUF, b""),
            (PROTOBUF, partial(0)),
            ("", b""),
            ("text/html", b""),
            ("application/json", b"{}"),
            ("application/json; charset=utf-8", b'{"partialSuccess": {}}'),
            ("application/json", b'{"partialSuccess": {"rejectedSpans": "0"}, "status": "ok"}'),
            ("application/json", b'{"message": "received"}'),
            ("application/json", b" null"),
            ("application/json", b""),
        ],
    )
    def test_a_success_is_delivered(self, media_type: str, body: bytes) -> None:
        """An empty body, and one in protobuf or JSON that rejects nothing."""
        assert sent(reply(200, body, Content_Type=media_type))[0] == Delivered()

    @pytest.mark.parametrize(
        ("media_type", "body"),
        [
            (PROTOBUF, b"\xff\xff\xff"),
            (PROTOBUF, partial(3, "because")[:-2]),
            ("text/plain", b"OK"),
            ("application/json", b"{"),
            ("application/json", b"[]"),
            ("application/json", b'"ok"'),
            ("application/json", b"\xff{}"),
            ("application/json", b'{"partialSuccess": 3}'),
            ("application/json", b'{"partialSuccess": {"rejectedSpans": "many"}}'),
            ("application/json", b'{"a":' * 10_000),
            ("application/json", b'{"a":"' + b"x" * 70_000 + b'"}'),
            ("application/octet-stream", b"\x0a" * 70_000),
        ],
        ids=range(12),
    )
    def test_a_success_that_is_no_answer_is_tried_again(self, media_type: str, body: bytes) -> None:
        """What an OTLP receiver would not say is no proof that the spans arrived."""
        outcome, _ = sent(reply(200, body, Content_Type=media_type))

        assert isinstance(outcome, Retry)
        assert outcome.error.message.endswith("check the endpoint (HTTP 200)")

    @pytest.mark.parametrize("size", [10, 100_000])
    def test_a_login_page_is_a_pause(self, size: int) -> None:
        """A page for people, of any length, is about the destination as a whole."""
        outcome, _ = sent(reply(200, b"<html>" + b"x" * size, Content_Type="text/html"))

        assert isinstance(outcome, Pause)

    @pytest.mark.parametrize(
        ("media_type", "body"),
        [
            (PROTOBUF, partial(3, "too\n old")),
            ("application/json", b'{"partialSuccess": {"rejectedSpans": "3", "errorMessage": "too old"}}'),
            ("application/json", b'{"partialSuccess": {"rejectedSpans": 3, "errorMessage": "too old"}}'),
        ],
    )
    def test_a_partial_success_is_delivered_with_a_note(self, media_type: str, body: bytes) -> None:
        """What was rejected would be rejected again; the note says how many, and the backend's words."""
        outcome, _ = sent(reply(200, body, Content_Type=media_type), *(span(span_id=one) for one in range(1, 6)))

        assert outcome == Delivered(("the backend rejected 3 of 5 spans: too old",), rejected=3)

    def test_a_backend_need_not_say_why(self) -> None:
        """A count alone is enough for a note."""
        note = "the backend rejected 1 of 1 spans: it does not say why"
        assert sent(reply(200, partial(1)))[0] == Delivered((note,), rejected=1)

    def test_a_warning_is_a_note(self) -> None:
        """A message without rejected spans is passed on (OTLP, "Partial success")."""
        assert sent(reply(200, partial(0, "use gzip")))[0] == Delivered(("the backend says: use gzip",))

    def test_the_backends_words_are_short_and_hold_no_key(self) -> None:
        """A message is cut, and what was sent in a header is taken out of it."""
        outcome, _ = sent(reply(200, partial(1, f"{KEY} " + "x" * 500)), headers={"authorization": f"Bearer {KEY}"})

        assert outcome == Delivered((f"the backend rejected 1 of 1 spans: *** {'x' * 196}…",), rejected=1)

    def test_the_inside_of_credentials_does_not_come_back(self) -> None:
        """A server that has decoded Basic credentials may repeat the password, and whatever a terminal obeys."""
        basic = base64.b64encode(f"pk-user:{KEY}".encode()).decode()
        said = partial(0, f"\x1b[2J{KEY} of pk-user\u202e")
        outcome, _ = sent(reply(200, said), headers={"authorization": f"Basic {basic}"})
        assert outcome == Delivered((r"the backend says: \x1b[2J*** of ***\u202e",))

    def test_a_span_that_cannot_be_encoded_raises(self) -> None:
        """Nothing is sent: whoever called finds the span by sending fewer."""
        with Loopback(reply()) as server:
            sender = OtlpHttpSender(server.url)
            with pytest.raises((TypeError, ValueError)):
                sender.send([span(), span(42)], timeout_millis=LONG_MILLIS)  # type: ignore[arg-type] # the poison
            assert server.peers == []

    def test_the_shorter_timeout_holds(self) -> None:
        """That of the call and that of the sender are both upper bounds."""
        with Loopback(never) as server:
            for own_millis, call_millis in ((50, LONG_MILLIS * 20), (LONG_MILLIS * 20, 50)):
                sender = OtlpHttpSender(server.url, timeout_millis=own_millis)
                outcome = sender.send([span()], timeout_millis=call_millis)
                sender.shutdown()
                assert isinstance(outcome, Retry)
                assert "in time" in outcome.error.message


class TestExport:
    def test_it_is_a_span_exporter_and_a_sender(self) -> None:
        """Both interfaces are there; nothing is buffered."""
        sender = OtlpHttpSender("http://127.0.0.1:1")
        assert isinstance(sender, SpanExporter)
        assert isinstance(sender, SpanSender)
        assert sender.force_flush()

    @pytest.mark.parametrize(
        ("answer", "result", "line"),
        [
            (reply(200), SpanExportResult.SUCCESS, ""),
            (reply(200, partial(1, "too old")), SpanExportResult.SUCCESS, "rejected 1 of 1 spans: too old."),
            (reply(302, Location="/login"), SpanExportResult.FAILURE, "1 spans failed: redirects are not followed"),
            (reply(401, KEY.encode()), SpanExportResult.FAILURE, "1 spans failed: the credentials were refused"),
            (then_closed(b""), SpanExportResult.FAILURE, "1 spans failed: the answer broke off"),
        ],
        ids=range(5),
    )
    def test_the_log_says_what_the_result_cannot(
        self, caplog: pytest.LogCaptureFixture, answer: Answer, result: SpanExportResult, line: str
    ) -> None:
        """Success or failure, with one line that says why, and never with a key."""
        caplog.set_level(logging.DEBUG)
        with Loopback(answer) as server:
            sender = OtlpHttpSender(server.url, headers={"authorization": KEY})
            assert sender.export([span()]) is result
            sender.shutdown()
        assert line in caplog.text
        assert bool(caplog.records) == bool(line)
        assert KEY not in caplog.text + repr(sender)

    def test_a_span_that_cannot_be_encoded_is_a_failure(self, caplog: pytest.LogCaptureFixture) -> None:
        """An exporter does not raise into its processor."""
        sender = OtlpHttpSender("http://127.0.0.1:1")
        assert sender.export([span(42)]) is SpanExportResult.FAILURE  # type: ignore[arg-type] # the poison
        assert "1 spans cannot be encoded (" in caplog.text

    def test_after_shutdown_nothing_is_sent(self) -> None:
        """A sender that was shut down fails."""
        with Loopback(reply()) as server:
            sender = OtlpHttpSender(server.url)
            sender.shutdown()
            assert sender.export([span()]) is SpanExportResult.FAILURE
            assert server.requests == []


class TestEnvironment:
    @pytest.fixture
    def server(self) -> Iterator[Loopback]:
        with Loopback(reply()) as server:
            yield server

    def request(self, server: Loopback) -> Request:
        """Return what a sender without arguments sends."""
        sender = OtlpHttpSender()
        assert sender.send([span()], timeout_millis=LONG_MILLIS) == Delivered()
        sender.shutdown()
        return server.requests[-1]

    @pytest.mark.parametrize(
        ("general", "own", "endpoint"),
        [
            (None, None, "http://localhost:4318/v1/traces"),
            ("", "", "http://localhost:4318/v1/traces"),
            ("http://127.0.0.1:1", None, "http://127.0.0.1:1/v1/traces"),
            ("http://127.0.0.1:1/otlp/", None, "http://127.0.0.1:1/otlp/v1/traces"),
            ("http://127.0.0.1:1", "https://127.0.0.1:2/x", "https://127.0.0.1:2/x"),
            (None, "http://127.0.0.1:2", "http://127.0.0.1:2"),
        ],
    )
    def test_the_endpoint(
        self, monkeypatch: pytest.MonkeyPatch, general: str | None, own: str | None, endpoint: str
    ) -> None:
        """The general one gets the path of traces, that of traces is used as it is; an empty one is none."""
        for name, value in (("OTEL_EXPORTER_OTLP_ENDPOINT", general), ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", own)):
            if value is not None:
                monkeypatch.setenv(name, value)
        assert OtlpHttpSender().endpoint == endpoint

    def test_headers_are_decoded(self, monkeypatch: pytest.MonkeyPatch, server: Loopback) -> None:
        """Names and values are percent-encoded; a value with a blank was not, and stays as it is."""
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.url)
        monkeypatch.setenv(
            "OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Basic%20a%3D%3D , x-plain = Bearer a%20b,,x-equals=a=b,x-none="
        )
        headers = self.request(server).headers
        assert {name: headers[name] for name in ("authorization", "x-plain", "x-equals", "x-none")} == {
            "authorization": "Basic a==",
            "x-plain": "Bearer a%20b",
            "x-equals": "a=b",
            "x-none": "",
        }

    def test_headers_of_traces_replace_the_general_ones(
        self, monkeypatch: pytest.MonkeyPatch, server: Loopback
    ) -> None:
        """As in OpenTelemetry's exporter: all of them."""
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-general=1")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x-own=2")
        headers = self.request(server).headers
        assert (headers.get("x-general"), headers["x-own"]) == (None, "2")

    def test_headers_that_are_given_stand_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The environment's may be the key of another destination."""
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization={KEY}")
        _, (request,) = sent(reply(), headers={"x-own": "1"})
        assert "authorization" not in request.headers

    @pytest.mark.parametrize(
        ("compression", "decompress"),
        [("gzip", gzip.decompress), (" GZIP ", gzip.decompress), ("deflate", zlib.decompress)],
    )
    def test_the_body_is_compressed(
        self, monkeypatch: pytest.MonkeyPatch, server: Loopback, compression: str, decompress: object
    ) -> None:
        """With gzip, or deflate, which OpenTelemetry's exporter has too."""
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", server.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
        request = self.request(server)
        assert request.headers["content-encoding"] == compression.strip().lower()
        assert ExportTraceServiceRequest.FromString(decompress(request.body)).resource_spans  # type: ignore[operator]

    def test_the_timeout_is_in_seconds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As everywhere in OpenTelemetry's Python, though the specification says milliseconds."""
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.05")
        with Loopback(never) as server:
            sender = OtlpHttpSender(server.url)
            outcome = sender.send([span()], timeout_millis=LONG_MILLIS * 20)
            sender.shutdown()
        assert isinstance(outcome, Retry)

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("ENDPOINT", "127.0.0.1:4318", r"ENDPOINT is '127\.0\.0\.1:4318/v1/traces'; expected http://host"),
            ("ENDPOINT", f"https://user:{KEY}@host", r"ENDPOINT is 'https://\*\*\*@host/v1/traces'; expected"),
            ("TRACES_ENDPOINT", "ftp://host", r"TRACES_ENDPOINT is 'ftp://host'; expected http://host"),
            ("HEADERS", f"authorization:{KEY}", r"HEADERS is '\*\*\*'; expected name=value,name=value"),
            ("HEADERS", f"authorization={KEY}%0Ax", r"HEADERS is \{'authorization': '\*\*\*'\}; expected names of"),
            ("TRACES_HEADERS", f"={KEY}", r"TRACES_HEADERS is '\*\*\*'; expected name=value"),
            ("TIMEOUT", "10s", r"TIMEOUT is '10s'; expected a number of seconds above 0"),
            ("TRACES_TIMEOUT", "0", r"TRACES_TIMEOUT is '0'; expected a number"),
            ("TIMEOUT", "inf", r"TIMEOUT is 'inf'; expected a number"),
            ("TIMEOUT", "nan", r"TIMEOUT is 'nan'; expected a number"),
            ("COMPRESSION", "zstd", r"COMPRESSION is 'zstd'; expected one of none, gzip, deflate"),
            ("CERTIFICATE", "missing.pem", r"CERTIFICATE is 'missing\.pem'; expected a file with the certificates"),
            (
                "TRACES_CLIENT_CERTIFICATE",
                "missing.pem",
                r"TRACES_CLIENT_CERTIFICATE is 'missing\.pem'; expected a PEM",
            ),
            ("CLIENT_KEY", "key.pem", r"CLIENT_KEY is 'key\.pem'; expected a client certificate beside it"),
        ],
    )
    def test_a_value_that_cannot_be_used_is_named(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str, message: str
    ) -> None:
        """The error names the variable, and shows no key."""
        monkeypatch.chdir(tmp_path)
        if "ENDPOINT" not in name:
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:1")
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
        with pytest.raises(ConfigurationError, match=f"OTEL_EXPORTER_OTLP_{message}") as caught:
            OtlpHttpSender()
        assert KEY not in str(caught.value)

    def test_an_argument_that_cannot_be_used_is_named(self) -> None:
        """In code it is the argument, not a variable."""
        with pytest.raises(ConfigurationError, match=r"^endpoint is 'nowhere'; expected"):
            OtlpHttpSender("nowhere")
        with pytest.raises(ConfigurationError, match=r"^compression is 'br'; expected"):
            OtlpHttpSender("http://127.0.0.1", compression="br")


def test_json_says_what_protobuf_says() -> None:
    """The two spellings of one answer have one outcome."""
    said = {"partialSuccess": {"rejectedSpans": "2", "errorMessage": "m"}}
    in_json, _ = sent(reply(200, json.dumps(said).encode(), Content_Type="application/json"))
    in_protobuf, _ = sent(reply(200, partial(2, "m"), Content_Type=PROTOBUF))
    assert in_json == in_protobuf
