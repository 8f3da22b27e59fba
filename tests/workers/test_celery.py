"""Celery's prefork workers, which leave by `os._exit`: what waits in a child leaves before it ends."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from tests.workers.programs import Program, environment, stored

APPLICATION = """
    import os
    from pathlib import Path

    import otel_metadata as om
    from celery import Celery

    folder = Path(__file__).parent
    app = Celery("application", broker="filesystem://", backend=f"file://{folder}/results")
    app.conf.broker_transport_options = {
        "data_folder_in": f"{folder}/queue",
        "data_folder_out": f"{folder}/queue",
        "control_folder": f"{folder}/control",
    }
    if os.environ.get("RECYCLED"):
        app.conf.worker_max_tasks_per_child = 1
    om.configure(os.environ["STORE"])

    @app.task
    def work():
        with om.start_span("work", metadata={"process": os.getpid()}) as span:
            pass
        om.update_span(span, metadata={"late": 1})
        return os.getpid()
"""

ASK = "import json, application; sent = [application.work.delay() for _ in range(5)]; "
ASK += "print(json.dumps([one.get(timeout=60) for one in sent]))"


@pytest.mark.parametrize("recycled", ["1", ""])
def test_spans_of_every_child_arrive(tmp_path, monkeypatch, recycled):
    """The spans and late updates of every task arrive, whether its child is recycled or ends with the worker."""
    monkeypatch.setenv("RECYCLED", recycled)
    (tmp_path / "queue").mkdir()
    (tmp_path / "results").mkdir()
    Program.write(tmp_path, "application.py", APPLICATION)
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=WARNING"]
    with Program(tmp_path, "celery", "-A", "application", "worker", "-c", "2", *quiet) as worker:
        answer = subprocess.run(
            [sys.executable, "-c", ASK],
            cwd=tmp_path,
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert worker.end() == 0, worker.log
    processes = json.loads(answer.stdout)
    if recycled:
        assert len(set(processes)) == 5
    assert stored(tmp_path) == {("work", process, 1): processes.count(process) for process in processes}
    assert "Traceback" not in worker.log
