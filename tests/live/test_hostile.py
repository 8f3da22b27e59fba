"""Hostile values on every way in: nothing raises into the application, results are unchanged, every sibling arrives.

As in production a failure of ours would be swallowed here; each test still fails when one was counted.
"""

from __future__ import annotations

import asyncio
import random
import threading
import uuid
from collections.abc import Callable
from types import AsyncGeneratorType, BuiltinFunctionType, CoroutineType, FunctionType, GeneratorType, MethodType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from tests import strategies as own

import otel_metadata as om

pytestmark = pytest.mark.usefixtures("_as_in_production")

EXAMPLES = 250


def prove(scene: Any, examples: st.SearchStrategy[Any], act: Callable[[Any], object], count: int = EXAMPLES) -> None:
    """Call *act* with each example inside one span, and assert that this span, and one beside it, arrive.

    Args:
        scene: The pipeline.
        examples: What to call with.
        act: Does something hostile; must not raise.
        count: Half the number of examples.
    """
    tried = []

    @settings(
        max_examples=own.examples(2 * count),  # together about 29,000 hostile values, in about 6,000 examples
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
    )
    @given(examples)
    def each(example: Any) -> None:
        # Hypothesis seeds the generator that OpenTelemetry draws its ids from: each example would get the same ids.
        random.seed(len(tried), version=2)
        tried.append(1)
        with scene.tracer.start_as_current_span("around"):
            act(example)
        scene.tracer.start_span("sibling").end()
        assert scene.pipeline.deliver()
        assert trace.get_current_span() is trace.INVALID_SPAN
        assert len(scene.sent.spans) == len(scene.beside.spans)

    each()
    names = [record.name for record in scene.pipeline.records()]
    assert names.count("sibling") == len(tried)
    assert len(names) == len(scene.beside.spans)
    assert scene.pipeline.stats().destinations["store"].spans_failed == 0
    scene.beside.spans.clear()


makes = own.hostile_values(max_leaves=4)


def made(make: own.Make) -> Any:
    return make()


def assert_same(got: object, value: object) -> None:
    """Assert that a result is the very object; of one that goes on after the call, one of its kind stands for it."""
    if any(type(value) is kind for kind in (GeneratorType, AsyncGeneratorType, CoroutineType)):
        assert type(got) is type(value)
    else:
        assert got is value


class TestCalls:
    def test_arguments_and_results_of_functions(self, scene):
        """A function gets the very arguments, and its caller the very result, whatever they are."""

        @om.observe(name="call")
        def call(*args, **kwargs):
            return args[0], kwargs

        @om.observe(name="identity")
        def identity(value):
            return value

        def act(make):
            value = make()
            got, rest = call(value, key=value)
            assert got is value
            assert rest["key"] is value
            assert_same(identity(value), value)

        prove(scene, makes, act)

    def test_results_of_coroutines(self, scene):
        """The same for coroutine functions."""

        @om.observe(name="identity")
        async def identity(value):
            await asyncio.sleep(0)
            return value

        loop = asyncio.new_event_loop()

        def act(make):
            value = make()
            got = []

            async def main():
                # Not returned: the event loop itself would look at the value.
                got.append(await identity(value))

            loop.run_until_complete(main())
            assert_same(got[0], value)

        prove(scene, makes, act, 150)
        loop.close()

    def test_items_of_generators(self, scene):
        """The items, the values sent and the return value of a generator are the very objects."""

        @om.observe(name="items")
        def items(value):
            sent = yield value
            assert sent is value
            return value

        def act(make):
            value = make()
            generator = items(value)
            assert next(generator) is value
            with pytest.raises(StopIteration) as stop:
                generator.send(value)
            # StopIteration takes a tuple apart, with us and without.
            assert type(value) is tuple or stop.value.value is value

        prove(scene, makes.filter(lambda make: type(make()) is not tuple), act)

    def test_exceptions_with_hostile_arguments(self, scene):
        """An exception made of hostile values reaches the caller as it is."""

        @om.observe(name="raises")
        def raises(error):
            raise error

        def act(make):
            error = ValueError(make())
            with pytest.raises(ValueError) as caught:
                raises(error)
            assert caught.value is error

        prove(scene, makes, act)

    def test_hooks_that_return_hostile_values(self, scene):
        """process_input and process_output may answer anything."""
        held = []

        @om.observe(name="call", process_input=lambda _: held[0], process_output=lambda _: held[0])
        def call(value):
            return value

        def act(make):
            held[:] = [make()]
            assert call(5) == 5

        prove(scene, makes, act, 150)


