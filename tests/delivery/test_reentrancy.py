"""Calls of ours from where a lock of ours may be held, or from a thread of ours: they return, and nothing is lost.

Finalizers, callbacks of weak references, signal handlers and handlers of log lines run in the middle of our own calls;
exporters and callbacks run on our worker. Each test is a forked child with a real worker: a deadlock ends it.
"""

from __future__ import annotations

import gc
import inspect
import itertools
import logging
import os
import signal
import sqlite3
import sys
import threading
import weakref

import pytest
from opentelemetry import attributes as sdk_attributes
from opentelemetry.sdk import trace as sdk_trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import StatusCode
from tests.delivery.processes import in_child

import otel_metadata as om
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.live.registry import LOCK
from otel_metadata.model.outcome import Delivered, DeliveryError, Rejected
from otel_metadata.spool import spool as spool_module
from otel_metadata.spool.spool import Spool, SpoolSettings
from otel_metadata.testing import RecordingSpanExporter

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

# A wait that ends by itself would hide a deadlock.
FOREVER = 10**9

NEVER = OutboxSettings(schedule_delay_millis=3_600_000)

FIRST, SECOND, FROM_WITHIN = (om.SpanRef(0xABC, number) for number in (1, 2, 3))


class Application:
    """One destination in memory, with a worker's thread, and a spool when a folder is given."""

    def __init__(self, folder=None, **options):
        self.spans, self.patches = RecordingSpanExporter(), InMemoryPatchExporter()
        self.spool = Spool(SpoolSettings(f"{folder}/spool/spool.db")) if folder is not None else None
        destination = om.Destination("memory", self.spans, self.patches)
        self.processor = om.MetadataSpanProcessor(destination, settings=NEVER, spool=self.spool, **options)
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(self.processor)
        self.tracer = self.provider.get_tracer("application")
        self.calls = {
            "update": lambda: om.update_span(FROM_WITHIN, metadata={"from": "within"}),
            "span": lambda: self.tracer.start_span("from within").end(),
            "flush": lambda: om.flush(timeout_millis=FOREVER),
            "shutdown": lambda: om.shutdown(timeout_millis=FOREVER),
            "stats": om.stats,
        }

    def end(self):
        """Shut down; return how many updates were accepted, and how many of them are lost."""
        om.shutdown(timeout_millis=FOREVER)
        self.processor.shutdown(FOREVER)  # the one before may have come from where nothing waits
        assert (self.spans.is_shut_down, self.patches.is_shut_down) == (True, True)
        stats = self.processor.stats().destinations["memory"]
        assert (stats.is_balanced, stats.waiting) == (True, 0)
        return [stats.accepted, sum(stats.lost.values())]


# --- what interrupts ----------------------------------------------------------------------------------------------


class AtItsEnd:
    """Does something when it is collected, which only the collector can do."""

    def __init__(self, action):
        self.action = action
        self.cycle = self

    def __del__(self):
        self.action()


def by_finalizer(action):
    """Return what lets a finalizer do *action*."""
    gc.freeze()

    def interrupt():
        AtItsEnd(action)
        gc.collect()

    return interrupt


def by_weak_reference(action):
    """Return what lets the callback of a weak reference do *action*."""
    gc.freeze()

    def interrupt():
        one = AtItsEnd(lambda: None)
        weak = weakref.ref(one, lambda _: action())
        del one
        gc.collect()
        assert weak() is None

    return interrupt


def by_signal(action):
    """Return what lets a signal handler do *action*."""
    signal.signal(signal.SIGUSR1, lambda number, frame: action())
    return lambda: signal.raise_signal(signal.SIGUSR1)


class Lines:
    """What a traced thread does once before each line of ours, and of Python's locks; or before one of them only.

    Attributes:
        seen: The lines that it came to.
    """

    files = os.path.dirname(om.__file__), threading.__file__

    def __init__(self, action, only=None):
        self.action, self.only = action, only
        self.seen = set()

    def __call__(self, frame, event, _):
        place = frame.f_code.co_filename, frame.f_lineno
        if not place[0].startswith(self.files):
            return None
        if event == "line" and place not in self.seen:
            self.seen.add(place)
            if self.only in {None, len(self.seen)}:
                self.action()
        return self

    def during(self, call):
        """Trace this thread while it is in *call*."""
        sys.settrace(self)
        try:
            call()
        finally:
            sys.settrace(None)


