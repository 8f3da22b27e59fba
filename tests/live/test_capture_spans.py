"""`capture_spans`: which spans it holds, how the LLM call among them is found, and what an empty one does."""

from __future__ import annotations

import asyncio
import threading

import pytest
from opentelemetry import context as otel_context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

import otel_metadata as om

pytestmark = pytest.mark.usefixtures("no_detach_errors")


def names(captured) -> list[str]:
    return [span.name for span in captured.all]


class TestWhatIsCaptured:
    def test_every_span_that_starts_inside_is_captured_in_order(self, scene):
        """Spans of plain OpenTelemetry and ours, current or not, are held in the order of their starts."""
        with om.capture_spans() as captured:
            first = scene.tracer.start_span("never current")
            with om.start_span("ours"):
                om.observe(name="observed")(lambda: None)()
            first.end()

        assert names(captured) == ["never current", "ours", "observed"]

    def test_spans_outside_are_not_captured(self, scene):
        """Spans that start before the entry or after the exit are not held."""
        scene.tracer.start_span("before").end()
        with om.capture_spans() as captured:
            scene.tracer.start_span("inside").end()
        scene.tracer.start_span("after").end()

        assert names(captured) == ["inside"]

    def test_a_closed_capture_takes_nothing_more(self, scene):
        """After its exit, a span that starts in a context that still carries the capture is not taken."""
        with om.capture_spans() as captured:
            held = otel_context.get_current()
        scene.tracer.start_span("late", context=held).end()

        assert names(captured) == []

    def test_nested_captures_both_hold(self, scene):
        """A span inside two captures is in both; the outer one goes on after the inner one."""
        with om.capture_spans() as outer:
            scene.tracer.start_span("first").end()
            with om.capture_spans() as inner:
                scene.tracer.start_span("second").end()
            scene.tracer.start_span("third").end()

        assert (names(outer), names(inner)) == (["first", "second", "third"], ["second"])

    def test_a_capture_inside_using_metadata_keeps_both(self, scene):
        """Captures and bound metadata do not displace each other, in either order."""
        with om.using_metadata({"a": 1}), om.capture_spans() as captured, om.using_metadata({"b": 2}):
            scene.tracer.start_span("span").end()

        assert names(captured) == ["span"]
        assert scene.record("span").metadata == {"a": 1, "b": 2}

    def test_async_with_and_tasks(self, scene):
        """In a task, `async with` captures what the task and its children start."""

        async def child():
            scene.tracer.start_span("child").end()

        async def main():
            async with om.capture_spans() as captured:
                await asyncio.create_task(child())
            return captured

        assert names(asyncio.run(main())) == ["child"]

    def test_two_tasks_at_once_capture_their_own(self, scene):
        """Captures of concurrent tasks do not mix."""

        async def work(number):
            with om.capture_spans() as captured:
                await asyncio.sleep(0)
                scene.tracer.start_span(f"span {number}").end()
                await asyncio.sleep(0)
            return names(captured)

        async def main():
            return await asyncio.gather(*(work(number) for number in range(20)))

        assert asyncio.run(main()) == [[f"span {number}"] for number in range(20)]

    def test_a_thread_that_inherits_the_context_adds_to_it(self, scene):
        """A thread that was given OpenTelemetry's context adds its spans."""
        with om.capture_spans() as captured:
            context = otel_context.get_current()
            thread = threading.Thread(target=lambda: scene.tracer.start_span("thread", context=context).end())
            thread.start()
            thread.join()

        assert names(captured) == ["thread"]

    def test_an_unsampled_span_is_captured_and_refuses_updates(self, scene):
        """A span of a sampler that drops is not seen by processors: the capture stays empty and refuses."""
        tracer = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False).get_tracer("x")
        with om.capture_spans() as captured, tracer.start_as_current_span("unsampled"):
            pass

        assert names(captured) == []
        assert not om.update_span(captured.last, metadata={"a": 1})

    def test_a_captured_span_names_its_span(self, scene):
        """ref, name and scope_name are those of the span as it started."""
        with om.capture_spans() as captured, scene.tracer.start_as_current_span("span") as span:
            span.update_name("renamed")

        context = span.get_span_context()
        one = captured.last
        assert (one.ref.key, one.name, one.scope_name) == ((context.trace_id, context.span_id), "span", "application")
        assert bool(one)

    def test_a_long_capture_is_bounded(self, scene):
        """Of more than 10,000 spans the first and the latest are held."""
        with om.capture_spans() as captured:
            for number in range(10_002):
                scene.tracer.start_span(f"span {number}").end()

        assert len(captured.all) == 10_000
        assert (captured.all[0].name, captured.last.name) == ("span 0", "span 10001")

    def test_all_is_a_snapshot(self, scene):
        """What .all returned does not change when more spans start."""
        with om.capture_spans() as captured:
            before = captured.all
            scene.tracer.start_span("span").end()

        assert (before, len(captured.all)) == ((), 1)


