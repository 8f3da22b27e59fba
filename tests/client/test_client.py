"""The client reads a store by itself: what it finds, and what it says when it cannot."""

from __future__ import annotations

import base64
import datetime as dt
import pydoc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import orjson
import pandas as pd
import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.store.contract import START_NS, ended_span, metadata, trace_hex

import otel_metadata as om
from otel_metadata.client import client as client_module
from otel_metadata.client import updates
from otel_metadata.client.client import Spans
from otel_metadata.errors import (
    ConfigurationError,
    FilterError,
    InvalidSpanRefError,
    OtelMetadataError,
    SpanNotFoundError,
    StoreError,
    StoreFormatError,
)
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.exporters.store import StorePatchExporter, StoreSpanExporter
from otel_metadata.spool.spool import Spool, SpoolSettings
from otel_metadata.store.sqlite.store import SqliteStore
from otel_metadata.testing import InMemoryPipeline, ManualClock

SPAN = f"{1:016x}"

# The spans of these tests are older than seven days.
EVER = "2000-01-01"


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
        with pytest.raises(InvalidSpanRefError, match="expected a span id of 16 hex digits") as error:
            client.spans.get(span_id)  # type: ignore[arg-type]

        assert isinstance(error.value, ValueError)
        assert error.value.got == span_id

    @pytest.mark.parametrize("call", ["get", "list"])
    @pytest.mark.parametrize("trace_id", ["", "5", SPAN, "z" * 32, -5, 0, 1 << 128, 5.0])
    def test_what_is_no_trace_id_is_refused(self, client: om.Client, trace_id: object, call: str) -> None:
        """32 hex digits or a positive integer of 128 bits, for `get` and for `list`."""
        arguments = [SPAN] if call == "get" else []

        with pytest.raises(InvalidSpanRefError, match="a trace id of 32 hex digits, not all zeros"):
            getattr(client.spans, call)(*arguments, trace_id=trace_id)


