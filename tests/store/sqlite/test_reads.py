"""The embedded store's quick reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.store.contract import START_NS, ended_span, metadata
from tests.store.contract_reads import ReadsContract, corpus

from otel_metadata.model.condition import Compare, Subject
from otel_metadata.model.record import SpanQuery
from otel_metadata.store.sqlite import read_pool, search
from otel_metadata.store.sqlite.store import SqliteStore

NOTHING = Compare(Subject("span", "name"), "=", "nothing")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice has a few spans, so that a few spans are many slices."""
    monkeypatch.setattr(search, "_FIRST_SLICE", 7)
    monkeypatch.setattr(search, "_LARGEST_SLICE", 20)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path_factory.mktemp("reads") / "spans.db")
    spans, patches = corpus()
    store.write(spans)
    store.patch(patches)
    yield store
    store.close()


class TestReads(ReadsContract):
    """What every store promises."""


class Clock:
    """Each look at it is a millisecond."""

    def __init__(self) -> None:
        self.ns = 0
        self.wall_ns = self.monotonic_ns
        self.wait = None

    def monotonic_ns(self) -> int:
        self.ns += 1_000_000
        return self.ns


class TestDeadline:
    def test_it_says_how_far_back_it_looked(self, tmp_path: Path) -> None:
        """The start of the oldest span that was looked at; all newer ones were."""
        store = SqliteStore(tmp_path / "spans.db")
        store.write([ended_span(number, start_ns=START_NS + number) for number in range(1, 101)])
        found = store.search(SpanQuery(condition=NOTHING), timeout_millis=0)
        assert found.records == ()
        assert found.searched_to is not None
        assert found.searched_to.start_ns == START_NS + 101 - search._FIRST_SLICE
        store.close()

    def test_a_statement_is_interrupted_in_its_middle(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What it had found of its slice does not count, and is found by the next search."""
        monkeypatch.setattr(read_pool, "_STEPS", 100)
        monkeypatch.setattr(search, "_LARGEST_SLICE", 1_000)
        store = SqliteStore(tmp_path / "spans.db")
        store.write(
            [ended_span(number, start_ns=START_NS + number, fields=metadata(n=number)) for number in range(1, 2_001)]
        )
        query = SpanQuery(condition=Compare(Subject("span", "metadata", "n"), ">", 1_000), limit=None)
        every = store.query(query)
        store.close()
        store = SqliteStore(tmp_path / "spans.db", clock=Clock())  # type: ignore[arg-type] # as far as it is used
        records, ended = [], 0
        after = None
        while True:
            found = store.search(SpanQuery(condition=query.condition, limit=None, after=after), timeout_millis=300)
            records += found.records
            after = found.searched_to
            if after is None:
                break
            ended += 1
        assert records == every
        assert ended > 2
        store.close()

    def test_a_page_in_memory_ends_early_too(self) -> None:
        """On the store's one connection, which then works as before."""
        store = SqliteStore(":memory:")
        store.write([ended_span(number, start_ns=START_NS + number) for number in range(1, 101)])
        assert store.search(SpanQuery(condition=NOTHING), timeout_millis=0).searched_to is not None
        store.write([ended_span(101)])
        assert len(store.query(SpanQuery(limit=None))) == 101
        store.close()

    def test_records_that_are_many_end_early_too(self, tmp_path: Path) -> None:
        """Each needs a read of its fields; one comes at least."""
        store = SqliteStore(tmp_path / "spans.db")
        store.write([ended_span(number, start_ns=START_NS + number) for number in range(1, 6)])
        found = store.search(SpanQuery(), timeout_millis=0)
        assert [record.span.start_ns for record in found.records] == [START_NS + 5]
        assert found.searched_to == found.records[0].position
        store.close()
