"""The embedded store keeps the contract of every store, and what is its own: its file, its errors, its processes."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.store.contract import (
    END_NS,
    START_NS,
    TRACE,
    DurationContract,
    OpenStore,
    StoreContract,
    ended_span,
    in_one_store,
    metadata,
    only,
    trace_hex,
)
from tests.store.contract_history import (
    Held,
    HistoryContract,
    arrivals,
    arrive,
    batches,
    expected,
    judge,
    set_at,
    shown,
)
from tests.store.spans import patches_of

from otel_metadata.destination_factory import open_store as open_url
from otel_metadata.errors import ConfigurationError, StoreError, StoreFormatError
from otel_metadata.model.authors import Authors
from otel_metadata.model.condition import And, Compare, Condition, HasTag, IsNull, Subject
from otel_metadata.model.evaluation import Evaluation
from otel_metadata.model.merge import Fields
from otel_metadata.model.patch import Patch
from otel_metadata.model.record import Position, SpanQuery
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.seams import SystemClock
from otel_metadata.store.filter.language import parse
from otel_metadata.store.sqlite import file as sqlite_file
from otel_metadata.store.sqlite import query as sqlite_query
from otel_metadata.store.sqlite import store as sqlite_module
from otel_metadata.store.sqlite.file import STORE_ID
from otel_metadata.store.sqlite.store import SCHEMA_VERSION, SqliteStore

PROCESSES = 4
PATCHES = 50
OPENERS = 8
FILES = 10


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spans.db"


@pytest.fixture
def open_store(path: Path) -> Iterator[OpenStore]:
    opened: list[SqliteStore] = []

    def one() -> SqliteStore:
        opened.append(SqliteStore(path))
        return opened[-1]

    yield one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: OpenStore) -> SqliteStore:
    store = open_store()
    assert isinstance(store, SqliteStore)
    return store


class TestContract(StoreContract):
    """What every store promises."""


class TestDurations(DurationContract):
    """What a store promises that can change durations."""


class TestHistory(HistoryContract):
    """What a store with a memory promises."""

    @in_one_store
    @given(data=st.data())
    def test_a_history_that_is_cut_is_the_same_in_any_order(self, data: st.DataObject) -> None:
        """What is kept, and whether older values were dropped, also where most are dropped at once."""
        come = data.draw(st.lists(arrivals(), min_size=3, max_size=12), label="arrivals")
        again = data.draw(st.lists(st.sampled_from(come), max_size=4), label="again")
        order = data.draw(st.permutations([*come, *again]), label="order")
        held: Held = {}
        for one in come:
            judge(held, one)
        store = SqliteStore(":memory:", history_limit=2)

        for batch in batches(data, order):
            arrive(store, TRACE, batch)

        assert shown(store.history(trace_hex(), f"{1:016x}")) == expected(held, limit=2)
        store.close()

    def test_what_is_not_shown_is_removed(self, path: Path) -> None:
        """A file does not grow with each value of a field that is set again and again."""
        store = SqliteStore(path, history_limit=5)
        for first in range(0, 4_000, 400):
            store.patch([Patch(SpanRef(TRACE, 1), set_at(first + ns, ns)) for ns in range(400)])

        with store._opened(store._deadline_ns(None)) as connection:
            (count,) = connection.execute("SELECT count(*) FROM history").fetchone()
        assert 6 <= count < 1_000
        store.close()

    @pytest.mark.parametrize("url", ["sqlite:///{}?history=off", "sqlite:///{}?history=on", "sqlite:///{}"])
    def test_a_url_turns_it_off(self, path: Path, url: str) -> None:
        """The values are the same; what others have kept in the file stays."""
        first, second = SqliteStore(path), open_url(url.format(path))
        for store, ns in ((first, 2), (first, 3), (second, 5), (second, 1)):
            store.patch([Patch(SpanRef(TRACE, 1), set_at(ns, ns))])
        first.close()
        second.close()

        kept = [one.value for one in SqliteStore(path).history(trace_hex(), f"{1:016x}")]
        assert kept == ([5, 2] if "off" in url else [5, 3, 2, 1])

    @pytest.mark.parametrize("query", ["?history=no", "?history", "?mode=ro", "?", "?history=off&x=1"])
    def test_another_parameter_of_a_url_is_refused(self, query: str) -> None:
        """No file with a question mark in its name is made."""
        with pytest.raises(ConfigurationError, match=r"\(\?history=off behind either\)"):
            open_url(f"sqlite:///spans.db{query}")

    def test_an_update_that_fails_leaves_no_history(self, store: SqliteStore) -> None:
        """What it superseded is taken back with it, and the next update keeps what it supersedes."""
        target = SpanRef(TRACE, 1)
        store.patch([Patch(target, set_at(1, 1))])
        with pytest.raises(StoreError):
            store.patch([Patch(target, set_at(2, 2)), Patch(target, set_at(1 << 70, 3))])

        assert [one.value for one in store.history(trace_hex(), f"{1:016x}")] == [1]
        store.patch([Patch(target, set_at(4, 4))])
        assert [one.value for one in store.history(trace_hex(), f"{1:016x}")] == [4, 1]

    def test_a_time_is_no_part_of_an_export(self, store: SqliteStore) -> None:
        """An export would have the values of now under the name of another time."""
        with pytest.raises(StoreError, match="an export has the values of now"):
            store.export(SpanQuery(at_ns=5))


class TestAuthors:
    @pytest.fixture
    def authors(self, monkeypatch: pytest.MonkeyPatch) -> Authors:
        authors = Authors()
        monkeypatch.setattr(sqlite_module, "AUTHORS", authors)
        return authors

    def test_a_value_says_who_set_it(self, store: SqliteStore, authors: Authors) -> None:
        """On a span and by an update; who is not known has no name, and neither has a plain attribute."""
        authors.add(7, "shop")
        authors.add(9, "cli:ada")
        store.write([ended_span(1, attributes={"metadata.plain": 1}, fields=set_at(END_NS, "up", 7))])
        store.patch([Patch(SpanRef(TRACE, 1), set_at(END_NS + 1, "down", 9))])
        store.patch([Patch(SpanRef(TRACE, 1), set_at(END_NS + 2, "?", 5))])

        records = store.history(trace_hex(), f"{1:016x}")

        assert [(one.value, one.writer, one.author) for one in records] == [
            ("?", 5, None),
            ("down", 9, "cli:ada"),
            ("up", 7, "shop"),
            (1, 0, None),
        ]

    def test_a_name_that_is_told_later_is_written_later(self, store: SqliteStore, authors: Authors) -> None:
        """With the next value of the writer; another process reads it."""
        store.patch([Patch(SpanRef(TRACE, 1), set_at(1, 1, 7))])
        authors.add(7, "shop")
        store.patch([Patch(SpanRef(TRACE, 1), set_at(2, 2, 7))])
        store.close()

        assert {one.author for one in store.history(trace_hex(), f"{1:016x}")} == {"shop"}

    @pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
    def test_of_two_names_of_one_writer_the_greater_is_kept(
        self, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, names: tuple[str, str]
    ) -> None:
        """Two processes may have heard different names; whoever writes first."""
        for name in names:
            authors = Authors()
            authors.add(7, name)
            monkeypatch.setattr(sqlite_module, "AUTHORS", authors)
            open_store().patch([Patch(SpanRef(TRACE, 1), set_at(1, 1, 7))])

        assert [one.author for one in open_store().history(trace_hex(), f"{1:016x}")] == ["b"]

    def test_a_name_is_written_once_for_each_connection(self, store: SqliteStore, authors: Authors) -> None:
        """Not with each value; but again after a write that failed, and into a file that was replaced."""
        authors.add(7, "shop")
        with pytest.raises(StoreError):
            store.patch(
                [Patch(SpanRef(TRACE, 1), {**set_at(1, 1, 7), **set_at(1 << 70, 1, name=("span", "output", ""))})]
            )
        store.patch([Patch(SpanRef(TRACE, 1), set_at(1, 1, 7))])
        with store._opened(store._deadline_ns(None)) as connection:
            assert connection.execute("SELECT name FROM writers").fetchall() == [("shop",)]
            connection.execute("UPDATE writers SET name = ''")

        store.patch([Patch(SpanRef(TRACE, 1), set_at(2, 1, 7))])
        assert {one.author for one in store.history(trace_hex(), f"{1:016x}")} == {""}
        store.close()
        store.patch([Patch(SpanRef(TRACE, 1), set_at(3, 1, 7))])
        assert {one.author for one in store.history(trace_hex(), f"{1:016x}")} == {"shop"}


REGION = Compare(Subject("span", "metadata", "region"), "=", "us")
USER = Compare(Subject("span", "user_id"), "=", "ann")
TENANT = Compare(Subject("trace", "metadata", "tenant"), "=", 5)
STEP = Compare(Subject("span", "metadata", "step"), ">", 5)
LABEL = Compare(Subject("span", "evaluation", "Correctness", "label"), "=", "wrong")
TRACE_LABEL = Compare(Subject("trace", "evaluation", "Correctness", "label"), "=", "wrong")


class TestPlan:
    """How SQLite looks for a page: what keeps its time the same, however many spans there are."""

    @pytest.mark.parametrize(
        ("query", "index"),
        [
            (SpanQuery(), "spans_by_start"),
            (SpanQuery(start_ns=1, end_ns=2, after=Position(2, "a", "b"), condition=STEP), "spans_by_start"),
            (SpanQuery(project="shop", start_ns=1), "spans_by_project"),
            (SpanQuery(condition=REGION), "fields_by_value"),
            (SpanQuery(condition=HasTag("span", "vip")), "fields_by_value"),
            (SpanQuery(condition=And((STEP, LABEL)), start_ns=1), "fields_by_label"),
            (SpanQuery(condition=And((STEP, REGION)), start_ns=1, end_ns=5), "fields_by_value"),
            (SpanQuery(condition=REGION, after=Position(2, "a", "b"), project="shop"), "fields_by_value"),
        ],
    )
    def test_a_page_is_read_in_the_order_of_an_index(
        self, store: SqliteStore, path: Path, query: SpanQuery, index: str
    ) -> None:
        """Nothing is sorted, so the page ends with its last span."""
        plan = self.plan(store, path, query)

        assert index in plan[0]
        assert not any("TEMP B-TREE" in line or (line.startswith("SCAN s ") and index not in line) for line in plan)

    @pytest.mark.parametrize(
        ("condition", "index"),
        [(USER, "fields_by_value"), (TENANT, "fields_by_value"), (TRACE_LABEL, "fields_by_label")],
        ids=["user", "trace metadata", "trace evaluation"],
    )
    def test_what_is_said_of_a_trace_leads_to_its_spans(
        self, store: SqliteStore, path: Path, condition: Condition, index: str
    ) -> None:
        """No span of another trace is looked at."""
        plan = self.plan(store, path, SpanQuery(condition=condition))

        assert any(index in line for line in plan)
        assert any(line.startswith("SEARCH s ") and "trace_id=?" in line for line in plan)

    @pytest.mark.parametrize("condition", [And((REGION, LABEL)), And((LABEL, REGION))], ids=["last", "first"])
    def test_of_several_values_the_rarest_leads(self, store: SqliteStore, path: Path, condition: Condition) -> None:
        """Wherever it stands: what many spans have is not walked over to find the few that have both."""
        verdict = Evaluation("Correctness", label="wrong").to_json()
        wrong: Fields = {("span", "evaluation", "Correctness"): (verdict, (9, 1))}
        store.write([ended_span(at, fields=metadata(region="us") | (wrong if at == 3 else {})) for at in range(1, 9)])
        plan = self.plan(store, path, SpanQuery(condition=condition))

        assert "fields_by_label" in plan[0]
        assert only(store, condition=condition).span_id == f"{3:016x}"

    def test_values_are_counted_only_where_there_is_a_choice_and_not_beyond_what_is_quick(self) -> None:
        """A page is not worth a walk over an index to find the better one."""
        asked: list[sqlite_query.Sql] = []

        def count(question: sqlite_query.Sql) -> int:
            asked.append(question)
            return 0

        sqlite_query.select(SpanQuery(condition=And((REGION, STEP))), count=count)
        assert asked == []

        sqlite_query.select(SpanQuery(condition=And((REGION, LABEL))), count=count)
        assert [question.sql.endswith("LIMIT 1000)") for question in asked] == [True, True]

    def test_errors_and_roots_are_found_by_indexes_of_their_own(self, store: SqliteStore, path: Path) -> None:
        """Errors by two of them: those of spans, and those of statuses from updates."""
        errors = self.plan(store, path, SpanQuery(condition=Compare(Subject("span", "status"), "=", "ERROR")))
        searched = [line for line in errors if "errors_by_start" in line or "statuses_by_start" in line]
        assert len(searched) == 2
        assert sum("TEMP B-TREE" in line for line in errors) <= 2  # of what each of them has found, at most a page
        roots = self.plan(store, path, SpanQuery(condition=IsNull(Subject("span", "parent_id"))))
        assert "roots_by_start" in roots[0]
        assert not any("TEMP B-TREE" in line for line in roots)
        of_project = self.plan(store, path, SpanQuery(condition=IsNull(Subject("span", "parent_id")), project="shop"))
        assert "spans_by_project" in of_project[0]

    @pytest.mark.parametrize(
        ("query", "index"),
        [(SpanQuery(trace_id="t", condition=REGION), "trace_id=?"), (SpanQuery(span_id="s"), "span_id=?")],
    )
    def test_ids_come_first(self, store: SqliteStore, path: Path, query: SpanQuery, index: str) -> None:
        """A trace and a span are few rows."""
        assert index in self.plan(store, path, query)[0]

    @pytest.mark.parametrize(
        "text",
        [
            "trace_id = 'a'",
            "trace_id IN ('a', 'b')",
            "trace_id IN ('a') AND parent_id IS NULL AND status_code = 'ERROR'",
        ],
    )
    def test_traces_that_a_filter_names_come_first_too(self, store: SqliteStore, path: Path, text: str) -> None:
        """Only their spans are looked at."""
        plan = self.plan(store, path, SpanQuery(condition=parse(text)))
        assert any(line.startswith("SEARCH s USING") and "(trace_id=?" in line for line in plan)
        assert not any(line.startswith("SCAN s") for line in plan)

    @pytest.mark.parametrize(
        "text",
        [
            "late_count > 0",
            "late_count >= 2 AND metadata.a = TRUE",
            "trace.late_count > 0",
            "route.metadata.thumbs = 'late'",
            "route.trace.tags.vip = 'late' AND latency_ms > 5",
        ],
    )
    def test_late_values_are_found_by_their_traces(self, store: SqliteStore, path: Path, text: str) -> None:
        """While these are few: only their spans are looked at, and the fields of each."""
        plan = self.plan(store, path, SpanQuery(condition=parse(text), limit=50))
        assert "SCAN t" in plan[0]
        assert "s USING INDEX" in plan[1]
        assert "trace_id=?" in plan[1]
        assert all("f USING PRIMARY KEY (trace_id=?" in line for line in plan if line.startswith("SEARCH f "))

    def test_many_late_traces_are_not_collected(self, store: SqliteStore, path: Path) -> None:
        """A page is soon full of the newest spans, and what a store has late may be all its spans."""
        store.patch_rows(
            [(f"{number:032x}", "", {("trace", "metadata", "thumbs"): ("up", (number, 1))}) for number in range(2_000)]
        )
        plan = self.plan(store, path, SpanQuery(condition=parse("late_count > 0"), limit=50))
        assert "spans_by_start" in plan[0]

    def test_a_trace_without_late_values_is_taken_off_the_list(self, store: SqliteStore, path: Path) -> None:
        """When its last field goes, by a deletion or a retention; one that waits for its span keeps it there."""
        span, version = ended_span(), (1, 1)
        trace_id, span_id = f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"
        fields = {("span", "metadata", "thumbs"): ("up", version)}

        def listed() -> list[str]:
            connection = sqlite3.connect(path)
            try:
                return [trace for (trace,) in connection.execute("SELECT trace_id FROM late_traces")]
            finally:
                connection.close()

        store.write([span])
        store.patch_rows([(trace_id, span_id, fields), (trace_id, "b" * 16, fields)])
        store.patch_rows([("c" * 32, "c" * 16, fields)], route="import")
        assert listed() == [trace_id]
        store.delete([(trace_id, span_id)], (2, 1))
        assert listed() == [trace_id]
        store.retain(1 << 62, None)
        assert listed() == []

    @pytest.mark.parametrize("text", ["late_count = 0", "NOT late_count > 0", "trace.late_count < 5"])
    def test_a_count_beside_the_way_is_read_by_the_span(self, store: SqliteStore, path: Path, text: str) -> None:
        """What has no late value is not in the list of traces that have one."""
        plan = self.plan(store, path, SpanQuery(condition=parse(text), limit=50))
        assert "spans_by_start" in plan[0]
        assert not any("SCAN t" in line for line in plan)

    @staticmethod
    def plan(store: SqliteStore, path: Path, query: SpanQuery) -> list[str]:
        store.write([ended_span()])
        connection = sqlite3.connect(path)
        try:
            selection = sqlite_query.select(query, count=sqlite_query.counting(connection))
            return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {selection.sql}", selection.values)]
        finally:
            connection.close()


class TestUpgrade:
    def test_an_upgrade_that_was_killed_goes_on(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """At the next start, with the indexes that are missing; the file has its old version until then."""
        of_version_3(path)
        layout = sqlite_module._LAYOUT
        with monkeypatch.context() as patching:
            broken = (*layout.indexes[:2], sqlite_file.Index("killed", "nothing_at_all", "x", "1"))
            patching.setattr(sqlite_module, "_LAYOUT", layout._replace(indexes=broken))
            with pytest.raises(StoreError, match="nothing_at_all"):
                SqliteStore(path).query(SpanQuery())
        assert version_and_indexes(path) == (3, {"roots_by_start", "errors_by_start"})
        store = SqliteStore(path)
        assert store.query(SpanQuery()) == []
        store.close()
        fresh = path.with_name("fresh.db")
        other = SqliteStore(fresh)
        other.write([])
        other.close()
        assert version_and_indexes(path) == version_and_indexes(fresh)
        assert len(version_and_indexes(path)[1]) == len(layout.indexes)

    def test_an_upgrade_of_a_large_file_lets_others_write_between_its_steps(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each index is a transaction of its own."""
        of_version_3(path)
        monkeypatch.setattr(sqlite_file, "_LARGE_PAGES", 1)
        writes = []

        class Clock(SystemClock):  # type: ignore[misc] # final: it is not for others
            def wait(self, event: threading.Event, timeout_ns: int | None) -> bool:  # type: ignore[override] # static
                other = sqlite3.connect(path, timeout=0)
                other.execute("INSERT INTO deleted VALUES (?, '', 0, '')", (f"{len(writes)}",))
                other.commit()
                other.close()
                writes.append(timeout_ns)
                return False

        store = SqliteStore(path, clock=Clock())
        assert store.query(SpanQuery()) == []
        store.close()
        assert len(writes) == len(sqlite_module._LAYOUT.indexes)


