"""What Langfuse's and Logfire's SDKs ask beside OTLP, by real requests."""

from __future__ import annotations

import json
from typing import Any

import pytest
import urllib3
from tests.server.conftest import Server
from tests.store.contract import ended_span, only, trace_hex

from otel_metadata.model.evaluation import Evaluation
from otel_metadata.model.record import SpanRecord

SPAN = f"{1:016x}"
SCORE = {"id": "s-1", "traceId": trace_hex(), "observationId": SPAN, "name": "quality", "value": 0.5}


def send(server: Server, document: Any) -> urllib3.BaseHTTPResponse:
    return server.call("POST", "/api/public/scores", json=document)


def scored(server: Server, *documents: Any) -> SpanRecord:
    """Return the span after the requests."""
    server.store.write([ended_span()])
    for document in documents:
        answer = send(server, document)
        expected = (202, {"message": "Accepted"}) if isinstance(document, list) else (200, {"id": document["id"]})
        assert (answer.status, answer.json()) == expected
    return only(server.store, span_id=SPAN)


@pytest.mark.parametrize(
    ("score", "evaluation"),
    [
        ({"value": 0.5, "dataType": "NUMERIC", "comment": "c"}, {"score": 0.5, "explanation": "c"}),
        ({"value": 7}, {"score": 7}),
        ({"value": "good", "dataType": "CATEGORICAL"}, {"label": "good"}),
        ({"value": "good"}, {"label": "good"}),
        ({"value": "long", "dataType": "TEXT"}, {"label": "long"}),
        ({"value": 1, "dataType": "BOOLEAN"}, {"score": 1, "label": "true"}),
        ({"value": 0.0, "dataType": "BOOLEAN"}, {"score": 0, "label": "false"}),
        ({"value": 1, "metadata": {"m": [1]}}, {"score": 1, "metadata": {"m": [1]}}),
        ({"value": 1, "metadata": {}}, {"score": 1}),
        ({"value": 1, "source": "ANNOTATION"}, {"score": 1, "source": "human"}),
        # As our own exporter to Langfuse writes an evaluation.
        (
            {"value": 1, "metadata": {"otel_metadata.source": "llm", "otel_metadata.label": "good"}},
            {"score": 1, "label": "good", "source": "llm"},
        ),
        # Of another program: no source and no label of ours.
        (
            {"value": 1, "metadata": {"otel_metadata.source": "x", "otel_metadata.label": 7}},
            {"score": 1, "metadata": {"otel_metadata.source": "x", "otel_metadata.label": 7}},
        ),
        # Longer than what the clean-up of our own calls would leave whole.
        ({"value": 1, "comment": "c" * 300_000}, {"score": 1, "explanation": "c" * 300_000}),
        ({"value": "é" * 40_000}, {"label": "é" * 40_000}),
        ({"value": 1, "metadata": {"k": ["v" * 40_000] * 20}}, {"score": 1, "metadata": {"k": ["v" * 40_000] * 20}}),
    ],
)
def test_a_score_becomes_an_evaluation(server, score, evaluation):
    """Of each type, on a span; and on its trace without an observation."""
    of_span, of_trace = {**SCORE, **score}, {**SCORE, **score}
    del of_trace["observationId"]
    record = scored(server, [of_span], of_trace)
    expected = {"quality": Evaluation("quality", **evaluation)}
    assert record.evaluations == expected
    assert record.trace_evaluations == expected


def test_the_last_score_of_a_name_wins(server):
    """Within a list, too, and whatever the ids are."""
    record = scored(server, [SCORE, {**SCORE, "id": "s-2", "value": 0.7}], {**SCORE, "id": "s-3", "value": 0.9})
    assert record.evaluations["quality"].score == 0.9


@pytest.mark.parametrize(
    "change",
    [
        {"name": None},
        {"name": ""},
        {"name": 7},
        {"traceId": None, "sessionId": "s"},
        {"traceId": "x"},
        {"traceId": "0" * 32},
        {"observationId": "x"},
        {"observationId": 7},
        {"value": None},
        {"value": [1]},
        {"value": True},
        {"value": "x", "dataType": "NUMERIC"},
        {"value": 2, "dataType": "BOOLEAN"},
        {"value": 1, "dataType": "CATEGORICAL"},
        {"value": 1, "dataType": "COLOUR"},
        {"comment": 7},
        {"metadata": [1]},
        {"source": 7},
        {"id": 7},
        # What the store could keep in part only.
        {"name": "n" * 257},
        {"comment": "c\0"},
        {"value": "v\0"},
        {"value": 1 << 70},
        {"metadata": {"k" * 257: "v"}},
        {"metadata": json.loads('{"k":' * 70 + "1" + "}" * 70)},
        {"metadata": {"k": 1 << 70}},
    ],
    ids=lambda change: f"{change}"[:40],
)
def test_what_is_no_score_is_refused_by_itself(server, change):
    """The others of the list are stored."""
    server.store.write([ended_span()])
    answer = send(server, {**SCORE, **change})
    assert answer.status == 400
    assert "expected" in answer.json()["message"]
    answer = send(server, [{**SCORE, **change}, {**SCORE, "name": "other"}])
    body = answer.json()
    assert (answer.status, body["accepted"], body["rejected"], len(body["errors"])) == (207, 1, 1, 1)
    assert only(server.store, span_id=SPAN).evaluations.keys() == {"other"}


@pytest.mark.parametrize("body", [b"", b"{", b"7", b"\xff", b'[{"name": NaN}]'])
def test_a_body_that_is_no_score_is_refused(server, body):
    answer = server.call("POST", "/api/public/scores", body=body)
    assert (answer.status, list(answer.json())) == (400, ["message"])


def test_scores_of_older_sdks(server):
    """They come in a batch of events, of which each has its own answer."""
    server.store.write([ended_span()])
    batch = [
        {"id": "e-1", "type": "score-create", "timestamp": "2026-11-20T12:00:00Z", "body": SCORE},
        {"id": "e-2", "type": "span-update", "timestamp": "2026-11-20T12:00:00Z", "body": {}},
        {"id": "e-3", "type": "score-create", "timestamp": "2026-11-20T12:00:00Z", "body": {}},
        7,
    ]
    answer = server.call("POST", "/api/public/ingestion", json={"batch": batch})
    body = answer.json()
    assert (answer.status, body["successes"]) == (207, [{"id": "e-1", "status": 201}])
    assert [(one["id"], one["status"]) for one in body["errors"]] == [("e-2", 400), ("e-3", 400), (None, 400)]
    assert only(server.store, span_id=SPAN).evaluations["quality"].score == 0.5
    assert server.call("POST", "/api/public/ingestion", json={}).status == 400


def test_the_project_of_the_keys(server):
    (project,) = server.call("GET", "/api/public/projects").json()["data"]
    assert {"id", "name", "organization", "metadata"} == project.keys()


def test_logfires_project(server):
    body = server.call("GET", "/v1/info").json()
    assert body.keys() == {"project_name", "project_url"}
    assert body["project_url"] == f"{server.url}/"
