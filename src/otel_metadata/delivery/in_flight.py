"""An ended span as its exporter gets it: without credentials, and with fields laid over it.

Read-only proxies: some parts are replaced, everything else is the ended span's own, its `dropped_*` counts included
(OpenTelemetry's plain constructor forgets them). Public API only.
"""

from __future__ import annotations

from operator import is_
from typing import TYPE_CHECKING, Final, final

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Link, Status, StatusCode

from otel_metadata.model.credentials import MASKED, attributes_with_secrets
from otel_metadata.model.encoding import is_error_status
from otel_metadata.model.merge import Fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.util.types import Attributes

    from otel_metadata.model.encoding import Encoded
    from otel_metadata.seams import Dialect

_STATUS: Final = ("span", "status", "")
_STATUS_MESSAGE: Final = ("span", "status_message", "")


class _Proxy(ReadableSpan):
    """An ended span with some parts replaced."""

    def __init__(
        self,
        span: ReadableSpan,
        attributes: Attributes,
        *,
        name: str | None = None,
        status: Status | None = None,
        events: Sequence[Event] | None = None,
        links: Sequence[Link] | None = None,
    ) -> None:
        """Replace the attributes, and each other part that is given."""
        super().__init__(
            name=name or span.name,
            context=span.context,
            parent=span.parent,
            resource=span.resource,
            attributes=attributes,
            events=span.events if events is None else events,
            links=span.links if links is None else links,
            kind=span.kind,
            status=status or span.status,
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=span.instrumentation_scope,
        )
        self._ended = span

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


@final
class MergedSpan(_Proxy):
    """An ended span with fields laid over it.

    Attributes:
        fields: The exact versioned fields, for an exporter that keeps them as they are (a store).
    """

    def __init__(self, span: ReadableSpan, encoded: Encoded, fields: Fields) -> None:
        """Lay *encoded* over *span*."""
        # A copy: a foreign dialect may keep its own, and one that returned none has failed.
        super().__init__(span, {**encoded.attributes}, name=encoded.name, status=_status(encoded))
        self.fields = fields


def span_without_credentials(span: ReadableSpan, *, masks_credentials: bool) -> ReadableSpan:
    """Return an ended span whose attributes, events and links hold no credentials; itself when they hold none.

    Instrumentors copy headers and connection strings into attributes. Values that were set through this library were
    masked then; the values of others are masked here.

    Args:
        span: Not changed.
        masks_credentials: False for the attributes alone that are always masked.
    """
    own, events, links = span.attributes, span.events, span.links
    attributes = _without_credentials(own, masks_credentials)
    kept_events = [_event(event, masks_credentials) for event in events] if events else events
    kept_links = [_link(link, masks_credentials) for link in links] if links else links
    if attributes is own and all(map(is_, kept_events, events)) and all(map(is_, kept_links, links)):
        return span
    return _Proxy(span, attributes, events=kept_events, links=kept_links)


def _event(event: Event, masks_credentials: bool) -> Event:
    own = event.attributes
    attributes = _without_credentials(own, masks_credentials)
    return event if attributes is own else Event(event.name, attributes, event.timestamp)


def _link(link: Link, masks_credentials: bool) -> Link:
    own = link.attributes
    attributes = _without_credentials(own, masks_credentials)
    return link if attributes is own else Link(link.context, attributes)


def _without_credentials(attributes: Attributes, masks_credentials: bool) -> Attributes:
    if not attributes:
        return attributes
    found = attributes_with_secrets(attributes, by_name=masks_credentials)
    return {**attributes, **dict.fromkeys(found, MASKED)} if found else attributes


def merged(span: ReadableSpan, fields: Fields, dialect: Dialect, *, is_local_root: bool) -> tuple[ReadableSpan, Fields]:
    """Return the span as it leaves, and the fields that it cannot hold; without fields it is the span."""
    if not fields:
        return span, {}
    encoded = dialect.encode(span, fields, is_local_root=is_local_root)
    # The remainder has our own fields: a foreign dialect may have changed them.
    remainder = {name: fields[name] for name in encoded.remainder}
    return MergedSpan(span, encoded, fields), remainder


def settled_fields(span: ReadableSpan, fields: Fields) -> Fields:
    """Return the fields without a live status that the ended span's own status overrules.

    OpenTelemetry decides the status while the span is live (`ok` is final, and the application may set it by itself);
    an update that came after the end may overrule it.
    """
    status = fields.get(_STATUS)
    if status is None or span.end_time is None or status[1][0] > span.end_time:
        return fields
    updated = StatusCode.ERROR if is_error_status(status[0]) else StatusCode.OK
    if span.status.status_code in {StatusCode.UNSET, updated}:
        return fields
    return {name: field for name, field in fields.items() if name not in {_STATUS, _STATUS_MESSAGE}}


def _status(encoded: Encoded) -> Status | None:
    if encoded.status is None:
        return None
    value, message = encoded.status
    return Status(StatusCode.ERROR, message) if is_error_status(value) else Status(StatusCode.OK)
