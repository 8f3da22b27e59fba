"""A destination's own queue of ended spans and waiting patches.

Theory of operation. For one destination a span is, after its end, in one of these states, and an update for it does
what the state says:

    arrived     in `_inbox`, put there without a lock; admitted to the queue before anything is decided
    queued      in `_queue`: the update is joined to it and leaves with it
    exporting   in `_exporting`: the update becomes a patch that waits for the answer
    exported    in `_recent`: the patch may go after the backend's grace
    failed      in `_recent`: what was joined becomes a patch with a deadline, for the backend may have the span after
                all; what was set live shares the span's fate
    evicted     in `_recent`: it never left; its updates are lost (`target_not_exported`), and counted
    unseen      nowhere here (another process, or long ago): the patch goes after the remote grace

A waiting patch is in `_pending`, one for each target: later updates are merged into it. While it is being sent it is in
`_sending`, and updates start another one, which waits: one request in flight for each target, versions ascending.
`_due` is a heap of (when, key) over `_pending`; an entry that no longer matches its patch is skipped.

Every method that changes state takes the process's one re-entrant lock (`live.registry.LOCK`, passed in) and never
calls foreign code in it. Methods *decide*; the worker acts: it calls `claim_*`, then the exporter without the lock,
then `*_answered` with what came back. So no update is in neither place: the span and its fields are claimed together. A
log line ends in a handler of the application's, so what is to be told waits in `_news` for `tell_news`.

Balance: each accepted update is counted once in exactly one of delivered, waiting, lost. A patch carries the number of
updates that are in it; a span that leaves with a remainder settles only the updates that are not in the remainder.

Bytes: `_span_bytes` and `_patch_bytes` are what is held, apart from spans that are not weighed yet: a field that
replaces another counts only for the difference. Each has a bound of its own, so that patches push out no spans.

If you add a place where updates wait, add it to `stats` and to `give_up`.
"""

from __future__ import annotations

import heapq
import os
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, final

from otel_metadata.errors import ConfigurationError
from otel_metadata.late.backoff import backoff_ns
from otel_metadata.late.stats import Counters, DestinationStats
from otel_metadata.late.weight import merge_weighed, weigh_common, weigh_fields, weigh_span
from otel_metadata.model.merge import Field, FieldName, Fields, merge
from otel_metadata.model.outcome import Delivered, DeliveryError, Outcome, Pause, Rejected, Retry
from otel_metadata.model.patch import Patch
from otel_metadata.model.receipt import LossReason, Routed
from otel_metadata.model.recent import RecentMap
from otel_metadata.model.span_ref import SpanKey, SpanRef
from otel_metadata.reporting import REPORTER

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from otel_metadata.late.destination import Destination
    from otel_metadata.seams import Clock

__all__ = ["EndedSpan", "FlushTicket", "Outbox", "OutboxSettings", "PatchBatch", "QueuedSpan", "SpanBatch"]

_MILLI: Final = 1_000_000

MAX_RECENT: Final = 16_384
"""Spans whose end in this destination is remembered at least; about 230 bytes each."""


# Log lines that wait to be told; the reporter tells one a minute of each kind, so a few are enough.
_MAX_NEWS: Final = 1_024

# Ended spans that wait to be admitted before the worker is woken for it. Until then they are not weighed, so when spans
# turn out to be large there are fewer of them: together an eighth of the room in bytes.
_INBOX_ROOM: Final = 1_024
_MIN_INBOX_ROOM: Final = 16

# While the worker does not come, one in so many spans is weighed as it arrives: enough to see that they got larger.
_SAMPLE_EVERY: Final = 64

_NO_FIELDS: Final[Fields] = {}


def _nobody() -> None:
    """Wake nobody: an outbox without a worker."""


class EndedSpan(Protocol):
    """A span that has ended, as the live side hands it over: see `live.registry.LiveSpan`."""

    key: SpanKey
    is_open: bool
    fields: dict[FieldName, Field] | None
    updates: int
    ended: ReadableSpan | None

    @property
    def is_local_root(self) -> bool:
        """Whether its parent is in another process, or there is none."""
        ...


