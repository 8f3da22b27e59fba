"""The wait before the next try: one pure function of the try, the time that the backend asked for, and chance."""

from __future__ import annotations

from typing import Final

_FIRST_DELAY_NS: Final = 1_000_000_000
MAX_DELAY_NS: Final = 60_000_000_000
# A backend may ask for hours; waiting patches must still be counted as expired in time.
_MAX_ASKED_NS: Final = 300_000_000_000


def backoff_ns(attempt: int, after_millis: int | None, chance: float) -> int:
    """Return how long to wait after try number *attempt* failed.

    Exponential with full jitter (1 s, 2 s, 4 s … at most 60 s, times *chance*), but never less than the backend asked
    for, which is obeyed up to 5 minutes.

    Args:
        attempt: 1 after the first try.
        after_millis: `Retry-After`, or None.
        chance: Uniform in [0, 1).
    """
    ceiling = min(_FIRST_DELAY_NS << min(attempt - 1, 30), MAX_DELAY_NS)
    delay = int(ceiling * chance)
    if after_millis is not None:
        return max(delay, min(max(after_millis, 0) * 1_000_000, _MAX_ASKED_NS))
    return delay
