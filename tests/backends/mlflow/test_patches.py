"""What is particular to MLflow: its bad habits, and an update's way into it live, in flight and late."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from tests.backends.vendors.mlflow import MlflowDouble
from tests.backends.vendors.server import KEY, Response
from tests.strategies import field_sets

import otel_metadata as om
from otel_metadata.backends import mlflow
from otel_metadata.backends.mlflow.patches import MlflowPatchExporter
from otel_metadata.model.evaluation import Annotation, Evaluation, annotation_key
from otel_metadata.model.merge import FieldName, Json
from otel_metadata.model.outcome import Delivered, Outcome, Rejected, Retry
from otel_metadata.model.patch import Patch
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.testing import ManualClock

AT = 1_700_000_000_000_000_000
TARGET = SpanRef(0xABC, 0xD)
DOCUMENT: dict[str, Json] = {"s": "x", "n": 0, "f": 0.5, "b": False, "none": None, "o": {"a": [1]}, "l": ["a", "b"]}
AS_TEXT = {"s": "x", "n": "0", "f": "0.5", "b": "false", "none": "null", "o": '{"a":[1]}', "l": '["a","b"]'}


@pytest.fixture
def double() -> Iterator[MlflowDouble]:
    with MlflowDouble() as double:
        yield double


@pytest.fixture
def exporter(double: MlflowDouble) -> Iterator[MlflowPatchExporter]:
    exporter = MlflowPatchExporter(
        double.url, headers={"authorization": f"Bearer {KEY}"}, expectations={"expected_answer"}
    )
    yield exporter
    exporter.shutdown()


def patch(fields: dict[FieldName, Json], *, target: SpanRef = TARGET, at: int = AT) -> Patch:
    return Patch(target, {name: (value, (at + place, 7)) for place, (name, value) in enumerate(fields.items())})


def sent(exporter: MlflowPatchExporter, fields: dict[FieldName, Json], **options: Any) -> Outcome:
    (outcome,) = exporter.export([patch(fields, **options)], timeout_millis=5_000)
    return outcome


def evaluation(**parts: Any) -> dict[FieldName, Json]:
    return {("span", "evaluation", "Correctness"): Evaluation("Correctness", **parts).to_json()}


def annotation(name: str = "quality", annotator: str | None = "ann", **parts: Any) -> dict[FieldName, Json]:
    note = Annotation(name, annotator=annotator, **parts)
    return {("span", "annotation", annotation_key(name, annotator)): note.to_json()}


def assessments(double: MlflowDouble, target: SpanRef = TARGET) -> list[dict[str, Any]]:
    """Return what is stored, without what names it."""
    names = {"assessment_id", "trace_id", "create_time", "last_update_time"}
    stored = double.know(target.trace_id)["assessments"].values()
    return [{part: value for part, value in one.items() if part not in names} for one in stored]


class TestTags:
    def test_metadata_of_the_trace_becomes_tags_of_text(self, double, exporter):
        """A text is kept as it is; everything else is JSON text, and a note says so by key."""
        trace = double.know(TARGET.trace_id)
        outcome = sent(exporter, {("trace", "metadata", key): value for key, value in DOCUMENT.items()})
        assert trace["tags"] == AS_TEXT
        assert outcome == Delivered(
            tuple(
                f"trace metadata {key!r}: kept as JSON text, as a trace tag is a text" for key in DOCUMENT if key != "s"
            )
        )

    def test_name_tags_user_and_session_are_tags_too(self, double, exporter):
        """The name renames the trace; what MLflow knows under another word only with the spans is noted."""
        trace = double.know(TARGET.trace_id)
        outcome = sent(
            exporter,
            {
                ("trace", "name", ""): "chat",
                ("trace", "tag", "vip"): True,
                ("trace", "user_id", ""): "u1",
                ("trace", "session_id", ""): "s1",
            },
        )
        assert trace["tags"] == {"mlflow.traceName": "chat", "tag.vip": "true", "user.id": "u1", "session.id": "s1"}
        assert outcome == Delivered(
            (
                "trace tag 'vip': kept as the trace tag 'tag.vip'",
                "trace user id: kept as the trace tag 'user.id'",
                "trace session id: kept as the trace tag 'session.id'",
            )
        )

    def test_what_mlflow_would_cut_is_not_sent(self, double, exporter):
        """4096 characters go, however many bytes; one more, which is cut with a 200, is told by key and limit."""
        trace = double.know(TARGET.trace_id)
        fields: dict[FieldName, Json] = {
            ("trace", "metadata", "fits"): "é" * 4096,
            ("trace", "metadata", "k"): "e" * 4097,
        }
        outcome = sent(exporter, fields)
        assert outcome == Delivered(("trace metadata 'k': not sent, as MLflow cuts a trace tag after 4096 characters",))
        assert trace["tags"] == {"fits": "é" * 4096}
        assert len(double.requests) == 1

    def test_one_that_is_too_long_and_nothing_else_is_rejected(self, double, exporter):
        """Nothing is sent, and the error says so."""
        outcome = sent(exporter, {("trace", "metadata", "k"): "e" * 4097})
        assert (type(outcome), outcome.error.type) == (Rejected, "too_large")
        assert double.requests == []

    @pytest.mark.parametrize(
        "key", ["a,b", "a$", "a//b", "/a", "a/", "..", "a/../b", "a\n", "k" * 251, "mlflow.artifactLocation"]
    )
    def test_a_key_that_mlflow_refuses_or_owns_is_not_sent(self, double, exporter, key):
        """Characters, paths that are not clean, length, and keys with which MLflow finds its own files."""
        double.know(TARGET.trace_id)
        outcome = sent(exporter, {("trace", "metadata", key): "x"})
        assert (type(outcome), outcome.error.type) == (Rejected, "unsupported")
        assert double.requests == []

    @pytest.mark.parametrize("key", ["a.b", "a b", "a:b", "a/b", "user-id", "naïve", "k" * 250])
    def test_a_key_that_mlflow_takes_is_sent(self, double, exporter, key):
        """The check refuses nothing that MLflow accepts."""
        trace = double.know(TARGET.trace_id)
        assert sent(exporter, {("trace", "metadata", key): "x"}) == Delivered()
        assert trace["tags"] == {key: "x"}

    def test_a_trace_that_is_unknown_is_no_bad_request(self, exporter):
        """400 FOREIGN KEY is what MLflow says for it: to be tried again, not given up; none of its text is told."""
        outcome = sent(exporter, {("trace", "metadata", "secret-key"): "secret"})
        assert (type(outcome), outcome.error.type) == (Rejected, "segment_not_found")
        assert "secret" not in outcome.error.message

    def test_input_and_output_of_a_trace_are_unsupported(self, double, exporter):
        """MLflow takes them from its root span alone."""
        double.know(TARGET.trace_id)
        outcome = sent(exporter, {("trace", "input", ""): "hello"})
        assert (type(outcome), outcome.error.type) == (Rejected, "unsupported")


class TestSpan:
    def test_metadata_of_a_stored_span_is_kept_in_one_assessment(self, double, exporter):
        """Every key is there as text, and every key has a note."""
        double.know(TARGET.trace_id)
        outcome = sent(exporter, {("span", "metadata", key): value for key, value in DOCUMENT.items()})
        assert assessments(double) == [
            {
                "assessment_name": "otel_metadata",
                "span_id": "000000000000000d",
                "source": {"source_type": "CODE", "source_id": "otel_metadata"},
                "feedback": {"value": None},
                "rationale": "What was said of the span after it was stored.",
                "metadata": AS_TEXT,
            }
        ]
        assert outcome == Delivered(
            tuple(
                f"metadata {key!r}: kept as text in the assessment 'otel_metadata'; MLflow changes no stored span"
                for key in DOCUMENT
            )
        )

    def test_a_second_patch_is_merged_at_the_first_level(self, double, exporter):
        """What the first one said stays, what the second one says again is replaced: 500 is no failure here."""
        double.know(TARGET.trace_id)
        sent(exporter, {("span", "metadata", "a"): 1, ("span", "metadata", "o"): {"x": 1}})
        sent(exporter, {("span", "metadata", "o"): {"y": 2}, ("span", "metadata", "b"): 2}, at=AT + 10)
        (assessment,) = assessments(double)
        assert assessment["metadata"] == {"a": "1", "o": '{"y":2}', "b": "2"}

    def test_other_fields_of_the_span_are_kept_beside_the_metadata(self, double, exporter):
        """None of them is in the way of a metadata key."""
        double.know(TARGET.trace_id)
        outcome = sent(
            exporter,
            {
                ("span", "metadata", "output"): "mine",
                ("span", "output", ""): {"a": 1},
                ("span", "attribute", "app.key"): 5,
                ("span", "tag", "vip"): True,
                ("span", "name", ""): "answer",
            },
        )
        (assessment,) = assessments(double)
        assert assessment["metadata"] == {
            "output": "mine",
            "otel_metadata.output": '{"a":1}',
            "attribute.app.key": "5",
            "tag.vip": "true",
            "otel_metadata.name": "answer",
        }
        assert isinstance(outcome, Delivered)
        assert len(outcome.notes) == 5

    def test_two_spans_of_one_trace_have_an_assessment_each(self, double, exporter):
        """The id follows from the span as well."""
        for span_id in (1, 2):
            sent_to = SpanRef(TARGET.trace_id, span_id)
            double.know(TARGET.trace_id)
            sent(exporter, {("span", "metadata", "k"): span_id}, target=sent_to)
        assert [(one["span_id"][-1], one["metadata"]) for one in assessments(double)] == [
            ("1", {"k": "1"}),
            ("2", {"k": "2"}),
        ]

    def test_a_bare_trace_has_no_span_to_put_it_on(self, double, exporter):
        """A field of a span for a trace id alone is unsupported."""
        outcome = sent(exporter, {("span", "metadata", "k"): 1}, target=SpanRef(TARGET.trace_id, 0))
        assert (type(outcome), outcome.error.type) == (Rejected, "unsupported")


class TestVerdicts:
    def test_an_evaluation_becomes_feedback(self, double, exporter):
        """All but a label beside a score has a place; that, and metadata that is no text, is told."""
        double.know(TARGET.trace_id)
        fields = evaluation(
            score=0.5, label="partly", explanation="half of it", source="llm", metadata={"judge": "m", "n": 3}
        )
        outcome = sent(exporter, fields)
        assert assessments(double) == [
            {
                "assessment_name": "Correctness",
                "span_id": "000000000000000d",
                "source": {"source_type": "LLM_JUDGE", "source_id": "otel_metadata"},
                "feedback": {"value": 0.5},
                "rationale": "half of it",
                "metadata": {"judge": "m", "n": "3", "otel_metadata.label": "partly"},
            }
        ]
        assert outcome == Delivered(
            (
                "evaluation 'Correctness': its label is kept in the assessment's metadata",
                "evaluation 'Correctness': 'n' is kept as JSON text",
            )
        )

    def test_an_annotation_becomes_feedback_of_a_person(self, double, exporter):
        """Two annotators of one name are two; each without a note, as nothing is changed."""
        double.know(TARGET.trace_id)
        assert sent(exporter, annotation(label="good", text="well said")) == Delivered()
        assert sent(exporter, annotation(annotator=None, score=1.0), at=AT + 5) == Delivered()
        head = {"assessment_name": "quality", "span_id": "000000000000000d"}
        assert assessments(double) == [
            {
                **head,
                "source": {"source_type": "HUMAN", "source_id": "ann"},
                "feedback": {"value": "good"},
                "rationale": "well said",
                "metadata": {},
            },
            {
                **head,
                "source": {"source_type": "HUMAN", "source_id": "default"},
                "feedback": {"value": 1.0},
                "metadata": {},
            },
        ]

    def test_a_name_of_an_expectation_makes_one(self, double, exporter):
        """It has no rationale, so the text is its value."""
        double.know(TARGET.trace_id)
        assert sent(exporter, annotation("expected_answer", text="Paris")) == Delivered()
        (assessment,) = assessments(double)
        assert assessment["expectation"] == {"value": "Paris"}
        assert "feedback" not in assessment

    def test_an_expectation_without_a_value_is_unsupported(self, double, exporter):
        """MLflow has none."""
        outcome = sent(exporter, annotation("expected_answer"))
        assert (type(outcome), outcome.error.type) == (Rejected, "unsupported")

    def test_a_verdict_on_the_trace_names_no_span(self, double, exporter):
        """Also when the target is a span of it."""
        double.know(TARGET.trace_id)
        sent(exporter, {("trace", "evaluation", "Helpful"): Evaluation("Helpful", score=1.0).to_json()})
        (assessment,) = assessments(double)
        assert "span_id" not in assessment

    def test_the_same_again_changes_nothing(self, double, exporter):
        """Id and time follow from the patch: MLflow's 500 for an id that is there means that it arrived."""
        double.know(TARGET.trace_id)
        fields = evaluation(score=0.5, explanation="half of it", metadata={"judge": "m"})
        sent(exporter, fields)
        before = json.loads(json.dumps(double.traces))
        (stored,) = double.know(TARGET.trace_id)["assessments"].values()
        assert (stored["create_time"], stored["last_update_time"]) == ("2023-11-14T22:13:20+00:00",) * 2
        assert isinstance(sent(exporter, fields), Delivered)
        assert double.traces == before

    def test_a_later_verdict_replaces_the_whole_one(self, double, exporter):
        """Nothing of the former is left: no explanation, no metadata, no source."""
        double.know(TARGET.trace_id)
        sent(exporter, evaluation(score=0.5, label="partly", explanation="why", source="llm", metadata={"judge": "m"}))
        sent(exporter, evaluation(label="correct"), at=AT + 5)
        assert assessments(double) == [
            {
                "assessment_name": "Correctness",
                "span_id": "000000000000000d",
                "source": {"source_type": "CODE", "source_id": "otel_metadata"},
                "feedback": {"value": "correct"},
                "metadata": {},
            }
        ]

    def test_ids_fit_the_column_and_differ_by_field(self, double, exporter):
        """At most 50 characters; another name, another id."""
        double.know(TARGET.trace_id)
        sent(exporter, {**evaluation(score=1.0), **annotation(label="good"), ("span", "metadata", "k"): 1})
        ids = [*double.know(TARGET.trace_id)["assessments"]]
        assert len(set(ids)) == 3
        assert all(len(one) <= 50 for one in ids)

    def test_a_name_or_annotator_over_the_limit_is_not_sent(self, double, exporter):
        """250 characters, which some of MLflow's databases enforce and others do not."""
        for fields in (annotation("q" * 251, label="x"), annotation(annotator="a" * 251, label="x")):
            outcome = sent(exporter, fields)
            assert (type(outcome), outcome.error.type) == (Rejected, "too_large")
        assert double.requests == []


