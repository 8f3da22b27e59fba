"""Updates of live spans, mostly of plain OpenTelemetry ones: canonical attributes, status, tags, the trace level."""

from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags

import otel_metadata as om

pytestmark = pytest.mark.usefixtures("no_detach_errors")


def attributes_after(scene, *updates, **start):
    """Open a plain OpenTelemetry span, apply updates of the current span in it, return its live attributes."""
    with scene.tracer.start_as_current_span("span", **start):
        for update in updates:
            assert om.update_current_span(**update)
    return dict(scene.ended("span").attributes)


class TestCanonicalAttributes:
    @pytest.mark.parametrize(
        "value",
        ["text", "", "null", True, False, 0, 5, -(1 << 63), 0.5, ["a", "b"], [1, 2], [0.5], [True], []],
        ids=repr,
    )
    def test_scalars_and_lists_of_one_type_are_native(self, scene, value):
        """A scalar, or a list of one scalar type, is the attribute itself, and is not listed as JSON."""
        attributes = attributes_after(scene, {"metadata": {"key": value}})

        expected = tuple(value) if isinstance(value, list) else value
        assert attributes == {"metadata.key": expected}
        assert type(attributes["metadata.key"]) is type(expected)

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (None, "null"),
            ({}, "{}"),
            ({"b": 1, "a": None}, '{"a":null,"b":1}'),
            ([1, "a"], '[1,"a"]'),
            ([1, 2.5], "[1,2.5]"),
            ([True, 1], "[true,1]"),
            ([None], "[null]"),
            ([[1]], "[[1]]"),
        ],
        ids=repr,
    )
    def test_everything_else_is_json_text_and_listed(self, scene, value, text):
        """A null, dict, nested or mixed list is JSON text, and its name is listed in otel_metadata.json."""
        attributes = attributes_after(scene, {"metadata": {"key": value}})

        assert attributes == {"metadata.key": text, "otel_metadata.json": ("metadata.key",)}
        assert scene.record("span").metadata == {"key": value}

    def test_the_whole_span_level(self, scene):
        """Every argument of update_current_span has its canonical attribute, or its part of the span."""
        attributes = attributes_after(
            scene,
            {
                "metadata": {"a": 1},
                "attributes": {"plain": 5, "nested": {"x": None}},
                "name": "span",
                "input": {"q": 1},
                "output": "answer",
                "tags": ["t"],
                "status": "error",
                "status_message": "why",
            },
        )

        span = scene.ended("span")
        assert attributes == {
            "metadata.a": 1,
            "plain": 5,
            "nested": '{"x":null}',
            "input.value": '{"q":1}',
            "input.mime_type": "application/json",
            "output.value": "answer",
            "output.mime_type": "text/plain",
            "tag.tags": ("t",),
            "otel_metadata.json": ("nested",),
        }
        assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "why")

    def test_the_whole_trace_level(self, scene):
        """Every argument of update_current_trace has its canonical attribute on the local root."""
        with scene.tracer.start_as_current_span("span"):
            assert om.update_current_trace(
                metadata={"a": 1, "n": None}, name="job", user_id="u", session_id="s", tags=["t"], input="i", output=[1]
            )

        attributes = dict(scene.ended("span").attributes)
        assert {name: attributes[name] for name in attributes if "input" not in name and "output" not in name} == {
            "trace.metadata.a": 1,
            "trace.metadata.n": "null",
            "trace.name": "job",
            "user.id": "u",
            "session.id": "s",
            "trace.tags": ("t",),
            "otel_metadata.json": ("trace.metadata.n",),
        }
        record = scene.record("span")
        assert (record.trace_metadata, record.trace_name) == ({"a": 1, "n": None}, "job")
        assert (record.user_id, record.session_id, record.trace_tags) == ("u", "s", ("t",))
        assert (record.metadata, record.input, record.output) == ({}, None, None)

    def test_an_evaluation(self, scene):
        """A score is eval.<name>.label, .score, .explanation, and nothing for what was not given."""
        with scene.tracer.start_as_current_span("span"):
            om.score_current_span("Correctness", score=1.0, label="correct", explanation="yes")
            om.score_current_span("Speed", score=0)

        attributes = dict(scene.ended("span").attributes)
        assert {name: value for name, value in attributes.items() if not name.endswith(".source")} == {
            "eval.Correctness.label": "correct",
            "eval.Correctness.score": 1.0,
            "eval.Correctness.explanation": "yes",
            "eval.Speed.score": 0,
        }

    def test_an_annotation(self, scene):
        """A note is annotation.<name>.label, .score, .text."""
        with scene.tracer.start_as_current_span("span"):
            om.annotate_current_span("mood", label="up", score=1, text="nice", annotator="ada")

        attributes = dict(scene.ended("span").attributes)
        assert {name: value for name, value in attributes.items() if not name.endswith(".annotator")} == {
            "annotation.mood.label": "up",
            "annotation.mood.score": 1,
            "annotation.mood.text": "nice",
        }

    def test_falsy_values_are_kept(self, scene):
        """None, 0, "", False, [] and {} are values, live and in the store."""
        given = {"none": None, "zero": 0, "text": "", "false": False, "list": [], "dict": {}}
        attributes_after(scene, {"metadata": given})

        metadata = scene.record("span").metadata
        assert metadata == given
        assert {key: type(value) for key, value in metadata.items()} == {
            key: type(value) for key, value in given.items()
        }

    def test_null_output_is_a_value(self, scene):
        """output=None is null; output not given changes nothing."""
        attributes = attributes_after(scene, {"output": "first"}, {"metadata": {"a": 1}}, {"output": None})

        assert (attributes["output.value"], attributes["output.mime_type"]) == ("null", "application/json")

    def test_an_argument_that_is_not_given_changes_nothing(self, scene):
        """UNSET, and a None where None is no value, leave what is there."""
        with scene.tracer.start_as_current_span("span"):
            om.update_current_span(metadata={"a": 1}, output="o", name="span", tags=["t"], status="error")
            om.update_current_span(
                metadata=None, output=om.UNSET, input=om.UNSET, name=None, tags=None, status=None, attributes={"x": 1}
            )

        record = scene.record("span")
        assert (record.metadata, record.output, record.tags, record.status_code) == ({"a": 1}, "o", ("t",), "ERROR")

    def test_the_first_level_is_merged(self, scene):
        """A later key wins and replaces a nested value whole; other keys stay."""
        attributes = attributes_after(
            scene,
            {"metadata": {"step": 1, "status": "started", "deep": {"x": 1, "y": 1}}},
            {"metadata": {"step": 2, "error": None, "deep": {"y": 2}}},
        )

        assert scene.record("span").metadata == {"step": 2, "status": "started", "error": None, "deep": {"y": 2}}
        assert attributes["metadata.deep"] == '{"y":2}'
        assert set(attributes["otel_metadata.json"]) == {"metadata.deep", "metadata.error"}

    def test_a_json_attribute_that_becomes_native_is_no_longer_listed(self, scene):
        """When a null is replaced by a scalar, no reader takes the scalar for JSON."""
        attributes = attributes_after(scene, {"metadata": {"a": None, "b": None}}, {"metadata": {"a": "null"}})

        assert attributes["metadata.a"] == "null"
        assert attributes["otel_metadata.json"] == ("metadata.b",)

    def test_the_name_is_changed(self, scene):
        """name= renames the live span."""
        with scene.tracer.start_as_current_span("before"):
            om.update_current_span(name="after")

        assert scene.names() == ["after"]
        assert scene.record("after").name == "after"

    def test_the_applications_own_attributes_stay(self, scene):
        """An update leaves foreign attributes alone."""
        attributes = attributes_after(scene, {"metadata": {"a": 1}}, attributes={"own": 1})

        assert attributes == {"own": 1, "metadata.a": 1}

    def test_our_own_spans_are_updated_alike(self, scene):
        """An observed function's span gets the same attributes as a plain one."""

        @om.observe(name="ours", capture_input=False, capture_output=False)
        def ours():
            om.update_current_span(metadata={"a": None}, tags=["t"])

        ours()

        assert dict(scene.ended("ours").attributes) == {
            "metadata.a": "null",
            "tag.tags": ("t",),
            "otel_metadata.json": ("metadata.a",),
        }


