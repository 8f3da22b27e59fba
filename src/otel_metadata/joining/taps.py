"""Taps: they see which spans a processor of the application hands to its exporter, and can keep spans back.

The tap of OpenTelemetry's batch processor is in front of its queue; that of any other processor is in the place of its
exporter. A tap stays for good. Without a pipeline behind it, it passes on every span.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, final

from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from otel_metadata.live.registry import LOCK
from otel_metadata.model.recent import RecentMap
from otel_metadata.reporting import after_fork_in_child

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from otel_metadata.joining.found_exporters import FoundExporter
    from otel_metadata.model.span_ref import SpanKey

MAX_REMEMBERED: Final = 16_384
"""Spans that a tap remembers: more than wait in queues of the usual size."""


@final
class Tap:
    """Sees the spans that one processor of the application hands to its exporter.

    Attributes:
        keeps: Whether a span goes no further, because it leaves by our outbox; None before there is a pipeline.
        handed: Spans that went on to the application's exporter.
    """

    def __init__(self) -> None:
        """Pass on every span."""
        self.keeps: Callable[[Tap, SpanKey, ReadableSpan], bool] | None = None
        self.handed: RecentMap[SpanKey, bool] = RecentMap(MAX_REMEMBERED)

    def takes(self, span: ReadableSpan) -> bool:
        """Whether a span goes no further; one that goes on is noted."""
        context = span.context
        if context is None:
            return False
        key = (context.trace_id, context.span_id)
        with LOCK:
            if self.keeps is not None and self.keeps(self, key, span):
                return True
            self.handed[key] = True
            return False


class _TappedQueue(deque[Any]):
    """A batch processor's queue with a tap in front of it and the queue that it replaces behind it.

    The processor's thread counts the spans in the queue and takes them out a moment later. So the spans of the old
    queue stay there until they are taken out here.
    """

    def __init__(self, before: deque[Any], tap: Tap) -> None:
        super().__init__(maxlen=before.maxlen)
        self.before = before
        self.tap = tap

    def appendleft(self, span: Any) -> None:  # noqa: ANN401 # as deque has it
        if not self.tap.takes(span):
            super().appendleft(span)

    def pop(self) -> Any:  # type: ignore[override] # noqa: ANN401 # a queue of spans is never asked for another index
        try:
            return self.before.pop()
        except IndexError:
            return super().pop()

    def clear(self) -> None:
        self.before.clear()
        super().clear()

    def __len__(self) -> int:
        return len(self.before) + super().__len__()

    def __bool__(self) -> bool:
        return bool(len(self))


@final
class TappedExporter(SpanExporter):
    """Takes the place of an exporter in its processor's attribute, and behaves like that exporter.

    Attributes:
        exporter: The application's.
        tap: Sees the spans that are exported; None where the tap is in front of the processor's queue.
        lent_to: The shared place whose destination sends by the exporter as well. The exporter stays open as long.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        """Pass on everything to *exporter*."""
        self.exporter = exporter
        self.tap: Tap | None = None
        self.lent_to: object | None = None
        self._is_shut_down = False
        self._renew()
        after_fork_in_child(self._renew)

    def _renew(self) -> None:
        # An exporter is called by one thread at a time, and both its processor and ours may call this one. The lock is
        # re-entrant because an exporter may end a span itself.
        self._lock = threading.RLock()

    @property  # type: ignore[misc] # an object may set its class, which nobody does to an exporter
    def __class__(self) -> Any:  # noqa: ANN401 # Phoenix asks its exporters for their class
        return type(self.exporter)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 # whatever somebody reads of the exporter
        if name == "exporter":  # not there yet: somebody makes a copy
            raise AttributeError(name)
        return getattr(self.exporter, name)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export the spans that the processor hands over, except those that leave by our outbox."""
        tap = self.tap
        left = spans if tap is None else [span for span in spans if not tap.takes(span)]
        return self.send(left) if left else SpanExportResult.SUCCESS

    def send(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export all spans by the application's exporter."""
        with self._lock:
            return self.exporter.export(spans)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the exporter."""
        return self.exporter.force_flush(timeout_millis)

    def shutdown(self) -> None:
        """Close the exporter, unless a destination still sends by it."""
        self._is_shut_down = True
        if self.lent_to is None:
            self.exporter.shutdown()

    def give_back(self, place: object) -> None:
        """End the lending to *place*, and close the exporter where its processor was shut down meanwhile."""
        if self.lent_to is place:
            self.lent_to = None
            if self._is_shut_down:
                self.exporter.shutdown()


def tap_of(found: FoundExporter) -> Tap:
    """Return the tap between a processor and its exporter, made where there is none.

    Raises:
        AttributeError, TypeError: The processor refuses new attributes.
    """
    if isinstance(found.processor, BatchSpanProcessor):
        for name in ("_queue", "queue"):  # since SDK 1.34, and before
            queue = found.holder.__dict__.get(name)
            if isinstance(queue, _TappedQueue):
                return queue.tap
            if isinstance(queue, deque):
                tap = Tap()
                for span in list(queue):
                    tap.handed[span.context.trace_id, span.context.span_id] = True
                setattr(found.holder, name, _TappedQueue(queue, tap))
                return tap
    tapped = tapped_exporter(found)
    if tapped.tap is None:
        tapped.tap = Tap()
    return tapped.tap


def tapped_exporter(found: FoundExporter) -> TappedExporter:
    """Return the `TappedExporter` in the processor, made where there is none."""
    held = found.holder.__dict__[found.name]
    if isinstance(held, TappedExporter):
        return held
    tapped = TappedExporter(held)
    setattr(found.holder, found.name, tapped)
    return tapped
