"""The client reads a store by itself: what it finds, and what it says when it cannot."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.store.contract import START_NS, ended_span, metadata, trace_hex

import otel_metadata as om
from otel_metadata.errors import (
    ConfigurationError,
    InvalidSpanRefError,
    OtelMetadataError,
    SpanNotFoundError,
    StoreError,
    StoreFormatError,
)
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.exporters.store import StorePatchExporter, StoreSpanExporter
from otel_metadata.store.sqlite import SqliteStore
from otel_metadata.testing import InMemoryPipeline

SPAN = f"{1:016x}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a store with two traces: the second one has a span with the same id, and starts later."""
    store = SqliteStore(tmp_path / "spans.db")
    store.write(
        [
            ended_span(1, trace_id=5, fields=metadata(trace="five")),
            ended_span(1, trace_id=6, fields=metadata(trace="six"), start_ns=START_NS + 2),
            ended_span(0xAB, trace_id=6, start_ns=START_NS + 1),
        ]
    )
    store.close()
    return tmp_path / "spans.db"


@pytest.fixture
def client(path: Path) -> Iterator[om.Client]:
    with om.Client(f"sqlite:///{path}") as client:
        yield client


class TestGet:
    def test_a_span_is_found_by_its_id(self, client: om.Client) -> None:
        """Of spans with the same id in several traces, the newest is meant unless the trace is named."""
        assert client.spans.get(SPAN).metadata == {"trace": "six"}
        assert client.spans.get(SPAN, trace_id=trace_hex(5)).metadata == {"trace": "five"}

    def test_ids_are_read_in_either_case(self, client: om.Client) -> None:
        """Backends show ids in capitals as well."""
        assert client.spans.get("00000000000000AB", trace_id=trace_hex(6).upper()).span_id == "00000000000000ab"

    def test_an_unknown_span_is_told(self, client: om.Client, path: Path) -> None:
        """The error is a LookupError with the id, names the store, and says what may be the reason."""
        with pytest.raises(SpanNotFoundError, match="call flush") as error:
            client.spans.get("f" * 16)

        assert isinstance(error.value, LookupError)
        assert isinstance(error.value, StoreError)
        assert error.value.span_id == "f" * 16
        assert str(path) in str(error.value)

    def test_a_span_of_another_trace_is_unknown(self, client: om.Client) -> None:
        """Both ids have to be those of one span."""
        with pytest.raises(SpanNotFoundError):
            client.spans.get("00000000000000ab", trace_id=trace_hex(5))

    @pytest.mark.parametrize(
        "span_id",
        ["", "1", "g" * 16, SPAN + "0", f"{SPAN}\n", f" {SPAN}", "\N{ARABIC-INDIC DIGIT ONE}" * 16, 1, None, b"0" * 16],
    )
    def test_what_is_no_span_id_is_refused(self, client: om.Client, span_id: object) -> None:
        """16 hex digits and nothing else; the error is a ValueError that says so."""
        with pytest.raises(InvalidSpanRefError, match="expected 16 hex digits") as error:
            client.spans.get(span_id)  # type: ignore[arg-type]

        assert isinstance(error.value, ValueError)
        assert error.value.got == span_id

    @pytest.mark.parametrize("call", ["get", "list"])
    @pytest.mark.parametrize("trace_id", ["", "5", SPAN, "z" * 32, 5])
    def test_what_is_no_trace_id_is_refused(self, client: om.Client, trace_id: object, call: str) -> None:
        """32 hex digits, for `get` and for `list`."""
        arguments = [SPAN] if call == "get" else []

        with pytest.raises(InvalidSpanRefError, match="expected 32 hex digits"):
            getattr(client.spans, call)(*arguments, trace_id=trace_id)


