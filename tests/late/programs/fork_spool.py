"""Programs that fork with a spool; run by `test_fork_spool.py`, one process each.

Called as `python -m tests.late.programs.fork_spool NAME FOLDER [ARGUMENT...]`; prints what came of it as JSON. Every
process appends to one ledger what it delivered, and to another what a receipt promised it. A deadlock is a process that
does not end.
"""

from __future__ import annotations

import collections
import faulthandler
import json
import multiprocessing
import os
import signal
import sys
import threading
import time

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

import otel_metadata as om
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.late.settings import OutboxSettings
from otel_metadata.late.spool import Spool, SpoolSettings
from otel_metadata.model.outcome import Delivered

NEVER = OutboxSettings(schedule_delay_millis=3_600_000)
TARGET = om.SpanRef(0xABC, 1)
UPDATES = 20
GIVE_UP_SECONDS = int(os.environ.get("GIVE_UP_SECONDS", "60"))


class SkippingClock:
    """The system's clock, which a program can move on: another process's rows are looked for every five seconds."""

    wall_ns = staticmethod(time.time_ns)
    skipped_ns = 0

    def monotonic_ns(self):
        """Return the machine's time, and what was skipped."""
        return time.monotonic_ns() + self.skipped_ns

    @staticmethod
    def wait(event, timeout_ns):
        """Wait on the event."""
        return event.wait(None if timeout_ns is None else max(timeout_ns, 0) / 1e9)


class Ledger:
    """A file of lines that several processes append to."""

    def __init__(self, path):
        self.path = path

    def write(self, *words):
        """Append the words; they are there when the call returns, however the process ends."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, "".join(f"{word}\n" for word in words).encode())
        os.close(descriptor)

    def read(self):
        """Return how often each word is there."""
        try:
            with open(self.path) as lines:
                return collections.Counter(line.strip() for line in lines)
        except FileNotFoundError:
            return collections.Counter()


class SpanLedger(SpanExporter):
    """Writes the names of spans down."""

    def __init__(self, ledger):
        self.ledger = ledger
        self.answer = None

    def export(self, spans):
        """Write them down."""
        if self.answer is not None:
            self.answer()
        self.ledger.write(*(span.name for span in spans))
        return SpanExportResult.SUCCESS

    def shutdown(self):
        """Keep nothing."""


class Application:
    """A process with one destination, which writes down the keys of all metadata that it delivered."""

    def __init__(self, folder, *, with_spool=True, settings=NEVER, shutdown_on_exit=True):
        self.promised, self.delivered = Ledger(f"{folder}/promised"), Ledger(f"{folder}/delivered")
        self.clock = SkippingClock()
        self.spans = SpanLedger(Ledger(f"{folder}/spans"))
        patches = InMemoryPatchExporter()
        patches.answer = lambda patch: self.delivered.write(*patch.metadata()) or Delivered()
        spool = Spool(SpoolSettings(f"{folder}/spool/spool.db"), clock=self.clock) if with_spool else None
        self.processor = om.MetadataSpanProcessor(
            om.Destination("ledger", self.spans, patches), settings=settings, clock=self.clock, spool=spool
        )
        self.provider = TracerProvider(shutdown_on_exit=shutdown_on_exit)
        self.provider.add_span_processor(self.processor)
        self.tracer = self.provider.get_tracer("application")

    def update(self, who, count=UPDATES):
        """Update another process's span by its text form, and write down what was promised."""
        for number in range(count):
            if om.update_span(TARGET.to_traceparent(), metadata={f"{who}-{number}": number}):
                self.promised.write(f"{who}-{number}")

    @property
    def stats(self):
        """The destination's counts."""
        return self.processor.stats().destinations["ledger"]

    def adopt_all(self):
        """Let the worker take over what dead processes have left, until all that was promised is delivered."""
        while self.promised.read() - self.delivered.read():
            self.clock.skipped_ns += 10_000_000_000
            om.flush()

    def told(self):
        """Return what a test compares."""
        om.shutdown()
        promised, delivered = self.promised.read(), self.delivered.read()
        stats = self.stats
        return {
            "promised": len(promised),
            "missing": sorted(promised - delivered),
            "twice": sorted(delivered - promised),
            "adopted": stats.adopted,
            "lost": dict(stats.lost),
            "balanced": stats.is_balanced,
        }


