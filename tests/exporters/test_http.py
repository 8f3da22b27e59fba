"""The HTTP client against a server that sends whatever it likes, and what each answer means."""

from __future__ import annotations

import contextlib
import errno
import gzip
import json
import logging
import os
import socket
import ssl
import threading
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.exporters.loopback import Answer, Loopback, dripping, never, reply, then_closed, then_reset

from otel_metadata import __version__
from otel_metadata.errors import ConfigurationError
from otel_metadata.exporters import http
from otel_metadata.exporters.http import (
    ANSWERS,
    MAX_BODY_BYTES,
    MAX_RETRY_AFTER_MILLIS,
    Failure,
    FailureKind,
    HttpClient,
    Reply,
    outcome_of,
    retry_after_millis,
)
from otel_metadata.model.outcome import Pause, Rejected, Retry

NOW_NS = 784_111_777 * 1_000_000_000  # Sun, 06 Nov 1994 08:49:37 GMT, the moment of RFC 9110
LONG_MILLIS = 30_000
SHORT_MILLIS = 200
KEY = "sk-secret-0123456789"

# Python's int() takes most of them.
NO_CHUNK_SIZES = (
    b"-1",
    b"-fffffff",
    b"+5",
    b"0x5",
    b" 5",
    b"5_0",
    b"",
    b"\xd9\xa5",
    b"f" * 17,
    b"0" * 2_000 + b"5",
    b"5 5",
)

