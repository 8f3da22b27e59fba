"""Reads on connections of their own: beside writes, at a close, at a fork, and when the files are replaced."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.store.contract import ended_span, only

from otel_metadata.errors import StoreError
from otel_metadata.model.condition import Compare, Subject
from otel_metadata.model.record import SpanQuery
from otel_metadata.store.sqlite import read_pool
from otel_metadata.store.sqlite import store as store_module
from otel_metadata.store.sqlite.file import files_of
from otel_metadata.store.sqlite.read_pool import Deadline, PoolClosedError, ReadPool
from otel_metadata.store.sqlite.store import SqliteStore

ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
MODEL = SpanQuery(condition=Compare(Subject("span", "model"), "=", "slow"))
SECONDS = 60


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spans.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path)
    store.write([ended_span(1, name="before", attributes={"gen_ai.request.model": "slow"})])
    yield store
    store.close()


class Thread(threading.Thread):
    """A thread that keeps what its function returned or raised."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.call = call
        self.result: object = None
        self.start()

    def run(self) -> None:
        try:
            self.result = self.call()
        except BaseException as error:
            self.result = error

    def ended(self) -> Any:
        self.join(SECONDS)
        assert not self.is_alive()
        return self.result


def endless(started: threading.Event) -> Callable[[sqlite3.Connection], object]:
    """Return a read that takes for ever the first time it is called, and later returns the names of the spans."""

    def read(connection: sqlite3.Connection) -> object:
        if not started.is_set():
            started.set()
            return connection.execute(ENDLESS).fetchone()
        return connection.execute("SELECT name FROM spans").fetchall()

    return read


def started(store: SqliteStore, read: Callable[[threading.Event], Callable[[sqlite3.Connection], object]]) -> Thread:
    event = threading.Event()
    thread = Thread(lambda: store._read(read(event)))
    assert event.wait(SECONDS)
    return thread


