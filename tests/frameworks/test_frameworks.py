"""Observed functions inside web frameworks, task queues and other event loops: the real packages.

Run by `make test-backends`, in an environment that has them.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import subprocess
import sys
from collections.abc import Iterator

import anyio
import celery
import django
import dramatiq
import dramatiq.brokers.stub
import fastapi
import flask
import huey
import langchain_core.tools
import pytest
import sse_starlette
import trio
from django.conf import settings
from django.http import FileResponse, StreamingHttpResponse
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient

import otel_metadata as om
from otel_metadata.errors import ConfigurationError
from otel_metadata.model.record import SpanRecord
from otel_metadata.testing import InMemoryPipeline

ENDED_BY = "otel_metadata.ended_by"


@pytest.fixture
def pipeline() -> Iterator[InMemoryPipeline]:
    """A pipeline that is balanced at the end."""
    made = InMemoryPipeline()
    yield made
    assert made.stats().is_balanced
    made.close()


def spans(pipeline: InMemoryPipeline) -> dict[str, tuple[str | None, SpanRecord]]:
    """Return the stored spans by name, each with the name of its parent."""
    gc.collect()
    assert pipeline.deliver()
    records = {record.span_id: record for record in pipeline.records()}
    names = {span_id: record.name for span_id, record in records.items()}
    return {record.name: (names.get(record.parent_id or ""), record) for record in records.values()}


def chunks():
    """Yield two chunks, each beside a span."""
    for chunk in ("Hel", "lo"):
        with om.start_span("chunk"):
            pass
        yield chunk


async def chunks_later():
    """The same, later."""
    for chunk in chunks():
        await asyncio.sleep(0)
        yield chunk


def assert_streamed(pipeline: InMemoryPipeline, name: str, output: object = "Hello") -> None:
    """Assert that the span of this name has the stream, and its chunks as children."""
    found = spans(pipeline)
    parent, chunk = found["chunk"]
    assert (parent, chunk.trace_id) == (name, found[name][1].trace_id)
    assert found[name][1].output == output
    assert found[name][1].end_time >= chunk.end_time
    assert ENDED_BY not in found[name][1].attributes


class TestFastApi:
    @pytest.mark.parametrize("make", [chunks, chunks_later])
    @pytest.mark.parametrize("is_async", [True, False])
    def test_a_streaming_route(self, pipeline, make, is_async):
        """A route that streams is one span until the last chunk."""
        app = fastapi.FastAPI()

        def route(q: str = "x"):
            return StreamingResponse(make())

        async def route_async(q: str = "x"):
            return StreamingResponse(make())

        app.get("/")(om.observe(route_async if is_async else route, name="route"))
        assert TestClient(app).get("/").text == "Hello"
        assert_streamed(pipeline, "route")

    @pytest.mark.parametrize("is_async", [True, False], ids=["async route", "route on a thread"])
    def test_a_route_is_inside_an_async_dependency_that_yields(self, pipeline, is_async):
        """Spans of the route are children of the dependency, and have its metadata; the next request starts anew."""
        app = fastapi.FastAPI()

        @om.observe(name="dependency")
        async def dependency():
            with om.using_metadata({"k": 1}):
                yield 1

        def route(value: int = fastapi.Depends(dependency)):
            with om.start_span("inside"):
                return value

        async def route_async(value: int = fastapi.Depends(dependency)):
            return route(value)

        app.get("/")(route_async if is_async else route)
        client = TestClient(app)
        assert [client.get("/").json(), client.get("/").json()] == [1, 1]

        found = spans(pipeline)
        parent, inside = found["inside"]
        assert (parent, inside.metadata) == ("dependency", {"k": 1})
        assert found["dependency"][0] is None
        assert len({record.trace_id for record in pipeline.records()}) == 2

    @pytest.mark.parametrize(
        ("telemetry", "parent", "metadata"),
        [(None, "fastapi.endpoint", {}), ({"operation_spans": False}, "dependency", {"k": 1})],
        ids=["operation spans", "none"],
    )
    def test_with_a_global_provider_the_spans_of_fastapi_decide(self, tmp_path, telemetry, parent, metadata):
        """FastAPI's own span of the dependencies ends before the route, and the context of the dependency with it."""
        program = f"""
import fastapi
from fastapi.testclient import TestClient
import otel_metadata as om

om.configure("sqlite:///spans.db")
app = fastapi.FastAPI(telemetry={telemetry!r})

@om.observe(name="dependency")
async def dependency():
    with om.using_metadata({{"k": 1}}):
        yield 1

@app.get("/")
async def route(value: int = fastapi.Depends(dependency)):
    with om.start_span("inside"):
        return value

assert TestClient(app).get("/").json() == 1
assert om.flush()
"""
        subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
        with om.Client(f"sqlite:///{tmp_path}/spans.db") as client:
            stored = list(client.spans.list())
        names = {record.span_id: record.name for record in stored}
        (inside,) = [record for record in stored if record.name == "inside"]
        assert (names[inside.parent_id], inside.metadata) == (parent, metadata)

    def test_a_dependency_on_a_thread_ends_once_and_says_nothing(self, pipeline, caplog):
        """FastAPI enters and leaves a synchronous dependency on threads with contexts of their own."""
        app = fastapi.FastAPI()

        @om.observe(name="dependency")
        def dependency():
            with om.start_span("held"):
                yield 1

        @app.get("/")
        def route(value: int = fastapi.Depends(dependency)):
            return value

        assert TestClient(app).get("/").json() == 1
        found = spans(pipeline)
        assert found["held"][0] == "dependency"
        assert ENDED_BY not in found["dependency"][1].attributes
        assert caplog.records == []

    def test_server_sent_events(self, pipeline):
        """The response of sse-starlette is a stream as well."""
        app = fastapi.FastAPI()

        @app.get("/")
        @om.observe(name="route")
        async def route():
            return sse_starlette.EventSourceResponse({"data": chunk} for chunk in chunks())

        assert "data: Hel" in TestClient(app).get("/").text
        assert_streamed(pipeline, "route", [{"data": "Hel"}, {"data": "lo"}])


