"""Build the query of a store from the arguments of a call: window, project, filter, and the cursor of a page."""

from __future__ import annotations

import base64
import datetime as dt
import operator
from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING, Final, TypeAlias, TypedDict, cast

import orjson

from otel_metadata.delivery.destination import Destination
from otel_metadata.errors import ConfigurationError
from otel_metadata.model.record import Position, SpanQuery
from otel_metadata.model.span_ref import parse_trace_id
from otel_metadata.model.times import nanoseconds, utc
from otel_metadata.model.value import STORE_LIMITS, clean
from otel_metadata.seams import SpanReads

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from typing_extensions import Unpack

    from otel_metadata.model.condition import Condition
    from otel_metadata.model.record import SpanRecord, TraceRecord
    from otel_metadata.seams import SpanStore

Time: TypeAlias = "dt.datetime | str"
"""A time, or its ISO 8601 text such as `2026-01-31` or `2026-01-31T10:00:00+02:00`; UTC if it names no zone. To the
nanosecond, if it has them (pandas); years 1678 to 2261."""

EXPECTED_TIME: Final = "a datetime, or a text such as 2026-01-31T10:00:00Z, of the years 1678 to 2261"
"""The words of an error about a time that cannot be read."""


class Window(TypedDict, total=False):
    """Which spans.

    Attributes:
        project: Only spans of this project: `openinference.project.name` of their resource, else `service.name`.
        start_time: Only spans that started then or later; without it, from the first span on.
        end_time: Only spans that started before.
        filter: A condition on the spans; docs/filters.md describes the language.
    """

    project: str | None
    start_time: Time | None
    end_time: Time | None
    filter: str | None


_DEFAULT_WINDOW_NS: Final = 7 * 86_400 * 1_000_000_000
"""How far back a list looks, as Arize's does."""

_MIN_BYTES: Final = 1_000_000
"""A smaller limit is a mistake, such as a number of megabytes, and would delete every span."""

_INT64: Final = range(-(1 << 63), 1 << 63)


def query_of(
    *,
    project: str | None = None,
    start_time: Time | None = None,
    end_time: Time | None = None,
    filter: str | None = None,
) -> SpanQuery:
    """Return the query for all spans of a window.

    Raises:
        ConfigurationError: A time is invalid, or the project is not a text.
        FilterError: The filter cannot be understood.
    """
    if not isinstance(project, str | None):
        raise ConfigurationError("project", project, "the name of a project, a text")
    return SpanQuery(
        # Cleaned as it was when it was stored.
        project=None if project is None else cast("str", clean(project, [], "project", STORE_LIMITS)),
        start_ns=to_ns("start_time", start_time),
        end_ns=to_ns("end_time", end_time),
        condition=_condition(filter),
        limit=None,
    )


def page_query(
    *, trace_id: str | int | UUID | None, limit: int, cursor: str | None, now_ns: int, **window: Unpack[Window]
) -> SpanQuery:
    """Return the query for one page and one more span, which tells whether another page follows.

    Without a start, the page covers the last seven days before the end, or before now. The next page keeps the start of
    the first. A query for one trace covers any time.

    Raises:
        ConfigurationError: A time, the limit, or the cursor is invalid.
        InvalidSpanRefError: The trace id has another form.
        FilterError: The filter cannot be understood.
    """
    if isinstance(limit, bool) or not hasattr(type(limit), "__index__") or limit < 1:
        raise ConfigurationError("limit", limit, "a whole number, 1 or more")
    asked = query_of(**window)
    after, first_ns = _read_cursor(cursor) if cursor is not None else (None, None)
    start_ns = asked.start_ns if asked.start_ns is not None else first_ns
    if start_ns is None and trace_id is None:
        start_ns = (asked.end_ns if asked.end_ns is not None else now_ns) - _DEFAULT_WINDOW_NS
    return replace(
        asked,
        trace_id=parse_trace_id(trace_id).trace_id_hex if trace_id is not None else None,
        start_ns=start_ns,
        limit=min(operator.index(limit) + 1, _INT64[-1]),
        after=after,
    )


def check_timeout(timeout_millis: object) -> None:
    """Check the `timeout_millis` of a read.

    Raises:
        ConfigurationError: It is not a number of milliseconds.
    """
    if timeout_millis is None:
        return
    if not isinstance(timeout_millis, bool) and isinstance(timeout_millis, Real) and float(timeout_millis) >= 0:
        return
    raise ConfigurationError("timeout_millis", timeout_millis, "a number of milliseconds, 0 or more; None for no limit")


