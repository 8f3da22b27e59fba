"""The spool: the outboxes' updates and held spans in one SQLite file that several processes share.

Theory of operation. A row is a frame (`late.frames`) under a number. The number has two parts: the *slot*, which one
process leases (`late.owners`), and the order in which the row came. A process has two slots for each destination: one
for what is in memory as well, and one for what is on disk only (*spilled*), which it reads back from the front. Slots
of processes that died are *adopted*: leased, then read from the front as well. Nothing is ever written to move a row
from one owner to another.

Writing. What is decided under the process's lock is queued here in order; no I/O there. `sync` writes the queue in one
transaction, on the thread that put it, before its call returns: threads that come together share one. Erasures, and
everything that takes longer, are the workers' (`tend`). One re-entrant lock guards the connection. Its holder never
asks for the process's lock, so a finalizer that updates a span while its thread holds that one may wait here. A call
that finds its own thread in the middle of a write (a finalizer, a signal handler) leaves its row in the queue, and the
write that it interrupted takes it along.

Failure. When a write fails (disk full, read-only, damaged, locked for too long), rows stay in the queue, in memory and
bounded; callers do not try again, the worker does, once a second. A file that SQLite cannot read is set aside under
another name, never overwritten, and what can be read of it (`late.salvage`) goes into a new one under the same numbers.
Another process that has the old file open is told by SQLite ("readonly": the file was moved), and opens the new one.

Promised: a row whose `sync` returned survives the process. With `durability="power"` it survives the machine as well.
Not promised: that it is sent once only; a row is erased after its outcome, so a crash in between sends it again.

Fork: the lock is held across it, so that the child finds SQLite's own locks free; the child leaves the connection
alone, starts with an empty queue, and leases slots of its own at its first row.
"""

from __future__ import annotations

import mmap
import os
import sqlite3
import stat
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, final

from otel_metadata.errors import ConfigurationError, StoreError, StoreFormatError
from otel_metadata.late.frames import (
    PlainUpdate,
    SpooledSpan,
    SpooledUpdate,
    frame,
    plain_frame,
    read_frame,
    row_from_json,
)
from otel_metadata.late.lane import Loaded, Row
from otel_metadata.late.owners import MAX_SLOTS, Owners, Tally, is_supported, owners_path
from otel_metadata.late.salvage import PAGE_BYTES, salvage
from otel_metadata.late.weight import weigh_fields
from otel_metadata.model.dead_letter import DeadLetter
from otel_metadata.reporting import REPORTER
from otel_metadata.seams import SystemClock
from otel_metadata.store.sqlite_file import Layout, create_private_file, leave_to_the_parent, prepare

if TYPE_CHECKING:
    from otel_metadata.seams import Clock

__all__ = ["DURABILITIES", "Durability", "Spool", "SpoolLane", "SpoolSettings"]

Durability = Literal["process", "power"]
"""process: rows survive the process (the operating system has them). power: they survive the machine, too (fsync)."""

DURABILITIES: Final[tuple[Durability, ...]] = ("process", "power")

_LAYOUT: Final = Layout(
    "a spool",
    "a spool of otel-metadata",
    0x6F74_7370,  # "otsp"
    1,
    "CREATE TABLE items (id INTEGER PRIMARY KEY, body BLOB NOT NULL);"
    "CREATE TABLE dead (id INTEGER PRIMARY KEY, body BLOB NOT NULL)",
)

_INSERT: Final = "INSERT OR REPLACE INTO items (id, body) VALUES (?, ?)"
_SELECT: Final = "SELECT id, body FROM items WHERE id > ? AND id <= ? ORDER BY id LIMIT ?"

_SEQUENCE_BITS: Final = 32

# A write waits for another process's at most this long; then the row waits in memory, and the worker writes it.
_BUSY_MILLIS: Final = 200

# Rows in one transaction: the caller who shares it waits for all of them (about 3 us each).
_GROUP: Final = 128
_ERASE_GROUP: Final = 200

_TEND_EVERY_NS: Final = 1_000_000_000
_ADOPT_EVERY_NS: Final = 5_000_000_000

# What may wait in memory while nothing can be written.
_MAX_QUEUED_BYTES: Final = 16 * 1024 * 1024
_MAX_QUEUED: Final = 20_000

# The log is copied back by the worker, never by a caller: without stopping writers, and beyond the second size by
# stopping them for a moment, for a log that is written without pause is never reset otherwise.
_LOG_BYTES: Final = 4 * 1024 * 1024
_MAX_LOG_BYTES: Final = 64 * 1024 * 1024

_MAX_DEAD: Final = 10_000