@final
@dataclass(frozen=True, slots=True)
class OutboxSettings:
    """Bounds and times of an outbox.

    Attributes:
        max_queue_size: Ended spans that wait, at least 1 (`OTEL_BSP_MAX_QUEUE_SIZE`); when full the oldest is dropped.
        max_export_batch_size: Spans in one export (`OTEL_BSP_MAX_EXPORT_BATCH_SIZE`).
        schedule_delay_millis: How long a span or patch waits for company (`OTEL_BSP_SCHEDULE_DELAY`).
        export_timeout_millis: What one export of patches may take (`OTEL_BSP_EXPORT_TIMEOUT`).
        max_patches: Targets with a waiting patch; beyond, an update is lost (`buffer_full`).
        max_bytes: Estimated size of the ended spans that wait or are being exported, and of the patches: each of the
            two may be this large. Ended spans that were not admitted yet come on top: at most max_queue_size of them,
            and about a quarter of this.
        visibility_millis: How long "span not found" is answered with another try.
        failed_span_millis: How long the patch of a span whose export failed is tried.
        max_age_millis: How long a patch is tried at all.
        pause_millis: How long a paused destination waits before the next probe.
    """

    max_queue_size: int = 2_048
    max_export_batch_size: int = 512
    schedule_delay_millis: int = 5_000
    export_timeout_millis: int = 30_000
    max_patches: int = 100_000
    max_bytes: int = 64 * 1024 * 1024
    visibility_millis: int = 120_000
    failed_span_millis: int = 120_000
    max_age_millis: int = 86_400_000
    pause_millis: int = 60_000

    @classmethod
    def from_environment(cls) -> OutboxSettings:
        """Return what OpenTelemetry's `OTEL_BSP_*` variables say, with our own defaults for the rest.

        Source: OpenTelemetry, "Batch Span Processor" of the SDK environment variables.

        Raises:
            ConfigurationError: A value is not a whole number of 1 or more.
        """
        queue = _number("OTEL_BSP_MAX_QUEUE_SIZE", 2_048)
        return cls(
            max_queue_size=queue,
            max_export_batch_size=min(_number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512), queue),
            schedule_delay_millis=_number("OTEL_BSP_SCHEDULE_DELAY", 5_000),
            export_timeout_millis=_number("OTEL_BSP_EXPORT_TIMEOUT", 30_000),
        )


@final
class QueuedSpan:
    """An ended span that waits, what was set on it live, and what was joined to it since.

    Attributes:
        key: (trace id, span id).
        span: The ended span.
        fields: Its sidecar, closed.
        updates: How many update calls are in the sidecar.
        joined: Fields that came after the end.
        joined_updates: How many update calls those are.
        is_local_root: Whether its parent is in another process, or there is none.
        due_ns: When it leaves, at the latest; monotonic.
        size: Estimated bytes; 0 until weighed.
    """

    __slots__ = ("due_ns", "fields", "is_local_root", "joined", "joined_updates", "key", "size", "span", "updates")

    def __init__(
        self, key: SpanKey, span: ReadableSpan, fields: Fields, updates: int, is_local_root: bool, due_ns: int
    ) -> None:
        """Start without joined fields."""
        self.key = key
        self.span = span
        self.fields = fields
        self.updates = updates
        self.is_local_root = is_local_root
        self.due_ns = due_ns
        self.joined: dict[FieldName, Field] | None = None
        self.joined_updates = 0
        self.size = 0

    def all_fields(self) -> Fields:
        """Return sidecar and joined fields, merged."""
        return merge(self.fields, self.joined) if self.joined else self.fields


class _Recent(NamedTuple):
    """What became of a span here: the worst an update can still hope for."""

    state: str
    at_ns: int
    window_ns: tuple[int, int] | None


@final
class _Pending:
    """A patch that waits: everything for one target, coalesced."""

    __slots__ = (
        "attempts",
        "created_ns",
        "deadline_ns",
        "due_ns",
        "earliest_ns",
        "fields",
        "first_missing_ns",
        "size",
        "target",
        "updates",
    )

    def __init__(self, target: SpanRef, now_ns: int) -> None:
        self.target = target
        self.fields: dict[FieldName, Field] = {}
        self.updates = 0
        self.size = 0
        self.created_ns = now_ns
        self.earliest_ns = now_ns
        self.due_ns = now_ns
        self.deadline_ns: int | None = None
        self.first_missing_ns: int | None = None
        self.attempts = 0

    def take(self, target: SpanRef, fields: Fields, updates: int, size: int) -> int:
        """Take more fields for the same span, and the ids that its name brings; return by how much it grew."""
        if target.backend_ids and not self.target.backend_ids:
            self.target = target
        growth = merge_weighed(self.fields, fields, size)
        self.updates += updates
        self.size += growth
        return growth


class SpanBatch(NamedTuple):
    """Spans to export; answered by `Outbox.spans_answered`."""

    items: Sequence[QueuedSpan]


class PatchBatch(NamedTuple):
    """Patches to send; answered by `Outbox.patches_answered`."""

    patches: Sequence[Patch]


