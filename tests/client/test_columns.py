"""What the columns of a frame mean: rows as values, and every way in which a row cannot be read."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies import json_values, keys

from otel_metadata.client.columns import (
    AnnotateRecordInput,
    AnnotationInput,
    Rows,
    annotation_rows,
    evaluation_rows,
    metadata_rows,
    record_rows,
)
from otel_metadata.client.dataframes import Frame, read_frame
from otel_metadata.errors import ConfigurationError
from otel_metadata.live.values import Values
from otel_metadata.model.evaluation import annotation_key
from otel_metadata.model.merge import Json
from otel_metadata.model.span_ref import SpanRef

SPAN = "61dbffb32f20ddb6"
TRACE = "0af7651916cd43dd8448eb211c80319c"


def frame(*rows: dict[str, Any], **more: Any) -> Frame:
    """Return rows of one span, from dicts: what a dict lacks is not there."""
    return read_frame([{"context.span_id": SPAN, **row, **more} for row in rows])


def said(rows: Rows) -> list[Values]:
    """Return what each row sets."""
    return [rows.values(row) for row in range(len(rows.span_ids))]


def metadata(**values: Json) -> Values:
    return {("span", "metadata", key): value for key, value in values.items()}


class TestIdentity:
    def test_a_frame_without_span_ids_is_refused(self) -> None:
        """The error names the columns that are there."""
        with pytest.raises(
            ConfigurationError, match=r"""is "'span', 'a'"; expected context.span_id \(or traceparent"""
        ):
            metadata_rows(read_frame([{"span": SPAN, "a": 1}]))

    @pytest.mark.parametrize("parse", [metadata_rows, evaluation_rows, annotation_rows])
    def test_a_frame_without_rows_says_nothing(self, parse: Any) -> None:
        """Whatever its columns: a judge that found nothing has a frame without any."""
        assert parse(read_frame(pd.DataFrame())) == Rows([], [])
        assert parse(read_frame(pd.DataFrame(columns=["a"]))) == Rows([], [])

    @pytest.mark.parametrize(
        "cell", ["nope", "", "g" * 16, SPAN + "0", f"{SPAN}\n", "0" * 16, 7, b"x", ["x"], SPAN.encode()]
    )
    def test_what_is_no_span_id_is_no_span(self, cell: object) -> None:
        """The row fails as one whose span is not known, and says where and what was expected."""
        rows = metadata_rows(frame({"context.span_id": cell, "patch_document": {"a": 1}}, {"patch_document": {"a": 2}}))

        assert rows.problems.keys() == {0}
        assert rows.problems[0].type == "segment_not_found"
        assert rows.problems[0].message.startswith("Row 0, column 'context.span_id': ")
        assert rows.problems[0].message.endswith("; expected a span id of 16 hex digits.")
        assert said(rows)[1] == metadata(a=2)

    @pytest.mark.parametrize("cell", [None, float("nan")])
    def test_an_id_that_is_missing_is_told(self, cell: object) -> None:
        """There is nothing to show."""
        rows = metadata_rows(read_frame([{"context.span_id": cell, "patch_document": {}}]))

        assert rows.span_ids == [""]
        assert (
            rows.problems[0].message == "Row 0, column 'context.span_id': nothing; expected a span id of 16 hex digits."
        )

    def test_ids_are_read_in_either_case(self) -> None:
        """Backends show ids in capitals as well."""
        rows = metadata_rows(
            frame({"patch_document": {}}, **{"context.span_id": SPAN.upper(), "context.trace_id": TRACE.upper()})
        )

        assert (rows.span_ids, rows.trace_ids, rows.problems) == ([SPAN], [TRACE], {})

    def test_a_trace_id_may_be_left_out_but_not_be_wrong(self) -> None:
        """A row that names another trace than it means would change another span."""
        rows = metadata_rows(
            frame(*({"context.trace_id": trace_id, "patch_document": {}} for trace_id in (None, "5", "0" * 32)))
        )

        assert rows.trace_ids == [None, None, None]
        assert rows.problems.keys() == {1, 2}
        assert rows.problems[1].message == (
            "Row 1, column 'context.trace_id': '5'; expected a trace id of 32 hex digits."
        )

    def test_a_traceparent_is_both_ids(self) -> None:
        """Where there is no column of span ids."""
        ref = SpanRef(int(TRACE, 16), int(SPAN, 16))
        rows = metadata_rows(read_frame([{"traceparent": one, "patch_document": {}} for one in (f"{ref}", "x", None)]))

        assert (rows.span_ids, rows.trace_ids) == ([SPAN, "x", ""], [TRACE, None, None])
        assert {problem.type for problem in rows.problems.values()} == {"segment_not_found"}
        assert rows.problems.keys() == {1, 2}


class TestMetadata:
    def test_columns_then_the_document(self) -> None:
        """Both merge at the first level, and the document wins."""
        rows = metadata_rows(
            frame(
                {
                    "attributes.metadata.a": 1,
                    "attributes.metadata.b": {"x": 1},
                    "patch_document": {"b": {"y": 2}, "c": None},
                },
                {"attributes.metadata.a": None},
                {"patch_document": '{"a": [1, null], "d": false}'},
                {},
            )
        )

        assert said(rows) == [metadata(a=1, b={"y": 2}, c=None), metadata(a=None), metadata(a=[1, None], d=False), {}]
        assert (rows.problems, rows.notes) == ({}, [])

    @given(
        st.lists(
            st.tuples(
                st.dictionaries(keys(), json_values(max_leaves=3), max_size=3),
                st.none() | st.dictionaries(keys(), json_values(max_leaves=3), max_size=3),
                st.booleans(),
            ),
            min_size=1,
            max_size=4,
        )
    )
    def test_a_row_is_the_merge_of_its_columns_and_its_document(
        self, given_rows: list[tuple[dict[str, Json], dict[str, Json] | None, bool]]
    ) -> None:
        """Whatever the rows, one dict update is the judge; a document says the same as dict and as JSON text."""
        table = []
        for columns, document, as_text in given_rows:
            row: dict[str, object] = {f"attributes.metadata.{key}": value for key, value in columns.items()}
            if document is not None:
                row["patch_document"] = orjson.dumps(document).decode() if as_text else document
            table.append({"context.span_id": SPAN, "attributes.metadata.always": 1, **row})

        rows = metadata_rows(read_frame(table))

        assert rows.problems == {}
        assert [{key: value for (_, _, key), value in values.items()} for values in said(rows)] == [
            {"always": 1, **columns, **(document or {})} for columns, document, _ in given_rows
        ]
        versioned = [rows.fields(row, (row, 1)) for row in range(len(table))]
        assert versioned == [{n: (v, (row, 1)) for n, v in values.items()} for row, values in enumerate(said(rows))]

    def test_values_become_json_as_everywhere(self) -> None:
        """numpy, times and decimals have a JSON form; what has none is marked, and a note says so."""
        rows = metadata_rows(
            read_frame(
                pd.DataFrame(
                    {
                        "context.span_id": [SPAN],
                        "attributes.metadata.f32": pd.Series([np.float32(0.5)], dtype=object),
                        "attributes.metadata.time": [pd.Timestamp("2026-01-31T10:00:00.000000001Z")],
                        "attributes.metadata.decimal": pd.Series([Decimal("1.50")], dtype=object),
                        "attributes.metadata.array": pd.Series([np.array([1, 2])], dtype=object),
                        "attributes.metadata.day": pd.Series([dt.date(2026, 1, 31)], dtype=object),
                        "attributes.metadata.odd": pd.Series([object()], dtype=object),
                        "attributes.metadata.infinite": [float("inf")],
                        "attributes.metadata.bool": [True],
                    }
                )
            )
        )

        assert said(rows) == [
            metadata(
                f32=0.5,
                time="2026-01-31T10:00:00.000000001+00:00",
                decimal="1.50",
                array=[1, 2],
                day="2026-01-31",
                odd="<object>",
                infinite="Infinity",
                bool=True,
            )
        ]
        assert rows.notes == [
            "metadata.odd: became <object>: a object has no JSON form here; convert it first",
            "metadata.infinite: Infinity became text",
        ]

    @pytest.mark.parametrize(
        ("document", "got"),
        [
            ("{", "no JSON ("),
            ("", "no JSON ("),
            ('{"a": NaN}', "no JSON ("),
            ("[1]", "JSON, but no object"),
            ("null", "JSON, but no object"),
            ([1], "a list"),
            (5, "a int"),
            (True, "a bool"),
        ],
    )
    def test_a_document_that_is_no_object_fails_its_row_whole(self, document: object, got: str) -> None:
        """Also its columns are not set; the other rows are."""
        rows = metadata_rows(
            frame({"patch_document": {"a": 1}}, {"attributes.metadata.a": 2, "patch_document": document})
        )

        assert rows.good() == [0]
        assert rows.problems[1].type == "parse_failure"
        assert rows.problems[1].message.startswith(f"Row 1, column 'patch_document': {got}")

    @pytest.mark.parametrize("number", [1 << 64, -(1 << 63) - 1, 10**30])
    @pytest.mark.parametrize("form", [dict, json.dumps, lambda document: json.dumps(document).encode()])
    def test_an_integer_beyond_64_bits_keeps_its_digits(self, form: Any, number: int) -> None:
        """As text, with a note, whether it came as JSON or not; as a float the last ones would be gone unseen."""
        rows = metadata_rows(frame({"patch_document": form({"a": number})}))

        assert said(rows) == [metadata(a=str(number))]
        assert rows.notes == ["metadata.a: an integer beyond 64 bits became text"]

    @pytest.mark.parametrize("number", [(1 << 63) - 1, -(1 << 63), 1.7976931348623157e308])
    def test_a_number_within_64_bits_is_one(self, number: float) -> None:
        """Also with as many digits."""
        assert said(metadata_rows(frame({"patch_document": json.dumps({"a": number})}))) == [metadata(a=number)]

    @pytest.mark.parametrize("document", [None, float("nan"), {}, "{}"])
    def test_an_empty_document_changes_nothing(self, document: object) -> None:
        """Nor does one that is missing."""
        rows = metadata_rows(frame({"patch_document": document, "attributes.metadata.a": 1}))

        assert (said(rows), rows.problems) == ([metadata(a=1)], {})

    def test_the_column_of_the_document_has_any_name(self) -> None:
        """One that is named has to be there; the usual one only where there are no field columns."""
        assert said(metadata_rows(frame({"mine": {"a": 1}}), "mine")) == [metadata(a=1)]
        with pytest.raises(ConfigurationError, match="expected mine"):
            metadata_rows(frame({"attributes.metadata.a": 1}), "mine")
        with pytest.raises(ConfigurationError, match=r"attributes.metadata.<field>, patch_document, or both"):
            metadata_rows(frame({"a": 1}))

    def test_a_field_may_have_dots_and_a_trace_has_fields_too(self) -> None:
        """The rest of the name is one key of the first level."""
        rows = metadata_rows(frame({"attributes.metadata.a.b": 1, "trace.metadata.a": 2}))

        assert said(rows) == [{("span", "metadata", "a.b"): 1, ("trace", "metadata", "a"): 2}]

    def test_a_column_of_no_field_is_a_mistake(self) -> None:
        """It is refused, or left out with a note."""
        table = frame({"attributes.metadata.": 1, "attributes.metadata.a": 2})

        with pytest.raises(
            ConfigurationError, match=r"is \"'attributes.metadata.'\"; expected attributes.metadata.<field>"
        ):
            metadata_rows(table)
        rows = metadata_rows(table, validate=False)
        assert said(rows) == [metadata(a=2)]
        assert rows.notes == ["column 'attributes.metadata.': not understood; it was left out"]

    def test_ten_thousand_columns_are_read(self) -> None:
        """Fields, and columns of something else beside them."""
        rows = metadata_rows(
            frame({f"attributes.metadata.k{n}": n for n in range(10_000)} | {f"other{n}": n for n in range(10_000)})
        )

        assert said(rows) == [metadata(**{f"k{n}": n for n in range(10_000)})]

    def test_notes_are_bounded(self) -> None:
        """A frame of a million bad values does not become a million notes."""
        rows = metadata_rows(frame({f"attributes.metadata.k{n}": object() for n in range(500)}))
        many = metadata_rows(frame(*({"patch_document": {f"k{n}": object()}} for n in range(500))))

        assert (len(rows.notes), len(many.notes)) == (100, 14)


class TestEvaluations:
    def test_every_part_is_read(self) -> None:
        """Of the span and of its trace; a name may hold dots, and the last part is the part."""
        rows = evaluation_rows(
            frame(
                {
                    "eval.Correctness.label": "correct",
                    "eval.Correctness.score": np.float32(0.5),
                    "eval.Correctness.explanation": "because",
                    "eval.Correctness.source": "llm",
                    "eval.Correctness.metadata": '{"model": "judge"}',
                    "eval.a.b.score": True,
                    "trace.eval.Whole.label": "good",
                    "trace_eval.Other.score": Decimal("1.5"),
                },
                {"eval.Correctness.label": None, "eval.Correctness.source": "llm", "eval.a.b.score": float("nan")},
            )
        )

        assert said(rows) == [
            {
                ("span", "evaluation", "Correctness"): {
                    "score": 0.5,
                    "label": "correct",
                    "explanation": "because",
                    "source": "llm",
                    "metadata": {"model": "judge"},
                },
                ("span", "evaluation", "a.b"): {"score": 1, "source": "code"},
                ("trace", "evaluation", "Whole"): {"label": "good", "source": "code"},
                ("trace", "evaluation", "Other"): {"score": 1.5, "source": "code"},
            },
            {},
        ]
        assert (rows.problems, rows.notes) == ({}, [])

    @pytest.mark.parametrize(
        ("part", "cell", "expected"),
        [
            ("score", "0.5", "a finite number"),
            ("score", float("inf"), "a finite number"),
            ("score", [1], "a finite number"),
            ("label", 1, "a text"),
            ("label", True, "a text"),
            ("explanation", {"a": 1}, "a text"),
            ("source", "robot", "one of code, llm, human"),
            ("source", ["llm"], "one of code, llm, human"),
            ("metadata", "[1]", "a dict, or the JSON text of an object"),
            ("metadata", "{", "a dict, or the JSON text of an object"),
            ("metadata", 1, "a dict, or the JSON text of an object"),
        ],
    )
    def test_a_cell_of_a_wrong_type_fails_its_row_whole(self, part: str, cell: object, expected: str) -> None:
        """It says where; nothing of the row is set, and every other row is."""
        rows = evaluation_rows(frame({"eval.A.label": "x", f"eval.B.{part}": cell}, {"eval.A.label": "y"}))

        assert rows.good() == [1]
        assert rows.problems[0].type == "patch_failure"
        assert (
            rows.problems[0].message == f"Row 0, column 'eval.B.{part}': a {type(cell).__name__}; expected {expected}."
        )

    @pytest.mark.parametrize(
        "column", ["eval.Correctness.lable", "eval.label", "eval.", "eval.x", "session_eval.A.label"]
    )
    def test_a_column_that_only_begins_like_one_is_refused(self, column: str) -> None:
        """Dropping it and reporting success is what we do not do."""
        table = frame({column: "x", "eval.A.score": 1})

        with pytest.raises(ConfigurationError, match=f"'{column}'.*expected eval.<Name>.label") as error:
            evaluation_rows(table)

        assert "validate=False" in str(error.value)
        rows = evaluation_rows(table, validate=False)
        assert said(rows) == [{("span", "evaluation", "A"): {"score": 1, "source": "code"}}]
        assert rows.notes == [f"column '{column}': not understood; it was left out"]

    def test_one_evaluation_a_row_has_its_name_in_a_column(self) -> None:
        """What a judge that goes over spans one by one collects."""
        rows = evaluation_rows(
            frame({"name": "A", "score": 1, "source": "llm"}, {"name": "B", "label": "x"}, {"name": "C"}, {"score": 1})
        )

        assert said(rows)[:3] == [
            {("span", "evaluation", "A"): {"score": 1, "source": "llm"}},
            {("span", "evaluation", "B"): {"label": "x", "source": "code"}},
            {},
        ]
        assert (
            rows.problems[3].message
            == "Row 3, column 'name': nothing; expected the name of an evaluation or annotation."
        )

    @pytest.mark.parametrize("columns", [{"name": "a span"}, {"score": 1}, {"annotation.A.label": "x"}, {}])
    def test_a_frame_without_evaluations_is_refused(self, columns: dict[str, object]) -> None:
        """A frame of spans has a name as well."""
        with pytest.raises(
            ConfigurationError, match=r"expected eval.<Name>.label, .*; or name with label, score, expl"
        ):
            evaluation_rows(frame(columns))


class TestAnnotations:
    def test_every_part_is_read(self) -> None:
        """The annotator under either word; Arize's notes without a name; of the trace as well."""
        rows = annotation_rows(
            frame(
                {
                    "annotation.quality.label": "good",
                    "annotation.quality.score": 4,
                    "annotation.quality.text": "fine",
                    "annotation.quality.updated_by": "ann",
                    "annotation.quality.updated_at": 1,
                    "annotation.notes": "see above",
                    "trace.annotation.tone.label": "kind",
                    "trace.annotation.tone.annotator": "bob",
                }
            )
        )

        assert said(rows) == [
            {
                ("span", "annotation", annotation_key("quality", "ann")): {
                    "name": "quality",
                    "label": "good",
                    "score": 4,
                    "text": "fine",
                    "annotator": "ann",
                },
                ("span", "annotation", "notes"): {"name": "notes", "text": "see above"},
                ("trace", "annotation", annotation_key("tone", "bob")): {
                    "name": "tone",
                    "label": "kind",
                    "annotator": "bob",
                },
            }
        ]
        assert rows.notes == ["column 'annotation.quality.updated_at': the time of this call is kept instead"]

    def test_an_annotator_alone_annotates_nothing(self) -> None:
        """A column that is the same on every row."""
        assert said(annotation_rows(frame({"annotation.quality.updated_by": "ann"}))) == [{}]

    def test_one_annotation_a_row_has_its_name_in_a_column(self) -> None:
        """As with evaluations."""
        assert said(annotation_rows(frame({"name": "quality", "text": "fine"}))) == [
            {("span", "annotation", "quality"): {"name": "quality", "text": "fine"}}
        ]

    @pytest.mark.parametrize("column", ["annotation.quality.explanation", "annotation.text"])
    def test_a_column_that_only_begins_like_one_is_refused(self, column: str) -> None:
        """An annotation has a text, an evaluation an explanation."""
        with pytest.raises(ConfigurationError, match=r"expected annotation.<Name>.label"):
            annotation_rows(frame({column: "x"}))

    def test_a_cell_of_a_wrong_type_fails_its_row(self) -> None:
        """As with evaluations."""
        rows = annotation_rows(frame({"annotation.quality.text": 1}))

        assert rows.problems[0].message == "Row 0, column 'annotation.quality.text': a int; expected a text."


class Foreign:
    """A record of another SDK: attributes of the same names."""

    def __init__(self, **parts: object) -> None:
        self.__dict__.update(parts)


class TestRecords:
    @pytest.mark.parametrize(
        "record",
        [
            AnnotateRecordInput(SPAN, [AnnotationInput("quality", label="good", score=0.5)]),
            {"record_id": SPAN.upper(), "values": [{"name": "quality", "label": "good", "score": 0.5}]},
            Foreign(record_id=SPAN, values=[Foreign(name="quality", label="good", score=0.5, text=None)]),
            {"record_id": f"00-{TRACE}-{SPAN}-01", "values": [AnnotationInput("quality", label="good", score=0.5)]},
            {"record_id": SpanRef(int(TRACE, 16), int(SPAN, 16)), "values": [AnnotationInput("quality", "good", 0.5)]},
        ],
    )
    def test_a_record_is_read_in_every_form(self, record: object) -> None:
        """Ours, a dict, or an object of another SDK; the id in every form that names a span."""
        rows = record_rows([record])

        assert rows.span_ids == [SPAN]
        assert said(rows) == [{("span", "annotation", "quality"): {"name": "quality", "label": "good", "score": 0.5}}]

    @pytest.mark.parametrize(
        ("record", "message"),
        [
            ({}, r"\[1\].record_id is 'None'; expected a span id"),
            ({"record_id": "x"}, r"\[1\].record_id is \"'x'\"; expected a span id"),
            (7, r"\[1\].record_id is 'None'"),
            ({"record_id": SPAN}, r"\[1\].values is None; expected a list"),
            ({"record_id": SPAN, "values": []}, r"\[1\].values is of type list; expected a list of at least one"),
            ({"record_id": SPAN, "values": "x"}, r"\[1\].values is of type str"),
            ({"record_id": SPAN, "values": [{}]}, r"\[1\].values\[0\].name is None"),
            ({"record_id": SPAN, "values": [{"name": "", "label": "x"}]}, r"\[1\].values\[0\].name is ''"),
            ({"record_id": SPAN, "values": [{"name": "q"}]}, r"\[1\].values\[0\] is 'an annotation without contents'"),
            (
                {"record_id": SPAN, "values": [{"name": "q", "score": "x"}]},
                r"values\[0\].score is of type str; expected a fin",
            ),
        ],
    )
    def test_a_record_that_cannot_be_read_is_named(self, record: object, message: str) -> None:
        """With its place in the call, for nothing of the call is set."""
        with pytest.raises(ConfigurationError, match=message):
            record_rows([AnnotateRecordInput(SPAN, [AnnotationInput("quality", "good")]), record])

    def test_a_score_that_no_float_can_hold_is_told(self) -> None:
        """A signaling NaN raises where a float is made of it."""
        with pytest.raises(ConfigurationError, match=r"values\[0\].score is of type Decimal; expected a finite number"):
            record_rows([AnnotateRecordInput(SPAN, [AnnotationInput("q", score=Decimal("snan"))])])  # type: ignore[arg-type] # users pass it

    @pytest.mark.parametrize(
        "records", [None, 5, "text", AnnotateRecordInput(SPAN, [AnnotationInput("q", "l")]), {"record_id": SPAN}]
    )
    def test_records_are_a_list(self, records: Any) -> None:
        """One record alone is none, and the error says so."""
        with pytest.raises(
            ConfigurationError, match=r"^annotate\(annotations=\) is (None|of type \w+); expected a list of records"
        ):
            record_rows(records)

    def test_a_call_takes_a_thousand(self) -> None:
        """Not one more."""
        record = AnnotateRecordInput(SPAN, [AnnotationInput("quality", "good")])

        assert len(record_rows([record] * 1_000).span_ids) == 1_000
        with pytest.raises(ConfigurationError, match="is '1001 records'; expected at most 1000 in a call"):
            record_rows([record] * 1_001)
