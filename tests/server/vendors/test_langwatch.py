"""LangWatch's call that updates the metadata of a trace: every rule of its documentation, by real requests."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any
from uuid import UUID

import pytest
import urllib3
from tests.backends.vendors.langwatch import exporter
from tests.server.conftest import PATIENCE, Server
from tests.server.test_our_own_library import World
from tests.server.vendors.documented import send
from tests.store.contract import START_NS, ended_span, only, trace_hex

from otel_metadata import SpanRef
from otel_metadata.model.merge import Fields
from otel_metadata.model.outcome import Delivered, NotKept
from otel_metadata.model.patch import Patch
from otel_metadata.model.record import SpanQuery, SpanRecord
from otel_metadata.store.sqlite.store import SqliteStore

TRACE = trace_hex()
PATH = f"/api/traces/{TRACE}/metadata"


def patch(server: Server, metadata: Any) -> urllib3.BaseHTTPResponse:
    return server.call("PATCH", PATH, json={"metadata": metadata})


def patched(server: Server, *updates: Any) -> SpanRecord:
    """Return the trace's span after the updates."""
    server.store.write([ended_span()])
    for metadata in updates:
        answer = patch(server, metadata)
        assert (answer.status, answer.json()) == (200, {"traceId": TRACE})
    return only(server.store, trace_id=TRACE)


def test_reserved_fields_and_custom_fields_have_their_places(server):
    """The example of the documentation, with a value of each type."""
    record = patched(
        server,
        {
            "user_id": "user-123",
            "customer_id": "acme",
            "thread_id": "thread-1",
            "labels": ["production", "reviewed"],
            "environment": "staging",
            "config": {"model": "gpt-5", "nested": {"deep": [1, None, 2.5]}},
            "count": 0,
            "ratio": 0.5,
            "flag": False,
            "names": ["a", "b"],
            "empty": "",
        },
    )
    assert (record.user_id, record.session_id) == ("user-123", "thread-1")
    assert record.trace_metadata == {
        "customer_id": "acme",
        "labels": ["production", "reviewed"],
        "environment": "staging",
        "config": {"model": "gpt-5", "nested": {"deep": [1, None, 2.5]}},
        "count": 0,
        "ratio": 0.5,
        "flag": False,
        "names": ["a", "b"],
        "empty": "",
    }
    assert record.metadata == {}


def test_the_last_write_of_a_key_wins_and_other_keys_stay(server):
    """An object is replaced as a whole."""
    record = patched(
        server, {"a": 1, "o": {"x": 1, "y": 2}, "user_id": "u1"}, {"b": 2, "o": {"z": 3}}, {"a": "3", "user_id": "u2"}
    )
    assert record.trace_metadata == {"a": "3", "b": 2, "o": {"z": 3}}
    assert record.user_id == "u2"


def test_labels_are_set_as_a_whole(server):
    """Older labels go, and an empty list removes all."""
    assert patched(server, {"labels": ["a", "b"]}, {"labels": ["c"]}).trace_metadata == {"labels": ["c"]}
    assert patched(server, {"labels": []}).trace_metadata == {"labels": []}


def test_an_update_wins_over_what_the_sdk_said(server):
    """The SDK's own keys are in the same namespace (`server.vendors.attributes` puts them there)."""
    end = ended_span().end_time
    assert end is not None
    server.store.write([ended_span(fields={("trace", "metadata", "env"): ("prod", (end, 0))})])
    assert patched(server, {"env": "staging"}).trace_metadata == {"env": "staging"}


def test_the_update_of_a_trace_that_comes_later_is_kept(server):
    assert patch(server, {"env": "staging"}).status == 200
    server.store.write([ended_span()])
    assert only(server.store, trace_id=TRACE).trace_metadata == {"env": "staging"}


