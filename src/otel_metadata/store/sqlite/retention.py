"""Retention in SQLite: delete the oldest spans in transactions of a few milliseconds, so that other writers get in.

A span that is retained away leaves no tombstone: there would be one for each span that was ever written. A late update
of it is kept like any update that comes before its span, and is deleted once it is as old as the deleted spans are. So
is every update whose span never came.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, final

from otel_metadata.model.record import Retained

if TYPE_CHECKING:
    from otel_metadata.seams import Clock

_LONGEST_NS: Final = 20_000_000
"""How long a transaction deletes. It is shorter where the commit takes long, see `Retention._written`."""

_SLOW_NS: Final = 40_000_000
"""A transaction that holds the write lock for longer is followed by shorter ones."""

_SHORTEST_NS: Final = 1_000_000

_KEYS: Final = 2_000
"""How many places, or values of a span, one SELECT returns."""

_FIELDS_AT_ONCE: Final = 50
"""How many fields of a span are deleted by one statement."""

_FIRST_PLACE: Final = ("", "")

_OLDEST: Final = "SELECT trace_id, span_id, start_ns FROM spans ORDER BY start_ns, trace_id, span_id LIMIT 1"
_NEWEST: Final = "SELECT ifnull(max(start_ns), 0) FROM spans"
_SIBLING: Final = "SELECT 1 FROM spans WHERE trace_id = ? AND span_id <> ? LIMIT 1"
DELETE_SPAN: Final = "DELETE FROM spans WHERE trace_id = ? AND span_id = ?"

# Without the values: a value may be on many pages. Row by row, because a span may have any number of them.
_HISTORY: Final = f"SELECT level, kind, key, ns, writer FROM history WHERE trace_id = ? AND span_id = ? LIMIT {_KEYS}"
_DELETE_HISTORY: Final = """DELETE FROM history
WHERE trace_id = ? AND span_id = ? AND level = ? AND kind = ? AND key = ? AND ns = ? AND writer = ?
"""

# Several at once: each statement that fires a trigger has a savepoint, which takes longer than to delete a row. The key
# is the last part of the primary key, so these are neighbours.
_FIELDS: Final = f"""
SELECT level, kind, min(key), max(key) FROM (SELECT level, kind, key FROM fields
WHERE trace_id = ? AND span_id = ? ORDER BY level, kind, key LIMIT {_FIELDS_AT_ONCE}) GROUP BY level, kind
"""
_DELETE_FIELDS: Final = """DELETE FROM fields
WHERE trace_id = ? AND span_id = ? AND level = ? AND kind = ? AND key BETWEEN ? AND ?
"""
_ROWS: Final = ((_HISTORY, _DELETE_HISTORY), (_FIELDS, _DELETE_FIELDS))

# The index of the primary key has both columns, in this order.
_PLACES: Final = f"""
SELECT DISTINCT trace_id, span_id FROM fields WHERE (trace_id, span_id) > (?, ?)
ORDER BY trace_id, span_id LIMIT {_KEYS}
"""
_IS_WAITING: Final = """CASE place.span_id
    WHEN '' THEN NOT EXISTS (SELECT 1 FROM spans WHERE trace_id = place.trace_id)
    ELSE NOT EXISTS (SELECT 1 FROM spans WHERE trace_id = place.trace_id AND span_id = place.span_id) END"""
_WAITING: Final = f"SELECT trace_id, span_id, {_IS_WAITING} FROM ({_PLACES}) AS place"
_IS_OLD: Final = f"""
SELECT {_IS_WAITING} AND NOT EXISTS (SELECT 1 FROM fields WHERE trace_id = place.trace_id
    AND span_id = place.span_id AND ns >= ?) FROM (SELECT ? AS trace_id, ? AS span_id) AS place
