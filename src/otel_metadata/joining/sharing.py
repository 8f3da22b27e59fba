"""A place that a destination shares with an exporter of the application: each span leaves for it once.

Theory of operation. A span that ends goes through the application's processor, which may hand it to its exporter or
not, and through ours, which puts it into the outbox. When the outbox takes it in, `SharedPlace.claim` says who sends
it:

    the application's exporter, where it was handed to it; or where its processor is known to hand over every span
    the destination, where it was not handed over (a filter refused it)
    the destination as well, by the application's exporter, where that exporter was adopted

A *tap* sees the spans that a processor hands to its exporter (`taps`). A stock processor hands over every span, so it
gets no tap unless its exporter is adopted.

A tap and `claim` decide under the process's one lock, so no span is sent by both or by neither, in whatever order the
two processors hear of its end. A span that was claimed for the destination first goes no further when it is handed over
later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, final

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_metadata.exporters.altered_spans import AlteredSpans
from otel_metadata.interrupts import pass_on
from otel_metadata.joining.addresses import address_of, is_same, wraps
from otel_metadata.joining.found_exporters import exporters_on, processors_of
from otel_metadata.joining.providers import resource_of
from otel_metadata.joining.taps import MAX_REMEMBERED, tap_of, tapped_exporter
from otel_metadata.live.registry import LOCK, REGISTRY
from otel_metadata.model.recent import RecentMap
from otel_metadata.reporting import REPORTER, after_fork_in_child

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

    from otel_metadata.delivery.outbox import Outbox
    from otel_metadata.joining.addresses import Address
    from otel_metadata.joining.found_exporters import FoundExporter
    from otel_metadata.joining.taps import Tap, TappedExporter
    from otel_metadata.model.span_ref import SpanKey
    from otel_metadata.span_processor import MetadataSpanProcessor

_SOME: Final = "Its exporter sends the spans that it gets; this destination sends the others and later updates"
_ALL: Final = "Its exporter sends the spans; this destination sends later updates"


def share_places(processor: MetadataSpanProcessor, provider: TracerProvider, *, adopts: bool) -> None:
    """Find the exporters of the application that send where *processor* sends, before it gets spans."""
    for outbox in processor.outboxes:
        name, own = outbox.destination.name, outbox.destination.span_exporter
        if not outbox.destination.spans or own is None:
            continue
        shared = SharedPlace(outbox, own, processor, provider, adopts=adopts)
        with LOCK:
            sentence = shared.look()
            outbox.shared = shared
        if sentence is not None:
            level = logging.INFO if shared.exporter is not None else logging.WARNING
            REPORTER.tell(f"shared:{name}", f"{name}: {sentence}", level=level)
        elif adopts and shared.has_address:
            REPORTER.tell(
                f"adopt:{name}", f"{name}: adopt=True, and no exporter of the application sends there so far."
            )


@final
class _Adopted(SpanExporter):
    """The application's exporter, as the destination that has adopted it sees it.

    Args:
        tapped: The application's exporter.
        own: The exporter that the destination would have used, which may alter spans for its backend.
    """

    def __init__(self, tapped: TappedExporter, own: SpanExporter) -> None:
        self.tapped = tapped
        self._alter = own.alter if isinstance(own, AlteredSpans) else None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        alter = self._alter
        return self.tapped.send(spans if alter is None else [alter(span) for span in spans])


@final
class SharedPlace:
    """The exporters of the application that send to the same place as one destination.

    Attributes:
        exporter: The application's exporter, where it was adopted.
    """

    def __init__(
        self,
        outbox: Outbox,
        own: SpanExporter,
        processor: MetadataSpanProcessor,
        provider: TracerProvider,
        *,
        adopts: bool,
    ) -> None:
        """Find nothing yet: see `look`.

        Args:
            outbox: The destination's outbox.
            own: The destination's exporter.
            processor: The processor that has the outbox.
            provider: The application's.
            adopts: Whether the application's exporter is to export for the destination.
        """
        self.exporter: SpanExporter | None = None
        self._outbox = outbox
        self._own = own
        self._processor = processor
        self._provider = provider
        self._adopts = adopts
        self._seen: object = None
        self._found: list[FoundExporter] = []
        self._taps: list[Tap] = []
        self._adopted: Tap | None = None
        self._lent: TappedExporter | None = None
        self._give_flush_back: Callable[[], None] | None = None
        self._takes_all = False
        self._marks: set[str] = set()
        self._claimed: RecentMap[SpanKey, bool] = RecentMap(MAX_REMEMBERED)
        self._handed: dict[SpanKey, ReadableSpan] = {}
        after_fork_in_child(self._after_fork)

    def _after_fork(self) -> None:
        self._handed.clear()  # the parent sends them

    @property
    def is_shared(self) -> bool:
        """Whether an exporter of the application sends to the same place."""
        return bool(self._found)

    @property
    def has_address(self) -> bool:
        """Whether the destination sends to an address, to which others may send as well; a store has none."""
        address = self._address_of(self._own)
        return address is not None and address.kind != "stream"

    def look(self) -> str | None:
        """Look for exporters that were added to the provider; return a sentence about the first that shares the place.

        Called under the lock before spans are claimed: while nothing was added, it costs one comparison.
        """
        processors = processors_of(self._provider)
        if processors is self._seen:
            return None
        self._seen = processors
        try:
            known = [found.processor for found in self._found]
            sentences = [
                self._share(found)
                for found in exporters_on(self._provider)
                if not any(found.processor is one for one in known)
                and self._is_here(found.exporter)
                and not _is_shut_down(found)
            ]
        except Exception as error:  # noqa: BLE001 # objects of others, while spans are taken in
            REPORTER.failed("joining", error)
            return None
        return sentences[0] if sentences else None

    def _is_here(self, exporter: object) -> bool:
        return wraps(exporter, self._own) or is_same(self._address_of(self._own), self._address_of(exporter))

    def _address_of(self, exporter: object) -> Address | None:
        try:
            return address_of(exporter, resource_of(self._provider))
        except Exception as error:  # noqa: BLE001 # reading an exporter of the application may do anything
            pass_on(error)
            return None

    def _share(self, found: FoundExporter) -> str:
        """Share the place with one exporter, and return a sentence for the log."""
        self._found.append(found)
        who = f"the application exports to the same place ({type(found.processor).__name__})"
        first = self._first_to_share(found)
        if first is not None:
            self._takes_all = True
            return (
                f"{who}, and the destination {first} shares it already: this one sends later updates alone. Name the "
                "place once in configure()."
            )
        rest = _SOME
        try:
            if self._adopts and self.exporter is None and found.holder is not None:
                self._adopt(found)
                return f"{who}; this destination sends its spans through that exporter."
            if found.mark is not None:
                self._marks.add(found.mark)
            elif found.takes_all or found.holder is None:
                rest = _ALL
            else:
                self._watch(tap_of(found))
            if found.holder is not None and wraps(found.exporter, self._own):
                self._borrow(tapped_exporter(found))  # the destination was made of it: it stays open
        except (AttributeError, TypeError):  # the processor refuses new attributes
            rest = _ALL
        self._takes_all = self._takes_all or rest is _ALL
        remedy = (
            "Its exporter cannot be adopted."
            if self._adopts or found.holder is None
            else "configure(..., adopt=True) makes this destination send all spans through that exporter, with updates "
            "merged into them."
        )
        return f"{who}. {rest}. {remedy}"

    def _first_to_share(self, found: FoundExporter) -> str | None:
        """Return the name of another destination of our processor that shares the place with this exporter already."""
        for outbox in self._processor.outboxes:
            other = outbox.shared
            if (
                isinstance(other, SharedPlace)
                and other is not self
                and any(one.processor is found.processor for one in other._found)
            ):
                return outbox.destination.name
        return None

    def _watch(self, tap: Tap) -> None:
        tap.keeps = self._keeps
        self._taps.append(tap)

    def _borrow(self, tapped: TappedExporter) -> None:
        """Keep the application's exporter open until the destination is closed."""
        tapped.lent_to = self
        self._lent = tapped

    def _adopt(self, found: FoundExporter) -> None:
        """Let the exporter export for the destination."""
        tap, tapped = tap_of(found), tapped_exporter(found)
        self._flush_with(found.processor)
        # No step below can fail: nothing is kept back for an exporter that was not adopted.
        self._watch(tap)
        self._adopted = tap
        self._borrow(tapped)
        self.exporter = _Adopted(tapped, self._own)

    def _flush_with(self, processor: Any) -> None:  # noqa: ANN401 # whatever hands spans over
        """Let a flush of the processor whose exporter was adopted flush our outboxes too: they have its spans."""
        own, ours = _own_flush(processor), self._processor

        def force_flush(timeout_millis: int | None = None) -> bool:
            answer = own() if timeout_millis is None else own(timeout_millis)
            if any(worker.runs_here for worker in ours.workers):
                return bool(answer)
            return ours.force_flush(30_000 if timeout_millis is None else int(timeout_millis)) and answer is not False

        def give_back() -> None:
            if processor.force_flush is force_flush:  # no later destination has put its own there
                processor.force_flush = own

        force_flush.of_the_processor = own  # type: ignore[attr-defined] # read by `_own_flush`
        processor.force_flush = force_flush
        self._give_flush_back = give_back

    # --- who sends a span, under the lock ---------------------------------------------------------------------------

    def _keeps(self, tap: Tap, key: SpanKey, span: ReadableSpan) -> bool:
        """Whether a span that is handed over at *tap* leaves by our outbox, and goes no further."""
        if key in self._claimed:
            if tap is self._adopted:
                self._outbox.exchange(key, span)  # it has come in meanwhile, and leaves as it is handed over
            return True
        if tap is not self._adopted:
            return False
        entry = REGISTRY.entries.get(key)
        if entry is not None:
            if self._processor not in entry.routers:
                return False  # our processor will not hear of its end
            self._handed[key] = span
            return True
        # Our processor has heard of its end first.
        return self._outbox.exchange(key, span)

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
        """Let the application's processors export their waiting spans; True when they say that they did."""
        answers = [_flushed(found, timeout_millis) for found in list(self._found)]
        return all(answers)

    def close(self) -> None:
        """Close the destination's exporter; give the application's back, whose processor exports by itself again."""
        with LOCK:
            left, self._handed = list(self._handed.values()), {}
        if left and self.exporter is not None:  # their ends came while the outbox closed
            self.exporter.export([self._outbox.without_credentials(span) for span in left])
        if not any(wraps(found.exporter, self._own) for found in self._found):
            self._own.shutdown()
        if self._give_flush_back is not None:
            self._give_flush_back()
        if self._lent is not None:
            self._lent.give_back(self)


def _own_flush(processor: Any) -> Any:  # noqa: ANN401 # whatever hands spans over, and its method
    """Return a processor's own `force_flush`, without the wrapper that `SharedPlace` has put around it."""
    return getattr(processor.force_flush, "of_the_processor", processor.force_flush)


def _is_shut_down(found: FoundExporter) -> bool:
    """Whether the processor exports nothing any more, as far as it says: OpenTelemetry's do, and ours."""
    names = ("_shutdown", "done", "_is_shut_down")
    return any(getattr(one, name, False) is True for one in (found.processor, found.holder) for name in names)


def _flushed(found: FoundExporter, timeout_millis: int) -> bool:
    if _is_shut_down(found):
        return True  # it has sent everything; asked again it would warn, or say that it failed
    try:
        return _own_flush(found.processor)(timeout_millis) is not False
    except Exception as error:  # noqa: BLE001 # the application's processor
        kind = type(found.processor).__name__
        REPORTER.tell("shared_flush", f"the application's {kind} raised {type(error).__name__}")
        return False
