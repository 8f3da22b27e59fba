"""Import a file of spans into a store: a file that the Collector wrote, or an export of ours.

This module finds out the format of a file, and reports the parts that cannot be read. `client.otlp_json` and
`store.table` decide what a document or a row means. Importing a file twice has the effect of importing it once.

A file is opened once and read from its start to its end: it may be a pipe, which gives its bytes to one reader only.
"""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, final

from otel_metadata.client import otlp_json
from otel_metadata.client.json_documents import documents
from otel_metadata.client.otlp_json import LatePatch
from otel_metadata.client.parquet_rows import EXPECTED, parquet_rows
from otel_metadata.errors import ConfigurationError, FileError
from otel_metadata.interrupts import pass_on
from otel_metadata.model.authors import AUTHORS
from otel_metadata.model.merge import TOO_LATE, is_too_late
from otel_metadata.model.times import time_ns
from otel_metadata.store import table

if TYPE_CHECKING:
    from io import BufferedIOBase, BufferedReader

    from otel_metadata.model.merge import Field, FieldName, Fields
    from otel_metadata.model.record import Route, StoredSpan
    from otel_metadata.seams import SpanStore

MAX_PROBLEMS: Final = 100
"""A report lists so many problems; it counts all of them."""

_BATCH: Final = 1_000
_BATCH_FIELDS: Final = 20_000
_BATCH_BYTES: Final = 16 << 20

_SEARCHED: Final = 1_000
"""A file whose first so many lines cannot be read has another format."""

START_BYTES: Final = 64
"""By so many bytes a format is recognized."""

GZIP: Final = b"\x1f\x8b"
"""The start of gzip."""

PARQUET: Final = b"PAR1"
"""The start of Parquet."""

_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")


@final
@dataclass(frozen=True, slots=True)
class ImportProblem:
    """A part of a file that could not be read.

    Attributes:
        line: The line of a text file on which a document begins, the row of Parquet; from 1.
        message: What was got and what was expected.
    """

    line: int
    message: str


@final
@dataclass(frozen=True, slots=True)
class ImportReport:
    """The result of an import.

    Attributes:
        spans_imported: Spans that are in the store now.
        spans_failed: Spans, and lines, that could not be read.
        lines_ignored: Lines, or documents over several lines, that hold logs, metrics or profiles.
        problems: The first 100 parts that could not be read.
        updates_imported: Late updates that had travelled through OTLP as spans of their own, and are on the spans that
            they are about now, wherever those come from.
        found_instead: What the file holds, when it has neither spans nor updates: nothing, logs, requests without
            spans, …; None when it has some.
    """

    spans_imported: int
    spans_failed: int
    lines_ignored: int
    problems: tuple[ImportProblem, ...]
    updates_imported: int = 0
    found_instead: str | None = None


@final
class _Row(NamedTuple):
    """A row of an export.

    Attributes:
        span: The span.
        values: Its fields and their superseded values, each as fields of its own with its route: a store makes of them
            what it makes of all values, in whatever order they come.
        authors: The names of the writers.
    """

    span: StoredSpan
    values: list[tuple[Route, Fields]]
    authors: Mapping[int, str]


_Read: TypeAlias = "otlp_json.Read | _Row | str | ValueError"
"""A span or an update; `_EMPTY`, or the signal of a document that has none; or why it cannot be read."""

_EMPTY: Final = "requests"


def import_file(store: SpanStore, path: str | os.PathLike[str] | BufferedReader) -> ImportReport:
    """Write the spans of a file into *store*, in batches, and report the parts that cannot be read.

    Fields merge by version: an export that is older than the stored values overwrites nothing. Values of a Collector's
    file have the version that their span says, else that of its end. An export brings the routes, authors and history
    of its values along; every other value has the route "import".

    Args:
        store: Where to.
        path: OTLP as JSON, one request a line, as the Collector's file exporter writes it, or pretty-printed; Parquet
            or JSON Lines exported by otel-metadata; JSON may be compressed with gzip. A file opened for reading bytes
            works as well.

    Raises:
        ConfigurationError: *path* is neither a path nor a file opened for reading bytes.
        FileError: The file cannot be read or has another format; the spans before that stay imported.
        MissingExtraError: It is Parquet, and pyarrow is not installed.
        StoreError: The store cannot be written; the spans before that stay stored.
    """
    importer = Importer(store)
    for line, size, read in _reads(path):
        importer.take(line, size, read)
    return importer.report()


