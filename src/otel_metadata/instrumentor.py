"""Set-up without code: `opentelemetry-instrument` finds this class by the `opentelemetry_instrumentor` entry point.

It does nothing until `OTEL_PYTHON_METADATA_DESTINATIONS` is set. It never raises, and a second call changes nothing.
It is neither a distro nor a configurator, because those would replace the application's own.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import TYPE_CHECKING, cast, final

from otel_metadata.reporting import REPORTER

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

__all__ = ["MetadataInstrumentor"]

_is_instrumented = False


@final
class MetadataInstrumentor:
    """Calls `configure()` if the environment asks for it."""

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return no dependency: nothing has to be installed."""
        return ()

    def instrument(self, **options: object) -> None:
        """Join the tracer provider of the application.

        Args:
            options: The options that OpenTelemetry passes; only `tracer_provider` is used.
        """
        global _is_instrumented  # noqa: PLW0603 # once in a process, however many loaders call it
        if _is_instrumented or not os.environ.get("OTEL_PYTHON_METADATA_DESTINATIONS"):
            return
        try:
            from otel_metadata.pipeline import configure  # loaded only when it is needed

            configure(tracer_provider=cast("TracerProvider | None", options.get("tracer_provider")))
            _is_instrumented = True
        except Exception as error:  # noqa: BLE001 # boundary: the application has to start
            REPORTER.tell("instrument", f"otel_metadata was not set up: {error}")

    def uninstrument(self, **options: object) -> None:  # OpenTelemetry passes its own
        """Shut the pipeline down."""
        global _is_instrumented  # noqa: PLW0603 # see instrument
        from otel_metadata.pipeline import shutdown  # loaded only when it is needed

        shutdown()
        _is_instrumented = False
