"""Export and import of what a store remembers: routes, authors, and the values that were superseded."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.store.contract import ended_span, trace_hex
from tests.store.contract_history import SPAN, Held, expected, judge, set_at, shown
from tests.store.contract_transfer import TARGET, NewStore, TransferContract, TransferLaw, write_two_spans, written

from otel_metadata.client import export
from otel_metadata.client.imports import import_file
from otel_metadata.model.merge import Fields, Json
from otel_metadata.model.patch import Patch
from otel_metadata.model.record import SpanQuery
from otel_metadata.store import table
from otel_metadata.store.sqlite import export as sqlite_export
from otel_metadata.store.sqlite.store import SqliteStore


def filled(come: Iterable[Any]) -> SqliteStore:
    """Return a store with two spans of one trace, and what came."""
    store = SqliteStore(":memory:")
    write_two_spans(store, come)
    return store


@pytest.fixture
def new_store() -> NewStore:
    return lambda: SqliteStore(":memory:")


class TestLaw(TransferLaw):
    """Any two stores."""


class TestTransfer(TransferContract):
    """What every store promises."""


class TestOrigin:
    def test_the_history_of_a_trace_is_written_once_in_a_batch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A batch of a trace may be read without those before it."""
        store = filled([("late", set_at(at, at, name=("trace", "metadata", "thumbs"))) for at in (1, 2)])

        def histories() -> list[list[bool]]:
            return [
                [one is not None for one in batch[table.HISTORY].to_pylist()] for batch in store.export(SpanQuery())
            ]

        assert histories() == [[True, False]]
        monkeypatch.setattr(sqlite_export, "_PAGE_ROWS", 1)
        assert histories() == [[True], [True]]

    def test_a_row_holds_as_much_history_as_an_import_reads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The newest values; a batch is not larger for it than without a history."""
        monkeypatch.setattr(sqlite_export, "_HISTORY_CHARS", 200)
        of_trace = [("late", set_at(at, -at, name=("trace", "metadata", "thumbs"))) for at in range(1, 10)]
        store = filled([*(("late", set_at(at, at)) for at in range(1, 10)), *of_trace])
        monkeypatch.setattr(sqlite_export, "_PAGE_CHARS", 1)

        texts = [batch[table.HISTORY].to_pylist() for batch in store.export(SpanQuery())]

        kept = [orjson.loads(one) if one else [] for (one,) in texts]
        assert [[entry[5] for entry in one] for one in kept] == [[-8, -7, -6], [8, 7, 6, -8, -7, -6]]

    def test_a_store_without_history_leaves_the_values_of_the_file_out(self, tmp_path: Path) -> None:
        """It keeps the values of now."""
        path = written(filled([("late", set_at(at, at)) for at in (1, 2)]), tmp_path / "s", export.jsonl)
        store = SqliteStore(tmp_path / "spans.db", history=False)

        import_file(store, path)

        kept = SqliteStore(tmp_path / "spans.db").history(trace_hex(), SPAN)
        assert [(one.value, one.route) for one in kept] == [(2, "late")]

    def test_a_store_without_history_exports_none(self, tmp_path: Path) -> None:
        """What others kept in its file lacks what it has superseded itself."""
        with_history, without = (SqliteStore(tmp_path / "spans.db", history=kept) for kept in (True, False))
        for store, ns in ((with_history, 1), (with_history, 2), (without, 3)):
            store.write([ended_span(1)])
            store.patch([Patch(TARGET, set_at(ns, ns))])

        exported = [next(store.export(SpanQuery()))[table.HISTORY].to_pylist() for store in (with_history, without)]

        assert [one[0] is not None for one in exported] == [True, False]

    def test_csv_and_frames(self, tmp_path: Path) -> None:
        """CSV has the columns as texts; a frame is for people, and has none of the columns for import."""
        store = filled([("late", set_at(at, at)) for at in (1, 2)])

        header, first, second = written(store, tmp_path / "s", export.csv).read_text().splitlines()
        frame = export.export_to_df(store.export(SpanQuery()))

        assert header.endswith(",".join(f'"{name}"' for name in table.FOR_IMPORT))
        assert {*table.FOR_IMPORT} & {*frame.columns} == set()
        assert '[""late""]' in first + second


def row(**parts: Any) -> dict[str, Any]:
    """Return a good row of an export, with *parts* in place of its own."""
    store = filled([("late", set_at(at, at)) for at in (1, 2)])
    batch = next(store.export(SpanQuery(span_id=SPAN)))
    good = dict(next(one for one in table.rows(batch) if isinstance(one, dict)))
    return good | {f"otel_metadata.{name}": value for name, value in parts.items()}


VALUE: list[Json] = ["span", "metadata", "thumbs", 1, "1", "up", "late"]


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"routes": {}}, "otel_metadata.routes is dict {}; expected a JSON list of 1 routes"),
        ({"routes": []}, "otel_metadata.routes is list []; expected a JSON list of 1 routes"),
        (
            {"routes": ["live", "live"]},
            "expected a JSON list of 1 routes, one for each entry of otel_metadata.versions",
        ),
        ({"routes": ["late", "live"], "versions": None}, "expected a JSON list of 0 routes"),
        ({"routes": ["by mail"]}, "otel_metadata.routes is str 'by mail'; expected a route: live, in_flight, late"),
        ({"routes": [1]}, "otel_metadata.routes is int 1; expected a route"),
        ({"routes": [["live"]]}, "expected a route"),
        ({"authors": ["ada"]}, "otel_metadata.authors is list ['ada']; expected a JSON object of names"),
        ({"authors": 0}, "otel_metadata.authors is int 0; expected a JSON object of names"),
        ({"authors": {"1": "ada"}}, "by writers of 16 hex digits"),
        ({"authors": {"0" * 16: 5}}, "expected a JSON object of names as text"),
        ({"authors": {"0" * 16: None}}, "expected a JSON object of names as text"),
        ({"history": {}}, "otel_metadata.history is dict {}; expected a JSON list"),
        ({"history": [5]}, "otel_metadata.history is int 5; expected [level, kind, key, nanoseconds, writer, value"),
        ({"history": [VALUE[:6]]}, "expected [level, kind, key, nanoseconds, writer, value, route]"),
        ({"history": [[*VALUE, 1]]}, "expected [level, kind, key, nanoseconds, writer, value, route]"),
        ({"history": [["planet", *VALUE[1:]]]}, "expected [level, kind, key, nanoseconds, writer, value, route]"),
        ({"history": [[*VALUE[:3], 1 << 63, *VALUE[4:]]]}, "expected [level, kind, key, nanoseconds"),
        ({"history": [[*VALUE[:4], "-1", *VALUE[5:]]]}, "expected [level, kind, key, nanoseconds"),
        ({"history": [[*VALUE[:4], None, *VALUE[5:]]]}, "expected [level, kind, key, nanoseconds"),
        ({"history": [[*VALUE[:6], "by mail"]]}, "otel_metadata.history is str 'by mail'; expected a route"),
    ],
)
def test_a_wrong_value_is_one_error_of_its_row(tmp_path: Path, parts: dict[str, Any], told: str) -> None:
    """The column, what it has, and what was expected; the other rows are imported."""
    store = SqliteStore(":memory:")
    good = {**row(), "context.span_id": f"{3:016x}"}
    (tmp_path / "s").write_bytes(orjson.dumps(row(**parts)) + b"\n" + orjson.dumps(good))

    report = import_file(store, tmp_path / "s")

    assert (report.spans_imported, report.spans_failed) == (1, 1)
    assert told in report.problems[0].message
    assert report.problems[0].message.count("expected") == 1


def test_wrong_values_of_parquet_are_told_too(tmp_path: Path) -> None:
    """The columns are texts there, which may hold anything."""
    whole = pa.Table.from_batches(filled([]).export(SpanQuery()))
    for name in (table.ROUTES, table.AUTHORS, table.HISTORY):
        at = whole.schema.get_field_index(name)
        pq.write_table(whole.set_column(at, name, pa.array(["{", None], pa.string())), tmp_path / "s")

        report = import_file(SqliteStore(":memory:"), tmp_path / "s")

        assert (report.spans_imported, [one.line for one in report.problems]) == (1, [1])
        assert report.problems[0].message.startswith(f"{name} is str '{{'; expected JSON text")


def test_a_value_that_is_superseded_while_it_is_exported_is_there_once(tmp_path: Path) -> None:
    """The fields are read before the history, so the value is in both; an import makes one of it."""
    entry: Fields = set_at(1, "up")
    given = row(versions=[["span", "metadata", "thumbs", 1, f"{1:016x}", "up"]], routes=["late"])
    given["otel_metadata.history"] = [["span", "metadata", "thumbs", 1, f"{1:016x}", "up", "late"]]
    (tmp_path / "s").write_bytes(orjson.dumps(given))
    store = SqliteStore(":memory:")

    import_file(store, tmp_path / "s")

    held: Held = {}
    judge(held, ("late", entry))
    assert shown(store.history(trace_hex(), SPAN)) == expected(held)
