"""The outcome of an update, for each destination: `outcome(receipt)` returns it.

The words are those of `stats()`, which counts by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, final, get_args

if TYPE_CHECKING:
    from otel_metadata.model.outcome import DeliveryError

State: TypeAlias = Literal[
    "lost",
    "refused",
    "handed_over",
    "retrying",
    "sending",
    "late",
    "in_flight",
    "live",
    "unknown",
    "delivered",
]
"""live: on a span that has not ended. in_flight: beside an ended span that waits to be exported. late: in a patch that
waits, in memory or in the spool. sending: in a request that is under way. retrying: waits after a request that failed.
delivered: the destination has it, or a later value of the same field. handed_over: left to the spool, for the next
process. lost: given up. refused: never accepted. unknown: too old, from another process, or not a receipt.

The order counts: of several parts or destinations, the state that comes first here is the state of the whole."""

_WAITING: Final = frozenset({"live", "in_flight", "late", "sending", "retrying"})

_ORDER: Final[tuple[State, ...]] = get_args(State)


@final
@dataclass(frozen=True, slots=True)
class DestinationOutcome:
    """The outcome of an update in one destination.

    Attributes:
        state: See `State`.
        reason: Why it was lost (`LossReason`) or refused (`Refusal`); else None.
        error: The error of the last try, where the update is retrying or lost after a try; else None.
        notes: One sentence for each part that the backend changed, flattened, only added, ignored or cannot hold.
    """

    state: State
    reason: str | None = None
    error: DeliveryError | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_waiting(self) -> bool:
        """Whether the outcome is still open."""
        return self.state in _WAITING

    def joined(self, other: DestinationOutcome) -> DestinationOutcome:
        """Return the outcome of two parts of one update together: if one part is lost, the update is."""
        first, second = sorted((self, other), key=lambda one: _ORDER.index(one.state))
        notes = tuple(dict.fromkeys((*self.notes, *other.notes)))
        return DestinationOutcome(first.state, first.reason, first.error or second.error, notes)


@final
@dataclass(frozen=True, slots=True)
class UpdateOutcome:
    """The outcome of an update; true when every destination has it.

    Attributes:
        destinations: The outcomes by the destination's name; empty where the update was refused as a whole, or is
            unknown.
        reason: Why it was refused as a whole; else None.
    """

    destinations: Mapping[str, DestinationOutcome] = field(default_factory=dict[str, DestinationOutcome])
    reason: str | None = None

    @property
    def state(self) -> State:
        """Of the states of all destinations, the one that comes first in `State`."""
        if self.reason is not None:
            return "refused"
        states = {one.state for one in self.destinations.values()}
        return next((state for state in _ORDER if state in states), "unknown")

    @property
    def is_waiting(self) -> bool:
        """Whether the outcome is still open for a destination."""
        return any(one.is_waiting for one in self.destinations.values())

    def __bool__(self) -> bool:
        """True when every destination has it."""
        return self.state == "delivered"
