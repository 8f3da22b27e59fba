"""Refusals as JSON: RFC 9457, `application/problem+json`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from otel_metadata.errors import (
    ConfigurationError,
    FilterError,
    InvalidSpanRefError,
    MissingExtraError,
    SpanNotFoundError,
    StoreError,
    StoreUnsupportedError,
)
from otel_metadata.reporting import REPORTER
from otel_metadata.server.operations import Answer, Problem

if TYPE_CHECKING:
    from otel_metadata.server.operations import Refusal

PROBLEM_JSON: Final = "application/problem+json"


class ProblemDetails(msgspec.Struct, omit_defaults=True, frozen=True):
    """The body of a refusal.

    Attributes:
        title: What was got, and what was expected.
        status: The HTTP status.
        type: A URI; `about:blank` says that the status is all there is to know.
        pointer: The place in the body, as a JSON pointer (RFC 6901).
        expected: What would be right.
        position: The place in a text such as a filter, from 0.
    """

    title: str
    status: int
    type: str
    pointer: str | None = None
    expected: str | None = None
    position: int | None = None


def details(problem: Problem) -> ProblemDetails:
    """Return the body of a refusal in our own form."""
    return ProblemDetails(
        problem.title, problem.status, "about:blank", problem.pointer, problem.expected, problem.position
    )


def as_problem(problem: Problem, _headers: Mapping[str, str]) -> Answer:
    """Return the answer of a refusal in our own form."""
    return Answer(msgspec.json.encode(details(problem)), problem.status, PROBLEM_JSON)


def in_json(form: Callable[[Problem], object]) -> Refusal:
    """Return what makes the answer of a refusal whose JSON body *form* makes."""
    return lambda problem, _headers: Answer(form(problem), problem.status)


def overloaded(title: str, seconds: int = 1) -> Problem:
    """Return the refusal of a request that may succeed some seconds later."""
    return Problem(503, title, headers={"Retry-After": f"{seconds}"})


def problem_of(error: Exception) -> Problem | None:
    """Return the refusal that an error of ours means; None if it means that the server has failed."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, FilterError):
        title = f"Filter: found {error.found}; expected {error.expected}."
        return Problem(400, title, expected=error.expected, position=error.place)
    if isinstance(error, ConfigurationError):
        return Problem(400, f"{error}", expected=error.expected)
    if isinstance(error, InvalidSpanRefError):
        return Problem(400, f"{error}", expected=error.expected)
    if isinstance(error, SpanNotFoundError):
        return Problem(404, f"{error}")
    if isinstance(error, MissingExtraError | StoreUnsupportedError):
        return Problem(501, f"{error}")
    if isinstance(error, StoreError):
        return overloaded(f"{error}")
    return None


def failure(operation: str, error: Exception) -> Problem:
    """Log an error of our own, and return what the caller gets to see of it."""
    REPORTER.failed(f"server:{operation}", error)
    return Problem(500, "Internal error; the server's log has the details.")
