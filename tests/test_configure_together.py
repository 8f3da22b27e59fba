"""`configure` from several threads, from a signal handler, and beside everything else: one pipeline stands."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

import otel_metadata as om
from otel_metadata import pipeline
from otel_metadata.errors import ConfigurationError
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.joining import providers
from otel_metadata.live import routing
from otel_metadata.live.registry import LOCK
from otel_metadata.testing import RecordingSpanExporter

THREADS = 4


@pytest.fixture
def provider():
    """The application's tracer provider; not the global one."""
    provider = TracerProvider(shutdown_on_exit=False)
    yield provider
    provider.shutdown()


def memory(name="memory"):
    return om.Destination(name, RecordingSpanExporter(), InMemoryPatchExporter())


def together(*calls):
    """Run each call on a thread of its own, all begun at once; return the results, raise what one raised."""
    start = threading.Barrier(len(calls))
    results = [None] * len(calls)
    errors = []

    def run(index):
        start.wait()
        try:
            results[index] = calls[index]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    return results


def one_span(destinations, provider):
    """Open one span, flush, and return which destinations got it, once for each time."""
    with provider.get_tracer("application").start_as_current_span("span") as span:
        pass
    assert om.flush()
    return [
        one.name
        for one in destinations
        for sent in one.span_exporter.spans
        if sent.context.span_id == span.get_span_context().span_id
    ]


