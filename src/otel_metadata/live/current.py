"""The update calls: of the current span, of its trace, of any span by its name.

Each takes its arguments, has them cleaned (`values`) and sends them on their way (`routing`). None raises into the
application, whatever it is called with (`misuse`), and none waits for the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NoReturn

from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN_CONTEXT, SpanContext

from otel_metadata.live import routing
from otel_metadata.live.misuse import kind_of, misfit, requires_nothing, said, shown, unknown_arguments
from otel_metadata.live.registry import REGISTRY
from otel_metadata.live.targets import Target, resolve
from otel_metadata.live.values import StatusLike, Values, annotation_values, evaluation_values, span_values
from otel_metadata.model.evaluation import Source
from otel_metadata.model.merge import Level
from otel_metadata.model.receipt import Receipt, Refusal
from otel_metadata.model.span_ref import INVALID_SPAN_REF, SpanRef
from otel_metadata.model.unset import UNSET
from otel_metadata.reporting import REPORTER

if TYPE_CHECKING:
    from uuid import UUID

    from opentelemetry.trace import Span

__all__ = [
    "annotate_current_span",
    "annotate_span",
    "current_span_ref",
    "score_current_span",
    "score_span",
    "update_current_span",
    "update_current_trace",
    "update_span",
    "update_trace",
]

# Targets that are there also where there is no span.
_EMPTY: Final = ("SpanRef", "CapturedSpan", "SpanHandle", "NonRecordingSpan")

_FAILED: Final = Receipt.refused("internal_error", ("otel_metadata failed inside; nothing was set",))


def update_current_span(
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
    """Update the current span: OpenTelemetry's, whoever opened it.

    Metadata merges at the first level: a key that comes later wins and replaces a nested value whole, `None` is kept as
    null, a key is never removed. Inside the loop over a streamed LLM answer the current span is usually the caller's,
    not the LLM's: use `capture_spans` for that one.

    Any thread; does not block; never raises.

    Args:
        metadata: A JSON object of first-level keys. Values are cleaned: see `Receipt.notes`.
        attributes: Plain span attributes, as they are; null and dicts become JSON text. What spells a field
            (`session.id`, `metadata.plan`, `input.value`, …) is that field.
        name: A new name for the span.
        input: What went in: any JSON value, `None` included.
        output: What came out.
        tags: Any iterable of texts, added to those that are there; one text is one tag.
        status: `"ok"`, `"error"`, OpenTelemetry's `StatusCode` or `Status`, or an integer code (400 and above is an
            error). `"ok"` is final while the span is live, as OpenTelemetry has it; `UNSET` changes nothing.
        status_message: A description of an error.

    Returns:
        Where the update went; false when nobody took it.
    """
    try:
        span = trace.get_current_span()
        context = span.get_span_context()
        if type(context) is not SpanContext:
            context = _context_of(span)
        key = context[:2]
        # The common case first: a span that is in the registry is valid, sampled, and has somewhere to go.
        entry = REGISTRY.entries.get(key)
        if (
            entry is not None
            and attributes is None
            and name is None
            and tags is None
            and status is None
            and status_message is None
            and input is output is UNSET
            and not _unknown
            and not _misplaced
        ):
            receipt = routing.set_live_metadata(entry, span, metadata)
            if receipt is not None:
                return receipt
        notes = _notes(update_current_span, _unknown, _misplaced)
        if not context.is_valid:
            return _refuse("update_current_span", "no_current_span", notes)
        if not context.trace_flags.sampled:
            return _refuse("update_current_span", "unsampled", notes)
        values = span_values(
            "span", notes, metadata, attributes, name, None, None, input, output, tags, status, status_message
        )
        said("update_current_span", notes)
        return routing.route(key, values, notes, span=span)
    except RecursionError:
        REPORTER.internal_errors += 1  # there is no room for a call
        return _FAILED
    except Exception as error:  # noqa: BLE001 # boundary: no exception may reach the application
        REPORTER.failed("update_current_span", error)
        return _FAILED


def update_current_trace(
    *_unknown: NoReturn,
    metadata: Mapping[str, object] | None = None,
    name: str | None = None,
    user_id: str | None = None,
    session_id: str | None = None,
    tags: Iterable[str] | None = None,
    input: object = UNSET,  # shadows the builtin on purpose: it is the name of the field
    output: object = UNSET,
    **_misplaced: NoReturn,
) -> Receipt:
    """Update the trace of the current span: its local root here, or the trace alone when that is not known.

    Any thread; does not block; never raises.

    Args:
        metadata: As for `update_current_span`, on the level of the trace.
        name: A name for the trace.
        user_id: The user behind the trace.
        session_id: The session or conversation it belongs to.
        tags: Texts, added to those of the trace.
        input: What went into the trace as a whole.
        output: What came out of it.

    Returns:
        Where the update went; false when nobody took it.
    """
    try:
        notes = _notes(update_current_trace, _unknown, _misplaced)
        context = _context_of(trace.get_current_span())
        if not context.is_valid:
            return _refuse("update_current_trace", "no_current_span", notes)
        values = span_values(
            "trace",
            notes,
            metadata=metadata,
            name=name,
            user_id=user_id,
            session_id=session_id,
            tags=tags,
            input=input,
            output=output,
        )
        said("update_current_trace", notes)
        return _route_trace(SpanRef.from_span_context(context), values, notes)
    except RecursionError:
        REPORTER.internal_errors += 1  # there is no room for a call
        return _FAILED
    except Exception as error:  # noqa: BLE001 # boundary: no exception may reach the application
        REPORTER.failed("update_current_trace", error)
        return _FAILED


@requires_nothing
def update_span(
    target: Target,
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
    """Update a span by its name, at any time: live, in flight, or late; also one of another process.

    Any thread; does not block; never raises. Arguments and result are those of `update_current_span`.

    Args:
        target: A `SpanRef`, a `traceparent` text, an OpenTelemetry span or span context, a `SpanHandle`, or a captured
            span.
        metadata: First-level keys.
        attributes: Plain span attributes.
        name: A new name.
        input: What went in.
        output: What came out.
        tags: Texts to add.
        status: As for `update_current_span`.
        status_message: A description of an error.
    """
    try:
        if (
            type(target) is SpanRef
            and target.span_id
            and target.sampled
            and (attributes is None and name is None and tags is None and status is None and status_message is None)
            and input is UNSET
            and output is UNSET
            and not _unknown
            and not _misplaced
        ):
            receipt = routing.set_late_metadata(target, metadata)
            if receipt is not None:
                return receipt
        notes = _notes(update_span, _unknown, _misplaced)
        found = resolve(target)
        if found is None:
            return _refuse_target("update_span", target, notes)
        values = span_values(
            "span",
            notes,
            metadata=metadata,
            attributes=attributes,
            name=name,
            input=input,
            output=output,
            tags=tags,
            status=status,
            status_message=status_message,
        )
        said("update_span", notes)
        return _route(found[0], values, notes, found[1])
    except RecursionError:
        REPORTER.internal_errors += 1  # there is no room for a call
        return _FAILED
    except Exception as error:  # noqa: BLE001 # boundary: no exception may reach the application
        REPORTER.failed("update_span", error)
        return _FAILED


@requires_nothing
def update_trace(
    target: Target | int | UUID,
    *_unknown: NoReturn,
    metadata: Mapping[str, object] | None = None,
    name: str | None = None,
    user_id: str | None = None,
    session_id: str | None = None,
    tags: Iterable[str] | None = None,
    input: object = UNSET,  # shadows the builtin on purpose: it is the name of the field
    output: object = UNSET,
    **_misplaced: NoReturn,
) -> Receipt:
    """Update the trace of a span, or a trace by its id, at any time.

    Any thread; does not block; never raises. Arguments and result are those of `update_current_trace`.

    Args:
        target: As for `update_span`, or a trace id: 32 hex digits, also in upper case or in the groups of a UUID; a
            `uuid.UUID`; an integer.
        metadata: First-level keys.
        name: A name for the trace.
        user_id: The user behind it.
        session_id: The session it belongs to.
        tags: Texts to add.
        input: What went into it.
        output: What came out of it.
    """
    try:
        notes = _notes(update_trace, _unknown, _misplaced)
        found = resolve(target, allow_trace=True)
        if found is None:
            return _refuse_target("update_trace", target, notes, allows_trace=True)
        values = span_values(
            "trace",
            notes,
            metadata=metadata,
            name=name,
            user_id=user_id,
            session_id=session_id,
            tags=tags,
            input=input,
            output=output,
        )
        said("update_trace", notes)
        return _route_trace(found[0], values, notes)
    except RecursionError:
        REPORTER.internal_errors += 1  # there is no room for a call
        return _FAILED
    except Exception as error:  # noqa: BLE001 # boundary: no exception may reach the application
        REPORTER.failed("update_trace", error)
        return _FAILED


@requires_nothing
def score_current_span(
    name: str,
    *_unknown: NoReturn,
    score: float | None = None,
    label: str | None = None,
    explanation: str | None = None,
    source: Source = "code",
    metadata: Mapping[str, object] | None = None,
    **_misplaced: NoReturn,
) -> Receipt:
    """Put an evaluation on the current span. A second one of the same name replaces the first whole.

    Any thread; does not block; never raises.

    Args:
        name: What was judged, for example `"Correctness"`.
        score: A number.
        label: A word, for example `"correct"`.
        explanation: Why.
        source: Who judged: `"code"`, `"llm"` or `"human"`.
        metadata: A JSON object about the verdict itself.
    """
    return _verdict(
        (score_current_span, _unknown, _misplaced),
        UNSET,
        "span",
        lambda level, notes: evaluation_values(
            level, name, notes, score=score, label=label, explanation=explanation, source=source, metadata=metadata
        ),
    )


@requires_nothing
def score_span(
    target: Target | int | UUID,
    name: str,
    *_unknown: NoReturn,
    score: float | None = None,
    label: str | None = None,
    explanation: str | None = None,
    source: Source = "code",
    metadata: Mapping[str, object] | None = None,
    level: Level = "span",
    **_misplaced: NoReturn,
) -> Receipt:
    """Put an evaluation on a span by its name, or on its trace, at any time.

    Arguments are those of `score_current_span` and `update_span`.

    Args:
        target: As for `update_span`; with `level="trace"` as for `update_trace`.
        name: What was judged.
        score: A number.
        label: A word.
        explanation: Why.
        source: Who judged.
        metadata: A JSON object about the verdict itself.
        level: `"span"` or `"trace"`.
    """
    return _verdict(
        (score_span, _unknown, _misplaced),
        target,
        level,
        lambda level, notes: evaluation_values(
            level, name, notes, score=score, label=label, explanation=explanation, source=source, metadata=metadata
        ),
    )


@requires_nothing
def annotate_current_span(
    name: str,
    *_unknown: NoReturn,
    label: str | None = None,
    score: float | None = None,
    text: str | None = None,
    annotator: str | None = None,
    **_misplaced: NoReturn,
) -> Receipt:
    """Put a person's annotation on the current span. A second one of the same name and annotator replaces the first.

    Any thread; does not block; never raises.

    Args:
        name: What it is about, for example `"quality"`.
        label: A word.
        score: A number.
        text: Free text.
        annotator: Who.
    """
    return _verdict(
        (annotate_current_span, _unknown, _misplaced),
        UNSET,
        "span",
        lambda _, notes: annotation_values(name, notes, label=label, score=score, text=text, annotator=annotator),
    )


@requires_nothing
def annotate_span(
    target: Target,
    name: str,
    *_unknown: NoReturn,
    label: str | None = None,
    score: float | None = None,
    text: str | None = None,
    annotator: str | None = None,
    **_misplaced: NoReturn,
) -> Receipt:
    """Put a person's annotation on a span by its name, at any time.

    Args:
        target: As for `update_span`.
        name: What it is about.
        label: A word.
        score: A number.
        text: Free text.
        annotator: Who.
    """
    return _verdict(
        (annotate_span, _unknown, _misplaced),
        target,
        "span",
        lambda _, notes: annotation_values(name, notes, label=label, score=score, text=text, annotator=annotator),
    )


def current_span_ref(*_unknown: NoReturn, **_misplaced: NoReturn) -> SpanRef:
    """Return the name of the current span; an invalid one, which is false and refuses updates, when there is none."""
    try:
        said("current_span_ref", _notes(current_span_ref, _unknown, _misplaced))
        context = _context_of(trace.get_current_span())
        return SpanRef.from_span_context(context) if context.is_valid else INVALID_SPAN_REF
    except RecursionError:
        REPORTER.internal_errors += 1  # there is no room for a call
        return INVALID_SPAN_REF
    except Exception as error:  # noqa: BLE001 # boundary: no exception may reach the application
        REPORTER.failed("current_span_ref", error)
        return INVALID_SPAN_REF


def _notes(func: Callable[..., object], unknown: tuple[object, ...], misplaced: Mapping[str, object]) -> list[str]:
    """Return the notes of a call about the arguments that *func* does not know."""
    return unknown_arguments(func, unknown, misplaced) if unknown or misplaced else []


def _refuse(function: str, reason: Refusal, notes: list[str]) -> Receipt:
    said(function, notes)
    return routing.refuse(reason, notes)


def _refuse_target(function: str, target: object, notes: list[str], *, allows_trace: bool = False) -> Receipt:
    """Refuse an update whose target names nothing, and say what it was."""
    got = "a text that names none" if type(target) is str else kind_of(target)
    if got in _EMPTY:
        got = f"an empty {got}: there was no span"
    expected = "a SpanRef, a traceparent text, an OpenTelemetry span or a captured span"
    if allows_trace:
        expected += ", or a trace id"
    return _refuse(function, "invalid_target", [*notes, misfit("target", got, expected, "nothing was set")])


def _route(ref: SpanRef, values: Values, notes: list[str], span: Span | None) -> Receipt:
    return routing.route(ref.key, values, notes, is_sampled=ref.sampled, ref=ref, span=span)


def _route_trace(ref: SpanRef, values: Values, notes: list[str]) -> Receipt:
    """Update the local root of the span's trace where it is known here, else the trace alone."""
    of_trace = ref.to_trace()
    key = REGISTRY.root_of(ref.key) or of_trace.key
    target = ref if key == ref.key and ref.trace_id else replace(of_trace, span_id=key[1])
    return routing.route(key, values, notes, is_sampled=ref.sampled, ref=target)


