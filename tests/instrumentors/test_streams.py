"""A stream outlives its call: its span may end late, in another place, or never, and updates still find it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import openai
import pytest
from opentelemetry import trace
from opentelemetry.trace import format_span_id

import otel_metadata as om

if TYPE_CHECKING:
    from tests.instrumentors.conftest import Scene


def text_of(chunk: Any) -> str:
    """Return the text of one chunk."""
    return chunk.choices[0].delta.content or ""


def test_a_stream_that_is_read_after_its_blocks_keeps_what_was_bound(scene: Scene) -> None:
    """What counts is where the stream was started: binding and capture may be closed before it is read."""
    with scene.caller():
        with om.using_metadata({"tenant": "acme"}), om.capture_spans() as captured:
            stream = scene.stream()
        while_open = om.update_span(captured.llm, metadata={"step": 1})
        list(stream)
        after = om.update_span(captured.llm, metadata={"step": 2, "is_read": True})
    scene.export()

    assert (while_open.route, after.route) == ("live", "in_flight")
    assert scene.metadata_of(scene.llm) == {"tenant": "acme", "step": 2, "is_read": True}


@pytest.mark.only("openinference", "openllmetry")
def test_a_span_that_ends_after_its_caller_still_takes_updates(scene: Scene) -> None:
    """A stream that is kept after its caller's span ended and left is live until it is read to the end."""
    with scene.caller(), om.capture_spans() as captured:
        stream = scene.stream()
    scene.export()
    while_open = om.update_span(captured.llm, metadata={"is_late": True})
    list(stream)
    scene.export()

    assert while_open.route == "live"
    assert [span.name for span in scene.exported] == ["caller", scene.llm.name]
    assert scene.metadata_of(scene.llm) == {"is_late": True}
    assert scene.llm.parent == scene.span("caller").context


@pytest.mark.only("openllmetry")
def test_a_span_that_outlives_the_close_of_its_stream_is_live_until_it_ends(scene: Scene) -> None:
    """OpenLLMetry does not notice `close()`: its span takes updates until the stream is collected."""
    with scene.caller(), om.capture_spans() as captured:
        stream = scene.stream(hold_after_chunks=2)
        next(stream)
        stream.close()
        after_close = om.update_span(captured.llm, metadata={"is_closed": True})
        del stream
        gc.collect()
        after_collection = om.update_span(captured.llm, metadata={"is_collected": True})
    scene.export()

    assert (after_close.route, after_collection.route) == ("live", "in_flight")
    assert scene.metadata_of(scene.llm) == {"is_closed": True, "is_collected": True}


