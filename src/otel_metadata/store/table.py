"""Stored spans as one Arrow table: the columns of every export, and how a row becomes a span and its fields again.

This module decides the columns and their content. It does not decide where rows come from (`sqlite.export`,
`clickhouse.store`) or which file they are written to (`client.export`).

The columns are fixed, so that Parquet and CSV can be streamed: fields that differ from span to span (metadata,
attributes, evaluations) are one column of JSON text each. The columns show a span as `SpanRecord` does, with everything
that was set on it, under the names that OpenInference and Arize use. Five more columns have values that an exact import
needs and the others cannot show. Older exports lack the last three; a store without a history leaves the last empty.

- `otel_metadata.versions`: a JSON list of [level, kind, key, nanoseconds, writer as 16 hex digits], one for each field.
  So an import merges by version: an old export never overwrites a newer value, and importing twice changes nothing. If
  no column gives the field's value back exactly, the value is the sixth element.
- `otel_metadata.span`: a JSON object with OTLP's values that a field covers (`name`, `status_code`, `status_message`,
  `attributes`); usually null.
- `otel_metadata.routes`: a JSON list of the routes by which the fields of `otel_metadata.versions` reached the store,
  in the same order; null for a route that is not known.
- `otel_metadata.authors`: a JSON object with the names of the writers, by the 16 hex digits of each.
- `otel_metadata.history`: a JSON list of [level, kind, key, nanoseconds, writer, value, route], one for each superseded
  value.
"""

from __future__ import annotations

import importlib
import operator
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, cast, final, get_args

import orjson

from otel_metadata.errors import MissingExtraError
from otel_metadata.foreign_text import described
from otel_metadata.model.evaluation import annotation_key
from otel_metadata.model.merge import FieldName, Fields, Json, Kind, Level, Version, json_text
from otel_metadata.model.record import Route, SpanRecord, StoredSpan, assemble
from otel_metadata.model.times import time_text
from otel_metadata.model.unset import UNSET, UnsetType
from otel_metadata.model.value import STORE_LIMITS, clean

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT_NAME: Final = "otel_metadata.format"
FORMAT: Final = 1
"""The format's version, in the schema's metadata under `FORMAT_NAME`. A higher one was written by a newer release."""

VERSIONS: Final = "otel_metadata.versions"
SPAN: Final = "otel_metadata.span"
ROUTES: Final = "otel_metadata.routes"
AUTHORS: Final = "otel_metadata.authors"
HISTORY: Final = "otel_metadata.history"

FOR_IMPORT: Final = (SPAN, VERSIONS, ROUTES, AUTHORS, HISTORY)
"""The last columns, which show nothing to people."""

_TEXT: Final = "text"
_JSON: Final = "json"  # text; null if the span has nothing of the kind
_TIME: Final = "time"  # whole nanoseconds, UTC
_NUMBER: Final = "number"
_TEXTS: Final = "texts"  # null if there are none

# A column that shows an OpenTelemetry attribute is named `attributes.` and the attribute's name. The columns of `input`
# and `output` have a text as it is, and other values as JSON text; the mime type says which, as in OpenInference.
_COLUMNS: Final[Mapping[str, str]] = {
    "context.trace_id": _TEXT,
    "context.span_id": _TEXT,
    "context.trace_state": _TEXT,
    "parent_id": _TEXT,
    "name": _TEXT,
    "kind": _TEXT,
    "span_kind": _TEXT,
    "start_time": _TIME,
    "end_time": _TIME,
    "latency_ms": _NUMBER,
    "status_code": _TEXT,
    "status_message": _TEXT,
    "project": _TEXT,
    "attributes.user.id": _TEXT,
    "attributes.session.id": _TEXT,
    "attributes.input.value": _TEXT,
    "attributes.input.mime_type": _TEXT,
    "attributes.output.value": _TEXT,
    "attributes.output.mime_type": _TEXT,
    "attributes.metadata": _JSON,
    "attributes": _JSON,
    "tags": _TEXTS,
    "evaluations": _JSON,
    "annotations": _JSON,
    "trace.name": _TEXT,
    "trace.input.value": _TEXT,
    "trace.input.mime_type": _TEXT,
    "trace.output.value": _TEXT,
    "trace.output.mime_type": _TEXT,
    "trace.metadata": _JSON,
    "trace.tags": _TEXTS,
    "trace.evaluations": _JSON,
    "trace.annotations": _JSON,
    "events": _JSON,
    "links": _JSON,
    "resource": _JSON,
    "scope_name": _TEXT,
    "scope_version": _TEXT,
    **dict.fromkeys(FOR_IMPORT, _JSON),
}

