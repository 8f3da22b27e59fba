"""What is ClickHouse's own: its tables, its errors, rows that are written again, processes, and the way there."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.clickhouse.engine import Engine
from tests.store.contract import (
    END_NS,
    START_NS,
    TRACE,
    OpenStore,
    ended_span,
    metadata,
    only,
    trace_hex,
)
from tests.store.spans import patches_of

import otel_metadata
from otel_metadata.errors import StoreAccessError, StoreError
from otel_metadata.exporters.store import StorePatchExporter
from otel_metadata.model.authors import AUTHORS
from otel_metadata.model.condition import Compare, HasTag, Or, Subject
from otel_metadata.model.merge import Fields
from otel_metadata.model.outcome import Pause, Retry
from otel_metadata.model.patch import Patch
from otel_metadata.model.record import SpanQuery
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.store import table
from otel_metadata.store.clickhouse import store as clickhouse
from otel_metadata.store.clickhouse.schema import create_statements
from otel_metadata.store.clickhouse.store import ClickHouseStore

DOCS = Path(__file__).parents[2] / "docs" / "clickhouse.md"
PROCESSES = 4
THREADS = 4
PATCHES = 25
DAY_NS = 86_400_000_000_000
SPANS = [ended_span(at, start_ns=START_NS + at) for at in (1, 2, 3)]
PATCH = Patch(SpanRef(TRACE, 1), metadata(k=1))


@pytest.fixture
def store(engine: Engine, database: str) -> ClickHouseStore:
    return ClickHouseStore(engine.url(database))


class TestTables:
    def test_the_span_table_is_as_a_collector_makes_it(
        self, engine: Engine, database: str, store: ClickHouseStore
    ) -> None:
        """Names and types of its columns, in their order, so that a Collector's insert fits."""
        store.write([ended_span()])

        columns = engine.run(f"DESCRIBE TABLE {database}.otel_traces")

        low, of_text = "LowCardinality(String)", "Map(LowCardinality(String), String)"
        assert [(row["name"], row["type"]) for row in columns] == [
            ("Timestamp", "DateTime64(9)"),
            ("TraceId", "String"),
            ("SpanId", "String"),
            ("ParentSpanId", "String"),
            ("TraceState", "String"),
            ("SpanName", low),
            ("SpanKind", low),
            ("ServiceName", low),
            ("ResourceAttributes", of_text),
            ("ScopeName", "String"),
            ("ScopeVersion", "String"),
            ("SpanAttributes", of_text),
            ("Duration", "UInt64"),
            ("StatusCode", low),
            ("StatusMessage", "String"),
            ("Events.Timestamp", "Array(DateTime64(9))"),
            ("Events.Name", f"Array({low})"),
            ("Events.Attributes", f"Array({of_text})"),
            ("Links.TraceId", "Array(String)"),
            ("Links.SpanId", "Array(String)"),
            ("Links.TraceState", "Array(String)"),
            ("Links.Attributes", f"Array({of_text})"),
        ]

    def test_a_span_of_ours_reads_like_one_of_a_collector(
        self, engine: Engine, database: str, store: ClickHouseStore
    ) -> None:
        """Text in the maps, the words of a Collector, and its own columns."""
        store.write([ended_span(attributes={"n": 5, "t": "5", "b": True, "l": [1, 2]})])

        (row,) = engine.run(f"SELECT SpanKind, StatusCode, Duration, SpanAttributes FROM {database}.otel_traces")

        texts = row.pop("SpanAttributes")
        assert row == {"SpanKind": "Internal", "StatusCode": "Unset", "Duration": 1_000_000}
        assert {name: texts[name] for name in "ntbl"} == {"n": "5", "t": "5", "b": "true", "l": "[1,2]"}
        assert only(store).attributes == {"n": 5, "t": "5", "b": True, "l": [1, 2]}

    @pytest.mark.parametrize("order", ["before", "after"])
    def test_the_engine_merges_fields_as_the_contract_says(
        self, engine: Engine, database: str, store: ClickHouseStore, order: str
    ) -> None:
        """The same before and after it has merged its parts: the higher version, the greater text, the first tag."""
        for value, version, tag in ((1, (9, 1), (3, 1)), (2, (9, 1), (2, 1)), (3, (8, 9), (2, 2))):
            fields = {("span", "metadata", "k"): (value, version), ("span", "tag", "t"): (True, tag)}
            store.patch([Patch(SpanRef(TRACE, 1), fields)])  # type: ignore[arg-type]
        if order == "after":
            engine.run(f"OPTIMIZE TABLE {database}.otel_metadata_fields FINAL")

        rows = engine.run(
            f"SELECT Key, max(Field) AS f, count() AS n FROM {database}.otel_metadata_fields GROUP BY Key ORDER BY Key"
        )

        assert [row["n"] for row in rows] == ([1, 1] if order == "after" else [3, 3])
        late = " " * 3
        assert rows[0]["f"] == f"{9:016x}{1:016x}2{late}"
        assert rows[1]["f"] == f"{(1 << 64) - 1 - 2:016x}{(1 << 64) - 1 - 1:016x}true{late}"

    def test_a_reader_makes_no_tables(self, engine: Engine, database: str) -> None:
        """`Client` looks, and says what is missing."""
        with otel_metadata.Client(engine.url(database)) as client, pytest.raises(StoreAccessError, match="error 60"):
            client.spans.list()

        assert engine.run(f"SHOW TABLES FROM {database}") == []

    def test_who_has_the_tables_needs_no_right_to_make_them(
        self, engine: Engine, store: ClickHouseStore, database: str
    ) -> None:
        """No CREATE is sent where nothing is missing."""
        store.write([ended_span()])
        engine.statements()

        ClickHouseStore(engine.url(database)).write([ended_span(2)])

        assert [one for one in engine.statements() if "CREATE" in one] == []

    def test_a_missing_right_to_create_says_what_to_run(self, engine: Engine, store: ClickHouseStore) -> None:
        """The database administrator's part is named."""
        engine.fail({"kind": "status", "status": 403, "code": 497, "match": "CREATE TABLE"})

        with pytest.raises(StoreAccessError, match=r"497, ACCESS_DENIED.*make the tables with the SQL in docs"):
            store.write([ended_span()])

    @pytest.mark.parametrize("setting", ["join_use_nulls", "aggregate_functions_null_for_empty", "transform_null_in"])
    def test_a_users_profile_changes_nothing(self, engine: Engine, store: ClickHouseStore, setting: str) -> None:
        """Settings that make NULL of what is not there are common, and may not be ours to change."""
        store.write([ended_span(1, fields=metadata(k=1)), ended_span(2)])
        wanted = Or((Compare(Subject("span", "metadata", "k"), "=", 1), HasTag("trace", "none")))
        engine.run(f"SET {setting} = 1")
        try:
            found = store.query(SpanQuery()), store.query(SpanQuery(condition=wanted)), store.find([f"{2:016x}"])
        finally:
            engine.run(f"SET {setting} = 0")

        assert [len(one) for one in found] == [2, 1, 1]

    def test_another_span_table_is_used_when_it_is_named(self, engine: Engine, database: str) -> None:
        """Collectors may be told another name."""
        store = ClickHouseStore(engine.url(database) + "?table=spans_of_mine")

        store.write([ended_span()])

        assert only(store).name == "work"
        assert {row["name"] for row in engine.run(f"SHOW TABLES FROM {database}")} == {
            "spans_of_mine", "otel_metadata_fields", "otel_metadata_deleted", "otel_metadata_history",
            "otel_metadata_history_view",
        }  # fmt: skip


