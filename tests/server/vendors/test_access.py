"""Tokens in the vendors' calls: the headers of each vendor, refusals in its form, and one project alone."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from opentelemetry.sdk.resources import Resource
from tests.server.conftest import Server, StartServer
from tests.server.vendors.documented import send
from tests.server.vendors.test_galileo import PROJECT, SPAN_UUID, TRACE_UUID, native
from tests.store.contract import START_NS, ended_span, only, trace_hex

from otel_metadata.server.access import Access
from otel_metadata.server.operations import Scope
from otel_metadata.server.tokens import Tokens
from otel_metadata.store.sqlite.store import SqliteStore

METADATA = f"/api/traces/{trace_hex()}/metadata"
SPAN = f"/v2/projects/{PROJECT}/spans/{1:016x}"
CHANGE: dict[str, Any] = {"metadata": {"a": 1}}
OUTPUT: dict[str, Any] = {"span_id": f"{1:016x}", "output": "new", "reliable": True}
SCORE: dict[str, Any] = {"name": "q", "value": 1, "traceId": trace_hex()}


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return Tokens(f"{tmp_path}/tokens")


@pytest.fixture
def guarded(start_server: StartServer, tokens: Tokens) -> Server:
    """Return a server that demands tokens, with a span of the project `shop`."""
    tokens.create("reader", ["read"], None, 1)
    server = start_server(access=Access(tokens, needs_token=True))
    server.store.write([ended_span(resource=Resource({"service.name": "shop"}))])
    return server


def token(tokens: Tokens, *scopes: Scope, project: str | None = None) -> str:
    return tokens.create(f"ada of {project}", list(scopes), project, 1)


def basic(key: str) -> str:
    return f"Basic {base64.b64encode(f'pk-lf-1:{key}'.encode()).decode()}"


@pytest.mark.parametrize(
    ("method", "path", "body", "header", "place"),
    [
        ("PATCH", METADATA, CHANGE, "X-Auth-Token", "error"),
        ("PATCH", METADATA, CHANGE, "Authorization", "error"),
        ("PATCH", SPAN, OUTPUT, "Galileo-API-Key", "detail"),
        ("PATCH", SPAN, OUTPUT, "Splunk-AO-API-Key", "detail"),
        ("POST", "/api/public/scores", SCORE, "basic", "message"),
    ],
)
def test_the_scope_is_needed(guarded, tokens, method, path, body, header, place):
    """401 without a token, 403 with one that may do something else, in the vendor's form; and the token's name."""

    def call(key: str | None) -> Any:
        headers = {}
        if key is not None:
            name, value = ("Authorization", basic(key)) if header == "basic" else (header, key)
            headers = {name: f"Bearer {value}" if header == "Authorization" else value}
        return guarded.call(method, path, json=body, headers=headers)

    for key, status in ((None, 401), ("wrong", 401), (tokens.create("sender", ["traces:write"], None, 1), 403)):
        answer = call(key)
        assert (answer.status, place in answer.json()) == (status, True)
        assert key is None or key not in answer.data.decode()
    record = only(guarded.store, trace_id=trace_hex())
    assert (record.trace_metadata, record.output, record.trace_evaluations) == ({}, None, {})
    assert call(tokens.create("ada", ["traces:update"], None, 1)).status == 200
    assert {one.author for one in guarded.store.history(trace_hex(), record.span_id)} == {"ada"}


def test_langwatchs_refusal_names_the_permission(guarded, tokens):
    answer = guarded.call("PATCH", METADATA, json=CHANGE, headers={"X-Auth-Token": token(tokens, "read")})
    assert (answer.status, answer.json()["error"]) == (403, "api_key_permission_denied")
    assert "traces:update" in answer.json()["message"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", METADATA, CHANGE),
        ("PATCH", SPAN, OUTPUT),
        (
            "PATCH",
            f"/v2/projects/{PROJECT}/traces/{trace_hex()}",
            {"trace_id": trace_hex(), "output": "x", "reliable": True},
        ),
        ("POST", "/api/public/scores", SCORE),
        ("POST", "/api/public/scores", {**SCORE, "observationId": f"{1:016x}"}),
    ],
)
def test_a_token_changes_its_own_project_alone(guarded, tokens, method, path, body):
    """403 for another project. A trace that is not there may belong to any project when it comes: 404."""
    before = only(guarded.store, trace_id=trace_hex())
    other = {"X-Auth-Token": token(tokens, "traces:update", project="other")}
    assert guarded.call(method, path, json=body, headers=other).status == 403
    assert only(guarded.store, trace_id=trace_hex()) == before
    own = {"X-Auth-Token": token(tokens, "traces:update", project="shop")}
    assert guarded.call(method, path, json=body, headers=own).status == 200
    unknown = guarded.call("PATCH", f"/api/traces/{'a' * 32}/metadata", json=CHANGE, headers=own)
    assert unknown.status == 404


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("PATCH", SPAN, OUTPUT), ("POST", "/api/public/scores", {**SCORE, "observationId": f"{1:016x}"})],
)
def test_a_trace_of_two_projects(guarded, tokens, method, path, body):
    """A token changes the trace, but no span of the other project in it."""
    guarded.store.write([ended_span(2, resource=Resource({"service.name": "other"}))])
    other = {"X-Auth-Token": token(tokens, "traces:update", project="other")}
    assert guarded.call(method, path, json=body, headers=other).status == 403
    assert guarded.call("PATCH", METADATA, json=CHANGE, headers=other).status == 200
    # The root is the newest one, of the other project.
    guarded.store.write([ended_span(3, resource=Resource({"service.name": "shop"}), start_ns=START_NS + 1)])
    trace, body = f"/v2/projects/{PROJECT}/traces/{trace_hex()}", {"trace_id": trace_hex(), "reliable": True}
    assert guarded.call("PATCH", trace, json={**body, "tags": ["t"]}, headers=other).status == 200
    assert guarded.call("PATCH", trace, json={**body, "status_code": 500}, headers=other).status == 403


def test_a_score_of_another_project_is_refused_alone(guarded, tokens, monkeypatch):
    """In a list, and in a batch of events; one look-up finds the projects of all."""
    guarded.store.write([ended_span(2, resource=Resource({"service.name": "other"}))])
    looked_up = []

    def locate(store: SqliteStore, keys: Any, project: str | None) -> Any:
        looked_up.append(len(keys))
        return found(store, keys, project)

    found = SqliteStore.locate
    monkeypatch.setattr(SqliteStore, "locate", locate)
    own = {"X-Auth-Token": token(tokens, "traces:update", project="shop")}
    scores = [
        {**SCORE, "observationId": f"{1:016x}"},
        {**SCORE, "observationId": f"{2:016x}"},
        {**SCORE, "traceId": "a" * 32},
        {**SCORE, "name": "second", "observationId": f"{1:016x}"},
    ]
    answer = guarded.call("POST", "/api/public/scores", json=scores, headers=own)
    body = answer.json()
    assert (answer.status, body["accepted"], body["rejected"]) == (207, 2, 2)
    assert ["another project" in one["message"] for one in body["errors"]] == [True, False]
    assert looked_up == [3]
    assert only(guarded.store, span_id=f"{1:016x}").evaluations.keys() == {"q", "second"}
    assert only(guarded.store, span_id=f"{2:016x}").evaluations == {}
    batch = [{"id": f"e{place}", "type": "score-create", "body": score} for place, score in enumerate(scores)]
    answer = guarded.call("POST", "/api/public/ingestion", json={"batch": batch}, headers=own)
    assert [one["id"] for one in answer.json()["successes"]] == ["e0", "e3"]
    assert [one["status"] for one in answer.json()["errors"]] == [403, 404]


def test_galileos_sdk_goes_on_with_a_token_of_its_own_form(guarded, tokens):
    """It changes its key for a JSON Web Token, which is as good as the key, also after a restart of the server."""
    key = token(tokens, "traces:write", "traces:update")
    assert guarded.call("POST", "/login/api_key", json={"api_key": "wrong"}).status == 401
    jwt = guarded.call("POST", "/login/api_key", json={"api_key": key}).json()["access_token"]
    header, claims, _ = jwt.split(".")
    assert json.loads(base64.urlsafe_b64decode(header + "==")) == {"alg": "none", "typ": "JWT"}
    assert json.loads(base64.urlsafe_b64decode(claims + "=="))["exp"] > 4_000_000_000
    bearer = {"Authorization": f"Bearer {jwt}"}
    project = guarded.call("POST", "/projects", json={"name": "shop"}, headers=bearer).json()["id"]
    assert guarded.call("POST", f"/v2/projects/{project}/traces", json=native(), headers=bearer).status == 200
    assert only(guarded.store, span_id=UUID(SPAN_UUID).hex[16:]).project == "shop"
    tokens.revoke(f"ada of {None}", 2)
    assert guarded.call("GET", "/projects", headers=bearer).status == 401


def test_a_project_of_galileo_is_the_tokens(guarded, tokens):
    """Neither another name nor the id of another one."""
    own = {"Galileo-API-Key": token(tokens, "traces:write", "traces:update", project="shop")}
    everywhere = {"Galileo-API-Key": token(tokens, "traces:write")}
    other = guarded.call("POST", "/projects", json={"name": "other"}, headers=everywhere).json()["id"]
    assert guarded.call("POST", "/projects", json={"name": "other"}, headers=own).status == 403
    assert guarded.call("GET", "/projects", headers=own).json() == []
    assert guarded.call("POST", f"/ingest/traces/{other}", json=native(), headers=own).status == 403
    assert guarded.call("GET", f"/projects/{other}", headers=own).status == 403
    # Nor does an update tell the name behind an id.
    for reliable in (True, False):
        body = {"span_id": SPAN_UUID, "reliable": reliable}
        answer = guarded.call("PATCH", f"/projects/{other}/spans/{SPAN_UUID}", json=body, headers=own)
        assert (answer.status, "project_name" in answer.json()) == (403, False)
    # An id that nobody has named is the token's project.
    assert guarded.call("POST", f"/ingest/traces/{PROJECT}", json=native(), headers=own).status == 200
    assert only(guarded.store, span_id=UUID(TRACE_UUID).hex[16:]).project == "shop"


def test_the_keys_of_langfuse_and_logfire_are_checked(guarded, tokens):
    """Their SDKs ask this to find out whether the keys are valid."""
    key = token(tokens, "traces:write", project="shop")
    for path, authorization in (("/api/public/projects", basic), ("/v1/info", str)):
        answer = guarded.call("GET", path, headers={"Authorization": authorization(key)})
        assert answer.status == 200
        assert "shop" in answer.data.decode()
        assert guarded.call("GET", path, headers={"Authorization": authorization("wrong")}).status == 401


def test_the_documented_request_without_the_permission(guarded, tokens):
    """LangWatch documents 403."""
    key = f"X-Auth-Token: {token(tokens, 'read')}"
    status, said = send(guarded, "PATCH", METADATA, key, CHANGE)
    assert (status, said["error"]) == (403, "api_key_permission_denied")
