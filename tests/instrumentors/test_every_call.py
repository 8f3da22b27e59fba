"""Whatever the call and whoever traces it: metadata bound before and updates after reach its span and no other."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import openai
import pytest
from opentelemetry import trace
from opentelemetry.trace import format_span_id

import otel_metadata as om

if TYPE_CHECKING:
    from tests.instrumentors.conftest import Instrumentor, Scene

# What a stream says that breaks: the client's own error, or, before openai 3, that of its HTTP library.
BROKEN = "Connection error|incomplete chunked read"

InLoop: TypeAlias = Callable[[], object]
"""What a test does in the loop over a stream, after each chunk."""


@dataclass(frozen=True)
class Call:
    """One kind of call, complete: when it returns, its span has ended."""

    name: str
    make: Callable[[Any, InLoop], None]
    has_loop: bool
    api: str = "chat"
    is_closed_early: bool = False
    is_dropped: bool = False

    @property
    def is_of_model(self) -> bool:
        """Whether its span is that of a language model; instrumentors do not agree on embeddings."""
        return self.api != "embeddings"

    def is_traced_by(self, instrumentor: Instrumentor) -> bool:
        """Whether that instrumentor makes a span of it, and ends it."""
        if self.is_closed_early and not instrumentor.ends_when_closed:
            return False
        if self.is_dropped and not instrumentor.ends_when_dropped:
            return False
        return self.api != "responses" or instrumentor.spans_of_responses > 0


def nothing() -> None:
    """Do nothing in the loop."""


def plain(scene: Scene, in_loop: InLoop) -> None:
    """Wait for the whole answer."""
    scene.chat()


def tool(scene: Scene, in_loop: InLoop) -> None:
    """Get a tool call for an answer."""
    scene.chat(tool="weather")


def error(scene: Scene, in_loop: InLoop) -> None:
    """Get status 500."""
    with pytest.raises(openai.InternalServerError):
        scene.chat(status=500)


def stream(scene: Scene, in_loop: InLoop) -> None:
    """Read a stream to its end."""
    for _ in scene.stream():
        in_loop()


def stream_closed_early(scene: Scene, in_loop: InLoop) -> None:
    """Leave the `with` of a stream after its first chunk, while the server still has more to say."""
    with scene.stream(hold_after_chunks=2) as chunks:
        next(chunks)
        in_loop()
    chunks.response.close()


def stream_dropped(scene: Scene, in_loop: InLoop) -> None:
    """Forget a stream after its first chunk; it is garbage-collected."""
    chunks = scene.stream(hold_after_chunks=2)
    next(chunks)
    in_loop()
    del chunks
    gc.collect()


def stream_broken(scene: Scene, in_loop: InLoop) -> None:
    """Read a stream whose connection breaks after two chunks."""
    chunks = scene.stream(break_after_chunks=2)
    next(chunks)
    in_loop()
    with pytest.raises(Exception, match=BROKEN):
        list(chunks)


def stream_refused(scene: Scene, in_loop: InLoop) -> None:
    """Ask for a stream and get status 500."""
    with pytest.raises(openai.InternalServerError):
        scene.stream(status=500)


def async_plain(scene: Scene, in_loop: InLoop) -> None:
    """Await the whole answer."""
    scene.run(scene.async_chat)


def async_error(scene: Scene, in_loop: InLoop) -> None:
    """Await status 500."""
    with pytest.raises(openai.InternalServerError):
        scene.run(lambda client: scene.async_chat(client, status=500))


def async_stream(scene: Scene, in_loop: InLoop) -> None:
    """Read a stream to its end in asyncio."""

    async def read(client: openai.AsyncOpenAI) -> None:
        async for _ in await scene.async_stream(client):
            in_loop()

    scene.run(read)


def async_stream_closed_early(scene: Scene, in_loop: InLoop) -> None:
    """Leave the `async with` of a stream after its first chunk."""

    async def read(client: openai.AsyncOpenAI) -> None:
        async with scene.closing(await scene.async_stream(client, hold_after_chunks=2)) as chunks:
            await chunks.__anext__()
            in_loop()

    scene.run(read)
    gc.collect()


def async_stream_broken(scene: Scene, in_loop: InLoop) -> None:
    """Read a stream in asyncio whose connection breaks after two chunks."""

    async def read(client: openai.AsyncOpenAI) -> None:
        chunks = await scene.async_stream(client, break_after_chunks=2)
        await chunks.__anext__()
        in_loop()
        with pytest.raises(Exception, match=BROKEN):
            _ = [chunk async for chunk in chunks]

    scene.run(read)


def response(scene: Scene, in_loop: InLoop) -> None:
    """Wait for an answer of the Responses API. OpenLLMetry makes its span when the call is over."""
    scene.client.responses.create(model="gpt-5", input="What is the answer?")


def response_stream(scene: Scene, in_loop: InLoop) -> None:
    """Read a stream of the Responses API. OpenLLMetry makes its span when the stream starts."""
    for _ in scene.client.responses.create(model="gpt-5", input="What is the answer?", stream=True):
        in_loop()


def response_error(scene: Scene, in_loop: InLoop) -> None:
    """Get status 500 from the Responses API."""
    client = scene.client.with_options(default_headers={"x-stub-status": "500"})
    with pytest.raises(openai.InternalServerError):
        client.responses.create(model="gpt-5", input="What is the answer?")


def async_response(scene: Scene, in_loop: InLoop) -> None:
    """Await an answer of the Responses API."""
    scene.run(lambda client: client.responses.create(model="gpt-5", input="What is the answer?"))


def embedding(scene: Scene, in_loop: InLoop) -> None:
    """Wait for an embedding."""
    scene.client.embeddings.create(model="text-embedding-3", input="answer")


CALLS = [
    Call("plain", plain, has_loop=False),
    Call("tool", tool, has_loop=False),
    Call("error", error, has_loop=False),
    Call("stream", stream, has_loop=True),
    Call("stream_closed_early", stream_closed_early, has_loop=True, is_closed_early=True),
    Call("stream_dropped", stream_dropped, has_loop=True, is_dropped=True),
    Call("stream_broken", stream_broken, has_loop=True),
    Call("stream_refused", stream_refused, has_loop=False),
    Call("async_plain", async_plain, has_loop=False),
    Call("async_error", async_error, has_loop=False),
    Call("async_stream", async_stream, has_loop=True),
    Call("async_stream_closed_early", async_stream_closed_early, has_loop=True, is_closed_early=True),
    Call("async_stream_broken", async_stream_broken, has_loop=True),
    Call("response", response, has_loop=False, api="responses"),
    Call("response_error", response_error, has_loop=False, api="responses"),
    Call("async_response", async_response, has_loop=False, api="responses"),
    Call("response_stream", response_stream, has_loop=True, api="responses"),
    Call("embedding", embedding, has_loop=False, api="embeddings"),
]


def span_id_of(span: Any) -> str:
    """Return an exported span's id in hex."""
    return format_span_id(span.context.span_id)


