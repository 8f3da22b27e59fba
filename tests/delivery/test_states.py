"""What an update becomes in each state of its span: the table at the head of `delivery.outbox`."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace.export import SpanExportResult

import otel_metadata as om
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.live import routing
from otel_metadata.model.outcome import Delivered, DeliveryError, Rejected, Retry

NOT_FOUND = Rejected(DeliveryError("segment_not_found", "no such span"))
AGAIN = Retry(DeliveryError("connection_failure", "down"))


def during_export(scene, action, result=SpanExportResult.SUCCESS):
    """Let the span exporter do something while it holds the batch, then answer."""

    def answer():
        action()
        return result

    scene.spans.answer = answer


# --- queued ----------------------------------------------------------------------------------------------------------


def test_an_update_of_a_queued_span_is_in_flight(scene):
    """The receipt of an update says in_flight while its span waits in the outbox."""
    ref = scene.ended()
    assert om.update_span(ref, metadata={"thumbs": "up"}).route == "in_flight"


def test_an_update_of_a_queued_span_leaves_on_the_span(scene):
    """What is joined to a queued span is on the span, and in no patch."""
    ref = scene.ended(step=1)
    om.update_span(ref, metadata={"thumbs": "up"})
    scene.wait_and_step()
    assert scene.on_span(ref) == {"step": 1, "thumbs": "up"}
    assert scene.patches.calls == []


def test_a_joined_value_stands_over_the_live_one(scene):
    """Of one key set live and in flight, the later value leaves, as an attribute too."""
    ref = scene.ended(step=1)
    om.update_span(ref, metadata={"step": 2})
    om.update_span(ref, metadata={"step": None})
    scene.wait_and_step()
    assert scene.on_span(ref) == {"step": None}
    assert scene.span(ref).attributes["metadata.step"] == "null"
    assert list(scene.span(ref).attributes["otel_metadata.json"]) == ["metadata.step"]


def test_each_joined_update_is_counted_once(scene):
    """Live and joined updates are accepted as they come and delivered when their span's export was acknowledged."""
    ref = scene.ended(step=1)
    om.update_span(ref, metadata={"a": 1})
    om.update_span(ref, metadata={"a": 2})
    assert (scene.stats.accepted, scene.stats.in_flight, scene.stats.delivered) == (3, 3, 0)
    scene.wait_and_step()
    assert (scene.stats.accepted, scene.stats.in_flight, scene.stats.delivered) == (3, 0, 3)


def test_a_live_update_waits_as_live(scene):
    """An update of a span that has not ended is accepted and counted as live."""
    with scene.tracer.start_as_current_span("span"):
        om.update_current_span(metadata={"step": 1})
        assert (scene.stats.accepted, scene.stats.live) == (1, 1)
    assert (scene.stats.live, scene.stats.in_flight) == (0, 1)


def test_a_span_leaves_when_its_schedule_has_come(scene):
    """A queued span waits for the schedule delay, and not longer."""
    scene.ended()
    scene.clock.advance(4_999)
    assert not scene.worker.step()
    scene.clock.advance(1)
    assert scene.worker.step()
    assert scene.stats.spans_exported == 1


# --- exporting -------------------------------------------------------------------------------------------------------


def test_an_update_while_its_span_is_exported_goes_late(scene):
    """The receipt of an update says late while the export of its span runs, for it can no longer be joined."""
    ref = scene.ended()
    receipts = []
    during_export(scene, lambda: receipts.append(om.update_span(ref, metadata={"thumbs": "up"})))
    scene.clock.advance(5_000)
    scene.worker.step()
    assert [receipt.route for receipt in receipts] == ["late"]


def test_an_update_while_its_span_is_exported_waits_for_the_answer(scene):
    """The patch made during an export is not on the span, and is sent after the export was acknowledged."""
    ref = scene.ended(step=1)
    during_export(scene, lambda: (om.update_span(ref, metadata={"thumbs": "up"}), scene.outbox.claim_patches()))
    scene.wait_and_step()
    scene.wait_and_step()
    assert scene.on_span(ref) == {"step": 1}
    assert scene.sent() == [{"thumbs": "up"}]


def test_no_patch_can_be_claimed_while_its_span_is_exported(scene):
    """While a span is being exported its patch is not claimable, however long the export takes."""
    ref = scene.ended()
    claimed = []

    def look():
        om.update_span(ref, metadata={"thumbs": "up"})
        scene.clock.advance(3_600_000)
        claimed.append(scene.outbox.claim_patches())

    during_export(scene, look)
    scene.clock.advance(5_000)
    scene.worker.step()
    assert claimed == [[]]


