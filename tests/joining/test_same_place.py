"""An application that exports with OpenTelemetry's own SDK already: each span leaves once, with and without adopt."""

from __future__ import annotations

import logging
import os
import sys
import threading

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import (
    ConcurrentMultiSpanProcessor,
    SpanProcessor,
    SynchronousMultiSpanProcessor,
    TracerProvider,
)
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.joining.receiver import Receiver

import otel_metadata as om
from otel_metadata.exporters.otlp_http import OtlpHttpSender
from otel_metadata.joining import addresses

LONG = {"schedule_delay_millis": 60_000}


class Filtering(BatchSpanProcessor):
    """What many applications write: some spans are not exported."""

    def on_end(self, span):
        if span.name != "health":
            super().on_end(span)


class FilteringSimple(SimpleSpanProcessor):
    def on_end(self, span):
        if span.name != "health":
            super().on_end(span)


class Scrubbing(SpanProcessor):
    """Wraps a processor, and hands it another span."""

    def __init__(self, inner):
        self.inner = inner

    def on_start(self, span, parent_context=None):
        self.inner.on_start(span, parent_context)

    def on_end(self, span):
        from opentelemetry.sdk.trace import ReadableSpan

        changed = ReadableSpan(
            name=span.name,
            context=span.context,
            parent=span.parent,
            resource=span.resource,
            attributes={**span.attributes, "secret": "[scrubbed]"},
            events=span.events,
            links=span.links,
            kind=span.kind,
            instrumentation_scope=span.instrumentation_scope,
            status=span.status,
            start_time=span.start_time,
            end_time=span.end_time,
        )
        self.inner.on_end(changed)

    def shutdown(self):
        self.inner.shutdown()

    def force_flush(self, timeout_millis=30_000):
        return self.inner.force_flush(timeout_millis)


class Unknown(SpanProcessor):
    """A processor of the application's own, with its exporter in an attribute."""

    def __init__(self, exporter):
        self.sink = exporter

    def on_end(self, span):
        if span.name != "health":
            self.sink.export([span])

    def shutdown(self):
        self.sink.shutdown()

    def force_flush(self, timeout_millis=30_000):
        return True


class FilteringSeveral(SynchronousMultiSpanProcessor):
    """Passes some spans on to the processors in it."""

    def __init__(self, *processors):
        super().__init__()
        for processor in processors:
            self.add_span_processor(processor)

    def on_end(self, span):
        if span.name != "health":
            super().on_end(span)


@pytest.fixture
def receiver():
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def provider():
    provider = TracerProvider(shutdown_on_exit=False)
    yield provider
    provider.shutdown()


def http(receiver, **headers):
    return HttpExporter(endpoint=f"{receiver.url}/v1/traces", headers=headers or None)


