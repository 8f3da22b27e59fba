"""The `otel` dialect: canonical attributes, within a budget, for every backend without a dialect of its own.

This module decides which fields fit on a span. How one field is spelled is in `canonical`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, cast, final

from otel_metadata.dialects.canonical import (
    JSON_NAMES,
    NOT_ATTRIBUTES,
    VERSIONS,
    is_native,
    spell,
    spelled_names,
    tags_attribute,
    to_attributes,
    versions_text,
)
from otel_metadata.model.encoding import Encoded, SpanStatus, SpanView
from otel_metadata.model.merge import Field, FieldName, Fields, Json, Level

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

__all__ = ["OtelDialect"]

_MERGED_LEVELS: Final[tuple[Level, Level]] = ("span", "trace")


@final
class OtelDialect:
    """Canonical attributes on a span.

    Our names take at most *max_attributes* of them, and never push the span over *span_limit* in all, for an attribute
    too many makes the SDK evict the application's oldest; the rest is the remainder, oldest versions first on the span.

    What was set after the span's end has its version in `VERSIONS`: the same fields may arrive on a patch as well, when
    nobody knows whether the span did, and a later patch may arrive before the span. What was set before the end has
    none: a plain attribute is read as of the end, and all that this process says of the span later is above that.
    """

    def __init__(self, *, max_attributes: int | None = 32, span_limit: int | None = 128) -> None:
        """Set the budget.

        Args:
            max_attributes: Attribute names of ours on one span; None for no bound (a store keeps fields as they are).
            span_limit: Attributes on one span in all; None for no bound.
        """
        self._max_attributes = max_attributes
        self._span_limit = span_limit

    def encode(
        self, span: SpanView, fields: Fields, *, is_local_root: bool
    ) -> Encoded:  # a trace field is here because it was set on the local root; other dialects ask
        """Return the span's attributes with *fields* in canonical spelling, name, status, and what did not fit."""
        own = dict(span.attributes or {})
        spelled: dict[str, Json] = {}
        remainder: dict[FieldName, Field] = {}
        tags: dict[Level, dict[FieldName, Field]] = {}
        room = self._room(own)
        has_list, has_versions = JSON_NAMES in own, VERSIONS in own
        end_ns = span.end_time
        for name, field in sorted(fields.items(), key=lambda item: (item[1][1], item[0])):
            level, kind, _ = name
            if kind == "tag":
                tags.setdefault(level, {})[name] = field
                continue
            if name in NOT_ATTRIBUTES and _is_said(name, fields):
                continue
            parts = spell(name, field[0])
            added = sum(part not in own and part not in spelled for part in parts)
            # The list of JSON names takes a place too, once, and so do the versions.
            starts_list = not (has_list or all(is_native(value) for value in parts.values()))
            starts_versions = not has_versions and _is_after(end_ns, field)
            added += starts_list + starts_versions
            new = sum(part not in spelled for part in parts)
            clash = kind == "annotation" and not spelled.keys().isdisjoint(spelled_names(name, field[0]))
            if not parts or clash or added > room.free or new > room.ours:
                remainder[name] = field
                continue
            room.take(added, new)
            has_list, has_versions = has_list or starts_list, has_versions or starts_versions
            spelled.update(parts)
            # What an earlier value of the same verdict has left on the live span is not part of this one.
            for stale in spelled_names(name, field[0]) - parts.keys():
                if own.pop(stale, None) is not None:
                    room.take(-1, 0)
        for level in _MERGED_LEVELS:
            if level not in tags:
                continue
            attribute = tags_attribute(level)
            starts_versions = not has_versions and any(_is_after(end_ns, field) for field in tags[level].values())
            added = (attribute not in own) + starts_versions
            if added > room.free or room.ours < 1:
                remainder.update(tags[level])
                continue
            room.take(added, 1)
            has_versions = has_versions or starts_versions
            present = own.get(attribute)
            if isinstance(present, str):
                present = [present]
            before = [tag for tag in present if isinstance(tag, str)] if isinstance(present, list | tuple) else []
            spelled[attribute] = [*dict.fromkeys([*before, *(name[2] for name in tags[level])])]
        after = {name: field for name, field in fields.items() if _is_after(end_ns, field) and name not in remainder}
        # Name and status need no attribute, and stay on a span that has no room for their versions.
        if after and (has_versions or room.free > 0):
            spelled[VERSIONS] = versions_text(after)
        return Encoded(
            attributes=_laid_over(own, spelled),
            name=_name(fields),
            status=_status(fields),
            remainder=remainder,
        )

    def _room(self, own: Mapping[str, object]) -> _Room:
        unbounded = 1 << 30
        ours = unbounded if self._max_attributes is None else self._max_attributes
        free = unbounded if self._span_limit is None else max(self._span_limit - len(own), 0)
        return _Room(ours, free)


class _Room:
    def __init__(self, ours: int, free: int) -> None:
        self.ours = ours
        self.free = free

    def take(self, added: int, new: int) -> None:
        self.free -= added
        self.ours -= new


def _laid_over(own: dict[str, AttributeValue], spelled: Mapping[str, Json]) -> dict[str, AttributeValue]:
    attributes, json_names = to_attributes(spelled)
    before = own.pop(JSON_NAMES, None)
    listed = [name for name in before if name not in spelled] if isinstance(before, list | tuple) else []
    own.update(attributes)
    listed = [*cast("list[str]", listed), *json_names]
    if listed:
        own[JSON_NAMES] = listed
    return own


def _is_after(end_ns: int | None, field: Field) -> bool:
    """Whether a field was set after the end of its span."""
    return end_ns is not None and field[1][0] > end_ns


def _is_said(name: FieldName, fields: Fields) -> bool:
    """Whether a part of the span itself leaves as such: a message without a status cannot, nor a null name."""
    if name[1] == "name":
        return _name(fields) is not None
    status = _status(fields)
    return status is not None and (name[1] == "status" or status[1] is not None)


def _name(fields: Fields) -> str | None:
    value = fields.get(("span", "name", ""), (None, None))[0]
    return value if isinstance(value, str) else None


def _status(fields: Fields) -> SpanStatus | None:
    status = fields.get(("span", "status", ""))
    if status is None:
        return None
    message = fields.get(("span", "status_message", ""), (None, None))[0]
    return status[0], message if isinstance(message, str) else None
