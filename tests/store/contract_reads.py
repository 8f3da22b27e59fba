"""What the quick reads of a store promise, with a full read as the judge.

A store's test module subclasses `ReadsContract` and gives a fixture `filled`: a store that has the corpus, and that
looks at its deadline after a few spans already. Its full read is the judge, unless a fixture `judge` names another
store that has the same.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.store.conditions import TIMES, conditions
from tests.store.contract import in_one_store
from tests.store.contract_filters import SPANS, corpus

from otel_metadata.model.condition import Condition
from otel_metadata.model.record import OutlineSpan, SpanQuery, SpanRecord, TraceRecord

timeouts = st.none() | st.just(0.0) | st.just(1e9)

__all__ = ["ReadsContract", "corpus"]

queries = st.builds(
    SpanQuery,
    limit=st.none() | st.integers(1, SPANS),
    condition=st.none() | conditions(),
    project=st.none() | st.sampled_from(["a", "ab", "answers", "nobody's"]),
    start_ns=st.none() | st.sampled_from(TIMES),
    end_ns=st.none() | st.sampled_from(TIMES),
    trace_id=st.none() | st.integers(0, 40).map(lambda number: f"{number:032x}"),
)


def walked(store: Any, query: SpanQuery) -> Iterator[SpanRecord]:
    """Yield what searches without any time find, each of which goes on where the one before ended."""
    looked_at = None
    while True:
        found = store.search(query, timeout_millis=0)
        yield from found.records
        if found.searched_to is None:
            return
        assert all(record.position >= found.searched_to for record in found.records)
        assert looked_at is None or found.searched_to < looked_at
        looked_at = found.searched_to
        left = None if query.limit is None else query.limit - len(found.records)
        query = replace(query, after=looked_at, limit=left)


def walked_traces(store: Any, query: SpanQuery) -> Iterator[TraceRecord]:
    """Do the same with traces."""
    while True:
        found = store.traces(query, timeout_millis=0)
        yield from found.traces
        if found.searched_to is None:
            return
        left = None if query.limit is None else query.limit - len(found.traces)
        query = replace(query, after=found.searched_to, limit=left)


@functools.cache
def late_values(store: Any, trace_id: str, span_ids: tuple[str, ...]) -> int:
    values = store.history(trace_id)
    for span_id in span_ids:
        values += [value for value in store.history(trace_id, span_id) if value.level == "span"]
    return sum(value.is_current and value.route == "late" for value in values)


def row_of_trace(store: Any, root: SpanRecord, every: list[SpanRecord]) -> TraceRecord:
    """Return the row of the trace of *root*, made of the records of its spans and of their histories."""
    spans = [record for record in every if record.trace_id == root.trace_id]
    return TraceRecord(
        root.trace_id,
        root.span_id,
        root.name if root.trace_name is None else root.trace_name,
        root.project,
        root.span.start_ns,
        root.span.end_ns,
        root.status_code,
        len(spans),
        sum(record.status_code == "ERROR" for record in spans),
        late_values(store, root.trace_id, tuple(record.span_id for record in spans)),
        {**root.evaluations, **root.trace_evaluations},
    )


class ReadsContract:
    """The tests; a subclass gives the fixture `filled`."""

    @pytest.fixture
    def judge(self, filled: Any) -> Any:
        return filled

    @in_one_store
    @given(query=queries)
    def test_searches_that_end_early_find_together_what_one_finds(
        self, filled: Any, judge: Any, query: SpanQuery
    ) -> None:
        """In the same order, and none twice, however little time each of them has."""
        assert list(walked(filled, query)) == judge.query(query)

    @in_one_store
    @given(query=queries, timeout=timeouts)
    def test_a_count_is_the_number_of_spans_up_to_its_limit(
        self, filled: Any, judge: Any, query: SpanQuery, timeout: float | None
    ) -> None:
        """It says whether these are all; without time it may have counted fewer."""
        number = len(judge.query(replace(query, limit=None)))
        count = filled.count(query, timeout_millis=timeout)
        limit = number if query.limit is None else query.limit
        if timeout == 0 and not count.is_exact:
            assert count.counted <= min(number, limit)
        else:
            assert (count.counted, count.is_exact) == (min(number, limit), number <= limit)

    def test_an_outline_is_what_the_spans_are(self, filled: Any, every: list[SpanRecord]) -> None:
        """With the names and statuses that updates gave them."""
        traces = {record.trace_id for record in every}
        assert len(traces) > 40
        for trace_id in traces:
            expected = [
                OutlineSpan(
                    record.span_id,
                    record.parent_id,
                    record.name,
                    record.kind,
                    record.span.start_ns,
                    record.span.end_ns,
                    record.status_code,
                )
                for record in every
                if record.trace_id == trace_id
            ]
            found = filled.outline(trace_id)
            assert found == sorted(expected, key=lambda span: (span.start_ns, span.span_id))
        assert filled.outline(f"{99:032x}") == []
        assert any(record.name != record.span.name for record in every)
        assert any(record.status_code != record.span.status_code for record in every)

    @in_one_store
    @given(query=queries)
    def test_a_trace_is_one_row(self, filled: Any, judge: Any, every: list[SpanRecord], query: SpanQuery) -> None:
        """Of what its spans are; the query is about its root, the parentless span that started first."""
        roots: dict[str, SpanRecord] = {}
        for record in sorted(every, key=lambda one: (one.span.start_ns, one.span_id)):
            if record.parent_id is None:
                roots.setdefault(record.trace_id, record)
        selected = [
            record
            for record in judge.query(replace(query, limit=None))
            if record.trace_id in roots and roots[record.trace_id].span_id == record.span_id
        ]
        expected = [row_of_trace(judge, root, every) for root in selected][: query.limit]

        found = filled.traces(query)

        assert found.searched_to is None
        assert list(found.traces) == expected
        assert list(walked_traces(filled, query)) == expected

    @in_one_store
    @given(
        query=queries,
        start_ns=st.sampled_from(TIMES),
        width_ns=st.sampled_from((1, 2, 1_000_000_000)),
        bars=st.integers(1, 5),
        timeout=timeouts,
    )
    def test_a_histogram_counts_spans_and_errors_in_each_part_of_the_time(
        self,
        filled: Any,
        judge: Any,
        query: SpanQuery,
        start_ns: int,
        width_ns: int,
        bars: int,
        timeout: float | None,
    ) -> None:
        """Without time it has counted fewer, and says from when on the numbers are right."""
        found = filled.histogram(query, start_ns=start_ns, width_ns=width_ns, bars=bars, timeout_millis=timeout)
        spans = judge.query(replace(query, start_ns=None, end_ns=None, limit=None))
        assert [bar.start_ns for bar in found.bars] == [start_ns + at * width_ns for at in range(bars)]
        for bar in found.bars:
            inside = [one for one in spans if 0 <= one.span.start_ns - bar.start_ns < width_ns]
            expected = (len(inside), sum(one.status_code == "ERROR" for one in inside))
            if found.searched_to is None or found.searched_to.start_ns < bar.start_ns:
                assert (bar.spans, bar.errors) == expected
            else:
                assert timeout == 0
                assert bar.spans <= expected[0]
                assert bar.errors <= expected[1]

    @pytest.mark.parametrize("level", ["span", "trace"])
    @pytest.mark.parametrize("kind", ["metadata", "tag", "evaluation"])
    def test_names_are_those_in_use(self, filled: Any, every: list[SpanRecord], kind: Any, level: Any) -> None:
        """In order; those that begin so, and no more than asked for."""
        of_level = {
            "metadata": ("metadata", "trace_metadata"),
            "tag": ("tags", "trace_tags"),
            "evaluation": ("evaluations", "trace_evaluations"),
        }[kind][level == "trace"]
        names = sorted({name for record in every for name in getattr(record, of_level)})
        assert filled.names(kind, level=level) == names
        assert len(names) >= 3
        for prefix in {name[:size] for name in names for size in (1, 2)} | {"zz", "\N{GRINNING FACE}"}:
            begin_so = [name for name in names if name.startswith(prefix)]
            assert filled.names(kind, level=level, prefix=prefix) == begin_so
            assert filled.names(kind, level=level, prefix=prefix, limit=1) == begin_so[:1]
        assert filled.names(kind, level=level, limit=2) == names[:2]

    @pytest.fixture
    def every(self, judge: Any) -> list[SpanRecord]:
        return judge.query(SpanQuery(limit=None))  # type: ignore[no-any-return]

    @in_one_store
    @given(condition=conditions(), timeout=st.none() | st.just(1e9))
    def test_a_search_with_enough_time_is_complete(
        self, filled: Any, judge: Any, condition: Condition, timeout: float | None
    ) -> None:
        """It finds what a search without a deadline finds, and says that it has looked at everything."""
        query = SpanQuery(condition=condition)
        found = filled.search(query, timeout_millis=timeout)
        assert found.searched_to is None
        assert list(found.records) == judge.query(query)
