"""Five minutes of random faults, a new one each second: descriptors, threads and memory stay as they are.

One application with two destinations and a spool updates all the time. The backend changes once a second: it answers,
fails in one of its ways or in all of them, or is not there. Now and then the application is configured anew, as a
reload does, and forks. The figures are taken once a second, after a warm-up; in the end everything has arrived.

Run: `python -m stress.soak [seconds] [seed]`; `LONG=1` for five minutes.
"""

from __future__ import annotations

import gc
import json
import os
import random
import sys
import tempfile
import threading
import time
from typing import Any

from stress.application import Updates, destinations, drain, summary
from stress.backend import FAULTS, Backend, Mode
from stress.backend_down import resident
from stress.ledger import Ledger, unversioned
from stress.processes import Child, say
from stress.table import Row, is_long, show

import otel_metadata as om
from otel_metadata.delivery.outbox_settings import OutboxSettings

SETTINGS = OutboxSettings(schedule_delay_millis=100, export_timeout_millis=400, pause_millis=500, spool_window=500)
MOODS: tuple[dict[Mode, int] | None, ...] = (
    {"answer": 1},
    {"answer": 1},
    FAULTS,
    FAULTS,
    {"hang": 1},
    {"hang_applied": 1, "answer": 1},
    {"drop": 1, "answer": 1},
    {"reset": 1},
    {"busy": 1},
    {"late": 1, "answer": 3},
    None,
)
"""What the backend is like for a second; None is not there."""

RELOAD_EVERY = 7
"""Portions of updates after which the application is configured anew, and forks once."""


def application(url: str, spool: str, portions: int, each: int) -> None:
    """Update in portions, of a second at most; say after each how much this process holds."""
    pipeline = om.configure(*destinations(url), outbox=SETTINGS, spool=spool)
    updates = Updates("soak", 1, targets=300)
    pause = threading.Event()
    for portion in range(1, portions + 1):
        until = time.monotonic() + 1
        for _ in range(each):
            if time.monotonic() > until:
                break
            updates.step()
            pause.wait(0.001)
        if portion % RELOAD_EVERY == 0:
            pipeline.shutdown(1_000)
            pipeline = om.configure(*destinations(url), outbox=SETTINGS, spool=spool)
            pid = os.fork()
            if pid == 0:
                try:
                    Updates(f"fork{portion}", portion).step()
                finally:
                    os._exit(0)
            os.waitpid(pid, 0)
        gc.collect()
        held = descriptors(), len(os.listdir("/proc/self/task")), resident()
        stats = pipeline.stats()
        is_balanced = stats.is_balanced and not stats.internal_errors
        say(f"F {json.dumps([*held, sum(one.waiting for one in stats.destinations.values()), is_balanced])}")
    is_drained = drain(pipeline, spool, seconds=120)
    pipeline.shutdown()
    say(f"S {json.dumps(is_drained)} {summary(pipeline)}")


def descriptors() -> int:
    """Return how many files this process has open; connections come and go with the backend's moods."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            count += not os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        except FileNotFoundError:  # the listing itself
            pass
    return count


class Outcome:
    """What a soak found."""

    def __init__(self, portions: int, seed: int, *, each: int = 1_000) -> None:
        """Run it: the backend's mood changes with each portion."""
        self.ledger = Ledger()
        self.held: list[list[Any]] = []
        self.is_drained = False
        self.counts: dict[str, Any] = {}
        chance = random.Random(seed)
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder, Backend(seed=seed) as backend:
            spool = os.path.join(folder, "spool", "spool.db")
            with Child(application, backend.url, spool, portions, each) as child:
                for line in child:
                    self.ledger.take(line)
                    if line.startswith("F "):
                        self.held.append(json.loads(line[2:]))
                        self._change(backend, chance.choice(MOODS))
                        if len(self.held) == portions:
                            backend.settle()
                    elif line.startswith("S "):
                        _, is_drained, text = line.split(" ", 2)
                        self.is_drained, self.counts = json.loads(is_drained), json.loads(text)
                child.wait(60)
            self.findings = self.ledger.compare(backend)
            self.requests = dict(backend.requests)
        self.seconds = time.monotonic() - start

    @staticmethod
    def _change(backend: Backend, mood: dict[Mode, int] | None) -> None:
        if mood is None:
            backend.down()
        else:
            backend.modes = mood
            backend.up()

    def growth(self, index: int) -> int:
        """Return by how much the lowest of the last third is above the lowest of the second: what is never given back.

        A worker that was left behind in a request at a reload goes a moment later, and what waits comes and goes.
        """
        third = max(len(self.held) // 3, 1)
        return min(one[index] for one in self.held[-third:]) - min(one[index] for one in self.held[third : 2 * third])

    @property
    def lost(self) -> int:
        """Acknowledged updates that did not arrive, or wrongly."""
        return len(self.findings.lost) + len(self.findings.wrong)

    @property
    def is_whole(self) -> bool:
        """Whether nothing is lost and the balance held all the time."""
        return self.is_drained and not self.lost and all(one[-1] for one in self.held)


def main() -> int:
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 300 if is_long() else 30
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 16)
    one = Outcome(seconds, seed)
    most = [max(held[index] for held in one.held) for index in range(4)]
    print(f"seed {seed}; {one.seconds:.0f} s; {one.ledger.updates} updates acknowledged; requests {one.requests}")
    print(f"at most {most[0]} descriptors, {most[1]} threads, {most[2] / 1e6:.0f} MB, {most[3]} updates waiting")
    if not one.is_whole:
        print(one.findings, one.counts, [held for held in one.held if not held[-1]][:3])
    memory = one.growth(2) / 1e6
    return show(
        [
            Row("soak: acknowledged updates lost", str(one.lost), "0", one.is_whole),
            Row("values read wrongly by their versions", *unversioned(one.findings)),
            Row("more descriptors in the last third than before", str(one.growth(0)), "0", one.growth(0) <= 0),
            Row("more threads", str(one.growth(1)), "0", one.growth(1) <= 0),
            Row("more memory", f"{memory:.1f} MB", "at most 4 MB", memory <= 4, is_hard=False),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
