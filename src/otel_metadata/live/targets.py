"""The targets that an update accepts: everything that names a span."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from opentelemetry.trace import Span, SpanContext, TraceFlags

from otel_metadata.interrupts import pass_on
from otel_metadata.live.capture_spans import CapturedSpan
from otel_metadata.model.span_ref import SpanRef, trace_of

if TYPE_CHECKING:
    from otel_metadata.live.opened_spans import SpanHandle


class HasSpanContext(Protocol):
    """Anything that returns a span context as OpenTelemetry's spans do: `logfire.span()`, a span of another library."""

    def get_span_context(self) -> SpanContext:
        """Return the span context."""
        ...


class HasIds(Protocol):
    """Anything with the two ids of a span, as numbers or as hex digits: Datadog's spans, a stored record."""

    @property
    def trace_id(self) -> int | str:
        """The id of the trace."""
        ...

    @property
    def span_id(self) -> int | str:
        """The id of the span."""
        ...


class HasTraceAndOwnId(Protocol):
    """Anything with its trace's id and its own, as hex digits: Langfuse's spans."""

    trace_id: str
    id: str


Target: TypeAlias = (
    "SpanRef | str | Span | SpanContext | SpanHandle | CapturedSpan | HasSpanContext | HasIds | HasTraceAndOwnId"
)
"""A span ref, its text (a `traceparent`, or `<backend>:<id>`), an OpenTelemetry span or span context, a span handle, a
captured span, or any object that has a span context or the ids of a span."""

_HEX: Final = re.compile("[0-9a-f]+")

_WRAPPED: Final = ("span", "_span", "_otel_span", "otel_span", "__wrapped__")
"""Where objects of other libraries keep the span that they are about."""


def resolve(target: object, *, allow_trace: bool = False) -> tuple[SpanRef, Span | None] | None:
    """Return the span ref that *target* names, and the span itself if *target* has it; None if it names no span.

    Args:
        target: See `Target`.
        allow_trace: Take a trace id (see `trace_of`), or a ref without a span, as well.
    """
    span: Span | None = None
    ref: object = target
    try:
        if allow_trace and (of_trace := trace_of(target)) is not None:
            ref = of_trace
        elif isinstance(target, str):
            ref = SpanRef.from_text(target)
        elif isinstance(target, Span):
            span = target
            ref = SpanRef.from_span_context(target.get_span_context())
        elif isinstance(target, SpanContext):
            ref = SpanRef.from_span_context(target)
        elif not isinstance(target, SpanRef):
            ref = _read(target, "ref")
            if isinstance(ref, SpanRef):
                held = _read(target, "span")
                span = held if isinstance(held, Span) else None
            else:
                inside = [_read(target, name) for name in _WRAPPED]
                span = next((held for held in inside if isinstance(held, Span)), None)
                ref = next(filter(None, map(_ref_of, (target, *inside))), None)
    except BaseException as error:  # noqa: BLE001 # a wrong target may be anything, and reading it runs somebody's code
        pass_on(error)
        return None
    if not isinstance(ref, SpanRef) or not (ref.is_valid or (allow_trace and ref) or ref.is_backend_only):
        return None
    return ref, span


def _read(target: object, name: str) -> object:
    """Return an attribute; None where it is missing or cannot be read. A mock has every attribute."""
    try:
        return getattr(target, name, None)
    except BaseException as error:  # noqa: BLE001 # somebody's code
        pass_on(error)
        return None


def _ref_of(target: object) -> SpanRef | None:
    """Return the ref of an object that has a span context, or ids."""
    if isinstance(target, type):
        return None
    get = _read(target, "get_span_context")
    if callable(get):
        found = _ids(get())
        if found is not None:
            return found
    return _ids(_read(target, "context")) or _ids(target)


def _ids(holder: object) -> SpanRef | None:
    """Return the ref that is made of an object's ids; None when it lacks one of them."""
    span_id = _read(holder, "span_id")
    trace = _number(_read(holder, "trace_id"), 32)
    span = _number(span_id if span_id is not None else _read(holder, "id"), 16)
    if not trace or not span:
        return None
    flags = _read(holder, "trace_flags")
    # Sampled unless it says otherwise: only OpenTelemetry's objects have flags.
    return SpanRef(trace, span, not isinstance(flags, int) or bool(flags & TraceFlags.SAMPLED))


def _number(value: object, digits: int) -> int | None:
    """Return an id, from a number or from hex digits; None for anything else."""
    if isinstance(value, str):
        return int(value, 16) if len(value) == digits and _HEX.fullmatch(value) else None
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else None