@final
class Importer:
    """Writes spans into a store in batches while they are read, and counts them: those of a text that comes in parts.

    `import_file` reads a file with it, which need not be a text.
    """

    def __init__(self, store: SpanStore, name: str = "", *, is_checked: bool = False) -> None:
        """Begin an import.

        Args:
            store: Where to.
            name: The name of the text, in errors.
            is_checked: Whether values are refused that no update of a server could replace (`merge.LAST_NS`).
        """
        self._store = store
        self._is_checked = is_checked
        self._text = _Text(name)
        self._others: Counter[str] = Counter()
        self._problems: list[ImportProblem] = []
        self._spans: list[tuple[StoredSpan, Fields]] = []
        self._updates: list[LatePatch] = []
        self._by_route: dict[Route, list[tuple[str, str, Fields]]] = {}
        self._imported = self._updated = self._failed = 0
        self._fields = self._bytes = 0  # of what is not written yet

    def feed(self, part: bytes) -> None:
        """Import the next lines of a text.

        Args:
            part: Whole lines. Only the last part may end in the middle of one.

        Raises:
            FileError: The text has another format.
            StoreError: The store cannot be written; what was written before stays.
        """
        for one in self._text.read(io.BytesIO(part)):
            self.take(*one)
        self._text.lines += part.count(b"\n")
        self._write()

    def take(self, line: int, size: int, read: _Read) -> None:
        """Import one span or update, or count a problem.

        Args:
            line: Its line.
            size: The bytes that were read for it.
            read: What was read.
        """
        self._bytes += size
        if isinstance(read, str):
            self._others[read] += 1
            return
        if self._is_checked and not isinstance(read, ValueError) and any(map(is_too_late, _all_fields(read))):
            read = ValueError(TOO_LATE)
        if isinstance(read, ValueError):
            self._failed += 1
            if len(self._problems) < MAX_PROBLEMS:
                self._problems.append(ImportProblem(line, f"{read}"))
            return
        if isinstance(read, LatePatch):
            self._updates.append(read)
            self._fields += len(read.fields)
        elif isinstance(read, _Row):
            self._spans.append((read.span, {}))
            for writer, name in read.authors.items():
                AUTHORS.add(writer, name)
            for route, values in read.values:
                self._by_route.setdefault(route, []).append((read.span.trace_id, read.span.span_id, values))
                self._fields += len(values)
        else:
            self._spans.append(read)
            self._fields += len(read[1])
        rows = len(self._spans) + len(self._updates)
        if rows >= _BATCH or self._fields >= _BATCH_FIELDS or self._bytes >= _BATCH_BYTES:
            self._write()

    def report(self) -> ImportReport:
        """Finish the import, and return its result.

        Raises:
            FileError: The text has another format.
            StoreError: The store cannot be written; what was written before stays.
        """
        for one in self._text.end():
            self.take(*one)
        self._write()
        return ImportReport(
            spans_imported=self._imported,
            spans_failed=self._failed,
            lines_ignored=self._others.total() - self._others[_EMPTY],
            problems=tuple(self._problems),
            updates_imported=self._updated,
            found_instead=None if self._imported or self._updated or self._failed else _instead(self._others),
        )

    def _write(self) -> None:
        self._store.write_rows(self._spans, route="import")
        self._imported += len(self._spans)
        self._spans.clear()
        for route, rows in self._by_route.items():
            self._store.patch_rows(rows, route=route)
        self._by_route.clear()
        if self._updates:
            self._store.patch_rows(self._updates, route="import")
            self._updated += len(self._updates)
            self._updates.clear()
        self._fields = self._bytes = 0


