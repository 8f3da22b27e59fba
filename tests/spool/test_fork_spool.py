"""fork with a spool: rows belong to the process that put them, until it has died; each is sent once, by one of them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from opentelemetry.sdk.trace.export import SpanExportResult
from tests.delivery.processes import Application, RunningClock, give_up_later, in_child, in_program

import otel_metadata as om
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.model.outcome import Delivered
from otel_metadata.spool import spool
from otel_metadata.spool.dead_letters import waiting
from otel_metadata.spool.spool import Spool, SpoolSettings
from otel_metadata.testing import RecordingSpanExporter

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


class Ledger:
    """What all processes were promised and what they delivered: lines of two files, there when a call returns."""

    def __init__(self, folder):
        self.promised, self.delivered = Path(folder, "promised"), Path(folder, "delivered")

    def update(self, who, count=3):
        """Update spans of another process, and note what was taken."""
        for number in range(count):
            if om.update_span(om.SpanRef(0xF0, number + 1), metadata={f"{who}{number}": number}):
                _append(self.promised, f"{who}{number}")

    def take_patch(self, patch):
        """Be the backend: note the keys of a patch."""
        _append(self.delivered, *patch.metadata())
        return Delivered()

    def take_spans(self, spans):
        """Be the backend: note the keys of metadata on spans."""
        names = [name for span in spans for name in span.attributes if name.startswith("metadata.")]
        _append(self.delivered, *(name.removeprefix("metadata.") for name in names))
        return SpanExportResult.SUCCESS

    def read(self):
        """Return how often each key was promised, and how often it was delivered."""
        return _lines(self.promised), _lines(self.delivered)


def _append(path, *words):
    with path.open("ab", buffering=0) as file:
        file.write("".join(f"{word}\n" for word in words).encode())


def _lines(path):
    return Counter(path.read_text().split()) if path.exists() else Counter()


class Parent(Application):
    """An application whose processes keep one ledger; it is stepped by hand, so it sends when it is asked to."""

    def __init__(self, folder, **settings):
        self.ledger = Ledger(folder)
        super().__init__(
            f"{folder}/spool/spool.db",
            answer_spans=self.ledger.take_spans,
            answer_patch=self.ledger.take_patch,
            clock=RunningClock(),
            **settings,
        )

    def update(self, who):
        """Update spans of another process."""
        self.ledger.update(who)

    @property
    def rows(self):
        """How many rows are in the spool, whoever they belong to."""
        self.spool.tend()
        return sum(one.updates + one.spans for one in waiting(self.spool))

    def assert_all_sent_once(self):
        """Take over what is left in the spool, and assert that all that was promised has arrived, once."""
        self.drain()
        promised, delivered = self.ledger.read()
        assert delivered == promised
        assert self.rows == 0
        assert self.stats.lost == {}


def test_a_child_forked_before_the_first_update_sends_its_own(tmp_path):
    """A spool that is open but not used yet is used by both sides of a fork, each with rows of its own."""
    parent = Parent(tmp_path)

    def child():
        parent.update("child")
        return [parent.processor.force_flush(), parent.stats.delivered]

    assert in_child(child) == [True, 3]
    parent.update("parent")
    parent.assert_all_sent_once()
    assert parent.stats.adopted == 0


def test_what_waits_at_a_fork_is_sent_by_the_parent(tmp_path):
    """Patches, held spans and what was joined to them: the child neither sends them nor takes their rows over."""
    parent = Parent(tmp_path, hold_millis=60_000)
    parent.update("late")
    with parent.tracer.start_as_current_span("span") as span:
        pass
    assert om.update_span(span, metadata={"joined": 1}).route == "in_flight"
    _append(parent.ledger.promised, "joined")
    rows = parent.rows
    assert rows > 0

    def child():
        parent.drain()
        return [
            parent.processor.force_flush(),
            parent.stats.adopted,
            parent.rows,
            sum(_lines(parent.ledger.delivered).values()),
        ]

    assert in_child(child) == [True, 0, rows, 0]
    parent.assert_all_sent_once()


def test_what_is_on_disk_alone_at_a_fork_is_sent_by_the_parent(tmp_path):
    """Updates beyond the window of memory are read back by the process that spilled them, in parent and child alike."""
    parent = Parent(tmp_path, spool_window=1)
    parent.update("parent")

    def child():
        parent.update("child")
        parent.drain()
        return [parent.stats.delivered, parent.stats.adopted]

    assert in_child(child) == [3, 0]
    parent.update("again")
    parent.assert_all_sent_once()
    assert parent.stats.delivered == 6


def test_what_a_child_leaves_is_sent_by_its_parent(tmp_path):
    """A child that ends without a flush leaves its updates in the spool; the parent adopts them beside its own."""
    parent = Parent(tmp_path)
    parent.update("parent")
    in_child(lambda: parent.update("child"))
    parent.assert_all_sent_once()
    assert (parent.stats.accepted, parent.stats.adopted) == (3, 3)


def test_what_parent_and_child_leave_is_sent_by_the_next(tmp_path):
    """When all of them have died, the next process adopts everything."""

    def first():
        parent = Parent(tmp_path)
        parent.update("parent")
        in_child(lambda: parent.update("child"))

    in_child(first)
    following = Parent(tmp_path)
    following.assert_all_sent_once()
    assert following.stats.adopted == 6


@pytest.mark.parametrize("flushes", [True, False], ids=["flush", "leave"])
def test_three_generations_send_everything_once(tmp_path, flushes):
    """Parent, child and grandchild update before and after their forks; they flush, or leave it to the first."""
    parent = Parent(tmp_path)

    def live(generation):
        parent.update(f"before{generation}.")
        if generation < 3:
            in_child(lambda: live(generation + 1))
        parent.update(f"after{generation}.")
        return not flushes or parent.processor.force_flush()

    assert live(1)
    parent.assert_all_sent_once()
    assert parent.stats.adopted == (0 if flushes else 12)


def test_two_threads_may_fork_at_once(tmp_path, monkeypatch):
    """A thread that comes back from its fork gives back its own locks, not those that another took for the next."""
    one = Spool(SpoolSettings(f"{tmp_path}/spool/spool.db"))
    monkeypatch.setattr(spool, "_spools", {one})
    has_it, first_is_back = threading.Event(), threading.Event()
    release = Spool.release_in_parent

    def fork():
        spool._before_fork()
        has_it.set()
        first_is_back.wait()
        spool._after_fork_in_parent()

    def release_in_parent(self):
        release(self)
        if threading.current_thread() is not second:
            second.start()
            has_it.wait()

    second = threading.Thread(target=fork)
    monkeypatch.setattr(Spool, "release_in_parent", release_in_parent)
    spool._before_fork()
    spool._after_fork_in_parent()
    first_is_back.set()
    second.join()
    assert one._lock.acquire(blocking=False)
    one._lock.release()
    one.close()


# --- programs of their own ----------------------------------------------------------------------------------------


def fork_under_load(folder):
    """Fork 20 children while three threads update; each child updates, and flushes or leaves; then flush."""
    ledger = Ledger(folder)
    patches = InMemoryPatchExporter(ledger.take_patch)
    processor = om.MetadataSpanProcessor(
        om.Destination("memory", RecordingSpanExporter(), patches),
        spool=Spool(SpoolSettings(f"{folder}/spool/spool.db")),
    )
    stop = threading.Event()

    def load(name):
        number = 0
        while not stop.is_set():
            number += 1
            ledger.update(f"{name}.{number}.", 1)

    threads = [threading.Thread(target=load, args=(f"thread{number}",)) for number in range(3)]
    for thread in threads:
        thread.start()

    def child(number):
        ledger.update(f"child{number}.")
        return number % 2 or processor.force_flush()

    try:
        answers = [in_child(lambda number=number: child(number)) for number in range(20)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    processor.shutdown(60_000)
    return [all(answers), processor.stats().destinations["memory"].is_balanced]


def test_forks_while_other_threads_update(tmp_path):
    """Children that are forked while other threads write to the spool update and flush at once; all is sent once."""
    assert in_program(fork_under_load, str(tmp_path), with_coverage=False) == [True, True]
    Parent(tmp_path).assert_all_sent_once()


inherited = None


def update_and_end(folder, how):
    """Be a child of multiprocessing: update, then end as it is said."""
    give_up_later()
    (inherited or Parent(folder)).update(how)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)


def children_of_multiprocessing(folder, method):
    """Start a child that returns and one that is killed, then send everything."""
    global inherited
    give_up_later()
    inherited = parent = Parent(folder)
    parent.update("parent")
    context = multiprocessing.get_context(method)
    children = [context.Process(target=update_and_end, args=(folder, how)) for how in ("return", "kill")]
    for child in children:
        child.start()
    for child in children:
        child.join()
    parent.assert_all_sent_once()
    return [[child.exitcode for child in children], parent.stats.accepted, parent.stats.adopted]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_what_a_child_of_multiprocessing_leaves_is_sent_by_its_parent(tmp_path, method):
    """A child that returns sends what it has; one that is killed leaves its rows to the parent; all is sent once."""
    codes_accepted_adopted = in_program(children_of_multiprocessing, str(tmp_path), method)
    assert codes_accepted_adopted == [[0, -signal.SIGKILL], 3, 3]


def pre_forking_server(folder):
    """Configure in the parent; children answer requests, and end as programs do."""
    give_up_later()
    ledger = Ledger(folder)
    exporter = RecordingSpanExporter()
    exporter.export = ledger.take_spans
    pipeline = om.configure(
        om.Destination("memory", exporter, InMemoryPatchExporter(ledger.take_patch)), spool=f"{folder}/spool/spool.db"
    )
    pids = []
    for worker in range(3):
        pid = os.fork()
        if pid == 0:
            give_up_later()
            with om.start_span("request") as span:
                span.update(metadata={f"live{worker}": 1})
            span.update(metadata={f"flying{worker}": 1})
            if worker:
                om.flush()
            ledger.update(f"late{worker}")
            _append(ledger.promised, f"live{worker}", f"flying{worker}")
            sys.exit(worker)
        pids.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    pipeline.shutdown(60_000)
    return codes


def test_the_children_of_a_pre_forking_server_send_their_own_at_exit(tmp_path):
    """What was configured before the fork works in each child, and is shut down by each at its normal end."""
    assert in_program(pre_forking_server, str(tmp_path)) == [0, 1, 2]
    following = Parent(tmp_path)
    assert following.rows == 0
    following.assert_all_sent_once()
