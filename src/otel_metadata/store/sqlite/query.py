"""A question about stored spans as one SELECT of SQLite.

There are three ways to read a page. If the condition asks for something that an index has in the order of time (a
value, a label, a root or an error), the page is read from that index, and only the spans found there are looked at. A
value of a trace leads to the trace, and late values lead to `late_traces`: then all spans of these traces are looked
at. Of several such conditions, the rarest is used. Otherwise spans are looked at one by one, newest first, until the
page is full. That is quick for frequent values, and looks at all spans for a rare one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import orjson

from otel_metadata.model.condition import ORIGINS, And, Compare, Condition, HasTag, In, IsNull, Subject
from otel_metadata.model.merge import json_text
from otel_metadata.store.sqlite import condition as sqlite_filter
from otel_metadata.store.sqlite.condition import Sql, Value, json_types
from otel_metadata.store.sqlite.file import Index

if TYPE_CHECKING:
    import sqlite3

    from otel_metadata.model.condition import Scalar
    from otel_metadata.model.record import Position, SpanQuery

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

_ERROR: Final = "status_code = 'ERROR'"
_ROOT_OR_ERROR: Final = f"parent_id IS NULL OR {_ERROR}"
_STATUS: Final = "level = 'span' AND kind = 'status'"
_OUTLINE_FIELD: Final = "level = 'span' AND (kind = 'name' OR kind = 'status')"

# Names that the indexes of values do not have.
_BESIDE: Final = (
    f"(kind = 'metadata' AND length(value) > {_MAX_INDEXED})"
    " OR (kind = 'evaluation' AND json_type(value, '$.label') IS NOT 'text')"
)

INDEXES: Final = (
    Index("roots_by_start", "spans", "start_ns, trace_id, span_id", "parent_id IS NULL"),
    Index("errors_by_start", "spans", "start_ns, trace_id, span_id", _ERROR),
    Index("roots_and_errors_by_trace", "spans", "trace_id, parent_id, status_code, start_ns, span_id", _ROOT_OR_ERROR),
    Index("statuses_by_start", "fields", "start_ns, trace_id, span_id", _STATUS),
    Index("outline_fields_by_trace", "fields", "trace_id, span_id, kind", _OUTLINE_FIELD),
    Index("fields_beside", "fields", "level, kind, key", _BESIDE),
)
"""Indexes of schema version 4. Most have few entries."""


def _of_f(text: str) -> str:
    return re.sub(r"\b(level|kind|value)\b", r"f.\1", text)


INDEXED_OF_F, LABELLED_OF_F, BESIDE_OF_F, OUTLINE_FIELD_OF_F, _STATUS_OF_F = map(
    _of_f, (INDEXED, LABELLED, _BESIDE, _OUTLINE_FIELD, _STATUS)
)
ROOT_OR_ERROR_OF_O: Final = re.sub(r"\b(parent_id|status_code)\b", r"o.\1", _ROOT_OR_ERROR)

RARE: Final = 1_000
"""Candidates are counted only up to this number, which is quick. Of ways that all reach it, the first is used."""

Count: TypeAlias = "Callable[[Sql], int]"
"""Answers a SELECT of one number."""

COLUMNS_OF_S: Final = ", ".join(f"s.{column}" for column in COLUMNS.split(", "))


class _Driver(NamedTuple):
    """The table, or the join, that spans are read from.

    Attributes:
        source: SQL of the table or join.
        ordered: The alias of the table whose `start_ns` is in the order of the page.
        where: What the spans that it finds satisfy, if the source does not say so.
    """

    source: Sql
    ordered: str
    where: Sql | None = None


class _Way(NamedTuple):
    """One way to find spans.

    Attributes:
        drivers: Each finds some of the spans, and none finds a span of another.
        counted: A SELECT that counts what leads to the spans.
        is_exact: Whether all spans that are found satisfy their part of the condition, so that it need not be checked.
        is_sorted: Whether spans are found newest first, so that a slice of the time costs no more than its part.
    """

    drivers: tuple[_Driver, ...]
    counted: Sql
    is_exact: bool = False
    is_sorted: bool = True


_ALL_SPANS: Final = _Way((_Driver(Sql("spans AS s"), "s"),), Sql("SELECT 0"))


class Plan(NamedTuple):
    """How the spans of a query are found.

    Attributes:
        query: The query.
        way: How its spans are found.
        rest: The part of the condition that is left to check.
    """

    query: SpanQuery
    way: _Way
    rest: Condition | None

    def select(
        self, columns: str | None = COLUMNS_OF_S, *, until: Position | None = None, where: Sql | None = None
    ) -> Sql:
        """Return the SELECT of `s.<column>`s that answers the query, newest start first.

        Args:
            columns: The columns to select of each span, `start_ns`, `trace_id` and `span_id` among them. None for these
                three, from whichever table has them without another look.
            until: Only spans down to this position; None for all.
            where: One more condition on the spans; None for none.
        """
        query, limit = self.query, _if(self.query.limit, " LIMIT ?") or Sql("")
        checked = [
            _if(query.trace_id, "s.trace_id = ?"),
            _if(query.span_id, "s.span_id = ?"),
            _if(query.project, "s.project = ?"),
            sqlite_filter.condition(self.rest) if self.rest is not None else None,
            where,
        ]
        is_looked_up = columns is not None or any(one is not None for one in checked)
        found = [
            self._ordered(
                columns or _place(driver),
                driver,
                driver.source if is_looked_up else _candidates(driver),
                [*self._window(driver, until), *checked],
                limit,
            )
            for driver in self.way.drivers
        ]
        if len(found) == 1:
            return found[0]
        together = " UNION ALL ".join(f"SELECT * FROM ({one.sql})" for one in found)
        values = (value for one in found for value in one.values)
        order = "ORDER BY start_ns DESC, trace_id DESC, span_id DESC"
        return Sql(f"{together} {order}{limit.sql}", (*values, *limit.values))

    def of_all_spans(self) -> Plan:
        """Return the plan that looks at all spans, which finds them newest first."""
        return Plan(self.query, _ALL_SPANS, self.query.condition)

    def boundaries(self, size: int) -> list[Sql]:
        """Return a SELECT for each driver: the position of its candidate number *size*, if so many are left.

        Candidates are what the driver finds, whether or not they satisfy the rest of the condition.
        """
        query, limit = self.query, Sql(" LIMIT 1 OFFSET ?", (size - 1,))
        of_spans = [_if(query.trace_id, "s.trace_id = ?"), _if(query.project, "s.project = ?")]
        return [
            self._ordered(
                _place(driver),
                driver,
                _candidates(driver),
                [*self._window(driver, None), *(of_spans if driver.ordered == "s" else ())],
                limit,
            )
            for driver in self.way.drivers
        ]

    def _window(self, driver: _Driver, until: Position | None) -> list[Sql | None]:
        query, at, position = self.query, driver.ordered, f"({_place(driver)})"
        return [
            _if(query.start_ns, f"{at}.start_ns >= ?"),
            _if(query.end_ns, f"{at}.start_ns < ?"),
            _if(query.at_ns, f"{at}.start_ns <= ?"),
            Sql(f"{position} < (?, ?, ?)", query.after) if query.after else None,
            Sql(f"{position} >= (?, ?, ?)", until) if until else None,
        ]

    @staticmethod
    def _ordered(columns: str, driver: _Driver, source: Sql, where: list[Sql | None], limit: Sql) -> Sql:
        given = [one for one in (driver.where, *where) if one is not None]
        return Sql(
            f"SELECT {columns} FROM {source.sql}"
            + (f" WHERE {' AND '.join(f'({one.sql})' for one in given)}" if given else "")
            + f" ORDER BY {_place(driver).replace(',', ' DESC,')} DESC{limit.sql}",
            (*source.values, *(value for one in given for value in one.values), *limit.values),
        )


def _candidates(driver: _Driver) -> Sql:
    """Return what finds the places of spans without looking at them. A field has a start once its span is stored."""
    return Sql("(SELECT * FROM fields WHERE start_ns IS NOT NULL) AS f") if driver.ordered == "f" else driver.source


def _place(driver: _Driver) -> str:
    return f"{driver.ordered}.start_ns, {driver.ordered}.trace_id, {driver.ordered}.span_id"


def plan(query: SpanQuery, count: Count = lambda _: 0) -> Plan:
    """Return the cheapest way to find the spans of *query*.

    Args:
        query: The spans to find.
        count: Answers the `counted` of a way, where there is a choice.
    """
    return Plan(query, *_way(query, count))


def select(query: SpanQuery, columns: str = COLUMNS_OF_S, *, count: Count = lambda _: 0) -> Sql:
    """Return the SELECT of `s.<column>`s that answers *query*, newest start first.

    Args:
        query: The spans to select.
        columns: As for `Plan.select`.
        count: As for `plan`.
    """
    return plan(query, count).select(columns)


def counting(connection: sqlite3.Connection) -> Count:
    """Return a `Count` that asks *connection*."""

    def count(question: Sql) -> int:
        found: int = connection.execute(question.sql, question.values).fetchone()[0]
        return found

    return count


def _if(value: Value | None, sql: str) -> Sql | None:
    return None if value is None else Sql(sql, (value,))


def _way(query: SpanQuery, count: Count) -> tuple[_Way, Condition | None]:
    """Return the cheapest way, of equal ones the first, and the part of the condition that it leaves to check."""
    wanted = query.condition
    if query.trace_id is not None or query.span_id is not None or wanted is None:
        return _ALL_SPANS, wanted
    parts = wanted.parts if isinstance(wanted, And) else (wanted,)
    ways = [(way, part) for part in parts if (way := _indexed(part)) is not None]
    if any(way is _LATE for way, _ in ways) and count(_LATE.counted) >= RARE:
        ways = [way for way in ways if way[0] is not _LATE]  # a page is soon full of the newest spans
    if query.project is not None:  # its own index finds the roots of a project, which may be rare among all roots
        ways = [way for way in ways if way[0] is not _ROOTS]
    if not ways:
        return _ALL_SPANS, wanted
    way, led = min(ways, key=lambda one: count(one[0].counted)) if len(ways) > 1 else ways[0]
    rest = tuple(part for part in parts if part is not led or not way.is_exact)
    return way, And(rest) if len(rest) > 1 else next(iter(rest), None)


def _indexed(part: Condition) -> _Way | None:
    match part:
        case Compare(subject=Subject(part="route"), op="=", value="late"):
            return _LATE
        case Compare(subject=Subject(part=origin)) if origin in ORIGINS:
            return None
        case HasTag(level="span", tag=tag):
            return _by_value(_fields("span", "tag", tag, True))
        case Compare(subject=Subject(level, "metadata", key), op="=", value=value) if _is_short(value):
            fields = _fields(level, "metadata", key, value)
            return _by_value(fields) if level == "span" else _by_trace(fields, is_exact=True)
        case Compare(subject=Subject(level=level, kind="evaluation", key=key, part="label"), op="=", value=str(value)):
            label = "f.level = ? AND f.key = ? AND json_extract(f.value, '$.label') = ?"
            fields = Sql(f"{label} AND {LABELLED_OF_F}", (level, key, value))
            return _by_value(fields) if level == "span" else _by_trace(fields, is_exact=True)
        case Compare(subject=Subject(_, "user_id" | "session_id" as kind), op="=", value=str(value)) if _is_short(
            value
        ) and not _is_json(value):
            of_span, of_trace = (_fields(level, kind, "", value) for level in ("span", "trace"))
            return _by_trace(Sql(f"({of_span.sql}) OR ({of_trace.sql})", (*of_span.values, *of_trace.values)))
        case Compare(subject=Subject(kind="status"), op="=", value="ERROR"):
            return _ERRORS
        case Compare(subject=Subject(kind="trace_id"), op="=", value=str(value)):
            return _by_ids((value,))
        case In(subject=Subject(kind="trace_id"), values=values) if all(isinstance(one, str) for one in values):
            return _by_ids(values)
        case IsNull(subject=Subject(kind="parent_id")):
            return _ROOTS
        case Compare(subject=Subject(kind="late_count"), op="=" | ">" | ">=" as op, value=value) if isinstance(
            value, int | float
        ) and (value > 0 or (value == 0 and op == ">")):
            return _LATE
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
        f"AND json_type(f.value) IN ({json_types(value)}) AND {INDEXED_OF_F}",
        (level, kind, key, value),
    )


# With CROSS JOIN, SQLite keeps the order of the tables, and so the order of the index.
_SPANS_OF_F: Final = Sql("fields AS f CROSS JOIN spans AS s ON s.trace_id = f.trace_id AND s.span_id = f.span_id")


def _by_value(fields: Sql) -> _Way:
    return _Way((_Driver(_SPANS_OF_F, "f", fields),), _counted(fields), is_exact=True)


def _by_trace(fields: Sql, *, is_exact: bool = False) -> _Way:
    source = Sql(
        f"(SELECT DISTINCT f.trace_id FROM fields AS f WHERE {fields.sql}) AS t "
        "CROSS JOIN spans AS s ON s.trace_id = t.trace_id",
        fields.values,
    )
    return _Way((_Driver(source, "s"),), _counted(fields), is_exact=is_exact, is_sorted=False)


def _by_ids(trace_ids: tuple[Scalar, ...]) -> _Way:
    source = Sql(
        "(SELECT DISTINCT value AS trace_id FROM json_each(?)) AS t CROSS JOIN spans AS s ON s.trace_id = t.trace_id",
        (json_text([*trace_ids]),),
    )
    # Traces that are named are few: before any other way, also one that finds nothing.
    return _Way((_Driver(source, "s"),), Sql("SELECT -1"), is_exact=True, is_sorted=False)


def _counted(fields: Sql) -> Sql:
    where, values = fields
    return Sql(f"SELECT count(*) FROM (SELECT 1 FROM fields AS f WHERE {where} LIMIT {RARE})", values)


# A late update may have made an error of a span, or made its error good, so the condition is checked all the same.
_ERRORS: Final = _Way(
    (
        _Driver(Sql("spans AS s INDEXED BY errors_by_start"), "s", Sql(f"s.{_ERROR}")),
        _Driver(Sql(f"{_SPANS_OF_F.sql} AND s.status_code <> 'ERROR'"), "f", Sql(_STATUS_OF_F)),
    ),
    Sql(
        f"SELECT (SELECT count(*) FROM (SELECT 1 FROM spans WHERE {_ERROR} LIMIT {RARE}))"
        f" + (SELECT count(*) FROM (SELECT 1 FROM fields AS f WHERE {_STATUS_OF_F} LIMIT {RARE}))"
    ),
)

# The spans of traces with late values. The condition checks which of these spans have one.
_LATE: Final = _Way(
    (_Driver(Sql("late_traces AS t CROSS JOIN spans AS s ON s.trace_id = t.trace_id"), "s"),),
    Sql(f"SELECT count(*) FROM (SELECT 1 FROM late_traces LIMIT {RARE})"),
    is_sorted=False,
)

_ROOTS: Final = _Way(
    (_Driver(Sql("spans AS s INDEXED BY roots_by_start"), "s", Sql("s.parent_id IS NULL")),),
    Sql(f"SELECT count(*) FROM (SELECT 1 FROM spans WHERE parent_id IS NULL LIMIT {RARE})"),
    is_exact=True,
)
