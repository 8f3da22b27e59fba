"""The application that is killed: updates of every kind, each acknowledged on its pipe. See `stress.ledger`.

It has two destinations on one backend, `now` and `held`; the second keeps ended spans for a while, on disk too.
"""

from __future__ import annotations

import json
import logging
import random
import sqlite3
import threading
import time
from dataclasses import dataclass

from stress.processes import Child, say

import otel_metadata as om
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.exporters.otlp import OtlpPatchExporter
from otel_metadata.exporters.otlp_http import OtlpHttpSender
from otel_metadata.pipeline import Pipeline
from otel_metadata.spool.journal import journaled_rows

KEYS = ("score", "label", "reviewed", "customer")

QUICK = OutboxSettings(
    schedule_delay_millis=20, export_timeout_millis=250, pause_millis=500, max_queue_size=20_000, spool_window=300
)
"""Everything happens often: small batches, short waits, and a window that is left for the spool now and then."""


@dataclass(frozen=True)
class Plan:
    """What an application does.

    Attributes:
        url: The backend.
        spool: The file.
        name: Begins every id.
        seed: What is drawn.
        updates: Update calls of each thread, then it flushes for ever; 0 for none, then it drains the spool and ends.
        threads: How many make updates.
        pause_micros: Between two steps of a thread.
    """

    url: str
    spool: str
    name: str = "drain"
    seed: int = 0
    updates: int = 0
    threads: int = 2
    pause_micros: int = 300

    def start(self) -> Child:
        """Start it."""
        return Child(live, self)


def destinations(url: str, *, hold_millis: int = 150) -> tuple[om.Destination, ...]:
    """Return `now`, and unless *hold_millis* is 0 `held`."""
    made = []
    for name, hold in (("now", 0), ("held", hold_millis)):
        if name == "now" or hold:
            sender = OtlpHttpSender(f"{url}/{name}/v1/traces")
            made.append(
                om.Destination(name, sender, OtlpPatchExporter(sender), hold_millis=hold, remote_grace_millis=20)
            )
    return tuple(made)


class Updates:
    """One thread's updates."""

    def __init__(self, name: str, seed: int, *, targets: int = 60) -> None:
        """Draw from *seed*."""
        self.name = name
        self._chance = random.Random(seed)
        self._count = 0
        self._own: list[om.SpanRef] = []
        self._targets = targets

    def step(self) -> None:
        """Do one thing that applications do."""
        chance = self._chance
        drawn = chance.random()
        if drawn < 0.2:
            with om.start_span("work"):
                ref = om.current_span_ref()
                self.update(ref)
            self._own = [*self._own[-30:], ref]
            for _ in range(chance.randrange(3)):
                self.update(ref)
        elif drawn < 0.5 and self._own:
            self.update(chance.choice(self._own))
        else:
            # Spans of nobody here, the same ones for every process: their updates meet.
            self.update(om.SpanRef(0xABC, chance.randrange(1, self._targets + 1)))

    def update(self, ref: om.SpanRef, keys: tuple[str, ...] | None = None) -> om.Receipt:
        """Update *ref*, with a line before and one after."""
        chance = self._chance
        self._count += 1
        value = f"{self.name}.{self._count}"
        chosen = keys or tuple(chance.sample(KEYS, chance.choice((1, 1, 2, 3))))
        say(f"I {value} {ref.trace_id_hex} {ref.span_id_hex} {','.join(chosen)}")
        # A text goes the short way, an object the general one.
        given: object = value if chance.random() < 0.7 else {"id": value}
        receipt = om.update_span(ref, metadata=dict.fromkeys(chosen, given))
        acknowledge(value, receipt)
        return receipt


def acknowledge(value: str, receipt: om.Receipt) -> None:
    """Say what became of an update."""
    routes = ",".join(f"{name}={routed.route}" for name, routed in receipt.routes.items()) or "none=dropped"
    say(f"A {value} {receipt.version[0]} {receipt.version[1]} {routes}")


def drain(pipeline: Pipeline, spool: str, *, seconds: float = 120) -> bool:
    """Flush until nothing waits, in memory or in the file; False when that takes longer than *seconds*.

    The file is asked too: what a process that died has left is adopted at the start, or seconds later.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pipeline.flush(10_000)
        waiting = sum(one.waiting for one in pipeline.stats().destinations.values())
        if not waiting and not rows(spool):
            return True
        threading.Event().wait(0.02)
    return False


def rows(spool: str) -> int:
    """Return how many rows are in the file; dead letters are not counted."""
    connection = sqlite3.connect(spool, timeout=10)
    try:
        return int(connection.execute("SELECT count(*) FROM items").fetchone()[0]) + len(journaled_rows(spool))
    finally:
        connection.close()


def summary(pipeline: Pipeline, **more: float) -> str:
    """Return the counts of every destination in one line of JSON."""
    stats = pipeline.stats()
    counts = {
        name: {
            "accepted": one.accepted,
            "adopted": one.adopted,
            "delivered": one.delivered,
            "waiting": one.waiting,
            "handed_over": one.handed_over,
            "lost": dict(one.lost),
            "is_balanced": one.is_balanced,
        }
        for name, one in stats.destinations.items()
    }
    return json.dumps({"destinations": counts, "internal_errors": stats.internal_errors, **more})


def live(plan: Plan) -> None:
    """Do what *plan* says."""
    # Each outage is one on purpose, and the ledger counts what is lost: a line for each would hide what is printed.
    logging.getLogger("otel_metadata").setLevel(logging.ERROR)
    say("up")  # from here on it may be killed at any line
    pipeline = om.configure(*destinations(plan.url), outbox=QUICK, spool=plan.spool)
    say("configured")
    if not plan.updates:
        start = time.monotonic()
        is_drained = drain(pipeline, plan.spool)
        pipeline.shutdown()
        say(f"S {json.dumps(is_drained)} {summary(pipeline, seconds=round(time.monotonic() - start, 2))}")
        return
    # Ends before the interpreter does: OpenTelemetry's exit handler would send what waits.
    pause = threading.Event()

    def work(number: int) -> None:
        updates = Updates(f"{plan.name}.{number}", plan.seed * 16 + number)
        for _ in range(plan.updates):
            updates.step()
            pause.wait(plan.pause_micros / 1e6)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(plan.threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # A program at its end: flushes, and goes.
    is_over = threading.Event()

    def tick() -> None:
        while not is_over.wait(0.001):
            say("tick")

    ticking = threading.Thread(target=tick)
    ticking.start()
    om.flush(2_000)
    om.shutdown(2_000)
    is_over.set()
    ticking.join()
