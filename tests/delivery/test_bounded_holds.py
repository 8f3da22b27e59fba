"""Others get the one lock after a bounded number of entries, however many wait; counted, not timed."""

from __future__ import annotations

import gc
import heapq
import sys
from functools import partial

import pytest
from opentelemetry.sdk.trace.export import SpanExportResult
from tests.delivery.conftest import SaysNothing

import otel_metadata as om
from otel_metadata.delivery import waiting_patches
from otel_metadata.delivery.flush import FlushTicket
from otel_metadata.delivery.stats import Moment
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.live import registry, routing
from otel_metadata.live.registry import REGISTRY
from otel_metadata.locks import PORTION, ReentrantLock
from otel_metadata.model import weight
from otel_metadata.model.outcome import Delivered, DeliveryError, Rejected, Retry

MANY = 1_000
BOUND = 300
"""Operations after which others get the lock: some for each entry of a batch or portion."""

DOWN = Retry(DeliveryError("connection_failure", "down"))


LOCK = registry.LOCK


class CountingLock:
    """The process's lock, and how much is done until others get it.

    A thread that takes the lock again at once has it before one that waits. So only where the lock gives way, or an
    exporter is called, others get it.

    Attributes:
        longest: The most operations in a row.
        ways: How often the lock gave way.
        meanwhile: Called where others get the lock.
    """

    portions = ReentrantLock.portions

    def __init__(self) -> None:
        """Count nothing yet."""
        self._depth = 0
        self.meanwhile = lambda: None
        self.start()

    def start(self) -> None:
        """Count from zero."""
        self.longest = self._done = self.ways = 0

    def __enter__(self) -> None:
        LOCK.acquire()
        self._depth += 1

    def __exit__(self, *exc: object) -> None:
        self._depth -= 1
        LOCK.release()

    def give_way(self) -> None:
        if not self._depth:
            self.ways += 1
            meanwhile, self.meanwhile = self.meanwhile, lambda: None
            meanwhile()
            self.meanwhile = meanwhile
            self._done = 0

    def counting(self, call):
        """Return *call*, counted where it is made while the lock is held."""

        def counted(*args, **named):
            self._done += self._depth > 0
            self.longest = max(self.longest, self._done)
            return call(*args, **named)

        return counted

    def leaving(self, call):
        """Return *call*, during which others get the lock."""

        def left(*args, **named):
            self._done = 0
            return call(*args, **named)

        return left


@pytest.fixture
def count_in(monkeypatch):
    """Give a scene's outbox a lock that counts operations of heaps, and what is taken in, left or weighed."""
    return partial(counting_lock, monkeypatch)


@pytest.fixture
def lock(scene, count_in):
    """The lock of the scene."""
    return count_in(scene)


def counting_lock(monkeypatch, scene):
    lock = CountingLock()
    monkeypatch.setattr(scene.outbox, "_lock", lock)
    monkeypatch.setattr(routing, "LOCK", lock)
    monkeypatch.setattr(registry, "LOCK", lock)
    for exporter in (scene.patches, scene.spans):
        monkeypatch.setattr(exporter, "export", lock.leaving(exporter.export))
    for name in ("heappush", "heappop"):
        monkeypatch.setattr(waiting_patches.heapq, name, lock.counting(getattr(heapq, name)))
    monkeypatch.setattr(weight, "getsizeof", lock.counting(sys.getsizeof))
    monkeypatch.setattr(scene.outbox, "_add_late", lock.counting(scene.outbox._add_late))
    monkeypatch.setattr(scene.outbox, "_put", lock.counting(scene.outbox._put))
    monkeypatch.setattr(scene.outbox, "_note_given_up", lock.counting(scene.outbox._note_given_up))
    monkeypatch.setattr(scene.outbox, "lose_live", lock.counting(scene.outbox.lose_live))
    monkeypatch.setattr(scene.outbox._patches.settled, "gone", lock.counting(scene.outbox._patches.settled.gone))
    monkeypatch.setattr(scene.outbox._spans, "note_size", lock.counting(scene.outbox._spans.note_size))
    monkeypatch.setattr(FlushTicket, "hurry", lock.counting(FlushTicket.hurry))
    return lock


