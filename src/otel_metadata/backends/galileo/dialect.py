"""The `galileo` dialect: OpenInference's spelling, and all other fields as canonical attributes of the span.

Galileo reads OpenInference, and takes no metadata once a span is stored. So every field that can leave with the span
does, evaluations and annotations included.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final, final

from otel_metadata.dialects.canonical import spell, spelled_names, to_attributes
from otel_metadata.dialects.openinference import OpenInferenceDialect

if TYPE_CHECKING:
    from otel_metadata.model.encoding import Encoded, SpanView
    from otel_metadata.model.merge import Field, FieldName, Fields, Json

SESSION: Final = "galileo.session.id"
"""The attribute for a session that Galileo made. Its id is a UUID; any other session is only `session.id`."""

FURTHER_ANNOTATIONS: Final = "otel_metadata.annotations"
"""Annotations of one name by further annotators, as a JSON list; the first annotator's has attributes of its own."""

_OPENINFERENCE: Final = OpenInferenceDialect()

# With hyphens: one in 64 trace ids of OpenTelemetry has the bits of a version 4 UUID, but names no record of Galileo's.
_UUID4: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII)


def uuid4(identifier: object) -> str | None:
    """Return a UUID of version 4 in the form that Galileo writes; None for everything else."""
    text = str(identifier).lower()
    return text if _UUID4.fullmatch(text) is not None else None


@final
class GalileoDialect:
    """OpenInference, verdicts and trace fields as canonical attributes, and Galileo's own name for a session."""

    def encode(self, span: SpanView, fields: Fields, *, is_local_root: bool) -> Encoded:
        """Return the span's attributes with *fields*, name, status, and fields without an attribute (a null name)."""
        # Fields of the trace go on any span: a patch of the trace would need an id that nobody here knows.
        encoded = _OPENINFERENCE.encode(span, fields, is_local_root=True)
        attributes = dict(encoded.attributes)
        spelled: dict[str, Json] = {}
        also: list[Json] = []
        remainder: dict[FieldName, Field] = {}
        for name, field in sorted(encoded.remainder.items(), key=lambda item: (item[1][1], item[0])):
            parts = spell(name, field[0])
            if not parts:
                remainder[name] = field
                continue
            if name[1] == "annotation" and not spelled.keys().isdisjoint(parts):
                also.append(field[0])
                continue
            # Attributes of an earlier value are still on the live span, and are no part of this one.
            for stale in spelled_names(name, field[0]) - spelled.keys():
                attributes.pop(stale, None)
            spelled.update(parts)
        if also:
            spelled[FURTHER_ANNOTATIONS] = also
        for name, (value, _) in fields.items():
            session = uuid4(value) if name[1] == "session_id" else None
            if session is not None:
                spelled[SESSION] = session
        return replace(encoded, attributes={**attributes, **to_attributes(spelled)[0]}, remainder=remainder)
