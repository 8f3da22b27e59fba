"""Whatever a server answers that calls itself ClickHouse: an error in time, in little memory, without a word of it."""

from __future__ import annotations

import gzip
import logging
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from tests.store.clickhouse.hostile import HEAD, Attack, Connection, HostileClickHouse
from tests.store.contract import END_NS, ended_span

from otel_metadata.errors import StoreError
from otel_metadata.model.patch import Patch
from otel_metadata.model.record import SpanQuery
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.store.clickhouse.pool import MAX_PAGE_BYTES
from otel_metadata.store.clickhouse.store import ClickHouseStore

LONG_MILLIS = 30_000
SHORT_MILLIS = 300

TRACE, SPAN = f"{5:032x}", f"{1:016x}"
KEYS = b'[1,"%s","%s",""]\n' % (TRACE.encode(), SPAN.encode())
PATCH = Patch(SpanRef(5, 1), {("span", "metadata", "a"): (1, (1, 1))})

CALLS: dict[str, tuple[str, Callable[[ClickHouseStore], object]]] = {
    "connect": (r"version\(\)", lambda store: store.query(SpanQuery())),
    "settings": ("system.settings", lambda store: store.query(SpanQuery())),
    "tables": ("system.tables", lambda store: store.query(SpanQuery())),
    "keys": ("SELECT .*LIMIT", lambda store: store.query(SpanQuery(limit=10))),
    "spans": ("SpanAttributes_", lambda store: store.query(SpanQuery(limit=10))),
    "all": ("ORDER BY", lambda store: store.query(SpanQuery())),
    "find": (r"t\.SpanId IN", lambda store: store.find([SPAN])),
    "delete": ("SELECT toUnix", lambda store: store.delete([(TRACE, SPAN)], (1, 1))),
    "patch": ("INSERT INTO", lambda store: store.patch([PATCH])),
    "write": ("INSERT INTO", lambda store: store.write([ended_span(1, trace_id=5)])),
}


def attacked(call: str, attack: Attack, timeout_millis: int) -> tuple[StoreError, HostileClickHouse]:
    """Make a call of a store whose server attacks the statement that the call is about."""
    match, action = CALLS[call]
    with HostileClickHouse(match, attack, KEYS) as server:
        store = ClickHouseStore(server.url, timeout_millis=timeout_millis)
        try:
            with pytest.raises(StoreError) as raised:
                action(store)
        finally:
            store.close()
    assert server.is_attacked.is_set()
    return raised.value, server


def endless(head: bytes, more: bytes) -> Attack:
    def attack(connection: Connection) -> None:
        connection.send(head)
        connection.send_on(more)

    return attack


BLANK = b"x" * 65_536
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
BOMB = gzip.compress(b"[1]\n" * 10_000_000, 9)

ENDLESS: dict[str, Attack] = {
    "body": endless(HEAD + b"\r\n", BLANK),
    "rows of many values": endless(HEAD + b"\r\n", b"[%s1]\n" % (b"[]," * 10_000)),
    "chunks": endless(CHUNKED, b"10000\r\n%s\r\n" % BLANK),
    "chunk of negative length": endless(CHUNKED + b"-1\r\n", BLANK),
    "headers": endless(HEAD, b"X-ClickHouse-Progress: {}\r\n" * 1_000),
    "interim answers": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000),
    "error": endless(b"HTTP/1.1 500 x\r\n\r\n", BLANK),
    "bomb": lambda connection: connection.send(
        HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s" % (len(BOMB), BOMB)
    ),
    "bomb of an error": lambda connection: connection.send(
        b"HTTP/1.1 500 x\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s" % (len(BOMB), BOMB)
    ),
}

NEVER_WHOLE: dict[str, Attack] = {
    "nothing": lambda connection: connection.drip(b""),
    "headers": lambda connection: (connection.send(HEAD), connection.drip(b"X: x\r\n"))[1],
    "body": lambda connection: (connection.send(HEAD + b"\r\n"), connection.drip(b"[]\n"))[1],
    "chunks": lambda connection: (connection.send(CHUNKED), connection.drip(b"1\r\n \r\n"))[1],
    "a length that is too large": lambda connection: (
        connection.send(HEAD + b"Content-Length: 1000000000\r\n\r\n[]\n"),
        connection.drip(b""),
    )[1],
}