class TestBudget:
    def test_our_keys_take_a_quarter_and_the_rest_still_arrives(self, scene):
        """Of 100 keys at most 32 attributes are set live, and all 100 are in the store, in right values."""
        given = {f"key {number}": number for number in range(100)}

        attributes = attributes_after(scene, {"metadata": given})

        assert len(attributes) <= 32
        assert scene.record("span").metadata == given

    @pytest.mark.parametrize("value", [1, None], ids=["native", "json"])
    def test_the_applications_attributes_are_never_evicted(self, scene, value):
        """With three quarters of the limit in use by the application, none of its attributes goes."""
        own = {f"own {number}": number for number in range(96)}

        attributes = attributes_after(scene, {"metadata": dict.fromkeys(map(str, range(100)), value)}, attributes=own)

        assert {name: attributes.get(name) for name in own} == own

    def test_a_key_that_is_there_can_be_changed_when_the_budget_is_used_up(self, scene, use_settings):
        """Only new names need room."""
        use_settings(max_attributes=2)

        attributes = attributes_after(
            scene, {"metadata": {"a": 1, "b": 1}}, {"metadata": {"c": 1, "a": 2}}, {"metadata": {"b": 3}}
        )

        assert attributes == {"metadata.a": 2, "metadata.b": 3}
        assert scene.record("span").metadata == {"a": 2, "b": 3, "c": 1}

    def test_a_value_is_never_set_without_its_mime_type(self, scene, use_settings):
        """Where there is room for one more name only, a JSON input is not shown as if it were text."""
        use_settings(max_attributes=2)

        attributes = attributes_after(scene, {"metadata": {"a": 1}, "input": {"q": 1}})

        assert ("input.value" in attributes) == ("input.mime_type" in attributes)
        assert scene.record("span").input == {"q": 1}

    def test_what_does_not_fit_is_not_listed_as_json(self, scene, use_settings):
        """otel_metadata.json names only attributes that are there."""
        use_settings(max_attributes=2)

        attributes = attributes_after(scene, {"metadata": {"a": None}}, {"metadata": {"b": None}})

        assert attributes == {"metadata.a": "null", "otel_metadata.json": ("metadata.a",)}
        assert scene.record("span").metadata == {"a": None, "b": None}

    def test_bound_metadata_and_captured_values_count(self, scene, use_settings):
        """Everything of ours shares the one budget."""
        use_settings(max_attributes=2)
        with om.using_metadata({"a": 1, "b": 2}):
            om.observe(name="span")(lambda x: x)(5)

        assert set(scene.ended("span").attributes) == {"metadata.a", "metadata.b"}
        assert (scene.record("span").input, scene.record("span").output) == ({"x": 5}, 5)


