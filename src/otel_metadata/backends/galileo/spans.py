"""Spans whose resource says where Galileo puts them, as with Galileo's own exporter.

Galileo's SDK writes project, session, experiment and dataset on the span, and copies them to the resource before it
exports (galileo 2.7.0, `galileo.otel.GalileoOTLPExporter.export`). No page says that the service reads them from the
span alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.resources import Resource

from otel_metadata.exporters.altered_spans import altered

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

_EXPERIMENT: Final = "galileo.experiment.id"
_LOG_STREAM: Final = "galileo.logstream.name"
_ROUTING: Final = (
    *("galileo.project.name", _LOG_STREAM, _EXPERIMENT, "galileo.session.id"),
    *("galileo.dataset.input", "galileo.dataset.output", "galileo.dataset.metadata"),
)


def routed(span: ReadableSpan) -> ReadableSpan:
    """Return *span*, or a view of it whose resource has the span's own project, session, experiment and dataset.

    A span of an experiment belongs to no log stream.
    """
    own = span.attributes or {}
    routing = {name: value for name in _ROUTING if (value := own.get(name))}
    if _EXPERIMENT in routing:
        routing.pop(_LOG_STREAM, None)
    return altered(span, resource=span.resource.merge(Resource(routing))) if routing else span
