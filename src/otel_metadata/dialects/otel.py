"""The `otel` dialect: canonical attributes, within a budget, for every backend without a dialect of its own.

This module decides which fields fit on a span. `canonical` decides how one field is spelled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, cast, final

from otel_metadata.dialects.canonical import (
    JSON_NAMES,
    VERSIONS,
    author_attributes,
    is_native,
    spell,
    spelled_names,
    tags_attribute,
    to_attributes,
    versions_text,
)
from otel_metadata.dialects.spelling import is_held_by_the_span, name_of, own_tags, status_of
from otel_metadata.model.encoding import Encoded, SpanView
from otel_metadata.model.merge import Field, FieldName, Fields, Json, Level

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

_LEVELS: Final[tuple[Level, Level]] = ("span", "trace")
_UNBOUNDED: Final = 1 << 30


@final
class OtelDialect:
    """Canonical attributes on a span.

    Our attributes are at most *max_attributes*, and never push the span over *span_limit* in all: one attribute too
    many makes the SDK evict the application's oldest. Fields with the lowest versions come first; the others are the
    remainder.

    A field that was set after the span's end has its version in `VERSIONS`: the same field may arrive on a patch too,
    where nobody knows whether the span did, and a later patch may arrive before the span. A field that was set before
    the end needs no version there: it is read as of the end, and every later update of this process is above that.
    Beside the versions, one more attribute names the author, if the span has room: nothing else on the span says who
    the writer in a version is.
    """

    def __init__(self, *, max_attributes: int | None = 32, span_limit: int | None = 128) -> None:
        """Set the budget.

        Args:
            max_attributes: The most attributes of ours on one span; None for no limit (a store keeps fields as they
                are).
            span_limit: The most attributes on one span in all; None for no limit.
        """
        self._max_attributes = _UNBOUNDED if max_attributes is None else max_attributes
        self._span_limit = _UNBOUNDED if span_limit is None else span_limit

    def encode(
        self, span: SpanView, fields: Fields, *, is_local_root: bool
    ) -> Encoded:  # is_local_root is for other dialects: only a local root has fields of the trace here
        """Return the span's attributes with *fields* in canonical spelling, name, status, and the remainder."""
        own = dict(span.attributes or {})
        spelled: dict[str, Json] = {}
        remainder: dict[FieldName, Field] = {}
        tags: dict[Level, dict[FieldName, Field]] = {}
        # How many attributes the span may still get in all, and how many of ours.
        free, ours = max(self._span_limit - len(own), 0), self._max_attributes
        has_list, has_versions = JSON_NAMES in own, VERSIONS in own
        end_ns = span.end_time
        for name, field in sorted(fields.items(), key=lambda item: (item[1][1], item[0])):
            level, kind, _ = name
            if kind == "tag":
                tags.setdefault(level, {})[name] = field
                continue
            if is_held_by_the_span(name, fields):
                continue
            parts = spell(name, field[0])
            added = sum(part not in own and part not in spelled for part in parts)
            # The list of JSON names is one more attribute, and so are the versions.
            starts_list = not (has_list or all(is_native(value) for value in parts.values()))
            starts_versions = not has_versions and _is_after(end_ns, field)
            added += starts_list + starts_versions
            new = sum(part not in spelled for part in parts)
            clash = kind == "annotation" and not spelled.keys().isdisjoint(spelled_names(name, field[0]))
            if not parts or clash or added > free or new > ours:
                remainder[name] = field
                continue
            free, ours = free - added, ours - new
            has_list, has_versions = has_list or starts_list, has_versions or starts_versions
            spelled.update(parts)
            # Attributes of an earlier value are still on the live span, and are no part of this one.
            for stale in spelled_names(name, field[0]) - parts.keys():
                free += own.pop(stale, None) is not None
        for level in _LEVELS:
            if level not in tags:
                continue
            attribute = tags_attribute(level)
            starts_versions = not has_versions and any(_is_after(end_ns, field) for field in tags[level].values())
            added = (attribute not in own) + starts_versions
            if added > free or ours < 1:
                remainder.update(tags[level])
                continue
            free, ours = free - added, ours - 1
            has_versions = has_versions or starts_versions
            spelled[attribute] = [*own_tags(span, fields, level)]
        after = {name: field for name, field in fields.items() if _is_after(end_ns, field) and name not in remainder}
        # Name and status need no attribute, so they stay on a span that has no room for their versions.
        if after and (has_versions or free > 0):
            spelled[VERSIONS] = versions_text(after)
            if free > (not has_versions):
                spelled.update(author_attributes(after))
        return Encoded(_laid_over(own, spelled), name=name_of(fields), status=status_of(fields), remainder=remainder)


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
