"""Spans as a DataFrame, with a column for each key of metadata, each attribute, and each part of a verdict.

The names are those that `update_metadata`, `update_evaluations` and `update_annotations` read, so a frame can be
evaluated and given back. A missing value is NA, a JSON null is None, so a frame that is given back unchanged changes
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from otel_metadata.store import table

if TYPE_CHECKING:
    import pandas as pd

# Columns of the table that are split into one column for each key.
_BY_KEY: Final[Mapping[str, str]] = {
    "attributes.metadata": "attributes.metadata.",
    "trace.metadata": "trace.metadata.",
    "resource": "resource.",
    "attributes": "attributes.",  # last, because an attribute of the application may have the name of another column
}
_VERDICTS: Final[Mapping[str, str]] = {
    "evaluations": "eval.",
    "annotations": "annotation.",
    "trace.evaluations": "trace.eval.",
    "trace.annotations": "trace.annotation.",
}
_FIXED: Final = tuple(
    name for name in table.COLUMNS if not (name in _BY_KEY or name in _VERDICTS or name in table.FOR_IMPORT)
)


_LISTS: Final = frozenset({"tags", "trace.tags", "events", "links"})


def flat(row: table.Row) -> dict[str, Any]:
    """Return a row of the table (`table.readable`) with a column for each key, without missing values.

    If several annotations have one name, the latest is shown.
    """
    columns = {name: row[name] for name in _FIXED if row[name] is not None}
    for name, prefix in _VERDICTS.items():
        verdicts = row[name] or {}
        if not isinstance(verdicts, dict):
            verdicts = {note["name"]: {part: note[part] for part in note if part != "name"} for note in verdicts}
        for key, verdict in verdicts.items():
            columns.update({f"{prefix}{key}.{part}": value for part, value in verdict.items()})
    for name, prefix in _BY_KEY.items():
        for key, value in (row[name] or {}).items():
            columns.setdefault(prefix + key, value)
    return columns


def data_frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return rows of `flat` as a DataFrame of pandas: the fixed columns, then the others by name.

    Raises:
        MissingExtraError: pandas is not installed.
    """
    pandas = table.load("pandas")
    columns: dict[str, dict[int, Any]] = {name: {} for name in _FIXED}
    height = 0
    for number, row in enumerate(rows):
        height = number + 1
        for name, value in row.items():
            columns.setdefault(name, {})[number] = value
    names = [*_FIXED, *sorted(columns.keys() - _FIXED)]
    frame: pd.DataFrame = pandas.DataFrame({name: _series(pandas, name, columns[name], height) for name in names})
    return frame


def _series(pandas: Any, name: str, cells: Mapping[int, Any], height: int) -> Any:
    values = [cells.get(number, pandas.NA) for number in range(height)]
    if name in table.TIME_COLUMNS:
        return pandas.to_datetime(pandas.Series(values, dtype="int64"), unit="ns", utc=True)
    return pandas.Series(values, dtype=_dtype(name, {type(value) for value in cells.values()}, cells.values()))


def _dtype(name: str, types: set[type], values: Iterable[Any]) -> str:
    """Return the type that holds every cell unchanged; `object` if no other type does."""
    if name == "latency_ms" or (name.endswith(".score") and not name.startswith(tuple(_BY_KEY.values()))):
        return "Float64"
    if types == {str} or (not types and name not in _LISTS):
        return "string"
    if types == {bool}:
        return "boolean"
    if types == {int} and all(-(1 << 63) <= value < 1 << 63 for value in values):
        return "Int64"
    return "Float64" if types == {float} else "object"
