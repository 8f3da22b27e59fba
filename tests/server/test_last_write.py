"""An update through the server is the last write, and wins, whatever the clocks of others say."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.server.api import SINCE, SPAN_ID, TRACE_ID, refused, start_with_tokens, update
from tests.server.conftest import PATIENCE, Server, StartServer
from tests.store.contract import ended_span

from otel_metadata.model.merge import LAST_NS, FieldName, Fields
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


@pytest.mark.parametrize("has_tag", [False, True])
def test_an_update_of_the_user_of_a_trace_wins_over_that_of_its_spans(server: Server, has_tag: bool) -> None:
    """A span shows the later one of its own and its trace's."""
    more = {"If-Match": server.call("GET", f"/api/v1/traces/{TRACE_ID}").headers["ETag"]} if has_tag else {}
    update(server, f"traces/{TRACE_ID}", {"user_id": "ada", "session_id": "s"}, **more)
    assert (shown(server).user_id, shown(server).session_id) == ("ada", "s")
    body = {"metadata": {"user_id": "eve", "thread_id": "t"}}
    assert server.call("PATCH", f"/api/traces/{TRACE_ID}/metadata", json=body).status == 200
    assert (shown(server).user_id, shown(server).session_id) == ("eve", "t")


def test_in_one_group_the_last_update_of_the_user_wins(server: Server) -> None:
    """Of the span, then of its trace, whatever is stored."""
    updates = [{"span_id": SPAN_ID, "user_id": "one"}, {"trace_id": TRACE_ID, "user_id": "two"}]
    for _ in range(2):
        assert server.call("POST", "/api/v1/spans:batch", json={"updates": updates}).status == 200
        assert shown(server).user_id == updates[-1]["user_id"]
        updates.reverse()


def test_of_two_updates_with_one_tag_one_is_refused(server: Server) -> None:
    """Also if the latest value is from the future."""
    server.store.patch_rows([(TRACE_ID, "", {("trace", "metadata", "plan"): ("far", (FAR_NS, 7))})])
    trace = f"/api/v1/traces/{TRACE_ID}"
    tag = server.call("GET", trace).headers["ETag"]
    answers = [
        server.call("PATCH", trace, json={"metadata": {"plan": plan}}, headers={"If-Match": tag}) for plan in "ab"
    ]
    assert [one.status for one in answers] == [200, 412]
    assert shown(server).trace_metadata == {"plan": "a"}


def span_with(span_id: int, version_ns: int, **more: Any) -> dict[str, Any]:
    """Return OTLP with a span that has an exact field."""
    fields = {"fields": [["span", "metadata", "plan", version_ns, "ab", "far"]]}
    span = {
        "traceId": TRACE_ID, "spanId": f"{span_id:016x}", "name": "exact", "startTimeUnixNano": "5",
        "endTimeUnixNano": "6", **more,
        "attributes": [
            {"key": "otel_metadata.fields", "value": {"stringValue": json.dumps(fields)}},
            {"key": "metadata.region", "value": {"stringValue": "eu"}},
        ],
    }  # fmt: skip
    return {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}


LATE = [span_with(2, LAST_NS + 1), span_with(3, (1 << 63) - 1), span_with(4, 7, endTimeUnixNano=f"{LAST_NS + 1}")]


def test_otlp_brings_no_version_that_an_update_cannot_replace(server: Server) -> None:
    """What has one is refused, and the sender is told. Every other one can be replaced."""
    for late in LATE:
        said = server.call("POST", "/v1/traces", json=late).json()["partialSuccess"]
        assert (said["rejectedSpans"], "2116" in said["errorMessage"]) == ("1", True)
    record = {
        "traceId": TRACE_ID, "spanId": SPAN_ID, "timeUnixNano": f"{LAST_NS + 1}", "attributes": [
            {"key": "event.name", "value": {"stringValue": "gen_ai.evaluation.result"}},
            {"key": "gen_ai.evaluation.name", "value": {"stringValue": "Tone"}},
            {"key": "gen_ai.evaluation.score.label", "value": {"stringValue": "far"}},
        ],
    }  # fmt: skip
    logs = {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}
    said = server.call("POST", "/v1/logs", json=logs).json()["partialSuccess"]
    assert (said["rejectedLogRecords"], "2116" in said["errorMessage"]) == ("1", True)
    assert len(server.store.query(SpanQuery(TRACE_ID))) == 1
    latest = span_with(5, LAST_NS, endTimeUnixNano=f"{LAST_NS}")
    assert server.call("POST", "/v1/traces", json=latest).json() == {}
    update(server, f"spans/{5:016x}", {"metadata": {"plan": "free", "region": "us"}})
    (record,) = server.store.query(SpanQuery(TRACE_ID, f"{5:016x}"))
    assert record.metadata == {"plan": "free", "region": "us"}


def test_an_import_brings_no_version_that_an_update_cannot_replace(
    server: Server, start_server: StartServer, tmp_path: Path
) -> None:
    """Neither as OTLP nor as an export, whose superseded values count as well."""
    other = SqliteStore(tmp_path / "other.db")
    other.write([ended_span(6), ended_span(7)])
    name: FieldName = ("span", "metadata", "plan")
    other.patch_rows([(TRACE_ID, f"{6:016x}", {name: ("far", (LAST_NS + 1, 7))})])
    other.patch_rows([(TRACE_ID, f"{7:016x}", {name: ("latest", (LAST_NS, 7))})])
    export = start_server(other).call("GET", f"/api/v1/export.jsonl?{SINCE}").data
    assert export.count(b"\n") == 2
    lines = export + b"".join(json.dumps(one).encode() + b"\n" for one in LATE)
    report = server.call("POST", "/api/v1/import", body=lines, headers={"Content-Type": "application/jsonl"}).json()
    assert (report["spans_imported"], report["spans_failed"]) == (1, 4)
    assert all("2116" in one["message"] for one in report["problems"])
    update(server, f"spans/{7:016x}", {"metadata": {"plan": "free"}})
    (record,) = server.store.query(SpanQuery(TRACE_ID, f"{7:016x}"))
    assert record.metadata == {"plan": "free"}


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
