"""The vendors' calls of a server whose store is ClickHouse: ids lead to spans there as on SQLite."""

from __future__ import annotations

import pytest
import urllib3
from tests.server.vendors.test_galileo import SPAN_UUID, TRACE_UUID, native

from otel_metadata.model.record import SpanQuery
from otel_metadata.server.run import LocalServer
from otel_metadata.server.vendors.names import FILE


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
