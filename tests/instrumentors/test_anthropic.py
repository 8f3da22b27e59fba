"""The real `anthropic` client opens a span of its own beside the instrumentor's: which of the two is the call."""

from __future__ import annotations

import asyncio
import http.server
import importlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

import otel_metadata as om
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.testing import RecordingSpanExporter

# The everyday environment has to have it; one that names its instrumentors has those alone.
pytestmark = pytest.mark.skipif(
    "OTEL_METADATA_TEST_INSTRUMENTORS" in os.environ, reason="about anthropic, which another environment has"
)

MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-test",
    "content": [{"type": "text", "text": "42"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 1},
}
EVENTS: list[dict[str, Any]] = [
    {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "42"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
    {"type": "message_stop"},
]
REQUEST: dict[str, Any] = {"model": "claude-test", "max_tokens": 9, "messages": [{"role": "user", "content": "Why?"}]}

INSTRUMENTORS = {
    "openinference": "openinference.instrumentation.anthropic",
    "openllmetry": "opentelemetry.instrumentation.anthropic",
}
OWN_SCOPE = "com.anthropic.sdk.python"


class Messages(http.server.BaseHTTPRequestHandler):
    """The Messages API: one answer, whole or as a stream of events."""

    def do_POST(self) -> None:
        is_stream = json.loads(self.rfile.read(int(self.headers["Content-Length"]))).get("stream", False)
        events = (f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in EVENTS)
        body = ("".join(events) if is_stream else json.dumps(MESSAGE)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream" if is_stream else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@dataclass
class Scene:
    url: str
    scope: str
    tracer: trace.Tracer

    def plain(self) -> None:
        """Wait for the whole answer."""
        with self.client() as client:
            client.messages.create(**REQUEST)

    def stream(self) -> None:
        """Read a stream of `create`."""
        with self.client() as client:
            assert [event.type for event in client.messages.create(**REQUEST, stream=True)]

    def helper(self) -> None:
        """Read a stream of the helper `messages.stream`."""
        with self.client() as client, client.messages.stream(**REQUEST) as stream:
            assert stream.get_final_text() == "42"

    def asyncio(self) -> None:
        """Make a call, and read a stream, from asyncio."""

        async def main() -> None:
            async with importlib.import_module("anthropic").AsyncAnthropic(**self.options) as client:
                await client.messages.create(**REQUEST)
                async with client.messages.stream(**REQUEST) as stream:
                    assert await stream.get_final_text() == "42"

        asyncio.run(main())

    def client(self) -> Any:
        return importlib.import_module("anthropic").Anthropic(**self.options)

    @property
    def options(self) -> dict[str, Any]:
        return {"base_url": self.url, "api_key": "no-key", "max_retries": 0}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Messages)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(params=INSTRUMENTORS)
def scene(request: pytest.FixtureRequest, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """An application with one instrumentor; the client's own spans go to the same provider."""
    provider = TracerProvider(shutdown_on_exit=False)
    destination = om.Destination("memory", RecordingSpanExporter(), InMemoryPatchExporter())
    provider.add_span_processor(om.MetadataSpanProcessor(destination, start_workers=False))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    scope = INSTRUMENTORS[request.param]
    instrumentor = importlib.import_module(scope).AnthropicInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    yield Scene(url, scope, provider.get_tracer("application"))
    instrumentor.uninstrument()


KINDS = pytest.mark.parametrize("make", [Scene.plain, Scene.stream, Scene.helper, Scene.asyncio])


@KINDS
def test_the_instrumentors_span_is_the_call(scene: Scene, make: Callable[[Scene], None]) -> None:
    """The client's own span inside it, or beside it, is not."""
    with om.capture_spans() as captured, scene.tracer.start_as_current_span("caller"):
        make(scene)

    assert OWN_SCOPE in [span.scope_name for span in captured.all]
    assert captured.llm.scope_name == scene.scope


@KINDS
def test_of_two_calls_the_last_is_meant(scene: Scene, make: Callable[[Scene], None]) -> None:
    """An agent around them is no call."""
    with om.capture_spans() as captured, om.start_span("agent", as_type="agent"):
        make(scene)
        first = captured.llm
        make(scene)

    assert captured.llm.scope_name == scene.scope
    assert captured.llm.ref != first.ref
    assert captured.llm is [span for span in captured.all if span.scope_name == scene.scope][-1]


def test_without_an_instrumentor_the_clients_own_span_is_the_call(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is all that there is."""
    provider = TracerProvider(shutdown_on_exit=False)
    destination = om.Destination("memory", RecordingSpanExporter(), InMemoryPatchExporter())
    provider.add_span_processor(om.MetadataSpanProcessor(destination, start_workers=False))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    with om.capture_spans() as captured:
        Scene(url, "", provider.get_tracer("application")).plain()

    assert captured.llm.scope_name == OWN_SCOPE
