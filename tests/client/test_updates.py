"""Rows onto spans: into a store, and through a destination that answers in every way."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import context as otel_context
from tests.store.contract import START_NS, TRACE, ended_span, trace_hex

import otel_metadata as om
from otel_metadata.client import AnnotateRecordInput, AnnotationInput, UpdateReport, updates
from otel_metadata.client.client import Spans
from otel_metadata.client.columns import metadata_rows
from otel_metadata.client.dataframes import read_frame
from otel_metadata.client.updates import MAX_TRIES, MAX_WAIT_NS, StoreUpdates
from otel_metadata.errors import ConfigurationError, SpanNotFoundError, StoreError
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.live import live_settings
from otel_metadata.model.evaluation import Annotation, Evaluation
from otel_metadata.model.masking import Masking
from otel_metadata.model.merge import Fields, Json
from otel_metadata.model.outcome import Delivered, DeliveryError, Outcome, Pause, Rejected, Retry
from otel_metadata.model.patch import Patch
from otel_metadata.model.record import SpanQuery
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.seams import VersionSource
from otel_metadata.store.sqlite.store import SqliteStore
from otel_metadata.testing import ManualClock

FIRST, SECOND, THIRD, UNKNOWN = (f"{number:016x}" for number in (1, 2, 3, 99))
TABLES: dict[str, Callable[[list[dict[str, Any]]], object]] = {
    "pandas": pd.DataFrame,
    "polars": pl.DataFrame,
    "pyarrow": pa.Table.from_pylist,
    "dicts": list,
}


def row(span_id: str = FIRST, **metadata: Any) -> dict[str, Any]:
    """Return a row with a patch document."""
    return {"context.span_id": span_id, "patch_document": metadata}


def metadata_of(store: SqliteStore, span_id: str = FIRST) -> dict[str, Json]:
    return dict(store.query(SpanQuery(span_id=span_id))[0].metadata)


class TestStore:
    @pytest.mark.parametrize("table", TABLES)
    def test_every_row_reaches_its_span(self, spans: Spans, table: str) -> None:
        """From every kind of table, in all three ways."""
        rows = [
            {"context.span_id": FIRST, "attributes.metadata.region": "eu", "attributes.metadata.tries": 3},
            {"context.span_id": SECOND, "attributes.metadata.region": "us", "patch_document": '{"region": null}'},
        ]
        names = list(dict.fromkeys(name for one in rows for name in one))
        if table in {"polars", "pyarrow"}:
            rows = [{name: one.get(name) for name in names} for one in rows]

        report = spans.update_metadata(TABLES[table](rows))

        assert report == {"spans_processed": 2, "spans_updated": 2, "spans_failed": 0, "errors": []}
        assert spans.get(FIRST).metadata == {"region": "eu", "tries": 3}
        assert spans.get(SECOND).metadata == {"region": None}

    def test_an_unknown_span_fails_alone(self, spans: Spans) -> None:
        """In the words of Arize; the others are applied."""
        report = spans.update_metadata([row(UNKNOWN, a=1), row(FIRST, a=2), row("nope", a=3)])

        assert (report.spans_processed, report.spans_updated, report.spans_failed) == (3, 1, 2)
        assert [(error["span_id"], error["error_type"]) for error in report.errors] == [
            (UNKNOWN, "segment_not_found"),
            ("nope", "segment_not_found"),
        ]
        assert report.errors[0]["error_message"] == (
            f"[segment_not_found] Row 0: span {UNKNOWN} is not in sqlite:///:memory:."
        )
        assert spans.get(FIRST).metadata == {"a": 2}

    def test_a_span_of_another_trace_is_not_the_one_that_was_named(self, spans: Spans) -> None:
        """The error says which trace was looked in: the span id alone is there."""
        report = spans.update_metadata([{**row(FIRST, a=1), "context.trace_id": "f" * 32}])

        assert report.errors[0]["error_message"] == (
            f"[segment_not_found] Row 0: span {FIRST} of trace {'f' * 32} is not in sqlite:///:memory:."
        )

    def test_of_two_rows_of_one_span_the_later_wins(self, spans: Spans) -> None:
        """Both count; what only the first one says stays."""
        report = spans.update_metadata([row(a=1, b=1), row(SECOND, a=0), row(a=2)])

        assert (report.spans_processed, report.spans_updated) == (3, 3)
        assert spans.get(FIRST).metadata == {"a": 2, "b": 1}

    def test_a_row_is_applied_whole_or_not_at_all(self, spans: Spans) -> None:
        """A cell that cannot be read keeps the whole row from its span, not the next row of the same span."""
        spans.update_evaluations(
            [
                {"context.span_id": FIRST, "eval.A.label": "x", "eval.B.score": "no number"},
                {"context.span_id": FIRST, "eval.C.label": "z"},
            ]
        )

        assert spans.get(FIRST).evaluations == {"C": Evaluation("C", label="z")}

    def test_what_is_said_later_stands(self, spans: Spans, store: SqliteStore) -> None:
        """Versions only ever increase, whoever updates."""
        spans.update_metadata([row(a=1, b=1)])
        spans.update_metadata([row(a=2)])

        assert spans.get(FIRST).metadata == {"a": 2, "b": 1}
        clock = ManualClock(START_NS + 10)  # far in the past of what was said
        Spans(store, clock).update_metadata([row(a=3, c=3)])
        assert spans.get(FIRST).metadata == {"a": 2, "b": 1, "c": 3}

    def test_all_fields_of_a_row_have_one_version(self, store: SqliteStore) -> None:
        """A row is one update; another row is another."""
        kept: list[tuple[str, str, Fields]] = []

        class Keeps:
            find, query = store.find, store.query

            @staticmethod
            def patch_rows(rows: Iterable[tuple[str, str, Fields]]) -> None:
                kept.extend(rows)

        rows = metadata_rows(read_frame([row(a=1, b=2), row(SECOND, a=3)]))
        StoreUpdates(Keeps(), VersionSource(ManualClock(5))).apply(rows)  # type: ignore[arg-type] # what it needs of one

        assert [span_id for _, span_id, _ in kept] == [FIRST, SECOND]
        assert [{version[0] for _, version in fields.values()} for _, _, fields in kept] == [{5}, {6}]
        assert len({version for _, _, fields in kept for _, version in fields.values()}) == 2

    def test_a_trace_id_chooses_among_spans_of_one_id(self, spans: Spans, store: SqliteStore) -> None:
        """Without it the newest is meant; one that has no such span is told."""
        store.write([ended_span(1, trace_id=7, start_ns=START_NS + 5)])

        report = spans.update_metadata(
            [
                row(which="newest"),
                {**row(which="named"), "context.trace_id": trace_hex(TRACE)},
                {**row(which="same"), "context.trace_id": trace_hex(7)},
                {**row(which="none"), "context.trace_id": trace_hex(8)},
            ]
        )

        assert spans.get(FIRST, trace_id=trace_hex(TRACE)).metadata == {"which": "named"}
        assert spans.get(FIRST, trace_id=trace_hex(7)).metadata == {"which": "same"}
        assert [error["error_type"] for error in report.errors] == ["segment_not_found"]

    def test_an_empty_row_counts_and_changes_nothing(self, spans: Spans) -> None:
        """Its span has what it says; that of an unknown span has not."""
        report = spans.update_metadata([row(), row(UNKNOWN)])

        assert (report.spans_updated, report.spans_failed) == (1, 1)
        assert spans.get(FIRST).metadata == {}

    def test_an_empty_frame_is_an_empty_report(self, spans: Spans) -> None:
        """Nothing to do is no mistake."""
        for update in (spans.update_metadata, spans.update_evaluations, spans.update_annotations, spans.log):
            assert update(pd.DataFrame()) == UpdateReport(spans_updated=0)
        assert spans.annotate([]) == UpdateReport(spans_updated=0)

    def test_evaluations_and_annotations_are_upserted_by_name(self, spans: Spans) -> None:
        """Of the span and of its trace; the second one replaces the first whole."""
        ids = {"context.span_id": FIRST}
        spans.update_evaluations([{**ids, "eval.A.label": "x", "eval.A.score": 1, "trace.eval.T.score": 0.5}])
        spans.update_evaluations([{**ids, "eval.A.score": 2, "eval.B.label": "y"}])
        spans.update_annotations([{**ids, "annotation.q.label": "x", "annotation.q.score": 1}])
        spans.update_annotations([{**ids, "annotation.q.text": "y", "trace.annotation.t.label": "z"}])

        record = spans.get(FIRST)
        assert record.evaluations == {"A": Evaluation("A", score=2), "B": Evaluation("B", label="y")}
        assert record.trace_evaluations == {"T": Evaluation("T", score=0.5)}
        assert record.annotations == (Annotation("q", text="y"),)
        assert record.trace_annotations == (Annotation("t", label="z"),)

    def test_rows_go_in_parts(self, spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
        """The order of rows holds across parts."""
        monkeypatch.setattr(updates, "PART_FIELDS", 2)

        report = spans.update_metadata([row(a=number) for number in range(7)])

        assert report.spans_updated == 7
        assert spans.get(FIRST).metadata == {"a": 6}

    def test_a_part_is_full_by_its_fields(self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """A transaction of a wide frame holds fewer rows: while it runs, an application cannot write its spans."""
        monkeypatch.setattr(updates, "PART_FIELDS", 6)
        parts: list[int] = []

        class Counts:
            find, query = store.find, store.query

            @staticmethod
            def patch_rows(rows: Iterable[tuple[str, str, Fields]]) -> None:
                parts.append(len(list(rows)))

        narrow = [row(a=1) for _ in range(7)]
        wide = [row(a=1, b=1, c=1), row(a=1, b=1, c=1, d=1)] * 2 + [row(a=1)]
        for rows in (narrow, wide):
            StoreUpdates(Counts()).apply(metadata_rows(read_frame(rows)))  # type: ignore[arg-type] # what it needs of one

        assert parts == [6, 1, 2, 2, 1]

    @pytest.mark.parametrize("fails_at", [0, 1])
    def test_a_store_that_fails_midway_is_told_in_the_report(
        self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch, fails_at: int
    ) -> None:
        """As long as nothing was changed it raises; afterwards the rest fails, and says why."""
        monkeypatch.setattr(updates, "PART_FIELDS", 2)
        calls: list[int] = []

        class Fails:
            find, query = store.find, store.query

            @staticmethod
            def patch_rows(rows: Iterable[tuple[str, str, Fields]]) -> None:
                calls.append(1)
                if len(calls) > fails_at:
                    raise StoreError("the disk is full")
                store.patch_rows(rows)

        rows = metadata_rows(
            read_frame([row(a=1), row(SECOND, a=1), row(THIRD, a=1), row(FIRST, a=2), row(SECOND, a=2)])
        )
        if not fails_at:
            with pytest.raises(StoreError, match="the disk is full"):
                StoreUpdates(Fails()).apply(rows)  # type: ignore[arg-type] # what it needs of one
            return
        report = StoreUpdates(Fails()).apply(rows)  # type: ignore[arg-type] # as above

        assert (report.spans_updated, len(calls)) == (2, 2)
        assert [error["error_message"] for error in report.errors] == [
            f"[connection_failure] Row {number}: the disk is full" for number in (2, 3, 4)
        ]
        assert metadata_of(store) == {"a": 1}

    def test_the_mask_of_this_process_holds(self, spans: Spans) -> None:
        """What must not be stored is not, whichever way it comes."""
        live_settings.use(live_settings.LiveSettings(mask=Masking(keys=["email"])))

        spans.update_metadata(
            [{"context.span_id": FIRST, "attributes.metadata.email": "a@b.c", "patch_document": {"x": {"email": "d"}}}]
        )

        assert spans.get(FIRST).metadata == {"email": "<masked>", "x": {"email": "<masked>"}}

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.lists(
            st.tuples(
                st.sampled_from([FIRST, SECOND, UNKNOWN, "nope"]),
                st.dictionaries(st.sampled_from("abc"), st.none() | st.integers(0, 9), max_size=3),
                st.dictionaries(st.sampled_from("abc"), st.none() | st.integers(0, 9), max_size=3),
            ),
            max_size=6,
        )
    )
    def test_a_call_is_a_dict_update_for_each_row(
        self, rows: list[tuple[str, dict[str, Json], dict[str, Json]]]
    ) -> None:
        """Columns, then the document, row after row; and the counts add up."""
        store = SqliteStore(":memory:")
        store.write([ended_span(1), ended_span(2)])
        expected: dict[str, dict[str, Json]] = {FIRST: {}, SECOND: {}}
        table = []
        for span_id, columns, document in rows:
            fields = {f"attributes.metadata.{key}": value for key, value in columns.items()}
            table.append({"context.span_id": span_id, **fields, "patch_document": document})
            if span_id in expected:
                expected[span_id] |= {**columns, **document}

        report = Spans(store).update_metadata(table)

        assert {span_id: metadata_of(store, span_id) for span_id in expected} == expected
        assert report.spans_processed == len(rows) == report.spans_updated + report.spans_failed
        assert report.spans_failed == sum(span_id not in expected for span_id, _, _ in rows)
        store.close()


class TestVersions:
    def test_several_versions_ascend_above_all_before(self) -> None:
        """They are as many as were asked for, and what comes next is above them."""
        source = VersionSource(ManualClock(5))
        first = source.next()

        several = list(source.several(3))

        assert [ns for ns, _ in (first, *several, source.next())] == [5, 6, 7, 8, 9]
        assert list(source.several(0)) == []
        assert source.next()[0] > 9


class TestAnnotate:
    def test_every_record_reaches_its_span(self, spans: Spans) -> None:
        """Upserted by name; Arize's other words are taken and mean nothing here."""
        spans.annotate([AnnotateRecordInput(FIRST, [AnnotationInput("q", label="bad"), AnnotationInput("r", score=1)])])
        report = spans.annotate_spans(
            project="p",
            space="s",
            annotations=[{"record_id": FIRST, "values": [{"name": "q", "text": "fine"}]}],
            start_time="2026-01-01",
            end_time="2026-01-02",
        )

        assert report == UpdateReport(spans_updated=1)
        assert spans.get(FIRST).annotations == (Annotation("r", score=1), Annotation("q", text="fine"))

    def test_one_unknown_span_refuses_the_call(self, spans: Spans) -> None:
        """Nothing of it is applied."""
        records = [AnnotateRecordInput(span_id, [AnnotationInput("q", label="x")]) for span_id in (FIRST, UNKNOWN)]

        with pytest.raises(SpanNotFoundError) as error:
            spans.annotate(records)

        assert error.value.span_id == UNKNOWN
        assert spans.get(FIRST).annotations == ()


