"""Galileo's API: updates of stored records, its own ingestion, and what its SDK asks when it starts.

The updates do what Galileo's documentation says ("Update Span", "Update Trace"): tags are added, and input, output and
status code are overwritten. Neither has a field for metadata. With `reliable: true` the answer waits until the store
has the update, and reports a failure. With `reliable: false`, the default, the answer goes out at once and a failure is
only logged; a server that is stopped stores the update all the same.

Types are checked strictly, where Galileo's own server takes `"200"` for a number. Names that the schema does not have
are ignored, as there. Every path works with and without `/v2`, which Galileo's SDK uses both ways.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, final
from uuid import UUID
from uuid import uuid4 as random_uuid4

import msgspec

from otel_metadata._version import __version__
from otel_metadata.live.values import masked
from otel_metadata.model.condition import IsNull, Subject
from otel_metadata.model.merge import FieldName, Json, Level
from otel_metadata.model.record import SpanQuery, SpanRecord
from otel_metadata.model.times import time_text
from otel_metadata.model.value import CAPTURE_LIMITS, clean
from otel_metadata.server.operations import JSON, Answer, Call, Operation, Problem, Scope
from otel_metadata.server.vendors import galileo_records as records
from otel_metadata.server.vendors.bodies import check_project, check_spans, fields_of, json_of
from otel_metadata.server.vendors.galileo_ids import (
    derived_uuid4,
    invalid,
    span_id_in_path,
    trace_id_in_path,
    uuid4,
)
from otel_metadata.server.vendors.jwt import jwt_of
from otel_metadata.server.vendors.names import Named, Names, names_of

if TYPE_CHECKING:
    from otel_metadata.model.merge import Fields
    from otel_metadata.model.record import StoredSpan

Record: TypeAlias = Literal["span", "trace"]

_METHODS: Final = ("playground", "python_client", "typescript_client", "api_direct")
_IDS: Final = ("log_stream_id", "experiment_id", "metrics_testing_id")
_SINCE: Final = time_text(0)
_USER: Final[Mapping[str, Json]] = {"id": derived_uuid4("user"), "email": "user@localhost", "role": "user"}

# Objects of Python take about so much more than the JSON that they were read from.
_GROWTH: Final = 8

_STATUS: Final[FieldName] = ("span", "status", "")
_IS_ROOT: Final = IsNull(Subject("span", "parent_id"))


@final
@dataclass(frozen=True, slots=True)
class Update:
    """The body of an update.

    Attributes:
        values: The new values, without those of the whole record's status.
        status_code: The new status code, or None.
        duration_ns: The new duration, or None.
        is_reliable: Whether the answer waits for the store.
        ids: `log_stream_id`, `experiment_id` and `metrics_testing_id`, as they were sent.
    """

    values: Mapping[FieldName, Json]
    status_code: int | None
    duration_ns: int | None
    is_reliable: bool
    ids: Mapping[str, str | None]


def update_of(record: Record, in_path: str, body: bytes) -> Update:
    """Return what the body of an update says.

    Args:
        record: What is updated.
        in_path: Its id in the path.
        body: JSON.

    Raises:
        Problem: 422 with the place of the first value that is refused.
    """
    document = _document(body)
    own = f"{record}_id"
    if own not in document:
        raise invalid(f"/body/{own}", "missing", "Field required")
    given = document[own]
    if not isinstance(given, str) or given.lower() != in_path.lower():
        identifier = uuid4(given, f"/body/{own}")
        if not _is_same(identifier, in_path):
            raise invalid(f"/body/{own}", "value_error", f"Value error, {own} should be the id in the path")
    method = document.get("logging_method", "api_direct")
    if method not in _METHODS:
        listed = f"{', '.join(map(repr, _METHODS[:-1]))} or {_METHODS[-1]!r}"
        raise invalid("/body/logging_method", "enum", f"Input should be {listed}")
    _is(document, "client_version", str, "string_type", "Input should be a valid string")
    reliable = document.get("reliable", False)
    if not isinstance(reliable, bool):
        raise invalid("/body/reliable", "bool_type", "Input should be a valid boolean")
    _is(document, "is_complete", bool, "bool_type", "Input should be a valid boolean")
    values: dict[FieldName, Json] = {}
    level: Level = record
    for kind in ("input", "output"):
        value = document.get(kind)
        # A span's may be messages or documents as well.
        if value is not None and not isinstance(value, str if record == "trace" else str | dict | list):
            raise invalid(f"/body/{kind}", "string_type", "Input should be a valid string")
        if value is not None:
            values[level, "input" if kind == "input" else "output", ""] = clean(value, [], kind, CAPTURE_LIMITS)
    values |= {(level, "tag", tag): True for tag in records.tags_of(document.get("tags"), "/body/tags")}
    return Update(
        values=masked(values, []),
        status_code=_integer(document, "status_code", -(1 << 31), 1 << 31),
        duration_ns=_integer(document, "duration_ns", 0, 1 << 62),
        is_reliable=reliable,
        ids={name: _id_or_none(document, name) for name in _IDS},
    )


def _is_same(identifier: UUID, in_path: str) -> bool:
    try:
        return UUID(in_path) == identifier
    except ValueError:
        return False


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json_of(body, 422)
    except Problem as problem:
        raise invalid("/body", "json_invalid", f"JSON decode error: {problem.title}") from None
    if not isinstance(document, dict):
        raise invalid("/body", "model_attributes_type", "Input should be a valid dictionary or object")
    return document


def _is(document: Mapping[str, Any], name: str, kind: type, problem: str, message: str) -> None:
    found = document.get(name)
    if found is not None and not isinstance(found, kind):
        raise invalid(f"/body/{name}", problem, message)


def _integer(document: Mapping[str, Any], name: str, low: int, high: int) -> int | None:
    found = document.get(name)
    if found is None:
        return None
    if not isinstance(found, int) or isinstance(found, bool):
        raise invalid(f"/body/{name}", "int_type", "Input should be a valid integer")
    if not low <= found < high:
        raise invalid(f"/body/{name}", "int_range", f"Input should be from {low} to {high - 1}")
    return found


def _id_or_none(document: Mapping[str, Any], name: str) -> str | None:
    found = document.get(name)
    return f"{uuid4(found, f'/body/{name}')}" if found is not None else None


async def update_span(call: Call) -> Answer:
    """Change a stored span."""
    in_path = call.path["span_id"]
    project_id = f"{uuid4(call.path['project_id'], '/path/project_id')}"
    span_id = span_id_in_path(in_path)
    update = update_of("span", in_path, call.body)
    changed = dict(update.values)
    if update.status_code is not None:
        changed[_STATUS] = update.status_code
    fields = fields_of(call, changed)  # before anything waits: their order is that of the calls

    async def apply() -> None:
        found = (await call.service.find(lambda: call.service.store.find({span_id}))).get(span_id)
        if found is None:
            raise Problem(404, f"Span {in_path} is not stored; expected a span that was sent before its update.")
        await check_project(call, found.trace_id, span_id)
        rows = await _lasting(call, found.trace_id, span_id, update.duration_ns)
        await call.service.ingest(rows, [(found.trace_id, span_id, fields)] if fields else [])

    return await _answered(call, update, apply, project_id, {"span_id": in_path})


async def update_trace(call: Call) -> Answer:
    """Change a stored trace. Its status is that of its root."""
    in_path = call.path["trace_id"]
    project_id = f"{uuid4(call.path['project_id'], '/path/project_id')}"
    trace_id = trace_id_in_path(in_path)
    update = update_of("trace", in_path, call.body)
    fields = fields_of(call, update.values)
    of_root = fields_of(call, {_STATUS: update.status_code}) if update.status_code is not None else {}

    async def apply() -> None:
        root = await _found(call, SpanQuery(trace_id, condition=_IS_ROOT, limit=1))
        if root is None:  # it may not have come yet
            root = await _found(call, SpanQuery(trace_id, limit=1))
        if root is None:
            raise Problem(404, f"Trace {in_path} is not stored; expected a trace that was sent before its update.")
        changes_root = bool(of_root) or update.duration_ns is not None
        await check_project(call, trace_id, root.span_id if changes_root else "")
        rows = await _lasting(call, trace_id, root.span_id, update.duration_ns)
        patches = [(trace_id, "", fields), (trace_id, root.span_id, of_root)]
        await call.service.ingest(rows, [patch for patch in patches if patch[2]])

    return await _answered(call, update, apply, project_id, {"trace_id": in_path})


async def _lasting(call: Call, trace_id: str, span_id: str, duration_ns: int | None) -> list[tuple[StoredSpan, Fields]]:
    """Return the row of a span with another end; none if the update does not name a duration."""
    record = await _found(call, SpanQuery(trace_id, span_id, limit=1)) if duration_ns is not None else None
    if record is None or duration_ns is None:
        return []
    return [(replace(record.span, end_ns=min(record.span.start_ns + duration_ns, (1 << 63) - 1)), {})]


async def _found(call: Call, query: SpanQuery) -> SpanRecord | None:
    return next(iter(await call.service.find(lambda: call.service.store.query(query))), None)


async def _answered(
    call: Call,
    update: Update,
    apply: Callable[[], Coroutine[object, object, None]],
    project_id: str,
    own: Mapping[str, Json],
) -> Answer:
    """Apply an update, or answer first, and return the reply with every documented key."""
    if update.is_reliable:
        await apply()
    else:
        call.service.soon(apply())
    names = names_of(call.service.store)
    named = await call.service.find(lambda: names.get("project", project_id))
    return Answer(
        {
            "project_id": project_id,
            "project_name": named.name if named is not None else project_id,
            # The documentation requires one, and the answer does not wait for the store: it says whose session it is.
            "session_id": derived_uuid4("session of", *map(str, own.values())),
            "records_count": 1,
            **update.ids,
            **own,
        }
    )


def _session_uuid(project_id: str, session: str) -> str:
    """Return the UUID of a session, which the store knows by its external id, its name or the UUID itself."""
    try:
        return f"{uuid4(session, '')}"
    except Problem:
        return derived_uuid4("session", project_id, session)


async def ingest_traces(call: Call) -> Answer:
    """Store traces with the spans inside them."""
    async with call.service.room.of(len(call.body) * _GROWTH):
        project, document, names = await _ingestion(call)
        session_id = _id_or_none(document, "session_id")
        session = document.get("session_external_id")
        if session is not None and not isinstance(session, str):
            raise invalid("/body/session_external_id", "string_type", "Input should be a valid string")
        if session is None and session_id is not None:
            named = await call.service.find(lambda: names.get("session", session_id))
            session = named.name if named is not None else session_id
        place = await _place(call, project, document, names, session)
        rows, count = await call.service.decode(lambda: records.traces(document.get("traces"), place))
        await check_spans(call, rows)
        await call.service.ingest(rows, size=len(call.body))
    roots = [f"{UUID(row.trace_id)}" for row, _ in rows if row.parent_id is None]
    ids = {"traces_count": count, "traces_id": roots}
    return Answer(
        {**_ingested(project, document, session_id or derived_uuid4("session of", roots[0]), len(rows)), **ids}
    )


async def ingest_spans(call: Call) -> Answer:
    """Store spans below a trace or span that is stored before or after them."""
    async with call.service.room.of(len(call.body) * _GROWTH):
        project, document, names = await _ingestion(call)
        trace_id, parent_id = document.get("trace_id"), document.get("parent_id")
        place = await _place(call, project, document, names, None)
        rows = await call.service.decode(lambda: records.spans(document.get("spans"), trace_id, parent_id, place))
        await check_spans(call, rows)
        await call.service.ingest(rows, size=len(call.body))
    ids = {"trace_id": trace_id, "parent_id": parent_id}
    return Answer({**_ingested(project, document, derived_uuid4("session of", f"{trace_id}"), len(rows)), **ids})


async def _ingestion(call: Call) -> tuple[Named, dict[str, Any], Names]:
    project_id = f"{uuid4(call.path['project_id'], '/path/project_id')}"
    document = await call.service.decode(lambda: _document(call.body))
    names = names_of(call.service.store)
    named = await call.service.find(lambda: names.get("project", project_id))
    # Somebody who calls without the SDK may choose an id of their own.
    project = named if named is not None else Named(project_id, call.caller.project or project_id, "")
    _check_name(call, project.name)
    return project, document, names


def _check_name(call: Call, project: str) -> None:
    if call.caller.project not in (None, project):
        raise Problem(403, f"The project is {project!r}; this token may only use {call.caller.project!r}.")


async def _place(
    call: Call, project: Named, document: Mapping[str, Any], names: Names, session: str | None
) -> records.Place:
    resource: dict[str, Json] = {"service.name": project.name, "galileo.project.id": project.id}
    log_stream = _id_or_none(document, "log_stream_id")
    if log_stream is not None:
        named = await call.service.find(lambda: names.get("log_stream", log_stream))
        resource["galileo.logstream.id"] = log_stream
        if named is not None:
            resource["galileo.logstream.name"] = named.name
    experiment = _id_or_none(document, "experiment_id")
    if experiment is not None:
        resource["galileo.experiment.id"] = experiment
    return records.Place(resource, session, call.service.clock.wall_ns())


def _ingested(project: Named, document: Mapping[str, Any], session_id: str, count: int) -> dict[str, Json]:
    return {
        "project_id": project.id,
        "project_name": project.name,
        "session_id": session_id,
        "records_count": count,
        **{name: _id_or_none(document, name) for name in _IDS},
    }


async def healthcheck(call: Call) -> Answer:
    """Say that the server answers."""
    return Answer({"message": "ok", "version": __version__, "api_version": __version__})


async def login(call: Call) -> Answer:
    """Give the API key back as a token of the form that the SDK expects."""
    api_key = _document(call.body).get("api_key")
    if not isinstance(api_key, str):
        raise invalid("/body/api_key", "string_type", "Input should be a valid string")
    # Everything that the SDK asks next needs this scope, so a wrong key is refused where the SDK says so.
    call.service.access.caller("traces:write", {"galileo-api-key": api_key})
    return Answer({"access_token": jwt_of(api_key), "token_type": "bearer"})


async def current_user(call: Call) -> Answer:
    """Say who calls."""
    return Answer({**_USER, "email": f"{call.caller.name}@localhost"})


def _project(named: Named) -> dict[str, Json]:
    return {
        "id": named.id,
        "name": named.name,
        "type": "gen_ai",
        "created_by": _USER["id"],
        "created_by_user": dict(_USER),
        "created_at": _SINCE,
        "updated_at": _SINCE,
        "runs": [],
        "permissions": [],
    }


class ProjectsQuery(msgspec.Struct):
    """The query of `projects`; further parameters are ignored.

    Attributes:
        project_name: Only projects with this in their name.
    """

    project_name: str = ""


async def projects(call: Call) -> Answer:
    """List the projects that a caller has named so far."""
    names = names_of(call.service.store)
    found = await call.service.find(lambda: names.all("project"))
    wanted: str = call.query.project_name
    seen = [one for one in found if call.caller.project in (None, one.name) and wanted in one.name]
    return Answer([_project(one) for one in seen])


async def create_project(call: Call) -> Answer:
    """Return the project of this name; the same name always has the same id."""
    name = _name_in(call)
    _check_name(call, name)
    return Answer(_project(await _kept(call, "project", Named(derived_uuid4("project", name), name, ""))))


async def project(call: Call) -> Answer:
    """Return a project by its id."""
    return Answer(_project(await _project_in(call)))


async def _project_in(call: Call) -> Named:
    project_id = f"{uuid4(call.path['project_id'], '/path/project_id')}"
    names = names_of(call.service.store)
    found = await call.service.find(lambda: names.get("project", project_id))
    if found is None:
        raise Problem(404, f"Project {project_id} is not known; expected the id of a project that was created here.")
    _check_name(call, found.name)
    return found


async def _kept(call: Call, kind: Literal["project", "log_stream", "session"], named: Named) -> Named:
    names = names_of(call.service.store)
    await call.service.write(lambda: names.put(kind, named))
    return named


def _name_in(call: Call) -> str:
    name = _document(call.body).get("name")
    if not isinstance(name, str) or not name:
        raise invalid("/body/name", "string_type", "Input should be a valid string that is not empty")
    return records.clean_text(name)


def _log_stream(named: Named) -> dict[str, Json]:
    return {
        "id": named.id,
        "name": named.name,
        "project_id": named.parent,
        "created_by": _USER["id"],
        "created_by_user": dict(_USER),
        "created_at": _SINCE,
        "updated_at": _SINCE,
        "has_user_created_sessions": False,
    }


async def _log_streams_of(call: Call) -> list[Json]:
    owner = await _project_in(call)
    names = names_of(call.service.store)
    return [_log_stream(one) for one in await call.service.find(lambda: names.all("log_stream", owner.id))]


async def log_streams(call: Call) -> Answer:
    """List the log streams of a project."""
    return Answer(await _log_streams_of(call))


async def log_streams_paginated(call: Call) -> Answer:
    """List the log streams of a project as one page."""
    found = await _log_streams_of(call)
    page = {"starting_token": 0, "limit": len(found), "paginated": False, "next_starting_token": None}
    return Answer({"log_streams": found, **page})


async def create_log_stream(call: Call) -> Answer:
    """Return the log stream of this name in a project."""
    owner = await _project_in(call)
    name = _name_in(call)
    named = Named(derived_uuid4("log_stream", owner.id, name), name, owner.id)
    return Answer(_log_stream(await _kept(call, "log_stream", named)))


async def create_session(call: Call) -> Answer:
    """Return a session: the same one for the same external id."""
    owner = await _project_in(call)
    document = _document(call.body)
    for member in ("name", "external_id"):
        _is(document, member, str, "string_type", "Input should be a valid string")
    external, name = document.get("external_id"), document.get("name")
    identifier = _session_uuid(owner.id, external) if external else f"{random_uuid4()}"
    named = Named(identifier, records.clean_text(external or name or identifier), owner.id)
    await _kept(call, "session", named)
    return Answer(
        {
            "id": identifier,
            "name": name,
            "project_id": owner.id,
            "project_name": owner.name,
            "external_id": external,
            "previous_session_id": _id_or_none(document, "previous_session_id"),
            **{one: _id_or_none(document, one) for one in _IDS},
        }
    )


async def search_sessions(call: Call) -> Answer:
    """Find a session by its external id, which is all that the SDK looks for."""
    owner = await _project_in(call)
    filters = _document(call.body).get("filters")
    wanted = [
        one.get("value")
        for one in (filters if isinstance(filters, list) else ())
        if isinstance(one, dict) and "external_id" in (one.get("name"), one.get("column_id"))
    ]
    names = names_of(call.service.store)

    def find() -> list[Named]:
        # A session with an external id has the UUID that follows from it.
        by_id = [names.get("session", _session_uuid(owner.id, one)) for one in wanted if isinstance(one, str)]
        return [one for one in by_id if one is not None] if wanted else names.all("session", owner.id)

    listed: list[Json] = [
        {"type": "session", "id": one.id, "name": one.name, "external_id": one.name, "project_id": owner.id}
        for one in await call.service.find(find)
    ]
    page = {"starting_token": 0, "limit": len(listed), "paginated": False, "next_starting_token": None}
    return Answer({"records": listed, "num_records": len(listed), **page})


def problem_body(problem: Problem) -> object:
    """Return a refusal in the form of FastAPI, which Galileo's server is made with."""
    if problem.pointer is None:
        return {"detail": problem.title}
    place = [int(step) if step.isdecimal() else step for step in problem.pointer.split("/")[1:]]
    return {"detail": [{"type": problem.expected, "loc": place, "msg": problem.title}]}


