"""What a user's type checker and editor see of the public interface: checked by mypy and pyright, never executed.

`assert_type` is exact. An `ignore` below is a call that must be an error: where it is not, mypy reports the ignore as
unused.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterator, Mapping
from datetime import datetime
from typing import Any, Literal

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter
from opentelemetry.trace import Span, SpanKind, Tracer
from typing_extensions import assert_type

import otel_metadata as om
from otel_metadata.client import UpdateReport
from otel_metadata.client.client import DeleteReport
from otel_metadata.client.page import Page
from otel_metadata.client.traces import TracePage
from otel_metadata.delivery.stats import PipelineStats
from otel_metadata.dialects.otel import OtelDialect
from otel_metadata.exporters.console import ConsolePatchExporter
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.exporters.otlp import OtlpPatchExporter
from otel_metadata.exporters.store import StorePatchExporter
from otel_metadata.live.capture_spans import CapturedSpan, CaptureSpans
from otel_metadata.live.using import UsingMetadata
from otel_metadata.model.evaluation import Annotation, Evaluation
from otel_metadata.model.masking import Masking
from otel_metadata.model.merge import Json
from otel_metadata.model.receipt import Routed
from otel_metadata.model.record import OutlineSpan, SpanCount, SpanRecord, TraceRecord
from otel_metadata.model.update_outcome import UpdateOutcome
from otel_metadata.pipeline import Pipeline
from otel_metadata.seams import Clock, Dialect, PatchExporter, SpanStore, SystemClock
from otel_metadata.store.sqlite.store import SqliteStore
from otel_metadata.testing import ManualClock

# observe: the decorated callable has exactly the type it had.


@om.observe
def function(number: int, /, text: str = "", *rest: float, flag: bool, **more: bytes) -> list[str]:
    raise NotImplementedError


@om.observe(name="named", as_type="llm", capture_input=False, metadata={"k": None}, tags=["a"], kind=SpanKind.CLIENT)
def with_options(number: int) -> str:
    raise NotImplementedError


@om.observe()
async def coroutine(number: int) -> str:
    raise NotImplementedError


@om.observe
def generator(number: int) -> Generator[int, str, bool]:
    yield number
    return True


@om.observe
def iterator() -> Iterator[int]:
    yield 1


@om.observe
async def async_generator(number: int) -> AsyncGenerator[int, str]:
    yield 1


@om.observe
async def async_iterator() -> AsyncIterator[int]:
    yield 1


def functions_keep_their_signature() -> None:
    assert_type(function(1, "a", 2.0, flag=True, more=b""), list[str])
    function(number=1, flag=True)  # type: ignore[call-arg, arg-type] # pyright: ignore[reportCallIssue] # positional only
    function("1", flag=True)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    function(1)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue] # flag is missing
    assert_type(with_options(1), str)
    with_options("1")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


async def asynchronous_functions_keep_theirs() -> None:
    pending: Coroutine[Any, Any, str] = coroutine(1)
    assert_type(await pending, str)
    assert_type(await coroutine(1), str)
    assert_type(async_generator(1), AsyncGenerator[int, str])
    assert_type(async_iterator(), AsyncIterator[int])
    assert_type([item async for item in async_generator(1)], list[int])
    await coroutine()  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


def generators_keep_theirs() -> Generator[int, str, None]:
    steps = generator(1)
    assert_type(steps, Generator[int, str, bool])
    assert_type(steps.send("a"), int)
    assert_type((yield from generator(1)), bool)
    assert_type(list(iterator()), list[int])


class Service:
    """Methods of every kind, above and below their decorator."""

    @om.observe
    def method(self, number: int) -> str:
        raise NotImplementedError

    @om.observe(name="async")
    async def async_method(self, number: int) -> str:
        raise NotImplementedError

    @om.observe
    @classmethod
    def above_class_method(cls, number: int) -> str:
        raise NotImplementedError

    @classmethod
    @om.observe
    def below_class_method(cls, number: int) -> str:
        raise NotImplementedError

    @om.observe
    @staticmethod
    def above_static_method(number: int) -> str:
        raise NotImplementedError

    @staticmethod
    @om.observe
    def below_static_method(number: int) -> str:
        raise NotImplementedError

    @om.observe(name="n")
    @classmethod
    async def above_class_method_with_options(cls, number: int) -> str:
        raise NotImplementedError

    @property
    @om.observe
    def value(self) -> int:
        raise NotImplementedError


async def methods_keep_their_signature(service: Service) -> None:
    assert_type(service.method(1), str)
    assert_type(Service.method(service, 1), str)
    assert_type(await service.async_method(1), str)
    assert_type(Service.above_class_method(1), str)
    assert_type(service.above_class_method(1), str)
    assert_type(Service.below_class_method(1), str)
    assert_type(Service.above_static_method(1), str)
    assert_type(service.below_static_method(1), str)
    assert_type(Service.below_static_method(1), str)
    assert_type(await Service.above_class_method_with_options(1), str)
    assert_type(service.value, int)
    service.method("1")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    Service.above_class_method()  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    Service.above_static_method("1")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


@om.observe
class Observed:
    """A class whose public methods are observed is that class."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, text: str) -> int:
        raise NotImplementedError


