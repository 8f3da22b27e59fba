"""`client.traces` and `client.spans.count`: what a program sees of the quick reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from opentelemetry.trace import SpanContext, Status, StatusCode
from tests.store.contract import START_NS, ended_span, metadata, trace_hex

import otel_metadata as om
from otel_metadata.client.client import Spans
from otel_metadata.client.traces import TracePage, Traces, trace_to_dict
from otel_metadata.errors import ConfigurationError, FilterError, InvalidSpanRefError, SpanNotFoundError
from otel_metadata.model.evaluation import Evaluation
from otel_metadata.model.patch import Patch
from otel_metadata.model.record import TraceRecord
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.seams import SpanReads, SystemClock
from otel_metadata.store.clickhouse.store import ClickHouseStore
from otel_metadata.store.sqlite.store import SqliteStore

TRACES = 7


@pytest.fixture
def client(tmp_path: Path) -> Iterator[om.Client]:
    """Traces 1 to 7 of three spans each; the second span of each is an error; trace 3 was judged late."""
    store = SqliteStore(tmp_path / "spans.db")
    for trace in range(1, TRACES + 1):
        parent = SpanContext(trace, 10 * trace, is_remote=False)
        store.write(
            ended_span(
                10 * trace + number,
                trace_id=trace,
                start_ns=START_NS + 10 * trace + number,
                name=f"span {number}",
                parent=parent if number else None,
                status=Status(StatusCode.ERROR if number == 1 else StatusCode.UNSET),
                fields=metadata(plan="free" if trace % 2 else "paid") if not number else {},
            )
            for number in range(3)
        )
    version = (START_NS * 2, 7)
    verdict = Evaluation("Correctness", label="wrong").to_json()
    store.patch(
        [
            Patch(SpanRef(3, 0), {("trace", "evaluation", "Correctness"): (verdict, version)}),
            Patch(SpanRef(3, 31), {("span", "status", ""): ("ok", version)}),
            Patch(SpanRef(3, 0), {("trace", "name", ""): ("checkout", version)}),
        ]
    )
    store.close()
    with om.Client(f"sqlite:///{tmp_path}/spans.db") as client:
        yield client


def test_a_trace_is_one_row(client: om.Client) -> None:
    """Root, duration, numbers, verdicts, and how many values came late."""
    page = client.traces.list(start_time="2000-01-01")
    assert [trace.trace_id for trace in page] == [trace_hex(number) for number in range(TRACES, 0, -1)]
    judged = page[TRACES - 3]
    assert trace_to_dict(judged) == {
        "trace_id": trace_hex(3),
        "root_span_id": f"{30:016x}",
        "name": "checkout",
        "project": None,
        "start_time": "2023-11-14T22:13:20.123456819Z",
        "end_time": "2023-11-14T22:13:20.124456819Z",
        "latency_ms": 1.0,
        "status_code": "UNSET",
        "spans": 3,
        "errors": 0,
        "late_values": 3,
        "evaluations": {"Correctness": {"source": "code", "label": "wrong"}},
    }
    assert (page[0].name, page[0].errors, page[0].late_values) == ("span 0", 1, 0)
    record = client.spans.get(f"{30:016x}")
    assert (judged.start_time, judged.end_time) == (record.start_time, record.end_time)


def test_every_part_of_a_row_is_shown() -> None:
    """A part that a row gets some day is not forgotten here."""
    row = TraceRecord("", "", "", None, 0, 0, "OK", 1, 0, 0, {})
    shown = {name.removesuffix("_time") + "_ns" if name.endswith("_time") else name for name in trace_to_dict(row)}
    assert shown - {"latency_ms"} == set(TraceRecord.__slots__)


def test_pages_follow_each_other(client: om.Client) -> None:
    """With a filter on the root, and with a deadline too."""
    for timeout_millis in (None, 0, 1e9):
        shown: list[str] = []
        cursor = None
        while True:
            page = client.traces.list(
                start_time="2000-01-01",
                filter="metadata.plan = 'free'",
                limit=2,
                cursor=cursor,
                timeout_millis=timeout_millis,
            )
            shown += [trace.trace_id for trace in page]
            cursor = page.next_cursor
            if cursor is None:
                break
            assert page.searched_to is None or len(page) < 2
        assert shown == [trace_hex(number) for number in (7, 5, 3, 1)]


def test_a_page_is_a_sequence_and_json(client: om.Client) -> None:
    """Empty pages are false."""
    page = client.traces.list(start_time="2000-01-01", limit=2)
    assert (len(page), list(page), page[:1]) == (2, [*page.traces], page.traces[:1])
    assert orjson.loads(page.to_json()) == page.to_dict()
    assert set(page.to_dict()) == {"traces", "next_cursor"}
    assert not client.traces.list()  # the last seven days
    assert set(TracePage((), "c", page[0].start_time).to_dict()) == {"traces", "next_cursor", "searched_to"}


def test_an_outline_has_the_spans_of_a_trace(client: om.Client) -> None:
    """Oldest first, with the status of now."""
    outline = client.traces.outline(trace_hex(3))
    assert [(span.name, span.parent_id is None, span.status_code) for span in outline] == [
        ("span 0", True, "UNSET"),
        ("span 1", False, "OK"),
        ("span 2", False, "UNSET"),
    ]
    with pytest.raises(SpanNotFoundError, match=trace_hex(99)):
        client.traces.outline(trace_hex(99))
    with pytest.raises(InvalidSpanRefError):
        client.traces.outline("nothing")


def test_a_count_is_shown_as_it_is_counted(client: om.Client) -> None:
    """With a plus where there may be more."""
    count = client.spans.count
    assert f"{count(start_time='2000-01-01')}" == "21"
    assert f"{count(start_time='2000-01-01', limit=20)}" == "20+"
    assert f"{count(start_time='2000-01-01', limit=21)}" == "21"
    assert count(start_time="2000-01-01", filter="status_code = 'ERROR'").counted == TRACES - 1
    assert count().counted == 0  # the last seven days
    assert count(start_time="2000-01-01", limit=1 << 70).counted == 21


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"limit": 0}, "limit"),
        ({"timeout_millis": -1}, "timeout_millis"),
        ({"start_time": "yesterday"}, "start_time"),
        ({"project": 5}, "project"),
    ],
)
def test_a_wrong_argument_is_named(client: om.Client, given: dict[str, object], expected: str) -> None:
    """By both calls."""
    for call in (client.traces.list, client.spans.count):
        with pytest.raises(ConfigurationError, match=expected):
            call(**given)  # type: ignore[operator]
        with pytest.raises(FilterError):
            call(filter="nothing")  # type: ignore[operator]


def test_other_stores_say_that_they_cannot() -> None:
    """A store of somebody else without such reads, and a destination that keeps its spans elsewhere."""
    for own in (ClickHouseStore("clickhouse://localhost:1/db"), SqliteStore(":memory:")):
        assert isinstance(own, SpanReads)
    store: Any = object()
    for call in (Traces(store, SystemClock()).list, Spans(store).count):
        with pytest.raises(ConfigurationError, match="expected a store in SQLite or ClickHouse"):
            call()  # type: ignore[operator]
    with om.Client("console") as client, pytest.raises(ConfigurationError, match="takes updates only"):
        client.traces.list()
