"""A filter on spans: a tree of comparisons, parsed and checked.

This module decides what a filter can ask. `store.filter.language` decides how a filter is written, and each store has
an SQL generator that finds the answer.

A condition is true, false or neither, as in SQL: a comparison is *neither* when the value is missing, null, or has
another type than the literal. `Not` of neither is neither. `And` is false when one part is false, else neither when one
part is neither, else true. `Or` is true when one part is true, else neither when one part is neither, else false. The
filter selects a span when the condition is true.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, final, get_args

from otel_metadata.model.merge import Level

Scalar: TypeAlias = "str | int | float | bool"
"""A literal. Its type decides the type of the comparison: text, number (5 equals 5.0), or bool, which is no number.
Integers within 64 bits signed, finite floats, text without NUL and lone surrogates; a time is whole nanoseconds."""

Operator: TypeAlias = Literal["=", "!=", "<", "<=", ">", ">="]

ColumnKind: TypeAlias = Literal[
    "trace_id",
    "span_id",
    "parent_id",
    "kind",
    "start_time",
    "end_time",
    "latency_ms",
    "project",
    "scope_name",
    "scope_version",
]
"""The columns of a span, always at level `span`. Times are compared as whole nanoseconds since the epoch;
`latency_ms` is (end_ns - start_ns) / 1e6; the others are text."""

COLUMN_KINDS: Final[tuple[ColumnKind, ...]] = get_args(ColumnKind)
"""The words of `ColumnKind`; every other kind of a subject is a key of the resource, or fields."""

SubjectKind: TypeAlias = (
    ColumnKind
    | Literal[
        "metadata",
        "attribute",
        "resource",
        "evaluation",
        "annotation",
        "name",
        "input",
        "output",
        "span_kind",
        "model",
        "status",
        "status_message",
        "user_id",
        "session_id",
        "tag",
        "late_count",
    ]
)
"""A column; or `resource`, one key of the resource; or a kind of field, named as in `model.merge.Kind`; or
`late_count`, how many fields of the level have a value that came late. A `tag` is compared by its origin only; `HasTag`
asks for the tag itself."""

Origin: TypeAlias = Literal["route", "author", "changed_at"]
"""What a store knows of a value besides the value: how it came, who set it, and when."""

ORIGINS: Final[tuple[Origin, ...]] = get_args(Origin)
"""The words of `Origin`."""

Part: TypeAlias = Origin | Literal["", "label", "score", "explanation", "text"]


@final
@dataclass(frozen=True, slots=True)
class Subject:
    """The value that is compared, as `model.record.assemble` shows it.

    Attributes:
        level: `trace` for `name`, `input`, `output`, `metadata`, `evaluation` and `annotation` of the trace, else
            `span`. `user_id` and `session_id` are at level `span` and mean the latest version of either level.
        kind: Where the value is: a column, the resource, or a kind of field. `attribute` is a plain attribute or the
            field that lies over it; `name`, `status` and `status_message` of the span are its column unless a field
            lies over it. `input` and `output` are compared as their JSON text where they are an object or list.
            `span_kind` and `model`, and `input` and `output` of a span that have no field, are read from attributes of
            instrumentors (`model.instrumented`).
        key: A metadata, attribute or resource key, dots and all; the name of an evaluation or annotation; else "".
        part: Of an evaluation `label`, `score` or `explanation`; of an annotation `label`, `score` or `text`, of the
            latest version when several annotators wrote under this name. Or the origin of a field, whatever its value;
            missing where there is no field: what only OpenTelemetry set has no version. `changed_at` is the nanoseconds
            of the field's version, `route` is one of `model.record.ROUTES`, `author` the name of the writer. Else "".
    """

    level: Level
    kind: SubjectKind
    key: str = ""
    part: Part = ""


@final
@dataclass(frozen=True, slots=True)
class And:
    """All parts are true. There are at least two, and no part is an `And`."""

    parts: tuple[Condition, ...]


@final
@dataclass(frozen=True, slots=True)
class Or:
    """At least one part is true. There are at least two, and no part is an `Or`."""

    parts: tuple[Condition, ...]


@final
@dataclass(frozen=True, slots=True)
class Not:
    """The part is false; neither when the part is neither."""

    part: Condition


@final
@dataclass(frozen=True, slots=True)
class Compare:
    """The subject compared with a literal; a bool with `=` and `!=` only. Text is ordered by code point."""

    subject: Subject
    op: Operator
    value: Scalar


@final
@dataclass(frozen=True, slots=True)
class In:
    """The subject equals one of the values. There is at least one; all are text, all numbers, or all bools."""

    subject: Subject
    values: tuple[Scalar, ...]


@final
@dataclass(frozen=True, slots=True)
class Like:
    """The subject is text that matches: `%` is any text, `_` one code point; case counts, and nothing escapes."""

    subject: Subject
    pattern: str


@final
@dataclass(frozen=True, slots=True)
class Between:
    """The subject is at least `low` and at most `high`: two texts or two numbers."""

    subject: Subject
    low: str | int | float
    high: str | int | float


@final
@dataclass(frozen=True, slots=True)
class IsNull:
    """The subject is missing or JSON null. Its type does not matter, so this is never neither."""

    subject: Subject


@final
@dataclass(frozen=True, slots=True)
class HasTag:
    """The span, or its trace, has this tag. This is never neither."""

    level: Level
    tag: str


Condition: TypeAlias = And | Or | Not | Compare | In | Like | Between | IsNull | HasTag
