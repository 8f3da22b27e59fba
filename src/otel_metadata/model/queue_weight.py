"""How much memory an ended span and a patch take: see `model.weight` for their values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_metadata.model.merge import Fields
from otel_metadata.model.weight import merge_weighed, weigh_common, weigh_fields, weigh_name, weigh_values

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["JOINED_BYTES", "PATCH_BYTES", "ROW_BYTES", "merge_weighed", "weigh_common", "weigh_fields", "weigh_span"]

ROW_BYTES: Final = 100
"""What a row of the spool takes in memory, written or not: of one field that is set again and again only these grow."""

PATCH_BYTES: Final = 760
"""A patch that waits, without fields: its target, its times, and its places in our maps."""

JOINED_BYTES: Final = 240
"""What the first field that is joined to a span adds, beside the field."""

# Measured with tracemalloc: a span without attributes, its context, and its place in our maps; an attribute without its
# value, whose key is the application's; an event, a link, and what their first attribute adds.
_SPAN_BYTES: Final = 3_000
_ATTRIBUTE_BYTES: Final = 80
_EVENT_BYTES: Final = 420
_LINK_BYTES: Final = 540
_HOLDER_BYTES: Final = 120

_NO_FIELDS: Final[Fields] = {}


def weigh_span(span: ReadableSpan, *more: object, fields: Fields = _NO_FIELDS) -> int:
    """Return the bytes of an ended span: its attributes, events and links, and what waits beside it.

    The texts of its attributes are often those of its fields: each is counted once.

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