class TestSeveralThreads:
    def test_all_have_looked_before_one_takes_over(self, provider, monkeypatch):
        """Four threads that find the same state: one pipeline stands, the others are shut down, a span leaves once."""
        looked = threading.Barrier(THREADS)
        open_spool = pipeline.open_spool

        def wait_for_the_others(given):
            looked.wait()  # the last look before the first change
            return open_spool(given)

        monkeypatch.setattr(pipeline, "open_spool", wait_for_the_others)
        destinations = [memory(f"d{n}") for n in range(THREADS)]

        made = together(*(lambda d=d: om.configure(d, tracer_provider=provider) for d in destinations))

        assert len(routing.routers()) == 1
        (stands,) = [one for one in made if one.processor is routing.routers()[0]]
        assert pipeline._pipeline is stands
        assert one_span(destinations, provider) == [stands.destinations[0].name]
        assert list(om.stats().destinations) == [stands.destinations[0].name]

    def test_the_second_waits_until_the_first_has_its_place(self, provider, monkeypatch):
        """A call that comes while another adds its processor takes over that one's place, and adds none."""
        adding, called = threading.Event(), threading.Event()
        add = providers._add
        added = []

        def slow(real, place):
            adding.set()
            assert called.wait(10)
            added.append(place)
            add(real, place)

        monkeypatch.setattr(providers, "_add", slow)
        first, second = memory("first"), memory("second")

        def after():
            assert adding.wait(10)
            called.set()
            return om.configure(second, tracer_provider=provider)

        together(lambda: om.configure(first, tracer_provider=provider), after)

        assert len(added) == 1
        assert one_span([first, second], provider) == ["second"]

    def test_an_adopted_exporter_has_one_owner(self, provider):
        """Threads that adopt the same exporter of the application: each span leaves by it once."""
        exporter = RecordingSpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        destinations = [om.Destination(f"d{n}", exporter, InMemoryPatchExporter()) for n in range(THREADS)]

        together(*(lambda d=d: om.configure(d, tracer_provider=provider, adopt=True) for d in destinations))
        with provider.get_tracer("application").start_as_current_span("span"):
            pass
        assert om.flush()

        assert [span.name for span in exporter.spans] == ["span"]

    def test_beside_flush_stats_and_a_processor_added_by_hand(self, provider):
        """Each call answers; the processor added by hand and the last pipeline get the span once each."""
        by_hand = memory("by hand")
        destinations = [memory(f"d{n}") for n in range(THREADS)]

        def add():
            provider.add_span_processor(om.MetadataSpanProcessor(by_hand))

        together(
            add,
            lambda: om.flush(),
            lambda: om.stats(),
            *(lambda d=d: om.configure(d, tracer_provider=provider) for d in destinations),
        )

        got = one_span([by_hand, *destinations], provider)
        assert (len(got), got[0]) == (2, "by hand")
        assert sorted(om.stats().destinations) == sorted(got)

    def test_shutdown_that_began_before_does_not_bring_back_what_it_closed(self, provider, monkeypatch):
        """`stats` shows the new pipeline alone, also where a shutdown ends after it was configured."""
        om.configure(memory("first"), tracer_provider=provider)
        shut_down = om.MetadataSpanProcessor.shutdown

        def configure_after(processor, timeout_millis=5_000):
            shut_down(processor, timeout_millis)
            monkeypatch.setattr(om.MetadataSpanProcessor, "shutdown", shut_down)
            om.configure(memory("second"), tracer_provider=provider)

        monkeypatch.setattr(om.MetadataSpanProcessor, "shutdown", configure_after)
        om.shutdown()

        assert list(om.stats().destinations) == ["second"]

    def test_a_call_that_must_not_wait_says_so(self, provider, monkeypatch):
        """Interrupted with a lock of ours, a handler cannot wait for the thread that may need it."""
        monkeypatch.setattr(pipeline._TURNS, "_lock", taken := threading.RLock())
        with LOCK:
            together(taken.acquire)  # by a thread that is in the middle of it
            with pytest.raises(ConfigurationError, match="another thread configures"):
                om.configure(memory(), tracer_provider=provider)

        assert routing.routers() == ()


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="signals of POSIX")
class TestASignalHandler:
    @pytest.fixture
    def interrupted(self, provider, monkeypatch):
        """Make a signal handler that configures interrupt `configure`, before and after a step of it."""
        inner = memory("inner")
        before = signal.getsignal(signal.SIGUSR1)

        def interrupt(owner, name, *, after):
            step = getattr(owner, name)

            def interrupted_step(*arguments, **options):
                monkeypatch.setattr(owner, name, step)
                if after:
                    step(*arguments, **options)
                os.kill(os.getpid(), signal.SIGUSR1)
                if not after:
                    step(*arguments, **options)

            monkeypatch.setattr(owner, name, interrupted_step)
            return inner

        signal.signal(signal.SIGUSR1, lambda *_: om.configure(inner, tracer_provider=provider))
        yield interrupt
        signal.signal(signal.SIGUSR1, before)

    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    @pytest.mark.parametrize("name", ["shut_down_before", "join_provider", "use", "_put_in_force", "share_places"])
    @pytest.mark.parametrize("had_one", [False, True], ids=["first", "second"])
    def test_that_configures_stands(self, provider, interrupted, name, after, had_one):
        """Wherever it comes, the later call stands, the interrupted one is shut down, and a span leaves once."""
        first, outer = memory("first"), memory("outer")
        if had_one:
            om.configure(first, tracer_provider=provider)
        owner = {"shut_down_before": pipeline._Turns, "use": pipeline.live_settings}.get(name, pipeline)
        inner = interrupted(owner, name, after=after)

        om.configure(outer, tracer_provider=provider)

        assert one_span([first, outer, inner], provider) == ["inner"]
        assert len(routing.routers()) == 1
        assert list(om.stats().destinations) == ["inner"]
        with om.start_span("ours"):
            assert om.update_current_span(metadata={"a": 1}).routes.keys() == {"inner"}


class TestAFailure:
    def test_leaves_no_pipeline_half_in_force(self, provider, monkeypatch):
        """A provider that refuses the processor: nothing of the call takes updates, and the next one works."""

        def refuse(*_):
            raise RuntimeError("full")

        with monkeypatch.context() as patch:
            patch.setattr(provider, "add_span_processor", refuse)
            with pytest.raises(RuntimeError, match="full"):
                om.configure(memory("refused"), tracer_provider=provider)
        assert routing.routers() == ()

        second = memory("second")
        om.configure(second, tracer_provider=provider)
        assert one_span([second], provider) == ["second"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks of POSIX")
def test_a_child_of_a_process_that_configures_on_another_thread_configures(provider, monkeypatch):
    """The lock that another thread held at the fork is not held in the child."""
    monkeypatch.setattr(pipeline._TURNS, "_lock", taken := threading.RLock())
    together(taken.acquire)

    pipeline._TURNS._renew()  # what the child calls
    destination = memory()
    om.configure(destination, tracer_provider=provider)

    assert one_span([destination], provider) == ["memory"]
