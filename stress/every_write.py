"""SIGKILL after every single write of one scripted run, and nothing that was acknowledged is lost.

The run is the same each time, on one thread: spans, held ones, live, in-flight and late updates, deliveries, failures,
a dead letter, erasures, an orderly end. It is done once to count the writes, then once for each of them, killed there;
each time a fresh process sends what is left, and the backend is compared with what was acknowledged.

A write is a system call on a file of the spool: the run, with durability `power`, is traced by strace, which kills at
the call's entry, so after the one before it and before the line that acknowledges. Then, and alone where tracing is not
allowed, a run with durability `process` is killed at every SQL statement, before and after every tally, and before and
after all that is done to a journal.

Run: `python -m stress.every_write [every]`, for each *every*-th write only.
"""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from stress.application import QUICK, acknowledge, destinations
from stress.backend import Backend
from stress.kill_nine import drained, rows_left
from stress.ledger import Ledger
from stress.processes import Child, say
from stress.table import Row, show

import otel_metadata as om
from otel_metadata.spool.journal import Journal
from otel_metadata.spool.spool import Spool, SpoolSettings

SUFFIXES = ("", "-wal", "-shm", "-journal", "-owners")
CALLS = ("pwrite64", "write", "writev", "ftruncate", "fallocate", "fdatasync", "fsync", "unlink", "rename")


# --- the scripted run -------------------------------------------------------------------------------------------------


def script(url: str, spool_path: str, kill_at: int | None) -> None:
    """Do the run; every step is on this thread, and nothing is drawn. *kill_at* is for the hooks; None without."""
    hooked = Hooked(kill_at) if kill_at is not None else None
    say("up")
    # What is written into a journal is no system call: only a hook sees it.
    spool = Spool(SpoolSettings(spool_path, "process" if hooked is not None else "power"))
    processor = om.MetadataSpanProcessor(
        *destinations(url), settings=QUICK, spool=spool, start_workers=False, chance=lambda: 0.0
    )
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("script")
    count = 0

    def update(ref: om.SpanRef, *keys: str, as_object: bool = False) -> None:
        nonlocal count
        count += 1
        value = f"{os.getpid()}.{count}"
        say(f"I {value} {ref.trace_id_hex} {ref.span_id_hex} {','.join(keys)}")
        acknowledge(value, om.update_span(ref, metadata=dict.fromkeys(keys, {"id": value} if as_object else value)))

    for turn in range(3):
        for number in range(1, 4):
            update(om.SpanRef(0xABC, number), "score", as_object=number == 2)
        with tracer.start_as_current_span("work") as span:
            ref = om.SpanRef.from_span_context(span.get_span_context())
            update(ref, "live")
        update(ref, "score", "label")
        update(ref, "score")
        if turn != 1:
            processor.force_flush(5_000)
        update(ref, "label")
        update(om.SpanRef(0xABC, 1), "label", "score")
    processor.force_flush(5_000)
    update(om.SpanRef(0xABC, 2), "score")
    update(om.SpanRef(0xABC, 3), "label")
    processor.shutdown(5_000)
    if hooked is not None:
        say(f"hooks {hooked.count}")
    say("over")


# --- where it is killed -----------------------------------------------------------------------------------------------

Place = tuple[str, int]
"""A system call, or `hook`, and which of them."""


def options(spool: str, log: str, place: Place | None) -> list[str]:
    """Return the options of strace for a run that is killed at *place*."""
    paths = [argument for suffix in SUFFIXES for argument in ("-P", spool + suffix)]
    inject = ["-e", f"inject={place[0]}:signal=SIGKILL:when={place[1]}"] if place is not None else []
    return ["-o", log, "-e", f"trace={','.join(CALLS)}", *inject, *paths]


def can_trace() -> bool:
    """Whether a process may be traced here."""
    try:
        done = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


