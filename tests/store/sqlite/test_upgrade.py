"""Files of earlier versions are brought up to date in steps, while others write."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest
from tests.store.contract import END_NS, START_NS, TRACE, ended_span, metadata, only, trace_hex

from otel_metadata.model.condition import Compare, Subject
from otel_metadata.model.merge import Fields
from otel_metadata.model.patch import Patch
from otel_metadata.model.record import SpanQuery
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.store.sqlite import condition as sqlite_filter
from otel_metadata.store.sqlite import upgrade as upgrade_module
from otel_metadata.store.sqlite.file import STORE_ID
from otel_metadata.store.sqlite.store import SCHEMA_VERSION, SqliteStore

# What earlier versions made.
VERSION_1 = """
CREATE TABLE spans (
    trace_id TEXT NOT NULL, span_id TEXT NOT NULL, parent_id TEXT, trace_state TEXT NOT NULL,
    name TEXT NOT NULL, kind TEXT NOT NULL, start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL,
    status_code TEXT NOT NULL, status_message TEXT,
    attributes TEXT NOT NULL, events TEXT NOT NULL, links TEXT NOT NULL, resource TEXT NOT NULL,
    scope_name TEXT NOT NULL, scope_version TEXT,
    PRIMARY KEY (trace_id, span_id)
);
CREATE INDEX spans_by_start ON spans (start_ns DESC);
CREATE INDEX spans_by_span_id ON spans (span_id);
CREATE TABLE fields (
    trace_id TEXT NOT NULL, span_id TEXT NOT NULL, level TEXT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL,
    value TEXT NOT NULL, ns INTEGER NOT NULL, writer TEXT NOT NULL,
    PRIMARY KEY (trace_id, span_id, level, kind, key)
) WITHOUT ROWID;
"""
VERSION_2 = f"""
ALTER TABLE spans ADD COLUMN project TEXT GENERATED ALWAYS AS ({sqlite_filter.PROJECT}) VIRTUAL;
DROP INDEX spans_by_start;
CREATE INDEX spans_by_start ON spans (start_ns, trace_id, span_id);
CREATE INDEX spans_by_project ON spans (project, start_ns, trace_id, span_id);
ALTER TABLE fields ADD COLUMN start_ns INTEGER;
CREATE TABLE deleted (
    trace_id TEXT NOT NULL, span_id TEXT NOT NULL, ns INTEGER NOT NULL, writer TEXT NOT NULL,
    PRIMARY KEY (trace_id, span_id)
) WITHOUT ROWID;
CREATE INDEX fields_by_value ON fields (key) WHERE kind IN ('metadata');
"""
INDEXED = "(kind = 'metadata' OR kind = 'tag' OR kind = 'user_id' OR kind = 'session_id') AND length(value) <= 256"
VERSION_3 = f"""
DROP INDEX fields_by_value;
CREATE INDEX fields_by_value ON fields (level, kind, key, json_extract(value, '$'), start_ns) WHERE {INDEXED};
CREATE INDEX fields_by_label ON fields (level, key, json_extract(value, '$.label'), start_ns)
    WHERE kind = 'evaluation' AND json_type(value, '$.label') = 'text';
