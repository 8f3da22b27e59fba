"""`capture_spans`: the spans that start inside a block, whoever starts them.

An LLM span that an instrumentor opens is often never the current span, and often ends long after the call returned.
A capture keeps a reference from the moment the span starts, so that the span can be updated at any time.
It keeps ids, never spans: a span object is large, and keeps alive what the application thought was gone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
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

Match: TypeAlias = "Callable[[Span], bool]"
"""Whether to capture a span; called on the application's thread as the span starts. At that time an instrumentor's span
has its scope, name and kind; most of its attributes come later."""

# Scopes whose spans are all calls of a model. By scope, never by package: the scope of the chat spans of openai-v2 is
# OpenTelemetry's shared GenAI library.
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
# Scopes of clients that open their own span for a call that an instrumentor traces as well.
_CLIENT_SCOPES: Final = frozenset({"com.anthropic.sdk.python"})
# Operations that are not calls of a model. Source: "gen_ai.operation.name" of OpenTelemetry's GenAI conventions.
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

# A capture around a long loop must not grow without end: the first span and the latest ones are kept.
MAX_CAPTURED: Final = 10_000

# How many captured spans are searched for the instrumentor's span of a call.
MAX_LOOK_BACK: Final = 100


@final
@dataclass(slots=True, eq=False, repr=False)
class CapturedSpan:
    """A reference to a span that started inside a capture; a target for updates.

    Attributes:
        ref: The span ref; invalid, and refused by every update, when nothing was captured.
        name: The name with which the span started.
        scope_name: The instrumentation scope that opened the span.
        is_llm: Whether the span is the call of a model, by its scope and attributes; judged again when the span ends.
        parent_id: The span id of the parent, 0 for a root.
        outer: The captured span around this one, None if it was not captured.
        is_ended: Whether the span has ended.
    """

    ref: SpanRef
    name: str
    scope_name: str
    _: KW_ONLY
    is_llm: bool
    parent_id: int = 0
    outer: CapturedSpan | None = None
    is_ended: bool = False

    def around(self) -> Iterator[CapturedSpan]:
        """Yield the captured spans around this one, nearest first, up to a span that was not captured."""
        outer = self.outer
        while outer is not None:
            yield outer
            outer = outer.outer

    def find_outer(self, others: Iterable[CapturedSpan]) -> None:
        """Find the instrumentor's span of the same call among *others*, if it is not the parent.

        An instrumentor need not make its span current. Then the client's own span is a child of the caller's span, and
        starts while the instrumentor's span is live.
        """
        if self.scope_name not in _CLIENT_SCOPES or (self.outer is not None and self.outer.is_llm):
            return
        for other in others:
            if (
                other.is_llm
                and not other.is_ended
                and other.scope_name not in _CLIENT_SCOPES
                and (other.ref.trace_id, other.parent_id) == (self.ref.trace_id, self.parent_id)
            ):
                self.outer = other
                return

    def __bool__(self) -> bool:
        """Whether a span was captured at all."""
        return bool(self.ref)

    def __repr__(self) -> str:
        """A status line."""
        return f"<CapturedSpan {self.name!r} {self.ref}>" if self else "<CapturedSpan none>"


_NOTHING: Final = CapturedSpan(INVALID_SPAN_REF, "", "", is_llm=False)


def is_llm_span(scope_name: str, attributes: Mapping[str, object] | None) -> bool:
    """Whether a span is the call of a model that answers (not of one that embeds), by its scope and present attributes.

    Source: the scopes and attributes that instrumentors were seen to write; `openinference.span.kind` of the
    OpenInference conventions, `gen_ai.*` of OpenTelemetry's, `traceloop.span.kind` of OpenLLMetry's.
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
    """The spans that start inside a block; still there after the block has ended.

    Spans of every thread that inherits OpenTelemetry's context are captured. Use it for one `with` or `async with`.
    """

    def __init__(self, match: Match | None) -> None:
        """Keep the filter."""
        self._match = match
        self._lock = threading.RLock()
        self._spans: list[CapturedSpan] = []
        self._is_open = False
        self._scope = context.ContextScope()

    @property
    def all(self) -> tuple[CapturedSpan, ...]:
        """The captured spans in the order in which they started: the first, and the latest up to 10,000 in all."""
        return tuple(self._spans)

    @property
    def last(self) -> CapturedSpan:
        """The span that started last; never None: without a span, updates of the result are refused."""
        return self._spans[-1] if self._spans else _NOTHING

    @property
    def llm(self) -> CapturedSpan:
        """The call of a model that started last; never None: without one, updates of the result are refused.

        Of several spans for one call, one inside the other, it is the outermost: the instrumentor's span, not the span
        that the client opens inside it.
        """
        spans = self._spans.copy()
        last = next((span for span in reversed(spans) if span.is_llm), _NOTHING)
        # Two spans of one instrumentor are two calls, even if a stream that was dropped left the first span current.
        scopes = {last.scope_name}
        for outer in last.around():
            if outer.is_llm and any(outer is one for one in spans):
                if outer.scope_name in scopes and is_llm_span(outer.scope_name, None):
                    break
                scopes.add(outer.scope_name)
                last = outer
        return last

    def add(self, span: Span, captured: CapturedSpan) -> bool:
        """Take a span that starts, if the block is still open and the filter accepts it; called by the processor."""
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
        """Stop capturing, also in threads that still hold the context."""
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

    It captures spans of every provider that has a `MetadataSpanProcessor`, in whatever thread or task OpenTelemetry's
    context reaches.

    Args:
        match: Whether to capture a span that starts; None, or an object that cannot be called, captures every span.
    """
    notes = unknown_arguments(capture_spans, _unknown, _misplaced)
    given: object = match
    if given is not None and not callable(given):
        notes.append(misfit("match", kind_of(given), "a function of a span", "every span is captured"))
    log_misfits("capture_spans", notes)
    return CaptureSpans(match if callable(given) else None)