class TestTags:
    def test_tags_are_a_union_in_the_order_of_their_first_setting(self, scene):
        """Tags are added; the order is that of the first update that set each, then of the text."""
        attributes = attributes_after(scene, {"tags": ["b", "a"]}, {"tags": ["c", "a"]}, {"tags": ["a0"]})

        assert attributes["tag.tags"] == ("a", "b", "c", "a0")
        assert scene.record("span").tags == ("a", "b", "c", "a0")

    def test_one_text_is_one_tag(self, scene):
        """A bare text is taken as one tag, not as its letters."""
        assert attributes_after(scene, {"tags": "urgent"})["tag.tags"] == ("urgent",)

    def test_what_is_no_text_is_left_out_with_a_note(self, scene):
        """A tag that is no text is left out, and the receipt says so."""
        with scene.tracer.start_as_current_span("span"):
            receipt = om.update_current_span(tags=["a", 5, None, ""])

        assert scene.record("span").tags == ("a",)
        assert receipt
        assert receipt.notes

    def test_tags_that_come_late_are_added(self, scene):
        """In flight and late tags join the live ones in order."""
        with om.start_span("span", tags=["z"]) as handle:
            handle.update(tags=["live"])
        handle.update(tags=["in flight", "z"])
        scene.deliver()
        handle.update(tags=["a late one"])

        assert scene.record("span").tags == ("z", "live", "in flight", "a late one")

    def test_tags_of_span_and_trace_are_apart(self, scene):
        """Tags of the trace do not show among the span's."""
        with scene.tracer.start_as_current_span("span"):
            om.update_current_span(tags=["of span"])
            om.update_current_trace(tags=["of trace"])

        record = scene.record("span")
        assert (record.tags, record.trace_tags) == (("of span",), ("of trace",))


