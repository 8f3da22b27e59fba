"""From set-up to the end of the process: however a program ends, what it was promised is sent, or is in the spool.

Programs here are processes of their own, which end by themselves.
"""

from __future__ import annotations

import json
import os
import textwrap
import threading

import pytest
from opentelemetry.sdk.trace import TracerProvider
from tests.delivery.processes import run

import otel_metadata as om
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.model.outcome import Delivered, DeliveryError, Retry
from otel_metadata.spool import dead_letters
from otel_metadata.spool.spool import Spool, SpoolSettings
from otel_metadata.testing import RecordingSpanExporter

SET_UP = """
import atexit, json, os, sys, threading, weakref
import otel_metadata as om
from opentelemetry.sdk.trace import TracerProvider

om.configure("sqlite:///spans.db")

def serve(name):
    with om.start_span(name) as span:
        span.update(metadata={"live": 1})
    span.update(metadata={"in flight": 1})
    return span.ref

def say(*words, write=os.write, dumps=json.dumps):
    write(1, (dumps(words) + "\\n").encode())
"""


class Ended:
    """A program that has ended, and what came of it.

    Attributes:
        code: Its exit code.
        errors: What it wrote to its error stream.
        said: What it said, in order.
    """

    def __init__(self, text, folder, *, with_spool, set_up=SET_UP, warnings="error"):
        self.folder = folder
        self.spool = f"{folder}/spool/spool.db"
        environment = {**os.environ, **({"OTEL_PYTHON_METADATA_SPOOL": self.spool} if with_spool else {})}
        completed = run(set_up + textwrap.dedent(text), folder, environment, warnings=warnings)
        self.code, self.errors = completed.returncode, completed.stderr
        self.said = [json.loads(line) for line in completed.stdout.splitlines()]

    @property
    def stored(self):
        """The metadata of each span, by its name."""
        with om.Client(f"sqlite:///{self.folder}/spans.db") as client:
            return {span.name: dict(span.metadata) for span in client.spans.list()}

    @property
    def left(self):
        """What is left in the spool."""
        return rows(self.spool)


def rows(path):
    """Return what waits in a spool; nothing where there is none."""
    if not os.path.exists(path):
        return []
    spool = Spool(SpoolSettings(path))
    try:
        return dead_letters.waiting(spool)
    finally:
        spool.close()


@pytest.fixture(params=[False, True], ids=["memory", "spool"])
def program(request, tmp_path):
    """Run a program, without and with a spool."""
    return lambda text, **options: Ended(text, tmp_path, with_spool=request.param, **options)


@pytest.fixture
def program_with_spool(tmp_path):
    """Run a program with a spool."""
    return lambda text, **options: Ended(text, tmp_path, with_spool=True, **options)


BOTH = {"live": 1, "in flight": 1}

REFUSED = "An update was dropped: it came after shutdown().\n"


# --- the end of a program -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "code", "words"),
    [("", 0, ""), ("sys.exit(3)", 3, ""), ("raise ValueError('unhandled')", 1, "ValueError: unhandled\n")],
    ids=["return", "exit", "exception"],
)
def test_what_waits_is_sent_however_a_program_ends(program, ending, code, words):
    """Its last line, sys.exit or an exception: what waits is sent, and the end is what it would have been."""
    ended = program(f"serve('span')\n{ending}")
    assert ended.code == code
    assert ended.errors.endswith(words)
    assert bool(ended.errors) == bool(words)
    assert (ended.stored, ended.left) == ({"span": BOTH}, [])


def test_what_an_exit_handler_says_before_our_shutdown_is_sent(program_with_spool):
    """A handler that was registered after us comes before us: it can update, flush, and update again."""
    ended = program_with_spool(
        """
        def last_words():
            ref = serve("span")
            say(om.flush(), om.update_span(ref, metadata={"late": 1}).route)
        atexit.register(last_words)
        """
    )
    assert (ended.code, ended.errors, ended.said) == (0, "", [[True, "late"]])
    assert (ended.stored, ended.left) == ({"span": {**BOTH, "late": 1}}, [])


def test_an_exit_handler_after_our_shutdown_is_refused(program_with_spool):
    """A handler that was registered before us comes after us: its updates are refused, and all counts add up."""
    after = """
import atexit

def after():
    counts = om.stats().destinations["sqlite"]
    say(om.update_span(serve("too late"), metadata={"a": 1}).reason, om.flush(), counts.accepted, counts.delivered)

atexit.register(after)
"""
    ended = program_with_spool("serve('span')", set_up=after + SET_UP)
    assert (ended.code, ended.errors) == (0, REFUSED)
    assert ended.said == [["after_shutdown", True, 2, 2]]
    assert (ended.stored, ended.left) == ({"span": BOTH}, [])


