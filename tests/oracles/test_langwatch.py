"""LangWatch's own SDK as judge of the wire: it and we say the same, and the requests are compared field by field."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from tests.backends.vendors.langwatch import LangWatch, exporter
from tests.backends.vendors.server import KEY, Request

import otel_metadata as om
from otel_metadata.backends.langwatch import destination
from otel_metadata.model.evaluation import Annotation
from otel_metadata.model.merge import FieldName, Json
from otel_metadata.model.outcome import Delivered
from otel_metadata.model.patch import Patch

PROGRAM = Path(__file__).with_name("langwatch_sdk.py")
AT = 1_700_000_000_000_000_000


@pytest.fixture(scope="module")
def theirs():
    """What the SDK sent, and the id of its trace."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LANGWATCH_", "OTEL_"))}
    with LangWatch() as double:
        done = subprocess.run(
            [sys.executable, str(PROGRAM), double.url, KEY],
            capture_output=True,
            text=True,
            timeout=120,
            env=environment,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2_000:]
        yield double, done.stdout.split()[-1]


def sent(double: LangWatch, *fields: tuple[FieldName, Json], trace_id: str) -> Request:
    """Return our last request for a patch of these fields."""
    versioned = {name: (value, (AT + place, 7)) for place, (name, value) in enumerate(fields)}
    one = exporter(double.url)
    (outcome,) = one.export([Patch(om.SpanRef(int(trace_id, 16), 1), versioned)], timeout_millis=5_000)
    one.shutdown()
    assert isinstance(outcome, Delivered)
    return double.requests[-1]


def request(double: LangWatch, method: str, part: str) -> Request:
    return next(one for one in double.requests if one.method == method and part in one.path)


def headers(one: Request) -> dict[str, str]:
    return {name: one.headers.get(name, "") for name in ("authorization", "x-auth-token", "content-type")}


def test_the_patch_is_the_same(theirs):
    """Method, path, headers and body of a late update of a trace's metadata, user, session and tags."""
    double, trace_id = theirs
    expected = request(double, "PATCH", "/metadata")
    with LangWatch() as ours:
        found = sent(
            ours,
            (("trace", "user_id", ""), "u2"),
            (("trace", "session_id", ""), "s2"),
            (("trace", "tag", "late"), True),
            (("trace", "metadata", "region"), "eu"),
            trace_id=trace_id,
        )
    assert (found.path, headers(found), found.json) == (expected.path, headers(expected), expected.json)


def test_a_note_is_the_same(theirs):
    """The comment on a trace."""
    double, trace_id = theirs
    expected = request(double, "POST", "/annotations/")
    note = Annotation("quality", "good", 1.0, "well said", "a@example.com").to_json()
    with LangWatch() as ours:
        found = sent(ours, (("trace", "annotation", "quality"), note), trace_id=trace_id)
    assert (found.path, headers(found), found.json) == (expected.path, headers(expected), expected.json)


def test_feedback_is_the_same(theirs):
    """The event; LangWatch names its path `/api/events/track` now, its SDK still calls the old one."""
    double, trace_id = theirs
    expected = request(double, "POST", "/api/track_event")
    note = Annotation("thumbs_up_down", None, 1, "nice").to_json()
    with LangWatch() as ours:
        found = sent(ours, (("trace", "annotation", "thumbs_up_down"), note), trace_id=trace_id)
    assert headers(found) == headers(expected)
    # The id is ours to choose.
    assert {**found.json, "event_id": "e1"} == expected.json


def test_a_span_and_its_evaluation_say_the_same(theirs):
    """What both say of a live trace: input, output, metadata, ids, labels, and what LangWatch makes of a verdict."""
    double, their_id = theirs
    with LangWatch() as ours:
        provider = TracerProvider(shutdown_on_exit=False)
        om.configure(destination(api_key=KEY, endpoint=ours.url), tracer_provider=provider)
        with provider.get_tracer("application").start_as_current_span("answer") as span:
            om.update_current_span(input="hello", output={"a": "bye"})
            om.update_current_trace(metadata={"env": "prod"}, user_id="u1", session_id="s1", tags=["qa"])
            om.score_current_span("Correctness", score=1.0, label="correct", explanation="because")
        assert om.flush()
        om.shutdown()
        our_id = f"{span.get_span_context().trace_id:032x}"
        (our_span,) = ours.traces[our_id].spans
        their_span = next(one for one in double.traces[their_id].spans if one.name == "answer")
        for name in ("langwatch.input", "langwatch.output"):
            assert json.loads(our_span.attributes[name]) == json.loads(their_span.attributes[name])
        shown, their_shown = ours.metadata(our_id), double.metadata(their_id)
        assert {key: shown[key] for key in ("env", "user_id", "thread_id")} == {
            key: their_shown[key] for key in ("env", "user_id", "thread_id")
        }
        assert shown["labels"] == ["qa"]
        assert their_shown["labels"] == ["qa", "late"]
        (verdict,), (their_verdict,) = (
            ours.traces[our_id].evaluations.values(),
            double.traces[their_id].evaluations.values(),
        )
        del verdict["evaluation_id"], their_verdict["evaluation_id"]
        assert verdict == their_verdict
        expected, found = request(double, "POST", "/otel/"), request(ours, "POST", "/otel/")
        assert (found.path, headers(found)) == (expected.path, headers(expected))
