"""Generator functions whose consumer is a `with` block: context managers, fixtures, dependencies."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import decimal
import gc
import threading

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import StatusCode

import otel_metadata as om

pytestmark = pytest.mark.usefixtures("no_detach_errors")

VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")


def current_name():
    """Return the name of the current span, None when there is none."""
    return getattr(trace.get_current_span(), "name", None)


def session(value=1):
    """Set something for the block, in every way there is."""
    token = VARIABLE.set("set")
    try:
        with decimal.localcontext() as context, om.using_metadata({"k": value}):
            context.prec = 5
            yield value
    finally:
        with om.start_span("after"):
            VARIABLE.reset(token)


async def session_later(value=1):
    """The same, with waits."""
    await asyncio.sleep(0)
    with contextlib.ExitStack() as stack:
        stack.enter_context(om.using_metadata({"k": value}))
        yield value
        await asyncio.sleep(0)
    with om.start_span("after"):
        await asyncio.sleep(0)


def used():
    """What the block does: opens a span, and sees what the manager has set."""
    with om.start_span("used"):
        return current_name(), VARIABLE.get(), str(decimal.Decimal(1) / 3)


def entered(make):
    """Enter a synchronous manager."""
    with make() as value:
        assert value == 1
        return used()


def entered_by_a_stack(make):
    """Enter it by an ExitStack."""
    with contextlib.ExitStack() as stack:
        assert stack.enter_context(make()) == 1
        return used()


def entered_as_a_decorator(make):
    """Use it as a decorator, twice."""
    decorated = make()(used)
    decorated()
    gc.collect()
    return decorated()


def by_contextlib(func):
    return contextlib.contextmanager(om.observe(func, name="session"))


def in_the_other_order(func):
    return om.observe(contextlib.contextmanager(func), name="session")


def around_using_metadata(func):
    return contextlib.contextmanager(om.observe(om.using_metadata({"more": 1})(func), name="session"))


def inside_using_metadata(func):
    return contextlib.contextmanager(om.using_metadata({"more": 1})(om.observe(func, name="session")))


def returned(func):
    return contextlib.contextmanager(om.observe(lambda: func(), name="session"))


WAYS = [by_contextlib, in_the_other_order, around_using_metadata, inside_using_metadata, returned]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
class TestContextManagers:
    @pytest.mark.parametrize("enter", [entered, entered_by_a_stack, entered_as_a_decorator], ids=lambda e: e.__name__)
    def test_spans_of_the_block_are_children_and_see_what_was_set(self, scene, way, enter):
        """The block nests under the observed span, has its metadata, and sees the context variables that it sets."""
        with scene.tracer.start_as_current_span("caller"):
            assert enter(way(session)) == ("used", "set", "0.33333")
            assert current_name() == "caller"

        assert VARIABLE.get() == "unset"
        scene.deliver()
        records = {record.span_id: record for record in scene.pipeline.records()}
        inside = [record for record in records.values() if record.name in {"used", "after"}]
        assert {records[record.parent_id].name for record in inside} == {"session"}
        assert {record.metadata.get("k") for record in inside if record.name == "used"} == {1}
        assert {records[r.parent_id].name for r in records.values() if r.name == "session"} == {"caller"}
        assert len({record.trace_id for record in records.values()}) == 1

    def test_an_exception_of_the_block_goes_through(self, scene, way):
        """An exception of the block comes out as the same object, is the manager's error, and the Context is back."""
        error = KeyError("x")
        with scene.tracer.start_as_current_span("caller"):
            with pytest.raises(KeyError) as caught, way(session)():
                raise error
            assert current_name() == "caller"

        assert caught.value is error
        assert scene.ended("session").status.status_code is StatusCode.ERROR

    def test_a_manager_may_swallow_what_the_block_raises(self, scene, way):
        """An exception that the body handles is handled."""

        def forgiving():
            with contextlib.suppress(KeyError):
                yield

        with way(forgiving)():
            raise KeyError("x")
        assert scene.ended("session").status.status_code is StatusCode.UNSET
        assert current_name() is None

    def test_a_manager_that_fails_before_its_yield_leaves_nothing(self, scene, way):
        """An exception on the way in is recorded, and the caller's Context is back."""

        def failing():
            raise ValueError("no")
            yield

        with pytest.raises(ValueError, match="no"), way(failing)():
            pass
        assert current_name() is None
        assert scene.ended("session").status.status_code is StatusCode.ERROR

    def test_an_exit_on_another_thread_ends_the_span(self, scene, way):
        """Frameworks exit on another thread than they enter: the span ends once, and neither thread keeps a Context."""
        seen = []
        manager = way(session)()

        def enter():
            contextvars.copy_context().run(manager.__enter__)
            seen.append(current_name())

        def leave():
            with contextlib.suppress(ValueError):  # VARIABLE.reset, as without us
                manager.__exit__(None, None, None)
            seen.append(current_name())

        for step in (enter, leave):
            thread = threading.Thread(target=step)
            thread.start()
            thread.join()

        assert seen == [None, None]
        assert scene.parent_name("after") == "session"
        assert scene.names().count("session") == 1

    def test_a_context_that_the_block_leaves_attached_is_undone(self, scene, way):
        """What the block attaches and forgets is gone after it."""
        with scene.tracer.start_as_current_span("caller"):
            with way(session)():
                otel_context.attach(otel_context.set_value("left", 1))
            assert otel_context.get_value("left") is None
            assert current_name() == "caller"


