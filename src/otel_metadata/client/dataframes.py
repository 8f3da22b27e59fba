"""Read a table of pandas, polars or Arrow, or a list of dicts, as columns of Python values.

This module decides how a cell is read, and which cells are missing. `client.columns` knows what a column means.

Each column is read on its own, when it is asked for. A pandas column of mixed types cannot become Arrow, and of Python
objects in a polars column Arrow returns the addresses (2.1.0).

Which cells are missing (`UNSET`), and which are null (`None`):

| table | missing | null |
|---|---|---|
| pandas | NaN, NaT, NA | None in a column of dtype `object` |
| polars, Arrow | null, NaN; in structs null | null as the value of a map |
| list of dicts | a key that the dict lacks, NaN, NaT, NA | None |

A ragged table has NaN or null where a row lacks a column, so neither can be told from a null that was meant.
Only a table that keeps Python's own None beside them can say null.
A list of dicts may be the rows of a pandas frame (`to_dict("records")`), so all marks of pandas count there.
"""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, final

from otel_metadata.errors import ConfigurationError
from otel_metadata.model.unset import UNSET
from otel_metadata.store.table import load

if TYPE_CHECKING:
    import pandas
    import polars

_SHOWN_COLUMNS: Final = 20


@final
class Frame:
    """A table as columns of cells.

    Attributes:
        names: The columns whose name is a text, in order.
        height: Rows.
    """

    def __init__(self, names: Iterable[Hashable], height: int, cells: Callable[[int], list[object]]) -> None:
        """Read column number n with *cells(n)*, which returns one value for each row, `UNSET` for a missing one."""
        self._positions: dict[str, int] = {}
        self._twice: set[str] = set()
        for position, name in enumerate(names):
            if isinstance(name, str):
                if name in self._positions:
                    self._twice.add(name)
                self._positions.setdefault(name, position)
        self.names = tuple(self._positions)
        self.height = height
        self._cells = cells

    def __contains__(self, name: str) -> bool:
        """Whether there is a column of this name."""
        return name in self._positions

    def column(self, name: str) -> list[object]:
        """Return the cells of a column.

        Raises:
            ConfigurationError: Two columns have this name, or its package cannot make Python values of it.
        """
        if name in self._twice:
            raise ConfigurationError(f"column {name!r} of the frame", "there twice", "only one column of this name")
        try:
            return self._cells(self._positions[name])
        except Exception as error:
            # Foreign code: a time beyond Python's years, a text that is not UTF-8. Its message may show a value.
            raise ConfigurationError(
                f"column {ascii(name)[:200]} of the frame",
                f"unreadable ({type(error).__name__})",
                "values that Python can hold, for example texts",
            ) from error

    def names_for_people(self) -> str:
        """Return the names of the columns as text; of many columns the first ones."""
        shown = [ascii(name)[:100] for name in self.names[:_SHOWN_COLUMNS]]
        more = len(self.names) - len(shown)
        return ", ".join(shown) + (f" and {more} more" if more else "") if shown else "none"


def read_frame(given: object, argument: str = "dataframe") -> Frame:
    """Return *given* as columns, without converting anything yet.

    Args:
        given: A DataFrame of pandas (named levels of its index count as columns) or polars, a pyarrow Table, anything
            with `__arrow_c_stream__`, or a list of dicts.
        argument: The caller's name for *given*, for errors.

    Raises:
        ConfigurationError: *given* is of another type.
        MissingExtraError: *given* is an Arrow table, and pyarrow is not installed.
    """
    # Whoever made a frame has loaded its package, so neither is imported here.
    if (loaded := sys.modules.get("pandas")) is not None and isinstance(given, loaded.DataFrame):
        return _of_pandas(given)
    if (loaded := sys.modules.get("polars")) is not None and isinstance(given, loaded.DataFrame):
        return _of_polars(given)
    if hasattr(given, "__arrow_c_stream__"):
        return _of_arrow(given)
    if isinstance(given, list | tuple) and all(isinstance(row, Mapping) for row in given):
        return _of_dicts(given)
    raise ConfigurationError(
        argument,
        type(given),
        "a DataFrame of pandas or polars, a pyarrow Table, anything with __arrow_c_stream__, or a list of dicts",
    )


