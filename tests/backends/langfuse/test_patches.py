"""Langfuse's habits: what a client that believes every 200 would lose, and what becomes of each update."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from tests.backends.vendors.langfuse import PUBLIC_KEY, LangfuseDouble, Row, exporter, know
from tests.backends.vendors.server import KEY, Response

import otel_metadata as om
from otel_metadata.backends import langfuse
from otel_metadata.backends.langfuse.patches import LangfusePatchExporter
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.model.evaluation import Annotation, Evaluation, annotation_key
from otel_metadata.model.merge import Fields, Json
from otel_metadata.model.outcome import Delivered, Outcome, Pause, Rejected, Retry
from otel_metadata.model.patch import Patch
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.testing import ManualClock

TARGET = SpanRef(0xABC, 0x1)
TRACE = SpanRef(0xABC, 0)
AT = 1_700_000_000_000_000_000

ALL_TYPES = {"s": "x", "n": 0, "f": 0.5, "b": False, "none": None, "o": {"a": [1]}, "l": ["a", "b"]}


def patch(*given: tuple[str, str, str, Json], at: int = 0, target: SpanRef = TARGET) -> Patch:
    fields: Fields = {
        (level, kind, key): (value, (AT + at + place, 7))  # type: ignore[misc] # words of the tests
        for place, (level, kind, key, value) in enumerate(given)
    }
    return Patch(target, fields, (AT - 100, AT - 1) if target.span_id else None)


def metadata(at: int = 0, **values: Json) -> Patch:
    return patch(*(("span", "metadata", key, value) for key, value in values.items()), at=at)


def verdict(**parts: object) -> Patch:
    return patch(("span", "evaluation", "Correctness", Evaluation("Correctness", **parts).to_json()))


def note(**parts: object) -> Patch:
    value = Annotation("quality", annotator="ann", **parts)
    return patch(("span", "annotation", annotation_key("quality", "ann"), value.to_json()))


def send(to: LangfusePatchExporter, *patches: Patch) -> list[Outcome]:
    return list(to.export(patches, timeout_millis=30_000))


def paths(double: LangfuseDouble) -> list[str]:
    return [f"{request.method} {request.path.removeprefix('/api/public')}" for request in double.requests]


@pytest.fixture
def double() -> Iterator[LangfuseDouble]:
    """Langfuse 4, which keeps events only."""
    with LangfuseDouble() as double:
        know(double, metadata(k=1))
        yield double


@pytest.fixture
def older() -> Iterator[LangfuseDouble]:
    """Langfuse 3, which takes updates."""
    with LangfuseDouble("legacy") as double:
        know(double, metadata(k=1))
        yield double


@pytest.fixture
def to(double: LangfuseDouble) -> Iterator[LangfusePatchExporter]:
    made = exporter(double.url)
    yield made
    made.shutdown()


@pytest.fixture
def to_older(older: LangfuseDouble) -> Iterator[LangfusePatchExporter]:
    made = exporter(older.url)
    yield made
    made.shutdown()


class TestEventsOnly:
    def test_late_metadata_is_a_score_and_every_key_says_so(self, double, to):
        """The stored span is neither changed nor sent again."""
        (outcome,) = send(to, metadata(**ALL_TYPES))

        assert [one.partition(":")[0] for one in outcome.notes] == [f"metadata {key!r}" for key in ALL_TYPES]
        assert paths(double) == ["GET /health", "POST /scores"]
        assert double.duplicates() == []
        assert double.scores_of(TARGET.trace_id_hex, TARGET.span_id_hex) == {
            "otel_metadata": {
                "id": f"om-{metadata(**ALL_TYPES).id}-span",
                "traceId": TARGET.trace_id_hex,
                "observationId": TARGET.span_id_hex,
                "name": "otel_metadata",
                "value": "patch",
                "dataType": "CATEGORICAL",
                "metadata": ALL_TYPES,
                "timestamp": "2023-11-14T22:13:20.000Z",
            }
        }

    def test_the_next_update_keeps_what_the_score_held(self, double, to):
        """One score a span: written whole each time, for the server replaces it whole, and only on the same day."""
        day_ns = 86_400 * 10**9
        send(to, metadata(a=1, b=1), metadata(at=day_ns, b=2, c=3), metadata(at=2 * day_ns, a=None))
        held = double.scores_of(TARGET.trace_id_hex, TARGET.span_id_hex)["otel_metadata"]
        assert held["metadata"] == {"a": None, "b": 2, "c": 3}

    def test_an_older_update_does_not_win(self, double, to):
        """The higher version stands, whichever comes last."""
        send(to, metadata(at=10, k="later"), metadata(at=0, k="earlier"))
        assert double.scores_of(TARGET.trace_id_hex, TARGET.span_id_hex)["otel_metadata"]["metadata"] == {"k": "later"}

    def test_what_is_too_large_to_be_remembered_is_never_written_over(self, double, to):
        """Each large update is a score of its own, and the small one before it stays."""
        send(to, metadata(at=0, a=1), metadata(at=1, big="x" * 20_000), metadata(at=2, b=2))
        held = [one["metadata"] for one in double.scores.values()]
        assert held == [{"a": 1, "b": 2}, {"big": "x" * 20_000}]

    def test_an_update_that_failed_is_not_remembered(self, double, to):
        """What was refused does not come along with the next update."""
        double.fault = lambda request: Response(422, {}) if request.path.endswith("/scores") else None
        assert isinstance(send(to, metadata(bad=1))[0], Rejected)
        double.fault = None
        send(to, metadata(at=1, good=1))
        assert double.scores_of(TARGET.trace_id_hex, TARGET.span_id_hex)["otel_metadata"]["metadata"] == {"good": 1}

    def test_an_update_whose_answer_was_lost_is_replaced_by_the_next_try(self, double, to):
        """It was stored all the same, and comes again with more fields: still one score."""

        def store_and_cut(request):
            if not request.path.endswith("/scores"):
                return None
            double.answer(request)
            return double.cut

        double.fault = store_and_cut
        assert isinstance(send(to, metadata(a=1))[0], Retry)
        double.fault = None
        send(to, metadata(a=1, b=2))
        held = double.scores_of(TARGET.trace_id_hex, TARGET.span_id_hex)["otel_metadata"]
        assert held["metadata"] == {"a": 1, "b": 2}

    def test_metadata_of_the_trace_is_a_score_of_the_trace(self, double, to):
        """Also where no span is known; `trace-create` is refused, and a span would replace the root."""
        (outcome,) = send(to, patch(("trace", "metadata", "k", "x"), target=TRACE))
        assert len(outcome.notes) == 1
        assert double.scores_of(TRACE.trace_id_hex)["otel_metadata"]["metadata"] == {"k": "x"}

    def test_what_is_said_of_the_trace_never_replaces_its_root(self, double, to):
        """A later span without a parent would take the place of the trace's metadata, name and input."""
        root = double.rows[0]
        root.trace_metadata, root.input = {"source": "api"}, "hello"
        (outcome,) = send(
            to,
            patch(("trace", "user_id", "", "u1"), ("trace", "session_id", "", "s1"), ("trace", "tag", "late", True)),
        )
        assert isinstance(outcome, Delivered)
        assert double.trace(TARGET.trace_id_hex) == {
            "metadata": {"source": "api"},
            "name": "work",
            "input": "hello",
            "userId": "u1",
            "sessionId": "s1",
            "tags": ["late"],
        }
        added = double.rows[1]
        assert (added.parent_id, added.scope) == (TARGET.span_id_hex, "otel_metadata.patch")
        assert not [name for name in added.metadata["attributes"] if name.startswith("langfuse.internal")]

    def test_the_same_patch_again_is_the_same_span(self, double, to):
        """After a lost answer the span has the id that it had."""
        for _ in range(2):
            send(to, patch(("trace", "user_id", "", "u1")))
        assert double.rows[1].id == double.rows[2].id

    @pytest.mark.parametrize("first", ["span", "trace"])
    def test_what_is_said_of_the_trace_stands_over_what_its_span_says(self, double, to, first):
        """Langfuse has one user of a trace; that the other is not kept is told, whichever was said last."""
        second = {"span": "trace", "trace": "span"}[first]
        (outcome,) = send(to, patch((first, "user_id", "", first), (second, "user_id", "", second)))
        assert double.trace(TARGET.trace_id_hex)["userId"] == "trace"
        assert outcome.notes == ("user id: not kept, the trace has one of its own",)

    def test_a_span_that_was_rejected_is_not_delivered(self, double, to):
        """A success that says that it kept none of it is none."""
        said = {"partialSuccess": {"rejectedSpans": 1, "errorMessage": "too old"}}
        double.fault = lambda request: (
            Response(200, said, {"content-type": "application/json"}) if "/otel/" in request.path else None
        )
        (outcome,) = send(to, patch(("trace", "user_id", "", "u1")))
        assert (type(outcome), outcome.error.type) == (Rejected, "backend_rejection")

    def test_tags_are_not_united_by_the_server_so_late_ones_are_sent_together(self, double, to):
        """The newest list stands: what came late before is in it, and that earlier ones are gone is said of each."""
        outcomes = send(to, patch(("trace", "tag", "one", True)), patch(("trace", "tag", "two", True), at=10))
        assert double.trace(TARGET.trace_id_hex)["tags"] == ["one", "two"]
        assert outcomes[1].notes == ("trace tag 'two': tags that spans had before are not shown any more",)

    @pytest.mark.parametrize("kind", ["user_id", "session_id", "tag"])
    def test_a_bare_trace_has_no_span_to_be_the_parent(self, double, to, kind):
        """Without a parent the span would become the root: unsupported, and nothing is sent."""
        (outcome,) = send(to, patch(("trace", kind, "t", "x"), target=TRACE))
        assert (type(outcome), outcome.error.type) == (Rejected, "unsupported")
        assert len(double.rows) == 1

    @pytest.mark.parametrize(
        ("level", "kind"),
        [("span", kind) for kind in ("name", "input", "output", "status", "status_message", "attribute")]
        + [("trace", kind) for kind in ("name", "input", "output")],
    )
    def test_what_nothing_can_hold_is_not_delivered(self, double, to, level, kind):
        """Alone it is refused, beside others it is a note that names it."""
        (alone,) = send(to, patch((level, kind, "", "x")))
        assert (type(alone), alone.error.type) == (Rejected, "unsupported")
        (beside,) = send(to, patch((level, kind, "", "x"), ("span", "metadata", "k", 1)))
        prefix = "trace " if level == "trace" else ""
        assert any(one.startswith(f"{prefix}{kind.replace('_', ' ')}: unsupported") for one in beside.notes)

    @pytest.mark.parametrize("value", [None, "", 5])
    def test_a_user_that_is_no_text_is_not_delivered(self, to, value):
        """An empty one would be passed over by the server without a word."""
        (outcome,) = send(to, patch(("trace", "user_id", "", value)))
        assert (type(outcome), outcome.error.type) == (Rejected, "unsupported")

    def test_tags_of_the_span_are_under_the_key_of_the_live_ones(self, double, to):
        """Langfuse has tags of traces only."""
        send(to, patch(("span", "tag", "one", True)), patch(("span", "tag", "two", True), at=1))
        held = double.scores_of(TARGET.trace_id_hex, TARGET.span_id_hex)["otel_metadata"]
        assert held["metadata"] == {"tag.tags": ["one", "two"]}

    def test_scores_are_in_the_environment_of_the_spans(self, double):
        """A view of one environment shows both."""
        resource = Resource({"deployment.environment.name": "staging"})
        made = LangfusePatchExporter(double.url, public_key=PUBLIC_KEY, secret_key=KEY, resource=resource)
        send(made, metadata(k=1))
        made.shutdown()
        assert next(iter(double.scores.values()))["environment"] == "staging"

    def test_a_body_over_the_limit_is_not_sent(self, double, to):
        """It names the key and the limit, so that the outbox sends fewer fields at once."""
        (outcome,) = send(to, metadata(k="x" * 1_000_000))
        assert (type(outcome), outcome.error.type) == (Rejected, "too_large")
        assert "metadata 'k'" in outcome.error.message
        assert "1,000,000 bytes" in outcome.error.message
        assert paths(double) == ["GET /health"]


