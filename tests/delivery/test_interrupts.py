"""Exceptions from outside that interrupt our own calls: Ctrl-C, a signal handler that raises, a deep recursion.

CPython runs a signal handler where a function is entered and where a function of C returns. A profile function is
called at just these places, and what it raises goes the same way: so every place is tried, one after the other. Only
the application's thread is interrupted, as Python does it; the workers are threads of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import functools
import gc
import inspect
import itertools
import os
import signal
import sys
import threading
from dataclasses import replace
from functools import partial

import pytest
from opentelemetry.sdk.trace import TracerProvider

import otel_metadata as om
from otel_metadata import span_processor
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.delivery.worker import _Thread
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.interrupts import pass_on
from otel_metadata.live import live_settings
from otel_metadata.model.outcome import DeliveryError, Retry
from otel_metadata.reporting import REPORTER
from otel_metadata.seams import SystemClock
from otel_metadata.spool.spool import Spool, SpoolSettings
from otel_metadata.testing import ManualClock, RecordingSpanExporter

ABANDONED = {"target_not_exported": 1}
NEVER = OutboxSettings(schedule_delay_millis=3_600_000)

# CPython 3.10 also runs handlers between a function's end and what follows it.
pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="CPython 3.10 runs signal handlers anywhere")


class InterruptError(KeyboardInterrupt):
    """What a signal handler of the application raises: of Ctrl-C, because no handler is in the traceback here."""


class TimeLimitError(Exception):
    """What the handler of a time limit raises: an ordinary exception, as Celery's is."""


def raise_time_limit(number, frame):
    raise TimeLimitError


class InterruptedAt:
    """Raises once, at one of the places where a signal handler may run in code of ours."""

    folder = os.path.dirname(om.__file__)

    def __init__(self, number, interrupt=None):
        self.number = number
        self.interrupt = interrupt or _raise_interrupt
        self.came = 0

    def __call__(self, frame, event, _):
        code = frame.f_code
        # What a generator raises that is closed half way, or a callback of the collector, reaches nobody.
        is_heard = code.co_name not in {"<genexpr>", "_collected"}
        if event in {"call", "c_return"} and code.co_filename.startswith(self.folder) and is_heard:
            self.came += 1
            if self.came == self.number:
                self.interrupt()

    def during(self, call):
        """Call it; return whether it was interrupted."""
        gc.disable()  # what a callback of the collector raises reaches nobody
        hook = sys.unraisablehook
        # Nor what a finalizer raises, of something that ends by itself just then.
        unheard = []
        sys.unraisablehook = unheard.append
        sys.setprofile(self)
        try:
            # A span may stay current where the interrupt comes just as it becomes so.
            contextvars.copy_context().run(call)
        except (InterruptError, TimeLimitError):
            return True
        finally:
            sys.setprofile(None)
            sys.unraisablehook = hook
            gc.enable()
        return bool(unheard)


def _raise_interrupt():
    raise InterruptError


def every_place(attempt, how=None):
    """Make an attempt with an interrupt at the first place, at the second one, and so on until none is left."""
    for number in itertools.count(1):
        interrupt = InterruptedAt(number, how)
        if not attempt(interrupt):
            assert number > 1
            return


class Application:
    def __init__(self, folder=None, **options):
        self.patches, self.spans = InMemoryPatchExporter(), RecordingSpanExporter()
        self.spool = Spool(SpoolSettings(f"{folder}/spool/spool.db")) if folder is not None else None
        self.processor = om.MetadataSpanProcessor(
            om.Destination("memory", self.spans, self.patches),
            **{"settings": NEVER, "spool": self.spool, **options},
        )
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(self.processor)
        self.tracer = self.provider.get_tracer("application")

    def received(self):
        """Flush and shut down; return the metadata keys that the backend has, of spans and of patches."""
        self.processor.force_flush(3_000)
        self.processor.force_flush(3_000)
        self.processor.shutdown(3_000)
        on_spans = [name[2] for span in self.spans.spans for name in getattr(span, "fields", {})]
        return sorted(on_spans + [key for patch in self.patches.patches for key in patch.metadata()])


