"""Galileo's API: updates of spans and traces, its own ingestion, and the names that its SDK asks for."""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import urllib3
from opentelemetry.trace import SpanContext
from tests.server.api import Plain, start_with_tokens, token_of
from tests.server.conftest import PATIENCE, Server, StartServer
from tests.server.vendors.documented import send
from tests.store.contract import ended_span, only, trace_hex

from otel_metadata.model.record import SpanQuery, SpanRecord
from otel_metadata.seams import SystemClock
from otel_metadata.server import bodies
from otel_metadata.server.vendors.galileo_ids import derived_uuid4
from otel_metadata.server.vendors.jwt import jwt_of, key_of
from otel_metadata.server.vendors.names import Named, VendorNames, vendor_names
from otel_metadata.store.sqlite.store import SqliteStore

PROJECT = "3f0c1b9e-6a52-4d0e-9a53-0d5a5f6b7c81"
STREAM = "7d9a4c11-93a0-4be2-8f37-2f2b8e6f0d14"
TRACE_UUID = "a8e45d41-5260-4bce-a230-009bf6840c24"
SPAN_UUID = "27c57d25-c01f-42a9-9095-c1e150130fed"
CHILD_UUID = "41526bbe-0bf5-4e5c-9276-d6f2283ae480"
VERSION_1 = "27c57d25-c01f-12a9-9095-c1e150130fed"

DOCUMENTED = {
    *("project_id", "project_name", "session_id", "records_count", "log_stream_id", "experiment_id"),
    "metrics_testing_id",
}


def native(**more: Any) -> dict[str, Any]:
    """Return a request of the SDK with a trace, a workflow in it, and a call of a model in that."""
    llm = {
        "type": "llm",
        "id": CHILD_UUID,
        "name": "ask the model",
        "input": [{"role": "user", "content": "q"}],
        "output": {"role": "assistant", "content": "a"},
        "created_at": "2026-11-30T13:52:40.026822Z",
        "user_metadata": {"k": "v"},
        "tags": ["x"],
        "status_code": 200,
        "metrics": {"duration_ns": 1_000, "num_input_tokens": 3, "num_output_tokens": 4, "num_total_tokens": 7},
        "dataset_metadata": {},
        "model": "gpt-5",
        "temperature": 0.5,
    }
    workflow = {
        "type": "workflow",
        "id": SPAN_UUID,
        "name": "flow",
        "input": "wf in",
        "output": "wf out",
        "created_at": "2026-11-30T13:52:40.026689Z",
        "user_metadata": {"step": "1"},
        "tags": ["w"],
        "status_code": 500,
        "metrics": {},
        "spans": [llm],
    }
    trace = {
        "type": "trace",
        "id": TRACE_UUID,
        "name": "ask",
        "input": "hi",
        "output": "bye",
        "created_at": "2026-11-30T13:52:40.026608Z",
        "user_metadata": {"env": "prod"},
        "tags": ["t1"],
        "metrics": {"duration_ns": 9_000_000},
        "external_id": "ext-t",
        "spans": [workflow],
    }
    return {"log_stream_id": STREAM, "reliable": True, "traces": [trace], **more}


def ingest(server: Server, path: str = f"/ingest/traces/{PROJECT}", **more: Any) -> urllib3.BaseHTTPResponse:
    answer = server.call("POST", path, json=native(**more))
    assert answer.status == 200, answer.data
    return answer


def stored(server: Server, uuid: str) -> SpanRecord:
    return only(server.store, span_id=UUID(uuid).hex[16:])


def update(
    server: Server, record: str = "span", uuid: str = SPAN_UUID, path: str | None = None, **body: Any
) -> urllib3.BaseHTTPResponse:
    whole = {f"{record}_id": uuid, "reliable": True, **body}
    whole = {name: value for name, value in whole.items() if value is not ...}
    return server.call("PATCH", path or f"/v2/projects/{PROJECT}/{record}s/{uuid}", json=whole)


@pytest.mark.parametrize(
    "path",
    [f"/ingest/traces/{PROJECT}", f"/v2/projects/{PROJECT}/traces", f"/projects/{PROJECT}/traces"],
)
def test_native_ingestion(server, path):
    """Every value has the place that spans have it in."""
    body = ingest(server, path, session_external_id="s-1").json()
    assert (body["project_id"], body["records_count"], body["traces_count"]) == (PROJECT, 3, 1)
    assert body["log_stream_id"] == STREAM
    root, flow, llm = stored(server, TRACE_UUID), stored(server, SPAN_UUID), stored(server, CHILD_UUID)
    assert {one.trace_id for one in (root, flow, llm)} == {UUID(TRACE_UUID).hex}
    assert (root.parent_id, flow.parent_id, llm.parent_id) == (None, root.span_id, flow.span_id)
    assert (root.name, flow.name, llm.name) == ("ask", "flow", "ask the model")
    assert (root.trace_name, root.session_id, root.trace_tags) == ("ask", "s-1", ("t1",))
    assert (root.trace_input, root.trace_output, root.trace_metadata) == ("hi", "bye", {"env": "prod"})
    assert (flow.input, flow.output, flow.metadata, flow.tags) == ("wf in", "wf out", {"step": "1"}, ("w",))
    assert (flow.status_code, llm.status_code, root.status_code) == ("ERROR", "OK", "UNSET")
    assert (llm.span_kind, flow.span_kind, llm.model) == ("LLM", "CHAIN", "gpt-5")
    assert (llm.input, llm.output) == ([{"role": "user", "content": "q"}], {"role": "assistant", "content": "a"})
    assert llm.attributes["llm.token_count.total"] == 7
    assert llm.attributes["galileo.temperature"] == 0.5
    assert root.attributes["galileo.external_id"] == "ext-t"
    assert (root.span.end_ns - root.span.start_ns, llm.span.end_ns - llm.span.start_ns) == (9_000_000, 1_000)
    assert flow.span.end_ns == llm.span.end_ns
    assert root.project == PROJECT


