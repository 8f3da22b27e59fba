"""Spans that a Collector wrote are read, patched and found like those that we write."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from tests.clickhouse import collector
from tests.clickhouse.engine import Engine
from tests.store.conditions import KEYS, NUMBERS, TAGS, TEXTS, conditions
from tests.store.contract import END_NS, START_NS, TRACE, OpenStore, ended_span, metadata, only, trace_hex
from tests.store.contract_filters import with_origins
from tests.store.evaluator import holds, subjects_of

import otel_metadata
from otel_metadata.dialects.canonical import VERSIONS, versions_text
from otel_metadata.errors import StoreAccessError
from otel_metadata.exporters.store import StorePatchExporter
from otel_metadata.model.condition import Compare, Condition, HasTag, Subject
from otel_metadata.model.evaluation import Annotation, Evaluation
from otel_metadata.model.merge import FieldName, json_text
from otel_metadata.model.patch import Patch
from otel_metadata.model.record import SpanQuery
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.store import table
from otel_metadata.store.clickhouse import store as clickhouse
from otel_metadata.store.clickhouse.store import ClickHouseStore

FILTERS = 150
SPANS = 60
TRACES = 15

PATCHED: list[FieldName] = [
    ("span", "metadata", "a"), ("trace", "metadata", "a"), ("span", "user_id", ""), ("trace", "user_id", ""),
    ("span", "name", ""), ("span", "status", ""), ("span", "evaluation", "a"),
]  # fmt: skip


@pytest.fixture
def spans(engine: Engine, database: str) -> str:
    """The database of a Collector, empty."""
    collector.make_tables(engine, database)
    return database


class TestReading:
    def test_a_row_is_read_with_its_types(self, engine: Engine, spans: str, open_store: OpenStore) -> None:
        """Text becomes the number, bool or list that it most likely was; other text stays."""
        attributes = {
            "n": 5, "f": 0.5, "big": (1 << 53) + 1, "b": True, "l": ["a", "b"], "t": "text", "empty": "",
            "version": "1.10", "object": '{"a":1}', "null": "null", "huge": "9223372036854775808",
        }  # fmt: skip
        event = {"Events.Timestamp": [f"{START_NS // 10**9}.000000001"], "Events.Name": ["e"]}
        columns = {
            **event,
            "Events.Attributes": [{"x": "1.5"}],
            "Links.TraceId": [trace_hex(3)],
            "Links.SpanId": [f"{4:016x}"],
            "Links.TraceState": [""],
            "Links.Attributes": [{"l": "m"}],
            "ParentSpanId": f"{9:016x}",
            "TraceState": "k=v",
        }
        collector.write(engine, spans, collector.row(attributes=attributes, **columns))

        record = only(open_store())

        assert record.attributes == attributes
        assert json_text(dict(record.attributes)) == json_text(attributes)
        assert record.span.resource == {"service.name": "shop", "process.pid": 7}
        assert (record.project, record.span.scope_name, record.span.scope_version) == ("shop", "scope", "1.2")
        assert (record.span.start_ns, record.span.end_ns) == (START_NS, END_NS)
        assert record.span.events == (
            {"name": "e", "time_ns": START_NS // 10**9 * 10**9 + 1, "attributes": {"x": 1.5}},
        )
        assert record.span.links == ({"trace_id": trace_hex(3), "span_id": f"{4:016x}", "attributes": {"l": "m"}},)
        assert (record.parent_id, record.span.trace_state) == (f"{9:016x}", "k=v")
        assert record.status_message is None

    @pytest.mark.parametrize(
        ("kind", "status", "shown"),
        [
            ("Client", "Error", ("CLIENT", "ERROR")),
            ("SPAN_KIND_SERVER", "STATUS_CODE_OK", ("SERVER", "OK")),
            ("Unspecified", "", ("INTERNAL", "UNSET")),
        ],
    )
    def test_the_words_of_old_and_new_collectors_are_read(
        self, engine: Engine, spans: str, open_store: OpenStore, kind: str, status: str, shown: tuple[str, str]
    ) -> None:
        """With the prefix of the protobuf enum and without, in records and in filters."""
        collector.write(engine, spans, collector.row(SpanKind=kind, StatusCode=status))
        wanted = Compare(Subject("span", "kind"), "=", shown[0])
        and_status = Compare(Subject("span", "status"), "=", shown[1])

        record = only(open_store(), condition=wanted)

        assert (record.kind, record.status_code) == shown
        assert len(open_store().query(SpanQuery(condition=and_status))) == 1

    def test_canonical_attributes_are_fields(self, engine: Engine, spans: str, open_store: OpenStore) -> None:
        """What an application of ours set live is shown as when it writes to a store itself."""
        collector.write(
            engine,
            spans,
            collector.row(
                attributes={
                    "metadata.region": "eu",
                    "metadata.none": "null",
                    "metadata.o": '{"a":[1]}',
                    "otel_metadata.json": ["metadata.none", "metadata.o"],
                    "metadata": '{"of_openinference":1,"region":"elsewhere"}',
                    "user.id": "12345",
                    "tag.tags": ["vip", "é"],
                    "trace.tags": ["t"],
                    "input.value": '{"q":1}',
                    "input.mime_type": "application/json",
                    "output.value": "5",
                    "output.mime_type": "text/plain",
                    "eval.C.label": "true",
                    "eval.C.score": 1,
                    "annotation.q.text": "5",
                    "annotation.q.annotator": "ann",
                    "trace.name": "7",
                    "trace.metadata.k": 1,
                    "own": 1,
                }
            ),
        )

        record = only(open_store())

        assert record.metadata == {"region": "eu", "none": None, "o": {"a": [1]}, "of_openinference": 1}
        assert (record.user_id, record.input, record.output) == ("12345", {"q": 1}, "5")
        assert (set(record.tags), record.trace_tags) == ({"vip", "é"}, ("t",))
        assert record.evaluations == {"C": Evaluation("C", 1, "true")}
        assert record.annotations == (Annotation("q", text="5", annotator="ann"),)
        assert (record.trace_name, record.trace_metadata) == ("7", {"k": 1})
        assert record.attributes == {"own": 1}

    def test_what_the_root_says_of_its_trace_is_seen_from_all_its_spans(
        self, engine: Engine, spans: str, open_store: OpenStore
    ) -> None:
        """Whichever row of the trace a Collector wrote it into, and in filters as well."""
        collector.write(
            engine,
            spans,
            collector.row(1, {"trace.metadata.tier": "gold", "trace.tags": ["vip"]}),
            collector.row(2),
            collector.row(3, TraceId=trace_hex(5)),
        )
        store = open_store()

        assert [record.trace_metadata for record in store.query(SpanQuery(trace_hex()))] == [{"tier": "gold"}] * 2
        for wanted in (Compare(Subject("trace", "metadata", "tier"), "=", "gold"), HasTag("trace", "vip")):
            assert {record.span_id[-1] for record in store.query(SpanQuery(condition=wanted))} == {"1", "2"}

    @pytest.mark.parametrize("at_once", [1, 1_000])
    def test_a_span_that_was_sent_twice_is_shown_once(
        self, engine: Engine, spans: str, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, at_once: int
    ) -> None:
        """A Collector that got no answer sends again, and both rows stay in the table."""
        monkeypatch.setattr(clickhouse, "_MAX_IDS", at_once)
        store = open_store()
        for _ in range(2):
            collector.write(engine, spans, *(collector.row(at) for at in (1, 2, 3)))

        assert [record.span_id[-1] for record in store.query(SpanQuery())] == ["3", "2", "1"]
        assert [record.span_id[-1] for record in store.query(SpanQuery(limit=2))] == ["3", "2"]
        assert [record.span_id[-1] for record in store.query(SpanQuery(limit=None))] == ["3", "2", "1"]
        assert len(store.find([f"{1:016x}"])) == 1

    def test_versions_that_the_span_names_are_heard(self, engine: Engine, spans: str, open_store: OpenStore) -> None:
        """What was joined to the span in flight is later than its end, and yields only to what is later still."""
        early, late = (END_NS + 1, 5), (END_NS + 9, 5)
        names: list[FieldName] = [("span", "metadata", "k"), ("trace", "user_id", ""), ("span", "name", "")]
        said = versions_text(dict.fromkeys(names, (None, late)))
        attributes = {"metadata.k": "joined", "user.id": "of-trace", "otel_metadata.versions": said}
        collector.write(engine, spans, collector.row(1, attributes, SpanName="renamed"), collector.row(2))
        store = open_store()
        store.patch([Patch(SpanRef(TRACE, 1), dict.fromkeys(names, ("patched", early)))])

        records = {record.span_id[-1]: record for record in store.query(SpanQuery())}
        assert (records["1"].metadata, records["1"].name) == ({"k": "joined"}, "renamed")
        assert [record.user_id for record in records.values()] == ["of-trace"] * 2
        for subject, value, found in (
            (Subject("span", "metadata", "k"), "joined", 1),
            (Subject("span", "name"), "renamed", 1),
            (Subject("span", "user_id"), "of-trace", 2),
            (Subject("span", "metadata", "k"), "patched", 0),
        ):
            assert len(store.query(SpanQuery(condition=Compare(subject, "=", value)))) == found

    def test_a_table_without_ours_beside_it_says_what_to_run(self, engine: Engine, spans: str) -> None:
        """A program that only reads makes no tables."""
        collector.write(engine, spans, collector.row())
        store = ClickHouseStore(engine.url(spans), create=False)

        with pytest.raises(StoreAccessError, match=r"error 60, UNKNOWN_TABLE.*docs/clickhouse.md"):
            store.query(SpanQuery())

        assert [row["name"] for row in engine.run(f"SHOW TABLES FROM {spans}")] == ["otel_traces"]


class TestHistory:
    def test_a_row_of_a_collector_is_the_beginning_of_a_history(
        self, engine: Engine, spans: str, open_store: OpenStore
    ) -> None:
        """What came with the span, before and after its end, on this row or on another one of the trace."""
        said = versions_text({("span", "metadata", "joined"): (None, (END_NS + 5, 7))})
        attributes = {"metadata.k": "up", "metadata.joined": 1, "trace.metadata.tier": "gold", VERSIONS: said}
        collector.write(engine, spans, collector.row(1, attributes), collector.row(2))
        store = open_store()
        for span_id, name in ((1, ("span", "metadata", "k")), (2, ("trace", "metadata", "tier"))):
            store.patch([Patch(SpanRef(TRACE, span_id), {name: ("late", (END_NS + 9, 3))})])  # type: ignore[dict-item]

        def shown(span_id: str) -> list[tuple[Any, ...]]:
            return [(one.key, one.value, one.route, one.is_current) for one in store.history(trace_hex(), span_id)]

        of_trace = [("tier", "late", "late", True), ("tier", "gold", "live", False)]
        assert shown("") == shown(f"{2:016x}") == of_trace
        assert sorted(shown(f"{1:016x}")) == sorted(
            [*of_trace, ("k", "late", "late", True), ("k", "up", "live", False), ("joined", 1, "in_flight", True)]
        )
        then = only(store, span_id=f"{1:016x}", at_ns=END_NS)
        assert (then.metadata, then.trace_metadata) == ({"k": "up"}, {"tier": "gold"})
        assert only(store, span_id=f"{1:016x}").metadata == {"k": "late", "joined": 1}

    def test_a_row_of_a_collector_is_exported_with_its_history(
        self, engine: Engine, spans: str, open_store: OpenStore
    ) -> None:
        """Until otel-metadata has written the span: then the row no longer counts."""
        collector.write(engine, spans, collector.row(1, {"metadata.k": "up"}))
        store = open_store()
        store.patch([Patch(SpanRef(TRACE, 1), {("span", "metadata", "k"): ("late", (END_NS + 9, 3))})])
        span_id = f"{1:016x}"

        def exported() -> list[Any]:
            (batch,) = store.export(SpanQuery())
            return [orjson.loads(batch[name].to_pylist()[0] or "[]") for name in (table.ROUTES, table.HISTORY)]

        assert exported() == [["late"], [["span", "metadata", "k", END_NS, "0" * 16, "up", "live"]]]
        assert [one.value for one in store.history(trace_hex(), span_id)] == ["late", "up"]

        store.write([ended_span(1)])

        assert exported() == [["late"], []]
        assert [one.value for one in store.history(trace_hex(), span_id)] == ["late"]

    def test_quick_reads_see_what_a_collector_wrote(self, engine: Engine, spans: str, open_store: OpenStore) -> None:
        """Each span once, also if a Collector sent it twice."""
        for _ in range(2):
            collector.write(
                engine,
                spans,
                collector.row(1, StatusCode="Error"),
                collector.row(2, {"trace.name": "checkout"}, ParentSpanId=f"{1:016x}"),
            )
        store: Any = open_store()

        assert [one.span_id[-1] for one in store.outline(trace_hex())] == ["1", "2"]
        (row,) = store.traces(SpanQuery()).traces
        assert (row.name, row.root_span_id[-1], row.spans, row.errors, row.late_values) == ("checkout", "1", 2, 1, 0)
        assert store.count(SpanQuery()).counted == 2
        (bar,) = store.histogram(SpanQuery(), start_ns=START_NS - 10, width_ns=10**9, bars=1).bars
        assert (bar.spans, bar.errors) == (2, 1)


class TestLate:
    def test_a_patch_lies_over_what_the_collector_wrote(
        self, engine: Engine, spans: str, open_store: OpenStore
    ) -> None:
        """Field by field, by version, whichever comes first; the row itself is not touched."""
        store = open_store()
        late = {("span", "metadata", "late"): (None, (END_NS + 1, 1)), ("span", "output", ""): ("x", (END_NS + 1, 1))}
        store.patch([Patch(SpanRef(TRACE, 1), late)])  # type: ignore[arg-type]
        collector.write(engine, spans, collector.row(1, {"metadata.live": 1, "output.value": "y", "a": 1}))
        store.patch([Patch(SpanRef(TRACE, 1), metadata(live="older than the end"))])

        record = only(store)

        assert (record.metadata, record.output) == ({"live": 1, "late": None}, "x")
        assert record.span.attributes == {"a": 1}
        assert engine.run(f"SELECT count() AS n FROM {spans}.otel_traces") == [{"n": 1}]

    def test_another_duration_leaves_everything_else_of_a_row(
        self, engine: Engine, spans: str, open_store: OpenStore
    ) -> None:
        """A row of ours follows the Collector's. The values in that keep their versions and routes."""
        store = open_store()
        assert isinstance(store, ClickHouseStore)
        store.patch([Patch(SpanRef(TRACE, 1), metadata(late=1))])
        said = {"metadata.live": 1, "trace.tags": ["t"], "user.id": "u", "output.value": "y", "a": 1}
        collector.write(engine, spans, collector.row(1, said), collector.row(2))
        before, other = (only(store, span_id=f"{at:016x}") for at in (1, 2))
        history = store.history(trace_hex(), before.span_id)

        store.set_durations([(trace_hex(), before.span_id, 7)])

        after = only(store, span_id=before.span_id)
        assert after.span == replace(before.span, end_ns=START_NS + 7)
        assert (after.metadata, after.trace_tags, after.user_id) == ({"live": 1, "late": 1}, ("t",), "u")
        assert store.history(trace_hex(), before.span_id) == history
        assert only(store, span_id=other.span_id) == other

    def test_an_application_patches_a_span_by_its_traceparent(
        self, engine: Engine, spans: str, open_store: OpenStore
    ) -> None:
        """`configure("clickhouse://…")` and `update_span`, in a process that never saw the span."""
        collector.write(engine, spans, collector.row(1, {"metadata.region": "eu"}))
        pipeline = otel_metadata.configure(engine.url(spans))
        target = SpanRef(TRACE, 1).to_traceparent()

        receipt = otel_metadata.update_span(target, metadata={"thumbs": "up", "none": None})
        otel_metadata.score_span(target, "Correctness", score=0.5, label="partly")
        assert otel_metadata.flush()

        assert receipt.route == "late"
        with otel_metadata.Client(engine.url(spans)) as client:
            record = client.spans.get(target)
        assert record.metadata == {"region": "eu", "thumbs": "up", "none": None}
        assert record.evaluations["Correctness"].label == "partly"
        assert pipeline.stats().destinations["clickhouse"].delivered == 2

    def test_only_what_comes_late_is_sent_where_a_collector_sends_the_spans(
        self, engine: Engine, spans: str, open_store: OpenStore
    ) -> None:
        """The application's own spans leave by the Collector alone, and its updates find them there."""
        patches = StorePatchExporter(open_store(), "clickhouse")
        otel_metadata.configure(otel_metadata.Destination("clickhouse", None, patches, spans=False))
        with otel_metadata.start_span("work") as span:
            ref = otel_metadata.current_span_ref()
        span.update(metadata={"late": 1})
        assert otel_metadata.flush()
        assert ref is not None
        assert open_store().query(SpanQuery()) == []

        collector.write(
            engine, spans, collector.row(TraceId=ref.trace_id_hex, SpanId=ref.span_id_hex, SpanName="of the collector")
        )

        record = only(open_store())
        assert (record.name, record.metadata) == ("of the collector", {"late": 1})