def _of_pandas(frame: pandas.DataFrame) -> Frame:
    columns = list(frame.columns)
    # Phoenix, for one, has context.span_id as the index of its frames.
    levels = [level for level, name in enumerate(frame.index.names) if isinstance(name, str) and name not in columns]

    def cells(position: int) -> list[object]:
        if position < len(columns):
            series = frame.iloc[:, position]
        else:
            series = frame.index.get_level_values(levels[position - len(columns)]).to_series()
        if hasattr(series.dtype, "pyarrow_dtype"):
            return _arrow_cells(series.array.__arrow_array__())
        found: list[object] = series.tolist()
        keeps_none = series.dtype == object
        for row in series.isna().to_numpy().nonzero()[0].tolist():
            if not (keeps_none and found[row] is None):
                found[row] = UNSET
        return found

    return Frame([*columns, *(frame.index.names[level] for level in levels)], len(frame), cells)


def _of_polars(frame: polars.DataFrame) -> Frame:
    import polars  # loaded already: it has made the frame

    def cells(position: int) -> list[object]:
        series = frame.to_series(position)
        found: list[object] = series.to_list()
        if isinstance(series.dtype, polars.Datetime) and series.dtype.time_unit == "ns":
            form = "%FT%T%.9f%:z" if series.dtype.time_zone else "%FT%T%.9f"
            texts = series.dt.to_string(form).to_list()
            nanoseconds = series.dt.nanosecond().to_list()
            # A Python datetime holds microseconds; a time with more stays a text.
            found = [
                text if rest is not None and rest % 1_000 else time
                for time, rest, text in zip(found, nanoseconds, texts, strict=True)
            ]
        return _without_nulls(found, is_nested=series.dtype.is_nested())

    return Frame(frame.columns, frame.height, cells)


def _of_arrow(given: object) -> Frame:
    pyarrow = load("pyarrow")
    try:
        table: Any = pyarrow.table(given)
    except (pyarrow.ArrowException, TypeError, ValueError) as error:
        raise ConfigurationError("dataframe", type(given), f"an Arrow table of columns ({error})") from error

    return Frame(table.column_names, table.num_rows, lambda position: _arrow_cells(table.column(position)))


def _of_dicts(rows: Sequence[Mapping[Hashable, object]]) -> Frame:
    names = list(dict.fromkeys(name for row in rows for name in row))

    def cells(position: int) -> list[object]:
        found = [row.get(names[position], UNSET) for row in rows]
        return [UNSET if _is_missing(cell) else cell for cell in found]

    return Frame(names, len(rows), cells)


def _arrow_cells(column: Any) -> list[object]:
    """Return the cells of a pyarrow column; a map becomes a dict, and its null values stay null."""
    types = load("pyarrow").types
    found: list[object] = column.to_pylist()
    if types.is_map(column.type):
        return [
            UNSET if pairs is None else {key: _struct_without_nulls(value) for key, value in pairs}  # type: ignore[attr-defined] # a list of pairs
            for pairs in found
        ]
    return _without_nulls(found, is_nested=types.is_nested(column.type))


def _without_nulls(cells: list[object], *, is_nested: bool) -> list[object]:
    """Return cells of Arrow with `UNSET` for null and NaN, and structs without the fields that are null."""
    if is_nested:
        cells = [_struct_without_nulls(cell) for cell in cells]
    return [UNSET if cell is None or _is_missing(cell) else cell for cell in cells]


def _struct_without_nulls(value: object) -> object:
    # Arrow makes one struct type of a column of dicts, so each row has the keys of all rows, with null.
    if isinstance(value, dict):
        return {key: _struct_without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_struct_without_nulls(item) for item in value]
    return value


_PRESENT: Final = frozenset({str, int, bool, dict, list, type(None), type(UNSET)})


def _is_missing(cell: object) -> bool:
    """Whether a cell marks a missing value: NaN of any kind of number, NaT, or NA of pandas.

    The same as pandas' `isna` of a scalar, except for None.
    """
    kind = type(cell)
    if kind in _PRESENT:
        return False
    if kind is float or isinstance(cell, float | dt.datetime):
        return cell != cell  # noqa: PLR0124 # NaN is the float that differs from itself, NaT the datetime
    if isinstance(cell, Decimal):
        return cell.is_nan()
    if (numpy := sys.modules.get("numpy")) is not None and isinstance(cell, numpy.generic):
        return bool(cell != cell)  # noqa: PLR0124 # as above
    return (pandas := sys.modules.get("pandas")) is not None and cell is pandas.NA
