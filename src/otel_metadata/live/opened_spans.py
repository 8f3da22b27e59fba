"""Spans that we open: the handle of `start_span`, and what `observe` shares with it.

This module decides when a span starts and ends, and how an exception is recorded at its end. The span itself is
OpenTelemetry's.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, NoReturn, cast, final

from opentelemetry import context as otel_context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

from otel_metadata.dialects.canonical import is_native
from otel_metadata.errors import ConfigurationError
from otel_metadata.interrupts import pass_on
from otel_metadata.live import current, routing
from otel_metadata.live import live_settings as settings
from otel_metadata.live.context import detach
from otel_metadata.live.misuse import kind_of, misfit, requires_nothing, shown, unknown_arguments
from otel_metadata.live.registry import REGISTRY
from otel_metadata.live.span_attributes import set_unseen
from otel_metadata.live.stacktraces import bounded_stacktrace, type_of
from otel_metadata.live.values import StatusLike, Values, log_notes, masked, masked_text_value, span_values
from otel_metadata.model.evaluation import Source
from otel_metadata.model.receipt import Receipt
from otel_metadata.model.span_ref import INVALID_SPAN_REF, SpanRef
from otel_metadata.model.unset import UNSET
from otel_metadata.reporting import REPORTER

if TYPE_CHECKING:
    from types import TracebackType

    from opentelemetry.util.types import AttributeValue

ENDED_BY: Final = "otel_metadata.ended_by"
"""The attribute that distinguishes an early end from an error: `cancelled`, `closed`, `interrupted` or `exit`."""

_SAMPLED: Final = 0x01  # TraceFlags.SAMPLED as a plain number: quicker to compare with

# In order of precedence, for a group of several exceptions that ended one span.
_EARLY_ENDS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (SystemExit, "exit"),
    (KeyboardInterrupt, "interrupted"),
    (asyncio.CancelledError, "cancelled"),
    (GeneratorExit, "closed"),
)

# The cancellation of other event loops: module and name of the exception. AnyIO raises that of the loop below it.
_CANCELLATIONS: Final = (("trio", "Cancelled"), ("curio", "CancelledError"), ("greenlet", "GreenletExit"))

_SPAN_KIND: Final = "openinference.span.kind"
_KINDS: Final = ("LLM", "CHAIN", "TOOL", "AGENT", "RETRIEVER", "EMBEDDING", "RERANKER", "GUARDRAIL", "EVALUATOR")
_SPAN_KINDS: Final[Mapping[str, dict[str, str]]] = {
    "span": {},
    "generation": {_SPAN_KIND: "LLM"},
    **{kind.lower(): {_SPAN_KIND: kind} for kind in _KINDS},
}


def span_kind_attributes(as_type: str | None) -> dict[str, str]:
    """Return the attribute that says what a span is for: `openinference.span.kind`.

    Source: OpenInference semantic conventions, "Span Kinds"; `generation` is Langfuse's word for LLM.

    Raises:
        ConfigurationError: The type is not known.
    """
    if as_type is None:
        return {}
    if not isinstance(as_type, str) or as_type.lower() not in _SPAN_KINDS:
        raise ConfigurationError("as_type", as_type, f"one of {', '.join(sorted(_SPAN_KINDS))}")
    return _SPAN_KINDS[as_type.lower()]


def set_values(span: Span, values: Values) -> None:
    """Set values on a span and in its sidecar, if the span is kept. They are part of the span: there is no receipt."""
    if is_kept(span):
        _set_masked(span, masked(values, []))


def _set_masked(span: Span, values: Values) -> None:
    entry = REGISTRY.entries.get(span.get_span_context()[:2])
    if entry is not None:
        routing.set_on_start(entry, span, values)
    else:
        set_unseen(span, values)


def is_kept(span: Span) -> bool:
    """Whether the span will be exported: a span may record without being sampled."""
    return span.is_recording() and span.get_span_context().trace_flags & _SAMPLED != 0


def _ended_early_by(error: BaseException) -> str | None:
    """Return the word for an exception that is not a failure; None for a failure.

    A group is not a failure when none of its exceptions is: a cancelled task group raises such a group.
    """
    for kind, word in _EARLY_ENDS:
        if isinstance(error, kind):
            return word
    for module, name in _CANCELLATIONS:
        cancelled = getattr(sys.modules.get(module), name, None)
        if isinstance(cancelled, type) and isinstance(error, cancelled):
            return "cancelled"
    if isinstance(error, Exception):
        return None
    # By the name of the class: in Python 3.10 it comes from a package.
    if any(base.__name__ == "BaseExceptionGroup" for base in type(error).__mro__):
        words = {_ended_early_by(inner) for inner in error.exceptions}  # type: ignore[attr-defined] # of every group
        return None if None in words else next((word for _, word in _EARLY_ENDS if word in words), None)
    return None


def _record(span: Span, error: BaseException) -> None:
    stacktrace = bounded_stacktrace(error)
    if stacktrace is None:
        span.record_exception(error)
        return
    attributes = {
        "exception.type": type_of(error),
        "exception.message": f"{error}",
        "exception.stacktrace": stacktrace,
        "exception.escaped": "False",
    }
    span.add_event("exception", attributes)


def record_end(span: Span, error: BaseException) -> None:
    """Record on a span that *error* ended it: as OpenTelemetry records exceptions, an early end as `ENDED_BY`.

    Never raises: an exception whose own `__str__` fails must reach the application unchanged.
    """
    try:
        word = _ended_early_by(error)
        if word is not None:
            span.set_attribute(ENDED_BY, word)
            return
        try:
            description = f"{type(error).__name__}: {error}"
            description.encode()
            _record(span, error)
        except BaseException as failure:  # noqa: BLE001 # str(error) is the application's code
            pass_on(failure)
            description = type(error).__name__
            span.add_event("exception", {"exception.type": description, "exception.escaped": "False"})
        span.set_status(Status(StatusCode.ERROR, description))
    except RecursionError:
        REPORTER.internal_errors += 1  # there is no room for a call
    except Exception as failure:  # noqa: BLE001 # boundary: no exception may reach the application
        REPORTER.failed("record_end", failure)


def end_at_least(span: Span, failure: BaseException) -> None:
    """End a span after its end was interrupted, so that it is exported with everything that was set on it.

    Raises:
        BaseException: *failure* again, if it came from outside.
    """
    try:
        if span.is_recording():
            span.end()
    except Exception as error:  # noqa: BLE001 # boundary: a second failure changes nothing
        pass_on(error)
    pass_on(failure)


@final
class SpanHandle:
    """A span that `start_span` opens, as a context manager; a target for updates, at any time.

    Attributes:
        ref: A reference to the span; invalid before the block is entered.
    """

    __slots__ = ("_attributes", "_kind", "_name", "_span", "_token", "_tracer", "_values", "ref")

    def __init__(
        self, name: str, kind: SpanKind, attributes: Mapping[str, str], values: Values, tracer: Tracer | None
    ) -> None:
        """Keep what the span starts with."""
        self._name = name
        self._kind = kind
        self._attributes = attributes
        self._values = values
        self._tracer = tracer
        self._span: Span | None = None
        self._token: object = None
        self.ref: SpanRef = INVALID_SPAN_REF

    @property
    def span(self) -> Span | None:
        """OpenTelemetry's span; None before the block is entered."""
        return self._span

    def update(
        self,
        *_unknown: NoReturn,
        metadata: Mapping[str, object] | None = None,
        attributes: Mapping[str, object] | None = None,
        name: str | None = None,
        input: object = UNSET,  # shadows the builtin on purpose: it is the name of the field
        output: object = UNSET,
        tags: Iterable[str] | None = None,
        status: StatusLike | None = None,
        status_message: str | None = None,
        **_misplaced: NoReturn,
    ) -> Receipt:
        """Update this span, also after its end: see `update_span`."""
        return current.update_span(
            self,
            *_unknown,
            metadata=metadata,
            attributes=attributes,
            name=name,
            input=input,
            output=output,
            tags=tags,
            status=status,
            status_message=status_message,
            **_misplaced,
        )

    @requires_nothing
    def score(
        self,
        name: str,
        *_unknown: NoReturn,
        score: float | None = None,
        label: str | None = None,
        explanation: str | None = None,
        source: Source = "code",
        metadata: Mapping[str, object] | None = None,
        **_misplaced: NoReturn,
    ) -> Receipt:
        """Put an evaluation on this span: see `score_span`."""
        return current.score_span(
            self,
            name,
            *_unknown,
            score=score,
            label=label,
            explanation=explanation,
            source=source,
            metadata=metadata,
            **_misplaced,
        )

    @requires_nothing
    def annotate(
        self,
        name: str,
        *_unknown: NoReturn,
        label: str | None = None,
        score: float | None = None,
        text: str | None = None,
        annotator: str | None = None,
        **_misplaced: NoReturn,
    ) -> Receipt:
        """Put a person's annotation on this span: see `annotate_span`."""
        return current.annotate_span(
            self, name, *_unknown, label=label, score=score, text=text, annotator=annotator, **_misplaced
        )

    def __enter__(self) -> SpanHandle:
        """Start the span and make it the current one."""
        try:
            tracer = self._tracer or settings.in_force.tracer
            # Plain attributes are set as the span starts, so that samplers and other processors see them.
            attributes: dict[str, AttributeValue] = dict(self._attributes)
            values: Values = {}
            for field, value in masked(self._values, []).items():
                if field[1] == "attribute" and is_native(value):
                    attributes[field[2]] = value
                else:
                    values[field] = value
            name = masked_text_value("name", self._name)
            span = self._span = tracer.start_span(name, kind=self._kind, attributes=attributes or None)
            self.ref = SpanRef.from_span_context(span.get_span_context())
            self._token = otel_context.attach(set_span_in_context(span))
            if values and is_kept(span):
                _set_masked(span, values)
        except RecursionError:
            REPORTER.internal_errors += 1  # there is no room for a call
        except Exception as error:  # noqa: BLE001 # boundary: no exception may reach the application
            REPORTER.failed("start_span", error)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the span, record an exception, and make the previous span current again; the exception goes on."""
        token, self._token = self._token, None
        span = self._span
        if token is not None:
            detach(token, span)
        if span is None or not span.is_recording():
            return
        try:
            if exc is not None:
                record_end(span, exc)
            span.end()
        except RecursionError:
            REPORTER.internal_errors += 1  # there is no room for a call
        except BaseException as error:  # noqa: BLE001 # boundary: no exception may reach the application
            end_at_least(span, error)
            REPORTER.failed("end_span", error)

    async def __aenter__(self) -> SpanHandle:
        """Start the span and make it the current one of this task."""
        return self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the span."""
        self.__exit__(exc_type, exc, traceback)

    def __repr__(self) -> str:
        """A status line."""
        state = "new" if self._span is None else "live" if self._span.is_recording() else "ended"
        return f"<SpanHandle {self._name!r} {state} {self.ref}>"


