"""Retention: the oldest spans go, in short transactions, with everything that was set on them."""

from __future__ import annotations

import datetime as dt
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.store.contract import START_NS, TRACE, ended_span, metadata, trace_hex

import otel_metadata as om
from otel_metadata.client import export
from otel_metadata.client.imports import import_file
from otel_metadata.errors import ConfigurationError, StoreError
from otel_metadata.model.merge import Fields
from otel_metadata.model.patch import Patch
from otel_metadata.model.record import Retained, SpanQuery
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.seams import SystemClock
from otel_metadata.store.clickhouse.store import ClickHouseStore
from otel_metadata.store.sqlite import retention
from otel_metadata.store.sqlite.store import SqliteStore

MILLI_NS = 1_000_000
HOUR_NS = 3_600 * 1_000 * MILLI_NS


class Ticking:
    """A clock that moves by a millisecond whenever it is asked, and remembers the pauses."""

    def __init__(self, step_ns: int = MILLI_NS) -> None:
        self.pauses: list[int] = []
        self.step_ns = step_ns
        self._now_ns = 0

    wall_ns = staticmethod(SystemClock.wall_ns)

    def monotonic_ns(self) -> int:
        self._now_ns += self.step_ns
        return self._now_ns

    def wait(self, event: threading.Event, timeout_ns: int | None) -> bool:
        assert timeout_ns is not None
        self.pauses.append(timeout_ns)
        return event.is_set()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spans.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(path)) as store:
        yield store


def rows(path: Path, table: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"SELECT * FROM {table}").fetchall()


def ids(store: SqliteStore) -> list[int]:
    return [int(record.span_id, 16) for record in store.query(SpanQuery(limit=None))]


def many(count: int) -> Fields:
    return {("span", "metadata", f"k{key}"): ("x" * 100, (START_NS, 1)) for key in range(count)}


def set_late(store: SqliteStore, span_id: int | None, ns: int, value: Any, *, key: str = "late") -> None:
    """Update a span, or the trace for None, at a time."""
    target = SpanRef(TRACE, span_id or 0)
    level: Any = "span" if span_id is not None else "trace"
    store.patch([Patch(target, {(level, "metadata", key): (value, (ns, 7))})])


