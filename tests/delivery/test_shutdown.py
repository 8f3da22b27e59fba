"""shutdown: nothing more is taken, what waits is sent under one deadline, the rest is counted, exporters are closed."""

from __future__ import annotations

import threading

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult

import otel_metadata as om
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.model.outcome import Delivered, DeliveryError, Retry
from otel_metadata.testing import RecordingSpanExporter

DOWN = DeliveryError("connection_failure", "down")


def test_shutdown_sends_what_waits(scene):
    """Spans and patches that wait are sent by shutdown, before their schedule."""
    ref = scene.ended(a=1)
    om.update_span(scene.unseen(), metadata={"b": 2})
    scene.processor.shutdown()
    assert (scene.on_span(ref), scene.sent()) == ({"a": 1}, [{"b": 2}])
    assert (scene.stats.delivered, scene.stats.waiting, scene.lost) == (2, 0, {})


def test_shutdown_sends_spans_before_patches(scene):
    """Shutdown exports the spans that wait first, so that a patch finds its span."""
    order = []
    scene.spans.answer = lambda: order.append("spans") or SpanExportResult.SUCCESS
    scene.patches.answer = lambda patch: order.append("patch") or Delivered()
    om.update_span(scene.unseen(), metadata={"b": 2})
    scene.ended()
    scene.processor.shutdown()
    assert order == ["spans", "patch"]


def test_what_cannot_be_sent_in_time_is_counted(scene):
    """What a shutdown could not send is lost as shutdown_deadline."""
    om.update_span(scene.unseen(), metadata={"a": 1})
    om.update_span(scene.unseen(), metadata={"b": 1})
    scene.patches.answer = lambda patch: Retry(DOWN)
    scene.processor.shutdown()
    assert (scene.stats.late, scene.lost) == (0, {"shutdown_deadline": 2})


def test_shutdown_closes_both_exporters(scene):
    """After the last export the span exporter and the patch exporter are shut down."""
    scene.processor.shutdown()
    assert (scene.spans.is_shut_down, scene.patches.is_shut_down) == (True, True)


def test_an_exporter_that_fails_to_close_leaves_the_others_alone(make_scene):
    """Every exporter is closed although one of them raises."""
    more_spans, more_patches = RecordingSpanExporter(), InMemoryPatchExporter()
    scene = make_scene(om.Destination("more", more_spans, more_patches))
    scene.patches.shutdown = lambda timeout_millis: 1 / 0
    scene.spans.shutdown = lambda: 1 / 0
    scene.processor.shutdown()
    assert (more_spans.is_shut_down, more_patches.is_shut_down) == (True, True)


def test_a_second_shutdown_does_nothing(scene):
    """Exporters are closed once, however often shutdown is called."""
    calls = []
    scene.patches.shutdown = lambda timeout_millis: calls.append(timeout_millis)
    scene.processor.shutdown()
    scene.processor.shutdown()
    assert len(calls) == 1


def test_a_flush_after_shutdown_is_harmless(scene):
    """There is nothing left to flush after a shutdown."""
    scene.processor.shutdown()
    assert scene.processor.force_flush()


def test_an_update_after_shutdown_is_refused(scene):
    """After shutdown an update is false, says after_shutdown, and changes no count of a destination."""
    ref = scene.exported()
    before = scene.stats
    scene.processor.shutdown()
    receipt = om.update_span(ref, metadata={"a": 1})
    assert (bool(receipt), receipt.route, receipt.reason) == (False, "dropped", "after_shutdown")
    assert scene.stats == before


def test_an_update_that_was_on_its_way_into_a_closed_outbox_is_refused(scene):
    """An update that reaches an outbox after it was closed is refused: neither accepted nor lost."""
    scene.outbox.close()
    receipt = om.update_span(scene.unseen(), metadata={"a": 1})
    assert (bool(receipt), receipt.reason) == (False, "after_shutdown")
    assert (scene.stats.accepted, scene.lost) == (0, {})


def test_shutdown_does_not_wait_for_spans_of_other_processes(make_scene):
    """An update of an unseen span is sent at once by shutdown, whatever the remote grace."""
    scene = make_scene(remote_grace_millis=3_600_000)
    om.update_span(scene.unseen(), metadata={"a": 1})
    scene.processor.shutdown()
    assert (scene.sent(), scene.lost) == ([{"a": 1}], {})


