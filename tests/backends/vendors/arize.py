"""Arize AX as far as its SDK and its documentation show it: the SDK's calls with their traps, and OTLP over HTTP.

There is no `CASE`: the SDK speaks Arrow Flight, so what the contract suite asks over HTTP is asked of these calls in
`test_arize.py`.
"""

from __future__ import annotations

import json
import logging
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pandas as pd
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from tests.backends.vendors.server import KEY, Double, Request, Response

SPACE, PROJECT = "U3BhY2U6MTIz", "shop"

EVALUATION = re.compile(r"^(?:eval|session_eval|trace_eval)\.[a-zA-Z0-9_\s]+?\.(label|score|explanation)$")
ANNOTATION = re.compile(r"^annotation\.([a-zA-Z0-9_\s]+)\.(label|score|text|updated_by|updated_at)$")
LENGTHS = {"label": (1, 100), "explanation": (0, 10_000), "text": (1, 10_000), "updated_by": (1, 100)}


class ValidationFailure(Exception):  # noqa: N818 # the SDK's name, by which the exporter knows it
    """The SDK refuses the whole frame."""


class ArizeSpans:
    """What `arize.ArizeClient(...).spans` does, and the service behind it.

    Attributes:
        stored: By (space, project, span id): the attributes of the span, as shown.
        calls: Name and frame of each call, in order.
        wire: Name and rows of each call that was sent.
        refused: What the validation of the SDK refused.
        dropped: Columns that the SDK dropped, reporting success.
        fault: Called first; may raise, or return what is answered instead.
        bools: How the service keeps a bool: its two documentations differ.
    """

    def __init__(self) -> None:
        self.stored: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.calls: list[tuple[str, pd.DataFrame]] = []
        self.wire: list[tuple[str, list[tuple[str, dict[str, Any]]]]] = []
        self.refused: list[str] = []
        self.dropped: list[str] = []
        self.fault: Callable[[str, pd.DataFrame], Any] = lambda call, frame: None
        self.bools: Callable[[bool], Any] = str

    def know(self, span_id: str, **attributes: Any) -> None:
        self.stored[SPACE, PROJECT, span_id] = {"metadata": {}, **attributes}

    def span(self, span_id: str) -> dict[str, Any]:
        return self.stored[SPACE, PROJECT, span_id]

    def update_metadata(
        self, *, space_id: str, project_name: str, dataframe: pd.DataFrame, validate: bool = True
    ) -> Any:
        answer = self._begin("update_metadata", dataframe)
        if answer is not None:
            return answer
        patches = list(dataframe["patch_document"])
        if any(not isinstance(patch, dict) or not patch for patch in patches):
            # An empty one, None or NaN is left out of a column that must be as long as the frame.
            raise ValueError("Length of values does not match length of index")
        for patch in patches:
            self._check(len(json.dumps(patch)) <= 1_000_000, "too long")
            self._check(_depth(patch) <= 10, "too deep")
        texts = [json.dumps(patch) for patch in patches]
        rows = zip(dataframe["context.span_id"], ({"patch_document": text} for text in texts), strict=True)
        return _as_dict(self.service("update_metadata", space_id, project_name, list(rows)))

    def update_evaluations(
        self, *, space_id: str, project_name: str, dataframe: pd.DataFrame, validate: bool = True
    ) -> Any:
        answer = self._begin("update_evaluations", dataframe)
        if answer is not None:
            return answer
        kept = [column for column in dataframe.columns if EVALUATION.match(column)]
        self.dropped += [column for column in dataframe.columns if column not in {*kept, "context.span_id"}]
        for cells in _cells(dataframe, kept):
            self._check_cells(cells)
            for stem in {column.rpartition(".")[0] for column in cells}:
                self._check(f"{stem}.label" in cells or f"{stem}.score" in cells, "an explanation by itself")
        rows = zip(dataframe["context.span_id"], _cells(dataframe, kept), strict=True)
        return _as_dict(self.service("update_evaluations", space_id, project_name, list(rows)))

    def update_annotations(
        self, *, space_id: str, project_name: str, dataframe: pd.DataFrame, validate: bool = True
    ) -> Any:
        answer = self._begin("update_annotations", dataframe)
        if answer is not None:
            return answer
        frame = dataframe.copy()
        given = [column for column in frame.columns if column != "context.span_id"]
        for column in given:
            self._check(ANNOTATION.match(column) is not None, f"InvalidAnnotationColumnFormat {column}")
        for name in {column.split(".")[1] for column in given}:
            # Also in rows that say nothing of this annotation.
            for part, stamp in (("updated_by", "SDK"), ("updated_at", int(time.time() * 1000))):  # as it does
                if f"annotation.{name}.{part}" not in frame.columns:
                    frame[f"annotation.{name}.{part}"] = stamp
        kept = [column for column in frame.columns if column != "context.span_id"]
        for cells in _cells(frame, kept):
            self._check_cells(cells)
            for stem in {column.rpartition(".")[0] for column in cells}:
                said = [part for part in ("label", "score", "text") if f"{stem}.{part}" in cells]
                self._check(bool(said), "an annotation without label, score and text")
                is_past = 0 < cells[f"{stem}.updated_at"] <= time.time() * 1000  # as it does
                self._check(is_past, "an annotation of the future")
        rows = zip(frame["context.span_id"], _cells(frame, kept), strict=True)
        return _as_dict(self.service("update_annotations", space_id, project_name, list(rows)))

    def service(self, call: str, space: str, project: str, rows: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
        """Do what the service does with what the SDK sends, and return the fields of its reply.

        Args:
            call: The name of the SDK's call.
            space: The id of the space.
            project: The name of the project.
            rows: Span id and cells; a patch document is JSON text.
        """
        self.wire.append((call, rows))
        if call == "update_metadata":
            errors = []
            for span_id, cells in rows:
                wrong = self._merge(self.stored.get((space, project, span_id)), cells["patch_document"])
                if wrong:
                    errors.append({"span_id": span_id, "error_message": f"{wrong} for span {span_id}"})
            return {
                "spans_processed": len(rows),
                "spans_updated": len(rows) - len(errors),
                "spans_failed": len(errors),
                "errors": errors,
            }
        unmatched = [span_id for span_id, _ in rows if (space, project, span_id) not in self.stored]
        for span_id, cells in rows:
            self.stored.get((space, project, span_id), {}).update(cells)
        return {"records_updated": len(rows) - len(unmatched), "unmatched_ids": unmatched}

    def _begin(self, call: str, frame: pd.DataFrame) -> Any:
        self.calls.append((call, frame.copy()))
        # The SDK logs at every call, and what the server said.
        logging.getLogger("arize.spans.client").error("Error during update request: key %s", KEY)
        answer = self.fault(call, frame)
        self._check(isinstance(frame.index, pd.RangeIndex) and frame.index.start == 0, "Invalid_Index")
        self._check(len(frame) > 0, "no rows")
        return answer

    def _check(self, is_right: bool, what: str) -> None:
        if not is_right:
            self.refused.append(what)
            raise ValidationFailure(what)

    def _check_cells(self, cells: Mapping[str, Any]) -> None:
        for column, value in cells.items():
            part = column.rpartition(".")[2]
            if part in LENGTHS:
                self._check(isinstance(value, str), f"{part} is no text")
                least, most = LENGTHS[part]
                self._check(least <= len(value) <= most, f"{part} is too short or too long")
            else:
                self._check(isinstance(value, int | float) and math.isfinite(value), f"{part} is no number")

    def _merge(self, span: dict[str, Any] | None, text: str) -> str | None:
        if span is None:
            return "[segment_not_found] No matching segment found"
        try:
            patch = json.loads(text, parse_constant=lambda name: 1 / 0)
        except ZeroDivisionError:
            return "[parse_failure] Invalid JSON"
        merged = dict(span["metadata"])
        for key, value in patch.items():
            if isinstance(value, bool):
                value = self.bools(value)
            elif isinstance(value, dict | list):
                value = json.dumps(value)
            before = merged.get(key)
            if before is not None and value is not None and isinstance(before, str) != isinstance(value, str):
                return "[type_conflict] Type conflict: Int vs. Utf8"
            merged[key] = value
        span["metadata"] = merged
        return None


class Arize(Double):
    """OTLP over HTTP as Arize takes it, and the SDK's calls over the same spans.

    Attributes:
        spans: The calls.
    """

    def __init__(self) -> None:
        self.spans = ArizeSpans()
        super().__init__()

    def answer(self, request: Request) -> Response:
        headers = request.headers
        if (headers.get("authorization"), headers.get("arize-space-id")) != (KEY, SPACE):
            return Response(401, {"error": "unauthenticated"})
        if request.path == "/v1/traces":
            for one in ExportTraceServiceRequest.FromString(request.body).resource_spans:
                resource = _attributes(one.resource.attributes)
                for span in (span for scope in one.scope_spans for span in scope.spans):
                    # Without a project there is nowhere to show it.
                    project = resource.get("openinference.project.name", "")
                    attributes = _attributes(span.attributes)
                    attributes["metadata"] = json.loads(attributes.get("metadata", "{}"))
                    key = (SPACE, project, span.span_id.hex())
                    self.spans.stored[key] = {"(name)": span.name, **attributes}
        # Spans that are sent to another path are answered with 200, and are nowhere.
        body = ExportTraceServiceResponse().SerializeToString()
        return Response(200, body, {"content-type": "application/x-protobuf"})


def _as_dict(reply: Mapping[str, Any]) -> dict[str, Any]:
    """Return Protobuf's JSON form: 64-bit integers are text, and what is zero or empty is not there."""
    return {name: str(value) if isinstance(value, int) else value for name, value in reply.items() if value}


def _cells(frame: pd.DataFrame, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Yield what is not null in each row, as it is on the wire."""
    for row in frame[columns].to_dict("records"):
        yield {str(column): value for column, value in row.items() if value is not None and value == value}  # noqa: PLR0124 # NaN


def _depth(value: Any) -> int:
    if isinstance(value, dict | list) and value:
        return 1 + max(_depth(item) for item in (value.values() if isinstance(value, dict) else value))
    return 1


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None