class TestList:
    def test_the_newest_comes_first(self, client: om.Client) -> None:
        """All spans, those of one trace, and at most as many as asked for."""
        assert [span.start_time.microsecond for span in client.spans.list(start_time=EVER)] == [123456] * 3
        assert [(span.trace_id[-1], span.span_id) for span in client.spans.list(start_time=EVER)] == [
            ("6", SPAN),
            ("6", f"{0xAB:016x}"),
            ("5", SPAN),
        ]
        assert len(client.spans.list(start_time=EVER, limit=2)) == 2

    def test_a_trace_is_found_whatever_its_age(self, client: om.Client) -> None:
        """Who names a trace wants it."""
        assert [span.trace_id for span in client.spans.list(trace_id=trace_hex(5))] == [trace_hex(5)]

    def test_pages_follow_one_another(self, client: om.Client) -> None:
        """Each span is on one page, and the last page says that it is the last."""
        pages, cursor = [], None
        for _ in range(3):
            pages.append(client.spans.list(start_time=EVER, limit=1, cursor=cursor))
            cursor = pages[-1].next_cursor

        assert [span.position for page in pages for span in page] == [
            span.position for span in client.spans.list(start_time=EVER)
        ]
        assert [page.next_cursor is None for page in pages] == [False, False, True]
        assert client.spans.list(start_time=EVER, limit=3).next_cursor is None

    def test_the_last_seven_days_are_shown_unless_more_is_asked_for(self, path: Path) -> None:
        """Before now, or before the end that was given; the pages of one list have one start."""
        clock = ManualClock(wall_ns=START_NS)
        spans = Spans(SqliteStore(path), clock)
        assert len(spans.list()) == 3
        first = spans.list(limit=1)

        clock.advance(7 * 86_400_000)

        assert len(spans.list()) == 3
        clock.advance(1)
        assert len(spans.list()) == 0
        assert len(spans.list(cursor=first.next_cursor)) == 2
        assert len(spans.list(end_time=dt.datetime(2023, 11, 15, tzinfo=dt.timezone.utc))) == 3

    @pytest.mark.parametrize(
        ("start", "end", "count"),
        [
            ("2023-11-14T22:13:20.123456Z", None, 3),
            ("2023-11-14T22:13:20.123457Z", None, 0),
            (EVER, "2023-11-14T22:13:20.123457Z", 3),
            (EVER, "2023-11-14T22:13:20.123456", 0),
            ("2023-11-15T00:13:20.123456+02:00", None, 3),
            (dt.datetime(2023, 11, 14, 22, 13, 20, 123456), None, 3),  # noqa: DTZ001 # UTC where it names no zone
            (dt.datetime(2023, 11, 14, 23, 13, 21, tzinfo=dt.timezone(dt.timedelta(hours=1))), None, 0),
            ("2023-11-14T22:13:20.123456789Z", None, 3),
            ("2023-11-14T22:13:20.123456792Z", None, 0),
            (pd.Timestamp(START_NS), None, 3),
            (pd.Timestamp(START_NS + 3, tz="Europe/Berlin"), None, 0),
        ],
    )
    def test_a_window_takes_its_start_in_and_leaves_its_end_out(
        self, client: om.Client, start: str | dt.datetime, end: str | None, count: int
    ) -> None:
        """By the time at which spans started."""
        assert len(client.spans.list(start_time=start, end_time=end)) == count

    def test_a_project_is_named_by_the_resource(self, tmp_path: Path) -> None:
        """OpenInference's name of a project stands over the service's."""
        named = Resource({"service.name": "shop", "openinference.project.name": "answers"})
        store = SqliteStore(tmp_path / "projects.db")
        store.write([ended_span(1, resource=Resource({"service.name": "shop"})), ended_span(2, resource=named)])
        spans = Spans(store)

        found = {
            name: [s.span_id[-1] for s in spans.list(project=name, start_time=EVER)] for name in ("shop", "answers")
        }

        assert found == {"shop": ["1"], "answers": ["2"]}
        assert spans.list(project="' OR 1=1 --", start_time=EVER).spans == ()

    def test_a_filter_selects(self, client: om.Client) -> None:
        """By what was set, in the words of docs/filters.md."""
        page = client.spans.list(start_time=EVER, filter="metadata.trace = 'five' OR metadata.trace IS NULL")

        assert [(span.trace_id[-1], span.span_id[-2:]) for span in page] == [("6", "ab"), ("5", "01")]

    def test_a_filter_that_is_none_is_told(self, client: om.Client) -> None:
        """Where, and what there is."""
        with pytest.raises(FilterError, match="latency_ms"):
            client.spans.list(filter="latency > 5")

    @pytest.mark.parametrize("limit", [0, -1, True, 1.5, None])
    def test_a_limit_below_one_is_refused(self, client: om.Client, limit: Any) -> None:
        """A question for nothing is a mistake."""
        with pytest.raises(ConfigurationError, match="expected a whole number, 1 or more") as error:
            client.spans.list(limit=limit)

        assert error.value.got == limit

    @pytest.mark.parametrize(("limit", "count"), [(sys.maxsize, 3), (10**30, 3), (np.int64(2), 2)])
    def test_a_limit_may_be_any_whole_number(self, client: om.Client, limit: Any, count: int) -> None:
        """The largest that there is means all."""
        assert len(client.spans.list(start_time=EVER, limit=limit)) == count

    @pytest.mark.parametrize("project", [3, ["shop"], b"shop"])
    def test_what_is_no_project_is_refused(self, client: om.Client, project: Any) -> None:
        """No span could be of it."""
        with pytest.raises(ConfigurationError, match=r"project is .*expected the name of a project"):
            client.spans.list(project=project)

    def test_a_project_is_found_by_the_name_it_was_stored_under(self, spans: Spans) -> None:
        """A lone surrogate was replaced then, so it is now."""
        log_row = {"context.span_id": SPAN, "context.trace_id": trace_hex(9), "name": "call"}
        spans.log([log_row | {"start_time": EVER, "end_time": EVER, "project": "a\ud800"}])

        assert [span.project for span in spans.list(project="a\ud800", start_time=EVER)] == ["a\ufffd"]

    def test_a_time_beyond_64_bits_in_a_cursor_is_refused(self, client: om.Client) -> None:
        """The store cannot hold it, so no page ends there."""
        for times in ([None, 1 << 63], [1 << 63, 1]):
            packed = orjson.dumps([*times, "1" * 32, "1" * 16])
            with pytest.raises(ConfigurationError, match="next_cursor"):
                client.spans.list(cursor=base64.urlsafe_b64encode(packed).decode().rstrip("="))

    @pytest.mark.parametrize("cursor", ["", "x", "WzFd", "bnVsbA", "W251bGwsMSwieCIsInkiXQ", "ü", 5])
    def test_what_is_no_cursor_is_refused(self, client: om.Client, cursor: Any) -> None:
        """A text of another program's, or cut short."""
        with pytest.raises(ConfigurationError, match="next_cursor"):
            client.spans.list(cursor=cursor)

    @pytest.mark.parametrize(
        "time",
        [
            "yesterday",
            "",
            1_700_000_000,
            dt.date(2023, 11, 14),
            pd.NaT,
            "9999-12-31",
            dt.datetime(1, 1, 1, tzinfo=dt.timezone.utc),
        ],
    )
    @pytest.mark.parametrize("name", ["start_time", "end_time"])
    def test_what_is_no_time_is_refused(self, client: om.Client, name: str, time: Any) -> None:
        """A number could be seconds, milliseconds or nanoseconds; a store holds 64 bits of them."""
        with pytest.raises(ConfigurationError, match=f"{name} is .*expected a datetime"):
            client.spans.list(**{name: time})


