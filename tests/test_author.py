"""Who set a value: the name of the process, of a client, of a forked child, and the errors of a wrong name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from contextlib import closing

import orjson
import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from tests.client.test_import import collector_line
from tests.delivery.processes import in_child
from tests.test_pipeline import in_program
from typer.testing import CliRunner

import otel_metadata as om
from otel_metadata import pipeline
from otel_metadata.cli.app import app
from otel_metadata.errors import ConfigurationError
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.exporters.otlp import OtlpPatchExporter
from otel_metadata.live import live_settings
from otel_metadata.model.authors import AUTHORS, MAX_AUTHORS
from otel_metadata.model.recent import RecentMap
from otel_metadata.seams import AuthorVersions, VersionSource
from otel_metadata.store.sqlite.store import SqliteStore
from otel_metadata.testing import ManualClock, RecordingSpanExporter

AUTHOR = "OTEL_PYTHON_METADATA_AUTHOR"
REMOTE = om.SpanRef(7, 1)


@pytest.fixture
def provider():
    """A tracer provider of the service `checkout`."""
    provider = TracerProvider(resource=Resource.create({"service.name": "checkout"}), shutdown_on_exit=False)
    yield provider
    provider.shutdown()


@pytest.fixture
def sent():
    """A destination that keeps its patches."""
    return om.Destination("memory", RecordingSpanExporter(), InMemoryPatchExporter())


def other():
    """Return a destination for patches alone."""
    return om.Destination("other", None, InMemoryPatchExporter(), spans=False)


def authors_of(destination):
    """Return the author of each patch that a destination was sent, in order."""
    return [AUTHORS.name_of(patch.version[1]) for patch in destination.patch_exporter.patches]


def updated():
    """Update the span of another process, and return the author's name."""
    return AUTHORS.name_of(om.update_span(REMOTE, metadata={"a": 1}).version[1])


# --- the process -----------------------------------------------------------------------------------------------------


def test_by_default_it_is_the_service_and_the_process(provider, sent):
    """A person reads at a glance which service it was, and which of its processes."""
    with om.configure(sent, tracer_provider=provider) as configured:
        assert om.update_span(REMOTE, metadata={"a": 1}).route == "late"
        configured.flush()
    assert authors_of(sent) == [f"checkout (pid {os.getpid()})"]


def test_an_argument_wins_over_the_environment_and_that_over_the_resource(provider, sent, monkeypatch):
    """As for every other argument of configure."""
    monkeypatch.setenv(AUTHOR, " nightly job ")
    om.configure(sent, tracer_provider=provider)
    assert updated() == "nightly job"
    om.configure(sent, tracer_provider=provider, author="judge")
    assert updated() == "judge"
    monkeypatch.setenv(AUTHOR, "  ")
    om.configure(sent, tracer_provider=provider)
    assert updated() == f"checkout (pid {os.getpid()})"


@pytest.mark.parametrize(
    ("service", "shown"),
    [("", "unknown_service"), ("two\nlines", "two\\nlines"), ("s" * 500, "s" * 186), (7, "7")],
)
def test_a_service_of_any_name_gives_a_name_that_can_be_shown(sent, service, shown):
    """The process is still to be read behind it."""
    provider = TracerProvider(resource=Resource({"service.name": service}), shutdown_on_exit=False)
    with om.configure(sent, tracer_provider=provider):
        assert updated() == f"{shown} (pid {os.getpid()})"


def test_control_characters_are_made_visible(provider, sent):
    """A name is shown on terminals."""
    with om.configure(sent, tracer_provider=provider, author="ada\x1b[2J"):
        assert updated() == "ada\\x1b[2J"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (7, r"configure\(author=\) is of type int; expected a name of 1 to 200 characters, such as nightly judge\."),
        ("", r"configure\(author=\) is ''; expected a name of 1 to 200 characters"),
        (" \n", r"configure\(author=\) is ' \\n'; expected a name of 1 to 200 characters"),
        ("x" * 201, r"configure\(author=\) is 'x{40}\.\.\. \(201 characters\)'; expected a name of 1 to 200"),
    ],
)
def test_a_wrong_name_is_one_error_and_nothing_is_changed(provider, sent, given, message):
    """The pipeline before goes on, under its name."""
    before = om.configure(sent, tracer_provider=provider, author="judge")
    with pytest.raises(ConfigurationError, match=message):
        om.configure(other(), tracer_provider=provider, author=given)
    assert pipeline._pipeline is before
    assert updated() == "judge"


