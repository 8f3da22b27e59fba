"""flush: everything that waits is tried once; True only when all of it arrived in time."""

from __future__ import annotations

import threading

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from tests.delivery.conftest import SaysNothing

import otel_metadata as om
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.model.outcome import Delivered, DeliveryError, Pause, Rejected, Retry
from otel_metadata.testing import ManualClock, RecordingSpanExporter

DOWN = DeliveryError("connection_failure", "down")


def test_flush_sends_spans_and_patches_before_their_schedule(scene):
    """One flush exports the span that waits and sends the patch that waits, whatever their schedule."""
    om.update_span(scene.unseen(), metadata={"a": 1})
    ref = scene.ended()
    assert scene.processor.force_flush()
    assert scene.span(ref) is not None
    assert scene.sent() == [{"a": 1}]


def test_flush_of_nothing_is_true(scene):
    """When nothing waits, everything has arrived."""
    assert scene.processor.force_flush()


def test_flush_ignores_holding(make_scene):
    """A held span leaves with a flush."""
    scene = make_scene(hold_millis=3_600_000)
    ref = scene.ended()
    assert scene.processor.force_flush()
    assert scene.span(ref) is not None


def test_flush_sends_the_remainder_of_a_span_too(make_scene):
    """What a span could not say follows within the same flush."""
    scene = make_scene(dialect=SaysNothing())
    scene.ended(a=1)
    assert scene.processor.force_flush()
    assert scene.sent() == [{"a": 1}]


def test_flush_is_false_when_there_was_no_room_for_what_follows_a_span(make_scene):
    """A flush is not clean when what a span could not say was lost, for there was no room for its patch."""
    scene = make_scene(dialect=SaysNothing(), max_patches=1)
    scene.ended(a=1)
    scene.ended(a=2)
    assert not scene.processor.force_flush()
    assert (scene.sent(), scene.lost) == ([{"a": 1}], {"buffer_full": 1})


def test_flush_sends_what_was_joined_to_a_span_that_failed(make_scene):
    """When the span's export fails for good in a flush, what was joined is tried as a patch in it; it is False."""
    scene = make_scene(span_retry_millis=0)
    ref = scene.ended()
    om.update_span(ref, metadata={"thumbs": "up"})
    scene.spans.answer = lambda: SpanExportResult.FAILURE
    assert not scene.processor.force_flush()
    assert scene.sent() == [{"thumbs": "up"}]


@pytest.mark.parametrize(
    "outcome",
    [Retry(DOWN), Pause(DOWN), Rejected(DOWN), Rejected(DeliveryError("segment_not_found", "no"))],
    ids=["retry", "pause", "rejected", "missing"],
)
def test_flush_is_false_when_a_patch_did_not_arrive(scene, outcome):
    """A flush whose patch was answered with anything but delivered is False, and tried it once."""
    om.update_span(scene.unseen(), metadata={"a": 1})
    scene.patches.answer = lambda patch: outcome
    assert not scene.processor.force_flush()
    assert len(scene.patches.calls) == 1


def test_flush_is_false_when_a_span_did_not_arrive(scene):
    """A flush whose span export failed is False."""
    scene.ended()
    scene.spans.answer = lambda: SpanExportResult.FAILURE
    assert not scene.processor.force_flush()


def test_flush_tries_all_although_one_failed(make_scene):
    """A failure early in a flush does not keep the rest from being tried."""
    scene = make_scene(patches=InMemoryPatchExporter(max_batch=1))
    for number in range(1, 5):
        om.update_span(scene.unseen(number), metadata={"n": number})
    scene.patches.answer = lambda patch: Retry(DOWN) if patch.target.span_id == 1 else Delivered()
    assert not scene.processor.force_flush()
    assert scene.sent() == [{"n": 2}, {"n": 3}, {"n": 4}]


def test_flush_does_not_wait_for_the_back_off(scene):
    """A patch that waits out its back-off is tried by the next flush at once."""
    om.update_span(scene.unseen(), metadata={"a": 1})
    answers = iter([Retry(DOWN), Delivered()])
    scene.patches.answer = lambda patch: next(answers)
    assert not scene.processor.force_flush()
    assert scene.processor.force_flush()
    assert scene.stats.delivered == 1


