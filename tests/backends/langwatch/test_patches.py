"""LangWatch: what its 200 does not say, under the fold of its server and under that of its documentation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from tests.backends.vendors.langwatch import LangWatch, Span, exporter, stringify, utf16
from tests.backends.vendors.server import KEY, Response

import otel_metadata as om
from otel_metadata.backends.langwatch import destination
from otel_metadata.backends.langwatch.patches import LangWatchPatchExporter, utf16_units
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.model.evaluation import Annotation, Evaluation, annotation_key
from otel_metadata.model.merge import FieldName, Json
from otel_metadata.model.outcome import Delivered, Outcome, Pause, Rejected, Retry
from otel_metadata.model.patch import Patch
from otel_metadata.testing import ManualClock

AT = 1_700_000_000_000_000_000
TRACE, ROOT = 0xA1, 0xB2
TRACE_ID = f"{TRACE:032x}"
VALUES: dict[str, Json] = {
    "s": "x",
    "n": 0,
    "f": 0.5,
    "b": False,
    "none": None,
    "o": {"a": [1]},
    "l": ["a", "b"],
}


@pytest.fixture(params=["server", "docs"])
def double(request: pytest.FixtureRequest) -> Iterator[LangWatch]:
    with LangWatch(request.param) as double:
        yield double


@pytest.fixture
def server() -> Iterator[LangWatch]:
    """The fold that the server has."""
    with LangWatch("server") as double:
        yield double


def patch(*fields: tuple[FieldName, Json], at: int = AT, span: int = ROOT, window: bool = True) -> Patch:
    versioned = {name: (value, (at + place, 7)) for place, (name, value) in enumerate(fields)}
    return Patch(om.SpanRef(TRACE, span), versioned, (AT - 2_000_000, AT - 1_000_000) if window else None)


def trace_patch(metadata: dict[str, Json], **more: Any) -> Patch:
    return patch(*((("trace", "metadata", key), value) for key, value in metadata.items()), **more)


def send(double: LangWatch, *patches: Patch, **options: Any) -> list[Outcome]:
    one = exporter(double.url, **options)
    try:
        return list(one.export(patches, timeout_millis=5_000))
    finally:
        one.shutdown()


def ingested(double: LangWatch, **attributes: Any) -> None:
    """Make the double hold a trace with one root span, as from LangWatch's own SDK."""
    double.take(TRACE_ID, Span(f"{ROOT:016x}", "", "answer", AT - 2_000_000, AT - 1_000_000, attributes))