def test_a_wrong_variable_is_named(provider, sent, monkeypatch):
    """For configure, for a processor that is added by hand, and for a client."""
    monkeypatch.setenv(AUTHOR, "x" * 201)
    for call in (
        lambda: om.configure(sent, tracer_provider=provider),
        lambda: om.MetadataSpanProcessor(sent),
        lambda: om.Client(sent),
    ):
        with pytest.raises(ConfigurationError, match=f"{AUTHOR} is 'x"):
            call()


def test_a_process_that_changes_its_name_keeps_the_names_of_what_it_set_before(provider, sent):
    """The earlier updates have another writer; and what became of them is still told."""
    processor = om.MetadataSpanProcessor(sent)
    provider.add_span_processor(processor)
    live_settings.VERSIONS.sign(lambda: "first")
    earlier = om.update_span(REMOTE, metadata={"a": 1})
    live_settings.VERSIONS.sign(lambda: "second")
    later = om.update_span(REMOTE, metadata={"b": 1})
    assert [AUTHORS.name_of(one.version[1]) for one in (earlier, later)] == ["first", "second"]
    processor.force_flush()
    assert [om.outcome(one).destinations["memory"].state for one in (earlier, later)] == ["delivered", "delivered"]
    other = om.update_span(om.SpanRef(7, 2), metadata={"a": 1})
    assert in_child(lambda: om.outcome(other).destinations["memory"].state) == "unknown"


def test_the_same_name_again_is_the_same_writer(provider, sent):
    """An application that configures anew is not another author."""
    om.configure(sent, tracer_provider=provider)
    before = live_settings.VERSIONS.writer
    om.configure(sent, tracer_provider=provider)
    assert live_settings.VERSIONS.writer == before


def test_a_processor_that_is_added_by_hand_names_the_service_of_its_first_span(provider, sent):
    """There the resource comes with the spans."""
    provider.add_span_processor(om.MetadataSpanProcessor(sent))
    with provider.get_tracer("t").start_as_current_span("s") as span:
        om.update_current_span(metadata={"live": 1})
    om.update_span(span, metadata={"late": 1})
    assert updated() == f"checkout (pid {os.getpid()})"
    assert "on_start" not in vars(provider._active_span_processor._span_processors[0])  # later spans pay nothing
    provider.force_flush()
    (exported,) = sent.span_exporter.spans
    assert exported.attributes["metadata.live"] == 1


def test_a_processor_that_is_added_by_hand_follows_the_environment(provider, sent, monkeypatch):
    """The variable is the default of the argument, also where there is no call with that argument."""
    monkeypatch.setenv(AUTHOR, "judge")
    provider.add_span_processor(om.MetadataSpanProcessor(sent))
    provider.get_tracer("t").start_span("s").end()
    assert updated() == "judge"


def test_spans_that_start_on_many_threads_at_once_are_all_taken(provider, sent):
    """Whichever names the process."""
    provider.add_span_processor(om.MetadataSpanProcessor(sent))
    barrier = threading.Barrier(4)

    def start():
        barrier.wait()
        provider.get_tracer("t").start_span("s").end()

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    provider.force_flush()
    assert len(sent.span_exporter.spans) == 4


@pytest.mark.parametrize("author", [None, "judge"])
def test_a_forked_child_is_a_writer_with_its_own_process(provider, sent, author):
    """The default names the child's process; a name that was given is that of both."""
    with om.configure(sent, tracer_provider=provider, author=author):
        parent, parents_name = live_settings.VERSIONS.writer, updated()
        writer, name, pid, still_known = in_child(
            lambda: [live_settings.VERSIONS.writer, updated(), os.getpid(), AUTHORS.name_of(parent)]
        )
    assert writer != parent
    assert name == (author or f"checkout (pid {pid})")
    assert still_known == parents_name  # of what the child inherited


def test_an_instrumented_program_has_an_author(tmp_path):
    """Without a line of code, the variables say it all."""
    printed, _ = in_program(
        """
        from otel_metadata.instrumentor import MetadataInstrumentor
        from otel_metadata.model.authors import AUTHORS
        MetadataInstrumentor().instrument()
        print(json.dumps([AUTHORS.own[1], __import__("os").getpid()]))
        """,
        tmp_path,
        OTEL_PYTHON_METADATA_DESTINATIONS="sqlite:///spans.db",
        OTEL_SERVICE_NAME="shop",
    )
    assert printed[0] == f"shop (pid {printed[1]})"


