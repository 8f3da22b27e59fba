"""fork: the parent keeps what waits, the child starts empty with a writer id and a worker of its own."""

from __future__ import annotations

import os
import sys
import threading

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from tests.delivery.processes import in_child, in_program

import otel_metadata as om
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.live import live_settings
from otel_metadata.live.registry import LOCK, REGISTRY
from otel_metadata.reporting import REPORTER
from otel_metadata.testing import RecordingSpanExporter

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

SLOW = OutboxSettings(schedule_delay_millis=3_600_000)


class Application:
    """One destination with a worker thread, and a tracer."""

    def __init__(self):
        self.spans, self.patches = RecordingSpanExporter(), InMemoryPatchExporter()
        self.processor = om.MetadataSpanProcessor(om.Destination("memory", self.spans, self.patches), settings=SLOW)
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(self.processor)
        self.tracer = self.provider.get_tracer("application")

    def span(self, **metadata):
        with self.tracer.start_as_current_span("span") as span:
            om.update_current_span(metadata=metadata)
        return om.SpanRef.from_span_context(span.get_span_context())

    @property
    def stats(self):
        return self.processor.stats().destinations["memory"]


@pytest.fixture
def application():
    return Application()


def test_the_parent_keeps_what_waits(application):
    """What waited at the fork is delivered by the parent, and by nobody else."""
    application.span(a=1)
    om.update_span(om.SpanRef(1, 1), metadata={"b": 2})

    def child():
        application.processor.force_flush()
        return [len(application.spans.spans), len(application.patches.patches)]

    assert in_child(child) == [0, 0]
    assert application.processor.force_flush()
    assert (len(application.spans.spans), len(application.patches.patches)) == (1, 1)
    assert application.stats.delivered == 2


def test_the_child_starts_empty_and_balanced(application):
    """In the child every count of a destination starts at zero."""
    application.span(a=1)

    def child():
        stats = application.stats
        return [stats.accepted, stats.waiting, stats.spans_queued, stats.buffered_bytes, stats.is_balanced]

    assert in_child(child) == [0, 0, 0, 0, True]


def test_the_child_has_a_worker_of_its_own(application):
    """Spans and updates of the child are delivered by a thread of the child."""

    def child():
        ref = application.span(a=1)
        route = om.update_span(ref, metadata={"b": 2}).route
        is_clean = application.processor.force_flush()
        worker = application.processor.workers[0]
        return [route, is_clean, len(application.spans.spans), worker.has_thread, application.stats.delivered]

    assert in_child(child) == ["in_flight", True, 1, True, 2]


def test_the_child_has_a_writer_id_of_its_own(application):
    """Versions drawn in the child carry another writer id than those of the parent."""
    before = live_settings.VERSIONS.writer
    assert in_child(lambda: live_settings.VERSIONS.writer) != before
    assert live_settings.VERSIONS.writer == before


def test_a_span_open_across_a_fork_is_left_to_the_parent(application):
    """A span that is open at the fork and ended on both sides is exported by the parent alone, with its updates."""
    span = application.tracer.start_span("span")
    om.update_span(span, metadata={"a": 1})

    def child():
        span.end()
        application.processor.force_flush()
        return [len(application.spans.spans), application.stats.accepted]

    assert in_child(child) == [0, 0]
    span.end()
    assert application.processor.force_flush()
    assert [one.attributes["metadata.a"] for one in application.spans.spans] == [1]


def test_an_update_in_the_child_of_a_span_of_the_parent_goes_late(application):
    """For the child a span that was open at the fork is a span of another process: an update of it is a patch."""
    span = application.tracer.start_span("span")

    def child():
        receipt = om.update_span(span, metadata={"a": 1})
        application.processor.force_flush()
        return [receipt.route, [patch.metadata() for patch in application.patches.patches]]

    assert in_child(child) == ["late", [{"a": 1}]]
    assert application.stats.accepted == 0
    span.end()


def test_a_current_span_of_the_parent_is_updated_late_in_the_child(application):
    """An update of the current span in the child, when that span was opened before the fork, goes late as well."""
    with application.tracer.start_as_current_span("span"):
        assert in_child(lambda: om.update_current_span(metadata={"a": 1}).route) == "late"
        assert om.update_current_span(metadata={"a": 1}).route == "live"


def test_a_child_of_a_span_of_the_parent_is_live_in_the_child(application):
    """A span that starts in the child under a span of the parent is updated live there, and exported there."""

    def child():
        with application.tracer.start_as_current_span("inner"):
            route = om.update_current_span(metadata={"a": 1}).route
        application.processor.force_flush()
        return [route, [span.name for span in application.spans.spans]]

    with application.tracer.start_as_current_span("outer"):
        assert in_child(child) == ["live", ["inner"]]


