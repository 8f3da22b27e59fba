"""Exports that are sent as they are read."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import logging
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import urllib3
from tests.server.api import SINCE, fill, refused, start_with_tokens, update
from tests.server.conftest import Server, StartServer
from tests.store.contract import START_NS, ended_span

from otel_metadata.client.client import Client
from otel_metadata.errors import MissingExtraError, StoreError
from otel_metadata.model.times import time_text
from otel_metadata.server import exports
from otel_metadata.store.sqlite import export as sqlite_export
from otel_metadata.store.sqlite.store import SqliteStore


@pytest.fixture
def server(start_server: StartServer, tmp_path: Path) -> Server:
    """Return a server with one trace of three spans."""
    started = start_with_tokens(start_server, tmp_path)
    fill(started.store)
    return started


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_an_export_is_the_file_that_the_client_writes(server: Server, suffix: str, tmp_path: Path) -> None:
    update(server, f"spans/{1:016x}", {"metadata": {"a": 1}, "tags": ["vip"], "input": "=1+1"})
    update(server, f"spans/{1:016x}", {"metadata": {"a": 2}})
    response = server.call("GET", f"/api/v1/export.{suffix}")
    assert response.status == 200
    assert response.headers["Content-Disposition"] == f'attachment; filename="spans.{suffix}"'
    path = tmp_path / f"spans.{suffix}"
    with Client(f"sqlite:///{server.store.path}") as client:
        count = getattr(client.spans, f"export_to_{suffix}")(path)
    assert count == 3
    if suffix == "parquet":
        assert pq.read_table(io.BytesIO(response.data)).equals(pq.read_table(path))
    else:
        assert response.data == path.read_bytes()


def test_an_export_takes_window_and_filter(server: Server) -> None:
    path = f"/api/v1/export.csv?{SINCE}&end_time={time_text(START_NS + 3)}&filter=parent_id%20IS%20NULL&project=shop"
    rows = list(csv.DictReader(io.StringIO(server.call("GET", path).data.decode())))
    assert [row["name"] for row in rows] == ["step 1"]
    assert server.call("GET", "/api/v1/export.jsonl?project=none").data == b""
    empty = server.call("GET", "/api/v1/export.parquet?project=none").data
    assert pq.read_table(io.BytesIO(empty)).num_rows == 0


@pytest.mark.parametrize("query", ["limit=1", "filter=name", "start_time=x", "at=2026-01-01"])
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_a_wrong_parameter_is_a_refusal_and_no_half_file(server: Server, suffix: str, query: str) -> None:
    refused(server.call("GET", f"/api/v1/export.{suffix}?{query}"), 400)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_an_export_is_sent_in_parts(server: Server, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the rest is read before the first part has gone out, and others write in between."""
    monkeypatch.setattr(sqlite_export, "_PAGE_ROWS", 10)
    server.store.write([ended_span(number, trace_id=number) for number in range(10, 500)])
    reads = 0
    pages = sqlite_export._page

    def page(*given: Any) -> Any:
        nonlocal reads
        reads += 1
        return pages(*given)

    monkeypatch.setattr(sqlite_export, "_page", page)
    response = server.call("GET", f"/api/v1/export.{suffix}", preload_content=False)
    first = response.read(4)
    read_so_far = reads
    assert update(server, f"spans/{1:016x}", {"metadata": {"meanwhile": 1}})["status"] == "updated"
    data = first + response.read()
    assert reads >= 50
    if suffix == "jsonl":
        lines = [json.loads(line) for line in data.splitlines()]
        assert len({(line["context.trace_id"], line["context.span_id"]) for line in lines}) == len(lines) == 493
        assert read_so_far <= reads
    else:
        assert pq.read_table(io.BytesIO(data)).num_rows == 493


def test_an_export_that_fails_midway_is_not_a_whole_answer(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is cut, so that no client takes a part for all."""

    def parts(*_: Any) -> Any:
        yield [b"{}\n" * 10]
        raise StoreError("the disk is gone")

    monkeypatch.setattr(exports.export, "json_lines", parts)
    response = server.call("GET", "/api/v1/export.jsonl", preload_content=False)
    with pytest.raises(urllib3.exceptions.ProtocolError):
        response.read()
    monkeypatch.undo()
    assert server.call("GET", "/api/v1/export.jsonl").status == 200
    (errors,) = [
        handler.records for handler in logging.getLogger("uvicorn.error").handlers if hasattr(handler, "records")
    ]
    assert "the disk is gone" in f"{errors.pop().exc_info}"


def test_only_a_few_exports_run_at_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that nobody reads to its end gives its place back when its client leaves."""
    with contextlib.ExitStack() as slots:
        for _ in range(4):
            slots.enter_context(exports._EXPORTS.slot())
        body = refused(server.call("GET", "/api/v1/export.jsonl"), 503)
    assert "exports" in body["title"]
    for _ in range(9):  # of clients that leave
        server.call("GET", "/api/v1/export.jsonl", preload_content=False).close()
    for _ in range(9):
        assert server.call("GET", "/api/v1/export.jsonl").status == 200
        assert server.call("HEAD", "/api/v1/export.jsonl").status == 200
        refused(server.call("GET", "/api/v1/export.jsonl?filter=x"), 400)


def test_a_missing_package_is_said(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """CSV and Parquet need pyarrow; JSON Lines do not."""

    def missing() -> Any:
        raise MissingExtraError("pyarrow", "dataframe")

    monkeypatch.setattr("otel_metadata.store.table.schema", missing)
    for suffix in ("csv", "parquet"):
        assert "dataframe" in refused(server.call("GET", f"/api/v1/export.{suffix}"), 501)["title"]
    assert len(server.call("GET", "/api/v1/export.jsonl").data.splitlines()) == 3


def test_the_rows_of_a_store_are_the_rows_of_its_table(tmp_path: Path) -> None:
    """With pyarrow and without."""
    from otel_metadata.client.export import json_lines
    from otel_metadata.model.record import SpanQuery

    store = SqliteStore(tmp_path / "spans.db")
    fill(store)
    with_arrow = type("Store", (), {"export": store.export})()
    assert list(json_lines(store, SpanQuery())) == list(json_lines(with_arrow, SpanQuery()))
    store.close()