@final
class FlushTicket:
    """What one flush waits for: everything that waited when it was asked for, tried at least once.

    Attributes:
        keys: What is still to be tried.
        deadline_ns: When nobody waits any more; monotonic. What cannot be tried before is not waited for.
        behind: Those among them of which a patch is being sent and another waits behind it.
        is_clean: Whether all that was tried so far arrived.
    """

    __slots__ = ("behind", "deadline_ns", "done", "is_clean", "keys")

    def __init__(self, keys: set[SpanKey], behind: set[SpanKey], deadline_ns: int, done: Callable[[], None]) -> None:
        """Call *done* when `keys` runs empty."""
        self.keys = keys
        self.deadline_ns = deadline_ns
        self.behind = behind
        self.is_clean = True
        self.done = done

    def tried(self, key: SpanKey, *, is_clean: bool) -> None:
        """Note the answer to what went first: the patch behind it, if there is one, is still to be tried."""
        if key in self.keys:
            self.is_clean = self.is_clean and is_clean
            if key in self.behind:
                self.behind.discard(key)
            else:
                self.keys.discard(key)

    def forget(self, key: SpanKey, *, is_clean: bool) -> None:
        """Note that nothing of *key* is left to be tried."""
        self.behind.discard(key)
        self.tried(key, is_clean=is_clean)


