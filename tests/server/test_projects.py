"""Tokens for one project, and tokens that only send: what each sees and changes, over every protocol and operation."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Status, StatusCode
from tests.server.api import SINCE, Plain
from tests.server.conftest import PATIENCE, Server, StartServer
from tests.store.contract import END_NS, START_NS, TRACE, ended_span, metadata, only, trace_hex

import otel_metadata as om
from otel_metadata.client.client import Client
from otel_metadata.dialects.canonical import FIELDS, fields_text
from otel_metadata.dialects.patch_span import PATCH_SCOPE, attributes_of
from otel_metadata.errors import SpanNotFoundError, StoreAccessError
from otel_metadata.model.authors import AUTHORS
from otel_metadata.model.merge import Fields
from otel_metadata.model.patch import Patch
from otel_metadata.model.record import SpanQuery
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.server import updates
from otel_metadata.server.access import SCOPES, Access
from otel_metadata.server.app import OPERATIONS
from otel_metadata.server.operations import Scope
from otel_metadata.server.projects import locate
from otel_metadata.server.targets import locate_all
from otel_metadata.server.tokens import Tokens
from otel_metadata.store.sqlite.store import SqliteStore

Request = ExportTraceServiceRequest | ExportLogsServiceRequest

T1 = trace_hex()
T2 = trace_hex(2)
SHOP, BANK, BANK_ROOT = f"{1:016x}", f"{2:016x}", f"{3:016x}"
LATER: Fields = {("span", "metadata", "plan"): ("updated", (END_NS + 10**18, 7))}


# What is sent, and how.


def spans(
    *given: dict[str, Any], project: str | None = None, scope: str = "", name: str = "service.name"
) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    add_spans(request, *given, project=project, scope=scope, name=name)
    return request


def add_spans(
    request: ExportTraceServiceRequest,
    *given: dict[str, Any],
    project: str | None = None,
    scope: str = "",
    name: str = "service.name",
) -> None:
    of_resource = request.resource_spans.add()
    if project is not None:
        of_resource.resource.attributes.add(key=name).value.string_value = project
    of_scope = of_resource.scope_spans.add()
    of_scope.scope.name = scope
    for one in given:
        span = of_scope.spans.add(
            trace_id=bytes.fromhex(one.get("trace", T1)),
            span_id=bytes.fromhex(one.get("span", SHOP)),
            name=one.get("name", "sent"),
            start_time_unix_nano=START_NS,
            end_time_unix_nano=one.get("end", END_NS),
        )
        add_attributes(span.attributes, one.get("attributes", {}))


def add_attributes(to: Any, attributes: dict[str, Any]) -> None:
    for key, value in attributes.items():
        found = to.add(key=key).value
        if isinstance(value, list):
            found.array_value.SetInParent()
            for item in value:
                found.array_value.values.add().string_value = item
        elif isinstance(value, float):
            found.double_value = value
        else:
            found.string_value = value


def update_span(span_id: str = SHOP, trace_id: str = T1) -> dict[str, Any]:
    """Return a span that carries an update of another one."""
    target = SpanRef(int(trace_id, 16), int(span_id, 16))
    return {"trace": trace_id, "span": "ee" * 8, "attributes": dict(attributes_of(Patch(target, LATER)))}


def of_langwatch(trace_id: str = T1, project: str | None = None) -> ExportTraceServiceRequest:
    """Return the span that LangWatch's server makes of a PATCH."""
    of_span, name = {"trace": trace_id, "span": "ef" * 8}, "openinference.project.name"
    request = spans(of_span, project=project, scope="langwatch.api.metadata_update", name=name)
    add_attributes(request.resource_spans[0].resource.attributes, {"langwatch.metadata.plan": "updated"})
    return request


def evaluation(span_id: str = SHOP, trace_id: str = T1) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    record = (
        request.resource_logs.add()
        .scope_logs.add()
        .log_records.add(trace_id=bytes.fromhex(trace_id), span_id=bytes.fromhex(span_id), time_unix_nano=END_NS + 1)
    )
    attributes = {"event.name": "gen_ai.evaluation.result", "gen_ai.evaluation.name": "Tone"}
    add_attributes(record.attributes, {**attributes, "gen_ai.evaluation.score.value": 0.5})
    return request


def in_json(request: Request) -> Any:
    """Return a request as OTLP's JSON, whose ids are hex digits."""

    def hexed(found: Any) -> Any:
        if isinstance(found, dict):
            return {
                key: base64.b64decode(value).hex() if key in ("traceId", "spanId") else hexed(value)
                for key, value in found.items()
            }
        return [hexed(one) for one in found] if isinstance(found, list) else found

    return hexed(MessageToDict(request))


@dataclass
class Sent:
    """What a request was answered: 200 with what was refused, or another status."""

    status: int
    refused: int
    message: str


