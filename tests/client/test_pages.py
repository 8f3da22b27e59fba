"""Pages of spans: with a deadline, and one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.store.contract import START_NS, ended_span, metadata, trace_hex

import otel_metadata as om
from otel_metadata.client import client as client_module
from otel_metadata.client.client import Spans
from otel_metadata.errors import ConfigurationError, FilterError
from otel_metadata.store.sqlite import search
from otel_metadata.store.sqlite.store import SqliteStore

SPANS = 60


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> om.Client:
    monkeypatch.setattr(search, "_FIRST_SLICE", 7)
    monkeypatch.setattr(client_module, "_PAGE_SPANS", 8)
    store = SqliteStore(tmp_path / "spans.db")
    store.write(
        ended_span(number, start_ns=START_NS + number, fields=metadata(n=number), trace_id=1 + number % 2)
        for number in range(1, SPANS + 1)
    )
    store.close()
    return om.Client(f"sqlite:///{tmp_path}/spans.db")


def numbers(spans: object) -> list[object]:
    return [span.metadata["n"] for span in spans]  # type: ignore[attr-defined]


class TestDeadline:
    @pytest.mark.parametrize("timeout_millis", [0, 0.0, 1e9, float("inf"), np.int64(0), np.float32(0)])
    def test_pages_that_end_early_show_every_span_together(self, client: om.Client, timeout_millis: float) -> None:
        """Each goes on where the one before ended, and says down to which time it shows every span."""
        shown: list[object] = []
        cursor = None
        with client:
            while True:
                page = client.spans.list(
                    filter="metadata.n <= 20",
                    start_time="2000-01-01",
                    limit=6,
                    cursor=cursor,
                    timeout_millis=timeout_millis,
                )
                shown += numbers(page)
                assert ("searched_to" in page.to_dict()) == (page.searched_to is not None)
                if page.searched_to is not None:
                    assert page.next_cursor is not None
                    assert all(span.start_time >= page.searched_to for span in page)
                cursor = page.next_cursor
                if cursor is None:
                    break
        assert shown == list(range(20, 0, -1))

    def test_a_page_without_a_deadline_is_full(self, client: om.Client) -> None:
        """As it has always been."""
        with client:
            page = client.spans.list(filter="metadata.n <= 20", start_time="2000-01-01", limit=6)
        assert numbers(page) == [20, 19, 18, 17, 16, 15]
        assert page.searched_to is None

    @pytest.mark.parametrize("timeout_millis", [-1, "5", True, float("nan"), np.bool_(True), [5]])
    def test_a_time_that_is_none_is_refused(self, client: om.Client, timeout_millis: object) -> None:
        """With what was expected."""
        with client, pytest.raises(ConfigurationError, match=r"timeout_millis .*expected a number of milliseconds"):
            client.spans.list(timeout_millis=timeout_millis)  # type: ignore[arg-type]

    def test_a_store_that_has_no_deadline_says_so(self) -> None:
        """A store of somebody else: instead of taking as long as it takes."""
        store: Any = object()
        spans = Spans(store)
        with pytest.raises(
            ConfigurationError, match=r"list\(timeout_millis=\) .*expected a store in SQLite or ClickHouse"
        ):
            spans.list(timeout_millis=5)


class TestIter:
    def test_it_yields_every_span_of_the_window(self, client: om.Client) -> None:
        """Page after page, newest first."""
        with client:
            assert numbers(client.spans.iter(start_time="2000-01-01")) == list(range(SPANS, 0, -1))
            assert numbers(client.spans.iter(start_time="2000-01-01", filter="metadata.n > 55")) == [60, 59, 58, 57, 56]
            assert numbers(client.spans.iter(trace_id=trace_hex(2))) == list(range(SPANS - 1, 0, -2))
            assert list(client.spans.iter()) == []  # the last seven days

    def test_it_reads_a_page_at_a_time(self, client: om.Client) -> None:
        """A span that starts later does not come, one that is deleted before its page neither."""
        with client:
            spans = client.spans.iter(start_time="2000-01-01")
            first = next(spans)
            client.spans.delete([f"{1:016x}", f"{2:016x}"])
            store = client._where
            assert isinstance(store, SqliteStore)
            store.write([ended_span(99, start_ns=START_NS + 1_000)])
            assert numbers([first, *spans]) == list(range(SPANS, 2, -1))

    def test_a_wrong_argument_is_an_error_of_the_call(self, client: om.Client) -> None:
        """Not of the first step."""
        with client:
            with pytest.raises(FilterError):
                client.spans.iter(filter="nothing")
            with pytest.raises(ConfigurationError, match="start_time"):
                client.spans.iter(start_time="yesterday")