class TestMetadataOfATrace:
    def test_whatever_the_value_its_key_is_there(self, double):
        """Zero, false, null, an object and a list are sent so that neither fold loses them, and each has a note."""
        (outcome,) = send(double, trace_patch(VALUES))
        assert isinstance(outcome, Delivered)
        shown = {key: str(value) for key, value in double.metadata(TRACE_ID).items()}
        assert shown == {
            "s": "x",
            "n": "0",
            "f": "0.5",
            "b": "false",
            "none": "null",
            "o.a.0": "1",
            "l.0": "a",
            "l.1": "b",
        }
        assert list(outcome.notes) == [
            "trace metadata 's': added; an earlier value of the trace may win",
            "trace metadata 'n': added, as text; an earlier value of the trace may win",
            "trace metadata 'f': added, as text; an earlier value of the trace may win",
            "trace metadata 'b': added, as text; an earlier value of the trace may win",
            "trace metadata 'none': added, as text; an earlier value of the trace may win",
            "trace metadata 'o': added in parts, under dotted keys, as text; an earlier value of the trace may win",
            "trace metadata 'l': added in parts, under dotted keys, as text; an earlier value of the trace may win",
        ]

    def test_an_override_is_never_claimed(self, server):
        """A key that the trace has keeps its value behind a 200, and the note says that it may."""
        ingested(server, metadata='{"env":"prod"}')
        (outcome,) = send(server, trace_patch({"env": "staging"}))
        assert server.metadata(TRACE_ID)["env"] == "prod"
        assert outcome == Delivered(("trace metadata 'env': added; an earlier value of the trace may win",))

    def test_a_text_that_is_json_is_not_lost(self, server):
        """The server would parse it and drop what came out: its parts are sent."""
        (outcome,) = send(server, trace_patch({"k": ' {"a": {"b": "x"}} ', "note": "[sic] no JSON"}))
        assert server.metadata(TRACE_ID) == {"k.a.b": "x", "note": "[sic] no JSON"}
        assert "in parts" in outcome.notes[0]

    def test_an_empty_object_is_told(self, double):
        """What cannot be kept is named, and the rest is kept."""
        (outcome,) = send(double, trace_patch({"k": "x", "empty": {}, "none": [], "in": {"a": {}, "b": "y"}}))
        assert double.metadata(TRACE_ID) == {"k": "x", "in.b": "y"}
        why = "unsupported; LangWatch keeps no empty object or list"
        assert outcome.notes[2:] == tuple(f"trace metadata {key!r}: {why}" for key in ("empty", "none", "in"))

    def test_two_keys_of_one_place_are_told(self, server):
        """A dotted key and the part of an object that has its name: the later stands, the other is named."""
        (outcome,) = send(server, trace_patch({"a": {"b": 1}, "a.b": 2}))
        assert server.metadata(TRACE_ID) == {"a.b": "2"}
        assert "trace metadata 'a': unsupported; trace metadata 'a.b' has its place" in outcome.notes

    def test_integers_are_not_rounded(self, server):
        """JavaScript has 53 bits for an integer; a text has all of them."""
        send(server, trace_patch({"big": 2**63 - 1}))
        assert server.metadata(TRACE_ID) == {"big": "9223372036854775807"}

    def test_the_users_own_words_for_ids_and_labels_are_langwatchs(self, double):
        """`user_id`, `customer_id` and `labels` in metadata, as LangWatch's documents have them."""
        metadata: dict[str, Json] = {"user_id": 5, "customer_id": "c", "labels": ["qa", 1], "thread_id": {"no": 1}}
        (outcome,) = send(double, trace_patch(metadata))
        shown = double.metadata(TRACE_ID)
        assert (shown["user_id"], shown["customer_id"], shown["labels"]) == ("5", "c", ["qa", "1"])
        assert "thread_id" not in shown
        assert outcome.notes[-1] == "trace metadata 'thread_id': unsupported; LangWatch takes a text that is not empty"

    def test_user_session_and_tags(self, double):
        """They are the reserved words of the request; labels join those that are there under the server's fold."""
        ingested(double, **{"langwatch.labels": ["prod"], "langwatch.user.id": "u1"})
        (outcome,) = send(
            double,
            patch(
                (("trace", "user_id", ""), "u2"),
                (("trace", "session_id", ""), "s1"),
                (("trace", "tag", "qa"), True),
                (("trace", "tag", "beta"), True),
            ),
        )
        assert double.requests[0].json == {
            "metadata": {"user_id": "u2", "thread_id": "s1", "labels": ["qa", "beta"]},
        }
        shown = double.metadata(TRACE_ID)
        assert set(shown["labels"]) >= {"qa", "beta"}
        assert shown["user_id"] == ("u1" if double.fold == "server" else "u2")
        assert outcome.notes == (
            "trace user id: added; an earlier value of the trace may win",
            "trace session id: added; an earlier value of the trace may win",
            "trace tags: added to the labels of the trace; none is removed",
        )

    def test_nothing_can_be_cleared(self, double):
        """An empty user or an empty list of labels would be taken and ignored: it is refused here, unsent."""
        (outcome,) = send(double, patch((("trace", "user_id", ""), ""), (("trace", "metadata", "labels"), [])))
        assert isinstance(outcome, Rejected)
        assert outcome.error.type == "unsupported"
        assert double.requests == []

    def test_a_bare_trace_is_a_target(self, double):
        """The API asks for no span."""
        (outcome,) = send(double, trace_patch({"k": "x"}, span=0, window=False))
        assert isinstance(outcome, Delivered)
        assert double.metadata(TRACE_ID) == {"k": "x"}


