"""What OpenTelemetry's Context carries for us: metadata for the spans that start in it, and the captures that watch.

One immutable value under one key, so that the span processor does one look-up for each span that starts. It travels as
far as OpenTelemetry's own context does, and no further.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextvars import Token
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, cast, final

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from otel_metadata.live.capture_spans import CaptureSpans
    from otel_metadata.live.values import Values

__all__ = ["Bound", "ContextScope", "bound_in", "detach", "with_bound"]

_KEY: Final = otel_context.create_key("otel_metadata")

# next() of it is atomic.
_scope_numbers: Final = itertools.count()


@final
@dataclass(frozen=True, slots=True)
class Bound:
    """What is bound in a Context.

    Attributes:
        values: Set on every span that starts; not changed once bound.
        captures: Told of every span that starts.
    """

    values: Values
    captures: tuple[CaptureSpans, ...]

    def with_values(self, values: Values) -> Bound:
        """Merge *values* over these: the inner block wins, key by key."""
        return replace(self, values={**self.values, **values})

    def with_capture(self, capture: CaptureSpans) -> Bound:
        """Add a capture; the outer ones go on."""
        return replace(self, captures=(*self.captures, capture))


_EMPTY: Final = Bound({}, ())


def bound_in(context: Context | None) -> Bound | None:
    """Return what is bound in *context*, the current one when it is None."""
    return cast("Bound | None", otel_context.get_value(_KEY, context))


def with_bound(change: Callable[[Bound], Bound]) -> Context:
    """Return the current Context with what is bound in it changed."""
    return otel_context.set_value(_KEY, change(bound_in(None) or _EMPTY))


def detach(token: object, span: Span | None = None) -> None:
    """Undo an attach where it was made; do nothing elsewhere.

    A generator or coroutine may be closed in another context than it was started in (by the collector, by another
    task). OpenTelemetry's own detach logs an error then; there is nothing to undo in a context that is not ours.

    Args:
        token: What attach returned.
        span: What was attached. A generator whose steps are taken by several threads takes it along: where it is
            current, it was attached anew, and goes here too.
    """
    if isinstance(token, Token):
        try:
            token.var.reset(token)
        except (ValueError, RuntimeError):
            if span is not None and trace.get_current_span() is span:
                before = token.old_value
                otel_context.attach(Context() if before is Token.MISSING else before)
    else:
        otel_context.detach(token)  # type: ignore[arg-type] # a runtime context of the application's own


@final
class ContextScope:
    """Enters and leaves a changed Context; any number of times, nested, and from any thread or task.

    The changed Context itself remembers the one before it, so nothing is kept here that two threads could confuse, and
    leaving it also undoes a Context that foreign code attached inside and never detached.
    """

    __slots__ = ("_key",)

    def __init__(self) -> None:
        """Start outside."""
        self._key = f"otel_metadata.scope.{next(_scope_numbers)}"

    def enter(self, context: Context) -> None:
        """Attach *context*, which was made of the current one."""
        before = otel_context.get_current()
        otel_context.attach(otel_context.set_value(self._key, before, context))

    def is_current(self) -> bool:
        """Whether the current Context is what was entered, or was made of it."""
        return otel_context.get_value(self._key) is not None

    def exit(self) -> None:
        """Go back to the Context before the last enter; do nothing where it was not entered."""
        before = otel_context.get_value(self._key)
        if before is not None:
            otel_context.attach(cast("Context", before))