COLUMNS: Final = tuple(_COLUMNS)
"""The names of the columns, in order."""

JSON_COLUMNS: Final = frozenset(name for name, kind in _COLUMNS.items() if kind == _JSON)
"""Columns whose text is JSON, an object or a list; null if the span has nothing of the kind."""

TIME_COLUMNS: Final = frozenset(name for name, kind in _COLUMNS.items() if kind == _TIME)
"""Columns that hold a time in UTC, to the nanosecond."""

LIST_COLUMNS: Final = frozenset(name for name, kind in _COLUMNS.items() if kind == _TEXTS)
"""Columns that hold a list of texts."""

MIME_TYPE_OF_TEXT: Final = "text/plain"
MIME_TYPE_OF_JSON: Final = "application/json"

SHOWN_IN: Final[Mapping[tuple[str, str], str]] = {
    ("span", "attribute"): "attributes",
    ("span", "metadata"): "attributes.metadata",
    ("span", "input"): "attributes.input.value",
    ("span", "output"): "attributes.output.value",
    ("span", "tag"): "tags",
    ("span", "evaluation"): "evaluations",
    ("span", "annotation"): "annotations",
    ("trace", "metadata"): "trace.metadata",
    ("trace", "input"): "trace.input.value",
    ("trace", "output"): "trace.output.value",
    ("trace", "tag"): "trace.tags",
    ("trace", "evaluation"): "trace.evaluations",
    ("trace", "annotation"): "trace.annotations",
}
"""The column that shows the fields of a level and kind."""

_ROUTES: Final = frozenset(get_args(Route))
_LEVELS: Final = frozenset(get_args(Level))
_KINDS: Final = frozenset(get_args(Kind))
_SINGLE: Final = frozenset({"name", "input", "output", "status", "status_message", "user_id", "session_id"})

_HEX: Final = {digits: re.compile(rf"[0-9a-f]{{{digits}}}", re.ASCII) for digits in (16, 32)}

_INT64: Final = range(-(1 << 63), 1 << 63)


Row: TypeAlias = "Mapping[str, Any]"
"""A row by column name, JSON columns as values, times as nanoseconds."""

Origin: TypeAlias = "tuple[str | None, str | None, str | None]"
"""The texts of `ROUTES`, `AUTHORS` and `HISTORY`."""


@final
class Past(NamedTuple):
    """How the values of a row came about.

    Attributes:
        routes: The routes of the fields, as far as the row tells them.
        superseded: (field, value, version, route) of values that others superseded; None for a route that the row does
            not tell.
        authors: The names of the writers that the row tells.
    """

    routes: Mapping[FieldName, Route]
    superseded: tuple[tuple[FieldName, Json, Version, Route | None], ...]
    authors: Mapping[int, str]


class RowError(ValueError):
    """A row does not fit this table. The message says what was found and what was expected."""


