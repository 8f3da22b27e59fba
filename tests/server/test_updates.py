"""Changes under `/api/v1`, with real requests."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from tests.server.api import (
    NEVER_STORED,
    OTHER_TRACE,
    SPAN_ID,
    TRACE_ID,
    fill,
    fits,
    refused,
    start_with_tokens,
    token_of,
    update,
)
from tests.server.conftest import PATIENCE, Child, Server, StartServer
from tests.store.contract import START_NS, ended_span
from tests.strategies import examples

from otel_metadata.client.client import Client
from otel_metadata.live import live_settings
from otel_metadata.model.authors import AUTHORS
from otel_metadata.model.record import SpanQuery
from otel_metadata.model.times import time_text
from otel_metadata.server import bodies, imports
from otel_metadata.store.sqlite.store import SqliteStore

SPAN = f"/api/v1/spans/{SPAN_ID}"
TRACE = f"/api/v1/traces/{TRACE_ID}"
WRITER = "00000000000000ab"

UPDATE = {
    "metadata": {"region": "us-west", "nested": {"a": [1, None]}},
    "attributes": {"http.route": "/a"},
    "name": "renamed",
    "user_id": "u",
    "session_id": "s",
    "input": {"q": 1},
    "output": None,
    "tags": ["vip", "new"],
    "status": "error",
    "status_message": "it broke",
    "evaluations": {"Correctness": {"label": "wrong", "score": 0, "explanation": "no", "source": "llm"}},
    "annotations": [{"name": "quality", "label": "bad", "text": "look", "annotator": "ada"}],
}


@pytest.fixture
def server(start_server: StartServer, tmp_path: Path) -> Server:
    """Return a server with one trace of three spans."""
    started = start_with_tokens(start_server, tmp_path)
    fill(started.store)
    return started


def shown(server: Server, span_id: str = SPAN_ID, **query: Any) -> Any:
    """Return what the store itself has of a span."""
    (record,) = server.store.query(SpanQuery(TRACE_ID, span_id, **query))
    return record


def values_of(server: Server, span_id: str = SPAN_ID) -> dict[str, Any]:
    return {value.kind: value for value in server.store.history(TRACE_ID, span_id) if value.is_current}


def test_an_update_sets_every_member_on_a_span(server: Server) -> None:
    """And the receipt says what was set, with which version, and by whom."""
    receipt = update(server, f"spans/{SPAN_ID}", UPDATE)
    span = shown(server)
    assert dict(span.metadata) == UPDATE["metadata"]
    assert span.attributes["http.route"] == "/a"
    assert (span.name, span.user_id, span.session_id) == ("renamed", "u", "s")
    assert (span.input, span.output, set(span.tags)) == ({"q": 1}, None, {"vip", "new"})
    assert (span.status_code, span.status_message) == ("ERROR", "it broke")
    assert span.evaluations["Correctness"].explanation == "no"
    assert (span.annotations[0].name, span.annotations[0].annotator) == ("quality", "ada")
    assert (receipt["status"], receipt["trace_id"], receipt["span_id"]) == ("updated", TRACE_ID, SPAN_ID)
    assert {field["kind"] for field in receipt["fields"]} == set(values_of(server))
    for value in values_of(server).values():
        assert (f"{value.time_ns}", f"{value.writer:016x}") == (receipt["time_ns"], receipt["writer"])
        assert (value.author, value.route) == ("ada", "late") == (receipt["author"], "late")


def test_an_update_of_a_trace_sets_every_member_that_a_trace_has(server: Server) -> None:
    body = {name: value for name, value in UPDATE.items() if name not in {"attributes", "status", "status_message"}}
    receipt = update(server, f"traces/{TRACE_ID}", body)
    assert {field["level"] for field in receipt["fields"]} == {"trace"}
    span = shown(server, f"{2:016x}")
    assert dict(span.trace_metadata) == UPDATE["metadata"]
    assert (span.trace_name, span.user_id, set(span.trace_tags)) == ("renamed", "u", {"vip", "new"})
    assert span.trace_evaluations["Correctness"].label == "wrong"
    assert span.trace_annotations[0].text == "look"
    assert (span.name, span.metadata) == ("step 2", {})
    assert "status" in refused(server.call("PATCH", TRACE, json={"status": "ok"}), 400)["title"]


def test_the_last_update_wins(server: Server) -> None:
    for thumbs in ("up", "down", "up"):
        update(server, f"spans/{SPAN_ID}", {"metadata": {"thumbs": thumbs}})
    assert shown(server).metadata["thumbs"] == "up"


def test_a_verdict_is_put_under_its_name(server: Server) -> None:
    """Also under a name with a slash; a second one replaces it as a whole."""
    update(server, f"spans/{SPAN_ID}/evaluations/Good", {"label": "yes", "explanation": "because"})
    update(server, f"spans/{SPAN_ID}/evaluations/Good", {"score": 0.5})
    update(server, f"spans/{SPAN_ID}/evaluations/a%2Fb", {"label": "slash"})
    update(server, f"spans/{SPAN_ID}/annotations/quality", {"text": "fine", "annotator": "ada"})
    update(server, f"traces/{TRACE_ID}/evaluations/Whole", {"score": 1, "source": "human", "metadata": {"a": 1}})
    update(server, f"traces/{TRACE_ID}/annotations/seen", {"label": "yes"})
    span = shown(server)
    assert (span.evaluations["Good"].score, span.evaluations["Good"].explanation) == (0.5, None)
    assert span.evaluations["a/b"].label == "slash"
    assert (span.annotations[0].text, span.annotations[0].annotator) == ("fine", "ada")
    assert (span.trace_evaluations["Whole"].source, span.trace_evaluations["Whole"].metadata) == ("human", {"a": 1})
    assert [note.name for note in span.trace_annotations] == ["seen"]


def test_an_update_before_its_span_waits_in_the_store(server: Server) -> None:
    """It is pending, and the span has it as soon as it comes."""
    path = f"spans/{f'{5:016x}'}?trace_id={TRACE_ID}"
    assert update(server, path, {"metadata": {"early": 1}})["status"] == "pending"
    assert update(server, f"traces/{OTHER_TRACE}", {"metadata": {"early": 1}})["status"] == "pending"
    refused(server.call("PATCH", f"/api/v1/spans/{NEVER_STORED}", json={"metadata": {"a": 1}}), 404)
    server.store.write([ended_span(5), ended_span(6, trace_id=int(OTHER_TRACE, 16))])
    assert shown(server, f"{5:016x}").metadata == {"early": 1}
    (record,) = server.store.query(SpanQuery(OTHER_TRACE))
    assert record.trace_metadata == {"early": 1}


def test_of_one_id_in_two_traces_the_newest_or_the_named_is_updated(server: Server) -> None:
    server.store.write([ended_span(1, trace_id=5, start_ns=START_NS + 50)])
    assert update(server, f"spans/{SPAN_ID}", {"metadata": {"a": 1}})["trace_id"] == f"{5:032x}"
    named = update(server, f"spans/{SPAN_ID}?trace_id={TRACE_ID}", {"metadata": {"a": 2}})
    assert (named["trace_id"], named["status"]) == (TRACE_ID, "updated")
    assert shown(server).metadata == {"a": 2}


def test_credentials_are_masked_and_long_values_are_cut_with_a_note(server: Server) -> None:
    receipt = update(server, f"spans/{SPAN_ID}", {"metadata": {"api_key": "sk-1", "long": "x" * 50_000}})
    assert any("long" in note for note in receipt["notes"])
    assert len(shown(server).metadata["long"]) < 50_000
    if live_settings.in_force.masks_credentials:
        assert "sk-1" not in f"{shown(server).metadata}"


WRONG_UPDATES: list[tuple[Any, str]] = [
    ({}, "nothing"),
    ({"metadata": {}}, "nothing"),
    ({"metadata": None}, "nothing"),
    ({"metadata": []}, "/metadata"),
    ({"metadatas": {}}, "metadatas"),
    ({"tags": "vip"}, "/tags"),
    ({"tags": ["a", ""]}, "/tags"),
    ({"tags": [1]}, "/tags"),
    ({"name": 5}, "/name"),
    ({"status": "great"}, "status"),
    ({"status": -1}, "status"),
    ({"status": 1 << 40}, "status"),
    ({"status": True}, "/status"),
    ({"evaluations": {"a": {}}}, "contents"),
    ({"evaluations": {"": {"label": "x"}}}, "empty"),
    ({"evaluations": {"a": {"score": "high"}}}, "score"),
    ({"evaluations": {"a": {"lable": "high"}}}, "lable"),
    ({"evaluations": {"a": {"label": "x", "source": "me"}}}, "source"),
    ({"annotations": [{"label": "x"}]}, "name"),
    ({"annotations": [{"name": "x"}]}, "contents"),
    ({"annotations": {"name": "x"}}, "/annotations"),
    ([], "body"),
    ("x", "body"),
]


@pytest.mark.parametrize(("body", "words"), WRONG_UPDATES)
def test_a_wrong_update_is_one_clear_refusal(server: Server, body: Any, words: str) -> None:
    refusal = refused(server.call("PATCH", SPAN, json=body), 400)
    assert words in refusal["title"]
    assert "expected" in refusal["title"].lower()
    assert not server.store.history(TRACE_ID, SPAN_ID)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'{"metadata":{"a":NaN}}', 400),
        (b'{"metadata":{"a":1e999}}', 400),
        (b'{"metadata":{"a":"\\ud800"}}', 400),
        (b'{"metadata":{"\\udfff":1}}', 400),
        (b'{"metadata":{"a":"\xff"}}', 400),
        (b'{"metadata":' + b'{"a":' * 200 + b"1" + b"}" * 200 + b"}", 400),
        (b'{"metadata":{"a":' + b"[" * 90 + b"]" * 90 + b"}}", 200),
        (b'{"metadata":{"a":1' + b"0" * 400 + b"}}", 200),
        (b'{"metadata":{"a":1' + b"0" * 5000 + b"}}", 400),
        (b'{"metadata":{"a":"' + b"x" * (5 << 20) + b'"}}', 413),
        (b'{"evaluations":{"a":{"score":1' + b"0" * 400 + b"}}}", 400),
        (b'{"metadata":{"":1,"\\u0000":2}}', 200),
        (b'{"input":1,"input":2}', 200),
    ],
)
def test_hostile_json_is_refused_or_cleaned(server: Server, raw: bytes, status: int) -> None:
    response = server.call("PATCH", SPAN, body=raw, headers={"Content-Type": "application/json"})
    if status == 200:
        assert response.status == 200, response.data
        assert server.call("GET", SPAN).status == 200
    else:
        refused(response, status)


def test_an_unknown_member_is_answered_with_those_that_there_are(server: Server) -> None:
    """At each level, in a batch as well; a word that is none of a few with those."""
    refusal = refused(server.call("PATCH", SPAN, json={"metadatas": {}}), 400)
    assert refusal["expected"].startswith("metadata, name,")
    refusal = refused(server.call("PATCH", SPAN, json={"evaluations": {"a/b": {"label": "x", "lable": "y"}}}), 400)
    assert refusal["expected"] == "label, score, explanation, source, metadata"
    assert (refusal["pointer"], "/evaluations/*" in refusal["title"]) == ("/evaluations", True)
    refusal = refused(server.call("PATCH", SPAN, json={"annotations": [{"name": "a", "lable": "y"}]}), 400)
    assert refusal["pointer"] == "/annotations/0"
    refusal = refused(server.call("PATCH", SPAN, json={"evaluations": {"a": {"label": "x", "source": "me"}}}), 400)
    assert refusal["expected"] == "code, human, llm"
    assert "kind" in refused(server.call("GET", "/api/v1/names?kind=tag&kinds=tag"), 400)["expected"]
    (outcome,) = batch(server, [{"span_id": SPAN_ID, "metadatas": {}}])["outcomes"]
    assert "metadata, name," in outcome["message"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", f"spans/{SPAN_ID}", {"x" * 1_000_000: 1}),
        ("PATCH", f"spans/{SPAN_ID}", {"status": "x" * 1_000_000}),
        ("POST", "retain", {"before": "x" * 1_000_000}),
        ("DELETE", "spans", {"spans": [{"span_id": "x" * 1_000_000}]}),
        ("DELETE", "spans", {"spans": [{"span_id": SPAN_ID, "trace_id": "x" * 1_000_000}]}),
    ],
)
def test_a_refusal_is_short_whatever_was_sent(server: Server, method: str, path: str, body: Any) -> None:
    """It says what was got, but does not send a body of megabytes back."""
    response = server.call(method, f"/api/v1/{path}", json=body)
    assert response.status == 400
    assert len(response.data) < 5_000


def test_if_match_refuses_an_update_of_what_has_changed(server: Server) -> None:
    """The tag is that of the last read, of the span or of its trace."""
    first = server.call("GET", SPAN).headers["ETag"]
    assert first == '"0"'
    answer = server.call("PATCH", SPAN, json={"metadata": {"a": 1}}, headers={"If-Match": first})
    assert answer.status == 200
    second = answer.headers["ETag"]
    assert second == server.call("GET", SPAN).headers["ETag"] != first
    body = refused(server.call("PATCH", SPAN, json={"metadata": {"a": 2}}, headers={"If-Match": first}), 412)
    assert body["expected"] == second
    assert shown(server).metadata == {"a": 1}
    update(server, f"traces/{TRACE_ID}", {"metadata": {"plan": "free"}})
    refused(server.call("PATCH", SPAN, json={"metadata": {"a": 2}}, headers={"If-Match": second}), 412)
    third = server.call("GET", SPAN).headers["ETag"]
    for tags in (f'"x", {third}', "*"):
        update(server, f"spans/{SPAN_ID}", {"metadata": {"a": 3}}, **{"If-Match": tags})
        third = server.call("GET", SPAN).headers["ETag"]
    refused(server.call("PATCH", SPAN, json={"metadata": {"a": 4}}, headers={"If-Match": f"W/{third}"}), 412)
    refused(server.call("PATCH", SPAN, json={"metadata": {"a": 4}}, headers={"If-Match": "abc"}), 400)
    new = f"/api/v1/spans/{NEVER_STORED}?trace_id={OTHER_TRACE}"
    refused(server.call("PATCH", new, json={"metadata": {"a": 4}}, headers={"If-Match": "*"}), 412)
    refused(server.call("PATCH", new, json={"metadata": {"a": 4}}, headers={"If-Match": '"0"'}), 412)


def test_if_match_of_a_trace_is_about_its_own_values(server: Server) -> None:
    tag = server.call("GET", TRACE).headers["ETag"]
    update(server, f"spans/{SPAN_ID}", {"metadata": {"a": 1}})
    assert server.call("GET", TRACE).headers["ETag"] == tag
    update(server, f"traces/{TRACE_ID}", {"metadata": {"a": 1}}, **{"If-Match": tag})
    refused(server.call("PATCH", TRACE, json={"metadata": {"a": 2}}, headers={"If-Match": tag}), 412)


def test_of_many_updates_with_one_tag_one_succeeds(server: Server) -> None:
    """At the same time, from many connections: nobody overwrites what he has not seen."""
    tag = server.call("GET", SPAN).headers["ETag"]
    statuses: list[int] = []
    barrier = threading.Barrier(8)

    def patch(number: int) -> None:
        barrier.wait(PATIENCE)
        body = {"metadata": {"winner": number}}
        statuses.append(server.call("PATCH", SPAN, json=body, headers={"If-Match": tag}).status)

    threads = [threading.Thread(target=patch, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(statuses) == [200] + [412] * 7
    assert len(server.store.history(TRACE_ID, SPAN_ID)) == 1


def at_once(calls: list[Any]) -> None:
    """Run every call on a thread of its own."""
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)


def test_two_hundred_updates_at_once_are_all_stored(server: Server) -> None:
    """They share look-ups and transactions, and none is refused."""
    statuses: list[int] = []

    def patch(number: int) -> None:
        body = {"metadata": {f"key {number}": number}}
        statuses.append(server.call("PATCH", SPAN, json=body).status)

    at_once([partial(patch, number) for number in range(200)])
    assert statuses == [200] * 200
    assert shown(server).metadata == {f"key {number}": number for number in range(200)}


def test_of_updates_at_once_each_gets_its_own_refusal(server: Server) -> None:
    """One span that is not there leaves those that were looked up with it alone."""
    statuses: dict[str, int] = {}
    paths = [SPAN, f"/api/v1/spans/{NEVER_STORED}", TRACE, f"/api/v1/spans/{2:016x}"] * 10

    def patch(number: int, path: str) -> None:
        response = server.call("PATCH", path, json={"metadata": {f"key {number}": 1}})
        statuses[f"{number} {path}"] = response.status

    at_once([partial(patch, number, path) for number, path in enumerate(paths)])
    assert len(statuses) == 40
    assert {name: status for name, status in statuses.items() if status != 200} == {
        name: 404 for name in statuses if NEVER_STORED in name
    }


def test_a_slow_reader_delays_no_update(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many searches as there are threads for them, and none ends."""
    is_searching, may_end = threading.Semaphore(0), threading.Event()
    search = SqliteStore.search

    def slow(*given: Any, **more: Any) -> Any:
        is_searching.release()
        assert may_end.wait(PATIENCE)
        return search(*given, **more)

    monkeypatch.setattr(SqliteStore, "search", slow)
    searches = [threading.Thread(target=server.call, args=("GET", "/api/v1/spans")) for _ in range(8)]
    for one in searches:
        one.start()
    try:
        for _ in range(4):
            assert is_searching.acquire(timeout=PATIENCE)
        tag = {"If-Match": "*"}
        assert server.call("PATCH", SPAN, json={"metadata": {"a": 1}}).status == 200
        assert server.call("PATCH", SPAN, json={"metadata": {"a": 2}}, headers=tag).status == 200
        found = server.call("POST", "/api/v1/spans:batch", json={"updates": [{"span_id": SPAN_ID, "tags": ["a"]}]})
        assert found.status == 200
    finally:
        may_end.set()
        for one in searches:
            one.join(PATIENCE)


