"""What every span store promises, with the pure merge function as the judge.

A store's test module subclasses `StoreContract` and gives a fixture `open_store`: each call opens the same spans by
another connection, as another process would.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceState
from tests.store.spans import END_NS, START_NS, TRACE, ended_span, metadata, only, trace_hex
from tests.strategies import field_sets, versions

from otel_metadata.model.authors import AUTHORS
from otel_metadata.model.evaluation import Annotation, Evaluation, annotation_key
from otel_metadata.model.merge import Field, FieldName, Fields, Json, json_text, merge_into
from otel_metadata.model.patch import Patch
from otel_metadata.model.record import Position, SpanQuery, SpanRecord, StoredKey, StoredSpan, assemble
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.seams import AuthorReads, DurationStore, SpanStore, VersionReads

OpenStore: TypeAlias = Callable[[], SpanStore]

# Each example has a trace of its own, so that all of them share one store.
_traces = itertools.count(1 << 64)

SUPPRESSED = [
    HealthCheck.function_scoped_fixture,
    HealthCheck.too_slow,
    HealthCheck.differing_executors,  # each store runs the tests in a class of its own
]

in_one_store = settings(suppress_health_check=SUPPRESSED)


class DurationContract:
    """What a store promises that can change durations. That of a server cannot: no server has it for a store."""

    def test_a_duration_moves_the_end_alone(self, open_store: OpenStore) -> None:
        """Whatever was written before stays, and so does the row of a span that comes again."""
        store = open_store()
        assert isinstance(store, DurationStore)
        one = (trace_hex(), f"{1:016x}")
        store.write([ended_span(1, attributes={"a": 1}, fields=metadata(k=1)), ended_span(2)])
        store.patch_rows([(*one, metadata(late=2))])
        before = only(store, span_id=one[1])

        store.set_durations([(*one, 7), (trace_hex(), f"{3:016x}", 7), (trace_hex(9), f"{2:016x}", 7)])

        after = only(store, span_id=one[1])
        assert after.span == replace(before.span, end_ns=START_NS + 7)
        assert after.metadata == {"k": 1, "late": 2}
        assert store.find([f"{3:016x}", f"{2:016x}"]) == {f"{2:016x}": StoredKey(trace_hex(), START_NS, END_NS)}
        store.set_durations([(*one, (1 << 62) - 1), (*one, (1 << 63) - 1)])
        assert only(store, span_id=one[1]).span.end_ns == (1 << 63) - 1
        store.write([ended_span(1, attributes={"a": 2})])
        assert only(store, span_id=one[1]).span == replace(before.span, attributes={"a": 2})
        store.delete([one], (END_NS + 5, 1))
        store.set_durations([(*one, 1 << 60)])
        assert store.find([one[1]]) == {}


class StoreContract:
    """The tests; a subclass gives the fixture `open_store`.

    Attributes:
        last_ns: The latest time that a version may have.
    """

    last_ns = (1 << 63) - 1

    @pytest.fixture
    def store(self, open_store: OpenStore) -> SpanStore:
        return open_store()

    # Merging

    @in_one_store
    @given(data=st.data())
    def test_any_order_and_any_repetition_lead_to_the_same_record(self, store: SpanStore, data: st.DataObject) -> None:
        """Patches and the span in any order, any of them again: the record is what the pure merge says."""
        trace_id, span_id = next(_traces), 7
        target = SpanRef(trace_id, span_id)
        # The span carries its fields exactly; canonical attributes would be fields too.
        sets = data.draw(
            st.lists(field_sets(max_size=5, version=versions(self.last_ns)), min_size=1, max_size=5), label="field sets"
        )
        span = ended_span(span_id, trace_id=trace_id, fields=sets[0])
        steps: list[Any] = [span, *(Patch(target, fields) for fields in sets[1:])]
        again = data.draw(st.lists(st.sampled_from(steps), max_size=4), label="again")
        order = data.draw(st.permutations([*steps, *again]), label="order")
        judged: dict[FieldName, Field] = {}
        for fields in sets:
            merge_into(judged, fields)

        for step in order:
            if step is span:
                store.write([span])
            elif data.draw(st.booleans(), label="as rows"):
                store.patch_rows([(trace_hex(trace_id), f"{span_id:016x}", step.fields)])
            else:
                store.patch([step])

        record = only(store, trace_id=trace_hex(trace_id))
        assert_same(record, assemble(record.span, judged))

    @in_one_store
    @given(data=st.data())
    def test_one_batch_is_the_same_as_one_by_one(self, store: SpanStore, data: st.DataObject) -> None:
        """How patches are batched makes no difference, for several spans of several traces in one batch as well."""
        sets = data.draw(st.lists(field_sets(max_size=4, version=versions(self.last_ns)), min_size=2, max_size=4))
        records = []
        for is_one_batch in (True, False):
            trace_id = next(_traces)
            patches = [Patch(SpanRef(trace_id, 1 + at % 2), fields) for at, fields in enumerate(sets)]
            store.write([ended_span(1, trace_id=trace_id), ended_span(2, trace_id=trace_id)])
            for batch in [patches] if is_one_batch else [[patch] for patch in patches]:
                store.patch(batch)
            records.append(sorted(store.query(SpanQuery(trace_hex(trace_id))), key=lambda record: record.span_id))

        for together, apart in zip(*records, strict=True):
            assert_same(together, assemble(together.span, {}), ids_only=True)
            assert shown(together) == shown(apart)

    def test_fields_may_come_before_their_span(self, store: SpanStore) -> None:
        """A patch for a span that is not there yet waits for it, and shows nothing meanwhile."""
        store.patch([Patch(SpanRef(TRACE, 1), metadata(thumbs="up"))])
        assert store.query(SpanQuery()) == []

        store.write([ended_span()])

        assert only(store).metadata == {"thumbs": "up"}

    def test_a_span_that_is_written_again_keeps_its_fields(self, store: SpanStore) -> None:
        """The row is replaced, the fields are merged."""
        store.write([ended_span(name="first", attributes={"a": 1}, fields=metadata(at_end=1))])
        store.patch([Patch(SpanRef(TRACE, 1), metadata(late=None))])

        store.write([ended_span(name="second", attributes={"b": 2})])

        record = only(store)
        assert (record.name, record.attributes) == ("second", {"b": 2})
        assert record.metadata == {"at_end": 1, "late": None}

    def test_fields_of_the_trace_are_seen_from_all_its_spans(self, store: SpanStore) -> None:
        """Whichever span of a trace they came by, and for a bare trace id as well."""
        store.write([ended_span(1, fields=metadata("trace", by_span=1)), ended_span(2), ended_span(3, trace_id=5)])
        store.patch([Patch(SpanRef(TRACE, 2), metadata("trace", by_patch=2))])
        store.patch([Patch(SpanRef(TRACE, 0), {**metadata("trace", bare=3), ("trace", "user_id", ""): ("u", (1, 1))})])

        records = store.query(SpanQuery(trace_hex()))

        assert [(record.trace_metadata, record.user_id, record.metadata) for record in records] == [
            ({"bare": 3, "by_patch": 2, "by_span": 1}, "u", {})
        ] * 2
        assert only(store, trace_id=trace_hex(5)).trace_metadata == {}

    def test_everything_that_was_said_of_a_trace_can_be_read(self, store: SpanStore) -> None:
        """Input, output, evaluations and annotations of the trace are on the records of its spans, beside their own."""
        verdict, note = Evaluation("C", 1.0, "ok"), Annotation("q", text="hm", annotator="ann")
        version = (START_NS, 1)
        store.write([ended_span(1), ended_span(2)])
        store.patch(
            [
                Patch(
                    SpanRef(TRACE, 1),
                    {
                        ("trace", "input", ""): ({"q": None}, version),
                        ("trace", "output", ""): ("a", version),
                        ("trace", "evaluation", "C"): (verdict.to_json(), version),
                        ("trace", "annotation", annotation_key("q", "ann")): (note.to_json(), version),
                    },
                )
            ]
        )

        for record in store.query(SpanQuery(trace_hex())):
            assert (record.trace_input, record.trace_output) == ({"q": None}, "a")
            assert (record.trace_evaluations, record.trace_annotations) == ({"C": verdict}, (note,))
            assert (record.input, record.output, record.evaluations, record.annotations) == (None, None, {}, ())

    def test_the_same_span_id_in_another_trace_is_another_span(self, store: SpanStore) -> None:
        """Span ids are unique only within their trace."""
        store.write([ended_span(1, trace_id=5), ended_span(1, trace_id=6)])
        store.patch([Patch(SpanRef(5, 1), metadata(k=1))])

        assert [only(store, trace_id=trace_hex(at)).metadata for at in (5, 6)] == [{"k": 1}, {}]

    def test_an_older_version_that_comes_later_changes_nothing(self, store: SpanStore) -> None:
        """What is later is decided by the version, never by the arrival."""
        name: FieldName = ("span", "output", "")
        store.write([ended_span()])
        store.patch([Patch(SpanRef(TRACE, 1), {name: ("new", (9, 1))})])

        store.patch([Patch(SpanRef(TRACE, 1), {name: ("old", (8, 9))})])

        assert only(store).output == "new"

    @pytest.mark.parametrize("writers", [(1 << 63, (1 << 63) - 1), ((1 << 64) - 1, 0), (16, 9)])
    def test_writers_are_compared_as_unsigned_numbers(self, store: SpanStore, writers: tuple[int, int]) -> None:
        """All 64 bits of the writer decide within one nanosecond."""
        name: FieldName = ("span", "output", "")
        store.write([ended_span()])
        higher, lower = ((START_NS, writer) for writer in writers)

        store.patch([Patch(SpanRef(TRACE, 1), {name: ("higher", higher)})])
        store.patch([Patch(SpanRef(TRACE, 1), {name: ("lower", lower)})])

        assert only(store).output == "higher"

    def test_an_empty_batch_changes_nothing(self, store: SpanStore) -> None:
        """No spans and no patches are no error."""
        store.write([])
        store.patch([])

        assert store.query(SpanQuery()) == []

    # What a span becomes

    def test_a_span_is_kept_whole(self, store: SpanStore) -> None:
        """Everything that OTLP says of a span comes back, its fields beside it."""
        span = ended_span(
            attributes={"a": [1, 2], "b": True, "metadata.plain": 1, "user.id": "u"},
            parent=SpanContext(TRACE, 9, is_remote=True),
            context={"trace_state": TraceState([("k", "v")])},
            kind=SpanKind.CLIENT,
            status=Status(StatusCode.ERROR, "no"),
            events=[Event("e", {"x": 1.5}, timestamp=START_NS + 1)],
            links=[Link(SpanContext(3, 4, is_remote=True), {"l": "m"})],
            resource=Resource({"service.name": "s"}),
            instrumentation_scope=InstrumentationScope("scope", "1.2"),
            fields={
                ("span", "input", ""): ({"q": None}, (START_NS, 1)),
                ("span", "tag", "b"): (True, (START_NS, 1)),
                ("span", "tag", "a"): (True, (START_NS + 1, 1)),
                ("span", "evaluation", "C"): (Evaluation("C", 1.0, "ok").to_json(), (START_NS, 1)),
                ("span", "annotation", annotation_key("q", "ann")): (
                    Annotation("q", text="hm", annotator="ann").to_json(),
                    (START_NS, 1),
                ),
            },
        )

        store.write([span])

        assert only(store) == SpanRecord(
            trace_id=trace_hex(),
            span_id="0000000000000001",
            parent_id="0000000000000009",
            name="work",
            kind="CLIENT",
            start_time=dt.datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=dt.timezone.utc),
            end_time=dt.datetime(2023, 11, 14, 22, 13, 20, 124456, tzinfo=dt.timezone.utc),
            status_code="ERROR",
            status_message="no",
            attributes={"a": [1, 2], "b": True},
            metadata={"plain": 1},
            trace_metadata={},
            trace_name=None,
            user_id="u",
            session_id=None,
            tags=("b", "a"),
            trace_tags=(),
            input={"q": None},
            output=None,
            trace_input=None,
            trace_output=None,
            evaluations={"C": Evaluation("C", 1.0, "ok")},
            annotations=(Annotation("q", text="hm", annotator="ann"),),
            trace_evaluations={},
            trace_annotations=(),
            span=StoredSpan(
                trace_id=trace_hex(),
                span_id="0000000000000001",
                parent_id="0000000000000009",
                trace_state="k=v",
                name="work",
                kind="CLIENT",
                start_ns=START_NS,
                end_ns=END_NS,
                status_code="ERROR",
                status_message="no",
                attributes={"a": [1, 2], "b": True},
                events=({"name": "e", "time_ns": START_NS + 1, "attributes": {"x": 1.5}},),
                links=({"trace_id": trace_hex(3), "span_id": f"{4:016x}", "attributes": {"l": "m"}},),
                resource={"service.name": "s"},
                scope_name="scope",
                scope_version="1.2",
            ),
        )

    def test_exact_fields_win_over_what_the_attributes_say(self, store: SpanStore) -> None:
        """The spelling of a field on the span is not read a second time, nor shown as an attribute."""
        store.write(
            [
                ended_span(
                    attributes={"metadata.k": "null", "otel_metadata.json": ["metadata.k"], "metadata.j": 5, "x": 1},
                    fields=metadata(k=None, j=6),
                )
            ]
        )

        record = only(store)
        assert (record.metadata, record.attributes) == ({"k": None, "j": 6}, {"x": 1})

    def test_tags_that_the_application_set_by_itself_stay(self, store: SpanStore) -> None:
        """Exact tags are added to those of the attribute, which the dialect has united with them."""
        store.write(
            [ended_span(attributes={"tag.tags": ["own", "ours"]}, fields={("span", "tag", "ours"): (True, (1, 1))})]
        )

        assert only(store).tags == ("ours", "own")

    def test_what_an_earlier_annotation_left_on_the_span_is_no_annotation(self, store: SpanStore) -> None:
        """Of a note that was set again without its text, the text on the live span is not another note."""
        note = Annotation("q", label="good", annotator="ann")
        store.write(
            [
                ended_span(
                    attributes={
                        "annotation.q.label": "good",
                        "annotation.q.annotator": "ann",
                        "annotation.q.text": "old",
                    },
                    fields={("span", "annotation", annotation_key("q", "ann")): (note.to_json(), (1, 1))},
                )
            ]
        )

        assert only(store).annotations == (note,)

    @pytest.mark.parametrize("bad", ["\ud800", "a\0b", "x" * 300_000], ids=["surrogate", "NUL", "long"])
    def test_a_text_that_cannot_be_stored_loses_no_sibling(self, store: SpanStore, bad: str) -> None:
        """OpenTelemetry keeps names and descriptions as they were given; the batch is stored all the same."""
        broken = ended_span(
            2,
            name=bad,
            attributes={"k": bad},
            status=Status(StatusCode.ERROR, bad),
            events=[Event(bad, {bad: bad}, timestamp=1)],
            instrumentation_scope=InstrumentationScope(bad, bad),
        )

        store.write([ended_span(1), broken, ended_span(3)])

        assert {record.span_id[-1] for record in store.query(SpanQuery())} == {"1", "2", "3"}

    @pytest.mark.parametrize(
        ("status", "shown_as"), [("ok", "OK"), ("error", "ERROR"), (404, 404), (None, "UNSET"), (True, "UNSET")]
    )
    def test_a_late_status_stands_over_the_spans_own(self, store: SpanStore, status: Json, shown_as: str | int) -> None:
        """A word or an integer code; what is neither leaves the span's own."""
        store.write([ended_span()])

        store.patch([Patch(SpanRef(TRACE, 1), {("span", "status", ""): (status, (END_NS, 1))})])

        assert only(store).status_code == shown_as

    # Asking

    def test_the_newest_start_comes_first(self, store: SpanStore) -> None:
        """Whatever the order of writing, and at most as many as asked for."""
        store.write([ended_span(at, start_ns=START_NS + start) for at, start in ((1, 20), (2, 0), (3, 30), (4, 10))])

        assert [record.span_id[-1] for record in store.query(SpanQuery())] == ["3", "1", "4", "2"]
        assert [record.span_id[-1] for record in store.query(SpanQuery(limit=2))] == ["3", "1"]

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            (SpanQuery(trace_id=trace_hex(5)), ["1", "2"]),
            (SpanQuery(span_id=f"{1:016x}"), ["1", "1"]),
            (SpanQuery(trace_hex(6), f"{1:016x}"), ["1"]),
            (SpanQuery(trace_hex(7)), []),
            (SpanQuery(span_id="' OR 1=1 --"), []),
        ],
    )
    def test_ids_select(self, store: SpanStore, query: SpanQuery, found: list[str]) -> None:
        """A trace, a span id in any trace, or one span."""
        store.write([ended_span(1, trace_id=5), ended_span(2, trace_id=5), ended_span(1, trace_id=6)])

        assert sorted(record.span_id[-1] for record in store.query(query)) == found

    def test_a_window_a_project_and_a_place_select(self, store: SpanStore) -> None:
        """Each alone and all together; a window takes its start in and leaves its end out."""
        shop, other = Resource({"service.name": "shop"}), Resource({"service.name": 5})
        store.write([ended_span(at, start_ns=START_NS + at, resource=shop if at % 2 else other) for at in range(1, 8)])

        def found(**query: Any) -> str:
            return "".join(record.span_id[-1] for record in store.query(SpanQuery(**query)))

        assert found(start_ns=START_NS + 3) == "76543"
        assert found(end_ns=START_NS + 3) == "21"
        assert found(project="shop") == "7531"
        assert found(project="5") == ""
        assert found(after=Position(START_NS + 4, trace_hex(), f"{4:016x}")) == "321"
        assert found(project="shop", start_ns=START_NS + 2, end_ns=START_NS + 7, limit=1) == "5"
        assert found(project="shop", after=Position(START_NS + 5, trace_hex(), f"{5:016x}"), limit=None) == "31"

    def test_every_span_is_on_one_page(self, store: SpanStore) -> None:
        """Also where many started in the same nanosecond; of those the higher ids come first."""
        spans = [ended_span(at % 4 + 1, trace_id=1 << at, start_ns=START_NS + at // 8) for at in range(20)]
        store.write(spans)

        pages: list[SpanRecord] = []
        after = None
        while page := store.query(SpanQuery(limit=3, after=after)):
            after = page[-1].position
            pages += page

        positions = [record.position for record in pages]
        assert positions == sorted(positions, reverse=True)
        assert len(set(positions)) == len(spans)

    def test_a_span_id_is_found_in_its_newest_trace(self, store: SpanStore) -> None:
        """All that are there, with their times; what is not there is left out."""
        store.write([ended_span(1, trace_id=5), ended_span(1, trace_id=3, start_ns=START_NS + 9), ended_span(2)])

        one, two = f"{1:016x}", f"{2:016x}"

        assert store.find([one, two, one, f"{3:016x}", "' OR 1=1 --"]) == {
            one: StoredKey(trace_hex(3), START_NS + 9, END_NS + 9),
            two: StoredKey(trace_hex(), START_NS, END_NS),
        }
        assert store.find([]) == {}

    def test_the_versions_of_fields_are_read(self, store: SpanStore) -> None:
        """Of a span, a trace, any span of a trace, and a tag, whose earliest counts; what is not set has none."""
        if not isinstance(store, VersionReads):
            pytest.skip("the store does not have it")
        store.write([ended_span(1)])
        name, tag = ("span", "metadata", "a'\\b"), ("span", "tag", "vip")
        for version in ((5, 1), (7, 2), (6, 3)):
            store.patch_rows([(trace_hex(), f"{1:016x}", {name: ("x" * version[0], version), tag: (True, version)})])
        store.patch_rows([(trace_hex(), f"{1:016x}", {("trace", "name", ""): ("n", (9, (1 << 64) - 1))})])
        asked = [
            (trace_hex(), f"{1:016x}", name),
            (trace_hex(), f"{1:016x}", tag),
            (trace_hex(), "", ("trace", "name", "")),
            (trace_hex(), "", name),
            (trace_hex(), f"{2:016x}", name),
            (trace_hex(), f"{1:016x}", ("span", "name", "")),
        ]
        found = {asked[0]: (7, 2), asked[1]: (5, 1), asked[2]: (9, (1 << 64) - 1)}
        assert store.versions(asked) == {**found, asked[3]: (7, 2)}
        assert store.versions([]) == {}
        store.write([ended_span(2), ended_span(3, trace_id=2)])
        store.patch_rows([(trace_hex(), f"{2:016x}", {name: ("y", (8, 1))})])
        store.patch_rows([(trace_hex(2), f"{3:016x}", {name: ("z", (9, 1))})])
        on_any_span = trace_hex(), "", name
        assert store.versions([on_any_span]) == {on_any_span: (8, 1)}

    def test_authors_are_found_by_their_writers(self, store: SpanStore) -> None:
        if not isinstance(store, AuthorReads):
            pytest.skip("the store does not look up authors")
        AUTHORS.add(0xA1, "ada")
        AUTHORS.add((1 << 64) - 1, "nightly judge")
        fields: Fields = {
            ("span", "metadata", f"{writer:x}"): (1, (5, writer)) for writer in (0xA1, 0xA2, (1 << 64) - 1)
        }
        store.write([ended_span(1, fields=fields)])
        assert store.authors([0xA1, 0xA2, (1 << 64) - 1]) == {0xA1: "ada", (1 << 64) - 1: "nightly judge"}
        assert store.authors([]) == {}

    def test_rows_are_written_as_spans_are(self, store: SpanStore) -> None:
        """What was read can be written again, fields and all."""
        store.write([ended_span(attributes={"a": 1}, fields={**metadata(k=None), **metadata("trace", t=[1])})])
        record = only(store)

        store.write_rows([(replace(record.span, name="again"), metadata(k=2, j=3))])

        again = only(store)
        assert (again.name, again.attributes, again.trace_metadata) == ("again", {"a": 1}, {"t": [1]})
        assert again.metadata == {"j": 3, "k": None}  # of equal versions the greater JSON text

    # Deleting

    def test_a_deleted_span_is_gone_with_all_that_was_said_of_it(self, store: SpanStore) -> None:
        """Its siblings and what was said of the trace stay."""
        store.write([ended_span(1, fields=metadata(k=1)), ended_span(2, fields=metadata("trace", t=1))])
        keys = [(trace_hex(), f"{at:016x}") for at in (1, 3, 1)]

        assert store.delete(keys, (END_NS + 5, 1)) == keys[:1]

        assert [(record.span_id[-1], record.trace_metadata) for record in store.query(SpanQuery())] == [("2", {"t": 1})]
        assert store.find([f"{1:016x}"]) == {}
        assert store.delete(keys, (END_NS + 6, 1)) == []
        assert store.delete([], (END_NS + 7, 1)) == []

    def test_what_is_not_newer_than_the_deletion_brings_nothing_back(self, store: SpanStore) -> None:
        """A span that is sent again, or an update that was under way; what is newer is another matter."""
        store.write([ended_span(1), ended_span(2)])
        store.delete([(trace_hex(), f"{1:016x}")], (END_NS + 5, 7))
        late = {("span", "metadata", "late"): (1, (END_NS + 5, 7))}
        newer = {("span", "metadata", "newer"): (2, (END_NS + 5, 8))}

        store.write([ended_span(1, fields=metadata(k=1))])
        store.patch([Patch(SpanRef(TRACE, 1), late), Patch(SpanRef(TRACE, 2), late)])
        store.patch_rows([(trace_hex(), f"{1:016x}", late)])

        assert [(record.span_id[-1], record.metadata) for record in store.query(SpanQuery())] == [("2", {"late": 1})]
        store.patch([Patch(SpanRef(TRACE, 1), newer)])
        store.write([ended_span(1, start_ns=END_NS + 5, fields={**late, **metadata(k=1)})])
        assert only(store, span_id=f"{1:016x}").metadata == {"newer": 2}

    def test_with_the_last_span_goes_what_was_said_of_the_trace(self, store: SpanStore) -> None:
        """Nobody could ever read it, nor delete it."""
        store.write([ended_span(1, fields=metadata("trace", t=1)), ended_span(2), ended_span(3, trace_id=5)])
        store.patch([Patch(SpanRef(5, 0), metadata("trace", t=5))])

        store.delete([(trace_hex(), f"{1:016x}"), (trace_hex(), f"{2:016x}")], (END_NS + 5, 1))
        store.write([ended_span(4, start_ns=END_NS + 6, fields=metadata("trace", t=1))])

        assert [record.trace_metadata for record in store.query(SpanQuery())] == [{}, {"t": 5}]

    # Opening and closing

    def test_what_was_written_is_there_for_others_and_afterwards(self, open_store: OpenStore) -> None:
        """A second connection sees it at once, and it outlives the first."""
        first, second = open_store(), open_store()
        first.write([ended_span()])

        assert only(second).name == "work"
        first.close()
        second.patch([Patch(SpanRef(TRACE, 1), metadata(k=1))])
        second.close()
        assert only(open_store()).metadata == {"k": 1}

    def test_a_closed_store_opens_again_when_it_is_used(self, store: SpanStore) -> None:
        """Closing twice is no error, and closing is not the end."""
        store.write([ended_span()])

        store.close()
        store.close()

        assert only(store).name == "work"


def shown(record: SpanRecord) -> list[str]:
    """Return everything that a record shows beside the span itself, as texts that tell 1 from 1.0 and True."""
    return [
        json_text([record.name, record.status_code, record.status_message, dict(record.attributes)]),
        json_text([list(record.metadata.items()), list(record.trace_metadata.items())]),  # type: ignore[list-item]
        json_text([record.trace_name, record.user_id, record.session_id, [*record.tags], [*record.trace_tags]]),
        json_text([record.input, record.output, record.trace_input, record.trace_output]),
        json_text([[name, verdict.to_json()] for name, verdict in record.evaluations.items()]),
        json_text([note.to_json() for note in record.annotations]),
        json_text([[name, verdict.to_json()] for name, verdict in record.trace_evaluations.items()]),
        json_text([note.to_json() for note in record.trace_annotations]),
    ]


def assert_same(record: SpanRecord, expected: SpanRecord, *, ids_only: bool = False) -> None:
    """Assert that a record says what another one says."""
    assert (record.trace_id, record.span_id) == (expected.trace_id, expected.span_id)
    if not ids_only:
        assert shown(record) == shown(expected)