class TestLimits:
    @pytest.mark.parametrize(
        ("value", "fits"),
        [("é" * 4_096, True), ("é" * 4_097, False), ("😀" * 2_048, True), ("😀" * 2_049, False)],
    )
    def test_a_value_is_measured_as_the_server_measures_it(self, double, value, fits):
        """4,096 UTF-16 code units, not bytes, not characters; what is longer is told by key and limit, unsent."""
        (outcome,) = send(double, trace_patch({"k": value}))
        if fits:
            assert isinstance(outcome, Delivered)
            return
        message = "trace metadata 'k': longer than the 4096 UTF-16 units that LangWatch takes for a value"
        assert isinstance(outcome, Rejected)
        assert (outcome.error.type, outcome.error.message) == ("too_large", message)
        assert double.requests == []

    def test_one_that_is_too_long_does_not_keep_the_others_back(self, double):
        """The others are sent, and the long one is a note."""
        (outcome,) = send(double, trace_patch({"k": "x", "long": "x" * 5_000}))
        assert double.metadata(TRACE_ID) == {"k": "x"}
        assert outcome.notes[-1].startswith("trace metadata 'long': longer than")

    @pytest.mark.parametrize(("filling", "requests"), [(0, 1), (1, 2)])
    def test_the_whole_is_measured_as_the_server_measures_it(self, double, filling, requests):
        """32,768 units of compact JSON in one request; one more makes two, and no key is lost."""
        metadata: dict[str, Json] = {f"key{place}": '"é😀' * 500 for place in range(13)}
        rest = 32_768 - utf16(stringify({**metadata, "z": ""}))
        metadata["z"] = "x" * (rest + filling)
        assert 0 < rest < 4_096
        (outcome,) = send(double, trace_patch(metadata))
        assert isinstance(outcome, Delivered)
        assert len(double.requests) == requests
        assert double.metadata(TRACE_ID) == metadata

    def test_labels_that_are_too_many_are_told(self, double):
        """A list has no limit of its own, but it cannot be parted: labels replace each other by the documents."""
        (outcome,) = send(double, trace_patch({"k": "x", "labels": [f"{one:08}" for one in range(4_000)]}))
        assert outcome.notes[-1] == "labels: longer than the 32768 UTF-16 units that LangWatch takes at once"
        assert double.metadata(TRACE_ID) == {"k": "x"}

    def test_units_are_javascripts(self):
        """One for what is in the basic plane, two beyond it."""
        assert [utf16_units(text) for text in ("a", "é", "漢", "😀")] == [1, 1, 1, 2]

    def test_what_the_server_refuses_by_name_does_not_keep_the_others_back(self, double):
        """A 422 names fields: the rest is sent once more, and the refused ones are told."""

        def refuse(request):
            bad = "k" in request.json["metadata"]
            return Response(422, {"error": "validation_error", "fields": ["metadata.k"]}) if bad else None

        double.fault = refuse
        (outcome,) = send(double, trace_patch({"k": "secret", "other": "x"}))
        assert double.metadata(TRACE_ID) == {"other": "x"}
        assert outcome.notes[-1] == "trace metadata 'k': LangWatch refused the value"
        assert "secret" not in repr(outcome)

    def test_what_the_server_refuses_altogether_is_rejected(self, double):
        """Of a 422 that names all there was, and of one that names nothing, nothing is believed."""
        double.fault = lambda _: Response(422, {"fields": ["metadata.k"]})
        assert isinstance(send(double, trace_patch({"k": "x"}))[0], Rejected)
        double.fault = lambda _: Response(422, {"message": "secret"})
        (outcome,) = send(double, trace_patch({"k": "x"}))
        assert isinstance(outcome, Rejected)
        assert outcome.error.message.startswith("trace metadata 'k': ")
        assert "secret" not in repr(outcome)

    def test_a_key_with_a_colon_is_named_whole(self, double):
        """In notes, in what was refused by name, and in what was refused altogether."""
        (outcome,) = send(double, trace_patch({"a: b": "x"}))
        assert outcome.notes == ("trace metadata 'a: b': added; an earlier value of the trace may win",)
        double.fault = lambda request: (
            Response(422, {"fields": ["metadata.a: b"]}) if "a: b" in request.json["metadata"] else None
        )
        (outcome,) = send(double, trace_patch({"a: b": "x", "c": "y"}))
        assert outcome.notes[-1] == "trace metadata 'a: b': LangWatch refused the value"
        double.fault = lambda _: Response(400, {})
        (outcome,) = send(double, trace_patch({"a: b": "x"}))
        assert outcome.error.message.startswith("trace metadata 'a: b': the backend cannot use")