class TestLogMetadata:
    def test_a_script_for_arize_runs(self, spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
        """With the arguments of either of its clients, and answers by key or by attribute."""
        table = pd.DataFrame({"context.span_id": [FIRST, UNKNOWN], "attributes.metadata.a": [1, 1]})
        with caplog.at_level(logging.INFO, logger="otel_metadata"):
            response = spans.log_metadata(dataframe=table, project_name="p", validate=True, verbose=True)

        assert (response.spans_updated, response["spans_failed"]) == (1, 1)
        assert caplog.messages[0] == "1 of 2 spans updated, 1 failed"
        assert spans.update_metadata(space_id="s", project_name="p", dataframe=table).spans_updated == 1
        assert spans.update_evaluations(
            space_id="s", project_name="p", dataframe=pd.DataFrame({"context.span_id": [FIRST], "eval.A.label": ["x"]})
        ).spans_updated
        assert spans.update_annotations(
            space_id="s",
            project_name="p",
            dataframe=pd.DataFrame({"context.span_id": [FIRST], "annotation.q.label": ["x"]}),
        ).spans_updated

    def test_it_can_be_quiet(self, spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
        """Nothing is logged then."""
        with caplog.at_level(logging.INFO, logger="otel_metadata"):
            spans.log_metadata([row(a=1)], verbose=False)

        assert caplog.messages == []


class TickingClock(ManualClock):
    """A clock on which every wait ends at once, and is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[int | None] = []

    def wait(self, event: threading.Event, timeout_ns: int | None) -> bool:
        self.waits.append(timeout_ns)
        return event.is_set()


class Away:
    """A destination without a store that answers as it is told."""

    def __init__(self, answer: Callable[[Patch], Outcome] | None = None, *, max_batch: int = 2) -> None:
        self.exporter = InMemoryPatchExporter(answer, max_batch=max_batch)
        self.clock = TickingClock()
        self.spans = Spans(om.Destination("away", None, self.exporter, spans=False), self.clock)

    def send(self, *span_ids: int, **metadata: Any) -> UpdateReport:
        return self.spans.update_metadata(
            [
                {**row(f"{span_id:016x}", **(metadata or {"a": span_id})), "context.trace_id": trace_hex(5)}
                for span_id in span_ids
            ]
        )

    @property
    def sent(self) -> list[list[int]]:
        return [[patch.target.span_id for patch in call] for call in self.exporter.calls]


def answers(**by_span: Sequence[Outcome]) -> Callable[[Patch], Outcome]:
    """Return an answer for each try of span s1, s2, …; the last one goes on, all others are delivered."""
    tries: dict[str, int] = {}

    def answer(patch: Patch) -> Outcome:
        name = f"s{patch.target.span_id}"
        tries[name] = tries.get(name, 0) + 1
        told = by_span.get(name, [Delivered()])
        return told[min(tries[name], len(told)) - 1]

    return answer


DOWN = Retry(DeliveryError("connection_failure", "refused"))
GONE = Rejected(DeliveryError("segment_not_found", "no such span"))
LARGE = Rejected(DeliveryError("too_large", "too large"))


class TestDestination:
    def test_rows_leave_in_batches_of_its_size(self) -> None:
        """Each as a patch with its target and fields, in order."""
        away = Away()

        report = away.send(1, 2, 3)

        assert report == UpdateReport(spans_updated=3)
        assert away.sent == [[1, 2], [3]]
        assert away.exporter.patches[0].target == SpanRef(5, 1)
        assert away.exporter.patches[0].metadata() == {"a": 1}
        assert away.clock.waits == []

    def test_rows_of_one_span_are_one_patch(self) -> None:
        """An exporter gets each target once; the later row wins, and an empty one is not sent."""
        away = Away()
        ids = {"context.trace_id": trace_hex(5)}

        report = away.spans.update_metadata([{**row(a=1, b=1), **ids}, {**row(SECOND), **ids}, {**row(a=2), **ids}])

        assert report.spans_updated == 3
        assert [patch.metadata() for patch in away.exporter.patches] == [{"b": 1, "a": 2}]

    def test_a_trace_id_is_needed(self) -> None:
        """Also where there is no frame; a traceparent has both; a single row that lacks it fails alone."""
        away = Away()

        asks: list[Callable[[], object]] = [
            lambda: away.spans.update_metadata([row(a=1)]),
            lambda: away.spans.update(FIRST, metadata={"a": 1}),
        ]
        for ask in asks:
            with pytest.raises(
                ConfigurationError,
                match=r"trace as well \(context\.trace_id in a frame\), or a traceparent: away is no",
            ):
                ask()
        report = away.spans.update_metadata([{**row(a=1), "context.trace_id": trace_hex(5)}, row(SECOND, a=1)])
        assert (report.spans_updated, report.errors[0]["error_type"]) == (1, "segment_not_found")
        assert away.spans.update_metadata(
            [{"traceparent": f"{SpanRef(5, 3)}", "patch_document": {"a": 1}}]
        ).spans_updated
        assert away.sent == [[1], [3]]

    def test_what_is_rejected_fails_alone(self) -> None:
        """With the exporter's words; every row that made the patch fails."""
        away = Away(answers(s2=[GONE]))

        report = away.send(1, 2, 3, 2)

        assert [error["error_message"] for error in report.errors] == [
            "[segment_not_found] Row 1: no such span",
            "[segment_not_found] Row 3: no such span",
        ]
        assert report.spans_updated == 2

    def test_notes_of_the_backend_are_in_the_report(self) -> None:
        """Once, however many rows."""
        away = Away(answers(s1=[Delivered(("metadata.a became text",))], s2=[Delivered(("metadata.a became text",))]))

        assert away.send(1, 2).notes == ("metadata.a became text",)

    def test_a_retry_is_tried_again_after_a_wait(self) -> None:
        """Only what needs it, with a back-off that doubles, or as long as the backend asked."""
        away = Away(answers(s1=[DOWN, Retry(DOWN.error, after_millis=7_000)]), max_batch=3)
        away.exporter.answer = answers(s1=[DOWN, DOWN, Retry(DOWN.error, after_millis=7_000), Delivered()])

        report = away.send(1, 2, 3)

        assert report == UpdateReport(spans_updated=3)
        assert away.sent == [[1, 2, 3], [1], [1], [1]]
        assert away.clock.waits == [1_000_000_000, 2_000_000_000, 7_000_000_000]

    def test_a_patch_that_never_arrives_fails_after_a_few_tries(self) -> None:
        """The others of its batch, and the batches after it, are sent."""
        away = Away(answers(s1=[DOWN]))

        report = away.send(1, 2, 3)

        assert [error["error_message"] for error in report.errors] == ["[connection_failure] Row 0: refused"]
        assert away.sent == [[1, 2], *[[1]] * (MAX_TRIES - 1), [3]]

    def test_a_destination_that_is_down_ends_the_call(self) -> None:
        """When nothing of a batch arrives, the rest is not tried."""
        away = Away(lambda _: DOWN)

        report = away.send(1, 2, 3, 4, 5)

        assert (report.spans_updated, report.spans_failed) == (0, 5)
        assert {error["error_type"] for error in report.errors} == {"connection_failure"}
        assert away.sent == [[1, 2]] * MAX_TRIES

    def test_a_backend_that_asks_for_too_long_ends_the_call(self) -> None:
        """Somebody waits for it."""
        away = Away(answers(s1=[Retry(DOWN.error, after_millis=MAX_WAIT_NS // 1_000_000 + 1)]))

        report = away.send(1, 2, 3)

        assert [error["error_message"] for error in report.errors] == [
            "[connection_failure] Row 0: refused",
            "[connection_failure] Row 2: refused",
        ]
        assert away.clock.waits == []

    def test_a_pause_ends_the_call(self) -> None:
        """Keys that are refused will be refused again; what arrived in the same batch did arrive."""
        away = Away(answers(s2=[Pause(DeliveryError("unauthorized", "the key is refused"))]), max_batch=3)

        report = away.send(1, 2, 3, 4, 5)

        assert report.spans_updated == 2
        assert [error["error_message"] for error in report.errors] == [
            f"[unauthorized] Row {number}: the key is refused" for number in (1, 3, 4)
        ]
        assert away.sent == [[1, 2, 3]]

    def test_what_is_too_large_together_goes_in_parts(self) -> None:
        """At once, down to one; that one fails alone."""
        away = Away(max_batch=4)

        def answer(patch: Patch) -> Outcome:
            company = len(away.exporter.calls[-1])
            return LARGE if company > 2 or patch.target.span_id == 3 else Delivered()

        away.exporter.answer = answer
        report = away.send(1, 2, 3, 4)

        assert [error["error_message"] for error in report.errors] == ["[too_large] Row 2: too large"]
        assert away.sent == [[1, 2, 3, 4], [1, 2], [3, 4], [3]]
        assert away.clock.waits == []

    def test_an_exporter_that_raises_chokes_on_one_patch(self) -> None:
        """It is found by halves, tried again, and fails alone."""
        away = Away(max_batch=4)

        def answer(patch: Patch) -> Outcome:
            if patch.target.span_id == 3:
                raise RuntimeError("secret")
            return Delivered()

        away.exporter.answer = answer
        report = away.send(1, 2, 3, 4)

        assert report.spans_updated == 3
        assert [error["error_message"] for error in report.errors] == [
            "[connection_failure] Row 2: the patch exporter raised; the log says what"
        ]
        assert away.sent == [[1, 2, 3, 4], [1, 2], [3, 4], [3], [4], *[[3]] * (MAX_TRIES - 1)]

    def test_an_outcome_that_is_missing_is_a_retry(self) -> None:
        """As the seam says."""
        away = Away()
        export = away.exporter.export

        def forgetful(patches: Sequence[Patch], *, timeout_millis: int) -> Sequence[Outcome]:
            outcomes = export(patches, timeout_millis=timeout_millis)
            return outcomes[:-1] if len(away.exporter.calls) == 1 else outcomes

        away.exporter.export = forgetful  # type: ignore[method-assign] # a fake that forgets
        report = away.send(1, 2)

        assert report == UpdateReport(spans_updated=2)
        assert away.sent == [[1, 2], [2]]

    @pytest.mark.parametrize("junk", [None, "delivered", Retry("no error")])  # type: ignore[arg-type] # the mistake that is meant
    def test_an_answer_that_is_no_outcome_is_a_retry(self, junk: Any) -> None:
        """As in a pipeline: the exporter may be anybody's."""
        away = Away(answers(s1=[junk, Delivered()], s2=[junk]))

        report = away.send(1, 2)

        assert report.spans_updated == 1
        assert [error["error_message"] for error in report.errors] == [
            "[connection_failure] Row 1: the exporter answered with something else than an outcome"
        ]

    def test_a_row_is_not_sent_in_parts(self) -> None:
        """It is applied whole or not at all, so one that is too large alone fails."""
        away = Away(answers(s1=[LARGE]))

        report = away.send(1, a=1, b=2, c=3)

        assert (report.spans_failed, away.sent) == (1, [[1]])

    def test_closing_ends_the_wait(self) -> None:
        """What it waits for has failed, and nothing more is sent."""
        away = Away(answers(s1=[DOWN]))
        away.spans.close()

        report = away.send(1, 2, 3)

        assert (report.spans_updated, report.spans_failed) == (1, 2)
        assert away.sent == [[1, 2]]

    def test_it_runs_with_instrumentation_suppressed(self) -> None:
        """Requests of ours open no spans; afterwards the context is as before."""
        seen: list[object] = []
        away = Away(lambda _: (seen.append(otel_context.get_value("suppress_instrumentation")), Delivered())[1])

        away.send(1)

        assert seen == [True]
        assert otel_context.get_value("suppress_instrumentation") is None

    def test_evaluations_and_annotations_leave_the_same_way(self) -> None:
        """Of annotate, each record fares by itself: nobody can be asked first."""
        away = Away(answers(s2=[GONE]))
        ids = {"context.span_id": FIRST, "context.trace_id": trace_hex(5)}

        assert away.spans.update_evaluations([{**ids, "eval.A.label": "x"}]).spans_updated == 1
        assert away.spans.update_annotations([{**ids, "annotation.q.label": "x"}]).spans_updated == 1
        report = away.spans.annotate(
            [AnnotateRecordInput(f"{SpanRef(5, number)}", [AnnotationInput("q", "x")]) for number in (1, 2)]
        )
        assert (report.spans_updated, report.spans_failed) == (1, 1)
        assert [name[1] for patch in away.exporter.patches for name in patch.fields] == [
            "evaluation",
            "annotation",
            "annotation",
        ]

    def test_the_client_of_a_destination_updates(self) -> None:
        """And leaves the destination to whoever made it."""
        away = Away()
        with om.Client(om.Destination("away", None, away.exporter, spans=False)) as client:
            assert client.spans.update_metadata([{**row(a=1), "context.trace_id": trace_hex(5)}]).spans_updated == 1

        assert not away.exporter.is_shut_down
