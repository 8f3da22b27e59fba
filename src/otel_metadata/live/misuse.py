"""Calls with an argument that is unknown, missing, or of the wrong type.

Python would raise a `TypeError` in the middle of a request. So the functions that run inside requests accept every
argument. One that does not fit is left out, and the receipt and a log line name it; the other arguments take effect.
Type checkers still report such a call: the catch-all parameters are `NoReturn`, and required ones have no default.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, TypeVar, final

from otel_metadata.live import live_settings as settings
from otel_metadata.model.contents import type_name
from otel_metadata.reporting import REPORTER

_F = TypeVar("_F", bound=Callable[..., Any])

_SPAN: Final = "update_current_span or update_span"
_TRACE: Final = "update_current_trace, update_trace or using_metadata"
_SCORE: Final = "score_current_span or score_span"
_ANNOTATION: Final = "annotate_current_span or annotate_span"

# For the note about an argument that was given to the wrong function: the functions that take it.
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

# A text that may be shown where a word of a short list was expected: it is a word too, not a key or a password.
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z_. -]{0,23}", re.ASCII)
_MAX_SHOWN: Final = 100_000


@final
class Misfit(str):
    """A note about an argument that does not fit. It contains no value, and is logged; other notes are not logged."""

    __slots__ = ()


def misfit(argument: str, got: str, expected: str, consequence: str = "it was left out") -> Misfit:
    """Return the note about an argument that does not fit.

    Args:
        argument: The argument's name.
        got: What the caller gave: see `kind_of` and `shown`.
        expected: What would have fitted.
        consequence: What the call did instead.
    """
    return Misfit(f"{argument}: got {got}; expected {expected}; {consequence}")


def kind_of(value: object) -> str:
    """Return the name of a value's type, which a message may contain whatever the value is."""
    return "None" if value is None else type_name(value)


def shown(value: object) -> str:
    """Return how a message may show a value that should have been one of a few words.

    A word or a small number is shown itself, of anything else the type.
    """
    if settings.in_force.mask is None:
        if type(value) is str and _WORD.fullmatch(value):
            return repr(value)
        if type(value) is int and abs(value) < _MAX_SHOWN:
            return str(value)
    return "another text" if type(value) is str else kind_of(value)


def requires_nothing(func: _F) -> _F:
    """Let a call that lacks a required argument reach the body, which gets None for that argument."""
    # Type checkers do not see a default that is set here.
    code = func.__code__
    names = code.co_varnames[: code.co_argcount]
    func.__defaults__ = (None,) * (len(names) - (names[:1] == ("self",)))
    return func


def unknown_arguments(
    func: Callable[..., object], positional: tuple[object, ...], named: Mapping[str, object]
) -> list[str]:
    """Return a `Misfit` for each argument that *func* does not know.

    Args:
        func: The public function that was called.
        positional: Positional arguments for which *func* has no parameter.
        named: Keyword arguments for which *func* has no parameter.
    """
    if not positional and not named:
        return []
    function = func.__name__
    parameters = inspect.signature(func).parameters.values()
    keywords = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]
    known = [*(one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD), *keywords]
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


def log_misfits(function: str, notes: Sequence[str]) -> None:
    """Log the misfits among the notes of a call of *function*: at most one line a minute for each first misfit."""
    misfits = [note for note in notes if type(note) is Misfit]
    if not misfits:
        return
    first = misfits[0]
    subject = re.split(r"[.:]", first, maxsplit=1)[0]
    others = len(misfits) - 1
    more = f" {others} more problem{'s' if others > 1 else ''} in this call." if others else ""
    line = first if subject == function else f"{function}: {first}"
    REPORTER.tell(f"misuse:{function}:{subject}", f"{line}.{more}")