class TestAnswers:
    def test_an_unknown_trace_is_told_for_assessments_too(self, exporter):
        """404 with MLflow's own error is about the trace, not about the endpoint."""
        outcome = sent(exporter, evaluation(score=1.0))
        assert (type(outcome), outcome.error.type) == (Rejected, "segment_not_found")

    def test_metadata_that_was_dropped_is_told_by_key(self, double, exporter):
        """200 does not mean that all was read: the answer is compared with what was sent."""
        double.know(TARGET.trace_id)

        def half_read(request):
            stored = request.json["assessment"] | {"metadata": {"judge": "m"}}
            return Response(200, {"assessment": stored})

        double.fault = half_read
        outcome = sent(exporter, evaluation(score=1.0, metadata={"judge": "m", "n": "3"}))
        assert outcome == Delivered(("evaluation 'Correctness': 'n' was not kept",))

    def test_another_id_than_ours_is_told(self, double, exporter):
        """A backend that gives ids of its own stores a second one when the patch comes again."""
        double.fault = lambda request: Response(
            200, {"assessment": request.json["assessment"] | {"assessment_id": "a-1"}}
        )
        outcome = sent(exporter, evaluation(score=1.0))
        assert isinstance(outcome, Delivered)
        assert "id of the backend's own" in outcome.notes[0]

    def test_a_500_of_another_kind_is_a_failure(self, double, exporter):
        """Only the violated constraint means that it is there."""
        double.know(TARGET.trace_id)
        double.fault = lambda _: Response(500, {"error_code": "INTERNAL_ERROR", "message": "database is locked"})
        assert isinstance(sent(exporter, evaluation(score=1.0)), Retry)

    def test_a_field_that_is_refused_does_not_keep_the_others_back(self, double, exporter):
        """What MLflow answers 400 for is a note when something else of the patch arrived."""
        trace = double.know(TARGET.trace_id)
        double.fault = lambda request: Response(400, {"error_code": "X"}) if request.json["key"] == "a" else None
        outcome = sent(exporter, {("trace", "metadata", "a"): "x", ("trace", "metadata", "b"): "y"})
        assert outcome == Delivered(("trace metadata 'a': the backend cannot use what was sent (HTTP 400)",))
        assert trace["tags"] == {"b": "y"}

    def test_a_failure_in_the_middle_is_a_retry_of_the_whole(self, double, exporter):
        """The patch comes again, and what has arrived already is set to the same."""
        trace = double.know(TARGET.trace_id)
        fields: dict[FieldName, Json] = {("trace", "metadata", "a"): "x", ("trace", "metadata", "b"): "y"}
        double.fault = lambda request: Response(503) if request.json["key"] == "b" else None
        assert isinstance(sent(exporter, fields), Retry)
        double.fault = None
        assert sent(exporter, fields) == Delivered()
        assert trace["tags"] == {"a": "x", "b": "y"}


