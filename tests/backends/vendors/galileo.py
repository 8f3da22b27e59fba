"""A double of Galileo: UUIDs of its own, a schema without metadata, tags that only ever get more.

What the vendor does not document, and the double assumes: 404 for an unknown record, 422 where path and body disagree,
and the union of tags.
"""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from tests.backends.vendors.case import Case
from tests.backends.vendors.server import KEY, Double, Request, Response

from otel_metadata.backends.galileo.patches import GalileoPatchExporter
from otel_metadata.model.patch import Patch
from otel_metadata.model.span_ref import SpanRef

PROJECT = "11111111-1111-4111-8111-111111111111"
LOG_STREAM = "22222222-2222-4222-8222-222222222222"
# Unsigned, and valid until the year 2100: the vendor's SDK looks at the date, and at nothing else.
TOKEN = ".".join(
    base64.urlsafe_b64encode(part).decode().rstrip("=")
    for part in (b'{"alg":"HS256","typ":"JWT"}', b'{"sub":"a","exp":4102444800}', b"signature")
)
ID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_uuid4(value: Any) -> bool:
    try:
        return isinstance(value, str) and uuid.UUID(value).version == 4
    except ValueError:
        return False


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_tags(value: Any) -> bool:
    return isinstance(value, list) and all(_is_text(one) and len(one) <= 50 for one in value)


# Every field of an update but the id; null says that nothing changes.
SCHEMA: dict[str, Callable[[Any], bool]] = {
    "input": _is_text,
    "output": _is_text,
    "tags": _is_tags,
    "status_code": _is_count,
    "duration_ns": _is_count,
    "log_stream_id": _is_uuid4,
    "experiment_id": _is_uuid4,
    "metrics_testing_id": _is_uuid4,
    "client_version": _is_text,
    "logging_method": {"playground", "python_client", "typescript_client", "api_direct"}.__contains__,
    "reliable": lambda value: isinstance(value, bool),
}


@dataclass
class Stored:
    """A record.

    Attributes:
        attributes: Of OTLP; empty for one that came otherwise.
        user_metadata: Text to text, from ingestion alone.
    """

    attributes: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    tags: list[str] = field(default_factory=list)
    user_metadata: dict[str, str] = field(default_factory=dict)
    changed: dict[str, Any] = field(default_factory=dict)


