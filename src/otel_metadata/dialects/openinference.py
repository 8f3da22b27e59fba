"""The `openinference` dialect: for Arize AX and Phoenix.

Span metadata is one attribute, `metadata`, a JSON object as text (OpenInference semantic conventions, "Metadata"). So a
filter can use every key, and a null stays a null. OpenInference has no attributes for the trace as a whole: fields of
the trace stay on the local root in canonical spelling. Evaluations and annotations are no attributes in either backend;
they leave as a patch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, final

from otel_metadata.dialects.canonical import JSON_NAMES, spell, tags_attribute, to_attributes
from otel_metadata.dialects.spelling import encoded, is_attribute, of_kind, own_tags
from otel_metadata.model.merge import Field, FieldName, Fields, Json, Level, json_text
from otel_metadata.model.value import STORE_LIMITS, clean

if TYPE_CHECKING:
    from otel_metadata.model.encoding import Encoded, SpanView

METADATA: Final = "metadata"
"""The attribute that holds a span's metadata."""

_LEVELS: Final[tuple[Level, Level]] = ("span", "trace")


@final
class OpenInferenceDialect:
    """Metadata as one JSON text, other attributes in canonical spelling, evaluations and annotations as a patch."""

    def __init__(self, *, flattens: bool = False, scalars: bool = False) -> None:
        """Set how the backend reads `metadata`.

        Args:
            scalars: The backend holds texts, numbers and nulls, and gets other values as text (Arize AX). `scalar` does
                this, for its patches too, so that a key has the same type whenever it is set.
            flattens: The backend takes the JSON apart into dotted keys. It drops nulls, empty objects, values beside
                objects in a list, and one of two keys that are the same with dots (Phoenix 20.26.1). A key that would
                lose something is on the span, and leaves as a patch too.
        """
        self._flattens = flattens
        self._scalars = scalars

    def encode(self, span: SpanView, fields: Fields, *, is_local_root: bool) -> Encoded:
        """Return the span's attributes with *fields*, name, status, and the fields that leave as a patch."""
        spelled: dict[str, Json] = {}
        remainder: dict[FieldName, Field] = {}
        for name, field in sorted(fields.items(), key=lambda item: (item[1][1], item[0])):
            level, kind, _ = name
            if not is_attribute(name) or (level == "trace" and not is_local_root):
                remainder[name] = field
            elif kind != "tag" and (level, kind) != ("span", "metadata"):
                spelled.update(spell(name, field[0]))
        attributes, json_names = to_attributes(spelled)
        if json_names:
            attributes[JSON_NAMES] = json_names
        ours = of_kind(fields, "span", "metadata")
        if self._scalars:
            ours = {key: scalar(value) for key, value in ours.items()}
        own = attributes.get(METADATA, (span.attributes or {}).get(METADATA))
        metadata = {**as_object(own), **ours} if ours else {}
        if metadata:
            attributes[METADATA] = json_text(metadata)
        for level in _LEVELS:
            if any(name[:2] == (level, "tag") and name not in remainder for name in fields):
                attributes[tags_attribute(level)] = own_tags(span, fields, level)
        broken: list[FieldName] = [
            ("span", "metadata", key) for key in ours if self._flattens and not _comes_back_whole(key, metadata)
        ]
        return encoded(span, fields, attributes, remainder, also=broken)


def scalar(value: Json) -> Json:
    """Return a text, number or null as it is, and a bool, list or object as the text of its JSON."""
    return json_text(value) if isinstance(value, bool | list | dict) else value


def as_object(raw: object) -> dict[str, Json]:
    """Return the attribute that the application, or OpenInference's `using_metadata`, has set, as clean JSON.

    A value that is not a JSON object is kept under the attribute's own name. orjson is not used: it refuses the NaN
    that `json.dumps` writes, and reads a large integer as a float. Phoenix loses a span with such an integer (20.26.1).
    """
    if raw is None:
        return {}
    try:
        found = json.loads(raw) if isinstance(raw, str) else raw
    except (ValueError, RecursionError):
        found = raw
    plain = clean(found, [], METADATA, STORE_LIMITS)
    return plain if isinstance(plain, dict) else {METADATA: plain}


def _comes_back_whole(key: str, metadata: Mapping[str, Json]) -> bool:
    """Whether nothing of a key is lost when metadata is flattened into dotted keys."""
    if _has_gap(metadata[key]):
        return False
    return not any(
        (longer.startswith(f"{shorter}.") and isinstance(metadata[shorter], dict | list))
        for other in metadata
        for shorter, longer in ((key, other), (other, key))
        if "." in longer
    )


def _has_gap(value: Json) -> bool:
    """Whether a part of *value* has no dotted key: a null, an empty object, a value beside objects in a list."""
    if isinstance(value, list):
        objects = [item for item in value if isinstance(item, dict)]
        return bool(objects) and (len(objects) < len(value) or any(map(_has_gap, objects)))
    if isinstance(value, dict):
        return not value or any(map(_has_gap, value.values()))
    return value is None
