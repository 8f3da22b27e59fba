"""What the quick reads of a store promise, with its full read as the judge.

A store's test module subclasses `ReadsContract` and gives a fixture `filled`: a store that has the corpus, and that
looks at its deadline after a few spans already.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.store.conditions import TIMES, conditions
from tests.store.contract_filters import SPANS, corpus

from otel_metadata.model.condition import Condition
from otel_metadata.model.record import SpanQuery, SpanRecord

in_one_store = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

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


class ReadsContract:
    """The tests; a subclass gives the fixture `filled`."""

    @in_one_store
    @given(query=queries)
    def test_searches_that_end_early_find_together_what_one_finds(self, filled: Any, query: SpanQuery) -> None:
        """In the same order, and none twice, however little time each of them has."""
        assert list(walked(filled, query)) == filled.query(query)

    @in_one_store
    @given(condition=conditions(), timeout=st.none() | st.just(1e9))
    def test_a_search_with_enough_time_is_complete(
        self, filled: Any, condition: Condition, timeout: float | None
    ) -> None:
        """It finds what a search without a deadline finds, and says that it has looked at everything."""
        query = SpanQuery(condition=condition)
        found = filled.search(query, timeout_millis=timeout)
        assert found.searched_to is None
        assert list(found.records) == filled.query(query)
