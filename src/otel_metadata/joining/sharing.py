"""A place that a destination shares with an exporter of the application: each span leaves for it once.

Theory of operation. A span that ends goes through the application's processor, which may hand it to its exporter or
not, and through ours, which puts it into the outbox. When the outbox takes it in, `SharedPlace.claim` says who sends
it:

    the application's exporter, where it was handed to it; or where its processor is known to hand over every span
    ours, where it was not handed over (a filter refused it)
    ours as well, by the application's exporter, where that exporter was adopted

What is handed over is seen by a *tap*: in front of the queue of OpenTelemetry's batch processor, or in the place of the
exporter of any other. Nothing is tapped where a stock processor hands over every span, unless its exporter is adopted.
A tap stays for good; without a pipeline behind it, it passes on everything.

A tap and `claim` decide under the process's one lock, so no span is sent by both or by neither, in whatever order the
two processors hear of its end. What was claimed for us first goes no further when it is handed over later.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, final

from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from otel_metadata.exporters.altered_spans import AlteredSpans
from otel_metadata.interrupts import pass_on
from otel_metadata.joining.places import FoundExporter, address_of, exporters_on, is_same, processors_of, wraps
from otel_metadata.joining.providers import resource_of
from otel_metadata.live.registry import LOCK, REGISTRY
from otel_metadata.model.recent import RecentMap
from otel_metadata.reporting import REPORTER, after_fork_in_child

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

    from otel_metadata.delivery.destination import Destination
    from otel_metadata.delivery.outbox import Outbox
    from otel_metadata.model.span_ref import SpanKey
    from otel_metadata.span_processor import MetadataSpanProcessor

__all__ = ["SharedPlace", "share_places"]

_SOME: Final = "Its exporter sends the spans that it gets; this destination sends the others and later updates"
_ALL: Final = "Its exporter sends the spans; this destination sends later updates"

# More spans than wait in queues of the usual size.
_MAX_REMEMBERED: Final = 16_384


@final
class _Tap:
    """Sees what one processor of the application hands to its exporter.

    Attributes:
        owner: The shared place that decides; None before there is one.
        handed: Spans that went on to the application's exporter.
    """

    def __init__(self) -> None:
        self.owner: SharedPlace | None = None
        self.handed: RecentMap[SpanKey, bool] = RecentMap(_MAX_REMEMBERED)

    def takes(self, span: ReadableSpan) -> bool:
        """Whether a span goes no further, because it leaves by our outbox."""
        context = span.context
        if context is None:
            return False
        key = (context.trace_id, context.span_id)
        with LOCK:
            owner = self.owner
            if owner is not None and owner.takes(self, key, span):
                return True
            self.handed[key] = True
            return False


class _TappedQueue(deque[Any]):
    """A batch processor's queue with a tap in front of it, and the queue that it replaces behind it.

    The processor's thread takes out what it has counted a moment before, so what was in the old queue stays there until
    it is taken out here.
    """

    def __init__(self, before: deque[Any], tap: _Tap) -> None:
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
class _TappedExporter(SpanExporter):
    """Stands in a processor's attribute for the exporter that was there, and is otherwise that exporter.

    Attributes:
        exporter: The application's.
        tap: Sees what is exported; None where the processor's queue has one.
        lent_to: The shared place whose destination exports by it as well, and closes it where the processor was shut
            down before.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self.exporter = exporter
        self.tap: _Tap | None = None
        self.lent_to: SharedPlace | None = None
        self._is_shut_down = False
        self._renew()
        after_fork_in_child(self._renew)

    def _renew(self) -> None:
        # An exporter is called by one thread at a time, and two may have spans for this one. The lock is re-entrant
        # because an exporter may end a span by itself.
        self._lock = threading.RLock()

    @property  # type: ignore[misc] # an object may set its class, which nobody does to an exporter
    def __class__(self) -> Any:  # noqa: ANN401 # Phoenix asks its exporters which they are
        return type(self.exporter)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 # whatever somebody reads of the exporter
        if name == "exporter":  # not there yet: somebody makes a copy
            raise AttributeError(name)
        return getattr(self.exporter, name)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export what the processor hands over, but what leaves by our outbox."""
        tap = self.tap
        left = spans if tap is None else [span for span in spans if not tap.takes(span)]
        return self.send(left) if left else SpanExportResult.SUCCESS

    def send(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export spans by the application's exporter."""
        with self._lock:
            return self.exporter.export(spans)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """The exporter's."""
        return self.exporter.force_flush(timeout_millis)

    def shutdown(self) -> None:
        """Close the exporter, unless a destination still sends by it."""
        self._is_shut_down = True
        if self.lent_to is None:
            self.exporter.shutdown()

    def give_back(self, place: SharedPlace) -> None:
        """End the lending to *place*."""
        if self.lent_to is place:
            self.lent_to = None
            if self._is_shut_down:
                self.exporter.shutdown()


