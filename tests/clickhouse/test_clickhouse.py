"""The ClickHouse store keeps the contract of every store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.clickhouse.engine import Engine
from tests.store.contract import StoreContract
from tests.store.contract_filters import FilterContract, corpus

from otel_metadata.store.clickhouse.store import ClickHouseStore


@pytest.fixture(scope="module")
def filled(running_engine: Engine) -> Iterator[ClickHouseStore]:
    store = ClickHouseStore(running_engine.url(running_engine.new_database()))
    spans, patches = corpus()
    store.write(spans)
    store.patch(patches)
    yield store
    store.close()


class TestContract(StoreContract):
    """What every store promises."""


class TestFilters(FilterContract):
    """Filters mean the same in every store."""