def batch(server: Server, updates: list[Any], headers: Any = None, **more: Any) -> Any:
    body = {"updates": updates, **more}
    return fits(server.call("POST", "/api/v1/spans:batch", json=body, headers=headers), "update_many")


def test_one_bad_update_of_a_batch_leaves_its_siblings_alone(server: Server) -> None:
    found = batch(
        server,
        [
            {"span_id": SPAN_ID, "metadata": {"a": 1}},
            {"span_id": SPAN_ID, "metadatas": {"a": 1}},
            {"span_id": NEVER_STORED, "metadata": {"a": 1}},
            {"span_id": NEVER_STORED, "trace_id": OTHER_TRACE, "metadata": {"a": 1}},
            {"trace_id": TRACE_ID, "metadata": {"plan": "free"}},
            {"metadata": {"plan": "free"}},
            {"trace_id": TRACE_ID, "status": "ok"},
            {"span_id": "xyz", "metadata": {}},
            {"span_id": f"{2:016x}", "tags": [1]},
            {"span_id": f"{2:016x}", "evaluations": {"Good": {"score": 1}}},
        ],
    )
    assert [one["status"] for one in found["outcomes"]] == [
        "updated", "failed", "failed", "pending", "updated", "failed", "failed", "failed", "failed", "updated",
    ]  # fmt: skip
    assert (found["updated"], found["pending"], found["failed"], found["author"]) == (3, 1, 6, "ada")
    reasons = [one.get("reason") for one in found["outcomes"]]
    assert reasons[1] == "parse_failure"
    assert "metadatas" in found["outcomes"][1]["message"]
    assert reasons[2] == "segment_not_found"
    assert found["outcomes"][0]["fields"] == [{"level": "span", "kind": "metadata", "key": "a"}]
    assert shown(server).metadata == {"a": 1}
    assert shown(server).trace_metadata == {"plan": "free"}
    assert shown(server, f"{2:016x}").evaluations["Good"].score == 1


