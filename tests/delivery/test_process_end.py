"""Worker processes that run no exit handlers: what waits leaves before they end, once, and their end stays the same."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from tests.delivery.processes import ROOT, give_up_later, run

import otel_metadata as om
from otel_metadata import span_processor
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.live.registry import LOCK
from otel_metadata.reporting import REPORTER
from otel_metadata.testing import RecordingSpanExporter

METHODS = [method for method in ("fork", "spawn", "forkserver") if method in multiprocessing.get_all_start_methods()]
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

# What workers do: a module of its own, which spawned children import.
JOBS = """
import concurrent.futures, os, signal, threading

import otel_metadata as om

om.configure(os.environ["DESTINATION"])

def job(name):
    with om.start_span(name, metadata={"live": 1}) as span:
        pass
    om.update_span(span, metadata={"in flight": 1})
    return name

def job_in_a_thread_that_goes_on(name):
    def work():
        threading.main_thread().join()
        job(name)

    threading.Thread(target=work).start()

def job_in_an_executor_that_goes_on(name):
    executor = concurrent.futures.ThreadPoolExecutor()
    ended = threading.Event()
    executor.submit(lambda: ended.wait() and job(name))
    threading._register_atexit(ended.set)

def job_and_wait(name, done):
    job(name)
    done.set()
    while True:
        signal.pause()
"""

PROGRAM = """
import concurrent.futures, multiprocessing, sys

import otel_metadata as om
from jobs import job, job_and_wait, job_in_a_thread_that_goes_on, job_in_an_executor_that_goes_on

def pool_as_context_manager(context):
    with context.Pool(2) as pool:
        pool.map(job, ["pool as context manager"] * times)

def pool_closed(context):
    pool = context.Pool(2)
    pool.map(job, ["pool closed"] * times)
    pool.close()
    pool.join()

def pool_recycled(context):
    with context.Pool(1, maxtasksperchild=1) as pool:
        pool.map(job, ["pool recycled"] * times, chunksize=1)

def pool_left_to_the_exit(context):
    global pool
    pool = context.Pool(2)
    pool.map(job, ["pool left to the exit"] * times)

def executor(context):
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
        list(executor.map(job, ["executor"] * times))

def executor_recycled(context):
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as executor:
        list(executor.map(job, ["executor recycled"] * times))