def test_who_changed_what_is_kept(server):
    """As a late update with the caller's name."""
    patched(server, {"env": "prod"}, {"env": "staging"})
    newest, before = server.store.history(TRACE, "", ("trace", "metadata", "env"))
    assert (newest.value, newest.route, before.value, before.route) == ("staging", "late", "prod", "late")
    assert newest.author is not None
    assert newest.author.startswith("http:")
    assert before.superseded_by == newest.version


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({}, "metadata"),
        (None, "metadata"),
        ([], "metadata"),
        ("text", "metadata"),
        ({"a": None}, "metadata.a"),
        ({"a": [1]}, "metadata.a"),
        ({"a": ["b", None]}, "metadata.a"),
        ({"a": [["b"]]}, "metadata.a"),
        ({"labels": "one"}, "metadata.labels"),
        ({"labels": [1]}, "metadata.labels"),
        ({"labels": {"a": 1}}, "metadata.labels"),
        ({"user_id": 7}, "metadata.user_id"),
        ({"thread_id": ["a"]}, "metadata.thread_id"),
        ({"customer_id": True}, "metadata.customer_id"),
        ({"a": "b\0"}, "metadata.a"),
        ({"a": 1 << 70}, "metadata.a"),
        ({"a": {"b": 1 << 70}}, "metadata.a"),
        ({"a": json.loads('{"k":' * 70 + "1" + "}" * 70)}, "metadata.a"),
        ({"a/b~c": [1]}, "metadata.a/b~c"),
        ({"": "b"}, "metadata."),
        ({"k" * 257: "b"}, f"metadata.{'k' * 257}"),
    ],
)
def test_what_is_refused_changes_nothing(server, metadata, field):
    """400 in LangWatch's form, which names the field."""
    server.store.write([ended_span()])
    if isinstance(metadata, dict):
        metadata = {"fine": 1, **metadata} if metadata else metadata
    answer = patch(server, metadata)
    body = answer.json()
    assert (answer.status, body["error"], body["fields"]) == (400, "validation_error", [field])
    assert "expected" in body["message"]
    assert only(server.store, trace_id=TRACE).trace_metadata == {}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"{}", b'{"metadata": NaN}', b"\xff", b"[" * 5_000])
def test_a_body_that_is_no_update_is_refused(server, body):
    answer = server.call("PATCH", PATH, body=body, headers={"Content-Type": "application/json"})
    assert answer.status == 400
    assert answer.json()["error"] in {"validation_error", "malformed_request"}


@pytest.mark.parametrize(
    ("largest", "too_large"),
    [
        ("a" * 4_096, "a" * 4_097),
        ("é" * 4_096, "é" * 4_097),
        ("\U0001f600" * 2_048, "\U0001f600" * 2_048 + "a"),
        (["é" * 4_092], ["é" * 4_093]),
        ({"k": "a" * 4_088}, {"k": "a" * 4_089}),
    ],
    ids=["ascii", "two bytes", "two units", "array", "object"],
)
def test_a_value_has_at_most_4_kilobytes(server, largest, too_large):
    """UTF-16 units, as LangWatch and our exporter count: of a string itself, of any other value its JSON."""
    assert patched(server, {"a": largest}).trace_metadata == {"a": largest}
    answer = patch(server, {"a": too_large})
    assert (answer.status, answer.json()["fields"]) == (400, ["metadata.a"])


def test_the_metadata_has_at_most_32_kilobytes(server):
    """UTF-16 units of its JSON without white space, keys included."""
    metadata = {f"key{number}": "é" * 4_000 for number in range(8)}
    text = json.dumps(metadata, ensure_ascii=False, separators=(",", ":"))
    rest = 32_768 - len(text) - len(',"last":""')
    assert patched(server, {**metadata, "last": "b" * rest}).trace_metadata["last"] == "b" * rest
    answer = patch(server, {**metadata, "last": "b" * (rest + 1)})
    assert (answer.status, answer.json()["fields"]) == (400, ["metadata"])


def test_further_members_are_ignored(server):
    server.store.write([ended_span()])
    answer = server.call("PATCH", PATH, json={"metadata": {"a": 1}, "other": {"b": 2}})
    assert (answer.status, answer.json()) == (200, {"traceId": TRACE})


@pytest.mark.parametrize("spelled", [TRACE.upper(), f"{UUID(TRACE)}"])
def test_a_trace_id_may_have_capitals_or_hyphens(server, spelled):
    """It is answered as it was sent."""
    server.store.write([ended_span()])
    answer = server.call("PATCH", f"/api/traces/{spelled}/metadata", json={"metadata": {"a": 1}})
    assert (answer.status, answer.json()) == (200, {"traceId": spelled})
    assert only(server.store, trace_id=TRACE).trace_metadata == {"a": 1}


