"""The embedded store selects what a filter says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.store.contract_filters import FilterContract, fill

from otel_metadata.store.sqlite.store import SqliteStore


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteStore]:
    folder: Path = tmp_path_factory.mktemp("filters")
    store = SqliteStore(folder / "spans.db")
    fill(store)
    yield store
    store.close()


class TestFilters(FilterContract):
    """What every store promises."""