def check_bytes(size: object) -> None:
    """Check the size to which a store is reduced.

    Raises:
        ConfigurationError: It is not a number of bytes.
    """
    if size is None or (isinstance(size, int) and not isinstance(size, bool) and size >= _MIN_BYTES):
        return
    raise ConfigurationError("max_bytes", size, f"a whole number of bytes, at least {_MIN_BYTES:,}")


def past_ns(age: dt.timedelta | Time, now_ns: int) -> int:
    """Return wall nanoseconds of a time that lies behind: so long ago, or that time.

    Raises:
        ConfigurationError: *age* is neither, or the time is still to come.
    """
    ns = now_ns - age // dt.timedelta(microseconds=1) * 1_000 if isinstance(age, dt.timedelta) else wall_ns(age)
    if ns is None or ns > now_ns or ns not in _INT64:
        raise ConfigurationError("older_than", age, f"a timedelta of 0 or more, or a time before now: {EXPECTED_TIME}")
    return ns


def reads_of(store: SpanStore, what: str) -> SpanReads:
    """Return the reads of a store that look at much in a short time.

    Raises:
        ConfigurationError: The store does not have them; *what* is what was asked for.
    """
    if not isinstance(store, SpanReads):
        raise ConfigurationError(what, f"{store}", "a store in SQLite or ClickHouse, which can answer this")
    return store


def store_of(where: SpanStore | Destination) -> SpanStore:
    """Return the store that a client works on.

    Raises:
        ConfigurationError: It works on a destination, which takes updates only.
    """
    if isinstance(where, Destination):
        raise ConfigurationError(
            "Client", where.name, "a destination that keeps its spans in a store; this one takes updates only"
        )
    return where


def to_ns(name: str, time: Time | None) -> int | None:
    """Return wall nanoseconds.

    Raises:
        ConfigurationError: *time* is not a valid time.
    """
    if time is None:
        return None
    ns = wall_ns(time)
    if ns is None:
        raise ConfigurationError(name, time, EXPECTED_TIME)
    return ns


def wall_ns(time: object) -> int | None:
    """Return wall nanoseconds of a `Time`; None for an invalid one."""
    if isinstance(time, str):
        return nanoseconds(time.strip())
    # NaT is a datetime that differs from itself.
    if not isinstance(time, dt.datetime) or time != time:  # noqa: PLR0124
        return None
    since = (time if time.tzinfo is not None else time.replace(tzinfo=dt.timezone.utc)) - utc(0)
    seconds = since.days * 86_400 + since.seconds
    ns = seconds * 1_000_000_000 + since.microseconds * 1_000 + getattr(since, "nanoseconds", 0)
    return ns if ns in _INT64 else None


def goes_on(
    query: SpanQuery, limit: int, records: Sequence[SpanRecord | TraceRecord], searched_to: Position | None
) -> tuple[str | None, dt.datetime | None]:
    """Return how a page goes on: its `next_cursor` and its `searched_to`.

    Args:
        query: Of the page.
        limit: The size of the page.
        records: What was found: more than *limit* if there is another page.
        searched_to: The position where the search ended early; None if it did not.
    """
    behind = records[limit - 1].position if len(records) > limit else searched_to
    cursor = None
    if behind is not None:
        packed = orjson.dumps([query.start_ns, *behind])
        cursor = base64.urlsafe_b64encode(packed).decode().rstrip("=")
    return cursor, utc(searched_to.start_ns) if searched_to is not None else None


def _read_cursor(cursor: str) -> tuple[Position, int | None]:
    try:
        packed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        first_ns, start_ns, trace_id, span_id = orjson.loads(packed)
        if start_ns not in _INT64 or not (first_ns is None or first_ns in _INT64):
            raise ValueError(start_ns)
        return Position(start_ns, f"{int(trace_id, 16):032x}", f"{int(span_id, 16):016x}"), first_ns
    except (ValueError, TypeError):
        raise ConfigurationError("cursor", cursor, "the `next_cursor` of a page") from None


def _condition(text: str | None) -> Condition | None:
    if text is None:
        return None
    from otel_metadata.store.filter.language import parse  # its patterns take milliseconds to compile

    return parse(text)
