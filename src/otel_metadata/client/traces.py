"""`client.traces`: stored traces, one row each, and one of them: its spans, its outline, its history."""

from __future__ import annotations

import builtins
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import orjson

from otel_metadata.client.history import of_field, spans_at
from otel_metadata.client.page import Records, continued, record_to_dict
from otel_metadata.client.queries import check_timeout, goes_on, page_query, reads_of, store_of
from otel_metadata.errors import SpanNotFoundError
from otel_metadata.model.record import SpanQuery
from otel_metadata.model.span_ref import parse_trace_id
from otel_metadata.model.times import time_text

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping
    from uuid import UUID

    from otel_metadata.client.queries import Time
    from otel_metadata.delivery.destination import Destination
    from otel_metadata.model.evaluation import Annotation, Evaluation
    from otel_metadata.model.merge import Json
    from otel_metadata.model.record import OutlineSpan, SpanRecord, TraceRecord, ValueRecord
    from otel_metadata.seams import Clock, SpanStore


@final
class Traces:
    """The traces of one store."""

    def __init__(self, where: SpanStore | Destination, clock: Clock) -> None:
        """Read from a store.

        Args:
            where: Closed by whoever opened it.
            clock: Time.
        """
        self._where = where
        self._clock = clock

    def list(
        self,
        *,
        project: str | None = None,
        start_time: Time | None = None,
        end_time: Time | None = None,
        filter: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
        timeout_millis: float | None = None,
    ) -> TracePage:
        """Return one page of traces, newest root first.

        ```python
        for trace in client.traces.list(filter="trace.metadata.plan = 'free'"):
            print(trace.name, trace.latency_ms, trace.spans, trace.errors)
        ```

        A trace is listed once its root is stored: the span without a parent, and of several the one that started first.
        All arguments are about the root.

        Args:
            project: Only traces of this project: `openinference.project.name` of the resource, else `service.name`.
            start_time: Only traces that started then or later; without it the last seven days.
            end_time: Only traces that started before.
            filter: What must hold for the root; docs/filters.md has the language.
            limit: At most this many, at least 1.
            cursor: `next_cursor` of the page before, asked with the same arguments.
            timeout_millis: When to end the search, as for `client.spans.list`.

        Raises:
            ConfigurationError: The limit is not positive; a time, the project, the cursor or the timeout is invalid;
                the store has no such read.
            FilterError: The filter cannot be understood; the message points at the place.
            StoreError: The store cannot be read.
        """
        query = page_query(
            trace_id=None,
            project=project,
            start_time=start_time,
            end_time=end_time,
            filter=filter,
            limit=limit,
            cursor=cursor,
            now_ns=self._clock.wall_ns(),
        )
        check_timeout(timeout_millis)
        found = reads_of(store_of(self._where), "traces.list").traces(query, timeout_millis=timeout_millis)
        return TracePage(found.traces[:limit], *goes_on(query, limit, found.traces, found.searched_to))

    def get(self, trace_id: str | int | UUID, *, at: Time | None = None) -> Trace:
        """Return a trace with everything that was set on it and its spans.

        ```python
        before = client.traces.get(trace_id, at="2026-11-30T10:00:00Z")
        ```

        Args:
            trace_id: 32 hex digits, a UUID, or an integer.
            at: Show the trace as it was at this time: the spans that had started, each value as it was then. Without
                it, as it is now. See `client.spans.get`.

        Raises:
            ConfigurationError: *at* is not a time, or is before the start of the trace.
            InvalidSpanRefError: The id has another form.
            SpanNotFoundError: No span of the trace is stored.
            StoreError: The store cannot be read, or it keeps no history and *at* is given.
        """
        query = SpanQuery(parse_trace_id(trace_id).trace_id_hex, limit=None)
        return Trace(tuple(reversed(spans_at(store_of(self._where), query, at))))

    def history(self, trace_id: str | int | UUID, field: str | None = None) -> builtins.list[ValueRecord]:
        """Return the values that were set on a trace itself, as `client.spans.history` does of a span.

        Args:
            trace_id: 32 hex digits, a UUID, or an integer.
            field: The name of one field, such as `trace.metadata.plan`; None for all.

        Raises:
            ConfigurationError: *field* is not the name of a field.
            InvalidSpanRefError: The id has another form.
            SpanNotFoundError: No span of the trace is stored.
            StoreError: The store cannot be read, or it keeps no history.
        """
        is_wanted, store = of_field(field), store_of(self._where)
        (span,) = spans_at(store, SpanQuery(parse_trace_id(trace_id).trace_id_hex, limit=1))
        return [*filter(is_wanted, store.history(span.trace_id))]

    def outline(self, trace_id: str | int | UUID) -> builtins.list[OutlineSpan]:
        """Return the spans of a trace without the values that were set on them, oldest start first.

        Much quicker than the spans themselves for a trace of thousands. The name and the status are those that
        `client.spans.get` shows.

        Args:
            trace_id: 32 hex digits, a UUID, or an integer.

        Raises:
            ConfigurationError: The store has no such read.
            InvalidSpanRefError: The trace id has another form.
            SpanNotFoundError: No span of the trace is stored.
            StoreError: The store cannot be read.
        """
        wanted = parse_trace_id(trace_id).trace_id_hex
        store = store_of(self._where)
        found = reads_of(store, "traces.outline").outline(wanted)
        if not found:
            raise SpanNotFoundError(wanted, f"{store}")
        return found