def test_an_exact_update_keeps_its_versions_writers_and_route(server: Server) -> None:
    """As another store has decided them: an older one loses, and twice is once."""
    field = {
        "level": "span",
        "kind": "metadata",
        "key": "thumbs",
        "value": "up",
        "time_ns": f"{START_NS}",
        "writer": WRITER,
    }
    exact = {"span_id": SPAN_ID, "fields": [field, {**field, "level": "trace", "key": "plan"}]}
    for _ in range(2):
        batch(server, [exact], authors={WRITER: "nightly judge"}, route="in_flight")
    batch(server, [{"span_id": SPAN_ID, "fields": [{**field, "value": "older", "time_ns": f"{START_NS - 1}"}]}])
    assert shown(server).metadata == {"thumbs": "up"}
    assert shown(server).trace_metadata == {"plan": "up"}
    values = {value.value: value for value in server.store.history(TRACE_ID, SPAN_ID) if value.level == "span"}
    assert (values["up"].version, values["up"].author, values["up"].route) == (
        (START_NS, 0xAB),
        "nightly judge",
        "in_flight",
    )
    assert (values["older"].route, values["older"].is_current) == ("late", False)


def test_a_batch_names_only_the_writers_of_its_values(server: Server) -> None:
    """A list of other writers would push out the names of those who are known."""
    batch(server, [{"span_id": SPAN_ID, "metadata": {"a": 1}}], authors={"00000000000000cd": "nobody"})
    assert AUTHORS.name_of(0xCD) is None