@pytest.mark.parametrize("spelled", ["trace-1", "0" * 32, "abc", TRACE + "0"])
def test_what_is_no_trace_id_is_refused(server, spelled):
    """No span is in such a trace, so the update would be lost."""
    answer = server.call("PATCH", f"/api/traces/{spelled}/metadata", json={"metadata": {"a": 1}})
    assert (answer.status, answer.json()["error"]) == (400, "malformed_request")
    assert server.store.query(SpanQuery()) == []


def test_secrets_in_metadata_are_masked_as_everywhere(server):
    record = patched(server, {"api_key": "sk-12345678901234567890", "fine": "x"})
    assert record.trace_metadata["fine"] == "x"
    assert "sk-1234" not in json.dumps(record.trace_metadata)


def test_an_update_survives_the_death_of_the_server(tmp_path):
    """Each that was answered is there after SIGKILL, for a new server as well."""
    with closing(World(tmp_path)) as world:
        url = f"http://127.0.0.1:{world.port}"
        with closing(SqliteStore(tmp_path / "spans.db")) as store:
            store.write([ended_span()])
        for number in range(3):
            answer = urllib3.request("PATCH", url + PATH, json={"metadata": {f"k{number}": number, "last": number}})
            assert answer.status == 200
        world.server.kill()
        world.restart()
        read = urllib3.request("GET", f"{url}/api/v1/traces/{TRACE}").json()
    assert read["metadata"] == {"k0": 0, "k1": 1, "k2": 2, "last": 2}


def test_our_exporter_to_langwatch_and_this_server_agree(server):
    """On what a value may be; what this server alone refuses is told, and the other keys are stored."""
    server.store.write([ended_span()])
    largest = {"two_bytes": "é" * 4_096, "two_units": "\U0001f600" * 2_048, "labels": ["é" * 4_092], "a/b": "x"}
    refused = {"labels": ["a" * 4_000, "b" * 4_000], "k": {"o" * 200: {"p" * 200: "x", "q": 1}}, "fine": 0}
    fields: list[Fields] = [
        {("trace", "metadata", key): (value, (START_NS + place, 7)) for place, (key, value) in enumerate(given.items())}
        for given in (largest, refused)
    ]
    target = SpanRef(int(TRACE, 16), 1)
    sender = exporter(server.url)
    try:
        first, second = sender.export([Patch(target, one) for one in fields], timeout_millis=PATIENCE * 1_000)
    finally:
        sender.shutdown()
    assert isinstance(first, Delivered)
    assert isinstance(second, Delivered)
    assert not [note for note in first.notes if isinstance(note, NotKept)]
    told = {note for note in second.notes if isinstance(note, NotKept)}
    assert told == {
        "trace metadata 'labels': LangWatch refused the value",
        "trace metadata 'k': LangWatch refused the value",
    }
    assert only(server.store, trace_id=TRACE).trace_metadata == {**largest, f"k.{'o' * 200}.q": "1", "fine": "0"}


DOCUMENTED = {
    "metadata": {
        "user_id": "user-123",
        "labels": ["production", "high-priority"],
        "environment": "staging",
        "config": {"model": "gpt-5", "temperature": 0.7},
    }
}


def test_the_documented_request(server):
    """Method, headers and body of the documentation, with curl: its reply, and its refusals."""
    server.store.write([ended_span()])
    key = "X-Auth-Token: <api-key>"
    assert send(server, "PATCH", PATH, key, DOCUMENTED) == (200, {"traceId": TRACE})
    record = only(server.store, trace_id=TRACE)
    assert record.user_id == "user-123"
    assert record.trace_metadata["config"] == {"model": "gpt-5", "temperature": 0.7}
    for metadata in ({}, {"a": "b" * 5_000}, {"a": None}):
        status, said = send(server, "PATCH", PATH, key, {"metadata": metadata})
        assert (status, said["error"]) == (400, "validation_error")
