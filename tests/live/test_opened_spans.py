"""`start_span`: the block, its handle as a target at every moment, and exceptions."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

import otel_metadata as om

pytestmark = pytest.mark.usefixtures("no_detach_errors")


class TestBlock:
    def test_inside_it_is_the_current_span(self, scene):
        """Inside, the span is current; afterwards the one before is."""
        with scene.tracer.start_as_current_span("outer") as outer:
            with om.start_span("inner") as handle:
                assert trace.get_current_span() is handle.span
            assert trace.get_current_span() is outer

        assert scene.parent_name("inner") == "outer"

    def test_everything_that_is_given_is_set(self, scene):
        """Name, kind, type, metadata, tags, input, attributes are on the span."""
        with om.start_span(
            "span",
            as_type="retriever",
            metadata={"a": None},
            tags=["t"],
            input={"q": 1},
            attributes={"plain": 5},
            kind=SpanKind.CLIENT,
        ):
            pass

        record = scene.record("span")
        assert (record.kind, record.metadata, record.tags, record.input) == ("CLIENT", {"a": None}, ("t",), {"q": 1})
        assert record.attributes["plain"] == 5
        assert scene.ended("span").attributes["openinference.span.kind"] == "RETRIEVER"

    def test_input_is_captured_only_when_given(self, scene):
        """Without input= there is none; with input=None there is null."""
        with om.start_span("without"):
            pass
        with om.start_span("null", input=None):
            pass

        assert "input.value" not in scene.ended("without").attributes
        assert scene.ended("null").attributes["input.value"] == "null"

    def test_async_with_is_the_same(self, scene):
        """`async with` opens, makes current and ends."""

        async def main():
            async with om.start_span("outer"):
                await asyncio.sleep(0)
                async with om.start_span("inner"):
                    await asyncio.sleep(0)

        asyncio.run(main())

        assert scene.parent_name("inner") == "outer"

    def test_an_exception_goes_on_and_is_recorded(self, scene):
        """The very exception leaves the block, and the span has it as OpenTelemetry would."""
        error = ValueError("no")
        with pytest.raises(ValueError, match="no") as caught, om.start_span("span"):
            raise error

        span = scene.ended("span")
        assert caught.value is error
        assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "ValueError: no")
        assert [event.attributes["exception.type"] for event in span.events] == ["ValueError"]

    def test_a_span_that_the_application_ends_itself_is_not_ended_twice(self, scene, caplog):
        """Ending the OpenTelemetry span inside the block is fine."""
        with om.start_span("span") as handle:
            handle.span.end()

        assert scene.names() == ["span"]
        assert "ended" not in caplog.text

    def test_the_tracer_can_be_given(self, scene):
        """tracer= opens the span."""
        with om.start_span("span", tracer=scene.tracer):
            pass

        assert scene.ended("span").instrumentation_scope.name == "application"

    def test_leaving_in_another_context_ends_the_span_without_a_log_line(self, scene):
        """A block that is left in another task than it was entered in ends its span and logs nothing."""

        async def main():
            handle = om.start_span("span")
            await asyncio.create_task(handle.__aenter__())
            await asyncio.create_task(handle.__aexit__(None, None, None))

        asyncio.run(main())

        assert scene.names() == ["span"]

    def test_a_block_in_a_generator_that_another_thread_closes_logs_nothing(self, scene):
        """A block around a yield of a generator that is not observed ends its span once, wherever it is closed."""

        def body():
            with om.start_span("span"):
                yield

        made = body()
        contextvars.copy_context().run(next, made)
        thread = threading.Thread(target=made.close)
        thread.start()
        thread.join()

        assert scene.ended("span").attributes["otel_metadata.ended_by"] == "closed"

    def test_an_unsampled_block_works(self, scene):
        """An unsampled span's handle is there, and refuses updates as unsampled."""
        tracer = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False).get_tracer("x")
        with om.start_span("span", tracer=tracer, metadata={"a": 1}) as handle:
            receipt = handle.update(metadata={"a": 1})

        assert (bool(receipt), receipt.reason) == (False, "unsampled")

    def test_without_an_sdk_it_works(self):
        """Without any SDK the block runs, and its handle refuses updates."""
        with om.start_span("span", metadata={"a": 1}, input="x") as handle:
            receipt = handle.update(metadata={"a": 1})

        assert not receipt
        assert not handle.ref

    @pytest.mark.parametrize("as_type", ["bogus", 5])
    def test_an_unknown_type_is_left_out(self, scene, as_type, caplog):
        """A wrong as_type is left out and told: the call is part of a request."""
        with om.start_span("span", as_type=as_type):
            pass

        assert "openinference.span.kind" not in scene.ended("span").attributes
        assert "expected one of agent, chain" in caplog.text