def exact(writer: str, value: Any = "eve's", ns: int = START_NS, **more: Any) -> dict[str, Any]:
    """Return an update with one exact field."""
    field = {"level": "span", "kind": "metadata", "key": "a", "value": value, "time_ns": f"{ns}", "writer": writer}
    return {"span_id": SPAN_ID, "fields": [field], **more}


def authors_of(server: Server) -> dict[Any, str | None]:
    return {value.value: value.author for value in server.store.history(TRACE_ID, SPAN_ID)}


def test_nobody_renames_the_author_of_another_token(server: Server) -> None:
    """Its writer is in every receipt. Neither values of now nor earlier ones get another name."""
    writer = update(server, f"spans/{SPAN_ID}", {"metadata": {"a": "ada's"}})["writer"]
    found = batch(server, [exact(writer), exact(WRITER, "judge's")], authors={writer: "zz", WRITER: "judge"})
    assert [(one["status"], one.get("reason")) for one in found["outcomes"]] == [
        ("failed", "forbidden"),
        ("updated", None),
    ]
    assert writer in found["outcomes"][0]["message"]
    update(server, f"spans/{SPAN_ID}", {"metadata": {"a": "ada's again"}})
    assert authors_of(server) == {"ada's": "ada", "ada's again": "ada", "judge's": "judge"}


def test_a_span_names_no_writer_of_the_server(server: Server) -> None:
    """Such a span is refused, and the others of the request are stored."""
    writer = update(server, f"spans/{SPAN_ID}", {"metadata": {"a": "ada's"}})["writer"]
    exact = {"fields": [["span", "metadata", "a", START_NS + 10**18, writer, "eve's"]], "authors": {writer: "zz"}}

    def span(number: int, attributes: dict[str, Any]) -> dict[str, Any]:
        return {
            "traceId": TRACE_ID, "spanId": f"{number:016x}", "name": "n", "startTimeUnixNano": f"{START_NS}",
            "attributes": [{"key": key, "value": {"stringValue": json.dumps(one)}} for key, one in attributes.items()],
        }  # fmt: skip

    spans = [span(1, {"otel_metadata.fields": exact}), span(9, {})]
    body = {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}
    partial_success = server.call("POST", "/v1/traces", json=body).json()["partialSuccess"]
    assert (partial_success["rejectedSpans"], "a writer of this server" in partial_success["errorMessage"]) == (
        "1",
        True,
    )
    assert shown(server).metadata == {"a": "ada's"}
    assert authors_of(server) == {"ada's": "ada"}
    assert shown(server, f"{9:016x}").name == "n"