@final
class _Lent(SpanExporter):
    """The application's exporter, as a destination that has adopted it sees it.

    Args:
        tapped: The application's exporter.
        own: The exporter that the destination would have used, which may alter spans for its backend.
    """

    def __init__(self, tapped: _TappedExporter, own: SpanExporter | None) -> None:
        self.tapped = tapped
        self._alter = own.alter if isinstance(own, AlteredSpans) else None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        alter = self._alter
        return self.tapped.send(spans if alter is None else [alter(span) for span in spans])


@final
class SharedPlace:
    """What a destination has to know of the application's exporters that send to the same place.

    Attributes:
        exporter: The application's exporter, where it was adopted.
        processor: Our processor, and
        outbox: the destination's outbox in it; set before spans come.
    """

    def __init__(self, destination: Destination, provider: TracerProvider, *, adopts: bool) -> None:
        """Find nothing yet: see `look`.

        Args:
            destination: Whose place it is.
            provider: The application's.
            adopts: Whether the application's exporter is to export for the destination.
        """
        self.exporter: SpanExporter | None = None
        self.processor: MetadataSpanProcessor | None = None
        self.outbox: Outbox | None = None
        self._destination = destination
        self._provider = provider
        self._adopts = adopts
        self._seen: object = None
        self._found: list[FoundExporter] = []
        self._taps: list[_Tap] = []
        self._adopted: _Tap | None = None
        self._lent: _TappedExporter | None = None
        self._takes_all = False
        self._marks: set[str] = set()
        self._claimed: RecentMap[SpanKey, bool] = RecentMap(_MAX_REMEMBERED)
        self._handed: dict[SpanKey, ReadableSpan] = {}
        after_fork_in_child(self._after_fork)

    def _after_fork(self) -> None:
        self._handed.clear()  # the parent sends them

    @property
    def is_shared(self) -> bool:
        """Whether an exporter of the application sends to the same place."""
        return bool(self._found)

    @property
    def is_as_asked(self) -> bool:
        """Whether the exporter was adopted."""
        return self.exporter is not None

    @property
    def has_address(self) -> bool:
        """Whether the destination sends to an address, to which others may send as well; a store has none."""
        own = self._destination.span_exporter
        try:
            found = None if own is None else address_of(own, resource_of(self._provider))
        except Exception as error:  # noqa: BLE001 # as in `_is_here`
            pass_on(error)
            return False
        return found is not None and found.kind != "stream"

    def look(self) -> str | None:
        """Look whether exporters were added to the provider; return what is to be said of those that share the place.

        Called under the lock before spans are claimed, so it asks no more than whether there is something new.
        """
        processors = processors_of(self._provider)
        if processors is self._seen:
            return None
        self._seen = processors
        try:
            known = [found.processor for found in self._found]
            said = [
                self._share(found)
                for found in exporters_on(self._provider)
                if not any(found.processor is one for one in known)
                and self._is_here(found.exporter)
                and not _is_shut_down(found)
            ]
        except Exception as error:  # noqa: BLE001 # objects of others, in the middle of taking in spans
            REPORTER.failed("joining", error)
            return None
        return said[0] if said else None

    def _is_here(self, exporter: object) -> bool:
        own = self._destination.span_exporter
        if own is None:
            return False
        if wraps(exporter, own):
            return True
        resource = resource_of(self._provider)
        try:
            ours, theirs = address_of(own, resource), address_of(exporter, resource)
        except Exception as error:  # noqa: BLE001 # an exporter of somebody's, which may do anything when it is read
            pass_on(error)
            return False
        return is_same(ours, theirs)

    def _share(self, found: FoundExporter) -> str:
        """Share the place with one exporter; return what is to be said of it."""
        self._found.append(found)
        who = f"the application exports to the same place ({type(found.processor).__name__})"
        before = self._before_us(found)
        if before is not None:
            self._takes_all = True
            return (
                f"{who}, and the destination {before} shares it already: this one sends later updates alone. Name the "
                "place once in configure()."
            )
        try:
            if self._adopts and self.exporter is None and found.holder is not None:
                self._adopt(found)
                return f"{who}; this destination sends its spans through that exporter."
            if found.mark is not None:
                self._marks.add(found.mark)
                rest = _SOME
            elif not found.takes_all and found.holder is not None:
                self._taps.append(_tap_of(found))
                self._taps[-1].owner = self
                rest = _SOME
            else:
                self._takes_all = True
                rest = _ALL
            if found.holder is not None and self._destination.span_exporter is not None:
                self._borrow(found)
        except (AttributeError, TypeError):  # an object that does not let itself be changed
            self._takes_all = True
            rest = _ALL
        remedy = (
            "Its exporter cannot be adopted."
            if self._adopts or found.holder is None
            else "configure(..., adopt=True) makes this destination send all spans through that exporter, with updates "
            "merged into them."
        )
        return f"{who}. {rest}. {remedy}"

    def _borrow(self, found: FoundExporter) -> None:
        """Keep open the application's exporter, where the destination itself was made of it."""
        if wraps(found.exporter, self._destination.span_exporter):
            self._lent = _tapped_exporter(found)
            self._lent.lent_to = self

    def _before_us(self, found: FoundExporter) -> str | None:
        """Return the name of another destination of our processor that decides about what this exporter gets."""
        for outbox in self.processor.outboxes if self.processor is not None else ():
            other = outbox.shared
            if (
                isinstance(other, SharedPlace)
                and other is not self
                and any(one.processor is found.processor for one in other._found)
            ):
                return outbox.destination.name
        return None

    def _adopt(self, found: FoundExporter) -> None:
        """Let the exporter export for the destination."""
        tap = _tap_of(found)
        tapped = _tapped_exporter(found)
        _flush_both(found.processor, tap)
        self._taps.append(tap)
        tap.owner = self
        self._adopted = tap
        tapped.lent_to = self
        self._lent = tapped
        self.exporter = _Lent(tapped, self._destination.span_exporter)

    # --- who sends a span, under the lock ---------------------------------------------------------------------------

    def takes(self, tap: _Tap, key: SpanKey, span: ReadableSpan) -> bool:
        """Whether a span that is handed over at *tap* leaves by our outbox, and goes no further."""
        if key in self._claimed:
            if tap is self._adopted and self.outbox is not None:
                self.outbox.exchange(key, span)  # it has come in meanwhile, and leaves as it is handed over
            return True
        if tap is not self._adopted:
            return False
        entry = REGISTRY.entries.get(key)
        if entry is not None:
            if self.processor not in entry.routers:
                return False  # nobody of ours will see its end
            self._handed[key] = span
            return True
        # Our processor has heard of its end first.
        return self.outbox is not None and self.outbox.exchange(key, span)

    def claim(self, key: SpanKey, span: ReadableSpan) -> ReadableSpan | None:
        """Return the span to send, as it was handed over; None when the application's exporter sends it."""
        if not self._found:
            return span
        handed = self._handed.pop(key, None)
        if handed is not None:
            return handed
        marked = bool(self._marks) and not self._marks.isdisjoint(span.attributes or ())
        if marked or self._takes_all or any(tap.handed.pop(key) for tap in self._taps):
            return None
        self._claimed[key] = True
        return span

    # --- on the worker ----------------------------------------------------------------------------------------------

    def flush(self, timeout_millis: int) -> bool:
        """Let the application's processors export what waits in them; True when they say that they did."""
        answers = [_flushed(found, timeout_millis) for found in list(self._found)]
        return all(answers)

    def close(self) -> None:
        """Close the destination's exporter; give the application's back, whose processor exports by itself again."""
        with LOCK:
            left, self._handed = list(self._handed.values()), {}
        if left and self.exporter is not None:  # their ends came while the outbox closed
            outbox = self.outbox
            self.exporter.export(left if outbox is None else [outbox.without_credentials(span) for span in left])
        own = self._destination.span_exporter
        if own is not None and not any(wraps(found.exporter, own) for found in self._found):
            own.shutdown()
        if self._lent is not None:
            self._lent.give_back(self)