class TestFlask:
    @pytest.mark.parametrize(
        "make",
        [lambda: flask.Response(chunks()), chunks, lambda: flask.Response(flask.stream_with_context(chunks()))],
        ids=["response", "generator", "with context"],
    )
    def test_a_streaming_view(self, pipeline, make):
        """A view that returns a response with an iterator, or the iterator itself, is one span until its end."""
        app = flask.Flask("test")
        app.get("/")(om.observe(lambda: make(), name="view"))
        assert app.test_client().get("/").text == "Hello"
        assert_streamed(pipeline, "view")

    def test_a_client_that_goes_away(self, pipeline):
        """A server that closes the response closes the span."""
        app = flask.Flask("test")
        app.get("/")(om.observe(lambda: flask.Response(chunks()), name="view"))
        response = app.test_client().get("/", buffered=False)
        next(response.iter_encoded())
        response.close()
        assert spans(pipeline)["view"][1].attributes[ENDED_BY] == "closed"

    def test_other_responses(self, pipeline):
        """A response that is no stream, and a file, end the span at once."""
        app = flask.Flask("test")
        app.get("/")(om.observe(lambda: flask.jsonify(a=1), name="view"))
        app.get("/file", endpoint="file")(om.observe(lambda: flask.send_file(__file__), name="file"))
        with app.test_client() as client:
            assert client.get("/").json == {"a": 1}
            client.get("/file").close()
        assert {ENDED_BY in record.attributes for _, record in spans(pipeline).values()} == {False}


