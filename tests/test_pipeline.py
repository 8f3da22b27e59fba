"""`configure` and what it sets up: names and URLs, the provider, settings, errors, one pipeline a process.

What is once a process (the global tracer provider) is tested in programs of their own.
"""

from __future__ import annotations

import gzip
import http.server
import json
import os
import subprocess
import sys
import textwrap
import threading

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExportResult

import otel_metadata as om
from otel_metadata import pipeline
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.destination_factory import default_store, make_destinations
from otel_metadata.errors import ConfigurationError, MissingExtraError
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.live import live_settings
from otel_metadata.model.masking import Masking
from otel_metadata.settings import VARIABLES
from otel_metadata.testing import RecordingSpanExporter


@pytest.fixture
def here(monkeypatch, tmp_path):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def provider():
    """The application's tracer provider; not the global one."""
    provider = TracerProvider(shutdown_on_exit=False)
    yield provider
    provider.shutdown()


def memory(name="memory"):
    return om.Destination(name, RecordingSpanExporter(), InMemoryPatchExporter())


def in_program(program, folder, **variables):
    """Run a program of its own in *folder* and return what it printed, as JSON."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    run = subprocess.run(
        [sys.executable, "-c", "import json\nimport otel_metadata as om\n" + textwrap.dedent(program)],
        cwd=folder,
        env={**clean, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1]), run.stderr


# --- the provider ----------------------------------------------------------------------------------------------------


def test_it_makes_a_global_provider_where_there_is_none(tmp_path):
    """In a program without a tracer provider, configure makes one and plain OpenTelemetry uses it."""
    printed, errors = in_program(
        """
        from opentelemetry import trace
        tracer = trace.get_tracer("before")
        pipeline = om.configure("sqlite:///spans.db")
        with tracer.start_as_current_span("span"):
            route = om.update_current_span(metadata={"a": 1}).route
        om.flush()
        print(json.dumps([
            route,
            trace.get_tracer_provider() is pipeline.tracer_provider,
            [span.metadata for span in om.Client("sqlite:///spans.db").spans.list()],
        ]))
        """,
        tmp_path,
    )
    assert printed == ["live", True, [{"a": 1}]]
    assert errors == ""


def test_it_joins_the_global_provider_that_is_there(tmp_path):
    """In a program that has a tracer provider, configure adds to it, beside the exporters that it has."""
    printed, errors = in_program(
        """
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        own = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(own))
        trace.set_tracer_provider(provider)
        om.configure("sqlite:///spans.db")
        with trace.get_tracer("application").start_as_current_span("span"):
            om.update_current_span(metadata={"a": 1})
        om.flush()
        print(json.dumps([
            trace.get_tracer_provider() is provider,
            [dict(span.attributes) for span in own.get_finished_spans()],
            [span.metadata for span in om.Client("sqlite:///spans.db").spans.list()],
        ]))
        """,
        tmp_path,
    )
    assert printed == [True, [{"metadata.a": 1}], [{"a": 1}]]
    assert errors == ""


def test_it_leaves_the_global_provider_alone_when_it_is_given_one(tmp_path):
    """With tracer_provider= the global provider stays as it is, unless set_global asks for it."""
    printed, _ = in_program(
        """
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        first, second = TracerProvider(), TracerProvider()
        om.configure("console", tracer_provider=first)
        after_first = type(trace.get_tracer_provider()).__name__
        om.configure("console", tracer_provider=second, set_global=True)
        print(json.dumps([after_first, trace.get_tracer_provider() is second]))
        """,
        tmp_path,
    )
    assert printed == ["ProxyTracerProvider", True]


def test_a_second_global_provider_is_refused(tmp_path):
    """OpenTelemetry keeps its first global provider, so set_global beside one is an error, and nothing was changed."""
    printed, _ = in_program(
        """
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        trace.set_tracer_provider(TracerProvider())
        other = TracerProvider()
        try:
            om.configure("sqlite:///spans.db", tracer_provider=other, set_global=True)
        except ValueError as error:
            message = str(error)
        with other.get_tracer("t").start_as_current_span("span"):
            reason = om.update_current_span(metadata={"a": 1}).reason
        print(json.dumps([message, reason, om.stats().destinations]))
        """,
        tmp_path,
    )
    assert printed == [
        "configure(set_global=) is True; expected False: there is a global tracer provider, and OpenTelemetry does not "
        "let it be replaced; leave out tracer_provider= to join it.",
        "not_configured",
        {},
    ]
    assert list(tmp_path.iterdir()) == []


def test_the_global_provider_may_be_named_as_the_global_one(tmp_path):
    """set_global with the provider that is global already changes nothing, and OpenTelemetry does not warn."""
    printed, errors = in_program(
        """
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
        om.configure("console", set_global=True)
        om.configure("console", tracer_provider=provider, set_global=True)
        print(json.dumps(trace.get_tracer_provider() is provider))
        """,
        tmp_path,
    )
    assert printed is True
    assert errors == ""


def test_a_global_provider_that_is_not_the_sdks_is_refused(tmp_path):
    """Where another implementation of OpenTelemetry is in force, the error names it and says what to do."""
    printed, _ = in_program(
        """
        from opentelemetry import trace
        trace.set_tracer_provider(trace.NoOpTracerProvider())
        try:
            om.configure("console")
        except ValueError as error:
            print(json.dumps(str(error)))
        """,
        tmp_path,
    )
    assert printed == (
        "the global tracer provider is 'opentelemetry.trace.NoOpTracerProvider'; expected an "
        "opentelemetry.sdk.trace.TracerProvider, or a proxy of one that takes span processors (Logfire's is one). A "
        "provider of your own works beside this one: "
        "configure(..., tracer_provider=opentelemetry.sdk.trace.TracerProvider()); it gets the spans of observe() and "
        "start_span()."
    )


def test_a_program_whose_sdk_is_disabled_works(tmp_path):
    """With OTEL_SDK_DISABLED everything runs, updates are refused, and nothing is stored."""
    printed, errors = in_program(
        """
        om.configure("sqlite:///spans.db")
        @om.observe
        def answer():
            return om.update_current_span(metadata={"a": 1})
        receipt = answer()
        print(json.dumps([bool(receipt), receipt.reason, om.flush(), om.stats().is_balanced]))
        """,
        tmp_path,
        OTEL_SDK_DISABLED="true",
    )
    assert printed == [False, "no_current_span", True, True]
    assert "Traceback" not in errors


def test_what_waits_at_the_end_of_a_program_is_sent(tmp_path):
    """A program need not flush: what waits when it ends is sent."""
    in_program(
        """
        om.configure("sqlite:///spans.db")
        with om.start_span("span") as span:
            pass
        span.update(metadata={"a": 1})
        print(json.dumps(None))
        """,
        tmp_path,
    )
    with om.Client(f"sqlite:///{tmp_path}/spans.db") as client:
        assert [span.metadata for span in client.spans.list()] == [{"a": 1}]


# --- destinations by name --------------------------------------------------------------------------------------------


def test_without_arguments_it_is_the_embedded_store(here, provider):
    """configure() keeps spans in otel_metadata.db in the working directory, readable by its owner only."""
    om.configure(tracer_provider=provider)
    with om.start_span("span"):
        pass
    assert om.flush()
    assert (here / "otel_metadata.db").stat().st_mode & 0o777 == 0o600


def test_the_environment_names_destinations(here, provider, monkeypatch):
    """Without arguments the destinations are those of the environment, in its order."""
    monkeypatch.setenv("OTEL_PYTHON_METADATA_DESTINATIONS", " sqlite:///spans.db , console,")
    configured = om.configure(tracer_provider=provider)
    assert [destination.name for destination in configured.destinations] == ["sqlite", "console"]


def test_an_argument_wins_over_the_environment(here, provider, monkeypatch):
    """Destinations that are given in code replace those of the environment."""
    monkeypatch.setenv("OTEL_PYTHON_METADATA_DESTINATIONS", "console")
    configured = om.configure(memory(), tracer_provider=provider)
    assert [destination.name for destination in configured.destinations] == ["memory"]


def test_four_slashes_are_an_absolute_path(tmp_path, provider):
    """sqlite://// names a file by its absolute path."""
    om.configure(f"sqlite:///{tmp_path}/spans.db", tracer_provider=provider)
    with om.start_span("span"):
        pass
    assert om.flush()
    assert (tmp_path / "spans.db").exists()


