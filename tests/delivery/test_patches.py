"""Patches: coalesced for each target, sent one at a time in ascending version, settled by their outcome."""

from __future__ import annotations

import logging

import pytest
from opentelemetry.sdk.trace.export import SpanExportResult

import otel_metadata as om
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.model.outcome import Delivered, DeliveryError, NotKept, Pause, Rejected, Retry
from otel_metadata.reporting import REPORTER

DOWN = DeliveryError("connection_failure", "down")


def send(scene, *, at=1, **metadata):
    """Update the span of another process."""
    receipt = om.update_span(scene.unseen(at), metadata=metadata)
    assert receipt.route == "late"
    return receipt


# --- coalescing ------------------------------------------------------------------------------------------------------


def test_updates_of_one_target_are_sent_as_one_patch(scene):
    """Waiting updates of one target become one patch, in which the later value of a key stands."""
    send(scene, step=1, a=1)
    send(scene, step=2, b=None)
    scene.wait_and_step()
    assert scene.sent() == [{"a": 1, "step": 2, "b": None}]
    assert (scene.stats.accepted, scene.stats.delivered) == (2, 2)


def test_updates_of_two_targets_are_two_patches_of_one_batch(scene):
    """Patches of different targets that are due at once are sent in one call."""
    send(scene, at=1, a=1)
    send(scene, at=2, b=2)
    scene.wait_and_step()
    assert [[patch.metadata() for patch in call] for call in scene.patches.calls] == [[{"a": 1}, {"b": 2}]]


def test_a_batch_holds_at_most_what_the_exporter_takes(make_scene):
    """No call of the exporter carries more patches than its max_batch."""
    scene = make_scene(patches=InMemoryPatchExporter(max_batch=3))
    for number in range(1, 8):
        send(scene, at=number, n=number)
    scene.wait_and_step()
    assert [len(call) for call in scene.patches.calls] == [3, 3, 1]


def test_a_max_batch_below_one_is_taken_as_one(make_scene):
    """A patch exporter that says max_batch 0 still gets its patches, one at a time."""
    scene = make_scene(patches=InMemoryPatchExporter(max_batch=0))
    send(scene, at=1, a=1)
    send(scene, at=2, b=2)
    scene.wait_and_step()
    assert [len(call) for call in scene.patches.calls] == [1, 1]


def test_a_trace_alone_is_a_target_of_its_own(scene):
    """An update of a trace whose root is not known here is a patch without a span."""
    om.update_trace("ab" * 16, metadata={"source": "api"})
    scene.wait_and_step()
    (patch,) = scene.patches.patches
    assert (patch.target.trace_id_hex, patch.target.span_id, patch.metadata("trace")) == (
        "ab" * 16,
        0,
        {"source": "api"},
    )


def test_a_backend_id_reaches_the_patch_that_already_waits(scene):
    """An id that a later update brings for the same span is on the patch that both became."""
    send(scene, a=1)
    om.update_span(scene.unseen().with_backend_id("galileo", "uuid"), metadata={"b": 2})
    scene.wait_and_step()
    assert scene.patches.patches[0].target.backend_ids == {"galileo": "uuid"}


def test_a_backend_id_that_comes_while_its_patch_is_sent_is_on_the_next_try(scene):
    """An id that an update brings while the patch of its span is being sent is not forgotten by a retry."""
    send(scene, a=1)
    answers = iter([Retry(DOWN), Delivered()])

    def answer(patch):
        om.update_span(scene.unseen().with_backend_id("galileo", "uuid"), metadata={"b": 2})
        return next(answers)

    scene.patches.answer = answer
    scene.wait_and_step()
    scene.wait_and_step()
    assert scene.patches.patches[0].target.backend_ids == {"galileo": "uuid"}


# --- one request in flight for each target ---------------------------------------------------------------------------


def test_an_update_while_its_target_is_sent_makes_another_patch(scene):
    """An update that comes while a patch of its target is being sent is not in that patch, but in the next."""
    send(scene, n=1)
    later = [2]

    def answer(patch):
        if later:
            send(scene, n=later.pop())
        return Delivered()

    scene.patches.answer = answer
    scene.wait_and_step()
    scene.wait_and_step()
    assert scene.sent() == [{"n": 1}, {"n": 2}]


