"""What an update may be about: everything that names a span."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from opentelemetry.trace import Span, SpanContext

from otel_metadata.live.captured import CapturedSpan
from otel_metadata.model.span_ref import SpanRef, parse_trace_id

if TYPE_CHECKING:
    from otel_metadata.live.spans import SpanHandle

__all__ = ["Target", "resolve"]

Target: TypeAlias = "SpanRef | str | Span | SpanContext | SpanHandle | CapturedSpan"
"""A span ref, its text (a `traceparent`, or `<backend>:<id>`), an OpenTelemetry span or span context, a span handle, a
captured span."""


def resolve(target: object, *, allow_trace: bool = False) -> tuple[SpanRef, Span | None] | None:
    """Return the span ref that *target* means, and the span itself where it is at hand; None when it names none.

    Args:
        target: See `Target`.
        allow_trace: Take a trace id of 32 hex digits, or a ref without a span, as well.
    """
    span: Span | None = None
    ref: object = target
    try:
        if isinstance(target, str):
            ref = parse_trace_id(target) if allow_trace and len(target) == 32 else SpanRef.from_text(target)
        elif isinstance(target, Span):
            span = target
            ref = SpanRef.from_span_context(target.get_span_context())
        elif isinstance(target, SpanContext):
            ref = SpanRef.from_span_context(target)
        elif not isinstance(target, SpanRef):
            ref = getattr(target, "ref", None)
            held = getattr(target, "span", None)
            span = held if isinstance(held, Span) else None
    except Exception:  # noqa: BLE001 # what is no target may be anything, and looking at it is somebody's code
        return None
    if not isinstance(ref, SpanRef) or not (ref.is_valid or (allow_trace and ref) or ref.is_backend_only):
        return None
    return ref, span
