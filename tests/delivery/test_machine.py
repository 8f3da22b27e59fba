"""Delivery as a state machine: whatever happens in whatever order, nothing is unaccounted for.

Model: each accepted update with its version and values. At the end every update is either lost with a reason, or the
destination's merged state is what the merge of those that were not lost says.
"""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult

import otel_metadata as om
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.dialects.otel import OtelDialect
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.model.merge import merge
from otel_metadata.model.outcome import Delivered, DeliveryError, Pause, Rejected, Retry
from otel_metadata.testing import ManualClock, RecordingSpanExporter

DOWN = DeliveryError("connection_failure", "down")

SPAN_ANSWERS = {"ok": SpanExportResult.SUCCESS, "fail": SpanExportResult.FAILURE, "raise": None}
OUTCOMES = {
    "delivered": Delivered(),
    "retry": Retry(DOWN),
    "retry-after": Retry(DOWN, after_millis=7_000),
    "pause": Pause(DOWN),
    "missing": Rejected(DeliveryError("segment_not_found", "no such span")),
    "rejected": Rejected(DeliveryError("type_conflict", "no")),
    "too large": Rejected(DeliveryError("too_large", "no")),
    "garbage": None,
}
METADATA = st.dictionaries(st.sampled_from("abc"), st.none() | st.integers(0, 3) | st.just({"x": 1}), min_size=1)
PLACES = st.integers(0, 30)


def state_of(fields):
    """Return the metadata and its versions: what the destination holds of one span."""
    return {name: field for name, field in fields.items() if name[1] == "metadata"}


