"""A row of the spool as bytes, and a span as JSON: what goes in comes out."""

from __future__ import annotations

import hypothesis.strategies as st
import orjson
import pytest
from hypothesis import given
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
from tests import strategies

from otel_metadata.model.dead_letter import DeadLetter
from otel_metadata.model.outcome import DeliveryError
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.spool.frames import (
    PlainUpdate,
    SpooledSpan,
    SpooledUpdate,
    frame,
    plain_frame,
    read_frame,
    row_from_json,
)
from otel_metadata.spool.span_codec import span_from_json, span_to_json

IDS = st.integers(1, (1 << 63) - 1)
NS = st.integers(0, (1 << 63) - 1)
UPDATES = st.integers(0, 10_000)
# An update of an unsampled span is refused, so none is ever spooled.
TARGETS = strategies.span_refs().map(lambda ref: SpanRef(ref.trace_id, ref.span_id))

updates = st.builds(
    SpooledUpdate,
    id=IDS,
    destination=strategies.texts(),
    target=TARGETS,
    fields=strategies.field_sets(),
    updates=UPDATES,
    accepted_ns=NS,
    window_ns=st.none() | st.tuples(NS, NS),
)
letters = st.builds(
    DeadLetter,
    id=IDS,
    destination=strategies.texts(),
    target=TARGETS,
    fields=strategies.field_sets(),
    updates=UPDATES,
    reason=st.sampled_from(["rejected", "expired", "unsupported"]),
    error=st.builds(DeliveryError, st.sampled_from(["too_large", "patch_failure"]), strategies.texts()),
    tries=st.integers(0, 100),
    accepted_ns=NS,
    died_ns=NS,
)


@given(row=updates | letters)
def test_a_row_comes_back_as_it_was_written(row):
    """Updates and dead letters are equal after the way through bytes."""
    data = read_frame(frame(row, row.id))
    assert data is not None
    assert row_from_json(data) == row


@given(
    row_id=IDS,
    target=TARGETS,
    destination=strategies.texts(),
    version=strategies.versions(),
    metadata=st.dictionaries(strategies.keys(), strategies.scalars(), max_size=4),
    backend=st.none() | strategies.texts(min_size=1),
)
def test_a_plain_frame_is_the_frame_of_the_same_update(row_id, target, destination, version, metadata, backend):
    """The short way of the hot path writes the very bytes that the general way would."""
    if backend is not None:
        target = target.with_backend_id("galileo", backend)
    plain = PlainUpdate(target, version, metadata)
    update = SpooledUpdate(row_id, destination, target, plain.fields, 1, version[0])
    assert orjson.loads(plain_frame(plain, row_id, destination)[20:]) == orjson.loads(frame(update, row_id)[20:])


