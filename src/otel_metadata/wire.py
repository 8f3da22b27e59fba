"""What arrives on a connection, bounded: by the time and by the bytes that whoever waits for it allows.

`http.client` and urllib3 give a timeout to each piece that arrives, and no bound to the whole: a peer that sends a byte
now and then holds them for hours, and one that does not stop fills the memory.
"""

from __future__ import annotations

import http.client
import io
import re
import socket
from collections.abc import Callable
from typing import Any, Final, final

__all__ = ["Incoming", "Response", "at_most"]

_MAX_CHUNK_LINE_BYTES: Final = 1024
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r?\n")


def at_most(max_bytes: int) -> Callable[[int], None]:
    """Return what takes the sizes of pieces, and raises `IncompleteRead` when they are more than *max_bytes*."""
    count = 0

    def received(size: int) -> None:
        nonlocal count
        count += size
        if count > max_bytes:
            raise http.client.IncompleteRead(b"")

    return received


@final
class Response(http.client.HTTPResponse):
    """An answer whose chunks are as long as RFC 9112, 7.1 lets them be.

    `http.client` takes `-1` for a length, and then reads until the peer closes.
    """

    def _read_next_chunk_size(self) -> int:
        line = self.fp.readline(_MAX_CHUNK_LINE_BYTES + 1)
        size = _CHUNK_SIZE.fullmatch(line)
        if size is None:
            raise http.client.IncompleteRead(b"")
        return int(size[1], 16)


@final
class Incoming(io.RawIOBase):
    """What arrives on a socket.

    Attributes:
        is_at_end: Whether the peer has said that nothing more comes, and somebody asked for more.
    """

    def __init__(self, sock: socket.socket, left_seconds: Callable[[], float], received: Callable[[int], None]) -> None:
        """Read from *sock*.

        Args:
            sock: Connected.
            left_seconds: How long may be waited for the next piece; asked before each. It raises when there is no time.
            received: Told the size of each piece; it raises when there were enough.
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
        """It is."""
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