class TestDelete:
    def test_what_is_deleted_is_gone_and_what_is_unknown_is_told(self, client: om.Client) -> None:
        """Once, by the name that a person has; deleting again finds nothing."""
        report = client.spans.delete([SPAN, "00000000000000AB", "f" * 16, SPAN])

        assert report.completed is True
        assert report.deleted_span_ids == [SPAN, "00000000000000ab"]
        assert report.not_deleted_span_ids == ["f" * 16]
        assert report.to_dict() == {
            "completed": True,
            "deleted_span_ids": [SPAN, "00000000000000ab"],
            "not_deleted_span_ids": ["f" * 16],
        }
        assert [span.trace_id[-1] for span in client.spans.list(start_time=EVER)] == ["5"]
        assert client.spans.delete(["00000000000000ab"]).deleted_span_ids == []

    def test_a_reference_names_one_of_several(self, client: om.Client) -> None:
        """A `SpanRef` and a `traceparent` say of which trace; a bare id means the newest, as everywhere."""
        client.spans.delete(om.SpanRef(5, 1))
        client.spans.delete([om.SpanRef(6, 0xAB).to_traceparent()])

        assert [(s.trace_id[-1], s.span_id) for s in client.spans.list(start_time=EVER)] == [("6", SPAN)]

    def test_a_bad_id_deletes_nothing(self, client: om.Client) -> None:
        """All ids are read before the first span is deleted."""
        with pytest.raises(InvalidSpanRefError):
            client.spans.delete([SPAN, "nonsense"])

        assert len(client.spans.list(start_time=EVER)) == 3

    def test_many_are_deleted_in_parts(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What one part has deleted stays so when the next one fails; the same call again goes on."""
        monkeypatch.setattr(updates, "PART_SPANS", 2)
        delete, parts = SqliteStore.delete, list[int]()

        def counted(store: SqliteStore, keys: Any, version: Any) -> Any:
            parts.append(len(keys))
            if len(parts) == 2:
                raise StoreError("the disk is full")
            return delete(store, keys, version)

        monkeypatch.setattr(SqliteStore, "delete", counted)
        refs = [om.SpanRef(5, 1), om.SpanRef(6, 1), om.SpanRef(6, 0xAB)]

        with om.Client(f"sqlite:///{path}") as client:
            partial = client.spans.delete(refs)
            left = [span.span_id for span in client.spans.list(start_time=EVER)]
            report = client.spans.delete(refs)

        assert (parts, left) == ([2, 1, 2, 1], [f"{0xAB:016x}"])
        assert (partial.completed, partial.error_message) == (False, "the disk is full")
        assert (partial.deleted_span_ids, partial.not_deleted_span_ids) == ([SPAN], [f"{0xAB:016x}"])
        assert report.completed
        assert report.deleted_span_ids == [f"{0xAB:016x}"]

    def test_a_store_that_cannot_be_written_deletes_nothing(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """There is no report of it: nothing has begun."""

        def failing(store: SqliteStore, keys: Any, version: Any) -> Any:
            raise StoreError("the disk is full")

        monkeypatch.setattr(SqliteStore, "delete", failing)

        with om.Client(f"sqlite:///{path}") as client, pytest.raises(StoreError, match="the disk is full"):
            client.spans.delete([SPAN])

    @pytest.mark.parametrize("span_ids", [None, 5])
    def test_what_is_no_list_is_refused(self, client: om.Client, span_ids: Any) -> None:
        """With an exception of ours, as every argument."""
        with pytest.raises(
            ConfigurationError, match=r"^delete\(span_ids=\) is (None|of type \w+); expected a list of span ids"
        ):
            client.spans.delete(span_ids)

    def test_nothing_is_deleted_for_no_ids(self, client: om.Client) -> None:
        """An empty list is no error."""
        assert client.spans.delete([]).to_dict() == {
            "completed": True,
            "deleted_span_ids": [],
            "not_deleted_span_ids": [],
        }
        assert len(client.spans.list(start_time=EVER)) == 3


class TestOpening:
    @pytest.mark.parametrize(
        "url",
        [
            "",
            "spans.db",
            "sqlite:",
            "sqlite://",
            "sqlite:///",
            "sqlite://spans.db",
            "telemetry",
            "postgres://u:secret@h/db",
            None,
            Path("spans.db"),
        ],
    )
    def test_what_names_neither_store_nor_destination_is_refused(self, url: Any) -> None:
        """The error shows the forms that are understood, and no password."""
        with pytest.raises(ConfigurationError, match=r"sqlite:///.*, .*clickhouse://") as error:
            om.Client(url)

        assert "secret" not in str(error.value)

    def test_a_relative_path_is_relative(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Three slashes are a file in the working directory."""
        monkeypatch.chdir(path.parent)

        with om.Client("sqlite:///spans.db") as client:
            assert len(client.spans.list(start_time=EVER)) == 3

    def test_a_destination_that_keeps_its_spans_is_read(self, path: Path) -> None:
        """The store of a destination is used, and left open for it."""
        store = SqliteStore(path)
        destination = om.Destination("store", StoreSpanExporter(store), StorePatchExporter(store))

        with om.Client(destination) as client:
            assert len(client.spans.list(start_time=EVER)) == 3

        assert "open" in repr(store)
        store.close()

    @pytest.mark.parametrize(
        "ask",
        [
            lambda spans: spans.get(SPAN),
            lambda spans: spans.list(),
            lambda spans: spans.delete([SPAN]),
            lambda spans: spans.log([]),
        ],
    )
    def test_a_destination_without_a_store_takes_updates_only(self, ask: Any) -> None:
        """What sends its spans away has none to read."""
        destination = om.Destination("away", None, InMemoryPatchExporter(), spans=False)

        with om.Client(destination) as client:
            assert repr(client) == "<Client away>"
            with pytest.raises(ConfigurationError, match="'away'; expected a destination that keeps its spans in a st"):
                ask(client.spans)

    def test_a_destination_has_its_name_here_too(self, capsys: pytest.CaptureFixture[str]) -> None:
        """What `configure` takes as text is taken."""
        with om.Client("console") as client:
            report = client.spans.update_metadata(
                [{"context.trace_id": trace_hex(5), "context.span_id": SPAN, "attributes.metadata.region": "eu"}]
            )

        assert report["spans_updated"] == 1
        assert 'span.metadata.region="eu"' in capsys.readouterr().out

    def test_a_destination_that_was_made_here_is_closed_here(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its exporters give back what they hold; those of a destination that was given are its owner's."""
        exporter, spans = InMemoryPatchExporter(), InMemorySpanExporter()
        destination = om.Destination("away", spans, exporter)
        monkeypatch.setattr(client_module, "make_destinations", lambda *_: (destination,))

        om.Client(destination).close()
        assert not exporter.is_shut_down
        assert spans.export([]) is SpanExportResult.SUCCESS

        om.Client("away").close()
        assert exporter.is_shut_down
        assert spans.export([]) is SpanExportResult.FAILURE

    def test_a_destination_is_closed_once_and_hides_no_error(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """An exporter that cannot be closed is told; the other one is closed, and what the block raised is raised."""
        calls: list[str] = []

        class Failing(InMemorySpanExporter):
            def shutdown(self) -> None:
                calls.append("spans")

        def fail(self: object, timeout_millis: int = 0) -> None:
            calls.append("patches")
            raise OSError("gone")

        monkeypatch.setattr(InMemoryPatchExporter, "shutdown", fail)
        destination = om.Destination("falls", Failing(), InMemoryPatchExporter())
        monkeypatch.setattr(client_module, "make_destinations", lambda *_: (destination,))

        with pytest.raises(LookupError, match="mine"), om.Client("falls") as client:
            raise LookupError("mine")
        client.close()

        assert calls == ["patches", "spans"]
        assert "falls: shutdown raised OSError." in caplog.text

    def test_a_destination_by_name_that_keeps_its_spans_is_read(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As one that is given."""
        store = SqliteStore(path)
        destination = om.Destination("kept", StoreSpanExporter(store), StorePatchExporter(store))
        monkeypatch.setattr(client_module, "make_destinations", lambda *_: (destination,))

        with om.Client("kept") as client:
            assert client.spans.get(SPAN).metadata == {"trace": "six"}

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


def test_the_arguments_that_scripts_for_arize_give_are_taken(tmp_path: Path) -> None:
    """A project selects what is read; a space, and a project beside ids, mean nothing here."""
    with om.Client(f"sqlite:///{tmp_path / 'spans.db'}", create=True) as client:
        span = {"context.trace_id": trace_hex(1), "name": "call", "start_time": EVER, "end_time": EVER}
        for number, project in ((1, "shop"), (2, "answers")):
            client.spans.log(
                space_id="s", project_name=project, dataframe=[span | {"context.span_id": f"{number:016x}"}]
            )

        window: dict[str, Any] = {"start_time": EVER, "end_time": dt.datetime(2001, 1, 1, tzinfo=dt.timezone.utc)}
        page = client.spans.list(project="shop", space="s", limit=5, **window)
        frame = client.spans.export_to_df(space_id="s", project_name="shop", **window)
        count = client.spans.export_to_parquet(
            space_id="s", project_name="shop", path=str(tmp_path / "shop.parquet"), **window
        )
        report = client.spans.delete(project="shop", span_ids=[SPAN], space="s")

    assert [span.span_id for span in page] == list(frame["context.span_id"]) == [SPAN]
    assert count == 1
    assert report.deleted_span_ids == [SPAN]


class TestNoStore:
    @pytest.mark.parametrize(
        ("place", "told"),
        [
            ("nowhere.db", r"nowhere\.db: no such file; expected .* Client\(\.\.\., create=True\)"),
            ("nowhere/spans.db", r"nowhere/spans\.db: no such file; expected .* create=True"),
            ("notes.txt/spans.db", r"notes\.txt/spans\.db: no such file; expected .* create=True"),
            ("empty.db", r"empty\.db: an empty file; expected .* create=True"),
            ("", "is not a file; expected a path of a file"),
            ("notes.txt", r"notes\.txt is not an SQLite database; expected a store"),
            ("a" * 300, "too long"),
            ("spool.db", r"spool\.db is a spool of otel-metadata; expected a store of otel-metadata"),
        ],
    )
    def test_a_store_that_is_not_there_is_told_and_not_made(self, tmp_path: Path, place: str, told: str) -> None:
        """What was found, and what to do; nothing there is changed."""
        (tmp_path / "notes.txt").write_text("dear diary " * 100)
        (tmp_path / "empty.db").touch()
        Spool(SpoolSettings(str(tmp_path / "spool.db"))).close()
        before = {file: file.stat().st_size for file in tmp_path.iterdir()}

        with om.Client(f"sqlite:///{tmp_path / place}") as client, pytest.raises(StoreError, match=told):
            client.spans.list()

        assert {file: file.stat().st_size for file in tmp_path.iterdir()} == before

    @pytest.mark.parametrize("place", ["nowhere.db", "empty.db"])
    def test_it_is_made_where_that_is_asked_for(self, tmp_path: Path, place: str) -> None:
        """As the error says."""
        (tmp_path / "empty.db").touch()

        with om.Client(f"sqlite:///{tmp_path / place}", create=True) as client:
            assert client.spans.list().spans == ()
        with om.Client(f"sqlite:///{tmp_path / place}") as client:
            assert client.spans.list().spans == ()

    def test_a_place_where_nobody_may_look_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Root may look everywhere, so the system's refusal is made here."""

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        with om.Client(f"sqlite:///{tmp_path}/spans.db") as client:
            monkeypatch.setattr(Path, "stat", refuse)
            with pytest.raises(StoreError, match=r"spans\.db: .*Permission denied; expected a file that can be read"):
                client.spans.list()


class TestArguments:
    """What several methods have in common is written once, and each shows all of it."""

    METHODS: ClassVar = {
        "list": {"project", "start_time", "end_time", "filter", "limit", "cursor", "trace_id", "space"},
        "export_to_df": {"progress", "project", "start_time", "end_time", "filter", "project_name", "space_id"},
        "export_to_parquet": {
            *("path", "progress", "project", "start_time", "end_time", "filter", "project_name", "space_id")
        },
        "export_to_jsonl": {"path", "progress", "project", "start_time", "end_time", "filter"},
        "export_to_csv": {"path", "progress", "project", "start_time", "end_time", "filter"},
        "delete": {"span_ids", "project", "space"},
        "update_metadata": {
            *("dataframe", "patch_document_column_name", "validate", "space_id", "project_name", "model_id")
        },
        "update_evaluations": {"dataframe", "validate", "space_id", "project_name", "model_id"},
        "update_annotations": {"dataframe", "validate", "space_id", "project_name", "model_id"},
        "annotate": {"annotations", "project", "space", "start_time", "end_time"},
        "annotate_spans": {"annotations", "project", "space", "start_time", "end_time"},
        "log": {"dataframe", "evals_dataframe", "project_name", "space_id", "validate"},
        "log_metadata": {
            *("dataframe", "project_name", "validate", "verbose", "patch_document_column_name", "space_id", "model_id")
        },
    }

    @pytest.mark.parametrize("method", METHODS)
    def test_help_shows_and_describes_every_argument(self, method: str) -> None:
        """In the first line, and under "Args"."""
        head, _, text = pydoc.render_doc(getattr(Spans, method), renderer=pydoc.plaintext).partition("Args:")
        described = text.partition("Returns:")[0].partition("Raises:")[0]

        for argument in self.METHODS[method]:
            assert f"{argument}: '" in head
            assert f"{argument}: " in described
        assert "**" not in head + described

    @pytest.mark.parametrize("method", METHODS)
    def test_an_unknown_argument_is_pythons_own_error(self, store: SqliteStore, method: str) -> None:
        """As of any function; nothing is taken for an argument of somebody else's."""
        with pytest.raises(TypeError, match="got an unexpected keyword argument 'projekt'"):
            getattr(Spans(store), method)([], projekt="p")