# Self-signed, for 127.0.0.1, valid from 2020 to 2120, with its key. Nothing but these tests trusts it.
CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgFKfp1kd+cB+jYMTX
1vF49F+CqKrxjTQZj4PRZx6Uo82hRANCAAQD2oWy/ev9WYoU3nCQDdveDYqOoMRA
ciMPAmBRUvAWX3K70Z+lYK5U7eIvFHiOc2X7xbSo+FDhcd592bKXRdir
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBizCCATGgAwIBAgIBATAKBggqhkjOPQQDAjATMREwDwYDVQQDDAhsb29wYmFj
azAgFw0yMDAxMDEwMDAwMDBaGA8yMTIwMDEwMTAwMDAwMFowEzERMA8GA1UEAwwI
bG9vcGJhY2swWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQD2oWy/ev9WYoU3nCQ
DdveDYqOoMRAciMPAmBRUvAWX3K70Z+lYK5U7eIvFHiOc2X7xbSo+FDhcd592bKX
Rdiro3QwcjAdBgNVHQ4EFgQUzQeMQgpzoJaEp59z9jHDBSC25QwwHwYDVR0jBBgw
FoAUzQeMQgpzoJaEp59z9jHDBSC25QwwDwYDVR0TAQH/BAUwAwEB/zAPBgNVHREE
CDAGhwR/AAABMA4GA1UdDwEB/wQEAwIChDAKBggqhkjOPQQDAgNIADBFAiBOHTND
AatOdE/D9Z7t/KjRrH1qk8+A5zqDXV0Y6bsXyQIhAPotRxLC4zD2iFauygpdZMux
uON7nF7LlQTq/Z4lAZOX
-----END CERTIFICATE-----
"""


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "certificate.pem"
    path.write_text(CERTIFICATE)
    return path


def tls_server(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def clients() -> Iterator[list[HttpClient]]:
    """Clients that the test made, to be closed at its end."""
    made: list[HttpClient] = []
    yield made
    for client in made:
        client.close()


def ask(url: str, clients: list[HttpClient], timeout_millis: int = LONG_MILLIS, **options: object) -> Reply | Failure:
    """Send one request with a client of its own."""
    client = HttpClient(url, **options)  # type: ignore[arg-type]
    clients.append(client)
    return client.request("POST", body=b"body", timeout_millis=timeout_millis)


class TestWhatAnswersMean:
    def test_every_status_has_its_outcome(self) -> None:
        """From 100 to 599, each status is what its class says, but for those that say more."""
        pauses = {401, 402, 403, 404, 405, 407, 415, *range(300, 400)}
        retries = {408, 429, *range(100, 200), *range(500, 600)}
        for status in range(100, 600):
            outcome = outcome_of(Reply(status), NOW_NS)
            if status // 100 == 2:
                assert outcome is None
            elif status in pauses:
                assert isinstance(outcome, Pause)
            elif status in retries:
                assert isinstance(outcome, Retry)
            else:
                assert isinstance(outcome, Rejected)

    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (400, "patch_failure"),
            (401, "unauthorized"),
            (403, "unauthorized"),
            (407, "unauthorized"),
            (402, "backend_rejection"),
            (302, "backend_rejection"),
            (404, "backend_rejection"),
            (409, "backend_rejection"),
            (413, "too_large"),
            (422, "patch_failure"),
            (429, "connection_failure"),
            (503, "connection_failure"),
            (700, "connection_failure"),
        ],
    )
    def test_the_error_has_a_type_and_names_the_status(self, status: int, error: str) -> None:
        """Whoever reads the message knows which status it was."""
        outcome = outcome_of(Reply(status), NOW_NS)
        assert isinstance(outcome, Pause | Retry | Rejected)
        assert outcome.error.type == error
        assert f"(HTTP {status})" in outcome.error.message

    @pytest.mark.parametrize("kind", get_args(FailureKind))
    def test_every_failure_is_kept(self, kind: FailureKind) -> None:
        """Without an answer nothing is given up; a certificate and a proxy need somebody to look at them."""
        outcome = outcome_of(Failure(kind, "SomeError"), NOW_NS)
        assert isinstance(outcome, Pause if kind in {"certificate", "proxy"} else Retry)
        assert "(SomeError)" in outcome.error.message

    @pytest.mark.parametrize(
        ("media_type", "body"),
        [
            ("text/html; charset=utf-8", b"<p>Sign in"),
            ("Text/HTML", b"."),
            ("application/xhtml+xml", b"<html/>"),
            ("", b"\n <!DOCTYPE html><title>Sign in"),
            ("application/x-protobuf", b"<HTML><body>"),
        ],
    )
    def test_a_page_with_a_success_is_a_pause(self, media_type: str, body: bytes) -> None:
        """A login page in between is no reason to give anything up, and no success."""
        outcome = outcome_of(Reply(200, {"content-type": media_type}, body), NOW_NS)
        assert isinstance(outcome, Pause)
        assert "login page" in outcome.error.message

    def test_an_empty_page_is_left_to_the_exporter(self) -> None:
        """Frameworks say text/html of an answer that has no body."""
        assert outcome_of(Reply(200, {"content-type": "text/html"}), NOW_NS) is None

    def test_a_retry_has_what_the_backend_asked_for(self) -> None:
        """`Retry-After` is in the outcome; without it the back-off decides."""
        asked = outcome_of(Reply(429, {"retry-after": "7"}), NOW_NS)
        unasked = outcome_of(Reply(503), NOW_NS)
        assert isinstance(asked, Retry)
        assert isinstance(unasked, Retry)
        assert (asked.after_millis, unasked.after_millis) == (7_000, None)

    def test_the_page_about_http_shows_every_row(self) -> None:
        """The table of the page is the table of the code, row by row."""
        page = (Path(__file__).parents[2] / "docs" / "http.md").read_text()
        rows = [f"| {row.answer} | {row.outcome} | {row.error or '–'} | {row.message} |" for row in ANSWERS]
        assert "\n".join(["| answer | outcome | error | message |", "|---|---|---|---|", *rows, ""]) in page


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("value", "millis"),
        [
            ("0", 0),
            ("120", 120_000),
            (" 5 ", 5_000),
            ("007", 7_000),
            ("301", MAX_RETRY_AFTER_MILLIS),
            ("9" * 5_000, MAX_RETRY_AFTER_MILLIS),
            ("Sun, 06 Nov 1994 08:49:38 GMT", 1_000),
            ("Sunday, 06-Nov-94 08:49:39 GMT", 2_000),
            ("Sun Nov  6 08:49:40 1994", 3_000),
            ("Sun, 06 Nov 1994 08:49:36 GMT", 0),
            ("Sun, 06 Nov 2094 08:49:37 GMT", MAX_RETRY_AFTER_MILLIS),
        ],
    )
    def test_it_is_seconds_or_a_date(self, value: str, millis: int) -> None:
        """Both forms, the two obsolete forms of a date among them; what has passed is 0, what is too long is cut."""
        assert retry_after_millis(value, NOW_NS) == millis

    @pytest.mark.parametrize(
        "value",
        [
            None,
            "",
            " ",
            "-1",
            "+5",
            "1.5",
            "1e3",
            "5s",
            "٣",
            "soon",
            "Sun, 06 Nov 1994 99:49:37 GMT",
            "Sun, 99 Nov 1994 08:49:37 GMT",
            "Sunday Sunday Sunday Sunday",
            "nan",
            "infinity",
        ],
    )
    def test_what_is_neither_says_nothing(self, value: str | None) -> None:
        """Garbage and negative numbers are as if the header were not there."""
        assert retry_after_millis(value, NOW_NS) is None

    @given(st.text() | st.from_regex(r"(Sun|Monday),? [A-Za-z0-9:+ -]{15,40}", fullmatch=True), st.integers(0, 2**63))
    def test_it_never_raises(self, value: str, now_ns: int) -> None:
        """Whatever a server sends, the answer is None or within the bounds."""
        millis = retry_after_millis(value, now_ns)
        assert millis is None or 0 <= millis <= MAX_RETRY_AFTER_MILLIS


class TestRequest:
    def test_it_is_sent_as_it_is_asked_for(self, clients: list[HttpClient]) -> None:
        """Method, path, query, headers and body arrive; those of the request stand over those of the client."""
        with Loopback(reply()) as server:
            client = HttpClient(f"{server.url}/base/?a=1", headers={"X-Key": KEY, "X-Kind": "one"})
            clients.append(client)

            client.request(
                "PATCH", "/spans/x%2Fy?b=2", body=b"{}", headers={"x-kind": "two"}, timeout_millis=LONG_MILLIS
            )

            (request,) = server.requests
            assert request.line == "PATCH /base/spans/x%2Fy?b=2&a=1 HTTP/1.1"
            assert request.headers == {
                "host": f"127.0.0.1:{server.address[1]}",
                "accept-encoding": "identity",
                "user-agent": f"otel-metadata/{__version__}",
                "content-length": "2",
                "x-key": KEY,
                "x-kind": "two",
            }
            assert request.body == b"{}"

    @pytest.mark.parametrize(
        ("path", "target"), [("", "/"), ("/", "/"), ("/a", "/a"), ("/a/", "/a/"), ("?q=1", "/?q=1")]
    )
    def test_without_a_path_of_its_own_it_is_for_the_url(
        self, clients: list[HttpClient], path: str, target: str
    ) -> None:
        """The URL is used as it is."""
        with Loopback(reply()) as server:
            ask(f"{server.url}{path}", clients)
            assert server.requests[0].line == f"POST {target} HTTP/1.1"

    def test_an_answer_has_its_parts(self, clients: list[HttpClient]) -> None:
        """Status, headers by lower-case name, body."""
        with Loopback(reply(201, b"made", X_Kind="a", Content_Type="Text/Plain; charset=x")) as server:
            answer = ask(server.url, clients)
            headers = {"content-length": "4", "x-kind": "a", "content-type": "Text/Plain; charset=x"}
            assert answer == Reply(201, headers, b"made")
            assert isinstance(answer, Reply)
            assert answer.media_type == "text/plain"

    def test_every_status_arrives(self, clients: list[HttpClient]) -> None:
        """Each status that ends a request, and interim ones that nobody asked for, are answers like any other."""
        statuses = [*range(101, 600), 999]
        with Loopback(*(reply(status) for status in statuses)) as server:
            client = HttpClient(server.url)
            clients.append(client)
            answers = [client.request("POST", body=b"", timeout_millis=LONG_MILLIS) for _ in statuses]
            assert [getattr(answer, "status", answer) for answer in answers] == statuses

    def test_continue_is_not_the_answer(self, clients: list[HttpClient]) -> None:
        """A server may say 100 before it answers."""
        with Loopback(b"HTTP/1.1 100 Continue\r\n\r\n" + reply(200)) as server:
            assert ask(server.url, clients) == Reply(200, {"content-length": "0"})

    def test_one_connection_is_for_many_requests(self, clients: list[HttpClient]) -> None:
        """It is kept while the server keeps it."""
        with Loopback(reply(200, b"x")) as server:
            client = HttpClient(server.url)
            clients.append(client)
            for _ in range(3):
                assert isinstance(client.request("GET", timeout_millis=LONG_MILLIS), Reply)
            assert len(server.requests) == 3
            assert len(server.peers) == 1

    def test_a_connection_that_was_closed_is_opened_anew(self, clients: list[HttpClient]) -> None:
        """That the server has closed it is seen before anything is sent."""
        with Loopback(then_closed(reply(200, b"x", Connection="close"))) as server:
            client = HttpClient(server.url)
            clients.append(client)
            for _ in range(3):
                assert isinstance(client.request("GET", timeout_millis=LONG_MILLIS), Reply)
            assert len(server.peers) == 3

    def test_chunks_are_one_body(self, clients: list[HttpClient]) -> None:
        """A body that comes in chunks is whole."""
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        with Loopback(head + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n") as server:
            answer = ask(server.url, clients)
            assert isinstance(answer, Reply)
            assert answer.body == b"abc"

    def test_an_answer_that_comes_early_is_read(
        self, clients: list[HttpClient], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A server that does not want the body may answer and close before it has read it."""

        def send(self: http._Connection, data: bytes) -> None:
            if data == b"body":
                raise BrokenPipeError(errno.EPIPE, "Broken pipe")
            super(http._Connection, self).send(data)

        monkeypatch.setattr(http._Connection, "send", send)
        with Loopback(reply(413), reads_body=False) as server:
            answer = ask(server.url, clients)
            assert isinstance(answer, Reply)
            assert answer.status == 413

    def test_each_address_of_a_name_is_tried(self, clients: list[HttpClient], monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the first address refuses, the next one is asked."""
        with Loopback(reply(200)) as server:
            entry = (socket.AF_INET, socket.SOCK_STREAM, 0, "")
            found = [(*entry, ("127.0.0.1", free_port())), (*entry, server.address)]
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
            assert isinstance(ask("http://a.test", clients), Reply)


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class TestFailures:
    @pytest.mark.parametrize(
        "answer",
        [
            then_reset(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"),
            then_closed(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"),
            then_closed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nha"),
            then_closed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
            # Kept open: nothing but the length itself says that it is none.
            *(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\nhallo" % size for size in NO_CHUNK_SIZES),
            then_closed(b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\nab"),
            then_closed(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"text")[:-9]),
            then_closed(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nno gzip"),
            then_closed(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000),
            then_closed(b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 1_000),
            then_closed(b"HTTP/1.1 200 OK\r\n"),
            then_closed(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"),
            then_closed(b"HTTP/1.1 200 OK\r\nContent-Type: te"),
            then_closed(b"SSH-2.0-OpenSSH_9.6\r\n"),
            then_closed(b"HTTP/1.1 abc OK\r\n\r\n"),
            then_closed(b""),
        ],
        ids=range(15 + len(NO_CHUNK_SIZES)),
    )
    def test_what_is_no_whole_answer_is_broken(self, clients: list[HttpClient], answer: Answer) -> None:
        """Reset, cut off, or no HTTP at all: there is no answer, whatever its status was."""
        with Loopback(answer) as server:
            failure = ask(server.url, clients)
            assert isinstance(failure, Failure)
            assert failure.kind == "broken"

    @pytest.mark.parametrize(
        "answer",
        [
            never,
            dripping(b"HTTP/1.1 200 OK\r\n", b"X: x\r\n"),
            dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
            dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x"),
            dripping(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        ],
        ids=["silent", "headers", "interim", "body", "chunks"],
    )
    def test_the_time_is_for_everything(self, clients: list[HttpClient], answer: Answer) -> None:
        """A server that is silent, or sends a little now and then, does not hold a request beyond its time."""
        with Loopback(answer) as server:
            failure = ask(server.url, clients, SHORT_MILLIS)
            assert isinstance(failure, Failure)
            assert failure.kind == "timeout"

    @pytest.mark.parametrize(
        ("start", "more"),
        [
            (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1;%s\r\nx\r\n" % (b"x" * 900)),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: x\r\n"),
        ],
        ids=["interim", "chunks", "trailers"],
    )
    def test_an_answer_without_end_is_left(self, clients: list[HttpClient], start: bytes, more: bytes) -> None:
        """Not its time but its size ends it: what is around a body counts too."""

        def endless(connection: socket.socket, stopping: threading.Event) -> None:
            connection.sendall(start)
            while not stopping.is_set():
                connection.sendall(more * 1_000)

        with Loopback(endless) as server:
            failure = ask(server.url, clients)
            assert isinstance(failure, Failure)
            assert failure.kind == "broken"

    def test_a_server_that_does_not_read_is_left(self, clients: list[HttpClient]) -> None:
        """Sending a body that nobody takes ends in time."""
        with Loopback(never, reads_body=False) as server:
            client = HttpClient(server.url)
            clients.append(client)
            failure = client.request("POST", body=b"x" * 50_000_000, timeout_millis=SHORT_MILLIS)
            assert failure == Failure("timeout", "TimeoutError")

    def test_a_handshake_that_is_not_answered_is_left(self, clients: list[HttpClient]) -> None:
        """The time holds for TLS too."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"https://127.0.0.1:{listener.getsockname()[1]}"
            failure = ask(url, clients, SHORT_MILLIS)
            assert isinstance(failure, Failure)
            assert failure.kind == "timeout"

    @pytest.mark.parametrize("timeout_millis", [0, -1])
    def test_without_time_nothing_is_sent(self, clients: list[HttpClient], timeout_millis: int) -> None:
        """A deadline that has passed is a timeout."""
        with Loopback(reply()) as server:
            failure = ask(server.url, clients, timeout_millis)
            assert isinstance(failure, Failure)
            assert failure.kind == "timeout"
            assert server.requests == []

    def test_a_port_that_nobody_listens_on_is_refused(self, clients: list[HttpClient]) -> None:
        """No connection is told apart from an answer that broke off."""
        assert ask(f"http://127.0.0.1:{free_port()}", clients) == Failure("refused", "ConnectionRefusedError")

    def test_a_name_without_an_address_is_told(
        self, clients: list[HttpClient], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The message can say that the name is wrong."""

        def unknown(*_: object, **__: object) -> list[object]:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        assert ask("http://nowhere.test", clients) == Failure("name", "gaierror")

    def test_after_a_failure_the_next_request_works(self, clients: list[HttpClient]) -> None:
        """What broke is not used again."""
        half = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"
        with Loopback(then_closed(half), reply(200, b"ok")) as server:
            client = HttpClient(server.url)
            clients.append(client)
            client.request("GET", timeout_millis=LONG_MILLIS)
            answer = client.request("GET", timeout_millis=LONG_MILLIS)
            assert isinstance(answer, Reply)
            assert answer.body == b"ok"


class TestBounds:
    @pytest.mark.parametrize("size", [0, 1, MAX_BODY_BYTES])
    @pytest.mark.parametrize("is_gzip", [False, True])
    def test_a_body_within_the_bound_is_whole(self, clients: list[HttpClient], size: int, is_gzip: bool) -> None:
        """Up to the limit, decompressed where it was compressed."""
        body = os.urandom(size // 2) + b"x" * (size - size // 2)
        sent = reply(200, gzip.compress(body), Content_Encoding="gzip") if is_gzip else reply(200, body)
        with Loopback(sent) as server:
            answer = ask(server.url, clients)
            assert isinstance(answer, Reply)
            assert answer.body == body
            assert not answer.is_cut

    def test_a_gzip_bomb_is_not_inflated(self, clients: list[HttpClient]) -> None:
        """Sixty megabytes in sixty kilobytes: only what is kept is decompressed."""
        compressor = zlib.compressobj(9, wbits=31)
        bomb = b"".join(compressor.compress(b"\0" * 1_000_000) for _ in range(60)) + compressor.flush()
        assert len(bomb) < MAX_BODY_BYTES
        with Loopback(reply(200, bomb, Content_Encoding="gzip")) as server:
            tracemalloc.start()
            try:
                answer = ask(server.url, clients)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert isinstance(answer, Reply)
            assert (len(answer.body), answer.is_cut) == (MAX_BODY_BYTES, True)
            assert peak < 2_000_000

    def test_a_stream_without_end_is_left(self, clients: list[HttpClient]) -> None:
        """Of a hundred megabytes the client takes what it keeps, and closes."""
        sent: list[int] = []

        def stream(connection: socket.socket, _: threading.Event) -> None:
            connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 100000000\r\n\r\n")
            for _ in range(100):
                connection.sendall(b"x" * 1_000_000)
                sent.append(1)

        with Loopback(stream) as server:
            answer = ask(server.url, clients)
        assert isinstance(answer, Reply)
        assert (answer.status, len(answer.body), answer.is_cut) == (403, MAX_BODY_BYTES, True)
        assert len(sent) < 50


class TestSecrets:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_a_redirect_is_not_followed(self, clients: list[HttpClient], status: int) -> None:
        """The address that it names is not even connected to, so no header can reach it."""
        with Loopback(reply()) as other, Loopback(reply(status, Location=f"{other.url}/steal")) as server:
            answer = ask(server.url, clients, headers={"Authorization": KEY})
            assert isinstance(answer, Reply)
            assert answer.status == status
            assert other.peers == []

    def test_netrc_and_proxies_are_not_read(
        self, clients: list[HttpClient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Neither adds or replaces credentials, nor leads requests elsewhere."""
        (tmp_path / ".netrc").write_text("default login somebody password hidden\n")
        (tmp_path / ".netrc").chmod(0o600)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        with Loopback(reply(500)) as proxy, Loopback(reply(200)) as server:
            for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
                monkeypatch.setenv(variable, proxy.url)
            ask(server.url, clients, headers={"Authorization": KEY})
            ask(server.url, clients)
            assert [request.headers.get("authorization") for request in server.requests] == [KEY, None]
            assert proxy.peers == []

    def test_a_key_is_shown_nowhere(self, clients: list[HttpClient], caplog: pytest.LogCaptureFixture) -> None:
        """Not in a representation, a log line of any level, or an outcome; nor what the server sent."""
        caplog.set_level(logging.DEBUG)
        shown: list[object] = []
        with Loopback(reply(401, KEY.encode(), Set_Cookie=KEY), then_closed(b"HTTP/1.1 200 " + KEY.encode())) as server:
            client = HttpClient(f"{server.url}/v1?key={KEY}", headers={"Authorization": f"Bearer {KEY}"})
            clients.append(client)
            shown += [client, client.shown_url]
            for _ in range(2):
                answer = client.request("POST", body=KEY.encode(), timeout_millis=LONG_MILLIS)
                shown += [answer, outcome_of(answer, NOW_NS)]
        assert KEY not in repr(shown)
        assert KEY not in caplog.text
        assert client.without_keys(f"{KEY} is not Bearer of luck") == "*** is not Bearer of luck"

    @pytest.mark.parametrize(
        "headers",
        [
            {"authorization": f"{KEY}\r\nx: y"},
            {"authorization": f"{KEY}\nx: y"},
            {"authorization": f"{KEY}\r"},
            {"authorization": f"{KEY}\0"},
            {"authorization": f"{KEY}\N{EURO SIGN}"},
            {f"{KEY}\r\nx": "y"},
            {f"{KEY}:": "y"},
            {"": KEY},
        ],
        ids=range(8),
    )
    def test_a_header_that_cannot_be_sent_is_refused(self, headers: dict[str, str]) -> None:
        """A line end would begin another header; the error does not show the value."""
        with pytest.raises(ConfigurationError, match=r"headers is \{'.*': '\*\*\*'\}; expected") as caught:
            HttpClient("http://127.0.0.1", headers=headers)
        assert KEY not in str(caught.value)

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            (f"http://user:{KEY}@host", "http://***@host"),
            (f"https://{KEY}@host/path?key={KEY}", "https://***@host/path"),
            (f"https://user:a/b{KEY}@host", "https://***@host"),
            (f"https://user:a?b{KEY}@host", "https://***@host"),
            (f"user:{KEY}@host", "***@host"),
            ("ftp://host", "ftp://host"),
            ("file:///etc/passwd", "file:///etc/passwd"),
            ("127.0.0.1:4318", "127.0.0.1:4318"),
            ("http://", "http://"),
            ("http://:80", "http://:80"),
            ("http://host:99999", "http://host:99999"),
            ("http://[::1", "http://[::1"),
            ("http://host/a b", "http://host/a b"),
            ("http://host/\r\nx", "http://host/\r\nx"),
            ("http://h\N{LATIN SMALL LETTER O WITH DIAERESIS}st", "http://h\N{LATIN SMALL LETTER O WITH DIAERESIS}st"),
            ("", ""),
        ],
    )
    def test_a_url_that_cannot_be_used_is_refused(self, url: str, shown: str) -> None:
        """Only http and https, without user and password; the error does not show them."""
        with pytest.raises(ConfigurationError) as caught:
            HttpClient(url)
        assert (caught.value.setting, caught.value.got) == ("url", shown)
        assert KEY not in str(caught.value)

    @pytest.mark.parametrize("path", ["spans", "/a b", "/\r\n", "//\N{EURO SIGN}"])
    def test_a_path_that_is_not_encoded_is_refused(self, clients: list[HttpClient], path: str) -> None:
        """An id that was put into a path as it is cannot become another request."""
        client = HttpClient("http://127.0.0.1:1")
        with pytest.raises(ConfigurationError, match="path is"):
            client.request("GET", path, timeout_millis=LONG_MILLIS)