class TestUpdates:
    def test_metadata_and_attributes(self, scene):
        """Hostile values under metadata and attribute keys are taken."""

        def act(make):
            assert om.update_current_span(metadata={"k": make(), "deep": {"k": [make()]}}, attributes={"a": make()})
            assert om.update_current_trace(metadata={"k": make()})

        prove(scene, makes, act)

    def test_hostile_keys(self, scene):
        """Hostile keys become text, and never raise."""

        def act(make):
            key = make()
            try:
                given = {key: 1, "good": 2}
            except Exception:
                return  # not hashable: no dict can have it
            assert om.update_current_span(metadata=given, attributes=given)

        prove(scene, makes, act, 150)

    def test_every_argument_is_hostile(self, scene):
        """Each argument of each call may be anything: the answer is a receipt."""

        def act(make):
            receipts = [
                om.update_current_span(metadata=make(), attributes=make()),
                om.update_current_span(input=make(), output=make()),
                om.update_current_span(name=make(), tags=make()),
                om.update_current_span(tags=[make(), "good"]),
                om.update_current_span(status=make(), status_message=make()),
                om.update_current_trace(
                    metadata=make(), name=make(), user_id=make(), session_id=make(), tags=make(), input=make()
                ),
            ]
            assert all(type(receipt) is om.Receipt for receipt in receipts)

        prove(scene, makes, act, 300)

    def test_every_part_of_a_verdict_is_hostile(self, scene):
        """Each part of an evaluation or annotation may be anything."""

        def act(make):
            receipts = [
                om.score_current_span(make(), score=make(), label=make(), explanation=make()),
                om.score_current_span("q", source=make(), metadata=make()),
                om.score_span(om.current_span_ref(), "q", score=1, level=make()),
                om.annotate_current_span(make(), label=make(), score=make(), text=make(), annotator=make()),
            ]
            assert all(type(receipt) is om.Receipt for receipt in receipts)

        prove(scene, makes, act, 300)

    def test_hostile_targets(self, scene):
        """Each call with a target takes anything for one, and refuses what names no span or trace."""

        def act(make):
            receipts = [
                om.update_span(make(), metadata={"a": 1}),
                om.update_trace(make(), metadata={"a": 1}),
                om.score_span(make(), "q", score=1),
                om.score_span(make(), "q", score=1, level="trace"),
                om.annotate_span(make(), "n", text="x"),
            ]
            # A number above 0 is the id of a trace, a UUID too.
            names_trace = any(type(made(make)) is kind for kind in (int, uuid.UUID)) and int(made(make)) > 0
            of_spans = [receipts[0], receipts[2], receipts[4], *(() if names_trace else (receipts[1], receipts[3]))]
            assert {(bool(one), one.reason) for one in of_spans} == {(False, "invalid_target")}

        prove(scene, makes, act, 150)


class TestOpening:
    def test_using_metadata(self, scene):
        """Hostile bound metadata, user, session and tags reach spans cleaned, and never raise."""

        def act(make):
            with om.using_metadata({"k": make()}, user_id=make(), session_id=make(), tags=make()):
                scene.tracer.start_span("inside").end()
            metadata = make()
            # What `@using_metadata` without parentheses hands over is refused where it is written.
            decorated = issubclass(type(metadata), type | FunctionType | BuiltinFunctionType | MethodType)
            with om.using_metadata(None if decorated else metadata):
                scene.tracer.start_span("inside").end()

        prove(scene, makes, act, 150)

    def test_start_span(self, scene):
        """Hostile arguments of start_span never raise."""

        def act(make):
            with om.start_span("block", metadata={"k": make()}, input=make(), attributes={"a": make()}) as handle:
                handle.update(metadata=make(), output=make())
            with om.start_span("block", metadata=make(), tags=make(), attributes=make()):
                pass

        prove(scene, makes, act, 150)

    def test_names_of_spans(self, scene):
        """A hostile name of a span does not lose its siblings."""

        def act(make):
            with om.start_span(make()):
                pass

        prove(scene, makes, act, 150)

    def test_texts_as_names_of_spans(self, scene):
        """Any text is a name, with lone surrogates and NUL too: the span arrives."""

        def act(text):
            with om.start_span(text), scene.tracer.start_as_current_span(text) as plain:
                plain.add_event(text, {text or "k": text})

        prove(scene, st.text(st.characters(), max_size=5) | st.just("\ud800") | st.just("\0"), act, 150)

    def test_hostile_masks(self, scene, use_settings):
        """A mask may answer anything."""
        held = []
        use_settings(mask=lambda path, value: held[0]())

        def act(make):
            held[:] = [make]
            om.update_current_span(metadata={"k": 1}, tags=["t"], output="o", status="ok", name="new")
            om.score_current_span("q", score=1)
            om.annotate_current_span("n", text="x")
            om.observe(name="call")(lambda value: value)(5)

        prove(scene, makes, act, 150)

    def test_a_bad_argument_leaves_the_others_alone(self, scene):
        """Of start_span and using_metadata, what is good is set though another argument cannot be read."""
        bad = own.Raises()
        with om.using_metadata({"bound": 1}, tags=bad), om.start_span("span", metadata={"own": 1}, tags=bad):
            pass

        assert scene.record("span").metadata == {"bound": 1, "own": 1}


