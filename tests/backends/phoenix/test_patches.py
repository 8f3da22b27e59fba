"""What is particular to Phoenix: whole requests that are refused, annotations that are replaced, answers that lie."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from tests.backends.vendors.phoenix import PhoenixDouble, patch
from tests.backends.vendors.server import KEY, Response

import otel_metadata as om
from otel_metadata.backends import phoenix
from otel_metadata.backends.phoenix.patches import PhoenixPatchExporter
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.model.evaluation import Annotation, Evaluation
from otel_metadata.model.merge import FieldName, Json
from otel_metadata.model.outcome import Delivered, Outcome, Pause, Rejected, Retry
from otel_metadata.model.patch import Patch
from otel_metadata.testing import ManualClock

SYNC = {"sync": "true"}


@pytest.fixture
def double() -> Iterator[PhoenixDouble]:
    with PhoenixDouble() as double:
        yield double


@pytest.fixture
def exporter(double: PhoenixDouble) -> Iterator[PhoenixPatchExporter]:
    exporter = PhoenixPatchExporter(double.url, headers={"authorization": f"Bearer {KEY}"})
    yield exporter
    exporter.shutdown()


def of(number: int, *fields: tuple[FieldName, Json], at: int = 1, span_id: int | None = None) -> Patch:
    """Return a patch of these fields."""
    ref = om.SpanRef(number, number if span_id is None else span_id)
    return Patch(ref, {name: (value, (at, 7)) for name, value in fields})


def sent(exporter: PhoenixPatchExporter, *patches: Patch) -> list[Outcome]:
    return list(exporter.export(patches, timeout_millis=10_000))


class TestAnswers:
    def test_every_annotation_is_asked_for_at_once(self, double, exporter):
        """Without `sync` Phoenix says 200 whatever becomes of it, so no request is without."""
        double.know(om.SpanRef(1, 1))
        sent(exporter, of(1, (("span", "metadata", "k"), 1), (("trace", "metadata", "k"), 1)))
        assert [(request.path, request.query) for request in double.requests] == [
            ("/v1/span_annotations", SYNC),
            ("/v1/trace_annotations", SYNC),
        ]

    @pytest.mark.parametrize("body", [{}, {"data": []}, {"data": [{"id": "a"}]}, {"data": [{}, {}]}, {"data": "two"}])
    def test_a_success_that_does_not_confirm_everything_is_none(self, double, exporter, body):
        """As many ids as rows: `{"data": []}` is what a request gets that was only queued."""
        double.fault = lambda _: Response(200, body)
        (outcome,) = sent(exporter, of(1, (("span", "metadata", "a"), 1), (("span", "metadata", "b"), 1)))
        assert isinstance(outcome, Retry)

    def test_all_unknown_spans_of_a_batch_are_told_and_the_rest_is_sent_once_more(self, double, exporter):
        """Two requests, however many are unknown; of those nothing else is sent."""
        for number in (2, 4):
            double.know(om.SpanRef(number, number))
        note: tuple[FieldName, Json] = (("span", "annotation", "note"), Annotation("note", text="hello").to_json())
        unknown = of(1, (("span", "metadata", "k"), 1), note)
        outcomes = sent(exporter, unknown, *(patch(number) for number in range(2, 6)))
        assert [isinstance(outcome, Delivered) for outcome in outcomes] == [False, True, False, True, False]
        assert len(double.requests) == 2

    @pytest.mark.parametrize("text", ["Not Found", "Spans with IDs 00000000000000ff do not exist.", "Spans with IDs "])
    def test_a_404_that_names_none_of_ours_is_about_the_endpoint(self, double, exporter, text):
        """It pauses, after one request."""
        double.fault = lambda _: Response(404, text)
        (outcome,) = sent(exporter, patch(1))
        assert isinstance(outcome, Pause)
        assert len(double.requests) == 1

    @pytest.mark.parametrize("status", [400, 413, 422])
    def test_one_that_is_refused_refuses_only_itself(self, double, exporter, status):
        """Phoenix refuses the whole request; it is sent in halves until the one is alone."""
        for number in range(1, 9):
            double.know(om.SpanRef(number, number))
        double.fault = lambda request: Response(status, "no") if b'"poison"' in request.body else None
        outcomes = sent(exporter, *(patch(number, k="poison" if number == 3 else "v") for number in range(1, 9)))
        assert [number for number, one in enumerate(outcomes, 1) if not isinstance(one, Delivered)] == [3]
        assert isinstance(outcomes[2], Rejected)
        assert all(double.late_metadata(f"{number:016x}") == {"k": "v"} for number in range(1, 9) if number != 3)

    @pytest.mark.parametrize("status", [500, 503, 507])
    def test_a_phoenix_that_is_full_or_locked_is_asked_once(self, double, exporter, status):
        """The rest of the batch waits, the requests of other kinds too."""
        double.fault = lambda _: Response(status, "Storage is locked")
        key: tuple[FieldName, Json] = (("trace", "metadata", "k"), 1)
        patches = [of(1, (("span", "metadata", "k"), 1), key), of(2, key)]
        assert [type(outcome) for outcome in sent(exporter, *patches)] == [Retry, Retry]
        assert len(double.requests) == 1

    def test_many_rows_are_several_requests(self, double, exporter):
        """At most 500 in one; a patch whose rows are in two is delivered by both."""
        double.know(om.SpanRef(1, 1))
        metadata: dict[str, Json] = {f"k{number}": number for number in range(700)}
        (outcome,) = sent(exporter, patch(1, **metadata))
        assert isinstance(outcome, Delivered)
        assert [len(request.json["data"]) for request in double.requests] == [500, 201]
        assert double.late_metadata(f"{1:016x}") == metadata


class TestRows:
    def test_of_one_key_of_a_trace_the_later_version_stands(self, double, exporter):
        """Patches of two spans are in one request, where the last row wins: it is the latest, in whatever order."""
        key: FieldName = ("trace", "metadata", "k")
        double.know(om.SpanRef(1, 1))
        sent(exporter, of(1, (key, "new"), at=2), of(1, (key, "old"), at=1, span_id=2))
        assert double.late_metadata(f"{1:032x}", "trace") == {"k": "new"}

    def test_a_bare_trace_takes_what_is_said_of_the_trace(self, double, exporter):
        """What is said of a span has no place: alone it is unsupported, beside something else it is told."""
        double.know(om.SpanRef(1, 1))
        of_span: tuple[FieldName, Json] = (("span", "metadata", "k"), "v")
        alone, beside = sent(
            exporter, of(1, of_span, span_id=0), of(1, of_span, (("trace", "evaluation", "C"), {"score": 1}), span_id=0)
        )
        assert (type(alone), alone.error.type) == (Rejected, "unsupported")
        assert beside == Delivered(("metadata 'k': not kept, for the patch names no span",))
        assert list(double.of("trace", f"{1:032x}")) == [("C", "otel_metadata:evaluation")]

    @pytest.mark.parametrize("blank", [None, "", " \n"])
    def test_a_verdict_of_the_reserved_name_that_is_no_note_has_another(self, double, exporter, blank):
        """Phoenix refuses an annotation `note`, and a blank note; nothing is lost, and it is told."""
        double.know(om.SpanRef(1, 1))
        verdicts: list[tuple[FieldName, Json]] = [
            (("span", "annotation", "note"), Annotation("note", text=blank).to_json()),
            (("span", "evaluation", "note"), Evaluation("note", 1.0).to_json()),
        ]
        (outcome,) = sent(exporter, of(1, *verdicts))
        assert isinstance(outcome, Delivered)
        assert len(outcome.notes) == 2
        assert {name for name, _ in double.of("span", f"{1:016x}")} == {"otel_metadata.note"}

    def test_a_text_alone_is_a_note_only_by_its_name(self, double, exporter):
        """Under any other name it is the explanation of an annotation."""
        double.know(om.SpanRef(1, 1))
        fields: list[tuple[FieldName, Json]] = [
            (("span", "annotation", name), Annotation(name, text="hello").to_json()) for name in ("note", "remark")
        ]
        assert sent(exporter, of(1, *fields)) == [Delivered()]
        assert [request.path for request in double.requests] == ["/v1/span_notes", "/v1/span_annotations"]
        assert {row["result"]["explanation"] for row in double.of("span", f"{1:016x}").values()} == {"hello"}

    def test_verdicts_of_one_name_do_not_replace_each_other(self, double, exporter):
        """An evaluation, an annotation, and those of two people are four annotations."""
        double.know(om.SpanRef(1, 1))
        said = [Annotation("q", "good", annotator=who) for who in (None, "ann", "bob")]
        fields: list[tuple[FieldName, Json]] = [
            (("span", "annotation", f"q by {one.annotator}"), one.to_json()) for one in said
        ]
        assert sent(exporter, of(1, (("span", "evaluation", "q"), {"score": 1}), *fields)) == [Delivered()]
        assert len(double.of("span", f"{1:016x}")) == 4


class Scene:
    """An application with Phoenix as its destination, a clock that stands still, a worker that is stepped by hand."""

    def __init__(self, double: PhoenixDouble) -> None:
        self.clock = ManualClock()
        self.processor = om.MetadataSpanProcessor(
            phoenix.destination(endpoint=double.url, api_key=KEY, project="shop"),
            settings=OutboxSettings(),
            clock=self.clock,
            start_workers=False,
        )
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(self.processor)
        self.tracer = provider.get_tracer("application")

    @property
    def stats(self) -> Any:
        return self.processor.stats().destinations["phoenix"]

    def wait_and_step(self, millis: int = 10_000) -> None:
        """Move the time, then step until nothing is due."""
        self.clock.advance(millis)
        while self.processor.workers[0].step():
            pass


EVERY_TYPE: dict[str, Json] = {
    "s": "x",
    "n": 0,
    "f": 0.5,
    "b": False,
    "none": None,
    "o": {"a": [1]},
    "l": ["a", "b"],
}
STORED = {
    "metadata.s": "x",
    "metadata.n": 0,
    "metadata.f": 0.5,
    "metadata.b": False,
    "metadata.o.a": [1],
    "metadata.l": ["a", "b"],
}


class TestEndToEnd:
    def test_live_in_flight_and_late(self, double):
        """What Phoenix shows in the end of each: the span's own metadata, and beside it what it cannot hold there."""
        scene = Scene(double)
        with scene.tracer.start_as_current_span("live") as live:
            om.update_current_span(metadata=EVERY_TYPE)
            om.update_current_trace(user_id="u1", tags=["vip"])
        with scene.tracer.start_as_current_span("in flight") as in_flight:
            pass
        with scene.tracer.start_as_current_span("late") as late:
            pass
        refs = [om.SpanRef.from_span_context(span.get_span_context()) for span in (live, in_flight, late)]
        assert om.update_span(refs[1], metadata=EVERY_TYPE).route == "in_flight"
        om.update_trace(refs[1], user_id="u2", tags=["vip"])
        scene.wait_and_step()
        scene.wait_and_step()
        for ref in refs[:2]:
            om.score_span(ref, "Correctness", score=0.5)
            om.annotate_span(ref, "quality", label="good", annotator="ann")
        assert om.update_span(refs[2], metadata=EVERY_TYPE).route == "late"
        om.update_trace(refs[2], user_id="u3", tags=["vip"])
        om.score_span(refs[2], "Correctness", score=0.5)
        om.annotate_span(refs[2], "quality", label="good", annotator="ann")
        scene.wait_and_step()

        ids = [ref.span_id_hex for ref in refs]
        for span_id, user in zip(ids[:2], ("u1", "u2"), strict=True):
            assert double.spans[span_id]["attributes"] == {**STORED, "user.id": user, "trace.tags": ["vip"]}
            assert double.late_metadata(span_id) == {"none": None}
        assert double.spans[ids[2]]["attributes"] == {}
        assert double.late_metadata(ids[2]) == EVERY_TYPE
        of_trace = double.of("trace", refs[2].trace_id_hex)
        assert {name: row["metadata"] for name, row in of_trace.items()} == {
            ("otel_metadata.user_id", "user_id"): {"user_id": "u3"},
            ("otel_metadata.tag", "vip"): {"vip": True},
        }
        for span_id in ids:
            verdicts = {name: row for (name, _), row in double.of("span", span_id).items() if "otel" not in name}
            assert verdicts == {
                "Correctness": {
                    "result": {"label": None, "score": 0.5, "explanation": None},
                    "metadata": {},
                    "kind": "CODE",
                },
                "quality": {
                    "result": {"label": "good", "score": None, "explanation": None},
                    "metadata": {"annotator": "ann"},
                    "kind": "HUMAN",
                },
            }
        assert (scene.stats.lost, scene.stats.late) == ({}, 0)

    def test_a_late_update_is_told_of_key_by_key(self, double, exporter):
        """One sentence for each field that is not where it was meant for, with its key and without its value."""
        double.know(om.SpanRef(1, 1))
        (outcome,) = sent(
            exporter,
            of(
                1,
                *((("span", "metadata", key), value) for key, value in EVERY_TYPE.items()),
                (("trace", "user_id", ""), "secret user"),
                (("trace", "tag", "vip"), True),
                (("span", "evaluation", "C"), Evaluation("C", 1.0).to_json()),
            ),
        )
        assert [note.partition(":")[0] for note in outcome.notes] == [
            *(f"metadata {key!r}" for key in EVERY_TYPE),
            "trace user id",
            "trace tag 'vip'",
        ]
        assert "secret" not in repr(outcome)

    def test_a_span_that_is_stored_late_gets_what_is_said_of_it(self, double):
        """Phoenix acknowledges a span before it stores it; a patch that comes in between is tried again."""
        double.is_slow = True
        scene = Scene(double)
        with scene.tracer.start_as_current_span("slow") as span:
            om.score_current_span("Correctness", score=1)
        scene.wait_and_step()
        scene.wait_and_step()
        assert (len(double.accepted), scene.stats.late) == (1, 1)

        double.store()
        scene.wait_and_step(60_000)

        span_id = om.SpanRef.from_span_context(span.get_span_context()).span_id_hex
        assert [name for name, _ in double.of("span", span_id)] == ["Correctness"]
        assert (scene.stats.lost, scene.stats.late) == ({}, 0)
