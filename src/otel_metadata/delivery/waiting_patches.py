"""The patches that wait for one destination: which may go now, and how an answer settles them.

Theory of operation. A target has at most one patch that waits (`waiting`, later updates are merged into it) and one
that is being sent (`sending`): one request in flight for each target, versions ascending. `_due` is a heap of (when,
key) over `waiting`, and `_asked` another one, of the patches that a flush waits for; an entry that no longer matches
its patch is skipped.

A target is *blocked* while its span waits or is being exported here, and while an earlier patch of it is being sent:
then its patch cannot be claimed, and whoever ends that schedules it.

The *circuit* is about the destination as a whole. When a batch came back without a single verdict (every patch is to be
tried again because the backend could not be reached), the destination is left alone for the back-off, at least a
second, and then asked with one patch. `Pause` does the same for `pause_millis`. A flush asks at once, and ends when two
batches in a row failed.

A batch that could not be answered at all is halved, down to one patch, so that a patch on which the exporter chokes
comes to be alone; the same for one that is too large. Then its fields are halved, lowest versions first.

Everything here is called under the outbox's lock. Nothing calls foreign code. If you add a way for a patch to leave,
settle its rows of the spool there (`partition.settle` or `partition.bury`), and count its updates. If you add a place
that changes the number of updates in a patch, call `_changes` there first: `stats` may be counting it.
"""

from __future__ import annotations

import heapq
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, final
from weakref import ref

from otel_metadata.delivery.circuit import Circuit
from otel_metadata.delivery.settled import Settled
from otel_metadata.delivery.verdict import Again, Arrived, GivenUp, Tried, verdict
from otel_metadata.model.dead_letter import DeadLetter
from otel_metadata.model.merge import Fields
from otel_metadata.model.outcome import Delivered, DeliveryError, NotKept, Outcome, Pause, Rejected, Retry
from otel_metadata.model.patch import Patch
from otel_metadata.model.weight import NO_LARGE, PATCH_BYTES, ROW_BYTES, Weight, merge_weighed, weigh, weigh_common

if TYPE_CHECKING:
    from otel_metadata.delivery.flush import Flushes
    from otel_metadata.delivery.outbox_settings import OutboxSettings
    from otel_metadata.delivery.stats import Counters
    from otel_metadata.model.merge import Field, FieldName, Version
    from otel_metadata.model.receipt import LossReason
    from otel_metadata.model.span_ref import SpanKey, SpanRef
    from otel_metadata.seams import Clock, PatchExporter
    from otel_metadata.spool.partition import Partition, Row

_MILLI: Final = 1_000_000

NO_VERSION: Final = (0, 0)

_MAX_TOLD_NOTES: Final = 100

# Entries of the heaps that one claim passes over: application threads wait for the lock meanwhile.
_MAX_SKIPPED: Final = 64


def unsettled(remainder: Fields, updates: int) -> int:
    """Return how many of *updates* are still open while *remainder* is: one update has one version."""
    return min(len({version for _, version in remainder.values()}), updates)


