"""An application that turns warnings into errors loses nothing: `python -W error`, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys

import otel_metadata as om
from opentelemetry import trace

url, spool = sys.argv[1:]
om.configure(url, spool=spool)


@om.observe(tags=["live"])
def answer(question):
    return question.upper()


with om.using_metadata({"tenant": "acme"}, session_id="s-1"), om.start_span("request") as request:
    answer("why")
assert request.update(metadata={"late": "in flight"})
early = trace.get_tracer("app").start_span("alone")
early.end()
om.flush()
assert request.update(metadata={"later": 1}, attributes={"http.route": "/"}, tags=["late"], status="error")
assert om.score_span(request, "Correctness", score=0.5, label="half")
assert om.annotate_span(request, "quality", text="good", annotator="ann")
assert om.update_trace(request, user_id="u-1")
om.flush()

with om.Client(url) as client:
    report = client.spans.update_metadata([{"context.span_id": request.ref.span_id_hex, "attributes.metadata.row": 1}])
    assert report.spans_updated == 1, report
    client.spans.delete([format(early.get_span_context().span_id, "016x")])
    client.spans.update(request.ref, metadata={"by": "client"})
    records = {one.name: one for one in client.spans.list(filter="metadata.tenant = 'acme' AND latency_ms >= 0")}
    found = client.spans.get(request.ref)

assert sorted(records) == ["answer", "request"], records
assert records["answer"].input == {"question": "why"} and records["answer"].output == "WHY", records
assert found.metadata == {"tenant": "acme", "late": "in flight", "later": 1, "row": 1, "by": "client"}, found
assert found.tags == ("late",) and found.status_code == "ERROR", found
assert found.user_id == "u-1" and found.session_id == "s-1" and found.evaluations and found.annotations, found
counts = om.stats()
assert counts.internal_errors == 0, counts
assert all(not one.lost and not one.waiting for one in counts.destinations.values()), counts
"""


def test_warnings_as_errors_lose_no_span_and_no_update(tmp_path: Path) -> None:
    """A warning inside a write is an error of the store then, and the span is gone."""
    run = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            PROGRAM,
            f"sqlite:///{tmp_path}/spans.db",
            str(tmp_path / "spool" / "spool.db"),
        ],
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )

    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