_Handler: TypeAlias = "Callable[[Call], Awaitable[Answer]]"

_REFUSALS: Final[Mapping[int, str]] = {
    404: "there is no such record",
    422: "the path or the body is not as Galileo's API has it",
}


def _operation(
    method: Literal["GET", "POST", "PATCH"],
    path: str,
    handler: _Handler,
    summary: str,
    scope: Scope | None = "traces:write",
    *,
    max_bytes: int = 4 << 20,
    query: type | None = None,
) -> tuple[Operation, ...]:
    """Return the operation of a path, and the same with `/v2` before it."""
    name = "galileo" + "".join(part.capitalize() for part in handler.__name__.split("_"))
    if "ingest/" in path:
        name += "Directly"
    return tuple(
        Operation(
            method,
            prefix + path,
            name + suffix,
            summary,
            handler,
            scope,
            tag="galileo",
            query=query,
            body=None if method == "GET" else bytes,
            answer=bytes,
            answer_type=JSON,
            problems=_REFUSALS if "{" in path else {422: _REFUSALS[422]} if method != "GET" else {},
            problem_body=problem_body,
            max_bytes=max_bytes,
        )
        for prefix, suffix in (("", ""), ("/v2", "V2"))
    )


_OF_PROJECT: Final = "/projects/{project_id}"
_LARGE: Final = 16 << 20

