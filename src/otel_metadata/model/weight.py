"""How much memory values, fields and spans take. The bounds in bytes use these numbers.

Theory of operation. The weight of a value is the sum of `sys.getsizeof` over every object in it. Objects that the
interpreter shares (None, True, small integers, texts of one Latin-1 character) take only their slot, which is counted
with the container. An object that comes several times on one level, such as a key in a list of dicts, is counted once.
A value that the application keeps too is counted all the same: waiting here keeps it alive.

When a field is replaced, its old weight is subtracted, so a value must weigh the same each time. But `sys.getsizeof` of
a text that is not ASCII changes: the text keeps its UTF-8 form after it was encoded once. That form is not counted,
except where a value is weighed for the last time (`as_is`).

A container is walked level by level, with C calls where all values of a level are alike. `model.value` bounds the
number of values in an update.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from sys import getsizeof
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_metadata.model.merge import FieldName, merge_into

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan  # noqa: TID251 # a name in a signature; nothing is loaded

    from otel_metadata.model.merge import Field, Fields

FIELD_BYTES: Final = 128
"""A field without its name and value: its place in a dict, and its version. With `tracemalloc` 87 bytes where the
fields of one update share the version, 185 where each has its own."""

ROW_BYTES: Final = 100
"""A row of the spool in memory, written or not. When one field is set again and again, only its rows add up."""

PATCH_BYTES: Final = 760
"""A patch that waits, without its fields: its target, its times, and its places in our maps."""

JOINED_BYTES: Final = 240
"""Bytes that the first field on a waiting span adds, beside the field itself."""

LARGE_BYTES: Final = 2_048
"""A list or dict that weighs more is weighed once, without the lock; its weight is kept beside it."""

NO_LARGE: Final[Mapping[FieldName, int]] = MappingProxyType({})
"""The weights of large values where there is no large value."""

SHARED_NAMES: Final[dict[FieldName, FieldName]] = {}
"""Names that are kept for the life of the process. Fields share them, so they do not count as a field's own bytes."""

# Measured with tracemalloc: a span without attributes, its context, and its place in our maps; an attribute without its
# value, whose key is the application's; an event, a link, and what their first attribute adds.
_SPAN_BYTES: Final = 3_000
_ATTRIBUTE_BYTES: Final = 80
_EVENT_BYTES: Final = 420
_LINK_BYTES: Final = 540
_HOLDER_BYTES: Final = 120

_NAME_BYTES: Final = getsizeof(("span", "metadata", ""))

_TEXT_BYTES: Final = getsizeof("")

_FLOAT_BYTES: Final = getsizeof(0.5)

_FLOATS: Final = {float}
_TEXTS: Final = {str}
_DICTS: Final = {dict}

# With more values than this, C calls for all of them cost less than a loop.
_MANY: Final = 8


def weigh_value(value: object) -> int:
    """Return the bytes of *value*: a scalar, or a list, tuple or dict with all that is in it."""
    if type(value) is str and value.isascii():  # the usual value, without a list around it
        return _TEXT_BYTES + len(value) if len(value) > 1 else 0
    return 0 if value is None else weigh_values([value])


def weigh_values(values: list[Any], *, as_is: bool = False) -> int:
    """Return the bytes of all *values*, without the list.

    Args:
        values: Any values. Of an object of another class, only the object itself is weighed.
        as_is: Whether to count the UTF-8 form that texts keep now.
    """
    size = 0
    level = values
    while level:
        if len(level) > 1 and len({*map(id, level)}) < len(level):
            level = [*dict(zip(map(id, level), level, strict=True)).values()]
        if len(level) > _MANY:
            kinds = {*map(type, level)}
            if kinds == _FLOATS:
                return size + _FLOAT_BYTES * len(level)
            if kinds == _TEXTS and not as_is and all(map(str.isascii, level)):
                return size + _TEXT_BYTES * len(level) + sum(map(len, level))
            if kinds == _DICTS:
                size += sum(map(getsizeof, level))
                level = [*chain.from_iterable(level), *chain.from_iterable(map(dict.values, level))]
                continue
        below: list[Any] = []
        for part in level:
            kind = type(part)
            if kind is str:
                if as_is or not part.isascii():
                    size += getsizeof(part) if as_is else _weigh_text(part)
                elif len(part) > 1:
                    size += _TEXT_BYTES + len(part)
            elif kind is float:
                size += _FLOAT_BYTES
            elif kind is dict:
                size += getsizeof(part)
                below += part
                below += part.values()
            elif kind is list or kind is tuple:
                size += getsizeof(part)
                below += part
            elif not (part is None or kind is bool or (kind is int and -6 < part < 257)):
                size += getsizeof(part)
        level = below
    return size