@pytest.mark.parametrize("url", ["clickhouse://me:secret@127.0.0.1:9/otel", "clickhouses://127.0.0.1:9"])
def test_a_clickhouse_url_is_a_destination_that_compares_versions(provider, url):
    """It is connected when it is first used, so nobody needs to listen there; its name is `clickhouse`."""
    configured = om.configure(url, tracer_provider=provider)
    (destination,) = configured.destinations
    assert (destination.name, destination.patch_exporter.convergence) == ("clickhouse", "versioned")
    assert "secret" not in repr(configured)


def test_a_missing_client_of_clickhouse_names_the_extra(provider, monkeypatch):
    """The error of `configure` and of `Client` says what to install."""
    monkeypatch.setitem(sys.modules, "clickhouse_connect", None)
    for use in (lambda url: om.configure(url, tracer_provider=provider), om.Client):
        with pytest.raises(MissingExtraError, match=r"pip install 'otel-metadata\[clickhouse\]'"):
            use("clickhouse://127.0.0.1:9/otel")


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
        ("https://example.test/otlp/v1/traces", "https://example.test/otlp/v1/traces"),
    ],
)
def test_an_http_address_is_an_otlp_endpoint(provider, given, endpoint):
    """The path of OTLP is added to an address without one; an address with a path stays as it is."""
    (destination,) = om.configure(given, tracer_provider=provider).destinations
    assert (destination.name, destination.span_exporter.endpoint) == ("otlp", endpoint)


