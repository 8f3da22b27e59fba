"""Programs that interrupt our own calls where a lock is held; run by `test_reentrancy.py`, one process each.

Called as `python -m tests.late.programs.reentrancy NAME FOLDER [ARGUMENT...]`; prints what came of it as JSON. A
deadlock is a process that does not end.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import logging
import os
import signal
import sqlite3
import sys
import threading
import time

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult

import otel_metadata as om
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.late.settings import OutboxSettings
from otel_metadata.late.spool import Spool, SpoolSettings
from otel_metadata.live.registry import LOCK
from otel_metadata.model.outcome import Delivered
from otel_metadata.testing import RecordingSpanExporter

# A wait that ends by itself would hide a deadlock.
FOREVER = 10**9

WAITING, INTERRUPTED, INTERRUPTING = (om.SpanRef(0xABC, number) for number in (1, 2, 3))


class Hook:
    """Something to be done once, at a point inside a call of ours, on one thread."""

    def __init__(self):
        self.action = None
        self.thread = None
        self.fired = 0

    def arm(self, action, *, on_worker=False):
        """Do *action* when the point is reached next, on this thread or on one that is not."""
        self.thread = threading.current_thread()
        self.on_worker = on_worker
        self.action = action

    def __call__(self):
        """Be at the point."""
        action = self.action
        if action is not None and (threading.current_thread() is not self.thread) == self.on_worker:
            self.action = None
            self.fired += 1
            action()


at_our_lock, at_spool_lock, at_condition = Hook(), Hook(), Hook()


class HookedClock:
    """The system's clock, which is asked under our lock as well."""

    wall_ns = staticmethod(time.time_ns)

    @staticmethod
    def monotonic_ns():
        """Be at the point, if the lock is held."""
        if LOCK._is_owned():
            at_our_lock()
        return time.monotonic_ns()

    @staticmethod
    def wait(event, timeout_ns):
        """Wait on the event."""
        return event.wait(None if timeout_ns is None else max(timeout_ns, 0) / 1e9)


class HookedConnection(sqlite3.Connection):
    """A connection of the spool, which is used under its lock only."""

    def execute(self, *arguments):
        """Be at the point before the statement."""
        at_spool_lock()
        return super().execute(*arguments)

    def executemany(self, *arguments):
        """Be at the point before the statements."""
        at_spool_lock()
        return super().executemany(*arguments)


class Application:
    """One destination in memory with a worker's thread; with a spool, when a folder is given."""

    def __init__(self, folder=None):
        self.spans, self.patches = RecordingSpanExporter(), InMemoryPatchExporter()
        spool = None
        if folder is not None:
            connect = sqlite3.connect
            sqlite3.connect = lambda *arguments, **options: connect(*arguments, **options, factory=HookedConnection)
            spool = Spool(SpoolSettings(f"{folder}/spool/spool.db"))
        self.processor = om.MetadataSpanProcessor(
            om.Destination("memory", self.spans, self.patches),
            settings=OutboxSettings(schedule_delay_millis=3_600_000),
            clock=HookedClock(),
            spool=spool,
        )
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(self.processor)
        self.tracer = self.provider.get_tracer("application")

    @property
    def stats(self):
        """The destination's counts."""
        return self.processor.stats().destinations["memory"]

    def told(self):
        """Return what a test compares: is all that was taken delivered, once the last shutdown is over?"""
        om.shutdown()
        self.processor.shutdown()
        stats = self.stats
        return {
            "taken": stats.accepted,
            "lost": dict(stats.lost),
            "all delivered": stats.delivered == stats.accepted,
            "closed": self.spans.is_shut_down and self.patches.is_shut_down,
        }


class AtItsEnd:
    """Does something when it is collected, which only a collection can do."""

    def __init__(self, action):
        self.action = action
        self.cycle = self

    def __del__(self):
        self.action()


def by_finalizer(action):
    """Return what makes the collector call *action*."""

    def collect():
        AtItsEnd(action)
        gc.collect()

    return collect


def by_signal(action):
    """Return what makes a signal handler call *action*."""
    signal.signal(signal.SIGUSR1, lambda number, frame: action())
    return lambda: signal.raise_signal(signal.SIGUSR1)


def interrupted(folder, held, source, action):
    """Do *action* in the middle of an update, or of the worker's step, that holds a lock."""
    application = Application(folder if held == "spool" else None)
    answers = []
    actions = {
        "update": lambda: answers.append(bool(om.update_span(INTERRUPTING, metadata={"interrupting": 1}))),
        "span": lambda: application.tracer.start_span("interrupting").end(),
        "flush": lambda: om.flush(timeout_millis=FOREVER),
        "shutdown": lambda: om.shutdown(timeout_millis=FOREVER),
        "stats": lambda: answers.append(om.stats().destinations["memory"].is_balanced),
    }
    hook = at_spool_lock if held == "spool" else at_our_lock
    assert om.update_span(WAITING, metadata={"a": 1})
    interrupt = by_signal(actions[action]) if source == "signal" else by_finalizer(actions[action])
    if source == "worker":
        done = threading.Event()
        hook.arm(lambda: (interrupt(), done.set()), on_worker=True)
        om.flush(timeout_millis=FOREVER)
        assert done.wait(60)
    else:
        hook.arm(interrupt)
        receipt = om.update_span(INTERRUPTED, metadata={"a": 1})
        assert receipt or receipt.reason == "after_shutdown", receipt
    return {"fired": hook.fired, "answers": answers, **application.told()}


