"""The table of exports: a row shows a span as its record does, and gives the span and its fields back exactly."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.store.contract import END_NS, START_NS, ended_span, metadata, trace_hex
from tests.strategies import field_sets, json_values, texts

from otel_metadata.errors import MissingExtraError
from otel_metadata.model.evaluation import Annotation, Evaluation, annotation_key
from otel_metadata.model.merge import Fields, json_text
from otel_metadata.model.record import Position, SpanQuery, StoredSpan, assemble
from otel_metadata.store import table
from otel_metadata.store.rows import row_of
from otel_metadata.store.sqlite import export as sqlite_export
from otel_metadata.store.sqlite.store import SqliteStore

V = (START_NS, 1)
WRITER = f"{1:016x}"


def stored(**parts: Any) -> StoredSpan:
    """Return a span as a store has it."""
    return dataclasses.replace(row_of(ended_span())[0], **parts)


def read_back(batch: Any) -> list[dict[str, Any]]:
    """Return the rows of a batch as `table.row_of` reads them."""
    rows = [
        dict(zip(batch.schema.names, values, strict=True))
        for values in zip(*map(values_of, batch.columns), strict=True)
    ]
    for row in rows:
        for name in table.JSON_COLUMNS:
            row[name] = None if row[name] is None else orjson.loads(row[name])
    return rows


def values_of(column: Any) -> list[Any]:
    return column.cast("int64").to_pylist() if f"{column.type}".startswith("timestamp") else column.to_pylist()


def shown(fields: Fields) -> dict[Any, Any]:
    """Return fields so that 1, 1.0 and True are told apart."""
    return {name: (json_text(value), version) for name, (value, version) in fields.items()}


stored_spans = st.builds(
    stored,
    parent_id=st.none() | st.just("00000000000000ab"),
    trace_state=st.sampled_from(["", "k=v"]),
    name=texts(),
    start_ns=st.integers(-(1 << 62), 1 << 62),
    end_ns=st.integers(-(1 << 62), 1 << 62),
    status_code=st.sampled_from(["UNSET", "OK", "ERROR"]),
    status_message=st.none() | texts(),
    attributes=st.dictionaries(
        texts(min_size=1) | st.just("openinference.span.kind"), json_values(max_leaves=3), max_size=3
    ),
    resource=st.dictionaries(texts(min_size=1) | st.just("service.name"), json_values(max_leaves=3), max_size=3),
    events=st.lists(st.dictionaries(texts(min_size=1), json_values(max_leaves=3), max_size=2), max_size=2).map(tuple),
    scope_name=texts(),
    scope_version=st.none() | texts(),
)


@given(span=stored_spans, fields=field_sets())
def test_a_row_gives_its_span_and_fields_back(span: StoredSpan, fields: Fields) -> None:
    """Whatever was set, at whatever level, in whatever shape, with its version."""
    batch = table.batch([table.arrow_row(span, fields)])

    (row,) = read_back(batch)
    again, fields_again = table.row_of(row)

    assert json_text(dataclasses.asdict(again)) == json_text(dataclasses.asdict(span))
    assert shown(fields_again) == shown(fields)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(span=stored_spans, fields=field_sets())
def test_sqlite_exports_the_row_that_the_table_defines(tmp_path: Path, span: StoredSpan, fields: Fields) -> None:
    """The short way for the usual fields, and the long way for others, lead to the same."""
    store = SqliteStore(":memory:")
    store.write_rows([(span, fields)])

    (batch,) = store.export(SpanQuery(limit=None))

    (expected,), (got,) = (read_back(one) for one in (table.batch([table.arrow_row(span, fields)]), batch))
    routes = got.pop(table.ROUTES) or []
    assert {tuple(entry[:3]): route for entry, route in zip(got[table.VERSIONS] or [], routes, strict=True)} == {
        name: "live" if version[0] <= span.end_ns else "in_flight" for name, (_, version) in fields.items()
    }
    del expected[table.ROUTES]
    for row in (expected, got):
        row[table.VERSIONS] = sorted(row[table.VERSIONS] or [], key=json_text)
    assert json_text(got) == json_text(expected)


def test_the_columns_show_what_the_record_shows() -> None:
    """Names and values of every column, for a span on which everything is set."""
    span = stored(
        name="old",
        attributes={"openinference.span.kind": "LLM", "llm.model_name": "m", "app.k": 1},
        resource={"service.name": "shop"},
        events=({"name": "e", "time_ns": 1, "attributes": {}},),
        trace_state="k=v",
    )
    verdict, note = Evaluation("C", 1.0, "ok").to_json(), Annotation("q", "good", annotator="ann").to_json()
    fields: Fields = {
        ("span", "name", ""): ("new", V),
        ("span", "status", ""): (404, V),
        ("span", "metadata", "k"): (None, V),
        ("span", "attribute", "app.k"): ([1, None], V),
        ("span", "input", ""): ({"q": 1}, V),
        ("span", "output", ""): ("5", V),
        ("span", "tag", "b"): (True, V),
        ("span", "tag", "a"): (True, (START_NS + 1, 1)),
        ("span", "evaluation", "C"): (verdict, V),
        ("span", "annotation", annotation_key("q", "ann")): (note, V),
        ("trace", "user_id", ""): (7, V),
        ("trace", "metadata", "t"): ("x", V),
    }

    (row,) = read_back(table.batch([table.arrow_row(span, fields)]))

    assert {name: value for name, value in row.items() if value is not None} == {
        "context.trace_id": trace_hex(),
        "context.span_id": f"{1:016x}",
        "context.trace_state": "k=v",
        "name": "new",
        "kind": "INTERNAL",
        "span_kind": "LLM",
        "start_time": START_NS,
        "end_time": END_NS,
        "latency_ms": 1.0,
        "status_code": "404",
        "project": "shop",
        "attributes.user.id": "7",
        "attributes.input.value": '{"q":1}',
        "attributes.input.mime_type": "application/json",
        "attributes.output.value": "5",
        "attributes.output.mime_type": "text/plain",
        "attributes.metadata": {"k": None},
        "attributes": {"openinference.span.kind": "LLM", "llm.model_name": "m", "app.k": [1, None]},
        "tags": ["b", "a"],
        "evaluations": {"C": verdict},
        "annotations": [note],
        "trace.metadata": {"t": "x"},
        "events": [{"name": "e", "time_ns": 1, "attributes": {}}],
        "resource": {"service.name": "shop"},
        "scope_name": "",
        "otel_metadata.span": {"name": "old", "status_code": "UNSET", "attributes": {"app.k": 1}},
        "otel_metadata.versions": [
            ["span", "name", "", START_NS, WRITER, "new"],
            ["span", "status", "", START_NS, WRITER, 404],
            ["span", "metadata", "k", START_NS, WRITER],
            ["span", "attribute", "app.k", START_NS, WRITER],
            ["span", "input", "", START_NS, WRITER],
            ["span", "output", "", START_NS, WRITER],
            ["span", "tag", "b", START_NS, WRITER],
            ["span", "tag", "a", START_NS + 1, WRITER],
            ["span", "evaluation", "C", START_NS, WRITER],
            ["span", "annotation", '["q","ann"]', START_NS, WRITER],
            ["trace", "user_id", "", START_NS, WRITER, 7],
            ["trace", "metadata", "t", START_NS, WRITER],
        ],
    }


def test_no_rows_are_a_batch_with_all_columns() -> None:
    """A file of an empty export can be read like any other."""
    batch = table.batch([])

    assert (batch.num_rows, tuple(batch.schema.names)) == (0, table.COLUMNS)


def row(**parts: Any) -> dict[str, Any]:
    """Return a small good row, with *parts* in place of its own; dots are written as two underscores."""
    (good,) = read_back(table.batch([table.arrow_row(stored(), metadata(k=1))]))
    return good | {name.replace("__", "."): value for name, value in parts.items()}


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"context__span_id": None}, "context.span_id is NoneType None; expected 16 hex digits"),
        ({"context__span_id": "AB" * 8}, "expected 16 hex digits"),
        ({"context__trace_id": "1"}, "context.trace_id is str '1'; expected 32 hex digits"),
        ({"parent_id": 5}, "parent_id is int 5"),
        ({"name": None}, "name is NoneType None; expected text"),
        ({"start_time": "today"}, "start_time is str 'today'; expected a time"),
        ({"end_time": True}, "expected a time"),
        ({"start_time": 1 << 63}, "start_time is int 9223372036854775808; expected a time within 64 bits"),
        ({"attributes": []}, "attributes is list []; expected a JSON object"),
        ({"events": [1]}, "expected a JSON list of objects"),
        ({"otel_metadata__versions": {}}, "expected a JSON list"),
        ({"otel_metadata__versions": [5]}, "otel_metadata.versions is int 5; expected [level, kind, key"),
        ({"otel_metadata__versions": [["span", "metadata", "k", 1]]}, "expected [level, kind, key"),
        ({"otel_metadata__versions": [["span", "metadata", "k", 1, "writer"]]}, "expected [level, kind, key"),
        ({"otel_metadata__versions": [["span", "metadata", "k", 1.5, "1"]]}, "expected [level, kind, key"),
        ({"otel_metadata__versions": [["span", "metadata", "k", 1 << 63, "1", 2]]}, "expected [level, kind, key"),
        ({"otel_metadata__versions": [["span", "metadata", "k", 1, "1" * 17, 2]]}, "expected [level, kind, key"),
        ({"otel_metadata__versions": [["span", "metadata", "k", 1, "-1", 2]]}, "expected [level, kind, key"),
        ({"otel_metadata__versions": [["span", "metadata", "other", 1, "1"]]}, "of a field that the row shows"),
        ({"otel_metadata__versions": [["span", "name", "k", 1, "1", "n"]]}, "expected [level, kind, key"),
        ({"otel_metadata__versions": [["span", "secret", "k", 1, "1", 2]]}, "expected [level, kind, key"),
        ({"otel_metadata__versions": [[["span"], "metadata", "k", 1, "1", 2]]}, "expected [level, kind, key"),
        ({"otel_metadata__versions": [["span", "annotation", "k", 1, "1"]], "annotations": [5]}, "[level, kind, key"),
        ({"otel_metadata__span": "name"}, "otel_metadata.span is str"),
    ],
)
def test_a_row_that_is_none_of_ours_is_told(parts: dict[str, Any], told: str) -> None:
    """The column, what it has, and what was expected."""
    with pytest.raises(table.RowError) as error:
        table.row_of(row(**parts))

    assert told in str(error.value)


def test_a_missing_package_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is read."""
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)

    with pytest.raises(MissingExtraError, match=r"pip install 'otel-metadata\[dataframe\]'") as error:
        next(SqliteStore(":memory:").export(SpanQuery()))

    assert (error.value.package, error.value.extra) == ("pyarrow", "dataframe")


