"""Support for tests: a clock that a test moves, and a pipeline without threads, files or network.

```python
def test_the_verdict_reaches_the_span(metadata_pipeline):  # the fixture of otel_metadata.pytest_plugin
    answer("hi")
    metadata_pipeline.deliver()
    assert metadata_pipeline.record("answer").metadata == {"thumbs": "up"}
```
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, final

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_metadata._version import __version__
from otel_metadata.arguments import checked
from otel_metadata.delivery.destination import Destination
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.exporters.store import StorePatchExporter, StoreSpanExporter
from otel_metadata.live import live_settings
from otel_metadata.model.record import SpanQuery, SpanRecord
from otel_metadata.span_processor import MetadataSpanProcessor
from otel_metadata.store.sqlite.store import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from otel_metadata.delivery.stats import PipelineStats

__all__ = ["InMemoryPatchExporter", "InMemoryPipeline", "ManualClock", "RecordingSpanExporter"]


@final
class ManualClock:
    """A clock that stands still until a test moves it: the fake of the clock seam."""

    @checked
    def __init__(self, wall_ns: int = 1_700_000_000_000_000_000) -> None:
        """Start with the wall time *wall_ns*, and the monotonic time zero."""
        self._condition = threading.Condition()
        self._wall_ns = wall_ns
        self._monotonic_ns = 0

    def wall_ns(self) -> int:
        """Return the wall time that the test has set."""
        return self._wall_ns

    def monotonic_ns(self) -> int:
        """Return the monotonic time that the test has set."""
        return self._monotonic_ns

    def advance(self, millis: float) -> None:
        """Move both times forward, and wake every thread that waits."""
        with self._condition:
            self._wall_ns += int(millis * 1_000_000)
            self._monotonic_ns += int(millis * 1_000_000)
            self._condition.notify_all()

    def wait(self, event: threading.Event, timeout_ns: int | None) -> bool:
        """Wait until *event* is set, or the test has moved the time by *timeout_ns*."""
        with self._condition:
            until_ns = None if timeout_ns is None else self._monotonic_ns + timeout_ns
            while not event.is_set() and (until_ns is None or self._monotonic_ns < until_ns):
                # An event does not notify the condition, so it is looked at every hundredth of a second.
                self._condition.wait(0.01)
        return event.is_set()


@final
class RecordingSpanExporter(SpanExporter):
    """Keeps the spans that it acknowledges; the test decides the answers.

    Attributes:
        spans: Every span that was acknowledged, in order.
        answer: Called before each batch; its result is the answer, and it may raise or wait.
    """

    @checked
    def __init__(self, answer: Callable[[], SpanExportResult] | None = None) -> None:
        """Answer each batch with the result of *answer*, or with success."""
        self.spans: list[ReadableSpan] = []
        self.answer = answer
        self.is_shut_down = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Keep the spans, if the answer is success."""
        result = self.answer() if self.answer is not None else SpanExportResult.SUCCESS
        if result is SpanExportResult.SUCCESS:
            self.spans.extend(spans)
        return result

    def shutdown(self) -> None:
        """Note the shutdown in `is_shut_down`."""
        self.is_shut_down = True


@final
class InMemoryPipeline:
    """A tracer provider with our processor and a store in memory; nothing runs by itself.

    Attributes:
        provider: The tracer provider; not the global one.
        processor: Our processor on it.
        clock: The clock of its outbox.
    """

    @checked
    def __init__(self, *destinations: Destination, outbox: OutboxSettings | None = None) -> None:
        """Set the pipeline up; `observe` and `start_span` use it until `close`.

        Args:
            destinations: More destinations besides the store.
            outbox: Bounds and times of the outboxes.
        """
        self.clock = ManualClock()
        self._store = SqliteStore(":memory:")
        store = Destination("store", StoreSpanExporter(self._store), StorePatchExporter(self._store))
        self.processor = MetadataSpanProcessor(
            store, *destinations, settings=outbox, clock=self.clock, start_workers=False, chance=lambda: 1.0
        )
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(self.processor)
        self._before = live_settings.in_force
        live_settings.use(
            live_settings.LiveSettings(
                tracer=self.provider.get_tracer(live_settings.SCOPE_NAME, __version__),
                mask=self._before.mask,
                masks_credentials=self._before.masks_credentials,
            )
        )

    def deliver(self) -> bool:
        """Send all waiting spans and updates, on this thread; True when all of them arrived."""
        return self.processor.force_flush()

    def records(self) -> list[SpanRecord]:
        """Return every stored span with everything that was set on it, newest start first."""
        return self._store.query(SpanQuery(limit=1_000_000))

    def record(self, name: str) -> SpanRecord:
        """Return the stored span of this name.

        Raises:
            LookupError: No span has the name, or several have it.
        """
        found = [record for record in self.records() if record.name == name]
        if len(found) != 1:
            raise LookupError(
                f"{len(found)} spans are named {name!r}; expected one among {[one.name for one in self.records()]}."
            )
        return found[0]

    def stats(self) -> PipelineStats:
        """Return what became of every update so far."""
        return self.processor.stats()

    def close(self) -> None:
        """Shut the pipeline down and restore the settings."""
        live_settings.use(self._before)
        self.processor.shutdown()
        self.provider.shutdown()