class TestVerdicts:
    @pytest.mark.parametrize(
        ("parts", "expected"),
        [
            ({"score": 0.0}, ("NUMERIC", 0.0)),
            ({"label": "good"}, ("CATEGORICAL", "good")),
            ({"label": "True"}, ("BOOLEAN", 1)),
            ({"label": "false"}, ("BOOLEAN", 0)),
            ({"score": 1.0, "label": "good"}, ("NUMERIC", 1.0)),
        ],
    )
    def test_an_evaluation_is_a_score(self, double, to, parts, expected):
        """Of the type of its value, with its explanation and who judged; a label beside a score is told."""
        (outcome,) = send(to, verdict(**parts, explanation="why", source="llm", metadata={"judge": "m"}))
        score = double.scores_of(TARGET.trace_id_hex, TARGET.span_id_hex)["Correctness"]
        assert (score["dataType"], score["value"], score["comment"]) == (*expected, "why")
        both = {"otel_metadata.label": "good"} if len(parts) == 2 else {}
        assert score["metadata"] == {"judge": "m", "otel_metadata.source": "llm", **both}
        assert len(outcome.notes) == len(both)

    def test_an_evaluation_again_replaces_the_first(self, double, to):
        """By its id, which follows from what is judged and the name."""
        send(to, verdict(score=0.0), verdict(score=1.0))
        assert double.scores_of(TARGET.trace_id_hex, TARGET.span_id_hex)["Correctness"]["value"] == 1.0

    def test_a_trace_is_judged_alike_from_any_of_its_spans(self, double, to):
        """One score, whether the target was a span or the trace alone."""
        value = Evaluation("C", score=1.0).to_json()
        for target in (TARGET, TRACE):
            one = patch(("trace", "evaluation", "C", value), target=target)
            send(to, Patch(target, one.fields))
        assert double.scores_of(TARGET.trace_id_hex)["C"]["value"] == 1.0

    def test_an_annotation_with_a_label_is_a_score(self, double, to):
        """With the text as its comment, and who said it."""
        send(to, note(label="good", text="well said"))
        score = double.scores_of(TARGET.trace_id_hex, TARGET.span_id_hex)["quality"]
        assert (score["value"], score["comment"]) == ("good", "well said")
        assert score["metadata"] == {"otel_metadata.source": "human", "otel_metadata.annotator": "ann"}

    def test_text_alone_is_a_comment_once(self, double, to):
        """Comments have no id of ours: the same patch again finds its own and adds none."""
        for _ in range(2):
            (outcome,) = send(to, note(text="well said"))
            assert isinstance(outcome, Delivered)
        (comment,) = double.comments
        assert comment["content"] == "quality (ann): well said"
        assert (comment["objectType"], comment["objectId"]) == ("OBSERVATION", TARGET.span_id_hex)

    def test_a_comment_on_a_bare_trace_is_on_the_trace(self, double, to):
        """There is no observation whose id is all zeros."""
        one = note(text="well said")
        send(to, Patch(TRACE, one.fields))
        assert (double.comments[0]["objectType"], double.comments[0]["objectId"]) == ("TRACE", TRACE.trace_id_hex)

    def test_a_comment_on_what_is_not_stored_yet_waits(self, double, to):
        """Spans are stored some time after they were taken: the comment is tried again."""
        double.rows.clear()
        (outcome,) = send(to, note(text="well said"))
        assert (type(outcome), outcome.error.type) == (Rejected, "segment_not_found")

    def test_a_comment_over_the_limit_is_not_sent(self, double, to):
        """It names the annotation and the limit; never the text."""
        (outcome,) = send(to, note(text="x" * 5_000))
        assert (type(outcome), outcome.error.type) == (Rejected, "too_large")
        assert outcome.error.message == "annotation 'quality': Langfuse takes 5,000 characters at once"
        assert double.comments == []

    def test_an_explanation_alone_is_a_comment_without_its_metadata(self, double, to):
        """A score needs a value; that the metadata has no place is said."""
        for _ in range(2):  # the second time it is there already
            (outcome,) = send(to, verdict(explanation="why", metadata={"judge": "m"}))
            assert [one["content"] for one in double.comments] == ["Correctness: why"]
            assert outcome.notes == (
                "evaluation 'Correctness': a comment, beside those that were there before",
                "evaluation 'Correctness': unsupported: a comment has no source and no metadata",
            )

    def test_one_refused_part_does_not_keep_the_others_back(self, double, to):
        """The metadata arrives; of the evaluation there is a note without a word of the server's."""
        double.fault = lambda request: (
            Response(400, {"message": "secret words"}) if b'"Correctness"' in request.body else None
        )
        evaluation = ("span", "evaluation", "Correctness", Evaluation("Correctness", score=1.0).to_json())
        (outcome,) = send(to, patch(("span", "metadata", "k", 1), evaluation))
        assert isinstance(outcome, Delivered)
        assert any(one.startswith("evaluation 'Correctness': patch_failure") for one in outcome.notes)
        assert "secret words" not in repr(outcome)