def test_shutdown_does_not_wait_for_another_process_behind_a_patch_either(make_scene):
    """The remote grace does not hold back a patch that waits behind one that is being sent as the shutdown begins."""
    scene = make_scene(remote_grace_millis=3_600_000)
    om.update_span(scene.unseen(), metadata={"a": 1})
    scene.clock.advance(3_600_000)
    batch = scene.outbox.claim_patches()
    om.update_span(scene.unseen(), metadata={"b": 2})
    scene.worker.begin_stop(scene.clock.monotonic_ns() + 5 * 10**9)
    scene.outbox.patches_answered(batch, [Delivered()])
    assert scene.step_all() == 1
    assert scene.sent() == [{"b": 2}]


def test_shutdown_does_not_cut_what_a_backend_asked_for(scene):
    """A Retry-After holds at shutdown as well."""
    om.update_span(scene.unseen(), metadata={"a": 1})
    scene.patches.answer = lambda patch: Retry(DOWN, after_millis=60_000)
    scene.wait_and_step()
    scene.processor.shutdown()
    assert (len(scene.patches.calls), scene.lost) == (1, {"shutdown_deadline": 1})


def test_shutdown_waits_for_the_grace_after_a_spans_own_export(make_scene):
    """The grace that the backend needs after a span's export is not dropped at shutdown."""
    scene = make_scene(patches=InMemoryPatchExporter(grace_millis=3_000), remote_grace_millis=1_000)
    ref = scene.exported()
    om.update_span(ref, metadata={"a": 1})
    scene.outbox.close()
    scene.outbox.request_flush(lambda: None, 1 << 62)
    assert scene.step_all() == 0
    assert scene.wait_and_step(3_000) == 1
    assert scene.sent() == [{"a": 1}]


@pytest.mark.parametrize("kind", ["patches", "spans"])
def test_an_exporter_that_hangs_as_it_closes_delays_no_other(kind):
    """Other destinations are closed, and shutdown returns, while one hangs in its exporter's shutdown."""
    release, closed = threading.Event(), threading.Event()
    hanging_spans, hanging_patches = RecordingSpanExporter(), InMemoryPatchExporter()
    if kind == "patches":
        hanging_patches.shutdown = lambda timeout_millis: release.wait()
    else:
        hanging_spans.shutdown = release.wait
    spans = RecordingSpanExporter()
    spans.shutdown = closed.set
    processor = om.MetadataSpanProcessor(
        om.Destination("hangs", hanging_spans, hanging_patches),
        om.Destination("other", spans, InMemoryPatchExporter()),
    )
    processor.shutdown(timeout_millis=1)
    assert closed.wait(30)
    assert not release.is_set()
    release.set()
    processor.workers[0]._thread.join()
    assert hanging_patches.is_shut_down or hanging_spans.is_shut_down


def test_exporters_are_closed_on_the_thread_that_called_them():
    """The worker's thread closes its destination's exporters, the patch exporter first, as its last step."""
    calls = []
    spans, patches = RecordingSpanExporter(), InMemoryPatchExporter()
    patches.shutdown = lambda timeout_millis: calls.append(("patches", threading.current_thread()))
    spans.shutdown = lambda: calls.append(("spans", threading.current_thread()))
    processor = om.MetadataSpanProcessor(om.Destination("memory", spans, patches))
    thread = processor.workers[0]._thread
    processor.shutdown()
    assert calls == [("patches", thread), ("spans", thread)]


def test_a_flush_that_waits_ends_when_shutdown_gives_up(scene):
    """A flush of another thread is told when what it waits for was given up."""
    done = []
    om.update_span(scene.unseen(), metadata={"a": 1})
    scene.outbox.request_flush(lambda: done.append(True), 1 << 62)
    scene.outbox.give_up("shutdown_deadline")
    assert done == [True]


def test_a_span_that_is_open_at_shutdown_loses_its_updates(scene):
    """The live updates of a span that has not ended at shutdown are lost as target_not_exported, and counted once."""
    with scene.tracer.start_as_current_span("span"):
        om.update_current_span(metadata={"a": 1})
        scene.processor.shutdown()
    assert (scene.stats.accepted, scene.stats.waiting, scene.lost) == (1, 0, {"target_not_exported": 1})


def test_a_span_that_starts_after_shutdown_is_left_alone(scene):
    """Spans that start after shutdown are not entered anywhere and not exported."""
    scene.processor.shutdown()
    with scene.tracer.start_as_current_span("span"):
        pass
    assert (scene.stats.spans_queued, scene.spans.spans) == (0, [])


