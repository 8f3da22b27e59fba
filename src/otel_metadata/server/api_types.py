"""The JSON of the API under `/api/v1`: parameters, bodies and answers.

Integers of 64 bits (nanoseconds, writers) are texts, because JavaScript cannot hold them. A time is RFC 3339 with nine
digits of the second, and has the same time in nanoseconds beside it, under the same name with `_ns`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, field

from otel_metadata.model.evaluation import Source
from otel_metadata.model.merge import Kind, Level
from otel_metadata.model.record import NamedKind, Route

MAX_PAGE = 1_000
"""Spans, or traces, of one page."""

MAX_SPANS = 5_000
"""Spans, or updates, that one request may name."""

Hex = Annotated[str, Meta(description="Hex digits in lower case.")]
NsText = Annotated[str, Meta(pattern=r"^-?[0-9]{1,19}$", description="Nanoseconds since 1970 in UTC, as text.")]
WriterText = Annotated[str, Meta(pattern=r"^[0-9a-f]{1,16}$", description="The number of a writer, in hex digits.")]
Score = Annotated[float, Meta(description="A finite number.")]

_At = Annotated[
    str | None, Meta(description="Show values as they were at this time (RFC 3339). Without it, as they are now.")
]
_TraceId = Annotated[str | None, Meta(description="32 hex digits.")]
_Exact = Annotated[
    bool, Meta(description="Answer with the object of a line of `export.jsonl`, from which an import makes the same.")
]
_Field = Annotated[
    str | None, Meta(description="The name of one field, as a filter names it: `metadata.thumbs`, `eval.Correctness`.")
]
_Timeout = Annotated[
    float, Meta(ge=0, le=10_000, description="When to end the search, in milliseconds; the answer says how far it got.")
]


class _Query(Struct, forbid_unknown_fields=True):
    """Parameters after the `?`; others are refused."""


class _Body(Struct, forbid_unknown_fields=True):
    """The body of a request; other members are refused."""


class _Answer(Struct):
    """The body of an answer."""


# Parameters.


class Window(_Query):
    """Which spans."""

    filter: Annotated[str | None, Meta(description="A condition on the spans; docs/filters.md has the language.")] = (
        None
    )
    project: Annotated[str | None, Meta(description="Only spans of this project.")] = None
    start_time: Annotated[str | None, Meta(description="Only spans that started then or later (RFC 3339).")] = None
    end_time: Annotated[str | None, Meta(description="Only spans that started before (RFC 3339).")] = None


class TraceList(Window):
    """Which traces; everything is about the root of each."""

    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE, description="At most so many on the page.")] = 100
    cursor: Annotated[
        str | None, Meta(description="`next_cursor` of the page before, asked with the same parameters.")
    ] = None
    after: Annotated[
        str | None,
        Meta(description="Instead of a cursor: `<start_time_ns>,<trace_id>,<span_id>`, the span before the page."),
    ] = None
    trace_id: _TraceId = None
    timeout_millis: _Timeout = 200


class TraceRows(TraceList):
    """Which traces, and how much of each."""

    with_metadata: Annotated[bool, Meta(description="Add the metadata of each root, and of each trace.")] = False


class SpanList(TraceList):
    """Which spans."""

    span_id: Annotated[str | None, Meta(description="16 hex digits.")] = None
    at: _At = None
    exact: _Exact = False


class OneSpan(_Query):
    """Which span, and when."""

    trace_id: Annotated[
        str | None, Meta(description="32 hex digits, if several traces have the span id; without it the newest span.")
    ] = None
    at: _At = None
    exact: _Exact = False


class OneTrace(_Query):
    """When."""

    at: _At = None


class OfSpan(_Query):
    """Which span."""

    trace_id: Annotated[
        str | None, Meta(description="32 hex digits: of an id in several traces, or of a span that is not there yet.")
    ] = None


class SpanHistory(OfSpan):
    """Which values."""

    field: _Field = None
    stored: Annotated[bool, Meta(description="False: also values of a span that is not stored; needs `trace_id`.")] = (
        True
    )


class TraceHistory(_Query):
    """Which values."""

    field: _Field = None
    stored: Annotated[bool, Meta(description="False: also values of a trace of which no span is stored.")] = True


class LateValues(Window):
    """Which values; the window is that of their spans."""

    field: _Field = None
    limit: Annotated[int, Meta(ge=1, le=200, description="From at most so many spans, the newest.")] = 100
    timeout_millis: _Timeout = 200


class Address(_Query):
    """The server."""

    url: Annotated[
        str | None,
        Meta(description="The server's address over HTTP, as the SDK sees it. Without it, from Host."),
    ] = None


class Bars(Window):
    """Which spans, and how many bars."""

    trace_id: _TraceId = None
    bars: Annotated[int, Meta(ge=1, le=1_000, description="How many parts the window has.")] = 60
    timeout_millis: _Timeout = 200


class SummaryOf(TraceList):
    """Which rows, and how their numbers are parted."""

    rows: Annotated[
        Literal["traces", "spans"],
        Meta(description="What a row is: a trace, which the filter selects by its root, or a span."),
    ] = "traces"
    by: Annotated[
        str,
        Meta(
            max_length=1_000,
            description="What tokens and cost are summed by: project, name, model, user_id, session_id or "
            "metadata.<key>, of the span, else of its trace, else of the root of its trace.",
        ),
    ] = "project"
    bars: Annotated[int, Meta(ge=1, le=1_000, description="How many parts the window has.")] = 60


class Counting(Window):
    """Which spans, and how far to count."""

    trace_id: _TraceId = None
    limit: Annotated[int, Meta(ge=1, le=1_000_000, description="How far to count.")] = 10_000
    timeout_millis: _Timeout = 200


class Naming(_Query):
    """Which names."""

    kind: NamedKind
    level: Level = "span"
    prefix: Annotated[str, Meta(max_length=1_000, description="Only names that begin so.")] = ""
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 1_000


# Bodies.


class EvaluationInput(_Body):
    """A verdict by a program or a judge model; it needs a label, a score or an explanation."""

    label: str | None = None
    score: Score | None = None
    explanation: str | None = None
    source: Source = "code"
    metadata: dict[str, Any] | None = None


class AnnotationInput(_Body):
    """A note by a person; it needs a label, a score or a text."""

    label: str | None = None
    score: Score | None = None
    text: str | None = None
    annotator: str | None = None


class NamedAnnotation(AnnotationInput, kw_only=True):
    """A note by a person, with its name."""

    name: Annotated[str, Meta(min_length=1)]


class TraceUpdate(_Body):
    """What to set on a trace. What is left out, or null, stays; only `input` and `output` are set to null by it."""

    metadata: Annotated[dict[str, Any] | None, Meta(description="Merged at the first level.")] = None
    name: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    input: Any = UNSET
    output: Any = UNSET
    tags: Annotated[list[Annotated[str, Meta(min_length=1)]] | None, Meta(description="Texts to add.")] = None
    evaluations: Annotated[dict[str, EvaluationInput] | None, Meta(description="By name.")] = None
    annotations: list[NamedAnnotation] | None = None


class SpanUpdate(TraceUpdate):
    """What to set on a span. What is left out, or null, stays; only `input` and `output` are set to null by it."""

    attributes: Annotated[dict[str, Any] | None, Meta(description="Plain attributes.")] = None
    status: Annotated[str | int | None, Meta(description="`ok`, `error`, or an integer code such as 404.")] = None
    status_message: str | None = None


class ExactField(_Body, kw_only=True):
    """A field with its version: the greater one wins, as everywhere."""

    level: Level
    kind: Kind
    key: str = ""
    value: Any
    time_ns: NsText
    writer: WriterText


class BatchUpdate(SpanUpdate):
    """An update of one span or trace: plain members, or `fields`."""

    trace_id: Annotated[str | None, Meta(description="32 hex digits; null to look the span up.")] = None
    span_id: Annotated[str, Meta(description="16 hex digits; empty for the trace itself.")] = ""
    fields: list[ExactField] | None = None


class Batch(_Body):
    """Updates, each for itself: one that is refused leaves the others alone."""

    updates: Annotated[
        list[dict[str, Any]],
        Meta(max_length=MAX_SPANS, description="Objects with the members of `BatchUpdate`."),
    ]
    authors: Annotated[
        dict[WriterText, Annotated[str, Meta(max_length=200)]] | None,
        Meta(description="The names of the writers in `fields`."),
    ] = None
    route: Annotated[Route, Meta(description="How the values of `fields` got here.")] = "late"


class SpanKey(_Body):
    """A span."""

    span_id: Annotated[str, Meta(description="16 hex digits.")]
    trace_id: Annotated[str | None, Meta(description="32 hex digits; null to look the span up.")] = None


class Deletion(_Body):
    """Spans to delete, with everything that was set on them."""

    spans: Annotated[list[SpanKey], Meta(min_length=1, max_length=MAX_SPANS)]
    time_ns: Annotated[
        NsText | None,
        Meta(description="The version of the deletion, with `writer`; null for now. Older updates are refused after."),
    ] = None
    writer: WriterText | None = None


class SpanIds(_Body):
    """Spans to look up."""

    span_ids: Annotated[list[str], Meta(max_length=MAX_SPANS, description="16 hex digits each.")]


class Retention(_Body):
    """What to delete by age or size; at least one of them."""

    before: Annotated[str | None, Meta(description="Delete spans that started before this time (RFC 3339).")] = None
    older_than_seconds: Annotated[int, Meta(ge=0, le=10_000_000_000)] | None = None
    max_bytes: (
        Annotated[int, Meta(ge=1_000_000, le=(1 << 63) - 1, description="Then the oldest, until so much is stored.")]
        | None
    ) = None


class FilterText(_Body):
    """The text of a filter, and where somebody is writing in it."""

    text: Annotated[str, Meta(max_length=4_096)]
    position: Annotated[int, Meta(ge=0, le=4_096, description="From 0, in characters; null for the end.")] | None = None


# Answers.


class Place(_Answer):
    """A place in the order of spans: newest start first."""

    start_time: str
    start_time_ns: NsText
    trace_id: Hex
    span_id: Hex


class Evaluation(Struct, omit_defaults=True, kw_only=True):
    """A verdict; parts that it does not have are left out."""

    source: Source
    label: str | None = None
    score: float | None = None
    explanation: str | None = None
    metadata: dict[str, Any] | None = None


class Annotation(Struct, omit_defaults=True, kw_only=True):
    """A note; parts that it does not have are left out."""

    name: str
    label: str | None = None
    score: float | None = None
    text: str | None = None
    annotator: str | None = None


class Span(_Answer):
    """A span with everything that was set on it."""

    trace_id: Hex
    span_id: Hex
    parent_id: Hex | None
    trace_state: str
    project: str | None
    name: str
    kind: str
    span_kind: str | None
    start_time: str
    start_time_ns: NsText
    end_time: str
    end_time_ns: NsText
    latency_ms: float
    status_code: str | int
    status_message: str | None
    user_id: str | None
    session_id: str | None
    input: Any
    output: Any
    metadata: dict[str, Any]
    tags: list[str]
    evaluations: dict[str, Evaluation]
    annotations: list[Annotation]
    attributes: dict[str, Any]
    trace_name: str | None
    trace_input: Any
    trace_output: Any
    trace_metadata: dict[str, Any]
    trace_tags: list[str]
    trace_evaluations: dict[str, Evaluation]
    trace_annotations: list[Annotation]
    events: list[dict[str, Any]]
    links: list[dict[str, Any]]
    resource: dict[str, Any]
    scope_name: str
    scope_version: str | None


class ExactSpan(Struct):
    """A line of `export.jsonl`; docs/export.md has its other members."""

    trace_id: Hex = field(name="context.trace_id")
    span_id: Hex = field(name="context.span_id")
    name: str
    kind: str
    start_time: str
    end_time: str


class SpanPage(_Answer):
    """Spans, newest start first: with `exact` the objects of an export."""

    spans: list[Any]
    next_cursor: str | None
    searched_to: Place | None


class Trace(_Answer):
    """A trace as one row of a list."""

    trace_id: Hex
    root_span_id: Hex
    name: str
    project: str | None
    start_time: str
    start_time_ns: NsText
    end_time: str
    end_time_ns: NsText
    latency_ms: float
    status_code: str | int
    spans: int
    errors: int
    late_values: int
    evaluations: dict[str, Evaluation]
    metadata: Annotated[dict[str, Any], Meta(description="Of the root; empty unless it was asked for.")]
    trace_metadata: Annotated[dict[str, Any], Meta(description="Of the trace; empty unless it was asked for.")]


class TracePage(_Answer):
    """Traces, newest root first."""

    traces: list[Trace]
    next_cursor: str | None
    searched_to: Place | None


class OutlineSpan(_Answer):
    """A span of a trace, without the values that were set on it."""

    span_id: Hex
    parent_id: Hex | None
    name: str
    kind: str
    start_time: str
    start_time_ns: NsText
    end_time: str
    end_time_ns: NsText
    status_code: str | int


class TraceOutline(_Answer):
    """A trace: what was set on it, and its spans, oldest start first."""

    trace_id: Hex
    version: Annotated[str | None, Meta(description="The entity tag, without quotes; null with `at`.")]
    name: str | None
    user_id: str | None
    session_id: str | None
    metadata: dict[str, Any]
    tags: list[str]
    input: Any
    output: Any
    evaluations: dict[str, Evaluation]
    annotations: list[Annotation]
    spans: list[OutlineSpan]


class VersionOf(_Answer):
    """The version of a value."""

    time: str
    time_ns: NsText
    writer: WriterText


class Value(_Answer):
    """A value that a field has, or had."""

    field: str
    level: Level
    kind: Kind
    key: str
    value: Any
    time: str
    time_ns: NsText
    writer: WriterText
    author: str | None
    route: Route | None
    superseded_by: VersionOf | None
    is_oldest_kept: bool


class Values(_Answer):
    """Values, newest first."""

    values: list[Value]


class LateValue(_Answer):
    """A value that came late, and the one that it replaced; of the value, `superseded_by` says what replaced it."""

    trace_id: Hex
    span_id: Annotated[str, Meta(description="Hex digits in lower case; empty for a value of the trace itself.")]
    name: Annotated[str, Meta(description="Of the span, or of the trace.")]
    end_time: str
    end_time_ns: NsText
    value: Value
    replaced: Value | None


class LateValuePage(_Answer):
    """Values that came late, newest first."""

    values: list[LateValue]
    searched_to: Annotated[
        Place | None,
        Meta(description="The span down to which the window was searched; ask on with its start as `end_time`."),
    ]


class Environment(_Answer):
    """What points one SDK at the server."""

    name: str
    lines: list[str]


class Environments(_Answer):
    """What points SDKs at the server."""

    environments: list[Environment]
    has_grpc: Annotated[bool, Meta(description="Whether the server listens for OTLP over gRPC.")]
    grpc_port: Annotated[int | None, Meta(description="The port for OTLP over gRPC; null if it does not listen.")]


class Bar(_Answer):
    """One part of a histogram; it ends where the next one starts."""

    start_time: str
    start_time_ns: NsText
    spans: int
    errors: int


class SummaryBar(_Answer):
    """The rows of one part of the window; those parts that have none are left out."""

    start_time: str
    start_time_ns: NsText
    count: int
    errors: int
    latencies: Annotated[
        dict[str, int],
        Meta(description="How many rows have a latency of at least 2^(n/8) and less than 2^((n+1)/8) ms, by n."),
    ]


class VerdictCount(_Answer):
    """How often an evaluation has a label; on traces, those of all their spans."""

    name: str
    label: str | None
    count: int
    scored: Annotated[int, Meta(description="How many of them have a score.")]
    score_sum: float


class UsageGroup(_Answer):
    """What the calls of models with one value have used."""

    value: Annotated[str | None, Meta(description="Null for those without a value, `…` for those beyond 200 values.")]
    calls: int
    input_tokens: int
    output_tokens: int
    cost: Annotated[float, Meta(description="The sum of what the spans say, in whatever currency they say it.")]


class Summary(_Answer):
    """The numbers of a part of the window, newest first; those of the next part add to them."""

    counted: Annotated[int, Meta(description="Rows of this part.")]
    spans: Annotated[int, Meta(description="Spans that were read for it.")]
    width_ns: NsText
    bars: list[SummaryBar]
    verdicts: list[VerdictCount]
    groups: list[UsageGroup]
    is_whole: Annotated[bool, Meta(description="False if some traces had more spans than could be read in time.")]
    next_cursor: str | None
    searched_to: Annotated[Place | None, Meta(description="Where this part ends; null at the end of the window.")]


class Histogram(_Answer):
    """Spans over time, oldest first."""

    bars: list[Bar]
    width_ns: NsText
    searched_to: Place | None


class Count(_Answer):
    """How many spans there are, or how many were counted."""

    counted: int
    is_exact: bool


class Names(_Answer):
    """Names in use, in order."""

    names: list[str]


class FilterProblem(_Answer):
    """Why a filter is not understood."""

    message: str
    position: int
    found: str
    expected: str


class Completion(_Answer):
    """A text that may replace the characters from `start` to `end`."""

    text: str
    kind: Literal["name", "operator", "value", "word"]
    start: int
    end: int


class FilterAnswer(_Answer):
    """Whether the text is a filter, and what can be written at the position."""

    is_valid: bool
    problem: FilterProblem | None
    completions: list[Completion]


class FieldName(_Answer):
    """A field that was set."""

    level: Level
    kind: Kind
    key: str


class Receipt(_Answer):
    """What an update did. Every field has this version."""

    status: Literal["updated", "pending"]
    trace_id: Hex
    span_id: Hex
    fields: list[FieldName]
    time: str
    time_ns: NsText
    writer: WriterText
    author: str
    version: Annotated[str, Meta(description="The version of these fields: `<time_ns>-<writer>`.")]
    notes: Annotated[list[str], Meta(description="What the clean-up changed, such as a text that was cut.")]


class Outcome(Struct, omit_defaults=True, kw_only=True):
    """What became of one update."""

    status: Literal["updated", "pending", "failed"]
    trace_id: Hex | None = None
    span_id: Hex | None = None
    fields: Annotated[list[FieldName], Meta(description="Those of a plain update, all with this version.")] = []
    version: str | None = None
    message: str | None = None
    reason: str | None = None
    notes: list[str] = []


class Outcomes(_Answer):
    """One outcome for each update, in order."""

    outcomes: list[Outcome]
    updated: int
    pending: int
    failed: int
    author: str


class StoredKey(_Answer):
    """A span."""

    trace_id: Hex | None
    span_id: Hex


class FoundSpan(_Answer):
    """Where a span is stored."""

    trace_id: Hex
    span_id: Hex
    start_time: str
    start_time_ns: NsText
    end_time: str
    end_time_ns: NsText


class FoundSpans(_Answer):
    """The spans that are stored; of one id in several traces, the newest one."""

    spans: list[FoundSpan]


class Deleted(_Answer):
    """What was deleted."""

    deleted: list[StoredKey]
    not_deleted: list[StoredKey]
    time_ns: NsText
    writer: WriterText
    author: str


class ImportProblem(_Answer):
    """A part that could not be read."""

    line: int
    message: str


class Imported(_Answer):
    """What became of an import."""

    spans_imported: int
    updates_imported: int
    spans_failed: int
    lines_ignored: int
    problems: list[ImportProblem]
    found_instead: str | None


class Retained(_Answer):
    """What a retention deleted, and what is left."""

    spans_deleted: int
    updates_deleted: int
    stored_bytes: int