@pytest.mark.parametrize(
    ("protocol", "module"), [(None, ".otlp_http"), ("http/protobuf", ".otlp_http"), ("grpc", ".otlp_grpc")]
)
def test_otlp_is_what_opentelemetrys_variables_say(provider, monkeypatch, protocol, module):
    """`otlp` takes its protocol from OTEL_EXPORTER_OTLP_PROTOCOL."""
    if protocol is not None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    (destination,) = om.configure("otlp", tracer_provider=provider).destinations
    assert module in type(destination.span_exporter).__module__


def test_the_console_prints_spans_and_patches(tmp_path):
    """`console` prints ended spans as OpenTelemetry does, and each late patch as a line."""
    program = """
        import otel_metadata as om
        om.configure("console")
        with om.start_span("printed", metadata={"a": 1}) as span:
            pass
        om.flush()
        span.update(metadata={"late": None})
        om.flush()
        """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert '"metadata.a": 1' in run.stdout
    assert run.stdout.splitlines()[-1].endswith(" span.metadata.late=null")


def install_plugin(folder, monkeypatch, body):
    """Install a distribution that registers the destination `mine`."""
    (folder / "my_destination.py").write_text("import otel_metadata as om\n" + textwrap.dedent(body))
    info = folder / "my_destination-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-destination\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[otel_metadata_destination]\nmine = my_destination:make\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "my_destination", raising=False)


@pytest.mark.parametrize("given", ["mine", "mine://host/path"])
def test_a_package_can_add_a_destination(tmp_path, provider, monkeypatch, given):
    """An entry point is found by its name or as the scheme of a URL, and gets the text as it was given."""
    install_plugin(
        tmp_path,
        monkeypatch,
        """
        from otel_metadata.exporters.memory import InMemoryPatchExporter
        from otel_metadata.testing import RecordingSpanExporter
        def make(text):
            return om.Destination(f"made of {text}", RecordingSpanExporter(), InMemoryPatchExporter())
        """,
    )
    (destination,) = om.configure(given, tracer_provider=provider).destinations
    assert destination.name == f"made of {given}"


def test_a_package_that_makes_something_else_is_named(tmp_path, provider, monkeypatch):
    """An entry point that returns no Destination is an error that names it."""
    install_plugin(tmp_path, monkeypatch, "def make(text): return 42")
    with pytest.raises(
        ConfigurationError, match=r"entry point my_destination:make is of type int; expected a Destination"
    ):
        om.configure("mine", tracer_provider=provider)


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "variables", "message"),
    [
        (
            ["nowhere"],
            {},
            {},
            r"destination is 'nowhere'; expected a Destination, sqlite:///file.db, .* console, .*, splunk_ao\.",
        ),
        (["nowhere://user:secret@host"], {}, {}, r"destination is 'nowhere://\*\*\*@host'; expected"),
        (["http://user:secret@host"], {}, {}, r"endpoint is 'http://\*\*\*@host/v1/traces'; expected"),
        (["otlp"], {}, {"OTEL_EXPORTER_OTLP_TIMEOUT": "10s"}, r"OTEL_EXPORTER_OTLP_TIMEOUT is '10s'; expected"),
        ([42], {}, {}, r"configure\(destinations\) is of type int; expected a Destination, or a name or URL as text"),
        (["sqlite://spans.db"], {}, {}, r"store is 'sqlite://spans.db'; expected sqlite:///relative.db"),
        (["sqlite:///"], {}, {}, r"store is 'sqlite:///'; expected"),
        (["sqlite"], {}, {}, r"store is 'sqlite'; expected"),
        (
            ["console"],
            {"mask": "secret"},
            {},
            r"configure\(mask=\) is of type str; expected a function of \(path, value\)",
        ),
        (["console"], {"spool": "/tmp"}, {}, r"configure\(spool=\) is '/tmp'; expected a path of a file, not of a"),
        (
            ["console"],
            {"tracer_provider": 3},
            {},
            r"configure\(tracer_provider=\) is of type int; expected an opentelemetry",
        ),
        (
            ["otlp"],
            {},
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "json"},
            r"OTEL_EXPORTER_OTLP_PROTOCOL is 'json'; expected grpc",
        ),
        (["console"], {}, {"OTEL_BSP_MAX_QUEUE_SIZE": "0"}, r"OTEL_BSP_MAX_QUEUE_SIZE is '0'; expected a whole number"),
        (["console"], {}, {"OTEL_BSP_SCHEDULE_DELAY": "5s"}, r"OTEL_BSP_SCHEDULE_DELAY is '5s'; expected .* 5000"),
        (["console"], {}, {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "-1"}, r"OTEL_BSP_MAX_EXPORT_BATCH_SIZE is '-1'"),
        (["console"], {}, {"OTEL_BSP_EXPORT_TIMEOUT": "1.5"}, r"OTEL_BSP_EXPORT_TIMEOUT is '1.5'"),
        (
            ["console"],
            {},
            {"OTEL_PYTHON_METADATA_CAPTURE": "maybe"},
            r"OTEL_PYTHON_METADATA_CAPTURE is 'maybe'; .* false",
        ),
    ],
)
def test_what_cannot_be_used_is_named_and_changes_nothing(
    provider, monkeypatch, arguments, options, variables, message
):
    """An error names the setting, what it was and what was expected; the pipeline that was there goes on."""
    before = om.configure(memory(), tracer_provider=provider)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=message):
        om.configure(*arguments, **{"tracer_provider": provider, **options})
    with om.start_span("span"):
        assert om.update_current_span(metadata={"a": 1}).routes["memory"].route == "live"
    assert om.flush()
    assert pipeline._pipeline is before
    assert len(before.destinations[0].span_exporter.spans) == 1


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "remedy"),
    [
        ("OTEL_PYTHON_METADATA_DESTINATION", "did you mean OTEL_PYTHON_METADATA_DESTINATIONS?"),
        ("OTEL_PYTHON_METADATA_MASK_CREDENTIAL", "did you mean OTEL_PYTHON_METADATA_MASK_CREDENTIALS?"),
        ("OTEL_PYTHON_METADATA_XYZ", "expected one of OTEL_PYTHON_METADATA_DESTINATIONS, OTEL_PYTHON_METADATA_SPOOL,"),
    ],
)
def test_a_variable_that_is_misspelled_is_told(provider, monkeypatch, caplog, variable, remedy):
    """It changes nothing, and a log line names the one that may have been meant; never what it says."""
    monkeypatch.setenv(variable, "secret")
    om.configure(memory(), tracer_provider=provider)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "otel_metadata"]
    assert line.startswith(f"The environment variable {variable} has no effect; {remedy}")
    assert "secret" not in line


