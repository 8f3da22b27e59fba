"""A condition as SQL of SQLite, about a span whose row is `s`; every value is bound.

The SQL decides as `model.record.assemble` does in Python: which field covers which column, which of two levels counts,
and what is shown as text. A value whose type differs from the literal's reads as NULL. So SQLite's own three-valued
logic is that of `model.condition`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import orjson

from otel_metadata.model.condition import And, Between, Compare, Condition, HasTag, In, IsNull, Like, Not, Or, Subject
from otel_metadata.model.instrumented import EVENTS, INPUT, MARKED, MODEL, OUTPUT, kind_of, text_of, value_of
from otel_metadata.model.merge import json_text
from otel_metadata.model.record import PROJECT_NAMES, ROUTES

if TYPE_CHECKING:
    from otel_metadata.model.condition import Scalar

Value: TypeAlias = "str | int | float"


class Sql(NamedTuple):
    """A piece of SQL, and the values of its placeholders."""

    sql: str
    values: tuple[Value, ...] = ()


# A path is safe here: these names have no quotes.
PROJECT: Final = "coalesce({})".format(
    ", ".join(
        f"CASE json_type(resource, '$.\"{name}\"') WHEN 'text' THEN json_extract(resource, '$.\"{name}\"') END"
        for name in PROJECT_NAMES
    )
)
"""`model.record.project_of` for a column `resource`."""

_TEXT: Final = "'text'"
_NUMBER: Final = "'integer', 'real'"
_BOOL: Final = "'true', 'false'"
_ANY: Final = f"{_TEXT}, {_NUMBER}, {_BOOL}, 'array', 'object'"  # all but null

_COLUMNS: Final = {
    "trace_id": "s.trace_id",
    "span_id": "s.span_id",
    "parent_id": "s.parent_id",
    "kind": "s.kind",
    "start_time": "s.start_ns",
    "end_time": "s.end_ns",
    "latency_ms": "(s.end_ns - s.start_ns) / 1000000.0",
    "project": "s.project",
    "scope_name": "s.scope_name",
    "scope_version": "s.scope_version",
}
_NUMERIC: Final = frozenset({"start_time", "end_time", "latency_ms"})

FUNCTION: Final = "otel_metadata_of_instrumentor"
"""The name of `of_instrumentor` in SQL. Whoever makes a connection registers it there."""

_SPELLINGS: Final = {"input": INPUT, "output": OUTPUT, "model": MODEL}

LATE: Final = f"f.route = {ROUTES.index('late')}"
"""SQL: whether the value of a field `f` came late."""

_ORIGINS: Final = {
    "route": (_TEXT, f"CASE f.route {' '.join(f'WHEN {at} THEN {word!r}' for at, word in enumerate(ROUTES))} END"),
    "author": (_TEXT, "(SELECT w.name FROM writers AS w WHERE w.writer = f.writer)"),
    "changed_at": (_NUMBER, "f.ns"),
}

_PARTS: Final = {"label": _TEXT, "explanation": _TEXT, "text": _TEXT, "score": _NUMBER}


def json_types(value: Scalar) -> str:
    """Return the results of `json_type` that mean the type of a literal, as a list in SQL."""
    if isinstance(value, bool):
        return _BOOL
    return _TEXT if isinstance(value, str) else _NUMBER


def condition(wanted: Condition) -> Sql:
    """Return SQL that is 1, 0 or NULL."""
    match wanted:
        case And(parts):
            return _sql(" AND ".join(["({})"] * len(parts)), *map(condition, parts))
        case Or(parts):
            return _sql(" OR ".join(["({})"] * len(parts)), *map(condition, parts))
        case Not(part):
            return _sql("NOT ({})", condition(part))
        case Compare(subject, op, value):
            return _sql(f"{{}} {op} ?", _read(subject, json_types(value)), values=(value,))
        case In(subject, options):
            listed = ", ".join("?" * len(options))
            return _sql(f"{{}} IN ({listed})", _read(subject, json_types(options[0])), values=options)
        case Between(subject, low, high):
            return _sql("{} BETWEEN ? AND ?", _read(subject, json_types(low)), values=(low, high))
        case Like(subject, pattern):
            # SQLite's LIKE ignores case; GLOB does not.
            return _sql("{} GLOB ?", _read(subject, _TEXT), values=(_glob(pattern),))
        case IsNull(subject):
            return _sql("{} IS NULL", _read(subject, _ANY))
        case HasTag(level, tag):
            return _sql("EXISTS {}", _of_field(level, "tag", tag, "1"))


def _sql(text: str, *parts: Sql, values: tuple[Value, ...] = ()) -> Sql:
    """Return *text* with a part in place of each `{}`, the values of the parts, and more *values* behind them."""
    of_parts = (value for part in parts for value in part.values)
    return Sql(text.format(*(part.sql for part in parts)), (*of_parts, *values))


def _read(subject: Subject, types: str) -> Sql:
    """Return SQL of the value of *subject* where it is of one of *types*, else NULL."""
    level, kind, key = subject.level, subject.kind, subject.key
    if subject.part in _ORIGINS:
        type_of, what = _ORIGINS[subject.part]
        return _of_latest(subject, what) if type_of in types else Sql("NULL")
    if kind == "late_count":
        place = "s.span_id" if level == "span" else "''"
        count = f"(SELECT count(*) FROM fields AS f WHERE f.trace_id = s.trace_id AND f.span_id = {place} AND {LATE})"
        return Sql(count if _NUMBER in types else "NULL")
    if kind in _COLUMNS:
        is_numeric = kind in _NUMERIC
        return Sql(_COLUMNS[kind] if (_NUMBER if is_numeric else _TEXT) in types else "NULL")
    if kind == "resource":
        return _of_object("s.resource", key, types)
    if kind == "attribute":
        field = _typed("f.value", types)
        return _field_or(level, kind, key, field, _of_object("s.attributes", key, types))
    if kind in ("evaluation", "annotation"):
        return _of_verdict(subject, types)
    if kind == "status":
        return _of_status(types)
    if kind == "metadata":
        return _of_field(level, kind, key, _typed("f.value", types))
    if kind in ("input", "output"):
        field = _as_text("f.value", types) if _TEXT in types else _typed("f.value", types)
        if level == "trace":
            return _of_field(level, kind, key, field)
        return _field_or(level, kind, key, field, _of_instrumentor(kind) if _TEXT in types else Sql("NULL"))
    if _TEXT not in types:
        return Sql("NULL")
    if kind in ("span_kind", "model"):
        return _of_instrumentor(kind)
    if kind in ("user_id", "session_id"):
        return _of_latest(subject, _shown("f.value"))
    if kind == "name" and level == "span":
        return _sql("coalesce({}, s.name)", _of_field(level, kind, "", _typed("f.value", _TEXT)))
    shown = _of_field(level, kind, "", _shown("f.value"))
    if kind == "status_message":
        return _sql("coalesce(nullif({}, ''), s.status_message)", shown)
    return shown


def _field_or(level: str, kind: str, key: str, what: str, otherwise: Sql) -> Sql:
    """Return *what* of the field if there is one, even if that is NULL."""
    exists, field = _of_field(level, kind, key, "1"), _of_field(level, kind, key, what)
    return _sql("CASE WHEN EXISTS {} THEN {} ELSE {} END", exists, field, otherwise)


def _of_latest(subject: Subject, what: str) -> Sql:
    """Return *what* of the field that a subject means, of several fields the one that was set last."""
    level, kind, key = subject.level, subject.kind, subject.key
    place = "s.span_id" if level == "span" else "''"
    if kind in ("user_id", "session_id"):
        # The span's value or its trace's; of equal versions, the trace's.
        return Sql(
            f"(SELECT {what} FROM fields AS f WHERE f.trace_id = s.trace_id "
            "AND f.span_id IN (s.span_id, '') AND f.level IN ('span', 'trace') AND f.kind = ? AND f.key = '' "
            "ORDER BY f.ns DESC, f.writer DESC, f.level DESC LIMIT 1)",
            (kind,),
        )
    if kind == "annotation":
        name = "CASE json_type(f.value, '$.name') WHEN 'text' THEN json_extract(f.value, '$.name') ELSE '' END"
        return Sql(
            f"(SELECT {what} FROM fields AS f WHERE f.trace_id = s.trace_id AND f.span_id = {place} "
            f"AND f.level = ? AND f.kind = 'annotation' AND {name} = ? "
            "ORDER BY f.ns DESC, f.writer DESC, f.key DESC LIMIT 1)",
            (level, key),
        )
    return _of_field(level, kind, key, what)


def _of_field(level: str, kind: str, key: str, what: str) -> Sql:
    place = "s.span_id" if level == "span" else "''"
    return Sql(
        f"(SELECT {what} FROM fields AS f WHERE f.trace_id = s.trace_id AND f.span_id = {place} "
        "AND f.level = ? AND f.kind = ? AND f.key = ?)",
        (level, kind, key),
    )


def _of_instrumentor(kind: str) -> Sql:
    late = (
        "(SELECT json_group_object(f.key, json(f.value)) FROM fields AS f WHERE f.trace_id = s.trace_id "
        "AND f.span_id = s.span_id AND f.level = 'span' AND f.kind = 'attribute')"
    )
    return Sql(f"{FUNCTION}(?, s.attributes, {late}, s.events)", (kind,))


def of_instrumentor(kind: str, attributes: str, late: str, events: str) -> str | None:
    """Return a value that an instrumentor's attributes give a span, as a filter compares it. In SQL it is `FUNCTION`.

    Args:
        kind: `input`, `output`, `span_kind` or `model`.
        attributes: The span's attributes, the JSON text of an object.
        late: The attributes that updates have set, likewise.
        events: The span's events, the JSON text of a list.
    """
    if MARKED.search(attributes) is None and MARKED.search(late) is None and EVENTS not in events:
        return None
    parts = orjson.loads(attributes)
    now = parts if late == "{}" else {**parts, **orjson.loads(late)}
    if kind == "span_kind":
        return kind_of(now)
    messages = orjson.loads(events) if EVENTS in events else ()
    found = text_of(value_of(_SPELLINGS[kind], now, parts, messages))
    return found if found is None or isinstance(found, str) else json_text(found)


def _of_object(column: str, key: str, types: str) -> Sql:
    # Not a JSON path: a path cannot hold a key with a quote.
    return Sql(
        f"(SELECT CASE WHEN e.type IN ({types}) THEN e.value END FROM json_each({column}) AS e WHERE e.key = ?)", (key,)
    )


def _of_verdict(subject: Subject, types: str) -> Sql:
    allowed = _PARTS[subject.part]
    if allowed not in types:
        return Sql("NULL")
    path = f"'$.{subject.part}'"
    what = f"CASE WHEN json_type(f.value, {path}) IN ({allowed}) THEN json_extract(f.value, {path}) END"
    return _of_latest(subject, what)


def _of_status(types: str) -> Sql:
    # A late update may give a word or an integer; anything else leaves the span's own status.
    upper = "upper(json_extract(f.value, '$'))" if _TEXT in types else "NULL"
    code = "json_extract(f.value, '$')" if _NUMBER in types else "NULL"
    given = f"CASE json_type(f.value) WHEN 'text' THEN {upper} WHEN 'integer' THEN {code} END"
    field = _of_field("span", "status", "", given)
    over = _of_field("span", "status", "", "json_type(f.value) IN ('text', 'integer')")
    own = "s.status_code" if _TEXT in types else "NULL"
    return _sql(f"CASE WHEN {{}} THEN {{}} ELSE {own} END", over, field)


def _typed(value: str, types: str) -> str:
    return f"CASE WHEN json_type({value}) IN ({types}) THEN json_extract({value}, '$') END"


def _as_text(value: str, types: str) -> str:
    """Return SQL that compares an input or output: a list or object as its JSON text."""
    return (
        f"CASE WHEN json_type({value}) IN ('array', 'object') THEN {value} "
        f"WHEN json_type({value}) IN ({types}) THEN json_extract({value}, '$') END"
    )


def _shown(value: str) -> str:
    """Return SQL of what a record shows of a JSON value: a text as it is, NULL for null, other values as JSON text."""
    return f"CASE json_type({value}) WHEN 'null' THEN NULL WHEN 'text' THEN json_extract({value}, '$') ELSE {value} END"


def _glob(pattern: str) -> str:
    special = {"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"}
    return "".join(special.get(char, char) for char in pattern)