class TestStatus:
    @pytest.mark.parametrize(
        ("status", "code", "stored"),
        [
            ("ok", StatusCode.OK, "OK"),
            ("OK", StatusCode.OK, "OK"),
            ("error", StatusCode.ERROR, "ERROR"),
            (200, StatusCode.OK, 200),
            (399, StatusCode.OK, 399),
            (400, StatusCode.ERROR, 400),
            (503, StatusCode.ERROR, 503),
        ],
    )
    def test_words_and_codes(self, scene, status, code, stored):
        """ok and error are OpenTelemetry's; a code of 400 and above is an error; the store keeps the code."""
        attributes_after(scene, {"status": status})

        assert scene.ended("span").status.status_code is code
        assert scene.record("span").status_code == stored

    @pytest.mark.parametrize("status", ["unset", "bogus", -1, 1.5, True, [], 1 << 40], ids=repr)
    def test_anything_else_changes_nothing(self, scene, status):
        """UNSET never overwrites, and what is no status is left out; nothing raises."""
        with scene.tracer.start_as_current_span("span"):
            om.update_current_span(status="error", status_message="why")
            om.update_current_span(status=status)

        span = scene.ended("span")
        assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "why")
        assert scene.record("span").status_code == "ERROR"

    def test_ok_is_final_while_the_span_is_live(self, scene):
        """After ok a live error changes nothing, on the span and in the store."""
        attributes_after(scene, {"status": "ok"}, {"status": "error", "status_message": "too late"})

        assert scene.ended("span").status.status_code is StatusCode.OK
        assert scene.record("span").status_code == "OK"

    def test_an_ok_of_the_application_is_final_too(self, scene):
        """An ok that the application set on the span itself stands, in the store as well."""
        with scene.tracer.start_as_current_span("span") as span:
            span.set_status(Status(StatusCode.OK))
            om.update_current_span(status="error")

        assert scene.ended("span").status.status_code is StatusCode.OK
        assert scene.record("span").status_code == "OK"

    def test_an_ok_of_the_application_after_ours_stands(self, scene):
        """An ok that the application sets after our error stands, in the store as well."""
        with scene.tracer.start_as_current_span("span") as span:
            om.update_current_span(status="error")
            span.set_status(Status(StatusCode.OK))

        assert scene.ended("span").status.status_code is StatusCode.OK
        assert scene.record("span").status_code == "OK"

    def test_an_error_becomes_ok(self, scene):
        """ok overwrites error, as OpenTelemetry has it."""
        attributes_after(scene, {"status": "error"}, {"status": "ok"})

        assert scene.ended("span").status.status_code is StatusCode.OK
        assert scene.record("span").status_code == "OK"

    def test_an_exception_does_not_overwrite_ok(self, scene):
        """A status of ok stands over an exception that leaves the function afterwards."""

        @om.observe(name="span")
        def body():
            om.update_current_span(status="ok")
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            body()

        assert scene.ended("span").status.status_code is StatusCode.OK
        assert scene.record("span").status_code == "OK"

    def test_a_late_patch_overwrites_ok(self, scene):
        """Once the span has left, ok is final no longer: the store takes the late status."""
        with om.start_span("span") as handle:
            handle.update(status="ok")
        scene.deliver()
        assert handle.update(status="error", status_message="wrong after all").route == "late"

        record = scene.record("span")
        assert (record.status_code, record.status_message) == ("ERROR", "wrong after all")

    def test_an_error_keeps_its_message_when_it_is_said_again(self, scene):
        """A second error without a message leaves the first message."""
        attributes_after(scene, {"status": "error", "status_message": "why"}, {"status": "error"})

        assert scene.ended("span").status.description == "why"
        assert scene.record("span").status_message == "why"


