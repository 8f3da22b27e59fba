"""Health, readiness, information, counts and the access log, with real requests."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from tests.server.conftest import Server, StartServer
from tests.store.contract import trace_hex

from otel_metadata._version import __version__
from otel_metadata.server.access import Access
from otel_metadata.server.tokens import Tokens
from otel_metadata.store.sqlite.store import SqliteStore
from otel_metadata.testing import ManualClock

NOW_NS = 1_800_000_000_000_000_000


def counts(server: Server) -> dict[str, float]:
    """Return what the server has counted, by name and labels."""
    response = server.call("GET", "/metrics")
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = response.data.decode().splitlines()
    names = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    found: dict[str, float] = {}
    for line in lines:
        if line.startswith("#"):
            continue
        match = re.fullmatch(r"([a-z_]+)(\{[^}]*\})? (\S+)", line)
        assert match is not None, line
        assert any(match[1].startswith(name) for name in names)
        found[f"{match[1].removeprefix('otel_metadata_server_')}{match[2] or ''}"] = float(match[3])
    return found


def test_a_server_lives_and_is_ready(server: Server) -> None:
    assert server.call("GET", "/healthz").json() == {"status": "ok"}
    assert server.call("GET", "/readyz").json() == {"status": "ready"}


def test_a_server_whose_store_is_lost_lives_and_is_not_ready(start_server: StartServer, tmp_path: Path) -> None:
    path = tmp_path / "lost.db"
    server = start_server(SqliteStore(path))
    assert server.call("GET", "/readyz").status == 200
    server.store.close()
    path.unlink()
    path.mkdir()
    response = server.call("GET", "/readyz")
    assert (response.status, str(tmp_path) in response.data.decode()) == (503, False)
    assert server.call("GET", "/healthz").status == 200


def test_health_needs_no_token_and_the_rest_does(start_server: StartServer, tmp_path: Path) -> None:
    tokens = Tokens(str(tmp_path / "server.tokens"))
    token = tokens.create("ada", ["read"], "shop", NOW_NS)
    server = start_server(access=Access(tokens, needs_token=True))
    for path, status in (("/healthz", 200), ("/readyz", 200), ("/metrics", 401), ("/api/v1/info", 401)):
        assert server.call("GET", path).status == status
        assert server.call("GET", path, headers={"Authorization": f"Bearer {token}"}).status == 200
    info = server.call("GET", "/api/v1/info", headers={"Authorization": f"Bearer {token}"}).json()
    assert (info["caller"], info["scopes"], info["project"], info["needs_token"]) == ("ada", ["read"], "shop", True)


def test_the_information_says_what_the_server_is(start_server: StartServer) -> None:
    server = start_server(clock=ManualClock(NOW_NS))
    info = server.call("GET", "/api/v1/info").json()
    assert (info["name"], info["version"]) == ("otel-metadata", __version__)
    assert info["store"] == str(server.store)
    assert (info["start_time_ns"], info["start_time"][:4]) == (str(NOW_NS), "2027")
    assert (info["needs_token"], info["has_reads"], info["project"]) == (False, True, None)


def test_requests_spans_and_updates_are_counted(server: Server) -> None:
    before = counts(server)
    assert before["spans_stored_total"] == before["updates_stored_total"] == 0
    server.call("PATCH", f"/api/v1/traces/{trace_hex()}", json={"metadata": {"plan": "pro"}})
    server.call("GET", "/nothing")
    server.call("GET", "/healthz", headers={"Host": "evil.example"})
    after = counts(server)
    assert after["updates_stored_total"] == 1
    assert after['requests_total{operation="update_trace",status="200"}'] == 1
    assert after['requests_total{operation="",status="404"}'] == 1
    assert after['requests_total{operation="",status="421"}'] == 1
    assert after['request_duration_seconds_count{operation="update_trace"}'] == 1
    assert after['request_duration_seconds_bucket{operation="update_trace",le="+Inf"}'] == 1
    assert after['request_duration_seconds_sum{operation="update_trace"}'] >= 0


def test_spans_that_otlp_refuses_beside_others_are_counted(server: Server) -> None:
    good = {"traceId": trace_hex(), "spanId": "00000000000000aa", "name": "good", "startTimeUnixNano": "1"}
    bad = {**good, "spanId": "00"}
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [good, bad, bad]}]}]}
    assert server.call("POST", "/v1/traces", json=body).status == 200
    found = counts(server)
    assert (found["spans_stored_total"], found["spans_refused_total"]) == (1, 2)


def test_the_access_log_is_off_unless_it_is_wanted(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server.call("GET", "/healthz")
    assert not [record for record in caplog.records if record.name.startswith("otel_metadata.server")]


def test_the_access_log_has_one_line_for_each_request(
    start_server: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the query, which may have values of users, and without control codes."""
    caplog.set_level(logging.INFO)
    server = start_server(own=True, access_log=True)
    server.call("GET", "/api/v1/spans?filter=user_id%20%3D%20%27s3cr3t%27")
    server.call("GET", "/healthz", headers={"Authorization": "Bearer s3cr3t"})
    server.call("GET", "/nothing/%0A%1b%5B31m")
    server.http.clear()
    server.local.stop()
    lines = [record.getMessage() for record in caplog.records if record.name == "otel_metadata.server.access"]
    caller = r"http:\S+"
    assert len(lines) == 3
    assert re.fullmatch(rf'127\.0\.0\.1 {caller} "GET /api/v1/spans" 200 \d+\.\d ms', lines[0]), lines[0]
    assert re.fullmatch(rf'127\.0\.0\.1 {caller} "GET /healthz" 200 \d+\.\d ms', lines[1]), lines[1]
    assert re.fullmatch(r'127\.0\.0\.1 - "GET /nothing/%0A%1[bB]%5B31m" 404 \d+\.\d ms', lines[2]), lines[2]
