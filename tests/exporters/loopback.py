"""A server on loopback that answers with bytes, as they are: what no HTTP library would send can be sent."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Answer = bytes | Callable[[socket.socket, threading.Event], None]
"""What is sent, after which the connection is kept; or a function that does as it likes, after which it is closed."""


@dataclass(frozen=True)
class Request:
    line: str
    headers: dict[str, str]
    body: bytes


def reply(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
    """Return a whole answer; `content_type="text/html"` is a header."""
    lines = [f"HTTP/1.1 {status} Reason", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def then_closed(data: bytes) -> Answer:
    return lambda connection, _: connection.sendall(data)


def then_reset(data: bytes) -> Answer:
    def answer(connection: socket.socket, _: threading.Event) -> None:
        connection.sendall(data)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return answer


def never(_: socket.socket, stopping: threading.Event) -> None:
    """Answer nothing."""
    stopping.wait()


def dripping(start: bytes, drip: bytes) -> Answer:
    """Send *start*, then *drip* again and again, without end."""

    def answer(connection: socket.socket, stopping: threading.Event) -> None:
        connection.sendall(start)
        while not stopping.wait(0.01):
            connection.sendall(drip)

    return answer


class Loopback:
    """Answers requests in order; the last answer is for all that follow.

    Attributes:
        requests: What was sent, in order.
        peers: The client's port of each connection that was accepted.
        is_asked: Set by the first request.
    """

    def __init__(self, *answers: Answer, tls: ssl.SSLContext | None = None, reads_body: bool = True) -> None:
        self.requests: list[Request] = []
        self.peers: list[int] = []
        self.is_asked = threading.Event()
        self.answers = list(answers)
        self._tls = tls
        self._reads_body = reads_body
        self._stopping = threading.Event()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.address[1]}"

    def __enter__(self) -> Loopback:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        socket.create_connection(self.address).close()  # ends the wait for the next connection
        for connection in self._open:
            try:
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            connection, (_, port) = self._listener.accept()
            if self._stopping.is_set():
                connection.close()
                return
            self.peers.append(port)
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, plain: socket.socket) -> None:
        connection: socket.socket = plain
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(plain, server_side=True)
                self._open.append(connection)  # the plain one is empty now
                if self._stopping.is_set():
                    return
            with connection.makefile("rb") as incoming:
                while self._answer(connection, incoming):
                    pass
        except OSError:  # the client has gone
            pass
        finally:
            connection.close()
            plain.close()

    def _answer(self, connection: socket.socket, incoming: Any) -> bool:
        line = incoming.readline().decode("latin-1").strip()
        if not line:
            return False
        headers: dict[str, str] = {}
        while field := incoming.readline().decode("latin-1").strip():
            name, _, value = field.partition(":")
            headers[name.lower()] = value.strip()
        body = incoming.read(int(headers.get("content-length", 0))) if self._reads_body else b""
        self.requests.append(Request(line, headers, body))
        self.is_asked.set()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, bytes):
            connection.sendall(answer)
            return True
        answer(connection, self._stopping)
        return False