INNER = ["update", "span", "flush", "stats"]


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("outer", ["update", "span", "flush", "stats", "shutdown"])
def test_a_call_between_any_two_lines_of_another(tmp_path, outer, inner):
    """Wherever a signal handler interrupts a call of ours, what it calls returns, and nothing is lost."""

    def child():
        application, done = Application(tmp_path), []
        om.update_span(FIRST, metadata={"a": 1})
        lines = Lines(by_signal(lambda: done.append(application.calls[inner]())))
        lines.during(application.calls[outer])
        assert len(done) == len(lines.seen) > 20
        return application.end()

    assert in_child(child)[1] == 0


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("interrupt", [by_finalizer, by_weak_reference])
def test_a_call_of_the_collector_between_any_two_lines_of_an_update(tmp_path, interrupt, inner):
    """Wherever the collector interrupts an update, a finalizer and the callback of a weak reference may call us."""

    def child():
        application, done = Application(tmp_path), []
        lines = Lines(interrupt(lambda: done.append(application.calls[inner]())))
        lines.during(lambda: om.update_span(FIRST, metadata={"a": 1}))
        assert len(done) == len(lines.seen) > 20
        return application.end()

    assert in_child(child)[1] == 0


class SpanLines(Lines):
    """The same for lines of ours and of OpenTelemetry's spans."""

    files = os.path.dirname(om.__file__), inspect.getfile(sdk_trace), inspect.getfile(sdk_attributes)


@pytest.mark.parametrize("interrupt", [by_finalizer, by_signal])
@pytest.mark.parametrize(
    "outer",
    [
        lambda span: span.set_attributes({"a": 1, "b": [1, 2]}),
        lambda span: span.set_attribute("a", "text"),
        lambda span: span.set_status(StatusCode.ERROR, "failed"),
        lambda span: span.update_name("other"),
        lambda span: span.add_event("event", {"a": 1}),
        lambda span: om.update_current_span(metadata={"outer": 1}),
        lambda span: om.update_current_span(name="another", status="ok", tags=["t"], metadata={"outer": None}),
        lambda span: span.end(),
    ],
    ids=["attributes", "attribute", "status", "name", "event", "update", "every field", "end"],
)
def test_an_update_of_the_span_that_is_being_changed(interrupt, outer):
    """OpenTelemetry's lock of a span is not re-entrant: a call that interrupts it updates the span without a wait."""

    def child():
        application, receipts, counts = Application(), [], itertools.count()

        def update():
            count = next(counts)
            receipts.append(om.update_current_span(metadata={"inner": count}))
            receipts.append(om.update_current_trace(user_id=f"u-{count}", name="trace"))
            receipts.append(om.update_current_span(name="inner", status="error", tags=["t"], input=[count]))
            receipts.append(om.score_current_span("q", score=1.0))

        with application.tracer.start_as_current_span("outer", end_on_exit=False) as span:
            lines = SpanLines(interrupt(update))
            lines.during(lambda: outer(span))
            span.end()
        assert len(receipts) >= 4 * len(lines.seen) > 12
        assert all(receipts)
        assert any("not set as attributes" in note for one in receipts for note in one.notes)
        om.flush(timeout_millis=FOREVER)
        return [*application.end(), len(application.spans.spans)]

    accepted, lost, spans = in_child(child)
    assert (lost, spans) == (0, 1)
    assert accepted >= 4


