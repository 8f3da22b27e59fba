"""What comes after the tracer provider has shut the pipeline down: nobody has asked us for an end, so it is told of.

Providers that are set up a second time do so (`logfire.configure()`): they shut down what they had, our processor with
it, and go on with a new provider that does not have it.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, final

from opentelemetry.trace import Tracer

from otel_metadata.live import live_settings as settings
from otel_metadata.reporting import REPORTER

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from opentelemetry.trace import Span

__all__ = ["clear", "end", "has_missed", "miss"]

_LINE = (
    "Spans and updates no longer reach otel_metadata: the tracer provider was shut down or replaced; call "
    "otel_metadata.configure() again."
)

_is_ended = False
_has_missed = False


def clear() -> None:
    """There is a processor that takes spans and updates again, or the application has asked for an end."""
    global _is_ended, _has_missed  # noqa: PLW0603 # one for the process
    _is_ended = _has_missed = False


def end() -> None:
    """The tracer provider shuts the processor of `configure` down; at the end of the process it is meant to."""
    global _is_ended  # noqa: PLW0603 # as above
    if not threading.main_thread().is_alive():  # the interpreter runs its exit handlers, the provider's among them
        return
    _is_ended = True
    in_force = settings.in_force
    if not isinstance(in_force.tracer, _Telling):
        settings.use(replace(in_force, tracer=_Telling(in_force.tracer)))


def miss() -> bool:
    """Say that a span or an update came after the end; whether there was such an end."""
    global _has_missed  # noqa: PLW0603 # as above
    if _is_ended:
        _has_missed = True
        REPORTER.tell("provider_ended", _LINE)
    return _is_ended


def has_missed() -> bool:
    """Whether a span or an update came after the end."""
    return _has_missed


@final
class _Telling(Tracer):
    """The tracer of `observe` and `start_span`, whose provider may be another by now: ours does not see its spans."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def start_span(self, *arguments: Any, **options: Any) -> Span:
        miss()
        return self._tracer.start_span(*arguments, **options)

    def start_as_current_span(self, *arguments: Any, **options: Any) -> AbstractContextManager[Span]:  # type: ignore[override] # OpenTelemetry's type is its own
        miss()
        return self._tracer.start_as_current_span(*arguments, **options)