class TestScoreAnswers:
    def test_a_server_that_takes_lists_only_is_asked_once(self):
        """From 4.59 on: a 400 for one alone is tried as a list of one, and remembered."""
        with LangfuseDouble(lists="always", version="4.59.0") as double:
            made = exporter(double.url)
            outcomes = send(made, metadata(a=1), metadata(at=1, b=2))
            made.shutdown()
            assert [type(one) for one in outcomes] == [Delivered] * 2
            assert paths(double) == ["GET /health", *["POST /scores"] * 3]
            assert double.scores_of(TARGET.trace_id_hex, TARGET.span_id_hex)["otel_metadata"]["metadata"] == {
                "a": 1,
                "b": 2,
            }

    @pytest.mark.parametrize(
        ("answer", "expected"),
        [
            (Response(200, {"id": "x"}), Delivered),
            (Response(202, {"message": "Accepted"}), Delivered),
            (Response(207, {"accepted": 1, "rejected": 0, "errors": []}), Delivered),
            (Response(207, {"accepted": 0, "rejected": 1, "errors": [{"message": "no"}]}), Rejected),
            (Response(400, {"message": "no"}), Rejected),
            (Response(200, {}), Retry),
            (Response(200, []), Retry),
            (Response(200, ""), Retry),
            (Response(202, {}), Retry),
            (Response(207, {}), Retry),
            (Response(200, "<!doctype html><title>Sign in</title>", {"Content-Type": "text/html"}), Pause),
            (Response(403, {"message": "Ingestion suspended"}), Pause),
        ],
    )
    def test_only_what_says_so_is_a_success(self, double, to, answer, expected):
        """An id, an acceptance, or a count without rejections; everything else is none."""
        double.fault = lambda request: answer if request.path.endswith("/scores") else None
        (outcome,) = send(to, metadata(k=1))
        assert type(outcome) is expected


