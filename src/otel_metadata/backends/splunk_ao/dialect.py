"""The `splunk_ao` dialect: Galileo's, with the names that its successor's SDK gives to metadata, tags and session.

Source: splunk-ao 0.6.1, `splunk_ao.converter.attribute_mapping` and `splunk_ao.otel`. There, metadata is a map from
text to text, so every value that is not text becomes JSON text.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, final

from otel_metadata.backends.galileo.dialect import SESSION, GalileoDialect
from otel_metadata.dialects.canonical import as_text, tags_attribute, texts
from otel_metadata.dialects.openinference import METADATA, as_object
from otel_metadata.model.merge import json_text

if TYPE_CHECKING:
    from otel_metadata.model.encoding import Encoded, SpanView
    from otel_metadata.model.merge import Fields

_METADATA: Final = "splunk_ao.metadata"
_TAGS: Final = "splunk_ao.tags"
_SESSION: Final = "gen_ai.conversation.id"
_OURS: Final = tags_attribute("span")
_GALILEO: Final = GalileoDialect()


@final
class SplunkAoDialect:
    """Metadata as one JSON text of texts, tags and session under the names of Splunk Agent Observability."""

    def encode(self, span: SpanView, fields: Fields, *, is_local_root: bool) -> Encoded:
        """Return the span's attributes with *fields*, name, status, and fields without an attribute (a null name)."""
        encoded = _GALILEO.encode(span, fields, is_local_root=is_local_root)
        attributes = dict(encoded.attributes)
        metadata = {**as_object(attributes.get(_METADATA)), **as_object(attributes.pop(METADATA, None))}
        if metadata:
            attributes[_METADATA] = json_text({key: as_text(value) for key, value in metadata.items()})
        tags = [*dict.fromkeys([*texts(attributes.get(_TAGS)), *texts(attributes.pop(_OURS, None))])]
        if tags:
            attributes[_TAGS] = tags
        attributes.pop(SESSION, None)
        if (session := attributes.get("session.id")) is not None:
            attributes.setdefault(_SESSION, session)
        return replace(encoded, attributes=attributes)
