"""Dialects, exporters, callbacks and log handlers of others: what they raise or change harms nobody else."""

from __future__ import annotations

import logging
from enum import Enum

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

import otel_metadata as om
from otel_metadata.client.client import Spans
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.delivery.worker import Worker
from otel_metadata.dialects.otel import OtelDialect
from otel_metadata.errors import ConfigurationError
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.model.encoding import Encoded
from otel_metadata.model.outcome import Delivered, DeliveryError, Pause, Rejected, Retry
from otel_metadata.reporting import REPORTER
from otel_metadata.testing import ManualClock, RecordingSpanExporter

EXITS = [SystemExit(3), GeneratorExit(), type("Foreign", (BaseException,), {})()]


class ForeignPatches:
    """A patch exporter of somebody's: does what it was told with the patches, and answers."""

    name, max_batch, grace_millis, reports_missing, convergence = "foreign", 100, 0, False, "versioned"

    def __init__(self, action):
        self.action = action

    def export(self, patches, *, timeout_millis):
        return self.action(patches)

    def force_flush(self, timeout_millis=0):
        return True

    def shutdown(self, timeout_millis=0):
        pass


class ForeignSpans(SpanExporter):
    """A span exporter of somebody's, which empties everything that it can reach of a span's fields."""

    def __init__(self):
        self.fields = []

    def export(self, spans):
        for span in spans:
            empty(getattr(span, "fields", {}))
        return SpanExportResult.SUCCESS

    def shutdown(self):
        pass


class ForeignDialect:
    """Does what it was told instead of encoding."""

    def __init__(self, action):
        self.action = action

    def encode(self, span, fields, *, is_local_root):
        return self.action(span, fields)


class HostileText(str):
    """A text whose methods are somebody's code."""

    __slots__ = ()

    def _fail(self, *_):
        raise RuntimeError("called")

    __eq__ = __hash__ = __format__ = __str__ = __contains__ = isprintable = _fail


class HostileNumber(int):
    """A number whose methods are somebody's code."""

    def _fail(self, *_):
        raise RuntimeError("called")

    __eq__ = __lt__ = __gt__ = __le__ = __ge__ = __mul__ = __rmul__ = __hash__ = _fail


def empty(fields):
    for value, _ in fields.values():
        if isinstance(value, (dict, list)):
            value.clear()
    fields.clear()


def raises(error):
    def action(*_):
        raise error

    return action


def with_another(span_exporter, dialect):
    """An application with a foreign destination, and one of ours that gets the same spans after it."""
    good = RecordingSpanExporter()
    processor = om.MetadataSpanProcessor(
        om.Destination("foreign", span_exporter, InMemoryPatchExporter(), dialect),
        om.Destination("good", good, InMemoryPatchExporter(), OtelDialect(max_attributes=None, span_limit=None)),
        settings=OutboxSettings(),
        clock=ManualClock(),
        start_workers=False,
    )
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    with provider.get_tracer("application").start_as_current_span("span") as span:
        om.update_current_span(metadata={"live": {"kept": [1]}})
    om.update_span(span, metadata={"after": {"kept": [2]}})
    assert processor.force_flush()
    return processor, good.spans[0]


def change_all(span, fields):
    """A dialect that uses up what it is handed, and asks for all of it to follow as a patch."""
    remainder = dict(fields)
    empty(fields)
    return Encoded({}, remainder=remainder)


@pytest.mark.parametrize(
    ("spans", "dialect"),
    [(ForeignSpans(), "otel"), (RecordingSpanExporter(), ForeignDialect(change_all))],
    ids=["exporter", "dialect"],
)
def test_fields_that_a_foreign_part_changes_are_its_own(spans, dialect):
    """The other destination has the values as they were set, and so has the patch that follows the span."""
    processor, span = with_another(spans, dialect)
    fields = {name[2]: value for name, (value, _) in span.fields.items()}
    assert fields == {"live": {"kept": [1]}, "after": {"kept": [2]}}
    patches = processor.outboxes[0].destination.patch_exporter.patches
    assert [patch.metadata() for patch in patches] == ([] if dialect == "otel" else [fields])


@pytest.mark.parametrize("error", EXITS, ids=lambda error: type(error).__name__)
def test_a_dialect_that_ends_the_thread_loses_nothing(make_scene, error):
    """What is no Exception is a dialect's failure like any other: the span leaves, its fields follow as a patch."""
    scene = make_scene(dialect=ForeignDialect(raises(error)))
    ref = scene.ended(step=1)
    scene.wait_and_step()
    assert scene.final(ref) == {"step": 1}
    assert (scene.stats.delivered, scene.lost, scene.processor.stats().internal_errors) == (1, {}, 0)


def error_of(kind, message="m"):
    """An error with parts that its constructor would not have let pass."""
    error = object.__new__(DeliveryError)
    object.__setattr__(error, "type", kind)
    object.__setattr__(error, "message", message)
    return error


DOWN = DeliveryError("connection_failure", "down")


