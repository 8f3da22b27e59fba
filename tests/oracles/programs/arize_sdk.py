"""Drive Arize's own SDK against Flight and HTTP servers on loopback, and print as JSON what it sent and answered.

Run by a Python that has `arize`, `arize-otel` and this library. Standard output holds the report and nothing else, so
that anything that the SDK prints breaks it.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import pandas as pd
from pyarrow import flight
from tests.backends.vendors.arize import PROJECT, SPACE, Arize, ArizeSpans
from tests.backends.vendors.server import KEY

from otel_metadata.backends.arize.patches import ArizePatchExporter
from otel_metadata.backends.arize.sdk import connect
from otel_metadata.model.evaluation import Annotation, Evaluation, annotation_key
from otel_metadata.model.merge import FieldName, Json
from otel_metadata.model.patch import Patch
from otel_metadata.model.span_ref import SpanRef

AT = 1_700_000_000_000_000_000
CALLS = {
    "writeSpanAttributesMetadataRequest": ("update_metadata", "WriteSpanAttributesMetadataResponse"),
    "writeSpanEvaluationRequest": ("update_evaluations", "WriteSpanEvaluationResponse"),
    "writeSpanAnnotationRequest": ("update_annotations", "WriteSpanAnnotationResponse"),
}


class Headers(flight.ServerMiddleware):
    def __init__(self, headers: dict[str, list[Any]]) -> None:
        self.headers = headers


class HeadersFactory(flight.ServerMiddlewareFactory):
    def start_call(self, info: Any, headers: dict[str, list[Any]]) -> Headers:
        return Headers(headers)


class Server(flight.FlightServerBase):
    """Arize's Flight endpoint over a double of the service."""

    def __init__(self, spans: ArizeSpans) -> None:
        super().__init__("grpc://127.0.0.1:0", middleware={"headers": HeadersFactory()})
        self.spans = spans
        self.requests: list[dict[str, Any]] = []
        self.fault: Callable[[], None] = lambda: None

    def do_put(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        from arize._generated.protocol.flight import flight_pb2
        from google.protobuf import json_format

        headers = context.get_middleware("headers").headers
        key = headers.get("auth-token-bin", [b""])[0]
        rows = reader.read_all().to_pylist()
        ((request, parts),) = json.loads(descriptor.command).items()
        self.requests.append({"request": request, **parts, "rows": rows})
        self.fault()
        if (key.decode() if isinstance(key, bytes) else key) != KEY:
            raise flight.FlightUnauthenticatedError(f"bad key {key!r}")
        call, response = CALLS[request]
        given = [
            (row.pop("context.span_id"), {name: value for name, value in row.items() if value is not None})
            for row in (dict(row) for row in rows)
        ]
        reply = self.spans.service(call, parts["spaceId"], parts["externalModelId"], given)
        message = json_format.ParseDict(reply, getattr(flight_pb2, response)())
        writer.write(message.SerializeToString())


def patch(number: int, *given: tuple[FieldName, Json]) -> Patch:
    return Patch(SpanRef(5, number), {name: (value, (AT + at, 7)) for at, (name, value) in enumerate(given)})


def metadata(number: int, **given: Json) -> Patch:
    return patch(number, *((("span", "metadata", key), value) for key, value in given.items()))


def verdicts(number: int, *given: Evaluation | Annotation) -> Patch:
    named: list[tuple[FieldName, Json]] = [
        (("span", "evaluation", one.name), one.to_json())
        if isinstance(one, Evaluation)
        else (("span", "annotation", annotation_key(one.name, one.annotator)), one.to_json())
        for one in given
    ]
    return patch(number, *named)


def frames() -> dict[str, tuple[str, pd.DataFrame]]:
    """Return tables that a program may hand to the SDK: what it takes, refuses and drops, the double has to as well."""
    made: dict[str, tuple[str, pd.DataFrame]] = {}

    def add(table: str, call: str, rows: int = 1, **columns: Any) -> None:
        ids = [f"{number:016x}" for number in range(1, rows + 1)]
        cells = {column.replace("__", "."): value for column, value in columns.items()}
        made[table] = (call, pd.DataFrame({"context.span_id": ids, **cells}))

    deep: Any = 1
    for _ in range(8):
        deep = {"d": deep}
    for name, document in {
        "a document": {"s": "x", "n": 1, "f": 0.5, "b": True, "none": None, "o": {"a": [1]}},
        "a document with NaN": {"n": math.nan},
        "an empty document": {},
        "no document": None,
        "a document at the limit": {"k": "x" * (1_000_000 - len('{"k": ""}'))},
        "a document over the limit": {"k": "x" * (1_000_001 - len('{"k": ""}'))},
        "a document over the limit by escapes": {"k": "é" * 166_667},
        "a document of nine levels": {"d": deep},
        "a document of ten levels": {"d": {"d": deep}},
    }.items():
        add(name, "update_metadata", patch_document=[document])
    add("an empty one of two", "update_metadata", 2, patch_document=[{"a": 1}, {}])
    call, two = "update_metadata", pd.DataFrame({"context.span_id": ["a", "b"], "patch_document": [{"a": 1}, {"b": 2}]})
    made["rows from the middle"] = (call, two.iloc[1:])
    for name, cells in {
        "a score": {"eval__e__score": [1.0]},
        "a label": {"eval__e__label": ["good"]},
        "a label of 100": {"eval__e__label": ["x" * 100]},
        "a label of 101": {"eval__e__label": ["x" * 101]},
        "an empty label": {"eval__e__label": [""]},
        "an infinite score": {"eval__e__score": [math.inf]},
        "an explanation": {"eval__e__score": [1.0], "eval__e__explanation": ["x" * 10_000]},
        "an empty explanation": {"eval__e__score": [1.0], "eval__e__explanation": [""]},
        "a long explanation": {"eval__e__score": [1.0], "eval__e__explanation": ["x" * 10_001]},
        "an explanation by itself": {"eval__e__explanation": ["why"]},
        "an evaluation of the trace": {"trace_eval__e__score": [1.0]},
        "a name with a dash": {"eval__e__score": [1.0], "eval__my-eval__score": [1.0]},
        "a name with a dot": {"eval__e__score": [1.0], "eval__a__b__score": [1.0]},
        "a name with a blank": {"eval__my eval__score": [1.0]},
        "a plain score": {"eval__e__score": [1.0], "name": ["e"], "score": [1.0]},
    }.items():
        add(name, "update_evaluations", **cells)
    now = {"annotation__a__updated_at": [AT // 1_000_000]}
    for name, cells in {
        "an annotation": {"annotation__a__label": ["good"], "annotation__a__updated_by": ["ann"], **now},
        "an annotation by nobody": {"annotation__a__score": [1.0], **now},
        "an annotation that says nothing": {"annotation__a__label": [None], **now},
        "an empty text": {"annotation__a__text": [""], **now},
        "a long text": {"annotation__a__text": ["x" * 10_001], **now},
        "a long annotator": {"annotation__a__label": ["x"], "annotation__a__updated_by": ["x" * 101], **now},
        "an annotation of the future": {"annotation__a__label": ["x"], "annotation__a__updated_at": [AT]},
        "an annotation with a dash": {"annotation__my-a__label": ["x"]},
    }.items():
        add(name, "update_annotations", **cells)
    return made


def taken(call: Callable[..., Any], frame: pd.DataFrame, wire: list[Any]) -> Any:
    """Return what was sent of a table, or that it was refused."""
    wire.clear()
    try:
        call(space_id=SPACE, project_name=PROJECT, dataframe=frame)
    except Exception:  # the double and the SDK refuse by classes of their own
        return "refused"
    ((_, rows),) = wire
    return [[span_id, dict(sorted(cells.items()))] for span_id, cells in rows]


def main() -> dict[str, Any]:
    report: dict[str, Any] = {}
    spans = ArizeSpans()
    server = Server(spans)
    os.environ.update(ARIZE_FLIGHT_SCHEME="grpc", ARIZE_FLIGHT_HOST="127.0.0.1", ARIZE_FLIGHT_PORT=str(server.port))

    def export(*patches: Patch, key: str = KEY, millis: int = 60_000) -> list[str]:
        server.requests.clear()
        exporter = ArizePatchExporter(connect(key), space_id=SPACE, project=PROJECT)
        outcomes = [repr(outcome) for outcome in exporter.export(patches, timeout_millis=millis)]
        exporter.shutdown()
        return outcomes

    for number in (1, 2, 4):
        spans.know(f"{number:016x}")
    spans.span(f"{4:016x}")["metadata"] = {"bad": 3}
    report["metadata"] = export(
        metadata(1, s="x", n=0, f=0.5, b=False, none=None, o={"a": [1]}, l=["a", "b"]),
        metadata(2, big=2**63 - 1, text="é"),
        metadata(3, k=1),
        metadata(4, bad="x", good="y"),
    )
    report["metadata requests"] = list(server.requests)
    report["verdicts"] = export(
        verdicts(1, Evaluation("my-eval", 1.0, "good", "x" * 10_001), Annotation("q", "good", annotator="ann")),
        verdicts(2, Evaluation("e", 0.0), Evaluation("h", 1.0, explanation="why", source="human")),
        verdicts(3, Evaluation("e", 1.0)),
    )
    report["verdict requests"] = list(server.requests)
    report["stored"] = {key[2]: value for key, value in spans.stored.items()}
    report["much"] = export(metadata(1, **{f"k{number}": "x" * 400_000 for number in range(3)}))
    report["much requests"] = [len(request["rows"]) for request in server.requests]
    report["wrong key"] = export(metadata(1, k=1), metadata(2, k=1), key="another-key-000000")
    report["wrong key requests"] = len(server.requests)

    def unavailable() -> None:
        raise flight.FlightUnavailableError("down")

    server.fault = unavailable
    report["unavailable"] = export(metadata(1, k=1), verdicts(2, Evaluation("e", 1.0)))
    release = threading.Event()

    def hang() -> None:
        release.wait(60)
        unavailable()

    server.fault = hang
    report["hangs"] = export(metadata(1, k=1), millis=500)
    release.set()
    server.fault = lambda: None

    sdk = connect(KEY)()
    report["tables"] = {}
    for name, (call, frame) in frames().items():
        report["tables"][name] = {
            "sdk": taken(getattr(sdk, call), frame, spans.wire),
            "double": taken(getattr(ArizeSpans, call).__get__(double := ArizeSpans()), frame, double.wire),
        }
    os.environ["ARIZE_FLIGHT_PORT"] = "1"
    report["refused connection"] = export(metadata(1, k=1))
    os.environ["ARIZE_FLIGHT_SCHEME"] = "http"
    report["wrong scheme"] = export(metadata(1, k=1))
    report["headers"] = headers()
    server.shutdown()
    return report


def headers() -> dict[str, Any]:
    """Return what arize-otel and our destination send with the same span."""
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext, TraceFlags

    from otel_metadata.backends.arize import destination

    otel = importlib.import_module("arize.otel")
    context = SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    span = ReadableSpan("answer", context, start_time=1, end_time=2)
    with Arize() as arize:
        url = f"{arize.url}/v1/traces"
        theirs = otel.HTTPSpanExporter(space_id=SPACE, api_key=KEY, endpoint=url)
        theirs.export([span])
        theirs.shutdown()
        one = destination(api_key=KEY, space_id=SPACE, endpoint=url)
        one.span_exporter.export([span])
        one.span_exporter.shutdown()
        one.patch_exporter.shutdown()
        names = ("theirs", "ours")
        return {name: dict(request.headers) for name, request in zip(names, arize.requests, strict=True)}


if __name__ == "__main__":
    found = json.dumps(main())
    sys.stdout.write(found)
    sys.stdout.flush()
    # Not through the interpreter's exit: a call that was left still waits.
    os._exit(0)
