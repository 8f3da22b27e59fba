"""Delivery with a spool as a state machine, and a small model that is searched exhaustively.

The machine lives through lives: spans start, are set, end, are exported, fail; updates come at any time; the process is
killed and started again, also in the middle of an export; the backend answers, fails, loses its reply after it has
applied a patch, or applies it only later. At the end every update that was acknowledged (its call returned, late or in
flight) is in the backend or overwritten by a later one, and the state is that of the merge.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from opentelemetry.sdk.trace.export import SpanExportResult
from tests.delivery.processes import Application, Backend

import otel_metadata as om
from otel_metadata.model.merge import merge
from otel_metadata.model.outcome import Delivered, DeliveryError, Pause, Rejected, Retry

DOWN = DeliveryError("connection_failure", "down")
METADATA = st.dictionaries(st.sampled_from("abcdef"), st.none() | st.integers(0, 3) | st.just({"x": 1}), min_size=1)
PLACES = st.integers(0, 30)
PATCH_ANSWERS = [
    "applied",
    "down",
    "retry-after",
    "pause",
    "too large",
    "reply lost",
    "applied late",
    "killed before",
    "killed after",
]
SPAN_ANSWERS = ["stored", "down", "raises", "reply lost", "killed before", "killed after"]


class SpooledDelivery(RuleBasedStateMachine):
    """One destination with a spool through several lives of its process."""

    @initialize(
        hold=st.sampled_from([0, 20_000]),
        window=st.sampled_from([1, 3, 100]),
        budget=st.sampled_from([None, 1]),
        ends_by_kill=st.booleans(),
    )
    def set_up(self, hold, window, budget, ends_by_kill):
        self.ends_by_kill = ends_by_kill
        self.folder = Path(tempfile.mkdtemp())
        self.backend = Backend()
        self.patch_answer, self.span_answer = "applied", "stored"
        self.on_the_way, self.meanwhile = [], []
        self.is_dead = False
        self.live, self.refs = [], [om.SpanRef(7, 7), om.SpanRef(7, 8)]
        self.acknowledged = {}  # version → (key of the span, fields)
        self.receipts = {}  # version → receipt
        self.app = Application(
            self.folder / "spool" / "spool.db",
            answer_spans=self.export,
            answer_patch=self.send,
            hold_millis=hold,
            budget=budget,
            spool_window=window,
            max_export_batch_size=2,
            pause_millis=10_000,
            span_retry_millis=30_000,
        )

    # --- foreign code ------------------------------------------------------------------------------------------------

    def export(self, spans):
        self.act_meanwhile()
        answer = self.span_answer
        if answer == "killed before":
            self.kill()
        if answer in {"stored", "reply lost", "killed after"} and not self.is_dead:
            for span in spans:
                said = {
                    name: field
                    for name, field in getattr(span, "fields", {}).items()
                    if f"metadata.{name[2]}" in span.attributes
                }
                self.backend.apply((span.context.trace_id, span.context.span_id), said)
        if answer == "killed after":
            self.kill()
        if answer == "raises":
            raise RuntimeError("boom")
        return SpanExportResult.SUCCESS if answer == "stored" else SpanExportResult.FAILURE

    def send(self, patch):
        self.act_meanwhile()
        answer = self.patch_answer
        if answer == "killed before":
            self.kill()
        if self.is_dead:
            return Retry(DOWN)
        if answer in {"applied", "reply lost", "killed after"}:
            self.backend.apply(patch.target.key, dict(patch.fields))
        if answer == "applied late":
            self.on_the_way.append((patch.target.key, dict(patch.fields)))
        if answer == "killed after":
            self.kill()
        if answer == "applied":
            return Delivered()
        if answer == "pause":
            return Pause(DOWN)
        if answer == "too large" and len(patch.fields) > 1:
            return Rejected(DeliveryError("too_large", "413"))
        return Retry(DOWN, after_millis=7_000 if answer == "retry-after" else None)

    def kill(self):
        """Die in the middle of a step: what it still does has no effect any more."""
        if not self.is_dead:
            self.is_dead = True
            self.app.die()

    def act_meanwhile(self):
        while self.meanwhile and not self.is_dead:
            place, metadata = self.meanwhile.pop()
            self.note(self.refs[place % len(self.refs)], metadata)

    def note(self, ref, metadata):
        receipt = om.update_span(ref, metadata=metadata)
        if receipt and receipt.route in {"late", "in_flight"}:
            fields = {("span", "metadata", key): (value, receipt.version) for key, value in metadata.items()}
            self.acknowledged[receipt.version] = (ref.key, fields)
            self.receipts[receipt.version] = receipt
        return receipt

    def revive(self):
        if self.is_dead:
            self.is_dead = False
            self.live.clear()
            self.app.start()

    # --- what can happen ---------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.live) < 4)
    @rule(metadata=METADATA)
    def start(self, metadata):
        span = self.app.tracer.start_span("span")
        self.live.append(span)
        self.refs.append(om.SpanRef.from_span_context(span.get_span_context()))
        assert om.update_span(span, metadata=metadata).route == "live"

    @rule(place=PLACES, metadata=METADATA)
    def update(self, place, metadata):
        self.note(self.refs[place % len(self.refs)], metadata)

    @rule(place=PLACES, metadata=METADATA)
    def update_during_the_next_export(self, place, metadata):
        self.meanwhile.append((place, metadata))

    @precondition(lambda self: self.live)
    @rule(place=PLACES)
    def end(self, place):
        self.live.pop(place % len(self.live)).end()

    @rule(answer=st.sampled_from(SPAN_ANSWERS))
    def span_exporter_will(self, answer):
        self.span_answer = answer

    @rule(answer=st.sampled_from(PATCH_ANSWERS))
    def patch_exporter_will(self, answer):
        self.patch_answer = answer

    @rule()
    def step(self):
        self.app.worker.step()
        self.revive()

    @rule(millis=st.sampled_from([1, 1_000, 5_000, 30_000]))
    def advance(self, millis):
        self.app.clock.advance(millis)

    @rule()
    def flush(self):
        self.app.processor.force_flush()
        self.revive()

    @precondition(lambda self: self.on_the_way)
    @rule()
    def a_late_request_is_applied(self):
        self.backend.apply(*self.on_the_way.pop(0))

    @invariant()
    def what_is_called_delivered_is_there(self):
        if not hasattr(self, "app"):
            return
        for version, (key, fields) in self.acknowledged.items():
            outcome = om.outcome(self.receipts[version])
            if outcome:
                held = self.backend.fields.get(key, {})
                assert all(name in held and held[name][1] >= version for name in fields), outcome

    @rule()
    def crash(self):
        self.kill()
        self.revive()

    @rule()
    def restart(self):
        self.app.stop()
        if not self.is_dead:
            self.live.clear()
        self.is_dead = False
        self.app.start()
        self.live.clear()

    # --- what always holds -------------------------------------------------------------------------------------------

    @invariant()
    def balances(self):
        if hasattr(self, "app"):
            assert self.app.stats.is_balanced, self.app.stats

    def teardown(self):
        if not hasattr(self, "app"):
            return
        try:
            self.meanwhile.clear()
            self.span_answer, self.patch_answer = "stored", "applied"
            for span in self.live:
                span.end()
            if self.ends_by_kill:
                self.kill()
                self.revive()
            self.app.drain()
            stats = self.app.stats
            assert (stats.waiting, stats.buffered_bytes) == (0, 0), stats
            while self.on_the_way:
                self.backend.apply(*self.on_the_way.pop(0))
            self.compare()
            self.app.stop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def compare(self):
        """Assert that every acknowledged update is in the backend, or overwritten there by a later one."""
        for version, (key, fields) in self.acknowledged.items():
            held = self.backend.fields.get(key, {})
            for name in fields:
                assert name in held, f"{name} of {version} is lost: {self.app.finished}"
                assert held[name][1] >= version, f"{name} of {version} was overwritten by {held[name]}"


TestSpooledDelivery = SpooledDelivery.TestCase
# A life is longer than an example of the other machine, so the fast profile has more of them here.
TestSpooledDelivery.settings = hypothesis_settings(
    deadline=None, max_examples=max(150, hypothesis_settings.default.max_examples)
)


# --- two updates, two deliveries, one lost reply: every order there is -----------------------------------------------

EVENTS = ("update 1", "update 2", "deliver", "deliver", "lose a reply", "crash")


def orders():
    """Return every order of the events in which the first update comes before the second."""
    return sorted(
        {order for order in itertools.permutations(EVENTS) if order.index("update 1") < order.index("update 2")}
    )


def run(order, folder, convergence):
    """Let the events happen in *order*; return what the backend holds and what should be there."""
    backend = Backend(is_versioned=convergence == "versioned")
    answers = []

    def send(patch):
        backend.apply(patch.target.key, dict(patch.fields))
        return answers.pop(0) if answers else Delivered()

    app = Application(folder / "spool.db", answer_spans=None, answer_patch=send, convergence=convergence)
    ref, expected = om.SpanRef(7, 7), {}
    for number, event in enumerate(order):
        if event.startswith("update"):
            receipt = om.update_span(ref, metadata={"both": number, event: True})
            assert receipt.route == "late"
            fields = {("span", "metadata", "both"): (number, receipt.version)}
            fields["span", "metadata", event] = (True, receipt.version)
            expected = merge(expected, fields)
        elif event == "lose a reply":
            answers.append(Retry(DOWN))
        elif event == "deliver":
            app.clock.advance(60_000)
            app.worker.step()
        else:
            app.die()
            app.start()
    app.drain()
    stats = app.stats
    assert (stats.waiting, stats.lost) == (0, {}), stats
    app.stop()
    return backend.values(), {ref.key: {name[2]: value for name, (value, _) in expected.items()}}


@pytest.mark.parametrize("convergence", ["versioned", "ordered"])
def test_two_updates_two_deliveries_one_lost_reply(convergence, tmp_path):
    """In every order of two updates, two deliveries, a lost reply and a crash, the later update's values stand."""
    all_orders = orders()
    assert len(all_orders) == 180
    for number, order in enumerate(all_orders):
        folder = tmp_path / str(number)
        folder.mkdir(mode=0o700)
        held, expected = run(order, folder, convergence)
        assert held == expected, order
