"""`otel-metadata serve` as a process of its own: how it starts, what it says, how it ends."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import SpanExportResult
from tests.store.contract import START_NS, ended_span, trace_hex
from typer.testing import CliRunner

from otel_metadata import Client
from otel_metadata.cli.app import app
from otel_metadata.server.tokens import Tokens
from otel_metadata.store.sqlite.store import SqliteStore

PATIENCE = 60
"""Seconds after which a test gives up; no test waits for them to pass."""

PROGRAM = [sys.executable, "-c", "from otel_metadata.cli import main; main()", "serve"]
FREE = ("--port", "0", "--grpc-port", "0")

# Before click 8.2 the two outputs were one, unless one asked.
RUNNER = CliRunner(**{"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {})


class Process:
    """A server in a process of its own.

    Attributes:
        said: The lines that it has written to standard error.
        url: Where it answers.
    """

    def __init__(self, directory: Path, *words: str) -> None:
        self.said: list[str] = []
        self.process = subprocess.Popen(
            [*PROGRAM, *words], cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.http = urllib3.PoolManager(retries=False, timeout=PATIENCE, maxsize=16)
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            found = re.search(r"serving .* at (http://\S+?)(?:, OTLP over gRPC on port (\d+))?; Ctrl-C", line)
            if found is not None:
                self.url, self.grpc_port = found[1], found[2]
                return
        raise AssertionError(f"it has ended: {self.said}")

    def call(self, method: str, path: str, **options: Any) -> urllib3.BaseHTTPResponse:
        return self.http.request(method, self.url + path, **options)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit code."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE)
        assert out == ""
        self.said += err.splitlines(keepends=True)
        self.http.clear()
        return self.process.returncode


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Any]:
    """Return what starts a server in an empty directory."""
    started: list[Process] = []

    def start(*words: str) -> Process:
        started.append(Process(tmp_path, *FREE, *words))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()
        one.http.clear()


def refused(directory: Path, *words: str) -> str:
    """Run a command that fails, and return what it said."""
    ended = subprocess.run(
        [*PROGRAM, *words], cwd=directory, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (ended.returncode, ended.stdout) == (1, ""), ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    return ended.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_a_signal_and_keeps_its_store(serve: Any, tmp_path: Path, number: int) -> None:
    server = serve()
    path = f"/api/v1/traces/{trace_hex()}"
    assert server.call("PATCH", path, json={"metadata": {"plan": "pro"}}).status == 200
    assert server.end(number) == 0
    assert "everything that was acknowledged is stored" in server.said[-1]
    with_default_name = SqliteStore(tmp_path / "otel_metadata.db")
    assert [one.value for one in with_default_name.history(trace_hex())] == ["pro"]
    with_default_name.close()


def test_it_says_at_its_end_that_an_update_is_lost(serve: Any, tmp_path: Path) -> None:
    """One that Galileo's call has answered at once; the file was damaged meanwhile."""
    server = serve()
    span = {"traceId": trace_hex(), "spanId": f"{1:016x}", "name": "n", "startTimeUnixNano": f"{START_NS}"}
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
    assert server.call("POST", "/v1/traces", json=body).status == 200
    (tmp_path / "damaged").write_bytes(b"no database " * 1_000)
    (tmp_path / "damaged").replace(tmp_path / "otel_metadata.db")
    path = f"/v2/projects/00000000-0000-4000-8000-000000000001/spans/{1:016x}"
    answer = server.call("PATCH", path, json={"span_id": f"{1:016x}", "output": "x", "reliable": False})
    assert answer.status == 200
    assert server.end() == 1
    assert "of the updates that were answered at once, 1 could not be stored" in server.said[-1]


def test_a_server_that_survives_a_loss_of_power_takes_an_sqlite_store(serve: Any, tmp_path: Path) -> None:
    server = serve("--durability", "power")
    assert server.call("PATCH", f"/api/v1/traces/{trace_hex()}", json={"metadata": {"plan": "pro"}}).status == 200
    assert server.end() == 0
    elsewhere = ("--store", "clickhouse://127.0.0.1:1/spans")
    assert "an SQLite store" in refused(tmp_path, *FREE, "--durability", "power", *elsewhere)


