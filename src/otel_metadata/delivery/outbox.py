"""A destination's own queue of ended spans and waiting patches.

Theory of operation. After its end, a span is in one of these states for a destination; the state decides what happens
to an update for it:

    arrived     in `_inbox`, put there without a lock; admitted to the queue before anything is decided
    queued      in `_spans.waiting`: the update is joined to it and leaves with it; but where the backend does not
                compare versions it must not overtake a patch of the span that waits, and is merged into that
    exporting   in `_spans.exporting`: the update becomes a patch that waits for the answer
    retrying    in `_spans.waiting` again, after an export that failed: the update becomes a patch that waits for the
                answer. Nothing is joined any more: the backend may have the span as it was sent, and may keep that
    exported    in `_recent`: the patch may go after the backend's grace
    failed      in `_recent`: it is not tried again; what was joined becomes a patch with a deadline, for the backend
                may have the span after all; what was set live shares the span's fate
    evicted     in `_recent`: it never left; its updates are lost (`target_not_exported`), and counted
    unseen      nowhere here (another process, or long ago): the patch goes after the remote grace

Which spans leave when is `delivery.waiting_spans`, which patches go when is `delivery.waiting_patches`; here is what
the two have to do with each other, with the application, with the spool, and with who flushes.

The spool. With one (`partition`), a row is put for every update that is not live and for every span that is held, and
it is written before the call of the application returns (`Partition.sync`, by the caller, after the lock). What is in
memory is a window: when it is full, updates are *spilled*, they are on disk only, and so are all that follow until
those were loaded, so that the order stays. What follows its span as a patch is older than those, and is spilled only
where there is no room for it. A row is settled when its update is.

Every method that changes state takes the process's one re-entrant lock (`live.registry.LOCK`, passed in) and never
calls foreign code in it. Methods *decide*; the worker acts: it calls `claim_*`, then the exporter without the lock,
then `*_answered` with what came back. A span and its fields are claimed together, so every update is always in one
place. A log line ends in a handler of the application's, so lines wait in `_pending_lines` for `log_pending_lines`.

Balance: each update that was accepted, or adopted from another process's rows, is counted once in exactly one of
delivered, waiting, handed over (to the spool, at the end), lost. A patch carries the number of updates that are in it;
a span that leaves with a remainder settles only the updates that are not in the remainder.

Bytes: `SpanQueue.bytes` and `PatchQueue.bytes` count everything that is held, including the handles of rows, but not
spans that are not weighed yet. A field that replaces another counts only for the difference. Each queue has a bound of
its own, so that patches push out no spans.

If you add a place where updates wait, add it to `stats` and to `give_up`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Final, final

from otel_metadata.delivery.flush import Flushes, FlushTicket
from otel_metadata.delivery.in_flight import span_without_credentials
from otel_metadata.delivery.outcomes import DELIVERED, UNKNOWN, LeftSpan, Outcomes
from otel_metadata.delivery.queued import EndedSpan, QueuedSpan
from otel_metadata.delivery.shared_place import THEIRS, SharedPlace
from otel_metadata.delivery.stats import Counters, DestinationStats, Moment
from otel_metadata.delivery.waiting_patches import PatchQueue, Pending, unsettled
from otel_metadata.delivery.waiting_spans import SpanQueue
from otel_metadata.locks import PORTION
from otel_metadata.model.merge import Field, FieldName, Fields
from otel_metadata.model.outcome import Delivered, DeliveryError, Outcome, Pause, Rejected, Retry
from otel_metadata.model.patch import Patch
from otel_metadata.model.receipt import LossReason, Route, Routed
from otel_metadata.model.recent import RecentMap
from otel_metadata.model.span_ref import SpanKey, SpanRef
from otel_metadata.model.update_outcome import DestinationOutcome
from otel_metadata.model.weight import SHARED_NAMES, Weight, weigh, weigh_common, weigh_span
from otel_metadata.reporting import REPORTER
from otel_metadata.seams import takes
from otel_metadata.spool.frames import PlainUpdate, SpooledSpan, SpooledUpdate
from otel_metadata.spool.partition import NoPartition

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from otel_metadata.delivery.destination import Destination
    from otel_metadata.delivery.outbox_settings import OutboxSettings
    from otel_metadata.locks import ReentrantLock
    from otel_metadata.model.dead_letter import DeadLetter
    from otel_metadata.model.merge import Json, Version
    from otel_metadata.seams import Clock
    from otel_metadata.spool.partition import Loaded, Partition, Row

_MILLI: Final = 1_000_000

MAX_RECENT: Final = 16_384
"""Spans whose end in this destination is remembered at least."""


# Log lines that wait to be told; the reporter tells one a minute of each kind, so a few are enough.
_MAX_PENDING_LINES: Final = 1_024

# So many ended spans may wait to be admitted before the worker is woken. They are not weighed until then, so this
# number falls when spans turn out to be large: together they take an eighth of the room in bytes.
_INBOX_ROOM: Final = 1_024
_MIN_INBOX_ROOM: Final = 16

# While the worker does not come, one in so many spans is weighed as it arrives: enough to see that they got larger.
_SAMPLE_EVERY: Final = 64

# Plain late updates that wait to be coalesced. At `_LATE_ROOM` the worker is woken. Beyond `_LATE_BOUND` the worker
# hangs, so the application's thread helps. Each is a few short values, 4 kB at most. An outbox with less room than
# `_LATE_BYTES` takes no update in this way.
_LATE_ROOM: Final = 1_024
_LATE_BOUND: Final = 4_096
_LATE_BYTES: Final = 2 * 4_096 * _LATE_BOUND

# A call of the application that decides something takes so many of them in, no more: the rest is the worker's.
_LATE_HELP: Final = 64

# Rows that are read from the spool at a time.
_LOAD: Final = 200

_NO_FIELDS: Final[Fields] = {}

_UPDATES: Final = attrgetter("updates")
_JOINED_UPDATES: Final = attrgetter("joined_updates")

_IN_FLIGHT: Final = Routed("in_flight")
_LATE: Final = Routed("late")

# So often placing the first of an inbox may fail before it is given up: an exception from outside (a signal handler's)
# may interrupt it any number of times, a failure of our own would stop everything behind it.
_MAX_FAILURES: Final = 16


def _whole_portions(count: int) -> int:
    """Return how many of *count* entries fill portions; the caller's own hold deals with the rest."""
    return count - count % PORTION