class TestLlm:
    def test_the_llm_call_is_found_by_attributes_that_come_at_the_end(self, scene):
        """A span whose gen_ai attributes are set just before its end is the LLM call."""
        with om.capture_spans() as captured:
            with scene.tracer.start_as_current_span("chat") as span:
                span.set_attribute("gen_ai.request.model", "gpt")
            scene.tracer.start_span("other").end()

        assert (captured.llm.name, captured.last.name) == ("chat", "other")

    @pytest.mark.parametrize(
        ("scope", "attributes"),
        [
            ("any", {"gen_ai.operation.name": "chat"}),
            ("any", {"gen_ai.system": "openai"}),
            ("any", {"gen_ai.provider.name": "openai"}),
            ("any", {"openinference.span.kind": "LLM"}),
            ("openinference.instrumentation.openai", {}),
            ("opentelemetry.instrumentation.openai.v1", {}),
            ("opentelemetry.instrumentation.openai_v2", {}),
            ("opentelemetry.util.genai.handler", {}),
        ],
    )
    def test_the_llm_call_is_found_by_scope_and_by_start_attributes(self, scene, scope, attributes):
        """Scopes and attributes of the known instrumentors tell at the start."""
        tracer = scene.pipeline.provider.get_tracer(scope)
        with om.capture_spans() as captured:
            span = tracer.start_span("chat", attributes=attributes)
            during = captured.llm.name
            span.end()

        assert during == "chat"

    def test_another_openinference_kind_is_no_llm_call(self, scene):
        """A span that says it is a chain is none, whatever its scope."""
        tracer = scene.pipeline.provider.get_tracer("openinference.instrumentation.openai")
        with om.capture_spans() as captured:
            tracer.start_span("chain", attributes={"openinference.span.kind": "CHAIN"}).end()

        assert not captured.llm

    def test_our_own_generation_is_one(self, scene):
        """observe(as_type="generation") and start_span(as_type="llm") are LLM calls."""
        with om.capture_spans() as captured:
            with om.start_span("by hand", as_type="llm"):
                pass
            om.observe(name="observed", as_type="generation")(lambda: None)()

        assert captured.llm.name == "observed"

    def test_the_last_of_several_is_taken(self, scene):
        """.llm is the LLM call that started last."""
        with om.capture_spans() as captured:
            for number in range(3):
                with om.start_span(f"call {number}", as_type="llm"):
                    pass
            scene.tracer.start_span("other").end()

        assert captured.llm.name == "call 2"

    def test_of_spans_about_one_call_the_outermost_is_taken(self, scene):
        """A client's own span inside the instrumentor's, also with another span between them, is not meant."""
        with om.capture_spans() as captured, scene.tracer.start_as_current_span("agent"):
            for number in range(2):
                with om.start_span(f"instrumentor {number}", as_type="llm"), scene.tracer.start_as_current_span("http"):
                    om.start_span(f"client {number}", as_type="llm").__enter__().span.end()
                    during = captured.llm.name
                assert (during, captured.llm.name) == (f"instrumentor {number}",) * 2

    def test_the_outermost_is_found_by_attributes_that_come_at_the_end(self, scene):
        """An instrumentor may say only at the end what its span was."""
        with om.capture_spans() as captured, scene.tracer.start_as_current_span("instrumentor") as outer:
            with om.start_span("client", as_type="llm"):
                pass
            assert captured.llm.name == "client"
            outer.set_attribute("gen_ai.operation.name", "chat")

        assert captured.llm.name == "instrumentor"

    def test_a_span_outside_of_the_capture_is_not_taken(self, scene):
        """Nor is one that the filter did not want."""
        with om.capture_spans() as around, om.start_span("outer", as_type="llm"), om.capture_spans() as inside:
            filtered = om.capture_spans(lambda span: span.name == "inner")
            with filtered, om.start_span("wrap", as_type="llm"), om.start_span("inner", as_type="llm"):
                pass

        assert [one.llm.name for one in (around, inside, filtered)] == ["outer", "wrap", "inner"]

    @pytest.mark.parametrize(("ends_before", "expected"), [(False, "instrumentor"), (True, "client")])
    def test_a_client_beside_its_instrumentors_span(self, scene, ends_before, expected):
        """An instrumentor that does not make its span current has the client's own beside it, while it lives."""
        client = scene.pipeline.provider.get_tracer("com.anthropic.sdk.python")
        with om.capture_spans() as captured, scene.tracer.start_as_current_span("caller"):
            instrumentor = scene.tracer.start_span("instrumentor", attributes={"openinference.span.kind": "LLM"})
            instrumentor.end() if ends_before else None
            client.start_span("client").end()
            instrumentor.end() if not ends_before else None

        assert captured.llm.name == expected

    @pytest.mark.parametrize(
        "attributes",
        [
            {"gen_ai.operation.name": "invoke_agent", "gen_ai.request.model": "gpt"},
            {"gen_ai.operation.name": "execute_tool"},
            {"gen_ai.operation.name": "create_agent", "gen_ai.provider.name": "openai"},
            {"gen_ai.operation.name": "embeddings", "gen_ai.system": "openai"},
            {"traceloop.span.kind": "workflow", "gen_ai.system": "openai"},
            {"openinference.span.kind": "AGENT", "gen_ai.system": "openai"},
        ],
    )
    def test_what_is_around_calls_is_no_call(self, scene, attributes):
        """An agent, a workflow, a tool: the last call in it is meant."""
        with om.capture_spans() as captured, scene.tracer.start_as_current_span("around", attributes=attributes):
            for number in range(2):
                with om.start_span(f"call {number}", as_type="llm"):
                    pass

        assert captured.llm.name == "call 1"

    def test_a_span_that_ends_after_the_capture_is_still_judged(self, scene):
        """A stream that ends after the block has its attributes by then, and is found."""
        with om.capture_spans() as captured:
            span = scene.tracer.start_span("stream")
        assert not captured.llm
        span.set_attribute("gen_ai.system", "openai")
        span.end()

        assert captured.llm.name == "stream"