class TestPages:
    @pytest.fixture
    def store(self, monkeypatch: pytest.MonkeyPatch) -> SqliteStore:
        """A store of seven spans, read three at a time."""
        monkeypatch.setattr(sqlite_export, "_PAGE_ROWS", 3)
        store = SqliteStore(":memory:")
        store.write([ended_span(at, start_ns=START_NS + at // 2) for at in range(1, 8)])
        return store

    @staticmethod
    def ids(batches: Any) -> list[list[int]]:
        return [[int(span_id, 16) for span_id in batch["context.span_id"].to_pylist()] for batch in batches]

    def test_every_span_comes_once_newest_first(self, store: SqliteStore) -> None:
        """Also where several start at the same time."""
        assert self.ids(store.export(SpanQuery(limit=None))) == [[7, 6, 5], [4, 3, 2], [1]]

    def test_a_limit_and_a_place_to_go_on_from_hold(self, store: SqliteStore) -> None:
        """As for a query."""
        after = Position(START_NS + 3, trace_hex(), f"{6:016x}")

        assert self.ids(store.export(SpanQuery(limit=4, after=after))) == [[5, 4, 3], [2]]
        assert self.ids(store.export(SpanQuery(limit=3))) == [[7, 6, 5]]

    def test_nothing_is_no_batch(self, store: SqliteStore) -> None:
        """Where nothing is selected."""
        assert list(store.export(SpanQuery(project="none", limit=None))) == []

    def test_a_page_ends_when_it_is_large(self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """However few rows that are."""
        monkeypatch.setattr(sqlite_export, "_PAGE_CHARS", 1)

        assert self.ids(store.export(SpanQuery(limit=None))) == [[at] for at in range(7, 0, -1)]

    def test_spans_that_are_written_meanwhile_change_nothing_of_the_others(self, store: SqliteStore) -> None:
        """One that is written again comes once; one that is new and starts later does not come."""
        batches = store.export(SpanQuery(limit=None))
        first = next(batches)
        store.write([ended_span(at, start_ns=START_NS + at // 2) for at in (2, 6)])
        store.write([ended_span(9, start_ns=START_NS + 9)])

        assert self.ids([first, *batches]) == [[7, 6, 5], [4, 3, 2], [1]]

    def test_an_update_between_pages_is_seen(self, store: SqliteStore) -> None:
        """No transaction is held meanwhile: a page is what was there when it was read."""
        batches = store.export(SpanQuery(limit=None))
        next(batches)
        store.write([ended_span(1, fields=metadata(late=1))])

        assert [batch["attributes.metadata"].to_pylist()[-1] for batch in batches] == [None, '{"late":1}']


def test_the_row_shows_what_a_record_assembles() -> None:
    """The readable columns are those of the record, for a page as for an export."""
    span, fields = stored(), metadata(k=1)

    assert table.readable(assemble(span, fields))["attributes.metadata"] == {"k": 1}
    assert {*table.readable(assemble(span, fields)), *table.FOR_IMPORT} == set(table.COLUMNS)
