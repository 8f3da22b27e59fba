"""An ended span with fields laid over it, as its exporter gets it.

A read-only proxy: attributes, name and status are replaced, everything else is the ended span's own, its `dropped_*`
counts included (OpenTelemetry's plain constructor forgets them). Public API only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Status, StatusCode

from otel_metadata.model.encoding import is_error_status
from otel_metadata.model.masking import MASKED
from otel_metadata.model.merge import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_metadata.model.encoding import Encoded
    from otel_metadata.seams import Dialect

__all__ = ["MergedSpan", "merged", "settled_fields"]

_STATUS: Final = ("span", "status", "")
_STATUS_MESSAGE: Final = ("span", "status_message", "")

MASKED_ATTRIBUTES: Final = frozenset({"gen_ai.headers"})
"""Attributes in which instrumentors were seen to copy credentials (OpenLLMetry: the request's extra headers)."""


@final
class MergedSpan(ReadableSpan):
    """An ended span as it leaves.

    Attributes:
        fields: The exact versioned fields, for an exporter that keeps them as they are (a store).
    """

    def __init__(self, span: ReadableSpan, encoded: Encoded, fields: Fields, masked: Mapping[str, str]) -> None:
        """Lay *encoded*, and over it *masked* attributes, over *span*."""
        super().__init__(
            name=encoded.name or span.name,
            context=span.context,
            parent=span.parent,
            resource=span.resource,
            attributes={**encoded.attributes, **masked},
            events=span.events,
            links=span.links,
            kind=span.kind,
            status=_status(encoded) or span.status,
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=span.instrumentation_scope,
        )
        self._ended = span
        self.fields = fields

    @property
    def dropped_attributes(self) -> int:
        """The ended span's count."""
        return self._ended.dropped_attributes

    @property
    def dropped_events(self) -> int:
        """The ended span's count."""
        return self._ended.dropped_events

    @property
    def dropped_links(self) -> int:
        """The ended span's count."""
        return self._ended.dropped_links


def merged(span: ReadableSpan, fields: Fields, dialect: Dialect, *, is_local_root: bool) -> tuple[ReadableSpan, Fields]:
    """Return the span as it leaves, and the fields that could not be said on it.

    A span without fields leaves as it is, but for attributes that hold credentials.
    """
    attributes = span.attributes or {}
    leaks = [name for name in MASKED_ATTRIBUTES if name in attributes]
    if not fields and not leaks:
        return span, {}
    encoded = dialect.encode(span, fields, is_local_root=is_local_root)
    # A remainder is part of the fields: what a foreign dialect may have made of them is not.
    remainder = {name: fields[name] for name in encoded.remainder}
    return MergedSpan(span, encoded, fields, dict.fromkeys(leaks, MASKED)), remainder


def settled_fields(span: ReadableSpan, fields: Fields) -> Fields:
    """Return the fields without a live status that the ended span's own status overrules.

    OpenTelemetry decides the status while the span is live (`ok` is final, and the application may set it by itself);
    an update that came after the end may overrule it.
    """
    status = fields.get(_STATUS)
    if status is None or span.end_time is None or status[1][0] > span.end_time:
        return fields
    said = StatusCode.ERROR if is_error_status(status[0]) else StatusCode.OK
    if span.status.status_code in {StatusCode.UNSET, said}:
        return fields
    return {name: field for name, field in fields.items() if name not in {_STATUS, _STATUS_MESSAGE}}


def _status(encoded: Encoded) -> Status | None:
    if encoded.status is None:
        return None
    value, message = encoded.status
    return Status(StatusCode.ERROR, message) if is_error_status(value) else Status(StatusCode.OK)
