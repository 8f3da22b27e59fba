"""The ClickHouse store keeps the contract of every store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.clickhouse.engine import Engine
from tests.store.contract import StoreContract
from tests.store.contract_filters import FilterContract, fill
from tests.store.contract_history import HistoryContract
from tests.store.contract_reads import ReadsContract

from otel_metadata.store.clickhouse import store as clickhouse
from otel_metadata.store.clickhouse.store import ClickHouseStore


@pytest.fixture(scope="module")
def filled(running_engine: Engine) -> Iterator[ClickHouseStore]:
    store = ClickHouseStore(running_engine.url(running_engine.new_database()))
    fill(store)
    yield store
    store.close()


class TestContract(StoreContract):
    """What every store promises."""


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