"""

OLD = range(1, SCHEMA_VERSION)


class OldProcess:
    """The statements of an earlier version on a connection of its own."""

    def __init__(self, path: Path, version: int) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        self._has_start = version > 1

    def make(self, version: int) -> None:
        for script in (VERSION_1, VERSION_2, VERSION_3)[:version]:
            self.connection.executescript(script)
        self.connection.execute(f"PRAGMA application_id = {STORE_ID}")
        self.connection.execute(f"PRAGMA user_version = {version}")
        self.connection.execute("PRAGMA journal_mode = WAL")

    def span(self, span_id: int, start_ns: int = START_NS) -> None:
        columns = (
            "trace_id, span_id, parent_id, trace_state, name, kind, start_ns, end_ns, status_code, status_message, "
            "attributes, events, links, resource, scope_name, scope_version"
        )
        row = (trace_hex(), f"{span_id:016x}", None, "", "old", "CLIENT", start_ns, start_ns + 1, "OK", None)
        self.connection.execute(
            f"INSERT OR REPLACE INTO spans ({columns}) VALUES ({', '.join('?' * 16)})",
            (*row, "{}", "[]", "[]", '{"service.name":"shop"}', "", None),
        )
        if self._has_start:
            self.connection.execute(
                "UPDATE fields SET start_ns = ? WHERE trace_id = ? AND span_id = ? AND start_ns IS NOT ?",
                (start_ns, trace_hex(), f"{span_id:016x}", start_ns),
            )

    def field(self, span_id: int, key: str, value: str, ns: int, kind: str = "metadata") -> None:
        place = (trace_hex(), f"{span_id:016x}")
        start = ", start_ns", ", (SELECT start_ns FROM spans WHERE trace_id = ? AND span_id = ?)", place
        more_columns, more_values, more = start if self._has_start else ("", "", ())
        self.connection.execute(
            f"INSERT INTO fields (trace_id, span_id, level, kind, key, value, ns, writer{more_columns}) "
            f"VALUES (?, ?, ?, ?, ?, ?, ?, ?{more_values}) "
            "ON CONFLICT (trace_id, span_id, level, kind, key) DO UPDATE "
            "SET value = excluded.value, ns = excluded.ns, writer = excluded.writer "
            "WHERE CASE WHEN excluded.kind = 'tag' THEN (excluded.ns, excluded.writer) < (ns, writer) "
            "ELSE (excluded.ns, excluded.writer, excluded.value) > (ns, writer, value) END",
            (*place, "span", kind, key, value, ns, f"{1:016x}", *more),
        )

    def delete(self, span_id: int) -> None:
        for table in ("spans", "fields"):
            self.connection.execute(
                f"DELETE FROM {table} WHERE trace_id = ? AND span_id = ?", (trace_hex(), f"{span_id:016x}")
            )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spans.db"


@pytest.fixture
def old(path: Path) -> Iterator[Callable[[int], OldProcess]]:
    opened: list[OldProcess] = []

    def one(version: int) -> OldProcess:
        is_new = not path.exists()
        opened.append(OldProcess(path, version))
        if is_new:
            opened[-1].make(version)
        return opened[-1]

    yield one
    for process in opened:
        process.connection.close()


def set_at(ns: int, value: str) -> Fields:
    return {("span", "metadata", "region"): (value, (ns, 1))}


REGION = Compare(Subject("span", "metadata", "region"), "=", "us")
WRONG = Compare(Subject("span", "evaluation", "C", "label"), "=", "wrong")


@pytest.mark.parametrize("version", OLD)
class TestUpgrade:
    def test_a_file_of_an_earlier_version_is_brought_up_to_date(
        self, path: Path, old: Callable[[int], OldProcess], version: int
    ) -> None:
        """With all that is in it; a page is found by a value that was there before. Old values have no route."""
        process = old(version)
        process.span(1)
        process.field(1, "region", '"us"', 5)
        process.field(1, "C", '{"label":"wrong"}', 5, kind="evaluation")
        process.connection.close()
        store = SqliteStore(path)

        for condition in (REGION, WRONG):
            record = only(store, condition=condition, project="shop")
            assert (record.name, record.metadata) == ("old", {"region": "us"})
        store.patch([Patch(SpanRef(TRACE, 1), set_at(6, "eu"))])

        records = store.history(trace_hex(), f"{1:016x}", ("span", "metadata", "region"))
        assert [(one.value, one.route, one.author) for one in records] == [("eu", "late", None), ("us", None, None)]
        store.close()
        assert int.from_bytes(path.read_bytes()[60:64], "big") == SCHEMA_VERSION

    def test_an_old_file_has_the_tables_of_a_new_one(
        self, tmp_path: Path, path: Path, old: Callable[[int], OldProcess], version: int
    ) -> None:
        """Columns, indexes and triggers are the same, once no process has the old file open."""
        old(version).connection.close()
        for file in (path, path, tmp_path / "new.db"):
            store = SqliteStore(file)
            assert store.query(SpanQuery()) == []
            store.close()

        assert tables(path) == tables(tmp_path / "new.db")

    @pytest.mark.parametrize("rows", [1, 7])
    def test_an_upgrade_that_is_interrupted_goes_on_where_it_was(
        self, path: Path, old: Callable[[int], OldProcess], monkeypatch: pytest.MonkeyPatch, version: int, rows: int
    ) -> None:
        """At any step, while a process of the earlier version writes, replaces and deletes between all steps."""
        monkeypatch.setattr(upgrade_module, "_FIRST_ROWS", rows)
        monkeypatch.setattr(upgrade_module, "_MAX_ROWS", rows)
        process = old(version)
        for span_id in range(1, 5):
            process.span(span_id)
            for key in "abc":
                process.field(span_id, key, '"old"', 5)
        process.field(9, "region", '"us"', 5)
        connection = sqlite3.connect(path, isolation_level=None)
        steps, is_over = 0, False

        def write() -> None:
            process.field(1 + steps % 4, "b", f"{steps}", 100 + steps)  # replaced
            process.field(1 + steps % 4, "c", '"lost"', 1)
            process.field(1 + steps % 4, f"new.{steps}", f"{steps}", 7)
            if steps == 1:
                process.delete(3)
                process.span(9)

        def give_way() -> None:
            nonlocal steps
            steps += 1
            if steps % 5 == 0:
                raise InterruptedError
            if steps < 40:
                write()  # at each step another process can write

        while not is_over:
            try:
                upgrade_module.to_version_3(connection, give_way)
                is_over = True
            except InterruptedError:
                assert not connection.in_transaction
        before = process.connection.execute("SELECT * FROM fields ORDER BY 1, 2, 3, 4, 5").fetchall()
        connection.close()

        store = SqliteStore(path)
        assert steps == 0 if version == 3 else steps > 5
        found = {record.span_id[-1]: record.metadata for record in store.query(SpanQuery())}
        expected: dict[str, dict[str, object]] = {}
        for row in before:
            expected.setdefault(row[1][-1], {})[row[4]] = orjson.loads(row[5])
        assert found == {span: expected.get(span, {}) for span in ("1234" if version == 3 else "1249")}
        assert found["2"]["a"] == found["2"]["c"] == "old"
        if version == 2:
            assert only(store, condition=REGION).span_id == f"{9:016x}"
        store.close()

    def test_a_process_of_an_earlier_version_goes_on(
        self, path: Path, old: Callable[[int], OldProcess], version: int
    ) -> None:
        """What it writes has no route, what it supersedes is kept, and what it deletes leaves no history."""
        process = old(version)
        store = SqliteStore(path)
        store.write([ended_span(1, fields=set_at(START_NS, "us"))])

        process.field(1, "region", '"new"', END_NS + 9)
        process.field(1, "region", '"lost"', END_NS + 5)
        process.field(1, "region", '"lost"', END_NS + 5)
        process.field(1, "seen", "true", 7, kind="tag")
        process.field(1, "seen", "true", 5, kind="tag")
        process.field(1, "seen", "true", 9, kind="tag")

        records = store.history(trace_hex(), f"{1:016x}", ("span", "metadata", "region"))
        assert [(one.value, one.route) for one in records] == [("new", None), ("lost", None), ("us", "live")]
        tag = store.history(trace_hex(), f"{1:016x}", ("span", "tag", "seen"))
        assert [(one.time_ns, one.is_current) for one in tag] == [(9, False), (7, False), (5, True)]
        process.delete(1)
        assert store.history(trace_hex(), f"{1:016x}") == []
        store.close()

    def test_what_helps_earlier_versions_stays_as_long_as_one_has_the_file_open(
        self, path: Path, old: Callable[[int], OldProcess], version: int
    ) -> None:
        """Then it is removed, because it slows writes down."""
        process = old(version)
        process.span(1)

        def is_there() -> bool:
            store = SqliteStore(path)
            store.patch([Patch(SpanRef(TRACE, 1), metadata(k=1))])
            with store._opened(store._deadline_ns(None)) as connection:
                found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'fields_of_older_versions'")
                answer = found.fetchone() is not None
            store.close()
            return answer

        assert [is_there(), is_there()] == [True, True]
        process.connection.close()
        assert not is_there()


def tables(path: Path) -> dict[str, object]:
    """Return what is in a file's schema, however it was made."""
    connection = sqlite3.connect(path)
    try:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")]
        others = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE type <> 'table' ORDER BY 1, 2"
        return {
            **{name: connection.execute(f"PRAGMA table_xinfo({name})").fetchall() for name in names},
            "": [(*row[:3], " ".join((row[3] or "").replace('"', "").split())) for row in connection.execute(others)],
        }
    finally:
        connection.close()
