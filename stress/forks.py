"""Forked children that update and die, and forks under load.

Eight children of one application make 500 updates each; half of them kill themselves at the end, the others flush and
leave. Every update must arrive, and none twice: not by the child and again by its parent. Then fifty forks while two
threads update and the worker sends: each child must update, flush and end.

Run: `python -m stress.forks [children] [updates] [forks]`.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import tempfile
import threading
import time
from typing import Any

from stress.application import acknowledge, destinations, drain, summary
from stress.backend import Backend
from stress.ledger import Findings, Ledger
from stress.processes import Child, say
from stress.table import Row, show

import otel_metadata as om
from otel_metadata.delivery.outbox_settings import OutboxSettings

NEVER_BY_ITSELF = OutboxSettings(schedule_delay_millis=3_600_000)
"""Nothing is sent without a flush: so a child that kills itself has sent nothing, and what it left arrives once."""

PATIENCE = 30
"""Seconds after which a child hangs."""


def updates(name: str, first: int, count: int) -> None:
    """Make *count* updates for spans of nobody here, each acknowledged."""
    for number in range(first, first + count):
        value = f"{name}.{number}"
        ref = om.SpanRef(0xF0, number + 1)
        say(f"I {value} {ref.trace_id_hex} {ref.span_id_hex} score")
        acknowledge(value, om.update_span(ref, metadata={"score": value}))


def family(url: str, spool: str, children: int, each: int) -> None:
    """Be the parent: update, fork the children, update, wait for them, send everything."""
    pipeline = om.configure(*destinations(url), outbox=NEVER_BY_ITSELF, spool=spool)
    updates("parent", 0, 50)
    running: list[int] = []
    for child in range(children):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                updates(f"child{child}", 1_000 * (child + 1), each)
                if child % 2:
                    os.kill(os.getpid(), signal.SIGKILL)
                code = 0 if om.flush(60_000) and not pipeline.stats().destinations["now"].lost else 3
            finally:
                os._exit(code)
        running.append(pid)
    updates("parent", 50, 50)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in running]
    is_drained = drain(pipeline, spool, seconds=90)
    pipeline.shutdown()
    say(f"S {json.dumps(is_drained)} {summary(pipeline)}")
    say(f"C {json.dumps(codes)}")


def under_load(url: str, spool: str, forks: int, each: int) -> None:
    """Fork again and again while two threads update and the worker sends; say how long each child took."""
    pipeline = om.configure(
        *destinations(url), outbox=OutboxSettings(schedule_delay_millis=5, export_timeout_millis=1_000), spool=spool
    )
    is_over = threading.Event()

    def load(number: int) -> None:
        count = 0
        while not is_over.is_set():
            count += 1
            with om.start_span("work"):
                ref = om.current_span_ref()
                om.update_span(ref, metadata={"load": count})
            om.update_span(ref, metadata={"load": {"id": f"l{count}"}})
            om.update_span(om.SpanRef(0xF1, number), metadata={"load": count})
            is_over.wait(0.0005)

    threads = [threading.Thread(target=load, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    slowest, hung = 0.0, 0
    for number in range(forks):
        start = time.monotonic()
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(reading)
                updates(f"fork{number}", 1_000 * (number + 1), each)
                # Of what is asked here the half is to be sent by whoever is left.
                code = 0 if number % 2 or om.flush(20_000) else 3
            finally:
                os._exit(code)
        os.close(writing)
        # The end of the pipe comes with the end of the child, however it ends.
        if not select.select([reading], [], [], PATIENCE)[0]:
            hung += 1
            os.kill(pid, signal.SIGKILL)
        os.close(reading)
        hung += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) not in {0, -signal.SIGKILL}
        slowest = max(slowest, time.monotonic() - start)
    is_over.set()
    for thread in threads:
        thread.join()
    # The next one adopts what the children left, at once.
    pipeline = om.configure(*destinations(url), spool=spool)
    is_drained = drain(pipeline, spool, seconds=90)
    pipeline.shutdown()
    say(f"S {json.dumps(is_drained)} {summary(pipeline)}")
    say(f"C {json.dumps([slowest, hung])}")


class Outcome:
    """What one of the two found."""

    def __init__(self, target: Any, *args: int) -> None:
        """Run *target* with a backend and a spool."""
        self.ledger = Ledger()
        self.is_drained = False
        self.counts: dict[str, Any] = {}
        self.codes: list[Any] = []
        with tempfile.TemporaryDirectory() as folder, Backend() as backend:
            with Child(target, backend.url, os.path.join(folder, "spool", "spool.db"), *args) as child:
                said = child.within(400)
                child.wait(60)
            for line in said.splitlines(keepends=True):
                self.ledger.take(line)
                if line.startswith("S "):
                    _, is_drained, text = line.split(" ", 2)
                    self.is_drained, self.counts = json.loads(is_drained), json.loads(text)
                elif line.startswith("C "):
                    self.codes = json.loads(line[2:])
            # The load sets values of its own, and keeps no ledger.
            for places in (backend.patched, backend.plain, backend.versioned):
                for place in [place for place in places if place[2] == "load"]:
                    del places[place]  # type: ignore[attr-defined]
            self.findings: Findings = self.ledger.compare(backend)

    @property
    def missing(self) -> int:
        """How many are lost, or have another value than was set."""
        return len(self.findings.lost) + len(self.findings.wrong)


def main() -> int:
    children, each, forks = (int(one) for one in (*sys.argv[1:], *(8, 500, 50)[len(sys.argv) - 1 :]))
    first = Outcome(family, children, each)
    second = Outcome(under_load, forks, 20)
    made = children * each + 100
    expected = [-signal.SIGKILL if child % 2 else 0 for child in range(children)]
    for outcome in (first, second):
        if not outcome.is_drained or outcome.missing:
            print(outcome.findings, outcome.counts)
    slowest, hung = second.codes or (0.0, forks)
    print(f"{first.ledger.updates} updates acknowledged; the slowest fork took {slowest:.2f} s under load")
    is_all = first.is_drained and first.missing == 0 and first.ledger.updates == made and first.codes == expected
    return show(
        [
            Row(
                f"{children} children x {each} updates: lost",
                str(first.missing + made - first.ledger.updates),
                "0",
                is_all,
            ),
            Row("arrived twice", str(first.findings.twice), "0", first.findings.twice == 0),
            Row(f"{forks} forks under load: deadlocks, failures", str(hung), "0", hung == 0),
            Row("their updates lost", str(second.missing), "0", second.is_drained and second.missing == 0),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
