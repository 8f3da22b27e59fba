"""The thread that empties one outbox: a thin shell around the outbox's decisions.

It claims, calls the destination's exporters, and reports their answers. One piece of work is one `step`, which tests
call by hand. Exporters run with instrumentation suppressed, so that the HTTP calls of our own patches open no spans.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, final

from opentelemetry.sdk.trace.export import SpanExportResult

from otel_metadata.delivery.flush import FlushTicket
from otel_metadata.delivery.foreign_parts import copied, guarded, is_trusted, outcomes_of, run_suppressed, sound
from otel_metadata.delivery.in_flight import merged, settled_fields
from otel_metadata.delivery.outbox import Outbox
from otel_metadata.interrupts import is_from_a_signal_handler, pass_on
from otel_metadata.model.outcome import Delivered, DeliveryError, Outcome, Rejected, Retry
from otel_metadata.reporting import REPORTER, after_fork_in_child
from otel_metadata.seams import SpanSender

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from otel_metadata.delivery.queued import QueuedSpan
    from otel_metadata.model.dead_letter import DeadLetter
    from otel_metadata.model.merge import Fields
    from otel_metadata.model.patch import Patch
    from otel_metadata.model.receipt import LossReason
    from otel_metadata.seams import Clock

_OURS: Final = Rejected(DeliveryError("patch_failure", "a failure of our own, which was logged"))

# The worker looks after its outbox at least this often, so that putting the first span into an empty outbox needs no
# wake-up on the application's thread.
_IDLE_NS: Final = 1_000_000_000

# Rows that are read from the spool at a time take at most such a part of the room in bytes: see `Outbox.wanted_rows`.
_PORTION: Final = 8


@final
class _Event(threading.Event):
    """An event whose methods may be interrupted by a finalizer or signal handler that calls them as well.

    The standard library's event holds a lock that is not re-entrant inside `set` and `wait`, so such a call would wait
    for itself. Here the state is a lock, held while the event is not set; each step is atomic. One thread waits for it.
    """

    def __init__(self, lock: threading.Lock) -> None:
        super().__init__()
        self._unset = lock
        self._unset.acquire()

    def is_set(self) -> bool:
        return not self._unset.locked()

    def set(self) -> None:
        try:
            self._unset.release()
        except RuntimeError:  # it is set
            pass

    def clear(self) -> None:
        self._unset.acquire(blocking=False)

    def wait(self, timeout: float | None = None) -> bool:
        is_set = self._unset.acquire(timeout=-1 if timeout is None else timeout)
        if is_set:
            self.set()
        return is_set


@final
class _Thread(threading.Thread):
    """A thread that may end after gevent has patched the standard library.

    `gunicorn --preload` with gevent workers patches after the fork, when this thread runs already. By its new number it
    is not found in Python's table of threads, which would print a traceback.
    """

    def _delete(self) -> None:
        with suppress(KeyError):
            super()._delete()  # type: ignore[misc] # of every Python so far, not in its stubs


@final
class Worker:
    """Empties one outbox, on a daemon thread that is started beforehand.

    Python 3.12 refuses new threads while the interpreter shuts down, so the thread that sends the last patches is the
    one that was there all along. Where it is missing, because an exception from outside came before it had started, who
    flushes or shuts down starts it; where none can be started any more, the caller does the work.
    """

    def __init__(
        self,
        outbox: Outbox,
        clock: Clock,
        *,
        start: bool = True,
        on_dead_letter: Callable[[DeadLetter], None] | None = None,
    ) -> None:
        """Start the thread.

        Args:
            outbox: The outbox that it empties.
            clock: Time.
            start: False for a test that calls `step` by hand.
            on_dead_letter: Called with each patch that is given up.
        """
        self.outbox = outbox
        self._clock = clock
        self._on_dead_letter = on_dead_letter
        self._with_thread = start
        self._is_closing = False
        self._idle_ns = min(_IDLE_NS, outbox.settings.schedule_delay_millis * 1_000_000)
        self._begin()
        outbox.wake = self.wake
        after_fork_in_child(self._after_fork)

    def _begin(self) -> None:
        # Locks of the kind of the thread: gevent may come between, and its own do not wake from one thread to another.
        # It numbers threads otherwise, too.
        self._new_lock = threading.Lock
        self._awake = _Event(self._new_lock())
        self._is_stopped = False
        self._is_closed = False
        self._is_over = False
        self._waiting: set[_Event] = set()
        self._stop_ticket: FlushTicket | None = None
        self._stop_by_ns = 0
        self._spans_were_last = False
        self._thread: threading.Thread | None = None
        self._get_ident = threading.get_ident
        self._ident = 0
        self._forget_thread()
        if self._with_thread:
            self._start()

    def _forget_thread(self) -> None:
        # `Thread.is_alive` cannot tell: after a signal handler has raised inside it, or inside `join`, CPython before
        # 3.13 takes a running thread for one that has ended.
        self.has_thread = False
        self._working = threading.Lock()  # held by the thread that does the steps

    def _start(self) -> bool:
        """Start the thread; False where none can be started."""
        name = self.outbox.destination.name
        handled = sys.exc_info()[1]
        self._thread = _Thread(target=self._run, name=f"otel_metadata:{name}", daemon=True)
        try:
            self.has_thread = True
            self._thread.start()
        except BaseException as error:
            self.has_thread = False  # it may have started all the same: see `_run`
            # CPython turns an exception that a signal handler raises in here into another: a KeyError, a lock that
            # nobody holds.
            cause: BaseException | None = error
            while cause is not None and cause is not handled:
                pass_on(cause)
                cause = cause.__context__
            if not isinstance(error, RuntimeError):
                raise
            REPORTER.tell(f"thread:{name}", f"{name}: {error}; updates are sent by flush() and shutdown() only.")
            return False
        return True

    def wait(self, event: _Event, deadline_ns: int) -> bool:
        """Wait until the thread has set *event* or has ended; False without a thread: then the caller does the work.

        A thread that is missing is started. On the application's own thread an exception of a signal handler (Ctrl-C, a
        time limit) may come at any step of the work: it would be taken for the exporter's, or leave an answer half
        settled.
        """
        self._waiting.add(event)
        try:
            if self._is_over:  # asked after the event was added: see the end of `_work`
                return True
            if not self.has_thread and not (self._with_thread and self._start()):
                return False
            self._clock.wait(event, deadline_ns - self._clock.monotonic_ns())
            return True
        finally:
            self._waiting.discard(event)

    def _after_fork(self) -> None:
        # The thread is not in the child, and waiting spans and patches belong to the parent.
        self.outbox.reset()
        if self._is_closing:
            self._forget_thread()
            self.outbox.close()
            return
        self._begin()

    def wake(self) -> None:
        """Make the worker look now."""
        if not self._awake.is_set():
            self._awake.set()

    def step(self) -> bool:
        """Do one piece of work: export one batch of spans, or send one batch of patches; False when none was due."""
        self.outbox.weigh_waiting()
        self.outbox.partition.sync()  # spans that are held
        self.outbox.partition.tend()
        self.tell()
        if self.outbox.wants_theirs:
            self.outbox.theirs_answered(is_clean=self._flush_theirs())
            return True
        if self._load():
            return True
        # In turns: spans that keep arriving must not keep the patches waiting.
        if self._spans_were_last:
            return self._send_due() or self._export_due()
        return self._export_due() or self._send_due()

    def tell(self) -> None:
        """Write pending log lines, and give dead letters to the callback. Without the lock: both are foreign code."""
        self.outbox.log_pending_lines()
        while (letter := self.outbox.take_dead_letter()) is not None:
            if self._on_dead_letter is None:
                continue
            try:
                self._on_dead_letter(letter)
            except BaseException as error:  # noqa: BLE001 # the application's
                pass_on(error)
                REPORTER.tell("on_dead_letter", f"on_dead_letter raised {type(error).__name__}")

    def _load(self) -> bool:
        """Read rows of the spool for which there is room; False when there was nothing to read."""
        outbox = self.outbox
        wanted = outbox.wanted_rows()
        damaged = outbox.partition.lost()
        if not wanted and not damaged:
            return False
        rows = outbox.partition.load(wanted, max(outbox.settings.max_bytes // _PORTION, 1)) if wanted else ()
        outbox.admit_rows(rows, damaged)
        return bool(rows)

    def _export_due(self) -> bool:
        spans = self.outbox.claim_spans()
        if not spans:
            return False
        self._spans_were_last = True
        self._export(spans)
        return True

    def _send_due(self) -> bool:
        patches = self.outbox.claim_patches()
        if not patches:
            return False
        self._spans_were_last = False
        self._send(patches)
        return True

    def begin_flush(self, deadline_ns: int) -> Callable[[], bool]:
        """Ask for a flush without waiting.

        The result waits until everything that waits now was tried once, or until the deadline; True when all of it
        arrived.
        """
        event = _Event(self._new_lock())
        ticket = self.outbox.request_flush(event.set, deadline_ns)
        self.wake()
        return partial(self._finish, ticket, event)

    def _finish(self, ticket: FlushTicket, event: _Event) -> bool:
        """Block until a started flush finishes."""
        try:
            if self.runs_here:
                return False
            if not self.wait(event, ticket.deadline_ns):
                while not event.is_set() and self._clock.monotonic_ns() < ticket.deadline_ns and self.step():
                    self.outbox.give_way()
            return ticket.is_over and ticket.is_clean
        finally:
            self.outbox.drop_ticket(ticket)
            # The rows of updates that arrived are erased before the caller goes on: its next step may be os._exit, and
            # rows that a child leaves in the spool are sent again by the process that takes them over.
            self.outbox.partition.tend()
            self.tell()

    def begin_stop(self, deadline_ns: int) -> None:
        """Let the worker stop accepting, try waiting items once, and close the exporters; do not wait for it."""
        if self.is_stopping:
            return
        self._is_closing = True
        self._stop_by_ns = self._stop_by_ns or deadline_ns
        self.outbox.close()
        self._stop_ticket = self.outbox.request_flush(self._end, self._stop_by_ns)

    @property
    def is_stopping(self) -> bool:
        """Whether `begin_stop` has done all that it does."""
        return self._stop_ticket is not None

    def stop(self) -> None:
        """Wait until the worker has stopped, or until `begin_stop`'s deadline; a hanging exporter is left behind."""
        # Each call has an event of its own: a signal handler that shuts down may interrupt a shutdown that waits.
        if not self.runs_here and not self.wait(_Event(self._new_lock()), self._stop_by_ns):
            while not self._is_stopped and self._clock.monotonic_ns() < self._stop_by_ns and self.step():
                self.outbox.give_way()
            self._close_exporters()
            self.outbox.partition.tend()
        self._end()
        if self._stop_ticket is not None:
            self.outbox.drop_ticket(self._stop_ticket)
        self.tell()

    def _end(self) -> None:
        """Let the thread end after its piece of work."""
        self._is_stopped = True
        self.wake()

    def _close_exporters(self) -> None:
        """Close the destination's exporters, once: the last step, on the thread that has called them all along."""
        if self._is_closed:
            return
        self._is_closed = True
        destination = self.outbox.destination
        remaining = max((self._stop_by_ns - self._clock.monotonic_ns()) // 1_000_000, 0)
        try:
            with guarded("shutdown", destination.name, "shutdown"):
                destination.patch_exporter.shutdown(remaining)
        finally:
            with guarded("shutdown", destination.name, "shutdown"):
                if self.outbox.shared is not None:
                    self.outbox.shared.close()
                elif destination.span_exporter is not None:
                    destination.span_exporter.shutdown()

    @property
    def runs_here(self) -> bool:
        """Whether the calling thread is this worker's: it must not wait for itself."""
        return self._get_ident() == self._ident

    def _run(self) -> None:
        if not self._working.acquire(blocking=False):
            return  # another thread was started meanwhile
        try:
            self.has_thread = True
            run_suppressed(self._work)
        finally:
            self.has_thread = False
            self._working.release()

    def _work(self) -> None:
        self._ident = self._get_ident()
        while not self._is_stopped:
            due_ns = None
            try:
                if self.step():
                    self.outbox.give_way()
                    continue
                due_ns = self.outbox.next_due_ns()
            except BaseException as error:  # noqa: BLE001 # the thread must go on; the failure is counted and told
                _survive(error)  # and waits: the step is still due, and may fail again at once
            wait_ns = self._idle_ns
            if due_ns is not None:
                wait_ns = min(max(due_ns - self._clock.monotonic_ns(), 0), wait_ns)
            self._clock.wait(self._awake, wait_ns)
            self._awake.clear()
        self._close_exporters()
        # A shutdown in a signal handler does not wait for the call that it interrupts. That may be a flush, and then
        # nobody is left to do the work that it waits for.
        self._is_over = True
        for event in list(self._waiting):
            event.set()
        self._ident = 0  # the next thread may get the same

    def _export(self, batch: Sequence[QueuedSpan]) -> None:
        outcome: Outcome | None
        try:
            outgoing, remainders = self._merged(batch)
        except BaseException as error:  # every claimed span is answered, whatever happens
            is_limit = is_from_a_signal_handler(error)
            self.outbox.spans_answered(batch, None if is_limit else _OURS, [{} for _ in batch], "internal_error")
            if is_limit:
                raise
            REPORTER.failed("export", error)
            return
        outcome = None
        try:
            outcome = run_suppressed(self._hand_over, outgoing) if outgoing else Delivered()
            if any(item.is_elsewhere and remainder for item, remainder in zip(batch, remainders, strict=True)):
                self._flush_theirs()  # a patch goes after its span
        finally:
            self.outbox.spans_answered(batch, outcome, remainders)

    def _flush_theirs(self) -> bool:
        """Let the application's processors that export to the same place send the spans that wait in them."""
        shared = self.outbox.shared
        return shared is None or shared.flush(self.outbox.settings.export_timeout_millis)

    def _merged(self, batch: Sequence[QueuedSpan]) -> tuple[list[ReadableSpan], list[Fields]]:
        """Return the spans that leave here, as they leave, and for each of the batch the fields that follow it."""
        destination = self.outbox.destination
        # Both see the fields of a span, which other destinations get as well.
        is_foreign = not (is_trusted(destination.spelling) and is_trusted(destination.span_exporter))
        outgoing: list[ReadableSpan] = []
        remainders: list[Fields] = []
        for item in batch:
            fields = settled_fields(item.span, item.all_fields())
            ended = self.outbox.without_credentials(item.span)
            given = copied(fields) if is_foreign else fields
            try:
                span, remainder = merged(ended, given, destination.spelling, is_local_root=item.is_local_root)
                remainder = {name: fields[name] for name in remainder}
            except BaseException as error:  # a foreign dialect; its span leaves as it ended
                if is_from_a_signal_handler(error):
                    raise
                REPORTER.tell(
                    f"dialect:{destination.name}", f"{destination.name}: the dialect raised {type(error).__name__}"
                )
                span, remainder = ended, item.all_fields()
            if item.is_elsewhere:
                # The span leaves by other means, with the values that were set on it live, without those that came
                # after its end.
                end_ns = item.span.end_time or 0
                remainder = {**remainder, **{name: field for name, field in fields.items() if field[1][0] > end_ns}}
            else:
                outgoing.append(span)
            remainders.append(remainder)
        return outgoing, remainders

    def _hand_over(self, outgoing: list[ReadableSpan]) -> Outcome | None:
        """Give spans to the span exporter; return its outcome for them, None when it raised."""
        destination = self.outbox.destination
        shared = self.outbox.shared
        exporter = (shared.exporter if shared is not None else None) or destination.span_exporter
        if exporter is None:
            return Delivered()
        outcome: Outcome | None = None
        with guarded("span_export", destination.name, "the span exporter", "; its spans are tried again."):
            if isinstance(exporter, SpanSender):
                timeout_millis = self.outbox.settings.export_timeout_millis
                outcome = sound(exporter.send(outgoing, timeout_millis=timeout_millis))
            elif exporter.export(outgoing) is SpanExportResult.SUCCESS:
                outcome = Delivered()
            else:
                error = DeliveryError("connection_failure", "the span exporter failed; its log line says why")
                outcome = Retry(error)
        return outcome

    def _send(self, patches: Sequence[Patch]) -> None:
        outcomes: Sequence[Outcome | None] = ()
        try:
            outcomes = run_suppressed(self._deliver, patches)
        finally:
            # Every claimed patch is answered, also where a handler of the application's log raises.
            self.outbox.patches_answered(patches, outcomes)
        self.tell()

    def _deliver(self, patches: Sequence[Patch]) -> Sequence[Outcome | None]:
        """Give patches to the patch exporter; return its outcome for each."""
        destination = self.outbox.destination
        timeout_millis = self.outbox.settings.export_timeout_millis
        outcomes: Sequence[Outcome | None] = ()
        with guarded("patch_export", destination.name, "the patch exporter", "."):
            outcomes = outcomes_of(destination.patch_exporter, patches, timeout_millis)
        if self.outbox.is_flushing:
            with guarded("patch_flush", destination.name, "the patch exporter", " in its flush."):
                destination.patch_exporter.force_flush(timeout_millis)
        return outcomes

    def give_up(self, reason: LossReason) -> None:
        """Leave spooled items to the spool, count the rest as lost, and log it: at an exit nobody reads the counts."""
        self.outbox.partition.sync()
        spans, updates, reasons = self.outbox.give_up(reason)
        if spans or updates:
            name = self.outbox.destination.name
            why = f" ({', '.join(reasons)})" if reasons else ""
            REPORTER.tell(f"{reason}:{name}", f"{name}: {spans} spans and {updates} updates are lost{why}.")


def _survive(error: BaseException) -> None:
    """Count and tell a failure on a thread that must go on, also where telling it fails."""
    try:
        REPORTER.failed("worker", error)
    except BaseException:  # noqa: BLE001, S110 # a log handler that raises SystemExit; there is nobody left to tell
        pass