def test_one_target_has_one_request_in_flight(scene):
    """While a patch of a target is being sent, the next one of the same target cannot be claimed."""
    send(scene, n=1)
    scene.clock.advance(5_000)
    first = scene.outbox.claim_patches()
    send(scene, n=2)
    scene.clock.advance(3_600_000)
    assert scene.outbox.claim_patches() == []
    scene.outbox.patches_answered(first, [Delivered()])
    assert [patch.metadata() for patch in scene.outbox.claim_patches()] == [{"n": 2}]


def test_another_target_is_not_held_up(scene):
    """While a patch of one target is being sent, those of others can be claimed."""
    send(scene, at=1, n=1)
    scene.clock.advance(5_000)
    assert scene.outbox.claim_patches()
    send(scene, at=2, n=2)
    scene.clock.advance(5_000)
    assert [patch.metadata() for patch in scene.outbox.claim_patches()] == [{"n": 2}]


def test_versions_of_one_target_ascend(scene):
    """The patches of one target are sent in ascending version, also when one had to be tried again."""
    answers = iter([Retry(DOWN), Delivered(), Delivered(), Delivered()])
    scene.patches.answer = lambda patch: next(answers)
    for n in range(3):
        send(scene, n=n)
        scene.wait_and_step()
    versions = [call[0].version for call in scene.patches.calls]
    assert versions == sorted(versions)


def test_updates_that_come_meanwhile_join_the_retry(scene):
    """A patch that has to be tried again takes along what came for its target meanwhile."""
    send(scene, n=1, kept=True)
    answers = iter([Retry(DOWN), Delivered()])

    def answer(patch):
        if len(scene.patches.calls) == 1:
            send(scene, n=2)
        return next(answers)

    scene.patches.answer = answer
    scene.wait_and_step()
    scene.wait_and_step()
    assert scene.sent() == [{"kept": True, "n": 2}]
    assert scene.stats.delivered == 2


# --- retry -----------------------------------------------------------------------------------------------------------


def test_a_retry_waits_for_the_back_off(scene):
    """After the tries 1, 2, 3 a patch waits 1 s, 2 s, 4 s when chance draws the longest."""
    send(scene, a=1)
    scene.patches.answer = lambda patch: Retry(DOWN)
    scene.wait_and_step()
    waits = []
    for _ in range(3):
        waited = 0
        while scene.step_all() == 0:
            scene.clock.advance(500)
            waited += 500
        waits.append(waited)
    assert waits == [1_000, 2_000, 4_000]


def test_a_retry_obeys_what_the_backend_asked_for(scene):
    """A Retry-After longer than the back-off is waited for."""
    send(scene, a=1)
    answers = iter([Retry(DOWN, after_millis=20_000), Delivered()])
    scene.patches.answer = lambda patch: next(answers)
    scene.wait_and_step()
    assert scene.wait_and_step(19_999) == 0
    assert scene.wait_and_step(1) == 1
    assert (scene.stats.retried, scene.stats.delivered) == (1, 1)


def test_a_patch_that_is_too_old_expires(make_scene):
    """A patch that is still to be tried again after max_age is lost as expired."""
    scene = make_scene(max_age_millis=60_000)
    send(scene, a=1)
    scene.patches.answer = lambda patch: Retry(DOWN)
    scene.wait_and_step()
    assert scene.stats.late == 1
    scene.wait_and_step(60_000)
    assert scene.lost == {"expired": 1}


# --- pause -----------------------------------------------------------------------------------------------------------


def test_a_paused_destination_is_left_alone(make_scene):
    """After a pause no patch is sent, of any target, until pause_millis have passed; then all are."""
    scene = make_scene(pause_millis=60_000)
    answers = iter([Pause(DeliveryError("unauthorized", "the key is wrong"))])
    scene.patches.answer = lambda patch: next(answers, Delivered())
    send(scene, at=1, a=1)
    scene.wait_and_step()
    send(scene, at=2, b=2)
    assert scene.wait_and_step(59_999) == 0
    assert scene.stats.late == 2
    scene.wait_and_step(1)
    assert scene.sent() == [{"b": 2}, {"a": 1}]


