"""The `langfuse` dialect: metadata as one attribute a key, `langfuse.observation.metadata.<key>`.

The server keeps each value as text and reads it as JSON again (Langfuse, "OpenTelemetry", property mapping; server
4.16), so every value but text is JSON text, null included. Fields of the trace are on its root, the only span whose
`langfuse.trace.metadata.*` counts from Langfuse 4 on. Langfuse keeps one metadata object for the root and its trace, in
which a key of the trace hides the same key of the span, so that key of the span leaves as a patch too. Evaluations and
annotations are scores in Langfuse, never attributes: they leave as a patch. So do fields of the trace on other spans.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from otel_metadata.dialects.canonical import as_text, spell, tags_attribute, texts, to_attributes
from otel_metadata.dialects.spelling import encoded, is_attribute, of_kind, own_tags
from otel_metadata.model.merge import Field, FieldName, Fields, Level, json_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.util.types import AttributeValue

    from otel_metadata.model.encoding import Encoded, SpanView

TRACE_TAGS: Final = "langfuse.trace.tags"
SPAN_TAGS: Final = tags_attribute("span")
"""The metadata key of a span's own tags: Langfuse has tags of traces only."""

_METADATA: Final[Mapping[Level, str]] = {
    "span": "langfuse.observation.metadata.",
    "trace": "langfuse.trace.metadata.",
}
_SINGLE: Final[Mapping[tuple[str, str], str]] = {
    ("span", "input"): "langfuse.observation.input",
    ("span", "output"): "langfuse.observation.output",
    ("trace", "input"): "langfuse.trace.input",
    ("trace", "output"): "langfuse.trace.output",
    ("trace", "name"): "langfuse.trace.name",
}
# Fields of the trace that Langfuse takes from any of its spans.
_OF_ANY_SPAN: Final = frozenset({"user_id", "session_id", "tag"})


@final
class LangfuseDialect:
    """Langfuse's own attributes. Langfuse reads user and session under their canonical names."""

    def __init__(self, *, json_strings: bool = False) -> None:
        """Choose how text is written.

        Args:
            json_strings: Write text in metadata as JSON too, in quotes, so that `"123"` stays text. Only for servers
                from 4.59 on: older ones show the quotes in filters.
        """
        self._text = json_text if json_strings else as_text

    def encode(self, span: SpanView, fields: Fields, *, is_local_root: bool) -> Encoded:
        """Return the span's attributes with *fields*, name, status, and the fields that leave as a patch."""
        attributes: dict[str, AttributeValue] = {}
        remainder: dict[FieldName, Field] = {}
        tagged: set[Level] = set()
        for name, field in sorted(fields.items(), key=lambda item: (item[1][1], item[0])):
            level, kind, key = name
            if not _can_be_held(name, is_local_root=is_local_root, is_root=span.parent is None):
                remainder[name] = field
            elif kind == "metadata":
                attributes[_METADATA[level] + key] = self._text(field[0])
            elif kind == "tag":
                tagged.add(level)
            elif (level, kind) in _SINGLE:
                attributes[_SINGLE[level, kind]] = as_text(field[0])
            else:
                attributes.update(to_attributes(spell(name, field[0]))[0])
        if "span" in tagged:
            attributes[_METADATA["span"] + SPAN_TAGS] = json_text([*own_tags(span, fields, "span")])
        if "trace" in tagged:
            tags = [*texts((span.attributes or {}).get(TRACE_TAGS)), *own_tags(span, fields, "trace")]
            attributes[TRACE_TAGS] = list(dict.fromkeys(tags))
        hidden: list[FieldName] = []
        if is_local_root and span.parent is None:
            ours, traces = of_kind(fields, "span", "metadata"), of_kind(fields, "trace", "metadata")
            hidden += (("span", "metadata", key) for key in ours if key in traces and ours[key] != traces[key])
        return encoded(span, fields, attributes, remainder, also=hidden)


def _can_be_held(name: FieldName, *, is_local_root: bool, is_root: bool) -> bool:
    level, kind, key = name
    if not is_attribute(name) or (kind == "metadata" and not key):
        return False
    return level == "span" or (is_local_root and (is_root or kind in _OF_ANY_SPAN))
