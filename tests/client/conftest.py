"""Three stored spans, and what works on them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.store.contract import ended_span

from otel_metadata.client.client import Spans
from otel_metadata.store.sqlite.store import SqliteStore
from otel_metadata.testing import ManualClock

FIRST, SECOND, THIRD, UNKNOWN = (f"{number:016x}" for number in (1, 2, 3, 99))


@pytest.fixture
def store() -> Iterator[SqliteStore]:
    """Return a store with the spans 1, 2 and 3 of one trace."""
    store = SqliteStore(":memory:")
    store.write([ended_span(number) for number in (1, 2, 3)])
    yield store
    store.close()


@pytest.fixture
def spans(store: SqliteStore) -> Spans:
    """Return the spans of that store, at a time after they ended."""
    return Spans(store, ManualClock(1_800_000_000_000_000_000))
