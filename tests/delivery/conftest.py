"""The scene of these tests: one destination in memory, a clock that stands still, a worker that is stepped by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

import otel_metadata as om
from otel_metadata.delivery.outbox import Outbox
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.delivery.stats import DestinationStats
from otel_metadata.dialects.otel import OtelDialect
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.live import values as values_module
from otel_metadata.model.dead_letter import DeadLetter
from otel_metadata.model.encoding import Encoded
from otel_metadata.model.merge import Fields, Json, merge
from otel_metadata.model.weight import SHARED_NAMES, weigh
from otel_metadata.testing import ManualClock, RecordingSpanExporter

SCHEDULE = 5_000
"""Milliseconds that a span or patch waits for others to be sent with."""


class Scene:
    """An application with one destination, `memory`.

    Attributes:
        spans: The span exporter; `spans.answer` says what it answers.
        patches: The patch exporter; `patches.answer` says what it answers.
    """

    def __init__(
        self,
        *more: om.Destination,
        settings: OutboxSettings | None = None,
        dialect: object = None,
        hold_millis: int = 0,
        with_spans: bool = True,
        remote_grace_millis: int | None = None,
        patches: InMemoryPatchExporter | None = None,
        chance: float = 1.0,
        on_dead_letter: Callable[[DeadLetter], None] | None = None,
        **changed: int,
    ) -> None:
        """Set it up.

        Args:
            more: More destinations.
            settings: Bounds and times; the defaults with *changed* ones otherwise.
            dialect: Of the destination; unbounded canonical attributes by default.
            hold_millis: Of the destination.
            with_spans: Whether the destination exports spans.
            remote_grace_millis: Of the destination.
            patches: The patch exporter.
            chance: What the jitter draws.
            on_dead_letter: Of the processor.
            changed: Attributes of the settings.
        """
        self.clock = ManualClock()
        self.spans = RecordingSpanExporter()
        self.patches = patches or InMemoryPatchExporter()
        destination = om.Destination(
            "memory",
            self.spans if with_spans else None,
            self.patches,
            dialect or OtelDialect(max_attributes=None, span_limit=None),
            hold_millis=hold_millis,
            spans=with_spans,
            remote_grace_millis=remote_grace_millis,
        )
        self.processor = om.MetadataSpanProcessor(
            destination,
            *more,
            settings=settings or replace(OutboxSettings(), **changed),
            clock=self.clock,
            start_workers=False,
            chance=lambda: chance,
            on_dead_letter=on_dead_letter,
        )
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(self.processor)
        self.tracer = self.provider.get_tracer("application")
        self.worker = self.processor.workers[0]

    @property
    def outbox(self) -> Outbox:
        """The destination's outbox."""
        return self.processor.outboxes[0]

    @property
    def stats(self) -> DestinationStats:
        """The destination's counts."""
        return self.processor.stats().destinations["memory"]

    @property
    def lost(self) -> dict[str, int]:
        """What was lost, by reason."""
        return dict(self.stats.lost)

    def ended(self, **metadata: object) -> om.SpanRef:
        """Open a span, set metadata on it live, end it, and return its name."""
        with self.tracer.start_as_current_span("span") as span:
            if metadata:
                assert om.update_current_span(metadata=metadata).route == "live"
        # Its time in the queue counts from when it is admitted, which a worker that sleeps does within a second.
        assert self.stats.is_balanced
        return om.SpanRef.from_span_context(span.get_span_context())

    def exported(self, **metadata: object) -> om.SpanRef:
        """Open, end and export a span."""
        ref = self.ended(**metadata)
        self.clock.advance(SCHEDULE)
        assert self.worker.step()
        assert self.span(ref) is not None
        return ref

    def unseen(self, number: int = 1) -> om.SpanRef:
        """Return the name of a span of another process."""
        return om.SpanRef(0xABC, number)

    def submit(self, ref: om.SpanRef, fields: Fields) -> None:
        """Hand fields to the processor as an update of a span that is not live."""
        self.processor.submit(ref, dict(fields), weigh(fields))

    def step_all(self) -> int:
        """Step until nothing is due; return how often something was."""
        steps = 0
        while self.worker.step():
            steps += 1
        return steps

    def wait_and_step(self, millis: float = SCHEDULE) -> int:
        """Move the time, then step until nothing is due."""
        self.clock.advance(millis)
        return self.step_all()

    def span(self, ref: om.SpanRef) -> ReadableSpan | None:
        """Return the exported span of this name."""
        return next((span for span in self.spans.spans if span.context.span_id == ref.span_id), None)

    def on_span(self, ref: om.SpanRef) -> dict[str, Json]:
        """Return the metadata that left with the span."""
        return _metadata(getattr(self.span(ref), "fields", {}))

    def sent(self) -> list[dict[str, Json]]:
        """Return the metadata of each delivered patch, in order."""
        return [patch.metadata() for patch in self.patches.patches]

    def final(self, ref: om.SpanRef) -> dict[str, Json]:
        """Return what the destination holds in the end: the span's metadata and its patches, merged."""
        fields: Fields = getattr(self.span(ref), "fields", {})
        for patch in self.patches.patches:
            if patch.target == ref:
                fields = merge(fields, patch.fields)
        return _metadata(fields)


class SaysNothing:
    """A dialect that can say no field on a span: all of them follow as a patch."""

    def encode(self, span, fields, *, is_local_root):
        return Encoded(span.attributes, remainder=fields)


def _metadata(fields: Fields) -> dict[str, Json]:
    return {name[2]: value for name, (value, _) in fields.items() if name[1] == "metadata"}


@pytest.fixture
def make_scene() -> Callable[..., Scene]:
    """Make a scene with other bounds, times or parts. Its balance is asserted by `isolation`."""
    return Scene


@pytest.fixture
def scene() -> Scene:
    """The scene with every default."""
    return Scene()


@pytest.fixture
def unknown_keys():
    """No key is known yet; other tests may have used up the room for them."""
    mappings = (values_module.KNOWN_METADATA_KEYS, values_module._known_keys, SHARED_NAMES)
    kept = [dict(mapping) for mapping in mappings]
    for mapping in mappings:
        mapping.clear()
    yield
    for mapping, before in zip(mappings, kept, strict=True):
        mapping.clear()
        mapping.update(before)
