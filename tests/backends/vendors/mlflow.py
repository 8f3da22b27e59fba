"""An MLflow tracking server as MLflow 3.17.2 was measured, bad habits included.

`tests/servers/test_mlflow.py` sends the same requests to this and to the real server and compares the answers.
"""

from __future__ import annotations

import json
import posixpath
import re
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.backends.vendors.case import Case
from tests.backends.vendors.server import KEY, Double, Request, Response

from otel_metadata.backends.mlflow.patches import MlflowPatchExporter
from otel_metadata.model.patch import Patch
from otel_metadata.model.span_ref import SpanRef

TRACE = re.compile(r"/api/3\.0/mlflow/traces/(tr-[0-9a-f]{32})(?:/(tags|assessments)(?:/([^/]+))?)?")
TAG_PREFIX = "mlflow.traceTag."
IMMUTABLE = {"mlflow.trace.spansLocation", "mlflow.trace.archiveLocation", "mlflow.trace.archivalFailure"}
STATUS = {"INVALID_PARAMETER_VALUE": 400, "BAD_REQUEST": 400, "RESOURCE_DOES_NOT_EXIST": 404, "INTERNAL_ERROR": 500}


class RefusedError(Exception):
    """An error that MLflow answers with."""

    def __init__(self, code: str, message: str) -> None:
        self.response = Response(STATUS[code], {"error_code": code, "message": message, "sqlstate": "X"})


class MlflowDouble(Double):
    """Attributes: `traces` by id, each with `spans` by id, `tags`, `metadata` and `assessments` by id."""

    def __init__(self) -> None:
        self.traces: dict[str, dict[str, Any]] = {}
        super().__init__()

    def know(self, trace_id: int) -> dict[str, Any]:
        """Return a trace, made if need be."""
        empty: dict[str, Any] = {"spans": {}, "tags": {}, "metadata": {}, "assessments": {}}
        return self.traces.setdefault(f"tr-{trace_id:032x}", empty)

    def answer(self, request: Request) -> Response:
        if request.path == "/v1/traces":
            return self._spans(request)
        match = TRACE.fullmatch(request.path)
        if match is None:
            return Response(404, "<!doctype html>\n<title>404 Not Found</title>", {"Content-Type": "text/html"})
        trace_id, part, one = match.groups()
        try:
            if part is None:
                return Response(200, {"trace": {"trace_info": self._info(trace_id)}})
            if part == "tags":
                return self._tag(trace_id, request.json)
            return Response(200, self._assessments(request.method, trace_id, one, request.json))
        except RefusedError as refused:
            return refused.response

    # --- spans -------------------------------------------------------------------------------------------------------

    def _spans(self, request: Request) -> Response:
        if "x-mlflow-experiment-id" not in request.headers:
            return Response(422, {"detail": [{"type": "missing", "loc": ["header", "x-mlflow-experiment-id"]}]})
        pairs = [
            (group.resource, span)
            for group in ExportTraceServiceRequest.FromString(request.body).resource_spans
            for scope in group.scope_spans
            for span in scope.spans
        ]
        # All or nothing: one session or name that is too long costs everybody's spans.
        for _, span in pairs:
            attributes = _attributes(span.attributes)
            name = attributes.get(f"{TAG_PREFIX}mlflow.traceName", "") if not span.parent_span_id else ""
            if len(str(attributes.get("session.id", ""))) > 250 or len(name) > 4096:
                message = "'Session ID' exceeds the maximum length of 250 characters"
                return RefusedError("INVALID_PARAMETER_VALUE", message).response
        for resource, span in pairs:
            trace = self.know(int.from_bytes(span.trace_id, "big"))
            attributes = _attributes(span.attributes)
            # Whole, whatever was there.
            trace["spans"][span.span_id.hex()] = {"name": span.name, "attributes": attributes, "status": span.status}
            trace["tags"] |= {key: str(value) for key, value in _attributes(resource.attributes).items()}
            for attribute, key in (("session.id", "mlflow.trace.session"), ("user.id", "mlflow.trace.user")):
                if attributes.get(attribute):
                    trace["metadata"].setdefault(key, _unquoted(attributes[attribute])[:250])
            for key, value in attributes.items():
                tag = key.removeprefix(TAG_PREFIX)
                if tag != key and not span.parent_span_id and _is_tag_key(tag):
                    trace["tags"][tag] = _unquoted(value)[:4096]
        return Response(200, b"", {"Content-Type": "application/x-protobuf"})

    # --- traces ------------------------------------------------------------------------------------------------------

    def _info(self, trace_id: str) -> dict[str, Any]:
        trace = self._trace(trace_id)
        return {
            "trace_id": trace_id,
            "tags": trace["tags"],
            "trace_metadata": trace["metadata"],
            "assessments": [*trace["assessments"].values()],
        }

    def _trace(self, trace_id: str) -> dict[str, Any]:
        if trace_id not in self.traces:
            raise RefusedError("RESOURCE_DOES_NOT_EXIST", f"Trace with ID '{trace_id}' not found.")
        return self.traces[trace_id]

    def _tag(self, trace_id: str, body: Any) -> Response:
        key, value = body.get("key"), body.get("value", "")
        if not isinstance(value, str) or not key or not _is_tag_key(key) or key in IMMUTABLE:
            raise RefusedError("INVALID_PARAMETER_VALUE", f"Invalid value {key!r}")
        if key == "mlflow.traceName" and len(value) > 4096:
            raise RefusedError("INVALID_PARAMETER_VALUE", "'Trace name' exceeds the maximum length of 4096 characters")
        if trace_id not in self.traces:
            raise RefusedError(
                "BAD_REQUEST", f"(sqlite3.IntegrityError) FOREIGN KEY constraint failed [{key}, {value}]"
            )
        self.traces[trace_id]["tags"][key] = value[:4096]
        return Response(200, {})

    def _assessments(self, method: str, trace_id: str, one: str | None, body: Any) -> dict[str, Any]:
        if method == "DELETE":
            self.traces.get(trace_id, {"assessments": {}})["assessments"].pop(one, None)
            return {}
        if method == "POST":
            return {"assessment": self._create(trace_id, _read(body["assessment"]))}
        stored = self._trace(trace_id)["assessments"].get(one)
        if stored is None:
            raise RefusedError(
                "RESOURCE_DOES_NOT_EXIST", f"Assessment with ID '{one}' not found for trace '{trace_id}'"
            )
        if method == "PATCH":
            given = _read(body["assessment"])
            for part in body["update_mask"].split(","):
                stored[part] = {**stored.get(part, {}), **given[part]} if part == "metadata" else given[part]
        return {"assessment": stored}

    def _create(self, trace_id: str, given: dict[str, Any]) -> dict[str, Any]:
        if "feedback" not in given and "expectation" not in given:
            raise RefusedError("INVALID_PARAMETER_VALUE", "Unknown assessment type: None")
        if "expectation" in given and given["expectation"]["value"] is None:
            raise RefusedError("INVALID_PARAMETER_VALUE", "The `value` field must be specified.")
        trace = self._trace(trace_id)
        given["assessment_id"] = given.get("assessment_id") or f"a-{len(trace['assessments']):032x}"
        if any(given["assessment_id"] in other["assessments"] for other in self.traces.values()):
            message = f"Failed to create assessment for trace '{trace_id}' due to a constraint violation."
            raise RefusedError("INTERNAL_ERROR", message)
        if "expectation" in given:
            given.pop("rationale", None)
        trace["assessments"][given["assessment_id"]] = given
        return {**given, "trace_id": trace_id, "valid": True}


