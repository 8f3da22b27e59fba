"""Reads of much that look at little: an outline, a list of traces, a number, a histogram, the names in use.

They read a few columns, from indexes where they can, and never the attributes or the fields of each span.
"""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import orjson

from otel_metadata.model.evaluation import Evaluation
from otel_metadata.model.record import (
    Bar,
    FoundTraces,
    Histogram,
    OutlineSpan,
    Position,
    SpanCount,
    TraceRecord,
    shown_name,
    shown_status,
)
from otel_metadata.store.reads import IS_ERROR, NO_PARENT, both
from otel_metadata.store.sqlite import query as sqlite_query
from otel_metadata.store.sqlite.condition import LATE, Sql
from otel_metadata.store.sqlite.search import fetched, rows, search

if TYPE_CHECKING:
    from otel_metadata.model.merge import Json, Level
    from otel_metadata.model.record import NamedKind, SpanQuery
    from otel_metadata.store.sqlite.query import Plan
    from otel_metadata.store.sqlite.read_pool import Deadline

_OUTLINE: Final = (
    "SELECT span_id, parent_id, name, kind, start_ns, end_ns, status_code FROM spans WHERE trace_id = ?"
    " ORDER BY start_ns, span_id"
)

# Few spans have a name or a status from an update.
_NAMES_AND_STATUSES: Final = (
    "SELECT f.span_id, f.kind, f.value FROM fields AS f INDEXED BY outline_fields_by_trace"
    f" WHERE f.trace_id = ? AND {sqlite_query.OUTLINE_FIELD_OF_F}"
)


def _value(level: Level, kind: str) -> str:
    place = "s.span_id" if level == "span" else "''"
    return (
        f"(SELECT f.value FROM fields AS f WHERE f.trace_id = s.trace_id AND f.span_id = {place}"
        f" AND f.level = '{level}' AND f.kind = '{kind}' AND f.key = '')"
    )


def _evaluations(level: Level) -> str:
    place = "s.span_id" if level == "span" else "''"
    return (
        "(SELECT json_group_object(f.key, json(f.value)) FROM fields AS f WHERE f.trace_id = s.trace_id"
        f" AND f.span_id = {place} AND f.level = '{level}' AND f.kind = 'evaluation')"
    )


_OF_TRACE: Final = (
    "spans AS o INDEXED BY roots_and_errors_by_trace"
    f" WHERE o.trace_id = s.trace_id AND ({sqlite_query.ROOT_OR_ERROR_OF_O})"
)
_ERRORS: Final = (
    f"(SELECT count(*) FROM {_OF_TRACE} AND o.status_code = 'ERROR' AND NOT EXISTS (SELECT 1 FROM fields AS f"
    " WHERE f.trace_id = o.trace_id AND f.span_id = o.span_id AND f.level = 'span' AND f.kind = 'status'"
    f" AND f.key = '' AND json_type(f.value) IN ('text', 'integer')))"
    " + (SELECT count(*) FROM fields AS f INDEXED BY outline_fields_by_trace CROSS JOIN spans AS o"
    " ON o.trace_id = f.trace_id AND o.span_id = f.span_id"
    f" WHERE f.trace_id = s.trace_id AND {sqlite_query.OUTLINE_FIELD_OF_F} AND f.kind = 'status'"
    f" AND json_type(f.value) = 'text' AND upper(json_extract(f.value, '$')) = 'ERROR')"
)
_TRACE: Final = ", ".join(
    (
        "s.start_ns",
        "s.trace_id",
        "s.span_id",
        "s.end_ns",
        "s.name",
        "s.status_code",
        "s.project",
        _value("trace", "name"),
        _value("span", "name"),
        _value("span", "status"),
        _evaluations("span"),
        _evaluations("trace"),
        "(SELECT count(*) FROM spans AS o WHERE o.trace_id = s.trace_id)",
        _ERRORS,
        f"(SELECT count(*) FROM fields AS f WHERE f.trace_id = s.trace_id AND {LATE})",
    )
)
_IS_FIRST_ROOT: Final = Sql(
    f"NOT EXISTS (SELECT 1 FROM {_OF_TRACE} AND o.parent_id IS NULL"
    " AND (o.start_ns, o.span_id) < (s.start_ns, s.span_id))"
)


def outline(connection: sqlite3.Connection, trace_id: str) -> list[OutlineSpan]:
    """Return the spans of a trace, oldest start first, with the name and the status that they have now."""
    spans = [OutlineSpan(*row) for row in connection.execute(_OUTLINE, (trace_id,))]
    names: dict[str, Json] = {}
    statuses: dict[str, Json] = {}
    for span_id, kind, value in connection.execute(_NAMES_AND_STATUSES, (trace_id,)):
        (names if kind == "name" else statuses)[span_id] = orjson.loads(value)
    if not names and not statuses:
        return spans
    return [
        span._replace(
            name=shown_name(names.get(span.span_id), span.name),
            status_code=shown_status(statuses.get(span.span_id), f"{span.status_code}"),
        )
        for span in spans
    ]


