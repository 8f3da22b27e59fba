"""`GET /api/v1/summary`: many traces in numbers, in parts that each take a short time and add up to the whole window.

A part is about whole rows: every trace, or span, of its part of the window is in it with everything that is counted. So
whoever adds the parts up has exact sums, and knows at each moment how far back they go.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, final

from otel_metadata.model import instrumented
from otel_metadata.model.condition import In, Subject
from otel_metadata.model.merge import json_text
from otel_metadata.model.record import SpanQuery
from otel_metadata.model.times import time_text
from otel_metadata.server import api_types
from otel_metadata.server.cursors import page_end, query_of_page
from otel_metadata.server.operations import Answer, Call, Operation, Problem
from otel_metadata.server.selection import (
    encoded,
    reads_of,
    width_of_bars,
)
from otel_metadata.store.reads import NO_PARENT, both

if TYPE_CHECKING:
    from otel_metadata.model.evaluation import Evaluation
    from otel_metadata.model.merge import Json
    from otel_metadata.model.record import SpanRecord
    from otel_metadata.seams import Clock, SpanReads

_BUCKETS_PER_OCTAVE: Final = 8
"""A latency is known to 9 %, and a million of them are some dozen numbers."""

_FIRST_ROWS: Final = 10
_FIRST_MILLIS: Final = 2_000
_ROWS_AT_ONCE: Final = 50
_MAX_SPANS_AT_ONCE: Final = 5_000

_MAX_GROUPS: Final = 200
_MAX_LABELS: Final = 200
_MAX_TEXT: Final = 200

_OF_A_MODEL: Final = frozenset({"LLM", "EMBEDDING"})
"""Kinds whose tokens count: an agent repeats the sum of its calls."""

_PLAIN: Final = frozenset({"project", "name", "model", "user_id", "session_id"})
_METADATA: Final = "metadata."


@final
class _Group:
    """What the spans with one value add up to."""

    def __init__(self) -> None:
        self.calls = self.input_tokens = self.output_tokens = 0
        self.cost = 0.0


@final
class _Sums:
    """The numbers of a part."""

    def __init__(self, by: str) -> None:
        self._by = by
        self.latencies: dict[int, Counter[int]] = {}
        self.errors: Counter[int] = Counter()
        self.verdicts: dict[
            tuple[str, str | None], tuple[int, int, float]
        ] = {}  # how many, those with a score, its sum
        self.groups: dict[str | None, _Group] = {}

    def add_row(self, record: SpanRecord, bar: int) -> None:
        millis = max(0, record.span.end_ns - record.span.start_ns) / 1e6
        bucket = math.floor(math.log2(max(millis, 1e-6)) * _BUCKETS_PER_OCTAVE)
        self.latencies.setdefault(bar, Counter())[bucket] += 1
        self.errors[bar] += _is_error(record.status_code)

    def add_span(self, record: SpanRecord, root: SpanRecord | None) -> None:
        """Add what was said of a span and what it has used.

        Args:
            record: The span.
            root: That of its trace, if it is known; the verdicts on the trace count there.
        """
        verdicts = [*record.evaluations.values()]
        if record.parent_id is None:
            verdicts += record.trace_evaluations.values()
        for verdict in verdicts:
            self._add_verdict(verdict)
        tokens_in, tokens_out, cost = _used(record)
        if not tokens_in and not tokens_out and not cost:
            return
        value = self._value(record, root)
        if value not in self.groups and len(self.groups) >= _MAX_GROUPS:
            value = _OTHERS
        group = self.groups.setdefault(value, _Group())
        group.calls += 1
        group.input_tokens += tokens_in
        group.output_tokens += tokens_out
        group.cost += cost

    def _add_verdict(self, verdict: Evaluation) -> None:
        key = (verdict.name, verdict.label)
        if key not in self.verdicts and len(self.verdicts) >= _MAX_LABELS:
            key = (_OTHERS, None)
        count, scored, total = self.verdicts.get(key, (0, 0, 0.0))
        if verdict.score is not None:
            scored, total = scored + 1, total + verdict.score
        self.verdicts[key] = count + 1, scored, total

    def _value(self, record: SpanRecord, root: SpanRecord | None) -> str | None:
        """Return the value of the span, else of its trace, else of the root of its trace, as text."""
        if self._by.startswith(_METADATA):
            key = self._by.removeprefix(_METADATA)
            for metadata in (record.metadata, record.trace_metadata, {} if root is None else root.metadata):
                if key in metadata:
                    return _text(metadata[key])
            return None
        of = record if self._by == "model" or root is None else root
        return _text(getattr(of, self._by))


_OTHERS: Final = "…"


def _used(record: SpanRecord) -> tuple[int, int, float]:
    """Return the tokens in and out of a span, and its cost."""
    attributes: Mapping[str, Json] = record.attributes
    of_calls = attributes if record.span_kind in _OF_A_MODEL else {}
    return (
        int(_first(instrumented.INPUT_TOKENS, of_calls)),
        int(_first(instrumented.OUTPUT_TOKENS, of_calls)),
        _first(instrumented.COST, of_calls) or _first(instrumented.COST_KEYS, record.metadata),
    )


def _first(names: Sequence[str], values: Mapping[str, Json]) -> float:
    return next((number for name in names if (number := _number(values.get(name)))), 0)


def _is_error(status: str | int) -> bool:
    """Tell whether a status is an error."""
    return status == "ERROR" or (isinstance(status, int) and status >= 400)


def _number(value: Json) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return 0
    return max(0, min(value, 1e15))


def _text(value: Any) -> str | None:
    return None if value is None else (value if isinstance(value, str) else json_text(value))[:_MAX_TEXT]


async def _summary(call: Call) -> Answer:
    given: api_types.SummaryOf = call.query
    if given.by not in _PLAIN and (not given.by.startswith(_METADATA) or given.by == _METADATA):
        expected = ", ".join(sorted(_PLAIN)) + ", or metadata.<key>"
        raise Problem(400, f"by is {given.by!r}; expected {expected}.", expected=expected)
    query = query_of_page(call, given)
    if query.end_ns is None:
        query = replace(query, end_ns=call.service.clock.wall_ns())
    reads = reads_of(call.service.store)
    part = _Part(reads, query, given, call.service.clock)
    return await call.service.read(part.answer)


@final
class _Part:
    """The reads of one part."""

    def __init__(self, reads: SpanReads, query: SpanQuery, given: api_types.SummaryOf, clock: Clock) -> None:
        self._reads, self._query, self._given, self._clock = reads, query, given, clock
        self._start_ns = query.start_ns or 0
        self._width_ns = width_of_bars(self._start_ns, query.end_ns or 0, given.bars)
        self._sums = _Sums(given.by)
        self._spans = 0
        self._is_whole = True
        self._end_ns = 0

    def answer(self) -> Answer:
        """Read, and return the numbers."""
        given, sums = self._given, self._sums
        self._end_ns = self._clock.monotonic_ns() + int(given.timeout_millis * 1e6)
        condition = self._query.condition
        if given.rows == "traces":
            condition = both(NO_PARENT, condition)
        # Half of the time: then comes what belongs to each row.
        found = self._reads.search(replace(self._query, condition=condition), timeout_millis=given.timeout_millis / 2)
        rows, searched_to = found.records, found.searched_to
        shown = rows[: given.limit]
        at, size = 0, _FIRST_ROWS
        while at < len(shown):
            some = shown[at : at + size]
            is_over = at and self._clock.monotonic_ns() >= self._end_ns
            # Each part gets on: its first rows have a time of their own.
            beside, is_whole = ((), False) if is_over else self._beside(some, 0 if at else _FIRST_MILLIS)
            if at and not is_whole:
                rows = shown = shown[:at]  # the next part begins with these
                searched_to = shown[-1].position
                break
            self._is_whole = self._is_whole and is_whole
            self._add(some, beside)
            at, size = at + size, _ROWS_AT_ONCE
        if len(rows) > len(shown):
            searched_to = shown[-1].position
        next_cursor, place = page_end(given, self._query, shown, searched_to)
        return encoded(
            api_types.Summary(
                counted=len(shown),
                spans=self._spans,
                width_ns=f"{self._width_ns}",
                bars=[self._bar(at) for at in sorted(sums.latencies)],
                verdicts=[
                    api_types.VerdictCount(name, label, count, scored, total)
                    for (name, label), (count, scored, total) in sums.verdicts.items()
                ],
                groups=[
                    api_types.UsageGroup(value, one.calls, one.input_tokens, one.output_tokens, one.cost)
                    for value, one in sums.groups.items()
                ],
                is_whole=self._is_whole,
                next_cursor=next_cursor,
                searched_to=place,
            )
        )

    def _bar(self, at: int) -> api_types.SummaryBar:
        start_ns, latencies = self._start_ns + at * self._width_ns, self._sums.latencies[at]
        return api_types.SummaryBar(
            start_time=time_text(start_ns),
            start_time_ns=f"{start_ns}",
            count=sum(latencies.values()),
            errors=self._sums.errors[at],
            latencies={f"{bucket}": count for bucket, count in sorted(latencies.items())},
        )

    def _beside(self, rows: Sequence[SpanRecord], least_millis: float) -> tuple[Sequence[SpanRecord], bool]:
        """Return what belongs to rows, and whether it is all: the spans of traces, or the roots of spans."""
        is_traces = self._given.rows == "traces"
        if not is_traces and not self._given.by.startswith(_METADATA):
            return (), True
        named = In(Subject("span", "trace_id"), tuple({one.trace_id for one in rows}))
        query = SpanQuery(
            project=self._query.project,
            condition=named if is_traces else both(NO_PARENT, named),
            limit=_MAX_SPANS_AT_ONCE,
        )
        left = (self._end_ns - self._clock.monotonic_ns()) / 1e6
        found = self._reads.search(query, timeout_millis=max(left, least_millis))
        return found.records, found.searched_to is None and len(found.records) < _MAX_SPANS_AT_ONCE

    def _add(self, rows: Sequence[SpanRecord], beside: Sequence[SpanRecord]) -> None:
        is_traces = self._given.rows == "traces"
        roots = {one.trace_id: one for one in (rows if is_traces else beside)}
        spans = beside if is_traces else rows
        for row in rows:
            self._sums.add_row(row, (row.span.start_ns - self._start_ns) // self._width_ns)
        for span in spans:
            self._sums.add_span(span, roots.get(span.trace_id))
        self._spans += len(spans)


OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation(
        "GET",
        "/api/v1/summary",
        "get_summary",
        "Count rows, errors, latencies and verdicts of a window, and sum tokens and cost, part by part.",
        _summary,
        "read",
        tag="reads",
        query=api_types.SummaryOf,
        answer=api_types.Summary,
        problems={501: "This store cannot answer it."},
    ),
)
