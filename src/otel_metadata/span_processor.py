"""The span processor on top of `live` and `delivery`: the one object that OpenTelemetry calls.

It is added to the application's tracer provider in place of a `BatchSpanProcessor(exporter)`. It enters spans into the
registry as they start, sets context metadata on them, and puts them into each destination's outbox as they end.
"""

from __future__ import annotations

import random
import threading
import weakref
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, final

from opentelemetry.sdk.resources import SERVICE_NAME
from opentelemetry.sdk.trace import SpanProcessor

from otel_metadata.arguments import checked
from otel_metadata.delivery.outbox import Outbox
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.delivery.process_end import call_at_process_end, watch_process_end
from otel_metadata.delivery.stats import PipelineStats
from otel_metadata.delivery.worker import Worker
from otel_metadata.errors import ConfigurationError

# These modules have the public calls. They are loaded with the processor and not at their first use: if a process forks
# while another thread imports a module, the import never ends in the child, and the child would wait for it for ever.
from otel_metadata.live import current as _current  # noqa: F401 # see above
from otel_metadata.live import ended_provider, live_settings, routing
from otel_metadata.live import observe as _observe  # noqa: F401 # see above
from otel_metadata.live import using as _using  # noqa: F401 # see above
from otel_metadata.live.author import author_named, chosen_author
from otel_metadata.live.capture_spans import CapturedSpan, is_llm_span
from otel_metadata.live.context import bound_in
from otel_metadata.live.registry import LOCK, REGISTRY, LiveSpan
from otel_metadata.live.values import masked
from otel_metadata.locks import ReentrantLock
from otel_metadata.model.authors import AUTHORS
from otel_metadata.model.receipt import LOSS_REASONS, Routed
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.model.update_outcome import DestinationOutcome
from otel_metadata.reporting import REPORTER, after_fork_in_child
from otel_metadata.seams import SystemClock, bounded_millis

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span

    from otel_metadata.delivery.destination import Destination
    from otel_metadata.live.capture_spans import CaptureSpans
    from otel_metadata.model.dead_letter import DeadLetter
    from otel_metadata.model.merge import Field, FieldName, Json, Version
    from otel_metadata.model.receipt import Receipt, Refusal, Route
    from otel_metadata.model.span_ref import SpanKey
    from otel_metadata.model.weight import Weight
    from otel_metadata.seams import Clock
    from otel_metadata.spool.spool import Spool

EXIT_MILLIS: Final = 5_000
"""How long a process waits at its end, at most, for spans and patches that are not sent yet."""

_SAMPLED: Final = 0x01