def test_what_was_acknowledged_before_a_stop_is_stored(serve: Any, tmp_path: Path) -> None:
    """Many clients write all the time while the signal comes."""
    server = serve()
    acknowledged: list[list[str]] = [[] for _ in range(8)]
    has_begun = threading.Barrier(9)

    def write(number: int) -> None:
        http = urllib3.PoolManager(retries=False, timeout=PATIENCE)
        for count in range(100_000):
            key = f"k{number}-{count}"
            try:
                answer = http.request(
                    "PATCH", f"{server.url}/api/v1/traces/{trace_hex()}", json={"metadata": {key: count}}
                )
            except urllib3.exceptions.HTTPError:
                break
            if answer.status != 200:
                break
            acknowledged[number].append(key)
            if count == 5:
                has_begun.wait(PATIENCE)
        http.clear()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    has_begun.wait(PATIENCE)
    assert server.end() == 0
    for thread in threads:
        thread.join(PATIENCE)
    keys = [key for one in acknowledged for key in one]
    assert len(keys) >= 48
    store = SqliteStore(tmp_path / "otel_metadata.db")
    stored = {one.key for one in store.history(trace_hex())}
    store.close()
    assert set(keys) <= stored


def test_a_taken_port_names_the_option_that_helps(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = f"{taken.getsockname()[1]}"
        assert "--port" in refused(tmp_path, "--port", port, "--no-grpc")
        said = refused(tmp_path, "--port", "0", "--grpc-port", port)
        assert "--no-grpc" in said
        assert port in said


def test_a_store_that_cannot_be_used_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database, but a text that is long enough to look like a file of another kind")
    assert "text.db" in refused(tmp_path, *FREE, "--store", "sqlite:///text.db")
    assert "missing" in refused(tmp_path, *FREE, "--store", "sqlite:///missing/spans.db")
    assert "sqlite:///" in refused(tmp_path, *FREE, "--store", "http://elsewhere")
    assert "TTL" in refused(tmp_path, *FREE, "--store", "clickhouse://u:s3cr3t@host/db", "--retain", "1d")
    assert "s3cr3t" not in refused(tmp_path, *FREE, "--store", "clickhouse://u:s3cr3t@host/db", "--retain", "1d")


def test_a_server_is_not_its_own_store(serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What points applications at it may be set in the shell that starts it."""
    monkeypatch.setenv("OTEL_PYTHON_METADATA_DESTINATIONS", "serve")
    server = serve()
    assert server.call("PATCH", f"/api/v1/traces/{trace_hex()}", json={"name": "n"}).status == 200
    assert (tmp_path / "otel_metadata.db").exists()
    said = refused(tmp_path, *FREE, "--store", "serve://s3cr3t@127.0.0.1:1")
    assert "SQLite or ClickHouse" in said
    assert "s3cr3t" not in said


def test_an_address_of_the_network_needs_a_token(serve: Any, tmp_path: Path) -> None:
    for words in (("--host", "0.0.0.0"), ("--require-tokens",)):
        assert "otel-metadata token create" in refused(tmp_path, *FREE, *words)
    token = Tokens(str(tmp_path / "otel_metadata.tokens")).create("ada", ["read"], None, START_NS)
    server = serve("--host", "0.0.0.0")
    server.url = server.url.replace("0.0.0.0", "127.0.0.1")
    assert server.call("GET", "/api/v1/info").status == 401
    assert server.call("GET", "/api/v1/info", headers={"Authorization": f"Bearer {token}"}).json()["caller"] == "ada"
    assert server.end() == 0
    assert token not in "".join(server.said)


def test_old_spans_are_deleted_while_it_serves(serve: Any, tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "spans.db")
    store.write([ended_span(number) for number in range(1, 4)])
    store.close()
    server = serve("--store", "sqlite:///spans.db", "--retain", "1d")
    for _ in range(10_000):
        answer = server.call("GET", "/api/v1/count?start_time=2000-01-01").json()
        if answer["counted"] == 0:
            break
    else:
        raise AssertionError("the spans are still there")
    assert server.end() == 0


def test_each_request_is_a_line_of_the_access_log_if_it_is_wanted(serve: Any) -> None:
    silent, spoken = serve("--store", "sqlite:///a.db"), serve("--store", "sqlite:///b.db", "--access-log")
    for server in (silent, spoken):
        assert server.call("GET", "/healthz?secret=s3cr3t").status == 200
        assert server.end() == 0
    assert len(silent.said) == 2
    assert len(spoken.said) == 3
    assert '"GET /healthz" 200' in spoken.said[1]
    assert "s3cr3t" not in spoken.said[1]


def test_another_name_of_the_host_is_allowed_by_an_option(serve: Any) -> None:
    server = serve("--allow-host", "traces.internal")
    assert server.call("GET", "/healthz", headers={"Host": "traces.internal:4318"}).status == 200
    assert server.call("GET", "/healthz", headers={"Host": "other.internal:4318"}).status == 421
    assert server.end() == 0


def test_without_grpc_there_is_no_second_port(serve: Any) -> None:
    assert serve("--no-grpc").grpc_port is None
    assert int(serve("--store", "sqlite:///other.db").grpc_port) > 0


def test_it_prints_what_points_an_sdk_at_it() -> None:
    result = RUNNER.invoke(app, ["serve", "--env", "langfuse", "--port", "5000"])
    assert result.exit_code == 0
    assert "export LANGFUSE_BASE_URL=http://127.0.0.1:5000" in result.stdout.splitlines()
    assert all(line.startswith("export ") for line in result.stdout.splitlines())
    result = RUNNER.invoke(app, ["serve", "--env", "nobody"])
    assert (result.exit_code, "langfuse" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("host", "shown"), [("::1", "[::1]"), ("::", "[::1]"), ("0.0.0.0", "127.0.0.1"), ("box.internal", "box.internal")]
)
@pytest.mark.parametrize("name", ["phoenix", "otel-metadata"])
def test_what_it_prints_is_an_address_that_can_be_reached(name: str, host: str, shown: str) -> None:
    result = RUNNER.invoke(app, ["serve", "--env", name, "--host", host])
    assert (result.exit_code, f"//{shown}:4318" in result.stdout) == (0, True), result.output


@pytest.mark.skipif(not socket.has_ipv6, reason="this Python knows no IPv6")
def test_it_serves_over_ipv6(serve: Any) -> None:
    """The printed address leads to the server; spans go over HTTP and gRPC, and our client reads them."""
    server = serve("--host", "::1")
    assert server.url.startswith("http://[::1]:")
    port = server.url.rpartition(":")[2]
    printed = RUNNER.invoke(app, ["serve", "--env", "otel-metadata", "--host", "::1", "--port", port]).stdout
    exported = dict(shlex.split(line)[1].split("=", 1) for line in printed.splitlines())
    url = exported["OTEL_PYTHON_METADATA_DESTINATIONS"]
    for exporter in (
        OTLPSpanExporter(f"{server.url}/v1/traces"),
        GrpcSpanExporter(f"http://[::1]:{server.grpc_port}", insecure=True),
    ):
        assert exporter.export([ended_span()]) is SpanExportResult.SUCCESS
        exporter.shutdown()
    with Client(url) as client:
        assert client.spans.update(f"{1:016x}", metadata={"a": 1}).spans_updated == 1
        assert client.spans.get(f"{1:016x}").metadata == {"a": 1}


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("--retain", "soon"), "30min, 12h or 7d"),
        (("--retain", "0d"), "30min, 12h or 7d"),
        (("--max-size", "big"), "500MB"),
        (("--max-size", "5"), "--max-size is 5; expected a whole number of bytes"),
        (("--durability", "disk"), "process or power"),
        (("--env", "langfuse", "--port", "0"), "--port is 0; expected the port on which the server listens"),
        (("--env", "foo"), "--env is 'foo'; expected one of"),
        (("--port", "70000"), "65535"),
    ],
)
def test_a_wrong_option_is_a_usage_error(words: tuple[str, ...], hint: str) -> None:
    result = RUNNER.invoke(app, ["serve", *words])
    assert result.exit_code == 2
    assert hint in result.stderr


@pytest.mark.parametrize("package", ["uvicorn", "starlette", "msgspec"])
def test_a_missing_extra_is_named(package: str) -> None:
    program = f"import sys; sys.modules['{package}'] = None; from otel_metadata.cli import main; main()"
    ended = subprocess.run([sys.executable, "-c", program, "serve"], capture_output=True, text=True, check=False)
    assert (ended.returncode, json.dumps(ended.stdout)) == (1, '""')
    assert f"{package} is not installed; expected the extra: pip install 'otel-metadata[server]'" in ended.stderr