def test_spans_that_come_one_by_one(server):
    """As in the SDK's distributed mode, a span before its trace."""
    trace = native()["traces"][0]
    (flow,) = trace.pop("spans")
    answer = server.call(
        "POST",
        f"/ingest/spans/{PROJECT}",
        json={"trace_id": TRACE_UUID, "parent_id": TRACE_UUID, "spans": [flow], "log_stream_id": STREAM},
    )
    assert answer.status == 200
    assert {"trace_id", "parent_id", *DOCUMENTED} <= answer.json().keys()
    assert server.call("POST", f"/ingest/traces/{PROJECT}", json={"traces": [trace]}).status == 200
    assert stored(server, SPAN_UUID).parent_id == stored(server, TRACE_UUID).span_id
    assert stored(server, SPAN_UUID).trace_metadata == {"env": "prod"}


def test_an_update_changes_a_span(server):
    """Input, output and status are overwritten, tags are added, and the reply has every documented key."""
    ingest(server)
    answer = update(
        server,
        input="new in",
        output="new out",
        tags=["late", "w"],
        status_code=404,
        log_stream_id=STREAM,
        experiment_id=None,
        metrics_testing_id=None,
        logging_method="python_client",
        client_version="1.0",
    )
    body = answer.json()
    assert (answer.status, body.keys()) == (200, DOCUMENTED | {"span_id"})
    assert (body["span_id"], body["project_id"], body["records_count"]) == (SPAN_UUID, PROJECT, 1)
    assert (body["log_stream_id"], body["experiment_id"], body["metrics_testing_id"]) == (STREAM, None, None)
    assert UUID(body["session_id"]).version == 4
    record = stored(server, SPAN_UUID)
    assert (record.input, record.output, record.tags, record.status_code) == ("new in", "new out", ("w", "late"), 404)
    assert record.metadata == {"step": "1"}


def test_an_update_changes_a_trace(server):
    """Its status is that of its root."""
    ingest(server)
    answer = update(
        server, "trace", TRACE_UUID, input="i", output="o", tags=["late"], status_code=500, is_complete=True
    )
    assert (answer.status, answer.json().keys()) == (200, DOCUMENTED | {"trace_id"})
    root = stored(server, TRACE_UUID)
    assert (root.trace_input, root.trace_output, root.trace_tags) == ("i", "o", ("t1", "late"))
    assert root.status_code == 500


def test_null_changes_nothing(server):
    ingest(server)
    assert update(server, input=None, output=None, tags=None, status_code=None, duration_ns=None).status == 200
    record = stored(server, SPAN_UUID)
    assert (record.input, record.output, record.tags, record.status_code) == ("wf in", "wf out", ("w",), "ERROR")


def test_structured_output_of_a_span(server):
    ingest(server)
    assert update(server, output={"role": "assistant", "content": "x"}).status == 200
    assert stored(server, SPAN_UUID).output == {"role": "assistant", "content": "x"}


def test_a_duration_moves_the_end(server):
    """And leaves everything else of the span."""
    ingest(server)
    before = stored(server, SPAN_UUID)
    assert update(server, duration_ns=5_000_000).status == 200
    after = stored(server, SPAN_UUID)
    assert after.span.end_ns == before.span.start_ns + 5_000_000
    assert (after.metadata, after.tags, after.attributes) == (before.metadata, before.tags, before.attributes)
    assert update(server, "trace", TRACE_UUID, duration_ns=7).status == 200
    assert stored(server, TRACE_UUID).span.end_ns == stored(server, TRACE_UUID).span.start_ns + 7


@pytest.mark.parametrize("record", ["span", "trace"])
def test_a_duration_loses_nothing_that_comes_meanwhile(server, monkeypatch, record):
    """Between the look-up and the write, more of the span arrives, or it is deleted."""
    ingest(server)
    uuid = {"span": SPAN_UUID, "trace": TRACE_UUID}[record]
    before = stored(server, uuid)
    query, newer = server.store.query, replace(before.span, attributes={"more": 1}, end_ns=before.span.end_ns + 9)
    calls = [
        lambda: server.store.write_rows([(newer, {})]),
        lambda: server.store.delete([(before.trace_id, before.span_id)], (before.span.end_ns + 10, 1)),
    ]

    def and_then(wanted):
        found = query(wanted)
        if meanwhile:
            meanwhile.pop()()
        return found

    monkeypatch.setattr(server.store, "query", and_then)
    meanwhile = calls[:1]
    assert update(server, record, uuid, duration_ns=5_000_000).status == 200
    assert stored(server, uuid).span == replace(newer, end_ns=newer.start_ns + 5_000_000)
    meanwhile = calls[1:]
    assert update(server, record, uuid, duration_ns=1 << 61).status == 200
    assert server.store.find([before.span_id]) == {}


