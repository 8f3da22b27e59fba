"""`using_metadata`: which spans get what is bound, in which order things merge, and what is left afterwards."""

from __future__ import annotations

import asyncio
import inspect

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

import otel_metadata as om

pytestmark = pytest.mark.usefixtures("no_detach_errors")


def metadata_of(scene, name):
    return dict(scene.record(name).metadata)


class TestReach:
    def test_a_span_of_plain_opentelemetry_gets_it(self, scene):
        """A span that the application opens with plain OpenTelemetry inside the block has everything that is bound."""
        with om.using_metadata({"a": 1}, user_id="u", session_id="s", tags=["x", "y"]):
            scene.tracer.start_span("plain").end()

        record = scene.record("plain")
        assert (record.metadata, record.user_id, record.session_id, record.tags) == ({"a": 1}, "u", "s", ("x", "y"))

    def test_it_is_on_the_live_span_for_every_exporter(self, scene):
        """The canonical attributes are there for the application's other exporters as well."""
        with om.using_metadata({"a": 1, "b": None}, user_id="u", session_id="s", tags=["x"]):
            scene.tracer.start_span("plain").end()

        assert dict(scene.ended("plain").attributes) == {
            "metadata.a": 1,
            "metadata.b": "null",
            "user.id": "u",
            "session.id": "s",
            "tag.tags": ("x",),
            "otel_metadata.json": ("metadata.b",),
        }

    def test_the_current_span_gets_it_too(self, scene):
        """The span that is current at the entry has it as well."""
        with scene.tracer.start_as_current_span("current"), om.using_metadata({"a": 1}):
            pass

        assert metadata_of(scene, "current") == {"a": 1}

    def test_spans_before_and_after_do_not_get_it(self, scene):
        """A span that starts before or after the block has nothing of it."""
        scene.tracer.start_span("before").end()
        with om.using_metadata({"a": 1}):
            pass
        scene.tracer.start_span("after").end()

        assert (metadata_of(scene, "before"), metadata_of(scene, "after")) == ({}, {})

    def test_a_span_that_ends_after_the_block_keeps_it(self, scene):
        """What a span got at its start stays."""
        with om.using_metadata({"a": 1}):
            span = scene.tracer.start_span("long")
        span.end()

        assert metadata_of(scene, "long") == {"a": 1}

    def test_an_explicit_parent_context_decides(self, scene):
        """A span that is started with a context of its own gets what is bound in that one, not in the current one."""
        with om.using_metadata({"where": "held"}):
            held = otel_context.get_current()
        with om.using_metadata({"where": "current"}):
            scene.tracer.start_span("of held", context=held).end()
            scene.tracer.start_span("of none", context=otel_context.Context()).end()
        scene.tracer.start_span("of held, outside", context=held).end()

        assert [metadata_of(scene, name) for name in ("of held", "of none", "of held, outside")] == [
            {"where": "held"},
            {},
            {"where": "held"},
        ]

    def test_an_unsampled_span_gets_nothing(self, scene):
        """A span that will never leave has nothing set, and nothing fails."""
        tracer = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False).get_tracer("x")
        with om.using_metadata({"a": 1}), tracer.start_as_current_span("unsampled"), om.using_metadata({"b": 2}):
            pass
        scene.deliver()

        assert scene.pipeline.records() == []

    def test_without_an_sdk_it_does_nothing(self):
        """Without any SDK the block is entered and left."""
        with om.using_metadata({"a": 1}, user_id="u"):
            assert trace.get_current_span() is trace.INVALID_SPAN