KINDS = {
    "batch": lambda exporter: BatchSpanProcessor(exporter, **LONG),
    "simple": SimpleSpanProcessor,
    "filtering": lambda exporter: Filtering(exporter, **LONG),
    "filtering simple": FilteringSimple,
    "wrapped": lambda exporter: Scrubbing(Filtering(exporter, **LONG)),
    "unknown": Unknown,
    "several": lambda exporter: FilteringSeveral(BatchSpanProcessor(exporter, **LONG)),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture(params=[False, True], ids=["beside", "adopt"])
def adopt(request):
    return request.param


def work(provider):
    """Make spans of the application and of ours, one that a filter refuses among them, with values of each kind."""
    tracer = provider.get_tracer("application")
    with tracer.start_as_current_span("request") as span:
        om.update_current_span(metadata={"live": 1})
        with om.start_span("ours"):
            pass
    with tracer.start_as_current_span("health"):
        pass
    return span


# --- every span once -------------------------------------------------------------------------------------------------


def test_every_span_leaves_once(provider, receiver, kind, adopt):
    """What the filter refuses and what is ours as well: nothing is lost, nothing comes twice."""
    provider.add_span_processor(kind(http(receiver)))
    pipeline = om.configure(receiver.url, tracer_provider=provider, adopt=adopt)
    span = work(provider)
    assert om.update_span(span, metadata={"after": 2})
    assert provider.force_flush()
    assert om.flush()
    assert om.update_span(span, metadata={"late": 3})
    assert om.flush()
    assert receiver.names == ["health", "ours", "request"]
    assert receiver.attributes("request")["metadata.live"] == 1
    late = {name: value for patch in receiver.patches for name, value in patch.items()}
    assert late["metadata.late"] == 3
    if adopt:
        assert receiver.attributes("request")["metadata.after"] == 2
        assert "metadata.after" not in late
    else:
        assert late["metadata.after"] == 2
    assert pipeline.stats().destinations["otlp"].lost == {}


@pytest.mark.parametrize("first", ["provider", "ours"])
def test_every_span_leaves_at_a_shutdown_in_either_order(provider, receiver, kind, adopt, first):
    """The provider is shut down first, or our pipeline; and what comes between the two leaves as well."""
    provider.add_span_processor(kind(http(receiver)))
    om.configure(receiver.url, tracer_provider=provider, adopt=adopt)
    work(provider)
    if first == "ours":
        om.shutdown()
        with provider.get_tracer("application").start_as_current_span("after ours"):
            pass
        provider.shutdown()
        assert receiver.names == ["after ours", "health", "ours", "request"]
    else:
        provider.shutdown()
        om.shutdown()
        assert receiver.names == ["health", "ours", "request"]


def test_what_waits_in_the_batch_processor_leaves_once(provider, receiver, kind, adopt):
    """Spans that ended before configure are in the application's queue, and leave with our flush."""
    provider.add_span_processor(kind(http(receiver)))
    with provider.get_tracer("application").start_as_current_span("before"):
        pass
    om.configure(receiver.url, tracer_provider=provider, adopt=adopt)
    work(provider)
    assert om.flush()
    assert receiver.names == ["before", "health", "ours", "request"]


def test_a_span_that_is_live_at_configure_leaves_once(provider, receiver, kind, adopt):
    """It started before our processor was there."""
    provider.add_span_processor(kind(http(receiver)))
    with provider.get_tracer("application").start_as_current_span("under way"):
        om.configure(receiver.url, tracer_provider=provider, adopt=adopt)
    assert om.flush()
    assert receiver.names == ["under way"]


def test_configuring_again_takes_over(provider, receiver, kind, adopt):
    """Twice, three times, with and without adopt: each span leaves once."""
    provider.add_span_processor(kind(http(receiver)))
    for again in (adopt, True, adopt, False, adopt):
        om.configure(receiver.url, tracer_provider=provider, adopt=again)
        work(provider)
    assert om.flush()
    om.shutdown()
    provider.shutdown()
    assert receiver.names == sorted(["health", "ours", "request"] * 5)


def test_an_exporter_that_is_added_later_is_seen(provider, receiver, kind, adopt):
    """The order of the two set-ups makes no difference."""
    om.configure(receiver.url, tracer_provider=provider, adopt=adopt)
    provider.add_span_processor(kind(http(receiver)))
    span = work(provider)
    receipt = om.update_span(span, metadata={"after": 2})
    assert receipt.route == ("in_flight" if adopt else "late")
    assert provider.force_flush()
    assert om.flush()
    if adopt:
        assert receiver.attributes("request")["metadata.after"] == 2
    work(provider)
    assert provider.force_flush()
    assert om.flush()
    assert receiver.names == sorted(["health", "ours", "request"] * 2)


def test_many_threads_lose_nothing(provider, receiver, kind, adopt):
    """Spans that end on several threads while flushes go on leave once each."""
    provider.add_span_processor(kind(http(receiver)))
    om.configure(receiver.url, tracer_provider=provider, adopt=adopt)
    tracer = provider.get_tracer("application")

    def run():
        for number in range(100):
            with tracer.start_as_current_span("health" if number % 3 else "request"):
                pass
            if number % 25 == 0:
                om.flush()

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert om.flush()
    assert len(receiver.own) == 300
    assert set(receiver.counts.values()) == {1}


def test_processors_that_run_side_by_side(receiver, kind, adopt):
    """A provider that calls its processors in threads of its own."""
    provider = TracerProvider(active_span_processor=ConcurrentMultiSpanProcessor(), shutdown_on_exit=False)
    provider.add_span_processor(kind(http(receiver)))
    om.configure(receiver.url, tracer_provider=provider, adopt=adopt)
    work(provider)
    assert om.flush()
    provider.shutdown()
    assert receiver.names == ["health", "ours", "request"]


def test_another_destination_gets_everything(provider, receiver, kind, adopt, tmp_path):
    """A store beside the shared place is not affected."""
    provider.add_span_processor(kind(http(receiver)))
    store = f"sqlite:///{tmp_path}/spans.db"
    om.configure(store, receiver.url, tracer_provider=provider, adopt=adopt)
    span = work(provider)
    om.update_span(span, metadata={"after": 2})
    assert om.flush()
    assert receiver.names == ["health", "ours", "request"]
    found = {record.name: record.metadata for record in om.Client(store).spans.list()}
    assert found == {"request": {"live": 1, "after": 2}, "ours": {}, "health": {}}


# --- adopt -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["theirs first", "ours first"])
def test_the_span_leaves_as_the_processor_handed_it_over(provider, receiver, order):
    """A processor that takes secrets out of spans goes on doing so when its exporter was adopted."""
    if order == "theirs first":
        provider.add_span_processor(Scrubbing(BatchSpanProcessor(http(receiver), **LONG)))
    om.configure(receiver.url, tracer_provider=provider, adopt=True)
    if order == "ours first":
        provider.add_span_processor(Scrubbing(BatchSpanProcessor(http(receiver), **LONG)))
    with provider.get_tracer("application").start_as_current_span("request", attributes={"secret": "key"}) as span:
        pass
    om.update_span(span, metadata={"after": 1})
    assert om.flush()
    attributes = receiver.attributes("request")
    assert (attributes["secret"], attributes["metadata.after"]) == ("[scrubbed]", 1)


def test_so_it_does_when_the_outbox_has_taken_it_in_before(provider, receiver):
    """What waits there is exchanged for what is handed over."""

    class Asking(SpanProcessor):
        def on_end(self, span):
            om.stats()  # takes in what has ended

    om.configure(receiver.url, tracer_provider=provider, adopt=True)
    provider.add_span_processor(Asking())
    provider.add_span_processor(Scrubbing(BatchSpanProcessor(http(receiver), **LONG)))
    with provider.get_tracer("application").start_as_current_span("request", attributes={"secret": "key"}):
        pass
    assert om.flush()
    assert receiver.attributes("request")["secret"] == "[scrubbed]"


@pytest.mark.parametrize("make", [KINDS["batch"], KINDS["filtering"], KINDS["simple"]])
def test_the_exporter_of_the_application_exports(provider, receiver, make):
    """Its headers are on every request with spans; the late ones are the destination's own."""
    exporter = http(receiver, **{"x-custom": "theirs"})
    provider.add_span_processor(make(exporter))
    om.configure(om.wrap_exporter(exporter), tracer_provider=provider, adopt=True)
    span = work(provider)
    assert om.flush()
    om.update_span(span, metadata={"late": 1})
    assert om.flush()
    assert {headers["x-custom"] for *_, headers in receiver.spans} == {"theirs"}
    assert receiver.names == ["health", "ours", "request"]
    assert receiver.patches[0]["metadata.late"] == 1


def test_a_flush_of_their_processor_sends_what_we_hold(provider, receiver):
    """Who flushes the processor itself, as on AWS Lambda, still finds everything sent."""
    processor = BatchSpanProcessor(http(receiver), **LONG)
    provider.add_span_processor(processor)
    om.configure(receiver.url, tracer_provider=provider, adopt=True)
    work(provider)
    assert processor.force_flush()
    assert receiver.names == ["health", "ours", "request"]


@pytest.mark.parametrize("adopts_again", [False, True])
def test_a_flush_of_their_processor_asks_who_has_its_spans_now(provider, receiver, adopts_again):
    """After another `configure` the first pipeline is not asked any more; without adopting, none of ours is."""
    processor = BatchSpanProcessor(http(receiver), **LONG)
    own = processor.force_flush
    provider.add_span_processor(processor)
    om.configure(receiver.url, tracer_provider=provider, adopt=True)
    om.configure(receiver.url, tracer_provider=provider, adopt=adopts_again)
    assert (processor.force_flush == own) is not adopts_again
    work(provider)
    assert processor.force_flush()
    assert om.flush()
    assert receiver.names == ["health", "ours", "request"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process that forks")
def test_a_forked_child_sends_its_own_spans(provider, receiver, kind, adopt):
    """What waits at the fork is the parent's; each sends what it has made."""
    provider.add_span_processor(kind(http(receiver)))
    om.configure(receiver.url, tracer_provider=provider, adopt=adopt)
    tracer = provider.get_tracer("application")
    with tracer.start_as_current_span("parent"):
        pass
    child = os.fork()
    if child == 0:
        try:
            with tracer.start_as_current_span("child"):
                pass
            provider.force_flush()
            om.flush()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert om.flush()
    assert receiver.names == ["child", "parent"]


def test_an_adopted_exporter_is_what_it_was(provider, receiver):
    """Who asks the processor for its exporter finds it: its class, and its attributes."""
    processor = BatchSpanProcessor(http(receiver), **LONG)
    provider.add_span_processor(processor)
    om.configure(receiver.url, tracer_provider=provider, adopt=True)
    assert isinstance(processor.span_exporter, HttpExporter)
    assert processor.span_exporter._endpoint == f"{receiver.url}/v1/traces"


def test_their_processor_may_be_shut_down_alone(provider, receiver, kind):
    """What we hold of it leaves afterwards, by an exporter that is closed at the end."""
    processor = kind(http(receiver))
    provider.add_span_processor(processor)
    om.configure(receiver.url, tracer_provider=provider, adopt=True)
    work(provider)
    processor.shutdown()
    om.shutdown()
    assert receiver.names == ["health", "ours", "request"]


class Closing(InMemorySpanExporter):
    """Counts how often it was closed, and takes nothing afterwards."""

    closed = 0

    def shutdown(self):
        super().shutdown()
        self.closed += 1


@pytest.mark.parametrize("first", ["provider", "ours"])
def test_an_exporter_is_closed_once_and_last(provider, kind, adopt, first):
    """Not by us while the application still exports by it, nor by its processor while we do."""
    exporter = Closing()
    provider.add_span_processor(kind(exporter))
    om.configure(om.wrap_exporter(exporter), tracer_provider=provider, adopt=adopt)
    work(provider)
    for shutdown in (om.shutdown, provider.shutdown) if first == "ours" else (provider.shutdown, om.shutdown):
        shutdown()
    assert sorted(span.name for span in exporter.get_finished_spans()) == ["health", "ours", "request"]
    assert exporter.closed == 1


@pytest.mark.parametrize("which", ["store", "console", "memory"])
def test_a_destination_without_an_address_has_nothing_to_adopt(provider, caplog, tmp_path, which):
    """There is nothing to warn of."""
    given = {
        "store": f"sqlite:///{tmp_path}/spans.db",
        "console": "console",
        "memory": om.wrap_exporter(InMemorySpanExporter()),
    }
    om.configure(given[which], tracer_provider=provider, adopt=True)
    assert [record for record in caplog.records if record.name == "otel_metadata"] == []


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("kind", [BatchSpanProcessor, Filtering, FilteringSimple])
def test_of_two_destinations_of_one_address_the_first_sends_spans(provider, receiver, caplog, kind, adopt, order):
    """Each span leaves once, with what was said of it; the second sends what comes late."""
    if order == "before":
        provider.add_span_processor(kind(http(receiver)))
    other = receiver.url.replace("127.0.0.1", "localhost")
    destinations = [om.wrap_exporter(OtlpHttpSender(f"{url}/v1/traces"), name=url) for url in (receiver.url, other)]
    om.configure(*destinations, tracer_provider=provider, adopt=adopt)
    if order == "after":
        provider.add_span_processor(kind(http(receiver)))
    span = work(provider)
    assert provider.force_flush()
    assert om.flush()
    assert om.update_span(span, metadata={"late": 3})
    assert om.flush()
    assert receiver.names == ["health", "ours", "request"]
    late = [value for patch in receiver.patches for name, value in patch.items() if name == "metadata.late"]
    assert late == [3, 3]
    warned = [record for record in caplog.records if "shares it already" in record.getMessage()]
    assert [record.levelname for record in warned] == ["WARNING"]
    assert warned[0].getMessage().startswith(f"{other}: ")
    assert f"the destination {receiver.url} shares it already" in warned[0].getMessage()

    caplog.clear()
    om.configure(receiver.url, tracer_provider=provider, adopt=adopt)
    with provider.get_tracer("application").start_as_current_span("once"):
        pass
    assert provider.force_flush()
    assert om.flush()
    assert receiver.names.count("once") == 1
    assert "shares it already" not in caplog.text


def test_one_exporter_in_two_destinations_is_closed_once(provider, adopt):
    """The first sends by it, the second keeps nothing of it."""
    exporter = Closing()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    om.configure(
        om.wrap_exporter(exporter), om.wrap_exporter(exporter, name="again"), tracer_provider=provider, adopt=adopt
    )
    work(provider)
    provider.shutdown()
    om.shutdown()
    assert sorted(span.name for span in exporter.get_finished_spans()) == ["health", "ours", "request"]
    assert exporter.closed == 1


def test_nothing_to_adopt_is_said(provider, receiver, caplog):
    """The destination works all the same."""
    om.configure(receiver.url, tracer_provider=provider, adopt=True)
    assert "no exporter of the application sends there" in caplog.text
    work(provider)
    assert om.flush()
    assert receiver.names == ["health", "ours", "request"]


# --- what is the same place ------------------------------------------------------------------------------------------


def is_shared(provider):
    (outbox,) = om.configure.__globals__["_pipeline"].processor.outboxes
    return outbox.shared.is_shared


@pytest.mark.parametrize(
    ("theirs", "ours", "is_same"),
    [
        ({"authorization": "Bearer k"}, "authorization=Bearer%20k", True),
        ({"Authorization": "Bearer k"}, "authorization=Bearer k", True),
        ({"authorization": "Bearer k"}, "authorization=Bearer%20other", False),
        ({"authorization": "Bearer k"}, "", False),
        ({"x-tenant": "a"}, "x-tenant=b", False),
        ({"x-tenant": "a"}, "X-Tenant=a", True),
    ],
)
def test_credentials_belong_to_the_place(provider, receiver, monkeypatch, theirs, ours, is_same):
    """Two projects on one host are two places; the same key, spelled in the environment, is one."""
    exporter = http(receiver, **theirs)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", ours)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    provider.add_span_processor(BatchSpanProcessor(exporter, **LONG))
    om.configure("otlp", tracer_provider=provider)
    assert is_shared(provider) is is_same
    work(provider)
    assert om.flush()
    provider.force_flush()
    assert receiver.counts["request"] == (1 if is_same else 2)


@pytest.mark.parametrize("make", [KINDS["batch"], KINDS["filtering"]])
def test_a_processor_that_was_shut_down_exports_nothing(provider, receiver, make, adopt):
    """It is on the provider for good; the destination sends the spans."""
    processor = make(http(receiver))
    provider.add_span_processor(processor)
    processor.shutdown()
    om.configure(receiver.url, tracer_provider=provider, adopt=adopt)
    work(provider)
    assert om.flush()
    assert receiver.names == ["health", "ours", "request"]


def test_another_address_is_another_place(provider, receiver, caplog):
    """Each place gets every span, and nothing is said."""
    with Receiver() as other:
        provider.add_span_processor(BatchSpanProcessor(http(other), **LONG))
        om.configure(receiver.url, tracer_provider=provider, adopt=False)
        work(provider)
        provider.force_flush()
        assert om.flush()
        assert receiver.names == other.names == ["health", "ours", "request"]
    assert caplog.text == ""


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_one_host_has_two_names(provider, receiver, name):
    """`localhost` and `127.0.0.1` are one place."""
    provider.add_span_processor(BatchSpanProcessor(http(receiver), **LONG))
    om.configure(receiver.url.replace("127.0.0.1", name), tracer_provider=provider)
    assert is_shared(provider)


def test_grpc(provider, receiver, monkeypatch, adopt):
    """An exporter for gRPC, and `otlp` for gRPC."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{receiver.grpc_target}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    exporter = GrpcExporter(endpoint=f"http://{receiver.grpc_target}", insecure=True)
    provider.add_span_processor(BatchSpanProcessor(exporter, **LONG))
    om.configure("otlp", tracer_provider=provider, adopt=adopt)
    work(provider)
    provider.force_flush()
    assert om.flush()
    assert receiver.names == ["health", "ours", "request"]


def test_one_receiver_has_a_port_for_each_protocol(provider):
    """OTLP's two ports of one host are one place."""
    provider.add_span_processor(BatchSpanProcessor(GrpcExporter("http://127.0.0.1:4317", insecure=True), **LONG))
    om.configure("http://localhost:4318", tracer_provider=provider)
    assert is_shared(provider)


def test_the_console(provider, capsys, adopt):
    """`console` beside a ConsoleSpanExporter prints each span once."""
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=sys.stdout)))
    om.configure(om.wrap_exporter(ConsoleSpanExporter(out=sys.stdout)), tracer_provider=provider, adopt=adopt)
    span = work(provider)
    om.update_span(span, metadata={"after": 2})
    assert om.flush()
    printed = capsys.readouterr().out
    assert printed.count('"name": "request"') == printed.count('"name": "ours"') == 1
    assert "after" in printed