def load(package: str) -> Any:  # a module
    """Return a package of the extra `dataframe`, or a module of one.

    Raises:
        MissingExtraError: The package is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or package, "dataframe") from None


def schema() -> pa.Schema:
    """Return the schema of the table.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    arrow = load("pyarrow")
    types = {
        _TEXT: arrow.string(),
        _JSON: arrow.string(),
        _TIME: arrow.timestamp("ns", "UTC"),
        _NUMBER: arrow.float64(),
        _TEXTS: arrow.list_(arrow.string()),
    }
    return arrow.schema([(name, types[kind]) for name, kind in _COLUMNS.items()], metadata={FORMAT_NAME: f"{FORMAT}"})


def batch(arrow_rows: Iterable[tuple[Any, ...]]) -> pa.RecordBatch:
    """Return rows, as `arrow_row` makes them, as one batch.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    arrow, table_schema = load("pyarrow"), schema()
    columns = list(zip(*arrow_rows, strict=True)) or [()] * len(COLUMNS)
    arrays = [arrow.array(column, field.type) for column, field in zip(columns, table_schema, strict=True)]
    return arrow.RecordBatch.from_arrays(arrays, schema=table_schema)


def arrow_row(span: StoredSpan, fields: Fields, origin: Origin = (None, None, None)) -> tuple[Any, ...]:
    """Return a span and its fields as one row, in the order of `COLUMNS`: JSON as text, times as nanoseconds.

    Args:
        span: The span.
        fields: Its fields, in the order of the routes in *origin*.
        origin: How the values came about, if the store knows it.
    """
    record = assemble(span, fields)
    row = readable(record)
    row[SPAN] = _covered(record, fields)
    row[VERSIONS] = [
        [*name, ns, f"{writer:016x}", *_unless_shown(row, name, value)]
        for name, (value, (ns, writer)) in fields.items()
    ]
    shown = (
        (json_text(row[name]) if row[name] else None) if name in JSON_COLUMNS else row[name]
        for name in COLUMNS[: -len(origin)]
    )
    return (*shown, *origin)


def json_line(row: Iterable[Any]) -> bytes:
    """Return a row, as `arrow_row` makes it, as a line of JSON: JSON columns as JSON, times as ISO 8601 in UTC."""
    return (
        orjson.dumps({name: _shown(name, value) for name, value in zip(COLUMNS, row, strict=True) if value is not None})
        + b"\n"
    )


def _shown(name: str, value: Any) -> Any:
    return orjson.Fragment(value) if name in JSON_COLUMNS else time_text(value) if name in TIME_COLUMNS else value


def readable(record: SpanRecord) -> dict[str, Any]:
    """Return a record by column name, without the columns for import: JSON columns as values.

    Times are whole nanoseconds. What the record does not have is None.
    """
    span = record.span
    row = {
        "context.trace_id": record.trace_id,
        "context.span_id": record.span_id,
        "context.trace_state": span.trace_state or None,
        "parent_id": record.parent_id,
        "name": record.name,
        "kind": record.kind,
        "span_kind": record.span_kind,
        "start_time": span.start_ns,
        "end_time": span.end_ns,
        "latency_ms": (span.end_ns - span.start_ns) / 1e6,
        "status_code": f"{record.status_code}",
        "status_message": record.status_message,
        "project": record.project,
        "attributes.user.id": record.user_id,
        "attributes.session.id": record.session_id,
        "attributes.metadata": record.metadata,
        "attributes": record.attributes,
        "tags": list(record.tags) or None,
        "evaluations": {name: verdict.to_json() for name, verdict in record.evaluations.items()},
        "annotations": [note.to_json() for note in record.annotations],
        "trace.name": record.trace_name,
        "trace.metadata": record.trace_metadata,
        "trace.tags": list(record.trace_tags) or None,
        "trace.evaluations": {name: verdict.to_json() for name, verdict in record.trace_evaluations.items()},
        "trace.annotations": [note.to_json() for note in record.trace_annotations],
        "events": [dict(event) for event in span.events] or None,
        "links": [dict(link) for link in span.links] or None,
        "resource": span.resource,
        "scope_name": span.scope_name,
        "scope_version": span.scope_version,
    }
    for stem, value in (
        ("attributes.input", record.input),
        ("attributes.output", record.output),
        ("trace.input", record.trace_input),
        ("trace.output", record.trace_output),
    ):
        row[f"{stem}.value"], row[f"{stem}.mime_type"] = text_and_mime_type(value)
    return row


def row_of(row: Row) -> tuple[StoredSpan, Fields]:
    """Return the span and the fields that a row was made from.

    Args:
        row: By column name, JSON columns as values, times as nanoseconds. Columns that are empty for this span may be
            missing or None.

    Raises:
        RowError: The row does not fit this table.
    """
    fields = dict(_fields(row))
    hidden = _object(row, SPAN)
    shown = {
        name: value for name, value in _object(row, "attributes").items() if ("span", "attribute", name) not in fields
    }
    values = {**row, **hidden}
    return (
        StoredSpan(
            trace_id=_id(row, "context.trace_id", 32),
            span_id=_id(row, "context.span_id", 16),
            parent_id=_id(row, "parent_id", 16) if row.get("parent_id") is not None else None,
            trace_state=_text(row, "context.trace_state", ""),
            name=_text(values, "name"),
            kind=_text(row, "kind"),
            start_ns=_integer(row, "start_time"),
            end_ns=_integer(row, "end_time"),
            status_code=_text(values, "status_code"),
            status_message=_text(values, "status_message") if values.get("status_message") is not None else None,
            attributes={**shown, **_object(hidden, "attributes")},
            events=_objects(row, "events"),
            links=_objects(row, "links"),
            resource=_object(row, "resource"),
            scope_name=_text(row, "scope_name", ""),
            scope_version=_text(row, "scope_version") if row.get("scope_version") is not None else None,
        ),
        fields,
    )


def past_of(row: Row) -> Past:
    """Return how the values of a row came about, as far as the row tells it.

    Args:
        row: As for `row_of`, which has read it.

    Raises:
        RowError: The row does not fit this table.
    """
    entries, routes = row.get(VERSIONS) or (), row.get(ROUTES)
    if routes is not None and (not isinstance(routes, list) or len(routes) != len(entries)):
        raise RowError(_got(ROUTES, routes, f"a JSON list of {len(entries)} routes, one for each entry of {VERSIONS}"))
    pairs = zip(entries, map(_route, routes or ()), strict=False)  # an older export has no routes
    return Past(
        {(level, kind, key): route for (level, kind, key, *_), route in pairs if route is not None},
        tuple(_superseded(row)),
        _authors(row),
    )


def _route(route: object, column: str = ROUTES) -> Route | None:
    if route is not None and (not isinstance(route, str) or route not in _ROUTES):
        raise RowError(_got(column, route, f"a route: {', '.join(get_args(Route))}, or null"))
    return cast("Route | None", route)


def _superseded(row: Row) -> Iterator[tuple[FieldName, Json, Version, Route | None]]:
    entries = row.get(HISTORY)
    if not isinstance(entries, list | None):
        raise RowError(_got(HISTORY, entries, "a JSON list"))
    for entry in entries or ():
        try:
            level, kind, key, ns, writer, value, route = entry
            name, (value, version) = field_of({}, level, kind, key, ns, writer, value)
        except (TypeError, ValueError):
            expected = "[level, kind, key, nanoseconds, writer, value, route] of a superseded value"
            raise RowError(_got(HISTORY, entry, expected)) from None
        yield name, value, version, _route(route, HISTORY)


def _authors(row: Row) -> Mapping[int, str]:
    names = row.get(AUTHORS)
    if names is None:
        return {}
    if not isinstance(names, dict) or not all(
        _HEX[16].fullmatch(writer) and isinstance(name, str) for writer, name in names.items()
    ):
        raise RowError(_got(AUTHORS, names, "a JSON object of names as text, by writers of 16 hex digits"))
    return {int(writer, 16): name for writer, name in names.items()}


def rows(found: pa.RecordBatch) -> Iterator[dict[str, Any] | RowError]:
    """Yield the rows of a batch by column name, JSON columns as values, times as nanoseconds.

    If the JSON, a text or a time of a row cannot be read, the error is yielded in place of the row.

    Raises:
        pyarrow.ArrowException: A column of times has another type.
    """
    columns = {}
    for name, column in zip(found.schema.names, found.columns, strict=True):
        columns[name] = _times(name, column) if name in TIME_COLUMNS else _values(name, column)
    for values in zip(*columns.values(), strict=True):
        row = dict(zip(columns, values, strict=True))
        problem = next((value for value in values if type(value) is RowError), None)
        if problem is not None:
            yield problem
            continue
        try:
            yield {name: _parsed(name, value) if name in JSON_COLUMNS else value for name, value in row.items()}
        except RowError as error:
            yield error


def _values(name: str, column: Any) -> list[Any]:
    try:
        return cast("list[Any]", column.to_pylist())
    except UnicodeDecodeError:  # a flipped bit in the file
        arrow = load("pyarrow")
        as_bytes = arrow.list_(arrow.binary()) if arrow.types.is_list(column.type) else arrow.binary()
        return [_decoded(name, one) for one in column.cast(as_bytes).to_pylist()]


def _decoded(name: str, value: Any) -> Any:
    try:
        if isinstance(value, list):
            return [one if one is None else one.decode() for one in value]
        return value if value is None else value.decode()
    except UnicodeDecodeError as error:
        return RowError(f"{name} is not valid UTF-8 ({error.reason} at byte {error.start}); expected text in UTF-8")


def _times(name: str, column: Any) -> list[Any]:
    arrow = load("pyarrow")

    def nanoseconds(part: Any) -> list[Any]:
        return cast("list[Any]", part.cast(arrow.timestamp("ns", "UTC")).cast(arrow.int64()).to_pylist())

    try:
        return nanoseconds(column)
    except arrow.ArrowInvalid:
        found: list[Any] = []
        for at in range(len(column)):
            try:
                found.extend(nanoseconds(column.slice(at, 1)))
            except arrow.ArrowInvalid:
                found.append(RowError(f"{name} is not a time within 64 bits of nanoseconds; expected one, or null"))
        return found


def _parsed(column: str, value: object) -> Json:
    if value is None:
        return None
    try:
        return cast("Json", orjson.loads(cast("str", value)))
    except orjson.JSONDecodeError as error:
        raise RowError(_got(column, value, f"JSON text ({error})")) from None


def _covered(record: SpanRecord, fields: Fields) -> dict[str, Json]:
    """Return OTLP's values that a field covers."""
    span = record.span
    own = {name: getattr(span, name) for name in ("name", "status_code", "status_message")}
    hidden: dict[str, Json] = {name: value for name, value in own.items() if getattr(record, name) != value}
    covered = {name: value for name, value in span.attributes.items() if ("span", "attribute", name) in fields}
    return {**hidden, "attributes": covered} if covered else hidden


