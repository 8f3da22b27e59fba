"""`GET /api/v1/summary`: parts that add up to what every span says."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from tests.server.api import fits, refused, start_with_tokens, token_of
from tests.server.conftest import Server, StartServer
from tests.store.contract import START_NS, ended_span

from otel_metadata.cli.demo_serve import fill
from otel_metadata.model.record import SpanQuery, SpanRecord
from otel_metadata.model.times import time_text

NOW_NS = 1_790_000_000 * 1_000_000_000
WINDOW = {"start_time": time_text(NOW_NS - 7 * 86_400 * 1_000_000_000), "end_time": time_text(NOW_NS), "bars": 14}


@pytest.fixture
def server(start_server: StartServer, tmp_path: Path) -> Server:
    """Return a server with a week of the demo's application."""
    started = start_with_tokens(start_server, tmp_path)
    fill(started.store, NOW_NS)
    return started


def summed(server: Server, headers: dict[str, str] | None = None, **query: Any) -> dict[str, Any]:
    """Add all parts up; each of them has rows, or is the last."""
    total: dict[str, Any] = {
        "counted": 0,
        "bars": defaultdict(Counter),
        "verdicts": defaultdict(Counter),
        "groups": defaultdict(Counter),
    }
    asked = {**WINDOW, **query}
    while True:
        part = fits(server.call("GET", f"/api/v1/summary?{urlencode(asked)}", headers=headers), "get_summary")
        total["counted"] += part["counted"]
        assert part["is_whole"]
        for bar in part["bars"]:
            assert bar["count"] == sum(bar["latencies"].values())
            total["bars"][bar["start_time_ns"]].update(count=bar["count"], errors=bar["errors"], **bar["latencies"])
        for one in part["verdicts"]:
            total["verdicts"][one["name"], one["label"]].update(count=one["count"], scored=one["scored"])
        for one in part["groups"]:
            total["groups"][one.pop("value")].update(one)
        if part["next_cursor"] is None:
            return total
        assert part["counted"] > 0
        assert (
            part["searched_to"]["start_time_ns"]
            >= min(part["bars"], key=lambda bar: bar["start_time_ns"])["start_time_ns"]
        )
        asked["cursor"] = part["next_cursor"]


def every_span(server: Server) -> list[SpanRecord]:
    return server.store.query(SpanQuery(limit=None))


@pytest.mark.parametrize("options", [{}, {"limit": 7}, {"timeout_millis": 0, "limit": 60}])
def test_the_parts_add_up_however_they_are_cut(server: Server, options: dict[str, Any]) -> None:
    records = every_span(server)
    roots = {one.trace_id: one for one in records if one.parent_id is None}
    found = summed(server, by="metadata.plan", **options)
    assert found["counted"] == len(roots)
    bars = [*found["bars"].values()]
    assert sum(bar["count"] for bar in bars) == len(roots)
    assert sum(bar["errors"] for bar in bars) == sum(one.status_code == "ERROR" for one in roots.values())
    assert 1 < len(bars) <= 14
    labels = Counter(
        (verdict.name, verdict.label)
        for one in records
        if one.trace_id in roots
        for verdict in one.evaluations.values()
    )
    assert {key: one["count"] for key, one in found["verdicts"].items()} == labels
    assert found["verdicts"]["Correctness", "incorrect"]["scored"] == labels["Correctness", "incorrect"]
    cost: Counter[Any] = Counter()
    tokens: Counter[Any] = Counter()
    for one in records:
        if one.trace_id in roots and "gen_ai.usage.input_tokens" in one.attributes:
            plan = roots[one.trace_id].metadata["plan"]
            cost[plan] += one.metadata["cost_usd"]
            tokens[plan] += one.attributes["gen_ai.usage.input_tokens"]
    assert set(cost) == {"free", "team", "enterprise", "internal"}
    assert {key: one["input_tokens"] for key, one in found["groups"].items()} == tokens
    assert {key: one["cost"] for key, one in found["groups"].items()} == pytest.approx(cost)


def test_spans_are_rows_of_their_own_with_the_metadata_of_their_root(server: Server) -> None:
    """And a latency is in the bucket that says how long it was."""
    found = summed(server, rows="spans", filter="name LIKE 'chat %'", by="metadata.plan", limit=500)
    chats = [one for one in every_span(server) if one.name.startswith("chat ")]
    assert found["counted"] == len(chats)
    assert {"free", "team", "enterprise", "internal"} <= set(found["groups"])
    buckets: Counter[str] = Counter()
    for bar in found["bars"].values():
        buckets.update({key: count for key, count in bar.items() if key not in {"count", "errors"}})
    millis = sorted((one.span.end_ns - one.span.start_ns) / 1e6 for one in chats)
    known = sorted(2 ** (int(bucket) / 8) for bucket, count in buckets.items() for _ in range(count))
    assert all(low <= exact * 1.000001 < low * 2 ** (1 / 8) * 1.00001 for low, exact in zip(known, millis, strict=True))


@pytest.mark.parametrize("by", ["project", "model", "name", "user_id", "session_id"])
def test_usage_is_summed_by_what_a_span_or_its_root_is(server: Server, by: str) -> None:
    found = summed(server, by=by)["groups"]
    whole = summed(server, by="metadata.nothing")["groups"]
    assert set(whole) == {None}
    for member in ("calls", "output_tokens", "cost"):
        assert math.isclose(sum(one[member] for one in found.values()), whole[None][member])
    assert len(found) > 1


def test_a_token_of_a_project_sees_its_own(server: Server) -> None:
    digests = summed(server, token_of(server, "ticket-digest"))
    assert set(digests["groups"]) == {"ticket-digest"}
    assert digests["counted"] == summed(server, project="ticket-digest")["counted"] > 0
    asked = urlencode({**WINDOW, "project": "support-assistant"})
    refused(server.call("GET", f"/api/v1/summary?{asked}", headers=token_of(server, "ticket-digest")), 403)


def test_what_it_does_not_know_is_said(server: Server) -> None:
    for by in ("plan", "metadata.", "metadata", "span"):
        assert "metadata.<key>" in refused(server.call("GET", f"/api/v1/summary?by={by}"), 400)["title"]
    backwards = urlencode({"start_time": WINDOW["end_time"], "end_time": WINDOW["start_time"]})
    refused(server.call("GET", f"/api/v1/summary?{backwards}"), 400)
    cursor = fits(server.call("GET", f"/api/v1/summary?{urlencode({**WINDOW, 'limit': 5})}"), "get_summary")
    other = urlencode({**WINDOW, "cursor": cursor["next_cursor"], "filter": "name = 'x'"})
    assert "cursor" in refused(server.call("GET", f"/api/v1/summary?{other}"), 400)["title"]


def test_a_trace_of_very_many_spans_is_not_read_to_its_end(start_server: StartServer) -> None:
    """It takes its time, not more, and the answer says that something is missing."""
    server = start_server()
    root = ended_span(1, start_ns=START_NS)
    children = [ended_span(number, start_ns=START_NS + number, parent=root.context) for number in range(2, 6_000)]
    server.store.write([root, *children])
    asked = urlencode({"start_time": time_text(START_NS - 1), "end_time": time_text(START_NS + 10_000)})
    part = fits(server.call("GET", f"/api/v1/summary?{asked}"), "get_summary")
    assert (part["counted"], part["is_whole"], part["next_cursor"]) == (1, False, None)
    assert part["spans"] <= 5_000