@final
@dataclass(slots=True, eq=False)
class Pending:
    """A patch that waits: everything for one target, coalesced.

    Attributes:
        target: The span or trace.
        fields: The fields that it sets.
        sent: The fields that are being sent; None while no request is under way.
        updates: How many update calls are in it.
        size: Estimated bytes.
        large: The weights of the large values in `fields`.
        rows: Its rows in the spool.
        unspooled: How many of `updates` are in no row.
        created_ns: When the oldest of its updates was accepted; monotonic.
        earliest_ns: When it may go: after a grace, or after the time that the backend asked for. A flush obeys it.
        due_ns: When it goes.
        asked_ns: When it goes by the heap of the patches that flushes wait for; None when it is not in that heap.
        deadline_ns: Until when it is tried, because its span failed for good; None for as long as `max_age_millis`.
        missing_ns: When the backend first said that it does not know the span.
        attempts: How often it was tried.
        error: The error of the last try.
        batch_size: At most so many patches in the request that it goes in.
        max_fields: At most so many fields in one request.
        window_ns: Start and end of the span, where they are known.
    """

    target: SpanRef
    created_ns: int
    earliest_ns: int
    due_ns: int
    fields: dict[FieldName, Field] = field(default_factory=dict)
    large: Mapping[FieldName, int] = field(default_factory=lambda: NO_LARGE)
    sent: Fields | None = None
    updates: int = 0
    size: int = 0
    rows: list[Row] = field(default_factory=list)
    unspooled: int = 0
    asked_ns: int | None = None
    deadline_ns: int | None = None
    missing_ns: int | None = None
    attempts: int = 0
    error: DeliveryError | None = None
    batch_size: int | None = None
    max_fields: int | None = None
    window_ns: tuple[int, int] | None = None

    def take(self, target: SpanRef, fields: Fields, updates: int, weight: Weight, rows: Sequence[Row]) -> int:
        """Take more fields for the same span, and the ids that its name brings; return by how much it grew."""
        self.target = self.target.with_backend_ids(target.backend_ids)
        # To merge once more does no harm, to count does; the counting follows the last call: see `Outbox._admit`.
        growth, self.large = merge_weighed(self.fields, fields, weight, self.large)
        growth += ROW_BYTES * len(rows)
        if not self.size:
            growth += PATCH_BYTES
        self.rows += rows
        self.updates += updates
        self.size += growth
        if not rows:
            self.unspooled += updates
        return growth

    def portion(self) -> Fields:
        """Return the fields for the next request: all of them, or those of the lowest versions."""
        if self.max_fields is None or self.max_fields >= len(self.fields):
            return self.fields
        ordered = sorted(self.fields.copy().items(), key=lambda item: (item[1][1], item[0]))
        return dict(ordered[: self.max_fields])


@final
class Before(dict[Pending, int]):
    """How many updates were in patches before they changed; a dict that can be referred to weakly."""


class Answered(NamedTuple):
    """The result of one patch of a batch, for the flushes that wait for it.

    Attributes:
        key: The target.
        is_clean: Whether it arrived.
        is_last: Whether nothing else of this target waits behind it: another patch, or a span that came meanwhile.
    """

    key: SpanKey
    is_clean: bool
    is_last: bool


