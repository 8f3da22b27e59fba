"""Phoenix itself: an application's spans and what is said of them at any time, read back through its REST API."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import openai
import pytest
from openinference.instrumentation.openai import OpenAIInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.trace import SpanContext, TraceFlags
from tests.backends.vendors.phoenix import PhoenixDouble
from tests.llm_stub import DEFAULT_TEXT, LlmStub
from tests.servers.servers import PHOENIX_BIN, Phoenix, eventually

import otel_metadata as om
from otel_metadata.backends import phoenix as backend
from otel_metadata.backends.phoenix.patches import PhoenixPatchExporter
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.delivery.stats import DestinationStats
from otel_metadata.model.evaluation import Annotation, Evaluation, annotation_key
from otel_metadata.model.merge import FieldName, Json
from otel_metadata.model.outcome import Outcome
from otel_metadata.model.patch import Patch
from otel_metadata.pipeline import Pipeline

HOUR_MILLIS = 3_600_000
EVERY_TYPE: dict[str, Json] = {
    "s": "x",
    "n": 0,
    "f": 0.5,
    "b": False,
    "none": None,
    "o": {"a": [1]},
    "l": ["a", "b"],
    "gap": {"kept": 1, "gone": None},
    "mixed": [{"a": 1}, 2],
}

_numbers = itertools.count(1)


@pytest.fixture
def project() -> str:
    """A project that no other test has."""
    return f"project-{next(_numbers)}"


@pytest.fixture
def provider() -> Iterator[TracerProvider]:
    provider = TracerProvider(shutdown_on_exit=False)
    yield provider
    provider.shutdown()


def configured(phoenix: Phoenix, project: str, provider: TracerProvider, **bounds: int) -> Pipeline:
    """Set up the destination; nothing leaves before a flush unless the bounds say otherwise."""
    destination = backend.destination(endpoint=phoenix.url, api_key=phoenix.key, project=project)
    settings = OutboxSettings(**{"schedule_delay_millis": HOUR_MILLIS, **bounds})
    return om.configure(destination, tracer_provider=provider, outbox=settings)


def stored(phoenix: Phoenix, project: str, count: int) -> dict[str, dict[str, Any]]:
    """Return the spans of a project, once there are as many."""
    spans = eventually(lambda: found if len(found := phoenix.spans(project)) >= count else None)
    assert spans is not None, f"{len(phoenix.spans(project))} of {count} spans\n{phoenix.log}"
    return spans


def delivered(pipeline: Pipeline) -> DestinationStats:
    """Deliver all that waits, and return the counts; nothing may have been lost."""
    assert eventually(om.flush), pipeline.stats()
    counts = pipeline.stats().destinations["phoenix"]
    assert not counts.lost, counts
    return counts


def late_metadata(rows: Sequence[dict[str, Any]]) -> dict[str, Json]:
    """Return late metadata as its reader puts it together."""
    return {key: value for row in rows if row["name"] == "otel_metadata" for key, value in row["metadata"].items()}


def test_an_application_with_a_call_of_a_model(phoenix, project, provider):
    """What is set live and in flight is on the stored span; what comes late, and every verdict, is an annotation."""
    pipeline = configured(phoenix, project, provider)
    tracing = OpenAIInstrumentor()
    tracing.instrument(tracer_provider=provider)
    refs: dict[str, om.SpanRef] = {}

    @om.observe
    def retrieve(question: str) -> str:
        refs["retrieve"] = om.current_span_ref()
        assert om.update_current_span(metadata={**EVERY_TYPE, "when": "live"}, tags=["slow"]).route == "live"
        return "context"

    @om.observe
    def answer(question: str, client: openai.OpenAI) -> str:
        refs["answer"] = om.current_span_ref()
        om.update_current_trace(user_id="u1", session_id="s1", tags=["vip"], metadata={"source": "web"})
        retrieve(question)
        with om.capture_spans() as captured:
            reply = client.chat.completions.create(model="gpt-5", messages=[{"role": "user", "content": question}])
        refs["llm"] = captured.llm.ref
        return reply.choices[0].message.content or ""

    try:
        with LlmStub() as stub, openai.OpenAI(base_url=f"{stub.url}/v1", api_key="no-key", max_retries=0) as client:
            assert answer("why?", client) == DEFAULT_TEXT
    finally:
        tracing.uninstrument()

    assert om.update_span(refs["llm"], metadata={"when": "in flight", "n": 1}).route == "in_flight"
    assert om.score_span(refs["llm"], "Correctness", score=0.5, label="partly", source="llm").route == "in_flight"
    delivered(pipeline)
    spans = stored(phoenix, project, 3)

    assert om.update_span(refs["llm"], metadata={"when": "late", **EVERY_TYPE}, tags=["checked"]).route == "late"
    om.score_span(refs["llm"], "Tone", score=1, explanation="kind", metadata={"judge": None})
    om.annotate_span(refs["llm"], "quality", label="good", score=1.0, text="well said", annotator="ann")
    om.annotate_span(refs["llm"], "note", text="call her back")
    om.update_trace(refs["answer"], metadata={"reviewed": True}, user_id="u2")
    counts = delivered(pipeline)
    assert counts.notes >= len(EVERY_TYPE)

    llm, inner, outer = (spans[refs[name].span_id_hex]["attributes"] for name in ("llm", "retrieve", "answer"))
    assert (llm["metadata.when"], llm["metadata.n"], llm["llm.model_name"]) == ("in flight", 1, "gpt-5-stub")
    assert {name: value for name, value in inner.items() if name.startswith("metadata.")} == {
        "metadata.s": "x",
        "metadata.n": 0,
        "metadata.f": 0.5,
        "metadata.b": False,
        "metadata.o.a": [1],
        "metadata.l": ["a", "b"],
        "metadata.gap.kept": 1,
        "metadata.mixed.0.a": 1,
        "metadata.when": "live",
    }
    assert (inner["input.value"], inner["output.value"], inner["tag.tags"]) == (
        '{"question":"why?"}',
        "context",
        ["slow"],
    )
    assert (outer["user.id"], outer["session.id"], outer["trace.metadata.source"]) == ("u1", "s1", "web")
    assert outer["trace.tags"] == ["vip"]

    # What Phoenix drops of a span's metadata is whole beside it.
    beside = late_metadata(phoenix.annotations(project, "span", refs["retrieve"].span_id_hex))
    assert beside == {key: EVERY_TYPE[key] for key in ("none", "gap", "mixed")}

    rows = phoenix.annotations(project, "span", refs["llm"].span_id_hex)
    assert late_metadata(rows) == {"when": "late", **EVERY_TYPE}
    found = {row["name"]: row for row in rows if row["name"] != "otel_metadata"}
    assert len(rows) == len(found) + len(EVERY_TYPE) + 1
    assert {name: (row["annotator_kind"], *row["result"].values(), row["metadata"]) for name, row in found.items()} == {
        "Correctness": ("LLM", "partly", 0.5, None, {}),
        "Tone": ("CODE", None, 1.0, "kind", {"judge": None}),
        "quality": ("HUMAN", "good", 1.0, "well said", {"annotator": "ann"}),
        "note": ("HUMAN", None, None, "call her back", {}),
        "otel_metadata.tag": ("CODE", "checked", None, "true", {"checked": True}),
    }
    of_trace = phoenix.annotations(project, "trace", refs["answer"].trace_id_hex)
    assert late_metadata(of_trace) == {"reviewed": True}
    assert {row["name"]: row["result"]["explanation"] for row in of_trace} == {
        "otel_metadata": "true",
        "otel_metadata.user_id": "u2",
    }


def test_a_span_that_phoenix_cannot_read_takes_no_other_with_it(phoenix, project, provider):
    """32 maps in each other are refused with the whole request; the spans in its company arrive all the same."""
    pipeline = configured(phoenix, project, provider)
    deep: object = 1
    for _ in range(32):
        deep = {"a": deep}
    tracer = provider.get_tracer("application")
    for number in range(8):
        tracer.start_span(f"span {number}", attributes={"deep": deep} if number == 3 else {}).end()  # type: ignore[dict-item] # maps are attributes since SDK 1.45
    om.flush()

    names = {span["name"] for span in stored(phoenix, project, 7).values()}
    assert names == {f"span {number}" for number in range(8)} - {"span 3"}
    assert pipeline.stats().destinations["phoenix"].spans_failed == 1


# What Phoenix reads as JSON when a span arrives, and texts that have cost it the span.
READ = ("metadata", "llm.prompt_template.variables", "tool.parameters", "retrieval.documents.0.document.metadata")
UNSTORABLE = (
    '{"id": 12345678901234567890}',
    '{"a": [1000000000000000000000000000000]}',
    '{"a": "\\ud800"}',
    '{"a": NaN}',
)


def test_no_text_of_the_application_costs_a_span(phoenix, project, provider):
    """Nothing was set on these spans through us, and all of them arrive."""
    pipeline = configured(phoenix, project, provider)
    tracer = provider.get_tracer("application")
    for name in READ:
        for text in UNSTORABLE:
            tracer.start_span(f"{name} {text}", attributes={name: text}).end()
    assert om.flush()
    assert len(stored(phoenix, project, len(READ) * len(UNSTORABLE))) == len(READ) * len(UNSTORABLE)
    assert pipeline.stats().destinations["phoenix"].spans_failed == 0


def test_phoenix_s_client_reads_late_metadata_as_the_docs_say(phoenix, project, provider, tmp_path):
    """The rows of the annotation, put together, are the metadata."""
    pipeline = configured(phoenix, project, provider)
    with provider.get_tracer("application").start_as_current_span("span") as span:
        ref = om.SpanRef.from_span_context(span.get_span_context())
    delivered(pipeline)
    om.update_span(ref, metadata=EVERY_TYPE)
    om.score_span(ref, "Correctness", score=1, metadata={"s": "of the verdict"})
    delivered(pipeline)

    asked = {"key": phoenix.key, "span_ids": [ref.span_id_hex], "project_identifier": project}
    program = Path(__file__).parents[1] / "oracles" / "phoenix_client.py"
    read = subprocess.run(
        [PHOENIX_BIN / "python", program, phoenix.url, "read", json.dumps(asked)],
        check=True,
        timeout=300,
        stdout=subprocess.PIPE,
        env={"PATH": os.defpath},
        cwd=tmp_path,
    )
    assert json.loads(read.stdout) == EVERY_TYPE


class Backend(Protocol):
    """What the same cases are run against: the double, and what it is a double of."""

    url: str
    key: str

    def know(self, ref: om.SpanRef) -> None:
        """Have the span stored."""
        ...

    def read(self, level: str, target: str) -> dict[tuple[str, str], dict[str, Any]]:
        """Return the annotations of a span or trace, by name and identifier."""
        ...


class Doubled(PhoenixDouble):
    """The double, read as the server is."""

    def read(self, level: str, target: str) -> dict[tuple[str, str], dict[str, Any]]:
        return self.of(level, target)


class Served:
    """The server, within a project."""

    def __init__(self, server: Phoenix, project: str, provider: TracerProvider) -> None:
        self.url, self.key = server.url, server.key
        self._server, self._project, self._count = server, project, 0
        self._destination = backend.destination(endpoint=server.url, api_key=server.key, project=project)

    def know(self, ref: om.SpanRef) -> None:
        context = SpanContext(ref.trace_id, ref.span_id, is_remote=False, trace_flags=TraceFlags(1))
        assert self._destination.span_exporter is not None
        self._destination.span_exporter.export([ReadableSpan("span", context, start_time=10, end_time=20)])
        self._count += 1
        stored(self._server, self._project, self._count)

    def read(self, level: str, target: str) -> dict[tuple[str, str], dict[str, Any]]:
        return {
            (row["name"], row["identifier"]): {
                "result": row["result"],
                "metadata": row["metadata"],
                "kind": row["annotator_kind"],
            }
            for row in self._server.annotations(self._project, level, target)
        }

    def close(self) -> None:
        assert self._destination.span_exporter is not None
        self._destination.span_exporter.shutdown()


@pytest.fixture(params=["double", "server"])
def either(request: pytest.FixtureRequest, phoenix: Phoenix, project: str, provider: TracerProvider) -> Iterator[Any]:
    """The double, then the server."""
    either = Doubled(Phoenix.key) if request.param == "double" else Served(phoenix, project, provider)
    yield either
    either.close()


@pytest.fixture
def send(either: Backend) -> Iterator[Callable[..., list[Outcome]]]:
    """Send patches, and return the outcomes."""
    exporter = PhoenixPatchExporter(either.url, headers={"authorization": f"Bearer {either.key}"})
    yield lambda *patches: list(exporter.export(patches, timeout_millis=30_000))
    exporter.shutdown()


def patch(number: int, *fields: tuple[FieldName, Json], at: int = 1) -> Patch:
    return Patch(om.SpanRef(number, number), {name: (value, (at, 7)) for name, value in fields})


def test_an_unknown_span_keeps_nothing_back(either, send):
    """Phoenix refuses the whole request for it; all others are delivered, and it is told by itself."""
    refs = [next(_numbers) + 1_000 for _ in range(3)]
    patches = [patch(number, (("span", "metadata", "k"), number), (("trace", "tag", "t"), True)) for number in refs]
    for one in (patches[0], patches[2]):
        either.know(one.target)

    outcomes = send(*patches)

    assert [type(one).__name__ for one in outcomes] == ["Delivered", "Rejected", "Delivered"]
    assert outcomes[1].error.type == "segment_not_found"
    either.know(patches[1].target)
    assert [type(one).__name__ for one in send(patches[1])] == ["Delivered"]
    for one in patches:
        assert either.read("span", one.target.span_id_hex) == {
            ("otel_metadata", "k"): {
                "result": {"label": "k", "score": None, "explanation": str(one.target.span_id)},
                "metadata": {"k": one.target.span_id},
                "kind": "CODE",
            }
        }
        assert list(either.read("trace", one.target.trace_id_hex)) == [("otel_metadata.tag", "t")]


def test_what_is_sent_again_changes_nothing_and_what_is_new_only_itself(either, send):
    """Keys, verdicts and notes are upserted each by itself: what is not sent again stays as it was."""
    number = next(_numbers) + 1_000
    note = Annotation("note", text="once").to_json()
    first = patch(
        number,
        (("span", "metadata", "a"), {"x": None}),
        (("span", "metadata", "b"), 1),
        (("span", "evaluation", "C"), Evaluation("C", 0.5, metadata={"judge": "m"}).to_json()),
        (("span", "annotation", "note"), note),
        (("trace", "annotation", "note"), note),
        (("trace", "evaluation", "note"), Evaluation("note", 1).to_json()),
        (("span", "annotation", annotation_key("C", "ann")), Annotation("C", "ok", annotator="ann").to_json()),
    )
    either.know(first.target)
    span, trace = first.target.span_id_hex, first.target.trace_id_hex
    notes = {note.partition(":")[0] for note in send(first)[0].notes}
    assert notes == {"metadata 'a'", "metadata 'b'", "trace evaluation 'note'"}
    before = either.read("span", span), either.read("trace", trace)
    assert set(before[0]) == {
        ("otel_metadata", "a"),
        ("otel_metadata", "b"),
        ("C", "otel_metadata:evaluation"),
        ("C", "otel_metadata:annotation:ann"),
        ("note", "otel_metadata:annotation"),
    }
    assert set(before[1]) == {
        ("note", "otel_metadata:annotation"),
        ("otel_metadata.note", "otel_metadata:evaluation"),
    }

    send(first)
    assert (either.read("span", span), either.read("trace", trace)) == before

    send(patch(number, (("span", "metadata", "b"), 2), at=2))
    after = either.read("span", span)
    assert after.pop(("otel_metadata", "b"))["metadata"] == {"b": 2}
    before[0].pop(("otel_metadata", "b"))
    assert after == before[0]


def test_what_a_note_does_not_keep_is_told(either, send):
    """A note has no author, and no blanks around its text."""
    number = next(_numbers) + 1_000
    said = Annotation("note", text=" call her back\n", annotator="ann").to_json()
    one = patch(number, (("span", "annotation", annotation_key("note", "ann")), said))
    either.know(one.target)
    assert send(one)[0].notes == (
        "annotation 'note': Phoenix takes off the blanks around it",
        "annotation 'note': its annotator is in the identifier of the note alone, a note has no author",
    )
    (note,) = either.read("span", one.target.span_id_hex).items()
    assert note[0] == ("note", "otel_metadata:annotation:ann")
    assert note[1]["result"] == {"label": None, "score": None, "explanation": "call her back"}


def test_the_double_takes_metadata_apart_as_phoenix_does(phoenix, project, provider):
    """The same spans, sent to both, have the same attributes."""
    with PhoenixDouble(Phoenix.key) as double:
        pipelines = [
            om.MetadataSpanProcessor(backend.destination(endpoint=url, api_key=Phoenix.key, project=project))
            for url in (phoenix.url, double.url)
        ]
        for processor in pipelines:
            provider.add_span_processor(processor)
        tracer = provider.get_tracer("application")
        for metadata in ({}, EVERY_TYPE, {"a": {"b": 1}, "a.b": 2, "e": {}, "deep": [[None, {}], [1]]}):
            with tracer.start_as_current_span("span"):
                om.update_current_span(metadata=metadata, tags=["t"])
        assert om.flush()
        spans = stored(phoenix, project, 3)
        assert {span_id: span["attributes"] for span_id, span in spans.items()} == {
            span_id: span["attributes"] for span_id, span in double.spans.items()
        }


def test_a_phoenix_that_is_killed_and_comes_back_has_every_update_once(phoenix, project, provider):
    """200 late updates while the server is killed in the middle and started again: each span has its own, once."""
    pipeline = configured(phoenix, project, provider, schedule_delay_millis=20)
    tracer = provider.get_tracer("application")
    refs = []
    for _ in range(200):
        with tracer.start_as_current_span("span") as span:
            refs.append(om.SpanRef.from_span_context(span.get_span_context()))
    delivered(pipeline)
    stored(phoenix, project, 200)

    for number, ref in enumerate(refs):
        assert om.update_span(ref, metadata={"number": number, "none": None}).route == "late"
        if number == 60:
            assert eventually(lambda: pipeline.stats().destinations["phoenix"].delivered > 0)
        if number == 100:
            phoenix.kill()
    try:
        assert pipeline.stats().destinations["phoenix"].waiting > 0
    finally:
        phoenix.start()
    counts = delivered(pipeline)

    assert (counts.delivered, counts.waiting) == (200, 0)
    rows = phoenix.annotations(project, "span", *(ref.span_id_hex for ref in refs))
    assert sorted((row["span_id"], row["name"], str(row["metadata"])) for row in rows) == sorted(
        (ref.span_id_hex, "otel_metadata", str(metadata))
        for number, ref in enumerate(refs)
        for metadata in ({"number": number}, {"none": None})
    )
