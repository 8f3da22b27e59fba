"""Tables of every kind as columns of values: which cells are there, which are null, and that no value is changed."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from otel_metadata.client.dataframes import read_frame
from otel_metadata.errors import ConfigurationError, MissingExtraError, OtelMetadataError
from otel_metadata.model.unset import UNSET

NAN = float("nan")


class Stream:
    """A table of nobody we know, behind the Arrow interchange."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self._table = pa.table(columns)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


def dicts(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Return columns as rows, without the keys that a row lacks."""
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    return [{name: cell for name, cell in row.items() if cell is not None} for row in rows]


ARROW: dict[str, Callable[[dict[str, list[Any]]], object]] = {
    "polars": pl.DataFrame,
    "pyarrow": pa.table,
    "record batch": pa.record_batch,
    "stream": Stream,
}
EVERY = {
    "pandas": pd.DataFrame,
    "pandas of Arrow": lambda columns: pa.table(columns).to_pandas(),
    "dicts": dicts,
    **ARROW,
}


class TestEveryTable:
    @pytest.mark.parametrize("kind", EVERY)
    def test_columns_are_read_by_name(self, kind: str) -> None:
        """Names in order, rows counted, exact Python values."""
        frame = read_frame(EVERY[kind]({"a": ["x", "y"], "b": [1, 2], "c": [0.5, 1.5], "d": [True, False]}))

        assert (frame.names, frame.height) == (("a", "b", "c", "d"), 2)
        assert [frame.column(name) for name in frame.names] == [["x", "y"], [1, 2], [0.5, 1.5], [True, False]]
        assert [[type(cell) for cell in frame.column(name)] for name in "abcd"] == [
            [t] * 2 for t in (str, int, float, bool)
        ]
        assert "a" in frame
        assert "e" not in frame

    @pytest.mark.parametrize("kind", sorted(EVERY.keys() - {"pandas of Arrow"}))
    @pytest.mark.parametrize(
        "cells",
        [["x", None], [1, None], [1.5, None], [True, None], [dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc), None]],
    )
    def test_a_ragged_column_has_no_cell_there(self, kind: str, cells: list[Any]) -> None:
        """What a row lacks is neither NaN nor null, whatever the type of the column."""
        if kind == "pandas":  # as pandas makes it of rows that lack a key
            table: object = pd.DataFrame([{"a": 1, "cell": cells[0]}, {"a": 2}])
        else:
            table = EVERY[kind]({"a": [1, 2], "cell": cells})

        found = read_frame(table).column("cell")

        assert found == [cells[0], UNSET]

    @pytest.mark.parametrize("kind", EVERY)
    def test_nan_is_no_cell(self, kind: str) -> None:
        """A float column cannot tell a NaN that was meant."""
        assert read_frame(EVERY[kind]({"a": [1.5, NAN]})).column("a") == [1.5, UNSET]

    @pytest.mark.parametrize("kind", EVERY)
    def test_a_table_without_rows_or_columns_is_one(self, kind: str) -> None:
        """Nothing to do is no mistake."""
        frame = read_frame(EVERY[kind]({}))

        assert (frame.names, frame.height) == ((), 0)
        assert frame.names_for_people() == "none"

    @pytest.mark.parametrize("kind", EVERY)
    def test_lists_and_dicts_are_python_s_own(self, kind: str) -> None:
        """Nested values come as lists and dicts."""
        frame = read_frame(EVERY[kind]({"list": [[1, 2], [3]], "dict": [{"x": 1}, {"x": 2}]}))

        assert [list(cell) for cell in frame.column("list")] == [[1, 2], [3]]  # type: ignore[call-overload]
        assert frame.column("dict") == [{"x": 1}, {"x": 2}]


class TestPandas:
    def test_mixed_types_stay_as_they_are(self) -> None:
        """A column of dtype object cannot become Arrow, and need not. None is null, what is missing is not there."""
        cells = ["a", 1, 2.5, True, None, NAN, pd.NA, pd.NaT, [1, None], {"k": None}, Decimal("1.5"), np.int64(7)]
        expected = ["a", 1, 2.5, True, None, UNSET, UNSET, UNSET, [1, None], {"k": None}, Decimal("1.5"), np.int64(7)]

        found = read_frame(pd.DataFrame({"a": pd.Series(cells, dtype=object)})).column("a")

        assert found == expected
        assert [type(cell) for cell in found] == [type(cell) for cell in expected]

    @pytest.mark.parametrize("dtype", ["string", "Int64", "boolean", "category", "Float64", "datetime64[ns]"])
    def test_other_dtypes_cannot_hold_none(self, dtype: str) -> None:
        """There None became pandas' own mark for what is missing."""
        assert read_frame(pd.DataFrame({"a": pd.Series([None, None], dtype=dtype)})).column("a") == [UNSET, UNSET]

    def test_levels_of_the_index_are_columns(self) -> None:
        """Phoenix has the span id as the index; a column of the same name goes before it."""
        frame = pd.DataFrame({"a": [1, 2], "context.span_id": ["x", "y"]}).set_index("context.span_id")

        assert read_frame(frame).column("context.span_id") == ["x", "y"]
        assert read_frame(frame.assign(**{"context.span_id": ["v", "w"]})).column("context.span_id") == ["v", "w"]

    def test_an_index_that_is_no_range_is_none_of_our_business(self) -> None:
        """Rows are counted by their place, also in a part of a frame."""
        assert read_frame(pd.DataFrame({"a": [1, 2, 3]}).iloc[1:]).column("a") == [2, 3]

    def test_names_that_are_no_texts_are_passed_over(self) -> None:
        """Another column keeps its place."""
        frame = read_frame(pd.DataFrame({1: ["x"], ("a", "b"): ["y"], "c": ["z"]}))

        assert frame.names == ("c",)
        assert frame.column("c") == ["z"]

    def test_a_column_that_is_there_twice_is_refused_when_it_is_read(self) -> None:
        """Nobody can say which one is meant; as long as nobody asks, it does not matter."""
        frame = read_frame(pd.DataFrame([[1, 2, 3]], columns=["a", "a", "b"]))

        assert frame.column("b") == [3]
        with pytest.raises(ConfigurationError, match="column 'a' of the frame"):
            frame.column("a")

    @pytest.mark.parametrize("cell", [{"x": 1, "y": None}, {"y": None}])
    def test_a_column_of_arrow_is_read_as_arrow(self, cell: dict[str, Any]) -> None:
        """`read_parquet(dtype_backend="pyarrow")` makes such: a null field of a struct may be another row's key."""
        dtype = pd.ArrowDtype(pa.struct([("x", pa.int64()), ("y", pa.int64())]))

        found = read_frame(pd.DataFrame({"a": pd.Series([cell, None], dtype=dtype)})).column("a")

        assert found == [{name: value for name, value in cell.items() if value is not None}, UNSET]


class TestPolarsAndArrow:
    def test_a_polars_column_of_objects_is_read_as_it_is(self) -> None:
        """Arrow would hand out their addresses."""
        frame = read_frame(pl.DataFrame({"a": pl.Series([1, "x", None, {"k": 1}], dtype=pl.Object)}))

        assert frame.column("a") == [1, "x", UNSET, {"k": 1}]

    @pytest.mark.parametrize("kind", ARROW)
    def test_fields_of_a_struct_that_are_null_are_not_there(self, kind: str) -> None:
        """A column of dicts has the keys of all rows in each; an element of a list keeps its place."""
        cells = [{"x": 1, "y": None, "z": {"p": None, "q": 2}, "l": [1, None]}, None]

        assert read_frame(ARROW[kind]({"a": cells})).column("a") == [{"x": 1, "z": {"q": 2}, "l": [1, None]}, UNSET]

    def test_a_map_is_a_dict(self) -> None:
        """Its keys are its own, so a null in it was meant; a list of pairs is nothing that anybody could filter."""
        column = pa.array([[("k", 1), ("j", None)], [], None], type=pa.map_(pa.string(), pa.int64()))

        assert read_frame(pa.table({"a": column})).column("a") == [{"k": 1, "j": None}, {}, UNSET]

    @pytest.mark.parametrize(
        ("zone", "text"),
        [
            (None, "2026-01-31T10:00:00.123456789"),
            ("UTC", "2026-01-31T10:00:00.123456789+00:00"),
            ("Asia/Tokyo", "2026-01-31T19:00:00.123456789+09:00"),
        ],
    )
    def test_polars_times_are_whole(self, zone: str | None, text: str) -> None:
        """A datetime of Python ends at microseconds; the spans of an export have nanoseconds."""
        ns = 1_769_853_600_123_456_789
        column = pl.Series([ns, ns - 789, None]).cast(pl.Datetime("ns", zone))

        found = read_frame(pl.DataFrame({"a": column})).column("a")

        assert found == [text, column.to_list()[1], UNSET]

    @pytest.mark.parametrize(
        "column",
        [
            pa.array([10**14], type=pa.timestamp("s")),
            pa.array([b"\xff"]).view(pa.string()),
        ],
        ids=["a time beyond Python's years", "no UTF-8"],
    )
    def test_a_column_that_python_cannot_hold_is_named(self, column: pa.Array) -> None:
        """The exceptions of many packages are one, and nothing was changed."""
        with pytest.raises(ConfigurationError, match=r"^column 'a' of the frame is 'unreadable \("):
            read_frame(pa.table({"a": column})).column("a")

    def test_polars_needs_no_pyarrow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its columns are lists by themselves."""
        frame = pl.DataFrame({"a": [1]})
        monkeypatch.setitem(sys.modules, "pyarrow", None)

        assert read_frame(frame).column("a") == [1]

    def test_the_extra_is_named_where_it_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What only Arrow can read needs pyarrow."""
        table = pa.table({"a": [1]})
        monkeypatch.setitem(sys.modules, "pyarrow", None)

        with pytest.raises(MissingExtraError, match=r"otel-metadata\[dataframe\]"):
            read_frame(table)

    def test_a_stream_that_is_no_table_is_refused(self) -> None:
        """A single column has the interchange as well."""
        with pytest.raises(ConfigurationError, match=r"^dataframe is of type Series"):
            read_frame(pl.Series("a", [1]))


class TestDicts:
    def test_none_is_null_and_a_key_that_lacks_is_not_there(self) -> None:
        """Here both can be told."""
        frame = read_frame([{"a": None}, {"b": 1, 2: "not a text"}])

        assert frame.names == ("a", "b")
        assert frame.column("a") == [None, UNSET]
        assert frame.column("b") == [UNSET, 1]

    @pytest.mark.parametrize(
        "cell",
        [
            NAN,
            np.float64("nan"),
            np.float32("nan"),
            Decimal("nan"),
            Decimal("snan"),
            pd.NA,
            pd.NaT,
            np.datetime64("NaT", "ns"),
        ],
        ids=repr,
    )
    def test_every_mark_of_a_missing_cell_is_none(self, cell: object) -> None:
        """Rows may be those of a frame: what it has made of a gap is not stored as a value."""
        assert read_frame([{"a": cell}, {"a": 1}]).column("a") == [UNSET, 1]

    def test_rows_of_a_frame_say_what_the_frame_says(self) -> None:
        """`to_dict("records")` has the gaps of pandas, but for nullable columns, where it says None."""
        frame = pd.DataFrame(
            {
                "f": [1.5, NAN],
                "t": pd.to_datetime(["2026-01-31", None]),
                "o": pd.Series([None, NAN], dtype=object),
            }
        )
        by_row = read_frame(frame.to_dict("records"))

        assert [by_row.column(name) for name in "fto"] == [read_frame(frame).column(name) for name in "fto"]


@pytest.mark.parametrize(
    "given", [None, 1, "", "a text", {"a": [1]}, [1], [{"a": 1}, 2], pl.LazyFrame({"a": [1]}), object()]
)
def test_what_is_no_table_is_refused(given: object) -> None:
    """The error says what would be one."""
    with pytest.raises(
        ConfigurationError, match=f"^dataframe is (None|of type {type(given).__name__}); expected a DataFrame of pandas"
    ) as error:
        read_frame(given)

    assert isinstance(error.value, OtelMetadataError)
    assert isinstance(error.value, ValueError)


def test_of_many_columns_the_first_are_named() -> None:
    """An error stays readable when a table has ten thousand."""
    frame = read_frame([{f"c{number}": 1 for number in range(10_000)}])

    assert frame.names_for_people().startswith("'c0', 'c1', ")
    assert frame.names_for_people().endswith(" and 9980 more")
