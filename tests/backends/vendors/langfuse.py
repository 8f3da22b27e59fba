"""A Langfuse server as far as spans, scores, comments and updates go, with the habits that a client must know.

Modelled on server 4.16 and its documentation. Not modelled: how long a read lags behind a write, the cut of values in
list views, rate limits.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.backends.vendors.case import Case
from tests.backends.vendors.server import KEY, Double, Request, Response

from otel_metadata.backends.langfuse.patches import LangfusePatchExporter
from otel_metadata.model.patch import Patch
from otel_metadata.model.span_ref import SpanRef

PUBLIC_KEY = "pk-lf-1234567890"
PROJECT = "project-1"

Mode = Literal["events_only", "dual", "legacy"]

_EVENT_TYPES = {
    "trace-create",
    *(f"{kind}-{verb}" for kind in ("span", "generation") for verb in ("create", "update")),
    *(f"{kind}-create" for kind in ("event", "agent", "tool", "chain", "retriever", "evaluator", "embedding")),
}
_WITH_OFFSET = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_MAX_SCORE_BYTES = 1024 * 1024
_MAX_INGESTION_BYTES = 4_500_000


@dataclass
class Row:
    """An observation as it is stored: one of perhaps several rows of one id."""

    id: str
    trace_id: str
    parent_id: str | None
    name: str
    type: str
    start: str
    scope: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    trace_metadata: dict[str, Any] = field(default_factory=dict)
    user: str | None = None
    session: str | None = None
    tags: list[str] = field(default_factory=list)
    input: Any = None
    output: Any = None
    level: str = "DEFAULT"
    status_message: str | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes two rows one, in the end."""
        return self.type, self.start[:10], self.id