class TestAnswers:
    def test_a_success_for_another_trace_is_not_believed(self, double):
        """The 200 repeats the trace it is about."""
        double.fault = lambda _: Response(200, {"traceId": "another"})
        assert isinstance(send(double, trace_patch({"k": "x"}))[0], Retry)

    @pytest.mark.parametrize("kind", ["evaluation", "annotation", "note", "otlp_span"])
    def test_an_empty_object_is_no_success(self, double, kind):
        """Each route has an answer of its own shape, and `{"ok": true}` with 200 is none of them."""
        fields: dict[str, tuple[FieldName, Json]] = {
            "evaluation": (("trace", "evaluation", "E"), Evaluation("E", 1.0).to_json()),
            "annotation": (("trace", "annotation", "A"), Annotation("A", score=1.0).to_json()),
            "note": (("trace", "annotation", "A"), Annotation("A", score=1.0, text="t").to_json()),
            "otlp_span": (("span", "metadata", "k"), "x"),
        }
        double.fault = lambda _: Response(200, b"[1]", {"content-type": "application/json"})
        (outcome,) = send(double, patch(fields[kind]))
        assert isinstance(outcome, Retry)

    def test_a_key_without_the_permission_pauses(self):
        """A key that may only read is about the destination, not about the patch."""
        with LangWatch(read_only=True) as double:
            outcomes = send(double, trace_patch({"k": "x"}), trace_patch({"k": "y"}))
            assert [type(one) for one in outcomes] == [Pause, Pause]
            assert len(double.requests) == 1

    def test_a_part_that_fails_sends_the_whole_again(self, double):
        """An evaluation that finds the backend down makes the patch a retry, and the retry changes nothing twice."""
        fields = [(("trace", "metadata", "k"), "x"), (("trace", "evaluation", "E"), Evaluation("E", 1.0).to_json())]
        double.fault = lambda request: Response(503) if request.path == "/api/collector" else None
        assert isinstance(send(double, patch(*fields))[0], Retry)
        double.fault = None
        assert isinstance(send(double, patch(*fields))[0], Delivered)
        assert double.metadata(TRACE_ID) == {"k": "x"}
        assert len(double.traces[TRACE_ID].evaluations) == 1

    def test_a_part_that_is_refused_is_told(self, double):
        """A refused evaluation beside metadata that arrived is a note; alone it is a rejection."""
        verdict = (("trace", "evaluation", "E"), Evaluation("E", 1.0).to_json())
        double.fault = lambda request: Response(400, {"error": "no"}) if request.path == "/api/collector" else None
        (outcome,) = send(double, patch((("trace", "metadata", "k"), "x"), verdict))
        assert outcome.notes[-1].startswith("trace evaluation 'E': the backend cannot use what was sent")
        assert isinstance(send(double, patch(verdict))[0], Rejected)

    @pytest.mark.parametrize("kind", ["name", "input", "output", "status"])
    def test_what_no_request_can_say_is_unsupported(self, double, kind):
        """A stored span's own parts cannot be changed, and nothing is sent for them."""
        (outcome,) = send(double, patch((("span", kind, ""), "x")))
        assert isinstance(outcome, Rejected)
        assert (outcome.error.type, outcome.error.message) == (
            "unsupported",
            f"{kind}: unsupported; LangWatch changes no stored span",
        )
        assert double.requests == []

    def test_the_strategy_is_one_of_two(self):
        """A misspelt strategy is told at once."""
        with pytest.raises(om.errors.ConfigurationError, match="strategy is 'otlp'"):
            LangWatchPatchExporter("http://127.0.0.1:9", strategy="otlp")  # type: ignore[arg-type]


