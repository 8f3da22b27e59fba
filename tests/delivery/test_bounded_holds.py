"""The one lock is held for a bounded number of entries, however many wait: counted, for the machine's speed varies."""

from __future__ import annotations

import heapq
import sys

import pytest
from opentelemetry.sdk.trace.export import SpanExportResult
from tests.delivery.conftest import SaysNothing

import otel_metadata as om
from otel_metadata.delivery import waiting_patches
from otel_metadata.delivery.flush import FlushTicket
from otel_metadata.live import registry, routing
from otel_metadata.model import weight
from otel_metadata.model.outcome import Delivered, DeliveryError, Retry

MANY = 1_000
BOUND = 300
"""Entries that one hold may deal with: a batch and a portion."""

DOWN = Retry(DeliveryError("connection_failure", "down"))


class CountingLock:
    """The process's lock, and how much was done in the longest hold.

    Attributes:
        longest: The most operations in one hold.
        done: Operations in this hold.
    """

    def __init__(self) -> None:
        """Count nothing yet."""
        self.longest = self.done = self._depth = 0

    def __enter__(self) -> None:
        registry.LOCK.acquire()
        self._depth += 1

    def __exit__(self, *exc: object) -> None:
        self._depth -= 1
        if not self._depth:
            self.longest, self.done = max(self.longest, self.done), 0
        registry.LOCK.release()

    def counting(self, call):
        """Return *call*, counted where it is made while the lock is held."""

        def counted(*args, **named):
            self.done += self._depth > 0
            return call(*args, **named)

        return counted


@pytest.fixture
def lock(scene, monkeypatch):
    """The lock of the scene's outbox; operations of heaps and places taken in are counted."""
    lock = CountingLock()
    monkeypatch.setattr(scene.outbox, "_lock", lock)
    monkeypatch.setattr(routing, "LOCK", lock)
    for name in ("heappush", "heappop"):
        monkeypatch.setattr(waiting_patches.heapq, name, lock.counting(getattr(heapq, name)))
    monkeypatch.setattr(weight, "getsizeof", lock.counting(sys.getsizeof))
    monkeypatch.setattr(scene.outbox, "_add_late", lock.counting(scene.outbox._add_late))
    monkeypatch.setattr(scene.outbox, "_put", lock.counting(scene.outbox._put))
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
    lock.longest = 0
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
    lock.longest = 0
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
    lock.longest = 0
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
        lock.longest = 0
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
        lock.longest = 0
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
    lock.longest = 0
    assert om.update_span(span, metadata={"a": [1]}).route == "in_flight"
    assert 0 < lock.longest <= BOUND
