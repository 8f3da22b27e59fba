"""joblib, whose loky workers are spawned in a way of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.workers.programs import Program, environment, stored

JOBS = """
    import os

    import otel_metadata as om

    om.configure(os.environ["STORE"])

    def job():
        with om.start_span("job", metadata={"process": os.getpid()}) as span:
            pass
        om.update_span(span, metadata={"late": 1})
"""


@pytest.mark.parametrize("backend", ["loky", "multiprocessing"])
def test_spans_of_every_worker_arrive(tmp_path, backend):
    """The spans and late updates of every job arrive, although joblib leaves its workers to the exit."""
    Program.write(tmp_path, "jobs.py", JOBS)
    program = f"""
from joblib import Parallel, delayed
from jobs import job
if __name__ == "__main__":
    Parallel(n_jobs=2, backend={backend!r})(delayed(job)() for _ in range(10))
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment(tmp_path), timeout=120, check=True)
    counts = stored(tmp_path)
    assert {(name, late) for name, _, late in counts} == {("job", 1)}
    assert counts.total() == 10