def _weigh_text(text: str) -> int:
    """Return the bytes of a text that is not ASCII without its UTF-8 form, from a new text one character longer."""
    return getsizeof(text + " ")


def weigh_name(name: FieldName) -> int:
    """Return the bytes of a field without its value; a name that is not shared is counted."""
    if name in SHARED_NAMES:
        return FIELD_BYTES
    key = name[2]
    if not key.isascii():
        return FIELD_BYTES + _NAME_BYTES + _weigh_text(key)
    return FIELD_BYTES + _NAME_BYTES + (_TEXT_BYTES + len(key) if key else 0)


class Weight(NamedTuple):
    """The weight of fields, computed before a lock is taken.

    Attributes:
        size: The bytes of all of them.
        large: The bytes of each value that takes long to weigh.
    """

    size: int
    large: Mapping[FieldName, int] = NO_LARGE


def weigh(fields: Fields) -> Weight:
    """Return the weight of *fields*: for each its value, and the result of `weigh_name`."""
    size = 0
    large: dict[FieldName, int] = {}
    for name, (value, _) in fields.items():
        weight = weigh_value(value)
        size += weigh_name(name) + weight
        if weight > LARGE_BYTES and type(value) is not str:
            large[name] = weight
    return Weight(size, large or NO_LARGE)


def weigh_fields(fields: Fields) -> int:
    """Return the bytes of *fields*."""
    return weigh(fields).size


def weigh_common(held: Fields, fields: Iterable[FieldName], large: Mapping[FieldName, int]) -> int:
    """Return the bytes of those fields among *held* that *fields* may replace.

    Args:
        held: The fields that may be replaced.
        fields: The names of what may replace it.
        large: The weights of the large values in *held*.
    """
    size = 0
    for name in fields:
        if name in held:
            size += weigh_name(name) + (large.get(name) or weigh_value(held[name][0]))
    return size


def merge_weighed(
    held: dict[FieldName, Field], fields: Fields, weight: Weight, large: Mapping[FieldName, int]
) -> Weight:
    """Merge *fields* into *held*.

    Args:
        held: The fields that are changed.
        fields: The fields that are merged into them.
        weight: The weight of *fields*.
        large: The weights of the large values in *held*.

    Returns:
        The bytes by which *held* grew (below 0: shrank), and the weights of the large values in it now.
    """
    replaced = weigh_common(held, fields, large)
    merge_into(held, fields)
    if large or weight.large:
        came = {name for name, field in fields.items() if held.get(name) is field}
        kept = {name: bytes_ for name, bytes_ in large.items() if name not in came}
        large = {**kept, **{name: bytes_ for name, bytes_ in weight.large.items() if name in came}}
    # An older version does not replace a newer one, so the fields in *held* are weighed, not those that came.
    return Weight(weigh_common(held, fields, large) - replaced if replaced else weight.size, large)


_NO_FIELDS: Final[Fields] = {}


def weigh_span(span: ReadableSpan, *more: object, fields: Fields = _NO_FIELDS) -> int:
    """Return the bytes of an ended span: its attributes, events and links, and the fields beside it.

    Its attributes and its fields often share a text, which is counted once.

    Args:
        span: The span.
        more: Texts that wait with it.
        fields: Its sidecar.
    """
    size = _SPAN_BYTES + _EVENT_BYTES * len(span.events) + _LINK_BYTES * len(span.links)
    values: list[object] = [*more]
    events = [event.attributes for event in span.events]
    for attributes in (span.attributes, *events, *(link.attributes for link in span.links)):
        if attributes:
            size += _HOLDER_BYTES + _ATTRIBUTE_BYTES * len(attributes)
            values += attributes.values()
    for name, (value, _) in fields.items():
        size += weigh_name(name)
        values.append(value)
    return size + weigh_values(values, as_is=True)
