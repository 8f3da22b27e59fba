"""The pure parts of `late`: back-off, weights, a destination's own checks, the span as it leaves, the counts."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.trace import Link, Status, StatusCode

import otel_metadata as om
from otel_metadata.delivery.backoff import MAX_DELAY_NS, backoff_ns
from otel_metadata.delivery.destination import Destination
from otel_metadata.delivery.in_flight import merged, settled_fields, span_without_credentials
from otel_metadata.delivery.stats import DestinationStats, PipelineStats
from otel_metadata.dialects.otel import OtelDialect
from otel_metadata.errors import ConfigurationError
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.model.weight import weigh_fields, weigh_span
from otel_metadata.testing import RecordingSpanExporter

SECOND = 1_000_000_000


# --- back-off --------------------------------------------------------------------------------------------------------


def test_the_back_off_doubles_up_to_a_minute():
    """At the longest draw the waits are 1, 2, 4, … seconds, and never more than 60."""
    waits = [backoff_ns(attempt, None, 1.0) / SECOND for attempt in range(1, 9)]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_the_back_off_is_between_nothing_and_a_minute(attempt, chance):
    """Whatever the try and the draw, the wait is not negative and not above the maximum."""
    assert 0 <= backoff_ns(attempt, None, chance) <= MAX_DELAY_NS


@given(st.floats(0, 1, exclude_max=True))
def test_a_retry_after_is_a_lower_bound(chance):
    """What the backend asked for is never undercut by the draw."""
    assert backoff_ns(1, 30_000, chance) >= 30 * SECOND


@pytest.mark.parametrize(("asked", "waited"), [(-5, 0), (0, 0), (300_000, 300), (86_400_000, 300)])
def test_a_retry_after_is_obeyed_up_to_five_minutes(asked, waited):
    """A negative Retry-After is nothing, one of a day is five minutes."""
    assert backoff_ns(1, asked, 0.0) == waited * SECOND


# --- weights ---------------------------------------------------------------------------------------------------------


def ended_span(**attributes):
    """Return a real span that has ended."""
    span = TracerProvider(shutdown_on_exit=False).get_tracer("t").start_span("span", attributes=attributes)
    span.end()
    return span


def test_a_longer_text_weighs_more():
    """The weight of fields and of spans grows with their texts, wherever they are."""
    for lighter, heavier in pairwise(["", "x" * 100, "x" * 10_000]):
        assert weigh_fields({("span", "metadata", "k"): (lighter, (1, 1))}) < weigh_fields(
            {("span", "metadata", "k"): ({"nested": [heavier]}, (1, 1))}
        )
        assert weigh_span(ended_span(k=lighter)) < weigh_span(ended_span(k=[heavier, heavier]))


def test_events_and_links_weigh_too():
    """Attributes of events and links count like the span's own."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("t")
    other = tracer.start_span("other")
    span = tracer.start_span("span", links=[Link(other.get_span_context(), {"k": "x" * 1_000})])
    span.add_event("event", {"k": "x" * 1_000})
    span.end()
    assert weigh_span(span) > weigh_span(ended_span()) + 2_000


# --- a destination ---------------------------------------------------------------------------------------------------


def parts(**changed):
    """Return the arguments of a good destination, with changed ones."""
    return {
        "name": "memory",
        "span_exporter": RecordingSpanExporter(),
        "patch_exporter": InMemoryPatchExporter(),
        **changed,
    }


@pytest.mark.parametrize(
    ("changed", "setting", "expected"),
    [
        ({"name": ""}, "Destination(name=)", "a short text"),
        ({"name": 3}, "Destination(name=)", "a short text"),
        ({"span_exporter": None}, ".span_exporter", "spans=False"),
        ({"span_exporter": "otlp"}, ".span_exporter", "an OpenTelemetry SpanExporter"),
        ({"patch_exporter": None}, ".patch_exporter", "force_flush"),
        ({"patch_exporter": RecordingSpanExporter()}, ".patch_exporter", "convergence"),
        ({"hold_millis": -1}, ".hold_millis", "0 or more"),
        ({"dialect": "langfuse-ish"}, ".dialect", "an object with encode()"),
    ],
)
def test_a_destination_with_a_wrong_part_says_which(changed, setting, expected):
    """A destination that cannot work is refused at once; the message names the part and what was expected."""
    with pytest.raises(ConfigurationError) as caught:
        Destination(**parts(**changed))
    assert setting in str(caught.value)
    assert expected in str(caught.value)


