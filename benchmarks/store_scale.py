"""What the embedded store costs as it grows: writing, and a page found by a metadata value.

    python benchmarks/store_scale.py            # 100,000 and 1,000,000 spans; about four minutes
    python benchmarks/store_scale.py 10000      # a tenth of each, or any other number

Writing is compared with `executemany` of the same rows into the same tables of an empty file, in the same run.
"""

from __future__ import annotations

import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, TraceFlags

from otel_metadata.model.evaluation import Evaluation
from otel_metadata.model.merge import Field, FieldName
from otel_metadata.model.patch import Patch
from otel_metadata.model.record import SpanQuery
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.store.filter import language as filters
from otel_metadata.store.sqlite.store import SqliteStore

BATCH = 10_000
START_NS = 1_760_000_000_000_000_000
RESOURCE = Resource({"service.name": "shop", "deployment.environment.name": "production"})
SCOPE = InstrumentationScope("shop.answers", "1.4.2")
REGIONS = ("eu-central", "eu-west", "us-east", "us-west")


class EndedSpan(ReadableSpan):
    """An ended span with its exact fields beside it, as a store is given it."""

    fields: dict[FieldName, Field]


def ended_span(number: int, chance: random.Random) -> EndedSpan:
    """Return a span with metadata of four values, of its own, and of numbers; every 100th is judged."""
    start_ns = START_NS + number * 1_000_000
    span = EndedSpan(
        name="answer",
        context=SpanContext(chance.getrandbits(128) | 1, chance.getrandbits(64) | 1, False, TraceFlags(1)),
        attributes={"llm.model_name": "gpt-4o-mini", "llm.token_count.total": number % 4_000},
        resource=RESOURCE,
        instrumentation_scope=SCOPE,
        start_time=start_ns,
        end_time=start_ns + 900_000,
    )
    version = (start_ns, 1)
    span.fields = {
        ("span", "metadata", "region"): (REGIONS[number % 4], version),
        ("span", "metadata", "customer"): (f"customer-{number // 7}", version),
        ("span", "metadata", "step"): (number % 100, version),
    }
    if number % 100 == 0:
        label = "correct" if number % 1_000 else "wrong"
        span.fields["span", "evaluation", "Correctness"] = (Evaluation("Correctness", label=label).to_json(), version)
    return span


def main() -> None:
    small = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spans.db"
        store = SqliteStore(path)
        chance = random.Random(1)
        compare_writing(store, path, small, chance)
        pages = {small: page_millis(store, small)}
        in_batches((ended_span(number, chance) for number in range(small, 10 * small)), store.write)
        pages[10 * small] = page_millis(store, 10 * small)
        store.close()
    heading = "page of 100, milliseconds (best of 20)"
    print(f"\n{heading:58} {small:>9,} {10 * small:>11,} {'ratio':>6}")
    for name, before in pages[small].items():
        after = pages[10 * small][name]
        print(f"{name:58} {before:9.2f} {after:11.2f} {after / before:6.2f}")
    print("aim: at most 10 ms, and at most twice as much for ten times the spans")


def compare_writing(store: SqliteStore, path: Path, count: int, chance: random.Random) -> None:
    """Write spans and late patches, and print how that compares with the same rows by `executemany`."""
    spans = [ended_span(number, chance) for number in range(count)]
    patches = [late_patch(span, number) for number, span in enumerate(spans)]
    written = seconds(lambda: in_batches(spans, store.write))
    patched = seconds(lambda: in_batches(patches, store.patch))
    bare_spans, bare_fields = bare(path, path.with_name("bare.db"))
    print(f"{'what':58} {'seconds':>8} {'ratio':>6}  aim")
    # Of the fields one in four came late.
    told(f"write of {count:,} spans, three metadata keys each", written, bare_spans + bare_fields * 3 / 4)
    told(f"write of {count:,} late patches, one metadata key each", patched, bare_fields / 4)


def late_patch(span: EndedSpan, number: int) -> Patch:
    """Return a patch of a kind that a judge writes."""
    target = SpanRef(span.context.trace_id, span.context.span_id)
    return Patch(target, {("span", "metadata", "thumbs"): ("up" if number % 3 else "down", (START_NS * 2, 1))})


def page_millis(store: SqliteStore, count: int) -> dict[str, float]:
    """Return the best time of a page for values that a quarter, seven, one hundredth, and none of the spans have."""
    texts = {
        "metadata.region = 'us-west' (every 4th)": "metadata.region = 'us-west'",
        "metadata.customer = '…' (7 of all)": f"metadata.customer = 'customer-{count // 14}'",
        "metadata.step = 17 (every 100th)": "metadata.step = 17",
        "metadata.region = '…' AND metadata.step = 19": "metadata.region = 'us-west' AND metadata.step = 19",
        "metadata.region = '…' AND metadata.customer = '…'": f"metadata.region = 'us-west' "
        f"AND metadata.customer = 'customer-{count // 14}'",
        "eval.Correctness.label = 'wrong' (every 1,000th)": "eval.Correctness.label = 'wrong'",
        "metadata.region = 'nowhere' (none)": "metadata.region = 'nowhere'",
    }
    found = {}
    for name, text in texts.items():
        query = SpanQuery(condition=filters.parse(text))
        found[name] = min(seconds(lambda query=query: store.query(query)) for _ in range(20)) * 1_000
    return found


def bare(path: Path, other: Path) -> tuple[float, float]:
    """Return the seconds of `executemany` of all rows of *path*, spans and fields, into the same tables elsewhere."""
    empty = SqliteStore(other)
    empty.write([])
    empty.close()
    source, target = sqlite3.connect(path), sqlite3.connect(other, isolation_level=None)
    target.execute("PRAGMA synchronous = NORMAL")
    target.execute("PRAGMA cache_size = -16384")
    times = []
    for table, order in (("spans", "rowid"), ("fields", "ns, start_ns")):
        rows = source.execute(f"SELECT * FROM {table} ORDER BY {order}").fetchall()
        columns = [row[1] for row in source.execute(f"PRAGMA table_info({table})")]  # without the generated ones
        insert = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        plain = [row[: len(columns)] for row in rows]
        start = time.perf_counter()
        for at in range(0, len(plain), BATCH):
            target.execute("BEGIN")
            target.executemany(insert, plain[at : at + BATCH])
            target.execute("COMMIT")
        times.append(time.perf_counter() - start)
    source.close()
    target.close()
    return times[0], times[1]


def in_batches(items: Iterable, write: Callable[[list], None]) -> None:
    batch: list[object] = []
    for item in items:
        batch.append(item)
        if len(batch) == BATCH:
            write(batch)
            batch = []
    write(batch)


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def told(name: str, ours: float, bare_seconds: float) -> None:
    ratio = bare_seconds / ours
    print(f"{name:58} {ours:8.2f} {ratio:6.2f}  0.50{'' if ratio >= 0.5 else '  not reached in this run'}")


if __name__ == "__main__":
    main()
