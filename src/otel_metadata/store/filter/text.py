"""The text of a condition: the reverse of `store.filter.language`, for a store that is asked over the network.

`parse(text_of(condition)) == condition` for every condition that `parse` returns with times of the years 1678 to 2261
in UTC. A text may be somewhat longer than the one that was parsed: a time has all its digits, and a space is on either
side of an operator.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from otel_metadata.model.condition import (
    ORIGINS,
    And,
    Between,
    Compare,
    Condition,
    HasTag,
    In,
    IsNull,
    Like,
    Or,
    Scalar,
    Subject,
    SubjectKind,
)
from otel_metadata.model.times import time_text
from otel_metadata.store.filter.tokens import RESERVED

_HEADS: Final[Mapping[SubjectKind, str]] = {
    "attribute": "attributes",
    "evaluation": "eval",
    "status": "status_code",
    "tag": "tags",
}
"""The names of kinds that a filter spells in another way."""

_PLAIN: Final = re.compile(r"\w+")
_TIMES: Final = frozenset({"start_time", "end_time"})


def text_of(condition: Condition) -> str:
    """Return the filter that means *condition*."""
    if isinstance(condition, And | Or):
        word = " AND " if isinstance(condition, And) else " OR "
        return word.join(_part(part, condition) for part in condition.parts)
    if isinstance(condition, HasTag):
        return f"{_literal(condition.tag)} IN {'tags' if condition.level == 'span' else 'trace.tags'}"
    if isinstance(condition, IsNull):
        return f"{_name(condition.subject)} IS NULL"
    if isinstance(condition, Like):
        return f"{_name(condition.subject)} LIKE {_literal(condition.pattern)}"
    if not isinstance(condition, Compare | In | Between):
        return f"NOT {_part(condition.part, condition)}"
    subject = condition.subject
    literal = _time if subject.kind in _TIMES or subject.part == "changed_at" else _literal
    if isinstance(condition, Compare):
        return f"{_name(subject)} {condition.op} {literal(condition.value)}"
    if isinstance(condition, In):
        return f"{_name(subject)} IN ({', '.join(map(literal, condition.values))})"
    return f"{_name(subject)} BETWEEN {literal(condition.low)} AND {literal(condition.high)}"


def _part(part: Condition, whole: Condition) -> str:
    """Return the text of a part, in parentheses unless the part binds as tightly as it has to."""
    is_loose = isinstance(part, Or) or (isinstance(part, And) and not isinstance(whole, Or))
    return f"({text_of(part)})" if is_loose else text_of(part)


def _name(subject: Subject) -> str:
    if subject.part in ORIGINS:
        return f"{subject.part}.{_name(replace(subject, part=''))}"
    path = ["trace"] if subject.level == "trace" else []
    path.append(_HEADS.get(subject.kind, subject.kind))
    if subject.key or subject.kind == "tag":
        # A key in quotes is one segment, so no dot and no word of the language in it is taken for something else.
        is_plain = _PLAIN.fullmatch(subject.key) is not None and subject.key.upper() not in RESERVED
        path.append(subject.key if is_plain else '"' + subject.key.replace('"', '""') + '"')
    return ".".join([*path, subject.part] if subject.part else path)


def _literal(value: Scalar) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return f"{value!r}".upper()


def _time(ns: Scalar) -> str:
    return f"'{time_text(int(ns))}'"