def test_an_import_renames_no_author_of_the_server(server: Server) -> None:
    """It may carry its writers: an export of this server that comes back."""
    update(server, f"spans/{SPAN_ID}", {"metadata": {"a": "ada's"}})
    export = server.call("GET", "/api/v1/export.jsonl").data
    assert b'"ada"' in export
    assert server.call("POST", "/api/v1/import", body=export.replace(b'"ada"', b'"zz"')).status == 200
    update(server, f"spans/{SPAN_ID}", {"metadata": {"a": "ada's again"}})
    assert authors_of(server) == {"ada's": "ada", "ada's again": "ada"}


def spans_of(fields: dict[str, Any], span_id: str = SPAN_ID) -> dict[str, Any]:
    """Return a request of OTLP whose span has exact fields."""
    attributes = [{"key": "otel_metadata.fields", "value": {"stringValue": json.dumps(fields)}}]
    span = {
        "traceId": TRACE_ID, "spanId": span_id, "name": "n", "startTimeUnixNano": f"{START_NS}",
        "attributes": attributes,
    }  # fmt: skip
    return {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}


def test_nobody_takes_the_name_of_another_token(server: Server) -> None:
    """A batch says so, whatever surrounds the name; over OTLP and in an import the value has no author."""
    eve = token_of(server, None)  # "ada 1"
    for name in ("ada", " ada "):
        found = batch(server, [exact(WRITER), {"span_id": SPAN_ID, "metadata": {"b": 1}}], eve, authors={WRITER: name})
        assert [one.get("reason") for one in found["outcomes"]] == ["forbidden", None]
        assert name in found["outcomes"][0]["message"]
    assert "a" not in shown(server).metadata
    fields = {"fields": [["span", "metadata", "a", START_NS, WRITER, "spans"]], "authors": {WRITER: "ada"}}
    for path, request in (("/v1/traces", spans_of(fields)), ("/api/v1/import", spans_of(fields))):
        assert server.call("POST", path, json=request, headers=eve).status == 200
        assert authors_of(server)["spans"] is None
    batch(server, [exact("00000000000000ac", "judge's", START_NS + 1)], authors={"00000000000000ac": "aa"})
    export = server.call("GET", "/api/v1/export.jsonl").data
    assert b'"aa' in export.replace(b"\\", b"")
    renamed = export.replace(b'"aa"', b'"ada"').replace(b'\\"aa\\"', b'\\"ada\\"')
    assert server.call("POST", "/api/v1/import", body=renamed, headers=eve).status == 200
    assert authors_of(server) == {"spans": None, "judge's": "aa", 1: "ada 1"}


def test_a_token_may_bring_its_own_name_and_those_of_no_token(server: Server) -> None:
    eve = token_of(server, None)  # "ada 1"
    other = "00000000000000ac"
    both = [exact(WRITER, "eve's"), exact(other, "judge's", START_NS + 1)]
    found = batch(server, both, eve, authors={WRITER: "ada 1", other: "judge"})
    assert found["updated"] == 2
    assert authors_of(server) == {"eve's": "ada 1", "judge's": "judge"}


ANOTHER_SERVER = """
import sys
from otel_metadata.server.access import Access
from otel_metadata.server.run import LocalServer
from otel_metadata.server.tokens import Tokens
from otel_metadata.store.sqlite.store import SqliteStore

store = SqliteStore(sys.argv[1])
server = LocalServer(store, access=Access(Tokens(sys.argv[2]), needs_token=True)).start()
print(server.url, flush=True)
sys.stdin.readline()
server.stop()
store.close()
print("stopped", flush=True)
"""


@pytest.mark.parametrize("has_stopped", [False, True], ids=["beside it", "after a restart"])
def test_an_author_of_another_server_keeps_its_name(server: Server, tmp_path: Path, has_stopped: bool) -> None:
    """A server knows the writers of another one on the same store by the names that are stored."""
    eve = token_of(server, None)
    assert isinstance(server.store, SqliteStore)
    child = Child(ANOTHER_SERVER, server.store.path, f"{tmp_path}/tokens")
    url = child.line()
    receipt = server.http.request(
        "PATCH", f"{url}{SPAN}", json={"metadata": {"a": "ada's"}},
        headers={**server.headers, "Content-Type": "application/json"},
    ).json()  # fmt: skip
    writer, now_ns = receipt["writer"], int(receipt["time_ns"])
    if has_stopped:
        assert child.ask("stop") == "stopped"
    assert AUTHORS.name_of(int(writer, 16)) is None
    found = batch(server, [exact(writer, ns=now_ns + 1)], eve, authors={writer: "zz"})
    assert found["outcomes"][0]["reason"] == "forbidden"
    fields = {"fields": [["span", "metadata", "a", now_ns + 1, writer, "eve's"]], "authors": {writer: "zz"}}
    answer = server.call("POST", "/v1/traces", json=spans_of(fields), headers=eve).json()
    assert answer["partialSuccess"]["rejectedSpans"] == "1"
    export = server.call("GET", "/api/v1/export.jsonl").data
    assert b'"ada"' in export or b'\\"ada\\"' in export
    renamed = export.replace(b'"ada"', b'"zz"').replace(b'\\"ada\\"', b'\\"zz\\"')
    assert server.call("POST", "/api/v1/import", body=renamed, headers=eve).status == 200
    # Nor does the token itself give its earlier values another name.
    batch(server, [exact(writer, "ada's again", now_ns + 2)], authors={writer: "zz"})
    assert authors_of(server) == {"ada's": "ada", "ada's again": "ada"}
    if not has_stopped:
        assert child.ask("stop") == "stopped"
    child.close()


