"""Trying again: spans, batches that cannot be answered, patches that are too large, destinations that are dead."""

from __future__ import annotations

from itertools import pairwise

import pytest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

import otel_metadata as om
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.model.outcome import Delivered, DeliveryError, Pause, Rejected, Retry

DOWN = DeliveryError("connection_failure", "down")
TOO_LARGE = Rejected(DeliveryError("too_large", "413"))


class Sender(SpanExporter):
    """A span exporter that says more than yes or no; each answer is used once, then everything is delivered."""

    def __init__(self, *answers):
        self.answers, self.batches, self.spans = list(answers), [], []

    def send(self, spans, *, timeout_millis):
        self.batches.append(len(spans))
        answer = self.answers.pop(0) if self.answers else Delivered()
        if callable(answer):
            answer = answer(spans)
        if isinstance(answer, Delivered):
            self.spans.extend(spans)
        return answer

    def shutdown(self):
        pass


@pytest.fixture
def sender_scene(make_scene):
    """Make a scene whose span exporter is a `Sender`."""

    def make(*answers, **options):
        scene = make_scene(**options)
        sender = Sender(*answers)
        object.__setattr__(scene.outbox.destination, "span_exporter", sender)
        scene.spans = sender
        return scene

    return make


# --- spans -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [lambda: SpanExportResult.FAILURE, lambda: None, lambda: 1 / 0])
def test_a_span_whose_export_failed_is_tried_again(scene, failure):
    """A failed batch waits for another try, with its live updates, instead of being dropped."""
    ref = scene.ended(step=1)
    scene.spans.answer = failure
    scene.wait_and_step()
    assert (scene.stats.spans_retried, scene.stats.spans_failed, scene.stats.in_flight) == (1, 0, 1)
    scene.spans.answer = None
    scene.wait_and_step(1_000)
    assert scene.on_span(ref) == {"step": 1}
    assert (scene.stats.delivered, scene.lost) == (1, {})


def test_a_failed_batch_is_not_tried_within_a_second(make_scene):
    """However the jitter falls, a destination that failed is left alone for a second."""
    scene = make_scene(chance=0.0)
    calls = []
    scene.ended()
    scene.spans.answer = lambda: calls.append(1) or SpanExportResult.FAILURE
    scene.wait_and_step()
    scene.wait_and_step(999)
    assert len(calls) == 1
    scene.wait_and_step(1)
    assert len(calls) == 2


def test_a_span_is_given_up_after_its_time(make_scene):
    """A span that keeps failing is spans_failed once span_retry_millis have passed, and its live updates are lost."""
    scene = make_scene(span_retry_millis=10_000)
    scene.ended(step=1)
    scene.spans.answer = lambda: SpanExportResult.FAILURE
    for _ in range(8):
        scene.wait_and_step(5_000)
    assert (scene.stats.spans_failed, scene.stats.spans_queued) == (1, 0)
    assert scene.lost == {"target_not_exported": 1}


def test_nothing_is_joined_to_a_span_that_was_sent_once(scene):
    """An update of a span that waits for its second try is a patch: the backend may keep what it got first."""
    ref = scene.ended(step=1)
    scene.spans.answer = lambda: SpanExportResult.FAILURE
    scene.wait_and_step()
    assert om.update_span(ref, metadata={"thumbs": "up"}).route == "late"
    scene.spans.answer = None
    scene.wait_and_step(10_000)
    scene.wait_and_step(10_000)
    assert (scene.on_span(ref), scene.sent()) == ({"step": 1}, [{"thumbs": "up"}])


def test_what_was_joined_before_the_first_try_stays_on_the_span(scene):
    """The second try sends the span as the first did."""
    ref = scene.ended(step=1)
    om.update_span(ref, metadata={"thumbs": "up"})
    scene.spans.answer = lambda: SpanExportResult.FAILURE
    scene.wait_and_step()
    scene.spans.answer = None
    scene.wait_and_step(10_000)
    assert (scene.on_span(ref), scene.stats.delivered) == ({"step": 1, "thumbs": "up"}, 2)


