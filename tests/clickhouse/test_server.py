"""The vendors' calls of a server whose store is ClickHouse: ids lead to spans there as on SQLite."""

from __future__ import annotations

from contextlib import closing

import pytest
import urllib3
from tests.server.vendors.test_galileo import SPAN_UUID, TRACE_UUID, native

from otel_metadata.cli.demo_serve import fill
from otel_metadata.model.record import SpanQuery
from otel_metadata.model.times import time_text
from otel_metadata.server.run import LocalServer
from otel_metadata.server.vendors.names import FILE
from otel_metadata.store.sqlite.store import SqliteStore

NOW_NS = 1_790_000_000 * 1_000_000_000


def test_a_summary_has_the_numbers_that_it_has_on_sqlite(open_store, tmp_path):
    """Latencies, verdicts, and usage by the metadata of the root, of traces and of spans."""
    found = []
    with (
        urllib3.PoolManager(retries=False, timeout=60) as http,
        closing(SqliteStore(tmp_path / "same.db")) as on_sqlite,
    ):
        for store in (open_store(), on_sqlite):
            fill(store, NOW_NS)
            with LocalServer(store).start() as server:
                window = f"start_time=2026-01-01&end_time={time_text(NOW_NS)}&bars=200&by=metadata.plan"
                for rows in ("traces", "spans"):
                    asked = f"{server.url}/api/v1/summary?{window}&rows={rows}&limit=100&timeout_millis=10000"
                    part = http.request("GET", asked).json()
                    for members in ("verdicts", "groups"):
                        part[members].sort(key=str)
                    for group in part["groups"]:
                        group["cost"] = round(group["cost"], 6)
                    for verdict in part["verdicts"]:
                        verdict["score_sum"] = round(verdict["score_sum"], 6)
                    found.append(part)
    assert found[0]["counted"] == 100
    assert found[0]["is_whole"]
    assert found[:2] == found[2:]


def test_late_values_are_those_that_sqlite_has(open_store, tmp_path):
    """Who set them, what they replaced, on spans and on traces."""
    found = []
    with (
        urllib3.PoolManager(retries=False, timeout=60) as http,
        closing(SqliteStore(tmp_path / "same.db")) as on_sqlite,
    ):
        for store in (open_store(), on_sqlite):
            fill(store, NOW_NS)
            span = store.query(SpanQuery(limit=1))[0]
            for at, value in enumerate(("up", "down")):
                for level, span_id in (("span", span.span_id), ("trace", "")):
                    fields = {(level, "metadata", "thumbs"): (value, (NOW_NS + at, 7))}
                    store.patch_rows([(span.trace_id, span_id, fields)], route="late")
            with LocalServer(store).start() as server:
                asked = f"{server.url}/api/v1/late-values?start_time=2026-01-01&end_time={time_text(NOW_NS)}&limit=20"
                page = http.request("GET", f"{asked}&timeout_millis=10000").json()
                found.append([page["searched_to"], *sorted(page["values"], key=str)])
    replaced = [one["value"]["level"] for one in found[0][1:] if one["replaced"]]
    assert sorted(replaced) == ["span", "trace"]
    assert found[0] == found[1]


def test_galileo_and_langwatch(open_store, tmp_path, monkeypatch: pytest.MonkeyPatch):
    """Names are kept in the working directory; a second server on the same store finds the records of the first."""
    monkeypatch.chdir(tmp_path)
    stores = open_store(), open_store()
    with (
        LocalServer(stores[0]).start() as first,
        LocalServer(stores[1]).start() as second,
        urllib3.PoolManager(retries=False, timeout=60) as http,
    ):

        def call(server: LocalServer, method: str, path: str, document: object) -> urllib3.BaseHTTPResponse:
            return http.request(method, server.url + path, json=document)

        project = call(first, "POST", "/projects", {"name": "shop"}).json()["id"]
        assert call(first, "POST", f"/ingest/traces/{project}", native()).status == 200
        changes = {"output": "late", "tags": ["late"], "status_code": 404, "reliable": True, "duration_ns": 7_000}
        of_span = call(second, "PATCH", f"/v2/projects/{project}/spans/{SPAN_UUID}", {"span_id": SPAN_UUID, **changes})
        of_trace = call(
            second, "PATCH", f"/projects/{project}/traces/{TRACE_UUID}", {"trace_id": TRACE_UUID, **changes}
        )
        assert (of_span.status, of_trace.status) == (200, 200)
        assert of_span.json()["project_name"] == "shop"
        trace_id = TRACE_UUID.replace("-", "")
        metadata = {"user_id": "u1", "labels": ["a"], "env": "late"}
        assert call(second, "PATCH", f"/api/traces/{trace_id}/metadata", {"metadata": metadata}).status == 200
        score = {"traceId": trace_id, "name": "quality", "value": 1}
        assert call(first, "POST", "/api/public/scores", [score]).status == 202
    records = {record.name: record for record in stores[0].query(SpanQuery())}
    ask, flow = records["ask"], records["flow"]
    assert (flow.output, flow.tags, flow.status_code) == ("late", ("w", "late"), 404)
    assert flow.span.end_ns - flow.span.start_ns == 7_000
    assert (ask.trace_output, ask.trace_tags, ask.status_code) == ("late", ("t1", "late"), 404)
    assert (ask.user_id, ask.trace_metadata) == ("u1", {"env": "late", "labels": ["a"]})
    assert ask.trace_evaluations["quality"].score == 1
    assert ask.project == "shop"
    assert (tmp_path / FILE).exists()
