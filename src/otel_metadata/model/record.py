"""A stored span as a program reads it, and the query that selects spans.

These are values only; `store` decides how they are stored and found.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias, final, get_args

from otel_metadata.model import instrumented
from otel_metadata.model.evaluation import Annotation, Evaluation
from otel_metadata.model.merge import Fields, Json, Kind, Level, Version, json_text
from otel_metadata.model.times import time_text, utc

if TYPE_CHECKING:
    from otel_metadata.model.condition import Condition

PROJECT_NAMES = ("openinference.project.name", "service.name")
"""The resource attributes that name a span's project; the first one that is set counts.

Sources: OpenInference semantic conventions, "Resource attributes"; OpenTelemetry semantic conventions, "Service".
"""

Route: TypeAlias = Literal["live", "in_flight", "late", "import", "log"]
"""How a value reached a store. live: on its span, set before the span ended. in_flight: on its span, set after the span
ended. late: by an update of a stored span. import: from a file. log: from a table of spans."""

ROUTES: Final[tuple[Route, ...]] = get_args(Route)
"""Earliest moment first. A value that reaches a store by several routes keeps the first of them in this order."""

NamedKind: TypeAlias = Literal["metadata", "tag", "evaluation"]
"""The kinds of fields whose keys are names that people choose."""

# Of a value in a `repr`.
_SHOWN_CHARACTERS: Final = 60


class Position(NamedTuple):
    """A place in the order of spans: newest start first, of equal ones the higher ids.

    Attributes:
        start_ns: Wall nanoseconds.
        trace_id: 32 hex digits.
        span_id: 16 hex digits.
    """

    start_ns: int
    trace_id: str
    span_id: str


class StoredKey(NamedTuple):
    """The place where a span id was found.

    Attributes:
        trace_id: 32 hex digits.
        start_ns: Wall nanoseconds.
        end_ns: Wall nanoseconds.
    """

    trace_id: str
    start_ns: int
    end_ns: int


@final
class Located(NamedTuple):
    """Where a span or trace is stored, for somebody who sees one project only.

    Attributes:
        trace_id: 32 hex digits.
        is_own: Whether the span, or a span of the trace, is of the project.
    """

    trace_id: str
    is_own: bool


@final
@dataclass(frozen=True, slots=True)
class SpanQuery:
    """Which spans to read, in the order of `Position`.

    Attributes:
        trace_id: 32 hex digits, or None for any.
        span_id: 16 hex digits, or None for any.
        limit: At most this many, at least 1; None for all.
        project: Only spans of this project (`project_of`), or None for any.
        start_ns: Only spans that started at this time or later, in wall nanoseconds; None for any.
        end_ns: Only spans that started before this time; None for any.
        condition: Only spans for which this is true; None for any.
        after: Only spans behind this position, which is the last one of the page before.
        at_ns: Show spans as they were at this time, in wall nanoseconds: only spans that had started, each field with
            the value that it had then. None for now. What was never a field, such as an event, is shown as it is now,
            and a condition is about the values of now. A field is missing at a time before its oldest value in the
            history.
    """

    trace_id: str | None = None
    span_id: str | None = None
    limit: int | None = 100
    project: str | None = None
    start_ns: int | None = None
    end_ns: int | None = None
    condition: Condition | None = None
    after: Position | None = None
    at_ns: int | None = None


@final
@dataclass(frozen=True, slots=True)
class StoredSpan:
    """A span as OTLP has it, as one row.

    Attributes:
        trace_id: 32 hex digits.
        span_id: 16 hex digits.
        parent_id: 16 hex digits, or None for a root.
        trace_state: The W3C `tracestate` text, often empty.
        name: The span's name.
        kind: `INTERNAL`, `SERVER`, `CLIENT`, `PRODUCER` or `CONSUMER`.
        start_ns: Wall nanoseconds.
        end_ns: Wall nanoseconds.
        status_code: `UNSET`, `OK` or `ERROR`.
        status_message: A description, or None.
        attributes: The span's attributes without the canonical ones, which are fields.
        events: Each with `name`, `time_ns`, `attributes`.
        links: Each with `trace_id`, `span_id`, `attributes`.
        resource: The resource's attributes.
        scope_name: The instrumentation scope, or "".
        scope_version: Its version, or None.
    """

    trace_id: str
    span_id: str
    parent_id: str | None
    trace_state: str
    name: str
    kind: str
    start_ns: int
    end_ns: int
    status_code: str
    status_message: str | None
    attributes: Mapping[str, Json]
    events: tuple[Mapping[str, Json], ...]
    links: tuple[Mapping[str, Json], ...]
    resource: Mapping[str, Json]
    scope_name: str
    scope_version: str | None


@final
@dataclass(frozen=True, slots=True, repr=False)
class ValueRecord:
    """A value that a field of a span or trace has, or had.

    Attributes:
        level: `span` or `trace`.
        kind: `metadata`, `tag`, `evaluation`, …
        key: The metadata key, the tag, …; "" for the kinds of which a span has only one.
        value: The value.
        time_ns: When it was set, in wall nanoseconds; half of its version.
        writer: The number of the writer that set it; the other half.
        route: How it reached the store first; None if it was stored before routes were kept.
        author: The name of the writer, or None if nobody has told it.
        superseded_by: The version of the value that took its place; None for the current value. Of a tag the first
            version is the current one, so its other versions tell when the tag was set again.
        is_oldest_kept: Whether still older values of the field were dropped, because it had too many.
    """

    level: Level
    kind: Kind
    key: str
    value: Json
    time_ns: int
    writer: int
    route: Route | None
    author: str | None
    superseded_by: Version | None
    is_oldest_kept: bool = False

    @property
    def is_current(self) -> bool:
        """Whether it is the value that the field has now."""
        return self.superseded_by is None

    @property
    def time(self) -> dt.datetime:
        """When it was set, in UTC, to the microsecond; `time_ns` has the nanoseconds."""
        return utc(self.time_ns)

    @property
    def version(self) -> Version:
        """Its version, as `superseded_by` has that of another value."""
        return self.time_ns, self.writer

    def __repr__(self) -> str:
        """The value, and where it came from."""
        name = " ".join(filter(None, (self.level, self.kind, self.key)))
        text = json_text(self.value)
        value = text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
        by = f" by {self.author}" if self.author is not None else ""
        end = "" if self.is_current else ", superseded"
        return f"<ValueRecord {name} = {value}, {self.route or 'unknown route'}, {time_text(self.time_ns)}{by}{end}>"


@final
@dataclass(frozen=True, slots=True)
class Retained:
    """What a retention deleted, and what is left.

    Attributes:
        spans_deleted: Spans that were too old, or the oldest of a store that was too large.
        updates_deleted: Spans and traces that were updated as long ago, and are not in the store.
        stored_bytes: The size of what is stored now. The file may be larger: the next writes fill it again.
    """

    spans_deleted: int
    updates_deleted: int
    stored_bytes: int


@final
@dataclass(frozen=True, slots=True)
class SpanRecord:
    """A stored span with everything that was set on it, whenever it arrived.

    Attributes:
        trace_id: 32 hex digits.
        span_id: 16 hex digits.
        parent_id: 16 hex digits, or None for a root.
        name: The name it has now.
        kind: `INTERNAL`, `SERVER`, `CLIENT`, `PRODUCER` or `CONSUMER`.
        start_time: In UTC, to the microsecond; `span.start_ns` has the nanoseconds.
        end_time: In UTC, to the microsecond.
        status_code: `UNSET`, `OK` or `ERROR`, or the integer code that a late update gave it.
        status_message: A description, or None.
        attributes: The attributes that none of the members here shows.
        metadata: The span's metadata.
        trace_metadata: The metadata of its trace.
        trace_name: The name of its trace, or None.
        user_id: The user behind the trace, or None.
        session_id: The session the trace belongs to, or None.
        tags: The span's tags, in the order in which they were first set.
        trace_tags: The tags of its trace.
        input: The input, or None. Where no field has it, the input comes from the instrumentor's attributes: messages
            as JSON, or the text of the messages, one on each line.
        output: The output, or None; likewise.
        trace_input: The input of its trace as a whole, or None.
        trace_output: The output of its trace as a whole, or None.
        evaluations: By name.
        annotations: In the order in which they were made; one for each name and annotator.
        trace_evaluations: Those of its trace, by name.
        trace_annotations: Those of its trace, in the order in which they were made.
        span: The row as OTLP had it, before fields.
    """

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: str
    start_time: dt.datetime
    end_time: dt.datetime
    status_code: str | int
    status_message: str | None
    attributes: Mapping[str, Json]
    metadata: Mapping[str, Json]
    trace_metadata: Mapping[str, Json]
    trace_name: str | None
    user_id: str | None
    session_id: str | None
    tags: tuple[str, ...]
    trace_tags: tuple[str, ...]
    input: Json
    output: Json
    trace_input: Json
    trace_output: Json
    evaluations: Mapping[str, Evaluation]
    annotations: tuple[Annotation, ...]
    trace_evaluations: Mapping[str, Evaluation]
    trace_annotations: tuple[Annotation, ...]
    span: StoredSpan

    @property
    def project(self) -> str | None:
        """The project it belongs to, or None."""
        return project_of(self.span.resource)

    @property
    def span_kind(self) -> str | None:
        """Its kind in OpenInference's words (`LLM`, `TOOL`, …), from the attributes of any instrumentor, or None."""
        return instrumented.kind_of(self.attributes)

    @property
    def model(self) -> str | None:
        """The model that was asked, from the attributes of any instrumentor, or None."""
        return _text(instrumented.value_of(instrumented.MODEL, self.attributes, {}))

    @property
    def position(self) -> Position:
        """Its place in the order of spans."""
        return Position(self.span.start_ns, self.trace_id, self.span_id)