def share_places(processor: MetadataSpanProcessor, provider: TracerProvider, *, adopts: bool) -> None:
    """Find the exporters of the application that send where *processor* sends, before it gets spans."""
    for outbox in processor.outboxes:
        if not outbox.destination.spans:
            continue
        shared = SharedPlace(outbox.destination, provider, adopts=adopts)
        shared.processor, shared.outbox = processor, outbox
        with LOCK:
            said = shared.look()
            outbox.shared = shared
        name = outbox.destination.name
        if said is not None:
            REPORTER.tell(
                f"shared:{name}", f"{name}: {said}", level=logging.INFO if shared.is_as_asked else logging.WARNING
            )
        elif adopts and shared.has_address:
            REPORTER.tell(
                f"adopt:{name}", f"{name}: adopt=True, and no exporter of the application sends there so far."
            )


# --- taps -------------------------------------------------------------------------------------------------------------


def _queue_of(found: FoundExporter) -> tuple[str, deque[Any]] | None:
    """Return the queue of a batch processor, and the attribute that has it."""
    if isinstance(found.processor, BatchSpanProcessor):
        for name in ("_queue", "queue"):  # since SDK 1.34, and before
            queue = found.holder.__dict__.get(name)
            if isinstance(queue, deque):
                return name, queue
    return None


