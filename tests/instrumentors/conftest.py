"""The scene of these tests: the real `openai` client, a real instrumentor, the LLM stub, a destination in memory.

Which instrumentors run is said by the environment variable OTEL_METADATA_TEST_INSTRUMENTORS, a comma list. One of them
needs packages that the others cannot have, so each environment names its own. One that is named and cannot be imported
fails every test: a missing one never hides.

What was measured of each instrumentor, and the expectations rest on, is one row of `INSTRUMENTORS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.metadata
import itertools
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import openai
import pytest
import wrapt
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from packaging.version import Version
from tests.llm_stub import LlmStub

import otel_metadata as om
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.exporters.memory import InMemoryPatchExporter

# OpenLLMetry remembers answers of the Responses API by their id, for the whole process; ids must not come twice.
_first_numbers = itertools.count(1, 1000)

MODEL = "gpt-5"
MESSAGES = [{"role": "user", "content": "What is the answer?"}]


@dataclass(frozen=True)
class Instrumentor:
    """What was measured of one instrumentor."""

    module: str
    """Where its `OpenAIInstrumentor` is."""

    spans_of_responses: int = 1
    """How many spans a call of the Responses API makes."""

    is_current_in_loop: bool = False
    """Whether its span is the current one in the loop over a stream; otherwise the caller's is."""

    ends_when_closed: bool = True
    """Whether the span of a stream that is closed before its end ends with it."""

    ends_when_dropped: bool = True
    """Whether the span of a stream that is neither finished nor closed ends when the stream is garbage-collected."""

    has_async_close: bool = True
    """Whether leaving `async with stream` closes the response as well as the span."""


def is_before(distribution: str, version: str) -> bool:
    """Whether an older version of a distribution is installed."""
    try:
        return Version(importlib.metadata.version(distribution)) < Version(version)
    except importlib.metadata.PackageNotFoundError:
        return False


# Up to 0.1.65 it ends the span of a stream only with the stream's last chunk or its error.
_ENDS_EARLY = not is_before("openinference-instrumentation-openai", "0.1.66")

INSTRUMENTORS: Mapping[str, Instrumentor] = {
    "openinference": Instrumentor(
        "openinference.instrumentation.openai", ends_when_closed=_ENDS_EARLY, ends_when_dropped=_ENDS_EARLY
    ),
    "openllmetry": Instrumentor("opentelemetry.instrumentation.openai"),
    "openai_v2": Instrumentor(
        "opentelemetry.instrumentation.openai_v2",
        spans_of_responses=0,
        is_current_in_loop=True,
        ends_when_dropped=False,
        has_async_close=False,
    ),
}


def named_instrumentors() -> list[str]:
    """Return the instrumentors that this environment has to have."""
    names = os.environ.get("OTEL_METADATA_TEST_INSTRUMENTORS", "openinference,openllmetry").split(",")
    unknown = set(names) - INSTRUMENTORS.keys()
    if unknown:
        raise pytest.UsageError(
            f"OTEL_METADATA_TEST_INSTRUMENTORS names {sorted(unknown)!r}; expected some of {[*INSTRUMENTORS]!r}, "
            "separated by commas."
        )
    return names


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known that say which instrumentors and which calls a test is about."""
    config.addinivalue_line("markers", "only(*names): the test is about these instrumentors")
    config.addinivalue_line("markers", "calls_that(fact): the test is about calls of which this attribute is true")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that uses `instrumentor` once for each; with `call`, once for each kind of call that it traces.

    A module that uses `call` lists the kinds of calls in `CALLS`.
    """
    if "instrumentor" not in metafunc.fixturenames:
        return
    names = named_instrumentors()
    marker = metafunc.definition.get_closest_marker("only")
    if marker is not None:
        skip = pytest.mark.skip(reason=f"about {' and '.join(marker.args)}, which another environment has")
        names = [name for name in names if name in marker.args] or [pytest.param(marker.args[0], marks=skip)]
    if "call" not in metafunc.fixturenames:
        metafunc.parametrize("instrumentor", names, indirect=True)
        return
    marker = metafunc.definition.get_closest_marker("calls_that")
    calls = [call for call in metafunc.module.CALLS if marker is None or getattr(call, marker.args[0])]
    pairs = [(name, call) for name in names for call in calls if call.is_traced_by(INSTRUMENTORS[name])]
    metafunc.parametrize(
        ("instrumentor", "call"), pairs, indirect=["instrumentor"], ids=[f"{name}-{call.name}" for name, call in pairs]
    )


