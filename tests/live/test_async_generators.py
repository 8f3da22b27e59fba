"""Observed async generators: in the consumer's task, with the body's own span, ended however they are left."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys

import pytest
from opentelemetry import trace
from opentelemetry.trace import StatusCode

import otel_metadata as om

pytestmark = pytest.mark.usefixtures("no_detach_errors")


def current_name() -> str | None:
    """Return the name of the current span, None when there is none."""
    return getattr(trace.get_current_span(), "name", None)


@om.observe
async def letters(text="abc"):
    """Yield letters, with a wait before and a span beside each."""
    for letter in text:
        async with om.start_span(f"step {letter}"):
            await asyncio.sleep(0)
        yield letter


@om.observe
async def waiting():
    """Yield one item, then wait for ever."""
    yield "first"
    await asyncio.Event().wait()


class TestCurrentSpan:
    def test_the_consumer_keeps_its_own_current_span(self, scene):
        """Between steps the current span is the consumer's, and its spans are its own children."""

        async def main():
            with scene.tracer.start_as_current_span("consumer"):
                async for letter in letters("ab"):
                    with om.start_span(f"used {letter}"):
                        await asyncio.sleep(0)

        asyncio.run(main())

        assert {name: scene.parent_name(name) for name in scene.names()} == {
            "step a": "letters",
            "used a": "consumer",
            "step b": "letters",
            "used b": "consumer",
            "letters": "consumer",
            "consumer": None,
        }

    def test_the_body_has_its_own_current_span_after_every_wait(self, scene):
        """In the body the generator's own span is current, also after it has waited."""

        @om.observe(name="body")
        async def body():
            for _ in range(2):
                yield current_name()
                await asyncio.sleep(0)
                yield current_name()

        async def main():
            return [item async for item in body()]

        assert asyncio.run(main()) == ["body"] * 4

    def test_while_the_body_waits_other_tasks_keep_their_own(self, scene):
        """A task that runs while the body waits does not see the generator's span."""
        seen = []

        async def other():
            for _ in range(5):
                seen.append(current_name())
                await asyncio.sleep(0)

        async def main():
            task = asyncio.create_task(other())
            async for _ in letters("abc"):
                pass
            await task

        asyncio.run(main())

        assert seen == [None] * 5

    def test_two_interleaved_async_generators_have_right_parents(self, scene):
        """Two that take turns are both children of the caller, each with its own children."""

        @om.observe(name="first")
        async def first():
            for number in range(2):
                with om.start_span(f"first {number}"):
                    await asyncio.sleep(0)
                    yield number

        @om.observe(name="second")
        async def second():
            for number in range(2):
                with om.start_span(f"second {number}"):
                    await asyncio.sleep(0)
                    yield number

        async def main():
            with scene.tracer.start_as_current_span("caller"):
                one, two = first(), second()
                for _ in range(2):
                    await anext(one)
                    await anext(two)
                assert current_name() == "caller"
                await one.aclose()
                await two.aclose()

        asyncio.run(main())

        assert {name: scene.parent_name(name) for name in scene.names()} == {
            "first 0": "first",
            "second 0": "second",
            "first 1": "first",
            "second 1": "second",
            "first": "caller",
            "second": "caller",
            "caller": None,
        }

    def test_a_task_that_the_body_starts_inherits_the_bodys_span(self, scene):
        """A task made inside the body has the generator's span as its current one."""

        async def child():
            return current_name()

        @om.observe(name="body")
        async def body():
            yield await asyncio.create_task(child())

        async def main():
            return [item async for item in body()]

        assert asyncio.run(main()) == ["body"]

    def test_the_body_sees_the_context_variables_of_its_caller(self, scene):
        """Context variables that were set before the call are there in the body."""
        variable = contextvars.ContextVar("variable", default=None)

        @om.observe
        async def body():
            yield variable.get()

        async def main():
            variable.set("set")
            return [item async for item in body()]

        assert asyncio.run(main()) == ["set"]

    def test_a_step_that_is_driven_by_hand_leaves_nothing_attached(self, scene):
        """While a step is suspended, and when it is given up, the current span is that of whoever drives it."""

        @om.observe(name="body")
        async def body():
            yield current_name()
            await Pause()
            yield current_name()

        with scene.tracer.start_as_current_span("driver"):
            made = body()
            with pytest.raises(StopIteration) as first:
                made.asend(None).send(None)
            step = made.asend(None)
            assert (step.send(None), current_name()) == ("paused", "driver")
            with pytest.raises(StopIteration) as second:
                step.send(None)
            assert (first.value.value, second.value.value, current_name()) == ("body", "body", "driver")
            with pytest.raises(StopAsyncIteration):
                made.asend(None).send(None)

            given_up = body()
            with pytest.raises(StopIteration):
                given_up.asend(None).send(None)
            step = given_up.asend(None)
            step.send(None)
            del step, given_up
            gc.collect()
            assert (current_name(), scene.names()) == ("driver", ["body", "body"])

    def test_a_body_shares_all_other_context_variables(self, scene):
        """What the body sets its consumer sees, and the other way round, also after a wait."""
        variable = contextvars.ContextVar("variable", default="unset")

        async def body():
            variable.set("by the body")
            await asyncio.sleep(0)
            yield variable.get()
            yield variable.get()

        async def main(make):
            seen = []
            async for item in make():
                seen.append((item, variable.get()))
                variable.set("by the consumer")
            return seen

        assert asyncio.run(main(om.observe(body))) == asyncio.run(main(body))