def test_a_destination_without_spans_needs_no_span_exporter():
    """With spans=False only the patch exporter is needed."""
    assert Destination("memory", None, InMemoryPatchExporter(), spans=False).span_exporter is None


@pytest.mark.parametrize(
    ("convergence", "grace", "asked", "millis"),
    [
        ("versioned", 0, None, 0),
        ("versioned", 9_000, None, 0),
        ("ordered", 0, None, 5_000),
        ("add_only", 9_000, None, 9_000),
        ("none", 0, None, 5_000),
        ("none", 0, 250, 250),
    ],
)
def test_the_remote_grace_follows_from_the_backend(convergence, grace, asked, millis):
    """An unseen span waits 0 where order does not matter, else 5 s or the backend's grace; a setting overrules."""
    exporter = InMemoryPatchExporter(convergence=convergence, grace_millis=grace)
    assert (
        Destination("d", RecordingSpanExporter(), exporter, remote_grace_millis=asked).remote_grace_ns == millis * 10**6
    )


def test_a_backend_that_tells_an_unknown_span_is_asked_at_once():
    """Where "span not found" is told, and answered with another try, an update of an unseen span waits for nothing."""
    exporter = InMemoryPatchExporter(convergence="ordered", grace_millis=9_000, reports_missing=True)
    assert Destination("d", RecordingSpanExporter(), exporter).remote_grace_ns == 0


# --- the span as it leaves -------------------------------------------------------------------------------------------


def full_span():
    """Return an ended span with everything that a span can have."""
    provider = TracerProvider(shutdown_on_exit=False)
    tracer = provider.get_tracer("scope", "1.0")
    with tracer.start_as_current_span("parent") as parent:
        span = tracer.start_span("span", links=[Link(parent.get_span_context())], attributes={"own": 1})
        span.add_event("event")
        for n in range(200):
            span.set_attribute(f"k{n}", n)
        span.set_status(Status(StatusCode.ERROR, "bad"))
        span.end()
    return span


def test_a_merged_span_is_the_ended_span_but_for_what_was_set():
    """Everything that was not set is the ended span's own, the counts of what was dropped included."""
    span = full_span()
    leaving, remainder = merged(
        span, {("span", "metadata", "a"): (1, (1, 1))}, OtelDialect(span_limit=None), is_local_root=False
    )
    assert remainder == {}
    for part in (
        "name",
        "context",
        "parent",
        "kind",
        "start_time",
        "end_time",
        "events",
        "links",
        "resource",
        "status",
        "instrumentation_scope",
        "dropped_attributes",
        "dropped_events",
        "dropped_links",
    ):
        assert getattr(leaving, part) == getattr(span, part), part
    assert dict(leaving.attributes) == {**span.attributes, "metadata.a": 1}
    assert span.dropped_attributes > 0


def test_a_span_without_fields_leaves_as_it_is():
    """Where nothing was set the very span object leaves."""
    span = full_span()
    assert merged(span, {}, OtelDialect(), is_local_root=True) == (span, {})


SECRETS = {
    "gen_ai.headers": "{'authorization': 'Bearer secret'}",
    "llm.headers": "{'x-team': 'secret'}",
    "http.request.header.authorization": ["Bearer secret"],
    "http.request.header.cookie": ["id=secret"],
    "http.response.header.set_cookie": ["id=secret"],
    "rpc.grpc.request.metadata.x-api-key": ["secret"],
    "db.connection_string": "Server=db;Password=secret",
}
HARMLESS = {
    "gen_ai.usage.input_tokens": 3,
    "http.request.header.accept": ["text/html"],
    "auth.token": True,
    "pwd": "",
    "cookie": "[REDACTED]",
}


def masked_by(secrets):
    return {**dict.fromkeys(secrets, "<masked>"), **{name: _tupled(value) for name, value in HARMLESS.items()}}


def _tupled(value):
    return tuple(value) if isinstance(value, list) else value


