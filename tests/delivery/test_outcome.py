"""`outcome(receipt)`: what became of an update, for each destination, at any moment of its way."""

from __future__ import annotations

import os

import pytest
from opentelemetry.sdk.trace.export import SpanExportResult
from tests.delivery.conftest import SCHEDULE, SaysNothing, Scene
from tests.delivery.processes import in_child

import otel_metadata as om
from otel_metadata.delivery import settled
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.model.outcome import Delivered, DeliveryError, NotKept, Pause, Rejected, Retry
from otel_metadata.model.update_outcome import DestinationOutcome, UpdateOutcome
from otel_metadata.spool import dead_letters
from otel_metadata.spool.spool import Spool, SpoolSettings
from otel_metadata.testing import InMemoryPipeline, ManualClock, RecordingSpanExporter

UNSEEN = om.SpanRef(7, 7)
DOWN = DeliveryError("connection_failure", "down")
NO = DeliveryError("type_conflict", "no")


def of(receipt, destination="memory"):
    return om.outcome(receipt).destinations[destination]


def test_a_live_update_from_the_span_to_the_backend(scene):
    """live, then in flight, then delivered once the export of its span was acknowledged."""
    with scene.tracer.start_as_current_span("span"):
        receipts = [om.update_current_span(metadata={"a": 1}), om.update_current_span(name="n", tags=["t"])]
        states = [of(one).state for one in receipts]
    states += [of(one).state for one in receipts]
    scene.wait_and_step()
    assert states == ["live", "live", "in_flight", "in_flight"]
    assert [om.outcome(one) for one in receipts] == [UpdateOutcome({"memory": DestinationOutcome("delivered")})] * 2


def test_an_update_in_flight(scene):
    """What joins an ended span is in flight, then delivered with it."""
    receipt = om.update_span(scene.ended(), metadata={"a": 1})
    assert (receipt.route, of(receipt).state, om.outcome(receipt).is_waiting) == ("in_flight", "in_flight", True)
    scene.wait_and_step()
    assert om.outcome(receipt)
    assert not om.outcome(receipt).is_waiting


def test_what_a_span_cannot_say_counts_until_its_patch_arrived(make_scene):
    """An update whose fields follow their span as a patch is delivered when both have arrived."""
    scene = make_scene(dialect=SaysNothing())
    with scene.tracer.start_as_current_span("span"):
        receipt = om.update_current_span(metadata={"a": 1})
    assert of(receipt).state == "in_flight"
    scene.patches.answer = lambda patch: Retry(DOWN)
    scene.wait_and_step()
    assert of(receipt) == DestinationOutcome("retrying", error=DOWN)
    scene.patches.answer = None
    scene.wait_and_step(60_000)
    assert of(receipt).state == "delivered"


def test_while_a_request_is_under_way(scene):
    """An update is being sent while its destination has not answered: in a span, and in a patch."""
    seen = []
    live = om.update_span(scene.ended(), metadata={"a": 1})
    scene.spans.answer = lambda: seen.append(of(live).state) or SpanExportResult.SUCCESS
    scene.wait_and_step()
    late = om.update_span(UNSEEN, metadata={"a": 1})
    scene.patches.answer = lambda patch: seen.append(of(late).state) or Delivered()
    assert of(late).state == "late"
    scene.wait_and_step()
    assert (seen, of(late).state) == (["sending", "sending"], "delivered")


def test_several_updates_in_one_patch(scene):
    """Each update of a patch is delivered with it, also one whose value a later one took the place of."""
    receipts = [om.update_span(UNSEEN, metadata=one) for one in ({"a": 1}, {"a": 2, "b": 3}, {"c": 4})]
    scene.wait_and_step()
    assert len(scene.patches.patches) == 1
    assert all(om.outcome(one) for one in receipts)


def test_a_value_that_was_overwritten_before_it_left(scene):
    """An update that could not be sent is delivered when what took its place is."""
    scene.patches.answer = lambda patch: Retry(DOWN)
    first = om.update_span(UNSEEN, metadata={"a": 1})
    scene.wait_and_step()
    second = om.update_span(UNSEEN, metadata={"a": 2})
    assert [of(first).state, of(second).state] == ["retrying", "retrying"]
    scene.patches.answer = None
    scene.wait_and_step(60_000)
    assert scene.sent() == [{"a": 2}]
    assert om.outcome(first)
    assert om.outcome(second)


def test_a_new_value_of_a_field_that_arrived_waits(scene):
    """That an earlier value arrived does not make a later one delivered."""
    first = om.update_span(UNSEEN, metadata={"a": 1})
    scene.wait_and_step()
    second = om.update_span(UNSEEN, metadata={"a": 2})
    assert [of(first).state, of(second).state] == ["delivered", "late"]
    scene.patches.answer = lambda patch: Rejected(NO)
    scene.wait_and_step()
    assert [of(first).state, of(second).state] == ["delivered", "lost"]


