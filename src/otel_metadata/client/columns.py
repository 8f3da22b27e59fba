"""What the columns of a frame mean: for each row its span, the values to set on it, or why it cannot be read.

Pure: a frame in, rows out. `client.updates` finds the spans and writes the values.

| column | is |
|---|---|
| `context.span_id`, `context.trace_id` | the span; the trace may be left out where it is looked up or not needed |
| `span_id`, `trace_id` | the same, where there is no `context.span_id` |
| `traceparent` | both, where there is neither |
| `backend_ids.<backend>`, `backend_ids.<backend>.trace` | the id that a backend gave the span, its trace |
| `attributes.metadata.<field>`, `trace.metadata.<field>` | one metadata field of the span, of its trace |
| `patch_document` (or another name) | a dict, or the JSON text of an object: metadata, applied after the columns |
| `eval.<Name>.<part>`, `trace.eval.<Name>.<part>` | label, score, explanation; source, metadata |
| `annotation.<Name>.<part>`, `trace.annotation.<Name>.<part>` | label, score, text; annotator |

A row is read whole or not at all: if a cell cannot be read, the row fails with the first such cell as its problem. All
other columns are ignored, so an exported frame can be given back with one more column.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Final, NamedTuple, TypeAlias, cast, final, get_args

import orjson

from otel_metadata.client.dataframes import Frame
from otel_metadata.client.report import MAX_NOTES
from otel_metadata.errors import ConfigurationError, InvalidSpanRefError
from otel_metadata.live.targets import resolve
from otel_metadata.live.values import Values, annotation_values, evaluation_values, span_values
from otel_metadata.model.evaluation import Source
from otel_metadata.model.merge import Field, FieldName, Json, Level, Version
from otel_metadata.model.outcome import DeliveryError, ErrorType
from otel_metadata.model.span_ref import SpanRef, trace_of
from otel_metadata.model.unset import UNSET, UnsetType
from otel_metadata.model.value import clean, clean_key, is_clean_scalar

SPAN_ID: Final = "context.span_id"
TRACE_ID: Final = "context.trace_id"
TRACEPARENT: Final = "traceparent"
_BACKEND_ID: Final = "backend_ids."
"""Before the name of a backend: the column with the ids that the backend gave the spans."""

# Frames of Phoenix and Langfuse have the ids without `context.`.
_IDS: Final = ((SPAN_ID, TRACE_ID), ("span_id", "trace_id"))

PATCH_DOCUMENT: Final = "patch_document"
"""The name of the patch document's column where no other is given."""

OBJECT: Final = "a dict, or the JSON text of an object"
"""What `read_object` reads, for people."""

MAX_RECORDS: Final = 1_000
"""Records in one call of `annotate`, as in Arize's."""

_METADATA: Final[tuple[tuple[str, Level], ...]] = (("attributes.metadata.", "span"), ("trace.metadata.", "trace"))


class _Form(NamedTuple):
    """The names of the columns of one kind of verdict.

    Attributes:
        prefixes: Prefixes of the columns, and the level that each stands for.
        parts: What may follow the name.
        contents: A verdict has at least one of these parts.
        aliases: Other names of parts.
        refused: A prefix of columns that look alike, but cannot be stored here.
        left_out: A part that is understood, but not stored here.
    """

    prefixes: tuple[tuple[str, Level], ...]
    parts: tuple[str, ...]
    contents: tuple[str, ...]
    aliases: Mapping[str, str]
    refused: str
    left_out: str


# Arize writes trace_eval, and has evaluations of sessions; its name for the annotator is updated_by.
_EVALUATION: Final = _Form(
    (("eval.", "span"), ("trace.eval.", "trace"), ("trace_eval.", "trace")),
    ("label", "score", "explanation", "source", "metadata"),
    ("label", "score", "explanation"),
    {},
    "session_eval.",
    "",
)
_ANNOTATION: Final = _Form(
    (("annotation.", "span"), ("trace.annotation.", "trace")),
    ("label", "score", "text", "annotator"),
    ("label", "score", "text"),
    {"updated_by": "annotator"},
    "session_annotation.",
    "updated_at",
)

# Arize's column of notes without a name: annotation.notes.
_NOTES: Final = "notes"

_SOURCES: Final = get_args(Source)

