"""What an export costs: 1,000,000 spans of three metadata keys from the embedded store into Parquet.

    python benchmarks/export.py            # 1,000,000 spans; about three minutes
    python benchmarks/export.py 100000     # or any other number

Compared in the same run with what pyarrow takes for the same columns and options, of rows that need no store: from
Python values, as any program has them, and from an Arrow table, where no value is touched any more. And with what
SQLite's driver takes to hand out the same cells, which nothing is done with.
"""

from __future__ import annotations

import resource
import secrets
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from otel_metadata.client import Client
from otel_metadata.model.merge import Fields
from otel_metadata.model.record import SpanQuery, StoredSpan
from otel_metadata.store import table
from otel_metadata.store.sqlite.query import COLUMNS
from otel_metadata.store.sqlite.store import SqliteStore

START_NS = 1_760_000_000_000_000_000
BATCH = 10_000
REGIONS = ("eu-central", "eu-west", "us-east", "us-west")
RESOURCE = {
    "service.name": "shop",
    "deployment.environment.name": "production",
    "telemetry.sdk.language": "python",
    "telemetry.sdk.name": "opentelemetry",
    "telemetry.sdk.version": "1.45.2",
}

# As a child process sees it: its own peak of memory.
MEASURE = "--measure"


def row(number: int, trace_id: str) -> tuple[StoredSpan, Fields]:
    """Return one of eight spans of a trace, of about a kilobyte."""
    start_ns = START_NS + number * 1_000_003
    version = (start_ns + 2_000_000_000, 0x9F3B5A7C1D2E4F60)
    span = StoredSpan(
        trace_id=trace_id,
        span_id=secrets.token_hex(8),
        parent_id=secrets.token_hex(8) if number % 8 else None,
        trace_state="",
        name=("ChatCompletion", "retrieve_documents", "answer_question")[number % 3],
        kind="INTERNAL",
        start_ns=start_ns,
        end_ns=start_ns + secrets.randbelow(2_000_000_000),
        status_code="UNSET" if number % 20 else "ERROR",
        status_message=None if number % 20 else "TimeoutError: took too long",
        attributes={
            "llm.invocation_parameters": '{"temperature": 0.2}',
            "llm.model_name": "gpt-4o-mini",
            "llm.token_count.completion": number % 700,
            "llm.token_count.prompt": number % 3_000,
            "openinference.span.kind": "LLM",
            "thread.id": 140_245,
            "thread.name": "MainThread",
        },
        events=(),
        links=(),
        resource=RESOURCE,
        scope_name="openinference.instrumentation.openai",
        scope_version="0.1.30",
    )
    return span, {
        ("span", "metadata", "region"): (REGIONS[number % 4], version),
        ("span", "metadata", "customer"): (f"customer-{number // 7}", version),
        ("span", "metadata", "step"): (number % 100, version),
    }


def fill(path: Path, count: int) -> None:
    store = SqliteStore(path)
    trace_id = ""
    for first in range(0, count, BATCH):
        rows = []
        for number in range(first, min(first + BATCH, count)):
            trace_id = trace_id if number % 8 else secrets.token_hex(16)
            rows.append(row(number, trace_id))
        store.write_rows(rows)
    store.close()


def seconds_since(start: float) -> float:
    return time.perf_counter() - start


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_000


def export(store: Path, target: Path) -> tuple[float, float]:
    """Return seconds and the growth of resident memory in megabytes; in a process of its own."""
    with Client(f"sqlite:///{store}") as client:
        # All that is loaded on use is loaded; pyarrow loads pandas, three quarters of a second, with the first value.
        first_spans = datetime.fromtimestamp(START_NS / 1e9 + 0.1, timezone.utc)
        assert client.spans.export_to_parquet(target, end_time=first_spans) > 0
        before, start = peak_megabytes(), time.perf_counter()
        client.spans.export_to_parquet(target)
        return seconds_since(start), peak_megabytes() - before


def from_python_values(batches: Iterator[pa.RecordBatch], target: Path) -> float:
    """Return the seconds for rows that are dicts of Python values, a batch at a time."""
    seconds = 0.0
    with pq.ParquetWriter(target, table.schema(), compression="zstd") as writer:
        for batch in batches:
            times = {name: batch[name].cast("int64").to_pylist() for name in table.TIME_COLUMNS}
            columns = {name: times[name] if name in times else batch[name].to_pylist() for name in table.COLUMNS}
            rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
            start = time.perf_counter()
            writer.write_table(pa.Table.from_pylist(rows, schema=table.schema()))
            seconds += seconds_since(start)
    return seconds


def from_arrow(source: Path, target: Path) -> float:
    """Return the seconds for an Arrow table in memory, with the row groups that the export has."""
    whole = pq.read_table(source)
    group = pq.ParquetFile(source).metadata.row_group(0).num_rows
    start = time.perf_counter()
    pq.write_table(whole, target, compression="zstd", row_group_size=group)
    return seconds_since(start)


def cells_of_sqlite(store: Path) -> float:
    """Return the seconds for the cells of every span and field as Python values, fields in the order of their spans."""
    with closing(sqlite3.connect(store)) as connection:
        connection.execute("PRAGMA cache_size = -32000")  # as the export has it
        order = "ORDER BY s.start_ns DESC, s.trace_id DESC, s.span_id DESC"
        columns = ", ".join(f"s.{column}" for column in COLUMNS.split(", "))
        start = time.perf_counter()
        for _ in connection.execute(f"SELECT {columns} FROM spans AS s {order}"):
            pass
        for _ in connection.execute(
            "SELECT s.rowid, f.level, f.kind, f.key, f.value, f.ns, f.writer FROM spans AS s CROSS JOIN fields AS f "
            f"ON f.trace_id = s.trace_id AND f.span_id = s.span_id {order}"
        ):
            pass
        return seconds_since(start)


def main() -> None:
    if sys.argv[1:2] == [MEASURE]:
        print(orjson.dumps(export(Path(sys.argv[2]), Path(sys.argv[3]))).decode())
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store, target, other = folder / "spans.db", folder / "spans.parquet", folder / "other.parquet"
        fill(store, count)
        seconds, growth = orjson.loads(in_a_process_of_its_own(store, target))
        sizes = [file.stat().st_size / 1e6 for file in (store, target)]
        print(f"{count:,} spans: a store of {sizes[0]:,.0f} MB, Parquet of {sizes[1]:,.0f} MB\n")
        print(f"{'':58} {'seconds':>9} {'spans/s':>11} {'ratio':>6}")
        show("export_to_parquet", count, seconds, seconds)
        batches = SqliteStore(store).export(SpanQuery(limit=None))
        show("pyarrow, the same rows as Python values", count, from_python_values(batches, other), seconds)
        show("pyarrow, the same rows as an Arrow table", count, from_arrow(target, other), seconds)
        show("sqlite3, the cells of the same spans and fields", count, cells_of_sqlite(store), seconds)
        print(f"\nresident memory grew by {growth:,.0f} MB")


def show(name: str, count: int, seconds: float, ours: float) -> None:
    print(f"{name:58} {seconds:9.2f} {count / seconds:11,.0f} {seconds / ours:6.2f}")


def in_a_process_of_its_own(store: Path, target: Path) -> bytes:
    return subprocess.run([sys.executable, __file__, MEASURE, store, target], check=True, stdout=subprocess.PIPE).stdout


if __name__ == "__main__":
    main()