def rows() -> Iterator[dict[str, Any]]:
    """Yield rows with attributes that filters ask for."""
    chance = random.Random(3)

    def some(names: Any, values: Any) -> dict[str, Any]:
        return {name: chance.choice(values) for name in names if chance.random() < 0.35}

    scalars = [*TEXTS, *NUMBERS, True, False, ["a", "b"]]
    for number in range(SPANS):
        attributes = {**some(KEYS, scalars)}
        for prefix in ("", "trace."):
            share = KEYS if not prefix else KEYS[number % 9 : number % 9 + 2]
            attributes |= some([f"{prefix}metadata.{key}" for key in share], scalars)
            attributes |= some(
                [f"{prefix}eval.{key}.{part}" for key in share[:3] for part in ("label", "explanation")], TEXTS
            )
            attributes |= some([f"{prefix}eval.{key}.score" for key in share[:3]], NUMBERS)
            attributes |= some(
                [f"{prefix}annotation.{key}.{part}" for key in share[:3] for part in ("label", "text")], TEXTS
            )
            attributes |= some([f"{prefix}annotation.{key}.annotator" for key in share[:3]], ["ann"])
            attributes |= some([f"{prefix}{name}.value" for name in ("input", "output")], TEXTS)
            attributes |= some([f"{prefix or 'tag.'}tags"], [list(TAGS), ["vip"], []])
        attributes |= some(["user.id", "session.id", "trace.name"], TEXTS)
        nulls = some([f"metadata.{key}" for key in KEYS], ["null", '{"a":1}'])
        if nulls:
            attributes |= {**nulls, "otel_metadata.json": list(nulls)}
        if chance.random() < 0.3:
            attributes["metadata"] = json_text(some(KEYS, scalars))
        if chance.random() < 0.5:
            every: list[FieldName] = [
                *PATCHED, ("span", "tag", "vip"), ("trace", "evaluation", "a"), ("span", "annotation", "a"),
            ]  # fmt: skip
            said = {name: (None, (END_NS + 100 + number, 7)) for name in every if chance.random() < 0.5}
            attributes["otel_metadata.versions"] = versions_text(said)  # type: ignore[arg-type]
        yield collector.row(
            number + 1,
            attributes,
            TraceId=trace_hex(number % TRACES + 1),
            # Of two verdicts on one trace with one version the evaluator compares the whole, a filter the part.
            Duration=END_NS - START_NS + number,
            SpanName=chance.choice(TEXTS),
            StatusCode=chance.choice(["Unset", "Ok", "Error"]),
            ResourceAttributes={key: collector.text(value) for key, value in some(KEYS, scalars).items()},
        )


