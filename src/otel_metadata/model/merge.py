"""The merge contract: a patch is a set of versioned fields, and composing and applying are one operation.

This module decides which value of a field wins. `model.value` decides what a value may be, and `delivery` decides who
still gets it.

A *field* is the smallest unit that an update sets: one metadata key, `name`, one tag, one evaluation. Its name is the
triple (level, kind, key). Its *version* is (wall nanoseconds of the update, 64-bit id of the writer). Merging two sets
of fields is their union; where both have a field, the higher version wins:

    merge(a, a) == a                          any repetition
    merge(a, b) == merge(b, a)                any order
    merge(merge(a, b), c) == merge(a, merge(b, c))     any coalescing

So live spans, the outbox, coalescing and every store agree without talking to each other. This is a *first-level*
merge: a nested value is replaced as a whole, `None` is a value, and nothing is ever deleted. It is not RFC 7396.

Two refinements make the laws hold for every input:

- A tag has no value of its own, and tags are shown in the order in which they were first set. So of two versions of
  one tag the *lower* wins.
- No two updates share a version. But a plain span attribute has the version of its span's end
  (`PLAIN_ATTRIBUTE_WRITER`), and two exporters may disagree about its value. Of equal versions, the greater JSON text
  wins.

Names, fields and versions are plain tuples: every key of every update needs one of each on the application's thread,
and a NamedTuple takes longer to make.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import orjson

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
"""A JSON value: integers within 64 bits signed, finite floats, text without lone surrogates."""

Metadata: TypeAlias = "Mapping[str, Json]"
"""A JSON object about a span; values may be null."""

Level: TypeAlias = Literal["span", "trace"]

Kind: TypeAlias = Literal[
    "metadata",
    "attribute",
    "name",
    "input",
    "output",
    "status",
    "status_message",
    "user_id",
    "session_id",
    "tag",
    "evaluation",
    "annotation",
]

Version: TypeAlias = tuple[int, int]
"""(wall nanoseconds since the epoch, 64-bit id of the writer); compared as a tuple."""

FieldName: TypeAlias = tuple[Level, Kind, str]
"""(level, kind, key). The key is a metadata or attribute key, a tag, the name of an evaluation, or
`model.evaluation.annotation_key(...)`; "" for the kinds of which a span has only one."""

Field: TypeAlias = tuple[Json, Version]

Fields: TypeAlias = Mapping[FieldName, Field]

PLAIN_ATTRIBUTE_WRITER = 0
"""Writer of values that arrived as plain span attributes: below every real writer of the same nanosecond."""

LAST_NS = 1 << 62
"""The latest time of a version that comes from outside, in the year 2116. So an update can always get a later one."""

TOO_LATE = "a value has a time after 2116-02-20T23:53:38Z; expected an earlier one, which an update can replace"


def json_text(value: Json) -> str:
    """Return the one JSON text of *value*: compact, keys sorted, UTF-8.

    Raises:
        TypeError: *value* is not JSON; `model.value.clean` makes it so.
    """
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def merge(first: Fields, second: Fields) -> dict[FieldName, Field]:
    """Return the union of two sets of fields; of a field in both, the one with the higher version.

    Idempotent, commutative, associative. Neither argument is changed.
    """
    merged = dict(first)
    merge_into(merged, second)
    return merged


def merge_into(target: dict[FieldName, Field], fields: Fields) -> None:
    """Merge *fields* into *target*, which is changed."""
    for name, field in fields.items():
        held = target.get(name)
        if held is None or _wins_over(name, field, held):
            target[name] = field


def _wins_over(name: FieldName, challenger: Field, held: Field) -> bool:
    if challenger[1] == held[1]:
        return challenger[0] is not held[0] and json_text(challenger[0]) > json_text(held[0])
    if name[1] == "tag":
        return challenger[1] < held[1]
    return challenger[1] > held[1]


def is_too_late(fields: Fields) -> bool:
    """Whether a version is after `LAST_NS`."""
    return any(version[0] > LAST_NS for _, version in fields.values())


def latest_version(fields: Fields) -> Version:
    """Return the highest version among *fields*; (0, 0) when there are none."""
    return max((version for _, version in fields.values()), default=(0, 0))