def test_a_child_of_a_span_of_the_parent_is_a_local_root_of_the_child(application):
    """Its parent is of another process: updates of the trace reach it, live, in flight, and late."""

    def child():
        with application.tracer.start_as_current_span("inner") as inner:
            routes = [om.update_current_trace(metadata={"a": 1}).route]
        routes.append(om.update_trace(inner, metadata={"b": 1}).route)
        application.processor.force_flush()
        routes.append(om.update_trace(inner, metadata={"c": 1}).route)
        application.processor.force_flush()
        (patch,) = application.patches.patches
        return [routes, dict(application.spans.spans[0].attributes)["trace.metadata.a"], patch.target.span_id != 0]

    with application.tracer.start_as_current_span("outer"):
        assert in_child(child) == [["live", "in_flight", "late"], 1, True]


def test_a_shut_down_outbox_stays_shut_in_the_child(application):
    """What was shut down before the fork takes nothing in the child either, and starts no thread."""
    application.processor.shutdown()

    def child():
        receipt = om.update_span(om.SpanRef(1, 1), metadata={"a": 1})
        return [receipt.reason, application.processor.workers[0].has_thread]

    assert in_child(child) == ["after_shutdown", False]


def fork_under_load():
    """Fork 20 children while three threads start, update and end spans; a program of its own."""
    application = Application()
    stop, error = threading.Event(), []

    def busy():
        try:
            while not stop.is_set():
                om.update_span(application.span(a=1), metadata={"b": 2})
        except BaseException as failure:
            error.append(failure)

    threads = [threading.Thread(target=busy) for _ in range(3)]
    for thread in threads:
        thread.start()

    def child():
        ref = application.span(a=1)
        om.update_span(ref, metadata={"b": 2})
        return [application.processor.force_flush(), application.stats.is_balanced, application.stats.accepted]

    try:
        results = [in_child(child) for _ in range(20)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert results == [[True, True, 2]] * 20, results
    assert error == []
    application.processor.shutdown()


def test_a_fork_while_other_threads_update_does_not_deadlock():
    """A child that is forked while other threads hold our locks can update, end and flush at once."""
    in_program(fork_under_load, with_coverage=False)


def test_a_fork_from_within_our_lock_does_not_deadlock(application):
    """A fork by the very thread that holds our lock leaves it usable in the child, for all its threads."""

    def child():
        LOCK.release()  # as the code that held it goes on to do
        taken = []
        thread = threading.Thread(target=lambda: taken.append(LOCK.acquire(timeout=30)))
        thread.start()
        thread.join()
        return taken

    with LOCK:
        assert in_child(child) == [True]


def test_a_fork_while_a_log_line_is_decided_does_not_deadlock():
    """A child that is forked while another thread is about to log can log too."""
    holding, release = threading.Event(), threading.Event()

    def hold():
        with REPORTER._lock:
            holding.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait()
    try:
        assert in_child(lambda: REPORTER.tell("in-child", "A line.")) is None
    finally:
        release.set()
        thread.join()


def test_a_fork_during_an_export_leaves_the_export_to_the_parent():
    """A child forked while the parent's worker hangs in an export neither waits for it nor repeats it."""
    application = Application()
    entered, release = threading.Event(), threading.Event()
    application.spans.answer = lambda: entered.set() or (release.wait() and SpanExportResult.SUCCESS)
    application.span(a=1)
    flusher = threading.Thread(target=application.processor.force_flush)
    flusher.start()
    assert entered.wait(30)

    def child():
        application.spans.answer = None
        application.span(b=2)
        return [application.processor.force_flush(), len(application.spans.spans)]

    try:
        assert in_child(child) == [True, 1]
    finally:
        release.set()
        flusher.join()
    assert len(application.spans.spans) == 1


def test_the_registry_of_the_child_is_empty(application):
    """The child's registry holds none of the parent's live spans."""
    span = application.tracer.start_span("span")
    assert in_child(lambda: len(REGISTRY.entries)) == 0
    assert len(REGISTRY.entries) == 1
    span.end()


def imported_while_sending():
    """Send a span and a late patch to an address that refuses; return what the worker's thread imported for it."""
    imported = []

    def heard(event, arguments):
        if event == "import" and threading.current_thread().name.startswith("otel_metadata"):
            imported.append(arguments[0])

    sys.addaudithook(heard)
    pipeline = om.configure("http://127.0.0.1:9")
    with om.start_span("span", metadata={"k": {"nested": None}}) as span:
        pass
    om.flush(5_000)
    om.update_span(span, metadata={"late": 1})
    om.score_span(span, "verdict", score=0.5)
    om.flush(5_000)
    tries = pipeline.stats().destinations["otlp"].spans_retried
    om.shutdown(100)
    return [tries, imported]


def test_the_worker_imports_nothing():
    """A process that forks while another thread imports gives its child an import lock that is never opened."""
    tries, imported = in_program(imported_while_sending)

    assert tries > 0
    assert imported == []
