"""Observed generators: whose span is current when, and how a generator ends however it is left."""

from __future__ import annotations

import contextvars
import decimal
import gc
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry import baggage, trace
from opentelemetry import context as otel_context
from opentelemetry.trace import StatusCode

import otel_metadata as om

pytestmark = pytest.mark.usefixtures("no_detach_errors")


def current_name() -> str | None:
    """Return the name of the current span, None when there is none."""
    return getattr(trace.get_current_span(), "name", None)


@om.observe
def letters(text="abc"):
    """Yield letters, each beside a span of its own, which is no child of the consumer's."""
    for letter in text:
        with om.start_span(f"step {letter}"):
            pass
        yield letter


class TestCurrentSpan:
    def test_the_consumer_keeps_its_own_current_span(self, scene):
        """Between steps the current span is the consumer's, after each step and after the end."""
        seen = []
        with scene.tracer.start_as_current_span("consumer"):
            made = letters("ab")
            seen.append(current_name())
            for _ in made:
                seen.append(current_name())
            seen.append(current_name())

        assert seen == ["consumer"] * 4

    def test_the_body_has_its_own_current_span_in_every_step(self, scene):
        """In each step of the body the generator's own span is the current one."""

        @om.observe(name="body")
        def body():
            for _ in range(3):
                yield current_name()

        assert list(body()) == ["body"] * 3

    def test_a_span_that_the_consumer_opens_is_no_child_of_the_generator(self, scene):
        """Spans of the consumer are its own children; those of the body are the generator's."""
        with scene.tracer.start_as_current_span("consumer"):
            for letter in letters("ab"):
                with om.start_span(f"used {letter}"):
                    pass

        assert {name: scene.parent_name(name) for name in scene.names()} == {
            "step a": "letters",
            "used a": "consumer",
            "step b": "letters",
            "used b": "consumer",
            "letters": "consumer",
            "consumer": None,
        }

    def test_two_interleaved_generators_have_right_parents(self, scene):
        """Two generators that take turns are both children of the caller, and so are the children of each."""

        @om.observe(name="first")
        def first():
            for number in range(2):
                with om.start_span(f"first {number}"):
                    yield number

        @om.observe(name="second")
        def second():
            for number in range(2):
                with om.start_span(f"second {number}"):
                    yield number

        with scene.tracer.start_as_current_span("caller"):
            assert list(zip(first(), second(), strict=False)) == [(0, 0), (1, 1)]
            assert current_name() == "caller"
        gc.collect()

        assert {name: scene.parent_name(name) for name in scene.names()} == {
            "first 0": "first",
            "second 0": "second",
            "first 1": "first",
            "second 1": "second",
            "first": "caller",
            "second": "caller",
            "caller": None,
        }

    def test_the_parent_is_the_span_that_is_current_at_the_call(self, scene):
        """The caller's span is the parent even when another one is current at the first step."""
        with scene.tracer.start_as_current_span("caller"):
            made = letters("a")
        with scene.tracer.start_as_current_span("consumer"):
            assert list(made) == ["a"]

        assert scene.parent_name("letters") == "caller"

    def test_generators_inside_generators_nest(self, scene):
        """A generator that consumes another is its parent."""

        @om.observe(name="outer")
        def outer():
            yield from letters("a")

        assert list(outer()) == ["a"]
        assert scene.parent_name("letters") == "outer"

    def test_an_update_between_steps_is_the_consumers(self, scene):
        """update_current_span between steps updates the consumer's span, inside a step the generator's."""

        @om.observe(name="body")
        def body():
            om.update_current_span(metadata={"who": "body"})
            yield

        with scene.tracer.start_as_current_span("consumer"):
            for _ in body():
                om.update_current_span(metadata={"who": "consumer"})

        assert scene.record("body").metadata == {"who": "body"}
        assert scene.record("consumer").metadata == {"who": "consumer"}

    def test_each_step_may_run_on_another_thread(self, scene):
        """Steps on different threads see the generator's span, and the threads keep none."""

        @om.observe(name="body")
        def body():
            for _ in range(3):
                yield current_name(), threading.get_ident()

        made = body()
        with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as two:
            steps = [pool.submit(next, made).result() for pool in (one, two, one)]
            left = [pool.submit(current_name).result() for pool in (one, two)]
        assert list(made) == []

        assert [name for name, _ in steps] == ["body"] * 3
        assert len({thread for _, thread in steps}) == 2
        assert left == [None, None]


VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")


class TestOtherContextVariables:
    def test_a_body_and_its_consumer_share_them(self, scene):
        """What the one sets between two steps, the other sees, as in plain Python; only the current span is apart."""

        def body():
            VARIABLE.set("by the body")
            yield VARIABLE.get(), str(decimal.Decimal(1) / 3)
            yield VARIABLE.get(), str(decimal.Decimal(1) / 3)

        def used(make):
            seen = []
            with decimal.localcontext() as context:
                for item in make():
                    seen.append((item, VARIABLE.get(), current_name()))
                    VARIABLE.set("by the consumer")
                    context.prec = 3
            return seen

        runs = [contextvars.copy_context().run(used, make) for make in (body, om.observe(body))]

        assert runs[0] == runs[1]
        assert runs[1][1][0] == ("by the consumer", "0.333")

    def test_a_local_context_around_a_yield_holds_for_the_consumer(self, scene):
        """`decimal.localcontext` in the body rounds for whoever consumes it, and not after its end."""

        def body():
            with decimal.localcontext() as context:
                context.prec = 5
                yield

        for make in (body, om.observe(body)):
            assert [str(decimal.Decimal(1) / 3) for _ in make()] == ["0.33333"]
            assert len(str(decimal.Decimal(1) / 3)) > 20

    def test_baggage_of_the_body_stays_there(self, scene):
        """OpenTelemetry's own Context is kept apart in both directions, baggage included."""

        @om.observe
        def body():
            token = otel_context.attach(baggage.set_baggage("who", "body"))
            yield baggage.get_baggage("who")
            yield baggage.get_baggage("who")
            otel_context.detach(token)

        seen = []
        for who in body():
            seen.append((who, baggage.get_baggage("who")))
            token = otel_context.attach(baggage.set_baggage("who", "consumer"))
        otel_context.detach(token)

        assert seen == [("body", None), ("body", "consumer")]
        otel_context.attach(otel_context.Context())