def of_version_3(path: Path) -> None:
    """Make a store as an earlier version made it."""
    connection = sqlite3.connect(path)
    for script in (sqlite_module._SCHEMA, sqlite_module.VERSION_2, sqlite_module.VERSION_3):
        connection.executescript(script)
    connection.execute(f"PRAGMA application_id = {STORE_ID}")
    connection.execute("PRAGMA user_version = 3")
    connection.close()


def version_and_indexes(path: Path) -> tuple[int, set[str]]:
    """Return the version of a store, and the indexes of its last version."""
    connection = sqlite3.connect(path)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'").fetchall()
    connection.close()
    named = {index.name for index in sqlite_query.INDEXES}
    return version, {name for (name,) in rows} & named


class TestFile:
    def test_it_is_for_its_owner_alone(self, store: SqliteStore, path: Path) -> None:
        """The file and those that SQLite puts beside it have mode 0600, whatever the umask."""
        before = os.umask(0)
        try:
            store.write([ended_span()])
        finally:
            os.umask(before)

        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        assert modes == dict.fromkeys(["spans.db", "spans.db-shm", "spans.db-wal"], 0o600)

    def test_it_is_made_at_the_first_use(self, path: Path) -> None:
        """A store that nobody uses leaves no file."""
        SqliteStore(path).close()

        assert list(path.parent.iterdir()) == []

    def test_closing_leaves_one_file(self, store: SqliteStore, path: Path) -> None:
        """After the last connection is closed the log is folded in."""
        store.write([ended_span()])

        store.close()

        assert [file.name for file in path.parent.iterdir()] == ["spans.db"]

    def test_an_empty_file_becomes_a_store(self, store: SqliteStore, path: Path) -> None:
        """What `touch` or a temporary file leaves is used."""
        path.touch()

        store.write([ended_span()])

        assert only(store).name == "work"

    def test_it_says_whose_it_is(self, store: SqliteStore, path: Path) -> None:
        """Application id and version are in the file's header."""
        store.write([ended_span()])
        store.close()

        header = path.read_bytes()[:100]
        assert int.from_bytes(header[68:72], "big") == STORE_ID
        assert int.from_bytes(header[60:64], "big") == SCHEMA_VERSION

    def test_a_store_in_memory_needs_no_file(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """`:memory:` is no name of a file."""
        monkeypatch.chdir(path.parent)
        store = SqliteStore(":memory:")

        store.write([ended_span()])

        assert only(store).name == "work"
        store.close()
        assert list(path.parent.iterdir()) == []


def foreign_database(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE spans (a)")
    connection.close()


def foreign_empty_database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA application_id = 7")
    connection.execute("PRAGMA user_version = 1")
    connection.close()


def newer_store(path: Path) -> None:
    store = SqliteStore(path)
    store.write([ended_span()])
    store.close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()


def text_file(path: Path) -> None:
    path.write_text("this is no database, and longer than the header of one: " * 20)


def short_text_file(path: Path) -> None:
    path.write_text("short")


class TestRefusals:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (foreign_database, "is another program's SQLite database; expected a store of otel-metadata"),
            (foreign_empty_database, "is another program's SQLite database; expected a store of otel-metadata"),
            (newer_store, f"is a store of version {SCHEMA_VERSION + 1}; expected version {SCHEMA_VERSION}"),
            (text_file, "is not an SQLite database; expected a store of otel-metadata"),
            (short_text_file, "is not an SQLite database; expected a store of otel-metadata"),
            (Path.mkdir, "is not a file; expected a path of a file"),
        ],
    )
    @pytest.mark.parametrize("call", ["write", "patch", "query"])
    def test_what_is_no_store_of_ours_is_refused_and_unchanged(
        self, path: Path, make: object, message: str, call: str
    ) -> None:
        """Another program's file, a newer version's, or a directory: the error says so, and not one byte differs."""
        make(path)  # type: ignore[operator]
        before = {file.name: file.read_bytes() for file in path.parent.iterdir() if file.is_file()}
        store = SqliteStore(path)
        calls = {
            "write": lambda: store.write([ended_span()]),
            "patch": lambda: store.patch([Patch(SpanRef(TRACE, 1), metadata(k=1))]),
            "query": lambda: store.query(SpanQuery()),
        }

        with pytest.raises(StoreFormatError, match=message) as error:
            calls[call]()

        assert error.value.path == str(path)
        store.close()
        assert {file.name: file.read_bytes() for file in path.parent.iterdir() if file.is_file()} == before

    def test_a_missing_directory_is_told_and_not_made(self, tmp_path: Path) -> None:
        """A wrong path is an error of the store, not a new tree of directories."""
        store = SqliteStore(tmp_path / "missing" / "spans.db")

        with pytest.raises(StoreError, match="expected a path in a directory that exists") as error:
            store.write([ended_span()])

        assert not isinstance(error.value, StoreFormatError)
        assert list(tmp_path.iterdir()) == []

    def test_a_store_that_was_refused_works_once_the_path_is_right(self, path: Path) -> None:
        """The path is looked at again at each use."""
        path.mkdir()
        store = SqliteStore(path)
        with pytest.raises(StoreFormatError):
            store.query(SpanQuery())

        path.rmdir()

        store.write([ended_span()])
        assert only(store).name == "work"
        store.close()

    def test_a_batch_is_written_whole_or_not_at_all(self, store: SqliteStore) -> None:
        """One row that cannot be written takes back the rows before it, and the store goes on."""
        store.write([ended_span(1)])
        too_far = ended_span(3, start_ns=1 << 70)

        with pytest.raises((StoreError, OverflowError)):
            store.write([ended_span(2, fields=metadata(k=1)), too_far])

        assert [record.span_id[-1] for record in store.query(SpanQuery())] == ["1"]
        store.patch([Patch(SpanRef(TRACE, 1), metadata(k=2))])
        assert only(store).metadata == {"k": 2}

    def test_a_lock_that_is_never_released_is_an_error_of_the_store(self, store: SqliteStore, path: Path) -> None:
        """A write waits as long as it was told, then says so; nothing was written."""
        store.write([ended_span(1)])
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        impatient = SqliteStore(path, busy_timeout_millis=0)

        with pytest.raises(StoreError, match="locked"):
            impatient.write([ended_span(2)])

        other.execute("ROLLBACK")
        other.close()
        impatient.write([ended_span(3)])
        impatient.close()
        assert sorted(record.span_id[-1] for record in store.query(SpanQuery())) == ["1", "3"]