@final
class MetadataSpanProcessor(SpanProcessor):
    """Sends ended spans and late updates to their destinations; add it in place of a `BatchSpanProcessor`.

    ```python
    provider.add_span_processor(MetadataSpanProcessor(Destination("phoenix", exporter, patches)))
    ```

    Each destination has its own bounded outbox and worker thread, so a dead destination delays no other. No method
    raises into the application. Only `force_flush` and `shutdown` wait for the network, up to their timeout.
    """

    @checked
    def __init__(
        self,
        *destinations: Destination,
        settings: OutboxSettings | None = None,
        clock: Clock | None = None,
        start_workers: bool = True,
        chance: Callable[[], float] = random.random,
        spool: Spool | None = None,
        on_dead_letter: Callable[[DeadLetter], None] | None = None,
    ) -> None:
        """Start an outbox and a worker for each destination, and take updates from now on.

        Args:
            destinations: At least one; their names differ.
            settings: Bounds and times of the outboxes; None for the values of the `OTEL_BSP_*` variables.
            clock: The clock; None for the system's.
            start_workers: False for tests that step the workers by hand.
            chance: Random numbers, uniform in [0, 1), for the jitter of the back-off.
            spool: Keeps updates beyond the end of the process; None keeps them in memory only. It is closed with the
                processor.
            on_dead_letter: Called with each patch that is given up, on a worker's thread or on the thread that flushes.

        Raises:
            ConfigurationError: There is no destination, two have the same name, an `OTEL_BSP_*` variable is not a
                number, or `OTEL_PYTHON_METADATA_AUTHOR` is too long.
        """
        self.names = tuple(destination.name for destination in destinations)
        if not destinations or len(set(self.names)) != len(self.names):
            raise ConfigurationError(
                "MetadataSpanProcessor(destinations)", list(self.names), "at least one destination, names that differ"
            )
        self._clock = clock or SystemClock()
        self._spool = spool
        settings = settings or OutboxSettings.from_environment()
        if AUTHORS.own is None:
            # Added by hand: the resource is that of the first span, so no later span pays for a question.
            self._author = chosen_author("MetadataSpanProcessor", None)
            self.on_start = self._first_start  # type: ignore[method-assign] # until the first span starts
        self.outboxes = tuple(
            Outbox(
                destination,
                settings,
                self._clock,
                LOCK,
                chance,
                spool.partition(destination.name) if spool is not None else None,
                lambda: live_settings.in_force.masks_credentials,
            )
            for destination in destinations
        )
        self.workers = tuple(
            Worker(outbox, self._clock, start=start_workers, on_dead_letter=on_dead_letter) for outbox in self.outboxes
        )
        # The answer to a late update that is taken without being looked at; made once.
        self._late_routes = MappingProxyType({name: Routed("late") for name in self.names})
        self._refused: dict[str, int] = {}
        self._is_shut_down = False
        self._begun_by = 0
        self._ending = ReentrantLock()
        self._is_ended = False
        after_fork_in_child(self._after_fork)
        routing.add_router(self)
        with LOCK:
            self._since = live_settings.VERSIONS.next()
        _processors.add(self)
        watch_process_end()

    # --- OpenTelemetry's side ---------------------------------------------------------------------------------------

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Enter a span that starts, set context metadata on it, show it to the captures."""
        try:
            if self._is_shut_down:
                ended_provider.miss()
                return
            context = span.get_span_context()
            entry: LiveSpan | None = None
            is_sampled = context.trace_flags & _SAMPLED
            if is_sampled:
                entry = REGISTRY.begin(span, context, span.parent, self, parent_context)
                if entry is None:
                    return  # another processor of ours on the same provider was first
            bound = bound_in(parent_context)
            if bound is None:
                return
            if bound.values and entry is not None:
                routing.set_on_start(entry, span, masked(bound.values, []), are_shared=True)
            if bound.captures:
                self._show(span, entry, bound.captures)
        except RecursionError:
            REPORTER.internal_errors += 1  # there is no room for a call
        except Exception as error:  # noqa: BLE001 # boundary: no exception may reach the application
            REPORTER.failed("on_start", error)

    def _first_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Name the author of this process by the resource of the span, then do as `on_start`."""
        self.__dict__.pop("on_start", None)
        try:
            if AUTHORS.own is None:
                service = span.resource.attributes.get(SERVICE_NAME)
                live_settings.VERSIONS.sign(author_named(self._author, service))
        except Exception as error:  # noqa: BLE001 # boundary: no exception may reach the application
            REPORTER.failed("on_start", error)
        self.on_start(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        """Close the sidecar of an ended span, and put the span with it into every outbox."""
        entry: LiveSpan | None = None
        try:
            # A SpanContext is a tuple that starts with the two ids; its properties would cost more.
            key = span.context[:2]
            entries = REGISTRY.entries
            entry = entries.get(key)
            if entry is None:
                self._take_unseen(key, span)
                return
            entry.ended = span
            for outbox in entry.outboxes:
                outbox.arrive(entry)
            del entries[key]
            if entry.captures:
                _judge(entry, span)
        except BaseException as error:  # boundary: no exception of ours may reach the application
            entry = entry or REGISTRY.entries.get(span.context[:2])
            if entry is not None:
                self._make_sure(entry, span)
            if not isinstance(error, Exception):
                raise
            REPORTER.failed("on_end", error)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send all waiting spans and patches, for all destinations in parallel; True when all arrived in time.

        It waits for a backend's grace before a patch, but not for schedules, held spans or back-off. Each
        failing request is tried once. It returns False at once on a thread that sends, and in a finalizer or signal
        handler that `must_not_wait`.
        """
        if self.must_not_wait or any(worker.runs_here for worker in self.workers):
            return False  # an exporter that flushes its own pipeline would wait for itself
        deadline_ns = self._clock.monotonic_ns() + bounded_millis(timeout_millis, 30_000) * 1_000_000
        finishes = [worker.begin_flush(deadline_ns) for worker in self.workers]
        answers = [finish() for finish in finishes]  # each is waited for, also after one failed
        return all(answers) and not (self._is_shut_down and ended_provider.has_missed())

    def shutdown_with_provider(self, timeout_millis: int = EXIT_MILLIS) -> None:
        """Shut down because the tracer provider does; a log line tells of spans and updates that come afterwards."""
        if not self._is_shut_down:
            ended_provider.end()
        self.shutdown(timeout_millis)

    def shutdown(self, timeout_millis: int = EXIT_MILLIS) -> None:
        """Accept nothing more, send waiting spans, then patches, and close the exporters, all before one deadline.

        Spans and updates that are not sent by then are counted as lost (`shutdown_deadline`). A second call only waits,
        up to its own timeout, until the first has ended. In a finalizer or signal handler that `must_not_wait`, a call
        begins the shutdown and returns. The workers send meanwhile, and the next call, at the latest the one at exit,
        waits for them.
        """
        deadline_ns = self._begin_shutdown(bounded_millis(timeout_millis, EXIT_MILLIS))
        if not self.must_not_wait:
            self._end(deadline_ns)

    def _begin_shutdown(self, timeout_millis: int) -> int:
        """Let the workers send the rest and end, without waiting for them; return the deadline."""
        deadline_ns = self._clock.monotonic_ns() + timeout_millis * 1_000_000
        self._is_shut_down = True
        # Another thread, or a call that this one has interrupted, may be in the middle of these steps. Doing them twice
        # does no harm: each step changes nothing the second time.
        if all(worker.is_stopping for worker in self.workers):
            return deadline_ns
        if self._begun_by == threading.get_ident() and self.must_not_wait:
            return deadline_ns  # the call that this one has interrupted does the same steps, and may hold the lock
        self._begun_by = threading.get_ident()
        routing.remove_router(self)
        REGISTRY.drop(self)
        # Each worker's thread sends, then closes its own exporters: one that hangs delays no other.
        for worker in self.workers:
            worker.begin_stop(deadline_ns)
            worker.wake()
        return deadline_ns

    def _end(self, deadline_ns: int) -> None:
        """Wait for the workers, count what they did not send, and close the spool; twice does no harm."""
        if self._is_ended and any(worker.runs_here for worker in self.workers):
            return  # another thread waits for this one
        if not self._ending.acquire(timeout=max(deadline_ns - self._clock.monotonic_ns(), 0) / 1e9):
            return
        try:
            self._is_ended = True
            for worker in self.workers:
                worker.stop()
            # Once more by a second call: an exception from outside may have interrupted the first.
            for worker in self.workers:
                worker.give_up("shutdown_deadline")
            if self._spool is not None:
                self._spool.close()
        finally:
            self._ending.release()

    @property
    def must_not_wait(self) -> bool:
        """Whether the caller has interrupted one of our own calls on this thread, which holds a lock.

        The workers may need that lock, so a finalizer or signal handler that waits for them would wait in vain.
        """
        spool = self._spool
        return LOCK.is_held_by_current_thread() or (spool is not None and spool.is_locked_by_current_thread)

    def look(self) -> None:
        """Look for new exporters of the application that send to the place of a destination. Never raises."""
        try:
            for outbox in self.outboxes:
                outbox.look()
        except RecursionError:
            REPORTER.internal_errors += 1  # there is no room for a call
        except Exception as error:  # noqa: BLE001 # boundary: no exception may reach the application
            REPORTER.failed("look", error)

    # --- the live side: see live.registry.Router --------------------------------------------------------------------

    def knows(self, key: SpanKey) -> bool:
        """Whether an outbox of ours holds this span or has exported it recently."""
        return any(outbox.knows(key) for outbox in self.outboxes)

    def take_in_spans(self) -> None:
        """Take in most spans that have ended; called without the lock."""
        for outbox in self.outboxes:
            outbox.take_in_spans()

    def submit(
        self, target: SpanRef, fields: dict[FieldName, Field], weight: Weight, *, only_if_known: bool = False
    ) -> dict[str, Routed]:
        """Take one update for a span that is not live, for each destination; nothing where it had to be known."""
        with LOCK:
            if only_if_known and not self.knows(target.key):
                return {}
            routes = {outbox.destination.name: outbox.submit(target, fields, weight) for outbox in self.outboxes}
            if not target.trace_id and all(routed.reason == "invalid_target" for routed in routes.values()):
                self.refused("invalid_target")
            return routes

    def submit_plain(
        self, target: SpanRef, key: SpanKey, version: Version, metadata: dict[str, Json]
    ) -> Mapping[str, Routed] | None:
        """Take the most frequent late update without looking at it; None, and nothing taken, where that cannot be."""
        for outbox in self.outboxes:
            if not outbox.takes_plain(key):
                return None
        for outbox in self.outboxes:
            outbox.take_plain(target, version, metadata)
        return self._late_routes

    def sync(self) -> None:
        """Write updates that were just taken to the spool, on the caller's thread, without the lock."""
        if self._spool is None:
            return
        for outbox in self.outboxes:
            outbox.partition.sync()

    def refused(self, reason: Refusal) -> None:
        """Count an update that was not accepted."""
        with LOCK:
            self._refused[reason] = self._refused.get(reason, 0) + 1

    def abandoned(self, entry: LiveSpan) -> None:
        """Count the updates of a span that was collected without being ended."""
        for outbox in self.outboxes:
            outbox.lose_live(entry)

    def overflowed(self) -> None:
        """Count an update of a live span that was refused because live spans have no room left."""
        for outbox in self.outboxes:
            outbox.refuse_live()

    # --- for operators ----------------------------------------------------------------------------------------------

    def outcome(self, receipt: Receipt) -> dict[str, DestinationOutcome]:
        """Return what became of an update, for each of its destinations that belongs to this processor."""
        found: dict[str, DestinationOutcome] = {}
        for outbox in self.outboxes:
            name = outbox.destination.name
            routed = receipt.routes.get(name)
            if routed is None:
                continue
            if routed.route == "dropped":
                found[name] = DestinationOutcome("lost" if routed.reason in LOSS_REASONS else "refused", routed.reason)
            elif not live_settings.VERSIONS.is_own(receipt.version[1]):
                found[name] = DestinationOutcome("unknown")  # of another process
            else:
                found[name] = self._outcome(outbox, receipt, routed.route)
        return found

    def _outcome(self, outbox: Outbox, receipt: Receipt, route: Route) -> DestinationOutcome:
        if receipt.version < self._since:
            # An earlier processor took it, so here it can only be in a patch that was read from the spool.
            route = "late"
        entry = REGISTRY.entries.get(receipt.key)
        found = outbox.outcome(receipt.key, receipt.names, receipt.version, route)
        if found.state == "unknown" and route == "live" and entry is not None and outbox in entry.outboxes:
            return DestinationOutcome("live")
        return found

    def stats(self) -> PipelineStats:
        """Return what became of every update so far: see `delivery.stats`."""
        REGISTRY.bury()
        return PipelineStats(
            destinations={
                outbox.destination.name: outbox.stats(lambda: REGISTRY.live_updates(self)) for outbox in self.outboxes
            },
            refused=self._refused.copy(),
            internal_errors=REPORTER.internal_errors,
            live_bytes=REGISTRY.bytes,
        )

    def __repr__(self) -> str:
        """A status line."""
        return f"<MetadataSpanProcessor {', '.join(map(repr, self.outboxes))}>"

    def _after_fork(self) -> None:
        self._refused = {}
        # At the fork another thread may have held the lock; the parent ends what that thread began.
        self._ending = ReentrantLock()
        self._is_ended = self._is_shut_down

    def _make_sure(self, entry: LiveSpan, span: ReadableSpan) -> None:
        """Finish an `on_end` that an exception has interrupted, so that everything that was set on the span leaves."""
        try:
            entry.ended = span
            for outbox in entry.outboxes:
                outbox.arrive_surely(entry)
            REGISTRY.entries.pop(entry.key, None)
        except RecursionError:
            # There is no room for a call. When the span is collected, its updates are counted as lost.
            REPORTER.internal_errors += 1
            entry.ended = None

    def _take_unseen(self, key: SpanKey, span: ReadableSpan) -> None:
        """Take a span that started before this processor was added, unless another processor of ours took it."""
        is_sampled = span.context.trace_flags & _SAMPLED
        if not is_sampled or self._is_shut_down or key in REGISTRY.inherited or self.knows(key):
            return
        entry = LiveSpan(span, None)  # type: ignore[arg-type] # a span that has ended is only readable
        entry.key = key
        REGISTRY.take_unseen(entry, span.parent)
        entry.log = []
        entry.ended = span
        for outbox in self.outboxes:
            outbox.arrive(entry)

    def _show(self, span: Span, entry: LiveSpan | None, captures: tuple[CaptureSpans, ...]) -> None:
        scope = span.instrumentation_scope
        scope_name = scope.name if scope is not None else ""
        ref = SpanRef.from_span_context(span.get_span_context())
        parent_id = span.parent.span_id if span.parent is not None else 0
        above = REGISTRY.entries.get((ref.trace_id, parent_id))
        captured = CapturedSpan(
            ref,
            span.name,
            scope_name,
            is_llm=is_llm_span(scope_name, span.attributes),
            parent_id=parent_id,
            outer=above.captures[0] if above is not None and above.captures else None,
        )
        taken = [capture.add(span, captured) for capture in captures]
        if entry is not None and any(taken):
            entry.captures = (captured,)


# Including processors that are shut down: a second call waits until the first has ended.
_processors: Final[weakref.WeakSet[MetadataSpanProcessor]] = weakref.WeakSet()


def _shut_down_all() -> None:
    """Shut all processors down at once, within the time of one."""
    processors = list(_processors)
    deadlines = [processor._begin_shutdown(EXIT_MILLIS) for processor in processors]
    for processor, deadline_ns in zip(processors, deadlines, strict=True):
        processor._end(deadline_ns)


def _must_go_on() -> bool:
    """Whether another thread that shuts all processors down would wait for this thread."""
    processors = list(_processors)
    return any(one.must_not_wait or one._ending.is_held_by_current_thread() for one in processors)


call_at_process_end(_shut_down_all, _must_go_on)


def _judge(entry: LiveSpan, span: ReadableSpan) -> None:
    """Judge again whether captured spans are calls of a model, because most attributes come after the start."""
    for captured in entry.captures:
        captured.is_llm = is_llm_span(captured.scope_name, span.attributes)
        captured.is_ended = True