class TestProtocol:
    def test_a_wrong_call_fails_at_the_call(self, scene):
        """Arguments that do not fit are told where the generator is made, not at its first step."""
        with pytest.raises(TypeError, match="unexpected keyword argument 'txt'"):
            letters(txt="abc")

    @pytest.mark.skipif(sys.version_info < (3, 13), reason="close() returns a value since Python 3.13")
    def test_close_returns_what_the_body_returns(self, scene):
        """A body that ends on close() with a value gives it to whoever closes it."""

        @om.observe(name="body")
        def body():
            try:
                yield 1
            except GeneratorExit:
                return "closed"

        made = body()
        next(made)

        assert made.close() == "closed"
        assert scene.ended("body").attributes["otel_metadata.ended_by"] == "closed"

    def test_values_that_are_sent_reach_the_body(self, scene):
        """send() gives its value to the body and returns what it yields next."""

        @om.observe
        def echo():
            got = None
            while True:
                got = yield got

        made = echo()

        assert [made.send(None), made.send("a"), made.send("b")] == [None, "a", "b"]
        made.close()

    def test_an_exception_that_is_thrown_in_can_be_handled(self, scene):
        """throw() raises in the body at its yield; what the body makes of it comes back, and the span is no error."""

        @om.observe(name="body")
        def body():
            try:
                yield 1
            except KeyError as error:
                yield error

        made, error = body(), KeyError("x")
        next(made)

        assert made.throw(error) is error
        assert list(made) == []
        assert scene.ended("body").status.status_code is StatusCode.UNSET

    def test_an_exception_that_is_thrown_in_and_not_handled_ends_it(self, scene):
        """An exception thrown in and not handled comes out as the same object and is recorded."""
        made, error = letters(), KeyError("x")
        next(made)

        with pytest.raises(KeyError) as caught:
            made.throw(error)

        assert caught.value is error
        assert scene.ended("letters").status.status_code is StatusCode.ERROR

    def test_the_return_value_is_kept(self, scene):
        """`yield from` gets what the body returned."""

        @om.observe
        def body():
            yield 1
            return "done"

        def outer():
            return (yield from body())

        made = outer()
        assert next(made) == 1
        with pytest.raises(StopIteration) as stop:
            next(made)
        assert stop.value.value == "done"

    def test_a_body_that_yields_in_its_cleanup_is_pythons_runtime_error(self, scene):
        """A body that ignores close() raises what Python raises, and goes on after it, as without us."""

        @om.observe(name="body")
        def body():
            try:
                yield 1
            except GeneratorExit:
                yield 2

        made = body()
        next(made)

        with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
            made.close()
        assert scene.names() == []
        assert list(made) == []
        assert scene.names() == ["body"]

    def test_a_generator_that_is_used_up_stays_so(self, scene):
        """After the end, next() raises StopIteration again and again, and no second span ends."""
        made = letters("a")
        assert list(made) == ["a"]

        for _ in range(3):
            with pytest.raises(StopIteration):
                next(made)
        made.close()
        assert scene.names().count("letters") == 1

    def test_the_body_can_clean_up_inside_its_span(self, scene):
        """A finally block runs when the generator is closed, with its span still live and current."""

        @om.observe(name="body")
        def body():
            try:
                yield 1
            finally:
                om.update_current_span(metadata={"cleaned": current_name()})

        made = body()
        next(made)
        made.close()

        assert scene.record("body").metadata == {"cleaned": "body"}


class TestEarlyEnd:
    def assert_closed_once(self, scene, output):
        """Assert that the letters' span ended once, as closed, with partial output, and that none is open."""
        assert scene.names().count("letters") == 1
        span = scene.ended("letters")
        assert span.attributes["otel_metadata.ended_by"] == "closed"
        assert span.status.status_code is StatusCode.UNSET
        assert scene.record("letters").output == output
        assert current_name() is None

    def test_a_break_ends_the_span_with_its_partial_output(self, scene):
        """A consumer that breaks, and drops the generator, ends its span with what was yielded."""
        for letter in letters("abc"):
            if letter == "b":
                break
        gc.collect()

        self.assert_closed_once(scene, "ab")

    def test_a_close_ends_the_span(self, scene):
        """close() ends the span; a second close does nothing."""
        made = letters("abc")
        next(made)
        made.close()
        made.close()

        self.assert_closed_once(scene, "a")

    def test_a_close_from_another_thread_ends_the_span(self, scene):
        """close() on another thread ends the span once and logs nothing."""
        made = letters("abc")
        next(made)
        thread = threading.Thread(target=made.close)
        thread.start()
        thread.join()

        self.assert_closed_once(scene, "a")

    def test_a_close_inside_another_span_leaves_that_current(self, scene):
        """Closing within another span leaves that span current."""
        made = letters("abc")
        next(made)
        with scene.tracer.start_as_current_span("other"):
            made.close()
            assert current_name() == "other"

        self.assert_closed_once(scene, "a")

    def test_garbage_collection_ends_the_span(self, scene):
        """A generator that is dropped half way is ended by the collector, also out of a cycle."""
        cycle = [letters("abc")]
        next(cycle[0])
        cycle.append(cycle)
        del cycle
        gc.collect()

        self.assert_closed_once(scene, "a")

    def test_garbage_collection_on_another_thread_ends_the_span(self, scene):
        """A generator whose last reference another thread drops is ended there."""
        held = [letters("abc")]
        next(held[0])
        thread = threading.Thread(target=held.clear)
        thread.start()
        thread.join()
        gc.collect()

        self.assert_closed_once(scene, "a")

    def test_a_generator_that_is_never_started_makes_no_span(self, scene):
        """Calling, closing and dropping without a first step leaves nothing behind."""
        letters("abc").close()
        letters("abc")
        gc.collect()

        assert scene.names() == []

    def test_a_consumer_that_fails_leaves_the_generator_closed_and_no_error(self, scene):
        """The consumer's own exception is not the generator's: its span is closed, not failed."""
        with pytest.raises(ZeroDivisionError), scene.tracer.start_as_current_span("consumer"):
            for _ in letters("abc"):
                1 / 0  # noqa: B018
        gc.collect()

        self.assert_closed_once(scene, "a")

    def test_partial_output_is_kept_when_the_body_fails(self, scene):
        """What was yielded before the body failed is the output."""

        @om.observe(name="body")
        def body():
            yield "a"
            yield "b"
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            list(body())

        assert scene.record("body").output == "ab"


