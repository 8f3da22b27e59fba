"""The spool file: what survives, what is refused without being touched, what waits until it can be written."""

from __future__ import annotations

import errno
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest

import otel_metadata as om
from otel_metadata.errors import ConfigurationError
from otel_metadata.locks import ReentrantLock
from otel_metadata.spool import spool as spool_module
from otel_metadata.spool.dead_letters import waiting
from otel_metadata.spool.frames import PlainUpdate, SpooledUpdate
from otel_metadata.spool.journal import journal_numbers
from otel_metadata.spool.owners import Owners
from otel_metadata.spool.spool import Spool, SpoolSettings
from otel_metadata.testing import ManualClock

DISK_FULL = """
import resource, signal, sys
import otel_metadata as om
from otel_metadata.spool.frames import SpooledUpdate
from otel_metadata.spool.spool import Spool, SpoolSettings
from otel_metadata.testing import ManualClock
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path, limits = sys.argv[1], [int(limit) for limit in sys.argv[2:]]
clock = ManualClock()
for index, limit in enumerate(limits):
    place = f"{path}/{index}/spool.db"
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        spool = Spool(SpoolSettings(place), clock=clock)
        partition = spool.partition("memory")
        rows = []
        for number in range(1, 9):
            fields = {("span", "metadata", "k"): ("x" * 700, (number, 1))}
            rows.append(partition.put(SpooledUpdate(0, "memory", om.SpanRef(7, number), fields, 1, number)))
            spool.sync()
        written = sum(row.is_written for row in rows)
        assert written + spool.unwritten == 8, (limit, written, spool.unwritten)
        clock.advance(2_000)
        spool.tend()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    clock.advance(2_000)
    spool.tend()
    assert spool.unwritten == 0 and all(row.is_written for row in rows), (limit, spool)
    spool.close()
    spool = Spool(SpoolSettings(place), clock=clock)
    partition = spool.partition("memory")
    found = [loaded.content.target.span_id for loaded in partition.load(100, 1 << 30)]
    assert found == list(range(1, 9)) and partition.lost() == 0, (limit, found)
    spool.close()
print("done")
"""

PUTS = """
import os, signal, sys
import otel_metadata as om
from otel_metadata.spool.frames import SpooledUpdate
from otel_metadata.spool.spool import Spool, SpoolSettings
spool = Spool(SpoolSettings(sys.argv[1]))
partition = spool.partition("memory")
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    partition.put(SpooledUpdate(0, "memory", om.SpanRef(7, number), {}, 1, number))
    spool.sync()
os.kill(os.getpid(), signal.SIGKILL)
"""


def update(number: int, text: str = "v") -> SpooledUpdate:
    return SpooledUpdate(
        0, "memory", om.SpanRef(7, number), {("span", "metadata", "k"): (text, (number, 1))}, 1, number
    )


def numbers(partition, limit: int = 1_000) -> list[int]:
    return [loaded.content.target.span_id for loaded in partition.load(limit, 1 << 30)]


def put(spool: Spool, *ids: int):
    rows = [spool.partition("memory").put(update(number)) for number in ids]
    spool.sync()
    return rows


# --- what survives ------------------------------------------------------------------------------------------------


def test_what_was_synced_survives_a_kill(path, open_spool):
    """Rows of a process that was killed are read by the next, in order."""
    done = subprocess.run([sys.executable, "-c", PUTS, path, "1", "20"], check=False)
    assert done.returncode == -signal.SIGKILL
    assert numbers(open_spool().partition("memory")) == list(range(1, 20))


def test_two_processes_share_one_file(path, open_spool):
    """Each has rows of its own; those of the one that dies are taken over by the one that lives."""
    spool = open_spool()
    put(spool, 100, 101)
    subprocess.run([sys.executable, "-c", PUTS, path, "1", "4"], check=False)
    partition = spool.partition("memory")
    spool._clock.advance(6_000)
    spool.tend()
    assert partition.has_more
    assert numbers(partition) == [1, 2, 3]
    assert not partition.has_more