def test_everybody_may_shut_down(program_with_spool):
    """The program, exit handlers before and after ours, and the provider: the first sends, the others do nothing."""
    ended = program_with_spool(
        """
        serve("span")
        atexit.register(om.shutdown)
        om.shutdown()
        om.shutdown()
        """,
        set_up=f"import atexit\natexit.register(lambda: om.shutdown())\n{SET_UP}",
    )
    assert (ended.code, ended.errors) == (0, "")
    assert (ended.stored, ended.left) == ({"span": BOTH}, [])


def test_a_thread_that_outlives_the_main_one_is_waited_for(program_with_spool):
    """What a thread that is no daemon says after the main thread has ended is sent."""
    ended = program_with_spool(
        """
        def outlive():
            threading.main_thread().join()
            ref = serve("span")
            say(om.flush(), om.update_span(ref, metadata={"late": 1}).route)
        threading.Thread(target=outlive).start()
        """
    )
    assert (ended.code, ended.errors, ended.said) == (0, "", [[True, "late"]])
    assert (ended.stored, ended.left) == ({"span": {**BOTH, "late": 1}}, [])


def test_daemon_threads_may_go_on_until_the_end(program):
    """Daemon threads update while the interpreter shuts down: all that they were promised is sent, or in the spool."""
    ended = program(
        """
        ref = serve("span")
        om.flush()
        enough = threading.Event()
        def go_on(name):
            for number in range(1 << 30):
                if om.update_span(ref, metadata={f"{name}.{number}": number}):
                    say(f"{name}.{number}")
                if number == 100:
                    enough.set()
        for name in ("one", "other"):
            threading.Thread(target=go_on, args=(name,), daemon=True).start()
        enough.wait()
        """
    )
    assert (ended.code, ended.errors) in {(0, ""), (0, REFUSED)}
    promised = {word for (word,) in ended.said}
    assert len(promised) >= 100
    assert (promised - ended.stored["span"].keys(), ended.left) == (set(), [])


def test_finalizers_at_the_very_end_are_refused(program_with_spool):
    """What is collected while the interpreter takes itself apart may call us, as `weakref.finalize` may before."""
    ended = program_with_spool(
        """
        def last_words(who, om=om, ref=serve("span"), say=say):
            say(who, bool(om.update_span(ref, metadata={who: 1})), om.flush())
            om.shutdown()

        class Object:
            def __del__(self, last_words=last_words):
                last_words("__del__")

        of_the_module = Object()
        weakref.finalize(Object, last_words, "finalize")
        """
    )
    assert (ended.code, ended.errors) == (0, REFUSED)
    assert ended.said == [["finalize", True, True], ["__del__", False, True]]
    assert (ended.stored, ended.left) == ({"span": {**BOTH, "finalize": 1}}, [])


@pytest.mark.parametrize("is_second", [False, True], ids=["first", "second"])
def test_an_exit_handler_may_configure(program_with_spool, is_second):
    """Where Python starts no thread any more (3.12), flush and shutdown do the work of the worker."""
    ended = program_with_spool(
        """
        provider = TracerProvider(shutdown_on_exit=False)

        def begin():
            om.configure("sqlite:///spans.db", tracer_provider=provider)
            ref = serve("span")
            say(om.flush(), om.update_span(ref, metadata={"late": 1}).route)
            om.shutdown()

        atexit.register(begin)
        """,
        set_up=SET_UP if is_second else SET_UP.replace('om.configure("sqlite:///spans.db")', "om.configure"),
    )
    assert (ended.code, ended.said) == (0, [[True, "late"]])
    assert "Traceback" not in ended.errors
    assert (ended.stored, ended.left) == ({"span": {**BOTH, "late": 1}}, [])


# --- in this process ---------------------------------------------------------------------------------------------


DOWN = Retry(DeliveryError("connection_failure", "down"))


class Pipeline:
    """One destination in memory, with a worker's thread and a spool."""

    def __init__(self, folder, answer=None):
        self.calls = []
        self.spans, self.patches = RecordingSpanExporter(), InMemoryPatchExporter(answer)
        self.patches.shutdown = lambda timeout_millis: self.calls.append("shutdown")
        self.spool = f"{folder}/spool/spool.db"
        self.pipeline = om.configure(
            om.Destination("memory", self.spans, self.patches),
            tracer_provider=TracerProvider(shutdown_on_exit=False),
            spool=self.spool,
        )

    @property
    def stats(self):
        return self.pipeline.stats().destinations["memory"]


UNSEEN = om.SpanRef(0xABC, 1)