class OnWait(SystemClock):
    """A clock that does something when the store waits for another's lock, then waits as the system's does."""

    def __init__(self, action: Callable[[], object]) -> None:
        self.waits = 0
        self._action = action

    def wait(self, event: threading.Event, timeout_ns: int | None) -> bool:  # type: ignore[override]
        self.waits += 1
        self._action()
        return event.wait(None if timeout_ns is None else timeout_ns / 1e9)


class TestWaiting:
    def test_a_new_file_that_another_process_is_making_is_waited_for(self, path: Path) -> None:
        """SQLite answers "locked" at once, whatever its timeout, when the journal mode cannot be changed yet."""
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        clock = OnWait(other.close)
        store = SqliteStore(path, clock=clock)

        store.write([ended_span()])

        assert only(store).name == "work"
        assert clock.waits >= 1
        store.close()

    def test_a_file_in_wal_mode_is_opened_while_another_process_writes(self, store: SqliteStore, path: Path) -> None:
        """Nothing is changed in a store that is made already, so its spans can be read at any time."""
        store.write([ended_span()])
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        reader = SqliteStore(path, busy_timeout_millis=0)

        assert only(reader).name == "work"
        reader.close()
        other.close()

    def test_closing_ends_a_write_that_waits(self, store: SqliteStore, path: Path) -> None:
        """A store whose write waits for another process is closed without waiting for it; the write raises."""
        store.write([ended_span(1)])
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        is_waiting = threading.Event()
        patient = SqliteStore(path, busy_timeout_millis=600_000, clock=OnWait(is_waiting.set))
        errors: list[StoreError] = []

        def write() -> None:
            try:
                patient.write([ended_span(2)])
            except StoreError as error:
                errors.append(error)

        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        assert is_waiting.wait(60)

        patient.close()
        writer.join(60)

        assert not writer.is_alive()
        assert ["locked" in str(error) for error in errors] == [True]
        other.close()
        patient.write([ended_span(3)])
        assert sorted(record.span_id[-1] for record in patient.query(SpanQuery())) == ["1", "3"]
        patient.close()

    def test_closing_interrupts_a_write_that_runs_too_long(self, store: SqliteStore) -> None:
        """A statement that does not come to its end is interrupted, and taken back."""
        store.write([ended_span(1)])
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
        is_running = threading.Event()
        errors: list[StoreError] = []

        def write() -> None:
            try:
                with store._transaction() as connection:
                    is_running.set()
                    connection.execute(endless).fetchall()
            except StoreError as error:
                errors.append(error)

        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        assert is_running.wait(60)

        store.close()
        writer.join(60)

        assert not writer.is_alive()
        assert ["interrupted" in str(error) for error in errors] == [True]

    def test_a_thread_waits_for_another_only_as_long_as_it_was_told(self, store: SqliteStore) -> None:
        """The store's own lock is part of the time that a write has."""
        with (
            store._opened(store._deadline_ns(None)),
            pytest.raises(StoreError, match="another thread's write has not ended"),
        ):
            store.patch([Patch(SpanRef(TRACE, 1), metadata(k=1))], timeout_millis=0)


