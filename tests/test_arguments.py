"""Wrong types, given to everything public that raises: each is refused by the name of the argument."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import otel_metadata as om
from otel_metadata import backends
from otel_metadata.arguments import checked
from otel_metadata.backends.langfuse.patches import LangfusePatchExporter
from otel_metadata.backends.langwatch.patches import LangWatchPatchExporter
from otel_metadata.backends.mlflow.patches import MlflowPatchExporter
from otel_metadata.backends.phoenix.patches import PhoenixPatchExporter
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.errors import ConfigurationError, OtelMetadataError
from otel_metadata.exporters.console import ConsolePatchExporter
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.exporters.otlp import OtlpPatchExporter
from otel_metadata.exporters.otlp_http import OtlpHttpEvents, OtlpHttpSender
from otel_metadata.exporters.store import StorePatchExporter, StoreSpanExporter
from otel_metadata.model.masking import Masking
from otel_metadata.spool.spool_settings import SpoolSettings
from otel_metadata.store.clickhouse.store import ClickHouseStore
from otel_metadata.store.sqlite.store import SqliteStore
from otel_metadata.testing import InMemoryPipeline, ManualClock, RecordingSpanExporter


class Something:
    """An object of no use."""


# Of each argument some are right, and none may raise anything but an error of ours.
ANY = [None, 5, -1, 1.5, True, "text", b"bytes", [1], {"a": 1}, Something(), Something, Something.__init__]

SPAN = "0" * 15 + "1"


def destination() -> om.Destination:
    return om.Destination("memory", InMemorySpanExporter(), InMemoryPatchExporter())


def rows() -> list[dict[str, object]]:
    return [{"context.span_id": SPAN, "patch_document": {}, "eval.Q.label": "x", "annotation.q.label": "x"}]


# What is called, with the arguments that it needs; the vendors' keys are in the environment.
CALLS: dict[str, tuple[Any, dict[str, Any]]] = {
    "wrap_exporter": (om.wrap_exporter, {"exporter": InMemorySpanExporter()}),
    "Destination": (
        om.Destination,
        {"name": "memory", "span_exporter": InMemorySpanExporter(), "patch_exporter": InMemoryPatchExporter()},
    ),
    "SpanRef": (om.SpanRef, {"trace_id": 1, "span_id": 2}),
    "SpanRef.from_text": (om.SpanRef.from_text, {}),
    "SpanRef.from_traceparent": (om.SpanRef.from_traceparent, {}),
    "SpanRef.from_span_context": (om.SpanRef.from_span_context, {}),
    "SpanRef.with_backend_id": (om.SpanRef(1, 2).with_backend_id, {"backend": "galileo", "identifier": "a"}),
    "SpanRef.with_backend_ids": (om.SpanRef(1, 2).with_backend_ids, {}),
    "OutboxSettings": (OutboxSettings, {}),
    "SpoolSettings": (SpoolSettings, {"path": "spool/spool.db"}),
    "Masking": (Masking, {}),
    "SqliteStore": (SqliteStore, {"path": "spans.db"}),
    "ClickHouseStore": (ClickHouseStore, {"url": "clickhouse://localhost:1/otel"}),
    "StoreSpanExporter": (StoreSpanExporter, {}),
    "StorePatchExporter": (StorePatchExporter, {"store": SqliteStore(":memory:")}),
    "ConsolePatchExporter": (ConsolePatchExporter, {}),
    "InMemoryPatchExporter": (InMemoryPatchExporter, {}),
    "OtlpPatchExporter": (OtlpPatchExporter, {"span_exporter": InMemorySpanExporter()}),
    "OtlpHttpSender": (OtlpHttpSender, {"endpoint": "http://127.0.0.1:1/v1/traces"}),
    "OtlpHttpEvents": (OtlpHttpEvents, {"endpoint": "http://127.0.0.1:1/v1/logs"}),
    "PhoenixPatchExporter": (PhoenixPatchExporter, {"url": "http://127.0.0.1:1"}),
    "MlflowPatchExporter": (MlflowPatchExporter, {"url": "http://127.0.0.1:1"}),
    "LangfusePatchExporter": (
        LangfusePatchExporter,
        {"url": "http://127.0.0.1:1", "public_key": "pk", "secret_key": "sk"},
    ),
    "LangWatchPatchExporter": (LangWatchPatchExporter, {"url": "http://127.0.0.1:1"}),
    "ManualClock": (ManualClock, {}),
    "RecordingSpanExporter": (RecordingSpanExporter, {}),
    **{
        f"backends.{name}.destination": (import_module(f"otel_metadata.backends.{name}").destination, {})
        for name in backends.NAMES
    },
}

KEYS = {
    "ARIZE_API_KEY": "k",
    "ARIZE_SPACE_ID": "s",
    "GALILEO_API_KEY": "k",
    "GALILEO_PROJECT": "p",
    "LANGFUSE_PUBLIC_KEY": "pk",
    "LANGFUSE_SECRET_KEY": "sk",
    "LANGWATCH_API_KEY": "sk-lw-k",
    "MLFLOW_TRACKING_URI": "http://127.0.0.1:1",
    "SPLUNK_AO_API_KEY": "k",
    "MLFLOW_EXPERIMENT_ID": "1",
    "SPLUNK_AO_PROJECT": "p",
    "SPLUNK_AO_CONSOLE_URL": "http://127.0.0.1:1",
}

METHODS: dict[str, dict[str, Any]] = {
    "get": {"span_id": SPAN},
    "list": {},
    "export_to_df": {},
    "export_to_parquet": {"path": "spans.parquet"},
    "export_to_jsonl": {"path": "spans.jsonl"},
    "export_to_csv": {"path": "spans.csv"},
    "import_file": {},
    "delete": {"span_ids": [SPAN]},
    "update": {"span_id": SPAN},
    "update_metadata": {"dataframe": rows()},
    "log_metadata": {"dataframe": rows()},
    "update_evaluations": {"dataframe": rows()},
    "update_annotations": {"dataframe": rows()},
    "annotate": {"annotations": []},
    "log": {"dataframe": rows()},
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


def arguments(call: Any) -> list[str]:
    return [
        name
        for name, one in inspect.signature(call).parameters.items()
        if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY) and name != "self"
    ]


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_type_is_an_error_of_ours(name: str) -> None:
    """Nothing raises Python's own TypeError or AttributeError, whatever one argument is."""
    call, needed = CALLS[name]
    refused = 0
    for argument in arguments(call):
        for value in ANY:
            try:
                call(**{**needed, argument: value})
            except OtelMetadataError as error:
                refused += 1
                assert "expected" in str(error), (argument, value)  # noqa: PT017 # most calls raise nothing
    assert refused or not arguments(call)


