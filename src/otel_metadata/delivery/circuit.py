"""Whether a destination is asked now: it is left alone for a while after it could not be reached.

One for the spans of a destination and one for its patches, which may go to different addresses. No lock of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from otel_metadata.delivery.backoff import backoff_ns

_MILLI: Final = 1_000_000

# A dead destination is asked once a second at most, and not much less often than four times a minute: one patch costs
# it little, and waiting patches should leave soon after it is back.
_MIN_NS: Final = 1_000_000_000
_MAX_NS: Final = 15_000_000_000

# A flush asks again at once: one failure may be about the patches that were sent, two in a row are about the
# destination.
_DEAD_AFTER: Final = 2


@final
class Circuit:
    """Counts failures in a row, and says until when nobody asks.

    Attributes:
        failures: Tries in a row that brought no answer about the patches.
        until_ns: Until when the destination is left alone; monotonic.
    """

    __slots__ = ("_chance", "_has_answered", "_pause_ns", "failures", "until_ns")

    def __init__(self, pause_millis: int, chance: Callable[[], float]) -> None:
        """Start with a destination that may be asked.

        Args:
            pause_millis: How long a destination that refuses the key is left alone.
            chance: Uniform in [0, 1), for the jitter.
        """
        self._pause_ns = pause_millis * _MILLI
        self._chance = chance
        self._has_answered = False
        self.failures = 0
        self.until_ns = 0

    def answered(self) -> None:
        """Note that the destination answered, whatever the answer was."""
        self._has_answered = True
        self.failures = 0
        self.until_ns = 0

    def failed(self, now_ns: int, after_millis: int | None = None) -> None:
        """Note a try without an answer: leave the destination alone for the back-off, or as long as it asked for.

        Args:
            now_ns: Monotonic.
            after_millis: `Retry-After`.
        """
        self.failures += 1
        wait_ns = min(backoff_ns(self.failures, None, self._chance()), _MAX_NS)
        if after_millis:
            wait_ns = max(wait_ns, backoff_ns(1, after_millis, 0))
        self.until_ns = now_ns + max(wait_ns, _MIN_NS)

    def paused(self, now_ns: int) -> None:
        """Note that the destination refuses everything for now: a wrong key, a used-up quota, a wrong endpoint."""
        self.failures = max(self.failures, 1)
        self.until_ns = now_ns + self._pause_ns

    def keep_apart(self, other: Circuit, now_ns: int) -> None:
        """While nothing answers, spans and patches share one probe per second.

        A destination that answers one of the two is not held back for the other, which may have another address.
        """
        if self.failures and (other.failures or not other._has_answered):
            other.until_ns = max(other.until_ns, now_ns + _MIN_NS)

    def is_open(self, now_ns: int) -> bool:
        """Whether it is left alone now."""
        return self.until_ns > now_ns

    @property
    def is_dead(self) -> bool:
        """Whether a flush need not ask any further."""
        return self.failures >= _DEAD_AFTER
