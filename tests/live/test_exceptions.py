"""What an exception that leaves an observed call or a span says on the span, and that it goes on unchanged."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import inspect
import sys
import traceback

import gevent
import gevent.event
import pytest
from opentelemetry.trace import StatusCode

import otel_metadata as om


class UnreadableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


class UnreadableExit(BaseException):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


class SurrogateError(Exception):
    def __str__(self) -> str:
        return "bad \ud800 text"


def of_kind(kind: str, error: BaseException):
    """Return an observed callable of a kind, called `body`, that raises *error* when it is run to its end."""
    if kind == "function":

        def body() -> None:
            raise error
    elif kind == "coroutine":

        async def body() -> None:
            raise error
    elif kind == "generator":

        def body():
            yield 1
            raise error
    else:

        async def body():
            yield 1
            raise error

    body.__qualname__ = "body"
    observed = om.observe(body)
    if kind == "function":
        return observed
    if kind == "coroutine":
        return lambda: stepped(observed())
    if kind == "generator":
        return lambda: list(observed())
    return lambda: stepped(listed(observed()))


async def listed(items):
    return [item async for item in items]


def stepped(coroutine):
    """Run a coroutine that waits for nothing, without an event loop, which treats some exceptions of its own way."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


every_kind = pytest.mark.parametrize("kind", ["function", "coroutine", "generator", "async generator"])


class TestErrors:
    @every_kind
    def test_the_exception_goes_on_as_the_same_object(self, scene, kind):
        """The caller gets the very exception that was raised, without a cause or context of ours."""
        error = ValueError("no")

        with pytest.raises(ValueError, match="no") as caught:
            of_kind(kind, error)()

        assert caught.value is error
        assert (error.__cause__, error.__context__) == (None, None)

    @every_kind
    def test_the_traceback_ends_in_the_body(self, scene, kind):
        """The innermost frame of the traceback is still the line that raised."""
        with pytest.raises(ValueError, match="no") as caught:
            of_kind(kind, ValueError("no"))()

        assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "body"

    @every_kind
    def test_it_is_recorded_as_opentelemetry_does(self, scene, kind):
        """Status and exception event are those of a plain OpenTelemetry span that the exception leaves."""
        with pytest.raises(KeyError), scene.tracer.start_as_current_span("plain"):
            raise KeyError("x")

        with pytest.raises(KeyError):
            of_kind(kind, KeyError("x"))()

        ours, plain = scene.ended("body"), scene.ended("plain")
        assert (ours.status.status_code, ours.status.description) == (
            plain.status.status_code,
            plain.status.description,
        )
        assert [event.name for event in ours.events] == [event.name for event in plain.events] == ["exception"]
        assert ours.events[0].attributes.keys() == plain.events[0].attributes.keys()
        for name in ("exception.type", "exception.message"):
            assert ours.events[0].attributes[name] == plain.events[0].attributes[name]
        assert "KeyError" in ours.events[0].attributes["exception.stacktrace"]

    @every_kind
    def test_an_error_is_no_early_end(self, scene, kind):
        """An ordinary exception has no otel_metadata.ended_by."""
        with pytest.raises(KeyError):
            of_kind(kind, KeyError("x"))()

        assert "otel_metadata.ended_by" not in scene.ended("body").attributes

    @every_kind
    @pytest.mark.parametrize(
        "error",
        [UnreadableError("x"), UnreadableExit("x"), SurrogateError("x")],
        ids=lambda error: type(error).__name__,
    )
    def test_an_exception_without_readable_text_goes_on_unchanged(self, scene, kind, error):
        """An exception whose own __str__ raises, or is no valid text, reaches the caller; its type is recorded."""
        with pytest.raises(type(error)) as caught:
            of_kind(kind, error)()

        assert caught.value is error
        span = scene.ended("body")
        assert span.status.status_code is StatusCode.ERROR
        assert [(event.name, event.attributes["exception.type"].rpartition(".")[2]) for event in span.events] == [
            ("exception", type(error).__name__)
        ]

    def test_a_span_after_one_that_failed_arrives(self, scene):
        """Siblings of a span with an unreadable exception arrive in the store."""
        with pytest.raises(UnreadableError):
            of_kind("function", UnreadableError())()
        om.observe(name="sibling")(lambda: 1)()

        scene.deliver()
        assert sorted(record.name for record in scene.pipeline.records()) == ["body", "sibling"]

    def test_the_input_of_a_failed_call_is_kept(self, scene):
        """A call that raises has its input and no output."""

        @om.observe
        def divide(x, y):
            return x / y

        with pytest.raises(ZeroDivisionError):
            divide(1, 0)

        record = scene.record("divide")
        assert (record.input, record.output, record.status_code) == ({"x": 1, "y": 0}, None, "ERROR")

    def test_a_caught_exception_leaves_the_outer_span_alone(self, scene):
        """Only the span that the exception left is an error."""

        @om.observe(name="outer")
        def outer() -> str:
            try:
                of_kind("function", ValueError("no"))()
            except ValueError:
                return "caught"
            return "not raised"

        assert outer() == "caught"
        assert scene.ended("outer").status.status_code is StatusCode.UNSET

    def test_a_stop_iteration_of_a_plain_function_goes_on(self, scene):
        """StopIteration from a plain function is an exception like others."""

        @om.observe
        def body() -> None:
            raise StopIteration("end")

        with pytest.raises(StopIteration) as caught:
            body()

        assert caught.value.value == "end"
        assert scene.ended(body.__qualname__.rpartition("<locals>.")[2]).status.status_code is StatusCode.ERROR

    @pytest.mark.parametrize("kind", ["generator", "async generator"])
    def test_a_stop_iteration_inside_a_generator_is_pythons_runtime_error(self, scene, kind):
        """PEP 479 holds: the caller sees RuntimeError, caused by the StopIteration of the body."""
        error = StopIteration("end") if kind == "generator" else StopAsyncIteration("end")

        with pytest.raises(RuntimeError, match="raised Stop") as caught:
            of_kind(kind, error)()

        assert caught.value.__cause__ is error
        assert scene.ended("body").status.status_code is StatusCode.ERROR

    def test_an_exception_group_is_recorded(self, scene):
        """An exception that holds others is recorded under its own type."""
        error = pytest.importorskip("builtins").__dict__.get("ExceptionGroup")
        if error is None:
            pytest.skip("ExceptionGroup is new in Python 3.11")
        with pytest.raises(error):
            of_kind("function", error("both", [ValueError("a"), KeyError("b")]))()

        assert scene.ended("body").events[0].attributes["exception.type"] == "ExceptionGroup"