# --- clients ---------------------------------------------------------------------------------------------------------


def rate(client, label):
    """Update one span through a client."""
    row = {
        "context.span_id": REMOTE.span_id_hex,
        "context.trace_id": REMOTE.trace_id_hex,
        "attributes.metadata.label": label,
    }
    assert client.spans.update_metadata([row]).spans_updated == 1


def test_clients_with_names_of_their_own_are_told_apart(provider, sent):
    """From each other, and from the process; the later update is the later version, whoever made it."""
    om.configure(other(), tracer_provider=provider)
    for name in ("judge", "ada", "judge", None):
        with om.Client(sent, author=name) as client:
            rate(client, name)
    assert authors_of(sent) == ["judge", "ada", "judge", f"checkout (pid {os.getpid()})"]
    versions = [patch.version for patch in sent.patch_exporter.patches]
    assert versions == sorted(versions)
    assert len({writer for _, writer in versions}) == 4


def test_an_update_after_many_of_another_author_is_later_though_the_clock_stands():
    """A frame reserves one nanosecond a row: the next author begins behind it."""
    source = VersionSource(ManualClock(5))
    one, other = AuthorVersions(source, "one"), AuthorVersions(source, "other")
    drawn = [*one.several(1_000), *other.several(2), source.next(), *one.several(1)]
    assert drawn == sorted(drawn)
    assert [AUTHORS.name_of(writer) for _, writer in (drawn[0], drawn[1_000], drawn[-1])] == ["one", "other", "one"]


def test_a_client_without_a_name_is_the_process(tmp_path):
    """In a program without configure, the environment describes the resource; `configure` may come later."""
    printed, _ = in_program(
        """
        import os
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from otel_metadata.exporters.memory import InMemoryPatchExporter
        from otel_metadata.model.authors import AUTHORS
        patches = InMemoryPatchExporter()
        client = om.Client(om.Destination("memory", None, patches, spans=False))
        row = {"context.span_id": f"{1:016x}", "context.trace_id": f"{7:032x}", "attributes.metadata.a": 1}
        client.spans.update_metadata([row])
        provider = TracerProvider(resource=Resource({"service.name": "checkout"}), shutdown_on_exit=False)
        om.configure("sqlite:///spans.db", tracer_provider=provider)
        client.spans.update_metadata([row])
        print(json.dumps([os.getpid(), *(AUTHORS.name_of(one.version[1]) for one in patches.patches)]))
        """,
        tmp_path,
        OTEL_RESOURCE_ATTRIBUTES="service.name=nightly",
    )
    pid = printed[0]
    assert printed[1:] == [f"nightly (pid {pid})", f"checkout (pid {pid})"]


def test_names_that_are_in_use_are_not_pushed_out(provider, sent):
    """However many other names the process reads meanwhile."""
    with om.configure(other(), tracer_provider=provider):
        client = om.Client(sent, author="judge")
        for writer in range(1, 3 * MAX_AUTHORS):
            AUTHORS.add(writer, "somebody")
        rate(client, "a")
        assert authors_of(sent) == ["judge"]
        assert updated() == f"checkout (pid {os.getpid()})"


def test_the_client_of_a_forked_child_is_another_writer_with_the_same_name(sent):
    """So that parent and child never share a version."""

    def child():
        rate(client, "child")
        patch = sent.patch_exporter.patches[-1]
        return [patch.version[1], AUTHORS.name_of(patch.version[1])]

    with om.Client(sent, author="judge") as client:
        rate(client, "parent")
        writer, name = in_child(child)
        assert name == "judge"
        assert writer != sent.patch_exporter.patches[0].version[1]


@pytest.mark.parametrize("given", [7, "", "x" * 201])
def test_a_client_refuses_a_wrong_name(sent, given):
    """As configure does; nothing was opened."""
    with pytest.raises(ConfigurationError, match=r"Client\(author=\) is .*; expected a name of 1 to 200 characters"):
        om.Client(sent, author=given)


# --- in a store ------------------------------------------------------------------------------------------------------