def test_flush_obeys_what_a_backend_asked_for(scene):
    """A Retry-After holds in a flush as well: the patch is not sent before, and the flush is False."""
    om.update_span(scene.unseen(), metadata={"a": 1})
    answers = iter([Retry(DOWN, after_millis=60_000), Delivered()])
    scene.patches.answer = lambda patch: next(answers)
    scene.processor.force_flush()
    assert not scene.processor.force_flush()
    assert len(scene.patches.calls) == 1


def test_flush_probes_a_paused_destination_for_what_is_new(scene):
    """A flush is a probe: a patch that came after the pause is sent at once."""
    answers = iter([Pause(DOWN), Delivered()])
    scene.patches.answer = lambda patch: next(answers)
    om.update_span(scene.unseen(1), metadata={"a": 1})
    scene.processor.force_flush()
    om.update_span(scene.unseen(2), metadata={"b": 2})
    scene.processor.force_flush()
    assert scene.sent() == [{"b": 2}]


def test_flush_waits_for_the_patch_behind_the_one_that_is_sent(scene):
    """A flush asked for while a patch is being sent is done when the patch that waits behind it was tried too."""
    done = []
    om.update_span(scene.unseen(), metadata={"n": 1})
    scene.clock.advance(5_000)
    batch = scene.outbox.claim_patches()
    om.update_span(scene.unseen(), metadata={"n": 2})
    ticket = scene.outbox.request_flush(lambda: done.append(True), 1 << 62)
    scene.outbox.patches_answered(batch, [Delivered()])
    assert done == []
    assert scene.worker.step()
    assert (done, ticket.is_clean) == ([True], True)


def test_flush_is_over_when_the_patch_in_front_takes_the_one_behind_along(scene):
    """When the patch that is being sent has to be tried again, what waits behind it joins it: the flush is over."""
    done = []
    om.update_span(scene.unseen(), metadata={"n": 1})
    scene.clock.advance(5_000)
    batch = scene.outbox.claim_patches()
    om.update_span(scene.unseen(), metadata={"n": 2})
    ticket = scene.outbox.request_flush(lambda: done.append(True), 1 << 62)
    scene.outbox.patches_answered(batch, [Retry(DOWN)])
    assert (done, ticket.is_clean) == ([True], False)


def test_flush_does_not_wait_for_what_comes_later(scene):
    """A flush waits for what waited when it was asked for, not for what comes meanwhile."""
    done = []
    om.update_span(scene.unseen(1), metadata={"n": 1})
    scene.outbox.request_flush(lambda: done.append(True), 1 << 62)
    batch = scene.outbox.claim_patches()
    om.update_span(scene.unseen(2), metadata={"n": 2})
    scene.outbox.patches_answered(batch, [Delivered()])
    assert done == [True]


def test_flush_waits_for_a_backends_grace():
    """A flush does not cut short the grace that the backend needs after a span's export."""
    clock, patches = ManualClock(), InMemoryPatchExporter(grace_millis=20_000)
    sent, exported = [], threading.Event()
    spans = RecordingSpanExporter(lambda: exported.set() or SpanExportResult.SUCCESS)
    processor = om.MetadataSpanProcessor(om.Destination("memory", spans, patches), clock=clock)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    with provider.get_tracer("application").start_as_current_span("span") as span:
        pass
    assert processor.force_flush()
    om.update_span(span, metadata={"a": 1})
    patches.answer = lambda patch: sent.append(clock.monotonic_ns()) or Delivered()
    results = []
    flusher = threading.Thread(target=lambda: results.append(processor.force_flush()))
    flusher.start()
    while flusher.is_alive():
        clock.advance(1_000)
        flusher.join(0.001)
    assert results == [True]
    assert sent[0] >= 20_000 * 1_000_000


