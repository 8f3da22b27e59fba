"""The balance: how many updates were delivered, wait or were lost, for each destination.

The unit is one update, settled when its last part is:

    accepted + adopted == delivered + waiting + handed_over + sum(lost.values())

Refusals are a second list: they were never accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, final

if TYPE_CHECKING:
    from otel_metadata.delivery.waiting_patches import Pending
    from otel_metadata.model.receipt import LossReason
    from otel_metadata.spool.partition import Partition


@final
@dataclass(frozen=True, slots=True)
class DestinationStats:
    """The counts of one destination, at one moment.

    Attributes:
        accepted: Updates taken, live ones included.
        adopted: Updates taken over from the spool, where another process had left them.
        delivered: Updates whose every part left with its span or was delivered as a patch.
        live: Waiting on a span that has not ended.
        in_flight: Waiting beside a span that has ended, or is being exported.
        late: Waiting as a patch, in memory or in the spool.
        handed_over: Updates left to the spool at the end, for the next process.
        retried: Patches that were sent again.
        lost: Updates that were given up, by reason.
        spans_queued: Ended spans that wait.
        spans_exported: Spans whose export was acknowledged.
        spans_retried: Tries of a span's export beyond the first.
        spans_failed: Spans whose export was refused, raised or timed out, and that are not tried again.
        spans_evicted: Spans dropped because the outbox was full.
        buffered_bytes: Estimated size of the spans and patches that wait in memory.
        spool_bytes: Size of the spool file, which destinations share; 0 without one.
        unspooled: Rows that could not be written to the spool and wait in memory (a full disk, a read-only one).
        oldest_millis: Age of the oldest patch that waits in memory; 0 for none.
        notes: Fields that a backend changed or could not hold, told by its outcomes.
    """

    accepted: int
    adopted: int
    delivered: int
    live: int
    in_flight: int
    late: int
    handed_over: int
    retried: int
    lost: Mapping[LossReason, int]
    spans_queued: int
    spans_exported: int
    spans_retried: int
    spans_failed: int
    spans_evicted: int
    buffered_bytes: int
    spool_bytes: int
    unspooled: int
    oldest_millis: int
    notes: int

    @property
    def waiting(self) -> int:
        """Updates whose end is open: `live + in_flight + late`."""
        return self.live + self.in_flight + self.late

    @property
    def is_balanced(self) -> bool:
        """Whether nothing is unaccounted for: see the module's equation."""
        settled = self.delivered + self.handed_over + sum(self.lost.values())
        return self.accepted + self.adopted == settled + self.waiting


@final
@dataclass(frozen=True, slots=True)
class PipelineStats:
    """What `stats()` returns.

    Attributes:
        destinations: By name.
        refused: Updates that were not accepted, by reason.
        internal_errors: Failures of our own code in this process; each was logged.
        live_bytes: Estimated size of the values that were set on spans of this process that have not ended.
    """

    destinations: Mapping[str, DestinationStats] = field(default_factory=dict[str, DestinationStats])
    refused: Mapping[str, int] = field(default_factory=dict[str, int])
    internal_errors: int = 0
    live_bytes: int = 0

    @property
    def is_balanced(self) -> bool:
        """Whether every destination is."""
        return all(stats.is_balanced for stats in self.destinations.values())


@final
@dataclass(eq=False)
class Counters:
    """The counts of one outbox, named as in `DestinationStats`; changed under its lock."""

    accepted: int = 0
    adopted: int = 0
    delivered: int = 0
    handed_over: int = 0
    retried: int = 0
    lost: dict[LossReason, int] = field(default_factory=dict)
    spans_exported: int = 0
    spans_retried: int = 0
    spans_failed: int = 0
    spans_evicted: int = 0
    notes: int = 0

    def all(self) -> dict[str, Any]:
        """Return a copy of every count: where it equals an earlier one, nothing has moved."""
        return {**vars(self), "lost": self.lost.copy()}

    def lose(self, reason: LossReason, updates: int) -> None:
        """Count accepted updates that will not arrive."""
        if updates:
            self.lost[reason] = self.lost.get(reason, 0) + updates


class Moment(NamedTuple):
    """What `stats` counts, taken in one hold of the lock: counts, and references to patches, which may be many.

    Attributes:
        now_ns: Monotonic.
        counts: What `Counters.all` returned.
        live: Counts the updates on spans that have not ended.
        in_flight: Updates on spans that have ended.
        spans_queued: How many such spans wait or are being exported.
        spilled: Updates that are on disk only.
        patches: Those that wait or are being sent.
        before: How many updates were in those patches that have changed since.
        buffered_bytes: What the spans and patches weigh.
    """

    now_ns: int
    counts: dict[str, Any]
    live: Callable[[], int]
    in_flight: int
    spans_queued: int
    spilled: int
    patches: Sequence[Pending]
    before: Mapping[Pending, int]
    buffered_bytes: int

    def stats(self, partition: Partition) -> DestinationStats:
        """Count updates on live spans and in patches; without the lock, while others change them."""
        live, before, oldest_ns, late = self.live(), self.before, self.now_ns, self.spilled
        for pending in self.patches:
            oldest_ns = min(oldest_ns, pending.created_ns)
            # The number is read first: one that was read after a change is in `before` already.
            late += before.get(pending, pending.updates)
        return DestinationStats(
            **{**self.counts, "accepted": self.counts["accepted"] + live},
            live=live,
            in_flight=self.in_flight,
            late=late,
            spans_queued=self.spans_queued,
            buffered_bytes=self.buffered_bytes,
            spool_bytes=partition.bytes,
            unspooled=partition.unwritten,
            oldest_millis=(self.now_ns - oldest_ns) // 1_000_000,
        )
