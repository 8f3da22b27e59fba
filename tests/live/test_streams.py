"""Functions whose result goes on after the call: coroutines, generators, streaming responses."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import subprocess
import sys
import threading
import types
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry import trace
from opentelemetry.trace import StatusCode
from starlette.applications import Starlette
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

import otel_metadata as om

pytestmark = pytest.mark.usefixtures("no_detach_errors")

ENDED_BY = "otel_metadata.ended_by"


def words(*, fail: bool = False):
    """Yield words, each beside a span of its own."""
    for word in ("Hel", "lo"):
        with om.start_span("chunk"):
            pass
        yield word
    if fail:
        raise ValueError("no")
    return "returned"


async def words_later():
    """Yield words, each after a wait and beside a span of its own."""
    for word in ("Hel", "lo"):
        await asyncio.sleep(0)
        with om.start_span("chunk"):
            await asyncio.sleep(0)
        yield word


@om.observe
def chat(make=words):
    """Return a stream, as most wrappers of a model's client do."""
    return make()


@om.observe
async def chat_later(make=words_later):
    """Return a stream from a coroutine function."""
    return make()


def iter_of(*items):
    """Yield the items."""
    yield from items


async def listed(items):
    return [item async for item in items]


def assert_streamed(scene, name, output="Hello"):
    """Assert that the call's span ended after its two chunks, which are its children, and has the text."""
    assert scene.names() == ["chunk", "chunk", name]
    span = scene.ended(name)
    chunks = [child for child in scene.beside.spans if child.name == "chunk"]
    assert {child.parent.span_id for child in chunks} == {span.context.span_id}
    assert scene.record(name).output == output
    assert span.status.status_code is StatusCode.UNSET
    assert ENDED_BY not in span.attributes