def test_what_was_settled_does_not_come_back(open_spool):
    """An erased row is not read by the next process, and its absence is no loss."""
    spool = open_spool()
    rows = put(spool, 1, 2, 3)
    spool.partition("memory").settle([rows[1], rows[1]])
    spool.tend()
    spool.close()
    partition = open_spool().partition("memory")
    assert numbers(partition) == [1, 3]
    assert partition.lost() == 0


def test_a_thread_that_finds_the_queue_empty_finds_its_row_written(open_spool):
    """While one thread writes the row of another, it stays in the queue: that one does not return too early."""
    spool = open_spool()
    put(spool, 1)
    partition = spool.partition("memory")
    row = partition.put(update(2))
    seen: list[int] = []
    writing, go_on = threading.Event(), threading.Event()
    write = spool._write_one

    def slow(*args):
        writing.set()
        go_on.wait()
        write(*args)

    spool._write_one = slow  # type: ignore[method-assign] # the moment between taking a row and committing it
    first = threading.Thread(target=spool.sync)
    first.start()
    writing.wait()
    second = threading.Thread(target=lambda: (partition.sync(), seen.append(row.is_written)))
    second.start()
    assert not seen
    go_on.set()
    first.join()
    second.join()
    assert seen == [True]


def test_an_update_from_inside_a_write_is_taken_along(open_spool, monkeypatch):
    """A finalizer or signal handler that updates a span in the middle of a write neither waits nor loses it."""
    spool = open_spool()
    put(spool, 1)
    write, inner = spool._write_one, []

    def interrupted(*args):
        if not inner:
            inner.append(spool.partition("memory").put(update(3)))
            spool.sync()
        write(*args)

    monkeypatch.setattr(spool, "_write_one", interrupted)
    (row,) = put(spool, 2)
    assert row.is_written
    assert inner[0].is_written


@pytest.mark.parametrize("is_committed", [False, True])
def test_an_interrupted_write_is_done_again_under_the_same_number(open_spool, monkeypatch, is_committed):
    """KeyboardInterrupt before or after the commit: the row is neither lost nor there twice."""
    spool = open_spool()
    put(spool, 1)
    write = spool._write_one

    def interrupted(*args):
        monkeypatch.undo()
        if is_committed:
            write(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(spool, "_write_one", interrupted)
    with pytest.raises(KeyboardInterrupt):
        put(spool, 2)
    put(spool, 3)
    spool.close()
    assert numbers(open_spool().partition("memory")) == [1, 2, 3]


def test_a_row_that_cannot_be_written_keeps_no_other_back(open_spool):
    """What is no JSON stays in memory; the rows beside it are written."""
    spool = open_spool()
    partition = spool.partition("memory")
    bad = partition.put(PlainUpdate(om.SpanRef(7, 1), (1, 1), {"k": object()}))  # type: ignore[dict-item] # on purpose
    good = partition.put(update(2))
    spool.sync()
    assert (bad.is_written, good.is_written, spool.unwritten) == (False, True, 0)


def test_a_row_that_is_written_while_somebody_looks_is_seen(open_spool, monkeypatch):
    """A spilled row that another thread writes between two looks is found in one of its two places."""
    spool = open_spool()
    partition = spool.partition("memory")
    partition.spill(update(1))
    partition.sync()
    assert numbers(partition) == [1]
    partition.spill(update(2))
    look = spool.queued_spills
    monkeypatch.setattr(spool, "queued_spills", lambda partition: spool.sync() or look(partition))
    assert partition.has_more


def test_an_interrupt_while_waiting_for_the_lock_does_not_keep_it(open_spool):
    """After any end of a call another thread can write."""
    spool = open_spool()
    with spool._alone():
        pass
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.append(spool._lock.acquire(blocking=False)))
    put(spool, 1)
    thread.start()
    thread.join()
    assert results == [True]
    spool._lock = ReentrantLock()


# --- what is refused ----------------------------------------------------------------------------------------------


def tree(folder):
    return {one.name: one.read_bytes() for one in folder.iterdir() if one.is_file()}


def newer(path):
    Spool(SpoolSettings(str(path))).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 2")
    connection.close()


