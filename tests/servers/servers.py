"""Real servers of backends, each in an environment of its own beside `.venv`, on loopback, ended by process id."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

T = TypeVar("T")

PHOENIX_BIN = Path(__file__).parents[2] / ".venv-phoenix" / "bin"
_HOST = "127.0.0.1"
# A first start builds the database; on a machine that does other work it has taken 45 s.
_START_SECONDS = 180
_STOP_SECONDS = 30
_VISIBLE_SECONDS = 60
_BETWEEN_LOOKS_SECONDS = 0.1


def eventually(look: Callable[[], T], seconds: float = _VISIBLE_SECONDS) -> T:
    """Return the first answer that is true; the last one when the time is over, for the test to complain of it."""
    until = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < until:
        threading.Event().wait(_BETWEEN_LOOKS_SECONDS)
    return found


def free_port() -> int:
    """Return a port that nothing listens on now."""
    with socket.socket() as taken:
        taken.bind((_HOST, 0))
        port: int = taken.getsockname()[1]
        return port


class Phoenix:
    """A Phoenix with a database of its own, behind a key.

    Attributes:
        url: The same after a restart.
        key: Accepted as bearer.
    """

    key = "otel-metadata-admin-0123456789-abcdefgh"

    def __init__(self, folder: Path) -> None:
        """Choose the ports; start later.

        Args:
            folder: For the database and the log.
        """
        self._program = PHOENIX_BIN / "phoenix"
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://{_HOST}:{self._port}"
        self._environment = {
            "PATH": os.defpath,
            "HOME": str(folder),
            "PHOENIX_WORKING_DIR": str(folder),
            "PHOENIX_SQL_DATABASE_URL": f"sqlite:///{folder}/phoenix.db",
            "PHOENIX_HOST": _HOST,
            "PHOENIX_PORT": str(self._port),
            "PHOENIX_GRPC_PORT": str(free_port()),
            "PHOENIX_TELEMETRY_ENABLED": "false",
            "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
            "PHOENIX_DISCOVER_CONFIG": "false",
            "PHOENIX_ENABLE_AUTH": "true",
            "PHOENIX_SECRET": "otel-metadata-secret-0123456789-abcdefgh",
            "PHOENIX_ADMIN_SECRET": self.key,
        }

    @property
    def log(self) -> str:
        """The end of what it printed."""
        return (self._folder / "log").read_text(errors="replace")[-4_000:]

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            RuntimeError: It is not installed, ended, or did not answer in time.
        """
        if not self._program.exists():
            raise RuntimeError(f"{PHOENIX_BIN} has no Phoenix; `make test-backends` builds it.")
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "serve"], stdout=log, stderr=log, env=self._environment, cwd=self._folder
            )
        process = self._process

        def is_up() -> bool:
            return process.poll() is not None or self._answers()

        if not eventually(is_up, _START_SECONDS) or process.poll() is not None:
            self.stop()
            raise RuntimeError(f"Phoenix did not start:\n{self.log}")

    def _answers(self) -> bool:
        try:
            return self.call("GET", "/healthz")[0] == 200
        except OSError:
            return False

    def stop(self) -> None:
        """Ask it to end; make it, when it does not."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """End it at once, in the middle of what it does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def call(
        self, method: str, path: str, query: Mapping[str, Any] | None = None, body: object = None
    ) -> tuple[int, Any]:
        """Send a request; return the status, and the body as JSON where it is that."""
        connection = http.client.HTTPConnection(_HOST, self._port, timeout=30)
        target = f"{path}?{urlencode(query, doseq=True)}" if query else path
        try:
            connection.request(method, target, headers={"authorization": f"Bearer {self.key}"})
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        try:
            return response.status, json.loads(text)
        except ValueError:
            return response.status, text

    def spans(self, project: str) -> dict[str, dict[str, Any]]:
        """Return the stored spans of a project by span id; empty where there is no such project."""
        status, found = self.call("GET", f"/v1/projects/{project}/spans", {"limit": 1_000})
        return {span["context"]["span_id"]: span for span in found["data"]} if status == 200 else {}

    def annotations(self, project: str, level: str, *targets: str) -> list[dict[str, Any]]:
        """Return the annotations and notes of spans or traces."""
        query = {f"{level}_ids": targets, "limit": 10_000}
        status, found = self.call("GET", f"/v1/projects/{project}/{level}_annotations", query)
        if status != 200:
            raise RuntimeError(f"{status} for the annotations of {len(targets)} {level}s in {project}: {found}")
        return list(found["data"])