@final
@dataclass(frozen=True, slots=True)
class SpoolSettings:
    """Where and how updates are kept on disk.

    Attributes:
        path: The file, in a directory of its own (mode 0700); both are made. The write-ahead log of SQLite and a file
            of leases are beside it.
        durability: See `Durability`.
        quota_bytes: Size beyond which nothing more is written, checked about once a second: then updates wait in
            memory, and are lost as `spool_full` when there is no room either.
    """

    path: str
    durability: Durability = "process"
    quota_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        """Check what can be checked without looking at the disk.

        Raises:
            ConfigurationError: A value cannot be used.
        """
        if not isinstance(self.path, str) or not self.path:
            raise ConfigurationError(
                "spool path", self.path, "a path of a file, for example otel_metadata_spool/spool.db"
            )
        if self.durability not in DURABILITIES:
            raise ConfigurationError("spool durability", self.durability, "'process' or 'power'")
        if not isinstance(self.quota_bytes, int) or self.quota_bytes < 64 * 1024:
            raise ConfigurationError("spool quota_bytes", self.quota_bytes, "at least 65536 bytes")


@final
@dataclass(slots=True, eq=False)
class _Slot:
    """A slot that this process leases."""

    number: int
    name: bytes
    first: int = 0
    puts: int = 0
    settled: int = 0
    # Of what is read back: the highest number, how many rows, and how many there should be.
    cursor: int = 0
    read: int = 0
    expected: int = 0
    adopted: bool = False
    is_read: bool = False

    def __post_init__(self) -> None:
        self.first = self.number << _SEQUENCE_BITS

    @property
    def last(self) -> int:
        return self.first + (1 << _SEQUENCE_BITS) - 1