def _unless_shown(row: Row, name: FieldName, value: Json) -> list[Json]:
    """Return the value of a field in a list. The list is empty if the columns give the value back exactly."""
    shown = _shown_value(row, name)
    is_shown = shown is value or (shown is not UNSET and json_text(shown) == json_text(value))
    return [] if is_shown else [value]


def _shown_value(row: Row, name: FieldName) -> Json | UnsetType:
    """Return the value that the columns show for a field, or `UNSET`."""
    level, kind, key = name
    column = SHOWN_IN.get((level, kind))
    shown = row.get(column) if column is not None else None
    if shown is None:
        return UNSET
    if kind == "tag":
        return True if key in shown else UNSET
    if kind == "annotation":
        noted = (note for note in shown if annotation_key(note.get("name", ""), note.get("annotator")) == key)
        return next(noted, UNSET)
    if kind in ("input", "output"):
        mime_type = row.get(f"{column}".removesuffix("value") + "mime_type")
        return cast("Json", orjson.loads(shown)) if mime_type == MIME_TYPE_OF_JSON else cast("str", shown)
    return cast("Json | UnsetType", shown.get(key, UNSET))


def text_and_mime_type(value: Json) -> tuple[str | None, str | None]:
    """Return an input or output as text, and its mime type: of a text or of JSON; None and None for null."""
    if value is None:
        return None, None
    return (value, MIME_TYPE_OF_TEXT) if isinstance(value, str) else (json_text(value), MIME_TYPE_OF_JSON)


