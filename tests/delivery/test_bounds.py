"""An outbox is bounded in items and in bytes; what does not fit is counted, and what is held leaves early."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace.export import SpanExportResult
from tests.delivery.conftest import SaysNothing

import otel_metadata as om
from otel_metadata.delivery.outbox import MAX_RECENT
from otel_metadata.model.outcome import Delivered, DeliveryError, Retry
from otel_metadata.model.weight import JOINED_BYTES, PATCH_BYTES, weigh_fields

KIB = 1024


def test_a_target_too_many_is_lost_as_buffer_full(make_scene):
    """Beyond max_patches targets an update is dropped and counted, while targets that wait still take more."""
    scene = make_scene(max_patches=2)
    assert om.update_span(scene.unseen(1), metadata={"a": 1})
    assert om.update_span(scene.unseen(2), metadata={"a": 1})
    receipt = om.update_span(scene.unseen(3), metadata={"a": 1})
    assert (bool(receipt), receipt.reason) == (False, "buffer_full")
    assert om.update_span(scene.unseen(1), metadata={"b": 1})
    assert (scene.stats.accepted, scene.stats.late, scene.lost) == (4, 3, {"buffer_full": 1})


def test_an_update_that_does_not_fit_in_bytes_is_lost_as_buffer_full(make_scene):
    """An update that would take the outbox beyond max_bytes is dropped and counted; a smaller one still fits."""
    scene = make_scene(max_bytes=64 * KIB)
    for number in range(1, 10):
        om.update_span(scene.unseen(number), metadata={"text": "x" * 7_000})
    assert scene.lost == {"buffer_full": 1}
    assert scene.stats.buffered_bytes <= 64 * KIB
    assert om.update_span(scene.unseen(100), metadata={"a": 1})


def test_an_update_that_does_not_fit_is_not_joined_either(make_scene):
    """The bound in bytes holds for an update of a queued span as well."""
    scene = make_scene(max_bytes=16 * KIB)
    ref = scene.ended()
    receipts = [om.update_span(ref, metadata={f"text{n}": "x" * 4_000}) for n in range(5)]
    assert receipts[0].route == "in_flight"
    assert (receipts[-1].route, receipts[-1].reason) == ("dropped", "buffer_full")
    assert scene.stats.buffered_bytes <= 16 * KIB


def test_spans_are_bounded_in_number(make_scene):
    """Of many spans that end while nobody exports, the latest max_queue_size stay, the others are counted."""
    scene = make_scene(max_queue_size=10, max_export_batch_size=10)
    for n in range(25):
        scene.ended(n=n)
    assert (scene.stats.spans_queued, scene.stats.spans_evicted) == (10, 15)
    assert (scene.stats.in_flight, scene.lost) == (10, {"target_not_exported": 15})
    scene.step_all()
    assert [span.fields["span", "metadata", "n"][0] for span in scene.spans.spans] == [*range(15, 25)]


def test_spans_are_bounded_in_bytes(make_scene):
    """Large spans that end while nobody exports push out the oldest, so that what waits stays within its bytes."""
    scene = make_scene(max_bytes=256 * KIB)
    for _ in range(200):
        with scene.tracer.start_as_current_span("span", attributes={"text": "x" * 20_000}):
            om.update_current_span(metadata={"a": 1})
    # A worker that hangs in its exporter weighs nothing: the application's thread keeps the bounds, but for a few.
    assert scene.stats.spans_queued < 100
    scene.worker.step()
    assert scene.stats.buffered_bytes <= 256 * KIB


def test_spans_are_bounded_in_bytes_although_updates_come(make_scene):
    """The bound in bytes holds as well when updates of ended spans take the spans in, one by one."""
    scene = make_scene(max_bytes=256 * KIB)
    for _ in range(200):
        with scene.tracer.start_as_current_span("span", attributes={"text": "x" * 20_000}) as span:
            pass
        om.update_span(span, metadata={"a": 1})
    assert scene.stats.spans_queued < 100
    assert scene.stats.buffered_bytes <= 256 * KIB


def test_what_waits_weighs_nothing_once_it_is_gone(make_scene):
    """When everything has left, by any way, the outbox is back at zero bytes."""
    scene = make_scene(max_queue_size=3, max_export_batch_size=3, max_age_millis=1)
    answers = iter([Retry(DeliveryError("connection_failure", "down"))])
    scene.patches.answer = lambda patch: next(answers, None) or Retry(DeliveryError("connection_failure", "down"))
    for n in range(5):
        ref = scene.ended(n=n)
        om.update_span(ref, metadata={"text": "x" * 1_000})
        om.update_span(scene.unseen(n + 1), metadata={"text": "y" * 1_000})
        om.update_span(scene.unseen(n + 1), metadata={"text": "z" * 1_000})
    scene.wait_and_step()
    scene.wait_and_step(60_000)
    scene.wait_and_step(60_000)
    assert scene.stats.waiting == 0
    assert scene.stats.buffered_bytes == 0


def test_a_full_batch_leaves_before_its_schedule(make_scene):
    """When as many spans wait as one export takes, they leave at once."""
    scene = make_scene(max_export_batch_size=4, max_queue_size=100)
    for _ in range(4):
        scene.ended()
    assert scene.worker.step()
    assert scene.stats.spans_exported == 4


def test_one_export_takes_at_most_a_batch(make_scene):
    """No export carries more spans than max_export_batch_size."""
    scene = make_scene(max_export_batch_size=4, max_queue_size=100)
    for _ in range(10):
        scene.ended()
    sizes = []
    scene.clock.advance(5_000)
    while scene.worker.step():
        sizes.append(scene.stats.spans_exported - sum(sizes))
    assert sizes == [4, 4, 2]


def test_a_held_span_stays_for_its_time(make_scene):
    """With hold_millis a span stays in the outbox that long, and what comes meanwhile leaves on it."""
    scene = make_scene(hold_millis=60_000)
    ref = scene.ended(step=1)
    assert scene.wait_and_step(59_999) == 0
    assert om.update_span(ref, metadata={"thumbs": "up"}).route == "in_flight"
    assert scene.wait_and_step(1) == 1
    assert scene.on_span(ref) == {"step": 1, "thumbs": "up"}


def test_held_spans_leave_early_when_half_of_the_room_is_taken(make_scene):
    """When held spans fill half of the queue, the oldest leave before their time and none is dropped."""
    scene = make_scene(hold_millis=3_600_000, max_queue_size=10, max_export_batch_size=1)
    for n in range(5):
        scene.ended(n=n)
    scene.step_all()
    assert [span.fields["span", "metadata", "n"][0] for span in scene.spans.spans] == [0]
    assert (scene.stats.spans_evicted, scene.stats.spans_queued) == (0, 4)


def test_held_spans_leave_early_when_half_of_the_bytes_are_taken(make_scene):
    """Large held spans leave before their time when they take half of the bytes."""
    scene = make_scene(hold_millis=3_600_000, max_bytes=100 * KIB, max_export_batch_size=1)
    for _ in range(4):
        with scene.tracer.start_as_current_span("span", attributes={"text": "x" * 20_000}):
            pass
    scene.step_all()
    assert scene.stats.spans_evicted == 0
    assert scene.stats.spans_exported > 0
    assert scene.stats.buffered_bytes <= 50 * KIB


def test_spans_that_left_are_forgotten_in_the_end(scene):
    """The outbox remembers a bounded number of spans that left; an update of an older one is that of an unseen span."""
    outbox, ref = scene.outbox, scene.exported()
    first = outbox._recent.get(ref.key)
    for number in range(2 * MAX_RECENT):
        outbox._recent[1, number] = first
    assert not outbox.knows(ref.key)
    assert len(outbox._recent) <= 2 * MAX_RECENT


# --- what is weighed is what is held ---------------------------------------------------------------------------------


def weigh_joined(fields):
    """Weigh what was joined to a span anew."""
    return JOINED_BYTES + weigh_fields(fields) if fields else 0


def held_bytes(outbox):
    """Weigh everything in the outbox anew."""
    spans = sum(item.weight() + weigh_joined(item.joined) for item in outbox._spans.all())
    return spans + sum(PATCH_BYTES + weigh_fields(pending.fields) for pending in outbox._patches.all())


@pytest.mark.parametrize("is_queued", [False, True], ids=["patch", "joined"])
def test_a_field_that_is_replaced_weighs_once(scene, is_queued):
    """3,000 updates of one large field take the room of one."""
    target = scene.ended() if is_queued else scene.unseen()
    assert all(om.update_span(target, output=f"{n:05}" * 6_000) for n in range(3_000))
    scene.outbox.weigh_waiting()
    assert scene.stats.buffered_bytes == held_bytes(scene.outbox) < 40 * KIB


def test_a_field_that_is_replaced_fits_where_a_new_one_does_not(make_scene):
    """Near the bound an update that replaces a field is taken, one that adds a field is not."""
    scene = make_scene(max_bytes=64 * KIB)
    assert om.update_span(scene.unseen(), metadata={"a": "x" * 40_000})
    assert om.update_span(scene.unseen(), metadata={"a": "y" * 40_000})
    assert not om.update_span(scene.unseen(), metadata={"b": "z" * 40_000})


def test_the_weight_is_what_is_held_whatever_happens(scene):
    """After joins, retries that take newer updates along, shorter values and failed spans the weight is exact."""
    ref, other = scene.ended(a="live"), scene.unseen()
    om.update_span(ref, metadata={"a": "x" * 500, "b": {"c": [1, 2]}})
    om.update_span(ref, metadata={"a": "x"})
    om.update_span(other, metadata={"a": "x" * 500})
    scene.outbox.weigh_waiting()
    assert scene.stats.buffered_bytes == held_bytes(scene.outbox)
    meanwhile = iter([lambda: om.update_span(other, metadata={"a": "y" * 90, "d": 1})])

    def answer(patch):
        next(meanwhile, lambda: None)()
        return Retry(DeliveryError("connection_failure", "down"))

    scene.patches.answer = answer
    scene.spans.answer = lambda: SpanExportResult.FAILURE
    scene.wait_and_step()
    assert scene.stats.buffered_bytes == held_bytes(scene.outbox) > 0
    scene.patches.answer = lambda patch: Delivered()
    scene.wait_and_step(120_000)
    scene.wait_and_step(1_000)  # not within a second after the spans, which failed again
    assert scene.stats.buffered_bytes == held_bytes(scene.outbox) == 0


def test_patches_push_out_no_span(make_scene):
    """Spans and patches have a bound of their own: as many patches as fit neither evict a span nor hurry one."""
    scene = make_scene(max_bytes=64 * KIB, hold_millis=60_000)
    for number in range(1, 8):
        assert om.update_span(scene.unseen(number), metadata={"text": "x" * 8_000})
    for _ in range(3):
        scene.ended()
    scene.patches.answer = lambda patch: Retry(DeliveryError("connection_failure", "down"))
    scene.wait_and_step()
    assert (scene.stats.spans_evicted, scene.stats.spans_queued) == (0, 3)
    assert om.update_span(scene.ended(), metadata={"a": 1}).route == "in_flight"


def test_spans_take_no_room_of_patches(make_scene):
    """When ended spans fill their bytes, an update for another span still fits."""
    scene = make_scene(max_bytes=64 * KIB)
    with scene.tracer.start_as_current_span("span", attributes={"text": "x" * 64 * KIB}):
        pass
    scene.outbox.weigh_waiting()
    assert om.update_span(scene.unseen(), metadata={"a": 1}).route == "late"


def large(scene, size):
    """End a span with an attribute of this size."""
    with scene.tracer.start_as_current_span("large", attributes={"text": "x" * size}):
        pass
    assert scene.stats.is_balanced  # it is admitted


def test_the_latest_span_is_never_pushed_out_for_bytes(make_scene):
    """A span larger than the bound pushes out the older ones, and still leaves itself."""
    scene = make_scene(max_bytes=60 * KIB)
    for _ in range(20):
        scene.ended()
    large(scene, 64 * KIB)
    scene.wait_and_step()
    assert scene.spans.spans[-1].name == "large"


def test_spans_are_weighed_before_one_is_dropped_for_bytes(make_scene):
    """The bound in bytes holds for what was not weighed yet as well, once something has to be dropped."""
    scene = make_scene(max_bytes=60 * KIB)
    large(scene, 40 * KIB)
    scene.outbox.weigh_waiting()
    for _ in range(16):
        scene.ended()
    large(scene, 25 * KIB)
    assert scene.stats.buffered_bytes == held_bytes(scene.outbox) <= 60 * KIB
    assert scene.stats.spans_queued > 10


# --- what follows its span as a patch --------------------------------------------------------------------------------


@pytest.mark.parametrize("is_exported", [True, False], ids=["remainder", "failed"])
def test_what_follows_a_span_is_bounded_too(make_scene, is_exported):
    """Patches that spans leave behind are bounded as those of updates are: what has no room is lost, and counted."""
    scene = make_scene(dialect=SaysNothing(), max_patches=3, span_retry_millis=0)
    scene.patches.answer = lambda patch: Retry(DeliveryError("connection_failure", "down"))
    scene.spans.answer = None if is_exported else lambda: SpanExportResult.FAILURE
    for n in range(10):
        ref = scene.ended()
        assert om.update_span(ref, metadata={"n": n}).route == "in_flight"
    scene.wait_and_step()
    assert (scene.stats.late, scene.lost) == (3, {"buffer_full": 7})


def test_what_follows_a_span_is_bounded_in_bytes(make_scene):
    """The bound in bytes of the patches holds for what spans leave behind."""
    scene = make_scene(dialect=SaysNothing(), max_bytes=64 * KIB, max_export_batch_size=4)
    scene.patches.answer = lambda patch: Retry(DeliveryError("connection_failure", "down"))
    for _ in range(20):
        scene.ended(text="x" * 8_000)
        scene.wait_and_step()
    assert scene.stats.buffered_bytes <= 64 * KIB
    assert scene.lost["buffer_full"] + scene.stats.late == 20


def test_a_patch_that_is_being_sent_takes_its_place(make_scene):
    """A target whose patch is being sent counts for the bound: should it come back, it has room."""
    scene = make_scene(max_patches=1)
    receipts = []

    def answer(patch):
        receipts.append(om.update_span(scene.unseen(2), metadata={"a": [1]}))
        return Retry(DeliveryError("connection_failure", "down"))

    scene.patches.answer = answer
    om.update_span(scene.unseen(1), metadata={"a": [1]})
    scene.wait_and_step()
    assert [receipt.reason for receipt in receipts] == ["buffer_full"]
    assert scene.stats.late == 1


# --- the work of the application's thread ----------------------------------------------------------------------------


def test_a_burst_that_the_queue_can_hold_is_not_admitted_on_the_applications_thread(make_scene, monkeypatch):
    """Small spans in a burst below the queue's size are left to the worker: none is admitted as it ends."""
    scene = make_scene()
    admitted = []
    monkeypatch.setattr(scene.outbox, "_admit", lambda *_, **__: admitted.append(True))
    for _ in range(2_000):
        with scene.tracer.start_as_current_span("span"):
            pass
    assert (admitted, len(scene.outbox._inbox)) == ([], 2_000)
    monkeypatch.undo()


def test_spans_that_get_larger_are_seen_while_the_worker_hangs(make_scene):
    """After many small spans, large ones that the queue could hold in number are admitted, weighed and bounded."""
    scene = make_scene(max_bytes=16 * KIB * KIB)
    for _ in range(100):
        scene.ended()
    scene.step_all()
    for _ in range(1_000):
        with scene.tracer.start_as_current_span("span", attributes={"text": "x" * 100_000}):
            pass
    assert len(scene.outbox._inbox) + len(scene.outbox._spans.waiting) < 400