def test_the_outbox_is_what_opentelemetrys_variables_say(provider, monkeypatch):
    """OTEL_BSP_* bound the outbox; a batch is never larger than the queue."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "100")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "700")
    monkeypatch.setenv("OTEL_BSP_EXPORT_TIMEOUT", "900")
    (outbox,) = om.configure(memory(), tracer_provider=provider).processor.outboxes
    assert outbox.settings == OutboxSettings(
        max_queue_size=100, max_export_batch_size=100, schedule_delay_millis=700, export_timeout_millis=900
    )


def test_an_outbox_that_is_given_wins_over_the_environment(provider, monkeypatch):
    """Bounds that are given in code are used as they are."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "not a number")
    given = OutboxSettings(max_queue_size=5)
    (outbox,) = om.configure(memory(), tracer_provider=provider, outbox=given).processor.outboxes
    assert outbox.settings == given


@pytest.mark.parametrize(
    ("variable", "argument", "expected"),
    [(None, None, True), ("false", None, False), ("FALSE", True, True), ("true", False, False)],
)
def test_capture_is_decided_by_argument_then_environment(provider, monkeypatch, variable, argument, expected):
    """Input and output are captured unless the environment, or the argument before it, says otherwise."""
    if variable is not None:
        monkeypatch.setenv("OTEL_PYTHON_METADATA_CAPTURE", variable)
    exporter = om.configure(memory(), tracer_provider=provider, capture=argument).destinations[0].span_exporter

    @om.observe
    def answer(question):
        return question.upper()

    answer("hi")
    om.flush()
    assert ("input.value" in exporter.spans[0].attributes) is expected


def test_a_mask_sees_every_value_before_it_leaves(provider):
    """What a mask replaces is replaced on the live span, on the exported span and in patches."""
    mask = Masking(keys=["api_key"], patterns=[r"sk-\w+"])
    destination = memory()
    om.configure(destination, tracer_provider=provider, mask=mask)
    with om.start_span("span", input={"api_key": "s"}) as span:
        span.update(metadata={"api_key": "s", "note": "used sk-abc"}, output="sk-abc")
        live = dict(span.span.attributes)
    om.flush()
    span.update(metadata={"late": ["sk-abc"]}, tags=["sk-abc"])
    om.flush()
    (exported,) = destination.span_exporter.spans
    (patch,) = destination.patch_exporter.patches
    for attributes in (live, dict(exported.attributes)):
        assert attributes["metadata.api_key"] == "<masked>"
        assert attributes["metadata.note"] == "used <masked>"
        assert attributes["input.value"] == '{"api_key":"<masked>"}'
        assert attributes["output.value"] == "<masked>"
    assert patch.metadata() == {"late": ["<masked>"]}
    assert [tag for tag, _ in patch.of_kind("span", "tag")] == ["<masked>"]


