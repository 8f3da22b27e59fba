"""The slots that this process leases: taken, counted, given a journal, given back.

Theory of operation. What a slot is, and when it is free, leased or left, is in `spool.slots`; here are those that are
leased, by number, with what belongs to a lease: the lock of its byte, its tally (`spool.owners`), its journal.

For rows of our own a slot is leased that is empty, or new (`lease`). It gets a journal where there can be one: what
`spool.spool` writes into it is moved to the database in groups, oldest first (`move`). Slots that dead processes have
left are *adopted*: leased for one of our destinations, and read back by `spool.read_back`. Either way what stands in
the journal of a slot is put into the database first, before anything else is asked of it.

A tally says how many rows there should be. It is written (`note`) after rows were, and before they are erased, so a
death in between never claims a loss that was none.

Every method is called by the holder of the spool's lock, but `journals`. Each may raise what `spool_file.TROUBLE`
names; then it is tried again later, and what was done until then stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final, final

from otel_metadata.errors import StoreError
from otel_metadata.spool.frames import read_frame
from otel_metadata.spool.journal import Journal, journal_numbers
from otel_metadata.spool.owners import MAX_SLOTS, Owners, Tally
from otel_metadata.spool.slots import (
    INSERT,
    MAX_ROWS,
    Slot,
    bounds,
    count,
    highest,
    rows_between,
    slot_of,
    slots_with_rows,
)

if TYPE_CHECKING:
    import sqlite3

    from otel_metadata.spool.file import SpoolFile
    from otel_metadata.spool.spool_settings import SpoolSettings

# A slot of which so much was used is not leased again.
_MANY_ROWS: Final = (MAX_ROWS + 1) // 2

_NO_TALLY: Final = Tally(0, 0, b"")

# Rows of a slot whose tally is damaged are asked whose they are; the first sound one answers.
_MAX_ASKED: Final = 100


@final
class LeasedSlots:
    """The slots of one spool that one process leases: see the module's theory of operation."""

    def __init__(self, file: SpoolFile, settings: SpoolSettings, tell: Callable[[str, str], None]) -> None:
        """Lease nothing yet.

        Args:
            file: The files.
            settings: Where, and whether there may be journals.
            tell: Called with a reason and a sentence for the log.
        """
        self._file = file
        self._settings = settings
        self._tell = tell
        self._slots: dict[int, Slot] = {}

    def of_row(self, row_id: int) -> Slot | None:
        """Return the slot of a row; None where this process does not lease it, or the row has no number yet."""
        return self._slots.get(slot_of(row_id))

    @property
    def numbers(self) -> list[int]:
        """Which they are, in order."""
        return sorted(self._slots)

    # --- leases -----------------------------------------------------------------------------------------------------

    def lease(self, destination: str) -> Slot:
        """Lease a slot for rows of our own.

        Raises:
            StoreError: There are too many.
            Exception: One of `TROUBLE`; then none is leased.
        """
        connection, owners = self._file.connected(), self._file.leases()
        tallies = owners.read()
        used = set(slots_with_rows(connection))
        most = max([*tallies, *used], default=0)
        for number in range(1, MAX_SLOTS):
            tally = tallies.get(number)
            # A damaged tally: its slot is left alone until its rows were sent.
            if number in used or (number <= most and tally is None) or (tally is not None and tally.expected):
                continue
            if (tally is not None and tally.puts >= _MANY_ROWS) or not owners.take(number):
                continue
            try:
                # It may have been used and left since it was looked at; and a process that was killed after a write may
                # not have counted it.
                self._file.take_in(number)
                tally = owners.read().get(number, _NO_TALLY)
                if tally.expected or count(connection, number):
                    continue
                slot = Slot(number, Owners.cut(destination), puts=tally.puts, settled=tally.puts)
                self.note(slot)
                self._slots[number] = slot
            finally:
                self._give_back_unless_ours(number)
            self._give_journal(slot)
            self._file.write_author()
            return slot
        raise StoreError(f"{owners.path}: more than {MAX_SLOTS} processes; expected one spool for each host.")

    def adopt(self, destinations: Iterable[str]) -> Iterator[tuple[str, Slot]]:
        """Lease the slots of dead processes that hold something for one of *destinations*; yield it with each."""
        connection, owners = self._file.connected(), self._file.leases()
        names = {Owners.cut(destination): destination for destination in destinations}
        if not names:
            return
        expecting = {number for number, tally in owners.read().items() if tally.expected}
        for number in sorted(expecting | set(slots_with_rows(connection)) | journal_numbers(self._file.path)):
            if number in self._slots or not 0 < number < MAX_SLOTS or not owners.take(number):
                continue
            try:
                self._file.take_in(number)
                tally = owners.read().get(number, _NO_TALLY)
                destination = names.get(tally.name or _name_in_rows(connection, number))
                if destination is None:
                    continue
                puts = max(tally.puts, highest(connection, number))
                slot = Slot(
                    number,
                    Owners.cut(destination),
                    puts=puts,
                    settled=puts - tally.expected,
                    expected=tally.expected,
                    adopted=True,
                )
                slot.cursor = slot.first
                self._slots[number] = slot
            finally:
                self._give_back_unless_ours(number)
            yield destination, slot

    @property
    def are_unseen(self) -> bool:
        """Whether others do not see our leases: the file of them was removed, and perhaps no new one could be made."""
        owners = self._file.owners
        return owners.is_replaced if owners is not None else bool(self._slots)

    def lease_again(self) -> Iterator[Slot]:
        """Lease them in a new file: somebody has removed the old one, and with it what others see of our leases.

        Slots that another process has leased there meanwhile are its own; yield each of those.
        """
        old, self._file.owners = self._file.owners, None
        if old is not None:
            old.abandon()
        owners = self._file.leases()
        # All of them before the first tally: when that cannot be written, nobody else may have the others.
        for slot in [slot for slot in self._slots.values() if not owners.take(slot.number)]:
            del self._slots[slot.number]
            yield slot
        for slot in self._slots.values():
            self.note(slot)

    def note(self, slot: Slot, *, settling: int = 0) -> None:
        """Write the tally of a slot, as it is when *settling* more of its rows are settled."""
        owners = self._file.owners
        if owners is not None:
            owners.note(slot.number, slot.puts, slot.settled + settling, slot.name)

    def give_back_if_empty(self, slot: Slot) -> None:
        """Give back an adopted slot of which nothing is left, so that another process can use it."""
        if slot.is_read and slot.settled >= slot.puts:
            # What could not be read, or was shown twice.
            self._file.connected().execute("DELETE FROM items WHERE id > ? AND id <= ?", bounds(slot.number))
            self._slots.pop(slot.number, None)
            self._file.leases().give_back(slot.number)

    def give_back_all(self) -> None:
        """End all leases."""
        owners = self._file.owners
        if owners is not None:
            for number in self._slots:
                owners.give_back(number)

    def _give_back_unless_ours(self, number: int) -> None:
        # Also after a failure: what a dead process has left there would wait until this one ends.
        if number not in self._slots:
            self._file.leases().give_back(number)

    # --- journals ---------------------------------------------------------------------------------------------------

    def journals(self) -> list[tuple[Slot, Journal]]:
        """Return those that have a journal, with it. Any thread."""
        return [(slot, slot.journal) for slot in list(self._slots.values()) if slot.journal is not None]

    @property
    def journaled_bytes(self) -> int:
        """Size of the rows that are in journals and nowhere else."""
        return sum(journal.bytes for _, journal in self.journals())

    def _give_journal(self, slot: Slot) -> None:
        """Let rows of a slot be written into a journal, where there can be one."""
        slot.journal = None
        if self._settings.durability == "power":
            return  # a journal is not written to the disk before the call returns
        try:
            slot.journal = Journal(self._file.path, slot.number)
        except OSError as error:
            self._tell("spool_journal", f"{self._file.path}: no journal ({error}); each update is a transaction.")

    def move(self, slot: Slot, limit: int | None = None) -> None:
        """Move the oldest rows of its journal to the database, where it has one; all of them without a *limit*."""
        journal = slot.journal
        rows = journal.oldest(limit) if journal is not None else []
        if journal is None or not rows:
            return
        connection = self._file.connected()
        self._file.in_transaction(connection, lambda: connection.executemany(INSERT, rows))
        journal.moved(rows)
        self.note(slot)

    def drop(self, row_id: int) -> bool:
        """Erase a row that is in a journal; False when it is in none."""
        slot = self.of_row(row_id)
        return slot is not None and slot.journal is not None and slot.journal.drop(row_id)

    def tend_journals(self) -> None:
        """Make the journals that could not be made, and those that somebody has removed; count what is in them."""
        for slot in self._slots.values():
            if not slot.adopted and (slot.journal is None or slot.journal.is_replaced):
                self.move(slot)
                self._give_journal(slot)
        for slot, _ in self.journals():
            # A journal says by itself how many rows it had; this is for when it is gone as a whole.
            self.note(slot)

    def empty_journals(self) -> None:
        """Move all rows to the database."""
        for slot, _ in self.journals():
            self.move(slot)

    def remove_journals(self) -> None:
        """Remove the journals, which are empty; nothing is written any more."""
        for _, journal in self.journals():
            journal.remove()


def _name_in_rows(connection: sqlite3.Connection, number: int) -> bytes:
    """Return the name of the destination of a slot whose tally is damaged, by its first sound row; empty for none."""
    for _, body in rows_between(connection, *bounds(number), _MAX_ASKED):
        data = read_frame(body) if isinstance(body, bytes) else None
        if data is not None:
            return Owners.cut(str(data.get("d")))
    return b""
