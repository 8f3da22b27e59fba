"""Rows a second of `update_metadata` on the embedded store, beside bare upserts of the same rows.

    python benchmarks/update_metadata.py            # 100,000 rows, two metadata columns; about a minute
    python benchmarks/update_metadata.py 10000      # or any other number

Bare is `executemany` of the very rows that the call wrote, with the store's own statement, into the same file before
the call; best of several rounds, the two in turn. The second line updates keys that are there already.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

import otel_metadata as om
from otel_metadata.model.record import StoredSpan
from otel_metadata.store.sqlite import history
from otel_metadata.store.sqlite.store import SqliteStore

ROUNDS = 3
AIM = 50_000
START_NS = 1_760_000_000_000_000_000


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), count)


def measure(folder: Path, count: int) -> None:
    spans = stored_spans(count)
    before, after = folder / "before.db", folder / "after.db"
    store = SqliteStore(before)
    store.write_rows([(span, {}) for span in spans])
    store.close()
    frame = verdicts(spans)
    best = dict.fromkeys(("new keys", "the same keys again"), (float("inf"), float("inf")))
    for _ in range(ROUNDS):
        with copy(before, after) as client:
            ours = [seconds(lambda: client.spans.update_metadata(frame)) for _ in best]
        rows = written(after)
        store = SqliteStore(copied(before, folder / "bare.db"))
        bare = [seconds(lambda: upsert(store, rows, more)) for more in range(len(best))]  # noqa: B023 # as above
        store.close()
        for name, one, other in zip(best, ours, bare, strict=True):
            best[name] = (min(best[name][0], one), min(best[name][1], other))
    print(f"{'update_metadata of ' + f'{count:,} rows':40} {'rows/s':>9} {'bare':>9} {'ratio':>6}  aim")
    for name, (one, other) in best.items():
        is_there = count / one >= AIM
        aim = f"{AIM:,} rows/s" + ("" if is_there else "  not reached in this run") if name == "new keys" else ""
        print(f"{name:40} {count / one:9,.0f} {count / other:9,.0f} {other / one:6.2f}  {aim}")


def stored_spans(count: int) -> list[StoredSpan]:
    """Return spans, ten to a trace, with ids as random as real ones."""
    chance = random.Random(1)
    traces = [f"{chance.getrandbits(128):032x}" for _ in range(count // 10 + 1)]
    return [
        StoredSpan(
            trace_id=traces[number // 10],
            span_id=f"{chance.getrandbits(64):016x}",
            parent_id=None,
            trace_state="",
            name="answer",
            kind="INTERNAL",
            start_ns=START_NS + number * 1_000_000,
            end_ns=START_NS + number * 1_000_000 + 900_000,
            status_code="OK",
            status_message=None,
            attributes={"llm.model_name": "gpt-4o-mini"},
            events=(),
            links=(),
            resource={"service.name": "shop"},
            scope_name="shop.answers",
            scope_version=None,
        )
        for number in range(count)
    ]


def verdicts(spans: list[StoredSpan]) -> pd.DataFrame:
    """Return what a judge says of each span: a word and a number."""
    return pd.DataFrame(
        {
            "context.span_id": [span.span_id for span in spans],
            "attributes.metadata.verdict": ["good" if number % 3 else "bad" for number in range(len(spans))],
            "attributes.metadata.score": [number % 1_000 / 1_000 for number in range(len(spans))],
        }
    )


def written(path: Path) -> list[tuple[object, ...]]:
    """Return what the store's statement wrote, row by row, in the order in which it was written."""
    store = SqliteStore(path)
    with store._opened(store._deadline_ns(None)) as connection:
        rows = connection.execute(
            "SELECT trace_id, span_id, level, kind, key, value, ns, writer, route, trace_id, span_id "
            "FROM fields ORDER BY ns, writer, key DESC"
        ).fetchall()
    store.close()
    return rows


def upsert(store: SqliteStore, rows: list[tuple[object, ...]], more_ns: int) -> None:
    """Write rows with the store's statement and nothing else; *more_ns* makes them newer than those that are there."""
    newer = [(*row[:6], row[6] + more_ns, *row[7:]) for row in rows] if more_ns else rows
    with store._opened(store._deadline_ns(None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(history.MERGE_FIELD, newer)
        connection.execute("COMMIT")


def copied(source: Path, target: Path) -> Path:
    for path in target.parent.glob(f"{target.name}*"):
        path.unlink()
    return Path(shutil.copyfile(source, target))


def copy(source: Path, target: Path) -> om.Client:
    return om.Client(f"sqlite:///{copied(source, target)}")


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
