"""The names that a filter may use, and what each of them means.

What follows the level is one first-level key, including its dots: a filter does not look inside a value. So a word
about the origin of a value comes before its name, where no key can be: `metadata.a.changed_at` is a key.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, Literal, get_args

from otel_metadata.model.condition import COLUMN_KINDS, ORIGINS, Origin, Part, Subject
from otel_metadata.model.merge import Kind, Level

NAMES: Final[Mapping[str, Subject]] = {
    **{name: Subject("span", name) for name in COLUMN_KINDS},
    "name": Subject("span", "name"),
    "status_code": Subject("span", "status"),
    "status_message": Subject("span", "status_message"),
    "user_id": Subject("span", "user_id"),
    "session_id": Subject("span", "session_id"),
    "input": Subject("span", "input"),
    "output": Subject("span", "output"),
    "trace.name": Subject("trace", "name"),
    "trace.input": Subject("trace", "input"),
    "trace.output": Subject("trace", "output"),
    # As in the frames of Arize and Phoenix.
    "context.trace_id": Subject("span", "trace_id"),
    "context.span_id": Subject("span", "span_id"),
    "span_kind": Subject("span", "span_kind"),
    "model": Subject("span", "model"),
    "late_count": Subject("span", "late_count"),
    "trace.late_count": Subject("trace", "late_count"),
}

TAGS: Final[Mapping[str, Level]] = {"tags": "span", "trace.tags": "trace"}
"""The two names that may only be on the right of IN."""

# Attributes that are fields: a store does not keep them among the attributes.
_CANONICAL: Final[Mapping[str, Subject]] = {
    "input.value": Subject("span", "input"),
    "output.value": Subject("span", "output"),
    "user.id": Subject("span", "user_id"),
    "session.id": Subject("span", "session_id"),
}

PARTS: Final[Mapping[str, tuple[Literal["evaluation", "annotation"], tuple[Part, ...]]]] = {
    "eval": ("evaluation", ("label", "score", "explanation")),
    "annotation": ("annotation", ("label", "score", "text")),
}

_PATTERNS: Final = (
    "metadata.<key>",
    "attributes.<key>",
    "resource.<key>",
    "eval.<Name>.label|score|explanation",
    "annotation.<Name>.label|score|text",
    "trace.metadata.<key>",
    "trace.eval.…",
    "trace.annotation.…",
    *(f"{origin}.<name>" for origin in ORIGINS),
)

LISTED: Final = ", ".join((*NAMES, *TAGS, *_PATTERNS))
"""All names, for messages."""

# A longer name is not taken for a misspelled one.
_MAX_HINTED: Final = 100

LEVELS: Final = ("metadata", "attributes", "resource", "eval", "annotation", "trace", "context", *ORIGINS)
"""Words that come before a key, and are no names by themselves."""


class UnknownNameError(Exception):
    """A path is not a name. The parser catches it.

    Attributes:
        segment: Index of the segment that is wrong.
        expected: What would have been right.
    """

    def __init__(self, segment: int, expected: str) -> None:
        """Remember both."""
        self.segment = segment
        self.expected = expected
        super().__init__(expected)


def subject_of(segments: Sequence[str]) -> Subject:
    """Return the subject that a path names. `TAGS` have none.

    Args:
        segments: The parts between the dots, without quotes; at least one.

    Raises:
        UnknownNameError: There is no such name.
    """
    path = ".".join(segments)
    if path in NAMES:
        return NAMES[path]
    level: Level = "trace" if segments[0] == "trace" else "span"
    rest = segments[1:] if level == "trace" else segments
    first, key = (rest[0], ".".join(rest[1:])) if rest else ("", "")
    at = len(segments) - len(rest)
    for origin in ORIGINS:
        if first == origin:
            return _with_origin(origin, level, rest[1:])
    if first in PARTS:
        return _verdict(level, rest, at)
    if first == "metadata":
        return Subject(level, "metadata", _key(key, first, at))
    if level == "span" and first == "resource":
        return Subject(level, "resource", _key(key, first, at))
    if level == "span" and first == "attributes":
        return _attribute(_key(key, first, at))
    raise UnknownNameError(at if level == "trace" and rest else 0, _suggestion(path, segments))


def _key(key: str, first: str, at: int) -> str:
    if not key:
        raise UnknownNameError(at, f"{first}.<key>, or IS NULL of each key: {first} as a whole is not compared")
    return key


def _attribute(key: str) -> Subject:
    if key in _CANONICAL:
        return _CANONICAL[key]
    head, _, rest = key.partition(".")
    return Subject("span", "metadata", rest) if head == "metadata" and rest else Subject("span", "attribute", key)


def _with_origin(origin: Origin, level: Level, named: Sequence[str]) -> Subject:
    """Return the origin of the value that *named* names.

    Args:
        origin: The word before the name.
        level: The level that was named before that word.
        named: The segments after it.
    """
    path = ".".join(named)
    if level == "trace":
        raise UnknownNameError(1, f"{origin}.trace.{path or '…'}: {origin} comes first")
    if not named:
        raise UnknownNameError(0, f"{origin}.<name>, such as {origin}.metadata.<key>; or metadata.{origin}, a key")
    of_trace: Level = "trace" if named[0] == "trace" else "span"
    rest = named[1:] if of_trace == "trace" else named
    at = 1 + len(named) - len(rest)
    if rest and rest[0] == "tags":
        if len(rest) == 1:
            raise UnknownNameError(at, f"{path}.<tag>: each tag has an origin of its own")
        return Subject(of_trace, "tag", ".".join(rest[1:]), origin)
    if len(rest) > 1 and rest[0] in PARTS:
        kind, parts = PARTS[rest[0]]
        is_part = len(rest) > 2 and rest[-1] in parts
        return Subject(of_trace, kind, ".".join(rest[1 : -1 if is_part else None]), origin)
    try:
        subject = subject_of(named)
    except UnknownNameError as error:
        raise UnknownNameError(1 + error.segment, error.expected) from None
    if subject.part or subject.kind not in get_args(Kind):
        expected = f"the name of a value that updates set, such as metadata.<key>: {path} has no origin of its own"
        raise UnknownNameError(1, expected)
    return replace(subject, part=origin)


def _verdict(level: Level, rest: Sequence[str], at: int) -> Subject:
    kind, parts = PARTS[rest[0]]
    choices = ", ".join(parts[:-1]) + f" or {parts[-1]}"
    name = ".".join(rest[1:-1])
    if not name:
        raise UnknownNameError(at, f"{rest[0]}.<Name> and then {choices}, for example {rest[0]}.Correctness.label")
    part = next((part for part in parts if part == rest[-1]), None)
    if part is None:
        raise UnknownNameError(at + len(rest) - 1, f"{choices} at the end of the path")
    return Subject(level, kind, name, part)


def _suggestion(path: str, segments: Sequence[str]) -> str:
    if len(path) > _MAX_HINTED:
        return f"one of {LISTED}"
    close = difflib.get_close_matches(path.lower(), (*NAMES, *TAGS), n=1, cutoff=0.7)
    if not close and len(segments) > 1:
        heads = difflib.get_close_matches(segments[0].lower(), LEVELS, n=1, cutoff=0.7)
        close = [".".join((*heads, *segments[1:]))] if heads and heads[0] != segments[0] else []
    # A bare word is usually a metadata key without its level.
    hint = f"{close[0]}, perhaps, or " if close else f"metadata.{path}, perhaps, or " if len(segments) == 1 else ""
    return f"{hint}one of {LISTED}"