@requires_nothing
def start_span(
    name: str,
    *_unknown: NoReturn,
    as_type: str | None = None,
    metadata: Mapping[str, object] | None = None,
    tags: Iterable[str] | None = None,
    input: object = UNSET,  # shadows the builtin on purpose: it is the name of the field
    attributes: Mapping[str, object] | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
    tracer: Tracer | None = None,
    **_misplaced: NoReturn,
) -> SpanHandle:
    """Return a span for a `with` or `async with` block; inside the block it is the current span.

    ```python
    with otel_metadata.start_span("retrieve", as_type="retriever") as span:
        span.update(metadata={"hits": 3})
    ```

    Args:
        name: The span's name.
        as_type: What it is for: `llm` (or `generation`), `chain`, `tool`, `agent`, `retriever`, `embedding`,
            `reranker`, `guardrail`, `evaluator`, or `span`.
        metadata: Set from the start.
        tags: Set from the start.
        input: The input of the work; captured only when given.
        attributes: Plain span attributes, set from the start.
        kind: OpenTelemetry's span kind.
        tracer: Opens the span; by default the tracer of `configure`, else of the global provider.

    Never raises, because it runs inside requests: a wrong argument is left out, and a log line says so.
    """
    values: Values = {}
    start_attributes: dict[str, str] = {}
    try:
        notes = unknown_arguments(start_span, _unknown, _misplaced)
        name, kind, tracer = _fitting(name, kind, tracer, notes)
        try:
            # The error shows the value, so an object that is not a text is replaced: it may be anything.
            start_attributes = span_kind_attributes(as_type if as_type is None or type(as_type) is str else "")
        except ConfigurationError as error:
            notes.append(misfit("as_type", shown(as_type), error.expected))
        values = span_values("span", notes, metadata=metadata, tags=tags, input=input, attributes=attributes)
        log_notes("start_span", notes)
    except RecursionError:
        REPORTER.internal_errors += 1  # there is no room for a call
    except Exception as error:  # noqa: BLE001 # boundary: no exception may reach the application
        REPORTER.failed("start_span", error)
    return SpanHandle(name, kind, start_attributes, values, tracer)


def _fitting(name: object, kind: object, tracer: object, notes: list[str]) -> tuple[str, SpanKind, Tracer | None]:
    """Return the arguments of a span as OpenTelemetry expects them, and add a note for each wrong one."""
    if type(name) is not str:
        notes.append(misfit("name", kind_of(name), "a text", "the span is called 'span'"))
        name = "span"
    if type(kind) is not SpanKind:
        notes.append(misfit("kind", shown(kind), "an opentelemetry.trace.SpanKind", "taken as INTERNAL"))
        kind = SpanKind.INTERNAL
    if tracer is not None and not _is_tracer(tracer):
        expected = "an opentelemetry.trace.Tracer"
        notes.append(misfit("tracer", kind_of(tracer), expected, "the tracer of configure() was taken"))
        tracer = None
    return name, kind, cast("Tracer | None", tracer)


def _is_tracer(given: object) -> bool:
    try:
        return hasattr(given, "start_span")
    except BaseException as error:  # noqa: BLE001 # it may be any object, and looking at it runs somebody's code
        pass_on(error)
        return False