def _all_fields(read: tuple[StoredSpan, Fields] | LatePatch | _Row) -> Iterable[Fields]:
    if isinstance(read, _Row):
        return (fields for _, fields in read.values)
    return (read.fields if isinstance(read, LatePatch) else read[1],)


def _instead(others: Mapping[str, int]) -> str:
    """Describe the contents of a file without spans."""
    counts = [f"{signal} ({count:,})" for signal, count in sorted(others.items()) if signal != _EMPTY]
    if not counts:
        return "OTLP without a span" if others.get(_EMPTY) else "nothing"
    return f"OpenTelemetry {' and '.join(counts)}"


def _reads(path: str | os.PathLike[str] | BufferedReader) -> Iterator[tuple[int, int, _Read]]:
    """Yield each span, update or problem with its line, and the number of bytes that were read for it."""
    if not isinstance(path, str | os.PathLike) and not hasattr(path, "peek"):
        expected = "a path, or a file that is open for reading bytes: open(..., 'rb')"
        raise ConfigurationError("import_file(path=)", type(path), expected)
    name = os.fsdecode(path) if isinstance(path, str | os.PathLike) else f"{getattr(path, 'name', 'file')}"
    if "\0" in name:
        raise FileError(ascii(name), "a path with NUL in it", f"a file that can be read: {EXPECTED}")
    try:
        with Path(name).open("rb") if isinstance(path, str | os.PathLike) else nullcontext(path) as file:
            yield from _contents(name, file)
    except FileError:
        raise
    except OSError as error:
        pass_on(error)
        raise FileError(name, error.strerror or f"{error}", f"a file that can be read: {EXPECTED}") from error


def _contents(name: str, file: BufferedReader) -> Iterator[tuple[int, int, _Read]]:
    start = file.peek(START_BYTES)[:START_BYTES]
    if start.startswith(PARQUET):
        yield from _parquet(name, file)
    elif start.startswith(GZIP):
        yield from _gzip(name, file)
    else:
        yield from _text(name, start, file)


def _gzip(name: str, file: BufferedReader) -> Iterator[tuple[int, int, _Read]]:
    # `json_documents` reads the unpacked text in pieces, and bounds it.
    number = 0
    try:
        with gzip.GzipFile(fileobj=file) as inside:
            for number, size, read in _text(name, inside.peek(START_BYTES)[:START_BYTES], inside):
                yield number, size, read
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        yield number + 1, 0, ValueError(f"damaged gzip ({error}); the rest cannot be read")


def _text(name: str, start: bytes, file: BufferedIOBase) -> Iterator[tuple[int, int, _Read]]:
    """Yield the contents of each document of a file.

    Raises:
        FileError: The file is of another kind.
    """
    if (other := other_kind(start)) is not None:
        raise FileError(name, *other)
    text = _Text(name)
    yield from text.read(file)
    yield from text.end()


@final
class _Text:
    """The documents of a text. Lines before the first one that can be read are reported with it.

    Attributes:
        lines: The lines of the parts that were read.
    """

    def __init__(self, name: str) -> None:
        self.lines = 0
        self._name = name
        self._waiting: list[tuple[int, int, _Read]] = []
        self._is_known = False

    def read(self, part: BufferedIOBase) -> Iterator[tuple[int, int, _Read]]:
        """Yield the contents of each document of the text, or of its next part.

        Raises:
            FileError: The text has another format.
        """
        for number, size, found in documents(part, self.lines):
            for read in _document(found):
                if not self._is_known and type(read) is ValueError:
                    self._waiting.append((number, 0, read))
                    if len(self._waiting) == _SEARCHED:
                        raise _not_understood(self._name, self._waiting)
                    continue
                if not self._is_known:
                    self._is_known = True
                    yield from self._waiting
                yield number, size, read
                size = 0  # noqa: PLW2901 # the bytes of a document count once

    def end(self) -> Iterator[tuple[int, int, _Read]]:
        """Yield the line that nothing else followed.

        Raises:
            FileError: The text has another format: it has several lines, and none can be read.
        """
        if not self._is_known and len(self._waiting) > 1:
            raise _not_understood(self._name, self._waiting)
        yield from () if self._is_known else self._waiting