class TestSpansBesideTheTarget:
    def test_metadata_of_a_span_stays_with_the_span(self, double):
        """It rides on a child of the target at the target's end, whole: no value is flattened."""
        ingested(double, metadata='{"s":"first"}')
        (outcome,) = send(double, patch(*((("span", "metadata", key), value) for key, value in VALUES.items())))
        _, update = double.traces[TRACE_ID].spans
        assert (update.parent, update.start_ns, update.end_ns) == (f"{ROOT:016x}", AT - 1_000_000, AT - 1_000_000)
        assert json.loads(update.attributes["metadata"]) == {**VALUES, "none": "null"}
        assert set(double.metadata(TRACE_ID)) == set(VALUES)
        assert outcome.notes[0] == (
            "metadata 's': kept on a span of its own beside the target; an earlier value of the trace may win"
        )
        assert len(outcome.notes) == len(VALUES)

    def test_it_changes_neither_name_nor_duration(self, double):
        """Where the PATCH makes a trace last until now, a span within its window does not."""
        ingested(double)
        before = (double.traces[TRACE_ID].name, double.traces[TRACE_ID].end_ns)
        send(double, trace_patch(VALUES), strategy="otlp_span")
        assert (double.traces[TRACE_ID].name, double.traces[TRACE_ID].end_ns) == before
        send(double, trace_patch({"k": "x"}))
        assert double.traces[TRACE_ID].end_ns == double.now_ns

    def test_a_trace_rides_on_a_span_if_asked(self, double):
        """`strategy="otlp_span"`: objects stay objects, zero stays, labels join, ids have LangWatch's names."""
        fields = [*((("trace", "metadata", key), value) for key, value in VALUES.items())]
        (outcome,) = send(
            double,
            patch(*fields, (("trace", "user_id", ""), "u1"), (("trace", "tag", "qa"), True)),
            strategy="otlp_span",
        )
        assert [request.path for request in double.requests] == ["/api/otel/v1/traces"]
        shown = double.metadata(TRACE_ID)
        assert (shown["user_id"], shown["labels"]) == ("u1", ["qa"])
        assert str(shown["n"]) == "0"
        assert json.loads(shown["o"] if double.fold == "server" else json.dumps(shown["o"])) == {"a": [1]}
        assert len(outcome.notes) == len(VALUES) + 2

    def test_a_bare_trace_is_patched_all_the_same(self, double):
        """A span without a parent would become the trace's root."""
        (outcome,) = send(double, trace_patch({"k": "x"}, span=0, window=False), strategy="otlp_span")
        assert isinstance(outcome, Delivered)
        assert [request.method for request in double.requests] == ["PATCH"]

    def test_sending_it_again_is_sending_the_same_span(self, double):
        """The id of the span follows from the patch."""
        one = patch((("span", "metadata", "k"), "x"))
        send(double, one)
        send(double, one)
        assert len(double.traces[TRACE_ID].spans) == 1

    def test_a_span_that_was_rejected_is_not_delivered(self, double):
        """200 with `rejectedSpans` is no success: one span was sent."""
        said = {"message": "ok", "partialSuccess": {"rejectedSpans": 1, "errorMessage": "too old"}}
        double.fault = lambda _: Response(200, said, {"content-type": "application/json"})
        (outcome,) = send(double, patch((("span", "metadata", "k"), "x")))
        assert isinstance(outcome, Rejected)
        assert "too old" not in repr(outcome)

    def test_an_exhausted_quota_pauses(self, double):
        """LangWatch says 402 where others say 429."""
        double.fault = lambda _: Response(402, {"error": "limit"})
        assert isinstance(send(double, patch((("span", "metadata", "k"), "x")))[0], Pause)