@given(fields=field_sets(), with_span=st.booleans())
def test_whatever_is_set_no_key_is_lost_without_a_word(fields, with_span):
    """Metadata is stored as it was given, or a note or error names its key; twice is the same as once."""
    target = TARGET if with_span else SpanRef(TARGET.trace_id, 0)
    with MlflowDouble() as double:
        trace = double.know(TARGET.trace_id)
        exporter = MlflowPatchExporter(double.url)
        outcomes = [exporter.export([Patch(target, fields)], timeout_millis=10_000)[0] for _ in range(2)]
        exporter.shutdown()
    assert outcomes[0] == outcomes[1]
    assert isinstance(outcomes[0], Delivered | Rejected)
    said = "\n".join(outcomes[0].notes) if isinstance(outcomes[0], Delivered) else outcomes[0].error.message
    for (level, kind, key), (value, _) in fields.items():
        if kind == "metadata" and not (level == "trace" and trace["tags"].get(key) == value):
            assert f"metadata {key!r}: " in said


class Watched:
    """The exporter, and what it answered."""

    def __init__(self, inner: MlflowPatchExporter) -> None:
        self.inner = inner
        self.outcomes: list[Outcome] = []
        # Attributes of its own: from Python 3.12 on a protocol does not look into `__getattr__`.
        for name in ("name", "max_batch", "grace_millis", "reports_missing", "convergence", "force_flush", "shutdown"):
            setattr(self, name, getattr(inner, name))

    def export(self, patches: Sequence[Patch], *, timeout_millis: int) -> Sequence[Outcome]:
        outcomes = self.inner.export(patches, timeout_millis=timeout_millis)
        self.outcomes += outcomes
        return outcomes

    @property
    def notes(self) -> list[str]:
        assert all(isinstance(one, Delivered) for one in self.outcomes), self.outcomes
        return [note for one in self.outcomes for note in one.notes]