def test_a_store_that_cannot_change_a_duration_says_so(start_server: StartServer, tmp_path, monkeypatch):
    """One of a third party; every other update is stored."""
    monkeypatch.chdir(tmp_path)  # the file of names is there
    inner = SqliteStore(tmp_path / "inner.db")
    server = start_server(Plain(inner))
    ingest(server)
    refused = update(server, duration_ns=5, output="lost")
    assert (refused.status, "how long" in refused.json()["detail"]) == (501, True)
    assert stored(server, SPAN_UUID).output == "wf out"
    assert update(server, output="kept").status == 200
    assert stored(server, SPAN_UUID).output == "kept"


@pytest.mark.parametrize("reliable", [True, False])
def test_a_server_that_is_busy_reports_what_it_does_not_store(server, monkeypatch, reliable):
    """No thread is free for a look-up: 503 for an update that is reliable, and for no other."""
    ingest(server)
    with monkeypatch.context() as busy:
        busy.setattr(server.local.service.find, "_free", 0)
        assert update(server, output="x", reliable=reliable).status == (503 if reliable else 200)
        while server.local.service._running:  # the update that was answered at once ends
            server.call("GET", "/healthz")
    assert stored(server, SPAN_UUID).output == "wf out"


def test_a_trace_without_its_root(server):
    """The status waits for the root, whose id is known. No other span gets status or duration."""
    trace = native()["traces"][0]
    (flow,) = trace.pop("spans")
    below = {"trace_id": TRACE_UUID, "parent_id": TRACE_UUID, "spans": [flow]}
    assert server.call("POST", f"/ingest/spans/{PROJECT}", json=below).status == 200
    before = stored(server, SPAN_UUID), stored(server, CHILD_UUID)
    refused = update(server, "trace", TRACE_UUID, duration_ns=5, output="lost")
    assert (refused.status, "root" in refused.json()["detail"]) == (404, True)
    assert (stored(server, SPAN_UUID), stored(server, CHILD_UUID)) == before
    assert update(server, "trace", TRACE_UUID, status_code=503, output="kept").status == 200
    assert stored(server, SPAN_UUID).span == before[0].span
    assert [stored(server, one).status_code for one in (SPAN_UUID, CHILD_UUID)] == ["ERROR", "OK"]
    assert server.call("POST", f"/ingest/traces/{PROJECT}", json={"traces": [trace]}).status == 200
    root = stored(server, TRACE_UUID)
    assert (root.status_code, root.trace_output) == (503, "kept")
    assert update(server, "trace", TRACE_UUID, duration_ns=5).status == 200
    assert stored(server, TRACE_UUID).span.end_ns == root.span.start_ns + 5


@pytest.mark.parametrize("change", [{"status_code": 500}, {"duration_ns": 5}])
def test_a_trace_whose_root_is_elsewhere(server, change):
    """Of a trace that came through OTLP with a remote parent, nobody knows the root."""
    parent = SpanContext(ended_span(1).context.trace_id, 99, is_remote=True)
    server.store.write([ended_span(1, parent=parent)])
    before = only(server.store)
    assert update(server, "trace", trace_hex(), **change, output="lost").status == 404
    assert update(server, "trace", trace_hex(), **change, output="lost", reliable=False).status == 200
    assert update(server, "trace", trace_hex(), tags=["kept"]).status == 200
    after = only(server.store)
    assert (after.span, after.status_code, after.trace_output) == (before.span, before.status_code, None)
    assert after.trace_tags == ("kept",)


@pytest.mark.parametrize("created_at", [None, "2200-01-01T00:00:00Z"])
def test_an_update_wins_over_a_record_of_just_now(server, created_at):
    """Also if the record says no start, or its clock is ahead, and it took an hour."""
    record = {
        "id": TRACE_UUID,
        "output": "old",
        "metrics": {"duration_ns": 3_600_000_000_000},
        "created_at": created_at,
    }
    inside = {"id": SPAN_UUID, "output": "old", "created_at": created_at}
    body = {"traces": [{**record, "spans": [inside]}]}
    assert server.call("POST", f"/ingest/traces/{PROJECT}", json=body).status == 200
    span = stored(server, TRACE_UUID).span
    assert span.end_ns - span.start_ns == 3_600_000_000_000
    assert (span.end_ns <= SystemClock.wall_ns()) is (created_at is None)
    assert update(server, output="new").status == 200
    assert update(server, "trace", TRACE_UUID, output="new").status == 200
    assert (stored(server, SPAN_UUID).output, stored(server, TRACE_UUID).trace_output) == ("new", "new")


def test_a_record_without_a_start_holds_its_children(server):
    """It starts with the first of them, and ends now."""
    children = [{"created_at": "2026-11-30T13:52:40Z", "metrics": {"duration_ns": 5}}, {}]
    body = {"traces": [{"id": TRACE_UUID, "spans": children}]}
    assert server.call("POST", f"/ingest/traces/{PROJECT}", json=body).status == 200
    root, *inside = sorted((one.span for one in server.store.query(SpanQuery())), key=lambda one: one.parent_id or "")
    assert root.start_ns == min(one.start_ns for one in inside)
    assert root.end_ns == max(one.end_ns for one in inside)


def test_the_last_update_wins(server):
    ingest(server)
    for output in ("one", "two"):
        assert update(server, output=output).status == 200
    assert stored(server, SPAN_UUID).output == "two"