def send(server: Server, key: str, request: Request, over: str) -> Sent:
    is_logs = isinstance(request, ExportLogsServiceRequest)
    if over == "grpc":
        with grpc.insecure_channel(f"127.0.0.1:{server.local.grpc_port}") as channel:
            stub = (LogsServiceStub if is_logs else TraceServiceStub)(channel)
            try:
                answer = stub.Export(request, metadata=[("authorization", f"Bearer {key}")], timeout=PATIENCE)
            except grpc.RpcError as error:
                codes = {grpc.StatusCode.PERMISSION_DENIED: 403, grpc.StatusCode.UNAUTHENTICATED: 401}
                return Sent(codes[error.code()], 0, f"{error.details()}")
        partial = MessageToDict(answer).get("partialSuccess", {})
    else:
        body = request.SerializeToString() if over == "protobuf" else json.dumps(in_json(request)).encode()
        kind = "application/x-protobuf" if over == "protobuf" else "application/json"
        headers = {"Content-Type": kind, "Authorization": f"Bearer {key}"}
        found = server.call("POST", "/v1/logs" if is_logs else "/v1/traces", body=body, headers=headers)
        if found.status != 200:
            return Sent(found.status, 0, found.data.decode(errors="replace"))
        if over == "protobuf":
            response = ExportLogsServiceResponse if is_logs else ExportTraceServiceResponse
            partial = MessageToDict(response.FromString(found.data)).get("partialSuccess", {})
        else:
            partial = found.json().get("partialSuccess", {})
    count = partial.get("rejectedSpans", partial.get("rejectedLogRecords", 0))
    return Sent(200, int(count), partial.get("errorMessage", ""))


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return Tokens(f"{tmp_path}/tokens")


@pytest.fixture
def key(tokens: Tokens) -> Callable[..., str]:
    """Return what makes a token: its scopes, all by default, and its project."""
    names = iter(range(1_000))

    def make(*scopes: Scope, project: str | None = None) -> str:
        return tokens.create(f"token {next(names)}", list(scopes or SCOPES), project, 1)

    return make


@pytest.fixture
def server(start_server: StartServer, tokens: Tokens, key: Callable[..., str]) -> Server:
    """Return a server that demands tokens, with a trace of two projects and a trace of the bank."""
    key()
    server = start_server(own=True, access=Access(tokens, needs_token=True), grpc_port=0)
    shop, bank = (Resource({"service.name": name}) for name in ("shop", "bank"))
    server.store.write(
        [
            ended_span(1, name="own", resource=shop, fields=metadata(plan="free")),
            ended_span(2, name="secret child", resource=bank, parent=ended_span(1).context, **_secrets()),
            ended_span(3, trace_id=2, name="secret root", resource=bank, **_secrets("trace")),
        ]
    )
    return server


def _secrets(level: str = "span") -> dict[str, Any]:
    return {
        "attributes": {"secret": "secret"},
        "fields": {
            **metadata(secret="secret"),
            **metadata(level, **{"secret too": "secret"}),
            ("span", "tag", "secret tag"): (True, (START_NS, 1)),
            ("span", "evaluation", "secret verdict"): ({"score": 1.0, "label": "secret"}, (START_NS, 1)),
        },
    }


def of_bank(server: Server) -> Any:
    """Return everything that is stored of the bank."""
    lines = [row for page in server.store.export_rows(SpanQuery(limit=None, project="bank")) for row in page]  # type: ignore[attr-defined] # an SQLite store
    return lines, [server.store.history(row[0], row[1]) for row in lines], server.store.history(T2)


OVER = pytest.mark.parametrize("over", ["protobuf", "json", "grpc"])


# A token that only sends.


@OVER
@pytest.mark.parametrize(
    "request_of",
    [lambda: spans(update_span(), scope=PATCH_SCOPE), of_langwatch, evaluation],
    ids=["an update", "of LangWatch", "an evaluation"],
)
def test_a_token_that_only_sends_updates_nothing(server, key, request_of, over):
    before = only(server.store, span_id=SHOP)
    answer = send(server, key("traces:write"), request_of(), over)
    assert answer.status == 403
    assert "traces:update" in answer.message
    assert only(server.store, span_id=SHOP) == before
    assert send(server, key("traces:write", "traces:update"), request_of(), over) == Sent(200, 0, "")
    assert only(server.store, span_id=SHOP) != before


@OVER
def test_updates_beside_spans_are_refused_and_the_spans_stored(server, key, over):
    request = spans({"span": "aa" * 8})
    add_spans(request, update_span(), update_span(), scope=PATCH_SCOPE)
    answer = send(server, key("traces:write"), request, over)
    assert (answer.status, answer.refused) == (200, 2)
    assert "traces:update" in answer.message
    assert only(server.store, span_id="aa" * 8).name == "sent"
    assert only(server.store, span_id=SHOP).metadata == {"plan": "free"}


