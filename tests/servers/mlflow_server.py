"""The real MLflow tracking server, in a process of its own from an environment of its own, on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PYTHON = Path(__file__).parents[2] / ".venv-mlflow" / "bin" / "python"
START_SECONDS = 120
STOP_SECONDS = 30


@dataclass(frozen=True)
class MlflowServer:
    """A server that runs, and its own API to read back with."""

    url: str

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Send a request; return the status, and the JSON of the body or None."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}{path}", data=data, method=method, headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, _json(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, _json(error.read())

    def experiment(self, name: str) -> str:
        """Create an experiment and return its id."""
        status, body = self.call("POST", "/api/2.0/mlflow/experiments/create", {"name": name})
        assert status == 200, body
        return str(body["experiment_id"])

    def trace(self, trace_id: str) -> dict[str, Any]:
        """Return what a trace is known by: tags, metadata, assessments; by its 32 hex digits."""
        status, body = self.call("GET", f"/api/3.0/mlflow/traces/tr-{trace_id}")
        assert status == 200, body
        info = body["trace"]["trace_info"]
        return {"tags": {}, "trace_metadata": {}, "assessments": [], **info}

    def spans(self, trace_id: str) -> dict[str, dict[str, Any]]:
        """Return name and attributes of each span of a trace, by name."""
        status, body = self.call("GET", f"/api/3.0/mlflow/traces/get?trace_id=tr-{trace_id}")
        assert status == 200, body
        return {
            span["name"]: {one["key"]: _value(one.get("value", {})) for one in span.get("attributes", [])}
            for span in body["trace"]["spans"]
        }


@contextlib.contextmanager
def running(folder: Path) -> Iterator[MlflowServer]:
    """Start a server that keeps everything in *folder*, and end it."""
    if not PYTHON.exists():
        raise RuntimeError(f"There is no {PYTHON}; `make test-backends` builds it.")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(PYTHON), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        f"{folder}/artifacts",
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PYTHON"))}
    # Without jobs it takes a third of the memory; and nobody is told that it runs.
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**environment, **quiet, "HOME": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    reader = threading.Thread(target=process.stdout.read, daemon=True)
    try:
        _wait_until_it_serves(process)
        # Somebody has to read on, or the server stands still when the pipe is full.
        reader.start()
        yield MlflowServer(f"http://127.0.0.1:{port}")
    finally:
        _end(process)
        if reader.is_alive():
            reader.join()
        process.stdout.close()


def _wait_until_it_serves(process: subprocess.Popen[str]) -> None:
    # It ends the reading below too.
    timer = threading.Timer(START_SECONDS, _kill, [process])
    timer.start()
    said: list[str] = []
    try:
        for line in process.stdout:
            said.append(line)
            if "Uvicorn running on" in line:
                return
    finally:
        timer.cancel()
        timer.join()
    raise RuntimeError(f"MLflow did not start within {START_SECONDS} s:\n{''.join(said)}")


def _end(process: subprocess.Popen[str]) -> None:
    # The first process ends the one that serves.
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        _kill(process)
        process.wait(STOP_SECONDS)


def _kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        # A session of its own, so the group is the server's two processes.
        os.killpg(process.pid, signal.SIGKILL)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _value(value: dict[str, Any]) -> Any:
    """Return an attribute's value, of OTLP's JSON, as Python."""
    for kind, found in value.items():
        if kind == "array_value":
            return [_value(one) for one in found.get("values", [])]
        if kind == "kvlist_value":
            return {one["key"]: _value(one.get("value", {})) for one in found.get("values", [])}
        return found
    return None