def waiting(scene, many=MANY):
    """Let many patches wait; return their refs."""
    refs = [scene.unseen(number + 1) for number in range(many)]
    for ref in refs:
        om.update_span(ref, metadata={"a": 1})
    scene.outbox.weigh_waiting()
    return refs


def test_a_flush_looks_at_few_patches_that_others_left_due(scene, lock):
    """While a destination is left alone, a flush of one patch does not go through all that are due."""
    refs = waiting(scene)
    scene.clock.advance(3_600_000)
    scene.patches.answer = lambda patch: DOWN
    scene.worker.step()
    ticket = FlushTicket(scene.clock.monotonic_ns() + 10**12, lambda: None)
    ticket.keys.add(refs[-1].key)
    ticket.is_filling = False
    key = refs[-1].key
    with lock:
        scene.outbox._flushes.add(ticket)
        pending = scene.outbox._patches.waiting.get(key)
        pending.earliest_ns = scene.clock.monotonic_ns() + 10**8
        scene.outbox._patches.make_due(key, pending, pending.earliest_ns)
    lock.start()
    assert scene.outbox.claim_patches() == []
    assert scene.outbox.next_due_ns() == pending.earliest_ns
    scene.clock.advance(100)
    batch = scene.outbox.claim_patches()
    assert [patch.target.key for patch in batch] == [key]
    assert lock.longest <= BOUND


def test_what_a_flush_left_in_the_schedule_is_passed_over_in_portions(scene, lock):
    """After a flush has sent everything, its old entries of the schedule are not all looked at in one hold."""
    waiting(scene)
    assert scene.processor.force_flush()
    lock.start()
    scene.clock.advance(3_600_000)
    late = scene.unseen(MANY + 1)
    om.update_span(late, metadata={"a": 1})
    scene.clock.advance(3_600_000)
    scene.step_all()
    assert late.key in [patch.target.key for patch in scene.patches.patches]
    assert 0 < lock.longest <= BOUND


def test_a_flush_of_a_dead_destination_holds_the_lock_for_few(scene, lock):
    """From the request to the end of the flush no hold deals with more than a batch and a portion."""
    waiting(scene)
    lock.start()
    scene.patches.answer = lambda patch: DOWN
    assert not scene.processor.force_flush()
    assert 0 < lock.longest <= BOUND


def test_repeated_flushes_leave_no_entries_behind(scene):
    """Flushes of a dead destination let neither heap grow: each patch has at most an entry for each of its times."""
    waiting(scene, 100)
    scene.patches.answer = lambda patch: DOWN
    for _ in range(20):
        scene.processor.force_flush()
    patches = scene.outbox._patches
    assert len(patches._due) + len(patches._asked) <= 500


def test_what_arrives_during_a_request_is_taken_in_in_portions(scene, lock, unknown_keys):
    """Thousands of updates that came while the exporter was busy are taken in before the answer is settled."""
    for key in ("a", "b"):
        om.update_span(scene.unseen(99), metadata={key: 0})
    scene.clock.advance(3_600_000)
    batch = scene.outbox.claim_patches()
    for settle in (
        lambda: scene.outbox.patches_answered(batch, [Delivered()] * len(batch)),
        lambda: scene.outbox.spans_answered([], Delivered(), []),
    ):
        for number in range(MANY):
            om.update_span(scene.unseen(number + 1), metadata={"a": number})
        assert len(scene.outbox._late) == MANY
        lock.start()
        settle()
        assert not scene.outbox._late
        assert 0 < lock.longest <= BOUND


def long(start):
    """A list that takes long to weigh: each of its numbers is an object of its own."""
    return list(range(start, start + MANY))


HELD_BY = {
    "a live span": lambda scene: scene.tracer.start_span("live"),
    "a span that waits": lambda scene: scene.ended(),
    "a patch": lambda scene: scene.unseen(),
}


@pytest.mark.parametrize("held_by", HELD_BY)
def test_a_container_is_weighed_before_the_lock_is_taken(scene, lock, held_by):
    """Neither a container that comes nor one that it replaces, or that a scalar replaces, is weighed in a hold."""
    target = HELD_BY[held_by](scene)
    for value in (
        long(1_000),
        long(5_000),
        [long(9_000)],
        [1_000, 2_000],
        "text",
        long(3_000),
        {"a": long(7_000)},
        None,
    ):
        assert om.update_span(target, metadata={"a": value, "b": 1})
    assert 0 < lock.longest <= BOUND