_SPAN_ID: Final = re.compile(r"[0-9a-fA-F]{16}", re.ASCII)
_TRACE_ID: Final = re.compile(r"[0-9a-fA-F]{32}", re.ASCII)
_NO_SPAN: Final = "0" * 16
_NO_TRACE: Final = "0" * 32


@final
@dataclass(frozen=True, slots=True)
class Rows:
    """The meaning of a frame, with one entry for each of its rows.

    Values stay in columns as long as possible: with an object for each row of a large frame, the garbage collector
    takes more time than the store.

    Attributes:
        span_ids: 16 lower-case hex digits, or the text of a reference that is made of a backend's id alone; if the id
            cannot be read, the text of the cell.
        trace_ids: 32 lower-case hex digits, or None if the row does not name the trace.
        columns: Fields and their value on each row, `UNSET` if the row has no value.
        documents: By row number from 0: values that win over the columns.
        problems: By row number: why the row cannot be applied.
        notes: What the clean-up changed.
        backend_ids: By row number: the ids that backends gave the span, by backend.
    """

    span_ids: list[str]
    trace_ids: list[str | None]
    columns: list[tuple[FieldName, list[Json | UnsetType]]] = field(default_factory=list)
    documents: dict[int, Values] = field(default_factory=dict)
    problems: dict[int, DeliveryError] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    backend_ids: dict[int, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, refs: Sequence[tuple[str | None, str, Mapping[str, str]]]) -> Rows:
        """Return rows that set nothing yet, for names of spans as `read_name` returns them."""
        rows = cls([span_id for _, span_id, _ in refs], [trace_id for trace_id, _, _ in refs])
        rows.backend_ids.update({row: dict(ids) for row, (_, _, ids) in enumerate(refs) if ids})
        return rows

    def target(self, row: int) -> SpanRef:
        """Return the span of a row; the trace id is 0 if the row does not name the trace."""
        span_id = self.span_ids[row]
        if ":" in span_id:
            ref = SpanRef.from_text(span_id)
        else:
            ref = SpanRef(int(self.trace_ids[row] or "0", 16), int(span_id, 16))
        return ref.with_backend_ids(self.backend_ids.get(row, {}))

    def values(self, row: int) -> Values:
        """Return what to set on the span of a row."""
        values: Values = {name: cell for name, cells in self.columns if (cell := cells[row]) is not UNSET}
        values.update(self.documents.get(row, {}))
        return values

    def fields(self, row: int, version: Version) -> dict[FieldName, Field]:
        """Return the same values with *version*."""
        return {name: (value, version) for name, value in self.values(row).items()}

    def weight(self, row: int) -> int:
        """Return the largest possible number of fields of a row, at least 1: missing cells count."""
        return len(self.columns) + len(self.documents.get(row, ())) or 1

    def good(self) -> list[int]:
        """Return the rows without a problem."""
        return [row for row in range(len(self.span_ids)) if row not in self.problems]

    def put(self, row: int, values: Values) -> None:
        """Lay *values* over the values of the row."""
        self.documents.setdefault(row, {}).update(values)

    def reject(self, row: int, error_type: ErrorType, message: str) -> None:
        """Let a row fail; a problem that it has already stays."""
        self.problems.setdefault(row, DeliveryError(error_type, f"Row {row}{message}"))

    def remember(self, notes: Iterable[str]) -> None:
        """Keep as many notes as a report shows."""
        self.notes.extend(dict.fromkeys(notes))
        del self.notes[MAX_NOTES:]


_Name: TypeAlias = "tuple[str | None, str, Mapping[str, str]]"
"""What `read_name` returns."""

_Verdicts: TypeAlias = "dict[tuple[Level, str], list[tuple[str, str]]]"
"""(level, name) of a verdict → (part, column) of each of its parts."""


