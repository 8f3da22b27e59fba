"""Values that OpenTelemetry's Context carries for us: metadata for spans that start in it, and captures around them.

It is one immutable value under one key, so that the span processor does one look-up for each span that starts. It
travels exactly as far as OpenTelemetry's own context does.
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

_KEY: Final = otel_context.create_key("otel_metadata")

# Calling next() on it is atomic.
_scope_numbers: Final = itertools.count()


@final
@dataclass(frozen=True, slots=True)
class Bound:
    """The metadata and captures that are bound in a Context.

    Attributes:
        values: Set on every span that starts; not changed once bound.
        captures: Get every span that starts.
    """

    values: Values
    captures: tuple[CaptureSpans, ...]

    def with_values(self, values: Values) -> Bound:
        """Merge *values* over these: the inner block wins, key by key."""
        return replace(self, values={**self.values, **values})

    def with_capture(self, capture: CaptureSpans) -> Bound:
        """Add a capture; the outer captures stay."""
        return replace(self, captures=(*self.captures, capture))


_EMPTY: Final = Bound({}, ())


def bound_in(context: Context | None) -> Bound | None:
    """Return the metadata and captures that are bound in *context*; None means the current Context."""
    return cast("Bound | None", otel_context.get_value(_KEY, context))


def with_bound(change: Callable[[Bound], Bound]) -> Context:
    """Return the current Context with changed metadata or captures."""
    return otel_context.set_value(_KEY, change(bound_in(None) or _EMPTY))


def detach(token: object, span: Span | None = None) -> None:
    """Undo an attach in the context where it was made; do nothing in another context.

    A generator or coroutine may be closed in another context than it was started in (by the collector, by another
    task). OpenTelemetry's own detach would log an error, although there is nothing to undo in that context.

    Args:
        token: What attach returned.
        span: The span that was attached. A generator whose steps run on several threads takes it along: if it is
            current in another context, it was attached there again, and is detached there too.
    """
    if isinstance(token, Token):
        try:
            token.var.reset(token)
        except (ValueError, RuntimeError):
            if span is not None and trace.get_current_span() is span:
                before = token.old_value
                otel_context.attach(Context() if before is Token.MISSING else before)
    else:
        otel_context.detach(token)  # type: ignore[arg-type] # the token of a runtime context that the application made


@final
class ContextScope:
    """Enters and leaves a changed Context, any number of times, nested, and from any thread or task.

    The changed Context itself holds the previous one, so there is nothing here that two threads could confuse. Leaving
    it also undoes a Context that foreign code attached inside and never detached.
    """

    __slots__ = ("_key",)

    def __init__(self) -> None:
        """Start outside."""
        self._key = f"otel_metadata.scope.{next(_scope_numbers)}"

    def enter(self, context: Context) -> None:
        """Attach *context*, which was made from the current Context."""
        before = otel_context.get_current()
        otel_context.attach(otel_context.set_value(self._key, before, context))

    def is_current(self) -> bool:
        """Whether the current Context is the one that was entered, or was made from it."""
        return otel_context.get_value(self._key) is not None

    def exit(self) -> None:
        """Go back to the Context before the last enter; do nothing in a context that was not entered."""
        before = otel_context.get_value(self._key)
        if before is not None:
            otel_context.attach(cast("Context", before))
