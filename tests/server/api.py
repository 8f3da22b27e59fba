"""Support for the tests of the API: spans in a store, tokens, answers that fit their types."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import urllib3
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import Status, StatusCode
from tests.server.conftest import Server, StartServer
from tests.store.contract import START_NS, ended_span, trace_hex

from otel_metadata.model.times import time_text
from otel_metadata.seams import SpanStore
from otel_metadata.server.access import SCOPES, Access
from otel_metadata.server.app import OPERATIONS
from otel_metadata.server.operations import Scope
from otel_metadata.server.tokens import Tokens

TRACE_ID = trace_hex()
SPAN_ID = f"{1:016x}"
NEVER_STORED = "f" * 16
OTHER_TRACE = f"{77:032x}"
SINCE = f"start_time={time_text(START_NS - 1)}"
"""The spans of the tests are older than the week that a list looks back."""


def start_with_tokens(start_server: StartServer, folder: Path, **options: Any) -> Server:
    """Start a server whose calls have the token of `ada`, who may do everything."""
    server = start_server(access=Access(Tokens(f"{folder}/tokens")), **options)
    server.headers = token_of(server)
    return server


def token_of(server: Server, project: str | None = None, *scopes: Scope) -> dict[str, str]:
    """Return the header of a new token, for one project, with all scopes or some."""
    tokens = server.local.service.access._tokens
    assert tokens is not None
    name = f"ada {len(tokens.all())}" if tokens.all() else "ada"
    return {"X-Auth-Token": tokens.create(name, list(scopes or SCOPES), project, 1)}


class Plain:
    """A store without the reads of a page, as one of a third party may be."""

    def __init__(self, store: SpanStore) -> None:
        for name in (
            "write",
            "write_rows",
            "patch",
            "patch_rows",
            "query",
            "history",
            "find",
            "delete",
            "retain",
            "export",
            "close",
        ):
            setattr(self, name, getattr(store, name))


def fill(store: SpanStore, count: int = 3) -> None:
    """Store a root and its children, of the project "shop"; the last one has failed."""
    resource = Resource({"service.name": "shop"})
    store.write(
        [
            ended_span(
                number,
                name=f"step {number}",
                start_ns=START_NS + number,
                resource=resource,
                parent=None if number == 1 else ended_span(1).context,
                status=Status(StatusCode.ERROR) if number == count else Status(StatusCode.UNSET),
            )
            for number in range(1, count + 1)
        ]
    )


def fits(response: urllib3.BaseHTTPResponse, name: str) -> Any:
    """Return the body of a success, which has exactly the members that the document promises."""
    assert response.status == 200, response.data
    operation = next(one for one in OPERATIONS if one.name == name)
    assert operation.answer is not None
    value = msgspec.json.decode(response.data, type=operation.answer)
    assert msgspec.json.decode(response.data) == msgspec.to_builtins(value)
    return msgspec.json.decode(response.data)


def refused(response: urllib3.BaseHTTPResponse, status: int) -> dict[str, Any]:
    """Return the body of a refusal."""
    assert response.status == status, response.data
    assert response.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = msgspec.json.decode(response.data)
    assert body["status"] == status
    assert body["title"].endswith("."), body
    return body


def update(server: Server, path: str, body: Any, **headers: str) -> Any:
    """Update, and return the receipt."""
    method = "PUT" if re.search("/(evaluations|annotations)/", path) else "PATCH"
    return fits(server.call(method, f"/api/v1/{path}", json=body, headers=headers), "update_span")