class TestMerge:
    def test_the_inner_block_wins_key_by_key(self, scene):
        """Nested blocks merge at the first level; the inner value of a key stands, null included."""
        with om.using_metadata({"a": 1, "b": {"x": 1}, "c": 1}, user_id="outer", tags=["o"]):
            with om.using_metadata({"b": {"y": 2}, "c": None}, session_id="inner", tags=["i"]):
                scene.tracer.start_span("inner").end()
            scene.tracer.start_span("outer").end()

        inner, outer = scene.record("inner"), scene.record("outer")
        assert inner.metadata == {"a": 1, "b": {"y": 2}, "c": None}
        assert (inner.user_id, inner.session_id, set(inner.tags)) == ("outer", "inner", {"o", "i"})
        assert outer.metadata == {"a": 1, "b": {"x": 1}, "c": 1}
        assert (outer.user_id, outer.session_id, outer.tags) == ("outer", None, ("o",))

    def test_an_update_wins_over_what_is_bound(self, scene):
        """What is said of the span later stands."""
        with om.using_metadata({"a": 1, "b": 1}), scene.tracer.start_as_current_span("span"):
            om.update_current_span(metadata={"a": 2})

        assert metadata_of(scene, "span") == {"a": 2, "b": 1}

    def test_a_block_inside_a_span_wins_over_an_earlier_update(self, scene):
        """Entering a block is later than an update before it."""
        with scene.tracer.start_as_current_span("span"):
            om.update_current_span(metadata={"a": 1, "b": 1})
            with om.using_metadata({"a": 2}):
                pass

        assert metadata_of(scene, "span") == {"a": 2, "b": 1}

    def test_the_options_of_observe_win_over_what_is_bound(self, scene):
        """metadata= of a decorator is more particular than the block around the call."""
        with om.using_metadata({"a": "bound", "b": "bound"}):
            om.observe(name="span", metadata={"a": "option"})(lambda: None)()

        assert metadata_of(scene, "span") == {"a": "option", "b": "bound"}

    def test_values_are_read_once(self, scene):
        """A change of the mapping after the call has no effect."""
        given = {"a": [1]}
        block = om.using_metadata(given)
        given["a"].append(2)
        given["b"] = 1
        with block:
            scene.tracer.start_span("span").end()

        assert metadata_of(scene, "span") == {"a": [1]}


class TestLeaving:
    def test_the_context_afterwards_is_the_one_before(self, scene):
        """After the block the OpenTelemetry context is the same as before, also after an exception."""
        before = otel_context.get_current()
        with pytest.raises(ZeroDivisionError), om.using_metadata({"a": 1}):
            1 / 0  # noqa: B018

        assert otel_context.get_current() is before

    def test_one_object_may_be_entered_again_inside_itself(self, scene):
        """Re-entering the same object keeps the binding until the outer exit."""
        block = om.using_metadata({"a": 1})
        with block:
            with block:
                scene.tracer.start_span("inner").end()
            scene.tracer.start_span("outer").end()
        scene.tracer.start_span("after").end()

        assert [metadata_of(scene, name) for name in ("inner", "outer", "after")] == [{"a": 1}, {"a": 1}, {}]

    def test_one_object_may_be_used_one_time_after_another(self, scene):
        """The same object binds again at each use."""
        block = om.using_metadata({"a": 1})
        for number in range(3):
            with block:
                scene.tracer.start_span(f"span {number}").end()

        assert [metadata_of(scene, f"span {number}") for number in range(3)] == [{"a": 1}] * 3

    def test_async_with_is_the_same(self, scene):
        """`async with` binds for the task and unbinds."""

        async def main():
            async with om.using_metadata({"a": 1}):
                await asyncio.sleep(0)
                scene.tracer.start_span("inside").end()
            scene.tracer.start_span("after").end()

        asyncio.run(main())

        assert (metadata_of(scene, "inside"), metadata_of(scene, "after")) == ({"a": 1}, {})

    def test_leaving_a_block_that_was_never_entered_is_harmless(self, scene):
        """An exit without an entry does nothing."""
        om.using_metadata({"a": 1}).__exit__(None, None, None)


def decorated(scene, kind):
    """Return a decorated function of a kind that opens a span called inside; run to its end by `complete`."""
    bind = om.using_metadata({"a": 1}, tags=["t"])

    @bind
    def function():
        """Doc."""
        scene.tracer.start_span("inside").end()
        return "result"

    @bind
    async def coroutine():
        """Doc."""
        await asyncio.sleep(0)
        scene.tracer.start_span("inside").end()
        return "result"

    @bind
    def generator():
        """Doc."""
        yield "result"
        scene.tracer.start_span("inside").end()

    @bind
    async def async_generator():
        """Doc."""
        yield "result"
        await asyncio.sleep(0)
        scene.tracer.start_span("inside").end()

    class Owner:
        @bind
        def method(self):
            """Doc."""
            scene.tracer.start_span("inside").end()
            return "result"

        @bind
        @classmethod
        def class_method(cls):
            """Doc."""
            scene.tracer.start_span("inside").end()
            return "result"

        @staticmethod
        @bind
        def static_method():
            """Doc."""
            scene.tracer.start_span("inside").end()
            return "result"

        @bind
        @classmethod
        async def async_class_method(cls):
            """Doc."""
            await asyncio.sleep(0)
            scene.tracer.start_span("inside").end()
            return "result"

        @bind
        @staticmethod
        def generator_static_method():
            """Doc."""
            yield "result"
            scene.tracer.start_span("inside").end()

    made = {
        "function": function,
        "coroutine": coroutine,
        "generator": generator,
        "async generator": async_generator,
        "method": Owner().method,
        "class method": Owner.class_method,
        "static method": Owner.static_method,
        "coroutine class method": Owner.async_class_method,
        "generator static method": Owner.generator_static_method,
    }
    return made[kind]