def newer_with_rows(path):
    spool = Spool(SpoolSettings(str(path)))
    put(spool, 1, 2)
    spool.close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 2")
    connection.close()


def foreign(path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (a)")
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (newer, "install a newer otel-metadata"),
        (newer_with_rows, "install a newer otel-metadata"),
        (foreign, "another program's SQLite database"),
        (lambda path: path.write_text("a text\n" * 1_000), "not an SQLite database"),
        (lambda path: path.write_text("x"), "not an SQLite database"),
        (lambda path: path.write_text("x" * 511), "not an SQLite database"),
        (lambda path: path.mkdir(), "not of a directory"),
        (lambda path: path.parent.chmod(0o755), "chmod 700"),
        (lambda path: os.mkfifo(path), "not a file"),
    ],
    ids=["newer", "newer-with-rows", "foreign", "text", "one-byte", "short", "directory", "world-readable", "fifo"],
)
def test_what_is_no_spool_of_ours_is_refused_and_left_as_it_is(tmp_path, make, words):
    """The message says what to do, and not one byte is changed."""
    folder = tmp_path / "spool"
    folder.mkdir(mode=0o700)
    make(folder / "spool.db")
    before = tree(folder)
    with pytest.raises(ConfigurationError, match=words):
        Spool(SpoolSettings(str(folder / "spool.db")))
    assert tree(folder) == before


@pytest.mark.parametrize(
    "settings",
    [{"path": ""}, {"path": 5}, {"path": "a", "durability": "never"}, {"path": "a", "quota_bytes": 5}],
    ids=repr,
)
def test_settings_that_cannot_be_are_refused(settings):
    """Before anything is opened."""
    with pytest.raises(ConfigurationError):
        SpoolSettings(**settings)


def test_only_the_owner_may_read_it(path, open_spool):
    """Files are 0600 in a directory of 0700."""
    put(open_spool(), 1)
    folder = os.path.dirname(path)
    assert oct(os.stat(folder).st_mode & 0o777) == "0o700"
    modes = {name: oct(os.stat(f"{folder}/{name}").st_mode & 0o777) for name in os.listdir(folder)}
    assert modes == dict.fromkeys(
        ["spool.db", "spool.db-wal", "spool.db-shm", "spool.db-owners", "spool.db-journal-1"], "0o600"
    )


@pytest.mark.parametrize(("durability", "level"), [("process", 1), ("power", 2)])
def test_power_means_a_full_sync_of_every_write(open_spool, durability, level):
    """SQLite's `synchronous` is FULL (2) for `power` and NORMAL (1) for `process`."""
    with open_spool(durability=durability).reading() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone()[0] == level
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == b"wal"


# --- what others write ---------------------------------------------------------------------------------------------


class TickingClock(ManualClock):
    """Waiting moves the time, and says so."""

    def __init__(self, at_wait=lambda: None):
        super().__init__()
        self.waits, self.at_wait = 0, at_wait

    def wait(self, event, timeout_ns):
        self.waits += 1
        self.advance(max(timeout_ns, 100_000) / 1e6)
        self.at_wait()
        return False


@pytest.fixture
def other_writer(path, clock):
    """Another process's connection, which begins to write and does not end."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    yield connection
    connection.close()


@pytest.fixture
def ticking(path):
    """A spool with one row, whose clock ticks; and that clock. Every row is a transaction."""
    clock = TickingClock()
    spool = Spool(SpoolSettings(path, "power"), clock=clock)
    put(spool, 1)
    yield spool, clock
    spool.close()


@pytest.mark.parametrize("ids", [(2,), (2, 3, 4)], ids=["one", "several"])
def test_a_write_waits_for_that_of_another_process(ticking, other_writer, ids):
    """Another process's write is no failure: the row is on disk when the call returns."""
    spool, clock = ticking
    clock.at_wait = lambda: clock.waits == 3 and other_writer.execute("COMMIT")
    rows = put(spool, *ids)
    assert all(row.is_written for row in rows)
    assert clock.waits == 3


