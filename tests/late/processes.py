"""An application that dies and is started again, in one process: for models of delivery.

A death is what a SIGKILL leaves: what was written is there, what was queued in memory is not, and the kernel has given
the leases back. Real kills are in `test_spool.py` and in `stress/`; here a death costs a millisecond.
"""

from __future__ import annotations

from opentelemetry.sdk.trace import TracerProvider

import otel_metadata as om
from otel_metadata.dialects.otel import OtelDialect
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.late.settings import OutboxSettings
from otel_metadata.late.spool import Spool, SpoolSettings
from otel_metadata.live import routing
from otel_metadata.live.registry import REGISTRY
from otel_metadata.model.merge import merge
from otel_metadata.testing import ManualClock, RecordingSpanExporter

__all__ = ["Application", "Backend"]


class Backend:
    """What a backend holds: fields by span, merged by version, or overwritten in the order of arrival."""

    def __init__(self, *, is_versioned=True):
        self.is_versioned = is_versioned
        self.fields = {}
        self.versions = set()

    def apply(self, key, fields):
        """Take the metadata of one span or patch."""
        fields = {name: field for name, field in fields.items() if name[1] == "metadata"}
        self.versions.update(version for _, version in fields.values())
        held = self.fields.get(key, {})
        self.fields[key] = merge(held, fields) if self.is_versioned else {**held, **fields}

    def values(self):
        """Return the metadata by span, without versions."""
        return {
            key: {name[2]: value for name, (value, _) in fields.items()}
            for key, fields in self.fields.items()
            if fields
        }


class Application:
    """A process with one destination and a spool; it is stepped by hand, killed, and started again.

    Attributes:
        answer_spans: Called with each batch of spans; returns an export result.
        answer_patch: Called with each patch; returns an outcome.
        finished: The stats of every life that has ended.
    """

    def __init__(self, path, *, answer_spans, answer_patch, convergence="versioned", hold_millis=0, **settings):
        self.clock = ManualClock()
        self.path = str(path)
        self._answers = answer_spans, answer_patch
        self._convergence = convergence
        self._hold_millis = hold_millis
        self._settings = settings
        self.finished = []
        self.start()

    def start(self):
        """Begin a life."""
        answer_spans, answer_patch = self._answers
        spans, patches = RecordingSpanExporter(), InMemoryPatchExporter(max_batch=2, convergence=self._convergence)
        export = spans.export
        spans.export = lambda batch: answer_spans(batch) if answer_spans is not None else export(batch)
        patches.answer = answer_patch
        self.spool = Spool(SpoolSettings(self.path), clock=self.clock)
        self.processor = om.MetadataSpanProcessor(
            om.Destination(
                "memory",
                spans,
                patches,
                OtelDialect(max_attributes=None, span_limit=None),
                hold_millis=self._hold_millis,
            ),
            settings=OutboxSettings(**self._settings),
            clock=self.clock,
            start_workers=False,
            chance=lambda: 0.5,
            spool=self.spool,
        )
        (self.worker,) = self.processor.workers
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(self.processor)
        self.tracer = provider.get_tracer("application")

    def die(self):
        """End this life as SIGKILL does."""
        stats = self.stats
        assert stats.is_balanced, stats
        self.finished.append(stats)
        routing.remove_router(self.processor)
        REGISTRY.entries.clear()
        forget_what_is_queued(self.spool)
        self.spool.close()

    def stop(self):
        """End this life in order."""
        self.processor.shutdown()
        assert self.stats.is_balanced, self.stats
        self.finished.append(self.stats)

    @property
    def stats(self):
        """The destination's counts in this life."""
        return self.processor.stats().destinations["memory"]

    def drain(self, rounds=40):
        """Step until nothing waits, moving the time."""
        for _ in range(rounds):
            while self.worker.step():
                pass
            if not self.stats.waiting and not self.processor.outboxes[0].lane.has_more:
                return
            self.clock.advance(60_000)


def forget_what_is_queued(spool):
    """Lose what a process has in memory when it is killed."""
    spool._queue.clear()
    spool._doomed.clear()
    spool._letters.clear()