def with_traced_worker(lines, folder=None):
    """Return an application whose worker is traced, from now on."""
    only, lines.only = lines.only, 0
    threading.settrace(lines)
    application = Application(folder)
    threading.settrace(None)
    lines.seen.clear()
    lines.only = only
    return application


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("interrupt", [by_finalizer, by_weak_reference])
def test_a_call_of_the_collector_between_any_two_lines_of_the_worker(tmp_path, interrupt, inner):
    """Wherever the collector interrupts the worker, what runs there may call us."""

    def child():
        done = []
        lines = Lines(interrupt(lambda: done.append(application.calls[inner]())))
        application = with_traced_worker(lines, tmp_path)
        om.update_span(FIRST, metadata={"a": 1})
        om.flush(timeout_millis=FOREVER)
        assert len(done) > 200
        return application.end()

    assert in_child(child)[1] == 0


SPOOL = pytest.mark.parametrize("with_spool", [False, True], ids=["memory", "spool"])


def shut_down_between_lines(run, with_spool):
    """Call *run* with the number of each line, until it says that its call has fewer; return how many it has."""
    # With a spool a few of them, for an application with one takes milliseconds to set up.
    return next(number for number in range(1, 1_000, 17 if with_spool else 1) if run(number) < number)


@SPOOL
@pytest.mark.parametrize("outer", ["update", "flush"])
def test_a_shutdown_between_any_two_lines_of_another_call(tmp_path, with_spool, outer):
    """Wherever a signal handler shuts us down, both calls return, and an accepted update is in the spool or counted."""

    def run(number):
        application = Application(tmp_path / str(number) if with_spool else None)
        om.update_span(FIRST, metadata={"a": 1})
        lines = Lines(application.calls["shutdown"], only=number)
        lines.during(application.calls[outer])
        assert not application.end()[1] or not with_spool
        return len(lines.seen)

    assert in_child(lambda: shut_down_between_lines(run, with_spool)) > 40


@SPOOL
def test_a_shutdown_between_any_two_lines_of_the_worker(tmp_path, with_spool):
    """Wherever the worker itself shuts us down, who waits for it returns, and an update is in the spool or counted."""

    def run(number):
        lines = Lines(lambda: application.calls["shutdown"](), only=number)
        application = with_traced_worker(lines, tmp_path / str(number) if with_spool else None)
        om.update_span(FIRST, metadata={"a": 1})
        om.flush(timeout_millis=FOREVER)
        assert not application.end()[1] or not with_spool
        return len(lines.seen)

    assert in_child(lambda: shut_down_between_lines(run, with_spool)) > 100


@pytest.mark.parametrize("call", ["flush", "shutdown"])
def test_several_processors_are_not_waited_for_under_the_lock(call):
    """A flush or shutdown of several processors, from where one of their calls was interrupted, returns at once."""

    def child():
        applications = [Application(), Application()]
        om.update_span(FIRST, metadata={"a": 1})
        with LOCK:
            applications[0].calls[call]()
        return [application.end() for application in applications]

    assert in_child(child) == [[0, 0], [1, 0]]


def test_a_shutdown_ends_the_flush_that_it_interrupts():
    """A handler that shuts us down while its thread waits in a flush for an exporter that hangs ends that flush."""

    def child():
        application, release = Application(), threading.Event()

        def handle():
            om.shutdown(timeout_millis=1)
            release.set()

        by_signal(handle)

        def hang():
            # Again and again: one that comes just before a thread begins to wait does not wake it.
            while not release.wait(0.01):
                signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
            return SpanExportResult.SUCCESS

        application.spans.answer = hang
        application.calls["span"]()
        return om.flush(timeout_millis=FOREVER)

    assert in_child(child) is False


# --- two threads --------------------------------------------------------------------------------------------------


def test_interrupts_of_two_threads_do_not_wait_for_each_other(tmp_path, monkeypatch):
    """One thread has the process's lock, another the spool's, and what interrupts each of them updates a span."""
    monkeypatch.setattr(spool_module, "_PATIENCE_SECONDS", 0.01)

    def child():
        application = Application(tmp_path)
        om.update_span(FIRST, metadata={"a": 1})
        update = application.calls["update"]
        has_ours, has_the_spools = threading.Event(), threading.Event()
        write = application.spool._write_one

        def write_one(*arguments):
            if not has_the_spools.is_set():
                has_the_spools.set()
                has_ours.wait()
                update()
            write(*arguments)

        application.spool._write_one = write_one
        thread = threading.Thread(target=lambda: om.update_span(SECOND, metadata={"a": 1}))
        thread.start()
        has_the_spools.wait()
        with LOCK:
            has_ours.set()
            update()
        thread.join()
        return application.end()

    assert in_child(child) == [4, 0]