@final
class Outbox:
    """One destination's ended spans and waiting patches: see the module's theory of operation."""

    def __init__(
        self,
        destination: Destination,
        settings: OutboxSettings,
        clock: Clock,
        lock: AbstractContextManager[object],
        chance: Callable[[], float],
    ) -> None:
        """Start empty.

        Args:
            destination: Whose outbox it is.
            settings: Bounds and times.
            clock: Time.
            lock: The process's one re-entrant lock.
            chance: Uniform in [0, 1), for the jitter of the back-off.
        """
        self.destination = destination
        self.settings = settings
        self._clock = clock
        self._lock = lock
        self._chance = chance
        self._wait_ns = max(destination.hold_millis, settings.schedule_delay_millis) * _MILLI
        self._grace_ns = destination.patch_exporter.grace_millis * _MILLI
        # A held span leaves early when half of the room is taken; others leave as soon as a batch is full.
        self._pressure_at = settings.max_queue_size // 2 if destination.hold_millis else settings.max_export_batch_size
        self._pressure_at = max(min(self._pressure_at, settings.max_queue_size), 1)
        # Small until the first spans were weighed.
        self._inbox_room = self._inbox_bound = min(_MIN_INBOX_ROOM, self._pressure_at)
        self._average_size = 0.0
        self.wake: Callable[[], None] = _nobody
        self.reset()

    def reset(self) -> None:
        """Forget everything and count from zero: in a forked child the parent keeps what waits."""
        # Ordered: taking the oldest out of a plain dict again and again is quadratic (see RecentMap).
        self._queue: OrderedDict[SpanKey, QueuedSpan] = OrderedDict()
        self._exporting: dict[SpanKey, QueuedSpan] = {}
        self._recent: RecentMap[SpanKey, _Recent] = RecentMap(MAX_RECENT)
        self._pending: dict[SpanKey, _Pending] = {}
        self._sending: dict[SpanKey, _Pending] = {}
        self._due: list[tuple[int, SpanKey]] = []
        self._tickets: list[FlushTicket] = []
        self._inbox: deque[EndedSpan] = deque()
        self._unweighed: list[QueuedSpan] = []
        self._news: deque[tuple[str, str]] = deque(maxlen=_MAX_NEWS)
        # Of ended spans, queued and exporting, with what was joined; and of patches, waiting and being sent.
        self._span_bytes = 0
        self._patch_bytes = 0
        self._paused_until_ns = 0
        self._counters = Counters()
        self._is_closed = False

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

    def _keep_bounds(self, ended: EndedSpan, *, is_sample: bool) -> None:
        """Do on the application's thread what must not wait for a worker that is busy, or hangs in an exporter."""
        with self._lock:
            if is_sample and ended.ended is not None:
                self._learn(weigh_span(ended.ended))
            if len(self._inbox) > self._inbox_bound:
                self._admit(limit=2, weigh=True)  # two for one, so that no single call pays for all
        self.tell_news()

    def submit(self, target: SpanRef, fields: Fields) -> Routed:
        """Take one update for a span that is not live: join it, or make a patch of it."""
        key = target.key
        with self._lock:
            self._admit()
            if self._is_closed:
                return Routed("dropped", "after_shutdown")
            self._counters.accepted += 1
            size = weigh_fields(fields)
            item = self._queue.get(key)
            if item is not None and self.destination.spans:
                if self._is_too_much(self._span_bytes + size, item.joined, fields):
                    return self._lost("buffer_full", 1)
                if item.joined is None:
                    item.joined = {}
                growth = merge_weighed(item.joined, fields, size)
                item.joined_updates += 1
                item.size += growth
                self._span_bytes += growth
                return Routed("in_flight")
            pending = self._pending.get(key)
            if pending is None and len(self._pending) >= self.settings.max_patches:
                return self._lost("buffer_full", 1)
            if self._is_too_much(self._patch_bytes + size, pending.fields if pending is not None else None, fields):
                return self._lost("buffer_full", 1)
            now = self._clock.monotonic_ns()
            recent = self._recent.get(key)
            if recent is not None and recent.state == "evicted":
                return self._lost("target_not_exported", 1)
            self._add_pending(target, fields, 1, size, *self._times(key, recent, now))
            return Routed("late")

    def knows(self, key: SpanKey) -> bool:
        """Whether the span waits here or left lately."""
        with self._lock:
            self._admit()
            return key in self._queue or key in self._exporting or key in self._recent or key in self._pending

    def _is_too_much(self, size: int, held: Fields | None, fields: Fields) -> bool:
        """Whether *size* is beyond the bound, also when what *fields* replaces among *held* is taken off."""
        bound = self.settings.max_bytes
        return size > bound and (held is None or size - weigh_common(held, fields) > bound)

    def _times(self, key: SpanKey, recent: _Recent | None, now: int) -> tuple[int, int, int | None]:
        """Return when a new patch may go at the earliest, when it is due, and until when it is tried."""
        settings = self.settings
        if recent is not None:
            earliest = max(recent.at_ns + self._grace_ns, now)
            deadline = now + settings.failed_span_millis * _MILLI if recent.state == "failed" else None
        elif key in self._queue or key in self._exporting:
            earliest, deadline = now, None
        else:
            earliest, deadline = now + self.destination.remote_grace_ns, None
        return earliest, max(earliest, now + settings.schedule_delay_millis * _MILLI), deadline

    # --- the worker -------------------------------------------------------------------------------------------------

    def weigh_waiting(self) -> None:
        """Weigh the spans that were put without being weighed; the worker does it between its other work."""
        while True:
            with self._lock:
                self._admit()
                items, self._unweighed = self._unweighed, []
            if not items:
                return
            sizes = [weigh_span(item.span) + weigh_fields(item.fields) for item in items]
            with self._lock:
                self._learn(max(sizes))
                for item, size in zip(items, sizes, strict=True):
                    self._note_size(item, size)

    def claim_spans(self) -> SpanBatch | None:
        """Take the spans whose time has come out of the queue, with what was joined to them; None for none."""
        with self._lock:
            self._admit()
            now = self._clock.monotonic_ns()
            queue = self._queue
            batch: list[QueuedSpan] = []
            while queue and len(batch) < self.settings.max_export_batch_size:
                key = next(iter(queue))
                item = queue[key]
                pressed = len(queue) + len(batch) >= self._pressure_at or self._span_bytes * 2 > self.settings.max_bytes
                if item.due_ns > now and not pressed and not self._is_flushed(key):
                    break
                self._exporting[key] = item
                del queue[key]
                batch.append(item)
            return SpanBatch(batch) if batch else None

    def spans_answered(
        self,
        batch: SpanBatch,
        is_exported: bool,
        remainders: Sequence[Fields],
        reason: LossReason = "target_not_exported",
    ) -> None:
        """Settle a batch: what left is delivered, what could not be said follows as a patch, what failed is told.

        Args:
            batch: What `claim_spans` returned.
            is_exported: Whether the span exporter acknowledged it.
            remainders: For each span the fields that its dialect could not say.
            reason: As what the live updates of spans that failed are lost.
        """
        with self._lock:
            now = self._clock.monotonic_ns()
            for item, remainder in zip(batch.items, remainders, strict=True):
                if self._exporting.get(item.key) is not item:
                    continue  # given up meanwhile, at a shutdown that could not wait
                del self._exporting[item.key]
                self._span_bytes -= item.size
                state = "exported" if is_exported else "failed"
                window = (item.span.start_time or 0, item.span.end_time or 0)
                self._recent[item.key] = _Recent(state, now, window)
                if is_exported:
                    self._counters.spans_exported += 1
                    self._settle_exported(item, remainder, now)
                else:
                    self._counters.spans_failed += 1
                    self._settle_failed(item, reason, now)
                self._release(item.key, now, is_exported)
            self._check_tickets()

    def claim_patches(self) -> PatchBatch | None:
        """Take the patches whose time has come, at most the exporter's `max_batch`; None when there are none."""
        with self._lock:
            now = self._clock.monotonic_ns()
            if self._paused_until_ns > now and not self._tickets:
                return None
            patches: list[Patch] = []
            while (
                self._due
                and self._due[0][0] <= now
                and len(patches) < max(self.destination.patch_exporter.max_batch, 1)
            ):
                due_ns, key = heapq.heappop(self._due)
                pending = self._pending.get(key)
                if pending is None or pending.due_ns != due_ns or self._is_blocked(key):
                    continue
                del self._pending[key]
                self._sending[key] = pending
                recent = self._recent.get(key)
                patches.append(Patch(pending.target, pending.fields, recent.window_ns if recent else None))
            return PatchBatch(patches) if patches else None

    def patches_answered(self, batch: PatchBatch, outcomes: Sequence[Outcome]) -> None:
        """Settle each patch by its outcome; one without an outcome is tried again."""
        missing = Retry(DeliveryError("connection_failure", "the exporter gave no outcome for this patch"))
        with self._lock:
            now = self._clock.monotonic_ns()
            for index, patch in enumerate(batch.patches):
                key = patch.target.key
                pending = self._sending.pop(key, None)
                if pending is None:
                    continue
                pending.attempts += 1
                is_clean = self._settle_patch(pending, outcomes[index] if index < len(outcomes) else missing, now)
                waiting = self._pending.get(key)
                if waiting is not None:
                    self._schedule(key, waiting)
                for ticket in self._tickets:
                    if waiting is None or waiting is pending:
                        ticket.forget(key, is_clean=is_clean)
                    else:
                        ticket.tried(key, is_clean=is_clean)
            if any(isinstance(outcome, Pause) for outcome in outcomes):
                for ticket in self._tickets:
                    self._drop_patches(ticket, ticket.keys & self._pending.keys())
            self._check_tickets()

    def next_due_ns(self) -> int | None:
        """Return the monotonic time of the next work that is known now; None when nothing waits."""
        with self._lock:
            times: list[int] = []
            if self._queue:
                times.append(next(iter(self._queue.values())).due_ns)
            if self._due:
                times.append(max(self._due[0][0], self._paused_until_ns if not self._tickets else 0))
            return min(times, default=None)

    # --- flush, shutdown, counts ------------------------------------------------------------------------------------

    def request_flush(self, done: Callable[[], None], deadline_ns: int) -> FlushTicket:
        """Make everything that waits due as soon as its backend may take it, and tell when all of it was tried once.

        Patches that cannot be tried by the deadline, or that wait out a pause, are not waited for: then it is unclean.

        Args:
            done: Called under the lock, once.
            deadline_ns: Until when somebody waits; monotonic.
        """
        with self._lock:
            self._admit()
            now = self._clock.monotonic_ns()
            keys = {*self._queue, *self._exporting, *self._pending, *self._sending}
            ticket = FlushTicket(keys, self._sending.keys() & self._pending.keys(), deadline_ns, done)
            self._tickets.append(ticket)
            for key, pending in list(self._pending.items()):
                if self._is_hopeless(pending, ticket, now):
                    self._drop_patches(ticket, (key,))
                else:
                    pending.due_ns = pending.earliest_ns
                    self._schedule(key, pending)
            self._check_tickets()
            return ticket

    @property
    def is_flushing(self) -> bool:
        """Whether somebody waits for a flush."""
        return bool(self._tickets)

    def drop_ticket(self, ticket: FlushTicket) -> None:
        """Forget a flush that nobody waits for any more."""
        with self._lock:
            if ticket in self._tickets:
                self._tickets.remove(ticket)

    def tell_news(self) -> None:
        """Log what was decided. Called without the lock: a logging handler is the application's code."""
        news = self._news
        while news:
            try:
                reason, message = news.popleft()
            except IndexError:  # another thread has told it
                return
            REPORTER.tell(reason, message)

    def close(self) -> None:
        """Take nothing more, and wait for no span of another process any more: there is no later."""
        with self._lock:
            self._admit()
            self._is_closed = True
            now = self._clock.monotonic_ns()
            for key, pending in list(self._pending.items()):
                # After a try, its time is what the backend asked for; after its span's export, the backend's grace.
                if not pending.attempts and key not in self._recent and not self._is_blocked(key):
                    pending.earliest_ns = pending.due_ns = now
                    self._schedule(key, pending)

    def give_up(self, reason: LossReason) -> tuple[int, int]:
        """Count everything that still waits as lost; return how many spans and how many updates that were."""
        with self._lock:
            self._admit()
            updates = sum(
                item.updates + item.joined_updates for item in [*self._queue.values(), *self._exporting.values()]
            )
            updates += sum(pending.updates for pending in [*self._pending.values(), *self._sending.values()])
            self._counters.lose(reason, updates)
            spans = len(self._queue) + len(self._exporting)
            self._counters.spans_evicted += len(self._queue)
            self._counters.spans_failed += len(self._exporting)
            self._queue.clear()
            self._exporting.clear()
            self._pending.clear()
            self._sending.clear()
            self._due.clear()
            self._unweighed.clear()
            self._span_bytes = self._patch_bytes = 0
            for ticket in self._tickets:
                for key in list(ticket.keys):
                    ticket.forget(key, is_clean=False)
            self._check_tickets()
            return spans, updates

    def lose_live(self, updates: int) -> None:
        """Count the live updates of a span that will never end here."""
        with self._lock:
            self._counters.accepted += updates
            self._counters.lose("target_not_exported", updates)

    def stats(self, live: int) -> DestinationStats:
        """Return the counts of this moment.

        Args:
            live: Updates on spans that have not ended; they are not in the outbox yet.
        """
        with self._lock:
            self._admit()
            counters = self._counters
            while True:
                accepted = counters.accepted
                stats = DestinationStats(
                    accepted=accepted + live,
                    delivered=counters.delivered,
                    live=live,
                    in_flight=sum(
                        item.updates + item.joined_updates
                        for item in [*self._queue.values(), *self._exporting.values()]
                    ),
                    late=sum(pending.updates for pending in [*self._pending.values(), *self._sending.values()]),
                    retried=counters.retried,
                    lost=dict(counters.lost),
                    spans_queued=len(self._queue) + len(self._exporting),
                    spans_exported=counters.spans_exported,
                    spans_failed=counters.spans_failed,
                    spans_evicted=counters.spans_evicted,
                    buffered_bytes=self._span_bytes + self._patch_bytes,
                    notes=counters.notes,
                )
                # A finalizer or signal handler that updates a span may have come between: then it is counted again.
                if counters.accepted == accepted:
                    return stats

    # --- decisions, under the lock ----------------------------------------------------------------------------------

    def _admit(self, limit: int | None = None, *, weigh: bool = False) -> None:
        """Take the inbox into the queue and close the sidecars: what comes now is joined."""
        inbox = self._inbox
        while inbox and limit != 0:
            try:
                ended = inbox.popleft()
            except IndexError:  # a finalizer interrupted us and admitted it
                return
            self._put(ended, weigh=weigh)
            limit = None if limit is None else limit - 1

    def _put(self, ended: EndedSpan, *, weigh: bool) -> None:
        ended.is_open = False
        counters, queue, key = self._counters, self._queue, ended.key
        counters.accepted += ended.updates
        if ended.ended is None or self._is_closed:
            counters.lose("target_not_exported", ended.updates)
            return
        now = self._clock.monotonic_ns()
        item = QueuedSpan(
            key, ended.ended, ended.fields or _NO_FIELDS, ended.updates, ended.is_local_root, now + self._wait_ns
        )
        before = queue.pop(key, None)
        if before is not None:
            # An id generator of the application's own repeated itself: one of the two spans can stay.
            counters.spans_evicted += 1
            counters.lose("target_not_exported", before.updates + before.joined_updates)
            self._span_bytes -= before.size
        queue[key] = item
        if self._is_flushed(key):
            # A flush waits for the patch behind this span: it goes first, for what is in front of it need not go yet.
            item.due_ns = now
            queue.move_to_end(key, last=False)
        # While the worker hangs in an exporter, those that nobody has weighed must not become many.
        if weigh or len(self._unweighed) >= self._inbox_room:
            self._weigh(item)
        else:
            self._unweighed.append(item)
        if len(queue) > self.settings.max_queue_size or self._span_bytes > self.settings.max_bytes:
            self._evict()

    def _evict(self) -> None:
        """Drop the oldest spans until the bounds hold; never the latest: it is not to blame for what others weigh."""
        if self._span_bytes > self.settings.max_bytes:
            # Dropping what nobody has weighed would free nothing.
            self._weigh_all()
        while len(self._queue) > 1 and (
            len(self._queue) > self.settings.max_queue_size or self._span_bytes > self.settings.max_bytes
        ):
            key = next(iter(self._queue))
            item = self._queue.pop(key)
            self._span_bytes -= item.size
            self._counters.spans_evicted += 1
            self._counters.lose("target_not_exported", item.updates + item.joined_updates)
            self._recent[key] = _Recent("evicted", self._clock.monotonic_ns(), None)
            self._give_up_pending(key, "target_not_exported")
            self._forget_in_tickets(key, is_clean=False)
            self._tell("evicted", "the outbox is full; the oldest ended span was dropped, with its updates.")
        self._check_tickets()

    def _settle_exported(self, item: QueuedSpan, remainder: Fields, now: int) -> None:
        updates = item.updates + item.joined_updates
        if not remainder:
            self._counters.delivered += updates
            return
        # One update has one version: as many updates are unsettled as the remainder has versions.
        moved = min(len({version for _, version in remainder.values()}), updates)
        self._counters.delivered += updates - moved
        earliest = now + self._grace_ns
        self._add_pending(_ref(item.key), remainder, moved, weigh_fields(remainder), earliest, earliest, None)

    def _settle_failed(self, item: QueuedSpan, reason: LossReason, now: int) -> None:
        self._counters.lose(reason, item.updates)
        if item.joined:
            earliest = now + self._grace_ns
            deadline = now + self.settings.failed_span_millis * _MILLI
            size = weigh_fields(item.joined)
            self._add_pending(_ref(item.key), item.joined, item.joined_updates, size, earliest, earliest, deadline)

    def _release(self, key: SpanKey, now: int, is_exported: bool) -> None:
        """Let the patch that waited for the answer go, if there is one."""
        pending = self._pending.get(key)
        if pending is None:
            self._forget_in_tickets(key, is_clean=is_exported)
            return
        pending.earliest_ns = max(pending.earliest_ns, now + self._grace_ns)
        if not is_exported:
            pending.deadline_ns = now + self.settings.failed_span_millis * _MILLI
        for ticket in self._tickets:
            if key in ticket.keys:
                ticket.is_clean = ticket.is_clean and is_exported
                if self._is_hopeless(pending, ticket, now):
                    ticket.forget(key, is_clean=False)
        is_flushed = self._is_flushed(key)
        pending.due_ns = pending.earliest_ns if is_flushed else max(pending.due_ns, pending.earliest_ns)
        self._schedule(key, pending)

    def _settle_patch(self, pending: _Pending, outcome: Outcome, now: int) -> bool:
        """Settle one patch; return whether it arrived."""
        if isinstance(outcome, Delivered):
            self._counters.delivered += pending.updates
            self._counters.notes += len(outcome.notes)
            self._patch_bytes -= pending.size
            return True
        after_millis = outcome.after_millis if isinstance(outcome, Retry) else None
        if isinstance(outcome, Pause):
            after_millis = self.settings.pause_millis
            self._paused_until_ns = now + after_millis * _MILLI
            self._tell("paused", f"paused ({outcome.error.type}: {outcome.error.message}); updates are kept.")
        is_missing = isinstance(outcome, Rejected) and outcome.error.type == "segment_not_found"
        if isinstance(outcome, Rejected) and not (is_missing and self._may_still_appear(pending, now)):
            self._give_up_patch(pending, _loss_of(outcome, pending), outcome.error)
        elif pending.deadline_ns is not None and now >= pending.deadline_ns:
            self._give_up_patch(pending, "target_not_exported", outcome.error)
        elif now - pending.created_ns > self.settings.max_age_millis * _MILLI:
            self._give_up_patch(pending, "expired", outcome.error)
        else:
            self._retry(pending, after_millis, now)
        return False

    def _may_still_appear(self, pending: _Pending, now: int) -> bool:
        if pending.deadline_ns is not None:
            return now < pending.deadline_ns
        if pending.first_missing_ns is None:
            pending.first_missing_ns = now
        return now - pending.first_missing_ns < self.settings.visibility_millis * _MILLI

    def _retry(self, pending: _Pending, after_millis: int | None, now: int) -> None:
        self._counters.retried += 1
        key = pending.target.key
        pending.due_ns = now + backoff_ns(pending.attempts, after_millis, self._chance())
        # A flush need not wait for the back-off, but for what the backend asked for.
        pending.earliest_ns = now if after_millis is None else pending.due_ns
        newer = self._pending.get(key)
        if newer is not None:
            # Updates that came while this one was being sent: they wait with it now.
            growth = pending.take(newer.target, newer.fields, newer.updates, newer.size)
            self._patch_bytes += growth - newer.size
        self._pending[key] = pending
        self._schedule(key, pending)

    def _give_up_patch(self, pending: _Pending, reason: LossReason, error: DeliveryError) -> None:
        self._counters.lose(reason, pending.updates)
        self._patch_bytes -= pending.size
        self._tell(reason, f"a patch for {pending.target} was given up ({reason}): {error.message}")

    def _give_up_pending(self, key: SpanKey, reason: LossReason) -> None:
        pending = self._pending.pop(key, None)
        if pending is not None:
            self._counters.lose(reason, pending.updates)
            self._patch_bytes -= pending.size

    def _add_pending(
        self,
        target: SpanRef,
        fields: Fields,
        updates: int,
        size: int,
        earliest_ns: int,
        due_ns: int,
        deadline_ns: int | None,
    ) -> None:
        key = target.key
        pending = self._pending.get(key)
        if pending is None:
            pending = self._pending[key] = _Pending(target, self._clock.monotonic_ns())
            pending.earliest_ns, pending.due_ns = earliest_ns, due_ns
            self._schedule(key, pending)
        if deadline_ns is not None:
            pending.deadline_ns = deadline_ns
        self._patch_bytes += pending.take(target, fields, updates, size)

    def _schedule(self, key: SpanKey, pending: _Pending) -> None:
        if not self._is_blocked(key):
            heapq.heappush(self._due, (pending.due_ns, key))

    def _is_blocked(self, key: SpanKey) -> bool:
        return key in self._sending or key in self._exporting or key in self._queue

    def _is_flushed(self, key: SpanKey) -> bool:
        """Whether a flush waits for it."""
        return any(key in ticket.keys for ticket in self._tickets)

    def _is_hopeless(self, pending: _Pending, ticket: FlushTicket, now: int) -> bool:
        """Whether a flush need not wait for it: it may not go in time, or waits out a pause.

        What was never tried does go to a paused destination, once: a flush is a probe.
        """
        return pending.earliest_ns > ticket.deadline_ns or (pending.attempts > 0 and self._paused_until_ns > now)

    def _drop_patches(self, ticket: FlushTicket, keys: Iterable[SpanKey]) -> None:
        """Take waiting patches that will not go now off a flush; not a span or patch that goes before one of them."""
        for key in keys:
            ticket.is_clean = False
            ticket.behind.discard(key)
            if not self._is_blocked(key):
                ticket.keys.discard(key)

    def _weigh(self, item: QueuedSpan) -> None:
        self._note_size(item, weigh_span(item.span) + weigh_fields(item.fields))

    def _weigh_all(self) -> None:
        items, self._unweighed = self._unweighed, []
        for item in items:
            self._weigh(item)

    def _note_size(self, item: QueuedSpan, size: int) -> None:
        if self._queue.get(item.key) is item or self._exporting.get(item.key) is item:
            item.size += size
            self._span_bytes += size

    def _learn(self, size: int) -> None:
        """Adapt the room of the inbox to the size of the spans that come."""
        self._average_size += (size - self._average_size) / (4 if self._average_size else 1)
        room = int(self.settings.max_bytes / 8 / self._average_size)
        least = min(_MIN_INBOX_ROOM, self._pressure_at)
        self._inbox_room = max(min(room, _INBOX_ROOM, self._pressure_at), least)
        # Far above the room: a burst that the queue could hold must not be admitted on the application's thread.
        self._inbox_bound = max(min(2 * room, self.settings.max_queue_size), least)

    def _lost(self, reason: LossReason, updates: int) -> Routed:
        self._counters.lose(reason, updates)
        self._tell(reason, f"an update was lost ({reason}).")
        return Routed("dropped", reason)

    def _tell(self, reason: str, message: str) -> None:
        name = self.destination.name
        self._news.append((f"{reason}:{name}", f"{name}: {message}"))

    def _forget_in_tickets(self, key: SpanKey, *, is_clean: bool) -> None:
        for ticket in self._tickets:
            ticket.forget(key, is_clean=is_clean)

    def _check_tickets(self) -> None:
        for ticket in [ticket for ticket in self._tickets if not ticket.keys]:
            self._tickets.remove(ticket)
            ticket.done()

    def __repr__(self) -> str:
        """A status line."""
        return (
            f"<Outbox {self.destination.name} queued={len(self._queue)} exporting={len(self._exporting)} "
            f"patches={len(self._pending)} sending={len(self._sending)}>"
        )


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable, "").strip()
    if not text:
        return default
    if not text.isdecimal() or int(text) < 1:
        raise ConfigurationError(variable, text, f"a whole number of 1 or more, for example {default}")
    return int(text)


def _ref(key: SpanKey) -> SpanRef:
    return SpanRef(key[0], key[1])


def _loss_of(outcome: Rejected, pending: _Pending) -> LossReason:
    if outcome.error.type == "unsupported":
        return "unsupported"
    if outcome.error.type == "segment_not_found":
        return "target_not_exported" if pending.deadline_ns is not None else "target_not_found"
    return "rejected"