@given(row=updates, data=st.data())
def test_a_frame_with_a_flipped_bit_is_no_frame(row, data):
    """The magic, the checksum and the length cover every bit."""
    body = bytearray(frame(row, row.id))
    bit = data.draw(st.integers(0, len(body) * 8 - 1))
    body[bit // 8] ^= 1 << bit % 8
    found = read_frame(bytes(body))
    # A hexadecimal digit may be written in either case: then nothing was changed.
    assert found is None or row_from_json(found) == row


@pytest.mark.parametrize("length", range(40))
def test_half_a_frame_is_no_frame(length):
    """A frame that was cut off is not read."""
    body = frame(SpooledUpdate(1, "memory", SpanRef(1, 2), {}, 1, 1), 1)
    assert read_frame(body[:length]) is None


def span_of(**changed) -> ReadableSpan:
    """Return an ended span with one of everything."""
    context = SpanContext(1 << 127, 1 << 63, True, TraceFlags(3), TraceState([("a", "1"), ("b@c", "2")]))
    given: dict[str, object] = {
        "name": "span",
        "context": context,
        "parent": SpanContext(1 << 127, 7, True, TraceFlags(1), TraceState([("p", "q")])),
        "kind": SpanKind.CLIENT,
        "start_time": 1,
        "end_time": 2,
        "status": Status(StatusCode.ERROR, "why"),
        "attributes": {"a": 1, "b": ("x", "y"), "c": True, "d": 1.5},
        "events": [Event("event", {"e": (1, 2)}, 5)],
        "links": [Link(context, {"l": "m"})],
        "resource": Resource({"service.name": "application"}, "https://schema/1"),
        "instrumentation_scope": InstrumentationScope("scope", "1", "https://schema/2", {"s": 1}),
    }
    return ReadableSpan(**{**given, **changed})  # type: ignore[arg-type]


def through_bytes(span: ReadableSpan) -> ReadableSpan:
    return span_from_json(orjson.loads(orjson.dumps(span_to_json(span))))


def test_a_span_comes_back_with_everything_an_exporter_reads():
    """Name, ids, flags, trace state, parent, times, status, attributes, events, links, resource, scope."""
    span = span_of()
    back = through_bytes(span)
    assert back.to_json() == span.to_json()
    assert back.context == span.context
    assert back.context.trace_state == span.context.trace_state
    assert back.context.is_remote
    assert back.parent == span.parent
    assert back.parent is not None
    assert back.parent.trace_state.to_header() == "p=q"
    assert back.resource.schema_url == "https://schema/1"
    assert back.instrumentation_scope == span.instrumentation_scope
    assert [(e.name, dict(e.attributes or {}), e.timestamp) for e in back.events] == [("event", {"e": (1, 2)}, 5)]


@pytest.mark.parametrize(
    "value",
    [
        float("inf"),
        float("-inf"),
        1 << 70,
        -(1 << 70),
        b"\xff\x00",
        "",
        "\0",
        None,
        (),
        (1, None, "x"),
        {"nested": {"deep": [1, b"x"]}},
        {"$bytes": "not bytes"},
        (float("inf"), 1.0),
        True,
        0,
        -0.0,
    ],
    ids=repr,
)
def test_a_value_that_json_cannot_say_comes_back(value):
    """Bytes, infinities, large integers and mappings are what they were; a list is a tuple, as OpenTelemetry has it."""
    back = through_bytes(span_of(attributes={"v": value})).attributes
    assert back is not None
    expected = {"nested": {"deep": (1, b"x")}} if value == {"nested": {"deep": [1, b"x"]}} else value
    assert back["v"] == expected
    assert type(back["v"]) is type(expected)


def test_a_span_with_lone_surrogates_everywhere_can_be_written():
    """A text that is no UTF-8 is replaced, wherever it is: it must not keep the span from the disk."""
    bad = "a\ud800b"
    span = span_of(
        name=bad,
        status=Status(StatusCode.ERROR, bad),
        attributes={bad: bad, "l": (bad,)},
        events=[Event(bad, {bad: bad}, 1)],
        resource=Resource({"r": bad}, bad),
        instrumentation_scope=InstrumentationScope(bad, bad, bad),
    )
    assert through_bytes(span).name == "a?b"


def test_the_dropped_counts_come_back():
    """What the SDK's limits dropped is still told; its plain constructor forgets it."""
    from opentelemetry.sdk.trace import SpanLimits

    limits = SpanLimits(max_span_attributes=1, max_events=1, max_links=1)
    provider = TracerProvider(span_limits=limits, shutdown_on_exit=False)
    links = [Link(SpanContext(1, number, False)) for number in (1, 2, 3)]
    span = provider.get_tracer("t").start_span("s", attributes={"a": 1, "b": 2}, links=links)
    for number in range(4):
        span.add_event(f"e{number}")
    span.end()
    back = through_bytes(span)  # type: ignore[arg-type] # an ended span of the SDK
    assert (back.dropped_attributes, back.dropped_events, back.dropped_links) == (1, 3, 2)


@given(fields=strategies.field_sets(), number=UPDATES, is_root=st.booleans())
def test_a_held_span_comes_back_with_its_sidecar(fields, number, is_root):
    """The row of a held span has the span, its fields and their number."""
    row = SpooledSpan(9, "memory", span_of(), fields, number, is_root, 5)
    data = read_frame(frame(row, 9))
    assert data is not None
    back = row_from_json(data)
    assert isinstance(back, SpooledSpan)
    assert back.span.to_json() == row.span.to_json()
    assert (back.fields, back.updates, back.is_local_root, back.accepted_ns) == (fields, number, is_root, 5)