def traces(connection: sqlite3.Connection, query: SpanQuery, deadline: Deadline | None) -> FoundTraces:
    """Return the traces whose roots *query* selects, newest root first."""
    of_roots = replace(query, condition=both(NO_PARENT, query.condition))
    found, searched_to = rows(connection, of_roots, deadline, _TRACE, _IS_FIRST_ROOT)
    return FoundTraces(tuple(_trace(*row) for row in found), searched_to)


def _trace(
    start_ns: int,
    trace_id: str,
    span_id: str,
    end_ns: int,
    name: str,
    status_code: str,
    project: str | None,
    trace_name: str | None,
    given_name: str | None,
    given_status: str | None,
    of_root: str,
    of_trace: str,
    spans: int,
    errors: int,
    late_values: int,
) -> TraceRecord:
    own, given, status = (
        None if text is None else orjson.loads(text) for text in (trace_name, given_name, given_status)
    )
    verdicts = {**orjson.loads(of_root), **orjson.loads(of_trace)}
    return TraceRecord(
        trace_id,
        span_id,
        shown_name(own, shown_name(given, name)),
        project,
        start_ns,
        end_ns,
        shown_status(status, status_code),
        spans,
        errors,
        late_values,
        {key: Evaluation.from_json(key, value) for key, value in verdicts.items()},
    )


def count(connection: sqlite3.Connection, query: SpanQuery, deadline: Deadline | None) -> SpanCount:
    """Return the number of spans that *query* selects, counted up to its limit."""
    counted = 0

    def read(plan: Plan, until: Position | None) -> bool:
        nonlocal counted
        # One more tells whether there are more.
        limit = None if query.limit is None else query.limit + 1 - counted
        found = plan._replace(query=replace(plan.query, limit=limit)).select(None, until=until)
        ((number,),) = fetched(connection, Sql(f"SELECT count(*) FROM ({found.sql})", found.values))
        counted += number
        return query.limit is not None and counted > query.limit

    searched_to = search(connection, query, deadline, read)
    if query.limit is not None and counted > query.limit:
        return SpanCount(query.limit, is_exact=False)
    return SpanCount(counted, is_exact=searched_to is None)


def histogram(
    connection: sqlite3.Connection, query: SpanQuery, start_ns: int, width_ns: int, bars: int, deadline: Deadline | None
) -> Histogram:
    """Return how many of the spans that *query* selects started in each of *bars* parts of the time."""
    window = replace(query, start_ns=start_ns, end_ns=start_ns + width_ns * bars, limit=None)

    def of(wanted: SpanQuery) -> tuple[list[int], Position | None]:
        numbers = [0] * bars

        def read(plan: Plan, until: Position | None) -> bool:
            found = plan.select(None, until=until)
            grouped = f"SELECT (start_ns - ?) / ?, count(*) FROM ({found.sql}) GROUP BY 1"
            for at, number in fetched(connection, Sql(grouped, (start_ns, width_ns, *found.values))):
                numbers[at] += number
            return False

        return numbers, search(connection, wanted, deadline, read)

    # Errors first: they are found quickly, and a search gets on even if no time is left.
    errors, errors_to = of(replace(window, condition=both(IS_ERROR, query.condition)))
    spans, spans_to = of(window)
    ends = [position for position in (errors_to, spans_to) if position is not None]
    return Histogram(
        tuple(Bar(start_ns + at * width_ns, spans[at], errors[at]) for at in range(bars)), max(ends, default=None)
    )


_INDEXES_OF_NAMES: Final[dict[NamedKind, tuple[tuple[str, str], ...]]] = {
    "metadata": (("fields_by_value", sqlite_query.INDEXED_OF_F), ("fields_beside", sqlite_query.BESIDE_OF_F)),
    "tag": (("fields_by_value", sqlite_query.INDEXED_OF_F),),
    "evaluation": (("fields_by_label", sqlite_query.LABELLED_OF_F), ("fields_beside", sqlite_query.BESIDE_OF_F)),
}


def names(connection: sqlite3.Connection, kind: NamedKind, level: Level, prefix: str, limit: int) -> list[str]:
    """Return the keys in use that begin with *prefix*, in order, at most *limit*.

    Each is one step in an index, to the next key: SQLite's own DISTINCT would read all entries of each key.
    """
    found: set[str] = set()
    for index, where in _INDEXES_OF_NAMES[kind]:
        of_next = (
            f"SELECT f.key FROM fields AS f INDEXED BY {index} WHERE f.level = ? AND f.kind = '{kind}'"
            f" AND ({where}) AND f.key {{}} ORDER BY f.key LIMIT 1"
        )
        steps = (
            f"WITH RECURSIVE step (key) AS (SELECT ({of_next.format('>= ?')}) UNION ALL"
            f" SELECT ({of_next.format('> step.key')}) FROM step WHERE step.key IS NOT NULL)"
            " SELECT key FROM step WHERE substr(key, 1, ?) = ? LIMIT ?"
        )
        for (key,) in connection.execute(steps, (level, prefix, level, len(prefix), prefix, limit)):
            found.add(key)
    return sorted(found)[:limit]