def make_tables_of_an_earlier_version(engine: Engine, database: str) -> None:
    """Make the tables as they were without a history, with a value that was set then."""
    for name in ("otel_traces", "otel_metadata_fields", "otel_metadata_deleted"):
        engine.run(create_statements()[name].replace(f"`{name}`", f"{database}.{name}"))
    row = f"'{trace_hex()}', '{1:016x}', 'span', 'metadata', 'k', '{1:016x}{1:016x}1'"
    engine.run(f"INSERT INTO {database}.otel_metadata_fields (*) VALUES ({row})")


class TestEarlierVersions:
    @pytest.mark.parametrize("is_merged", [False, True])
    def test_a_value_that_was_there_is_in_the_history(
        self, engine: Engine, database: str, store: ClickHouseStore, is_merged: bool
    ) -> None:
        """Without a route, also after the engine has merged it away."""
        make_tables_of_an_earlier_version(engine, database)

        store.patch([PATCH])
        if is_merged:
            engine.run(f"OPTIMIZE TABLE {database}.otel_metadata_fields FINAL")

        ((_, (_, version)),) = PATCH.fields.items()
        found = store.history(trace_hex(), f"{1:016x}")
        assert [(one.value, one.route, one.superseded_by) for one in found] == [(1, "late", None), (1, None, version)]

    def test_a_program_of_an_earlier_version_goes_on_beside_us(
        self, engine: Engine, database: str, store: ClickHouseStore
    ) -> None:
        """Its values are in the history; of a value that both write our route counts."""
        store.patch([PATCH])
        ((_, (_, (ns, writer))),) = PATCH.fields.items()
        for version in (f"{ns:016x}{writer:016x}", f"{ns - 1:016x}{writer:016x}"):
            row = f"'{trace_hex()}', '{1:016x}', 'span', 'metadata', 'k', '{version}1'"
            engine.run(f"INSERT INTO {database}.otel_metadata_fields (*) VALUES ({row})")

        found = store.history(trace_hex(), f"{1:016x}")

        assert [(one.time_ns, one.route) for one in found] == [(ns, "late"), (ns - 1, None)]

    def test_who_may_not_create_goes_on_without_a_history(
        self, engine: Engine, database: str, store: ClickHouseStore
    ) -> None:
        """Writing, reading and deleting work as before; a question about the history says what to run."""
        make_tables_of_an_earlier_version(engine, database)
        engine.fail({"kind": "status", "status": 403, "code": 497, "match": "CREATE TABLE"})

        store.write(SPANS)
        store.patch([PATCH])

        assert [dict(record.metadata) for record in store.query(SpanQuery())] == [{}, {}, {"k": 1}]
        with pytest.raises(StoreAccessError, match=r"error 60, UNKNOWN_TABLE.*docs/clickhouse.md"):
            store.history(trace_hex(), f"{1:016x}")
        (batch,) = store.export(SpanQuery())
        assert batch[table.ROUTES].to_pylist() == [None, None, '["late"]']
        assert batch[table.HISTORY].to_pylist() == [None, None, None]
        key = (trace_hex(), f"{1:016x}")
        assert store.delete([key], (END_NS + 10, 1)) == [key]