class TestGenerators:
    def test_the_span_of_a_returned_generator_lasts_until_its_last_item(self, scene):
        """The span ends with the generator, holds the joined text, and is the parent of what the generator opens."""
        stream = chat()
        assert scene.names() == []
        assert "".join(stream) == "Hello"
        assert_streamed(scene, "chat")

    def test_the_span_of_a_returned_async_generator_lasts_until_its_last_item(self, scene):
        """The same for an async generator, of a plain function and of a coroutine function."""
        assert asyncio.run(listed(chat(words_later))) == ["Hel", "lo"]
        assert_streamed(scene, "chat")

    def test_a_coroutine_function_may_return_a_stream(self, scene):
        """The span of a coroutine function goes on with the stream that it returned."""

        async def main():
            return await listed(await chat_later())

        assert asyncio.run(main()) == ["Hel", "lo"]
        assert_streamed(scene, "chat_later")

    def test_a_coroutine_that_is_passed_on_may_return_a_stream(self, scene):
        """A plain function whose coroutine returns a stream has one span, until the end of the stream."""

        async def body():
            return words_later()

        async def main():
            return await listed(await om.observe(lambda: body(), name="chat")())

        assert asyncio.run(main()) == ["Hel", "lo"]
        assert_streamed(scene, "chat")

    def test_what_is_returned_is_of_the_same_kind(self, scene):
        """A generator is returned as a generator, an async generator as one, by the name of the application's."""
        made, later = chat(), chat(words_later)

        assert inspect.isgenerator(made)
        assert inspect.isasyncgen(later)
        assert (made.__qualname__, later.__name__) == ("words", "words_later")
        made.close()

    def test_send_throw_and_the_return_value_pass_through(self, scene):
        """The protocol of the generator is the application's own."""

        def echo():
            got = yield "ready"
            try:
                got = yield got
            except KeyError as error:
                got = error
            yield got
            return "done"

        made, error = om.observe(lambda: echo())(), KeyError("x")
        assert [next(made), made.send("a"), made.throw(error)] == ["ready", "a", error]
        with pytest.raises(StopIteration) as stop:
            next(made)
        assert stop.value.value == "done"

    def test_the_consumer_keeps_its_own_current_span(self, scene):
        """Spans that the consumer opens between two items are its own."""
        with scene.tracer.start_as_current_span("consumer"):
            stream = chat()
            for _ in stream:
                with om.start_span("used"):
                    pass

        assert {scene.parent_name("chat")} == {"consumer"}
        used = {child.parent.span_id for child in scene.beside.spans if child.name == "used"}
        assert used == {scene.ended("consumer").context.span_id}

    def test_a_plain_result_ends_the_span_at_once(self, scene):
        """A function that sometimes returns a stream returns other values as ever."""
        assert chat(lambda: "Hello") == "Hello"
        assert scene.names() == ["chat"]

    @pytest.mark.parametrize("make", [lambda: iter([1]), lambda: map(str, [1]), lambda: range(2)], ids=repr)
    def test_other_iterators_are_left_alone(self, scene, make):
        """Iterators that are no generators are returned as the very object, and the span ends."""
        made = []
        result = om.observe(lambda: made.append(make()) or made[0], name="call")()

        assert result is made[0]
        assert scene.names() == ["call"]

    def test_a_class_whose_metaclass_raises_is_left_alone(self, scene):
        """What a result is, is told without asking its class: a metaclass is the application's code."""

        class Meta(type):
            def __raise(cls, *args):
                raise RuntimeError("hostile")

            __hash__ = __eq__ = __instancecheck__ = __subclasscheck__ = __getattribute__ = __raise

        class Hostile(metaclass=Meta):
            pass

        value = object.__new__(Hostile)

        got = []

        async def later():
            return value

        async def main():
            # Not returned: the event loop itself would look at the value.
            got.append(await om.observe(later, name="call", capture_output=False)())

        assert om.observe(lambda: value, name="call", capture_output=False)() is value
        assert om.using_metadata({"a": 1})(lambda: value)() is value
        asyncio.run(main())
        assert got[0] is value
        assert scene.names() == ["call", "call"]

    def test_a_generator_that_is_used_up_ends_the_span_at_once(self, scene):
        """A generator without a step left is a plain value."""
        used = words()
        list(used)

        assert om.observe(lambda: used, name="call")() is used
        assert "call" in scene.names()

    def test_a_generator_that_the_application_keeps_is_not_closed_with_what_was_returned(self, scene):
        """An accessor that returns the same generator each time can be called for each item, as without us."""
        held = words()
        take = om.observe(lambda: held, name="take")

        assert [next(take()), next(take())] == ["Hel", "lo"]
        gc.collect()
        assert scene.names().count("take") == 2

    def test_an_observed_generator_inside_is_a_child(self, scene):
        """A plain function that returns an observed generator has the generator's span as a child."""
        assert "".join(om.observe(lambda: om.observe(words)(), name="outer")()) == "Hello"
        assert scene.parent_name("words") == "outer"
        assert scene.record("outer").output == "Hello"

    def test_process_output_gets_the_items(self, scene):
        """process_output is called once, with what was yielded."""
        list(om.observe(lambda: iter_of(1, 2), name="call", process_output=len)())
        assert scene.record("call").output == 2

    def test_an_awaitable_generator_can_still_be_awaited(self, scene):
        """A generator of `types.coroutine` is awaited, whether its function is observed or returns it."""

        @types.coroutine
        def old_style():
            yield from asyncio.sleep(0).__await__()
            return 5

        async def main():
            return [await om.observe(old_style)(), await om.observe(lambda: old_style(), name="call")()]

        assert asyncio.run(main()) == [5, 5]