class TestTraceLevel:
    def test_it_goes_to_the_local_root_from_a_child(self, scene):
        """From three levels below, the trace's values are set on the local root and nowhere else."""
        span = scene.tracer.start_as_current_span
        with span("root"), span("middle"), span("leaf"):
            receipt = om.update_current_trace(metadata={"a": 1}, user_id="u")

        assert receipt.route == "live"
        assert dict(scene.ended("root").attributes) == {"trace.metadata.a": 1, "user.id": "u"}
        assert dict(scene.ended("middle").attributes) == dict(scene.ended("leaf").attributes) == {}

    def test_every_span_of_the_trace_shows_it(self, scene):
        """In the store each record of the trace has the trace's values."""
        with scene.tracer.start_as_current_span("root"), scene.tracer.start_as_current_span("leaf"):
            om.update_current_trace(metadata={"a": 1}, user_id="u", session_id="s")

        assert [
            (scene.record(name).trace_metadata, scene.record(name).user_id, scene.record(name).session_id)
            for name in ("root", "leaf")
        ] == [({"a": 1}, "u", "s")] * 2

    def test_it_is_in_flight_when_the_root_has_ended(self, scene):
        """A child that outlives its root updates the root where it waits."""
        root = scene.tracer.start_span("root")
        child = scene.tracer.start_span("child", context=trace.set_span_in_context(root))
        root.end()
        with trace.use_span(child, end_on_exit=True):
            receipt = om.update_current_trace(metadata={"a": 1})

        assert receipt.route == "in_flight"
        assert scene.record("root").trace_metadata == {"a": 1}

    def test_it_is_late_when_the_root_was_exported(self, scene):
        """A child that outlives its root's export updates the trace by a patch."""
        root = scene.tracer.start_span("root")
        child = scene.tracer.start_span("child", context=trace.set_span_in_context(root))
        root.end()
        scene.deliver()
        with trace.use_span(child, end_on_exit=True):
            receipt = om.update_current_trace(metadata={"a": 1})

        assert receipt.route == "late"
        assert scene.record("root").trace_metadata == {"a": 1}

    def test_each_of_several_local_roots_takes_its_own(self, scene):
        """Two requests of one distributed trace: each child's update goes to its own local root."""
        remote = SpanContext(0xA, 0xB, is_remote=True, trace_flags=TraceFlags(1))
        context = trace.set_span_in_context(NonRecordingSpan(remote))
        first = scene.tracer.start_span("first", context=context)
        second = scene.tracer.start_span("second", context=context)
        child = scene.tracer.start_span("child", context=trace.set_span_in_context(first))
        with trace.use_span(child, end_on_exit=True):
            om.update_current_trace(metadata={"from": "child of first", "shared": 1})
        with trace.use_span(second, end_on_exit=True):
            om.update_current_trace(metadata={"also": "second", "shared": 2})
        first.end()

        assert scene.ended("first").attributes["trace.metadata.from"] == "child of first"
        assert scene.ended("second").attributes["trace.metadata.also"] == "second"
        assert scene.record("child").trace_metadata == {"from": "child of first", "also": "second", "shared": 2}

    def test_update_trace_takes_a_bare_trace_id(self, scene):
        """32 hex digits name the trace: live its local root is set, late a patch goes."""
        with scene.tracer.start_as_current_span("root") as span:
            trace_id = f"{span.get_span_context().trace_id:032x}"
            live = om.update_trace(trace_id, metadata={"live": 1})
        scene.deliver()
        late = om.update_trace(trace_id, metadata={"late": 1})

        assert (live.route, late.route) == ("live", "late")
        assert scene.record("root").trace_metadata == {"live": 1, "late": 1}

    def test_update_trace_takes_any_span_of_the_trace(self, scene):
        """A child as the target means its trace's local root."""
        with scene.tracer.start_as_current_span("root"), om.start_span("child") as child:
            pass
        om.update_trace(child, name="job", tags=["t"])

        record = scene.record("root")
        assert (record.trace_name, record.trace_tags, record.tags) == ("job", ("t",), ())

    def test_a_score_can_be_the_traces(self, scene):
        """score_span(level="trace") is an evaluation of the trace, on its local root."""
        with scene.tracer.start_as_current_span("root"), om.start_span("child") as child:
            assert om.score_span(child, "Quality", score=1, level="trace").route == "live"

        assert scene.ended("root").attributes["trace.eval.Quality.score"] == 1
        assert not any("eval" in name for name in scene.ended("child").attributes)

    def test_traces_do_not_mix(self, scene):
        """An update of one trace leaves another one alone."""
        with scene.tracer.start_as_current_span("one"):
            om.update_current_trace(metadata={"a": 1})
        with scene.tracer.start_as_current_span("two"):
            pass

        assert (scene.record("one").trace_metadata, scene.record("two").trace_metadata) == ({"a": 1}, {})


