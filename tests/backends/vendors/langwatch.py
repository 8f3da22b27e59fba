"""A LangWatch on loopback, with both folds: what its server does, and what its documentation says."""

from __future__ import annotations

import base64
import gzip
import json
import math
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.backends.vendors.case import Case
from tests.backends.vendors.server import KEY, Double, Request, Response

from otel_metadata.backends.langwatch.patches import LangWatchPatchExporter
from otel_metadata.model.patch import Patch
from otel_metadata.model.span_ref import SpanRef

MAX_SPANS = 512
RESERVED = {"user_id": "langwatch.user.id", "thread_id": "langwatch.thread.id", "customer_id": "langwatch.customer.id"}
IDS = {
    "user_id": ("langwatch.user.id", "user.id"),
    "thread_id": ("gen_ai.conversation.id", "langwatch.thread.id", "session.id"),
    "customer_id": ("langwatch.customer.id",),
}
CAMEL = {"user_id": "userId", "thread_id": "threadId", "customer_id": "customerId"}
BLOBS = ("metadata", "langwatch.metadata", "langwatch.trace")
PREFIXES = ("metadata.", "langwatch.metadata.", "langwatch.trace.")


@dataclass
class Span:
    """One that was taken over, whoever made it."""

    id: str
    parent: str
    name: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    resource: dict[str, Any] = field(default_factory=dict)
    evaluations: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Trace:
    """What the spans of a trace were folded into."""

    name: str | None = None
    start_ns: int = 0
    end_ns: int = 0
    spans: list[Span] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    evaluations: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    annotations: list[dict[str, Any]] = field(default_factory=list)