@pytest.mark.parametrize("answer", [Retry(DOWN), Pause(DOWN), Rejected(DeliveryError("segment_not_found", "down"))])
def test_what_is_tried_again_says_why(scene, answer):
    """Until the next try the outcome is retrying, with the error of the last one."""
    scene.patches.answer = lambda patch: answer
    receipt = om.update_span(UNSEEN, metadata={"a": 1})
    scene.wait_and_step()
    assert (of(receipt).state, of(receipt).error) == ("retrying", answer.error)


def test_what_was_given_up_says_why(scene):
    """A dead letter's updates are lost, with reason and error."""
    scene.patches.answer = lambda patch: Rejected(NO)
    receipt = om.update_span(UNSEEN, metadata={"a": 1})
    scene.wait_and_step()
    assert of(receipt) == DestinationOutcome("lost", "rejected", NO)
    assert (om.outcome(receipt).state, bool(om.outcome(receipt))) == ("lost", False)


def test_a_patch_that_arrived_in_parts(scene):
    """Of an update in a patch that was too large, what is lost of a part is lost."""
    scene.patches.answer = lambda patch: (
        Rejected(DeliveryError("too_large", "large"))
        if len(patch.fields) > 1 or "b" in patch.metadata()
        else Delivered()
    )
    receipts = [om.update_span(UNSEEN, metadata=one) for one in ({"a": 1}, {"b": 2}, {"a2": 3, "b": 2})]
    scene.wait_and_step()
    assert [of(one).state for one in receipts] == ["delivered", "lost", "lost"]


def test_a_span_whose_export_failed(make_scene):
    """What was set live is lost with its span and says what the exporter said; what was joined goes on as a patch."""
    scene = make_scene(span_retry_millis=0)
    with scene.tracer.start_as_current_span("span") as span:
        live = om.update_current_span(metadata={"a": 1})
    joined = om.update_span(om.SpanRef.from_span_context(span.get_span_context()), metadata={"b": 1})
    scene.spans.answer = lambda: SpanExportResult.FAILURE
    scene.clock.advance(SCHEDULE)
    assert scene.worker.step()
    assert (of(live).state, of(live).reason, of(live).error.type) == (
        "lost",
        "target_not_exported",
        "connection_failure",
    )
    assert of(joined).state == "late"
    scene.wait_and_step(60_000)
    assert of(joined).state == "delivered"


def test_a_span_that_was_dropped(make_scene):
    """The updates of a span that was dropped from a full outbox are lost; so is what comes after."""
    scene = make_scene(max_queue_size=1)
    with scene.tracer.start_as_current_span("span") as span:
        live = om.update_current_span(metadata={"a": 1})
    scene.ended()
    after = om.update_span(om.SpanRef.from_span_context(span.get_span_context()), metadata={"a": 2})
    assert [(of(one).state, of(one).reason) for one in (live, after)] == [("lost", "target_not_exported")] * 2


def test_a_span_that_never_ended(scene):
    """The updates of a span that was collected, or was open at the shutdown, are lost."""
    span = scene.tracer.start_span("collected")
    collected = om.update_span(span, metadata={"a": 1})
    del span
    span = scene.tracer.start_span("open")
    still_open = om.update_span(span, metadata={"a": 1})
    assert (of(collected).state, of(still_open).state) == ("lost", "live")
    assert scene.processor.outcome(collected)["memory"].reason == "target_not_exported"
    scene.processor.shutdown()
    assert scene.processor.outcome(still_open)["memory"].state == "lost"
    span.end()


def test_notes_are_those_of_the_update(scene):
    """Notes about other fields of the same patch are not told; those about none are."""
    notes = ("metadata 'a': kept as text", NotKept("metadata 'b': not kept"), "sent twice")
    scene.patches.answer = lambda patch: Delivered(notes)
    first, second = om.update_span(UNSEEN, metadata={"a": 1}), om.update_span(UNSEEN, metadata={"b": 1, "c": 2})
    scene.wait_and_step()
    assert of(first).notes == (notes[0], notes[2])
    assert of(second).notes == (notes[1], notes[2])
    assert isinstance(of(second).notes[0], NotKept)


def test_a_refusal_has_its_own_reason(scene):
    """An update that was refused as a whole has no destinations, and says why."""
    receipt = om.update_span("nonsense", metadata={"a": 1})
    assert (om.outcome(receipt), om.outcome(receipt).state) == (UpdateOutcome(reason="invalid_target"), "refused")


def test_a_drop_at_the_door_says_why(make_scene):
    """An update for which there was no room is lost."""
    scene = make_scene(max_patches=1)
    om.update_span(UNSEEN, metadata={"a": 1})
    receipt = om.update_span(om.SpanRef(7, 8), metadata={"a": 1})
    assert of(receipt) == DestinationOutcome("lost", "buffer_full")
    assert scene.lost == {"buffer_full": 1}


@pytest.mark.parametrize("given", [None, "receipt", 7, object(), {}, om.Receipt])
def test_what_is_not_a_receipt_is_unknown(scene, given):
    """Anything else than a receipt is unknown, and raises nothing."""
    assert (om.outcome(given), om.outcome(given).state) == (UpdateOutcome(), "unknown")


