"""What the embedded store costs as it grows: writing, a page found by a metadata value, the reads of a page of traces.

    python benchmarks/store_scale.py            # 100,000 and 1,000,000 spans; about four minutes
    python benchmarks/store_scale.py 10000      # a tenth of each, or any other number
    python benchmarks/store_scale.py reads FILE # the reads alone, of a file that is made if there is none

Writing is compared with `executemany` of the same rows into the same tables of an empty file, in the same run.
A store that keeps superseded values is compared with one that does not: first writes, and writes that replace all of
them, in turn, the best of several rounds, in seconds of the processor.
"""

from __future__ import annotations

import math
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

from otel_metadata.model.evaluation import Evaluation
from otel_metadata.model.merge import Field, FieldName
from otel_metadata.model.patch import Patch
from otel_metadata.model.record import SpanQuery
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.store.filter import language as filters
from otel_metadata.store.sqlite.store import SqliteStore

BATCH = 10_000
SPANS_OF_TRACE = 10
LARGE_TRACE, LARGE_SPANS = 0xABCDEF, 10_000
LARGE = 1_000_000
WRITES, SPANS_OF_WRITE, WRITE_SECONDS = 800, 10, 0.01
HISTORY_ROUNDS = 3
START_NS = 1_760_000_000_000_000_000
RESOURCE = Resource({"service.name": "shop", "deployment.environment.name": "production"})
SCOPE = InstrumentationScope("shop.answers", "1.4.2")
REGIONS = ("eu-central", "eu-west", "us-east", "us-west")

COMPUTES = "print(flush=True)\nwhile True: pass"
READS = """
import sys
from otel_metadata.model.record import SpanQuery
from otel_metadata.store.filter.language import parse
from otel_metadata.store.sqlite.store import SqliteStore
store, query = SqliteStore(sys.argv[1], create=False), SpanQuery(condition=parse("name = 'nothing'"))
store.search(query, timeout_millis=1)
print(flush=True)
while True:
    store.search(query, timeout_millis=1_000)
"""


class EndedSpan(ReadableSpan):
    """An ended span with its exact fields beside it, as a store is given it."""

    fields: dict[FieldName, Field]