def test_a_container_that_is_sent_again_is_not_weighed_in_a_hold(scene, lock):
    """What comes while a patch is being sent, and waits with it after a failure, keeps its weight."""
    ref = scene.unseen()
    om.update_span(ref, metadata={"a": long(1_000), "b": long(5_000)})
    scene.clock.advance(3_600_000)
    batch = scene.outbox.claim_patches()
    om.update_span(ref, metadata={"a": long(9_000), "c": long(3_000)})
    scene.outbox.patches_answered(batch, [DOWN])
    om.update_span(ref, metadata={"a": 1, "b": 1, "c": long(2_000)})
    assert lock.longest <= BOUND
    pending = scene.outbox._patches.waiting.get(ref.key)
    name = ("span", "metadata", "c")
    assert dict(pending.large) == {name: weight.weigh_value(pending.fields[name][0])}
    assert pending.size == weight.PATCH_BYTES + weight.weigh_fields(pending.fields)


def test_fields_that_follow_a_span_are_not_weighed_in_a_hold(make_scene, monkeypatch):
    """What a dialect cannot say, and what was joined to a span that failed, waits as a patch with its weight."""
    scene = make_scene(dialect=SaysNothing(), span_retry_millis=0)
    lock = CountingLock()
    monkeypatch.setattr(scene.outbox, "_lock", lock)
    monkeypatch.setattr(weight, "getsizeof", lock.counting(sys.getsizeof))
    for answer in (SpanExportResult.SUCCESS, SpanExportResult.FAILURE):
        scene.spans.answer = lambda answer=answer: answer
        om.update_span(scene.ended(), metadata={"a": long(1_000)})
        lock.start()
        scene.clock.advance(3_600_000)
        scene.worker.step()
        assert lock.longest <= BOUND


def test_an_update_looks_for_its_span_once(scene, monkeypatch):
    """With one processor nobody is asked whether it knows the span before it takes the update."""
    monkeypatch.setattr(scene.outbox, "knows", None)
    assert om.update_span(scene.unseen(), metadata={"a": [1]}).route == "late"


def test_ended_spans_are_taken_in_in_portions_before_an_update_is_placed(scene, lock):
    """An update that finds a full inbox takes it in, but not in one hold."""
    scene.outbox._inbox_room = scene.outbox._inbox_bound = 2 * MANY
    for _ in range(MANY):
        with scene.tracer.start_as_current_span("span") as span:
            pass
    lock.start()
    assert om.update_span(span, metadata={"a": [1]}).route == "in_flight"
    assert 0 < lock.longest <= BOUND


# --- what others find where they get the lock -----------------------------------------------------------------------


def flush(scene):
    scene.patches.answer = lambda patch: DOWN
    assert not scene.processor.force_flush()


def flush_what_arrives(scene):
    assert scene.processor.force_flush()
    assert scene.stats.delivered >= MANY


def pass_over_what_is_out_of_date(scene):
    flush(scene)
    scene.clock.advance(3_600_000)
    scene.patches.answer = None
    assert scene.step_all()


def take_in_updates(scene):
    for number in range(MANY):
        om.update_span(scene.unseen(number + 1), metadata={"a": 1})
    assert scene.stats.late > MANY


def take_in_spans(scene):
    scene.outbox._inbox_room = scene.outbox._inbox_bound = 2 * MANY
    for _ in range(MANY):
        scene.tracer.start_span("span").end()
    assert scene.stats.spans_queued == MANY


def weigh_spans(scene):
    take_in_spans(scene)
    scene.outbox.weigh_waiting()


def updated_live_spans(scene):
    spans = [scene.tracer.start_span("live") for _ in range(MANY)]
    for span in spans:
        om.update_span(span, metadata={"a": 1})
    return spans


def shut_down(scene):
    scene.patches.answer = lambda patch: DOWN
    scene.processor.shutdown()
    assert scene.lost["shutdown_deadline"] >= MANY


def shut_down_with_spans(scene):
    scene.spans.answer = lambda: SpanExportResult.FAILURE
    for span in updated_live_spans(scene):
        span.end()
    shut_down(scene)
    assert scene.lost["target_not_exported"] + scene.lost["shutdown_deadline"] >= 2 * MANY