def test_an_update_that_is_refused_names_no_writer(server: Server) -> None:
    server.store.write([ended_span(7, name="foreign", resource=Resource({"service.name": "bank"}))])
    foreign = {**exact("00000000000000ef"), "span_id": f"{7:016x}"}
    found = batch(server, [foreign], headers=token_of(server, "shop"), authors={"00000000000000ef": "eve"})
    assert found["outcomes"][0]["reason"] == "forbidden"
    assert AUTHORS.name_of(0xEF) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"time_ns": "9" * 19},
        {"time_ns": 5},
        {"time_ns": "1.5"},
        {"writer": "0x1"},
        {"writer": "f" * 17},
        {"kind": "thing"},
        {"level": "both"},
        {"kind": "name", "key": "k"},
        {"extra": 1},
    ],
)
def test_a_wrong_exact_field_fails_its_update(server: Server, wrong: dict[str, Any]) -> None:
    field = {"level": "span", "kind": "metadata", "key": "a", "value": 1, "time_ns": "1", "writer": "ab", **wrong}
    found = batch(server, [{"span_id": SPAN_ID, "fields": [field]}, {"span_id": SPAN_ID, "metadata": {"b": 1}}])
    assert [one["status"] for one in found["outcomes"]] == ["failed", "updated"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"updates": {}},
        {"updates": [1]},
        {"updates": [], "route": "post"},
        {"updates": [], "authors": {"xyz": "a"}},
        {"updates": [{}] * 5_001},
        {"updates": [], "more": 1},
    ],
)
def test_a_wrong_batch_is_refused(server: Server, body: Any) -> None:
    refused(server.call("POST", "/api/v1/spans:batch", json=body), 400)


def test_fields_of_a_span_need_one(server: Server) -> None:
    field = {"level": "span", "kind": "metadata", "key": "a", "value": 1, "time_ns": "1", "writer": "ab"}
    found = batch(
        server,
        [
            {"trace_id": TRACE_ID, "fields": [field]},
            {"span_id": SPAN_ID, "fields": []},
            {"span_id": SPAN_ID, "fields": [field], "metadata": {"a": 1}},
        ],
    )
    assert found["failed"] == 3


def test_deleted_spans_are_gone_for_good(server: Server) -> None:
    """The answer says which were there, and an older update brings nothing back."""
    late = {"level": "span", "kind": "metadata", "key": "a", "value": 1, "time_ns": f"{START_NS}", "writer": WRITER}
    body = {"spans": [{"span_id": SPAN_ID}, {"span_id": NEVER_STORED}, {"span_id": SPAN_ID, "trace_id": OTHER_TRACE}]}
    found = fits(server.call("DELETE", "/api/v1/spans", json=body), "delete_spans")
    assert found["deleted"] == [{"trace_id": TRACE_ID, "span_id": SPAN_ID}]
    assert found["not_deleted"] == [
        {"trace_id": None, "span_id": NEVER_STORED},
        {"trace_id": OTHER_TRACE, "span_id": SPAN_ID},
    ]
    refused(server.call("GET", SPAN), 404)
    batch(server, [{"span_id": SPAN_ID, "trace_id": TRACE_ID, "fields": [late]}])
    server.store.write([ended_span(1)])
    assert not server.store.query(SpanQuery(TRACE_ID, SPAN_ID))
    again = fits(server.call("DELETE", "/api/v1/spans", json=body), "delete_spans")
    assert again["deleted"] == []


def test_a_deletion_may_bring_its_version(server: Server) -> None:
    """As a client has drawn it: what is newer comes through."""
    body = {"spans": [{"span_id": SPAN_ID, "trace_id": TRACE_ID}], "time_ns": f"{START_NS + 5}", "writer": WRITER}
    found = fits(server.call("DELETE", "/api/v1/spans", json=body), "delete_spans")
    assert (found["time_ns"], found["writer"]) == (f"{START_NS + 5}", WRITER)
    server.store.write([ended_span(1, start_ns=START_NS + 9)])
    assert server.store.query(SpanQuery(TRACE_ID, SPAN_ID))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"spans": []},
        {"spans": [SPAN_ID]},
        {"spans": [{"span_id": "x"}]},
        {"spans": [{"span_id": SPAN_ID}], "writer": "ab"},
        {"spans": [{"span_id": SPAN_ID}], "writer": "ab", "time_ns": "9" * 19},
        {"span_ids": [SPAN_ID]},
    ],
)
def test_a_wrong_deletion_is_refused_and_deletes_nothing(server: Server, body: Any) -> None:
    refused(server.call("DELETE", "/api/v1/spans", json=body), 400)
    assert len(server.store.query(SpanQuery(TRACE_ID))) == 3


def test_retention_deletes_the_oldest(server: Server) -> None:
    body = {"before": time_text(START_NS + 3)}
    found = fits(server.call("POST", "/api/v1/retain", json=body), "retain")
    assert found["spans_deleted"] == 2
    assert found["stored_bytes"] > 0
    found = fits(
        server.call("POST", "/api/v1/retain", json={"older_than_seconds": 60, "max_bytes": 1_000_000}), "retain"
    )
    assert found["spans_deleted"] == 1
    for wrong in (
        {},
        {"before": "tomorrow"},
        {"before": "2260-01-01"},
        {"max_bytes": 5},
        {"max_bytes": 1 << 70},
        {"older_than_seconds": -1},
        {"before": "2026-01-01", "older_than_seconds": 1},
        {"older_than": "30d"},
    ):
        refused(server.call("POST", "/api/v1/retain", json=wrong), 400)