def test_a_slot_that_could_not_be_leased_is_taken_over(path):
    """Another process writes just when a row needs a slot, and the first has rows of a dead one: they are not stuck."""
    clock = TickingClock()
    spool = Spool(SpoolSettings(path), clock=clock)
    partition = spool.partition("memory")
    subprocess.run([sys.executable, "-c", PUTS, path, "1", "4"], check=False)
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    (row,) = put(spool, 9)
    assert not row.is_written

    writer.close()
    spool.sync()
    clock.advance(6_000)
    spool.tend()

    assert row.is_written
    assert numbers(partition) == [1, 2, 3]
    spool.close()


def test_a_writer_that_never_ends_is_waited_for_once(ticking, other_writer):
    """While another writes without end, rows wait in memory and no later call waits; then all are written, in order."""
    spool, clock = ticking
    (row,) = put(spool, 2)
    waits = clock.waits
    assert not row.is_written
    assert waits > 100
    later = [put(spool, number)[0] for number in range(3, 6)]
    spool.tend()
    assert (clock.waits, spool.unwritten, spool.has_room()) == (waits, 4, True)
    other_writer.execute("COMMIT")
    (last,) = put(spool, 6)
    assert all(one.is_written for one in (row, *later, last))
    assert spool.unwritten == 0
    spool.close()
    again = Spool(SpoolSettings(spool.path), clock=clock)
    assert numbers(again.partition("memory")) == list(range(1, 7))
    again.close()


# --- what cannot be written now -----------------------------------------------------------------------------------