@final
@dataclass(frozen=True, slots=True)
class Trace(Records["SpanRecord"]):
    """A stored trace: a sequence of its spans, earliest start first.

    Attributes:
        spans: At least one.
    """

    spans: tuple[SpanRecord, ...]

    @property
    def _records(self) -> tuple[SpanRecord, ...]:
        return self.spans

    @property
    def trace_id(self) -> str:
        """32 hex digits."""
        return self.spans[0].trace_id

    @property
    def root(self) -> SpanRecord:
        """The first span without a parent; if none is stored, the first span."""
        return next((span for span in self.spans if span.parent_id is None), self.spans[0])

    @property
    def name(self) -> str | None:
        """The name that was set on the trace, or None."""
        return self.spans[0].trace_name

    @property
    def metadata(self) -> Mapping[str, Json]:
        """What was set on the trace; `trace_metadata` of its spans."""
        return self.spans[0].trace_metadata

    @property
    def tags(self) -> tuple[str, ...]:
        """Its tags, in the order in which they were first set."""
        return self.spans[0].trace_tags

    @property
    def input(self) -> Json:
        """The input that was set on the trace, or None."""
        return self.spans[0].trace_input

    @property
    def output(self) -> Json:
        """The output that was set on the trace, or None."""
        return self.spans[0].trace_output

    @property
    def evaluations(self) -> Mapping[str, Evaluation]:
        """By name."""
        return self.spans[0].trace_evaluations

    @property
    def annotations(self) -> tuple[Annotation, ...]:
        """In the order in which they were made."""
        return self.spans[0].trace_annotations

    def to_dict(self) -> dict[str, Json]:
        """Return `{"trace_id": ..., "spans": [...]}`, each span as `client.spans.list().to_dict()` has it."""
        return {"trace_id": self.trace_id, "spans": [record_to_dict(span) for span in self.spans]}


@final
@dataclass(frozen=True, slots=True)
class TracePage(Records["TraceRecord"]):
    """Traces, newest root first; a sequence of them.

    Attributes:
        traces: At most `limit` traces.
        next_cursor: The value of `list(cursor=)` for the next page; None on the last page.
        searched_to: The time down to which the page shows every trace, if `timeout_millis` was over before the page was
            full; otherwise None.
    """

    traces: tuple[TraceRecord, ...]
    next_cursor: str | None = None
    searched_to: dt.datetime | None = None

    @property
    def _records(self) -> tuple[TraceRecord, ...]:
        return self.traces

    def to_dict(self) -> dict[str, Json]:
        """Return `{"traces": [...], "next_cursor": ...}`, each trace as `trace_to_dict` has it.

        A page that ended early has `searched_to` as well, an ISO 8601 text.
        """
        traces: builtins.list[Json] = [trace_to_dict(trace) for trace in self.traces]
        return {"traces": traces, **continued(self.next_cursor, self.searched_to)}

    def to_json(self) -> str:
        """Return the JSON text of `to_dict()`, in one line."""
        return orjson.dumps(self.to_dict()).decode()


def trace_to_dict(trace: TraceRecord) -> dict[str, Json]:
    """Return a trace as a JSON object, under the names of `TraceRecord`; times as ISO 8601 texts in UTC."""
    return {
        "trace_id": trace.trace_id,
        "root_span_id": trace.root_span_id,
        "name": trace.name,
        "project": trace.project,
        "start_time": time_text(trace.start_ns),
        "end_time": time_text(trace.end_ns),
        "latency_ms": trace.latency_ms,
        "status_code": trace.status_code,
        "spans": trace.spans,
        "errors": trace.errors,
        "late_values": trace.late_values,
        "evaluations": {name: verdict.to_json() for name, verdict in trace.evaluations.items()},
    }
