"""Connections to ClickHouse on which every answer is bounded, whatever clickhouse-connect does with it.

The client reads an answer until it ends, decompresses what it did not ask for, follows a redirect with the whole
request, and makes room for as many rows as an answer says that it has. So it gets answers from here: in time, plain,
from the address that the user named, and small; what may be large is read line by line.
"""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Generator, Iterator
from io import BytesIO
from typing import Any, Final, final

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, ReadTimeoutError

from otel_metadata.seams import SystemClock
from otel_metadata.wire import Incoming, Response

__all__ = [
    "MAX_HELD_BYTES",
    "MAX_LINE_BYTES",
    "MAX_PAGE_BYTES",
    "BoundedPool",
    "TooLargeError",
    "UnexpectedError",
    "lines",
    "weight",
]

MAX_LINE_BYTES: Final = 64 * 1024
"""Of one line of an answer that is streamed: a span's place in the order of spans."""

MAX_PAGE_BYTES: Final = 32 * 1024 * 1024
"""Of an answer that is held as a whole."""

MAX_HELD_BYTES: Final = 128 * 1024 * 1024
"""Of the values that are read from it, as `weight` has them: two characters of JSON can be an object of Python."""

# Of an answer to a statement that returns no rows; and of the headers of any. With each of it the time begins anew, so
# that a large answer may take long, as long as it arrives.
_STEP_BYTES: Final = 1024 * 1024

_PIECE_BYTES: Final = 64 * 1024
_CONNECT_SECONDS: Final = 5.0


class UnexpectedError(HTTPError):
    """The answer does not come from ClickHouse, or not to our question."""


@final
class TooLargeError(UnexpectedError):
    """An answer has more bytes than are held."""


@final
class _Patience:
    """How long a request is waited for: for each `_STEP_BYTES` of its answer the whole time. Work of ours is free.

    Attributes:
        is_large: Whether the answer may be larger than a step.
    """

    def __init__(self, seconds: float, monotonic_ns: Callable[[], int]) -> None:
        self.is_large = False
        self._monotonic_ns = monotonic_ns
        self._whole_ns = self._left_ns = int(seconds * 1e9)
        self._since_ns = 0
        self._step_bytes = 0

    def left_seconds(self) -> float:
        """Return what is left of the time; a wait begins.

        Raises:
            TimeoutError: Nothing.
        """
        if self._left_ns <= 0:
            raise TimeoutError
        self._since_ns = self._monotonic_ns()
        return self._left_ns / 1e9

    def received(self, size: int) -> None:
        """Count a piece; a wait has ended.

        Raises:
            IncompleteRead: There were more bytes than may be.
        """
        self._left_ns -= self._monotonic_ns() - self._since_ns
        self._step_bytes += size
        if self._step_bytes > _STEP_BYTES:
            if not self.is_large:
                raise http.client.IncompleteRead(b"")
            self._left_ns, self._step_bytes = self._whole_ns, 0


# Of the request that this thread makes: urllib3 hands nothing of ours through to a connection.
_current = threading.local()


class _Bounded(HTTPConnection):
    """A connection on which each wait is within the patience of its request."""

    _patience: _Patience

    def request(self, *args: Any, **options: Any) -> None:
        self._patience = _current.patience
        super().request(*args, **options)

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        self.sock.settimeout(self._patience.left_seconds())
        super().send(data)
        self._patience.received(0)

    def response_class(self, sock: socket.socket, *args: Any, **options: Any) -> http.client.HTTPResponse:  # type: ignore[override] # a class in http.client, called with what it reads from
        incoming = Incoming(sock, self._patience.left_seconds, self._patience.received)
        return Response(incoming, *args, **options)  # type: ignore[arg-type] # it asks of a socket only makefile()


class _BoundedTls(_Bounded, HTTPSConnection):
    """The same inside TLS."""


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Bounded


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _BoundedTls


@final
class BoundedPool(urllib3.PoolManager):
    """urllib3's pool for clickhouse-connect. Any thread; `wait_at_most` is for the thread that calls it."""

    def __init__(self, monotonic_ns: Callable[[], int] = SystemClock.monotonic_ns) -> None:
        """Connect later; no proxy of the environment."""
        super().__init__(maxsize=8)
        self.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
        self._monotonic_ns = monotonic_ns
        self._of_thread = threading.local()

    def wait_at_most(self, millis: int, *, for_all: bool) -> None:
        """Set how long the requests of this thread are waited for from now on.

        Args:
            millis: For each.
            for_all: For all of them together.
        """
        self._of_thread.seconds = millis / 1000
        self._of_thread.until_ns = self._monotonic_ns() + millis * 1_000_000 if for_all else None

    def urlopen(self, method: str, url: str, redirect: bool = True, **options: Any) -> Any:  # type: ignore[override] # as in urllib3
        """Send a request, once; a redirect is an answer like any other.

        Raises:
            HTTPError: There is no answer in time, or it is not as it has to be.
        """
        seconds = self._seconds(url)
        _current.patience = patience = _Patience(seconds, self._monotonic_ns)
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
                patience.is_large = True
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
        left_ns = until_ns - self._monotonic_ns()
        if left_ns <= 0:
            raise ReadTimeoutError(self.connection_from_url(url), url, "no time is left")
        return float(left_ns / 1e9)


def lines(response: Any, *, max_line_bytes: int, max_bytes: int | None = None) -> Generator[bytes]:
    """Yield the lines of an answer of urllib3 as they come, and close it.

    Raises:
        TooLargeError: A line, or all of them together, have more bytes than may be.
        UnexpectedError: The last line has no end.
        HTTPError: It broke off, or took too long.
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
            yield bytes(rest)  # what went wrong in the middle is told there
            raise UnexpectedError("a line without an end")
    finally:
        response.close()


def weight(line: bytes) -> int:
    """Return about how many bytes the values of a line of JSON take, at most; what is inside of texts counts too."""
    return len(line) + 128 + 64 * (line.count(b"[") + line.count(b"{")) + 48 * line.count(b",")


def _pieces(response: Any, max_bytes: int | None) -> Iterator[bytes]:
    count = 0
    while piece := response.read(_PIECE_BYTES, decode_content=False):
        count += len(piece)
        if max_bytes is not None and count > max_bytes:
            raise TooLargeError("more than is held")
        yield piece