CALLS = {
    "stats": lambda application: application.processor.stats(),
    "flush": lambda application: application.processor.force_flush(3_000),
    "update": lambda application: om.update_span(om.SpanRef(0xABC, 99), tags=["from within"]),
    "span": lambda application: application.tracer.start_span("another").end(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_an_acknowledged_update_survives_an_interrupt_at_any_place(call):
    """What waits is placed first and taken out of its inbox after: an exception in between loses nothing."""

    def attempt(interrupt):
        application = Application()
        application.tracer.start_span("one").end()
        with application.tracer.start_as_current_span("two"):
            om.update_current_span(metadata={"live": 1})
        for number in range(3):
            assert om.update_span(om.SpanRef(0xABC, number + 1), metadata={f"k{number}": number})
        assert om.update_span(om.SpanRef(0xABC, 1), metadata={"again": 1}, tags=["late"])
        was_interrupted = interrupt.during(lambda: call(application))
        found = application.received()
        for key in ("k0", "k1", "k2", "again", "live"):
            assert key in found, (interrupt.number, found)
        assert [span.name for span in application.spans.spans if span.name in {"one", "two"}] == ["one", "two"]
        lost = application.processor.stats().destinations["memory"].lost
        assert lost == {}, interrupt.number
        return was_interrupted

    every_place(attempt)


def observed(application, question):
    return om.observe(tracer=application.tracer)(lambda question: [question])(question)


def scored_block(application):
    with om.start_span("block", metadata={"a": [1]}, tags=["t"], tracer=application.tracer) as span:
        span.score("Correctness", score=1)
    om.update_trace(span.ref, user_id="u-1")


LIMITED = {
    **CALLS,
    "observe": lambda application: observed(application, {"a": {"b": [1, 2]}}),
    "values": lambda _: om.update_span(om.SpanRef(0xABC, 98), metadata={"a": {"b": [1.5, None]}}, output={"c": [{}]}),
    "block": lambda application: scored_block(application),
    "using": lambda application: observed_within(application),
}


def observed_within(application):
    with om.using_metadata({"a": 1}, tags=["x"]), om.capture_spans():
        observed(application, "?")


@pytest.mark.parametrize("call", LIMITED.values(), ids=LIMITED)
def test_a_time_limit_of_the_application_is_never_caught(call, monkeypatch):
    """An exception of a signal handler is no failure of ours, wherever it comes: it reaches the application."""
    before = signal.signal(signal.SIGUSR1, raise_time_limit)
    application = Application()
    application.tracer.start_span("one").end()
    monkeypatch.setattr(REPORTER, "reraise", False)

    def attempt(interrupt):
        was_interrupted = interrupt.during(lambda: call(application))
        assert was_interrupted == (interrupt.came >= interrupt.number), interrupt.number
        return was_interrupted

    try:
        every_place(attempt, lambda: signal.raise_signal(signal.SIGUSR1))
    finally:
        signal.signal(signal.SIGUSR1, before)
        application.processor.shutdown(3_000)
    assert REPORTER.internal_errors == 0


@pytest.mark.parametrize("where", ["spans", "patches", "flush of patches", "dialect"])
def test_a_time_limit_of_a_flush_that_does_the_work_itself_is_never_caught(where):
    """Where no thread can be started, who flushes sends: a limit there is the application's, and all is sent again."""
    before = signal.signal(signal.SIGUSR1, raise_time_limit)
    application = Application(start_workers=False)
    limits = [lambda: signal.raise_signal(signal.SIGUSR1)]

    def limited(call):
        def once(*given, **options):
            if limits:
                limits.pop()()
            return call(*given, **options)

        return once

    destination = application.processor.outboxes[0].destination
    owner, name = {
        "spans": (application.spans, "export"),
        "patches": (application.patches, "export"),
        "flush of patches": (application.patches, "force_flush"),
        "dialect": (destination.spelling, "encode"),
    }[where]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(owner, name, limited(getattr(owner, name)), raising=True)
        try:
            with application.tracer.start_as_current_span("one"):
                om.update_current_span(metadata={"live": 1})
            assert om.update_span(om.SpanRef(0xABC, 1), metadata={"late": 1})
            with pytest.raises(TimeLimitError):
                application.processor.force_flush(3_000)
            assert {"live", "late"} <= set(application.received())
        finally:
            signal.signal(signal.SIGUSR1, before)
    stats = application.processor.stats().destinations["memory"]
    assert (stats.is_balanced, stats.lost) == (True, {})


class Callers:
    """Notes on which threads an exporter is called, and calls what it is given there."""

    def __init__(self, application, during=lambda: None):
        self.threads, self.at_once, self.most_at_once = set(), 0, 0
        self.during = during
        for exporter in (application.spans, application.patches):
            exporter.export = partial(self._export, exporter.export)

    def _export(self, export, *given, **options):
        self.threads.add(threading.current_thread())
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            self.during()
            return export(*given, **options)
        finally:
            self.at_once -= 1

    @property
    def is_one_worker(self):
        return self.most_at_once <= 1 and threading.main_thread() not in self.threads


def say_something(application, key):
    with application.tracer.start_as_current_span("one"):
        om.update_current_span(metadata={f"live {key}": 1})
    assert om.update_span(om.SpanRef(0xABC, 1), metadata={f"late {key}": 1})


def without_a_thread():
    """Return an application whose worker could start no thread."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_Thread, "start", raise_no_thread)
        return Application()


def raise_no_thread(_):
    raise RuntimeError("can't start new thread")


def test_one_worker_calls_the_exporters_wherever_an_interrupt_comes(monkeypatch):
    """CPython takes a running thread for an ended one after an interrupt inside `is_alive`; the worker does not ask."""
    monkeypatch.setattr(InterruptedAt, "folder", "")  # the standard library's waiting as well

    def attempt(interrupt):
        application = Application()
        callers = Callers(application)
        say_something(application, "before")
        was_interrupted = interrupt.during(lambda: application.processor.force_flush(60_000))
        say_something(application, "after")
        assert {"live before", "late before", "live after", "late after"} <= set(application.received())
        assert callers.is_one_worker, interrupt.number
        stats = application.processor.stats().destinations["memory"]
        assert (stats.is_balanced, stats.accepted, stats.delivered) == (True, 4, 4), interrupt.number
        return was_interrupted

    every_place(attempt)


@pytest.mark.parametrize("call", ["force_flush", "shutdown"])
def test_a_thread_that_is_missing_is_started_by_who_waits_for_it(call):
    application = without_a_thread()
    callers = Callers(application)
    say_something(application, "k")
    getattr(application.processor, call)(60_000)
    assert callers.threads
    assert callers.is_one_worker
    assert {"live k", "late k"} <= set(application.received())
    application.processor.workers[0]._thread.join()


def test_ctrl_c_in_a_flush_reaches_the_application_and_not_the_exporter():
    """The exporter runs on a thread of its own also where the worker had lost its own, so nothing is sent twice."""
    application = without_a_thread()
    main = threading.main_thread().ident
    callers = Callers(application, lambda: signal.pthread_kill(main, signal.SIGINT))
    om.update_span(om.SpanRef(0xABC, 1), metadata={"k": 1})
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs behind it
    try:
        with pytest.raises(KeyboardInterrupt):
            application.processor.force_flush(60_000)
        callers.during = lambda: None
        assert application.received() == ["k"]
    finally:
        signal.signal(signal.SIGINT, before)
    stats = application.processor.stats().destinations["memory"]
    assert (stats.is_balanced, stats.delivered, stats.retried) == (True, 1, 0)


# CPython tells of a thread that it has lost by such an interrupt.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_limit_passes_wherever_it_comes_as_a_thread_is_started(monkeypatch):
    """Also one that looks like the failure of the start itself, and where CPython makes a `KeyError` of it."""
    monkeypatch.setattr(InterruptedAt, "folder", "")

    class LimitError(RuntimeError):
        pass

    def raise_limit(*_):
        raise LimitError

    before = signal.signal(signal.SIGUSR1, raise_limit)

    def attempt(interrupt):
        application = without_a_thread()
        try:
            was_unheard = interrupt.during(application.processor.workers[0]._start)
        except LimitError:
            pass
        else:
            assert was_unheard == (interrupt.came >= interrupt.number)
        callers = Callers(application)
        say_something(application, "k")
        assert {"live k", "late k"} <= set(application.received())
        assert callers.is_one_worker, interrupt.number
        return interrupt.came >= interrupt.number

    try:
        every_place(attempt, lambda: signal.raise_signal(signal.SIGUSR1))
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_where_no_thread_can_be_started_the_caller_does_the_work(monkeypatch):
    application = without_a_thread()
    callers = Callers(application)
    said = []
    monkeypatch.setattr(REPORTER, "tell", lambda reason, message, **_: said.append(message))
    monkeypatch.setattr(_Thread, "start", raise_no_thread)
    say_something(application, "k")
    assert {"live k", "late k"} <= set(application.received())
    assert callers.threads == {threading.main_thread()}
    assert said[0] == "memory: can't start new thread; updates are sent by flush() and shutdown() only."


def test_updates_of_an_abandoned_span_are_counted_once_whatever_interrupts():
    """The collector only notes the span; who counts its updates may be interrupted at any place, and counts again."""

    def attempt(interrupt):
        application = Application(start_workers=False)
        span = application.tracer.start_span("forgotten")
        assert om.update_span(span, metadata={"a": 1})
        del span
        gc.collect()
        was_interrupted = interrupt.during(application.processor.stats)
        stats = application.processor.stats().destinations["memory"]
        assert (stats.is_balanced, stats.accepted, stats.lost) == (True, 1, {"target_not_exported": 1}), (
            interrupt.number
        )
        application.processor.shutdown(0)
        return was_interrupted

    every_place(attempt)


def test_an_evicted_span_is_counted_whatever_interrupts():
    """What has no room is counted before it is taken out: its updates are lost once, or still wait."""

    def attempt(interrupt):
        application = Application(start_workers=False, settings=replace(NEVER, max_queue_size=2))
        for number in range(4):
            with application.tracer.start_as_current_span("span"):
                om.update_current_span(metadata={"a": number})
        was_interrupted = interrupt.during(application.processor.stats)
        stats = application.processor.stats().destinations["memory"]
        assert (stats.is_balanced, stats.accepted) == (True, 4), interrupt.number
        assert 1 <= stats.lost["target_not_exported"] <= 2, interrupt.number
        application.processor.shutdown(0)
        return was_interrupted

    every_place(attempt)


@pytest.mark.parametrize("room", range(1, 40))
def test_a_result_is_returned_where_nothing_else_has_room(room, monkeypatch):
    """Near the recursion limit our own calls fail; the function has returned, and its result is what counts."""
    application = Application()
    monkeypatch.setattr(REPORTER, "reraise", False)
    came = []

    @om.observe(tracer=application.tracer)
    def pay():
        came.append(1)
        return "paid"

    def at(depth):
        return pay() if not depth else at(depth - 1)

    depth = sys.getrecursionlimit() - len(inspect.stack()) - room
    try:
        assert at(depth) == "paid"
    except RecursionError:
        assert not came  # the function itself had no room
    finally:
        application.processor.shutdown(3_000)


@pytest.mark.parametrize("with_spool", [False, True], ids=["memory", "spool"])
def test_a_shutdown_may_interrupt_a_shutdown_at_any_place(tmp_path, monkeypatch, with_spool):
    """A handler of SIGTERM shuts down while the exit does: what waits leaves, and neither waits for the other."""
    monkeypatch.setattr(InterruptedAt, "folder", "")  # the standard library's waiting as well
    in_vain = []

    class Clock(SystemClock):
        def wait(self, event, timeout_ns):
            is_set = SystemClock.wait(event, timeout_ns)
            if not is_set and threading.current_thread() is threading.main_thread():
                in_vain.append(timeout_ns)
            return is_set

    def attempt(interrupt):
        application = Application(tmp_path / str(interrupt.number) if with_spool else None, clock=Clock())
        application.tracer.start_span("one").end()
        for number in range(3):
            om.update_span(om.SpanRef(0xABC, number + 1), metadata={f"k{number}": number})
        interrupt.during(lambda: application.processor.shutdown(60_000))
        application.processor.shutdown(60_000)
        assert not in_vain, interrupt.number
        stats = application.processor.stats().destinations["memory"]
        assert (stats.lost, stats.delivered, stats.waiting) == ({}, stats.accepted, 0), interrupt.number
        assert [span.name for span in application.spans.spans] == ["one"], interrupt.number
        return interrupt.came >= interrupt.number

    every_place(attempt, lambda: [processor.shutdown(60_000) for processor in list(span_processor._processors)])


@pytest.mark.parametrize("with_spool", [False, True], ids=["memory", "spool"])
def test_what_a_shutdown_leaves_is_counted_once_whatever_interrupts(tmp_path, with_spool):
    """A second shutdown counts, as lost or handed over, exactly what the first had not come to."""

    def attempt(interrupt):
        application = Application(tmp_path / str(interrupt.number) if with_spool else None, start_workers=False)
        for number in range(3):
            with application.tracer.start_as_current_span("span") as span:
                om.update_current_span(metadata={"live": number})
            assert om.update_span(span, metadata={"joined": number})
            assert om.update_span(om.SpanRef(0xABC, number + 1), metadata={"late": number})
        was_interrupted = interrupt.during(lambda: application.processor.shutdown(0))
        application.processor.shutdown(0)
        stats = application.processor.stats().destinations["memory"]
        assert (stats.is_balanced, stats.accepted, stats.waiting, stats.spans_evicted) == (True, 9, 0, 3), (
            interrupt.number
        )
        # The spool has the updates after the end; what was set live is lost with its span.
        handed_over = stats.accepted - sum(stats.lost.values())
        assert (stats.handed_over, handed_over) == ((6, 6) if with_spool else (0, 0)), interrupt.number
        return was_interrupted

    every_place(attempt)


def test_two_threads_that_shut_down_at_once_lose_nothing(monkeypatch):
    """The second does not give up what the first has not yet asked the workers for."""
    application = Application()
    om.update_span(om.SpanRef(0xABC, 1), metadata={"k": 1})
    begun, may_go_on = threading.Event(), threading.Event()
    remove_router = span_processor.routing.remove_router

    def remove_slowly(router):
        remove_router(router)
        if threading.current_thread() is first:
            begun.set()
            may_go_on.wait()

    monkeypatch.setattr(span_processor.routing, "remove_router", remove_slowly)
    first = threading.Thread(target=lambda: application.processor.shutdown(60_000))
    first.start()
    begun.wait()
    application.processor.shutdown(60_000)
    stats = application.processor.stats().destinations["memory"]
    may_go_on.set()
    first.join()
    assert (stats.lost, stats.delivered) == ({}, 1)


def test_the_lock_of_the_spool_is_given_back_wherever_an_interrupt_comes(tmp_path):
    application = Application(tmp_path)
    application.processor.force_flush(3_000)
    numbers = itertools.count(1)

    def attempt(interrupt):
        was_interrupted = interrupt.during(
            lambda: om.update_span(om.SpanRef(0xABC, next(numbers)), metadata={"k": 1}, tags=["t"])
        )
        assert not application.spool.is_locked_by_current_thread, interrupt.number
        return was_interrupted

    every_place(attempt)
    assert om.update_span(om.SpanRef(0xABC, next(numbers)), metadata={"last": 1})
    assert "last" in application.received()


def test_a_finalizer_that_updates_a_span_breaks_no_flush():
    """A copy of what is listed is made in one step: to list pairs may start the collector."""
    patches = InMemoryPatchExporter(lambda patch: Retry(DeliveryError("connection_failure", "down")))
    processor = om.MetadataSpanProcessor(
        om.Destination("memory", None, patches, spans=False), settings=NEVER, clock=ManualClock(), start_workers=False
    )
    numbers = itertools.count(1)

    class AtItsEnd:
        def __init__(self):
            self.cycle = self

        def __del__(self):
            om.update_span(om.SpanRef(2, next(numbers)), metadata={"k": 1}, tags=["t"])

    for number in range(200):
        om.update_span(om.SpanRef(1, number + 1), metadata={"k": 1})
    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(30):
            AtItsEnd()
            processor.force_flush(10)
            processor.stats()
    finally:
        gc.set_threshold(*before)
    processor.shutdown(10)
    assert REPORTER.internal_errors == 0


def test_a_live_update_arrives_or_is_counted_wherever_a_time_limit_interrupts_the_end_of_its_span():
    """The function has returned: its span is ended all the same, at nearly every place."""
    before = signal.signal(signal.SIGUSR1, raise_time_limit)
    application = Application()
    delivered = []

    def attempt(interrupt):
        acknowledged = []

        @om.observe(tracer=application.tracer)
        def function(question):
            acknowledged.append(om.update_current_span(metadata={"k": [1]}))
            return [question]

        was_interrupted = interrupt.during(lambda: function({"a": [1]}))
        if was_interrupted and application.processor.stats().destinations["memory"].live:
            gc.collect()  # a span that nobody could end
        application.processor.force_flush(3_000)
        stats = application.processor.stats().destinations["memory"]
        assert stats.waiting == 0, interrupt.number
        assert stats.accepted - len(delivered) >= sum(map(bool, acknowledged)), interrupt.number
        delivered.extend([1] * (stats.accepted - len(delivered)))
        return was_interrupted

    try:
        every_place(attempt, lambda: signal.raise_signal(signal.SIGUSR1))
    finally:
        signal.signal(signal.SIGUSR1, before)
        application.processor.shutdown(3_000)
    stats = application.processor.stats().destinations["memory"]
    assert stats.is_balanced
    assert stats.lost.get("target_not_exported", 0) <= 4


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, ValueError])
def test_a_callback_that_raises_costs_what_it_was_asked_about_and_nothing_else(error):
    """A mask or hook that ends the program is a failure of it; the function's result is the application's."""
    application = Application()

    def fail(*_):
        raise error

    function = om.observe(tracer=application.tracer, process_input=fail, process_output=fail)(lambda question: "answer")
    with om.capture_spans(match=fail):
        assert function("?") == "answer"
    application.processor.force_flush(3_000)
    (span,) = application.spans.spans
    assert span.attributes["output.value"] == f"<process_output raised {error.__name__}>"
    application.processor.shutdown(3_000)


@pytest.mark.parametrize("error", [KeyboardInterrupt, asyncio.CancelledError])
def test_what_comes_from_outside_passes_through_a_callback(error):
    application = Application()

    def fail(*_):
        raise error

    function = om.observe(tracer=application.tracer, process_output=fail)(lambda question: "answer")
    with pytest.raises(error):
        function("?")
    application.processor.force_flush(3_000)
    assert len(application.spans.spans) == 1
    application.processor.shutdown(3_000)


def thrown_in(module, base):
    """The class of a time limit that another thread throws in."""
    return type("Thrown", (base,), {"__module__": module})


@pytest.mark.parametrize(
    "limit",
    [
        thrown_in("dramatiq.middleware.threading", BaseException),
        thrown_in("func_timeout.exceptions", BaseException),
        thrown_in("application", BaseException),
        thrown_in("rq.timeouts", Exception),
        thrown_in("stopit.utils", Exception),
        SystemExit,
    ],
    ids=lambda limit: f"{limit.__module__}.{limit.__name__}",
)
def test_a_limit_that_another_thread_throws_in_passes(limit, monkeypatch):
    """Where the thread is in our own code when it comes: CPython raises it there as soon as the mask, in C, returns."""
    application = Application()
    throw = ctypes.pythonapi.PyThreadState_SetAsyncExc
    here = ctypes.c_ulong(threading.get_ident())
    mask = functools.partial(throw, here, ctypes.py_object(limit))
    monkeypatch.setattr(live_settings, "in_force", replace(live_settings.in_force, mask=mask))
    with pytest.raises(limit):
        om.update_span(om.SpanRef(1, 1), metadata={"a": "b"})
    application.processor.shutdown(3_000)


@pytest.mark.parametrize(
    ("where", "error", "passes"),
    [
        ("threading", thrown_in("application", BaseException), True),
        ("application", thrown_in("application", BaseException), False),
        ("argparse", SystemExit, False),
        ("otel_metadata.live.generators", GeneratorExit, False),
        ("otel_metadata.model.value", thrown_in("pyo3_runtime", BaseException), False),
        ("otel_metadata.model.value", thrown_in("numpy.exceptions", Exception), False),
    ],
)
def test_the_innermost_frame_tells_what_was_thrown_in(where, error, passes):
    """What a callback, a value, a closed generator or Rust raises is a failure of its own."""
    with pytest.raises(error) if passes else contextlib.nullcontext():
        try:
            exec("raise error", {"__name__": where, "error": error})  # a frame of this module
        except BaseException as caught:  # any of them
            pass_on(caught)


class EndsTheProgram:
    """A value whose methods raise SystemExit."""

    def _exit(self, *_):
        raise SystemExit(3)

    __iter__ = __len__ = __getitem__ = __str__ = __repr__ = __int__ = __float__ = __index__ = keys = _exit


@pytest.mark.parametrize(
    "update",
    [
        lambda value: om.update_span(om.SpanRef(1, 1), metadata={"a": 1}, tags=value, status=value, name=value),
        lambda value: om.update_span(om.SpanRef(1, 1), metadata={"a": [value], "b": {"c": value}}, input=value),
        lambda value: om.update_span(om.SpanRef(1, 1), metadata=value, attributes={"a": 1}),
        lambda value: om.score_span(om.SpanRef(1, 1), "q", score=1, explanation=value, metadata=value),
        lambda value: om.update_span(om.SpanRef(1, 1), metadata={"a": value, value: 1}),
    ],
    ids=["arguments", "nested", "mapping", "evaluation", "key"],
)
def test_a_value_that_ends_the_program_costs_itself_and_nothing_else(update):
    application = Application()
    assert update(EndsTheProgram())
    assert not om.update_span(EndsTheProgram(), metadata={"a": 1})
    om.flush(EndsTheProgram())
    application.processor.shutdown(3_000)


def test_an_exception_whose_text_ends_the_program_stays_the_one_that_is_raised():
    application = Application()
    failure = type("Failure", (Exception,), {"__str__": EndsTheProgram._exit})()

    @om.observe(tracer=application.tracer)
    def fail():
        raise failure

    with pytest.raises(type(failure)) as caught:
        fail()
    assert caught.value is failure
    application.processor.shutdown(3_000)