def test_two_threads_shut_down_at_once(tmp_path):
    """Both wait until all is sent and closed, whoever was first; it is closed once."""
    entered, release, ended = threading.Event(), threading.Event(), []

    def answer(_):
        entered.set()
        release.wait()
        return Delivered()

    one = Pipeline(tmp_path, answer)
    om.update_span(UNSEEN, metadata={"a": 1})

    def shut_down():
        one.pipeline.shutdown(60_000)
        ended.append((one.calls == ["shutdown"], one.stats.delivered))

    threads = [threading.Thread(target=shut_down) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert entered.wait(60)
    assert ended == []
    release.set()
    for thread in threads:
        thread.join()
    assert ended == [(True, 1), (True, 1)]


def test_nothing_is_put_into_the_spool_after_shutdown(tmp_path):
    """An update after shutdown is refused, a flush is true, a second shutdown does nothing."""
    one = Pipeline(tmp_path)
    om.shutdown()
    before = one.stats
    assert om.update_span(UNSEEN, metadata={"a": 1}).reason == "after_shutdown"
    assert om.flush()
    om.shutdown()
    assert (one.stats, one.calls, rows(one.spool)) == (before, ["shutdown"], [])


def test_the_next_pipeline_sends_what_the_one_before_could_not(tmp_path):
    """configure after shutdown, with the same spool, in the same process: what was handed over is adopted, once."""
    one = Pipeline(tmp_path, lambda patch: DOWN)
    assert om.update_span(UNSEEN, metadata={"a": 1})
    om.shutdown()
    assert (one.stats.handed_over, one.stats.lost) == (1, {})
    other = Pipeline(tmp_path)
    assert om.flush()
    assert (other.stats.adopted, other.stats.delivered) == (1, 1)
    assert [patch.metadata() for patch in other.patches.patches] == [{"a": 1}]
    om.shutdown()
    assert rows(other.spool) == []


# --- gevent -------------------------------------------------------------------------------------------------------


PATCH = "from gevent import monkey; monkey.patch_all()\n"


@pytest.mark.parametrize("patched", ["first", "after the import", "after configure"])
def test_greenlets_update_and_flush(program_with_spool, patched):
    """Whenever gevent has patched the standard library, greenlets update and flush, also in a forked child."""
    pytest.importorskip("gevent")
    begin, configure = SET_UP.split("om.configure", 1)
    set_up = {
        "first": PATCH + SET_UP,
        "after the import": f"{begin}om.configure\n{PATCH}om.configure{configure}",
        "after configure": SET_UP + PATCH,
    }[patched]
    ended = program_with_spool(
        """
        import gevent

        def work(name):
            ref = serve(name)
            gevent.sleep(0)
            assert om.flush()
            assert om.update_span(ref, metadata={"late": 1}).route == "late"

        def work_together(who):
            gevent.joinall([gevent.spawn(work, f"{who}{number}") for number in range(5)], raise_error=True)

        work_together("before")
        pid = os.fork()
        work_together("after" if pid else "child")
        if pid:
            assert os.waitpid(pid, 0)[1] == 0
        """,
        set_up=set_up,
        # gevent itself warns when it comes late.
        warnings="default",
    )
    assert ended.code == 0, ended.errors
    expected = {f"{who}{number}": {**BOTH, "late": 1} for who in ("before", "after", "child") for number in range(5)}
    assert (ended.stored, ended.left) == (expected, [])


def test_a_child_that_patches_after_the_fork_ends_without_a_word(program_with_spool):
    """gevent may patch after the fork, as in gunicorn's workers with `--preload`: all arrives, nothing is printed."""
    pytest.importorskip("gevent")
    ended = program_with_spool(
        """
        pid = os.fork()
        if pid:
            assert os.waitpid(pid, 0)[1] == 0
        else:
            from gevent import monkey
            monkey.patch_all()
            serve("child")
        """,
        # Python 3.12 and later warn of a fork beside threads, and gevent of modules that came before it.
        warnings="ignore",
    )
    assert (ended.code, ended.errors, ended.stored, ended.left) == (0, "", {"child": BOTH}, [])


def test_an_exporter_that_flushes_does_not_wait_for_itself_after_gevent_has_patched(program_with_spool):
    """The worker knows its own thread also after gevent has changed the numbers of threads."""
    pytest.importorskip("gevent")
    ended = program_with_spool(
        """
        from otel_metadata.exporters.memory import InMemoryPatchExporter
        from otel_metadata.testing import RecordingSpanExporter

        inner = []
        spans = RecordingSpanExporter()
        export = spans.export
        spans.export = lambda batch: inner.append(om.flush(60_000)) or export(batch)
        om.configure(om.Destination("memory", spans, InMemoryPatchExporter()))
        from gevent import monkey
        monkey.patch_all()
        serve("work")
        say(om.flush(30_000), inner)
        """,
        warnings="ignore",
    )
    assert (ended.code, ended.said) == (0, [[True, [False]]])