@dataclass(frozen=True)
class Scene:
    """An application with one instrumentor, and what its destination got."""

    stub: LlmStub
    client: openai.OpenAI
    instrumentor: Instrumentor
    provider: TracerProvider
    processor: om.MetadataSpanProcessor
    span_exporter: InMemorySpanExporter
    patch_exporter: InMemoryPatchExporter

    @property
    def tracer(self) -> trace.Tracer:
        """The application's own tracer."""
        return self.provider.get_tracer("application")

    def caller(self) -> contextlib.AbstractContextManager[trace.Span]:
        """Open the span that the application calls the client in."""
        return self.tracer.start_as_current_span("caller")

    def chat(self, **knobs: object) -> Any:
        """Make a plain call."""
        return self.client.chat.completions.create(model=MODEL, messages=MESSAGES, extra_headers=headers(knobs))

    def stream(self, **knobs: object) -> Any:
        """Start a streamed call."""
        return self.client.chat.completions.create(
            model=MODEL, messages=MESSAGES, stream=True, extra_headers=headers(knobs)
        )

    async def async_chat(self, client: openai.AsyncOpenAI, **knobs: object) -> Any:
        """Make a plain call from asyncio."""
        return await client.chat.completions.create(model=MODEL, messages=MESSAGES, extra_headers=headers(knobs))

    async def async_stream(self, client: openai.AsyncOpenAI, **knobs: object) -> Any:
        """Start a streamed call from asyncio."""
        return await client.chat.completions.create(
            model=MODEL, messages=MESSAGES, stream=True, extra_headers=headers(knobs)
        )

    def run(self, main: Callable[[openai.AsyncOpenAI], Coroutine[object, object, object]]) -> None:
        """Run a coroutine that uses an asyncio client, and close that client."""

        async def with_client() -> None:
            async with openai.AsyncOpenAI(base_url=self.stub.url + "/v1", api_key="no-key", max_retries=0) as client:
                await main(client)

        asyncio.run(with_client())

    @contextlib.asynccontextmanager
    async def closing(self, stream: Any) -> AsyncIterator[Any]:
        """Use a stream of asyncio with its own `async with`, and close the response where that does not."""
        async with stream as opened:
            yield opened
        if not self.instrumentor.has_async_close:
            await stream.response.aclose()

    def export(self) -> None:
        """Deliver all that waits: ended spans, then patches."""
        assert self.processor.force_flush()

    @property
    def exported(self) -> tuple[ReadableSpan, ...]:
        """The exported spans, in the order of their end."""
        return self.span_exporter.get_finished_spans()

    @property
    def llm(self) -> ReadableSpan:
        """The only exported span that the application did not open itself."""
        (span,) = (span for span in self.exported if span.instrumentation_scope.name != "application")
        return span

    def span(self, name: str) -> ReadableSpan:
        """The only exported span of this name."""
        (span,) = (span for span in self.exported if span.name == name)
        return span

    @staticmethod
    def metadata_of(span: ReadableSpan) -> dict[str, object]:
        """Return the metadata that left with an exported span."""
        return {
            name.removeprefix("metadata."): value
            for name, value in (span.attributes or {}).items()
            if name.startswith("metadata.")
        }

    @property
    def patched(self) -> list[tuple[str, dict[str, object]]]:
        """The delivered patches: span id in hex, and the metadata."""
        return [(patch.target.span_id_hex, patch.metadata()) for patch in self.patch_exporter.patches]


def headers(knobs: Mapping[str, object]) -> dict[str, str]:
    """Return the stub's knobs as request headers."""
    return {"x-stub-" + name.replace("_", "-"): quote(str(value)) for name, value in knobs.items()}


def unwrap_client() -> None:
    """Give the client's classes their own methods back.

    OpenLLMetry's `uninstrument` takes nothing back (0.62.4): the next test's spans would go to this test's provider.
    """
    modules = [module for name, module in sys.modules.items() if name.startswith("openai.resources")]
    for owner in {value for module in modules for value in vars(module).values() if isinstance(value, type)}:
        for name, method in list(vars(owner).items()):
            while isinstance(method, wrapt.FunctionWrapper):
                method = method.__wrapped__
                setattr(owner, name, method)


@pytest.fixture
def instrumentor(request: pytest.FixtureRequest) -> Instrumentor:
    """The instrumentor of this run of the test."""
    return INSTRUMENTORS[request.param]


@pytest.fixture
def scene(instrumentor: Instrumentor, caplog: pytest.LogCaptureFixture) -> Iterator[Scene]:
    """The scene, taken down again; it fails if the test left anything current or anybody complained of a context."""
    span_exporter, patch_exporter = InMemorySpanExporter(), InMemoryPatchExporter()
    # Nothing is exported unless the test asks for it: what is in flight stays in flight.
    processor = om.MetadataSpanProcessor(
        om.Destination("memory", span_exporter, patch_exporter),
        settings=OutboxSettings(schedule_delay_millis=3_600_000),
    )
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracing = importlib.import_module(instrumentor.module).OpenAIInstrumentor()
    tracing.instrument(tracer_provider=provider)
    assert tracing.is_instrumented_by_opentelemetry, (
        "It refused this version of openai; the log of the set-up says why."
    )
    try:
        with (
            LlmStub(first_number=next(_first_numbers)) as stub,
            openai.OpenAI(base_url=stub.url + "/v1", api_key="no-key", max_retries=0) as client,
        ):
            yield Scene(stub, client, instrumentor, provider, processor, span_exporter, patch_exporter)
    finally:
        tracing.uninstrument()
        unwrap_client()
        provider.shutdown()
    assert trace.get_current_span() is trace.INVALID_SPAN
    complaints = [record.getMessage() for record in caplog.get_records("call") if "detach" in record.getMessage()]
    assert complaints == []