OPERATIONS: Final[tuple[Operation, ...]] = (
    *_operation("PATCH", f"{_OF_PROJECT}/spans/{{span_id}}", update_span, "Change a stored span.", "traces:update"),
    *_operation("PATCH", f"{_OF_PROJECT}/traces/{{trace_id}}", update_trace, "Change a stored trace.", "traces:update"),
    *_operation("POST", f"{_OF_PROJECT}/traces", ingest_traces, "Store traces.", max_bytes=_LARGE),
    *_operation("POST", f"{_OF_PROJECT}/spans", ingest_spans, "Store spans of a trace.", max_bytes=_LARGE),
    *_operation("POST", "/ingest/traces/{project_id}", ingest_traces, "Store traces.", max_bytes=_LARGE)[:1],
    *_operation("POST", "/ingest/spans/{project_id}", ingest_spans, "Store spans of a trace.", max_bytes=_LARGE)[:1],
    *_operation("GET", "/ingest/healthz", healthcheck, "Say that ingestion answers.", None)[:1],
    *_operation("GET", "/healthcheck", healthcheck, "Say that the server answers.", None),
    *_operation("POST", "/login/api_key", login, "Change an API key for a token.", None),
    *_operation("GET", "/current_user", current_user, "Say who calls."),
    *_operation("GET", "/projects", projects, "List projects.", query=ProjectsQuery),
    *_operation("POST", "/projects", create_project, "Create a project, or return it."),
    *_operation("GET", _OF_PROJECT, project, "Return a project."),
    *_operation("GET", f"{_OF_PROJECT}/log_streams", log_streams, "List log streams."),
    *_operation("GET", f"{_OF_PROJECT}/log_streams/paginated", log_streams_paginated, "List log streams in pages."),
    *_operation("POST", f"{_OF_PROJECT}/log_streams", create_log_stream, "Create a log stream, or return it."),
    *_operation("POST", f"{_OF_PROJECT}/sessions", create_session, "Create a session, or return it."),
    *_operation("POST", f"{_OF_PROJECT}/sessions/search", search_sessions, "Find sessions."),
)
