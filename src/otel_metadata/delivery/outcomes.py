"""The outcome of an update: from the queues in which its fields may wait, and from the notes made as they left."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, final

from otel_metadata.delivery.settled import covers, notes_about
from otel_metadata.model.update_outcome import DestinationOutcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_metadata.delivery.waiting_patches import PatchQueue
    from otel_metadata.delivery.waiting_spans import SpanQueue
    from otel_metadata.model.merge import FieldName, Version
    from otel_metadata.model.receipt import Route
    from otel_metadata.model.recent import RecentMap
    from otel_metadata.model.span_ref import SpanKey

DELIVERED: Final = DestinationOutcome("delivered")
UNKNOWN: Final = DestinationOutcome("unknown")


class LeftSpan(NamedTuple):
    """How a span left an outbox.

    Attributes:
        state: The span was exported, failed for good or was left at a shutdown, or was evicted for lack of room.
        at_ns: When; monotonic.
        window_ns: Its start and end.
        moved: The fields that its dialect could not express, which followed as a patch.
        outcome: The outcome of the updates that were set on it live.
    """

    state: Literal["exported", "failed", "evicted"]
    at_ns: int
    window_ns: tuple[int, int] | None
    moved: tuple[FieldName, ...] = ()
    outcome: DestinationOutcome = DELIVERED


@final
class Outcomes:
    """Finds updates in the queues of one outbox, and in its memory of recent ones; called under its lock."""

    def __init__(self, spans: SpanQueue, patches: PatchQueue, recent: RecentMap[SpanKey, LeftSpan]) -> None:
        """Ask these."""
        self._spans = spans
        self._patches = patches
        self._recent = recent

    def of(
        self,
        key: SpanKey,
        names: Sequence[FieldName],
        version: Version,
        route: Route,
        on_disk: DestinationOutcome,
    ) -> DestinationOutcome:
        """Return what became of an update.

        Args:
            key: Its span or trace.
            names: The fields that it sets.
            version: Their version.
            route: Where it went when it was taken.
            on_disk: The answer for a field that memory knows nothing of.
        """
        if route == "late":
            return self._of_patch(key, names, version, on_disk)
        lost = self._patches.settled.gone_at(key, names, version)
        if lost is not None:
            return lost
        item = self._spans.waiting.get(key)
        if item is not None:
            return DestinationOutcome("retrying" if item.attempts else "in_flight", error=item.error)
        if key in self._spans.exporting:
            return DestinationOutcome("sending")
        left = self._recent.get(key)
        # The fields that were joined to a span follow as a patch when the span failed.
        if left is None or (left.state == "failed" and route == "in_flight"):
            return self._of_patch(key, names, version, on_disk)
        if left.state != "exported":
            return left.outcome
        moved = [name for name in names if name in left.moved]
        stayed = [name for name in names if name not in left.moved]
        if not stayed:
            return self._of_patch(key, moved, version, on_disk)
        notes = [note for name in stayed for note in notes_about(name, left.outcome.notes, names)]
        with_span = DestinationOutcome("delivered", notes=tuple(dict.fromkeys(notes))) if notes else DELIVERED
        return with_span.joined(self._of_patch(key, moved, version, on_disk)) if moved else with_span

    def _of_patch(
        self, key: SpanKey, names: Sequence[FieldName], version: Version, on_disk: DestinationOutcome
    ) -> DestinationOutcome:
        """Return the outcome of fields that leave, or left, as a patch."""
        parts = [self._of_field(key, name, version) or on_disk for name in names]
        return reduce(DestinationOutcome.joined, parts) if parts else UNKNOWN

    def _of_field(self, key: SpanKey, name: FieldName, version: Version) -> DestinationOutcome | None:
        settled = self._patches.settled.of_field(key, name, version)
        if settled is not None:
            return settled
        sending = self._patches.sending.get(key)
        sent = sending.sent.get(name) if sending is not None and sending.sent is not None else None
        if sending is not None and sent is not None and covers(name, sent[1], version):
            return DestinationOutcome("sending", error=sending.error)
        for pending in (sending, self._patches.waiting.get(key)):
            held = pending.fields.get(name) if pending is not None else None
            if pending is not None and held is not None and covers(name, held[1], version):
                return DestinationOutcome("retrying" if pending.attempts else "late", error=pending.error)
        return None
