"""The one lock is held for a bounded number of entries, however many wait: counted, for the machine's speed varies."""

from __future__ import annotations

import heapq

import pytest

import otel_metadata as om
from otel_metadata.delivery import waiting_patches
from otel_metadata.delivery.flush import FlushTicket
from otel_metadata.delivery.outbox import SpanBatch
from otel_metadata.live import registry, routing
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
        pending = scene.outbox._patches.get(key)
        pending.earliest_ns = scene.clock.monotonic_ns() + 10**8
        scene.outbox._patches.make_due(key, pending, pending.earliest_ns)
    lock.longest = 0
    assert scene.outbox.claim_patches() is None
    assert scene.outbox.next_due_ns() == pending.earliest_ns
    scene.clock.advance(100)
    batch = scene.outbox.claim_patches()
    assert [patch.target.key for patch in batch.patches] == [key]
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
        lambda: scene.outbox.patches_answered(batch, [Delivered()] * len(batch.patches)),
        lambda: scene.outbox.spans_answered(SpanBatch([]), Delivered(), []),
    ):
        for number in range(MANY):
            om.update_span(scene.unseen(number + 1), metadata={"a": number})
        assert len(scene.outbox._late) == MANY
        lock.longest = 0
        settle()
        assert not scene.outbox._late
        assert 0 < lock.longest <= BOUND