def test_nothing_is_cut(server):
    """Galileo documents no largest value, and a body has at most 4 MiB."""
    ingest(server)
    text, items = "x" * 1_500_000, list(range(20_000))
    assert update(server, input=text, output=items).status == 200
    assert update(server, "trace", TRACE_UUID, input=text).status == 200
    record = stored(server, SPAN_UUID)
    assert (record.input, record.output) == (text, items)
    assert stored(server, TRACE_UUID).trace_input == text
    record = {"id": TRACE_UUID, "input": text, "output": items, "user_metadata": {"k": text}, "tags": ["t" * 256]}
    assert server.call("POST", f"/ingest/traces/{PROJECT}", json={"traces": [record]}).status == 200
    root = stored(server, TRACE_UUID)
    assert root.trace_metadata == {"env": "prod", "k": text}
    assert root.trace_tags == ("t1", "t" * 256)


DEEP = json.loads("[" * 70 + "]" * 70)


@pytest.mark.parametrize(
    ("change", "kind", "place"),
    [
        ({"tags": ["t", "t" * 257]}, "string_too_long", ["tags", 1]),
        ({"tags": [""]}, "string_too_short", ["tags", 0]),
        ({"output": DEEP}, "value_error", ["output"]),
        ({"input": {"a": DEEP}}, "value_error", ["input"]),
        ({"user_metadata": {"k" * 257: "v"}}, "string_too_long", ["user_metadata"]),
        ({"user_metadata": {"a/b": 1}}, "string_type", ["user_metadata", "a/b"]),
        ({"other": DEEP}, "value_error", []),
    ],
)
def test_what_cannot_be_kept_whole_is_refused(server, change, kind, place):
    """With 422 and the place, in an ingestion as in an update; nothing is stored."""
    ingest(server)
    answers = [(server.call("POST", f"/ingest/traces/{PROJECT}", json={"traces": [{"id": CHILD_UUID, **change}]}), 2)]
    if change.keys() <= {"tags", "output", "input"}:
        answers.append((update(server, **change), 0))
    for answer, steps in answers:
        (detail,) = answer.json()["detail"]
        where = ["traces", 0][:steps]
        assert (answer.status, detail["type"], detail["loc"]) == (422, kind, ["body", *where, *place])
    record = stored(server, SPAN_UUID)
    assert (record.input, record.output, record.tags) == ("wf in", "wf out", ("w",))
    assert stored(server, CHILD_UUID).parent_id is not None


def test_secrets_are_masked(server):
    """As the page about the server says."""
    ingest(server)
    assert update(server, output={"password": "hunter2-x9", "content": "x"}).status == 200
    assert stored(server, SPAN_UUID).output == {"password": "<masked>", "content": "x"}


@pytest.mark.parametrize("project", [None, PROJECT], ids=["all projects", "one project"])
def test_an_ingestion_replaces_an_update_with_the_scope_only(start_server, tmp_path, project):
    """Without `created_at` its records have the time of now, which is after the update."""
    server = start_with_tokens(start_server, tmp_path)
    ingest(server)
    for record, uuid in (("span", SPAN_UUID), ("trace", TRACE_UUID)):
        assert update(server, record, uuid, output="ada's", tags=["vip"]).status == 200
    again = native()["traces"][0]
    for one in (again, again["spans"][0]):
        del one["created_at"]
        one |= {"output": "app's", "tags": ["vip"], "user_metadata": {"env": "app's", "step": "app's"}}
    below = {"log_stream_id": STREAM, "reliable": True, "trace_id": TRACE_UUID, "parent_id": TRACE_UUID}
    requests = [
        (f"/ingest/traces/{PROJECT}", native(traces=[again])),
        (f"/v2/projects/{PROJECT}/spans", {**below, "spans": again["spans"]}),
    ]
    for path, body in requests:
        assert server.call("POST", path, json=body, headers=token_of(server, project, "traces:write")).status == 200
        assert (stored(server, SPAN_UUID).output, stored(server, TRACE_UUID).trace_output) == ("ada's", "ada's")
        assert stored(server, SPAN_UUID).metadata == {"step": "app's", "env": "app's"}
        found = server.store.history(UUID(TRACE_UUID).hex, UUID(SPAN_UUID).hex[16:])
        assert {(one.level, one.author) for one in found if one.is_current and one.key == "vip"} == {
            ("span", "ada"),
            ("trace", "ada"),
        }
    for path, body in requests:
        assert server.call("POST", path, json=body).status == 200
    assert (stored(server, SPAN_UUID).output, stored(server, TRACE_UUID).trace_output) == ("app's", "app's")


def test_a_record_is_in_one_project(start_server):
    """The id of another one does not lead to it."""
    server = start_server(own=True)
    shop, other = (server.call("POST", "/projects", json={"name": name}).json()["id"] for name in ("shop", "other"))
    ingest(server, f"/ingest/traces/{shop}")
    for record, uuid in (("span", SPAN_UUID), ("trace", TRACE_UUID)):
        for project in (other, PROJECT):
            path = f"/v2/projects/{project}/{record}s/{uuid}"
            assert update(server, record, uuid, path, output="x", tags=["x"]).status == 404
            assert update(server, record, uuid, path, output="x", tags=["x"], reliable=False).status == 200
        answer = update(server, record, uuid, f"/v2/projects/{shop}/{record}s/{uuid}")
        assert (answer.json()["project_id"], answer.json()["project_name"]) == (shop, "shop")
    server.local.stop()
    assert (stored(server, SPAN_UUID).output, stored(server, TRACE_UUID).trace_tags) == ("wf out", ("t1",))


