"""What every patch exporter promises, over all of them; and what is particular to each but OTLP's."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanContext

from otel_metadata.errors import StoreError
from otel_metadata.exporters.console import ConsolePatchExporter
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.exporters.otlp import OtlpPatchExporter
from otel_metadata.exporters.store import StorePatchExporter, StoreSpanExporter
from otel_metadata.model.outcome import Delivered, DeliveryError, Pause, Rejected, Retry
from otel_metadata.model.patch import Patch
from otel_metadata.model.record import SpanQuery, SpanRecord
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.seams import PatchExporter
from otel_metadata.store.sqlite.store import SqliteStore
from otel_metadata.testing import RecordingSpanExporter


def patch(span_id: int = 1, **metadata: object) -> Patch:
    """Return a patch of metadata for one span."""
    return Patch(
        SpanRef(5, span_id),
        {("span", "metadata", key): (value, (at + 1, 7)) for at, (key, value) in enumerate(metadata.items())},  # type: ignore[misc]
    )


MAKERS: dict[str, Callable[[Path], PatchExporter]] = {
    "memory": lambda _: InMemoryPatchExporter(),
    "console": lambda _: ConsolePatchExporter(io.StringIO()),
    "store": lambda folder: StorePatchExporter(SqliteStore(folder / "spans.db")),
    "otlp": lambda _: OtlpPatchExporter(RecordingSpanExporter(), resource=Resource({})),
}


@pytest.fixture(params=sorted(MAKERS))
def exporter(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PatchExporter]:
    exporter = MAKERS[request.param](tmp_path)
    yield exporter
    exporter.shutdown()


class TestContract:
    def test_it_has_what_an_outbox_reads(self, exporter: PatchExporter) -> None:
        """Every attribute of the seam is there, of its type and in its range."""
        assert isinstance(exporter, PatchExporter)
        assert isinstance(exporter.name, str)
        assert exporter.name
        assert exporter.max_batch >= 1
        assert exporter.grace_millis >= 0
        assert isinstance(exporter.reports_missing, bool)
        assert exporter.convergence in {"versioned", "ordered", "add_only", "none"}

    @pytest.mark.parametrize("count", [0, 1, 3])
    def test_each_patch_has_one_outcome(self, exporter: PatchExporter, count: int) -> None:
        """As many outcomes as patches, and all of them delivered."""
        outcomes = exporter.export([patch(at + 1, k=at) for at in range(count)], timeout_millis=1_000)

        assert [type(outcome) for outcome in outcomes] == [Delivered] * count

    def test_a_patch_may_come_again(self, exporter: PatchExporter) -> None:
        """The same patch twice is delivered twice, as after an answer that was lost."""
        one = patch(k=1)

        assert [
            type(exporter.export([one], timeout_millis=1_000)[0]),
            type(exporter.export([one], timeout_millis=1_000)[0]),
        ] == [Delivered, Delivered]

    def test_any_value_can_be_sent(self, exporter: PatchExporter) -> None:
        """Null, nested values, texts of any script and keys of any form are no error."""
        odd = patch(**{"": None, "a.b": {"c": [1, None]}, "名\n": "\U0001f600", "k\x1b[0m": [1, "a"]})

        assert [type(outcome) for outcome in exporter.export([odd], timeout_millis=1_000)] == [Delivered]

    def test_nothing_is_left_inside(self, exporter: PatchExporter) -> None:
        """What was exported has been handed over."""
        exporter.export([patch(k=1)], timeout_millis=1_000)

        assert exporter.force_flush(0) is True
        assert exporter.force_flush() is True

    def test_a_second_shutdown_is_no_error(self, exporter: PatchExporter) -> None:
        """Shutting down twice, with or without a deadline, is as good as once."""
        exporter.shutdown(0)
        exporter.shutdown()


class TestMemory:
    def test_outcomes_are_those_it_was_told_in_order(self) -> None:
        """Each patch gets its own answer, and only what was delivered is kept."""
        error = DeliveryError("connection_failure", "no")
        answers = {1: Delivered(("note",)), 2: Retry(error, 50), 3: Pause(error), 4: Rejected(error)}
        exporter = InMemoryPatchExporter(lambda one: answers[one.target.span_id])
        patches = [patch(at, k=1) for at in (4, 1, 3, 2)]

        assert exporter.export(patches, timeout_millis=0) == [answers[at] for at in (4, 1, 3, 2)]
        assert exporter.patches == [patches[1]]
        assert exporter.calls == [tuple(patches)]

    def test_it_remembers_that_it_was_shut_down(self) -> None:
        """A test can see whether the outbox gave it back."""
        exporter = InMemoryPatchExporter()
        assert not exporter.is_shut_down

        exporter.shutdown()

        assert exporter.is_shut_down


class TestConsole:
    def test_a_patch_is_one_line(self) -> None:
        """The target, then each field with its value as JSON, in the order of their names."""
        out = io.StringIO()
        fields = {
            ("span", "metadata", "b"): ({"x": None}, (1, 1)),
            ("span", "metadata", "a\nb"): ("é", (2, 1)),
            ("span", "output", ""): ("line\nend", (3, 1)),
        }

        ConsolePatchExporter(out).export([Patch(SpanRef(5, 1), fields)], timeout_millis=0)  # type: ignore[arg-type]

        assert out.getvalue() == (
            f"patch 00-{5:032x}-{1:016x}-01 "
            r'span.metadata.a\nb="\xe9" span.metadata.b={"x":null} span.output="line\nend"'
            "\n"
        )

    def test_it_prints_to_the_standard_output_of_the_time(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Standard output is looked up when a patch is printed, not before."""
        ConsolePatchExporter().export([patch(k=1)], timeout_millis=0)

        assert capsys.readouterr().out == f"patch 00-{5:032x}-{1:016x}-01 span.metadata.k=1\n"

    def test_a_closed_console_rejects(self) -> None:
        """A stream that is gone will not come back, and is no exception."""
        out = io.StringIO()
        out.close()

        (outcome,) = ConsolePatchExporter(out).export([patch(k=1)], timeout_millis=0)

        assert outcome == Rejected(DeliveryError("backend_rejection", "the console is closed (ValueError)"))


