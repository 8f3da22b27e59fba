"""The `galileo` dialect: OpenInference's spelling, with everything on the span that has a place on a span.

Galileo reads OpenInference, and takes no metadata once a span is stored: what can leave with the span does, verdicts
included, as ordinary attributes in canonical spelling.
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

__all__ = ["SESSION", "GalileoDialect", "uuid4"]

SESSION: Final = "galileo.session.id"
"""A session that Galileo made: its id is a UUID, so any other text stays `session.id` alone."""

FURTHER_ANNOTATIONS: Final = "otel_metadata.annotations"
"""Annotations of one name by further annotators, as a JSON list: those of the first have the attributes."""

_OPENINFERENCE: Final = OpenInferenceDialect()

# With hyphens: one in 64 trace ids of OpenTelemetry has the bits of a version 4 UUID, and is no record of Galileo's.
_UUID4: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII)


def uuid4(identifier: object) -> str | None:
    """Return a UUID of version 4 in the form that Galileo writes; None for everything else."""
    text = str(identifier).lower()
    return text if _UUID4.fullmatch(text) is not None else None


@final
class GalileoDialect:
    """OpenInference, verdicts and trace fields as canonical attributes, and Galileo's own name for a session."""

    def encode(self, span: SpanView, fields: Fields, *, is_local_root: bool) -> Encoded:
        """Return the span's attributes with *fields*, name, status, and what is no attribute (a null as name)."""
        # A child says of its trace what a root would: a patch of the trace needs an id that nobody here knows.
        said = _OPENINFERENCE.encode(span, fields, is_local_root=True)
        attributes = dict(said.attributes)
        spelled: dict[str, Json] = {}
        also: list[Json] = []
        remainder: dict[FieldName, Field] = {}
        for name, field in sorted(said.remainder.items(), key=lambda item: (item[1][1], item[0])):
            parts = spell(name, field[0])
            if not parts:
                remainder[name] = field
                continue
            if name[1] == "annotation" and not spelled.keys().isdisjoint(parts):
                also.append(field[0])
                continue
            # What an earlier value of the same verdict has left on the live span is not part of this one.
            for stale in spelled_names(name, field[0]) - spelled.keys():
                attributes.pop(stale, None)
            spelled.update(parts)
        if also:
            spelled[FURTHER_ANNOTATIONS] = also
        for name, (value, _) in fields.items():
            session = uuid4(value) if name[1] == "session_id" else None
            if session is not None:
                spelled[SESSION] = session
        return replace(said, attributes={**attributes, **to_attributes(spelled)[0]}, remainder=remainder)