class TestVerdicts:
    def test_an_evaluation_is_upserted_by_target_and_name(self, double):
        """Sent again, it is there once; a second verdict replaces the first, and so does a return to the first."""

        def verdict(score: float, at: int) -> Patch:
            value = Evaluation("Correctness", score, "partly", "half of it", "llm", {"judge": "m"}).to_json()
            return patch((("span", "evaluation", "Correctness"), value), at=at)

        for score, at in ((0.5, AT), (0.5, AT), (0.9, AT + 1_000_000), (0.5, AT + 2_000_000)):
            (outcome,) = send(double, verdict(score, at))
            why = "kept on the trace; LangWatch has no source and no metadata of an evaluation"
            assert outcome == Delivered((f"evaluation 'Correctness': {why}",))
            (shown,) = double.traces[TRACE_ID].evaluations.values()
            assert (shown["name"], shown["score"], shown["label"]) == ("Correctness", score, "partly")
            assert shown["details"] == "half of it"

    def test_an_evaluation_without_a_verdict_is_unsupported(self, double):
        """An explanation alone would be refused, and the others of its request with it."""
        alone = (("trace", "evaluation", "A"), Evaluation("A", explanation="because").to_json())
        judged = (("trace", "evaluation", "B"), Evaluation("B", 0.0).to_json())
        (outcome,) = send(double, patch(alone, judged))
        assert [one["name"] for one in double.traces[TRACE_ID].evaluations.values()] == ["B"]
        assert outcome.notes[-1] == (
            "trace evaluation 'A': unsupported; LangWatch takes no evaluation without a score or a label"
        )

    def test_spans_of_one_trace_do_not_share_an_evaluation(self, double):
        """Two spans are judged by one name: there are two."""
        value = Evaluation("E", 1.0).to_json()
        for span in (1, 2):
            send(double, patch((("span", "evaluation", "E"), value), span=span))
        assert len(double.traces[TRACE_ID].evaluations) == 2

    def test_a_trace_has_one_evaluation_of_a_name(self, double):
        """Whichever span names the trace, and also when none does."""
        for span in (0, 1, 2):
            send(double, patch((("trace", "evaluation", "E"), Evaluation("E", 1.0).to_json()), span=span))
        assert len(double.traces[TRACE_ID].evaluations) == 1

    def test_feedback_is_an_event_that_is_tracked_once(self, double):
        """An id of the update: sending again tracks nothing new, an update of it is another event."""
        for label, at in (("good", AT), ("good", AT), ("bad", AT + 1_000_000)):
            value = Annotation("quality", label, None, None, "ann").to_json()
            (outcome,) = send(double, patch((("trace", "annotation", annotation_key("quality", "ann")), value), at=at))
        events = double.traces[TRACE_ID].events.values()
        assert [one["event_details"] for one in events] == [
            {"label": "good", "annotator": "ann"},
            {"label": "bad", "annotator": "ann"},
        ]
        assert outcome == Delivered(
            ("annotation 'quality': kept as an event of the trace; an earlier one of this name stays",)
        )

    def test_thumbs_are_langwatchs_own(self, double):
        """An annotation of that name is the event that LangWatch has a schema for."""
        value = Annotation("thumbs_up_down", score=-1.0, text="too long").to_json()
        send(double, patch((("trace", "annotation", "thumbs_up_down"), value)))
        (event,) = double.traces[TRACE_ID].events.values()
        assert (event["event_type"], event["metrics"]) == ("thumbs_up_down", {"vote": -1.0})
        assert event["event_details"] == {"feedback": "too long"}

    def test_a_note_is_found_again(self, double):
        """LangWatch takes no id for a comment: ours is known by its first line, kept once, and replaced."""
        field = ("span", "annotation", annotation_key("quality", "ann@example.com"))
        for text, score in (("well said", 1.0), ("well said", 1.0), ("on second thought", 0.0)):
            value = Annotation("quality", "good", score, text, "ann@example.com").to_json()
            (outcome,) = send(double, patch((field, value)))
            (row,) = double.traces[TRACE_ID].annotations
            assert row["comment"] == f"quality, by ann@example.com:\ngood\n{text}"
            assert (row["isThumbsUp"], row["email"]) == (score > 0, "ann@example.com")
        assert outcome == Delivered(
            ("annotation 'quality': kept on the trace as a comment; of the score only whether it is above 0",)
        )

    def test_a_comment_of_somebody_else_is_left_alone(self, double):
        """One by a person who is signed in is never replaced, whatever its first line."""
        send(double, patch((("trace", "annotation", "q"), Annotation("q", score=1.0, text="one").to_json())))
        double.traces[TRACE_ID].annotations[0]["userId"] = "person"
        send(double, patch((("trace", "annotation", "q"), Annotation("q", score=1.0, text="two").to_json())))
        assert [row["comment"] for row in double.traces[TRACE_ID].annotations] == ["q:\none", "q:\ntwo"]

    def test_among_too_many_comments_none_is_doubled(self, double):
        """A list that was cut off does not say whether ours is in it: it is an event, which has an id."""
        double.fault = lambda request: Response(200, {"data": ["x" * 70_000]}) if request.method == "GET" else None
        (outcome,) = send(double, patch((("trace", "annotation", "q"), Annotation("q", None, 1.0, "one").to_json())))
        assert outcome == Delivered(
            ("annotation 'q': kept as an event of the trace; an earlier one of this name stays",)
        )
        assert [request.path for request in double.requests[1:]] == ["/api/events/track"]

    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_a_key_that_may_not_comment_sends_an_event(self, double, method):
        """Comments have permissions of their own: metadata goes on, and nothing of the note is lost."""
        double.fault = lambda request: (
            Response(403, {"error": "api_key_permission_denied"})
            if "annotations" in request.path and request.method == method
            else None
        )
        note = Annotation("q", "good", 1.0, "well said", "ann").to_json()
        one = patch((("trace", "metadata", "k"), "x"), (("trace", "annotation", "q"), note))
        for _ in range(2):
            (outcome,) = send(double, one)
            assert isinstance(outcome, Delivered)
            assert outcome.notes[-1].startswith("annotation 'q': kept as an event of the trace")
        assert double.metadata(TRACE_ID) == {"k": "x"}
        (event,) = double.traces[TRACE_ID].events.values()
        assert event["event_details"] == {"label": "good", "annotator": "ann", "text": "well said"}
        assert event["metrics"] == {"score": 1.0}

    def test_a_key_that_may_do_nothing_pauses_for_a_note_too(self):
        """When the event is refused as well, it is about the destination."""
        with LangWatch() as double:
            double.fault = lambda _: Response(403, {"error": "api_key_permission_denied"})
            note = Annotation("q", None, 1.0, "well said").to_json()
            assert isinstance(send(double, patch((("trace", "annotation", "q"), note)))[0], Pause)


