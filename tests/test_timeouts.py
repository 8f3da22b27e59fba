"""Times that callers give: any number of any kind is a wait, and none is an exception in the application."""

from __future__ import annotations

import decimal
import math
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from tests.exporters.loopback import Loopback, reply
from tests.store.contract import ended_span

import otel_metadata as om
from otel_metadata.backends.arize.sdk import Calls
from otel_metadata.exporters import otlp_environment
from otel_metadata.exporters.http import HttpClient, Reply
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.exporters.otlp_http import OtlpHttpSender
from otel_metadata.exporters.rest import Budget
from otel_metadata.model.outcome import Delivered
from otel_metadata.seams import MAX_TIMEOUT_MILLIS, SystemClock, bounded_millis
from otel_metadata.store.sqlite.store import SqliteStore
from otel_metadata.testing import RecordingSpanExporter

LONG: list[Any] = [
    sys.maxsize,
    10**13,
    10**400,
    math.inf,
    1e308,
    decimal.Decimal("1e30"),
    None,
    math.nan,
    "soon",
    2.5e6,
]
NO_TIME: list[Any] = [0, -1, -(10**400), -math.inf, -0.5, False]


@pytest.fixture
def pipeline() -> Iterator[om.Pipeline]:
    """A pipeline with an update that waits, and a worker of its own."""
    destination = om.Destination("memory", RecordingSpanExporter(), InMemoryPatchExporter())
    pipeline = om.configure(destination, tracer_provider=TracerProvider(shutdown_on_exit=False))
    assert om.update_span(om.SpanRef(1, 2), metadata={"a": 1})
    yield pipeline
    pipeline.shutdown()


@pytest.mark.parametrize("timeout", LONG, ids=repr)
@pytest.mark.parametrize("whose", ["function", "pipeline", "processor"])
def test_a_flush_of_any_length_ends_when_all_has_arrived(pipeline: om.Pipeline, whose: str, timeout: Any) -> None:
    """The time is a bound, not a wait; what is no number is the default."""
    flush = {"function": om.flush, "pipeline": pipeline.flush, "processor": pipeline.processor.force_flush}[whose]
    assert flush(timeout) is True
    assert pipeline.stats().internal_errors == 0


@pytest.mark.parametrize("timeout", NO_TIME, ids=lambda one: repr(one)[:20])
def test_a_flush_without_time_returns(pipeline: om.Pipeline, timeout: Any) -> None:
    """It asks, and does not wait."""
    assert om.flush(timeout) in (True, False)
    assert pipeline.processor.force_flush(timeout) in (True, False)


@pytest.mark.parametrize("timeout", [*LONG, *NO_TIME], ids=lambda one: repr(one)[:20])
@pytest.mark.parametrize("whose", ["function", "pipeline", "processor"])
def test_a_shutdown_of_any_length_shuts_down(pipeline: om.Pipeline, whose: str, timeout: Any) -> None:
    """Nothing is taken afterwards, and every update is counted."""
    {"function": om.shutdown, "pipeline": pipeline.shutdown, "processor": pipeline.processor.shutdown}[whose](timeout)
    assert not om.update_span(om.SpanRef(1, 2), metadata={"b": 2})
    pipeline.shutdown()
    (counts,) = pipeline.stats().destinations.values()
    assert counts.is_balanced
    assert counts.delivered + sum(counts.lost.values()) == 1


@pytest.mark.parametrize("timeout", LONG, ids=lambda one: repr(one)[:20])
def test_a_request_of_any_length_is_sent(timeout: Any) -> None:
    """Whoever calls an exporter by hand may name any time, for one request and for the exporter."""
    with Loopback(reply()) as server:
        client, sender = HttpClient(server.url), OtlpHttpSender(server.url, timeout_millis=timeout)
        try:
            assert client.request("POST", timeout_millis=timeout) == Reply(200, {"content-length": "0"})
            assert sender.send([ended_span(1)], timeout_millis=timeout) == Delivered()
        finally:
            client.close()
            sender.shutdown()


@pytest.mark.parametrize("timeout", [*LONG, *NO_TIME], ids=lambda one: repr(one)[:20])
def test_a_store_takes_any_time(tmp_path: Path, timeout: Any) -> None:
    """Where nobody else writes, none is waited for."""
    store = SqliteStore(tmp_path / "spans.db", busy_timeout_millis=timeout)
    store.patch([], timeout_millis=timeout)
    store.close()


@pytest.mark.parametrize("timeout", [*LONG, *NO_TIME], ids=lambda one: repr(one)[:20])
def test_every_time_becomes_a_wait_that_the_system_takes(timeout: Any) -> None:
    """From 0 to 23 days, in whole milliseconds."""
    millis = bounded_millis(timeout, 5)
    assert type(millis) is int
    assert 0 <= millis <= MAX_TIMEOUT_MILLIS
    assert 0 <= Budget(timeout).left_millis <= MAX_TIMEOUT_MILLIS
    calls = Calls()
    calls.close(timeout)


def test_a_clock_waits_no_longer_than_the_system_can() -> None:
    """An event that is set is seen, whatever the time."""
    event = threading.Event()
    event.set()
    assert SystemClock.wait(event, 10**30)


@pytest.mark.parametrize("text", ["1e300", "1e308", "9999999999999999"])
def test_a_timeout_of_the_environment_is_bounded(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Seconds that nobody can wait for are the longest wait."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", text)
    assert otlp_environment.timeout_millis("traces") == MAX_TIMEOUT_MILLIS
