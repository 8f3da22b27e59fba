"""A damaged spool: nothing is raised, only what was hit is lost, and each of it is counted."""

from __future__ import annotations

import pytest
from tests.spool import damage

import otel_metadata as om
from otel_metadata.spool.frames import SpooledUpdate
from otel_metadata.spool.spool import Spool, SpoolSettings
from otel_metadata.testing import ManualClock

LARGE = 20_000


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """A spool whose rows are all in its log."""
    return damage.lay_down(tmp_path_factory.mktemp("logged"), rows=12, large=LARGE)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A spool whose rows are all in its database."""
    return damage.lay_down(tmp_path_factory.mktemp("stored"), rows=60, large=LARGE, copied_back=True)


def test_an_undamaged_spool_is_taken_over_whole(logged, stored, tmp_path):
    """Without damage every record arrives with its final value, and nothing is lost."""
    for spool in (logged, stored):
        found = damage.taken_over(spool.copied(tmp_path / "spool"))
        assert found.values == damage.final_values(spool)
        assert (found.adopted, found.lost) == (len(spool.records), {})


@pytest.mark.parametrize("seed", range(4))
def test_a_flipped_bit_in_the_log_loses_only_what_it_hit(logged, tmp_path, seed):
    """One flipped bit anywhere in the database or the log: no exception, and no other record is lost."""
    damage.flips(logged, tmp_path, 60, seed)


@pytest.mark.parametrize("seed", range(4))
def test_a_flipped_bit_in_the_database_loses_only_what_it_hit(stored, tmp_path, seed):
    """The same where everything was copied back into the database."""
    damage.flips(stored, tmp_path, 60, seed)


@pytest.mark.parametrize("part", range(4))
def test_a_log_cut_off_anywhere_loses_only_what_was_cut(tmp_path, part):
    """Each length of the log, around every edge and in between: what is behind the cut is lost and counted."""
    spool = damage.lay_down(tmp_path, rows=5, large=0)
    log = spool.files["-wal"]
    edges = {at + near for at in range(0, len(log) + 1, 4120) for near in (-1, 0, 1, 24, 31, 32, 33, 56)}
    lengths = sorted(at for at in edges | set(range(0, len(log), 331)) if 0 <= at <= len(log))
    for length in lengths[part::4]:
        found = damage.taken_over(spool.copied(tmp_path / "cut", log=log[:length]))
        kept = {row for row, suffix, _, end in spool.places() if suffix == "-wal" and end <= length}
        damage.judged(spool, found, set(spool.records) - kept)


@pytest.mark.parametrize("part", range(4))
def test_a_database_cut_off_anywhere_loses_only_what_was_cut(tmp_path, part):
    """Each length of the database, from nothing to all of it: what is behind the cut is lost and counted."""
    spool = damage.lay_down(tmp_path, rows=30, large=0, copied_back=True)
    data = spool.files[""]
    edges = {at + near for at in range(0, len(data) + 1, 4096) for near in (-1, 0, 1, 99, 100, 101)}
    lengths = sorted(at for at in edges | set(range(0, len(data), 331)) if 0 <= at <= len(data))
    for length in lengths[part::4]:
        found = damage.taken_over(spool.copied(tmp_path / "cut", database=data[:length]))
        kept = {row for row, suffix, _, end in spool.places() if suffix == "" and end <= length}
        assert not found.refusal, (length, found.refusal)
        damage.judged(spool, found, set(spool.records) - kept)


@pytest.mark.parametrize("word", [b"items", b"CREATE TABLE items"], ids=["name", "statement"])
def test_a_table_whose_name_is_no_text_any_more_loses_nothing(tmp_path, word):
    """SQLite quotes the damaged bytes in its message, which Python cannot decode; the rows are found all the same."""
    spool = damage.lay_down(tmp_path, rows=12, copied_back=True)
    data = bytearray(spool.files[""])
    data[data.index(word) + 2] ^= 0x80
    found = damage.taken_over(spool.copied(tmp_path / "spool", database=bytes(data)))
    assert (found.values, found.lost) == (damage.final_values(spool), {})


def test_an_emptied_database_beside_its_log_loses_nothing(tmp_path):
    """SQLite would delete the log of an empty database: its rows are read before that."""
    spool = damage.lay_down(tmp_path, rows=12)
    found = damage.taken_over(spool.copied(tmp_path / "spool", database=b""))
    assert (found.values, found.lost) == (damage.final_values(spool), {})


def test_damaged_tallies_lose_nothing(tmp_path):
    """Without a readable file of leases every row still arrives."""
    spool = damage.lay_down(tmp_path, rows=12)
    owners = spool.files["-owners"]
    for changed in (b"", b"\xff" * len(owners), owners[:100]):
        found = damage.taken_over(spool.copied(tmp_path / "spool", owners=changed))
        assert (found.values, found.lost) == (damage.final_values(spool), {})


def test_a_damaged_file_is_kept_beside_the_new_one(tmp_path):
    """What was set aside is there under another name, byte by byte."""
    spool = damage.lay_down(tmp_path, rows=12, copied_back=True)
    data = bytearray(spool.files[""])
    data[0:16] = b"not a database.."
    path = spool.copied(tmp_path / "spool", database=bytes(data))
    found = damage.taken_over(path)
    assert (found.values, found.lost) == (damage.final_values(spool), {})
    (aside,) = path.parent.glob("spool.db.damaged-*")
    assert aside.read_bytes() == bytes(data)


def test_rows_of_other_destinations_outlive_the_first_write(tmp_path):
    """A frame of the log that was hit hides all that follow: those of every destination are put back before a write."""
    path = tmp_path / "original" / "spool.db"
    spool = Spool(SpoolSettings(str(path), "power"))
    for name in ("one", "two"):
        for number in range(1, 6):
            fields = {("span", "metadata", "k"): (number, (number, 1))}
            spool.partition(name).put(SpooledUpdate(0, name, om.SpanRef(7, number), fields, 1, number))
            spool.sync()
    files = {suffix: path.with_name(f"spool.db{suffix}").read_bytes() for suffix in ("", "-wal", "-owners")}
    laid_down = damage.SpoolFiles(files, {})
    spool.close()
    log = laid_down.files["-wal"]
    hit = 32 + 4120 * (len(log) // 4120 // 2) + 24 + 200
    copy = laid_down.copied(tmp_path / "copy", log=damage.flipped(log, hit * 8))
    spool = Spool(SpoolSettings(str(copy)), clock=ManualClock())
    one = spool.partition("one")
    one.put(SpooledUpdate(0, "one", om.SpanRef(8, 1), {}, 1, 1))
    spool.sync()
    found = {
        name: [loaded.content.target.span_id for loaded in spool.partition(name).load(100, 1 << 30)]
        for name in ("one", "two")
    }
    spool.close()
    assert found == {"one": [1, 2, 3, 4, 5], "two": [1, 2, 3, 4, 5]}
