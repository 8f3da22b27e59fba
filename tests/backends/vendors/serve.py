"""A server of ours on loopback with habits that the real one does not have: what it answers can be anything."""

from __future__ import annotations

from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.backends.vendors.case import Case
from tests.backends.vendors.server import KEY, Double, Request, Response

from otel_metadata.backends.serve.patches import ServePatchExporter
from otel_metadata.model.patch import Patch
from otel_metadata.model.span_ref import SpanRef

BATCH = "/api/v1/spans:batch"


class Serve(Double):
    """The double.

    Attributes:
        updates: The updates of all batches, in order.
        authors: The names that came with them.
        spans: The OTLP requests.
    """

    def __init__(self) -> None:
        self.updates: list[dict[str, Any]] = []
        self.authors: dict[str, str] = {}
        self.spans: list[ExportTraceServiceRequest] = []
        super().__init__()

    def answer(self, request: Request) -> Response:
        if request.path == "/v1/traces":
            self.spans.append(ExportTraceServiceRequest.FromString(request.body))
            return Response(200, b"", {"content-type": "application/x-protobuf"})
        if (request.method, request.path) != ("POST", BATCH):
            return Response(404, {"title": "not there"})
        body = request.json
        self.updates += body["updates"]
        self.authors |= body["authors"]
        return Response(200, outcomes(*["updated"] * len(body["updates"])))


def outcomes(*statuses: str, **more: Any) -> dict[str, Any]:
    return {"outcomes": [{"status": status, **more} for status in statuses], "updated": 0, "pending": 0, "failed": 0}


CASE = Case(
    name="serve",
    double=Serve,
    exporter=lambda url: ServePatchExporter(url, headers={"authorization": f"Bearer {KEY}"}),
    patch=lambda number: Patch(SpanRef(5, number), {("span", "metadata", "k"): (number, (number, 7))}),
    know=lambda _double, _patch: None,
    reports_missing=False,
    path=r"/api/v1/spans:batch",
)