class TestTls:
    def test_a_certificate_that_is_trusted_is_enough(self, clients: list[HttpClient], certificate: Path) -> None:
        """A file of certificates takes the place of the system's."""
        with Loopback(reply(200, b"ok"), tls=tls_server(certificate)) as server:
            client = HttpClient(server.url, certificate_file=str(certificate))
            clients.append(client)
            for _ in range(2):
                answer = client.request("GET", timeout_millis=LONG_MILLIS)
                assert isinstance(answer, Reply)
                assert answer.body == b"ok"

    def test_a_certificate_that_is_not_trusted_is_not_talked_to(
        self, clients: list[HttpClient], certificate: Path
    ) -> None:
        """Nothing is sent to a server that cannot prove who it is."""
        with Loopback(reply(), tls=tls_server(certificate)) as server:
            assert ask(server.url, clients) == Failure("certificate", "SSLCertVerificationError")
            assert server.requests == []

    def test_a_certificate_is_for_its_host(self, clients: list[HttpClient], certificate: Path) -> None:
        """A trusted certificate of another host is not enough."""
        with Loopback(reply(), tls=tls_server(certificate)) as server:
            url = server.url.replace("127.0.0.1", "localhost")
            assert ask(url, clients, certificate_file=str(certificate)) == Failure(
                "certificate", "SSLCertVerificationError"
            )

    def test_a_server_without_tls_is_told(self, clients: list[HttpClient]) -> None:
        """HTTPS to a port of HTTP is a failure of TLS."""

        def serve(listener: socket.socket) -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(1)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                while connection.recv(1024):
                    pass

        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=serve, args=(listener,))
            thread.start()
            failure = ask(f"https://127.0.0.1:{listener.getsockname()[1]}", clients)
            thread.join()
        assert failure == Failure("tls", "SSLError")

    def test_a_client_can_prove_who_it_is(self, clients: list[HttpClient], certificate: Path) -> None:
        """A server that asks for a certificate gets it; without one there is no answer."""
        context = tls_server(certificate)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificate)
        with Loopback(reply(200), tls=context) as server:
            trusted = {"certificate_file": str(certificate)}
            assert isinstance(ask(server.url, clients, **trusted), Failure)
            assert isinstance(ask(server.url, clients, client_certificate_file=str(certificate), **trusted), Reply)

    @pytest.mark.parametrize("setting", ["certificate_file", "client_certificate_file"])
    @pytest.mark.parametrize("content", [None, "no PEM"])
    def test_a_file_that_cannot_be_used_is_named(self, tmp_path: Path, setting: str, content: str | None) -> None:
        """At once, not at the first request."""
        path = tmp_path / "file.pem"
        if content is not None:
            path.write_text(content)
        with pytest.raises(ConfigurationError, match=f"{setting} is '{path}'; expected a"):
            HttpClient("https://127.0.0.1", **{setting: str(path)})  # type: ignore[arg-type]

    def test_a_key_without_a_certificate_is_refused(self) -> None:
        """It would not be used."""
        with pytest.raises(ConfigurationError, match=r"client_key_file is 'key\.pem'; expected a client certificate"):
            HttpClient("https://127.0.0.1", client_key_file="key.pem")