"""

FORGET_LATE_TRACE: Final = """
DELETE FROM late_traces WHERE trace_id = ? AND NOT EXISTS (SELECT 1 FROM fields WHERE trace_id = late_traces.trace_id)
"""

_TOMBSTONES: Final = f"""
SELECT trace_id, span_id, ns < ? FROM deleted WHERE (trace_id, span_id) > (?, ?)
ORDER BY trace_id, span_id LIMIT {_KEYS}
"""
_DELETE_TOMBSTONE: Final = "DELETE FROM deleted WHERE trace_id = ? AND span_id = ? AND ns < ?"

_Place: TypeAlias = "tuple[str, str]"
"""(trace id, span id); the span id is empty for what was set on the trace."""

_T = TypeVar("_T")


@final
class Retention:
    """Deletes the oldest spans of a store."""

    def __init__(
        self,
        read: Callable[[Callable[[sqlite3.Connection], Any]], Any],
        transaction: Callable[[], AbstractContextManager[sqlite3.Connection]],
        pause: Callable[[int], None],
        clock: Clock,
    ) -> None:
        """Remember how to reach the store.

        Args:
            read: Calls a function with a connection and returns its result.
            transaction: Opens a transaction that may write.
            pause: Waits so many nanoseconds; raises if the store is closed.
            clock: Time.
        """
        self._read = read
        self._transaction = transaction
        self._pause = pause
        self._clock = clock
        self._budget_ns = _LONGEST_NS

    def retain(self, before_ns: int | None, max_bytes: int | None) -> Retained:
        """Delete the spans that are too old, then the oldest until the store is small enough.

        Args:
            before_ns: Delete spans that started before; None for no spans.
            max_bytes: The size of the pages in use; None for any.
        """
        spans, deleted_to_ns = self._delete_spans(before_ns, max_bytes)
        horizon_ns = max((ns for ns in (before_ns, deleted_to_ns) if ns is not None), default=None)
        updates = self._delete_waiting(horizon_ns) if horizon_ns is not None else 0
        if before_ns is not None:
            self._delete_tombstones(before_ns)
        return Retained(spans, updates, self._read(_used_bytes))

    def _written(self, write: Callable[[sqlite3.Connection, Callable[[], bool]], _T]) -> _T:
        """Call a function that deletes until its time is over, in a transaction, and let others write after it."""
        with self._transaction() as connection:
            start_ns = self._clock.monotonic_ns()
            end_ns = start_ns + self._budget_ns
            result = write(connection, lambda: self._clock.monotonic_ns() >= end_ns)
        # The commit is part of it: it writes every changed page, and the disk may be slow.
        took_ns = self._clock.monotonic_ns() - start_ns
        if took_ns > _SLOW_NS:
            self._budget_ns = max(self._budget_ns // 2, _SHORTEST_NS)
        else:
            self._budget_ns = min(self._budget_ns * 2, _LONGEST_NS)
        # As long as it took: SQLite has no queue of writers, so whoever waits has to look while the file is free.
        self._pause(took_ns)
        return result

    def _delete_spans(self, before_ns: int | None, max_bytes: int | None) -> tuple[int, int | None]:
        """Delete spans, and return how many, and the start of the last one."""
        # Spans that arrive meanwhile are not deleted for their size: that need not end.
        ((newest_ns,),) = self._read(partial(_rows, sql=_NEWEST))
        count, last_ns, is_done = 0, None, False

        def step(connection: sqlite3.Connection, is_over: Callable[[], bool]) -> None:
            nonlocal count, last_ns, is_done
            while not is_over():
                found = connection.execute(_OLDEST).fetchone()
                is_old = found is not None and before_ns is not None and found[2] < before_ns
                if found is None or not (
                    is_old or (max_bytes is not None and found[2] <= newest_ns and _used_bytes(connection) > max_bytes)
                ):
                    is_done = True
                    return
                if not _delete_span(connection, (found[0], found[1]), is_over):
                    return
                count, last_ns = count + 1, found[2]

        while not is_done:
            self._written(step)
        return count, last_ns

    def _delete_waiting(self, horizon_ns: int) -> int:
        """Delete what was set before a time on spans and traces that are not there; return how many these are."""

        def delete(connection: sqlite3.Connection, place: _Place, is_over: Callable[[], bool]) -> bool | None:
            (is_old,) = connection.execute(_IS_OLD, (horizon_ns, *place)).fetchone()
            return _clear(connection, place, is_over) if is_old else None

        return self._delete_places(_WAITING, (), delete)

    def _delete_tombstones(self, before_ns: int) -> None:
        """Delete the tombstones from before a time: what they keep out is deleted by its age as well."""

        def delete(connection: sqlite3.Connection, place: _Place, is_over: Callable[[], bool]) -> bool:
            connection.execute(_DELETE_TOMBSTONE, (*place, before_ns))
            return True

        self._delete_places(_TOMBSTONES, (before_ns,), delete)

    def _delete_places(
        self,
        sql: str,
        values: tuple[int, ...],
        delete: Callable[[sqlite3.Connection, _Place, Callable[[], bool]], bool | None],
    ) -> int:
        """Walk over places, and delete what is there; return at how many something was deleted.

        Args:
            sql: Selects the next places, and whether to delete what is there. It runs in a read, so a transaction that
                writes looks only at places to delete.
            values: The first values of its placeholders.
            delete: Deletes what is at a place and returns True; False if its time was over, None if there was nothing.
        """
        count, last = 0, _FIRST_PLACE
        while found := self._read(partial(_rows, sql=sql, values=(*values, *last))):
            last = found[-1][:2]
            left = [place[:2] for place in reversed(found) if place[2]]

            def step(connection: sqlite3.Connection, is_over: Callable[[], bool], left: list[_Place] = left) -> int:
                done = 0
                while left and not is_over():
                    result = delete(connection, left[-1], is_over)
                    if result is False:
                        break
                    left.pop()
                    done += bool(result)
                return done

            while left:
                count += self._written(step)
        return count


def _delete_span(connection: sqlite3.Connection, place: _Place, is_over: Callable[[], bool]) -> bool:
    """Delete a span, and with the last one of a trace what was set on the trace; return False if the time was over.

    The span itself goes last, so that another call finds it again and goes on.
    """
    places = [place]
    if connection.execute(_SIBLING, place).fetchone() is None:
        places.append((place[0], ""))
    if not all(_clear(connection, one, is_over) for one in places):
        return False
    connection.execute(DELETE_SPAN, place)
    return True


def _clear(connection: sqlite3.Connection, place: _Place, is_over: Callable[[], bool]) -> bool:
    """Delete fields and their history; return False if the time was over before the end."""
    for select, delete in _ROWS:
        while rows := connection.execute(select, place).fetchall():
            for row in rows:
                connection.execute(delete, (*place, *row))
                if is_over():
                    return False
    connection.execute(FORGET_LATE_TRACE, place[:1])
    return True


def _rows(connection: sqlite3.Connection, sql: str, values: tuple[str | int, ...] = ()) -> list[Any]:
    return connection.execute(sql, values).fetchall()


def _used_bytes(connection: sqlite3.Connection) -> int:
    count, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((count - free) * size)
