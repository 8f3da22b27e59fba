"""Write batches of spans to a file: streamed, and never half-written under its final name.

This module decides how a file is made, and what each format contains. `store.table` decides the columns.

The file is written beside the target under a temporary name (`.<name>.<random>.part`, mode 0600), flushed to the disk,
and renamed. So the target stays unchanged until everything is written. After an error or Ctrl-C the temporary file is
removed; only a killed process leaves one behind. It is opened once, because somebody else who may write the directory
could put a link in its place. A target that is a link is replaced, not followed.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeAlias

import orjson

from otel_metadata.client.flat import data_frame, flat
from otel_metadata.environment import absolute_path
from otel_metadata.errors import ConfigurationError, FileError
from otel_metadata.model.times import time_text
from otel_metadata.seams import RowStore
from otel_metadata.store import table

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from otel_metadata.model.record import SpanQuery
    from otel_metadata.seams import SpanStore

_Write: TypeAlias = "Callable[[pa.RecordBatch], None]"

Format: TypeAlias = "Callable[[BinaryIO], AbstractContextManager[_Write]]"
"""Begins a format in an open file, and returns the function that writes a batch to it."""

# Texts that a spreadsheet takes for a formula (OWASP, "CSV Injection"). Some spreadsheets skip blanks and quotes before
# it; East Asian ones read the full-width forms as well. The syntax is that of RE2.
_FORMULA: Final = r"""^([\s'"\p{Z}\p{C}]*[=+\-@\x{FF1D}\x{FF0B}\x{FF0D}\x{FF20}]|[\t\r\n])"""

_PAGE_ROWS: Final = 8
"""Rows after which pyarrow checks whether a page has reached 1 MB: with more, long texts make pages of gigabytes."""

_GROUP_BYTES: Final = 32_000_000
"""Bytes in memory at which a row group is written: large row groups compress and read better."""


def export_to_file(
    batches: Iterable[pa.RecordBatch], path: str | os.PathLike[str], format: Format, *, progress: bool | None = None
) -> int:
    """Write batches to *path*, replace the file that is there, and return the number of spans.

    Args:
        batches: In the columns of `store.table`.
        path: In a directory that exists.
        format: `parquet`, `jsonl` or `csv`.
        progress: Show the count on standard error while it runs; None where that is a terminal and rich is installed.

    Raises:
        MissingExtraError: pyarrow is not installed.
        FileError: The file cannot be written; a file that was there is unchanged.
        StoreError: The store cannot be read; a file that was there is unchanged.
    """
    if not isinstance(path, str | os.PathLike):
        raise ConfigurationError("path", type(path), "a path as text or os.PathLike")
    table.schema()  # a missing package is told before a file is made
    with _whole_file(absolute_path("path", os.fspath(path))) as part, format(part) as write:
        return _export(batches, write, progress)


def export_to_stream(batches: Iterable[pa.RecordBatch], stream: BinaryIO, *, progress: bool | None = None) -> int:
    """Write batches as JSON Lines to an open file, as they come, and return the number of spans.

    Raises:
        MissingExtraError: pyarrow is not installed.
        OSError: It cannot be written.
        StoreError: The store cannot be read.
    """
    if not hasattr(stream, "writelines"):
        raise ConfigurationError("path", type(stream), "a path as text or os.PathLike, or an open binary file")
    with jsonl(stream) as write:
        count = _export(batches, write, progress)
    stream.flush()
    return count


def _export(batches: Iterable[pa.RecordBatch], write: _Write, progress: bool | None) -> int:
    count = 0
    with _shown(progress) as advance:
        for batch in batches:
            write(batch)
            count += batch.num_rows
            advance(batch.num_rows)
    return count


def export_to_df(batches: Iterable[pa.RecordBatch], *, progress: bool | None = None) -> pd.DataFrame:
    """Return batches as a DataFrame of pandas with the columns of `Page.to_df`.

    Raises:
        MissingExtraError: pandas or pyarrow is not installed.
        StoreError: The store cannot be read.
    """
    with _shown(progress) as advance:

        def rows() -> Iterator[dict[str, Any]]:
            for batch in batches:
                yield from (flat(row) for row in table.rows(batch) if not isinstance(row, table.RowError))
                advance(batch.num_rows)

        return data_frame(rows())


@contextmanager
def parquet(file: BinaryIO) -> Iterator[_Write]:
    """One file of Parquet, compressed with zstd."""
    arrow = table.load("pyarrow")
    group: list[pa.RecordBatch] = []
    with table.load("pyarrow.parquet").ParquetWriter(
        file, table.schema(), compression="zstd", write_batch_size=_PAGE_ROWS
    ) as writer:

        def write(batch: pa.RecordBatch) -> None:
            group.append(batch)
            if sum(one.nbytes for one in group) >= _GROUP_BYTES:
                flush()

        def flush() -> None:
            if group:
                whole = arrow.Table.from_batches(group)
                writer.write_table(whole, row_group_size=whole.num_rows)
                group.clear()

        yield write
        flush()


@contextmanager
def jsonl(file: BinaryIO) -> Iterator[_Write]:
    """One JSON object a line: JSON columns as JSON, times as ISO 8601 in UTC; a span has no key for what it lacks."""
    yield lambda batch: file.writelines(_json_lines(batch))


@contextmanager
def csv(file: BinaryIO) -> Iterator[_Write]:
    """Comma-separated with a header; lists and objects as JSON text, times as ISO 8601, missing values as empty cells.

    A text is in quotes, also an empty one, which tells it from a missing value. A text that a spreadsheet would run has
    an apostrophe before it.
    """
    arrow = table.load("pyarrow")
    is_number = arrow.types.is_floating
    schema = arrow.schema(
        [(field.name, field.type if is_number(field.type) else arrow.string()) for field in table.schema()]
    )
    with table.load("pyarrow.csv").CSVWriter(file, schema) as writer:

        def write(batch: pa.RecordBatch) -> None:
            columns = [_for_csv(name, column) for name, column in zip(batch.schema.names, batch.columns, strict=True)]
            writer.write_batch(arrow.RecordBatch.from_arrays(columns, schema=schema))

        yield write


def json_lines(store: SpanStore, query: SpanQuery) -> Iterator[list[bytes]]:
    """Yield what *query* selects as lines of `jsonl`, a few at a time; without pyarrow, if the store can.

    Raises:
        MissingExtraError: The store needs pyarrow for it, which is not installed.
        StoreError: The store cannot be read.
    """
    if isinstance(store, RowStore):
        for page in store.export_rows(query):
            yield [table.json_line(row) for row in page]
    else:
        for batch in store.export(query):
            yield list(_json_lines(batch))


def _json_lines(batch: pa.RecordBatch) -> Iterator[bytes]:
    columns = [
        column.to_pylist() if name not in table.TIME_COLUMNS else _nanoseconds(column)
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    ]
    return map(table.json_line, zip(*columns, strict=True))


def _for_csv(name: str, column: pa.Array) -> pa.Array:
    arrow = table.load("pyarrow")
    if name in table.TIME_COLUMNS:
        return arrow.array([time_text(ns) for ns in _nanoseconds(column)], arrow.string())
    if arrow.types.is_list(column.type):
        texts = [None if tags is None else orjson.dumps(tags).decode() for tags in column.to_pylist()]
        return arrow.array(texts, arrow.string())
    if arrow.types.is_string(column.type):
        return table.load("pyarrow.compute").replace_substring_regex(column, pattern=_FORMULA, replacement=r"'\1")
    return column


def _nanoseconds(column: pa.Array) -> list[int]:
    whole: list[int] = column.cast(table.load("pyarrow").int64()).to_pylist()
    return whole


@contextmanager
def _whole_file(path: str) -> Iterator[BinaryIO]:
    """Yield a new file for writing: it becomes *path* at the end of the block, or is removed if the block raises."""
    expected = "a path of a file in a directory that exists, is writable and has room"
    # Otherwise the file would replace a device or a pipe, if the user has the permission.
    if Path(path).exists() and not Path(path).is_file():
        raise FileError(path, "a directory" if Path(path).is_dir() else "not a regular file", expected)
    part = None
    try:
        handle, part = tempfile.mkstemp(prefix=f".{Path(path).name}.", suffix=".part", dir=Path(path).parent)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(part).replace(path)
        part = None
    except FileError:
        raise
    except OSError as error:
        raise FileError(path, error.strerror or f"{error}", expected) from error
    finally:
        if part is not None:
            Path(part).unlink(missing_ok=True)


@contextmanager
def _shown(progress: bool | None) -> Iterator[Callable[[int], None]]:
    """Yield a function that counts spans on the terminal, or does nothing."""
    bar = _bar() if progress or (progress is None and sys.stderr.isatty()) else None
    if bar is None:
        yield lambda _: None
        return
    with bar:
        task = bar.add_task("exporting", total=None)
        yield lambda count: bar.advance(task, count)


def _bar() -> Any:
    try:
        from rich.console import Console  # of an extra, as is the next
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    except ModuleNotFoundError:
        return None
    columns = (BarColumn(), TextColumn("{task.completed:,} spans"), TimeElapsedColumn())
    return Progress(TextColumn("{task.description}"), *columns, console=Console(stderr=True))
