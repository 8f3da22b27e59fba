"""One connection over HTTP: uvicorn's, with bounds on the head of a request, and on clients that wait for ever.

Neither uvicorn nor httptools has any: a header without end would fill the memory, connections that send nothing would
keep all others away, and so would answers that nobody reads.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final, cast, final

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from otel_metadata.server.operations import Problem
from otel_metadata.server.problems import PROBLEM_JSON, details

if TYPE_CHECKING:
    import asyncio

MAX_HEAD: Final = 64 << 10
"""Bytes of the URL and the headers of a request."""

HEAD_SECONDS: Final = 30
"""How long a head may take, from the beginning of the connection or from the end of the answer before it."""

READ_SECONDS: Final = 30
"""How long a client may read nothing of an answer that waits for it."""

_LINGER_SECONDS: Final = 5
"""How long a client may go on sending after a refusal. A connection that is closed before would lose the refusal."""


@final
class Connection(HttpToolsProtocol):
    """See the module. The names of the methods are those of asyncio and httptools."""

    _timer: asyncio.TimerHandle | None = None
    _reading_timer: asyncio.TimerHandle | None = None
    _is_in_head = False
    _head_size = 0
    _refusal: Problem | None = None

    # Bytes since the parser has last reported anything: a header that is whole, or a part of a body.
    _unreported = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Expect a head."""
        super().connection_made(cast("asyncio.Transport", transport))
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing any more."""
        self._stop_timer()
        self._stop_reading_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has come."""
        if self._refusal is not None:
            return
        self._unreported += len(data)
        super().data_received(data)
        if self._unreported > MAX_HEAD:
            self._refuse(_too_large())

    def on_message_begin(self) -> None:
        """A head begins."""
        self._is_in_head = True
        self._head_size = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the URL."""
        self._add_to_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, before or behind the body."""
        self._add_to_head(len(name) + len(value))
        if self._is_in_head:  # a trailer is no header, and says nothing that we need (RFC 9110, 6.5.1)
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head has come."""
        self._is_in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._unreported = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request has come."""
        self._unreported = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Expect the next head."""
        super().on_response_complete()
        self._await_head()

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser does not take."""
        # Uvicorn calls it for every error of the parser, of which one is an exception that a method above has raised.
        self._refuse(_too_large() if self._head_size > MAX_HEAD else Problem(400, msg))

    def pause_writing(self) -> None:
        """The client reads more slowly than the answer is made."""
        self._check_reading(None)
        super().pause_writing()

    def resume_writing(self) -> None:
        """The client has read nearly all that waits for it."""
        self._stop_reading_timer()
        super().resume_writing()

    def _check_reading(self, waiting_before: int | None) -> None:
        waiting = self.transport.get_write_buffer_size()
        if waiting == waiting_before:
            self.transport.abort()  # `close` would wait until the rest is read
        else:
            self._reading_timer = self.loop.call_later(READ_SECONDS, self._check_reading, waiting)

    def _stop_reading_timer(self) -> None:
        if self._reading_timer is not None:
            self._reading_timer.cancel()
            self._reading_timer = None

    def _add_to_head(self, size: int) -> None:
        self._unreported = 0
        self._head_size += size
        if self._head_size > MAX_HEAD:
            raise _too_large()

    def _await_head(self) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(HEAD_SECONDS, self._on_time)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_time(self) -> None:
        if self._is_in_head:
            self._refuse(Problem(408, f"The head of the request has not come within {HEAD_SECONDS:g} s; expected all."))
        elif self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def _refuse(self, problem: Problem) -> None:
        if self._refusal is not None or self.transport.is_closing():
            return
        self._refusal = problem
        body = msgspec.json.encode(details(problem))
        headers = [
            *self.server_state.default_headers,
            (b"content-type", PROBLEM_JSON.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        lines = [b"HTTP/1.1 %d %s" % (problem.status, HTTPStatus(problem.status).phrase.encode())]
        lines += [b"%s: %s" % header for header in headers]
        self.transport.write(b"\r\n".join([*lines, b"", body]))
        self.transport.write_eof()
        self._stop_timer()
        self._timer = self.loop.call_later(_LINGER_SECONDS, self.transport.close)


def _too_large() -> Problem:
    return Problem(431, f"The URL and the headers have more than {MAX_HEAD:,} bytes; expected less.")
