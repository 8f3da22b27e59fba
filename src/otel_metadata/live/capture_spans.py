"""`capture_spans`: the spans that start inside a block, whoever starts them.

An LLM span that an instrumentor opens is often never the current span, and often ends long after the call returned.
A capture keeps its name from the moment it starts, so that it can be updated at any time.
It keeps ids, never spans (a span object is large, and holds what the application thought was gone).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias, final

from otel_metadata.interrupts import pass_on
from otel_metadata.live import context
from otel_metadata.live.misuse import kind_of, log_misfits, misfit, unknown_arguments
from otel_metadata.model.span_ref import INVALID_SPAN_REF, SpanRef
from otel_metadata.reporting import REPORTER

if TYPE_CHECKING:
    from types import TracebackType

    from opentelemetry.trace import Span

__all__ = ["CaptureSpans", "CapturedSpan", "Match", "capture_spans", "is_llm_span"]

Match: TypeAlias = "Callable[[Span], bool]"
"""Whether a span that starts is wanted; called on the application's thread, as the span starts. Most attributes of an
instrumentor's span come later; its scope, name and kind are there."""

# Scopes whose every span is a call of a model. By scope, never by package: the chat spans of openai-v2 carry the name
# of OpenTelemetry's shared GenAI library.
_LLM_SCOPES: Final = frozenset(
    {
        "opentelemetry.util.genai.handler",
        "openinference.instrumentation.openai",
        "openinference.instrumentation.anthropic",
        "com.anthropic.sdk.python",
    }
)
_LLM_SCOPE_PREFIXES: Final = (
    "opentelemetry.instrumentation.openai",
    "opentelemetry.instrumentation.anthropic",
    "opentelemetry.instrumentation.google_genai",
)
# Scopes of clients that open a span of their own for the call that an instrumentor traces as well.
_CLIENT_SCOPES: Final = frozenset({"com.anthropic.sdk.python"})
# Not calls of a model: OpenTelemetry's GenAI conventions, "gen_ai.operation.name"; OpenLLMetry's "traceloop.span.kind".
_OTHER_OPERATIONS: Final = (
    "create_agent",
    "embedding",
    "execute_tool",
    "invoke_agent",
    "invoke_workflow",
    "rerank",
    "retriev",
)
_LLM_ATTRIBUTES: Final = ("gen_ai.operation.name", "gen_ai.request.model", "gen_ai.system", "gen_ai.provider.name")

# A capture around a long loop must not grow without end; the latest are kept, the first is kept as well.
MAX_CAPTURED: Final = 10_000

# How many of them are looked at for the instrumentor's span of a call.
MAX_LOOK_BACK: Final = 100


@final
class CapturedSpan:
    """The name of a span that started inside a capture; a target for updates.

    Attributes:
        ref: Its span ref; invalid, and refused by every update, when nothing was captured.
        name: The name it started with.
        scope_name: The instrumentation scope that opened it.
        is_llm: Whether it is the call of a model, as far as its scope and attributes tell, at the latest when it ends.
        is_ended: Whether it has ended.
        parent_id: The span id of its parent, 0 for a root.
    """

    __slots__ = ("_outer", "is_ended", "is_llm", "name", "parent_id", "ref", "scope_name")

    def __init__(
        self,
        ref: SpanRef,
        name: str,
        scope_name: str,
        *,
        is_llm: bool,
        parent_id: int = 0,
        outer: CapturedSpan | None = None,
    ) -> None:
        """Keep the facts.

        Args:
            ref: Its span ref.
            name: The name it started with.
            scope_name: Its instrumentation scope.
            is_llm: As far as is known at its start.
            parent_id: The span id of its parent, 0 for a root.
            outer: Its parent, where that was captured.
        """
        self.ref = ref
        self.name = name
        self.scope_name = scope_name
        self.is_llm = is_llm
        self.is_ended = False
        self.parent_id = parent_id
        self._outer = outer

    def around(self) -> Iterator[CapturedSpan]:
        """Yield the captured spans that it is inside of, nearest first, up to one that was not captured."""
        outer = self._outer
        while outer is not None:
            yield outer
            outer = outer._outer

    def find_outer(self, others: Iterable[CapturedSpan]) -> None:
        """Find the instrumentor's span of the same call among *others* where that is not the parent.

        An instrumentor need not make its span current: then the client's own is a child of the caller, and starts while
        the instrumentor's lives.
        """
        if self.scope_name not in _CLIENT_SCOPES or (self._outer is not None and self._outer.is_llm):
            return
        for other in others:
            if (
                other.is_llm
                and not other.is_ended
                and other.scope_name not in _CLIENT_SCOPES
                and (other.ref.trace_id, other.parent_id) == (self.ref.trace_id, self.parent_id)
            ):
                self._outer = other
                return

    def __bool__(self) -> bool:
        """Whether a span was captured at all."""
        return bool(self.ref)

    def __repr__(self) -> str:
        """A status line."""
        return f"<CapturedSpan {self.name!r} {self.ref}>" if self else "<CapturedSpan none>"


