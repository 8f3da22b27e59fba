"""Group commit: one transaction for many requests, a bad one by itself, bounds, and the end of the server."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from pathlib import Path
from typing import Any

import pytest
from tests.server.conftest import PATIENCE, Child, Server

from otel_metadata.model.merge import Fields
from otel_metadata.model.record import SpanQuery, StoredSpan
from otel_metadata.reporting import REPORTER
from otel_metadata.server import group_commit
from otel_metadata.server.group_commit import Ingest
from otel_metadata.server.operations import Problem
from otel_metadata.store.sqlite.store import SqliteStore


def row(number: int, *, end_ns: int = 20) -> tuple[StoredSpan, Fields]:
    span = StoredSpan(
        f"{number + 1:032x}", f"{number + 1:016x}", None, "", "answer", "INTERNAL", 10, end_ns, "UNSET", None, {}, (),
        (), {}, "shop", None,
    )  # fmt: skip
    return span, {("span", "metadata", "number"): (number, (end_ns, 0))}


def update(number: int, value: str) -> tuple[str, str, Fields]:
    return f"{number + 1:032x}", f"{number + 1:016x}", {("span", "metadata", "late"): (value, (30, 7))}


class HeldStore:
    """A SQLite store whose first write waits, so that others come meanwhile.

    Attributes:
        writes: How many spans or updates each write had.
    """

    def __init__(self, path: Path) -> None:
        self.inner = SqliteStore(path)
        self.writes: list[int] = []
        self.is_writing, self.may_go_on = threading.Event(), threading.Event()

    def write_rows(self, rows: Sequence[Any]) -> None:
        self._hold(len(rows))
        self.inner.write_rows(rows)

    def patch_rows(self, rows: Sequence[Any], *, route: str) -> None:
        self._hold(len(rows))
        self.inner.patch_rows(rows, route=route)

    def _hold(self, count: int) -> None:
        self.writes.append(count)
        self.is_writing.set()
        assert self.may_go_on.wait(PATIENCE)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[HeldStore]:
    store = HeldStore(tmp_path / "spans.db")
    yield store
    store.inner.close()


def started(held: HeldStore, **options: int) -> tuple[Ingest, Future[None]]:
    """Return an ingest whose first request is being written."""
    ingest = Ingest(held, **options)  # type: ignore[arg-type] # all of a store that it uses
    first = ingest.put([row(0)])
    assert held.is_writing.wait(PATIENCE)
    return ingest, first


def stored(store: SqliteStore) -> dict[str, Any]:
    return {record.span_id: dict(record.metadata) for record in store.query(SpanQuery(limit=None))}


def test_requests_that_come_during_a_write_share_the_next_transaction(held):
    ingest, first = started(held)
    rest = [ingest.put([row(number)]) for number in range(1, 50)]
    rest.append(ingest.put([], [update(3, "late")]))
    assert not first.done()
    held.may_go_on.set()
    for one in [first, *rest]:
        one.result(PATIENCE)
    assert held.writes == [1, 49, 1]
    assert len(stored(held.inner)) == 50
    assert stored(held.inner)[f"{4:016x}"] == {"number": 3, "late": "late"}
    ingest.close()


def test_a_request_is_done_only_when_it_is_on_disk(held, tmp_path):
    ingest, first = started(held)
    assert not first.done()
    held.may_go_on.set()
    first.result(PATIENCE)
    with contextlib.closing(sqlite3.connect(tmp_path / "spans.db")) as other:
        assert other.execute("SELECT count(*) FROM spans").fetchone() == (1,)
    ingest.close()


def test_a_bad_request_harms_no_other(held):
    ingest, first = started(held)
    good = [ingest.put([row(number)]) for number in range(1, 5)]
    bad = ingest.put([row(7), row(8, end_ns=1 << 70)])  # beyond what SQLite can hold
    more = ingest.put([row(9)], [update(9, "late")])
    held.may_go_on.set()
    for one in [first, *good, more]:
        one.result(PATIENCE)
    with pytest.raises(Problem) as refused:
        bad.result(PATIENCE)
    assert refused.value.status == 400
    assert sorted(stored(held.inner)) == [f"{number + 1:016x}" for number in (0, 1, 2, 3, 4, 9)]
    ingest.close()


def test_values_of_the_wrong_type_harm_no_other_and_are_counted(held, monkeypatch):
    monkeypatch.setattr(REPORTER, "reraise", False)
    ingest, first = started(held)
    bad = ingest.put([(row(1)[0], {("span", "metadata", "a"): (object(), (1, 0))})])  # type: ignore[dict-item] # on purpose
    good = ingest.put([row(2)])
    held.may_go_on.set()
    first.result(PATIENCE)
    good.result(PATIENCE)
    with pytest.raises(Problem) as refused:
        bad.result(PATIENCE)
    assert refused.value.status == 400
    ingest.close()
    assert sorted(stored(held.inner)) == [f"{1:016x}", f"{3:016x}"]


@pytest.mark.parametrize(
    "error", [RuntimeError("a fault of ours"), KeyError("x"), MemoryError(), sqlite3.ProgrammingError("closed")]
)
def test_only_a_value_is_a_fault_of_the_request(tmp_path, monkeypatch, error):
    """Senders throw away what is refused with 400, and send it again after 503."""
    monkeypatch.setattr(REPORTER, "reraise", False)
    store = SqliteStore(tmp_path / "spans.db")
    ingest = Ingest(store)

    def fail(*_: Any, **__: Any) -> None:
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(store, "write_rows", fail)
        with pytest.raises(Problem) as refused:
            ingest.put([row(1)]).result(PATIENCE)
    assert (refused.value.status, refused.value.title) == (503, "Internal error; the server's log has the details.")
    assert refused.value.headers["Retry-After"]
    ingest.put([row(1)]).result(PATIENCE)
    ingest.close()
    store.close()


@pytest.mark.parametrize("options", [{"max_rows": 10}, {"max_bytes": 10 * 1_024}])
def test_too_much_that_waits_is_refused_for_a_while(held, options):
    ingest, first = started(held, **options)
    taken = [ingest.put([row(number)]) for number in range(1, 11)]
    assert ingest.waiting_rows == 10
    with pytest.raises(Problem) as refused:
        ingest.put([row(11)])
    assert refused.value.status == 503
    assert int(refused.value.headers["Retry-After"]) >= 1
    held.may_go_on.set()
    wait_for([first, *taken], PATIENCE)
    ingest.put([row(number) for number in range(20, 60)]).result(PATIENCE)  # larger than the queue, and alone
    assert len(stored(held.inner)) == 51
    ingest.close()


def test_a_request_that_is_given_up_before_its_turn_is_not_stored(held):
    ingest, first = started(held)
    given_up = ingest.put([row(1)])
    assert given_up.cancel()
    held.may_go_on.set()
    first.result(PATIENCE)
    ingest.put([row(2)]).result(PATIENCE)
    assert sorted(stored(held.inner)) == [f"{1:016x}", f"{3:016x}"]
    assert ingest.waiting_rows == 0
    ingest.close()


def test_what_waits_at_the_end_is_stored_and_nothing_more_is_taken(held):
    ingest, first = started(held)
    waiting = [ingest.put([row(number)]) for number in range(1, 20)]
    closing = threading.Thread(target=ingest.close, args=(PATIENCE,))
    closing.start()
    with pytest.raises(Problem) as refused:
        while True:  # until the other thread has closed it
            waiting.append(ingest.put([row(20)]))
    assert refused.value.status == 503
    held.may_go_on.set()
    closing.join(PATIENCE)
    for one in [first, *waiting]:
        one.result(0)
    assert len(stored(held.inner)) >= 20


def test_what_still_waits_when_time_is_over_is_refused(held):
    ingest, first = started(held)
    waiting = ingest.put([row(1)])
    ingest.close(0)
    with pytest.raises(Problem) as refused:
        waiting.result(0)
    assert refused.value.status == 503
    held.may_go_on.set()
    first.result(PATIENCE)


def test_a_full_queue_takes_what_was_answered(held):
    ingest, _ = started(held, max_bytes=100)
    ingest.put([row(1)], size=100)
    with pytest.raises(Problem):
        ingest.put([row(2)], size=1)
    answered = ingest.put([], [update(1, "late")], size=100, is_answered=True)
    held.may_go_on.set()
    answered.result(PATIENCE)
    assert stored(held.inner)[f"{2:016x}"]["late"] == "late"
    ingest.close()


def test_a_transaction_has_so_many_bytes(held, monkeypatch):
    """Large values are stored one after the other: their text for the store takes as much memory once more."""
    monkeypatch.setattr(group_commit, "_GROUP_BYTES", 100)
    ingest, first = started(held)
    rest = [ingest.put([row(number)], size=size) for number, size in enumerate((60, 40, 50, 200, 1), start=1)]
    held.may_go_on.set()
    for one in [first, *rest]:
        one.result(PATIENCE)
    assert held.writes == [1, 2, 1, 1, 1]
    ingest.close()


def test_a_file_that_another_process_has_locked_is_no_fault_of_the_requests(tmp_path):
    store = SqliteStore(tmp_path / "spans.db", busy_timeout_millis=0)
    ingest = Ingest(store)
    ingest.put([row(0)]).result(PATIENCE)
    with contextlib.closing(sqlite3.connect(tmp_path / "spans.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        refused = [ingest.put([row(number)]) for number in range(1, 5)]
        for one in refused:
            with pytest.raises(Problem) as problem:
                one.result(PATIENCE)
            assert problem.value.status == 503
            assert "locked" in problem.value.title
        other.execute("ROLLBACK")
    ingest.put([row(9)]).result(PATIENCE)
    assert sorted(stored(store)) == [f"{1:016x}", f"{10:016x}"]
    ingest.close()
    store.close()


def test_a_full_disk_refuses_for_a_while_and_loses_nothing(tmp_path):
    store = SqliteStore(tmp_path / "spans.db")
    ingest = Ingest(store)
    ingest.put([row(0)]).result(PATIENCE)
    assert store._connection is not None
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages + 1}")
    large = StoredSpan(**{name: getattr(row(1)[0], name) for name in StoredSpan.__slots__} | {"name": "x" * 100_000})
    with pytest.raises(Problem) as problem:
        ingest.put([(large, {})]).result(PATIENCE)
    assert problem.value.status == 503
    assert "full" in problem.value.title
    store._connection.execute("PRAGMA max_page_count = 1000000")
    ingest.put([(large, {})]).result(PATIENCE)
    assert len(stored(store)) == 2
    ingest.close()
    store.close()


def test_nothing_is_stored_at_once(tmp_path):
    ingest = Ingest(SqliteStore(tmp_path / "spans.db"))
    assert ingest.put([]).done()
    assert not (tmp_path / "spans.db").exists()
    ingest.close()


@pytest.mark.parametrize("may_write", [True, False])
def test_the_log_is_folded_into_the_file_after_the_answer(tmp_path, may_write):
    store = SqliteStore(tmp_path / "spans.db")
    ingest = Ingest(store)
    ingest.put([row(number) for number in range(1_500)], may_write=may_write).result(PATIENCE)
    ingest.close()
    assert store._connection is not None
    pages, page_bytes = (
        store._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size")
    )
    # The file has every page, and the log is not needed any more.
    assert (tmp_path / "spans.db").stat().st_size == pages * page_bytes
    store.close()


def test_a_thread_that_may_write_does_so_and_stores_what_waits(held):
    held.may_go_on.set()
    ingest = Ingest(held)  # type: ignore[arg-type] # all of a store that it uses
    assert ingest.put([row(0)], may_write=True).done()
    held.may_go_on.clear()
    held.is_writing.clear()
    writing = threading.Thread(target=ingest.put, args=([row(1)],), kwargs={"may_write": True})
    writing.start()
    assert held.is_writing.wait(PATIENCE)
    others = [ingest.put([row(number)], may_write=number % 2 == 0) for number in range(2, 10)]
    assert not any(one.done() for one in others)
    held.may_go_on.set()
    for one in others:
        one.result(PATIENCE)
    writing.join(PATIENCE)
    assert held.writes == [1, 1, 8]
    ingest.close()


WRITER = """
import sys
from otel_metadata.client.client import Client

