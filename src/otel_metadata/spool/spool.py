"""The spool: the outboxes' updates and held spans in one SQLite file that several processes share.

Theory of operation. A row is a frame (`spool.frames`) under a number in a slot that this process leases
(`spool.slots`). A process has two slots for each destination: one for what is in memory as well, and one for what is on
disk only (*spilled*), which it reads back from the front. Slots of processes that died are *adopted*: leased, then read
from the front as well. The files are in `spool.file`, the leases with their tallies and journals in
`spool.leased_slots`, what a slot holds and what is missing there in `spool.read_back`; here is what is to be written,
erased and read, when, and what follows when that fails.

Writing. What is decided under the process's lock is queued here in order; no I/O there. `sync` writes the queue, on the
thread that put it, before its call returns: each row into the journal of its slot (`spool.journal`), from which the
workers move it to the database. Where there is no journal, or no room in it, rows are written into the database in one
transaction; threads that come together share one. A row leaves the queue, and gets its number, after it was written; so
whoever finds the queue empty knows that its row is on disk, and a write that was interrupted anywhere is done again
under the same numbers. Erasures, and everything that takes longer, are the workers' (`tend`); a row that is settled
before it was moved is erased where it is.

One re-entrant lock guards the file. Its holder calls no foreign code; log lines wait in `_pending_lines` until it is
given back, for a logging handler may update a span. But Python itself may run a finalizer or a signal handler on the
thread that holds it, and that may wait for the process's lock. So nobody waits for this lock for ever: a call that
finds its own thread in the middle of a write, or waits for too long, leaves its row in the queue, and the write in the
way takes it along (`sync` looks again once it has given the lock back).

Failure. When a write fails (disk full, read-only, damaged, locked for too long), rows stay in the queue, in memory and
bounded; callers do not try again, the worker does, once a second (`is_broken`). Beyond the quota the same (`is_full`),
but for erasures. A row that cannot be made into a frame is left to memory alone.

Promised: a row whose `sync` returned, and that is not `unwritten`, survives the process. With `durability="power"` it
survives the machine as well. Not promised: that it is sent once only; a row is erased after its outcome, so a crash in
between sends it again.

Fork: the lock is held across it, so that the child finds SQLite's own locks free; the child leaves the connection
alone, starts with an empty queue, and leases slots of its own at its first row.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, final

from otel_metadata.errors import ConfigurationError, StoreError, StoreFormatError
from otel_metadata.interrupts import pass_on
from otel_metadata.locks import ReentrantLock
from otel_metadata.model.weight import weigh_fields
from otel_metadata.reporting import REPORTER
from otel_metadata.seams import SystemClock
from otel_metadata.spool.file import TROUBLE, SpoolFile, check_place, is_busy, is_damage
from otel_metadata.spool.frames import PlainUpdate, frame, plain_frame
from otel_metadata.spool.leased_slots import LeasedSlots
from otel_metadata.spool.partition import Loaded, Row
from otel_metadata.spool.read_back import read_hidden, read_on, settle_missing
from otel_metadata.spool.slots import INSERT, MAX_ROWS, Slot
from otel_metadata.spool.spool_settings import SpoolSettings

if TYPE_CHECKING:
    from otel_metadata.model.dead_letter import DeadLetter
    from otel_metadata.seams import Clock
    from otel_metadata.spool.frames import SpooledSpan, SpooledUpdate

# Rows in one transaction: the caller who shares it waits for all of them.
_GROUP: Final = 128
_ERASE_GROUP: Final = 200

# A call of the application waits at most so long for another thread's write; then that one takes its row along.
_PATIENCE_SECONDS: Final = 1.0

_TEND_EVERY_NS: Final = 1_000_000_000
_ADOPT_EVERY_NS: Final = 5_000_000_000

# What may wait in memory while nothing can be written.
_MAX_QUEUED_BYTES: Final = 16 * 1024 * 1024
_MAX_QUEUED: Final = 20_000

_MAX_DEAD: Final = 10_000
_MAX_PENDING_LINES: Final = 256


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
        self._partitions: dict[str, SpoolPartition] = {}
        self._pending_lines: deque[tuple[str, str]] = deque(maxlen=_MAX_PENDING_LINES)
        self._file = SpoolFile(settings, self._clock, self._tell_later)
        self._start_afresh()
        check_place(settings)
        try:
            with self._alone():
                self._file.connected()
        except StoreFormatError as error:
            self.close()
            raise ConfigurationError("configure(spool=)", self.path, f"{error}") from error
        except TROUBLE as error:
            with self._alone():
                self._fail(error)
                if self._is_damaged:
                    self._recover()
        _spools.add(self)
        self._log_pending_lines()

    def _start_afresh(self) -> None:
        self._lock = ReentrantLock()
        self._slots = LeasedSlots(self._file, self.settings, self._tell_later)
        self._queue: deque[tuple[SpoolPartition, Row, bool]] = deque()
        self._queued_bytes = 0
        self._unweighed: deque[Row] = deque()
        self._doomed: deque[Row] = deque()
        self._letters: deque[DeadLetter] = deque()
        self._is_broken = False
        self._is_damaged = False
        self._is_full = False
        self._is_closed = False
        self._size = 0
        self._written_since = 0
        self._tend_at_ns = 0
        self._adopt_at_ns = 0

    @contextmanager
    def _alone(self, seconds: float = -1) -> Iterator[bool]:
        """Hold the lock; False where this thread holds it already, or it was not free in time."""
        lock = self._lock
        if lock.is_held_by_current_thread():
            yield False
            return
        try:
            yield lock.acquire(timeout=seconds)
        finally:
            _release(lock)

    @property
    def is_locked_by_current_thread(self) -> bool:
        """Whether the calling thread is in the middle of a call of the spool."""
        return self._lock.is_held_by_current_thread()

    def _tell_later(self, reason: str, text: str) -> None:
        """Note what is to be logged once the lock is given back."""
        self._pending_lines.append((reason, text))

    def _log_pending_lines(self) -> None:
        """Log what was noted; called without the lock, for a logging handler is the application's code."""
        lines = self._pending_lines
        while lines and not self.is_locked_by_current_thread:
            try:
                reason, text = lines.popleft()
            except IndexError:  # another thread has told it
                return
            REPORTER.tell(reason, text)

    # --- partitions -------------------------------------------------------------------------------------------------

    def partition(self, destination: str) -> SpoolPartition:
        """Return the part of one destination, and take over what dead processes have left for it."""
        partition = self._partitions.get(destination)
        if partition is None:
            with self._alone():
                partition = self._partitions.setdefault(destination, SpoolPartition(self, destination))
                if not self._is_broken and not self._is_closed:
                    self._guarded(self._adopt)
            self.sync()
            self._log_pending_lines()
        return partition

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
        if not self._is_stuck:
            return True
        return self._queued_bytes < _MAX_QUEUED_BYTES and len(self._queue) < _MAX_QUEUED

    @property
    def _is_stuck(self) -> bool:
        """Whether rows stay in the queue for now."""
        return self._is_broken or self._is_full or not self._file.is_patient

    def enqueue(self, partition: SpoolPartition, row: Row, *, spilled: bool) -> None:
        """Queue a row to be written; the caller holds the process's lock, so that the order is that of the updates."""
        self._queue.append((partition, row, spilled))
        if self._is_stuck:
            self._unweighed.append(row)

    def queued_spills(self, partition: SpoolPartition) -> int:
        """Return how many updates of *partition* wait in the queue and are in no other place."""
        if not self._queue:
            return 0
        entries = [row.entry for owner, row, spilled in list(self._queue) if spilled and owner is partition]
        return sum(entry.updates for entry in entries if entry is not None)

    # --- writing ----------------------------------------------------------------------------------------------------

    def sync(self) -> None:
        """Write what is queued. Any thread; returns at once while nothing can be written."""
        lock = self._lock
        while self._queue and not (self._is_broken or self._is_full or self._is_closed):
            if lock.is_held_by_current_thread():  # not _alone, which costs more
                return  # the write that was interrupted here takes the row along
            try:
                if not lock.acquire(timeout=_PATIENCE_SECONDS):
                    return  # so does this one
                if not self._is_closed and not self._write_queue():
                    break
            finally:
                try:  # _release(lock), without the price of a call
                    lock.release()
                except RuntimeError:
                    pass
        if self._unweighed:
            self._weigh_new()
        if self._pending_lines:
            self._log_pending_lines()

    def _write_queue(self) -> bool:
        """Write the queue; False when that failed. The caller holds the lock."""
        queue = self._queue
        try:
            while queue:
                size = len(queue)
                if size == 1 or self._goes_into_journal(*queue[0]):
                    self._write_one(*queue[0])
                    queue.popleft()
                    continue
                group = [queue[index] for index in range(min(size, _GROUP))]
                self._write_group(group)
                for _ in group:
                    queue.popleft()
        except TROUBLE as error:
            self._fail(error)
            return False
        self._queued_bytes = 0
        return True

    def _goes_into_journal(self, partition: SpoolPartition, row: Row, spilled: bool) -> bool:
        slot = partition.backlog if spilled else partition.own
        return slot is not None and slot.journal is not None and slot.journal.has_room

    def _write_one(self, partition: SpoolPartition, row: Row, spilled: bool) -> None:
        """Do what `_write_group` does, for the usual case: into the journal, where there is one with room."""
        if row.entry is None:
            return
        slot = self._slot_for(partition, spilled=spilled)
        number = slot.puts + 1
        row_id = slot.first + number
        body = _body(row, partition.destination, row_id)
        if isinstance(body, Exception):
            self._refuse(partition, row, body, spilled=spilled)
            return
        journal = slot.journal
        if journal is not None and journal.append(row_id, body):
            row.id = row_id
            slot.puts = number
            row.entry = None
            self._weigh(len(body))
            return
        connection = self._file.connection or self._file.connected()
        try:  # without the price of `when_free`, for nearly every call of the application
            connection.execute(INSERT, (row_id, body))
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
            self._file.when_free(lambda: connection.execute(INSERT, (row_id, body)))
        row.id = row_id
        slot.puts = number
        row.entry = None
        self._count(slot, len(body))

    def _write_group(self, group: Sequence[tuple[SpoolPartition, Row, bool]]) -> None:
        connection = self._file.connection or self._file.connected()
        rows: list[tuple[Row, Slot, int]] = []
        data: list[tuple[int, bytes]] = []
        sizes: dict[Slot, int] = {}
        puts: dict[Slot, int] = {}
        for partition, row, spilled in group:
            if row.entry is None:
                continue  # settled before it was written, or written before an interrupt
            slot = self._slot_for(partition, spilled=spilled)
            number = puts.get(slot, slot.puts) + 1
            body = _body(row, partition.destination, slot.first + number)
            if isinstance(body, Exception):
                self._refuse(partition, row, body, spilled=spilled)
                continue
            puts[slot] = number
            rows.append((row, slot, number))
            data.append((slot.first + number, body))
            sizes[slot] = sizes.get(slot, 0) + len(body)
        if data:
            self._file.in_transaction(connection, lambda: connection.executemany(INSERT, data))
        # No call in between: an interrupt comes before it or after it, and then the row is written again as it was.
        for row, slot, number in rows:
            row.id = slot.first + number
            slot.puts = number
            row.entry = None
        for slot, size in sizes.items():
            self._count(slot, size)

    def _slot_for(self, partition: SpoolPartition, *, spilled: bool) -> Slot:
        slot = partition.backlog if spilled else partition.own
        if slot is None or slot.puts > MAX_ROWS - _GROUP:
            slot = self._leased(partition, spilled=spilled)
        return slot

    def _count(self, slot: Slot, size: int) -> None:
        """Note what was written into the database."""
        self._weigh(size)
        try:
            self._slots.note(slot)
        except OSError as error:
            pass_on(error)
            # The rows are there; should they be lost, it is not known.
            self._tell_later("spool_tally", f"{self.path}: {error}; its rows are not counted.")

    def _weigh(self, size: int) -> None:
        self._written_since += size
        if self._size + self._written_since > self.settings.quota_bytes:
            self._is_full = True

    def _refuse(self, partition: SpoolPartition, row: Row, error: Exception, *, spilled: bool) -> None:
        """Leave a row that cannot be made into a frame to memory; one that is nowhere else is read back as damaged."""
        if spilled:
            partition.unreadable += 1
        row.entry = None  # last, so that it is in one of the two places at any moment
        self._tell_later("spool_frame", f"an update could not be spooled ({type(error).__name__}).")

    def _leased(self, partition: SpoolPartition, *, spilled: bool) -> Slot:
        """Lease the slot for the first row of a partition."""
        slot = self._slots.lease(partition.destination)
        if spilled:
            partition.backlog = slot
            partition.sources.append(slot)
        else:
            partition.own = slot
        return slot

    def _fail(self, error: BaseException) -> None:
        """Keep everything in memory until the worker has found out more; or, where another is writing, the next try."""
        pass_on(error)  # a time limit may be an OSError: TimeoutError
        self._weigh_queue()
        if is_busy(error):
            self._tell_later(
                "spool_busy",
                f"{self.path}: another process is writing all the time; updates wait in memory until then.",
            )
            return
        self._is_broken = True
        self._is_damaged = self._is_damaged or is_damage(error)
        self._tell_later(
            "spool",
            f"{self.path}: {error}; updates wait in memory until it can be written again. "
            "Expected a writable disk with free space.",
        )

    def _weigh_queue(self) -> None:
        self._unweighed.clear()
        self._queued_bytes = sum(_weigh_row(row) for _, row, _ in list(self._queue))

    def _weigh_new(self) -> None:
        """Weigh what was queued since: without the process's lock, because a container takes long to weigh."""
        while True:
            try:
                size = _weigh_row(self._unweighed.popleft())
            except IndexError:
                return
            self._queued_bytes += size

    # --- the workers ------------------------------------------------------------------------------------------------

    def doom(self, rows: Iterable[Row]) -> None:
        """Queue the erasure of rows."""
        self._doomed.extend(rows)

    def bury(self, letter: DeadLetter) -> None:
        """Queue a dead letter."""
        if len(self._letters) < _MAX_DEAD:
            self._letters.append(letter)

    def tend(self) -> None:
        """Erase what is settled; once a second recover, measure, adopt. Any worker; never raises."""
        while (self._doomed or self._letters) and not self._is_closed:
            with self._alone() as is_free:
                if not is_free or self._is_closed or self._is_broken or not self._guarded(self._erase_group):
                    break
        self._move_filling()
        now = self._clock.monotonic_ns()
        if now >= self._tend_at_ns and not self._is_closed:
            with self._alone() as is_free:
                if is_free and not self._is_closed:
                    self._tend_at_ns = now + _TEND_EVERY_NS
                    self._look_after(now)
            self._file.copy_log_back()
        self.sync()
        self._log_pending_lines()

    def _move_filling(self) -> None:
        """Move rows from filling journals to the database, a group at a time: callers come in between."""
        for slot, journal in self._slots.journals():
            while journal.is_filling and not (self._is_closed or self._is_stuck):
                with self._alone() as is_free:
                    if not is_free or not self._guarded(lambda slot=slot: self._slots.move(slot, _GROUP)):  # type: ignore[misc] # its default is the slot
                        return

    def _look_after(self, now: int) -> None:
        if self._is_broken:
            self._recover()
        if not self._is_broken:
            self._guarded(self._measure)
        if not self._is_broken and now >= self._adopt_at_ns:
            self._adopt_at_ns = now + _ADOPT_EVERY_NS
            self._guarded(self._adopt)
        if self._is_stuck:
            self._forget_settled()

    def _guarded(self, work: Callable[[], object]) -> bool:
        """Run *work* on the file; False when it failed. The caller holds the lock."""
        try:
            work()
            return True
        except TROUBLE as error:
            self._fail(error)
            return False

    def _recover(self) -> None:
        """Try whether the file can be written again; it is set aside when SQLite cannot read it."""
        try:
            if self._slots.are_unseen:
                self._lease_again()
            self._file.reopen(is_damaged=self._is_damaged)
            self._is_damaged = self._is_broken = False
        except TROUBLE as error:
            self._fail(error)

    def _erase_group(self) -> None:
        # What was put before is written before: a row that is to be erased is there, or never will be.
        if not self._is_full and not self._write_queue():
            return
        group = [self._doomed[index] for index in range(min(len(self._doomed), _ERASE_GROUP))]
        letters = [self._letters[index] for index in range(min(len(self._letters), _ERASE_GROUP))]
        self._erase(group, letters)
        for _ in group:
            self._doomed.popleft()
        for _ in letters:
            self._letters.popleft()

    def _erase(self, group: Sequence[Row], letters: Sequence[DeadLetter]) -> None:
        connection = self._file.connected()
        rows: dict[int, Row] = {}
        settled: dict[Slot, int] = {}
        for row in group:
            row.entry = None  # one that could not be written yet need not be any more
            slot = self._slots.of_row(row.id)
            if slot is not None and row.id not in rows:
                rows[row.id] = row
                settled[slot] = settled.get(slot, 0) + 1
        if not rows and not letters:
            return
        # Counted before it is done: after a crash in between a row is there that need not be, and no loss is claimed.
        for slot, number in settled.items():
            self._slots.note(slot, settling=number)
        if rows and self.settings.durability == "power":
            self._file.leases().sync()

        stored = [(row_id,) for row_id in rows if not self._slots.drop(row_id)]

        def work() -> None:
            connection.executemany("DELETE FROM items WHERE id = ?", stored)
            for letter in letters:
                number = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM dead").fetchone()[0]
                connection.execute("INSERT INTO dead (id, body) VALUES (?, ?)", (number, _letter_frame(letter, number)))
            if letters:
                connection.execute("DELETE FROM dead WHERE id <= (SELECT max(id) FROM dead) - ?", (_MAX_DEAD,))

        if stored or letters:
            self._file.in_transaction(connection, work)
        for row in rows.values():
            row.id = 0  # settled twice is settled once
        for slot, number in settled.items():
            slot.settled += number
            self._slots.give_back_if_empty(slot)

    def _forget_settled(self) -> None:
        """While nothing can be written, let what need not be written any more take no room."""
        waiting: deque[Row] = deque()
        for _ in range(len(self._doomed)):
            row = self._doomed.popleft()
            row.entry = None
            if row.id:
                waiting.append(row)
        self._doomed.extendleft(reversed(waiting))
        for _ in range(len(self._queue)):
            entry = self._queue.popleft()
            if entry[1].entry is not None:
                self._queue.append(entry)
        self._weigh_queue()

    def _measure(self) -> None:
        if self._file.is_replaced:
            self._slots.empty_journals()
            if self._slots.are_unseen:
                self._lease_again()
            self._file.follow(self._slots.numbers)
        self._slots.tend_journals()
        if self._slots.numbers:
            self._file.write_author()
        self._size = self._file.measured() + self._slots.journaled_bytes
        self._written_since = 0
        was_full, self._is_full = self._is_full, self._size > self.settings.quota_bytes
        if self._is_full and not was_full:
            self._weigh_queue()
            self._tell_later(
                "spool_quota",
                f"{self.path}: {self._size} bytes, more than its quota of {self.settings.quota_bytes}; updates "
                "wait in memory. Raise quota_bytes, or see with `otel-metadata spool list` what waits.",
            )

    def _lease_again(self) -> None:
        for lost in self._slots.lease_again():
            for partition in self._partitions.values():
                partition.forget(lost)

    def _adopt(self) -> None:
        """Take over what dead processes have left for our destinations, and learn the names of the authors."""
        for number, (destination, slot) in enumerate(self._slots.adopt(self._partitions)):
            if not number:
                self._file.read_authors()
            self._partitions[destination].sources.append(slot)

    # --- reading back -----------------------------------------------------------------------------------------------

    def load(self, partition: SpoolPartition, limit: int, max_bytes: int) -> list[Loaded]:
        """Read rows of *partition* that nobody has read yet, oldest first."""
        loaded: list[Loaded] = []
        with self._alone() as is_free:
            if not is_free or self._is_closed:
                return loaded
            for slot in list(partition.sources):
                room = max_bytes - sum(one.size for one in loaded)
                if len(loaded) < limit and room > 0 and not slot.is_drained and not self._is_damaged:
                    self._guarded(lambda slot=slot, room=room: self._read(partition, slot, limit, room, loaded))  # type: ignore[misc] # its defaults are the slot and the room
            if len(loaded) < limit and all(slot.adopted or slot.is_drained for slot in partition.sources):
                self._take_unwritten(partition, limit, loaded)
            while partition.unreadable and len(loaded) < limit:
                partition.unreadable -= 1
                loaded.append(Loaded(Row(None), None, is_adopted=False, updates=1))
        self.sync()
        self._log_pending_lines()
        return loaded

    def _read(self, partition: SpoolPartition, slot: Slot, limit: int, room: int, loaded: list[Loaded]) -> None:
        # Nothing has to be written for it: a full disk must not keep a healthy backend waiting.
        rows, is_end = read_on(self._file.connected(), slot, limit - len(loaded), room)
        loaded.extend(rows)
        if is_end and slot.adopted:
            loaded.extend(read_hidden(self._file, slot))
            self._end_of(partition, slot)
        elif is_end and slot is not partition.backlog:
            partition.sources.remove(slot)

    def _end_of(self, partition: SpoolPartition, slot: Slot) -> None:
        """Say what is missing of an adopted slot, and give it back as soon as nothing is left of it."""
        missing = settle_missing(slot)
        partition.sources.remove(slot)
        if missing:
            partition.missing += missing
            self._tell_later(
                "spool_damaged", f"{self.path}: {missing} updates could not be read any more and are lost."
            )
        self._slots.note(slot)
        self._slots.give_back_if_empty(slot)
        if slot.is_odd:
            # SQLite may not find such a row to erase it, so the file is looked at, and perhaps replaced.
            self._fail(sqlite3.DatabaseError("malformed: a row is not where its number says"))

    def _take_unwritten(self, partition: SpoolPartition, limit: int, loaded: list[Loaded]) -> None:
        """While nothing can be written, what was spilled waits in the queue: it is taken from there."""
        if not self._is_stuck:
            return
        for index, (owner, row, spilled) in enumerate(list(self._queue)):
            if len(loaded) >= limit:
                return
            entry = row.entry
            if owner is partition and spilled and entry is not None:
                self._queue[index] = (partition, row, False)
                loaded.append(Loaded(row, entry, is_adopted=False, updates=entry.updates))

    # --- the end ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Write what can be written, give the leases back, close the file. Any thread; a second call does nothing.

        A call from inside a write of the same thread (a signal handler) lets that one end first: it closes nothing, and
        the leases end with the process.
        """
        with self._alone() as is_free:
            if self._is_closed:
                return
            if not is_free:
                self._is_closed = True
                return
            if self._file.connection is not None and not self._is_broken:
                if not self._is_full:
                    self._write_queue()
                while (self._doomed or self._letters) and not self._is_broken and self._guarded(self._erase_group):
                    pass
                if not self._is_broken and self._guarded(self._slots.empty_journals):
                    self._slots.remove_journals()
            self._is_closed = True
            self._file.disconnect()
            self._slots.give_back_all()
            self._file.close()
        self._log_pending_lines()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give the connection to a program that looks at the spool: `spool.dead_letters`.

        Raises:
            StoreError: It cannot be read.
        """
        with self._alone():
            try:
                yield self._file.connected()
            except (sqlite3.Error, OSError) as error:
                raise StoreError(f"{self.path}: {error}; expected a spool that can be read and written.") from error

    def hold_at_fork(self) -> bool:
        """Take the locks before a fork; False when they are not free in time."""
        if not self._file.log_lock.acquire(timeout=0.5):
            return False
        if self._lock.acquire(timeout=0.5):
            return True
        self._file.log_lock.release()
        return False

    def release_in_parent(self) -> None:
        """Give the locks back after a fork."""
        self._lock.release()
        self._file.log_lock.release()

    def start_in_child(self) -> None:
        """Leave everything to the parent."""
        was_closed = self._is_closed
        self._file.leave_to_the_parent()
        self._pending_lines.clear()
        self._start_afresh()
        self._is_closed = was_closed
        for partition in self._partitions.values():
            partition.start_in_child()

    def __repr__(self) -> str:
        """A status line."""
        state = "closed" if self._is_closed else "broken" if self._is_broken else "full" if self._is_full else "open"
        return f"<Spool {self.path} {state} bytes={self.bytes} unwritten={self.unwritten}>"


