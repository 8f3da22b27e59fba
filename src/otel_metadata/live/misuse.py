"""Calls that do not fit: what is done with an argument that is unknown, missing, or of the wrong type.

Python would raise a `TypeError` in the middle of a request. So the functions that run there take every argument: what
does not fit is left out, and named in the receipt and in a log line. The other arguments take effect. To type checkers
the parameters are `NoReturn`, and the required ones have no default, so that they report the call as before.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, TypeVar, final

from otel_metadata.live import live_settings as settings
from otel_metadata.model.contents import type_name
from otel_metadata.reporting import REPORTER

__all__ = ["Misfit", "kind_of", "misfit", "requires_nothing", "said", "shown", "unknown_arguments"]

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

# What may be shown of a text that should have been a word of a short list: it is a word, and no key or password.
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z_. -]{0,23}", re.ASCII)
_MAX_SHOWN: Final = 100_000


@final
class Misfit(str):
    """A note about an argument that does not fit. It names no value, and is logged; other notes are not."""

    __slots__ = ()


def misfit(argument: str, got: str, expected: str, consequence: str = "it was left out") -> Misfit:
    """Return the note about an argument that does not fit.

    Args:
        argument: Its name.
        got: What was given: see `kind_of` and `shown`.
        expected: What would have been right.
        consequence: What was done.
    """
    return Misfit(f"{argument}: got {got}; expected {expected}; {consequence}")


def kind_of(value: object) -> str:
    """Return what may be said of any value: its type."""
    return "None" if value is None else type_name(value)


def shown(value: object) -> str:
    """Return what may be said of a value where one of a few words was expected: a word or small number itself."""
    if settings.in_force.mask is None:
        if type(value) is str and _WORD.fullmatch(value):
            return repr(value)
        if type(value) is int and abs(value) < _MAX_SHOWN:
            return str(value)
    return "another text" if type(value) is str else kind_of(value)


def requires_nothing(func: _F) -> _F:
    """Let a call that lacks a required argument reach the body, which gets None for it."""
    # Set here, where type checkers do not see it.
    code = func.__code__
    names = code.co_varnames[: code.co_argcount]
    func.__defaults__ = (None,) * (len(names) - (names[:1] == ("self",)))
    return func


def unknown_arguments(func: Callable[..., object], positional: tuple[object, ...], named: Iterable[str]) -> list[str]:
    """Return a `Misfit` for each argument that *func* does not know.

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
    notes: list[str] = []
    if positional:
        count = len(positional)
        left_out = "1 positional argument was left out" if count == 1 else f"{count} positional arguments were left out"
        if keywords:
            example = "{...}" if keywords[0] == "metadata" else "..."
            remedy = f"expected keywords, as in {function}({keywords[0]}={example})"
        else:
            remedy = expected
        notes.append(Misfit(f"{function}: {left_out}; {remedy}"))
    for name in list(named)[:_MAX_NAMES]:
        if name in _HOMES:
            remedy = f"it belongs to {_HOMES[name]}"
        elif close := get_close_matches(name[:64], known, 1):
            remedy = f"did you mean {close[0]}?"
        else:
            remedy = expected
        notes.append(Misfit(f"{function}: the unknown argument {name[:64]!r} was left out; {remedy}"))
    return notes


def said(function: str, notes: Sequence[str]) -> None:
    """Log what of *notes* is about arguments of a call of *function*: one line a minute for each of them."""
    misfits = [note for note in notes if type(note) is Misfit]
    if not misfits:
        return
    first = misfits[0]
    subject = re.split(r"[.:]", first, maxsplit=1)[0]
    others = len(misfits) - 1
    more = f" {others} more problem{'s' if others > 1 else ''} in this call." if others else ""
    line = first if subject == function else f"{function}: {first}"
    REPORTER.tell(f"misuse:{function}:{subject}", f"{line}.{more}")
