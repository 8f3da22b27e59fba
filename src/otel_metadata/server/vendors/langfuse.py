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

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, get_args
from uuid import uuid4

from otel_metadata.live.values import masked
from otel_metadata.model.evaluation import Evaluation, Source
from otel_metadata.model.merge import FieldName, Json
from otel_metadata.model.value import clean, clean_key
from otel_metadata.server.operations import JSON, Answer, Call, Operation, Problem
from otel_metadata.server.vendors.bodies import check_project, fields_of, json_of

_TRACE_ID: Final = re.compile("[0-9a-f]{32}")
_SPAN_ID: Final = re.compile("[0-9a-f]{16}")

_NUMBERS: Final = frozenset({"NUMERIC", "BOOLEAN"})
_TEXTS: Final = frozenset({"CATEGORICAL", "TEXT", "CORRECTION"})
_SOURCES: Final[tuple[Source, ...]] = get_args(Source)

_SOURCE_KEY: Final = "otel_metadata.source"
_LABEL_KEY: Final = "otel_metadata.label"
"""Keys in the metadata of a score for what a score has no member for; our own exporter to Langfuse writes them."""


class Score(NamedTuple):
    """What a score says.

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


def score_of(found: object) -> Score:
    """Read a score.

    Raises:
        Problem: 400: it is not a score, or not one of a trace or span.
    """
    if not isinstance(found, dict):
        raise _refused("score", "another JSON value", "an object")
    name = found.get("name")
    if not isinstance(name, str) or not name:
        raise _refused("name", _shown(name), "a text that is not empty")
    if found.get("traceId") is None:
        raise Problem(
            400, f"Score {name[:100]!r} names no trace; expected traceId: verdicts on sessions are not stored."
        )
    trace_id = _id(found, "traceId", _TRACE_ID, "32 hexadecimal digits")
    of_span = found.get("observationId") is not None
    span_id = _id(found, "observationId", _SPAN_ID, "16 hexadecimal digits") if of_span else ""
    key = clean_key(name, [], "evaluation")
    evaluation = _evaluation(key, found)
    values = {("span" if of_span else "trace", "evaluation", key): evaluation.to_json()}
    identifier = found.get("id")
    return Score(identifier if isinstance(identifier, str) else f"{uuid4()}", trace_id, span_id, masked(values, []))  # type: ignore[arg-type] # the level is one of two


def _evaluation(name: str, found: Mapping[str, Any]) -> Evaluation:
    value = found.get("value")
    # An integer beyond 64 bits is no number that can be stored.
    is_number = isinstance(clean(value, [], "value"), int | float) and not isinstance(value, bool)
    kind = found.get("dataType") or ("NUMERIC" if is_number else "CATEGORICAL")
    if not isinstance(kind, str) or kind not in _NUMBERS | _TEXTS:
        raise _refused("dataType", _shown(kind), ", ".join(sorted(_NUMBERS | _TEXTS)))
    if kind in _NUMBERS and not is_number:
        raise _refused("value", _shown(value), f"a number for {kind}")
    if kind == "BOOLEAN" and value not in (0, 1):
        raise _refused("value", _shown(value), "0 or 1 for BOOLEAN")
    if kind in _TEXTS and not isinstance(value, str):
        raise _refused("value", _shown(value), f"a text for {kind}")
    comment = found.get("comment")
    if comment is not None and not isinstance(comment, str):
        raise _refused("comment", _shown(comment), "a text")
    given = found.get("metadata")
    metadata = clean(given, [], "metadata") if isinstance(given, dict) else {}
    kept = dict(metadata) if isinstance(metadata, dict) else {}
    told = kept.pop(_SOURCE_KEY, "human" if found.get("source") == "ANNOTATION" else "code")
    source: Source = next((one for one in _SOURCES if one == told), "code")
    label = kept.pop(_LABEL_KEY, None)
    if kind == "BOOLEAN":
        label = "true" if value else "false"
    elif kind in _TEXTS:
        label = clean(value, [], "label")
    return Evaluation(
        name,
        score=value if kind in _NUMBERS else None,
        label=label if isinstance(label, str) else None,
        explanation=f"{clean(comment, [], 'comment')}" if comment is not None else None,
        source=source,
        metadata=kept or None,
    )


def _id(found: Mapping[str, Any], name: str, form: re.Pattern[str], expected: str) -> str:
    text = found.get(name)
    digits = text.lower().replace("-", "") if isinstance(text, str) else ""
    if form.fullmatch(digits) is None or not digits.strip("0"):
        raise _refused(name, _shown(text), expected)
    return digits


def _shown(value: object) -> str:
    return repr(value)[:60]


def _refused(name: str, got: str, expected: str) -> Problem:
    return Problem(400, f"{name} is {got}; expected {expected}.", pointer=f"/{name}", expected=expected)


async def create_scores(call: Call) -> Answer:
    """Store one score, or each of a list that can be stored."""
    found = json_of(call.body, 400)
    if not isinstance(found, list):
        (score,) = await _stored(call, [score_of(found)])
        return Answer({"id": score.id})
    scores, errors = [], []
    for one in found:
        try:
            scores.append(score_of(one))
        except Problem as problem:
            errors.append({"message": problem.title})
    await _stored(call, scores)
    if errors:
        return Answer({"accepted": len(scores), "rejected": len(errors), "errors": errors}, 207)
    return Answer({"message": "Accepted"}, 202)


async def _stored(call: Call, scores: list[Score]) -> list[Score]:
    for trace_id, span_id in {(score.trace_id, score.span_id) for score in scores}:
        await check_project(call, trace_id, span_id)
    # Each with a version of its own: of two of the same name the later in the list wins.
    patches = [(score.trace_id, score.span_id, fields_of(call, score.values)) for score in scores]
    if patches:
        await call.service.ingest((), patches)
    return scores


async def ingestion(call: Call) -> Answer:
    """Store the scores of a batch of events, as SDKs before version 5 send them; spans come through OTLP."""
    found = json_of(call.body, 400)
    batch = found.get("batch") if isinstance(found, dict) else None
    if not isinstance(batch, list):
        raise _refused("batch", "missing" if batch is None else _shown(batch), "a list of events")
    scores: list[Score] = []
    successes: list[Json] = []
    errors: list[Json] = []
    for event in batch:
        identifier = event.get("id") if isinstance(event, dict) else None
        try:
            if not isinstance(event, dict) or event.get("type") != "score-create":
                raise Problem(400, "Event type not accepted; expected score-create: spans come through OTLP.")
            scores.append(score_of(event.get("body")))
        except Problem as problem:
            errors.append({"id": identifier, "status": 400, "message": problem.title, "error": problem.title})
        else:
            successes.append({"id": identifier, "status": 201})
    await _stored(call, scores)
    return Answer({"successes": successes, "errors": errors}, 207)


async def projects(call: Call) -> Answer:
    """Name the project that the keys belong to, which the SDK takes for a valid login."""
    name = call.caller.project or "otel-metadata"
    organization: dict[str, Json] = {"id": "local", "name": "local"}
    return Answer({"data": [{"id": name, "name": name, "organization": organization, "metadata": {}}]})


def problem_body(problem: Problem) -> object:
    """Return a refusal in Langfuse's form."""
    return {"message": problem.title}


_NOT_A_SCORE: Final = {400: "the body is not JSON, or not a score"}

OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation(
        "POST",
        "/api/public/scores",
        "langfuseCreateScores",
        "Store one score (200), or a list of them (202, or 207 if some are refused).",
        create_scores,
        "traces:update",
        tag="langfuse",
        body=bytes,
        answer=bytes,
        answer_type=JSON,
        problems={**_NOT_A_SCORE, 202: "a list was stored", 207: "a part of a list was stored"},
        problem_body=problem_body,
    ),
    Operation(
        "POST",
        "/api/public/ingestion",
        "langfuseIngestion",
        "Store the scores of a batch of events.",
        ingestion,
        "traces:update",
        tag="langfuse",
        body=bytes,
        answer=bytes,
        answer_type=JSON,
        status=207,
        problems=_NOT_A_SCORE,
        problem_body=problem_body,
    ),
    Operation(
        "GET",
        "/api/public/projects",
        "langfuseProjects",
        "Say which project the keys belong to.",
        projects,
        "traces:write",
        tag="langfuse",
        answer=bytes,
        answer_type=JSON,
        problem_body=problem_body,
    ),
)