class LangWatch(Double):
    """The double.

    Attributes:
        fold: `server`: the first value of a key stands. `docs`: the last one does.
        read_only: Whether the key may not write.
        traces: By trace id.
        now_ns: What its clock says: it is the time of the span that a PATCH makes.
    """

    def __init__(self, fold: str = "server", *, read_only: bool = False) -> None:
        self.fold = fold
        self.read_only = read_only
        self.traces: dict[str, Trace] = {}
        self.now_ns = 1_800_000_000_000_000_000
        self._seen: set[tuple[str, str]] = set()
        self._bodies: dict[str, set[bytes]] = {}
        self._count = 0
        super().__init__()

    def metadata(self, trace_id: str) -> dict[str, Any]:
        """What is shown of a trace."""
        return self.traces[trace_id].metadata if trace_id in self.traces else {}

    def answer(self, request: Request) -> Response:
        refused = self._authorised(request)
        if refused is not None:
            return refused
        if self.read_only and request.method != "GET":
            return Response(403, {"error": "api_key_permission_denied", "message": "needs traces:update"})
        if (request.method, request.path) == ("POST", "/api/otel/v1/traces"):
            return self._otlp(request)
        match request.method, request.path.strip("/").split("/"):
            case "PATCH", ["api", "traces", trace_id, "metadata"]:
                return self._patch(trace_id, request)
            case "GET", ["api", "traces", trace_id]:
                return self._get(trace_id)
            case "POST", ["api", "collector"]:
                return self._collector(request)
            case "POST", ["api", "events", "track"] | ["api", "track_event"]:
                return self._track(request.json)
            case method, ["api", "annotations", "trace", trace_id]:
                return self._annotations(method, trace_id, request.json)
            case method, ["api", "annotations", identifier]:
                return self._annotation(method, identifier, request.json)
        return Response(404, {"error": "Not found"})

    def _authorised(self, request: Request) -> Response | None:
        given = request.headers.get("authorization", "")
        if given.startswith("Basic "):
            token = base64.b64decode(given.removeprefix("Basic ")).decode().partition(":")[2]
        elif given.startswith("Bearer "):
            token = given.removeprefix("Bearer ")
        else:
            token = request.headers.get("x-auth-token", "")
        return None if token == KEY else Response(401, {"error": "Unauthorized"})

    # --- spans ------------------------------------------------------------------------------------------------------

    def _otlp(self, request: Request) -> Response:
        body = request.body
        if request.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        message = ExportTraceServiceRequest()
        try:
            if request.headers.get("content-type") == "application/json":
                json_format.Parse(body, message)
            else:
                message.ParseFromString(body)
        except Exception:
            return Response(400, {"error": "Failed to parse traces"})
        for group in message.resource_spans:
            resource = {one.key: any_value(one.value) for one in group.resource.attributes}
            for scope in group.scope_spans:
                for span in scope.spans:
                    attributes = {one.key: any_value(one.value) for one in span.attributes}
                    times = span.start_time_unix_nano, span.end_time_unix_nano
                    judged = [
                        json.loads(one.value.string_value)
                        for event in span.events
                        if event.name == "langwatch.evaluation.custom"
                        for one in event.attributes
                        if one.key == "json_encoded_event"
                    ]
                    ids = span.span_id.hex(), span.parent_span_id.hex()
                    taken = Span(*ids, span.name, *times, attributes, resource, judged)
                    self.take(span.trace_id.hex(), taken)
        said = {"message": "Trace received successfully.", "partialSuccess": {"rejectedSpans": 0, "errorMessage": ""}}
        return Response(200, said, {"content-type": "application/json"})

    def take(self, trace_id: str, span: Span) -> None:
        if (trace_id, span.id) in self._seen:
            return
        self._seen.add((trace_id, span.id))
        trace = self.traces.setdefault(trace_id, Trace())
        trace.start_ns = min(trace.start_ns or span.start_ns, span.start_ns)
        trace.end_ns = max(trace.end_ns, span.end_ns)
        trace.spans.append(span)
        self.judge(trace, span.evaluations)
        if not span.parent and trace.name is None:
            trace.name = span.name
        if len(trace.spans) > MAX_SPANS:
            return
        new = extracted(span) if self.fold == "server" else as_documented(span)
        trace.metadata = folded(trace.metadata, new) if self.fold == "server" else {**trace.metadata, **new}

    @staticmethod
    def judge(trace: Trace, evaluations: list[dict[str, Any]]) -> None:
        for one in evaluations:
            # Of what was sent it keeps these, one of an id.
            kept = {key: one.get(key) for key in ("evaluation_id", "name", "score", "passed", "label", "details")}
            trace.evaluations[one.get("evaluation_id") or stringify(one)] = kept

    # --- the API ----------------------------------------------------------------------------------------------------

    def _patch(self, trace_id: str, request: Request) -> Response:
        try:
            body = request.json
        except ValueError:
            return Response(400, {"error": "malformed_request"})
        metadata = body.get("metadata") if isinstance(body, dict) else None
        bad = (
            [f"metadata.{key}" for key, value in metadata.items() if not is_value(value)] if metadata else ["metadata"]
        )
        if not bad and utf16(stringify(metadata)) > 32_768:
            bad = ["metadata"]
        if bad:
            return Response(422, {"error": "validation_error", "fields": bad, "reasons": [{"code": "schema_failure"}]})
        resource: dict[str, Any] = {}
        for key, value in metadata.items():
            if key in RESERVED:
                resource |= {RESERVED[key]: value} if value else {}
            elif key == "labels":
                resource |= {"langwatch.labels": stringify(value)} if value else {}
            else:
                is_scalar = isinstance(value, str | bool | int | float)
                resource[f"langwatch.metadata.{key}"] = value if is_scalar else stringify(value)
        self._count += 1
        attributes = {"langwatch.span.type": "span"}
        name = "langwatch.metadata_update"
        self.take(trace_id, Span(f"{self._count:016x}", "", name, self.now_ns, self.now_ns, attributes, resource))
        return Response(200, {"traceId": trace_id})

    def _get(self, trace_id: str) -> Response:
        trace = self.traces.get(trace_id)
        if trace is None:
            return Response(404, {"message": "Trace not found."})
        return Response(
            200,
            {
                "trace_id": trace_id,
                "metadata": trace.metadata,
                "evaluations": list(trace.evaluations.values()),
                "events": list(trace.events.values()),
                "spans": [{"span_id": one.id, "name": one.name, "params": one.attributes} for one in trace.spans],
            },
        )

    def _collector(self, request: Request) -> Response:
        body = request.json
        for one in body.get("evaluations") or []:
            if one.get("passed") is None and one.get("score") is None and one.get("label") is None:
                return Response(400, {"error": "Either `passed`, `score` or `label` field must be defined"})
            if any(len(str(at)) != 13 for at in (one.get("timestamps") or {}).values()):
                return Response(400, {"error": "Evaluation timestamps should be in milliseconds"})
        partial = {"rejectedSpans": 0, "dedupedSpans": 0, "errorMessage": ""}
        bodies = self._bodies.setdefault(body["trace_id"], set())
        if request.body in bodies:
            return Response(200, {"message": "No changes", "partialSuccess": partial})
        bodies.add(request.body)
        trace = self.traces.setdefault(body["trace_id"], Trace())
        self.judge(trace, body.get("evaluations") or [])
        return Response(200, {"message": "Trace received successfully.", "partialSuccess": partial})

    def _track(self, body: Any) -> Response:
        metrics, details = body.get("metrics"), body.get("event_details", {})
        is_valid = (
            isinstance(body.get("trace_id"), str)
            and isinstance(body.get("event_type"), str)
            and isinstance(metrics, dict)
            and all(isinstance(one, int | float) and not isinstance(one, bool) for one in metrics.values())
            and all(one is None or isinstance(one, str) for one in details.values())
        )
        if is_valid and body["event_type"] == "thumbs_up_down":
            is_valid = -1 <= metrics.get("vote", math.inf) <= 1
        if not is_valid:
            return Response(400, {"error": "Validation error"})
        self._count += 1
        events = self.traces.setdefault(body["trace_id"], Trace()).events
        events.setdefault(body.get("event_id") or f"event-{self._count}", body)
        return Response(200, {"message": "Event tracked"})

    def _annotations(self, method: str, trace_id: str, body: Any) -> Response:
        rows = self.traces.setdefault(trace_id, Trace()).annotations
        if method == "GET":
            return Response(200, {"data": rows})
        refused = self._refused_annotation(body)
        if refused is not None:
            return refused
        self._count += 1
        rows.append({"id": f"note-{self._count}", "traceId": trace_id, "userId": None, **body})
        return Response(200, {"data": rows[-1]})

    def _annotation(self, method: str, identifier: str, body: Any) -> Response:
        rows = [row for trace in self.traces.values() for row in trace.annotations if row["id"] == identifier]
        if method != "PATCH":
            return Response(404, {"status": "error", "message": "Annotation not found."})
        refused = self._refused_annotation(body)
        if refused is not None:
            return refused
        if not rows:
            return Response(500, {"status": "error", "message": "Not found"})
        rows[0].update(body)
        return Response(200, {"data": rows[0]})

    @staticmethod
    def _refused_annotation(body: Any) -> Response | None:
        if not isinstance(body.get("comment"), str) or not body["comment"]:
            return Response(400, {"status": "error", "message": "[comment] is required"})
        if not isinstance(body.get("isThumbsUp"), bool):
            return Response(400, {"status": "error", "message": "[isThumbsUp] is required"})
        return None