def in_an_event(_folder, action):
    """Interrupt the call that wakes a worker, or waits for it, while it holds the lock inside an event."""
    application = Application()
    enter = threading.Condition.__enter__

    def entered(condition):
        result = enter(condition)
        at_condition()
        return result

    threading.Condition.__enter__ = entered
    if action == "wake":
        at_condition.arm(by_signal(application.processor.workers[0].wake))
        application.processor.workers[0].wake()
    else:
        assert om.update_span(WAITING, metadata={"a": 1})
        at_condition.arm(by_signal(lambda: om.shutdown(timeout_millis=FOREVER)))
        om.flush(timeout_millis=FOREVER)
    at_condition.action = None
    return application.told()


def two_threads(folder):
    """Let one thread have our lock and the other the spool's, and a finalizer on each that updates a span."""
    application = Application(folder)
    has_ours, has_spools = threading.Event(), threading.Event()
    update = by_finalizer(lambda: om.update_span(INTERRUPTING, metadata={"interrupting": 1}))

    def other():
        at_spool_lock.arm(lambda: (has_spools.set(), has_ours.wait(), update()))
        om.update_span(WAITING, metadata={"a": 1})

    thread = threading.Thread(target=other)
    thread.start()
    has_spools.wait()
    with LOCK:
        has_ours.set()
        update()
    thread.join()
    return {"fired": at_spool_lock.fired, **application.told()}


class UpdatingHandler(logging.Handler):
    """A logging handler that updates a span, which the standard library calls with the handler's lock."""

    def __init__(self):
        super().__init__()
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.lines = []

    def emit(self, record):
        """Wait until the other thread has a lock of ours, then update."""
        self.lines.append(record.getMessage())
        if record.getMessage() == "the application's own line":
            self.entered.set()
            self.go_on.wait()
        om.update_span(INTERRUPTING, metadata={"log": 1})


def a_line_under_a_lock(folder, held):
    """Have something to log while a lock of ours is held, and another thread holds a handler's lock and updates."""
    application = Application(folder if held == "spool" else None)
    assert om.update_span(WAITING, metadata={"a": 1})
    handler = UpdatingHandler()
    logger = logging.getLogger("otel_metadata")
    logger.addHandler(handler)
    logger.propagate = False
    thread = threading.Thread(target=lambda: logger.warning("the application's own line"))

    def lose_the_disk():
        thread.start()
        handler.entered.wait()
        handler.go_on.set()
        raise sqlite3.OperationalError("disk I/O error")

    if held == "spool":
        at_spool_lock.arm(lose_the_disk)
        om.update_span(INTERRUPTED, metadata={"a": 1})
    else:
        thread.start()
        handler.entered.wait()
        refused = by_finalizer(lambda: om.update_span("no target", metadata={"a": 1}))
        with LOCK:
            handler.go_on.set()
            refused()
    thread.join()
    logger.warning("the last line")
    told = application.told()
    return {"lines": len(handler.lines), "lost": told["lost"], "all delivered": told["all delivered"]}


def shutdown_while_flush_waits(_folder):
    """Shut down in a signal handler while the same thread waits in a flush for an exporter that hangs."""
    application = Application()
    release = threading.Event()

    def hang():
        os.kill(os.getpid(), signal.SIGUSR1)
        release.wait()
        return SpanExportResult.SUCCESS

    application.spans.answer = hang
    application.tracer.start_span("span").end()

    def handle(_number, _frame):
        om.shutdown(timeout_millis=1)
        release.set()

    signal.signal(signal.SIGUSR1, handle)
    is_clean = om.flush(timeout_millis=FOREVER)
    application.processor.workers[0]._thread.join()
    return {"clean": is_clean, "closed": application.spans.is_shut_down}


def handlers_all_the_time(folder):
    """Let a timer's handler update, flush and shut down between any two steps of a program with a spool."""
    application = Application(folder)
    application.patches.answer = lambda patch: Delivered()
    taken = [0, 0]

    def handle(_number, _frame):
        taken[0] += bool(om.update_span(INTERRUPTING, metadata={f"s{taken[0] % 50}": taken[0]}))
        if taken[0] % 10 == 0:
            om.flush(timeout_millis=FOREVER)

    signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    while taken[0] < 150:
        taken[1] += bool(om.update_span(WAITING, metadata={f"k{taken[1] % 50}": taken[1]}))
        if taken[1] % 100 == 0:
            om.flush(timeout_millis=FOREVER)
    signal.setitimer(signal.ITIMER_REAL, 0)
    told = application.told()
    return {**told, "taken": told["taken"] == sum(taken)}


if __name__ == "__main__":
    faulthandler.dump_traceback_later(int(os.environ["GIVE_UP_SECONDS"]), exit=True)
    program, *arguments = sys.argv[1:]
    print(json.dumps(globals()[program](*arguments)))
