"""Code of others around a worker (exporters, dialects) and the guards against it.

It may raise anything, change its arguments, and answer with anything. None of that may harm the worker, a try of
its own that follows, or another destination.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from opentelemetry import context as otel_context

from otel_metadata.interrupts import is_from_a_signal_handler
from otel_metadata.model.outcome import Delivered, DeliveryError, NotKept, Outcome, Pause, Rejected, Retry
from otel_metadata.reporting import REPORTER

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from otel_metadata.model.merge import Fields, Json
    from otel_metadata.model.patch import Patch
    from otel_metadata.model.span_ref import SpanRef
    from otel_metadata.seams import PatchExporter

_T = TypeVar("_T")


def run_suppressed(call: Callable[..., _T], *args: object) -> _T:
    """Call *call* with instrumentation switched off; return what it returns.

    It runs in a copy of the caller's context, which the interpreter leaves by itself: an exception of a signal handler
    between an attach and its detach would leave the application's instrumentation switched off.
    """
    return contextvars.copy_context().run(_attached, call, args)


def _attached(call: Callable[..., _T], args: tuple[object, ...]) -> _T:
    otel_context.attach(_suppressed())
    return call(*args)


def _suppressed() -> Context:
    """Return a Context in which instrumentation is switched off, by the key of today and by those of older versions."""
    context = otel_context.Context()
    for key in (
        getattr(otel_context, "_SUPPRESS_INSTRUMENTATION_KEY", None),
        getattr(otel_context, "_SUPPRESS_HTTP_INSTRUMENTATION_KEY", None),
        "suppress_instrumentation",
        "suppress_http_instrumentation",
    ):
        if key is not None:
            context = otel_context.set_value(key, True, context)
    return context


@contextmanager
def guarded(reason: str, destination: str, part: str, end: str = "") -> Iterator[None]:
    """Log exceptions of foreign code in the block, and go on after it.

    An exception of a signal handler passes: without a thread the caller of a flush does the work, with its time limit.
    No other exception does: an exporter's own KeyboardInterrupt is its failure.

    Args:
        reason: Of the log line, with *destination*: one line a minute.
        destination: Its name.
        part: The subject of the sentence.
        end: The end of the sentence, after the type of the error.
    """
    try:
        yield
    except BaseException as error:
        if is_from_a_signal_handler(error):
            raise
        REPORTER.tell(f"{reason}:{destination}", f"{destination}: {part} raised {type(error).__name__}{end}")


def outcomes_of(exporter: PatchExporter, patches: Sequence[Patch], timeout_millis: int) -> list[Outcome | None]:
    """Let an exporter send *patches*; return its outcomes, as many as it gave.

    It may be foreign code, and raise. It gets copies, so that it cannot change patches of ours.
    """
    given = patches
    if not is_trusted(exporter):
        given = [replace(one, target=_copied_target(one.target), fields=copied(one.fields)) for one in patches]
    return [sound(answer) for answer in islice(exporter.export(given, timeout_millis=timeout_millis), len(patches))]


def is_trusted(part: object) -> bool:
    """Whether *part* leaves its arguments unchanged: it is ours, OpenTelemetry's, or None."""
    return part is None or type(part).__module__.partition(".")[0] in {"otel_metadata", "opentelemetry"}


def _copied_target(target: SpanRef) -> SpanRef:
    return replace(target, backend_ids={**target.backend_ids})


def copied(fields: Fields) -> Fields:
    """Return fields that share nothing with *fields* that can be changed."""
    return {name: (_copy(value), version) for name, (value, version) in fields.items()}


def _copy(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def sound(answer: object) -> Outcome:
    """Return what an exporter answered if it is an outcome with all its parts, else a retry: it may be foreign code.

    By the exact types: the next step is decided under the lock, where no method of anybody's may be called.
    """
    if type(answer) is Delivered:
        notes = answer.notes
        is_whole = type(notes) in (tuple, list) and all(type(one) in (str, NotKept) for one in notes)
        return answer if is_whole and type(answer.rejected) is int else Delivered()
    if type(answer) is Retry or type(answer) is Pause or type(answer) is Rejected:
        error = answer.error
        after_millis = answer.after_millis if type(answer) is Retry else None
        are_texts = type(error) is DeliveryError and type(error.type) is type(error.message) is str
        if are_texts and (after_millis is None or type(after_millis) is int):
            return answer
    return Retry(DeliveryError("connection_failure", "the exporter answered with something else than an outcome"))