KIND_CHECKS = {
    "function": None,
    "coroutine": inspect.iscoroutinefunction,
    "generator": inspect.isgeneratorfunction,
    "async generator": inspect.isasyncgenfunction,
    "method": None,
    "class method": None,
    "static method": None,
    "coroutine class method": inspect.iscoroutinefunction,
    "generator static method": inspect.isgeneratorfunction,
}


async def first_and_only(made):
    return [item async for item in made][0]  # noqa: RUF015 # run to its end


def complete(made):
    """Run what a call returned to its end and return its result or only item."""
    if inspect.isasyncgen(made):
        return asyncio.run(first_and_only(made))
    if inspect.iscoroutine(made):
        return asyncio.run(made)
    return list(made)[0] if inspect.isgenerator(made) else made  # noqa: RUF015 # run to its end


@pytest.mark.parametrize("kind", KIND_CHECKS)
class TestDecorator:
    def test_spans_inside_get_it_and_spans_after_do_not(self, scene, kind):
        """As a decorator it binds for the whole body of every kind of callable, and for nothing else."""
        assert complete(decorated(scene, kind)()) == "result"
        scene.tracer.start_span("after").end()

        assert (scene.record("inside").metadata, scene.record("inside").tags) == ({"a": 1}, ("t",))
        assert metadata_of(scene, "after") == {}

    def test_kind_and_doc_are_kept(self, scene, kind):
        """A decorated callable is of the kind that it was, with its doc."""
        observed = decorated(scene, kind)

        assert inspect.getdoc(observed) == "Doc."
        assert KIND_CHECKS[kind] is None or KIND_CHECKS[kind](observed)

    def test_it_works_below_and_above_observe(self, scene, kind):
        """With observe above, the observed span is current and gets it; with observe below, it starts inside."""
        complete(om.observe(name="above")(decorated(scene, kind))())

        assert metadata_of(scene, "above") == {"a": 1}
        assert scene.parent_name("inside") == "above"


class TestGenerators:
    def test_the_consumer_is_not_bound(self, scene):
        """A decorated generator binds for its own body only: the consumer's spans between steps have nothing."""

        @om.using_metadata({"a": 1})
        def body():
            yield 1
            yield 2

        for number in body():
            scene.tracer.start_span(f"consumer {number}").end()

        assert (metadata_of(scene, "consumer 1"), metadata_of(scene, "consumer 2")) == ({}, {})

    def test_the_binding_survives_a_step_on_another_thread(self, scene):
        """The body stays bound wherever its steps run."""
        import threading

        @om.using_metadata({"a": 1})
        def body():
            yield
            scene.tracer.start_span("inside").end()

        made = body()
        next(made)
        thread = threading.Thread(target=lambda: list(made))
        thread.start()
        thread.join()

        assert metadata_of(scene, "inside") == {"a": 1}

    def test_a_with_block_inside_an_observed_generator_does_not_leak(self, scene):
        """A block around a yield of an observed generator binds the body, and the consumer not."""

        @om.observe(name="body")
        def body():
            with om.using_metadata({"a": 1}):
                yield 1
                scene.tracer.start_span("inside").end()

        for _ in body():
            scene.tracer.start_span("consumer").end()

        assert (metadata_of(scene, "inside"), metadata_of(scene, "consumer")) == ({"a": 1}, {})


@pytest.mark.parametrize("wrong", [5, "text", [1], object()])
def test_metadata_that_is_no_mapping_does_not_raise(scene, wrong):
    """A wrong argument binds nothing and raises nothing into the application."""
    with om.using_metadata(wrong, user_id="u"):
        scene.tracer.start_span("span").end()

    assert (metadata_of(scene, "span"), scene.record("span").user_id) == ({}, "u")
