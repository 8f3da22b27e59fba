"""What the vendors' dialects have in common: a span's own attributes without our canonical ones, and its own parts.

A vendor's dialect decides how fields are spelled and what is left over; laying that over the span is done here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from otel_metadata.dialects.canonical import JSON_NAMES, spelled_names, tags_attribute, texts
from otel_metadata.model.encoding import Encoded
from otel_metadata.model.merge import FieldName, Fields, Json, Level

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

    from otel_metadata.model.encoding import SpanStatus, SpanView

__all__ = ["encoded", "of_kind", "own_tags"]

_STATUS: FieldName = ("span", "status", "")


def encoded(span: SpanView, fields: Fields, spelled: Mapping[str, AttributeValue], remainder: Fields) -> Encoded:
    """Lay *spelled* over the span's own attributes, without the canonical spelling of what was said.

    Args:
        span: The ended span.
        fields: All of them.
        spelled: Those that the dialect could say, as attributes; it lists in `otel_metadata.json` which are JSON text.
        remainder: Those that it could not; their canonical attributes stay. Name, status and status message are never
            among them where they can be said on the span itself.
    """
    own = dict(span.attributes or {})
    gone: set[str] = set()
    for name, (value, _) in fields.items():
        if name in remainder:
            continue
        gone |= {tags_attribute(name[0])} if name[1] == "tag" else spelled_names(name, value)
    for attribute in gone:
        own.pop(attribute, None)
    before = [name for name in texts(own.pop(JSON_NAMES, None)) if name not in gone]
    own.update(spelled)
    listed = [*dict.fromkeys([*before, *texts(spelled.get(JSON_NAMES))])]
    if listed:
        own[JSON_NAMES] = listed
    new_name, status = _name(fields), _status(fields)
    return Encoded(own, name=new_name, status=status, remainder=_without_said(remainder, new_name, status))


def of_kind(fields: Fields, level: Level, kind: str) -> dict[str, Json]:
    """Return key and value of each field of one level and kind, lowest version first."""
    chosen = [
        (version, key, value) for (at, what, key), (value, version) in fields.items() if (at, what) == (level, kind)
    ]
    return {key: value for _, key, value in sorted(chosen, key=lambda one: one[:2])}


def own_tags(span: SpanView, fields: Fields, level: Level) -> list[str]:
    """Return the tags that the span had by itself, then those of *fields* in the order in which they were first set."""
    present = (span.attributes or {}).get(tags_attribute(level))
    return [*dict.fromkeys([*texts(present), *of_kind(fields, level, "tag")])]


def _without_said(remainder: Fields, name: str | None, status: SpanStatus | None) -> Fields:
    said = set[FieldName]()
    if name is not None:
        said.add(("span", "name", ""))
    if status is not None:
        said.add(_STATUS)
        if status[1] is not None:
            said.add(("span", "status_message", ""))
    return {one: field for one, field in remainder.items() if one not in said}


def _name(fields: Fields) -> str | None:
    value = fields.get(("span", "name", ""), (None, None))[0]
    return value if isinstance(value, str) else None


def _status(fields: Fields) -> SpanStatus | None:
    status = fields.get(_STATUS)
    if status is None:
        return None
    message = fields.get(("span", "status_message", ""), (None, None))[0]
    return status[0], message if isinstance(message, str) else None