class TestList:
    def test_the_newest_comes_first(self, client: om.Client) -> None:
        """All spans, those of one trace, and at most as many as asked for."""
        assert [span.start_time.microsecond for span in client.spans.list()] == [123456] * 3
        assert [(span.trace_id[-1], span.span_id) for span in client.spans.list()] == [
            ("6", SPAN),
            ("6", f"{0xAB:016x}"),
            ("5", SPAN),
        ]
        assert [span.trace_id for span in client.spans.list(trace_id=trace_hex(5))] == [trace_hex(5)]
        assert len(client.spans.list(limit=2)) == 2

    @pytest.mark.parametrize("limit", [0, -1])
    def test_a_limit_below_one_is_refused(self, client: om.Client, limit: int) -> None:
        """A question for nothing is a mistake."""
        with pytest.raises(ConfigurationError, match="expected 1 or more") as error:
            client.spans.list(limit=limit)

        assert error.value.got == limit


class TestOpening:
    @pytest.mark.parametrize(
        "url",
        ["", "spans.db", "sqlite:", "sqlite://", "sqlite:///", "sqlite://spans.db", "otlp", "postgres://u:secret@h/db"],
    )
    def test_a_text_that_names_no_store_is_refused(self, url: str) -> None:
        """The error shows the two forms that are understood, and no password."""
        with pytest.raises(ConfigurationError, match=r"sqlite:///relative\.db or sqlite:////absolute\.db") as error:
            om.Client(url)

        assert "secret" not in str(error.value)

    def test_a_relative_path_is_relative(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Three slashes are a file in the working directory."""
        monkeypatch.chdir(path.parent)

        with om.Client("sqlite:///spans.db") as client:
            assert len(client.spans.list()) == 3

    def test_a_destination_that_keeps_its_spans_is_read(self, path: Path) -> None:
        """The store of a destination is used, and left open for it."""
        store = SqliteStore(path)
        destination = om.Destination("store", StoreSpanExporter(store), StorePatchExporter(store))

        with om.Client(destination) as client:
            assert len(client.spans.list()) == 3

        assert "open" in repr(store)
        store.close()

    def test_a_destination_without_a_store_is_refused(self) -> None:
        """What sends its spans away has none to read."""
        destination = om.Destination("away", None, InMemoryPatchExporter(), spans=False)

        with pytest.raises(ConfigurationError, match="'away'; expected a destination that keeps its spans in a store"):
            om.Client(destination)

    @pytest.mark.parametrize("form", [lambda ref: ref, lambda ref: ref.to_traceparent(), lambda ref: ref.span_id_hex])
    def test_a_span_is_found_by_whatever_names_it(self, metadata_pipeline: InMemoryPipeline, form: Any) -> None:
        """A span ref, a traceparent text and a span id all find the span."""
        store = metadata_pipeline.processor.outboxes[0].destination
        ref = om.observe(name="call")(om.current_span_ref)()
        metadata_pipeline.deliver()

        assert om.Client(store).spans.get(form(ref)).name == "call"

    def test_a_file_that_is_no_store_is_told_at_the_first_question(self, tmp_path: Path) -> None:
        """Making a client opens nothing."""
        client = om.Client(f"sqlite:///{tmp_path}")

        with pytest.raises(StoreFormatError):
            client.spans.list()
        client.close()

    def test_it_needs_no_pipeline(self, path: Path) -> None:
        """A process that only reads has nothing of tracing set up."""
        program = (
            "import sys, otel_metadata as om\n"
            f"print(om.Client('sqlite:///{path}').spans.get('{SPAN}').metadata)\n"
            "from opentelemetry import trace\n"
            "print(type(trace.get_tracer_provider()).__name__)\n"
        )

        out = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout

        assert out == "{'trace': 'six'}\nProxyTracerProvider\n"


def test_every_error_can_be_caught_as_ours() -> None:
    """One class is the root of them all."""
    for kind in (ConfigurationError, InvalidSpanRefError, SpanNotFoundError, StoreError, StoreFormatError):
        assert issubclass(kind, OtelMetadataError)
