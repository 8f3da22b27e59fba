"""One pipeline without threads for every test, and the raw spans as any other exporter of the application sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from otel_metadata import Destination
from otel_metadata.live import live_settings
from otel_metadata.reporting import REPORTER
from otel_metadata.testing import InMemoryPatchExporter, InMemoryPipeline, RecordingSpanExporter


@dataclass(frozen=True)
class Scene:
    """A pipeline, and what two other parties see of its spans.

    Attributes:
        pipeline: The store in memory, without threads.
        beside: An exporter of the application beside ours: live attributes as they are.
        sent: The spans that one more destination of ours was sent.
    """

    pipeline: InMemoryPipeline
    beside: RecordingSpanExporter
    sent: RecordingSpanExporter

    @property
    def tracer(self) -> trace.Tracer:
        """A plain OpenTelemetry tracer of the same provider."""
        return self.pipeline.provider.get_tracer("application")

    def ended(self, name: str) -> ReadableSpan:
        """Return the one ended span of this name, with its live attributes."""
        found = [span for span in self.beside.spans if span.name == name]
        assert len(found) == 1, [span.name for span in self.beside.spans]
        return found[0]

    def names(self) -> list[str]:
        """Return the names of all ended spans in the order of their ends."""
        return [span.name for span in self.beside.spans]

    def record(self, name: str):
        """Deliver and return the stored span of this name."""
        assert self.pipeline.deliver()
        return self.pipeline.record(name)

    def deliver(self) -> None:
        """Deliver what waits."""
        assert self.pipeline.deliver()

    def parent_name(self, name: str) -> str | None:
        """Return the name of the parent of an ended span."""
        parent = self.ended(name).parent
        if parent is None:
            return None
        return next(span.name for span in self.beside.spans if span.context.span_id == parent.span_id)


@pytest.fixture(autouse=True)
def _nothing_of_ours_fails(isolation: None) -> Iterator[None]:
    """Failures of our own code are raised again; where a test turns that off they are counted: there is none."""
    yield
    assert REPORTER.internal_errors == 0


@pytest.fixture
def _as_in_production(_nothing_of_ours_fails: None) -> None:
    """For hostile input: a failure of ours is swallowed, as in production, and counted."""
    REPORTER.reraise = False


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A pipeline that is balanced at the end, sends no span twice, and leaves no span current."""
    sent = RecordingSpanExporter()
    pipeline = InMemoryPipeline(Destination("second", sent, InMemoryPatchExporter()))
    beside = RecordingSpanExporter()
    pipeline.provider.add_span_processor(SimpleSpanProcessor(beside))
    yield Scene(pipeline, beside, sent)
    assert trace.get_current_span() is trace.INVALID_SPAN
    pipeline.deliver()
    keys = [(span.context.trace_id, span.context.span_id) for span in sent.spans]
    assert len(keys) == len(set(keys))
    assert pipeline.stats().is_balanced
    pipeline.close()


@pytest.fixture
def use_settings(scene: Scene) -> Callable[..., None]:
    """Change single live settings, as `configure` would; undone with the pipeline."""

    def use(**changes: object) -> None:
        live_settings.use(replace(live_settings.in_force, **changes))

    return use


@pytest.fixture
def no_detach_errors(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """OpenTelemetry logs nothing ("Failed to detach context" least of all), and nobody logs an error."""
    yield
    # `caplog.records` is of the phase that runs now, which is the teardown.
    logged = [record for phase in ("setup", "call") for record in caplog.get_records(phase)]
    assert [
        record.getMessage()
        for record in logged
        if record.levelname == "ERROR" or record.name.partition(".")[0] in {"opentelemetry", "asyncio"}
    ] == []
