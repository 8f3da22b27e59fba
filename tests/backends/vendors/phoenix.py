"""A double of Phoenix 20.26.1, and its bad habits.

A success of an export says nothing of storage; a span that comes again changes nothing; an annotation is replaced
whole; with `sync=true` an unknown id refuses the whole request, without it everything is a success.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.backends.vendors.case import Case
from tests.backends.vendors.server import KEY, Double, Request, Response

from otel_metadata.backends.phoenix.patches import PhoenixPatchExporter
from otel_metadata.model.evaluation import Evaluation
from otel_metadata.model.merge import FieldName, Json
from otel_metadata.model.patch import Patch
from otel_metadata.model.span_ref import SpanRef

_KINDS = {"LLM", "CODE", "HUMAN"}
_PARTS: Mapping[str, tuple[type, ...]] = {"label": (str,), "explanation": (str,), "score": (int, float)}


class PhoenixDouble(Double):
    """Phoenix without its disk.

    Attributes:
        spans: What is stored, by span id: attributes with `metadata` taken apart, trace id, project.
        accepted: Spans that were acknowledged and are not stored yet, while `is_slow`.
        annotations: By level, then by (target, name, identifier).
    """

    def __init__(self, key: str | None = KEY) -> None:
        self.key = key
        self.is_slow = False
        self.spans: dict[str, dict[str, Any]] = {}
        self.accepted: list[dict[str, Any]] = []
        self.annotations: dict[str, dict[tuple[str, str, str], dict[str, Any]]] = {"span": {}, "trace": {}}
        super().__init__()

    def know(self, ref: SpanRef) -> None:
        """Store a span, as after the export of it."""
        ids = {"span_id": ref.span_id_hex, "trace_id": ref.trace_id_hex}
        self._store([{**ids, "attributes": {}, "project": "default"}])

    def store(self) -> None:
        """Store what was acknowledged."""
        with self.lock:
            self._store(self.accepted)
            self.accepted = []

    def of(self, level: str, target: str) -> dict[tuple[str, str], dict[str, Any]]:
        """Return the annotations of a span or trace, by name and identifier."""
        return {key[1:]: row for key, row in self.annotations[level].items() if key[0] == target}

    def late_metadata(self, target: str, level: str = "span") -> dict[str, Any]:
        """Return the late metadata of a span or trace, as its reader puts it together."""
        rows = [row for (name, _), row in self.of(level, target).items() if name == "otel_metadata"]
        return {key: value for row in rows for key, value in row["metadata"].items()}

    def answer(self, request: Request) -> Response:
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            return Response(401, "Invalid token")
        if request.path == "/v1/traces":
            return self._traces(request)
        route = re.fullmatch(r"/v1/(span|trace)_(annotations|notes)", request.path)
        if route is None:
            return Response(404, "Not Found")
        if request.method != "POST":
            return Response(405, {"detail": "Method Not Allowed"}, {"Allow": "POST"})
        level, what = route.groups()
        if what == "notes":
            return self._note(level, request.json["data"])
        return self._annotate(level, request.json["data"], is_sync=request.query.get("sync") == "true")

    def _traces(self, request: Request) -> Response:
        if request.headers.get("content-type") != "application/x-protobuf":
            return Response(415, "Unsupported content type")
        body = gzip.decompress(request.body) if "content-encoding" in request.headers else request.body
        try:
            message = ExportTraceServiceRequest.FromString(body)
        except DecodeError:
            return Response(422, "Request body is invalid ExportTraceServiceRequest")
        project = request.headers.get("x-project-name", "default")
        for resource in message.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.accepted.append(
                        {
                            "span_id": span.span_id.hex(),
                            "trace_id": span.trace_id.hex(),
                            "attributes": flattened({one.key: _plain(one.value) for one in span.attributes}),
                            "project": project,
                        }
                    )
        if not self.is_slow:
            self._store(self.accepted)
            self.accepted = []
        return Response(200, b"", {"Content-Type": "application/x-protobuf"})

    def _store(self, spans: list[dict[str, Any]]) -> None:
        for span in spans:
            # The first wins; an existing trace keeps its project.
            same = (one["project"] for one in self.spans.values() if one["trace_id"] == span["trace_id"])
            self.spans.setdefault(span["span_id"], {**span, "project": next(same, span["project"])})

    def _known(self, level: str) -> set[str]:
        return {span[f"{level}_id"] for span in self.spans.values()}

    def _annotate(self, level: str, rows: list[dict[str, Any]], *, is_sync: bool) -> Response:
        faults = [
            {"type": kind, "loc": ["body", "data", place, *path], "msg": "no", "input": row}
            for place, row in enumerate(rows)
            for kind, path in _faults(row)
        ]
        if faults:
            return Response(422, {"detail": faults})
        if any(row["name"] == "note" for row in rows):
            return Response(400, "The name 'note' is reserved for trace and span notes.")
        if not is_sync:
            return Response(200, {"data": []})
        unknown = {row[f"{level}_id"] for row in rows} - self._known(level)
        if unknown:
            return Response(404, f"{level.capitalize()}s with IDs {', '.join(unknown)} do not exist.")
        for row in rows:
            kept = {"result": row.get("result"), "metadata": row.get("metadata") or {}, "kind": row["annotator_kind"]}
            self.annotations[level][row[f"{level}_id"], row["name"], row.get("identifier", "")] = kept
        return Response(200, {"data": [{"id": f"QQ=={place}"} for place, _ in enumerate(rows)]})

    def _note(self, level: str, note: dict[str, Any]) -> Response:
        if not note["note"].strip():
            return Response(422, {"detail": [{"type": "string_too_short", "loc": ["body", "data", "note"]}]})
        target = note[f"{level}_id"]
        if target not in self._known(level):
            return Response(404, f"{level.capitalize()} with ID {target} not found")
        result = {"label": None, "score": None, "explanation": note["note"].strip()}
        kept = {"result": result, "metadata": {}, "kind": "HUMAN"}
        # Without an identifier every call is another note.
        identifier = note.get("identifier") or f"px-{level}-note:{len(self.annotations[level])}"
        self.annotations[level][target, "note", identifier] = kept
        return Response(200, {"data": {"id": "QQ=="}})


def _faults(row: dict[str, Any]) -> list[tuple[str, list[str]]]:
    faults = []
    if row.get("annotator_kind") not in _KINDS:
        faults.append(("literal_error", ["annotator_kind"]))
    if not isinstance(row.get("metadata") or {}, dict):
        faults.append(("dict_type", ["metadata"]))
    for part, kinds in _PARTS.items():
        value = (row.get("result") or {}).get(part)
        if value is not None and not isinstance(value, kinds):
            faults.append((f"{part}_type", ["result", part]))
    return faults


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_plain(one) for one in value.array_value.values]
    return getattr(value, kind) if kind is not None else None


def flattened(attributes: dict[str, Any]) -> dict[str, Any]:
    """Take `metadata` apart as Phoenix does: dotted keys, without nulls and empty objects."""
    try:
        metadata = json.loads(attributes.get("metadata", ""))
    except ValueError:
        return attributes
    flat: dict[str, Any] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                add(f"{name}.{key}", item)
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            for place, item in enumerate(value):
                if isinstance(item, dict):
                    add(f"{name}.{place}", item)
        elif value is not None:
            flat[name] = value

    add("metadata", metadata)
    return {**flat, **{name: value for name, value in attributes.items() if name != "metadata"}}


def patch(number: int, **metadata: Json) -> Patch:
    """A patch of metadata and an evaluation for the span with this number."""
    fields: dict[FieldName, tuple[Json, tuple[int, int]]] = {
        ("span", "metadata", key): (value, (number * 10 + place, 7))
        for place, (key, value) in enumerate((metadata or {"k": "v", "none": None}).items())
    }
    fields["span", "evaluation", "Correctness"] = (Evaluation("Correctness", 0.5).to_json(), (number * 10 + 9, 7))
    return Patch(SpanRef(number, number), fields)


CASE = Case(
    name="phoenix",
    double=PhoenixDouble,
    exporter=lambda url: PhoenixPatchExporter(url, headers={"authorization": f"Bearer {KEY}"}),
    patch=patch,
    know=lambda double, patch: double.know(patch.target),
    reports_missing=True,
    path=r"/v1/(span|trace)_(annotations|notes)",
)
