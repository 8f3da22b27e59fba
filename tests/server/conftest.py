"""A real server on a free loopback port, and real requests."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import pytest
import urllib3

from otel_metadata.seams import Clock, SpanStore
from otel_metadata.server.access import Access
from otel_metadata.server.app import OPERATIONS, App
from otel_metadata.server.operations import Operation
from otel_metadata.server.run import LocalServer
from otel_metadata.server.service import Service
from otel_metadata.store.sqlite.store import SqliteStore

PATIENCE = 30
"""Seconds after which a test gives up; no test waits for them to pass."""


class Lent:
    """A server that runs as long as the session, and answers for one test after the other.

    Each test has a service and an application of its own. Sockets and requests are real; only the start and the stop of
    uvicorn are saved, which sleep 0.15 s.
    """

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._store = SqliteStore(":memory:")
        self._local = LocalServer(self._store, operations=())
        self._local._uvicorn.config.app = self  # type: ignore[assignment] # an application of three lines
        self.host, self.port, self.grpc_port, self.url = self._local.host, self._local.port, None, self._local.url
        self._local.start()

    def lend(
        self,
        store: SpanStore,
        *,
        access: Access | None = None,
        clock: Clock | None = None,
        operations: Sequence[Operation] = OPERATIONS,
        access_log: bool = False,
    ) -> None:
        """Answer for a test from here on, as `LocalServer` with these options does."""
        access = access or Access()
        access.cookie = f"otel_metadata_{self.port}"
        self.service = Service(store, access, clock, access_log=access_log)
        self._app = App(self.service, operations)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on."""
        task = asyncio.current_task()
        assert task is not None
        self._loop = asyncio.get_running_loop()
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        await self._app(scope, receive, send)

    def stop(self) -> None:
        """Finish the requests of the test, as `LocalServer` does when it stops."""
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._finish(), self._loop).result(PATIENCE)
        self.service.close()

    async def _finish(self) -> None:
        self.service.changes.close()
        while self._running:
            await asyncio.wait(self._running)
        await self.service.finish()
        poller = self.service.changes._poller  # it ends by itself, but only after its pause
        if poller is not None:
            poller.cancel()
            await asyncio.wait([poller])

    def end(self) -> None:
        """Stop uvicorn."""
        self._local.stop()
        self._store.close()


class Server:
    """A server that runs in a thread of this process.

    Attributes:
        local: The server itself.
        store: What it stores into.
        url: Where it answers.
    """

    def __init__(self, local: LocalServer | Lent, store: SpanStore) -> None:
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


class Child:
    """A program that is told lines and answers each with lines."""

    def __init__(self, program: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._watch = threading.Timer(4 * PATIENCE, self.process.kill)
        self._watch.start()

    def line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line, f"the program has ended with {self.process.poll()}"
        return line

    def tell(self, line: str) -> None:
        stdin: IO[str] | None = self.process.stdin
        assert stdin is not None
        stdin.write(f"{line}\n")
        stdin.flush()

    def ask(self, line: str) -> str:
        self.tell(line)
        return self.line()

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.close()

    def close(self) -> None:
        self._watch.cancel()
        if self.process.stdin is not None and self.process.stdout is not None:
            self.process.stdin.close()
            self.process.wait(PATIENCE)
            self.process.stdout.close()


class StartServer(Protocol):
    """Starts a server with options of `LocalServer`; it is stopped after the test.

    With `own` it has a uvicorn of its own: for a test that stops it, or that asks for an address.
    """

    def __call__(self, store: SpanStore | None = None, *, own: bool = False, **options: Any) -> Server: ...


class _Errors(logging.Handler):
    """Keeps what uvicorn logs as an error: a handler that has raised."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture(scope="session")
def to_lend() -> Iterator[list[Lent]]:
    """Return the servers that no test has now."""
    free: list[Lent] = []
    yield free
    for one in free:
        one.end()


@contextlib.contextmanager
def starting(to_lend: list[Lent], folder: Path) -> Iterator[StartServer]:
    """Yield what starts a server; it works on a new SQLite file in *folder* unless it is given a store."""
    servers: list[Server] = []
    errors = _Errors()
    logging.getLogger("uvicorn.error").addHandler(errors)

    def start(store: SpanStore | None = None, *, own: bool = False, **options: Any) -> Server:
        store = store if store is not None else SqliteStore(folder / f"server{len(servers)}.db")
        local: LocalServer | Lent
        if own:
            local = LocalServer(store, **options).start()
        else:
            local = to_lend.pop() if to_lend else Lent()
            local.lend(store, **options)
        servers.append(Server(local, store))
        return servers[-1]

    try:
        yield start
    finally:
        for server in servers:
            server.http.clear()
            server.local.stop()
            server.store.close()
            if isinstance(server.local, Lent):
                to_lend.append(server.local)
        logging.getLogger("uvicorn.error").removeHandler(errors)
    assert not errors.records, [record.exc_info or record.getMessage() for record in errors.records]


@pytest.fixture
def start_server(to_lend: list[Lent], tmp_path: Path) -> Iterator[StartServer]:
    """Return what starts a server for one test."""
    with starting(to_lend, tmp_path) as start:
        yield start


@pytest.fixture
def server(start_server: StartServer) -> Server:
    """Return a server with all operations, on a new SQLite file."""
    return start_server()