class TestHandle:
    def test_before_the_entry_updates_are_refused(self, scene):
        """A handle that was not entered names nothing."""
        handle = om.start_span("span")
        receipts = [
            handle.update(metadata={"a": 1}),
            handle.score("Quality", score=1),
            handle.annotate("note", text="x"),
            om.update_trace(handle, metadata={"a": 1}),
        ]

        assert [(bool(one), one.reason) for one in receipts] == [(False, "invalid_target")] * 4
        assert handle.span is None

    @pytest.mark.parametrize("state", ["live", "in_flight", "late"])
    def test_an_attribute_that_spells_a_field_is_that_field_at_any_time(self, scene, state):
        """`session.id` and the like mean the same before and after the end; what spells none stays an attribute."""
        attributes = {
            "session.id": "s-1",
            "user.id": "u-1",
            "metadata.plan": {"a": None},
            "metadata": '{"region": "eu"}',
            "input.value": '{"q": 1}',
            "input.mime_type": "application/json",
            "output.value": "yes",
            "tag.tags": ["vip"],
            "http.route": "/ask",
        }
        with om.start_span("span") as handle:
            receipt = handle.update(attributes=attributes) if state == "live" else None
        if state == "late":
            scene.deliver()
        receipt = receipt or handle.update(attributes=attributes)
        assert receipt.route == state

        record = scene.record("span")
        assert (record.session_id, record.user_id) == ("s-1", "u-1")
        assert record.metadata == {"plan": {"a": None}, "region": "eu"}
        assert (record.input, record.output, record.tags) == ({"q": 1}, "yes", ("vip",))
        assert record.attributes == {"http.route": "/ask"}

    def test_an_argument_wins_over_an_attribute_that_spells_it(self, scene):
        """It is what was meant."""
        with om.start_span("span") as handle:
            handle.update(
                attributes={"metadata.k": "attribute", "output.value": "attribute"}, metadata={"k": 1}, output=2
            )

        record = scene.record("span")
        assert (record.metadata, record.output) == ({"k": 1}, 2)

    def test_updates_reach_the_span_live_in_flight_and_late(self, scene):
        """handle.update works at every moment, and all of it is on the span."""
        with om.start_span("span") as handle:
            live = handle.update(metadata={"live": 1, "step": 1}, output="o")
        in_flight = handle.update(metadata={"in_flight": 1, "step": 2})
        scene.deliver()
        late = handle.update(metadata={"late": 1, "step": 3}, tags=["t"])

        assert [one.route for one in (live, in_flight, late)] == ["live", "in_flight", "late"]
        record = scene.record("span")
        assert record.metadata == {"live": 1, "in_flight": 1, "late": 1, "step": 3}
        assert (record.output, record.tags) == ("o", ("t",))

    @pytest.mark.parametrize("moment", ["live", "in_flight", "late"])
    def test_scores_and_annotations_reach_the_span(self, scene, moment):
        """handle.score and handle.annotate work at every moment."""
        with om.start_span("span") as handle:
            if moment == "live":
                receipts = self.judge(handle)
        if moment == "late":
            scene.deliver()
        if moment != "live":
            receipts = self.judge(handle)

        record = scene.record("span")
        assert [one.route for one in receipts] == [moment, moment]
        verdict = record.evaluations["Quality"]
        assert (verdict.score, verdict.label, verdict.explanation, verdict.source, verdict.metadata) == (
            0.5,
            "fair",
            "so so",
            "llm",
            {"model": "m"},
        )
        note = record.annotations[0]
        assert (note.name, note.label, note.score, note.text, note.annotator) == ("mood", "up", 1, "nice", "ada")

    def judge(self, handle):
        return [
            handle.score(
                "Quality", score=0.5, label="fair", explanation="so so", source="llm", metadata={"model": "m"}
            ),
            handle.annotate("mood", label="up", score=1, text="nice", annotator="ada"),
        ]

    def test_the_ref_is_the_span_s(self, scene):
        """handle.ref is current_span_ref() inside, and stays after the end."""
        with om.start_span("span") as handle:
            inside = om.current_span_ref()

        assert handle.ref == inside
        assert handle.ref.span_id_hex == scene.record("span").span_id

    def test_the_repr_tells_the_state(self, scene):
        """new, live, ended."""
        handle = om.start_span("span")
        states = [repr(handle).split()[2]]
        with handle:
            states.append(repr(handle).split()[2])
        states.append(repr(handle).split()[2])

        assert states == ["new", "live", "ended"]

    def test_metadata_given_is_read_once(self, scene):
        """A change of the mapping between the call and the entry has no effect."""
        given = {"a": [1]}
        handle = om.start_span("span", metadata=given, input=given)
        given["a"].append(2)
        with handle:
            pass

        assert (scene.record("span").metadata, scene.record("span").input) == ({"a": [1]}, {"a": [1]})


def test_an_attribute_that_spells_half_a_field_stays_an_attribute(scene):
    """The type of an input without the input, and metadata that is no JSON object."""
    with om.start_span("span") as handle:
        pass
    handle.update(attributes={"output.mime_type": "text/plain", "metadata": "none"})

    record = scene.record("span")
    assert (record.output, record.metadata) == (None, {})
    assert record.attributes == {"output.mime_type": "text/plain", "metadata": "none"}


def test_a_field_takes_the_same_whether_an_attribute_or_an_argument_says_it(scene):
    """What is no session, no tag, no key; and an input that is longer than metadata may be."""
    long = "x" * 40_000
    said = {
        "session.id": 5,
        "user.id": {"a": 1},
        "metadata.": 1,
        "tag.tags": ["vip", "", 3],
        "input.value": f'["{long}"]',
        "input.mime_type": "application/json",
    }
    with om.start_span("by attribute") as handle:
        by_attribute = handle.update(attributes=said)
    with om.start_span("by argument") as handle:
        by_argument = handle.update(metadata={"": 1}, input=[long], tags=["vip", "", 3])

    record = scene.record("by attribute")
    assert (record.session_id, record.user_id, record.tags) == ("5", None, ("vip",))
    assert record.metadata == scene.record("by argument").metadata
    assert record.input == scene.record("by argument").input
    assert set(by_attribute.notes) == {*by_argument.notes, "user_id: got dict; expected a text; it was left out"}


def test_two_attributes_that_come_out_alike_are_one(scene):
    """Keys are cleaned, and two of them may have one name then: the later one is kept, and so is everything else."""
    with om.start_span("span") as handle:
        pass
    handle.update(attributes={**{f"metadata.{chr(0xD800 + number)}": number for number in (1, 2)}, "plain": 3})

    record = scene.record("span")
    assert (record.metadata, record.attributes) == ({"\ufffd": 2}, {"plain": 3})
