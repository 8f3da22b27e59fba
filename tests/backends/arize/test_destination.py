"""Arize as a destination: what the variables say, and what is missing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.trace import SpanContext, TraceFlags
from tests.backends.vendors.arize import Arize
from tests.backends.vendors.server import KEY

import otel_metadata as om
from otel_metadata.backends.arize import destination
from otel_metadata.backends.arize.patches import ArizePatchExporter
from otel_metadata.delivery.destination import Destination
from otel_metadata.dialects.openinference import OpenInferenceDialect
from otel_metadata.errors import ConfigurationError
from otel_metadata.model.outcome import Delivered

SPACE = "U3BhY2U6MTIz"
VARIABLES = (
    "API_KEY", "SPACE_ID", "PROJECT_NAME", "REGION", "COLLECTOR_ENDPOINT", "BASE_DOMAIN", "LOG_ENABLE",
)  # fmt: skip


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the key and the space are there, whatever the machine says."""
    for name in VARIABLES:
        monkeypatch.delenv(f"ARIZE_{name}", raising=False)
    monkeypatch.setenv("ARIZE_API_KEY", KEY)
    monkeypatch.setenv("ARIZE_SPACE_ID", SPACE)


@pytest.fixture(autouse=True)
def sdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of the SDK's name is installed; it fails when somebody imports it."""
    package = tmp_path / "arize"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemError('imported')\n")
    for name in [name for name in sys.modules if name.partition(".")[0] == "arize"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield package
    importlib.invalidate_caches()


def made(**given: object) -> Destination:
    """Make a destination, and end its thread."""
    one = destination(**given)  # type: ignore[arg-type]
    one.patch_exporter.shutdown()
    return one


def endpoint(one: Destination) -> str:
    return repr(one.span_exporter).partition("OtlpHttpSender ")[2].rstrip(">")


def test_the_environment_is_enough():
    """Key and space from the variables of the SDK; nothing is imported or sent for it."""
    with om.configure("arize", tracer_provider=TracerProvider(shutdown_on_exit=False)) as pipeline:
        (one,) = pipeline.destinations
    assert one.name == "arize"
    assert isinstance(one.patch_exporter, ArizePatchExporter)
    assert isinstance(one.dialect, OpenInferenceDialect)
    assert endpoint(one) == "https://otlp.arize.com/v1/traces"
    assert repr(one.patch_exporter) == "<ArizePatchExporter 'default'>"
    assert KEY not in repr(one)


@pytest.mark.parametrize("variable", ["ARIZE_API_KEY", "ARIZE_SPACE_ID"])
@pytest.mark.parametrize("given", [None, "", "  "])
def test_what_is_missing_is_named(monkeypatch, variable, given):
    """One error that names the variable."""
    if given is None:
        monkeypatch.delenv(variable)
    else:
        monkeypatch.setenv(variable, given)
    with pytest.raises(ConfigurationError, match=variable):
        om.configure("arize", tracer_provider=TracerProvider(shutdown_on_exit=False))


def test_a_missing_sdk_is_named_with_its_extra(monkeypatch, sdk):
    """Also where arize-otel is there alone, which leaves a namespace of that name."""
    (sdk / "__init__.py").unlink()
    importlib.invalidate_caches()
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"otel-metadata\[arize\]"):
            destination()
        monkeypatch.setitem(sys.modules, "arize", None)


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("ARIZE_REGION", "eu-west-1a", "https://otlp.eu-west-1a.arize.com/v1/traces"),
        ("ARIZE_BASE_DOMAIN", "arize.example.com", "https://otlp.arize.example.com/v1/traces"),
        ("ARIZE_COLLECTOR_ENDPOINT", "https://otlp.eu-west-1a.arize.com/v1", "https://otlp.eu-west-1a.arize.com/v1/traces"),
        ("ARIZE_COLLECTOR_ENDPOINT", "https://h.example.com/v1/traces", "https://h.example.com/v1/traces"),
        ("ARIZE_COLLECTOR_ENDPOINT", "https://h.example.com/", "https://h.example.com/v1/traces"),
        ("ARIZE_COLLECTOR_ENDPOINT", "https://h.example.com/otlp", "https://h.example.com/otlp"),
    ],
)  # fmt: skip
def test_spans_go_where_the_variables_say(monkeypatch, variable, value, expected):
    """Over HTTP to a path that Arize keeps spans from: what is documented for gRPC ends before it."""
    monkeypatch.setenv(variable, value)
    assert endpoint(made()) == expected


@pytest.mark.parametrize("given", [{"region": "mars"}, {"endpoint": "ftp://h"}, {"endpoint": "https://k:s@h"}])
def test_what_cannot_be_used_is_refused(given):
    """A region that Arize does not have, and an address that is none."""
    with pytest.raises(ConfigurationError):
        destination(**given)


@pytest.mark.parametrize(
    ("given", "variable", "resource", "expected"),
    [
        ("k", "v", "r", "k"),
        (None, "v", "r", "v"),
        (None, None, "r", "r"),
        (None, None, None, "default"),
    ],
)
def test_spans_and_patches_have_one_project(monkeypatch, given, variable, resource, expected):
    """Keyword, variable, resource, default; a span leaves as one of it whatever its own resource says."""
    if variable is not None:
        monkeypatch.setenv("ARIZE_PROJECT_NAME", variable)
    names = Resource({"openinference.project.name": resource} if resource is not None else {})
    with Arize() as arize:
        one = made(project=given, resource=names, endpoint=arize.url, client=lambda: arize.spans)
        context = SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
        span = ReadableSpan("answer", context, resource=names, start_time=1, end_time=2, attributes={"a": 1})
        assert one.span_exporter.send([span], timeout_millis=5_000) == Delivered()
        one.span_exporter.shutdown()
    assert repr(one.patch_exporter) == f"<ArizePatchExporter {expected!r}>"
    assert arize.spans.stored == {(SPACE, expected, f"{2:016x}"): {"(name)": "answer", "metadata": {}, "a": 1}}
