"""The embedded ClickHouse engine behind its HTTP front, in a process of its own on loopback."""

from __future__ import annotations

import http.client
import itertools
import json
import select
import subprocess
from pathlib import Path
from typing import Any

FRONT = Path(__file__).with_name("front.py")
PYTHON = Path(__file__).parents[2] / ".venv-clickhouse" / "bin" / "python"
# A first start loads a library of 555 MB.
_START_SECONDS = 120
_STOP_SECONDS = 30

_databases = itertools.count(1)


class Engine:
    """An engine that runs, and the faults of its front.

    Attributes:
        port: Of the front, on 127.0.0.1.
    """

    def __init__(self, folder: Path) -> None:
        """Start it, and wait until it answers.

        Raises:
            RuntimeError: It is not installed, or did not start.
        """
        if not PYTHON.exists():
            raise RuntimeError(f"{PYTHON} is not there; `make test-clickhouse` builds it.")
        self._process = subprocess.Popen([PYTHON, FRONT, folder], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        is_there, _, _ = select.select([self._process.stdout], [], [], _START_SECONDS)
        line = self._process.stdout.readline() if is_there else b""
        if not line.strip().isdigit():
            self.stop()
            raise RuntimeError(f"The front did not start: it said {line!r} instead of its port.")
        self.port = int(line)

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def url(self, database: str, user: str = "") -> str:
        """Return the URL of a store."""
        return f"clickhouse://{user}127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Make an empty database and return its name."""
        name = f"test_{next(_databases)}"
        self.run(f"CREATE DATABASE {name}")
        return name

    def run(self, sql: str) -> list[dict[str, Any]]:
        """Run one statement past the client; return its rows."""
        status, body = self._call("POST", "/?default_format=JSONEachRow&output_format_json_quote_64bit_integers=0", sql)
        if status != 200:
            raise RuntimeError(f"{status}: {body}")
        return [json.loads(line) for line in body.splitlines()]

    def fail(self, *faults: dict[str, Any]) -> None:
        """Let the next statements that match meet faults (see `front`); none clears those that wait."""
        self._call("POST", "/front/faults", json.dumps(faults))

    def statements(self) -> list[str]:
        """Return the statements that were run since the last call."""
        return list(json.loads(self._call("GET", "/front/statements")[1]))

    def targets(self) -> list[str]:
        """Return the request targets (path and query) that were seen since the last call."""
        return list(json.loads(self._call("GET", "/front/targets")[1]))

    def _call(self, method: str, path: str, body: str = "") -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body=body.encode())
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()
