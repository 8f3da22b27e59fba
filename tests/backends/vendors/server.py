"""A server on loopback that a vendor's double derives from: routes, recorded requests, faults."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

KEY = "sk-secret-0123456789abcdef"
"""The key that every exporter of the suite is given: it must be in no message, log line or representation."""


@dataclass(frozen=True)
class Request:
    """What was sent.

    Attributes:
        path: Still percent-encoded.
        query: The first value of each name.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body) if self.body else None


@dataclass(frozen=True)
class Response:
    """What is answered; a `body` that is neither bytes nor text is sent as JSON."""

    status: int = 200
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def data(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        return self.body.encode() if isinstance(self.body, str) else json.dumps(self.body).encode()


class Double:
    """Answers requests by `answer`, which a vendor's double has; `fault` goes first, where it is set.

    Attributes:
        requests: What was sent, in order, faults included.
        fault: Returns what is answered instead, or None to let the double answer.
        cut: For a fault: the connection is closed unanswered.
    """

    cut = Response(status=0)

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.fault: Callable[[Request], Response | None] | None = None
        self.lock = threading.Lock()
        double = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # head and body are two writes: 40 ms for each answer otherwise

            def _any(self) -> None:
                parts = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
                length = int(self.headers.get("content-length") or 0)
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, parts.path, query, headers, self.rfile.read(length))
                with double.lock:
                    double.requests.append(request)
                    fault = double.fault(request) if double.fault is not None else None
                    response = fault if fault is not None else double.answer(request)
                if response.status == 0:
                    self.close_connection = True
                    return
                self.send_response_only(response.status)
                for name, value in response.headers.items():
                    self.send_header(name, value)
                if "content-length" not in {name.lower() for name in response.headers}:
                    self.send_header("Content-Length", str(len(response.data)))
                self.end_headers()
                self.wfile.write(response.data)

            do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _any  # noqa: N815 # names of http.server

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, request: Request) -> Response:
        """Answer as the vendor does; called under `lock`."""
        raise NotImplementedError  # each vendor has its own answers

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