EARLY_ENDS = [
    (asyncio.CancelledError, "cancelled"),
    (GeneratorExit, "closed"),
    (KeyboardInterrupt, "interrupted"),
    (SystemExit, "exit"),
]


class TestEarlyEnds:
    @every_kind
    @pytest.mark.parametrize(("error", "word"), EARLY_ENDS)
    def test_an_early_end_is_told_apart_from_an_error(self, scene, kind, error, word):
        """Cancellation, close, interrupt and exit say how the span ended; it is no error and has no event."""
        with pytest.raises(error):
            of_kind(kind, error())()

        span = scene.ended("body")
        assert span.attributes["otel_metadata.ended_by"] == word
        assert (span.status.status_code, list(span.events)) == (StatusCode.UNSET, [])

    @pytest.mark.parametrize(("error", "word"), EARLY_ENDS)
    def test_a_with_span_tells_them_apart_too(self, scene, error, word):
        """start_span does the same."""
        with pytest.raises(error), om.start_span("body"):
            raise error

        assert scene.ended("body").attributes["otel_metadata.ended_by"] == word
        assert scene.ended("body").status.status_code is StatusCode.UNSET

    def test_a_subclass_of_an_early_end_is_one(self, scene):
        """A subclass of CancelledError, as libraries have them, is a cancellation."""

        class Cancelled(asyncio.CancelledError): ...

        with pytest.raises(Cancelled):
            of_kind("function", Cancelled())()

        assert scene.ended("body").attributes["otel_metadata.ended_by"] == "cancelled"

    def test_another_base_exception_is_an_error(self, scene):
        """A BaseException that is none of the four is recorded as an error."""

        class Odd(BaseException): ...

        with pytest.raises(Odd):
            of_kind("function", Odd("x"))()

        assert scene.ended("body").status.status_code is StatusCode.ERROR

    def test_an_update_of_the_status_stands_over_an_early_end(self, scene):
        """A status that the body set before it was cancelled stays."""

        @om.observe(name="body")
        def body() -> None:
            om.update_current_span(status="error", status_message="half done")
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            body()

        span = scene.ended("body")
        assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "half done")

    def test_a_cancelled_task_has_a_cancelled_span(self, scene):
        """A task that is really cancelled while it waits ends its span as cancelled, and the task is cancelled."""

        @om.observe(name="waits")
        async def waits() -> None:
            await asyncio.Event().wait()

        async def main() -> bool:
            task = asyncio.create_task(waits())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return task.cancelled()

        assert asyncio.run(main())
        assert scene.ended("waits").attributes["otel_metadata.ended_by"] == "cancelled"

    def test_a_coroutine_closed_half_way_has_a_closed_span(self, scene, no_detach_errors):
        """A coroutine that is closed before its end ends its span, once, without a log line."""

        @om.observe(name="waits")
        async def waits() -> None:
            await asyncio.sleep(3600)

        coroutine = waits()
        assert inspect.iscoroutine(coroutine)

        async def main() -> None:
            coroutine.send(None)
            coroutine.close()

        asyncio.run(main())

        assert scene.ended("waits").attributes["otel_metadata.ended_by"] == "closed"

    def test_a_coroutine_closed_in_another_context_logs_nothing(self, scene, no_detach_errors):
        """A coroutine that is closed in another context than it was started in ends its span, and nothing is logged."""

        @om.observe(name="waits")
        async def waits() -> None:
            await asyncio.sleep(0)

        coroutine = waits()
        contextvars.copy_context().run(coroutine.send, None)
        coroutine.close()

        assert scene.ended("waits").attributes["otel_metadata.ended_by"] == "closed"

    def test_a_coroutine_that_nobody_awaits_makes_no_span(self, scene):
        """A coroutine that is created and closed unstarted leaves nothing behind."""

        @om.observe
        async def body() -> None: ...

        body().close()

        assert scene.names() == []


