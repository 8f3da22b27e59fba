"""Against the real MLflow server: what leaves live, in flight and late is read back through the server's own API."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from openinference.instrumentation.openai import OpenAIInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.trace import SpanContext, TraceFlags
from tests.backends.vendors.mlflow import MlflowDouble
from tests.llm_stub import LlmStub
from tests.servers.mlflow_server import PYTHON, MlflowServer, running

import otel_metadata as om
from otel_metadata.backends.mlflow import destination
from otel_metadata.backends.mlflow.dialect import trace_tag
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.exporters.otlp_http import OtlpHttpSender
from otel_metadata.model.merge import Json
from otel_metadata.model.outcome import Delivered, Pause, Rejected
from otel_metadata.model.patch import Patch

DOCUMENT: dict[str, Json] = {"s": "x", "n": 0, "f": 0.5, "b": False, "none": None, "o": {"a": [1]}, "l": ["a", "b"]}
AS_TEXT = {"s": "x", "n": "0", "f": "0.5", "b": "false", "none": "null", "o": '{"a":[1]}', "l": '["a","b"]'}
QUESTION = [{"role": "user", "content": "What is the answer?"}]

REMOTE = "0af7651916cd43dd8448eb211c80319c"

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with running(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@dataclass(frozen=True)
class Application:
    """An application that sends to the server, and only when it is asked to."""

    server: MlflowServer
    destination: om.Destination
    provider: TracerProvider

    @property
    def tracer(self) -> Any:
        return self.provider.get_tracer("application")

    def deliver(self) -> None:
        assert self.provider.force_flush()

    def assessments(self, ref: om.SpanRef) -> dict[str, dict[str, Any]]:
        return {one["assessment_name"]: one for one in self.server.trace(ref.trace_id_hex)["assessments"]}

    def tags(self, ref: om.SpanRef) -> dict[str, str]:
        """Return the tags that are not the server's, nor of the resource."""
        tags = self.server.trace(ref.trace_id_hex)["tags"]
        return {
            key: value
            for key, value in tags.items()
            if key == "mlflow.traceName" or not key.startswith(("mlflow.", "service."))
        }


@pytest.fixture
def application(server: MlflowServer) -> Iterator[Application]:
    experiment = server.experiment(f"experiment {next(_numbers)}")
    made = destination(tracking_uri=server.url, experiment_id=experiment, expectations=["expected_answer"])
    # Nothing leaves unless the test asks for it: what is in flight stays in flight.
    processor = om.MetadataSpanProcessor(made, settings=OutboxSettings(schedule_delay_millis=3_600_000))
    provider = TracerProvider(resource=Resource({"service.name": "app"}), shutdown_on_exit=False)
    provider.add_span_processor(processor)
    yield Application(server, made, provider)
    stats = processor.stats().destinations["mlflow"]
    assert not stats.lost
    provider.shutdown()


@pytest.fixture
def ended(application: Application) -> om.SpanRef:
    """A span that the server has."""
    with application.tracer.start_as_current_span("work") as span:
        pass
    application.deliver()
    return om.SpanRef.from_span_context(span.get_span_context())


def test_decorated_functions_arrive_with_what_was_set_live(application):
    """Both spans, input and output, metadata with its null, tags, user, session and name of the trace."""

    @om.observe(tracer=application.tracer)
    def inner(question: str) -> dict[str, str]:
        om.update_current_span(metadata=DOCUMENT, tags=["checked"])
        return {"answer": question.upper()}

    @om.observe(tracer=application.tracer)
    def outer(question: str) -> om.SpanRef:
        inner(question)
        om.update_current_trace(metadata=DOCUMENT, name="chat", user_id="u1", session_id="s1", tags=["vip"])
        return om.current_span_ref()

    ref = outer("why")
    application.deliver()

    spans = application.server.spans(ref.trace_id_hex)
    (name,) = (one for one in spans if one.endswith("inner"))
    assert spans[name]["metadata"] == DOCUMENT
    assert spans[name]["tag.tags"] == ["checked"]
    assert spans[name]["mlflow.spanInputs"] == {"question": "why"}
    assert spans[name]["mlflow.spanOutputs"] == {"answer": "WHY"}
    assert len(spans) == 2
    assert application.tags(ref) == {**AS_TEXT, "mlflow.traceName": "chat", "tag.vip": "true"}
    metadata = application.server.trace(ref.trace_id_hex)["trace_metadata"]
    assert (metadata["mlflow.trace.user"], metadata["mlflow.trace.session"]) == ("u1", "s1")