def _attributes(pairs: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in pairs:
        kind = pair.value.WhichOneof("value")
        if kind == "array_value":
            found[pair.key] = [one.string_value for one in pair.value.array_value.values]
        else:
            found[pair.key] = getattr(pair.value, kind) if kind else None
    return found


def _unquoted(value: Any) -> str:
    """Of a text that is a text in JSON the quotes are dropped."""
    try:
        found = json.loads(value)
    except (TypeError, ValueError):
        return str(value)
    return found if isinstance(found, str) else str(value)


def _is_tag_key(key: str) -> bool:
    is_clean = posixpath.normpath(key) == key and key != "." and not key.startswith(("..", "/"))
    return len(key) <= 250 and re.match(r"^[/\w.\- :]*$", key) is not None and is_clean


def _read(given: dict[str, Any]) -> dict[str, Any]:
    """Stop at the first item of the metadata that is no text: it and every later field are not read."""
    read: dict[str, Any] = {}
    for part, value in given.items():
        if part == "metadata":
            texts: dict[str, str] = {}
            read[part] = texts
            for key, item in value.items():
                if not isinstance(item, str):
                    return read
                texts[key] = item
        elif part in {"feedback", "expectation"}:
            read[part] = {"value": _as_floats(value.get("value"))}
        else:
            read[part] = value
    return read


def _as_floats(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _patch(number: int) -> Patch:
    target = SpanRef(0xABC000 + number, number)
    return Patch(target, {("trace", "metadata", "region"): ("us", (1_700_000_000_000_000_000 + number, 7))})


def _exporter(url: str) -> MlflowPatchExporter:
    return MlflowPatchExporter(url, headers={"authorization": f"Bearer {KEY}"})


CASE = Case(
    name="mlflow",
    double=MlflowDouble,
    exporter=_exporter,
    patch=_patch,
    know=lambda double, patch: double.know(patch.target.trace_id),
    reports_missing=True,
    path=r"/api/3\.0/mlflow/traces/tr-[0-9a-f]{32}/tags",
)
