"""Spans as those of one OpenInference project, which a backend reads off their resource.

Without the project's name Arize has nowhere to show a span, and patches name the project that the span is in: so both
have to say the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, cast, final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

if TYPE_CHECKING:
    from otel_metadata.exporters.otlp_http import OtlpHttpSender
    from otel_metadata.model.outcome import Outcome

__all__ = ["PROJECT_NAME", "InProject"]

PROJECT_NAME: Final = "openinference.project.name"


@final
class InProject(SpanExporter):
    """Sends spans whose resource names one project, whatever project it names by itself."""

    def __init__(self, sender: OtlpHttpSender, project: str) -> None:
        """Send by *sender*."""
        self._sender = sender
        self._project = Resource({PROJECT_NAME: project})
        # Spans of a process share one resource, and a receiver groups them by it.
        self._last: tuple[Resource, Resource] | None = None

    def __repr__(self) -> str:
        """Return the endpoint, without what may be secret."""
        return f"<InProject {self._sender!r}>"

    def send(self, spans: Sequence[ReadableSpan], *, timeout_millis: int) -> Outcome:
        """Send *spans*: see `OtlpHttpSender.send`."""
        return self._sender.send(self._placed(spans), timeout_millis=timeout_millis)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send *spans*: see `OtlpHttpSender.export`."""
        return self._sender.export(self._placed(spans))

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is buffered."""
        return self._sender.force_flush(timeout_millis)

    def shutdown(self) -> None:
        """Close the connection."""
        self._sender.shutdown()

    def _placed(self, spans: Sequence[ReadableSpan]) -> list[ReadableSpan]:
        return [cast("ReadableSpan", _Placed(span, self._resource(span.resource))) for span in spans]

    def _resource(self, resource: Resource) -> Resource:
        if self._last is None or self._last[0] is not resource:
            self._last = resource, resource.merge(self._project)
        return self._last[1]


class _Placed:
    """An ended span with another resource; all else is its own, dropped counts included."""

    def __init__(self, span: ReadableSpan, resource: Resource) -> None:
        self._span = span
        self.resource = resource

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 # whatever the encoder reads
        return getattr(self._span, name)