def test_a_disk_that_is_full_at_any_write_loses_nothing(tmp_path):
    """A limit on the size of files stops one write after another: rows wait in memory, and are written afterwards."""
    limits = [*range(0, 1_024, 97), *range(1_024, 60_000, 1_511)]
    done = subprocess.run(
        [sys.executable, "-c", DISK_FULL, str(tmp_path), *map(str, limits)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "done\n", done.stderr[-2_000:]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_beyond_the_quota_rows_wait_in_memory(open_spool, clock):
    """Nothing more is written; erasing goes on, and makes room again."""
    spool = open_spool(quota_bytes=65_536)
    partition = spool.partition("memory")
    rows = []
    while not spool._is_full:
        rows.append(partition.put(update(len(rows) + 1, "x" * 4_000)))
        spool.sync()
    late = partition.put(update(1_000))
    spool.sync()
    assert (late.is_written, spool.unwritten) == (False, 1)
    partition.settle(rows)
    clock.advance(2_000)
    spool.tend()
    assert (late.is_written, spool.unwritten) == (True, 0)


def test_on_a_full_disk_rows_are_weighed_by_sync_not_where_they_are_put(open_spool, monkeypatch):
    """A container takes long to weigh; rows are put under the process's lock, and `sync` is called without it."""
    weighed = []
    monkeypatch.setattr(spool_module, "weigh_fields", lambda fields: weighed.append(fields) or 5 * 1024 * 1024)
    spool = open_spool()
    partition = spool.partition("memory")
    spool._is_full = True
    put = 0
    while partition.put(update(put + 1)) is not None:
        put += 1
        assert len(weighed) == put - 1
        partition.sync()
        assert len(weighed) == put
    assert put == 4  # more than 16 MB wait
    assert not partition.spill(update(put + 1))
    spool._is_full = False
    spool.sync()
    assert spool.unwritten == 0


def test_a_file_that_was_removed_is_made_again(path, open_spool, clock):
    """Somebody deletes the directory's files: within a second there is a new spool, and nobody is told of a lease."""
    spool = open_spool()
    put(spool, 1)
    for name in os.listdir(os.path.dirname(path)):
        os.unlink(f"{os.path.dirname(path)}/{name}")
    clock.advance(2_000)
    spool.tend()
    (row,) = put(spool, 2)
    assert row.is_written
    spool.close()
    assert numbers(open_spool().partition("memory")) == [1, 2]


@pytest.mark.parametrize("call", ["shared", "note"])
def test_leases_that_could_not_be_taken_again_are_taken_later(path, open_spool, clock, monkeypatch, call):
    """Somebody deletes the files and there is no room for new ones: once there is, the slots are ours as before."""
    spool = open_spool()
    for name in ("memory", "other"):
        spool.partition(name).put(update(1))
        spool.sync()
    for name in os.listdir(os.path.dirname(path)):
        os.unlink(f"{os.path.dirname(path)}/{name}")

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Owners, call, fail)
    for _ in range(3):
        clock.advance(2_000)
        spool.tend()
    monkeypatch.undo()
    clock.advance(2_000)
    spool.tend()
    for name in ("memory", "other"):
        spool.partition(name).put(update(2))
        spool.sync()

    another = open_spool()
    assert [numbers(another.partition(name)) for name in ("memory", "other")] == [[], []]


def test_spilled_rows_come_back_in_order(open_spool):
    """What is on disk only is read from the front, in portions."""
    spool = open_spool()
    partition = spool.partition("memory")
    for number in range(1, 8):
        assert partition.spill(update(number))
        spool.sync()
    assert [numbers(partition, 3), numbers(partition, 3), numbers(partition, 3)] == [[1, 2, 3], [4, 5, 6], [7]]
    assert not partition.has_more


def test_spilled_rows_that_could_not_be_written_are_read_once(open_spool, clock):
    """While the quota is reached they are taken from memory; written later, they are not read again."""
    spool = open_spool(quota_bytes=65_536)
    partition = spool.partition("memory")
    partition.spill(update(1))
    spool.sync()
    spool._is_full = True
    partition.spill(update(2))
    spool.sync()
    assert partition.unkept == 1
    assert numbers(partition) == [1, 2]
    clock.advance(2_000)
    spool.tend()
    assert (spool.unwritten, partition.unkept, partition.has_more, numbers(partition)) == (0, 0, False, [])


def test_what_cannot_be_opened_for_writing_is_written_once_it_can(open_spool, path, clock):
    """A writer that fails as a read-only disk does: rows wait in memory, are counted, and are written afterwards."""
    spool = open_spool(durability="power")
    put(spool, 1)
    with spool.reading() as connection:
        connection.execute("PRAGMA query_only = ON")
    (row,) = put(spool, 2)
    assert (row.is_written, spool.unwritten) == (False, 1)
    clock.advance(2_000)
    spool.tend()
    assert (row.is_written, spool.unwritten) == (True, 0)


def test_what_was_settled_meanwhile_is_not_written_afterwards(open_spool, clock):
    """While nothing can be written, what is delivered from memory takes no room, and needs no row."""
    spool = open_spool(durability="power")
    put(spool, 1)
    with spool.reading() as connection:
        connection.execute("PRAGMA query_only = ON")
    partition = spool.partition("memory")
    rows = put(spool, 2, 3, 4)
    partition.settle(rows[:2])
    clock.advance(2_000)
    spool.tend()
    spool.close()
    assert numbers(open_spool().partition("memory")) == [1, 4]


def test_another_process_s_new_file_is_followed(open_spool, clock, path):
    """A file that was set aside by another process: what was written into the old one meanwhile is carried over."""
    one, two = open_spool(), open_spool()
    put(one, 1)
    put(two, 2)
    one._is_damaged = one._is_broken = True
    one._file._was_found_sound = True
    clock.advance(2_000)
    one.tend()
    assert [name for name in os.listdir(os.path.dirname(path)) if "damaged" in name]
    put(two, 3)
    clock.advance(2_000)
    two.tend()
    put(two, 4)
    assert [(found.destination, found.updates) for found in waiting(one)] == [("memory", 4)]


def test_two_of_the_same_path_in_one_process_share_it(open_spool):
    """Each has slots of its own; when one closes, what it left is the other's, and no lease of it ends."""
    one, two = open_spool(), open_spool()
    put(one, 1)
    put(two, 2)
    one.close()
    two._clock.advance(6_000)
    two.tend()
    assert numbers(two.partition("memory")) == [1]
    done = subprocess.run([sys.executable, "-c", PUTS, two.path, "5", "6"], check=False)
    assert done.returncode == -signal.SIGKILL
    with two.reading() as connection:
        slots = {row_id >> 32 for (row_id,) in connection.execute("SELECT id FROM items")}
    assert len(slots | journal_numbers(two.path)) == 3
