"""`POST /api/v1/filter`: whether a text is a filter, where its error is, and what can be written next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

from otel_metadata.errors import FilterError, StoreError
from otel_metadata.model.condition import IsNull, Not, Subject
from otel_metadata.model.record import SpanQuery
from otel_metadata.seams import SpanReads
from otel_metadata.server import api_types
from otel_metadata.server.operations import Answer, Call, Operation, Problem
from otel_metadata.server.projects import visible_project
from otel_metadata.server.spans import names_in_use
from otel_metadata.store.filter.completion import Completion, InUse, completions
from otel_metadata.store.filter.language import parse

if TYPE_CHECKING:
    from otel_metadata.model.condition import Scalar
    from otel_metadata.model.merge import Json
    from otel_metadata.model.record import SpanRecord
    from otel_metadata.seams import SpanStore

_MAX_COMPLETIONS: Final = 50

_SAMPLED_SPANS: Final = 200
_SAMPLED_MILLIS: Final = 200
_MAX_VALUES: Final = 20
_MAX_VALUE: Final = 100
_SCALARS: Final = (str, int, float)


async def _filter(call: Call) -> Answer:
    body: api_types.FilterText = call.body
    position = len(body.text) if body.position is None else min(body.position, len(body.text))
    project = visible_project(call.caller)
    store = call.service.store

    def read() -> list[Completion]:
        return completions(
            body.text, position, lambda wanted: _in_use(store, project, wanted), partial(_values_in_use, store, project)
        )

    found = await call.service.read(read)
    problem = _problem(body.text)
    return Answer(
        api_types.FilterAnswer(
            problem is None,
            problem,
            [api_types.Completion(one.text, one.kind, one.start, one.end) for one in found[:_MAX_COMPLETIONS]],
        )
    )


def _in_use(store: SpanStore, project: str | None, wanted: InUse) -> list[str]:
    try:
        return names_in_use(store, project, wanted.kind, wanted.level, wanted.prefix, _MAX_COMPLETIONS)
    except (Problem, StoreError):
        return []  # the words of the language are enough


def _values_in_use(store: SpanStore, project: str | None, subject: Subject) -> list[Scalar]:
    """Return values of the newest spans that have the subject, the commonest first."""
    value_of = _VALUES.get((subject.kind, subject.part))
    if value_of is None or not isinstance(store, SpanReads):
        return []
    query = SpanQuery(project=project, condition=Not(IsNull(subject)), limit=_SAMPLED_SPANS)
    try:
        found = store.search(query, timeout_millis=_SAMPLED_MILLIS).records
    except StoreError:
        return []
    values = (value_of(record, subject) for record in found)
    common = Counter(value for value in values if isinstance(value, _SCALARS) and len(f"{value}") <= _MAX_VALUE)
    return [value for value, _ in common.most_common(_MAX_VALUES)]


def _metadata(record: SpanRecord, subject: Subject) -> Json:
    return (record.metadata if subject.level == "span" else record.trace_metadata).get(subject.key)


def _label(record: SpanRecord, subject: Subject) -> Json:
    verdicts = record.evaluations if subject.level == "span" else record.trace_evaluations
    return verdicts[subject.key].label if subject.key in verdicts else None


_VALUES: Final[Mapping[tuple[str, str], Callable[[SpanRecord, Subject], Json]]] = {
    **{
        (kind, ""): lambda record, subject: getattr(record, subject.kind)
        for kind in ("name", "user_id", "session_id", "model", "project")
    },
    ("metadata", ""): _metadata,
    ("evaluation", "label"): _label,
}


def _problem(text: str) -> api_types.FilterProblem | None:
    try:
        parse(text)
    except FilterError as error:
        message = f"found {error.found}; expected {error.expected}."
        return api_types.FilterProblem(message, error.place, error.found, error.expected)
    return None


OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation(
        "POST",
        "/api/v1/filter",
        "check_filter",
        "Say whether a text is a filter, where its error is, and what can be written at a position.",
        _filter,
        "read",
        tag="reads",
        body=api_types.FilterText,
        answer=api_types.FilterAnswer,
    ),
)