NOT_CLICKHOUSE: dict[str, bytes] = {
    "cut off": HEAD + b"Content-Length: 100\r\n\r\n[1",
    "cut off in a row": HEAD + b'\r\n[1,"',
    "no JSON": HEAD + b"Content-Length: 5\r\n\r\nx\x00\xff{\n",
    "another shape": HEAD + b'Content-Length: 9\r\n\r\n{"a": 1}\n',
    "rows of another shape": HEAD + b"Content-Length: 6\r\n\r\n[]\n[]\n",
    "deep": HEAD + b"Content-Length: 100001\r\n\r\n" + b"[" * 100_000 + b"\n",
    "an error in the middle": HEAD + b"\r\n\r\n__exception__\r\nabc\r\nCode: 241. DB::Exception: s3cret \x1b[2J\n",
    "an error": b"HTTP/1.1 500 x\r\nContent-Length: 33\r\n\r\nCode: 241. DB::Exception s3cret \x1b",
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "no length": HEAD + b"Content-Length: -5\r\n\r\n\x00",
}


@pytest.mark.parametrize("attack", ENDLESS)
@pytest.mark.parametrize("call", CALLS)
def test_an_answer_without_end_is_left(call: str, attack: str) -> None:
    """Its size ends it, long before its time; nothing is decompressed that nobody asked for."""
    _, server = attacked(call, ENDLESS[attack], LONG_MILLIS)
    # What the system holds between the two sides is on top.
    assert server.sent_bytes < 1.5 * MAX_PAGE_BYTES


@pytest.mark.parametrize("attack", NEVER_WHOLE)
@pytest.mark.parametrize("call", CALLS)
def test_an_answer_that_does_not_get_on_is_left(call: str, attack: str) -> None:
    """A server that is silent, or sends a little now and then, holds nobody beyond the time."""
    error, _ = attacked(call, NEVER_WHOLE[attack], SHORT_MILLIS)
    assert "does not answer" in str(error)


@pytest.mark.parametrize("answer", NOT_CLICKHOUSE)
@pytest.mark.parametrize("call", [call for call in CALLS if call not in ("patch", "write")])
def test_an_answer_of_another_shape_is_an_error_of_the_store(
    call: str, answer: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No other exception, no half of an answer, and no word of the server in the error or in its traceback."""
    error, _ = attacked(call, lambda connection: connection.send(NOT_CLICKHOUSE[answer]), LONG_MILLIS)
    shown = "".join(traceback.format_exception(error))
    assert "\x1b" not in shown
    assert "s3cret" not in shown
    for record in caplog.records:
        assert "\x1b" not in logging.Formatter().format(record)


@pytest.mark.parametrize("status", [302, 307])
@pytest.mark.parametrize("call", CALLS)
def test_a_redirect_is_not_followed(call: str, status: int) -> None:
    """Nothing that is meant for one address reaches another."""
    with HostileClickHouse("never", lambda _: None) as other:
        head = f"HTTP/1.1 {status} x\r\nLocation: http://127.0.0.1:{other.server_address[1]}/\r\n"
        attacked(call, lambda connection: connection.send(head.encode() + b"Content-Length: 0\r\n\r\n"), LONG_MILLIS)
        assert other.statements == []


def test_the_time_of_an_export_is_for_all_of_its_statements() -> None:
    """Also for those with which a connection begins: the worker is held no longer than it said."""
    seen: list[Any] = []

    def slowly(connection: Connection) -> None:
        seen.append(1)
        connection.server.stopping.wait(SHORT_MILLIS / 1000)
        connection.send(HEAD + b"Content-Length: 0\r\n\r\n")

    with HostileClickHouse(".", slowly) as server:
        store = ClickHouseStore(server.url)
        with pytest.raises(StoreError, match="does not answer"):
            store.patch([PATCH], timeout_millis=SHORT_MILLIS // 2)
        store.close()
    assert len(seen) == 1


def test_spans_that_are_too_many_bytes_together_are_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page is split until its parts can be held."""
    monkeypatch.setattr("otel_metadata.store.clickhouse.client.MAX_PAGE_BYTES", 1_000_000)
    keys = b"".join(b'[%d,"%s","%016x",""]\n' % (END_NS - at, b"f" * 32, at + 1) for at in range(8))
    asked: list[int] = []

    def too_much(connection: Connection) -> None:
        asked.append(sum(f"{at + 1:016x}" in connection.server.statements[-1] for at in range(8)))
        connection.send(HEAD + b"\r\n")
        if asked[-1] > 2:
            connection.send_on(b"[]" + b" " * 65_536 + b"\n")

    with HostileClickHouse("SpanAttributes_", too_much, keys) as server:
        store = ClickHouseStore(server.url, timeout_millis=LONG_MILLIS)
        assert store.query(SpanQuery(limit=9)) == []  # no part has a row that stands
        store.close()
    assert asked == [8, 4, 2, 2, 4, 2, 2]


def test_a_page_that_comes_again_is_an_error() -> None:
    """A server that always has the same rows, none of which stands, would be asked for ever."""
    with HostileClickHouse("never", lambda _: None, KEYS * 2) as server:
        store = ClickHouseStore(server.url, timeout_millis=LONG_MILLIS)
        with pytest.raises(StoreError, match="does not answer"):
            store.query(SpanQuery(limit=2))
        store.close()