def drop_live_spans(scene):
    spans = updated_live_spans(scene)
    scene.processor.shutdown()
    assert scene.lost == {"target_not_exported": len(spans)}


def forget_live_spans(scene):
    updated_live_spans(scene)
    gc.collect()
    assert (scene.stats.live, scene.lost) == (0, {"target_not_exported": MANY})


LONG = (
    flush,
    flush_what_arrives,
    pass_over_what_is_out_of_date,
    take_in_updates,
    take_in_spans,
    weigh_spans,
    shut_down,
    shut_down_with_spans,
    drop_live_spans,
    forget_live_spans,
)


@pytest.mark.parametrize("call", LONG)
def test_others_get_the_lock_between_portions_and_find_the_balance_even(make_scene, count_in, unknown_keys, call):
    """A call that deals with many gives way to others, who update and count; nothing is lost or counted twice."""
    scene = make_scene(max_queue_size=2 * MANY, max_export_batch_size=PORTION)
    lock = count_in(scene)
    refs = waiting(scene)

    def meanwhile():
        before = scene.stats
        is_taken = bool(om.update_span(refs[lock.ways % MANY], metadata={"a": lock.ways}))
        after = scene.stats
        assert before.is_balanced
        assert after.is_balanced
        assert after.accepted == before.accepted + is_taken

    lock.meanwhile = meanwhile
    lock.start()
    call(scene)
    assert lock.ways >= MANY // PORTION
    assert lock.longest <= BOUND


def test_what_arrived_is_taken_in_in_portions_before_it_is_given_up(scene, lock, unknown_keys):
    """Updates that came after the last step of the worker are counted as lost."""
    for number in range(MANY):
        om.update_span(scene.unseen(number + 1), metadata={"a": 1})
    lock.start()
    assert scene.outbox.give_up("shutdown_deadline") == (0, MANY, ["shutdown_deadline"])
    assert 0 < lock.longest <= BOUND


def test_a_worker_that_comes_back_while_everything_is_given_up_changes_no_count_twice(make_scene, count_in):
    """What it settles is not given up any more, what was given up is not settled, and it gets nothing new."""
    scene = make_scene(max_queue_size=2 * MANY, max_export_batch_size=10)
    lock = count_in(scene)
    outbox = scene.outbox
    for span in updated_live_spans(scene):
        span.end()
    waiting(scene)
    scene.clock.advance(3_600_000)
    spans, refused, patches = outbox.claim_spans(), outbox.claim_spans(), outbox.claim_patches()
    outbox.close()
    answers = [
        lambda: outbox.spans_answered(spans, Delivered(), [{} for _ in spans]),
        lambda: outbox.spans_answered(refused, Rejected(DeliveryError("unknown", "no")), [{} for _ in refused]),
        lambda: outbox.patches_answered(patches[::2], [Delivered()] * len(patches[::2])),
        lambda: outbox.patches_answered(patches[1::2], [DOWN] * len(patches[1::2])),
    ]

    def meanwhile():
        assert (list(outbox.claim_spans()), list(outbox.claim_patches())) == ([], [])
        if answers:
            answers.pop(0)()
        assert scene.stats.is_balanced

    lock.meanwhile = meanwhile
    outbox.give_up("shutdown_deadline")
    counts = scene.stats
    assert (answers, counts.waiting, counts.buffered_bytes) == ([], 0, 0)
    assert counts.delivered == len(spans) + len(patches[::2])
    assert counts.spans_exported + counts.spans_evicted + counts.spans_failed == MANY


@pytest.mark.parametrize("with_thread", [True, False])
def test_others_get_the_lock_after_each_step_of_the_worker(monkeypatch, with_thread):
    """Also where the exporter takes no time, and where the caller does the worker's work."""
    exporter = InMemoryPatchExporter(max_batch=1)
    processor = om.MetadataSpanProcessor(om.Destination("memory", None, exporter, spans=False), start_workers=False)
    ways = []
    monkeypatch.setattr(processor.outboxes[0], "give_way", lambda: ways.append(len(exporter.calls)))
    for number in range(20):
        assert om.update_span(om.SpanRef(0xABC, number + 1), metadata={"a": 1})
    if with_thread:
        assert processor.workers[0]._start()
    assert processor.force_flush()
    om.update_span(om.SpanRef(0xABC, 1), metadata={"a": 2})
    processor.shutdown()
    assert ways == list(range(1, 22))