def identities(frame: Frame) -> Rows:
    """Return the rows with their spans, and nothing to set.

    Raises:
        ConfigurationError: No column names the spans.
    """
    count = frame.height
    rows = Rows([""] * count, [None] * count)
    if not count:
        return rows
    backends = [name for name in frame.names if name.startswith(_BACKEND_ID) and name != _BACKEND_ID]
    for column in backends:
        for row, cell in enumerate(frame.column(column)):
            if cell is not UNSET and cell is not None:
                rows.backend_ids.setdefault(row, {})[column.removeprefix(_BACKEND_ID)] = str(cell)
    span_ids, trace_ids = next((names for names in _IDS if names[0] in frame), ("", ""))
    if span_ids:
        for row, cell in enumerate(frame.column(span_ids)):
            rows.span_ids[row] = read_span_id(cell) or _backend_only(
                rows, row, span_ids, cell, "a span id of 16 hex digits"
            )
        for row, cell in enumerate(frame.column(trace_ids) if trace_ids in frame else ()):
            if cell is not UNSET and cell is not None:
                rows.trace_ids[row] = _trace_id(cell)
                if rows.trace_ids[row] is None:
                    _not_found(rows, row, trace_ids, cell, "a trace id of 32 hex digits")
    elif TRACEPARENT in frame:
        for row, cell in enumerate(frame.column(TRACEPARENT)):
            try:
                ref = SpanRef.from_traceparent(cell)  # type: ignore[arg-type] # it refuses a cell that is no text
            except InvalidSpanRefError:
                rows.span_ids[row] = _backend_only(rows, row, TRACEPARENT, cell, "a W3C traceparent")
            else:
                rows.span_ids[row], rows.trace_ids[row] = ref.span_id_hex, ref.trace_id_hex
    elif backends:
        for row in range(count):
            rows.span_ids[row] = _backend_only(rows, row, backends[0], UNSET, "the id that the backend gave the span")
    else:
        raise ConfigurationError("columns of the frame", frame.names_for_people(), f"{SPAN_ID} (or {TRACEPARENT})")
    return rows


def _backend_only(rows: Rows, row: int, column: str, cell: object, expected: str) -> str:
    """Return the text of a reference that is made of a backend's id alone; without such an id, let the row fail.

    Args:
        rows: The rows, with the ids of backends.
        row: The number of the row.
        column: The column of OpenTelemetry's ids.
        cell: The cell of that column: missing, or the text of such a reference.
        expected: What the column should have.
    """
    ids = rows.backend_ids.get(row)
    try:
        if isinstance(cell, str) and ":" in cell:
            return str(SpanRef.from_text(cell))
        if ids and (cell is UNSET or cell is None):
            return str(SpanRef.from_backend_id(*next(iter(ids.items()))))
    except InvalidSpanRefError:
        pass  # reported below, as every id that cannot be read
    return _not_found(rows, row, column, cell, expected)


def metadata_rows(frame: Frame, patch_document_column_name: str = PATCH_DOCUMENT, *, validate: bool = True) -> Rows:
    """Return the metadata of each row: `attributes.metadata.<field>` columns and the patch document.

    The patch document is applied after the columns and wins; both merge at the first level.

    Args:
        frame: The table.
        patch_document_column_name: The column of the patch document. Any other than the default has to be there.
        validate: Raise for a column without a field (`attributes.metadata.`); False leaves it out with a note.

    Raises:
        ConfigurationError: No column names the spans, or no column has metadata.
    """
    if not isinstance(patch_document_column_name, str):
        raise ConfigurationError(
            "patch_document_column_name", type(patch_document_column_name), "the name of a column, a text"
        )
    rows = identities(frame)
    if not frame.height:
        return rows
    found = list(_matching(frame, _METADATA))
    has_document = patch_document_column_name in frame
    expected = f"attributes.metadata.<field>, {PATCH_DOCUMENT}, or both"
    if patch_document_column_name != PATCH_DOCUMENT:
        expected = patch_document_column_name
    if not has_document and (expected == patch_document_column_name or not found):
        raise ConfigurationError("columns of the frame", frame.names_for_people(), expected)
    _refuse(frame, rows, [column for column, _, rest in found if not rest], "attributes.metadata.<field>", validate)
    for column, level, rest in found:
        if rest:
            _put_column(rows, (level, "metadata", clean_key(rest, rows.notes, "metadata")), frame.column(column))
    if has_document:
        _put_documents(rows, patch_document_column_name, frame.column(patch_document_column_name))
    return rows


def evaluation_rows(frame: Frame, *, validate: bool = True) -> Rows:
    """Return the evaluations of each row: `eval.<Name>.…` columns, or else `name`, `label`, `score`, `explanation`.

    An evaluation of a row is set when it has a label, a score or an explanation there.

    Raises:
        ConfigurationError: No column names the spans, or no column has evaluations; with *validate*, also for a column
            that begins like an evaluation but is not one (`eval.Correctness.lable`).
    """
    return _verdict_rows(frame, _EVALUATION, validate)