class TestMode:
    @pytest.mark.parametrize("version", ["4.16.0", "v4.0.0-rc.1", "12.0.0"])
    def test_from_version_4_on_no_update_is_tried(self, double, to, version):
        """Whatever the write mode: scores are taken in all of them."""
        double.version = version
        send(to, metadata(k=1))
        assert paths(double) == ["GET /health", "POST /scores"]

    @pytest.mark.parametrize("version", ["3.0.0", "v3.150.0", "2.93.8"])
    def test_before_version_4_the_observation_is_updated(self, older, to_older, version):
        """And health is asked once."""
        older.version = version
        send(to_older, metadata(k=1), metadata(at=1, k=2))
        update = ["GET /observations/0000000000000001", "POST /ingestion"]
        assert paths(older) == ["GET /health", *update, *update]

    def test_an_event_that_is_not_accepted_is_remembered(self):
        """A 207 with a 400 inside is no success: the patch goes as a score at once, and no update is tried again."""
        with LangfuseDouble("events_only", version="3.200.0") as double:
            know(double, metadata(k=1))
            made = exporter(double.url)
            outcomes = send(made, metadata(a=1), metadata(at=1, b=2))
            made.shutdown()
            assert [len(one.notes) for one in outcomes] == [1, 1]
            assert paths(double).count("POST /ingestion") == 1
            assert double.scores_of(TARGET.trace_id_hex, TARGET.span_id_hex)["otel_metadata"]["metadata"] == {
                "a": 1,
                "b": 2,
            }

    def test_a_server_that_becomes_version_4_meanwhile_is_noticed(self, older, to_older):
        """Its old endpoint answers 404, which is not taken for an unknown span before its health was asked again."""
        send(to_older, metadata(a=1))
        older.mode, older.version = "events_only", "4.16.0"
        (outcome,) = send(to_older, metadata(at=1, b=2))
        assert isinstance(outcome, Delivered)
        assert older.scores_of(TARGET.trace_id_hex, TARGET.span_id_hex)["otel_metadata"]["metadata"] == {"b": 2}

    @pytest.mark.parametrize("body", [{}, [], {"version": 4}, {"version": "unknown"}, ""])
    def test_a_health_that_says_no_version_is_asked_again(self, double, to, body):
        """Nothing is sent to a server of which nothing is known."""
        double.fault = lambda request: Response(200, body) if request.path.endswith("/health") else None
        (outcome,) = send(to, metadata(k=1))
        assert isinstance(outcome, Retry)
        double.fault = None
        (outcome,) = send(to, metadata(k=1))
        assert isinstance(outcome, Delivered)


