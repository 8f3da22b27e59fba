"""The history of fields in SQLite: every value that another one superseded, also one that lost when it arrived.

A history is a set of (version, value) for each field, and writing is a union. So any order and any repetition lead to
the same history, as for the values themselves. Each value keeps the earliest of its routes. The newest values are kept,
and one more: it is not shown, and tells that older ones were dropped.

The merge is an upsert, and SQLite evaluates its WHERE for a field that exists already, and for no other. So a function
there sees each pair of values of which one supersedes the other, and a first write costs nothing. A trigger would
make SQLite open a savepoint for each row, also of a first write, and would not see a value that loses.
"""

from __future__ import annotations

import itertools
import operator
import sqlite3
from collections.abc import Iterator
from typing import Final, TypeAlias, cast, final

import orjson

from otel_metadata.model.merge import FieldName, Fields
from otel_metadata.model.record import ValueRecord
from otel_metadata.store.history import Value, Values, in_order, records

_KEY: Final = ("trace_id", "span_id", "level", "kind", "key")
_KEY_COLUMNS: Final = ", ".join(_KEY)
_OF_FIELD: Final = " AND ".join(f"{column} = ?" for column in _KEY)

# The merge contract (model.merge) in SQL: the higher version wins, of equal ones the greater JSON text; of a tag the
# lower version. Of equal values the earlier route. SQLite compares text by its UTF-8 bytes, which is the order of
# Python's code points.
_WINS: Final = """CASE WHEN excluded.kind = 'tag'
    THEN (excluded.ns, excluded.writer, excluded.route) < (ns, writer, route)
    ELSE (excluded.ns, excluded.writer, excluded.value, -excluded.route) > (ns, writer, value, -route) END"""

_FUNCTION: Final = "otel_metadata_superseded"

# Placeholders are plain `?`, and a value that is used twice is bound twice. Python 3.12.0 to 3.12.3 warn about `?1`
# with a sequence (python/cpython#117995), and named placeholders with a dict for each row are slower.
_MERGE: Final = f"""
INSERT INTO fields ({_KEY_COLUMNS}, value, ns, writer, route, start_ns)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, (SELECT start_ns FROM spans WHERE trace_id = ? AND span_id = ?))
ON CONFLICT ({_KEY_COLUMNS}) DO UPDATE
SET value = excluded.value, ns = excluded.ns, writer = excluded.writer, route = excluded.route
WHERE """

MERGE_FIELD: Final = _MERGE + _WINS
"""Merges a field without keeping what is superseded."""

_MERGE_AND_KEEP: Final = f"{_MERGE}{_FUNCTION}({_WINS}, value, ns, writer, route)"

_KEEP: Final = f"""
INSERT INTO history ({_KEY_COLUMNS}, value, ns, writer, route) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET route = excluded.route WHERE excluded.route < route
"""

# If there are fewer, none is deleted: a comparison with NULL is not true.
_TRIM: Final = f"""
DELETE FROM history WHERE {_OF_FIELD} AND (ns, writer, value) < (SELECT ns, writer, value FROM history
WHERE {_OF_FIELD} ORDER BY ns DESC, writer DESC, value DESC LIMIT 1 OFFSET ?)
"""

_TRIMMED_ONE_IN: Final = 32
"""Reading shows the newest values only, so it does not matter when the others are removed. To look for them at each
write would cost as much as the write."""

_BATCH: Final = 1_000

_VALUES_OF: Final = """
SELECT level, kind, key, value, ns, writer, route, 1 FROM fields WHERE trace_id = ? AND span_id = ?
UNION ALL
SELECT level, kind, key, value, ns, writer, route, 0 FROM history WHERE trace_id = ? AND span_id = ?
"""

NAME_OF: Final = "SELECT name FROM writers WHERE writer = ?"

_Row: TypeAlias = "tuple[str | int, ...]"
"""The values of the placeholders of `MERGE_FIELD`."""