class TestSpanThatNeverEnds:
    """openai-v2: the span of a dropped stream stays current until the caller's block is left, and never ends."""

    @pytest.mark.only("openai_v2")
    def test_updates_of_it_reach_nobody_else(self, scene: Scene) -> None:
        """An update through the captured ref is set on that span and shares its fate; the caller's stays as it is."""
        with scene.caller(), om.capture_spans() as captured:
            drop_a_stream(scene)
            receipt = om.update_span(captured.llm, metadata={"verdict": "good"})
        scene.export()

        assert receipt.route == "live"
        assert [(span.name, scene.metadata_of(span)) for span in scene.exported] == [("caller", {})]
        assert scene.patched == []

    @pytest.mark.only("openai_v2")
    def test_the_caller_is_still_updated_by_its_name(self, scene: Scene) -> None:
        """While the dropped span is current, the caller's span takes updates through itself and its ref."""
        with scene.caller() as caller:
            ref = om.current_span_ref()
            drop_a_stream(scene)
            om.update_current_span(metadata={"goes": "astray"})
            om.update_span(caller, metadata={"by": "span"})
            om.update_span(ref, metadata={"ref": True})
        scene.export()

        assert scene.metadata_of(scene.span("caller")) == {"by": "span", "ref": True}

    @pytest.mark.only("openai_v2")
    def test_the_next_call_is_traced_bound_and_captured(self, scene: Scene) -> None:
        """A call after a dropped stream is a child of the dropped span; binding and capture hold for it as ever."""
        with scene.caller(), om.using_metadata({"tenant": "acme"}), om.capture_spans() as captured:
            drop_a_stream(scene)
            scene.chat()
            receipt = om.update_span(captured.llm, metadata={"verdict": "good"})
        scene.export()

        dropped, last = captured.all
        assert receipt.route == "in_flight"
        assert format_span_id(scene.llm.context.span_id) == last.ref.span_id_hex
        assert scene.llm.parent.span_id == dropped.ref.span_id
        assert scene.metadata_of(scene.llm) == {"tenant": "acme", "verdict": "good"}

    @pytest.mark.only("openai_v2")
    def test_our_own_spans_around_it_are_closed_properly(self, scene: Scene) -> None:
        """A function that is observed, and drops a stream, gives its caller back the current span and the metadata."""

        @om.observe(name="answer", tracer=scene.tracer)
        def answer() -> None:
            drop_a_stream(scene)

        with scene.caller() as caller:
            answer()
            assert trace.get_current_span() is caller
            with om.start_span("after", tracer=scene.tracer):
                pass
        scene.export()

        assert scene.span("after").parent == scene.span("caller").context
        assert scene.span("answer").parent == scene.span("caller").context

    @pytest.mark.only("openai_v2")
    def test_shutdown_does_not_wait_for_it(self, scene: Scene) -> None:
        """A span that never ends is not waiting anywhere: flush and shutdown say that all was delivered."""
        with scene.caller():
            drop_a_stream(scene)
        scene.export()
        scene.provider.shutdown()

        assert [span.name for span in scene.exported] == ["caller"]


def drop_a_stream(scene: Scene) -> None:
    """Start a stream, read one chunk and forget it."""
    stream = scene.stream(hold_after_chunks=2)
    next(stream)
    del stream
    gc.collect()


