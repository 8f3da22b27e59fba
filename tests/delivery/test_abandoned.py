"""Spans that nobody ends, and updates that come from where a lock may already be held."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap

import pytest

import otel_metadata as om
from otel_metadata.live.registry import LOCK, REGISTRY


def test_a_span_that_is_collected_without_being_ended_loses_its_updates(scene):
    """The live updates of a span that the application forgot are lost as target_not_exported."""
    span = scene.tracer.start_span("forgotten")
    om.update_span(span, metadata={"a": 1})
    assert scene.stats.live == 1
    del span
    gc.collect()
    assert (scene.stats.live, scene.lost) == (0, {"target_not_exported": 1})


def test_the_registry_does_not_grow_with_forgotten_spans(scene):
    """Spans that nobody ends leave the registry when they are collected."""
    for _ in range(1_000):
        scene.tracer.start_span("forgotten")
        assert len(REGISTRY.entries) < 10
    gc.collect()
    REGISTRY.bury()
    assert len(REGISTRY.entries) == 0


def test_a_forgotten_span_without_updates_loses_nothing(scene):
    """A span that nobody updated and nobody ended changes no count."""
    scene.tracer.start_span("forgotten")
    gc.collect()
    assert (scene.stats.accepted, scene.lost) == (0, {})


def test_an_update_of_a_forgotten_span_is_that_of_an_unseen_one(scene):
    """A span that was collected is not known here any more: an update of its name goes late."""
    ref = om.SpanRef.from_span_context(scene.tracer.start_span("forgotten").get_span_context())
    gc.collect()
    assert om.update_span(ref, metadata={"a": 1}).route == "late"


class UpdatesAtItsEnd:
    """Updates and ends spans when it is collected."""

    def __init__(self, scene, ref):
        self.scene = scene
        self.ref = ref
        self.cycle = self

    def __del__(self):
        om.update_span(self.ref, metadata={"from": "__del__"})
        self.scene.tracer.start_span("from __del__").end()


def test_an_update_from_a_finalizer_while_the_lock_is_held_does_not_deadlock(scene):
    """A finalizer that runs while its thread holds our lock can update and end spans."""
    ref = scene.ended()
    UpdatesAtItsEnd(scene, ref)
    with LOCK:
        gc.collect()
    assert scene.processor.force_flush()
    assert scene.on_span(ref) == {"from": "__del__"}
    assert [span.name for span in scene.spans.spans] == ["span", "from __del__"]


def test_finalizers_between_any_two_updates_leave_the_balance(scene):
    """With a collection at nearly every allocation, updates from finalizers lose and double nothing."""
    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        refs = []
        for n in range(300):
            refs.append(scene.ended(n=n))
            UpdatesAtItsEnd(scene, refs[-1])
            om.update_span(refs[n // 2], metadata={"n": -n})
            if n % 50 == 49:
                assert scene.processor.force_flush()
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert scene.processor.force_flush()
    assert all(scene.final(ref)["from"] == "__del__" for ref in refs)
    assert (scene.stats.delivered, scene.lost) == (900, {})


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers")
def test_an_update_from_a_signal_handler_while_the_lock_is_held_does_not_deadlock(scene):
    """A signal handler that runs while its thread holds our lock can update and end spans."""
    ref = scene.ended()
    done = []

    def handle(_number, _frame):
        om.update_span(ref, metadata={"from": "signal"})
        scene.ended()
        done.append(True)

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        with LOCK:
            os.kill(os.getpid(), signal.SIGUSR1)
            while not done:
                pass
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert scene.processor.force_flush()
    assert scene.on_span(ref) == {"from": "signal"}


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers")
def test_signal_handlers_between_any_two_updates_leave_the_balance(scene):
    """A timer that fires all the time, and whose handler updates and ends spans, loses and doubles nothing."""
    fired = []

    def handle(_number, _frame):
        fired.append(om.update_span(scene.unseen(len(fired) % 9 + 1), metadata={f"s{len(fired)}": 1}))
        scene.tracer.start_span("from signal").end()
        # Set again only now: where a handler takes longer than the interval, they would nest without end.
        signal.setitimer(signal.ITIMER_REAL, 0.0005)

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.0005)
    made = 0
    try:
        while len(fired) < 200:
            om.update_span(scene.ended(n=made), metadata={"after": made})
            made += 1
            if made % 100 == 0:
                scene.processor.force_flush()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert scene.processor.force_flush()
    assert all(fired)
    assert (scene.stats.accepted, scene.stats.delivered) == (2 * made + len(fired), 2 * made + len(fired))


PROGRAM = """
import otel_metadata as om

om.configure("sqlite:///spans.db")

@om.observe
def steps():
    om.update_current_span(metadata={"a": 1})
    yield 1
    yield 2

generator = steps()  # never finished: its span ends while the interpreter shuts down, or before
next(generator)
with om.start_span("finished"):
    pass
"""


def test_what_waits_at_the_end_of_a_program_is_exported(tmp_path):
    """A program that flushes nothing by itself exports its ended spans at exit, without a word on its error stream."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(PROGRAM)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    with om.Client(f"sqlite:///{tmp_path}/spans.db") as client:
        assert "finished" in [span.name for span in client.spans.list()]
