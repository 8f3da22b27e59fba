"""The main promise as one program, run as a stranger would run it."""

from __future__ import annotations

import subprocess
import sys

SNIPPET = """
import otel_metadata as om
om.configure("sqlite:///spans.db")

@om.observe
def answer(question):
    om.update_current_span(metadata={"step": 1, "status": "started"})
    om.update_current_span(metadata={"step": 2, "error": None})
    om.update_current_trace(metadata={"source": "api"}, user_id="u-1")
    answer.ref = om.current_span_ref()
    return question.upper()

answer("hi")
assert om.update_span(answer.ref, metadata={"thumbs": "up"}).route == "in_flight"
om.flush()
assert om.update_span(answer.ref.to_traceparent(), metadata={"thumbs": "down"}).route == "late"
om.score_span(answer.ref, "Correctness", label="correct", score=1.0, explanation="…")
om.flush()
span = om.Client("sqlite:///spans.db").spans.get(answer.ref.span_id_hex)
assert span.metadata == {"step": 2, "status": "started", "error": None, "thumbs": "down"}
assert span.trace_metadata == {"source": "api"} and span.user_id == "u-1"
assert span.evaluations["Correctness"].label == "correct"
"""


def test_an_update_reaches_its_span_live_in_flight_and_late(tmp_path):
    """The snippet runs as it is written, in an empty directory, without a word on its error stream."""
    run = subprocess.run(
        [sys.executable, "-c", SNIPPET], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