@OVER
@pytest.mark.parametrize("span", [SHOP, "aa" * 8], ids=["a stored span", "a new span"])
def test_values_with_versions_of_their_own_need_the_scope(server, key, over, span):
    """Their versions and the names of their writers may be any; the plain values beside them are stored."""
    exact: Fields = {**LATER, ("trace", "metadata", "seats"): (5, (END_NS + 10**18, 0xBAD))}
    text = fields_text(exact).replace('"authors":{}', f'"authors":{{"{0xBAD:016x}":"judge"}}')
    assert "judge" in text
    request = spans({"span": span, "name": "again", "attributes": {FIELDS: text, "metadata.b": "c"}})
    before = only(server.store, span_id=SHOP)
    answer = send(server, key("traces:write"), request, over)
    assert (answer.status, answer.refused) == (200, 0)
    assert "traces:update" in answer.message
    record = only(server.store, span_id=span)
    kept = before.metadata if span == SHOP else {}
    assert (record.name, record.metadata, record.trace_metadata) == ("again", {**kept, "b": "c"}, {})
    assert AUTHORS.name_of(0xBAD) is None
    assert send(server, key("traces:write", "traces:update"), request, over) == Sent(200, 0, "")
    record = only(server.store, span_id=span)
    assert (record.metadata, record.trace_metadata) == ({"plan": "updated", "b": "c"}, {"seats": 5})
    assert AUTHORS.name_of(0xBAD) == "judge"


OF_SPAN = {
    "metadata": {"z": "ada's"}, "output": "ada's", "user_id": "ada's", "tags": ["vip"],
    "evaluations": {"Tone": {"label": "ada's"}},
}  # fmt: skip
PLAIN_VALUES = {
    "metadata.z": "app's", "output.value": "app's", "user.id": "app's", "evaluation.Tone.label": "app's",
    "tag.tags": ["vip"], "langfuse.trace.metadata.seats": "app's", "langfuse.trace.output": "app's",
    "session.id": "app's",
}  # fmt: skip


def plain_values(span: str, project: str) -> ExportTraceServiceRequest:
    """Return a span whose end, and so the version of its plain values, is after every update."""
    return spans(
        {"span": span, "end": END_NS + 10**18, "attributes": {**PLAIN_VALUES, "metadata.b": "c"}}, project=project
    )


def update_all(server: Server, key: str) -> None:
    """Set values on the span and the trace of the shop with a token."""
    of_trace = {"metadata": {"seats": "ada's"}, "output": "ada's", "session_id": "ada's"}
    for path, body in ((f"spans/{SHOP}", OF_SPAN), (f"traces/{T1}", of_trace)):
        answer = server.call("PATCH", f"/api/v1/{path}", json=body, headers={"X-Auth-Token": key})
        assert answer.status == 200, answer.data


def values_that_are_set(server: Server) -> set[tuple[Any, ...]]:
    found = server.store.history(T1, SHOP)
    return {(one.level, one.kind, one.key, one.time_ns, one.author) for one in found if one.is_current and one.author}


@OVER
@pytest.mark.parametrize("span", [SHOP, "aa" * 8], ids=["a stored span", "a new span"])
@pytest.mark.parametrize("project", [None, "shop"], ids=["all projects", "one project"])
def test_plain_values_replace_an_update_with_the_scope_only(server, key, over, span, project):
    """The end of a span is what its sender says, so it must not decide."""
    update_all(server, key())
    before, shown = values_that_are_set(server), only(server.store, span_id=SHOP)
    assert {one[:2] for one in before} >= {("span", "tag"), ("span", "evaluation"), ("trace", "output")}
    request = plain_values(span, "shop")
    assert send(server, key("traces:write", project=project), request, over) == Sent(200, 0, "")
    assert values_that_are_set(server) == before
    record = only(server.store, span_id=SHOP)
    for name in ("output", "user_id", "session_id", "evaluations", "trace_metadata", "trace_output"):
        assert getattr(record, name) == getattr(shown, name)
    assert record.metadata["z"] == "ada's"
    assert only(server.store, span_id=span).metadata["b"] == "c"
    assert only(server.store, span_id=span).span.end_ns == END_NS + 10**18
    assert send(server, key("traces:write", "traces:update"), request, over) == Sent(200, 0, "")
    assert only(server.store, span_id=SHOP).trace_metadata == {"seats": "app's"}
    assert only(server.store, span_id=span).metadata["z"] == "app's"


@OVER
def test_a_span_of_another_project_replaces_no_value_of_the_trace(server, key, over):
    """A trace may have spans of several projects, so the span is taken."""
    update_all(server, key())
    before = values_that_are_set(server)
    bank = key("traces:write", project="bank")
    assert send(server, bank, plain_values("ab" * 8, "bank"), over) == Sent(200, 0, "")
    assert values_that_are_set(server) == before
    assert only(server.store, span_id=SHOP).trace_metadata == {"seats": "ada's"}
    assert only(server.store, span_id="ab" * 8).project == "bank"


@OVER
def test_plain_values_replace_plain_values_without_the_scope(server, key, over):
    for number in (1, 2):
        attributes = {"metadata.b": f"no {number}", "langfuse.trace.metadata.seats": f"no {number}"}
        request = spans({"span": "aa" * 8, "end": END_NS + number, "attributes": attributes})
        assert send(server, key("traces:write"), request, over) == Sent(200, 0, "")
    record = only(server.store, span_id="aa" * 8)
    assert (record.metadata, record.trace_metadata) == ({"b": "no 2"}, {"seats": "no 2"})


