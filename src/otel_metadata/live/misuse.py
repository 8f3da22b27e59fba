"""Calls that do not fit: what is done with an argument that a function does not know, or that is missing.

Python would raise a `TypeError` in the middle of a request. So the functions that run there take every argument: what
they do not know is left out and named, in the receipt and in a log line; the rest of the call holds. To type checkers
the parameters are `NoReturn`, and the required ones have no default, so that they report the call as before.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Final, TypeVar

from otel_metadata.reporting import REPORTER

__all__ = ["requires_nothing", "said", "unknown_arguments"]

_F = TypeVar("_F", bound=Callable[..., Any])

_SPAN: Final = "update_current_span or update_span"
_TRACE: Final = "update_current_trace, update_trace or using_metadata"
_SCORE: Final = "score_current_span or score_span"
_ANNOTATION: Final = "annotate_current_span or annotate_span"

# Where an argument belongs that was given to the wrong function.
_HOMES: Final[Mapping[str, str]] = {
    "user_id": _TRACE,
    "session_id": _TRACE,
    **dict.fromkeys(("metadata", "tags", "input", "output", "name", "attributes", "status", "status_message"), _SPAN),
    **dict.fromkeys(("score", "explanation", "source"), _SCORE),
    "level": "score_span",
    "label": f"{_SCORE}, or {_ANNOTATION}",
    **dict.fromkeys(("text", "annotator"), _ANNOTATION),
    **dict.fromkeys(("as_type", "kind", "tracer"), "start_span or observe"),
}

_MAX_NAMES: Final = 8


def requires_nothing(func: _F) -> _F:
    """Let a call that lacks a required argument reach the body, which gets None for it."""
    # Set here, where type checkers do not see it.
    code = func.__code__
    names = code.co_varnames[: code.co_argcount]
    func.__defaults__ = (None,) * (len(names) - (names[:1] == ("self",)))
    return func


def unknown_arguments(func: Callable[..., object], positional: tuple[object, ...], named: Iterable[str]) -> list[str]:
    """Return a note for each argument that *func* does not know.

    Args:
        func: The public function that was called.
        positional: Arguments by position that it has no parameter for.
        named: Names of keyword arguments that it has no parameter for.
    """
    function = func.__name__
    parameters = inspect.signature(func).parameters.values()
    keywords = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    known = [
        *(one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD and one.name != "self"),
        *keywords,
    ]
    if len(known) > 1:
        expected = f"expected one of {', '.join(known)}"
    else:
        expected = f"its only argument is {known[0]}" if known else "it takes no arguments"
    notes = []
    if positional:
        count = len(positional)
        left_out = "1 positional argument was left out" if count == 1 else f"{count} positional arguments were left out"
        if keywords:
            example = "{...}" if keywords[0] == "metadata" else "..."
            remedy = f"expected keywords, as in {function}({keywords[0]}={example})"
        else:
            remedy = expected
        notes.append(f"{function}: {left_out}; {remedy}")
    for name in list(named)[:_MAX_NAMES]:
        if name in _HOMES:
            remedy = f"it belongs to {_HOMES[name]}"
        elif close := get_close_matches(name[:64], known, 1):
            remedy = f"did you mean {close[0]}?"
        else:
            remedy = expected
        notes.append(f"{function}: the unknown argument {name[:64]!r} was left out; {remedy}")
    return notes


def said(function: str, notes: list[str]) -> None:
    """Log *notes* about a call of *function*, if there are any: one line a minute for each function."""
    if notes:
        others = len(notes) - 1
        more = f" {others} more problem{'s' if others > 1 else ''} in this call." if others else ""
        REPORTER.tell(f"misuse:{function}", f"{notes[0]}.{more}")