class TestClose:
    def test_it_ends_a_request_that_waits(self) -> None:
        """A shutdown from another thread does not wait for a server that is silent."""
        answers: list[Reply | Failure] = []
        with Loopback(never) as server:
            client = HttpClient(server.url)
            thread = threading.Thread(
                target=lambda: answers.append(client.request("GET", timeout_millis=LONG_MILLIS * 20))
            )
            thread.start()
            assert server.is_asked.wait(60)
            client.close()
            thread.join(60)
            assert answers == [Failure("closed")]

    def test_after_it_nothing_is_sent(self) -> None:
        """A client that was closed stays closed."""
        with Loopback(reply()) as server:
            client = HttpClient(server.url)
            client.close()
            client.close()
            assert client.request("GET", timeout_millis=LONG_MILLIS) == Failure("closed")
            assert server.peers == []

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
    def test_a_forked_child_has_a_connection_of_its_own(self, clients: list[HttpClient]) -> None:
        """Both can send after the fork, and neither reads the other's answers."""
        with Loopback(reply(200, b"ok")) as server:
            client = HttpClient(server.url)
            clients.append(client)
            client.request("GET", timeout_millis=LONG_MILLIS)
            reading, writing = os.pipe()
            pid = os.fork()
            if pid == 0:
                try:
                    answer = client.request("GET", timeout_millis=LONG_MILLIS)
                    os.write(writing, json.dumps(getattr(answer, "status", repr(answer))).encode())
                finally:
                    os._exit(0)
            os.close(writing)
            with os.fdopen(reading, "rb") as pipe:
                assert json.loads(pipe.read()) == 200
            os.waitpid(pid, 0)
            assert isinstance(client.request("GET", timeout_millis=LONG_MILLIS), Reply)
            assert len(server.peers) == 2