class Application:
    """An application whose destination is the double; its worker is stepped by hand."""

    def __init__(self, double: MlflowDouble) -> None:
        made = mlflow.destination(tracking_uri=double.url, experiment_id="1", token=KEY)
        self.watched = Watched(made.patch_exporter)  # type: ignore[arg-type] # what it makes
        destination = om.Destination("mlflow", made.span_exporter, self.watched, made.dialect)
        self.double = double
        self.clock = ManualClock()
        self.processor = om.MetadataSpanProcessor(destination, clock=self.clock, start_workers=False)
        self.provider = TracerProvider(resource=Resource({"service.name": "app"}), shutdown_on_exit=False)
        self.provider.add_span_processor(self.processor)
        self.tracer = self.provider.get_tracer("application")

    def deliver(self) -> None:
        # Its time in the queue counts from when it is admitted, which a look at the counts does too.
        self.processor.stats()
        self.clock.advance(60_000)
        while self.processor.workers[0].step():
            pass

    def trace(self, ref: om.SpanRef) -> dict[str, Any]:
        return self.double.traces[f"tr-{ref.trace_id_hex}"]

    def attributes(self, ref: om.SpanRef) -> dict[str, Any]:
        return self.trace(ref)["spans"][ref.span_id_hex]["attributes"]