class TestOlderThan:
    def test_what_started_before_goes_with_all_that_was_set_on_it(self, path: Path, store: SqliteStore) -> None:
        """Its history as well, and no tombstone is left."""
        store.write([ended_span(at, start_ns=START_NS + at, fields=metadata(a=1)) for at in (1, 2, 3)])
        for at in (1, 2, 3):
            set_late(store, at, START_NS + 9, at, key="a")

        found = store.retain(START_NS + 3, None)

        assert (found.spans_deleted, found.updates_deleted, ids(store)) == (2, 0, [3])
        assert {row[1] for name in ("fields", "history") for row in rows(path, name)} == {f"{3:016x}"}
        assert rows(path, "deleted") == []

    def test_the_last_span_of_a_trace_takes_what_was_set_on_the_trace(self, path: Path, store: SqliteStore) -> None:
        """Until then the trace keeps it."""
        store.write([ended_span(at, start_ns=START_NS + at) for at in (1, 2)])
        for ns in (1, 2):
            set_late(store, None, START_NS + ns, ns)

        store.retain(START_NS + 2, None)
        assert store.query(SpanQuery())[0].trace_metadata == {"late": 2}
        assert len(store.history(trace_hex())) == 2

        store.retain(START_NS + 3, None)
        assert (rows(path, "fields"), rows(path, "history")) == ([], [])

    def test_a_late_update_of_a_span_that_is_gone_goes_when_it_is_as_old(self, path: Path, store: SqliteStore) -> None:
        """It is no orphan for ever; until then it waits, as any update that comes before its span."""
        store.write([ended_span(1)])
        store.retain(START_NS + 1, None)
        set_late(store, 1, START_NS + 5, "late")
        set_late(store, None, START_NS + 5, "late")

        assert store.retain(START_NS + 5, None).updates_deleted == 0
        assert len(rows(path, "fields")) == 2
        assert store.retain(START_NS + 6, None).updates_deleted == 2
        assert rows(path, "fields") == []

    def test_an_update_that_waits_for_its_span_stays(self, store: SqliteStore) -> None:
        """If any of its values is new."""
        set_late(store, 1, START_NS, "old", key="old")
        set_late(store, 1, START_NS + 5, "new", key="new")

        assert store.retain(START_NS + 5, None).updates_deleted == 0

        store.write([ended_span(1)])
        assert store.query(SpanQuery())[0].metadata == {"old": "old", "new": "new"}

    def test_a_span_that_comes_again_goes_again(self, store: SqliteStore, tmp_path: Path) -> None:
        """By an import as well."""
        store.write([ended_span(1, fields=metadata(a=1))])
        export.export_to_file(store.export(SpanQuery()), tmp_path / "s", export.jsonl)
        store.retain(START_NS + 1, None)
        import_file(store, tmp_path / "s")

        assert (ids(store), store.retain(START_NS + 1, None).spans_deleted, ids(store)) == ([1], 1, [])

    def test_tombstones_go_when_they_are_as_old(self, path: Path, store: SqliteStore) -> None:
        """They would grow without bound; a span that one kept out is older than it, and goes by its age."""
        store.write([ended_span(at) for at in (1, 2, 3)])
        for at in (1, 2):
            store.delete([(trace_hex(), f"{at:016x}")], (START_NS + at, 1))

        store.retain(START_NS, 10**9)
        assert len(rows(path, "deleted")) == 2

        store.retain(START_NS + 2, None)
        assert [row[1] for row in rows(path, "deleted")] == [f"{2:016x}"]

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        spans=st.lists(st.tuples(st.integers(1, 3), st.integers(0, 6)), unique_by=lambda one: one, max_size=8),
        updates=st.lists(st.tuples(st.integers(1, 3), st.none() | st.integers(0, 7), st.integers(0, 9)), max_size=8),
        before=st.integers(0, 8),
    )
    def test_what_is_left_is_what_a_reader_expects(
        self, spans: list[tuple[int, int]], updates: list[tuple[int, int | None, int]], before: int
    ) -> None:
        """Spans that started later, unchanged; and of what has no span, the new."""
        store = SqliteStore(":memory:")
        numbered = {(trace_id, 100 + start): start for trace_id, start in spans}
        store.write([ended_span(at, trace_id=trace_id, start_ns=start) for (trace_id, at), start in numbered.items()])
        for trace_id, at, ns in updates:
            span_id = None if at is None else 100 + at
            level: Any = "trace" if at is None else "span"
            fields: Fields = {(level, "metadata", "k"): (ns, (ns, 1))}
            store.patch([Patch(SpanRef(trace_id, span_id or 0), fields)])
        kept = {key for key, start in numbered.items() if start >= before}
        then = [one for one in store.query(SpanQuery()) if (int(one.trace_id, 16), int(one.span_id, 16)) in kept]
        newest: dict[tuple[int, int | None], int] = {}
        for trace_id, at, ns in updates:
            place = (trace_id, None if at is None else 100 + at)
            newest[place] = max(newest.get(place, 0), ns)

        found = store.retain(before, None)

        assert store.query(SpanQuery()) == then
        assert found.spans_deleted == len(numbered) - len(kept)
        for (trace_id, at), ns in newest.items():
            was_there = any(trace == trace_id and at in (None, span) for trace, span in numbered)
            is_there = any(trace == trace_id and at in (None, span) for trace, span in kept)
            wanted = is_there or (not was_there and ns >= before)
            found_there = store.history(f"{trace_id:032x}", "" if at is None else f"{at:016x}")
            assert any(one.level == ("trace" if at is None else "span") for one in found_there) is wanted