def test_an_update_during_a_failing_export_gets_a_deadline(make_scene):
    """A patch made during an export that fails for good is tried for failed_span_millis, then lost."""
    scene = make_scene(failed_span_millis=60_000, span_retry_millis=0)
    ref = scene.ended()
    during_export(scene, lambda: om.update_span(ref, metadata={"thumbs": "up"}), SpanExportResult.FAILURE)
    scene.patches.answer = lambda patch: NOT_FOUND
    scene.wait_and_step()
    scene.wait_and_step()
    assert scene.stats.late == 1
    scene.wait_and_step(60_000)
    assert scene.lost == {"target_not_exported": 1}


# --- exported --------------------------------------------------------------------------------------------------------


def test_an_update_of_an_exported_span_goes_late(scene):
    """The receipt says late once the span's export was acknowledged, and the value arrives as a patch."""
    ref = scene.exported()
    assert om.update_span(ref, metadata={"thumbs": "down"}).route == "late"
    scene.wait_and_step()
    assert scene.sent() == [{"thumbs": "down"}]


def test_a_patch_of_an_exported_span_waits_for_the_grace(make_scene):
    """A patch does not go before the backend's grace after the acknowledged export is over."""
    scene = make_scene(patches=InMemoryPatchExporter(grace_millis=30_000))
    ref = scene.exported()
    om.update_span(ref, metadata={"thumbs": "down"})
    assert scene.wait_and_step(29_999) == 0
    assert scene.wait_and_step(1) == 1
    assert scene.sent() == [{"thumbs": "down"}]


def test_a_patch_knows_the_window_of_an_exported_span(scene):
    """A patch for a span that was exported here carries the span's start and end."""
    ref = scene.exported()
    om.update_span(ref, metadata={"thumbs": "down"})
    scene.wait_and_step()
    span = scene.span(ref)
    assert scene.patches.patches[0].window_ns == (span.start_time, span.end_time)


# --- failed ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [lambda: SpanExportResult.FAILURE, lambda: None, lambda: 1 / 0],
    ids=["refused", "garbage", "raised"],
)
def test_a_failed_export_loses_the_live_updates(make_scene, answer):
    """A live update shares the fate of its span: when the export fails for good, it is lost as target_not_exported."""
    scene = make_scene(span_retry_millis=0)
    scene.ended(step=1)
    scene.spans.answer = answer
    scene.wait_and_step()
    assert scene.lost == {"target_not_exported": 1}
    assert scene.stats.spans_failed == 1


def test_a_failed_export_turns_joined_updates_into_a_patch(make_scene):
    """What was joined to a span that failed for good is sent as a patch: the backend may have the span after all."""
    scene = make_scene(span_retry_millis=0)
    ref = scene.ended(step=1)
    om.update_span(ref, metadata={"thumbs": "up"})
    scene.spans.answer = lambda: SpanExportResult.FAILURE
    scene.wait_and_step()
    scene.wait_and_step(1_000)  # a destination that never answered is asked once a second
    assert scene.sent() == [{"thumbs": "up"}]
    assert (scene.stats.delivered, scene.lost) == (1, {"target_not_exported": 1})


def test_joined_updates_of_a_failed_span_that_is_nowhere_are_lost(make_scene):
    """A patch of a failed span that the backend keeps not finding is lost as target_not_exported at its deadline."""
    scene = make_scene(failed_span_millis=60_000, span_retry_millis=0)
    ref = scene.ended()
    om.update_span(ref, metadata={"thumbs": "up"})
    scene.spans.answer = lambda: SpanExportResult.FAILURE
    scene.patches.answer = lambda patch: NOT_FOUND
    scene.wait_and_step()
    assert scene.stats.late == 1
    scene.wait_and_step(60_000)
    assert (scene.stats.late, scene.lost) == (0, {"target_not_exported": 1})


def test_a_patch_of_a_failed_span_is_not_retried_beyond_its_deadline(make_scene):
    """A destination that stays down loses the patch of a failed span when its deadline has passed."""
    scene = make_scene(failed_span_millis=60_000, span_retry_millis=0)
    ref = scene.ended()
    om.update_span(ref, metadata={"thumbs": "up"})
    scene.spans.answer = lambda: SpanExportResult.FAILURE
    scene.patches.answer = lambda patch: AGAIN
    scene.wait_and_step()
    scene.wait_and_step(60_000)
    assert scene.lost == {"target_not_exported": 1}