def test_a_span_that_the_exporter_chokes_on_fails_alone(make_scene):
    """A batch that raises is halved until the one span is alone; its siblings are exported."""
    scene = make_scene(max_export_batch_size=8)
    poison = scene.ended(n=0)
    others = [scene.ended(n=number) for number in range(1, 8)]
    exported = scene.spans.export

    def export(spans):
        if any(span.context.span_id == poison.span_id for span in spans):
            raise ValueError("cannot be encoded")
        return exported(spans)

    scene.spans.export = export
    for _ in range(40):
        scene.wait_and_step(15_000)
    assert all(scene.span(ref) is not None for ref in others)
    assert scene.span(poison) is None
    assert (scene.stats.spans_exported, scene.stats.spans_failed) == (7, 1)


def refusing(bad):
    """Return an answer that rejects every batch with a span whose id is in *bad*."""
    return lambda spans: Rejected(DOWN) if {span.context.span_id for span in spans} & set(bad) else Delivered()


def test_a_refused_batch_of_spans_is_halved_at_once(sender_scene):
    """Rejected for a batch is not final for its spans: each half is sent without waiting."""
    bad = []
    scene = sender_scene(*[refusing(bad)] * 20)
    bad.append([scene.ended(n=number) for number in range(4)][2].span_id)
    scene.wait_and_step()
    assert (scene.stats.spans_exported, scene.stats.spans_failed) == (3, 1)
    assert scene.lost == {"target_not_exported": 1}


def test_a_batch_of_spans_that_is_refused_at_shutdown_is_halved_too(sender_scene):
    """One span that a backend refuses takes no other along, also where all of them wait for the shutdown."""
    bad = []
    scene = sender_scene(*[refusing(bad)] * 20)
    bad.append([scene.ended(n=number) for number in range(8)][2].span_id)
    scene.processor.shutdown()
    assert (scene.stats.spans_exported, scene.stats.spans_failed) == (7, 1)
    assert scene.lost == {"target_not_exported": 1}


def test_a_span_whose_id_came_again_is_not_tried_again(scene):
    """Of two spans of one id the later stays; the updates of the one whose export failed are lost, and counted."""
    generator = scene.provider.id_generator
    trace_id, span_id = generator.generate_trace_id(), generator.generate_span_id()
    generator.generate_trace_id, generator.generate_span_id = (lambda: trace_id), (lambda: span_id)

    def answer():
        scene.spans.answer = None
        scene.ended(which="second")
        return SpanExportResult.FAILURE

    ref = scene.ended(which="first")
    scene.spans.answer = answer
    scene.wait_and_step()
    scene.wait_and_step(10_000)
    assert scene.on_span(ref) == {"which": "second"}
    assert (scene.stats.delivered, scene.lost) == (1, {"target_not_exported": 1})
    assert (scene.stats.spans_failed, scene.stats.buffered_bytes) == (1, 0)


def test_spans_obey_what_a_backend_asked_for(sender_scene):
    """A Retry-After of the span exporter is waited for."""
    scene = sender_scene(Retry(DOWN, after_millis=20_000))
    scene.ended()
    scene.wait_and_step()
    scene.wait_and_step(19_999)
    assert len(scene.spans.batches) == 1
    scene.wait_and_step(1)
    assert len(scene.spans.batches) == 2


def test_spans_wait_out_a_pause(sender_scene):
    """A span exporter whose key is refused is asked again after pause_millis, and nothing is given up before."""
    scene = sender_scene(Pause(DeliveryError("unauthorized", "401")), pause_millis=30_000)
    scene.ended(step=1)
    scene.wait_and_step()
    scene.wait_and_step(29_999)
    assert len(scene.spans.batches) == 1
    scene.wait_and_step(1)
    assert scene.stats.delivered == 1


def test_what_a_backend_rejected_of_a_batch_is_noted(sender_scene):
    """A partial success is delivered, and counted as a note."""
    scene = sender_scene(Delivered(("1 span was rejected: too old",)))
    scene.ended(step=1)
    scene.wait_and_step()
    assert (scene.stats.delivered, scene.stats.notes) == (1, 1)