def test_a_mask_that_raises_lets_nothing_through(provider):
    """A value that the mask could not judge is replaced, and the receipt says so."""
    destination = memory()
    om.configure(destination, tracer_provider=provider, mask=lambda path, value: 1 / 0)
    with om.start_span("span"):
        receipt = om.update_current_span(metadata={"a": "secret"})
    om.flush()
    failed = "<masked: the mask failed>"
    assert receipt.notes == (
        "key: the mask failed; a key was replaced",
        f"metadata.{failed}: the mask failed; the value was replaced",
    )
    (span,) = destination.span_exporter.spans
    assert (span.name, dict(span.attributes)) == (failed, {f"metadata.{failed}": failed})


def test_our_share_of_a_spans_attributes_follows_its_limit(provider, monkeypatch):
    """With a smaller attribute limit in the environment fewer attributes are ours, and nothing is lost."""
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "8")
    om.configure(memory(), tracer_provider=provider)
    assert live_settings.in_force.max_attributes == 2


# --- several destinations, several calls -----------------------------------------------------------------------------


def test_several_destinations_all_get_everything(here, provider):
    """Each destination gets every span and every update."""
    destination = memory()
    om.configure("sqlite:///spans.db", destination, tracer_provider=provider)
    with om.start_span("span", metadata={"a": 1}) as span:
        pass
    om.flush()
    receipt = span.update(metadata={"b": 2})
    om.flush()
    assert {name: routed.route for name, routed in receipt.routes.items()} == {"sqlite": "late", "memory": "late"}
    assert destination.span_exporter.spans[0].attributes["metadata.a"] == 1
    assert [patch.metadata() for patch in destination.patch_exporter.patches] == [{"b": 2}]
    with om.Client("sqlite:///spans.db") as client:
        assert client.spans.get(span.ref.span_id_hex).metadata == {"a": 1, "b": 2}


def test_two_destinations_of_one_kind_have_names_that_differ(here, provider):
    """The second store or endpoint that is given as text has a number in its name."""
    places = ("sqlite:///a.db", "sqlite:///b.db", "http://127.0.0.1:1", "http://127.0.0.1:2")
    made = make_destinations(*places)

    assert [one.name for one in made] == ["sqlite", "sqlite-2", "otlp", "otlp-2"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("sqlite:///a.db", "sqlite:///a.db"),
        ("sqlite:///a.db", " SQLITE:///./a.db "),
        ("sqlite:///a.db", "sqlite:///folder/../a.db"),
        ("sqlite:///a.db", "sqlite:///link.db"),
        ("sqlite:///a.db", "sqlite:///{here}/a.db"),
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/"),
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("http://127.0.0.1:4318", "HTTP://LOCALHOST:4318"),
        ("http://127.0.0.1:4318", "otlp"),
        ("http://backend", "http://backend:80"),
        ("console", "console"),
        ("langfuse", "langfuse"),
        ("langfuse", "http://127.0.0.1:1/api/public/otel/v1/traces"),
        ("clickhouse://host:8123/otel", "clickhouse://user:password@host/otel"),
    ],
)
def test_one_place_is_given_once(here, monkeypatch, one, other):
    """Each span would be sent there twice: refused, however the place is spelled, in code or in the variable."""
    (here / "folder").mkdir()
    (here / "link.db").symlink_to(here / "a.db")
    for name, value in {"PUBLIC_KEY": "pk", "SECRET_KEY": "sk", "BASE_URL": "http://127.0.0.1:1"}.items():
        monkeypatch.setenv(f"LANGFUSE_{name}", value)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    if "langfuse" in one and "http" in other:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic cGs6c2s=")
    if "clickhouse" in one:
        pytest.importorskip("clickhouse_connect")
    other = other.replace("{here}", str(here))

    with pytest.raises(
        ConfigurationError, match=r"^configure\(destinations\) is \[.*expected each place once"
    ) as caught:
        make_destinations(one, other)
    assert "password" not in str(caught.value)

    monkeypatch.setenv("OTEL_PYTHON_METADATA_DESTINATIONS", f"{one},{other}")
    with pytest.raises(ConfigurationError, match=r"^OTEL_PYTHON_METADATA_DESTINATIONS is "):
        om.configure()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("sqlite:///a.db", "sqlite:///b.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("http://127.0.0.1:4318", "http://127.0.0.1:4319"),
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/other/v1/traces"),
        ("http://127.0.0.1:4318?tenant=a", "http://127.0.0.1:4318?tenant=b"),
        ("console", "sqlite:///a.db"),
    ],
)
def test_two_places_are_two(here, one, other):
    """Another file, port, path or query is another place."""
    assert len(make_destinations(one, other)) == 2