def test_credentials_that_an_instrumentor_copied_are_masked():
    """On the span itself, in its events and in its links; everything else stays as it is."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("t")
    link = Link(tracer.start_span("other").get_span_context(), {**SECRETS, **HARMLESS})
    span = tracer.start_span("span", attributes={**SECRETS, **HARMLESS}, links=[link])
    span.add_event("event", {**SECRETS, **HARMLESS}, timestamp=5)
    span.add_event("plain", {"kept": 1}, timestamp=6)
    span.end()

    leaving = span_without_credentials(span, masks_credentials=True)

    assert dict(leaving.attributes) == masked_by(SECRETS)
    assert [(event.name, event.timestamp, dict(event.attributes)) for event in leaving.events] == [
        ("event", 5, masked_by(SECRETS)),
        ("plain", 6, {"kept": 1}),
    ]
    assert [(one.context, dict(one.attributes)) for one in leaving.links] == [(link.context, masked_by(SECRETS))]
    assert (leaving.name, leaving.context, leaving.end_time) == (span.name, span.context, span.end_time)
    assert "secret" in repr(dict(span.attributes))


def test_the_dropped_counts_of_a_masked_span_are_its_own():
    """A view of a view still says what the ended span has dropped."""
    limits = SpanLimits(max_span_attributes=1)
    span = TracerProvider(shutdown_on_exit=False, span_limits=limits).get_tracer("t").start_span("span")
    span.set_attributes({"a": 1, "gen_ai.headers": "secret"})
    span.end()
    masked = span_without_credentials(span, masks_credentials=True)
    leaving, _ = merged(masked, {("span", "metadata", "a"): (1, (1, 1))}, OtelDialect(), is_local_root=True)
    assert (masked.dropped_attributes, leaving.dropped_attributes) == (1, 1)
    assert "secret" not in repr(dict(leaving.attributes))


def test_headers_are_masked_also_where_credentials_are_not():
    """`mask_credentials=False` is about names; what is known to hold headers is masked all the same."""
    leaving = span_without_credentials(ended_span(**SECRETS), masks_credentials=False)
    headers = {"gen_ai.headers": "<masked>", "llm.headers": "<masked>"}
    assert dict(leaving.attributes) == {**{name: _tupled(value) for name, value in SECRETS.items()}, **headers}


def test_a_span_without_credentials_is_the_very_same():
    """Nothing is copied where there is nothing to mask."""
    for span in (full_span(), ended_span(**HARMLESS)):
        assert span_without_credentials(span, masks_credentials=True) is span


def test_a_name_and_status_that_were_set_late_are_the_spans(scene):
    """A name, a status and its message set in flight replace those of the ended span."""
    ref = scene.ended()
    om.update_span(ref, name="renamed", status="error", status_message="too slow")
    scene.wait_and_step()
    span = scene.span(ref)
    assert (span.name, span.status.status_code, span.status.description) == ("renamed", StatusCode.ERROR, "too slow")


def test_a_status_code_of_400_is_an_error(scene):
    """An integer status leaves as OpenTelemetry's error or ok."""
    bad, good = scene.ended(), scene.ended()
    om.update_span(bad, status=404)
    om.update_span(good, status=200)
    scene.wait_and_step()
    assert scene.span(bad).status.status_code is StatusCode.ERROR
    assert scene.span(good).status.status_code is StatusCode.OK


def test_a_live_status_that_opentelemetry_overruled_does_not_leave(scene):
    """OK is final while the span is live: an error that was set on it later by an update is dropped."""
    with scene.tracer.start_as_current_span("span") as span:
        om.update_current_span(status="ok")
        om.update_current_span(status="error", status_message="too late")
    assert scene.stats.is_balanced
    scene.wait_and_step()
    (leaving,) = scene.spans.spans
    assert span.status.status_code is StatusCode.OK
    assert leaving.status.status_code is StatusCode.OK
    assert settled_fields(span, {}) == {}


def test_a_late_status_overrules_the_live_one(scene):
    """An update that comes after the end may overrule a status that was final while the span was live."""
    with scene.tracer.start_as_current_span("span") as span:
        om.update_current_span(status="ok")
    om.update_span(span, status="error")
    scene.processor.force_flush()
    assert scene.spans.spans[0].status.status_code is StatusCode.ERROR


# --- counts ----------------------------------------------------------------------------------------------------------


def counts(**changed):
    """Return counts of which only the changed ones are not zero."""
    names = [name for name in DestinationStats.__dataclass_fields__ if name != "lost"]
    return DestinationStats(**{**dict.fromkeys(names, 0), "lost": {}, **changed})


def test_the_balance_is_what_it_says():
    """accepted equals delivered, waiting and lost together, or the counts do not balance."""
    good = counts(accepted=10, delivered=1, live=2, in_flight=3, late=3, lost={"expired": 1})
    bad = counts(accepted=10, delivered=9)
    assert (good.waiting, good.is_balanced, bad.is_balanced) == (8, True, False)
    assert PipelineStats({"good": good}).is_balanced
    assert not PipelineStats({"good": good, "bad": bad}).is_balanced