class Pause:
    """An awaitable that is suspended once."""

    def __await__(self):
        yield "paused"


class TestTask:
    def test_every_step_runs_in_the_consumers_task(self, scene):
        """The body sees the task of whoever takes the step, also after a wait."""
        seen = []

        @om.observe
        async def body():
            seen.append(asyncio.current_task())
            await asyncio.sleep(0)
            seen.append(asyncio.current_task())
            yield
            seen.append(asyncio.current_task())

        async def main():
            async for _ in body():
                pass
            assert set(seen) == {asyncio.current_task()}

        asyncio.run(main())

    def test_a_timeout_around_a_step_cancels_the_body(self, scene):
        """A deadline of the consumer reaches a body that waits, whose span ends as cancelled."""

        async def main():
            made = waiting()
            assert await anext(made) == "first"
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(anext(made), 0)

        asyncio.run(main())

        assert scene.ended("waiting").attributes["otel_metadata.ended_by"] in {"cancelled", "closed"}
        assert scene.record("waiting").output == "first"

    @pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout is new in Python 3.11")
    def test_a_timeout_inside_the_body_holds(self, scene):
        """asyncio.timeout inside the body ends its wait, and the body goes on."""

        @om.observe(name="body")
        async def body():
            try:
                async with asyncio.timeout(0):
                    await asyncio.Event().wait()
            except TimeoutError:
                yield "timed out"

        async def main():
            return [item async for item in body()]

        assert asyncio.run(main()) == ["timed out"]
        assert scene.ended("body").status.status_code is StatusCode.UNSET

    @pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout is new in Python 3.11")
    def test_a_timeout_across_a_yield_inside_the_body_holds(self, scene):
        """A deadline that the body opens before a yield still ends a wait after it."""

        @om.observe(name="body")
        async def body():
            try:
                async with asyncio.timeout(0):
                    yield "before"
                    await asyncio.Event().wait()
            except TimeoutError:
                yield "timed out"

        async def main():
            return [item async for item in body()]

        assert asyncio.run(main()) == ["before", "timed out"]

    @pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout is new in Python 3.11")
    def test_a_timeout_of_the_consumer_around_the_loop_holds(self, scene):
        """asyncio.timeout around the whole loop ends it, and the timeout is told as such."""

        async def main():
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    async for _ in waiting():
                        pass

        asyncio.run(main())

        assert scene.ended("waiting").attributes["otel_metadata.ended_by"] == "cancelled"

    def test_a_cancellation_that_the_body_handles_is_handled(self, scene):
        """A body that catches CancelledError and yields goes on as without us."""

        @om.observe(name="body")
        async def body():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                yield "caught"

        async def main():
            made = body()
            task = asyncio.ensure_future(anext(made))
            await asyncio.sleep(0)
            task.cancel()
            assert await task == "caught"
            await made.aclose()

        asyncio.run(main())

        assert scene.record("body").output == "caught"

    def test_two_steps_at_once_are_pythons_runtime_error(self, scene):
        """A second anext while the first one waits raises what Python raises, and leaves the first one alone."""

        async def main():
            made = waiting()
            await anext(made)
            task = asyncio.ensure_future(anext(made))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="already running"):
                await anext(made)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())

        assert scene.names().count("waiting") == 1