def test_ids_of_opentelemetry_are_accepted(server):
    """A span that came through OTLP has no UUID."""
    server.store.write([ended_span(7)])
    span_id = f"{7:016x}"
    assert update(server, uuid=span_id, output="new").json()["span_id"] == span_id
    assert only(server.store, span_id=span_id).output == "new"
    assert update(server, "trace", trace_hex(), tags=["t"]).json()["trace_id"] == trace_hex()
    assert only(server.store, span_id=span_id).trace_tags == ("t",)
    # With hyphens as well, where the id has the bits of a version 4 UUID.
    v4 = uuid4()
    server.store.write([ended_span(8, trace_id=v4.int)])
    assert update(server, "trace", f"{v4}", output="o").status == 200
    assert only(server.store, trace_id=v4.hex).trace_output == "o"


@pytest.mark.parametrize("record", ["span", "trace"])
def test_reliable_says_whether_the_store_has_it(server, record):
    """True reports an unknown record; false, the default, never does."""
    unknown = f"{uuid4()}"
    answer = update(server, record, unknown, output="x")
    assert (answer.status, list(answer.json())) == (404, ["detail"])
    assert update(server, record, unknown, output="x", reliable=False).status == 200
    assert update(server, record, unknown, output="x", reliable=...).status == 200


def test_reliable_waits_for_the_store(start_server, monkeypatch):
    """While another process holds the store's lock, true waits, and false answers; both are stored in the end."""
    server = start_server(own=True)
    ingest(server)
    is_writing, patch_rows = threading.Event(), server.store.patch_rows

    def write(*rows, **options):
        is_writing.set()
        patch_rows(*rows, **options)

    monkeypatch.setattr(server.store, "patch_rows", write)
    answers: dict[bool, urllib3.BaseHTTPResponse] = {}
    held = sqlite3.connect(server.store.path, isolation_level=None, check_same_thread=False)
    held.execute("BEGIN IMMEDIATE")
    try:
        waits = threading.Thread(target=lambda: answers.update({True: update(server, output="reliable")}))
        waits.start()
        assert is_writing.wait(PATIENCE)
        answers[False] = update(server, tags=["at once"], reliable=False)
        assert answers[False].status == 200
        assert waits.is_alive()
        assert stored(server, SPAN_UUID).tags == ("w",)
    finally:
        held.execute("ROLLBACK")
        held.close()
    waits.join(PATIENCE)
    assert answers[True].status == 200
    assert stored(server, SPAN_UUID).output == "reliable"
    server.local.stop()
    assert stored(server, SPAN_UUID).tags == ("w", "at once")


def test_what_is_answered_at_once_counts_until_it_is_stored(start_server, monkeypatch):
    """Beyond the bound of bodies, updates are refused as any other; what was answered is stored in the end."""
    monkeypatch.setattr(bodies, "MAX_BUFFERED", 200_000)
    server = start_server(own=True)
    ingest(server)
    held = sqlite3.connect(server.store.path, isolation_level=None, check_same_thread=False)
    held.execute("BEGIN IMMEDIATE")
    try:
        answers = [update(server, tags=[f"t{number}"], output="x" * 30_000, reliable=False) for number in range(20)]
    finally:
        held.execute("ROLLBACK")
        held.close()
    taken = [number for number, answer in enumerate(answers) if answer.status == 200]
    refused = {answer.status for answer in answers} - {200}
    assert (1 < len(taken) < 7, refused) == (True, {503})
    server.local.stop()
    assert [tag for tag in stored(server, SPAN_UUID).tags if tag[1:].isdecimal()] == [f"t{at}" for at in taken]
    assert server.local.service.buffered.size == 0
    assert server.local.service.metrics.updates_lost == 0


def test_an_answer_does_not_wait_for_names(start_server: StartServer, tmp_path):
    """While another program has locked their file, an update is stored, and answered as stored."""
    path = tmp_path / "kept.db"
    first = start_server(SqliteStore(path), own=True)
    project = first.call("POST", "/projects", json={"name": "shop"}).json()["id"]
    ingest(first, f"/ingest/traces/{project}")
    first.local.stop()
    second = start_server(SqliteStore(path), own=True)  # it has asked for no name yet
    held = sqlite3.connect(f"{path}.names", isolation_level=None)
    held.execute("BEGIN EXCLUSIVE")
    try:
        span = f"/v2/projects/{project}/spans/{SPAN_UUID}"
        at_once = update(second, path=span, tags=["at once"], reliable=False)
        assert (at_once.status, at_once.json()["project_name"]) == (200, project)
        waited = update(second, path=span, output="reliable")
        assert (waited.status, waited.json()["project_name"]) == (200, "shop")
        assert stored(second, SPAN_UUID).output == "reliable"
    finally:
        held.close()
    second.local.stop()
    assert stored(second, SPAN_UUID).tags == ("w", "at once")
    assert update(start_server(SqliteStore(path)), path=span, reliable=False).json()["project_name"] == "shop"


def test_a_graceful_stop_stores_what_was_answered_at_once(start_server):
    """The lock of another process is given back only after the stop has begun."""
    server = start_server(own=True)
    ingest(server)
    held = sqlite3.connect(server.store.path, isolation_level=None, check_same_thread=False)
    held.execute("BEGIN IMMEDIATE")
    assert update(server, output="at once", reliable=False).status == 200
    assert stored(server, SPAN_UUID).output == "wf out"
    stop = threading.Thread(target=server.local.stop)
    stop.start()
    held.execute("ROLLBACK")
    held.close()
    stop.join(PATIENCE)
    assert not stop.is_alive()
    assert stored(server, SPAN_UUID).output == "at once"


