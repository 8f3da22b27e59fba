"""Zero code: `opentelemetry-instrument` finds this by the `opentelemetry_instrumentor` entry point.

It does nothing until `OTEL_PYTHON_METADATA_DESTINATIONS` is set, it never raises, and a second call changes nothing.
It is no distro and no configurator: those would take the place of the application's own.
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
    """Calls `configure()` where the environment asks for it."""

    def instrumentation_dependencies(self) -> Collection[str]:
        """Nothing has to be installed for it."""
        return ()

    def instrument(self, **options: object) -> None:
        """Join the tracer provider of the application.

        Args:
            options: What OpenTelemetry passes; `tracer_provider` is used, when it is there.
        """
        global _is_instrumented  # noqa: PLW0603 # once a process, however many loaders call it
        if _is_instrumented or not os.environ.get("OTEL_PYTHON_METADATA_DESTINATIONS"):
            return
        try:
            from otel_metadata.pipeline import configure  # loaded only where it is asked for

            configure(tracer_provider=cast("TracerProvider | None", options.get("tracer_provider")))
            _is_instrumented = True
        except Exception as error:  # noqa: BLE001 # the host's start-up
            REPORTER.tell("instrument", f"otel_metadata was not set up: {error}")

    def uninstrument(self, **options: object) -> None:  # OpenTelemetry passes its own
        """Shut the pipeline down."""
        global _is_instrumented  # noqa: PLW0603 # see instrument
        from otel_metadata.pipeline import shutdown  # loaded only where it is asked for

        shutdown()
        _is_instrumented = False
