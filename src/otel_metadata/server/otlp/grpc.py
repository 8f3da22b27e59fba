"""OTLP over gRPC: `TraceService`, `LogsService` and `MetricsService`.

gRPC neither decompresses the messages nor parses them. They are bytes, and go the same way as the bodies of HTTP, with
the same limits. The methods are declared as ones that take a stream of messages, which is the same on the wire: then
the handler looks at the token before it asks for the message, and a call that sends none holds no thread.

Source: OpenTelemetry, OTLP specification 1.9, "OTLP/gRPC".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias, cast, final

import grpc.aio  # type: ignore[import-untyped] # its types are a package of their own
from google.protobuf.any_pb2 import Any as AnyMessage  # type: ignore[import-untyped] # as above
from google.protobuf.duration_pb2 import Duration  # type: ignore[import-untyped] # as above
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped] # as above
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped] # as above
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from otel_metadata.errors import ConfigurationError
from otel_metadata.server import bodies
from otel_metadata.server.bodies import MAX_COMPRESSED, Body
from otel_metadata.server.operations import Problem
from otel_metadata.server.otlp.http import logs_response, tell_of_metrics, traces_response
from otel_metadata.server.otlp.store import MAX_BYTES, check_metrics, store_evaluations, store_spans
from otel_metadata.server.problems import failure, problem_of
from otel_metadata.server.vendors.headers import resource_of

if TYPE_CHECKING:
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
    from starlette.types import Message

    from otel_metadata.server.operations import Caller
    from otel_metadata.server.service import Service

_PACKAGE: Final = "opentelemetry.proto.collector"

_MAX_CALLS: Final = 256
"""Calls at once, those that have sent nothing included."""

_MAX_READING: Final = 16
"""Calls whose message comes at the same time. gRPC keeps a message in memory until all of it is there."""

TURN_SECONDS: Final = 0.5
"""How long a message may take to come while other calls wait to send theirs."""

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_COMPRESSED),
    # Otherwise gRPC decompresses a message as a whole, and looks at its size afterwards.
    ("grpc.per_message_decompression", 0),
    ("grpc.so_reuseport", 0),  # two servers on one port would share its requests
    # Connections that nobody uses any more. A client opens the next one by itself.
    ("grpc.server_handshake_timeout_ms", 30_000),
    ("grpc.max_connection_idle_ms", 300_000),
    ("grpc.max_connection_age_ms", 3_600_000),
    ("grpc.max_connection_age_grace_ms", 60_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)

# gRPC does not say how a message is compressed. No request of OTLP begins with these bytes: it has only the member 1.
_ENCODINGS: Final = {b"\x1f": "gzip", b"\x78": "deflate"}

_CODES: Final = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
}
"""The status codes of refusals. Any other one is INVALID_ARGUMENT: exporters send nothing of that again."""

# The metadata in which gRPC's libraries look for the details of an error.
_DETAILS: Final = "grpc-status-details-bin"

_Response: TypeAlias = "ExportTraceServiceResponse | ExportLogsServiceResponse | ExportMetricsServiceResponse"
_Handler: TypeAlias = "Callable[[Caller, bytes, dict[str, str]], Coroutine[Any, Any, _Response]]"


@final
class GrpcServer:
    """Takes OTLP over gRPC on one address.

    Attributes:
        port: The port that it listens on.
    """

    def __init__(self, service: Service, host: str, port: int, loop: asyncio.AbstractEventLoop) -> None:
        """Take the address; nothing is answered before `start`.

        Args:
            service: What the handlers share.
            host: An address of this machine, or a name of one.
            port: 0 for a free one.
            loop: The event loop that the server runs on; it does not run yet.

        Raises:
            ConfigurationError: The address cannot be had.
        """
        self._service = service
        self._reading = asyncio.Semaphore(_MAX_READING)
        self.port = loop.run_until_complete(self._listen(f"[{host}]:{port}" if ":" in host else f"{host}:{port}"))
        if not self.port:
            raise ConfigurationError("grpc_port", port, f"a free port of {host}, with --grpc-port, or --no-grpc")

    async def start(self) -> None:
        """Answer requests."""
        await self._server.start()

    async def stop(self, grace_seconds: float) -> None:
        """Take no request more, and return when those that run have ended, or are cancelled after the time."""
        await self._server.stop(grace_seconds)

    async def _listen(self, address: str) -> int:
        """Make the server, and return its port; 0 if the address cannot be had."""
        self._server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=_MAX_CALLS)
        self._server.add_generic_rpc_handlers(
            (
                self._handler("trace.v1.TraceService", self._traces),
                self._handler("logs.v1.LogsService", self._logs),
                self._handler("metrics.v1.MetricsService", self._metrics),
            )
        )
        try:
            return cast("int", self._server.add_insecure_port(address))
        except RuntimeError:
            return 0  # what earlier versions of gRPC return

    def _handler(self, name: str, handler: _Handler) -> grpc.GenericRpcHandler:
        async def export(_: object, context: grpc.aio.ServicerContext) -> bytes:
            return await self._answer(name, handler, context)

        # Without a deserializer the messages come as bytes.
        method = grpc.stream_unary_rpc_method_handler(export)
        return grpc.method_handlers_generic_handler(f"{_PACKAGE}.{name}", {"Export": method})

    async def _answer(self, name: str, handler: _Handler, context: grpc.aio.ServicerContext) -> bytes:
        # Metadata whose names end in -bin are bytes.
        headers = {name: value for name, value in context.invocation_metadata() if isinstance(value, str)}
        begun_ns = self._service.clock.monotonic_ns()
        caller, status = None, 499  # as nginx logs it, if the client cancels the call
        try:
            caller = self._service.access.caller("traces:write", headers)
            body = self._body(await self._message(context))
            try:
                response = await handler(caller, await body.read(), headers)
            finally:
                body.release()  # before the answer, so that the sender's next body finds room
            status = 200
            return cast("bytes", response.SerializeToString())
        except Exception as error:  # noqa: BLE001 # every error is an answer
            problem = problem_of(error) or failure("grpc", error)
            status = problem.status
            await _refuse(problem, context)
        finally:
            took_ns = self._service.clock.monotonic_ns() - begun_ns
            client = context.peer().partition(":")[2].rpartition(":")[0]
            self._service.answered(f"grpc.{name}", f"gRPC {name}/Export", client, caller, status, took_ns)

    async def _message(self, context: grpc.aio.ServicerContext) -> bytes:
        """Return the message of a call, as it came.

        Raises:
            Problem: 400 if there is none, 408 if it takes too long.
        """
        loop = asyncio.get_running_loop()
        async with self._reading:
            end = loop.time() + bodies.MAX_PAUSE_SECONDS
            reading = asyncio.ensure_future(context.read())
            try:
                while not (await asyncio.wait({reading}, timeout=TURN_SECONDS))[0]:
                    if self._reading.locked() or loop.time() >= end:
                        raise Problem(408, "The message has not come in time; expected it with the call.")
                message = reading.result()
            finally:
                reading.cancel()
        if message is grpc.aio.EOF:
            raise Problem(400, "The call has no message; expected one.")
        return cast("bytes", message)

    def _body(self, message: bytes) -> Body:
        """Return a message as the body of a request, which is decompressed and counted like one of HTTP."""

        async def receive() -> Message:
            return {"type": "http.request", "body": message}

        encoding = _ENCODINGS.get(message[:1], "identity")
        return Body(receive, {"content-encoding": encoding}, MAX_BYTES, self._service.buffered)

    async def _traces(self, caller: Caller, body: bytes, headers: dict[str, str]) -> ExportTraceServiceResponse:
        resource = await resource_of(self._service, headers)
        refused = await store_spans(self._service, caller, body, is_json=False, resource=resource)
        return traces_response(refused)

    async def _logs(self, caller: Caller, body: bytes, _headers: dict[str, str]) -> ExportLogsServiceResponse:
        refused = await store_evaluations(self._service, caller, body, is_json=False)
        return logs_response(refused)

    async def _metrics(self, _caller: Caller, body: bytes, _headers: dict[str, str]) -> ExportMetricsServiceResponse:
        await check_metrics(self._service, body, is_json=False)
        tell_of_metrics()
        return ExportMetricsServiceResponse()


async def _refuse(problem: Problem, context: grpc.aio.ServicerContext) -> NoReturn:
    """End a call with a status; one that may succeed later says when (`RetryInfo`)."""
    code = _CODES.get(problem.status, grpc.StatusCode.INVALID_ARGUMENT)
    trailers: tuple[tuple[str, bytes], ...] = ()
    seconds = problem.headers.get("Retry-After", "")
    if seconds.isdecimal():
        detail = AnyMessage()
        detail.Pack(RetryInfo(retry_delay=Duration(seconds=int(seconds))))
        status = Status(code=code.value[0], message=problem.title, details=[detail])
        trailers = ((_DETAILS, status.SerializeToString()),)
    await context.abort(code, problem.title, trailers)
    raise AssertionError("unreachable: abort raises")