def test_a_call_of_openai_is_updated_in_flight_and_late(application):
    """An instrumentor's span takes metadata before it leaves and after it is stored, and score and annotation too."""
    instrumentor = OpenAIInstrumentor()
    instrumentor.instrument(tracer_provider=application.provider)
    try:
        with (
            LlmStub(first_number=next(_numbers) * 1000) as stub,
            openai.OpenAI(base_url=f"{stub.url}/v1", api_key="no-key", max_retries=0) as client,
            om.capture_spans() as captured,
        ):
            client.chat.completions.create(model="gpt-5", messages=QUESTION)
    finally:
        instrumentor.uninstrument()
    call = captured.llm

    assert om.update_span(call, metadata={"when": "in flight", "kept": None}).route == "in_flight"
    om.update_trace(call, metadata={"plan": "pro"}, user_id="u1")
    application.deliver()
    assert om.update_span(call, metadata={"when": "late", "verdict": {"ok": True}}).route == "late"
    om.score_span(call, "Correctness", score=0.5, explanation="half of it", source="llm", metadata={"judge": "m"})
    om.annotate_span(call, "quality", label="good", text="well said", annotator="ann")
    om.annotate_span(call, "expected_answer", text="forty-two", annotator="ann")
    application.deliver()

    ref = call.ref
    (span,) = application.server.spans(ref.trace_id_hex).values()
    assert span["metadata"] == {"when": "in flight", "kept": None}
    assert span["llm.model_name"] == "gpt-5-stub"
    assert application.tags(ref) == {"plan": "pro"}
    assert application.server.trace(ref.trace_id_hex)["trace_metadata"]["mlflow.trace.user"] == "u1"
    found = application.assessments(ref)
    assert {one["span_id"] for one in found.values()} == {ref.span_id_hex}
    assert found["otel_metadata"]["metadata"] == {"when": "late", "verdict": '{"ok":true}'}
    assert found["Correctness"]["feedback"] == {"value": 0.5}
    assert found["Correctness"]["rationale"] == "half of it"
    assert found["Correctness"]["source"] == {"source_type": "LLM_JUDGE", "source_id": "otel_metadata"}
    assert found["Correctness"]["metadata"] == {"judge": "m"}
    assert found["quality"]["feedback"] == {"value": "good"}
    assert found["quality"]["source"] == {"source_type": "HUMAN", "source_id": "ann"}
    assert found["expected_answer"]["expectation"] == {"value": "forty-two"}
    assert len(found) == 4


def test_late_metadata_is_merged_at_the_first_level(application, ended):
    """Each key of each update is there, the last value of each, and the span has one assessment."""
    for document in (DOCUMENT, {"o": {"b": 2}, "more": 1}):
        om.update_span(ended, metadata=document)
        om.update_trace(ended, metadata=document, tags=["vip"])
        application.deliver()
    merged = {**AS_TEXT, "o": '{"b":2}', "more": "1"}
    found = application.assessments(ended)
    assert [*found] == ["otel_metadata"]
    assert found["otel_metadata"]["metadata"] == merged
    assert application.tags(ended) == {**merged, "tag.vip": "true"}


def test_late_name_and_user_of_the_trace(application, ended):
    """The name renames it; the user is the tag that the note speaks of."""
    om.update_trace(ended, name="renamed", user_id="u1", session_id="s1")
    application.deliver()
    assert application.tags(ended) == {"mlflow.traceName": "renamed", "user.id": "u1", "session.id": "s1"}