class TestUpdates:
    @pytest.mark.parametrize("kind", ["SPAN", "GENERATION", "AGENT"])
    def test_an_observation_is_found_again_and_written_whole(self, older, to_older, kind):
        """A wrong type or start makes a second row, and where the read is skipped what is not sent is gone."""
        older.skips_read = True
        row = older.rows[0]
        row.type, row.input, row.output, row.parent_id, row.metadata = kind, {"q": 1}, "bye", "00f", {"a": 1, "b": 1}
        (outcome,) = send(to_older, metadata(b=None, c={"d": [1]}))
        assert outcome == Delivered()
        (row,) = older.rows
        assert (row.type, row.name, row.input, row.output, row.parent_id) == (kind, "work", {"q": 1}, "bye", "00f")
        assert row.metadata == {"a": 1, "b": None, "c": {"d": [1]}}

    def test_what_an_update_cannot_say_is_told(self, to_older):
        """A status code becomes a level, and a null may change nothing."""
        (outcome,) = send(
            to_older,
            patch(("span", "status", "", 404), ("span", "output", "", None), ("trace", "input", "", None)),
        )
        assert outcome == Delivered(
            (
                "status: kept as the level ERROR, Langfuse has no status codes",
                "output: a null may leave the earlier value",
                "trace input: a null may leave the earlier value",
            )
        )

    def test_what_the_span_itself_is_can_be_changed(self, older, to_older):
        """Name, input, output, level, message and tags."""
        (outcome,) = send(
            to_older,
            patch(
                ("span", "name", "", "answer"),
                ("span", "input", "", {"q": 1}),
                ("span", "output", "", "bye"),
                ("span", "status", "", "error"),
                ("span", "status_message", "", "too slow"),
                ("span", "tag", "one", True),
            ),
        )
        assert outcome == Delivered()
        (row,) = older.rows
        assert (row.name, row.input, row.output) == ("answer", {"q": 1}, "bye")
        assert (row.level, row.status_message) == ("ERROR", "too slow")
        assert row.metadata == {"tag.tags": ["one"]}

    def test_the_trace_is_changed_without_a_span(self, older, to_older):
        """`trace-create` is an upsert; a nested value may be merged by the server, which is said."""
        (outcome,) = send(
            to_older,
            patch(
                ("trace", "metadata", "k", "x"),
                ("trace", "metadata", "o", {"a": 1}),
                ("trace", "user_id", "", "u1"),
                ("trace", "session_id", "", "s1"),
                ("trace", "tag", "one", True),
                ("trace", "name", "", "chat"),
                target=TRACE,
            ),
        )
        assert [one.partition(":")[0] for one in outcome.notes] == ["trace metadata 'o'"]
        shown = older.trace(TRACE.trace_id_hex)
        assert (shown["userId"], shown["sessionId"], shown["tags"], shown["name"]) == ("u1", "s1", ["one"], "chat")
        assert shown["metadata"] == {"k": "x", "o": {"a": 1}}
        assert len(older.rows) == 1

    @pytest.mark.parametrize("target", [SpanRef(0xABC, 9), SpanRef(0xDEF, 1), SpanRef(0xDEF, 0)])
    def test_an_unknown_target_is_told_and_not_made(self, older, to_older, target):
        """A span, a span in another trace, a trace: an upsert would make an empty one."""
        (outcome,) = send(to_older, patch(("trace", "metadata", "k", 1), target=target))
        assert (type(outcome), outcome.error.type) == (Rejected, "segment_not_found")
        assert "POST /ingestion" not in paths(older)

    def test_an_observation_that_is_too_large_to_be_read_gets_a_score(self, older, to_older):
        """It could not be written whole."""
        older.rows[0].input = "x" * 70_000
        (outcome,) = send(to_older, metadata(k=1))
        assert len(outcome.notes) == 1
        assert older.scores_of(TARGET.trace_id_hex, TARGET.span_id_hex)["otel_metadata"]["metadata"] == {"k": 1}

    def test_the_same_patch_again_is_the_same_event(self, older, to_older):
        """Its id is the patch's: the server keeps events under it."""
        for _ in range(2):
            send(to_older, metadata(k=1))
        first, second = (request.json for request in older.requests if request.path.endswith("/ingestion"))
        assert first["batch"][0]["id"] == second["batch"][0]["id"] == f"om-{metadata(k=1).id}-span-update"

    @pytest.mark.parametrize(
        ("status", "expected"),
        [(201, Delivered), (400, Rejected), (404, Rejected), (401, Pause), (429, Retry), (500, Retry), (None, Retry)],
    )
    def test_what_counts_is_the_status_inside_the_207(self, older, to_older, status, expected):
        """The status of the whole is 207 whatever became of the event; one that is not spoken of is tried again."""

        def fault(request):
            if not request.path.endswith("/ingestion"):
                return None
            said = {"id": request.json["batch"][0]["id"] if status else "another", "status": status or 201}
            where = "successes" if status in {201, None} else "errors"
            return Response(207, {"successes": [], "errors": [], where: [{**said, "message": "no"}]})

        older.fault = fault
        (outcome,) = send(to_older, metadata(k=1))
        assert type(outcome) is expected


