"""The worker between an outbox and foreign code: dialects that raise, remainders, threads, log lines."""

from __future__ import annotations

import logging
import threading

import pytest
from opentelemetry import context as otel_context
from opentelemetry.sdk.trace.export import SpanExportResult

import otel_metadata as om
from otel_metadata.dialects.otel import OtelDialect
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.live.registry import LOCK
from otel_metadata.model.encoding import Encoded
from otel_metadata.model.outcome import Delivered, DeliveryError, Pause, Rejected
from otel_metadata.testing import RecordingSpanExporter


class PartialDialect:
    """Says what starts with `said`, leaves the rest."""

    def encode(self, span, fields, *, is_local_root):
        said = {f"metadata.{name[2]}": value for name, (value, _) in fields.items() if name[2].startswith("said")}
        remainder = {name: field for name, field in fields.items() if not name[2].startswith("said")}
        return Encoded({**span.attributes, **said}, remainder=remainder)


def test_a_remainder_leaves_as_a_patch_after_its_span(make_scene):
    """What a dialect cannot say on a span leaves as a patch once the span's export was acknowledged."""
    scene = make_scene(dialect=PartialDialect())
    ref = scene.ended(said=1, unsaid=2)
    scene.clock.advance(5_000)
    scene.worker.step()
    assert scene.patches.calls == []
    scene.step_all()
    assert scene.sent() == [{"unsaid": 2}]
    assert scene.patches.patches[0].target == ref


def test_an_update_is_settled_when_its_last_part_is(make_scene):
    """An update that is partly in the remainder is delivered with the patch, not with the span."""
    scene = make_scene(dialect=PartialDialect())
    ref = scene.ended(said=1, unsaid=2)
    om.update_span(ref, metadata={"said2": 3})
    scene.clock.advance(5_000)
    scene.worker.step()
    assert (scene.stats.delivered, scene.stats.late) == (1, 1)
    scene.step_all()
    assert (scene.stats.delivered, scene.stats.late) == (2, 0)


def test_a_remainder_waits_for_the_grace(make_scene):
    """The patch of a remainder respects the backend's grace."""
    scene = make_scene(dialect=PartialDialect(), patches=InMemoryPatchExporter(grace_millis=30_000))
    scene.ended(unsaid=2)
    scene.wait_and_step()
    assert scene.sent() == []
    scene.wait_and_step(30_000)
    assert scene.sent() == [{"unsaid": 2}]


def test_a_remainder_of_a_failed_span_is_no_patch(make_scene):
    """When the export fails, what was live is lost whole, remainder or not."""
    scene = make_scene(dialect=PartialDialect(), span_retry_millis=0)
    scene.ended(said=1, unsaid=2)
    scene.spans.answer = lambda: SpanExportResult.FAILURE
    scene.wait_and_step()
    assert (scene.sent(), scene.lost) == ([], {"target_not_exported": 1})


def test_what_exceeds_the_attribute_budget_leaves_as_a_patch(make_scene):
    """Metadata beyond our share of a span's attributes is not lost: it follows as a patch."""
    scene = make_scene(dialect=OtelDialect(max_attributes=10, span_limit=128))
    ref = scene.ended(**{f"k{n:02}": n for n in range(15)})
    scene.wait_and_step()
    assert scene.final(ref) == {f"k{n:02}": n for n in range(15)}
    assert [len(sent) for sent in scene.sent()] == [5]


class HostileDialect:
    """Does what it was told instead of encoding."""

    def __init__(self, action):
        self.action = action

    def encode(self, span, fields, *, is_local_root):
        return self.action(span, fields)


def invented(span, fields):
    """Answer with a remainder that was never given."""
    return Encoded(span.attributes, remainder={("span", "metadata", "invented"): (1, (1, 1))})


@pytest.mark.parametrize(
    "action",
    [
        lambda span, fields: 1 / 0,
        lambda span, fields: None,
        lambda span, fields: Encoded(None),
        lambda span, fields: Encoded(span.attributes, remainder=None),
        lambda span, fields: Encoded(span.attributes, status="error"),
        invented,
    ],
    ids=["raises", "none", "no-attributes", "no-remainder", "no-status", "invented"],
)
def test_a_dialect_that_fails_loses_nothing(make_scene, action):
    """The span of a dialect that fails leaves as it is, and its fields follow as a patch."""
    scene = make_scene(dialect=HostileDialect(action))
    ref = scene.ended(step=1)
    om.update_span(ref, metadata={"thumbs": "up"})
    scene.wait_and_step()
    assert scene.span(ref).attributes["metadata.step"] == 1
    assert scene.final(ref) == {"step": 1, "thumbs": "up"}
    assert (scene.stats.delivered, scene.stats.waiting) == (2, 0)