def test_an_import_brings_an_export_back(server: Server, start_server: StartServer) -> None:
    """With values, routes, authors and history; also compressed, and twice."""
    update(server, f"spans/{SPAN_ID}", UPDATE)
    update(server, f"spans/{SPAN_ID}", {"metadata": {"region": "eu"}})
    lines = server.call("GET", "/api/v1/export.jsonl").data
    other = start_server()
    for body, headers in (
        (lines, {}),
        (gzip.compress(lines), {}),
        (gzip.compress(lines), {"Content-Encoding": "gzip"}),
    ):
        report = fits(other.call("POST", "/api/v1/import", body=body, headers=headers), "import_spans")
        assert (report["spans_imported"], report["spans_failed"], report["problems"]) == (3, 0, [])
    assert other.call("GET", "/api/v1/export.jsonl").data == lines
    assert other.store.history(TRACE_ID, SPAN_ID) == server.store.history(TRACE_ID, SPAN_ID)


def test_an_import_takes_otlp_in_portions(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are counted over all portions, and a bad one leaves the others alone."""
    monkeypatch.setattr("otel_metadata.server.imports._PORTION", 700)

    def request(number: int) -> bytes:
        span = {
            "traceId": OTHER_TRACE, "spanId": f"{number:016x}", "name": f"otlp {number}",
            "startTimeUnixNano": f"{START_NS}", "endTimeUnixNano": f"{START_NS + 1}",
        }  # fmt: skip
        return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode() + b"\n"

    def lines() -> Any:
        for number in range(1, 101):
            yield request(number) if number % 10 else b'{"broken": \n'

    report = fits(server.call("POST", "/api/v1/import", body=lines()), "import_spans")
    assert (report["spans_imported"], report["spans_failed"]) == (90, 10)
    assert [problem["line"] for problem in report["problems"]] == list(range(10, 101, 10))
    assert len(server.store.query(SpanQuery(OTHER_TRACE))) == 90


def test_an_import_searches_each_byte_once_for_the_end_of_a_line() -> None:
    """However small the parts are, and however much is held without the end of a line."""
    searched: list[int] = []

    class Part(bytes):
        def rfind(self, *wanted: Any) -> int:
            searched.append(len(self))
            return super().rfind(*wanted)

    async def parts() -> Any:
        yield Part(b"x" * (5 << 20))
        for _ in range(2_000):
            yield Part(b"y")
        yield Part(b"\nz\nlast")
        yield Part(b" line")

    async def portions() -> list[bytes]:
        return [portion async for portion in imports._portions(parts())]

    found = asyncio.run(portions())
    assert found == [b"x" * (5 << 20) + b"y" * 2_000 + b"\nz\n", b"last line"]
    assert searched == [1] * 2_000 + [7, 5]  # the first one was copied


def test_an_import_takes_many_small_members_of_gzip(server: Server) -> None:
    """Also of gzip in gzip, over the borders of what is unpacked in one piece."""
    data = server.call("GET", "/api/v1/export.jsonl").data
    members = b"".join(gzip.compress(bytes([byte]), 1) for byte in data)
    assert len(members) > bodies._UNPACKED_AT_ONCE
    for body, headers in ((members, {}), (gzip.compress(members), {"Content-Encoding": "gzip"})):
        report = server.call("POST", "/api/v1/import", body=body, headers=headers).json()
        assert (report["spans_imported"], report["spans_failed"]) == (3, 0)


def test_a_portion_that_begins_with_a_line_that_is_cut_off_loses_no_other(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of an import it is not the beginning of a document over several lines."""
    span = {"traceId": OTHER_TRACE, "name": "n", "startTimeUnixNano": f"{START_NS}", "spanId": ""}
    good = b"".join(
        json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [{**span, "spanId": f"{at:016x}"}]}]}]}).encode()
        + b"\n"
        for at in (1, 2)
    )
    monkeypatch.setattr("otel_metadata.server.imports._PORTION", 1)
    parts = iter([b'{"resourceSpans":[]}\n' * 7, b'{"broken":\n' + good])
    report = server.call("POST", "/api/v1/import", body=parts).json()
    assert (report["spans_imported"], report["spans_failed"]) == (2, 1)
    assert [problem["line"] for problem in report["problems"]] == [8]
    report = server.call("POST", "/api/v1/import", body=iter([b"no json\n", b"\n", good])).json()
    assert (report["spans_imported"], [problem["line"] for problem in report["problems"]]) == (2, [1])
    assert len(server.store.query(SpanQuery(OTHER_TRACE))) == 2


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"PAR1" + b"\0" * 99, 415),
        (b"\x28\xb5\x2f\xfd" + b"\0" * 99, 415),
        (b"\x1f\x8b" + b"\0" * 99, 400),
        (gzip.compress(b"{}" * 9999)[:-9], 400),
        (b"name,value\n1,2\n3,4\n", 400),
        (b"\0\1\2\3\n", 415),
        (b"\xff\xfe{\0}\0", 415),
        (gzip.compress(gzip.compress(b"{}")), 415),
    ],
)
def test_an_import_of_another_format_is_refused(server: Server, body: bytes, status: int) -> None:
    assert "expected" in refused(server.call("POST", "/api/v1/import", body=body), status)["title"] or status == 400


@pytest.mark.parametrize(
    ("body", "instead"), [(b"", "nothing"), (b"\n\n", "nothing"), (b'{"resourceLogs":[]}\n', "logs")]
)
def test_an_import_of_no_span_says_what_there_was(server: Server, body: bytes, instead: str) -> None:
    report = fits(server.call("POST", "/api/v1/import", body=body), "import_spans")
    assert report["spans_imported"] == 0
    assert instead in report["found_instead"]