def test_a_flush_does_not_ask_a_dead_span_exporter_for_every_batch(make_scene):
    """A flush of many spans ends after two failures in a row."""
    scene = make_scene(max_export_batch_size=1)
    calls = []
    scene.spans.answer = lambda: calls.append(1) or SpanExportResult.FAILURE
    for _ in range(10):
        scene.ended()
    assert not scene.processor.force_flush()
    assert len(calls) == 2


def test_a_full_outbox_evicts_spans_that_wait_for_another_try_too(make_scene):
    """Spans that are tried again are in the bounds of the outbox."""
    scene = make_scene(max_queue_size=4, max_export_batch_size=4)
    scene.spans.answer = lambda: SpanExportResult.FAILURE
    for number in range(4):
        scene.ended(n=number)
    scene.wait_and_step()
    for number in range(4, 8):
        scene.ended(n=number)
    assert (scene.stats.spans_queued, scene.stats.spans_evicted) == (4, 4)
    assert scene.lost == {"target_not_exported": 4}


# --- patches ---------------------------------------------------------------------------------------------------------


def batches(scene):
    """Return how many patches were in each call."""
    return [len(call) for call in scene.patches.calls]


def update(scene, *numbers):
    """Update spans of another process."""
    for number in numbers:
        assert om.update_span(scene.unseen(number), metadata={"n": number}).route == "late"


def test_a_dead_destination_is_asked_with_one_patch(scene):
    """After a batch that nobody answered, one patch asks whether the destination is back; then all go."""
    update(scene, *range(1, 9))
    scene.patches.answer = lambda patch: Retry(DOWN)
    scene.wait_and_step()
    scene.wait_and_step(10_000)
    scene.patches.answer = None
    for _ in range(4):
        scene.wait_and_step(20_000)
    assert batches(scene)[:3] == [8, 1, 1]
    assert (scene.stats.delivered, scene.stats.late) == (8, 0)


def test_a_dead_destination_is_asked_once_a_second_at_most(make_scene):
    """However the jitter falls, and however many patches wait, there is one try in a second."""
    scene = make_scene(chance=0.0)
    scene.patches.answer = lambda patch: Retry(DOWN)
    update(scene, *range(1, 30))
    scene.clock.advance(5_000)
    for _ in range(100):
        scene.wait_and_step(100)
    assert len(scene.patches.calls) <= 11


def test_spans_and_patches_of_a_dead_destination_share_that_second(make_scene):
    """Where neither is answered, both together are tried once a second."""
    scene = make_scene(chance=0.0)
    tries = []
    scene.spans.answer = lambda: tries.append(scene.clock.monotonic_ns()) or SpanExportResult.FAILURE
    scene.patches.answer = lambda patch: tries.append(scene.clock.monotonic_ns()) or Retry(DOWN)
    scene.ended()
    update(scene, 1)
    for _ in range(400):
        scene.wait_and_step(100)
    assert len(tries) >= 6
    assert all(after - before >= 1_000_000_000 for before, after in pairwise(tries))
    assert scene.spans.spans == scene.patches.patches == []


def test_spans_that_are_answered_are_not_held_back_for_dead_patches(make_scene):
    """They may go to another address: each leaves when it would."""
    scene = make_scene(chance=0.0)
    scene.patches.answer = lambda patch: Retry(DOWN)
    scene.ended()
    scene.wait_and_step()
    update(scene, 1)
    for left in range(2, 100):
        scene.ended()
        scene.wait_and_step(5_000 - 10 * left)  # the dead one is tried in here, or shortly before its end
        scene.wait_and_step(10 * left)
        assert len(scene.spans.spans) == left


def test_a_destination_that_takes_patches_is_not_slowed_by_spans_that_fail(scene):
    """Only where neither is answered do they wait for each other."""
    scene.spans.answer = lambda: SpanExportResult.FAILURE
    scene.ended()
    scene.wait_and_step()
    update(scene, 1)
    scene.processor.force_flush()
    update(scene, 2)
    scene.wait_and_step()
    assert scene.stats.delivered == 2


