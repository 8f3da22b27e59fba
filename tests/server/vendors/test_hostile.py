"""Bodies that no vendor's SDK would send: each is answered, none is a failure of the server."""

from __future__ import annotations

import pytest
from tests.server.conftest import Server
from tests.server.vendors.test_galileo import PROJECT, SPAN_UUID, TRACE_UUID, native
from tests.server.vendors.test_langfuse import SCORE
from tests.store.contract import trace_hex

HOSTILE = [
    *(None, True, 0, -1, 1.5, 1 << 63, 10**400, "", "x", "\0", "\U0001f600" * 300),
    *([], [None], [[]], [{}], {}, {"a": None}, {"": {"": []}}, "9" * 5_000, 1e308),
]
RECORD = {"id": SPAN_UUID, "name": "n", "type": "llm", "metrics": {}, "user_metadata": {}, "tags": [], "spans": []}
EVENT = {"id": "e", "type": "score-create", "timestamp": "2026-11-20T12:00:00Z", "body": SCORE}
UPDATE = {
    "span_id": SPAN_UUID,
    "trace_id": TRACE_UUID,
    "input": "i",
    "output": "o",
    "tags": [],
    "status_code": 1,
    "duration_ns": 1,
    "reliable": True,
    "logging_method": "api_direct",
    "client_version": "1",
    "is_complete": True,
    "log_stream_id": None,
    "experiment_id": None,
    "metrics_testing_id": None,
}
PLACE = {"trace_id": TRACE_UUID, "parent_id": TRACE_UUID}
SEARCH = {"type": "text", "name": "external_id", "value": "e", "operator": "eq"}


@pytest.mark.parametrize(
    ("method", "path", "whole", "inside"),
    [
        ("PATCH", f"/api/traces/{trace_hex()}/metadata", {"metadata": {}}, None),
        (
            "PATCH",
            f"/api/traces/{trace_hex()}/metadata",
            dict.fromkeys(["user_id", "customer_id", "thread_id", "labels", "k"], "x"),
            "metadata",
        ),
        ("PATCH", f"/v2/projects/{PROJECT}/spans/{SPAN_UUID}", UPDATE, None),
        ("PATCH", f"/v2/projects/{PROJECT}/traces/{TRACE_UUID}", UPDATE, None),
        ("POST", f"/ingest/traces/{PROJECT}", native(session_id=None, session_external_id="e"), None),
        ("POST", f"/ingest/traces/{PROJECT}", {**RECORD, "model": "m", "created_at": "", "x": 1}, "traces"),
        (
            "POST",
            f"/ingest/spans/{PROJECT}",
            {"trace_id": TRACE_UUID, "parent_id": TRACE_UUID, "spans": [RECORD]},
            None,
        ),
        ("POST", "/login/api_key", {"api_key": "k"}, None),
        ("POST", "/projects", {"name": "shop"}, None),
        ("POST", "/projects/{shop}/log_streams", {"name": "nightly"}, None),
        ("POST", "/projects/{shop}/sessions", {"name": "s", "external_id": "e", "previous_session_id": None}, None),
        ("POST", "/projects/{shop}/sessions/search", {"filters": []}, None),
        ("POST", "/projects/{shop}/sessions/search", SEARCH, "filters"),
        (
            "POST",
            "/api/public/scores",
            {**SCORE, "comment": "c", "metadata": {}, "dataType": None, "source": None},
            None,
        ),
        ("POST", "/api/public/ingestion", {"batch": []}, None),
        ("POST", "/api/public/ingestion", EVENT, "batch"),
    ],
)
def test_every_member_may_be_anything(server: Server, method, path, whole, inside):
    """One member at a time, and the whole body; what is refused says why."""
    shop = server.call("POST", "/projects", json={"name": "shop"}).json()["id"]
    path = path.replace("{shop}", shop)
    wrapped = {None: lambda body: body, "metadata": lambda body: {"metadata": body}}
    wrap = wrapped.get(inside, lambda body: {inside: [body]})
    bodies = [wrap({**whole, name: value}) for name in whole for value in HOSTILE]
    for body in [*bodies, *HOSTILE]:
        answer = server.call(method, path, json=body)
        assert answer.status < 500, (body, answer.data)
        assert answer.status < 400 or answer.json()
    # The metadata of a score may hold anything that can be stored as it is.
    for value in HOSTILE:
        score = {**SCORE, "metadata": {"otel_metadata.source": value, "otel_metadata.label": value}}
        assert server.call("POST", "/api/public/scores", json=score).status in {200, 400}