@final
@dataclass(frozen=True, slots=True)
class Found:
    """What a search has found.

    Attributes:
        records: Newest start first.
        searched_to: The position down to which all spans were looked at, if the time was over before the end of the
            window or the limit was reached; otherwise None.
    """

    records: tuple[SpanRecord, ...]
    searched_to: Position | None = None


class OutlineSpan(NamedTuple):
    """A span of a trace, without the values that were set on it: enough to draw a waterfall.

    Attributes:
        span_id: 16 hex digits.
        parent_id: 16 hex digits, or None for a root.
        name: The name it has now.
        kind: `INTERNAL`, `SERVER`, `CLIENT`, `PRODUCER` or `CONSUMER`.
        start_ns: Wall nanoseconds.
        end_ns: Wall nanoseconds.
        status_code: `UNSET`, `OK` or `ERROR`, or the integer code that a late update gave it.
    """

    span_id: str
    parent_id: str | None
    name: str
    kind: str
    start_ns: int
    end_ns: int
    status_code: str | int


@final
@dataclass(frozen=True, slots=True)
class TraceRecord:
    """A stored trace as one row of a list.

    The root is the span without a parent; of several the one that started first.

    Attributes:
        trace_id: 32 hex digits.
        root_span_id: 16 hex digits.
        name: The name of the trace, or of its root.
        project: The project of its root, or None.
        start_ns: When the root started, in wall nanoseconds.
        end_ns: When the root ended.
        status_code: The status of the root, as in `SpanRecord`.
        spans: The number of its spans.
        errors: The number of its spans whose status is `ERROR`.
        late_values: The number of current values of the trace and its spans whose route is `late`.
        evaluations: Those of the trace and of its root by name. Of one name that of the trace.
    """

    trace_id: str
    root_span_id: str
    name: str
    project: str | None
    start_ns: int
    end_ns: int
    status_code: str | int
    spans: int
    errors: int
    late_values: int
    evaluations: Mapping[str, Evaluation]

    @property
    def start_time(self) -> dt.datetime:
        """When the root started, in UTC, to the microsecond."""
        return utc(self.start_ns)

    @property
    def end_time(self) -> dt.datetime:
        """When the root ended, in UTC, to the microsecond."""
        return utc(self.end_ns)

    @property
    def latency_ms(self) -> float:
        """How long the root took, in milliseconds."""
        return (self.end_ns - self.start_ns) / 1e6

    @property
    def position(self) -> Position:
        """The place of its root in the order of spans."""
        return Position(self.start_ns, self.trace_id, self.root_span_id)


