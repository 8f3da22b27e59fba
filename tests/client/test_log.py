"""Frames of spans into a store: what each column becomes, and every way in which a row cannot be stored."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from opentelemetry.trace import Status, StatusCode
from tests.store.contract import END_NS, START_NS, TRACE, ended_span, trace_hex

import otel_metadata as om
from otel_metadata.client import UpdateReport
from otel_metadata.client.client import Spans
from otel_metadata.errors import ConfigurationError, StoreError
from otel_metadata.live import live_settings
from otel_metadata.model.evaluation import Evaluation
from otel_metadata.model.masking import Masking
from otel_metadata.model.record import SpanQuery, StoredSpan
from otel_metadata.store.sqlite.store import SqliteStore

SPAN = f"{0xA:016x}"
TRACE_ID = trace_hex(TRACE)
TIME = "2026-01-31T10:00:00"
TIME_NS = 1_769_853_600_000_000_000


def row(**more: Any) -> dict[str, Any]:
    """Return a row with all that is needed."""
    return {
        "context.span_id": SPAN,
        "context.trace_id": TRACE_ID,
        "name": "call",
        "start_time": TIME,
        "end_time": "2026-01-31T10:00:01.5Z",
        **more,
    }


def stored(store: SqliteStore) -> StoredSpan:
    return store.query(SpanQuery(span_id=SPAN))[0].span


class TestColumns:
    def test_every_column_has_its_place(self, spans: Spans) -> None:
        """As a span that arrived over OTLP would be shown."""
        report = spans.log(
            [
                row(
                    **{
                        "context.span_id": SPAN.upper(),
                        "parent_id": "00000000000000FF",
                        "kind": "client",
                        "span_kind": "llm",
                        "status_code": "error",
                        "status_message": "it broke",
                        "scope_name": "lib",
                        "scope_version": "1",
                        "project": "mine",
                        "attributes.llm.model_name": "m",
                        "attributes.llm.input_messages": [{"role": "user", "content": "hi"}],
                        "attributes.input.value": "hi",
                        "attributes.user.id": "u",
                        "attributes.tag.tags": ["vip"],
                        "attributes.metadata": '{"a": 1, "b": null}',
                        "attributes.metadata.c.d": {"x": [1, None]},
                    }
                )
            ]
        )

        assert (report, report.notes, report.status_code) == (UpdateReport(spans_updated=1), (), 200)
        record = spans.get(SPAN)
        assert record.span == StoredSpan(
            trace_id=TRACE_ID,
            span_id=SPAN,
            parent_id="00000000000000ff",
            trace_state="",
            name="call",
            kind="CLIENT",
            start_ns=TIME_NS,
            end_ns=TIME_NS + 1_500_000_000,
            status_code="ERROR",
            status_message="it broke",
            attributes={
                "llm.model_name": "m",
                "llm.input_messages": [{"role": "user", "content": "hi"}],
                "openinference.span.kind": "LLM",
            },
            events=(),
            links=(),
            resource={"openinference.project.name": "mine"},
            scope_name="lib",
            scope_version="1",
        )
        assert record.metadata == {"a": 1, "b": None, "c.d": {"x": [1, None]}}
        assert (record.input, record.user_id, record.tags, record.project) == ("hi", "u", ("vip",), "mine")

    @pytest.mark.parametrize("table", [pd.DataFrame, pl.DataFrame, list])
    def test_what_is_not_said_has_its_usual_value(self, spans: Spans, store: SqliteStore, table: Any) -> None:
        """From every kind of table."""
        assert spans.log(table([row()]), project_name="theirs", space_id="s").spans_updated == 1

        span = stored(store)
        assert (span.parent_id, span.kind, span.status_code, span.status_message) == (None, "INTERNAL", "UNSET", None)
        assert (span.attributes, span.scope_name, span.scope_version) == ({}, "", None)
        assert span.resource == {"openinference.project.name": "theirs"}

    @pytest.mark.parametrize(
        ("code", "shown", "of_otlp"),
        [(429, 429, "ERROR"), ("200", 200, "OK"), (404.0, 404, "ERROR"), (np.int64(399), 399, "OK")],
    )
    def test_a_status_may_be_the_code_of_a_late_update(
        self, spans: Spans, store: SqliteStore, code: object, shown: int, of_otlp: str
    ) -> None:
        """As lists and exports show it; what OTLP has no number for is an error from 400 on."""
        assert spans.log([row(status_code=code)]).errors == []

        assert (spans.get(SPAN).status_code, stored(store).status_code) == (shown, of_otlp)

    @pytest.mark.parametrize(
        ("status", "expected"),
        [
            (StatusCode.ERROR, ("ERROR", None)),
            (StatusCode.UNSET, ("UNSET", None)),
            (Status(StatusCode.ERROR, "timed out"), ("ERROR", "timed out")),
            ("STATUS_CODE_OK", ("OK", None)),
        ],
        ids=repr,
    )
    def test_a_status_may_be_an_object_of_opentelemetry(
        self, spans: Spans, store: SqliteStore, status: object, expected: tuple[str, str | None]
    ) -> None:
        """The number of its word is no code."""
        assert spans.log([row(status_code=status)]).errors == []

        assert (stored(store).status_code, stored(store).status_message) == expected

    @pytest.mark.parametrize(
        ("time", "ns"),
        [
            (TIME, TIME_NS),
            (f"{TIME}.123456789Z", TIME_NS + 123_456_789),
            ("2026-01-31T11:00:00+01:00", TIME_NS),
            (dt.datetime(2026, 1, 31, 10), TIME_NS),  # noqa: DTZ001 # UTC where no zone is said
            (dt.datetime(2026, 1, 31, 11, tzinfo=dt.timezone(dt.timedelta(hours=1))), TIME_NS),
            (pd.Timestamp(TIME_NS + 1), TIME_NS + 1),
            (pd.Timestamp(TIME_NS + 1, tz="Europe/Berlin"), TIME_NS + 1),
        ],
    )
    def test_times_are_exact(self, spans: Spans, store: SqliteStore, time: object, ns: int) -> None:
        """To the nanosecond, in every form."""
        assert spans.log([row(start_time=time, end_time=time)]).errors == []

        assert stored(store).start_ns == ns == stored(store).end_ns

    def test_attributes_have_no_null(self, spans: Spans) -> None:
        """What a table lacks is None in an object column; metadata has a null."""
        spans.log(
            [
                row(
                    **{
                        "attributes.user.id": None,
                        "attributes.x": None,
                        "attributes": '{"y": 1}',
                        "attributes.metadata.z": None,
                    }
                )
            ]
        )

        record = spans.get(SPAN)
        assert (record.user_id, record.attributes, record.metadata) == (None, {"y": 1}, {"z": None})

    def test_a_frame_of_listed_spans_can_be_logged(self, spans: Spans) -> None:
        """Into another store, say: what the columns of `log` hold is the same there."""
        spans.log(
            [row(**{"attributes.metadata.a": [1], "attributes.input.value": "hi", "attributes.llm.model_name": "m"})]
        )
        frame = spans.list(trace_id=TRACE_ID, filter="name = 'call'").to_df()
        other = SqliteStore(":memory:")

        assert Spans(other).log(frame).errors == []

        copied, original = Spans(other).get(SPAN), spans.get(SPAN)
        assert copied.span == original.span
        assert (copied.metadata, copied.input) == (original.metadata, original.input)
        other.close()

    def test_other_columns_are_left_out_with_a_note(self, spans: Spans) -> None:
        """Nothing is dropped silently."""
        assert spans.log([row(latency_ms=1.5)]).notes == ("column 'latency_ms': not part of a span; it was left out",)

    def test_what_is_logged_has_the_version_of_the_span_s_end(self, spans: Spans) -> None:
        """So what was said of the span later stands, also when it is logged again."""
        spans.log([row(**{"attributes.metadata.a": 1, "attributes.metadata.b": 1})])
        spans.update_metadata([{"context.span_id": SPAN, "patch_document": {"a": 2}}])
        spans.log([row(**{"attributes.metadata.a": 3, "attributes.metadata.b": 1, "name": "renamed"})])

        assert spans.get(SPAN).metadata == {"a": 2, "b": 1}
        assert spans.get(SPAN).name == "renamed"

    @pytest.mark.parametrize("calls", [1, 2])
    def test_of_two_rows_of_one_span_the_later_stands(self, spans: Spans, calls: int) -> None:
        """In one frame, or logged again with what was wrong put right; what it does not name stays."""
        wrong = {"metadata.a": "z", "metadata.b": 1, "input.value": "z", "user.id": "z", "llm.model_name": "z"}
        right = {"metadata.a": "a", "input.value": "a", "user.id": "a", "llm.model_name": "a"}
        rows = [row(**{f"attributes.{name}": value for name, value in said.items()}) for said in (wrong, right)]

        for start in range(calls):
            assert spans.log(rows[start::calls]).errors == []

        found = spans.get(SPAN)
        assert (found.metadata, found.input, found.user_id) == ({"a": "a", "b": 1}, "a", "a")
        assert found.attributes == {"llm.model_name": "a"}

    def test_of_two_rows_with_different_ends_what_was_said_at_the_later_end_stands(self, spans: Spans) -> None:
        """In either order, as of two exporters; an update stands over both."""
        late, early = (
            row(start_time="2026-01-01", end_time=end, **{"attributes.metadata.a": end})
            for end in ("2026-01-03", "2026-01-02")
        )
        for rows in ([late, early], [early, late]):
            spans.log(rows)
            assert spans.get(SPAN).metadata == {"a": "2026-01-03"}

        spans.update_metadata([{"context.span_id": SPAN, "patch_document": {"a": "put right"}}])
        assert spans.get(SPAN).metadata == {"a": "put right"}

    def test_a_span_that_ends_in_the_future_takes_updates(self, spans: Spans) -> None:
        """A local time that was taken for UTC is hours ahead; an update that is counted as one is seen."""
        spans.log([row(end_time="2200-01-01", **{"attributes.metadata.a": 1})])

        assert spans.update_metadata([{"context.span_id": SPAN, "patch_document": {"a": 2}}]).spans_updated == 1

        assert spans.get(SPAN).metadata == {"a": 2}

    def test_a_project_is_a_text(self, spans: Spans) -> None:
        """Another one would be found under no name."""
        with pytest.raises(ConfigurationError, match=r"^project_name is 5; expected the name of a project"):
            spans.log([row()], project_name=5)  # type: ignore[arg-type] # users pass it

    @pytest.mark.parametrize("cell", [None, float("nan"), "{}", {}])
    def test_metadata_that_is_missing_is_none(self, spans: Spans, cell: object) -> None:
        """Nor is an empty object any."""
        assert spans.log([row(**{"attributes.metadata": cell})]).errors == []

        assert (spans.get(SPAN).metadata, spans.get(SPAN).attributes) == ({}, {})

    def test_the_mask_of_this_process_holds(self, spans: Spans) -> None:
        """For metadata and for attributes."""
        live_settings.use(live_settings.LiveSettings(mask=Masking(keys=["email"])))

        spans.log([row(**{"attributes.metadata.email": "a@b.c", "attributes.email": "d"})])

        assert spans.get(SPAN).metadata == {"email": "<masked>"}
        assert spans.get(SPAN).attributes == {"email": "<masked>"}


class TestEvaluations:
    def test_they_are_set_after_the_spans(self, spans: Spans) -> None:
        """On spans of the same call and on others; the report counts the rows of both frames."""
        evaluations = [
            {"context.span_id": SPAN, "eval.A.label": "x"},
            {"context.span_id": f"{1:016x}", "eval.A.score": 1},
            {"context.span_id": "f" * 16, "eval.A.score": 1},
        ]

        report = spans.log(pd.DataFrame([row()]), pd.DataFrame(evaluations))

        assert (report.spans_processed, report.spans_updated, report.spans_failed, report.status_code) == (4, 3, 1, 207)
        assert spans.get(SPAN).evaluations == {"A": Evaluation("A", label="x")}
        assert spans.get(f"{1:016x}").evaluations == {"A": Evaluation("A", score=1)}

    def test_a_frame_of_them_that_cannot_be_read_stores_nothing(self, spans: Spans) -> None:
        """Both frames are read before anything is written."""
        with pytest.raises(ConfigurationError, match=r"eval\.A\.lable"):
            spans.log([row()], [{"context.span_id": SPAN, "eval.A.lable": "x"}])

        assert len(spans.list(trace_id=TRACE_ID).spans) == 3


class TestBadInput:
    @pytest.mark.parametrize("column", ["context.span_id", "context.trace_id", "name", "start_time", "end_time"])
    def test_a_column_that_is_needed_is_named(self, spans: Spans, column: str) -> None:
        """Beside those that are there."""
        table = [{name: cell for name, cell in row().items() if name != column}]

        with pytest.raises(ConfigurationError, match=f"expected {column} as well") as error:
            spans.log(table)

        assert "'context.span_id'" in str(error.value) or column == "context.span_id"

    @pytest.mark.parametrize(
        ("column", "cell", "error_type", "expected"),
        [
            ("context.span_id", "nope", "segment_not_found", "a span id of 16 hex digits"),
            ("context.trace_id", "nope", "segment_not_found", "a trace id of 32 hex digits"),
            ("context.trace_id", None, "patch_failure", "nothing; expected 32 hex digits"),
            ("name", None, "patch_failure", "nothing; expected a text"),
            ("name", 5, "patch_failure", "a int; expected a text"),
            ("start_time", "yesterday", "patch_failure", "a str; expected a datetime, or a text such as"),
            ("start_time", 5, "patch_failure", "a int; expected a datetime"),
            ("start_time", dt.datetime(1, 1, 1), "patch_failure", "a datetime; expected a datetime"),  # noqa: DTZ001 # beyond 64 bits
            ("end_time", "2020-01-01", "patch_failure", "before start_time"),
            ("parent_id", "x", "patch_failure", "a span id of 16 hex digits"),
            ("kind", "LLM", "patch_failure", "one of INTERNAL, SERVER"),
            ("status_code", -1, "patch_failure", "one of UNSET, OK, ERROR, or an integer code"),
            ("status_code", True, "patch_failure", "or an integer code"),
            ("status_code", 200.5, "patch_failure", "or an integer code"),
            ("status_code", "4294967296", "patch_failure", "or an integer code"),
            ("status_code", "٤٢٩", "patch_failure", "or an integer code"),
            ("span_kind", 1, "patch_failure", "a text"),
            ("project", ["x"], "patch_failure", "a text"),
            ("attributes.metadata", "[1]", "parse_failure", "a dict, or the JSON text of an object"),
            ("attributes.metadata", 1, "parse_failure", "a dict, or the JSON text of an object"),
        ],
    )
    def test_a_cell_that_cannot_be_read_fails_its_row(
        self, spans: Spans, column: str, cell: object, error_type: str, expected: str
    ) -> None:
        """It says where; the other rows are stored."""
        report = spans.log([row(**{column: cell}), row(**{"context.span_id": f"{0xB:016x}"})])

        assert (report.spans_updated, report.spans_failed) == (1, 1)
        assert report.errors[0]["error_type"] == error_type
        assert report.errors[0]["error_message"].startswith(f"[{error_type}] Row 0, column {column!r}: ")
        assert expected in report.errors[0]["error_message"]
        assert spans.get(f"{0xB:016x}").name == "call"

    def test_a_span_that_was_deleted_stays_deleted(self, spans: Spans, store: SqliteStore) -> None:
        """The report says that it is not there."""
        spans.log([row()])
        spans.delete([SPAN])

        report = spans.log([row()])

        assert [error["error_message"] for error in report.errors] == [
            f"[patch_failure] Row 0: span {SPAN} was deleted; expected a new span."
        ]
        assert not store.find([SPAN])

    def test_it_is_stored_in_one_call_with_others(self, store: SqliteStore) -> None:
        """A span that is there is replaced, and its fields are kept."""
        store.write([ended_span(0xA)])

        Spans(store).log([row(name="new", start_time=pd.Timestamp(START_NS), end_time=pd.Timestamp(END_NS))])

        assert stored(store).name == "new"

    def test_evaluations_that_cannot_be_stored_are_told_beside_spans_that_were(
        self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An error would say that nothing was changed."""

        def fail(store: SqliteStore, rows: object) -> None:
            raise StoreError("the disk is full")

        monkeypatch.setattr(SqliteStore, "patch_rows", fail)
        verdicts = [{"context.span_id": SPAN, "eval.Goal.label": "reached"}]

        report = Spans(store).log([row()], verdicts)

        assert (report.spans_updated, report.status_code) == (1, 207)
        assert [error["error_message"] for error in report.errors] == ["[connection_failure] Row 0: the disk is full"]
        assert stored(store).name == "call"
        with pytest.raises(StoreError, match="the disk is full"):
            Spans(store).log([], verdicts)


class TestFile:
    def test_a_file_is_made_when_it_is_asked_for(self, tmp_path: Path) -> None:
        """A mistyped path is otherwise an error, not an empty store."""
        url = f"sqlite:///{tmp_path / 'new.db'}"

        with om.Client(url) as client, pytest.raises(StoreError, match="no such file"):
            client.spans.log([row()])
        with om.Client(url, create=True) as client:
            assert client.spans.log([row()]).status_code == 200
        with om.Client(url) as client:
            assert client.spans.get(SPAN).name == "call"
