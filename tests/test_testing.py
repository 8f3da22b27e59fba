"""What applications get for their own tests: the clock, the exporters, the pipeline in memory, the fixtures."""

from __future__ import annotations

import threading

import pytest
from opentelemetry.sdk.trace.export import SpanExportResult

import otel_metadata as om
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.live import live_settings
from otel_metadata.model.outcome import DeliveryError, Retry
from otel_metadata.model.patch import Patch
from otel_metadata.seams import Clock, PatchExporter
from otel_metadata.testing import InMemoryPipeline, ManualClock, RecordingSpanExporter

pytest_plugins = ["pytester"]


# --- the clock -------------------------------------------------------------------------------------------------------


def test_a_manual_clock_stands_still():
    """Both times change only when the test moves them, and together."""
    clock: Clock = ManualClock(wall_ns=5)
    assert (clock.wall_ns(), clock.monotonic_ns()) == (5, 0)
    clock.advance(1.5)
    assert (clock.wall_ns(), clock.monotonic_ns()) == (1_500_005, 1_500_000)


def test_waiting_on_a_manual_clock_ends_when_the_time_was_moved():
    """A thread that waits goes on, without the event, when the test has moved the time far enough."""
    clock, event, results = ManualClock(), threading.Event(), []
    thread = threading.Thread(target=lambda: results.append(clock.wait(event, 2_000_000_000)))
    thread.start()
    clock.advance(1_999)
    assert thread.is_alive()
    while thread.is_alive():
        clock.advance(1)
    assert results == [False]


@pytest.mark.parametrize("timeout_ns", [None, 10**18])
def test_waiting_on_a_manual_clock_ends_when_the_event_is_set(timeout_ns):
    """A thread that waits goes on when the event is set, although time stands still."""
    clock, event, results = ManualClock(), threading.Event(), []
    thread = threading.Thread(target=lambda: results.append(clock.wait(event, timeout_ns)))
    thread.start()
    event.set()
    thread.join()
    assert results == [True]


# --- the exporters ---------------------------------------------------------------------------------------------------


def test_the_fake_patch_exporter_is_a_patch_exporter():
    """The fake satisfies the seam."""
    assert isinstance(InMemoryPatchExporter(), PatchExporter)


def test_the_fake_patch_exporter_keeps_what_it_delivered():
    """It keeps every call, and apart from that the patches that it answered with delivered."""
    down = Retry(DeliveryError("connection_failure", "down"))
    exporter = InMemoryPatchExporter()
    patches = [Patch(om.SpanRef(1, n), {("span", "metadata", "n"): (n, (n, 1))}) for n in (1, 2)]
    exporter.export(patches[:1], timeout_millis=1)
    exporter.answer = lambda patch: down
    assert exporter.export(patches[1:], timeout_millis=1) == [down]
    assert exporter.patches == patches[:1]
    assert exporter.calls == [(patches[0],), (patches[1],)]
    exporter.shutdown()
    assert (exporter.force_flush(), exporter.is_shut_down) == (True, True)


def test_the_fake_span_exporter_keeps_what_it_acknowledged():
    """Spans of a batch that was refused are not among those that were exported."""
    exporter = RecordingSpanExporter()
    exporter.export(["first"])
    exporter.answer = lambda: SpanExportResult.FAILURE
    assert exporter.export(["second"]) is SpanExportResult.FAILURE
    assert exporter.spans == ["first"]
    exporter.shutdown()
    assert exporter.is_shut_down


# --- the pipeline ----------------------------------------------------------------------------------------------------


@om.observe
def answer(question):
    om.update_current_span(metadata={"step": 1})
    return question.upper()


def test_the_pipeline_shows_the_merged_view_of_a_span(metadata_pipeline):
    """A record holds what was set live, in flight and late, as a store would show it."""
    with om.start_span("outer") as span:
        assert answer("hi") == "HI"
    assert span.update(metadata={"when": "in flight", "kept": None}).route == "in_flight"
    assert metadata_pipeline.deliver()
    assert span.update(metadata={"when": "late"}).route == "late"
    assert metadata_pipeline.deliver()
    assert metadata_pipeline.record("outer").metadata == {"when": "late", "kept": None}
    inner = metadata_pipeline.record("answer")
    assert (inner.metadata, inner.input, inner.output) == ({"step": 1}, {"question": "hi"}, "HI")
    assert inner.parent_id == span.ref.span_id_hex
    assert metadata_pipeline.stats().is_balanced


def test_a_record_that_is_not_there_is_named(metadata_pipeline):
    """Asking for a span that was not stored, or that several have the name of, says which there are."""
    answer("a")
    answer("b")
    metadata_pipeline.deliver()
    with pytest.raises(LookupError, match=r"0 spans are named 'other'; expected one among \['answer', 'answer'\]"):
        metadata_pipeline.record("other")
    with pytest.raises(LookupError, match="2 spans are named 'answer'"):
        metadata_pipeline.record("answer")


def test_the_pipeline_leaves_nothing_behind():
    """After close the settings are those of before, and updates are refused."""
    before = live_settings.in_force
    pipeline = InMemoryPipeline()
    assert live_settings.in_force is not before
    pipeline.close()
    assert live_settings.in_force is before
    assert om.update_span(om.SpanRef(1, 1), metadata={"a": 1}).reason == "after_shutdown"


def test_the_pipeline_takes_more_destinations():
    """A destination of the test's own gets what the store gets."""
    spans, patches = RecordingSpanExporter(), InMemoryPatchExporter()
    pipeline = InMemoryPipeline(om.Destination("own", spans, patches), outbox=OutboxSettings(max_queue_size=10))
    answer("hi")
    pipeline.deliver()
    assert [span.name for span in spans.spans] == ["answer"]
    pipeline.close()
    assert patches.is_shut_down


def test_the_manual_clock_is_a_fixture(manual_clock):
    """The fixture is a clock that stands still."""
    assert manual_clock.monotonic_ns() == 0


def test_the_fixtures_are_there_without_any_import(pytester):
    """A project that has the package installed can use the fixtures as they are."""
    pytester.makepyfile(
        """
        import otel_metadata as om

        def test_the_verdict_reaches_the_span(metadata_pipeline, manual_clock):
            with om.start_span("answer") as span:
                pass
            span.update(metadata={"thumbs": "up"})
            metadata_pipeline.deliver()
            assert metadata_pipeline.record("answer").metadata == {"thumbs": "up"}
        """
    )
    pytester.runpytest_subprocess("-p", "no:randomly").assert_outcomes(passed=1)