def test_one_destination_is_given_once(provider):
    """The same object twice, or one beside the text of its place."""
    destination = memory()
    with pytest.raises(ConfigurationError, match="each place once"):
        om.configure(destination, destination, tracer_provider=provider)
    with pytest.raises(ConfigurationError, match="each place once"):
        om.configure("console", om.wrap_exporter(ConsoleSpanExporter(), name="mine"), tracer_provider=provider)


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:///a.db,console",
        "sqlite:///a.db, console",
        "console,sqlite:///a.db",
        "sqlite:///a.db;sqlite:///b.db",
        "http://127.0.0.1:4318,otlp",
        "console,langfuse",
        "sqlite:///a.db,http://user:secret@host",
    ],
)
def test_several_destinations_in_one_text_are_refused(here, text):
    """Only the environment variable is a list; the error shows the call. No file of that name is made."""
    for call in (om.configure, om.Client):
        with pytest.raises(ConfigurationError, match=r"expected one destination in each text: configure\('") as caught:
            call(text)
        assert "secret" not in str(caught.value)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("name", ["a,b.db", "a;b.db", "a, console.db", "spans,.db"])
def test_a_file_may_have_a_comma_in_its_name(here, name):
    """What follows the comma names no destination."""
    (made,) = make_destinations(f"sqlite:///{name}")

    assert made.patch_exporter.store.path == str(here / name)


def test_a_second_configure_takes_over(provider):
    """The first pipeline sends what it holds and is closed; what comes later goes to the second alone."""
    first, second = memory("first"), memory("second")
    om.configure(first, tracer_provider=provider)
    with om.start_span("before") as before:
        pass
    om.configure(second, tracer_provider=provider)
    assert first.patch_exporter.is_shut_down
    with om.start_span("after"):
        om.update_current_span(metadata={"a": 1})
    before.update(metadata={"b": 2})
    assert om.flush()
    assert [span.name for span in first.span_exporter.spans] == ["before"]
    assert [span.name for span in second.span_exporter.spans] == ["after"]
    assert [patch.target for patch in second.patch_exporter.patches] == [before.ref]
    assert list(om.stats().destinations) == ["second"]


def test_a_span_that_is_open_when_a_second_configure_takes_over_is_exported_by_it(provider):
    """A span that lives across the change leaves to the second pipeline, with what was set on it."""
    first, second = memory("first"), memory("second")
    earlier = om.configure(first, tracer_provider=provider)
    with om.start_span("open", metadata={"before": 1}):
        om.configure(second, tracer_provider=provider)
    om.flush()
    assert first.span_exporter.spans == []
    assert [dict(span.attributes) for span in second.span_exporter.spans] == [{"metadata.before": 1}]
    assert earlier.stats().is_balanced


def test_however_often_it_is_called_a_provider_has_one_processor(provider):
    """OpenTelemetry keeps what is added to a provider for good, so a second call takes the place of the first."""
    for at in range(5):
        om.configure(memory(f"m{at}"), tracer_provider=provider)
    with om.start_span("span"):
        pass
    provider.force_flush()

    assert len(provider._active_span_processor._span_processors) == 1
    (destination,) = pipeline._pipeline.destinations
    assert [span.name for span in destination.span_exporter.spans] == ["span"]
    provider.shutdown()
    assert destination.patch_exporter.is_shut_down


# --- processors added by hand ----------------------------------------------------------------------------------------


def added_by_hand(destination):
    """A provider with our processor on it, as an application sets it up without configure."""
    provider = TracerProvider(shutdown_on_exit=False)
    processor = om.MetadataSpanProcessor(destination)
    provider.add_span_processor(processor)
    return provider, processor


def test_flush_and_shutdown_are_about_processors_added_by_hand_too():
    """Without configure, flush sends what waits, stats show it, and shutdown closes the exporters."""
    destination = memory()
    provider, _ = added_by_hand(destination)
    with provider.get_tracer("t").start_as_current_span("span"):
        om.update_current_span(metadata={"a": 1})

    assert om.flush()
    assert [span.name for span in destination.span_exporter.spans] == ["span"]
    assert om.stats().destinations["memory"].delivered == 1
    om.shutdown()
    om.shutdown()
    assert destination.patch_exporter.is_shut_down
    assert om.update_span(om.SpanRef(1, 1), metadata={"a": 1}).reason == "after_shutdown"
    assert om.stats().destinations["memory"].delivered == 1


def test_several_processors_are_one_for_flush_shutdown_and_stats(provider):
    """A pipeline and a processor beside it: both are flushed; of two destinations of one name one has a number."""
    first, second = memory(), memory()
    om.configure(first, tracer_provider=provider)
    other, _ = added_by_hand(second)
    for one in (provider, other):
        with one.get_tracer("t").start_as_current_span("span"):
            om.update_current_span(metadata={"a": 1})
    om.update_span("no target", metadata={"a": 1})

    assert om.flush()
    assert [len(one.span_exporter.spans) for one in (first, second)] == [1, 1]
    assert {name: one.delivered for name, one in om.stats().destinations.items()} == {"memory": 1, "memory-2": 1}
    assert om.stats().refused == {"invalid_target": 1}
    om.shutdown()
    assert first.patch_exporter.is_shut_down
    assert second.patch_exporter.is_shut_down
    assert om.flush()
    assert {name: one.delivered for name, one in om.stats().destinations.items()} == {"memory": 1, "memory-2": 1}