_NOTHING: Final = CapturedSpan(INVALID_SPAN_REF, "", "", is_llm=False)


def is_llm_span(scope_name: str, attributes: Mapping[str, object] | None) -> bool:
    """Whether a span is the call of a model that answers, by what it says so far; not one that embeds.

    Source: the scopes and attributes that instrumentors were seen to write; `openinference.span.kind` of the
    OpenInference conventions, `gen_ai.*` of OpenTelemetry's.
    """
    found = attributes or {}
    kind = found.get("openinference.span.kind")
    if kind is not None:
        return kind == "LLM"
    operation = found.get("gen_ai.operation.name") or found.get("llm.request.type")
    if "traceloop.span.kind" in found or (isinstance(operation, str) and operation.startswith(_OTHER_OPERATIONS)):
        return False
    if scope_name in _LLM_SCOPES or scope_name.startswith(_LLM_SCOPE_PREFIXES):
        return True
    return any(name in found for name in _LLM_ATTRIBUTES)


@final
class CaptureSpans:
    """The spans that start inside the block; closed at its exit, kept afterwards.

    Any thread that inherits OpenTelemetry's context adds to it. Use it with `with` or `async with`, once.
    """

    def __init__(self, match: Match | None) -> None:
        """Remember the filter."""
        self._match = match
        self._lock = threading.RLock()
        self._spans: list[CapturedSpan] = []
        self._is_open = False
        self._scope = context.ContextScope()

    @property
    def all(self) -> tuple[CapturedSpan, ...]:
        """The captured spans in the order in which they started; at most 10,000, the middle ones are dropped."""
        return tuple(self._spans)

    @property
    def last(self) -> CapturedSpan:
        """The span that started last; never None, an empty one refuses updates."""
        return self._spans[-1] if self._spans else _NOTHING

    @property
    def llm(self) -> CapturedSpan:
        """The call of a model that started last; never None, an empty one refuses updates.

        Where several spans are about one call, one inside the other, it is the outermost: the instrumentor's, not the
        one that the client opens inside it.
        """
        spans = self._spans.copy()
        last = next((span for span in reversed(spans) if span.is_llm), _NOTHING)
        # Two spans of one instrumentor are two calls, also where a stream that was dropped left its span current.
        scopes = {last.scope_name}
        for outer in last.around():
            if outer.is_llm and any(outer is one for one in spans):
                if outer.scope_name in scopes and is_llm_span(outer.scope_name, None):
                    break
                scopes.add(outer.scope_name)
                last = outer
        return last

    def add(self, span: Span, captured: CapturedSpan) -> bool:
        """Take a span that starts, if the block is still open and the filter wants it; called by the processor."""
        if not self._is_open:
            return False
        if self._match is not None:
            try:
                if not self._match(span):
                    return False
            except BaseException as error:  # noqa: BLE001 # the filter is the application's
                pass_on(error)
                REPORTER.tell("match", f"capture_spans: match raised {type(error).__name__}; the span is not captured")
                return False
        with self._lock:
            captured.find_outer(islice(reversed(self._spans), MAX_LOOK_BACK))
            self._spans.append(captured)
            if len(self._spans) > MAX_CAPTURED:
                del self._spans[1]
        return True

    def __enter__(self) -> CaptureSpans:
        """Start capturing."""
        self._is_open = True
        self._scope.enter(context.with_bound(lambda bound: bound.with_capture(self)))
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop capturing: a span that starts later in a thread that still holds the context is not taken."""
        self._is_open = False
        self._scope.exit()

    async def __aenter__(self) -> CaptureSpans:
        """Start capturing."""
        return self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop capturing."""
        self.__exit__(exc_type, exc, traceback)

    def __repr__(self) -> str:
        """A status line."""
        return f"<CaptureSpans {'open' if self._is_open else 'closed'}, {len(self._spans)} spans>"


def capture_spans(match: Match | None = None, *_unknown: NoReturn, **_misplaced: NoReturn) -> CaptureSpans:
    """Capture the spans that start inside a block, whoever starts them.

    ```python
    with otel_metadata.capture_spans() as captured:
        client.chat.completions.create(...)
    otel_metadata.update_span(captured.llm, metadata={"reviewed": True})
    ```

    It sees spans of every provider that carries a `MetadataSpanProcessor`, in whatever thread or task OpenTelemetry's
    context reaches.

    Args:
        match: Whether a span that starts is wanted; None for all, as for what cannot be called.
    """
    notes = unknown_arguments(capture_spans, _unknown, _misplaced)
    given: object = match
    if given is not None and not callable(given):
        notes.append(misfit("match", kind_of(given), "a function of a span", "every span is captured"))
    log_misfits("capture_spans", notes)
    return CaptureSpans(match if callable(given) else None)