def test_a_processor_of_ours_that_was_added_by_hand(provider, receiver):
    """It is an exporter to the place as any other."""
    (made,) = om.configure.__globals__["make_destinations"](receiver.url)
    provider.add_span_processor(om.MetadataSpanProcessor(made))
    om.configure(receiver.url, tracer_provider=provider)
    work(provider)
    assert om.flush()
    assert receiver.names == ["health", "ours", "request"]


# --- what is said ----------------------------------------------------------------------------------------------------


def test_the_log_line_has_the_remedy(provider, receiver, caplog):
    """One line, at configure, without a key."""
    provider.add_span_processor(BatchSpanProcessor(http(receiver, authorization="Bearer sk-secret"), **LONG))
    destination = om.wrap_exporter(http(receiver, authorization="Bearer sk-secret"))
    om.configure(destination, tracer_provider=provider)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "otel_metadata"]
    assert line.startswith("otlp: the application exports to the same place (BatchSpanProcessor)")
    assert "adopt=True" in line
    assert "sk-secret" not in line


def test_an_adoption_is_no_warning(provider, receiver, caplog):
    """It is what was asked for."""
    provider.add_span_processor(BatchSpanProcessor(http(receiver), **LONG))
    om.configure(receiver.url, tracer_provider=provider, adopt=True)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_late_exporter_is_told_of(provider, receiver, caplog):
    """It was added after configure."""
    om.configure(receiver.url, tracer_provider=provider)
    provider.add_span_processor(BatchSpanProcessor(http(receiver), **LONG))
    work(provider)
    assert om.flush()
    assert "the application exports to the same place" in caplog.text