class Recording:
    """A patch exporter that keeps what another one answers."""

    def __init__(self, inner: LangWatchPatchExporter) -> None:
        self.inner = inner
        self.notes: list[str] = []
        self.name, self.max_batch, self.grace_millis = inner.name, inner.max_batch, inner.grace_millis
        self.reports_missing, self.convergence = inner.reports_missing, inner.convergence

    def export(self, patches: Sequence[Patch], *, timeout_millis: int) -> Sequence[Outcome]:
        outcomes = self.inner.export(patches, timeout_millis=timeout_millis)
        self.notes += [note for one in outcomes if isinstance(one, Delivered) for note in one.notes]
        return outcomes

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True

    def shutdown(self, timeout_millis: int = 5_000) -> None:
        self.inner.shutdown()


class Scene:
    """An application that traces to a double, with a clock and a worker that are moved by hand."""

    def __init__(self, double: LangWatch) -> None:
        self.double = double
        self.clock = ManualClock()
        made = destination(api_key=KEY, endpoint=double.url)
        self.patches = Recording(made.patch_exporter)  # type: ignore[arg-type]
        to = om.Destination(made.name, made.span_exporter, self.patches, made.dialect)
        self.processor = om.MetadataSpanProcessor(
            to, settings=OutboxSettings(), clock=self.clock, start_workers=False, chance=lambda: 1.0
        )
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(self.processor)
        self.tracer = self.provider.get_tracer("application")

    def go_on(self) -> None:
        """Let as much time pass as everything that waits needs."""
        for _ in range(3):  # what was set, what leaves after its span, what waits for the grace
            assert self.processor.stats().destinations["langwatch"].is_balanced
            self.clock.advance(10_000)
            while self.processor.workers[0].step():
                pass

    def trace(self, moment: str) -> str:
        """Say everything of one trace at one moment of its life; return its id."""
        with self.tracer.start_as_current_span("answer") as span:
            ref = om.SpanRef.from_span_context(span.get_span_context())
            if moment == "live":
                self.say(ref)
        if moment == "late":
            self.go_on()
        if moment != "live":
            self.say(ref)
        self.go_on()
        return ref.trace_id_hex

    def say(self, ref: om.SpanRef) -> None:
        assert om.update_trace(ref, metadata=VALUES, user_id="u1", tags=["qa"])
        assert om.score_span(ref, "Correctness", score=1.0, label="correct")
        assert om.annotate_span(ref, "quality", label="good", annotator="ann")