class Hanging:
    """A processor with a thread whose exporter hangs until it is released."""

    def __init__(self, *, hang_patches=False):
        self.entered, self.release = threading.Event(), threading.Event()
        self.spans, self.patches = RecordingSpanExporter(), InMemoryPatchExporter()
        if hang_patches:
            self.patches.answer = lambda patch: self._hang() or Delivered()
        else:
            self.spans.answer = lambda: self._hang() or SpanExportResult.SUCCESS
        self.processor = om.MetadataSpanProcessor(
            om.Destination("memory", self.spans, self.patches), settings=OutboxSettings(schedule_delay_millis=1)
        )
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(self.processor)

    def _hang(self):
        self.entered.set()
        self.release.wait()

    def span(self):
        with self.provider.get_tracer("application").start_as_current_span("span") as span:
            om.update_current_span(metadata={"a": 1})
        return span

    @property
    def stats(self):
        return self.processor.stats().destinations["memory"]

    def let_go(self):
        """Release the exporter and wait until its worker has come back."""
        self.release.set()
        self.processor.workers[0]._thread.join()


@pytest.mark.parametrize("hang_patches", [False, True], ids=["spans", "patches"])
def test_a_late_answer_after_shutdown_gave_up_changes_no_count(hang_patches):
    """When a hanging export answers after the shutdown's deadline, its updates stay counted as shutdown_deadline."""
    scene = Hanging(hang_patches=hang_patches)
    span = scene.span()
    if hang_patches:
        assert scene.processor.force_flush()
        om.update_span(span, metadata={"b": 2})
    assert scene.entered.wait(30)
    scene.processor.shutdown(timeout_millis=1)
    after = scene.stats
    assert (after.waiting, after.lost) == (0, {"shutdown_deadline": 1})
    scene.let_go()
    assert scene.stats == after


def test_a_hanging_exporter_is_not_given_more_after_shutdown():
    """A worker that comes back after the shutdown gave up sends nothing more."""
    scene = Hanging()
    scene.span()
    assert scene.entered.wait(30)
    scene.span()
    scene.processor.shutdown(timeout_millis=1)
    scene.let_go()
    assert len(scene.spans.spans) == 1


def test_shutdown_from_the_workers_own_thread_does_not_wait_for_itself():
    """An exporter that calls shutdown does not deadlock; what it holds is counted."""
    spans = RecordingSpanExporter()
    processor = om.MetadataSpanProcessor(
        om.Destination("memory", spans, InMemoryPatchExporter()), settings=OutboxSettings(schedule_delay_millis=1)
    )
    done = threading.Event()
    spans.answer = lambda: processor.shutdown() or done.set() or SpanExportResult.SUCCESS
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    with provider.get_tracer("application").start_as_current_span("span"):
        om.update_current_span(metadata={"a": 1})
    assert done.wait(30)
    assert processor.stats().destinations["memory"].lost == {"shutdown_deadline": 1}


def test_the_providers_shutdown_is_ours():
    """Shutting down the tracer provider sends what waits."""
    spans = RecordingSpanExporter()
    processor = om.MetadataSpanProcessor(om.Destination("memory", spans, InMemoryPatchExporter()))
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    with provider.get_tracer("application").start_as_current_span("span"):
        pass
    provider.shutdown()
    assert (len(spans.spans), spans.is_shut_down) == (1, True)


def test_a_destination_that_cannot_be_reached_is_told_once_and_what_is_lost_is_counted_whole(make_scene, caplog):
    """Spans that had one more try while the outbox closed are in the last line as well, with their reason."""
    scene = make_scene(patches=InMemoryPatchExporter(lambda patch: Retry(DeliveryError("connection_failure", "down"))))
    scene.spans.answer = lambda: SpanExportResult.FAILURE
    ref = scene.ended(step=1)
    om.update_span(ref, metadata={"thumbs": "up"})
    scene.processor.force_flush(1_000)
    scene.processor.shutdown(1_000)
    stats = scene.processor.stats().destinations["memory"]
    told = [record.getMessage() for record in caplog.records]
    assert any("spans wait, and are tried again (connection_failure" in line for line in told)
    (last,) = [line for line in told if "are lost" in line]
    assert f"1 spans and {sum(stats.lost.values())} updates are lost" in last
    assert all(reason in last for reason in stats.lost)