@final
@dataclass(frozen=True, slots=True)
class FoundTraces:
    """What a search for traces has found.

    Attributes:
        traces: Newest root first.
        searched_to: As in `Found`, for the roots.
    """

    traces: tuple[TraceRecord, ...]
    searched_to: Position | None = None


@final
@dataclass(frozen=True, slots=True)
class SpanCount:
    """The number of spans that a query selects, or how many were counted before the limit or the end of the time.

    Attributes:
        counted: The number of spans.
        is_exact: Whether these are all.
    """

    counted: int
    is_exact: bool

    def __str__(self) -> str:
        """`412`, or `10,000+` if there may be more."""
        return f"{self.counted:,}{'' if self.is_exact else '+'}"


class Bar(NamedTuple):
    """One part of a histogram over time.

    Attributes:
        start_ns: Where it starts, in wall nanoseconds; it ends where the next one starts.
        spans: The number of spans that started in it.
        errors: The number of those whose status is `ERROR`.
    """

    start_ns: int
    spans: int
    errors: int


@final
@dataclass(frozen=True, slots=True)
class Histogram:
    """Spans over time.

    Attributes:
        bars: Oldest first; all have the same width.
        searched_to: As in `Found`: spans before this one are not counted.
    """

    bars: tuple[Bar, ...]
    searched_to: Position | None = None