@final
class History:
    """Keeps what the writes of one connection supersede."""

    def __init__(self, connection: sqlite3.Connection, limit: int) -> None:
        """Start for a connection that is new.

        Args:
            connection: The connection that `merge` is called with.
            limit: How many superseded values of a field are kept.
        """
        self._limit = limit
        self._batch: list[_Row] = []
        self._left: Iterator[_Row] = iter(())
        self._superseded: list[_Row] = []
        connection.create_function(_FUNCTION, 5, self._keep)

    def merge(self, connection: sqlite3.Connection, rows: Iterator[_Row]) -> None:
        """Merge fields, and keep what is superseded by them or in them.

        Args:
            connection: In the transaction that writes.
            rows: The values of the placeholders of `MERGE_FIELD` for each field.
        """
        while batch := list(itertools.islice(rows, _BATCH)):
            superseded: list[_Row] = []
            self._superseded = superseded
            self._batch, self._left = batch, iter(batch)
            connection.executemany(_MERGE_AND_KEEP, self._left)
            if superseded:
                connection.executemany(_KEEP, superseded)
                # The hash has a version in it, so no pattern of writes keeps a field from its turn.
                first = hash(superseded[0]) % _TRIMMED_ONE_IN
                fields = dict.fromkeys(row[:5] for row in superseded[first::_TRIMMED_ONE_IN])
                connection.executemany(_TRIM, ((*field, *field, self._limit) for field in fields))
        self._batch, self._superseded = [], []  # values may be large

    def _keep(self, wins: int, value: str, ns: int, writer: str, route: int) -> int:
        """Note which of two values is superseded, and return *wins*. SQLite calls it while it merges a field.

        Args:
            wins: Whether the value that comes takes the place of the one that is there.
            value: The JSON text that is there.
            ns: Half of its version.
            writer: The other half.
            route: Its route.
        """
        # The row that comes is the last one that was taken from the batch, so SQLite need not pass it on.
        row = self._batch[~operator.length_hint(self._left)]
        if (value, ns, writer) != row[5:8]:
            self._superseded.append((*row[:5], value, ns, writer, route) if wins else row[:9])
        return wins


def read(
    connection: sqlite3.Connection, trace_id: str, span_id: str, field: FieldName | None, limit: int
) -> list[ValueRecord]:
    """Return every value that the fields of a span and of its trace have or had, newest first.

    Args:
        connection: Where to read.
        trace_id: 32 hex digits.
        span_id: 16 hex digits, or "" for the fields of the trace alone.
        field: Only values of this field; None for all.
        limit: How many superseded values of a field are shown.
    """
    names: dict[str, str | None] = {}

    def name_of(writer: str) -> str | None:
        if writer not in names:
            found = connection.execute(NAME_OF, (writer,)).fetchone()
            names[writer] = found[0] if found is not None else None
        return names[writer]

    found = _values(connection, trace_id, span_id, limit)
    return records({name: found[name] for name in found if field in {None, name}}, name_of)


def fields_at(connection: sqlite3.Connection, trace_id: str, span_id: str, at_ns: int, limit: int) -> Fields:
    """Return the fields of a span and of its trace as they were at a time."""
    fields = {}
    for name, (values, _) in _values(connection, trace_id, span_id, limit).items():
        found = next((one for one in values if one[0] <= at_ns), None)
        if found is not None:
            ns, writer, text, _ = found
            fields[name] = (orjson.loads(text), (ns, int(writer, 16)))
    return fields


def _values(connection: sqlite3.Connection, trace_id: str, span_id: str, limit: int) -> dict[FieldName, Values]:
    """Return the values of each field."""
    current: dict[FieldName, Value] = {}
    superseded: dict[FieldName, list[Value]] = {}
    for place in dict.fromkeys((span_id, "")):
        for level, kind, key, text, *version, route, is_current in connection.execute(
            _VALUES_OF, (trace_id, place, trace_id, place)
        ):
            name: FieldName = (level, kind, key)
            value = cast("Value", (*version, text, route))
            if is_current:
                current[name] = value
            else:
                superseded.setdefault(name, []).append(value)
    return {name: in_order(name, value, superseded.get(name, ()), limit) for name, value in current.items()}
