"""How much memory a waiting span or patch takes: an estimate, cheap enough to make for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_metadata.model.merge import Field, FieldName, Fields, json_text, merge_into

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["ROW_BYTES", "merge_weighed", "weigh_common", "weigh_fields", "weigh_span"]

ROW_BYTES: Final = 100
"""What a row of the spool takes in memory, written or not: of one field that is set again and again only these grow."""

# sys.getsizeof of the parts of a bare span, its context, and its place in our maps.
_SPAN_BYTES: Final = 2_800
_ITEM_BYTES: Final = 100


def weigh_fields(fields: Fields) -> int:
    """Return the estimated bytes of *fields*: 100 for each, and their text."""
    size = 0
    for name, (value, _) in fields.items():
        size += _ITEM_BYTES + len(name[2])
        if type(value) is str:
            size += len(value)
        elif type(value) in (dict, list):
            size += len(json_text(value))
    return size


def weigh_common(held: Fields, fields: Fields) -> int:
    """Return the estimated bytes of what *fields* may replace among *held*."""
    return weigh_fields({name: held[name] for name in fields if name in held})


def merge_weighed(held: dict[FieldName, Field], fields: Fields, size: int) -> int:
    """Merge *fields*, which weigh *size*, into *held*; return by how many bytes it grew, or shrank."""
    replaced = weigh_common(held, fields)
    merge_into(held, fields)
    if not replaced:
        return size
    # An older version does not replace a newer one: what stands is weighed, not what came.
    return weigh_common(held, fields) - replaced


def weigh_span(span: ReadableSpan) -> int:
    """Return the estimated bytes of an ended span: 2,800, and its attributes, events and links."""
    size = _SPAN_BYTES
    holders = [span.attributes, *(event.attributes for event in span.events), *(link.attributes for link in span.links)]
    for attributes in holders:
        for value in (attributes or {}).values():
            size += _ITEM_BYTES
            if isinstance(value, str | bytes):
                size += len(value)
            elif isinstance(value, tuple):
                size += sum(len(item) if isinstance(item, str) else 32 for item in value)
    return size
