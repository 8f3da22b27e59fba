"""What a store with a memory promises: when each value came, by whom, and what it replaced.

The judge is a set for each field: (version, JSON text) with the earliest route.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.store.contract import END_NS, START_NS, TRACE, OpenStore, ended_span, in_one_store, metadata, only, trace_hex
from tests.strategies import json_values, versions

from otel_metadata.model.authors import AUTHORS
from otel_metadata.model.evaluation import Annotation, Evaluation
from otel_metadata.model.merge import FieldName, Fields, Json, Version, json_text
from otel_metadata.model.patch import Patch
from otel_metadata.model.record import ROUTES, Position, Route, SpanQuery, StoredSpan, ValueRecord
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.model.times import nanoseconds
from otel_metadata.seams import SpanStore
from otel_metadata.store.rows import row_of

Held: TypeAlias = dict[FieldName, dict[tuple[Version, str], int]]
"""Of each field its values, each with the place of its route in `ROUTES`."""

SPAN = f"{1:016x}"
THUMBS: FieldName = ("span", "metadata", "thumbs")

_traces = itertools.count(1 << 80)

_NAMES: tuple[FieldName, ...] = (
    THUMBS,
    ("span", "tag", "seen"),
    ("trace", "metadata", "thumbs"),
    ("trace", "tag", "seen"),
    ("span", "output", ""),
)


@st.composite
def field_sets(draw: st.DrawFn, last_ns: int = (1 << 63) - 1) -> dict[FieldName, tuple[Json, Version]]:
    """Sets of few fields, so that most of them meet again, often with the same version."""
    names = draw(st.lists(st.sampled_from(_NAMES), max_size=4, unique=True))
    value = st.sampled_from(["up", "down", None, 1, 1.0, True]) | json_values(max_leaves=2)
    return {name: (True if name[1] == "tag" else draw(value), draw(versions(last_ns))) for name in names}


@st.composite
def arrivals(draw: st.DrawFn, last_ns: int = (1 << 63) - 1) -> tuple[Route | None, Fields]:
    """A set of fields, and how it comes: None with its span, without a word about the route."""
    return draw(st.sampled_from([None, None, "late", "late", "import", "log"])), draw(field_sets(last_ns))


def judge(held: Held, arrival: tuple[Route | None, Fields], *, end_ns: int = END_NS) -> None:
    """Add what comes to what a store should hold."""
    route, fields = arrival
    for name, (value, version) in fields.items():
        came = route or ("live" if version[0] <= end_ns else "in_flight")
        values = held.setdefault(name, {})
        one = version, json_text(value)
        values[one] = min(values.get(one, len(ROUTES)), ROUTES.index(came))


def arrive(store: SpanStore, trace_id: int, batch: Iterable[tuple[Route | None, Fields]]) -> None:
    """Write arrivals of one kind in one call."""
    batch = list(batch)
    route = batch[0][0]
    if route == "late":
        store.patch([Patch(SpanRef(trace_id, 1), fields) for _, fields in batch])
    elif route is None:
        store.write([ended_span(1, trace_id=trace_id, fields=fields) for _, fields in batch])
    elif route == "import":
        store.patch_rows([(trace_hex(trace_id), SPAN, fields) for _, fields in batch], route=route)
    else:
        store.write_rows([(bare(trace_id), fields) for _, fields in batch], route=route)


def bare(trace_id: int) -> StoredSpan:
    return row_of(ended_span(1, trace_id=trace_id))[0]


def shown(records: Iterable[ValueRecord]) -> list[tuple[object, ...]]:
    """Return records in an order and a form that tells 1 from 1.0 and True."""
    return sorted(
        (one.level, one.kind, one.key, one.time_ns, one.writer, json_text(one.value), one.route or "", one.is_current,
         one.superseded_by or (), one.is_oldest_kept)
        for one in records
    )  # fmt: skip


def expected(held: Held, limit: int = 100) -> list[tuple[object, ...]]:
    """Return what `shown` should say."""
    rows: list[tuple[object, ...]] = []
    for (level, kind, key), values in held.items():
        newest = sorted(values, reverse=True)
        current = newest.pop(-1 if kind == "tag" else 0)
        kept = newest[:limit]
        above: Version | None = None
        for one in [current, *(reversed(kept) if kind == "tag" else kept)]:
            version, text = one
            is_cut = len(newest) > limit and one == kept[-1]
            rows.append((level, kind, key, *version, text, ROUTES[values[one]], above is None, above or (), is_cut))
            above = version
    return sorted(rows)


def batches(data: st.DataObject, order: list[Any]) -> list[list[Any]]:
    """Return *order* in batches of any size, each of one kind of arrival."""
    split: list[list[Any]] = []
    for one in order:
        if split and split[-1][0][0] == one[0] and data.draw(st.booleans(), label="same batch"):
            split[-1].append(one)
        else:
            split.append([one])
    return split


def set_at(ns: int, value: Json, writer: int = 1, name: FieldName = THUMBS) -> Fields:
    return {name: (value, (ns, writer))}


class HistoryContract:
    """The tests; a subclass gives the fixture `open_store`.

    Attributes:
        last_ns: The latest time that a version may have.
    """

    last_ns = (1 << 63) - 1

    @pytest.fixture
    def store(self, open_store: OpenStore) -> SpanStore:
        return open_store()

    @in_one_store
    @given(data=st.data())
    def test_any_order_any_repetition_and_any_batches_lead_to_the_same_history(
        self, store: SpanStore, data: st.DataObject
    ) -> None:
        """The values that the fields have, those that were superseded, and the route of each: all as the judge says."""
        trace_id = next(_traces)
        come = data.draw(st.lists(arrivals(self.last_ns), min_size=1, max_size=7), label="arrivals")
        again = data.draw(st.lists(st.sampled_from(come), max_size=4), label="again")
        order = data.draw(st.permutations([*come, *again]), label="order")
        held: Held = {}
        for one in come:
            judge(held, one)

        for batch in batches(data, order):
            arrive(store, trace_id, batch)

        assert shown(store.history(trace_hex(trace_id), SPAN)) == expected(held)

    @in_one_store
    @given(data=st.data())
    def test_a_trace_is_shown_as_it_was_at_any_time(self, store: SpanStore, data: st.DataObject) -> None:
        """Of each field the value that wins among those that were set by then."""
        trace_id = next(_traces)
        updates = arrivals(self.last_ns).filter(
            lambda one: one[0] in {"late", "import"}
        )  # the others write the span again
        come = data.draw(st.lists(updates, min_size=1, max_size=6), label="arrivals")
        store.write([ended_span(1, trace_id=trace_id, start_ns=0)])
        held: Held = {}
        for one in come:
            arrive(store, trace_id, [one])
            judge(held, one)
        # Later times than this cannot be written, and so not be asked for everywhere.
        last = nanoseconds("2261-12-31T23:59:59.999999999Z") or 0
        times = [0, END_NS, *(min(version[0], last) for values in held.values() for version, _ in values)]
        at_ns = data.draw(st.sampled_from(times), label="at")
        then: dict[FieldName, str] = {}
        for name, values in held.items():
            by_then = [one for one in values if one[0][0] <= at_ns]
            if by_then:
                then[name] = (min if name[1] == "tag" else max)(by_then)[1]

        record = only(store, trace_id=trace_hex(trace_id), at_ns=at_ns)

        for level, shown_then in {"span": record.metadata, "trace": record.trace_metadata}.items():
            wanted = then.get((level, "metadata", "thumbs"))  # type: ignore[call-overload] # a level
            assert json_text(dict(shown_then)) == ("{}" if wanted is None else f'{{"thumbs":{wanted}}}')
        assert record.tags == (("seen",) if ("span", "tag", "seen") in then else ())
        assert json_text(record.output) == then.get(("span", "output", ""), "null")

    def test_the_route_of_a_value_is_where_it_came_from(self, store: SpanStore) -> None:
        """On the span until its end, on the span after it, by an update, from a file, from a table."""
        fields = {**set_at(END_NS, 1), **set_at(END_NS + 1, 2, name=("span", "metadata", "after"))}
        store.write([ended_span(1, fields=fields)])
        store.patch([Patch(SpanRef(TRACE, 1), set_at(START_NS, 3, name=("span", "metadata", "late")))])
        store.patch_rows([(trace_hex(), SPAN, set_at(1, 4, name=("span", "metadata", "file")))], route="import")
        store.write_rows([(bare(TRACE), set_at(1, 5, name=("span", "metadata", "table")))], route="log")

        routes = {one.key: one.route for one in store.history(trace_hex(), SPAN)}

        assert routes == {"thumbs": "live", "after": "in_flight", "late": "late", "file": "import", "table": "log"}

    @pytest.mark.parametrize("is_superseded", [False, True], ids=["current", "superseded"])
    @pytest.mark.parametrize("first", ["live", "late", "import"])
    def test_of_two_routes_of_one_value_the_earlier_is_kept(
        self, store: SpanStore, first: Route, is_superseded: bool
    ) -> None:
        """Whichever came first, and also after the value was superseded."""
        fields, target = set_at(START_NS, "up"), SpanRef(TRACE, 1)
        ways: dict[Route, Callable[[], None]] = {
            "live": lambda: store.write([ended_span(1, fields=fields)]),
            "late": lambda: store.patch([Patch(target, fields)]),
            "import": lambda: store.patch_rows([(trace_hex(), SPAN, fields)], route="import"),
        }
        ways[first]()
        if is_superseded:
            store.patch([Patch(target, set_at(END_NS, "down"))])
        for way in ways.values():
            way()

        assert [one.route for one in store.history(trace_hex(), SPAN) if one.value == "up"] == ["live"]

    def test_a_store_remembers_the_names_of_a_bounded_number_of_writers(
        self, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A server sees many in a year; a name that it forgot is written again."""
        monkeypatch.setattr(sys.modules[type(open_store()).__module__], "MAX_AUTHORS", 2)
        store: Any = open_store()
        for writer in [*range(1, 10), 1]:
            AUTHORS.add(writer, f"writer {writer}")
            store.patch([Patch(SpanRef(TRACE, 1), set_at(writer, writer, writer))])

        assert len(store._named) <= 4
        authors = [one.author for one in store.history(trace_hex(), SPAN)]
        assert authors == [f"writer {writer}" for writer in range(9, 0, -1)]

    def test_a_value_that_was_replaced_says_by_which(self, store: SpanStore) -> None:
        """Newest first, the current one among them; a value that lost when it arrived is there as well."""
        store.write([ended_span(1, fields=set_at(START_NS, "up"))])
        store.patch([Patch(SpanRef(TRACE, 1), set_at(END_NS + 9, "down", 7))])
        store.patch([Patch(SpanRef(TRACE, 1), set_at(END_NS + 5, "lost"))])

        records = store.history(trace_hex(), SPAN)

        assert [(one.value, one.route, one.superseded_by, one.is_current) for one in records] == [
            ("down", "late", None, True),
            ("lost", "late", (END_NS + 9, 7), False),
            ("up", "live", (END_NS + 5, 1), False),
        ]

    def test_a_value_that_is_set_again_is_another_value(self, store: SpanStore) -> None:
        """The same text with another version tells that somebody said it again; with the same version it is one."""
        for ns in (5, 6, 5, 6):
            store.patch([Patch(SpanRef(TRACE, 1), set_at(ns, "up"))])

        assert [(one.value, one.time_ns) for one in store.history(trace_hex(), SPAN)] == [("up", 6), ("up", 5)]

    def test_the_history_of_a_tag_tells_when_it_was_set_again(self, store: SpanStore) -> None:
        """Tags are shown in the order in which they were first set, so the first version of one is the current one."""
        seen: FieldName = ("span", "tag", "seen")
        for ns in (7, 5, 9):
            store.patch([Patch(SpanRef(TRACE, 1), set_at(ns, True, name=seen))])

        records = store.history(trace_hex(), SPAN)

        assert [(one.time_ns, one.superseded_by) for one in records] == [(9, (7, 1)), (7, (5, 1)), (5, None)]

    def test_a_history_is_that_of_one_span_and_its_trace(self, store: SpanStore) -> None:
        """Not of a sibling; of one field where one is named; of the trace alone without a span."""
        of_trace: FieldName = ("trace", "metadata", "plan")
        for value in (1, 2):
            store.patch([Patch(SpanRef(TRACE, 1), set_at(value, value))])
            store.patch([Patch(SpanRef(TRACE, 2), set_at(value + 2, value + 2))])
            store.patch([Patch(SpanRef(TRACE, 2), set_at(value + 4, value + 4, name=of_trace))])
            store.patch([Patch(SpanRef(5, 1), set_at(value, "elsewhere"))])

        assert [one.value for one in store.history(trace_hex(), SPAN)] == [6, 5, 2, 1]
        assert [one.value for one in store.history(trace_hex(), SPAN, THUMBS)] == [2, 1]
        assert [one.value for one in store.history(trace_hex())] == [6, 5]
        assert store.history(trace_hex(9), SPAN) == []

    @pytest.mark.parametrize("step", [1, -1, 37], ids=["up", "down", "mixed"])
    def test_the_newest_values_of_a_field_are_kept_and_the_last_says_that_older_ones_were_dropped(
        self, store: SpanStore, step: int
    ) -> None:
        """In any order of arrival; another field of the span is not cut with it."""
        target, count = SpanRef(TRACE, 1), 400
        store.patch([Patch(target, set_at(ns, ns, name=("span", "metadata", "few"))) for ns in range(101)])
        for at in range(count):
            store.patch([Patch(target, set_at(at * step % count, at))])

        records = store.history(trace_hex(), SPAN, THUMBS)

        assert [one.time_ns for one in records] == list(range(count - 1, count - 102, -1))
        assert [one.is_oldest_kept for one in records] == [False] * 100 + [True]
        few = store.history(trace_hex(), SPAN, ("span", "metadata", "few"))
        assert len(few) == 101
        assert not any(one.is_oldest_kept for one in few)

    def test_verdicts_and_notes_have_a_history(self, store: SpanStore) -> None:
        """Every kind of field has."""
        verdicts = [Evaluation("C", score).to_json() for score in (0.0, 1.0)]
        notes = [Annotation("q", text=text, annotator="ann").to_json() for text in ("a", "b")]
        for ns, (verdict, note) in enumerate(zip(verdicts, notes, strict=True), 1):
            store.patch([Patch(SpanRef(TRACE, 1), set_at(ns, verdict, name=("span", "evaluation", "C")))])
            store.patch([Patch(SpanRef(TRACE, 1), set_at(ns, note, name=("trace", "annotation", "q")))])

        found = {(one.kind, one.is_current): one.value for one in store.history(trace_hex(), SPAN)}

        assert found == {
            ("evaluation", True): verdicts[1],
            ("evaluation", False): verdicts[0],
            ("annotation", True): notes[1],
            ("annotation", False): notes[0],
        }

    # Time

    def test_a_span_that_starts_later_is_not_there_yet(self, store: SpanStore) -> None:
        """Pages and windows hold as they do for now."""
        store.write([ended_span(at, start_ns=START_NS + at) for at in (1, 2, 3)])

        def found(**query: Any) -> str:
            return "".join(record.span_id[-1] for record in store.query(SpanQuery(**query)))

        assert found(at_ns=START_NS + 2) == "21"
        assert found(at_ns=START_NS + 2, after=Position(START_NS + 2, trace_hex(), f"{2:016x}")) == "1"
        assert found(at_ns=START_NS) == ""

    def test_a_time_shows_what_was_said_by_then(self, store: SpanStore) -> None:
        """Up while the span ran, down an hour later."""
        store.write([ended_span(1, fields=set_at(START_NS + 1, "up"))])
        store.patch([Patch(SpanRef(TRACE, 1), {**set_at(END_NS + 9, "down"), **metadata("trace", plan=1)})])

        assert only(store, at_ns=START_NS).metadata == {}
        assert only(store, at_ns=START_NS).trace_metadata == {"plan": 1}
        assert only(store, at_ns=END_NS + 8).metadata == {"thumbs": "up"}
        assert only(store, at_ns=END_NS + 9).metadata == {"thumbs": "down"}
        assert only(store).metadata == {"thumbs": "down"}

    # Deleting

    def test_a_deleted_span_leaves_no_history(self, store: SpanStore) -> None:
        """Neither its own nor, with the last span, that of its trace; what comes late is refused like any value."""
        of_trace: FieldName = ("trace", "metadata", "plan")
        for ns in (1, 2, 3):
            store.write([ended_span(1, fields={**set_at(ns, ns), **set_at(ns, ns, name=of_trace)})])

        store.delete([(trace_hex(), SPAN)], (END_NS + 5, 1))
        store.write([ended_span(1, fields=set_at(4, 4))])
        store.patch([Patch(SpanRef(TRACE, 1), {**set_at(5, 5), **set_at(5, 5, name=of_trace)})])
        assert store.history(trace_hex(), SPAN) == []

        store.patch([Patch(SpanRef(TRACE, 1), set_at(END_NS + 6, "new"))])
        store.patch([Patch(SpanRef(TRACE, 1), set_at(END_NS + 5, "late"))])
        assert [one.value for one in store.history(trace_hex(), SPAN)] == ["new"]

    def test_a_history_is_there_for_others_and_afterwards(self, open_store: OpenStore) -> None:
        """A second connection supersedes what the first one wrote."""
        first, second = open_store(), open_store()
        first.patch([Patch(SpanRef(TRACE, 1), set_at(1, "up"))])
        second.patch([Patch(SpanRef(TRACE, 1), set_at(2, "down"))])
        first.close()
        second.close()

        assert [one.value for one in open_store().history(trace_hex(), SPAN)] == ["down", "up"]