def test_stored_versions_are_looked_up_at_once_and_without_the_scope_only(server, key, monkeypatch):
    asked: list[int] = []
    kept = SqliteStore.versions

    def counted(store: SqliteStore, fields: Any) -> Any:
        asked.append(len(fields))
        return kept(store, fields)

    monkeypatch.setattr(SqliteStore, "versions", counted)
    many = spans(*({"span": f"{number:016x}", "attributes": {"metadata.b": "c"}} for number in range(10, 1_010)))
    assert send(server, key(), many, "protobuf").status == 200
    assert asked == []
    assert send(server, key("traces:write"), many, "protobuf").status == 200
    assert asked == [1_000]
    assert send(server, key("traces:write"), spans({"span": "aa" * 8}), "protobuf").status == 200
    assert asked == [1_000]  # nothing to ask for


@OVER
def test_plain_attributes_of_a_span_that_is_sent_again_replace_no_update(server, key, over):
    """They are a part of the span, as its name is, and have the version of its end."""
    server.store.patch([Patch(SpanRef(TRACE, 1), LATER)])
    again = spans({"name": "again", "attributes": {"metadata.plan": "plain", "metadata.b": "c"}})
    assert send(server, key("traces:write"), again, over) == Sent(200, 0, "")
    record = only(server.store, span_id=SHOP)
    assert (record.name, record.metadata) == ("again", {"plan": "updated", "b": "c"})


def test_a_version_that_a_plain_attribute_names_is_an_update_as_well(server, key):
    versions = json.dumps([["span", "metadata", "plan", END_NS + 9, f"{0:016x}"]])
    again = spans({"attributes": {"metadata.plan": "updated", "otel_metadata.versions": versions}})
    assert "traces:update" in send(server, key("traces:write"), again, "json").message
    assert only(server.store, span_id=SHOP).metadata == {"plan": "free"}


# A token for one project.


@OVER
@pytest.mark.parametrize(
    ("request_of", "names_project"),
    [
        (lambda: spans({"span": BANK}, project="shop"), False),
        (lambda: spans({"span": BANK}), False),
        (lambda: spans({"span": BANK_ROOT, "trace": T2}, project="shop"), False),
        (lambda: spans({"span": "aa" * 8}, project="bank", name="openinference.project.name"), True),
        (lambda: spans(update_span(BANK), scope=PATCH_SCOPE), False),
        (lambda: of_langwatch(T2), False),
        (lambda: of_langwatch(T1, "bank"), True),
        (lambda: evaluation(BANK), False),
        (lambda: evaluation("", T2), False),
    ],
    ids=[
        "a span",
        "no project",
        "a root",
        "a project",
        "an update",
        "of LangWatch",
        "its project",
        "logs",
        "of a trace",
    ],
)
def test_a_token_takes_over_and_changes_no_span_of_another_project(server, key, request_of, names_project, over):
    """A project that it names is a fault of all its requests: 403. The ids of a span are one of this span alone."""
    before, count = of_bank(server), len(server.store.query(SpanQuery(limit=None)))
    shop = key(project="shop")
    answer = send(server, shop, request_of(), over)
    assert (answer.status, answer.refused) == ((403, 0) if names_project else (200, 1))
    assert "project" in answer.message
    assert of_bank(server) == before
    assert len(server.store.query(SpanQuery(limit=None))) == count
    for path in (f"spans/{BANK}", f"spans/{BANK}/history", f"traces/{T2}"):
        assert server.call("GET", f"/api/v1/{path}", headers={"X-Auth-Token": shop}).status == 404
    assert send(server, key(), request_of(), over) == Sent(200, 0, "")


@OVER
def test_spans_of_another_project_are_refused_beside_own_ones(server, key, over):
    before = of_bank(server)
    request = spans({"span": BANK}, {"span": "aa" * 8}, {"name": "own again"}, project="shop")
    answer = send(server, key(project="shop"), request, over)
    assert (answer.status, answer.refused) == (200, 1)
    assert of_bank(server) == before
    assert only(server.store, span_id="aa" * 8).project == "shop"
    assert only(server.store, span_id=SHOP).name == "own again"


@OVER
def test_updates_and_evaluations_of_own_spans_are_stored(server, key, over):
    """Also those that come in one request with their span; an update of a span that is not stored has no project."""
    shop = key(project="shop")
    request = spans({"span": "aa" * 8}, project="shop")
    add_spans(request, update_span(), update_span("aa" * 8), scope=PATCH_SCOPE)
    assert send(server, shop, request, over) == Sent(200, 0, "")
    assert send(server, shop, evaluation(), over) == Sent(200, 0, "")
    assert only(server.store, span_id=SHOP).metadata == {"plan": "updated"}
    assert only(server.store, span_id=SHOP).evaluations["Tone"].score == 0.5
    assert only(server.store, span_id="aa" * 8).metadata == {"plan": "updated"}
    for unknown in (evaluation("bb" * 8), spans(update_span("bb" * 8), scope=PATCH_SCOPE)):
        answer = send(server, shop, unknown, over)
        assert (answer.status, answer.refused) == (200, 1)
        assert "is not in" in answer.message
    assert server.store.history(T1, "bb" * 8) == []


