"""A `Client` of a vendor's destination: which names of spans are enough there, and whose project is meant."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
from opentelemetry.sdk.resources import Resource
from tests.backends.vendors.arize import PROJECT as ARIZE_PROJECT
from tests.backends.vendors.arize import SPACE, ArizeSpans
from tests.backends.vendors.galileo import LOG_STREAM, PROJECT, Galileo, Stored
from tests.backends.vendors.phoenix import PhoenixDouble
from tests.backends.vendors.server import KEY

import otel_metadata as om
from otel_metadata.backends import phoenix
from otel_metadata.backends.arize.patches import ArizePatchExporter
from otel_metadata.backends.galileo.patches import GalileoPatchExporter
from otel_metadata.backends.phoenix.patches import PhoenixPatchExporter
from otel_metadata.client import AnnotateRecordInput, AnnotationInput
from otel_metadata.client.client import Spans
from otel_metadata.errors import ConfigurationError, InvalidSpanRefError
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.model.span_ref import SpanRef

SPAN, OTHER, TRACE = "61dbffb32f20ddb6", "00000000000000ab", "0af7651916cd43dd8448eb211c80319c"
UUID, SECOND_UUID = (f"{number:08x}-0000-4000-8000-000000000000" for number in (1, 2))


@pytest.fixture
def service() -> ArizeSpans:
    service = ArizeSpans()
    for span_id in (SPAN, OTHER):
        service.know(span_id)
    return service


@pytest.fixture
def arize(service: ArizeSpans) -> Iterator[Spans]:
    exporter = ArizePatchExporter(lambda: service, space_id=SPACE, project=ARIZE_PROJECT)
    yield Spans(om.Destination("arize", None, exporter, spans=False))
    exporter.shutdown()


@pytest.fixture
def double() -> Iterator[Galileo]:
    with Galileo() as double:
        for record in ("span", "trace"):
            for identifier in (UUID, SECOND_UUID):
                double.stored[record, identifier] = Stored()
        yield double


@pytest.fixture
def galileo(double: Galileo) -> Iterator[Spans]:
    exporter = GalileoPatchExporter(double.url, api_key=KEY, project="shop", log_stream_id=LOG_STREAM)
    yield Spans(om.Destination("galileo", None, exporter, spans=False))
    exporter.shutdown()


def changed(double: Galileo, identifier: str = UUID, record: str = "span") -> dict[str, Any]:
    return double.stored[record, identifier].changed


class TestArize:
    def test_the_vendors_own_frame_has_no_trace_ids(self, arize: Spans, service: ArizeSpans) -> None:
        """What is sent has none either."""
        frame = pd.DataFrame({"context.span_id": [SPAN, OTHER], "attributes.metadata.region": ["eu", "us"]})

        report = arize.update_metadata(space_id=SPACE, project_name=ARIZE_PROJECT, dataframe=frame)

        assert report == {"spans_processed": 2, "spans_updated": 2, "spans_failed": 0, "errors": []}
        assert [service.span(one)["metadata"]["region"] for one in (SPAN, OTHER)] == ["eu", "us"]

    def test_so_have_evaluations_annotations_and_records(self, arize: Spans, service: ArizeSpans) -> None:
        """Every method that changes spans takes them."""
        assert arize.update_evaluations([{"context.span_id": SPAN, "eval.Q.label": "good"}]).spans_updated == 1
        assert arize.update_annotations([{"context.span_id": SPAN, "annotation.q.label": "x"}]).spans_updated == 1
        assert arize.annotate([AnnotateRecordInput(SPAN, [AnnotationInput("r", score=1)])]).spans_updated == 1
        assert arize.update(SPAN, metadata={"a": 1}).spans_updated == 1

        assert [call for call, _ in service.calls] == [
            "update_evaluations", "update_annotations", "update_annotations", "update_metadata",
        ]  # fmt: skip

    def test_an_unknown_span_is_told(self, arize: Spans) -> None:
        """As with a trace id."""
        report = arize.update_metadata([{"context.span_id": "f" * 16, "patch_document": {"a": 1}}])

        assert [error["error_type"] for error in report.errors] == ["segment_not_found"]

    def test_rows_with_and_without_a_trace_may_be_mixed(self, arize: Spans, service: ArizeSpans) -> None:
        """One span is one patch either way."""
        rows = [
            {"context.span_id": SPAN, "context.trace_id": TRACE, "patch_document": {"a": 1}},
            {"context.span_id": OTHER, "context.trace_id": None, "patch_document": {"a": 2}},
        ]

        assert arize.update_metadata(rows).spans_updated == 2
        assert [service.span(one)["metadata"]["a"] for one in (SPAN, OTHER)] == [1, 2]

    @pytest.mark.parametrize(
        "elsewhere",
        [
            {"project_name": "other"},
            {"project_name": ARIZE_PROJECT.upper()},
            {"project_name": ""},
            {"project_name": 5},
            {"model_id": "other"},
            {"space_id": "other"},
            {"space_id": SPACE.lower()},
            {"project_name": ARIZE_PROJECT, "space_id": "other"},
        ],
    )
    @pytest.mark.parametrize("method", ["update_metadata", "log_metadata", "update_evaluations", "update_annotations"])
    def test_another_project_or_space_is_refused(
        self, arize: Spans, service: ArizeSpans, method: str, elsewhere: Any
    ) -> None:
        """Nothing is sent, and the error names what was given and what the destination has."""
        argument, value = list(elsewhere.items())[-1]
        own = SPACE if argument == "space_id" else ARIZE_PROJECT
        row = {"context.span_id": SPAN, "patch_document": {}, "eval.Q.label": "x", "annotation.q.label": "x"}

        with pytest.raises(ConfigurationError, match=rf"{argument}= is {value!r}; expected '{own}'"):
            getattr(arize, method)([row], **elsewhere)
        assert service.calls == []

    @pytest.mark.parametrize(
        "elsewhere", [{"project": "other"}, {"space": "other"}, {"project": "other", "space": SPACE}]
    )
    def test_so_is_one_of_annotate_and_delete(self, arize: Spans, service: ArizeSpans, elsewhere: Any) -> None:
        """Under the names that these have."""
        for call in (arize.annotate, arize.annotate_spans, arize.delete):
            with pytest.raises(ConfigurationError, match=r"(project|space)= is 'other'; expected"):
                call([{"record_id": SPAN, "values": [{"name": "q", "score": 1}]}], **elsewhere)
        assert service.calls == []

    def test_white_space_around_a_name_does_not_count(self, arize: Spans) -> None:
        """A name that came from a file ends with a line break."""
        row = {"context.span_id": SPAN, "patch_document": {"a": 1}}

        assert arize.update_metadata([row], project_name=f" {ARIZE_PROJECT}\n", space_id=f"{SPACE} ").spans_updated == 1


def _named(name: str, monkeypatch: pytest.MonkeyPatch) -> om.Client:
    """Return a client of a vendor whose project is `shop`, told by the vendor's own variables."""
    variables = {
        "phoenix": {"PHOENIX_PROJECT": "shop"},
        "langwatch": {"LANGWATCH_API_KEY": KEY, "LANGWATCH_PROJECT_ID": "shop"},
        "mlflow": {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_EXPERIMENT_ID": "shop"},
        "splunk_ao": {
            "SPLUNK_AO_API_KEY": KEY,
            "SPLUNK_AO_CONSOLE_URL": "http://127.0.0.1:9",
            "SPLUNK_AO_PROJECT": "shop",
        },
        "galileo": {"GALILEO_API_KEY": KEY, "GALILEO_PROJECT": "shop"},
    }
    for variable, value in variables[name].items():
        monkeypatch.setenv(variable, value)
    return om.Client(name)


VERDICT = {"context.span_id": SPAN, "context.trace_id": TRACE, "eval.Q.label": "x", "annotation.q.label": "x"}
BACKENDS = ["phoenix", "langwatch", "mlflow", "galileo", "splunk_ao"]


@pytest.mark.parametrize("name", BACKENDS)
class TestEveryVendorWithAProject:
    """Nothing listens where these send to: what is refused is refused before."""

    @pytest.mark.parametrize("argument", ["project_name", "model_id"])
    @pytest.mark.parametrize("method", ["update_metadata", "log_metadata", "update_evaluations", "update_annotations"])
    def test_another_project_of_a_call_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, name: str, method: str, argument: str
    ) -> None:
        """As with Arize."""
        row = {**VERDICT, "patch_document": {"a": 1}}
        with (
            _named(name, monkeypatch) as client,
            pytest.raises(ConfigurationError, match=f"{argument}= is 'other'; expected 'shop'"),
        ):
            getattr(client.spans, method)([row], **{argument: "other"})

    def test_so_is_one_of_annotate(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        """Where the argument has another name."""
        record = {"record_id": SPAN, "values": [{"name": "q", "score": 1}]}
        with (
            _named(name, monkeypatch) as client,
            pytest.raises(ConfigurationError, match="project= is 'other'; expected 'shop'"),
        ):
            client.spans.annotate([record], project="other")

    @pytest.mark.parametrize("column", ["project", "project_name", "model_id"])
    @pytest.mark.parametrize("make", [list, pd.DataFrame])
    def test_so_is_one_of_a_frame(self, monkeypatch: pytest.MonkeyPatch, name: str, column: str, make: Any) -> None:
        """In any of its rows."""
        rows = [{**VERDICT, column: project} for project in ("shop", None, "other")]
        with (
            _named(name, monkeypatch) as client,
            pytest.raises(ConfigurationError, match=f"column '{column}' is 'other'; expected 'shop'"),
        ):
            client.spans.update_evaluations(make(rows))


class TestPlaces:
    @pytest.mark.parametrize("column", ["space", "space_id"])
    def test_a_frame_may_name_the_space(self, arize: Spans, service: ArizeSpans, column: str) -> None:
        """Its own one changes nothing."""
        rows = [{"context.span_id": SPAN, "patch_document": {"a": 1}, column: space} for space in (SPACE, "other")]

        assert arize.update_metadata(rows[:1]).spans_updated == 1
        with pytest.raises(ConfigurationError, match=f"column '{column}' is 'other'; expected '{SPACE}'"):
            arize.update_metadata(rows)

    def test_an_exported_span_says_where_it_came_from(self, arize: Spans) -> None:
        """Its column `project` is that of the store."""
        row = {"context.span_id": SPAN, "start_time": "2026-01-01T00:00:00Z", "project": "of the store"}

        assert arize.update_metadata([{**row, "patch_document": {"a": 1}}]).spans_updated == 1

    @pytest.mark.parametrize(
        ("resource", "project"), [({}, "default"), ({"openinference.project.name": "shop"}, "shop")]
    )
    def test_phoenix_has_one_that_nobody_names(self, resource: dict[str, str], project: str) -> None:
        """What the resource says, else its default."""
        destination = phoenix.destination(resource=Resource(resource))

        with pytest.raises(ConfigurationError, match=f"project_name= is 'other'; expected '{project}'"):
            Spans(destination).update_evaluations([VERDICT], project_name="other")

    def test_what_cannot_be_compared_is_a_note(self) -> None:
        """The key of Langfuse leads to its project, whose name is nowhere."""
        spans = Spans(om.Destination("away", None, InMemoryPatchExporter(), spans=False))

        report = spans.update_evaluations([{**VERDICT, "space_id": "s"}], project_name="p")

        assert report.spans_updated == 1
        assert report.notes == (
            "project_name=: not compared; the credentials of away decide where the update goes",
            "column 'space_id': not compared; the credentials of away decide where the update goes",
        )


class TestPhoenix:
    def test_a_span_id_is_enough(self) -> None:
        """Its own frames have the id as index, under this name or the bare one; a trace cannot be annotated by it."""
        with PhoenixDouble() as double:
            double.know(SpanRef(int(TRACE, 16), int(SPAN, 16)))
            exporter = PhoenixPatchExporter(double.url, headers={"authorization": f"Bearer {KEY}"})
            spans = Spans(om.Destination("phoenix", None, exporter, spans=False))

            for name in ("context.span_id", "span_id"):
                frame = pd.DataFrame({"eval.Q.label": [name]}, index=pd.Index([SPAN], name=name))
                assert spans.update_evaluations(frame).spans_updated == 1
            of_both = spans.update_metadata([{"span_id": SPAN, "trace.metadata.a": 1, "attributes.metadata.b": 2}])
            of_trace = spans.update_metadata([{"span_id": SPAN, "trace.metadata.a": 1}])
            exporter.shutdown()

            assert [row["result"]["label"] for (name, _), row in double.of("span", SPAN).items() if name == "Q"] == [
                "span_id"
            ]
            assert double.annotations["trace"] == {}
            assert (of_both.spans_updated, of_trace.spans_updated) == (1, 0)
            assert "not kept, for the patch names no trace" in of_both.notes[0]


class TestOthers:
    def test_where_the_wire_needs_the_trace_it_is_asked_for(self) -> None:
        """Nothing is sent."""
        exporter = InMemoryPatchExporter()
        spans = Spans(om.Destination("away", None, exporter, spans=False))

        for name in (SPAN, f"galileo:{UUID}"):
            with pytest.raises(ConfigurationError, match=r"expected its trace as well \(context\.trace_id in a frame"):
                spans.update(name, metadata={"a": 1})
        assert exporter.calls == []

    def test_a_row_without_it_fails_beside_one_that_has_it(self) -> None:
        """Each row fares by itself."""
        exporter = InMemoryPatchExporter()
        spans = Spans(om.Destination("away", None, exporter, spans=False))
        rows = [
            {"context.span_id": SPAN, "context.trace_id": TRACE, "patch_document": {"a": 1}},
            {"context.span_id": OTHER, "patch_document": {"a": 1}},
            {"backend_ids.galileo": UUID, "patch_document": {"a": 1}},
        ]

        report = spans.update_metadata(rows)

        assert report.spans_updated == 1
        assert [error["span_id"] for error in report.errors] == [OTHER, f"galileo:{UUID}"]
        assert "a backend's id; expected" in report.errors[1]["error_message"].replace(
            "backend's id alone", "backend's id"
        )

    def test_what_has_no_project_of_its_own_does_not_look_at_one(self) -> None:
        """A script for Arize runs with only the client changed."""
        spans = Spans(om.Destination("away", None, InMemoryPatchExporter(), spans=False))
        row = {"context.span_id": SPAN, "context.trace_id": TRACE, "patch_document": {"a": 1}}

        assert spans.update_metadata([row], project_name="p", space_id="s").spans_updated == 1


class TestGalileo:
    def test_a_reference_keeps_its_uuid(self, galileo: Spans, double: Galileo) -> None:
        """One with the ids of OpenTelemetry, and one without."""
        with_both = SpanRef(int(TRACE, 16), int(SPAN, 16)).with_backend_id("galileo", UUID)
        alone = SpanRef.from_backend_id("galileo", SECOND_UUID)

        assert galileo.update(with_both, output="one").spans_updated == 1
        assert galileo.update(alone, output="two").spans_updated == 1

        assert [changed(double, one) for one in (UUID, SECOND_UUID)] == [{"output": "one"}, {"output": "two"}]

    def test_so_does_a_record(self, galileo: Spans, double: Galileo) -> None:
        """Annotations are `unsupported` there, which is an answer about the record and not about its name."""
        record = AnnotateRecordInput(SpanRef.from_backend_id("galileo", UUID), [AnnotationInput("q", score=1)])  # type: ignore[arg-type] # a reference is taken too

        report = galileo.annotate([record])

        assert [error["error_type"] for error in report.errors] == ["unsupported"]
        assert "only input, output, tags and status can be changed" in report.errors[0]["error_message"]

    def test_its_text_is_enough(self, galileo: Spans, double: Galileo) -> None:
        """Wherever the name of a span is a text."""
        assert galileo.update(f"galileo:{UUID}", tags=["late"]).spans_updated == 1
        assert double.stored["span", UUID].tags == ["late"]

    def test_of_a_trace_the_id_is_that_of_the_trace(self, galileo: Spans, double: Galileo) -> None:
        """The same name and `level="trace"`."""
        assert galileo.update(f"galileo:{UUID}", level="trace", output="whole").spans_updated == 1
        assert changed(double, record="trace") == {"output": "whole"}
        assert changed(double) == {}

    @pytest.mark.parametrize(
        "row",
        [
            {"backend_ids.galileo": UUID},
            {"backend_ids.galileo": uuid.UUID(UUID)},
            {"context.span_id": f"galileo:{UUID}"},
            {"context.span_id": None, "backend_ids.galileo": UUID},
            {"context.span_id": SPAN, "context.trace_id": TRACE, "backend_ids.galileo": UUID},
            {"traceparent": f"00-{TRACE}-{SPAN}-01", "backend_ids.galileo": UUID},
        ],
    )
    def test_a_frame_has_a_column_of_them(self, double: Galileo, row: Any) -> None:
        """Beside the ids of OpenTelemetry, or in their place; a column of the trace's ids as well."""
        exporter = GalileoPatchExporter(double.url, api_key=KEY, project_id=PROJECT, metadata_as_tags=True)
        spans = Spans(om.Destination("galileo", None, exporter, spans=False))
        of_trace = {"backend_ids.galileo.trace": SECOND_UUID, "trace.metadata.c": 3}

        report = spans.update_metadata([{**row, **of_trace, "attributes.metadata.b": 2}])
        exporter.shutdown()

        assert (report.spans_updated, report.errors) == (1, [])
        assert double.stored["span", UUID].tags == ["b:2"]
        assert double.stored["trace", SECOND_UUID].tags == ["c:3"]

    def test_rows_of_one_record_are_one_request(self, galileo: Spans, double: Galileo) -> None:
        """As rows of one span are, everywhere."""
        rows = [{"backend_ids.galileo": UUID, "attributes.metadata.b": number} for number in (1, 2)]

        report = galileo.update_metadata(rows)

        # Metadata has no field there; the answer is about each row.
        assert [error["error_type"] for error in report.errors] == ["unsupported"] * 2

    @pytest.mark.parametrize("name", ["galileo:", ":x", "gali leo:x", "nonsense"])
    def test_half_of_a_name_is_refused(self, galileo: Spans, name: str) -> None:
        """In a call by an error, in a frame for its row."""
        with pytest.raises(InvalidSpanRefError):
            galileo.update(name, output="x")
        report = galileo.update_metadata([{"context.span_id": name, "patch_document": {"a": 1}}])

        assert [error["error_type"] for error in report.errors] == ["segment_not_found"]

    def test_another_project_is_refused(self, galileo: Spans) -> None:
        """As everywhere."""
        with pytest.raises(ConfigurationError, match="project_name= is 'other'; expected 'shop'"):
            galileo.update_metadata([{"backend_ids.galileo": UUID, "patch_document": {"a": 1}}], project_name="other")
