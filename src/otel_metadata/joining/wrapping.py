"""A destination made of any span exporter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from opentelemetry import trace
from opentelemetry.sdk.trace.export import ConsoleSpanExporter

from otel_metadata.arguments import checked
from otel_metadata.delivery.destination import Destination
from otel_metadata.exporters.console import ConsolePatchExporter
from otel_metadata.exporters.otlp import OtlpPatchExporter
from otel_metadata.joining.addresses import is_of
from otel_metadata.joining.providers import resource_of

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import SpanExporter

    from otel_metadata.seams import Dialect, PatchExporter


@checked
def wrap_exporter(
    exporter: SpanExporter,
    patch_exporter: PatchExporter | None = None,
    *,
    name: str | None = None,
    dialect: Dialect | Literal["otel"] = "otel",
    hold_millis: int = 0,
    resource: Resource | None = None,
) -> Destination:
    """Return a destination that sends spans by *exporter*: `configure(wrap_exporter(exporter))`.

    It takes the place of a `BatchSpanProcessor(exporter)`. Where the exporter is on the application's provider already,
    each span leaves once all the same: see `configure(adopt=...)`.

    Args:
        exporter: Any span exporter. The destination closes it.
        patch_exporter: Takes updates that come after a span was exported. None for the exporter itself: each update
            leaves as a short span beside its target, or as a line of text where *exporter* prints on the console.
        name: Of the destination; None for `otlp`, `console`, or the name of the exporter's class.
        dialect: How metadata is spelled on its spans; "otel" for canonical attributes.
        hold_millis: See `Destination`.
        resource: Of the spans that carry late updates; None for that of the global tracer provider.

    Raises:
        ConfigurationError: One of these cannot be used.
    """
    kind = type(exporter)
    is_console = isinstance(exporter, ConsoleSpanExporter)
    if name is None:
        is_otlp = is_of(exporter, "opentelemetry.exporter.otlp.")
        name = "otlp" if is_otlp else "console" if is_console else kind.__name__
    if patch_exporter is None:
        whose = resource if resource is not None else resource_of(trace.get_tracer_provider())
        patch_exporter = (
            ConsolePatchExporter() if is_console else OtlpPatchExporter(exporter, resource=whose, name=name)
        )
    return Destination(name, exporter, patch_exporter, dialect, hold_millis)