def test_a_later_verdict_replaces_the_whole_one(application, ended):
    """No part of the former is left."""
    om.score_span(ended, "Correctness", score=0.5, explanation="why", source="llm", metadata={"judge": "m"})
    application.deliver()
    om.score_span(ended, "Correctness", label="correct")
    application.deliver()
    (found,) = application.server.trace(ended.trace_id_hex)["assessments"]
    assert found["feedback"] == {"value": "correct"}
    assert found["source"]["source_type"] == "CODE"
    assert not found.keys() & {"rationale", "metadata"}


def test_the_same_patch_again_changes_nothing(application, ended):
    """Not even a time: the server's 500 for an id that it has means that the first one arrived."""
    fields: dict[Any, Any] = {
        ("trace", "metadata", "k"): ("x", (1_700_000_000_000_000_000, 7)),
        ("span", "evaluation", "Correctness"): ({"score": 1.0, "source": "code"}, (1_700_000_000_000_000_001, 7)),
    }
    exporter = application.destination.patch_exporter
    states = []
    for _ in range(2):
        assert exporter.export([Patch(ended, fields)], timeout_millis=10_000) == [Delivered()]
        states.append(application.server.trace(ended.trace_id_hex))
    assert states[0] == states[1]


def test_a_trace_that_is_unknown_is_told_and_may_come_later(application):
    """Tag, verdict and metadata of a trace that is not there: not found, not a bad request."""
    exporter = application.destination.patch_exporter
    target = om.SpanRef(0xABC_000 + next(_numbers), 1)
    for name, value in (
        (("trace", "metadata", "k"), "x"),
        (("span", "evaluation", "Correctness"), {"score": 1.0}),
        (("span", "metadata", "k"), "x"),
    ):
        (outcome,) = exporter.export([Patch(target, {name: (value, (1, 7))})], timeout_millis=10_000)
        assert isinstance(outcome, Rejected)
        assert outcome.error.type == "segment_not_found"


def test_a_session_that_is_too_long_does_not_cost_the_batch(application):
    """The server refuses a batch with such a span whole; ours leaves it out, and keeps it as a tag."""
    with application.tracer.start_as_current_span("other") as other:
        pass
    with application.tracer.start_as_current_span("work") as span:
        om.update_current_trace(session_id="s" * 251)
    application.deliver()
    assert application.server.spans(f"{other.get_span_context().trace_id:032x}").keys() == {"other"}
    assert application.tags(om.SpanRef.from_span_context(span.get_span_context())) == {"session.id": "s" * 251}


