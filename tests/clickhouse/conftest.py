"""One engine for all tests of a run, a database for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.clickhouse.engine import Engine
from tests.store.contract import OpenStore

from otel_metadata.store.clickhouse.store import ClickHouseStore


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
