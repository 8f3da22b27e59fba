"""The common part of all dialects: which fields are no attributes, and how spelled fields are laid over the span's own.

A vendor's dialect decides how a field is spelled, and which fields the span cannot hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from otel_metadata.dialects.canonical import JSON_NAMES, NOT_ATTRIBUTES, spelled_names, tags_attribute, texts
from otel_metadata.model.encoding import Encoded
from otel_metadata.model.merge import FieldName, Fields, Json, Level

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

    from otel_metadata.model.encoding import SpanStatus, SpanView

_VERDICTS: Final = frozenset({"evaluation", "annotation"})


def is_attribute(name: FieldName) -> bool:
    """Whether vendors keep a field in attributes: not a verdict, which has an API, nor a part of the span itself."""
    return name[1] not in _VERDICTS and name not in NOT_ATTRIBUTES


def encoded(
    span: SpanView,
    fields: Fields,
    spelled: Mapping[str, AttributeValue],
    remainder: Fields,
    also: Iterable[FieldName] = (),
) -> Encoded:
    """Lay *spelled* over the span's own attributes, and take away the canonical attributes that it replaces.

    Args:
        span: The ended span.
        fields: All fields of the span.
        spelled: The fields that the dialect can spell, as attributes; `otel_metadata.json` lists those that are JSON.
        remainder: The fields that it cannot spell. Their canonical attributes stay. Name, status and status message may
            be among them: those that the span itself can hold are left out.
        also: Names of fields that are on the span and leave as a patch too.
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
    left = {name: field for name, field in remainder.items() if not is_held_by_the_span(name, fields)}
    left.update((name, fields[name]) for name in also)
    return Encoded(own, name=name_of(fields), status=status_of(fields), remainder=left)


def of_kind(fields: Fields, level: Level, kind: str) -> dict[str, Json]:
    """Return key and value of each field of one level and kind, lowest version first."""
    chosen = [
        (version, key, value) for (at, what, key), (value, version) in fields.items() if (at, what) == (level, kind)
    ]
    return {key: value for _, key, value in sorted(chosen, key=lambda one: one[:2])}


def own_tags(span: SpanView, fields: Fields, level: Level) -> list[str]:
    """Return the tags that are on the span already, then those of *fields* in the order in which they were set."""
    present = (span.attributes or {}).get(tags_attribute(level))
    return [*dict.fromkeys([*texts(present), *of_kind(fields, level, "tag")])]


def is_held_by_the_span(name: FieldName, fields: Fields) -> bool:
    """Whether a field is a part of the span itself: a name that is text, a status, a message beside a status."""
    if name not in NOT_ATTRIBUTES:
        return False
    if name[1] == "name":
        return name_of(fields) is not None
    status = status_of(fields)
    return status is not None and (name[1] == "status" or status[1] is not None)


def name_of(fields: Fields) -> str | None:
    """Return the name that *fields* give their span; None where they give none that is text."""
    value = fields.get(("span", "name", ""), (None, None))[0]
    return value if isinstance(value, str) else None


def status_of(fields: Fields) -> SpanStatus | None:
    """Return the status that *fields* give their span, with its message; None where they give none."""
    status = fields.get(("span", "status", ""))
    if status is None:
        return None
    message = fields.get(("span", "status_message", ""), (None, None))[0]
    return status[0], message if isinstance(message, str) else None
