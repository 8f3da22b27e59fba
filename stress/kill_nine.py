"""`kill -9` of a whole application at random points, and nothing that it acknowledged is lost.

Two applications at a time share one spool, each with two threads and two destinations; each is killed after a random
number of its lines (while it starts, updates, flushes or shuts down) and started again. The backend meanwhile answers,
resets, hangs, drops answers of what it applied, applies late, or does not listen at all. At the end one application is
left alone until nothing waits; then the backend must have every acknowledged update, or a later one of the same key,
and no key may have another value than the one set last.

Run: `python -m stress.kill_nine [kills] [seed]`.
"""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from stress.application import Plan
from stress.backend import FAULTS, Backend
from stress.ledger import Findings, Ledger, unversioned
from stress.table import Row, show

from otel_metadata.spool.journal import journaled_rows


class Outcome:
    """What a run found."""

    def __init__(self) -> None:
        """Start empty."""
        self.ledger = Ledger()
        self.findings = Findings()
        self.kills = 0
        self.ends = 0
        self.requests: Counter[str] = Counter()
        self.is_drained = False
        self.counts: dict[str, Any] = {}
        self.left = -1


def run(kills: int, seed: int, *, updates: int = 1_500) -> Outcome:
    """Kill *kills* times, then compare."""
    outcome = Outcome()
    lock = threading.Lock()
    with tempfile.TemporaryDirectory() as folder, Backend(seed=seed, modes=FAULTS) as backend:
        spool = str(Path(folder) / "spool" / "spool.db")

        def partition(number: int) -> None:
            chance = random.Random(seed * 2 + number)
            rounds = 0
            while True:
                with lock:
                    if outcome.kills >= kills:
                        return
                rounds += 1
                plan = Plan(backend.url, spool, f"{number}.{rounds}", chance.randrange(1 << 30), updates)
                was_killed = _one(plan, chance, backend, outcome.ledger, lock)
                with lock:
                    outcome.kills += was_killed
                    outcome.ends += not was_killed

        threads = [threading.Thread(target=partition, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        backend.settle()
        outcome.is_drained, outcome.counts = drained(backend.url, spool)
        outcome.requests = backend.requests
        outcome.findings = outcome.ledger.compare(backend)
        outcome.left = rows_left(spool)
    return outcome


def _one(plan: Plan, chance: random.Random, backend: Backend, ledger: Ledger, lock: threading.Lock) -> bool:
    """Start one application, kill it at a random line, take all that it said; False when it ended by itself."""
    # Short lives are as likely as long ones: a start is where rows of the dead are taken over.
    lines = int(2 ** chance.uniform(1, 13.3))
    if chance.random() < 0.25:
        backend.down()
    else:
        backend.up()
    with plan.start() as child:
        for read, line in enumerate(child, 1):
            if line[:2] in {"I ", "A "}:
                with lock:
                    ledger.take(line)
            if read == lines:
                child.kill()
            elif read % 700 == 0:
                backend.up()
        return child.wait(60) == -signal.SIGKILL


def drained(url: str, spool: str) -> tuple[bool, dict[str, Any]]:
    """Let an application that nobody kills send what is left; return whether nothing waits, and its counts."""
    with Plan(url, spool).start() as child:
        text = child.within(180)
        code = child.wait(60)
    last = text.splitlines()[-1].split(" ", 2) if text else []
    if not last or last[0] != "S":
        return False, {"said": text[-500:], "returned": code, "internal_errors": -1}
    return json.loads(last[1]), json.loads(last[2])


def rows_left(spool: str) -> int:
    """Return how many rows and dead letters are in a spool that nobody has open."""
    connection = sqlite3.connect(spool)
    try:
        sql = "SELECT (SELECT count(*) FROM items) + (SELECT count(*) FROM dead)"
        return int(connection.execute(sql).fetchone()[0]) + len(journaled_rows(spool))
    finally:
        connection.close()


def main() -> int:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 16)
    outcome = run(kills, seed)
    answered = ", ".join(f"{mode} {count}" for mode, count in sorted(outcome.requests.items()))
    print(f"seed {seed}; {outcome.kills} kills, {outcome.ends} ends; {outcome.ledger.updates} updates acknowledged")
    print(f"requests: {answered}; updates that arrived more than once: {outcome.findings.twice}")
    if outcome.findings.lost or outcome.findings.wrong or outcome.findings.unversioned:
        print(outcome.findings)
    if not outcome.is_drained or outcome.left:
        print(f"left in the spool: {outcome.left}; {outcome.counts}")
    lost, wrong = len(outcome.findings.lost), len(outcome.findings.wrong)
    return show(
        [
            Row(f"kill -9, {outcome.kills} times: acknowledged updates lost", str(lost), "0", lost == 0),
            Row("final values that are wrong", str(wrong), "0", wrong == 0),
            Row("values read wrongly by their versions", *unversioned(outcome.findings)),
            Row(
                "left in the spool when nothing waits", str(outcome.left), "0", outcome.is_drained and not outcome.left
            ),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
