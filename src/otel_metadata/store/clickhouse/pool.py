"""Connections to ClickHouse on which every answer is bounded, whatever clickhouse-connect does with it.

clickhouse-connect reads an answer until it ends, decompresses encodings that it did not ask for, repeats the whole
request after a redirect, and allocates room for as many rows as an answer claims to have. So it gets its answers from
this pool: within the time limit, uncompressed, from the address that the user named, and small. Answers that may be
large are read line by line.
"""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Generator, Iterator
from io import BytesIO
from typing import Any, Final, final

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, ReadTimeoutError

from otel_metadata.seams import SystemClock
from otel_metadata.wire import Incoming, Response

MAX_LINE_BYTES: Final = 64 * 1024
"""Limit of one line of a streamed answer, which has a span's place in the order of spans."""

MAX_PAGE_BYTES: Final = 32 * 1024 * 1024
"""Limit of an answer that is held as a whole."""

MAX_HELD_BYTES: Final = 128 * 1024 * 1024
"""Limit of the values read from such an answer, measured by `weight`: two characters of JSON can be a Python object."""

# Limit of an answer to a statement that returns no rows, and of the headers of any answer. After each step the time
# starts anew, so that a large answer may take long as long as it keeps arriving.
_STEP_BYTES: Final = 1024 * 1024

_PIECE_BYTES: Final = 64 * 1024
_CONNECT_SECONDS: Final = 5.0
_MONOTONIC_NS: Final = SystemClock.monotonic_ns


class UnexpectedError(HTTPError):
    """The answer does not come from ClickHouse, or does not belong to the question."""


@final
class TooLargeError(UnexpectedError):
    """An answer has more bytes than may be held."""


@final
class _WaitLimit:
    """The time that a request may wait: its whole timeout for each `_STEP_BYTES` of the answer.

    Only waiting counts, not the work in between.

    Attributes:
        is_large: Whether the answer may be larger than a step.
    """

    def __init__(self, seconds: float) -> None:
        self.is_large = False
        self._whole_ns = self._left_ns = int(seconds * 1e9)
        self._since_ns = 0
        self._step_bytes = 0

    def left_seconds(self) -> float:
        """Return the time that is left. A wait begins.

        Raises:
            TimeoutError: No time is left.
        """
        if self._left_ns <= 0:
            raise TimeoutError
        self._since_ns = _MONOTONIC_NS()
        return self._left_ns / 1e9

    def received(self, size: int) -> None:
        """Count a piece of *size* bytes. A wait has ended.

        Raises:
            IncompleteRead: The answer has more bytes than it may have.
        """
        self._left_ns -= _MONOTONIC_NS() - self._since_ns
        self._step_bytes += size
        if self._step_bytes > _STEP_BYTES:
            if not self.is_large:
                raise http.client.IncompleteRead(b"")
            self._left_ns, self._step_bytes = self._whole_ns, 0


# The wait limit of this thread's request. urllib3 passes no argument of ours on to a connection.
_current = threading.local()


class _Bounded(HTTPConnection):
    """A connection on which every wait ends at the limit of its request."""

    _wait_limit: _WaitLimit

    def request(self, *args: Any, **options: Any) -> None:
        self._wait_limit = _current.wait_limit
        super().request(*args, **options)

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        self.sock.settimeout(self._wait_limit.left_seconds())
        super().send(data)
        self._wait_limit.received(0)

    def response_class(self, sock: socket.socket, *args: Any, **options: Any) -> http.client.HTTPResponse:  # type: ignore[override] # a class in http.client, called with what it reads from
        incoming = Incoming(sock, self._wait_limit.left_seconds, self._wait_limit.received)
        return Response(incoming, *args, **options)  # type: ignore[arg-type] # it asks of a socket only makefile()


class _BoundedTls(_Bounded, HTTPSConnection):
    """A `_Bounded` inside TLS."""


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Bounded


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _BoundedTls


@final
class BoundedPool(urllib3.PoolManager):
    """urllib3's pool for clickhouse-connect. Any thread; `wait_at_most` applies to the calling thread."""

    def __init__(self) -> None:
        """Connect later. Proxies of the environment are not used."""
        super().__init__(maxsize=8)
        self.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
        self._of_thread = threading.local()

    def wait_at_most(self, millis: int, *, for_all: bool) -> None:
        """Set how long requests of this thread may wait from now on.

        Args:
            millis: The time limit.
            for_all: Whether it applies to all following requests together, not to each.
        """
        self._of_thread.seconds = millis / 1000
        self._of_thread.until_ns = _MONOTONIC_NS() + millis * 1_000_000 if for_all else None

    def urlopen(self, method: str, url: str, redirect: bool = True, **options: Any) -> Any:  # type: ignore[override] # as in urllib3
        """Send a request, once. A redirect is an answer like any other.

        Raises:
            HTTPError: There is no answer in time, or it is malformed, compressed or too large.
        """
        seconds = self._seconds(url)
        _current.wait_limit = wait_limit = _WaitLimit(seconds)
        is_whole = options.pop("preload_content", True)
        options |= {
            "retries": False,
            "timeout": urllib3.Timeout(connect=min(_CONNECT_SECONDS, seconds), read=seconds),
            "decode_content": False,
            "preload_content": False,
        }
        response = super().urlopen(method, url, redirect=False, **options)
        try:
            if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
                raise UnexpectedError("an encoding that was not asked for")
            if not is_whole and response.status // 100 == 2:
                wait_limit.is_large = True
                return response
            body = b"".join(_pieces(response, _STEP_BYTES))
        except BaseException:
            response.close()
            raise
        return urllib3.HTTPResponse(
            body=BytesIO(body), headers=response.headers, status=response.status, decode_content=False
        )

    def _seconds(self, url: str) -> float:
        until_ns = self._of_thread.until_ns
        if until_ns is None:
            return float(self._of_thread.seconds)
        left_ns = until_ns - _MONOTONIC_NS()
        if left_ns <= 0:
            raise ReadTimeoutError(self.connection_from_url(url), url, "no time is left")
        return float(left_ns / 1e9)


def lines(response: Any, *, max_line_bytes: int, max_bytes: int | None = None) -> Generator[bytes]:
    """Yield the lines of an answer of urllib3 as they arrive, and close it.

    Raises:
        TooLargeError: A line, or the whole answer, has more bytes than it may have.
        UnexpectedError: The last line has no end.
        HTTPError: The answer broke off, or took too long.
    """
    rest = bytearray()
    try:
        for piece in _pieces(response, max_bytes):
            first, *more = piece.split(b"\n")
            rest += first
            for part in more:
                yield bytes(rest)
                rest = bytearray(part)
            if len(rest) > max_line_bytes:
                raise TooLargeError("a line is too long")
        if rest:
            yield bytes(rest)  # it may have the error that ended the answer
            raise UnexpectedError("a line without an end")
    finally:
        response.close()


def weight(line: bytes) -> int:
    """Return an upper estimate of the bytes that the values of a line of JSON take in memory.

    Brackets and commas inside texts count, too.
    """
    return len(line) + 128 + 64 * (line.count(b"[") + line.count(b"{")) + 48 * line.count(b",")


def _pieces(response: Any, max_bytes: int | None) -> Iterator[bytes]:
    count = 0
    while piece := response.read(_PIECE_BYTES, decode_content=False):
        count += len(piece)
        if max_bytes is not None and count > max_bytes:
            raise TooLargeError("more than is held")
        yield piece
