"""The object that OpenTelemetry calls: what it takes, what it refuses, and that it never harms the application."""

from __future__ import annotations

import os

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Decision, Sampler, SamplingResult
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

import otel_metadata as om
from otel_metadata.errors import ConfigurationError
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.live.registry import REGISTRY
from otel_metadata.reporting import REPORTER
from otel_metadata.testing import ManualClock, RecordingSpanExporter


class Application:
    """A provider with our processor on one destination in memory; nothing runs by itself."""

    def __init__(self, sampler=None, provider=None, name="memory"):
        self.spans, self.patches = RecordingSpanExporter(), InMemoryPatchExporter()
        self.processor = om.MetadataSpanProcessor(
            om.Destination(name, self.spans, self.patches), clock=ManualClock(), start_workers=False
        )
        self.local_roots = set()
        (outbox,) = self.processor.outboxes
        self._arrive, outbox.arrive = outbox.arrive, self._note_and_arrive
        self.provider = provider or TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(self.processor)
        self.tracer = self.provider.get_tracer("application")

    def _note_and_arrive(self, entry):
        if entry.is_local_root:
            self.local_roots.add(entry.ended.name)
        self._arrive(entry)

    @property
    def stats(self):
        return self.processor.stats()


@pytest.fixture
def application():
    return Application()


# --- what it is made of ----------------------------------------------------------------------------------------------


def test_it_needs_a_destination():
    """A processor without a destination is refused, and the message says what was expected."""
    with pytest.raises(ConfigurationError, match="at least one destination"):
        om.MetadataSpanProcessor()


def test_two_destinations_of_one_name_are_refused():
    """Destinations are told apart by name, so two of one name are refused."""
    pair = [om.Destination("same", RecordingSpanExporter(), InMemoryPatchExporter()) for _ in range(2)]
    with pytest.raises(ConfigurationError, match=r"\['same', 'same'\].*names that differ"):
        om.MetadataSpanProcessor(*pair)


