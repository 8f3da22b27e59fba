"""OTLP over gRPC: `TraceService`, `LogsService` and `MetricsService`.

The bodies of requests are not parsed by gRPC: they are bytes, and go the same way as those of HTTP.

Source: OpenTelemetry, OTLP specification 1.9, "OTLP/gRPC".
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias, cast, final

import grpc  # type: ignore[import-untyped] # its types are a package of their own
from google.protobuf.any_pb2 import Any as AnyMessage  # type: ignore[import-untyped] # as above
from google.protobuf.duration_pb2 import Duration  # type: ignore[import-untyped] # as above
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped] # as above
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped] # as above
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from otel_metadata.errors import ConfigurationError
from otel_metadata.reporting import REPORTER
from otel_metadata.server.operations import Problem
from otel_metadata.server.otlp.http import logs_response, tell_of_metrics, traces_response
from otel_metadata.server.otlp.store import MAX_BYTES, check_metrics, store_evaluations, store_spans
from otel_metadata.server.problems import problem_of
from otel_metadata.server.vendors.headers import resource_of

if TYPE_CHECKING:
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    from otel_metadata.server.operations import Caller
    from otel_metadata.server.service import Service

_PACKAGE: Final = "opentelemetry.proto.collector"

# A thread waits for the store while it has a request. The requests beyond that wait in gRPC, so many at most.
_THREADS: Final = 8
_MAX_REQUESTS: Final = 256

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_BYTES),
    ("grpc.so_reuseport", 0),  # two servers on one port would share its requests
)

_CODES: Final = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
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

    def __init__(self, service: Service, host: str, port: int) -> None:
        """Take the address; nothing is answered before `start`.

        Args:
            service: What the handlers share.
            host: An address of this machine, or a name of one.
            port: 0 for a free one.

        Raises:
            ConfigurationError: The address cannot be had.
        """
        self._service = service
        self._loop: asyncio.AbstractEventLoop  # set by `start`, before the first request
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="otel-metadata-grpc")
        self._server = grpc.server(self._threads, options=_OPTIONS, maximum_concurrent_rpcs=_MAX_REQUESTS)
        self._server.add_generic_rpc_handlers(
            (
                self._handler("trace.v1.TraceService", self._traces),
                self._handler("logs.v1.LogsService", self._logs),
                self._handler("metrics.v1.MetricsService", self._metrics),
            )
        )
        try:
            self.port: int = self._server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        except RuntimeError:
            self.port = 0  # what earlier versions of gRPC return
        if not self.port:
            self._threads.shutdown()
            raise ConfigurationError("grpc_port", port, f"a free port of {host}, with --grpc-port, or --no-grpc")

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer requests.

        Args:
            loop: The event loop on which handlers run; it runs until `stop` has returned.
        """
        self._loop = loop
        self._server.start()

    def stop(self, grace_seconds: float) -> None:
        """Take no request more, and return when those that run have ended, or are cancelled after the time."""
        stopped: threading.Event = self._server.stop(grace_seconds)
        stopped.wait()
        self._threads.shutdown()

    def _handler(self, name: str, handler: _Handler) -> grpc.GenericRpcHandler:
        def export(body: bytes, context: grpc.ServicerContext) -> bytes:
            return self._answer(name, handler, body, context)

        # Without a deserializer the body comes as bytes.
        method = grpc.unary_unary_rpc_method_handler(export)
        return grpc.method_handlers_generic_handler(f"{_PACKAGE}.{name}", {"Export": method})

    def _answer(self, name: str, handler: _Handler, body: bytes, context: grpc.ServicerContext) -> bytes:
        # Metadata whose names end in -bin are bytes.
        headers = {name: value for name, value in context.invocation_metadata() if isinstance(value, str)}
        begun_ns = self._service.clock.monotonic_ns()
        caller, status = None, 200
        try:
            caller = self._service.access.caller("traces:write", headers)
            response = asyncio.run_coroutine_threadsafe(handler(caller, body, headers), self._loop).result()
            return cast("bytes", response.SerializeToString())
        except Exception as error:  # noqa: BLE001 # every error is an answer
            problem = problem_of(error)
            if problem is None:
                REPORTER.failed("server:grpc", error)
                problem = Problem(500, "The server has failed; its log says more.")
            status = problem.status
            _refuse(problem, context)
        finally:
            took_ns = self._service.clock.monotonic_ns() - begun_ns
            client = context.peer().partition(":")[2].rpartition(":")[0]
            facts = (f"grpc.{name}", f"gRPC {name}/Export", client, caller, status, took_ns)
            self._loop.call_soon_threadsafe(self._service.answered, *facts)

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


def _refuse(problem: Problem, context: grpc.ServicerContext) -> NoReturn:
    """End a call with a status; one that may succeed later says when (`RetryInfo`)."""
    code = _CODES.get(problem.status, grpc.StatusCode.INVALID_ARGUMENT)
    seconds = problem.headers.get("Retry-After", "")
    if seconds.isdecimal():
        detail = AnyMessage()
        detail.Pack(RetryInfo(retry_delay=Duration(seconds=int(seconds))))
        status = Status(code=code.value[0], message=problem.title, details=[detail])
        context.set_trailing_metadata(((_DETAILS, status.SerializeToString()),))
    context.abort(code, problem.title)
    raise AssertionError("unreachable: abort raises")
