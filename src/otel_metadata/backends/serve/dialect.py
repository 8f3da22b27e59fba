"""The dialect of a server of ours: all fields as they are, in one attribute.

Canonical attributes have no version for a value that was set before the span's end, and none at all for some fields.
The server takes the attribute off the span, and the canonical attributes that it repeats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from otel_metadata.dialects.canonical import FIELDS, fields_text
from otel_metadata.dialects.spelling import name_of, status_of
from otel_metadata.model.encoding import Encoded

if TYPE_CHECKING:
    from otel_metadata.model.encoding import SpanView
    from otel_metadata.model.merge import Fields


@final
class ServeDialect:
    """See the module."""

    def encode(self, span: SpanView, fields: Fields, *, is_local_root: bool) -> Encoded:  # the server has no roots
        """Return the span's attributes with `FIELDS`, name and status. Nothing remains."""
        attributes = {**(span.attributes or {}), FIELDS: fields_text(fields)}
        return Encoded(attributes, name=name_of(fields), status=status_of(fields))