class TestHistoryTable:
    def test_equal_values_are_one_row_and_rows_end(self, engine: Engine, database: str, store: ClickHouseStore) -> None:
        """After a merge; the versions of rows and the names of writers are not among them."""
        AUTHORS.add(1, "ada")
        for _ in range(2):
            store.write([ended_span(1, fields=metadata(k=1))])
        engine.run(f"OPTIMIZE TABLE {database}.otel_metadata_history FINAL")

        rows = engine.run(f"SELECT Kind, Key FROM {database}.otel_metadata_history")
        ((made,),) = (row.values() for row in engine.run(f"SHOW CREATE TABLE {database}.otel_metadata_history"))

        assert rows == [{"Kind": "metadata", "Key": "k"}]
        assert "TTL Arrived + toIntervalDay(90)" in made

    def test_a_row_of_an_export_holds_a_bounded_part_of_a_history(
        self, store: ClickHouseStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The newest values of all fields, so that one span never makes an answer too large."""
        store.write([ended_span(1)])
        of_fields: list[Fields] = [
            {("span", "metadata", "k"): (ns, (ns, 1)), ("span", "tag", "t"): (True, (ns + 20, 1))}
            for ns in range(1, 10)
        ]
        store.patch([Patch(SpanRef(TRACE, 1), fields) for fields in of_fields])

        def exported() -> list[tuple[str, int]]:
            (batch,) = store.export(SpanQuery())
            return [(entry[2], entry[3]) for entry in orjson.loads(batch[table.HISTORY].to_pylist()[0])]

        assert exported() == [("t", ns) for ns in range(29, 21, -1)] + [("k", ns) for ns in range(8, 0, -1)]
        one = 32 + len("1") + len("   ")
        monkeypatch.setattr(clickhouse, "_HISTORY_BYTES", 9 * (one + 3) + 4 * one)
        assert exported() == [("t", ns) for ns in range(29, 21, -1)] + [("k", ns) for ns in (8, 7, 6)]

    def test_a_deleted_span_leaves_no_row(self, engine: Engine, database: str, store: ClickHouseStore) -> None:
        """Superseded values may be what a person wants to have deleted."""
        store.write(SPANS)
        for value in (1, 2):
            store.patch([Patch(SpanRef(TRACE, 1), {("span", "metadata", "k"): (value, (END_NS + value, 1))})])
        store.delete([(trace_hex(), f"{1:016x}")], (END_NS + 10, 1))

        assert engine.run(f"SELECT count() AS n FROM {database}.otel_metadata_history") == [{"n": 0}]


class TestRetention:
    def test_the_statement_of_the_page_deletes_what_was_set_on_traces_that_are_gone(
        self, engine: Engine, database: str, store: ClickHouseStore
    ) -> None:
        """Old values alone: a late one may wait for its span. What others have, and names of writers, stay."""
        AUTHORS.add(1, "ada")
        (statement,) = re.findall(
            r"^DELETE FROM otel_metadata_fields .*?;$", DOCS.read_text(), re.DOTALL | re.MULTILINE
        )
        store.write([ended_span(1)])
        for trace_id in (TRACE, 9):
            for key, ns in (("old", START_NS), ("new", 1 << 62)):
                said: Fields = {
                    ("span", "metadata", key): (1, (ns, 1)),
                    ("trace", "tag", key): (True, (ns, 1)),
                }
                store.patch([Patch(SpanRef(trace_id, 1), said)])

        engine.run(re.sub(r"otel_(traces|metadata_fields)", rf"{database}.\g<0>", statement.rstrip(";")))

        rows = engine.run(
            f"SELECT DISTINCT TraceId, Kind, Key FROM {database}.otel_metadata_fields ORDER BY TraceId, Kind, Key"
        )
        left = [(row["TraceId"], row["Kind"], row["Key"]) for row in rows]
        here = [(trace_hex(), "metadata", "new"), (trace_hex(), "metadata", "old"), (trace_hex(), "row", "")]
        of_tags = [(trace_hex(), "tag", "new"), (trace_hex(), "tag", "old")]
        gone = [(trace_hex(9), "metadata", "new"), (trace_hex(9), "tag", "new")]
        assert left == [("", "writer", f"{1:016x}"), *gone, *here, *of_tags]


class TestWithoutHistory:
    @pytest.fixture
    def without(self, engine: Engine, database: str) -> ClickHouseStore:
        return ClickHouseStore(f"{engine.url(database)}?history=off")

    def test_it_makes_no_table_and_no_view(self, engine: Engine, database: str, without: ClickHouseStore) -> None:
        """Current values, their routes and authors are kept; a question about earlier values is an error."""
        AUTHORS.add(1, "ada")
        without.write(SPANS)
        for ns in (END_NS + 1, END_NS + 2):
            without.patch([Patch(SpanRef(TRACE, 1), {("span", "metadata", "k"): (ns - END_NS, (ns, 1))})])

        assert {row["name"] for row in engine.run(f"SHOW TABLES FROM {database}")} == {
            "otel_traces", "otel_metadata_fields", "otel_metadata_deleted",
        }  # fmt: skip
        by_ada = Compare(Subject("span", "metadata", "k", "author"), "=", "ada")
        assert [one.metadata for one in without.query(SpanQuery(condition=by_ada))] == [{"k": 2}]
        (batch,) = without.export(SpanQuery(span_id=f"{1:016x}"))
        assert [batch[name].to_pylist() for name in (table.ROUTES, table.HISTORY)] == [['["late"]'], [None]]
        for call in (lambda: without.history(trace_hex()), lambda: without.query(SpanQuery(at_ns=END_NS))):
            with pytest.raises(StoreError, match=r"\?history=off: .*; expected a store without \?history=off\.$"):
                call()

    def test_what_others_keep_goes_on(
        self, engine: Engine, database: str, store: ClickHouseStore, without: ClickHouseStore
    ) -> None:
        """Their view copies what this program inserts; an export leaves it out, and a deletion removes it."""
        for one, value in ((store, 1), (without, 2)):
            one.write([ended_span(1)])
            one.patch([Patch(SpanRef(TRACE, 1), {("span", "metadata", "k"): (value, (value, 1))})])

        assert [one.value for one in store.history(trace_hex(), f"{1:016x}")] == [2, 1]
        exported = [next(one.export(SpanQuery()))[table.HISTORY].to_pylist() for one in (store, without)]
        assert [one[0] is not None for one in exported] == [True, False]
        without.delete([(trace_hex(), f"{1:016x}")], (END_NS + 10, 1))
        assert engine.run(f"SELECT count() AS n FROM {database}.otel_metadata_history") == [{"n": 0}]


class TestTraces:
    def test_a_trace_that_is_deleted_while_traces_are_listed_is_left_out(self, store: ClickHouseStore) -> None:
        """Between the question for the roots and the one for the numbers of their spans."""
        store.write(SPANS)
        with store._opened() as client:
            roots = list(store._found(client, SpanQuery()))
            assert [one.spans for one in store._traces(client, roots)] == [3]
            store.delete([(trace_hex(), f"{at:016x}") for at in (1, 2, 3)], (END_NS + 10, 1))

            assert list(store._traces(client, roots)) == []


class TestWrittenAgain:
    def test_the_last_writing_stands_whatever_it_says(self, store: ClickHouseStore) -> None:
        """Another start as well: pages, look-ups and filters know the old row no longer."""
        store.write([ended_span(1, start_ns=START_NS + 50, attributes={"a": 1}), ended_span(2)])

        store.write([ended_span(1, start_ns=START_NS - 50, attributes={"b": 2}), ended_span(1, name="in-one-batch")])
        store.write([ended_span(1, start_ns=START_NS - 50, attributes={"b": 3})])

        assert [(record.span_id[-1], record.attributes) for record in store.query(SpanQuery())] == [
            ("2", {}),
            ("1", {"b": 3}),
        ]
        assert [record.span_id[-1] for record in store.query(SpanQuery(limit=1))] == ["2"]
        assert store.query(SpanQuery(condition=Compare(Subject("span", "attribute", "a"), "=", 1))) == []
        assert store.find([f"{1:016x}"])[f"{1:016x}"].start_ns == START_NS - 50

    def test_spans_of_many_days_are_one_write(self, store: ClickHouseStore) -> None:
        """A server takes rows of a hundred days at once, and an import may have more."""
        store.write([ended_span(at, start_ns=START_NS - at * DAY_NS) for at in range(1, 251)])

        assert len(store.query(SpanQuery(limit=None))) == 250


class TestFailures:
    @pytest.mark.parametrize(
        ("fault", "error", "message"),
        [
            ({"status": 503}, StoreError, "does not answer"),
            ({"status": 500, "code": 252}, StoreError, r"error 252 \(TOO_MANY_PARTS\); write less often"),
            ({"status": 500, "code": 241}, StoreError, "error 241"),
            ({"status": 500, "code": 999}, StoreError, "error 999"),
            ({"status": 403, "code": 516}, StoreAccessError, r"516, AUTHENTICATION_FAILED.*password in the URL"),
            ({"status": 500, "code": 164}, StoreAccessError, "164, READONLY"),
        ],
    )
    @pytest.mark.parametrize("call", ["write", "patch", "query", "find", "delete", "export"])
    def test_what_the_server_answers_is_an_error_of_the_store(
        self, engine: Engine, store: ClickHouseStore, fault: Any, error: type[StoreError], message: str, call: str
    ) -> None:
        """With ClickHouse's code and what to do; the next call goes on."""
        store.write(SPANS)
        engine.fail({"kind": "status", "match": "otel_", **fault})

        with pytest.raises(StoreError, match=message) as raised:
            CALLS[call](store)

        assert type(raised.value) is error
        CALLS[call](store)

    @pytest.mark.parametrize("when", ["before", "after"])
    @pytest.mark.parametrize("table", ["otel_traces", "otel_metadata_fields"])
    def test_a_write_without_an_answer_is_tried_again_without_harm(
        self, engine: Engine, store: ClickHouseStore, when: str, table: str
    ) -> None:
        """Whether it was applied or not: after the second try everything is there once."""
        store.write([ended_span(9, trace_id=9)])
        fault = {"kind": "drop", "when": when, "match": f"INSERT INTO .?{table}"}
        engine.fail(fault, fault)
        spans = [ended_span(1, fields=metadata(k=1)), ended_span(2)]

        with pytest.raises(StoreError, match="does not answer"):
            store.write(spans)
        shown = len(store.query(SpanQuery(trace_hex())))
        engine.fail()
        store.write(spans)

        assert shown == (2 if (when, table) == ("after", "otel_traces") else 0)
        assert [dict(record.metadata) for record in store.query(SpanQuery(trace_hex()))] == [{}, {"k": 1}]

    def test_a_server_that_does_not_answer_in_time_is_given_up(self, engine: Engine, database: str) -> None:
        """The store's own timeout holds, not the client's five minutes."""
        store = ClickHouseStore(engine.url(database))
        store.patch([PATCH])
        engine.fail({"kind": "delay", "seconds": 5, "match": "INSERT"})

        with pytest.raises(StoreError, match="does not answer"):
            store.patch([PATCH], timeout_millis=200)

    def test_nobody_at_the_address_is_told(self) -> None:
        """A port on which nothing listens."""
        with pytest.raises(StoreError, match=r"clickhouse://127.0.0.1:9/x does not answer.*expected ClickHouse"):
            ClickHouseStore("clickhouse://me:secret@127.0.0.1:9/x").query(SpanQuery())

    def test_a_database_that_is_missing_is_told(self, engine: Engine) -> None:
        """We make tables, never a database."""
        with pytest.raises(StoreAccessError, match=r"81, UNKNOWN_DATABASE.*CREATE DATABASE"):
            ClickHouseStore(engine.url("nowhere")).write(SPANS)

    def test_no_error_shows_a_password_or_a_value(self, engine: Engine, database: str) -> None:
        """Neither the user of the URL nor what a filter asks for: the server's text has both sometimes."""
        store = ClickHouseStore(engine.url(database, "me:s3cret@"))
        store.write(SPANS)
        engine.run(f"ALTER TABLE {database}.otel_traces DROP COLUMN ScopeName")
        wanted = Compare(Subject("span", "scope_name"), "=", "v4lue")

        with pytest.raises(StoreAccessError) as raised:
            store.query(SpanQuery(condition=wanted))

        shown = f"{raised.value!r} {store!r} {store.address!r}"
        assert "error 47" in shown
        assert not {word for word in ("s3cret", "me:", "v4lue") if word in shown}

    def test_an_exporter_pauses_where_trying_again_is_in_vain(self, engine: Engine, store: ClickHouseStore) -> None:
        """A wrong password stops the destination; a busy server only delays it."""
        exporter = StorePatchExporter(store, "clickhouse")
        store.patch([PATCH])

        def outcome(code: int) -> object:
            engine.fail({"kind": "status", "status": 500, "code": code, "match": "INSERT"})
            (one,) = exporter.export([PATCH], timeout_millis=5_000)
            return one

        refused, busy = outcome(516), outcome(252)
        assert isinstance(refused, Pause)
        assert refused.error.type == "unauthorized"
        assert isinstance(busy, Retry)

    @pytest.mark.parametrize("table", ["otel_traces", "otel_metadata_fields", "otel_metadata_history"])
    def test_rows_that_could_not_be_removed_are_told_and_removed_by_a_second_call(
        self, engine: Engine, database: str, store: ClickHouseStore, table: str
    ) -> None:
        """They are hidden by then; who may not delete rows has to know that they are still there."""
        store.write([ended_span(1), ended_span(1, trace_id=9)])
        said = {**metadata(k=1), **metadata("trace", k=2)}
        store.patch([Patch(SpanRef(TRACE, 1), said), Patch(SpanRef(9, 1), metadata(k=3))])
        key = (trace_hex(), f"{1:016x}")
        engine.fail({"kind": "status", "status": 403, "code": 497, "match": f"DELETE FROM `{table}`"})

        with pytest.raises(StoreError, match=r"1 spans are deleted for every reader.*ALTER DELETE"):
            store.delete([key], (END_NS + 10, 1))

        which = "" if table == "otel_traces" else "WHERE Kind = 'metadata' "
        rows = f"SELECT TraceId AS id FROM {database}.{table} {which}GROUP BY TraceId ORDER BY TraceId"
        kept, deleted = {"id": trace_hex(9)}, {"id": trace_hex()}
        assert (len(store.query(SpanQuery())), engine.run(rows)) == (1, [kept, deleted])
        assert store.delete([key], (END_NS + 11, 1)) == []
        assert engine.run(rows) == [kept]

    def test_a_late_value_of_a_deleted_span_is_removed_by_a_second_call(
        self, engine: Engine, database: str, store: ClickHouseStore
    ) -> None:
        """It is hidden, but its row is there; a value that is newer than the deletion stays."""
        key, target = (trace_hex(), f"{1:016x}"), SpanRef(TRACE, 1)
        store.write(SPANS)
        store.delete([key], (END_NS + 10, 1))
        for ns in (END_NS + 9, END_NS + 11):
            store.patch([Patch(target, {("span", "metadata", f"{ns - END_NS}"): (1, (ns, 1))})])

        assert store.delete([key], (END_NS + 20, 1)) == []

        for name in ("otel_metadata_fields", "otel_metadata_history"):
            rows = engine.run(f"SELECT Key FROM {database}.{name} WHERE Kind = 'metadata'")
            assert rows == [{"Key": "11"}]


CALLS: dict[str, Callable[[ClickHouseStore], object]] = {
    "write": lambda store: store.write(SPANS),
    "patch": lambda store: store.patch([PATCH]),
    "query": lambda store: store.query(SpanQuery()),
    "find": lambda store: store.find([f"{1:016x}"]),
    "delete": lambda store: store.delete([(trace_hex(7), f"{1:016x}")], (1, 1)),
    "export": lambda store: list(store.export(SpanQuery())),
}


class TestManyWriters:
    def test_threads_write_at_once(self, store: ClickHouseStore) -> None:
        """Nothing is lost, and the highest version stands."""
        store.write([ended_span()])
        failed: list[BaseException] = []

        def write(writer: int) -> None:
            try:
                for patch in patches_of(writer, PATCHES):
                    store.patch([patch])
            except BaseException as error:  # for the assertion below
                failed.append(error)

        threads = [threading.Thread(target=write, args=(writer,)) for writer in range(1, THREADS + 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        record = only(store)
        assert failed == []
        assert len(record.metadata) == THREADS * PATCHES + 1
        assert (record.metadata["shared"], record.tags) == ([THREADS, PATCHES - 1], ("seen",))

    def test_processes_write_at_once(self, engine: Engine, database: str, store: ClickHouseStore) -> None:
        """Also where none of them finds the tables made."""
        program = (
            "import sys\n"
            "from tests.store.spans import ended_span, patches_of\n"
            "from otel_metadata.store.clickhouse.store import ClickHouseStore\n"
            "store = ClickHouseStore(sys.argv[1])\n"
            "store.write([ended_span()])\n"
            f"for patch in patches_of(int(sys.argv[2]), {PATCHES}): store.patch([patch])\n"
        )
        command = [sys.executable, "-c", program, engine.url(database)]
        processes = [subprocess.Popen([*command, f"{writer}"]) for writer in range(1, PROCESSES + 1)]

        assert [process.wait(120) for process in processes] == [0] * PROCESSES
        record = only(store)
        assert len(record.metadata) == PROCESSES * PATCHES + 1
        assert record.metadata["shared"] == [PROCESSES, PATCHES - 1]

    def test_a_forked_child_connects_by_itself(self, store: ClickHouseStore) -> None:
        """The parent's connection stays the parent's."""
        store.write([ended_span()])
        child = os.fork()
        if child == 0:
            try:
                store.patch([Patch(SpanRef(TRACE, 1), metadata(child=1))])
                os._exit(0)
            except BaseException:
                os._exit(1)

        assert os.waitpid(child, 0)[1] == 0
        store.patch([Patch(SpanRef(TRACE, 1), metadata(parent=1))])
        assert only(store).metadata == {"child": 1, "parent": 1}


class TestTheWayThere:
    def test_a_decorated_function_is_stored_with_all_that_is_said_of_it(self, engine: Engine, database: str) -> None:
        """Live, in flight and late, through `configure`, and read back by a client."""
        with otel_metadata.configure(engine.url(database)):

            @otel_metadata.observe
            def answer(question: str) -> str:
                otel_metadata.update_current_span(metadata={"region": "eu", "step": 1, "text": "5"})
                otel_metadata.update_current_trace(user_id="u", tags=["vip"])
                refs.append(otel_metadata.current_span_ref())
                return question.upper()

            refs: list[Any] = []
            answer("why")
            in_flight = otel_metadata.update_span(refs[0], metadata={"step": 2, "none": None})
            assert otel_metadata.flush()
            late = otel_metadata.update_span(refs[0], metadata={"step": 3})
            assert otel_metadata.flush()

        with otel_metadata.Client(engine.url(database)) as client:
            record = client.spans.get(refs[0])
            page = client.spans.list(filter="metadata.step = 3 AND user_id = 'u' AND 'vip' IN trace.tags")
        assert (in_flight.route, late.route) == ("in_flight", "late")
        assert record.metadata == {"region": "eu", "step": 3, "text": "5", "none": None}
        assert (record.input, record.output) == ({"question": "why"}, "WHY")
        assert [one.span_id for one in page.spans] == [record.span_id]

    def test_an_export_has_what_a_page_has(self, store: ClickHouseStore) -> None:
        """In batches of the one schema, newest first, at most as many as asked for."""
        store.write(SPANS)
        store.patch([PATCH])

        batches = list(store.export(SpanQuery(limit=2)))

        assert [batch.schema.equals(table.schema()) for batch in batches] == [True]
        assert batches[0].column("context.span_id").to_pylist() == [f"{3:016x}", f"{2:016x}"]
        everything = list(store.export(SpanQuery(limit=None)))
        assert everything[0].column("attributes.metadata").to_pylist() == [None, None, '{"k":1}']

    def test_what_is_asked_for_is_not_in_the_address_of_a_request(self, engine: Engine, store: ClickHouseStore) -> None:
        """A URL stands in access logs: values and ids are in the body."""
        store.write(SPANS)
        engine.targets()

        store.query(SpanQuery(condition=Compare(Subject("span", "metadata", "k3y"), "=", "v4lue")))

        targets = engine.targets()
        assert targets
        assert [one for one in targets if "k3y" in one or "v4lue" in one] == []


def test_a_watch_notices_inserts_and_deletions_and_no_reads(open_store: OpenStore) -> None:
    """Also those of another connection; a merge changes nothing."""
    store, other = open_store(), open_store()
    store.write([ended_span(1)])
    watch = store.watch()  # type: ignore[attr-defined] # of ClickHouse
    states = [watch.state()]
    other.write([ended_span(2)])
    states.append(watch.state())
    other.patch_rows([(trace_hex(), f"{1:016x}", metadata(a=1))])
    states.append(watch.state())
    other.delete([(trace_hex(), f"{2:016x}")], (END_NS, 1))
    states.append(watch.state())
    assert all(before != after for before, after in itertools.pairwise(states)), states
    store.query(SpanQuery())
    assert watch.state() == states[-1]
    watch.close()