class TestProtocol:
    def test_values_that_are_sent_reach_the_body(self, scene):
        """asend() gives its value to the body."""

        @om.observe
        async def echo():
            got = None
            while True:
                got = yield got

        async def main():
            made = echo()
            try:
                return [await made.asend(None), await made.asend("a"), await made.asend("b")]
            finally:
                await made.aclose()

        assert asyncio.run(main()) == [None, "a", "b"]

    def test_an_exception_that_is_thrown_in_can_be_handled(self, scene):
        """athrow() raises in the body at its yield, and what it makes of it comes back."""

        @om.observe(name="body")
        async def body():
            try:
                yield 1
            except KeyError as error:
                yield error

        async def main():
            made, error = body(), KeyError("x")
            await anext(made)
            assert await made.athrow(error) is error
            await made.aclose()

        asyncio.run(main())

        assert scene.ended("body").status.status_code is StatusCode.UNSET

    def test_an_exception_that_is_thrown_in_and_not_handled_ends_it(self, scene):
        """An exception thrown in and not handled comes out as the same object and is recorded."""

        async def main():
            made, error = letters(), KeyError("x")
            await anext(made)
            with pytest.raises(KeyError) as caught:
                await made.athrow(error)
            assert caught.value is error

        asyncio.run(main())

        assert scene.ended("letters").status.status_code is StatusCode.ERROR

    def test_texts_are_joined(self, scene):
        """The output of an async generator of texts is one text."""

        async def main():
            return [item async for item in letters("abc")]

        assert asyncio.run(main()) == ["a", "b", "c"]
        assert scene.record("letters").output == "abc"


class TestEarlyEnd:
    def assert_closed_once(self, scene, output="a"):
        """Assert that the letters' span ended once, as closed, with partial output, and that none is open."""
        assert scene.names().count("letters") == 1
        span = scene.ended("letters")
        assert span.attributes["otel_metadata.ended_by"] == "closed"
        assert span.status.status_code is StatusCode.UNSET
        assert scene.record("letters").output == output
        assert current_name() is None

    def test_aclose_ends_the_span(self, scene):
        """aclose() ends the span; a second one does nothing."""

        async def main():
            made = letters()
            await anext(made)
            await made.aclose()
            await made.aclose()

        asyncio.run(main())
        self.assert_closed_once(scene)

    def test_aclose_from_another_task_ends_the_span(self, scene):
        """aclose() in another task than the steps' ends the span once and logs nothing."""

        async def main():
            made = letters()
            await asyncio.create_task(_next(made))
            await asyncio.create_task(_close(made))

        asyncio.run(main())
        self.assert_closed_once(scene)

    def test_aclose_in_another_event_loop_ends_the_span(self, scene):
        """aclose() in a second event loop ends the span."""
        made = letters("abc")

        loop = asyncio.new_event_loop()
        loop.run_until_complete(_next(made))
        # The finalizer hooks belong to the first loop; it must not be closed before the generator is.
        asyncio.run(_close(made))
        loop.close()

        self.assert_closed_once(scene)

    def test_a_break_is_ended_by_the_loops_finalizer_hook(self, scene):
        """A consumer that breaks leaves the generator to the event loop, which closes it."""

        async def main():
            async for _ in letters():
                break
            gc.collect()
            # The loop's hook has scheduled aclose(): two turns of the loop run it.
            for _ in range(3):
                await asyncio.sleep(0)
            return scene.names().count("letters")

        assert asyncio.run(main()) == 1
        self.assert_closed_once(scene)

    def test_what_is_left_at_the_loops_end_is_closed(self, scene):
        """A generator that is still referenced when asyncio.run ends is closed by shutdown_asyncgens."""
        held = []

        async def main():
            held.append(letters())
            await anext(held[0])

        asyncio.run(main())
        self.assert_closed_once(scene)

    def test_without_hooks_the_collector_ends_the_span(self, scene):
        """An async generator driven without an event loop is ended when it is collected."""
        made = letters_at_once("abc")
        with pytest.raises(StopIteration):
            made.asend(None).send(None)
        del made
        gc.collect()

        assert scene.names() == ["letters_at_once"]
        assert scene.ended("letters_at_once").attributes["otel_metadata.ended_by"] == "closed"

    def test_an_async_generator_that_is_never_started_makes_no_span(self, scene):
        """Calling, closing and dropping without a first step leaves nothing behind."""

        async def main():
            await letters().aclose()
            letters()
            gc.collect()

        asyncio.run(main())

        assert scene.names() == []

    def test_the_body_can_wait_in_its_cleanup(self, scene):
        """A finally block of the body may await while it is closed, with its span still live and current."""

        @om.observe(name="body")
        async def body():
            try:
                yield 1
            finally:
                await asyncio.sleep(0)
                om.update_current_span(metadata={"cleaned": current_name()})

        async def main():
            made = body()
            await anext(made)
            await made.aclose()

        asyncio.run(main())

        assert scene.record("body").metadata == {"cleaned": "body"}


@om.observe
async def letters_at_once(text):
    """Yield letters without waiting."""
    for letter in text:
        yield letter


async def _next(made):
    return await anext(made)


async def _close(made):
    await made.aclose()
