"""Spans as those of one OpenInference project, which a backend reads off their resource.

Without the project's name Arize has nowhere to show a span, and patches name the project that the span is in: so both
have to say the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from opentelemetry.sdk.resources import Resource

from otel_metadata.exporters.altered_spans import altered

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["PROJECT_NAME", "InProject"]

PROJECT_NAME: Final = "openinference.project.name"


@final
class InProject:
    """Returns spans whose resource names one project, whatever project it names by itself."""

    def __init__(self, project: str) -> None:
        """Remember the name."""
        self._project = Resource({PROJECT_NAME: project})
        # Spans of a process share one resource, and a receiver groups them by it.
        self._last: tuple[Resource, Resource] | None = None

    def __call__(self, span: ReadableSpan) -> ReadableSpan:
        """Return a view of *span*."""
        if self._last is None or self._last[0] is not span.resource:
            self._last = span.resource, span.resource.merge(self._project)
        return altered(span, resource=self._last[1])
