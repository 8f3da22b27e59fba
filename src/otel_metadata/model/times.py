"""Times as text: writing them, reading our own, and reading those that people write.

Both sides are whole nanoseconds, which a `datetime` cannot hold; `utc` makes one where microseconds will do.
"""

from __future__ import annotations

import datetime as dt
import re
from functools import lru_cache
from typing import Final

MAX_NS: Final = (1 << 63) - 1
"""The latest time that a store can hold, in the year 2262."""

_OURS: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z", re.ASCII)
_ISO_8601: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[T ]([0-9]{2}:[0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?"
    r"\ ?(?:[Zz]|([+-])([0-9]{2})(?::?([0-9]{2}))?)?)?"
)
_EPOCH: Final = dt.datetime(1970, 1, 1)  # noqa: DTZ001 # offsets are added as whole nanoseconds


def utc(ns: int) -> dt.datetime:
    """Return wall nanoseconds as a time in UTC, to the microsecond."""
    # From whole microseconds: a float of seconds is wrong by up to a quarter of a microsecond today.
    return _EPOCH.replace(tzinfo=dt.timezone.utc) + dt.timedelta(microseconds=ns // 1_000)


def time_text(ns: int) -> str:
    """Return wall nanoseconds as ISO 8601 in UTC, with nine digits of the second."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{_second_text(seconds)}.{rest:09d}Z"


@lru_cache(maxsize=1_024)  # the spans of a trace share their seconds
def _second_text(seconds: int) -> str:
    return (_EPOCH + dt.timedelta(seconds=seconds)).isoformat()


def time_ns(text: str) -> int:
    """Return the wall nanoseconds of a text that `time_text` wrote.

    Raises:
        ValueError: *text* was not written by `time_text`.
    """
    match = _OURS.fullmatch(text)
    if match is None:
        raise ValueError(text)
    moment = dt.datetime.fromisoformat(match[1])
    return (moment - _EPOCH) // dt.timedelta(seconds=1) * 1_000_000_000 + int((match[2] or "").ljust(9, "0"))


def nanoseconds(text: str) -> int | None:
    """Return a time as whole nanoseconds since the epoch; None where *text* has another form.

    The form is a date, or a date and time in ISO 8601 with at most nine digits of the second, and `Z` or an offset;
    without one it is UTC. Years are 1678 to 2261: 64 bits hold no others.
    """
    found = _ISO_8601.fullmatch(text)
    if found is None:
        return None
    day, minute, second, fraction, sign, hours, minutes = found.groups()
    try:
        time = dt.datetime.fromisoformat(f"{day}T{minute or '00:00'}:{second or '00'}")
    except ValueError:
        return None
    offset = dt.timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    if int(minutes or 0) > 59 or offset >= dt.timedelta(days=1) or not 1678 <= time.year <= 2261:
        return None
    seconds = (time - _EPOCH + (offset if sign == "-" else -offset)) // dt.timedelta(seconds=1)
    return seconds * 1_000_000_000 + int((fraction or "").ljust(9, "0"))
