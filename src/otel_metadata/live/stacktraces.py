"""The stack trace of an exception that leaves many spans, one around the other, at a cost that grows with its length.

OpenTelemetry formats the whole traceback for each span that an exception leaves. That is slow when an exception leaves
hundreds of observed functions. Up to `_MAX_FRAMES` frames the text is OpenTelemetry's own. Beyond that, a span takes
the text of the span inside it and adds the new frames. A text longer than twice `_HALF` loses its middle, which the
spans inside have. The first span that an exception leaves always has all of it.

A chain of exceptions, each raised from the one that left the span inside, is handled like one exception.

Nothing is kept alive. The exception that was last seen on a thread is recognised by its id and by its type and message,
because Python uses ids again.
"""

from __future__ import annotations

import threading
import traceback
from types import TracebackType
from typing import Final, NamedTuple

_MAX_FRAMES: Final = 100
_HALF: Final = 8_192
_LEFT_OUT: Final = "  [Frames were left out here; the spans inside this one have them.]\n"
_HEADER: Final = "Traceback (most recent call last):\n"
# The texts that Python writes between two exceptions.
_CAUSE: Final = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT: Final = "\nDuring handling of the above exception, another exception occurred:\n\n"


class _Text(NamedTuple):
    """A stack trace: the exceptions before the last one, the frames of the last one, and its type and message."""

    before: str
    frames: str
    message: str


class _Seen(NamedTuple):
    """The exception that was last recorded on a thread.

    Attributes:
        error: The id of the exception.
        summary: The hash of its type and message.
        entry: The id of the first entry of its traceback.
        frames: How many frames it has, together with the exceptions before it.
        text: The recorded text, if it was not OpenTelemetry's own.
    """

    error: int
    summary: int
    entry: int
    frames: int
    text: _Text | None


class _OfThread(threading.local):
    seen: _Seen | None = None


_LAST: Final = _OfThread()


def type_of(error: BaseException) -> str:
    """Return the name of an exception's class, as OpenTelemetry writes it."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def bounded_stacktrace(error: BaseException) -> str | None:
    """Return the stack trace of an exception for a span that it leaves; None if OpenTelemetry should write its own.

    Args:
        error: The exception, on the thread on which it left the span inside.
    """
    entry, summary, seen = error.__traceback__, _summary_of(error), _LAST.seen
    before = _before(error)
    inner = error if seen is not None and seen.error == id(error) else before
    is_seen = (
        seen is not None and inner is not None and seen.error == id(inner) and seen.summary == hash(_summary_of(inner))
    )
    new = _length(entry, seen.entry if seen is not None and is_seen and inner is error else None)
    if seen is None or not is_seen or new is None:
        _LAST.seen = _Seen(id(error), hash(summary), id(entry), _length_of_all(error), None)
        return None
    frames = seen.frames + new
    text: _Text | None = None
    if frames > _MAX_FRAMES:
        if seen.text is None:
            text = _whole(error)
        elif inner is error:
            text = seen.text._replace(frames="".join(traceback.format_tb(entry, limit=new)) + seen.text.frames)
        else:
            between = _CAUSE if error.__cause__ is not None else _CONTEXT
            own = "".join(traceback.format_tb(entry))
            text = _Text(f"{''.join(seen.text)}{between}{_HEADER}", own, _message(error, summary))
        if text is not None:
            text = text._replace(before=_bounded(text.before), frames=_bounded(text.frames))
    _LAST.seen = _Seen(id(error), hash(summary), id(entry), frames, text)
    return "".join(text) if text is not None else None


def _before(error: BaseException) -> BaseException | None:
    """Return the exception that Python shows before this one."""
    if error.__cause__ is not None or error.__suppress_context__:
        return error.__cause__
    return error.__context__


def _summary_of(error: BaseException) -> str:
    return f"{type_of(error)}: {error}"


def _message(error: BaseException, summary: str) -> str:
    notes = getattr(error, "__notes__", None)
    lines = [summary, *(f"{note}" for note in notes)] if isinstance(notes, list) else [summary]
    return "".join(f"{line}\n" for line in lines)


def _length(entry: TracebackType | None, until: int | None = None) -> int | None:
    """Return how many frames a traceback has before the entry with the id *until*; None if no entry has it."""
    count = 0
    while entry is not None and id(entry) != until:
        count += 1
        entry = entry.tb_next
    return count if until is None or entry is not None else None


def _length_of_all(error: BaseException) -> int:
    count, known = 0, set[int]()
    last: BaseException | None = error
    while last is not None and id(last) not in known:
        known.add(id(last))
        count += _length(last.__traceback__) or 0
        last = _before(last)
    return count


def _whole(error: BaseException) -> _Text | None:
    """Return the whole stack trace; None for a group of exceptions, which is a tree."""
    read = traceback.TracebackException.from_exception(error)
    if getattr(read, "exceptions", None):
        return None
    lines, frames, message = list(read.format()), read.stack.format(), list(read.format_exception_only())
    before = lines[: len(lines) - len(frames) - len(message)]
    return _Text("".join(before), "".join(frames), "".join(message))


def _bounded(text: str) -> str:
    """Return a text without its middle if it is too long; it is cut between lines."""
    if len(text) <= 2 * _HALF + len(_LEFT_OUT):
        return text
    first, last = text[: text.rfind("\n", 0, _HALF) + 1], text[text.find("\n", len(text) - _HALF) + 1 :]
    return f"{first}{_LEFT_OUT}{last}"
