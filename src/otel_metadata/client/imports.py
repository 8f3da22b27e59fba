"""A file of spans into a store: what the Collector wrote, and exports of ours.

This module decides what a file is, and tells what of it could not be read. What a line or row means is decided in
`client.otlp_json` and `store.table`. The same file twice is the same as once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, final

import orjson

from otel_metadata.client import otlp_json
from otel_metadata.client.otlp_json import LatePatch
from otel_metadata.errors import FileError
from otel_metadata.model.times import time_ns
from otel_metadata.store import table

if TYPE_CHECKING:
    from otel_metadata.model.merge import Fields
    from otel_metadata.model.record import StoredSpan
    from otel_metadata.seams import SpanStore

__all__ = ["MAX_PROBLEMS", "ImportProblem", "ImportReport", "import_file"]

MAX_PROBLEMS: Final = 100
"""Problems that a report names; all are counted."""

_BATCH: Final = 1_000
_BATCH_FIELDS: Final = 20_000

_EXPECTED: Final = "OTLP JSON lines, or a Parquet or JSON Lines file exported by otel-metadata"


_SEARCHED_LINES: Final = 1_000
"""After so many lines of which none is understood, a file is another kind of file."""

_COMPRESSED: Final = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")  # gzip, zstd: the Collector writes the latter if asked


@final
@dataclass(frozen=True, slots=True)
class ImportProblem:
    """What could not be read.

    Attributes:
        line: The line of a text file, the row of Parquet; from 1.
        message: What was got and what was expected.
    """

    line: int
    message: str


@final
@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of a file.

    Attributes:
        spans_imported: Spans that are in the store now.
        spans_failed: Spans, and lines, that could not be read.
        lines_ignored: Lines that hold logs or metrics.
        problems: The first 100 of what could not be read.
        updates_imported: Late updates that had travelled through OTLP as spans of their own, and are on the spans that
            they are about now, wherever those come from.
    """

    spans_imported: int
    spans_failed: int
    lines_ignored: int
    problems: tuple[ImportProblem, ...]
    updates_imported: int = 0


_Ignored: TypeAlias = Literal["ignored"]
_Read: TypeAlias = "otlp_json.Read | _Ignored | ValueError"


def import_file(store: SpanStore, path: str | os.PathLike[str]) -> ImportReport:
    """Write the spans of a file into *store*, in batches; what cannot be read is told, the rest is imported.

    Fields merge by version: an export that is older than what is stored overwrites nothing. Values of a Collector's
    file have the version that their span says, else that of its end.

    Args:
        store: Where to.
        path: OTLP as JSON, one request a line, as the Collector's file exporter writes it; Parquet or JSON Lines
            exported by otel-metadata.

    Raises:
        FileError: It cannot be read, or is something else; what was read before stays imported.
        MissingExtraError: It is Parquet, and pyarrow is not installed.
        StoreError: The store cannot be written; what was written before stays.
    """
    name = os.fspath(path)
    counts = {"imported": 0, "updates": 0, "failed": 0, "ignored": 0}
    problems: list[ImportProblem] = []
    spans: list[tuple[StoredSpan, Fields]] = []
    updates: list[LatePatch] = []
    fields = 0

    def write() -> None:
        store.write_rows(spans)
        counts["imported"] += len(spans)
        spans.clear()
        if updates:
            store.patch_rows(updates)
        counts["updates"] += len(updates)
        updates.clear()

    for line, read in _reads(name):
        if read == "ignored":
            counts["ignored"] += 1
        elif isinstance(read, ValueError):
            counts["failed"] += 1
            if len(problems) < MAX_PROBLEMS:
                problems.append(ImportProblem(line, f"{read}"))
        else:
            if isinstance(read, LatePatch):
                updates.append(read)
            else:
                spans.append(read)
            fields += len(read[-1])
            if len(spans) + len(updates) >= _BATCH or fields >= _BATCH_FIELDS:
                write()
                fields = 0
    write()
    return ImportReport(counts["imported"], counts["failed"], counts["ignored"], tuple(problems), counts["updates"])


def _reads(path: str) -> Iterator[tuple[int, _Read]]:
    try:
        with Path(path).open("rb") as file:
            start = file.read(4)
        if start.startswith(_COMPRESSED):
            raise FileError(path, "a compressed file", f"{_EXPECTED}: decompress it first")
        yield from _parquet(path) if start == b"PAR1" else _lines(path)
    except FileError:
        raise
    except OSError as error:
        raise FileError(path, error.strerror or f"{error}", f"a file that can be read: {_EXPECTED}") from error


def _lines(path: str) -> Iterator[tuple[int, _Read]]:
    is_known = False
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                found = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                found = ValueError(f"no JSON ({error}); expected {_EXPECTED}")
            if not is_known and number > _SEARCHED_LINES:
                raise FileError(path, f"none of {_SEARCHED_LINES} lines is understood", _EXPECTED)
            for read in _line(found):
                is_known = is_known or not isinstance(read, ValueError)
                yield number, read


def _line(found: Any) -> Iterator[_Read]:
    if isinstance(found, ValueError):
        yield found
    elif not isinstance(found, dict):
        yield ValueError(f"a JSON {type(found).__name__}; expected an object: {_EXPECTED}")
    elif otlp_json.is_traces(found):
        yield from otlp_json.spans_of(found)
    elif otlp_json.is_ignored(found):
        yield "ignored"
    elif "context.span_id" in found:
        yield _row(found)
    else:
        names = ", ".join(ascii(name)[:40] for name in list(found)[:5])
        yield ValueError(f"an object with {names or 'nothing'}; expected {_EXPECTED}")


def _row(row: dict[str, Any]) -> _Read:
    for name in table.TIME_COLUMNS:
        try:
            if isinstance(row.get(name), str):
                row[name] = time_ns(row[name])
        except ValueError:
            pass  # it is told with its column below
    try:
        return table.row_of(row)
    except table.RowError as error:
        return error


def _parquet(path: str) -> Iterator[tuple[int, _Read]]:
    arrow, parquet = table.load("pyarrow"), table.load("pyarrow.parquet")
    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            format = (schema.metadata or {}).get(table.FORMAT_NAME.encode())
            if format is None:
                raise FileError(path, "a Parquet file that otel-metadata did not export", _EXPECTED)
            if not format.isdigit() or int(format) > table.FORMAT:
                raise FileError(
                    path,
                    f"an export of format {ascii(format.decode(errors='replace'))[:40]}",
                    f"format {table.FORMAT}: install a newer otel-metadata",
                )
            number = 0
            for batch in file.iter_batches(batch_size=_BATCH):
                for row in table.rows(batch):
                    number += 1
                    yield number, row if isinstance(row, ValueError) else _row(row)
    except arrow.ArrowException as error:
        raise FileError(path, f"damaged Parquet ({error})", _EXPECTED) from error