def project_of(resource: Mapping[str, Json]) -> str | None:
    """Return the project that a resource belongs to, or None."""
    named = (resource.get(name) for name in PROJECT_NAMES)
    return next((name for name in named if isinstance(name, str)), None)


def assemble(span: StoredSpan, fields: Fields) -> SpanRecord:
    """Return the record of a span: its row, with the fields of the span and of its trace laid over it."""
    ordered = sorted(fields.items(), key=lambda item: (item[1][1], item[0]))
    by_kind: dict[tuple[str, str], dict[str, Json]] = {}
    for (level, kind, key), (value, _) in ordered:
        by_kind.setdefault((level, kind), {})[key] = value

    def many(level: str, kind: str) -> dict[str, Json]:
        return by_kind.get((level, kind), {})

    def one(kind: str, level: str) -> Json:
        return many(level, kind).get("")

    def latest(kind: Kind) -> Json:
        # The value may have been set on the span or on its trace; the later one wins.
        levels: tuple[Level, Level] = ("trace", "span")
        found = [fields[level, kind, ""] for level in levels if (level, kind, "") in fields]
        return max(found, key=lambda field: field[1])[0] if found else None

    def evaluations(level: Level) -> dict[str, Evaluation]:
        return {key: Evaluation.from_json(key, value) for key, value in many(level, "evaluation").items()}

    def annotations(level: Level) -> tuple[Annotation, ...]:
        return tuple(Annotation.from_json(value) for value in many(level, "annotation").values())

    attributes = {**span.attributes, **many("span", "attribute")}

    # All names are searched at once: most spans have no attribute of an instrumentor, and a page has hundreds of spans.
    is_marked = bool(attributes) and instrumented.MARKED.search(" ".join(attributes)) is not None
    events = tuple(event for event in span.events if f"{event.get('name')}".startswith(instrumented.EVENTS))

    def own(kind: Kind, spelling: instrumented.Spelling) -> Json:
        held = many("span", kind)
        if held:
            return held[""]
        return instrumented.value_of(spelling, attributes, span.attributes, events) if is_marked or events else None

    return SpanRecord(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_id=span.parent_id,
        name=shown_name(one("name", "span"), span.name),
        kind=span.kind,
        start_time=utc(span.start_ns),
        end_time=utc(span.end_ns),
        status_code=shown_status(one("status", "span"), span.status_code),
        status_message=_text(one("status_message", "span")) or span.status_message,
        attributes=attributes,
        metadata=many("span", "metadata"),
        trace_metadata=many("trace", "metadata"),
        trace_name=_text(one("name", "trace")),
        user_id=_text(latest("user_id")),
        session_id=_text(latest("session_id")),
        tags=tuple(many("span", "tag")),
        trace_tags=tuple(many("trace", "tag")),
        input=own("input", instrumented.INPUT),
        output=own("output", instrumented.OUTPUT),
        trace_input=one("input", "trace"),
        trace_output=one("output", "trace"),
        evaluations=evaluations("span"),
        annotations=annotations("span"),
        trace_evaluations=evaluations("trace"),
        trace_annotations=annotations("trace"),
        span=span,
    )


def shown_name(name: Json, stored: str) -> str:
    """Return the name of a span: of a field if that is a text, else as it was stored."""
    return name if isinstance(name, str) else stored


def shown_status(status: Json, stored: str) -> str | int:
    """Return the status of a span: of a field if that is a word or an integer code, else as it was stored."""
    if isinstance(status, bool) or not isinstance(status, str | int):
        return stored
    return status.upper() if isinstance(status, str) else status


def _text(value: Json) -> str | None:
    """Return a text as it is, otherwise the JSON text of the value: a number for a user id is common."""
    return value if value is None or isinstance(value, str) else json_text(value)
