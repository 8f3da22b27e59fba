"""`POST /api/v1/filter`: whether a text is a filter, where its error is, and what can be written next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_metadata.errors import FilterError, StoreError
from otel_metadata.server import api_types
from otel_metadata.server.operations import Answer, Call, Operation, Problem
from otel_metadata.server.projects import visible_project
from otel_metadata.server.spans import names_in_use
from otel_metadata.store.filter.completion import Completion, InUse, completions
from otel_metadata.store.filter.language import parse

if TYPE_CHECKING:
    from otel_metadata.seams import SpanStore

_MAX_COMPLETIONS: Final = 50


async def _filter(call: Call) -> Answer:
    body: api_types.FilterText = call.body
    position = len(body.text) if body.position is None else min(body.position, len(body.text))
    project = visible_project(call.caller)
    store = call.service.store

    def read() -> list[Completion]:
        return completions(body.text, position, lambda wanted: _in_use(store, project, wanted))

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