def test_a_pause_loses_nothing_within_max_age(make_scene):
    """What waits for a paused destination is kept, probe after probe, until max_age."""
    scene = make_scene(max_age_millis=3_600_000, pause_millis=60_000)
    scene.patches.answer = lambda patch: Pause(DeliveryError("unauthorized", "the key is wrong"))
    send(scene, a=1)
    for _ in range(5):
        scene.wait_and_step(60_000)
    assert (scene.stats.late, scene.lost) == (1, {})


@pytest.mark.parametrize(
    "outcome",
    [
        Pause(DeliveryError("unauthorized", "the key is wrong")),
        Rejected(DeliveryError("segment_not_found", "no such span")),
        Retry(DOWN),
    ],
    ids=["pause", "missing", "retry"],
)
def test_whatever_is_answered_a_patch_expires(make_scene, outcome):
    """A patch that is older than max_age is given up, whichever answer keeps it waiting."""
    scene = make_scene(max_age_millis=60_000, pause_millis=30_000, visibility_millis=3_600_000)
    scene.patches.answer = lambda patch: outcome
    send(scene, a=1)
    for _ in range(5):
        scene.wait_and_step(60_000)
    assert (scene.stats.late, scene.lost) == (0, {"expired": 1})


def test_a_pause_does_not_outlast_the_deadline_of_a_failed_span(make_scene):
    """The patch of a span whose export failed is given up at its deadline, although the destination is paused."""
    scene = make_scene(failed_span_millis=10_000, pause_millis=30_000, span_retry_millis=0)
    ref = scene.ended()
    om.update_span(ref, metadata={"a": 1})
    scene.spans.answer = lambda: SpanExportResult.FAILURE
    scene.patches.answer = lambda patch: Pause(DeliveryError("unauthorized", "the key is wrong"))
    scene.wait_and_step()
    scene.wait_and_step(30_000)
    assert (scene.stats.late, scene.lost) == (0, {"target_not_exported": 1})


def test_spans_leave_while_patches_are_paused(scene):
    """A pause of the patch exporter does not hold back ended spans."""
    scene.patches.answer = lambda patch: Pause(DeliveryError("unauthorized", "the key is wrong"))
    send(scene, a=1)
    scene.wait_and_step()
    assert scene.exported()


# --- rejected --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error_type", "reason"),
    [
        ("unsupported", "unsupported"),
        ("type_conflict", "rejected"),
        ("backend_rejection", "rejected"),
        ("parse_failure", "rejected"),
        ("patch_failure", "rejected"),
        ("unauthorized", "rejected"),
        ("connection_failure", "rejected"),
    ],
)
def test_a_rejected_patch_is_lost_with_its_reason(scene, error_type, reason):
    """A rejection ends the patch at once; the loss is counted by its kind."""
    send(scene, a=1)
    send(scene, b=2)
    scene.patches.answer = lambda patch: Rejected(DeliveryError(error_type, "no"))
    scene.wait_and_step()
    assert (scene.lost, scene.stats.late, scene.stats.retried) == ({reason: 2}, 0, 0)


def test_a_rejection_leaves_the_next_patch_of_its_target_alone(scene):
    """What came while a patch was being sent is sent although that patch was rejected."""
    send(scene, n=1)

    def answer(patch):
        if len(scene.patches.calls) > 1:
            return Delivered()
        send(scene, n=2)
        return Rejected(DeliveryError("type_conflict", "no"))

    scene.patches.answer = answer
    scene.wait_and_step()
    scene.wait_and_step()
    assert (scene.sent(), scene.lost) == ([{"n": 2}], {"rejected": 1})