def test_an_update_after_a_failed_export_has_a_deadline_too(make_scene):
    """An update that comes after its span's export failed is tried until a deadline, then lost."""
    scene = make_scene(failed_span_millis=60_000, span_retry_millis=0)
    ref = scene.ended()
    scene.spans.answer = lambda: SpanExportResult.FAILURE
    scene.patches.answer = lambda patch: NOT_FOUND
    scene.wait_and_step()
    assert om.update_span(ref, metadata={"thumbs": "up"}).route == "late"
    scene.wait_and_step()
    scene.wait_and_step(60_000)
    assert scene.lost == {"target_not_exported": 1}


# --- evicted ---------------------------------------------------------------------------------------------------------


def test_an_evicted_span_loses_its_updates(make_scene):
    """The oldest span leaves a full outbox, and its live and joined updates are lost as target_not_exported."""
    scene = make_scene(max_queue_size=2, max_export_batch_size=2)
    first = scene.ended(step=1)
    om.update_span(first, metadata={"thumbs": "up"})
    scene.ended()
    scene.ended()
    assert scene.stats.spans_evicted == 1
    assert scene.lost == {"target_not_exported": 2}


def test_an_update_of_an_evicted_span_is_dropped(make_scene):
    """An update of a span that was evicted is false and says target_not_exported."""
    scene = make_scene(max_queue_size=1, max_export_batch_size=1)
    first = scene.ended()
    scene.ended()
    receipt = om.update_span(first, metadata={"thumbs": "up"})
    assert not receipt
    assert receipt.routes["memory"] == ("dropped", "target_not_exported")


def test_an_eviction_ends_the_patch_that_waits_for_the_span(make_scene):
    """A patch that waits for a span, made before the span came, is lost with it when it is evicted."""
    scene = make_scene(max_queue_size=1, max_export_batch_size=1)
    with scene.tracer.start_as_current_span("span") as span:
        ref = om.SpanRef.from_span_context(span.get_span_context())
        # As another process would have it: the outbox does not know this span yet.
        scene.submit(ref, {("span", "metadata", "early"): (True, (1, 1))})
    scene.ended()
    assert scene.lost == {"target_not_exported": 1}


# --- unseen ----------------------------------------------------------------------------------------------------------


def test_an_unseen_span_waits_for_the_remote_grace(make_scene):
    """An update for a span of another process waits for the remote grace before it is sent."""
    scene = make_scene(remote_grace_millis=20_000)
    assert om.update_span(scene.unseen(), metadata={"thumbs": "up"}).route == "late"
    assert scene.wait_and_step(19_999) == 0
    assert scene.wait_and_step(1) == 1
    assert scene.sent() == [{"thumbs": "up"}]


def test_an_unseen_span_that_is_not_found_is_tried_again(scene):
    """`segment_not_found` for an unseen span is answered with another try inside the visibility window."""
    om.update_span(scene.unseen(), metadata={"thumbs": "up"})
    answers = iter([NOT_FOUND, NOT_FOUND, Delivered()])
    scene.patches.answer = lambda patch: next(answers)
    for _ in range(3):
        scene.wait_and_step()
    assert (scene.stats.retried, scene.stats.delivered, scene.sent()) == (2, 1, [{"thumbs": "up"}])


def test_an_unseen_span_that_is_never_found_is_lost(make_scene):
    """After the visibility window, counted from the first such answer, the patch is lost as target_not_found."""
    scene = make_scene(visibility_millis=30_000)
    om.update_span(scene.unseen(), metadata={"thumbs": "up"})
    scene.patches.answer = lambda patch: NOT_FOUND
    scene.wait_and_step()
    scene.wait_and_step(29_999)
    assert scene.stats.late == 1
    scene.wait_and_step(60_000)
    assert scene.lost == {"target_not_found": 1}


