"""A real server on a free loopback port, and real requests."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest
import urllib3

from otel_metadata.seams import SpanStore
from otel_metadata.server.run import LocalServer
from otel_metadata.store.sqlite.store import SqliteStore

PATIENCE = 30
"""Seconds after which a test gives up; no test waits for them to pass."""


class Server:
    """A server that runs in a thread of this process.

    Attributes:
        local: The server itself, with its service.
        store: What it stores into.
        url: Where it answers.
    """

    def __init__(self, local: LocalServer, store: SpanStore) -> None:
        self.local = local
        self.store = store
        self.url = local.url
        self.headers: dict[str, str] = {}
        self.http = urllib3.PoolManager(retries=False, timeout=PATIENCE, maxsize=16)

    def call(
        self,
        method: str,
        path: str,
        *,
        json: Any = ...,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        preload_content: bool = True,
    ) -> urllib3.BaseHTTPResponse:
        """Send one request, and return the response: `status`, `headers`, `data`, `json()`.

        Args:
            json: Sent as JSON with its content type; `...` for no JSON body.
            body: Sent as it is.
            headers: On top of `self.headers`.
            preload_content: False for a stream: read it with `stream()`, and close it.
        """
        if json is not ...:
            return self.http.request(
                method,
                self.url + path,
                json=json,
                headers={"Content-Type": "application/json", **self.headers, **(headers or {})},
                preload_content=preload_content,
            )
        return self.http.request(
            method,
            self.url + path,
            body=body,
            headers={**self.headers, **(headers or {})},
            preload_content=preload_content,
        )


class StartServer(Protocol):
    """Starts a server with options of `LocalServer`; it is stopped after the test."""

    def __call__(self, store: SpanStore | None = None, **options: Any) -> Server: ...


class _Errors(logging.Handler):
    """Keeps what uvicorn logs as an error: a handler that has raised."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Return what starts a server; it works on a new SQLite file unless it is given a store."""
    servers: list[Server] = []
    errors = _Errors()
    logging.getLogger("uvicorn.error").addHandler(errors)

    def start(store: SpanStore | None = None, **options: Any) -> Server:
        store = store if store is not None else SqliteStore(tmp_path / f"server{len(servers)}.db")
        servers.append(Server(LocalServer(store, **options).start(), store))
        return servers[-1]

    try:
        yield start
    finally:
        for server in servers:
            server.http.clear()
            server.local.stop()
            server.store.close()
        logging.getLogger("uvicorn.error").removeHandler(errors)
    assert not errors.records, [record.exc_info or record.getMessage() for record in errors.records]


@pytest.fixture
def server(start_server: StartServer) -> Server:
    """Return a server with all operations, on a new SQLite file."""
    return start_server()