def fork(work):
    """Do *work* in a child, which an alarm ends when it hangs; return its process id."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(GIVE_UP_SECONDS)
            code = 0 if work() in (None, True) else 2
        except BaseException as error:  # whatever it is, the parent hears of it
            sys.stderr.write(f"{error!r}\n")
        finally:
            os._exit(code)
    return pid


def wait_for(*pids):
    """Return how each child ended."""
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def end(how):
    """End this process."""
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exit":
        os._exit(0)


inherited = None


def child_of_multiprocessing(folder, who, how):
    """Update, then end; a child that was not forked from the application makes one of its own."""
    faulthandler.dump_traceback_later(GIVE_UP_SECONDS, exit=True)
    application = inherited or Application(folder)
    application.update(who)
    end(how)


def processes(folder, method):
    """Let three children update, and end in three ways: normally, by os._exit, by SIGKILL."""
    global inherited
    application = Application(folder)
    if method == "fork":
        inherited = application
    application.update("parent")
    context = multiprocessing.get_context(method)
    children = [
        context.Process(target=child_of_multiprocessing, args=(folder, how, how)) for how in ("normal", "exit", "kill")
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    application.adopt_all()
    return {"codes": [child.exitcode for child in children], **application.told()}


def next_process(folder):
    """Leave everything to the process after the next: children, and then their parent, die with rows on disk."""

    def first():
        application = Application(folder)
        application.update("parent")
        codes = wait_for(fork(lambda: application.update("child") or end("kill")))
        assert codes == [-signal.SIGKILL], codes
        end("kill")

    codes = wait_for(fork(first))
    application = Application(folder)
    om.flush()
    return {"codes": codes, **application.told()}


def generations(folder, with_spool):
    """Fork three generations; each updates, and flushes before it ends."""
    application = Application(folder, with_spool=with_spool == "spool")

    def live(generation):
        application.update(f"generation{generation}")
        if generation < 3:
            assert wait_for(fork(lambda: live(generation + 1))) == [0]
        application.update(f"again{generation}")
        assert om.flush()
        assert application.stats.delivered == application.stats.accepted == 2 * UPDATES

    live(0)
    return application.told()


def under_load(folder, with_spool):
    """Fork 50 children while three threads update; each child updates and flushes."""
    application = Application(folder, with_spool=with_spool == "spool")
    stop = threading.Event()

    def busy(name):
        number = 0
        while not stop.is_set():
            application.update(f"{name}-{number}", 1)
            number += 1

    threads = [threading.Thread(target=busy, args=(f"thread{number}",)) for number in range(3)]
    for thread in threads:
        thread.start()

    def work(name):
        application.update(name, 3)
        return om.flush() and application.stats.delivered == 3

    codes = []
    try:
        for number in range(50):
            codes += wait_for(fork(lambda number=number: work(f"child{number}")))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    om.flush()
    told = application.told()
    return {"codes": sorted(set(codes)), **told, "promised": told["promised"] > 150}


def two_forks_at_once(folder):
    """Let one thread fork exactly when another one is about to have come back from its own fork."""
    # Registered last, these run first after a fork; registered by the library before, its own run last before it.
    application = Application(folder)
    release = Spool.release_in_parent
    other_has_it, main_is_back = threading.Event(), threading.Event()
    pids = []

    def run_other():
        pids.append(fork(lambda: None))

    other = threading.Thread(target=run_other)

    def release_then_let_the_other_in(spool):
        Spool.release_in_parent = release
        release(spool)
        other.start()
        other_has_it.wait()

    hold = Spool.hold_at_fork

    def held(spool):
        answer = hold(spool)
        if threading.current_thread() is other:
            # What follows in this hook is one append: the switch of threads is asked for at the next fork hook.
            application.other_is_next = True
        return answer

    Spool.release_in_parent, Spool.hold_at_fork = release_then_let_the_other_in, held
    application.other_is_next = False

    at_the_door.append(
        lambda: (
            (other_has_it.set(), main_is_back.wait()) if threading.current_thread() is other else None  # noqa: FURB
        )
    )
    pids.append(fork(lambda: None))
    main_is_back.set()
    other.join()
    codes = wait_for(*pids)
    application.update("after")
    return {"codes": codes, "unspooled": application.stats.unspooled, "unraisable": unraisable, **application.told()}


def before_the_first_step(folder):
    """Fork at once after the start, before the worker has done anything."""
    application = Application(folder)

    def work():
        application.update("child")
        return om.flush() and application.stats.delivered == UPDATES

    codes = wait_for(fork(work))
    application.update("parent")
    return {"codes": codes, **application.told()}


def with_a_full_queue(folder):
    """Fork while the exporter hangs and more spans wait than there is room for."""
    settings = OutboxSettings(schedule_delay_millis=1, max_queue_size=8, max_export_batch_size=1)
    application = Application(folder, settings=settings)
    entered, release = threading.Event(), threading.Event()
    application.spans.answer = lambda: entered.set() or release.wait()
    for number in range(50):
        with application.tracer.start_as_current_span(f"parent{number}") as span:
            pass
        om.update_span(span, metadata={f"parent{number}": 1})
    entered.wait()
    before = application.stats.spans_queued

    def work():
        application.spans.answer = None
        stats = application.stats
        assert (stats.accepted, stats.spans_queued, stats.spans_evicted, stats.buffered_bytes) == (0, 0, 0, 0)
        for number in range(4):
            with application.tracer.start_as_current_span(f"child{number}"):
                pass
        application.update("child")
        return om.flush() and application.stats.spans_exported == 4

    codes = wait_for(fork(work))
    after = application.stats.spans_queued
    release.set()
    om.shutdown()
    stats = application.stats
    spans = application.spans.ledger.read()
    return {
        "codes": codes,
        "queued": before == after > 0,
        "spans of the child": sorted(name for name in spans if name.startswith("child")),
        "twice": [name for name, count in spans.items() if count > 1],
        "all parents": sum(name.startswith("parent") for name in spans) + stats.spans_evicted == 50,
        "balanced": stats.is_balanced,
        "missing": sorted(application.promised.read() - application.delivered.read()),
    }


def child_that_does_nothing(folder, how):
    """Fork a child that never uses the library, and ends normally or at once."""
    application = Application(folder)
    application.update("parent")
    with application.tracer.start_as_current_span("span"):
        pass
    pid = os.fork()
    if pid == 0:
        signal.alarm(GIVE_UP_SECONDS)
        end(how)
        sys.exit(0)
    codes = wait_for(pid)
    between = len(application.delivered.read()) + len(application.spans.ledger.read())
    told = application.told()
    return {"codes": codes, "sent by the child": between, "spans": dict(application.spans.ledger.read()), **told}


def server(folder):
    """Configure in the parent, work in children that end normally, as a pre-forking server does."""
    pipeline = om.configure(f"sqlite:///{folder}/spans.db", spool=f"{folder}/spool/spool.db")

    @om.observe
    def handle(number):
        om.update_current_span(metadata={"live": number})
        return om.current_span_ref()

    for number in range(3):
        pid = os.fork()
        if pid == 0:
            signal.alarm(GIVE_UP_SECONDS)
            for request in range(5):
                ref = handle(request)
                om.update_span(ref, metadata={"in flight": request})
                assert om.flush()
                assert om.update_span(ref, metadata={"late": request}).route == "late"
            if number == 0:
                om.shutdown()
            sys.exit(0)
    codes = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(3)]
    pipeline.shutdown()
    with om.Client(f"sqlite:///{folder}/spans.db") as client:
        spans = [dict(span.metadata) for span in client.spans.list()]
    return {"codes": codes, "spans": sorted(spans, key=lambda metadata: metadata["live"])}


unraisable = []
at_the_door = []


def _note_unraisable(what):
    unraisable.append(repr(what.exc_value))


if __name__ == "__main__":
    faulthandler.dump_traceback_later(GIVE_UP_SECONDS, exit=True)
    sys.unraisablehook = _note_unraisable
    program, *arguments = sys.argv[1:]
    print(json.dumps(globals()[program](*arguments)))