def test_a_shutdown_asks_a_dead_destination_a_few_times(make_scene):
    """However much waits, a shutdown does not try each span and each patch of a destination that is down."""
    scene = make_scene(patches=InMemoryPatchExporter(lambda patch: Retry(DOWN), max_batch=1), max_export_batch_size=4)
    tries = []
    scene.spans.answer = lambda: tries.append(1) or SpanExportResult.FAILURE
    for number in range(100):
        scene.ended(step=number)
    update(scene, *range(1, 100))
    scene.processor.shutdown()
    assert len(tries) + len(scene.patches.calls) <= 6
    assert scene.stats.is_balanced


def test_one_patch_that_is_retried_does_not_stop_the_others(scene):
    """A retry beside a delivery is about the patch, not about the destination."""
    update(scene, 1, 2, 3)
    scene.patches.answer = lambda patch: Retry(DOWN) if patch.target.span_id == 1 else Delivered()
    scene.wait_and_step()
    update(scene, 4, 5)
    scene.wait_and_step()
    assert {patch.target.span_id for patch in scene.patches.patches} == {2, 3, 4, 5}


def test_a_patch_that_the_exporter_chokes_on_comes_to_be_alone(scene):
    """A batch that raises is halved, down to the one patch; the others are delivered, that one is kept."""
    update(scene, *range(1, 9))

    def answer(patch):
        if patch.target.span_id == 5:
            raise ValueError("cannot be encoded")
        return Delivered()

    scene.patches.answer = answer
    for _ in range(30):
        scene.wait_and_step(20_000)
    assert {patch.target.span_id for patch in scene.patches.patches} == {1, 2, 3, 4, 6, 7, 8}
    assert (scene.stats.delivered, scene.stats.late, scene.lost) == (7, 1, {})
    assert batches(scene)[-1] == 1


def test_a_batch_that_is_too_large_is_halved_at_once(make_scene):
    """too_large for a batch is answered by smaller batches, without waiting and without losing anything."""
    scene = make_scene()
    update(scene, *range(1, 9))
    scene.patches.answer = lambda patch: TOO_LARGE if len(scene.patches.calls[-1]) > 2 else Delivered()
    scene.wait_and_step()
    assert max(batches(scene)[2:]) <= 4
    assert (scene.stats.delivered, scene.lost) == (8, {})


@pytest.mark.parametrize("ends", ["flush", "shutdown"])
def test_a_batch_that_is_too_large_is_halved_within_a_flush_and_a_shutdown(scene, ends):
    """A flush, and a shutdown, wait for the smaller batches: nothing that the backend takes is left or lost."""
    update(scene, *range(1, 9))
    scene.patches.answer = lambda patch: TOO_LARGE if len(scene.patches.calls[-1]) > 2 else Delivered()
    if ends == "flush":
        assert scene.processor.force_flush()
    else:
        scene.processor.shutdown()
    assert (scene.stats.delivered, scene.lost) == (8, {})


def test_a_patch_that_is_too_large_alone_is_sent_in_parts(scene):
    """Its fields are sent in halves, the lowest versions first; its updates are delivered when the last part is."""
    for number in range(4):
        om.update_span(scene.unseen(), metadata={f"k{number}": number})
    scene.patches.answer = lambda patch: TOO_LARGE if len(patch.fields) > 1 else Delivered()
    scene.wait_and_step()
    assert scene.sent() == [{"k0": 0}, {"k1": 1}, {"k2": 2}, {"k3": 3}]
    assert (scene.stats.delivered, scene.stats.late, scene.stats.buffered_bytes) == (4, 0, 0)


def test_one_field_that_is_too_large_is_given_up_alone(scene):
    """The one field that no backend takes is lost; the fields beside it are delivered."""
    om.update_span(scene.unseen(), metadata={"small": 1})
    om.update_span(scene.unseen(), metadata={"large": "x" * 1_000})
    scene.patches.answer = lambda patch: TOO_LARGE if "large" in patch.metadata() else Delivered()
    scene.wait_and_step()
    assert (scene.sent(), scene.lost, scene.stats.delivered) == ([{"small": 1}], {"rejected": 1}, 1)


