"""Read the rows of a frame as spans with their fields, as a store keeps them.

Pure: a frame in, spans out. The columns are those that Arize documents for `log`, and those of the same name in a list
or an export of otel-metadata.

| column | is |
|---|---|
| `context.span_id`, `context.trace_id`, `name`, `start_time`, `end_time` | needed on every row |
| `parent_id`, `kind`, `status_code`, `status_message`, `scope_name`, `scope_version`, `project` | may be left out |
| `span_kind` | the attribute `openinference.span.kind` |
| `attributes.metadata.<field>`, `attributes.metadata` | metadata: one field; a dict, or the JSON text of an object |
| `attributes` | attributes: a dict, or the JSON text of an object |
| `attributes.<name>` | one; canonical ones (`input.value`, `user.id`, `tag.tags`, …) are read as on any span |

Every value has the version of its span's end, as a value that arrived on the span has. So a later update of the span
wins, even if the span is logged again. If the end is in the future, because a clock or zone is wrong, the version is
now: otherwise the next updates would be older. The writer of the version is the time of the row, so of two rows of one
span with the same end, in one call or in two, the later row wins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, cast

from otel_metadata.client.columns import OBJECT, SPAN_ID, TRACE_ID, Rows, identities, read_object, read_span_id
from otel_metadata.client.dataframes import Frame
from otel_metadata.client.queries import EXPECTED_TIME, wall_ns
from otel_metadata.dialects.canonical import read
from otel_metadata.errors import ConfigurationError
from otel_metadata.live.values import Values, masked, masked_text_value, read_status
from otel_metadata.model.encoding import is_error_status
from otel_metadata.model.merge import Fields, Json, Version
from otel_metadata.model.record import PROJECT_NAMES, StoredSpan
from otel_metadata.model.unset import UNSET
from otel_metadata.model.value import STORE_LIMITS, clean, clean_key

REQUIRED: Final = (SPAN_ID, TRACE_ID, "name", "start_time", "end_time")
"""Columns that every frame of spans needs."""

_KINDS: Final = ("INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_STATUSES: Final = ("UNSET", "OK", "ERROR")
_SPAN_KIND: Final = "openinference.span.kind"
_ATTRIBUTES: Final = "attributes."
_METADATA: Final = "attributes.metadata"
# Columns of many attributes at once, and the prefix of their names.
_OBJECTS: Final[Mapping[str, str]] = {_METADATA: "metadata.", "attributes": ""}


def span_rows(
    frame: Frame, versions: Iterator[Version], project: str | None = None
) -> tuple[Rows, dict[int, tuple[StoredSpan, Fields]]]:
    """Return the rows of a frame, and the spans of the rows that can be read, by row number.

    Args:
        frame: The table.
        versions: At least one for each row, ascending, as of an update that is made now.
        project: The project of rows that do not name one.

    Raises:
        ConfigurationError: A required column is missing; the message names the columns of the frame.
    """
    missing = [column for column in REQUIRED if column not in frame]
    if missing and frame.height:
        raise ConfigurationError("columns of the frame", frame.names_for_people(), f"{', '.join(missing)} as well")
    rows = identities(frame)
    if not frame.height:
        return rows, {}
    known = {name: frame.column(name) for name in _PARTS if name in frame}
    attributes = {name: frame.column(name) for name in frame.names if name in _OBJECTS or name.startswith(_ATTRIBUTES)}
    rows.remember(
        f"column {ascii(name)[:200]}: not part of a span; it was left out"
        for name in frame.names
        if name not in known and name not in attributes and name not in REQUIRED
    )
    spans: dict[int, tuple[StoredSpan, Fields]] = {}
    for row in rows.good():
        if read_span_id(rows.span_ids[row]) is None:
            rows.reject(row, "patch_failure", f", column {SPAN_ID!r}: a backend's id; expected 16 hex digits.")
            continue
        if rows.trace_ids[row] is None:
            rows.reject(row, "patch_failure", f", column {TRACE_ID!r}: nothing; expected 32 hex digits.")
            continue
        parts = _parts(rows, row, known, project)
        values = _attributes(rows, row, attributes)
        if row not in rows.problems:
            now_ns, _ = next(versions)
            spans[row] = _span(rows, row, parts, values, (min(parts["end_time"], now_ns), now_ns))
    return rows, spans


def _parts(rows: Rows, row: int, known: Mapping[str, list[object]], project: str | None) -> dict[str, Any]:
    """Return the cells of a row that are not attributes; a row without a required one gets a problem."""
    parts: dict[str, Any] = {"project": project}
    for name, cells in known.items():
        cell = cells[row]
        read_cell, expected = _PARTS[name]
        if cell is UNSET or cell is None:
            if name in REQUIRED:
                rows.reject(row, "patch_failure", f", column {name!r}: nothing; expected {expected}.")
            continue
        parts[name] = read_cell(cell)
        if parts[name] is None:
            rows.reject(row, "patch_failure", f", column {name!r}: a {type(cell).__name__}; expected {expected}.")
        if name == "status_code":
            parts.setdefault("status_message", _text(read_status(cell)[1]))
    if row not in rows.problems and parts["end_time"] < parts["start_time"]:
        rows.reject(row, "patch_failure", ", column 'end_time': before start_time; expected a time after it.")
    return parts


def _attributes(rows: Rows, row: int, columns: Mapping[str, list[object]]) -> dict[str, object]:
    """Return the cells of a row by attribute, `metadata.<field>` among them."""
    values: dict[str, object] = {}
    for column, cells in columns.items():
        cell = cells[row]
        if cell is UNSET or (cell is None and not column.startswith(f"{_METADATA}.")):
            continue  # an attribute has no null
        if column not in _OBJECTS:
            values[column.removeprefix(_ATTRIBUTES)] = cell
            continue
        found = read_object(cell)
        if found is None:
            rows.reject(row, "parse_failure", f", column {column!r}: a {type(cell).__name__}; expected {OBJECT}.")
        else:
            values.update({f"{_OBJECTS[column]}{key}": item for key, item in found.items()})
    return values


def _span(
    rows: Rows, row: int, parts: Mapping[str, Any], values: Mapping[str, object], version: Version
) -> tuple[StoredSpan, Fields]:
    if "span_kind" in parts:
        values = {_SPAN_KIND: parts["span_kind"].upper(), **values}
    notes: list[str] = []
    cleaned: dict[str, Json] = {
        clean_key(name, notes, "attribute"): clean(value, notes, name, STORE_LIMITS) for name, value in values.items()
    }
    rows.remember(notes)
    fields, taken = read(cleaned, version)
    masked_fields = masked({name: value for name, (value, _) in fields.items()}, rows.notes)
    plain: Values = {("span", "attribute", name): value for name, value in cleaned.items() if name not in taken}
    project, message = parts["project"], parts.get("status_message")
    status = parts.get("status_code", _STATUSES[0])
    if isinstance(status, int):
        masked_fields["span", "status", ""] = status
        status = _STATUSES[2] if is_error_status(status) else _STATUSES[1]
    span = StoredSpan(
        trace_id=cast("str", rows.trace_ids[row]),
        span_id=rows.span_ids[row],
        parent_id=parts.get("parent_id"),
        trace_state="",
        name=masked_text_value("name", parts["name"]),
        kind=parts.get("kind", _KINDS[0]),
        start_ns=parts["start_time"],
        end_ns=parts["end_time"],
        status_code=status,
        status_message=masked_text_value("status_message", message) if message else message,
        attributes={name: value for (_, _, name), value in masked(plain, rows.notes).items()},
        events=(),
        links=(),
        resource={} if project is None else {PROJECT_NAMES[0]: project},
        scope_name=parts.get("scope_name", ""),
        scope_version=parts.get("scope_version"),
    )
    return span, {name: (value, version) for name, value in masked_fields.items()}


def _text(cell: object) -> str | None:
    text = clean(cell, [], "", STORE_LIMITS) if isinstance(cell, str) else None
    return text if isinstance(text, str) else None


def _status(cell: object) -> str | int | None:
    """Return a word, or the integer code that a late update gave a span: a list has the integer, an export its text."""
    code, _ = read_status(cell)
    return code.upper() if isinstance(code, str) else code


def _kind(cell: object) -> str | None:
    return cell.upper() if isinstance(cell, str) and cell.upper() in _KINDS else None


# Column → the function that reads a cell (None for an invalid one), and what is expected.
_PARTS: Final[Mapping[str, tuple[Callable[[object], Any], str]]] = {
    **dict.fromkeys(
        ("name", "span_kind", "status_message", "scope_name", "scope_version", "project"), (_text, "a text")
    ),
    **dict.fromkeys(("start_time", "end_time"), (wall_ns, EXPECTED_TIME)),
    "parent_id": (read_span_id, "a span id of 16 hex digits"),
    "kind": (_kind, f"one of {', '.join(_KINDS)}"),
    "status_code": (_status, f"one of {', '.join(_STATUSES)}, or an integer code"),
}