# A process of its own, which starts with nothing but the path: it waits for a line, so that all begin at once.
WRITER = """
import sys
from otel_metadata.store.sqlite.store import SqliteStore
from tests.store.spans import ended_span, patches_of
path, writer, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
store = SqliteStore(path)
print("ready", flush=True)
sys.stdin.readline()
for patch in patches_of(writer, count):
    store.patch([patch])
    store.write([ended_span(1000 * writer)])
store.close()
"""

# Opens each file that it is told, writes a span of its own, and says how that went.
OPENER = """
import sys
from otel_metadata.store.sqlite.store import SqliteStore
from tests.store.spans import ended_span
print("ok", flush=True)
for line in sys.stdin:
    store = SqliteStore(line.strip())
    try:
        store.write([ended_span(int(sys.argv[1]))])
        store.close()
        print("ok", flush=True)
    except Exception as error:
        print(repr(error), flush=True)
"""


class TestManyWriters:
    def test_several_processes_at_once_lose_nothing(self, store: SqliteStore, path: Path) -> None:
        """All begin with a file that is not there yet; every patch of every process is merged."""
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(path), str(writer), str(PATCHES)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=Path(__file__).parents[3],
                text=True,
            )
            for writer in range(1, PROCESSES + 1)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.communicate("go\n", timeout=120)
        assert [process.returncode for process in processes] == [0] * PROCESSES

        store.write([ended_span(1)])

        record = only(store, span_id=f"{1:016x}")
        expected = {f"{writer}.{at}": at for writer in range(1, PROCESSES + 1) for at in range(PATCHES)}
        assert record.metadata == {**expected, "shared": [PROCESSES, PATCHES - 1]}
        assert record.tags == ("seen",)
        assert len(store.query(SpanQuery())) == PROCESSES + 1

    def test_several_processes_open_new_files_at_once(self, tmp_path: Path) -> None:
        """Every process opens every file as the others do, before it is there: none of them fails."""
        paths = [str(tmp_path / f"{at}.db") for at in range(FILES)]
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", OPENER, str(writer)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=Path(__file__).parents[3],
                text=True,
            )
            for writer in range(1, OPENERS + 1)
        ]
        answers: list[str] = []
        for path in ["", *paths]:  # the first line only says that a process is there
            for process in processes:
                assert process.stdin is not None
                if path:
                    process.stdin.write(f"{path}\n")
                    process.stdin.flush()
            for process in processes:
                assert process.stdout is not None
                answers.append(process.stdout.readline())
        for process in processes:
            process.communicate(timeout=120)

        assert set(answers) == {"ok\n"}
        for path in paths:
            store = SqliteStore(path)
            assert len(store.query(SpanQuery())) == OPENERS
            store.close()

    def test_several_threads_at_once_lose_nothing(self, store: SqliteStore) -> None:
        """One store object is for any thread."""
        start = threading.Barrier(PROCESSES)

        def write(writer: int) -> None:
            start.wait()
            for patch in patches_of(writer, PATCHES):
                store.patch([patch])

        threads = [threading.Thread(target=write, args=(writer,)) for writer in range(1, PROCESSES + 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        store.write([ended_span(1)])

        assert len(only(store).metadata) == PROCESSES * PATCHES + 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="There is no fork here.")
class TestFork:
    def test_a_connection_does_not_cross_a_fork(self, store: SqliteStore) -> None:
        """Parent and child go on with connections of their own, and both see what both wrote."""
        store.write([ended_span(1)])
        store.patch([Patch(SpanRef(TRACE, 1), metadata(parent=1))])

        def child() -> None:
            store.patch([Patch(SpanRef(TRACE, 1), metadata(child=2))])
            assert only(store).metadata == {"parent": 1, "child": 2}
            store.close()

        assert in_child(child) == 0
        store.patch([Patch(SpanRef(TRACE, 1), {("span", "output", ""): ("x", (START_NS, 1))})])
        record = only(store)
        assert (record.metadata, record.output) == ({"parent": 1, "child": 2}, "x")

    def test_a_lock_that_a_thread_held_at_the_fork_does_not_stop_the_child(self, store: SqliteStore) -> None:
        """The thread that would release it exists in the parent alone."""
        store.write([ended_span(1)])
        with store._opened(store._deadline_ns(None)):
            result = in_child(lambda: store.patch([Patch(SpanRef(TRACE, 1), metadata(child=2))]))

        assert result == 0
        assert only(store).metadata == {"child": 2}

    def test_the_end_of_a_child_that_never_used_it_changes_nothing(self, store: SqliteStore) -> None:
        """Closing in the child leaves the parent's connection open."""
        store.write([ended_span(1)])

        assert in_child(store.close) == 0

        store.write([ended_span(2)])
        assert len(store.query(SpanQuery())) == 2


def in_child(call: object) -> int:
    """Run *call* in a forked child, which a signal ends if it hangs, and return its exit code."""
    import signal

    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(60)
            call()  # type: ignore[operator]
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize(("survives", "level"), [(False, 1), (True, 2)])
def test_a_write_waits_for_the_disk_if_it_has_to_survive_a_loss_of_power(
    tmp_path: Path, *, survives: bool, level: int
) -> None:
    """SQLite's `synchronous` is FULL (2), else NORMAL (1); also after the file was opened again."""
    store = SqliteStore(tmp_path / "spans.db")
    store.survives_power_loss = survives
    for number in (1, 2):
        store.write([ended_span(number)])
        assert store._connection is not None
        assert store._connection.execute("PRAGMA synchronous").fetchone() == (level,)
        store.close()