@pytest.mark.parametrize(
    ("body", "kind", "place"),
    [
        ({"span_id": ...}, "missing", ["body", "span_id"]),
        ({"span_id": None}, "uuid_type", ["body", "span_id"]),
        ({"span_id": "abc"}, "uuid_parsing", ["body", "span_id"]),
        ({"span_id": VERSION_1}, "uuid_version", ["body", "span_id"]),
        ({"span_id": CHILD_UUID}, "value_error", ["body", "span_id"]),
        ({"log_stream_id": "x"}, "uuid_parsing", ["body", "log_stream_id"]),
        ({"experiment_id": 1}, "uuid_type", ["body", "experiment_id"]),
        (
            {"metrics_testing_id": VERSION_1},
            "uuid_version",
            ["body", "metrics_testing_id"],
        ),
        ({"logging_method": "curl"}, "enum", ["body", "logging_method"]),
        ({"logging_method": None}, "enum", ["body", "logging_method"]),
        ({"client_version": 1}, "string_type", ["body", "client_version"]),
        ({"reliable": "yes"}, "bool_type", ["body", "reliable"]),
        ({"reliable": None}, "bool_type", ["body", "reliable"]),
        ({"input": 7}, "string_type", ["body", "input"]),
        ({"output": True}, "string_type", ["body", "output"]),
        ({"tags": "t"}, "list_type", ["body", "tags"]),
        ({"tags": ["t", 1]}, "string_type", ["body", "tags", 1]),
        ({"status_code": "200"}, "int_type", ["body", "status_code"]),
        ({"status_code": 1.5}, "int_type", ["body", "status_code"]),
        ({"status_code": True}, "int_type", ["body", "status_code"]),
        ({"status_code": 1 << 40}, "int_range", ["body", "status_code"]),
        ({"duration_ns": -1}, "int_range", ["body", "duration_ns"]),
    ],
)
def test_a_wrong_body_is_refused(server, body, kind, place):
    """422 in FastAPI's form, and nothing is changed."""
    ingest(server)
    answer = update(server, **{"output": "changed", **body})
    (detail,) = answer.json()["detail"]
    assert (answer.status, detail["type"], detail["loc"]) == (422, kind, place)
    assert detail["msg"]
    assert stored(server, SPAN_UUID).output == "wf out"


@pytest.mark.parametrize(
    ("path", "kind", "name"),
    [
        (f"/v2/projects/x/spans/{SPAN_UUID}", "uuid_parsing", "project_id"),
        (f"/v2/projects/{VERSION_1}/spans/{SPAN_UUID}", "uuid_version", "project_id"),
        (f"/v2/projects/{PROJECT}/spans/x", "uuid_parsing", "span_id"),
        (f"/v2/projects/{PROJECT}/spans/{'0' * 16}", "uuid_parsing", "span_id"),
        (f"/v2/projects/{PROJECT}/spans/{VERSION_1}", "uuid_version", "span_id"),
        (f"/v2/projects/{PROJECT}/traces/{'a' * 16}", "uuid_parsing", "trace_id"),
    ],
)
def test_a_wrong_path_is_refused(server, path, kind, name):
    record = "trace" if "traces" in path else "span"
    answer = update(server, record, path=path)
    assert answer.status == 422
    assert answer.json()["detail"][0]["type"] == kind
    assert answer.json()["detail"][0]["loc"] == ["path", name]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b"\xff", b"[" * 5_000])
def test_a_body_that_is_no_object_is_refused(server, body):
    answer = server.call("PATCH", f"/v2/projects/{PROJECT}/spans/{SPAN_UUID}", body=body)
    assert answer.status == 422
    assert answer.json()["detail"][0]["loc"] == ["body"]


def test_names_beside_the_schema_are_ignored(server):
    """As there: metadata has no field, and is lost."""
    ingest(server)
    assert update(server, metadata={"a": 1}, user_metadata={"b": "2"}).status == 200
    assert stored(server, SPAN_UUID).metadata == {"step": "1"}


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"traces": []}, ["body", "traces"]),
        ({"traces": None}, ["body", "traces"]),
        ({"traces": [7]}, ["body", "traces", 0]),
        ({"traces": [{"id": "x"}]}, ["body", "traces", 0, "id"]),
        ({"traces": [{"user_metadata": {"a": 1}}]}, ["body", "traces", 0, "user_metadata", "a"]),
        ({"traces": [{"tags": "t"}]}, ["body", "traces", 0, "tags"]),
        ({"traces": [{"created_at": "yesterday"}]}, ["body", "traces", 0, "created_at"]),
        ({"traces": [{"name": 7}]}, ["body", "traces", 0, "name"]),
        ({"traces": [{"status_code": "200"}]}, ["body", "traces", 0, "status_code"]),
        ({"traces": [{"metrics": []}]}, None),
        ({"traces": [{"metrics": [1]}]}, ["body", "traces", 0, "metrics"]),
        ({"traces": [{"spans": {"a": 1}}]}, ["body", "traces", 0, "spans"]),
        ({"traces": [{"spans": [{}, {"id": "x"}]}]}, ["body", "traces", 0, "spans", 1, "id"]),
        ({"session_id": "x"}, ["body", "session_id"]),
        ({"session_external_id": 7}, ["body", "session_external_id"]),
    ],
)
def test_wrong_records_are_refused(server, change, place):
    """Nothing of the request is stored."""
    answer = server.call("POST", f"/ingest/traces/{PROJECT}", json=native(**change))
    if place is None:
        place = ["body", "traces", 0, "metrics"]
    assert (answer.status, answer.json()["detail"][0]["loc"]) == (422, place)


