"""A slot's journal: where an update is written before its call returns, without a system call.

Theory of operation. A file of fixed size beside the database, mapped into memory by the process that leases the slot.
What is copied into the mapping is in the operating system's page cache and survives the process, as a `write` does; but
it costs one copy, where a transaction of SQLite is a dozen system calls, before each of which Python lets other threads
go first. The worker moves rows from here to the database in groups. What is settled before that never gets there.

    last number, base | frame | frame | …

Frames (`spool.frames`) follow each other until there is no room; with the last of them gone the room is used again from
the front, so older frames stand behind newer ones. `base` tells them apart: what is up to it was moved. `last` is the
highest number that was ever written here, so that whoever takes the slot over knows how many there should be. Both are
one store of eight bytes each, beside their complement. A frame is written before `last`: one that broke off with its
process is no frame, and nobody misses it.

Danger: what cannot be written through a mapping kills the process (SIGBUS) where a system call would be an error. So
the room is allocated before it is mapped, and nothing here ever makes a journal shorter.

Every method is called by the holder of the spool's lock. A forked child never calls one: it forgets its slots.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple, final

from otel_metadata.spool.frames import MAGIC, frame_bytes, read_frame

JOURNAL_BYTES: Final = 1 << 20
"""Room for about two seconds of 2,000 updates each."""

_NUMBER: Final = struct.Struct("<II")
_LAST_AT: Final = 0
_BASE_AT: Final = 8
_HEAD_BYTES: Final = 16
_ALL_BITS: Final = (1 << 32) - 1
_GONE: Final = bytes(len(MAGIC))

# A worker that looks once a second must come in time.
_FILLING_BYTES: Final = JOURNAL_BYTES // 4

_USUAL_BYTES: Final = 4_096

_INFIX: Final = "-journal-"


@final
class Journal:
    """The journal of a slot that this process leases: see the module's theory of operation.

    Attributes:
        bytes: Size of the rows that are here and nowhere else.
    """

    def __init__(self, path: str, slot: int) -> None:
        """Make the file.

        Args:
            path: Of the database.
            slot: The number of the slot, which has no journal.

        Raises:
            OSError: It cannot be made: no room, a read-only directory, a system without `posix_fallocate`.
        """
        self.path = f"{path}{_INFIX}{slot}"
        self.bytes = 0
        self._rows: dict[int, tuple[int, int]] = {}
        self._end = _HEAD_BYTES
        allocate = getattr(os, "posix_fallocate", None)
        if allocate is None:
            raise OSError("this system has no posix_fallocate")
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            allocate(descriptor, 0, JOURNAL_BYTES)
            self._map = mmap.mmap(descriptor, JOURNAL_BYTES)
            # Touched once, so that no update has to wait for a page.
            self._map[:] = bytes(JOURNAL_BYTES)
            found = os.fstat(descriptor)
            self._inode = found.st_dev, found.st_ino
        except BaseException:
            Path(self.path).unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)

    def __len__(self) -> int:
        """How many rows are here and nowhere else."""
        return len(self._rows)

    @property
    def is_filling(self) -> bool:
        """Whether the worker should move rows now."""
        return self._end > _FILLING_BYTES

    @property
    def has_room(self) -> bool:
        """Whether a row of the usual size can be written."""
        return self._end < JOURNAL_BYTES - _USUAL_BYTES

    def append(self, row_id: int, frame: bytes) -> bool:
        """Write a row; False when there is no room."""
        # The same number again: an interrupt came after it was written.
        before = self._rows.get(row_id)
        start = self._end if before is None else before[0]
        end = start + len(frame)
        if end > JOURNAL_BYTES:
            return False
        self._map[start:end] = frame
        self._note(_LAST_AT, row_id)
        if before is None:
            self._rows[row_id] = (start, end)
            self.bytes += len(frame)
            self._end = end
        return True

    def oldest(self, limit: int | None = None) -> list[tuple[int, bytes]]:
        """Return the oldest rows, with their numbers; all without a *limit*."""
        return [(row_id, self._map[start:end]) for row_id, (start, end) in islice(self._rows.items(), limit)]

    def after(self, row_id: int, limit: int) -> list[tuple[int, bytes]]:
        """Return the first *limit* rows above *row_id*, with their numbers."""
        found = ((one, where) for one, where in self._rows.items() if one > row_id)
        return [(one, self._map[start:end]) for one, (start, end) in islice(found, limit)]

    def moved(self, rows: Sequence[tuple[int, bytes]]) -> None:
        """Forget the oldest rows: they are in the database."""
        for row_id, _ in rows:
            self._forget(row_id)
        self._note(_BASE_AT, rows[-1][0])
        self._reuse()

    def drop(self, row_id: int) -> bool:
        """Erase a row; False when it is not here."""
        where = self._rows.get(row_id)
        if where is None:
            return False
        self._map[where[0] : where[0] + len(_GONE)] = _GONE
        self._forget(row_id)
        self._reuse()
        return True

    def _forget(self, row_id: int) -> None:
        start, end = self._rows.pop(row_id)
        self.bytes -= end - start

    def _reuse(self) -> None:
        if not self._rows:
            self._end = _HEAD_BYTES

    def _note(self, at: int, row_id: int) -> None:
        number = row_id & _ALL_BITS
        self._map[at : at + 8] = _NUMBER.pack(number, number ^ _ALL_BITS)

    @property
    def is_replaced(self) -> bool:
        """Whether another file, or none, has its name now: then nobody would find what is written here."""
        try:
            found = os.stat(self.path)
        except OSError:
            return True
        return self._inode != (found.st_dev, found.st_ino)

    def remove(self) -> None:
        """Remove the file, and write nothing any more; the rows are in the database."""
        if not self.is_replaced:
            Path(self.path).unlink(missing_ok=True)
        self._map.close()


class Left(NamedTuple):
    """What stands in a journal.

    Attributes:
        rows: Number and frame of each that is sound and was not moved.
        puts: Rows that were ever put into the slot, as far as the journal knows.
    """

    rows: list[tuple[int, bytes]]
    puts: int


def read_journal(path: str, slot: int) -> Left | None:
    """Return what stands in the journal of a slot; None when there is none, or it cannot be read.

    Args:
        path: Of the database.
        slot: The number of the slot. Where a living process leases it, what it writes meanwhile may be missing.
    """
    try:
        data = Path(f"{path}{_INFIX}{slot}").read_bytes()
    except OSError:
        return None
    base = _number(data, _BASE_AT)
    rows: dict[int, bytes] = {}
    at = data.find(MAGIC, _HEAD_BYTES)
    while at >= 0:
        content = read_frame(data, at)
        end = at + len(MAGIC)
        if content is not None:
            end = at + frame_bytes(data, at)
            row_id = content.get("i")
            if isinstance(row_id, int) and row_id >> 32 == slot and row_id & _ALL_BITS > base:
                rows[row_id] = data[at:end]
        at = data.find(MAGIC, end)
    return Left(sorted(rows.items()), _number(data, _LAST_AT))


def _number(data: bytes, at: int) -> int:
    """Return a number of the head; 0 when it is damaged: then nothing is missed, and what was moved is seen again."""
    if len(data) < at + _NUMBER.size:
        return 0
    number, complement = _NUMBER.unpack_from(data, at)
    return int(number) if number ^ complement == _ALL_BITS else 0


def journal_numbers(path: str) -> set[int]:
    """Return the slots that have a journal."""
    database = Path(path)
    prefix = f"{database.name}{_INFIX}"
    try:
        names = os.listdir(database.parent)
    except OSError:
        return set()
    numbers = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
    return {int(number) for number in numbers if number.isascii() and number.isdecimal()}


def journaled_rows(path: str) -> dict[int, bytes]:
    """Return what stands in all journals beside a database, by number."""
    found = [read_journal(path, number) for number in sorted(journal_numbers(path))]
    return {row_id: frame for one in found if one is not None for row_id, frame in one.rows}


def remove_journal(path: str, slot: int) -> None:
    """Remove the journal of a slot.

    Raises:
        OSError: It cannot be removed.
    """
    Path(f"{path}{_INFIX}{slot}").unlink(missing_ok=True)