def annotation_rows(frame: Frame, *, validate: bool = True) -> Rows:
    """Return the annotations of each row: `annotation.<Name>.…` columns, or else `name`, `label`, `score`, `text`.

    An annotation of a row is set when it has a label, a score or a text there.

    Raises:
        ConfigurationError: As `evaluation_rows`.
    """
    return _verdict_rows(frame, _ANNOTATION, validate)


@final
@dataclass(frozen=True, slots=True)
class AnnotationInput:
    """One annotation of a record.

    Attributes:
        name: What the note is about, for example "quality". The same name (and annotator) again replaces it.
        label: A word, or None.
        score: A finite number, or None.
        text: Free text, or None.
        annotator: Who, or None.
    """

    name: str
    label: str | None = None
    score: float | None = None
    text: str | None = None
    annotator: str | None = None


@final
@dataclass(frozen=True, slots=True)
class AnnotateRecordInput:
    """A span and the annotations to set on it.

    Attributes:
        record_id: 16 hex digits, or a `traceparent`.
        values: At least one.
    """

    record_id: str
    values: Sequence[AnnotationInput | Mapping[str, object]]


def record_rows(records: Iterable[object]) -> Rows:
    """Return one row for each record of a call of `annotate`.

    Args:
        records: `AnnotateRecordInput`, dicts, or any objects with these attributes, such as those of Arize's SDK.

    Raises:
        ConfigurationError: There are too many records, or one cannot be read: the message names it.
    """
    if not isinstance(records, Iterable) or isinstance(records, str | bytes | Mapping):
        raise ConfigurationError("annotate(annotations=)", type(records), "a list of records")
    listed = list(records)
    if len(listed) > MAX_RECORDS:
        raise ConfigurationError("annotate(annotations=)", f"{len(listed)} records", f"at most {MAX_RECORDS} in a call")
    names: list[_Name] = []
    documents: dict[int, Values] = {}
    notes: list[str] = []
    for number, record in enumerate(listed):
        where = f"annotate(annotations=)[{number}]"
        record_id, given = _part_of(record, "record_id"), _part_of(record, "values")
        try:
            names.append(read_name(record_id))
        except InvalidSpanRefError:
            expected = "a span id of 16 hex digits, or a traceparent"
            raise ConfigurationError(f"{where}.record_id", ascii(record_id)[:100], expected) from None
        if not isinstance(given, Sequence) or isinstance(given, str) or not given:
            raise ConfigurationError(f"{where}.values", type(given), "a list of at least one annotation")
        values: Values = {}
        for at, one in enumerate(given):
            values |= _annotation(one, f"{where}.values[{at}]", notes)
        documents[number] = values
    return replace(Rows.of(names), documents=documents, notes=notes)


def _annotation(given: object, where: str, notes: list[str]) -> Values:
    parts: dict[str, Any] = {}
    for part in _ANNOTATION.parts:
        if (cell := _part_of(given, part)) is not None:
            parts[part], expected = _read_part(part, cell)
            if expected:
                raise ConfigurationError(f"{where}.{part}", type(cell), expected)
    name = _part_of(given, "name")
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"{where}.name", name if name == "" else type(name), "a text, not empty")
    if parts.keys().isdisjoint(_ANNOTATION.contents):
        raise ConfigurationError(where, "an annotation without contents", "a label, a score or a text")
    return _verdict(_ANNOTATION, "span", name, parts, notes)


def _part_of(given: object, part: str) -> object:
    return given.get(part) if isinstance(given, Mapping) else getattr(given, part, None)


def read_name(given: object) -> _Name:
    """Return the trace id (None if unknown), the span id, and the ids of backends, of an object that names a span.

    If only a backend's id names the span, the text of the reference replaces the span id.

    Raises:
        InvalidSpanRefError: *given* names no span.
    """
    if (span_id := read_span_id(given)) is not None:
        return None, span_id, {}
    if isinstance(given, SpanRef):
        ref = given
    elif isinstance(given, str):
        if given.count("-") < 3 and ":" not in given:
            raise InvalidSpanRefError(given, "a span id of 16 hex digits, not all 0")
        ref = SpanRef.from_text(given)
    elif (found := resolve(given)) is not None:
        ref, _ = found
    else:
        expected = "a span id of 16 hex digits, a SpanRef, a traceparent, or an object that names a span"
        raise InvalidSpanRefError(given, expected)
    if ref.is_backend_only:
        return None, str(ref), ref.backend_ids
    return ref.trace_id_hex, ref.span_id_hex, ref.backend_ids


