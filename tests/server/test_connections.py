"""What a connection may send and how long it may take, over plain sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
from tests.server.conftest import PATIENCE, Server, StartServer
from tests.server.test_app import TABLE, problem
from tests.store.contract import ended_span

from otel_metadata.server import bodies, connections
from otel_metadata.server.app import OPERATIONS
from otel_metadata.server.operations import Answer, Call, Operation

LIMIT = connections.MAX_HEAD


@pytest.fixture
def server(start_server: StartServer) -> Server:
    return start_server(operations=TABLE)


@contextlib.contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    with socket.create_connection((server.local.host, server.local.port), PATIENCE) as client:
        yield client


def refusal(client: socket.socket) -> int:
    """Read to the end of the connection; return the status of the refusal that was answered."""
    answer = b""
    while part := client.recv(1 << 16):
        answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    assert re.search(rb"(?mi)^content-type: application/problem\+json\r?$", head)
    assert re.search(rb"(?mi)^connection: close\r?$", head)
    assert b"content-security-policy" in head.lower()
    assert json.loads(body)["status"] == status
    return status


@pytest.mark.parametrize(
    "head",
    [
        b"GET /plain HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * LIMIT + b"\r\n\r\n",
        b"GET /plain?" + b"x" * LIMIT + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /" + b"x" * (LIMIT // 2) + b" HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * (LIMIT // 2) + b"\r\n\r\n",
        b"GET /plain HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * LIMIT + b"\r\n",
        # Without an end. What the parser has not reported has to be counted as well.
        b"GET /plain HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * (3 << 20),
        b"GET /plain HTTP/1.1\r\nHost: localhost\r\n" + b"x" * (3 << 20),
        b"GET /" + b"x" * (3 << 20),
        b"\r\n" * (1 << 20),
        # Behind the body.
        b"POST /bytes HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"x" * (3 << 20),
        b"POST /bytes HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1;x=" + b"x" * (3 << 20),
        b"POST /bytes HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * (1 << 16),
    ],
    ids=range(11),
)
def test_a_head_beyond_the_limit_is_refused(server: Server, head: bytes) -> None:
    with connected(server) as client:
        client.sendall(head)
        assert refusal(client) == 431
    assert server.call("GET", "/plain").status == 200


def test_a_client_sees_the_refusal_although_it_sends_more(server: Server) -> None:
    problem(server.call("GET", "/plain", headers={"X-Long": "x" * (8 << 20)}), 431)
    problem(server.call("GET", "/plain?project=" + "x" * (8 << 20)), 431)


def test_a_head_within_the_limit_is_taken_however_it_comes(server: Server) -> None:
    assert server.call("GET", "/plain", headers={f"X-{n}": "x" * 6_000 for n in range(10)}).status == 200
    with connected(server) as client:
        client.sendall(b"POST /bytes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 300000\r\n")
        for number in range(60):
            client.sendall(b"X-%d: %s\r\n" % (number, b"x" * 1_000))
        # The next request comes in the same packets as the end of the body.
        client.sendall(b"\r\n" + b"x" * 300_000 + b"GET /spans/fixed/values/name HTTP/1.1\r\nHost: localhost\r\n")
        client.sendall(b"X: " + b"x" * 60_000 + b"\r\nConnection: close\r\n\r\n")
        answers = b""
        while part := client.recv(1 << 16):
            answers += part
    assert re.findall(rb"HTTP/1\.1 (\d+)", answers) == [b"200", b"204"]


def test_what_is_not_http_is_refused_like_everything_else(server: Server) -> None:
    with connected(server) as client:
        client.sendall(b"no HTTP\r\n\r\n")
        assert refusal(client) == 400


@pytest.mark.parametrize("sent", [b"", b"\r\n"])
def test_a_connection_that_asks_for_nothing_is_closed(
    server: Server, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.05)
    with connected(server) as client:
        client.sendall(sent)
        assert client.recv(1) == b""


@pytest.mark.parametrize("sent", [b"GET /pl", b"GET /plain HTTP/1.1\r\n", b"GET /plain HTTP/1.1\r\nHost: localh"])
def test_a_head_that_does_not_come_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.05)
    with connected(server) as client:
        client.sendall(sent)
        assert refusal(client) == 408


def test_the_time_for_a_head_begins_again_after_each_answer(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with connected(server) as client:
        client.sendall(b"GET /spans/fixed/values/name HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 204 ")
        client.sendall(b"\r\n")  # ends what uvicorn has for connections that are idle
        monkeypatch.setattr(connections, "HEAD_SECONDS", 0.05)
        client.sendall(b"GET /spans/fixed/values/name HTTP/1.1\r\nHost: localhost\r\n\r\n\r\n")
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 204 ")
        assert client.recv(1) == b""


@pytest.mark.parametrize(
    ("head", "trailer", "status"),
    [(b"Host: localhost\r\n", b"Host: evil.example", 200), (b"", b"Host: localhost", 400)],
)
def test_a_trailer_is_no_header(server: Server, head: bytes, trailer: bytes, status: int) -> None:
    with connected(server) as client:
        client.sendall(
            b"POST /bytes HTTP/1.1\r\n"
            + head
            + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n"
            + trailer
            + b"\r\n\r\n"
        )
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 %d " % status)
        client.sendall(b"GET /spans/fixed/values/name HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 204 ")


def test_an_answer_may_take_longer_than_a_head(start_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.05)
    server = start_server()
    response = server.call("GET", "/api/v1/events", preload_content=False)
    parts = response.stream()
    assert b"event: ready" in next(parts)
    with connected(server) as client:  # a connection that begins later is closed, and the stream goes on
        assert client.recv(1) == b""
    server.store.write([ended_span(1)])
    assert any(b"event: changed" in part for part in parts)
    response.close()


@pytest.mark.parametrize(
    ("path", "head"),
    [
        ("/bytes", b"Content-Length: 1000\r\n\r\n"),
        ("/bytes", b"Content-Length: 1000\r\n\r\n" + b"x" * 999),
        ("/bytes", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
        ("/bytes", b"Content-Encoding: gzip\r\nContent-Length: 1000\r\n\r\n\x1f\x8b"),
        ("/document", b'Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"inner": '),
        ("/large", b"Content-Length: 1000\r\n\r\nabc"),
    ],
)
def test_a_body_that_stops_coming_is_refused(
    server: Server, monkeypatch: pytest.MonkeyPatch, path: str, head: bytes
) -> None:
    monkeypatch.setattr(bodies, "MAX_PAUSE_SECONDS", 0.05)
    with connected(server) as client:
        client.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\n".encode() + head)
        assert refusal(client) == 408
    assert server.local.service.buffered.size == 0


def test_bodies_that_stop_coming_hold_up_others_only_until_their_time_is_over(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "MAX_BUFFERED", 50_000)
    monkeypatch.setattr(bodies, "MAX_PAUSE_SECONDS", 0.2)
    with connected(server) as first, connected(server) as second:
        for client in (first, second):
            client.sendall(b"POST /bytes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 25000\r\n\r\n" + b"x" * 24_990)
        assert {refusal(first), refusal(second)} == {408}
    assert server.call("POST", "/bytes", body=b"x" * 40_000).status == 200


def test_strangers_can_send_only_small_bodies() -> None:
    """Nothing else holds them back: they have no token."""
    open_to_all = [one for one in OPERATIONS if one.scope is None and one.body is not None]
    assert {one.name for one in open_to_all} >= {"sign_in", "galileoLogin"}
    assert all(one.max_bytes <= 8 << 10 for one in open_to_all), open_to_all


def test_an_answer_that_nobody_reads_ends(start_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise four clients could keep all others from exporting."""
    monkeypatch.setattr(connections, "READ_SECONDS", 0.05)
    has_ended = threading.Event()

    async def endless(_: Call) -> Answer:
        async def parts() -> AsyncIterator[bytes]:
            try:
                while True:
                    await asyncio.sleep(0)  # as one that reads from the store
                    yield b"x" * 100_000
            finally:
                has_ended.set()

        return Answer(parts(), media_type="text/plain")

    async def large(_: Call) -> Answer:
        return Answer(b"x" * (64 << 20), media_type="text/plain")

    server = start_server(
        operations=[
            Operation("GET", "/endless", "endless", "", endless, None),
            Operation("GET", "/large", "large", "", large, None),
        ]
    )
    with connected(server) as client:
        client.sendall(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert has_ended.wait(PATIENCE)
    is_lost, connection_lost = threading.Event(), connections.Connection.connection_lost

    def lost(connection: connections.Connection, error: Exception | None) -> None:
        connection_lost(connection, error)
        is_lost.set()

    monkeypatch.setattr(connections.Connection, "connection_lost", lost)
    with connected(server) as client:  # an answer that is written at once
        client.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert is_lost.wait(PATIENCE)
    monkeypatch.setattr(connections, "READ_SECONDS", PATIENCE)
    assert len(server.call("GET", "/large").data) == 64 << 20


def test_a_client_that_reads_slowly_gets_all(start_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "READ_SECONDS", 0.2)
    checks: list[int | None] = []
    check_reading = connections.Connection._check_reading

    def checked(connection: connections.Connection, waiting_before: int | None) -> None:
        checks.append(waiting_before)
        check_reading(connection, waiting_before)

    monkeypatch.setattr(connections.Connection, "_check_reading", checked)

    async def large(_: Call) -> Answer:
        return Answer(b"x" * (32 << 20), media_type="text/plain")

    server = start_server(operations=[Operation("GET", "/large", "large", "", large, None)])

    def read() -> bool:
        with connected(server) as client:
            client.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            size = 0
            with contextlib.suppress(ConnectionError):
                while part := client.recv(1_000):
                    size += len(part)
        return size > 32 << 20 and len(checks) > 1  # it took longer than a client may read nothing

    # The machine may stop this process for longer than that, but not each time.
    assert any(read() for _ in range(3))