class TestObservedGenerators:
    """The application's own generator around a stream: the usual way to hand a streamed answer on."""

    def test_the_llm_span_is_a_child_of_the_generators(self, scene: Scene) -> None:
        """An observed generator that streams is the parent of the LLM's span, and ends after it."""
        with scene.caller():
            text = "".join(observed_generator(scene)())
        scene.export()

        assert text == "The answer is forty-two."
        assert [span.name for span in scene.exported] == [scene.llm.name, "answer", "caller"]
        assert scene.llm.parent == scene.span("answer").context

    def test_the_consumer_keeps_its_current_span(self, scene: Scene) -> None:
        """Between the steps the consumer's own span is current, though the LLM's may be current in the generator."""
        with scene.caller() as caller:
            current = {trace.get_current_span() for _ in observed_generator(scene)()}

        assert current == {caller}

    def test_a_consumer_that_stops_early_leaves_no_span_open(self, scene: Scene) -> None:
        """`close()` after the first chunk ends the stream, its span and the generator's, and both are exported."""
        if not scene.instrumentor.ends_when_closed:
            pytest.skip("this version never ends the span of a stream that is closed early")

        with scene.caller():
            chunks = observed_generator(scene, hold_after_chunks=2)()
            next(chunks)
            chunks.close()
        gc.collect()
        scene.export()

        assert sorted(span.name for span in scene.exported) == sorted([scene.llm.name, "answer", "caller"])

    def test_each_step_may_run_on_another_thread(self, scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
        """A web framework drives a generator from a pool of threads: parents are right, and we do not complain."""
        with scene.caller():
            chunks = observed_generator(scene)()
            words = [on_a_thread(lambda: next(chunks, None)) for _ in range(7)]
        scene.export()

        assert "".join(word or "" for word in words) == "The answer is forty-two."
        assert scene.llm.parent == scene.span("answer").context
        if scene.instrumentor.is_current_in_loop:
            # It makes its span current on one thread and gives it back on another, as it does without us.
            complaints = [record for record in caplog.records if "detach" in record.getMessage()]
            assert all("opentelemetry/instrumentation/" in str(record.exc_text) for record in complaints)
            caplog.clear()

    def test_bound_metadata_reaches_through_it(self, scene: Scene) -> None:
        """What is bound around the loop, and what the generator binds itself, is all on the LLM's span."""
        with scene.caller(), om.using_metadata({"tenant": "acme"}):
            list(observed_generator(scene, metadata={"step": 1})())
        scene.export()

        assert scene.metadata_of(scene.llm) == {"tenant": "acme", "step": 1}

    def test_an_async_generator_is_the_parent_too(self, scene: Scene) -> None:
        """The same holds for an observed async generator, and its consumer keeps its current span."""
        current = set()

        @om.observe(name="answer", tracer=scene.tracer)
        async def answer(client: openai.AsyncOpenAI) -> AsyncIterator[str]:
            async for chunk in await scene.async_stream(client):
                yield text_of(chunk)

        async def consume(client: openai.AsyncOpenAI) -> None:
            async for _ in answer(client):
                current.add(trace.get_current_span())

        with scene.caller() as caller:
            scene.run(consume)
        scene.export()

        assert current == {caller}
        assert scene.llm.parent == scene.span("answer").context

    def test_an_async_consumer_that_stops_early_leaves_no_span_open(self, scene: Scene) -> None:
        """`aclose()` after the first chunk ends the stream, its span and the generator's."""
        if not scene.instrumentor.ends_when_closed:
            pytest.skip("this version never ends the span of a stream that is closed early")

        @om.observe(name="answer", tracer=scene.tracer)
        async def answer(client: openai.AsyncOpenAI) -> AsyncIterator[str]:
            async with scene.closing(await scene.async_stream(client, hold_after_chunks=2)) as stream:
                async for chunk in stream:
                    yield text_of(chunk)

        async def consume(client: openai.AsyncOpenAI) -> None:
            chunks = answer(client)
            await chunks.__anext__()
            await chunks.aclose()

        with scene.caller():
            scene.run(consume)
        gc.collect()
        scene.export()

        assert sorted(span.name for span in scene.exported) == sorted([scene.llm.name, "answer", "caller"])


def on_a_thread(step: Callable[[], Any]) -> Any:
    """Run one step on a new thread, in this thread's context, and return its result."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(contextvars.copy_context().run, step).result()


def observed_generator(scene: Scene, *, metadata: dict[str, object] | None = None, **knobs: object) -> Any:
    """Return an observed generator function that hands on the words of a stream, and closes it in any case."""

    @om.observe(name="answer", tracer=scene.tracer)
    def answer() -> Iterator[str]:
        with om.using_metadata(metadata):
            stream = scene.stream(**knobs)
        with stream:
            for chunk in stream:
                yield text_of(chunk)

    return answer


def test_concurrent_streams_keep_their_metadata_apart(scene: Scene) -> None:
    """Streams of twenty tasks that run in turns: each has its own bound metadata, capture and update."""
    routes = {}

    async def one(client: openai.AsyncOpenAI, number: int) -> None:
        with om.using_metadata({"number": number}), om.capture_spans() as captured:
            async for _ in await scene.async_stream(client, text=f"{number} " * 5):
                await asyncio.sleep(0)
            routes[captured.llm.ref.span_id] = (number, om.update_span(captured.llm, metadata={"update": number}).route)

    async def all_of_them(client: openai.AsyncOpenAI) -> None:
        await asyncio.gather(*(one(client, number) for number in range(20)))

    with scene.caller():
        scene.run(all_of_them)
    scene.export()

    arrived = {span.context.span_id: scene.metadata_of(span) for span in scene.exported if span.name != "caller"}
    assert len(arrived) == 20
    assert arrived == {span_id: {"number": number, "update": number} for span_id, (number, _) in routes.items()}
    assert {route for _, route in routes.values()} == {"in_flight"}
