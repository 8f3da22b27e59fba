"""What the local server costs: OTLP ingestion over HTTP and gRPC, and its memory.

    python benchmarks/server.py            # 1,000,000 spans for the memory; about five minutes
    python benchmarks/server.py 100000     # or any other number

The same exporter of OpenTelemetry's SDK sends batches of 512 spans with 20 attributes, in turn, to the server with an
embedded store and to a server of the same kind that reads each body and answers. A batch is sent after the answer to
the one before, as a batch processor does it. The ratio is that of the times of a round; its median is shown, and that
of the best rounds, which says more where other programs run.
"""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, TraceFlags

BATCH = 512
ROUNDS, BATCHES_OF_ROUND = 9, 10
SPANS_OF_TRACE = 8
START_NS = 1_760_000_000_000_000_000
RESOURCE = Resource({"service.name": "shop", "deployment.environment.name": "production"})
SCOPE = InstrumentationScope("shop.answers", "1.4.2")

# As a child process sees it.
SERVE, READ = "--serve", "--read"


def batch(first: int, *, has_metadata: bool = False) -> list[ReadableSpan]:
    """Return ended spans of 20 attributes, which may be metadata in one of them."""
    spans = []
    for number in range(first, first + BATCH):
        attributes = {
            **{f"app.key.{key}": f"value {number * key}" for key in range(14)},
            **{f"app.count.{key}": number * key for key in range(3)},
            "app.ratio": 0.25 * number,
            "app.ok": True,
            "metadata.plan" if has_metadata else "app.plan": ("free", "pro")[number % 2],
        }
        trace_id = (number // SPANS_OF_TRACE + 1) * 0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835 % (1 << 128)
        context = SpanContext(trace_id, int.from_bytes(secrets.token_bytes(8), "big") or 1, False, TraceFlags(1))
        start_ns = START_NS + number * 1_000_000
        spans.append(
            ReadableSpan(
                "answer_question",
                context,
                resource=RESOURCE,
                attributes=attributes,
                instrumentation_scope=SCOPE,
                start_time=start_ns,
                end_time=start_ns + 900_000,
            )
        )
    return spans


def serve() -> None:
    """Run the server on a new file; print its ports."""
    from otel_metadata.server.run import LocalServer
    from otel_metadata.store.sqlite.store import SqliteStore

    with tempfile.TemporaryDirectory() as folder:
        server = LocalServer(SqliteStore(Path(folder) / "spans.db"), grpc_port=0).start()
        print(server.port, server.grpc_port, flush=True)
        sys.stdin.read()
        server.stop()


def read_only() -> None:
    """Run a server that reads each body and answers; print its port."""
    import socket

    import uvloop

    async def app(scope: dict[str, object], receive: Callable, send: Callable) -> None:  # type: ignore[type-arg] # ASGI's
        while (await receive()).get("more_body"):
            pass
        headers = [(b"content-type", b"application/x-protobuf"), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, loop="none", ws="none", lifespan="off", log_config=None, access_log=False)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    print(listening.getsockname()[1], flush=True)
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(uvicorn.Server(config).serve([listening]))


def seconds(exporter: SpanExporter, batches: Sequence[Sequence[ReadableSpan]]) -> float:
    """Return how long the export of *batches* takes."""
    begin = time.perf_counter()
    for spans in batches:
        if exporter.export(spans) is not SpanExportResult.SUCCESS:
            raise SystemExit("an export has failed")
    return time.perf_counter() - begin


def memory(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def compare(reader: SpanExporter, over_http: SpanExporter, over_grpc: SpanExporter) -> int:
    """Print the rates of all, in turn; return how many spans the server got."""
    cases = {
        "reads only": (reader, False),
        "HTTP": (over_http, False),
        "gRPC": (over_grpc, False),
        "HTTP, metadata": (over_http, True),
    }
    taken: dict[str, list[float]] = {name: [] for name in cases}
    first = 0
    for _ in range(ROUNDS):
        for name, (exporter, has_metadata) in cases.items():
            spans = [batch(first + at * BATCH, has_metadata=has_metadata) for at in range(BATCHES_OF_ROUND)]
            first += BATCHES_OF_ROUND * BATCH
            gc.collect()
            taken[name].append(seconds(exporter, spans))
    count = BATCHES_OF_ROUND * BATCH
    for name, times in taken.items():
        ratios = [base / one for base, one in zip(taken["reads only"], times, strict=True)]
        print(
            f"{name:15} {statistics.median(times) / count * 1e6:6.0f} µs a span, best {min(times) / count * 1e6:4.0f};"
            f"  ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}),"
            f" of the best {min(taken['reads only']) / min(times):.2f}"
        )
    return 3 * ROUNDS * count


def main(count: int) -> None:
    """Compare, then send until the server has *count* spans, and print its memory on the way."""
    command = [sys.executable, __file__]
    with (
        subprocess.Popen([*command, SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server,
        subprocess.Popen([*command, READ], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader,
    ):
        assert server.stdout is not None
        assert reader.stdout is not None
        port, grpc_port = server.stdout.readline().split()
        sink = HttpExporter(f"http://127.0.0.1:{reader.stdout.readline().strip()}/v1/traces")
        over_http = HttpExporter(f"http://127.0.0.1:{port}/v1/traces")
        over_grpc = GrpcExporter(f"127.0.0.1:{grpc_port}", insecure=True)
        print(f"{'memory':15} {memory(server.pid):6.0f} MB idle")
        for exporter in (sink, over_http, over_grpc):
            seconds(exporter, [batch(0)])
        sent = compare(sink, over_http, over_grpc)
        before = memory(server.pid)
        begin = time.perf_counter()
        while sent < count:
            seconds(over_http, [batch(10_000_000 + sent)])
            sent += BATCH
        after = memory(server.pid)
        print(f"{'memory':15} {before:6.0f} MB at first, {after:.0f} MB after {sent:,} spans: +{after - before:.0f} MB")
        print(f"{'':15} {time.perf_counter() - begin:6.0f} s for them, which were made meanwhile")


if __name__ == "__main__":
    if SERVE in sys.argv:
        serve()
    elif READ in sys.argv:
        read_only()
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