def test_a_dialect_that_fails_for_one_span_leaves_the_others_alone(make_scene):
    """In a batch with a span that the dialect cannot encode, the other spans are merged as ever."""

    def encode(span, fields):
        if ("span", "metadata", "bad") in fields:
            raise RuntimeError("bad")
        return OtelDialect().encode(span, fields, is_local_root=True)

    scene = make_scene(dialect=HostileDialect(encode))
    good, bad = scene.ended(good=1), scene.ended(bad=1)
    scene.wait_and_step()
    assert (scene.on_span(good), scene.on_span(bad)) == ({"good": 1}, {})
    assert scene.sent() == [{"bad": 1}]


def test_exporters_run_with_instrumentation_suppressed(scene):
    """Both exporters see OpenTelemetry's suppression keys, and their caller's context is untouched afterwards."""
    seen = []

    def look(patch=None):
        seen.append(otel_context.get_value("suppress_instrumentation"))
        return Delivered() if patch is not None else SpanExportResult.SUCCESS

    scene.spans.answer, scene.patches.answer = look, look
    om.update_span(scene.exported(), metadata={"a": 1})
    scene.wait_and_step()
    assert seen == [True, True]
    assert otel_context.get_value("suppress_instrumentation") is None


@pytest.mark.parametrize("answered", ["patches_answered", "spans_answered"])
def test_a_step_that_is_interrupted_leaves_instrumentation_on(scene, monkeypatch, answered):
    """An exception between an exporter's answer and its entry ends the step with the context that its caller had."""

    def interrupted(*_):
        raise KeyboardInterrupt

    om.update_span(scene.exported(), metadata={"a": 1})
    scene.ended(b=1)
    with monkeypatch.context() as patch:
        patch.setattr(type(scene.worker.outbox), answered, interrupted)
        with pytest.raises(KeyboardInterrupt):
            scene.wait_and_step()
        assert otel_context.get_value("suppress_instrumentation") is None


def test_a_patch_exporter_gets_the_export_timeout(make_scene):
    """The timeout that a patch exporter is given is the one of OTEL_BSP_EXPORT_TIMEOUT."""
    given = []

    class Exporter:
        name, max_batch, grace_millis, reports_missing, convergence = "memory", 10, 0, False, "versioned"

        def export(self, patches, *, timeout_millis):
            given.append(timeout_millis)
            return [Delivered()] * len(patches)

        def force_flush(self, timeout_millis=30_000):
            return True

        def shutdown(self, timeout_millis=5_000):
            pass

    scene = make_scene(patches=Exporter(), export_timeout_millis=7_000)
    om.update_span(scene.unseen(), metadata={"a": 1})
    scene.wait_and_step()
    assert given == [7_000]


def test_a_worker_has_work_only_when_something_is_due(scene):
    """A step says whether there was something to do."""
    assert not scene.worker.step()
    scene.ended()
    assert not scene.worker.step()
    scene.clock.advance(5_000)
    assert scene.worker.step()
    assert not scene.worker.step()


class LockedOut(logging.Handler):
    """Notes of each log line whether another thread could have taken our lock while it was written."""

    def __init__(self):
        super().__init__()
        self.was_free = []

    def emit(self, record):
        def look():
            is_free = LOCK.acquire(blocking=False)
            if is_free:
                LOCK.release()
            self.was_free.append((record.getMessage(), is_free))

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()


@pytest.fixture
def lines():
    handler = LockedOut()
    logger = logging.getLogger("otel_metadata")
    logger.addHandler(handler)
    yield handler.was_free
    logger.removeHandler(handler)


@pytest.mark.parametrize(
    ("outcome", "part"),
    [
        (Rejected(DeliveryError("too_large", "no")), "given up (rejected): no"),
        (Pause(DeliveryError("unauthorized", "the key is wrong")), "paused (unauthorized: the key is wrong)"),
    ],
)
def test_what_a_backend_answered_is_logged_without_the_lock(scene, lines, outcome, part):
    """A log line about an answer is written while no lock of ours is held: its handler is the application's code."""
    om.update_span(scene.unseen(), metadata={"a": 1})
    scene.patches.answer = lambda patch: outcome
    scene.wait_and_step()
    ((message, was_free),) = lines
    assert part in message
    assert was_free


def test_an_eviction_is_logged_without_the_lock(make_scene, lines):
    """A full outbox is told while no lock of ours is held, by whoever comes next."""
    scene = make_scene(max_queue_size=1, max_export_batch_size=1)
    scene.ended()
    scene.ended()
    scene.step_all()
    ((message, was_free),) = lines
    assert "the outbox is full" in message
    assert was_free


def test_an_eviction_is_told_although_the_worker_hangs(make_scene, lines):
    """When the worker does not come, the application's thread that keeps the bounds tells of the eviction."""
    scene = make_scene(max_queue_size=4, max_export_batch_size=4)
    for _ in range(40):
        with scene.tracer.start_as_current_span("span"):
            pass
    assert [was_free for _, was_free in lines] == [True]