class Recording:
    """A patch exporter that remembers what its backend's said."""

    def __init__(self, inner: LangfusePatchExporter) -> None:
        self.inner = inner
        self.name, self.max_batch, self.grace_millis = inner.name, inner.max_batch, inner.grace_millis
        self.reports_missing, self.convergence = inner.reports_missing, inner.convergence
        self.force_flush, self.shutdown = inner.force_flush, inner.shutdown
        self.notes: list[str] = []

    def export(self, patches: Sequence[Patch], *, timeout_millis: int) -> Sequence[Outcome]:
        outcomes = self.inner.export(patches, timeout_millis=timeout_millis)
        for outcome in outcomes:
            assert isinstance(outcome, Delivered), outcome
            self.notes += outcome.notes
        return outcomes


class Application:
    """An application whose only destination is a double, with a worker that is stepped by hand."""

    def __init__(self, double: LangfuseDouble) -> None:
        made = langfuse.destination(
            public_key=PUBLIC_KEY, secret_key=KEY, base_url=double.url, resource=Resource({}), hold_millis=60_000
        )
        self.patches = Recording(made.patch_exporter)
        destination = om.Destination(
            "langfuse", made.span_exporter, self.patches, made.dialect, hold_millis=made.hold_millis
        )
        self.processor = om.MetadataSpanProcessor(
            destination, settings=OutboxSettings(), clock=ManualClock(), start_workers=False
        )
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(self.processor)
        self.tracer = self.provider.get_tracer("application")


