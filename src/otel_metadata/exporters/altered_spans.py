"""Views of spans with another resource or other attributes, for backends that need them.

A dialect only sees spans on which something was set. The changes here apply to every span.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast, final

from opentelemetry.sdk.resources import Resource

from otel_metadata.exporters.otlp_sender import OtlpSender

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.util.types import AttributeValue

    from otel_metadata.model.outcome import Outcome


@final
class AlteredSpans(OtlpSender):
    """Sends a view of each span.

    Attributes:
        alter: Returns the view that is sent.
    """

    def __init__(self, sender: OtlpSender, alter: Callable[[ReadableSpan], ReadableSpan]) -> None:
        """Send through *sender*.

        Args:
            sender: Closed with this exporter.
            alter: Returns the span itself, or a view of it (`altered`). It must not raise.
        """
        self._sender = sender
        self.alter = alter
        self.timeout_millis = sender.timeout_millis
        self.where = sender.where

    def __repr__(self) -> str:
        """Return the endpoint, without parts that may be secret."""
        return f"<AlteredSpans {self._sender!r}>"

    def send(self, spans: Sequence[ReadableSpan], *, timeout_millis: int) -> Outcome:
        """See `OtlpSender.send`."""
        return self._sender.send([self.alter(span) for span in spans], timeout_millis=timeout_millis)

    def shutdown(self) -> None:
        """Close the connection."""
        self._sender.shutdown()


@final
class OnResource:
    """Adds attributes to the resource of each span."""

    def __init__(self, attributes: Mapping[str, str], *, overrides: bool) -> None:
        """Remember the attributes.

        Args:
            attributes: Added to every resource.
            overrides: Whether they replace attributes of the same name that a resource has already.
        """
        self._more = Resource(dict(attributes))
        self._overrides = overrides
        # Spans of a process share one resource, and a receiver groups them by it.
        self._last: tuple[Resource, Resource] | None = None

    def __call__(self, span: ReadableSpan) -> ReadableSpan:
        """Return a view of *span*."""
        if self._last is None or self._last[0] is not span.resource:
            self._last = span.resource, self.of(span.resource)
        return altered(span, resource=self._last[1])

    def of(self, resource: Resource | None) -> Resource:
        """Return *resource* with the attributes added; None stands for the resource that the environment describes."""
        own = resource if resource is not None else Resource.create()
        return own.merge(self._more) if self._overrides else self._more.merge(own)


def altered(
    span: ReadableSpan, *, resource: Resource | None = None, attributes: Mapping[str, AttributeValue] | None = None
) -> ReadableSpan:
    """Return a view of an ended span with another resource or other attributes. Everything else is the span's own.

    Args:
        span: Not changed.
        resource: None keeps the span's own.
        attributes: None keeps the span's own.
    """
    parts = {"resource": resource, "attributes": attributes}
    return cast("ReadableSpan", _View(span, {name: part for name, part in parts.items() if part is not None}))


def with_texts(span: ReadableSpan, rewrite: Callable[[str, str], str]) -> ReadableSpan:
    """Return *span*, or a view of it in which texts among its attributes are replaced.

    Args:
        span: Not changed.
        rewrite: Takes the name of an attribute and its text, and returns the same text or another one.
    """
    own = span.attributes or {}
    texts = {name: rewrite(name, value) for name, value in own.items() if isinstance(value, str)}
    changed = {name: text for name, text in texts.items() if text is not own[name]}
    return altered(span, attributes={**own, **changed}) if changed else span


class _View:
    def __init__(self, span: ReadableSpan, parts: Mapping[str, object]) -> None:
        self._span = span
        self.__dict__.update(parts)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 # whatever the encoder reads
        return getattr(self._span, name)