def test_a_buffer_that_is_full_is_logged_without_the_lock(make_scene, lines):
    """A lost update is told while no lock of ours is held."""
    scene = make_scene(max_patches=1)
    om.update_span(scene.unseen(1), metadata={"a": 1})
    om.update_span(scene.unseen(2), metadata={"a": 1})
    scene.step_all()
    ((message, was_free),) = lines
    assert "buffer_full" in message
    assert was_free


def test_exporters_are_called_without_the_lock(scene):
    """Neither exporter is called while a lock of ours is held."""
    was_free = []

    def look(patch=None):
        thread = threading.Thread(target=lambda: was_free.append(LOCK.acquire(blocking=False)) or LOCK.release())
        thread.start()
        thread.join()
        return Delivered() if patch is not None else SpanExportResult.SUCCESS

    scene.spans.answer, scene.patches.answer = look, look
    om.update_span(scene.exported(), metadata={"a": 1})
    scene.wait_and_step()
    assert was_free == [True, True]


def test_a_worker_thread_sleeps_until_its_work_is_due():
    """A worker with a thread exports a span by itself, when its schedule has come."""
    exported = threading.Event()
    exporter = RecordingSpanExporter(lambda: exported.set() or SpanExportResult.SUCCESS)
    from opentelemetry.sdk.trace import TracerProvider

    from otel_metadata.delivery.outbox_settings import OutboxSettings

    processor = om.MetadataSpanProcessor(
        om.Destination("memory", exporter, InMemoryPatchExporter()), settings=OutboxSettings(schedule_delay_millis=1)
    )
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    with provider.get_tracer("application").start_as_current_span("span"):
        pass
    assert exported.wait(30)


def test_a_worker_survives_a_failure_of_our_own(monkeypatch):
    """A failure inside a step is counted and logged, and the worker's thread goes on."""
    from opentelemetry.sdk.trace import TracerProvider

    from otel_metadata.delivery.outbox_settings import OutboxSettings
    from otel_metadata.reporting import REPORTER

    monkeypatch.setattr(REPORTER, "reraise", False)
    exporter = RecordingSpanExporter()
    processor = om.MetadataSpanProcessor(
        om.Destination("memory", exporter, InMemoryPatchExporter()), settings=OutboxSettings(schedule_delay_millis=1)
    )
    (outbox,) = processor.outboxes
    weigh, failed = outbox.weigh_waiting, threading.Event()

    def fail_once():
        if not failed.is_set():
            failed.set()
            raise RuntimeError("boom")
        weigh()

    monkeypatch.setattr(outbox, "weigh_waiting", fail_once)
    assert failed.wait(30)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    with provider.get_tracer("application").start_as_current_span("span"):
        pass
    assert processor.force_flush()
    assert len(exporter.spans) == 1
    assert processor.stats().internal_errors == 1


def test_a_failure_of_our_own_in_an_export_is_answered(scene, monkeypatch):
    """What was claimed when our own code fails is settled: live updates as internal_error, joined ones as a patch."""
    from otel_metadata.delivery import worker
    from otel_metadata.reporting import REPORTER

    monkeypatch.setattr(REPORTER, "reraise", False)
    ref = scene.ended(a=1)
    om.update_span(ref, metadata={"b": 2})
    with monkeypatch.context() as patch:
        patch.setattr(worker, "settled_fields", lambda span, fields: 1 / 0)
        scene.clock.advance(5_000)
        assert scene.worker.step()
    assert (scene.stats.spans_queued, scene.stats.spans_failed) == (0, 1)
    assert (scene.lost, scene.processor.stats().internal_errors) == ({"internal_error": 1}, 1)
    scene.wait_and_step()
    assert scene.sent() == [{"b": 2}]


def test_a_span_that_is_being_claimed_is_in_one_place_or_the_other(scene):
    """Whoever asks between the two statements of a claim finds the span."""
    ref = scene.ended()
    seen = []

    class Exporting(dict):
        def __setitem__(self, key, item):
            seen.append(key in scene.outbox._spans.waiting)
            super().__setitem__(key, item)

    scene.outbox._spans.exporting = Exporting()
    scene.wait_and_step()
    assert seen == [True]
    assert scene.outbox.knows(ref.key)


def test_whether_a_span_is_known_is_looked_up_under_the_lock(scene):
    """While another thread moves a span from one map to the next, nobody looks."""
    ref = scene.ended()

    class Recent:
        was_free = None

        def __contains__(self, key):
            def look():
                Recent.was_free = LOCK.acquire(blocking=False)
                if Recent.was_free:
                    LOCK.release()

            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
            return True

    scene.outbox._spans.waiting.clear()
    before, scene.outbox._recent = scene.outbox._recent, Recent()
    assert scene.outbox.knows(ref.key)
    scene.outbox._recent = before
    assert Recent.was_free is False