class TestEarlyEnds:
    def assert_closed(self, scene, output, name="chat"):
        assert scene.names().count(name) == 1
        span = scene.ended(name)
        assert span.attributes[ENDED_BY] == "closed"
        assert span.status.status_code is StatusCode.UNSET
        assert scene.record(name).output == output

    def test_a_stream_that_is_never_started_ends_its_span_when_it_is_dropped(self, scene):
        """Whether it is closed or forgotten, the span ends once, as closed, without output and without a warning."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            made = chat()
            made.close()
            del made
            gc.collect()
        self.assert_closed(scene, None)

    def test_an_async_stream_that_is_never_started_ends_its_span(self, scene):
        """The same for an async generator, which no event loop has seen."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            chat(words_later)
            gc.collect()
        self.assert_closed(scene, None)

    @pytest.mark.parametrize("end", ["close", "drop", "cycle"])
    def test_a_stream_that_is_left_half_way_keeps_its_text(self, scene, end):
        """A consumer that breaks ends the span, as closed, with the text so far."""
        made = [chat()]
        next(made[0])
        if end == "close":
            made[0].close()
        elif end == "cycle":
            made.append(made)
        del made
        gc.collect()
        self.assert_closed(scene, "Hel")

    def test_the_cleanup_of_a_dropped_stream_runs_inside_the_span(self, scene):
        """What a generator does in its finally block is a child of the call, also when it is dropped."""

        def body():
            try:
                yield 1
            finally:
                with om.start_span("cleanup"):
                    pass

        made = om.observe(lambda: body(), name="call")()
        next(made)
        del made
        gc.collect()

        assert scene.names() == ["cleanup", "call"]
        assert scene.parent_name("cleanup") == "call"

    def test_a_stream_that_fails_is_an_error_with_its_text(self, scene):
        """The exception goes on, is recorded, and what came before it is kept."""
        with pytest.raises(ValueError, match="no"):
            list(chat(lambda: words(fail=True)))

        assert scene.ended("chat").status.status_code is StatusCode.ERROR
        assert scene.record("chat").output == "Hello"

    def test_a_stream_that_is_cancelled_is_cancelled(self, scene):
        """A task that is cancelled while it waits for an item ends the span as cancelled."""

        async def body():
            yield "first"
            await asyncio.Event().wait()

        async def main():
            task = asyncio.create_task(listed(chat(body)))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        asyncio.run(main())
        assert scene.ended("chat").attributes[ENDED_BY] == "cancelled"
        assert scene.record("chat").output == "first"

    def test_a_stream_may_be_taken_by_several_threads(self, scene):
        """Each item on a thread of its own, as Starlette takes them, and the close on another."""
        made = chat()
        with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as two:
            assert [one.submit(next, made).result(), two.submit(next, made).result()] == ["Hel", "lo"]
            left = [pool.submit(trace.get_current_span).result() for pool in (one, two)]
        thread = threading.Thread(target=made.close)
        thread.start()
        thread.join()

        assert left == [trace.INVALID_SPAN] * 2
        self.assert_closed(scene, "Hello")

    def test_a_span_that_a_generator_holds_open_across_threads_is_left_where_it_ends(self, scene):
        """A `with start_span` around a yield is over after it, also when another thread takes the next step."""

        def body():
            with om.start_span("held"):
                yield 1
            with om.start_span("after"):
                yield 2

        made = om.observe(lambda: body(), name="call")()
        with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as two:
            for pool in (one, two, one):
                pool.submit(next, made, None).result()

        assert {scene.parent_name("held"), scene.parent_name("after")} == {"call"}

    def test_the_event_loop_closes_a_stream_that_waits_in_its_cleanup_once(self, scene):
        """An async generator that is left at the end of asyncio.run may await in its finally block."""
        held = []

        async def body():
            try:
                yield 1
            finally:
                for _ in range(3):
                    await asyncio.sleep(0)
                held.append("cleaned")

        async def main():
            held.extend((chat(body), om.observe(body)()))
            for made in list(held):
                await anext(made)

        asyncio.run(main())
        assert held[2:] == ["cleaned", "cleaned"]
        self.assert_closed(scene, [1])

    def test_a_stream_that_is_left_when_the_interpreter_exits_says_nothing(self):
        """Generators and coroutines that a module holds at exit print no traceback and no warning."""
        program = """
import otel_metadata as om
from otel_metadata.testing import InMemoryPipeline
pipeline = InMemoryPipeline()
def body():
    try:
        yield 1
    finally:
        pass
async def later():
    yield 1
started, fresh, unheard = om.observe(lambda: body())(), om.observe(lambda: body())(), om.observe(lambda: later())()
observed = om.observe(body)()
next(started), next(observed)
"""
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
        )
        assert (done.stdout, done.stderr) == ("", "")


async def work():
    """Return at once."""
    return 1


def cancelled_before_its_first_step(make):
    async def main():
        task = asyncio.ensure_future(make())
        task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        return type(result)

    return asyncio.run(main())


def gathered(make):
    async def main():
        outer = asyncio.gather(make(), make())
        outer.cancel()
        try:
            await outer
        except asyncio.CancelledError as error:
            return type(error)

    return asyncio.run(main())


def closed(make):
    make().close()


def thrown_into(make):
    try:
        make().throw(KeyError("x"))
    except KeyError as error:
        return type(error), error.args


def never_awaited(make):
    make()


