"""Reading from a connection with two bounds that the reader sets: a time and a number of bytes.

`http.client` and urllib3 apply a timeout to each piece that arrives, and no bound to the whole answer: a peer that
sends a byte now and then holds them for hours, and a peer that does not stop fills the memory.
"""

from __future__ import annotations

import http.client
import io
import re
import socket
from collections.abc import Callable
from typing import Any, Final, final

_MAX_CHUNK_LINE_BYTES: Final = 1024
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r?\n")


def at_most(max_bytes: int) -> Callable[[int], None]:
    """Return a function that counts the sizes of pieces, and raises `IncompleteRead` beyond *max_bytes*."""
    count = 0

    def received(size: int) -> None:
        nonlocal count
        count += size
        if count > max_bytes:
            raise http.client.IncompleteRead(b"")

    return received


@final
class Response(http.client.HTTPResponse):
    """An HTTP response that accepts only the chunk lengths of RFC 9112, 7.1.

    `http.client` accepts `-1` as a length, and then reads until the peer closes.
    """

    def _read_next_chunk_size(self) -> int:
        line = self.fp.readline(_MAX_CHUNK_LINE_BYTES + 1)
        size = _CHUNK_SIZE.fullmatch(line)
        if size is None:
            raise http.client.IncompleteRead(b"")
        return int(size[1], 16)


@final
class Incoming(io.RawIOBase):
    """The bytes that arrive on a socket, as a file.

    Attributes:
        is_at_end: Whether a read has found that the peer sends nothing more.
    """

    def __init__(self, sock: socket.socket, left_seconds: Callable[[], float], received: Callable[[int], None]) -> None:
        """Read from *sock*.

        Args:
            sock: Connected.
            left_seconds: Called before each piece; returns how long to wait for it, and raises when no time is left.
            received: Called with the size of each piece; raises when there were too many bytes.
        """
        self.is_at_end = False
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._left_seconds = left_seconds
        self._received = received

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return the file that `http.client` reads from."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """Return True: the socket is open for reading."""
        return True

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401 # collections.abc.Buffer is of Python 3.12
        """Read one piece."""
        self._sock.settimeout(self._left_seconds())
        count = self._raw.readinto(buffer)
        self._received(count or 0)
        self.is_at_end = self.is_at_end or count == 0
        return count

    def close(self) -> None:
        """Close the file, not the socket."""
        self._raw.close()
        super().close()
