"""The ended spans that wait for one destination: which may leave now, and which are tried again.

Theory of operation. A span is in `waiting`, oldest first, or in `exporting`, from the moment at which it is claimed to
the answer. One whose export failed comes back to the front of `waiting` with `attempts` above 0. Spans leave when their
time has come, when a batch is full, when half of the room is taken (for those that are held), or when a flush asks.

After a failure the destination is left alone (`circuit`) and then asked with half as many spans, down to one, so that a
span on which the exporter chokes comes to be alone; with each success twice as many.

`bytes` is the size of the spans and of the fields that were joined to them; a span that nobody has weighed yet counts
nothing. Everything here is called under the outbox's lock. The outbox decides about the updates of a span.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final, final

from otel_metadata.delivery.circuit import Circuit
from otel_metadata.model.outcome import Delivered, Outcome, Pause, Rejected, Retry
from otel_metadata.model.weight import JOINED_BYTES, ROW_BYTES, merge_weighed, weigh_common

if TYPE_CHECKING:
    from otel_metadata.delivery.flush import Flushes
    from otel_metadata.delivery.outbox_settings import OutboxSettings
    from otel_metadata.delivery.queued import QueuedSpan
    from otel_metadata.model.merge import Fields
    from otel_metadata.model.span_ref import SpanKey, SpanRef
    from otel_metadata.model.weight import Weight
    from otel_metadata.spool.partition import Row

_MILLI: Final = 1_000_000


@final
class SpanQueue:
    """Ended spans of one destination: see the module's theory of operation.

    Attributes:
        waiting: By key, oldest first.
        exporting: By key.
        bytes: Estimated size of both.
        circuit: Whether the destination is asked now.
        pressure_at: Number of waiting spans at which they leave before their time.
    """

    def __init__(self, settings: OutboxSettings, chance: Callable[[], float], *, is_holding: bool) -> None:
        """Start empty.

        Args:
            settings: Bounds and times.
            chance: Uniform in [0, 1), for the jitter of the back-off.
            is_holding: Whether spans are kept for updates that come soon after their end.
        """
        self._settings = settings
        # Ordered: taking the oldest out of a plain dict again and again is quadratic (see RecentMap).
        self.waiting: OrderedDict[SpanKey, QueuedSpan] = OrderedDict()
        self.exporting: dict[SpanKey, QueuedSpan] = {}
        self.bytes = 0
        self.circuit = Circuit(settings.pause_millis, chance)
        pressure = settings.max_queue_size // 2 if is_holding else settings.max_export_batch_size
        self.pressure_at = max(min(pressure, settings.max_queue_size), 1)
        self._limit = settings.max_export_batch_size
        self._unweighed: list[QueuedSpan] = []

    def __contains__(self, key: object) -> bool:
        """Whether the span waits or is being exported."""
        return key in self.waiting or key in self.exporting

    def all(self) -> list[QueuedSpan]:
        """Return every span that waits or is being exported."""
        return [*self.waiting.values(), *self.exporting.values()]

    # --- in ---------------------------------------------------------------------------------------------------------

    def put(self, item: QueuedSpan, *, is_first: bool) -> QueuedSpan | None:
        """Let a span wait; return the one of the same key that it replaces, if there is one.

        Args:
            item: The span.
            is_first: Whether it goes in front of all others.
        """
        before = self.waiting.pop(item.key, None)
        if before is not None:
            self.bytes -= before.size
        self.waiting[item.key] = item
        if is_first:
            self.waiting.move_to_end(item.key, last=False)
        return before

    def open(self, key: SpanKey) -> QueuedSpan | None:
        """Return the span that may still be joined, if it waits here."""
        item = self.waiting.get(key)
        return item if item is not None and not item.is_shut else None

    def has_room_for(self, item: QueuedSpan, fields: Fields, size: int) -> bool:
        """Whether *fields*, which weigh *size*, fit once the weight of what they replace is subtracted."""
        bound, held = self._settings.max_bytes, item.joined
        after = self.bytes + size + (0 if held else JOINED_BYTES)
        return after <= bound or (held is not None and after - weigh_common(held, fields, item.large) <= bound)

    def join(
        self, item: QueuedSpan, target: SpanRef, fields: Fields, updates: int, weight: Weight, row: Row | None
    ) -> None:
        """Join fields to a span that waits, and the ids that its name brings."""
        if target.backend_ids:
            item.backend_ids = {**item.backend_ids, **target.backend_ids}
        first = 0 if item.joined else JOINED_BYTES
        if item.joined is None:
            item.joined = {}
        growth, item.large = merge_weighed(item.joined, fields, weight, item.large)
        growth += first
        # No call from here on, so that an exception from outside comes before all of it or after: see `Outbox._admit`.
        item.joined_updates += updates
        if row is None:
            item.unspooled += updates
        else:
            if item.rows is None:
                item.rows = []
            item.rows += [row]
            growth += ROW_BYTES
        item.size += growth
        self.bytes += growth

    # --- weighing ---------------------------------------------------------------------------------------------------

    @property
    def unweighed(self) -> int:
        """How many spans nobody has weighed."""
        return len(self._unweighed)

    def weigh_later(self, item: QueuedSpan) -> None:
        """Leave weighing it to the worker."""
        self._unweighed.append(item)

    def take_unweighed(self) -> list[QueuedSpan]:
        """Return the spans that nobody has weighed: the caller does, without the lock."""
        items, self._unweighed = self._unweighed, []
        return items

    def weigh(self, item: QueuedSpan) -> None:
        """Weigh it now."""
        self.note_size(item, item.weight())

    def note_size(self, item: QueuedSpan, size: int) -> None:
        """Note the size of a span, if it is still here."""
        if self.waiting.get(item.key) is item or self.exporting.get(item.key) is item:
            item.size += size
            self.bytes += size

    # --- bounds -----------------------------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether there are too many, or they weigh too much."""
        return len(self.waiting) > self._settings.max_queue_size or self.bytes > self._settings.max_bytes

    def weigh_for_room(self) -> None:
        """Weigh the rest when there are too many bytes: to evict a span without a weight would free nothing."""
        if self.bytes > self._settings.max_bytes:
            for item in self.take_unweighed():
                self.weigh(item)

    def to_be_evicted(self) -> QueuedSpan | None:
        """Return the oldest span while the bounds are exceeded; never the only one that is left.

        The caller counts it as lost before it takes it out: an exception from outside may come between.
        """
        first = self._oldest() if self.is_over and len(self.waiting) > 1 else None
        return self.waiting[first] if first is not None else None

    # --- out --------------------------------------------------------------------------------------------------------

    def next_due_ns(self, flushes: Flushes) -> int | None:
        """Return when the next span leaves; None when none waits."""
        if not self.waiting:
            return None
        if flushes.among(self.waiting):
            return 0
        first = self._oldest()
        return max(self.waiting[first].due_ns, self.circuit.until_ns) if first is not None else None

    def claim(self, now_ns: int, flushes: Flushes) -> list[QueuedSpan]:
        """Take the spans whose time has come.

        Args:
            now_ns: Monotonic.
            flushes: The time of spans that a flush waits for is now, also while the destination is left alone.
        """
        batch: list[QueuedSpan] = []
        waiting = self.waiting
        if self.circuit.is_open(now_ns):
            # Only these: others that were tried a moment ago must not be tried again for as long as a flush lasts.
            if asked := flushes.among(waiting):
                for one in islice(filter(asked.__contains__, list(waiting)), self._limit):
                    self._take(one, batch)
            return batch
        while len(batch) < self._limit:
            key = self._oldest()
            if key is None:
                break
            is_pressed = len(waiting) + len(batch) >= self.pressure_at or self.bytes * 2 > self._settings.max_bytes
            if waiting[key].due_ns > now_ns and not is_pressed and key not in flushes:
                break
            self._take(key, batch)
        return batch

    def _oldest(self) -> SpanKey | None:
        while True:
            try:
                return next(iter(self.waiting), None)
            except RuntimeError:  # a signal handler ended a span between the two calls
                continue

    def _take(self, key: SpanKey, batch: list[QueuedSpan]) -> None:
        item = self.waiting[key]
        # In one of the two at any moment, also for a signal handler that comes in between.
        self.exporting[key] = item
        del self.waiting[key]
        batch.append(item)

    def judge(self, outcome: Outcome | None, sent: int, now_ns: int) -> None:
        """Decide when, and with how many spans, the destination is asked next."""
        if isinstance(outcome, Delivered):
            self.circuit.answered()
            self._limit = min(self._limit * 2, self._settings.max_export_batch_size)
            return
        self._limit = max(sent // 2, 1)
        if isinstance(outcome, Pause):
            self.circuit.paused(now_ns)
        elif not isinstance(outcome, Rejected):
            self.circuit.failed(now_ns, outcome.after_millis if isinstance(outcome, Retry) else None)

    def take_back(self, item: QueuedSpan) -> bool:
        """Take a span out of `exporting`; False when it was given up meanwhile."""
        if self.exporting.get(item.key) is not item:
            return False
        del self.exporting[item.key]
        return True

    def may_go_again(
        self, item: QueuedSpan, outcome: Outcome | None, batch_size: int, now_ns: int, *, is_closing: bool
    ) -> bool:
        """Whether a span whose export failed is tried again: after a refusal only in a smaller batch."""
        retry_ns = self._settings.span_retry_millis * _MILLI
        # Not where another span of this id came meanwhile, from an id generator that repeated itself: one can stay.
        if not retry_ns or item.key in self.waiting:
            return False
        if isinstance(outcome, Rejected):
            return batch_size > 1  # at once, so also while the outbox closes
        return not is_closing and (not item.attempts or now_ns - item.failed_ns < retry_ns)

    def go_again(self, items: Sequence[QueuedSpan], outcome: Outcome | None, now_ns: int) -> None:
        """Let spans wait for another try."""
        is_alone = len(items) == 1
        for item in reversed(items):
            if not item.attempts:
                item.failed_ns = now_ns
            item.attempts += 1
            item.error = None if isinstance(outcome, Delivered) or outcome is None else outcome.error
            item.is_shut = True
            item.due_ns = now_ns
            self.waiting[item.key] = item
            # The oldest stay in front; but one that fails by itself must not stand in the way of the others.
            self.waiting.move_to_end(item.key, last=is_alone and outcome is None)

    def gone(self, item: QueuedSpan) -> None:
        """Subtract the size of a span that has left."""
        self.bytes -= item.size
