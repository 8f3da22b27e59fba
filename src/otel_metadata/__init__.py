"""Metadata on OpenTelemetry spans, whenever it arrives: live, in flight, and after the backend has stored them.

The public names, nothing else. Each is loaded when it is first used, so that `import otel_metadata` costs an
application next to nothing. Public are also the modules in `_PUBLIC_MODULES`, with the names in their `__all__`.
Everything else may change in any release.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_metadata._version import __version__
    from otel_metadata.client import Client
    from otel_metadata.delivery.destination import Destination
    from otel_metadata.joining.wrapping import wrap_exporter
    from otel_metadata.live.capture_spans import capture_spans
    from otel_metadata.live.current import (
        annotate_current_span,
        annotate_span,
        current_span_ref,
        score_current_span,
        score_span,
        update_current_span,
        update_current_trace,
        update_span,
        update_trace,
    )
    from otel_metadata.live.observe import observe
    from otel_metadata.live.opened_spans import SpanHandle, start_span
    from otel_metadata.live.using import using_metadata
    from otel_metadata.model.receipt import Receipt
    from otel_metadata.model.span_ref import SpanRef
    from otel_metadata.model.unset import UNSET
    from otel_metadata.pipeline import configure, flush, outcome, shutdown, stats
    from otel_metadata.span_processor import MetadataSpanProcessor

_PUBLIC_MODULES = (
    "backends",
    "client",
    "errors",
    "exporters.memory",
    "exporters.store",
    "masking",
    "seams",
    "settings",
    "store.clickhouse",
    "testing",
)
"""With the modules in them that `backends` names: one for each vendor."""

_HOMES = {
    "UNSET": "model.unset",
    "Client": "client",
    "Destination": "delivery.destination",
    "MetadataSpanProcessor": "span_processor",
    "Receipt": "model.receipt",
    "SpanHandle": "live.opened_spans",
    "SpanRef": "model.span_ref",
    "__version__": "_version",
    "annotate_current_span": "live.current",
    "annotate_span": "live.current",
    "capture_spans": "live.capture_spans",
    "configure": "pipeline",
    "current_span_ref": "live.current",
    "flush": "pipeline",
    "observe": "live.observe",
    "outcome": "pipeline",
    "score_current_span": "live.current",
    "score_span": "live.current",
    "shutdown": "pipeline",
    "start_span": "live.opened_spans",
    "stats": "pipeline",
    "update_current_span": "live.current",
    "update_current_trace": "live.current",
    "update_span": "live.current",
    "update_trace": "live.current",
    "using_metadata": "live.using",
    "wrap_exporter": "joining.wrapping",
}

__all__ = [
    "UNSET",
    "Client",
    "Destination",
    "MetadataSpanProcessor",
    "Receipt",
    "SpanHandle",
    "SpanRef",
    "__version__",
    "annotate_current_span",
    "annotate_span",
    "capture_spans",
    "configure",
    "current_span_ref",
    "flush",
    "observe",
    "outcome",
    "score_current_span",
    "score_span",
    "shutdown",
    "start_span",
    "stats",
    "update_current_span",
    "update_current_trace",
    "update_span",
    "update_trace",
    "using_metadata",
    "wrap_exporter",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