class UpdatingHandler(logging.Handler):
    """Updates a span for each line, with its lock, as the standard library calls it."""

    def __init__(self, application):
        super().__init__()
        self.application = application
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())
        if self.lines == ["the application's"]:
            self.entered.set()
            self.go_on.wait()
        self.application.calls["update"]()


@pytest.mark.parametrize("held", ["ours", "the spool's"])
def test_no_line_is_logged_under_a_lock(tmp_path, held):
    """One thread has something to log while it has a lock of ours; another has the handler's lock, and needs ours."""

    def child():
        application = Application(tmp_path)
        handler = UpdatingHandler(application)
        logger = logging.getLogger("otel_metadata")
        logger.addHandler(handler)
        logger.propagate = False
        thread = threading.Thread(target=lambda: logger.warning("the application's"))

        def let_the_other_in():
            thread.start()
            handler.entered.wait()
            handler.go_on.set()

        def lose_the_disk(*_):
            del application.spool._write_one
            let_the_other_in()
            raise sqlite3.OperationalError("disk I/O error")

        om.update_span(FIRST, metadata={"a": 1})
        if held == "ours":
            with LOCK:
                let_the_other_in()
                om.update_span("no target", metadata={"a": 1})
        else:
            application.spool._write_one = lose_the_disk
            om.update_span(SECOND, metadata={"a": 1})
        thread.join()
        om.update_current_span(metadata={"a": 1})  # logs that there is none, and what was held back
        return [len(handler.lines), *application.end()]

    # One of the application's and two of ours; each makes an update.
    assert in_child(child) == [3, 4 if held == "ours" else 5, 0]


# --- foreign code that we call ------------------------------------------------------------------------------------


REFUSED = Rejected(DeliveryError("patch_failure", "refused"))


@pytest.mark.parametrize("inner", [*INNER, "shutdown"])
@pytest.mark.parametrize("place", ["spans", "patches", "dead letters"])
def test_a_call_from_foreign_code_on_our_worker(tmp_path, place, inner):
    """An exporter, and who is told of a dead letter, may call us: a worker does not wait for itself."""

    def child():
        returned = []

        def call(*_):
            if not returned:
                returned.append(False)
                application.calls[inner]()
                returned[0] = True

        application = Application(tmp_path, on_dead_letter=call)
        if place == "spans":
            application.spans.answer = lambda: call() or SpanExportResult.SUCCESS
        elif place == "patches":
            application.patches.answer = lambda patch: call() or Delivered()
        else:
            application.patches.answer = lambda patch: REFUSED if patch.target == FIRST else Delivered()
        application.calls["span"]()
        om.update_span(FIRST, metadata={"a": 1})
        om.flush(timeout_millis=FOREVER)
        return [*application.end(), *returned]

    accepted, lost = 2 if inner == "update" else 1, int(place == "dead letters")
    assert in_child(child) == [accepted, lost, True]


@pytest.mark.parametrize("inner", INNER)
def test_a_call_from_a_dead_letter_on_the_thread_that_flushes(tmp_path, inner):
    """Where the caller of flush does the work, who is told of a dead letter may call us in the middle of it."""

    def child():
        told = []
        application = Application(
            tmp_path,
            on_dead_letter=lambda letter: told.append(application.calls[inner]()),
            start_workers=False,
        )
        application.patches.answer = lambda patch: REFUSED if patch.target == FIRST else Delivered()
        om.update_span(FIRST, metadata={"a": 1})
        om.flush(timeout_millis=FOREVER)
        return [len(told), application.end()]

    assert in_child(child) == [1, [2 if inner == "update" else 1, 1]]