def test_updates_that_come_between_two_parts_are_sent_after_them(scene):
    """What comes while a patch is sent in parts waits for its turn, versions ascending."""
    om.update_span(scene.unseen(), metadata={"a": 1})
    om.update_span(scene.unseen(), metadata={"b": 1})

    def answer(patch):
        if len(patch.fields) > 1:
            return TOO_LARGE
        if not scene.patches.patches:
            om.update_span(scene.unseen(), metadata={"a": 2})
        return Delivered()

    scene.patches.answer = answer
    scene.wait_and_step()
    scene.wait_and_step()
    assert [patch.metadata() for patch in scene.patches.patches] == [{"a": 1}, {"b": 1}, {"a": 2}]
    assert scene.stats.delivered == 3


def test_a_flush_of_a_dead_destination_ends_after_two_tries(make_scene):
    """A flush does not ask a destination that is down for every patch."""
    scene = make_scene(patches=InMemoryPatchExporter(lambda patch: Retry(DOWN), max_batch=1))
    update(scene, *range(1, 20))
    assert not scene.processor.force_flush()
    assert len(scene.patches.calls) == 2


def test_a_flush_that_waits_for_other_things_does_not_try_again(make_scene):
    """What a flush has tried in vain is left alone, however long the flush goes on for the sake of others."""
    scene = make_scene(chance=0.0, remote_grace_millis=3_000)
    tries = []
    scene.spans.answer = lambda: tries.append("spans") or SpanExportResult.FAILURE
    scene.patches.answer = lambda patch: tries.append("patches") or Retry(DOWN)
    scene.ended()
    update(scene, 1)
    finish = scene.worker.begin_flush(scene.clock.monotonic_ns() + 30_000_000_000)
    for _ in range(20):
        scene.worker.step()
    assert tries == ["spans"]
    scene.clock.advance(3_000)
    scene.step_all()
    assert tries == ["spans", "patches"]
    assert not finish()


# --- dead letters ----------------------------------------------------------------------------------------------------


def test_a_patch_that_is_given_up_is_shown_to_who_asked(make_scene):
    """on_dead_letter gets the patch with its target, fields, reason, error and tries, without a lock of ours held."""
    letters = []
    scene = make_scene(on_dead_letter=letters.append)
    receipt = om.update_span(scene.unseen(), metadata={"a": 1})
    scene.patches.answer = lambda patch: Rejected(DeliveryError("type_conflict", "a is a number there"))
    scene.processor.force_flush()
    (letter,) = letters
    assert (letter.destination, letter.target, letter.updates) == ("memory", scene.unseen(), 1)
    assert letter.fields == {("span", "metadata", "a"): (1, receipt.version)}
    assert (letter.reason, letter.error.type, letter.tries) == ("rejected", "type_conflict", 1)


def test_a_callback_that_raises_harms_nobody(make_scene):
    """A failure of on_dead_letter is logged; delivery goes on."""
    scene = make_scene(on_dead_letter=lambda letter: 1 / 0)
    update(scene, 1, 2)
    scene.patches.answer = lambda patch: Rejected(DOWN) if patch.target.span_id == 1 else Delivered()
    scene.processor.force_flush()
    assert (scene.stats.delivered, scene.lost) == (1, {"rejected": 1})


def test_a_callback_may_update_and_flush(make_scene):
    """on_dead_letter may call us: an update is taken, a flush on our own thread is refused at once."""
    seen = []

    def callback(letter):
        seen.append(om.update_span(om.SpanRef(9, 9), metadata={"because": letter.reason}).route)

    scene = make_scene(on_dead_letter=callback)
    update(scene, 1)
    scene.patches.answer = lambda patch: Rejected(DOWN) if patch.target.span_id == 1 else Delivered()
    scene.processor.force_flush()
    scene.processor.force_flush()
    assert seen == ["late"]
    assert scene.sent() == [{"because": "rejected"}]