class TestVerdicts:
    def test_a_second_score_of_a_name_replaces_the_first_whole(self, scene):
        """Upserted by name: what the second one does not say is gone from the store."""
        with scene.tracer.start_as_current_span("span"):
            om.score_current_span("Quality", score=1, label="good", explanation="why")
            om.score_current_span("Quality", score=0)

        verdict = scene.record("span").evaluations["Quality"]
        assert (verdict.score, verdict.label, verdict.explanation) == (0, None, None)

    def test_annotations_are_kept_by_name_and_annotator(self, scene):
        """Two people may say something under one name; each one's second note replaces the first."""
        with om.start_span("span") as handle:
            handle.annotate("mood", label="up", annotator="ada")
            handle.annotate("mood", label="down", annotator="bob")
        handle.annotate("mood", label="flat", annotator="ada")
        handle.annotate("mood", text="nobody's")

        notes = {note.annotator: (note.label, note.text) for note in scene.record("span").annotations}
        assert notes == {"ada": ("flat", None), "bob": ("down", None), None: (None, "nobody's")}

    def test_a_score_that_is_no_number_is_left_out_with_a_note(self, scene):
        """Wrong parts are left out, the rest is set."""
        with scene.tracer.start_as_current_span("span"):
            receipt = om.score_current_span("Quality", score="high", label="good", source="martian")

        verdict = scene.record("span").evaluations["Quality"]
        assert (verdict.score, verdict.label, verdict.source) == (None, "good", "code")
        assert len(receipt.notes) == 2

    def test_a_name_with_dots_is_one_name(self, scene):
        """A name with dots is not taken apart."""
        with scene.tracer.start_as_current_span("span"):
            om.score_current_span("rag.recall.score", score=1)
            om.annotate_current_span("a.b", text="x")

        record = scene.record("span")
        assert list(record.evaluations) == ["rag.recall.score"]
        assert [note.name for note in record.annotations] == ["a.b"]


class TestSpanOfAnotherProvider:
    """A span whose provider does not carry our processor is set directly: its own exporters have it."""

    @pytest.fixture
    def foreign(self):
        return TracerProvider(shutdown_on_exit=False).get_tracer("foreign")

    def test_it_is_set_live(self, scene, foreign):
        """The receipt says live, for the span itself, with a remark."""
        with foreign.start_as_current_span("span") as span:
            receipt = om.update_current_span(metadata={"a": None, "b": 1}, tags=["t"])

        assert (receipt.route, list(receipt.routes)) == ("live", ["span"])
        assert dict(span.attributes) == {
            "metadata.a": "null",
            "metadata.b": 1,
            "tag.tags": ("t",),
            "otel_metadata.json": ("metadata.a",),
        }

    def test_two_updates_list_both_json_names(self, scene, foreign):
        """The second update's list of JSON names does not replace the first one's."""
        with foreign.start_as_current_span("span") as span:
            om.update_current_span(metadata={"a": None})
            om.update_current_span(metadata={"b": None})

        assert set(span.attributes["otel_metadata.json"]) == {"metadata.a", "metadata.b"}

    def test_two_updates_unite_tags(self, scene, foreign):
        """The second update's tags are added to the first one's."""
        with foreign.start_as_current_span("span") as span:
            om.update_current_span(tags=["a"])
            om.update_current_span(tags=["b"])

        assert span.attributes["tag.tags"] == ("a", "b")