class BrokenStore:
    """A store that cannot be written."""

    def write(self, spans: object) -> None:
        raise StoreError("disk full")

    def patch(self, patches: object, *, timeout_millis: int | None = None) -> None:
        raise StoreError("disk full")

    def query(self, query: SpanQuery) -> list[SpanRecord]:
        raise StoreError("disk full")

    def close(self) -> None:
        pass


class TestStore:
    def test_patches_and_spans_meet_in_the_store(self, tmp_path: Path) -> None:
        """A patch that came before its span is on its record."""
        store = SqliteStore(tmp_path / "spans.db")
        span = ReadableSpan("work", SpanContext(5, 1, is_remote=False), start_time=1, end_time=2, resource=Resource({}))

        outcomes = StorePatchExporter(store).export([patch(k=None)], timeout_millis=0)
        result = StoreSpanExporter(store).export([span])

        assert (outcomes, result) == ([Delivered()], SpanExportResult.SUCCESS)
        assert [record.metadata for record in store.query(SpanQuery())] == [{"k": None}]
        store.close()

    def test_a_store_that_fails_is_tried_again(self) -> None:
        """Every patch of the batch is a retry, for none of them was written."""
        outcomes = StorePatchExporter(BrokenStore()).export([patch(1, k=1), patch(2, k=1)], timeout_millis=0)

        assert outcomes == [Retry(DeliveryError("connection_failure", "disk full"))] * 2

    def test_the_timeout_of_an_export_is_kept_while_another_process_writes(self, tmp_path: Path) -> None:
        """With no time to wait, a locked store is a retry at once, however patient the store is by itself."""
        store = SqliteStore(tmp_path / "spans.db", busy_timeout_millis=600_000)
        store.write([])
        other = sqlite3.connect(tmp_path / "spans.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        exporter = StorePatchExporter(store)

        (locked,) = exporter.export([patch(k=1)], timeout_millis=0)

        assert isinstance(locked, Retry)
        assert "locked" in locked.error.message
        other.close()
        assert exporter.export([patch(k=1)], timeout_millis=0) == [Delivered()]
        store.close()

    def test_a_store_that_fails_fails_the_export_of_its_spans(self) -> None:
        """OpenTelemetry is told, and nothing is raised into its worker."""
        exporter = StoreSpanExporter(BrokenStore())

        assert exporter.export([]) is SpanExportResult.FAILURE
        assert exporter.force_flush()
        exporter.shutdown()