@pytest.fixture
def application(double: MlflowDouble) -> Application:
    return Application(double)


def say_all(target: om.SpanRef | None) -> str:
    """Say one thing of each kind, of the current span or of *target*; return the route."""
    trace: dict[str, Any] = {"metadata": {"plan": "pro", "quota": 5}, "user_id": "u1", "tags": ["vip"]}
    if target is None:
        receipt = om.update_current_span(metadata=DOCUMENT)
        om.update_current_trace(**trace)
        om.score_current_span("Correctness", score=0.5, explanation="half of it")
        om.annotate_current_span("quality", label="good", annotator="ann")
    else:
        receipt = om.update_span(target, metadata=DOCUMENT)
        om.update_trace(target, **trace)
        om.score_span(target, "Correctness", score=0.5, explanation="half of it")
        om.annotate_span(target, "quality", label="good", annotator="ann")
    return receipt.route


VERDICTS = {"Correctness": {"value": 0.5}, "quality": {"value": "good"}}


@pytest.mark.parametrize("when", ["live", "in_flight"])
def test_what_comes_before_the_export_is_on_the_span(application, when):
    """Metadata with every null, tags and user of the trace; the verdicts follow as assessments, without a note."""
    with application.tracer.start_as_current_span("work") as span:
        ref = om.SpanRef.from_span_context(span.get_span_context())
        if when == "live":
            assert say_all(None) == when
    if when == "in_flight":
        assert say_all(ref) == when
    application.deliver()

    assert json.loads(application.attributes(ref)["metadata"]) == DOCUMENT
    trace = application.trace(ref)
    assert trace["tags"] == {"service.name": "app", "plan": "pro", "quota": "5", "tag.vip": "true"}
    assert trace["metadata"] == {"mlflow.trace.user": "u1"}
    assert {one["assessment_name"]: one["feedback"] for one in trace["assessments"].values()} == VERDICTS
    assert application.watched.notes == []


