"""Pages of `GET /api/v1/spans` and `traces`: the query of a page, its cursor, and how far a search has come."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import orjson

from otel_metadata.client.queries import goes_on, page_query
from otel_metadata.model.record import Position, SpanQuery
from otel_metadata.model.span_ref import parse_trace_id
from otel_metadata.model.times import time_text
from otel_metadata.server import api_types
from otel_metadata.server.operations import Problem
from otel_metadata.server.projects import visible_project
from otel_metadata.server.selection import span_key

if TYPE_CHECKING:
    from otel_metadata.model.record import SpanRecord, TraceRecord
    from otel_metadata.server.operations import Call

_INT64: Final = range(-(1 << 63), 1 << 63)


def query_of_page(call: Call, given: api_types.TraceList) -> SpanQuery:
    """Return the query of a page and of one more span, which tells whether another page follows.

    Raises:
        ConfigurationError: A time or the cursor is invalid.
        FilterError: The filter cannot be understood.
        InvalidSpanRefError: The trace id has another form.
        Problem: 400 for a cursor of another query, 403 for another project.
    """
    cursor = given.cursor
    if cursor is not None and given.after is not None:
        raise Problem(400, "Both cursor and after are given; expected one of them.")
    if cursor is not None:
        cursor, _, digest = cursor.rpartition(".")
        if digest != _query_digest(given):
            raise Problem(
                400,
                "cursor is of another query; expected the `next_cursor` of a page that was asked with the same filter, "
                "project, times and trace, or no cursor.",
                expected="the next_cursor of the page before",
            )
    query = page_query(
        trace_id=given.trace_id,
        project=visible_project(call.caller, given.project),
        start_time=given.start_time,
        end_time=given.end_time,
        filter=given.filter,
        limit=given.limit,
        cursor=cursor,
        now_ns=call.service.clock.wall_ns(),
    )
    if given.after is not None:
        query = replace(query, after=_position(given.after))
    return query


def page_end(
    given: api_types.TraceList,
    query: SpanQuery,
    found: Sequence[SpanRecord | TraceRecord],
    searched_to: Position | None,
) -> tuple[str | None, api_types.Place | None]:
    """Return `next_cursor` and `searched_to` of a page."""
    cursor, _ = goes_on(query, given.limit, found, searched_to)
    return (
        f"{cursor}.{_query_digest(given)}" if cursor is not None else None,
        place(searched_to) if searched_to is not None else None,
    )


def place(position: Position) -> api_types.Place:
    """Return a position as JSON has it."""
    return api_types.Place(time_text(position.start_ns), f"{position.start_ns}", position.trace_id, position.span_id)


def _query_digest(given: api_types.TraceList) -> str:
    """Return a short digest of what a cursor belongs to."""
    asked = [type(given).__name__, given.filter, given.project, given.start_time, given.end_time, given.trace_id]
    if isinstance(given, api_types.SpanList):
        asked += [given.span_id, given.at]
    return hashlib.blake2s(orjson.dumps(asked), digest_size=6).hexdigest()


def _position(text: str) -> Position:
    parts = text.split(",")
    try:
        start_ns, trace_id, span_id = parts
        if int(start_ns) not in _INT64:
            raise ValueError(start_ns)
        return Position(int(start_ns), parse_trace_id(trace_id).trace_id_hex, span_key(span_id, None).span_id)
    except ValueError:
        expected = "<start_time_ns>,<trace_id>,<span_id>"
        raise Problem(400, f"after is {text[:100]!r}; expected {expected}.", expected=expected) from None