def test_flush_ends_at_its_deadline():
    """A flush of a destination that hangs is False when its time is over."""
    clock, release, entered = ManualClock(), threading.Event(), threading.Event()
    spans = RecordingSpanExporter(lambda: entered.set() or (release.wait() and SpanExportResult.SUCCESS))
    processor = om.MetadataSpanProcessor(om.Destination("memory", spans, InMemoryPatchExporter()), clock=clock)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    with provider.get_tracer("application").start_as_current_span("span"):
        pass
    results = []
    flusher = threading.Thread(target=lambda: results.append(processor.force_flush(10_000)))
    flusher.start()
    assert entered.wait(30)
    while flusher.is_alive():
        clock.advance(1_000)
        flusher.join(0.001)
    release.set()
    assert results == [False]


def test_flush_from_the_workers_own_thread_is_false_at_once():
    """An exporter that calls flush gets False at once instead of waiting for itself."""
    answers = []
    spans = RecordingSpanExporter()
    processor = om.MetadataSpanProcessor(
        om.Destination("memory", spans, InMemoryPatchExporter()), settings=OutboxSettings(schedule_delay_millis=60_000)
    )
    spans.answer = lambda: answers.append(processor.force_flush()) or SpanExportResult.SUCCESS
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    with provider.get_tracer("application").start_as_current_span("span"):
        pass
    assert processor.force_flush()
    assert answers == [False]


