"""A question about stored spans as one SELECT of SQLite.

There are two ways to read a page. If the condition asks for a value that an index has in the order of time
(`fields_by_value`, or `fields_by_label` for evaluations), the page is read from that index, and only the spans found
there are looked at. Of several such values, the rarest is used. Otherwise spans are looked at one by one, newest first,
until the page is full. That is quick for frequent values, and looks at all spans for a rare one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import orjson

from otel_metadata.model.condition import And, Compare, Condition, HasTag, Subject
from otel_metadata.model.merge import json_text
from otel_metadata.store.sqlite import condition as sqlite_filter
from otel_metadata.store.sqlite.condition import Sql, Value, json_types

if TYPE_CHECKING:
    import sqlite3

    from otel_metadata.model.condition import Scalar
    from otel_metadata.model.record import SpanQuery

__all__ = ["COLUMNS", "INDEXED", "LABELLED", "Count", "counting", "select"]

COLUMNS: Final = (
    "trace_id, span_id, parent_id, trace_state, name, kind, start_ns, end_ns, status_code, status_message, "
    "attributes, events, links, resource, scope_name, scope_version"
)
"""The columns of a span, in the order of `StoredSpan`."""

_MAX_INDEXED: Final = 256

INDEXED: Final = (
    "(kind = 'metadata' OR kind = 'tag' OR kind = 'user_id' OR kind = 'session_id')"
    f" AND length(value) <= {_MAX_INDEXED}"
)
"""The WHERE of the index `fields_by_value`. SQLite uses the index only if a question repeats these words exactly. The
condition is evaluated for each field that is written, and an IN would be slow there."""

LABELLED: Final = "kind = 'evaluation' AND json_type(value, '$.label') = 'text'"
"""The WHERE of the index `fields_by_label`; the same holds for it."""

_INDEXED_OF_F, _LABELLED_OF_F = (
    text.replace("kind", "f.kind").replace("value", "f.value") for text in (INDEXED, LABELLED)
)

_RARE: Final = 1_000
"""Fields are counted only up to this number, which is quick. Of values that all reach it, the first is used."""

Count: TypeAlias = "Callable[[Sql], int]"
"""Answers a SELECT of one number."""

_COLUMNS_OF_S: Final = ", ".join(f"s.{column}" for column in COLUMNS.split(", "))


class _Driver(NamedTuple):
    """The table, or the join, that spans are read from.

    Attributes:
        source: SQL of the table or join.
        ordered: The alias of the table whose `start_ns` is in the order of the page.
        fields: The condition on `fields AS f` that finds the spans; None for all spans.
        is_exact: Whether all spans that it finds satisfy their part of the condition, so that it need not be checked.
    """

    source: Sql
    ordered: str
    fields: Sql | None = None
    is_exact: bool = False


_ALL_SPANS: Final = _Driver(Sql("spans AS s"), "s")


def select(query: SpanQuery, columns: str = _COLUMNS_OF_S, *, count: Count = lambda _: 0) -> Sql:
    """Return the SELECT of `s.<column>`s that answers *query*, newest start first.

    Args:
        query: The spans to select.
        columns: The columns to select of each span.
        count: Counts the fields that lead to the page, if several values of the condition are indexed.
    """
    (source, at, fields, _), rest = _driver(query, count)
    where = [
        fields if at == "f" else None,  # otherwise the source has this condition
        _if(query.trace_id, "s.trace_id = ?"),
        _if(query.span_id, "s.span_id = ?"),
        _if(query.project, "s.project = ?"),
        _if(query.start_ns, f"{at}.start_ns >= ?"),
        _if(query.end_ns, f"{at}.start_ns < ?"),
        _if(query.at_ns, f"{at}.start_ns <= ?"),
        Sql(f"({at}.start_ns, {at}.trace_id, {at}.span_id) < (?, ?, ?)", query.after) if query.after else None,
        sqlite_filter.condition(rest) if rest is not None else None,
    ]
    given = [one for one in where if one is not None]
    limit = _if(query.limit, " LIMIT ?") or Sql("")
    return Sql(
        f"SELECT {columns} FROM {source.sql}"
        + (f" WHERE {' AND '.join(f'({one.sql})' for one in given)}" if given else "")
        + f" ORDER BY {at}.start_ns DESC, {at}.trace_id DESC, {at}.span_id DESC{limit.sql}",
        (*source.values, *(value for one in given for value in one.values), *limit.values),
    )


def counting(connection: sqlite3.Connection) -> Count:
    """Return a `Count` that asks *connection*."""

    def count(question: Sql) -> int:
        found: int = connection.execute(question.sql, question.values).fetchone()[0]
        return found

    return count


def _if(value: Value | None, sql: str) -> Sql | None:
    return None if value is None else Sql(sql, (value,))


def _driver(query: SpanQuery, count: Count) -> tuple[_Driver, Condition | None]:
    """Return the cheapest driver, of equal ones the first, and the part of the condition that it leaves to check."""
    wanted = query.condition
    if query.trace_id is not None or query.span_id is not None or wanted is None:
        return _ALL_SPANS, wanted
    parts = wanted.parts if isinstance(wanted, And) else (wanted,)
    ways = [(way, part) for part in parts if (way := _indexed(part)) is not None]
    if not ways:
        return _ALL_SPANS, wanted
    way, led = min(ways, key=lambda one: count(_counted(one[0]))) if len(ways) > 1 else ways[0]
    rest = tuple(part for part in parts if part is not led or not way.is_exact)
    return way, And(rest) if len(rest) > 1 else next(iter(rest), None)


def _counted(way: _Driver) -> Sql:
    where, values = way.fields or Sql("1")
    return Sql(f"SELECT count(*) FROM (SELECT 1 FROM fields AS f WHERE {where} LIMIT {_RARE})", values)


def _indexed(part: Condition) -> _Driver | None:
    match part:
        case HasTag(level="span", tag=tag):
            return _by_value(_fields("span", "tag", tag, True))
        case Compare(subject=Subject(level=level, kind="metadata", key=key), op="=", value=value) if _is_short(value):
            fields = _fields(level, "metadata", key, value)
            return _by_value(fields) if level == "span" else _by_trace(fields, is_exact=True)
        case Compare(subject=Subject(level=level, kind="evaluation", key=key, part="label"), op="=", value=str(value)):
            label = "f.level = ? AND f.key = ? AND json_extract(f.value, '$.label') = ?"
            fields = Sql(f"{label} AND {_LABELLED_OF_F}", (level, key, value))
            return _by_value(fields) if level == "span" else _by_trace(fields, is_exact=True)
        case Compare(subject=Subject(kind="user_id" | "session_id" as kind), op="=", value=str(value)) if _is_short(
            value
        ) and not _is_json(value):
            of_span, of_trace = (_fields(level, kind, "", value) for level in ("span", "trace"))
            return _by_trace(Sql(f"({of_span.sql}) OR ({of_trace.sql})", (*of_span.values, *of_trace.values)))
        case _:
            return None


def _is_short(value: Scalar) -> bool:
    return len(json_text(value)) <= _MAX_INDEXED


def _is_json(text: str) -> bool:
    """Whether a text may also be the shown form of a value of another type, which the index has as that value."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _fields(level: str, kind: str, key: str, value: Scalar) -> Sql:
    return Sql(
        f"f.level = ? AND f.kind = ? AND f.key = ? AND json_extract(f.value, '$') = ? "
        f"AND json_type(f.value) IN ({json_types(value)}) AND {_INDEXED_OF_F}",
        (level, kind, key, value),
    )


def _by_value(fields: Sql) -> _Driver:
    # With CROSS JOIN, SQLite keeps the order of the tables, and so the order of the index.
    return _Driver(
        Sql("fields AS f CROSS JOIN spans AS s ON s.trace_id = f.trace_id AND s.span_id = f.span_id"),
        "f",
        fields,
        is_exact=True,
    )


def _by_trace(fields: Sql, *, is_exact: bool = False) -> _Driver:
    return _Driver(
        Sql(
            f"(SELECT DISTINCT f.trace_id FROM fields AS f WHERE {fields.sql}) AS t "
            "CROSS JOIN spans AS s ON s.trace_id = t.trace_id",
            fields.values,
        ),
        "s",
        fields,
        is_exact=is_exact,
    )