class LangfuseDouble(Double):
    """One project.

    Attributes:
        mode: The server's write mode; only the version tells a client, and not reliably.
        version: What its health says.
        lists: Whether scores are taken alone, as a list, or either way.
        skips_read: Whether an update replaces the row instead of being merged with it (some projects).
        rows: Observations, in the order of their arrival.
        traces: What `trace-create` wrote.
        scores: By id, name and day.
    """

    def __init__(
        self,
        mode: Mode = "events_only",
        *,
        version: str | None = None,
        lists: Literal["never", "always", "both"] = "both",
        skips_read: bool = False,
    ) -> None:
        self.mode = mode
        self.version = version or ("3.150.0" if mode == "legacy" else "4.16.0")
        self.lists = lists
        self.skips_read = skips_read
        self.rows: list[Row] = []
        self.traces: dict[str, dict[str, Any]] = {}
        self.scores: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.comments: list[dict[str, Any]] = []
        super().__init__()

    # --- what a user sees --------------------------------------------------------------------------------------------

    def observation(self, span_id: str) -> Row:
        """The row that the trace view shows: the newest of that id."""
        return next(row for row in reversed(self.rows) if row.id == span_id)

    def trace(self, trace_id: str) -> dict[str, Any]:
        """The trace: from version 4 on what the newest row without a parent says."""
        rows = [row for row in self.rows if row.trace_id == trace_id]
        roots = [row for row in rows if row.parent_id is None]
        shown: dict[str, Any] = {
            "metadata": roots[-1].trace_metadata if roots else {},
            "name": roots[-1].name if roots else None,
            "input": roots[-1].input if roots else None,
            "userId": next((row.user for row in reversed(rows) if row.user), None),
            "sessionId": next((row.session for row in reversed(rows) if row.session), None),
            "tags": next((row.tags for row in reversed(rows) if row.tags), []),
        }
        if self.mode == "legacy":
            for row in rows:
                shown["metadata"] = {**shown["metadata"], **row.trace_metadata}
            written = dict(self.traces.get(trace_id, {}))
            shown["metadata"] = {**shown["metadata"], **written.pop("metadata", {})}
            shown["tags"] = sorted({*(tag for row in rows for tag in row.tags), *written.pop("tags", [])})
            shown.update({key: value for key, value in written.items() if value is not None})
        return shown

    def duplicates(self) -> list[str]:
        """Ids of which there is more than one row: they are never merged, and counted twice."""
        ids = [row.id for row in self.rows]
        return sorted({one for one in ids if ids.count(one) > 1})

    def scores_of(self, trace_id: str, span_id: str | None = None) -> dict[str, dict[str, Any]]:
        """Scores of an observation, or of a trace alone, by name; one that is there twice is an error."""
        found = [
            one for one in self.scores.values() if (one["traceId"], one.get("observationId")) == (trace_id, span_id)
        ]
        by_name = {one["name"]: one for one in found}
        assert len(by_name) == len(found), "a score is there twice"
        return by_name

    # --- requests ----------------------------------------------------------------------------------------------------

    def answer(self, request: Request) -> Response:
        path = request.path.removeprefix("/api/public")
        if path == "/health":
            return Response(200, {"status": "OK", "version": self.version})
        expected = base64.b64encode(f"{PUBLIC_KEY}:{KEY}".encode()).decode()
        if request.headers.get("authorization") != f"Basic {expected}":
            return Response(401, {"message": f"Invalid credentials {request.headers.get('authorization')}"})
        if path == "/otel/v1/traces":
            return self._otlp(request)
        if request.method == "POST" and path == "/scores":
            return self._scores(request)
        if request.method == "POST" and path == "/ingestion":
            return self._ingestion(request)
        if path == "/comments":
            return self._comments(request)
        if path == "/projects":
            return Response(
                200, {"data": [{"id": PROJECT, "name": "p", "organization": {"id": "o", "name": "o"}, "metadata": {}}]}
            )
        if request.method == "GET" and not (self.mode == "events_only" and self.version.startswith("4.")):
            return self._read(path)
        return Response(404, {"message": "not found", "error": "LangfuseNotFoundError"})

    def _otlp(self, request: Request) -> Response:
        version = request.headers.get("x-langfuse-ingestion-version", "4")
        if not version.isdigit() or int(version) > 4:
            return Response(400, {"message": "unsupported ingestion version"})
        body = gzip.decompress(request.body) if request.headers.get("content-encoding") == "gzip" else request.body
        export = ExportTraceServiceRequest()
        if request.headers.get("content-type", "").startswith("application/json"):
            json_format.Parse(body, export)
        else:
            export.ParseFromString(body)
        spans = [
            (scope.scope.name, span)
            for resource in export.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        if any(not any(span.trace_id) or not any(span.span_id) for _, span in spans):
            return Response(400, {"message": "a span without ids"})
        for scope_name, span in spans:
            row = _row(scope_name, span)
            if self.mode == "legacy":
                self.rows = [one for one in self.rows if one.key != row.key]
            self.rows.append(row)
        return Response(200, {}, {"Content-Type": "application/json"})

    def _scores(self, request: Request) -> Response:
        if len(request.body) > _MAX_SCORE_BYTES:
            return Response(413, {"message": "too large"})
        body = request.json
        if isinstance(body, list) != (self.lists == "always") and (self.lists != "both"):
            return Response(400, {"message": "Invalid request data"})
        errors = [error for error in map(_score_error, body if isinstance(body, list) else [body]) if error]
        if not isinstance(body, list):
            if errors:
                return Response(400, {"message": errors[0]})
            self._store_score(body)
            return Response(200, {"id": body["id"]})
        for one in body:
            if _score_error(one) is None:
                self._store_score(one)
        if errors:
            said = [{"message": one} for one in errors]
            return Response(207, {"accepted": len(body) - len(errors), "rejected": len(errors), "errors": said})
        return Response(202, {"message": "Accepted"})

    def _store_score(self, score: dict[str, Any]) -> None:
        self.scores[score["id"], score["name"], score["timestamp"][:10]] = score

    def _comments(self, request: Request) -> Response:
        place = request.query if request.method == "GET" else request.json
        key = {name: place.get(name) for name in ("objectType", "objectId")}
        known = {row.trace_id for row in self.rows} if key["objectType"] == "TRACE" else {row.id for row in self.rows}
        there = [one for one in self.comments if {name: one[name] for name in key} == key]
        if request.method == "GET":
            return Response(
                200, {"data": there, "meta": {"page": 1, "limit": 50, "totalItems": len(there), "totalPages": 1}}
            )
        if key["objectId"] not in known:
            return Response(404, {"message": "Reference object not found"})
        if place["projectId"] != PROJECT or not 1 <= len(place["content"]) <= 5_000:
            return Response(400, {"message": "Invalid request data"})
        at = "2026-11-20T12:00:00Z"
        self.comments.append({"id": f"c{len(self.comments)}", "createdAt": at, "updatedAt": at, **place})
        return Response(200, {"id": self.comments[-1]["id"]})

    def _read(self, path: str) -> Response:
        kind, _, name = path.removeprefix("/").partition("/")
        if kind == "traces" and any(row.trace_id == name for row in self.rows):
            return Response(200, {"id": name})
        row = next((row for row in reversed(self.rows) if row.id == name), None) if kind == "observations" else None
        if row is None:
            return Response(404, {"message": f"Observation {name} not found", "error": "LangfuseNotFoundError"})
        found = {
            "id": row.id,
            "traceId": row.trace_id,
            "parentObservationId": row.parent_id,
            "type": row.type,
            "name": row.name,
            "startTime": row.start,
            "metadata": row.metadata,
            "input": row.input,
            "output": row.output,
            "level": row.level,
            "statusMessage": row.status_message,
        }
        return Response(200, found)

    def _ingestion(self, request: Request) -> Response:
        if len(request.body) > _MAX_INGESTION_BYTES:
            return Response(413, {"message": "too large"})
        batch = request.json.get("batch") if isinstance(request.json, dict) else None
        if not isinstance(batch, list):
            return Response(400, {"message": "Invalid request data"})
        successes: list[dict[str, Any]] = []
        errors: list[dict[str, Any]] = []
        for event in batch:
            message = self._event_error(event)
            if message is None:
                self._apply(event)
                successes.append({"id": event["id"], "status": 201})
            else:
                errors.append({"id": event.get("id"), "status": 400, "message": message, "error": "Invalid"})
        return Response(207, {"successes": successes, "errors": errors})

    def _event_error(self, event: dict[str, Any]) -> str | None:
        if self.mode == "events_only" and event.get("type") not in {"score-create", "sdk-log"}:
            return "Event type not accepted"
        if event.get("type") not in _EVENT_TYPES or not re.fullmatch(r"[^\r]{1,800}", str(event.get("id"))):
            return "Invalid request data"
        if not _WITH_OFFSET.fullmatch(str(event.get("timestamp"))) or not event.get("body", {}).get("id"):
            return "Invalid request data"
        return None

    def _apply(self, event: dict[str, Any]) -> None:
        body = event["body"]
        if event["type"] == "trace-create":
            held = self.traces.setdefault(body["id"], {})
            metadata = {**held.get("metadata", {}), **body.get("metadata", {})}
            tags = sorted({*held.get("tags", []), *body.get("tags", [])})
            held.update({key: value for key, value in body.items() if value is not None})
            held.update(metadata=metadata, tags=tags)
            return
        # A row is found again by its type and day as well as by its id; else the update becomes a row of its own.
        start = body.get("startTime") or event["timestamp"]
        kind = event["type"].rpartition("-")[0].upper()
        row = Row(body["id"], body.get("traceId", ""), None, "", kind, start)
        place = next((at for at, one in enumerate(self.rows) if one.key == row.key), None)
        if place is None:
            self.rows.append(row)
        elif self.skips_read:
            self.rows[place] = row
        else:
            row = self.rows[place]
        row.metadata = {**row.metadata, **body.get("metadata", {})}
        names = {"parentObservationId": "parent_id", "statusMessage": "status_message"}
        for name in ("name", "input", "output", "level", "parentObservationId", "statusMessage"):
            if body.get(name) is not None:
                setattr(row, names.get(name, name), body[name])


def _score_error(score: Any) -> str | None:
    if not isinstance(score, dict) or not all(isinstance(score.get(name), str) for name in ("id", "name", "traceId")):
        return "Invalid request data"
    kind, value = score.get("dataType"), score.get("value")
    fits = {
        "NUMERIC": isinstance(value, int | float) and not isinstance(value, bool),
        "BOOLEAN": value in (0, 1) and not isinstance(value, bool),
        "CATEGORICAL": isinstance(value, str),
        "TEXT": isinstance(value, str) and 1 <= len(value) <= 500,
    }
    if not fits.get(str(kind), False) or not _WITH_OFFSET.fullmatch(score.get("timestamp", "")):
        return "Invalid request data"
    return None


def _row(scope: str, span: Any) -> Row:
    attributes = {item.key: _plain(item.value) for item in span.attributes}
    kind = str(attributes.get("langfuse.observation.type", "")).upper()
    if not kind:
        kind = "GENERATION" if any(name.startswith("gen_ai.") for name in attributes) else "SPAN"
    tags = attributes.get("langfuse.trace.tags", [])
    return Row(
        id=span.span_id.hex(),
        trace_id=span.trace_id.hex(),
        parent_id=span.parent_span_id.hex() or None,
        name=span.name,
        type=kind,
        start=datetime.fromtimestamp(span.start_time_unix_nano / 1e9).astimezone().isoformat(),
        scope=scope,
        metadata={
            **_metadata(attributes, "langfuse.observation.metadata"),
            "attributes": attributes,
            "scope": {"name": scope},
        },
        trace_metadata=_metadata(attributes, "langfuse.trace.metadata"),
        user=attributes.get("user.id"),
        session=attributes.get("session.id"),
        tags=tags if isinstance(tags, list) else [tags],
        input=attributes.get("langfuse.observation.input"),
        output=attributes.get("langfuse.observation.output"),
        level="ERROR" if span.status.code == 2 else "DEFAULT",
        status_message=span.status.message or None,
    )


def _metadata(attributes: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Every value is text, read as JSON where it is that; a bare attribute counts when it is a JSON object."""
    found: dict[str, Any] = {}
    bare = _read_as_json(attributes.get(prefix))
    if isinstance(bare, dict):
        found.update(bare)
    for name, value in attributes.items():
        if name.startswith(f"{prefix}.") and len(name) > len(prefix) + 1:
            found[name.removeprefix(f"{prefix}.")] = _read_as_json(value)
    return found


def _read_as_json(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError:
        return value


def _plain(value: Any) -> Any:
    which = value.WhichOneof("value")
    if which == "array_value":
        return [_plain(item) for item in value.array_value.values]
    return getattr(value, which) if which else None


def patch(number: int) -> Patch:
    """A patch of one key, for the span with a number."""
    return Patch(SpanRef(0xABC, number), {("span", "metadata", "k"): (number, (1_700_000_000_000_000_000 + number, 7))})


def know(double: LangfuseDouble, one: Patch) -> None:
    """Let the double have the span of a patch."""
    double.rows.append(
        Row(one.target.span_id_hex, one.target.trace_id_hex, None, "work", "SPAN", "2026-11-20T12:00:00Z")
    )


def exporter(url: str, name: str = "langfuse") -> LangfusePatchExporter:
    """An exporter with the keys of the double's project."""
    return LangfusePatchExporter(url, public_key=PUBLIC_KEY, secret_key=KEY, name=name)


CASE = Case(
    name="langfuse",
    double=LangfuseDouble,
    exporter=exporter,
    patch=patch,
    know=know,
    reports_missing=False,
    path=r"/api/public/(health|scores|otel/v1/traces)",
)