@final
class PatchQueue:
    """Waiting patches of one destination: see the module's theory of operation.

    Attributes:
        waiting: Patches that wait, by target.
        sending: Patches that are being sent, by target.
        circuit: Whether the destination is asked now.
        is_ordered: Whether the backend keeps the value that comes last, whatever its version.
        settled: Whether the fields of recent patches arrived.
        bytes: Estimated size of all patches here.
    """

    def __init__(
        self,
        exporter: PatchExporter,
        settings: OutboxSettings,
        clock: Clock,
        chance: Callable[[], float],
        counters: Counters,
        partition: Partition,
        flushes: Flushes,
        is_span_here: Callable[[SpanKey], bool],
        tell: Callable[[str, str, int], None],
    ) -> None:
        """Start empty.

        Args:
            exporter: The destination's, for its `max_batch` and `convergence`.
            settings: Bounds and times.
            clock: Time.
            chance: Uniform in [0, 1), for the jitter of the back-off.
            counters: The outbox's.
            partition: The destination's part of the spool.
            flushes: The flushes: a patch that one waits for goes also while the destination is left alone.
            is_span_here: Whether a span waits or is being exported here.
            tell: Called with a reason, a sentence for the log, and its level.
        """
        self._exporter = exporter
        self._settings = settings
        self._clock = clock
        self._chance = chance
        self._counters = counters
        self._partition = partition
        self._flushes = flushes
        self._is_span_here = is_span_here
        self._tell = tell
        # With a spool, updates beyond the window are on disk alone.
        self._max_targets = (
            min(settings.spool_window, settings.max_patches) if partition.is_durable else settings.max_patches
        )
        self.waiting: dict[SpanKey, Pending] = {}
        self.sending: dict[SpanKey, Pending] = {}
        self._due: list[tuple[int, SpanKey]] = []
        self._asked: list[tuple[int, SpanKey]] = []
        self.circuit = Circuit(settings.pause_millis, chance)
        self.settled = Settled()
        self._dead_letters: deque[DeadLetter] = deque()
        self._told_notes: set[str] = set()
        self.is_ordered = exporter.convergence == "ordered"
        self.bytes = 0
        self._counting: list[ref[Before]] = []

    def __len__(self) -> int:
        """How many targets have a patch that waits or is being sent."""
        return len(self.waiting) + len(self.sending)

    def holds(self, key: SpanKey) -> bool:
        """Whether a patch of *key* waits or is being sent."""
        return key in self.waiting or key in self.sending

    def all(self) -> list[Pending]:
        """Return every patch that waits or is being sent."""
        return [*self.waiting.values(), *self.sending.values()]

    def to_count(self) -> tuple[list[Pending], Before]:
        """Return `all`, and a map that gets the number of updates of each patch before it changes.

        It gets them as long as the caller keeps it.
        """
        before = Before()
        self._counting = [*(one for one in self._counting if one() is not None), ref(before)]
        return self.all(), before

    def _changes(self, pending: Pending) -> None:
        """Note how many updates are in a patch before that changes."""
        for one in self._counting:
            before = one()
            if before is not None:
                before.setdefault(pending, pending.updates)

    def keys(self) -> list[SpanKey]:
        """Return the targets of `all`; one that is in both comes twice."""
        # As in `all`, not in portions: a key that moves from one to the other meanwhile would be missed. 100,000 keys
        # take 1 ms, in C, where no other thread runs anyway.
        return [*self.waiting, *self.sending]

    def is_behind(self, key: SpanKey) -> bool:
        """Whether a patch of *key* is being sent and another waits, or the span."""
        return key in self.sending and (key in self.waiting or self._is_span_here(key))

    def take_dead_letter(self) -> DeadLetter | None:
        """Return the next dead letter; None when there are no more. Needs no lock."""
        try:
            return self._dead_letters.popleft()
        except IndexError:
            return None

    # --- in ---------------------------------------------------------------------------------------------------------

    def add(
        self,
        target: SpanRef,
        fields: Fields,
        updates: int,
        weight: Weight,
        rows: Sequence[Row],
        *,
        earliest_ns: int,
        due_ns: int,
        deadline_ns: int | None = None,
        age_ns: int = 0,
        window_ns: tuple[int, int] | None = None,
    ) -> None:
        """Let more fields of *target* wait; the first decide when they may go."""
        key = target.key
        now = self._clock.monotonic_ns()
        arrived = self.settled.versions(key) if self.is_ordered else None
        if arrived:
            fields = _without_stale(fields, arrived)
            weight = weigh(fields)
            if not fields:  # they would change nothing in the backend
                self._counters.delivered += updates
                self._partition.settle(rows)
                return
        pending = self.waiting.get(key)
        if pending is None:
            fresh = Pending(target, now, earliest_ns, due_ns)
            # Whole before it is seen: a shutdown that interrupts us here makes the patches due that it finds.
            pending = self.waiting.setdefault(key, fresh)
        if not pending.updates:  # new, or the call that made it was interrupted before it was done
            self.schedule(key, pending)
        pending.created_ns = min(pending.created_ns, now - age_ns)
        if deadline_ns is not None:
            pending.deadline_ns = deadline_ns
        if window_ns is not None:
            pending.window_ns = window_ns
        self._changes(pending)
        self.bytes += pending.take(target, fields, updates, weight, rows)

    def room_for(self, key: SpanKey, fields: Fields, size: int, *, beyond_window: bool = False) -> bool:
        """Whether there is room in memory, also once the values that *fields* replaces are taken off.

        Args:
            key: The target.
            fields: The fields to be added.
            size: Their bytes.
            beyond_window: The spool takes nothing: as much room as there is without one.
        """
        held = self.waiting.get(key)
        bound = self._settings.max_bytes
        most = self._settings.max_patches if beyond_window else self._max_targets
        if held is None and len(self.waiting) + len(self.sending) >= most:
            return False
        after = self.bytes + size + (PATCH_BYTES if held is None else 0)
        return after <= bound or (held is not None and after - weigh_common(held.fields, fields, held.large) <= bound)

    def schedule(self, key: SpanKey, pending: Pending) -> None:
        """Enter it into its heap, unless it is blocked: then whoever unblocks it does."""
        if not self.is_blocked(key):
            self._push(key, pending, pending.due_ns)

    def make_due(self, key: SpanKey, pending: Pending, due_ns: int) -> None:
        """Let it go at *due_ns*, if it is not scheduled for it yet."""
        is_missing = pending.asked_ns != due_ns and key in self._flushes
        if is_missing or pending.due_ns != due_ns:
            # The heap first: an entry that no patch agrees with is skipped, a patch without an entry waits for ever.
            if not self.is_blocked(key):
                self._push(key, pending, due_ns)
            pending.due_ns = due_ns

    def _push(self, key: SpanKey, pending: Pending, due_ns: int) -> None:
        if key not in self._flushes:
            heapq.heappush(self._due, (due_ns, key))
        elif pending.asked_ns != due_ns:
            heapq.heappush(self._asked, (due_ns, key))
            pending.asked_ns = due_ns

    def is_blocked(self, key: SpanKey) -> bool:
        """Whether something of the same target goes first."""
        return key in self.sending or self._is_span_here(key)

    # --- out --------------------------------------------------------------------------------------------------------

    def next_due_ns(self) -> int | None:
        """Return when the next patch may be claimed; None when none waits unblocked."""
        times = [heap[0][0] for heap in (self._asked, self._due) if heap]
        if not times:
            return None
        first = max(min(times), self.circuit.until_ns)
        return min(first, self._asked[0][0]) if self._asked and self._flushes.is_waiting else first

    def claim(self, window_of: Callable[[SpanKey], tuple[int, int] | None]) -> list[Patch] | None:
        """Take the patches whose time has come, at most the exporter's `max_batch`, one where it must be found out.

        Args:
            window_of: Start and end of a span, where they are known.

        Returns:
            The patches. None when many entries of the heaps were out of date: ask again, without the lock in between.
        """
        now = self._clock.monotonic_ns()
        is_open = self.circuit.is_open(now)
        if is_open and not self._flushes.is_waiting:
            return []
        room = max(self._exporter.max_batch, 1) if not self.circuit.failures else 1
        patches: list[Patch] = []
        for _ in range(room + _MAX_SKIPPED):
            heap = self._asked if is_open or (self._asked and self._asked[0][0] <= now) else self._due
            if not heap or heap[0][0] > now or len(patches) >= room:
                break
            due_ns, key = heap[0]
            pending = self.waiting.get(key)
            if pending is None or pending.due_ns != due_ns or self.is_blocked(key):
                self._pop(heap, pending)
                continue
            if is_open and key not in self._flushes:
                # Its flush is over. It goes when the destination is asked again.
                heapq.heappush(self._due, (due_ns, key))
                self._pop(heap, pending)
                continue
            if pending.batch_size is not None and len(patches) >= pending.batch_size:
                break
            self._pop(heap, pending)
            room = min(room, pending.batch_size or room)
            self.sending[key] = pending
            del self.waiting[key]
            pending.sent = pending.portion()
            patches.append(Patch(pending.target, pending.sent, pending.window_ns or window_of(key)))
        else:
            return patches or None
        return patches

    def _pop(self, heap: list[tuple[int, SpanKey]], pending: Pending | None) -> None:
        due_ns, _ = heapq.heappop(heap)
        if heap is self._asked and pending is not None and pending.asked_ns == due_ns:
            pending.asked_ns = None

    def answered(self, patches: Sequence[Patch], outcomes: Sequence[Outcome | None]) -> list[Answered]:
        """Settle each patch by its outcome; one that goes on at once, in smaller pieces, has no answer yet."""
        now = self._clock.monotonic_ns()
        answers: list[Answered] = []
        for index, patch in enumerate(patches):
            key = patch.target.key
            pending = self.sending.get(key)
            if pending is None:
                continue  # given up meanwhile, at a shutdown that could not wait
            try:
                del self.sending[key]
                pending.attempts += 1
                outcome = outcomes[index] if index < len(outcomes) else None
                is_clean = self._settle(pending, outcome, len(patches), now)
            except BaseException:
                self._put_back(pending)  # it is sent once more: that does no harm, to lose it does
                raise
            waiting = self.waiting.get(key)
            if waiting is not None:
                self.schedule(key, waiting)
            if is_clean is not None:
                is_last = (waiting is None or waiting is pending) and not self._is_span_here(key)
                answers.append(Answered(key, is_clean, is_last))
        self._judge_destination(outcomes, len(patches), now)
        return answers

    def _judge_destination(self, outcomes: Sequence[Outcome | None], sent: int, now: int) -> None:
        pauses = [outcome for outcome in outcomes if isinstance(outcome, Pause)]
        if pauses:
            self.circuit.paused(now)
            error = pauses[0].error
            self._tell("paused", f"paused ({error.type}: {error.message}); updates are kept.", logging.WARNING)
        elif any(isinstance(outcome, Delivered | Rejected) for outcome in outcomes):
            self.circuit.answered()
        else:
            first = next((outcome for outcome in outcomes if isinstance(outcome, Retry)), None)
            if first is not None and not self.circuit.failures:
                why = f"{first.error.type}: {first.error.message}"
                self._tell("retried", f"updates wait, and are tried again ({why}).", logging.WARNING)
            asked = [outcome.after_millis or 0 for outcome in outcomes if isinstance(outcome, Retry)]
            # Only where all were asked to wait: a limit of one target is not the destination's.
            self.circuit.failed(now, min(asked) if len(asked) == sent else None)

    def _settle(self, pending: Pending, outcome: Outcome | None, batch_size: int, now: int) -> bool | None:
        """Settle one patch; return whether it arrived, None when it, or a part of it, goes on at once."""
        if isinstance(outcome, Rejected) and outcome.error.type == "segment_not_found" and pending.missing_ns is None:
            pending.missing_ns = now
        sent = pending.sent if pending.sent is not None else pending.fields
        tried = Tried(
            attempts=pending.attempts,
            age_ns=now - pending.created_ns,
            overdue=pending.deadline_ns is not None and now >= pending.deadline_ns,
            has_deadline=pending.deadline_ns is not None,
            missing_ns=now - pending.missing_ns if pending.missing_ns is not None else 0,
            batch_size=batch_size,
            fields=len(sent),
        )
        decided = verdict(outcome, tried, self._settings, self._chance())
        if isinstance(decided, Arrived):
            self._counters.notes += len(decided.notes)
            self._tell_notes(decided.notes)
            self.settled.arrived(pending.target.key, sent, decided.notes)
            return None if self._part_is_gone(pending, sent, None, now) else True
        if isinstance(decided, GivenUp):
            return None if self._part_is_gone(pending, sent, decided, now) else False
        self._again(pending, decided, now)
        return None if decided.at_once else False

    def _tell_notes(self, notes: Sequence[str]) -> None:
        """Log each note once: a backend that changes every patch would fill the log with one line."""
        for note in notes:
            if note not in self._told_notes and len(self._told_notes) < _MAX_TOLD_NOTES:
                self._told_notes.add(note)
                level = logging.WARNING if isinstance(note, NotKept) else logging.INFO
                self._tell(f"note:{note}", f"delivered, but: {note}.", level)

    def _part_is_gone(self, pending: Pending, sent: Fields, given_up: GivenUp | None, now: int) -> bool:
        """Settle the fields that were sent; return whether others remain, which go on as a patch."""
        rest = {name: field for name, field in pending.fields.items() if name not in sent}
        moved = unsettled(rest, pending.updates)
        if given_up is not None:
            # An update of which a part is given up is lost, whatever becomes of its other fields; it counts once.
            moved = max(moved - len(_versions(sent) & _versions(rest)), 0)
        self._count(pending.updates - moved, given_up.reason if given_up is not None else None)
        if given_up is not None:
            self._bury(pending, sent, pending.updates - moved, given_up, keep_rows=bool(rest))
        if not rest:
            self.bytes -= pending.size
            if given_up is None:
                self._partition.settle(pending.rows)
            return False
        self._changes(pending)
        large = {name: pending.large[name] for name in rest if name in pending.large}
        pending.fields, pending.updates, pending.large = rest, moved, large
        pending.unspooled = min(pending.unspooled, moved)
        size = PATCH_BYTES + weigh_common(rest, rest, large) + ROW_BYTES * len(pending.rows)
        self.bytes += size - pending.size
        pending.size = size
        pending.due_ns = pending.earliest_ns = now
        self._put_back(pending)
        return True

    def _count(self, updates: int, reason: LossReason | None) -> None:
        if reason is None:
            self._counters.delivered += updates
        else:
            self._counters.lose(reason, updates)

    def _bury(self, pending: Pending, fields: Fields, updates: int, given_up: GivenUp, *, keep_rows: bool) -> None:
        error = given_up.error
        wall_ns = self._clock.wall_ns()
        letter = DeadLetter(
            id=0,
            destination=self._partition.destination,
            target=pending.target,
            fields=fields,
            updates=updates,
            reason=given_up.reason,
            error=error,
            tries=pending.attempts,
            accepted_ns=wall_ns - (self._clock.monotonic_ns() - pending.created_ns),
            died_ns=wall_ns,
        )
        self.settled.gone(pending.target.key, fields, given_up.reason, error)
        self._partition.bury([] if keep_rows else pending.rows, letter)
        self._dead_letters.append(letter)
        why = f"a patch for {pending.target} was given up ({given_up.reason}): {error.message}"
        self._tell(given_up.reason, why, logging.WARNING)

    def _again(self, pending: Pending, again: Again, now: int) -> None:
        self._counters.retried += 1
        pending.error = again.error
        pending.due_ns = now + again.wait_ns
        # A flush need not wait for the back-off, but for the time that the backend asked for.
        pending.earliest_ns = pending.due_ns if again.asked else now
        if again.batch_size is not None:
            pending.batch_size = again.batch_size
        if again.max_fields is not None:
            pending.max_fields = again.max_fields
        self._put_back(pending)

    def _put_back(self, pending: Pending) -> None:
        key = pending.target.key
        pending.sent = None
        newer = self.waiting.get(key)
        # In its place before it is read, so that an update of a finalizer meanwhile is added here.
        self.waiting[key] = pending
        if newer is not None and newer is not pending:
            # Updates that came while this one was being sent: they wait with it now.
            self._changes(pending)
            weight = Weight(newer.size - PATCH_BYTES - ROW_BYTES * len(newer.rows), newer.large)
            growth = pending.take(newer.target, newer.fields, newer.updates, weight, newer.rows)
            if newer.rows:
                pending.unspooled += newer.unspooled
            self.bytes += growth - newer.size
        self.schedule(key, pending)

    # --- the end ----------------------------------------------------------------------------------------------------

    def drop(self, key: SpanKey, reason: LossReason) -> None:
        """Count the patch that waits for a span that can never arrive as lost, and bury it."""
        pending = self.waiting.pop(key, None)
        if pending is not None:
            self._counters.lose(reason, pending.updates)
            self.bytes -= pending.size
            error = DeliveryError("segment_not_found", "its span was dropped here before it was exported")
            self._bury(pending, pending.fields, pending.updates, GivenUp(reason, error), keep_rows=False)

    def leave(self, keys: Iterable[SpanKey], reason: LossReason) -> None:
        """Leave to the spool the updates of *keys* that it has, and count the rest as lost."""
        for key in keys:
            for place in (self.waiting, self.sending):
                pending = place.get(key)
                if pending is None:
                    continue
                is_row_kept = self._partition.keeps(pending.rows)
                kept = pending.updates - pending.unspooled if is_row_kept else 0
                is_kept = is_row_kept and not pending.unspooled
                self.settled.gone(key, pending.fields, None if is_kept else reason, pending.error)
                self._counters.lose(reason, pending.updates - kept)  # the last call: see `Outbox._admit`
                self._counters.handed_over += kept
                self.bytes -= pending.size
                del place[key]

    def take_schedule(self) -> object:
        """Forget when patches are due, once none is left; return it, so that the caller frees it without the lock."""
        schedule = self._due, self._asked
        self._due, self._asked = [], []
        return schedule


def _versions(fields: Fields) -> set[Version]:
    return {version for _, version in fields.values()}


def _without_stale(fields: Fields, arrived: Mapping[FieldName, Version]) -> Fields:
    """Leave out fields of which the backend has a later value: it would replace that, whatever the version."""
    return {
        name: field for name, field in fields.items() if name[1] == "tag" or arrived.get(name, NO_VERSION) < field[1]
    }