class TestOutput:
    def test_texts_are_joined(self, scene):
        """The output of a generator of texts is one text."""
        assert list(letters("abc")) == ["a", "b", "c"]
        assert scene.record("letters").output == "abc"

    def test_other_items_are_a_list(self, scene):
        """The output of a generator of other values is a list."""

        @om.observe(name="items")
        def items():
            yield {"a": 1}
            yield None
            yield "text"

        list(items())

        assert scene.record("items").output == [{"a": 1}, None, "text"]

    def test_of_a_generator_that_yields_nothing_the_return_value_is_kept(self, scene):
        """Without an item the return value is the output."""

        @om.observe(name="body")
        def body():
            return "done"
            yield

        assert list(body()) == []
        assert scene.record("body").output == "done"

    def test_output_is_bounded(self, scene):
        """Of an endless generator the first items are kept and the number of the others is told."""

        @om.observe(name="body")
        def body():
            yield from range(1_005)

        assert sum(1 for _ in body()) == 1_005

        output = scene.record("body").output
        assert len(output) == 1_001
        assert output[-1] == "<5 more>"

    def test_output_is_bounded_in_bytes(self, scene):
        """Large items that are no texts are not all kept alive until the end: of 200 MiB at most a few are."""

        class Chunk(bytearray):
            __hash__ = object.__hash__
            __eq__ = object.__eq__

        alive = weakref.WeakSet()

        @om.observe(name="body")
        def body():
            for _ in range(200):
                chunk = Chunk(1 << 20)
                alive.add(chunk)
                yield chunk

        most = 0
        for _ in body():
            most = max(most, len(alive))

        assert most <= 16

    def test_process_output_gets_all_items(self, scene):
        """process_output is called once at the end, with what was yielded."""

        @om.observe(name="body", process_output=len)
        def body():
            yield 1
            yield 2

        list(body())

        assert scene.record("body").output == 2

    def test_items_are_the_same_objects(self, scene):
        """The consumer gets the very objects that the body yielded."""
        items = [object(), {}, []]

        @om.observe
        def body():
            yield from items

        assert all(got is given for got, given in zip(body(), items, strict=True))

    def test_an_item_the_consumer_changes_is_captured_as_it_was_yielded_or_later_but_never_breaks(self, scene):
        """An item that the consumer changes while the generator runs does no harm."""

        @om.observe(name="body")
        def body():
            yield {"a": 1}
            yield {"b": 2}

        for item in body():
            item.clear()

        assert isinstance(scene.record("body").output, list)

    def test_without_capture_items_are_not_kept_alive(self, scene):
        """With capture_output=False nothing holds on to an item that was two steps ago."""

        class Item: ...

        alive = []

        @om.observe(capture_output=False)
        def body():
            item = Item()
            alive.append(weakref.ref(item))
            yield item
            del item
            yield None
            gc.collect()
            yield alive[0]() is None

        made = body()
        next(made)
        next(made)

        assert next(made)
        made.close()
