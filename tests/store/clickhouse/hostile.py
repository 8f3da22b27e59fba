"""A ClickHouse on loopback that lets a client in, and then answers one kind of statement as an attacker would."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Attack = Callable[["Connection"], None]

HEAD = b"HTTP/1.1 200 OK\r\nX-ClickHouse-Server-Display-Name: x\r\n"
_PIECE = 64 * 1024


class Connection(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: HostileClickHouse

    def do_POST(self) -> None:
        statement = f"{self.path} {self._body().decode('utf-8', 'replace')}".replace("+", " ").replace("%20", " ")
        self.server.statements.append(statement)
        if re.search(self.server.match, statement):
            self.server.is_attacked.set()
            self.close_connection = True
            try:
                self.server.attack(self)
            except OSError:  # the client has gone
                pass
            return
        body = b""
        if "version()" in statement:
            body = b"24.8.1.1\tUTC\n"
        elif "system.settings" in statement:
            body = b'["name","value","readonly"]\n["max_threads","1",0]\n'
        elif "system.tables" in statement:
            body = b'["otel_traces"]\n["otel_metadata_fields"]\n["otel_metadata_deleted"]\n'
        elif "AS written" in statement:
            body = self.server.rows
        self.send(HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))

    def do_GET(self) -> None:
        self.do_POST()

    def send(self, data: bytes) -> None:
        """Send, and count what the client's side has taken."""
        for at in range(0, len(data), _PIECE):
            self.connection.sendall(data[at : at + _PIECE])
            self.server.sent_bytes += len(data[at : at + _PIECE])

    def send_on(self, data: bytes) -> None:
        """Send *data* again and again, without end."""
        while not self.server.stopping.is_set():
            self.send(data)

    def drip(self, data: bytes) -> None:
        """Send *data* now and then, without end."""
        while not self.server.stopping.wait(0.01):
            self.send(data)

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("transfer-encoding", ""):
            return self.rfile.read(int(self.headers.get("content-length", "0")))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class HostileClickHouse(ThreadingHTTPServer):
    """The server; a context manager.

    Attributes:
        statements: What was asked, in order, with the target of the request before it.
        sent_bytes: What was sent.
    """

    daemon_threads = False

    def __init__(self, match: str, attack: Attack, rows: bytes = b"") -> None:
        """Listen.

        Args:
            match: A regular expression; a statement in which it is found is attacked.
            attack: How.
            rows: The places of spans, which come before the spans.
        """
        super().__init__(("127.0.0.1", 0), Connection)
        self.match, self.attack, self.rows = match, attack, rows
        self.statements: list[str] = []
        self.sent_bytes = 0
        self.stopping, self.is_attacked = threading.Event(), threading.Event()
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        """Of a store."""
        return f"clickhouse://me:s3cret@127.0.0.1:{self.server_address[1]}/x"

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._open.append(connection)
        return connection, address

    def handle_error(self, *_: object) -> None:
        """A client that has gone is what is wanted."""

    def __enter__(self) -> HostileClickHouse:
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for connection in self._open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.shutdown()
        self.server_close()
        self._thread.join()