class Stopped(asyncio.CancelledError):
    """A cancellation of an application's own."""


def group(*errors: BaseException) -> BaseException:
    return BaseExceptionGroup("several", errors)  # noqa: F821 # a builtin since Python 3.11


class TestOtherCancellations:
    def ended_by(self, scene, error: BaseException) -> object:
        """Return what ended a span that *error* leaves; an error has a status and no word."""
        with pytest.raises(type(error)):
            of_kind("function", error)()
        span = scene.ended("body")
        word = span.attributes.get("otel_metadata.ended_by")
        assert (span.status.status_code is StatusCode.ERROR) == (word is None)
        return word

    def test_a_subclass_is_a_cancellation(self, scene):
        """An application's own kind of CancelledError is a cancellation."""
        assert self.ended_by(scene, Stopped()) == "cancelled"

    def test_a_greenlet_that_is_killed_is_cancelled(self, scene):
        """A greenlet that gevent kills ends its span as cancelled, not as an error."""
        started = gevent.event.Event()

        @om.observe(name="waits")
        def waits() -> None:
            started.set()
            gevent.sleep(3600)

        greenlet = gevent.spawn(waits)
        started.wait()
        greenlet.kill()

        assert scene.ended("waits").attributes["otel_metadata.ended_by"] == "cancelled"
        assert scene.ended("waits").status.status_code is StatusCode.UNSET

    @pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups are new in Python 3.11")
    @pytest.mark.parametrize(
        ("make", "word"),
        [
            (lambda: group(asyncio.CancelledError(), Stopped()), "cancelled"),
            (lambda: group(group(asyncio.CancelledError()), GeneratorExit()), "cancelled"),
            (lambda: group(asyncio.CancelledError(), KeyboardInterrupt()), "interrupted"),
            (lambda: group(asyncio.CancelledError(), KeyError("x")), None),
            (lambda: group(KeyError("x")), None),
        ],
        ids=["cancellations", "nested", "interrupted", "with an error", "errors"],
    )
    def test_a_group_of_early_ends_is_one(self, scene, make, word):
        """A group is no error when all in it are early ends, at any depth; one error in it makes it one."""
        assert self.ended_by(scene, make()) == word

    def test_a_future_that_was_cancelled_is_an_error_of_who_asks_for_its_result(self, scene):
        """The error of `concurrent.futures` says that a result is missing; the call itself was not cancelled."""
        assert self.ended_by(scene, concurrent.futures.CancelledError()) is None
