"""One engine for all tests of a run, a database for each test.

Collected only where OTEL_METADATA_TEST_BACKENDS is set, as `make test-clickhouse` does, which builds the engine's
environment: 930 MB that the other tests need not wait for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from tests.clickhouse.engine import Engine
from tests.store.contract import OpenStore

from otel_metadata.store.clickhouse import ClickHouseStore

collect_ignore_glob = [] if os.environ.get("OTEL_METADATA_TEST_BACKENDS") else ["test_*.py"]


@pytest.fixture(scope="session")
def running_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine that runs."""
    engine = Engine(tmp_path_factory.mktemp("engine") / "data")
    try:
        yield engine
    finally:
        engine.stop()


@pytest.fixture
def engine(running_engine: Engine) -> Engine:
    """The engine, without a fault or a statement of an earlier test."""
    running_engine.fail()
    running_engine.statements()
    return running_engine


@pytest.fixture
def database(engine: Engine) -> Iterator[str]:
    """A database of this test alone."""
    name = engine.new_database()
    yield name
    engine.fail()
    engine.run(f"DROP DATABASE {name}")


@pytest.fixture
def open_store(engine: Engine, database: str) -> Iterator[OpenStore]:
    opened: list[ClickHouseStore] = []

    def one() -> ClickHouseStore:
        opened.append(ClickHouseStore(engine.url(database)))
        return opened[-1]

    yield one
    for store in opened:
        store.close()