class Delivery(RuleBasedStateMachine):
    """One destination, stepped by hand, whose exporters answer what the machine decides."""

    @initialize(
        hold=st.sampled_from([0, 20_000]),
        grace=st.sampled_from([0, 3_000]),
        budget=st.sampled_from([None, 1]),
        room=st.sampled_from([2, 100]),
    )
    def set_up(self, hold, grace, budget, room):
        self.clock = ManualClock()
        self.spans = RecordingSpanExporter(self.answer_spans)
        self.patches = InMemoryPatchExporter(self.answer_patch, max_batch=2, grace_millis=grace)
        self.span_answer, self.outcome, self.meanwhile = "ok", "delivered", []
        dialect = OtelDialect(max_attributes=budget, span_limit=None)
        self.processor = om.MetadataSpanProcessor(
            om.Destination("memory", self.spans, self.patches, dialect, hold_millis=hold),
            settings=OutboxSettings(
                max_queue_size=room,
                max_export_batch_size=2,
                max_patches=room,
                visibility_millis=10_000,
                failed_span_millis=10_000,
                max_age_millis=120_000,
                pause_millis=10_000,
            ),
            clock=self.clock,
            start_workers=False,
            chance=lambda: 0.5,
        )
        (self.worker,) = self.processor.workers
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(self.processor)
        self.tracer = provider.get_tracer("application")
        self.live = []
        self.refs = [om.SpanRef(7, 7), om.SpanRef(7, 8)]  # of another process
        self.updates = {}  # version → (key of the span, fields)
        self.receipts = {}  # version → receipt
        self.dropped = set()

    # --- foreign code ------------------------------------------------------------------------------------------------

    def answer_spans(self):
        self.act_meanwhile()
        answer = SPAN_ANSWERS[self.span_answer]
        if answer is None:
            raise RuntimeError("boom")
        return answer

    def answer_patch(self, patch):
        self.act_meanwhile()
        return OUTCOMES[self.outcome]

    def act_meanwhile(self):
        while self.meanwhile:
            place, metadata = self.meanwhile.pop()
            self.note(self.refs[place % len(self.refs)], metadata)

    def note(self, ref, metadata):
        """Update a span, and remember what was accepted."""
        receipt = om.update_span(ref, metadata=metadata)
        if receipt.version != (0, 0):
            fields = {("span", "metadata", key): (value, receipt.version) for key, value in metadata.items()}
            self.updates[receipt.version] = (ref.key, fields)
            self.receipts[receipt.version] = receipt
            if not receipt:
                self.dropped.add(receipt.version)
        return receipt

    # --- what can happen ---------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.live) < 6)
    @rule()
    def start(self):
        span = self.tracer.start_span("span")
        self.live.append(span)
        self.refs.append(om.SpanRef.from_span_context(span.get_span_context()))

    @precondition(lambda self: self.live)
    @rule(place=PLACES, metadata=METADATA)
    def update_live(self, place, metadata):
        span = self.live[place % len(self.live)]
        assert self.note(om.SpanRef.from_span_context(span.get_span_context()), metadata).route == "live"

    @rule(place=PLACES, metadata=METADATA)
    def update_any(self, place, metadata):
        self.note(self.refs[place % len(self.refs)], metadata)

    @rule(place=PLACES, metadata=METADATA)
    def update_during_the_next_export(self, place, metadata):
        self.meanwhile.append((place, metadata))

    @precondition(lambda self: self.live)
    @rule(place=PLACES)
    def end(self, place):
        self.live.pop(place % len(self.live)).end()

    @rule(answer=st.sampled_from([*SPAN_ANSWERS]))
    def span_exporter_will(self, answer):
        self.span_answer = answer

    @rule(outcome=st.sampled_from([*OUTCOMES]))
    def patch_exporter_will(self, outcome):
        self.outcome = outcome

    @rule()
    def step(self):
        self.worker.step()

    @rule(millis=st.sampled_from([1, 1_000, 5_000, 30_000, 130_000]))
    def advance(self, millis):
        self.clock.advance(millis)

    @rule()
    def flush(self):
        self.processor.force_flush()

    # --- what always holds -------------------------------------------------------------------------------------------

    @invariant()
    def balances(self):
        if not hasattr(self, "processor"):
            return
        stats = self.processor.stats().destinations["memory"]
        assert stats.is_balanced, stats
        assert stats.accepted == len(self.updates)
        assert stats.buffered_bytes >= 0

    @invariant()
    def outcomes_are_true(self):
        """Assert that what is called delivered is there, and that what waits is called waiting."""
        if not hasattr(self, "processor"):
            return
        held, waiting = self.held(), 0
        for version, (key, fields) in self.updates.items():
            outcome = om.outcome(self.receipts[version]).destinations["memory"]
            assert outcome.state not in {"refused", "unknown", "handed_over"}
            waiting += outcome.is_waiting
            standing = held.get(key, {})
            if outcome.state == "delivered":
                assert all(name in standing and standing[name][1] >= version for name in fields)
            assert (outcome.reason is not None) == (outcome.state == "lost")
        stats = self.processor.stats().destinations["memory"]
        # An update waits for the later value that took the place of its own, which the balance does not count.
        assert stats.waiting or not waiting
        assert stats.lost or waiting >= stats.waiting

    def teardown(self):
        if not hasattr(self, "processor"):
            return
        for span in self.live:
            span.end()
        self.meanwhile.clear()
        self.span_answer, self.outcome = "ok", "delivered"
        for _ in range(20):
            self.clock.advance(60_000)
            while self.worker.step():
                pass
        stats = self.processor.stats().destinations["memory"]
        assert stats.is_balanced
        assert (stats.waiting, stats.buffered_bytes) == (0, 0), stats
        self.compare(stats)
        self.outcomes_are_true()
        self.processor.shutdown()

    def held(self):
        """Return what the destination holds of each span."""
        held = {}
        for span in self.spans.spans:
            held[span.context.trace_id, span.context.span_id] = state_of(getattr(span, "fields", {}))
        for patch in self.patches.patches:
            held[patch.target.key] = merge(held.get(patch.target.key, {}), state_of(patch.fields))
        return held

    def compare(self, stats):
        """Assert that the destination holds the merge of the updates that were not lost."""
        held = self.held()
        arrived = {version for fields in held.values() for _, version in fields.values()}
        # Nothing arrives that was not accepted, and nothing that was dropped.
        assert arrived <= self.updates.keys() - self.dropped
        if not stats.lost:
            expected = {}
            for key, fields in self.updates.values():
                expected[key] = merge(expected.get(key, {}), fields)
            assert {key: fields for key, fields in held.items() if fields} == expected
            return
        # Which updates were lost is not told one by one: every field that stands must be one of an accepted update,
        # and those that do not stand were overwritten by a later one, or are at most as many as were lost.
        gone = 0
        for version, (key, fields) in self.updates.items():
            standing = held.get(key, {})
            if not all(name in standing and standing[name][1] >= version for name in fields):
                gone += 1
        assert gone <= sum(stats.lost.values())
        assert stats.delivered <= len(self.updates) - len(self.dropped)


TestDelivery = Delivery.TestCase
TestDelivery.settings = hypothesis_settings(deadline=None)