def awaited(make):
    return asyncio.run(make())


def awaited_twice(make):
    async def main():
        coroutine = make()
        await coroutine
        try:
            await coroutine
        except RuntimeError as error:
            return str(error)

    return asyncio.run(main())


class TestCoroutines:
    @pytest.mark.parametrize("decorate", [om.observe, om.using_metadata({"a": 1})], ids=["observe", "using_metadata"])
    @pytest.mark.parametrize("func", [lambda: work(), work], ids=["passed on", "coroutine function"])
    @pytest.mark.parametrize(
        "use",
        [cancelled_before_its_first_step, gathered, closed, thrown_into, never_awaited, awaited, awaited_twice],
        ids=lambda use: use.__name__,
    )
    def test_results_and_warnings_are_those_of_plain_python(self, scene, use, func, decorate):
        """Whatever becomes of a coroutine, the interpreter says the same of it as without us, by the same name."""
        told = []
        for make in (func, decorate(func)):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                result = use(make)
                gc.collect()
            told.append((result, [str(warning.message) for warning in caught]))

        assert told[0] == told[1]

    @pytest.mark.parametrize(
        ("use", "word"),
        [(cancelled_before_its_first_step, "cancelled"), (closed, "closed"), (never_awaited, "closed")],
        ids=["cancelled", "closed", "never awaited"],
    )
    @pytest.mark.filterwarnings("ignore:coroutine 'work' was never awaited:RuntimeWarning")
    def test_the_span_of_a_coroutine_that_never_ran_ends_by_its_word(self, scene, use, word):
        """The span of a function that passed a coroutine on ends once, as what ended the coroutine."""
        use(om.observe(lambda: work(), name="start"))
        gc.collect()

        assert scene.names() == ["start"]
        assert scene.ended("start").attributes[ENDED_BY] == word
        assert scene.record("start").output is None

    def test_a_coroutine_function_that_never_ran_has_no_span(self, scene):
        """Nothing ran, so there is nothing to show: as for a generator that is never started."""
        assert cancelled_before_its_first_step(om.observe(work)) is asyncio.CancelledError
        assert scene.names() == []

    def test_a_coroutine_that_the_application_keeps_can_still_be_awaited(self, scene):
        """A function that returns the coroutine it was given, and whose result is ignored, does not close it."""
        given = work()
        om.observe(lambda: given, name="register")()
        gc.collect()

        assert asyncio.run(given) == 1

    @pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.TaskGroup is new in Python 3.11")
    def test_children_of_a_task_group_that_fails_are_cancelled(self, scene):
        """Tasks that a group cancels before or in their first step end as cancelled, and nobody warns."""

        async def wait():
            await asyncio.Event().wait()

        async def fail():
            raise KeyError("x")

        async def main():
            async with asyncio.TaskGroup() as group:
                group.create_task(om.observe(lambda: wait(), name="started")())
                group.create_task(fail())
                await asyncio.sleep(0)
                group.create_task(om.observe(lambda: wait(), name="late")())

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(BaseExceptionGroup):  # noqa: F821 # a builtin since Python 3.11
                asyncio.run(main())
        assert {scene.ended(name).attributes[ENDED_BY] for name in ("started", "late")} == {"cancelled"}

    def test_futures_and_tasks_are_returned_as_they_are(self, scene):
        """An awaitable that is no coroutine is the very object; what a task does is a child of the call."""

        async def child():
            with om.start_span("child"):
                pass

        async def main():
            loop = asyncio.get_running_loop()
            made = [loop.create_future()]
            assert om.observe(lambda: made[0], name="future")() is made[0]
            task = om.observe(lambda: loop.create_task(child()), name="task")()
            assert type(task) is type(asyncio.current_task())
            await task

        asyncio.run(main())
        assert scene.parent_name("child") == "task"

    def test_the_current_span_inside_is_the_calls(self, scene):
        """A coroutine that is passed on runs in the span of the call, and leaves its caller's alone."""

        async def body():
            with om.start_span("inside"):
                await asyncio.sleep(0)

        async def main():
            with scene.tracer.start_as_current_span("caller"):
                await om.observe(lambda: body(), name="call")()
                assert trace.get_current_span().name == "caller"

        asyncio.run(main())
        assert (scene.parent_name("inside"), scene.parent_name("call")) == ("call", "caller")


