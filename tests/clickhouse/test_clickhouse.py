"""The ClickHouse store keeps the contract of every store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.clickhouse.engine import Engine
from tests.store.contract import StoreContract
from tests.store.contract_filters import FilterContract, fill

from otel_metadata.errors import StoreError
from otel_metadata.model.record import SpanQuery
from otel_metadata.store.clickhouse.store import ClickHouseStore


@pytest.fixture(scope="module")
def filled(running_engine: Engine) -> Iterator[ClickHouseStore]:
    store = ClickHouseStore(running_engine.url(running_engine.new_database()))
    fill(store)
    yield store
    store.close()


class TestContract(StoreContract):
    """What every store promises."""


class TestHistory:
    def test_it_says_that_it_keeps_none(self, filled: ClickHouseStore) -> None:
        """A question about earlier values is an error, not an answer without them."""
        with pytest.raises(StoreError, match="does not keep superseded values; expected a store in SQLite"):
            filled.history("0" * 32)
        with pytest.raises(StoreError, match="does not keep superseded values; expected a store in SQLite"):
            filled.query(SpanQuery(at_ns=1))
        with pytest.raises(StoreError, match="an export has the values of now"):
            next(filled.export(SpanQuery(at_ns=1)))


class TestFilters(FilterContract):
    """Filters mean the same in every store."""

    has_routes = False
