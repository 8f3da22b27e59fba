"""Spans that say on their resource where Galileo is to put them, as its own exporter does.

Galileo's SDK writes session, experiment and the rest on the span, and copies them to the resource before it exports
(galileo 2.7.0, `galileo.otel.GalileoOTLPExporter.export`); that the service reads the span alone is nowhere said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.resources import Resource

from otel_metadata.exporters.altered_spans import altered

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["routed"]

_EXPERIMENT: Final = "galileo.experiment.id"
_LOG_STREAM: Final = "galileo.logstream.name"
_ROUTING: Final = (
    *("galileo.project.name", _LOG_STREAM, _EXPERIMENT, "galileo.session.id"),
    *("galileo.dataset.input", "galileo.dataset.output", "galileo.dataset.metadata"),
)


def routed(span: ReadableSpan) -> ReadableSpan:
    """Return *span*, or a view of it whose resource has what the span says of its place.

    A span of an experiment is in no log stream.
    """
    own = span.attributes or {}
    said = {name: value for name in _ROUTING if (value := own.get(name))}
    if _EXPERIMENT in said:
        said.pop(_LOG_STREAM, None)
    return altered(span, resource=span.resource.merge(Resource(said))) if said else span