def test_two_flushes_at_once_are_both_served():
    """Two threads that flush at the same time both learn that everything arrived."""
    spans = RecordingSpanExporter()
    processor = om.MetadataSpanProcessor(om.Destination("memory", spans, InMemoryPatchExporter()))
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    with provider.get_tracer("application").start_as_current_span("span"):
        pass
    results = []
    threads = [threading.Thread(target=lambda: results.append(processor.force_flush())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True, True]
    assert len(spans.spans) == 1


# --- what a flush does not wait for ----------------------------------------------------------------------------------


def ticket_of(scene, seconds=30):
    """Ask for a flush; return its ticket, and a list that is true once it is over."""
    done = []
    deadline_ns = scene.clock.monotonic_ns() + seconds * 10**9
    return scene.outbox.request_flush(lambda: done.append(True), deadline_ns), done


@pytest.mark.parametrize("outcome", [Pause(DOWN), Retry(DOWN, after_millis=60_000)], ids=["pause", "retry-after"])
def test_a_flush_after_a_pause_or_retry_after_is_over_at_once(scene, outcome):
    """A patch that may not be tried before the flush's deadline is not waited for: the flush is unclean at once."""
    om.update_span(scene.unseen(), metadata={"a": 1})
    scene.patches.answer = lambda patch: outcome
    scene.processor.force_flush()
    ticket, done = ticket_of(scene)
    assert (done, ticket.is_clean) == ([True], False)


def test_a_flush_waits_for_what_may_go_before_its_deadline(make_scene):
    """A remote grace that ends before the deadline is waited for; one that does not is not."""
    scene = make_scene(remote_grace_millis=5_000)
    om.update_span(scene.unseen(), metadata={"a": 1})
    short, short_done = ticket_of(scene, 4)
    long, long_done = ticket_of(scene, 6)
    assert (short_done, short.is_clean, long_done) == ([True], False, [])
    scene.clock.advance(5_000)
    assert scene.worker.step()
    assert (long_done, long.is_clean) == ([True], True)


def test_a_grace_beyond_the_deadline_is_not_waited_for(make_scene):
    """The patch behind a span that a flush exports is not waited for when its grace ends after the deadline."""
    scene = make_scene(patches=InMemoryPatchExporter(grace_millis=60_000))
    ref = scene.ended()
    scene.spans.answer = lambda: om.update_span(ref, metadata={"a": 1}) and SpanExportResult.SUCCESS
    ticket, done = ticket_of(scene)
    assert scene.worker.step()
    assert (done, ticket.is_clean) == ([True], False)
    assert scene.span(ref) is not None


def test_a_pause_in_a_flush_ends_it(make_scene):
    """When the destination says pause, the other patches of the flush are not tried one after the other."""
    scene = make_scene(patches=InMemoryPatchExporter(max_batch=1))
    for number in range(1, 5):
        om.update_span(scene.unseen(number), metadata={"n": number})
    scene.patches.answer = lambda patch: Pause(DOWN)
    ticket, done = ticket_of(scene)
    assert scene.worker.step()
    assert (done, ticket.is_clean, len(scene.patches.calls)) == ([True], False, 1)


def test_a_flush_ends_although_spans_keep_arriving(make_scene):
    """Patches of a flush are sent, and it is over, while a new span waits at every step."""
    scene = make_scene(max_export_batch_size=1)
    om.update_span(scene.unseen(), metadata={"a": 1})
    scene.ended()
    ticket, done = ticket_of(scene)
    for _ in range(2):
        scene.ended()
        assert scene.worker.step()
    assert (done, ticket.is_clean, scene.sent()) == ([True], True, [{"a": 1}])


def test_spans_keep_arriving_and_patches_leave(make_scene):
    """Without a flush as well, a patch that is due is sent after the next batch of spans."""
    scene = make_scene(max_export_batch_size=1)
    om.update_span(scene.unseen(), metadata={"a": 1})
    scene.clock.advance(5_000)
    for _ in range(2):
        scene.ended()
        scene.ended()
        assert scene.worker.step()
    assert scene.sent() == [{"a": 1}]
    assert scene.stats.spans_queued > 0


def test_a_span_that_ends_after_a_flush_was_asked_for_keeps_its_schedule(make_scene):
    """While a flush waits for a patch, a span that came later is not pushed out."""
    scene = make_scene(remote_grace_millis=5_000)
    om.update_span(scene.unseen(), metadata={"a": 1})
    _, done = ticket_of(scene)
    ref = scene.ended()
    assert not scene.worker.step()
    assert scene.span(ref) is None
    assert done == []


def test_a_flush_pushes_out_the_span_in_front_of_its_patch(scene):
    """A span that comes after a flush was asked for, but whose patch the flush waits for, goes at once."""
    span = scene.tracer.start_span("span")
    scene.submit(om.SpanRef.from_span_context(span.get_span_context()), {("span", "metadata", "early"): (True, (1, 1))})
    ticket, done = ticket_of(scene)
    scene.ended()
    span.end()
    assert scene.step_all() == 2
    assert (done, ticket.is_clean, scene.sent()) == ([True], True, [{"early": True}])
    assert scene.stats.spans_queued == 1


def test_a_flush_is_told_of_an_eviction(make_scene):
    """A flush whose last span is dropped from a full outbox is over, and unclean."""
    scene = make_scene(max_queue_size=2, max_export_batch_size=2)
    scene.ended()
    ticket, done = ticket_of(scene)
    scene.ended()
    scene.ended()
    assert (done, ticket.is_clean) == ([True], False)


def test_a_flush_waits_for_the_span_that_came_while_its_patch_was_sent(scene):
    """The answer to a patch does not end a flush that waits for the span of the same name, too."""
    span = scene.tracer.start_span("span")
    ref = om.SpanRef.from_span_context(span.get_span_context())
    scene.submit(ref, {("span", "metadata", "early"): (True, (1, 1))})
    asked = []

    def answer(patch):
        span.end()
        asked.append(ticket_of(scene))
        return Delivered()

    scene.patches.answer = answer
    scene.clock.advance(5_000)
    assert scene.worker.step()
    ((ticket, done),) = asked
    assert done == []
    assert scene.worker.step()
    assert (done, ticket.is_clean, scene.span(ref) is not None) == ([True], True, True)


@pytest.mark.parametrize("fails", [False, True], ids=["ok", "raises"])
def test_a_flush_flushes_the_patch_exporter(scene, fails):
    """When a flush has sent its patches, the patch exporter hands over what it buffers; it may raise."""
    calls = []
    scene.patches.force_flush = lambda timeout_millis: calls.append(timeout_millis) or 1 / (not fails)
    om.update_span(scene.unseen(), metadata={"a": 1})
    assert scene.processor.force_flush()
    assert (len(calls), scene.stats.delivered) == (1, 1)