def test_each_patch_of_a_batch_has_its_own_outcome(scene):
    """One batch can hold a delivered, a retried and a rejected patch, and each is settled by its own outcome."""
    outcomes = {1: Delivered(("shortened",)), 2: Retry(DOWN), 3: Rejected(DeliveryError("type_conflict", "no"))}
    scene.patches.answer = lambda patch: outcomes[patch.target.span_id]
    for number in outcomes:
        send(scene, at=number, n=number)
    scene.wait_and_step()
    stats = scene.stats
    assert (stats.delivered, stats.retried, stats.late, stats.notes, scene.lost) == (1, 1, 1, 1, {"rejected": 1})


# --- exporters that misbehave ----------------------------------------------------------------------------------------


class Misbehaving:
    """A patch exporter whose first calls do something else than they should; then it is a good one."""

    name = "memory"
    max_batch = 10
    grace_millis = 0
    reports_missing = False
    convergence = "versioned"

    def __init__(self, *actions):
        self.actions = list(actions)
        self.patches = []

    def export(self, patches, *, timeout_millis):
        if self.actions:
            return self.actions.pop(0)(patches)
        self.patches.extend(patches)
        return [Delivered()] * len(patches)

    def force_flush(self, timeout_millis=30_000):
        return True

    def shutdown(self, timeout_millis=5_000):
        pass


class _BrokenOutcome:
    """Not an outcome, and hostile."""

    def __getattr__(self, name):
        raise RuntimeError(name)


def _raise(error):
    raise error


def _one_then_raise(patches):
    yield Delivered()
    raise RuntimeError("half way")


@pytest.mark.parametrize(
    "action",
    [
        lambda patches: _raise(RuntimeError("boom")),
        lambda patches: _raise(KeyboardInterrupt()),
        lambda patches: None,
        lambda patches: [],
        lambda patches: 42,
        lambda patches: "delivered",
        lambda patches: [None, None],
        lambda patches: [True, True],
        lambda patches: [Delivered, Delivered],
        lambda patches: [_BrokenOutcome(), _BrokenOutcome()],
        lambda patches: {"first": Delivered()},
        lambda patches: [Retry(None, after_millis="soon")] * 2,
        lambda patches: [Rejected(None), Rejected("no")],
        lambda patches: [Pause(None)] * 2,
    ],
    ids=[
        "raises",
        "interrupts",
        "none",
        "empty",
        "number",
        "text",
        "nones",
        "trues",
        "classes",
        "hostile",
        "mapping",
        "retry",
        "rejected",
        "pause",
    ],
)
def test_an_answer_that_is_no_outcome_is_a_retry(make_scene, action):
    """An exporter that raises, or answers something else than outcomes, is asked again: nothing is lost or stuck."""
    exporter = Misbehaving(action)
    scene = make_scene(patches=exporter)
    send(scene, at=1, a=1)
    send(scene, at=2, b=2)
    scene.wait_and_step()
    assert (scene.stats.late, scene.stats.retried) == (2, 2)
    scene.wait_and_step(60_000)
    assert [patch.metadata() for patch in exporter.patches] == [{"a": 1}, {"b": 2}]
    assert (scene.stats.delivered, scene.stats.late) == (2, 0)


@pytest.mark.parametrize("answer", [lambda patches: [Delivered()], lambda patches: (Delivered() for _ in range(1))])
def test_a_missing_outcome_is_a_retry(make_scene, answer):
    """Of two patches with one outcome the first is delivered, the second tried again."""
    exporter = Misbehaving(answer)
    scene = make_scene(patches=exporter)
    send(scene, at=1, a=1)
    send(scene, at=2, b=2)
    scene.wait_and_step()
    assert (scene.stats.delivered, scene.stats.late) == (1, 1)
    scene.wait_and_step(60_000)
    assert [patch.metadata() for patch in exporter.patches] == [{"b": 2}]


def test_outcomes_that_are_too_many_are_not_looked_at(make_scene):
    """More outcomes than patches settle the patches that there were, in order."""
    scene = make_scene(patches=Misbehaving(lambda patches: [Delivered()] * 5))
    send(scene, a=1)
    scene.wait_and_step()
    assert (scene.stats.delivered, scene.stats.late) == (1, 0)