def test_what_is_set_late_is_found_by_a_search(application, ended):
    """Tags and verdicts are, with the filters that our page shows; metadata of a span is not said to be."""
    om.update_trace(ended, metadata={"plan": "pro"}, tags=["vip"])
    om.score_span(ended, "Correctness", score=0.5)
    application.deliver()
    experiment = application.server.trace(ended.trace_id_hex)["trace_location"]["mlflow_experiment"]
    where = [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": experiment}]
    for condition in ("tags.plan = 'pro'", "tags.`tag.vip` = 'true'", "feedback.Correctness = '0.5'"):
        body = {"locations": where, "filter": condition, "max_results": 10}
        status, found = application.server.call("POST", "/api/3.0/mlflow/traces/search", body)
        assert status == 200, found
        assert [one["trace_id"] for one in found["traces"]] == [f"tr-{ended.trace_id_hex}"], condition


def test_an_experiment_that_is_unknown_pauses_the_destination(server):
    """Nothing is given up for an id that is wrong."""
    sender = OtlpHttpSender(f"{server.url}/v1/traces", headers={"x-mlflow-experiment-id": "4711"})
    assert isinstance(sender.send([_span(1)], timeout_millis=10_000), Pause)
    sender.shutdown()


TEXTS = [
    "",
    "x",
    "null",
    "1",
    "0.10",
    '"a"',
    '"\\"a\\""',
    ' "a"',
    "{",
    '{"a": 1}',
    "[1]",
    "é",
    '"\\u00e9"',
    "😀" * 4096,
]


def test_a_text_is_the_same_live_and_late(application):
    """Whatever a text looks like, to JSON too, the tag has it."""
    expected = {f"k{number}": text for number, text in enumerate(TEXTS)}
    with application.tracer.start_as_current_span("live") as live:
        om.update_current_trace(metadata=expected)
    with application.tracer.start_as_current_span("late") as late:
        pass
    application.deliver()
    refs = [om.SpanRef.from_span_context(span.get_span_context()) for span in (live, late)]
    om.update_trace(refs[1], metadata=expected)
    application.deliver()
    assert [application.tags(ref) for ref in refs] == [expected, expected]


# A text that the server stores with a success, and then answers 500 for its whole trace; and one that loses its quotes.
OUTPUTS = ['{"id": 12345678901234567890}', '{"a":' * 40 + "1" + "}" * 40, "[" * 2_000 + "]" * 2_000, '"quoted"']


def test_no_text_makes_a_trace_unreadable(application):
    """What a function returns and what the application sets by itself come back as the texts that they were."""
    refs = []

    @om.observe(tracer=application.tracer)
    def answer(text: str) -> str:
        refs.append(om.current_span_ref())
        return text

    for text in OUTPUTS:
        answer(text)
        with application.tracer.start_as_current_span("plain", attributes={"app.key": text}) as plain:
            refs.append(om.SpanRef.from_span_context(plain.get_span_context()))
    application.deliver()

    found = [span for ref in refs for span in application.server.spans(ref.trace_id_hex).values()]
    assert [span.get("mlflow.spanOutputs", span.get("app.key")) for span in found] == [
        text for text in OUTPUTS for _ in range(2)
    ]


KEYS = ["a", "a.b", "a b", " a ", "a:b", "a/b", "user-id", "naïve", "名", "k" * 250, "a."]
BAD_KEYS = ["", "a,b", "a$", "a//b", "/a", "a/", ".", "..", "../a", "a/../b", "a/./b", "k" * 251, 'a"', "a\tb\n"]


def test_keys_are_judged_as_the_server_judges_them(application, ended):
    """The check before sending refuses what the server refuses, and nothing else."""
    for key in [*KEYS, *BAD_KEYS]:
        path = f"/api/3.0/mlflow/traces/tr-{ended.trace_id_hex}/tags"
        status, _ = application.server.call("PATCH", path, {"key": key, "value": "x"})
        tag = trace_tag(("trace", "metadata", key), "x")
        assert tag is not None
        assert (status == 200) == (tag.fault is None), key
        assert (key in KEYS) == (tag.fault is None), key


def feedback(identifier: str, **parts: Any) -> dict[str, Any]:
    head = {"assessment_id": identifier, "assessment_name": "correct", "source": {"source_type": "CODE"}}
    return {"assessment": {**head, **parts}}


# (method, path after the trace's, body); {n} is a number of its own, as ids are unique over all traces.
CASES: list[tuple[str, str, Any]] = [
    ("PATCH", "/tags", {"key": "k", "value": "x"}),
    ("PATCH", "/tags", {"key": "long", "value": "é" * 4097}),
    ("PATCH", "/tags", {"key": "number", "value": 1}),
    ("PATCH", "/tags", {"key": "a,b", "value": "x"}),
    ("PATCH", "/tags", {"key": "mlflow.traceName", "value": "n" * 4097}),
    ("PATCH", "/tags", {"key": "mlflow.trace.spansLocation", "value": "x"}),
    ("PATCH", "/tags", {"key": "mlflow.artifactLocation", "value": "x"}),
    ("POST", "/assessments", feedback("a-{n}", feedback={"value": 1}, rationale="why", metadata={"k": "x"})),
    ("POST", "/assessments", feedback("a-{n}", feedback={"value": 1})),
    ("PATCH", "/assessments/a-{n}", {**feedback("a-{n}", metadata={"l": "y"}), "update_mask": "metadata"}),
    ("PATCH", "/assessments/none-{n}", {**feedback("none-{n}", metadata={"l": "y"}), "update_mask": "metadata"}),
    ("POST", "/assessments", feedback("null-{n}", feedback={"value": None})),
    ("POST", "/assessments", feedback("bad-{n}", feedback={"value": 1}, metadata={"a": "1", "b": 2, "c": "3"})),
    ("POST", "/assessments", feedback("neither-{n}")),
    ("POST", "/assessments", feedback("expected-{n}", expectation={"value": "Paris"}, rationale="dropped")),
    ("POST", "/assessments", feedback("expected-null-{n}", expectation={"value": None})),
    ("DELETE", "/assessments/null-{n}", None),
    ("DELETE", "/assessments/null-{n}", None),
    ("GET", "", None),
]


def told(status: int, body: Any) -> tuple[int, Any]:
    """Return what an answer says that the two have in common: not its times, words and empty parts."""
    if status >= 400:
        return status, body["error_code"]
    assessment = (body or {}).get("assessment")
    parts = ("assessment_name", "feedback", "expectation", "rationale", "metadata", "span_id")
    return status, assessment and {part: assessment[part] for part in parts if assessment.get(part)}


def answers(where: Any, trace_id: int) -> list[tuple[int, Any]]:
    path = f"/api/3.0/mlflow/traces/tr-{trace_id:032x}"
    found = []
    for method, rest, body in CASES:
        given = None if body is None else _numbered(body, trace_id)
        found.append(told(*where.call(method, path + _numbered(rest, trace_id), given)))
    return found


def _numbered(value: Any, number: int) -> Any:
    if isinstance(value, dict):
        return {key: _numbered(item, number) for key, item in value.items()}
    return value.replace("{n}", str(number % 10**9)) if isinstance(value, str) else value


def test_the_double_answers_as_the_server_does(server):
    """The same requests, for a trace that is there and one that is not, and the tags that are there in the end."""
    known, unknown = 0xD0B1E_000 + next(_numbers), 0xBAD_000 + next(_numbers)
    with MlflowDouble() as double:
        for url in (server.url, double.url):
            sender = OtlpHttpSender(f"{url}/v1/traces", headers={"x-mlflow-experiment-id": "0"})
            assert sender.send([_span(known)], timeout_millis=10_000) == Delivered()
            sender.shutdown()
        both = [server, MlflowServer(double.url)]
        for trace_id in (known, unknown):
            of_server, of_double = (answers(one, trace_id) for one in both)
            for case, real, doubled in zip(CASES, of_server, of_double, strict=True):
                assert real == doubled, case
        tags = [one.trace(f"{known:032x}")["tags"] for one in both]
        assert tags[0].items() >= {key: tags[1][key] for key in ("k", "long", "plan", "service.name")}.items()


def _span(trace_id: int) -> Any:
    context = SpanContext(trace_id, 1, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    return ReadableSpan(
        "work",
        context,
        resource=Resource({"service.name": "app"}),
        attributes={"mlflow.traceTag.plan": "pro", "mlflow.traceTag.a,b": "skipped"},
        start_time=1_700_000_000_000_000_000,
        end_time=1_700_000_000_000_000_001,
    )


@pytest.mark.parametrize("order", ["mlflow first", "ours first", "adopt"])
def test_what_mlflow_itself_sends_leaves_once(server, order):
    """With MLflow's processor on the global provider; it drops spans whose parent is elsewhere, so those are ours."""
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": server.url,
        "MLFLOW_EXPERIMENT_ID": server.experiment(f"experiment {next(_numbers)}"),
        "MLFLOW_USE_DEFAULT_TRACER_PROVIDER": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONPATH": str(Path(om.__file__).parents[1]),
    }
    run = subprocess.run(
        [PYTHON, Path(__file__).with_name("mlflow_application.py"), order],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout.splitlines()[-1])

    assert said["sent"] == {"of another process": 1}
    assert set(server.spans(said["trace"])) == {"request", "ask", "inner"}
    assert set(server.spans(REMOTE)) == {"of another process"}
    assert [one["assessment_name"] for one in server.trace(said["trace"])["assessments"]] == ["otel_metadata"]
    assert run.stderr.count("the application exports to the same place") == 1