@pytest.mark.parametrize(
    "outcome",
    [
        Retry(error_of(HostileText("connection_failure"))),
        Rejected(error_of(["unhashable"])),
        Rejected(error_of("backend_rejection", object())),
        Pause(error_of("unauthorized", None)),
        Retry(DOWN, HostileNumber(3)),
        Retry(DOWN, 1.5),
        object.__new__(Retry),
        Rejected(object.__new__(DeliveryError)),
    ],
    ids=["type", "list", "message", "none", "number", "float", "empty", "empty error"],
)
@pytest.mark.parametrize("part", ["spans", "patches"])
def test_an_outcome_with_foreign_parts_is_a_retry(make_scene, outcome, part):
    """It is settled whole: tried again, counted once, and nothing of ours fails over it."""

    class Sender(SpanExporter):
        def send(self, spans, *, timeout_millis):
            return outcome

        def export(self, spans):
            raise AssertionError

        def shutdown(self):
            pass

    scene = make_scene(
        om.Destination("bad", Sender(), ForeignPatches(lambda patches: [outcome] * len(patches))), with_spans=True
    )
    bad = scene.processor.workers[1]
    if part == "spans":
        scene.ended(a=1)
    else:
        om.update_span(scene.unseen(), metadata={"a": 1})
    scene.clock.advance(5_000)
    while bad.step():
        pass
    stats = scene.processor.stats().destinations["bad"]
    assert (stats.lost, stats.waiting, stats.is_balanced) == ({}, 1, True)
    assert (stats.retried if part == "patches" else stats.spans_retried) == 1
    assert scene.processor.stats().internal_errors == 0


@pytest.mark.parametrize(
    "delivered", [Delivered((HostileText("n"),)), Delivered((), HostileNumber(1)), Delivered("text")]
)
def test_notes_with_foreign_parts_are_left_out(make_scene, delivered):
    """What was delivered is delivered, whatever is said of it."""
    scene = make_scene(om.Destination("bad", None, ForeignPatches(lambda _: [delivered]), spans=False))
    receipt = om.update_span(scene.unseen(), metadata={"a": 1})
    assert scene.processor.workers[1].begin_flush(scene.clock.monotonic_ns() + 10**9)()
    assert om.outcome(receipt).destinations["bad"].notes == ()
    assert scene.processor.stats().destinations["bad"].delivered == 1


def test_a_word_of_an_enumeration_is_the_word():
    """An exporter may have its error types as an enumeration of texts."""

    class Word(str, Enum):
        LARGE = "too_large"

    error = DeliveryError(Word.LARGE, "m")
    assert (type(error.type), error.type) == (str, "too_large")


@pytest.mark.parametrize("error", EXITS, ids=lambda error: type(error).__name__)
def test_a_dead_letter_callback_that_ends_the_thread_does_no_harm(make_scene, error):
    """Whoever flushes goes on, although the callback runs on its thread, and all letters are shown."""
    letters = []

    def show(letter):
        letters.append(letter)
        raise error

    scene = make_scene(on_dead_letter=show)
    scene.patches.answer = lambda patch: Rejected(DeliveryError("backend_rejection", "no"))
    for number in (1, 2, 3):
        om.update_span(scene.unseen(number), metadata={"a": number})
    scene.processor.force_flush()
    assert len(letters) == 3
    assert scene.lost == {"rejected": 3}


@pytest.mark.parametrize("error", EXITS, ids=lambda error: type(error).__name__)
def test_a_log_handler_that_ends_the_thread_does_no_harm(scene, monkeypatch, error):
    """An update that has something to say returns its receipt, whatever the application's handler raises."""
    handler = logging.Handler()
    handler.handle = raises(error)
    monkeypatch.setattr(REPORTER, "_told", {})
    monkeypatch.setattr(REPORTER, "reraise", False)
    logger = logging.getLogger("otel_metadata")
    monkeypatch.setattr(logger, "level", logging.DEBUG)
    logger.addHandler(handler)
    try:
        assert om.update_span(scene.unseen(), metadata={"a": 1}, tags=7)
        REPORTER.failed("test", ValueError())
    finally:
        logger.removeHandler(handler)


def test_a_step_that_fails_again_and_again_does_not_spin(scene, monkeypatch):
    """After a failure of our own the worker waits, although what failed is still due."""
    monkeypatch.setattr(REPORTER, "reraise", False)
    waits = []

    class Clock:
        def monotonic_ns(self):
            return 0

        def wait(self, event, timeout_ns):
            waits.append(timeout_ns)
            worker._is_stopped = len(waits) == 3
            return False

    worker = Worker(scene.outbox, Clock(), start=False)
    monkeypatch.setattr(worker, "step", raises(RuntimeError("boom")))
    monkeypatch.setattr(scene.outbox, "next_due_ns", lambda: 0)
    worker._run()
    assert waits == [1_000_000_000] * 3


@pytest.mark.parametrize(
    ("part", "value"),
    [("max_batch", None), ("max_batch", "9"), ("max_batch", HostileNumber(9)), ("grace_millis", float("nan"))],
)
def test_an_exporter_whose_numbers_cannot_be_used_is_refused(part, value):
    """When it is configured, and not by each of its batches."""
    exporter = ForeignPatches(lambda patches: [])
    setattr(exporter, part, value)
    with pytest.raises(ConfigurationError, match=f"patch_exporter.{part} is .*expected a whole number"):
        om.Destination("foreign", None, exporter, spans=False)


def test_a_client_is_as_careful_with_a_foreign_exporter():
    """What it changes is not missing from its next try, and what is no outcome, or no Exception, is a retry."""
    seen = []

    def use_up(patches):
        seen.append([dict(patch.fields) for patch in patches])
        for patch in patches:
            empty(patch.fields)
        if len(seen) == 1:
            raise SystemExit(1)
        return [Retry(error_of(object()), HostileNumber(1)) if len(seen) == 2 else Delivered()]

    class Impatient:
        wall_ns = monotonic_ns = staticmethod(lambda: 0)

        def wait(self, event, timeout_ns):
            return False

    spans = Spans(om.Destination("foreign", None, ForeignPatches(use_up), spans=False), Impatient())
    report = spans.update_metadata(
        [{"context.span_id": "1" * 16, "context.trace_id": "1" * 32, "patch_document": {"a": {"b": [1]}}}]
    )
    assert (report.spans_updated, len(seen)) == (1, 3)
    assert seen[0] == seen[1] == seen[2] != [{}]