def test_its_bounds_are_those_of_opentelemetrys_variables(monkeypatch):
    """Without settings of its own it honours OTEL_BSP_*."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "7")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "9")
    settings = Application().processor.outboxes[0].settings
    assert (settings.max_queue_size, settings.max_export_batch_size, settings.schedule_delay_millis) == (7, 7, 9)


def test_its_repr_is_a_status_line(application):
    """People read in the repr how much waits, for each destination."""
    with application.tracer.start_as_current_span("span"):
        pass
    assert application.stats.is_balanced
    om.update_span(om.SpanRef(1, 1), metadata={"a": 1})
    assert repr(application.processor) == (
        "<MetadataSpanProcessor <Outbox memory queued=1 exporting=0 patches=1 spilled=0>>"
    )


# --- spans -----------------------------------------------------------------------------------------------------------


def test_a_span_leaves_as_the_application_made_it(application):
    """A span that nobody updated is exported as it ended."""
    with application.tracer.start_as_current_span("span", attributes={"own": 1}) as span:
        span.add_event("event")
    application.processor.force_flush()
    assert [exported.to_json() for exported in application.spans.spans] == [span.to_json()]


def test_an_update_by_an_earlier_processor_at_the_end_leaves_with_the_span():
    """A processor before ours that updates the span in its on_end reaches it live: no outbox has it yet."""

    class Late(SpanProcessor):
        def on_end(self, span):
            receipts.append(om.update_span(span.context, metadata={"from": "on_end"}))

    receipts = []
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Late())
    application = Application(provider=provider)
    with application.tracer.start_as_current_span("span"):
        pass
    application.processor.force_flush()
    assert [receipt.route for receipt in receipts] == ["live"]
    assert application.spans.spans[0].attributes["metadata.from"] == "on_end"


def test_an_update_by_an_earlier_processor_at_the_end_is_a_patch_where_spans_leave_by_other_means():
    """With spans=False, what comes between the end of a span and our on_end leaves as a patch."""

    class Late(SpanProcessor):
        def on_end(self, span):
            om.update_span(span.context, metadata={"from": "on_end"})

    patches = InMemoryPatchExporter()
    processor = om.MetadataSpanProcessor(
        om.Destination("memory", None, patches, spans=False), clock=ManualClock(), start_workers=False
    )
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Late())
    provider.add_span_processor(processor)
    with provider.get_tracer("application").start_as_current_span("span"):
        om.update_current_span(metadata={"live": 1})
    processor.force_flush()
    assert [patch.metadata() for patch in patches.patches] == [{"from": "on_end"}]
    assert processor.stats().destinations["memory"].delivered == 2


def test_a_span_that_started_before_the_processor_was_added_is_exported():
    """A span that was open when our processor was added is exported, with the attributes that it has."""
    provider = TracerProvider(shutdown_on_exit=False)
    span = provider.get_tracer("application").start_span("early")
    application = Application(provider=provider)
    receipt = om.update_span(span, metadata={"a": 1})
    span.end()
    application.processor.force_flush()
    assert receipt.route == "live"
    assert application.spans.spans[0].attributes["metadata.a"] == 1


def test_two_processors_on_one_provider_both_get_every_update():
    """Of two processors of ours on one provider each delivers the span with what was set on it, once."""
    provider = TracerProvider(shutdown_on_exit=False)
    first, second = Application(provider=provider), Application(provider=provider)
    with first.tracer.start_as_current_span("span") as span:
        om.update_current_span(metadata={"a": 1})
    om.update_span(span, metadata={"b": 2})
    for application in (first, second):
        application.processor.force_flush()
        (exported,) = application.spans.spans
        assert (exported.attributes["metadata.a"], exported.attributes["metadata.b"]) == (1, 2)


def test_two_providers_keep_their_spans_apart():
    """An update goes to the destinations of the provider that its span is on, and to no other."""
    first, second = Application(), Application()
    with first.tracer.start_as_current_span("span") as span:
        om.update_current_span(metadata={"a": 1})
    om.update_span(span, metadata={"b": 2})
    first.processor.force_flush()
    assert first.stats.destinations["memory"].delivered == 2
    assert second.stats.destinations["memory"].accepted == 0


def test_a_span_of_a_provider_without_our_processor_is_set_directly(application):
    """An update of a recording span that we do not export is set on it, and the receipt says so."""
    with TracerProvider(shutdown_on_exit=False).get_tracer("other").start_as_current_span("span") as span:
        receipt = om.update_current_span(metadata={"a": 1})
    assert (receipt.route, span.attributes["metadata.a"]) == ("live", 1)
    assert "MetadataSpanProcessor" in receipt.routes["span"].reason
    assert application.stats.destinations["memory"].accepted == 0


# --- what is refused -------------------------------------------------------------------------------------------------


class RecordOnly(Sampler):
    """Records every span, and samples none."""

    def should_sample(self, parent_context, trace_id, name, kind=None, attributes=None, links=None, trace_state=None):
        return SamplingResult(Decision.RECORD_ONLY)

    def get_description(self):
        return "RecordOnly"


@pytest.mark.parametrize("sampler", [ALWAYS_OFF, RecordOnly()], ids=["dropped", "recorded only"])
def test_an_unsampled_span_is_refused(sampler):
    """An update of a span that no backend will ever have is false and says unsampled."""
    application = Application(sampler=sampler)
    with application.tracer.start_as_current_span("span") as span:
        receipts = [om.update_current_span(metadata={"a": 1})]
    receipts.append(om.update_span(span, metadata={"a": 1}))
    receipts.append(om.update_span(om.SpanRef.from_span_context(span.get_span_context()), metadata={"a": 1}))
    application.processor.force_flush()
    assert [(bool(receipt), receipt.reason) for receipt in receipts] == [(False, "unsampled")] * 3
    assert application.spans.spans == []
    assert application.stats.refused == {"unsampled": 3}
    assert application.stats.destinations["memory"].accepted == 0


@pytest.mark.parametrize(
    "target",
    [None, 3, "", "not a traceparent", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", object(), trace.INVALID_SPAN, {}],
    ids=["none", "number", "empty", "text", "zeros", "object", "invalid-span", "mapping"],
)
def test_a_target_that_names_no_span_is_refused(application, target):
    """An update of something that is no name of a span is false and says invalid_target."""
    receipt = om.update_span(target, metadata={"a": 1})
    assert (bool(receipt), receipt.reason) == (False, "invalid_target")
    assert application.stats.refused == {"invalid_target": 1}


def test_no_current_span_is_refused(application):
    """An update of the current span where there is none is false and says no_current_span."""
    receipts = [
        om.update_current_span(metadata={"a": 1}),
        om.update_current_trace(metadata={"a": 1}),
        om.score_current_span("Correctness", score=1),
        om.annotate_current_span("quality", label="good"),
    ]
    assert [(bool(receipt), receipt.reason) for receipt in receipts] == [(False, "no_current_span")] * 4
    assert application.stats.refused == {"no_current_span": 4}


def test_without_any_processor_an_update_is_refused():
    """Before anything is configured an update is false and says not_configured."""
    remote = NonRecordingSpan(SpanContext(1, 1, is_remote=True, trace_flags=TraceFlags(1)))
    assert om.update_span(om.SpanRef(1, 1), metadata={"a": 1}).reason == "not_configured"
    assert om.update_span(remote, metadata={"a": 1}).reason == "not_configured"


def test_a_refusal_is_told_once_a_minute(application, caplog):
    """However often a refusal comes, it is one log line, and every one of them is counted."""
    for _ in range(10):
        om.update_current_span(metadata={"a": 1})
    messages = [record.getMessage() for record in caplog.records if record.name == "otel_metadata"]
    assert len(messages) == 1
    assert "there is no current span" in messages[0]
    assert application.stats.refused == {"no_current_span": 10}


def test_an_update_that_sets_nothing_is_refused_without_a_word(application, caplog):
    """An update without any argument is false, says empty, and is neither counted nor logged."""
    with application.tracer.start_as_current_span("span"):
        receipt = om.update_current_span()
    assert (bool(receipt), receipt.reason) == (False, "empty")
    assert (application.stats.refused, caplog.records) == ({}, [])


def test_a_remote_parent_as_the_current_span_is_updated_late(application):
    """When the current span is one of another process, an update of it is a patch."""
    remote = NonRecordingSpan(SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1)))
    token = otel_context.attach(trace.set_span_in_context(remote))
    try:
        assert om.update_current_span(metadata={"a": 1}).route == "late"
    finally:
        otel_context.detach(token)
    application.processor.force_flush()
    assert [patch.target.key for patch in application.patches.patches] == [(1, 2)]


# --- the trace level -------------------------------------------------------------------------------------------------


def test_a_trace_is_updated_on_its_local_root(application):
    """An update of the trace from an inner span is on the local root, while it lives and in flight."""
    start = application.tracer.start_as_current_span
    with start("root"), start("inner") as inner:
        assert om.update_current_trace(metadata={"a": 1}).route == "live"
    assert om.update_trace(inner, metadata={"b": 2}).route == "in_flight"
    application.processor.force_flush()
    by_name = {span.name: dict(span.attributes) for span in application.spans.spans}
    assert '"b"' in by_name["root"].pop("otel_metadata.versions")  # it was set after the end
    assert by_name["root"].pop("otel_metadata.author").endswith(f" (pid {os.getpid()})")
    assert by_name == {"root": {"trace.metadata.a": 1, "trace.metadata.b": 2}, "inner": {}}


class TestLocalRoots:
    """A span whose parent nobody of ours has seen is a local root, and updates of the trace reach it."""

    @pytest.fixture
    def infrastructure(self):
        """The tracer of a provider without a processor of ours."""
        return TracerProvider(shutdown_on_exit=False).get_tracer("infrastructure")

    def test_a_parent_of_another_provider(self, application, infrastructure):
        """Live, in flight and late."""
        with infrastructure.start_as_current_span("GET /chat"):
            with application.tracer.start_as_current_span("answer"):
                ref = om.current_span_ref()
                with application.tracer.start_as_current_span("inner"):
                    assert om.update_current_trace(metadata={"live": 1}).route == "live"
            assert om.update_trace(ref, metadata={"in_flight": 1}).route == "in_flight"
        application.processor.force_flush()
        assert application.local_roots == {"answer"}
        assert om.update_trace(om.SpanRef(ref.trace_id, 0), metadata={"late": 1}).route == "late"
        application.processor.force_flush()

        (answer,) = [span for span in application.spans.spans if span.name == "answer"]
        assert answer.attributes["trace.metadata.live"] == answer.attributes["trace.metadata.in_flight"] == 1
        assert [patch.target.key for patch in application.patches.patches] == [ref.key]

    def test_each_of_several_under_one_parent(self, application, infrastructure):
        """The second is not taken for a child of the first, which has ended: its trace is updated while it lives."""
        with infrastructure.start_as_current_span("GET /chat"):
            with application.tracer.start_as_current_span("first"):
                pass
            with application.tracer.start_as_current_span("second"):
                assert om.update_current_trace(metadata={"a": 1}).route == "live"

        assert application.local_roots == {"first", "second"}

    @pytest.mark.parametrize("flags", [TraceFlags(0), TraceFlags(1)])
    def test_a_parent_that_does_not_record(self, application, flags):
        """A span context of this process that somebody made current, sampled or not."""
        parent = NonRecordingSpan(SpanContext(0xA, 2, is_remote=False, trace_flags=flags))
        sampled = Application(sampler=ALWAYS_ON)
        with trace.use_span(parent), sampled.tracer.start_as_current_span("answer"):
            ref = om.current_span_ref()
        assert om.update_trace(ref, metadata={"a": 1}).route == "in_flight"

        assert sampled.local_roots == {"answer"}

    def test_a_parent_that_has_ended_was_seen(self, application):
        """A child that starts after the end of its parent belongs to the root that is known."""
        with application.tracer.start_as_current_span("root") as root:
            pass
        with trace.use_span(root), application.tracer.start_as_current_span("child"):
            ref = om.current_span_ref()
        assert application.local_roots == {"root"}
        application.processor.force_flush()
        om.update_trace(ref, metadata={"a": 1})
        application.processor.force_flush()

        assert [patch.target.key for patch in application.patches.patches] == [root.get_span_context()[:2]]

    def test_a_parent_older_than_the_processor(self):
        """A span that started before `configure` is the root once it has ended; until then its child is one."""
        provider = TracerProvider(shutdown_on_exit=False)
        tracer = provider.get_tracer("application")
        with tracer.start_as_current_span("outer"):
            with tracer.start_as_current_span("older"):
                application = Application(provider=provider)
                with tracer.start_as_current_span("younger"):
                    assert om.update_current_trace(metadata={"a": 1}).route == "live"
            ref = om.current_span_ref()
        assert om.update_trace(ref, metadata={"b": 1}).route == "in_flight"

        assert application.local_roots == {"younger", "outer"}
        application.processor.force_flush()
        assert application.spans.spans[-1].attributes["trace.metadata.b"] == 1

    def test_two_pipelines_that_share_no_destination(self, application):
        """The inner one's destinations get nothing of the outer one's root, so it has a root of its own."""
        other = Application(name="other")
        with application.tracer.start_as_current_span("outer"):
            with other.tracer.start_as_current_span("inner"):
                assert om.update_current_trace(metadata={"inner": 1}).routes.keys() == {"other"}
            assert om.update_current_trace(metadata={"outer": 1}).routes.keys() == {"memory"}

        assert (application.local_roots, other.local_roots) == ({"outer"}, {"inner"})

    def test_a_parent_whose_span_cannot_be_asked(self, application):
        """A span of somebody's that raises counts as one that does not record."""

        class Raising(NonRecordingSpan):
            def is_recording(self):
                raise ValueError("no")

        with trace.use_span(Raising(SpanContext(0xB, 2, is_remote=False, trace_flags=TraceFlags(1)))):
            application.tracer.start_span("answer").end()

        assert application.local_roots == {"answer"}


# --- doing no harm ---------------------------------------------------------------------------------------------------


def test_a_failure_of_ours_does_not_reach_the_application(application, monkeypatch):
    """A failure inside on_start or on_end is counted and logged; the application's code goes on."""
    monkeypatch.setattr(REPORTER, "reraise", False)
    monkeypatch.setattr(REGISTRY, "begin", lambda *args: 1 / 0)
    monkeypatch.setattr(application.processor.outboxes[0], "arrive", lambda entry: 1 / 0)
    with application.tracer.start_as_current_span("span"):
        pass
    assert application.stats.internal_errors == 2


def test_an_update_that_fails_inside_does_not_reach_the_application(application, monkeypatch):
    """A failure of ours inside an update is counted; the receipt is false and says so."""
    monkeypatch.setattr(REPORTER, "reraise", False)
    monkeypatch.setattr(application.processor, "submit_plain", lambda *args: 1 / 0)
    receipt = om.update_span(om.SpanRef(1, 1), metadata={"a": 1})
    assert (bool(receipt), application.stats.internal_errors) == (False, 1)
    assert receipt.notes