@final
class SpoolPartition:
    """A destination's part of a spool: see `spool.partition.Partition`."""

    is_durable = True

    def __init__(self, spool: Spool, destination: str) -> None:
        """Begin with nothing put, and nothing adopted."""
        self.spool = spool
        self.destination = destination
        self.start_in_child()

    def start_in_child(self) -> None:
        """Have no slot yet."""
        # Slots that are read back: adopted ones, and those with what was spilled.
        self.sources: list[Slot] = []
        self.backlog: Slot | None = None
        self.own: Slot | None = None
        # Rows of dead processes that are gone, and rows that were spilled and could not be written as they are.
        self.missing = 0
        self.unreadable = 0

    def forget(self, slot: Slot) -> None:
        """Neither write into *slot* nor read it any more, if it was ours: another process has leased it."""
        if slot in self.sources:
            self.sources.remove(slot)
        self.own = None if self.own is slot else self.own
        self.backlog = None if self.backlog is slot else self.backlog

    @property
    def has_more(self) -> bool:
        """Whether rows wait that nobody has read: adopted, or spilled."""
        # The queue first: another thread may write a row while we look, and then it has come to one of the others.
        return (
            self.spool.queued_spills(self) > 0
            or self.unreadable > 0
            or any(not slot.is_drained for slot in list(self.sources))
        )

    @property
    def unwritten(self) -> int:
        """How many rows wait in memory because they could not be written."""
        return self.spool.unwritten

    @property
    def unkept(self) -> int:
        """How many spilled updates would be lost with the process: they are not written."""
        return self.spool.queued_spills(self) + self.unreadable

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

    def spill(self, entry: PlainUpdate | SpooledUpdate) -> bool:
        """Queue a row of something that is not in memory."""
        if not self.spool.has_room():
            return False
        self.spool.enqueue(self, Row(entry), spilled=True)
        return True

    def settle(self, rows: Iterable[Row]) -> None:
        """Queue the erasure of rows."""
        self.spool.doom(rows)

    def bury(self, rows: Iterable[Row], letter: DeadLetter) -> None:
        """Queue the erasure of rows, and keep *letter* in their place."""
        self.spool.bury(letter)
        self.spool.doom(rows)

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

    def load(self, limit: int, max_bytes: int) -> Sequence[Loaded]:
        """Read rows that nobody has read yet."""
        return self.spool.load(self, limit, max_bytes)

    def lost(self) -> int:
        """Return how many rows of dead processes are gone."""
        missing, self.missing = self.missing, 0
        return missing


