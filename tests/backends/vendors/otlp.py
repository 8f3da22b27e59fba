"""An OTLP receiver over HTTP without an API of its own: it takes whatever can be read."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.resources import Resource
from tests.backends.vendors.case import Case
from tests.backends.vendors.server import KEY, Double, Request, Response

from otel_metadata.exporters.otlp import OtlpPatchExporter
from otel_metadata.exporters.otlp_http import OtlpHttpEvents, OtlpHttpSender
from otel_metadata.model.outcome import Outcome
from otel_metadata.model.patch import Patch
from otel_metadata.model.span_ref import SpanRef


class OtlpReceiver(Double):
    """The double.

    Attributes:
        spans: By id, in hex: one that comes again takes the place of the first.
        events: Log records, in the order of their arrival.
    """

    def __init__(self) -> None:
        self.spans: dict[str, Span] = {}
        self.events: list[LogRecord] = []
        super().__init__()

    def answer(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return Response(401, b"")
        try:
            if (request.method, request.path) == ("POST", "/v1/logs"):
                for logs in ExportLogsServiceRequest.FromString(request.body).resource_logs:
                    self.events += [record for scope in logs.scope_logs for record in scope.log_records]
            elif (request.method, request.path) == ("POST", "/v1/traces"):
                for group in ExportTraceServiceRequest.FromString(request.body).resource_spans:
                    self.spans |= {span.span_id.hex(): span for scope in group.scope_spans for span in scope.spans}
            else:
                return Response(404, b"")
        except DecodeError:
            return Response(400, b"")
        return Response(200, b"")


class WithItsSender:
    """An exporter that closes its sender too, which is the destination's otherwise."""

    def __init__(self, inner: OtlpPatchExporter, sender: OtlpHttpSender) -> None:
        self._inner, self._sender = inner, sender
        self.name, self.max_batch, self.grace_millis = inner.name, inner.max_batch, inner.grace_millis
        self.reports_missing, self.convergence = inner.reports_missing, inner.convergence

    def export(self, patches: Sequence[Patch], *, timeout_millis: int) -> Sequence[Outcome]:
        return self._inner.export(patches, timeout_millis=timeout_millis)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: int = 5_000) -> None:
        self._inner.shutdown(timeout_millis)
        self._sender.shutdown()


def exporter(url: str) -> WithItsSender:
    headers = {"authorization": f"Bearer {KEY}"}
    sender = OtlpHttpSender(f"{url}/v1/traces", headers=headers)
    events = OtlpHttpEvents(f"{url}/v1/logs", headers=headers)
    return WithItsSender(OtlpPatchExporter(sender, events=events, resource=Resource({})), sender)


def patch(number: int) -> Patch:
    version = (1_700_000_000_000_000_000 + number, 7)
    return Patch(SpanRef(0xABC, number), {("span", "metadata", "k"): (f"v{number}", version)})


CASE = Case(
    name="otlp",
    double=OtlpReceiver,
    exporter=exporter,
    patch=patch,
    know=lambda double, patch: None,  # it has no idea which spans it has
    reports_missing=False,
    path=r"/v1/(traces|logs)",
)