@pytest.mark.parametrize("method", METHODS)
def test_a_wrong_type_given_to_a_client_is_an_error_of_ours(method: str) -> None:
    """Every method, every argument."""
    with om.Client("sqlite:///spans.db", create=True) as client:
        call = getattr(client.spans, method)
        for argument in arguments(call):
            for value in ANY:
                if argument == "progress":
                    continue
                try:
                    call(**{**METHODS[method], argument: value})
                except OtelMetadataError:
                    pass


# What is called, and how its error begins: the argument, what was got, what was expected.
NAMED = [
    (
        lambda: om.Client(5),
        "Client(url_or_destination) is of type int; expected a Destination, or a text such as sqlite",
    ),
    (lambda: om.Client(None), "Client(url_or_destination) is None; expected a Destination"),
    (lambda: om.Client("sqlite:///spans.db", create=1), "Client(create=) is of type int; expected True or False"),
    (lambda: om.configure(5), "configure(destinations) is of type int; expected a Destination, or a name or URL"),
    (
        lambda: om.configure(["console"]),
        "configure(destinations) is of type list; expected a Destination, or a name or URL as text; of several, each",
    ),
    (lambda: om.configure("console", mask=5), "configure(mask=) is of type int; expected a function of (path, value)"),
    (lambda: om.configure("console", outbox={}), "configure(outbox=) is of type dict; expected an OutboxSettings"),
    (lambda: om.configure("console", spool=5), "configure(spool=) is of type int; expected a path as text"),
    (lambda: om.configure("console", proxy=5), "configure(proxy=) is of type int; expected True, False"),
    (
        lambda: om.configure("console", on_dead_letter=5),
        "configure(on_dead_letter=) is of type int; expected a function",
    ),
    (
        lambda: om.MetadataSpanProcessor("console"),
        "MetadataSpanProcessor(destinations) is of type str; expected a Destination, such as wrap_exporter(",
    ),
    (
        lambda: om.MetadataSpanProcessor(destination(), settings=5),
        "MetadataSpanProcessor(settings=) is of type int; expected an OutboxSettings or None",
    ),
    (
        lambda: om.MetadataSpanProcessor(destination(), spool="spool.db"),
        "MetadataSpanProcessor(spool=) is of type str; expected a Spool or None",
    ),
    (
        lambda: om.MetadataSpanProcessor(destination(), clock=5),
        "MetadataSpanProcessor(clock=) is of type int; expected an object with wall_ns and monotonic_ns or None",
    ),
    (lambda: InMemoryPipeline("console"), "InMemoryPipeline(destinations) is of type str; expected a Destination"),
    (
        lambda: om.wrap_exporter(InMemorySpanExporter(), hold_millis="5"),
        "wrap_exporter(hold_millis=) is of type str; expected a whole number of milliseconds",
    ),
    (lambda: om.wrap_exporter(5), "wrap_exporter(exporter=) is of type int; expected an OpenTelemetry SpanExporter"),
    (
        lambda: om.Destination("a", InMemorySpanExporter(), InMemoryPatchExporter(), hold_millis="5"),
        "Destination(hold_millis=) is of type str; expected a whole number of milliseconds",
    ),
    (
        lambda: om.Destination("a", InMemorySpanExporter(), InMemoryPatchExporter(), spans="no"),
        "Destination(spans=) is of type str; expected True or False",
    ),
    (lambda: OutboxSettings(max_patches="5"), "OutboxSettings(max_patches=) is of type str; expected a whole number"),
    (lambda: OutboxSettings(max_patches=-1), "OutboxSettings(max_patches=) is -1; expected 0 or more"),
    (lambda: OutboxSettings(max_queue_size=0), "OutboxSettings(max_queue_size=) is 0; expected 1 or more"),
    (
        lambda: SpoolSettings("spool.db", quota_bytes="1"),
        "SpoolSettings(quota_bytes=) is of type str; expected a whole number",
    ),
    (lambda: Masking(keys=5), "Masking(keys=) is of type int; expected a list"),
    (lambda: Masking(patterns=[5]), "Masking(patterns=) is [5]; expected a list of texts"),
    (lambda: SqliteStore(5), "SqliteStore(path=) is of type int; expected a text or a path"),
    (lambda: ClickHouseStore(5), "ClickHouseStore(url=) is of type int; expected a text"),
    (lambda: StoreSpanExporter("spans.db"), "StoreSpanExporter(store=) is of type str; expected a store"),
    (lambda: om.SpanRef("1", 2), "Got '1'; expected trace_id, an integer"),
    (lambda: om.SpanRef(1, 2.0), "Got 2.0; expected span_id, an integer"),
    (lambda: om.SpanRef.from_span_context("x"), "Got 'x'; expected context, an OpenTelemetry SpanContext"),
    (
        lambda: backends.langfuse.destination(hold_millis="5"),
        "backends.langfuse.destination(hold_millis=) is of type str; expected a whole number of milliseconds",
    ),
    (
        lambda: backends.phoenix.destination(headers={"a": 1}),
        "headers is {'***': '***'}; expected texts as names and values",
    ),
    (
        lambda: om.Client("sqlite:///spans.db", create=True).spans.export_to_csv(5),
        "path is of type int; expected a path as text or os.PathLike",
    ),
    (
        lambda: om.Client("sqlite:///spans.db", create=True).spans.update_metadata(5),
        "dataframe is of type int; expected a DataFrame",
    ),
]