def extracted(span: Span) -> dict[str, Any]:
    """What the server reads of one span: texts all of it, but for the labels."""
    found: dict[str, Any] = {}
    for key, raw in span.resource.items():
        value = parsed(raw)
        # A zero is taken for nothing; what was parsed is no scalar any more.
        if isinstance(value, dict | list) or (value == 0 and not isinstance(value, bool)):
            continue
        if key.startswith(("service.", "telemetry.")):
            continue
        found[key.removeprefix("langwatch.metadata.")] = shown(value)
    attributes = {key: parsed(value) for key, value in span.attributes.items()}
    blob = next((attributes[name] for name in BLOBS if name in attributes), None)
    if isinstance(blob, dict):
        hoisted = {key: shown(value) for key, value in blob.items() if value is not None}
        found |= {key: value for key, value in hoisted.items() if key not in {*RESERVED, *CAMEL.values(), "labels"}}
    elif blob is not None:
        found["_raw"] = shown(blob)
        blob = {}
    for key, value in attributes.items():
        prefix = next((one for one in PREFIXES if key.startswith(one)), None)
        if prefix is not None:
            found[key.removeprefix(prefix)] = shown(value)
    found |= ids(span, blob or {})
    labels = parsed(span.resource.get("langwatch.labels")) or attributes.get("langwatch.labels")
    labels = labels or (blob or {}).get("labels") or []
    tags = attributes.get("tag.tags") or []
    tags = tags.split(",") if isinstance(tags, str) else tags
    joined = [*dict.fromkeys([*(labels if isinstance(labels, list) else []), *tags])]
    return found | ({"labels": joined} if joined else {})