with Client(sys.argv[1]) as client:
    for line in sys.stdin:
        number = int(line)
        spans = [
            {"context.trace_id": "f" * 32, "context.span_id": f"ff{number * 10 + at:014x}", "name": "theirs",
             "start_time": "2026-01-01", "end_time": "2026-01-02"}
            for at in range(10)
        ]
        logged = client.spans.log(spans).spans_updated
        updated = client.spans.update(sys.argv[2], metadata={f"theirs {number}": number}).spans_updated
        print(logged, updated, flush=True)
"""


def test_another_process_that_writes_as_well_loses_nothing_and_makes_nothing_lost(server: Server) -> None:
    """Each update goes to a span that the other one updates too, and each answer is one of success."""
    assert isinstance(server.store, SqliteStore)
    trace_id, shared = "1" * 32, f"{1:016x}"

    def spans(first: int, count: int) -> Any:
        found = [
            {"traceId": trace_id, "spanId": f"{at:016x}", "name": "ours", "startTimeUnixNano": "10"}
            for at in range(first, first + count)
        ]
        return {"resourceSpans": [{"scopeSpans": [{"spans": found}]}]}

    assert server.call("POST", "/v1/traces", json=spans(1, 1)).status == 200
    is_over = threading.Event()
    taken: list[list[int]] = [[], []]
    refused: list[bytes] = []

    def ingest(numbers: list[int], base: int) -> None:
        while not is_over.is_set() and not refused:
            number = base + len(numbers)
            for answer in (
                server.call("POST", "/v1/traces", json=spans(2 + 10 * number, 10)),
                server.call("PATCH", f"/api/v1/spans/{shared}", json={"metadata": {f"ours {number}": number}}),
            ):
                if answer.status != 200:
                    refused.append(answer.data)
            numbers.append(number)

    child = Child(WRITER, f"sqlite:///{server.store.path}", shared)
    threads = [threading.Thread(target=ingest, args=(taken[at], 10_000 * at)) for at in range(2)]
    try:
        for thread in threads:
            thread.start()
        for number in range(20):
            assert child.ask(f"{number}") == "10 1"
    finally:
        is_over.set()
        for thread in threads:
            thread.join(PATIENCE)
        child.close()
    assert refused == []
    ours = [number for numbers in taken for number in numbers]
    assert ours
    records = server.store.query(SpanQuery(limit=None))
    expected = {(trace_id, f"{2 + 10 * number + at:016x}") for number in ours for at in range(10)}
    expected |= {("f" * 32, f"ff{at:014x}") for at in range(200)} | {(trace_id, shared)}
    assert {(record.trace_id, record.span_id) for record in records} == expected
    (record,) = (record for record in records if (record.trace_id, record.span_id) == (trace_id, shared))
    assert record.metadata == {f"ours {n}": n for n in ours} | {f"theirs {n}": n for n in range(20)}
