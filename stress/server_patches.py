"""Two hundred clients patch spans on a server that is then killed, and nothing that it acknowledged is lost.

Each client has one connection and sends one request after the other, in turn as our API, LangWatch's and Galileo's have
them, each with a key of its own. All of them set the labels of one trace. Every fourth request is not `reliable`: it is
answered before it is stored, and may be lost. After the time the server gets SIGKILL in the middle of their requests,
and is started again on the same store. Then the store must have every other key that was acknowledged.

Run: `python -m stress.server_patches [clients] [seconds]`; for 10 s, or `LONG=1` for 30 s.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, TraceFlags
from stress.table import Row, is_long, show

from otel_metadata.store.sqlite.store import SqliteStore

_PROGRAM = "from otel_metadata.cli import main; main()"
_PROJECT = "00000000-0000-4000-8000-000000000001"
_TRACE = 0x0AF7651916CD43DD8448EB211C80319C


class Outcome:
    """What a run found."""

    def __init__(self) -> None:
        """Start empty."""
        self.acknowledged: list[tuple[int, str]] = []
        self.refused: Counter[str] = Counter()
        self.millis: list[float] = []
        self.lost: list[tuple[int, str]] = []
        self.is_serving_again = False

    def percentile(self, share: float) -> float:
        """Return how many milliseconds so many of the requests took at most."""
        ordered = sorted(self.millis)
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


class Server:
    """`otel-metadata serve` as a process of its own."""

    def __init__(self, folder: Path) -> None:
        """Start it, and wait until it answers."""
        words = ["serve", "--port", "0", "--no-grpc", "--store", f"sqlite:///{folder / 'spans.db'}"]
        self.process = subprocess.Popen([sys.executable, "-c", _PROGRAM, *words], stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        found = re.search(r"at http://127\.0\.0\.1:(\d+)", line)
        assert found is not None, line
        self.port = int(found[1])

    def end(self, number: int) -> None:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        self.process.communicate()


def _request(client: int, count: int) -> tuple[bytes, str]:
    """Return a request and the key that it sets; "" if it is answered before that is stored."""
    key = f"k{client}-{count}"
    span_id = f"{client + 1:016x}"
    kind = count % 4
    if kind == 0:
        path, body = f"/api/v1/spans/{span_id}", {"metadata": {key: count}}
    elif kind == 1:
        path, body = f"/api/traces/{_TRACE:032x}/metadata", {"metadata": {key: count, "labels": [key]}}
    else:
        path, body = (
            f"/v2/projects/{_PROJECT}/spans/{span_id}",
            {"span_id": span_id, "tags": [key], "reliable": kind == 2},
        )
    data = json.dumps(body).encode()
    head = f"PATCH {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}"
    return f"{head}\r\n\r\n".encode() + data, key if kind != 3 else ""


async def _client(number: int, port: int, outcome: Outcome, stop: asyncio.Event, most: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    count = 0
    try:
        while not stop.is_set():
            data, key = _request(number, count)
            count += 1
            begun = time.monotonic()
            writer.write(data)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            body = await reader.readexactly(int(length[1]) if length is not None else 0)
            outcome.millis.append((time.monotonic() - begun) * 1_000)
            if head.startswith(b"HTTP/1.1 200"):
                if key:
                    outcome.acknowledged.append((number, key))
                if len(outcome.acknowledged) == most:
                    stop.set()
            else:
                outcome.refused[f"{head[9:12].decode()} {body[:120].decode(errors='replace')}"] += 1
    except (ConnectionError, asyncio.IncompleteReadError) as error:
        if not stop.is_set():
            outcome.refused[type(error).__name__] += 1
    finally:
        writer.close()


async def _patch(server: Server, clients: int, seconds: float, outcome: Outcome, most: int) -> None:
    stop = asyncio.Event()
    tasks = [asyncio.create_task(_client(number, server.port, outcome, stop, most)) for number in range(clients)]
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except asyncio.TimeoutError:
        stop.set()
    server.process.send_signal(signal.SIGKILL)
    await asyncio.gather(*tasks)


def run(clients: int, seconds: float, most: int = 1 << 62) -> Outcome:
    """Patch, kill, start again, and compare.

    Args:
        clients: How many send at once.
        seconds: For how long.
        most: End sooner, when so many patches were acknowledged.
    """
    outcome = Outcome()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = SqliteStore(folder / "spans.db")
        store.write([_span(number + 1) for number in range(clients)])
        store.close()
        server = Server(folder)
        asyncio.run(_patch(server, clients, seconds, outcome, most))
        server.end(signal.SIGKILL)
        again = Server(folder)
        outcome.is_serving_again = True
        again.end(signal.SIGTERM)
        store = SqliteStore(folder / "spans.db")
        stored = {
            (number, value.key)
            for number in range(clients)
            for value in store.history(f"{_TRACE:032x}", f"{number + 1:016x}")
        }
        trace = {value.key for value in store.history(f"{_TRACE:032x}")}
        store.close()
        outcome.lost = [
            (number, key) for number, key in outcome.acknowledged if (number, key) not in stored and key not in trace
        ]
    return outcome


def _span(span_id: int) -> ReadableSpan:
    return ReadableSpan(
        "answer",
        SpanContext(_TRACE, span_id, is_remote=False, trace_flags=TraceFlags(1)),
        resource=Resource({"service.name": "p"}),
        start_time=time.time_ns(),
        end_time=time.time_ns() + 1,
    )


def main() -> int:
    """Run it, and print a table."""
    clients = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 30.0 if is_long() else 10.0
    outcome = run(clients, seconds)
    rate = f"{len(outcome.acknowledged) / seconds:,.0f}"
    times = f"p50 {outcome.percentile(0.5):.0f} ms, p99 {outcome.percentile(0.99):.0f} ms"
    for refusal, count in outcome.refused.most_common(5):
        print(f"{count} × {refusal}")
    return show(
        [
            Row(f"{clients} clients: patches acknowledged", f"{len(outcome.acknowledged):,} ({rate}/s)", "", None),
            Row("how long one took", times, "", None),
            Row("refused, or broken off before the kill", f"{sum(outcome.refused.values())}", "0", not outcome.refused),
            Row("acknowledged and lost by kill -9", f"{len(outcome.lost)}", "0", not outcome.lost),
            Row("serving again on the same store", f"{outcome.is_serving_again}", "True", outcome.is_serving_again),
        ]
    )


if __name__ == "__main__":
    raise SystemExit(main())