def test_a_call_makes_one_span_under_the_callers(scene: Scene, call: Call) -> None:
    """With our processor in place an instrumentor's spans are what they are without: one, a child of the caller's."""
    with scene.caller():
        call.make(scene, nothing)
    scene.export()

    caller = scene.span("caller")
    assert {span_id_of(span) for span in scene.exported} == {span_id_of(caller), span_id_of(scene.llm)}
    assert len(scene.exported) == 2
    assert scene.llm.parent == caller.context


def test_bound_metadata_reaches_its_span(scene: Scene, call: Call) -> None:
    """`using_metadata` around a call is on the span that the instrumentor opens."""
    with scene.caller(), om.using_metadata({"tenant": "acme", "attempt": 2}, user_id="u-1"):
        call.make(scene, nothing)
    scene.export()

    assert scene.metadata_of(scene.llm) == {"tenant": "acme", "attempt": 2}
    assert scene.llm.attributes["user.id"] == "u-1"


def test_a_capture_names_its_span(scene: Scene, call: Call) -> None:
    """`capture_spans` around a call has one span, and its ref has the ids of the exported one."""
    with scene.caller(), om.capture_spans() as captured:
        call.make(scene, nothing)
    scene.export()

    assert [span.ref.span_id_hex for span in captured.all] == [span_id_of(scene.llm)]
    assert captured.last.ref.trace_id == scene.llm.context.trace_id