_EVICTED: Final = DestinationOutcome("lost", "target_not_exported")


def _nobody() -> None:
    """Wake nobody: an outbox without a worker."""


def _fields_of(version: Version, metadata: dict[str, Json]) -> dict[FieldName, Field]:
    """Return the fields of a plain update."""
    fields: dict[FieldName, Field] = {}
    for key, value in metadata.items():
        name: FieldName = ("span", "metadata", key)
        fields[SHARED_NAMES.get(name, name)] = (value, version)
    return fields


@final
class Outbox:
    """One destination's ended spans and waiting patches: see the module's theory of operation."""

    def __init__(
        self,
        destination: Destination,
        settings: OutboxSettings,
        clock: Clock,
        lock: ReentrantLock,
        chance: Callable[[], float],
        partition: Partition | None = None,
        masks_credentials: Callable[[], bool] = lambda: True,
    ) -> None:
        """Start empty.

        Args:
            destination: Whose outbox it is.
            settings: Bounds and times.
            clock: Time.
            lock: The process's one re-entrant lock.
            chance: Uniform in [0, 1), for the jitter of the back-off.
            partition: The destination's part of the spool; None for memory only.
            masks_credentials: Whether attributes of spans that name a secret are masked; asked for each span.
        """
        self.destination = destination
        self._masks_credentials = masks_credentials
        self.settings = settings
        self.partition = partition if partition is not None else NoPartition(destination.name)
        self._clock = clock
        self._monotonic_ns = clock.monotonic_ns  # looked up once, for the path of a late update
        self._lock = lock
        self._chance = chance
        self._wait_ns = max(destination.hold_millis, settings.schedule_delay_millis) * _MILLI
        self._grace_ns = destination.patch_exporter.grace_millis * _MILLI
        self._is_durable = self.partition.is_durable
        self._holds_on_disk = destination.hold_millis > 0 and self._is_durable
        self.wake: Callable[[], None] = _nobody
        self.shared: SharedPlace | None = None
        self.reset()
        # Small until the first spans were weighed.
        self._inbox_room = self._inbox_bound = min(_MIN_INBOX_ROOM, self._spans.pressure_at)
        self._average_size = 0.0

    def reset(self) -> None:
        """Forget everything and count from zero: in a forked child the parent keeps what waits."""
        self._counters = Counters()
        self._spans = SpanQueue(self.settings, self._chance, is_holding=self.destination.hold_millis > 0)
        self._recent: RecentMap[SpanKey, LeftSpan] = RecentMap(MAX_RECENT)
        self._flushes = Flushes()
        self._patches = PatchQueue(
            self.destination.patch_exporter,
            self.settings,
            self._clock,
            self._chance,
            self._counters,
            self.partition,
            self._flushes,
            self._spans.__contains__,
            self._tell,
        )
        self._outcomes = Outcomes(self._spans, self._patches, self._recent)
        self._inbox: deque[EndedSpan] = deque()
        self._late: deque[tuple[int, SpanRef, Version, dict[str, Json], Row | None]] = deque()
        self._pending_lines: deque[tuple[str, str, int]] = deque(maxlen=_MAX_PENDING_LINES)
        # How many entries at the front of each inbox are being placed, by calls that the present one may have
        # interrupted. It is the index of the first entry that is free.
        self._placing = self._placing_late = 0
        self._attempted: EndedSpan | None = None
        self._failures = 0
        # Updates that are on disk only, and the lowest version that can be among them.
        self._spilled = 0
        self._spilled_from: Version = (0, 0)
        self._is_disk_left = False
        self._is_closed = self._is_given_up = False
        self._spans_kept = 0  # spans that `give_up` left to the spool
        self._lost_before: tuple[int, dict[LossReason, int]] = (0, {})
        self._takes_plain = self._has_room_for_plain()

    def look(self) -> None:
        """Look whether the application exports to the same place, which it may do from now on."""
        if self.shared is None:
            return
        with self._lock:
            line = self.shared.look()
            if line is not None:
                # An adopted exporter was asked for.
                self._tell("shared", line, logging.INFO if self.shared.exporter is not None else logging.WARNING)

    def exchange(self, key: SpanKey, span: ReadableSpan) -> bool:
        """Let an ended span leave as *span*, where it has not left; False when it leaves elsewhere, or never came."""
        with self._lock:
            self._admit()
            item = self._spans.waiting.get(key)
            if item is not None and not item.is_elsewhere:
                item.span = span
                return True
            item = self._spans.exporting.get(key)
            return item is not None and not item.is_elsewhere

    # --- the application's thread -----------------------------------------------------------------------------------

    def arrive(self, ended: EndedSpan) -> None:
        """Take a span that has ended. No lock: it waits in the inbox until somebody decides something."""
        inbox = self._inbox
        inbox.append(ended)
        waiting = len(inbox)
        if waiting > self._inbox_room:
            self.wake()
            is_sample = waiting % _SAMPLE_EVERY == 0 or not self._average_size
            if is_sample or waiting > self._inbox_bound:
                self._keep_bounds(ended, is_sample=is_sample)

    def arrive_surely(self, ended: EndedSpan) -> None:
        """Take a span unless it has arrived: a call of `arrive` was interrupted, nobody knows where."""
        self.take_in_spans()
        with self._lock:
            self._admit()
            if ended.key not in self._spans and ended.key not in self._recent:
                self._inbox.append(ended)

    def _keep_bounds(self, ended: EndedSpan, *, is_sample: bool) -> None:
        """Do on the application's thread what must not wait for a worker that is busy, or hangs in an exporter."""
        size = weigh_span(ended.ended) if is_sample and ended.ended is not None else 0
        with self._lock:
            if size:
                self._learn(size)
            if len(self._inbox) > self._inbox_bound:
                self._admit(limit=2, weigh=True)  # two for one, so that no single call pays for all
        self.log_pending_lines()

    def takes_plain(self, key: SpanKey) -> bool:
        """Whether a plain update of this span is certainly a late patch with room; the caller holds the lock."""
        return self._takes_plain and not self._inbox and key not in self._spans.waiting

    def take_plain(self, target: SpanRef, version: Version, metadata: dict[str, Json]) -> None:
        """Take a plain update that `takes_plain`; the caller holds the lock. It is coalesced later, by the worker."""
        late = self._late
        row = self.partition.put(PlainUpdate(target, version, metadata)) if self._is_durable else None
        late.append((self._monotonic_ns(), target, version, metadata, row))
        if len(late) >= _LATE_ROOM:
            if len(late) % _LATE_ROOM == 0:
                self.wake()
            if len(late) > _LATE_BOUND:
                self._admit_late(limit=2)

    def take_in_spans(self) -> None:
        """Admit most spans that have ended, in portions: called without the lock, which others get in between."""
        for _ in self._lock.portions(range(_whole_portions(len(self._inbox)))):
            with self._lock:
                self._admit(limit=PORTION)

    def submit(self, target: SpanRef, fields: Fields, weight: Weight) -> Routed:
        """Take one update for a span that is not live: join it, or make a patch of it.

        With a spool it is queued to be written: the caller calls `partition.sync()` once it has left the lock.
        """
        key = target.key
        with self._lock:
            self._admit()
            self._admit_late(limit=_LATE_HELP)
            if self._is_closed:
                return Routed("dropped", "after_shutdown")
            if not key[0] and not takes(self.destination.patch_exporter, target):
                self._tell(
                    "unknown_trace",
                    "an update was refused: it finds no span by a backend's id alone; expected a SpanRef with the ids "
                    "of OpenTelemetry.",
                )
                return Routed("dropped", "invalid_target")
            # Placed first, counted after: an exception that interrupts us here reaches the caller, who has no receipt.
            routed = self._submit(target, key, fields, weight)
            self._counters.accepted += 1
            return routed

    def _submit(self, target: SpanRef, key: SpanKey, fields: Fields, weight: Weight) -> Routed:
        item = self._spans.open(key)
        if item is not None:
            if self._spans.has_room_for(item, fields, weight.size):
                self._spans.join(item, target, fields, 1, weight, self._put_joined(item, target, fields))
                return _IN_FLIGHT
            if not self._is_durable:
                return self._lost("buffer_full", 1)
            item.is_shut = self._patches.is_ordered  # what comes next must not overtake it
        recent = self._recent.get(key)
        if recent is not None and recent.state == "evicted":
            return self._lost("target_not_exported", 1)
        return self._submit_late(target, fields, weight, recent)

    def _submit_late(self, target: SpanRef, fields: Fields, weight: Weight, recent: LeftSpan | None) -> Routed:
        window = recent.window_ns if recent is not None else None
        # Once one was spilled, all that follow are, until those were loaded: so versions of a target ascend.
        if self._spilled or not self._patches.room_for(target.key, fields, weight.size):
            if self._spill(self._entry(target, fields, 1, window)):
                return _LATE
            if not self._has_room_beyond(target.key, fields, weight.size):
                return self._lost(self._no_room, 1)
        row = self.partition.put(self._entry(target, fields, 1, window)) if self._is_durable else None
        return self._add_late(target, fields, weight, recent, (row,) if row is not None else ())

    def _spill(self, entry: SpooledUpdate) -> bool:
        """Leave to the disk alone what has no room in memory; False without a spool, or without room there."""
        if not self.partition.spill(entry):
            return False
        lowest = min(version for _, version in entry.fields.values())
        self._spilled_from = min(self._spilled_from, lowest) if self._spilled else lowest
        self._spilled += entry.updates
        self._takes_plain = False
        return True

    def _has_room_beyond(self, key: SpanKey, fields: Fields, size: int) -> bool:
        """Whether memory takes what a full disk does not: with a spool no less is kept than without one."""
        return self._is_durable and self._patches.room_for(key, fields, size, beyond_window=True)

    @property
    def _no_room(self) -> LossReason:
        return "spool_full" if self._is_durable else "buffer_full"

    def _add_late(
        self,
        target: SpanRef,
        fields: Fields,
        weight: Weight,
        recent: LeftSpan | None,
        rows: tuple[Row, ...],
        *,
        age_ns: int = 0,
    ) -> Routed:
        earliest, due, deadline = self._times(target.key, recent, self._clock.monotonic_ns() - age_ns)
        window = recent.window_ns if recent is not None else None
        self._patches.add(
            target,
            fields,
            1,
            weight,
            rows,
            earliest_ns=earliest,
            due_ns=due,
            deadline_ns=deadline,
            age_ns=age_ns,
            window_ns=window,
        )
        return _LATE

    def _put_joined(self, item: QueuedSpan, target: SpanRef, fields: Fields) -> Row | None:
        if not self._is_durable:
            return None
        self._put_held(item)
        return self.partition.put(self._entry(target, fields, 1, item.window_ns))

    def _put_held(self, item: QueuedSpan) -> None:
        """Let the spool have a span that is held: before its first update, which would be of no use without it."""
        if self._holds_on_disk and item.row is None and not item.is_elsewhere:
            span = self.without_credentials(item.span)
            item.row = self.partition.put(item.entry(span, self.destination.name, self._clock.wall_ns()))

    def without_credentials(self, span: ReadableSpan) -> ReadableSpan:
        """Return an ended span as it may leave the process."""
        return span_without_credentials(span, masks_credentials=self._masks_credentials())

    def _entry(self, target: SpanRef, fields: Fields, updates: int, window_ns: tuple[int, int] | None) -> SpooledUpdate:
        return SpooledUpdate(0, self.destination.name, target, fields, updates, self._clock.wall_ns(), window_ns)

    def knows(self, key: SpanKey) -> bool:
        """Whether the span waits here or left lately."""
        self.take_in_spans()
        # Without the lock, because there may be thousands. Before the patches, because an update goes there.
        if any(update[1].key == key for update in self._late.copy()):
            return True
        with self._lock:
            self._admit()
            return key in self._spans or key in self._recent or key in self._patches.waiting

    def _times(self, key: SpanKey, recent: LeftSpan | None, now: int) -> tuple[int, int, int | None]:
        """Return when a new patch may go at the earliest, when it is due, and until when it is tried."""
        settings = self.settings
        if recent is not None:
            earliest = max(recent.at_ns + self._grace_ns, now)
            deadline = now + settings.failed_span_millis * _MILLI if recent.state == "failed" else None
        elif key in self._spans:
            earliest, deadline = now, None
        else:
            earliest, deadline = now + self.destination.remote_grace_ns, None
        return earliest, max(earliest, now + settings.schedule_delay_millis * _MILLI), deadline

    # --- the worker -------------------------------------------------------------------------------------------------

    def weigh_waiting(self) -> None:
        """Admit what arrived, weigh the spans among it, and let the spool have those that are held."""
        while True:
            self.take_in()
            with self._lock:
                self._admit()
                self._admit_late()
                items = self._spans.take_unweighed()
            if not items:
                return
            for portion in self._lock.portions(items):
                sizes = [item.weight() for item in portion]
                with self._lock:
                    self._learn(max(sizes))
                    for item, size in zip(portion, sizes, strict=True):
                        self._spans.note_size(item, size)
                        if self._spans.waiting.get(item.key) is item:
                            self._put_held(item)

    def wanted_rows(self) -> int:
        """Return how many rows of the spool there is room for now; 0 when none wait there."""
        with self._lock:
            # What was spilled and is not there any more is found out by asking.
            if self._is_closed or not (self._spilled or self.partition.has_more):
                return 0
            patches, spans = self._patches, self._spans
            rooms = (self.settings.spool_window - len(patches), self.settings.max_queue_size - len(spans.waiting))
            is_roomy = self._is_worth_reading(rooms[0], patches.bytes) and self._is_worth_reading(rooms[1], spans.bytes)
            return min(*rooms, _LOAD) if is_roomy else 0

    def _is_worth_reading(self, room: int, taken: int) -> bool:
        """Whether rows are read for so much room: in portions, and not where half of the bytes are taken already.

        More would push out spans that nobody has to lose: those on disk wait there.
        """
        settings = self.settings
        least = max(min(settings.spool_window, settings.max_queue_size), 1)
        return room * 2 >= least and taken * 2 < settings.max_bytes

    def admit_rows(self, rows: Sequence[Loaded], damaged: int) -> None:
        """Take rows of the spool into memory.

        Args:
            rows: What `Partition.load` returned.
            damaged: What `Partition.lost` returned.
        """
        spooled = [
            content.spooled(self.destination.name) if isinstance(content, PlainUpdate) else content
            for _, content, *_ in rows
        ]
        weights = [weigh(content.fields) if content is not None else Weight(0) for content in spooled]
        with self._lock:
            self._counters.adopted += damaged
            if damaged:
                self._lost("spool_damaged", damaged)
            if self._is_given_up:
                return  # a shutdown did not wait for them to be read: they stay with the spool
            for (row, _, is_adopted, updates, _), content, weight in zip(rows, spooled, weights, strict=True):
                if is_adopted:
                    self._counters.adopted += updates
                else:
                    self._spilled -= updates
                    self._note_read(content)
                if isinstance(content, SpooledSpan):
                    self._admit_span(row, content)
                elif isinstance(content, SpooledUpdate):
                    self._admit_update(row, content, weight)
                else:
                    self.partition.settle((row,))
                    self._lost("spool_damaged", updates)
            if not self.partition.has_more:
                if self._spilled > 0 and not rows:
                    # The spool has nothing more of what was spilled: its file was damaged.
                    self._lost("spool_damaged", self._spilled)
                    self._spilled = 0
                for ticket in self._flushes:
                    ticket.wants_spooled = ticket.wants_spooled and self._spilled > 0
            self._check_flushes()

    def _admit_span(self, row: Row, content: SpooledSpan) -> None:
        now = self._clock.monotonic_ns()
        held_ns = max(self._clock.wall_ns() - content.accepted_ns, 0)
        item = QueuedSpan.of_row(row, content, now + max(self._wait_ns - held_ns, 0))
        item.is_elsewhere = not self.destination.spans
        for ticket in self._flushes:
            if ticket.wants_spooled:
                ticket.keys.add(item.key)
        self._enqueue(item)

    def _admit_update(self, row: Row, content: SpooledUpdate, weight: Weight) -> None:
        key = content.target.key
        self._patches.settled.wait_again(key, content.fields)
        item = self._spans.open(key)
        if item is not None:
            self._spans.join(item, content.target, content.fields, content.updates, weight, row)
            return
        now = self._clock.monotonic_ns()
        recent = self._recent.get(key)
        earliest, due, deadline = self._times(key, recent, now)
        self._patches.add(
            content.target,
            content.fields,
            content.updates,
            weight,
            (row,),
            earliest_ns=earliest,
            due_ns=due,
            deadline_ns=deadline,
            age_ns=max(self._clock.wall_ns() - content.accepted_ns, 0),
            window_ns=content.window_ns,
        )
        pending = self._patches.waiting.get(key)
        for ticket in self._flushes:
            if ticket.wants_spooled and pending is not None:
                ticket.keys.add(key)
                ticket.hurry(key, pending, self._patches, now)

    def claim_spans(self) -> Sequence[QueuedSpan]:
        """Take the spans whose time has come out of the queue, with what was joined to them."""
        with self._lock:
            self._admit()
            return self._spans.claim(self._clock.monotonic_ns(), self._flushes) if not self._is_given_up else []

    def spans_answered(
        self,
        batch: Sequence[QueuedSpan],
        outcome: Outcome | None,
        remainders: Sequence[Fields],
        reason: LossReason = "target_not_exported",
    ) -> None:
        """Settle a batch: what left is delivered, what could not be said follows as a patch, what failed is told.

        Args:
            batch: What `claim_spans` returned.
            outcome: What the span exporter said of it; None when it raised, or there was nothing to be sent.
            remainders: For each span the fields that its dialect could not say.
            reason: The reason under which live updates of failed spans are counted as lost.
        """
        self.take_in()
        weights = [weigh(remainder) for remainder in remainders]
        with self._lock:
            self._admit_late()
            now = self._clock.monotonic_ns()
            is_exported = isinstance(outcome, Delivered)
            spans, batch_size = self._spans, len(batch)
            spans.judge(outcome, batch_size, now)
            spans.circuit.keep_apart(self._patches.circuit, now)
            self._tell_of_spans(outcome)
            again: list[QueuedSpan] = []
            for item, remainder, weight in zip(batch, remainders, weights, strict=True):
                if not spans.take_back(item):
                    continue  # given up meanwhile, at a shutdown that could not wait
                if not is_exported and spans.may_go_again(item, outcome, batch_size, now, is_closing=self._is_closed):
                    again.append(item)
                    continue
                spans.gone(item)
                if isinstance(outcome, Delivered):
                    end = DestinationOutcome("delivered", notes=outcome.notes) if outcome.notes else DELIVERED
                    self._recent[item.key] = LeftSpan("exported", now, item.window_ns, tuple(remainder), end)
                    self._counters.spans_exported += 1
                    self._settle_exported(item, remainder, weight, now)
                else:
                    end = DestinationOutcome("lost", reason, outcome.error if outcome is not None else None)
                    self._recent[item.key] = LeftSpan("failed", now, item.window_ns, outcome=end)
                    self._counters.spans_failed += 1
                    self._settle_failed(item, reason, now)
                self._release(item.key, now, is_exported)
            if again:
                spans.go_again(again, outcome, now)
                self._counters.spans_retried += len(again)
            self._give_up_in_flushes(again, outcome)
            if again and spans.is_over:
                self._evict()
            self._check_flushes()

    def _tell_of_spans(self, outcome: Outcome | None) -> None:
        if isinstance(outcome, Delivered) and outcome.notes:
            self._counters.notes += len(outcome.notes)
            self._tell("span_notes", f"{outcome.notes[0]}")
        elif isinstance(outcome, Rejected):
            self._tell("spans_rejected", f"spans were refused ({outcome.error.type}: {outcome.error.message}).")
        elif isinstance(outcome, Pause):
            self._tell("spans_paused", f"spans wait ({outcome.error.type}: {outcome.error.message}).")
        elif isinstance(outcome, Retry):
            self._tell(
                "spans_retried", f"spans wait, and are tried again ({outcome.error.type}: {outcome.error.message})."
            )

    def _give_up_in_flushes(self, again: Sequence[QueuedSpan], outcome: Outcome | None) -> None:
        """Let flushes wait for spans no longer: each is tried once, and what was refused with others once more alone.

        Of a destination that is dead nothing more is asked, also while the outbox closes and little is tried again.
        """
        if isinstance(outcome, Rejected):
            return
        is_dead = self._spans.circuit.is_dead
        self._flushes.give_up_on(self._spans.waiting if is_dead else [item.key for item in again])

    def claim_patches(self) -> Sequence[Patch]:
        """Take the patches whose time has come, at most the exporter's `max_batch`."""
        while True:
            with self._lock:
                self._admit_late()
                patches = self._patches.claim(self._window_of) if not self._is_given_up else []
            if patches is not None:
                return patches
            self._lock.give_way()

    def _window_of(self, key: SpanKey) -> tuple[int, int] | None:
        recent = self._recent.get(key)
        return recent.window_ns if recent is not None else None

    def patches_answered(self, patches: Sequence[Patch], outcomes: Sequence[Outcome | None]) -> None:
        """Settle each patch by its outcome; one without an outcome is tried again."""
        self.take_in()
        with self._lock:
            self._admit_late()
            self._flushes.answered(self._patches.answered(patches, outcomes))
            self._patches.circuit.keep_apart(self._spans.circuit, self._clock.monotonic_ns())
            is_paused = any(isinstance(outcome, Pause) for outcome in outcomes)
            for ticket in self._flushes:
                if is_paused or self._patches.circuit.is_dead:
                    ticket.drop_patches(self._patches, self._spans)
                    ticket.read_no_more()
            self._check_flushes()

    def take_dead_letter(self) -> DeadLetter | None:
        """Return a dead letter, to be shown to the application; None when all were. No lock: there may be many."""
        return self._patches.take_dead_letter()

    def give_way(self) -> None:
        """Let others have the lock between two steps of the worker, also where the exporters take no time."""
        self._lock.give_way()

    def next_due_ns(self) -> int | None:
        """Return the monotonic time of the next work that is known now; None when nothing waits."""
        with self._lock:
            times = (self._spans.next_due_ns(self._flushes), self._patches.next_due_ns())
            return min((time for time in times if time is not None), default=None)

    # --- flush, shutdown, counts ------------------------------------------------------------------------------------

    def request_flush(self, done: Callable[[], None], deadline_ns: int) -> FlushTicket:
        """Make everything that waits due as soon as its backend may take it, and tell when all of it was tried once.

        Patches that cannot be tried by the deadline, or that wait out a pause, are not waited for: then it is unclean.

        Args:
            done: Called under the lock, once.
            deadline_ns: Until when somebody waits; monotonic.
        """
        ticket = FlushTicket(deadline_ns, done)
        self.take_in()
        try:
            with self._lock:
                self._admit()
                self._admit_late()
                ticket.keys.update(self._spans.waiting, self._spans.exporting)
                if self.shared is not None and self.shared.is_shared:
                    ticket.keys.add(THEIRS)
                ticket.wants_spooled = not self._is_closed and (self._spilled > 0 or self.partition.has_more)
                self._flushes.add(ticket)
                keys = self._patches.keys()
            for portion in self._lock.portions(keys):
                with self._lock:
                    ticket.wait_for(portion, self._patches, self._clock.monotonic_ns())
            with self._lock:
                ticket.is_filling = False
                self._check_flushes()
        except BaseException:
            self._flushes.drop(ticket)  # a signal handler's: nobody waits for this flush
            raise
        return ticket

    @property
    def wants_theirs(self) -> bool:
        """Whether a flush waits for the application's processors that export to the same place."""
        return THEIRS in self._flushes

    def theirs_answered(self, *, is_clean: bool) -> None:
        """Note that they were flushed."""
        with self._lock:
            self._flushes.forget(THEIRS, is_clean=is_clean)
            self._check_flushes()

    @property
    def is_flushing(self) -> bool:
        """Whether somebody waits for a flush."""
        return bool(self._flushes)

    def drop_ticket(self, ticket: FlushTicket) -> None:
        """Forget a flush that nobody waits for any more."""
        with self._lock:
            self._flushes.drop(ticket)

    def log_pending_lines(self) -> None:
        """Log what was decided. Called without the lock: a logging handler is the application's code."""
        lines = self._pending_lines
        while lines:
            try:
                reason, message, level = lines.popleft()
            except IndexError:  # another thread has told it
                return
            REPORTER.tell(reason, message, level=level)

    def close(self) -> None:
        """Stop accepting updates, and release patches that still wait for remote spans."""
        self.take_in()
        with self._lock:
            self._admit()
            self._admit_late()
            if not self._is_closed:
                self._lost_before = self._lost_so_far()
            self._is_closed = True
            self._takes_plain = False
            keys = self._patches.keys()
        for portion in self._lock.portions(keys):
            with self._lock:
                now = self._clock.monotonic_ns()
                for key in portion:
                    pending = self._patches.waiting.get(key)
                    # After a try, its time is what the backend asked for; after its span's export, the backend's grace.
                    if pending is not None and not pending.attempts and key not in self._recent:
                        pending.earliest_ns = now
                        self._patches.make_due(key, pending, now)

    def _lost_so_far(self) -> tuple[int, dict[LossReason, int]]:
        counters = self._counters
        spans = counters.spans_failed + counters.spans_evicted - self._spans_kept
        return spans, counters.lost.copy()

    def give_up(self, reason: LossReason) -> tuple[int, int, Sequence[LossReason]]:
        """Leave what the spool has to it, and count the rest as lost.

        Returns:
            How many spans and updates were lost since `close`, by this and before it, and why the updates were. A
            second call, after one that was interrupted, returns what the first did not.
        """
        self.take_in()
        with self._lock:
            self._admit()
            self._admit_late()
            self._is_given_up = True
            items = self._spans.all()
        for portion in self._lock.portions(items):
            with self._lock:
                self._leave_spans(portion, reason)
        # After the spans, because what could not leave with a span becomes a patch.
        with self._lock:
            keys = self._patches.keys()
        for some_keys in self._lock.portions(keys):
            with self._lock:
                self._patches.leave(some_keys, reason)
        with self._lock:
            # Both may be long: they are freed after this hold.
            _forgotten = self._spans.take_unweighed(), self._patches.take_schedule()
            counters = self._counters
            unwritten = min(self.partition.unkept, self._spilled)
            counters.lose(reason, unwritten)  # the last call: see `_admit`
            self._is_disk_left = self._is_disk_left or self._spilled > unwritten
            counters.handed_over += self._spilled - unwritten
            self._spilled = 0
            for ticket in self._flushes:
                ticket.give_up()
            self._check_flushes()
            spans, lost = self._lost_so_far()
            spans_before, before = self._lost_before
            self._lost_before = spans, lost
        since = {one: count - before.get(one, 0) for one, count in lost.items() if count > before.get(one, 0)}
        return spans - spans_before, sum(since.values()), list(since)

    def _leave_spans(self, items: Sequence[QueuedSpan], reason: LossReason) -> None:
        """Leave those of *items* that are still here to the spool, where it has them; count the rest as lost."""
        spans, counters = self._spans, self._counters
        for item in items:
            is_waiting = spans.waiting.get(item.key) is item
            if not is_waiting and spans.exporting.get(item.key) is not item:
                continue  # answered since they were listed
            kept = item.updates_kept_in(self.partition)
            is_kept = item.row is not None and self.partition.keeps((item.row,))
            self._note_given_up(item, reason, is_kept=is_kept)
            counters.lose(reason, item.updates + item.joined_updates - kept)  # the last call: see `_admit`
            counters.handed_over += kept
            self._spans_kept += is_kept
            spans.bytes -= item.size
            if is_waiting:
                del spans.waiting[item.key]
                counters.spans_evicted += 1
            else:
                del spans.exporting[item.key]
                counters.spans_failed += 1

    def refuse_live(self) -> None:
        """Count an update for which live spans have no room."""
        with self._lock:
            self._tell_lost("buffer_full")
            self._counters.lose("buffer_full", 1)
            self._counters.accepted += 1

    def lose_live(self, entry: EndedSpan) -> None:
        """Count the live updates of a span that will never end here, once."""
        with self._lock:
            if self in entry.lost_in:
                return
            self._patches.settled.gone(entry.key, entry.fields or _NO_FIELDS, "target_not_exported")
            self._counters.lose("target_not_exported", entry.updates)
            self._counters.accepted += entry.updates  # no call from here on: see `_admit`
            entry.lost_in += (self,)

    def outcome(self, key: SpanKey, names: Sequence[FieldName], version: Version, route: Route) -> DestinationOutcome:
        """Return what became of an update.

        Args:
            key: Its span or trace.
            names: The fields that it sets.
            version: Their version.
            route: Where it went when it was taken.
        """
        self.take_in()
        with self._lock:
            self._admit()
            self._admit_late()
            return self._outcomes.of(key, names, version, route, self._on_disk(version))

    def _on_disk(self, version: Version) -> DestinationOutcome:
        """Return what becomes of a field that may be on disk only, or be nowhere."""
        if version >= self._spilled_from:
            if self._spilled > 0:
                return DestinationOutcome("late")
            if self._is_disk_left:
                return DestinationOutcome("handed_over")
        return UNKNOWN

    def _note_read(self, content: object) -> None:
        """Note how far what was spilled has been read back: versions ascend."""
        if isinstance(content, PlainUpdate):
            ns, writer = content.version
        elif isinstance(content, SpooledUpdate) and content.fields:
            ns, writer = max(version for _, version in content.fields.values())
        else:
            return
        self._spilled_from = max(self._spilled_from, (ns, writer + 1))

    def _note_given_up(self, item: QueuedSpan, reason: LossReason, *, is_kept: bool) -> None:
        """Note what became of a span that a shutdown leaves, and of what was joined to it."""
        end = DestinationOutcome("handed_over") if is_kept else DestinationOutcome("lost", reason, item.error)
        self._recent[item.key] = LeftSpan("failed", self._clock.monotonic_ns(), item.window_ns, outcome=end)
        if item.joined:
            are_kept = bool(item.rows) and self.partition.keeps(item.rows or ()) and not item.unspooled
            self._patches.settled.gone(item.key, item.joined, None if are_kept else reason, item.error)

    def last_errors(self) -> list[DeliveryError]:
        """Return the error of the last try of each patch and span that waits, where one was tried."""
        with self._lock:
            waiting: list[Pending | QueuedSpan] = [*self._patches.all(), *self._spans.all()]
        return [one.error for one in waiting if one.error is not None]

    def stats(self, count_live: Callable[[], Callable[[], int]]) -> DestinationStats:
        """Return the counts of this moment. Called without the lock.

        Args:
            count_live: Called under the lock. It returns a function that counts the updates on spans that have not
                ended by then; they are not in the outbox yet.
        """
        self.take_in()
        with self._lock:
            moment = self._moment(count_live)
        return moment.stats(self.partition)

    def _moment(self, count_live: Callable[[], Callable[[], int]]) -> Moment:
        while True:
            self._admit()
            self._admit_late()
            counts, spans = self._counters.all(), self._spans.all()
            moment = Moment(
                self._clock.monotonic_ns(),
                counts,
                count_live(),
                sum(map(_UPDATES, spans)) + sum(map(_JOINED_UPDATES, spans)),
                len(spans),
                self._spilled,
                *self._patches.to_count(),
                self._spans.bytes + self._patches.bytes,
            )
            # A finalizer or signal handler that updates a span may have come between.
            if self._counters.all() == counts:
                return moment

    # --- decisions, under the lock ----------------------------------------------------------------------------------

    def take_in(self) -> None:
        """Admit most of what arrived, in portions: called without the lock, which others get in between."""
        for _ in self._lock.portions(range(_whole_portions(max(len(self._inbox), len(self._late))))):
            with self._lock:
                self._admit(limit=PORTION)
                self._admit_late(limit=PORTION)

    # An exception may interrupt any call on the application's thread: Ctrl-C, a signal handler that raises, too deep a
    # recursion. Therefore what waits is placed first and then taken out of its inbox, and to place it once more does
    # no harm. CPython runs signal handlers where a function is called, so what follows the last call is done as one.

    def _admit(self, limit: int | None = None, *, weigh: bool = False) -> None:
        """Take the inbox into the queue and close the sidecars: what comes now is joined."""
        inbox = self._inbox
        if inbox:
            self.look()
        while limit != 0:
            # A finalizer's call skips the entries that the interrupted call is placing.
            place = self._placing
            self._placing = place + 1
            try:
                if len(inbox) <= place:
                    return
                ended = inbox[place]
                try:
                    is_lost = self._put(ended, weigh=weigh)
                    self._failures = 0
                except BaseException as error:
                    if not self._is_given_up_on(error):
                        raise
                    is_lost = True
                if is_lost:
                    self._counters.lose("target_not_exported", ended.updates)
                del inbox[place]
                self._counters.accepted += ended.updates
            finally:
                self._placing = place
            limit = None if limit is None else limit - 1

    def _admit_late(self, limit: int | None = None) -> None:
        """Coalesce the plain updates that arrived."""
        late = self._late
        while limit != 0:
            place = self._placing_late
            self._placing_late = place + 1
            try:
                if len(late) <= place:
                    break
                at_ns, target, version, metadata, row = late[place]
                is_lost = False
                try:
                    fields = _fields_of(version, metadata)
                    recent = self._recent.get(target.key)
                    # Its schedule counts from the call.
                    age_ns = self._clock.monotonic_ns() - at_ns
                    rows = (row,) if row is not None else ()
                    weight = weigh(fields)
                    self._failures = 0
                    self._add_late(target, fields, weight, recent, rows, age_ns=age_ns)
                except BaseException as error:
                    if not self._is_given_up_on(error):
                        raise
                    is_lost = True
                if is_lost:
                    self._counters.lose("internal_error", 1)
                del late[place]
                self._counters.accepted += 1
            finally:
                self._placing_late = place
            limit = None if limit is None else limit - 1
        self._takes_plain = self._has_room_for_plain()

    def _has_room_for_plain(self) -> bool:
        """Whether the next plain updates need not be looked at: there is room for as many as may wait."""
        settings, patches = self.settings, self._patches
        return (
            settings.max_bytes >= _LATE_BYTES
            and settings.max_patches >= 2 * _LATE_BOUND
            and not self._is_closed
            and not self._spilled
            and not self._counters.spans_evicted
            and len(patches) < (settings.spool_window if self._is_durable else settings.max_patches // 2)
            and patches.bytes * 2 < settings.max_bytes
        )

    def _is_given_up_on(self, error: BaseException) -> bool:
        """Whether what could not be placed, again and again, is counted as lost: else nothing behind it ever leaves."""
        self._failures += 1
        if self._failures < _MAX_FAILURES:
            return False
        self._failures = 0
        self._tell("internal_error", f"an update was lost: placing it raised {type(error).__name__}.")
        return True

    def _put(self, ended: EndedSpan, *, weigh: bool) -> bool:
        """Place a span that has ended; return whether its updates are lost."""
        ended.close()
        if ended.ended is None or self._is_closed:
            self._patches.settled.gone(ended.key, ended.fields or _NO_FIELDS, "target_not_exported")
            return True
        key = ended.key
        is_again, self._attempted = self._attempted is ended, ended
        if is_again and (key in self._spans or key in self._recent):
            return False  # the call that was interrupted has placed it
        span = ended.ended if self.shared is None else self.shared.claim(key, ended.ended)
        item = QueuedSpan(
            key,
            span if span is not None else ended.ended,
            ended.fields or _NO_FIELDS,
            ended.updates,
            ended.is_local_root,
            self._clock.monotonic_ns() + self._wait_ns,
            ended.backend_ids,
            ended.captured,
        )
        item.is_elsewhere = span is None or not self.destination.spans
        self._enqueue(item, weigh=weigh)
        return False

    def _enqueue(self, item: QueuedSpan, *, weigh: bool = True) -> None:
        spans = self._spans
        item.is_shut = item.is_elsewhere or (self._patches.is_ordered and self._patches.holds(item.key))
        is_flushed = item.key in self._flushes
        if is_flushed:
            # A flush waits for the patch behind this span, so the span goes first: other spans need not leave yet.
            item.due_ns = self._clock.monotonic_ns()
        before = spans.put(item, is_first=is_flushed)
        if before is not None:
            # An id generator of the application's own repeated itself: one of the two spans can stay.
            self._counters.spans_evicted += 1
            self._counters.lose("target_not_exported", before.updates + before.joined_updates)
            self._patches.settled.gone(item.key, before.all_fields(), "target_not_exported")
            self.partition.settle(before.all_rows())
        # While the worker hangs in an exporter, those that nobody has weighed must not become many.
        if weigh or spans.unweighed >= self._inbox_room:
            spans.weigh(item)
            self._put_held(item)
        else:
            spans.weigh_later(item)
        if spans.is_over:
            self._evict()

    def _evict(self) -> None:
        """Drop what there is no room for, and all that was said of it."""
        spans = self._spans
        spans.weigh_for_room()
        while (item := spans.to_be_evicted()) is not None:
            key = item.key
            self._counters.lose("target_not_exported", item.updates + item.joined_updates)
            del spans.waiting[key]  # no call from here on: see `_admit`
            spans.bytes -= item.size
            self._counters.spans_evicted += 1
            self.partition.settle(item.all_rows())
            self._recent[key] = LeftSpan("evicted", self._clock.monotonic_ns(), None, outcome=_EVICTED)
            self._takes_plain = False
            self._patches.drop(key, "target_not_exported")
            self._flushes.forget(key, is_clean=False)
            self._tell("evicted", "the outbox is full; the oldest ended span was dropped, with its updates.")
        self._check_flushes()

    def _settle_exported(self, item: QueuedSpan, remainder: Fields, weight: Weight, now: int) -> None:
        updates = item.updates + item.joined_updates
        if not remainder:
            self._counters.delivered += updates
            self.partition.settle(item.all_rows())
            return
        # One update has one version: as many updates are unsettled as the remainder has versions.
        moved = unsettled(remainder, updates)
        self._counters.delivered += updates - moved
        self._follow(item, remainder, weight, moved, now)

    def _settle_failed(self, item: QueuedSpan, reason: LossReason, now: int) -> None:
        self._counters.lose(reason, item.updates)
        if not item.joined:
            self.partition.settle(item.all_rows())
            return
        deadline = now + self.settings.failed_span_millis * _MILLI
        weight = Weight(weigh_common(item.joined, item.joined, item.large), item.large)
        self._follow(item, item.joined, weight, item.joined_updates, now, deadline_ns=deadline)

    def _follow(
        self,
        item: QueuedSpan,
        fields: Fields,
        weight: Weight,
        updates: int,
        now: int,
        *,
        deadline_ns: int | None = None,
    ) -> None:
        """Let what has not left with a span follow it as a patch, after the backend's grace and within the bounds."""
        size = weight.size
        entry = self._entry(item.ref, fields, updates, item.window_ns)
        # The span's rows are erased only after what takes their place is written: see Partition.
        has_room = self._patches.room_for(item.key, fields, size)
        if not has_room and ((is_spilled := self._spill(entry)) or not self._has_room_beyond(item.key, fields, size)):
            if not is_spilled:
                self._patches.settled.gone(item.key, fields, self._no_room)
                self._lost(self._no_room, updates)
            self.partition.settle(item.all_rows())
            for ticket in self._flushes:
                ticket.is_clean = ticket.is_clean and item.key not in ticket.keys
            return
        row = self.partition.put(entry)
        earliest = now + self._grace_ns
        self._patches.add(
            item.ref,
            fields,
            updates,
            weight,
            (row,) if row is not None else item.all_rows(),
            earliest_ns=earliest,
            due_ns=earliest,
            deadline_ns=deadline_ns,
            window_ns=item.window_ns,
        )
        if row is not None:
            self.partition.settle(item.all_rows())

    def _release(self, key: SpanKey, now: int, is_exported: bool) -> None:
        """Let the patch that waited for the answer go, if there is one."""
        pending = self._patches.waiting.get(key)
        if pending is None:
            self._flushes.forget(key, is_clean=is_exported)
            return
        pending.earliest_ns = max(pending.earliest_ns, now + self._grace_ns)
        if not is_exported:
            pending.deadline_ns = now + self.settings.failed_span_millis * _MILLI
        for ticket in self._flushes:
            if key in ticket.keys:
                ticket.is_clean = ticket.is_clean and is_exported
                if ticket.is_hopeless(pending, self._patches, now):
                    ticket.forget(key, is_clean=False)
        is_flushed = key in self._flushes
        pending.due_ns = pending.earliest_ns if is_flushed else max(pending.due_ns, pending.earliest_ns)
        self._patches.schedule(key, pending)

    def _learn(self, size: int) -> None:
        """Adapt the room of the inbox to the size of the spans that come."""
        self._average_size += (size - self._average_size) / (4 if self._average_size else 1)
        room = int(self.settings.max_bytes / 8 / self._average_size)
        least = min(_MIN_INBOX_ROOM, self._spans.pressure_at)
        self._inbox_room = max(min(room, _INBOX_ROOM, self._spans.pressure_at), least)
        # Far above the room: a burst that the queue could hold must not be admitted on the application's thread.
        self._inbox_bound = max(min(2 * room, self.settings.max_queue_size), least)

    def _lost(self, reason: LossReason, updates: int) -> Routed:
        routed = Routed("dropped", reason)
        self._tell_lost(reason)
        self._counters.lose(reason, updates)  # the last call: see `_admit`
        return routed

    def _tell_lost(self, reason: LossReason) -> None:
        self._tell(reason, f"an update was lost ({reason}).")

    def _tell(self, reason: str, message: str, level: int = logging.WARNING) -> None:
        name = self.destination.name
        self._pending_lines.append((f"{reason}:{name}", f"{name}: {message}", level))

    def _check_flushes(self) -> None:
        room = self.settings.spool_window - len(self._patches)
        for ticket in self._flushes:
            if not ticket.keys and not self._is_worth_reading(room, self._patches.bytes):
                ticket.read_no_more()  # the window is full of what may not go now
        self._flushes.end_those_that_are_over()

    def __repr__(self) -> str:
        """A status line."""
        return (
            f"<Outbox {self.destination.name} queued={len(self._spans.waiting)} "
            f"exporting={len(self._spans.exporting)} "
            f"patches={len(self._patches) + len(self._late)} spilled={self._spilled}>"
        )
