"""Search stored spans newest first, slice by slice, so that a deadline leaves a part that is whole.

SQLite returns the spans that a filter matches, but not how many it has looked at. So the time is cut into slices of a
known number of candidates, and a search that ends early says down to which span it has looked at all of them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from otel_metadata.model.record import Position
from otel_metadata.store.sqlite import query as sqlite_query
from otel_metadata.store.sqlite.query import RARE, Plan

if TYPE_CHECKING:
    from otel_metadata.model.record import SpanQuery
    from otel_metadata.store.sqlite.condition import Sql
    from otel_metadata.store.sqlite.read_pool import Deadline

# Each slice is read whole or does not count. Larger ones lose more at the deadline, smaller ones cost more to cut.
_FIRST_SLICE: Final = 1_000
_LARGEST_SLICE: Final = 16_000

_Row: TypeAlias = "tuple[Any, ...]"
_Read: TypeAlias = "Callable[[Plan, Position | None], bool]"


def rows(
    connection: sqlite3.Connection,
    query: SpanQuery,
    deadline: Deadline | None,
    columns: str = sqlite_query.COLUMNS_OF_S,
    where: Sql | None = None,
) -> tuple[list[_Row], Position | None]:
    """Return *columns* of the spans that *query* selects, and how far the search has come; see `search`.

    Args:
        connection: The connection to read from.
        query: The spans to select.
        deadline: When to end; None for never.
        columns: As for `Plan.select`.
        where: One more condition on the spans.
    """
    found: list[_Row] = []

    def read(plan: Plan, until: Position | None) -> bool:
        limit = None if query.limit is None else query.limit - len(found)
        rest = plan._replace(query=replace(plan.query, limit=limit))
        found.extend(fetched(connection, rest.select(columns, until=until, where=where)))
        return len(found) == query.limit

    return found, search(connection, query, deadline, read)


def search(
    connection: sqlite3.Connection,
    query: SpanQuery,
    deadline: Deadline | None,
    read: _Read,
) -> Position | None:
    """Call *read* for one slice of the window after the other, newest first, until it returns True or the time is over.

    Args:
        connection: The connection to read from.
        query: The spans to look at.
        deadline: When to end; None for one slice that is the whole window.
        read: Takes a plan, and the position where the slice ends, or None for the end of the window. It is interrupted
            at the deadline, and must change nothing before it has read everything.

    Returns:
        The position down to which all spans were looked at; None if the search is complete.
    """
    counted = sqlite_query.counting(connection)
    plan = sqlite_query.plan(query, counted)
    if deadline is None:
        read(plan, None)
        return None
    if not plan.way.is_sorted:
        # One slice costs as much as all of them. A value of many traces is found soon among all spans.
        is_rare = counted(plan.way.counted) < RARE
        if is_rare and deadline.run(connection, partial(read, plan, None)) is not None:
            return None
        plan = plan.of_all_spans()
    # The first slice is read to its end, so that each search gets on, however little time it has.
    size, searched_to = _FIRST_SLICE, None
    step: tuple[bool, Position | None] | None = _slice(connection, plan, size, read)
    while step is not None:
        is_enough, until = step
        if is_enough or until is None:
            return None
        searched_to = until
        if deadline.is_over():
            break
        plan = plan._replace(query=replace(plan.query, after=until))
        size = min(2 * size, _LARGEST_SLICE)
        step = deadline.run(connection, partial(_slice, connection, plan, size, read))
    return searched_to


def _slice(connection: sqlite3.Connection, plan: Plan, size: int, read: _Read) -> tuple[bool, Position | None]:
    """Read about *size* candidates; return whether that is enough, and where the slice ends, or None at the end."""
    ends = (row for sql in plan.boundaries(size) for row in fetched(connection, sql))
    until = max((Position(*row) for row in ends), default=None)
    return read(plan, until), until


def fetched(connection: sqlite3.Connection, sql: Sql) -> list[_Row]:
    """Return all rows of a SELECT."""
    return connection.execute(sql.sql, sql.values).fetchall()