# --- objects that do not play along ----------------------------------------------------------------------------------


class Closed(SpanProcessor):
    """Does not let itself be changed."""

    def __init__(self, exporter):
        object.__setattr__(self, "exporter", exporter)

    def __setattr__(self, name, value):
        raise AttributeError(name)

    def on_end(self, span):
        self.exporter.export([span])

    def shutdown(self):
        self.exporter.shutdown()


def test_a_processor_that_cannot_be_changed_exports_on(provider, receiver, adopt):
    """Its exporter sends every span, and we none."""
    provider.add_span_processor(Closed(http(receiver)))
    om.configure(receiver.url, tracer_provider=provider, adopt=adopt)
    work(provider)
    assert om.flush()
    assert receiver.names == ["health", "ours", "request"]


class Strange(SpanExporter):
    """An exporter whose attributes cannot be read."""

    def __getattribute__(self, name):
        if name.startswith("_"):
            raise RuntimeError(name)
        return super().__getattribute__(name)

    def export(self, spans):
        return None

    def shutdown(self):
        pass


def test_few_objects_are_asked_for_an_address(receiver, monkeypatch):
    """An application waits for `configure`: a client that is not there is not looked into."""
    asked = []
    held_by = addresses.held_by
    monkeypatch.setattr(addresses, "held_by", lambda holder: asked.append(holder) or held_by(holder))
    assert addresses.address_of(http(receiver), Resource.create({})) is not None
    assert len(asked) < 10


def test_an_exporter_that_cannot_be_read_is_somewhere_else(provider, receiver):
    """Nothing is raised."""
    provider.add_span_processor(SimpleSpanProcessor(Strange()))
    om.configure(receiver.url, tracer_provider=provider)
    work(provider)
    assert om.flush()
    assert receiver.names == ["health", "ours", "request"]
