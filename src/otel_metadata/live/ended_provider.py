"""Spans and updates that come after the tracer provider has shut the pipeline down: a log line tells of them.

The application has not asked us to end. A tracing library that is set up a second time (`logfire.configure()`) shuts
down its old provider, and our processor with it, and goes on with a new provider that does not have our processor.
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

_LINE = (
    "Spans and updates no longer reach otel_metadata: the tracer provider was shut down or replaced; call "
    "otel_metadata.configure() again."
)

_is_ended = False
_has_missed = False


def clear() -> None:
    """Note that a processor takes spans and updates again, or that the application itself shut the pipeline down."""
    global _is_ended, _has_missed  # noqa: PLW0603 # one for the process
    _is_ended = _has_missed = False


def end() -> None:
    """Note that the tracer provider shuts the processor of `configure` down, unless the process is about to end."""
    global _is_ended  # noqa: PLW0603 # as above
    if not threading.main_thread().is_alive():  # the interpreter runs its exit handlers, the provider's among them
        return
    _is_ended = True
    in_force = settings.in_force
    if not isinstance(in_force.tracer, _Telling):
        settings.use(replace(in_force, tracer=_Telling(in_force.tracer)))


def miss() -> bool:
    """Log that a span or an update came after such an end, and return True; return False if there was none."""
    global _has_missed  # noqa: PLW0603 # as above
    if _is_ended:
        _has_missed = True
        REPORTER.tell("provider_ended", _LINE)
    return _is_ended


def has_missed() -> bool:
    """Whether a span or an update came after such an end."""
    return _has_missed


@final
class _Telling(Tracer):
    """The tracer of `observe` and `start_span` after such an end: its provider may no longer have our processor."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def start_span(self, *arguments: Any, **options: Any) -> Span:
        miss()
        return self._tracer.start_span(*arguments, **options)

    def start_as_current_span(self, *arguments: Any, **options: Any) -> AbstractContextManager[Span]:  # type: ignore[override] # OpenTelemetry's type is its own
        miss()
        return self._tracer.start_as_current_span(*arguments, **options)
