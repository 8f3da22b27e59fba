"""A page as a sequence, as JSON, and as a frame that can be judged and given back."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.store.contract import START_NS, ended_span, metadata, trace_hex
from tests.strategies import field_sets

import otel_metadata as om
from otel_metadata.client.flat import data_frame, flat
from otel_metadata.client.page import Page, record_to_dict
from otel_metadata.errors import MissingExtraError
from otel_metadata.model.evaluation import Annotation, Evaluation, annotation_key
from otel_metadata.model.merge import Fields, Json
from otel_metadata.model.record import SpanRecord, assemble
from otel_metadata.model.times import time_ns, time_text
from otel_metadata.store.rows import row_of
from otel_metadata.store.sqlite.store import SqliteStore
from otel_metadata.store.table import readable

V = (START_NS, 1)


def record(fields: Fields, span_id: int = 1, **attributes: Any) -> SpanRecord:
    return assemble(row_of(ended_span(span_id, attributes=attributes))[0], fields)


def frame(*records: SpanRecord) -> pd.DataFrame:
    return Page(records).to_df()


class TestSequence:
    def test_it_is_a_sequence_of_its_spans(self) -> None:
        """len, iteration, index and slice."""
        spans = (record({}, 1), record({}, 2))
        page = Page(spans, "next")

        assert (len(page), list(page), page[1], page[:1]) == (2, [*spans], spans[1], spans[:1])
        assert (page.spans, page.next_cursor) == (spans, "next")

    def test_an_empty_page_is_false(self) -> None:
        """As an empty list."""
        assert not Page(())


class TestJson:
    def test_a_span_is_an_object_under_the_names_of_its_record(self) -> None:
        """Verdicts as objects, times as text, everything else as it is; all of it is JSON."""
        fields: Fields = {
            **metadata(k=None),
            ("span", "evaluation", "C"): (Evaluation("C", 1.0, "ok").to_json(), V),
            ("span", "annotation", annotation_key("q", "ann")): (
                Annotation("q", text="t", annotator="ann").to_json(),
                V,
            ),
            ("span", "tag", "vip"): (True, V),
            ("trace", "name", ""): ("checkout", V),
        }

        page = Page((record(fields, a=1),), "c")

        assert orjson.loads(page.to_json()) == page.to_dict()
        (shown,) = page.to_dict()["spans"]  # type: ignore[union-attr, misc]
        assert shown == {  # type: ignore[comparison-overlap]
            "trace_id": trace_hex(),
            "span_id": f"{1:016x}",
            "parent_id": None,
            "trace_state": "",
            "project": None,
            "name": "work",
            "kind": "INTERNAL",
            "span_kind": None,
            "start_time": "2023-11-14T22:13:20.123456789Z",
            "end_time": "2023-11-14T22:13:20.124456789Z",
            "latency_ms": 1.0,
            "status_code": "UNSET",
            "status_message": None,
            "user_id": None,
            "session_id": None,
            "input": None,
            "output": None,
            "metadata": {"k": None},
            "tags": ["vip"],
            "evaluations": {"C": {"source": "code", "score": 1.0, "label": "ok"}},
            "annotations": [{"name": "q", "text": "t", "annotator": "ann"}],
            "attributes": {"a": 1},
            "trace_name": "checkout",
            "trace_input": None,
            "trace_output": None,
            "trace_metadata": {},
            "trace_tags": [],
            "trace_evaluations": {},
            "trace_annotations": [],
            "events": [],
            "links": [],
            "resource": {},
            "scope_name": "",
            "scope_version": None,
        }

    def test_every_part_of_a_record_is_shown(self) -> None:
        """A part that a record gets some day is not forgotten here."""
        names = set(record_to_dict(record({})))

        assert {name for name in SpanRecord.__slots__ if name != "span"} <= names

    @given(fields=field_sets())
    def test_whatever_was_set_is_json(self, fields: Fields) -> None:
        """No value stands in the way of the text."""
        page = Page((record(fields),))

        assert orjson.loads(page.to_json()) == page.to_dict()

    @given(ns=st.integers(-(1 << 63), (1 << 63) - 1))
    def test_times_are_exact(self, ns: int) -> None:
        """To the nanosecond, and read back; before 1970 as well."""
        assert time_ns(time_text(ns)) == ns

    @pytest.mark.parametrize("text", ["", "2026-01-31", "2026-01-31T10:00:00", "2026-13-31T10:00:00Z", "x2026"])
    def test_a_text_that_is_no_time_is_refused(self, text: str) -> None:
        """With a ValueError."""
        with pytest.raises(ValueError):
            time_ns(text)


class TestFrame:
    def test_each_key_is_a_column(self) -> None:
        """Under the names that the updating methods read."""
        fields: Fields = {
            **metadata(region="us"),
            **metadata("trace", plan=1),
            ("span", "evaluation", "A.b"): (Evaluation("A.b", 1, "ok", "why").to_json(), V),
            ("span", "annotation", "q"): (Annotation("q", "old", text="gone").to_json(), V),
            ("span", "annotation", annotation_key("q", "ann")): (Annotation("q", "new").to_json(), (START_NS + 1, 1)),
            ("span", "input", ""): ({"q": 1}, V),
        }

        made = frame(record(fields, **{"llm.model_name": "m"}))

        assert {name: made[name][0] for name in made if made[name][0] is not pd.NA} == {
            "context.trace_id": trace_hex(),
            "context.span_id": f"{1:016x}",
            "name": "work",
            "kind": "INTERNAL",
            "start_time": pd.Timestamp(START_NS, tz="UTC"),
            "end_time": pd.Timestamp(START_NS + 1_000_000, tz="UTC"),
            "latency_ms": 1.0,
            "status_code": "UNSET",
            "scope_name": "",
            "attributes.input.value": '{"q":1}',
            "attributes.input.mime_type": "application/json",
            "attributes.metadata.region": "us",
            "trace.metadata.plan": 1,
            "eval.A.b.label": "ok",
            "eval.A.b.score": 1.0,
            "eval.A.b.explanation": "why",
            "eval.A.b.source": "code",
            "annotation.q.label": "new",
            "attributes.llm.model_name": "m",
        }

    @pytest.mark.parametrize(
        ("value", "dtype"),
        [("a", "string"), (5, "Int64"), (5.0, "Float64"), (True, "boolean"), ([1], "object"), ({"a": 1}, "object")],
    )
    def test_what_a_span_lacks_is_na_and_values_stay_as_they_are(self, value: Json, dtype: str) -> None:
        """No integer becomes a float, and no NaN appears, because another row has nothing."""
        column = frame(record(metadata(k=value)), record({}, 2))["attributes.metadata.k"]

        cell, missing = column.tolist()
        assert (column.dtype.name, cell, type(cell)) == (dtype, value, type(value))
        assert missing is pd.NA

    def test_a_null_is_none_where_another_row_lacks_the_key(self) -> None:
        """Given back, the one is set to null, the other left alone."""
        column = frame(record(metadata(k=None)), record({}, 2), record(metadata(k=1), 3))["attributes.metadata.k"]

        assert [column[0], column[1], column[2]] == [None, pd.NA, 1]

    @pytest.mark.parametrize("values", [(5, 5.0), (1, True), ("1", 1), (1 << 63, 1)])
    def test_values_of_several_types_keep_them(self, values: tuple[Json, Json]) -> None:
        """In one column."""
        column = frame(record(metadata(k=values[0])), record(metadata(k=values[1]), 2))["attributes.metadata.k"]

        assert [(one, type(one)) for one in column] == [(one, type(one)) for one in values]

    def test_scores_are_numbers_whatever_they_were_given_as(self) -> None:
        """So that a mean can be taken."""
        records = [
            record({("span", "evaluation", "C"): (Evaluation("C", n).to_json(), V)}, at) for at, n in ((1, 1), (2, 0.5))
        ]

        assert frame(*records)["eval.C.score"].mean() == 0.75

    def test_no_spans_are_a_frame_with_the_fixed_columns(self) -> None:
        """So that a program need not ask."""
        empty = frame()

        assert len(empty) == 0
        assert {"context.span_id", "start_time", "tags"} <= set(empty.columns)

    def test_an_attribute_that_is_called_like_metadata_gives_way(self) -> None:
        """The column means the metadata when it is given back."""
        fields: Fields = {**metadata(k="ours"), ("span", "attribute", "metadata.k"): ("theirs", V)}

        assert frame(record(fields))["attributes.metadata.k"].tolist() == ["ours"]

    @settings(suppress_health_check=[HealthCheck.too_slow])
    @given(sets=st.lists(field_sets(max_size=4), max_size=3))
    def test_a_frame_holds_what_its_rows_have(self, sets: list[Fields]) -> None:
        """Cell by cell: the value, None for null, NA for what is not there."""
        rows = [flat(readable(record(fields, at + 1))) for at, fields in enumerate(sets)]

        made = data_frame(rows)

        for number, row in enumerate(rows):
            for name in made.columns:
                cell = made[name].iloc[number]
                if name in {"start_time", "end_time"}:
                    assert cell.value == row[name]
                elif name in row:
                    assert (cell is None) == (row[name] is None)
                    assert cell == row[name] or row[name] is None
                else:
                    assert cell is pd.NA

    def test_a_missing_pandas_is_told_with_its_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is not part of the core."""
        monkeypatch.setitem(__import__("sys").modules, "pandas", None)

        with pytest.raises(MissingExtraError, match="pandas is not installed"):
            Page(()).to_df()


