"""Protobuf is read as the same request in JSON, span by span, and no body takes more than its share of memory."""

from __future__ import annotations

import tracemalloc

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otel_metadata.client import otlp_json
from otel_metadata.client.otlp_json import OtlpError
from otel_metadata.server.otlp import protobuf

TRACE, SPAN = b"\x01" * 16, b"\x02" * 8

TEXTS = st.text(max_size=20)
SCALARS = st.one_of(
    TEXTS.map(lambda text: AnyValue(string_value=text)),
    st.booleans().map(lambda value: AnyValue(bool_value=value)),
    st.integers(-(1 << 63), (1 << 63) - 1).map(lambda value: AnyValue(int_value=value)),
    st.floats().map(lambda value: AnyValue(double_value=value)),
    st.binary(max_size=20).map(lambda value: AnyValue(bytes_value=value)),
    st.just(AnyValue()),
)
NAMES = st.one_of(
    TEXTS,
    st.sampled_from(["metadata.plan", "metadata", "tag.tags", "user.id", "eval.a.score", "otel_metadata.json", "a"]),
)


def lists(values: st.SearchStrategy[AnyValue]) -> st.SearchStrategy[AnyValue]:
    return st.one_of(
        st.lists(values, max_size=3).map(lambda items: AnyValue(array_value=ArrayValue(values=items))),
        st.lists(st.tuples(NAMES, values), max_size=3).map(
            lambda items: AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key=k, value=v) for k, v in items]))
        ),
    )


PAIRS = st.lists(
    st.builds(lambda key, value: KeyValue(key=key, value=value), NAMES, st.recursive(SCALARS, lists, max_leaves=8)),
    max_size=6,
)
TIMES = st.one_of(st.integers(0, (1 << 63) - 1), st.integers(0, (1 << 64) - 1))
IDS = st.sampled_from([TRACE, SPAN, b"", b"\0" * 16, b"\0" * 8, b"\1\2\3"])
SPANS = st.builds(
    Span,
    trace_id=st.sampled_from([TRACE] * 5 + [b"", b"\1", b"\0" * 16]),
    span_id=st.sampled_from([SPAN] * 5 + [b"", b"\1", b"\0" * 8]),
    parent_span_id=st.sampled_from([SPAN, b"", b"\0" * 8, b"\1"]),
    trace_state=TEXTS,
    name=TEXTS,
    kind=st.integers(0, 5),
    start_time_unix_nano=TIMES,
    end_time_unix_nano=TIMES,
    attributes=PAIRS,
    events=st.lists(st.builds(Span.Event, name=TEXTS, time_unix_nano=TIMES, attributes=PAIRS), max_size=2),
    links=st.lists(
        st.builds(
            Span.Link, trace_id=st.sampled_from([TRACE, b""]), span_id=st.sampled_from([SPAN, b""]), attributes=PAIRS
        ),
        max_size=2,
    ),
)


def request(*spans: Span, resource: list[KeyValue] | None = None, scope: str = "shop") -> ExportTraceServiceRequest:
    found = ExportTraceServiceRequest()
    of_resource = found.resource_spans.add()
    of_resource.resource.attributes.extend(resource or [])
    of_scope = of_resource.scope_spans.add()
    of_scope.scope.name, of_scope.scope.version = scope, "1.2"
    of_scope.spans.extend(spans)
    return found


def in_protobuf(found: ExportTraceServiceRequest) -> list[otlp_json.Read]:
    body = found.SerializeToString()
    protobuf.check(body)
    return [read for read, _ in protobuf.spans_of(body)]


def span(**more: object) -> Span:
    return Span(trace_id=TRACE, span_id=SPAN, name="answer", start_time_unix_nano=10, end_time_unix_nano=20, **more)


def sized(number: int, contents: bytes) -> bytes:
    """Return a member with a number and a length."""
    size, parts = len(contents), b""
    while size > 127:
        parts += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + parts + bytes([size]) + contents


def body_of(*spans: bytes) -> bytes:
    """Return a request with spans that are encoded already."""
    scope = b"".join(sized(2, one) for one in spans)
    return sized(1, sized(2, scope))


def deep_span(levels: int) -> bytes:
    """Return a span with an attribute of nested arrays: the library encodes no deeper ones than it reads."""
    value = AnyValue(string_value="deep").SerializeToString()
    for _ in range(levels):
        value = sized(5, sized(1, value))
    return span().SerializeToString() + sized(9, sized(1, b"deep") + sized(2, value))


@given(st.lists(SPANS, max_size=3), PAIRS, st.sampled_from(["shop", "otel_metadata.patch"]))
def test_a_request_means_the_same_in_protobuf_and_json(spans, resource, scope):
    found = request(*spans, resource=resource, scope=scope)
    expected = list(otlp_json.spans_of(MessageToDict(found)))
    got = in_protobuf(found)
    assert [one if not isinstance(one, OtlpError) else OtlpError for one in got] == [
        one if not isinstance(one, OtlpError) else OtlpError for one in expected
    ]


