"""The `openinference` dialect: for Arize AX and Phoenix.

Span metadata is one attribute, `metadata`, a JSON object as text (OpenInference semantic conventions, "Metadata"): so
every key can be filtered on, and a null stays a null inside it. OpenInference has no word for the trace as a whole:
what is said of it stays on the local root in canonical spelling. Verdicts are no attributes in either backend; they
leave as a patch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import orjson

from otel_metadata.dialects.canonical import NOT_ATTRIBUTES, spell, tags_attribute, to_attributes
from otel_metadata.dialects.spelling import encoded, of_kind, own_tags
from otel_metadata.model.merge import Field, FieldName, Fields, Json, Level, json_text

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

    from otel_metadata.model.encoding import Encoded, SpanView

__all__ = ["METADATA", "OpenInferenceDialect", "own_metadata"]

METADATA: Final = "metadata"
"""The attribute that holds a span's metadata."""

_LEVELS: Final[tuple[Level, Level]] = ("span", "trace")
_VERDICTS: Final = frozenset({"evaluation", "annotation"})


@final
class OpenInferenceDialect:
    """Metadata as one JSON text, everything else in canonical spelling, verdicts as a patch."""

    def encode(self, span: SpanView, fields: Fields, *, is_local_root: bool) -> Encoded:
        """Return the span's attributes with *fields*, name, status, and what leaves as a patch."""
        spelled: dict[str, Json] = {}
        remainder: dict[FieldName, Field] = {}
        for name, field in sorted(fields.items(), key=lambda item: (item[1][1], item[0])):
            level, kind, _ = name
            if kind in _VERDICTS or name in NOT_ATTRIBUTES or (level == "trace" and not is_local_root):
                remainder[name] = field
            elif kind != "tag" and (level, kind) != ("span", "metadata"):
                spelled.update(spell(name, field[0]))
        attributes, _ = to_attributes(spelled)
        metadata = of_kind(fields, "span", "metadata")
        if metadata:
            attributes[METADATA] = json_text({**own_metadata(span), **metadata})
        for level in _LEVELS:
            if any(name[:2] == (level, "tag") and name not in remainder for name in fields):
                attributes[tags_attribute(level)] = own_tags(span, fields, level)
        return encoded(span, fields, attributes, remainder)


def own_metadata(span: SpanView) -> dict[str, Json]:
    """Return what the application, or OpenInference's `using_metadata`, has put there by itself."""
    raw: AttributeValue | None = (span.attributes or {}).get(METADATA)
    try:
        found = orjson.loads(raw) if isinstance(raw, str) else None
    except orjson.JSONDecodeError:
        found = None
    return found if isinstance(found, dict) else {}