class TestUsingMetadata:
    def test_metadata_reaches_what_goes_on_after_the_call(self, scene):
        """A decorated function that returns a coroutine or a stream gives its values to the spans of either."""

        async def body():
            with om.start_span("in coroutine"):
                pass

        using = om.using_metadata({"k": 1})
        asyncio.run(using(lambda: body())())
        list(using(lambda: words())())
        with om.start_span("outside"):
            pass

        assert scene.record("in coroutine").metadata == {"k": 1}
        records = {record.name: record.metadata for record in scene.pipeline.records()}
        assert (records["chunk"], records["outside"]) == ({"k": 1}, {})


async def called(app, path="/", *, receive=None, fails_at=None):
    """Call an ASGI application once, and return the body that it sends."""
    sent = []

    async def send(message):
        if fails_at is not None and len(sent) == fails_at:
            raise OSError("the client has gone")
        sent.append(message)

    async def waiting():
        await asyncio.Event().wait()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": [],
        "server": ("test", 80),
        "client": ("test", 1),
    }
    await app(scope, receive or waiting, send)
    return b"".join(message.get("body", b"") for message in sent)


class AsyncWords:
    """An async iterable that is no generator."""

    def __aiter__(self):
        return words_later()


def asgi(endpoint):
    return Starlette(routes=[Route("/", endpoint)])


class TestStarlette:
    @pytest.mark.parametrize(
        "make",
        [words, words_later, AsyncWords, lambda: (word.encode() for word in words())],
        ids=["generator", "async generator", "async iterable", "bytes"],
    )
    @pytest.mark.parametrize("kind", ["async", "threadpool"])
    def test_a_streaming_response_is_one_span_until_its_last_chunk(self, scene, kind, make):
        """The route's span has the text; the chunks are its children, also on Starlette's threads."""
        made = []

        def respond(request):
            made.append(StreamingResponse(make()))
            return made[0]

        async def respond_async(request):
            return respond(request)

        route = om.observe(respond if kind == "threadpool" else respond_async, name="route", capture_input=False)
        assert asyncio.run(called(asgi(route))) == b"Hello"
        assert_streamed(scene, "route")

    def test_the_response_is_the_very_object(self, scene):
        """Only its iterator is replaced."""
        made = StreamingResponse(words())
        assert om.observe(lambda: made, name="route")() is made

    def test_a_character_that_is_split_between_chunks_is_kept(self, scene):
        """Chunks of bytes are read as one text; bytes that are no text are kept as bytes."""
        text = "Grüße".encode()
        for name, chunks in (("text", [text[:3], text[3:]]), ("binary", [b"\xff\xfe", b"\x00\xff"])):
            route = om.observe(lambda request, chunks=chunks: StreamingResponse(iter(chunks)), name=name)
            assert asyncio.run(called(asgi(route))) == b"".join(chunks)

        assert scene.record("text").output == "Grüße"
        assert "\ufffd" not in str(scene.record("binary").output)

    def test_a_client_that_goes_away_closes_the_stream(self, scene):
        """A send that fails is the consumer's error: the span is closed, once, with the text so far."""

        async def main():
            with contextlib.suppress(Exception):
                await called(asgi(om.observe(lambda request: StreamingResponse(words()), name="route")), fails_at=2)
            gc.collect()
            for _ in range(3):
                await asyncio.sleep(0)

        asyncio.run(main())
        gc.collect()
        assert scene.names().count("route") == 1
        assert scene.ended("route").attributes[ENDED_BY] in {"closed", "cancelled"}
        assert scene.record("route").output == "Hello"[: len(scene.record("route").output)]

    def test_a_response_that_is_never_sent_ends_its_span(self, scene):
        """A response that a middleware throws away closes the span when it is dropped."""
        om.observe(lambda: StreamingResponse(words_later()), name="route")()
        gc.collect()
        assert scene.ended("route").attributes[ENDED_BY] == "closed"

    @pytest.mark.parametrize(
        "make", [lambda: PlainTextResponse("a"), lambda: FileResponse(__file__), lambda: Response()]
    )
    def test_other_responses_end_the_span_at_once(self, scene, make):
        """A response that is no stream is a value as any other."""
        om.observe(make, name="route")()
        assert scene.names() == ["route"]