def test_a_span_that_comes_after_its_update_goes_first(scene):
    """When the span of a waiting patch ends here after all, the span is exported first and the patch follows."""
    with scene.tracer.start_as_current_span("span") as span:
        ref = om.SpanRef.from_span_context(span.get_span_context())
        scene.submit(ref, {("span", "metadata", "early"): (True, (1, 1))})
    assert scene.stats.spans_queued == 1
    order = []
    scene.spans.answer = lambda: order.append("span") or SpanExportResult.SUCCESS
    scene.patches.answer = lambda patch: order.append("patch") or Delivered()
    for _ in range(3):
        scene.wait_and_step()
    assert order == ["span", "patch"]


@pytest.mark.parametrize("is_sent", [False, True], ids=["waits", "is sent"])
@pytest.mark.parametrize("convergence", ["ordered", "versioned"])
def test_no_update_overtakes_a_patch_of_its_span(make_scene, convergence, is_sent):
    """Where the backend does not compare versions, an update of a span whose patch waits is merged into the patch."""
    scene = make_scene(patches=InMemoryPatchExporter(convergence=convergence), remote_grace_millis=0)
    span = scene.tracer.start_span("span")
    ref = om.SpanRef.from_span_context(span.get_span_context())
    scene.submit(ref, {("span", "metadata", "a"): ("first", (1, 1))})
    routes = []

    def end_and_update():
        span.end()
        routes.append(om.update_span(ref, metadata={"a": "second"}).route)

    if is_sent:
        scene.clock.advance(5_000)
        batch = scene.outbox.claim_patches()
        end_and_update()
        scene.outbox.patches_answered(batch, [AGAIN])
    else:
        end_and_update()
    for _ in range(4):
        scene.wait_and_step()
    arrived = [scene.on_span(ref), *scene.sent()]
    if convergence == "ordered":
        assert (routes, arrived) == (["late"], [{}, {"a": "second"}])
    else:
        assert (routes, arrived) == (["in_flight"], [{"a": "second"}, {"a": "first"}])


def test_a_second_update_of_an_unseen_span_is_still_late(scene):
    """A span that only patches name is no span that is known: every update of it goes late."""
    routes = [om.update_span(scene.unseen(), metadata={"n": n}).route for n in range(3)]
    assert routes == ["late", "late", "late"]


# --- destinations whose spans leave by other means -------------------------------------------------------------------


def test_in_flight_never_occurs_where_spans_leave_by_other_means(make_scene):
    """With spans=False an update after the span's end is late at once, and leaves as a patch."""
    scene = make_scene(with_spans=False)
    ref = scene.ended(step=1)
    assert om.update_span(ref, metadata={"thumbs": "up"}).route == "late"
    scene.wait_and_step()
    scene.wait_and_step()
    assert scene.sent() == [{"thumbs": "up"}]
    assert scene.stats.delivered == 2


def test_a_patch_waits_for_the_grace_where_spans_leave_by_other_means(make_scene):
    """With spans=False a patch goes after the span's end, its schedule and the backend's grace."""
    scene = make_scene(with_spans=False, patches=InMemoryPatchExporter(grace_millis=30_000))
    ref = scene.ended()
    om.update_span(ref, metadata={"thumbs": "up"})
    scene.wait_and_step(5_000)
    assert scene.sent() == []
    scene.wait_and_step(29_999)
    assert scene.sent() == []
    scene.wait_and_step(1)
    assert scene.sent() == [{"thumbs": "up"}]


# --- ids that repeat -------------------------------------------------------------------------------------------------


def test_a_repeated_span_id_keeps_the_later_span_and_the_balance(scene):
    """When an id generator repeats itself one of the two spans stays, and the updates of the other are lost."""
    generator = scene.provider.id_generator
    trace_id, span_id = generator.generate_trace_id(), generator.generate_span_id()
    generator.generate_trace_id, generator.generate_span_id = (lambda: trace_id), (lambda: span_id)
    scene.ended(which="first")
    ref = scene.ended(which="second")
    scene.wait_and_step()
    assert scene.on_span(ref) == {"which": "second"}
    assert (scene.stats.spans_evicted, scene.lost) == (1, {"target_not_exported": 1})


def test_a_span_that_ends_while_it_is_updated_has_no_note_about_attributes(scene, monkeypatch):
    """The update goes on in flight, where nothing is shown on the span."""
    span = scene.tracer.start_span("live")

    def ends_meanwhile(span):
        span.end()
        scene.outbox.weigh_waiting()
        return True

    monkeypatch.setattr(routing, "is_interrupted", ends_meanwhile)
    receipt = om.update_span(span, name="other")
    assert (receipt.route, receipt.notes) == ("in_flight", ())