def read_span_id(cell: object) -> str | None:
    """Return a span id in lower case; None for an invalid one."""
    if isinstance(cell, str) and _SPAN_ID.fullmatch(cell) and cell != _NO_SPAN:
        return cell.lower()
    return None


# The shortest texts of integers that orjson cannot hold.
_LONG_NUMBER: Final = re.compile("-[0-9]{19}|[0-9]{20}")


def _parsed(text: str | bytes) -> object:
    """Return the value of a JSON text, with integers of any length.

    orjson silently makes a float of an integer beyond 64 bits. The clean-up makes it a text, and notes it.

    Raises:
        orjson.JSONDecodeError: *text* is not JSON.
    """
    found: object = orjson.loads(text)
    text = text if isinstance(text, str) else text.decode()
    if _LONG_NUMBER.search(text):
        with suppress(ValueError, RecursionError):  # more digits than Python reads: keep the float
            return json.loads(text)
    return found


def read_object(cell: object) -> Mapping[str, object] | None:
    """Return a mapping, or the value of the JSON text of an object; None for anything else."""
    if isinstance(cell, str | bytes):
        try:
            cell = _parsed(cell)
        except orjson.JSONDecodeError:
            return None
    return cell if isinstance(cell, Mapping) else None


def _trace_id(cell: object) -> str | None:
    if isinstance(cell, str) and _TRACE_ID.fullmatch(cell) and cell != _NO_TRACE:
        return cell.lower()
    ref = trace_of(cell)
    return ref.trace_id_hex if ref is not None else None


def _not_found(rows: Rows, row: int, column: str, cell: object, expected: str) -> str:
    """Let a row fail for an id that no span can have; return the id in a form that may be shown."""
    shown = "" if cell is UNSET or cell is None else ascii(cell if isinstance(cell, str) else type(cell).__name__)[:100]
    rows.reject(row, "segment_not_found", f", column {column!r}: {shown or 'nothing'}; expected {expected}.")
    return cell[:100] if isinstance(cell, str) else ""


def _matching(frame: Frame, prefixes: Sequence[tuple[str, Level]]) -> Iterator[tuple[str, Level, str]]:
    """Yield (column, level, rest of its name) of each column that begins with one of *prefixes*."""
    starts = tuple(prefix for prefix, _ in prefixes)
    for column in frame.names:
        if column.startswith(starts):
            prefix, level = next(one for one in prefixes if column.startswith(one[0]))
            yield column, level, column.removeprefix(prefix)


def _refuse(frame: Frame, rows: Rows, columns: Sequence[str], expected: str, validate: bool) -> None:
    """Raise for *columns*, or leave them out with a note."""
    if columns and validate:
        shown = Frame(columns, frame.height, lambda _: []).names_for_people()
        raise ConfigurationError("columns of the frame", shown, f"{expected}; validate=False leaves others out")
    rows.remember(f"column {ascii(column)[:200]}: not understood; it was left out" for column in columns)


def _put_column(rows: Rows, name: FieldName, cells: Iterable[object]) -> None:
    notes: list[str] = []
    path = f"metadata.{name[2]}"
    column = [cell if cell is UNSET or is_clean_scalar(cell) else clean(cell, notes, path) for cell in cells]
    rows.columns.append((name, cast("list[Json | UnsetType]", column)))
    rows.remember(notes)


def _put_documents(rows: Rows, column: str, cells: Sequence[object]) -> None:
    notes: list[str] = []
    for row, cell in enumerate(cells):
        if cell is UNSET or cell is None:
            continue
        try:
            document = _parsed(cell) if isinstance(cell, str | bytes) else cell
        except orjson.JSONDecodeError as error:
            rows.reject(row, "parse_failure", f", column {column!r}: no JSON ({error}); expected a JSON object.")
            continue
        if isinstance(document, Mapping):
            rows.put(row, span_values("span", notes, metadata=document))
            del notes[MAX_NOTES:]
        else:
            got = "JSON, but no object" if document is not cell else f"a {type(cell).__name__}"
            rows.reject(row, "parse_failure", f", column {column!r}: {got}; expected {OBJECT}.")
    rows.remember(notes)


