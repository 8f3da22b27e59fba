"""The meaning of a filter in plain Python: the judge of what every store's SQL selects."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, cast

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
    Not,
    Or,
    Scalar,
    Subject,
)
from otel_metadata.model.evaluation import annotation_key
from otel_metadata.model.merge import FieldName, Json, Kind, Version, json_text
from otel_metadata.model.record import SpanRecord, project_of

_OPERATORS: dict[str, Callable[[object, object], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class FieldOrigin(NamedTuple):
    """Where the value of a field comes from."""

    version: Version
    route: str | None = None
    author: str | None = None

    @property
    def changed_at(self) -> int:
        return self.version[0]


Origins = Mapping[FieldName, FieldOrigin]
"""The origins of the fields of a span and of its trace."""


def holds(condition: Condition, record: SpanRecord, origins: Origins) -> bool | None:
    """Return whether a record meets a condition; None where SQL says NULL."""
    if isinstance(condition, And):
        return _all([holds(part, record, origins) for part in condition.parts])
    if isinstance(condition, Or):
        return _negated(_all([_negated(holds(part, record, origins)) for part in condition.parts]))
    if isinstance(condition, Not):
        return _negated(holds(condition.part, record, origins))
    if isinstance(condition, HasTag):
        return condition.tag in (record.tags if condition.level == "span" else record.trace_tags)
    value = value_of(condition.subject, record, origins)
    if isinstance(condition, IsNull):
        return value is None
    if isinstance(condition, Compare):
        return _compared(value, condition.op, condition.value)
    if isinstance(condition, In):
        return _negated(_all([_compared(value, "!=", other) for other in condition.values]))
    if isinstance(condition, Between):
        return _all([_compared(value, ">=", condition.low), _compared(value, "<=", condition.high)])
    return _like(value, condition)


def subjects_of(condition: Condition) -> Iterator[Subject]:
    """Yield the subjects of a condition."""
    if isinstance(condition, And | Or):
        for part in condition.parts:
            yield from subjects_of(part)
    elif isinstance(condition, Not):
        yield from subjects_of(condition.part)
    elif not isinstance(condition, HasTag):
        yield condition.subject


def value_of(subject: Subject, record: SpanRecord, origins: Origins) -> Json:
    """Return the value that a subject names; None where it is missing or null."""
    of_trace = subject.level == "trace"
    if subject.kind == "late_count":
        return sum(origin.route == "late" for (level, *_), origin in origins.items() if level == subject.level)
    if subject.part in ORIGINS:
        origin = origins.get(_field_name(subject, record, origins))
        return None if origin is None else getattr(origin, subject.part)
    if subject.kind in {"start_time", "end_time"}:
        return record.span.start_ns if subject.kind == "start_time" else record.span.end_ns
    if subject.kind == "latency_ms":
        return (record.span.end_ns - record.span.start_ns) / 1e6
    if subject.kind == "project":
        return project_of(record.span.resource)
    if subject.kind in {"scope_name", "scope_version"}:
        return getattr(record.span, subject.kind)
    if subject.kind == "status":
        return record.status_code
    if subject.kind == "metadata":
        return (record.trace_metadata if of_trace else record.metadata).get(subject.key)
    if subject.kind == "attribute":
        return record.attributes.get(subject.key)
    if subject.kind == "resource":
        return record.span.resource.get(subject.key)
    if subject.kind == "evaluation":
        evaluations = record.trace_evaluations if of_trace else record.evaluations
        return getattr(evaluations.get(subject.key), subject.part, None)
    if subject.kind == "annotation":
        # In the order of their versions, so that the last one counts.
        annotations = record.trace_annotations if of_trace else record.annotations
        named = [annotation for annotation in annotations if annotation.name == subject.key]
        return getattr(named[-1], subject.part) if named else None
    if subject.kind in {"input", "output"}:
        value: Json = getattr(record, f"trace_{subject.kind}" if of_trace else subject.kind)
        return json_text(value) if isinstance(value, list | dict) else value
    if subject.kind == "name" and of_trace:
        return record.trace_name
    return getattr(record, subject.kind)


def _field_name(subject: Subject, record: SpanRecord, origins: Origins) -> FieldName:
    """Return the name of the field that a subject means."""
    level, kind, key = subject.level, subject.kind, subject.key
    if kind in {"user_id", "session_id"}:
        both: list[FieldName] = [("trace", kind, ""), ("span", kind, "")]
        return max(both, key=lambda name: origins[name].version if name in origins else (-1, -1))
    if kind == "annotation":
        annotations = record.trace_annotations if level == "trace" else record.annotations
        key = next(
            (annotation_key(key, note.annotator) for note in reversed(annotations) if note.name == key),
            annotation_key(key, None),
        )
    return level, cast("Kind", kind), key


def _all(parts: list[bool | None]) -> bool | None:
    return False if False in parts else None if None in parts else True


def _negated(value: bool | None) -> bool | None:
    return None if value is None else not value


def _compared(value: Json, op: str, literal: Scalar) -> bool | None:
    if _type(value) is None or _type(value) != _type(literal):
        return None
    # Python orders text by code point, and an int against a float exactly.
    return _OPERATORS[op](value, literal)


def _type(value: Json) -> str | None:
    if isinstance(value, bool):
        return "bool"
    return "number" if isinstance(value, int | float) else "text" if isinstance(value, str) else None


def _like(value: Json, condition: Like) -> bool | None:
    if not isinstance(value, str):
        return None
    meaning = {"%": ".*", "_": "."}
    pattern = "".join(meaning.get(char) or re.escape(char) for char in condition.pattern)
    return re.fullmatch(pattern, value, re.DOTALL) is not None
