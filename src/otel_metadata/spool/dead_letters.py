"""What a program may ask of a spool file that it does not write updates to: what waits, what was given up.

Used by `otel-metadata spool`. Looking leases nothing; trying a dead letter again puts its patch into a slot of its own,
from which the next process that has the destination takes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from otel_metadata.model.dead_letter import DeadLetter
from otel_metadata.spool.frames import SpooledUpdate, read_frame, row_from_json
from otel_metadata.spool.journal import journaled_rows

if TYPE_CHECKING:
    import sqlite3

    from otel_metadata.spool.spool import Spool


@final
@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits in a spool for one destination.

    Attributes:
        destination: Its name; "" for rows that are damaged.
        updates: Update calls.
        spans: Spans that are held.
        oldest_ns: When the oldest was accepted; wall nanoseconds.
    """

    destination: str
    updates: int
    spans: int
    oldest_ns: int


def waiting(spool: Spool) -> list[Waiting]:
    """Return what waits, by destination.

    Raises:
        StoreError: The file cannot be read.
    """
    found: dict[str, Waiting] = {}
    with spool.reading() as connection:
        for body in _bodies(connection, spool.path):
            data = read_frame(body) if isinstance(body, bytes) else None
            name = str(data["d"]) if data is not None else ""
            before = found.get(name) or Waiting(name, 0, 0, 0)
            updates, at_ns = (int(data["n"]), int(data["at"])) if data is not None else (1, 0)
            found[name] = Waiting(
                name,
                before.updates + updates,
                before.spans + (data is not None and data["k"] == "span"),
                min(at_ns, before.oldest_ns) if before.oldest_ns else at_ns,
            )
    return list(found.values())


def _bodies(connection: sqlite3.Connection, path: str) -> Iterator[object]:
    """Yield the rows of the database, then those that are in a journal only."""
    journaled = journaled_rows(path)
    for row_id, body in connection.execute("SELECT id, body FROM items ORDER BY id"):
        journaled.pop(row_id, None)
        yield body
    yield from journaled.values()


def letters(spool: Spool, destination: str | None = None) -> Iterator[DeadLetter]:
    """Yield the dead letters, oldest first; a damaged one is left out.

    Raises:
        StoreError: The file cannot be read.
    """
    with spool.reading() as connection:
        bodies = connection.execute("SELECT body FROM dead ORDER BY id").fetchall()
    for (body,) in bodies:
        data = read_frame(body) if isinstance(body, bytes) else None
        letter = row_from_json(data) if data is not None else None
        if isinstance(letter, DeadLetter) and destination in {None, letter.destination}:
            yield letter


def retry(spool: Spool, chosen: Iterable[DeadLetter], now_ns: int) -> int:
    """Let dead letters wait again, with all the time that a new update has; return how many.

    Their values keep their versions: what was said since still stands.

    Args:
        spool: Where they are.
        chosen: Which.
        now_ns: Wall nanoseconds.

    Raises:
        StoreError: The file cannot be written.
    """
    done: list[DeadLetter] = []
    for letter in chosen:
        entry = SpooledUpdate(0, letter.destination, letter.target, letter.fields, letter.updates, now_ns)
        if spool.partition(letter.destination).put(entry) is not None:
            done.append(letter)
    spool.sync()
    if spool.unwritten:
        with spool.reading():  # says why
            return 0
    return drop(spool, done)


def drop(spool: Spool, chosen: Iterable[DeadLetter]) -> int:
    """Erase dead letters; return how many there were.

    Raises:
        StoreError: The file cannot be written.
    """
    with spool.reading() as connection:
        erased = connection.executemany("DELETE FROM dead WHERE id = ?", [(letter.id,) for letter in chosen])
        return max(erased.rowcount, 0)