def test_a_bad_span_is_refused_and_the_others_are_read():
    good = span().SerializeToString()
    flipped = good.replace(b"answer", b"\xff" * 6)  # not UTF-8
    found = request(
        span(), Span(trace_id=b"\1", span_id=SPAN, name="with a short trace id"), span(), Span()
    ).SerializeToString()
    reads = [read for read, _ in protobuf.spans_of(found.replace(good, flipped, 1))]
    assert [isinstance(read, OtlpError) for read in reads] == [True, True, False, True]
    assert "Span is not valid protobuf" in f"{reads[0]}"
    assert "traceId" in f"{reads[1]}"
    assert "32 hex digits" in f"{reads[1]}"


def test_a_request_that_ends_early_is_not_read_in_part():
    body = request(span(), span()).SerializeToString()
    for end in range(1, len(body)):
        with pytest.raises(protobuf.MalformedError):
            protobuf.check(body[:end])


@pytest.mark.parametrize(
    "body", [b"\xff", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x0b", b"\x0f", b"\x08"]
)
def test_bytes_that_are_no_message_are_refused(body):
    with pytest.raises(protobuf.MalformedError):
        protobuf.check(body)


def test_unknown_members_are_ignored():
    body = request(span()).SerializeToString()
    more = b"\xf8\x07\x01" + b"\xf9\x07" + b"\0" * 8 + b"\xfd\x07" + b"\0" * 4 + b"\xfa\x07\x03abc"
    assert protobuf.check(more + body + more) == 1


def test_a_resource_may_come_behind_its_spans_and_in_parts():
    found = request(span())
    spans = found.resource_spans[0].SerializeToString()
    first, second = (
        request(resource=[KeyValue(key="a", value=AnyValue(int_value=1))]),
        request(resource=[KeyValue(key="b", value=AnyValue(int_value=2))]),
    )
    del first.resource_spans[0].scope_spans[:], second.resource_spans[0].scope_spans[:]
    whole = spans + first.resource_spans[0].SerializeToString() + second.resource_spans[0].SerializeToString()
    wrapped = b"\x0a" + bytes([len(whole)]) + whole
    assert len(whole) < 128
    ((read, _),) = protobuf.spans_of(wrapped)
    assert read[0].resource == {"a": 1, "b": 2}


@pytest.mark.parametrize("levels", [60, 1_000, 20_000])
def test_deep_values_are_refused_with_their_span_only(levels):
    body = body_of(deep_span(levels), span().SerializeToString())
    protobuf.check(body)
    first, second = (read for read, _ in protobuf.spans_of(body))
    assert "100 levels" in f"{first}"
    assert not isinstance(second, OtlpError)
    ((deep, _),) = protobuf.spans_of(body_of(deep_span(40)))
    assert not isinstance(deep, OtlpError)


@pytest.mark.parametrize("member", [b"\x4a\x00", b"\x5a\x00", b"\x6a\x00"])
def test_a_span_of_empty_parts_is_refused_before_it_is_parsed(member, monkeypatch):
    monkeypatch.setattr(protobuf, "MAX_PARTS_OF_SPAN", 10_000)
    monkeypatch.setattr(protobuf, "_SMALL_BYTES", 13_000)
    body = body_of(span().SerializeToString() + member * 400_000, span().SerializeToString())
    protobuf.check(body)
    tracemalloc.start()
    try:
        first, second = (read for read, _ in protobuf.spans_of(body))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "too many parts" in f"{first}"
    assert not isinstance(second, OtlpError)
    assert peak < 4 * len(body)


LIST = sized(9, sized(2, sized(5, b"\x0a\x00" * 50)))


@pytest.mark.parametrize("member", [b"\x4a\x00", b"\x5a\x00", b"\x6a\x00", LIST])
def test_a_request_of_many_values_is_read_up_to_a_bound(member, monkeypatch):
    monkeypatch.setattr(protobuf, "MAX_VALUES", 20_000)
    one = span().SerializeToString() + member * (6_000 // len(member))
    reads = [read for read, _ in protobuf.spans_of(body_of(*[one] * 20))]
    refused = [f"{read}" for read in reads if isinstance(read, OtlpError)]
    assert 0 < len(refused) < len(reads)
    assert all("more than 20,000" in reason for reason in refused)


def test_a_body_of_empty_parts_is_refused(monkeypatch):
    monkeypatch.setattr(protobuf, "MAX_PARTS", 100_000)
    with pytest.raises(protobuf.TooManyPartsError):
        protobuf.check(b"\x0a\x00" * (protobuf.MAX_PARTS + 1))


@pytest.mark.skipif(
    "event_name" not in LogRecord.DESCRIPTOR.fields_by_name, reason="log records have a name since OpenTelemetry 1.31"
)
def test_log_records_mean_the_same_in_protobuf_and_json():
    records = [
        LogRecord(trace_id=TRACE, span_id=SPAN, event_name="e", time_unix_nano=5),
        LogRecord(observed_time_unix_nano=7, attributes=[KeyValue(key="a", value=AnyValue(double_value=0.5))]),
        LogRecord(trace_id=b"\1"),
    ]
    found = ExportLogsServiceRequest(resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=records)])])
    got = list(protobuf.log_records_of(found.SerializeToString()))
    expected = list(otlp_json.log_records_of(MessageToDict(found)))
    assert got[:2] == expected[:2]
    assert [type(one) for one in (got[2], expected[2])] == [OtlpError, OtlpError]