def _is_level(level: object) -> bool:
    # By its exact type first: a comparison is somebody's code.
    return type(level) is str and level in {"span", "trace"}


def _context_of(span: Span) -> SpanContext:
    """Return the context of the current span, which another library may have made: MLflow has spans without one."""
    context: object = span.get_span_context()
    return context if isinstance(context, SpanContext) else INVALID_SPAN_CONTEXT


def _verdict(call: _Call, target: object, level: Level, make: _MakeValues) -> Receipt:
    try:
        span: Span | None
        function = call[0].__name__
        notes = _notes(*call)
        if not _is_level(level):
            notes.append(misfit("level", shown(level), "'span' or 'trace'", "nothing was set"))
            said(function, notes)
            return Receipt.refused("empty", tuple(notes))
        if target is UNSET:
            span = trace.get_current_span()
            context = _context_of(span)
            if not context.is_valid:
                return _refuse(function, "no_current_span", notes)
            ref = SpanRef.from_span_context(context)
        else:
            found = resolve(target, allow_trace=level == "trace")
            if found is None:
                return _refuse_target(function, target, notes, allows_trace=level == "trace")
            ref, span = found
        values = make(level, notes)
        said(function, notes)
        return _route_trace(ref, values, notes) if level == "trace" else _route(ref, values, notes, span)
    except RecursionError:
        REPORTER.internal_errors += 1  # there is no room for a call
        return _FAILED
    except Exception as error:  # noqa: BLE001 # boundary: no exception may reach the application
        REPORTER.failed("score or annotate", error)
        return _FAILED


if TYPE_CHECKING:
    from typing import TypeAlias

    _Call: TypeAlias = tuple[Callable[..., object], tuple[object, ...], Mapping[str, object]]
    _MakeValues: TypeAlias = Callable[[Level, list[str]], Values]