def test_our_own_library_tries_an_update_again_until_its_span_is_stored(server, key, monkeypatch):
    """The update of another process may come before the span; with a token for one project it cannot wait there."""
    refused = threading.Event()

    def told(*given: Any) -> Any:
        targets = locate_all(*given)
        if any(isinstance(target, SpanNotFoundError) for target in targets):
            refused.set()
        return targets

    monkeypatch.setattr(updates, "locate_all", told)
    shop = key("traces:write", "traces:update", project="shop")
    pipeline = om.configure(f"serve://{shop}@127.0.0.1:{server.local.port}", tracer_provider=TracerProvider())
    om.update_span(SpanRef(TRACE, 0xAA), metadata={"late": "update"})
    assert refused.wait(PATIENCE)
    assert server.store.history(T1, f"{0xAA:016x}") == []
    server.store.write([ended_span(0xAA, resource=Resource({"service.name": "shop"}))])
    # The first flush may still meet the try that was refused.
    assert om.flush(PATIENCE * 1_000) or om.flush(PATIENCE * 1_000)
    assert only(server.store, span_id=f"{0xAA:016x}").metadata == {"late": "update"}
    assert pipeline.stats().destinations["serve"].lost == {}
    om.shutdown()


def test_a_portion_is_looked_up_at_once_and_for_a_restricted_token_only(server, key, monkeypatch):
    asked: list[int] = []
    kept = SqliteStore.locate

    def counted(store: SqliteStore, keys: Any, project: str | None) -> Any:
        asked.append(len(keys))
        return kept(store, keys, project)

    monkeypatch.setattr(SqliteStore, "locate", counted)
    monkeypatch.setattr(SqliteStore, "search", None)  # what a query of one span would call
    many = spans(*({"span": f"{number:016x}"} for number in range(10, 2_510)), project="shop")
    assert send(server, key(), many, "protobuf").status == 200
    assert send(server, key("traces:write"), many, "protobuf").status == 200
    assert asked == []
    assert send(server, key(project="shop"), many, "protobuf").status == 200
    assert asked == [1_000, 1_000, 500]


def test_refused_log_records_are_counted_by_themselves(server, key):
    mixed = evaluation()
    mixed.resource_logs[0].scope_logs[0].log_records.add()
    assert send(server, key(), mixed, "protobuf").refused == 1
    text = server.call("GET", "/metrics", headers={"X-Auth-Token": key()}).data.decode()
    assert "otel_metadata_server_log_records_refused_total 1\n" in text
    assert "otel_metadata_server_spans_refused_total 0\n" in text


@pytest.mark.parametrize("is_plain", [False, True], ids=["SQLite", "a store of a third party"])
def test_spans_are_located_by_project(tmp_path, is_plain):
    """Of one span id in several traces, the spans of the project come first, then the newest."""
    store = SqliteStore(tmp_path / "spans.db")
    shop, bank = (Resource({"service.name": name}) for name in ("shop", "bank"))
    store.write(
        [
            ended_span(1, trace_id=1, resource=shop),
            ended_span(1, trace_id=2, resource=shop, start_ns=START_NS + 1),
            ended_span(1, trace_id=3, resource=bank, start_ns=START_NS + 2),
            ended_span(2, trace_id=3),
        ]
    )
    asked: Any = Plain(store) if is_plain else store
    one, two, other = f"{1:016x}", f"{2:016x}", f"{9:016x}"
    keys = [(None, one), (trace_hex(1), one), (trace_hex(3), one), (None, two), (trace_hex(3), ""), (trace_hex(2), "")]
    keys += [(None, other), (trace_hex(9), ""), (trace_hex(9), one)]

    def found(project: str | None) -> list[Any]:
        places = locate(asked, project, keys)
        return [(int(places[key].trace_id, 16), places[key].is_own) if key in places else None for key in keys]

    assert found("shop") == [(2, True), (1, True), (3, False), (3, False), (3, False), (2, True), None, None, None]
    assert found("bank") == [(3, True), (1, False), (3, True), (3, False), (3, True), (2, False), None, None, None]
    assert found(None) == [(3, True), (1, True), (3, True), (3, True), (3, True), (2, True), None, None, None]
    assert locate(asked, "shop", []) == {}
    store.close()


# Every operation.

TRACE_UUID, SPAN_UUID = "a8e45d41-5260-4bce-a230-009bf6840c24", "27c57d25-c01f-42a9-9095-c1e150130fed"
STREAM_UUID = "7d9a4c11-93a0-4be2-8f37-2f2b8e6f0d14"
CHANGE = {"metadata": {"plan": "updated"}}
VERDICT = {"score": 1, "label": "updated"}
NATIVE = {"type": "workflow", "id": SPAN_UUID, "name": "updated", "input": "updated", "output": "o"}


@dataclass
class Row:
    """One request about the bank, and what the shop's token gets for it.

    Attributes:
        operation: Its name; with and without `V2` for Galileo's.
        path: With the query.
        body: JSON, or bytes of a line of JSON.
        status: For the token of the shop.
        shows: Whether the answer has secrets for the token of the bank.
        is_banks: Whether the token of the bank succeeds with it, and not only one for all projects.
    """

    operation: str
    path: str
    body: Any = ...
    status: int = 403
    shows: bool = False
    is_banks: bool = True