@final
class Spool:
    """One spool file, as one process uses it: see the module's theory of operation."""

    def __init__(self, settings: SpoolSettings, *, clock: Clock | None = None) -> None:
        """Open the file, or make it.

        Args:
            settings: Where and how.
            clock: Time; None for the system's.

        Raises:
            ConfigurationError: The path cannot be used: a directory, another program's file, one of a newer version, a
                directory that others may read. Nothing was changed.
        """
        self.settings = settings
        self.path = settings.path
        self._clock = clock or SystemClock()
        self._lanes: dict[str, SpoolLane] = {}
        self._start_afresh()
        self._check_place()
        try:
            with self._lock:
                self._connected()
        except StoreFormatError as error:
            self.close()
            raise ConfigurationError("configure(spool=)", self.path, f"{error}") from error
        except (sqlite3.Error, OSError, StoreError) as error:
            self._fail(error)
            if self._is_damaged:
                self._recover()
        _spools.add(self)

    def _start_afresh(self) -> None:
        self._lock = threading.RLock()
        self._is_writing = False
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._owners: Owners | None = None
        self._queue: deque[tuple[SpoolLane, Row, bool]] = deque()
        self._queued_bytes = 0
        self._doomed: deque[tuple[SpoolLane, Row]] = deque()
        self._letters: deque[DeadLetter] = deque()
        self._is_broken = False
        self._is_damaged = False
        self._is_full = False
        self._is_closed = False
        self._size = 0
        self._written_since = 0
        self._tend_at_ns = 0
        self._adopt_at_ns = 0

    # --- lanes ------------------------------------------------------------------------------------------------------

    def lane(self, destination: str) -> SpoolLane:
        """Return the part of one destination, and take over what dead processes have left for it."""
        lane = self._lanes.get(destination)
        if lane is None:
            lane = self._lanes[destination] = SpoolLane(self, destination)
            with self._lock:
                # Before the first row is written: what a damaged log still holds is overwritten then.
                self._guarded(lambda: self._adopt(is_start=True))
        return lane

    @property
    def unwritten(self) -> int:
        """How many rows wait in memory because they could not be written."""
        return len(self._queue)

    @property
    def bytes(self) -> int:
        """Size of the file and its log, as last measured."""
        return self._size + self._written_since

    def has_room(self) -> bool:
        """Whether a row may be queued."""
        if self._is_closed:
            return False
        if not (self._is_broken or self._is_full):
            return True
        return self._queued_bytes < _MAX_QUEUED_BYTES and len(self._queue) < _MAX_QUEUED

    def enqueue(self, lane: SpoolLane, row: Row, *, spilled: bool) -> None:
        """Queue a row to be written; the caller holds the process's lock, so that the order is that of the updates."""
        if (self._is_broken or self._is_full) and row.entry is not None:
            self._queued_bytes += 200 + weigh_fields(row.entry.fields)
        self._queue.append((lane, row, spilled))

    # --- writing ----------------------------------------------------------------------------------------------------

    def sync(self) -> None:
        """Write what is queued. Any thread; returns at once while nothing can be written."""
        while self._queue and not (self._is_broken or self._is_full or self._is_closed):
            with self._lock:
                if self._is_writing:
                    return  # the call that was interrupted here takes it along
                self._is_writing = True
                try:
                    self._write_queue()
                finally:
                    self._is_writing = False

    def _write_queue(self) -> bool:
        """Write the queue; False when that failed. The caller holds the lock."""
        while self._queue:
            group: list[tuple[SpoolLane, Row, bool]] = []
            while self._queue and len(group) < _GROUP:
                group.append(self._queue.popleft())
            try:
                self._write_group(group)
            except (sqlite3.Error, OSError, StoreError) as error:
                self._queue.extendleft(reversed(group))
                self._fail(error)
                return False
            except BaseException:
                self._queue.extendleft(reversed(group))
                raise
            for lane, row, spilled in group:
                row.entry = None
                if spilled:
                    lane.spilling -= 1
        self._queued_bytes = 0
        return True

    def _write_group(self, group: Sequence[tuple[SpoolLane, Row, bool]]) -> None:
        connection = self._connection or self._connected()
        data: list[tuple[int, bytes]] = []
        slots: set[_Slot] = set()
        size = 0
        for lane, row, spilled in group:
            entry = row.entry
            if entry is None:
                continue  # settled before it was written
            slot = (lane.backlog if spilled else lane.own) or self._leased(lane, spilled=spilled)
            if not row.id:
                slot.puts += 1
                row.id = slot.first + slot.puts
            if isinstance(entry, PlainUpdate):
                body = plain_frame(entry, row.id, lane.destination)
            else:
                body = frame(entry, row.id)
            data.append((row.id, body))
            size += len(body)
            slots.add(slot)
        if len(data) == 1:
            connection.execute(_INSERT, data[0])
        elif data:
            self._in_transaction(connection, lambda: connection.executemany(_INSERT, data))
        self._written_since += size
        if self._size + self._written_since > self.settings.quota_bytes:
            self._is_full = True
        for slot in slots:
            self._note(slot)

    def _leased(self, lane: SpoolLane, *, spilled: bool) -> _Slot:
        """Lease the slot for the first row of a lane."""
        slot = self.lease(lane.destination)
        lane.slots[slot.number] = slot
        if spilled:
            lane.backlog = slot
            lane.sources.append(slot)
        else:
            lane.own = slot
        return slot

    def _note(self, slot: _Slot) -> None:
        if self._owners is not None:
            self._owners.note(slot.number, slot.puts, slot.settled, slot.name)

    @staticmethod
    def _in_transaction(connection: sqlite3.Connection, work: Callable[[], object]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            work()
            connection.execute("COMMIT")
        except BaseException:
            # A full disk makes COMMIT fail too, and some errors roll back by themselves.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _fail(self, error: BaseException) -> None:
        """Keep everything in memory until the worker has found out more."""
        self._is_broken = True
        text = str(error).lower()
        self._is_damaged = self._is_damaged or "malformed" in text or "not a database" in text
        self._queued_bytes = sum(
            200 + weigh_fields(row.entry.fields) for _, row, _ in list(self._queue) if row.entry is not None
        )
        REPORTER.tell(
            "spool",
            f"{self.path}: {error}; updates wait in memory until it can be written again. "
            "Expected a writable disk with free space.",
        )

    # --- the workers ------------------------------------------------------------------------------------------------

    def doom(self, lane: SpoolLane, rows: Iterable[Row]) -> None:
        """Queue the erasure of rows."""
        for row in rows:
            self._doomed.append((lane, row))

    def bury(self, letter: DeadLetter) -> None:
        """Queue a dead letter."""
        if len(self._letters) < _MAX_DEAD:
            self._letters.append(letter)

    def tend(self) -> None:
        """Erase what is settled; once a second recover, measure, adopt. Any worker; never raises."""
        if self._is_closed:
            return
        while self._doomed or self._letters:
            with self._lock:
                if self._is_broken or self._is_writing or not self._guarded(self._erase_group):
                    break
        now = self._clock.monotonic_ns()
        if now < self._tend_at_ns:
            return
        with self._lock:
            if self._is_writing or self._is_closed:
                return
            self._tend_at_ns = now + _TEND_EVERY_NS
            if self._is_broken:
                self._recover()
            if not self._is_broken:
                self._guarded(self._measure)
                if now >= self._adopt_at_ns:
                    self._adopt_at_ns = now + _ADOPT_EVERY_NS
                    self._guarded(lambda: self._adopt(is_start=False))
        self._copy_log_back()
        self.sync()

    def _guarded(self, work: Callable[[], object]) -> bool:
        """Run *work* on the file; False when it failed. The caller holds the lock."""
        self._is_writing = True
        try:
            work()
            return True
        except (sqlite3.Error, OSError, StoreError) as error:
            self._fail(error)
            return False
        finally:
            self._is_writing = False

    def _erase_group(self) -> None:
        # What was put before is written before: a row that is to be erased is there, or never will be.
        if not self._is_full and not self._write_queue():
            return
        group: list[tuple[SpoolLane, Row]] = []
        while self._doomed and len(group) < _ERASE_GROUP:
            group.append(self._doomed.popleft())
        letters: list[DeadLetter] = []
        while self._letters and len(letters) < _ERASE_GROUP:
            letters.append(self._letters.popleft())
        try:
            self._erase(group, letters)
        except BaseException:
            self._doomed.extendleft(reversed(group))
            self._letters.extendleft(reversed(letters))
            raise

    def _erase(self, group: Sequence[tuple[SpoolLane, Row]], letters: Sequence[DeadLetter]) -> None:
        connection = self._connected()
        ids: list[tuple[int]] = []
        slots: dict[int, _Slot] = {}
        for lane, row in group:
            row.entry = None  # one that could not be written yet need not be any more
            slot = lane.slots.get(row.id >> _SEQUENCE_BITS)
            if row.id and slot is not None:
                ids.append((row.id,))
                slot.settled += 1
                slots[slot.number] = slot
        # Counted before it is done: after a crash in between a row is there that need not be, and no loss is claimed.
        for slot in slots.values():
            self._note(slot)
        if not ids and not letters:
            return

        def work() -> None:
            connection.executemany("DELETE FROM items WHERE id = ?", ids)
            for letter in letters:
                number = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM dead").fetchone()[0]
                connection.execute("INSERT INTO dead (id, body) VALUES (?, ?)", (number, frame(letter, number)))
            if letters:
                connection.execute("DELETE FROM dead WHERE id <= (SELECT max(id) FROM dead) - ?", (_MAX_DEAD,))

        try:
            self._in_transaction(connection, work)
        except BaseException:
            for (row_id,) in ids:
                slots[row_id >> _SEQUENCE_BITS].settled -= 1
            raise
        for slot in slots.values():
            self._release_if_empty(slot)

    def _release_if_empty(self, slot: _Slot) -> None:
        """Give back an adopted slot of which nothing is left, so that another process can use it."""
        if slot.is_read and slot.settled >= slot.puts and self._owners is not None:
            for lane in self._lanes.values():
                lane.slots.pop(slot.number, None)
            self._owners.give_back(slot.number)

    def _measure(self) -> None:
        connection = self._connected()
        if self._inode != _inode(self.path):
            # Set aside by another process, which has put what could be read into a new file.
            self._disconnect()
            connection = self._connected()
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        free = connection.execute("PRAGMA freelist_count").fetchone()[0]
        # The log is reused once it was copied back, so it counts for what is above that.
        self._size = (pages - free) * PAGE_BYTES + max(_size(f"{self.path}-wal") - _MAX_LOG_BYTES, 0)
        self._written_since = 0
        was_full, self._is_full = self._is_full, self._size > self.settings.quota_bytes
        if self._is_full and not was_full:
            REPORTER.tell(
                "spool_quota",
                f"{self.path}: {self._size} bytes, more than its quota of {self.settings.quota_bytes}; updates wait in "
                "memory. Raise quota_bytes, or see with `otel-metadata spool list` what waits.",
            )

    def _copy_log_back(self) -> None:
        """Copy a long log back into the file, on a connection of its own: callers go on writing meanwhile."""
        log_bytes = _size(f"{self.path}-wal")
        if log_bytes < _LOG_BYTES or self._is_broken or self._is_closed:
            return
        try:
            connection = sqlite3.connect(self.path, timeout=_BUSY_MILLIS / 1000, isolation_level=None)
            try:
                connection.execute(f"PRAGMA synchronous = {self._synchronous}")
                mode = "PASSIVE" if log_bytes < _MAX_LOG_BYTES else "TRUNCATE"
                connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
            finally:
                connection.close()
        except sqlite3.Error as error:
            REPORTER.tell("spool_log", f"{self.path}: {error}; its log could not be copied back, and grows.")

    @property
    def _synchronous(self) -> str:
        return "FULL" if self.settings.durability == "power" else "NORMAL"

    # --- adopting ---------------------------------------------------------------------------------------------------

    def _adopt(self, *, is_start: bool) -> None:
        """Lease the slots of dead processes that hold something for one of our destinations."""
        connection = self._connected()
        owners = self._owners
        if owners is None or not self._lanes:
            return
        names = {Owners.cut(name): lane for name, lane in self._lanes.items()}
        tallies = owners.read()
        present = set(_slots_with_rows(connection))
        for number in sorted(present | {slot for slot, tally in tallies.items() if tally.expected}):
            if any(number in lane.slots for lane in self._lanes.values()):
                continue
            if not 0 < number < MAX_SLOTS or not owners.take(number):
                continue
            tally = owners.read().get(number)
            name = tally.name if tally is not None else b""
            lane = names.get(name) if name else self._lane_of_rows(connection, number)
            if lane is None:
                owners.give_back(number)
            else:
                self._take_over(connection, lane, number, tally, is_start=is_start)

    def _lane_of_rows(self, connection: sqlite3.Connection, number: int) -> SpoolLane | None:
        """Return the lane of a slot whose tally is damaged, by its first sound row."""
        slot = _Slot(number, b"")
        for _, body in connection.execute(_SELECT, (slot.first, slot.last, 100)):
            data = read_frame(bytes(body)) if isinstance(body, bytes) else None
            if data is not None:
                return self._lanes.get(str(data.get("d")))
        return None

    def _take_over(
        self, connection: sqlite3.Connection, lane: SpoolLane, number: int, tally: Tally | None, *, is_start: bool
    ) -> None:
        """Read a leased slot from now on."""
        slot = _Slot(number, Owners.cut(lane.destination), adopted=True)
        slot.cursor = slot.first
        slot.expected = tally.expected if tally is not None else 0
        if is_start and slot.expected and _count(connection, slot) < slot.expected:
            self._salvage_into(connection, slot)
        highest = connection.execute(
            "SELECT max(id) FROM items WHERE id > ? AND id <= ?", (slot.first, slot.last)
        ).fetchone()[0]
        slot.puts = max(tally.puts if tally is not None else 0, (highest or slot.first) - slot.first)
        slot.settled = slot.puts - slot.expected
        lane.slots[number] = slot
        lane.sources.append(slot)

    def _salvage_into(self, connection: sqlite3.Connection, slot: _Slot) -> None:
        """Look for rows that SQLite does not show any more in the bytes of the file, and put them back."""
        # Its descriptor stays open: closing one takes SQLite's locks on the file away from this whole process.
        # https://www.sqlite.org/howtocorrupt.html, section 2.2.
        found = _read_bytes(self.path, keep_open=True)
        rows = [
            (row_id, _framed(data))
            for row_id, data in sorted(found.items())
            if slot.first < row_id <= slot.last and data.get("k") != "dead"
        ]
        if rows:
            sql = "INSERT OR IGNORE INTO items (id, body) VALUES (?, ?)"
            self._in_transaction(connection, lambda: connection.executemany(sql, rows))

    def lease(self, destination: str) -> _Slot:
        """Lease a slot for rows of our own: one that is empty, or a new one. The caller holds the lock.

        Raises:
            StoreError: There are too many.
        """
        connection = self._connected()
        owners = self._owners
        if owners is None:
            raise StoreError(f"{self.path}: the file of leases is not open; expected it beside the spool.")
        tallies = owners.read()
        used = set(_slots_with_rows(connection))
        highest = max([*tallies, *used], default=0)
        for number in range(1, MAX_SLOTS):
            tally = tallies.get(number)
            # A damaged tally: its slot is left alone for good.
            if number in used or (number <= highest and tally is None) or (tally is not None and tally.expected):
                continue
            if tally is not None and tally.puts >> (_SEQUENCE_BITS - 1):
                continue
            if owners.take(number):
                tally = owners.read().get(number)
                slot = _Slot(number, Owners.cut(destination), puts=tally.puts if tally else 0)
                # It may have been used and left since it was looked at; and a process that was killed after a write may
                # not have counted it.
                if (tally is not None and tally.expected) or _count(connection, slot):
                    owners.give_back(number)
                    continue
                slot.settled = slot.puts
                slot.cursor = slot.first + slot.puts
                self._note(slot)
                return slot
        raise StoreError(f"{self.path}: more than {MAX_SLOTS} processes; expected one spool for each host.")

    # --- reading back -----------------------------------------------------------------------------------------------

    def load(self, lane: SpoolLane, limit: int) -> list[Loaded]:
        """Read rows of *lane* that nobody has read yet, oldest first."""
        loaded: list[Loaded] = []
        with self._lock:
            if self._is_writing or self._is_closed:
                return loaded
            for slot in list(lane.sources):
                if len(loaded) < limit and not slot.is_read:
                    self._guarded(lambda slot=slot: self._read(lane, slot, limit - len(loaded), loaded))  # type: ignore[misc]
            backlog = lane.backlog
            if len(loaded) < limit and (backlog is None or backlog.cursor >= backlog.first + backlog.puts):
                self._take_unwritten(lane, limit, loaded)
        return loaded

    def _read(self, lane: SpoolLane, slot: _Slot, limit: int, loaded: list[Loaded]) -> None:
        connection = self._connected()
        upto = slot.last if slot.adopted else slot.first + slot.puts
        rows = connection.execute(_SELECT, (slot.cursor, upto, limit)).fetchall()
        for row_id, body in rows:
            loaded.append(_loaded(row_id, body, is_adopted=slot.adopted))
            slot.cursor = row_id
        slot.read += len(rows)
        if len(rows) < limit:
            slot.cursor = upto
            if slot.adopted:
                self._end_of(lane, slot)

    def _end_of(self, lane: SpoolLane, slot: _Slot) -> None:
        """Compare what was read of an adopted slot with what should have been there."""
        slot.is_read = True
        lane.sources.remove(slot)
        missing = slot.expected - slot.read
        # What was settled since is counted already; more than expected is what a killed process had not counted.
        slot.settled += missing
        if missing > 0:
            lane.missing += missing
            REPORTER.tell("spool_damaged", f"{self.path}: {missing} updates could not be read any more and are lost.")
        self._note(slot)
        self._release_if_empty(slot)

    def _take_unwritten(self, lane: SpoolLane, limit: int, loaded: list[Loaded]) -> None:
        """While nothing can be written, what was spilled waits in the queue: it is taken from there."""
        if not lane.spilling or not (self._is_broken or self._is_full):
            return
        for index, (owner, row, spilled) in enumerate(list(self._queue)):
            if len(loaded) >= limit:
                return
            entry = row.entry
            if owner is lane and spilled and entry is not None:
                self._queue[index] = (lane, row, False)
                lane.spilling -= 1
                loaded.append(Loaded(row, entry, is_adopted=False, updates=entry.updates))

    # --- the file ---------------------------------------------------------------------------------------------------

    def _check_place(self) -> None:
        if not is_supported():
            raise ConfigurationError(
                "configure(spool=)", self.path, "a system with POSIX file locks; leave the spool out here"
            )
        path = Path(self.path)
        if path.is_dir():
            raise ConfigurationError(
                "configure(spool=)", self.path, f"a path of a file, not of a directory, for example {path / 'spool.db'}"
            )
        directory = path.parent
        try:
            directory.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            pass
        except OSError as error:
            raise ConfigurationError(
                "configure(spool=)", self.path, f"a directory that can be made ({error.strerror})"
            ) from error
        if not directory.is_dir():
            raise ConfigurationError("configure(spool=)", self.path, f"{directory} to be a directory")
        mode = stat.S_IMODE(directory.stat().st_mode)
        if mode & 0o077:
            raise ConfigurationError(
                "configure(spool=)",
                self.path,
                f"a directory that only its owner may open: {directory} has mode {mode:04o}. "
                f"Give the spool a directory of its own, or run: chmod 700 {directory}",
            )

    def _connected(self) -> sqlite3.Connection:
        """Return the connection; the caller holds the lock.

        Raises:
            StoreFormatError: The file is not ours.
            sqlite3.Error: It cannot be opened now.
        """
        if self._connection is not None:
            return self._connection
        create_private_file(self.path)
        inode = _inode(self.path)
        if not _size(self.path) and _size(f"{self.path}-wal"):
            # SQLite deletes the log of an empty file, and with it what can still be read.
            raise sqlite3.DatabaseError("database disk image is malformed: empty, but with a log")
        connection = sqlite3.connect(
            self.path, timeout=_BUSY_MILLIS / 1000, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            prepare(connection, self.path, _LAYOUT)
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            # What was erased is not found again when the file has to be read without SQLite.
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("SELECT id FROM items LIMIT 1").fetchall()
        except StoreFormatError:
            connection.close()
            if self._is_ours_damaged():
                raise sqlite3.DatabaseError("database disk image is malformed") from None
            raise
        except sqlite3.DatabaseError as error:
            connection.close()
            if "not a database" in str(error) and not self._is_ours_damaged():
                raise StoreFormatError(
                    self.path, "not an SQLite database", f"{_LAYOUT.expected}, or no file"
                ) from error
            raise
        except BaseException:
            connection.close()
            raise
        self._leases()
        self._connection, self._inode = connection, inode
        return connection

    def _leases(self) -> Owners:
        if self._owners is None:
            self._owners = Owners.shared(owners_path(self.path))
        return self._owners

    def _is_ours_damaged(self) -> bool:
        """Whether a file that does not look like ours was: it holds frames of ours."""
        try:
            return bool(_read_bytes(self.path))
        except OSError:
            return False

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error as error:
                REPORTER.tell("spool", f"{self.path}: {error}")

    def _recover(self) -> None:
        """Try whether the file can be written again; set it aside when SQLite cannot read it."""
        self._disconnect()
        try:
            connection = self._connected()
            if self._is_damaged:
                answer = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
                if answer != "ok":
                    raise sqlite3.DatabaseError(f"malformed: {answer}")
            self._is_damaged = self._is_broken = False
        except StoreFormatError as error:
            self._fail(error)
        except sqlite3.DatabaseError as error:
            self._fail(error)
            if self._is_damaged:
                self._disconnect()
                self._set_aside()
        except (OSError, StoreError) as error:
            self._fail(error)

    def _set_aside(self) -> None:
        """Keep a damaged file under another name, and put what can be read of it into a new one."""
        try:
            owners = self._leases()
        except OSError as error:
            self._fail(error)
            return
        if not owners.take(0):
            return  # another process is at it
        try:
            found = _read_bytes(self.path)
            aside = f"{self.path}.damaged-{self._clock.wall_ns()}"
            for suffix in ("", "-wal"):
                if Path(self.path + suffix).exists():
                    os.rename(self.path + suffix, aside + suffix)
            Path(f"{self.path}-shm").unlink(missing_ok=True)
            connection = self._connected()

            def work() -> None:
                for row_id, data in sorted(found.items()):
                    table = "dead" if data.get("k") == "dead" else "items"
                    connection.execute(
                        f"INSERT OR IGNORE INTO {table} (id, body) VALUES (?, ?)",  # noqa: S608 # one of two names
                        (row_id, _framed(data)),
                    )

            self._in_transaction(connection, work)
            self._is_damaged = self._is_broken = False
            REPORTER.tell(
                "spool_set_aside",
                f"{self.path} was damaged; {len(found)} rows could be read and are in a new file. "
                f"The damaged one is kept as {aside}.",
            )
        except (sqlite3.Error, OSError, StoreError) as error:
            self._fail(error)
        finally:
            owners.give_back(0)

    # --- the end ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Write what can be written, give the leases back, close the file. Any thread; a second call does nothing."""
        with self._lock:
            if self._is_closed:
                return
            if not self._is_writing and self._connection is not None and not self._is_broken:
                self._guarded(self._write_queue)
                while (self._doomed or self._letters) and self._guarded(self._erase_group) and not self._is_broken:
                    pass
            self._is_closed = True
            self._disconnect()
            owners, self._owners = self._owners, None
            if owners is not None:
                for lane in self._lanes.values():
                    for slot in lane.slots.values():
                        owners.give_back(slot.number)
                owners.close()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give the connection to a program that looks at the spool: `late.dead_letters`.

        Raises:
            StoreError: It cannot be read.
        """
        with self._lock:
            try:
                yield self._connected()
            except sqlite3.Error as error:
                raise StoreError(f"{self.path}: {error}; expected a spool that can be read and written.") from error

    def hold_at_fork(self) -> bool:
        """Take the lock before a fork; False when it is not free in time."""
        return self._lock.acquire(timeout=0.5)

    def release_in_parent(self) -> None:
        """Give the lock back after a fork."""
        self._lock.release()

    def start_in_child(self) -> None:
        """Leave everything to the parent."""
        was_closed = self._is_closed
        if self._connection is not None:
            leave_to_the_parent(self._connection)
        self._start_afresh()
        self._is_closed = was_closed
        for lane in self._lanes.values():
            lane.start_in_child()

    def __repr__(self) -> str:
        """A status line."""
        state = "closed" if self._is_closed else "broken" if self._is_broken else "full" if self._is_full else "open"
        return f"<Spool {self.path} {state} bytes={self.bytes} unwritten={self.unwritten}>"


@final
class SpoolLane:
    """A destination's part of a spool: see `late.lane.Lane`."""

    is_durable = True

    def __init__(self, spool: Spool, destination: str) -> None:
        """Begin with nothing put, and nothing adopted."""
        self.spool = spool
        self.destination = destination
        self.start_in_child()

    def start_in_child(self) -> None:
        """Have no slot yet."""
        self.slots: dict[int, _Slot] = {}
        self.sources: list[_Slot] = []
        self.backlog: _Slot | None = None
        self.own: _Slot | None = None
        self.missing = 0
        # Rows that were spilled and are not written yet.
        self.spilling = 0

    @property
    def has_more(self) -> bool:
        """Whether rows wait that nobody has read: adopted, or spilled."""
        backlog = self.backlog
        return (
            self.spilling > 0
            or any(slot.adopted for slot in list(self.sources))
            or (backlog is not None and backlog.cursor < backlog.first + backlog.puts)
        )

    @property
    def unwritten(self) -> int:
        """How many rows wait in memory because they could not be written."""
        return self.spool.unwritten

    @property
    def bytes(self) -> int:
        """Size of the spool file."""
        return self.spool.bytes

    def put(self, entry: PlainUpdate | SpooledUpdate | SpooledSpan) -> Row | None:
        """Queue a row of something that is in memory as well."""
        if not self.spool.has_room():
            return None
        row = Row(entry)
        self.spool.enqueue(self, row, spilled=False)
        return row

    def spill(self, entry: SpooledUpdate) -> bool:
        """Queue a row of something that is not in memory."""
        if not self.spool.has_room():
            return False
        self.spilling += 1
        self.spool.enqueue(self, Row(entry), spilled=True)
        return True

    def settle(self, rows: Iterable[Row]) -> None:
        """Queue the erasure of rows."""
        self.spool.doom(self, rows)

    def bury(self, rows: Iterable[Row], letter: DeadLetter) -> None:
        """Queue the erasure of rows, and keep *letter* in their place."""
        self.spool.bury(letter)
        self.spool.doom(self, rows)

    def keeps(self, rows: Sequence[Row]) -> bool:
        """Whether all of *rows* are written."""
        return bool(rows) and all(row.is_written for row in rows)

    def sync(self) -> None:
        """Write what was put."""
        if self.spool._queue:
            self.spool.sync()

    def tend(self) -> None:
        """Erase, recover, measure, adopt."""
        self.spool.tend()

    def load(self, limit: int) -> Sequence[Loaded]:
        """Read rows that nobody has read yet."""
        return self.spool.load(self, limit)

    def lost(self) -> int:
        """Return how many rows of dead processes are gone."""
        missing, self.missing = self.missing, 0
        return missing


def _loaded(row_id: int, body: object, *, is_adopted: bool) -> Loaded:
    row = Row(None, row_id)
    data = read_frame(body) if isinstance(body, bytes) else None
    try:
        content = row_from_json(data) if data is not None and data.get("i") == row_id else None
    except Exception:  # noqa: BLE001 # whatever a damaged row makes of itself
        content = None
    return Loaded(row, content, is_adopted, content.updates if content is not None else 1)


def _framed(data: Mapping[str, Any]) -> bytes:
    return frame(row_from_json(data), int(data["i"]))


def _slots_with_rows(connection: sqlite3.Connection) -> Iterator[int]:
    """Yield each slot that has rows; one step of the index for each."""
    at = 0
    while True:
        found = connection.execute("SELECT id FROM items WHERE id > ? ORDER BY id LIMIT 1", (at,)).fetchone()
        if found is None:
            return
        slot = found[0] >> _SEQUENCE_BITS
        yield slot
        at = ((slot + 1) << _SEQUENCE_BITS) - 1


def _count(connection: sqlite3.Connection, slot: _Slot) -> int:
    sql = "SELECT count(*) FROM items WHERE id > ? AND id <= ?"
    return int(connection.execute(sql, (slot.first, slot.last)).fetchone()[0])


def _read_bytes(path: str, *, keep_open: bool = False) -> dict[int, Mapping[str, Any]]:
    """Return the sound frames in the bytes of a spool and its log."""
    with _mapped(path, keep_open=keep_open) as database, _mapped(f"{path}-wal", keep_open=False) as log:
        return dict(salvage(database, log))


_kept_open: Final[list[int]] = []


@contextmanager
def _mapped(path: str, *, keep_open: bool) -> Iterator[bytes]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield b""
        return
    try:
        if os.fstat(descriptor).st_size:
            # mmap duplicates a descriptor and closes the copy, so it is read whole where none may be closed.
            if keep_open:
                yield os.pread(descriptor, os.fstat(descriptor).st_size, 0)
            else:
                with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as mapped:
                    yield mapped  # type: ignore[misc] # sliced like bytes
        else:
            yield b""
    finally:
        if keep_open:
            _kept_open.append(descriptor)
        else:
            os.close(descriptor)


def _inode(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


_spools: Final[weakref.WeakSet[Spool]] = weakref.WeakSet()
_held_at_fork: Final[list[Spool]] = []


def _before_fork() -> None:
    _held_at_fork.extend(spool for spool in list(_spools) if spool.hold_at_fork())


def _after_fork_in_parent() -> None:
    while _held_at_fork:
        _held_at_fork.pop().release_in_parent()


def _after_fork_in_child() -> None:
    _held_at_fork.clear()
    for spool in list(_spools):
        spool.start_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
