"""Processes: forked ones, programs of their own, and an application that dies and is started again in one process.

That application is for models of delivery. A death is what a SIGKILL leaves: what was written is there, what was queued
in memory is not, and the kernel has given the leases back. Real kills are in `test_spool.py` and in `stress/`; here a
death costs a millisecond.

Times here only end what hangs: nothing is decided by them.
"""

from __future__ import annotations

import faulthandler
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from opentelemetry.sdk.trace import TracerProvider

import otel_metadata as om
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.dialects.otel import OtelDialect
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.live import routing
from otel_metadata.live.registry import REGISTRY
from otel_metadata.model.merge import merge
from otel_metadata.seams import SystemClock
from otel_metadata.spool.spool import Spool, SpoolSettings
from otel_metadata.testing import ManualClock, RecordingSpanExporter

__all__ = ["Application", "Backend", "RunningClock", "give_up_later", "in_child", "in_program", "run"]

ROOT = Path(__file__).parents[2]


def give_up_later():
    """Let this process say where it hangs, and end: by the alarm's default action, whatever lock it waits for."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    faulthandler.register(signal.SIGALRM, sys.__stderr__, chain=True)
    signal.alarm(60)


def in_child(function):
    """Run *function* in a forked child, which then ends at once; return what it returned, as JSON."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            give_up_later()
            os.close(reading)
            os.write(writing, json.dumps(function()).encode())
            code = 0
        except BaseException as error:
            os.write(writing, json.dumps(repr(error)).encode())
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        # The child may hang before its alarm is set.
        if not select.select([pipe], [], [], 90)[0]:
            os.kill(pid, signal.SIGKILL)
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, text
    return json.loads(text)


def in_program(function, *arguments, with_coverage=True):
    """Run a function of a module in a process of its own; return what it returned, as JSON.

    Without coverage a program may fork while its other threads run: one of them may hold coverage's own lock at the
    fork, and then the first line of ours that is traced in the child waits for ever.
    """
    call = f"from {function.__module__} import {function.__name__} as main; answer = main(*{arguments})"
    program = f"import json; {call}; print(json.dumps(answer))"
    environment = {name: text for name, text in os.environ.items() if with_coverage or not name.startswith("COV")}
    # Python 3.12 and later warn of a fork beside threads.
    completed = run(program, ROOT, environment, warnings="ignore::DeprecationWarning")
    assert completed.returncode == 0, completed.stderr
    return json.loads(completed.stdout)


def run(program, folder, environment=None, *, warnings="error"):
    """Run the text of a program in *folder*; return how it ended."""
    return subprocess.run(
        [sys.executable, "-W", warnings, "-c", program],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


class RunningClock:
    """The system's clock, which can be moved on: for processes that run at the same time, and wait for each other."""

    wait = staticmethod(SystemClock.wait)

    def __init__(self):
        self._ahead_ns = 0

    def wall_ns(self):
        """Return the machine's time, and what it was moved on."""
        return SystemClock.wall_ns() + self._ahead_ns

    def monotonic_ns(self):
        """Return the machine's time, and what it was moved on."""
        return SystemClock.monotonic_ns() + self._ahead_ns

    def advance(self, millis):
        """Move both times forward."""
        self._ahead_ns += int(millis * 1_000_000)


class Backend:
    """What a backend holds: fields by span, merged by version, or overwritten in the order of arrival."""

    def __init__(self, *, is_versioned=True):
        self.is_versioned = is_versioned
        self.fields = {}
        self.versions = set()

    def apply(self, key, fields):
        """Take the metadata of one span or patch."""
        fields = {name: field for name, field in fields.items() if name[1] == "metadata"}
        self.versions.update(version for _, version in fields.values())
        held = self.fields.get(key, {})
        self.fields[key] = merge(held, fields) if self.is_versioned else {**held, **fields}

    def values(self):
        """Return the metadata by span, without versions."""
        return {
            key: {name[2]: value for name, (value, _) in fields.items()}
            for key, fields in self.fields.items()
            if fields
        }


class Application:
    """A process with one destination and a spool; it is stepped by hand, killed, and started again.

    Attributes:
        answer_spans: Called with each batch of spans; returns an export result.
        answer_patch: Called with each patch; returns an outcome.
        finished: The stats of every life that has ended.
    """

    def __init__(
        self,
        path,
        *,
        answer_spans,
        answer_patch,
        convergence="versioned",
        hold_millis=0,
        budget=None,
        clock=None,
        **settings,
    ):
        self.clock = clock or ManualClock()
        self.path = str(path)
        self._answers = answer_spans, answer_patch
        self._convergence = convergence
        self._hold_millis = hold_millis
        self._budget = budget
        self._settings = settings
        self.finished = []
        self.start()

    def start(self):
        """Begin a life."""
        answer_spans, answer_patch = self._answers
        spans, patches = RecordingSpanExporter(), InMemoryPatchExporter(max_batch=2, convergence=self._convergence)
        export = spans.export
        spans.export = lambda batch: answer_spans(batch) if answer_spans is not None else export(batch)
        patches.answer = answer_patch
        self.spool = Spool(SpoolSettings(self.path), clock=self.clock)
        self.processor = om.MetadataSpanProcessor(
            om.Destination(
                "memory",
                spans,
                patches,
                OtelDialect(max_attributes=self._budget, span_limit=None),
                hold_millis=self._hold_millis,
            ),
            settings=OutboxSettings(**self._settings),
            clock=self.clock,
            start_workers=False,
            chance=lambda: 0.5,
            spool=self.spool,
        )
        (self.worker,) = self.processor.workers
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(self.processor)
        self.tracer = provider.get_tracer("application")

    def die(self):
        """End this life as SIGKILL does."""
        stats = self.stats
        assert stats.is_balanced, stats
        self.finished.append(stats)
        routing.remove_router(self.processor)
        REGISTRY.entries.clear()
        forget_what_is_queued(self.spool)
        self.spool.close()

    def stop(self):
        """End this life in order."""
        self.processor.shutdown()
        assert self.stats.is_balanced, self.stats
        self.finished.append(self.stats)

    @property
    def stats(self):
        """The destination's counts in this life."""
        return self.processor.stats().destinations["memory"]

    def drain(self, rounds=1_000):
        """Step until nothing waits, moving the time."""
        for _ in range(rounds):
            while self.worker.step():
                pass
            if not self.stats.waiting and not self.processor.outboxes[0].partition.has_more:
                return
            self.clock.advance(60_000)


def forget_what_is_queued(spool):
    """Lose what a process has in memory when it is killed."""
    spool._queue.clear()
    spool._doomed.clear()
    spool._letters.clear()