def test_processors_are_flushed_side_by_side(provider):
    """Each exporter answers only once the other was called: one after the other they would wait for ever."""
    meeting = threading.Barrier(2)

    def answer():
        meeting.wait(60)
        return SpanExportResult.SUCCESS

    first, second = (om.Destination("d", RecordingSpanExporter(answer), InMemoryPatchExporter()) for _ in range(2))
    om.configure(first, tracer_provider=provider)
    other, _ = added_by_hand(second)
    for one in (provider, other):
        with one.get_tracer("t").start_as_current_span("span"):
            pass

    assert om.flush()


def test_a_flush_that_one_processor_cannot_end_is_false(provider):
    """What failed at one of several processors is not hidden by the others."""
    om.configure(memory(), tracer_provider=provider)
    broken = om.Destination("broken", RecordingSpanExporter(lambda: SpanExportResult.FAILURE), InMemoryPatchExporter())
    other, _ = added_by_hand(broken)
    with other.get_tracer("t").start_as_current_span("span"):
        pass

    assert not om.flush()


@pytest.mark.parametrize(("variable", "expected"), [(None, True), ("false", False), ("True", True)])
def test_without_configure_the_environment_decides_what_is_captured(monkeypatch, variable, expected):
    """A processor added by hand keeps what the environment says of input and output."""
    if variable is not None:
        monkeypatch.setenv("OTEL_PYTHON_METADATA_CAPTURE", variable)
    live_settings.use(live_settings.LiveSettings())

    assert live_settings.in_force.capture is expected


def test_without_configure_a_variable_that_cannot_be_read_captures_nothing(tmp_path):
    """The import does not fail; what may have been meant to stay private does, and a log line says why."""
    printed, errors = in_program(
        """
        from opentelemetry.sdk.trace import TracerProvider
        from otel_metadata.exporters.memory import InMemoryPatchExporter
        from otel_metadata.testing import RecordingSpanExporter
        destination = om.Destination("memory", RecordingSpanExporter(), InMemoryPatchExporter())
        provider = TracerProvider()
        provider.add_span_processor(om.MetadataSpanProcessor(destination))
        @om.observe(tracer=provider.get_tracer("t"))
        def answer(question):
            return question
        answer("secret")
        om.flush()
        (span,) = destination.span_exporter.spans
        print(json.dumps(dict(span.attributes)))
        """,
        tmp_path,
        OTEL_PYTHON_METADATA_CAPTURE="no",
    )
    assert printed == {}
    assert errors.strip() == (
        "OTEL_PYTHON_METADATA_CAPTURE is 'no'; expected true or false. Input and output are not captured."
    )


