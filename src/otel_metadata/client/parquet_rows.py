"""Read the rows of a Parquet export in bounded memory, even if somebody has changed the file.

Three things let a small file take much memory. Pages are compressed, so the size of each page is looked up before one
is unpacked (`parquet_pages`). A dictionary has a long text once for a thousand rows, so texts are read as dictionaries
and spelled out for a few rows at a time. Runs have a million values in a few bytes, so values are counted as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from otel_metadata.client.parquet_pages import Pages, groups_of, pages_of
from otel_metadata.errors import FileError
from otel_metadata.foreign_text import visible
from otel_metadata.interrupts import pass_on
from otel_metadata.store import table

if TYPE_CHECKING:
    from io import BufferedReader

    import pyarrow as pa

EXPECTED: Final = "OTLP JSON lines, or a Parquet or JSON Lines file exported by otel-metadata"

MAX_PAGE_BYTES: Final = 256 << 20
"""Bytes of the largest page of each column of a row group, added up: so many are unpacked at once."""

MAX_GROUP_VALUES: Final = 10_000_000
"""Values of one column in a row group; each value of a list counts."""

MAX_ROW_BYTES: Final = 64 << 20
"""Bytes of the texts of one row."""

_BATCH: Final = 1_000
_SLICE_BYTES: Final = 16 << 20

# Bytes of a Python text beside its characters.
_TEXT_BYTES: Final = 64

_ERROR_CHARS: Final = 300
_FORMAT_DIGITS: Final = 9


def parquet_rows(name: str, file: BufferedReader) -> Iterator[tuple[int, int, dict[str, Any] | ValueError]]:
    """Yield each row with its number, from 1, and its bytes; or an error for a row, or for the rest of a row group.

    Raises:
        FileError: The file is not an export of otel-metadata, is from a newer version, or cannot be read at all.
    """
    arrow = table.load("pyarrow")
    problems: list[tuple[int, ValueError]] = []
    is_known = False
    try:
        for number, weight, row in _groups(name, file):
            if weight < 0 and not is_known:  # of a row group; an error of the file where no row follows
                problems.append((number, row))  # type: ignore[arg-type] # such are errors
                continue
            yield from ((number, 0, problem) for number, problem in problems)
            problems.clear()
            is_known = True
            yield number, max(weight, 0), row
    except FileError:
        raise
    except (arrow.ArrowException, ValueError, TypeError, OverflowError, LookupError, MemoryError) as error:
        pass_on(error)
        # pyarrow raises any of these for a footer that was changed.
        raise FileError(name, f"damaged Parquet ({_shown(error)})", EXPECTED) from error
    if problems:
        raise FileError(name, f"damaged Parquet ({problems[0][1]})", EXPECTED)


def _groups(name: str, file: BufferedReader) -> Iterator[tuple[int, int, dict[str, Any] | ValueError]]:
    arrow, parquet = table.load("pyarrow"), table.load("pyarrow.parquet")
    footer = parquet.read_metadata(file)
    paths = [footer.schema.column(at).path for at in range(footer.num_columns)]
    # pyarrow selects columns the same way: a name selects every path that begins with it and a dot.
    leaves = [at for at, path in enumerate(paths) if any(f"{path}.".startswith(f"{one}.") for one in table.COLUMNS)]
    texts = [paths[at] for at in leaves if footer.schema.column(at).physical_type == "BYTE_ARRAY"]
    with parquet.ParquetFile(file, metadata=footer, read_dictionary=texts) as whole:
        schema = whole.schema_arrow
        _check_format(name, (schema.metadata or {}).get(table.FORMAT_NAME.encode()))
        columns = [column for column in table.COLUMNS if column in schema.names]
        number = 0
        for group, facts in enumerate(groups_of(file)):
            done = 0
            try:
                pages = [pages_of(file, *facts.chunks[at]) for at in leaves]
                problem = _problem(arrow, schema, columns, pages) if facts.rows else None
                if problem is None and columns:
                    rows = _batch_rows(pages)
                    for batch in whole.iter_batches(batch_size=rows, row_groups=[group], columns=columns):
                        for weight, row in _rows(batch.select(columns)):
                            done += 1
                            yield number + done, weight, row
            except (arrow.ArrowException, OSError, ValueError) as error:
                pass_on(error)
                problem = _shown(error)
            if problem is not None:
                yield number + done + 1, -1, ValueError(f"the rest of row group {group + 1} cannot be read: {problem}")
            number += max(done, min(facts.rows, MAX_GROUP_VALUES))


def _shown(error: Exception) -> str:
    return visible(f"{error}"[:_ERROR_CHARS])


def _check_format(name: str, format: bytes | None) -> None:
    if format is None:
        raise FileError(name, "a Parquet file that otel-metadata did not export", EXPECTED)
    if not format.isdigit() or len(format) > _FORMAT_DIGITS or int(format) > table.FORMAT:
        raise FileError(
            name,
            f"an export of format {ascii(format.decode(errors='replace'))[:40]}",
            f"format {table.FORMAT}: install a newer otel-metadata",
        )


def _problem(arrow: Any, schema: pa.Schema, columns: list[str], pages: list[Pages]) -> str | None:
    """Return why a row group is not read; None if it is read."""
    for name in columns:
        found = schema.field(name).type
        inner = found.value_type if arrow.types.is_list(found) or arrow.types.is_large_list(found) else found
        if arrow.types.is_nested(inner) or (inner is not found and name not in table.LIST_COLUMNS):
            return f"column {name} is {visible(str(found))[:100]}; expected the type that otel-metadata exports"
    largest = sum(one.largest for one in pages)
    if largest > MAX_PAGE_BYTES:
        return f"its pages unpack to {largest:,} bytes; expected at most {MAX_PAGE_BYTES:,}, in smaller pages"
    values = max((one.values for one in pages), default=0)
    if values > MAX_GROUP_VALUES:
        return f"it has {values:,} values in a column; expected at most {MAX_GROUP_VALUES:,}"
    return None


def _batch_rows(pages: list[Pages]) -> int:
    """Return how many rows are read at once: few, if each of them may have a large page of its own."""
    if sum(one.total for one in pages) <= MAX_PAGE_BYTES:
        return _BATCH
    return max(1, min(_BATCH, MAX_PAGE_BYTES // max(1, sum(one.largest for one in pages))))


def _rows(batch: pa.RecordBatch) -> Iterator[tuple[int, dict[str, Any] | ValueError]]:
    """Yield the rows of a batch with their bytes, spelling out the texts of a few rows at a time."""
    weights = _weights(batch)
    start = 0
    while start < batch.num_rows:
        if weights[start] > MAX_ROW_BYTES:
            yield 0, ValueError(f"texts of {weights[start]:,} bytes; expected at most {MAX_ROW_BYTES:,}")
            start += 1
            continue
        end, weight = start + 1, weights[start]
        while end < batch.num_rows and weight + weights[end] <= _SLICE_BYTES:
            weight += weights[end]
            end += 1
        yield from zip(weights[start:end], table.rows(_spelled_out(batch.slice(start, end - start))), strict=True)
        start = end


def _weights(batch: pa.RecordBatch) -> list[int]:
    """Return about how many bytes the texts of each row take as Python objects."""
    arrow, compute = table.load("pyarrow"), table.load("pyarrow.compute")
    weights = [0] * batch.num_rows
    for column in batch.columns:
        is_list = arrow.types.is_list(column.type) or arrow.types.is_large_list(column.type)
        texts = column.flatten() if is_list else column
        if not arrow.types.is_dictionary(texts.type):
            continue
        lengths = compute.binary_length(texts.dictionary).take(texts.indices).fill_null(0).to_pylist()
        if is_list:
            left = iter(lengths)
            counts = compute.list_value_length(column).fill_null(0).to_pylist()
            lengths = [sum(islice(left, count)) + count * _TEXT_BYTES for count in counts]
        weights = [weight + length for weight, length in zip(weights, lengths, strict=True)]
    return weights


def _spelled_out(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch without dictionaries."""
    arrow = table.load("pyarrow")
    columns = []
    for column in batch.columns:
        if arrow.types.is_dictionary(column.type):
            columns.append(column.dictionary_decode())
        elif arrow.types.is_list(column.type) and arrow.types.is_dictionary(column.type.value_type):
            columns.append(column.cast(arrow.list_(column.type.value_type.value_type)))
        else:
            columns.append(column)
    return arrow.RecordBatch.from_arrays(columns, names=batch.schema.names)
