"""A double of Splunk Agent Observability: Galileo's, with the header and the attributes of its successor's SDK."""

from __future__ import annotations

from typing import Any

from tests.backends.vendors.case import Case
from tests.backends.vendors.galileo import ID, LOG_STREAM, PROJECT, Galileo, Stored, identifier
from tests.backends.vendors.server import KEY

from otel_metadata.backends.galileo.patches import GalileoPatchExporter
from otel_metadata.model.patch import Patch
from otel_metadata.model.span_ref import SpanRef


class SplunkAo(Galileo):
    """The same records under another header."""

    header = "splunk-ao-api-key"
    tags = "splunk_ao.tags"


def patch(number: int) -> Patch:
    target = SpanRef(0xABC, number).with_backend_id("splunk_ao", identifier(number))
    fields = {("span", "output", ""): ("bye", (number, 1)), ("span", "tag", "late"): (True, (number, 1))}
    return Patch(target, fields)  # type: ignore[arg-type] # literals


def know(double: Any, patch: Patch) -> None:
    double.stored["span", patch.target.backend_ids["splunk_ao"]] = Stored()


CASE = Case(
    name="splunk_ao",
    double=SplunkAo,
    exporter=lambda url: GalileoPatchExporter(
        url,
        api_key=KEY,
        project_id=PROJECT,
        log_stream_id=LOG_STREAM,
        api_key_header="Splunk-AO-API-Key",
        name="splunk_ao",
        backend="splunk_ao",
    ),
    patch=patch,
    know=know,
    reports_missing=True,
    path=rf"/v2/projects/{ID}/spans/{ID}",
)