def _tap_of(found: FoundExporter) -> _Tap:
    """Return the tap between a processor and its exporter, made where there is none.

    Raises:
        AttributeError, TypeError: The processor does not let itself be changed.
    """
    named = _queue_of(found)
    if named is None:
        tapped = _tapped_exporter(found)
        if tapped.tap is None:
            tapped.tap = _Tap()
        return tapped.tap
    name, queue = named
    if isinstance(queue, _TappedQueue):
        return queue.tap
    tap = _Tap()
    for span in list(queue):
        tap.handed[span.context.trace_id, span.context.span_id] = True
    setattr(found.holder, name, _TappedQueue(queue, tap))
    return tap


def _tapped_exporter(found: FoundExporter) -> _TappedExporter:
    """Return what stands for the exporter in its processor, made where there is nothing yet."""
    held = found.holder.__dict__[found.name]
    if isinstance(held, _TappedExporter):
        return held
    tapped = _TappedExporter(held)
    setattr(found.holder, found.name, tapped)
    return tapped


def _flush_both(processor: Any, tap: _Tap) -> None:  # noqa: ANN401 # whatever hands spans over
    """Let a flush of the processor whose exporter was adopted flush our outboxes too: they have its spans."""
    own = processor.force_flush
    if hasattr(own, "of_the_processor"):
        return

    def force_flush(timeout_millis: int | None = None) -> bool:
        answer = own() if timeout_millis is None else own(timeout_millis)
        place = tap.owner
        ours = place.processor if place is not None and place.exporter is not None else None
        if ours is None or any(worker.runs_here for worker in ours.workers):
            return bool(answer)
        return ours.force_flush(30_000 if timeout_millis is None else int(timeout_millis)) and answer is not False

    force_flush.of_the_processor = own  # type: ignore[attr-defined] # so that it is done once
    processor.force_flush = force_flush


def _is_shut_down(found: FoundExporter) -> bool:
    """Whether the processor exports nothing any more, as far as it says: OpenTelemetry's do, and ours."""
    names = ("_shutdown", "done", "_is_shut_down")
    return any(getattr(one, name, False) is True for one in (found.processor, found.holder) for name in names)


def _flushed(found: FoundExporter, timeout_millis: int) -> bool:
    processor = found.processor
    if _is_shut_down(found):
        return True  # it would warn, or say that it failed: it has sent everything by then
    try:
        own = getattr(processor.force_flush, "of_the_processor", processor.force_flush)
        return own(timeout_millis) is not False
    except Exception as error:  # noqa: BLE001 # the application's processor
        REPORTER.tell("shared_flush", f"the application's {type(processor).__name__} raised {type(error).__name__}")
        return False
