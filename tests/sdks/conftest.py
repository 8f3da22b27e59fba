"""A server of ours in one process, a vendor's SDK in another with its own environment, and the store between them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_metadata.model.record import SpanQuery, SpanRecord
from otel_metadata.server.sdk_settings import settings_of
from otel_metadata.store.sqlite.store import SqliteStore

HERE = Path(__file__).parent
PATIENCE = 180
"""Seconds after which a program has failed; an SDK takes some to be imported on a busy machine."""


class Server:
    """A server that runs.

    Attributes:
        http: Its address over HTTP.
        grpc: Its address over gRPC.
        store: What it stores into, opened by this process.
    """

    def __init__(self, http: str, grpc: str, store: SqliteStore, home: Path) -> None:
        self.http = http
        self.grpc = grpc
        self.store = store
        self._home = home

    def run(self, sdk: str, *arguments: str, settings: str | None = None, **more: str) -> dict[str, Any]:
        """Run a program with an SDK, which knows the server by its environment alone, and return what it prints.

        Args:
            sdk: The environment `.venv-<sdk>`, and `<sdk>_program.py`.
            arguments: Of the program.
            settings: As `serve --env` has it, where that is another name.
            more: Further variables.
        """
        lines = settings_of(settings or sdk, self.http, self.grpc)
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self._home),
            **dict(line.split("=", 1) for line in lines),
            **more,
        }
        python = HERE.parents[1] / f".venv-{sdk}" / "bin" / "python"
        program = HERE / f"{sdk.replace('-', '_')}_program.py"
        ran = subprocess.run(
            [python, program, *arguments],
            env=environment,
            cwd=self._home,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        said: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
        return said

    def spans(self) -> dict[str, SpanRecord]:
        """Return what is stored, by the names of the spans."""
        records = self.store.query(SpanQuery())
        named = {record.name: record for record in records}
        assert len(named) == len(records), "two spans have one name"
        return named


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Return a server on a new store; it stops gracefully after the test."""
    path = tmp_path / "spans.db"
    process = subprocess.Popen(
        [sys.executable, HERE / "server_program.py", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    store = SqliteStore(path)
    try:
        said = json.loads(process.stdout.readline())
        home = tmp_path / "home"
        home.mkdir()
        yield Server(said["http"], said["grpc"], store, home)
    finally:
        process.stdin.close()
        code = process.wait(PATIENCE)
        process.stdout.close()
        store.close()
    assert code == 0
