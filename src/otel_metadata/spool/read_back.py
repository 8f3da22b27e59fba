"""Reading a slot back: its rows in order, and what is missing of them.

Theory of operation. A slot of our own is read as far as rows were put into it, in portions (`read_on`); their numbers
follow each other, so one that is not there was lost. Of a slot that another process had, any number may be gone: the
tally says how many rows there should be. Such a slot is read to the end of its numbers, each sound row once (`_take`),
wherever it is: a corrupt row id is wrong, and the id inside the frame is authoritative. When rows are missing
then, the bytes of the file are searched for them (`read_hidden`); what is not found is lost (`settle_missing`).

Called by the holder of the spool's lock. When the file fails in between, all of it can be done again.
"""

from __future__ import annotations

from contextlib import closing
from heapq import merge
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING

from otel_metadata.spool.frames import read_frame, row_from_json
from otel_metadata.spool.partition import Loaded, Row
from otel_metadata.spool.slots import rows_between

if TYPE_CHECKING:
    import sqlite3

    from otel_metadata.spool.file import SpoolFile
    from otel_metadata.spool.slots import Slot


def read_on(connection: sqlite3.Connection, slot: Slot, limit: int, max_bytes: int) -> tuple[list[Loaded], bool]:
    """Read from where it was read to, at most *limit* rows; return them, and whether that is the end.

    Args:
        connection: To the file.
        slot: Which.
        limit: At least 1.
        max_bytes: After so many no further row is read.
    """
    upto = slot.last if slot.adopted else slot.first + slot.puts
    rows: list[tuple[int, object]] = []
    size = 0
    # While a journal was full, rows that are younger than those in it went into the database.
    journaled = slot.journal.after(slot.cursor, limit) if slot.journal is not None else []
    with closing(rows_between(connection, slot.cursor, upto, limit)) as found:
        for row_id, body in islice(merge(found, journaled, key=itemgetter(0)), limit):
            rows.append((row_id, body))
            size += _size(body)
            if size >= max_bytes:
                break
    is_end = len(rows) < limit and size < max_bytes
    last = upto if is_end else rows[-1][0]
    loaded: list[Loaded] = []
    if slot.adopted:
        for row_id, body in rows:
            _take(slot, row_id, body, loaded)
    else:
        # Numbers of our own follow each other, so one that is not there any more was lost.
        there = dict(rows)
        loaded.extend(
            _loaded(row_id, there.get(row_id), is_adopted=False) for row_id in range(slot.cursor + 1, last + 1)
        )
    slot.cursor = last
    return loaded, is_end


def read_hidden(file: SpoolFile, slot: Slot) -> list[Loaded]:
    """Return the rows of an adopted slot that are missing, or damaged, and that the bytes of the file still have."""
    loaded: list[Loaded] = []
    if slot.read < max(slot.expected, slot.shown):
        found = [one for one in file.found_in(frozenset((slot.number,))) if one[0] - slot.first not in slot.seen]
        file.put_back(file.connected(), found)
        for row_id, body in found:
            _take(slot, row_id, body, loaded, is_shown=False)
    return loaded


def settle_missing(slot: Slot) -> int:
    """Settle what was not found of an adopted slot, which was read to its end; return how many rows are lost."""
    slot.is_read = True
    missing = max(max(slot.expected, slot.shown) - slot.read, 0)
    # What was lost is settled with this; more than expected is what a killed process had not counted.
    slot.settled += slot.expected - slot.read
    if slot.settled < 0:  # a number that was hit: it led here
        slot.puts, slot.settled = slot.puts - slot.settled, 0
    return missing


def _take(slot: Slot, row_id: int, body: object, loaded: list[Loaded], *, is_shown: bool = True) -> None:
    """Take a row of an adopted slot, if it is sound and was not taken yet."""
    data = read_frame(body) if isinstance(body, bytes) else None
    number = data.get("i") if data is not None else None
    slot.is_odd = slot.is_odd or number != row_id
    # A sound frame under another number: the number was hit, and the frame says what it was.
    if isinstance(number, int) and slot.first < number <= slot.last:
        row_id = number
    if row_id - slot.first in slot.seen:
        return
    slot.shown += is_shown
    one = _loaded(row_id, body, is_adopted=True)
    if one.content is not None:
        slot.seen.add(row_id - slot.first)
        slot.read += 1
        loaded.append(one)


def _loaded(row_id: int, body: object, *, is_adopted: bool) -> Loaded:
    data = read_frame(body) if isinstance(body, bytes) else None
    try:
        # A sound frame under another number: the number was hit, and the frame says what it was.
        content = row_from_json(data) if data is not None else None
        updates = content.updates if content is not None else 1
    except Exception:  # noqa: BLE001 # whatever a damaged row makes of itself
        content, updates = None, 1
    return Loaded(Row(None, row_id), content, is_adopted, updates, _size(body))


def _size(body: object) -> int:
    return len(body) if isinstance(body, bytes) else 0