def classes_and_objects_keep_their_type() -> None:
    assert_type(Observed(1), Observed)
    assert_type(Observed(1).number, int)
    assert_type(om.observe(Observed(1))("a"), int)
    assert_type(om.observe(len)([]), int)
    Observed("1")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def what_cannot_be_observed_is_an_error() -> None:
    om.observe(5)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType]
    om.observe(nmae="x")  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]
    om.observe(capture_input="no")  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType]


# Spans


async def a_span_is_a_context_manager(tracer: Tracer) -> None:
    with om.start_span("s", as_type="tool", input=None, attributes={"a": 1}, tracer=tracer) as span:
        assert_type(span, om.SpanHandle)
        assert_type(span.ref, om.SpanRef)
        assert_type(span.span, Span | None)
        assert_type(span.update(output={"a": [1]}), om.Receipt)
        assert_type(span.score("C", score=1), om.Receipt)
        assert_type(span.annotate("q", text="t"), om.Receipt)
    async with om.start_span("s") as other:
        assert_type(other, om.SpanHandle)


# Updates: every target, every argument.


def updates_return_receipts(handle: om.SpanHandle, span: Span, captured: CapturedSpan, ref: om.SpanRef) -> None:
    metadata: Mapping[str, object] = {"step": 1, "error": None}
    receipt = om.update_current_span(
        metadata=metadata,
        attributes={"a": None},
        name="n",
        input=object(),
        output=None,
        tags=("a", "b"),
        status="ok",
        status_message="m",
    )
    assert_type(receipt, om.Receipt)
    assert_type(receipt.route, Literal["live", "in_flight", "late", "dropped"])
    assert_type(receipt.routes, Mapping[str, Routed])
    assert_type(receipt.reason, str | None)
    assert_type(receipt.notes, tuple[str, ...])
    assert_type(receipt.patch_id, str)
    assert_type(bool(receipt), bool)
    assert_type(om.update_current_trace(metadata={}, user_id="u", session_id="s", tags=["t"], name="n"), om.Receipt)
    for target in (ref, ref.to_traceparent(), span, span.get_span_context(), handle, captured):
        assert_type(om.update_span(target, status=404), om.Receipt)
        assert_type(om.update_trace(target, input=om.UNSET, output=None), om.Receipt)
        assert_type(om.score_span(target, "C", score=0.5, label="l", explanation="e", source="llm"), om.Receipt)
        assert_type(om.annotate_span(target, "q", label="l", score=1, text="t", annotator="a"), om.Receipt)
    assert_type(om.score_current_span("C", score=1, metadata={"model": None}), om.Receipt)
    assert_type(om.annotate_current_span("q", label="good"), om.Receipt)
    assert_type(om.score_span(ref, "C", level="trace"), om.Receipt)


def wrong_updates_are_errors(ref: om.SpanRef) -> None:
    om.update_current_span({"a": 1})  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # keywords only
    om.update_current_span(metadata=[1])  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    om.update_current_span(status="fine")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    om.update_current_span(user_id="u")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # of the trace
    om.update_current_trace(status="ok")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # of a span
    om.update_span()  # type: ignore[call-arg] # pyright: ignore[reportCallIssue] # a target is required
    om.update_span(ref, {"a": 1})  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # keywords only
    om.update_trace(ref, nmae="n")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # misspelt
    om.score_span(ref)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue] # a name is required
    om.score_current_span("C", 0.5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # keywords only
    om.annotate_span(ref, "q", comment="t")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # it is text
    om.annotate_current_span()  # type: ignore[call-arg] # pyright: ignore[reportCallIssue] # a name is required
    om.current_span_ref(1)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # it takes nothing
    om.start_span()  # type: ignore[call-arg] # pyright: ignore[reportCallIssue] # a name is required
    om.start_span("s", user_id="u")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # of the trace
    om.using_metadata(user="u")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # misspelt
    om.capture_spans(match=3)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # a function
    with om.start_span("s") as handle:
        handle.update(user_id="u")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # of the trace
        handle.score()  # type: ignore[call-arg] # pyright: ignore[reportCallIssue] # a name is required
        handle.annotate("q", 1)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # keywords only
    om.score_span(ref, "C", source="me")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    om.score_span(ref, "C", level="session")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


# Context


@om.using_metadata({"tenant": "acme"}, user_id="u")
def decorated(number: int) -> str:
    raise NotImplementedError


async def contexts_and_captures() -> None:
    assert_type(decorated(1), str)
    with om.using_metadata({"tenant": None}, session_id="s", tags=["a"]) as using:
        assert_type(using, UsingMetadata)
    async with om.using_metadata():
        pass
    with om.capture_spans(lambda span: span.is_recording()) as captured:
        assert_type(captured, CaptureSpans)
    async with om.capture_spans() as spans:
        assert_type(spans.all, tuple[CapturedSpan, ...])
        assert_type(spans.last, CapturedSpan)
        assert_type(spans.llm.ref, om.SpanRef)
    assert_type(om.current_span_ref(), om.SpanRef)


def refs() -> None:
    ref = om.SpanRef.from_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    assert_type(ref, om.SpanRef)
    assert_type(ref.to_traceparent(), str)
    assert_type(ref.with_backend_id("galileo", "uuid"), om.SpanRef)
    assert_type((ref.trace_id, ref.span_id, ref.sampled), tuple[int, int, bool])
    ref.span_id = 1  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue] # frozen