@pytest.mark.parametrize(("call", "message"), NAMED, ids=[message.partition(";")[0] for _, message in NAMED])
def test_the_error_names_the_argument_what_was_got_and_what_was_expected(call: Any, message: str) -> None:
    """Whoever reads it knows what to change, and where."""
    with pytest.raises(OtelMetadataError) as caught:
        call()

    assert str(caught.value).startswith(message)


def test_a_method_that_is_asked_of_the_client_itself_is_named() -> None:
    """`client.get` is not there; the error says where it is."""
    with om.Client("sqlite:///spans.db", create=True) as client:
        with pytest.raises(AttributeError, match=r"'get': expected client\.spans\.get$"):
            client.get  # noqa: B018 # asking for it is the test
        with pytest.raises(AttributeError, match=r"'nothing'$"):
            client.nothing  # noqa: B018 # as above


def test_a_span_handle_names_a_stored_span() -> None:
    """A client takes what update_span takes: a handle, a captured span, an OpenTelemetry span."""
    om.configure("sqlite:///spans.db")
    with om.capture_spans() as captured, om.start_span("span", metadata={"a": 1}) as handle:
        pass
    om.flush()
    with om.Client("sqlite:///spans.db") as client:
        for one in (handle, captured.last, handle.span, handle.ref):
            assert client.spans.get(one).metadata == {"a": 1}
        assert client.spans.delete([handle]).deleted_span_ids == [handle.ref.span_id_hex]


class TestChecked:
    """What the decorator reads from annotations."""

    def test_what_is_annotated_otherwise_is_left_alone(self) -> None:
        """A name that the tables do not have is the function's own business."""

        @checked
        def function(one: Literal["a"], two: Something | int, three: list[int]) -> tuple[object, ...]:
            return one, two, three

        assert function(5, "x", three=None) == (5, "x", None)  # type: ignore[arg-type] # the test

    def test_a_wrong_number_of_arguments_is_pythons_to_refuse(self) -> None:
        """The signature and its errors are those of the function."""

        @checked
        def function(one: int) -> int:
            return one

        with pytest.raises(TypeError, match="unexpected keyword argument 'two'"):
            function(1, two=2)  # type: ignore[call-arg] # the test
        assert list(inspect.signature(function).parameters) == ["one"]

    @pytest.mark.parametrize("value", [True, 1.0, "1", None])
    def test_a_bool_is_no_whole_number(self, value: object) -> None:
        """Nor is a float or a text."""

        @checked
        def function(one: int) -> int:
            return one

        with pytest.raises(ConfigurationError, match=r"^function\(one=\) is .*; expected a whole number\.$"):
            function(value)  # type: ignore[arg-type] # the test
