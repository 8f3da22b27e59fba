"""The backend is down while 2,000 updates a second arrive, then it comes back.

One application with a spool makes late updates for ever new spans, and ends a few spans as well, for a minute (ten with
`LONG=1`); nothing listens at the backend's port. Measured in the application: each call, growth of memory after a
warm-up, tries to connect. Beside it the same loop that only writes 100 bytes to a file: the noise of the machine. Then
the backend comes back, and must get every acknowledged update.

Run: `python -m stress.backend_down [seconds]`.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from stress.application import destinations, drain, summary
from stress.backend import Backend
from stress.processes import Child, say
from stress.table import Row, is_long, percentile, show

import otel_metadata as om
from otel_metadata.delivery.outbox_settings import OutboxSettings

RATE = 2_000
BURST = 10
WARM_UP = 4_000
SPANS_EVERY = 200
"""Updates for each span that is ended: 10 a second."""

_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Return the memory that this process has, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def times() -> array[float]:
    """Return a place for nanoseconds: four bytes each, for they are counted as memory of the application."""
    return array("f")


def paced(
    count: int, call: Callable[[int], None], *, rate: int = RATE, cpu: array[float] | None = None
) -> array[float]:
    """Make *count* calls, in bursts, at *rate* a second; return the nanoseconds of each, those of its CPU in *cpu*."""
    clock, thread_clock = time.perf_counter_ns, time.thread_time_ns
    took = times()
    pause = threading.Event()
    start = clock()
    for burst in range(0, count, BURST):
        for number in range(burst, min(burst + BURST, count)):
            before_cpu = thread_clock()
            before = clock()
            call(number)
            took.append(clock() - before)
            if cpu is not None:
                cpu.append(thread_clock() - before_cpu)
        ahead = start + (burst + BURST) * 1_000_000_000 // rate - clock()
        if ahead > 0:
            pause.wait(ahead / 1e9)
    return took


def application(url: str, spool: str, updates: int, rate: int, schedule_millis: int) -> None:
    """Update, say the figures, wait for the word that the backend is back, drain."""
    with open(os.path.join(os.path.dirname(spool), "noise"), "wb", buffering=0) as file:
        noise = paced(min(updates, 10_000), lambda _: file.write(b"x" * 100), rate=rate)
    attempts: list[float] = []
    connect = socket.socket.connect

    def counted(self: socket.socket, address: Any) -> None:
        attempts.append(time.monotonic())
        connect(self, address)

    socket.socket.connect = counted  # type: ignore[method-assign]
    settings = OutboxSettings(schedule_delay_millis=schedule_millis)
    pipeline = om.configure(*destinations(url, hold_millis=0), outbox=settings, spool=spool)
    refused = 0

    def update(number: int) -> None:
        nonlocal refused
        refused += not om.update_span(om.SpanRef(0xD0, number + 1), metadata={"thumbs": f"u{number}"})

    warm = min(WARM_UP, updates // 4)
    cpu = times()
    took = paced(warm, update, rate=rate, cpu=cpu)
    gc.collect()
    before, first, start = resident(), len(attempts), time.monotonic()
    peak = before
    for part in range(warm, updates, SPANS_EVERY):
        took += paced(
            min(SPANS_EVERY, updates - part), lambda number, part=part: update(part + number), rate=rate, cpu=cpu
        )  # type: ignore[misc]
        with om.start_span("work"):
            om.update_current_span(metadata={"step": 1})
        peak = max(peak, resident())
    seconds = time.monotonic() - start
    tried = attempts[first:]
    gaps = [later - earlier for earlier, later in pairwise(tried)]
    figures = {
        "refused": refused,
        "growth": peak - before,
        "seconds": seconds,
        "attempts": len(tried),
        "most": max((sum(at <= one < at + 1 for one in tried) for at in tried), default=0),
        "gap": min(gaps, default=seconds),
        "p50": percentile(took, 0.5),
        "p99": percentile(took, 0.99),
        "max": percentile(took, 1.0),
        "cpu_p50": percentile(cpu, 0.5),
        "cpu_p99": percentile(cpu, 0.99),
        "noise_p50": percentile(noise, 0.5),
        "noise_p99": percentile(noise, 0.99),
        "noise_max": percentile(noise, 1.0),
        "spool": pipeline.stats().destinations["now"].spool_bytes,
    }
    say(f"F {json.dumps(figures)}")
    start = time.monotonic()
    until = start + 60
    while pipeline.stats().destinations["now"].delivered == 0 and time.monotonic() < until:
        threading.Event().wait(0.05)  # by itself: nobody flushes
    came_back = time.monotonic() - start
    is_drained = drain(pipeline, spool, seconds=600)
    drained = time.monotonic() - start
    pipeline.shutdown()
    say(f"S {json.dumps(is_drained)} {summary(pipeline, came_back=came_back, drained=drained)}")


def run(updates: int, *, rate: int = RATE, schedule_millis: int = 5_000) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the figures while the backend is down, and what became of the updates."""
    with tempfile.TemporaryDirectory() as folder, Backend(is_up=False) as backend:
        os.mkdir(os.path.join(folder, "spool"), 0o700)
        figures: dict[str, Any] = {}
        after: dict[str, Any] = {"is_drained": False}
        with Child(
            application, backend.url, os.path.join(folder, "spool", "spool.db"), updates, rate, schedule_millis
        ) as child:
            for line in child:
                if line.startswith("F "):
                    figures = json.loads(line[2:])
                    backend.up()
                elif line.startswith("S "):
                    _, is_drained, text = line.split(" ", 2)
                    after = {**json.loads(text), "is_drained": json.loads(is_drained)}
            child.wait(60)
        arrived = {
            value for place, versions in backend.patched.items() if place[1][0].endswith("d0") for _, value in versions
        }
        after["missing"] = updates - figures.get("refused", 0) - len(arrived)
        after["twice"] = sum(sum(one.values()) - 1 for one in backend.patched.values())
    return figures, after


def main() -> int:
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 600 if is_long() else 60
    figures, after = run(seconds * RATE + WARM_UP)
    print(
        f"{seconds * RATE} updates in {figures['seconds']:.0f} s; spool {figures['spool'] / 1e6:.0f} MB; "
        f"first delivery {after['came_back']:.1f} s after the backend was back, all of them {after['drained']:.0f} s"
    )
    print(
        f"a call: p50 {figures['p50']:.0f} us, p99 {figures['p99']:.0f}, max {figures['max']:.0f}; "
        f"of its own CPU time p50 {figures['cpu_p50']:.0f}, p99 {figures['cpu_p99']:.0f}; "
        f"a write of 100 bytes: p50 {figures['noise_p50']:.0f}, p99 {figures['noise_p99']:.0f}, "
        f"max {figures['noise_max']:.0f}; smallest gap between two tries to connect {figures['gap']:.2f} s; "
        f"sent twice {after['twice']}"
    )
    lost = after["missing"] + figures["refused"]
    is_all = after["is_drained"] and lost == 0
    if not is_all:
        print(after)
    growth, rate = figures["growth"] / 1e6, figures["attempts"] / figures["seconds"]
    tries = f"{rate:.2f} a second, most in one {figures['most']}"
    return show(
        [
            Row("backend down: updates not delivered afterwards", str(lost), "0", is_all),
            Row("memory growth", f"{growth:.1f} MB", "at most 40 MB", growth <= 40, is_hard=False),
            Row("a call, p99", f"{figures['p99']:.0f} us", "at most 100 us", figures["p99"] <= 100, is_hard=False),
            Row("tries to connect", tries, "at most 1 a second", figures["most"] <= 1, is_hard=False),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
