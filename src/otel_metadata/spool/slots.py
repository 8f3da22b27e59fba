"""Slots: which rows of the spool are whose, and how many of them there should be.

Theory of operation. A row's number has two parts: the slot, and the order in which the row came. A process leases slots
(`spool.owners`): one that is empty for rows of its own, and those of dead processes to send what they left. Nothing is
ever written to move a row from one owner to another.

    free        nobody has the lock of its byte, and no rows are in it
    leased      a live process has the lock; it alone writes rows there, and it alone erases them
    left        nobody has the lock, and rows are in it, or should be: a process that has its destination takes it

Those that this process leases are in `spool.leased_slots`. Every function here is called by the holder of the spool's
lock.

If you change how a number is made, see `spool.frames` (a frame carries it) and `spool.salvage`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    import sqlite3

    from otel_metadata.spool.journal import Journal

_SEQUENCE_BITS: Final = 32

MAX_ROWS: Final = (1 << _SEQUENCE_BITS) - 1
"""Rows that are ever put into one slot; then another one is leased."""

INSERT: Final = "INSERT OR REPLACE INTO items (id, body) VALUES (?, ?)"
"""Puts a row; one that is written again, after an interrupt, has the same number."""


@final
class Seen:
    """A set of numbers that mostly follow each other: one bit each."""

    def __init__(self) -> None:
        """Start empty."""
        self._chunks: dict[int, bytearray] = {}

    def __contains__(self, number: int) -> bool:
        """Whether it was added."""
        chunk = self._chunks.get(number >> 12)
        return chunk is not None and bool(chunk[number >> 3 & 511] & 1 << (number & 7))

    def add(self, number: int) -> None:
        """Add one."""
        chunk = self._chunks.setdefault(number >> 12, bytearray(512))
        chunk[number >> 3 & 511] |= 1 << (number & 7)


@final
@dataclass(slots=True, eq=False)
class Slot:
    """A slot that this process leases.

    Attributes:
        number: Which; from 1.
        name: Its destination, as `Owners.cut` writes it.
        puts: Rows that were ever written into it.
        settled: Rows of those that were erased, or found to be lost.
        cursor: Of a slot that is read back: the number up to which it was read.
        seen: Which sound rows of an adopted slot were read.
        read: How many those were.
        shown: How many rows SQLite showed, those apart that it showed twice.
        expected: How many rows there should be in an adopted slot.
        adopted: Whether another process wrote it.
        is_read: Whether an adopted slot was read to its end.
        is_odd: Whether a row of it was damaged, or not where its number says.
        first: The number before that of its first row.
        journal: Where its rows are written first; None where each is written into the database at once.
    """

    number: int
    name: bytes
    puts: int = 0
    settled: int = 0
    cursor: int = 0
    seen: Seen = field(default_factory=Seen)
    read: int = 0
    shown: int = 0
    expected: int = 0
    adopted: bool = False
    is_read: bool = False
    is_odd: bool = False
    first: int = 0
    journal: Journal | None = None

    def __post_init__(self) -> None:
        self.first = self.number << _SEQUENCE_BITS
        self.cursor = self.first + self.puts

    @property
    def last(self) -> int:
        """The highest number that a row of it can have."""
        return self.first + MAX_ROWS

    @property
    def is_drained(self) -> bool:
        """Whether nothing in it waits to be read back."""
        return self.is_read if self.adopted else self.cursor >= self.first + self.puts


def slot_of(row_id: int) -> int:
    """Return the number of the slot of a row."""
    return row_id >> _SEQUENCE_BITS


def bounds(number: int) -> tuple[int, int]:
    """Return the number before that of a slot's first row, and that of the last one it can have."""
    first = number << _SEQUENCE_BITS
    return first, first + MAX_ROWS


def slots_with_rows(connection: sqlite3.Connection) -> Iterator[int]:
    """Yield each slot that has rows; one step of the index for each."""
    at = 0
    while True:
        found = connection.execute("SELECT id FROM items WHERE id > ? ORDER BY id LIMIT 1", (at,)).fetchone()
        if found is None:
            return
        slot = found[0] >> _SEQUENCE_BITS
        yield slot
        at = ((slot + 1) << _SEQUENCE_BITS) - 1
        if at >= 1 << 62:  # a number that was damaged
            return


def rows_between(connection: sqlite3.Connection, after: int, upto: int, limit: int) -> sqlite3.Cursor:
    """Return the first rows with a number above *after* and at most *upto*, as SQLite shows them, at most *limit*."""
    sql = "SELECT id, body FROM items WHERE id > ? AND id <= ? ORDER BY id LIMIT ?"
    return connection.execute(sql, (after, upto, limit))


def count(connection: sqlite3.Connection, number: int) -> int:
    """Return how many rows of a slot SQLite shows."""
    sql = "SELECT count(*) FROM items WHERE id > ? AND id <= ?"
    return int(connection.execute(sql, bounds(number)).fetchone()[0])


def highest(connection: sqlite3.Connection, number: int) -> int:
    """Return the order of the last row of a slot that SQLite shows; 0 for none."""
    sql = "SELECT max(id) FROM items WHERE id > ? AND id <= ?"
    found = connection.execute(sql, bounds(number)).fetchone()[0]
    return int(found) - bounds(number)[0] if found is not None else 0