def rows(galileo: str) -> Iterator[Row]:
    """Yield requests to every operation.

    Args:
        galileo: The UUID of the bank's project.
    """
    yield from reads()
    for path, name, body in (
        (f"spans/{BANK}", "update_span", CHANGE),
        (f"spans/{BANK}?trace_id={T1}", "update_span", CHANGE),
        (f"traces/{T2}", "update_trace", CHANGE),
        (f"spans/{BANK}/evaluations/Tone", "set_span_evaluation", VERDICT),
        (f"spans/{BANK}/annotations/note", "set_span_annotation", {"text": "updated"}),
        (f"traces/{T2}/evaluations/Tone", "set_trace_evaluation", VERDICT),
        (f"traces/{T2}/annotations/note", "set_trace_annotation", {"text": "updated"}),
    ):
        yield Row(name, f"/api/v1/{path}", body)
    exact = {
        "level": "span",
        "kind": "metadata",
        "key": "plan",
        "value": "x",
        "time_ns": f"{END_NS + 9}",
        "writer": "7",
    }
    for update in ({"span_id": BANK, **CHANGE}, {"trace_id": T2, **CHANGE}, {"span_id": BANK, "fields": [exact]}):
        for route in ("late", "live"):
            yield Row("update_many", "/api/v1/spans:batch", {"updates": [update], "route": route}, 200)
    yield Row("import_spans", "/api/v1/import", json.dumps(in_json(spans({"span": BANK}))).encode(), is_banks=False)
    yield Row("retain", "/api/v1/retain", {"older_than_seconds": 5}, is_banks=False)
    yield from of_vendors(galileo)
    yield from of_otlp()
    yield Row("delete_spans", "/api/v1/spans", {"spans": [{"span_id": BANK}, {"span_id": SHOP}]}, is_banks=False)
    yield Row("delete_spans", "/api/v1/spans", {"spans": [{"span_id": BANK_ROOT, "trace_id": T2}]})


def reads() -> Iterator[Row]:
    window = f"{SINCE}&end_time=2030-01-01"
    for query in (SINCE, f"trace_id={T1}", f"trace_id={T2}", f"{SINCE}&span_id={BANK}", f"{SINCE}&exact=true"):
        yield Row("list_spans", f"/api/v1/spans?{query}", status=200, shows=True)
    yield Row("list_spans", f"/api/v1/spans?{SINCE}&at=2029-01-01", status=200, shows=True)
    yield Row("list_spans", f"/api/v1/spans?{SINCE}&filter=metadata.secret%20%3D%20'secret'", status=200, shows=True)
    for query in ("", f"?trace_id={T1}", "?exact=true", "?at=2029-01-01", "?at=2029-01-01&exact=true"):
        yield Row("get_span", f"/api/v1/spans/{BANK}{query}", status=404, shows=True)
    for query in ("", f"?trace_id={T1}", f"?trace_id={T1}&stored=false", "?field=metadata.secret"):
        yield Row("get_span_history", f"/api/v1/spans/{BANK}/history{query}", status=404, shows=True)
    for query in (f"{window}&bars=1", f"{window}&bars=1&trace_id={T2}"):
        yield Row("get_histogram", f"/api/v1/histogram?{query}", status=200)
    for query in (SINCE, f"trace_id={T2}", f"{SINCE}&filter=metadata.secret%20%3D%20'secret'"):
        yield Row("count_spans", f"/api/v1/count?{query}", status=200)
    yield Row("find_spans", "/api/v1/spans:find", {"span_ids": [BANK, BANK_ROOT, SHOP]}, 200)
    for query in (
        "kind=metadata",
        "kind=tag",
        "kind=evaluation",
        "kind=metadata&level=trace",
        "kind=metadata&prefix=s",
    ):
        yield Row("list_names", f"/api/v1/names?{query}", status=200, shows=True)
    yield Row("list_traces", f"/api/v1/traces?{SINCE}", status=200, shows=True)
    for kind in ("traces", "spans"):
        query = f"{SINCE}&rows={kind}&by=metadata.secret"
        yield Row("get_summary", f"/api/v1/summary?{query}", status=200, shows=kind == "spans")
        yield Row("get_summary", f"/api/v1/summary?{query}&project=bank")
    yield Row("list_late_values", f"/api/v1/late-values?{SINCE}", status=200, shows=True)
    yield Row("get_trace", f"/api/v1/traces/{T1}", status=200, shows=True)
    yield Row("get_trace", f"/api/v1/traces/{T1}?at=2029-01-01", status=200, shows=True)
    yield Row("get_trace", f"/api/v1/traces/{T2}", status=404, shows=True)
    for query in ("", "?stored=false"):
        yield Row("get_trace_history", f"/api/v1/traces/{T2}/history{query}", status=404, shows=True)
    for suffix in ("jsonl", "csv", "parquet"):
        yield Row(f"export_{suffix}", f"/api/v1/export.{suffix}?{SINCE}", status=200, shows=suffix != "parquet")
        yield Row(f"export_{suffix}", f"/api/v1/export.{suffix}?project=bank")
    for path in ("spans", "traces", "count", "histogram"):
        name = {"spans": "list_spans", "traces": "list_traces", "count": "count_spans", "histogram": "get_histogram"}
        yield Row(name[path], f"/api/v1/{path}?project=bank&{SINCE}")
    for text in ("metadata.se", "tag = 's", "eval.s", "trace.metadata.s"):
        yield Row("check_filter", "/api/v1/filter", {"text": text}, 200, shows=text == "metadata.se")
    yield Row("get_info", "/api/v1/info", status=200)
    yield Row("get_metrics", "/metrics", status=200)
    yield Row("langfuseProjects", "/api/public/projects", status=200)
    yield Row("logfireInfo", "/v1/info", status=200)