def test_what_comes_after_the_export_is_beside_the_span(application):
    """The span stays as it was; metadata is in an assessment, the rest in tags, with a note for each changed key."""
    with application.tracer.start_as_current_span("work") as span:
        ref = om.SpanRef.from_span_context(span.get_span_context())
    application.deliver()
    assert say_all(ref) == "late"
    application.deliver()

    assert application.attributes(ref) == {}
    trace = application.trace(ref)
    assert trace["tags"] == {
        "service.name": "app",
        "plan": "pro",
        "quota": "5",
        "tag.vip": "true",
        "user.id": "u1",
    }
    found = {one["assessment_name"]: one for one in trace["assessments"].values()}
    assert found.pop("otel_metadata")["metadata"] == AS_TEXT
    assert {name: one["feedback"] for name, one in found.items()} == VERDICTS
    assert {note.partition(":")[0] for note in application.watched.notes} == {
        *(f"metadata {key!r}" for key in DOCUMENT),
        "trace metadata 'quota'",
        "trace tag 'vip'",
        "trace user id",
    }


def test_a_session_that_is_too_long_does_not_cost_the_batch(application):
    """It is kept off the span, where MLflow would refuse everybody's, and becomes a tag."""
    with application.tracer.start_as_current_span("other"):
        pass
    with application.tracer.start_as_current_span("work") as span:
        om.update_current_trace(session_id="s" * 251)
    ref = om.SpanRef.from_span_context(span.get_span_context())
    application.deliver()
    assert len(application.double.traces) == 2
    assert "session.id" not in application.attributes(ref)
    assert application.trace(ref)["tags"]["session.id"] == "s" * 251


def test_what_does_not_fit_a_tag_is_told_though_it_was_set_live(application):
    """MLflow skips such a key on a span, and cuts such a value, with no word: both leave as a patch that has one."""
    with application.tracer.start_as_current_span("work") as span:
        om.update_current_trace(metadata={"a,b": "x", "long": "e" * 4097, "fits": "y"})
    ref = om.SpanRef.from_span_context(span.get_span_context())
    application.deliver()
    assert application.trace(ref)["tags"] == {"service.name": "app", "fits": "y"}
    (outcome,) = application.watched.outcomes
    assert isinstance(outcome, Rejected)
    assert "'a,b'" in outcome.error.message
    assert "'long'" in outcome.error.message


def test_a_text_in_quotes_keeps_them(application):
    """MLflow reads an attribute that is a text in JSON, and would drop the quotes."""
    with application.tracer.start_as_current_span("work") as span:
        om.update_current_trace(metadata={"quoted": '"a"', "escaped": '"\\"a\\""'}, user_id='"u"')
    ref = om.SpanRef.from_span_context(span.get_span_context())
    application.deliver()
    assert application.trace(ref)["tags"]["quoted"] == '"a"'
    assert application.trace(ref)["tags"]["escaped"] == '"\\"a\\""'
    assert application.trace(ref)["metadata"] == {"mlflow.trace.user": '"u"'}


def test_a_root_with_a_remote_parent_is_no_root_to_mlflow(application):
    """MLflow ignores trace tags on it, so they are set after it; a user is taken from any span."""
    remote = om.SpanRef.from_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    parent = SpanContext(remote.trace_id, remote.span_id, is_remote=True, trace_flags=TraceFlags(1))
    context = trace.set_span_in_context(NonRecordingSpan(parent))
    with application.tracer.start_as_current_span("work", context=context):
        om.update_current_trace(metadata={"plan": "pro"}, user_id="u1")
    application.deliver()
    stored = application.trace(remote)
    assert stored["tags"] == {"service.name": "app", "plan": "pro"}
    assert stored["metadata"] == {"mlflow.trace.user": "u1"}
