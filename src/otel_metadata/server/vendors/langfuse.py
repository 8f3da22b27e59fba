"""The calls of Langfuse's API that its SDK makes beside OTLP: projects and scores.

A score becomes an evaluation of its span, or of its trace if it names no observation. An evaluation is found by its
name, so a second score of the same name takes the place of the first one, whatever its id is.

| score | evaluation |
|---|---|
| `name` | its name |
| `value` of NUMERIC | score |
| `value` of BOOLEAN, 0 or 1 | score, and the label `false` or `true` |
| `value` of CATEGORICAL, TEXT, CORRECTION | label |
| `comment` | explanation |
| `metadata` | metadata |
| `source` ANNOTATION, or metadata `otel_metadata.source` | source |

The store has no verdicts on sessions and runs of data sets, so such scores are refused, each by itself.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias, get_args
from uuid import uuid4

import msgspec
from msgspec import Meta

from otel_metadata.live.values import masked
from otel_metadata.model.evaluation import Evaluation, Source
from otel_metadata.model.merge import FieldName, Json
from otel_metadata.model.value import MAX_KEY_CHARS
from otel_metadata.server.operations import Answer, Call, Operation, Problem
from otel_metadata.server.problems import in_json
from otel_metadata.server.schema_errors import invalid
from otel_metadata.server.vendors.bodies import fields_of, json_of, refusals, refuse_changed

_TRACE_ID: Final = re.compile("[0-9a-f]{32}")
_SPAN_ID: Final = re.compile("[0-9a-f]{16}")

_SOURCES: Final[tuple[Source, ...]] = get_args(Source)

_SOURCE_KEY: Final = "otel_metadata.source"
_LABEL_KEY: Final = "otel_metadata.label"
"""Keys in the metadata of a score for what a score has no member for; our own exporter to Langfuse writes them."""

# For the document; `_id` says in words what is wrong.
_TraceId: TypeAlias = Annotated[str, Meta(extra_json_schema={"pattern": "^[0-9a-f]{32}$"})]
_SpanId: TypeAlias = Annotated[str, Meta(extra_json_schema={"pattern": "^[0-9a-f]{16}$"})]
_Int64: TypeAlias = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]


class LangfuseScore(msgspec.Struct, rename="camel", frozen=True):
    """A score of a span or trace. Other members are ignored.

    Attributes:
        name: The name of the evaluation.
        value: A number for NUMERIC, 0 or 1 for BOOLEAN, else a text.
        trace_id: 32 hexadecimal digits.
        observation_id: 16 hexadecimal digits, or null for a score of the trace.
        id: For the answer; made up if it is missing.
        data_type: If it is missing, NUMERIC for a number and CATEGORICAL for a text.
        comment: The explanation of the evaluation.
        metadata: The metadata of the evaluation.
        source: ANNOTATION for the verdict of a person.
    """

    name: Annotated[str, Meta(min_length=1, max_length=MAX_KEY_CHARS)]
    value: _Int64 | float | str
    trace_id: _TraceId
    observation_id: _SpanId | None = None
    id: str | None = None
    data_type: Literal["NUMERIC", "BOOLEAN", "CATEGORICAL", "TEXT", "CORRECTION"] | None = None
    comment: str | None = None
    metadata: dict[str, Any] | None = None
    source: str | None = None


class LangfuseStored(msgspec.Struct, frozen=True):
    """The answer to one score.

    Attributes:
        id: Its id.
    """

    id: str


class LangfuseError(msgspec.Struct, frozen=True):
    """A refusal.

    Attributes:
        message: What was got, and what was expected.
    """

    message: str


class LangfuseListStored(msgspec.Struct, omit_defaults=True, frozen=True):
    """The answer to a list of scores: the message if all are stored (202), else the other members (207).

    Attributes:
        message: Accepted.
        accepted: How many are stored.
        rejected: How many are refused.
        errors: One for each refused score, in their order.
    """

    message: str | None = None
    accepted: int | None = None
    rejected: int | None = None
    errors: list[LangfuseError] | None = None


class LangfuseEvent(msgspec.Struct, frozen=True):
    """An event of a batch.

    Attributes:
        id: The id of the event.
        type: Another type is refused: spans come through OTLP.
        body: The score.
    """

    id: str
    type: Literal["score-create"]
    body: LangfuseScore


class LangfuseBatch(msgspec.Struct, frozen=True):
    """Events, each of which is stored or refused by itself."""

    batch: list[LangfuseEvent]


class LangfuseEventStored(msgspec.Struct, frozen=True):
    """An event that is stored.

    Attributes:
        id: The id of the event as it was sent.
        status: As of HTTP.
    """

    id: Any
    status: Literal[201] = 201


class LangfuseEventError(msgspec.Struct, frozen=True):
    """An event that is refused.

    Attributes:
        id: The id of the event as it was sent; null if it has none.
        status: As of HTTP.
        message: What was got, and what was expected.
        error: The same.
    """

    id: Any
    status: int
    message: str
    error: str


class LangfuseBatchStored(msgspec.Struct, frozen=True):
    """The answer to a batch."""

    successes: list[LangfuseEventStored]
    errors: list[LangfuseEventError]


class LangfuseOrganization(msgspec.Struct, frozen=True):
    """The organization of a project; this server has one."""

    id: str = "local"
    name: str = "local"


class LangfuseProject(msgspec.Struct, frozen=True):
    """The project of the keys."""

    id: str
    name: str
    organization: LangfuseOrganization = LangfuseOrganization()
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)


class LangfuseProjects(msgspec.Struct, frozen=True):
    """The projects that the keys belong to: one."""

    data: list[LangfuseProject]


class Score(NamedTuple):
    """A score as it is stored.

    Attributes:
        id: Its id, for the answer.
        trace_id: 32 hex digits.
        span_id: 16 hex digits, or "" for a score of the trace.
        values: The evaluation, by its field.
    """

    id: str
    trace_id: str
    span_id: str
    values: Mapping[FieldName, Json]


def score_of(document: object) -> Score:
    """Read a score.

    Raises:
        Problem: 400: it is not a score, or not one of a trace or span, or the store cannot keep it whole.
    """
    if isinstance(document, dict) and document.get("traceId") is None:
        raise Problem(400, "The score names no trace; expected traceId: verdicts on sessions are not stored.")
    try:
        score = msgspec.convert(document, LangfuseScore)
    except msgspec.ValidationError as error:
        raise invalid("The score", error, LangfuseScore, pointer="") from None
    trace_id = _id("traceId", score.trace_id, _TRACE_ID, "32 hexadecimal digits")
    span_id = ""
    if score.observation_id is not None:
        span_id = _id("observationId", score.observation_id, _SPAN_ID, "16 hexadecimal digits")
    for name in ("name", "value", "comment", "metadata"):
        refuse_changed(getattr(score, name), name, f"/{name}")
    field: FieldName = ("span" if span_id else "trace", "evaluation", score.name)
    values = masked({field: _evaluation(score).to_json()}, [])
    return Score(score.id if score.id is not None else f"{uuid4()}", trace_id, span_id, values)


def _evaluation(score: LangfuseScore) -> Evaluation:
    value = score.value
    kind = score.data_type or ("CATEGORICAL" if isinstance(value, str) else "NUMERIC")
    is_number = kind in {"NUMERIC", "BOOLEAN"}
    if is_number is isinstance(value, str):
        raise _refused("value", value, f"a {'number' if is_number else 'text'} for {kind}")
    if kind == "BOOLEAN" and value not in {0, 1}:
        raise _refused("value", value, "0 or 1 for BOOLEAN")
    metadata = dict(score.metadata or {})
    source: Source = "human" if score.source == "ANNOTATION" else "code"
    if metadata.get(_SOURCE_KEY) in _SOURCES:
        source = metadata.pop(_SOURCE_KEY)
    label = value if isinstance(value, str) else None
    if kind == "BOOLEAN":
        label = "true" if value else "false"
    elif is_number and isinstance(metadata.get(_LABEL_KEY), str):
        label = metadata.pop(_LABEL_KEY)
    return Evaluation(
        score.name,
        score=None if isinstance(value, str) else value,
        label=label,
        explanation=score.comment,
        source=source,
        metadata=metadata or None,
    )


def _id(name: str, text: str, form: re.Pattern[str], expected: str) -> str:
    digits = text.lower().replace("-", "")
    if form.fullmatch(digits) is None or not digits.strip("0"):
        raise _refused(name, text, expected)
    return digits


def _refused(name: str, got: object, expected: str) -> Problem:
    return Problem(400, f"{name} is {repr(got)[:60]}; expected {expected}.", pointer=f"/{name}", expected=expected)


async def create_scores(call: Call) -> Answer:
    """Store one score, or each of a list that can be stored."""
    document = await call.service.decode(functools.partial(json_of, call.body, 400))
    is_list = isinstance(document, list)
    answers = await _store(call, score_of, document if is_list else [document])
    problems = [one for one in answers if isinstance(one, Problem)]
    if not is_list:
        (one,) = answers
        if isinstance(one, Problem):
            raise one
        return Answer(LangfuseStored(one.id))
    if not problems:
        return Answer(LangfuseListStored("Accepted"), 202)
    errors = [LangfuseError(problem.title) for problem in problems]
    return Answer(LangfuseListStored(None, len(answers) - len(errors), len(errors), errors), 207)


async def ingestion(call: Call) -> Answer:
    """Store the scores of a batch of events, as SDKs before version 5 send them; spans come through OTLP."""
    document = await call.service.decode(functools.partial(json_of, call.body, 400))
    batch = document.get("batch") if isinstance(document, dict) else None
    if not isinstance(batch, list):
        raise _refused("batch", batch, "a list of events")
    stored = LangfuseBatchStored([], [])
    for event, answer in zip(batch, await _store(call, _score_of_event, batch), strict=True):
        identifier = event.get("id") if isinstance(event, dict) else None
        if isinstance(answer, Problem):
            stored.errors.append(LangfuseEventError(identifier, answer.status, answer.title, answer.title))
        else:
            stored.successes.append(LangfuseEventStored(identifier))
    return Answer(stored, 207)


def _score_of_event(event: object) -> Score:
    if not isinstance(event, dict) or event.get("type") != "score-create":
        raise Problem(400, "Event type not accepted; expected score-create: spans come through OTLP.")
    return score_of(event.get("body"))


async def _store(call: Call, read: Callable[[object], Score], documents: Sequence[object]) -> list[Score | Problem]:
    """Store what can be stored; return each score, or why it is refused."""
    answers = [_or_problem(read, document) for document in documents]
    keys = {(score.trace_id, score.span_id) for score in answers if isinstance(score, Score)}
    refused = await refusals(call, keys)
    answers = [refused.get((one.trace_id, one.span_id), one) if isinstance(one, Score) else one for one in answers]
    # Each with a version of its own: of two of the same name the later in the list wins.
    patches = [(one.trace_id, one.span_id, fields_of(call, one.values)) for one in answers if isinstance(one, Score)]
    if patches:
        await call.service.ingest((), patches, size=call.size)
    return answers


def _or_problem(read: Callable[[object], Score], document: object) -> Score | Problem:
    try:
        return read(document)
    except Problem as problem:
        return problem


async def projects(call: Call) -> Answer:
    """Name the project that the keys belong to, which the SDK takes for a valid login."""
    name = call.caller.project or "otel-metadata"
    return Answer(LangfuseProjects([LangfuseProject(name, name)]))


def problem_body(problem: Problem) -> object:
    """Return a refusal in Langfuse's form."""
    return LangfuseError(problem.title)


_operation = functools.partial(Operation, tag="langfuse", refusal=in_json(problem_body))

OPERATIONS: Final[tuple[Operation, ...]] = (
    _operation(
        "POST",
        "/api/public/scores",
        "langfuseCreateScores",
        "Store one score (200), or a list of them (202, or 207 if some are refused).",
        create_scores,
        "traces:update",
        body=bytes,
        body_schema=LangfuseScore | list[LangfuseScore],
        answer=LangfuseStored,
        other_answer=LangfuseListStored,
        problems={
            400: "the body is not JSON, or not a score",
            404: "the span or trace is not stored, and the token is for one project",
            202: "a list was stored",
            207: "a part of a list was stored",
        },
    ),
    _operation(
        "POST",
        "/api/public/ingestion",
        "langfuseIngestion",
        "Store the scores of a batch of events.",
        ingestion,
        "traces:update",
        body=bytes,
        body_schema=LangfuseBatch,
        answer=LangfuseBatchStored,
        status=207,
        problems={400: "the body is not a batch"},
    ),
    _operation(
        "GET",
        "/api/public/projects",
        "langfuseProjects",
        "Say which project the keys belong to.",
        projects,
        "traces:write",
        answer=LangfuseProjects,
    ),
)