class TestBesideOthers:
    def test_a_slow_filter_stops_neither_writes_nor_other_reads(
        self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While SQLite is in the middle of it; what is written meanwhile, another read sees."""
        is_inside, may_end = threading.Event(), threading.Event()

        def slow(*_: object) -> str:
            is_inside.set()
            assert may_end.wait(SECONDS)
            return "slow"

        with monkeypatch.context() as patching:
            patching.setattr("otel_metadata.store.sqlite.condition.of_instrumentor", slow)
            store.close()  # a new connection has the slow function
            thread = Thread(lambda: store.query(MODEL))
            assert is_inside.wait(SECONDS)
        store.write([ended_span(2, name="after")])
        assert sorted(record.name for record in store.query(SpanQuery())) == ["after", "before"]
        assert thread.is_alive()
        may_end.set()
        assert [record.name for record in thread.ended()] == ["before"]

    def test_a_write_that_waits_for_another_process_stops_no_read(self, store: SqliteStore, path: Path) -> None:
        """The thread that waits has the store's lock, which a read does not need."""
        assert only(store).name == "before"
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        thread = Thread(lambda: store.write([ended_span(2, name="after")]))
        while not store._lock.locked():
            assert thread.is_alive()
        assert only(store).name == "before"
        other.execute("ROLLBACK")
        assert thread.ended() is None
        assert len(store.query(SpanQuery())) == 2
        other.close()

    def test_a_read_of_another_process_stops_no_write(self, store: SqliteStore, path: Path) -> None:
        """It holds its snapshot all the time."""
        program = """
            import sys
            from otel_metadata.store.sqlite.store import SqliteStore
            def read(connection):
                connection.execute("BEGIN")
                before = connection.execute("SELECT count(*) FROM spans").fetchone()
                print("reading", flush=True)
                sys.stdin.readline()
                after = connection.execute("SELECT count(*) FROM spans").fetchone()
                connection.execute("COMMIT")
                return before + after
            store = SqliteStore(sys.argv[1], create=False)
            print(*store._read(read), *store._read(lambda one: one.execute("SELECT count(*) FROM spans").fetchone()))
            """
        lines = "\n".join(line[12:] for line in program.splitlines())
        with subprocess.Popen(
            [sys.executable, "-c", lines, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "reading\n"
            for number in range(2, 22):
                store.write([ended_span(number)])
            assert process.communicate("go\n", timeout=SECONDS)[0] == "1 1 21\n"

    def test_a_read_makes_no_write_wait_for_the_disk(self, store: SqliteStore, path: Path) -> None:
        """The log is folded in after so many rows, not at each commit while somebody reads; and it is folded in."""
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM spans").fetchone() == (1,)
        executed: list[str] = []
        assert store._connection is not None
        store._connection.set_trace_callback(executed.append)
        for batch in range(8):
            store.write([ended_span(1_000 * batch + number, name="x" * 5_000) for number in range(2, 802)])
        assert sum("wal_checkpoint" in statement for statement in executed) == 2
        reader.execute("COMMIT")
        before = path.stat().st_size
        for batch in range(8, 11):
            store.write([ended_span(1_000 * batch + number) for number in range(2, 802)])
        assert path.stat().st_size > before + 6_000 * 5_000
        reader.close()

    def test_readers_that_overlap_let_a_large_log_begin_again(
        self, store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A fold of a large log waits for the readers of that moment; otherwise the log would grow for ever."""
        monkeypatch.setattr(store_module, "_LARGE_LOG_PAGES", 100)
        assert store._connection is not None
        store._connection.execute(f"PRAGMA busy_timeout = {1_000 * SECONDS}")
        waits = threading.Event()

        def watch(statement: str) -> None:
            if "RESTART" in statement:
                waits.set()

        store._connection.set_trace_callback(watch)
        reads = threading.Event()

        def read() -> None:
            reader = sqlite3.connect(path, isolation_level=None)
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM spans").fetchone()
            reads.set()
            assert waits.wait(SECONDS)
            reader.execute("COMMIT")
            reader.close()

        thread = Thread(read)
        assert reads.wait(SECONDS)
        store.write([ended_span(number) for number in range(2, 3_002)])
        thread.ended()
        store.write([ended_span(4_000)])
        _, pages, _ = store._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        assert pages < 100

    def test_threads_share_a_few_connections(self, store: SqliteStore) -> None:
        """As many as read at once; only a few stay open."""
        count = 3 * read_pool._MAX_IDLE
        together = threading.Barrier(count)
        threads = [Thread(lambda: store._read(lambda _: together.wait(SECONDS))) for _ in range(count)]
        assert sorted(thread.ended() for thread in threads) == list(range(count))
        assert store._readers is not None
        assert len(store._readers.connections()) == read_pool._MAX_IDLE
        store.query(SpanQuery())
        assert len(store._readers.connections()) == read_pool._MAX_IDLE

    def test_a_store_in_memory_has_one_connection(self) -> None:
        """Another would see another database."""
        store = SqliteStore(":memory:")
        store.write([ended_span(1)])
        assert len(store.search(SpanQuery(), timeout_millis=1_000).records) == 1
        assert store._readers is None
        store.close()

    @pytest.mark.parametrize("name", ["a b.db", "a?mode=rw.db", "a#b.db", "100%41.db", "é名.db", "file:x.db"])
    def test_any_name_is_a_name(self, tmp_path: Path, name: str) -> None:
        """The read connection's name is a URI, in which some characters mean something else."""
        store = SqliteStore(tmp_path / name)
        store.write([ended_span(1)])
        assert len(store.query(SpanQuery())) == 1
        store.close()
        assert [one.name for one in tmp_path.iterdir()] == [name]


class TestClose:
    def test_closing_interrupts_a_read_that_takes_too_long(self, store: SqliteStore, path: Path) -> None:
        """It raises, the file is closed, and a later read opens it again."""
        thread = started(store, endless)
        store.close()
        error = thread.ended()
        assert isinstance(error, StoreError)
        assert "interrupted" in str(error)
        assert [one.name for one in path.parent.iterdir()] == ["spans.db"]
        assert only(store).name == "before"

    def test_closing_lets_a_quick_read_end(self, store: SqliteStore) -> None:
        """As it lets a quick write end."""
        is_reading, is_closing = threading.Event(), threading.Event()

        def read(connection: sqlite3.Connection) -> object:
            is_reading.set()
            assert is_closing.wait(SECONDS)
            return connection.execute("SELECT name FROM spans").fetchall()

        thread = Thread(lambda: store._read(read))
        assert is_reading.wait(SECONDS)
        closing = Thread(store.close)
        is_closing.set()
        assert thread.ended() == [("before",)]
        closing.ended()

    def test_a_pool_that_is_closed_gives_no_connection(self, store: SqliteStore, path: Path) -> None:
        """Its reader opens the store again."""
        pool = ReadPool(str(path), files_of(str(path)), lambda _: None)
        pool.close()
        assert not pool.has_current_files()
        with pytest.raises(PoolClosedError):
            pool.read(lambda _: None)

    def test_a_finalizer_closes_a_pool_that_is_being_closed(
        self, path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each finds connections that the other has closed."""
        pool = ReadPool(str(path), files_of(str(path)), lambda _: None)
        pool.read(lambda _: pool.read(lambda _: None))  # two at once
        discard = ReadPool._discard

        def discard_and_collect(given: ReadPool, connection: sqlite3.Connection) -> None:
            monkeypatch.setattr(ReadPool, "_discard", discard)
            discard(given, connection)
            given.close()

        monkeypatch.setattr(ReadPool, "_discard", discard_and_collect)
        pool.close()
        assert pool.connections() == []

    def test_a_connection_that_failed_is_not_used_again(self, store: SqliteStore) -> None:
        """Nor are the others once the file is to blame."""
        with pytest.raises(StoreError, match="no such table"):
            store._read(lambda connection: connection.execute("SELECT * FROM missing"))
        assert store._readers is not None
        assert store._readers.connections() == []

        def malformed(_: sqlite3.Connection) -> None:
            raise sqlite3.DatabaseError("database disk image is malformed")

        readers = store._readers
        with pytest.raises(StoreError, match="malformed"):
            store._read(malformed)
        assert not readers.has_current_files()
        assert only(store).name == "before"
        assert store._readers is not readers

    def test_a_connection_that_reads_leaves_the_log_alone(self, path: Path) -> None:
        """Even as the last one: by the time it is closed, the log of that name may belong to another database."""
        writing = SqliteStore(path)
        writing.write([ended_span(1)])
        copy = path.with_name("copy.db")
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
        writing.close()
        log = Path(f"{copy}-wal").read_bytes()
        pool = ReadPool(str(copy), files_of(str(copy)), lambda _: None)
        with pytest.raises(PoolClosedError):  # -shm is made by opening it: other files than those that were named
            pool.read(lambda _: None)
        assert Path(f"{copy}-wal").read_bytes() == log
        pool = ReadPool(str(copy), files_of(str(copy)), lambda _: None)
        assert pool.read(lambda one: one.execute("SELECT count(*) FROM spans").fetchone()) == (1,)
        pool.close()
        assert Path(f"{copy}-wal").read_bytes() == log


class TestFiles:
    def test_a_read_of_a_file_that_was_replaced_is_done_again(self, store: SqliteStore, path: Path) -> None:
        """By the next write, which notices it; the read shows the new file."""
        thread = started(store, endless)
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").unlink()
        store.write([ended_span(2, name="after")])
        assert thread.ended() == [("after",)]

    def test_a_moved_file_is_whole_although_it_was_read(self, store: SqliteStore, path: Path) -> None:
        """Readers of it would keep its log from being folded in."""
        thread = started(store, endless)
        path.rename(path.with_name("old.db"))
        store.write([ended_span(2, name="after")])
        assert thread.ended() == [("after",)]
        old = SqliteStore(path.with_name("old.db"), create=False)
        assert only(old).name == "before"
        old.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
class TestFork:
    def test_a_child_reads_by_connections_of_its_own(self, store: SqliteStore) -> None:
        """While a thread of the parent reads by one, and another one is idle."""
        assert only(store).name == "before"
        assert store._readers is not None
        held = set(map(id, store._readers.connections()))
        is_reading, may_end = threading.Event(), threading.Event()

        def read(connection: sqlite3.Connection) -> object:
            is_reading.set()
            assert may_end.wait(SECONDS)
            return connection.execute("SELECT name FROM spans").fetchall()

        thread = Thread(lambda: store._read(read))
        assert is_reading.wait(SECONDS)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                is_right = store._readers is None and only(store).name == "before" and store._readers is not None
                own = set(map(id, store._readers.connections())) if store._readers is not None else held
                store.write([ended_span(2)])
                status = 0 if is_right and not own & held else 2
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        may_end.set()
        assert sorted(thread.ended()) == [("before",), ("work",)]
        assert len(store.query(SpanQuery())) == 2


class Clock:
    """Each look at it is a millisecond."""

    def __init__(self) -> None:
        self.ns = 0

    def monotonic_ns(self) -> int:
        self.ns += 1_000_000
        return self.ns


class TestDeadline:
    @pytest.fixture
    def connection(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(":memory:")) as connection:
            yield connection

    def test_a_statement_ends_when_the_time_is_over(self, connection: sqlite3.Connection) -> None:
        """However long it would take; the connection is as before."""
        deadline = Deadline(Clock(), 20)
        assert deadline.run(connection, lambda: connection.execute(ENDLESS).fetchone()) is None
        assert deadline.is_over()
        assert connection.execute("WITH n (i) AS (VALUES (1)) SELECT i FROM n").fetchone() == (1,)

    def test_what_ends_in_time_is_returned(self, connection: sqlite3.Connection) -> None:
        """And an error is raised."""
        deadline = Deadline(Clock(), 20)
        assert deadline.run(connection, lambda: connection.execute("SELECT 5").fetchone()) == (5,)
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            deadline.run(connection, lambda: connection.execute("SELECT * FROM missing"))

    def test_an_interruption_before_the_time_is_one(self, connection: sqlite3.Connection) -> None:
        """The store is being closed."""
        connection.create_function("stop", 0, connection.interrupt)
        deadline = Deadline(Clock(), 1_000_000)
        with pytest.raises(sqlite3.OperationalError, match="interrupted"):
            deadline.run(connection, lambda: connection.execute(f"SELECT stop(), ({ENDLESS})").fetchone())

    def test_what_stops_the_program_is_raised(self, connection: sqlite3.Connection) -> None:
        """SQLite's driver swallows what is raised in a progress handler: Ctrl-C would be taken for the deadline."""

        class Interrupted(Clock):
            def monotonic_ns(self) -> int:
                if self.ns:
                    raise KeyboardInterrupt
                return super().monotonic_ns()

        deadline = Deadline(Interrupted(), 1_000)
        with pytest.raises(KeyboardInterrupt):
            deadline.run(connection, lambda: connection.execute(ENDLESS).fetchone())