def test_an_import_that_stops_sending_takes_nobodys_place(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came before is imported, and the connection is closed."""
    monkeypatch.setattr("otel_metadata.server.bodies.MAX_PAUSE_SECONDS", 0.05)
    host, port = server.url.removeprefix("http://").split(":")
    for _ in range(3):
        with socket.create_connection((host, int(port)), PATIENCE) as client:
            client.sendall(b"POST /api/v1/import HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{}\n")
            assert client.recv(1_000).startswith(b"HTTP/1.1 408 ")
    assert server.call("POST", "/api/v1/import", body=b"").status == 200


def test_a_line_without_end_is_cut_off(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otel_metadata.server.imports.MAX_LINE", 9 << 20)
    bomb = gzip.compress(b"x" * (64 << 20))
    assert len(bomb) < 1 << 20
    refused(server.call("POST", "/api/v1/import", body=bomb), 413)


def test_a_caller_with_a_project_changes_only_that(server: Server) -> None:
    """A span of another project is 403; one that is not stored cannot be judged, and is 404."""
    server.store.write(
        [
            ended_span(7, name="foreign", resource=Resource({"service.name": "bank"})),
            ended_span(8, trace_id=8, name="bank", resource=Resource({"service.name": "bank"})),
        ]
    )
    shop = token_of(server, "shop")
    body = {"metadata": {"a": 1}}
    bank, bank_trace = f"{7:016x}", f"{8:032x}"

    def call(method: str, path: str, json: Any = body) -> Any:
        return server.call(method, f"/api/v1/{path}", json=json, headers=shop)

    assert call("PATCH", f"spans/{SPAN_ID}").status == 200
    assert call("PATCH", f"traces/{TRACE_ID}").status == 200
    refused(call("PATCH", f"spans/{bank}"), 403)
    refused(call("PATCH", f"spans/{bank}?trace_id={TRACE_ID}"), 403)
    refused(call("PATCH", f"traces/{bank_trace}"), 403)
    refused(call("PUT", f"spans/{bank}/evaluations/Good", {"score": 1}), 403)
    refused(call("PUT", f"traces/{bank_trace}/annotations/x", {"text": "x"}), 403)
    refused(call("PATCH", f"spans/{NEVER_STORED}?trace_id={TRACE_ID}"), 404)
    refused(call("PATCH", f"traces/{OTHER_TRACE}"), 404)
    found = batch(
        server,
        [
            {"span_id": bank, **body},
            {"span_id": SPAN_ID, **body},
            {"span_id": NEVER_STORED, "trace_id": TRACE_ID, **body},
        ],
        headers=shop,
    )
    assert [one.get("reason") for one in found["outcomes"]] == ["forbidden", None, "segment_not_found"]
    refused(call("DELETE", "spans", {"spans": [{"span_id": SPAN_ID}, {"span_id": bank}]}), 403)
    assert len(server.store.query(SpanQuery(TRACE_ID))) == 4
    assert call("DELETE", "spans", {"spans": [{"span_id": SPAN_ID}]}).status == 200
    refused(call("POST", "retain", {"older_than_seconds": 5}), 403)
    refused(call("POST", "import", {}), 403)
    assert not server.store.history(TRACE_ID, bank)[1:]


def test_an_import_needs_the_right_to_update_as_well(server: Server) -> None:
    headers = token_of(server, None, "traces:write")
    refused(server.call("POST", "/api/v1/import", body=b"", headers=headers), 403)


def test_the_client_reads_what_the_server_wrote(server: Server) -> None:
    """Both work on one store, and the later of their updates wins."""
    assert isinstance(server.store, SqliteStore)
    with Client(f"sqlite:///{server.store.path}", author="eve") as client:
        update(server, f"spans/{SPAN_ID}", {"metadata": {"a": "server", "b": "server"}})
        client.spans.update(SPAN_ID, metadata={"b": "client"})
        assert client.spans.get(SPAN_ID).metadata == {"a": "server", "b": "client"}
    history = json.loads(server.call("GET", f"{SPAN}/history?field=metadata.b").data)["values"]
    assert [one["author"] for one in history] == ["eve", "ada"]


JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8)
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)
MEMBERS = (
    *UPDATE,
    "updates",
    "authors",
    "route",
    "fields",
    "trace_id",
    "span_id",
    "spans",
    "time_ns",
    "writer",
    "before",
    "older_than_seconds",
    "max_bytes",
    "text",
    "position",
    "label",
    "score",
    "explanation",
    "source",
    "annotator",
)
BODIES = st.one_of(
    st.dictionaries(st.sampled_from(MEMBERS), JSON, max_size=4).map(lambda body: {**UPDATE, **body}),
    st.dictionaries(st.sampled_from(MEMBERS), JSON, max_size=4),
    st.builds(
        lambda update, more: {"updates": [{"span_id": SPAN_ID, **update}], **more},
        st.dictionaries(st.sampled_from(MEMBERS), JSON, max_size=3),
        st.dictionaries(st.sampled_from(("authors", "route")), JSON, max_size=1),
    ),
    JSON,
)
TARGETS = st.sampled_from(
    [
        ("PATCH", f"spans/{SPAN_ID}"),
        ("PATCH", f"spans/{NEVER_STORED}?trace_id={OTHER_TRACE}"),
        ("PATCH", f"traces/{TRACE_ID}"),
        ("PUT", f"spans/{SPAN_ID}/evaluations/%00"),
        ("PUT", f"traces/{TRACE_ID}/annotations/a%2Fb"),
        ("POST", "spans:batch"),
        ("DELETE", "spans"),
        ("POST", "retain"),
        ("POST", "filter"),
    ]
)


@settings(max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    TARGETS, BODIES, st.dictionaries(st.sampled_from(["If-Match"]), st.sampled_from(["*", '"0"', "", "x"]), max_size=1)
)
def test_no_body_makes_the_server_fail(
    server: Server, target: tuple[str, str], body: Any, headers: dict[str, str]
) -> None:
    method, path = target
    response = server.call(method, f"/api/v1/{path}", json=body, headers=headers)
    assert response.status in {200, 400, 404, 412}, (target, body, response.data)


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TARGETS, st.one_of(st.binary(max_size=60), BODIES.map(lambda body: json.dumps(body).encode()[:-1] + b"x")))
def test_no_bytes_make_the_server_fail(server: Server, target: tuple[str, str], raw: bytes) -> None:
    method, path = target
    for where in (f"/api/v1/{path}", "/api/v1/import"):
        response = server.call(
            "POST" if where.endswith("import") else method,
            where,
            body=raw,
            headers={"Content-Type": "application/json"},
        )
        assert response.status in {200, 400, 404, 415}, (target, raw, response.data)