def _release(lock: ReentrantLock) -> None:
    """Give the lock back if this thread has it; it did not have it before.

    Neither remembered nor asked: an interrupt may come between taking the lock and remembering it, and after the
    question; it comes at a call, and here the first call gives the lock back.
    """
    try:
        lock.release()
    except RuntimeError:  # it was not free in time
        pass


def _body(row: Row, destination: str, row_id: int) -> bytes | Exception:
    """Return the frame of a row, or why it cannot be made."""
    entry = row.entry
    try:
        if isinstance(entry, PlainUpdate):
            return plain_frame(entry, row_id, destination)
        assert entry is not None  # noqa: S101 # asked before; for the type checker
        return frame(entry, row_id)
    except Exception as error:  # noqa: BLE001 # whatever is in it must not keep the others from being written
        pass_on(error)
        return error


def _weigh_row(row: Row) -> int:
    """Return the bytes of a row that is not written yet."""
    entry = row.entry
    return 200 + weigh_fields(entry.fields) if entry is not None else 0


def _letter_frame(letter: DeadLetter, number: int) -> bytes:
    return frame(letter, number)


_spools: Final[weakref.WeakSet[Spool]] = weakref.WeakSet()
# By thread: two may fork at once.
_held_at_fork: Final[dict[int, list[Spool]]] = {}


def _before_fork() -> None:
    _held_at_fork[threading.get_ident()] = [spool for spool in list(_spools) if spool.hold_at_fork()]


def _after_fork_in_parent() -> None:
    for spool in _held_at_fork.pop(threading.get_ident(), ()):
        spool.release_in_parent()


def _after_fork_in_child() -> None:
    _held_at_fork.clear()
    for spool in list(_spools):
        spool.start_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