def context(number: int) -> SpanContext:
    """Return ids that are spread as random ones are."""
    trace_id = (number // SPANS_OF_TRACE + 1) * 0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835 % (1 << 128)
    return SpanContext(trace_id, (number + 1) * 0x9E37_79B9_7F4A_7C15 % (1 << 64), False, TraceFlags(1))


def ended_span(number: int, chance: random.Random) -> EndedSpan:
    """Return a span with metadata of four values, of its own, and of numbers; every 100th is judged.

    Ten spans are a trace, and every 5,000th span is an error.
    """
    start_ns = START_NS + number * 1_000_000
    root = number - number % SPANS_OF_TRACE
    span = EndedSpan(
        name="answer",
        context=context(number),
        parent=context(root) if number != root else None,
        status=Status(StatusCode.ERROR if number % 5_000 == 3 else StatusCode.UNSET),
        attributes={"llm.model_name": "gpt-4o-mini", "llm.token_count.total": chance.randrange(4_000)},
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
    if sys.argv[1:2] == ["reads"]:
        store = SqliteStore(sys.argv[2])
        if store.count(SpanQuery(limit=1)).counted == 0:
            chance = random.Random(1)
            in_batches((ended_span(number, chance) for number in range(LARGE)), store.write)
        compare_reads(store)
        store.close()
        return
    small = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spans.db"
        store = SqliteStore(path)
        chance = random.Random(1)
        compare_writing(store, path, small, chance)
        compare_history(Path(folder), small)
        pages = {small: page_millis(store, small)}
        in_batches((ended_span(number, chance) for number in range(small, 10 * small)), store.write)
        pages[10 * small] = page_millis(store, 10 * small)
        compare_reads(store)
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


def compare_history(folder: Path, count: int) -> None:
    """Print what it costs to keep superseded values."""
    chance = random.Random(2)
    spans = sorted((ended_span(number, chance) for number in range(count)), key=lambda span: span.context.trace_id)
    rounds = [[late_patch(span, number, again) for number, span in enumerate(spans)] for again in range(2)]
    best: dict[tuple[bool, int], float] = {}
    for number in range(HISTORY_ROUNDS):
        for keeps in (False, True):
            store = SqliteStore(folder / f"{number}-{keeps}.db", history=keeps)
            in_batches(spans, store.write)
            for again, patches in enumerate(rounds):
                started = time.process_time()
                in_batches(patches, store.patch)
                taken = time.process_time() - started
                best[keeps, again] = min(best.get((keeps, again), taken), taken)
            store.close()
            for file in folder.glob(f"{number}-{keeps}.db*"):
                file.unlink()
    print(f"{'what, seconds of the processor':58} {'off':>8} {'on':>8} {'ratio':>6}  aim")
    for again, (name, aim) in enumerate((("first write of a key", 1.08), ("replacing write", 1.3))):
        off, on = best[False, again], best[True, again]
        missed = "" if on / off <= aim else "  not reached in this run"
        print(f"{f'{name}, {count:,} patches, history':58} {off:8.2f} {on:8.2f} {on / off:6.2f}  {aim}{missed}")


def late_patch(span: EndedSpan, number: int, again: int = 0) -> Patch:
    """Return a patch of a kind that a judge writes, or writes once more."""
    target = SpanRef(span.context.trace_id, span.context.span_id)
    thumbs = "up" if (number + again) % 3 else "down"
    return Patch(target, {("span", "metadata", "thumbs"): (thumbs, (START_NS * 2 + again, 1))})


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


def compare_reads(store: SqliteStore) -> None:
    """Print the best time of each read of a page, and what a slow filter costs a writer."""
    large = f"{LARGE_TRACE:032x}"
    newest = store.query(SpanQuery(limit=1, condition=filters.parse(f"trace_id != '{large}'")))[0].span
    if not store.outline(large):
        in_batches((large_span(number, newest.start_ns) for number in range(LARGE_SPANS)), store.write)
    end_ns = newest.start_ns + 1  # without the large trace

    def query(text: str | None = None, limit: int | None = 50) -> SpanQuery:
        return SpanQuery(end_ns=end_ns, limit=limit, condition=None if text is None else filters.parse(text))

    width_ns = 1_000_000_000
    window = {"start_ns": end_ns - 100 * width_ns, "width_ns": width_ns, "bars": 100}
    nothing = query("name = 'nothing'")
    reads: dict[str, tuple[float, Callable[[], object]]] = {
        "outline of a trace of 10,000 spans": (50, lambda: store.outline(large)),
        "50 newest traces": (1, lambda: store.traces(query())),
        "50 newest traces, the large one among them": (math.inf, lambda: store.traces(SpanQuery(limit=50))),
        "newest errors, none": (1, lambda: store.query(query("status_code = 'ERROR' AND name = 'nothing'"))),
        "20 newest errors": (math.inf, lambda: store.query(query("status_code = 'ERROR'", 20))),
        "metadata keys": (5, lambda: store.names("metadata")),
        "names of evaluations": (5, lambda: store.names("evaluation")),
        "count up to 10,000, metadata.region = '…'": (
            50,
            lambda: store.count(query(f"metadata.region = '{REGIONS[3]}'", 10_000)),
        ),
        "count up to 10,000, metadata.step > 50": (50, lambda: store.count(query("metadata.step > 50", 10_000))),
        "count of 50 ms, name = '…' (none)": (math.inf, lambda: store.count(nothing, timeout_millis=50)),
        "histogram of 100,000 spans": (math.inf, lambda: store.histogram(query(), **window)),
        "search of 200 ms, name = '…' (none)": (math.inf, lambda: store.search(nothing, timeout_millis=200)),
    }
    print(f"\n{'read, milliseconds (best of 20)':58} {'wall':>8} {'processor':>9}  aim")
    for name, (aim, read) in reads.items():
        wall, processor = math.inf, math.inf
        for _ in range(20):
            started, used = time.perf_counter(), time.thread_time()
            read()
            wall = min(wall, (time.perf_counter() - started) * 1_000)
            processor = min(processor, (time.thread_time() - used) * 1_000)
        shown = "-" if aim == math.inf else f"{aim}{'' if wall <= aim else '  not reached in this run'}"
        print(f"{name:58} {wall:8.2f} {processor:9.2f}  {shown}")
    alone, busy, beside = (write_millis(store, program) for program in (None, COMPUTES, READS))
    print(f"{'write of 10 spans, 99th percentile, nobody reads':58} {alone:8.2f}")
    print(f"{'the same beside a process that only computes':58} {busy:8.2f} ratio {busy / alone:.2f}")
    missed = "" if beside <= 1.2 * alone else "  not reached in this run"
    print(f"{'the same beside a filter that matches nothing':58} {beside:8.2f} ratio {beside / alone:.2f}  1.2{missed}")


def large_span(number: int, after_ns: int) -> EndedSpan:
    """Return a span of the large trace."""
    span = ended_span(number, random.Random(1))
    start_ns = after_ns + (number + 1) * 1_000
    moved = EndedSpan(
        name="step",
        context=SpanContext(LARGE_TRACE, number + 1, False, TraceFlags(1)),
        parent=SpanContext(LARGE_TRACE, max(number // 4, 1), False, TraceFlags(1)) if number else None,
        attributes=span.attributes,
        resource=RESOURCE,
        instrumentation_scope=SCOPE,
        start_time=start_ns,
        end_time=start_ns + 900,
    )
    moved.fields = span.fields
    return moved


def write_millis(store: SqliteStore, program: str | None) -> float:
    """Return the 99th percentile of writes, a thousand spans a second, while another process runs *program*."""
    process = None
    if program is not None:
        process = subprocess.Popen([sys.executable, "-c", program, store.path], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
    chance, taken = random.Random(3), []
    for write in range(WRITES):
        spans = [ended_span(write * SPANS_OF_WRITE + number, chance) for number in range(SPANS_OF_WRITE)]
        taken.append(seconds(lambda: store.write(spans)) * 1_000)  # noqa: B023 # called at once
        time.sleep(max(WRITE_SECONDS - taken[-1] / 1_000, 0))
    if process is not None:
        process.kill()
        process.communicate()
    return statistics.quantiles(taken, n=100)[98]


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