class TestDjango:
    @pytest.fixture(autouse=True)
    def _configured(self):
        if not settings.configured:
            settings.configure()
            django.setup()

    def test_a_streaming_view(self, pipeline):
        """A streaming response is one span until it is sent."""
        response = om.observe(lambda: StreamingHttpResponse(chunks()), name="view")()
        assert type(response) is StreamingHttpResponse
        assert b"".join(response.streaming_content) == b"Hello"
        response.close()
        assert_streamed(pipeline, "view")

    def test_an_async_streaming_view(self, pipeline):
        """The same over ASGI."""

        async def main():
            return [part async for part in om.observe(lambda: StreamingHttpResponse(chunks_later()), name="view")()]

        assert asyncio.run(main()) == [b"Hel", b"lo"]
        assert_streamed(pipeline, "view")

    def test_a_client_that_goes_away(self, pipeline):
        """Django closes the response: the span is closed at once."""
        response = om.observe(lambda: StreamingHttpResponse(chunks()), name="view")()
        next(iter(response))
        response.close()
        found = spans(pipeline)["view"][1]
        assert (found.attributes[ENDED_BY], found.output) == ("closed", "Hel")

    def test_a_file(self, pipeline):
        """A file is sent by the server in its own way."""
        with open(__file__, "rb") as file:
            response = om.observe(lambda: FileResponse(file), name="view")()
            assert response.file_to_stream is file
            response.close()
        assert ENDED_BY not in spans(pipeline)["view"][1].attributes


class TestOtherLoops:
    async def parent(self, sleep):
        """A nursery whose children wait for ever."""
        waits = om.observe(sleep, name="child")
        async with anyio.create_task_group() as group:
            group.start_soon(waits)
            group.start_soon(waits)
            await sleep()

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def test_a_cancelled_scope(self, pipeline, backend):
        """AnyIO's cancellation is one on each loop, for the children of a group as for who waits for it."""

        async def main():
            with anyio.CancelScope() as scope:
                scope.cancel()
                await om.observe(self.parent, name="parent")(anyio.sleep_forever)

        anyio.run(main, backend=backend)
        found = spans(pipeline)
        assert {record.attributes[ENDED_BY] for _, record in found.values()} == {"cancelled"}
        assert {record.status_code for _, record in found.values()} == {"UNSET"}
        assert found["child"][0] == "parent"

    def test_trio(self, pipeline):
        """Trio's own cancellation is one, also of an async generator that waits."""

        @om.observe(name="items")
        async def items():
            yield 1
            await trio.sleep_forever()

        async def main():
            with trio.CancelScope() as scope:
                async with contextlib.aclosing(items()) as made:
                    async for _ in made:
                        scope.cancel()

        trio.run(main)
        found = spans(pipeline)["items"][1]
        assert (found.attributes[ENDED_BY], found.output) == ("cancelled", [1])


def work(number: int = 1) -> int:
    """Work."""
    return number


CELERY = celery.Celery("test", broker="memory://", backend="cache+memory://")
CELERY.conf.task_always_eager = True
DRAMATIQ = dramatiq.brokers.stub.StubBroker()
HUEY = huey.MemoryHuey(immediate=True)


class TestTaskQueues:
    @pytest.mark.parametrize(
        ("register", "package"),
        [
            (CELERY.task, "celery"),
            (lambda func: dramatiq.actor(func, broker=DRAMATIQ, actor_name="above"), "dramatiq"),
            (HUEY.task(), "huey"),
            (langchain_core.tools.tool, "langchain_core"),
        ],
        ids=["celery", "dramatiq", "huey", "langchain"],
    )
    def test_above_their_decorator_is_refused(self, register, package):
        """What the worker calls would not be observed: the message says so, and which order works."""
        made = register(work)
        for decorate in (om.observe, om.using_metadata({"a": 1})):
            with pytest.raises(ConfigurationError, match=f"directly above `def`, below the decorator of {package}"):
                decorate(made)

    def test_below_it_works(self, pipeline):
        """Below the decorator, each run of the task is a span."""

        @CELERY.task(name="task")
        @om.observe(name="celery")
        def task(number):
            return number

        assert task.delay(2).get() == 2

        @HUEY.task()
        @om.observe(name="huey")
        def job(number):
            return number

        assert job(3)(blocking=True) == 3

        @dramatiq.actor(broker=DRAMATIQ)
        @om.observe(name="dramatiq")
        def actor(number):
            return number

        assert actor.fn(4) == 4

        @langchain_core.tools.tool
        @om.observe(name="langchain")
        def tool(number: int) -> int:
            """Return it."""
            return number

        assert tool.invoke({"number": 5}) == 5
        found = spans(pipeline)
        outputs = {name: found[name][1].output for name in ("celery", "huey", "dramatiq", "langchain")}
        assert outputs == {"celery": 2, "huey": 3, "dramatiq": 4, "langchain": 5}
