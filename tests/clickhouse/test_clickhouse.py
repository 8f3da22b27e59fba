"""The ClickHouse store keeps the contract of every store."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.clickhouse.engine import Engine
from tests.store.contract import END_NS, DurationContract, StoreContract, trace_hex
from tests.store.contract_filters import FilterContract, fill
from tests.store.contract_history import HistoryContract, set_at
from tests.store.contract_reads import ReadsContract
from tests.store.contract_transfer import SPAN, NewStore, TransferContract, TransferLaw, write_two_spans, written

from otel_metadata.client import export
from otel_metadata.client.imports import import_file
from otel_metadata.model.authors import AUTHORS
from otel_metadata.model.merge import FieldName
from otel_metadata.model.record import SpanQuery
from otel_metadata.seams import SpanStore
from otel_metadata.store.clickhouse import store as clickhouse
from otel_metadata.store.clickhouse.store import ClickHouseStore
from otel_metadata.store.sqlite.store import SqliteStore

NAMES: tuple[FieldName, ...] = (("span", "metadata", "thumbs"), ("trace", "metadata", "plan"))


@pytest.fixture(scope="module")
def filled(running_engine: Engine) -> Iterator[ClickHouseStore]:
    store = ClickHouseStore(running_engine.url(running_engine.new_database()))
    fill(store)
    yield store
    store.close()


class TestContract(StoreContract):
    """What every store promises."""


class TestDurations(DurationContract):
    """What a store promises that can change durations."""


class TestHistory(HistoryContract):
    """What every store with a memory promises."""


class TestFilters(FilterContract):
    """Filters mean the same in every store."""


class TestReads(ReadsContract):
    """Quick reads answer as in every store."""

    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A few spans are many parts."""
        monkeypatch.setattr(clickhouse, "_FIRST_PART", 50)
        monkeypatch.setattr(clickhouse, "_LARGEST_PART", 70)
        monkeypatch.setattr(clickhouse, "_MAX_TRACES", 20)


@pytest.fixture
def new_store(engine: Engine) -> Iterator[NewStore]:
    opened: list[ClickHouseStore] = []

    def one() -> ClickHouseStore:
        opened.append(ClickHouseStore(engine.url(engine.new_database())))
        return opened[-1]

    yield one
    for store in opened:
        store.close()
        engine.run(f"DROP DATABASE {store.address.database}")


class TestTransfer(TransferContract):
    """Routes, authors and history go through a file, as in every store."""

    @pytest.mark.parametrize("is_import", [True, False], ids=["import", "export"])
    def test_a_file_is_read_by_the_other_kind_of_store(
        self, new_store: NewStore, tmp_path: Path, is_import: bool
    ) -> None:
        """Whoever moves from SQLite to ClickHouse, or back, keeps everything."""
        stores: list[SpanStore] = [SqliteStore(":memory:"), new_store()]
        first, second = stores if is_import else reversed(stores)
        for writer in (1, 2):
            AUTHORS.add(writer, f"author {writer}")
        values = [("late", set_at(at, [at], 1 + at % 2, name=name)) for at in range(1, 120) for name in NAMES]
        write_two_spans(first, [*values, (None, set_at(END_NS, 1.0)), (None, set_at(END_NS + 1, None))])

        import_file(second, written(first, tmp_path / "s", export.jsonl))

        for span_id in (SPAN, f"{2:016x}", ""):
            assert second.history(trace_hex(), span_id) == first.history(trace_hex(), span_id)
        assert second.query(SpanQuery()) == first.query(SpanQuery())


class TestTransferLaw(TransferLaw):
    """Any two stores."""

    @pytest.fixture
    def new_store(self, new_store: NewStore) -> NewStore:
        """Two databases for all examples of a test, whose traces differ."""
        pair = itertools.cycle([new_store(), new_store()])
        return lambda: next(pair)