def _fields(row: Row) -> Iterator[tuple[FieldName, tuple[Json, Version]]]:
    entries = row.get(VERSIONS)
    if not isinstance(entries, list | None):
        raise RowError(_got(VERSIONS, entries, "a JSON list"))
    for entry in entries or ():
        try:
            yield field_of(row, *entry)
        except (TypeError, ValueError, AttributeError):
            expected = "[level, kind, key, nanoseconds, writer] of a field that the row shows"
            raise RowError(_got(VERSIONS, entry, expected)) from None


def exact_fields(entries: object) -> Iterator[tuple[FieldName, tuple[Json, Version]]]:
    """Yield the fields of a list of [level, kind, key, nanoseconds, writer, value]; anything else in it is ignored."""
    for entry in entries if isinstance(entries, list) else ():
        try:
            yield field_of({}, *entry)
        except (TypeError, ValueError, AttributeError):
            continue


def field_of(
    row: Row, level: Level, kind: Kind, key: str, ns: int, writer: str, *value: Json
) -> tuple[FieldName, tuple[Json, Version]]:
    """Return the field that an entry describes.

    Raises:
        ValueError: The row does not show the field's value, or the entry is invalid (also TypeError, AttributeError).
    """
    if level not in _LEVELS or kind not in _KINDS or not isinstance(key, str) or (key != "" and kind in _SINGLE):
        raise ValueError(key)
    name = (level, kind, key)
    version = (operator.index(ns), int(writer, 16))
    found = value[0] if value else _shown_value(row, name)
    if found is UNSET or version[0] not in _INT64 or not 0 <= version[1] < 1 << 64:
        raise ValueError(key)
    return name, (_json(found), version)