@pytest.mark.calls_that("is_of_model")
def test_a_capture_knows_the_call_of_a_model(scene: Scene, call: Call) -> None:
    """`.llm` is that span, also when other spans start after it in the same block."""
    with scene.caller(), om.capture_spans() as captured:
        call.make(scene, nothing)
        with scene.tracer.start_as_current_span("parse the answer"):
            pass

    assert captured.llm.ref == captured.all[0].ref
    assert captured.last.ref != captured.llm.ref


def test_an_update_after_the_call_leaves_with_its_span(scene: Scene, call: Call) -> None:
    """An update in flight through the captured ref is on the exported span, not on the caller's, and no patch."""
    with scene.caller(), om.capture_spans() as captured:
        call.make(scene, nothing)
        receipt = om.update_span(captured.last, metadata={"verdict": "good"})
    scene.export()

    assert receipt.route == "in_flight"
    assert scene.metadata_of(scene.llm) == {"verdict": "good"}
    assert scene.metadata_of(scene.span("caller")) == {}
    assert scene.patched == []


def test_an_update_after_the_export_is_a_patch_of_its_span(scene: Scene, call: Call) -> None:
    """A late update, by the text form of the captured ref, is one patch whose target is that span."""
    with scene.caller(), om.capture_spans() as captured:
        call.make(scene, nothing)
    scene.export()
    receipt = om.update_span(captured.last.ref.to_traceparent(), metadata={"verdict": "good"})
    scene.export()

    assert receipt.route == "late"
    assert scene.patched == [(span_id_of(scene.llm), {"verdict": "good"})]


def test_a_call_leaves_nothing_current(scene: Scene, call: Call) -> None:
    """After a call the caller's span is current again; the scene sees to it that nobody complained."""
    with scene.caller() as caller, om.using_metadata({"tenant": "acme"}), om.capture_spans():
        call.make(scene, nothing)

        assert trace.get_current_span() is caller


@pytest.mark.calls_that("has_loop")
def test_an_update_of_the_captured_span_in_the_loop_is_live(scene: Scene, call: Call) -> None:
    """While a stream runs its span still records: an update through the captured ref is set on it at once."""
    routes = set()

    with scene.caller(), om.capture_spans() as captured:
        call.make(scene, lambda: routes.add(om.update_span(captured.llm, metadata={"is_read": True}).route))
    scene.export()

    assert routes == {"live"}
    assert scene.metadata_of(scene.llm) == {"is_read": True}
    assert scene.metadata_of(scene.span("caller")) == {}


@pytest.mark.calls_that("has_loop")
def test_an_update_of_the_current_span_in_the_loop_goes_to_who_is_current(scene: Scene, call: Call) -> None:
    """In the loop over a stream the current span is the caller's; with openai-v2 it is the LLM's."""
    with scene.caller():
        call.make(scene, lambda: om.update_current_span(metadata={"is_read": True}))
    scene.export()

    updated, other = scene.span("caller"), scene.llm
    if scene.instrumentor.is_current_in_loop and call.api == "chat":
        updated, other = other, updated
    assert scene.metadata_of(updated) == {"is_read": True}
    assert scene.metadata_of(other) == {}