def test_the_names_that_the_sdk_asks_for(server):
    """A project and a log stream are made once, and have the same ids ever after."""
    assert server.call("GET", "/projects?project_name=shop&type=gen_ai").json() == []
    made = server.call("POST", "/projects", json={"name": "shop", "type": "gen_ai"}).json()
    assert server.call("POST", "/projects", json={"name": "shop"}).json() == made
    (found,) = server.call("GET", "/projects?project_name=shop&type=gen_ai").json()
    assert (found["id"], found["name"], UUID(found["id"]).version) == (made["id"], "shop", 4)
    streams = f"/projects/{made['id']}/log_streams"
    stream = server.call("POST", streams, json={"name": "nightly"}).json()
    (listed,) = server.call("GET", f"{streams}/paginated?include_counts=false&starting_token=0").json()["log_streams"]
    assert (listed["id"], listed["project_id"]) == (stream["id"], made["id"])
    ingest(server, f"/ingest/traces/{made['id']}", log_stream_id=stream["id"])
    root = stored(server, TRACE_UUID)
    assert root.project == "shop"
    assert root.span.resource["galileo.logstream.name"] == "nightly"
    assert update(server, path=f"/v2/projects/{made['id']}/spans/{SPAN_UUID}").json()["project_name"] == "shop"


def test_sessions(server):
    """A session is found by its external id, and traces have it under that."""
    project = server.call("POST", "/projects", json={"name": "shop"}).json()["id"]
    base = f"/v2/projects/{project}/sessions"
    query = {"filters": [{"type": "text", "name": "external_id", "value": "ext-1", "operator": "eq"}]}
    assert server.call("POST", f"{base}/search", json=query).json()["records"] == []
    made = server.call("POST", base, json={"name": "sess", "external_id": "ext-1"}).json()
    assert (made["project_name"], made["external_id"]) == ("shop", "ext-1")
    (found,) = server.call("POST", f"{base}/search", json=query).json()["records"]
    assert found["id"] == made["id"]
    ingest(server, f"/ingest/traces/{project}", session_id=made["id"])
    assert stored(server, TRACE_UUID).session_id == "ext-1"


def test_a_session_or_log_stream_of_another_project_is_not_found(server):
    """Whoever has its id learns neither its name nor its external id."""
    shop, other = (server.call("POST", "/projects", json={"name": name}).json()["id"] for name in ("shop", "other"))
    session = server.call("POST", f"/projects/{shop}/sessions", json={"name": "of the shop"}).json()["id"]
    stream = server.call("POST", f"/projects/{shop}/log_streams", json={"name": "of the shop"}).json()["id"]
    for project, name in ((shop, "of the shop"), (other, None)):
        query = {"filters": [{"name": "external_id", "value": session}]}
        found = server.call("POST", f"/projects/{project}/sessions/search", json=query).json()["records"]
        assert [one["name"] for one in found] == ([name] if name else [])
        trace = f"{uuid4()}"
        body = {"traces": [{"id": trace}], "session_id": session, "log_stream_id": stream}
        assert server.call("POST", f"/ingest/traces/{project}", json=body).status == 200
        root = stored(server, trace)
        assert root.session_id == (name or session)
        assert root.span.resource.get("galileo.logstream.name") == name


@pytest.mark.parametrize(
    "session", [{"name": "by name"}, {"name": "n", "external_id": "ext-1"}, {"external_id": PROJECT}]
)
def test_the_session_of_the_reply_is_the_stored_one(server, session):
    """The id that the session was created with, in the replies to an ingestion and to updates."""
    project = server.call("POST", "/projects", json={"name": "shop"}).json()["id"]
    made = server.call("POST", f"/projects/{project}/sessions", json=session).json()["id"]
    assert ingest(server, f"/ingest/traces/{project}", session_id=made).json()["session_id"] == made
    for record, uuid in (("span", SPAN_UUID), ("trace", TRACE_UUID)):
        assert update(server, record, uuid, f"/projects/{project}/{record}s/{uuid}").json()["session_id"] == made
    server.store.patch_rows([(UUID(TRACE_UUID).hex, "", {("trace", "session_id", ""): ("another", (1 << 62, 1))})])
    moved = update(server, path=f"/projects/{project}/spans/{SPAN_UUID}").json()["session_id"]
    query = {"filters": [{"name": "external_id", "value": "another"}]}
    assert server.call("POST", f"/projects/{project}/sessions/search", json=query).json()["records"] == []
    again = server.call("POST", f"/projects/{project}/sessions", json={"external_id": "another"}).json()["id"]
    assert moved == again


def test_an_external_id_names_the_session_of_an_ingestion(server):
    """Without a call that creates it."""
    project = server.call("POST", "/projects", json={"name": "shop"}).json()["id"]
    said = ingest(server, f"/ingest/traces/{project}", session_external_id="ext-9").json()["session_id"]
    made = server.call("POST", f"/projects/{project}/sessions", json={"external_id": "ext-9"}).json()["id"]
    assert said == made == update(server, path=f"/projects/{project}/spans/{SPAN_UUID}").json()["session_id"]


