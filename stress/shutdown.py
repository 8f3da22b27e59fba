"""Shutdown with a backend that hangs, and with one that is dead: in time, and nothing durable is lost.

Run: `python -m stress.shutdown [updates]`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from typing import Any

from stress.application import Updates, destinations, summary
from stress.backend import Backend
from stress.kill_nine import drained, rows_left
from stress.ledger import Ledger
from stress.processes import Child, say
from stress.table import Row, show

import otel_metadata as om
from otel_metadata.delivery.outbox_settings import OutboxSettings


def application(url: str, spool: str, updates: int, is_under_way: bool, timeout_millis: int) -> None:
    """Update and shut down with the defaults; say how long that took."""
    pipeline = om.configure(*destinations(url), outbox=OutboxSettings(schedule_delay_millis=50), spool=spool)
    made = Updates("shut", updates, targets=5_000)
    for _ in range(updates):
        made.step()
    if is_under_way:
        # Somebody waits for an answer when the shutdown comes.
        pipeline.flush(300)
    start = time.monotonic()
    om.shutdown(timeout_millis)
    seconds = time.monotonic() - start
    say(f"S {json.dumps(seconds)} {summary(pipeline)}")


class Outcome:
    """What one shutdown did."""

    def __init__(self, *, is_dead: bool, updates: int, is_under_way: bool = True, timeout_millis: int = 5_000) -> None:
        """Run it."""
        self.seconds = float("inf")
        self.counts: dict[str, Any] = {}
        ledger = Ledger()
        modes: Any = {"hang": 1}
        with tempfile.TemporaryDirectory() as folder, Backend(modes=modes, is_up=not is_dead) as backend:
            spool = os.path.join(folder, "spool", "spool.db")
            with Child(application, backend.url, spool, updates, is_under_way, timeout_millis) as child:
                said = child.within(120)
                child.wait(30)
            for line in said.splitlines(keepends=True):
                ledger.take(line)
                if line.startswith("S "):
                    _, seconds, text = line.split(" ", 2)
                    self.seconds, self.counts = json.loads(seconds), json.loads(text)
            backend.settle()
            self.is_drained, self.after = drained(backend.url, spool)
            self.findings = ledger.compare(backend)
            self.left = rows_left(spool)
        self.acknowledged = ledger.updates

    @property
    def lost(self) -> int:
        """How many acknowledged updates did not arrive, or wrongly."""
        return len(self.findings.lost) + len(self.findings.wrong)

    @property
    def is_whole(self) -> bool:
        """Whether everything durable arrived in the end, and the counts add up."""
        counts = self.counts.get("destinations", {}).values()
        return self.is_drained and not self.lost and not self.left and all(one["is_balanced"] for one in counts)


def main() -> int:
    updates = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000
    rows = []
    for name, is_dead, aim in (("hangs", False, 5.5), ("is dead", True, 1.0)):
        for is_under_way in (True, False):
            one = Outcome(is_dead=is_dead, updates=updates, is_under_way=is_under_way)
            when = "in the middle of a request" if is_under_way else "with everything waiting"
            what = f"shutdown {when}; backend {name}"
            if not one.is_whole:
                print(one.findings, one.counts, one.after, f"left {one.left}")
            rows += [
                Row(what, f"{one.seconds:.2f} s", f"at most {aim} s", one.seconds <= aim, is_hard=False),
                Row(f"  of {one.acknowledged} acknowledged lost", str(one.lost), "0", one.is_whole),
            ]
    return show(rows)


if __name__ == "__main__":
    sys.exit(main())