def process(context):
    children = [context.Process(target=job, args=("process",)) for _ in range(times)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * times

def process_terminated(context):
    for _ in range(times):
        done = context.Event()
        child = context.Process(target=job_and_wait, args=("process terminated", done))
        child.start()
        done.wait()
        child.terminate()
        child.join()
        assert child.exitcode == -15, child.exitcode

def daemon_left_to_the_exit(context):
    for _ in range(times):
        done = context.Event()
        context.Process(target=job_and_wait, args=("daemon left to the exit", done), daemon=True).start()
        done.wait()

def threads_that_go_on(context):
    for name in ("a thread that goes on", "an executor that goes on"):
        child = context.Process(target=globals()["job_in_" + name.replace(" ", "_")], args=(name,))
        child.start()
        child.join()
        assert child.exitcode == 0, child.exitcode

if __name__ == "__main__":
    context, times = multiprocessing.get_context(sys.argv[1]), int(sys.argv[2])
    with om.start_span("parent"):
        pass
    for way in WAYS:
        globals()[way.replace(" ", "_")](context)
"""

WAYS = [
    "pool as context manager",
    "pool closed",
    "pool recycled",
    "pool left to the exit",
    "executor",
    "process",
    "process terminated",
    "daemon left to the exit",
]


def stored(folder, method, times, ways, *, with_spool=False):
    """Run the program in *folder*; return how often each name, with which metadata, is in its store."""
    (folder / "jobs.py").write_text(JOBS)
    (folder / "program.py").write_text(PROGRAM.replace("WAYS", repr(ways)))
    environment = {
        **{name: text for name, text in os.environ.items() if not name.startswith("COV")},
        "DESTINATION": f"sqlite:///{folder}/spans.db",
        **({"OTEL_PYTHON_METADATA_SPOOL": f"{folder}/spool/spool.db"} if with_spool else {}),
    }
    # Python 3.12 and later warn of a fork beside threads, and each of a pool that nobody has closed.
    warnings = ["-W", "error", "-W", "ignore::DeprecationWarning", "-W", "ignore::ResourceWarning"]
    ended = subprocess.run(
        [sys.executable, *warnings, "program.py", method, str(times)],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    with om.Client(f"sqlite:///{folder}/spans.db") as client:
        spans = client.spans.list(limit=1_000)
    return Counter((span.name, *sorted(span.metadata)) for span in spans)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_what_waits_leaves_before_a_child_of_multiprocessing_ends(tmp_path, method):
    """However a child of multiprocessing ends, its spans and updates arrive once, and so do those of the parent."""
    times = 3 if method == "fork" else 1  # the others import everything in each child
    # `max_tasks_per_child` came with Python 3.11, and not for forked children.
    is_recycled = sys.version_info >= (3, 11) and method != "fork"
    ways = [*WAYS, "executor recycled"] if is_recycled else WAYS
    expected = {**dict.fromkeys(ways, times), "a thread that goes on": 1, "an executor that goes on": 1}
    assert stored(tmp_path, method, times, [*ways, "threads that go on"]) == as_stored(expected)


def test_with_a_spool_what_waits_leaves_as_well_and_once(tmp_path):
    """With a spool the same: nothing stays behind, and nobody sends it a second time."""
    ways = ["pool as context manager", "executor", "process"]
    assert stored(tmp_path, METHODS[0], 3, ways, with_spool=True) == as_stored(dict.fromkeys(ways, 3))


def as_stored(names):
    """Return what `stored` returns when everything has arrived."""
    return {("parent",): 1, **{(name, "in flight", "live"): count for name, count in names.items()}}


def test_a_program_without_workers_does_not_load_multiprocessing(tmp_path):
    """`configure` loads neither multiprocessing nor Celery."""
    program = f"""
import sys
import otel_metadata as om
om.configure("sqlite:///{tmp_path}/spans.db")
print([name for name in ("multiprocessing", "celery") if name in sys.modules])
"""
    ended = run(program, ROOT)
    assert (ended.stdout.strip(), ended.stderr) == ("[]", "")


# --- children of this process -------------------------------------------------------------------------------------


class Application:
    """One destination whose spans are written to a pipe, so that the parent sees what its children export."""

    def __init__(self):
        self.reading, self.writing = os.pipe()
        self.spans = RecordingSpanExporter()
        self.spans.export = self.export
        self.processor = om.MetadataSpanProcessor(
            om.Destination("memory", self.spans, InMemoryPatchExporter()),
            settings=OutboxSettings(schedule_delay_millis=3_600_000),
        )
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(self.processor)
        self.tracer = self.provider.get_tracer("application")

    def export(self, spans):
        """Tell the parent."""
        os.write(self.writing, "".join(json.dumps(span.name) + "\n" for span in spans).encode())
        return SpanExportResult.SUCCESS

    def span(self, name):
        """Open and end a span."""
        self.tracer.start_span(name).end()

    def end_of_child(self, function):
        """Run *function* in a forked child of multiprocessing; return its exit code and the spans that it exported."""

        def main():
            give_up_later()
            function()

        child = multiprocessing.get_context("fork").Process(target=main)
        child.start()
        child.join()
        os.close(self.writing)
        with os.fdopen(self.reading) as lines:
            return child.exitcode, [json.loads(line) for line in lines]


@pytest.fixture
def application():
    return Application()


@needs_fork
def test_a_termination_inside_our_own_lock_waits_until_it_is_given_back(application):
    """SIGTERM that interrupts a call of ours lets it end, sends what waits, and ends the process as it would."""

    def work():
        application.span("work")
        with LOCK:
            signal.raise_signal(signal.SIGTERM)
            signal.pthread_sigmask(signal.SIG_BLOCK, ())  # handlers run between two steps
        while True:
            signal.pause()

    assert application.end_of_child(work) == (-signal.SIGTERM, ["work"])


@needs_fork
@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda *_: sys.exit(7)])
def test_a_handler_of_the_application_stays(application, handler):
    """Where SIGTERM has another action than the default one, a child keeps it."""

    def work():
        assert signal.getsignal(signal.SIGTERM) == handler
        application.span("work")
        signal.raise_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, handler)
    try:
        assert application.end_of_child(work) == (0 if handler is signal.SIG_IGN else 7, ["work"])
    finally:
        signal.signal(signal.SIGTERM, before)


@needs_fork
def test_a_second_termination_ends_the_process_at_once(application):
    """While what waits is being sent, the action of SIGTERM is the default one again."""
    begun = multiprocessing.get_context("fork").Event()

    def export_for_ever(spans):
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait()

    application.spans.export = export_for_ever

    def work():
        application.span("work")
        signal.raise_signal(signal.SIGTERM)
        begun.set()

    assert application.end_of_child(work) == (-signal.SIGTERM, [])
    assert not begun.is_set()  # the main thread stops where it was


@needs_fork
@pytest.mark.parametrize("is_nested", [False, True], ids=["child", "grandchild"])
def test_a_termination_is_heard_while_the_main_thread_runs_no_python(application, is_nested):
    """A child ends at once, as it would by the default action, inside a call of C that would take hours."""
    context = multiprocessing.get_context("fork")
    has_begun = context.Event()

    def compute():
        application.span("work")
        threading.Thread(target=has_begun.set).start()
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)

    def work():
        if not is_nested:
            threading.Thread(target=lambda: has_begun.wait() and os.kill(os.getpid(), signal.SIGTERM)).start()
            compute()
        inner = context.Process(target=compute)
        inner.start()
        has_begun.wait()
        inner.terminate()
        inner.join()
        application.span(f"inner ended with {inner.exitcode}")

    expected = (0, ["work", "inner ended with -15"]) if is_nested else (-signal.SIGTERM, ["work"])
    assert application.end_of_child(work) == expected


@needs_fork
def test_a_termination_of_a_grandchild_right_after_the_fork_is_not_its_parents(application):
    """What the kernel tells a new process does not reach its parent by the pipe that both have."""

    def work():
        for _ in range(20):
            inner = multiprocessing.get_context("fork").Process(target=signal.pause)
            inner.start()
            inner.terminate()
            inner.join()
            assert inner.exitcode == -signal.SIGTERM
        application.span("the parent goes on")

    assert application.end_of_child(work) == (0, ["the parent goes on"])


@needs_fork
def test_a_handler_that_is_set_later_is_the_only_one(application):
    """A child that sets its own handler of SIGTERM, or a wake-up descriptor, has them, and goes on."""
    came = []

    def work():
        mine = socket.socketpair()
        for end in mine:
            end.setblocking(False)
        signal.set_wakeup_fd(mine[1].fileno())
        signal.signal(signal.SIGTERM, lambda signum, _: came.append(signum))
        signal.raise_signal(signal.SIGTERM)
        assert (came, mine[0].recv(9)) == ([signal.SIGTERM], bytes([signal.SIGTERM]))
        signal.set_wakeup_fd(-1)
        application.span("work")

    assert application.end_of_child(work) == (0, ["work"])


@needs_fork
def test_a_child_that_may_start_no_thread_keeps_the_default_action(application, monkeypatch):
    """Where no thread can hear SIGTERM, it ends the child as if we were not there."""
    start = threading.Thread.start

    def start_ours_alone(thread):
        if thread.name == "otel_metadata:termination":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_ours_alone)
    monkeypatch.setattr(REPORTER, "reraise", False)

    def work():
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        signal.raise_signal(signal.SIGTERM)

    assert application.end_of_child(work) == (-signal.SIGTERM, [])


@needs_fork
def test_a_backend_that_hangs_does_not_keep_a_child_from_ending(application, monkeypatch):
    """A child ends within the bound although its exporter does not answer, with its own exit code."""
    monkeypatch.setattr(span_processor, "EXIT_MILLIS", 100)
    application.spans.export = lambda spans: threading.Event().wait()

    def work():
        application.span("work")
        sys.exit(5)

    assert application.end_of_child(work) == (5, [])


@needs_fork
def test_a_grandchild_sends_what_is_its_own(application):
    """A child of a child sends its own spans, and nothing of those above it."""

    def work():
        application.span("child")
        inner = multiprocessing.get_context("fork").Process(target=lambda: application.span("grandchild"))
        inner.start()
        inner.join()
        assert inner.exitcode == 0

    application.span("parent")
    code, names = application.end_of_child(work)
    assert (code, sorted(names)) == (0, ["child", "grandchild"])


def test_a_child_of_a_thread_is_no_exception(application):
    """A child that was forked by another thread than the main one sends what waits as well."""
    if not hasattr(os, "fork"):
        pytest.skip("this system does not fork")
    ends = []
    thread = threading.Thread(target=lambda: ends.append(application.end_of_child(lambda: application.span("work"))))
    thread.start()
    thread.join()
    assert ends == [(0, ["work"])]