def test_names_and_ids_survive_a_restart(start_server: StartServer, tmp_path):
    """An SDK goes on with the ids that it has: the next server knows the project, and the record of a UUID."""
    path = tmp_path / "kept.db"
    first = start_server(SqliteStore(path), own=True)
    project = first.call("POST", "/projects", json={"name": "shop"}).json()["id"]
    ingest(first, f"/ingest/traces/{project}")
    first.local.stop()
    first.store.close()
    second = start_server(SqliteStore(path))
    answer = update(second, path=f"/v2/projects/{project}/spans/{SPAN_UUID}", output="after")
    assert (answer.status, answer.json()["project_name"]) == (200, "shop")
    assert stored(second, SPAN_UUID).output == "after"


def test_names_of_another_process_are_found(server, tmp_path):
    """Two servers on one file."""
    other = SqliteStore(server.store.path)
    assert vendor_names(other).get("project", derived_uuid4("project", "shop")) is None
    server.call("POST", "/projects", json={"name": "shop"})
    found = vendor_names(other).get("project", derived_uuid4("project", "shop"))
    assert found is not None
    assert found.name == "shop"
    other.close()


@pytest.mark.parametrize("is_file", [True, False])
def test_the_oldest_names_go(tmp_path, monkeypatch, is_file):
    """Of each kind by itself: many sessions make no project unknown."""
    monkeypatch.setattr("otel_metadata.server.vendors.names.MAX_NAMES", 3)
    names = VendorNames(f"{tmp_path}/names" if is_file else None)
    names.put("project", Named("p", "shop", ""))
    for number in range(5):
        names.put("session", Named(f"{number}", f"session {number}", "p"))
    names.put("session", Named("4", "another name", "p"))
    assert [one.name for one in names.all("session", "p")] == ["session 2", "session 3", "session 4"]
    assert names.get("session", "1", "p") is None
    assert names.get("session", "4", "p") == Named("4", "session 4", "p")
    assert names.get("session", "4", "q") is None
    assert names.get("project", "p") == Named("p", "shop", "")


def test_names_are_for_their_owner_alone(server):
    """And whoever only asks makes no file."""
    assert server.call("GET", "/projects").json() == []
    assert update(server).status == 404
    assert not Path(f"{server.store.path}.names").exists()
    server.call("POST", "/projects", json={"name": "shop"})
    mode = Path(f"{server.store.path}.names").stat().st_mode
    assert mode & 0o077 == 0


def test_what_the_sdk_asks_when_it_starts(server):
    assert server.call("GET", "/healthcheck").json()["message"] == "ok"
    assert server.call("GET", "/ingest/healthz").status == 200
    token = server.call("POST", "/login/api_key", json={"api_key": "k-1"}).json()["access_token"]
    assert key_of(token) == "k-1"
    assert server.call("GET", "/current_user").json()["id"]
    assert server.call("POST", "/login/api_key", json={}).status == 422


@pytest.mark.parametrize("key", ["k", "ü" * 50, "", "a.b.c"])
def test_a_token_holds_its_key(key):
    assert key_of(jwt_of(key)) == key


@pytest.mark.parametrize("token", ["", "k", "a.b.c", jwt_of("k") + "\xff", jwt_of("k") + "!"])
def test_other_texts_are_no_tokens(token):
    assert key_of(token) in {None, token}
    assert key_of(token) is None


def test_the_documented_request(server):
    """Method, headers and every field of the documentation, with curl: its reply, and a refusal."""
    ingest(server)
    document = {
        "span_id": SPAN_UUID,
        "log_stream_id": STREAM,
        "experiment_id": STREAM,
        "metrics_testing_id": STREAM,
        "logging_method": "playground",
        "client_version": "<string>",
        "reliable": True,
        "input": "<string>",
        "output": "<string>",
        "tags": ["<string>"],
        "status_code": 123,
    }
    path, key = f"/v2/projects/{PROJECT}/spans/{SPAN_UUID}", "Galileo-API-Key: <api-key>"
    status, said = send(server, "PATCH", path, key, document)
    assert (status, said.keys()) == (200, DOCUMENTED | {"span_id"})
    assert (said["experiment_id"], said["span_id"]) == (STREAM, SPAN_UUID)
    record = stored(server, SPAN_UUID)
    assert (record.input, record.tags, record.status_code) == ("<string>", ("w", "<string>"), 123)
    assert send(server, "PATCH", path, key, {**document, "span_id": "x"})[0] == 422


def test_the_document_describes_the_documented_update(server):
    """Its fields, what is required, and its reply; ids are UUIDs of version 4."""
    document = server.call("GET", "/api/v1/openapi.json").json()
    call = document["paths"]["/v2/projects/{project_id}/spans/{span_id}"]["patch"]

    def described(content: dict[str, Any]) -> dict[str, Any]:
        name = content["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        found: dict[str, Any] = document["components"]["schemas"][name]
        return found

    body, reply = described(call["requestBody"]), described(call["responses"]["200"])
    documented = {"span_id", "log_stream_id", "experiment_id", "metrics_testing_id", "logging_method"}
    documented |= {"client_version", "reliable", "input", "output", "tags", "status_code"}
    assert (body["properties"].keys(), body["required"]) == (documented | {"duration_ns"}, ["span_id"])
    assert body["properties"]["reliable"]["default"] is False
    assert reply["properties"].keys() == DOCUMENTED | {"span_id"}
    for text, fits in ((SPAN_UUID, True), ("0" * 15 + "1", True), (VERSION_1, False), ("x", False)):
        assert (re.search(body["properties"]["span_id"]["pattern"], text) is not None) is fits