def of_vendors(project: str) -> Iterator[Row]:
    yield Row("langwatchUpdateTraceMetadata", f"/api/traces/{T2}/metadata", CHANGE)
    for trace_id, span_id in ((T2, None), (T1, BANK)):
        score = {"name": "Tone", "value": 1, "traceId": trace_id, "observationId": span_id}
        yield Row("langfuseCreateScores", "/api/public/scores", score)
        yield Row("langfuseCreateScores", "/api/public/scores", [score], 207)
        event = {"id": "1", "type": "score-create", "timestamp": "2026-01-01T00:00:00Z", "body": score}
        yield Row("langfuseIngestion", "/api/public/ingestion", {"batch": [event]}, 207)
    for prefix, suffix in (("", ""), ("/v2", "V2")):
        # The other one is a UUID that nobody has named: a project of whoever uses it first.
        for of_project in (project, STREAM_UUID):
            path, is_banks = f"{prefix}/projects/{of_project}", of_project == project
            for span_id in (BANK, SPAN_UUID):
                update = {"span_id": span_id, "output": "updated", "status_code": 500, "reliable": True}
                yield Row(f"galileoUpdateSpan{suffix}", f"{path}/spans/{span_id}", update, is_banks=is_banks)
            for trace_id in (T2, TRACE_UUID):
                update = {"trace_id": trace_id, "output": "updated", "reliable": True, "duration_ns": 5}
                yield Row(f"galileoUpdateTrace{suffix}", f"{path}/traces/{trace_id}", update, is_banks=is_banks)
            trace = {"type": "trace", "id": TRACE_UUID, "name": "updated", "input": "updated", "spans": [NATIVE]}
            below = {"trace_id": TRACE_UUID, "parent_id": TRACE_UUID, "spans": [NATIVE]}
            sent = [(f"{path}/traces", f"galileoIngestTraces{suffix}", {"traces": [trace]})]
            sent += [(f"{path}/spans", f"galileoIngestSpans{suffix}", below)]
            if not prefix:
                sent += [(f"/ingest/traces/{of_project}", "galileoIngestTracesDirectly", {"traces": [trace]})]
                sent += [(f"/ingest/spans/{of_project}", "galileoIngestSpansDirectly", below)]
            for to, name, body in sent:
                yield Row(name, to, body, is_banks=is_banks)
        yield Row(f"galileoCurrentUser{suffix}", f"{prefix}/current_user", status=200)
        yield Row(f"galileoProjects{suffix}", f"{prefix}/projects", status=200)
        yield Row(f"galileoCreateProject{suffix}", f"{prefix}/projects", {"name": "bank"})
        path = f"{prefix}/projects/{project}"
        yield Row(f"galileoProject{suffix}", path)
        yield Row(f"galileoLogStreams{suffix}", f"{path}/log_streams", shows=True)
        yield Row(f"galileoLogStreamsPaginated{suffix}", f"{path}/log_streams/paginated", shows=True)
        yield Row(f"galileoCreateLogStream{suffix}", f"{path}/log_streams", {"name": "secret"}, shows=True)
        yield Row(f"galileoCreateSession{suffix}", f"{path}/sessions", {"external_id": "secret"}, shows=True)
        yield Row(f"galileoSearchSessions{suffix}", f"{path}/sessions/search", {}, shows=True)


def of_otlp() -> Iterator[Row]:
    updated = spans(update_span(BANK), scope=PATCH_SCOPE)
    for one in OPERATIONS:
        if one.name.startswith("export_traces"):
            for request in (spans({"span": BANK}), updated, of_langwatch(T2)):
                yield Row(one.name, one.path, in_json(request), 200)
        elif one.name.startswith("export_logs"):
            for log in (evaluation(BANK), evaluation("", T2)):
                yield Row(one.name, one.path, in_json(log), 200)
        elif one.name.startswith("export_metrics"):
            yield Row(one.name, one.path, {"resourceMetrics": []}, 200)


