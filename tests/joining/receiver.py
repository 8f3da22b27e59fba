"""A receiver of OTLP on loopback, over HTTP and gRPC, that counts every span that comes, by id.

Imported by the tests, and by the programs that run in environments of vendors' packages.
"""

from __future__ import annotations

import gzip
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

Sent = tuple[str, str, dict[str, Any], dict[str, str]]
"""Name, span id in hex digits, attributes, and the headers of the request."""

PATCH = "otel_metadata.update"


def value_of(value: Any) -> Any:
    """Return an attribute's value."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(one) for one in value.array_value.values]
    return getattr(value, kind) if kind else None


def spans_of(request: Any, headers: dict[str, str]) -> list[Sent]:
    """Return the spans of one request."""
    return [
        (span.name, span.span_id.hex(), {one.key: value_of(one.value) for one in span.attributes}, headers)
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


class Receiver:
    """Takes whatever is sent.

    Attributes:
        spans: In the order of their arrival.
        others: (method, path, body) of what is not OTLP.
        gate: Answers wait for it.
    """

    def __init__(self) -> None:
        self.spans: list[Sent] = []
        self.others: list[tuple[str, str, bytes]] = []
        self.gate = threading.Event()
        self.gate.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _any(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver.gate.wait()
                if self.path.partition("?")[0].endswith("/traces"):
                    headers = {name.lower(): value for name, value in self.headers.items()}
                    receiver.take(ExportTraceServiceRequest.FromString(body), headers)
                    answer, kind = b"", "application/x-protobuf"
                else:
                    receiver.others.append((self.command, self.path, body))
                    answer, kind = b"{}", "application/json"
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _any  # noqa: N815 # names of http.server

            def log_message(self, *_: Any) -> None:
                pass

        class Servicer(trace_service_pb2_grpc.TraceServiceServicer):
            def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 # gRPC's name
                receiver.gate.wait()
                receiver.take(request, dict(context.invocation_metadata()))
                return ExportTraceServiceResponse()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self._grpc = grpc.server(ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Servicer(), self._grpc)
        self.grpc_target = f"127.0.0.1:{self._grpc.add_insecure_port('127.0.0.1:0')}"
        self._grpc.start()

    def take(self, request: Any, headers: dict[str, str]) -> None:
        """Keep the spans of one request."""
        self.spans += spans_of(request, headers)

    @property
    def url(self) -> str:
        """Its address over HTTP."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def own(self) -> list[Sent]:
        """The spans of the application."""
        return [span for span in self.spans if span[0] != PATCH]

    @property
    def counts(self) -> dict[str, int]:
        """How often each span of the application came, by name; of several of one name the highest."""
        highest: dict[str, int] = {}
        for (name, _), count in Counter((name, key) for name, key, *_ in self.own).items():
            highest[name] = max(highest.get(name, 0), count)
        return highest

    @property
    def names(self) -> list[str]:
        """The names of all that came from the application, sorted: one that came twice is there twice."""
        return sorted(span[0] for span in self.own)

    def attributes(self, name: str) -> dict[str, Any]:
        """What came with the only span of this name."""
        (found,) = [span for span in self.own if span[0] == name]
        return found[2]

    @property
    def patches(self) -> list[dict[str, Any]]:
        """What came late, on spans beside their targets."""
        return [span[2] for span in self.spans if span[0] == PATCH]

    def close(self) -> None:
        """End both servers."""
        self.gate.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._grpc.stop(None).wait()

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
