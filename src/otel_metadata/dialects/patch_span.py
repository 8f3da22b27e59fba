"""A patch as the attributes of a new span, and back: how late updates travel through OTLP.

Fields with a canonical attribute have that one. The others have attributes of ours: name and status of the target are
`otel_metadata.name`, `otel_metadata.status` and `otel_metadata.status_message`; annotations of one name by further
annotators are a JSON list in `otel_metadata.annotations`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import orjson

from otel_metadata.dialects.canonical import (
    JSON_NAMES,
    VERSIONS,
    note_authors,
    read,
    spell,
    spelled_names,
    tags_attribute,
    texts,
    to_attributes,
    versions,
    versions_text,
)
from otel_metadata.model.evaluation import Annotation, annotation_key
from otel_metadata.model.merge import FieldName, Fields, Json, Level

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

    from otel_metadata.model.patch import Patch

PATCH_SCOPE: Final = "otel_metadata.patch"
"""The instrumentation scope of spans that carry a patch. Filter by it to hide them."""

TARGET: Final = "otel_metadata.target_span_id"
"""The attribute with the id of the target span, 16 hex digits."""

_ANNOTATIONS: Final = "otel_metadata.annotations"
_OWN: Final = "otel_metadata."
_LEVELS: Final[tuple[Level, Level]] = ("span", "trace")


def attributes_of(patch: Patch) -> dict[str, AttributeValue]:
    """Return the fields of a patch, their versions, its id and its target."""
    spelled: dict[str, Json] = {}
    also: list[Json] = []
    for name, (value, _) in sorted(patch.fields.items(), key=lambda item: (item[1][1], item[0])):
        level, kind, _key = name
        if kind == "tag":
            continue
        parts = spell(name, value) or {f"{_OWN}{kind}": value}
        # All attributes of the name count, also unset ones: they must not be filled from another annotator.
        if kind == "annotation" and not spelled.keys().isdisjoint(spelled_names(name, value) | parts.keys()):
            also.append(value)
            continue
        spelled.update(parts)
    if also:
        spelled[_ANNOTATIONS] = also
    for level in _LEVELS:
        tags = [tag for tag, _ in patch.of_kind(level, "tag")]
        if tags:
            spelled[tags_attribute(level)] = list(tags)
    attributes, json_names = to_attributes(spelled)
    if json_names:
        attributes[JSON_NAMES] = json_names
    attributes["otel_metadata.patch_id"] = patch.id
    attributes[TARGET] = patch.target.span_id_hex
    attributes[VERSIONS] = versions_text(patch.fields)
    return attributes


def fields_of(attributes: Mapping[str, object]) -> Fields:
    """Return the fields of a patch with their versions, without those whose attribute was removed on the way.

    The names of their authors are entered into `AUTHORS`.
    """
    listed = versions(attributes)
    note_authors(attributes)
    found: dict[FieldName, Json] = {name: value for name, (value, _) in read(attributes, (0, 0))[0].items()}
    json_names = texts(attributes.get(JSON_NAMES))

    def own(name: str) -> Json:
        value = attributes.get(name)
        try:
            return orjson.loads(value) if name in json_names and isinstance(value, str) else value  # type: ignore[return-value]
        except orjson.JSONDecodeError:
            return None

    also = own(_ANNOTATIONS)
    for level in _LEVELS:
        for value in also if isinstance(also, list) else ():
            note = Annotation.from_json(value)
            found.setdefault((level, "annotation", annotation_key(note.name, note.annotator)), note.to_json())
    for name in listed:
        attribute = name[2] if name[1] == "attribute" else f"{_OWN}{name[1]}"
        if attribute in attributes:
            found.setdefault(name, own(attribute))
    return {name: (found[name], version) for name, version in listed.items() if name in found}