def test_outcomes_that_raise_half_way_are_a_retry_of_what_is_left(make_scene):
    """When reading the outcomes fails half way, what was answered is settled or tried again, and nothing is stuck."""
    exporter = Misbehaving(_one_then_raise)
    scene = make_scene(patches=exporter)
    send(scene, at=1, a=1)
    send(scene, at=2, b=2)
    scene.wait_and_step()
    scene.wait_and_step(60_000)
    assert (scene.stats.delivered, scene.stats.late) == (2, 0)


def test_notes_that_are_no_sequence_deliver_all_the_same(make_scene):
    """A delivered outcome whose notes cannot be counted is delivered."""
    scene = make_scene(patches=Misbehaving(lambda patches: [Delivered(None)]))
    send(scene, a=1)
    scene.wait_and_step()
    assert (scene.stats.delivered, scene.stats.late) == (1, 0)


def test_a_note_is_a_warning_only_where_something_is_not_kept(scene, caplog):
    """Where a destination keeps things is how it works; that it has not kept one is for somebody to see."""
    caplog.set_level(logging.INFO)
    scene.patches.answer = lambda patch: Delivered(("'a' is elsewhere", NotKept("'b' is too long")))
    om.update_span(scene.unseen(), metadata={"a": 1, "b": 2})
    scene.processor.force_flush()
    assert [(line.levelname, line.getMessage()) for line in caplog.records] == [
        ("INFO", "memory: delivered, but: 'a' is elsewhere."),
        ("WARNING", "memory: delivered, but: 'b' is too long."),
    ]


def test_each_note_is_told_once(scene, caplog):
    """What a backend does to a field is said in the log, and not again for the next patch; all are counted."""
    caplog.set_level(logging.INFO)
    scene.patches.answer = lambda patch: Delivered(("metadata 'k' is kept on an annotation",))
    for number in (1, 2):
        om.update_span(scene.unseen(number), metadata={"k": number})
        scene.processor.force_flush()
    assert [line for line in caplog.messages if "annotation" in line] == [
        "memory: delivered, but: metadata 'k' is kept on an annotation."
    ]
    assert scene.stats.notes == 2


def test_an_update_of_which_a_part_is_given_up_is_lost_once(make_scene):
    """One of its fields was too large and the other arrived: it does not count as delivered."""
    too_large = Rejected(DeliveryError("too_large", "no"))
    scene = make_scene(
        patches=InMemoryPatchExporter(lambda patch: too_large if "a" in patch.metadata() else Delivered())
    )
    send(scene, a=[1], b=[2])
    for _ in range(4):
        scene.wait_and_step(60_000)
    assert (scene.stats.delivered, scene.stats.waiting, scene.lost) == (0, 0, {"rejected": 1})


def test_an_exporter_that_changes_what_it_is_handed_harms_only_itself(make_scene):
    """It empties the patch while it makes its request of it, and fails; the next try is whole."""

    def consume(patches):
        for patch in patches:
            for value, _ in list(patch.fields.values()):
                value.clear()
            patch.fields.clear()
        return [DOWN for _ in patches]

    scene = make_scene(patches=Misbehaving(consume))
    send(scene, a={"kept": 1})
    scene.wait_and_step()
    scene.wait_and_step(60_000)
    assert [patch.metadata() for patch in scene.patches.patches] == [{"a": {"kept": 1}}]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_log_handler_that_raises_leaves_no_patch_claimed(make_scene, monkeypatch, error):
    """What was claimed is answered, whatever the application's handler raises while an exporter's failure is told."""

    def raise_it(*_, **__):
        raise error

    answers = [RuntimeError("boom")]
    scene = make_scene(patches=Misbehaving(lambda patches: _raise(answers.pop()) if answers else [Delivered()]))
    send(scene, a=1)
    with monkeypatch.context() as patch, pytest.raises(error):
        patch.setattr(REPORTER, "tell", raise_it)
        scene.wait_and_step()
    scene.wait_and_step(60_000)
    assert (scene.stats.delivered, scene.stats.waiting) == (1, 0)


def _raise(error):
    raise error