def told_by(path, span):
    """Return the authors of the values of a span, by route and key, as the store tells them to another process."""
    context = span.get_span_context()
    AUTHORS._names, AUTHORS._of_process, AUTHORS.own = RecentMap(MAX_AUTHORS), RecentMap(MAX_AUTHORS), None
    with closing(SqliteStore(path)) as store:
        history = store.history(f"{context.trace_id:032x}", f"{context.span_id:016x}")
    return {(one.route, one.key): one.author for one in history}


def test_a_store_tells_who_set_each_value_and_who_changed_it(tmp_path, provider, monkeypatch):
    """Live, in flight and late, by the application, by a program and in a shell."""
    path = tmp_path / "spans.db"
    with om.configure(f"sqlite:///{path}", tracer_provider=provider) as configured:
        with provider.get_tracer("t").start_as_current_span("s") as span:
            om.update_current_span(metadata={"live": 1})
        om.update_span(span, metadata={"thumbs": "up"})
        configured.flush()
        om.update_span(span, metadata={"late": 1})
    traced = span.get_span_context()
    with om.Client(f"sqlite:///{path}", author="nightly judge") as client:
        assert client.spans.update(f"{traced.span_id:016x}", metadata={"thumbs": "down"}).spans_updated == 1
    monkeypatch.setenv("LOGNAME", "ada")
    arguments = ["patch", f"{traced.span_id:016x}", "-m", "shell=1", "--store", f"sqlite:///{path}"]
    assert CliRunner().invoke(app, arguments).exit_code == 0

    application = f"checkout (pid {os.getpid()})"
    assert told_by(path, span) == {
        ("live", "live"): application,
        ("in_flight", "thumbs"): application,
        ("late", "late"): application,
        ("late", "thumbs"): "nightly judge",
        ("late", "shell"): "cli:ada",
    }


def test_a_store_is_told_the_authors_that_travelled_through_otlp(tmp_path, provider):
    """What an import reads, it stores: the values on the span, and those of a patch."""
    spans, patches = RecordingSpanExporter(), RecordingSpanExporter()
    destination = om.Destination("otlp", spans, OtlpPatchExporter(patches))
    with om.configure(destination, tracer_provider=provider, author="travels") as configured:
        with provider.get_tracer("t").start_as_current_span("s") as span:
            om.update_current_span(metadata={"live": 1})
        om.update_span(span, metadata={"flew": 1})
        configured.flush()
        om.update_span(span, metadata={"late": 1})
    line = tmp_path / "traces.jsonl"
    line.write_bytes(orjson.dumps(collector_line(*spans.spans, *patches.spans)))
    AUTHORS._names, AUTHORS._of_process, AUTHORS.own = RecentMap(MAX_AUTHORS), RecentMap(MAX_AUTHORS), None
    with om.Client(f"sqlite:///{tmp_path}/spans.db", create=True, author="imports") as client:
        assert client.spans.import_file(line).updates_imported == 1

    assert told_by(tmp_path / "spans.db", span) == {
        ("import", "live"): None,  # a plain attribute: it may be anybody's
        ("import", "flew"): "travels",
        ("import", "late"): "travels",
    }


def test_a_store_is_told_the_author_whose_updates_another_process_sent(tmp_path, provider):
    """The process that made them was killed; the one that sends them is not their author."""
    store, spool = tmp_path / "spans.db", str(tmp_path / "spool" / "spool.db")
    with om.configure(f"sqlite:///{store}", tracer_provider=provider):
        span = provider.get_tracer("t").start_span("s")
        span.end()
    killed = """
        import os, signal, sys
        from otel_metadata.exporters.memory import InMemoryPatchExporter
        from otel_metadata.model.outcome import DeliveryError, Pause
        down = InMemoryPatchExporter(lambda patch: Pause(DeliveryError("unauthorized", "down")))
        om.configure(om.Destination("sqlite", None, down, spans=False), spool=os.environ["SPOOL"], author="killed")
        print(json.dumps(bool(om.update_span(os.environ["SPAN"], metadata={"late": 1}))), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    context = span.get_span_context()
    traceparent = om.SpanRef(context.trace_id, context.span_id).to_traceparent()
    program = f"import json\nimport otel_metadata as om\n{textwrap.dedent(killed)}"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "SPOOL": spool, "SPAN": traceparent},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "true\n"), done.stderr
    with om.configure(f"sqlite:///{store}", tracer_provider=provider, spool=spool, author="sends") as configured:
        assert configured.flush()

    assert told_by(store, span) == {("late", "late"): "killed"}