class TestEmpty:
    def test_last_and_llm_are_never_none_and_refuse(self, scene):
        """An empty capture's .last and .llm are false targets that refuse every kind of update."""
        with om.capture_spans() as captured:
            pass

        for target in (captured.last, captured.llm):
            assert target is not None
            assert not target
            receipts = [
                om.update_span(target, metadata={"a": 1}),
                om.update_trace(target, metadata={"a": 1}),
                om.score_span(target, "Quality", score=1),
                om.annotate_span(target, "note", text="x"),
            ]
            assert [(bool(one), one.reason) for one in receipts] == [(False, "invalid_target")] * 4

    def test_the_repr_of_an_empty_one_is_readable(self):
        """A status line, not an error."""
        assert repr(om.capture_spans().last) == "<CapturedSpan none>"


class TestMatch:
    def test_only_spans_that_match_are_held(self, scene):
        """match decides by the span that starts."""
        with om.capture_spans(match=lambda span: span.name.startswith("a")) as captured:
            for name in ("ab", "bc", "ac"):
                scene.tracer.start_span(name).end()

        assert names(captured) == ["ab", "ac"]

    def test_a_match_that_raises_captures_nothing_and_is_logged(self, scene):
        """If match raises, the span goes on and is not captured."""

        def match(span):
            raise ValueError("no")

        with om.capture_spans(match=match) as captured:
            scene.tracer.start_span("span").end()

        assert names(captured) == []
        assert scene.record("span").name == "span"

    def test_a_match_of_one_capture_says_nothing_about_the_other(self, scene):
        """Nested captures filter by themselves."""
        with om.capture_spans(match=lambda _: False) as outer, om.capture_spans() as inner:
            scene.tracer.start_span("span").end()

        assert (names(outer), names(inner)) == ([], ["span"])

    def test_an_outer_capture_that_takes_keeps_the_late_judgement(self, scene):
        """A span that only one of two captures takes is still judged at its end."""
        with om.capture_spans() as outer, om.capture_spans(match=lambda _: False):
            span = scene.tracer.start_span("chat")
            span.set_attribute("gen_ai.system", "x")
            span.end()

        assert outer.llm.name == "chat"


class TestTargets:
    def test_a_captured_span_is_updated_live_in_flight_and_late(self, scene):
        """A captured span that is never current can be updated at every moment of its life."""
        with om.capture_spans() as captured:
            span = scene.tracer.start_span("span")
        live = om.update_span(captured.last, metadata={"live": True})
        span.end()
        in_flight = om.update_span(captured.last, metadata={"in_flight": True})
        scene.deliver()
        late = om.update_span(captured.last, metadata={"late": True})

        assert [one.route for one in (live, in_flight, late)] == ["live", "in_flight", "late"]
        assert scene.record("span").metadata == {"live": True, "in_flight": True, "late": True}

    def test_a_capture_holds_no_span_alive(self, scene):
        """What is captured is names: the span object itself can be collected."""
        import gc
        import weakref

        with om.capture_spans() as captured:
            span = scene.tracer.start_span("span")
            weak = weakref.ref(span)
            span.end()
        scene.deliver()
        scene.beside.spans.clear()
        scene.sent.spans.clear()
        del span
        gc.collect()

        assert weak() is None
        assert names(captured) == ["span"]