def _verdict_rows(frame: Frame, form: _Form, validate: bool) -> Rows:
    rows = identities(frame)
    if not frame.height:
        return rows
    verdicts, unknown = _verdict_columns(frame, form, rows)
    expected = ", ".join(f"{form.prefixes[0][0]}<Name>.{part}" for part in form.contents)
    _refuse(frame, rows, unknown, expected, validate)
    for (level, name), columns in verdicts.items():
        read = [(part, column, frame.column(column)) for part, column in columns]
        _put_verdicts(rows, form, level, [name] * frame.height, read)
    if verdicts:
        return rows
    # One verdict a row, its name in a column: a frame of spans has a name as well, but none of the parts.
    if "name" not in frame or not any(part in frame for part in form.contents):
        expected = f"{expected}; or name with {', '.join(form.contents)}"
        raise ConfigurationError("columns of the frame", frame.names_for_people(), expected)
    read = [(part, part, frame.column(part)) for part in form.parts if part in frame]
    _put_verdicts(rows, form, "span", frame.column("name"), read)
    return rows


def _verdict_columns(frame: Frame, form: _Form, rows: Rows) -> tuple[_Verdicts, list[str]]:
    """Return the columns of each verdict, and those that begin like a verdict but are not one."""
    verdicts: _Verdicts = {}
    unknown = [column for column in frame.names if column.startswith(form.refused)]
    for column, level, rest in _matching(frame, form.prefixes):
        name, _, part = rest.rpartition(".")
        part = form.aliases.get(part, part)
        if rest == _NOTES and "text" in form.parts:
            name, part = _NOTES, "text"
        if name and part in form.parts:
            verdicts.setdefault((level, name), []).append((part, column))
        elif name and part == form.left_out:
            rows.remember([f"column {ascii(column)[:200]}: the time of this call is kept instead"])
        else:
            unknown.append(column)
    return verdicts, unknown


def _put_verdicts(
    rows: Rows, form: _Form, level: Level, names: Sequence[object], columns: Sequence[tuple[str, str, Sequence[object]]]
) -> None:
    """Put one verdict on each row that has contents for it.

    Args:
        rows: The rows to change.
        form: The kind of verdict.
        level: On the span or on its trace.
        names: The name of the verdict, for each row.
        columns: (part, column, cells) of each part.
    """
    notes: list[str] = []
    for row, name in enumerate(names):
        given: dict[str, Any] = {}
        for part, column, cells in columns:
            cell = cells[row]
            if cell is UNSET or cell is None:
                continue
            given[part], expected = _read_part(part, cell)
            if expected:
                rows.reject(row, "patch_failure", f", column {column!r}: a {type(cell).__name__}; expected {expected}.")
        if row in rows.problems or given.keys().isdisjoint(form.contents):
            continue
        if not isinstance(name, str) or not name:
            rows.reject(
                row, "patch_failure", ", column 'name': nothing; expected the name of an evaluation or annotation."
            )
            continue
        rows.put(row, _verdict(form, level, name, given, notes))
        del notes[MAX_NOTES:]
    rows.remember(notes)


def _verdict(form: _Form, level: Level, name: str, given: Mapping[str, Any], notes: list[str]) -> Values:
    parts = {part: given.get(part) for part in form.parts}
    if form is _EVALUATION:
        return evaluation_values(level, name, notes, **{**parts, "source": given.get("source", "code")})
    values = annotation_values(name, notes, **parts)
    return values if level == "span" else {(level, kind, key): value for (_, kind, key), value in values.items()}


def _read_part(part: str, cell: object) -> tuple[object, str]:
    """Return a part of a verdict, and "" or what was expected instead of the cell."""
    if part == "score":
        # A signaling NaN cannot become a float.
        number = float(cell) if isinstance(cell, Decimal) and not cell.is_snan() else cell
        score = clean(number, [], part)
        is_number = isinstance(score, bool | int | float)
        return (int(score) if isinstance(score, bool) else score), "" if is_number else "a finite number"
    if part == "metadata":
        found = read_object(cell)
        return found, OBJECT if found is None else ""
    if part == "source":
        return cell, "" if isinstance(cell, str) and cell in _SOURCES else f"one of {', '.join(_SOURCES)}"
    return cell, "" if isinstance(cell, str) else "a text"