def test_without_a_pipeline():
    """Before `configure` an outcome is what the receipt says."""
    assert om.outcome(om.update_span(UNSEEN, metadata={"a": 1})).reason == "not_configured"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_of_another_process_it_is_unknown(scene):
    """A receipt of the parent is unknown in its child."""
    receipt = om.update_span(UNSEEN, metadata={"a": 1})
    assert in_child(lambda: om.outcome(receipt).state) == "unknown"
    assert om.outcome(receipt).state == "late"


@pytest.mark.parametrize("fields", [1, 100])
def test_too_long_ago_it_is_unknown(scene, monkeypatch, fields):
    """The latest targets are remembered, fewer where they have many fields; of others the outcome is unknown."""
    monkeypatch.setattr(settled, "_MAX_FIELDS", 1_000)
    scene.outbox._patches.settled = settled.Settled(20)
    receipts = []
    for number in range(1, 101):
        receipts.append(om.update_span(scene.unseen(number), metadata={f"k{place}": 1 for place in range(fields)}))
        scene.wait_and_step()
    states = [of(one).state for one in receipts]
    known = states.count("delivered")
    assert states == ["unknown"] * (100 - known) + ["delivered"] * known
    assert known in (range(20, 41) if fields == 1 else range(10, 21))


def test_each_destination_for_itself():
    """A destination that is down makes no other late, and the outcome as a whole is not delivered."""
    other = InMemoryPatchExporter(lambda patch: Retry(DOWN))
    scene = Scene(om.Destination("other", None, other, spans=False))
    receipt = om.update_span(UNSEEN, metadata={"a": 1})
    scene.clock.advance(SCHEDULE)
    for worker in scene.processor.workers:
        worker.step()
    assert (of(receipt).state, of(receipt, "other").state, om.outcome(receipt).state) == (
        "delivered",
        "retrying",
        "retrying",
    )


def test_in_an_application_s_tests():
    """The pipeline for tests of applications has outcomes as well."""
    pipeline = InMemoryPipeline()
    with om.start_span("span", metadata={"a": 1}) as span:
        receipt = span.update(metadata={"b": 1})
    assert om.outcome(receipt).state == "in_flight"
    pipeline.deliver()
    assert om.outcome(receipt)
    pipeline.close()


# --- with a spool -------------------------------------------------------------------------------------------------


class Spooled:
    """A destination with a spool and a small window."""

    def __init__(self, tmp_path, answer=None):
        self.clock = ManualClock()
        self.patches = InMemoryPatchExporter(answer)
        self.spool = Spool(SpoolSettings(f"{tmp_path}/spool/spool.db"), clock=self.clock)
        self.processor = om.MetadataSpanProcessor(
            om.Destination("memory", RecordingSpanExporter(), self.patches),
            settings=OutboxSettings(spool_window=2),
            clock=self.clock,
            start_workers=False,
            spool=self.spool,
        )

    def deliver(self):
        for _ in range(20):
            self.clock.advance(60_000)
            while self.processor.workers[0].step():
                pass

    def of(self, receipt):
        return self.processor.outcome(receipt)["memory"]


def test_what_is_on_disk_only_waits(tmp_path):
    """An update that exceeds the window is late, then delivered like any other."""
    one = Spooled(tmp_path, lambda patch: Retry(DOWN))
    receipts = [om.update_span(om.SpanRef(7, number), metadata={"a": 1}) for number in range(1, 9)]
    assert [one.of(receipt).state for receipt in receipts] == ["late"] * 8
    one.patches.answer = None
    one.deliver()
    assert [one.of(receipt).state for receipt in receipts] == ["delivered"] * 8


def test_what_a_shutdown_leaves_to_the_spool_is_handed_over(tmp_path):
    """After a shutdown what is in the spool is handed over: in the window or on disk only."""
    one = Spooled(tmp_path, lambda patch: Retry(DOWN))
    receipts = [om.update_span(om.SpanRef(7, number), metadata={"a": 1}) for number in range(1, 9)]
    one.processor.shutdown()
    assert [one.of(receipt).state for receipt in receipts] == ["handed_over"] * 8


def test_what_a_shutdown_cannot_send_is_lost(make_scene):
    """Without a spool it is lost, whether it waits as a span or as a patch."""
    scene = make_scene(span_retry_millis=0)
    scene.patches.answer = lambda patch: Retry(DOWN)
    late = om.update_span(UNSEEN, metadata={"a": 1})
    scene.processor.shutdown()
    assert scene.processor.outcome(late)["memory"] == DestinationOutcome("lost", "shutdown_deadline", DOWN)


def test_a_dead_letter_that_is_retried(tmp_path):
    """What was given up waits again when somebody retries it, and may arrive then."""
    one = Spooled(tmp_path, lambda patch: Rejected(NO))
    receipt = om.update_span(UNSEEN, metadata={"a": 1})
    one.deliver()
    assert one.of(receipt).state == "lost"
    one.patches.answer = None
    other = Spool(SpoolSettings(f"{tmp_path}/spool/spool.db"), clock=one.clock)
    assert dead_letters.retry(other, list(dead_letters.letters(other)), one.clock.wall_ns()) == 1
    other.close()
    one.deliver()
    assert one.of(receipt).state == "delivered"
    one.processor.shutdown()