class TestRightValues:
    """Values that are no JSON and yet meant well come out in their JSON form, live and in the store."""

    @pytest.mark.parametrize(
        ("value", "stored"),
        [
            (float("nan"), "NaN"),
            (float("-inf"), "-Infinity"),
            (1 << 64, str(1 << 64)),
            ("a\ud800b", "a\ufffdb"),
            ("a\0b", "a\ufffdb"),
            (b"text", "text"),
            ({3, 1, 2}, [1, 2, 3]),
            ((1, "a"), [1, "a"]),
            ({1: "a"}, {"1": "a"}),
        ],
        ids=ascii,
    )
    def test_it_is_stored_in_its_json_form(self, scene, value, stored):
        """The store has the JSON form of the value."""
        with scene.tracer.start_as_current_span("span"):
            assert om.update_current_span(metadata={"k": value}, output=value)

        record = scene.record("span")
        assert (record.metadata["k"], record.output) == (stored, stored)

    def test_a_huge_integer_is_marked_and_fast(self, scene):
        """10**5000 is not written out."""
        with scene.tracer.start_as_current_span("span"):
            receipt = om.update_current_span(metadata={"k": 10**5000})

        assert scene.record("span").metadata["k"].startswith("<integer of")
        assert receipt.notes

    def test_a_cycle_is_cut(self, scene):
        """A value that holds itself is cut where it does."""
        cycle: dict[str, Any] = {"a": 1}
        cycle["self"] = cycle
        with scene.tracer.start_as_current_span("span"):
            assert om.update_current_span(metadata={"k": cycle}).notes

        assert scene.record("span").metadata["k"] == {"a": 1, "self": "<cycle>"}

    def test_a_depth_of_a_hundred_thousand_is_cut(self, scene):
        """Nesting beyond 16 levels is cut, without a recursion error, in update, argument and result."""
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        with scene.tracer.start_as_current_span("span"):
            assert om.update_current_span(metadata={"k": deep})
            assert om.observe(name="call")(lambda value: value)(deep) is deep

        assert "<too deep>" in repr(scene.record("span").metadata["k"])
        assert "<too deep>" in repr(scene.record("call").output)


def test_values_that_another_thread_changes_while_they_are_read(scene):
    """Dicts and lists that grow and shrink on another thread meanwhile never raise, and every span arrives."""
    shared: dict[str, Any] = {"list": [], "dict": {}}
    stop = threading.Event()

    def change() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            shared[f"k{number % 50}"] = number
            shared.pop(f"k{(number + 25) % 50}", None)
            shared["list"].append(number)
            shared["dict"][number % 70] = {"n": number}
            if number % 100 == 0:
                shared["list"].clear()
                shared["dict"].clear()

    @om.observe(name="call")
    def call(value):
        om.update_current_span(metadata=value, attributes={"nested": value})
        om.update_current_span(metadata=value["dict"])
        return value

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(300):
            assert call(shared) is shared
    finally:
        stop.set()
        thread.join()

    scene.deliver()
    assert [record.name for record in scene.pipeline.records()] == ["call"] * 300
