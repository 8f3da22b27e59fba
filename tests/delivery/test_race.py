"""The race between an update and the end and the export of its span."""

from __future__ import annotations

import sys
import threading
from collections import Counter, deque

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

import otel_metadata as om
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.dialects.otel import OtelDialect
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.testing import RecordingSpanExporter

THREADS = 4
UPDATES = 100_000
PER_SPAN = 25
# Bounds that nothing reaches: what is lost on purpose is another test's claim.
ROOM = OutboxSettings(
    max_queue_size=1 << 20, max_export_batch_size=64, schedule_delay_millis=1, max_patches=1 << 20, max_bytes=1 << 40
)


@pytest.fixture
def rapid_switches():
    """Let the interpreter switch threads every 10 µs."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(10e-6)
    yield
    sys.setswitchinterval(before)


def destination(name):
    """Return a destination whose dialect can say everything, so that no field leaves twice."""
    dialect = OtelDialect(max_attributes=None, span_limit=None)
    return om.Destination(name, RecordingSpanExporter(), InMemoryPatchExporter(), dialect)


class Application(threading.Thread):
    """Starts, updates and ends spans, and updates those of its neighbours, whatever state they are in.

    No two updates set the same key of the same span, so that none is overwritten.
    """

    def __init__(self, tracer, spans):
        super().__init__()
        self.tracer = tracer
        self.spans = spans
        self.receipts = []
        self.error = None

    def run(self):
        try:
            for turn in range(UPDATES // THREADS // PER_SPAN):
                self.take(turn)
        except BaseException as error:
            self.error = error

    def take(self, turn):
        with self.tracer.start_as_current_span("span") as span:
            # First its name, so that the others race with everything that follows, the end included.
            self.spans.append(span)
            for n in range(PER_SPAN // 2):
                self.receipts.append(om.update_current_span(metadata={f"own{n}": n}))
        for n in range(PER_SPAN // 2, PER_SPAN):
            newest = self.spans[-1 - n % THREADS]
            if n % 3 == 0:
                with trace.use_span(newest):
                    # A key that comes again with later spans: the way of the most frequent update.
                    self.receipts.append(om.update_current_span(metadata={f"{self.name}.{turn % 40}.{n}": n}))
            else:
                target = newest if n % 3 == 1 else self.spans[(turn * 31 + n) % len(self.spans)]
                ref = om.SpanRef.from_span_context(target.get_span_context())
                self.receipts.append(om.update_span(ref, metadata={f"{self.name}.{turn}.{n}": n}))


@pytest.mark.slow
def test_every_update_is_on_its_span_or_in_a_patch_and_never_in_both(rapid_switches):
    """Of 100,000 updates that race with the ends and exports of their spans, none is lost and none is doubled."""
    destinations = [destination("first"), destination("second")]
    processor = om.MetadataSpanProcessor(*destinations, settings=ROOM)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    spans = deque(maxlen=512)
    threads = [Application(provider.get_tracer("application"), spans) for _ in range(THREADS)]
    # Enough to choose from when the first thread starts.
    first = [threads[0].tracer.start_span("first") for _ in range(THREADS)]
    spans.extend(first)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for span in first:
        span.end()
    assert [thread.error for thread in threads] == [None] * THREADS
    assert processor.force_flush(60_000)

    receipts = [receipt for thread in threads for receipt in thread.receipts]
    accepted = Counter(receipt.version for receipt in receipts)
    assert len(receipts) == len(accepted) == UPDATES
    assert all(receipts)
    routes = Counter(routed.route for receipt in receipts for routed in receipt.routes.values())
    assert min(routes["live"], routes["in_flight"], routes["late"]) > 0, routes

    stats = processor.stats()
    for one in destinations:
        on_spans = Counter(v for span in one.span_exporter.spans for _, v in getattr(span, "fields", {}).values())
        in_patches = Counter(v for patch in one.patch_exporter.patches for _, v in patch.fields.values())
        assert on_spans + in_patches == accepted
        assert not on_spans.keys() & in_patches.keys()
        counts = stats.destinations[one.name]
        assert counts.is_balanced
        assert (counts.accepted, counts.delivered, counts.waiting, counts.lost) == (UPDATES, UPDATES, 0, {})
        assert (counts.buffered_bytes, counts.spans_queued) == (0, 0)