@pytest.fixture(scope="module")
def filled(running_engine: Engine) -> Iterator[ClickHouseStore]:
    database = running_engine.new_database()
    collector.make_tables(running_engine, database)
    collector.write(running_engine, database, *rows())
    store = ClickHouseStore(running_engine.url(database))
    chance = random.Random(4)
    for number in range(0, SPANS, 3):
        version = (END_NS + chance.randint(-20, 200), 8)
        values = {name: (chance.choice(TEXTS), version) for name in PATCHED if chance.random() < 0.5}
        values |= {name: (Evaluation("a", 1, "ab").to_json(), version) for name in values if name[1] == "evaluation"}  # type: ignore[misc]
        store.patch([Patch(SpanRef(number % TRACES + 1, number + 1), values)])  # type: ignore[arg-type]
    yield store
    store.close()


def test_filters_find_what_a_collector_wrote(filled: ClickHouseStore) -> None:
    """Random filters over rows whose every attribute is text, with patches over some of them."""
    judged = with_origins(filled)
    assert len(judged) == SPANS

    @settings(max_examples=FILTERS)
    # A late value that the row supersedes is counted (docs/clickhouse.md).
    @given(wanted=conditions().filter(lambda one: all(subject.kind != "late_count" for subject in subjects_of(one))))
    def select(wanted: Condition) -> None:
        found = [record.position for record in filled.query(SpanQuery(condition=wanted, limit=None))]
        assert found == [record.position for record, origins in judged if holds(wanted, record, origins)]

    select()