@pytest.mark.parametrize(
    ("variable", "limit", "share"),
    [("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "8", 2), ("OTEL_ATTRIBUTE_COUNT_LIMIT", "40", 10), (None, "", 32)],
)
def test_without_configure_our_share_of_a_spans_attributes_follows_its_limit(monkeypatch, variable, limit, share):
    """A processor added by hand takes no more of a small span than one of configure."""
    if variable is not None:
        monkeypatch.setenv(variable, limit)

    assert live_settings.LiveSettings().max_attributes == share


def test_a_pipeline_is_shut_down_by_its_with_block(provider):
    """Used as a context manager a pipeline sends what waits, and is closed, at the end of the block."""
    destination = memory()
    with om.configure(destination, tracer_provider=provider) as configured:
        with om.start_span("span"):
            pass
        assert configured.flush()
        assert configured.stats().is_balanced
        assert repr(configured).startswith("<Pipeline <MetadataSpanProcessor <Outbox memory queued=0")
    assert destination.patch_exporter.is_shut_down


# --- before and after ------------------------------------------------------------------------------------------------


def test_before_configure_everything_is_a_no(caplog):
    """Without a pipeline updates are refused, a flush is False, stats are empty, shutdown does nothing."""
    receipts = [om.update_span(om.SpanRef(1, 1), metadata={"a": 1}) for _ in range(5)]
    assert {(bool(receipt), receipt.reason) for receipt in receipts} == {(False, "not_configured")}
    assert om.flush() is False
    assert om.stats().destinations == {}
    om.shutdown()
    messages = [record.getMessage() for record in caplog.records if record.name == "otel_metadata"]
    assert messages == ["An update was dropped: otel_metadata is not configured; call otel_metadata.configure() first."]


@pytest.mark.parametrize("name", ["adopt", "capture", "mask_credentials", "set_global"])
@pytest.mark.parametrize("value", ["false", 0, 1])
def test_what_is_neither_true_nor_false_is_refused(provider, name, value):
    """The text "false" would be true. Nothing was changed."""
    om.configure(memory(), tracer_provider=provider)
    with pytest.raises(ConfigurationError, match=rf"configure\({name}=\)"):
        om.configure(memory(), tracer_provider=provider, **{name: value})
    with om.start_span("work"):
        assert om.update_current_span(metadata={"a": 1})
    assert om.flush()


def test_after_shutdown_everything_is_a_no(provider, caplog):
    """After shutdown updates are refused with their reason and one log line; a second shutdown does nothing."""
    om.configure(memory(), tracer_provider=provider)
    om.shutdown()
    om.shutdown()
    receipts = [om.update_span(om.SpanRef(1, 1), metadata={"a": 1}) for _ in range(5)]
    assert {(bool(receipt), receipt.reason) for receipt in receipts} == {(False, "after_shutdown")}
    assert om.flush()
    messages = [record.getMessage() for record in caplog.records if record.name == "otel_metadata"]
    assert messages == ["An update was dropped: it came after shutdown()."]


def test_every_variable_has_a_row_of_its_own():
    """No variable is described twice, and each row says something."""
    names = [row.name for row in VARIABLES]
    assert len(set(names)) == len(names)
    assert all(row.default and row.meaning.endswith(".") for row in VARIABLES)


# --- OTLP, end to end ------------------------------------------------------------------------------------------------


class Receiver(http.server.ThreadingHTTPServer):
    """An OTLP receiver on loopback that keeps the spans it was sent."""

    daemon_threads = True

    def __init__(self):
        self.spans = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        request = ExportTraceServiceRequest.FromString(body)
        for resource_spans in request.resource_spans:
            for scope_spans in resource_spans.scope_spans:
                self.server.spans += [(self.path, scope_spans.scope.name, span) for span in scope_spans.spans]
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def receiver():
    with Receiver() as receiver:
        thread = threading.Thread(target=receiver.serve_forever)
        thread.start()
        yield receiver
        receiver.shutdown()
        thread.join()


def attributes_of(span):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}


def test_otlp_carries_spans_and_late_patches(receiver, provider):
    """Over real HTTP a span arrives with what was set live and in flight, and a late update as a span beside it."""
    om.configure(receiver.url, tracer_provider=provider)
    with om.start_span("answer", metadata={"live": 1}) as span:
        pass
    span.update(metadata={"in_flight": None})
    assert om.flush()
    assert om.update_span(span.ref.to_traceparent(), metadata={"thumbs": "down"}).route == "late"
    assert om.flush()
    om.shutdown()
    (path, _, answer), (_, scope, update) = receiver.spans
    assert (path, answer.name) == ("/v1/traces", "answer")
    said = attributes_of(answer)
    assert (said["metadata.live"], said["metadata.in_flight"]) == (1, "null")
    assert (update.name, scope, update.parent_span_id) == (
        "otel_metadata.update",
        "otel_metadata.patch",
        answer.span_id,
    )
    assert update.trace_id == answer.trace_id
    assert attributes_of(update)["metadata.thumbs"] == "down"
    assert om.stats().destinations["otlp"].delivered == 2


@pytest.mark.parametrize(
    ("named", "url"),
    [
        (None, "sqlite:///otel_metadata.db"),
        (" , ", "sqlite:///otel_metadata.db"),
        ("otlp, sqlite:///a.db, sqlite:///b.db", "sqlite:///a.db"),
        ("console,clickhouse://host/db,sqlite:///a.db", "clickhouse://host/db"),
        ("clickhouses://host/db", "clickhouses://host/db"),
    ],
)
def test_the_default_store_is_where_configure_sends(monkeypatch, named, url):
    """Of the destinations of the environment the first one that is a store."""
    if named is not None:
        monkeypatch.setenv("OTEL_PYTHON_METADATA_DESTINATIONS", named)
    assert default_store() == url


def test_destinations_without_a_store_have_no_default_store(monkeypatch):
    """The error shows no password."""
    monkeypatch.setenv("OTEL_PYTHON_METADATA_DESTINATIONS", "console,http://user:secret@host")
    with pytest.raises(ConfigurationError, match=r"'console,http://\*\*\*@host'; expected a store among them"):
        default_store()


def test_a_wrong_outbox_leaves_the_pipeline_in_force_alone() -> None:
    """It is looked at before anything is shut down."""
    patches = InMemoryPatchExporter()
    om.configure(om.Destination("memory", None, patches, spans=False), tracer_provider=TracerProvider())
    with pytest.raises(ConfigurationError, match="an OutboxSettings"):
        om.configure(om.Destination("other", None, patches, spans=False), outbox="x")  # type: ignore[arg-type]
    assert om.update_span(om.SpanRef(1, 1), metadata={"a": 1})
