"""A server of ours in one process, a vendor's SDK in another with its own environment, and the store between them."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from otel_metadata.model.record import SpanQuery, SpanRecord
from otel_metadata.server.operations import Scope
from otel_metadata.server.tokens import Tokens
from otel_metadata.store.sqlite.store import SqliteStore

HERE = Path(__file__).parent
COMMAND = [sys.executable, "-c", "from otel_metadata.cli import main; main()", "serve"]
PATIENCE = 180
"""Seconds after which a program has failed; an SDK takes some to be imported on a busy machine."""


OURS = ("otel", "otel-metadata")
"""What needs no environment of its own."""


class Server:
    """A server that runs.

    Attributes:
        ports: The options that name its ports.
        store: What it stores into, opened by this process.
        tokens: What it demands; None if it demands nothing.
    """

    def __init__(self, ports: list[str], store: SqliteStore, home: Path, tokens: Tokens | None) -> None:
        self.ports = ports
        self.store = store
        self.tokens = tokens
        self._home = home

    def run(
        self, sdk: str, *arguments: str, settings: str | None = None, scopes: Sequence[Scope] = ("traces:write",)
    ) -> dict[str, Any]:
        """Run a program with an SDK, which knows the server by its environment alone, and return what it prints.

        Args:
            sdk: The environment `.venv-<sdk>`, and `<sdk>_program.py`.
            arguments: Of the program.
            settings: As `serve --env` has it, where that is another name.
            scopes: Of the token that takes the place of the key `local`, if the server demands one.
        """
        command = [*COMMAND, *self.ports, "--env", settings or sdk]
        printed = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
        exported = [shlex.split(line)[1] for line in printed.stdout.splitlines()]
        if self.tokens is not None:
            token = self.tokens.create("ada", scopes, None, 1)
            exported = [re.sub("(=|%20)local$", rf"\1{token}", line) for line in exported]
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self._home),
            **dict(line.split("=", 1) for line in exported),
        }
        python = Path(sys.executable) if sdk in OURS else HERE.parents[1] / f".venv-{sdk}" / "bin" / "python"
        if sdk in OURS and "PYTHONPATH" in os.environ:
            environment["PYTHONPATH"] = os.environ["PYTHONPATH"]
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


@pytest.fixture(params=["open", "tokens"])
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    """Return `otel-metadata serve` on a new store and free ports; it stops gracefully after the test.

    Everybody on this machine may call it, or whoever has a token.
    """
    path = tmp_path / "spans.db"
    options = ["--port", "0", "--grpc-port", "0", "--store", f"sqlite:///{path}"]
    tokens = None
    if request.param == "tokens":
        tokens = Tokens(f"{tmp_path}/tokens")
        tokens.create("reader", ["read"], None, 1)  # the server does not start without a token
        options += ["--require-tokens", "--tokens", tokens.path]
    process = subprocess.Popen([*COMMAND, *options], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    store = SqliteStore(path)
    try:
        said = process.stderr.readline()
        found = re.search(r" at http://127\.0\.0\.1:(\d+), OTLP over gRPC on port (\d+);", said)
        assert found is not None, said
        home = tmp_path / "home"
        home.mkdir()
        yield Server(["--port", found[1], "--grpc-port", found[2]], store, home, tokens)
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=PATIENCE)
        store.close()
    assert process.returncode == 0, said