class Galileo(Double):
    """Answers as Galileo does, as far as it is known.

    Attributes:
        stored: (`span` or `trace`, UUID) to the record.
        uuids: OpenTelemetry's id in hex to the UUID; no request of Galileo's tells it.
        ignored: Names that updates held and the schema does not have.
        projects: By name.
    """

    header = "galileo-api-key"
    tags = "tag.tags"

    def __init__(self) -> None:
        self.stored: dict[tuple[str, str], Stored] = {}
        self.uuids: dict[str, str] = {}
        self.ignored: list[str] = []
        self.projects = {"shop": PROJECT}
        self._made = 0
        super().__init__()

    def answer(self, request: Request) -> Response:
        path = request.path.removeprefix("/v2")
        if path == "/healthcheck":
            return Response(body={"message": "ok", "version": "1", "api_version": "1"})
        if path == "/login/api_key":
            return Response(body={"access_token": TOKEN, "token_type": "bearer"})
        if request.headers.get(self.header) != KEY and request.headers.get("authorization") != f"Bearer {TOKEN}":
            return Response(401, {"detail": "Invalid API key"})
        if path == "/current_user":
            return Response(body={"id": PROJECT, "email": "a@example.com", "role": "user"})
        if path == "/projects" and request.method == "GET":
            wanted = request.query.get("project_name", "")
            # It finds by a part of the name.
            return Response(body=[_project(name, one) for name, one in self.projects.items() if wanted in name])
        if path in {"/otel/traces", "/otel/v1/traces"}:
            return self._otlp(request)
        match = re.fullmatch(r"/projects/([^/]+)/(span|trace|session)s(?:/([^/]+))?", path)
        if match is None:
            return Response(404, {"detail": "Not Found"})
        project, record, identifier = match.groups()
        if not _is_uuid4(project):
            return _refused("uuid_parsing", "path", "project_id")
        if project not in self.projects.values():
            return Response(404, {"detail": "Project not found"})
        if identifier is None:
            return self._ingest(record, request)
        if not _is_uuid4(identifier):
            return _refused("uuid_parsing", "path", f"{record}_id")
        if request.method == "PATCH" and record != "session":
            return self._update(record, identifier, request.json)
        if request.method == "GET" and (stored := self.stored.get((record, identifier))) is not None:
            return Response(body={"id": identifier, **vars(stored)})
        return Response(404 if request.method == "GET" else 405, {"detail": "Method Not Allowed"})

    def _update(self, record: str, identifier: str, body: dict[str, Any]) -> Response:
        own = f"{record}_id"
        if not _is_uuid4(body.get(own)):
            return _refused("uuid_parsing" if own in body else "missing", "body", own)
        if body[own] != identifier:
            return _refused("value_error", "body", own)
        for name, fits in SCHEMA.items():
            if body.get(name) is not None and not fits(body[name]):
                return _refused("type_error", "body", name)
        self.ignored += [name for name in body if name not in SCHEMA and name not in {own, "is_complete"}]
        stored = self.stored.get((record, identifier))
        if stored is None and body.get("reliable"):
            return Response(404, {"detail": f"{record} not found"})
        if stored is not None:
            stored.tags += [tag for tag in body.get("tags") or [] if tag not in stored.tags]
            for name in ("input", "output", "status_code", "duration_ns"):
                if body.get(name) is not None:
                    stored.changed[name] = body[name]
        return Response(
            body={
                "project_id": PROJECT,
                "project_name": "shop",
                "session_id": None,
                "records_count": 1,
                own: identifier,
                "log_stream_id": body.get("log_stream_id"),
                "experiment_id": None,
                "metrics_testing_id": None,
            }
        )

    def _ingest(self, record: str, request: Request) -> Response:
        """Take records of the native API, whose ids the client may choose."""
        records = request.json.get(f"{record}s", [])
        for one in records:
            metadata = one.get("user_metadata", {})
            if not all(map(_is_text, metadata.values())):
                return _refused("string_type", "body", f"{record}s", "user_metadata")
            if not _is_uuid4(one.get("id")):
                return _refused("uuid_parsing", "body", f"{record}s", "id")
        for one in records:
            stored = Stored(name=one.get("name", ""), tags=list(one.get("tags", [])))
            stored.user_metadata = one.get("user_metadata", {})
            self.stored[record, one["id"]] = stored
        return Response(body={"project_id": PROJECT, "records_count": len(records)})

    def _otlp(self, request: Request) -> Response:
        if request.headers.get("content-type") != "application/x-protobuf":
            return Response(415, {"detail": "Unsupported media type"})
        if request.headers.get("project") not in self.projects and request.headers.get("projectid") != PROJECT:
            return Response(404, {"detail": "Project not found"})
        if not {"logstream", "logstreamid", "experimentid"} & request.headers.keys():
            return Response(422, {"detail": "A log stream is required"})
        spans = [
            span
            for resource_spans in ExportTraceServiceRequest.FromString(request.body).resource_spans
            for scope_spans in resource_spans.scope_spans
            for span in scope_spans.spans
        ]
        if not spans:
            return Response(422, {"detail": "No spans"})
        for span in spans:
            attributes = _attributes(span)
            self._take("span", span.span_id.hex(), Stored(attributes, span.name, list(attributes.get(self.tags, []))))
            self._take("trace", span.trace_id.hex(), Stored())
        return Response(body={"partialSuccess": {}}, headers={"Content-Type": "application/json"})

    def _take(self, record: str, otel_id: str, stored: Stored) -> None:
        """Store a record under an id of Galileo's own."""
        if otel_id not in self.uuids:
            self._made += 1
            self.uuids[otel_id] = f"00000000-0000-4000-a000-{self._made:012x}"
            self.stored[record, self.uuids[otel_id]] = stored

    def span(self, name: str) -> Stored:
        """Return the span of this name."""
        (found,) = (one for (record, _), one in self.stored.items() if record == "span" and one.name == name)
        return found

    def trace(self, trace_id: str) -> Stored:
        """Return the trace with OpenTelemetry's id."""
        return self.stored["trace", self.uuids[trace_id]]


def _attributes(span: Span) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        kind = value.WhichOneof("value")
        if kind == "array_value":
            return [plain(one) for one in value.array_value.values]
        return getattr(value, kind)

    return {one.key: plain(one.value) for one in span.attributes}


def _project(name: str, identifier: str) -> dict[str, Any]:
    """Return a project as it is listed, with all its runs: hundreds of them are more than we read."""
    user = {"id": PROJECT, "email": "a@example.com"}
    at = "2026-01-01T00:00:00Z"
    return {
        "id": identifier,
        "name": name,
        "type": "gen_ai",
        "created_by": PROJECT,
        "created_by_user": user,
        "created_at": at,
        "updated_at": at,
        "runs": [],
    }


def _refused(kind: str, *place: str) -> Response:
    # FastAPI repeats what was sent: no part of it may reach a message of ours.
    return Response(422, json.dumps({"detail": [{"loc": place, "msg": f"Input: {kind}", "type": kind, "input": KEY}]}))


def identifier(number: int) -> str:
    """Return the UUID of the record with a number."""
    return f"{number:08x}-0000-4000-8000-000000000000"


def patch(number: int) -> Patch:
    target = SpanRef(0xABC, number).with_backend_id("galileo", identifier(number))
    fields = {("span", "output", ""): ("bye", (number, 1)), ("span", "tag", "late"): (True, (number, 1))}
    return Patch(target, fields)  # type: ignore[arg-type] # literals


def know(double: Galileo, patch: Patch) -> None:
    double.stored["span", patch.target.backend_ids["galileo"]] = Stored()


CASE = Case(
    name="galileo",
    double=Galileo,
    exporter=lambda url: GalileoPatchExporter(url, api_key=KEY, project_id=PROJECT, log_stream_id=LOG_STREAM),
    patch=patch,
    know=know,
    reports_missing=True,
    path=rf"/v2/projects/{ID}/spans/{ID}",
)
