"""Retention while the server runs: a real store, and a clock that the test moves."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.server.conftest import PATIENCE
from tests.store.contract import START_NS, ended_span

from otel_metadata.errors import StoreError
from otel_metadata.model.record import SpanQuery
from otel_metadata.seams import SpanStore
from otel_metadata.server.background_retention import BackgroundRetention
from otel_metadata.store.sqlite.store import SqliteStore
from otel_metadata.testing import ManualClock

HOUR_MILLIS = 3_600_000


class Watched:
    """A store that can fail."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.problem: Exception | None = None

    def retain(self, before_ns: int | None, max_bytes: int | None) -> Any:
        if self.problem is not None:
            raise self.problem
        return self._store.retain(before_ns, max_bytes)


class WatchedClock:
    """A clock that tells when a pause begins. The pass before it has been measured by then: it took no time."""

    def __init__(self, clock: ManualClock, ended: threading.Semaphore) -> None:
        self._clock = clock
        self._ended = ended
        self.wall_ns, self.monotonic_ns = clock.wall_ns, clock.monotonic_ns

    def wait(self, event: threading.Event, timeout_ns: int | None) -> bool:
        if timeout_ns:
            self._ended.release()
        return self._clock.wait(event, timeout_ns)


@pytest.fixture
def passes(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Return what starts retention of a store of ten spans, an hour apart, and waits for its first pass."""

    def start(**limits: Any) -> tuple[SpanStore, Watched, ManualClock, Callable[[], None]]:
        store = SqliteStore(tmp_path / "spans.db")
        store.write([ended_span(number, start_ns=START_NS + number * HOUR_MILLIS * 1_000_000) for number in range(10)])
        clock = ManualClock(START_NS + 10 * HOUR_MILLIS * 1_000_000)
        ended = threading.Semaphore(0)
        watched = Watched(store)
        limits = {"older_than": None, "max_bytes": None, **limits}
        retention = BackgroundRetention(watched, WatchedClock(clock, ended), **limits)  # type: ignore[arg-type]
        retention.start()

        def end() -> None:
            retention.stop()
            retention._thread.join(PATIENCE)
            assert not retention._thread.is_alive()
            store.close()

        request.addfinalizer(end)

        def wait() -> None:
            # The thread may begin to wait only after the test has moved the clock: then a minute more ends its pause.
            for _ in range(PATIENCE):
                if ended.acquire(timeout=1):
                    return
                clock.advance(60_000)
            raise AssertionError("there was no pass")

        wait()
        return store, watched, clock, wait

    return start


def stored(store: SpanStore) -> int:
    return len(store.query(SpanQuery(limit=100)))


def test_spans_are_deleted_as_they_grow_old(passes: Any) -> None:
    store, _, clock, wait = passes(older_than=dt.timedelta(hours=5))
    assert stored(store) == 5
    clock.advance(HOUR_MILLIS)
    wait()
    assert stored(store) == 4


def test_the_oldest_spans_are_deleted_when_there_is_too_much(passes: Any) -> None:
    store, _, _, _ = passes(max_bytes=1)
    assert stored(store) == 0


def test_a_pass_that_fails_is_followed_by_another(passes: Any, caplog: pytest.LogCaptureFixture) -> None:
    store, watched, clock, wait = passes(older_than=dt.timedelta(hours=5))
    watched.problem = StoreError("it is locked")
    clock.advance(HOUR_MILLIS)
    wait()
    assert stored(store) == 5
    watched.problem = None
    clock.advance(HOUR_MILLIS)
    wait()
    assert stored(store) == 3
    assert "it is locked" in caplog.text