def test_no_operation_shows_or_changes_what_is_of_another_project(server, key):
    """Each with the token of the shop, and then with that of the bank, for which it does."""
    keys = {name: {"Authorization": f"Bearer {key(project=name)}"} for name in ("shop", "bank")}

    def call(row: Row, name: str) -> Any:
        method = next(one.method for one in OPERATIONS if one.name == row.operation)
        if isinstance(row.body, bytes):
            return server.call(method, row.path, body=row.body, headers=keys[name])
        return server.call(method, row.path, json=row.body, headers=keys[name])

    project = call(Row("galileoCreateProject", "/projects", {"name": "bank"}), "bank").json()["id"]
    for row in (
        Row("galileoCreateLogStream", f"/projects/{project}/log_streams", {"name": "secret stream"}),
        Row("galileoCreateSession", f"/projects/{project}/sessions", {"external_id": "secret session"}),
        Row(
            "galileoIngestTraces",
            f"/projects/{project}/traces",
            {"traces": [{"type": "trace", "id": TRACE_UUID, "name": "secret", "input": "secret", "spans": [NATIVE]}]},
        ),
    ):
        assert call(row, "bank").status == 200
    requests = list(rows(project))
    assert {row.operation for row in requests} | {"follow_changes"} == {
        one.name for one in OPERATIONS if one.scope is not None
    }
    server.store.patch([Patch(SpanRef(TRACE, 2), {("span", "metadata", "secret late"): ("secret", (END_NS + 1, 3))})])
    before = of_bank(server)
    assert len(before[0]) == 4
    wrong = []
    answer: Any
    for row in requests:
        answer = call(row, "shop")
        asked = f"{row.path} {row.body}"
        is_shown = any(word.encode() in answer.data and word not in asked for word in ("secret", "bank"))
        if answer.status != row.status or is_shown or of_bank(server) != before:
            wrong.append((row, answer.status, answer.data[:300]))
    assert not wrong, "\n".join(map(str, wrong))
    named = {**keys["shop"], "projectid": project, "logstreamid": STREAM_UUID}
    answer = server.call("POST", "/v1/traces", json=in_json(spans({"span": "aa" * 8})), headers=named)
    assert (answer.status, b"bank" in answer.data) == (403, False)
    for row in requests:
        answer = call(row, "bank") if row.is_banks else None
        if answer is not None and (answer.status >= 300 or (row.shows and b"secret" not in answer.data)):
            wrong.append((row, answer.status, answer.data[:300]))
    assert not wrong, "\n".join(map(str, wrong))
    assert of_bank(server) != before


def test_a_client_with_a_token_for_one_project_works_on_that(server, key):
    """Over the API, as on a store that has only the spans of the project."""
    before = of_bank(server)
    with Client(f"serve://{key(project='shop')}@127.0.0.1:{server.local.port}", author="judge") as client:
        assert [one.span_id for one in client.spans.list(start_time="2000-01-01")] == [SHOP]
        assert client.spans.count(start_time="2000-01-01").counted == 1
        assert client.spans.update(SHOP, metadata={"plan": "pro"}).spans_updated == 1
        assert client.spans.get(SHOP).metadata == {"plan": "pro"}
        for ask in (
            lambda: client.spans.get(BANK),
            lambda: client.spans.history(BANK),
            lambda: client.traces.get(T2),
            lambda: client.spans.update(BANK, metadata={"plan": "pro"}),
            lambda: client.spans.update(T2, level="trace", metadata={"plan": "pro"}),
        ):
            with pytest.raises(SpanNotFoundError):
                ask()
        client.spans.delete([BANK_ROOT])
        with pytest.raises(StoreAccessError):
            client.spans._store.delete([(T2, BANK_ROOT)], (END_NS + 1, 7))
    assert of_bank(server) == before


def test_numbers_are_those_of_the_project(server, key):
    """Counts, bars and lists, and which spans are there at all."""
    shop = {"Authorization": f"Bearer {key(project='shop')}"}

    def get(path: str, **body: Any) -> Any:
        if body:
            return server.call("POST", f"/api/v1/{path}", json=body, headers=shop).json()
        return server.call("GET", f"/api/v1/{path}", headers=shop).json()

    assert get(f"count?{SINCE}")["counted"] == 1
    assert get(f"count?trace_id={T2}")["counted"] == 0
    assert get(f"histogram?{SINCE}&end_time=2030-01-01&bars=1")["bars"][0]["spans"] == 1
    assert [one["span_id"] for one in get("spans:find", span_ids=[BANK, BANK_ROOT, SHOP])["spans"]] == [SHOP]
    assert [one["span_id"] for one in get(f"spans?{SINCE}")["spans"]] == [SHOP]
    assert [one["span_id"] for one in get(f"traces/{T1}")["spans"]] == [SHOP]
    failed = ended_span(5, resource=Resource({"service.name": "bank"}), status=Status(StatusCode.ERROR))
    server.store.write([failed])
    server.store.patch([Patch(SpanRef(TRACE, at), LATER) for at in (1, 5)])

    def numbers(headers: dict[str, str]) -> Any:
        (trace,) = server.call("GET", f"/api/v1/traces?{SINCE}&trace_id={T1}", headers=headers).json()["traces"]
        return trace["spans"], trace["errors"], trace["late_values"]

    assert numbers(shop) == (1, 0, 1)
    assert numbers({"Authorization": f"Bearer {key()}"}) == (3, 1, 2)


def test_events_say_only_that_something_has_changed(server, key):
    headers = {"Authorization": f"Bearer {key('read', project='shop')}"}
    stream = server.call("GET", "/api/v1/events", headers=headers, preload_content=False)
    parts = stream.stream(1 << 10)
    first = next(parts)
    assert server.call("PATCH", f"/api/v1/spans/{BANK}", json=CHANGE, headers={"X-Auth-Token": key()}).status == 200
    told = first + next(parts)
    stream.close()
    lines = {line.partition(b":")[0] for line in told.splitlines() if line}
    assert lines == {b"retry", b"id", b"event", b"data"}
    assert json.loads(told.splitlines()[-2].removeprefix(b"data: ")).keys() == {"cursor"}