@pytest.fixture(params=["events_only", "dual", "legacy"])
def server(request: pytest.FixtureRequest) -> Iterator[LangfuseDouble]:
    with LangfuseDouble(request.param) as double:
        yield double


def shown(metadata: dict[str, Json]) -> dict[str, Json]:
    return {key: value for key, value in metadata.items() if key not in {"attributes", "scope"}}


@pytest.mark.parametrize("when", ["live", "in_flight", "late"])
def test_no_key_is_lost_and_each_that_is_elsewhere_is_told(server, when):
    """The same updates at any time: what Langfuse then shows, and a note for each field that is not on the span."""
    application = Application(server)
    with application.tracer.start_as_current_span("work") as span:
        ref = om.SpanRef.from_span_context(span.get_span_context())
        if when == "live":
            receipt = om.update_current_span(metadata=ALL_TYPES)
            om.update_current_trace(user_id="u1", tags=["beta"])
    if when == "late":
        assert application.processor.force_flush()
    if when != "live":
        receipt = om.update_span(ref, metadata=ALL_TYPES)
        om.update_trace(ref, user_id="u1", tags=["beta"])
    om.score_span(ref, "Correctness", score=0.5, explanation="half of it")
    om.annotate_span(ref, "quality", text="well said", annotator="ann")
    assert receipt.route == when
    assert application.processor.force_flush()

    keeps_beside = when == "late" and server.mode != "legacy"
    scores = server.scores_of(ref.trace_id_hex, ref.span_id_hex)
    on_span = shown(server.observation(ref.span_id_hex).metadata)
    if keeps_beside:
        assert (on_span, scores["otel_metadata"]["metadata"]) == ({}, ALL_TYPES)
    else:
        assert (on_span, scores.keys()) == (ALL_TYPES, {"Correctness"})
    trace = server.trace(ref.trace_id_hex)
    assert (trace["name"], trace["userId"], trace["tags"]) == ("work", "u1", ["beta"])
    assert (scores["Correctness"]["value"], scores["Correctness"]["comment"]) == (0.5, "half of it")
    assert [one["content"] for one in server.comments] == ["quality (ann): well said"]
    assert server.duplicates() == []

    told = [one.partition(":")[0] for one in application.patches.notes]
    elsewhere = [*(f"metadata {key!r}" for key in ALL_TYPES), "trace tag 'beta'"] if keeps_beside else []
    assert sorted(told) == sorted([*elsewhere, "annotation 'quality'"])


def test_a_row_has_what_a_trace_view_asks_for():
    """The double itself: a span without a parent that comes later is what the trace shows."""
    with LangfuseDouble() as double:
        double.rows += [
            Row("1", "t", None, "first", "SPAN", "2026-11-20", input="in"),
            Row("2", "t", None, "second", "SPAN", "2026-11-20"),
        ]
        assert (double.trace("t")["name"], double.trace("t")["input"]) == ("second", None)