def _not_understood(name: str, waiting: Sequence[tuple[int, int, _Read]]) -> FileError:
    """Return the error for a file of another format, with the problem of its first line."""
    first, _, _ = f"{waiting[0][2]}".partition("; expected")
    return FileError(name, f"none of {len(waiting)} lines is understood (the first is {first})", EXPECTED)


def other_kind(start: bytes) -> tuple[str, str] | None:
    """Return the format of contents that are not text, and what is expected instead; None if they may be text.

    Args:
        start: The first bytes, at most `START_BYTES` of them.
    """
    if start.startswith((GZIP, PARQUET)):
        return "compressed with gzip, and its contents are not text", f"{EXPECTED}: decompress it first"
    if start.startswith(_ZSTD):
        return "compressed with zstd", f"{EXPECTED}: decompress it first"
    if start[4:8] == _ZSTD:
        # The Collector's file exporter writes the length of each message before it, so this is no zstd file either.
        return "compressed by the Collector", f"{EXPECTED}: set no `compression` for its file exporter"
    if start.startswith(_UTF_16):
        return "text in UTF-16", f"{EXPECTED}, in UTF-8"
    if b"\0" in start:
        return "a binary file", f"{EXPECTED}: the Collector's file exporter writes JSON with `format: json`"
    return None


def _document(found: Any) -> Iterator[_Read]:
    # Some programs collect requests and write them as one list.
    for one in found if isinstance(found, list) else (found,):
        yield from _request(one)


def _request(found: Any) -> Iterator[_Read]:
    if isinstance(found, ValueError):
        yield ValueError(f"{found}; expected {EXPECTED}")
    elif not isinstance(found, dict):
        yield ValueError(f"a JSON {type(found).__name__}; expected an object: {EXPECTED}")
    elif otlp_json.is_traces(found):
        read: _Read | None = None
        for read in otlp_json.spans_of(found):
            yield read
        if read is None:
            yield _EMPTY
    elif (signal := otlp_json.signal_of(found)) is not None:
        yield signal
    elif "context.span_id" in found:
        yield _row(found)
    elif (other := otlp_json.format_of(found)) is not None:
        yield ValueError(f"{other}; expected {EXPECTED}: send it to a Collector, whose file exporter writes OTLP")
    else:
        names = ", ".join(ascii(name[:40])[:40] for name in list(found)[:5])
        yield ValueError(f"an object with {names or 'nothing'}; expected {EXPECTED}")


def _row(row: dict[str, Any]) -> _Read:
    for name in table.TIME_COLUMNS:
        try:
            if isinstance(row.get(name), str):
                row[name] = time_ns(row[name])
        except ValueError:
            pass  # it is told with its column below
    try:
        span, fields = table.row_of(row)
        past = table.past_of(row)
    except table.RowError as error:
        return error
    by_route: dict[Route, dict[FieldName, Field]] = {}
    for field, standing in fields.items():
        by_route.setdefault(past.routes.get(field, "import"), {})[field] = standing
    values: list[tuple[Route, Fields]] = [*by_route.items()]
    values += [(route or "import", {field: (value, version)}) for field, value, version, route in past.superseded]
    return _Row(span, values, past.authors)


def _parquet(name: str, file: BufferedReader) -> Iterator[tuple[int, int, _Read]]:
    table.load("pyarrow.parquet")
    if not file.seekable():
        raise FileError(name, "Parquet from a pipe", "a file: what is in it is told at its end")
    for number, weight, row in parquet_rows(name, file):
        yield number, weight, row if isinstance(row, ValueError) else _row(row)
