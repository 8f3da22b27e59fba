"""An update through the server is the last write, and wins, whatever the clocks of others say."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.server.api import SPAN_ID, TRACE_ID, refused, start_with_tokens, update
from tests.server.conftest import PATIENCE, Server, StartServer
from tests.store.contract import ended_span

from otel_metadata.model.merge import FieldName, Fields
from otel_metadata.model.record import SpanQuery
from otel_metadata.server.group_commit import Ingest
from otel_metadata.store.sqlite.store import SqliteStore

HOUR_NS = 3_600 * 10**9
SPAN = f"/api/v1/spans/{SPAN_ID}"
FAR_NS = (1 << 62) + 5


@pytest.fixture
def server(start_server: StartServer, tmp_path: Path) -> Server:
    """Return a server with a span of a machine whose clock is an hour ahead."""
    started = start_with_tokens(start_server, tmp_path)
    names = ("metadata.plan", "metadata.region", "user.id", "session.id", "input.value", "output.value")
    span = {
        "traceId": TRACE_ID, "spanId": SPAN_ID, "name": "ahead", "startTimeUnixNano": f"{time.time_ns() + HOUR_NS}",
        "endTimeUnixNano": f"{time.time_ns() + 2 * HOUR_NS}",
        "attributes": [{"key": name, "value": {"stringValue": "live"}} for name in names],
    }  # fmt: skip
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
    assert started.call("POST", "/v1/traces", json=body).status == 200
    assert shown(started).metadata == {"plan": "live", "region": "live"}
    return started


def shown(server: Server) -> Any:
    (record,) = server.store.query(SpanQuery(TRACE_ID, SPAN_ID))
    return record


def is_stored(server: Server, receipt: Any) -> bool:
    """Whether the version of a receipt is that of a stored value."""
    version = int(receipt["time_ns"]), int(receipt["writer"], 16)
    return version in {one.version for one in server.store.history(TRACE_ID, SPAN_ID) if one.is_current}


def test_an_update_wins_over_live_values_of_a_clock_that_is_ahead(server: Server) -> None:
    """Twice: the second one over the first one. What it does not set stays."""
    for plan in ("pro", "free"):
        body = {"metadata": {"plan": plan}, "user_id": plan, "session_id": plan, "input": plan, "output": None}
        receipt = update(server, f"spans/{SPAN_ID}", body)
        found = shown(server)
        assert found.metadata == {"plan": plan, "region": "live"}
        assert (found.user_id, found.session_id, found.input, found.output) == (plan, plan, plan, None)
        assert is_stored(server, receipt)


def test_each_way_to_update_wins(server: Server) -> None:
    """Verdicts, batches and If-Match, and the calls of vendors."""
    in_future: Fields = {
        ("span", "evaluation", "Good"): ({"score": 0}, (FAR_NS, 7)),
        ("trace", "evaluation", "Good"): ({"score": 0}, (FAR_NS, 7)),
        ("trace", "metadata", "plan"): ("far", (FAR_NS, 7)),
        ("trace", "user_id", ""): ("far", (FAR_NS, 7)),
    }
    server.store.patch_rows([(TRACE_ID, SPAN_ID, in_future)])
    update(server, f"spans/{SPAN_ID}/evaluations/Good", {"score": 1})
    assert shown(server).evaluations["Good"].score == 1
    two = [{"span_id": SPAN_ID, "metadata": {"plan": plan}} for plan in ("one", "two")]
    outcomes = server.call("POST", "/api/v1/spans:batch", json={"updates": two}).json()["outcomes"]
    assert shown(server).metadata["plan"] == "two"
    assert outcomes[0]["version"] < outcomes[1]["version"]
    tag = server.call("GET", SPAN).headers["ETag"]
    receipt = update(server, f"spans/{SPAN_ID}", {"metadata": {"plan": "three"}}, **{"If-Match": tag})
    assert shown(server).metadata["plan"] == "three"
    assert is_stored(server, receipt)
    body = {"metadata": {"user_id": "ada", "plan": "pro"}}
    assert server.call("PATCH", f"/api/traces/{TRACE_ID}/metadata", json=body).status == 200
    assert (shown(server).user_id, shown(server).trace_metadata) == ("ada", {"plan": "pro"})
    update(server, f"spans/{SPAN_ID}", {"user_id": "eve"})
    assert shown(server).user_id == "eve"
    body = {"span_id": SPAN_ID, "output": "galileo", "reliable": True}
    project = "00000000-0000-4000-8000-000000000001"
    assert server.call("PATCH", f"/v2/projects/{project}/spans/{SPAN_ID}", json=body).status == 200
    assert shown(server).output == "galileo"
    score = {"name": "Good", "traceId": TRACE_ID, "value": 1}
    assert server.call("POST", "/api/public/scores", json=score).status == 200
    assert shown(server).trace_evaluations["Good"].score == 1


def test_updates_at_once_get_versions_of_their_own(server: Server) -> None:
    """The one whose version is the greatest is shown; no two share one."""
    server.store.patch_rows([(TRACE_ID, SPAN_ID, {("span", "metadata", "plan"): ("far", (FAR_NS, 7))})])
    receipts: dict[str, Any] = {}

    def patch(number: int) -> None:
        receipts[f"{number}"] = update(server, f"spans/{SPAN_ID}", {"metadata": {"plan": f"{number}"}})

    threads = [threading.Thread(target=patch, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    versions = {plan: int(receipt["time_ns"]) for plan, receipt in receipts.items()}
    assert len(set(versions.values())) == 40
    assert min(versions.values()) > FAR_NS
    assert versions[shown(server).metadata["plan"]] == max(versions.values())


def test_an_update_of_one_who_came_later_stays(tmp_path: Any) -> None:
    """Versions that the server draws are in the order of its calls, whichever is stored first."""
    store = SqliteStore(tmp_path / "spans.db")
    store.write([ended_span(1)])
    ingest = Ingest(store, {7, 8}.__contains__)
    name: FieldName = ("span", "metadata", "a")

    def put(value: str, ns: int, writer: int, **more: Any) -> Any:
        patch = (TRACE_ID, SPAN_ID, {name: (value, (ns, writer))})
        ((_, _, fields),) = ingest.put([], [patch], **more).result(PATIENCE)
        return fields[name][1]

    now = time.time_ns()
    assert put("later", now + 1, 7) == (now + 1, 7)
    assert put("earlier", now, 8) == (now, 8)
    assert store.versions([(TRACE_ID, SPAN_ID, name)]) == {(TRACE_ID, SPAN_ID, name): (now + 1, 7)}
    store.patch_rows([(TRACE_ID, SPAN_ID, {name: ("another process", (now + 5, 9))})])
    assert put("checked before", now + 2, 7, wins=False) == (now + 2, 7)
    assert put("last", now + 3, 7) == (now + 6, 7)
    assert put("with a version of another process", now + 4, 9) == (now + 4, 9)
    ingest.close()
    assert store.query(SpanQuery(TRACE_ID, SPAN_ID))[0].metadata == {"a": "last"}
    store.close()


@pytest.mark.parametrize("seconds", [600, 10**9])
def test_a_version_from_the_future_is_refused(server: Server, seconds: int) -> None:
    """For a long time nothing that another process sets later would replace it."""
    field = {"level": "span", "kind": "metadata", "key": "plan", "value": "far", "writer": "ab"}

    def exact(after: int) -> dict[str, Any]:
        return {"span_id": SPAN_ID, "fields": [{**field, "time_ns": f"{time.time_ns() + after * 10**9}"}]}

    found = server.call("POST", "/api/v1/spans:batch", json={"updates": [exact(seconds), exact(200)]}).json()
    assert [one["status"] for one in found["outcomes"]] == ["failed", "updated"]
    assert "at most 300 s after the time of the server" in found["outcomes"][0]["message"]
    deletion = {"spans": [{"span_id": SPAN_ID}], "writer": "ab"}
    at = {"time_ns": f"{time.time_ns() + seconds * 10**9}"}
    assert refused(server.call("DELETE", "/api/v1/spans", json={**deletion, **at}), 400)["pointer"] == "/time_ns"
    assert shown(server).name == "ahead"
