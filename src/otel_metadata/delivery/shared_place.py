"""The questions that an outbox asks where the application exports to the same place: see `joining.sharing`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

    from otel_metadata.model.span_ref import SpanKey

THEIRS: Final[SpanKey] = (-1, -1)
"""The key of a flush for the spans that wait in the application's processors; no span has it."""


class SharedPlace(Protocol):
    """A place to which exporters of the application send as well."""

    @property
    def is_shared(self) -> bool:
        """Whether there are such exporters."""
        ...

    @property
    def exporter(self) -> SpanExporter | None:
        """The adopted exporter, which exports for the destination; None when the destination has its own."""
        ...

    def look(self) -> str | None:
        """Look for new exporters; return a sentence about them for the log, or None. Called under the lock."""
        ...

    def claim(self, key: SpanKey, span: ReadableSpan) -> ReadableSpan | None:
        """Return the span to send; None when the application's exporter sends it. Called under the lock."""
        ...

    def flush(self, timeout_millis: int) -> bool:
        """Let the application's processors export their waiting spans; True when they did."""
        ...

    def close(self) -> None:
        """Close the destination's span exporter, and give the adopted exporter back."""
        ...