# --- stats counts patches without the lock ---------------------------------------------------------------------------


def set_more(scene, ref):
    om.update_span(ref, metadata={"c": 3})
    om.update_span(scene.unseen(2), metadata={"a": 1})
    scene.outbox.weigh_waiting()


def deliver(scene, ref):
    assert scene.wait_and_step()


def send_in_vain(scene, ref):
    scene.patches.answer = lambda patch: om.update_span(ref, metadata={"c": 3}) and DOWN
    assert scene.wait_and_step()


def deliver_a_half(scene, ref):
    too_large = Rejected(DeliveryError("too_large", "no"))
    answers = {1: Delivered(), 0: too_large}
    scene.patches.answer = lambda patch: answers[len(patch.fields) == 1] if "a" in patch.metadata() else DOWN
    assert scene.wait_and_step()


@pytest.mark.parametrize("change", [set_more, deliver, send_in_vain, deliver_a_half])
def test_patches_that_change_while_stats_counts_them_count_as_they_were(scene, monkeypatch, change):
    """The counts are those of one moment, also where others change patches, or let them go, before they are counted."""
    ref = scene.unseen()
    for key in ("a", "b"):
        om.update_span(ref, metadata={key: 1})
    before = scene.stats
    count = Moment.stats

    def count_late(moment, partition):
        monkeypatch.setattr(Moment, "stats", count)
        change(scene, ref)
        assert scene.stats.is_balanced  # another thread asks
        return count(moment, partition)

    monkeypatch.setattr(Moment, "stats", count_late)
    assert scene.stats == before
    assert scene.stats != before
    assert [one() for one in scene.outbox._patches._counting] == [None]


def end_them(scene, spans):
    for span in spans:
        span.end()
    scene.outbox.weigh_waiting()


def forget_them(scene, spans):
    spans.clear()
    gc.collect()
    REGISTRY.bury()


def drop_them(scene, spans):
    REGISTRY.drop(scene.processor)


def start_more(scene, spans):
    updated_live_spans(scene)


@pytest.mark.parametrize("call", [end_them, forget_them, drop_them, start_more])
def test_live_spans_that_end_while_stats_counts_them_count_once(scene, monkeypatch, call):
    """Their updates are accepted and live, as they were when the lock was held, whatever has become of them since."""
    spans = updated_live_spans(scene)
    before = scene.stats
    assert (before.accepted, before.live) == (MANY, MANY)
    count = Moment.stats

    def count_late(moment, partition):
        monkeypatch.setattr(Moment, "stats", count)
        call(scene, spans)
        assert scene.stats.is_balanced  # another thread asks
        return count(moment, partition)

    monkeypatch.setattr(Moment, "stats", count_late)
    assert scene.stats == before
    assert scene.stats != before


def test_a_live_span_of_two_processors_counts_in_the_one_that_it_does_not_leave(scene, monkeypatch):
    """One is shut down while the other counts; each counts the span as it was."""
    destination = om.Destination("other", None, InMemoryPatchExporter(), spans=False)
    other = om.MetadataSpanProcessor(destination, start_workers=False)
    scene.provider.add_span_processor(other)
    span = scene.tracer.start_span("live")
    om.update_span(span, metadata={"a": 1})
    counts = [REGISTRY.live_updates(processor) for processor in (scene.processor, other)]
    other.shutdown()
    assert [count() for count in counts] == [1, 1]
    assert [REGISTRY.live_updates(processor)() for processor in (scene.processor, other)] == [1, 0]
    span.end()


def test_a_span_that_was_admitted_before_its_end_is_over_is_not_live(scene):
    """Another thread may admit a span while `on_end` has not come to taking it out of the registry."""
    (span, *_) = updated_live_spans(scene)
    key = span.get_span_context()[:2]
    entry = REGISTRY.entries[key]
    span.end()
    assert scene.stats.live == MANY - 1
    REGISTRY.entries[key] = entry
    counts = scene.stats
    assert (counts.accepted, counts.live) == (MANY, MANY - 1)
    del REGISTRY.entries[key]