def _got(column: str, value: object, expected: str) -> str:
    return f"{column} is {described(value)}; expected {expected}"


def _id(row: Row, column: str, digits: int) -> str:
    value = row.get(column)
    if not isinstance(value, str) or not _HEX[digits].fullmatch(value):
        raise RowError(_got(column, value, f"{digits} hex digits"))
    return value


def _text(row: Row, column: str, default: str | None = None) -> str:
    value = row.get(column)
    value = default if value is None else value
    if not isinstance(value, str):
        raise RowError(_got(column, value, "text"))
    return value


def _integer(row: Row, column: str) -> int:
    value = row.get(column)
    if not isinstance(value, int) or isinstance(value, bool) or value not in _INT64:
        raise RowError(_got(column, value, "a time within 64 bits of nanoseconds"))
    return value


def _object(row: Row, column: str) -> dict[str, Json]:
    value = row.get(column)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RowError(_got(column, value, "a JSON object"))
    return cast("dict[str, Json]", _json(value))


def _objects(row: Row, column: str) -> tuple[Mapping[str, Json], ...]:
    value = row.get(column)
    if not isinstance(value, list | None) or not all(isinstance(item, dict) for item in value or ()):
        raise RowError(_got(column, value, "a JSON list of objects"))
    return tuple(cast("list[Mapping[str, Json]]", _json(value or [])))


def _json(value: object) -> Json:
    # A file may come from anybody: JSON in it may be deeper, or have larger integers, than can be written again.
    return clean(value, [], "", STORE_LIMITS)