def test_times_of_a_record_are_those_of_its_text() -> None:
    """The text has three digits more."""
    shown = record_to_dict(record({}))["start_time"]

    assert isinstance(shown, str)
    assert dt.datetime.fromisoformat(shown[:26] + "+00:00") == record({}).start_time


@pytest.mark.parametrize("update", ["update_metadata", "update_evaluations", "update_annotations"])
@pytest.mark.parametrize("make", ["to_df", "export_to_df"])
def test_a_frame_that_is_given_back_changes_nothing(tmp_path: Path, update: str, make: str) -> None:
    """Nulls stay null, keys that a span lacks stay away, and types are kept; of scores, which are floats, the value."""
    note = Annotation("q", "good", 2.0, annotator="ann")
    fields: Fields = {
        **metadata(none=None, n=5, nested=[1, None], **{'odd "key".é': True}),
        ("span", "evaluation", "C"): (Evaluation("C", 1.0, "ok", source="llm", metadata={"a": None}).to_json(), V),
        ("span", "annotation", annotation_key("q", "ann")): (note.to_json(), V),
    }
    store = SqliteStore(tmp_path / "spans.db")
    store.write([ended_span(1, fields=fields), ended_span(2, fields=metadata(n=5.0)), ended_span(3)])
    store.close()
    with om.Client(f"sqlite:///{tmp_path}/spans.db") as client:
        before = client.spans.list(start_time="2000-01-01")
        given = before.to_df() if make == "to_df" else client.spans.export_to_df()

        report = getattr(client.spans, update)(given)

        after = client.spans.list(start_time="2000-01-01")
    assert report.spans_failed == 0
    assert after.to_json() == before.to_json()
