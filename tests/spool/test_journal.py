"""The journal of a slot: what stands in it survives the process, what is damaged is counted, and where none can be made
each update is a transaction."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.delivery.processes import in_child
from tests.spool import damage

import otel_metadata as om
from otel_metadata.spool import journal as journal_module
from otel_metadata.spool.dead_letters import waiting
from otel_metadata.spool.frames import SpooledUpdate, frame
from otel_metadata.spool.journal import Journal, journal_numbers, read_journal
from otel_metadata.spool.spool import Spool, SpoolSettings
from otel_metadata.testing import ManualClock

SLOT = 1
FIRST = SLOT << 32


def row(number: int, text: str = "v", destination: str = "memory") -> SpooledUpdate:
    fields = {("span", "metadata", "k"): (text, (number, 1))}
    return SpooledUpdate(0, destination, om.SpanRef(7, number), fields, 1, number)


def framed(number: int, text: str = "v") -> bytes:
    return frame(row(number, text), FIRST + number)


@pytest.fixture
def path(tmp_path):
    folder = tmp_path / "spool"
    folder.mkdir(mode=0o700)
    return str(folder / "spool.db")


@pytest.fixture
def open_spool(path):
    """Open the spool, as often as it is asked for; all are closed at the end."""
    opened = []

    def make(where: str = path, **changed) -> Spool:
        opened.append(Spool(SpoolSettings(where, **changed), clock=ManualClock()))
        return opened[-1]

    yield make
    for spool in opened:
        spool.close()


def put(spool: Spool, *numbers: int, destination: str = "memory"):
    rows = [spool.partition(destination).put(row(number, destination=destination)) for number in numbers]
    spool.sync()
    return rows


def as_killed(spool: Spool, folder: Path) -> str:
    """Return the path of a copy of the files as they are: what a SIGKILL leaves behind."""
    shutil.copytree(Path(spool.path).parent, folder)
    folder.chmod(0o700)
    return str(folder / Path(spool.path).name)


def numbers(spool: Spool, destination: str = "memory") -> list[int]:
    return [one.content.target.span_id for one in spool.partition(destination).load(10_000, 1 << 30)]


def statements(spool: Spool) -> list[str]:
    """Return a list that gets every statement that SQLite runs from now on."""
    ran: list[str] = []
    spool._file.connected().set_trace_callback(ran.append)
    return ran


def left(path: str) -> list[int]:
    found = read_journal(path, SLOT)
    assert found is not None
    return [row_id - FIRST for row_id, _ in found.rows]


class TestTheFile:
    def test_what_was_appended_is_read_in_order(self, path):
        """Rows and how many were ever put are in the file at once; it is private."""
        journal = Journal(path, SLOT)
        for number in (1, 2, 5):
            assert journal.append(FIRST + number, framed(number))

        assert read_journal(path, SLOT) == ([(FIRST + number, framed(number)) for number in (1, 2, 5)], 5)
        assert Path(journal.path).stat().st_mode & 0o777 == 0o600
        assert journal_numbers(path) == {SLOT}

    def test_what_was_moved_or_dropped_is_not_read(self, path):
        """Of either the room is used again, and older frames that still stand behind newer ones are not seen."""
        journal = Journal(path, SLOT)
        for number in range(1, 9):
            journal.append(FIRST + number, framed(number, "long" * 20))
        journal.moved(journal.oldest(5))
        assert journal.drop(FIRST + 7)
        assert not journal.drop(FIRST + 7)
        assert left(path) == [6, 8]

        journal.moved(journal.oldest(5))
        journal.append(FIRST + 9, framed(9))

        assert (left(path), len(journal), journal.bytes) == ([9], 1, len(framed(9)))

    @given(steps=st.lists(st.tuples(st.sampled_from(["append", "move", "drop"]), st.integers(0, 9)), max_size=40))
    def test_it_holds_what_a_list_would(self, tmp_path_factory, steps):
        """Any rows appended, moved and dropped, in little room: the file has those that are left, as they were."""
        path = str(tmp_path_factory.mktemp("journal") / "spool.db")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(journal_module, "JOURNAL_BYTES", 1_000)
            journal = Journal(path, SLOT)
            expected: dict[int, bytes] = {}
            for at, (step, size) in enumerate(steps, start=1):
                if step == "append":
                    if journal.append(FIRST + at, framed(at, "x" * 20 * size)):
                        expected[FIRST + at] = framed(at, "x" * 20 * size)
                elif step == "move" and expected:
                    rows = journal.oldest(size + 1)
                    assert rows == list(expected.items())[: size + 1]
                    journal.moved(rows)
                    expected = dict(list(expected.items())[size + 1 :])
                elif step == "drop" and size < len(expected):
                    row_id = list(expected)[size]
                    del expected[row_id]
                    assert journal.drop(row_id)

            found = read_journal(path, SLOT)

        assert found is not None
        assert dict(found.rows) == expected
        assert journal.bytes == sum(map(len, expected.values()))

    def test_a_row_that_broke_off_is_neither_read_nor_missed(self, path):
        """A process that dies while it copies a row had not returned from that call."""
        journal = Journal(path, SLOT)
        journal.append(FIRST + 1, framed(1))
        end = 16 + len(framed(1))

        for length in range(len(framed(2))):
            journal._map[end : end + length] = framed(2)[:length]
            assert read_journal(path, SLOT) == ([(FIRST + 1, framed(1))], 1)

    def test_a_row_that_is_written_again_is_there_once(self, path):
        """An interrupt between writing a row and noting it: it is written again under its number."""
        journal = Journal(path, SLOT)
        for _ in range(2):
            assert journal.append(FIRST + 1, framed(1))
        journal.append(FIRST + 2, framed(2))
        journal.drop(FIRST + 1)

        assert left(path) == [2]

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG, errno.EOPNOTSUPP])
    def test_one_that_cannot_be_allocated_is_not_there(self, path, monkeypatch, code):
        """A full disk is an error here, never a signal later; no file is left behind."""

        def full(*_):
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "posix_fallocate", full)
        with pytest.raises(OSError, match=os.strerror(code)):
            Journal(path, SLOT)
        assert journal_numbers(path) == set()

    def test_a_system_that_cannot_allocate_has_none(self, path, monkeypatch):
        """Without `posix_fallocate` nothing says that there is room."""
        monkeypatch.delattr(os, "posix_fallocate")
        with pytest.raises(OSError, match="posix_fallocate"):
            Journal(path, SLOT)

    def test_another_ones_file_is_left_alone(self, path):
        """A journal that somebody has replaced is not ours to remove."""
        journal = Journal(path, SLOT)
        os.rename(journal.path, f"{journal.path}.aside")
        assert journal.is_replaced
        other = Journal(path, SLOT)
        journal.remove()
        assert journal_numbers(path) == {SLOT}
        other.remove()
        assert journal_numbers(path) == set()


class TestTheSpool:
    def test_an_update_is_no_transaction(self, open_spool):
        """Neither writing a row nor erasing one that was not moved is a statement of SQLite."""
        spool = open_spool()
        put(spool, 1)
        ran = statements(spool)

        rows = put(spool, 2, 3)
        spool.partition("memory").settle(rows)
        while spool._doomed:
            spool._erase_group()

        assert ran == []
        assert left(spool.path) == [1]

    def test_a_killed_process_leaves_its_rows(self, open_spool, tmp_path):
        """Those that were moved and those that were not are taken over in order, each once, and nothing is missed."""
        spool = open_spool()
        rows = put(spool, *range(1, 7))
        spool._slots.move(spool.partition("memory").own, 3)
        spool.partition("memory").settle([rows[1], rows[4]])
        spool.tend()

        heir = open_spool(as_killed(spool, tmp_path / "killed"))

        assert numbers(heir) == [1, 3, 4, 6]
        assert heir.partition("memory").lost() == 0
        assert {number for number in journal_numbers(heir.path) if read_journal(heir.path, number).rows} == set()

    def test_a_row_that_is_moved_and_still_in_the_journal_is_taken_over_once(self, open_spool, tmp_path):
        """A death between the transaction and the note that it is done."""
        spool = open_spool()
        put(spool, 1, 2)
        spool.partition("memory").own.journal.moved = lambda _: None
        spool._slots.move(spool.partition("memory").own)

        heir = open_spool(as_killed(spool, tmp_path / "killed"))

        assert (numbers(heir), heir.partition("memory").lost()) == ([1, 2], 0)
        del spool.partition("memory").own.journal.moved

    def test_the_heir_need_not_have_the_destination(self, open_spool, tmp_path):
        """A process with another destination puts what it finds into the database, for whoever has it."""
        spool = open_spool()
        put(spool, 1, 2)
        killed = as_killed(spool, tmp_path / "killed")

        other = open_spool(killed)
        put(other, 9, destination="other")
        assert read_journal(killed, SLOT) is None
        other.close()

        heir = open_spool(killed)
        assert (numbers(heir), heir.partition("memory").lost()) == ([1, 2], 0)

    def test_a_full_journal_costs_a_transaction(self, open_spool, tmp_path, monkeypatch):
        """What finds no room is written into the database at once; the order is that of the numbers, here and there."""
        monkeypatch.setattr(journal_module, "JOURNAL_BYTES", 6_000)
        spool = open_spool()
        rows = [one for number in range(1, 31) for one in put(spool, number)]
        rows += put(spool, *range(31, 61))

        assert all(one.is_written for one in rows)
        assert 0 < len(left(spool.path)) < 60
        heir = open_spool(as_killed(spool, tmp_path / "killed"))
        assert (numbers(heir), heir.partition("memory").lost()) == (list(range(1, 61)), 0)

    def test_what_was_spilled_is_read_back_from_the_journal(self, open_spool):
        """Rows that are on disk only come back in order, whether they were moved or not."""
        spool = open_spool()
        partition = spool.partition("memory")
        for number in range(1, 6):
            partition.spill(row(number))
            spool.sync()

        assert numbers(spool) == [1, 2, 3, 4, 5]
        assert not partition.has_more

    def test_a_filling_journal_is_moved_by_the_worker(self, open_spool, monkeypatch):
        """Before it is full the rows are in the database, and the room is used again."""
        monkeypatch.setattr(journal_module, "_FILLING_BYTES", 300)
        spool = open_spool()
        put(spool, *range(1, 10))
        spool.tend()

        assert left(spool.path) == []
        assert [(one.destination, one.updates) for one in waiting(spool)] == [("memory", 9)]

    def test_a_look_at_the_spool_shows_what_is_in_journals(self, open_spool):
        """Rows of a living process are counted once, wherever they are."""
        spool = open_spool()
        put(spool, 1, 2, 3)
        spool._slots.move(spool.partition("memory").own, 2)
        put(spool, 4)

        assert [(one.destination, one.updates, one.oldest_ns) for one in waiting(open_spool())] == [("memory", 4, 1)]

    def test_a_child_does_not_write_into_the_journal_of_its_parent(self, open_spool):
        """What a forked child updates is in a journal of its own."""
        spool = open_spool()
        put(spool, 1)
        before = Path(f"{spool.path}-journal-{SLOT}").read_bytes()

        def child():
            put(spool, 2)
            return [sorted(journal_numbers(spool.path)), [one.updates for one in waiting(spool)]]

        assert in_child(child) == [[SLOT, SLOT + 1], [2]]
        assert Path(f"{spool.path}-journal-{SLOT}").read_bytes() == before
        put(spool, 3)
        assert left(spool.path) == [1, 2]

    def test_closing_leaves_no_journal(self, open_spool):
        """A process that ends properly leaves its rows in the database."""
        spool = open_spool()
        put(spool, 1, 2)
        spool.close()

        assert journal_numbers(spool.path) == set()
        assert numbers(open_spool()) == [1, 2]

    def test_power_needs_each_row_on_the_disk(self, open_spool):
        """What must survive the machine is a transaction with `fsync`."""
        spool = open_spool(durability="power")
        put(spool, 1)

        assert journal_numbers(spool.path) == set()
        assert numbers(open_spool(), "other") == []

    def test_without_a_journal_each_row_is_a_transaction(self, open_spool, path, tmp_path):
        """What has its name and is no journal is left alone; when it is gone, one is made."""
        Path(f"{path}-journal-{SLOT}").mkdir()
        spool = open_spool()
        rows = put(spool, 1, 2)
        assert all(one.is_written for one in rows)
        killed = as_killed(spool, tmp_path / "killed")

        Path(f"{path}-journal-{SLOT}").rmdir()
        spool._clock.advance(2_000)
        spool.tend()
        put(spool, 3)

        assert left(path) == [3]
        assert numbers(open_spool(killed)) == [1, 2]

    def test_a_journal_that_somebody_has_removed_is_made_anew(self, open_spool, path, tmp_path):
        """Its rows are in the mapping still, and go into the database."""
        spool = open_spool()
        put(spool, 1, 2)
        Path(f"{path}-journal-{SLOT}").unlink()
        spool._clock.advance(2_000)
        spool.tend()
        put(spool, 3)

        assert left(path) == [3]
        assert numbers(open_spool(as_killed(spool, tmp_path / "killed"))) == [1, 2, 3]

    def test_the_quota_counts_what_is_in_journals(self, open_spool):
        """Before and after it is measured."""
        spool = open_spool()
        put(spool, 1)
        before = spool.bytes
        put(spool, 2)
        assert spool.bytes > before
        spool._measure()
        held = spool.bytes
        spool.partition("memory").own.journal.drop(FIRST + 2)
        spool._measure()
        assert spool.bytes < held


@pytest.fixture(scope="module")
def journaled(tmp_path_factory):
    """A spool whose rows are all in its journal, but for those that were erased."""
    return damage.lay_down(tmp_path_factory.mktemp("journaled"), rows=14, large=2_000, erased=3, journaled=True)


def test_an_undamaged_journal_is_taken_over_whole(journaled, tmp_path):
    """Without damage every record arrives with its final value, and nothing is lost."""
    found = damage.taken_over(journaled.copied(tmp_path / "spool"))
    assert found.values == damage.final_values(journaled)
    assert (found.adopted, found.lost) == (len(journaled.records), {})


@pytest.mark.parametrize("seed", range(3))
def test_a_flipped_bit_in_a_journal_loses_only_what_it_hit(journaled, tmp_path, seed):
    """One flipped bit anywhere: no exception, what was hit is counted, and no other record is lost."""
    assert damage.flips(journaled, tmp_path, 60, seed, suffixes=("-journal-1",))["lost"] > 0


def test_a_journal_cut_off_anywhere_loses_only_what_was_cut(journaled, tmp_path):
    """Each length around every edge and in between: what is behind the cut is lost and counted."""
    data = journaled.files["-journal-1"]
    edges = {place + near for _, suffix, *ends in journaled.places() for place in ends for near in (-1, 0, 1)}
    for length in sorted({*range(24), *edges, *range(0, len(data), 331)}):
        found = damage.taken_over(journaled.copied(tmp_path / "cut", journal=data[:length]))
        kept = {number for number, suffix, _, end in journaled.places() if suffix == "-journal-1" and end <= length}
        lost = damage.judged(journaled, found, set(journaled.records) - kept)
        assert lost == len(set(journaled.records) - kept) or length < 8