ASYNC_WAYS = {
    "by contextlib": lambda func: contextlib.asynccontextmanager(om.observe(func, name="session")),
    "in the other order": lambda func: om.observe(contextlib.asynccontextmanager(func), name="session"),
    "around": lambda func: contextlib.asynccontextmanager(om.observe(om.using_metadata()(func), name="session")),
    "returned": lambda func: contextlib.asynccontextmanager(om.observe(lambda: func(), name="session")),
}


class TestAsyncContextManagers:
    @pytest.mark.parametrize("way", ASYNC_WAYS.values(), ids=ASYNC_WAYS)
    def test_spans_of_the_block_are_children(self, scene, way):
        """The block nests under the observed span, with its metadata, also after a wait and after an exception."""

        async def main():
            with scene.tracer.start_as_current_span("caller"):
                async with way(session_later)() as value:
                    assert value == 1
                    await asyncio.sleep(0)
                    used()
                assert current_name() == "caller"
                with pytest.raises(KeyError):
                    async with contextlib.AsyncExitStack() as stack:
                        await stack.enter_async_context(way(session_later)())
                        raise KeyError("x")
                assert current_name() == "caller"

        asyncio.run(main())
        scene.deliver()
        records = {record.span_id: record for record in scene.pipeline.records()}
        (inside,) = [record for record in records.values() if record.name == "used"]
        assert (records[inside.parent_id].name, inside.metadata) == ("session", {"k": 1})
        assert {records[r.parent_id].name for r in records.values() if r.name == "session"} == {"caller"}

    def test_a_task_of_the_block_is_inside(self, scene):
        """A task that the block makes inherits the manager's span."""

        async def child():
            return current_name()

        async def main():
            async with contextlib.asynccontextmanager(om.observe(session_later, name="session"))():
                return await asyncio.create_task(child())

        assert asyncio.run(main()) == "session"


class TestMethods:
    def test_methods_are_managers_in_every_order(self, scene):
        """A context manager of a class is observed above and below its decorators, and once if its class is too."""

        @om.observe
        class Pool:
            @contextlib.contextmanager
            def plain(self):
                yield current_name()

            @om.observe(name="below")
            @contextlib.contextmanager
            def above(self):
                yield current_name()

            @om.observe(name="class method")
            @classmethod
            @contextlib.contextmanager
            def of_class(cls):
                yield current_name(), cls

        with Pool().plain() as plain, Pool().above() as above, Pool.of_class() as (of_class, cls):
            assert cls is Pool
        assert (plain.rpartition(".")[2], above, of_class) == ("plain", "below", "class method")
        assert len(scene.names()) == 3


def test_a_generator_that_a_loop_consumes_stays_isolated(scene):
    """Inside a manager, the loop over an observed generator keeps the manager's Context."""

    @om.observe(name="letters")
    def letters():
        yield from "ab"

    with contextlib.contextmanager(om.observe(session, name="session"))():
        for _ in letters():
            assert current_name() == "session"


@pytest.fixture
@om.observe(name="fixture")
def observed_fixture(scene):
    """Yield inside a span, which has ended when the fixture is torn down."""
    yield current_name()
    assert current_name() == "fixture"


def test_a_test_runs_inside_a_fixture_that_yields(scene, observed_fixture):
    """Spans of a test are children of the observed fixture that it uses."""
    fixture = trace.get_current_span().get_span_context().span_id
    with om.start_span("test"):
        pass

    assert observed_fixture == "fixture"
    assert scene.ended("test").parent.span_id == fixture