@pytest.mark.parametrize("moment", ["live", "in flight", "late"])
def test_from_end_to_end(double, moment):
    """Whenever it is said, LangWatch shows it: whole with the span, and with a note for each key where it is late."""
    scene = Scene(double)
    trace_id = scene.trace(moment)
    shown = double.metadata(trace_id)
    assert (shown["user_id"], shown["labels"]) == ("u1", ["qa"])
    assert {key: str(shown[key]) for key in ("s", "f", "n", "none")} == {"s": "x", "f": "0.5", "n": "0", "none": "null"}
    assert str(shown["b"]).lower() == "false"
    if moment == "late":
        assert (shown["o.a.0"], shown["l.0"], shown["l.1"]) == ("1", "a", "b")
    elif double.fold == "server":
        assert (shown["o"], shown["l"]) == ('{"a":[1]}', '["a","b"]')
    (verdict,) = double.traces[trace_id].evaluations.values()
    assert (verdict["name"], verdict["score"], verdict["label"]) == ("Correctness", 1.0, "correct")
    (event,) = double.traces[trace_id].events.values()
    assert (event["event_type"], event["event_details"]) == ("quality", {"label": "good", "annotator": "ann"})
    assert double.traces[trace_id].name == "answer"

    said = {note.partition(":")[0] for note in scene.patches.notes}
    verdicts = {"evaluation 'Correctness'", "annotation 'quality'"}
    late = {*(f"trace metadata {key!r}" for key in VALUES), "trace user id", "trace tags"}
    assert said == (verdicts | late if moment == "late" else verdicts)
    counts = scene.processor.stats().destinations["langwatch"]
    assert (counts.lost, counts.waiting) == ({}, 0)


def test_a_child_says_nothing_of_its_trace(double):
    """Children are exported first, so their metadata would hide that of the trace: it stays on the span."""
    scene = Scene(double)
    with scene.tracer.start_as_current_span("root") as root:
        om.update_current_trace(metadata={"step": "of the trace"})
        with scene.tracer.start_as_current_span("child"):
            om.update_current_span(metadata={"step": "of the child"})
        scene.go_on()
    scene.go_on()
    trace_id = f"{root.get_span_context().trace_id:032x}"
    assert double.metadata(trace_id) == {"step": "of the trace"}
    child = next(span for span in double.traces[trace_id].spans if span.name == "child")
    assert json.loads(child.attributes["langwatch.params"]) == {"step": "of the child"}


def test_a_later_live_value_stands_under_either_fold(double):
    """The merge is done before the span leaves, so no fold has a say."""
    scene = Scene(double)
    with scene.tracer.start_as_current_span("root") as root:
        om.update_current_trace(metadata={"step": 1, "status": "started"})
        om.update_current_trace(metadata={"step": 2, "error": None})
    om.update_trace(om.SpanRef.from_span_context(root.get_span_context()), metadata={"step": 3})
    scene.go_on()
    shown = double.metadata(f"{root.get_span_context().trace_id:032x}")
    assert {key: str(value) for key, value in shown.items()} == {"step": "3", "status": "started", "error": "null"}