class TestMaxBytes:
    def test_the_oldest_go_until_the_rest_fits(self, path: Path, store: SqliteStore) -> None:
        """The size is that of the pages in use; the file is filled again before it grows."""

        def fill(first: int) -> None:
            for at in range(first, first + 600, 100):
                fields = metadata(prompt="x" * 1_000)
                store.write([ended_span(one, start_ns=START_NS + one, fields=fields) for one in range(at, at + 100)])

        fill(1)
        before = store.retain(None, 10**9).stored_bytes
        found = store.retain(None, before // 2)

        left = ids(store)
        assert left == list(range(600, 600 - len(left), -1))
        assert found.spans_deleted == 600 - len(left)
        assert before // 4 < found.stored_bytes <= before // 2
        assert found.stored_bytes == used_bytes(path)

        for first in range(601, 6_000, 600):
            fill(first)
            store.retain(None, before // 2)
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA page_count").fetchone()[0] * 4_096 < 2 * before

    def test_a_span_that_comes_into_an_empty_store_meanwhile_stays(
        self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A retention deletes what was there when it began."""
        begin = SqliteStore._transaction

        def after_another(given: SqliteStore) -> AbstractContextManager[sqlite3.Connection]:
            monkeypatch.setattr(SqliteStore, "_transaction", begin)
            store.write([ended_span(1)])
            return begin(given)

        store.retain(None, 10**6)
        monkeypatch.setattr(SqliteStore, "_transaction", after_another)
        assert store.retain(None, 1).spans_deleted == 0
        assert ids(store) == [1]

    def test_a_store_that_is_small_enough_stays(self, store: SqliteStore) -> None:
        """Also its updates that wait for a span."""
        store.write([ended_span(1)])
        set_late(store, 2, 1, "waits")

        found = store.retain(None, 10**6)

        assert (found.spans_deleted, found.updates_deleted, ids(store)) == (0, 0, [1])

    def test_an_empty_store_stays_as_large_as_it_is(self, store: SqliteStore) -> None:
        """It ends when there is nothing to delete."""
        store.write([ended_span(1)])

        assert store.retain(None, 1).spans_deleted == 1
        assert store.retain(None, 1).spans_deleted == 0

    def test_what_waits_goes_when_newer_spans_go(self, path: Path, store: SqliteStore) -> None:
        """Else a store would fill up with it."""
        store.write([ended_span(at, start_ns=START_NS + at) for at in range(1, 5)])
        set_late(store, 77, START_NS + 3, "older than the last span that goes")
        set_late(store, 78, START_NS + 4, "as old")

        found = store.retain(None, 1)

        assert (found.spans_deleted, found.updates_deleted) == (4, 1)
        assert [row[1] for row in rows(path, "fields")] == [f"{78:016x}"]


def used_bytes(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        count, free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
    return int((count - free) * size)


class TestSteps:
    def test_no_transaction_is_long_and_others_get_their_turn(self, path: Path) -> None:
        """By the clock, not by a number of rows: of a span with many fields a part goes in one transaction."""
        clock = Ticking()
        store = SqliteStore(path, clock=clock)
        store.write([ended_span(at, fields=many(3_000)) for at in (1, 2)])
        clock.pauses.clear()

        store.retain(START_NS + 1, None)

        # A millisecond for each statement: some 122 of them, twenty in a transaction.
        assert len(clock.pauses) > 5
        assert max(clock.pauses) <= 30 * MILLI_NS
        assert ids(store) == []

    def test_slow_transactions_become_shorter(self, path: Path) -> None:
        """A slow disk makes the commit long, which nobody can cut short; so less is put into it."""
        clock = Ticking()
        store = SqliteStore(path, clock=clock)
        store.write([ended_span(at, fields=metadata(a=1)) for at in range(1, 200)])
        commits: list[int] = []

        @contextmanager
        def slow_disk() -> Iterator[sqlite3.Connection]:
            with SqliteStore._transaction(store) as connection:
                before = connection.total_changes
                yield connection
                commits.append(connection.total_changes - before)
                clock._now_ns += commits[-1] * 10 * MILLI_NS

        pauses: list[int] = []
        retention.Retention(store._read, slow_disk, pauses.append, clock).retain(START_NS + 1, None)

        assert commits[0] > 10
        assert max(commits[-10:]) <= 4

    def test_an_interrupted_retention_goes_on_where_it_was(self, path: Path) -> None:
        """Whatever had been deleted of a span when the process ended, the next call deletes the rest."""
        clock = Ticking()
        store = SqliteStore(path, clock=clock)
        fields = {**many(3_000), ("trace", "name", ""): ("t", (START_NS, 1))}
        store.write([ended_span(1, fields=fields)])
        whole = len(rows(path, "fields"))

        def interrupt(_: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            retention.Retention(store._read, store._transaction, interrupt, clock).retain(START_NS + 1, None)
        assert 0 < len(rows(path, "fields")) < whole

        assert store.retain(START_NS + 1, None).spans_deleted == 1
        assert (rows(path, "spans"), rows(path, "fields")) == ([], [])

    def test_a_store_that_is_closed_meanwhile_ends_it(self, path: Path) -> None:
        """With one clear error, and not after hours."""
        clock = Ticking()
        store = SqliteStore(path, clock=clock)
        store.write([ended_span(at, fields=metadata(a=1)) for at in range(1, 100)])
        store._is_closing.set()

        with pytest.raises(StoreError, match="closed during a retention; what it has deleted stays deleted"):
            store.retain(START_NS + 1, None)

        store._is_closing.clear()
        assert 0 < len(ids(store)) < 99

    def test_another_process_writes_meanwhile(self, path: Path, store: SqliteStore) -> None:
        """None of its writes fails or is lost."""
        for first in range(1, 1_000, 250):
            fields = many(5)
            store.write([ended_span(at, fields=fields) for at in range(first, first + 250)])
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdin is not None
            assert writer.stdout.readline() == "begun\n"

            found = store.retain(START_NS + HOUR_NS, None)

            writer.stdin.close()
            written = int(writer.stdout.readline())
        assert writer.returncode == 0
        assert found.spans_deleted == 1_000
        assert written > 0
        assert len(ids(store)) == written


# It writes one span after the other until its standard input is closed.
WRITER = f"""
import sys, threading
from tests.store.contract import START_NS, ended_span, metadata
from otel_metadata.store.sqlite.store import SqliteStore

store, ended, count = SqliteStore(sys.argv[1]), threading.Event(), 0
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
while not ended.is_set():
    count += 1
    store.write([ended_span(10_000 + count, trace_id=5, start_ns=START_NS + 2 * {HOUR_NS}, fields=metadata(a=count))])
    if count == 1:
        print("begun", flush=True)
print(count, flush=True)
"""


class TestClient:
    @pytest.fixture
    def client(self, path: Path, store: SqliteStore) -> Iterator[om.Client]:
        now_ns = SystemClock.wall_ns()
        store.write([ended_span(at, start_ns=now_ns - at * HOUR_NS) for at in (1, 2, 3)])
        with om.Client(f"sqlite:///{path}") as client:
            yield client

    def test_an_age_or_a_time(self, client: om.Client) -> None:
        """As a program has it."""
        then = dt.datetime.now(dt.timezone.utc) - dt.timedelta(hours=1.5)

        assert client.spans.retain(older_than=dt.timedelta(hours=2.5)).spans_deleted == 1
        assert client.spans.retain(older_than=then, max_bytes=10**6).spans_deleted == 1
        stored_bytes = client.spans.retain(max_bytes=10**6).stored_bytes
        assert client.spans.retain(older_than="2001-01-01") == Retained(0, 0, stored_bytes)

    @pytest.mark.parametrize(
        ("given", "told"),
        [
            ({}, "retain() is 'neither older_than nor max_bytes'; expected at least one of them"),
            ({"older_than": dt.timedelta(hours=-1)}, "expected a timedelta of 0 or more, or a time before now"),
            ({"older_than": dt.timedelta.max}, "expected a timedelta of 0 or more, or a time before now"),
            ({"older_than": "2200-01-01"}, "older_than is '2200-01-01'; expected a timedelta"),
            ({"older_than": "30d"}, "older_than is '30d'; expected a timedelta"),
            ({"older_than": 30}, "older_than is 30; expected a timedelta"),
            ({"max_bytes": 0}, "max_bytes is 0; expected a whole number of bytes, at least 1,000,000"),
            ({"max_bytes": 500}, "max_bytes is 500; expected a whole number of bytes, at least 1,000,000"),
            ({"max_bytes": -1}, "max_bytes is -1; expected a whole number of bytes"),
            ({"max_bytes": True}, "max_bytes is True; expected a whole number of bytes"),
            ({"max_bytes": 2e9}, "expected a whole number of bytes"),
            ({"max_bytes": "2GB"}, "max_bytes is '2GB'; expected a whole number of bytes"),
            ({"older_than": dt.timedelta(0), "max_bytes": 1}, "max_bytes is 1; expected a whole number of bytes"),
        ],
    )
    def test_a_wrong_argument_deletes_nothing(self, client: om.Client, given: dict[str, Any], told: str) -> None:
        """One error says what is wrong."""
        with pytest.raises(ConfigurationError) as error:
            client.spans.retain(**given)

        assert told in str(error.value)
        assert len(client.spans.list()) == 3

    def test_a_store_elsewhere_says_what_to_do(self) -> None:
        """Without asking the server."""
        with pytest.raises(StoreError, match="retain deletes from an SQLite store only; expected a TTL on the tables"):
            ClickHouseStore("clickhouse://localhost:1/x").retain(1, None)
