"""Phoenix's own client as judge: the same facts, sent by it and by us, are the same requests."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.backends.vendors.phoenix import PhoenixDouble
from tests.backends.vendors.server import KEY, Request
from tests.servers.servers import PHOENIX_BIN

from otel_metadata.backends.phoenix.patches import PhoenixPatchExporter
from otel_metadata.model.evaluation import Annotation, Evaluation
from otel_metadata.model.outcome import Delivered
from otel_metadata.model.patch import Patch
from otel_metadata.model.span_ref import SpanRef

PROGRAM = Path(__file__).with_name("phoenix_client.py")

REF = SpanRef(1, 2)
PATCH = Patch(
    REF,
    {
        ("span", "metadata", "k"): ({"a": [1, None]}, (1, 7)),
        ("span", "evaluation", "C"): (Evaluation("C", 0.5, "ok", "why", "llm", {"judge": "m"}).to_json(), (2, 7)),
        ("trace", "annotation", "q by ann"): (Annotation("q", "good", annotator="ann").to_json(), (3, 7)),
        ("span", "annotation", "note"): (Annotation("note", text="hello").to_json(), (4, 7)),
    },
)
# In the client's own words.
SPAN = {"span_id": REF.span_id_hex}
SAID = {
    "key": KEY,
    "span": [
        {
            **SPAN,
            "name": "otel_metadata",
            "annotator_kind": "CODE",
            "identifier": "k",
            "result": {"label": "k", "explanation": '{"a":[1,null]}'},
            "metadata": {"k": {"a": [1, None]}},
        },
        {
            **SPAN,
            "name": "C",
            "annotator_kind": "LLM",
            "identifier": "otel_metadata:evaluation",
            "result": {"label": "ok", "score": 0.5, "explanation": "why"},
            "metadata": {"judge": "m"},
        },
    ],
    "trace": [
        {
            "trace_id": REF.trace_id_hex,
            "name": "q",
            "annotator_kind": "HUMAN",
            "identifier": "otel_metadata:annotation:ann",
            "result": {"label": "good"},
            "metadata": {"annotator": "ann"},
        }
    ],
    "note": {**SPAN, "note": "hello"},
}


def asked(request: Request) -> tuple[str, str, str | None, str, Any]:
    """Return what a request says; a part of a verdict that is null is as one that is not there.

    The client (3.5.0) has no word for a note's identifier, which the server takes.
    """
    data: Any = request.json["data"]
    if isinstance(data, dict):
        data.pop("identifier", None)
    else:
        for row in data:
            row["result"] = {part: value for part, value in row["result"].items() if value is not None}
    return request.method, request.path, request.query.get("sync"), request.headers["authorization"], data


def test_our_requests_are_those_of_phoenix_s_client(tmp_path):
    """Path, query, credentials and body, field by field."""
    with PhoenixDouble() as double:
        double.know(REF)
        command = [PHOENIX_BIN / "python", PROGRAM, double.url, "write", json.dumps(SAID)]
        subprocess.run(command, check=True, timeout=300, env={"PATH": os.defpath}, cwd=tmp_path)
        theirs = [asked(request) for request in double.requests if request.method == "POST"]
        double.requests.clear()
        exporter = PhoenixPatchExporter(double.url, headers={"authorization": f"Bearer {KEY}"})
        assert isinstance(exporter.export([PATCH], timeout_millis=10_000)[0], Delivered)
        exporter.shutdown()
        ours = [asked(request) for request in double.requests]
    assert sorted(ours, key=lambda one: one[1]) == sorted(theirs, key=lambda one: one[1])
