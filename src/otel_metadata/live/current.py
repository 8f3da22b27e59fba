"""The calls that update the current span, its trace, or any other span or trace.

`values` cleans the arguments of a call, and `routing` takes the update to its destinations. No call raises into the
application, whatever its arguments are (`misuse`), and no call waits for the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias

from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN_CONTEXT, SpanContext

from otel_metadata.live import routing
from otel_metadata.live.misuse import kind_of, log_misfits, misfit, requires_nothing, shown, unknown_arguments
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

    _Call: TypeAlias = tuple[Callable[..., object], tuple[object, ...], Mapping[str, object]]
    _MakeValues: TypeAlias = Callable[[Level, list[str]], Values]

# Types whose objects may be targets without a span.
_EMPTY: Final = ("SpanRef", "CapturedSpan", "SpanHandle", "NonRecordingSpan")

_CURRENT: Final = object()
"""The target of a call that is about the current span."""

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
    """Update OpenTelemetry's current span, whoever opened it.

    Metadata merges at the first level: a later value of a key replaces the earlier one, a nested value as a whole.
    `None` is kept as null. A key is never removed. Inside the loop over a streamed LLM answer the current span is
    usually the caller's, not the LLM's: use `capture_spans` to update the LLM's.

    Any thread; does not block; never raises.

    Args:
        metadata: A JSON object of first-level keys. Values are cleaned: see `Receipt.notes`.
        attributes: Plain span attributes, as they are; null and dicts become JSON text. An attribute that spells a
            field (`session.id`, `metadata.plan`, `input.value`, …) sets that field.
        name: A new name for the span.
        input: What went in: any JSON value, `None` included.
        output: What came out.
        tags: Any iterable of texts, added to the span's tags; a single text is one tag.
        status: `"ok"`, `"error"`, OpenTelemetry's `StatusCode` or `Status`, or an integer code (400 and above is an
            error). `"ok"` is final while the span is live, as OpenTelemetry has it; `UNSET` changes nothing.
        status_message: A description of an error.

    Returns:
        Where the update went; false when nothing took it.
    """
    try:
        span = trace.get_current_span()
        context = span.get_span_context()
        if type(context) is not SpanContext:
            context = _context_of(span)
        key = context[:2]
        # Fast path: a span in the registry is valid, sampled, and has a destination.
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
        notes = unknown_arguments(update_current_span, _unknown, _misplaced)
        if not context.is_valid:
            return _refuse("update_current_span", "no_current_span", notes)
        if not context.trace_flags.sampled:
            return _refuse("update_current_span", "unsampled", notes)
        values = span_values(
            "span", notes, metadata, attributes, name, None, None, input, output, tags, status, status_message
        )
        log_misfits("update_current_span", notes)
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
    """Update the trace of the current span: its local root, or the trace alone when this process knows no root of it.

    Any thread; does not block; never raises.

    Args:
        metadata: First-level keys of the trace; otherwise as for `update_current_span`.
        name: A name for the trace.
        user_id: The user behind the trace.
        session_id: The session or conversation it belongs to.
        tags: Texts, added to the tags of the trace.
        input: What went into the trace as a whole.
        output: What came out of it.

    Returns:
        Where the update went; false when nothing took it.
    """
    return _update(
        (update_current_trace, _unknown, _misplaced),
        _CURRENT,
        "trace",
        partial(
            span_values,
            metadata=metadata,
            name=name,
            user_id=user_id,
            session_id=session_id,
            tags=tags,
            input=input,
            output=output,
        ),
    )


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
    """Update any span at any time: live, in flight, or late; also a span of another process.

    Any thread; does not block; never raises. Arguments and result are as for `update_current_span`.

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
    except RecursionError:
        REPORTER.internal_errors += 1  # there is no room for a call
        return _FAILED
    except Exception as error:  # noqa: BLE001 # boundary: no exception may reach the application
        REPORTER.failed("update_span", error)
        return _FAILED
    # `partial`, because a `lambda` would make every call, also of the fast path, keep its arguments in cells.
    return _update(
        (update_span, _unknown, _misplaced),
        target,
        "span",
        partial(
            span_values,
            metadata=metadata,
            attributes=attributes,
            name=name,
            input=input,
            output=output,
            tags=tags,
            status=status,
            status_message=status_message,
        ),
    )


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
    """Update the trace of a span, or a trace given by its id, at any time.

    Any thread; does not block; never raises. Arguments and result are as for `update_current_trace`.

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
    return _update(
        (update_trace, _unknown, _misplaced),
        target,
        "trace",
        partial(
            span_values,
            metadata=metadata,
            name=name,
            user_id=user_id,
            session_id=session_id,
            tags=tags,
            input=input,
            output=output,
        ),
    )


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
    """Put an evaluation on the current span. A second evaluation of the same name replaces the first as a whole.

    Any thread; does not block; never raises.

    Args:
        name: What was judged, for example `"Correctness"`.
        score: A number.
        label: A word, for example `"correct"`.
        explanation: The reason for the verdict.
        source: Who judged: `"code"`, `"llm"` or `"human"`.
        metadata: A JSON object about the verdict itself.
    """
    return _update(
        (score_current_span, _unknown, _misplaced),
        _CURRENT,
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
    """Put an evaluation on any span, or on its trace, at any time.

    Arguments are as for `score_current_span` and `update_span`.

    Args:
        target: As for `update_span`; with `level="trace"` as for `update_trace`.
        name: What was judged.
        score: A number.
        label: A word.
        explanation: The reason for the verdict.
        source: Who judged.
        metadata: A JSON object about the verdict itself.
        level: `"span"` or `"trace"`.
    """
    return _update(
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
    """Put a person's annotation on the current span; it replaces an earlier one of the same name and annotator.

    Any thread; does not block; never raises.

    Args:
        name: What it is about, for example `"quality"`.
        label: A word.
        score: A number.
        text: Free text.
        annotator: The person who annotates.
    """
    return _update(
        (annotate_current_span, _unknown, _misplaced),
        _CURRENT,
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
    """Put a person's annotation on any span, at any time.

    Args:
        target: As for `update_span`.
        name: What it is about.
        label: A word.
        score: A number.
        text: Free text.
        annotator: The person who annotates.
    """
    return _update(
        (annotate_span, _unknown, _misplaced),
        target,
        "span",
        lambda _, notes: annotation_values(name, notes, label=label, score=score, text=text, annotator=annotator),
    )


def current_span_ref(*_unknown: NoReturn, **_misplaced: NoReturn) -> SpanRef:
    """Return a reference to the current span.

    Without a current span the reference is invalid: it is false, and every update of it is refused.
    """
    try:
        log_misfits("current_span_ref", unknown_arguments(current_span_ref, _unknown, _misplaced))
        context = _context_of(trace.get_current_span())
        return SpanRef.from_span_context(context) if context.is_valid else INVALID_SPAN_REF
    except RecursionError:
        REPORTER.internal_errors += 1  # there is no room for a call
        return INVALID_SPAN_REF
    except Exception as error:  # noqa: BLE001 # boundary: no exception may reach the application
        REPORTER.failed("current_span_ref", error)
        return INVALID_SPAN_REF


def _update(call: _Call, target: object, level: Level, make: _MakeValues) -> Receipt:
    """Update a span or its trace.

    Args:
        call: The public function that was called, and the arguments that it does not know.
        target: What the caller gave, or `_CURRENT`.
        level: What the caller gave, or the level that the function has.
        make: Makes the values of the update; takes the level, and a list to which it adds notes.
    """
    function = call[0].__name__
    try:
        notes = unknown_arguments(*call)
        if not _is_level(level):
            notes.append(misfit("level", shown(level), "'span' or 'trace'", "nothing was set"))
            log_misfits(function, notes)
            return Receipt.refused("empty", tuple(notes))
        span: Span | None
        if target is _CURRENT:
            span = trace.get_current_span()
            context = _context_of(span)
            if not context.is_valid:
                return _refuse(function, "no_current_span", notes)
            ref = SpanRef.from_span_context(context)
        else:
            found = resolve(target, allow_trace=level == "trace")
            if found is None:
                return _refuse_target(function, target, notes, level)
            ref, span = found
        values = make(level, notes)
        log_misfits(function, notes)
        if level == "trace":
            ref, span = _root_of(ref), None
        return routing.route(ref.key, values, notes, is_sampled=ref.sampled, ref=ref, span=span)
    except RecursionError:
        REPORTER.internal_errors += 1  # there is no room for a call
        return _FAILED
    except Exception as error:  # noqa: BLE001 # boundary: no exception may reach the application
        REPORTER.failed(function, error)
        return _FAILED


def _is_level(level: object) -> bool:
    # By its exact type first: a comparison is somebody's code.
    return type(level) is str and level in {"span", "trace"}


def _context_of(span: Span) -> SpanContext:
    """Return the context of the current span; an invalid one for a span that has none, as MLflow's may."""
    context: object = span.get_span_context()
    return context if isinstance(context, SpanContext) else INVALID_SPAN_CONTEXT


def _refuse(function: str, reason: Refusal, notes: list[str]) -> Receipt:
    log_misfits(function, notes)
    return routing.refuse(reason, notes)


def _refuse_target(function: str, target: object, notes: list[str], level: Level) -> Receipt:
    """Refuse an update whose target names no span or trace, and say what the target was."""
    got = "a text that names no span" if type(target) is str else kind_of(target)
    if got in _EMPTY:
        got = f"an empty {got}: there was no span"
    expected = "a SpanRef, a traceparent text, an OpenTelemetry span or a captured span"
    if level == "trace":
        expected += ", or a trace id"
    return _refuse(function, "invalid_target", [*notes, misfit("target", got, expected, "nothing was set")])


def _root_of(ref: SpanRef) -> SpanRef:
    """Return the local root of the span's trace where this process knows it, else the trace alone."""
    of_trace = ref.to_trace()
    key = REGISTRY.root_of(ref.key) or of_trace.key
    return ref if key == ref.key and ref.trace_id else replace(of_trace, span_id=key[1])