# Setting up


def pipelines(provider: TracerProvider) -> None:
    destination = om.Destination(
        "console", ConsoleSpanExporter(), ConsolePatchExporter(), OtelDialect(max_attributes=None), hold_millis=5
    )
    pipeline = om.configure("sqlite:///spans.db", destination, tracer_provider=provider, mask=Masking(keys=["k"]))
    assert_type(pipeline, Pipeline)
    assert_type(pipeline.flush(), bool)
    assert_type(om.configure(mask=lambda path, value: None if path == "input" else value), Pipeline)
    assert_type(om.flush(timeout_millis=5), bool)
    om.shutdown()
    assert_type(om.configure(om.wrap_exporter(ConsoleSpanExporter()), adopt=True), Pipeline)
    assert_type(om.stats(), PipelineStats)
    assert_type(om.outcome(om.update_current_span(metadata={"a": 1})), UpdateOutcome)
    provider.add_span_processor(om.MetadataSpanProcessor(destination))
    assert_type(om.__version__, str)


def the_seams_are_kept_by_what_we_ship(exporter: OtlpPatchExporter, stored: StorePatchExporter) -> None:
    exporters: list[PatchExporter] = [ConsolePatchExporter(), InMemoryPatchExporter(), exporter, stored]
    dialect: Dialect = OtelDialect()
    store: SpanStore = SqliteStore("spans.db")
    clocks: list[Clock] = [SystemClock(), ManualClock()]
    mask: Callable[[str, Json], Json] = Masking()
    del exporters, dialect, store, clocks, mask


# Reading


def records() -> None:
    with om.Client("sqlite:///spans.db") as client:
        assert_type(client, om.Client)
        span = client.spans.get("b7ad6b7169203331")
        assert_type(span, SpanRecord)
        assert_type(client.spans.list(limit=5), Page)
        assert_type(client.spans.list()[0], SpanRecord)
        assert_type(client.spans.list(timeout_millis=200).searched_to, datetime | None)
        assert_type(next(client.spans.iter(filter="name = 'x'")), SpanRecord)
        assert_type(client.spans.count(filter="name = 'x'", limit=5), SpanCount)
        assert_type(client.traces.list(limit=5), TracePage)
        assert_type(client.traces.list()[0], TraceRecord)
        assert_type(client.traces.outline("0" * 31 + "1")[0], OutlineSpan)
        assert_type(client.spans.delete(["00" * 8]), DeleteReport)
        assert_type(client.spans.delete(["00" * 8], project="p", space="s"), DeleteReport)
        assert_type(client.spans.list(filter="name = 'x'", space="s"), Page)
        assert_type(client.spans.export_to_csv("spans.csv", project="p", start_time="2026-01-31", progress=False), int)
        assert_type(client.spans.export_to_parquet("spans.parquet", project_name="p", space_id="s"), int)
        assert_type(client.spans.update_metadata([], validate=False, project_name="p", space_id="s"), UpdateReport)
        assert_type(client.spans.log_metadata([], "p", verbose=False, model_id="m"), UpdateReport)
        assert_type(client.spans.annotate([], start_time="2026-01-31"), UpdateReport)
        client.spans.export_to_csv("spans.csv", project=1)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        client.spans.export_to_csv("x", space_id="s")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
        client.spans.delete([], project_name="p")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
        assert_type(span.metadata, Mapping[str, Json])
        assert_type(span.evaluations, Mapping[str, Evaluation])
        assert_type(span.evaluations["C"].score, float | None)
        assert_type(span.annotations, tuple[Annotation, ...])
        assert_type(span.tags, tuple[str, ...])
        assert_type(span.user_id, str | None)
        assert_type(span.status_code, str | int)