def folded(state: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The server's fold: first wins, labels are a union, objects merge on their first level."""
    result = {**new, **state}
    if "labels" in result:
        result["labels"] = [*dict.fromkeys([*state.get("labels", []), *new.get("labels", [])])]
    for key in (state.keys() & new.keys()) - {"labels"}:
        before, after = parsed(state[key]), parsed(new[key])
        if isinstance(before, dict) and isinstance(after, dict):
            result[key] = stringify({**after, **before})
    return result


def as_documented(span: Span) -> dict[str, Any]:
    """What the documentation says of one span: values as they are."""
    found: dict[str, Any] = {}
    for key, value in span.resource.items():
        if key.startswith("langwatch.metadata."):
            found[key.removeprefix("langwatch.metadata.")] = parsed(value)
    blob = parsed(span.attributes.get("metadata"))
    blob = blob if isinstance(blob, dict) else {}
    found |= {key: value for key, value in blob.items() if key not in RESERVED}
    found |= ids(span, blob)
    labels = parsed(span.resource.get("langwatch.labels")) or span.attributes.get("langwatch.labels")
    return found | ({"labels": labels} if labels else {})


def ids(span: Span, blob: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, names in IDS.items():
        given = [span.attributes.get(name) for name in names] + [span.resource.get(name) for name in names]
        given += [blob.get(key), blob.get(CAMEL[key])]
        texts = [one for one in given if isinstance(one, str) and one and not isinstance(parsed(one), dict | list)]
        if texts:
            found[key] = texts[0]
    return found


def any_value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [any_value(one) for one in value.array_value.values]
    return getattr(value, kind) if kind else None


def parsed(value: Any) -> Any:
    """As the server reads every text: one in braces or brackets is parsed."""
    trimmed = value.strip() if isinstance(value, str) else ""
    if trimmed[:1] + trimmed[-1:] not in ("{}", "[]") or len(trimmed) < 2:
        return value
    try:
        return json.loads(trimmed)
    except ValueError:
        return value


def shown(value: Any) -> str:
    return value if isinstance(value, str) else stringify(value)


def stringify(value: Any) -> str:
    """JSON as JavaScript writes it: compact, nothing escaped that need not be, no `.0`."""
    return json.dumps(whole(value), ensure_ascii=False, separators=(",", ":"))


def whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: whole(one) for key, one in value.items()}
    return [whole(one) for one in value] if isinstance(value, list) else value


def utf16(text: str) -> int:
    return sum(1 + (ord(one) > 0xFFFF) for one in text)


def is_value(value: Any) -> bool:
    """The server's schema of one value."""
    if isinstance(value, str):
        return utf16(value) <= 4_096
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, list):
        return all(isinstance(one, str) for one in value)
    return isinstance(value, bool | int | dict)


def exporter(url: str, **options: Any) -> LangWatchPatchExporter:
    headers = {"Authorization": f"Bearer {KEY}", "X-Auth-Token": KEY}
    return LangWatchPatchExporter(url, headers=headers, **options)


def patch(number: int) -> Patch:
    version = (1_700_000_000_000_000_000 + number, 7)
    return Patch(SpanRef(0xABC0 + number, number), {("trace", "metadata", "k"): (f"v{number}", version)})


CASE = Case(
    name="langwatch",
    double=LangWatch,
    exporter=exporter,
    patch=patch,
    know=lambda double, patch: None,  # it takes whatever trace id
    reports_missing=False,
    path=r"/api/traces/[0-9a-f]{32}/metadata",
)