class Hooked:
    """Kills this process at the *at*-th SQL statement, tally or change of a journal; counts them when *at* is 0."""

    def __init__(self, at: int) -> None:
        """Put the hooks in place."""
        self.at = at
        self.count = 0
        connect = sqlite3.connect

        def connected(*args: Any, **options: Any) -> sqlite3.Connection:
            connection = connect(*args, **options)
            connection.set_trace_callback(lambda _: self.cross())
            return connection

        sqlite3.connect = connected  # type: ignore[assignment]
        for owner, name in ((os, "pwrite"), *((Journal, name) for name in ("append", "moved", "drop", "_note"))):
            setattr(owner, name, self.crossing(getattr(owner, name)))

    def crossing(self, write: Callable[..., Any]) -> Callable[..., Any]:
        """Return *write* with a crossing before and after it."""

        def written(*args: Any) -> Any:
            self.cross()
            done = write(*args)
            self.cross()
            return done

        return written

    def cross(self) -> None:
        """Count one."""
        self.count += 1
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


# --- the runs ---------------------------------------------------------------------------------------------------------


class Found:
    """What the runs found."""

    def __init__(self) -> None:
        """Start empty."""
        self.method = ""
        self.writes: Counter[str] = Counter()
        self.killed = 0
        self.problems: list[str] = []
        self.lost = 0


def once(place: Place | None, *, with_strace: bool, found: Found | None) -> Counter[str]:
    """Do the run, killed at *place*; then send what is left and compare; return how many writes there were."""
    with tempfile.TemporaryDirectory() as folder, Backend() as backend:
        os.mkdir(os.path.join(folder, "spool"), 0o700)
        spool, log = os.path.join(folder, "spool", "spool.db"), os.path.join(folder, "log")
        hook = None if with_strace else place[1] if place is not None else 0
        with Child(script, backend.url, spool, hook, traced=options(spool, log, place) if with_strace else None) as run:
            said = run.within(120)
            run.wait(30)
        ledger = Ledger()
        for line in said.splitlines(keepends=True):
            ledger.take(line)
        is_over = said.endswith("over\n")
        if place is None and not is_over:
            raise RuntimeError(said)
        is_drained, counts = drained(backend.url, spool)
        findings = ledger.compare(backend)
        problems = [*findings.lost, *findings.wrong]
        if not is_drained or counts["internal_errors"] or rows_left(spool):
            problems.append(f"left {rows_left(spool)}: {counts}")
        lost = [one["lost"] for one in counts.get("destinations", {}).values() if one["lost"]]
        if lost:
            problems.append(f"counted as lost: {lost}")
        if found is not None:
            found.killed += not is_over
            found.lost += len(findings.lost) + len(findings.wrong)
            found.problems += [f"{place}: {problem}" for problem in problems]
        if with_strace:
            text = Path(log).read_text()
            return Counter(re.findall(rf"^(?:\d+ +)?({'|'.join(CALLS)})\(", text, re.MULTILINE))
        return Counter(hook=int(said.rsplit("hooks ", 1)[1].split()[0])) if is_over else Counter()


def run(*, every: int = 1, with_strace: bool | None = None, first: int = 0) -> Found:
    """Kill at each *every*-th write, beginning with number *first*, two runs at a time."""
    if with_strace is None:
        with_strace = can_trace()
    found = Found()
    found.method = "strace, at system calls" if with_strace else "hooks, at SQL statements, tallies and journals"
    found.writes = once(None, with_strace=with_strace, found=None)
    places = [(call, at) for call, count in sorted(found.writes.items()) for at in range(1, count + 1)]
    chosen = iter(places[first % max(len(places), 1) :: every])
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                place = next(chosen, None)
            if place is None:
                return
            mine = Found()
            try:
                once(place, with_strace=with_strace, found=mine)
            except Exception as error:  # noqa: BLE001 # told with its place
                mine.problems.append(f"{place}: {type(error).__name__}: {error}")
            with lock:
                found.killed += mine.killed
                found.lost += mine.lost
                found.problems += mine.problems

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def main() -> int:
    every = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    rows: list[Row] = []
    for with_strace in (True, False) if can_trace() else (False,):
        found = run(every=every, with_strace=with_strace)
        print(f"{found.method}; writes in one run: {dict(found.writes)}; {found.killed} runs killed")
        for problem in found.problems[:10]:
            print(problem)
        rows += [
            Row(f"SIGKILL at each of {found.killed} writes: acknowledged lost", str(found.lost), "0", found.lost == 0),
            Row("other problems", str(len(found.problems)), "0", not found.problems),
        ]
    return show(rows)


if __name__ == "__main__":
    sys.exit(main())
