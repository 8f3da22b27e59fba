"""Arize's own SDK as judge: what it sends for us, what it answers, and whether the double takes and refuses as it does.

The SDK wants wrapt below 2, pandas below 3 and protobuf below 7, so a program is run by a Python that may be another's:
`OTEL_METADATA_TEST_ARIZE_PYTHON`, by default the one that runs this. It needs `arize`, `arize-otel` and this library.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.backends.vendors.arize import PROJECT, SPACE
from tests.backends.vendors.server import KEY

from otel_metadata.model.outcome import Delivered

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests" / "oracles" / "programs" / "arize_sdk.py"
AT_MILLIS = 1_700_000_000_000


@pytest.fixture(scope="module")
def ran() -> subprocess.CompletedProcess[str]:
    python = os.environ.get("OTEL_METADATA_TEST_ARIZE_PYTHON", sys.executable)
    # gRPC asks proxies even for loopback, and what the machine says of Arize has no say.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("ARIZE_")}
    variables |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}", "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}
    return subprocess.run([python, str(PROGRAM)], env=variables, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def report(ran: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)  # type: ignore[no-any-return] # an object


def span_id(number: int) -> str:
    return f"{number:016x}"


def documents(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {row["context.span_id"]: json.loads(row["patch_document"]) for row in request["rows"]}
        for request in report["metadata requests"]
    ]


def test_the_sdk_says_nothing(ran, report):
    """Standard output is the report alone, no log line reaches standard error, and the key is nowhere."""
    assert ran.stderr == ""
    assert KEY not in json.dumps({name: found for name, found in report.items() if name != "headers"})


def test_requests_name_space_and_project(report):
    """As Arize's endpoint wants them, for each of the three calls."""
    requests = [*report["metadata requests"], *report["verdict requests"]]
    assert {(one["spaceId"], one["externalModelId"]) for one in requests} == {(SPACE, PROJECT)}
    assert [one["request"] for one in requests] == [
        *["writeSpanAttributesMetadataRequest"] * 3,
        "writeSpanEvaluationRequest",
        "writeSpanAnnotationRequest",
        "writeSpanEvaluationRequest",
        "writeSpanAnnotationRequest",
    ]


def test_metadata_arrives_as_it_was_meant(report):
    """Key by key; a document whose one key has another type comes again by halves."""
    assert documents(report) == [
        {
            span_id(1): {
                "s": "x", "n": 0, "f": 0.5, "b": "false", "none": None, "o": '{"a":[1]}', "l": '["a","b"]',
            },
            span_id(2): {"big": 2**63 - 1, "text": "é"},
            span_id(3): {"k": 1},
            span_id(4): {"bad": "x", "good": "y"},
        },
        {span_id(4): {"bad": "x"}},
        {span_id(4): {"good": "y"}},
    ]  # fmt: skip


def test_each_span_has_its_outcome(report):
    """From the SDK's own reply, in which zeros are absent and integers are text."""
    first, second, third, fourth = report["metadata"]
    assert first.startswith("Delivered(notes=('metadata.b: ")
    assert second == repr(Delivered())
    assert "segment_not_found" in third
    assert "type_conflict" in fourth
    assert "metadata.bad" in fourth


def test_verdicts_arrive_as_they_were_meant(report):
    """In columns that the SDK does not drop, with no null among them, dated by the update and not by the try."""
    rows = [row for request in report["verdict requests"] for row in request["rows"]]
    assert rows == [
        {
            "context.span_id": span_id(1),
            "eval.my_eval.score": 1.0,
            "eval.my_eval.label": "good",
            "eval.my_eval.explanation": "x" * 10_000,
        },
        {
            "context.span_id": span_id(1),
            "annotation.q.label": "good",
            "annotation.q.updated_by": "ann",
            "annotation.q.updated_at": AT_MILLIS,
        },
        {"context.span_id": span_id(2), "eval.e.score": 0.0},
        {"context.span_id": span_id(3), "eval.e.score": 1.0},
        {
            "context.span_id": span_id(2),
            "annotation.h.score": 1.0,
            "annotation.h.text": "why",
            "annotation.h.updated_by": "SDK",
            "annotation.h.updated_at": AT_MILLIS,
        },
    ]
    first, second, third = report["verdicts"]
    assert (first.partition("(")[0], second.partition("(")[0]) == ("Delivered", "Delivered")
    assert "segment_not_found" in third


def test_much_metadata_goes_in_several_calls(report):
    """The SDK takes each document."""
    assert (report["much"], report["much requests"]) == ([repr(Delivered())], [1, 1])


@pytest.mark.parametrize(
    ("name", "outcome", "error"),
    [
        ("wrong key", "Pause", "unauthorized"),
        ("unavailable", "Retry", "connection_failure"),
        ("hangs", "Retry", "connection_failure"),
        ("refused connection", "Retry", "connection_failure"),
        ("wrong scheme", "Pause", "backend_rejection"),
    ],
)
def test_what_the_sdk_raises_is_understood(report, name, outcome, error):
    """Whatever goes wrong below the SDK, each patch has the outcome that the table of the exporter says."""
    for found in report[name]:
        assert found.startswith(f"{outcome}(error=DeliveryError(type='{error}'")
    assert report["wrong key requests"] == 1


def test_the_double_takes_refuses_and_drops_as_the_sdk_does(report):
    """Table by table: the same rows on the wire, or refused by both."""
    assert {name: found["double"] for name, found in report["tables"].items()} == {
        name: found["sdk"] for name, found in report["tables"].items()
    }
    assert len({json.dumps(found["sdk"]) for found in report["tables"].values()}) > 10


def test_spans_have_the_headers_of_arize_otel(report):
    """All but those in which a client names itself."""
    theirs, ours = report["headers"]["theirs"], report["headers"]["ours"]
    own = {"host", "user-agent", "accept-encoding", "accept", "connection", "content-length"}
    own |= {"sdk-language", "language-version", "sdk-version", "sdk-package-name"}
    assert {name: ours.get(name) for name in theirs.keys() - own} == {
        name: theirs[name] for name in theirs.keys() - own
    }
