"""Each destination has its own outbox and worker: a dead one delays or unbalances no other."""

from __future__ import annotations

import threading

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult

import otel_metadata as om
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.model.outcome import DeliveryError, Pause, Rejected, Retry
from otel_metadata.testing import RecordingSpanExporter

DOWN = DeliveryError("connection_failure", "down")


class Pair:
    """An application with a good destination and a bad one, each with its own thread."""

    def __init__(self, span_answer=None, patch_answer=None):
        self.spans, self.patches = RecordingSpanExporter(), InMemoryPatchExporter()
        self.processor = om.MetadataSpanProcessor(
            om.Destination("bad", RecordingSpanExporter(span_answer), InMemoryPatchExporter(patch_answer)),
            om.Destination("good", self.spans, self.patches),
            settings=OutboxSettings(schedule_delay_millis=1, max_queue_size=8, max_export_batch_size=4),
        )
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(self.processor)
        self.good, self.bad = self.processor.workers[1], self.processor.workers[0]

    def run(self, spans=20):
        """Open spans, update each live and in flight or late, and wait until the good destination has them all."""
        for n in range(spans):
            with self.provider.get_tracer("application").start_as_current_span("span") as span:
                om.update_current_span(metadata={"live": n})
            assert om.update_span(span, metadata={"after": n})
            assert self.good.begin_flush(self.deadline)()
        return self.processor.stats().destinations

    @property
    def deadline(self):
        return self.processor._clock.monotonic_ns() + 30_000_000_000


@pytest.mark.parametrize(
    ("span_answer", "patch_answer"),
    [
        (lambda: SpanExportResult.FAILURE, lambda patch: Retry(DOWN)),
        (lambda: SpanExportResult.FAILURE, lambda patch: Rejected(DOWN)),
        (lambda: SpanExportResult.SUCCESS, lambda patch: Pause(DOWN)),
        (lambda: 1 / 0, lambda patch: 1 / 0),
        (lambda: None, lambda patch: None),
    ],
    ids=["fails", "rejects", "pauses", "raises", "garbage"],
)
def test_a_destination_that_fails_leaves_the_other_alone(span_answer, patch_answer):
    """While one destination fails in its own way, the other gets every update, and both balance."""
    stats = Pair(span_answer, patch_answer).run()
    assert (stats["good"].delivered, stats["good"].lost) == (40, {})
    assert stats["bad"].accepted == 40
    assert stats["bad"].is_balanced


@pytest.mark.parametrize("part", ["spans", "patches"])
def test_a_destination_that_hangs_leaves_the_other_alone(part):
    """While one destination hangs in an export, the other gets every update, and both balance."""
    release = threading.Event()

    def hang(answer):
        release.wait()
        return answer

    pair = Pair(
        (lambda: hang(SpanExportResult.SUCCESS)) if part == "spans" else None,
        (lambda patch: hang(Retry(DOWN))) if part == "patches" else None,
    )
    try:
        stats = pair.run()
        assert (stats["good"].delivered, stats["good"].lost) == (40, {})
        assert stats["bad"].accepted == 40
        assert stats["bad"].is_balanced
    finally:
        release.set()


def test_a_receipt_tells_each_destination_apart():
    """One update can be late for a destination and in flight for another; the furthest one names the receipt."""
    clockless = OutboxSettings(schedule_delay_millis=3_600_000)
    eager, slow = RecordingSpanExporter(), RecordingSpanExporter()
    processor = om.MetadataSpanProcessor(
        om.Destination("eager", eager, InMemoryPatchExporter()),
        om.Destination("slow", slow, InMemoryPatchExporter()),
        settings=clockless,
        start_workers=False,
    )
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    with provider.get_tracer("application").start_as_current_span("span") as span:
        pass
    processor.workers[0].begin_flush(processor._clock.monotonic_ns() + 1_000_000_000)()
    receipt = om.update_span(span, metadata={"a": 1})
    assert {name: routed.route for name, routed in receipt.routes.items()} == {"eager": "late", "slow": "in_flight"}
    assert receipt.route == "late"


def test_a_receipt_is_true_when_one_destination_took_the_update():
    """A receipt is false only when every destination dropped the update."""
    processor = om.MetadataSpanProcessor(
        om.Destination("closed", RecordingSpanExporter(), InMemoryPatchExporter()),
        om.Destination("open", RecordingSpanExporter(), InMemoryPatchExporter()),
        start_workers=False,
    )
    processor.outboxes[0].close()
    receipt = om.update_span(om.SpanRef(1, 1), metadata={"a": 1})
    assert (bool(receipt), receipt.route) == (True, "late")
    assert receipt.routes["closed"] == ("dropped", "after_shutdown")
